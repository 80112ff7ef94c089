//! Where what is received goes: into a buffer of the receive's own, or into those of one pool for
//! all connections. It is all in which the two styles differ.

use quintpoll::{Buf, BufferPool, Key, Op};
use std::io;

/// Pages of a new one into which nothing is received cost no memory.
const LENGTH: usize = 16 * 1024;
/// So many that nobody uses are kept.
const MOST_KEPT: usize = 256;
/// So many the pool has at most. They are made when they are needed.
const MOST_POOLED: usize = 4096;

#[derive(Debug)]
pub(super) enum Buffers {
    /// An idle connection has one, a busy one two: the second is lent from here.
    Own(Vec<Vec<u8>>),
    /// An idle connection has none. One that receives takes those that it needs.
    Pooled(BufferPool),
}

impl Buffers {
    pub(super) fn own() -> Self {
        Buffers::Own(Vec::new())
    }

    pub(super) fn pooled() -> io::Result<Self> {
        BufferPool::new(LENGTH, MOST_POOLED).map(Buffers::Pooled)
    }

    /// Accepts one connection, or all that come.
    pub(super) fn accept(&self, listener: Key) -> Op {
        match self {
            Buffers::Own(_) => Op::accept(listener),
            Buffers::Pooled(_) => Op::accept_multi(listener),
        }
    }

    /// How many of these are to be under way.
    pub(super) fn accepts(&self) -> usize {
        match self {
            // So many who knock together are let in by one wait.
            Buffers::Own(_) => 32,
            Buffers::Pooled(_) => 1,
        }
    }

    /// Receives once, or again and again.
    pub(super) fn receive(&mut self, key: Key) -> Op {
        match self {
            // The last given back comes first, while the caches remember it.
            Buffers::Own(kept) => Op::recv(key, kept.pop().unwrap_or_default(), LENGTH),
            Buffers::Pooled(pool) => Op::recv_multi(key, pool),
        }
    }

    /// How many buffers of a connection may be on their way back to the peer. A peer that does not
    /// read gets no more than these.
    pub(super) fn most_sends(&self) -> usize {
        match self {
            // While one is sent the next is filled.
            Buffers::Own(_) => 2,
            Buffers::Pooled(_) => 8,
        }
    }

    /// Returns true if a send has a completion although it succeeds. `unfinished` sends are before
    /// it, and `completing` of these have a completion.
    ///
    /// The buffer of a receive of its own is needed again. One of the pool returns
    /// there by itself; so only the send that uses up what the peer may leave unread has to say
    /// when it is over, and with it all before it.
    pub(super) fn tells_of_success(&self, unfinished: usize, completing: usize) -> bool {
        match self {
            Buffers::Own(_) => true,
            Buffers::Pooled(_) => completing == 0 && unfinished + 1 >= self.most_sends(),
        }
    }

    /// How many sends that complete may be under way before the peer has to read.
    pub(super) fn most_completions(&self) -> usize {
        match self {
            Buffers::Own(_) => self.most_sends(),
            Buffers::Pooled(_) => 1,
        }
    }

    /// What a connection sends when it has all the buffers that it may have. A receive that is
    /// stopped may have brought more before: if it kept these too, a few who do not read would have
    /// the whole pool.
    pub(super) fn spare(&self, surplus: Buf) -> Buf {
        match self {
            Buffers::Own(_) => surplus,
            Buffers::Pooled(_) => Buf::Vec(surplus.to_vec()),
        }
    }

    /// Buffers of the pool go home by themselves.
    pub(super) fn give_back(&mut self, buf: Buf) {
        if let (Buffers::Own(kept), Buf::Vec(mut buffer)) = (self, buf) {
            if kept.len() < MOST_KEPT {
                buffer.clear();
                kept.push(buffer);
            }
        }
    }
}
