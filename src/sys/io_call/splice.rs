//! splice(2): from one file to another, of which one is a pipe.
#![allow(unsafe_code)]

use super::super::io_mode::FdIoMode;
use super::super::raised::without_sigpipe;
use super::super::vectors::counted;
use super::{CallArgs, CallResult, IoCall, unsuitable};
use std::io;
use std::os::fd::RawFd;
use std::ptr;

impl IoCall {
    /// The file that is spliced to.
    pub(crate) fn target(&self) -> Option<RawFd> {
        match self.with {
            CallArgs::Target(target) => Some(target),
            _ => None,
        }
    }

    /// Splices what there is, without waiting. (A socket is asked by its own flag.)
    ///
    /// # Errors
    ///
    /// What the call says, `WouldBlock` too.
    pub(crate) fn attempt_splice(
        &mut self,
        from: &mut FdIoMode,
        to: &mut FdIoMode,
    ) -> io::Result<CallResult> {
        let from = from.nonblocking_fd(self.number)?;
        let Some(target) = self.target() else { return Err(unsuitable()) };
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
    let (here, flags) = (ptr::null_mut(), libc::SPLICE_F_NONBLOCK);
    // SAFETY: no memory is passed; both are at their own positions.
    let answer = unsafe { libc::splice(from, here, to, here, most, flags) };
    counted(answer)
}
