//! A naive registry: one list of registrations, one of queued slots.

use super::super::Registry;
use super::source;
use crate::event::{Interest, Mode, Token};
use crate::key::Slot;
use crate::poll_bits::PollBits;
use crate::reactor::readiness::latch::Latch;
use crate::selector::Triggers;

/// Calls of a registry. A number picks a slot ever used, live or stale.
#[derive(Clone, Copy, Debug)]
pub(super) enum Action {
    Insert { file: usize, armed: Interest },
    Remove(usize),
    Rearm(usize, Interest),
    QueueFact(usize, PollBits),
    QueuePartial(usize, PollBits),
    QueueCheck(usize, Interest),
    QueueHint(usize),
    Pop,
    BeginRound,
    MarkDirty(usize),
    MarkClean(usize),
    PopDirty,
}

#[derive(Clone, Debug)]
struct Entry {
    slot: Slot,
    file: usize,
    token: Token,
    armed: Interest,
    to_check: Interest,
    fact: PollBits,
    /// The fact is complete.
    is_complete: bool,
    dirty: bool,
}

/// The registry under test, and its expected state.
pub(super) struct ModelPair {
    real: Registry,
    live: Vec<Entry>,
    queue: Vec<Slot>,
    /// Every slot ever used.
    slots: Vec<Slot>,
    retired: usize,
    max_live: usize,
}

impl ModelPair {
    pub(super) fn new(real: Registry) -> Self {
        let max_live = real.slab.entries();
        let (live, queue, slots) = (Vec::new(), Vec::new(), Vec::new());
        ModelPair { real, live, queue, slots, retired: 0, max_live }
    }

    pub(super) fn play(&mut self, action: Action) {
        match action {
            Action::Insert { file, armed } => self.insert(file, armed),
            Action::Remove(pick) => self.remove(pick),
            Action::Rearm(pick, dirs) => {
                let Some(slot) = self.pick(pick) else { return };
                if let Some(registration) = self.real.get_mut(slot) {
                    registration.latch.rearm(dirs);
                }
                self.with(slot, |entry| entry.armed = dirs);
            }
            Action::QueueFact(pick, bits) => {
                let Some(slot) = self.pick(pick) else { return };
                self.real.queue_fact(slot, bits);
                self.enqueue(slot, |entry| {
                    entry.fact |= bits;
                    entry.is_complete = true;
                    entry.to_check |= entry.armed;
                });
            }
            Action::QueuePartial(pick, bits) => {
                let Some(slot) = self.pick(pick) else { return };
                self.real.queue_partial(slot, bits);
                self.enqueue(slot, |entry| {
                    entry.fact |= bits;
                    entry.is_complete = false;
                    entry.to_check |= entry.armed;
                });
            }
            Action::QueueCheck(pick, dirs) => {
                let Some(slot) = self.pick(pick) else { return };
                self.real.queue_check(slot, dirs);
                self.enqueue(slot, |entry| entry.to_check |= dirs);
            }
            Action::QueueHint(pick) => {
                let Some(slot) = self.pick(pick) else { return };
                self.real.queue_hint(slot);
                self.enqueue(slot, |entry| entry.to_check |= entry.armed);
            }
            Action::Pop => self.pop(),
            Action::BeginRound => {
                self.real.begin_round();
                self.live.iter_mut().for_each(|entry| entry.fact = PollBits::empty());
            }
            Action::MarkDirty(pick) => {
                let Some(slot) = self.pick(pick) else { return };
                self.real.mark_dirty(slot);
                self.with(slot, |entry| entry.dirty = true);
            }
            Action::MarkClean(pick) => {
                let Some(slot) = self.pick(pick) else { return };
                self.real.mark_clean(slot);
                self.with(slot, |entry| entry.dirty = false);
            }
            Action::PopDirty => self.pop_dirty(),
        }
    }

    /// Compares every query of the registry with the lists.
    pub(super) fn compare(&self) {
        self.real.verify();
        for &slot in &self.slots {
            let expected = self.live.iter().find(|entry| entry.slot == slot);
            assert_eq!(self.real.get(slot).is_some(), expected.is_some(), "{slot:?}");
            let (Some(real), Some(entry)) = (self.real.get(slot), expected) else { continue };
            assert_eq!((real.token, real.latch.armed()), (entry.token, entry.armed));
            let fact = real.fact_in(self.real.round()).unwrap_or_default();
            assert_eq!(fact, entry.fact, "the fact of {slot:?}");
            let needs_poll = real.needs_poll(self.real.round());
            assert_eq!(needs_poll, !entry.is_complete || fact.is_empty(), "{slot:?} needs a poll");
        }
        for file in 0..super::FILES {
            let expected = self.live.iter().any(|entry| entry.file == file);
            assert_eq!(self.real.is_registered(&source(file)), expected, "file {file}");
        }
        let front = self.real.queue_front(self.real.queue_len());
        let queue: Vec<_> =
            front.map(|(slot, registration)| (slot, registration.to_check())).collect();
        let expected: Vec<_> = self.queue.iter().map(|&slot| (slot, self.to_check(slot))).collect();
        assert_eq!(queue, expected, "FIFO order");
        assert!(self.real.queue_len() >= self.queue.len());
        let mut slots = self.real.slots();
        let mut expected: Vec<_> = self.live.iter().map(|entry| entry.slot).collect();
        slots.sort_by_key(|slot| slot.to_bits());
        expected.sort_by_key(|slot| slot.to_bits());
        assert_eq!(slots, expected);
    }

    fn insert(&mut self, file: usize, armed: Interest) {
        if self.live.iter().any(|entry| entry.file == file) {
            return;
        }
        let slot = self.real.next_slot().expect("there are four billion");
        let token = Token(self.slots.len());
        assert!(!self.slots.contains(&slot), "{slot:?} was used before");
        let index_retired =
            self.slots.iter().any(|old| old.index == slot.index && old.generation == u32::MAX);
        assert!(!index_retired, "{slot:?} has a retired index");
        let latch = Latch::new(Mode::OneShot, armed, Triggers::LEVEL);
        self.real.insert(slot, source(file), token, latch);
        let (to_check, fact) = (Interest::empty(), PollBits::empty());
        self.live.push(Entry {
            slot,
            file,
            token,
            armed,
            to_check,
            fact,
            is_complete: true,
            dirty: false,
        });
        self.slots.push(slot);
        self.max_live = self.max_live.max(self.live.len());
        assert!(slot.index() < self.max_live + self.retired, "{slot:?} skips a free index");
    }

    fn remove(&mut self, pick: usize) {
        let Some(slot) = self.pick(pick) else { return };
        let removed = self.real.remove(slot).map(|source| source.raw_fd());
        let known = self.live.iter().position(|entry| entry.slot == slot);
        let entry = known.map(|at| self.live.remove(at));
        assert_eq!(removed, entry.as_ref().map(|entry| source(entry.file).raw_fd()));
        self.queue.retain(|&queued| queued != slot);
        self.retired += usize::from(entry.is_some() && slot.generation == u32::MAX);
        if entry.is_some() {
            assert!(self.real.queue_len() <= 2 * self.queue.len(), "stale entries pile up");
        }
    }

    fn pop(&mut self) {
        let mut popped = None;
        while popped.is_none() && self.real.queue_len() > 0 {
            popped = self.real.pop_queue();
            self.real.verify();
        }
        let expected = (!self.queue.is_empty()).then(|| self.queue.remove(0));
        let expected = expected.map(|slot| {
            let mut fact = PollBits::empty();
            self.with(slot, |entry| {
                fact = std::mem::take(&mut entry.fact);
                entry.to_check = Interest::empty();
            });
            (slot, fact)
        });
        assert_eq!(popped, expected);
    }

    fn pop_dirty(&mut self) {
        let popped = self.real.pop_dirty();
        let is_any_dirty = self.live.iter().any(|entry| entry.dirty);
        assert_eq!(popped.is_some(), is_any_dirty, "a dirty source is found");
        let Some(slot) = popped else { return };
        let entry = self.live.iter_mut().find(|entry| entry.slot == slot).expect("a live slot");
        assert!(std::mem::take(&mut entry.dirty), "{slot:?} is not dirty");
    }

    fn enqueue(&mut self, slot: Slot, note: impl FnOnce(&mut Entry)) {
        if self.live.iter().any(|entry| entry.slot == slot) && !self.queue.contains(&slot) {
            self.queue.push(slot);
        }
        self.with(slot, note);
    }

    fn with(&mut self, slot: Slot, change: impl FnOnce(&mut Entry)) {
        if let Some(entry) = self.live.iter_mut().find(|entry| entry.slot == slot) {
            change(entry);
        }
    }

    fn to_check(&self, slot: Slot) -> Interest {
        let entry = self.live.iter().find(|entry| entry.slot == slot);
        entry.map_or(Interest::empty(), |entry| entry.to_check & entry.armed)
    }

    /// Picks the newest slots most often.
    fn pick(&self, pick: usize) -> Option<Slot> {
        self.slots.iter().rev().nth(pick).copied()
    }
}
