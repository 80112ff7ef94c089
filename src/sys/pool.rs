//! Buffers that are used again and again: made up to a limit, lent, and given back.
#![allow(unsafe_code)]

mod block;
mod buf;
mod surplus;

pub use buf::PoolBuf;

use super::MOST;
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

/// Buffers of one size, for [`Op::recv_multi`](crate::Op::recv_multi) and for whoever else wants
/// one. They are made when they are needed, up to a limit, and used again.
///
/// A clone is another handle on the same buffers. Handles and buffers may go to other threads.
/// Pollers may share a pool, but not all of its burden: of those that wait for a buffer the first
/// to look gets it, however long another has waited. A pool for each is fair.
///
/// Memory that a burst needed is returned while the traffic is lighter. The pool counts takes, and
/// compares what it has with what it needed:
///
/// * A period is 4 times as many takes as there are buffers, and at least 256.
/// * Buffers that were idle throughout a period were not needed. At its end half of these are
///   freed, rounded up: those that have been idle for the longest time.
/// * 16 buffers are kept in any case. So are the buffers that were not needed if they are at most
///   an eighth of all.
///
/// So a steady load allocates nothing, and bursts that follow each other within a period keep their
/// buffers. After a single burst the pool halves what it does not need each period. Buffers that
/// are provided to an io_uring poller count as lent; a poller provides fewer after a burst, and
/// none while nothing receives from the pool. A pool from which nothing is taken frees nothing:
/// call [`shrink_to_fit`](BufferPool::shrink_to_fit) when the program is quiet.
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
    /// Of a block, which has room for an offset (see [`Block::offset`](block::Block::offset)).
    layout: Layout,
    limit: usize,
    /// In a forked child it may be as another thread of the parent has left it halfway.
    state: ManuallyDrop<Mutex<State>>,
    /// How many are set out for somebody who may come.
    set_out: AtomicUsize,
    generation: ForkGeneration,
}

#[derive(Default)]
struct State {
    /// The buffers that can be lent. The last that came home is the first, because it is still in
    /// the cache.
    home: Vec<BlockBox>,
    /// How many buffers were made.
    made: usize,
    surplus: Surplus,
    /// Wakes the pollers that wait for a buffer, one waker for each.
    waiting: Vec<Waker>,
    /// Counts allocations of buffers.
    #[cfg(test)]
    allocations: usize,
}

impl State {
    fn lent(&self) -> usize {
        self.made - self.home.len()
    }

    /// Removes the `count` buffers that have been idle for the longest time. The rest has room for
    /// all that are lent, and no more, so the list shrinks with the pool.
    fn remove_coldest(&mut self, count: usize) -> Vec<BlockBox> {
        self.made -= count;
        let mut kept = Vec::with_capacity(self.made);
        kept.extend(self.home.drain(count..));
        std::mem::replace(&mut self.home, kept)
    }

    fn begin_period(&mut self) {
        self.surplus.begin(self.made, self.home.len());
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
        let (state, set_out, generation) =
            (ManuallyDrop::default(), AtomicUsize::new(0), ForkGeneration::current()?);
        Ok(BufferPool(Arc::new(Shared { size, layout, limit, state, set_out, generation })))
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
        let mut state = self.0.lock()?;
        let block = self.take_block(&mut state);
        self.0.unlock(state);
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
            let cause = "there is no memory for a buffer of the pool, and none is lent that could \
                         come back";
            return Err(io::Error::new(io::ErrorKind::OutOfMemory, cause));
        }
        // The vtable of a clone may have another address, so `will_wake` could miss it.
        let is_it = |other: &Waker| other.data() == waker.data();
        if block.is_none() && !state.waiting.iter().any(is_it) {
            state.waiting.push(waker.clone());
        }
        self.0.unlock(state);
        Ok(block.map(|block| PoolBuf::new(block, Purpose::Receive)))
    }

    /// Takes up to `count` buffers that a ring can provide. It leaves half of the limit for others.
    pub(super) fn take_spare(&self, count: usize, mut take: impl FnMut(PoolBuf)) {
        let Some(mut state) = self.0.lock() else { return };
        let mut taken = 0;
        while taken < count && self.0.left(&state) > self.limit().div_ceil(2) {
            let Some(block) = self.take_block(&mut state) else { break };
            taken += 1;
            let mut buf = PoolBuf::new(block, Purpose::Receive);
            buf.is_set_out = true;
            take(buf);
        }
        self.0.set_out.fetch_add(taken, Ordering::Relaxed);
        self.0.unlock(state);
    }

    /// Notes that the kernel has taken so many of the buffers that were set out.
    pub(super) fn note_taken(&self, count: usize) {
        self.0.set_out.fetch_sub(count, Ordering::Relaxed);
    }

    /// Frees all idle buffers now. Buffers that are lent or provided to a ring are kept, and return
    /// to the pool as before.
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
    /// assert_eq!((pool.made(), pool.idle()), (1, 0));
    /// # Ok(())
    /// # }
    /// ```
    pub fn shrink_to_fit(&self) {
        let Some(mut state) = self.0.lock() else { return };
        let idle = std::mem::take(&mut state.home);
        state.made -= idle.len();
        state.begin_period();
        drop(state);
        self.0.free(idle);
    }

    /// How many can be taken.
    pub(crate) fn left(&self) -> usize {
        self.0.lock().map_or(0, |state| self.0.left(&state))
    }

    /// How many can be set out at most.
    pub(super) fn most_spare(&self) -> usize {
        self.0.limit / 2
    }

    /// Drops the waker of a poller that waits no more.
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

    /// Takes a block that was returned, or makes one.
    fn take_block(&self, state: &mut State) -> Option<BlockBox> {
        let had_lent = state.lent() > 0;
        let block = match state.home.pop() {
            Some(block) => block,
            None => {
                if state.made == self.0.limit {
                    return None;
                }
                let home = NonNull::new(Arc::as_ptr(&self.0).cast_mut())?;
                // SAFETY: `new` refuses buffers without bytes.
                let block = unsafe { BlockBox::allocate(home, self.0.layout) }?;
                state.made += 1;
                #[cfg(test)]
                {
                    state.allocations += 1;
                }
                block
            }
        };
        state.surplus.note_take(state.home.len());
        if !had_lent {
            // Lent buffers keep the pool alive by one count, which the last of them drops.
            std::mem::forget(self.0.clone());
        }
        Some(block)
    }

    /// Whether this process was forked from the one that made it.
    pub(crate) fn is_forked_child(&self) -> bool {
        self.0.generation.is_forked_child()
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
        (!self.generation.is_forked_child()).then(lock)
    }

    /// Releases the lock after buffers were taken. Ends the period if that is due.
    fn unlock(&self, state: MutexGuard<'_, State>) {
        if state.surplus.is_due() {
            self.end_period(state);
        }
    }

    /// Frees part of what the period did not need, after the lock was released.
    #[cold]
    fn end_period(&self, mut state: MutexGuard<'_, State>) {
        let count = state.surplus.count(state.made);
        let coldest = if count > 0 { state.remove_coldest(count) } else { Vec::new() };
        state.begin_period();
        drop(state);
        self.free(coldest);
    }

    fn free(&self, blocks: Vec<BlockBox>) {
        for block in blocks {
            // SAFETY: `take_block` has allocated it with this layout.
            unsafe { block.free(self.layout) };
        }
    }

    fn left(&self, state: &State) -> usize {
        state.home.len() + (self.limit - state.made)
    }

    /// Returns the number of bytes by which buffers to receive into are moved at most.
    fn max_offset(&self) -> usize {
        self.layout.size() - self.size
    }
}

impl Drop for Shared {
    /// Frees the buffers. Each was returned, for one that is lent keeps the pool.
    fn drop(&mut self) {
        if self.generation.is_forked_child() {
            return;
        }
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        let home = std::mem::take(&mut state.home);
        self.free(home);
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

#[cfg(test)]
mod tests;
