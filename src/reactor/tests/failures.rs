//! Failures of each selector call: nothing is lost or left half done.

use super::fake::{Call, FakeReactor, TestEventFd, slot};
use crate::event::{Interest, Mode, Token};
use crate::key::Key;
use crate::poll_bits::PollBits;
use crate::poller::Poller;
use crate::selector::{Deadline, Report, Trigger, Triggers};
use crate::testing::is_alone;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::io::{self, ErrorKind};
use std::time::Duration;

const R: Interest = Interest::READABLE;
const W: Interest = Interest::WRITABLE;
const ZERO: Option<Duration> = Some(Duration::ZERO);
const POLL: Call = Call::Wait(Deadline::Now);

fn out_of_memory() -> io::Error {
    ErrorKind::OutOfMemory.into()
}

/// Registers a readable source with token 0 for both directions.
fn register_one(native: Triggers, mode: Mode) -> (FakeReactor, TestEventFd, Key) {
    let (mut cx, eventfd) = (FakeReactor::new(native, 4), TestEventFd::readable());
    let key = cx.reactor.register(eventfd.source(), Token(0), R | W, mode).expect("fresh");
    cx.take_calls();
    (cx, eventfd, key)
}

fn refused(result: io::Result<()>) {
    assert_eq!(result.expect_err("the selector refuses").kind(), ErrorKind::OutOfMemory);
}

#[test]
fn failed_wait_keeps_wake_and_reports() {
    let (mut cx, _eventfd, key) = register_one(Triggers::EDGE, Mode::Edge);
    let fact = Report::Fact(slot(key), PollBits::IN);
    cx.script.borrow_mut().answer(&[fact], Err(out_of_memory()));
    cx.reactor.waker().wake();
    refused(cx.wait(None).map(drop));
    assert!(cx.events.is_empty());
    assert_eq!(cx.wait(None).expect("the next wait succeeds"), [0]);
    assert!(cx.events.woken());
    assert_eq!(cx.take_calls(), [POLL; 2]);
    assert!(cx.poll_now().is_empty() && !cx.events.woken());
}

#[test]
fn failed_wait_invents_no_wake() {
    let (mut cx, ..) = register_one(Triggers::EDGE, Mode::Edge);
    cx.script.borrow_mut().answer(&[], Err(out_of_memory()));
    refused(cx.wait(None).map(drop));
    assert!(cx.poll_now().is_empty() && !cx.events.woken());
}

#[test]
fn refused_register_leaves_no_trace() {
    let (mut cx, eventfd) = (FakeReactor::new(Triggers::LEVEL, 4), TestEventFd::new());
    cx.script.borrow_mut().refuse();
    let result = cx.reactor.register(eventfd.source(), Token(0), R, Mode::Level);
    refused(result.map(drop));
    cx.reactor.verify();
    assert_eq!(eventfd.handles(), 1);
    let key = cx.reactor.register(eventfd.source(), Token(0), R, Mode::Level).expect("free");
    let armed = Call::Arm(slot(key), R, Trigger::Level);
    assert_eq!(cx.take_calls(), [armed, armed], "the slot is reused");
}

#[test]
fn refused_modify_changes_nothing() {
    let (mut cx, _eventfd, key) = register_one(Triggers::LEVEL, Mode::OneShot);
    cx.script.borrow_mut().refuse();
    refused(cx.reactor.modify(key, Token(9), W, Mode::Level));
    let report = [Report::Fact(slot(key), PollBits::IN)];
    cx.script.borrow_mut().report(&report);
    assert_eq!(cx.poll_now(), [0], "the old token, interest and mode");
    cx.script.borrow_mut().report(&report);
    assert_eq!(cx.poll_now(), []);
    cx.reactor.rearm(key, R | W).expect("the old interest");
}

#[test]
fn refused_modify_keeps_source_dirty() {
    let (mut cx, _eventfd, key) = register_one(Triggers::LEVEL, Mode::OneShot);
    cx.script.borrow_mut().report(&[Report::Fact(slot(key), PollBits::IN)]);
    assert_eq!(cx.poll_now(), [0]);
    cx.script.borrow_mut().refuse();
    refused(cx.reactor.modify(key, Token(9), W, Mode::Level));
    cx.take_calls();
    cx.poll_now();
    assert_eq!(cx.take_calls(), [Call::Disarm(slot(key)), POLL]);
}

#[test]
fn refused_rearm_arms_nothing() {
    for mode in [Mode::OneShot, Mode::Edge] {
        let (mut cx, _eventfd, key) = register_one(Triggers::LEVEL, mode);
        let report = [Report::Fact(slot(key), PollBits::IN | PollBits::OUT)];
        cx.script.borrow_mut().report(&report);
        assert_eq!(cx.poll_now(), [0]);
        cx.script.borrow_mut().refuse();
        refused(cx.reactor.rearm(key, R));
        cx.script.borrow_mut().report(&report);
        assert_eq!(cx.poll_now(), [], "{mode:?}");
        cx.reactor.rearm(key, R).expect("the next call succeeds");
        cx.script.borrow_mut().report(&report);
        assert_eq!(cx.poll_now(), [0], "{mode:?}");
    }
}

#[test]
fn refused_drained_arms_nothing() {
    let (mut cx, _eventfd, key) = register_one(Triggers::LEVEL, Mode::Edge);
    let report = [Report::Fact(slot(key), PollBits::IN | PollBits::OUT)];
    cx.script.borrow_mut().report(&report);
    assert_eq!(cx.poll_now(), [0]);
    cx.script.borrow_mut().refuse();
    refused(cx.reactor.drained(key, R));
    cx.script.borrow_mut().report(&report);
    assert_eq!(cx.poll_now(), []);
    cx.reactor.drained(key, R).expect("the next call succeeds");
    cx.script.borrow_mut().report(&report);
    assert_eq!(cx.poll_now(), [0]);
}

/// Registers three sources that deliveries have made dirty.
fn three_dirty() -> (FakeReactor, [TestEventFd; 3], Vec<Key>) {
    let (mut cx, eventfds) =
        (FakeReactor::new(Triggers::ONESHOT, 4), [(); 3].map(|()| TestEventFd::readable()));
    let register = |eventfd: &TestEventFd| {
        cx.reactor.register(eventfd.source(), Token(0), R, Mode::Level).expect("fresh")
    };
    let keys: Vec<_> = eventfds.iter().map(register).collect();
    let raw: Vec<_> = keys.iter().map(|&key| Report::Fact(slot(key), PollBits::IN)).collect();
    cx.script.borrow_mut().report(&raw);
    assert_eq!(cx.poll_now().len(), 3);
    cx.take_calls();
    (cx, eventfds, keys)
}

#[test]
fn dirty_source_is_retried_until_armed() {
    let (mut cx, eventfds, keys) = three_dirty();
    eventfds.iter().for_each(TestEventFd::clear);
    let arm = |key: &Key| Call::Arm(slot(*key), R, Trigger::OneShot);
    cx.script.borrow_mut().refuse();
    refused(cx.wait(None).map(drop));
    let mut calls: Vec<_> = keys.iter().map(arm).collect();
    calls.push(POLL);
    assert_eq!(cx.take_calls(), calls, "one refusal affects no other, and prevents sleep");
    for _ in 0..3 {
        cx.script.borrow_mut().refuse();
        refused(cx.wait(None).map(drop));
        assert_eq!(cx.take_calls(), [arm(&keys[0]), POLL], "only the refused one is retried");
    }
    cx.poll_now();
    assert_eq!(cx.take_calls(), [arm(&keys[0]), POLL], "the retry succeeds");
    cx.poll_now();
    assert_eq!(cx.take_calls(), [POLL]);
}

#[test]
fn refused_source_is_polled() {
    let (mut cx, eventfds, keys) = three_dirty();
    for _ in 0..3 {
        cx.script.borrow_mut().refuse();
        cx.wait(None).expect("there is an event");
        let reported: Vec<_> = cx.events.iter().map(|event| event.key).collect();
        assert_eq!(reported, [keys[0]], "the readable one; the others are watched");
    }
    eventfds[0].clear();
    cx.script.borrow_mut().refuse();
    refused(cx.wait(None).map(drop));
}

#[test]
fn wake_outweighs_refused_arming() {
    let (mut cx, eventfds, _keys) = three_dirty();
    eventfds.iter().for_each(TestEventFd::clear);
    for _ in 0..3 {
        cx.script.borrow_mut().refuse();
        cx.reactor.waker().wake();
        cx.wait(None).expect("there is a wake");
        assert!(cx.events.woken() && cx.events.is_empty());
    }
    cx.script.borrow_mut().refuse();
    refused(cx.wait(None).map(drop));
}

#[test]
fn deregistered_source_is_not_armed_again() {
    let (mut cx, _eventfds, keys) = three_dirty();
    cx.reactor.deregister(keys[1]).expect("known");
    cx.reactor.rearm(keys[2], R).expect("known");
    let armed = |key| Call::Arm(slot(key), R, Trigger::OneShot);
    assert_eq!(cx.take_calls(), [Call::Remove(slot(keys[1])), armed(keys[2])]);
    cx.poll_now();
    assert_eq!(cx.take_calls(), [armed(keys[0]), POLL], "the rearm has armed the last");
}

#[test]
fn modify_cleans_dirty_source() {
    let (mut cx, _eventfds, keys) = three_dirty();
    cx.reactor.modify(keys[0], Token(0), W, Mode::OneShot).expect("known");
    cx.reactor.modify(keys[1], Token(0), Interest::empty(), Mode::Level).expect("known");
    cx.reactor.rearm(keys[2], R).expect("known");
    cx.take_calls();
    cx.poll_now();
    assert_eq!(cx.take_calls(), [POLL], "arming twice would report twice");
}

#[test]
fn kernel_error_is_passed_on_unchanged() {
    let (mut cx, _eventfd, key) = register_one(Triggers::LEVEL, Mode::Level);
    let raw = || io::Error::from_raw_os_error(libc::ENOSPC);
    cx.script.borrow_mut().refusals.push_back(raw());
    let error = cx.reactor.rearm(key, R).expect_err("refused");
    assert_eq!(error.raw_os_error(), Some(libc::ENOSPC));
    cx.script.borrow_mut().answer(&[], Err(raw()));
    let error = cx.wait(ZERO).expect_err("refused");
    assert_eq!(error.raw_os_error(), Some(libc::ENOSPC));
}

/// The first part of the queue needs no poll, and the poll of the second is refused.
#[test]
fn found_events_outweigh_poll_error() {
    if !is_alone("reactor::tests::failures::found_events_outweigh_poll_error") {
        return;
    }
    let mut cx = FakeReactor::new(Triggers::EDGE, 2);
    let eventfds = [(); 3].map(|()| TestEventFd::readable());
    let register = |eventfd: &TestEventFd| {
        cx.reactor.register(eventfd.source(), Token(0), R, Mode::Edge).expect("fresh")
    };
    let keys: Vec<_> = eventfds.iter().map(register).collect();
    let fact = |key, bits| Report::Fact(slot(key), bits);
    let (true_report, unwanted) = (fact(keys[0], PollBits::IN), fact(keys[1], PollBits::OUT));
    cx.script.borrow_mut().report(&[true_report, unwanted, Report::Hint(slot(keys[2]))]);
    cx.reactor.waker().wake();
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("it has a limit");
    setrlimit(Resource::RLIMIT_NOFILE, 0, hard).expect("lower is allowed");
    let first = cx.wait(ZERO).map(|_| cx.events.iter().next().map(|event| event.key));
    let woken = cx.events.woken();
    let second = cx.wait(ZERO);
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard).expect("up to the hard limit is allowed");
    assert_eq!(first.expect("one is found"), Some(keys[0]));
    assert!(woken, "the wake is reported too");
    assert_eq!(second.expect_err("nothing is found").kind(), ErrorKind::InvalidInput);
    assert_eq!(cx.poll_now().len(), 1, "the report is kept");
    assert!(!cx.events.woken(), "the wake is reported once");
}
