//! The effects of results: of calls made in an attempt, by the driver, or on a thread. Errors of
//! attempts end here; those of the driver and of threads end in `events`.

use super::entry::{CancelReason, OpState};
use super::io::Io;
use super::machine::Operations;
use super::queue::Queue;
use crate::event::Interest;
use crate::key::OpSlot;
use crate::op::{Address, Control, Kind, MessageFlags, Outcome, ReceivedMessage};
use crate::poll_bits::PollBits;
use crate::sys::buf::Buf;
use crate::sys::io_call::{Call, CallResult, Received, Work};
use std::io;
use std::os::fd::OwnedFd;

/// The effect of a result on its multishot operation.
pub(super) enum Pushed {
    Continues,
    /// The operation was cancelled, and ends with this error.
    Cancelled(io::Error),
    /// The result was the last.
    Ended,
}

impl Operations {
    /// Interprets the result of a successful call. Returns true if the operation continues; else it
    /// is completed.
    #[inline]
    pub(super) fn on_result(&mut self, op: OpSlot, result: CallResult, io: &mut impl Io) -> bool {
        match result {
            CallResult::Moved(count) => return self.on_moved(op, count, io),
            received @ CallResult::Received(_) => {
                return self.on_multishot_result(op, received, io);
            }
            CallResult::Accepted(socket) => return self.on_accepted(op, socket, io),
            CallResult::Opened(file) => self.complete(op, Ok(Outcome::Opened { file }), io),
            CallResult::Connected | CallResult::Done => self.complete(op, Ok(Outcome::Done), io),
        }
        false
    }

    fn on_moved(&mut self, op: OpSlot, count: usize, io: &mut impl Io) -> bool {
        if count == 0 && self.take_reset_at_end(op, io) {
            self.complete(op, Err(io::Error::from_raw_os_error(libc::ECONNRESET)), io);
            return false;
        }
        let Some(entry) = self.table.get_mut(op) else { return false };
        let kind = entry.kind;
        let Some(call) = entry.call_mut() else {
            // The end of the stream of a receive from a pool.
            self.complete(op, Ok(Outcome::Done), io);
            return false;
        };
        let is_whole = !matches!(kind, Kind::RecvExact | Kind::SendAll) || call.left() == 0;
        let outcome = match kind {
            _ if !is_whole => match (count, entry.cancel_reason().and_then(CancelReason::error)) {
                (0, _) => Err(cut_short(kind)),
                (_, None) => return true,
                (_, Some(error)) => Err(error),
            },
            Kind::RecvFrom => Ok(Outcome::Received { from: Address::from_name(call.name()) }),
            Kind::RecvMsg => {
                let from = Address::from_name(call.name());
                Ok(outcome_of_message(from, call.take_received()))
            }
            _ => Ok(Outcome::Done),
        };
        self.complete(op, outcome, io);
        false
    }

    fn on_accepted(&mut self, op: OpSlot, socket: OwnedFd, io: &mut impl Io) -> bool {
        let Some(call) = self.table.get(op).and_then(|entry| entry.call()) else {
            return false;
        };
        if call.call().is_multi() {
            return self.on_multishot_result(op, CallResult::Accepted(socket), io);
        }
        let peer = Address::from_name(call.name());
        self.complete(op, Ok(Outcome::Accepted { socket, peer }), io);
        false
    }

    /// Interprets a result of a multishot operation.
    fn on_multishot_result(&mut self, op: OpSlot, result: CallResult, io: &mut impl Io) -> bool {
        let is_empty = matches!(&result, CallResult::Received(buf) if buf.is_empty());
        let outcome = if is_empty && self.take_reset_at_end(op, io) {
            Err(io::Error::from_raw_os_error(libc::ECONNRESET))
        } else {
            match self.push_result(op, result, io) {
                Pushed::Continues => return true,
                Pushed::Cancelled(error) => Err(error),
                Pushed::Ended => Ok(Outcome::Done),
            }
        };
        self.complete(op, outcome, io);
        false
    }

    /// Takes the note of a reset if a receive has found the end of the stream. Returns true if the
    /// end is a reset that a send has reported.
    fn take_reset_at_end(&mut self, op: OpSlot, io: &mut impl Io) -> bool {
        let work = self.table.get(op).and_then(|entry| entry.work.as_ref());
        work.is_some_and(|work| work.call().is_recv()) && self.take_reset(op, io)
    }

    /// Completes an operation whose call has failed in an attempt.
    pub(super) fn on_error(&mut self, op: OpSlot, mut error: io::Error, io: &mut impl Io) {
        let Some(entry) = self.table.get(op) else { return };
        if let Some(call) = entry.work.as_ref().map(Work::call) {
            self.redirect_reset(op, call, &mut error);
        }
        self.complete(op, Err(error), io);
    }

    /// Takes the note of a reset. Returns true if the end of the stream is that reset.
    fn take_reset(&mut self, op: OpSlot, io: &mut impl Io) -> bool {
        let Some((slot, _)) = self.source_of(op) else { return false };
        let Some(source) = self.sources.get_mut(slot) else { return false };
        std::mem::take(&mut source.is_reset) && io.has_not_reconnected(slot)
    }

    /// Replaces the `ECONNRESET` of a send on a stream by `EPIPE` if the read queue begins with a
    /// receive or read, which then gets the reset at the end of the stream. The kernel reports a
    /// reset once, on a ring to the send even if a receive waits.
    pub(super) fn redirect_reset(&mut self, op: OpSlot, call: Call, error: &mut io::Error) {
        if !call.is_send() || error.raw_os_error() != Some(libc::ECONNRESET) {
            return;
        }
        let Some(entry) = self.table.get(op) else { return };
        let Some((slot, _)) = entry.target().or(entry.source) else { return };
        let Some(source) = self.sources.get(slot).filter(|its| its.mode.is_stream()) else {
            return;
        };
        let reader = self.table.at(source.queue(Queue::Read).first);
        if !reader.is_some_and(|(_, reader)| reader.kind.is_receive()) {
            return;
        }
        if let Some(source) = self.sources.get_mut(slot) {
            source.is_reset = true;
            *error = io::Error::from_raw_os_error(libc::EPIPE);
        }
    }

    /// Queues a result of a multishot operation.
    pub(super) fn push_result(
        &mut self,
        op: OpSlot,
        result: CallResult,
        io: &mut impl Io,
    ) -> Pushed {
        let (max, table) = (self.max_undelivered, &mut self.table);
        let entry = match result {
            CallResult::Received(buf) if !buf.is_empty() => {
                table.push_result(op, buf.len(), Outcome::Done, Buf::Pool(buf))
            }
            CallResult::Received(buf) => {
                if self.is_at_end(op, io) {
                    return Pushed::Ended;
                }
                self.table.push_result(op, 0, Outcome::Done, Buf::Pool(buf))
            }
            CallResult::Accepted(socket) => {
                table.push_result(op, 0, Outcome::Accepted { socket, peer: None }, Buf::None)
            }
            _ => return Pushed::Ended,
        };
        let Some(entry) = entry else { return Pushed::Continues };
        match &mut entry.state {
            OpState::Submitted { cancel: cancel @ None } if entry.undelivered >= max => {
                *cancel = Some(CancelReason::Backpressure);
                io.cancel(op);
                Pushed::Continues
            }
            OpState::Submitted { cancel: Some(reason) }
            | OpState::OnThread { cancel: Some(reason) } => {
                reason.error().map_or(Pushed::Continues, Pushed::Cancelled)
            }
            _ => Pushed::Continues,
        }
    }

    /// Returns true if a receive of no bytes is the end, and not an empty datagram.
    fn is_at_end(&self, op: OpSlot, io: &mut impl Io) -> bool {
        let Some((slot, _)) = self.source_of(op) else { return true };
        let Some(source) = self.sources.get(slot) else { return true };
        if source.mode.is_connectionless() {
            return false;
        }
        if source.mode.is_stream() || !source.mode.is_socket() {
            return true;
        }
        // Only the last empty record cannot be distinguished from the end.
        let bits = io.poll_now(slot, Interest::READABLE);
        bits.contains(PollBits::RDHUP) && !io.has_bytes(slot)
    }
}

/// Returns the error if the call moved no byte although the operation needs all.
fn cut_short(kind: Kind) -> io::Error {
    match kind {
        Kind::RecvExact => {
            let cause = "the stream ended before all bytes were received";
            io::Error::new(io::ErrorKind::UnexpectedEof, cause)
        }
        _ => io::Error::new(io::ErrorKind::WriteZero, "the stream accepted no byte"),
    }
}

fn outcome_of_message(from: Option<Address>, mut received: Received) -> Outcome {
    let mut flags = MessageFlags::empty();
    for (bit, flag) in [
        (libc::MSG_TRUNC, MessageFlags::TRUNCATED),
        (libc::MSG_CTRUNC, MessageFlags::CONTROL_TRUNCATED),
        (libc::MSG_EOR, MessageFlags::END_OF_RECORD),
    ] {
        flags.set(flag, received.flags & bit != 0);
    }
    let files = received.take_files();
    let others = received.ancillary.others.into_iter();
    let control = others.map(|(level, kind, data)| Control { level, kind, data }).collect();
    Outcome::Message(Box::new(ReceivedMessage { from, files, control, flags }))
}
