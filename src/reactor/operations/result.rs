//! The one interpreter of results: what becomes of an operation when its call has succeeded or
//! failed, in an attempt, in the driver, or on a thread.

use super::entry::{OpState, Why};
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

/// What becomes of an operation that has brought one of many results.
pub(super) enum Pushed {
    GoesOn,
    /// It was to end, with this error.
    Stopped(io::Error),
    /// That result says that there are no more.
    Ended,
}

impl Operations {
    /// Interprets a call that has succeeded, and that is in the operation. Returns true if the
    /// operation goes on; else it was completed.
    #[inline]
    pub(super) fn on_result(&mut self, op: OpSlot, result: CallResult, io: &mut impl Io) -> bool {
        match result {
            CallResult::Moved(count) => return self.on_moved(op, count, io),
            received @ CallResult::Received(_) => return self.on_one_of_many(op, received, io),
            CallResult::Accepted(socket) => return self.on_accepted(op, socket, io),
            CallResult::Opened(file) => self.complete(op, Ok(Outcome::Opened { file }), io),
            CallResult::Connected | CallResult::Done => self.complete(op, Ok(Outcome::Done), io),
        }
        false
    }

    fn on_moved(&mut self, op: OpSlot, count: usize, io: &mut impl Io) -> bool {
        if count == 0 && self.is_reset(op, io) {
            self.complete(op, Err(io::Error::from_raw_os_error(libc::ECONNRESET)), io);
            return false;
        }
        let Some(entry) = self.table.get_mut(op) else { return false };
        let kind = entry.kind;
        let Some(call) = entry.call_mut() else {
            // A receive from a pool has come to the end.
            self.complete(op, Ok(Outcome::Done), io);
            return false;
        };
        let is_whole = !matches!(kind, Kind::RecvExact | Kind::SendAll) || call.left() == 0;
        let outcome = match kind {
            _ if !is_whole => match (count, entry.stop().and_then(Why::error)) {
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
            return self.on_one_of_many(op, CallResult::Accepted(socket), io);
        }
        let peer = Address::from_name(call.name());
        self.complete(op, Ok(Outcome::Accepted { socket, peer }), io);
        false
    }

    /// Interprets what a call of an operation with many results has brought.
    fn on_one_of_many(&mut self, op: OpSlot, result: CallResult, io: &mut impl Io) -> bool {
        let is_nothing = matches!(&result, CallResult::Received(buf) if buf.is_empty());
        let outcome = if is_nothing && self.is_reset(op, io) {
            Err(io::Error::from_raw_os_error(libc::ECONNRESET))
        } else {
            match self.push_result(op, result, io) {
                Pushed::GoesOn => return true,
                Pushed::Stopped(error) => Err(error),
                Pushed::Ended => Ok(Outcome::Done),
            }
        };
        self.complete(op, outcome, io);
        false
    }

    /// Returns true if the end that a receive has found is a reset that a send was told.
    fn is_reset(&mut self, op: OpSlot, io: &mut impl Io) -> bool {
        let work = self.table.get(op).and_then(|entry| entry.work.as_ref());
        work.is_some_and(|work| work.call().is_recv()) && self.take_reset(op, io)
    }

    /// Completes an operation whose call has failed.
    pub(super) fn on_error(&mut self, op: OpSlot, mut error: io::Error, io: &mut impl Io) {
        let Some(entry) = self.table.get(op) else { return };
        if let Some(call) = entry.work.as_ref().map(Work::call) {
            self.redirect_reset(op, call, &mut error);
        }
        self.complete(op, Err(error), io);
    }

    /// Returns true if the end of the stream that a receive found is a reset that a send was told.
    fn take_reset(&mut self, op: OpSlot, io: &mut impl Io) -> bool {
        let Some((slot, _)) = self.source_of(op) else { return false };
        let Some(source) = self.sources.get_mut(slot) else { return false };
        std::mem::take(&mut source.is_reset) && io.has_not_reconnected(slot)
    }

    /// A send has failed. The kernel reports a reset once, and on a ring to the send if a receive
    /// waits too. So if one is queued the send is told of a broken pipe, and the receive of the
    /// reset when it comes to the end.
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

    /// Queues one of many results.
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
            CallResult::Received(buf) => match self.is_at_end(op, io) {
                true => return Pushed::Ended,
                false => self.table.push_result(op, 0, Outcome::Done, Buf::Pool(buf)),
            },
            CallResult::Accepted(socket) => {
                table.push_result(op, 0, Outcome::Accepted { socket, peer: None }, Buf::None)
            }
            _ => return Pushed::Ended,
        };
        let Some(entry) = entry else { return Pushed::GoesOn };
        match &mut entry.state {
            OpState::Submitted { cancel: cancel @ None } if entry.undelivered >= max => {
                *cancel = Some(Why::Backpressure);
                io.cancel(op);
                Pushed::GoesOn
            }
            OpState::Submitted { cancel: Some(why) } | OpState::OnThread { cancel: Some(why) } => {
                why.error().map_or(Pushed::GoesOn, Pushed::Stopped)
            }
            _ => Pushed::GoesOn,
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
        // Of records without bytes only the last can't be told from the end.
        let bits = io.poll_now(slot, Interest::READABLE);
        bits.contains(PollBits::RDHUP) && !io.has_bytes(slot)
    }
}

/// Returns the error of an operation for all of its bytes whose call has moved none.
fn cut_short(kind: Kind) -> io::Error {
    match kind {
        Kind::RecvExact => {
            let cause = "the stream has ended before all bytes came";
            io::Error::new(io::ErrorKind::UnexpectedEof, cause)
        }
        _ => io::Error::new(io::ErrorKind::WriteZero, "the stream has taken none of the bytes"),
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
