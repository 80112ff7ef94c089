//! The queues in front of the ring: SQEs that were not submitted yet, and the events of polls and
//! operations.

use super::super::OpEvent;
use super::operations::Operations;
use super::poll_slab::{Id, Owner, Poll, PollSlab, QueuedSqe, UserData};
use crate::key::OpSlot;
use crate::poll_bits::PollBits;
use crate::sys::io_call::{Call, CallResult, Work};
use crate::sys::pool::BufferPool;
use crate::sys::ring::{Request, Ring, TakeCompletions};
use std::collections::VecDeque;
use std::io;
use std::os::fd::RawFd;
use std::time::Duration;

/// All polls and operations of one ring.
#[derive(Debug)]
pub(super) struct RingQueue {
    ring: Ring,
    requests: PollSlab,
    operations: Operations,
    /// SQEs to push.
    queue: VecDeque<QueuedSqe>,
    /// Single receives, to push behind `queue`: while the sends of a batch are made the peers may
    /// answer, and a receive that finds data is cheaper than one that waits.
    receives: VecDeque<OpSlot>,
    /// Polls whose cancel came too early (g).
    early_cancels: Vec<Id>,
    /// The length at which obsolete entries are removed from the queue.
    queue_limit: usize,
    /// The number of enters.
    enter_count: u64,
    /// The number of waits.
    wait: u64,
    /// Counts progress: polls that ended, and the first CQE in a wait of each that continues.
    progress: u64,
    /// The CQEs of one enter that are no operations. Kept for its memory.
    completions: Vec<Cqe>,
    /// The CQ was full at some moment of the last enter.
    was_full: bool,
    /// The number of lost CQEs.
    lost: u32,
    events: Vec<PollEvent>,
}

/// A CQE: `user_data`, result, and `IORING_CQE_F_MORE`.
type Cqe = (u64, i32, bool);

/// The destinations of the CQEs of one enter.
struct Reaped<'a> {
    requests: &'a mut Vec<Cqe>,
    operations: &'a mut Operations,
    progress: &'a mut u64,
    /// Operations to cancel.
    floods: &'a mut Vec<OpSlot>,
}

impl TakeCompletions for Reaped<'_> {
    fn on_request(&mut self, user_data: u64, result: i32, more: bool) {
        self.requests.push((user_data, result, more));
    }

    fn on_end(&mut self, tag: u64, work: Work, result: io::Result<CallResult>) {
        *self.progress += 1;
        self.operations.on_end(tag, work, result);
    }

    fn on_partial(&mut self, tag: u64, result: CallResult, partial_results: u8) {
        *self.progress += 1;
        if let Some(op) = self.operations.on_result(tag, result, partial_results) {
            self.floods.push(op);
        }
    }
}

/// The CQE of a poll.
#[derive(Clone, Copy, Debug)]
pub(super) struct PollEvent {
    pub(super) id: Id,
    pub(super) owner: Owner,
    /// Bits, or a negative errno.
    pub(super) result: i32,
    /// The way in which the poll ended, if it did.
    pub(super) end: Option<PollEnd>,
}

/// The way in which a poll has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PollEnd {
    /// This crate cancelled it.
    Cancelled,
    /// By itself, in the enter that submitted it, which did not wait, and with space in the CQ.
    Immediate,
    /// By itself, in the enter that submitted it, perhaps for another reason.
    Ambiguous,
    /// By itself, after it had been armed.
    AfterArming,
}

/// Shorter queues are not searched for obsolete entries.
const SHORT_QUEUE: usize = 64;

impl RingQueue {
    pub(super) fn new(ring: Ring) -> Self {
        let (requests, operations, queue, receives) = Default::default();
        let (early_cancels, completions, events) = Default::default();
        RingQueue {
            ring,
            requests,
            operations,
            queue,
            receives,
            early_cancels,
            queue_limit: SHORT_QUEUE,
            enter_count: 0,
            wait: 0,
            progress: 0,
            completions,
            was_full: false,
            lost: 0,
            events,
        }
    }

    /// Provides no buffers of pools, as before Linux 5.19.
    #[cfg(any(test, feature = "spi"))]
    pub(super) fn forbid_groups(&mut self) {
        self.ring.forbid_groups();
    }

    /// Returns true in a forked child of the process that made the ring.
    pub(super) fn is_forked_child(&self) -> bool {
        self.ring.is_forked_child()
    }

    /// Returns the number of polls that have not ended.
    pub(super) fn len(&self) -> usize {
        self.requests.len()
    }

    pub(super) fn progress(&self) -> u64 {
        self.progress
    }

    pub(super) fn begin_wait(&mut self) {
        self.wait += 1;
    }

    /// Queues a poll. The file must stay open until the poll has ended.
    pub(super) fn queue_poll(&mut self, owner: Owner, fd: RawFd, bits: PollBits) -> Id {
        let submitted_in = None;
        let poll = Poll { owner, fd, bits, is_cancelled: false, submitted_in, reported_in: 0 };
        let id = self.requests.insert(poll).0;
        if self.queue.len() >= self.queue_limit {
            let (requests, operations, ring) = (&mut self.requests, &self.operations, &self.ring);
            self.queue.retain(|&sqe| match sqe {
                QueuedSqe::Poll(id) | QueuedSqe::Cancel(id) => requests.get_mut(id).is_some(),
                QueuedSqe::Submit(op) | QueuedSqe::CancelOp(op) => operations.is_known(op, ring),
            });
            self.queue_limit = SHORT_QUEUE.max(2 * self.queue.len());
        }
        self.queue.push_back(QueuedSqe::Poll(id));
        id
    }

    /// Returns true if the kernel can perform this operation.
    pub(super) fn can(&mut self, work: &Work) -> bool {
        let has_buffers = work.pool().is_none_or(|pool| self.ring.provides(pool));
        has_buffers && self.ring.knows(work.call())
    }

    /// Returns true if the kernel supports such operations.
    pub(super) fn knows(&self, call: Call) -> bool {
        self.ring.knows(call)
    }

    /// Pushes or queues an operation.
    pub(super) fn queue_operation(&mut self, op: OpSlot, work: Work) {
        let is_receive = work.call() == Call::Recv;
        let may_begin = !is_receive && self.queue.is_empty();
        let waiting = if may_begin { self.ring.begin(work, op.to_bits()) } else { Err(work) };
        let Err(work) = waiting else { return };
        self.operations.insert(op, work);
        if is_receive {
            self.receives.push_back(op);
        } else {
            self.queue.push_back(QueuedSqe::Submit(op));
        }
    }

    /// Queues the cancel of an operation. One that was not submitted ends at once.
    pub(super) fn cancel_operation(&mut self, op: OpSlot) {
        if self.operations.cancel(op, &mut self.ring) {
            self.queue.push_back(QueuedSqe::CancelOp(op));
        }
    }

    /// Returns the provided buffers of a pool to it, and cancels the operations that would take
    /// them.
    pub(super) fn release_buffers(&mut self, pool: &BufferPool) {
        if self.ring.release_buffers(pool) {
            for op in self.operations.receiving_from(pool, &self.ring) {
                self.cancel_operation(op);
            }
        }
    }

    /// Queues the cancels of all operations.
    pub(super) fn cancel_all_operations(&mut self) {
        for op in self.operations.slots(&self.ring) {
            self.cancel_operation(op);
        }
    }

    /// Returns true if the operation is queued or in flight.
    pub(super) fn has_operation(&self, op: OpSlot) -> bool {
        self.operations.is_known(op, &self.ring)
    }

    /// Returns the number of operations that have not ended.
    pub(super) fn operations(&self) -> usize {
        self.operations.len(&self.ring)
    }

    /// Returns true if there are events for [`RingQueue::drain_events`].
    pub(super) fn has_op_events(&self) -> bool {
        self.operations.has_op_events()
    }

    /// Moves the events of operations to `out`.
    pub(super) fn drain_events(&mut self, out: &mut Vec<OpEvent>) {
        self.operations.drain_events(out);
    }

    /// Queues the cancel of a poll. One that was not submitted ends at once.
    pub(super) fn cancel_poll(&mut self, id: Id) {
        let Some(poll) = self.requests.get_mut(id) else { return };
        poll.is_cancelled = true;
        if poll.submitted_in.is_some() {
            self.queue.push_back(QueuedSqe::Cancel(id));
        } else {
            self.end(id, 0, PollEnd::Cancelled);
        }
    }

    /// Queues the cancels of all polls.
    pub(super) fn cancel_all(&mut self) {
        let is_wanted = |(id, poll): (Id, &Poll)| (!poll.is_cancelled).then_some(id);
        for id in self.requests.iter().filter_map(is_wanted).collect::<Vec<_>>() {
            self.cancel_poll(id);
        }
    }

    /// Queues again the cancels that came too early (g).
    pub(super) fn retry_cancels(&mut self) {
        for id in std::mem::take(&mut self.early_cancels) {
            self.cancel_poll(id);
        }
        self.operations
            .retry_cancels(&self.ring, |op| self.queue.push_back(QueuedSqe::CancelOp(op)));
    }

    /// Returns true if there are SQEs to submit.
    pub(super) fn has_queued(&mut self) -> bool {
        !self.queue.is_empty() || !self.receives.is_empty() || self.ring.has_pushed()
    }

    /// Returns true if this poll was not submitted yet.
    pub(super) fn is_queued(&mut self, id: Id) -> bool {
        self.requests.get_mut(id).is_some_and(|poll| poll.submitted_in.is_none())
    }

    /// Returns true if there are more SQEs than the SQ has space for.
    pub(super) fn exceeds_ring(&mut self) -> bool {
        self.queue.len() + self.receives.len() > self.ring.room()
    }

    /// Returns true if the last enter may have left CQEs because the CQ was full.
    pub(super) fn was_full(&self) -> bool {
        self.was_full
    }

    /// Returns true if the kernel says that it has more CQEs (h).
    pub(super) fn has_more(&mut self) -> bool {
        self.ring.has_more()
    }

    /// Enters the kernel once: submits what fits into the SQ, and waits for `min_complete` CQEs.
    /// Their events are for [`RingQueue::take_events`], even after an error.
    pub(super) fn enter(&mut self, min_complete: u32, timeout: Option<Duration>) -> io::Result<()> {
        self.enter_count += 1;
        self.fill();
        self.ring.refill();
        let mut entered = self.ring.enter(min_complete, timeout);
        let is_nonblocking = min_complete == 0 || timeout == Some(Duration::ZERO);
        self.reap(is_nonblocking);
        if matches!(&entered, Err(error) if error.raw_os_error() == Some(libc::EBUSY)) {
            // The CQ was full; now it has space.
            entered = self.ring.enter(min_complete, timeout);
            self.reap(is_nonblocking);
        }
        entered
    }

    /// Moves the events to `events`. Returns true if CQEs were lost.
    pub(super) fn take_events(&mut self, events: &mut Vec<PollEvent>) -> bool {
        events.append(&mut self.events);
        let lost = self.ring.lost();
        std::mem::replace(&mut self.lost, lost) != lost
    }

    /// Pushes as many queued SQEs as fit into the SQ.
    fn fill(&mut self) {
        while let Some(&sqe) = self.queue.front() {
            let is_pushed = match sqe {
                QueuedSqe::Poll(id) => self.push_poll(id),
                QueuedSqe::Cancel(id) => self.push_cancel(id),
                QueuedSqe::Submit(op) => self.operations.push(op, &mut self.ring),
                QueuedSqe::CancelOp(op) => self.operations.push_cancel(op, &mut self.ring),
            };
            if !is_pushed {
                return;
            }
            self.queue.pop_front();
        }
        while let Some(&op) = self.receives.front() {
            if !self.operations.push(op, &mut self.ring) {
                return;
            }
            self.receives.pop_front();
        }
    }

    /// Returns false if the SQ is full.
    fn push_poll(&mut self, id: Id) -> bool {
        let enter_count = self.enter_count;
        let Some(poll) = self.requests.get_mut(id) else { return true };
        let request = Request::Poll { fd: poll.fd, bits: poll.bits.bits() };
        let is_pushed = self.ring.push(request, UserData::Poll(id).to_bits());
        if is_pushed {
            poll.submitted_in = Some(enter_count);
        }
        is_pushed
    }

    /// Returns false if the SQ is full.
    fn push_cancel(&mut self, id: Id) -> bool {
        if self.requests.get_mut(id).is_none() {
            return true;
        }
        let target = UserData::Poll(id).to_bits();
        self.ring.push(Request::Cancel(target), UserData::Cancel(id).to_bits())
    }

    /// Reaps the CQEs of an enter. `is_nonblocking`: it did not wait.
    fn reap(&mut self, is_nonblocking: bool) {
        let mut requests = std::mem::take(&mut self.completions);
        let mut floods = Vec::new();
        let RingQueue { ring, operations, progress, .. } = self;
        let to = Reaped { requests: &mut requests, operations, progress, floods: &mut floods };
        let was_full = ring.reap(to);
        floods.into_iter().for_each(|op| self.cancel_operation(op));
        self.was_full = was_full;
        for (user_data, result, more) in requests.drain(..) {
            match UserData::from_bits(user_data) {
                UserData::Cancel(id) if result < 0 => self.early_cancels.push(id),
                UserData::Cancel(_) => {}
                UserData::CancelOp(place) => {
                    self.operations.on_cancel_result(place, result, &self.ring)
                }
                UserData::Poll(id) if more => self.on_event(id, result),
                UserData::Poll(id) => {
                    let end = self.classify_end(id, is_nonblocking && !was_full);
                    self.end(id, result, end);
                }
            }
        }
        self.completions = requests;
    }

    /// Notes a CQE of a poll that continues.
    fn on_event(&mut self, id: Id, result: i32) {
        let wait = self.wait;
        let Some(poll) = self.requests.get_mut(id) else { return };
        let is_first = std::mem::replace(&mut poll.reported_in, wait) != wait;
        let owner = poll.owner;
        if !poll.is_cancelled {
            self.progress += u64::from(is_first);
            self.events.push(PollEvent { id, owner, result, end: None });
        }
    }

    fn classify_end(&mut self, id: Id, is_sure: bool) -> PollEnd {
        let enter_count = self.enter_count;
        match self.requests.get_mut(id) {
            Some(poll) if poll.is_cancelled => PollEnd::Cancelled,
            Some(poll) if poll.submitted_in != Some(enter_count) => PollEnd::AfterArming,
            _ if is_sure => PollEnd::Immediate,
            _ => PollEnd::Ambiguous,
        }
    }

    /// Notes the end of a poll: the kernel no longer holds its file.
    fn end(&mut self, id: Id, result: i32, end: PollEnd) {
        let Some(Poll { owner, .. }) = self.requests.remove(id) else { return };
        self.progress += 1;
        self.events.push(PollEvent { id, owner, result, end: Some(end) });
    }
}

#[cfg(test)]
impl RingQueue {
    /// Returns the number of enters.
    pub(super) fn enter_count(&self) -> u64 {
        self.enter_count
    }

    /// Returns the number of receives that were not pushed.
    pub(super) fn queued_receives(&self) -> usize {
        self.receives.len()
    }

    /// Cancels a poll as if another process had.
    pub(super) fn cancel_unexpectedly(&mut self, id: Id) {
        self.queue.push_back(QueuedSqe::Cancel(id));
    }

    /// Returns the number of queued SQEs and events.
    pub(super) fn queued(&self) -> usize {
        self.queue.len() + self.events.len()
    }

    /// Adds an event as if it came from the kernel.
    pub(super) fn push_event(&mut self, events: PollEvent) {
        self.events.push(events);
    }
}
