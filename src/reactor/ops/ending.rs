//! All that ends an operation early: a cancel, a deadline, the end of its registration.

use super::super::Reactor;
use super::Lane;
use super::table::{Outgoing, State, Stop};
use crate::key::{OpSlot, Slot};
use crate::op::{OpId, Outcome};
use crate::poll_bits::PollBits;
use crate::selector::Selector;
use std::collections::BTreeSet;
use std::io;
use std::time::Instant;

impl<S: Selector> Reactor<S> {
    pub(in crate::reactor) fn cancel_op(&mut self, id: OpId) -> io::Result<()> {
        self.check_process()?;
        if id.poller != self.id || self.ops.get_mut(id.slot).is_none() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "no such operation is under way"));
        }
        self.stop(id.slot, Stop::Canceled);
        Ok(())
    }

    /// Ends an operation before it is done. The one in the kernel ends when the kernel says so, and
    /// one that a thread is at when that is done.
    fn stop(&mut self, op: OpSlot, why: Stop) {
        self.withdraw_from_thread(op);
        let Some(operation) = self.ops.get_mut(op) else { return };
        match operation.state {
            State::Over(_) => {}
            State::InKernel => {
                operation.stop.get_or_insert(why);
                self.selector.cancel(op);
            }
            State::OnThread => _ = operation.stop.get_or_insert(why),
            _ => {
                let place = operation.place;
                let is_first = |(source, lane): &(Slot, Lane)| {
                    let work = self.registry.work_mut(*source);
                    work.is_some_and(|work| work.head(*lane) == Some(op))
                };
                let lane = place.filter(is_first);
                let prepared = self.ops.take(op);
                self.end(op, prepared, Err(why.error()));
                if let Some((source, lane)) = lane {
                    self.run_lane(source, lane);
                }
                self.run_successors();
            }
        }
    }

    /// Has it here again, if no thread has begun with it.
    fn withdraw_from_thread(&mut self, op: OpSlot) {
        let is_there = |operation: &super::Operation| matches!(operation.state, State::OnThread);
        if self.ops.get(op).is_some_and(is_there) {
            if let Some(prepared) = self.thread_pool.withdraw(op) {
                self.ops.put_back(op, prepared);
            }
        }
    }

    /// Stops what is due, and tries again what paused.
    pub(in crate::reactor) fn run_timers(&mut self) {
        let Some(due) = self.ops.next_due() else { return };
        let now = Instant::now();
        if due > now {
            return;
        }
        while let Some(op) = self.ops.pop_expired(now) {
            self.stop(op, Stop::TimedOut);
        }
        while let Some(op) = self.ops.pop_retry(now) {
            self.try_again(op);
        }
    }

    fn try_again(&mut self, op: OpSlot) {
        let Some(operation) = self.ops.get_mut(op) else { return };
        match (operation.place, &operation.state) {
            (None, State::Here(_)) => self.begin_anywhere(op),
            (None, _) => self.end(op, None, Ok(Outcome::Done)),
            (Some((source, lane)), _) => {
                if self.attempt(op, source, lane, Some(PollBits::empty())) {
                    self.run_lane(source, lane);
                }
            }
        }
    }

    /// Ends all operations of a source that is about to go: in the order of their submission, but
    /// for those that the kernel can't interrupt.
    pub(in crate::reactor) fn abandon(&mut self, source: Slot) {
        // Those that are over already are so in the order in which that came about.
        self.absorb_early();
        let Some(registration) = self.registry.get_mut(source) else { return };
        // Whoever ends from now on is followed by nobody.
        let Some(mut work) = registration.work.take() else { return };
        let held = registration.source.clone();
        let mut ops = work.all();
        let over = self.ops.over_length();
        let mut in_kernel = Vec::new();
        for &op in &ops {
            self.withdraw_from_thread(op);
            let Some(operation) = self.ops.get_mut(op) else { continue };
            match operation.state {
                State::InKernel => in_kernel.push(op),
                State::OnThread => {}
                _ => continue,
            }
            operation.stop.get_or_insert(Stop::Canceled);
        }
        if !in_kernel.is_empty() {
            self.selector.settle(&in_kernel);
            self.absorb_early();
        }
        ops.sort_by_key(|&op| self.ops.get_mut(op).map(|operation| operation.order));
        let its: BTreeSet<OpSlot> = ops.iter().copied().collect();
        for outgoing in self.ops.split_over(over) {
            if outgoing.one.is_some() || !its.contains(&outgoing.op) {
                self.ops.queue_over(outgoing);
            }
        }
        for op in ops {
            let Some(operation) = self.ops.get_mut(op) else { continue };
            match operation.state {
                State::Over(_) => self.ops.queue_over(Outgoing { op, one: None }),
                State::InKernel | State::OnThread => operation.held.push(held.clone()),
                _ => {
                    let prepared = self.ops.take(op);
                    self.end(op, prepared, Err(Stop::Canceled.error()));
                }
            }
        }
        work.manner.restore(held.number());
        self.run_successors();
    }
}
