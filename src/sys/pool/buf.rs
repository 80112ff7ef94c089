//! A buffer in use.

use super::Shared;
use super::block::BlockBox;
use std::fmt;
use std::io;
use std::mem::MaybeUninit;
use std::ops::{Deref, DerefMut};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Waker;

/// A buffer of a [`BufferPool`](super::BufferPool). Derefs to the bytes in it. Dropping it returns
/// it to the pool, even after the poller was dropped.
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// use quintpoll::BufferPool;
/// use std::io::Write;
/// let pool = BufferPool::new(8, 1)?;
/// let mut buf = pool.take().expect("the pool is new");
/// assert_eq!((buf.len(), buf.capacity()), (0, 8));
/// assert_eq!(buf.write(b"and so on")?, 8);
/// assert_eq!(&buf[..3], b"and");
/// # Ok(())
/// # }
/// ```
pub struct PoolBuf {
    block: BlockBox,
    /// The number of initialised bytes.
    length: u32,
    purpose: Purpose,
    pub(super) is_provided: bool,
}

/// The purpose for which a buffer was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Any,
    /// The bytes begin at [`Block::offset`](super::block::Block::offset).
    Receive,
}

// SAFETY: shared references only read the bytes, and the pool has a lock.
unsafe impl Sync for PoolBuf {}

impl PoolBuf {
    pub(super) fn new(block: BlockBox, purpose: Purpose) -> Self {
        PoolBuf { block, length: 0, purpose, is_provided: false }
    }

    fn pool(&self) -> &Shared {
        // SAFETY: buffers in use keep the pool alive.
        unsafe { self.block.block().pool.as_ref() }
    }

    /// Returns the maximum number of bytes: the [`size`](super::BufferPool::size) of its pool.
    pub fn capacity(&self) -> usize {
        self.pool().size
    }

    /// Removes all bytes.
    pub fn clear(&mut self) {
        self.length = 0;
    }

    /// Keeps the first `length` bytes, if there are more.
    pub fn truncate(&mut self, length: usize) {
        self.length = u32::try_from(length).map_or(self.length, |length| self.length.min(length));
    }

    /// Returns the start of the bytes.
    fn start(&self) -> *mut u8 {
        let block = self.block.block();
        let offset = match self.purpose {
            Purpose::Receive if self.pool().max_offset() > 0 => block.offset(),
            _ => 0,
        };
        // SAFETY: the block has room for the largest offset and `size` bytes.
        unsafe { block.start.as_ptr().add(offset) }
    }

    /// Returns the space behind the bytes.
    pub(in crate::sys) fn spare_capacity(&mut self) -> &mut [MaybeUninit<u8>] {
        let (start, length) = (self.start(), self.length as usize);
        // SAFETY: the bytes end within the buffer.
        let start = unsafe { start.add(length) };
        // SAFETY: this value owns the block, and these are the last of the buffer's `size` bytes.
        unsafe { std::slice::from_raw_parts_mut(start.cast(), self.capacity() - length) }
    }

    /// Marks the buffer as no longer provided. Returns true if it was; the caller then calls
    /// [`BufferPool::note_taken`](super::BufferPool::note_taken).
    pub(in crate::sys) fn take_is_provided(&mut self) -> bool {
        std::mem::take(&mut self.is_provided)
    }

    /// Adds the next `count` bytes to the buffer's length.
    ///
    /// # Safety
    ///
    /// They must be initialised, and within the capacity.
    pub(in crate::sys) unsafe fn note_written(&mut self, count: usize) {
        // A buffer is no longer than one call can move.
        self.length += count as u32;
    }
}

impl Deref for PoolBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `length` bytes are initialised, and this value owns the block.
        unsafe { std::slice::from_raw_parts(self.start(), self.length as usize) }
    }
}

impl DerefMut for PoolBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and the borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.start(), self.length as usize) }
    }
}

impl AsRef<[u8]> for PoolBuf {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl io::Write for PoolBuf {
    /// Appends as many bytes as fit.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let spare_capacity = self.spare_capacity();
        let count = bytes.len().min(spare_capacity.len());
        // SAFETY: the space has room for `count` bytes, and does not overlap `bytes`.
        unsafe {
            ptr::copy_nonoverlapping(bytes.as_ptr(), spare_capacity.as_mut_ptr().cast(), count)
        };
        // SAFETY: the copy has initialised these bytes.
        unsafe { self.note_written(count) };
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl PartialEq for PoolBuf {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for PoolBuf {}

impl fmt::Debug for PoolBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PoolBuf({} of {} bytes)", self.length, self.capacity())
    }
}

impl Drop for PoolBuf {
    fn drop(&mut self) {
        if self.take_is_provided() {
            self.pool().provided.fetch_sub(1, Ordering::Relaxed);
        }
        let pool = self.block.block().pool;
        // SAFETY: buffers in use keep the pool alive.
        let Some(mut state) = (unsafe { pool.as_ref() }).lock() else { return };
        state.free.push(BlockBox(self.block.0));
        let waiting = std::mem::take(&mut state.waiting);
        let is_last = state.in_use() == 0;
        drop(state);
        waiting.into_iter().for_each(Waker::wake);
        if is_last {
            // SAFETY: `take_block` has left one count for all buffers in use.
            drop(unsafe { Arc::from_raw(pool.as_ptr()) });
        }
    }
}
