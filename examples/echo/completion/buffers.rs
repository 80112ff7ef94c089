//! Receive buffers: one for each receive, or those of one pool for all connections. The two styles
//! differ in nothing else.

use quintpoll::{Buf, BufferPool, Key, Op};
use std::io;

/// The size of a buffer. Untouched pages of a new buffer cost no memory.
const LENGTH: usize = 16 * 1024;
/// The most unused buffers to keep.
const MAX_KEPT: usize = 256;
/// The limit of the pool, which allocates lazily.
const MAX_POOLED: usize = 4096;

#[derive(Debug)]
pub(super) enum Buffers {
    /// An idle connection has one buffer, a busy one two: the second is taken from here.
    Own(Vec<Vec<u8>>),
    /// An idle connection has no buffer. A receive takes one when data arrives.
    Pooled(BufferPool),
}

impl Buffers {
    pub(super) fn own() -> Self {
        Buffers::Own(Vec::new())
    }

    pub(super) fn pooled() -> io::Result<Self> {
        BufferPool::new(LENGTH, MAX_POOLED).map(Buffers::Pooled)
    }

    /// Returns the operation that accepts one connection, or all.
    pub(super) fn accept(&self, listener: Key) -> Op {
        match self {
            Buffers::Own(_) => Op::accept(listener),
            Buffers::Pooled(_) => Op::accept_multi(listener),
        }
    }

    /// Returns the number of accepts to keep in flight.
    pub(super) fn accepts(&self) -> usize {
        match self {
            // One wait accepts this many pending connections.
            Buffers::Own(_) => 32,
            Buffers::Pooled(_) => 1,
        }
    }

    /// Returns the operation that receives once, or repeatedly.
    pub(super) fn receive(&mut self, key: Key) -> Op {
        match self {
            // The buffer used last is still in the cache.
            Buffers::Own(kept) => Op::recv(key, kept.pop().unwrap_or_default(), LENGTH),
            Buffers::Pooled(pool) => Op::recv_multi(key, pool),
        }
    }

    /// Returns the most unfinished sends of a connection. A peer that does not read holds no more
    /// buffers than these.
    pub(super) fn max_sends(&self) -> usize {
        match self {
            // While one is sent, the next is filled.
            Buffers::Own(_) => 2,
            Buffers::Pooled(_) => 8,
        }
    }

    /// Returns true if a send has a completion although it succeeds. `unfinished` sends are before
    /// it, and `completing` of these have a completion.
    ///
    /// An own buffer is needed again. A pool buffer returns to the pool by itself. So only the send
    /// that reaches the limit needs a completion, which covers the sends before it.
    pub(super) fn needs_completion(&self, unfinished: usize, completing: usize) -> bool {
        match self {
            Buffers::Own(_) => true,
            Buffers::Pooled(_) => completing == 0 && unfinished + 1 >= self.max_sends(),
        }
    }

    /// Returns the most unfinished sends with a completion, beyond which the peer must read.
    pub(super) fn max_completions(&self) -> usize {
        match self {
            Buffers::Own(_) => self.max_sends(),
            Buffers::Pooled(_) => 1,
        }
    }

    /// Returns the buffer to send when a connection is at its limit. A cancelled receive may have
    /// delivered more buffers: if it kept these, a few peers that do not read could occupy the
    /// pool.
    pub(super) fn spare(&self, surplus: Buf) -> Buf {
        match self {
            Buffers::Own(_) => surplus,
            Buffers::Pooled(_) => Buf::Vec(surplus.to_vec()),
        }
    }

    /// Keeps an own buffer for reuse. Pool buffers return to their pool on drop.
    pub(super) fn recycle(&mut self, buf: Buf) {
        if let (Buffers::Own(kept), Buf::Vec(mut buffer)) = (self, buf) {
            if kept.len() < MAX_KEPT {
                buffer.clear();
                kept.push(buffer);
            }
        }
    }
}
