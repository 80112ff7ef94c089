//! Clauses O: one-shot.

use super::util::*;
use crate::event::{Mode, Readiness, Token};
use std::io;
use std::sync::Arc;

pub(super) fn o1_event_is_reported_once_until_rearm(cx: &TestContext) {
    let mut harness = cx.harness(4);
    let (local, peer) = stream();
    let key = harness.register(local.clone(), 1, READ, Mode::OneShot);
    put(&peer, b"x");
    for _ in 0..3 {
        harness.expect_now(&[(1, Readiness::READABLE)], "armed");
        for _ in 0..3 {
            harness.expect_silence("already reported");
        }
        put(&peer, b"more");
        harness.expect_silence("more data does not rearm");
        let again = harness.poller.register(local.clone(), Token(2), READ, Mode::OneShot);
        assert_eq!(expect_err_kind(again), io::ErrorKind::AlreadyExists, "still registered");
        harness.rearm(key, READ);
    }
    harness.deregister(key);
    harness.expect_silence("deregistered while armed");
}

pub(super) fn o1_drained_does_not_rearm(cx: &TestContext) {
    let mut harness = cx.harness(4);
    let (local, peer) = stream();
    let key = harness.register(local.clone(), 1, READ, Mode::OneShot);
    put(&peer, b"x");
    harness.expect_now(&[(1, Readiness::READABLE)], "armed");
    drain(&*local);
    harness.drained(key, READ);
    put(&peer, b"y");
    harness.expect_silence("`drained` does not rearm");
    harness.rearm(key, READ);
    drain(&*local);
    harness.expect_silence("armed without data");
    put(&peer, b"z");
    harness.expect_now(&[(1, Readiness::READABLE)], "armed with new data");
}

pub(super) fn o1_hang_up_is_silent_until_rearm(cx: &TestContext) {
    let mut harness = cx.harness(4);
    let (local, peer) = stream();
    let key = harness.register(local, 1, READ, Mode::OneShot);
    put(&peer, b"x");
    harness.expect_now(&[(1, Readiness::READABLE)], "armed");
    drop(peer);
    harness.expect_silence("not armed when the peer closed");
    harness.rearm(key, READ);
    let end = Readiness::READABLE | Readiness::READ_CLOSED;
    harness.expect_now(&[(1, end)], "rearmed");
    harness.expect_silence("already reported");
}

pub(super) fn o1_one_event_disarms_both_directions(cx: &TestContext) {
    let mut harness = cx.harness(4);
    let (local, peer) = stream();
    let key = harness.register(local, 1, BOTH, Mode::OneShot);
    harness.expect_now(&[(1, Readiness::WRITABLE)], "room");
    put(&peer, b"x");
    harness.expect_silence("one event disarms both directions");
    harness.rearm(key, BOTH);
    harness.expect_now(&[(1, Readiness::READABLE | Readiness::WRITABLE)], "both in one event");
}

pub(super) fn o1_modify_rearms(cx: &TestContext) {
    let mut harness = cx.harness(4);
    let (local, peer) = stream();
    let key = harness.register(local, 1, READ, Mode::OneShot);
    put(&peer, b"x");
    harness.expect_now(&[(1, Readiness::READABLE)], "armed");
    harness.modify(key, 2, BOTH, Mode::OneShot);
    let both = Readiness::READABLE | Readiness::WRITABLE;
    harness.expect_now(&[(2, both)], "armed by modify");
    harness.expect_silence("already reported");
}

pub(super) fn o1_two_pollers_alternate_a_thousand_times(cx: &TestContext) {
    let (mut left, mut right) = (cx.harness(4), cx.harness(4));
    let (local, peer) = stream();
    let peer = Arc::new(peer);
    let left_key = left.register(local.clone(), 1, READ, Mode::OneShot);
    let right_key = right.register(peer.clone(), 2, READ, Mode::OneShot);
    for round in 0..1000 {
        put(&local, b"question");
        right.expect_now(&[(2, Readiness::READABLE)], &format!("round {round}"));
        assert_eq!(take(&peer, 64), 8);
        right.rearm(right_key, READ);
        put(&peer, b"answer");
        left.expect_now(&[(1, Readiness::READABLE)], &format!("round {round}"));
        assert_eq!(take(&local, 64), 6);
        left.rearm(left_key, READ);
    }
    left.expect_silence("every byte was read");
    right.expect_silence("every byte was read");
}
