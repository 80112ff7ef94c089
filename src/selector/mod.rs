//! The selector interface (SPI), implemented by each kernel mechanism.
//!
//! A selector translates and keeps kernel state; it decides nothing. Policy (modes, merging,
//! capacity, fairness, readiness) belongs to the reactor. Outside semver: the interface changes
//! when a mechanism needs it to.

pub(crate) mod epoll;
pub(crate) mod poll;
mod poll_fds;
pub(crate) mod select;
pub(crate) mod sigio;
#[cfg(test)]
mod testing;
pub(crate) mod uring;

use crate::event::Interest;
use crate::key::{OpSlot, Slot};
use crate::poll_bits::PollBits;
use crate::sys::fd_table::{Sharing, ThreadId};
use crate::sys::io_call::{CallResult, Work};
use crate::sys::own_fd::above_stdio;
use crate::sys::pool::BufferPool;
use bitflags::bitflags;
use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A kernel mechanism that reports which files are ready.
pub trait Selector {
    /// Returns the triggers that [`Selector::arm`] accepts; at least one.
    fn native(&self) -> Triggers;

    /// Returns the directions in which files get [`Trigger::Edge`], if it is native: all of them
    /// for every file, or some for some files.
    fn edges(&self) -> Interest {
        Interest::all()
    }

    /// Watches `fd` for `arm` (never for nothing), in place of an earlier request of this slot.
    ///
    /// The next wait must report present readiness, unless [`ArmOutcome::needs_initial_poll`]
    /// leaves that to the reactor. Between registration and [`Selector::remove`] a slot always has
    /// the same file.
    ///
    /// # Errors
    ///
    /// `EBADF` for a descriptor that is not open or open with `O_PATH`, and errors of the
    /// mechanism. After an error the earlier request is still in effect.
    fn arm(&mut self, slot: Slot, fd: BorrowedFd<'_>, arm: ArmRequest) -> io::Result<ArmOutcome>;

    /// Watches nothing for this slot until it is armed again. Late reports are harmless.
    fn disarm(&mut self, slot: Slot, fd: BorrowedFd<'_>);

    /// Notes which of the armed directions operations may await, after each [`Selector::arm`]. The
    /// selector must find their readiness even where the mechanism does not report it, if late: an
    /// operation must complete.
    fn note_awaited(&mut self, slot: Slot, fd: BorrowedFd<'_>, dirs: Interest) {
        let _ = (slot, fd, dirs);
    }

    /// Removes the file: when this returns, the kernel no longer holds it for the slot.
    fn remove(&mut self, slot: Slot, fd: BorrowedFd<'_>);

    /// Limits how many reports a wait takes from the kernel. A mechanism may leave some there if it
    /// reports in a fair order, and reports present readiness when a source is armed. Others take
    /// all, and ignore this.
    fn set_max_reports(&mut self, max: usize) {
        let _ = max;
    }

    /// Waits until there is a report, a [`WakeHandle::notify`] arrives or the deadline passes.
    /// Appends the kernel's reports to `out`: all of them, unless [`has_more`](Selector::has_more)
    /// returns true.
    ///
    /// # Errors
    ///
    /// Errors of the mechanism. `out` must contain every report that was taken from the kernel.
    fn wait(&mut self, deadline: Deadline, out: &mut Vec<Report>) -> io::Result<WaitOutcome>;

    /// Returns true if the kernel may have had more reports than the last wait took. Another wait,
    /// which need not sleep, takes them.
    fn has_more(&mut self) -> bool {
        false
    }

    /// Returns the handle that ends a wait from elsewhere. Always the same one.
    fn wake_handle(&self) -> WakeHandle;

    /// Returns the driver of operations, `None` if the mechanism performs none. Always the same.
    fn driver(&mut self) -> Option<&mut dyn OpDriver> {
        None
    }
}

/// The part of a mechanism that performs operations.
pub trait OpDriver {
    /// Submits an operation, at the latest with the next wait. Its file stays open until
    /// [`drain_events`](OpDriver::drain_events) has returned its completion, or this value is
    /// dropped. The drop must free the memory of the call only when the kernel no longer uses it.
    ///
    /// At most one read and one write of a source is submitted at a time. Operations at an offset
    /// are in no order, and any number may be submitted.
    ///
    /// # Errors
    ///
    /// The work, if the mechanism cannot do it. The reactor attempts it when the file is ready.
    fn submit(&mut self, op: OpSlot, work: Work) -> Result<(), Work>;

    /// Cancels an operation, which soon ends, with `ECANCELED` if it has done nothing.
    fn cancel(&mut self, op: OpSlot);

    /// Cancels these operations, and waits for the end of those that can be interrupted.
    fn cancel_and_wait(&mut self, ops: &[OpSlot]);

    /// Returns the unused provided buffers of a pool to the pool, because others wait for them.
    /// Operations that would take them end with `ECANCELED`.
    fn release_buffers(&mut self, pool: &BufferPool) {
        let _ = pool;
    }

    /// Appends the events since the last call, in order. While there are events, no wait sleeps.
    fn drain_events(&mut self, out: &mut Vec<OpEvent>);
}

/// A result of an operation in the kernel, or on a thread.
#[derive(Debug)]
pub enum OpEvent {
    /// The operation has ended.
    Completed {
        /// The operation that has ended.
        op: OpSlot,
        /// The work as it was submitted, except for the count of moved bytes.
        work: Work,
        /// The result of the call. The reactor continues by itself after `WouldBlock`,
        /// `Interrupted`, `ENOBUFS` of a receive from a pool, and `ECANCELED` without a cancel. It
        /// submits a multishot operation again after a result, and after `ECANCELED` when its
        /// results were taken.
        result: io::Result<CallResult>,
    },
    /// A multishot operation has a result, and continues.
    Result {
        /// The operation that continues.
        op: OpSlot,
        /// One connection, or one received buffer.
        result: CallResult,
    },
}

impl OpEvent {
    /// Returns the operation of the event.
    pub fn op(&self) -> OpSlot {
        match self {
            OpEvent::Completed { op, .. } | OpEvent::Result { op, .. } => *op,
        }
    }
}

bitflags! {
    /// A set of [`Trigger`]s.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Triggers: u8 {
        /// [`Trigger::Level`]
        const LEVEL = 1;
        /// [`Trigger::Edge`]
        const EDGE = 1 << 1;
        /// [`Trigger::OneShot`]
        const ONESHOT = 1 << 2;
    }
}

/// The way in which a mechanism reports an armed slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// In every wait in which an armed direction is ready.
    Level,
    /// When something happens to the file, and again when something more happens.
    Edge,
    /// Once; then the slot is disarmed.
    OneShot,
}

/// A request to watch a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArmRequest {
    /// The directions; [`PollBits::asked`] gives their bits.
    pub dirs: Interest,
    /// Ends of directions outside `dirs` to report too: both `HUP` and `ERR` or neither, and
    /// `RDHUP`. Empty if [`Trigger::Edge`] covers all that is watched.
    pub ends: PollBits,
    /// The trigger: one of [`Selector::native`], or that of an earlier [`ArmOutcome`] of the
    /// registration.
    pub trigger: Trigger,
}

impl ArmRequest {
    /// Returns the bits to watch for.
    pub fn bits(self) -> PollBits {
        PollBits::asked(self.dirs) | self.ends
    }
}

/// The outcome of [`Selector::arm`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArmOutcome {
    /// The trigger that the file has. The outcome of the first `arm` after `register` or `modify`
    /// holds until the next `modify`. The exception is a file that the mechanism has lost, and can
    /// only watch by its level.
    pub trigger: Trigger,
    /// With [`Trigger::Edge`]: directions that are reported as by [`Trigger::Level`]. Arming them
    /// again must not repeat the edges of the others.
    pub level: Interest,
    /// Present readiness will not be reported: the reactor must poll once. (Earlier events of an
    /// armed slot must still be reported.) Never with [`Trigger::OneShot`], where a poll that finds
    /// nothing arms again, and would loop.
    pub needs_initial_poll: bool,
    /// The mechanism cannot show every readiness of an armed direction: the reactor must poll at
    /// once and in every wait. Never with [`Trigger::OneShot`].
    pub needs_poll_each_wait: bool,
}

impl ArmOutcome {
    /// Returns the outcome of a mechanism that reports present and later readiness by itself.
    pub fn whole(trigger: Trigger) -> Self {
        ArmOutcome {
            trigger,
            level: Interest::empty(),
            needs_initial_poll: false,
            needs_poll_each_wait: false,
        }
    }
}

/// A report of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// These bits are true now, and complete for the armed directions.
    Fact(Slot, PollBits),
    /// These bits are true now, but may be incomplete: a reason to poll, which may clear them.
    Partial(Slot, PollBits),
    /// A reason to poll the slot's file.
    Hint(Slot),
}

impl Report {
    /// Returns the slot of the report.
    pub fn slot(self) -> Slot {
        match self {
            Report::Fact(slot, _) | Report::Partial(slot, _) | Report::Hint(slot) => slot,
        }
    }
}

/// The outcome of a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitOutcome {
    /// There are reports, or a notification.
    Events,
    /// The deadline may have passed.
    TimedOut,
    /// A signal handler ran (`EINTR`).
    Interrupted,
    /// The kernel lost reports: any registered file may be ready.
    Overflow,
}

/// The end of a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deadline {
    /// Do not block.
    Now,
    /// Until this moment of the monotonic clock.
    At(Instant),
    /// Without limit.
    Never,
}

impl Deadline {
    /// Returns the deadline `timeout` from now. One beyond the range of the clock (about 292
    /// billion years) is no limit.
    pub fn after(timeout: Option<Duration>) -> Self {
        match timeout {
            Some(Duration::ZERO) => Deadline::Now,
            Some(timeout) => {
                Instant::now().checked_add(timeout).map_or(Deadline::Never, Deadline::At)
            }
            None => Deadline::Never,
        }
    }

    /// Returns this deadline, or `moment` if that is earlier.
    pub fn or_at(self, moment: Option<Instant>) -> Self {
        match (self, moment) {
            (Deadline::At(own), Some(moment)) => Deadline::At(own.min(moment)),
            (Deadline::Never, Some(moment)) => Deadline::At(moment),
            (Deadline::Now, _) | (_, None) => self,
        }
    }

    /// Returns the time left: zero after the deadline, `None` without a limit.
    pub fn remaining(self) -> Option<Duration> {
        match self {
            Deadline::Now => Some(Duration::ZERO),
            Deadline::At(moment) => Some(moment.saturating_duration_since(Instant::now())),
            Deadline::Never => None,
        }
    }

    /// Returns true if no time is left.
    pub fn has_passed(self) -> bool {
        self.remaining() == Some(Duration::ZERO)
    }
}

/// Ends a selector's wait from any thread: an eventfd that the selector watches.
///
/// The reactor decides whether a wake is due. A selector need only return from its wait when the
/// eventfd becomes readable, and [`WakeHandle::drain`] it if its mechanism would report it again.
#[derive(Clone, Debug)]
pub struct WakeHandle {
    eventfd: Arc<EventFd>,
    /// The thread of the selector, in whose descriptor table the eventfd is.
    thread: ThreadId,
}

impl WakeHandle {
    /// Makes an eventfd, `CLOEXEC` and `NONBLOCK`. Must be called on the thread that waits.
    ///
    /// # Errors
    ///
    /// The errors of eventfd(2): `EMFILE`, `ENFILE`, `ENOMEM`.
    pub fn new() -> io::Result<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let eventfd = above_stdio(|| Ok(EventFd::from_value_and_flags(0, flags)?))?;
        Ok(WakeHandle { eventfd: Arc::new(eventfd), thread: ThreadId::current() })
    }

    /// Makes the eventfd readable. Async-signal-safe: makes only system calls, and preserves errno.
    pub fn notify(&self) {
        let errno = Errno::last_raw();
        match self.thread.shares_fd_table() {
            // The only error is EAGAIN, a full counter: the eventfd is readable then.
            Sharing::Shared | Sharing::Unknown => _ = self.eventfd.write(1),
            // The descriptor may be another file in this table (unshare(2), `CLONE_FILES`). If the
            // thread has ended, nothing waits.
            Sharing::Separate => {
                let duplicate = self.thread.duplicate(self.eventfd.as_fd().as_raw_fd());
                _ = duplicate.map(|fd| nix::unistd::write(fd, &1_u64.to_ne_bytes()));
            }
        }
        Errno::set_raw(errno);
    }

    /// Makes the eventfd unreadable.
    pub fn drain(&self) {
        // The only error is EAGAIN: it was unreadable already.
        let _ = self.eventfd.read();
    }
}

impl AsFd for WakeHandle {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.eventfd.as_fd()
    }
}
