//! What ends an operation early: a cancel, a deadline, the end of its registration.

use super::table::{OpState, PendingCompletion, Why};
use super::{Io, Operations};
use crate::key::{OpSlot, Slot};
use std::collections::BTreeSet;

impl Operations {
    /// Returns true if an operation is known, whose completion was not delivered.
    pub(in crate::reactor) fn contains(&self, op: OpSlot) -> bool {
        self.table.get(op).is_some()
    }

    /// Ends an operation. The driver ends it when the kernel does, a thread when the call returns.
    pub(in crate::reactor) fn cancel(&mut self, op: OpSlot, why: Why, io: &mut impl Io) {
        self.withdraw(op, io);
        let Some(entry) = self.table.get_mut(op) else { return };
        match &mut entry.state {
            OpState::Completed(_) => {}
            OpState::Submitted { cancel } => {
                replace_unless_ending(cancel, why);
                io.cancel(op);
            }
            OpState::OnThread { cancel } => replace_unless_ending(cancel, why),
            _ => {
                let error = why.error().unwrap_or_else(|| std::io::ErrorKind::Other.into());
                self.complete(op, Err(error), io);
            }
        }
    }

    /// Takes the call back from the thread pool unless a thread has begun with it.
    fn withdraw(&mut self, op: OpSlot, io: &mut impl Io) {
        let Some(entry) = self.table.get_mut(op) else { return };
        if matches!(entry.state, OpState::OnThread { .. }) {
            if let Some(call) = io.withdraw(op) {
                entry.call = Some(call);
                entry.state = OpState::Queued;
            }
        }
    }

    /// Ends all operations of a source that is about to go (R5), in the order of submission but for
    /// those that can't be interrupted.
    pub(in crate::reactor) fn remove(&mut self, slot: Slot, io: &mut impl Io) {
        // Successors of what ends from now on are none: the queues are gone.
        let Some(mut source) = self.sources.remove(slot) else { return };
        let mut ops = source.all();
        let at = self.table.completed_len();
        let mut submitted = Vec::new();
        for &op in &ops {
            self.withdraw(op, io);
            let Some(entry) = self.table.get_mut(op) else { continue };
            match &mut entry.state {
                OpState::Submitted { cancel } => {
                    replace_unless_ending(cancel, Why::Deregister);
                    submitted.push(op);
                }
                OpState::OnThread { cancel } => replace_unless_ending(cancel, Why::Deregister),
                _ => {}
            }
        }
        if !submitted.is_empty() {
            let mut events = Vec::new();
            io.cancel_and_wait(&submitted, &mut events);
            self.on_driver_events(&mut events, io);
        }
        ops.sort_by_key(|&op| self.table.get(op).map(|entry| entry.order));
        let its: BTreeSet<OpSlot> = ops.iter().copied().collect();
        for pending in self.table.split_completed(at) {
            if pending.one.is_some() || !its.contains(&pending.op) {
                self.table.requeue(pending);
            }
        }
        for op in ops {
            let Some(entry) = self.table.get_mut(op) else { continue };
            match &entry.state {
                OpState::Completed(_) => self.table.requeue(PendingCompletion { op, one: None }),
                OpState::Submitted { .. } | OpState::OnThread { .. } => {
                    entry.held.push(source.fd.clone());
                }
                _ => self.cancel(op, Why::Deregister, io),
            }
        }
        source.mode.restore(source.fd.number());
        self.run(io);
    }
}

/// The first reason to end an operation stays; it comes before the reasons for which it would only
/// leave the driver.
fn replace_unless_ending(cancel: &mut Option<Why>, why: Why) {
    if !cancel.is_some_and(Why::ends) {
        *cancel = Some(why);
    }
}
