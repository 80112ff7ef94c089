//! Equal on all five: scripts are played to all backends in lock-step, and what they show is
//! compared, with no model in between.
//!
//! The scripts come from a [`sketch`] of the files, and from the seeds of the fuzz target
//! `backends_agree`. A failure prints the shortest script as a test that can be pasted in below.
//! `QUINTPOLL_SCRIPTS` and `QUINTPOLL_SEED` are those of the test `scripts`; with 20 000 scripts
//! there are about 640 000 steps.

#[path = "../../fuzz/src/lib.rs"]
pub mod fuzz;
mod numbers;
mod operations;
mod relations;
mod runner;
mod sketch;

use fuzz::script::*;
use fuzz::together::{Tally, play_together};
use std::cell::RefCell;
use std::path::Path;

/// So many take a few seconds in a debug build.
const SCRIPTS: u32 = 400;

/// Plays a script to all backends.
fn replay(script: &Script) {
    numbers::uncounted(|| play_together(script)).unwrap_or_else(|apart| panic!("{apart}"));
}

/// Those of this test, and those of one backend against the model.
#[test]
fn seeds() {
    let together = |data: &[u8]| fuzz::decode_together(data);
    let alone = |data: &[u8]| fuzz::decode(data).map(|(_, script)| script);
    replay_seeds("backends_agree", together);
    replay_seeds("script_vs_model", alone);
}

fn replay_seeds(target: &str, decode: impl Fn(&[u8]) -> Option<Script>) {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
    for seed in std::fs::read_dir(seeds).expect("the seeds are there") {
        let path = seed.expect("a directory can be read").path();
        println!("{}", path.display());
        let data = std::fs::read(&path).expect("a seed can be read");
        replay(&decode(&data).expect("a seed is a script"));
    }
}

#[test]
fn random_scripts() {
    let tally = RefCell::new(Tally::default());
    let outcome = runner::run(SCRIPTS, &sketch::scripts(), |script| {
        let more = together(script)?;
        *tally.borrow_mut() += more;
        Ok(())
    });
    println!("{}", tally.borrow());
    outcome.unwrap_or_else(|(reason, script)| {
        let script = script.shortened(|shorter| together(shorter).is_err());
        let reason = together(&script).err().unwrap_or(reason);
        panic!("{reason}\nas a test:\n{}", script.as_test());
    });
}

fn together(script: &Script) -> Result<Tally, String> {
    runner::said(|| numbers::uncounted(|| play_together(script)).map_err(|apart| apart.to_string()))
}

/// A call that signals interrupt does fail with `EINTR` where nobody goes on: they do come.
#[test]
fn signals_interrupt() {
    use nix::poll::{PollTimeout, poll};
    let is_interrupted = || {
        let slept = fuzz::interrupt::interrupted(|| poll(&mut [], PollTimeout::from(200_u8)));
        slept == Err(nix::errno::Errno::EINTR)
    };
    assert!(is_interrupted(), "poll(2) slept in peace");
}
