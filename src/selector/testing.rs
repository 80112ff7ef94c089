//! What the unit tests of the mechanisms that keep nothing in the kernel have in common: the slots,
//! and what may be done to a handful of eventfds in any order.

use crate::event::Interest;
use crate::key::Slot;
use proptest::prelude::*;

/// The slot of the file at this place.
pub(super) fn slot(at: usize) -> Slot {
    Slot { index: at as u32, generation: 7 }
}

#[derive(Clone, Debug)]
pub(super) enum Op {
    Arm(usize, Interest),
    Disarm(usize),
    Remove(usize),
    /// Makes the file readable.
    Add(usize),
    /// Makes it unreadable.
    Take(usize),
    Notify,
    Wait,
}

/// Anything, to one of so many sources and for some of these directions.
pub(super) fn any_op(sources: usize, all: Interest) -> impl Strategy<Value = Op> {
    let dirs = (1..=all.bits()).prop_map(Interest::from_bits_truncate);
    prop_oneof![
        4 => (0..sources, dirs).prop_map(|(at, dirs)| Op::Arm(at, dirs)),
        3 => (0..sources).prop_map(Op::Disarm),
        1 => (0..sources).prop_map(Op::Remove),
        2 => (0..sources).prop_map(Op::Add),
        2 => (0..sources).prop_map(Op::Take),
        1 => Just(Op::Notify),
        3 => Just(Op::Wait),
    ]
}
