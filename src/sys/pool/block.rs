//! The memory of one buffer.

use super::Shared;
use std::alloc::{Layout, alloc, dealloc};
use std::ptr::NonNull;

/// A large buffer begins at a multiple of this, as files opened with `O_DIRECT` want it.
pub(super) const PAGE: usize = 4096;
/// The size of a line of the processor's cache.
pub(super) const CACHE_LINE: usize = 64;

/// The memory of one buffer, and its pool. It lies in a heap cell of its own, so that a
/// [`PoolBuf`](super::PoolBuf) is 16 bytes long.
pub(super) struct Block {
    pub(super) home: NonNull<Shared>,
    /// Memory of the pool's layout, which nothing else points to.
    pub(super) start: NonNull<u8>,
}

/// The owner of a block.
pub(super) struct BlockBox(pub(super) NonNull<Block>);

// SAFETY: it owns the block alone, as a box would, and the pool may be shared by threads.
unsafe impl Send for BlockBox {}

impl Block {
    /// Returns where in the block to receive: in another line of a page than its neighbours. The
    /// first lines of all pages share a few places in the processor's cache, and most of what
    /// arrives is short.
    pub(super) fn offset(&self) -> usize {
        let page = self.start.as_ptr().addr() / PAGE;
        page % (PAGE / CACHE_LINE) * CACHE_LINE
    }
}

impl BlockBox {
    /// Allocates a block of a pool. Returns `None` if there is no memory.
    ///
    /// # Safety
    ///
    /// The layout has bytes.
    pub(super) unsafe fn allocate(home: NonNull<Shared>, layout: Layout) -> Option<Self> {
        // SAFETY: the caller vouches for the layout.
        let start = NonNull::new(unsafe { alloc(layout) })?;
        Some(BlockBox(NonNull::from(Box::leak(Box::new(Block { home, start })))))
    }

    /// Frees the block.
    ///
    /// # Safety
    ///
    /// The block was allocated with this layout.
    pub(super) unsafe fn free(self, layout: Layout) {
        // SAFETY: the pointer is that of a box, whose owner is this value.
        let Block { start, .. } = *unsafe { Box::from_raw(self.0.as_ptr()) };
        // SAFETY: the caller vouches for the layout, and only the block pointed to the memory.
        unsafe { dealloc(start.as_ptr(), layout) };
    }

    pub(super) fn block(&self) -> &Block {
        // SAFETY: the block lives as long as this value, which owns it.
        unsafe { self.0.as_ref() }
    }
}
