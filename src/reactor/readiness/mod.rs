//! Readiness: what is registered, what has to be reported of it, and what the kernel watches. It
//! knows no operation: of those it knows the directions that they await.
//!
//! A report of the kernel is a *fact* (true now, complete for what is armed) or a *hint*, which
//! must be verified. A fact holds for the look into the kernel that brought it.

mod awaited;
mod latch;
mod queue;
mod registry;
mod shown;
mod verify;

use crate::event::{Event, Events, Interest, Mode, Token};
use crate::key::{Key, Slot};
use crate::poll_bits::PollBits;
use crate::selector::{ArmOutcome, ArmRequest, Report, Selector, Trigger};
use crate::sys::file::SourceFd;
use latch::{Latch, Step};
use registry::Registry;
use std::io;
use std::os::fd::BorrowedFd;
use verify::Verifier;

/// The registrations of one poller, and the queue of what may have to be reported.
#[derive(Debug, Default)]
pub(super) struct Readiness {
    registry: Registry,
    verifier: Verifier,
}

/// Registration calls, each under a slot that is known.
impl Readiness {
    pub(super) fn contains(&self, slot: Slot) -> bool {
        self.registry.get(slot).is_some()
    }

    /// Returns the source and the interest of a registration.
    pub(super) fn source(&self, slot: Slot) -> Option<(&SourceFd, Interest)> {
        let registration = self.registry.get(slot)?;
        Some((&registration.source, registration.latch.interest()))
    }

    /// Registers a source. A selector checks what it is given, but gets nothing where the interest
    /// is empty (R7, R8): then `check` does.
    ///
    /// # Errors
    ///
    /// `AlreadyExists` if its descriptor is registered; `OutOfMemory`; what the selector says, or
    /// `check`.
    pub(super) fn register<S: Selector>(
        &mut self,
        selector: &mut S,
        source: SourceFd,
        token: Token,
        interest: Interest,
        mode: Mode,
        check: impl FnOnce(BorrowedFd<'_>) -> io::Result<()>,
    ) -> io::Result<Slot> {
        if self.registry.is_registered(&source) {
            let text = "this file number is registered already";
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
        }
        let Some(slot) = self.registry.next_slot() else {
            return Err(io::Error::new(io::ErrorKind::OutOfMemory, "every slot has been used"));
        };
        let mut latch = Latch::new(mode, interest, selector.native());
        if interest.is_empty() {
            check(source.fd())?;
        }
        let watched = (latch.watched(), latch.ends());
        let applied = arm(selector, slot, &source, watched, latch.trigger())?;
        latch.fix_trigger(applied.trigger, applied.level);
        self.registry.insert(slot, source, token, latch);
        self.note_applied(slot, applied, interest);
        Ok(slot)
    }

    /// Replaces token, interest and mode.
    ///
    /// # Errors
    ///
    /// What the selector says; the registration is as before.
    pub(super) fn modify<S: Selector>(
        &mut self,
        selector: &mut S,
        slot: Slot,
        token: Token,
        interest: Interest,
        mode: Mode,
    ) -> io::Result<()> {
        let mut latch = Latch::new(mode, interest, selector.native());
        let Some(registration) = self.registry.get_mut(slot) else { return Ok(()) };
        let watched = (latch.watched() | registration.awaited.awaited(), latch.ends());
        let applied = arm(selector, slot, &registration.source, watched, latch.trigger())?;
        latch.fix_trigger(applied.trigger, applied.level);
        let awaited = registration.awaited.awaited();
        selector.note_awaited(slot, registration.source.fd(), awaited);
        self.registry.replace(slot, token, latch);
        self.note_applied(slot, applied, interest);
        Ok(())
    }

    /// Arms these directions anew.
    ///
    /// # Errors
    ///
    /// What the selector says; the registration is as before.
    pub(super) fn rearm<S: Selector>(
        &mut self,
        selector: &mut S,
        slot: Slot,
        dirs: Interest,
    ) -> io::Result<()> {
        self.change(selector, slot, dirs, |latch| latch.rearm(dirs))
    }

    /// Notes that the user's I/O said `WouldBlock` in these directions. If it was told of an end,
    /// that may have passed.
    ///
    /// # Errors
    ///
    /// What the selector says, or poll(2); the registration is as before.
    pub(super) fn drained<S: Selector>(
        &mut self,
        selector: &mut S,
        slot: Slot,
        dirs: Interest,
    ) -> io::Result<()> {
        if self.registry.get(slot).is_some_and(|its| its.latch.ended().intersects(dirs)) {
            self.verifier.look_at_ended(&mut self.registry, &[slot])?;
        }
        self.change(selector, slot, dirs, |latch| latch.drained(dirs))
    }

    /// Forgets a registration, and returns its source.
    pub(super) fn remove(&mut self, slot: Slot) -> Option<SourceFd> {
        self.registry.remove(slot)
    }

    /// Changes the trigger state by a call of the user's. If the kernel refuses, it is as before.
    fn change<S: Selector>(
        &mut self,
        selector: &mut S,
        slot: Slot,
        named: Interest,
        change: impl FnOnce(&mut Latch) -> Step,
    ) -> io::Result<()> {
        let Some(registration) = self.registry.get_mut(slot) else { return Ok(()) };
        let before = registration.latch;
        match change(&mut registration.latch) {
            Step::Nothing => Ok(()),
            Step::Look(dirs) => {
                self.registry.queue_look(slot, dirs);
                Ok(())
            }
            Step::Arm => self.reify(selector, slot, named).inspect_err(|_| {
                if let Some(registration) = self.registry.get_mut(slot) {
                    registration.latch = before;
                }
            }),
        }
    }

    /// Makes the kernel watch what the registration's trigger state says. A call of the user's has
    /// named directions; a delivery names none.
    fn reify<S: Selector>(
        &mut self,
        selector: &mut S,
        slot: Slot,
        named: Interest,
    ) -> io::Result<()> {
        let Some(registration) = self.registry.get_mut(slot) else { return Ok(()) };
        let (watched, trigger) = (registration.watched(), registration.latch.trigger());
        let mut applied = arm(selector, slot, &registration.source, watched, trigger)?;
        if !watched.0.is_empty() {
            registration.latch.fix_trigger(applied.trigger, applied.level);
        }
        let (now, trigger) = (registration.watched(), registration.latch.trigger());
        if now != watched {
            // The mechanism has lost the file's edges, so that less is to be watched.
            applied = arm(selector, slot, &registration.source, now, trigger)?;
        }
        let awaited = registration.awaited.watched();
        selector.note_awaited(slot, registration.source.fd(), awaited);
        if now != watched {
            self.registry.note_ended(slot);
        }
        self.note_applied(slot, applied, named);
        Ok(())
    }

    /// Notes what the kernel watches now, and queues what it does not report by itself.
    fn note_applied(&mut self, slot: Slot, applied: ArmOutcome, named: Interest) {
        let Some(registration) = self.registry.get(slot) else { return };
        let latch = &registration.latch;
        let mut dirs = (named | latch.owed()) & latch.armed();
        if applied.blind {
            dirs |= latch.owed() | latch.open();
        }
        dirs |= registration.awaited.awaited();
        // A selector that cannot report these directions cannot report present readiness either.
        if (applied.look || applied.blind) && !dirs.is_empty() {
            self.registry.queue_look(slot, dirs);
        }
        self.registry.set_blind(slot, applied.blind);
        self.registry.caught_up(slot);
    }
}

/// The parts of a wait.
impl Readiness {
    /// Queues what has to be polled in each wait.
    ///
    /// # Errors
    ///
    /// What poll(2) says.
    pub(super) fn begin_wait(&mut self) -> io::Result<()> {
        self.registry.begin_wait();
        self.registry.queue_blind();
        let listed = self.registry.take_ended();
        let looked = self.verifier.look_at_ended(&mut self.registry, &listed);
        self.registry.put_ended(listed);
        looked
    }

    /// Tells the kernel what deliveries have changed. Where it refuses, this wait polls by itself
    /// and the next one tries again (P5); no other source is hindered.
    ///
    /// # Errors
    ///
    /// What the selector says of the last one that it refused.
    pub(super) fn reify_all<S: Selector>(&mut self, selector: &mut S) -> io::Result<()> {
        let mut outcome = Ok(());
        for _ in 0..self.registry.lagging_length() {
            let Some(slot) = self.registry.pop_lagging() else { break };
            if let Err(error) = self.reify(selector, slot, Interest::empty()) {
                self.registry.note_lagging(slot);
                self.registry.queue_owed(slot);
                outcome = Err(error);
            }
        }
        outcome
    }

    /// Returns true if the user watches a source.
    pub(super) fn is_watching(&self) -> bool {
        self.registry.is_watching()
    }

    /// Begins a look into the kernel: earlier facts are hints from now on.
    pub(super) fn begin_look(&mut self) {
        self.registry.begin_round();
    }

    /// Queues what the selector has reported. `has_more` is true if it has left reports in the
    /// kernel.
    pub(super) fn on_reports(&mut self, reports: &mut Vec<Report>, has_more: bool) {
        let begun = self.registry.begin_reports();
        for report in reports.drain(..) {
            match report {
                Report::Fact(slot, bits) => self.registry.queue_report(slot, bits),
                Report::Partial(slot, bits) => self.registry.queue_seen(slot, bits),
                Report::Hint(slot) => self.registry.queue_hint(slot),
            }
        }
        self.registry.end_reports(begun, has_more);
    }

    /// Queues every registration: the kernel has lost reports.
    pub(super) fn on_overflow(&mut self) {
        self.registry.slots().into_iter().for_each(|slot| self.registry.queue_hint(slot));
    }

    /// Returns the length of the queue; some entries may be stale.
    pub(super) fn queue_len(&self) -> usize {
        self.registry.queue_length()
    }

    /// Verifies the first entries of the queue.
    ///
    /// # Errors
    ///
    /// What poll(2) says; the queue is as before.
    pub(super) fn verify_front(&mut self, count: usize) -> io::Result<()> {
        match self.registry.has_hints() {
            true => self.verifier.verify_front(&mut self.registry, count),
            false => Ok(()),
        }
    }

    /// Takes the first entry of the queue, with what is true of it; `None` if it is stale.
    pub(super) fn pop(&mut self) -> Option<(Slot, PollBits)> {
        self.registry.pop_queue()
    }

    /// Reports what these bits say of the armed directions, if anything.
    pub(super) fn report(&mut self, key: Key, bits: PollBits, events: &mut Events) {
        let slot = key.slot;
        let Some(registration) = self.registry.get_mut(slot) else { return };
        if registration.latch.interest().is_empty() {
            return;
        }
        let dirs = registration.latch.due(bits);
        if !dirs.is_empty() && !self.registry.note_reported(slot) {
            // A second look has found it again: that is for the next wait.
            return self.registry.queue_hint(slot);
        }
        let Some(registration) = self.registry.get_mut(slot) else { return };
        let step = if dirs.is_empty() {
            registration.latch.missed()
        } else {
            events.push(Event { token: registration.token, key, readiness: bits.readiness(dirs) });
            let step = registration.latch.delivered(dirs, bits);
            if !registration.latch.ended().is_empty() {
                self.registry.note_ended(slot);
            }
            step
        };
        match step {
            Step::Nothing => {}
            Step::Look(dirs) => self.registry.queue_look(slot, dirs),
            Step::Arm => self.registry.note_lagging(slot),
        }
    }
}

/// What operations await.
impl Readiness {
    /// Reports a direction of a source once it is ready.
    pub(super) fn await_ready(&mut self, slot: Slot, dir: Interest) {
        let Some(registration) = self.registry.get_mut(slot) else { return };
        let trigger = registration.latch.trigger();
        if registration.awaited.await_ready(dir, trigger) == Step::Arm {
            self.registry.note_lagging(slot);
        }
    }

    pub(super) fn stop_awaiting(&mut self, slot: Slot, dir: Interest) {
        if let Some(registration) = self.registry.get_mut(slot) {
            registration.awaited.stop_awaiting(dir);
        }
    }

    /// Returns the directions of a source that operations await.
    #[cfg(any(test, feature = "spi"))]
    pub(super) fn awaited(&self, slot: Slot) -> Interest {
        self.registry.get(slot).map_or(Interest::empty(), |its| its.awaited.awaited())
    }

    /// Polls a direction of a source in this wait or the next.
    pub(super) fn recheck(&mut self, slot: Slot, dir: Interest) {
        self.registry.queue_look(slot, dir);
    }

    /// Polls whatever is watched of a source in this wait or the next.
    pub(super) fn recheck_all(&mut self, slot: Slot) {
        self.registry.queue_hint(slot);
    }

    /// Returns true if a direction is reported as long as it is ready.
    pub(super) fn repeats(&self, slot: Slot, dir: Interest) -> bool {
        self.registry.get(slot).is_some_and(|its| its.latch.by_level().contains(dir))
    }

    /// Notes that a call has probably used up what there was of a direction. Returns true if
    /// readiness will be reported for certain.
    pub(super) fn note_likely_not_ready(&mut self, slot: Slot, dir: Interest) -> bool {
        let Some(registration) = self.registry.get_mut(slot) else { return false };
        registration.awaited.note_likely_not_ready(dir);
        registration.awaited.is_likely_not_ready(dir, registration.latch.by_level())
    }

    /// Returns true if a call would probably block, and readiness will be reported for certain.
    pub(super) fn can_skip_attempt(&self, slot: Slot, dir: Interest) -> bool {
        self.registry.get(slot).is_some_and(|registration| {
            registration.awaited.is_likely_not_ready(dir, registration.latch.by_level())
        })
    }

    /// Notes what is true of a source. Returns the directions that operations await and that are
    /// ready, and true if the report may be spurious: then [`on_spurious`](Readiness::on_spurious)
    /// is to be called when the operations were run.
    pub(super) fn on_report(&mut self, slot: Slot, bits: PollBits) -> (Interest, bool) {
        let none = (Interest::empty(), false);
        let Some(registration) = self.registry.get_mut(slot) else { return none };
        let watched = registration.awaited.watched();
        if watched.is_empty() {
            return none;
        }
        let ready = bits.ready(watched);
        let is_spurious = registration.awaited.on_report(ready);
        (ready, is_spurious || registration.latch.trigger() == Trigger::OneShot)
    }

    /// Called after the operations that a report was for were run: a spurious one may end what is
    /// watched for them.
    pub(super) fn on_spurious(&mut self, slot: Slot) {
        let Some(registration) = self.registry.get_mut(slot) else { return };
        let (trigger, by_level) = (registration.latch.trigger(), registration.latch.by_level());
        let awaited = &mut registration.awaited;
        let is_used_up = trigger == Trigger::OneShot && !awaited.awaited().is_empty();
        if awaited.on_served(by_level) == Step::Arm || is_used_up {
            self.registry.note_lagging(slot);
        }
    }

    #[cfg(any(test, feature = "spi"))]
    pub(super) fn verify(&self) {
        self.registry.verify();
    }

    #[cfg(test)]
    pub(super) fn slots(&self) -> Vec<Slot> {
        self.registry.slots()
    }
}

/// Makes the kernel watch these directions, and these ends of others. There may be none.
fn arm<S: Selector>(
    selector: &mut S,
    slot: Slot,
    source: &SourceFd,
    (dirs, ends): (Interest, PollBits),
    trigger: Trigger,
) -> io::Result<ArmOutcome> {
    if dirs.is_empty() && ends.is_empty() {
        selector.disarm(slot, source.fd());
        return Ok(ArmOutcome::whole(trigger));
    }
    selector.arm(slot, source.fd(), ArmRequest { dirs, ends, trigger })
}
