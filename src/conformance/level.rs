//! Clauses L: level.

use super::many_files;
use super::util::*;
use crate::event::{Mode, Readiness};
use nix::poll::PollFlags;
use std::sync::Arc;

pub(super) fn l1_readable_repeats_until_drained(cx: &TestContext) {
    let mut harness = cx.harness(4);
    let (local, peer) = stream();
    harness.register(local.clone(), 1, READ, Mode::Level);
    harness.expect_silence("nothing to read");
    put(&peer, b"abc");
    for left in (0..3).rev() {
        for _ in 0..3 {
            harness.expect_now(&[(1, Readiness::READABLE)], "unread data is reported by each wait");
        }
        assert_eq!(take(&local, 1), 1, "{left} bytes left");
    }
    harness.expect_silence("every byte was read");
    put(&peer, b"d");
    harness.expect_now(&[(1, Readiness::READABLE)], "data again");
}

pub(super) fn l1_writable_repeats_until_full(cx: &TestContext) {
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

pub(super) fn l1_hundred_sources_are_reported_by_one_wait(cx: &TestContext) {
    for mode in MODES {
        let mut harness = cx.harness(256);
        let pairs: Vec<_> = (0..120).map(|_| stream()).collect();
        let streams = pairs.iter().enumerate();
        let keys: Vec<_> = streams
            .map(|(token, (local, _))| harness.register(local.clone(), token, READ, mode))
            .collect();
        harness.expect_silence("every source is idle");
        pairs.iter().for_each(|(_, peer)| put(peer, b"x"));
        let all: Reported = (0..120).map(|token| (token, Readiness::READABLE)).collect();
        harness.expect_now(&all, &format!("{mode:?}"));
        // Deregistering leaves holes in tables; the second round covers the rest.
        for (token, key) in keys.iter().enumerate().filter(|(token, _)| token % 3 == 0) {
            harness.deregister(*key);
            drain(&*pairs[token].0);
        }
        for (token, (local, peer)) in pairs.iter().enumerate().filter(|(token, _)| token % 3 != 0) {
            drain(&**local);
            harness.drained(keys[token], READ);
            put(peer, b"y");
            if mode == Mode::OneShot {
                harness.rearm(keys[token], READ);
            }
        }
        let rest: Reported = all.into_iter().filter(|event| event.0 % 3 != 0).collect();
        harness.expect_now(&rest, &format!("{mode:?}, second round"));
    }
}

pub(super) fn l1_events_follow_each_direction(cx: &TestContext) {
    let mut harness = cx.harness(4);
    let (local, peer) = stream();
    harness.register(local.clone(), 1, BOTH, Mode::Level);
    harness.expect_now(&[(1, Readiness::WRITABLE)], "room, no data");
    put(&peer, b"x");
    harness.expect_now(&[(1, Readiness::READABLE | Readiness::WRITABLE)], "room and data");
    fill(&*local);
    harness.expect_now(&[(1, Readiness::READABLE)], "data, no room");
    drain(&*local);
    harness.expect_silence("neither");
    drain(&peer);
    assert!(oracle(&local, PollFlags::POLLOUT).contains(PollFlags::POLLOUT));
    harness.expect_now(&[(1, Readiness::WRITABLE)], "room again");
}

pub(super) fn l2_data_read_before_wait_is_not_reported(cx: &TestContext) {
    for mode in MODES {
        let mut harness = cx.harness(4);
        let (local, peer) = stream();
        harness.register(local.clone(), 1, READ, mode);
        put(&peer, b"x");
        drain(&*local);
        harness.expect_silence(&format!("drained before the wait, {mode:?}"));
        put(&peer, b"y");
        harness.expect_now(&[(1, Readiness::READABLE)], "readable again");
    }
}

pub(super) fn l2_only_registered_directions_are_reported(cx: &TestContext) {
    for mode in MODES {
        let mut harness = cx.harness(4);
        let (reads, peer) = stream();
        let (writes, other_peer) = stream();
        put(&peer, b"x");
        put(&other_peer, b"x");
        harness.register(reads, 1, READ, mode);
        harness.register(writes, 2, WRITE, mode);
        let expected = [(1, Readiness::READABLE), (2, Readiness::WRITABLE)];
        harness.expect_now(&expected, &format!("{mode:?}"));
    }
}

/// Close to the limit of open files, with some descriptors spared.
const MANY: usize = 19_000;

pub(super) fn l1_busy_sources_are_reported_among_thousands(cx: &TestContext) {
    let groups = many_files::groups(cx, MANY);
    let mut harness = cx.harness(256);
    many_files::register_all(&mut harness, &groups);
    harness.expect_silence("every source is idle");
    let pairs: Vec<_> = (0..9).map(|_| stream()).collect();
    let busy = pairs.iter().enumerate().map(|(at, (local, _))| {
        let token = MANY + at;
        (token, harness.register(local.clone(), token, READ, many_files::mode_of(token)))
    });
    let busy: Vec<_> = busy.collect();
    let all: Reported = busy.iter().map(|&(token, _)| (token, Readiness::READABLE)).collect();
    for round in 0..4 {
        pairs.iter().for_each(|(_, peer)| put(peer, b"x"));
        harness.expect_now(&all, &format!("round {round}"));
        pairs.iter().for_each(|(local, _)| drain(&**local));
        for &(token, key) in &busy {
            match many_files::mode_of(token) {
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
    let readers = group * many_files::GROUP..(group + 1) * many_files::GROUP;
    let woken: Reported = readers.map(|token| (token, Readiness::READABLE)).collect();
    harness.expect_now(&woken, "the readers of one pipe");
}
