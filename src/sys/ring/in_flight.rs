//! The operations that a kernel has: their memory is nobody else's until they are over.

use super::super::prepared::{Call, Prepared};
use crate::slab::{Slab, SlabKey};
use std::sync::atomic::{AtomicUsize, Ordering};

/// How many operations were not over when their ring was closed, in this process.
static LEAKED: AtomicUsize = AtomicUsize::new(0);

/// How many buffers were left to the kernel for good, because their operations were not over within
/// a second after their poller was dropped.
///
/// Closing a ring does not stop what it is at: a read from a disk or from a network file system
/// that does not answer goes on, and would write into memory that is somebody else's by then. So
/// such a buffer is never freed. For a program that does its I/O on sockets, pipes and terminals
/// this stays 0.
///
/// ```
/// assert_eq!(quintpoll::leaked_buffers(), 0);
/// ```
pub fn leaked_buffers() -> usize {
    LEAKED.load(Ordering::Relaxed)
}

/// The name of an operation to the kernel. It leaves the topmost bit of 64 free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ticket {
    index: u32,
    generation: u32,
}

impl Ticket {
    fn to_bits(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    fn from_bits(bits: u64) -> Self {
        Ticket { index: bits as u32, generation: (bits >> 32) as u32 }
    }
}

impl SlabKey for Ticket {
    const MAX_GENERATION: u32 = (1 << 31) - 1;

    fn new(index: u32, generation: u32) -> Self {
        Ticket { index, generation }
    }

    fn index(self) -> u32 {
        self.index
    }

    fn generation(self) -> u32 {
        self.generation
    }
}

#[derive(Debug)]
struct Operation {
    tag: u64,
    /// Where its buffers come from, if they come from a pool.
    group: u16,
    prepared: Prepared,
}

/// All operations that one ring has been given and that are not over.
#[derive(Debug, Default)]
pub(super) struct InFlight(Slab<Ticket, Operation>);

impl InFlight {
    /// Adds an operation, with a tag that comes back with it. What its entry points to stays where
    /// it is: the bytes and the message are boxed.
    pub(super) fn insert(
        &mut self,
        prepared: Prepared,
        tag: u64,
        group: u16,
    ) -> (u64, &mut Prepared) {
        let (ticket, operation) = self.0.insert(Operation { tag, group, prepared });
        (ticket.to_bits(), &mut operation.prepared)
    }

    /// Returns the tag, call and group of an operation.
    pub(super) fn get(&self, ticket: u64) -> Option<(u64, Call, u16)> {
        let Operation { tag, group, prepared } = self.0.get(Ticket::from_bits(ticket))?;
        Some((*tag, prepared.call(), *group))
    }

    /// Takes an operation out, which is over, and returns its tag too.
    pub(super) fn remove(&mut self, ticket: u64) -> Option<(u64, Prepared)> {
        let operation = self.0.remove(Ticket::from_bits(ticket))?;
        Some((operation.tag, operation.prepared))
    }

    /// Leaves the memory of all operations to the kernel, and returns how many there were.
    pub(super) fn leak(&mut self) -> usize {
        let count = self.0.drain().map(std::mem::forget).count();
        LEAKED.fetch_add(count, Ordering::Relaxed);
        count
    }
}

#[cfg(test)]
mod tests;
