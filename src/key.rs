//! Names of registrations: the selector's [`Slot`] and the user's [`Key`].

use crate::slab::SlabKey;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};

/// One use of one place in the registry: an index and a generation.
///
/// A slot travels through the kernel as a 64-bit number ([`Slot::to_bits`]), so that a report about
/// an earlier use of the same index is recognised by its generation and never charged to a later
/// one.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Slot {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

impl Slot {
    /// The largest index a slot can have. `u64::MAX` is thereby never a slot's number, and
    /// selectors may use it for their own wake-up source.
    pub const MAX_INDEX: u32 = u32::MAX - 1;

    /// The place in the registry: small, dense, reused by later registrations.
    pub fn index(self) -> usize {
        self.index as usize
    }

    /// The number to hand to the kernel.
    pub fn to_bits(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    /// The slot behind a number that [`Slot::to_bits`] gave.
    pub fn from_bits(bits: u64) -> Self {
        Slot { index: bits as u32, generation: (bits >> 32) as u32 }
    }
}

impl SlabKey for Slot {
    const MAX_INDEX: u32 = Slot::MAX_INDEX;

    fn new(index: u32, generation: u32) -> Self {
        Slot { index, generation }
    }

    fn index(self) -> u32 {
        self.index
    }

    fn generation(self) -> u32 {
        self.generation
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.index, self.generation)
    }
}

/// One use of one place among the operations, likewise.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpSlot {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

impl OpSlot {
    /// The place among the operations: small, dense, reused by later ones.
    pub fn index(self) -> usize {
        self.index as usize
    }

    /// A number that [`OpSlot::from_bits`] understands.
    pub fn to_bits(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    /// The slot behind a number that [`OpSlot::to_bits`] gave.
    pub fn from_bits(bits: u64) -> Self {
        OpSlot { index: bits as u32, generation: (bits >> 32) as u32 }
    }
}

impl SlabKey for OpSlot {
    fn new(index: u32, generation: u32) -> Self {
        OpSlot { index, generation }
    }

    fn index(self) -> u32 {
        self.index
    }

    fn generation(self) -> u32 {
        self.generation
    }
}

impl fmt::Debug for OpSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.index, self.generation)
    }
}

/// A poller's name for one registration.
///
/// [`Poller::register`](crate::Poller::register) gives it out and every other call on that
/// registration takes it. A key never names another registration: not one made later, and not one
/// of another poller.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key {
    pub(crate) poller: u32,
    pub(crate) slot: Slot,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({}:{:?})", self.poller, self.slot)
    }
}

/// Returns a number that no other poller of this process has.
///
/// # Errors
///
/// `Other`: there were four billion.
pub(crate) fn next_poller_id() -> io::Result<u32> {
    static NEXT_ID: AtomicU32 = AtomicU32::new(0);
    let next = NEXT_ID.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |id| id.checked_add(1));
    next.map_err(|_| io::Error::other("this process has made four billion pollers"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_round_trip_and_leave_the_all_ones_number_free() {
        for index in [0, 1, 77, Slot::MAX_INDEX] {
            for generation in [0, 1, u32::MAX] {
                let slot = Slot { index, generation };
                assert_eq!(Slot::from_bits(slot.to_bits()), slot);
                assert_ne!(slot.to_bits(), u64::MAX);
            }
        }
    }
}
