//! Registrations under slots with generations, the queue of sources to report, and the list of
//! dirty sources, whose kernel state is out of date.

use super::awaited::AwaitedInterest;
use super::latch::{Latch, Step};
use super::queue::{ReportQueue, Reports};
use crate::event::{Interest, Token};
use crate::key::Slot;
use crate::poll_bits::PollBits;
use crate::slab::Slab;
use crate::sys::file::SourceFd;
use bitflags::bitflags;
use std::collections::VecDeque;

/// One registered source.
#[derive(Debug)]
pub(super) struct Registration {
    pub(super) source: SourceFd,
    pub(super) token: Token,
    pub(super) latch: Latch,
    /// The interest of operations.
    pub(super) awaited: AwaitedInterest,
    /// The directions to poll when the source is popped.
    to_check: Interest,
    marks: Marks,
    fact: PollBits,
    /// The round in which `fact` was true.
    fact_round: u32,
    /// The last wait that has reported the source.
    reported_in: u32,
}

bitflags! {
    /// Flags of a registration.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct Marks: u8 {
        /// Is in the queue.
        const QUEUED = 1;
        /// Is in the dirty list.
        const DIRTY = 1 << 1;
        /// Must be polled in each wait, because the kernel does not report everything.
        const POLL_EACH_WAIT = 1 << 2;
        /// Is in the list of sources polled in each wait.
        const IN_POLLED_LIST = 1 << 3;
        /// The fact may be incomplete: poll in its round too.
        const PARTIAL = 1 << 4;
        /// Is in the list of sources whose end was reported.
        const IN_ENDED_LIST = 1 << 5;
    }
}

/// All registrations of one poller.
///
/// A registration is found by its slot and by its descriptor. A slot is in the queue at most once.
/// Stale entries are skipped when popped, and removed once they are the majority.
#[derive(Debug, Default)]
pub(super) struct Registry {
    slab: Slab<Slot, Registration>,
    /// By descriptor: the index of its slot plus one, or 0.
    by_fd: Vec<u32>,
    queue: ReportQueue,
    dirty: VecDeque<Slot>,
    /// The sources polled in each wait, and stale entries.
    polled_each_wait: Vec<Slot>,
    /// The sources whose end was reported, and stale entries.
    ended: Vec<Slot>,
    /// Facts hold for one round, which is one selector wait.
    round: u32,
    /// True if the queue may hold an entry without a fact of this round.
    has_hints: bool,
    /// Counts the waits.
    wait: u32,
    /// Counts the registrations with an interest.
    watched: usize,
}

impl Registry {
    pub(super) fn is_registered(&self, source: &SourceFd) -> bool {
        let number = usize::try_from(source.raw_fd()).ok();
        number.and_then(|number| self.by_fd.get(number)).is_some_and(|&slot| slot != 0)
    }

    /// Returns the slot for the next [`Registry::insert`]; `None` if all four billion are used.
    pub(super) fn next_slot(&self) -> Option<Slot> {
        self.slab.next_key()
    }

    /// Registers a source, whose descriptor is open and not registered, under the slot returned by
    /// [`Registry::next_slot`].
    pub(super) fn insert(&mut self, slot: Slot, source: SourceFd, token: Token, latch: Latch) {
        debug_assert_eq!(self.next_slot(), Some(slot));
        debug_assert!(!self.is_registered(&source));
        let number = source.raw_fd() as usize;
        if self.by_fd.len() <= number {
            self.by_fd.resize(number + 1, 0);
        }
        self.by_fd[number] = slot.index + 1;
        self.watched += usize::from(!latch.interest().is_empty());
        self.slab.insert(Registration {
            source,
            token,
            latch,
            awaited: AwaitedInterest::default(),
            to_check: Interest::empty(),
            marks: Marks::empty(),
            fact: PollBits::empty(),
            fact_round: self.round,
            reported_in: self.wait.wrapping_sub(1),
        });
    }

    /// Removes a registration and returns its source. The slot is never used again.
    pub(super) fn remove(&mut self, slot: Slot) -> Option<SourceFd> {
        let registration = self.slab.remove(slot)?;
        self.by_fd[registration.source.raw_fd() as usize] = 0;
        self.watched -= usize::from(!registration.latch.interest().is_empty());
        let is_queued = registration.is(Marks::QUEUED);
        self.queue.on_removed(is_queued, |slot| self.slab.get(slot).is_some());
        Some(registration.source)
    }

    pub(super) fn get(&self, slot: Slot) -> Option<&Registration> {
        self.slab.get(slot)
    }

    pub(super) fn get_mut(&mut self, slot: Slot) -> Option<&mut Registration> {
        self.slab.get_mut(slot)
    }

    /// Replaces token and trigger state.
    pub(super) fn replace(&mut self, slot: Slot, token: Token, latch: Latch) {
        let Some(registration) = self.slab.get_mut(slot) else { return };
        let is_watched = |latch: &Latch| usize::from(!latch.interest().is_empty());
        self.watched += is_watched(&latch);
        self.watched -= is_watched(&registration.latch);
        (registration.token, registration.latch) = (token, latch);
        registration.awaited.reset();
    }

    /// Returns true if the user watches a source.
    pub(super) fn is_watching(&self) -> bool {
        self.watched > 0
    }

    pub(super) fn begin_wait(&mut self) {
        self.wait = self.wait.wrapping_add(1);
    }

    /// Notes that this wait reports a source. Returns false if it has done so already (H4).
    pub(super) fn note_reported(&mut self, slot: Slot) -> bool {
        let wait = self.wait;
        let Some(registration) = self.get_mut(slot) else { return false };
        std::mem::replace(&mut registration.reported_in, wait) != wait
    }

    /// Returns all registrations, for a rescan.
    pub(super) fn slots(&self) -> Vec<Slot> {
        self.slab.iter().map(|(slot, _)| slot).collect()
    }

    /// Begins a selector wait; earlier facts become hints.
    pub(super) fn begin_round(&mut self) {
        self.round = self.round.wrapping_add(1);
        self.has_hints = !self.queue.is_empty();
    }

    /// Queues a source with a fact of the kernel. Unknown slots are late reports, and ignored.
    pub(super) fn queue_report(&mut self, slot: Slot, bits: PollBits) {
        // Where the kernel watches only for an end, it reports nothing else.
        self.queue_bits(slot, bits, |its| !its.latch.changed(bits).is_empty());
    }

    /// Queues a source with all its true bits that matter.
    pub(super) fn queue_fact(&mut self, slot: Slot, bits: PollBits) {
        self.queue_bits(slot, bits, |_| false);
    }

    /// Queues a source of which the kernel reported a part; the rest is polled.
    pub(super) fn queue_partial(&mut self, slot: Slot, bits: PollBits) {
        self.queue_bits(slot, bits, |_| true);
    }

    fn queue_bits(
        &mut self,
        slot: Slot,
        bits: PollBits,
        is_partial: impl Fn(&Registration) -> bool,
    ) {
        let round = self.round;
        // A report without bits is no fact.
        let mut is_hint = bits.is_empty();
        self.enqueue(slot, |registration| {
            let known = registration.fact_in(round).unwrap_or_default();
            (registration.fact, registration.fact_round) = (known | bits, round);
            let is_partial = is_partial(registration);
            registration.set(Marks::PARTIAL, is_partial);
            is_hint |= is_partial;
            // If the source is not popped in this round, the fact becomes a hint.
            registration.to_check |= registration.relevant();
        });
        self.has_hints |= is_hint;
    }

    /// Queues a source for a poll of `dirs`.
    pub(super) fn queue_check(&mut self, slot: Slot, dirs: Interest) {
        self.has_hints = true;
        self.enqueue(slot, |registration| registration.to_check |= dirs);
    }

    /// Queues a source for a poll of everything that may be reported of it.
    pub(super) fn queue_hint(&mut self, slot: Slot) {
        self.has_hints = true;
        self.enqueue(slot, |registration| registration.to_check |= registration.relevant());
    }

    /// Queues a source for a poll of its unreported directions.
    pub(super) fn queue_unreported(&mut self, slot: Slot) {
        self.has_hints = true;
        self.enqueue(slot, |registration| {
            let latch = &registration.latch;
            registration.to_check |=
                latch.unreported() | latch.open() | registration.awaited.awaited();
        });
    }

    fn enqueue(&mut self, slot: Slot, note: impl FnOnce(&mut Registration)) {
        let Some(registration) = self.get_mut(slot) else { return };
        note(registration);
        if !registration.set(Marks::QUEUED, true) {
            self.queue.push(slot);
        }
    }

    /// Returns true if something in the queue may have to be verified.
    pub(super) fn has_hints(&self) -> bool {
        self.has_hints
    }

    /// Begins the reports of a selector wait.
    pub(super) fn begin_reports(&mut self) -> Reports {
        self.queue.begin_reports()
    }

    /// Ends the reports of a selector wait. `has_more` is true if some are left in the kernel.
    pub(super) fn end_reports(&mut self, reports: Reports, has_more: bool) {
        self.queue.end_reports(reports, has_more);
    }

    /// Returns the length of the queue; some entries may be stale.
    pub(super) fn queue_len(&self) -> usize {
        self.queue.len()
    }

    /// Returns the first `count` entries of the queue without stale ones.
    pub(super) fn queue_front(&self, count: usize) -> impl Iterator<Item = (Slot, &Registration)> {
        let front = self.queue.front(count);
        front.filter_map(|slot| self.get(slot).map(|registration| (slot, registration)))
    }

    /// Pops the first entry of the queue with the bits of its fact in this round, empty if there is
    /// none. `None` for a stale entry.
    pub(super) fn pop_queue(&mut self) -> Option<(Slot, PollBits)> {
        let slot = self.queue.pop()?;
        let round = self.round;
        let Some(registration) = self.get_mut(slot) else {
            self.queue.note_stale_popped();
            return None;
        };
        let fact = registration.fact_in(round).unwrap_or_default();
        registration.set(Marks::QUEUED, false);
        registration.to_check = Interest::empty();
        registration.fact = PollBits::empty();
        Some((slot, fact))
    }

    pub(super) fn round(&self) -> u32 {
        self.round
    }

    /// Notes that the kernel does not watch what the trigger state of this source says.
    pub(super) fn mark_dirty(&mut self, slot: Slot) {
        let Some(registration) = self.get_mut(slot) else { return };
        if !registration.set(Marks::DIRTY, true) {
            self.dirty.push_back(slot);
        }
    }

    /// Notes that the kernel watches what the trigger state says. The list's entry stays and is
    /// then stale.
    pub(super) fn mark_clean(&mut self, slot: Slot) {
        if let Some(registration) = self.get_mut(slot) {
            registration.set(Marks::DIRTY, false);
        }
    }

    /// Returns the length of the dirty list; some entries may be stale.
    pub(super) fn dirty_len(&self) -> usize {
        self.dirty.len()
    }

    /// Pops the source that has been dirty longest.
    pub(super) fn pop_dirty(&mut self) -> Option<Slot> {
        loop {
            let slot = self.dirty.pop_front()?;
            let Some(registration) = self.get_mut(slot) else { continue };
            if registration.set(Marks::DIRTY, false) {
                return Some(slot);
            }
        }
    }

    /// Sets whether the source must be polled in each wait.
    pub(super) fn set_poll_each_wait(&mut self, slot: Slot, polled_each_wait: bool) {
        let Some(registration) = self.get_mut(slot) else { return };
        registration.set(Marks::POLL_EACH_WAIT, polled_each_wait);
        if polled_each_wait && !registration.set(Marks::IN_POLLED_LIST, true) {
            self.polled_each_wait.push(slot);
        }
    }

    /// Queues every source that must be polled in each wait.
    pub(super) fn queue_polled_each_wait(&mut self) {
        let listed = std::mem::take(&mut self.polled_each_wait);
        self.polled_each_wait =
            self.retain_listed(listed, Marks::IN_POLLED_LIST, |its| its.is(Marks::POLL_EACH_WAIT));
        for at in 0..self.polled_each_wait.len() {
            self.queue_hint(self.polled_each_wait[at]);
        }
    }

    /// Returns the entries of a list that are to stay, and unmarks the others.
    fn retain_listed(
        &mut self,
        mut listed: Vec<Slot>,
        mark: Marks,
        stays: impl Fn(&Registration) -> bool,
    ) -> Vec<Slot> {
        listed.retain(|&slot| {
            let Some(registration) = self.get_mut(slot) else { return false };
            let stays = stays(registration);
            registration.set(mark, stays);
            stays
        });
        listed
    }

    /// Lists the source if its end was reported.
    pub(super) fn note_ended(&mut self, slot: Slot) {
        let Some(registration) = self.get_mut(slot) else { return };
        let is_ended = !registration.latch.ended().is_empty();
        if is_ended && !registration.set(Marks::IN_ENDED_LIST, true) {
            self.ended.push(slot);
        }
    }

    /// Notes that a poll of the ended directions found exactly `bits`.
    pub(super) fn on_ended_polled(&mut self, slot: Slot, bits: PollBits) {
        let Some(registration) = self.get_mut(slot) else { return };
        let ended = registration.latch.ended();
        let step = registration.latch.on_ended_polled(bits);
        let ready = bits.ready(registration.latch.armed() & ended);
        if step == Step::Arm {
            self.mark_dirty(slot);
        }
        if !ready.is_empty() {
            self.queue_check(slot, ready);
        }
    }

    /// Takes the sources whose end was reported; [`put_ended`](Registry::put_ended) returns them.
    pub(super) fn take_ended(&mut self) -> Vec<Slot> {
        let listed = std::mem::take(&mut self.ended);
        self.retain_listed(listed, Marks::IN_ENDED_LIST, |its| !its.latch.ended().is_empty())
    }

    pub(super) fn put_ended(&mut self, listed: Vec<Slot>) {
        self.ended = listed;
    }
}

impl Registration {
    fn is(&self, mark: Marks) -> bool {
        self.marks.contains(mark)
    }

    /// Sets a mark and returns its old value.
    fn set(&mut self, mark: Marks, value: bool) -> bool {
        let before = self.is(mark);
        self.marks.set(mark, value);
        before
    }

    /// Returns the bits of the fact of `round`.
    pub(super) fn fact_in(&self, round: u32) -> Option<PollBits> {
        (self.fact_round == round && !self.fact.is_empty()).then_some(self.fact)
    }

    /// Returns true if the source must be polled in `round` before delivery.
    pub(super) fn needs_poll(&self, round: u32) -> bool {
        self.is(Marks::PARTIAL) || self.fact_in(round).is_none()
    }

    /// Returns the directions to poll.
    pub(super) fn to_check(&self) -> Interest {
        let to_check = self.to_check & self.relevant();
        if to_check.is_empty() { to_check } else { to_check | self.latch.checked_together() }
    }

    /// Returns what the kernel should watch: directions, and ends of others.
    pub(super) fn watched(&self) -> (Interest, PollBits) {
        (self.latch.watched() | self.awaited.watched(), self.latch.ends())
    }

    /// Returns the directions whose readiness matters.
    fn relevant(&self) -> Interest {
        self.latch.relevant() | self.awaited.watched()
    }
}

#[cfg(any(test, feature = "spi"))]
mod invariants;
#[cfg(test)]
mod tests;
