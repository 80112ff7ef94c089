//! For unit tests that change what belongs to the whole process.

use std::process::Command;

/// Set for the process in which a test runs alone.
const ALONE: &str = "QUINTPOLL_TEST_RUNS_ALONE";

/// Whether this is the process in which the test of this path runs alone; if not, it is started and
/// has to pass. For limits and the like.
pub(crate) fn is_alone(test: &str) -> bool {
    is_alone_with(test, ALONE, Some("1"))
}

/// The same, in a process with (`Some`) or without (`None`) a variable in its environment.
pub(crate) fn is_alone_with(test: &str, variable: &str, value: Option<&str>) -> bool {
    if std::env::var_os(ALONE).is_some() {
        return true;
    }
    let this = std::env::current_exe().expect("a running program has a path");
    let mut run = Command::new(this);
    run.args([test, "--exact", "--nocapture"]).env_remove(variable).env(ALONE, "1");
    run.envs(value.map(|value| (variable, value)));
    let output = run.output().expect("it runs already");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{variable} {value:?}: {said}");
    false
}
