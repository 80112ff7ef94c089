//! Runs one case in a thread with a watchdog, in a process of its own if required.

use super::util::{NOTE, Skip, TestContext, WATCHDOG};
use super::{CASES, Case, Maker};
use std::any::Any;
use std::io;
use std::panic;
use std::process::{Command, Stdio};
use std::sync::{PoisonError, RwLock, mpsc};
use std::thread;

/// Set for a process that runs one case; the value is the path of its test.
const OWN_PROCESS: &str = "QUINTPOLL_CASE_PROCESS";

/// Runs a case, as the tests made by [`conformance_tests!`](crate::conformance_tests) do. `test` is
/// the full path of the test, by which the binary can run it alone.
///
/// # Panics
///
/// If the case fails, with the clause it tests; if it hangs; if it is skipped for a backend in
/// `QUINTPOLL_REQUIRE`; if `name` is unknown.
pub fn check(name: &str, backend: &str, maker: Maker, test: &str) {
    let case = CASES.iter().find(|case| case.name == name);
    let case = *case.unwrap_or_else(|| panic!("unknown case {name}"));
    let result = if case.own_process && std::env::var(OWN_PROCESS).as_deref() != Ok(test) {
        in_own_process(test)
    } else {
        in_thread(case, maker, backend)
    };
    match result {
        Ok(()) => {}
        Err(Verdict::Skipped(reason)) => skip(case, backend, &reason),
        Err(Verdict::Failed(message)) => {
            let (clause, text) = (case.clause(), case.clause_text());
            panic!("{backend} breaks clause {clause} in {name}:\n  {message}\n  {clause}: {text}");
        }
    }
}

/// Between fork and exec a child holds every descriptor of this process, so no case that closes one
/// and checks the effect may run meanwhile.
static SPAWNING: RwLock<()> = RwLock::new(());

enum Verdict {
    Skipped(String),
    Failed(String),
}

/// Prefix of a skipped case in the output of its process.
const SKIPPED: &str = "skipped: ";

fn skip(case: Case, backend: &str, reason: &str) {
    let required = std::env::var("QUINTPOLL_REQUIRE").unwrap_or_default();
    let is_required = required.split(',').any(|name| name.trim() == backend);
    assert!(!is_required, "{} may not be skipped for {backend}: {reason}", case.name);
    // Not captured by the test harness: skips of a green run are visible.
    let line = format!("{SKIPPED}{} for {backend}: {reason}\n", case.name);
    let _ = io::Write::write_all(&mut io::stderr(), line.as_bytes());
}

fn in_thread(case: Case, maker: Maker, backend: &str) -> Result<(), Verdict> {
    let backend = backend.to_owned();
    let _no_spawning = SPAWNING.read().unwrap_or_else(PoisonError::into_inner);
    let (done, is_done) = mpsc::channel();
    let run = move || {
        let result = panic::catch_unwind(|| (case.run)(&TestContext::new(maker, &backend)));
        // The receiver is gone if the watchdog has text the case.
        let _ = done.send(result.map_err(verdict));
    };
    let spawned = thread::Builder::new().name(case.name.to_owned()).spawn(run);
    spawned.map_err(|error| Verdict::Failed(format!("no thread for the case: {error}")))?;
    is_done.recv_timeout(WATCHDOG).unwrap_or_else(|_| {
        Err(Verdict::Failed(format!("the case hangs: not done after {WATCHDOG:?}")))
    })
}

fn verdict(panic: Box<dyn Any + Send>) -> Verdict {
    let panic = match panic.downcast::<Skip>() {
        Ok(skip) => return Verdict::Skipped(skip.0),
        Err(panic) => panic,
    };
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    Verdict::Failed(text.unwrap_or("a panic without a message").to_owned())
}

fn in_own_process(test: &str) -> Result<(), Verdict> {
    let failed = |error: io::Error| Verdict::Failed(format!("no process for the case: {error}"));
    // Test paths do not include the name of the crate.
    let (_, path) = test.split_once("::").unwrap_or(("", test));
    let mut command = Command::new(std::env::current_exe().map_err(failed)?);
    command.args([path, "--exact", "--nocapture", "--test-threads=1"]).env(OWN_PROCESS, test);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = {
        let _alone = SPAWNING.write().unwrap_or_else(PoisonError::into_inner);
        command.spawn().map_err(failed)?
    };
    let output = child.wait_with_output().map_err(failed)?;
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(Verdict::Failed(format!(
            "in a process of its own, {}:\n{text}",
            output.status
        )));
    }
    if let Some(line) = text.lines().find_map(|line| line.strip_prefix(SKIPPED)) {
        let (_, reason) = line.split_once(": ").unwrap_or(("", line));
        return Err(Verdict::Skipped(reason.to_owned()));
    }
    for note in text.lines().filter_map(|line| line.strip_prefix(NOTE)) {
        // Printed in the same way as a skip.
        let line = format!("{NOTE}{test}: {note}\n");
        let _ = io::Write::write_all(&mut io::stderr(), line.as_bytes());
    }
    let ran = text.contains("1 passed");
    if ran { Ok(()) } else { Err(Verdict::Failed(format!("{path} was not run alone:\n{text}"))) }
}
