//! Invariants of a registry between calls.

use super::{Marks, Registration, Registry};
use crate::key::Slot;
use std::collections::HashSet;

impl Registry {
    /// Checks every invariant, and panics with the first one that does not hold.
    pub(in crate::reactor::readiness) fn verify(&self) {
        let queued = |slot: &Slot| self.get(*slot).is_some_and(|its| its.is(Marks::QUEUED));
        let stale = self.queue.verify(|slot| self.get(slot).is_some());
        let live = || self.queue.front(usize::MAX).filter_map(|slot| self.get(slot));
        assert!(live().all(|its| its.is(Marks::QUEUED)), "a queued registration is marked");
        let marked = self.slots().iter().filter(|slot| queued(slot)).count();
        assert_eq!(marked + stale, self.queue.len(), "a marked slot is queued once");
        for slot in self.slots() {
            let number = self.get(slot).expect("just listed").source.raw_fd() as usize;
            assert_eq!(self.by_fd[number], slot.index + 1, "a descriptor maps to its slot");
        }
        let is_verified = self.has_hints || live().all(|its| !its.needs_poll(self.round));
        assert!(is_verified, "an entry without a fact is a hint");
        self.verify_list(&self.polled_each_wait, Marks::IN_POLLED_LIST, |its| {
            its.is(Marks::POLL_EACH_WAIT)
        });
        self.verify_list(&self.ended, Marks::IN_ENDED_LIST, |its| !its.latch.ended().is_empty());
        let numbers = self.by_fd.iter().filter(|&&slot| slot != 0).count();
        assert_eq!(numbers, self.slots().len(), "no descriptor maps to a free slot");
    }

    fn verify_list(&self, list: &[Slot], mark: Marks, must: fn(&Registration) -> bool) {
        let unique: HashSet<_> = list.iter().collect();
        assert_eq!(unique.len(), list.len(), "no slot is listed twice");
        for (slot, registration) in self.slab.iter() {
            let is_listed = registration.is(mark);
            assert_eq!(is_listed, unique.contains(&slot), "a listed registration is marked");
            assert!(is_listed || !must(registration), "required slots are listed");
        }
    }
}
