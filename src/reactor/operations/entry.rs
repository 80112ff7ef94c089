//! One operation: its state and its properties.

use super::queue::{Link, Links, Queue};
use crate::event::{Interest, Token};
use crate::key::Slot;
use crate::op::Kind;
use crate::sys::io_call::{IoCall, Work};
use crate::sys::pool::BufferPool;
use std::io;
use std::time::{Duration, Instant};

/// The state of an operation.
#[derive(Debug)]
pub(super) enum OpState {
    /// Not at the head of all queues, or blocked by a connect.
    Queued,
    /// In the run queue.
    Runnable(Cause),
    /// Made runnable by a report of the source or the target.
    AwaitingReady { on: Side },
    /// Made runnable by a buffer of the pool.
    AwaitingBuffer,
    /// Made runnable or completed by a timer.
    AwaitingTime,
    /// A timeout beyond the clock's range, which only a cancel ends.
    AwaitingCancel,
    /// Backpressure: made runnable by the delivery of results.
    Paused,
    /// In the driver.
    Submitted { cancel: Option<CancelReason> },
    /// On the thread pool.
    OnThread { cancel: Option<CancelReason> },
}

/// The reason why an operation became runnable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// The operation reached the head of its queues.
    Turn,
    /// The awaited readiness was reported.
    Ready,
    /// The pause has ended.
    Retry,
}

/// Which of two sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Source,
    /// Where a splice moves bytes to.
    Target,
}

/// The outcome of the splices from a source, which predicts what the next one waits for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Spliced {
    /// The target of the last splice that moved bytes, so these two can be spliced.
    pub(super) to: Option<Slot>,
    /// The side that the last splice had to wait for.
    pub(super) awaited: Option<Side>,
}

/// The reason why an operation is to end, or to leave the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::reactor) enum CancelReason {
    User,
    Deadline,
    Deregister,
    /// Too many of its results are undelivered.
    Backpressure,
    /// The driver must return the operation.
    Reclaim,
}

impl CancelReason {
    /// Returns the error of the completion; `None` if the operation continues.
    pub(super) fn error(self) -> Option<io::Error> {
        match self {
            CancelReason::User | CancelReason::Deregister => {
                Some(io::Error::from_raw_os_error(libc::ECANCELED))
            }
            CancelReason::Deadline => {
                let text = "the operation's deadline has passed";
                Some(io::Error::new(io::ErrorKind::TimedOut, text))
            }
            CancelReason::Backpressure | CancelReason::Reclaim => None,
        }
    }

    /// Returns true if the operation is to end.
    pub(super) fn ends(self) -> bool {
        !matches!(self, CancelReason::Backpressure | CancelReason::Reclaim)
    }
}

/// The pause, in milliseconds, between two attempts when readiness is no indication.
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

/// An operation of the table.
#[derive(Debug)]
pub(super) struct OpEntry {
    pub(super) token: Token,
    pub(super) kind: Kind,
    pub(super) state: OpState,
    /// The work for the kernel, unless the driver or a thread has it.
    pub(super) work: Option<Work>,
    /// The source and its queue.
    pub(super) source: Option<(Slot, Queue)>,
    /// The neighbours in that queue.
    links: Links,
    /// Rarely used fields, boxed to keep entries small.
    rare: Option<Box<Rare>>,
    /// The driver must not get the operation.
    pub(super) must_emulate: bool,
    /// The operation has no completion if it succeeds entirely.
    pub(super) skips_success: bool,
    /// The last pause between two attempts.
    pub(super) pause: Pause,
    /// Counts the undelivered results.
    pub(super) undelivered: u32,
    /// The number of the submission.
    pub(super) order: u64,
}

/// The rarely used fields of an operation.
#[derive(Debug, Default)]
struct Rare {
    /// The target of a splice and its queue.
    target: Option<(Slot, Queue)>,
    /// The neighbours in that queue.
    target_links: Links,
    deadline: Option<Instant>,
    /// The end of [`OpState::AwaitingTime`].
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

    /// Returns the call with its memory, unless the driver or a thread has it.
    pub(super) fn call(&self) -> Option<&IoCall> {
        self.work.as_ref()?.io_call()
    }

    /// Returns the call with its memory, unless the driver or a thread has it.
    pub(super) fn call_mut(&mut self) -> Option<&mut IoCall> {
        self.work.as_mut()?.io_call_mut()
    }

    /// Returns the pool of the buffers, if there is one and the work is here.
    pub(super) fn pool(&self) -> Option<&BufferPool> {
        self.work.as_ref()?.pool()
    }

    /// Returns the sources and queues of the operation.
    pub(super) fn places(&self) -> impl Iterator<Item = (Slot, Queue)> + use<> {
        self.source.into_iter().chain(self.target())
    }

    /// Returns the source or target, with its queue.
    pub(super) fn place(&self, side: Side) -> Option<(Slot, Queue)> {
        match side {
            Side::Source => self.source,
            Side::Target => self.target(),
        }
    }

    /// Returns the direction that the operation occupies in a queue (M1). It may differ from the
    /// queue's, because a file with a position has one queue for both.
    pub(super) fn dir_in(&self, place: (Slot, Queue)) -> Interest {
        if self.source == Some(place) { Queue::of(self.kind).dir() } else { Interest::WRITABLE }
    }

    /// Returns the target of a splice and its queue.
    pub(super) fn target(&self) -> Option<(Slot, Queue)> {
        self.rare.as_ref()?.target
    }

    pub(super) fn set_target(&mut self, target: (Slot, Queue)) {
        self.rare().target = Some(target);
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.rare.as_ref()?.deadline
    }

    /// Returns the old deadline.
    pub(super) fn set_deadline(&mut self, deadline: Option<Instant>) -> Option<Instant> {
        let is_known = self.rare.is_some() || deadline.is_some();
        is_known.then(|| std::mem::replace(&mut self.rare().deadline, deadline)).flatten()
    }

    /// Returns the end of [`OpState::AwaitingTime`].
    pub(super) fn time(&self) -> Option<Instant> {
        self.rare.as_ref()?.time
    }

    /// Returns the old time.
    pub(super) fn set_time(&mut self, time: Option<Instant>) -> Option<Instant> {
        let is_known = self.rare.is_some() || time.is_some();
        is_known.then(|| std::mem::replace(&mut self.rare().time, time)).flatten()
    }

    fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    /// Returns the neighbours in a queue of the operation.
    pub(super) fn links(&mut self, place: (Slot, Queue)) -> &mut Links {
        if self.source == Some(place) { &mut self.links } else { &mut self.rare().target_links }
    }

    fn links_in(&self, place: (Slot, Queue)) -> Links {
        match &self.rare {
            Some(rare) if self.source != Some(place) => rare.target_links,
            _ => self.links,
        }
    }

    /// Returns the successor in a queue of the operation.
    pub(super) fn next_in(&self, place: (Slot, Queue)) -> Link {
        self.links_in(place).next
    }

    /// Returns the predecessor in a queue of the operation.
    #[cfg(any(test, feature = "spi"))]
    pub(super) fn previous_in(&self, place: (Slot, Queue)) -> Link {
        self.links_in(place).previous
    }

    /// Returns true if the operation awaits readiness of this source.
    pub(super) fn awaits(&self, slot: Slot, queue: Queue) -> bool {
        match self.state {
            OpState::AwaitingReady { on } => self.place(on) == Some((slot, queue)),
            _ => false,
        }
    }

    /// Returns the reason to end, if the driver or a thread has the operation.
    pub(super) fn cancel_reason(&self) -> Option<CancelReason> {
        match self.state {
            OpState::Submitted { cancel } | OpState::OnThread { cancel } => {
                cancel.filter(|reason| reason.ends())
            }
            _ => None,
        }
    }

    /// Returns true if the work must be here.
    #[cfg(any(test, feature = "spi"))]
    pub(super) fn needs_work(&self) -> bool {
        let is_elsewhere =
            matches!(self.state, OpState::Submitted { .. } | OpState::OnThread { .. });
        let has_none = matches!(self.kind, Kind::Shutdown(_) | Kind::Timeout | Kind::Nop);
        !is_elsewhere && !has_none
    }
}
