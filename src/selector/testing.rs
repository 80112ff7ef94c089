//! Helpers of selector unit tests: slots, and random operations on a few eventfds.

use crate::event::Interest;
use crate::key::Slot;
use proptest::prelude::*;

/// Returns the slot of the file at this index.
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
    /// Makes the file unreadable.
    Take(usize),
    Notify,
    Wait,
}

/// Generates an operation on one of `sources` files, for some of the directions `all`.
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
