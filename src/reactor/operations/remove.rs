//! The end of a registration that has operations.

use super::cancel::replace_unless_ending;
use super::entry::{OpState, Why};
use super::io::Io;
use super::machine::Operations;
use super::queue::Queue;
use crate::key::{OpSlot, Slot};
use std::collections::{BTreeMap, BTreeSet};

impl Operations {
    /// Ends all operations of a source that is about to go (R5), in the order of submission but for
    /// those that can't be interrupted.
    pub(in crate::reactor) fn remove(&mut self, slot: Slot, io: &mut impl Io) {
        // Successors of what ends from now on are none: the queues are gone.
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
        let its: BTreeSet<OpSlot> = ops.iter().copied().collect();
        let mut last = BTreeMap::new();
        for completion in self.table.split_completed(at) {
            let op = completion.id.slot;
            if completion.more || !its.contains(&op) {
                self.table.requeue(completion);
            } else {
                last.insert(op, completion);
            }
        }
        for op in ops {
            match self.table.get(op).map(|entry| &entry.state) {
                None => last.remove(&op).into_iter().for_each(|its| self.table.requeue(its)),
                Some(OpState::Submitted { .. } | OpState::OnThread { .. }) => {
                    if let Some(file) = io.file(slot) {
                        self.table.hold(op, file.clone());
                    }
                }
                Some(_) => self.cancel(op, Why::Deregister, io),
            }
        }
        io.restore(slot, &mut source.mode);
        self.run(io);
    }
}
