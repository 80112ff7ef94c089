//! What one source has to do: its operations, in two orders, and how its file is handled.

use super::super::park::Park;
use crate::event::Interest;
use crate::key::OpSlot;
use crate::sys::manner::Manner;
use std::collections::VecDeque;

/// One of the two orders, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::reactor) enum Lane {
    Read,
    Write,
    /// All of these are at work: those at an offset of a file.
    Loose,
}

impl Lane {
    /// The readiness that its operations wait for.
    pub(in crate::reactor) fn dir(self) -> Interest {
        match self {
            Lane::Read => Interest::READABLE,
            Lane::Write => Interest::WRITABLE,
            Lane::Loose => Interest::empty(),
        }
    }
}

/// One operation's place in a lane.
#[derive(Clone, Copy, Debug)]
struct Standing {
    op: OpSlot,
    /// Counts the submissions.
    order: u64,
    /// What it has for itself (M1), also where all stand in one lane.
    dir: Interest,
}

/// The operations of one source.
#[derive(Debug)]
pub(in crate::reactor) struct Work {
    pub(in crate::reactor) park: Park,
    pub(in crate::reactor) manner: Manner,
    /// The peer has reset the connection, of which a writer heard. A reader would take it for the
    /// end of the stream.
    pub(in crate::reactor) is_reset: bool,
    /// In the order of their submission; the first of each order is at work.
    lanes: [VecDeque<Standing>; 3],
}

impl Work {
    pub(in crate::reactor) fn new(manner: Manner) -> Self {
        Work { park: Park::default(), manner, is_reset: false, lanes: Default::default() }
    }

    /// Puts an operation behind the others. Gives whether it is at work.
    pub(super) fn push(&mut self, lane: Lane, op: OpSlot, order: u64, dir: Interest) -> bool {
        let ops = &mut self.lanes[lane as usize];
        ops.push_back(Standing { op, order, dir });
        ops.len() == 1 || lane == Lane::Loose
    }

    /// The one at work in an order.
    pub(in crate::reactor) fn head(&self, lane: Lane) -> Option<OpSlot> {
        if lane == Lane::Loose {
            return None;
        }
        self.lanes[lane as usize].front().map(|standing| standing.op)
    }

    /// An operation is over, or was thrown out.
    pub(super) fn remove(&mut self, lane: Lane, op: OpSlot, order: u64) {
        let ops = &mut self.lanes[lane as usize];
        if ops.front().is_some_and(|first| first.op == op) {
            ops.pop_front();
            self.park.unpark(lane.dir());
        } else if let Ok(at) = ops.binary_search_by_key(&order, |standing| standing.order) {
            ops.remove(at);
        }
    }

    /// The directions in which there are operations.
    pub(in crate::reactor) fn dirs(&self) -> Interest {
        let all = self.lanes.iter().flatten();
        all.fold(Interest::empty(), |dirs, standing| dirs | standing.dir)
    }

    /// All operations.
    pub(super) fn all(&self) -> Vec<OpSlot> {
        self.lanes.iter().flatten().map(|standing| standing.op).collect()
    }
}

#[cfg(test)]
mod tests;
