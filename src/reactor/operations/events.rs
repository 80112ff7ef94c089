//! Events of the driver and the thread pool.

use super::entry::{CancelReason, Cause, OpState};
use super::io::Io;
use super::machine::Operations;
use super::queue::Queue;
use crate::key::OpSlot;
use crate::selector::OpEvent;
use crate::sys::io_call::{Call, CallResult, Work};
use std::io;

impl Operations {
    /// Handles the driver's events. Resets come first, because a receive in the same batch may have
    /// seen the end of the stream.
    pub(in crate::reactor) fn on_driver_events(
        &mut self,
        events: &mut Vec<OpEvent>,
        io: &mut impl Io,
    ) {
        for event in &mut *events {
            let OpEvent::Completed { op, work, result: Err(error) } = event else { continue };
            self.redirect_reset(*op, work.call(), error);
        }
        for event in events.drain(..) {
            match event {
                OpEvent::Result { op, result } => _ = self.push_result(op, result, io),
                OpEvent::Completed { op, work, result } => {
                    if work.may_be_silent() {
                        self.silent.remove();
                    }
                    self.on_returned(op, work, result, io);
                }
            }
        }
    }

    /// Handles the thread pool's events. A call that would block, as on a few files with a
    /// position, awaits readiness or pauses.
    pub(in crate::reactor) fn on_thread_events(
        &mut self,
        events: &mut Vec<OpEvent>,
        io: &mut impl Io,
    ) {
        for event in events.drain(..) {
            let OpEvent::Completed { op, work, result } = event else { continue };
            let Some(entry) = self.table.get_mut(op) else { continue };
            entry.must_emulate = true;
            let waits =
                entry.cancel_reason().is_none() && result.as_ref().is_err_and(is_unfinished);
            if !waits {
                self.on_returned(op, work, result, io);
                continue;
            }
            entry.work = Some(work);
            match entry.source {
                Some(_) if entry.target().is_some() => {
                    if !self.await_either(op, io) {
                        self.pause(op, io);
                    }
                }
                Some((_, queue)) if queue != Queue::Unordered => self.await_or_pause(op, io),
                _ => self.pause(op, io),
            }
        }
    }

    /// Completes or continues an operation that the driver or a thread has returned.
    fn on_returned(
        &mut self,
        op: OpSlot,
        work: Work,
        result: io::Result<CallResult>,
        io: &mut impl Io,
    ) {
        let Some(entry) = self.table.get_mut(op) else { return };
        let mut is_short = false;
        let continues = match result {
            Ok(result) => {
                entry.work = Some(work);
                self.on_result(op, result, io)
            }
            Err(error) => {
                let (call, is_unsupported) = (work.call(), is_unsupported(&error, &work));
                is_short = is_shortage(&error, call);
                entry.work = Some(work);
                self.on_returned_error(op, (call, is_unsupported), error, io)
            }
        };
        if !continues {
            return;
        }
        let Some(entry) = self.table.get_mut(op) else { return };
        if is_short {
            // The driver's attempt to take a buffer did not register the notifier.
            self.await_buffer(op);
            self.buffers.ask();
        } else if entry.undelivered >= self.max_undelivered {
            entry.state = OpState::Paused;
        } else {
            self.make_runnable(op, Cause::Turn);
        }
    }

    /// Interprets an error of the driver or a thread. Returns true if the operation continues.
    fn on_returned_error(
        &mut self,
        op: OpSlot,
        (call, is_unsupported): (Call, bool),
        error: io::Error,
        io: &mut impl Io,
    ) -> bool {
        let Some(entry) = self.table.get_mut(op) else { return false };
        let is_canceled = error.raw_os_error() == Some(libc::ECANCELED);
        let is_short = is_shortage(&error, call);
        let is_repeatable = is_canceled || is_short || is_unfinished(&error) || is_unsupported;
        match entry.cancel_reason().and_then(CancelReason::error) {
            Some(cancel_reason) if is_repeatable => self.complete(op, Err(cancel_reason), io),
            // Not requested by the program: the driver could not complete the call, or lacks a
            // flag.
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

/// Returns true if the call did nothing and must be repeated.
fn is_unfinished(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// Returns true if a receive found no buffer.
fn is_shortage(error: &io::Error, call: Call) -> bool {
    call == Call::RecvMulti && error.raw_os_error() == Some(libc::ENOBUFS)
}

/// Returns true if the driver does not support the call without a signal, as multishot, or
/// silently: a socket with kernel TLS refuses `MSG_WAITALL`.
fn is_unsupported(error: &io::Error, work: &Work) -> bool {
    let call = work.call();
    match error.raw_os_error() {
        Some(libc::EOPNOTSUPP) => call == Call::Write || work.may_be_silent(),
        Some(libc::EINVAL) => call.is_multi() || work.may_be_silent(),
        _ => false,
    }
}
