//! The last part of a wait: who is served, and what he is told.

use super::Reactor;
use super::latch::Step;
use super::operations::Delivery;
use crate::event::{Event, Events};
use crate::key::{Key, Slot};
use crate::op::{Completion, OpId};
use crate::poll_bits::PollBits;
use crate::selector::{Selector, Trigger};
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
        if self.operations.has_source(slot) {
            self.serve_operations(slot, bits);
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

    /// Runs the operations that await what was found of a source.
    fn serve_operations(&mut self, slot: Slot, bits: PollBits) {
        let Some(registration) = self.registry.get_mut(slot) else { return };
        let ready = bits.ready(registration.awaited.watched());
        registration.awaited.on_report(ready);
        let (operations, mut io) = self.split();
        operations.on_ready(slot, ready, &mut io);
        operations.run(&mut io);
        let Some(registration) = self.registry.get_mut(slot) else { return };
        let (trigger, by_level) = (registration.latch.trigger(), registration.latch.by_level());
        let awaited = &mut registration.awaited;
        let is_used_up = trigger == Trigger::OneShot && !awaited.awaited().is_empty();
        if awaited.on_served(ready, by_level) == Step::Arm || is_used_up {
            self.registry.note_lagging(slot);
        }
    }

    /// Hands over the completions, up to the capacity.
    pub(super) fn deliver_completions(&mut self, events: &mut Events) {
        while events.completion_room() > 0 {
            let Some(delivery) = self.operations.pop_completed() else { break };
            let Delivery { op, token, result, more, held } = delivery;
            let transferred = result.transferred;
            let (result, buf) = result.into_parts();
            let id = OpId { poller: self.id, slot: op };
            events.complete(Completion { token, id, transferred, result, buf, more });
            self.deferred_drops.extend(held);
        }
        let (operations, mut io) = self.split();
        operations.run(&mut io);
    }
}
