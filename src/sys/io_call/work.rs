//! What an operation has the kernel do.

use super::super::io_mode::FdIoMode;
use super::super::pool::BufferPool;
use super::{Call, CallBox, IoCall};
use std::os::fd::RawFd;

/// What an operation has the kernel do, once or again and again.
///
/// Its holder keeps its file open.
#[derive(Debug)]
pub enum Work {
    /// A call, with the memory that it touches.
    Call(CallBox),
    /// To receive whatever comes, each time into a buffer of the pool. It has no memory of its own.
    Receive {
        /// The file descriptor.
        number: RawFd,
        /// Where the buffers come from.
        pool: BufferPool,
    },
}

impl Work {
    /// Returns which call it is.
    pub fn call(&self) -> Call {
        match self {
            Work::Call(call) => call.call(),
            Work::Receive { .. } => Call::RecvMulti,
        }
    }

    /// Returns the call with its memory, if it has any.
    pub fn io_call(&self) -> Option<&IoCall> {
        match self {
            Work::Call(call) => Some(call),
            Work::Receive { .. } => None,
        }
    }

    /// Returns the call with its memory, if it has any.
    pub fn io_call_mut(&mut self) -> Option<&mut IoCall> {
        match self {
            Work::Call(call) => Some(call),
            Work::Receive { .. } => None,
        }
    }

    /// Returns where its buffers come from, if they come from a pool one by one.
    pub fn pool(&self) -> Option<&BufferPool> {
        match self {
            Work::Call(_) => None,
            Work::Receive { pool, .. } => Some(pool),
        }
    }

    /// Returns true if it can be given to a ring.
    pub(crate) fn suits_a_ring(&self, io_mode: &mut FdIoMode) -> bool {
        match self {
            Work::Call(call) => call.suits_a_ring(io_mode),
            // A ring does not report that reading was shut down to a multishot receive of
            // datagrams, of which an empty one looks like the end.
            Work::Receive { .. } => io_mode.is_stream(),
        }
    }

    /// Returns true if its success need not be told, and a ring can leave that out: it is certain
    /// when a send that does not wait is over.
    pub(crate) fn may_be_silent(&self) -> bool {
        self.io_call().is_some_and(|call| call.skips_success && call.call == Call::Send)
    }

    /// Marks its memory as being in the hands of a kernel.
    pub(in crate::sys) fn begin_flight(&mut self) {
        if let Work::Call(call) = self {
            call.begin_flight();
        }
    }

    /// Takes the mark away.
    ///
    /// # Safety
    ///
    /// The kernel must not touch the memory of the call any more.
    #[allow(unsafe_code)]
    pub(in crate::sys) unsafe fn end_flight(&mut self) {
        if let Work::Call(call) = self {
            // SAFETY: as the caller promises.
            unsafe { call.end_flight() };
        }
    }
}

/// For mechanisms and tests that do the work themselves.
#[cfg(any(test, feature = "spi"))]
impl Work {
    /// Returns the file descriptor, the call, and how many bytes are left.
    pub fn wanted(&self) -> (RawFd, Call, usize) {
        match self {
            Work::Call(call) => call.wanted(),
            Work::Receive { number, .. } => (*number, Call::RecvMulti, 0),
        }
    }
}

#[cfg(test)]
impl Work {
    /// Returns the call with its memory.
    pub(crate) fn into_call(self) -> CallBox {
        match self {
            Work::Call(call) => call,
            Work::Receive { .. } => panic!("it has no memory"),
        }
    }
}

#[cfg(test)]
impl From<CallBox> for Work {
    fn from(call: CallBox) -> Self {
        Work::Call(call)
    }
}
