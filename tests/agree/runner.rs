//! Runs a property as often as the environment says: `QUINTPOLL_SCRIPTS` sets how many cases there
//! are, and `QUINTPOLL_SEED` makes them others. Without it every run plays the same ones.

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::str::FromStr;

/// How long is spent on making a failure smaller, in milliseconds.
const SHRINKING: u32 = 60_000;

/// Tries `holds` with so many values, unless the environment says another number.
///
/// # Errors
///
/// The smallest value found that does not hold, and what was said of it.
pub(crate) fn run<S: Strategy>(
    cases: u32,
    values: &S,
    holds: impl Fn(&S::Value) -> Result<(), String>,
) -> Result<(), (String, S::Value)>
where
    S::Value: Clone,
{
    let config = Config {
        cases: setting("QUINTPOLL_SCRIPTS", cases),
        failure_persistence: None,
        max_shrink_time: SHRINKING,
        ..Config::default()
    };
    let mut seed = [1; 16];
    seed[..8].copy_from_slice(&setting("QUINTPOLL_SEED", 0_u64).to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::XorShift, &seed);
    // What is given in the end may be a step of shrinking that went too far.
    let smallest = RefCell::new(None);
    let outcome = TestRunner::new_with_rng(config, rng).run(values, |value| {
        said(|| holds(&value)).map_err(|reason| {
            *smallest.borrow_mut() = Some((reason.clone(), value));
            TestCaseError::fail(reason)
        })
    });
    match (outcome, smallest.into_inner()) {
        (Ok(()), _) => Ok(()),
        (Err(_), Some(smallest)) => Err(smallest),
        (Err(error), None) => panic!("{error}"),
    }
}

/// What is said, or cried in a panic.
pub(crate) fn said<T>(play: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(play)).unwrap_or_else(|cry| {
        let text = cry.downcast_ref::<String>().cloned();
        let text = text.or_else(|| cry.downcast_ref::<&str>().map(|&text| text.to_owned()));
        Err(text.unwrap_or_else(|| "a panic without a text".to_owned()))
    })
}

/// What the environment says.
fn setting<T: FromStr>(name: &str, default: T) -> T {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text}")),
        Err(_) => default,
    }
}
