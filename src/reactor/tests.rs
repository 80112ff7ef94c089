//! The reactor over a selector that says what a test wants said, and over the kernel in every
//! column that the latch knows.

mod calls;
mod columns;
mod delivery;
mod failures;
mod fake;

use std::process::Command;

/// Whether this is the process in which the test named so runs alone; if not, it is started here.
/// For limits, which are the whole process's.
pub(super) fn is_alone(test: &str) -> bool {
    const ALONE: &str = "QUINTPOLL_TEST_RUNS_ALONE";
    if std::env::var_os(ALONE).is_some() {
        return true;
    }
    let this = std::env::current_exe().expect("a running program has a path");
    let run = Command::new(this).args([test, "--exact", "--nocapture"]).env(ALONE, "1").output();
    let output = run.expect("it runs already");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    false
}
