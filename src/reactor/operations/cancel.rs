//! Ending an operation early.

use super::entry::{OpState, Why};
use super::io::Io;
use super::machine::Operations;
use crate::key::OpSlot;
use crate::sys::io_call::Work;

impl Operations {
    /// Returns true if an operation is known, whose completion was not delivered.
    pub(in crate::reactor) fn contains(&self, op: OpSlot) -> bool {
        self.table.get(op).is_some() || self.table.is_pending(op)
    }

    /// Ends an operation. The driver ends it when the kernel does, a thread when the call returns.
    pub(in crate::reactor) fn cancel(&mut self, op: OpSlot, why: Why, io: &mut impl Io) {
        self.withdraw(op, io);
        let Some(entry) = self.table.get_mut(op) else { return };
        match &mut entry.state {
            OpState::Submitted { cancel } => {
                replace_unless_ending(cancel, why);
                io.cancel(op);
            }
            OpState::OnThread { cancel } => replace_unless_ending(cancel, why),
            _ => {
                let error = why.error();
                let error = error.unwrap_or_else(|| std::io::Error::other("it was taken back"));
                self.complete(op, Err(error), io);
            }
        }
    }

    /// Takes the call back from the thread pool unless a thread has begun with it.
    pub(super) fn withdraw(&mut self, op: OpSlot, io: &mut impl Io) {
        let Some(entry) = self.table.get_mut(op) else { return };
        if matches!(entry.state, OpState::OnThread { .. }) {
            if let Some(call) = io.withdraw(op) {
                entry.work = Some(Work::Call(call));
                entry.state = OpState::Queued;
            }
        }
    }
}

/// The first reason to end an operation stays; it comes before the reasons for which it would only
/// leave the driver.
pub(super) fn replace_unless_ending(cancel: &mut Option<Why>, why: Why) {
    if !cancel.is_some_and(Why::ends) {
        *cancel = Some(why);
    }
}
