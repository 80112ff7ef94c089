//! connect(2). A connect in progress is polled, and never made again: after the program's own
//! shutdown(2) a second call would make another connection.
#![allow(unsafe_code)]

use super::super::file::{has_peer, take_error};
use super::super::{checked, poll};
use super::{CallResult, IoCall, missing_args};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

/// The state of a connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ConnectState {
    /// No call was made.
    Fresh,
    /// The queue of a unix listener was full (`EAGAIN`). Nothing has begun: the call is made again,
    /// unless the program shuts the socket down first.
    NoRoom { was_shut_down: bool },
    /// The connection is in progress (`EINPROGRESS`).
    Begun,
}

impl IoCall {
    pub(super) fn attempt_connect(&mut self) -> io::Result<CallResult> {
        let fd = self.fd;
        match self.connect {
            ConnectState::Begun => return outcome(fd),
            ConnectState::NoRoom { was_shut_down: false } if is_shut_down(fd)? => {
                return Err(io::Error::from_raw_os_error(libc::ECONNABORTED));
            }
            ConnectState::Fresh | ConnectState::NoRoom { .. } => {}
        }
        let Some(message) = self.message() else { return Err(missing_args()) };
        let (start, length) = message.named().for_reading();
        // SAFETY: the address has `length` bytes, and outlives the call.
        let Err(error) = checked(unsafe { libc::connect(fd, start, length) }) else {
            return Ok(CallResult::Connected);
        };
        match error.raw_os_error() {
            // A connect interrupted by a signal continues too (connect(2)).
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

/// Returns the result of a connect in progress, or `WouldBlock`.
fn outcome(fd: RawFd) -> io::Result<CallResult> {
    let bits = poll_now(fd, libc::POLLOUT)?;
    if bits == 0 {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    let errno = match take_error(fd)? {
        0 if has_peer(fd) => return Ok(CallResult::Connected),
        // A message in the error queue (`IP_RECVERR`) is not a result.
        0 if bits & libc::POLLHUP == 0 => return Err(io::ErrorKind::WouldBlock.into()),
        // The program has ended the connect, or has read the error.
        0 => libc::ECONNABORTED,
        errno => errno,
    };
    // A blocking connect does this too when it fails: the socket can be connected again.
    // SAFETY: the holder of the call keeps its file open.
    let _ = disconnect(unsafe { BorrowedFd::borrow_raw(fd) });
    Err(io::Error::from_raw_os_error(errno))
}

/// Returns true if reading was shut down. (The shutdown of writing alone is not visible.)
fn is_shut_down(fd: RawFd) -> io::Result<bool> {
    Ok(poll_now(fd, libc::POLLRDHUP)? & libc::POLLRDHUP != 0)
}

fn poll_now(fd: RawFd, events: libc::c_short) -> io::Result<libc::c_short> {
    let mut fds = [poll::pollfd { fd, events, revents: 0 }];
    poll::poll_now(&mut fds)?;
    Ok(fds[0].revents)
}

/// Ends a connect, so that the socket can be connected again (connect(2), `AF_UNSPEC`). Makes no
/// connection, whatever the socket's state.
///
/// # Errors
///
/// Errors of connect(2): `EINVAL` for unix sockets.
pub(crate) fn disconnect(fd: BorrowedFd<'_>) -> io::Result<()> {
    let no_address =
        libc::sockaddr { sa_family: libc::AF_UNSPEC as libc::sa_family_t, sa_data: [0; 14] };
    let length = size_of_val(&no_address) as libc::socklen_t;
    // SAFETY: the address has this length, and outlives the call.
    checked(unsafe { libc::connect(fd.as_raw_fd(), &no_address, length) })?;
    Ok(())
}
