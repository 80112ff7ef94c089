//! An unavailable backend is skipped with a message; a required one is not skipped.

use quintpoll::conformance::{Maker, check};
use std::io;
use std::process::{Command, Output};

const ABSENT: Maker = || Err(io::Error::new(io::ErrorKind::Unsupported, "not on this system"));
/// The environment variable of a process that runs the suite on the absent backend.
const WANTED: &str = "QUINTPOLL_TEST_ABSENT";

fn check_absent(case: &str, test: &str) {
    if std::env::var_os(WANTED).is_some() {
        check(case, "absent", ABSENT, test);
    }
}

#[test]
fn absent_in_a_thread() {
    let test = concat!(module_path!(), "::absent_in_a_thread");
    check_absent("r1_register_reports_present_readiness", test);
}

#[test]
fn absent_in_a_process() {
    let test = concat!(module_path!(), "::absent_in_a_process");
    check_absent("r9_register_accepts_any_fd_number", test);
}

/// Runs the two tests above in another process.
fn suite_on_absent(required: &str) -> Output {
    let tests = std::env::current_exe().expect("the test binary");
    Command::new(tests)
        .args(["skips::absent_in_a", "--nocapture", "--test-threads=1"])
        .env(WANTED, "1")
        .env("QUINTPOLL_REQUIRE", required)
        .output()
        .expect("the test binary runs")
}

#[test]
fn skip_prints_its_reason() {
    let output = suite_on_absent("epoll");
    assert!(output.status.success(), "an optional backend may be absent");
    let text = String::from_utf8_lossy(&output.stderr);
    for case in ["r1_register_reports_present_readiness", "r9_register_accepts_any_fd_number"] {
        let line = format!("skipped: {case} for absent: not on this system");
        assert!(text.lines().any(|text| text == line), "{text}");
    }
}

#[test]
fn required_backend_is_not_skipped() {
    let output = suite_on_absent("epoll, absent");
    assert!(!output.status.success(), "the backend was required");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("0 passed; 2 failed"), "{text}");
}
