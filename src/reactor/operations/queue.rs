//! The operations of one source: its queues, and how its file is used.

use crate::event::Interest;
use crate::key::OpSlot;
use crate::sys::file::Held;
use crate::sys::manner::Manner;
use std::collections::VecDeque;

/// One of the two orders of a source, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Queue {
    Read,
    Write,
    /// At an offset of a file: all may run at once.
    Unordered,
}

impl Queue {
    /// Returns the readiness that its operations await.
    pub(super) fn dir(self) -> Interest {
        match self {
            Queue::Read => Interest::READABLE,
            Queue::Write => Interest::WRITABLE,
            Queue::Unordered => Interest::empty(),
        }
    }
}

/// One operation in a queue.
#[derive(Clone, Copy, Debug)]
struct QueueEntry {
    op: OpSlot,
    /// Counts the submissions.
    order: u64,
    /// The direction that it occupies (M1), which need not be that of its queue.
    dir: Interest,
}

/// The operations of one source.
#[derive(Debug)]
pub(super) struct SourceOps {
    pub(super) fd: Held,
    pub(super) mode: Manner,
    /// The peer has reset the connection, and a send was told so. A receive would take it for the
    /// end of the stream.
    pub(super) is_reset: bool,
    /// The driver must not have what reads.
    pub(super) emulates_reads: bool,
    /// In the order of submission.
    queues: [VecDeque<QueueEntry>; 3],
}

impl SourceOps {
    pub(super) fn new(fd: Held, mode: Manner, interest: Interest) -> Self {
        let emulates_reads = interest.contains(Interest::PRIORITY);
        SourceOps { fd, mode, is_reset: false, emulates_reads, queues: Default::default() }
    }

    pub(super) fn push(&mut self, queue: Queue, op: OpSlot, order: u64, dir: Interest) {
        self.queues[queue as usize].push_back(QueueEntry { op, order, dir });
    }

    /// Returns the first of an order.
    pub(super) fn head(&self, queue: Queue) -> Option<OpSlot> {
        if queue == Queue::Unordered {
            return None;
        }
        self.queues[queue as usize].front().map(|entry| entry.op)
    }

    /// Returns true if something is behind the head of an order.
    pub(super) fn has_successor(&self, queue: Queue) -> bool {
        self.queues[queue as usize].len() > 1
    }

    pub(super) fn remove(&mut self, queue: Queue, op: OpSlot, order: u64) {
        let entries = &mut self.queues[queue as usize];
        if entries.front().is_some_and(|first| first.op == op) {
            entries.pop_front();
        } else if let Ok(at) = entries.binary_search_by_key(&order, |entry| entry.order) {
            entries.remove(at);
        }
    }

    /// Returns the operations of one queue, in the order of submission.
    #[cfg(any(test, feature = "spi"))]
    pub(super) fn queue(&self, queue: Queue) -> impl Iterator<Item = OpSlot> {
        self.queues[queue as usize].iter().map(|entry| entry.op)
    }

    /// Returns the directions that operations occupy.
    pub(super) fn dirs(&self) -> Interest {
        let all = self.queues.iter().flatten();
        all.fold(Interest::empty(), |dirs, entry| dirs | entry.dir)
    }

    /// Returns all operations.
    pub(super) fn all(&self) -> Vec<OpSlot> {
        self.queues.iter().flatten().map(|entry| entry.op).collect()
    }
}

#[cfg(test)]
mod tests;
