//! A registry without arithmetic: one list of registrations, one of queued slots.

use super::super::Registry;
use super::source;
use crate::event::{Interest, Mode, Token};
use crate::key::Slot;
use crate::poll_bits::PollBits;
use crate::reactor::readiness::latch::Latch;
use crate::selector::Triggers;

/// What can be done with a registry. A number picks one of the slots ever given out, live or dead.
#[derive(Clone, Copy, Debug)]
pub(super) enum Op {
    Insert { file: usize, armed: Interest },
    Remove(usize),
    Rearm(usize, Interest),
    QueueFact(usize, PollBits),
    QueueSeen(usize, PollBits),
    QueueLook(usize, Interest),
    QueueHint(usize),
    Pop,
    BeginRound,
    NoteLagging(usize),
    CaughtUp(usize),
    PopLagging,
}

#[derive(Clone, Debug)]
struct Entry {
    slot: Slot,
    file: usize,
    token: Token,
    armed: Interest,
    look: Interest,
    fact: PollBits,
    /// The fact is the whole truth.
    whole: bool,
    lagging: bool,
}

/// The registry under test, and what it should be.
pub(super) struct Pair {
    real: Registry,
    live: Vec<Entry>,
    queue: Vec<Slot>,
    /// Every slot ever given out.
    slots: Vec<Slot>,
    retired: usize,
    most_live: usize,
}

impl Pair {
    pub(super) fn new(real: Registry) -> Self {
        let most_live = real.slab.entries();
        let (live, queue, slots) = (Vec::new(), Vec::new(), Vec::new());
        Pair { real, live, queue, slots, retired: 0, most_live }
    }

    pub(super) fn play(&mut self, op: Op) {
        match op {
            Op::Insert { file, armed } => self.insert(file, armed),
            Op::Remove(pick) => self.remove(pick),
            Op::Rearm(pick, dirs) => {
                let Some(slot) = self.pick(pick) else { return };
                if let Some(registration) = self.real.get_mut(slot) {
                    registration.latch.rearm(dirs);
                }
                self.with(slot, |entry| entry.armed = dirs);
            }
            Op::QueueFact(pick, bits) => {
                let Some(slot) = self.pick(pick) else { return };
                self.real.queue_fact(slot, bits);
                self.enqueue(slot, |entry| {
                    entry.fact |= bits;
                    entry.whole = true;
                    entry.look |= entry.armed;
                });
            }
            Op::QueueSeen(pick, bits) => {
                let Some(slot) = self.pick(pick) else { return };
                self.real.queue_seen(slot, bits);
                self.enqueue(slot, |entry| {
                    entry.fact |= bits;
                    entry.whole = false;
                    entry.look |= entry.armed;
                });
            }
            Op::QueueLook(pick, dirs) => {
                let Some(slot) = self.pick(pick) else { return };
                self.real.queue_look(slot, dirs);
                self.enqueue(slot, |entry| entry.look |= dirs);
            }
            Op::QueueHint(pick) => {
                let Some(slot) = self.pick(pick) else { return };
                self.real.queue_hint(slot);
                self.enqueue(slot, |entry| entry.look |= entry.armed);
            }
            Op::Pop => self.pop(),
            Op::BeginRound => {
                self.real.begin_round();
                self.live.iter_mut().for_each(|entry| entry.fact = PollBits::empty());
            }
            Op::NoteLagging(pick) => {
                let Some(slot) = self.pick(pick) else { return };
                self.real.note_lagging(slot);
                self.with(slot, |entry| entry.lagging = true);
            }
            Op::CaughtUp(pick) => {
                let Some(slot) = self.pick(pick) else { return };
                self.real.caught_up(slot);
                self.with(slot, |entry| entry.lagging = false);
            }
            Op::PopLagging => self.pop_lagging(),
        }
    }

    /// Everything that can be asked of the registry, against the lists.
    pub(super) fn compare(&self) {
        self.real.verify();
        for &slot in &self.slots {
            let expected = self.live.iter().find(|entry| entry.slot == slot);
            assert_eq!(self.real.get(slot).is_some(), expected.is_some(), "{slot:?}");
            let (Some(real), Some(entry)) = (self.real.get(slot), expected) else { continue };
            assert_eq!((real.token, real.latch.armed()), (entry.token, entry.armed));
            let fact = real.fact_in(self.real.round()).unwrap_or_default();
            assert_eq!(fact, entry.fact, "the fact of {slot:?}");
            let is_open = real.is_open(self.real.round());
            assert_eq!(is_open, !entry.whole || fact.is_empty(), "who is looked at of {slot:?}");
        }
        for file in 0..super::FILES {
            let expected = self.live.iter().any(|entry| entry.file == file);
            assert_eq!(self.real.is_registered(&source(file)), expected, "file {file}");
        }
        let front = self.real.queue_front(self.real.queue_length());
        let queue: Vec<_> = front.map(|(slot, registration)| (slot, registration.look())).collect();
        let expected: Vec<_> = self.queue.iter().map(|&slot| (slot, self.look(slot))).collect();
        assert_eq!(queue, expected, "first come, first served");
        assert!(self.real.queue_length() >= self.queue.len());
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
        assert!(!self.slots.contains(&slot), "{slot:?} named something else before");
        let index_retired =
            self.slots.iter().any(|old| old.index == slot.index && old.generation == u32::MAX);
        assert!(!index_retired, "{slot:?} stands in a retired place");
        let latch = Latch::new(Mode::OneShot, armed, Triggers::LEVEL);
        self.real.insert(slot, source(file), token, latch);
        let (look, fact) = (Interest::empty(), PollBits::empty());
        self.live.push(Entry { slot, file, token, armed, look, fact, whole: true, lagging: false });
        self.slots.push(slot);
        self.most_live = self.most_live.max(self.live.len());
        assert!(slot.index() < self.most_live + self.retired, "{slot:?} wastes a place");
    }

    fn remove(&mut self, pick: usize) {
        let Some(slot) = self.pick(pick) else { return };
        let given_back = self.real.remove(slot).map(|held| held.raw_fd());
        let known = self.live.iter().position(|entry| entry.slot == slot);
        let entry = known.map(|at| self.live.remove(at));
        assert_eq!(given_back, entry.as_ref().map(|entry| source(entry.file).raw_fd()));
        self.queue.retain(|&queued| queued != slot);
        self.retired += usize::from(entry.is_some() && slot.generation == u32::MAX);
        if entry.is_some() {
            assert!(self.real.queue_length() <= 2 * self.queue.len(), "stale entries pile up");
        }
    }

    fn pop(&mut self) {
        let mut popped = None;
        while popped.is_none() && self.real.queue_length() > 0 {
            popped = self.real.pop_queue();
            self.real.verify();
        }
        let expected = (!self.queue.is_empty()).then(|| self.queue.remove(0));
        let expected = expected.map(|slot| {
            let mut fact = PollBits::empty();
            self.with(slot, |entry| {
                fact = std::mem::take(&mut entry.fact);
                entry.look = Interest::empty();
            });
            (slot, fact)
        });
        assert_eq!(popped, expected);
    }

    fn pop_lagging(&mut self) {
        let popped = self.real.pop_lagging();
        let lags = self.live.iter().any(|entry| entry.lagging);
        assert_eq!(popped.is_some(), lags, "whoever lags is found");
        let Some(slot) = popped else { return };
        let entry = self.live.iter_mut().find(|entry| entry.slot == slot).expect("a live slot");
        assert!(std::mem::take(&mut entry.lagging), "{slot:?} does not lag");
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

    fn look(&self, slot: Slot) -> Interest {
        let entry = self.live.iter().find(|entry| entry.slot == slot);
        entry.map_or(Interest::empty(), |entry| entry.look & entry.armed)
    }

    /// The newest slots are picked most often.
    fn pick(&self, pick: usize) -> Option<Slot> {
        self.slots.iter().rev().nth(pick).copied()
    }
}
