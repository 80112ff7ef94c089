//! Clauses O: one-shot.

use super::util::*;
use crate::event::{Mode, Readiness, Token};
use std::io;
use std::sync::Arc;

pub(super) fn o1_once_until_rearmed(cx: &TestContext) {
    let mut harness = cx.harness(4);
    let (here, there) = stream();
    let key = harness.register(here.clone(), 1, READ, Mode::OneShot);
    put(&there, b"x");
    for _ in 0..3 {
        harness.expect_now(&[(1, Readiness::READABLE)], "armed");
        for _ in 0..3 {
            harness.expect_silence("already reported");
        }
        put(&there, b"more");
        harness.expect_silence("more data does not rearm");
        let again = harness.poller.register(here.clone(), Token(2), READ, Mode::OneShot);
        assert_eq!(refusal(again), io::ErrorKind::AlreadyExists, "still registered");
        harness.rearm(key, READ);
    }
    harness.deregister(key);
    harness.expect_silence("deregistered while armed");
}

pub(super) fn o1_drained_and_refilled_is_no_rearm(cx: &TestContext) {
    let mut harness = cx.harness(4);
    let (here, there) = stream();
    let key = harness.register(here.clone(), 1, READ, Mode::OneShot);
    put(&there, b"x");
    harness.expect_now(&[(1, Readiness::READABLE)], "armed");
    drain(&*here);
    harness.drained(key, READ);
    put(&there, b"y");
    harness.expect_silence("`drained` does not rearm");
    harness.rearm(key, READ);
    drain(&*here);
    harness.expect_silence("armed without data");
    put(&there, b"z");
    harness.expect_now(&[(1, Readiness::READABLE)], "armed with new data");
}

pub(super) fn o1_hang_up_does_not_break_the_silence(cx: &TestContext) {
    let mut harness = cx.harness(4);
    let (here, there) = stream();
    let key = harness.register(here, 1, READ, Mode::OneShot);
    put(&there, b"x");
    harness.expect_now(&[(1, Readiness::READABLE)], "armed");
    drop(there);
    harness.expect_silence("not armed when the peer closed");
    harness.rearm(key, READ);
    let end = Readiness::READABLE | Readiness::READ_CLOSED;
    harness.expect_now(&[(1, end)], "rearmed");
    harness.expect_silence("already reported");
}

pub(super) fn o1_one_direction_ends_both(cx: &TestContext) {
    let mut harness = cx.harness(4);
    let (here, there) = stream();
    let key = harness.register(here, 1, BOTH, Mode::OneShot);
    harness.expect_now(&[(1, Readiness::WRITABLE)], "room");
    put(&there, b"x");
    harness.expect_silence("one event disarms both directions");
    harness.rearm(key, BOTH);
    harness.expect_now(&[(1, Readiness::READABLE | Readiness::WRITABLE)], "both in one event");
}

pub(super) fn o1_modify_arms_again(cx: &TestContext) {
    let mut harness = cx.harness(4);
    let (here, there) = stream();
    let key = harness.register(here, 1, READ, Mode::OneShot);
    put(&there, b"x");
    harness.expect_now(&[(1, Readiness::READABLE)], "armed");
    harness.modify(key, 2, BOTH, Mode::OneShot);
    let both = Readiness::READABLE | Readiness::WRITABLE;
    harness.expect_now(&[(2, both)], "armed by modify");
    harness.expect_silence("already reported");
}

pub(super) fn o1_a_thousand_rounds_of_two_pollers(cx: &TestContext) {
    let (mut left, mut right) = (cx.harness(4), cx.harness(4));
    let (here, there) = stream();
    let there = Arc::new(there);
    let left_key = left.register(here.clone(), 1, READ, Mode::OneShot);
    let right_key = right.register(there.clone(), 2, READ, Mode::OneShot);
    for round in 0..1000 {
        put(&here, b"question");
        right.expect_now(&[(2, Readiness::READABLE)], &format!("round {round}"));
        assert_eq!(take(&there, 64), 8);
        right.rearm(right_key, READ);
        put(&there, b"answer");
        left.expect_now(&[(1, Readiness::READABLE)], &format!("round {round}"));
        assert_eq!(take(&here, 64), 6);
        left.rearm(left_key, READ);
    }
    left.expect_silence("every byte was read");
    right.expect_silence("every byte was read");
}
