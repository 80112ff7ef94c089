//! Sends that complete before they become operations.
//!
//! Most sends find room and an empty queue. They need no entry, queue or call: the bytes are sent
//! directly, and the completion is queued.

use super::io::Io;
use super::machine::Operations;
use super::queue::Queue;
use crate::event::Token;
use crate::key::{OpSlot, Slot};
use crate::op::{Amount, Kind, Op, Outcome};
use crate::sys::buf::Buf;
use std::io;

/// The result of a send or receive attempted at submit.
pub(super) enum Early {
    /// No attempt was made.
    NotMade,
    /// The operation has completed, or the driver has it.
    Accepted(OpSlot),
    /// This many bytes were sent, and some are left.
    Sent(usize),
    Failed(io::Error),
}

impl Operations {
    /// Attempts a send that the reactor makes, if the write queue is empty. Takes the buffer if
    /// the send completes.
    pub(super) fn send_now(
        &mut self,
        op: &mut Op,
        token: Token,
        slot: Slot,
        io: &mut impl Io,
    ) -> Early {
        if !matches!(op.kind, Kind::Send | Kind::SendAll) {
            return Early::NotMade;
        }
        let Some(source) = self.sources.get(slot) else { return Early::NotMade };
        let is_first = source.queue(Queue::Write).first.is_none();
        if !is_first || !source.mode.is_socket() || matches!(op.buf, Buf::Many(_)) {
            return Early::NotMade;
        }
        let Amount::Out(range) = &op.amount else { return Early::NotMade };
        // `submit` refuses an invalid range.
        let Some(bytes) = op.buf.get(range.clone()) else { return Early::NotMade };
        match io.send_now(slot, bytes) {
            Ok(count) if count == bytes.len() || op.kind == Kind::Send => {
                let is_whole = count == bytes.len();
                let (buf, slot) = (std::mem::take(&mut op.buf), self.table.insert_completed());
                if op.skip_success && is_whole {
                    self.table.end_silently();
                } else {
                    self.table.complete(slot, token, count, Ok(Outcome::Done), buf);
                }
                Early::Accepted(slot)
            }
            Ok(count) => Early::Sent(count),
            Err(error) => Early::Failed(error),
        }
    }
}
