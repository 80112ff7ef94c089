//! What becomes of an operation when its call has a result, wherever that comes from: an attempt,
//! the driver, a thread.

use super::queue::Queue;
use super::table::{Cause, OpResult, OpState, Why};
use super::{Io, Operations};
use crate::event::Interest;
use crate::key::OpSlot;
use crate::op::{Address, Control, Kind, MessageFlags, Outcome};
use crate::poll_bits::PollBits;
use crate::selector::Landed;
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
        if let Some(call) = entry.call.as_ref().map(Prepared::call) {
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
    fn redirect_reset(&mut self, op: OpSlot, call: Call, error: &mut io::Error) {
        if !call.is_send() || error.raw_os_error() != Some(libc::ECONNRESET) {
            return;
        }
        let Some(entry) = self.table.get(op) else { return };
        let Some((slot, _)) = entry.target.or(entry.source) else { return };
        let Some(source) = self.sources.get(slot).filter(|its| its.mode.is_stream()) else {
            return;
        };
        let reader = source.head(Queue::Read).and_then(|op| self.table.get(op));
        if !reader.is_some_and(|reader| super::submit::receives(reader.kind)) {
            return;
        }
        if let Some(source) = self.sources.get_mut(slot) {
            source.is_reset = true;
            *error = io::Error::from_raw_os_error(libc::EPIPE);
        }
    }

    /// Queues one of many results. Returns false if it says that there are no more.
    fn push_result(&mut self, op: OpSlot, result: Gain, io: &mut impl Io) -> bool {
        let one = match result {
            Gain::Accepted(socket) => {
                OpResult::new(0, Ok(Outcome::Accepted { socket, peer: None }), Buf::None)
            }
            Gain::Received(buf) if buf.is_empty() && self.is_at_end(op, io) => return false,
            Gain::Received(buf) => OpResult::new(buf.len(), Ok(Outcome::Done), Buf::Pool(buf)),
            _ => return false,
        };
        self.table.push_result(op, one);
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

    /// Takes what the driver has to tell: resets first, for a receive may have come to its end in
    /// the same batch.
    pub(in crate::reactor) fn on_driver_events(
        &mut self,
        events: &mut Vec<Landed>,
        io: &mut impl Io,
    ) {
        for event in &mut *events {
            let Landed::Over { op, prepared, result: Err(error) } = event else { continue };
            self.redirect_reset(*op, prepared.call(), error);
        }
        for event in events.drain(..) {
            match event {
                Landed::One { op, gain } => _ = self.push_result(op, gain, io),
                Landed::Over { op, prepared, result } => self.on_returned(op, prepared, result, io),
            }
        }
    }

    /// Takes what threads have done. What would block, as a few files with a position do, waits
    /// until its file is ready, or for a while.
    pub(in crate::reactor) fn on_thread_events(
        &mut self,
        events: &mut Vec<Landed>,
        io: &mut impl Io,
    ) {
        for event in events.drain(..) {
            let Landed::Over { op, prepared, result } = event else { continue };
            let Some(entry) = self.table.get_mut(op) else { continue };
            entry.must_emulate = true;
            let waits = entry.stop().is_none() && result.as_ref().is_err_and(is_unfinished);
            if !waits {
                self.on_returned(op, prepared, result, io);
                continue;
            }
            entry.call = Some(prepared);
            match entry.source {
                Some(_) if entry.target.is_some() => {
                    if !self.await_either(op, io) {
                        self.pause(op, io);
                    }
                }
                Some((_, queue)) if queue != Queue::Unordered => self.await_or_pause(op, io),
                _ => self.pause(op, io),
            }
        }
    }

    /// The driver or a thread has returned a call: the operation is completed, or goes on.
    fn on_returned(
        &mut self,
        op: OpSlot,
        call: Prepared,
        result: io::Result<Gain>,
        io: &mut impl Io,
    ) {
        let Some(entry) = self.table.get_mut(op) else { return };
        let is_short = result.as_ref().is_err_and(|error| is_shortage(error, &call));
        let (kind, pool) = (call.call(), call.pool().is_some());
        entry.call = Some(call);
        let goes_on = match result {
            Ok(result) => self.on_result(op, result, io),
            Err(error) => self.on_returned_error(op, (kind, pool), error, io),
        };
        let Some(entry) = self.table.get_mut(op).filter(|_| goes_on) else { return };
        if is_short {
            // The driver has asked the pool in vain, and the pool does not know who waits.
            self.await_buffer(op, io);
            self.buffers.ask();
        } else if entry.undelivered >= self.max_undelivered {
            entry.state = OpState::Paused;
        } else {
            self.make_runnable(op, Cause::Turn);
        }
    }

    /// Interprets an error of the driver or of a thread. Returns true if the operation goes on.
    fn on_returned_error(
        &mut self,
        op: OpSlot,
        (call, has_pool): (Call, bool),
        error: io::Error,
        io: &mut impl Io,
    ) -> bool {
        let Some(entry) = self.table.get_mut(op) else { return false };
        let is_canceled = error.raw_os_error() == Some(libc::ECANCELED);
        let is_short = has_pool && error.raw_os_error() == Some(libc::ENOBUFS);
        let is_repeatable =
            is_canceled || is_short || is_unfinished(&error) || is_unsupported(&error, call);
        match entry.stop().and_then(Why::error) {
            Some(stop) if is_repeatable => self.complete(op, Err(stop), io),
            // Not by a request of the program's: the driver could not have it done, or knows no
            // such flag.
            None if is_repeatable => {
                let stays = is_short || (is_canceled && call.is_multi());
                entry.must_emulate |= !stays && error.kind() != io::ErrorKind::Interrupted;
                return true;
            }
            _ => self.complete(op, Err(error), io),
        }
        false
    }
}

/// Returns true if the call has done nothing, and is to be made again.
fn is_unfinished(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// Returns true if there was no buffer for what has come.
fn is_shortage(error: &io::Error, call: &Prepared) -> bool {
    call.pool().is_some() && error.raw_os_error() == Some(libc::ENOBUFS)
}

/// Returns true if the driver does not know how to do it without a signal, or more than once.
fn is_unsupported(error: &io::Error, call: Call) -> bool {
    match error.raw_os_error() {
        Some(libc::EOPNOTSUPP) => call == Call::Write,
        Some(libc::EINVAL) => call.is_multi(),
        _ => false,
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
    Outcome::Message { from, files, control, flags }
}
