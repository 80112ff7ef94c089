//! The calls for sockets.
#![allow(unsafe_code)]

use super::super::MOST;
use super::super::pool::PoolBuf;
use super::{Call, IoCall, Message};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

impl IoCall {
    pub(super) fn receive_message(&mut self) -> isize {
        let (number, part, flags) = (self.number, self.io_buf.part(), receive_flags(self.call));
        let Some(message) = self.message_mut() else { return -1 };
        let header = message.header_for_a_name(part);
        // SAFETY: the header points into its own box and to room in a buffer; they outlive the
        // call.
        unsafe { libc::recvmsg(number, header, flags | libc::MSG_DONTWAIT) }
    }

    pub(super) fn send_message(&mut self) -> isize {
        let (number, part) = (self.number, self.io_buf.part());
        let Some(message) = self.message_mut() else { return -1 };
        let header = message.header(part);
        // SAFETY: the header points into its own box and to a part of a buffer; they outlive the
        // call.
        unsafe { libc::sendmsg(number, header, SEND_NOW) }
    }
}

pub(super) const SEND_NOW: libc::c_int = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
pub(super) const ACCEPTED: libc::c_int = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;

/// What a call that receives a message is told.
pub(super) fn receive_flags(call: Call) -> libc::c_int {
    if call == Call::RecvMsg { libc::MSG_CMSG_CLOEXEC } else { 0 }
}

/// Where nobody asks for the address there is no message.
pub(super) fn accept(number: RawFd, message: Option<&mut Message>) -> isize {
    let (place, length) = match message {
        Some(message) => message.name().for_writing(),
        None => (std::ptr::null_mut(), std::ptr::null_mut()),
    };
    // SAFETY: there is room for `length` bytes, and both outlive the call, or there is none.
    let answer = unsafe { libc::accept4(number, place, length, ACCEPTED) };
    answer as isize
}

/// Receives what a socket has to the end of a buffer, without blocking.
///
/// # Errors
///
/// What recv(2) says, but not `Interrupted`.
pub(crate) fn recv_now(fd: BorrowedFd<'_>, buf: &mut PoolBuf) -> io::Result<usize> {
    let room = buf.spare();
    let (start, length) = (room.as_mut_ptr().cast(), room.len());
    loop {
        // SAFETY: it is room in a buffer that outlives the call.
        let answer = unsafe { libc::recv(fd.as_raw_fd(), start, length, libc::MSG_DONTWAIT) };
        match usize::try_from(answer).map_err(|_| io::Error::last_os_error()) {
            Ok(count) => {
                // SAFETY: the kernel has written so many bytes to the room.
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
/// What send(2) says, but not `Interrupted`.
pub(crate) fn send_now(fd: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    let length = bytes.len().min(MOST);
    loop {
        // SAFETY: there are so many bytes, which outlive the call.
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
/// What shutdown(2) says.
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
