//! poll(2) and ppoll(2) over an array that lives from call to call.
#![allow(unsafe_code)]

use std::io;
use std::ptr;
use std::time::Duration;

pub(crate) use libc::pollfd;

/// Looks once, without waiting, and fills in `revents`. Gives how many entries have any.
pub(crate) fn look(fds: &mut [pollfd]) -> io::Result<usize> {
    // SAFETY: the pointer and the length are those of one slice of pollfd.
    let answer = unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, 0) };
    super::checked(answer).map_err(|error| explained(error, fds.len()))
}

/// Waits until an entry has something to report, or `timeout` (`None`: no limit) has passed.
pub(crate) fn wait(fds: &mut [pollfd], timeout: Option<Duration>) -> io::Result<usize> {
    let timeout = timeout.map(super::timespec);
    let timeout = timeout.as_ref().map_or(ptr::null(), ptr::from_ref);
    let length = fds.len() as libc::nfds_t;
    // SAFETY: pointer and length are those of one slice of pollfd; the timespec outlives the call;
    // a null signal mask means none.
    let answer = unsafe { libc::ppoll(fds.as_mut_ptr(), length, timeout, ptr::null()) };
    super::checked(answer).map_err(|error| explained(error, fds.len()))
}

/// Says in words the one way to `EINVAL` that is left to a correct caller.
fn explained(error: io::Error, entries: usize) -> io::Error {
    if error.raw_os_error() != Some(libc::EINVAL) {
        return error;
    }
    let message = format!("poll(2) can't look at {entries} files: RLIMIT_NOFILE is below that");
    io::Error::new(io::ErrorKind::InvalidInput, message)
}
