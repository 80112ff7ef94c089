//! A call in a heap cell, which stays in place; reactor, ring and thread exchange a pointer to it.
//!
//! Soundness: while a call is in flight, the kernel reads and writes memory that the cell owns.
//! [`CallBox::begin_flight`] and [`CallBox::end_flight`] mark the cell for that time. A cell that
//! is dropped while marked leaks with all that it owns, and is counted, because the kernel may
//! still write to it. So safe code can't free the memory too early.
#![allow(unsafe_code)]

use super::IoCall;
#[cfg(test)]
use super::{Buf, Call, CallArgs, SockAddr, Transfer};
use std::fmt;
#[cfg(test)]
use std::io;
use std::ops::{Deref, DerefMut};
#[cfg(test)]
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts the cells and provided buffers that this process has leaked to the kernel.
static LEAKED: AtomicUsize = AtomicUsize::new(0);

pub(in crate::sys) fn note_leaked(count: usize) {
    LEAKED.fetch_add(count, Ordering::Relaxed);
}

/// Returns the number of leaked buffers: their operations had not completed a second after their
/// poller was dropped.
///
/// Closing a ring does not interrupt a read from a disk, or from a network file system that does
/// not answer. The read would write to memory that was reused, so such a buffer is never freed. In
/// a program that does I/O only on sockets, pipes and terminals this stays 0.
///
/// ```
/// assert_eq!(quintpoll::leaked_buffers(), 0);
/// ```
pub fn leaked_buffers() -> usize {
    LEAKED.load(Ordering::Relaxed)
}

/// An owned cell with a call.
pub struct CallBox(NonNull<Cell>);

struct Cell {
    call: IoCall,
    is_in_flight: bool,
}

// SAFETY: this value owns the cell, as a box would, and the call is `Send`.
unsafe impl Send for CallBox {}

impl CallBox {
    fn cell(&self) -> &Cell {
        // SAFETY: this value owns the cell.
        unsafe { self.0.as_ref() }
    }

    fn cell_mut(&mut self) -> &mut Cell {
        // SAFETY: this value owns the cell, and is borrowed exclusively.
        unsafe { self.0.as_mut() }
    }

    /// Marks the call as in flight.
    pub(in crate::sys) fn begin_flight(&mut self) {
        self.cell_mut().is_in_flight = true;
    }

    /// Removes the mark.
    ///
    /// # Safety
    ///
    /// The kernel must no longer touch the memory of the call.
    pub(in crate::sys) unsafe fn end_flight(&mut self) {
        self.cell_mut().is_in_flight = false;
    }
}

#[cfg(test)]
impl CallBox {
    /// See [`IoCall::new`].
    pub(crate) fn new(
        fd: BorrowedFd<'_>,
        call: Call,
        buf: Buf,
        part: (usize, usize),
        name: Option<SockAddr>,
    ) -> Result<Self, (io::Error, Buf)> {
        IoCall::new(fd, call, buf, part, name).map(CallBox::from)
    }

    /// See [`IoCall::with`].
    pub(crate) fn with(
        fd: Option<BorrowedFd<'_>>,
        call: Call,
        buf: Buf,
        part: Transfer<'_>,
        args: CallArgs,
    ) -> Result<Self, (io::Error, Buf)> {
        IoCall::with(fd, call, buf, part, args).map(CallBox::from)
    }

    /// See [`IoCall::into_buf`].
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
        // SAFETY: the pointer is that of a box, whose owner is being dropped.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

impl fmt::Debug for CallBox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.cell().call.fmt(f)
    }
}

/// Cells of completed calls for reuse, so that a server in its steady state allocates none.
#[derive(Debug, Default)]
pub(crate) struct SpareCalls(Vec<CallBox>);

impl SpareCalls {
    /// The maximum number of cells. As many operations may complete in one wait, and be replaced.
    const MAX: usize = 1024;

    /// Returns a cell with a call to be loaded.
    #[inline]
    pub(crate) fn take(&mut self) -> CallBox {
        self.0.pop().unwrap_or_else(|| CallBox::from(IoCall::blank()))
    }

    /// Keeps the cell of a call whose buffer and files were taken.
    #[inline]
    pub(crate) fn keep(&mut self, spare: CallBox) {
        if self.0.len() < Self::MAX {
            self.0.push(spare);
        }
    }
}

#[cfg(test)]
mod tests;
