//! One operation, and what it may show.

use super::super::disk::Work;
use super::super::line::Line;
use super::super::script::{DISK, DOOR, Kind, Limit, Verb};
use nix::libc;
use quintpoll::{Buf, Completion, Interest, OpId};
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
    /// From one such place to another.
    Splice([(usize, usize); 2]),
    /// At the listening socket, once or again and again, and the number of its registration.
    Accept(bool, usize),
    /// This client connects.
    Connect(usize),
    /// At the regular file, and the number of its registration.
    Disk(Work, usize),
}

/// An operation.
#[derive(Debug)]
pub struct Entry {
    /// What it does.
    pub task: Task,
    /// How long it has for that.
    pub limit: Limit,
    pub(super) submitted: Instant,
    pub(super) id: Option<OpId>,
    pub(super) state: State,
    /// How many bytes it is to move, at most.
    pub asked: usize,
    /// Those it is to send.
    pub payload: Vec<u8>,
    /// The files it is to pass.
    pub files: Vec<u64>,
    /// How many bytes of the buffer are not its business, at the beginning.
    pub(super) prefix: usize,
    /// Where the buffer is, and how long it is.
    pub(super) memory: (usize, usize),
    /// A success is not told (`Op::skip_success`), unless something stops the operation.
    pub(super) is_silent: bool,
    /// The operation has ended silently; completions before it may be missing.
    pub(super) has_ended: bool,
    pub(super) is_cancelled: bool,
    pub(super) is_deregistered: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Refused,
    Pending,
    Done,
    /// Its poller has gone.
    Dropped,
}

/// What has become of an operation, to be compared.
#[derive(Clone, PartialEq, Eq)]
pub struct Ended {
    /// Which.
    pub nth: usize,
    /// Where.
    pub places: [Option<usize>; 2],
    /// Whether chance may have had a hand in it.
    pub is_chance: bool,
    /// How many bytes it has moved.
    pub moved: usize,
    /// How many results it has brought.
    pub results: usize,
    /// Who was accepted.
    pub clients: Vec<usize>,
    /// It goes on.
    pub more: bool,
    /// The operation has ended without a completion.
    pub is_silent: bool,
    /// `None` if it was done; else the kind of the error and its number.
    pub error: Option<(ErrorKind, Option<i32>)>,
}

/// The order in which an operation of this verb stands; none for what waits for nothing.
pub fn lane_of(verb: Verb) -> Option<Interest> {
    match verb {
        Verb::ShutdownWrite | Verb::ShutdownBoth => Some(Interest::WRITABLE),
        Verb::ShutdownRead => None,
        verb if verb.sends() => Some(Interest::WRITABLE),
        _ => Some(Interest::READABLE),
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

/// What some buffers have in them already.
pub(super) const PREFIX: &[u8] = b"kept";
/// How many buffers there are where there are several.
pub const PARTS: usize = 3;

/// A place, the number of its registration, and a direction: those that stand there complete in
/// order.
type Stand = (usize, usize, Interest);

impl Entry {
    /// Where it stands, if it does in any order.
    pub(super) fn stands(&self) -> [Option<Stand>; 2] {
        let read = Interest::READABLE;
        match self.task {
            Task::Source(verb, place, number) => {
                [lane_of(verb).map(|lane| (place, number, lane)), None]
            }
            Task::Splice([from, to]) => {
                [Some((from.0, from.1, read)), Some((to.0, to.1, Interest::WRITABLE))]
            }
            Task::Accept(_, number) => [Some((DOOR, number, read)), None],
            Task::Disk(work, number) if work.is_sequential() => [Some((DISK, number, read)), None],
            _ => [None; 2],
        }
    }

    /// Whether it stands behind nobody of this one's orders.
    pub(super) fn shares(&self, other: &Entry) -> bool {
        let stands = self.stands();
        other.stands().iter().flatten().any(|its| stands.contains(&Some(*its)))
    }

    /// Whether it moves as much as one call does, of what a network cuts into pieces as it likes.
    pub(super) fn is_cut_by_chance(&self, lines: &[Line]) -> bool {
        let is_network = |place: Option<usize>| place.is_some_and(|at| lines[at].kind.is_network());
        matches!(self.task, Task::Splice(_)) && self.places().into_iter().any(is_network)
    }

    /// The places it is concerned with.
    pub(super) fn places(&self) -> [Option<usize>; 2] {
        match self.task {
            Task::Source(_, place, _) => [Some(place), None],
            Task::Splice([from, to]) => [Some(from.0), Some(to.0)],
            Task::Accept(..) => [Some(DOOR), None],
            // Who knocks makes a difference there.
            Task::Connect(_) => [Some(DOOR), None],
            Task::Disk(..) => [Some(DISK), None],
            Task::Nop | Task::Timeout(_) => [None; 2],
        }
    }

    /// Its direction at this place, if it stands in an order there.
    pub fn lane(&self, place: usize) -> Option<Interest> {
        let stand = self.stands().into_iter().flatten().find(|stand| stand.0 == place);
        stand.map(|stand| stand.2)
    }

    /// Whether it was stopped, by a cancel or a deregistration, or its deadline passes soon.
    pub fn is_to_end(&self) -> bool {
        self.is_cancelled || self.is_deregistered || self.limit.passes()
    }

    /// Returns true if it may end without a completion.
    pub fn is_silent(&self) -> bool {
        self.is_silent
    }

    /// Whether it has many results.
    pub(super) fn is_multi(&self) -> bool {
        matches!(self.task, Task::Source(Verb::RecvMulti, ..) | Task::Accept(true, _))
    }

    pub(super) fn sends(&self) -> bool {
        match self.task {
            Task::Source(verb, ..) => verb.sends(),
            Task::Disk(work, _) => work.writes(),
            _ => false,
        }
    }

    fn receives(&self) -> bool {
        match self.task {
            Task::Source(verb, ..) => verb.receives(),
            Task::Disk(work, _) => work.reads(),
            _ => false,
        }
    }

    pub(super) fn is_pending_at(&self, place: usize) -> bool {
        self.places().contains(&Some(place)) && self.state == State::Pending
    }

    pub(super) fn has_had(&self, time: Option<Duration>) -> bool {
        time.is_some_and(|time| self.submitted.elapsed() >= time)
    }

    /// Whether the error says that it was stopped, and if so, whether there was a reason.
    pub(super) fn stop(&self, error: &io::Error) -> Option<bool> {
        if error.raw_os_error() == Some(libc::ECANCELED) {
            return Some(self.is_cancelled || self.is_deregistered);
        }
        let is_late = error.kind() == ErrorKind::TimedOut;
        is_late.then(|| self.has_had(self.limit.time()))
    }

    pub(super) fn has_memory(&self, buf: &Buf) -> bool {
        match buf {
            Buf::Vec(bytes) => bytes.as_ptr().addr() == self.memory.0,
            Buf::Many(bufs) => {
                let lengths = bufs.iter().map(|buf| buf.len()).sum::<usize>();
                bufs.len() == PARTS && (!self.sends() || lengths == self.payload.len())
            }
            _ => false,
        }
    }

    /// Whether the buffer is the same, with what is to stay in it, and as long as it must be.
    pub(super) fn has_buffer(&self, completion: &Completion) -> bool {
        let buf = &completion.buf;
        if self.is_multi() {
            let is_result = completion.more && !matches!(self.task, Task::Accept(..));
            return match buf {
                Buf::Pool(bytes) => is_result && bytes.len() == completion.transferred,
                Buf::None => !is_result && completion.transferred == 0,
                _ => false,
            };
        }
        if !self.sends() && !self.receives() {
            return matches!(buf, Buf::None);
        }
        if let Buf::Many(bufs) = buf {
            let length: usize = bufs.iter().map(|buf| buf.len()).sum();
            let is_right = if self.sends() { self.payload.len() } else { completion.transferred };
            return bufs.len() == PARTS && length == is_right;
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
        if self.results > 0 {
            write!(f, " in {} results {:?}", self.results, self.clients)?;
        }
        if self.more {
            return write!(f, " and goes on");
        }
        if self.is_silent {
            return write!(f, " silently");
        }
        match self.error {
            None => Ok(()),
            Some((kind, errno)) => write!(f, " {kind:?} {errno:?}"),
        }
    }
}
