//! What must hold of a registry between calls.

use super::{Marks, Registration, Registry};
use crate::key::Slot;
use std::collections::HashSet;

impl Registry {
    /// Checks everything that must hold between calls; panics with the first thing that does not.
    pub(in crate::reactor::readiness) fn verify(&self) {
        let queued = |slot: &Slot| self.get(*slot).is_some_and(|its| its.is(Marks::QUEUED));
        let stale = self.queue.verify(|slot| self.get(slot).is_some());
        let live = || self.queue.front(usize::MAX).filter_map(|slot| self.get(slot));
        assert!(live().all(|its| its.is(Marks::QUEUED)), "what is in the queue knows it");
        let marked = self.slots().iter().filter(|slot| queued(slot)).count();
        assert_eq!(marked + stale, self.queue.len(), "a slot is queued once, and knows it");
        for slot in self.slots() {
            let number = self.get(slot).expect("just listed").source.raw_fd() as usize;
            assert_eq!(self.by_number[number], slot.index + 1, "a number leads to its slot");
        }
        let is_verified = self.has_hints || live().all(|its| !its.is_open(self.round));
        assert!(is_verified, "what is no fact is a hint");
        self.verify_list(&self.blind, Marks::AMONG_BLIND, |its| its.is(Marks::BLIND));
        self.verify_list(&self.ended, Marks::AMONG_ENDED, |its| !its.latch.ended().is_empty());
        let numbers = self.by_number.iter().filter(|&&slot| slot != 0).count();
        assert_eq!(numbers, self.slots().len(), "no number leads to a free slot");
    }

    fn verify_list(&self, list: &[Slot], mark: Marks, must: fn(&Registration) -> bool) {
        let unique: HashSet<_> = list.iter().collect();
        assert_eq!(unique.len(), list.len(), "none is listed twice");
        for (slot, registration) in self.slab.iter() {
            let is_listed = registration.is(mark);
            assert_eq!(is_listed, unique.contains(&slot), "those in a list know it");
            assert!(is_listed || !must(registration), "those that must be are in the list");
        }
    }
}
