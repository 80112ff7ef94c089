//! Clauses L: level.

use super::crowd;
use super::util::*;
use crate::event::{Mode, Readiness};
use nix::poll::PollFlags;
use std::sync::Arc;

pub(super) fn l1_repeats_until_drained(cx: &TestContext) {
    let mut harness = cx.harness(4);
    let (here, there) = stream();
    harness.register(here.clone(), 1, READ, Mode::Level);
    harness.expect_silence("nothing to read");
    put(&there, b"abc");
    for left in (0..3).rev() {
        for _ in 0..3 {
            harness.expect_now(&[(1, Readiness::READABLE)], "unread data is reported by each wait");
        }
        assert_eq!(take(&here, 1), 1, "{left} bytes left");
    }
    harness.expect_silence("every byte was read");
    put(&there, b"d");
    harness.expect_now(&[(1, Readiness::READABLE)], "data again");
}

pub(super) fn l1_writable_until_full(cx: &TestContext) {
    let mut harness = cx.harness(4);
    let (reader, writer) = pipe();
    let writer = Arc::new(writer);
    harness.register(writer.clone(), 1, WRITE, Mode::Level);
    for _ in 0..3 {
        harness.expect_now(&[(1, Readiness::WRITABLE)], "there is room");
    }
    fill(&*writer);
    harness.expect_silence("the pipe is full");
    drain(&reader);
    harness.expect_now(&[(1, Readiness::WRITABLE)], "there is room again");
}

pub(super) fn l1_hang_up_repeats(cx: &TestContext) {
    let mut harness = cx.harness(4);
    let (reader, writer) = pipe();
    let key = harness.register(Arc::new(reader), 1, READ, Mode::Level);
    drop(writer);
    let end = Readiness::READABLE | Readiness::READ_CLOSED;
    for _ in 0..5 {
        harness.expect_now(&[(1, end)], "end of file stays ready");
    }
    harness.deregister(key);
    harness.expect_silence("deregistered");
}

pub(super) fn l1_a_hundred_sources_at_once(cx: &TestContext) {
    for mode in MODES {
        let mut harness = cx.harness(256);
        let pairs: Vec<_> = (0..120).map(|_| stream()).collect();
        let streams = pairs.iter().enumerate();
        let keys: Vec<_> = streams
            .map(|(token, (here, _))| harness.register(here.clone(), token, READ, mode))
            .collect();
        harness.expect_silence("every source is idle");
        pairs.iter().for_each(|(_, there)| put(there, b"x"));
        let all: Said = (0..120).map(|token| (token, Readiness::READABLE)).collect();
        harness.expect_now(&all, &format!("{mode:?}"));
        // Deregistering leaves holes in tables; the second round covers the rest.
        for (token, key) in keys.iter().enumerate().filter(|(token, _)| token % 3 == 0) {
            harness.deregister(*key);
            drain(&*pairs[token].0);
        }
        for (token, (here, there)) in pairs.iter().enumerate().filter(|(token, _)| token % 3 != 0) {
            drain(&**here);
            harness.drained(keys[token], READ);
            put(there, b"y");
            if mode == Mode::OneShot {
                harness.rearm(keys[token], READ);
            }
        }
        let rest: Said = all.into_iter().filter(|event| event.0 % 3 != 0).collect();
        harness.expect_now(&rest, &format!("{mode:?}, second round"));
    }
}

pub(super) fn l1_directions_come_and_go(cx: &TestContext) {
    let mut harness = cx.harness(4);
    let (here, there) = stream();
    harness.register(here.clone(), 1, BOTH, Mode::Level);
    harness.expect_now(&[(1, Readiness::WRITABLE)], "room, no data");
    put(&there, b"x");
    harness.expect_now(&[(1, Readiness::READABLE | Readiness::WRITABLE)], "room and data");
    fill(&*here);
    harness.expect_now(&[(1, Readiness::READABLE)], "data, no room");
    drain(&*here);
    harness.expect_silence("neither");
    drain(&there);
    assert!(oracle(&here, PollFlags::POLLOUT).contains(PollFlags::POLLOUT));
    harness.expect_now(&[(1, Readiness::WRITABLE)], "room again");
}

pub(super) fn l2_what_was_read_meanwhile_is_not_reported(cx: &TestContext) {
    for mode in MODES {
        let mut harness = cx.harness(4);
        let (here, there) = stream();
        harness.register(here.clone(), 1, READ, mode);
        put(&there, b"x");
        drain(&*here);
        harness.expect_silence(&format!("drained before the wait, {mode:?}"));
        put(&there, b"y");
        harness.expect_now(&[(1, Readiness::READABLE)], "readable again");
    }
}

pub(super) fn l2_only_what_was_asked_for(cx: &TestContext) {
    for mode in MODES {
        let mut harness = cx.harness(4);
        let (reads, there) = stream();
        let (writes, there_too) = stream();
        put(&there, b"x");
        put(&there_too, b"x");
        harness.register(reads, 1, READ, mode);
        harness.register(writes, 2, WRITE, mode);
        let expected = [(1, Readiness::READABLE), (2, Readiness::WRITABLE)];
        harness.expect_now(&expected, &format!("{mode:?}"));
    }
}

/// Close to the limit of open files, with some descriptors spared.
const VERY_MANY: usize = 19_000;

pub(super) fn l1_a_few_are_busy_among_very_many(cx: &TestContext) {
    let groups = crowd::groups(cx, VERY_MANY);
    let mut harness = cx.harness(256);
    crowd::register_all(&mut harness, &groups);
    harness.expect_silence("every source is idle");
    let pairs: Vec<_> = (0..9).map(|_| stream()).collect();
    let busy = pairs.iter().enumerate().map(|(at, (here, _))| {
        let token = VERY_MANY + at;
        (token, harness.register(here.clone(), token, READ, crowd::mode_of(token)))
    });
    let busy: Vec<_> = busy.collect();
    let all: Said = busy.iter().map(|&(token, _)| (token, Readiness::READABLE)).collect();
    for round in 0..4 {
        pairs.iter().for_each(|(_, there)| put(there, b"x"));
        harness.expect_now(&all, &format!("round {round}"));
        pairs.iter().for_each(|(here, _)| drain(&**here));
        for &(token, key) in &busy {
            match crowd::mode_of(token) {
                Mode::Level => {}
                Mode::Edge => harness.drained(key, READ),
                Mode::OneShot => harness.rearm(key, READ),
            }
        }
        harness.expect_silence(&format!("round {round} is over"));
    }
    // All readers of one group, which was idle until now.
    let group = groups.len() / 2;
    assert_eq!(nix::unistd::write(&groups[group].writer, b"x"), Ok(1));
    let readers = group * crowd::GROUP..(group + 1) * crowd::GROUP;
    let woken: Said = readers.map(|token| (token, Readiness::READABLE)).collect();
    harness.expect_now(&woken, "the readers of one pipe");
}
