//! A buffer that is lent.

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

/// A buffer of a [`BufferPool`](super::BufferPool). It derefs to the bytes that are in it, and goes
/// home when it is dropped, whether or not there still is a poller.
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
    /// So many bytes are initialised: those that are in it.
    length: u32,
    purpose: Purpose,
    pub(super) is_set_out: bool,
}

/// What a buffer was lent for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Any,
    /// It begins where [`Block::offset`](super::block::Block::offset) says.
    Receive,
}

// SAFETY: shared, it gives out its bytes to be read, and a pool that has its own lock.
unsafe impl Sync for PoolBuf {}

impl PoolBuf {
    pub(super) fn new(block: BlockBox, purpose: Purpose) -> Self {
        PoolBuf { block, length: 0, purpose, is_set_out: false }
    }

    fn home(&self) -> &Shared {
        // SAFETY: a pool lives while buffers are lent.
        unsafe { self.block.block().home.as_ref() }
    }

    /// How many bytes can be in it: the [`size`](super::BufferPool::size) of its pool.
    pub fn capacity(&self) -> usize {
        self.home().size
    }

    /// Empties it.
    pub fn clear(&mut self) {
        self.length = 0;
    }

    /// Leaves the first `length` bytes, if there are more.
    pub fn truncate(&mut self, length: usize) {
        self.length = u32::try_from(length).map_or(self.length, |length| self.length.min(length));
    }

    /// Returns where its bytes begin.
    fn start(&self) -> *mut u8 {
        let block = self.block.block();
        let offset = match self.purpose {
            Purpose::Receive if self.home().max_offset() > 0 => block.offset(),
            _ => 0,
        };
        // SAFETY: the block has room for the largest offset and `size` bytes.
        unsafe { block.start.as_ptr().add(offset) }
    }

    /// The room behind its bytes.
    pub(in crate::sys) fn spare(&mut self) -> &mut [MaybeUninit<u8>] {
        let (start, length) = (self.start(), self.length as usize);
        // SAFETY: the bytes end at or before the end of the buffer.
        let start = unsafe { start.add(length) };
        // SAFETY: the block is this value's alone, and the buffer has `size` bytes, of which these
        // are the last.
        unsafe { std::slice::from_raw_parts_mut(start.cast(), self.capacity() - length) }
    }

    /// Notes that a buffer is set out no longer. Returns true if it was, which its pool is to be
    /// told ([`BufferPool::note_taken`](super::BufferPool::note_taken)).
    pub(in crate::sys) fn take_is_set_out(&mut self) -> bool {
        std::mem::take(&mut self.is_set_out)
    }

    /// The next `count` bytes are in it too.
    ///
    /// # Safety
    ///
    /// They have to be written, and within the room.
    pub(in crate::sys) unsafe fn note_written(&mut self, count: usize) {
        // A buffer is no longer than what one call moves.
        self.length += count as u32;
    }
}

impl Deref for PoolBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: so many bytes of the block were written, and it is this value's alone.
        unsafe { std::slice::from_raw_parts(self.start(), self.length as usize) }
    }
}

impl DerefMut for PoolBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as for reading, and the value is borrowed to be changed.
        unsafe { std::slice::from_raw_parts_mut(self.start(), self.length as usize) }
    }
}

impl AsRef<[u8]> for PoolBuf {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl io::Write for PoolBuf {
    /// Appends as many bytes as there is room for.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let spare = self.spare();
        let count = bytes.len().min(spare.len());
        // SAFETY: there is room for so many, which is nobody else's.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), spare.as_mut_ptr().cast(), count) };
        // SAFETY: these have just been written.
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
        if self.take_is_set_out() {
            self.home().set_out.fetch_sub(1, Ordering::Relaxed);
        }
        let home = self.block.block().home;
        // SAFETY: a pool lives while buffers are lent.
        let Some(mut state) = (unsafe { home.as_ref() }).lock() else { return };
        state.home.push(BlockBox(self.block.0));
        let waiting = std::mem::take(&mut state.waiting);
        let is_last = state.lent() == 0;
        drop(state);
        waiting.into_iter().for_each(Waker::wake);
        if is_last {
            // SAFETY: `take_block` has left one count for all that were lent.
            drop(unsafe { Arc::from_raw(home.as_ptr()) });
        }
    }
}
