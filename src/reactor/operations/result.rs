//! The one interpreter of results: what becomes of an operation when its call has succeeded or
//! failed, in an attempt, in the driver, or on a thread.

use super::io::Io;
use super::machine::Operations;
use super::queue::Queue;
use super::table::{OpState, Why};
use crate::event::Interest;
use crate::key::OpSlot;
use crate::op::{Address, Control, Kind, MessageFlags, Outcome, ReceivedMessage};
use crate::poll_bits::PollBits;
use crate::sys::buf::Buf;
use crate::sys::prepared::{Call, Gain, Prepared, Received};
use std::io;

impl Operations {
    /// Interprets a call that has succeeded, and that is in the operation. Returns true if the
    /// operation goes on; else it was completed.
    pub(super) fn on_result(&mut self, op: OpSlot, result: Gain, io: &mut impl Io) -> bool {
        let Some(entry) = self.table.get_mut(op) else { return false };
        let (kind, stop) = (entry.kind, entry.stop().and_then(Why::error));
        let Some(call) = &mut entry.call else { return false };
        let is_whole = !matches!(kind, Kind::RecvExact | Kind::SendAll) || call.left() == 0;
        let is_multi = call.call().is_multi();
        let is_nothing = match &result {
            Gain::Moved(0) => true,
            Gain::Received(buf) => buf.is_empty(),
            _ => false,
        };
        let from = |call: &Prepared| Address::from_name(call.name());
        let outcome = match &result {
            Gain::Moved(_) if kind == Kind::RecvFrom => Outcome::Received { from: from(call) },
            Gain::Moved(_) if kind == Kind::RecvMsg => {
                outcome_of_message(from(call), call.take_received())
            }
            _ => Outcome::Done,
        };
        let peer = match &result {
            Gain::Accepted(_) if !is_multi => from(call),
            _ => None,
        };
        let is_end = is_nothing && call.call().is_recv();
        if is_end && self.take_reset(op, io) {
            self.complete(op, Err(io::Error::from_raw_os_error(libc::ECONNRESET)), io);
            return false;
        }
        let completed = match result {
            Gain::Accepted(_) | Gain::Received(_) if is_multi => {
                match (self.push_result(op, result, io), stop) {
                    (true, None) => return true,
                    (true, Some(error)) => Err(error),
                    (false, _) => Ok(Outcome::Done),
                }
            }
            Gain::Accepted(socket) => Ok(Outcome::Accepted { socket, peer }),
            Gain::Opened(file) => Ok(Outcome::Opened { file }),
            Gain::Connected | Gain::Done | Gain::Received(_) => Ok(Outcome::Done),
            Gain::Moved(_) if is_whole => Ok(outcome),
            Gain::Moved(0) if kind == Kind::RecvExact => Err(io::ErrorKind::UnexpectedEof.into()),
            Gain::Moved(0) => Err(io::ErrorKind::WriteZero.into()),
            Gain::Moved(_) => match stop {
                None => return true,
                Some(error) => Err(error),
            },
        };
        self.complete(op, completed, io);
        false
    }

    /// Completes an operation whose call has failed.
    pub(super) fn on_error(&mut self, op: OpSlot, mut error: io::Error, io: &mut impl Io) {
        let Some(entry) = self.table.get(op) else { return };
        if let Some(call) = entry.call.as_ref().map(|call| call.call()) {
            self.redirect_reset(op, call, &mut error);
        }
        self.complete(op, Err(error), io);
    }

    /// Returns true if the end of the stream that a receive found is a reset that a send was told.
    fn take_reset(&mut self, op: OpSlot, io: &mut impl Io) -> bool {
        let Some((slot, _)) = self.source_of(op) else { return false };
        let Some(source) = self.sources.get_mut(slot) else { return false };
        std::mem::take(&mut source.is_reset) && io.has_not_reconnected(source.fd.fd())
    }

    /// A send has failed. The kernel reports a reset once, and on a ring to the send if a receive
    /// waits too. So if one is queued the send is told of a broken pipe, and the receive of the
    /// reset when it comes to the end.
    pub(super) fn redirect_reset(&mut self, op: OpSlot, call: Call, error: &mut io::Error) {
        if !call.is_send() || error.raw_os_error() != Some(libc::ECONNRESET) {
            return;
        }
        let Some(entry) = self.table.get(op) else { return };
        let Some((slot, _)) = entry.target.or(entry.source) else { return };
        let Some(source) = self.sources.get(slot).filter(|its| its.mode.is_stream()) else {
            return;
        };
        let reader = source.head(Queue::Read).and_then(|op| self.table.get(op));
        if !reader.is_some_and(|reader| reader.kind.is_receive()) {
            return;
        }
        if let Some(source) = self.sources.get_mut(slot) {
            source.is_reset = true;
            *error = io::Error::from_raw_os_error(libc::EPIPE);
        }
    }

    /// Queues one of many results. Returns false if it says that there are no more.
    pub(super) fn push_result(&mut self, op: OpSlot, result: Gain, io: &mut impl Io) -> bool {
        match result {
            Gain::Accepted(socket) => {
                let outcome = Outcome::Accepted { socket, peer: None };
                self.table.push_result(op, 0, outcome, Buf::None);
            }
            Gain::Received(buf) if buf.is_empty() && self.is_at_end(op, io) => return false,
            Gain::Received(buf) => {
                self.table.push_result(op, buf.len(), Outcome::Done, Buf::Pool(buf));
            }
            _ => return false,
        }
        let max = self.max_undelivered;
        let Some(entry) = self.table.get_mut(op) else { return true };
        if let OpState::Submitted { cancel: cancel @ None } = &mut entry.state {
            if entry.undelivered >= max {
                *cancel = Some(Why::Backpressure);
                io.cancel(op);
            }
        }
        true
    }

    /// Returns true if a receive of no bytes is the end, and not an empty datagram.
    fn is_at_end(&self, op: OpSlot, io: &mut impl Io) -> bool {
        let Some((slot, _)) = self.source_of(op) else { return true };
        let Some(source) = self.sources.get(slot) else { return true };
        if source.mode.is_endless() {
            return false;
        }
        if source.mode.is_stream() || !source.mode.is_socket() {
            return true;
        }
        // Of records without bytes only the last can't be told from the end.
        let bits = io.poll_now(source.fd.fd(), Interest::READABLE);
        bits.contains(PollBits::RDHUP) && !io.has_bytes(source.fd.fd())
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
    let others = received.beside.others.into_iter();
    let control = others.map(|(level, kind, data)| Control { level, kind, data }).collect();
    Outcome::Message(Box::new(ReceivedMessage { from, files, control, flags }))
}
