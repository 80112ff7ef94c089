//! The fuzz target without libFuzzer: its seeds, and pseudo-random data.
//!
//! The seeds are the scripts of [`scripts`] and [`mechanisms`] as data. When a script or the layout
//! of a step has changed, `QUINTPOLL_WRITE_SEEDS=1` writes them anew.

mod encode;
mod mechanisms;
mod scripts;

use encode::encode;
use quintpoll_fuzz::{decode, script_vs_model};
use std::collections::BTreeSet;
use std::path::PathBuf;

/// How many pseudo-random inputs are played, and how long the longest is.
const INPUTS: usize = 3000;
const LONGEST: usize = 600;

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("seeds/script_vs_model")
}

/// The first byte chooses the column, so each seed begins with another one.
fn seeds() -> impl Iterator<Item = (&'static str, Vec<u8>)> {
    let numbered = scripts::all().zip(0..);
    numbered.map(|((name, script), number)| (name, encode(number, &script)))
}

#[test]
fn seeds_are_the_scripts_they_are_named_after() {
    if std::env::var_os("QUINTPOLL_WRITE_SEEDS").is_some() {
        for (name, data) in seeds() {
            std::fs::write(directory().join(name), data).expect("a seed can be written");
        }
    }
    for (name, script) in scripts::all() {
        let data = std::fs::read(directory().join(name)).expect(name);
        let (_, decoded) = decode(&data).expect(name);
        assert_eq!(decoded, script, "{name}");
    }
    let entries = std::fs::read_dir(directory()).expect("the seeds are there");
    let names = entries.map(|entry| entry.expect("an entry").file_name().into_string());
    let files: BTreeSet<_> = names.map(|name| name.expect("a plain name")).collect();
    let scripts: BTreeSet<_> = seeds().map(|(name, _)| name.to_owned()).collect();
    assert_eq!(files, scripts, "each seed has a script");
}

#[test]
fn seeds_hold() {
    for (name, data) in seeds() {
        println!("{name}");
        script_vs_model(&data);
    }
}

#[test]
fn pseudo_random_data_holds() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        // xorshift64* (Marsaglia, Vigna); the upper bits are the good ones.
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32
    };
    for _ in 0..INPUTS {
        let length = next() as usize % LONGEST;
        let data: Vec<u8> = (0..length).map(|_| next() as u8).collect();
        script_vs_model(&data);
    }
}

/// Any data is a script or nothing; no data is nothing.
#[test]
fn too_little_data_is_no_script() {
    assert!(decode(&[]).is_none());
    let (_, script) = decode(&[0]).expect("what is missing counts as zero");
    assert!(script.steps.is_empty());
}
