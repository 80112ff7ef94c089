//! Selectors with partial knowledge: incomplete bits, directions watched by level, and files that
//! lose their edges.

use super::fake::{Call, FakeReactor, TestEventFd, slot};
use crate::event::{Interest, Mode, Readiness, Token};
use crate::key::Key;
use crate::poll_bits::PollBits;
use crate::poller::Poller;
use crate::selector::{Deadline, Report, Trigger, Triggers, WaitOutcome};

const R: Interest = Interest::READABLE;
const W: Interest = Interest::WRITABLE;
const P: Interest = Interest::PRIORITY;
const MODES: [Mode; 3] = [Mode::Level, Mode::Edge, Mode::OneShot];
const POLL: Call = Call::Wait(Deadline::Now);

/// Registers a source under token 0.
fn add(cx: &mut FakeReactor, eventfd: &TestEventFd, interest: Interest, mode: Mode) -> Key {
    let key = cx.reactor.register(eventfd.source(), Token(0), interest, mode).expect("fresh");
    cx.take_calls();
    key
}

/// Returns the readiness of a wait's only event; empty without an event.
fn readiness(cx: &mut FakeReactor) -> Readiness {
    let count = cx.poll_now().len();
    assert!(count <= 1, "{count} events");
    cx.events.iter().map(|event| event.readiness).collect()
}

/// Returns every order of three values.
fn orders<T: Copy>([a, b, c]: [T; 3]) -> [[T; 3]; 6] {
    [[a, b, c], [a, c, b], [b, a, c], [b, c, a], [c, a, b], [c, b, a]]
}

#[test]
fn partial_report_is_merged_with_poll() {
    let mut cx = FakeReactor::new(Triggers::LEVEL, 4);
    let eventfd = TestEventFd::readable();
    let key = add(&mut cx, &eventfd, R | W | P, Mode::Level);
    let seen = Report::Partial(slot(key), PollBits::PRI);
    let all = Readiness::READABLE | Readiness::WRITABLE | Readiness::PRIORITY;
    for reports in [vec![seen], vec![seen, seen], vec![seen, Report::Hint(slot(key))]] {
        cx.script.borrow_mut().report(&reports);
        assert_eq!(readiness(&mut cx), all, "{reports:?}");
    }
    eventfd.clear();
    cx.script.borrow_mut().report(&[seen]);
    assert_eq!(readiness(&mut cx), all - Readiness::READABLE);
    assert_eq!(readiness(&mut cx), Readiness::empty(), "nothing is left");
}

#[test]
fn partial_report_stands_if_poll_finds_nothing() {
    let mut cx = FakeReactor::new(Triggers::LEVEL, 4);
    let unready = TestEventFd::new();
    let key = add(&mut cx, &unready, R | P, Mode::Level);
    for reports in orders([
        Report::Partial(slot(key), PollBits::PRI),
        Report::Hint(slot(key)),
        Report::Hint(slot(key)),
    ]) {
        cx.script.borrow_mut().report(&reports);
        assert_eq!(readiness(&mut cx), Readiness::PRIORITY, "{reports:?}");
    }
    cx.script.borrow_mut().report(&[Report::Partial(slot(key), PollBits::OUT)]);
    cx.script.borrow_mut().answer(&[], Ok(WaitOutcome::TimedOut));
    assert_eq!(cx.poll_now(), [], "unrequested bits are ignored");
}

/// A fact is complete; after a partial report the reactor polls, and finds no less.
#[test]
fn facts_and_partial_reports_merge_in_every_order() {
    let mut cx = FakeReactor::new(Triggers::LEVEL, 4);
    let eventfd = TestEventFd::readable();
    let key = add(&mut cx, &eventfd, R | W | P, Mode::Level);
    let slot = slot(key);
    let three = [
        Report::Partial(slot, PollBits::PRI),
        Report::Fact(slot, PollBits::IN),
        Report::Hint(slot),
    ];
    let reported = Readiness::READABLE | Readiness::PRIORITY;
    for reports in orders(three) {
        cx.script.borrow_mut().report(&reports);
        let readiness = readiness(&mut cx);
        assert!(readiness.contains(reported), "{reports:?}: {readiness:?}");
        let fact = reports.iter().position(|report| matches!(report, Report::Fact(..)));
        let seen = reports.iter().position(|report| matches!(report, Report::Partial(..)));
        let polls = seen > fact;
        assert_eq!(readiness.contains(Readiness::WRITABLE), polls, "{reports:?}");
    }
}

/// A wait must not report what was true in an earlier wait (H1).
#[test]
fn surplus_partial_report_is_polled_when_popped() {
    let mut cx = FakeReactor::new(Triggers::EDGE, 1);
    let (first, ready, unready) =
        (TestEventFd::readable(), TestEventFd::readable(), TestEventFd::new());
    let eventfds = [(0, &first), (1, &ready), (2, &unready)];
    let keys = eventfds.map(|(token, eventfd)| {
        cx.reactor.register(eventfd.source(), Token(token), R | P, Mode::Edge).expect("fresh")
    });
    let seen = keys.map(|key| Report::Partial(slot(key), PollBits::PRI));
    cx.script.borrow_mut().report(&seen);
    assert_eq!(cx.poll_now(), [0]);
    assert_eq!(cx.poll_now(), [1]);
    let event = cx.events.iter().next().expect("one was counted");
    assert_eq!(event.readiness, Readiness::READABLE, "PRIORITY was true earlier");
    assert_eq!(cx.poll_now(), [], "the third is not ready");
    cx.script.borrow_mut().report(&seen[2..]);
    assert_eq!(cx.poll_now(), [2], "reported again");
    cx.script.borrow_mut().report(&[Report::Fact(slot(keys[2]), PollBits::IN)]);
    assert_eq!(cx.poll_now(), [2], "a fact needs no poll");
}

/// Returns a selector with edges but levels for WRITABLE, which reports no present readiness.
fn split(interest: Interest, mode: Mode, eventfd: &TestEventFd) -> (FakeReactor, Key) {
    let mut cx = FakeReactor::new(Triggers::EDGE, 4);
    cx.script.borrow_mut().level = W;
    cx.script.borrow_mut().needs_initial_poll = true;
    let key = add(&mut cx, eventfd, interest, mode);
    (cx, key)
}

#[test]
fn level_direction_is_watched_while_armed() {
    let eventfd = TestEventFd::readable();
    let arm = |key, dirs| Call::Arm(slot(key), dirs, Trigger::Edge);
    for (mode, interest) in MODES.into_iter().flat_map(|mode| [(mode, R | W), (mode, W)]) {
        let (mut cx, key) = split(interest, mode, &eventfd);
        let case = format!("{mode:?} {interest:?}");
        assert_eq!(cx.poll_now(), [0], "{case}");
        assert_eq!(cx.take_calls(), [POLL]);
        // After arming, the reactor does not poll reported directions, although the script requests
        // it.
        let (rest, ends) = (interest - W, PollBits::HUP | PollBits::ERR);
        let rest = match mode {
            Mode::Edge => Call::ArmWithEnds(slot(key), rest, ends, Trigger::Edge),
            _ if rest.is_empty() => Call::Disarm(slot(key)),
            _ => arm(key, rest),
        };
        let calls = if mode == Mode::Level { vec![POLL] } else { vec![rest, POLL] };
        let again = if mode == Mode::Level && interest != W { vec![0] } else { vec![] };
        assert_eq!(cx.poll_now(), again, "{case}");
        assert_eq!(cx.take_calls(), calls, "{case}");
        cx.poll_now();
        assert_eq!(cx.take_calls(), [POLL], "armed once, {case}");
        // After a rearm it is watched and polled.
        cx.reactor.rearm(key, W).expect("known");
        assert_eq!(cx.take_calls(), [arm(key, interest)], "{case}");
        let event = readiness(&mut cx);
        assert!(event.contains(Readiness::WRITABLE), "{case}: {event:?}");
    }
}

/// No direction is reported again because of another one (E3).
#[test]
fn reported_direction_is_not_polled_with_others() {
    let eventfd = TestEventFd::readable();
    let (mut cx, key) = split(R | W, Mode::Edge, &eventfd);
    let (readable, writable) = (Readiness::READABLE, Readiness::WRITABLE);
    assert_eq!(readiness(&mut cx), readable | writable);
    assert_eq!(readiness(&mut cx), Readiness::empty());
    // Each call polls the directions it names, and those not reported yet.
    cx.reactor.drained(key, W).expect("known");
    assert_eq!(readiness(&mut cx), writable);
    assert_eq!(readiness(&mut cx), Readiness::empty());
    cx.reactor.rearm(key, R).expect("known");
    assert_eq!(readiness(&mut cx), readable);
    assert_eq!(readiness(&mut cx), Readiness::empty());
    cx.reactor.drained(key, R).expect("known");
    assert_eq!(cx.take_calls().last(), Some(&POLL), "edges need no arming");
    cx.reactor.drained(key, W).expect("known");
    cx.reactor.rearm(key, R).expect("known");
    assert_eq!(readiness(&mut cx), readable | writable, "both are unreported");
    cx.reactor.rearm(key, Interest::empty()).expect("known");
    assert_eq!(readiness(&mut cx), Readiness::empty(), "no direction was named");
}

#[test]
fn one_shot_polls_armed_directions_only() {
    let eventfd = TestEventFd::readable();
    let (mut cx, key) = split(R | W, Mode::OneShot, &eventfd);
    cx.poll_now();
    cx.reactor.rearm(key, R).expect("known");
    assert_eq!(cx.take_calls().last(), Some(&Call::Arm(slot(key), R, Trigger::Edge)));
    assert_eq!(readiness(&mut cx), Readiness::READABLE);
    cx.script.borrow_mut().report(&[Report::Hint(slot(key))]);
    assert_eq!(cx.poll_now(), []);
}

/// A file without edges is watched by level, but not while it is disarmed: every wait would end at
/// once.
#[test]
fn file_losing_edges_is_disarmed_while_unarmed() {
    let eventfd = TestEventFd::readable();
    let mut cx = FakeReactor::new(Triggers::EDGE, 4);
    cx.script.borrow_mut().needs_initial_poll = true;
    let key = add(&mut cx, &eventfd, R | W, Mode::OneShot);
    assert_eq!(cx.poll_now(), [0]);
    assert_eq!(cx.take_calls(), [POLL]);
    (cx.script.borrow_mut().granted_trigger, cx.script.borrow_mut().needs_initial_poll) =
        (Some(Trigger::Level), false);
    cx.reactor.rearm(key, Interest::empty()).expect("known");
    let calls = [Call::Arm(slot(key), R | W, Trigger::Edge), Call::Disarm(slot(key))];
    assert_eq!(cx.take_calls(), calls);
    cx.reactor.rearm(key, W).expect("known");
    assert_eq!(
        cx.take_calls(),
        [Call::Arm(slot(key), W, Trigger::Level)],
        "the level trigger stays"
    );
    cx.script.borrow_mut().report(&[Report::Fact(slot(key), PollBits::OUT)]);
    assert_eq!(cx.poll_now(), [0]);
    cx.poll_now();
    assert_eq!(cx.take_calls(), [POLL, Call::Disarm(slot(key)), POLL]);
}

/// As above, but a part was watched by level before.
#[test]
fn file_losing_edges_keeps_unreported_directions() {
    let eventfd = TestEventFd::readable();
    let (mut cx, key) = split(R | W, Mode::Edge, &eventfd);
    cx.poll_now();
    cx.script.borrow_mut().granted_trigger = Some(Trigger::Level);
    cx.script.borrow_mut().needs_initial_poll = false;
    cx.reactor.drained(key, R | W).expect("known");
    cx.script.borrow_mut().report(&[Report::Fact(slot(key), PollBits::IN | PollBits::OUT)]);
    assert_eq!(readiness(&mut cx), Readiness::READABLE | Readiness::WRITABLE);
    cx.take_calls();
    assert_eq!(cx.poll_now(), []);
    let ends = PollBits::HUP | PollBits::ERR | PollBits::RDHUP;
    let arm = Call::ArmWithEnds(slot(key), Interest::empty(), ends, Trigger::Level);
    assert_eq!(cx.take_calls(), [arm, POLL]);
}

#[test]
fn refused_rearm_keeps_trigger() {
    let eventfd = TestEventFd::readable();
    let mut cx = FakeReactor::new(Triggers::EDGE, 4);
    let key = add(&mut cx, &eventfd, R, Mode::Edge);
    cx.script.borrow_mut().granted_trigger = Some(Trigger::Level);
    cx.script.borrow_mut().refuse();
    cx.reactor.rearm(key, R).expect_err("the script refuses");
    cx.reactor.rearm(key, R).expect("known");
    cx.reactor.rearm(key, R).expect("known");
    let arm = |trigger| Call::Arm(slot(key), R, trigger);
    assert_eq!(cx.take_calls(), [Trigger::Edge, Trigger::Edge, Trigger::Level].map(arm));
}
