//! Identifiers of registrations: the selector's [`Slot`] and the user's [`Key`].

use crate::slab::SlabKey;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};

/// One use of one registry entry: an index and a generation.
///
/// A slot passes through the kernel as a 64-bit number ([`Slot::to_bits`]). Its generation tells a
/// report about an earlier use of the index from one about a later use.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

impl Slot {
    /// The largest index a slot can have. `u64::MAX` is therefore never a slot's number, and
    /// selectors may use it for their own wake-up source.
    pub const MAX_INDEX: u32 = u32::MAX - 1;

    /// Returns the index in the registry: small, dense, reused by later registrations.
    pub fn index(self) -> usize {
        self.index as usize
    }

    /// Returns the number to pass to the kernel.
    pub fn to_bits(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    /// Returns the slot of a number that [`Slot::to_bits`] returned.
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

/// One use of one entry of the operation table: an index and a generation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpSlot {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

impl OpSlot {
    /// Returns the index among the operations: small, dense, reused by later ones.
    pub fn index(self) -> usize {
        self.index as usize
    }

    /// Returns a number that [`OpSlot::from_bits`] converts back.
    pub fn to_bits(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    /// Returns the slot of a number that [`OpSlot::to_bits`] returned.
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

/// A poller's identifier of one registration.
///
/// [`Poller::register`](crate::Poller::register) returns it, and every other call on that
/// registration takes it. A key never names a later registration or one of another poller. Keys
/// are ordered, for use in sorted collections; the order has no meaning.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
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
    fn slot_bits_round_trip_and_are_never_all_ones() {
        for index in [0, 1, 77, Slot::MAX_INDEX] {
            for generation in [0, 1, u32::MAX] {
                let slot = Slot { index, generation };
                assert_eq!(Slot::from_bits(slot.to_bits()), slot);
                assert_ne!(slot.to_bits(), u64::MAX);
            }
        }
    }

    #[test]
    fn keys_sort_by_poller_and_slot() {
        let key = |poller, index, generation| Key { poller, slot: Slot { index, generation } };
        let sorted = [key(1, 2, 3), key(1, 2, 4), key(1, 3, 0), key(2, 0, 0)];
        let keys: std::collections::BTreeSet<_> = sorted.into_iter().rev().collect();
        assert!(keys.into_iter().eq(sorted));
    }
}
