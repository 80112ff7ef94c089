//! What the kernel has been asked and has not answered for good.

use crate::key::{OpSlot, Slot};
use crate::poll_bits::PollBits;
use crate::slab::{Slab, SlabKey};
use std::os::fd::RawFd;

/// The name of one poll. A late completion never names a later one.
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

/// In the upper half of `user_data`: this is a request to cancel a poll. (The topmost bit is the
/// ring's.)
const CANCEL: u32 = 1 << 30;
/// The same: this is a request to stop an operation.
const STOP: u32 = 1 << 29;
const GENERATIONS: u32 = STOP;

/// What a completion is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum UserData {
    /// A poll.
    Poll(Id),
    /// The request to cancel it.
    Cancel(Id),
    /// The request to stop the operation in this place.
    Stop(u32),
}

impl UserData {
    pub(super) fn to_bits(self) -> u64 {
        let (index, generation, tag) = match self {
            UserData::Poll(id) => (id.index, id.generation, 0),
            UserData::Cancel(id) => (id.index, id.generation, CANCEL),
            UserData::Stop(index) => (index, 0, STOP),
        };
        u64::from(generation | tag) << 32 | u64::from(index)
    }

    pub(super) fn from_bits(bits: u64) -> Self {
        let (index, high) = (bits as u32, (bits >> 32) as u32);
        let id = Id { index, generation: high & (GENERATIONS - 1) };
        match high & (CANCEL | STOP) {
            0 => UserData::Poll(id),
            CANCEL => UserData::Cancel(id),
            _ => UserData::Stop(index),
        }
    }
}

/// What is to be asked of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum QueuedSqe {
    /// To poll.
    Poll(Id),
    /// To cancel a poll.
    Cancel(Id),
    /// To do an operation.
    Begin(OpSlot),
    /// To stop it.
    Stop(OpSlot),
}

/// Whose poll it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    Slot(Slot),
    WakeHandle,
}

/// One poll.
#[derive(Clone, Copy, Debug)]
pub(super) struct Poll {
    pub(super) owner: Owner,
    /// The number of the file, which is open until the poll has ended.
    pub(super) number: RawFd,
    /// What it asks for.
    pub(super) bits: PollBits,
    /// It was to be cancelled: what it tells is of no interest, but for its end.
    pub(super) is_cancelled: bool,
    /// The turn in which it was submitted, if it was.
    pub(super) submitted_in: Option<u64>,
    /// The wait in which it has told something.
    pub(super) told_in: u64,
}

/// All polls of one ring, those too that were cancelled and have not ended yet.
pub(super) type PollSlab = Slab<Id, Poll>;
