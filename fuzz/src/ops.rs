//! Operations: random [scripts](script::Script) of submits, cancels, deadlines and drops, played to
//! all backends, each with files of its own.
//!
//! A script is played in two ways. First everybody waits after each step until nothing more can
//! come. Then no two backends have a reason to differ, and what has completed is compared, to the
//! byte. Then the script alone says who waits and when; how a stream is cut, and who wins against a
//! cancel or a deadline, may differ, and each is judged by its own [ledger] only.
//!
//! The ledger is plain reckoning. Bytes are numbered, so that none can get lost, be doubled, or
//! come out of order; what has not completed when all is quiet must have a reason that poll(2) can
//! see.

pub mod disk;
pub mod door;
pub mod flow;
pub mod hand;
pub mod ledger;
pub mod line;
pub mod parcel;
pub mod player;
pub mod props;
pub mod script;
pub mod together;

use arbitrary::{Arbitrary, Unstructured};
use script::Script;

/// Reads the data as a script. `None` if there is too little.
pub fn decode(data: &[u8]) -> Option<Script> {
    if data.is_empty() {
        return None;
    }
    Script::arbitrary(&mut Unstructured::new(data)).ok()
}

/// Plays what the data says to all backends.
///
/// # Panics
///
/// If it comes out wrong.
pub fn play(data: &[u8]) {
    let Some(script) = decode(data) else { return };
    if let Err(apart) = together::play_together(&script) {
        panic!("{apart}\n{}", script.as_test());
    }
}
