//! splice(2): from one file to another, one of which is a pipe.
#![allow(unsafe_code)]

use super::super::io_mode::FdIoMode;
use super::super::raised::without_sigpipe;
use super::super::vectors::counted;
use super::{CallArgs, CallResult, IoCall, missing_args};
use std::io;
use std::os::fd::RawFd;
use std::ptr;

impl IoCall {
    /// Returns the target of a splice.
    pub(crate) fn target(&self) -> Option<RawFd> {
        match self.args {
            CallArgs::Target(target) => Some(target),
            _ => None,
        }
    }

    /// Splices without blocking. (`SPLICE_F_NONBLOCK` does not apply to sockets.)
    ///
    /// # Errors
    ///
    /// Errors of the call, `WouldBlock` included.
    pub(crate) fn attempt_splice(
        &mut self,
        from: &mut FdIoMode,
        to: &mut FdIoMode,
    ) -> io::Result<CallResult> {
        let from = from.nonblocking_fd(self.fd)?;
        let Some(target) = self.target() else { return Err(missing_args()) };
        let to = to.nonblocking_fd(target)?;
        loop {
            match without_sigpipe(|| splice(from, to, self.io_buf.left())) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                answer => return self.done(answer?),
            }
        }
    }
}

/// Makes the call, which may raise `SIGPIPE`.
pub(super) fn splice(from: RawFd, to: RawFd, most: usize) -> io::Result<usize> {
    let (position, flags) = (ptr::null_mut(), libc::SPLICE_F_NONBLOCK);
    // SAFETY: no memory is passed; both files are used at their positions.
    let answer = unsafe { libc::splice(from, position, to, position, most, flags) };
    counted(answer)
}
