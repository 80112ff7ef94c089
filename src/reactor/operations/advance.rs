//! Attempting an operation: the driver gets it, or its call is made, and what would block waits.

use super::entry::{Cause, OpState, Side};
use super::io::Io;
use super::machine::Operations;
use super::queue::Queue;
use crate::key::OpSlot;
use crate::op::Outcome;
use crate::poll_bits::PollBits;
use crate::sys::prepared::{Call, CallBox, Gain};
use std::io;
use std::net::Shutdown;

/// The most calls that an operation makes in one turn, so that a fast peer does not hold up others.
const MAX_CALLS_PER_TURN: usize = 16;
/// After so many bytes it makes no more in that turn either.
const MAX_BYTES_PER_TURN: usize = 1 << 20;
/// A read of so many bytes that has filled its buffer is the last of its turn where a report will
/// come if there is more: it is often a whole message, and a call that finds nothing costs more
/// than a wait, which others share.
const LARGE_READ: usize = 4096;
/// What one attempt has come to.
enum Attempt {
    /// The operation has another state.
    Settled,
    /// So many bytes were moved, and it can go on.
    Moved(usize),
}

/// What a call that waits returns when reading is shut down, where one that does not wait returns
/// `WouldBlock`.
#[derive(Clone, Copy, Debug)]
enum AfterShutdown {
    Nothing,
    Invalid,
}

impl Operations {
    pub(super) fn advance(&mut self, op: OpSlot, cause: Cause, io: &mut impl Io) {
        match cause {
            Cause::Turn => self.start(op, io),
            Cause::Ready | Cause::Retry => self.attempt(op, true, io),
            Cause::Buffer => {
                if matches!(self.attempt_once(op, false, io), Attempt::Settled) {
                    return;
                }
                match self.lacks_buffers(op) {
                    true => self.await_buffer(op),
                    false => self.start(op, io),
                }
            }
        }
    }

    /// Submits an operation to the driver, or attempts its call.
    fn start(&mut self, op: OpSlot, io: &mut impl Io) {
        if !self.is_paused_by_backpressure(op) && !self.try_submit(op, io) {
            self.attempt(op, false, io);
        }
    }

    /// Submits an operation to the driver. Returns false if the reactor has to do it.
    fn try_submit(&mut self, op: OpSlot, io: &mut impl Io) -> bool {
        if !io.has_driver() {
            return false;
        }
        let Some((slot, queue)) = self.source_of(op) else { return false };
        let Some(source) = self.sources.get(slot) else { return false };
        let Some(entry) = self.table.get_mut(op) else { return false };
        let is_emulated = entry.must_emulate || (queue == Queue::Read && source.emulates_reads());
        let can_submit = |call: &mut CallBox| !is_emulated && io.can_submit(call, &source.mode);
        let Some(call) = entry.call.take_if(can_submit) else { return false };
        match io.submit(op, call) {
            Ok(()) => {
                entry.state = OpState::Submitted { cancel: None };
                true
            }
            Err(call) => {
                entry.call = Some(call);
                false
            }
        }
    }

    /// Attempts the call until it would block. `was_ready`: a report or the end of a pause has
    /// brought this about.
    fn attempt(&mut self, op: OpSlot, mut was_ready: bool, io: &mut impl Io) {
        let Some((slot, queue)) = self.source_of(op) else { return };
        if let Some(source) = self.sources.get_mut(slot) {
            source.mode.begin_turn();
        }
        let mut moved = 0;
        for _ in 0..MAX_CALLS_PER_TURN {
            if self.is_paused_by_backpressure(op) {
                return;
            }
            match self.attempt_once(op, was_ready, io) {
                Attempt::Settled => return,
                Attempt::Moved(count) => moved += count,
            }
            // What was reported was there, and may be used up.
            was_ready = false;
            if moved > MAX_BYTES_PER_TURN {
                break;
            }
        }
        self.await_ready(op, Side::Source, io);
        io.recheck(slot, queue.dir());
    }

    fn attempt_once(&mut self, op: OpSlot, was_ready: bool, io: &mut impl Io) -> Attempt {
        let Some(entry) = self.table.get(op) else { return Attempt::Settled };
        let (Some((slot, queue)), Some(call)) = (entry.source, &entry.call) else {
            return Attempt::Settled;
        };
        let (what, lacks_buffer) = (call.call(), call.lacks_buffer());
        // What was given a buffer is attempted: it must not keep the buffer while it waits.
        let may_skip = what == Call::Recv || lacks_buffer;
        if may_skip && io.can_skip_attempt(slot, queue.dir()) {
            self.await_ready(op, Side::Source, io);
            return Attempt::Settled;
        }
        if lacks_buffer && !self.find_buffer(op, io) {
            return Attempt::Settled;
        }
        let Some(source) = self.sources.get_mut(slot) else { return Attempt::Settled };
        let Some(call) = self.table.get_mut(op).and_then(|entry| entry.call.as_mut()) else {
            return Attempt::Settled;
        };
        let left = call.left();
        let result = match io.attempt(call, &mut source.mode) {
            Ok(result) => result,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.on_would_block(op, was_ready, io);
                return Attempt::Settled;
            }
            Err(error) => {
                self.on_error(op, error, io);
                return Attempt::Settled;
            }
        };
        let (count, room) = match &result {
            Gain::Moved(count) => (*count, left),
            Gain::Received(buf) => (buf.len(), buf.capacity()),
            _ => (0, 0),
        };
        self.received += if queue == Queue::Read { count } else { 0 };
        // What comes next in the queue is to complete in this wait too, if it can (T1).
        let is_last = count < room || (count >= LARGE_READ && !source.queue(queue).has_several());
        let is_emptied =
            count > 0 && is_last && source.mode.is_drained_by_short_reads(source.number);
        let may_wait = is_emptied && io.note_likely_not_ready(slot, queue.dir());
        if !self.on_result(op, result, io) {
            return Attempt::Settled;
        }
        if may_wait && what == Call::RecvMulti {
            self.await_ready(op, Side::Source, io);
            return Attempt::Settled;
        }
        Attempt::Moved(count)
    }

    /// Attaches a buffer of the pool to a receive. Returns false if there is none: then it waits,
    /// or was completed.
    fn find_buffer(&mut self, op: OpSlot, io: &mut impl Io) -> bool {
        match self.attach_buffer(op, io) {
            Ok(true) => return true,
            Ok(false) => self.await_buffer(op),
            Err(error) => self.complete(op, Err(error), io),
        }
        false
    }

    pub(super) fn on_would_block(&mut self, op: OpSlot, was_ready: bool, io: &mut impl Io) {
        let Some((slot, queue)) = self.source_of(op) else { return };
        let Some(source) = self.sources.get(slot) else { return };
        let Some(call) = self.table.get_mut(op).and_then(|entry| entry.call.as_mut()) else {
            return;
        };
        if call.is_for_a_disk(&source.mode) {
            let files = io.file(slot).into_iter().cloned().collect();
            return self.spawn(op, files, io);
        }
        call.give_back_buffer();
        // It was attempted only because the driver had no buffers for it.
        if call.pool().is_some() && self.try_submit(op, io) {
            return;
        }
        if queue == Queue::Unordered {
            return self.pause(op, io);
        }
        if was_ready {
            return self.await_or_pause(op, io);
        }
        self.await_ready(op, Side::Source, io);
        // A file may call itself writable and take nothing: an eventfd that would overflow, a
        // datagram socket whose peer's queue is full. Or readable, and give nothing: a datagram
        // socket that is shut down. No edge tells of these.
        let may_be_ready = queue == Queue::Write || self.after_shutdown(op).is_some();
        if may_be_ready && !io.repeats(slot, queue.dir()) {
            io.recheck(slot, queue.dir());
        }
    }

    /// The file was ready, but the call would block: another reader was faster, or its readiness
    /// says nothing about this call, and would be reported again and again.
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
                let call = self.table.get_mut(op).and_then(|entry| entry.call.as_mut());
                if let Some(call) = call {
                    call.note_nothing();
                }
                if self.on_result(op, Gain::Moved(0), io) {
                    self.await_ready(op, Side::Source, io);
                }
            }
        }
    }

    /// Returns what the plain call returns once reading is shut down, if it does not say so where
    /// it must not wait.
    fn after_shutdown(&self, op: OpSlot) -> Option<AfterShutdown> {
        let source = self.sources.get(self.source_of(op)?.0)?;
        let is_message = !source.mode.is_stream() && source.mode.is_socket();
        match self.table.get(op)?.call.as_ref()?.call() {
            Call::Accept | Call::AcceptMulti => Some(AfterShutdown::Invalid),
            Call::Recv | Call::RecvMulti | Call::RecvFrom | Call::RecvMsg if is_message => {
                Some(AfterShutdown::Nothing)
            }
            _ => None,
        }
    }

    pub(super) fn shut_down(&mut self, op: OpSlot, how: Shutdown, io: &mut impl Io) {
        let Some((slot, _)) = self.source_of(op) else { return };
        let done = io.shutdown(slot, how);
        // Not every mechanism tells of what the program does itself. The call of a UDP socket that
        // has no peer fails, and has shut the socket down all the same.
        io.recheck_all(slot);
        self.complete(op, done.map(|()| Outcome::Done), io);
    }

    /// Pauses an operation if too many of its results are undelivered.
    fn is_paused_by_backpressure(&mut self, op: OpSlot) -> bool {
        let max = self.max_undelivered;
        let Some(entry) = self.table.get_mut(op).filter(|entry| entry.undelivered >= max) else {
            return false;
        };
        entry.state = OpState::Paused;
        true
    }
}
