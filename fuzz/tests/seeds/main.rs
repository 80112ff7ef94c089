//! The fuzz targets without libFuzzer: their seeds, and pseudo-random data.
//!
//! The seeds are the scripts of [`scripts`], [`mechanisms`] and [`together`] as data. When a script
//! or the layout of a step has changed, `QUINTPOLL_WRITE_SEEDS=1` writes them anew.

mod encode;
#[path = "../../../tests/agree/fd_count.rs"]
mod fd_count;
mod mechanisms;
mod scripts;
mod together;

use quintpoll_fuzz::script::Script;
use quintpoll_fuzz::{backends_agree, decode, decode_together, operations, ops, script_vs_model};
use std::collections::BTreeSet;
use std::path::PathBuf;

/// How many pseudo-random inputs are played to one column each, to all backends, and to all as
/// operations, and how long the longest is.
const INPUTS: usize = 3000;
const INPUTS_TOGETHER: usize = 300;
const INPUTS_OPERATIONS: usize = 300;
const LONGEST: usize = 600;

/// A seed: its name, its data, and the script that it is.
type Seed = (&'static str, Vec<u8>, Script);

/// Those of `script_vs_model`. The first byte chooses the column, so each begins with another one.
fn seeds() -> Vec<Seed> {
    let data = |(number, (name, script)): (u8, _)| {
        let script: Script = script;
        let data = std::iter::once(number).chain(encode::script(&script)).collect();
        (name, data, script)
    };
    (0..).zip(scripts::all()).map(data).collect()
}

/// Those of `backends_agree`.
fn seeds_together() -> Vec<Seed> {
    together::all().map(|(name, script)| (name, encode::script(&script), script)).collect()
}

#[test]
fn seeds_are_the_scripts_they_are_named_after() {
    compare("script_vs_model", seeds(), |data| decode(data).map(|(_, script)| script));
    compare("backends_agree", seeds_together(), decode_together);
}

fn compare(target: &str, seeds: Vec<Seed>, decode: impl Fn(&[u8]) -> Option<Script>) {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("seeds").join(target);
    if std::env::var_os("QUINTPOLL_WRITE_SEEDS").is_some() {
        for (name, data, _) in &seeds {
            std::fs::write(directory.join(name), data).expect("a seed can be written");
        }
    }
    for (name, _, script) in &seeds {
        let data = std::fs::read(directory.join(name)).expect(name);
        assert_eq!(decode(&data).as_ref(), Some(script), "{name}");
    }
    let entries = std::fs::read_dir(directory).expect("the seeds are there");
    let names = entries.map(|entry| entry.expect("an entry").file_name().into_string());
    let files: BTreeSet<_> = names.map(|name| name.expect("a plain name")).collect();
    let scripts: BTreeSet<_> = seeds.iter().map(|(name, ..)| (*name).to_owned()).collect();
    assert_eq!(files, scripts, "each seed has a script");
}

#[test]
fn seeds_hold() {
    for (name, data, _) in seeds() {
        println!("{name}");
        fd_count::without_fd_counts(|| script_vs_model(&data));
    }
    for (name, data, _) in seeds_together() {
        println!("{name}");
        fd_count::without_fd_counts(|| backends_agree(&data));
    }
}

#[test]
fn pseudo_random_data_holds() {
    pseudo_random(INPUTS, |data| fd_count::without_fd_counts(|| script_vs_model(data)));
}

#[test]
fn pseudo_random_data_holds_together() {
    pseudo_random(INPUTS_TOGETHER, |data| fd_count::without_fd_counts(|| backends_agree(data)));
}

/// These have no seeds: nearly any data is a script that does something.
#[test]
fn pseudo_random_data_holds_of_operations() {
    pseudo_random(INPUTS_OPERATIONS, |data| fd_count::with_fd_counts(|| operations(data)));
}

fn pseudo_random(inputs: usize, target: fn(&[u8])) {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        // xorshift64* (Marsaglia, Vigna); the upper bits are the good ones.
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32
    };
    for _ in 0..inputs {
        let length = next() as usize % LONGEST;
        let data: Vec<u8> = (0..length).map(|_| next() as u8).collect();
        target(&data);
    }
}

/// Any data is a script or nothing; no data is nothing.
#[test]
fn too_little_data_is_no_script() {
    assert!(decode(&[]).is_none() && decode_together(&[]).is_none());
    assert!(ops::decode(&[]).is_none());
    let (_, script) = decode(&[0]).expect("what is missing counts as zero");
    assert!(script.steps.is_empty());
}
