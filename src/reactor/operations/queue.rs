//! The operations of one source: its queues, and the state of its file.
//!
//! A queue is a list linked through the entries of its operations ([`Links`]) by the table.

use crate::event::Interest;
use crate::key::OpSlot;
use crate::op::Kind;
use crate::sys::io_mode::FdIoMode;
use std::net::Shutdown;
use std::num::NonZeroU32;
use std::os::fd::RawFd;

/// A queue of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Queue {
    Read,
    Write,
    /// For operations at an offset: all may run concurrently.
    Unordered,
}

impl Queue {
    pub(super) const ALL: [Queue; 3] = [Queue::Read, Queue::Write, Queue::Unordered];

    /// Returns the queue of a kind of operation in its source.
    pub(super) fn of(kind: Kind) -> Self {
        use Kind::{
            Accept, AcceptMulti, Connect, Nop, Open, Read, ReadAt, Recv, RecvExact, RecvFrom,
            RecvMsg, RecvMulti, Send, SendAll, SendMsg, SendTo, Splice, Sync, Timeout, Write,
            WriteAt,
        };
        match kind {
            Accept | AcceptMulti | Recv | RecvExact | RecvMulti | RecvFrom | RecvMsg | Read
            | Splice => Queue::Read,
            Connect | Send | SendAll | SendTo | SendMsg | Write => Queue::Write,
            Kind::Shutdown(Shutdown::Read) => Queue::Read,
            Kind::Shutdown(Shutdown::Write | Shutdown::Both) => Queue::Write,
            ReadAt | WriteAt | Sync { .. } | Open | Timeout | Nop => Queue::Unordered,
        }
    }

    /// Returns the direction that operations of this queue await.
    pub(super) fn dir(self) -> Interest {
        match self {
            Queue::Read => Interest::READABLE,
            Queue::Write => Interest::WRITABLE,
            Queue::Unordered => Interest::empty(),
        }
    }
}

/// The index of an operation's slot plus one; `None` for no operation.
pub(super) type Link = Option<NonZeroU32>;

/// Returns the link to an operation.
pub(super) fn link_to(op: OpSlot) -> Link {
    NonZeroU32::new(op.index.wrapping_add(1))
}

/// The ends of a queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Ends {
    pub(super) first: Link,
    pub(super) last: Link,
}

impl Ends {
    /// Returns the ends of a queue with one operation.
    pub(super) fn of_one(op: OpSlot) -> Self {
        Ends { first: link_to(op), last: link_to(op) }
    }

    /// Returns true if the queue has more than one operation.
    pub(super) fn has_several(self) -> bool {
        self.first != self.last
    }
}

/// The neighbours of an operation in a queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Links {
    pub(super) previous: Link,
    pub(super) next: Link,
}

/// The operations of one source.
#[derive(Debug)]
pub(super) struct SourceOps {
    /// The file descriptor.
    pub(super) fd: RawFd,
    pub(super) mode: FdIoMode,
    /// The peer has reset the connection, and a send has reported it. A receive would see the end
    /// of the stream instead.
    pub(super) is_reset: bool,
    /// The directions that the user watches.
    pub(super) interest: Interest,
    /// Counts the unfinished operations.
    pub(super) pending: u32,
    /// The ends of each queue; a queue is in the order of submission.
    queues: [Ends; 3],
}

impl SourceOps {
    pub(super) fn new(fd: RawFd, mode: FdIoMode, interest: Interest) -> Self {
        SourceOps { fd, mode, is_reset: false, interest, pending: 0, queues: Default::default() }
    }

    pub(super) fn queue(&self, queue: Queue) -> Ends {
        self.queues[queue as usize]
    }

    pub(super) fn queue_mut(&mut self, queue: Queue) -> &mut Ends {
        &mut self.queues[queue as usize]
    }

    /// Returns true if the driver must not get operations of a queue: a receive waiting in a ring
    /// consumes a lone urgent byte.
    pub(super) fn emulates(&self, queue: Queue) -> bool {
        queue == Queue::Read && self.interest.contains(Interest::PRIORITY)
    }
}

#[cfg(test)]
mod tests;
