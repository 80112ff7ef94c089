//! Buffers that are used again and again: made up to a limit, lent, and given back.
#![allow(unsafe_code)]

use super::MOST;
use super::fork::Stamp;
use std::alloc::{Layout, alloc, dealloc};
use std::fmt;
use std::io;
use std::mem::{ManuallyDrop, MaybeUninit};
use std::ops::{Deref, DerefMut};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

/// A large buffer begins at a multiple of this, as files opened with `O_DIRECT` want it.
const PAGE: usize = 4096;
/// The size of a line of the processor's cache.
const CACHE_LINE: usize = 64;

/// Buffers of one size, for [`Op::recv_multi`](crate::Op::recv_multi) and for whoever else wants
/// one. They are made when they are needed, up to a limit, and used again.
///
/// A clone is another handle on the same buffers. Handles and buffers may go to other threads.
/// Pollers may share a pool, but not all of its burden: of those that wait for a buffer the first
/// to look gets it, however long another has waited. A pool for each is fair.
///
/// A buffer that was [taken](BufferPool::take) begins at a multiple of its size rounded up to a
/// power of two, or of 4096 if that is less: a size of 4096 or a multiple suits files opened with
/// `O_DIRECT`. One that was received into begins at a multiple of 64, if its size is 4096 or more.
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// use quintpoll::BufferPool;
/// let pool = BufferPool::new(4096, 2)?;
/// let (one, two) = (pool.take(), pool.take());
/// assert!(one.is_some() && two.is_some());
/// assert!(pool.take().is_none(), "that was the limit");
/// drop(one);
/// assert!(pool.take().is_some(), "it has come home");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct BufferPool(Arc<Shared>);

struct Shared {
    /// How many bytes a buffer has.
    size: usize,
    /// Of a block, which has room for an offset (see [`Block::offset`]).
    layout: Layout,
    limit: usize,
    /// In a forked child it may be as another thread of the parent has left it halfway.
    state: ManuallyDrop<Mutex<State>>,
    /// How many are set out for somebody who may come.
    set_out: AtomicUsize,
    stamp: Stamp,
}

#[derive(Default)]
struct State {
    /// The buffers that can be lent. The last that came home is the first, because it is still in
    /// the cache.
    home: Vec<BlockBox>,
    /// How many buffers were made.
    made: usize,
    /// Whom to tell when one comes home.
    waiting: Vec<Waker>,
}

impl State {
    fn lent(&self) -> usize {
        self.made - self.home.len()
    }
}

/// The memory of one buffer, and its pool. It lies in a heap cell of its own, so that a [`PoolBuf`]
/// is 16 bytes long.
struct Block {
    home: NonNull<Shared>,
    /// Memory of the pool's layout, which nothing else points to.
    start: NonNull<u8>,
}

/// The owner of a block.
struct BlockBox(NonNull<Block>);

// SAFETY: it owns the block alone, as a box would, and the pool may be shared by threads.
unsafe impl Send for BlockBox {}

impl Block {
    /// Returns where in the block to receive: in another line of a page than its neighbours. The
    /// first lines of all pages share a few places in the processor's cache, and most of what
    /// arrives is short.
    fn offset(&self) -> usize {
        let page = self.start.as_ptr().addr() / PAGE;
        page % (PAGE / CACHE_LINE) * CACHE_LINE
    }
}

impl BlockBox {
    fn block(&self) -> &Block {
        // SAFETY: the block lives as long as this value, which owns it.
        unsafe { self.0.as_ref() }
    }
}

impl BufferPool {
    /// A pool of at most `limit` buffers of `size` bytes. None of them is made yet.
    ///
    /// # Errors
    ///
    /// `InvalidInput`: there are no bytes, or no buffers; or more bytes than one system call moves
    /// (2,147,479,552). `EINVAL` before Linux 4.14, as for pollers.
    pub fn new(size: usize, limit: usize) -> io::Result<Self> {
        let refused = |why| io::Error::new(io::ErrorKind::InvalidInput, why);
        if limit == 0 {
            return Err(refused("a pool without buffers"));
        }
        if size == 0 || size > MOST {
            return Err(refused("a pool of buffers without bytes, or with more than a call moves"));
        }
        let align = size.next_power_of_two().min(PAGE);
        let max_offset = if size < PAGE { 0 } else { PAGE - CACHE_LINE };
        let layout = Layout::from_size_align(size + max_offset, align);
        let layout = layout.map_err(|_| refused("buffers larger than any memory"))?;
        let (state, set_out, stamp) =
            (ManuallyDrop::default(), AtomicUsize::new(0), Stamp::here()?);
        Ok(BufferPool(Arc::new(Shared { size, layout, limit, state, set_out, stamp })))
    }

    /// How many bytes a buffer has.
    pub fn size(&self) -> usize {
        self.0.size
    }

    /// How many buffers there can be.
    pub fn limit(&self) -> usize {
        self.0.limit
    }

    /// How many buffers there are by now: lent, or at home.
    pub fn made(&self) -> usize {
        self.0.lock().map_or(0, |state| state.made)
    }

    /// How many of these are at home. (Those that an io_uring poller has set out for receives are
    /// not; they are at most half of the limit.)
    pub fn idle(&self) -> usize {
        self.0.lock().map_or(0, |state| state.home.len())
    }

    /// An empty buffer, unless all are lent, or there is no memory for another. In a forked child
    /// there is none.
    pub fn take(&self) -> Option<PoolBuf> {
        let block = self.0.lock().and_then(|mut state| self.take_block(&mut state));
        block.map(|block| PoolBuf::new(block, Purpose::Any))
    }

    /// The same to receive into; if there is none, `waker` is woken when one comes home.
    ///
    /// # Errors
    ///
    /// `OutOfMemory`: there is no memory for one, and none is lent that could come home. (What is
    /// set out may stay so for ever.)
    pub(crate) fn take_or_wait(&self, waker: &Waker) -> io::Result<Option<PoolBuf>> {
        let Some(mut state) = self.0.lock() else { return Ok(None) };
        let block = self.take_block(&mut state);
        let is_lent = state.made > self.0.set_out.load(Ordering::Relaxed);
        if block.is_none() && state.made < self.limit() && !is_lent {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        if block.is_none() && !state.waiting.iter().any(|other| other.will_wake(waker)) {
            state.waiting.push(waker.clone());
        }
        drop(state);
        Ok(block.map(|block| PoolBuf::new(block, Purpose::Receive)))
    }

    /// Takes up to `count` buffers that a ring can provide. It leaves half of the limit for others.
    pub(super) fn take_spare(&self, count: usize, mut take: impl FnMut(PoolBuf)) {
        let Some(mut state) = self.0.lock() else { return };
        for _ in 0..count {
            if self.0.left(&state) <= self.limit().div_ceil(2) {
                break;
            }
            let Some(block) = self.take_block(&mut state) else { break };
            self.0.set_out.fetch_add(1, Ordering::Relaxed);
            let mut buf = PoolBuf::new(block, Purpose::Receive);
            buf.is_set_out = true;
            take(buf);
        }
    }

    /// How many can be taken.
    pub(crate) fn left(&self) -> usize {
        self.0.lock().map_or(0, |state| self.0.left(&state))
    }

    /// How many can be set out at most.
    pub(super) fn most_spare(&self) -> usize {
        self.0.limit / 2
    }

    /// Returns true if this waker is woken when a buffer is returned.
    #[cfg(any(test, feature = "spi"))]
    pub(crate) fn notifies(&self, waker: &Waker) -> bool {
        // Miri gives each mention of a vtable an address of its own, so that no two wakers are one.
        let is_it = |other: &Waker| cfg!(miri) || other.will_wake(waker);
        self.0.lock().is_some_and(|state| state.waiting.iter().any(is_it))
    }

    /// Takes a block that was returned, or makes one.
    fn take_block(&self, state: &mut State) -> Option<BlockBox> {
        let had_lent = state.lent() > 0;
        let block = match state.home.pop() {
            Some(block) => block,
            None => {
                let home = NonNull::new(Arc::as_ptr(&self.0).cast_mut())?;
                let start = self.0.allocate(state)?;
                state.made += 1;
                BlockBox(NonNull::from(Box::leak(Box::new(Block { home, start }))))
            }
        };
        if !had_lent {
            // Lent buffers keep the pool alive by one count, which the last of them drops.
            std::mem::forget(self.0.clone());
        }
        Some(block)
    }

    /// Whether this process was forked from the one that made it.
    pub(crate) fn is_foreign(&self) -> bool {
        self.0.stamp.is_foreign()
    }

    /// Whether it is the same pool.
    pub(crate) fn is(&self, other: &BufferPool) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Returns true if this is the only handle, and so many buffers are lent.
    pub(super) fn is_last_handle(&self, lent: usize) -> bool {
        let Some(state) = self.0.lock() else { return false };
        Arc::strong_count(&self.0) == 1 + usize::from(lent > 0) && state.lent() == lent
    }
}

impl Shared {
    /// Not in a forked child: whoever held the lock in the parent is not there to release it.
    fn lock(&self) -> Option<MutexGuard<'_, State>> {
        // Nothing in here panics halfway.
        let lock = || self.state.lock().unwrap_or_else(PoisonError::into_inner);
        (!self.stamp.is_foreign()).then(lock)
    }

    fn left(&self, state: &State) -> usize {
        state.home.len() + (self.limit - state.made)
    }

    /// Allocates the memory of another buffer, unless there are as many as there can be.
    fn allocate(&self, state: &State) -> Option<NonNull<u8>> {
        if state.made == self.limit {
            return None;
        }
        // SAFETY: the layout has bytes.
        NonNull::new(unsafe { alloc(self.layout) })
    }

    /// Returns the number of bytes by which buffers to receive into are moved at most.
    fn max_offset(&self) -> usize {
        self.layout.size() - self.size
    }
}

impl Drop for Shared {
    /// Frees the buffers. Each was returned, for one that is lent keeps the pool.
    fn drop(&mut self) {
        if self.stamp.is_foreign() {
            return;
        }
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        for block in state.home.drain(..) {
            // SAFETY: the pointer is that of a box, whose owner is being dropped.
            let Block { start, .. } = *unsafe { Box::from_raw(block.0.as_ptr()) };
            // SAFETY: it was allocated with this layout, and only the block pointed to it.
            unsafe { dealloc(start.as_ptr(), self.layout) };
        }
        // SAFETY: the value is being lost, and nobody uses the field after this.
        unsafe { ManuallyDrop::drop(&mut self.state) };
    }
}

impl fmt::Debug for BufferPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BufferPool")
            .field("size", &self.size())
            .field("limit", &self.limit())
            .field("made", &self.made())
            .field("idle", &self.idle())
            .finish()
    }
}

/// A buffer of a [`BufferPool`]. It derefs to the bytes that are in it, and goes home when it is
/// dropped, whether or not there still is a poller.
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
    is_set_out: bool,
}

/// What a buffer was lent for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Any,
    /// It begins where [`Block::offset`] says.
    Receive,
}

// SAFETY: shared, it gives out its bytes to be read, and a pool that has its own lock.
unsafe impl Sync for PoolBuf {}

impl PoolBuf {
    fn new(block: BlockBox, purpose: Purpose) -> Self {
        PoolBuf { block, length: 0, purpose, is_set_out: false }
    }

    fn home(&self) -> &Shared {
        // SAFETY: a pool lives while buffers are lent.
        unsafe { self.block.block().home.as_ref() }
    }

    /// How many bytes can be in it: the [`size`](BufferPool::size) of its pool.
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
    pub(super) fn spare(&mut self) -> &mut [MaybeUninit<u8>] {
        let (start, length) = (self.start(), self.length as usize);
        // SAFETY: the bytes end at or before the end of the buffer.
        let start = unsafe { start.add(length) };
        // SAFETY: the block is this value's alone, and the buffer has `size` bytes, of which these
        // are the last.
        unsafe { std::slice::from_raw_parts_mut(start.cast(), self.capacity() - length) }
    }

    /// It was set out, and somebody has come.
    pub(super) fn note_taken(&mut self) {
        if std::mem::take(&mut self.is_set_out) {
            self.home().set_out.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// The next `count` bytes are in it too.
    ///
    /// # Safety
    ///
    /// They have to be written, and within the room.
    pub(super) unsafe fn note_written(&mut self, count: usize) {
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
        self.note_taken();
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

#[cfg(test)]
mod tests;
