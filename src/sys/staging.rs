//! System calls by which the conformance suite prepares a process: fork(2), signal handlers,
//! descriptors, and a foreign ring.
#![allow(unsafe_code)]

mod tun;

pub(crate) use super::io_call::disconnect;
use std::io;
use std::mem::offset_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::panic::{self, AssertUnwindSafe};
pub(crate) use tun::Tun;

/// Runs `child` in a forked child and returns its exit status: the value of `child`, or 101 if it
/// panicked. No other thread may be running in this process, because the child has only the
/// caller's.
pub(crate) fn in_forked_child(child: impl FnOnce() -> i32) -> io::Result<i32> {
    // SAFETY: no other thread holds a lock that the child could wait for (the caller's duty).
    let id = unsafe { libc::fork() };
    match id {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            let status = panic::catch_unwind(AssertUnwindSafe(child)).unwrap_or(101);
            // SAFETY: _exit ends the process without running the parent's exit handlers.
            unsafe { libc::_exit(status) }
        }
        id => exit_status(id),
    }
}

fn exit_status(id: libc::pid_t) -> io::Result<i32> {
    let mut status = 0;
    // SAFETY: `status` has room for an int.
    super::checked(unsafe { libc::waitpid(id, &mut status, 0) })?;
    if libc::WIFEXITED(status) {
        Ok(libc::WEXITSTATUS(status))
    } else {
        Err(io::Error::other(format!("the child was killed by signal {}", libc::WTERMSIG(status))))
    }
}

/// Installs `handler`, which must be async-signal-safe, with `SA_RESTART`: waits fail with `EINTR`
/// nevertheless (signal(7)).
pub(crate) fn on_signal(signal: i32, handler: extern "C" fn(i32)) -> io::Result<()> {
    // SAFETY: sigaction is plain data, and all zeroes is a valid one.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler as libc::sighandler_t;
    action.sa_flags = libc::SA_RESTART;
    // SAFETY: the struct is initialised; the handler is a function, which is never freed.
    super::checked(unsafe { libc::sigaction(signal, &action, std::ptr::null_mut()) })?;
    Ok(())
}

/// Resets a signal to its default action, whatever the runtime has set.
pub(crate) fn default_action(signal: i32) -> io::Result<()> {
    // SAFETY: SIG_DFL is no function, so no code of this program runs.
    match unsafe { libc::signal(signal, libc::SIG_DFL) } {
        libc::SIG_ERR => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Ignores a signal from now on.
pub(crate) fn ignore(signal: i32) -> io::Result<()> {
    // SAFETY: SIG_IGN is no function, so no code of this program runs.
    match unsafe { libc::signal(signal, libc::SIG_IGN) } {
        libc::SIG_ERR => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Copies the file descriptor table for the calling thread alone (unshare(2)).
pub(crate) fn unshare_fd_table() -> io::Result<()> {
    // SAFETY: no memory is passed. Every descriptor is open in both tables afterwards.
    super::checked(unsafe { libc::unshare(libc::CLONE_FILES) })?;
    Ok(())
}

/// A thread of this process, as a target of signals.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Thread {
    process: i32,
    thread: i32,
}

impl Thread {
    pub(crate) fn current() -> Self {
        // SAFETY: gettid has no arguments and always succeeds.
        let thread = unsafe { libc::gettid() };
        Thread { process: std::process::id() as i32, thread }
    }

    pub(crate) fn id(self) -> i32 {
        self.thread
    }

    /// Sends a signal to this thread alone. Does nothing if the thread has ended.
    pub(crate) fn signal(self, signal: i32) {
        // SAFETY: tgkill touches no memory, and reaches only threads of this process.
        unsafe { libc::syscall(libc::SYS_tgkill, self.process, self.thread, signal) };
    }
}

/// Opens a file that becomes readable when a process ends (pidfd_open(2)).
pub(crate) fn open_pidfd(id: u32) -> io::Result<OwnedFd> {
    // SAFETY: pidfd_open takes integers and touches no memory.
    let raw_fd = unsafe { libc::syscall(libc::SYS_pidfd_open, id, 0) };
    super::checked(raw_fd as libc::c_int)?;
    // SAFETY: pidfd_open has just made the descriptor, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw_fd as libc::c_int) })
}

/// Returns how many bytes a TCP socket has sent without acknowledgement (tcp(7)).
pub(crate) fn unacknowledged(fd: BorrowedFd<'_>) -> i32 {
    /// `SIOCOUTQNSD`, which the libc crate lacks.
    const NOT_SENT: libc::c_ulong = 0x894b;
    let query = |what: libc::c_ulong| {
        let mut bytes: libc::c_int = 0;
        // SAFETY: the kernel writes one int.
        let answer = unsafe { libc::ioctl(fd.as_raw_fd(), what as _, &mut bytes) };
        assert_eq!(answer, 0, "ioctl: {}", io::Error::last_os_error());
        bytes
    };
    query(libc::TIOCOUTQ) - query(NOT_SENT)
}

/// The signal-driven I/O settings of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Signalling {
    owner: i32,
    signal: i32,
    flags: i32,
}

/// The libc crate lacks these for some C libraries.
const F_SETSIG: libc::c_int = 10;
const F_GETSIG: libc::c_int = 11;

impl Signalling {
    pub(crate) fn of(fd: BorrowedFd<'_>) -> Self {
        let query = |what| {
            // SAFETY: these take no argument and touch no memory.
            unsafe { libc::fcntl(fd.as_raw_fd(), what) }
        };
        let [owner, signal, flags] = [libc::F_GETOWN, F_GETSIG, libc::F_GETFL].map(query);
        Signalling { owner, signal, flags }
    }
}

/// Makes a file signal this process, as programs with signal-driven I/O of their own do.
pub(crate) fn signal_this_process(fd: BorrowedFd<'_>, signal: i32) {
    let set = |what: i32, argument: i32| {
        // SAFETY: these take an integer and touch no memory.
        let answer = unsafe { libc::fcntl(fd.as_raw_fd(), what, argument) };
        assert_eq!(answer, 0, "fcntl: {}", io::Error::last_os_error());
    };
    set(libc::F_SETOWN, std::process::id() as i32);
    set(F_SETSIG, signal);
    set(libc::F_SETFL, Signalling::of(fd).flags | libc::O_ASYNC);
}

/// Takes a lease of a file (fcntl(2), `F_SETLEASE`); a break of it sends `signal`.
pub(crate) fn take_lease(fd: BorrowedFd<'_>, kind: i32, signal: i32) -> io::Result<()> {
    for (what, argument) in [(F_SETSIG, signal), (libc::F_SETLEASE, kind)] {
        // SAFETY: these take an integer and touch no memory.
        super::checked(unsafe { libc::fcntl(fd.as_raw_fd(), what, argument) })?;
    }
    Ok(())
}

/// `siginfo_t` as rt_sigqueueinfo(2) reads it.
#[repr(C)]
struct Info {
    signal: i32,
    errno: i32,
    code: i32,
    #[cfg(target_pointer_width = "64")]
    padding: i32,
    sender: i32,
    user: u32,
    value: libc::c_long,
    rest: [i32; 26],
}

/// The layout in `asm-generic/siginfo.h`: the union begins at an address for a pointer. What
/// rt_tgsigqueueinfo(2) reads is a siginfo_t, so this must be no shorter.
const _: () = {
    let union = (3 * size_of::<i32>()).next_multiple_of(align_of::<usize>());
    assert!(size_of::<Info>() >= size_of::<libc::siginfo_t>());
    assert!(offset_of!(Info, signal) == offset_of!(libc::siginfo_t, si_signo));
    assert!(offset_of!(Info, errno) == offset_of!(libc::siginfo_t, si_errno));
    assert!(offset_of!(Info, code) == offset_of!(libc::siginfo_t, si_code));
    assert!(offset_of!(Info, sender) == union);
    assert!(offset_of!(Info, user) == union + 4);
    assert!(offset_of!(Info, value) == union + 8);
};

fn info(signal: i32, value: i32) -> Info {
    let value = libc::c_long::from(value);
    // SAFETY: Info is made of integers, for which all zeroes is a value.
    let empty: Info = unsafe { std::mem::zeroed() };
    Info { signal, code: libc::SI_QUEUE, sender: value as i32, user: value as u32, value, ..empty }
}

/// Queues a signal to a thread of this process, as sigqueue(3) does to a process.
pub(crate) fn queue_signal(to: Thread, signal: i32, value: i32) {
    let info = info(signal, value);
    // SAFETY: the kernel reads the info, which is as long as a siginfo_t.
    unsafe {
        libc::syscall(libc::SYS_rt_tgsigqueueinfo, to.process, to.thread, signal, &info);
    }
}

/// Calls dup3(2) onto a descriptor that nothing in this process uses.
pub(crate) fn duplicate_onto(fd: BorrowedFd<'_>, raw_fd: i32) -> io::Result<OwnedFd> {
    // SAFETY: dup3 touches no memory; the caller ensures that the descriptor is free.
    super::checked(unsafe { libc::dup3(fd.as_raw_fd(), raw_fd, libc::O_CLOEXEC) })?;
    // SAFETY: dup3 has just made the descriptor, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw_fd) })
}

/// Maps new memory at an address of the kernel's choice, for the life of the process.
pub(crate) fn new_memory(length: usize) -> io::Result<&'static mut [u8]> {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a private mapping at an address of the kernel's choice touches no existing memory.
    let address = unsafe { libc::mmap(std::ptr::null_mut(), length, protection, flags, -1, 0) };
    if address == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the mapping has this length, is zeroed, unshared, and never unmapped.
    Ok(unsafe { std::slice::from_raw_parts_mut(address.cast(), length) })
}

/// Returns a descriptor that is not open, until the process opens a file.
pub(crate) fn closed_fd(raw_fd: i32) -> BorrowedFd<'static> {
    assert_ne!(raw_fd, -1, "a BorrowedFd can't be -1");
    // SAFETY: unsound in general; the cases that use it test this, and pass the descriptor to
    // system calls only.
    unsafe { BorrowedFd::borrow_raw(raw_fd) }
}

/// An io_uring that is not the poller's, and that any thread may use.
pub(crate) struct OtherRing(io_uring::IoUring);

impl OtherRing {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(OtherRing(io_uring::IoUring::new(8)?))
    }

    /// Makes the ring count its completions in this eventfd.
    pub(crate) fn notify(&self, eventfd: BorrowedFd<'_>) {
        let answer = self.0.submitter().register_eventfd(eventfd.as_raw_fd());
        assert!(answer.is_ok(), "IORING_REGISTER_EVENTFD: {answer:?}");
    }

    /// Completes a request that does nothing.
    pub(crate) fn complete(&mut self) {
        let request = io_uring::opcode::Nop::new().build();
        // SAFETY: the SQE names no memory.
        unsafe { self.0.submission().push(&request) }.unwrap_or_else(|error| panic!("{error}"));
        let answer = self.0.submit();
        assert!(answer.is_ok(), "io_uring_enter: {answer:?}");
    }

    /// Takes the completions.
    pub(crate) fn take(&mut self) {
        self.0.completion().for_each(drop);
    }
}

impl AsFd for OtherRing {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor is the ring's, which outlives the borrow.
        unsafe { BorrowedFd::borrow_raw(self.0.as_raw_fd()) }
    }
}
