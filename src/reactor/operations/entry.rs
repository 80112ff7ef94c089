//! One operation: its state, and what is known of it.

use super::queue::{Link, Links, Queue};
use crate::event::{Interest, Token};
use crate::key::Slot;
use crate::op::Kind;
use crate::sys::io_call::{IoCall, Work};
use crate::sys::pool::BufferPool;
use std::io;
use std::time::{Duration, Instant};

/// What an operation is doing, or waits for.
#[derive(Debug)]
pub(super) enum OpState {
    /// The operation is not at the head of all its queues, or a connect holds it up.
    Queued,
    /// It is in the run queue.
    Runnable(Cause),
    /// A report of its source, or of its target, makes it runnable.
    AwaitingReady { on: Side },
    /// A buffer of its pool makes it runnable.
    AwaitingBuffer,
    /// A timer makes it runnable, or completes it.
    AwaitingTime,
    /// It is a timeout beyond the range of the clock: only a stop ends it.
    AwaitingStop,
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
}

/// Which of two sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Source,
    /// Where a splice moves bytes to.
    Target,
}

/// What the splices from a source have shown, which predicts what the next one waits for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Spliced {
    /// The target of the last splice that moved bytes, so these two can be spliced.
    pub(super) to: Option<Slot>,
    /// The side that the last splice had to wait for.
    pub(super) awaited: Option<Side>,
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
    /// What it has the kernel do, unless the driver or a thread has that.
    pub(super) work: Option<Work>,
    /// Its source, and the queue in which it is there.
    pub(super) source: Option<(Slot, Queue)>,
    /// Its neighbours there.
    links: Links,
    /// What few operations have, so that the others are small.
    rare: Option<Box<Rare>>,
    /// The driver must not have it.
    pub(super) must_emulate: bool,
    /// The operation completes only if it does not succeed entirely.
    pub(super) skips_success: bool,
    /// The length of its last pause between two attempts.
    pub(super) pause: Pause,
    /// Counts its results that were not delivered.
    pub(super) undelivered: u32,
    /// Counts the submissions.
    pub(super) order: u64,
}

/// What few operations have.
#[derive(Debug, Default)]
struct Rare {
    /// The source that it moves bytes to, and the queue in which it is there.
    target: Option<(Slot, Queue)>,
    /// Its neighbours there.
    target_links: Links,
    deadline: Option<Instant>,
    /// When [`OpState::AwaitingTime`] ends.
    time: Option<Instant>,
}

impl OpEntry {
    pub(super) fn new(token: Token, kind: Kind, work: Option<Work>) -> Self {
        OpEntry {
            token,
            kind,
            state: OpState::Queued,
            work,
            source: None,
            links: Links::default(),
            rare: None,
            must_emulate: false,
            skips_success: false,
            pause: Pause::NONE,
            undelivered: 0,
            order: 0,
        }
    }

    /// Returns its call with the memory, if that is here.
    pub(super) fn call(&self) -> Option<&IoCall> {
        self.work.as_ref()?.io_call()
    }

    /// Returns its call with the memory, if that is here.
    pub(super) fn call_mut(&mut self) -> Option<&mut IoCall> {
        self.work.as_mut()?.io_call_mut()
    }

    /// Returns the pool that its buffers come from, if they do and its work is here.
    pub(super) fn pool(&self) -> Option<&BufferPool> {
        self.work.as_ref()?.pool()
    }

    /// Returns the queues in which it is.
    pub(super) fn places(&self) -> impl Iterator<Item = (Slot, Queue)> + use<> {
        self.source.into_iter().chain(self.target())
    }

    /// Returns the place of a side.
    pub(super) fn place(&self, side: Side) -> Option<(Slot, Queue)> {
        match side {
            Side::Source => self.source,
            Side::Target => self.target(),
        }
    }

    /// Returns the direction that it occupies in a place (M1). That need not be the direction of
    /// the queue: where reading and writing share a position there is one.
    pub(super) fn dir_in(&self, place: (Slot, Queue)) -> Interest {
        match self.source == Some(place) {
            true => Queue::of(self.kind).dir(),
            false => Interest::WRITABLE,
        }
    }

    /// Returns the source that it moves bytes to, and the queue in which it is there.
    pub(super) fn target(&self) -> Option<(Slot, Queue)> {
        self.rare.as_ref()?.target
    }

    pub(super) fn set_target(&mut self, target: (Slot, Queue)) {
        self.rare().target = Some(target);
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.rare.as_ref()?.deadline
    }

    /// Returns the deadline before.
    pub(super) fn set_deadline(&mut self, deadline: Option<Instant>) -> Option<Instant> {
        let is_known = self.rare.is_some() || deadline.is_some();
        is_known.then(|| std::mem::replace(&mut self.rare().deadline, deadline)).flatten()
    }

    /// Returns when [`OpState::AwaitingTime`] ends.
    pub(super) fn time(&self) -> Option<Instant> {
        self.rare.as_ref()?.time
    }

    /// Returns the time before.
    pub(super) fn set_time(&mut self, time: Option<Instant>) -> Option<Instant> {
        let is_known = self.rare.is_some() || time.is_some();
        is_known.then(|| std::mem::replace(&mut self.rare().time, time)).flatten()
    }

    fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    /// Returns its neighbours in a queue in which it is.
    pub(super) fn links(&mut self, place: (Slot, Queue)) -> &mut Links {
        match self.source == Some(place) {
            true => &mut self.links,
            false => &mut self.rare().target_links,
        }
    }

    fn links_in(&self, place: (Slot, Queue)) -> Links {
        match &self.rare {
            Some(rare) if self.source != Some(place) => rare.target_links,
            _ => self.links,
        }
    }

    /// Returns what follows it in a queue in which it is.
    pub(super) fn next_in(&self, place: (Slot, Queue)) -> Link {
        self.links_in(place).next
    }

    /// Returns what comes before it in a queue in which it is.
    #[cfg(any(test, feature = "spi"))]
    pub(super) fn previous_in(&self, place: (Slot, Queue)) -> Link {
        self.links_in(place).previous
    }

    /// Returns true if it awaits that this source is ready.
    pub(super) fn awaits(&self, slot: Slot, queue: Queue) -> bool {
        match self.state {
            OpState::AwaitingReady { on } => self.place(on) == Some((slot, queue)),
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

    /// Returns true if its work is here.
    #[cfg(any(test, feature = "spi"))]
    pub(super) fn needs_work(&self) -> bool {
        let is_elsewhere =
            matches!(self.state, OpState::Submitted { .. } | OpState::OnThread { .. });
        let has_none = matches!(self.kind, Kind::Shutdown(_) | Kind::Timeout | Kind::Nop);
        !is_elsewhere && !has_none
    }
}
