//! A call in a heap cell of its own. The cell stays where it is; what moves between the reactor, a
//! ring and a thread is a pointer to it.
//!
//! Soundness: while a kernel is at work on a call, it reads and writes memory that the cell owns.
//! The cell is marked for that time ([`CallBox::begin_flight`], [`CallBox::end_flight`]). A cell
//! that is dropped while it is marked leaks with all that it owns, and is counted: the kernel
//! may write to that memory at any time. So no safe code can free it too early.
#![allow(unsafe_code)]

use super::IoCall;
#[cfg(test)]
use super::{Buf, Call, CallArgs, Part, SockAddr};
use std::fmt;
#[cfg(test)]
use std::io;
use std::ops::{Deref, DerefMut};
#[cfg(test)]
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts the cells and the provided buffers of this process that were left to a kernel.
static LEAKED: AtomicUsize = AtomicUsize::new(0);

pub(in crate::sys) fn note_leaked(count: usize) {
    LEAKED.fetch_add(count, Ordering::Relaxed);
}

/// How many buffers were left to the kernel for good, because their operations were not over within
/// a second after their poller was dropped.
///
/// Closing a ring does not stop what it is at: a read from a disk or from a network file system
/// that does not answer goes on, and would write into memory that is somebody else's by then. So
/// such a buffer is never freed. For a program that does its I/O on sockets, pipes and terminals
/// this stays 0.
///
/// ```
/// assert_eq!(quintpoll::leaked_buffers(), 0);
/// ```
pub fn leaked_buffers() -> usize {
    LEAKED.load(Ordering::Relaxed)
}

/// The owner of a cell with a call.
pub struct CallBox(NonNull<Cell>);

struct Cell {
    call: IoCall,
    is_in_flight: bool,
}

// SAFETY: it owns the cell alone, as a box would, and the call is `Send`.
unsafe impl Send for CallBox {}

impl CallBox {
    fn cell(&self) -> &Cell {
        // SAFETY: the cell lives as long as this value, which owns it.
        unsafe { self.0.as_ref() }
    }

    fn cell_mut(&mut self) -> &mut Cell {
        // SAFETY: the cell lives as long as this value, which owns it, and is borrowed alone.
        unsafe { self.0.as_mut() }
    }

    /// Marks the call as being in the hands of a kernel.
    pub(in crate::sys) fn begin_flight(&mut self) {
        self.cell_mut().is_in_flight = true;
    }

    /// Takes the mark away.
    ///
    /// # Safety
    ///
    /// The kernel must not touch the memory of the call any more.
    pub(in crate::sys) unsafe fn end_flight(&mut self) {
        self.cell_mut().is_in_flight = false;
    }
}

#[cfg(test)]
impl CallBox {
    /// As [`IoCall::new`].
    pub(crate) fn new(
        fd: BorrowedFd<'_>,
        call: Call,
        buf: Buf,
        part: (usize, usize),
        name: Option<SockAddr>,
    ) -> Result<Self, (io::Error, Buf)> {
        IoCall::new(fd, call, buf, part, name).map(CallBox::from)
    }

    /// As [`IoCall::with`].
    pub(crate) fn with(
        fd: Option<BorrowedFd<'_>>,
        call: Call,
        buf: Buf,
        part: Part<'_>,
        with: CallArgs,
    ) -> Result<Self, (io::Error, Buf)> {
        IoCall::with(fd, call, buf, part, with).map(CallBox::from)
    }

    /// As [`IoCall::into_buf`].
    pub(crate) fn into_buf(mut self) -> Buf {
        self.take_buf()
    }
}

impl From<IoCall> for CallBox {
    fn from(call: IoCall) -> Self {
        let cell = Box::new(Cell { call, is_in_flight: false });
        CallBox(NonNull::from(Box::leak(cell)))
    }
}

impl Deref for CallBox {
    type Target = IoCall;

    fn deref(&self) -> &IoCall {
        &self.cell().call
    }
}

impl DerefMut for CallBox {
    fn deref_mut(&mut self) -> &mut IoCall {
        &mut self.cell_mut().call
    }
}

impl Drop for CallBox {
    fn drop(&mut self) {
        if self.cell().is_in_flight {
            note_leaked(1);
            return;
        }
        // SAFETY: the pointer is that of a box, and this value, which owns it, is being dropped.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

impl fmt::Debug for CallBox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.cell().call.fmt(f)
    }
}

/// Cells whose calls are over, for calls to come, so that a server in its steady state allocates
/// none.
#[derive(Debug, Default)]
pub(crate) struct SpareCalls(Vec<CallBox>);

impl SpareCalls {
    /// More are freed. As many operations may complete in one wait, and be followed by others.
    const MAX: usize = 1024;

    /// Returns a cell with a call that is to be loaded.
    #[inline]
    pub(crate) fn take(&mut self) -> CallBox {
        self.0.pop().unwrap_or_else(|| CallBox::from(IoCall::blank()))
    }

    /// Keeps the cell of a call whose parts were taken.
    #[inline]
    pub(crate) fn keep(&mut self, spare: CallBox) {
        if self.0.len() < Self::MAX {
            self.0.push(spare);
        }
    }
}

#[cfg(test)]
mod tests;
