//! What becomes of reports: in which order, merged with what, and verified or not.

use super::fake::{Bell, Call, Stage, slot};
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

/// Registers `count` bells that ring, with their index as token.
fn ringing(stage: &mut Stage, count: usize, mode: Mode) -> (Vec<Bell>, Vec<Key>) {
    let bells: Vec<_> = std::iter::repeat_with(Bell::ringing).take(count).collect();
    let register = |(index, bell): (usize, &Bell)| {
        stage.reactor.register(bell.source(), Token(index), R, mode).expect("fresh")
    };
    let keys = bells.iter().enumerate().map(register).collect();
    stage.take_calls();
    (bells, keys)
}

fn facts(keys: &[Key]) -> Vec<Report> {
    keys.iter().map(|&key| Report::Fact(slot(key), PollBits::IN)).collect()
}

fn hints(keys: &[Key]) -> Vec<Report> {
    keys.iter().map(|&key| Report::Hint(slot(key))).collect()
}

#[test]
fn surplus_edges_are_kept_in_their_order() {
    for report in [facts, hints] {
        let mut stage = Stage::new(Triggers::EDGE, 1);
        let (_bells, keys) = ringing(&mut stage, 4, Mode::Edge);
        let order = [keys[2], keys[0], keys[3], keys[1]];
        stage.script.borrow_mut().report(&report(&order));
        let served = [(); 5].map(|()| stage.look());
        assert_eq!(served, [vec![2], vec![0], vec![3], vec![1], vec![]]);
    }
}

#[test]
fn surplus_is_verified_again_when_its_turn_comes() {
    let mut stage = Stage::new(Triggers::EDGE, 1);
    let (bells, keys) = ringing(&mut stage, 4, Mode::Edge);
    stage.script.borrow_mut().report(&facts(&keys));
    assert_eq!(stage.look(), [0]);
    bells[1].hush();
    bells[2].hush();
    assert_eq!(stage.look(), [3], "those that are ready no longer take nobody's place");
    assert_eq!(stage.look(), []);
}

#[test]
fn one_shots_that_were_surplus_need_not_be_armed_again() {
    let mut stage = Stage::new(Triggers::ONESHOT, 1);
    let (_bells, keys) = ringing(&mut stage, 3, Mode::OneShot);
    stage.script.borrow_mut().report(&facts(&keys));
    assert_eq!([(); 4].map(|()| stage.look()), [vec![0], vec![1], vec![2], vec![]]);
    let waits = [Call::Wait(Deadline::Now); 4];
    assert_eq!(stage.take_calls(), waits, "their turn costs no more than a look");
}

#[test]
fn sources_that_stay_ready_take_turns() {
    for native in [Triggers::LEVEL, Triggers::EDGE, Triggers::ONESHOT] {
        let mut stage = Stage::new(native, 1);
        let (_bells, keys) = ringing(&mut stage, 3, Mode::Level);
        let mut served = Vec::new();
        for _ in 0..9 {
            // A level kernel repeats the lowest first; the others tell only what is new.
            let is_news = served.is_empty() || native == Triggers::LEVEL;
            if is_news {
                stage.script.borrow_mut().report(&facts(&keys));
            } else if native == Triggers::ONESHOT {
                let last: usize = *served.last().expect("not the first");
                stage.script.borrow_mut().report(&facts(&keys[last..=last]));
            }
            served.extend(stage.look());
        }
        assert_eq!(served, [0, 1, 2, 0, 1, 2, 0, 1, 2], "on {native:?}");
    }
}

#[test]
fn reports_of_one_source_become_one_event() {
    let mut stage = Stage::new(Triggers::LEVEL, 8);
    let bell = Bell::ringing();
    let key = stage.reactor.register(bell.source(), Token(0), R | W, Mode::Level).expect("fresh");
    let (fact, hint) = (|bits| Report::Fact(slot(key), bits), Report::Hint(slot(key)));
    let cases = [
        vec![fact(PollBits::IN), fact(PollBits::OUT)],
        vec![fact(PollBits::IN), hint, fact(PollBits::OUT)],
        vec![hint, fact(PollBits::IN | PollBits::OUT), hint],
        vec![hint, hint],
    ];
    for raw in cases {
        stage.script.borrow_mut().report(&raw);
        assert_eq!(stage.look(), [0], "{raw:?}");
        let event = *stage.events.iter().next().expect("one was counted");
        assert_eq!(event.readiness, Readiness::READABLE | Readiness::WRITABLE, "{raw:?}");
        assert_eq!(event.key, key);
        assert_eq!(stage.look(), [], "nothing is left over");
    }
}

#[test]
fn what_the_kernel_vouches_for_is_not_verified() {
    let mut stage = Stage::new(Triggers::LEVEL, 8);
    let silent = Bell::new();
    let key = stage.reactor.register(silent.source(), Token(0), R, Mode::Level).expect("fresh");
    stage
        .script
        .borrow_mut()
        .report(&[Report::Fact(slot(key), PollBits::IN), Report::Hint(slot(key))]);
    assert_eq!(stage.look(), [0]);
    let other = Report::Fact(slot(key), PollBits::OUT | PollBits::PRI);
    stage.script.borrow_mut().report(&[other]);
    assert_eq!(stage.look(), [], "what was not asked for says nothing");
}

#[test]
fn a_wait_goes_on_after_hints_that_were_false() {
    let mut stage = Stage::new(Triggers::EDGE, 8);
    let (silent, late) = (Bell::new(), Bell::ringing());
    let key = stage.reactor.register(silent.source(), Token(0), R, Mode::Level).expect("fresh");
    let other = stage.reactor.register(late.source(), Token(1), R, Mode::Level).expect("fresh");
    stage.take_calls();
    stage.script.borrow_mut().report(&hints(&[key]));
    stage.script.borrow_mut().answer(&[], Ok(WaitOutcome::TimedOut));
    stage.script.borrow_mut().report(&hints(&[key, other]));
    assert_eq!(stage.wait(None).expect("no errors"), [1]);
    assert_eq!(stage.take_calls(), [Call::Wait(Deadline::Never); 3]);
}

#[test]
fn every_look_of_a_wait_has_the_same_deadline() {
    let mut stage = Stage::new(Triggers::EDGE, 8);
    let (bells, keys) = ringing(&mut stage, 1, Mode::Edge);
    bells[0].hush();
    stage.script.borrow_mut().report(&hints(&keys));
    stage.script.borrow_mut().answer(&[], Ok(WaitOutcome::Interrupted));
    stage.script.borrow_mut().report(&facts(&keys));
    assert_eq!(stage.wait(Some(Duration::from_secs(9))).expect("no errors"), [0]);
    let calls = stage.take_calls();
    assert!(matches!(calls[..], [Call::Wait(Deadline::At(_)), ..]), "{calls:?}");
    assert_eq!(calls, [calls[0]; 3], "no signal and no false hint moves it");
}

#[test]
fn a_look_that_a_signal_cut_short_is_repeated() {
    let mut stage = Stage::new(Triggers::LEVEL, 8);
    let (_bells, keys) = ringing(&mut stage, 1, Mode::Level);
    stage.script.borrow_mut().answer(&[], Ok(WaitOutcome::Interrupted));
    stage.script.borrow_mut().answer(&[], Ok(WaitOutcome::Interrupted));
    stage.script.borrow_mut().report(&facts(&keys));
    assert_eq!(stage.look(), [0]);
    assert_eq!(stage.take_waits(), 3);
    assert_eq!((stage.look(), stage.take_waits()), (vec![], 1), "one look is enough");
}

#[test]
fn nobody_sleeps_on_sources_to_look_at() {
    let mut stage = Stage::new(Triggers::EDGE, 1);
    let (bells, keys) = ringing(&mut stage, 2, Mode::Edge);
    stage.script.borrow_mut().report(&facts(&keys));
    assert_eq!(stage.wait(None).expect("no errors"), [0]);
    assert_eq!(stage.take_calls(), [Call::Wait(Deadline::Never)]);
    assert_eq!(stage.wait(None).expect("no errors"), [1]);
    assert_eq!(stage.take_calls(), [Call::Wait(Deadline::Now)]);
    stage.script.borrow_mut().look = true;
    stage.reactor.rearm(keys[0], R).expect("known");
    stage.take_calls();
    assert_eq!(stage.wait(None).expect("no errors"), [0]);
    assert_eq!(stage.take_calls(), [Call::Wait(Deadline::Now)]);
    bells[0].hush();
    stage.reactor.rearm(keys[0], R).expect("known");
    stage.take_calls();
    stage.script.borrow_mut().answer(&[], Ok(WaitOutcome::TimedOut));
    stage.script.borrow_mut().report(&facts(&keys[1..]));
    assert_eq!(stage.wait(None).expect("no errors"), [1]);
    assert_eq!(stage.take_calls(), [Call::Wait(Deadline::Now), Call::Wait(Deadline::Never)]);
}

#[test]
fn a_wake_that_is_pending_keeps_a_wait_from_sleeping() {
    let mut stage = Stage::new(Triggers::LEVEL, 1);
    let (_bells, keys) = ringing(&mut stage, 2, Mode::Level);
    stage.reactor.waker().wake();
    stage.script.borrow_mut().report(&facts(&keys));
    assert_eq!(stage.wait(None).expect("no errors"), [0]);
    assert!(stage.events.woken(), "a wake takes no capacity");
    assert_eq!(stage.take_calls(), [Call::Wait(Deadline::Now)]);
    stage.reactor.waker().wake();
    assert_eq!(stage.wait(None).expect("no errors"), [1]);
    assert!(stage.events.woken());
    assert!(stage.look().is_empty() && !stage.events.woken());
}

#[test]
fn a_wake_during_a_look_is_a_flag_and_during_a_sleep_a_write() {
    let mut stage = Stage::new(Triggers::LEVEL, 1);
    for (timeout, writes) in [(ZERO, 0), (None, 1)] {
        stage.script.borrow_mut().waker = Some(stage.reactor.waker());
        stage.script.borrow_mut().answer(&[], Ok(WaitOutcome::Events));
        stage.wait(timeout).expect("no errors");
        assert!(stage.events.woken(), "{timeout:?}");
        assert_eq!(stage.take_writes(), writes, "{timeout:?}");
        assert_eq!(stage.take_waits(), 1, "{timeout:?}");
    }
}

#[test]
fn late_reports_are_nobodys() {
    let mut stage = Stage::new(Triggers::EDGE, 8);
    let (bells, keys) = ringing(&mut stage, 2, Mode::Edge);
    let gone = slot(keys[0]);
    stage.script.borrow_mut().report(&facts(&keys));
    stage.reactor.deregister(keys[0]).expect("known");
    let again = stage.reactor.register(bells[0].source(), Token(7), R, Mode::Edge).expect("free");
    assert_eq!(slot(again).index, gone.index);
    assert_eq!(stage.look(), [1], "its successor is not charged");
    let future = Slot { generation: slot(again).generation + 1, ..gone };
    let beyond = Slot { index: 99, generation: 0 };
    stage.script.borrow_mut().report(&[
        Report::Hint(gone),
        Report::Hint(future),
        Report::Hint(beyond),
    ]);
    assert_eq!(stage.look(), []);
}

#[test]
fn after_deregister_what_was_queued_is_silent() {
    let mut stage = Stage::new(Triggers::EDGE, 1);
    let (_bells, keys) = ringing(&mut stage, 3, Mode::Edge);
    stage.script.borrow_mut().report(&facts(&keys));
    assert_eq!(stage.look(), [0]);
    stage.reactor.deregister(keys[1]).expect("known");
    assert_eq!([(); 2].map(|()| stage.look()), [vec![2], vec![]]);
}

#[test]
fn modify_replaces_what_is_queued() {
    let mut stage = Stage::new(Triggers::EDGE, 1);
    let (_bells, keys) = ringing(&mut stage, 2, Mode::Edge);
    stage.script.borrow_mut().report(&facts(&keys));
    assert_eq!(stage.look(), [0]);
    stage.reactor.modify(keys[1], Token(9), W, Mode::OneShot).expect("known");
    assert_eq!(stage.look(), [], "it was readable, which nobody asks any more");
    stage.script.borrow_mut().report(&[Report::Fact(slot(keys[1]), PollBits::OUT)]);
    assert_eq!(stage.look(), [9]);
}

#[test]
fn an_overflow_looks_at_everyone() {
    let mut stage = Stage::new(Triggers::EDGE, 2);
    let (bells, keys) = ringing(&mut stage, 4, Mode::Edge);
    bells[1].hush();
    stage.script.borrow_mut().answer(&facts(&keys[3..]), Ok(WaitOutcome::Overflow));
    assert_eq!([(); 3].map(|()| stage.look()), [vec![3, 0], vec![2], vec![]]);
    assert_eq!(stage.reactor.statistics().overflows, 1);
}

#[test]
fn present_readiness_that_goes_untold_is_looked_for() {
    for mode in [Mode::Level, Mode::Edge, Mode::OneShot] {
        let mut stage = Stage::new(Triggers::EDGE, 4);
        stage.script.borrow_mut().look = true;
        let (bells, keys) = ringing(&mut stage, 1, mode);
        assert_eq!(stage.look(), [0], "after register, {mode:?}");
        stage.reactor.modify(keys[0], Token(5), R, mode).expect("known");
        assert_eq!(stage.look(), [5], "after modify, {mode:?}");
        stage.reactor.rearm(keys[0], R).expect("known");
        assert_eq!(stage.look(), [5], "after rearm, {mode:?}");
        bells[0].hush();
        stage.reactor.rearm(keys[0], R).expect("known");
        assert_eq!(stage.look(), []);
    }
}

#[test]
fn the_blind_are_looked_at_once_in_every_wait() {
    for mode in [Mode::Level, Mode::Edge, Mode::OneShot] {
        let mut stage = Stage::new(Triggers::LEVEL, 4);
        stage.script.borrow_mut().blind = true;
        let (bells, keys) = ringing(&mut stage, 1, mode);
        assert_eq!(stage.wait(None).expect("no errors"), [0], "nobody sleeps on them, {mode:?}");
        let again = if mode == Mode::Level { vec![0] } else { vec![] };
        assert_eq!([stage.look(), stage.look()], [again.clone(), again], "{mode:?}");
        bells[0].hush();
        stage.reactor.rearm(keys[0], R).expect("known");
        stage.take_calls();
        for end in
            [Ok(WaitOutcome::TimedOut), Ok(WaitOutcome::Interrupted), Err(ErrorKind::Other.into())]
        {
            stage.script.borrow_mut().answer(&[], end);
        }
        stage.wait(None).expect_err("the end of the script");
        let looks = [Call::Wait(Deadline::Now), Call::Wait(Deadline::Never)];
        assert_eq!(stage.take_calls()[..2], looks, "one look that does not sleep, {mode:?}");
        bells[0].ring();
        assert_eq!(stage.look(), [0], "and a look in the next wait, {mode:?}");
    }
}

#[test]
fn who_sees_again_is_looked_at_no_more() {
    let mut stage = Stage::new(Triggers::LEVEL, 4);
    stage.script.borrow_mut().blind = true;
    let (_bells, keys) = ringing(&mut stage, 2, Mode::Level);
    stage.script.borrow_mut().blind = false;
    stage.reactor.modify(keys[0], Token(0), R, Mode::Level).expect("known");
    assert_eq!(stage.look(), [0, 1], "what was blind when it was registered");
    assert_eq!(stage.look(), [1]);
    stage.script.borrow_mut().blind = true;
    stage.reactor.modify(keys[0], Token(0), R, Mode::Level).expect("known");
    assert_eq!(stage.look(), [0, 1], "blind again, and looked at at once");
    assert_eq!(stage.look(), [1, 0], "behind those who were blind before");
    stage.reactor.deregister(keys[1]).expect("known");
    assert_eq!(stage.look(), [0]);
}

#[test]
fn what_arming_again_leaves_untold_is_looked_for() {
    let mut stage = Stage::new(Triggers::LEVEL, 4);
    stage.script.borrow_mut().look = true;
    let bell = Bell::ringing();
    let key = stage.reactor.register(bell.source(), Token(0), R | W, Mode::Edge).expect("fresh");
    assert_eq!([stage.look(), stage.look()], [vec![0], vec![]], "both at once, and once");
    for call in [Poller::rearm, Poller::drained] {
        call(&mut stage.reactor, key, W).expect("known");
        assert_eq!(stage.look(), [0]);
        let event = stage.events.iter().next().expect("one was counted");
        assert_eq!(event.readiness, Readiness::WRITABLE, "the direction that was named");
        assert_eq!(stage.look(), [], "and once");
    }
}

#[test]
fn what_deliveries_change_is_told_before_the_next_look() {
    let mut stage = Stage::new(Triggers::LEVEL, 4);
    let bell = Bell::ringing();
    let key = stage.reactor.register(bell.source(), Token(0), R | W, Mode::Edge).expect("fresh");
    stage.take_calls();
    stage.script.borrow_mut().report(&facts(&[key]));
    assert_eq!(stage.look(), [0]);
    let look = Call::Wait(Deadline::Now);
    assert_eq!(stage.take_calls(), [look], "not before there is need");
    stage.script.borrow_mut().report(&[Report::Fact(slot(key), PollBits::OUT)]);
    assert_eq!(stage.look(), [0]);
    let ends = PollBits::HUP | PollBits::ERR | PollBits::RDHUP;
    let arm = |dirs| Call::ArmWithEnds(slot(key), dirs, ends, Trigger::Level);
    assert_eq!(stage.take_calls(), [arm(W), look]);
    stage.look();
    assert_eq!(stage.take_calls(), [arm(Interest::empty()), look]);
    stage.look();
    assert_eq!(stage.take_calls(), [look]);
}

#[test]
fn no_capacity_is_an_error_that_takes_no_wake() {
    let mut stage = Stage::new(Triggers::LEVEL, 0);
    stage.reactor.waker().wake();
    let error = stage.wait(ZERO).expect_err("there is no room");
    assert_eq!((error.kind(), stage.take_calls()), (ErrorKind::InvalidInput, vec![]));
    stage.events = crate::event::Events::with_capacity(1);
    assert!(stage.look().is_empty() && stage.events.woken());
}

#[test]
fn second_look_reports_no_source_twice() {
    for report in [facts, hints] {
        let mut stage = Stage::new(Triggers::LEVEL, 4);
        let (_bells, keys) = ringing(&mut stage, 1, Mode::Level);
        stage.script.borrow_mut().has_more = true;
        (0..2).for_each(|_| stage.script.borrow_mut().report(&report(&keys)));
        assert_eq!(stage.look(), [0], "one event in a wait (H4)");
        assert_eq!(stage.take_waits(), 2, "the selector had more");
        assert_eq!(stage.look(), [0], "the second report is for the next wait");
    }
}

#[test]
fn reports_are_limited_unless_sources_are_queued() {
    const ALL: usize = usize::MAX;
    // Where the kernel repeats no level, the reactor queues what stays ready.
    for (native, limit) in [(Triggers::all(), 1), (Triggers::EDGE, ALL)] {
        let mut stage = Stage::new(native, 1);
        let (_bells, keys) = ringing(&mut stage, 3, Mode::Edge);
        stage.script.borrow_mut().report(&facts(&keys));
        for (served, max) in [(vec![0], limit), (vec![1], ALL), (vec![2], ALL), (vec![], limit)] {
            assert_eq!(stage.look(), served);
            assert_eq!(stage.script.borrow().max_reports, max, "{served:?} was served");
        }
    }
}

#[test]
fn look_for_operations_takes_a_batch() {
    let mut stage = Stage::new(Triggers::LEVEL, 100);
    let max = |stage: &mut Stage, timeout| {
        stage.wait(timeout).expect("nothing goes wrong");
        stage.script.borrow().max_reports
    };
    let soon = Some(std::time::Duration::from_nanos(1));
    assert_eq!(max(&mut stage, soon), 32, "fewer than there is room for");
    assert_eq!(max(&mut stage, ZERO), 100, "all that there is room for (T1)");
    let _ringing = ringing(&mut stage, 1, Mode::Level);
    assert_eq!(max(&mut stage, soon), 100, "all that there is room for (L1)");
}

#[test]
fn wait_full_of_completions_takes_the_wake() {
    let mut stage = Stage::new(Triggers::LEVEL, 1);
    for token in [1, 2] {
        stage.reactor.submit(Op::nop(), Token(token)).expect("it needs nothing");
    }
    stage.reactor.waker().wake();
    for (token, is_woken) in [(1, true), (2, false)] {
        stage.wait(None).expect("nothing goes wrong");
        assert_eq!(stage.take_waits(), 0, "the selector is not asked");
        assert_eq!(stage.events.woken(), is_woken, "one wake ends one wait");
        let completed: Vec<_> = stage.events.completions().map(|its| its.token.0).collect();
        assert_eq!(completed, [token]);
    }
}
