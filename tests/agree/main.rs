//! Agreement of all five backends: scripts run on all of them in lock-step, and their reports are
//! compared, without a model.
//!
//! The scripts come from a [`generator`], and from the seeds of the fuzz target `backends_agree`. A
//! failure prints the shortest script as a test to paste in below. `QUINTPOLL_SCRIPTS` and
//! `QUINTPOLL_SEED` are those of the test `scripts`; 20,000 scripts have about 640,000 steps.

mod fd_count;
#[path = "../../fuzz/src/lib.rs"]
pub mod fuzz;
mod generator;
mod operations;
mod relations;
mod runner;

use fuzz::script::*;
use fuzz::together::{Tally, play_together};
use std::cell::RefCell;
use std::path::Path;

/// The number of scripts, which take a few seconds in a debug build.
const SCRIPTS: u32 = 400;

/// Runs a script on all backends.
fn replay(script: &Script) {
    fd_count::without_fd_counts(|| play_together(script))
        .unwrap_or_else(|divergence| panic!("{divergence}"));
}

/// Runs the seeds of this test, and those of the model-based test.
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
    let outcome = runner::run(SCRIPTS, &generator::scripts(), |script| {
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
    runner::catch(|| {
        fd_count::without_fd_counts(|| play_together(script))
            .map_err(|divergence| divergence.to_string())
    })
}

/// The interrupting signals arrive: a plain poll(2) fails with `EINTR`.
#[test]
fn signals_interrupt() {
    use nix::poll::{PollTimeout, poll};
    let is_interrupted = || {
        let slept = fuzz::interrupt::interrupted(|| poll(&mut [], PollTimeout::from(200_u8)));
        slept == Err(nix::errno::Errno::EINTR)
    };
    assert!(is_interrupted(), "poll(2) was not interrupted");
}
