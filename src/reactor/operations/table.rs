//! The table of operations, each from its submission until it is completed, and the completions
//! until they are delivered.

use super::queue::Queue;
use super::timers::Timers;
use crate::event::{Events, Token};
use crate::key::{OpSlot, Slot};
use crate::op::{Completion, Kind, OpId, Outcome};
use crate::slab::Slab;
use crate::sys::buf::Buf;
use crate::sys::file::Held;
use crate::sys::prepared::CallBox;
#[cfg(any(test, feature = "spi"))]
use std::collections::HashMap;
use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

/// What an operation is doing, or waits for.
#[derive(Debug)]
pub(super) enum OpState {
    /// It is not at the head of all its queues, or a connect holds it up.
    Queued,
    /// It is in the run queue.
    Runnable(Cause),
    /// A report of its source, or of its target, makes it runnable.
    AwaitingReady { on: Side },
    /// A buffer of its pool makes it runnable.
    AwaitingBuffer,
    /// A timer makes it runnable, or completes it.
    AwaitingTime,
    /// Backpressure: the delivery of its results makes it runnable.
    Paused,
    /// The driver has it.
    Submitted { cancel: Option<Why> },
    /// A thread has it.
    OnThread { cancel: Option<Why> },
}

/// What has made an operation runnable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// It is at the head of its queues.
    Turn,
    /// What it awaited was reported.
    Ready,
    /// A pause is over.
    Retry,
    /// It was given a buffer.
    Buffer,
}

/// Which of two sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Source,
    /// Where a splice moves bytes to.
    Target,
}

/// Why an operation is to end, or to leave the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::reactor) enum Why {
    User,
    Deadline,
    Deregister,
    /// Too many of its results are undelivered.
    Backpressure,
    /// The driver must not have it any more.
    Reclaim,
}

impl Why {
    /// Returns the error with which the operation completes, `None` if it goes on.
    pub(super) fn error(self) -> Option<io::Error> {
        match self {
            Why::User | Why::Deregister => Some(io::Error::from_raw_os_error(libc::ECANCELED)),
            Why::Deadline => {
                let text = "the operation's deadline has passed";
                Some(io::Error::new(io::ErrorKind::TimedOut, text))
            }
            Why::Backpressure | Why::Reclaim => None,
        }
    }

    /// Returns true if the operation is to end.
    pub(super) fn ends(self) -> bool {
        !matches!(self, Why::Backpressure | Why::Reclaim)
    }
}

/// The pause between two attempts where readiness says nothing, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pause(u8);

impl Pause {
    pub(super) const NONE: Pause = Pause(0);
    const MIN: u8 = 1;
    const MAX: u8 = 64;

    /// Returns the next pause, twice as long.
    pub(super) fn next(self) -> Self {
        Pause((2 * self.0).clamp(Self::MIN, Self::MAX))
    }

    pub(super) fn duration(self) -> Duration {
        Duration::from_millis(self.0.into())
    }
}

/// One operation.
#[derive(Debug)]
pub(super) struct OpEntry {
    pub(super) token: Token,
    pub(super) kind: Kind,
    pub(super) state: OpState,
    /// The call, unless the driver or a thread has it.
    pub(super) call: Option<CallBox>,
    /// Its source, and the queue in which it is there.
    pub(super) source: Option<(Slot, Queue)>,
    /// The same of the source that it moves bytes to, if there are two.
    pub(super) target: Option<(Slot, Queue)>,
    /// The driver must not have it.
    pub(super) must_emulate: bool,
    /// The length of its last pause between two attempts.
    pub(super) pause: Pause,
    /// Counts its results that were not delivered.
    pub(super) undelivered: u32,
    /// Counts the submissions.
    pub(super) order: u64,
    deadline: Option<Instant>,
    /// When [`OpState::AwaitingTime`] ends.
    time: Option<Instant>,
}

impl OpEntry {
    pub(super) fn new(token: Token, kind: Kind, call: Option<CallBox>) -> Self {
        OpEntry {
            token,
            kind,
            state: OpState::Queued,
            call,
            source: None,
            target: None,
            must_emulate: false,
            pause: Pause::NONE,
            undelivered: 0,
            order: 0,
            deadline: None,
            time: None,
        }
    }

    /// Returns the queues in which it is.
    pub(super) fn places(&self) -> impl Iterator<Item = (Slot, Queue)> + use<> {
        self.source.into_iter().chain(self.target)
    }

    /// Returns true if it awaits that this source is ready.
    pub(super) fn awaits(&self, slot: Slot, queue: Queue) -> bool {
        match self.state {
            OpState::AwaitingReady { on: Side::Source } => self.source == Some((slot, queue)),
            OpState::AwaitingReady { on: Side::Target } => self.target == Some((slot, queue)),
            _ => false,
        }
    }

    /// Returns the reason for which it is to end, if it has left the reactor.
    pub(super) fn stop(&self) -> Option<Why> {
        match self.state {
            OpState::Submitted { cancel } | OpState::OnThread { cancel } => {
                cancel.filter(|why| why.ends())
            }
            _ => None,
        }
    }

    /// Returns true if its call is here.
    #[cfg(any(test, feature = "spi"))]
    pub(super) fn needs_call(&self) -> bool {
        let is_elsewhere =
            matches!(self.state, OpState::Submitted { .. } | OpState::OnThread { .. });
        let has_none = matches!(self.kind, Kind::Shutdown(_) | Kind::Timeout(_) | Kind::Nop);
        !is_elsewhere && !has_none
    }
}

/// The operations by slot, in the order of their completions, and by time.
#[derive(Debug, Default)]
pub(super) struct OpTable {
    slab: Slab<OpSlot, OpEntry>,
    /// What is to be delivered.
    completed: VecDeque<Completion>,
    /// The number of the poller, for their names.
    poller: u32,
    deadlines: Timers,
    times: Timers,
    /// Files that stay open for the kernel although their registrations have gone.
    held: Vec<(OpSlot, Held)>,
    /// Counts the operations that were inserted.
    submitted: u64,
    /// Counts those whose last completion was delivered.
    delivered: u64,
}

impl OpTable {
    /// Returns an empty table for the poller with this number.
    pub(super) fn of_poller(poller: u32) -> Self {
        OpTable { poller, ..OpTable::default() }
    }

    pub(super) fn insert(&mut self, entry: OpEntry) -> OpSlot {
        self.submitted += 1;
        // An operation takes more memory than 32 bits can count.
        let (op, entry) = self.slab.insert(entry);
        entry.order = self.submitted;
        op
    }

    pub(super) fn get(&self, op: OpSlot) -> Option<&OpEntry> {
        self.slab.get(op)
    }

    pub(super) fn get_mut(&mut self, op: OpSlot) -> Option<&mut OpEntry> {
        self.slab.get_mut(op)
    }

    pub(super) fn awaits_buffer(&self, op: OpSlot) -> bool {
        self.get(op).is_some_and(|entry| matches!(entry.state, OpState::AwaitingBuffer))
    }

    /// Forgets an operation, and queues its completion behind all others.
    pub(super) fn complete(
        &mut self,
        op: OpSlot,
        transferred: usize,
        result: io::Result<Outcome>,
        buf: Buf,
    ) {
        let Some(entry) = self.slab.remove(op) else { return };
        self.deadlines.replace(op, entry.deadline, None);
        self.times.replace(op, entry.time, None);
        let (id, token) = (OpId { poller: self.poller, slot: op }, entry.token);
        self.completed.push_back(Completion { token, id, transferred, result, buf, more: false });
    }

    /// Queues one of many results of an operation that goes on.
    pub(super) fn push_result(
        &mut self,
        op: OpSlot,
        transferred: usize,
        outcome: Outcome,
        buf: Buf,
    ) {
        let Some(entry) = self.slab.get_mut(op) else { return };
        entry.undelivered += 1;
        let (id, token) = (OpId { poller: self.poller, slot: op }, entry.token);
        let result = Ok(outcome);
        self.completed.push_back(Completion { token, id, transferred, result, buf, more: true });
    }

    pub(super) fn has_completed(&self) -> bool {
        !self.completed.is_empty()
    }

    pub(super) fn completed_len(&self) -> usize {
        self.completed.len()
    }

    /// Returns true if the last completion of an operation is to be delivered.
    pub(super) fn is_pending(&self, op: OpSlot) -> bool {
        self.completed.iter().any(|completion| completion.id.slot == op && !completion.more)
    }

    /// Returns the operation of a pending completion.
    pub(super) fn completed_op(&self, at: usize) -> OpSlot {
        self.completed[at].id.slot
    }

    /// Takes the pending completions from this position on.
    pub(super) fn split_completed(&mut self, at: usize) -> VecDeque<Completion> {
        self.completed.split_off(at)
    }

    /// Queues a pending completion again.
    pub(super) fn requeue(&mut self, completion: Completion) {
        self.completed.push_back(completion);
    }

    /// Notes that a pending completion is delivered. Files that were kept open until then are added
    /// to `drops`. Returns the operation if it goes on.
    pub(super) fn note_delivered(&mut self, at: usize, drops: &mut Vec<Held>) -> Option<&OpEntry> {
        let Completion { id, more, .. } = self.completed.get(at)?;
        let op = id.slot;
        if *more {
            let entry = self.slab.get_mut(op)?;
            entry.undelivered -= 1;
            return Some(entry);
        }
        self.delivered += 1;
        if !self.held.is_empty() {
            let all = std::mem::take(&mut self.held).into_iter();
            let (its, others) = all.partition::<Vec<_>, _>(|(its, _)| *its == op);
            self.held = others;
            drops.extend(its.into_iter().map(|(_, file)| file));
        }
        None
    }

    /// Moves the first pending completions, which are delivered, to `events`.
    pub(super) fn move_completed(&mut self, count: usize, events: &mut Events) {
        events.complete(&mut self.completed, count);
    }

    /// Keeps a file open until the completion of an operation was delivered.
    pub(super) fn hold(&mut self, op: OpSlot, file: Held) {
        if self.slab.get(op).is_some() {
            self.held.push((op, file));
        }
    }

    /// Sets when an operation is to be cancelled.
    pub(super) fn set_deadline(&mut self, op: OpSlot, deadline: Option<Instant>) {
        let Some(entry) = self.slab.get_mut(op) else { return };
        let before = std::mem::replace(&mut entry.deadline, deadline);
        self.deadlines.replace(op, before, deadline);
    }

    /// Sets when an operation that waits for a time is due.
    pub(super) fn set_time(&mut self, op: OpSlot, time: Option<Instant>) {
        let Some(entry) = self.slab.get_mut(op) else { return };
        let before = std::mem::replace(&mut entry.time, time);
        self.times.replace(op, before, time);
    }

    pub(super) fn next_time(&self) -> Option<Instant> {
        self.deadlines.next().into_iter().chain(self.times.next()).min()
    }

    /// Takes one operation whose deadline has passed.
    pub(super) fn pop_deadline(&mut self, now: Instant) -> Option<OpSlot> {
        let op = self.deadlines.pop_due(now)?;
        if let Some(entry) = self.get_mut(op) {
            entry.deadline = None;
        }
        Some(op)
    }

    /// Takes one operation whose time has come.
    pub(super) fn pop_time(&mut self, now: Instant) -> Option<OpSlot> {
        let op = self.times.pop_due(now)?;
        if let Some(entry) = self.get_mut(op) {
            entry.time = None;
        }
        Some(op)
    }

    #[cfg(any(test, feature = "spi"))]
    pub(super) fn iter(&self) -> impl Iterator<Item = (OpSlot, &OpEntry)> {
        self.slab.iter()
    }

    #[cfg(any(test, feature = "spi"))]
    pub(super) fn verify(&self) {
        let mut pending = HashMap::<OpSlot, (u32, usize)>::new();
        for completion in &self.completed {
            let (results, last) = pending.entry(completion.id.slot).or_default();
            assert!(*last == 0, "nothing comes after the last result: {completion:?}");
            if completion.more { *results += 1 } else { *last += 1 }
        }
        let [mut deadlines, mut times] = [0; 2];
        for (op, entry) in self.slab.iter() {
            let (results, last) = pending.remove(&op).unwrap_or_default();
            assert_eq!(last, 0, "what has completed is forgotten: {entry:?}");
            assert_eq!(results, entry.undelivered, "a result is delivered: {entry:?}");
            if let Some(deadline) = entry.deadline {
                assert!(self.deadlines.contains(deadline, op), "its deadline is set: {entry:?}");
                deadlines += 1;
            }
            let waits = matches!(entry.state, OpState::AwaitingTime);
            match entry.time {
                Some(time) => {
                    assert!(self.times.contains(time, op), "a timer is set for it: {entry:?}");
                    assert!(waits, "only what waits for a time has a timer: {entry:?}");
                    times += 1;
                }
                None => assert!(!waits || entry.is_endless(), "a timer is set for it: {entry:?}"),
            }
        }
        let last = self.completed.iter().filter(|completion| !completion.more).count() as u64;
        let known = self.slab.len() as u64 + last + self.delivered;
        assert_eq!(known, self.submitted, "each operation is live, pending or delivered");
        let is_last = pending.values().all(|&(_, last)| last == 1);
        assert!(is_last, "each result has its operation, or a last one: {pending:?}");
        assert_eq!(deadlines, self.deadlines.len(), "each deadline has its operation");
        assert_eq!(times, self.times.len(), "each timer has its operation");
    }
}

#[cfg(any(test, feature = "spi"))]
impl OpEntry {
    /// Returns true if its timeout is beyond the clock, which counts the seconds in 63 bits.
    fn is_endless(&self) -> bool {
        matches!(self.kind, Kind::Timeout(after) if after.as_secs() > i64::MAX as u64 / 2)
    }
}

#[cfg(test)]
mod tests;
