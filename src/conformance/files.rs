//! Clauses F: files.

use super::kinds::{self, Kind};
use super::util::*;
use crate::event::{Interest, Mode, Readiness};
use crate::sys::staging::Thread;
use std::fs::File;
use std::sync::Arc;

pub(super) fn f1_files_are_always_ready(cx: &TestContext) {
    let directory = TempDir::new();
    let regular = directory.0.join("file");
    std::fs::write(&regular, b"content").unwrap_or_else(|error| panic!("{error}"));
    for path in [regular.as_path(), &directory.0, "/dev/null".as_ref()] {
        let open = || File::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let ready = Readiness::READABLE | Readiness::WRITABLE;
        let mut harness = cx.harness(8);
        let (idle, idle_peer) = stream();
        harness.register(idle, 9, READ, Mode::Level);

        let level = harness.register(Arc::new(open()), 1, BOTH, Mode::Level);
        for _ in 0..3 {
            harness.wait(None);
            assert_eq!(harness.reported(), [(1, ready)], "{} in every wait", path.display());
        }
        put(&idle_peer, b"x");
        let both = [(1, ready), (9, Readiness::READABLE)];
        harness.expect_now(&both, "files do not starve other sources");
        harness.modify(level, 1, READ, Mode::Level);
        harness.expect_now(&[(1, Readiness::READABLE), (9, Readiness::READABLE)], "modify");
        harness.modify(level, 1, Interest::empty(), Mode::Level);
        harness.expect_now(&[(9, Readiness::READABLE)], "an empty interest");
        harness.deregister(level);

        let once = harness.register(Arc::new(open()), 2, BOTH, Mode::OneShot);
        harness.expect_now(&[(2, ready), (9, Readiness::READABLE)], "one-shot");
        harness.expect_now(&[(9, Readiness::READABLE)], "already reported");
        harness.rearm(once, WRITE);
        harness.expect_now(&[(2, Readiness::WRITABLE), (9, Readiness::READABLE)], "rearmed");
        harness.deregister(once);

        let edge = harness.register(Arc::new(open()), 3, BOTH, Mode::Edge);
        harness.expect_now(&[(3, ready), (9, Readiness::READABLE)], "edge");
        harness.expect_now(&[(9, Readiness::READABLE)], "already reported");
        harness.rearm(edge, BOTH);
        harness.expect_now(&[(3, ready), (9, Readiness::READABLE)], "rearmed");
        harness.modify(edge, 4, READ, Mode::Level);
        harness.expect_now(&[(4, Readiness::READABLE), (9, Readiness::READABLE)], "level mode");
        harness.deregister(edge);
        harness.expect_now(&[(9, Readiness::READABLE)], "deregistered");
    }
}

/// Fails unless one event of this source is reported, which contains `expected`, and then none.
fn expect_one(harness: &mut ReadinessHarness, token: usize, expected: Readiness, why: &str) {
    let reported = harness.ready_now();
    let is_right = match reported[..] {
        [(actual, readiness)] => actual == token && readiness.contains(expected),
        _ => false,
    };
    assert!(is_right, "{why}: expected {expected:?} of {token}, got {reported:?}");
    for _ in 0..3 {
        harness.expect_silence(&format!("{why}, already reported"));
    }
}

pub(super) fn f1_files_report_one_edge_per_call(cx: &TestContext) {
    let directory = TempDir::new();
    let regular = directory.0.join("file");
    std::fs::write(&regular, b"").unwrap_or_else(|error| panic!("{error}"));
    let devices = ["/dev/null".as_ref(), "/dev/zero".as_ref()];
    for path in [regular.as_path(), &directory.0].into_iter().chain(devices) {
        let why = |what: &str| format!("{}: {what}", path.display());
        let file = Arc::new(File::open(path).unwrap_or_else(|error| panic!("{path:?}: {error}")));
        let mut harness = cx.harness(8);
        let ready = Readiness::READABLE | Readiness::WRITABLE;
        let key = harness.register(file.clone(), 1, BOTH, Mode::Edge);
        expect_one(&mut harness, 1, ready, &why("registered"));
        let each = [(READ, Readiness::READABLE), (WRITE, Readiness::WRITABLE), (BOTH, ready)];
        for (dirs, expected) in each {
            harness.rearm(key, dirs);
            expect_one(&mut harness, 1, expected, &why("rearmed"));
            harness.rearm(key, dirs);
            harness.rearm(key, dirs);
            expect_one(&mut harness, 1, expected, &why("rearmed twice"));
        }
        for (dirs, expected) in each {
            harness.modify(key, 2, dirs, Mode::Edge);
            expect_one(&mut harness, 2, expected, &why("modified"));
        }
        for (from, mode) in MODES.into_iter().flat_map(|from| MODES.map(|mode| (from, mode))) {
            harness.modify(key, 3, READ, from);
            harness.modify(key, 3, Interest::PRIORITY, mode);
            harness.expect_silence(&why("no urgent data"));
            harness.rearm(key, Interest::PRIORITY);
            harness.expect_silence(&why("no urgent data after rearm"));
        }
        harness.modify(key, 4, READ | Interest::PRIORITY, Mode::Level);
        for _ in 0..3 {
            harness.expect_now(&[(4, Readiness::READABLE)], &why("level: in every wait"));
        }
        harness.deregister(key);
        for mode in MODES {
            let key = harness.register(file.clone(), 5, Interest::PRIORITY, mode);
            harness.expect_silence(&why("registered for urgent data"));
            harness.deregister(key);
        }
    }
}

pub(super) fn f1_all_kinds_of_files_report_readability(cx: &TestContext) {
    for mode in MODES {
        for Kind { name, source, trigger, .. } in kinds::readers() {
            let mut harness = cx.harness(4);
            let _kept = trigger();
            let key = harness.register(source, 1, READ, mode);
            let reported = harness.next(name);
            assert!(is_ready(&reported, Readiness::READABLE), "{name}, {mode:?}: {reported:?}");
            harness.deregister(key);
            harness.expect_silence(name);
        }
    }
}

fn is_ready(reported: &Reported, readiness: Readiness) -> bool {
    matches!(reported[..], [(1, actual)] if actual.contains(readiness))
}

pub(super) fn t2_all_kinds_of_files_end_wait(cx: &TestContext) {
    let directions = [
        (READ, Readiness::READABLE, kinds::readers as fn() -> _),
        (WRITE, Readiness::WRITABLE, kinds::writers),
    ];
    for (mode, (dirs, readiness, kinds)) in
        MODES.iter().flat_map(|&mode| directions.map(|d| (mode, d)))
    {
        for Kind { name, source, trigger, is_settled } in kinds() {
            let mut harness = cx.harness(4);
            let key = harness.register(source, 1, dirs, mode);
            if is_settled {
                harness.expect_silence(name);
            }
            let waiter = Thread::current().id();
            let trigger_thread = std::thread::spawn(move || {
                wait_until_asleep(waiter);
                trigger()
            });
            let reported = harness.next(name);
            assert!(is_ready(&reported, readiness), "{name}, {mode:?}: {reported:?}");
            let _kept =
                trigger_thread.join().unwrap_or_else(|_| panic!("{name}: the event failed"));
            harness.deregister(key);
            harness.expect_silence(name);
        }
    }
}
