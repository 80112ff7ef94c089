//! Pools of buffers, which are allocated up to a limit and reused.
#![allow(unsafe_code)]

mod block;
mod buf;
mod surplus;

pub use buf::PoolBuf;

use super::MAX_TRANSFER;
use super::fork::ForkGeneration;
use block::{BlockBox, CACHE_LINE, PAGE};
use buf::Purpose;
use std::alloc::Layout;
use std::fmt;
use std::io;
use std::mem::ManuallyDrop;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use surplus::Surplus;

/// A pool of buffers of one size, for [`Op::recv_multi`](crate::Op::recv_multi) and other uses.
/// Buffers are allocated when they are needed, up to a limit, and reused.
///
/// A clone is another handle of the same pool. Handles and buffers may be sent to other threads.
/// Pollers may share a pool, but not fairly: the first to ask gets a returned buffer, however long
/// another has waited. A pool for each poller is fair.
///
/// Memory that a burst needed is freed while the traffic is lighter. The pool counts takes, and
/// compares what it has with what it needed:
///
/// * A period is 4 times as many takes as there are buffers, and at least 256.
/// * Buffers that were idle throughout a period were not needed. At its end half of these are
///   freed, rounded up: those that have been idle for the longest time.
/// * 16 buffers are kept in any case. So are the buffers that were not needed if they are at most
///   an eighth of all.
///
/// So a steady load allocates nothing, and bursts within one period keep their buffers. After a
/// single burst the pool halves its surplus each period. Buffers provided to an io_uring poller
/// count as in use. A poller provides fewer after a burst, and none while nothing receives from the
/// pool. A pool from which nothing is taken frees nothing: call
/// [`shrink_to_fit`](BufferPool::shrink_to_fit) when the program is quiet.
///
/// The alignment of a [taken](BufferPool::take) buffer is its size, rounded up to a power of two,
/// and at most 4096. A size of 4096 or a multiple suits files opened with `O_DIRECT`. The alignment
/// of a buffer received into is 64, if its size is 4096 or more.
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// use quintpoll::BufferPool;
/// let pool = BufferPool::new(4096, 2)?;
/// let (one, two) = (pool.take(), pool.take());
/// assert!(one.is_some() && two.is_some());
/// assert!(pool.take().is_none(), "the limit is reached");
/// drop(one);
/// assert!(pool.take().is_some(), "the buffer was returned");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct BufferPool(Arc<Shared>);

struct Shared {
    /// The bytes of a buffer.
    size: usize,
    /// The layout of a block: a buffer and its [`Block::offset`](block::Block::offset).
    layout: Layout,
    limit: usize,
    /// Not used in a forked child: another thread of the parent may have been changing it.
    state: ManuallyDrop<Mutex<State>>,
    /// Counts the buffers provided to rings.
    provided: AtomicUsize,
    generation: ForkGeneration,
}

#[derive(Default)]
struct State {
    /// The free buffers. The last returned is reused first: it is still in the cache.
    free: Vec<BlockBox>,
    /// Counts the allocated buffers.
    made: usize,
    surplus: Surplus,
    /// One waker for each poller that waits for a buffer.
    waiting: Vec<Waker>,
    /// Counts allocations of buffers.
    #[cfg(test)]
    allocations: usize,
}

impl State {
    fn in_use(&self) -> usize {
        self.made - self.free.len()
    }

    /// Removes the `count` buffers that have been idle for the longest time. Shrinks the list to
    /// the capacity for all buffers.
    fn remove_oldest(&mut self, count: usize) -> Vec<BlockBox> {
        self.made -= count;
        let mut kept = Vec::with_capacity(self.made);
        kept.extend(self.free.drain(count..));
        std::mem::replace(&mut self.free, kept)
    }

    fn begin_period(&mut self) {
        self.surplus.begin(self.made, self.free.len());
    }
}

impl BufferPool {
    /// Makes a pool of at most `limit` buffers of `size` bytes. Allocates no buffer yet.
    ///
    /// # Errors
    ///
    /// `InvalidInput`: `limit` or `size` is 0, or `size` exceeds what one system call moves
    /// (2,147,479,552). `EINVAL` before Linux 4.14, as for pollers.
    pub fn new(size: usize, limit: usize) -> io::Result<Self> {
        let refused = |why| io::Error::new(io::ErrorKind::InvalidInput, why);
        if limit == 0 {
            return Err(refused("a pool needs at least one buffer"));
        }
        if size == 0 || size > MAX_TRANSFER {
            return Err(refused("a pool's buffers have 1 to 2147479552 bytes"));
        }
        let align = size.next_power_of_two().min(PAGE);
        let max_offset = if size < PAGE { 0 } else { PAGE - CACHE_LINE };
        let layout = Layout::from_size_align(size + max_offset, align);
        let layout = layout.map_err(|_| refused("the buffers exceed the address space"))?;
        Ok(BufferPool(Arc::new(Shared {
            size,
            layout,
            limit,
            state: ManuallyDrop::default(),
            provided: AtomicUsize::new(0),
            generation: ForkGeneration::current()?,
        })))
    }

    /// Returns the bytes of a buffer.
    pub fn size(&self) -> usize {
        self.0.size
    }

    /// Returns the maximum number of buffers.
    pub fn limit(&self) -> usize {
        self.0.limit
    }

    /// Returns the number of allocated buffers, in use or free.
    pub fn allocated(&self) -> usize {
        self.0.lock().map_or(0, |state| state.made)
    }

    /// Returns the number of free buffers. Buffers provided to io_uring pollers, at most half of
    /// the limit, are not free.
    pub fn available(&self) -> usize {
        self.0.lock().map_or(0, |state| state.free.len())
    }

    /// Returns an empty buffer, or `None` if all are in use, if there is no memory for another, or
    /// in a forked child.
    pub fn take(&self) -> Option<PoolBuf> {
        let mut state = self.0.lock()?;
        let block = self.take_block(&mut state);
        self.0.unlock(state);
        block.map(|block| PoolBuf::new(block, Purpose::Any))
    }

    /// Returns a buffer to receive into. If there is none, `waker` is woken when one is returned.
    ///
    /// # Errors
    ///
    /// `OutOfMemory`: none can be allocated, and none is in use that will be returned. (A buffer
    /// provided to a ring may stay there without limit.)
    pub(crate) fn take_or_wait(&self, waker: &Waker) -> io::Result<Option<PoolBuf>> {
        let Some(mut state) = self.0.lock() else { return Ok(None) };
        let block = self.take_block(&mut state);
        let is_in_use = state.made > self.0.provided.load(Ordering::Relaxed);
        if block.is_none() && state.made < self.limit() && !is_in_use {
            let cause = "no memory for a buffer of the pool, and none is in use that could be \
                         returned";
            return Err(io::Error::new(io::ErrorKind::OutOfMemory, cause));
        }
        // `will_wake` also compares vtables, whose addresses may differ between clones.
        let is_it = |other: &Waker| other.data() == waker.data();
        if block.is_none() && !state.waiting.iter().any(is_it) {
            state.waiting.push(waker.clone());
        }
        self.0.unlock(state);
        Ok(block.map(|block| PoolBuf::new(block, Purpose::Receive)))
    }

    /// Takes up to `count` buffers for a ring to provide. Leaves half of the limit for other uses.
    pub(super) fn take_for_ring(&self, count: usize, mut take: impl FnMut(PoolBuf)) {
        let Some(mut state) = self.0.lock() else { return };
        let mut taken = 0;
        while taken < count && self.0.left(&state) > self.limit().div_ceil(2) {
            let Some(block) = self.take_block(&mut state) else { break };
            taken += 1;
            let mut buf = PoolBuf::new(block, Purpose::Receive);
            buf.is_provided = true;
            take(buf);
        }
        self.0.provided.fetch_add(taken, Ordering::Relaxed);
        self.0.unlock(state);
    }

    /// Notes that the kernel has taken `count` provided buffers.
    pub(super) fn note_taken(&self, count: usize) {
        self.0.provided.fetch_sub(count, Ordering::Relaxed);
    }

    /// Frees all idle buffers now. Buffers that are in use, or provided to a ring, return to the
    /// pool later as usual.
    ///
    /// The pool frees buffers by itself only while others are taken. Call this when no more traffic
    /// is expected for a while.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// use quintpoll::BufferPool;
    /// let pool = BufferPool::new(4096, 100)?;
    /// let mut bufs: Vec<_> = std::iter::from_fn(|| pool.take()).collect();
    /// bufs.truncate(1);
    /// pool.shrink_to_fit();
    /// assert_eq!((pool.allocated(), pool.available()), (1, 0));
    /// # Ok(())
    /// # }
    /// ```
    pub fn shrink_to_fit(&self) {
        let Some(mut state) = self.0.lock() else { return };
        let idle = std::mem::take(&mut state.free);
        state.made -= idle.len();
        state.begin_period();
        drop(state);
        self.0.free(idle);
    }

    /// Returns the number of buffers that can be taken.
    pub(crate) fn left(&self) -> usize {
        self.0.lock().map_or(0, |state| self.0.left(&state))
    }

    /// Returns the maximum number of buffers provided to rings.
    pub(super) fn max_provided(&self) -> usize {
        self.0.limit / 2
    }

    /// Drops the waker of a poller that has stopped waiting.
    pub(crate) fn stop_notifying(&self, waker: &Waker) {
        let Some(mut state) = self.0.lock() else { return };
        let at = state.waiting.iter().position(|other| other.data() == waker.data());
        let removed = at.map(|at| state.waiting.swap_remove(at));
        drop(state);
        drop(removed);
    }

    /// Returns true if this waker is woken when a buffer is returned.
    #[cfg(any(test, feature = "spi"))]
    pub(crate) fn notifies(&self, waker: &Waker) -> bool {
        let is_it = |other: &Waker| other.data() == waker.data();
        self.0.lock().is_some_and(|state| state.waiting.iter().any(is_it))
    }

    /// Takes a free block, or allocates one.
    fn take_block(&self, state: &mut State) -> Option<BlockBox> {
        let had_in_use = state.in_use() > 0;
        let block = match state.free.pop() {
            Some(block) => block,
            None => {
                if state.made == self.0.limit {
                    return None;
                }
                let pool = NonNull::new(Arc::as_ptr(&self.0).cast_mut())?;
                // SAFETY: `new` refuses a size of 0.
                let block = unsafe { BlockBox::allocate(pool, self.0.layout) }?;
                state.made += 1;
                #[cfg(test)]
                {
                    state.allocations += 1;
                }
                block
            }
        };
        state.surplus.note_take(state.free.len());
        if !had_in_use {
            // Buffers in use hold one reference count, which the last of them drops.
            std::mem::forget(self.0.clone());
        }
        Some(block)
    }

    /// Returns true if this process is a forked child of the one that made the pool.
    pub(crate) fn is_forked_child(&self) -> bool {
        self.0.generation.is_forked_child()
    }

    /// Returns true if both are handles of one pool.
    pub(crate) fn is(&self, other: &BufferPool) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Returns true if this is the only handle, and exactly `in_use` buffers are in use.
    pub(super) fn is_last_handle(&self, in_use: usize) -> bool {
        let Some(state) = self.0.lock() else { return false };
        Arc::strong_count(&self.0) == 1 + usize::from(in_use > 0) && state.in_use() == in_use
    }
}

impl Shared {
    /// Returns `None` in a forked child: the parent's thread that held the lock does not exist.
    fn lock(&self) -> Option<MutexGuard<'_, State>> {
        // Nothing panics while it holds the lock.
        let lock = || self.state.lock().unwrap_or_else(PoisonError::into_inner);
        (!self.generation.is_forked_child()).then(lock)
    }

    /// Releases the lock after buffers were taken. Ends the period if it is due.
    fn unlock(&self, state: MutexGuard<'_, State>) {
        if state.surplus.is_due() {
            self.end_period(state);
        }
    }

    /// Releases the lock, and frees part of what the period did not need.
    #[cold]
    fn end_period(&self, mut state: MutexGuard<'_, State>) {
        let count = state.surplus.count(state.made);
        let oldest = if count > 0 { state.remove_oldest(count) } else { Vec::new() };
        state.begin_period();
        drop(state);
        self.free(oldest);
    }

    fn free(&self, blocks: Vec<BlockBox>) {
        for block in blocks {
            // SAFETY: `take_block` has allocated the block with this layout.
            unsafe { block.free(self.layout) };
        }
    }

    fn left(&self, state: &State) -> usize {
        state.free.len() + (self.limit - state.made)
    }

    /// Returns the maximum offset of a buffer to receive into.
    fn max_offset(&self) -> usize {
        self.layout.size() - self.size
    }
}

impl Drop for Shared {
    /// Frees the buffers. All were returned: one in use keeps the pool alive.
    fn drop(&mut self) {
        if self.generation.is_forked_child() {
            return;
        }
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        let free = std::mem::take(&mut state.free);
        self.free(free);
        // SAFETY: the value is being dropped, and the field is not used again.
        unsafe { ManuallyDrop::drop(&mut self.state) };
    }
}

impl fmt::Debug for BufferPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BufferPool")
            .field("size", &self.size())
            .field("limit", &self.limit())
            .field("allocated", &self.allocated())
            .field("available", &self.available())
            .finish()
    }
}

#[cfg(test)]
mod tests;
