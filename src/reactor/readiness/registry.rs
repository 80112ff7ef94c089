//! Who is registered, and whose turn it is: slots with generations, the queue of sources to report,
//! and the list of those whose kernel state lags behind.

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
    /// What operations await.
    pub(super) awaited: AwaitedInterest,
    /// The directions to probe when its turn comes.
    look: Interest,
    marks: Marks,
    fact: PollBits,
    /// The round in which `fact` was true.
    fact_round: u32,
    /// The last wait that has reported it.
    reported_in: u32,
}

bitflags! {
    /// Where a registration stands.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct Marks: u8 {
        /// In the queue.
        const QUEUED = 1;
        /// In the list of those that lag behind.
        const LAGGING = 1 << 1;
        /// The kernel does not tell everything: it is looked at in every wait.
        const BLIND = 1 << 2;
        /// In the list of the blind.
        const AMONG_BLIND = 1 << 3;
        /// There may be more to its fact: it is to be looked at in that round too.
        const PARTIAL = 1 << 4;
        /// In the list of those that were told of an end.
        const AMONG_ENDED = 1 << 5;
    }
}

/// All registrations of one poller.
///
/// A registration is found by its slot and by its file number. A slot stands in the queue at most
/// once. Entries whose generation has passed are skipped when they come
/// up, and swept out when they are the majority.
#[derive(Debug, Default)]
pub(super) struct Registry {
    slab: Slab<Slot, Registration>,
    /// By file number: the index of its slot plus one, or 0.
    by_number: Vec<u32>,
    queue: ReportQueue,
    lagging: VecDeque<Slot>,
    /// Those that are blind, and some that were.
    blind: Vec<Slot>,
    /// Those that were told of an end, and some that were.
    ended: Vec<Slot>,
    /// Facts hold for one round, which is one look into the kernel.
    round: u32,
    /// Something in the queue may be no fact of this round.
    has_hints: bool,
    /// Counts the waits.
    wait: u32,
    /// Counts the registrations with an interest.
    watched: usize,
}

impl Registry {
    pub(super) fn is_registered(&self, source: &SourceFd) -> bool {
        let number = usize::try_from(source.raw_fd()).ok();
        number.and_then(|number| self.by_number.get(number)).is_some_and(|&slot| slot != 0)
    }

    /// The slot that the next [`Registry::insert`] takes. `None` when all four billion are in use.
    pub(super) fn next_slot(&self) -> Option<Slot> {
        self.slab.next_key()
    }

    /// Registers a source, whose number is open and not registered, under the slot that
    /// [`Registry::next_slot`] named.
    pub(super) fn insert(&mut self, slot: Slot, source: SourceFd, token: Token, latch: Latch) {
        debug_assert_eq!(self.next_slot(), Some(slot));
        debug_assert!(!self.is_registered(&source));
        let number = source.raw_fd() as usize;
        if self.by_number.len() <= number {
            self.by_number.resize(number + 1, 0);
        }
        self.by_number[number] = slot.index + 1;
        self.watched += usize::from(!latch.interest().is_empty());
        self.slab.insert(Registration {
            source,
            token,
            latch,
            awaited: AwaitedInterest::default(),
            look: Interest::empty(),
            marks: Marks::empty(),
            fact: PollBits::empty(),
            fact_round: self.round,
            reported_in: self.wait.wrapping_sub(1),
        });
    }

    /// Forgets a registration and gives its source back. The slot never names anything again.
    pub(super) fn remove(&mut self, slot: Slot) -> Option<SourceFd> {
        let registration = self.slab.remove(slot)?;
        self.by_number[registration.source.raw_fd() as usize] = 0;
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

    /// Replaces what the user has asked for.
    pub(super) fn replace(&mut self, slot: Slot, token: Token, latch: Latch) {
        let Some(registration) = self.slab.get_mut(slot) else { return };
        let is_watched = |latch: &Latch| usize::from(!latch.interest().is_empty());
        self.watched += is_watched(&latch);
        self.watched -= is_watched(&registration.latch);
        (registration.token, registration.latch) = (token, latch);
        registration.awaited.start_over();
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

    /// All registrations, for a rescan.
    pub(super) fn slots(&self) -> Vec<Slot> {
        self.slab.iter().map(|(slot, _)| slot).collect()
    }

    /// A new look into the kernel begins: what was a fact is one no longer.
    pub(super) fn begin_round(&mut self) {
        self.round = self.round.wrapping_add(1);
        self.has_hints = !self.queue.is_empty();
    }

    /// Queues a source for which the kernel vouches. Unknown slots are late reports, and ignored.
    pub(super) fn queue_report(&mut self, slot: Slot, bits: PollBits) {
        // Where the kernel watches for an end alone, it shows nothing else.
        self.queue_bits(slot, bits, |its| !its.latch.news(bits).is_empty());
    }

    /// Queues a source of which this is true, and all that matters.
    pub(super) fn queue_fact(&mut self, slot: Slot, bits: PollBits) {
        self.queue_bits(slot, bits, |_| false);
    }

    /// Queues a source of which the kernel has shown a part, for a probe of the rest.
    pub(super) fn queue_seen(&mut self, slot: Slot, bits: PollBits) {
        self.queue_bits(slot, bits, |_| true);
    }

    fn queue_bits(
        &mut self,
        slot: Slot,
        bits: PollBits,
        is_partial: impl Fn(&Registration) -> bool,
    ) {
        let round = self.round;
        // To vouch for nothing is no fact.
        let mut is_hint = bits.is_empty();
        self.enqueue(slot, |registration| {
            let known = registration.fact_in(round).unwrap_or_default();
            (registration.fact, registration.fact_round) = (known | bits, round);
            let is_partial = is_partial(registration);
            registration.set(Marks::PARTIAL, is_partial);
            is_hint |= is_partial;
            // If its turn does not come in this round, the fact has become a reason to look.
            registration.look |= registration.relevant();
        });
        self.has_hints |= is_hint;
    }

    /// Queues a source for a probe of `dirs`.
    pub(super) fn queue_look(&mut self, slot: Slot, dirs: Interest) {
        self.has_hints = true;
        self.enqueue(slot, |registration| registration.look |= dirs);
    }

    /// Queues a source for a probe of everything that may be reported of it.
    pub(super) fn queue_hint(&mut self, slot: Slot) {
        self.has_hints = true;
        self.enqueue(slot, |registration| registration.look |= registration.relevant());
    }

    /// Queues a source for a probe of what has to be reported of it.
    pub(super) fn queue_owed(&mut self, slot: Slot) {
        self.has_hints = true;
        self.enqueue(slot, |registration| {
            let latch = &registration.latch;
            registration.look |= latch.owed() | latch.open() | registration.awaited.awaited();
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

    /// Begins with the reports of a look.
    pub(super) fn begin_reports(&mut self) -> Reports {
        self.queue.begin_reports()
    }

    /// Ends the reports of a look. `has_more` is true if it has left some in the kernel.
    pub(super) fn end_reports(&mut self, reports: Reports, has_more: bool) {
        self.queue.end_reports(reports, has_more);
    }

    /// How many entries the queue has; some may be stale.
    pub(super) fn queue_length(&self) -> usize {
        self.queue.len()
    }

    /// The first `count` entries of the queue, stale ones left out.
    pub(super) fn queue_front(&self, count: usize) -> impl Iterator<Item = (Slot, &Registration)> {
        let front = self.queue.front(count);
        front.filter_map(|slot| self.get(slot).map(|registration| (slot, registration)))
    }

    /// Takes the first entry off the queue, with the bits the kernel vouches for in this round:
    /// empty if there are none. `None` for a stale entry.
    pub(super) fn pop_queue(&mut self) -> Option<(Slot, PollBits)> {
        let slot = self.queue.pop()?;
        let round = self.round;
        let Some(registration) = self.get_mut(slot) else {
            self.queue.note_stale_popped();
            return None;
        };
        let fact = registration.fact_in(round).unwrap_or_default();
        registration.set(Marks::QUEUED, false);
        registration.look = Interest::empty();
        registration.fact = PollBits::empty();
        Some((slot, fact))
    }

    pub(super) fn round(&self) -> u32 {
        self.round
    }

    /// Notes that the kernel watches something else for this source than its latch says.
    pub(super) fn note_lagging(&mut self, slot: Slot) {
        let Some(registration) = self.get_mut(slot) else { return };
        if !registration.set(Marks::LAGGING, true) {
            self.lagging.push_back(slot);
        }
    }

    /// The kernel watches what the latch says. The entry in the list stays, and will be found out
    /// of date.
    pub(super) fn caught_up(&mut self, slot: Slot) {
        if let Some(registration) = self.get_mut(slot) {
            registration.set(Marks::LAGGING, false);
        }
    }

    /// How long the list of those whose kernel state lags is; some entries may be out of date.
    pub(super) fn lagging_length(&self) -> usize {
        self.lagging.len()
    }

    /// Takes the one whose kernel state has lagged longest off the list.
    pub(super) fn pop_lagging(&mut self) -> Option<Slot> {
        loop {
            let slot = self.lagging.pop_front()?;
            let Some(registration) = self.get_mut(slot) else { continue };
            if registration.set(Marks::LAGGING, false) {
                return Some(slot);
            }
        }
    }

    /// Notes whether the source has to be looked at in every wait.
    pub(super) fn set_blind(&mut self, slot: Slot, blind: bool) {
        let Some(registration) = self.get_mut(slot) else { return };
        registration.set(Marks::BLIND, blind);
        if blind && !registration.set(Marks::AMONG_BLIND, true) {
            self.blind.push(slot);
        }
    }

    /// Queues every source that has to be looked at in every wait.
    pub(super) fn queue_blind(&mut self) {
        let listed = std::mem::take(&mut self.blind);
        self.blind = self.still(listed, Marks::AMONG_BLIND, |its| its.is(Marks::BLIND));
        for at in 0..self.blind.len() {
            self.queue_hint(self.blind[at]);
        }
    }

    /// Returns those of a list that are still to be in it, and unmarks the others.
    fn still(
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

    /// Notes whether the source was told of an end.
    pub(super) fn note_ended(&mut self, slot: Slot) {
        let Some(registration) = self.get_mut(slot) else { return };
        let is_ended = !registration.latch.ended().is_empty();
        if is_ended && !registration.set(Marks::AMONG_ENDED, true) {
            self.ended.push(slot);
        }
    }

    /// A look at the directions that were told of an end has found all that is true of them.
    pub(super) fn on_look_at_ended(&mut self, slot: Slot, bits: PollBits) {
        let Some(registration) = self.get_mut(slot) else { return };
        let ended = registration.latch.ended();
        let step = registration.latch.look_at_ended(bits);
        let ready = bits.ready(registration.latch.armed() & ended);
        if step == Step::Arm {
            self.note_lagging(slot);
        }
        if !ready.is_empty() {
            self.queue_look(slot, ready);
        }
    }

    /// Returns the sources that were told of an end, which
    /// [`put_ended`](Registry::put_ended) gives back.
    pub(super) fn take_ended(&mut self) -> Vec<Slot> {
        let listed = std::mem::take(&mut self.ended);
        self.still(listed, Marks::AMONG_ENDED, |its| !its.latch.ended().is_empty())
    }

    pub(super) fn put_ended(&mut self, listed: Vec<Slot>) {
        self.ended = listed;
    }
}

impl Registration {
    fn is(&self, mark: Marks) -> bool {
        self.marks.contains(mark)
    }

    /// Sets a mark, and returns what it was before.
    fn set(&mut self, mark: Marks, value: bool) -> bool {
        let before = self.is(mark);
        self.marks.set(mark, value);
        before
    }

    /// The bits the kernel vouched for in `round`.
    pub(super) fn fact_in(&self, round: u32) -> Option<PollBits> {
        (self.fact_round == round && !self.fact.is_empty()).then_some(self.fact)
    }

    /// Whether it has to be probed in `round` before it can be delivered.
    pub(super) fn is_open(&self, round: u32) -> bool {
        self.is(Marks::PARTIAL) || self.fact_in(round).is_none()
    }

    /// The directions to probe.
    pub(super) fn look(&self) -> Interest {
        let look = self.look & self.relevant();
        if look.is_empty() { look } else { look | self.latch.looked_at_together() }
    }

    /// What the kernel should watch: directions, and ends of others.
    pub(super) fn watched(&self) -> (Interest, PollBits) {
        (self.latch.watched() | self.awaited.watched(), self.latch.ends())
    }

    /// The directions of which it matters whether they are ready.
    fn relevant(&self) -> Interest {
        self.latch.relevant() | self.awaited.watched()
    }
}

#[cfg(any(test, feature = "spi"))]
mod invariants;
#[cfg(test)]
mod tests;
