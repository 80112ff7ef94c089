//! Operations: order, results, cancellation and deadlines, the same on every backend.
//!
//! # The life of an operation
//!
//! An operation is in one [`OpState`], and nothing else says what it is doing.
//!
//! 1. `submit` checks it, makes a call of it and enqueues it ([`OpState::Queued`]).
//! 2. At the head of its queues it becomes [`OpState::Runnable`], and enters the run queue.
//! 3. [`Operations::run`] takes it from there and advances it: the driver gets it
//!    ([`OpState::Submitted`]), or the call is attempted. What would block awaits readiness, a
//!    buffer, a time, or a thread.
//! 4. Whatever happens (readiness, a result of the driver or of a thread, a buffer, a timer) only
//!    marks the operation runnable, or interprets a result (`result.rs`).
//! 5. [`Operations::complete`] takes it out of its queues, makes its successors runnable, and
//!    queues its completion ([`OpState::Completed`]), which `deliver` hands out.
//!
//! This module knows neither registry nor kernel: it asks for both through [`Io`].

mod advance;
mod buffer_wait;
mod cancel;
mod queue;
mod result;
mod splice;
mod submit;
mod table;
mod timers;

use crate::event::Interest;
use crate::key::{OpSlot, Slot};
use crate::op::Outcome;
use crate::poll_bits::PollBits;
use crate::selector::Landed;
use crate::slab::SlotMap;
use crate::sys::buf::Buf;
use crate::sys::file::Held;
use crate::sys::manner::Manner;
use crate::sys::prepared::{Gain, Prepared};
use buffer_wait::BufferWaiters;
use queue::{Queue, SourceOps};
use std::collections::VecDeque;
use std::io;
use std::net::Shutdown;
use std::ops::RangeInclusive;
use std::os::fd::BorrowedFd;
use std::task;
use std::time::Instant;
pub(super) use submit::direction_of;
use table::{Cause, OpEntry, OpResult, OpState, OpTable};
pub(super) use table::{Delivery, Why};

/// A multishot operation is paused while so many of its results are undelivered: as many as one
/// wait has room for, within these bounds.
const MAX_UNDELIVERED: RangeInclusive<usize> = 32..=256;

/// All that operations ask of the reactor, the selector and the kernel.
pub(super) trait Io {
    fn now(&self) -> Instant {
        Instant::now()
    }

    /// Makes a call that does not block.
    ///
    /// # Errors
    ///
    /// What the call says, `WouldBlock` too.
    fn attempt(&mut self, call: &mut Prepared, mode: &mut Manner) -> io::Result<Gain>;

    /// Makes a splice that does not block.
    ///
    /// # Errors
    ///
    /// What the call says, `WouldBlock` too.
    fn attempt_splice(
        &mut self,
        call: &mut Prepared,
        from: &mut Manner,
        to: &mut Manner,
    ) -> io::Result<Gain>;

    /// Shuts a socket down.
    ///
    /// # Errors
    ///
    /// What shutdown(2) says.
    fn shutdown(&mut self, fd: BorrowedFd<'_>, how: Shutdown) -> io::Result<()>;

    /// Returns what is true of a direction now; ready if the kernel can't be asked.
    fn poll_now(&mut self, fd: BorrowedFd<'_>, dir: Interest) -> PollBits;

    /// Returns true if a socket has bytes to receive.
    fn has_bytes(&mut self, fd: BorrowedFd<'_>) -> bool;

    /// Returns true if a socket that has lost its connection was not connected again since.
    fn has_not_reconnected(&mut self, fd: BorrowedFd<'_>) -> bool;

    /// Gives an operation to the driver.
    ///
    /// # Errors
    ///
    /// The call, if the driver does not take it.
    fn submit(&mut self, op: OpSlot, call: Prepared) -> Result<(), Prepared>;

    /// Requests the driver to end an operation.
    fn cancel(&mut self, op: OpSlot);

    /// Requests the driver to end these operations, and waits for those that can be interrupted.
    /// Adds what the driver has to tell to `events`.
    fn cancel_and_wait(&mut self, ops: &[OpSlot], events: &mut Vec<Landed>);

    /// Makes a call on a thread, which needs these files open.
    fn spawn(&mut self, op: OpSlot, call: Prepared, files: Vec<Held>);

    /// Takes a call back unless a thread has begun with it.
    fn withdraw(&mut self, op: OpSlot) -> Option<Prepared>;

    /// Reports a direction of a source once it is ready.
    fn await_ready(&mut self, slot: Slot, dir: Interest);

    /// Ends [`await_ready`](Io::await_ready).
    fn stop_awaiting(&mut self, slot: Slot, dir: Interest);

    /// Polls a direction of a source in this wait or the next.
    fn recheck(&mut self, slot: Slot, dir: Interest);

    /// Polls whatever is watched of a source in this wait or the next.
    fn recheck_all(&mut self, slot: Slot);

    /// Notes that a call has used up what there was of a direction.
    fn note_short_read(&mut self, slot: Slot, dir: Interest);

    /// Returns true if a call would probably block, and readiness will be reported for certain.
    fn can_skip_attempt(&mut self, slot: Slot, dir: Interest) -> bool;

    /// Returns what makes the next wait not sleep.
    fn notifier(&self) -> &task::Waker;

    /// Drops files at the end of the call: that may run the user's code, which may panic.
    fn defer_drop(&mut self, files: Vec<Held>);
}

/// The operations of one poller.
#[derive(Debug)]
pub(super) struct Operations {
    table: OpTable,
    sources: SlotMap<Slot, Box<SourceOps>>,
    /// What can make progress now. Entries of completed operations are skipped.
    run_queue: VecDeque<OpSlot>,
    buffers: BufferWaiters,
    max_undelivered: usize,
}

impl Default for Operations {
    fn default() -> Self {
        Operations {
            table: OpTable::default(),
            sources: SlotMap::default(),
            run_queue: VecDeque::new(),
            buffers: BufferWaiters::default(),
            max_undelivered: *MAX_UNDELIVERED.end(),
        }
    }
}

impl Operations {
    /// Returns true if a source has had operations.
    pub(super) fn has_source(&self, slot: Slot) -> bool {
        self.sources.get(slot).is_some()
    }

    /// Returns the directions in which a source has unfinished operations (M1).
    pub(super) fn busy(&self, slot: Slot) -> Interest {
        self.sources.get(slot).map_or(Interest::empty(), |source| source.dirs())
    }

    /// Adapts backpressure to the room for completions.
    pub(super) fn set_room(&mut self, room: usize) {
        self.max_undelivered = room.clamp(*MAX_UNDELIVERED.start(), *MAX_UNDELIVERED.end());
    }

    /// Notes that the user watches these directions of a source. While urgent data is among them a
    /// ring must not receive: a receive that waits there uses up an urgent byte that comes alone.
    pub(super) fn on_watched(&mut self, slot: Slot, user: Interest, io: &mut impl Io) {
        let Some(source) = self.sources.get_mut(slot) else { return };
        source.emulates_reads = user.contains(Interest::PRIORITY);
        let Some(op) = source.head(Queue::Read).filter(|_| source.emulates_reads) else { return };
        let Some(entry) = self.table.get_mut(op) else { return };
        if let OpState::Submitted { cancel } = &mut entry.state {
            cancel.get_or_insert(Why::Reclaim);
            let mut events = Vec::new();
            io.cancel_and_wait(&[op], &mut events);
            self.on_driver_events(&mut events, io);
            self.run(io);
        }
    }

    /// Marks what awaits these directions of a source runnable.
    pub(super) fn on_ready(&mut self, slot: Slot, ready: Interest, io: &mut impl Io) {
        // A connect comes before reads: it is to be told the error of the socket.
        for queue in [Queue::Write, Queue::Read] {
            let Some(source) = self.sources.get(slot) else { return };
            let Some(op) = source.head(queue).filter(|_| ready.contains(queue.dir())) else {
                continue;
            };
            if self.table.get(op).is_some_and(|entry| entry.awaits(slot, queue)) {
                io.stop_awaiting(slot, queue.dir());
                self.make_runnable(op, Cause::Ready);
            }
        }
    }

    /// Returns the time at which something is due next.
    pub(super) fn next_time(&self) -> Option<Instant> {
        self.table.next_time()
    }

    /// Cancels what is past its deadline, and makes runnable what waited for a time.
    pub(super) fn on_time(&mut self, io: &mut impl Io) {
        let Some(due) = self.table.next_time() else { return };
        let now = io.now();
        if due > now {
            return;
        }
        while let Some(op) = self.table.pop_deadline(now) {
            self.cancel(op, Why::Deadline, io);
        }
        while let Some(op) = self.table.pop_time(now) {
            match self.table.get(op).is_some_and(|entry| entry.call.is_some()) {
                true => self.make_runnable(op, Cause::Retry),
                // Only a timeout waits without a call.
                false => self.complete(op, Ok(Outcome::Done), io),
            }
        }
        self.run(io);
    }

    /// Returns true if completions are to be delivered.
    pub(super) fn has_completed(&self) -> bool {
        self.table.has_completed()
    }

    /// Takes the next completion. A paused operation goes on once enough of its results were
    /// delivered.
    pub(super) fn pop_completed(&mut self) -> Option<Delivery> {
        let delivery = self.table.pop_completed()?;
        let entry = self.table.get(delivery.op);
        let resumes = entry.is_some_and(|entry| {
            matches!(entry.state, OpState::Paused) && entry.undelivered < self.max_undelivered
        });
        if resumes {
            self.make_runnable(delivery.op, Cause::Turn);
        }
        Some(delivery)
    }

    /// Calls this for every source that has had operations.
    pub(super) fn for_each_source(&mut self, mut visit: impl FnMut(&Held, &mut Manner)) {
        self.sources.values_mut().for_each(|source| visit(&source.fd, &mut source.mode));
    }

    /// Returns true if receives found no buffer since the pools were last asked.
    pub(super) fn must_ask_pools(&self) -> bool {
        self.buffers.must_ask()
    }

    fn make_runnable(&mut self, op: OpSlot, cause: Cause) {
        let Some(entry) = self.table.get_mut(op) else { return };
        debug_assert!(!matches!(entry.state, OpState::Runnable(_) | OpState::Completed(_)));
        entry.state = OpState::Runnable(cause);
        self.run_queue.push_back(op);
    }

    /// Makes the head of a queue runnable if nothing else holds it up.
    fn wake_head(&mut self, slot: Slot, queue: Queue) {
        let Some(op) = self.sources.get(slot).and_then(|source| source.head(queue)) else { return };
        let is_queued = |entry: &OpEntry| matches!(entry.state, OpState::Queued);
        if self.table.get(op).is_some_and(is_queued) && self.is_at_head(op) {
            self.make_runnable(op, Cause::Turn);
        }
    }

    /// Returns true if an operation is at the head of all its queues, and no connect is at the head
    /// of the writes of a source that it reads: reading would take the error of the connect.
    fn is_at_head(&self, op: OpSlot) -> bool {
        let Some(entry) = self.table.get(op) else { return false };
        entry.places().all(|(slot, queue)| {
            let Some(source) = self.sources.get(slot) else { return true };
            let is_first = queue == Queue::Unordered || source.head(queue) == Some(op);
            is_first && !(queue == Queue::Read && self.is_connecting(source))
        })
    }

    fn is_connecting(&self, source: &SourceOps) -> bool {
        let head = source.head(Queue::Write).and_then(|op| self.table.get(op));
        head.is_some_and(|entry| entry.kind == crate::op::Kind::Connect)
    }

    /// Completes an operation: takes it out of its queues, makes its successors runnable, and
    /// queues its completion.
    fn complete(&mut self, op: OpSlot, result: io::Result<Outcome>, io: &mut impl Io) {
        let Some(entry) = self.table.get_mut(op) else { return };
        let (call, order) = (entry.call.take(), entry.order);
        let state = std::mem::replace(&mut entry.state, OpState::Queued);
        let places: Vec<_> = entry.places().collect();
        match state {
            OpState::AwaitingReady { on } => {
                if let Some(&(slot, queue)) = places.get(on as usize) {
                    io.stop_awaiting(slot, queue.dir());
                }
            }
            OpState::AwaitingBuffer => {
                if let Some(pool) = call.as_ref().and_then(Prepared::pool) {
                    self.buffers.remove(pool, |op| self.table.awaits_buffer(op));
                }
            }
            _ => {}
        }
        let transferred = call.as_ref().map_or(0, Prepared::moved);
        let (buf, files) = call.map_or((Buf::None, Vec::new()), Prepared::into_parts);
        io.defer_drop(files);
        self.table.complete(op, OpResult::new(transferred, result, buf));
        for &(slot, queue) in &places {
            if let Some(source) = self.sources.get_mut(slot) {
                source.remove(queue, op, order);
            }
        }
        for (slot, queue) in places {
            self.wake_head(slot, queue);
            if queue == Queue::Write {
                // It may have held up the reads.
                self.wake_head(slot, Queue::Read);
            }
        }
    }

    #[cfg(test)]
    pub(super) fn awaits_buffer(&self, op: OpSlot) -> bool {
        self.table.awaits_buffer(op)
    }

    /// Returns true if an operation has a buffer of a pool for what comes next.
    #[cfg(test)]
    pub(super) fn keeps_buffer(&self, op: OpSlot) -> bool {
        let call = self.table.get(op).and_then(|entry| entry.call.as_ref());
        call.is_some_and(|call| call.pool().is_some() && !call.lacks_buffer())
    }

    #[cfg(test)]
    pub(super) fn undelivered(&self, op: OpSlot) -> usize {
        self.table.get(op).map_or(0, |entry| entry.undelivered)
    }

    /// Checks that every live operation has exactly one cause that can make it runnable, and every
    /// cause its operation; panics with the first thing that does not hold.
    #[cfg(any(test, feature = "spi"))]
    pub(super) fn verify(&self, awaited: impl Fn(Slot) -> Interest, on_threads: usize) {
        self.table.verify();
        self.buffers.verify(|op| self.table.awaits_buffer(op));
        let in_run_queue = |op: OpSlot| self.run_queue.iter().filter(|&&its| its == op).count();
        let mut counts = [0; 3];
        for (op, entry) in self.table.iter() {
            let queued = usize::from(matches!(entry.state, OpState::Runnable(_)));
            assert_eq!(in_run_queue(op), queued, "runnable is in the run queue, once: {entry:?}");
            assert_eq!(entry.needs_call(), entry.call.is_some(), "who has the call: {entry:?}");
            match &entry.state {
                OpState::Queued => assert!(!self.is_at_head(op), "it could run: {entry:?}"),
                OpState::AwaitingReady { on } => {
                    let (slot, queue) = entry.places().nth(*on as usize).expect("it has a source");
                    assert!(awaited(slot).contains(queue.dir()), "it is reported: {entry:?}");
                    assert!(self.is_at_head(op), "its turn has come: {entry:?}");
                }
                OpState::AwaitingBuffer => counts[0] += 1,
                OpState::Paused => {
                    assert!(entry.undelivered > 0, "a delivery resumes it: {entry:?}")
                }
                OpState::OnThread { .. } => counts[1] += 1,
                _ => {}
            }
        }
        assert_eq!(counts[0], self.buffers.len(), "who awaits a buffer is in line");
        assert_eq!(counts[1], on_threads, "the threads have what is on a thread");
        for (slot, source) in self.sources.iter() {
            let heads = [Queue::Read, Queue::Write].into_iter().filter(|&queue| {
                let head = source.head(queue).and_then(|op| self.table.get(op));
                head.is_some_and(|entry| entry.awaits(slot, queue))
            });
            let dirs = heads.fold(Interest::empty(), |dirs, queue| dirs | queue.dir());
            assert_eq!(awaited(slot), dirs, "what is awaited has its operation");
        }
    }
}
