//! Sends that are done before they become operations.
//!
//! Most sends find room and nothing before them. These need no entry, no queue and no call of their
//! own: the bytes are sent where they lie, and the completion is queued.

use super::io::Io;
use super::machine::Operations;
use super::queue::Queue;
use crate::event::Token;
use crate::key::{OpSlot, Slot};
use crate::op::{Amount, Kind, Op, Outcome};
use crate::sys::buf::Buf;
use std::io;

/// What has become of an operation that does not take the way of all others.
pub(super) enum Early {
    /// It was not attempted.
    NotMade,
    /// It has completed, or the driver has it.
    Accepted(OpSlot),
    /// So many bytes were sent, and some are left.
    Sent(usize),
    Failed(io::Error),
}

impl Operations {
    /// Attempts a send that the reactor makes, if nothing is before it. Takes the buffer of one
    /// that completes.
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
        // A range that is not there is refused like others.
        let Some(bytes) = op.buf.get(range.clone()) else { return Early::NotMade };
        match io.send_now(slot, bytes) {
            Ok(count) if count == bytes.len() || op.kind == Kind::Send => {
                let is_whole = count == bytes.len();
                let (buf, slot) = (std::mem::take(&mut op.buf), self.table.insert_completed());
                match op.skip_success && is_whole {
                    true => self.table.end_silently(),
                    false => self.table.complete(slot, token, count, Ok(Outcome::Done), buf),
                }
                Early::Accepted(slot)
            }
            Ok(count) => Early::Sent(count),
            Err(error) => Early::Failed(error),
        }
    }
}
