//! Helpers of unit tests that change state of the whole process.

use std::process::{Command, Stdio};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

static CHILDREN: RwLock<()> = RwLock::new(());

/// Returns a guard during which no child is started. A child holds every descriptor of this process
/// until it execs or ends. A test that closes one and checks the effect needs this guard.
pub(crate) fn no_children() -> RwLockReadGuard<'static, ()> {
    CHILDREN.read().unwrap_or_else(PoisonError::into_inner)
}

/// Returns the guard for forks and spawns, which excludes [`no_children`].
pub(crate) fn making_children() -> RwLockWriteGuard<'static, ()> {
    CHILDREN.write().unwrap_or_else(PoisonError::into_inner)
}

/// The environment variable of a process in which one test runs alone.
const ALONE: &str = "QUINTPOLL_TEST_RUNS_ALONE";

/// Returns true in a process of the test alone. Otherwise runs the test in such a process, and
/// fails if it fails. Tests that change limits use this.
pub(crate) fn is_alone(test: &str) -> bool {
    is_alone_with(test, ALONE, Some("1"))
}

/// Does what [`is_alone`] does, with (`Some`) or without (`None`) an environment variable.
pub(crate) fn is_alone_with(test: &str, variable: &str, value: Option<&str>) -> bool {
    if std::env::var_os(ALONE).is_some() {
        return true;
    }
    let this = std::env::current_exe().expect("a running program has a path");
    let mut run = Command::new(this);
    run.args([test, "--exact", "--nocapture"]).env_remove(variable).env(ALONE, "1");
    run.envs(value.map(|value| (variable, value)));
    run.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = {
        let _making = making_children();
        run.spawn().expect("the test binary can be started")
    };
    let output = child.wait_with_output().expect("the output of the child");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{variable} {value:?}: {text}");
    false
}
