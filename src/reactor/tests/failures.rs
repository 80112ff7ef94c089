//! A selector that fails, call by call: nothing is lost, and nothing is half done.

use super::fake::{Bell, Call, Stage, slot};
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
const LOOK: Call = Call::Wait(Deadline::Now);

fn out_of_memory() -> io::Error {
    ErrorKind::OutOfMemory.into()
}

/// A bell that rings, registered with token 0 for both directions.
fn one(native: Triggers, mode: Mode) -> (Stage, Bell, Key) {
    let (mut stage, bell) = (Stage::new(native, 4), Bell::ringing());
    let key = stage.reactor.register(bell.source(), Token(0), R | W, mode).expect("fresh");
    stage.take_calls();
    (stage, bell, key)
}

fn refused(result: io::Result<()>) {
    assert_eq!(result.expect_err("the selector refuses").kind(), ErrorKind::OutOfMemory);
}

#[test]
fn a_wait_that_fails_keeps_the_wake_and_what_was_reported() {
    let (mut stage, _bell, key) = one(Triggers::EDGE, Mode::Edge);
    let fact = Report::Fact(slot(key), PollBits::IN);
    stage.script.borrow_mut().answer(&[fact], Err(out_of_memory()));
    stage.reactor.waker().wake();
    refused(stage.wait(None).map(drop));
    assert!(stage.events.is_empty());
    assert_eq!(stage.wait(None).expect("once was enough"), [0]);
    assert!(stage.events.woken());
    assert_eq!(stage.take_calls(), [LOOK; 2]);
    assert!(stage.look().is_empty() && !stage.events.woken());
}

#[test]
fn a_wait_that_fails_invents_no_wake() {
    let (mut stage, ..) = one(Triggers::EDGE, Mode::Edge);
    stage.script.borrow_mut().answer(&[], Err(out_of_memory()));
    refused(stage.wait(None).map(drop));
    assert!(stage.look().is_empty() && !stage.events.woken());
}

#[test]
fn a_register_that_is_refused_leaves_no_trace() {
    let (mut stage, bell) = (Stage::new(Triggers::LEVEL, 4), Bell::new());
    stage.script.borrow_mut().refuse();
    let result = stage.reactor.register(bell.source(), Token(0), R, Mode::Level);
    refused(result.map(drop));
    stage.reactor.verify();
    assert_eq!(bell.handles(), 1);
    let key = stage.reactor.register(bell.source(), Token(0), R, Mode::Level).expect("free");
    let armed = Call::Arm(slot(key), R, Trigger::Level);
    assert_eq!(stage.take_calls(), [armed, armed], "the slot was not used up");
}

#[test]
fn a_modify_that_is_refused_changes_nothing() {
    let (mut stage, _bell, key) = one(Triggers::LEVEL, Mode::OneShot);
    stage.script.borrow_mut().refuse();
    refused(stage.reactor.modify(key, Token(9), W, Mode::Level));
    let report = [Report::Fact(slot(key), PollBits::IN)];
    stage.script.borrow_mut().report(&report);
    assert_eq!(stage.look(), [0], "the old token, interest and mode");
    stage.script.borrow_mut().report(&report);
    assert_eq!(stage.look(), []);
    stage.reactor.rearm(key, R | W).expect("the old interest");
}

#[test]
fn a_modify_that_is_refused_does_not_forget_what_lags() {
    let (mut stage, _bell, key) = one(Triggers::LEVEL, Mode::OneShot);
    stage.script.borrow_mut().report(&[Report::Fact(slot(key), PollBits::IN)]);
    assert_eq!(stage.look(), [0]);
    stage.script.borrow_mut().refuse();
    refused(stage.reactor.modify(key, Token(9), W, Mode::Level));
    stage.take_calls();
    stage.look();
    assert_eq!(stage.take_calls(), [Call::Disarm(slot(key)), LOOK]);
}

#[test]
fn a_rearm_that_is_refused_arms_nothing() {
    for mode in [Mode::OneShot, Mode::Edge] {
        let (mut stage, _bell, key) = one(Triggers::LEVEL, mode);
        let report = [Report::Fact(slot(key), PollBits::IN | PollBits::OUT)];
        stage.script.borrow_mut().report(&report);
        assert_eq!(stage.look(), [0]);
        stage.script.borrow_mut().refuse();
        refused(stage.reactor.rearm(key, R));
        stage.script.borrow_mut().report(&report);
        assert_eq!(stage.look(), [], "{mode:?}");
        stage.reactor.rearm(key, R).expect("once was enough");
        stage.script.borrow_mut().report(&report);
        assert_eq!(stage.look(), [0], "{mode:?}");
    }
}

#[test]
fn a_drained_that_is_refused_arms_nothing() {
    let (mut stage, _bell, key) = one(Triggers::LEVEL, Mode::Edge);
    let report = [Report::Fact(slot(key), PollBits::IN | PollBits::OUT)];
    stage.script.borrow_mut().report(&report);
    assert_eq!(stage.look(), [0]);
    stage.script.borrow_mut().refuse();
    refused(stage.reactor.drained(key, R));
    stage.script.borrow_mut().report(&report);
    assert_eq!(stage.look(), []);
    stage.reactor.drained(key, R).expect("once was enough");
    stage.script.borrow_mut().report(&report);
    assert_eq!(stage.look(), [0]);
}

/// Three sources of which deliveries have left the kernel behind.
fn three_that_lag() -> (Stage, [Bell; 3], Vec<Key>) {
    let (mut stage, bells) = (Stage::new(Triggers::ONESHOT, 4), [(); 3].map(|()| Bell::ringing()));
    let register = |bell: &Bell| {
        stage.reactor.register(bell.source(), Token(0), R, Mode::Level).expect("fresh")
    };
    let keys: Vec<_> = bells.iter().map(register).collect();
    let raw: Vec<_> = keys.iter().map(|&key| Report::Fact(slot(key), PollBits::IN)).collect();
    stage.script.borrow_mut().report(&raw);
    assert_eq!(stage.look().len(), 3);
    stage.take_calls();
    (stage, bells, keys)
}

#[test]
fn what_lags_is_tried_until_it_succeeds() {
    let (mut stage, bells, keys) = three_that_lag();
    bells.iter().for_each(Bell::hush);
    let arm = |key: &Key| Call::Arm(slot(*key), R, Trigger::OneShot);
    stage.script.borrow_mut().refuse();
    refused(stage.wait(None).map(drop));
    let mut calls: Vec<_> = keys.iter().map(arm).collect();
    calls.push(LOOK);
    assert_eq!(stage.take_calls(), calls, "one refusal hinders no other, and is not slept on");
    for _ in 0..3 {
        stage.script.borrow_mut().refuse();
        refused(stage.wait(None).map(drop));
        assert_eq!(stage.take_calls(), [arm(&keys[0]), LOOK], "it is tried again, alone");
    }
    stage.look();
    assert_eq!(stage.take_calls(), [arm(&keys[0]), LOOK], "until it succeeds");
    stage.look();
    assert_eq!(stage.take_calls(), [LOOK]);
}

#[test]
fn what_the_kernel_refuses_to_watch_is_looked_at() {
    let (mut stage, bells, keys) = three_that_lag();
    for _ in 0..3 {
        stage.script.borrow_mut().refuse();
        stage.wait(None).expect("there is an event");
        let told: Vec<_> = stage.events.iter().map(|event| event.key).collect();
        assert_eq!(told, [keys[0]], "its bell rings, and the other two are watched");
    }
    bells[0].hush();
    stage.script.borrow_mut().refuse();
    refused(stage.wait(None).map(drop));
}

#[test]
fn a_wake_outweighs_what_lags() {
    let (mut stage, bells, _keys) = three_that_lag();
    bells.iter().for_each(Bell::hush);
    for _ in 0..3 {
        stage.script.borrow_mut().refuse();
        stage.reactor.waker().wake();
        stage.wait(None).expect("there is a wake");
        assert!(stage.events.woken() && stage.events.is_empty());
    }
    stage.script.borrow_mut().refuse();
    refused(stage.wait(None).map(drop));
}

#[test]
fn a_source_that_is_gone_lags_no_more() {
    let (mut stage, _bells, keys) = three_that_lag();
    stage.reactor.deregister(keys[1]).expect("known");
    stage.reactor.rearm(keys[2], R).expect("known");
    let armed = |key| Call::Arm(slot(key), R, Trigger::OneShot);
    assert_eq!(stage.take_calls(), [Call::Remove(slot(keys[1])), armed(keys[2])]);
    stage.look();
    assert_eq!(stage.take_calls(), [armed(keys[0]), LOOK], "the rearm has seen to the last");
}

#[test]
fn a_modify_sees_to_what_lagged() {
    let (mut stage, _bells, keys) = three_that_lag();
    stage.reactor.modify(keys[0], Token(0), W, Mode::OneShot).expect("known");
    stage.reactor.modify(keys[1], Token(0), Interest::empty(), Mode::Level).expect("known");
    stage.reactor.rearm(keys[2], R).expect("known");
    stage.take_calls();
    stage.look();
    assert_eq!(stage.take_calls(), [LOOK], "arming twice would report twice");
}

#[test]
fn an_error_of_the_kernels_comes_through_as_it_is() {
    let (mut stage, _bell, key) = one(Triggers::LEVEL, Mode::Level);
    let raw = || io::Error::from_raw_os_error(libc::ENOSPC);
    stage.script.borrow_mut().refusals.push_back(raw());
    let error = stage.reactor.rearm(key, R).expect_err("refused");
    assert_eq!(error.raw_os_error(), Some(libc::ENOSPC));
    stage.script.borrow_mut().answer(&[], Err(raw()));
    let error = stage.wait(ZERO).expect_err("refused");
    assert_eq!(error.raw_os_error(), Some(libc::ENOSPC));
}

/// The first part of the queue needs no look, and the look at the second is refused.
#[test]
fn events_that_are_found_already_outweigh_an_error() {
    if !is_alone("reactor::tests::failures::events_that_are_found_already_outweigh_an_error") {
        return;
    }
    let mut stage = Stage::new(Triggers::EDGE, 2);
    let bells = [(); 3].map(|()| Bell::ringing());
    let register = |bell: &Bell| {
        stage.reactor.register(bell.source(), Token(0), R, Mode::Edge).expect("fresh")
    };
    let keys: Vec<_> = bells.iter().map(register).collect();
    let fact = |key, bits| Report::Fact(slot(key), bits);
    let (true_one, useless) = (fact(keys[0], PollBits::IN), fact(keys[1], PollBits::OUT));
    stage.script.borrow_mut().report(&[true_one, useless, Report::Hint(slot(keys[2]))]);
    stage.reactor.waker().wake();
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("it has a limit");
    setrlimit(Resource::RLIMIT_NOFILE, 0, hard).expect("lower is allowed");
    let first = stage.wait(ZERO).map(|_| stage.events.iter().next().map(|event| event.key));
    let woken = stage.events.woken();
    let second = stage.wait(ZERO);
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard).expect("up to the hard limit is allowed");
    assert_eq!(first.expect("one is found"), Some(keys[0]));
    assert!(woken, "the wake comes with them");
    assert_eq!(second.expect_err("nothing is found").kind(), ErrorKind::InvalidInput);
    assert_eq!(stage.look().len(), 1, "it was kept");
    assert!(!stage.events.woken(), "and the wake came once");
}
