//! The outcome of an attempt: bytes were moved, or the operation waits.

use super::entry::{OpEntry, OpState, Side};
use super::io::Io;
use super::machine::Operations;
use super::queue::Queue;
use super::silent::SilentSends;
use crate::key::OpSlot;
use crate::poll_bits::PollBits;
use crate::sys::io_call::{Call, CallResult, Work};
use std::io;

/// The size from which a read that fills its buffer ends the turn, if further data will be
/// reported. Such a read is often a whole message. A call that finds nothing costs more than a
/// wait, which other sources share.
const LARGE_READ: usize = 4096;

/// The outcome of an attempt.
pub(super) enum Attempt {
    /// The operation has changed its state.
    Settled,
    /// The operation has moved this many bytes, and can continue.
    Moved(usize),
}

/// The result of a call that waits after a read shutdown. A call that does not wait returns
/// `WouldBlock`.
#[derive(Clone, Copy, Debug)]
enum AfterShutdown {
    Nothing,
    Invalid,
}

impl OpEntry {
    /// Submits the operation's work to the driver. Returns false if the driver does not take it.
    #[inline(always)]
    pub(super) fn submit_to_driver(
        &mut self,
        op: OpSlot,
        mut work: Work,
        silent: &mut SilentSends,
        has_successor: bool,
        io: &mut impl Io,
    ) -> bool {
        if let Some(call) = work.io_call_mut() {
            // The rest of a partial send must not be silent.
            call.set_skips_success(self.skips_success && call.moved() == 0);
        }
        let may_be_silent = work.may_be_silent();
        match io.submit(op, work) {
            Ok(()) => {
                self.state = OpState::Submitted { cancel: None };
                if may_be_silent {
                    silent.insert(has_successor);
                }
                true
            }
            Err(work) => {
                self.work = Some(work);
                false
            }
        }
    }
}

impl Operations {
    /// Submits an operation to the driver. Returns false if the reactor must perform it.
    pub(super) fn try_submit(&mut self, op: OpSlot, io: &mut impl Io) -> bool {
        if !io.has_driver() {
            return false;
        }
        let Some((slot, queue)) = self.source_of(op) else { return false };
        let Some(source) = self.sources.get_mut(slot) else { return false };
        let Some(entry) = self.table.get_mut(op) else { return false };
        let is_emulated = entry.must_emulate || source.emulates(queue);
        let can_submit = |work: &mut Work| !is_emulated && io.can_submit(work, &mut source.mode);
        let Some(work) = entry.work.take_if(can_submit) else { return false };
        let has_successor = source.queue(queue).has_several();
        entry.submit_to_driver(op, work, &mut self.silent, has_successor, io)
    }

    /// Notes that an attempt has moved `count` of `room` bytes. Returns true if probably nothing is
    /// left, and new readiness is certain to be reported.
    pub(super) fn note_moved(
        &mut self,
        op: OpSlot,
        count: usize,
        room: usize,
        io: &mut impl Io,
    ) -> bool {
        let Some((slot, queue)) = self.source_of(op) else { return false };
        let Some(source) = self.sources.get_mut(slot) else { return false };
        self.received += if queue == Queue::Read { count } else { 0 };
        // The successor must also complete in this wait if possible (T1).
        let is_last = count < room || (count >= LARGE_READ && !source.queue(queue).has_several());
        let is_emptied = count > 0 && is_last && source.mode.is_drained_by_short_reads(source.fd);
        is_emptied && io.note_likely_not_ready(slot, queue.dir())
    }

    pub(super) fn on_failed_attempt(
        &mut self,
        op: OpSlot,
        error: io::Error,
        was_ready: bool,
        io: &mut impl Io,
    ) {
        match error.kind() {
            io::ErrorKind::WouldBlock => self.on_would_block(op, was_ready, io),
            _ => self.on_error(op, error, io),
        }
    }

    pub(super) fn on_would_block(&mut self, op: OpSlot, was_ready: bool, io: &mut impl Io) {
        let Some((slot, queue)) = self.source_of(op) else { return };
        let Some(source) = self.sources.get(slot) else { return };
        let Some(entry) = self.table.get(op) else { return };
        if entry.call().is_some_and(|call| call.may_wait_for_disk(&source.mode)) {
            let files = io.file(slot).into_iter().cloned().collect();
            return self.spawn(op, files, io);
        }
        // The attempt was made only because the driver had no buffer.
        if entry.pool().is_some() && self.try_submit(op, io) {
            return;
        }
        if queue == Queue::Unordered {
            return self.pause(op, io);
        }
        if was_ready {
            return self.await_or_pause(op, io);
        }
        self.await_ready(op, Side::Source, io);
        // No edge follows if a file is reported writable but accepts nothing: an eventfd about to
        // overflow, a datagram socket with a full peer queue. The same is true of reading from a
        // datagram socket that is shut down.
        let may_be_ready = queue == Queue::Write || self.after_shutdown(op).is_some();
        if may_be_ready && !io.repeats(slot, queue.dir()) {
            io.recheck(slot, queue.dir());
        }
    }

    /// Awaits readiness, or pauses if the file is still ready. Either another reader was faster, or
    /// the readiness does not apply to this call and would be reported again.
    pub(super) fn await_or_pause(&mut self, op: OpSlot, io: &mut impl Io) {
        let Some((slot, queue)) = self.source_of(op) else { return };
        let bits = io.poll_now(slot, queue.dir());
        if bits.ready(queue.dir()).is_empty() {
            return self.await_ready(op, Side::Source, io);
        }
        match self.after_shutdown(op).filter(|_| bits.contains(PollBits::RDHUP)) {
            None => self.pause(op, io),
            Some(AfterShutdown::Invalid) => {
                self.complete(op, Err(io::Error::from_raw_os_error(libc::EINVAL)), io);
            }
            Some(AfterShutdown::Nothing) => {
                if let Some(call) = self.call_mut(op) {
                    call.note_nothing();
                }
                if self.on_result(op, CallResult::Moved(0), io) {
                    self.await_ready(op, Side::Source, io);
                }
            }
        }
    }

    /// Returns the result of the plain call after a read shutdown, if calls that do not wait do not
    /// report it.
    fn after_shutdown(&self, op: OpSlot) -> Option<AfterShutdown> {
        let source = self.sources.get(self.source_of(op)?.0)?;
        let is_message = !source.mode.is_stream() && source.mode.is_socket();
        match self.table.get(op)?.work.as_ref()?.call() {
            Call::Accept | Call::AcceptMulti => Some(AfterShutdown::Invalid),
            Call::Recv | Call::RecvMulti | Call::RecvFrom | Call::RecvMsg if is_message => {
                Some(AfterShutdown::Nothing)
            }
            _ => None,
        }
    }
}
