//! Clauses Q: capacity.

use super::many_files;
use super::util::*;
use crate::event::{Events, Mode, Readiness};
use crate::key::Key;
use crate::poller::Source;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

type Pairs = Vec<(Arc<UnixStream>, UnixStream)>;

/// Registers `count` streams with data to read; their tokens count from 0.
fn ready_streams(harness: &mut ReadinessHarness, count: usize, mode: Mode) -> Pairs {
    let pairs: Pairs = (0..count).map(|_| stream()).collect();
    for (token, (local, peer)) in pairs.iter().enumerate() {
        harness.register(local.clone(), token, READ, mode);
        put(peer, b"x");
    }
    pairs
}

pub(super) fn q1_wait_reports_at_most_its_capacity(cx: &TestContext) {
    for mode in [Mode::Edge, Mode::OneShot] {
        for capacity in [1, 3, 7, 20, 64] {
            let mut harness = cx.harness(capacity);
            let _pairs = ready_streams(&mut harness, 20, mode);
            let mut seen = Vec::new();
            for _ in 0..20_usize.div_ceil(capacity) {
                seen.extend(harness.ready_now().into_iter().map(|event| event.0));
            }
            seen.sort_unstable();
            let all: Vec<usize> = (0..20).collect();
            assert_eq!(seen, all, "each once, in the fewest waits; {mode:?}, {capacity}");
            harness.expect_silence("already reported");
        }
    }
}

pub(super) fn q1_events_beyond_capacity_are_verified_again(cx: &TestContext) {
    for mode in MODES {
        let mut harness = cx.harness(3);
        let pairs = ready_streams(&mut harness, 9, mode);
        let first = harness.ready_now();
        assert_eq!(first.len(), 3);
        let unreported = |token: &usize| first.iter().all(|event| event.0 != *token);
        let unreported: Vec<usize> = (0..9).filter(unreported).collect();
        pairs.iter().for_each(|(local, _)| drain(&**local));
        harness.expect_silence("drained after it was queued");
        for &token in &unreported {
            put(&pairs[token].1, b"y");
        }
        let mut seen = Vec::new();
        for _ in 0..2 {
            let reported = harness.ready_now();
            assert!(reported.iter().all(|event| event.1 == Readiness::READABLE));
            seen.extend(reported.into_iter().map(|event| event.0));
        }
        seen.sort_unstable();
        assert_eq!(seen, unreported, "{mode:?}: sources left out are still reported");
    }
}

pub(super) fn q1_zero_capacity_is_invalid_input(cx: &TestContext) {
    let mut harness = cx.harness(0);
    let (local, peer) = stream();
    harness.register(local, 1, READ, Mode::Edge);
    put(&peer, b"x");
    let answer = harness.poller.wait(&mut harness.events, Some(ZERO));
    assert_eq!(expect_err_kind(answer), io::ErrorKind::InvalidInput);
    harness.events = Events::with_capacity(1);
    harness.expect_now(&[(1, Readiness::READABLE)], "the refused wait loses no report");
}

pub(super) fn q2_ready_sources_rotate_without_starvation(cx: &TestContext) {
    for capacity in [1, 2, 3, 7, 19] {
        let mut harness = cx.harness(capacity);
        let _pairs = ready_streams(&mut harness, 20, Mode::Level);
        // By token: the summed capacities of the waits since its last report.
        let mut passed_over: BTreeMap<usize, usize> = (0..20).map(|token| (token, 0)).collect();
        for _ in 0..100 {
            let reported = harness.ready_now();
            assert_eq!(reported.len(), capacity, "every source is ready, so each wait is full");
            for (token, passed) in &mut passed_over {
                let is_reported = reported.iter().any(|event| event.0 == *token);
                *passed = if is_reported { 0 } else { *passed + capacity };
                assert!(*passed < 20 + capacity, "{token} was passed over; capacity {capacity}");
                assert!(
                    *passed - if is_reported { 0 } else { capacity } < 20,
                    "{token} was left out of waits for {passed} events, of 20 sources"
                );
            }
        }
    }
}

pub(super) fn q2_late_source_is_reported_in_turn(cx: &TestContext) {
    for capacity in [1, 3] {
        let mut harness = cx.harness(capacity);
        let (late, late_peer) = stream();
        harness.register(late.clone(), 99, READ, Mode::Level);
        let _pairs = ready_streams(&mut harness, 15, Mode::Level);
        for round in 0..10 {
            (0..round).for_each(|_| assert_eq!(harness.ready_now().len(), capacity));
            put(&late_peer, b"x");
            let mut passed = 0;
            while !harness.ready_now().iter().any(|event| event.0 == 99) {
                passed += capacity;
                assert!(passed < 16, "left out of waits for {passed} events, of 16 sources");
            }
            drain(&*late);
        }
    }
}

/// A wait reports one of two ready sources, which a third then replaces. The source left out must
/// be next.
pub(super) fn q2_newcomer_overtakes_no_ready_source(cx: &TestContext) {
    for (mode, is_device) in MODES.into_iter().flat_map(|mode| [(mode, false), (mode, true)]) {
        let mut harness = cx.harness(1);
        // A stream whose peer has closed, or a device that is always ready.
        let source = |is_device| -> Source {
            if is_device {
                Arc::new(File::open("/dev/null").expect("/dev/null"))
            } else {
                stream().0
            }
        };
        let mut keys: BTreeMap<usize, Key> = BTreeMap::new();
        for token in 0..2 {
            keys.insert(token, harness.register(source(false), token, READ, Mode::Level));
        }
        for newcomer in 2..8 {
            let reported = harness.ready_now()[0].0;
            harness.deregister(keys.remove(&reported).expect("registered"));
            keys.insert(newcomer, harness.register(source(is_device), newcomer, READ, mode));
            let left_out = *keys.keys().next().expect("two are registered");
            let reported = harness.ready_now();
            assert_eq!(reported[0].0, left_out, "{mode:?}, newcomers are devices: {is_device}");
        }
    }
}

/// A multiple of the capacities that the cases use.
const MANY: usize = 2002;

fn register_streams(harness: &mut ReadinessHarness, streams: &[Arc<UnixStream>], mode: Mode) {
    for (token, stream) in streams.iter().enumerate() {
        harness.register(stream.clone(), token, READ, mode);
    }
}

/// Waits until every one of `count` sources must have been reported, and fails unless each was
/// reported once.
fn rotation(harness: &mut ReadinessHarness, count: usize, why: &str) {
    let mut seen = vec![0_u32; count];
    for _ in 0..count / harness.events.capacity() {
        harness.wait(Some(ZERO));
        assert_eq!(harness.events.len(), harness.events.capacity(), "every source is ready; {why}");
        harness.events.iter().for_each(|event| seen[event.token.0] += 1);
    }
    let odd = seen.iter().enumerate().find(|&(_, &times)| times != 1);
    assert_eq!(odd, None, "each of {count} is reported once before any repeats; {why}");
}

pub(super) fn q1_two_thousand_sources_are_reported_once_each(cx: &TestContext) {
    let streams = many_files::ready_streams(cx, MANY);
    for mode in [Mode::Edge, Mode::OneShot] {
        for capacity in [7, 1] {
            let mut harness = cx.harness(capacity);
            register_streams(&mut harness, &streams, mode);
            // Readiness after the registration must be reported in the same way.
            streams.iter().step_by(2).for_each(|stream| put(stream, b"y"));
            rotation(&mut harness, streams.len(), &format!("{mode:?}, capacity {capacity}"));
            harness.expect_silence("already reported");
        }
    }
}

pub(super) fn q2_two_thousand_sources_rotate_without_starvation(cx: &TestContext) {
    let streams = many_files::ready_streams(cx, MANY);
    for capacity in [7, 1] {
        let mut harness = cx.harness(capacity);
        register_streams(&mut harness, &streams, Mode::Level);
        rotation(&mut harness, streams.len(), &format!("capacity {capacity}"));
    }
}
