//! The signals of signal-driven I/O, as a thread receives them: chosen, blocked, and read from a
//! signalfd(2).
//!
//! No handler is installed and no disposition changed: a blocked signal waits in its thread's queue
//! until it is read.
#![allow(unsafe_code)]

use super::own_fd::above_stdio;
use libc::{SIG_BLOCK, SIG_UNBLOCK, SIGIO, c_int, signalfd_siginfo};
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::fmt;
use std::io::{self, ErrorKind};
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};

/// How many signals one read takes.
const BATCH: usize = 128;
/// After so many reads in a row the question arises how many signals there can be.
const PATIENCE: u64 = 64;

/// Signal numbers, one bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Set(u64);

impl Set {
    fn of(signals: &[c_int]) -> Self {
        Set(signals.iter().fold(0, |bits, signal| bits | 1 << (signal - 1)))
    }

    fn contains(self, signal: c_int) -> bool {
        self.0 >> (signal - 1) & 1 == 1
    }

    fn and(self, other: Set) -> Self {
        Set(self.0 & other.0)
    }

    fn without(self, other: Set) -> Self {
        Set(self.0 & !other.0)
    }

    fn to_kernel(self) -> libc::sigset_t {
        // SAFETY: sigset_t is made of integers, for which all zeroes is a value; the C library does
        // not write all of it.
        let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
        // SAFETY: the set may be written to.
        unsafe { libc::sigemptyset(&mut set) };
        for signal in (1..=64).filter(|&signal| self.contains(signal)) {
            // SAFETY: the set is initialised; a number that is no signal is refused.
            unsafe { libc::sigaddset(&mut set, signal) };
        }
        set
    }

    /// Adds to (`SIG_BLOCK`) or takes from (`SIG_UNBLOCK`) what this thread blocks.
    fn apply(self, how: c_int) {
        let set = self.to_kernel();
        // SAFETY: the set is initialised, and the old mask is not asked for. The only failure is an
        // unknown `how`.
        unsafe { libc::pthread_sigmask(how, &set, ptr::null_mut()) };
    }

    /// Takes these signals, which this thread blocks, out of its queue. The descriptor of a
    /// signalfd is not needed: the program may have closed its number, or put another file there.
    fn discard_pending(self) {
        let (set, now) = (self.to_kernel(), libc::timespec { tv_sec: 0, tv_nsec: 0 });
        loop {
            // SAFETY: a set and a time to read, and nowhere to write.
            let signal = unsafe { libc::sigtimedwait(&set, ptr::null_mut(), &now) };
            let is_interrupted = || io::Error::last_os_error().kind() == ErrorKind::Interrupted;
            if signal == -1 && !is_interrupted() {
                return;
            }
        }
    }

    /// What this thread blocks.
    fn blocked() -> Self {
        let mut set = Set::default().to_kernel();
        // SAFETY: no new mask is given, and `set` has room for the old one.
        unsafe { libc::pthread_sigmask(SIG_BLOCK, ptr::null(), &mut set) };
        // SAFETY: the set is initialised; a number that is no signal is no member.
        let is_in = |signal: &c_int| unsafe { libc::sigismember(&set, *signal) } == 1;
        Set((1..=64).filter(is_in).fold(0, |bits, signal| bits | Set::of(&[signal]).0))
    }
}

/// What one thread's [`Signals`] have in common. They share one real-time signal, because a thread
/// has one queue for all signals, and to take one from behind many others is slow.
#[derive(Clone, Copy)]
struct Shared {
    users: usize,
    /// Where there are users.
    signal: c_int,
    /// Which of the two were blocked before there were users.
    blocked_before: Set,
    /// How many times `SIGIO` was read, by whomever. It does not say whose reports got lost.
    overflows: u64,
}

thread_local! {
    // Without a destructor, so that it is there for pollers that live in thread-locals themselves.
    static SHARED: Cell<Shared> = const {
        Cell::new(Shared { users: 0, signal: 0, blocked_before: Set(0), overflows: 0 })
    };

    /// File numbers that one user has read and another may know.
    static STRAYS: RefCell<BTreeSet<i32>> = const { RefCell::new(BTreeSet::new()) };
}

/// Every signal that was ever blocked here and had not been blocked before: threads inherit the
/// mask of their parents.
static BLOCKED_HERE: AtomicU64 = AtomicU64::new(0);

/// A real-time signal that belongs to nobody else on this thread, blocked, and the queue it is read
/// from. `SIGIO`, by which the kernel tells that the queue had no room, is blocked and read
/// with it.
///
/// The last of its thread that is dropped reads what is left, and only then gives both back.
pub(crate) struct Signals {
    queue: OwnedFd,
    signal: c_int,
    overflows_seen: u64,
    /// How many signals could be queued when it was made: the limit may be lowered later.
    most: u64,
    buffer: Box<[signalfd_siginfo; BATCH]>,
    /// The queue is the thread's own.
    not_send: PhantomData<*mut ()>,
}

impl Signals {
    /// Takes the signal that this thread's others have. The first takes one that has its default
    /// disposition and, if there is one, that nobody blocks: the highest, because programs count up
    /// from `SIGRTMIN`.
    ///
    /// # Errors
    ///
    /// `ResourceBusy` if all real-time signals are in use; what signalfd(2) says: `EMFILE`,
    /// `ENFILE`, `ENOMEM`.
    pub(crate) fn take() -> io::Result<Self> {
        let mut shared = SHARED.get();
        if shared.users == 0 {
            let blocked = Set::blocked();
            shared.signal = choose(blocked)?;
            shared.blocked_before = Set::of(&[shared.signal, SIGIO]).and(blocked);
        }
        let set = Set::of(&[shared.signal, SIGIO]);
        let queue = above_stdio(|| queue_of(set))?;
        shared.users += 1;
        SHARED.set(shared);
        BLOCKED_HERE.fetch_or(set.without(shared.blocked_before).0, Ordering::Relaxed);
        set.apply(SIG_BLOCK);
        // SAFETY: signalfd_siginfo is made of integers, for which all zeroes is a value.
        let empty: signalfd_siginfo = unsafe { std::mem::zeroed() };
        Ok(Signals {
            queue,
            signal: shared.signal,
            overflows_seen: shared.overflows,
            most: queue_limit(),
            buffer: Box::new([empty; BATCH]),
            not_send: PhantomData,
        })
    }

    /// The signal to have sent, with [`super::owner::Owner::this_thread`].
    pub(crate) fn number(&self) -> c_int {
        self.signal
    }

    /// Becomes readable when there is something to read.
    pub(crate) fn queue(&self) -> BorrowedFd<'_> {
        self.queue.as_fd()
    }

    /// Blocks the signals again, in case the program has put an older mask back.
    pub(crate) fn block(&self) {
        Set::of(&[self.signal, SIGIO]).apply(SIG_BLOCK);
    }

    /// Reads everything that was queued when this was called, and tells `each` the file numbers
    /// that the kernel has named; it answers whether it knows them. What others have sent is read
    /// and ignored.
    pub(crate) fn drain(&mut self, mut each: impl FnMut(i32) -> bool) {
        let is_alone = SHARED.get().users == 1;
        let mut sort = |number| {
            if !each(number) && !is_alone {
                with_strays(|strays| strays.extend([number]));
            }
        };
        if !self.drain_at_most(PATIENCE, &mut sort) {
            // Somebody may be sending as fast as this reads.
            let most = self.most.max(queue_limit()).div_ceil(BATCH as u64);
            self.drain_at_most(most, &mut sort);
        }
        // Also alone: whoever has read them may have gone.
        with_strays(|strays| strays.retain(|&number| !each(number)));
    }

    /// Gives whether nothing is left.
    fn drain_at_most(&mut self, reads: u64, mut each: impl FnMut(i32)) -> bool {
        for _ in 0..reads {
            let count = self.read();
            for info in &self.buffer[..count] {
                if info.ssi_signo == SIGIO as u32 {
                    // Also one that somebody has sent: SIGIO does not queue, so it may stand for
                    // the kernel's too.
                    let shared = SHARED.get();
                    SHARED.set(Shared { overflows: shared.overflows + 1, ..shared });
                } else if matches!(info.ssi_code, 1..=6) {
                    // POLL_IN to POLL_HUP. Of those sent by a process the code is 0 or less.
                    each(info.ssi_fd);
                }
            }
            if count < BATCH {
                return true;
            }
        }
        false
    }

    /// Whether the kernel had no room in the queue since [`Signals::take_overflow`] was last
    /// called.
    pub(crate) fn has_overflowed(&self) -> bool {
        self.overflows_seen != SHARED.get().overflows
    }

    /// The same, and the answer is no until it happens again.
    pub(crate) fn take_overflow(&mut self) -> bool {
        let has_overflowed = self.has_overflowed();
        self.overflows_seen = SHARED.get().overflows;
        has_overflowed
    }

    fn read(&mut self) -> usize {
        let (queue, buffer) = (self.queue.as_raw_fd(), &mut *self.buffer);
        // SAFETY: the kernel writes whole signalfd_siginfo, no more than the array has room for.
        let length = unsafe { libc::read(queue, buffer.as_mut_ptr().cast(), size_of_val(buffer)) };
        // The only failure is EAGAIN: there is nothing to read.
        usize::try_from(length).unwrap_or_default() / size_of::<signalfd_siginfo>()
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        let mut shared = SHARED.get();
        shared.users -= 1;
        SHARED.set(shared);
        if shared.users > 0 {
            return;
        }
        // Unblocked while it is pending, a real-time signal would end the process. No file sends
        // more of them.
        Set::of(&[self.signal, SIGIO]).discard_pending();
        with_strays(BTreeSet::clear);
        Set::of(&[self.signal, SIGIO]).without(shared.blocked_before).apply(SIG_UNBLOCK);
    }
}

/// Starts a thread that blocks all signals, so that handlers run on threads of the program's own.
///
/// # Errors
///
/// What pthread_create(3) says: `EAGAIN`, by a limit or for want of memory.
pub(crate) fn spawn_undisturbed(
    name: &str,
    work: impl FnOnce() + Send + 'static,
) -> io::Result<()> {
    let (all, before) = (Set(u64::MAX), Set::blocked());
    all.apply(SIG_BLOCK);
    let spawned = std::thread::Builder::new().name(name.to_owned()).spawn(work);
    all.without(before).apply(SIG_UNBLOCK);
    spawned.map(drop)
}

/// When the thread ends there may be none any more, and nobody who waits for them.
fn with_strays(change: impl FnOnce(&mut BTreeSet<i32>)) {
    let _ = STRAYS.try_with(|strays| change(&mut strays.borrow_mut()));
}

impl fmt::Debug for Signals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signals").field("signal", &self.signal).finish_non_exhaustive()
    }
}

/// One that is not blocked is nobody's; one that is may be waited for by somebody, or the program
/// blocks all signals on this thread.
fn choose(blocked: Set) -> io::Result<c_int> {
    // 64 is the highest of most architectures, and a `Set` holds no more.
    let (first, last) = (libc::SIGRTMIN(), libc::SIGRTMAX().min(64));
    let open = (first..=last).rev().filter(|&signal| !blocked.contains(signal));
    let closed = (first..=last).rev().filter(|&signal| blocked.contains(signal));
    open.chain(closed).find(|&signal| has_default_action(signal)).ok_or_else(|| {
        let message = format!("all real-time signals, {first} to {last}, are in use here");
        io::Error::new(ErrorKind::ResourceBusy, message)
    })
}

fn has_default_action(signal: c_int) -> bool {
    // SAFETY: sigaction is plain data, and all zeroes is a valid one.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: no new action is given, and there is room for the old one.
    let answer = unsafe { libc::sigaction(signal, ptr::null(), &mut action) };
    answer == 0 && action.sa_sigaction == libc::SIG_DFL
}

fn queue_of(set: Set) -> io::Result<OwnedFd> {
    let set = set.to_kernel();
    // SAFETY: the set is initialised; -1 asks for a new file.
    let queue = unsafe { libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
    super::checked(queue)?;
    // SAFETY: signalfd has just made this number, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(queue) })
}

/// How many signals may be queued at a time (`RLIMIT_SIGPENDING`).
fn queue_limit() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: there is room for the answer. The only failure is an unknown resource.
    unsafe { libc::getrlimit(libc::RLIMIT_SIGPENDING, &mut limit) };
    limit.rlim_cur
}

/// Has a command start with none of the signals blocked that SIGIO pollers of this process have
/// blocked.
///
/// A program inherits the signal mask of the thread that starts it, and a SIGIO poller blocks two
/// signals on its thread and on those that are started there: `SIGIO` and a real-time signal. A
/// program that relies on either would wait for it in vain. What was blocked already when a poller
/// was made, and other signals, are left as they are. It has no effect on
/// [`exec`](std::os::unix::process::CommandExt::exec), which replaces this process: drop the
/// pollers first.
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// use quintpoll::{Backend, unblock_in_child};
/// use std::process::Command;
///
/// let _poller = Backend::Sigio.open()?;
/// let status = unblock_in_child(&mut Command::new("true")).status()?;
/// assert!(status.success());
/// # Ok(())
/// # }
/// ```
pub fn unblock_in_child(command: &mut Command) -> &mut Command {
    let this_process = std::process::id();
    let unblock = move || {
        // What is queued to this process would end it.
        if std::process::id() != this_process {
            Set(BLOCKED_HERE.load(Ordering::Relaxed)).apply(SIG_UNBLOCK);
        }
        Ok(())
    };
    // SAFETY: between fork and exec only async-signal-safe things are allowed: this loads an atomic
    // and calls getpid, sigemptyset, sigaddset and pthread_sigmask, which are.
    unsafe { command.pre_exec(unblock) }
}

#[cfg(test)]
mod tests;
