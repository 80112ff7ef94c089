//! The polls that have not ended, and the `user_data` of SQEs.

use crate::key::{OpSlot, Slot};
use crate::poll_bits::PollBits;
use crate::slab::{Slab, SlabKey};
use std::os::fd::RawFd;

/// The key of one poll. A late CQE never names a later poll.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Id {
    index: u32,
    /// Below [`GENERATIONS`].
    generation: u32,
}

impl SlabKey for Id {
    const MAX_GENERATION: u32 = GENERATIONS - 1;

    fn new(index: u32, generation: u32) -> Self {
        Id { index, generation }
    }

    fn index(self) -> u32 {
        self.index
    }

    fn generation(self) -> u32 {
        self.generation
    }
}

/// A bit in the upper half of `user_data`: the SQE cancels a poll. (The top bit belongs to the
/// ring.)
const CANCEL: u32 = 1 << 30;
/// A bit in the upper half of `user_data`: the SQE cancels an operation.
const CANCEL_OP: u32 = 1 << 29;
const GENERATIONS: u32 = CANCEL_OP;

/// The subject of a CQE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum UserData {
    /// A poll.
    Poll(Id),
    /// The cancel of a poll.
    Cancel(Id),
    /// The cancel of the operation at this index.
    CancelOp(u32),
}

impl UserData {
    pub(super) fn to_bits(self) -> u64 {
        let (index, generation, tag) = match self {
            UserData::Poll(id) => (id.index, id.generation, 0),
            UserData::Cancel(id) => (id.index, id.generation, CANCEL),
            UserData::CancelOp(index) => (index, 0, CANCEL_OP),
        };
        u64::from(generation | tag) << 32 | u64::from(index)
    }

    pub(super) fn from_bits(bits: u64) -> Self {
        let (index, high) = (bits as u32, (bits >> 32) as u32);
        let id = Id { index, generation: high & (GENERATIONS - 1) };
        match high & (CANCEL | CANCEL_OP) {
            0 => UserData::Poll(id),
            CANCEL => UserData::Cancel(id),
            _ => UserData::CancelOp(index),
        }
    }
}

/// An SQE that was not pushed to the ring yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum QueuedSqe {
    /// Arms a poll.
    Poll(Id),
    /// Cancels a poll.
    Cancel(Id),
    /// Submits an operation.
    Submit(OpSlot),
    /// Cancels an operation.
    CancelOp(OpSlot),
}

/// The owner of a poll.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    Slot(Slot),
    WakeHandle,
}

/// One poll.
#[derive(Clone, Copy, Debug)]
pub(super) struct Poll {
    pub(super) owner: Owner,
    /// The descriptor, which is open until the poll has ended.
    pub(super) fd: RawFd,
    /// The requested bits.
    pub(super) bits: PollBits,
    /// A cancel was requested: only the end of the poll matters.
    pub(super) is_cancelled: bool,
    /// The number of the enter that submitted the poll.
    pub(super) submitted_in: Option<u64>,
    /// The number of the wait in which it last completed.
    pub(super) reported_in: u64,
}

/// All polls of one ring, including cancelled ones that have not ended yet.
pub(super) type PollSlab = Slab<Id, Poll>;
