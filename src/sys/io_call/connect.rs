//! connect(2), which is asked about once it has begun, and never made again: after a shutdown(2) of
//! the program's own a second call would be another connection.
#![allow(unsafe_code)]

use super::super::file::{has_peer, take_error};
use super::super::{checked, poll};
use super::{CallResult, IoCall, unsuitable};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

/// How far a connect has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ConnectState {
    /// No call was made.
    Fresh,
    /// The queue of a unix listener was full (`EAGAIN`): nothing has begun, and the call is to be
    /// made again unless the program shuts the socket down first.
    NoRoom { was_shut_down: bool },
    /// The kernel connects (`EINPROGRESS`).
    Begun,
}

impl IoCall {
    pub(super) fn attempt_connect(&mut self) -> io::Result<CallResult> {
        let fd = self.number;
        match self.connect {
            ConnectState::Begun => return outcome(fd),
            ConnectState::NoRoom { was_shut_down: false } if is_shut_down(fd)? => {
                return Err(io::Error::from_raw_os_error(libc::ECONNABORTED));
            }
            ConnectState::Fresh | ConnectState::NoRoom { .. } => {}
        }
        let Some(message) = self.message() else { return Err(unsuitable()) };
        let (start, length) = message.named().for_reading();
        // SAFETY: there are `length` bytes, and they outlive the call.
        let Err(error) = checked(unsafe { libc::connect(fd, start, length) }) else {
            return Ok(CallResult::Connected);
        };
        match error.raw_os_error() {
            // A call that a signal interrupts goes on too (connect(2)).
            Some(libc::EINPROGRESS | libc::EINTR) => {
                self.connect = ConnectState::Begun;
                return Err(io::ErrorKind::WouldBlock.into());
            }
            Some(libc::EAGAIN) if self.connect == ConnectState::Fresh => {
                self.connect = ConnectState::NoRoom { was_shut_down: is_shut_down(fd)? };
            }
            _ => {}
        }
        Err(error)
    }
}

/// Returns what has become of a connect that has begun, `WouldBlock` while that is open.
fn outcome(fd: RawFd) -> io::Result<CallResult> {
    let bits = poll_now(fd, libc::POLLOUT)?;
    if bits == 0 {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    let errno = match take_error(fd)? {
        0 if has_peer(fd) => return Ok(CallResult::Connected),
        // A message in the error queue alone (`IP_RECVERR`) decides nothing.
        0 if bits & libc::POLLHUP == 0 => return Err(io::ErrorKind::WouldBlock.into()),
        // The program has ended the attempt, or has taken the error.
        0 => libc::ECONNABORTED,
        errno => errno,
    };
    // A call that waits does the same when it fails: the socket can be connected anew.
    // SAFETY: whoever holds the call keeps its file open.
    let _ = disconnect(unsafe { BorrowedFd::borrow_raw(fd) });
    Err(io::Error::from_raw_os_error(errno))
}

/// Returns true if reading was shut down. (Of writing alone nothing tells.)
fn is_shut_down(fd: RawFd) -> io::Result<bool> {
    Ok(poll_now(fd, libc::POLLRDHUP)? & libc::POLLRDHUP != 0)
}

fn poll_now(fd: RawFd, events: libc::c_short) -> io::Result<libc::c_short> {
    let mut fds = [poll::pollfd { fd, events, revents: 0 }];
    poll::look(&mut fds)?;
    Ok(fds[0].revents)
}

/// Ends an attempt to connect, so that the socket can be connected anew (connect(2), `AF_UNSPEC`).
/// Connects nothing, whatever state the socket is in.
///
/// # Errors
///
/// What connect(2) says: `EINVAL` of unix sockets.
pub(crate) fn disconnect(fd: BorrowedFd<'_>) -> io::Result<()> {
    let no_address =
        libc::sockaddr { sa_family: libc::AF_UNSPEC as libc::sa_family_t, sa_data: [0; 14] };
    let length = size_of_val(&no_address) as libc::socklen_t;
    // SAFETY: the address is that long, and outlives the call.
    checked(unsafe { libc::connect(fd.as_raw_fd(), &no_address, length) })?;
    Ok(())
}
