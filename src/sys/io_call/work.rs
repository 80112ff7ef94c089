//! The system calls of an operation.

use super::super::io_mode::FdIoMode;
use super::super::pool::BufferPool;
use super::{Call, CallBox, IoCall};
use std::os::fd::RawFd;

/// The system call, single or multishot, of an operation.
///
/// Its holder keeps the file open.
#[derive(Debug)]
pub enum Work {
    /// A call with its memory.
    Call(CallBox),
    /// A multishot receive, each time into a buffer of the pool. Has no memory of its own.
    Receive {
        /// The file descriptor.
        fd: RawFd,
        /// The pool of the buffers.
        pool: BufferPool,
    },
}

impl Work {
    /// Returns the kind of call.
    pub fn call(&self) -> Call {
        match self {
            Work::Call(call) => call.call(),
            Work::Receive { .. } => Call::RecvMulti,
        }
    }

    /// Returns the call with its memory, if there is one.
    pub fn io_call(&self) -> Option<&IoCall> {
        match self {
            Work::Call(call) => Some(call),
            Work::Receive { .. } => None,
        }
    }

    /// Returns the call with its memory, if there is one.
    pub fn io_call_mut(&mut self) -> Option<&mut IoCall> {
        match self {
            Work::Call(call) => Some(call),
            Work::Receive { .. } => None,
        }
    }

    /// Returns the pool of a multishot receive.
    pub fn pool(&self) -> Option<&BufferPool> {
        match self {
            Work::Call(_) => None,
            Work::Receive { pool, .. } => Some(pool),
        }
    }

    /// Returns true if a ring can execute it.
    pub(crate) fn is_supported_by_ring(&self, io_mode: &mut FdIoMode) -> bool {
        match self {
            Work::Call(call) => call.is_supported_by_ring(io_mode),
            // A multishot receive of datagrams takes an empty one for the end, and a ring does not
            // report the shutdown of reading to it.
            Work::Receive { .. } => io_mode.is_stream(),
        }
    }

    /// Returns true if a ring can omit the CQE of its success: a send that does not wait is known
    /// to have ended.
    pub(crate) fn may_be_silent(&self) -> bool {
        self.io_call().is_some_and(|call| call.skips_success && call.call == Call::Send)
    }

    /// Marks its memory as in flight.
    pub(in crate::sys) fn begin_flight(&mut self) {
        if let Work::Call(call) = self {
            call.begin_flight();
        }
    }

    /// Removes the mark.
    ///
    /// # Safety
    ///
    /// The kernel must no longer touch the memory of the call.
    #[allow(unsafe_code)]
    pub(in crate::sys) unsafe fn end_flight(&mut self) {
        if let Work::Call(call) = self {
            // SAFETY: as the caller promises.
            unsafe { call.end_flight() };
        }
    }
}

/// For selectors and tests that execute calls themselves.
#[cfg(any(test, feature = "spi"))]
impl Work {
    /// Returns the descriptor, the call, and the count of bytes left.
    pub fn wanted(&self) -> (RawFd, Call, usize) {
        match self {
            Work::Call(call) => call.wanted(),
            Work::Receive { fd, .. } => (*fd, Call::RecvMulti, 0),
        }
    }
}

#[cfg(test)]
impl Work {
    /// Returns the call with its memory.
    pub(crate) fn into_call(self) -> CallBox {
        match self {
            Work::Call(call) => call,
            Work::Receive { .. } => panic!("a multishot receive has no memory"),
        }
    }
}

#[cfg(test)]
impl From<CallBox> for Work {
    fn from(call: CallBox) -> Self {
        Work::Call(call)
    }
}
