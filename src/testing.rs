//! For unit tests that change what belongs to the whole process.

use std::process::{Command, Stdio};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

static CHILDREN: RwLock<()> = RwLock::new(());

/// No child is being made while this lives. A child holds every file of this process until it execs
/// or ends, so a test that closes one and looks for the consequences needs this.
pub(crate) fn no_children() -> RwLockReadGuard<'static, ()> {
    CHILDREN.read().unwrap_or_else(PoisonError::into_inner)
}

/// The other side of [`no_children`]: for tests that fork, and around each spawn.
pub(crate) fn making_children() -> RwLockWriteGuard<'static, ()> {
    CHILDREN.write().unwrap_or_else(PoisonError::into_inner)
}

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
    run.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = {
        let _making = making_children();
        run.spawn().expect("it runs already")
    };
    let output = child.wait_with_output().expect("its output");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{variable} {value:?}: {said}");
    false
}
