//! Clauses L: level.

use super::crowd;
use super::kit::*;
use crate::event::{Mode, Readiness};
use nix::poll::PollFlags;
use std::sync::Arc;

pub(super) fn l1_repeats_until_drained(stage: &Stage) {
    let mut desk = stage.desk(4);
    let (here, there) = stream();
    desk.register(here.clone(), 1, READ, Mode::Level);
    desk.expect_silence("nothing to read");
    put(&there, b"abc");
    for left in (0..3).rev() {
        for _ in 0..3 {
            desk.expect_now(&[(1, Readiness::READABLE)], "unread data is reported by each wait");
        }
        assert_eq!(take(&here, 1), 1, "{left} left");
    }
    desk.expect_silence("all is read");
    put(&there, b"d");
    desk.expect_now(&[(1, Readiness::READABLE)], "data again");
}

pub(super) fn l1_writable_until_full(stage: &Stage) {
    let mut desk = stage.desk(4);
    let (reader, writer) = pipe();
    let writer = Arc::new(writer);
    desk.register(writer.clone(), 1, WRITE, Mode::Level);
    for _ in 0..3 {
        desk.expect_now(&[(1, Readiness::WRITABLE)], "there is room");
    }
    fill(&*writer);
    desk.expect_silence("the pipe is full");
    drain(&reader);
    desk.expect_now(&[(1, Readiness::WRITABLE)], "there is room again");
}

pub(super) fn l1_hang_up_repeats(stage: &Stage) {
    let mut desk = stage.desk(4);
    let (reader, writer) = pipe();
    let key = desk.register(Arc::new(reader), 1, READ, Mode::Level);
    drop(writer);
    let end = Readiness::READABLE | Readiness::READ_CLOSED;
    for _ in 0..5 {
        desk.expect_now(&[(1, end)], "end of file stays ready");
    }
    desk.deregister(key);
    desk.expect_silence("deregistered");
}

pub(super) fn l1_a_hundred_sources_at_once(stage: &Stage) {
    for mode in MODES {
        let mut desk = stage.desk(256);
        let pairs: Vec<_> = (0..120).map(|_| stream()).collect();
        let streams = pairs.iter().enumerate();
        let keys: Vec<_> = streams
            .map(|(token, (here, _))| desk.register(here.clone(), token, READ, mode))
            .collect();
        desk.expect_silence("all are idle");
        pairs.iter().for_each(|(_, there)| put(there, b"x"));
        let all: Said = (0..120).map(|token| (token, Readiness::READABLE)).collect();
        desk.expect_now(&all, &format!("{mode:?}"));
        // Holes in the arrays, and then a second round over what is left.
        for (token, key) in keys.iter().enumerate().filter(|(token, _)| token % 3 == 0) {
            desk.deregister(*key);
            drain(&*pairs[token].0);
        }
        for (token, (here, there)) in pairs.iter().enumerate().filter(|(token, _)| token % 3 != 0) {
            drain(&**here);
            desk.drained(keys[token], READ);
            put(there, b"y");
            if mode == Mode::OneShot {
                desk.rearm(keys[token], READ);
            }
        }
        let rest: Said = all.into_iter().filter(|event| event.0 % 3 != 0).collect();
        desk.expect_now(&rest, &format!("{mode:?}, second round"));
    }
}

pub(super) fn l1_directions_come_and_go(stage: &Stage) {
    let mut desk = stage.desk(4);
    let (here, there) = stream();
    desk.register(here.clone(), 1, BOTH, Mode::Level);
    desk.expect_now(&[(1, Readiness::WRITABLE)], "room, no data");
    put(&there, b"x");
    desk.expect_now(&[(1, Readiness::READABLE | Readiness::WRITABLE)], "room and data");
    fill(&*here);
    desk.expect_now(&[(1, Readiness::READABLE)], "data, no room");
    drain(&*here);
    desk.expect_silence("neither");
    drain(&there);
    assert!(oracle(&here, PollFlags::POLLOUT).contains(PollFlags::POLLOUT));
    desk.expect_now(&[(1, Readiness::WRITABLE)], "room again");
}

pub(super) fn l2_what_was_read_meanwhile_is_not_reported(stage: &Stage) {
    for mode in MODES {
        let mut desk = stage.desk(4);
        let (here, there) = stream();
        desk.register(here.clone(), 1, READ, mode);
        put(&there, b"x");
        drain(&*here);
        desk.expect_silence(&format!("it was read before the wait began, {mode:?}"));
        put(&there, b"y");
        desk.expect_now(&[(1, Readiness::READABLE)], "and is watched still");
    }
}

pub(super) fn l2_only_what_was_asked_for(stage: &Stage) {
    for mode in MODES {
        let mut desk = stage.desk(4);
        let (reads, there) = stream();
        let (writes, there_too) = stream();
        put(&there, b"x");
        put(&there_too, b"x");
        desk.register(reads, 1, READ, mode);
        desk.register(writes, 2, WRITE, mode);
        let expected = [(1, Readiness::READABLE), (2, Readiness::WRITABLE)];
        desk.expect_now(&expected, &format!("{mode:?}"));
    }
}

/// As many as there may be, with some numbers left for the others.
const VERY_MANY: usize = 19_000;

pub(super) fn l1_a_few_are_busy_among_very_many(stage: &Stage) {
    let groups = crowd::groups(stage, VERY_MANY);
    let mut desk = stage.desk(256);
    crowd::register_all(&mut desk, &groups);
    desk.expect_silence("all are idle");
    let pairs: Vec<_> = (0..9).map(|_| stream()).collect();
    let busy = pairs.iter().enumerate().map(|(at, (here, _))| {
        let token = VERY_MANY + at;
        (token, desk.register(here.clone(), token, READ, crowd::mode_of(token)))
    });
    let busy: Vec<_> = busy.collect();
    let all: Said = busy.iter().map(|&(token, _)| (token, Readiness::READABLE)).collect();
    for round in 0..4 {
        pairs.iter().for_each(|(_, there)| put(there, b"x"));
        desk.expect_now(&all, &format!("round {round}"));
        pairs.iter().for_each(|(here, _)| drain(&**here));
        for &(token, key) in &busy {
            match crowd::mode_of(token) {
                Mode::Level => {}
                Mode::Edge => desk.drained(key, READ),
                Mode::OneShot => desk.rearm(key, READ),
            }
        }
        desk.expect_silence(&format!("round {round} is over"));
    }
    // And all of one group, of which nobody has said a word yet.
    let group = groups.len() / 2;
    assert_eq!(nix::unistd::write(&groups[group].writer, b"x"), Ok(1));
    let readers = group * crowd::GROUP..(group + 1) * crowd::GROUP;
    let woken: Said = readers.map(|token| (token, Readiness::READABLE)).collect();
    desk.expect_now(&woken, "the readers of one pipe");
}
