//! poll(2) and ppoll(2) over an array that is reused by each call.
#![allow(unsafe_code)]

use std::io;
use std::ptr;
use std::time::Duration;

pub(crate) use libc::pollfd;

/// Polls once, without waiting, and returns the number of entries with `revents`.
pub(crate) fn poll_now(fds: &mut [pollfd]) -> io::Result<usize> {
    // SAFETY: the pointer and the length are those of one slice of pollfd.
    let answer = unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, 0) };
    super::checked(answer).map_err(|error| explain(error, fds.len()))
}

/// Waits until an entry has something to report, or `timeout` (`None`: no limit) has passed.
pub(crate) fn wait(fds: &mut [pollfd], timeout: Option<Duration>) -> io::Result<usize> {
    let timeout = timeout.map(super::timespec);
    let timeout = timeout.as_ref().map_or(ptr::null(), ptr::from_ref);
    let length = fds.len() as libc::nfds_t;
    // SAFETY: pointer and length are those of one slice of pollfd; the timespec outlives the call;
    // a null signal mask means none.
    let answer = unsafe { libc::ppoll(fds.as_mut_ptr(), length, timeout, ptr::null()) };
    super::checked(answer).map_err(|error| explain(error, fds.len()))
}

/// Explains the only `EINVAL` that a correct caller can get.
fn explain(error: io::Error, entries: usize) -> io::Error {
    if error.raw_os_error() != Some(libc::EINVAL) {
        return error;
    }
    let message = format!("poll(2): {entries} entries exceed RLIMIT_NOFILE");
    io::Error::new(io::ErrorKind::InvalidInput, message)
}
