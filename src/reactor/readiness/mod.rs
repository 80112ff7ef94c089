//! Readiness: registrations, their unreported readiness, and what the kernel watches. This module
//! knows no operation, only the directions that operations await.
//!
//! A report of the kernel is a *fact* (true now, complete for what is armed) or a *hint*, which
//! must be verified. A fact holds for the selector wait that returned it.

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

/// The registrations of one poller, and the queue of sources that may have to be reported.
#[derive(Debug, Default)]
pub(super) struct Readiness {
    registry: Registry,
    verifier: Verifier,
}

/// Registration calls, each for a known slot.
impl Readiness {
    pub(super) fn contains(&self, slot: Slot) -> bool {
        self.registry.get(slot).is_some()
    }

    /// Returns the source and the interest of a registration.
    pub(super) fn source(&self, slot: Slot) -> Option<(&SourceFd, Interest)> {
        let registration = self.registry.get(slot)?;
        Some((&registration.source, registration.latch.interest()))
    }

    /// Registers a source. With an empty interest the selector is not called (R7, R8), and `check`
    /// validates the source.
    ///
    /// # Errors
    ///
    /// `AlreadyExists` if its descriptor is registered; `OutOfMemory`; the errors of the selector
    /// and of `check`.
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
            let text = "this descriptor is already registered";
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
        }
        let Some(slot) = self.registry.next_slot() else {
            return Err(io::Error::new(io::ErrorKind::OutOfMemory, "all slots are used up"));
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
    /// The errors of the selector; the registration is unchanged.
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

    /// Rearms these directions.
    ///
    /// # Errors
    ///
    /// The errors of the selector; the registration is unchanged.
    pub(super) fn rearm<S: Selector>(
        &mut self,
        selector: &mut S,
        slot: Slot,
        dirs: Interest,
    ) -> io::Result<()> {
        self.change(selector, slot, dirs, |latch| latch.rearm(dirs))
    }

    /// Notes that the user's I/O returned `WouldBlock` in these directions. Polls first if an end
    /// was reported, because the end may have passed.
    ///
    /// # Errors
    ///
    /// The errors of the selector and of poll(2); the registration is unchanged.
    pub(super) fn drained<S: Selector>(
        &mut self,
        selector: &mut S,
        slot: Slot,
        dirs: Interest,
    ) -> io::Result<()> {
        if self.registry.get(slot).is_some_and(|its| its.latch.ended().intersects(dirs)) {
            self.verifier.poll_ended(&mut self.registry, &[slot])?;
        }
        self.change(selector, slot, dirs, |latch| latch.drained(dirs))
    }

    /// Removes a registration and returns its source.
    pub(super) fn remove(&mut self, slot: Slot) -> Option<SourceFd> {
        self.registry.remove(slot)
    }

    /// Applies a call of the user to the trigger state, and restores it if the kernel refuses.
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
            Step::Recheck(dirs) => {
                self.registry.queue_check(slot, dirs);
                Ok(())
            }
            Step::Arm => self.reify(selector, slot, named).inspect_err(|_| {
                if let Some(registration) = self.registry.get_mut(slot) {
                    registration.latch = before;
                }
            }),
        }
    }

    /// Makes the kernel watch what the trigger state says. `named` are the directions of a user's
    /// call; they are empty after a delivery.
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
            // The file has lost its edges, so less is to be watched.
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

    /// Notes what the kernel watches now, and queues what the kernel does not report by itself.
    fn note_applied(&mut self, slot: Slot, applied: ArmOutcome, named: Interest) {
        let Some(registration) = self.registry.get(slot) else { return };
        let latch = &registration.latch;
        let mut dirs = (named | latch.unreported()) & latch.armed();
        if applied.needs_poll_each_wait {
            dirs |= latch.unreported() | latch.open();
        }
        dirs |= registration.awaited.awaited();
        // A selector that cannot report these directions cannot report present readiness either.
        if (applied.needs_initial_poll || applied.needs_poll_each_wait) && !dirs.is_empty() {
            self.registry.queue_check(slot, dirs);
        }
        self.registry.set_poll_each_wait(slot, applied.needs_poll_each_wait);
        self.registry.mark_clean(slot);
    }
}

/// The parts of a wait.
impl Readiness {
    /// Queues the sources that must be polled in each wait.
    ///
    /// # Errors
    ///
    /// The errors of poll(2).
    pub(super) fn begin_wait(&mut self) -> io::Result<()> {
        self.registry.begin_wait();
        self.registry.queue_polled_each_wait();
        let listed = self.registry.take_ended();
        let polled = self.verifier.poll_ended(&mut self.registry, &listed);
        self.registry.put_ended(listed);
        polled
    }

    /// Updates the kernel for past deliveries. If the kernel refuses, this wait polls the
    /// source and the next one tries again (P5); other sources are unaffected.
    ///
    /// # Errors
    ///
    /// The last refusal of the selector.
    pub(super) fn reify_all<S: Selector>(&mut self, selector: &mut S) -> io::Result<()> {
        let mut outcome = Ok(());
        for _ in 0..self.registry.dirty_len() {
            let Some(slot) = self.registry.pop_dirty() else { break };
            if let Err(error) = self.reify(selector, slot, Interest::empty()) {
                self.registry.mark_dirty(slot);
                self.registry.queue_unreported(slot);
                outcome = Err(error);
            }
        }
        outcome
    }

    /// Returns true if the user watches a source.
    pub(super) fn is_watching(&self) -> bool {
        self.registry.is_watching()
    }

    /// Begins a selector wait; earlier facts become hints.
    pub(super) fn begin_round(&mut self) {
        self.registry.begin_round();
    }

    /// Queues the selector's reports. `has_more` is true if reports are left in the kernel.
    pub(super) fn on_reports(&mut self, reports: &mut Vec<Report>, has_more: bool) {
        let begun = self.registry.begin_reports();
        for report in reports.drain(..) {
            match report {
                Report::Fact(slot, bits) => self.registry.queue_report(slot, bits),
                Report::Partial(slot, bits) => self.registry.queue_partial(slot, bits),
                Report::Hint(slot) => self.registry.queue_hint(slot),
            }
        }
        self.registry.end_reports(begun, has_more);
    }

    /// Queues every registration, because the kernel has lost reports.
    pub(super) fn on_overflow(&mut self) {
        self.registry.slots().into_iter().for_each(|slot| self.registry.queue_hint(slot));
    }

    /// Returns the length of the queue; some entries may be stale.
    pub(super) fn queue_len(&self) -> usize {
        self.registry.queue_len()
    }

    /// Verifies the first entries of the queue.
    ///
    /// # Errors
    ///
    /// The errors of poll(2); the queue is unchanged.
    pub(super) fn verify_front(&mut self, count: usize) -> io::Result<()> {
        if self.registry.has_hints() {
            self.verifier.verify_front(&mut self.registry, count)
        } else {
            Ok(())
        }
    }

    /// Pops the first entry of the queue with its verified bits; `None` if it is stale.
    pub(super) fn pop(&mut self) -> Option<(Slot, PollBits)> {
        self.registry.pop_queue()
    }

    /// Reports the armed directions that these bits make ready, if any.
    pub(super) fn report(&mut self, key: Key, bits: PollBits, events: &mut Events) {
        let slot = key.slot;
        let Some(registration) = self.registry.get_mut(slot) else { return };
        if registration.latch.interest().is_empty() {
            return;
        }
        let dirs = registration.latch.due(bits);
        if !dirs.is_empty() && !self.registry.note_reported(slot) {
            // A second selector wait has reported it again: keep it for the next wait.
            return self.registry.queue_hint(slot);
        }
        let Some(registration) = self.registry.get_mut(slot) else { return };
        let step = if dirs.is_empty() {
            registration.latch.on_false_report()
        } else {
            events.push(Event { token: registration.token, key, readiness: bits.readiness(dirs) });
            let step = registration.latch.on_delivered(dirs, bits);
            if !registration.latch.ended().is_empty() {
                self.registry.note_ended(slot);
            }
            step
        };
        match step {
            Step::Nothing => {}
            Step::Recheck(dirs) => self.registry.queue_check(slot, dirs),
            Step::Arm => self.registry.mark_dirty(slot),
        }
    }
}

/// The interest of operations.
impl Readiness {
    /// Reports a direction of a source once it is ready.
    pub(super) fn await_ready(&mut self, slot: Slot, dir: Interest) {
        let Some(registration) = self.registry.get_mut(slot) else { return };
        let trigger = registration.latch.trigger();
        if registration.awaited.await_ready(dir, trigger) == Step::Arm {
            self.registry.mark_dirty(slot);
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
        self.registry.queue_check(slot, dir);
    }

    /// Polls every watched direction of a source in this wait or the next.
    pub(super) fn recheck_all(&mut self, slot: Slot) {
        self.registry.queue_hint(slot);
    }

    /// Returns true if a direction is reported as long as it is ready.
    pub(super) fn repeats(&self, slot: Slot, dir: Interest) -> bool {
        self.registry.get(slot).is_some_and(|its| its.latch.by_level().contains(dir))
    }

    /// Notes that a call has probably consumed a direction's readiness. Returns true if new
    /// readiness is certain to be reported.
    pub(super) fn note_likely_not_ready(&mut self, slot: Slot, dir: Interest) -> bool {
        let Some(registration) = self.registry.get_mut(slot) else { return false };
        registration.awaited.note_likely_not_ready(dir);
        registration.awaited.is_likely_not_ready(dir, registration.latch.by_level())
    }

    /// Returns true if a call would probably block and readiness is certain to be reported.
    pub(super) fn can_skip_attempt(&self, slot: Slot, dir: Interest) -> bool {
        self.registry.get(slot).is_some_and(|registration| {
            registration.awaited.is_likely_not_ready(dir, registration.latch.by_level())
        })
    }

    /// Handles verified bits of a source. Returns the ready directions that operations await, and
    /// true if the report may be spurious: then call [`on_spurious`](Readiness::on_spurious) after
    /// the operations were run.
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

    /// Called after the operations awaiting a report were run. A spurious report may end their
    /// interest.
    pub(super) fn on_spurious(&mut self, slot: Slot) {
        let Some(registration) = self.registry.get_mut(slot) else { return };
        let (trigger, by_level) = (registration.latch.trigger(), registration.latch.by_level());
        let awaited = &mut registration.awaited;
        let is_used_up = trigger == Trigger::OneShot && !awaited.awaited().is_empty();
        if awaited.on_served(by_level) == Step::Arm || is_used_up {
            self.registry.mark_dirty(slot);
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

/// Makes the kernel watch these directions, and these ends of others; both may be empty.
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
