//! Clauses F: files.

use super::kinds::{self, Kind};
use super::kit::*;
use crate::event::{Interest, Mode, Readiness};
use crate::sys::staging::Thread;
use std::fs::File;
use std::sync::Arc;

pub(super) fn f1_files_are_always_ready(stage: &Stage) {
    let directory = TempDir::new();
    let regular = directory.0.join("file");
    std::fs::write(&regular, b"content").unwrap_or_else(|error| panic!("{error}"));
    for path in [regular.as_path(), &directory.0, "/dev/null".as_ref()] {
        let open = || File::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let ready = Readiness::READABLE | Readiness::WRITABLE;
        let mut desk = stage.desk(8);
        let (idle, idle_there) = stream();
        desk.register(idle, 9, READ, Mode::Level);

        let level = desk.register(Arc::new(open()), 1, BOTH, Mode::Level);
        for _ in 0..3 {
            desk.wait(None);
            assert_eq!(desk.said(), [(1, ready)], "{} in every wait", path.display());
        }
        put(&idle_there, b"x");
        let both = [(1, ready), (9, Readiness::READABLE)];
        desk.expect_now(&both, "files do not drown the others");
        desk.modify(level, 1, READ, Mode::Level);
        desk.expect_now(&[(1, Readiness::READABLE), (9, Readiness::READABLE)], "modify");
        desk.modify(level, 1, Interest::empty(), Mode::Level);
        desk.expect_now(&[(9, Readiness::READABLE)], "an empty interest");
        desk.deregister(level);

        let once = desk.register(Arc::new(open()), 2, BOTH, Mode::OneShot);
        desk.expect_now(&[(2, ready), (9, Readiness::READABLE)], "one-shot");
        desk.expect_now(&[(9, Readiness::READABLE)], "once");
        desk.rearm(once, WRITE);
        desk.expect_now(&[(2, Readiness::WRITABLE), (9, Readiness::READABLE)], "rearmed");
        desk.deregister(once);

        let edge = desk.register(Arc::new(open()), 3, BOTH, Mode::Edge);
        desk.expect_now(&[(3, ready), (9, Readiness::READABLE)], "edge");
        desk.expect_now(&[(9, Readiness::READABLE)], "nothing happens to a file");
        desk.rearm(edge, BOTH);
        desk.expect_now(&[(3, ready), (9, Readiness::READABLE)], "rearmed");
        desk.modify(edge, 4, READ, Mode::Level);
        desk.expect_now(&[(4, Readiness::READABLE), (9, Readiness::READABLE)], "level now");
        desk.deregister(edge);
        desk.expect_now(&[(9, Readiness::READABLE)], "deregistered");
    }
}

/// What files of no particular kind say when they are asked: an event of this one source, with
/// this in it.
fn expect_one(desk: &mut Desk, token: usize, told: Readiness, why: &str) {
    let said = desk.now();
    let is_it = matches!(said[..], [(its, readiness)] if its == token && readiness.contains(told));
    assert!(is_it, "{why}: expected {told:?} of {token}, got {said:?}");
    for _ in 0..3 {
        desk.expect_silence(&format!("{why}, and once is enough"));
    }
}

pub(super) fn f1_files_tell_an_edge_once_a_call(stage: &Stage) {
    let directory = TempDir::new();
    let regular = directory.0.join("file");
    std::fs::write(&regular, b"").unwrap_or_else(|error| panic!("{error}"));
    let devices = ["/dev/null".as_ref(), "/dev/zero".as_ref()];
    for path in [regular.as_path(), &directory.0].into_iter().chain(devices) {
        let why = |what: &str| format!("{}: {what}", path.display());
        let file = Arc::new(File::open(path).unwrap_or_else(|error| panic!("{path:?}: {error}")));
        let mut desk = stage.desk(8);
        let ready = Readiness::READABLE | Readiness::WRITABLE;
        let key = desk.register(file.clone(), 1, BOTH, Mode::Edge);
        expect_one(&mut desk, 1, ready, &why("registered"));
        let each = [(READ, Readiness::READABLE), (WRITE, Readiness::WRITABLE), (BOTH, ready)];
        for (dirs, told) in each {
            desk.rearm(key, dirs);
            expect_one(&mut desk, 1, told, &why("rearmed"));
            desk.rearm(key, dirs);
            desk.rearm(key, dirs);
            expect_one(&mut desk, 1, told, &why("rearmed twice"));
        }
        for (dirs, told) in each {
            desk.modify(key, 2, dirs, Mode::Edge);
            expect_one(&mut desk, 2, told, &why("modified"));
        }
        for (from, mode) in MODES.into_iter().flat_map(|from| MODES.map(|mode| (from, mode))) {
            desk.modify(key, 3, READ, from);
            desk.modify(key, 3, Interest::PRIORITY, mode);
            desk.expect_silence(&why("nothing is urgent"));
            desk.rearm(key, Interest::PRIORITY);
            desk.expect_silence(&why("nor when it is asked again"));
        }
        desk.modify(key, 4, READ | Interest::PRIORITY, Mode::Level);
        for _ in 0..3 {
            desk.expect_now(&[(4, Readiness::READABLE)], &why("level: in every wait"));
        }
        desk.deregister(key);
        for mode in MODES {
            let key = desk.register(file.clone(), 5, Interest::PRIORITY, mode);
            desk.expect_silence(&why("registered for what is urgent"));
            desk.deregister(key);
        }
    }
}

pub(super) fn f1_every_kind_of_file_can_be_watched(stage: &Stage) {
    for mode in MODES {
        for Kind { name, source, ring, .. } in kinds::readers() {
            let mut desk = stage.desk(4);
            let _kept = ring();
            let key = desk.register(source, 1, READ, mode);
            let said = desk.next(name);
            assert!(is_ready(&said, Readiness::READABLE), "{name}, {mode:?}: {said:?}");
            desk.deregister(key);
            desk.expect_silence(name);
        }
    }
}

fn is_ready(said: &Said, readiness: Readiness) -> bool {
    matches!(said[..], [(1, told)] if told.contains(readiness))
}

pub(super) fn t2_every_kind_of_file_ends_the_wait(stage: &Stage) {
    let directions = [
        (READ, Readiness::READABLE, kinds::readers as fn() -> _),
        (WRITE, Readiness::WRITABLE, kinds::writers),
    ];
    for (mode, (dirs, readiness, kinds)) in
        MODES.iter().flat_map(|&mode| directions.map(|d| (mode, d)))
    {
        for Kind { name, source, ring, is_settled } in kinds() {
            let mut desk = stage.desk(4);
            let key = desk.register(source, 1, dirs, mode);
            if is_settled {
                desk.expect_silence(name);
            }
            let waiter = Thread::current().id();
            let ringer = std::thread::spawn(move || {
                until_asleep(waiter);
                ring()
            });
            let said = desk.next(name);
            assert!(is_ready(&said, readiness), "{name}, {mode:?}: {said:?}");
            let _kept = ringer.join().unwrap_or_else(|_| panic!("{name}: it failed to happen"));
            desk.deregister(key);
            desk.expect_silence(name);
        }
    }
}
