//! The operations of one poller, and the transitions of their states.

use super::buffer_wait::BufferWaiters;
use super::entry::{Cause, OpEntry, OpState, Pause, Side, Spliced};
use super::io::Io;
use super::queue::{Queue, SourceOps, link_to};
use super::silent::SilentSends;
use super::table::OpTable;
use crate::event::{Events, Interest};
use crate::key::{OpSlot, Slot};
use crate::op::{Kind, Outcome};
use crate::slab::SlotMap;
use crate::statistics::Statistics;
use crate::sys::buf::Buf;
use crate::sys::file::SourceFd;
use crate::sys::io_call::{IoCall, SpareCalls, Work};
use crate::sys::io_mode::FdIoMode;
use std::collections::VecDeque;
use std::io;
use std::ops::RangeInclusive;
use std::task::Waker;
use std::time::Instant;

/// The bounds of the number of undelivered results at which a multishot operation is paused. The
/// number is the capacity of one wait.
const MAX_UNDELIVERED: RangeInclusive<u32> = 32..=256;

/// The operations of one poller.
#[derive(Debug)]
pub(in crate::reactor) struct Operations {
    pub(super) table: OpTable,
    pub(super) sources: SlotMap<Slot, SourceOps>,
    /// The last splices from each source.
    pub(super) splices: SlotMap<Slot, Spliced>,
    /// The operations that can make progress now. Entries of completed operations are skipped.
    pub(super) run_queue: VecDeque<OpSlot>,
    pub(super) buffers: BufferWaiters,
    pub(super) max_undelivered: u32,
    pub(super) spare_calls: SpareCalls,
    pub(super) silent: SilentSends,
    /// Counts the bytes received by attempts since the last `take_received`.
    pub(super) received: usize,
}

impl Operations {
    /// Returns an empty set of operations for the poller with this id.
    pub(in crate::reactor) fn of_poller(poller: u32) -> Self {
        Operations {
            table: OpTable::of_poller(poller),
            sources: SlotMap::default(),
            splices: SlotMap::default(),
            run_queue: VecDeque::new(),
            buffers: BufferWaiters::default(),
            max_undelivered: *MAX_UNDELIVERED.end(),
            spare_calls: SpareCalls::default(),
            silent: SilentSends::default(),
            received: 0,
        }
    }
}

impl Operations {
    /// Returns true if a source has had operations.
    pub(in crate::reactor) fn has_source(&self, slot: Slot) -> bool {
        self.sources.get(slot).is_some()
    }

    /// Returns the directions that the user watches of a source that has had operations.
    pub(in crate::reactor) fn interest(&self, slot: Slot) -> Option<Interest> {
        self.sources.get(slot).map(|source| source.interest)
    }

    /// Returns the directions in which a source has unfinished operations (M1).
    pub(in crate::reactor) fn busy(&self, slot: Slot) -> Interest {
        let Some(source) = self.sources.get(slot) else { return Interest::empty() };
        let queues = Queue::ALL.into_iter().map(|queue| ((slot, queue), source.queue(queue)));
        let ops = queues.flat_map(|(place, ends)| {
            self.table.queue(place, ends).map(move |(_, entry)| entry.dir_in(place))
        });
        ops.fold(Interest::empty(), |dirs, dir| dirs | dir)
    }

    /// Adapts backpressure to the room for completions.
    pub(in crate::reactor) fn set_room(&mut self, room: usize) {
        let room = u32::try_from(room).unwrap_or(u32::MAX);
        self.max_undelivered = room.clamp(*MAX_UNDELIVERED.start(), *MAX_UNDELIVERED.end());
    }

    /// Returns the number of unfinished operations of a source.
    pub(in crate::reactor) fn pending(&self, slot: Slot) -> usize {
        self.sources.get(slot).map_or(0, |source| source.pending as usize)
    }

    pub(in crate::reactor) fn statistics(&self) -> Statistics {
        self.table.statistics()
    }

    /// Returns the earliest deadline or timer.
    pub(in crate::reactor) fn next_time(&self) -> Option<Instant> {
        self.table.next_time()
    }

    /// Returns true if completions are pending.
    pub(in crate::reactor) fn has_completed(&self) -> bool {
        self.table.has_completed()
    }

    /// Returns true if an operation is unfinished.
    pub(in crate::reactor) fn has_unfinished(&self) -> bool {
        self.table.has_unfinished()
    }

    /// Returns the number of pending completions.
    pub(in crate::reactor) fn completed_len(&self) -> usize {
        self.table.completed_len()
    }

    /// Delivers completions up to the room in `events`. Resumes a paused operation once enough of
    /// its results were delivered. Adds unneeded files to `drops`.
    pub(in crate::reactor) fn deliver(&mut self, events: &mut Events, drops: &mut Vec<SourceFd>) {
        let count = self.table.completed_len().min(events.remaining_completions());
        for at in 0..count {
            let max = self.max_undelivered;
            let resumes = self
                .table
                .note_delivered(at, drops)
                .filter(|entry| matches!(entry.state, OpState::Paused) && entry.undelivered < max);
            if resumes.is_some() {
                self.make_runnable(self.table.completed_op(at), Cause::Turn);
            }
        }
        self.table.move_completed(count, events);
    }

    /// Visits every source that has had operations.
    pub(in crate::reactor) fn for_each_source(
        &mut self,
        mut visit: impl FnMut(Slot, &mut FdIoMode),
    ) {
        self.sources.iter_mut().for_each(|(slot, source)| visit(slot, &mut source.mode));
    }

    /// Returns the bytes received by attempts since the last call.
    pub(in crate::reactor) fn take_received(&mut self) -> usize {
        std::mem::take(&mut self.received)
    }

    /// Returns true if something may wait for a silent send in the driver. The next selector wait
    /// must then not sleep.
    pub(in crate::reactor) fn awaits_silent_sends(&self) -> bool {
        self.silent.are_awaited(!self.buffers.is_empty())
    }

    /// Returns true if receives found no buffer since the pools were last asked.
    pub(in crate::reactor) fn must_ask_pools(&self) -> bool {
        self.buffers.must_ask()
    }

    /// Removes the notifier of a dropped poller from its pools.
    pub(in crate::reactor) fn stop_notifying(&self, notifier: &Waker) {
        self.buffers.stop_notifying(notifier);
    }

    pub(super) fn make_runnable(&mut self, op: OpSlot, cause: Cause) {
        let Some(entry) = self.table.get_mut(op) else { return };
        debug_assert!(!matches!(entry.state, OpState::Runnable(_)));
        entry.state = OpState::Runnable(cause);
        self.run_queue.push_back(op);
    }

    /// Makes the head of a queue runnable, unless another queue or a connect blocks it.
    pub(super) fn wake_head(&mut self, slot: Slot, queue: Queue) {
        let Some(source) = self.sources.get(slot).filter(|_| queue != Queue::Unordered) else {
            return;
        };
        let Some((op, entry)) = self.table.at(source.queue(queue).first) else { return };
        if matches!(entry.state, OpState::Queued) && self.is_at_head(op) {
            self.make_runnable(op, Cause::Turn);
        }
    }

    /// Returns true if an operation is at the head of all its queues. A read also waits for a
    /// connect at the head of the writes, because it would take the connect's error.
    pub(super) fn is_at_head(&self, op: OpSlot) -> bool {
        let Some(entry) = self.table.get(op) else { return false };
        entry.places().all(|(slot, queue)| {
            let Some(source) = self.sources.get(slot) else { return true };
            let is_first = queue == Queue::Unordered || source.queue(queue).first == link_to(op);
            is_first && !self.is_blocked(slot, queue)
        })
    }

    /// Returns true if a connect blocks the queue of a source.
    pub(super) fn is_blocked(&self, slot: Slot, queue: Queue) -> bool {
        queue == Queue::Read && self.is_connecting(slot)
    }

    /// Returns true if a connect is at the head of the writes of a source.
    fn is_connecting(&self, slot: Slot) -> bool {
        let Some(source) = self.sources.get(slot) else { return false };
        let head = self.table.at(source.queue(Queue::Write).first);
        head.is_some_and(|(_, entry)| entry.kind == Kind::Connect)
    }

    /// Awaits readiness of the source or target.
    pub(super) fn await_ready(&mut self, op: OpSlot, on: Side, io: &mut impl Io) {
        let Some(entry) = self.table.get_mut(op) else { return };
        entry.pause = Pause::NONE;
        entry.state = OpState::AwaitingReady { on };
        if let Some((slot, queue)) = entry.place(on) {
            io.await_ready(slot, queue.dir());
        }
    }

    /// Attempts the call again after a pause, twice as long as the last one.
    pub(super) fn pause(&mut self, op: OpSlot, io: &mut impl Io) {
        let Some(entry) = self.table.get_mut(op) else { return };
        entry.pause = entry.pause.next();
        entry.state = OpState::AwaitingTime;
        let time = io.now() + entry.pause.duration();
        self.table.set_time(op, Some(time));
    }

    /// Makes the call on the thread pool.
    pub(super) fn spawn(&mut self, op: OpSlot, files: Vec<SourceFd>, io: &mut impl Io) {
        let Some(entry) = self.table.get_mut(op) else { return };
        let Some(Work::Call(call)) = entry.work.take() else { return };
        entry.state = OpState::OnThread { cancel: None };
        io.spawn(op, call, files);
    }

    /// Completes an operation: removes it from its queues, makes its successors runnable, and
    /// queues its completion.
    pub(super) fn complete(&mut self, op: OpSlot, result: io::Result<Outcome>, io: &mut impl Io) {
        let Some(mut entry) = self.table.remove(op) else { return };
        match entry.state {
            OpState::AwaitingReady { on } => {
                if let Some((slot, queue)) = entry.place(on) {
                    io.stop_awaiting(slot, queue.dir());
                }
            }
            OpState::AwaitingBuffer => {
                if let Some(pool) = entry.pool() {
                    self.buffers.remove(pool, |op| self.table.awaits_buffer(op));
                }
            }
            _ => {}
        }
        let is_cancelled = entry.cancel_reason().is_some();
        let (transferred, buf, is_whole) = match entry.work.take() {
            Some(Work::Call(mut call)) => {
                let (moved, is_whole, buf) = (call.moved(), call.is_whole(), call.take_buf());
                if let Some(files) = call.take_files() {
                    io.defer_drop(files);
                }
                self.spare_calls.keep(call);
                (moved, buf, is_whole)
            }
            Some(Work::Receive { .. }) | None => (0, Buf::None, true),
        };
        if entry.skips_success && is_whole && !is_cancelled && result.is_ok() {
            self.table.end_silently();
        } else {
            self.table.complete(op, entry.token, transferred, result, buf);
        }
        let mut has_successors = false;
        for place in entry.places() {
            has_successors |= self.remove_from_queue(op, &mut entry, place);
        }
        if has_successors || entry.kind == Kind::Connect {
            self.wake_successors(&entry);
        }
    }

    /// Removes an operation from one of its queues. Returns true if others are queued there.
    fn remove_from_queue(&mut self, op: OpSlot, entry: &mut OpEntry, place: (Slot, Queue)) -> bool {
        let Some(source) = self.sources.get_mut(place.0) else { return false };
        let was_queued = self.table.dequeue(op, entry, place, source.queue_mut(place.1));
        source.pending -= u32::from(was_queued);
        source.queue(place.1).first.is_some()
    }

    /// Makes the heads of an operation's former queues runnable.
    fn wake_successors(&mut self, entry: &OpEntry) {
        for (slot, queue) in entry.places() {
            self.wake_head(slot, queue);
            if entry.kind == Kind::Connect {
                // The connect has blocked the reads.
                self.wake_head(slot, Queue::Read);
            }
        }
    }

    pub(super) fn call_mut(&mut self, op: OpSlot) -> Option<&mut IoCall> {
        self.table.get_mut(op)?.call_mut()
    }

    pub(super) fn source_of(&self, op: OpSlot) -> Option<(Slot, Queue)> {
        self.table.get(op).and_then(|entry: &OpEntry| entry.source)
    }
}
