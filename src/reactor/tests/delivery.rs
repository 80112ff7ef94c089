//! The delivery of reports: their order, merging and verification.

use super::fake::{Call, FakeReactor, TestEventFd, slot};
use crate::event::{Interest, Mode, Readiness, Token};
use crate::key::{Key, Slot};
use crate::op::Op;
use crate::poll_bits::PollBits;
use crate::poller::Poller;
use crate::selector::{Deadline, Report, Trigger, Triggers, WaitOutcome};
use std::io::ErrorKind;
use std::time::Duration;

const R: Interest = Interest::READABLE;
const W: Interest = Interest::WRITABLE;
const ZERO: Option<Duration> = Some(Duration::ZERO);

/// Registers `count` readable sources, with their index as token.
fn register_readable(
    cx: &mut FakeReactor,
    count: usize,
    mode: Mode,
) -> (Vec<TestEventFd>, Vec<Key>) {
    let eventfds: Vec<_> = std::iter::repeat_with(TestEventFd::readable).take(count).collect();
    let register = |(index, eventfd): (usize, &TestEventFd)| {
        cx.reactor.register(eventfd.source(), Token(index), R, mode).expect("fresh")
    };
    let keys = eventfds.iter().enumerate().map(register).collect();
    cx.take_calls();
    (eventfds, keys)
}

fn facts(keys: &[Key]) -> Vec<Report> {
    keys.iter().map(|&key| Report::Fact(slot(key), PollBits::IN)).collect()
}

fn hints(keys: &[Key]) -> Vec<Report> {
    keys.iter().map(|&key| Report::Hint(slot(key))).collect()
}

#[test]
fn surplus_edges_keep_their_order() {
    for report in [facts, hints] {
        let mut cx = FakeReactor::new(Triggers::EDGE, 1);
        let (_eventfds, keys) = register_readable(&mut cx, 4, Mode::Edge);
        let order = [keys[2], keys[0], keys[3], keys[1]];
        cx.script.borrow_mut().report(&report(&order));
        let served = [(); 5].map(|()| cx.poll_now());
        assert_eq!(served, [vec![2], vec![0], vec![3], vec![1], vec![]]);
    }
}

#[test]
fn surplus_is_verified_when_popped() {
    let mut cx = FakeReactor::new(Triggers::EDGE, 1);
    let (eventfds, keys) = register_readable(&mut cx, 4, Mode::Edge);
    cx.script.borrow_mut().report(&facts(&keys));
    assert_eq!(cx.poll_now(), [0]);
    eventfds[1].clear();
    eventfds[2].clear();
    assert_eq!(cx.poll_now(), [3], "false reports take no capacity");
    assert_eq!(cx.poll_now(), []);
}

#[test]
fn surplus_one_shots_need_no_arming() {
    let mut cx = FakeReactor::new(Triggers::ONESHOT, 1);
    let (_eventfds, keys) = register_readable(&mut cx, 3, Mode::OneShot);
    cx.script.borrow_mut().report(&facts(&keys));
    assert_eq!([(); 4].map(|()| cx.poll_now()), [vec![0], vec![1], vec![2], vec![]]);
    let waits = [Call::Wait(Deadline::Now); 4];
    assert_eq!(cx.take_calls(), waits, "each costs one selector wait");
}

#[test]
fn ready_sources_are_served_in_rotation() {
    for native in [Triggers::LEVEL, Triggers::EDGE, Triggers::ONESHOT] {
        let mut cx = FakeReactor::new(native, 1);
        let (_eventfds, keys) = register_readable(&mut cx, 3, Mode::Level);
        let mut served = Vec::new();
        for _ in 0..9 {
            // A level kernel repeats the lowest first; the others report changes only.
            let has_change = served.is_empty() || native == Triggers::LEVEL;
            if has_change {
                cx.script.borrow_mut().report(&facts(&keys));
            } else if native == Triggers::ONESHOT {
                let last: usize = *served.last().expect("not the first");
                cx.script.borrow_mut().report(&facts(&keys[last..=last]));
            }
            served.extend(cx.poll_now());
        }
        assert_eq!(served, [0, 1, 2, 0, 1, 2, 0, 1, 2], "on {native:?}");
    }
}

#[test]
fn reports_of_one_source_merge_into_one_event() {
    let mut cx = FakeReactor::new(Triggers::LEVEL, 8);
    let eventfd = TestEventFd::readable();
    let key = cx.reactor.register(eventfd.source(), Token(0), R | W, Mode::Level).expect("fresh");
    let (fact, hint) = (|bits| Report::Fact(slot(key), bits), Report::Hint(slot(key)));
    let cases = [
        vec![fact(PollBits::IN), fact(PollBits::OUT)],
        vec![fact(PollBits::IN), hint, fact(PollBits::OUT)],
        vec![hint, fact(PollBits::IN | PollBits::OUT), hint],
        vec![hint, hint],
    ];
    for reports in cases {
        cx.script.borrow_mut().report(&reports);
        assert_eq!(cx.poll_now(), [0], "{reports:?}");
        let event = *cx.events.iter().next().expect("one was counted");
        assert_eq!(event.readiness, Readiness::READABLE | Readiness::WRITABLE, "{reports:?}");
        assert_eq!(event.key, key);
        assert_eq!(cx.poll_now(), [], "nothing is left");
    }
}

#[test]
fn facts_are_not_verified() {
    let mut cx = FakeReactor::new(Triggers::LEVEL, 8);
    let unready = TestEventFd::new();
    let key = cx.reactor.register(unready.source(), Token(0), R, Mode::Level).expect("fresh");
    cx.script
        .borrow_mut()
        .report(&[Report::Fact(slot(key), PollBits::IN), Report::Hint(slot(key))]);
    assert_eq!(cx.poll_now(), [0]);
    let other = Report::Fact(slot(key), PollBits::OUT | PollBits::PRI);
    cx.script.borrow_mut().report(&[other]);
    assert_eq!(cx.poll_now(), [], "unrequested bits are ignored");
}

#[test]
fn wait_continues_after_false_hints() {
    let mut cx = FakeReactor::new(Triggers::EDGE, 8);
    let (unready, ready) = (TestEventFd::new(), TestEventFd::readable());
    let key = cx.reactor.register(unready.source(), Token(0), R, Mode::Level).expect("fresh");
    let other = cx.reactor.register(ready.source(), Token(1), R, Mode::Level).expect("fresh");
    cx.take_calls();
    cx.script.borrow_mut().report(&hints(&[key]));
    cx.script.borrow_mut().answer(&[], Ok(WaitOutcome::TimedOut));
    cx.script.borrow_mut().report(&hints(&[key, other]));
    assert_eq!(cx.wait(None).expect("no errors"), [1]);
    assert_eq!(cx.take_calls(), [Call::Wait(Deadline::Never); 3]);
}

#[test]
fn selector_waits_of_one_wait_share_deadline() {
    let mut cx = FakeReactor::new(Triggers::EDGE, 8);
    let (eventfds, keys) = register_readable(&mut cx, 1, Mode::Edge);
    eventfds[0].clear();
    cx.script.borrow_mut().report(&hints(&keys));
    cx.script.borrow_mut().answer(&[], Ok(WaitOutcome::Interrupted));
    cx.script.borrow_mut().report(&facts(&keys));
    assert_eq!(cx.wait(Some(Duration::from_secs(9))).expect("no errors"), [0]);
    let calls = cx.take_calls();
    assert!(matches!(calls[..], [Call::Wait(Deadline::At(_)), ..]), "{calls:?}");
    assert_eq!(calls, [calls[0]; 3], "signals and false hints do not change it");
}

#[test]
fn interrupted_selector_wait_is_repeated() {
    let mut cx = FakeReactor::new(Triggers::LEVEL, 8);
    let (_eventfds, keys) = register_readable(&mut cx, 1, Mode::Level);
    cx.script.borrow_mut().answer(&[], Ok(WaitOutcome::Interrupted));
    cx.script.borrow_mut().answer(&[], Ok(WaitOutcome::Interrupted));
    cx.script.borrow_mut().report(&facts(&keys));
    assert_eq!(cx.poll_now(), [0]);
    assert_eq!(cx.take_waits(), 3);
    assert_eq!((cx.poll_now(), cx.take_waits()), (vec![], 1), "one selector wait is enough");
}

#[test]
fn wait_does_not_sleep_with_queued_sources() {
    let mut cx = FakeReactor::new(Triggers::EDGE, 1);
    let (eventfds, keys) = register_readable(&mut cx, 2, Mode::Edge);
    cx.script.borrow_mut().report(&facts(&keys));
    assert_eq!(cx.wait(None).expect("no errors"), [0]);
    assert_eq!(cx.take_calls(), [Call::Wait(Deadline::Never)]);
    assert_eq!(cx.wait(None).expect("no errors"), [1]);
    assert_eq!(cx.take_calls(), [Call::Wait(Deadline::Now)]);
    cx.script.borrow_mut().needs_initial_poll = true;
    cx.reactor.rearm(keys[0], R).expect("known");
    cx.take_calls();
    assert_eq!(cx.wait(None).expect("no errors"), [0]);
    assert_eq!(cx.take_calls(), [Call::Wait(Deadline::Now)]);
    eventfds[0].clear();
    cx.reactor.rearm(keys[0], R).expect("known");
    cx.take_calls();
    cx.script.borrow_mut().answer(&[], Ok(WaitOutcome::TimedOut));
    cx.script.borrow_mut().report(&facts(&keys[1..]));
    assert_eq!(cx.wait(None).expect("no errors"), [1]);
    assert_eq!(cx.take_calls(), [Call::Wait(Deadline::Now), Call::Wait(Deadline::Never)]);
}

#[test]
fn pending_wake_prevents_sleep() {
    let mut cx = FakeReactor::new(Triggers::LEVEL, 1);
    let (_eventfds, keys) = register_readable(&mut cx, 2, Mode::Level);
    cx.reactor.waker().wake();
    cx.script.borrow_mut().report(&facts(&keys));
    assert_eq!(cx.wait(None).expect("no errors"), [0]);
    assert!(cx.events.woken(), "a wake takes no capacity");
    assert_eq!(cx.take_calls(), [Call::Wait(Deadline::Now)]);
    cx.reactor.waker().wake();
    assert_eq!(cx.wait(None).expect("no errors"), [1]);
    assert!(cx.events.woken());
    assert!(cx.poll_now().is_empty() && !cx.events.woken());
}

#[test]
fn wake_writes_to_eventfd_during_sleep_only() {
    let mut cx = FakeReactor::new(Triggers::LEVEL, 1);
    for (timeout, writes) in [(ZERO, 0), (None, 1)] {
        cx.script.borrow_mut().waker = Some(cx.reactor.waker());
        cx.script.borrow_mut().answer(&[], Ok(WaitOutcome::Events));
        cx.wait(timeout).expect("no errors");
        assert!(cx.events.woken(), "{timeout:?}");
        assert_eq!(cx.take_writes(), writes, "{timeout:?}");
        assert_eq!(cx.take_waits(), 1, "{timeout:?}");
    }
}

#[test]
fn late_reports_are_ignored() {
    let mut cx = FakeReactor::new(Triggers::EDGE, 8);
    let (eventfds, keys) = register_readable(&mut cx, 2, Mode::Edge);
    let gone = slot(keys[0]);
    cx.script.borrow_mut().report(&facts(&keys));
    cx.reactor.deregister(keys[0]).expect("known");
    let again = cx.reactor.register(eventfds[0].source(), Token(7), R, Mode::Edge).expect("free");
    assert_eq!(slot(again).index, gone.index);
    assert_eq!(cx.poll_now(), [1], "the slot's successor is not reported");
    let future = Slot { generation: slot(again).generation + 1, ..gone };
    let beyond = Slot { index: 99, generation: 0 };
    cx.script.borrow_mut().report(&[
        Report::Hint(gone),
        Report::Hint(future),
        Report::Hint(beyond),
    ]);
    assert_eq!(cx.poll_now(), []);
}

#[test]
fn deregister_discards_queued_report() {
    let mut cx = FakeReactor::new(Triggers::EDGE, 1);
    let (_eventfds, keys) = register_readable(&mut cx, 3, Mode::Edge);
    cx.script.borrow_mut().report(&facts(&keys));
    assert_eq!(cx.poll_now(), [0]);
    cx.reactor.deregister(keys[1]).expect("known");
    assert_eq!([(); 2].map(|()| cx.poll_now()), [vec![2], vec![]]);
}

#[test]
fn modify_replaces_queued_interest() {
    let mut cx = FakeReactor::new(Triggers::EDGE, 1);
    let (_eventfds, keys) = register_readable(&mut cx, 2, Mode::Edge);
    cx.script.borrow_mut().report(&facts(&keys));
    assert_eq!(cx.poll_now(), [0]);
    cx.reactor.modify(keys[1], Token(9), W, Mode::OneShot).expect("known");
    assert_eq!(cx.poll_now(), [], "the old interest is not reported");
    cx.script.borrow_mut().report(&[Report::Fact(slot(keys[1]), PollBits::OUT)]);
    assert_eq!(cx.poll_now(), [9]);
}

#[test]
fn overflow_polls_every_source() {
    let mut cx = FakeReactor::new(Triggers::EDGE, 2);
    let (eventfds, keys) = register_readable(&mut cx, 4, Mode::Edge);
    eventfds[1].clear();
    cx.script.borrow_mut().answer(&facts(&keys[3..]), Ok(WaitOutcome::Overflow));
    assert_eq!([(); 3].map(|()| cx.poll_now()), [vec![3, 0], vec![2], vec![]]);
    assert_eq!(cx.reactor.statistics().overflows, 1);
}

#[test]
fn unreported_present_readiness_is_polled() {
    for mode in [Mode::Level, Mode::Edge, Mode::OneShot] {
        let mut cx = FakeReactor::new(Triggers::EDGE, 4);
        cx.script.borrow_mut().needs_initial_poll = true;
        let (eventfds, keys) = register_readable(&mut cx, 1, mode);
        assert_eq!(cx.poll_now(), [0], "after register, {mode:?}");
        cx.reactor.modify(keys[0], Token(5), R, mode).expect("known");
        assert_eq!(cx.poll_now(), [5], "after modify, {mode:?}");
        cx.reactor.rearm(keys[0], R).expect("known");
        assert_eq!(cx.poll_now(), [5], "after rearm, {mode:?}");
        eventfds[0].clear();
        cx.reactor.rearm(keys[0], R).expect("known");
        assert_eq!(cx.poll_now(), []);
    }
}

#[test]
fn partly_shown_source_is_polled_once_per_wait() {
    for mode in [Mode::Level, Mode::Edge, Mode::OneShot] {
        let mut cx = FakeReactor::new(Triggers::LEVEL, 4);
        cx.script.borrow_mut().needs_poll_each_wait = true;
        let (eventfds, keys) = register_readable(&mut cx, 1, mode);
        assert_eq!(cx.wait(None).expect("no errors"), [0], "the wait does not sleep, {mode:?}");
        let again = if mode == Mode::Level { vec![0] } else { vec![] };
        assert_eq!([cx.poll_now(), cx.poll_now()], [again.clone(), again], "{mode:?}");
        eventfds[0].clear();
        cx.reactor.rearm(keys[0], R).expect("known");
        cx.take_calls();
        for end in
            [Ok(WaitOutcome::TimedOut), Ok(WaitOutcome::Interrupted), Err(ErrorKind::Other.into())]
        {
            cx.script.borrow_mut().answer(&[], end);
        }
        cx.wait(None).expect_err("the end of the script");
        let polls = [Call::Wait(Deadline::Now), Call::Wait(Deadline::Never)];
        assert_eq!(cx.take_calls()[..2], polls, "one selector wait without sleep, {mode:?}");
        eventfds[0].set_readable();
        assert_eq!(cx.poll_now(), [0], "polled in the next wait, {mode:?}");
    }
}

#[test]
fn polling_ends_when_selector_reports_again() {
    let mut cx = FakeReactor::new(Triggers::LEVEL, 4);
    cx.script.borrow_mut().needs_poll_each_wait = true;
    let (_eventfds, keys) = register_readable(&mut cx, 2, Mode::Level);
    cx.script.borrow_mut().needs_poll_each_wait = false;
    cx.reactor.modify(keys[0], Token(0), R, Mode::Level).expect("known");
    assert_eq!(cx.poll_now(), [0, 1], "polled each wait when registered");
    assert_eq!(cx.poll_now(), [1]);
    cx.script.borrow_mut().needs_poll_each_wait = true;
    cx.reactor.modify(keys[0], Token(0), R, Mode::Level).expect("known");
    assert_eq!(cx.poll_now(), [0, 1], "polled each wait again, and at once");
    assert_eq!(cx.poll_now(), [1, 0], "after those polled before");
    cx.reactor.deregister(keys[1]).expect("known");
    assert_eq!(cx.poll_now(), [0]);
}

#[test]
fn rearmed_direction_is_polled_if_unreported() {
    let mut cx = FakeReactor::new(Triggers::LEVEL, 4);
    cx.script.borrow_mut().needs_initial_poll = true;
    let eventfd = TestEventFd::readable();
    let key = cx.reactor.register(eventfd.source(), Token(0), R | W, Mode::Edge).expect("fresh");
    assert_eq!([cx.poll_now(), cx.poll_now()], [vec![0], vec![]], "both at once, once");
    for call in [Poller::rearm, Poller::drained] {
        call(&mut cx.reactor, key, W).expect("known");
        assert_eq!(cx.poll_now(), [0]);
        let event = cx.events.iter().next().expect("one was counted");
        assert_eq!(event.readiness, Readiness::WRITABLE, "the named direction");
        assert_eq!(cx.poll_now(), [], "once");
    }
}

#[test]
fn deliveries_are_reified_before_next_selector_wait() {
    let mut cx = FakeReactor::new(Triggers::LEVEL, 4);
    let eventfd = TestEventFd::readable();
    let key = cx.reactor.register(eventfd.source(), Token(0), R | W, Mode::Edge).expect("fresh");
    cx.take_calls();
    cx.script.borrow_mut().report(&facts(&[key]));
    assert_eq!(cx.poll_now(), [0]);
    let poll = Call::Wait(Deadline::Now);
    assert_eq!(cx.take_calls(), [poll], "armed only when needed");
    cx.script.borrow_mut().report(&[Report::Fact(slot(key), PollBits::OUT)]);
    assert_eq!(cx.poll_now(), [0]);
    let ends = PollBits::HUP | PollBits::ERR | PollBits::RDHUP;
    let arm = |dirs| Call::ArmWithEnds(slot(key), dirs, ends, Trigger::Level);
    assert_eq!(cx.take_calls(), [arm(W), poll]);
    cx.poll_now();
    assert_eq!(cx.take_calls(), [arm(Interest::empty()), poll]);
    cx.poll_now();
    assert_eq!(cx.take_calls(), [poll]);
}

#[test]
fn zero_capacity_fails_and_keeps_wake() {
    let mut cx = FakeReactor::new(Triggers::LEVEL, 0);
    cx.reactor.waker().wake();
    let error = cx.wait(ZERO).expect_err("there is no room");
    assert_eq!((error.kind(), cx.take_calls()), (ErrorKind::InvalidInput, vec![]));
    cx.events = crate::event::Events::with_capacity(1);
    assert!(cx.poll_now().is_empty() && cx.events.woken());
}

#[test]
fn second_selector_wait_reports_no_source_twice() {
    for report in [facts, hints] {
        let mut cx = FakeReactor::new(Triggers::LEVEL, 4);
        let (_eventfds, keys) = register_readable(&mut cx, 1, Mode::Level);
        cx.script.borrow_mut().has_more = true;
        (0..2).for_each(|_| cx.script.borrow_mut().report(&report(&keys)));
        assert_eq!(cx.poll_now(), [0], "one event in a wait (H4)");
        assert_eq!(cx.take_waits(), 2, "the selector had more");
        assert_eq!(cx.poll_now(), [0], "the second report is kept for the next wait");
    }
}

#[test]
fn reports_are_limited_unless_sources_are_queued() {
    const ALL: usize = usize::MAX;
    // Without native levels the reactor queues what stays ready.
    for (native, limit) in [(Triggers::all(), 1), (Triggers::EDGE, ALL)] {
        let mut cx = FakeReactor::new(native, 1);
        let (_eventfds, keys) = register_readable(&mut cx, 3, Mode::Edge);
        cx.script.borrow_mut().report(&facts(&keys));
        for (served, max) in [(vec![0], limit), (vec![1], ALL), (vec![2], ALL), (vec![], limit)] {
            assert_eq!(cx.poll_now(), served);
            assert_eq!(cx.script.borrow().max_reports, max, "{served:?} was served");
        }
    }
}

#[test]
fn selector_wait_for_operations_takes_a_batch() {
    let mut cx = FakeReactor::new(Triggers::LEVEL, 100);
    let max = |cx: &mut FakeReactor, timeout| {
        cx.wait(timeout).expect("no errors");
        cx.script.borrow().max_reports
    };
    let soon = Some(std::time::Duration::from_nanos(1));
    assert_eq!(max(&mut cx, soon), 32, "fewer than there is room for");
    assert_eq!(max(&mut cx, ZERO), 100, "all that there is room for (T1)");
    let _registered = register_readable(&mut cx, 1, Mode::Level);
    assert_eq!(max(&mut cx, soon), 100, "all that there is room for (L1)");
}

#[test]
fn wait_full_of_completions_takes_the_wake() {
    let mut cx = FakeReactor::new(Triggers::LEVEL, 1);
    for token in [1, 2] {
        cx.reactor.submit(Op::nop(), Token(token)).expect("a nop");
    }
    cx.reactor.waker().wake();
    for (token, is_woken) in [(1, true), (2, false)] {
        cx.wait(None).expect("no errors");
        assert_eq!(cx.take_waits(), 0, "the selector is not called");
        assert_eq!(cx.events.woken(), is_woken, "one wake ends one wait");
        let completed: Vec<_> = cx.events.completions().map(|its| its.token.0).collect();
        assert_eq!(completed, [token]);
    }
}
