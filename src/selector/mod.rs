//! The selector interface (SPI): what a kernel mechanism is asked, and how it answers.
//!
//! A selector translates and keeps kernel state; it decides nothing. Policy (modes, merging,
//! capacity, fairness, what counts as ready) is the reactor's. Outside semver: it grows when a
//! mechanism needs it to.

mod array;
pub(crate) mod epoll;
pub(crate) mod poll;
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

/// One kernel mechanism that tells which files are ready.
pub trait Selector {
    /// The triggers that [`Selector::arm`] can be asked for; at least one.
    fn native(&self) -> Triggers;

    /// The directions in which files get [`Trigger::Edge`], if it is native: all of them for every
    /// file, or some for some files.
    fn edges(&self) -> Interest {
        Interest::all()
    }

    /// Watches `fd` for `arm` (never for nothing) from now on, instead of what was watched for this
    /// slot before.
    ///
    /// Readiness that is present already must be reported by the next wait, unless
    /// [`ArmOutcome::look`] leaves that to the reactor. Between registration and
    /// [`Selector::remove`] the same slot always comes with the same file.
    ///
    /// # Errors
    ///
    /// `EBADF` for a number that is not open or open with `O_PATH`; else what the mechanism says.
    /// On an error, what was watched before still is.
    fn arm(&mut self, slot: Slot, fd: BorrowedFd<'_>, arm: ArmRequest) -> io::Result<ArmOutcome>;

    /// Watches nothing for this slot until it is armed again. Late reports do no harm.
    fn disarm(&mut self, slot: Slot, fd: BorrowedFd<'_>);

    /// Notes which of the armed directions operations may await, after each [`Selector::arm`]. What
    /// the mechanism does not report of these it has to find out otherwise, if late: an operation
    /// must complete.
    fn note_awaited(&mut self, slot: Slot, fd: BorrowedFd<'_>, dirs: Interest) {
        let _ = (slot, fd, dirs);
    }

    /// Lets go of the file: when this returns the kernel holds it no longer on the slot's behalf.
    fn remove(&mut self, slot: Slot, fd: BorrowedFd<'_>);

    /// Limits how many reports a wait takes from the kernel. A mechanism may leave some there if
    /// it reports in a fair order, and if it reports by itself what is ready when a source is
    /// armed. Others take all, and have nothing to do here.
    fn set_max_reports(&mut self, max: usize) {
        let _ = max;
    }

    /// Waits until there is something to report, a [`WakeHandle::notify`] arrives or the deadline
    /// passes, and appends to `out` what the kernel has to report: all of it, unless
    /// [`has_more`](Selector::has_more) says otherwise.
    ///
    /// # Errors
    ///
    /// What the mechanism says, and then nothing that was taken from the kernel may be missing from
    /// `out`.
    fn wait(&mut self, deadline: Deadline, out: &mut Vec<Report>) -> io::Result<WaitOutcome>;

    /// Returns true if the kernel may have had more to report than the last wait has taken. Another
    /// wait, which need not sleep, takes it.
    fn has_more(&mut self) -> bool {
        false
    }

    /// What ends a wait from elsewhere. Always the same one.
    fn wake_handle(&self) -> WakeHandle;

    /// Returns what performs operations, `None` if the mechanism performs none. Always the same
    /// answer.
    fn driver(&mut self) -> Option<&mut dyn OpDriver> {
        None
    }
}

/// The part of a mechanism that performs operations.
pub trait OpDriver {
    /// Submits an operation, at the latest with the next wait. Its file stays open until
    /// [`drain_events`](OpDriver::drain_events) has told what became of it, or this value is
    /// dropped, which must free the memory of the call only when the kernel is done with it.
    ///
    /// Of one source at most one operation that reads and one that writes is submitted at a time,
    /// and any number of those at an offset, which are in no order.
    ///
    /// # Errors
    ///
    /// The work, if the mechanism can't do it. The reactor attempts it when the file is ready.
    fn submit(&mut self, op: OpSlot, work: Work) -> Result<(), Work>;

    /// Ends an operation soon, with `ECANCELED` if it has done nothing.
    fn cancel(&mut self, op: OpSlot);

    /// Cancels these operations, and waits for those to end that can be interrupted.
    fn cancel_and_wait(&mut self, ops: &[OpSlot]);

    /// Returns the buffers of a pool that are provided to the kernel, which has not used them yet,
    /// to the pool: others wait for them. Operations that would take them end with `ECANCELED`.
    fn release_buffers(&mut self, pool: &BufferPool) {
        let _ = pool;
    }

    /// Adds what operations have come to since the last call, in that order. While there is
    /// something to add, no wait sleeps.
    fn drain_events(&mut self, out: &mut Vec<OpEvent>);
}

/// What an operation has come to in the kernel, or on a thread.
#[derive(Debug)]
pub enum OpEvent {
    /// It has ended.
    Completed {
        /// Which.
        op: OpSlot,
        /// As it was submitted, but for what was moved.
        work: Work,
        /// What the call has brought. On `WouldBlock`, `Interrupted`, `ENOBUFS` of one that takes
        /// its buffers from a pool, and `ECANCELED` that nobody asked for, the reactor goes on by
        /// itself. One with many results begins again after a result, and after `ECANCELED`, when
        /// what it has brought was taken.
        result: io::Result<CallResult>,
    },
    /// It has brought one of many results, and goes on.
    Result {
        /// Which.
        op: OpSlot,
        /// What the call has brought.
        result: CallResult,
    },
}

impl OpEvent {
    /// Returns the operation that it is about.
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

/// How a mechanism reports an armed slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// In every wait in which an armed direction is ready.
    Level,
    /// When something happens to the file, and then not again until something more happens.
    Edge,
    /// Once; then the slot is not armed any more.
    OneShot,
}

/// What to watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArmRequest {
    /// The directions; [`PollBits::asked`] gives their bits.
    pub dirs: Interest,
    /// Ends that are to be reported too, of directions that are not in `dirs`: of `HUP` and `ERR`
    /// either both or none, and `RDHUP`. Empty if all that there is to watch is
    /// [`Trigger::Edge`]'s.
    pub ends: PollBits,
    /// How to report them: one of [`Selector::native`], or what an earlier [`ArmOutcome`] of the
    /// registration named.
    pub trigger: Trigger,
}

impl ArmRequest {
    /// The bits to watch for.
    pub fn bits(self) -> PollBits {
        PollBits::asked(self.dirs) | self.ends
    }
}

/// What arming came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArmOutcome {
    /// The trigger the file really has. The answer to the first `arm` after `register` or `modify`
    /// holds until the next `modify`, unless the mechanism has lost the file meanwhile and can now
    /// only watch its level.
    pub trigger: Trigger,
    /// With [`Trigger::Edge`]: these directions are reported by their level all the same, like
    /// [`Trigger::Level`] has it. To arm them anew must not repeat the edges of the others.
    pub level: Interest,
    /// Readiness that is present already will not be reported: the reactor has to look for itself.
    /// (What had happened while it was armed before still has to be.)
    /// Not with [`Trigger::OneShot`], where a look that finds nothing arms again and would be
    /// answered so for ever.
    pub look: bool,
    /// The mechanism can't show everything that would make an armed direction ready: the reactor
    /// has to look for itself, at once and in every wait. Not with [`Trigger::OneShot`] either.
    pub blind: bool,
}

impl ArmOutcome {
    /// Everything is the mechanism's: what is ready already, and all that comes.
    pub fn whole(trigger: Trigger) -> Self {
        ArmOutcome { trigger, level: Interest::empty(), look: false, blind: false }
    }
}

/// One report of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// These bits are true now, and they are all there are for the armed directions.
    Fact(Slot, PollBits),
    /// These bits are true now, but there may be more: a reason to look, after which what was seen
    /// here may be gone.
    Partial(Slot, PollBits),
    /// A reason to look at the slot's file.
    Hint(Slot),
}

impl Report {
    /// Whom it is about.
    pub fn slot(self) -> Slot {
        match self {
            Report::Fact(slot, _) | Report::Partial(slot, _) | Report::Hint(slot) => slot,
        }
    }
}

/// How a wait ended.
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

/// Until when to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deadline {
    /// Look, but do not wait.
    Now,
    /// Until this moment of the monotonic clock.
    At(Instant),
    /// Without limit.
    Never,
}

impl Deadline {
    /// `timeout` from now. One beyond the range of the clock (some 292 billion years) is none.
    pub fn after(timeout: Option<Duration>) -> Self {
        match timeout {
            Some(Duration::ZERO) => Deadline::Now,
            Some(timeout) => {
                Instant::now().checked_add(timeout).map_or(Deadline::Never, Deadline::At)
            }
            None => Deadline::Never,
        }
    }

    /// This, or that moment if it is earlier.
    pub fn or_at(self, moment: Option<Instant>) -> Self {
        match (self, moment) {
            (Deadline::At(its), Some(moment)) => Deadline::At(its.min(moment)),
            (Deadline::Never, Some(moment)) => Deadline::At(moment),
            (Deadline::Now, _) | (_, None) => self,
        }
    }

    /// The time left: zero from the deadline on, `None` where there is no limit.
    pub fn remaining(self) -> Option<Duration> {
        match self {
            Deadline::Now => Some(Duration::ZERO),
            Deadline::At(moment) => Some(moment.saturating_duration_since(Instant::now())),
            Deadline::Never => None,
        }
    }

    /// Whether no time is left.
    pub fn has_passed(self) -> bool {
        self.remaining() == Some(Duration::ZERO)
    }
}

/// Ends a selector's wait from any thread: an eventfd that the selector watches.
///
/// Whether a wake is due is the reactor's business. A selector need only return from its wait when
/// the eventfd becomes readable, and [`WakeHandle::drain`] it if its mechanism would otherwise
/// report it again.
#[derive(Clone, Debug)]
pub struct WakeHandle {
    eventfd: Arc<EventFd>,
    /// The thread of the selector, in whose descriptor table the eventfd is.
    thread: ThreadId,
}

impl WakeHandle {
    /// Makes an eventfd, `CLOEXEC` and `NONBLOCK`. To be made on the thread that waits.
    ///
    /// # Errors
    ///
    /// What eventfd(2) says: `EMFILE`, `ENFILE`, `ENOMEM`.
    pub fn new() -> io::Result<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let eventfd = above_stdio(|| Ok(EventFd::from_value_and_flags(0, flags)?))?;
        Ok(WakeHandle { eventfd: Arc::new(eventfd), thread: ThreadId::current() })
    }

    /// Makes the eventfd readable. Safe to call in a signal handler: system calls alone, and errno
    /// is kept.
    pub fn notify(&self) {
        let errno = Errno::last_raw();
        match self.thread.shares_fd_table() {
            // The only failure is EAGAIN, a full counter, and then the eventfd is readable anyway.
            Sharing::Shared | Sharing::Unknown => _ = self.eventfd.write(1),
            // The number may stand for another file here (unshare(2), `CLONE_FILES`). If the
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
        // The only failure is EAGAIN: it was unreadable already.
        let _ = self.eventfd.read();
    }
}

impl AsFd for WakeHandle {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.eventfd.as_fd()
    }
}
