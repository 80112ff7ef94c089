//! The operations of one poller, and the transitions of their states: to the run queue, to what
//! they wait for, and to their completion.

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

/// A multishot operation is paused while so many of its results are undelivered: as many as one
/// wait has room for, within these bounds.
const MAX_UNDELIVERED: RangeInclusive<u32> = 32..=256;

/// The operations of one poller.
#[derive(Debug)]
pub(in crate::reactor) struct Operations {
    pub(super) table: OpTable,
    pub(super) sources: SlotMap<Slot, SourceOps>,
    /// Of sources that were spliced from.
    pub(super) splices: SlotMap<Slot, Spliced>,
    /// What can make progress now. Entries of completed operations are skipped.
    pub(super) run_queue: VecDeque<OpSlot>,
    pub(super) buffers: BufferWaiters,
    pub(super) max_undelivered: u32,
    pub(super) spare_calls: SpareCalls,
    pub(super) silent: SilentSends,
    /// Counts the bytes that were received in attempts since the reactor asked.
    pub(super) received: usize,
}

impl Operations {
    /// Returns those of the poller with this number: none.
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

    /// Returns the time at which something is due next.
    pub(in crate::reactor) fn next_time(&self) -> Option<Instant> {
        self.table.next_time()
    }

    /// Returns true if completions are to be delivered.
    pub(in crate::reactor) fn has_completed(&self) -> bool {
        self.table.has_completed()
    }

    /// Returns true if an operation has not completed.
    pub(in crate::reactor) fn has_unfinished(&self) -> bool {
        self.table.has_unfinished()
    }

    /// Returns the number of completions that are to be delivered.
    pub(in crate::reactor) fn completed_len(&self) -> usize {
        self.table.completed_len()
    }

    /// Delivers completions, as many as there is room for. A paused operation goes on once enough
    /// of its results were delivered. Files that are not needed any more are added to `drops`.
    pub(in crate::reactor) fn deliver(&mut self, events: &mut Events, drops: &mut Vec<SourceFd>) {
        let count = self.table.completed_len().min(events.completion_room());
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

    /// Calls this for every source that has had operations.
    pub(in crate::reactor) fn for_each_source(
        &mut self,
        mut visit: impl FnMut(Slot, &mut FdIoMode),
    ) {
        self.sources.iter_mut().for_each(|(slot, source)| visit(slot, &mut source.mode));
    }

    /// Returns how many bytes were received in attempts since the last call.
    pub(in crate::reactor) fn take_received(&mut self) -> usize {
        std::mem::take(&mut self.received)
    }

    /// Returns true if something may wait for a silent send that the driver has. Then the next look
    /// must not sleep.
    pub(in crate::reactor) fn awaits_silent_sends(&self) -> bool {
        self.silent.are_awaited(!self.buffers.is_empty())
    }

    /// Returns true if receives found no buffer since the pools were last asked.
    pub(in crate::reactor) fn must_ask_pools(&self) -> bool {
        self.buffers.must_ask()
    }

    /// Removes the notifier of a poller that is dropped from its pools.
    pub(in crate::reactor) fn stop_notifying(&self, notifier: &Waker) {
        self.buffers.stop_notifying(notifier);
    }

    pub(super) fn make_runnable(&mut self, op: OpSlot, cause: Cause) {
        let Some(entry) = self.table.get_mut(op) else { return };
        debug_assert!(!matches!(entry.state, OpState::Runnable(_)));
        entry.state = OpState::Runnable(cause);
        self.run_queue.push_back(op);
    }

    /// Makes the head of a queue runnable if nothing else holds it up.
    pub(super) fn wake_head(&mut self, slot: Slot, queue: Queue) {
        let Some(source) = self.sources.get(slot).filter(|_| queue != Queue::Unordered) else {
            return;
        };
        let Some((op, entry)) = self.table.at(source.queue(queue).first) else { return };
        if matches!(entry.state, OpState::Queued) && self.is_at_head(op) {
            self.make_runnable(op, Cause::Turn);
        }
    }

    /// Returns true if an operation is at the head of all its queues, and no connect is at the head
    /// of the writes of a source that it reads: reading would take the error of the connect.
    pub(super) fn is_at_head(&self, op: OpSlot) -> bool {
        let Some(entry) = self.table.get(op) else { return false };
        entry.places().all(|(slot, queue)| {
            let Some(source) = self.sources.get(slot) else { return true };
            let is_first = queue == Queue::Unordered || source.queue(queue).first == link_to(op);
            is_first && !self.is_held_up(slot, queue)
        })
    }

    /// Returns true if a connect holds up the queue of a source.
    pub(super) fn is_held_up(&self, slot: Slot, queue: Queue) -> bool {
        queue == Queue::Read && self.is_connecting(slot)
    }

    /// Returns true if a connect is at the head of the writes of a source.
    fn is_connecting(&self, slot: Slot) -> bool {
        let Some(source) = self.sources.get(slot) else { return false };
        let head = self.table.at(source.queue(Queue::Write).first);
        head.is_some_and(|(_, entry)| entry.kind == Kind::Connect)
    }

    /// Waits until a source is ready.
    pub(super) fn await_ready(&mut self, op: OpSlot, on: Side, io: &mut impl Io) {
        let Some(entry) = self.table.get_mut(op) else { return };
        entry.pause = Pause::NONE;
        entry.state = OpState::AwaitingReady { on };
        if let Some((slot, queue)) = entry.place(on) {
            io.await_ready(slot, queue.dir());
        }
    }

    /// Attempts the call again after a while, twice as long as the last time.
    pub(super) fn pause(&mut self, op: OpSlot, io: &mut impl Io) {
        let Some(entry) = self.table.get_mut(op) else { return };
        entry.pause = entry.pause.next();
        entry.state = OpState::AwaitingTime;
        let time = io.now() + entry.pause.duration();
        self.table.set_time(op, Some(time));
    }

    /// Makes the call on a thread.
    pub(super) fn spawn(&mut self, op: OpSlot, files: Vec<SourceFd>, io: &mut impl Io) {
        let Some(entry) = self.table.get_mut(op) else { return };
        let Some(Work::Call(call)) = entry.work.take() else { return };
        entry.state = OpState::OnThread { cancel: None };
        io.spawn(op, call, files);
    }

    /// Completes an operation: takes it out of its queues, makes its successors runnable, and
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
        let is_stopped = entry.stop().is_some();
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
        if entry.skips_success && is_whole && !is_stopped && result.is_ok() {
            self.table.end_silently();
        } else {
            self.table.complete(op, entry.token, transferred, result, buf);
        }
        let mut has_successors = false;
        for place in entry.places() {
            has_successors |= self.leave(op, &mut entry, place);
        }
        if has_successors || entry.kind == Kind::Connect {
            self.wake_successors(&entry);
        }
    }

    /// Takes an operation that was removed out of a queue. Returns true if others are there.
    fn leave(&mut self, op: OpSlot, entry: &mut OpEntry, place: (Slot, Queue)) -> bool {
        let Some(source) = self.sources.get_mut(place.0) else { return false };
        let was_there = self.table.dequeue(op, entry, place, source.queue_mut(place.1));
        source.pending -= u32::from(was_there);
        source.queue(place.1).first.is_some()
    }

    /// Makes the heads of the queues runnable that an operation was in.
    fn wake_successors(&mut self, entry: &OpEntry) {
        for (slot, queue) in entry.places() {
            self.wake_head(slot, queue);
            if entry.kind == Kind::Connect {
                // It has held up the reads.
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
