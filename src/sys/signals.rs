//! The signals of signal-driven I/O in a thread: chosen, blocked, and read from a signalfd(2).
//!
//! No handler is installed and no disposition changed: a blocked signal is queued to its thread
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

/// The number of signals that one read takes.
const BATCH: usize = 128;
/// After this many full reads in a row, `drain` reads at most the limit of queued signals.
const UNCAPPED_READS: u64 = 64;

/// A set of signals, one bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct SignalSet(u64);

impl SignalSet {
    fn of(signals: &[c_int]) -> Self {
        SignalSet(signals.iter().fold(0, |bits, signal| bits | 1 << (signal - 1)))
    }

    fn contains(self, signal: c_int) -> bool {
        self.0 >> (signal - 1) & 1 == 1
    }

    fn and(self, other: SignalSet) -> Self {
        SignalSet(self.0 & other.0)
    }

    fn without(self, other: SignalSet) -> Self {
        SignalSet(self.0 & !other.0)
    }

    fn to_kernel(self) -> libc::sigset_t {
        // SAFETY: sigset_t is made of integers, for which all zeroes is a value; the C library does
        // not write all of it.
        let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
        // SAFETY: `set` has room for the answer.
        unsafe { libc::sigemptyset(&mut set) };
        for signal in (1..=64).filter(|&signal| self.contains(signal)) {
            // SAFETY: the set is initialised; an invalid signal is refused.
            unsafe { libc::sigaddset(&mut set, signal) };
        }
        set
    }

    /// Adds to (`SIG_BLOCK`) or removes from (`SIG_UNBLOCK`) this thread's mask.
    fn apply(self, how: c_int) {
        let set = self.to_kernel();
        // SAFETY: the set is initialised, and the old mask is not requested. The only failure is an
        // unknown `how`.
        unsafe { libc::pthread_sigmask(how, &set, ptr::null_mut()) };
    }

    /// Removes these signals, which this thread blocks, from its queue. Does not use the signalfd:
    /// the program may have closed that descriptor, or reused it.
    fn discard_pending(self) {
        let (set, now) = (self.to_kernel(), libc::timespec { tv_sec: 0, tv_nsec: 0 });
        loop {
            // SAFETY: the call reads a set and a time, and writes nothing.
            let signal = unsafe { libc::sigtimedwait(&set, ptr::null_mut(), &now) };
            let is_interrupted = || io::Error::last_os_error().kind() == ErrorKind::Interrupted;
            if signal == -1 && !is_interrupted() {
                return;
            }
        }
    }

    /// Returns this thread's mask.
    fn blocked() -> Self {
        let mut set = SignalSet::default().to_kernel();
        // SAFETY: no new mask is given, and `set` has room for the old one.
        unsafe { libc::pthread_sigmask(SIG_BLOCK, ptr::null(), &mut set) };
        // SAFETY: the set is initialised; an invalid signal is no member.
        let is_in = |signal: &c_int| unsafe { libc::sigismember(&set, *signal) } == 1;
        SignalSet((1..=64).filter(is_in).fold(0, |bits, signal| bits | SignalSet::of(&[signal]).0))
    }
}

/// The state that a thread's [`Signals`] share. They use one real-time signal: a thread has one
/// queue for all signals, and taking one from behind many others is slow.
#[derive(Clone, Copy)]
struct Shared {
    users: usize,
    /// Valid while there are users.
    signal: c_int,
    /// The subset of both signals that was blocked before there were users.
    blocked_before: SignalSet,
    /// Counts the reads of `SIGIO`, which does not say whose reports were lost.
    overflows: u64,
}

thread_local! {
    // Without a destructor, so that pollers in thread-locals can use it.
    static SHARED: Cell<Shared> = const {
        Cell::new(Shared { users: 0, signal: 0, blocked_before: SignalSet(0), overflows: 0 })
    };

    /// Descriptors that one user has read and another may know.
    static UNCLAIMED_FDS: RefCell<BTreeSet<i32>> = const { RefCell::new(BTreeSet::new()) };
}

/// Every signal that this process has blocked here and had not blocked before. Threads inherit the
/// mask of their creator.
static BLOCKED_HERE: AtomicU64 = AtomicU64::new(0);

/// A blocked real-time signal that nothing else on this thread uses, and its signalfd. `SIGIO`, by
/// which the kernel reports an overflow of the queue, is blocked and read too.
///
/// The drop of a thread's last value discards pending signals, then restores the mask.
pub(crate) struct Signals {
    signalfd: OwnedFd,
    signal: c_int,
    overflows_seen: u64,
    /// The limit of queued signals at construction; it may be lowered later.
    max_queued: u64,
    buffer: Box<[signalfd_siginfo; BATCH]>,
    /// The queue belongs to the thread.
    not_send: PhantomData<*mut ()>,
}

impl Signals {
    /// Takes the signal that this thread's other values use. The first takes the highest with its
    /// default disposition, and prefers one that is not blocked. Programs count up from `SIGRTMIN`.
    ///
    /// # Errors
    ///
    /// `ResourceBusy` if all real-time signals are in use; errors of signalfd(2): `EMFILE`,
    /// `ENFILE`, `ENOMEM`.
    pub(crate) fn take() -> io::Result<Self> {
        let mut shared = SHARED.get();
        if shared.users == 0 {
            let blocked = SignalSet::blocked();
            shared.signal = pick_rt_signal(blocked)?;
            shared.blocked_before = SignalSet::of(&[shared.signal, SIGIO]).and(blocked);
        }
        let set = SignalSet::of(&[shared.signal, SIGIO]);
        let signalfd = above_stdio(|| new_signalfd(set))?;
        shared.users += 1;
        SHARED.set(shared);
        BLOCKED_HERE.fetch_or(set.without(shared.blocked_before).0, Ordering::Relaxed);
        set.apply(SIG_BLOCK);
        // SAFETY: signalfd_siginfo is made of integers, for which all zeroes is a value.
        let empty: signalfd_siginfo = unsafe { std::mem::zeroed() };
        Ok(Signals {
            signalfd,
            signal: shared.signal,
            overflows_seen: shared.overflows,
            max_queued: queue_limit(),
            buffer: Box::new([empty; BATCH]),
            not_send: PhantomData,
        })
    }

    /// Returns the signal that files must send to [`super::owner::Owner::this_thread`].
    pub(crate) fn signal(&self) -> c_int {
        self.signal
    }

    /// Returns a descriptor that is readable while signals are pending.
    pub(crate) fn signalfd(&self) -> BorrowedFd<'_> {
        self.signalfd.as_fd()
    }

    /// Blocks the signals again, in case the program has restored an older mask.
    pub(crate) fn block(&self) {
        SignalSet::of(&[self.signal, SIGIO]).apply(SIG_BLOCK);
    }

    /// Reads all signals that were queued before the call. Passes the descriptors named by the
    /// kernel to `each`, which returns true if it knows them. Ignores signals sent by processes.
    pub(crate) fn drain(&mut self, mut each: impl FnMut(i32) -> bool) {
        let is_alone = SHARED.get().users == 1;
        let mut on_fd = |fd| {
            if !each(fd) && !is_alone {
                with_unclaimed_fds(|unclaimed| unclaimed.extend([fd]));
            }
        };
        if !self.drain_at_most(UNCAPPED_READS, &mut on_fd) {
            // A sender may be as fast as this loop.
            let reads = self.max_queued.max(queue_limit()).div_ceil(BATCH as u64);
            self.drain_at_most(reads, &mut on_fd);
        }
        // Even the only user may know descriptors read by one that was dropped.
        with_unclaimed_fds(|unclaimed| unclaimed.retain(|&fd| !each(fd)));
    }

    /// Reads at most `reads` batches. Returns true if the queue is empty.
    fn drain_at_most(&mut self, reads: u64, mut each: impl FnMut(i32)) -> bool {
        for _ in 0..reads {
            let count = self.read();
            for info in &self.buffer[..count] {
                if info.ssi_signo == SIGIO as u32 {
                    // Even one sent by a process: SIGIO does not queue, so it may have merged with
                    // the kernel's.
                    let shared = SHARED.get();
                    SHARED.set(Shared { overflows: shared.overflows + 1, ..shared });
                } else if matches!(info.ssi_code, 1..=6) {
                    // POLL_IN to POLL_HUP. Signals sent by a process have codes up to 0.
                    each(info.ssi_fd);
                }
            }
            if count < BATCH {
                return true;
            }
        }
        false
    }

    /// Returns true if the queue has overflowed since the last [`Signals::take_overflow`].
    pub(crate) fn has_overflowed(&self) -> bool {
        self.overflows_seen != SHARED.get().overflows
    }

    /// Returns [`Signals::has_overflowed`], and resets it.
    pub(crate) fn take_overflow(&mut self) -> bool {
        let has_overflowed = self.has_overflowed();
        self.overflows_seen = SHARED.get().overflows;
        has_overflowed
    }

    fn read(&mut self) -> usize {
        let (signalfd, buffer) = (self.signalfd.as_raw_fd(), &mut *self.buffer);
        // SAFETY: the kernel writes whole signalfd_siginfo, at most as many as the array holds.
        let length =
            unsafe { libc::read(signalfd, buffer.as_mut_ptr().cast(), size_of_val(buffer)) };
        // The only failure is EAGAIN: nothing is pending.
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
        // A pending real-time signal would end the process when unblocked. No file sends more now.
        SignalSet::of(&[self.signal, SIGIO]).discard_pending();
        with_unclaimed_fds(BTreeSet::clear);
        SignalSet::of(&[self.signal, SIGIO]).without(shared.blocked_before).apply(SIG_UNBLOCK);
    }
}

/// Starts a thread that blocks all signals, so that handlers run on the program's threads.
///
/// # Errors
///
/// Errors of pthread_create(3): `EAGAIN`, for a limit or lack of memory.
pub(crate) fn spawn_with_signals_blocked(
    name: &str,
    work: impl FnOnce() + Send + 'static,
) -> io::Result<()> {
    let (all, before) = (SignalSet(u64::MAX), SignalSet::blocked());
    all.apply(SIG_BLOCK);
    let spawned = std::thread::Builder::new().name(name.to_owned()).spawn(work);
    all.without(before).apply(SIG_UNBLOCK);
    spawned.map(drop)
}

/// Does nothing after the thread-local was destroyed: then no user is left.
fn with_unclaimed_fds(change: impl FnOnce(&mut BTreeSet<i32>)) {
    let _ = UNCLAIMED_FDS.try_with(|unclaimed| change(&mut unclaimed.borrow_mut()));
}

impl fmt::Debug for Signals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signals").field("signal", &self.signal).finish_non_exhaustive()
    }
}

/// Prefers a signal that is not blocked. The program may wait for a blocked one, or block all
/// signals on this thread.
fn pick_rt_signal(blocked: SignalSet) -> io::Result<c_int> {
    // 64 is the highest on most architectures, and a set holds no more.
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
    // SAFETY: no new action is given, and `action` has room for the old one.
    let answer = unsafe { libc::sigaction(signal, ptr::null(), &mut action) };
    answer == 0 && action.sa_sigaction == libc::SIG_DFL
}

fn new_signalfd(set: SignalSet) -> io::Result<OwnedFd> {
    let set = set.to_kernel();
    // SAFETY: the set is initialised; -1 requests a new file.
    let signalfd = unsafe { libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
    super::checked(signalfd)?;
    // SAFETY: signalfd has just made the descriptor, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(signalfd) })
}

/// Returns the limit of queued signals (`RLIMIT_SIGPENDING`).
fn queue_limit() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: `limit` has room for the answer. The only failure is an unknown resource.
    unsafe { libc::getrlimit(libc::RLIMIT_SIGPENDING, &mut limit) };
    limit.rlim_cur
}

/// Makes a command start with the signals unblocked that SIGIO pollers of this process have
/// blocked.
///
/// A child inherits the signal mask of the thread that starts it. A SIGIO poller blocks two signals
/// on its thread, and so on threads started there: `SIGIO` and a real-time signal. A child that
/// relies on either would never receive it. Other signals, and those that were blocked before the
/// poller was made, are left as they are. This has no effect on
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
        // A signal pending in this process would end it.
        if std::process::id() != this_process {
            SignalSet(BLOCKED_HERE.load(Ordering::Relaxed)).apply(SIG_UNBLOCK);
        }
        Ok(())
    };
    // SAFETY: between fork and exec this only loads an atomic and calls getpid, sigemptyset,
    // sigaddset and pthread_sigmask, which are async-signal-safe.
    unsafe { command.pre_exec(unblock) }
}

#[cfg(test)]
mod tests;
