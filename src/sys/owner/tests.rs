//! Settings compared with plain fcntl(2) calls, and files that can't signal.

use super::*;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::eventfd::EventFd;
use std::os::fd::{AsRawFd, OwnedFd};

/// The kinds of owner as fcntl(2) numbers them.
const TID: c_int = 0;
const PID: c_int = 1;
const PGRP: c_int = 2;

impl Owner {
    /// For tests of files that signal another owner.
    pub(crate) fn this_process() -> Self {
        Owner { kind: PID, id: std::process::id() as libc::pid_t }
    }
}

fn pipe() -> (OwnedFd, OwnedFd) {
    nix::unistd::pipe().expect("a pipe")
}

fn thread_id() -> libc::pid_t {
    nix::unistd::gettid().as_raw()
}

/// `F_GETOWN_EX` without the module's struct.
fn plain_owner(fd: &OwnedFd) -> [i32; 2] {
    let mut owner = [-1_i32; 2];
    // SAFETY: the kernel writes a struct of two ints.
    let answer = unsafe { libc::fcntl(fd.as_raw_fd(), F_GETOWN_EX, owner.as_mut_ptr()) };
    assert_eq!(answer, 0, "F_GETOWN_EX");
    owner
}

fn plain(fd: &OwnedFd, what: c_int, argument: c_int) -> c_int {
    // SAFETY: the commands take an integer or nothing, and touch no memory.
    let answer = unsafe { libc::fcntl(fd.as_raw_fd(), what, argument) };
    assert_ne!(answer, -1, "fcntl {what}: {}", io::Error::last_os_error());
    answer
}

fn plain_flags(fd: &OwnedFd) -> OFlag {
    OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL).expect("an open file"))
}

fn raw_fd(fd: &OwnedFd) -> RawFd {
    fd.as_raw_fd()
}

#[test]
fn new_file_has_no_owner() {
    let (file, _peer) = pipe();
    let owner = Owner::of(raw_fd(&file)).expect("an open file");
    assert!(owner.is_unset());
    assert_eq!([owner.kind, owner.id], plain_owner(&file));
    assert_eq!(signal_of(raw_fd(&file)).expect("an open file"), 0);
    assert!(!is_async(raw_fd(&file)).expect("an open file"));
}

#[test]
fn this_thread_owner_is_a_thread() {
    let id = thread_id();
    assert_eq!(Owner::this_thread(), Owner { kind: TID, id });
    let other = std::thread::spawn(|| (Owner::this_thread(), thread_id()));
    let (other, other_id) = other.join().expect("it does not panic");
    assert_eq!(other, Owner { kind: TID, id: other_id });
    assert_ne!(other, Owner::this_thread());
}

#[test]
fn set_owner_is_visible_to_fcntl() {
    let (file, peer) = pipe();
    let before = Owner::of(raw_fd(&file)).expect("an open file");
    Owner::this_thread().set(raw_fd(&file)).expect("it lives");
    assert_eq!(plain_owner(&file), [TID, thread_id()]);
    assert_eq!(Owner::of(raw_fd(&file)).expect("an open file"), Owner::this_thread());
    assert!(!Owner::this_thread().is_unset());
    assert_eq!(plain_owner(&peer)[1], 0, "the peer is another description");
    let twin = file.try_clone().expect("a copy");
    assert_eq!(plain_owner(&twin), plain_owner(&file), "a duplicate shares the description");
    before.set(raw_fd(&file)).expect("no owner can always be set");
    assert!(Owner::of(raw_fd(&file)).expect("an open file").is_unset());
    assert_eq!(plain(&file, libc::F_GETOWN, 0), 0);
}

#[test]
fn owner_set_by_program_is_read() {
    let (file, _peer) = pipe();
    let process = std::process::id() as i32;
    plain(&file, libc::F_SETOWN, process);
    let owner = Owner::of(raw_fd(&file)).expect("an open file");
    assert_eq!((owner.kind, owner.id), (PID, process));
    assert_eq!(owner, Owner::this_process());
    plain(&file, libc::F_SETOWN, 0);
    let group = nix::unistd::getpgrp().as_raw();
    if group > 1 {
        plain(&file, libc::F_SETOWN, -group);
        let owner = Owner::of(raw_fd(&file)).expect("an open file");
        assert_eq!((owner.kind, owner.id), (PGRP, group));
        plain(&file, libc::F_SETOWN, 0);
        owner.set(raw_fd(&file)).expect("its group lives");
        assert_eq!(plain(&file, libc::F_GETOWN, 0), -group);
    }
}

#[test]
fn set_signal_is_visible_to_fcntl() {
    let (file, _peer) = pipe();
    for signal in [libc::SIGRTMAX(), libc::SIGRTMIN(), libc::SIGIO, 0] {
        set_signal(raw_fd(&file), signal).expect("a signal");
        assert_eq!(plain(&file, F_GETSIG, 0), signal);
        plain(&file, F_SETSIG, libc::SIGURG);
        assert_eq!(signal_of(raw_fd(&file)).expect("an open file"), libc::SIGURG);
    }
    let error = set_signal(raw_fd(&file), 65).expect_err("there are 64");
    assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
}

#[test]
fn set_async_keeps_other_flags() {
    for others in [OFlag::empty(), OFlag::O_NONBLOCK, OFlag::O_NONBLOCK | OFlag::O_APPEND] {
        let (file, _peer) = pipe();
        fcntl(&file, FcntlArg::F_SETFL(others)).expect("an open file");
        let before = plain_flags(&file);
        for _ in 0..2 {
            set_async(raw_fd(&file), true).expect("an open file");
            assert_eq!(plain_flags(&file), before | OFlag::O_ASYNC);
            assert!(is_async(raw_fd(&file)).expect("an open file"));
        }
        for _ in 0..2 {
            set_async(raw_fd(&file), false).expect("an open file");
            assert_eq!(plain_flags(&file), before);
            assert!(!is_async(raw_fd(&file)).expect("an open file"));
        }
    }
}

/// The selector relies on this to find files that need the poll fallback.
#[test]
fn eventfd_never_becomes_async() {
    let file = OwnedFd::from(EventFd::new().expect("an eventfd"));
    set_async(raw_fd(&file), true).expect("the kernel accepts it");
    assert!(!is_async(raw_fd(&file)).expect("an open file"));
}

#[test]
fn closed_fd_is_refused() {
    let refusals = [
        Owner::of(-1).map(drop),
        Owner::this_thread().set(-1),
        signal_of(-1).map(drop),
        set_signal(-1, 0),
        is_async(-1).map(drop),
        set_async(-1, true),
    ];
    for refusal in refusals {
        assert_eq!(refusal.expect_err("-1 is never open").raw_os_error(), Some(libc::EBADF));
    }
}
