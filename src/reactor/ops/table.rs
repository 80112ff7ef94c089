//! All operations of one poller, from their submission until their completion is delivered.

use super::super::timers::Timers;
use super::lane::Lane;
use crate::event::Token;
use crate::key::{OpSlot, Slot};
use crate::op::{Kind, Outcome};
use crate::slab::Slab;
use crate::sys::buf::Buf;
use crate::sys::file::Held;
use crate::sys::prepared::Prepared;
use std::collections::VecDeque;
use std::io;
use std::net::Shutdown;
use std::time::{Duration, Instant};

/// One operation.
#[derive(Debug)]
pub(in crate::reactor) struct Operation {
    pub(super) token: Token,
    pub(in crate::reactor) kind: Kind,
    /// Its source, and the order in which it stands there.
    pub(in crate::reactor) place: Option<(Slot, Lane)>,
    /// The same of the source that it moves bytes to, if there are two.
    pub(in crate::reactor) second: Option<(Slot, Lane)>,
    pub(super) state: State,
    /// Why it is to end early.
    pub(super) stop: Option<Stop>,
    /// The mechanism has given it back: the reactor does it.
    pub(super) is_emulated: bool,
    /// It stands in line for a buffer.
    pub(in crate::reactor) is_waiting: bool,
    /// It is taken from the mechanism until more of its results were delivered.
    pub(super) is_held_back: bool,
    /// How many of its results were not delivered.
    pub(in crate::reactor) untaken: usize,
    /// When it is to be stopped.
    due: Option<Instant>,
    /// When it is to be tried again, or its time has passed.
    retry: Option<Instant>,
    /// How long the last pause between two tries was.
    pub(in crate::reactor) pause: Duration,
    /// Counts the submissions.
    pub(super) order: u64,
    /// Keeps files open for the kernel when their registrations have gone.
    pub(in crate::reactor) held: Vec<Held>,
}

/// Where an operation is.
#[derive(Debug)]
pub(in crate::reactor) enum State {
    /// Here: it waits for its turn, or for its file to be ready.
    Here(Prepared),
    /// To be made when its turn comes.
    ShuttingDown(Shutdown),
    /// The mechanism has it.
    InKernel,
    /// It is with the threads that wait for disks.
    OnThread,
    /// It waits for time to pass.
    Timing,
    /// Its completion is to be delivered.
    Over(Over),
    /// For a moment, between two of these.
    Moving,
}

/// What has become of an operation.
#[derive(Debug)]
pub(in crate::reactor) struct Over {
    pub(super) transferred: usize,
    /// `None`: it is done. What else there is to tell is seldom, and large.
    result: io::Result<Option<Box<Outcome>>>,
    pub(super) buf: Buf,
}

impl Over {
    pub(super) fn new(transferred: usize, result: io::Result<Outcome>, buf: Buf) -> Self {
        let result = result.map(|outcome| match outcome {
            Outcome::Done => None,
            outcome => Some(Box::new(outcome)),
        });
        Over { transferred, result, buf }
    }

    pub(super) fn into_result(self) -> (io::Result<Outcome>, Buf) {
        let result = self.result.map(|outcome| outcome.map_or(Outcome::Done, |outcome| *outcome));
        (result, self.buf)
    }
}

/// Why an operation ends early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::reactor) enum Stop {
    Canceled,
    TimedOut,
}

impl Stop {
    pub(super) fn error(self) -> io::Error {
        match self {
            Stop::Canceled => io::Error::from_raw_os_error(libc::ECANCELED),
            Stop::TimedOut => {
                io::Error::new(io::ErrorKind::TimedOut, "the operation's deadline has passed")
            }
        }
    }
}

impl Operation {
    pub(super) fn new(token: Token, kind: Kind, place: Option<(Slot, Lane)>, state: State) -> Self {
        Operation {
            token,
            kind,
            place,
            second: None,
            state,
            stop: None,
            is_emulated: false,
            is_waiting: false,
            is_held_back: false,
            untaken: 0,
            due: None,
            retry: None,
            pause: Duration::ZERO,
            order: 0,
            held: Vec::new(),
        }
    }

    /// It is to be tried again after a while.
    pub(super) fn is_paused(&self) -> bool {
        self.retry.is_some()
    }

    pub(super) fn is_in_kernel(&self) -> bool {
        matches!(self.state, State::InKernel)
    }

    /// What it is made of, if it is here.
    pub(in crate::reactor) fn prepared(&self) -> Option<&Prepared> {
        match &self.state {
            State::Here(prepared) => Some(prepared),
            _ => None,
        }
    }

    pub(in crate::reactor) fn prepared_mut(&mut self) -> Option<&mut Prepared> {
        match &mut self.state {
            State::Here(prepared) => Some(prepared),
            _ => None,
        }
    }
}

/// One completion that is to be delivered.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) op: OpSlot,
    /// One of many; the last is with the operation itself.
    pub(super) one: Option<Over>,
}

/// A completion.
#[derive(Debug)]
pub(super) struct Delivery {
    pub(super) op: OpSlot,
    pub(super) token: Token,
    pub(super) over: Over,
    pub(super) more: bool,
    /// Dropped last: that may run the user's code.
    pub(super) held: Vec<Held>,
}

/// The operations, by slot.
#[derive(Debug, Default)]
pub(in crate::reactor) struct Ops {
    slab: Slab<OpSlot, Operation>,
    /// What is to be delivered, in this order.
    over: VecDeque<Outgoing>,
    deadlines: Timers,
    retries: Timers,
    submitted: u64,
}

impl Ops {
    pub(super) fn insert(&mut self, operation: Operation) -> OpSlot {
        self.submitted += 1;
        // An operation takes more memory than 32 bits can count.
        self.slab.insert(Operation { order: self.submitted, ..operation }).0
    }

    pub(in crate::reactor) fn get(&self, op: OpSlot) -> Option<&Operation> {
        self.slab.get(op)
    }

    pub(in crate::reactor) fn get_mut(&mut self, op: OpSlot) -> Option<&mut Operation> {
        self.slab.get_mut(op)
    }

    /// Takes what the operation is made of, if it is here.
    pub(in crate::reactor) fn take(&mut self, op: OpSlot) -> Option<Prepared> {
        let operation = self.get_mut(op)?;
        match std::mem::replace(&mut operation.state, State::Moving) {
            State::Here(prepared) => Some(prepared),
            other => {
                operation.state = other;
                None
            }
        }
    }

    /// It is here again.
    pub(in crate::reactor) fn put_back(&mut self, op: OpSlot, prepared: Prepared) {
        if let Some(operation) = self.get_mut(op) {
            operation.state = State::Here(prepared);
        }
    }

    /// It is over: its completion is the next to be delivered after all others.
    pub(super) fn end(&mut self, op: OpSlot, over: Over) {
        self.set_due(op, None);
        self.set_retry(op, None);
        let Some(operation) = self.get_mut(op) else { return };
        operation.state = State::Over(over);
        self.over.push_back(Outgoing { op, one: None });
    }

    /// It has brought one of many results, and goes on.
    pub(super) fn bring(&mut self, op: OpSlot, one: Over) {
        let Some(operation) = self.get_mut(op) else { return };
        operation.untaken += 1;
        self.over.push_back(Outgoing { op, one: Some(one) });
    }

    pub(in crate::reactor) fn has_over(&self) -> bool {
        !self.over.is_empty()
    }

    pub(super) fn over_length(&self) -> usize {
        self.over.len()
    }

    /// Takes the last ones out of the queue of those that are over, from this position on.
    pub(super) fn split_over(&mut self, at: usize) -> VecDeque<Outgoing> {
        self.over.split_off(at)
    }

    /// Puts a result behind the others.
    pub(super) fn queue_over(&mut self, result: Outgoing) {
        self.over.push_back(result);
    }

    /// Takes the first result, to be delivered.
    pub(super) fn pop_over(&mut self) -> Option<Delivery> {
        let Outgoing { op, one } = self.over.pop_front()?;
        if let Some(over) = one {
            let operation = self.get_mut(op)?;
            operation.untaken -= 1;
            return Some(Delivery { op, token: operation.token, over, more: true, held: vec![] });
        }
        let Operation { token, state, held, .. } = self.slab.remove(op)?;
        match state {
            State::Over(over) => Some(Delivery { op, token, over, more: false, held }),
            _ => None,
        }
    }

    /// When the operation is to be stopped.
    pub(super) fn set_due(&mut self, op: OpSlot, due: Option<Instant>) {
        let Some(operation) = self.get_mut(op) else { return };
        let before = std::mem::replace(&mut operation.due, due);
        before.into_iter().for_each(|before| self.deadlines.remove(before, op));
        due.into_iter().for_each(|due| self.deadlines.add(due, op));
    }

    /// When it is to be tried again, or its time has passed.
    pub(in crate::reactor) fn set_retry(&mut self, op: OpSlot, retry: Option<Instant>) {
        let Some(operation) = self.get_mut(op) else { return };
        let before = std::mem::replace(&mut operation.retry, retry);
        before.into_iter().for_each(|before| self.retries.remove(before, op));
        retry.into_iter().for_each(|retry| self.retries.add(retry, op));
    }

    /// When something is to be done next.
    pub(in crate::reactor) fn next_due(&self) -> Option<Instant> {
        let (deadline, retry) = (self.deadlines.next(), self.retries.next());
        deadline.into_iter().chain(retry).min()
    }

    /// Takes one whose deadline has passed.
    pub(super) fn pop_expired(&mut self, now: Instant) -> Option<OpSlot> {
        let op = self.deadlines.pop_due(now)?;
        if let Some(operation) = self.get_mut(op) {
            operation.due = None;
        }
        Some(op)
    }

    /// Takes one that is to be tried again.
    pub(super) fn pop_retry(&mut self, now: Instant) -> Option<OpSlot> {
        let op = self.retries.pop_due(now)?;
        if let Some(operation) = self.get_mut(op) {
            operation.retry = None;
        }
        Some(op)
    }

    /// Checks everything that must hold between calls; panics with the first thing that does not.
    #[cfg(any(test, feature = "spi"))]
    pub(in crate::reactor) fn verify(&self) {
        let all = || self.slab.iter().map(|(_, operation)| operation);
        let is_over = |operation: &&Operation| matches!(operation.state, State::Over(_));
        let last = self.over.iter().filter(|result| result.one.is_none()).count();
        assert_eq!(all().filter(is_over).count(), last, "who is over is in the queue");
        let untaken: usize = all().map(|operation| operation.untaken).sum();
        assert_eq!(untaken, self.over.len() - last, "what was brought is counted");
        assert_eq!(all().filter(|op| op.due.is_some()).count(), self.deadlines.len(), "deadlines");
        assert_eq!(all().filter(|op| op.retry.is_some()).count(), self.retries.len(), "retries");
        let is_moving = |operation: &Operation| matches!(operation.state, State::Moving);
        assert!(!all().any(is_moving), "nobody is on the move between calls");
    }
}

#[cfg(test)]
mod tests;
