//! Runs a property on random values. The environment variable `QUINTPOLL_SCRIPTS` sets the number
//! of cases, and `QUINTPOLL_SEED` the seed. Without a seed every run has the same cases.

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::str::FromStr;

/// The time for shrinking a failure, in milliseconds.
const SHRINKING: u32 = 60_000;

/// Runs `holds` on `cases` values, or on the number that the environment sets.
///
/// # Errors
///
/// The smallest failing value, and its error.
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
    // The runner may return a value of its last shrinking step, which did not fail.
    let smallest = RefCell::new(None);
    let outcome = TestRunner::new_with_rng(config, rng).run(values, |value| {
        catch(|| holds(&value)).map_err(|reason| {
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

/// Returns the result, or the message of a panic as an error.
pub(crate) fn catch<T>(play: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(play)).unwrap_or_else(|payload| {
        let text = payload.downcast_ref::<String>().cloned();
        let text = text.or_else(|| payload.downcast_ref::<&str>().map(|&text| text.to_owned()));
        Err(text.unwrap_or_else(|| "a panic without a text".to_owned()))
    })
}

/// Returns the value of an environment variable.
fn setting<T: FromStr>(name: &str, default: T) -> T {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text}")),
        Err(_) => default,
    }
}
