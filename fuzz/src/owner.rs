//! The owner of a file's signals, for which there is no safe function.
#![allow(unsafe_code)]

use nix::libc;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Makes this process the owner of the file's signals, as programs do that know of no other.
///
/// # Panics
///
/// If fcntl(2) fails, which it can't.
pub fn give_to_process(file: BorrowedFd<'_>) {
    let process = nix::unistd::getpid().as_raw();
    // SAFETY: F_SETOWN takes an integer and touches no memory.
    let answer = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETOWN, process) };
    assert_eq!(answer, 0, "F_SETOWN");
}
