//! The model-based test: random [scripts](script::Script) over a few files, played to every
//! backend, and each wait compared with what the contract allows.
//!
//! The fuzz target is a shell around [`script_vs_model`]:
//!
//! ```text
//! cd fuzz && mkdir -p corpus/script_vs_model
//! cargo +stable fuzz run -s none --features fuzzing script_vs_model \
//!     corpus/script_vs_model seeds/script_vs_model -- -max_total_time=60 -rss_limit_mb=2000
//! cargo run --example show artifacts/script_vs_model/crash-…
//! ```
//!
//! The last line shows what it found as a test. The same modules make the test `scripts` of the
//! library, which replays the seeds and generates scripts that shrink.

pub mod column;
pub mod ear;
pub mod files;
#[cfg(feature = "spi")]
pub mod forced;
pub mod model;
pub mod oracle;
pub mod owner;
pub mod play;
pub mod script;

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
