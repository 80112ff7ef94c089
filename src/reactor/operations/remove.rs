//! The removal of a registration with operations.

use super::cancel::replace_unless_ending;
use super::entry::{CancelReason, OpState};
use super::io::Io;
use super::machine::Operations;
use super::queue::Queue;
use crate::key::{OpSlot, Slot};
use std::collections::{BTreeMap, BTreeSet};

impl Operations {
    /// Ends all operations of a source to be removed (R5), in the order of submission except for
    /// those that cannot be interrupted.
    pub(in crate::reactor) fn remove(&mut self, slot: Slot, io: &mut impl Io) {
        // Without the queues, no successor becomes runnable.
        let Some(mut source) = self.sources.remove(slot) else { return };
        self.splices.remove(slot);
        let mut ops = Vec::new();
        for queue in Queue::ALL {
            ops.extend(self.table.queue((slot, queue), source.queue(queue)).map(|(op, _)| op));
        }
        ops.sort_by_key(|&op| self.table.get(op).map(|entry| entry.order));
        let at = self.table.completed_len();
        let mut submitted = Vec::new();
        for &op in &ops {
            self.withdraw(op, io);
            let Some(entry) = self.table.get_mut(op) else { continue };
            match &mut entry.state {
                OpState::Submitted { cancel } => {
                    replace_unless_ending(cancel, CancelReason::Deregister);
                    submitted.push(op);
                }
                OpState::OnThread { cancel } => {
                    replace_unless_ending(cancel, CancelReason::Deregister)
                }
                _ => {}
            }
        }
        if !submitted.is_empty() {
            let mut events = Vec::new();
            io.cancel_and_wait(&submitted, &mut events);
            self.on_driver_events(&mut events, io);
        }
        let removed: BTreeSet<OpSlot> = ops.iter().copied().collect();
        let mut last = BTreeMap::new();
        for completion in self.table.split_completed(at) {
            let op = completion.id.slot;
            if completion.more || !removed.contains(&op) {
                self.table.requeue(completion);
            } else {
                last.insert(op, completion);
            }
        }
        for op in ops {
            match self.table.get(op).map(|entry| &entry.state) {
                None => {
                    last.remove(&op).into_iter().for_each(|removed| self.table.requeue(removed))
                }
                Some(OpState::Submitted { .. } | OpState::OnThread { .. }) => {
                    if let Some(file) = io.file(slot) {
                        self.table.hold(op, file.clone());
                    }
                }
                Some(_) => self.cancel(op, CancelReason::Deregister, io),
            }
        }
        io.restore(slot, &mut source.mode);
        self.run(io);
    }
}
