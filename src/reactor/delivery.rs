//! The last part of a wait: who is served, and what he is told.

use super::Reactor;
use super::latch::Step;
use crate::event::{Event, Events};
use crate::key::{Key, Slot};
use crate::poll_bits::PollBits;
use crate::selector::Selector;
use std::io;

/// How much larger each further probe of one wait is.
const PROBE_GROWTH: usize = 4;

impl<S: Selector> Reactor<S> {
    /// Serves the queue, once round at most (H4), up to the capacity. After an error the rest is
    /// still queued.
    pub(super) fn deliver(&mut self, events: &mut Events) -> io::Result<()> {
        let mut unserved = self.registry.queue_length();
        let mut batch = events.room();
        while unserved > 0 && events.room() > 0 {
            batch = batch.min(unserved);
            self.probe.settle(&mut self.registry, batch)?;
            for _ in 0..batch {
                if events.room() == 0 {
                    break;
                }
                unserved -= 1;
                if let Some((slot, bits)) = self.registry.pop_queue() {
                    self.deliver_one(slot, bits, events);
                }
            }
            // Many of them have proved false: a probe that grows keeps the calls few.
            batch = batch.saturating_mul(PROBE_GROWTH);
        }
        Ok(())
    }

    /// Reports what `bits` say of the armed directions, if anything, and moves the latch.
    fn deliver_one(&mut self, slot: Slot, bits: PollBits, events: &mut Events) {
        if self.registry.get(slot).is_some_and(|registration| registration.work.is_some()) {
            self.serve(slot, bits);
        }
        let Some(registration) = self.registry.get_mut(slot) else { return };
        let dirs = bits.ready(registration.latch.armed());
        let step = if dirs.is_empty() {
            registration.latch.missed()
        } else {
            let key = Key { poller: self.id, slot };
            events.push(Event { token: registration.token, key, readiness: bits.readiness(dirs) });
            registration.latch.delivered(dirs)
        };
        match step {
            Step::Nothing => {}
            Step::Look(dirs) => self.registry.queue_look(slot, dirs),
            Step::Arm => self.registry.note_lagging(slot),
        }
    }
}
