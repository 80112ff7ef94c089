//! The memory of one buffer.

use super::Shared;
use std::alloc::{Layout, alloc, dealloc};
use std::ptr::NonNull;

/// The alignment of a large buffer, as files opened with `O_DIRECT` require it.
pub(super) const PAGE: usize = 4096;
/// The size of a cache line.
pub(super) const CACHE_LINE: usize = 64;

/// The memory of one buffer, and its pool. A heap cell of its own, so that a
/// [`PoolBuf`](super::PoolBuf) is 16 bytes long.
pub(super) struct Block {
    pub(super) pool: NonNull<Shared>,
    /// Memory of the pool's layout, to which nothing else points.
    pub(super) start: NonNull<u8>,
}

/// The owner of a block.
pub(super) struct BlockBox(pub(super) NonNull<Block>);

// SAFETY: this value owns the block, as a box would, and threads may share the pool.
unsafe impl Send for BlockBox {}

impl Block {
    /// Returns the offset at which to receive: another cache line of the page than in neighbouring
    /// blocks. The first lines of all pages compete for a few cache sets, and most received data is
    /// short.
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
    /// The layout's size must not be 0.
    pub(super) unsafe fn allocate(pool: NonNull<Shared>, layout: Layout) -> Option<Self> {
        // SAFETY: the caller vouches for the layout.
        let start = NonNull::new(unsafe { alloc(layout) })?;
        Some(BlockBox(NonNull::from(Box::leak(Box::new(Block { pool, start })))))
    }

    /// Frees the block.
    ///
    /// # Safety
    ///
    /// The block must have been allocated with this layout.
    pub(super) unsafe fn free(self, layout: Layout) {
        // SAFETY: the pointer is that of a box, which this value owns.
        let Block { start, .. } = *unsafe { Box::from_raw(self.0.as_ptr()) };
        // SAFETY: the caller vouches for the layout, and only the block pointed to the memory.
        unsafe { dealloc(start.as_ptr(), layout) };
    }

    pub(super) fn block(&self) -> &Block {
        // SAFETY: this value owns the block.
        unsafe { self.0.as_ref() }
    }
}
