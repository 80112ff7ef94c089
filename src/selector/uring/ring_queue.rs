//! The conversation with the kernel: which polls and operations it is asked for, and what it tells
//! of them.

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

/// All polls of one ring.
#[derive(Debug)]
pub(super) struct Polls {
    ring: Ring,
    requests: PollSlab,
    operations: Operations,
    /// What is to be asked next.
    queue: VecDeque<QueuedSqe>,
    /// Single receives, to be asked for behind all that: while the sends of a batch are made, the
    /// peers may answer, and a receive that finds something is cheaper than one that waits.
    receives: VecDeque<OpSlot>,
    /// What is to be cancelled again, because it was too early (g).
    too_early: Vec<Id>,
    /// As long as the queue may become before what is pointless in it is thrown out.
    longest_queue: usize,
    /// Counts the turns: how often the kernel was entered.
    turn: u64,
    /// Counts the waits.
    wait: u64,
    /// Counts the news: polls that ended, and the first word in a wait of those that go on.
    progress: u64,
    /// Kept for its memory.
    completions: Vec<Completed>,
    /// In the last turn there was a moment without room for another completion.
    was_full: bool,
    /// How many completions have got lost.
    lost: u32,
    told: Vec<PollEvent>,
}

/// A request that has completed: `user_data`, the result, and whether it goes on.
type Completed = (u64, i32, bool);

/// Where the completions of one turn go.
struct Reaped<'a> {
    requests: &'a mut Vec<Completed>,
    operations: &'a mut Operations,
    progress: &'a mut u64,
    /// Operations that are to be stopped.
    floods: &'a mut Vec<OpSlot>,
}

impl TakeCompletions for Reaped<'_> {
    fn on_request(&mut self, user_data: u64, result: i32, more: bool) {
        self.requests.push((user_data, result, more));
    }

    fn on_end(&mut self, tag: u64, work: Work, result: io::Result<CallResult>) {
        *self.progress += 1;
        self.operations.note_end(tag, work, result);
    }

    fn on_partial(&mut self, tag: u64, result: CallResult, partial_results: u8) {
        *self.progress += 1;
        if let Some(op) = self.operations.note_one(tag, result, partial_results) {
            self.floods.push(op);
        }
    }
}

/// What a poll has told.
#[derive(Clone, Copy, Debug)]
pub(super) struct PollEvent {
    pub(super) id: Id,
    pub(super) owner: Owner,
    /// Bits, or a negative error number.
    pub(super) result: i32,
    /// Whether it ended by this, and how.
    pub(super) end: Option<End>,
}

/// How a poll has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// It was cancelled by us.
    Cancelled,
    /// By itself, in the turn that submitted it, which did not wait for anything, and although
    /// there was room.
    AtOnce,
    /// By itself, in the turn that submitted it, and perhaps for another reason.
    Unsure,
    /// By itself, after it had begun to wait.
    Later,
}

/// A queue of this length is never looked through.
const SHORT_QUEUE: usize = 64;

impl Polls {
    pub(super) fn new(ring: Ring) -> Self {
        let (requests, operations, queue, receives) = Default::default();
        let (too_early, completions, told) = Default::default();
        Polls {
            ring,
            requests,
            operations,
            queue,
            receives,
            too_early,
            longest_queue: SHORT_QUEUE,
            turn: 0,
            wait: 0,
            progress: 0,
            completions,
            was_full: false,
            lost: 0,
            told,
        }
    }

    /// Provides no buffers of pools, as before Linux 5.19.
    #[cfg(any(test, feature = "spi"))]
    pub(super) fn forbid_groups(&mut self) {
        self.ring.forbid_groups();
    }

    /// Whether the ring was made by a process that this one was forked from.
    pub(super) fn is_forked_child(&self) -> bool {
        self.ring.is_forked_child()
    }

    /// How many polls have not ended.
    pub(super) fn len(&self) -> usize {
        self.requests.len()
    }

    pub(super) fn progress(&self) -> u64 {
        self.progress
    }

    pub(super) fn begin_wait(&mut self) {
        self.wait += 1;
    }

    /// Has the next turn arm a poll. The file stays open until the poll has ended.
    pub(super) fn begin(&mut self, owner: Owner, number: RawFd, bits: PollBits) -> Id {
        let submitted_in = None;
        let poll = Poll { owner, number, bits, is_cancelled: false, submitted_in, told_in: 0 };
        let id = self.requests.insert(poll).0;
        if self.queue.len() >= self.longest_queue {
            let (requests, operations, ring) = (&mut self.requests, &self.operations, &self.ring);
            self.queue.retain(|&ask| match ask {
                QueuedSqe::Poll(id) | QueuedSqe::Cancel(id) => requests.get_mut(id).is_some(),
                QueuedSqe::Begin(op) | QueuedSqe::Stop(op) => operations.is_known(op, ring),
            });
            self.longest_queue = SHORT_QUEUE.max(2 * self.queue.len());
        }
        self.queue.push_back(QueuedSqe::Poll(id));
        id
    }

    /// Whether the kernel can do such an operation.
    pub(super) fn can(&mut self, work: &Work) -> bool {
        let can_lend = work.pool().is_none_or(|pool| self.ring.provides(pool));
        can_lend && self.ring.knows(work.call())
    }

    /// Whether the kernel knows how to do such operations.
    pub(super) fn knows(&self, call: Call) -> bool {
        self.ring.knows(call)
    }

    /// Has the next turn begin an operation.
    pub(super) fn begin_operation(&mut self, op: OpSlot, work: Work) {
        let is_receive = work.call() == Call::Recv;
        let may_begin = !is_receive && self.queue.is_empty();
        let waiting = if may_begin { self.ring.begin(work, op.to_bits()) } else { Err(work) };
        let Err(work) = waiting else { return };
        self.operations.insert(op, work);
        if is_receive {
            self.receives.push_back(op);
        } else {
            self.queue.push_back(QueuedSqe::Begin(op));
        }
    }

    /// Has the next turn stop an operation. One that was not submitted has thereby ended.
    pub(super) fn stop_operation(&mut self, op: OpSlot) {
        if self.operations.stop(op, &mut self.ring) {
            self.queue.push_back(QueuedSqe::Stop(op));
        }
    }

    /// Has the buffers of a pool that are provided returned to it, and stops what would take them.
    pub(super) fn release_buffers(&mut self, pool: &BufferPool) {
        if self.ring.release_buffers(pool) {
            for op in self.operations.receiving_from(pool, &self.ring) {
                self.stop_operation(op);
            }
        }
    }

    /// Has the next turn stop all of them.
    pub(super) fn stop_all_operations(&mut self) {
        for op in self.operations.slots(&self.ring) {
            self.stop_operation(op);
        }
    }

    /// Whether the kernel has this operation, or is to get it.
    pub(super) fn has_operation(&self, op: OpSlot) -> bool {
        self.operations.is_known(op, &self.ring)
    }

    /// How many operations have not ended.
    pub(super) fn operations(&self) -> usize {
        self.operations.len(&self.ring)
    }

    /// Whether there are events of operations for [`Polls::drain_events`].
    pub(super) fn has_events(&self) -> bool {
        self.operations.has_events()
    }

    /// Takes the events of operations.
    pub(super) fn drain_events(&mut self, out: &mut Vec<OpEvent>) {
        self.operations.drain_events(out);
    }

    /// Has the next turn cancel a poll. One that was not submitted has thereby ended.
    pub(super) fn cancel(&mut self, id: Id) {
        let Some(poll) = self.requests.get_mut(id) else { return };
        poll.is_cancelled = true;
        if poll.submitted_in.is_some() {
            self.queue.push_back(QueuedSqe::Cancel(id));
        } else {
            self.end(id, 0, End::Cancelled);
        }
    }

    /// Has the next turn cancel all of them.
    pub(super) fn cancel_all(&mut self) {
        let is_wanted = |(id, poll): (Id, &Poll)| (!poll.is_cancelled).then_some(id);
        for id in self.requests.iter().filter_map(is_wanted).collect::<Vec<_>>() {
            self.cancel(id);
        }
    }

    /// Has the next turn cancel what was too early to be cancelled (g).
    pub(super) fn cancel_again(&mut self) {
        for id in std::mem::take(&mut self.too_early) {
            self.cancel(id);
        }
        self.operations.stop_again(&self.ring, |op| self.queue.push_back(QueuedSqe::Stop(op)));
    }

    /// Whether there is something to ask.
    pub(super) fn has_queued(&mut self) -> bool {
        !self.queue.is_empty() || !self.receives.is_empty() || self.ring.has_pushed()
    }

    /// Whether this poll was not submitted yet.
    pub(super) fn is_queued(&mut self, id: Id) -> bool {
        self.requests.get_mut(id).is_some_and(|poll| poll.submitted_in.is_none())
    }

    /// Whether there is more to ask than one turn can.
    pub(super) fn has_queued_too_much(&mut self) -> bool {
        self.queue.len() + self.receives.len() > self.ring.room()
    }

    /// Whether the last turn may have left something for want of room.
    pub(super) fn was_full(&self) -> bool {
        self.was_full
    }

    /// Whether the kernel says that it has more to tell (h).
    pub(super) fn has_more(&mut self) -> bool {
        self.ring.has_more()
    }

    /// Enters the kernel once: asks what fits into the ring, and waits until there are so many
    /// completions. What they tell is for [`Polls::take_told`], whatever this answers.
    pub(super) fn enter(&mut self, min_complete: u32, timeout: Option<Duration>) -> io::Result<()> {
        self.turn += 1;
        self.fill();
        self.ring.refill();
        let mut entered = self.ring.enter(min_complete, timeout);
        let at_once = min_complete == 0 || timeout == Some(Duration::ZERO);
        self.reap(at_once);
        if matches!(&entered, Err(error) if error.raw_os_error() == Some(libc::EBUSY)) {
            // There was no room for completions; now there is.
            entered = self.ring.enter(min_complete, timeout);
            self.reap(at_once);
        }
        entered
    }

    /// What was told last, and whether some of it has got lost.
    pub(super) fn take_told(&mut self, told: &mut Vec<PollEvent>) -> bool {
        told.append(&mut self.told);
        let lost = self.ring.lost();
        std::mem::replace(&mut self.lost, lost) != lost
    }

    /// Moves as much of the queue into the ring as there is room for.
    fn fill(&mut self) {
        while let Some(&ask) = self.queue.front() {
            let is_asked = match ask {
                QueuedSqe::Poll(id) => self.ask_to_poll(id),
                QueuedSqe::Cancel(id) => self.ask_to_cancel(id),
                QueuedSqe::Begin(op) => self.operations.begin(op, &mut self.ring),
                QueuedSqe::Stop(op) => self.operations.ask_to_stop(op, &mut self.ring),
            };
            if !is_asked {
                return;
            }
            self.queue.pop_front();
        }
        while let Some(&op) = self.receives.front() {
            if !self.operations.begin(op, &mut self.ring) {
                return;
            }
            self.receives.pop_front();
        }
    }

    /// False if there is no room.
    fn ask_to_poll(&mut self, id: Id) -> bool {
        let turn = self.turn;
        let Some(poll) = self.requests.get_mut(id) else { return true };
        let request = Request::Poll { fd: poll.number, bits: poll.bits.bits() };
        let is_asked = self.ring.push(request, UserData::Poll(id).to_bits());
        if is_asked {
            poll.submitted_in = Some(turn);
        }
        is_asked
    }

    /// False if there is no room.
    fn ask_to_cancel(&mut self, id: Id) -> bool {
        if self.requests.get_mut(id).is_none() {
            return true;
        }
        let target = UserData::Poll(id).to_bits();
        self.ring.push(Request::Cancel(target), UserData::Cancel(id).to_bits())
    }

    /// Takes what a turn has brought. `at_once`: it did not wait.
    fn reap(&mut self, at_once: bool) {
        let mut requests = std::mem::take(&mut self.completions);
        let mut floods = Vec::new();
        let Polls { ring, operations, progress, .. } = self;
        let to = Reaped { requests: &mut requests, operations, progress, floods: &mut floods };
        let was_full = ring.reap(to);
        floods.into_iter().for_each(|op| self.stop_operation(op));
        self.was_full = was_full;
        for (user_data, result, more) in requests.drain(..) {
            match UserData::from_bits(user_data) {
                UserData::Cancel(id) if result < 0 => self.too_early.push(id),
                UserData::Cancel(_) => {}
                UserData::Stop(place) => self.operations.note_stop(place, result, &self.ring),
                UserData::Poll(id) if more => self.hear(id, result),
                UserData::Poll(id) => {
                    let end = self.kind_of_end(id, at_once && !was_full);
                    self.end(id, result, end);
                }
            }
        }
        self.completions = requests;
    }

    /// A poll has told something, and goes on.
    fn hear(&mut self, id: Id, result: i32) {
        let wait = self.wait;
        let Some(poll) = self.requests.get_mut(id) else { return };
        let is_news = std::mem::replace(&mut poll.told_in, wait) != wait;
        let owner = poll.owner;
        if !poll.is_cancelled {
            self.progress += u64::from(is_news);
            self.told.push(PollEvent { id, owner, result, end: None });
        }
    }

    fn kind_of_end(&mut self, id: Id, is_sure: bool) -> End {
        let turn = self.turn;
        match self.requests.get_mut(id) {
            Some(poll) if poll.is_cancelled => End::Cancelled,
            Some(poll) if poll.submitted_in != Some(turn) => End::Later,
            _ if is_sure => End::AtOnce,
            _ => End::Unsure,
        }
    }

    /// A poll has ended: the kernel holds its file no longer.
    fn end(&mut self, id: Id, result: i32, end: End) {
        let Some(Poll { owner, .. }) = self.requests.remove(id) else { return };
        self.progress += 1;
        self.told.push(PollEvent { id, owner, result, end: Some(end) });
    }
}

#[cfg(test)]
impl Polls {
    /// How often the kernel was entered.
    pub(super) fn turns(&self) -> u64 {
        self.turn
    }

    /// How many receives are to be asked for behind everything else.
    pub(super) fn waiting_receives(&self) -> usize {
        self.receives.len()
    }

    /// Cancels a poll as if it had not been us.
    pub(super) fn cancel_behind_our_back(&mut self, id: Id) {
        self.queue.push_back(QueuedSqe::Cancel(id));
    }

    /// How much is to be asked or told.
    pub(super) fn queued(&self) -> usize {
        self.queue.len() + self.told.len()
    }

    /// Has the next turn tell this, as if it came from the kernel.
    pub(super) fn tell(&mut self, told: PollEvent) {
        self.told.push(told);
    }
}
