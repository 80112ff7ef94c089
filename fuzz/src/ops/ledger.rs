//! All operations of one player, and what may become of each.

mod judge;

use super::super::model::{Failure, Verdict, expect};
use super::line::Line;
use super::script::{Kind, Limit, PLACES, Verb};
use judge::{broken, judge_source};
use nix::libc;
use quintpoll::{Buf, Completion, Interest, Op, OpId};
use std::fmt;
use std::io::{self, ErrorKind};
use std::time::{Duration, Instant};

/// What an operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// Nothing.
    Nop,
    /// It takes time.
    Timeout(Limit),
    /// This, at this place, whose registration has this number.
    Source(Verb, usize, usize),
}

/// An operation.
#[derive(Debug)]
pub struct Entry {
    /// What it does.
    pub task: Task,
    /// How long it has for that.
    pub limit: Limit,
    submitted: Instant,
    id: Option<OpId>,
    state: State,
    /// How many bytes it is to move, at most.
    asked: usize,
    /// Those it is to send.
    payload: Vec<u8>,
    /// How many bytes of the buffer are not its business, at the beginning.
    prefix: usize,
    /// Where the buffer is, and how long it is.
    memory: (usize, usize),
    is_cancelled: bool,
    is_deregistered: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Refused,
    Pending,
    Done,
    /// Its poller has gone.
    Dropped,
}

/// What has become of an operation, to be compared.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// Which.
    pub nth: usize,
    /// Where.
    pub place: Option<usize>,
    /// Whether chance may have had a hand in it.
    pub is_chance: bool,
    /// How many bytes it has moved.
    pub moved: usize,
    /// `None` if it was done; else the kind of the error and its number.
    pub error: Option<(ErrorKind, Option<i32>)>,
}

/// The operations of one player, in the order of their submission.
#[derive(Debug, Default)]
pub struct Ledger {
    entries: Vec<Entry>,
}

/// The order in which an operation of this verb stands; none for what waits for nothing.
pub fn lane_of(verb: Verb) -> Option<Interest> {
    match verb {
        Verb::Recv | Verb::RecvExact | Verb::Read => Some(Interest::READABLE),
        Verb::Send | Verb::SendAll | Verb::Write => Some(Interest::WRITABLE),
        Verb::ShutdownWrite | Verb::ShutdownBoth => Some(Interest::WRITABLE),
        Verb::ShutdownRead => None,
    }
}

/// The directions in which nobody may watch when it is submitted.
pub fn needs_of(verb: Verb) -> Interest {
    lane_of(verb).unwrap_or(Interest::READABLE)
}

/// The error that this can't but end with on a file of this kind.
pub fn doom_of(verb: Verb, kind: Kind) -> Option<i32> {
    match (verb, kind) {
        (_, kind) if kind.is_socket() => None,
        (Verb::Read, Kind::PipeWrite) | (Verb::Write, Kind::PipeRead) => Some(libc::EBADF),
        (Verb::Read | Verb::Write, _) => None,
        _ => Some(libc::ENOTSOCK),
    }
}

impl Ledger {
    /// A new operation that is to move so many bytes: those of the payload, if it sends.
    pub fn add(&mut self, task: Task, limit: Limit, asked: usize, payload: Vec<u8>) -> usize {
        // Some buffers have something in them that is to stay.
        let prefix = if self.entries.len() % 2 == 0 { 0 } else { PREFIX.len() };
        self.entries.push(Entry {
            task,
            limit,
            submitted: Instant::now(),
            id: None,
            state: State::Refused,
            asked,
            payload,
            prefix,
            memory: (0, 0),
            is_cancelled: false,
            is_deregistered: false,
        });
        self.entries.len() - 1
    }

    /// The buffer for a new operation.
    pub fn buffer(&mut self, nth: usize) -> Vec<u8> {
        let entry = &mut self.entries[nth];
        let mut buffer = Vec::with_capacity(entry.prefix + entry.asked + PREFIX.len());
        buffer.extend_from_slice(&PREFIX[..entry.prefix]);
        if entry.sends() {
            buffer.extend_from_slice(&entry.payload);
            buffer.extend_from_slice(PREFIX);
        }
        entry.memory = (buffer.as_ptr().addr(), buffer.len());
        buffer
    }

    /// Which part of its buffer is to be sent.
    pub fn part(&self, nth: usize) -> std::ops::Range<usize> {
        let Entry { prefix, asked, .. } = self.entries[nth];
        prefix..prefix + asked
    }

    /// It was accepted.
    pub fn note_accepted(&mut self, nth: usize, id: OpId) -> Verdict {
        let is_known = self.entries.iter().any(|entry| entry.id == Some(id));
        expect(!is_known, "X2", || format!("{id:?} names two operations"))?;
        (self.entries[nth].id, self.entries[nth].state) = (Some(id), State::Pending);
        Ok(())
    }

    /// It was refused, and has come back.
    pub fn note_refused(&mut self, nth: usize, op: Op) -> Verdict {
        let entry = &self.entries[nth];
        let buf = op.into_buf();
        let is_same = entry.asked == 0 || entry.has_memory(&buf);
        expect(is_same, "C1", || format!("operation {nth} comes back with another buffer"))
    }

    /// The operation that was submitted so many before the last, which has been accepted some time.
    pub fn find(&self, back: u8) -> Option<(usize, OpId)> {
        let known: Vec<_> = (0..self.entries.len())
            .filter_map(|nth| self.entries[nth].id.map(|id| (nth, id)))
            .collect();
        known.len().checked_sub(1)?;
        known.iter().rev().nth(usize::from(back) % known.len()).copied()
    }

    /// Whether its completion is still to come.
    pub fn is_pending(&self, nth: usize) -> bool {
        self.entries[nth].state == State::Pending
    }

    /// The poller's name for it, once it was accepted.
    pub fn id(&self, nth: usize) -> Option<OpId> {
        self.entries[nth].id
    }

    /// It was cancelled.
    pub fn note_cancelled(&mut self, nth: usize) {
        self.entries[nth].is_cancelled = true;
    }

    /// The source at this place was deregistered.
    pub fn note_deregistered(&mut self, place: usize) {
        let pending = self.entries.iter_mut().filter(|entry| entry.is_pending_at(place));
        pending.for_each(|entry| entry.is_deregistered = true);
    }

    /// All that are pending, with their numbers.
    pub fn pending(&self) -> impl Iterator<Item = (usize, &Entry)> {
        self.entries.iter().enumerate().filter(|(_, entry)| entry.state == State::Pending)
    }

    /// Those of them that concern this place.
    pub fn pending_at(&self, place: usize) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(move |entry| entry.is_pending_at(place))
    }

    /// How many bytes or messages may go with the poller from this place.
    pub fn in_flight(&self, place: usize, has_messages: bool) -> usize {
        let receiving = self.pending_at(place).filter(|entry| !entry.sends());
        receiving.map(|entry| if has_messages { 1 } else { entry.asked }).sum()
    }

    /// What was to be sent from this place and has not completed, in order.
    pub fn unsent(&self, place: usize) -> Vec<&[u8]> {
        let sending = self.pending_at(place).filter(|entry| entry.sends());
        sending.map(|entry| &entry.payload[..]).collect()
    }

    /// The poller has gone, and all that were pending.
    pub fn note_dropped(&mut self) {
        for entry in self.entries.iter_mut().filter(|entry| entry.state == State::Pending) {
            entry.state = State::Dropped;
        }
    }

    /// The directions in which there may be operations at this place.
    pub fn busy(&self, place: usize) -> Interest {
        let lanes = self.pending_at(place).filter(|entry| !entry.is_deregistered);
        lanes.filter_map(|entry| entry.lane()).collect()
    }

    /// Whether it is the first of its order, if it stands in one.
    pub fn is_first(&self, nth: usize) -> bool {
        let (Task::Source(_, place, number), Some(lane)) =
            (self.entries[nth].task, self.entries[nth].lane())
        else {
            return true;
        };
        !self.entries[..nth].iter().any(|entry| {
            let is_same = matches!(entry.task, Task::Source(_, p, n) if (p, n) == (place, number));
            is_same && entry.state == State::Pending && entry.lane() == Some(lane)
        })
    }

    /// Judges a completion.
    ///
    /// # Errors
    ///
    /// The clause that it breaks.
    pub fn complete(
        &mut self,
        completion: Completion,
        lines: &mut [Line; PLACES],
    ) -> Result<Ended, Failure> {
        let nth = completion.token.0;
        let told = format!("{completion:?}");
        let entry = self.entries.get(nth).filter(|entry| entry.id == Some(completion.id));
        let Some(entry) = entry else { return broken("C1", format!("of nobody: {told}")) };
        let who = format!("operation {nth} ({:?}, {:?}): {told}", entry.task, entry.limit);
        expect(entry.state == State::Pending, "C1", || format!("not pending any more: {who}"))?;
        expect(!completion.more, "C1", || format!("goes on: {who}"))?;
        expect(entry.has_buffer(&completion), "C1", || format!("not its buffer: {who}"))?;
        let error = completion.result.as_ref().err();
        let stop = error.and_then(|error| entry.stop(error));
        if let Some(error) = error {
            let is_asked = stop.is_none_or(|is_asked| is_asked);
            expect(is_asked, "X3", || format!("nobody has stopped it: {who}, {error:?}"))?;
        }
        // Who is stopped while he waits for his turn has done nothing.
        let is_in_turn = (stop.is_some() && completion.transferred == 0) || self.is_first(nth);
        expect(is_in_turn, "C3", || format!("before its turn: {who}"))?;
        self.judge_barrier(nth, stop.is_some(), &who)?;
        let place = match entry.task {
            Task::Source(verb, place, _) => {
                judge_source(entry, verb, &completion, stop.is_some(), &mut lines[place]).map_err(
                    |failure| Failure { what: format!("{}: {who}", failure.what), ..failure },
                )?;
                Some(place)
            }
            Task::Nop => {
                expect(error.is_none() || stop.is_some(), "C2", || format!("failed: {who}"))?;
                None
            }
            Task::Timeout(limit) => {
                let is_early = error.is_none() && !entry.has_had(limit.time());
                expect(!is_early, "T3", || format!("too early: {who}"))?;
                expect(error.is_none() || stop.is_some(), "C2", || format!("failed: {who}"))?;
                None
            }
        };
        let ended = Ended {
            nth,
            place,
            is_chance: entry.limit.passes(),
            moved: completion.transferred,
            error: error.map(|error| (error.kind(), error.raw_os_error())),
        };
        self.entries[nth].state = State::Done;
        Ok(ended)
    }

    /// What a deregistration ends completes in the order of submission (R5).
    fn judge_barrier(&self, nth: usize, is_stopped: bool, who: &str) -> Verdict {
        let entry = &self.entries[nth];
        let Task::Source(_, place, number) = entry.task else { return Ok(()) };
        if !(is_stopped && entry.is_deregistered && !entry.is_cancelled) || entry.limit.passes() {
            return Ok(());
        }
        let is_before = |one: &&Entry| {
            let is_same = matches!(one.task, Task::Source(_, p, n) if (p, n) == (place, number));
            is_same && one.state == State::Pending
        };
        let others = self.entries[..nth].iter().filter(is_before).count();
        expect(others == 0, "R5", || format!("{others} before it are still to come: {who}"))
    }
}

const PREFIX: &[u8] = b"kept";

impl Entry {
    /// Its direction, if it stands in an order.
    pub fn lane(&self) -> Option<Interest> {
        match self.task {
            Task::Source(verb, ..) => lane_of(verb),
            _ => None,
        }
    }

    /// Whether it was stopped, by a cancel or a deregistration, or its deadline passes soon.
    pub fn is_to_end(&self) -> bool {
        self.is_cancelled || self.is_deregistered || self.limit.passes()
    }

    fn sends(&self) -> bool {
        let Task::Source(verb, ..) = self.task else { return false };
        matches!(verb, Verb::Send | Verb::SendAll | Verb::Write)
    }

    fn is_pending_at(&self, place: usize) -> bool {
        let is_there = matches!(self.task, Task::Source(_, its, _) if its == place);
        is_there && self.state == State::Pending
    }

    fn has_had(&self, time: Option<Duration>) -> bool {
        time.is_some_and(|time| self.submitted.elapsed() >= time)
    }

    /// Whether the error says that it was stopped, and if so, whether there was a reason.
    fn stop(&self, error: &io::Error) -> Option<bool> {
        if error.raw_os_error() == Some(libc::ECANCELED) {
            return Some(self.is_cancelled || self.is_deregistered);
        }
        let is_late = error.kind() == ErrorKind::TimedOut;
        is_late.then(|| self.has_had(self.limit.time()))
    }

    fn has_memory(&self, buf: &Buf) -> bool {
        let Buf::Vec(bytes) = buf else { return false };
        bytes.as_ptr().addr() == self.memory.0
    }

    /// Whether the buffer is the same, with what is to stay in it, and as long as it must be.
    fn has_buffer(&self, completion: &Completion) -> bool {
        let buf = &completion.buf;
        let is_shutdown = !self.sends() && self.asked == 0;
        if is_shutdown {
            return buf.is_empty();
        }
        let more = if self.sends() { 0 } else { completion.transferred };
        let is_same = self.has_memory(buf) && buf.len() == self.memory.1 + more;
        let is_kept = is_same && buf[..self.prefix] == PREFIX[..self.prefix];
        let part = self.prefix..self.prefix + self.payload.len();
        is_kept && (!self.sends() || buf[part] == self.payload)
    }
}

impl fmt::Debug for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{} moved {}", self.nth, self.moved)?;
        match self.error {
            None => Ok(()),
            Some((kind, errno)) => write!(f, " {kind:?} {errno:?}"),
        }
    }
}
