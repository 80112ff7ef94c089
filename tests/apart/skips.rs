//! A backend that is not there is skipped, aloud; one that is required is not.

use quintpoll::conformance::{Maker, check};
use std::io;
use std::process::{Command, Output};

const ABSENT: Maker = || Err(io::Error::new(io::ErrorKind::Unsupported, "not on this system"));
/// Set where the suite is to run on the absent backend; its skips are no business of other runs.
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
fn a_skip_prints_its_reason() {
    let output = suite_on_absent("epoll");
    assert!(output.status.success(), "a backend that nobody requires may be absent");
    let said = String::from_utf8_lossy(&output.stderr);
    for case in ["r1_register_reports_present_readiness", "r9_register_accepts_any_fd_number"] {
        let line = format!("skipped: {case} for absent: not on this system");
        assert!(said.lines().any(|said| said == line), "{said}");
    }
}

#[test]
fn a_required_backend_may_not_be_skipped() {
    let output = suite_on_absent("epoll, absent");
    assert!(!output.status.success(), "it was required");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("0 passed; 2 failed"), "{said}");
}
