//! Calls on sockets.
#![allow(unsafe_code)]

use super::super::MAX_TRANSFER;
use super::super::pool::PoolBuf;
use super::{Call, IoCall, Message};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

impl IoCall {
    pub(super) fn receive_message(&mut self) -> isize {
        let (fd, part, flags) = (self.fd, self.io_buf.part(), receive_flags(self.call));
        let Some(message) = self.message_mut() else { return -1 };
        let header = message.header_with_name(part);
        // SAFETY: the header points into its box and to space in a buffer; both outlive the call.
        unsafe { libc::recvmsg(fd, header, flags | libc::MSG_DONTWAIT) }
    }

    pub(super) fn send_message(&mut self) -> isize {
        let (fd, part) = (self.fd, self.io_buf.part());
        let Some(message) = self.message_mut() else { return -1 };
        let header = message.header(part);
        // SAFETY: the header points into its box and into a buffer; both outlive the call.
        unsafe { libc::sendmsg(fd, header, SEND_NOW) }
    }
}

pub(super) const SEND_NOW: libc::c_int = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
pub(super) const ACCEPT_FLAGS: libc::c_int = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;

/// Returns the flags of a call that receives a message.
pub(super) fn receive_flags(call: Call) -> libc::c_int {
    if call == Call::RecvMsg { libc::MSG_CMSG_CLOEXEC } else { 0 }
}

/// Accepts a connection; without a message, the address is not requested.
pub(super) fn accept(fd: RawFd, message: Option<&mut Message>) -> isize {
    let (address, length) = match message {
        Some(message) => message.name().for_writing(),
        None => (std::ptr::null_mut(), std::ptr::null_mut()),
    };
    // SAFETY: both pointers are valid for the call, with room for `length` bytes, or null.
    let answer = unsafe { libc::accept4(fd, address, length, ACCEPT_FLAGS) };
    answer as isize
}

/// Receives to the end of a buffer, without blocking.
///
/// # Errors
///
/// Errors of recv(2) except `Interrupted`.
pub(crate) fn recv_now(fd: BorrowedFd<'_>, buf: &mut PoolBuf) -> io::Result<usize> {
    let room = buf.spare_capacity();
    let (start, length) = (room.as_mut_ptr().cast(), room.len());
    loop {
        // SAFETY: `room` is space in a buffer that outlives the call.
        let answer = unsafe { libc::recv(fd.as_raw_fd(), start, length, libc::MSG_DONTWAIT) };
        match usize::try_from(answer).map_err(|_| io::Error::last_os_error()) {
            Ok(count) => {
                // SAFETY: the kernel has written `count` bytes to the space.
                unsafe { buf.note_written(count) };
                return Ok(count);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Sends bytes on a socket, without blocking and without `SIGPIPE`.
///
/// # Errors
///
/// Errors of send(2) except `Interrupted`.
pub(crate) fn send_now(fd: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    let length = bytes.len().min(MAX_TRANSFER);
    loop {
        // SAFETY: `bytes` has `length` bytes, and outlives the call.
        let sent = unsafe { libc::send(fd.as_raw_fd(), bytes.as_ptr().cast(), length, SEND_NOW) };
        match usize::try_from(sent).map_err(|_| io::Error::last_os_error()) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            sent => return sent,
        }
    }
}

/// Shuts a socket down, which never blocks.
///
/// # Errors
///
/// Errors of shutdown(2).
pub(crate) fn shutdown(fd: BorrowedFd<'_>, how: std::net::Shutdown) -> io::Result<()> {
    let how = match how {
        std::net::Shutdown::Read => libc::SHUT_RD,
        std::net::Shutdown::Write => libc::SHUT_WR,
        std::net::Shutdown::Both => libc::SHUT_RDWR,
    };
    // SAFETY: no memory is passed.
    super::super::checked(unsafe { libc::shutdown(fd.as_raw_fd(), how) })?;
    Ok(())
}
