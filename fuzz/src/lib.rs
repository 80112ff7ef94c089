//! Random [scripts](script::Script) over a few files, played to every backend: each wait is
//! compared with what the contract allows, and the backends with each other.
//!
//! The fuzz targets are shells around [`script_vs_model`], which plays a script to one column,
//! [`backends_agree`], which plays it to all backends [together], and [`operations`], whose scripts
//! are others ([`ops`]):
//!
//! ```text
//! fuzz/run                                # each for a minute
//! fuzz/run 600 operations                 # one, for ten minutes
//! fuzz/run +stable                        # without AddressSanitizer, which takes nightly
//! cd fuzz
//! cargo run --example show artifacts/script_vs_model/crash-…
//! cargo run --example show -- --together artifacts/backends_agree/crash-…
//! cargo run --example show -- --operations artifacts/operations/crash-…
//! ```
//!
//! The last lines show what was found as a test. The same modules make the tests `scripts` and
//! `agree` of the library, which replay the seeds and generate scripts that shrink.

mod channel;
pub mod column;
pub mod ear;
pub mod files;
#[cfg(feature = "spi")]
pub mod forced;
pub mod interrupt;
pub mod model;
pub mod ops;
pub mod oracle;
pub mod owner;
pub mod play;
pub mod player;
pub mod script;
pub mod together;
pub mod told;

use arbitrary::{Arbitrary, Unstructured};
use column::Column;
use script::Script;

/// Reads the data as a column and a script: the first byte chooses the column, the rest makes the
/// script. `None` if there is too little.
pub fn decode(data: &[u8]) -> Option<(Column, Script)> {
    let (&first, rest) = data.split_first()?;
    let columns = Column::all();
    let column = columns[usize::from(first) % columns.len()];
    let script = Script::arbitrary(&mut Unstructured::new(rest)).ok()?;
    Some((column, script))
}

/// Plays what the data says.
///
/// # Panics
///
/// If the script comes out wrong.
pub fn script_vs_model(data: &[u8]) {
    let Some((column, script)) = decode(data) else { return };
    if let Err(broken) = play::play(&script, column) {
        panic!("{broken}\n{}", script.as_test());
    }
}

/// Reads the data as a script for all backends. `None` if there is too little.
pub fn decode_together(data: &[u8]) -> Option<Script> {
    if data.is_empty() {
        return None;
    }
    Script::arbitrary(&mut Unstructured::new(data)).ok()
}

/// Plays what the data says to all backends.
///
/// # Panics
///
/// If they do not agree.
pub fn backends_agree(data: &[u8]) {
    let Some(script) = decode_together(data) else { return };
    if let Err(apart) = together::play_together(&script) {
        panic!("{apart}\n{}", script.as_test());
    }
}

/// Plays what the data says of operations to all backends.
///
/// # Panics
///
/// If it comes out wrong.
pub fn operations(data: &[u8]) {
    ops::play(data);
}
