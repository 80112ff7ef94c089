//! Cancelling operations.

use super::entry::{CancelReason, OpState};
use super::io::Io;
use super::machine::Operations;
use crate::key::OpSlot;
use crate::sys::io_call::Work;

impl Operations {
    /// Returns true if an operation's last completion was not delivered.
    pub(in crate::reactor) fn contains(&self, op: OpSlot) -> bool {
        self.table.get(op).is_some() || self.table.is_pending(op)
    }

    /// Cancels an operation. In the driver it ends when the kernel ends it, on a thread when the
    /// call returns.
    pub(in crate::reactor) fn cancel(
        &mut self,
        op: OpSlot,
        reason: CancelReason,
        io: &mut impl Io,
    ) {
        self.withdraw(op, io);
        let Some(entry) = self.table.get_mut(op) else { return };
        match &mut entry.state {
            OpState::Submitted { cancel } => {
                replace_unless_ending(cancel, reason);
                io.cancel(op);
            }
            OpState::OnThread { cancel } => replace_unless_ending(cancel, reason),
            _ => {
                let error = reason.error();
                let error =
                    error.unwrap_or_else(|| std::io::Error::other("the operation was withdrawn"));
                self.complete(op, Err(error), io);
            }
        }
    }

    /// Withdraws the call from the thread pool unless a thread has started it.
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

/// Keeps the first reason to end an operation, which overrides one to leave the driver.
pub(super) fn replace_unless_ending(cancel: &mut Option<CancelReason>, reason: CancelReason) {
    if !cancel.is_some_and(CancelReason::ends) {
        *cancel = Some(reason);
    }
}
