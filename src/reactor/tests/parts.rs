//! What selectors know in part: bits beside which there may be more, directions that are watched
//! otherwise than the rest, and files that they lose.

use super::fake::{Bell, Call, Stage, slot};
use crate::event::{Interest, Mode, Readiness, Token};
use crate::key::Key;
use crate::poll_bits::PollBits;
use crate::poller::Poller;
use crate::selector::{Deadline, Report, Trigger, Triggers, WaitOutcome};

const R: Interest = Interest::READABLE;
const W: Interest = Interest::WRITABLE;
const P: Interest = Interest::PRIORITY;
const MODES: [Mode; 3] = [Mode::Level, Mode::Edge, Mode::OneShot];
const LOOK: Call = Call::Wait(Deadline::Now);

/// A bell under token 0.
fn add(stage: &mut Stage, bell: &Bell, interest: Interest, mode: Mode) -> Key {
    let key = stage.reactor.register(bell.source(), Token(0), interest, mode).expect("fresh");
    stage.take_calls();
    key
}

/// What the one event of a wait says; nothing if there is none.
fn readiness(stage: &mut Stage) -> Readiness {
    let count = stage.look().len();
    assert!(count <= 1, "{count} events");
    stage.events.iter().map(|event| event.readiness).collect()
}

/// Every order of three things.
fn orders<T: Copy>([a, b, c]: [T; 3]) -> [[T; 3]; 6] {
    [[a, b, c], [a, c, b], [b, a, c], [b, c, a], [c, a, b], [c, b, a]]
}

#[test]
fn what_was_seen_is_reported_with_what_a_look_finds() {
    let mut stage = Stage::new(Triggers::LEVEL, 4);
    let bell = Bell::ringing();
    let key = add(&mut stage, &bell, R | W | P, Mode::Level);
    let seen = Report::Partial(slot(key), PollBits::PRI);
    let all = Readiness::READABLE | Readiness::WRITABLE | Readiness::PRIORITY;
    for raw in [vec![seen], vec![seen, seen], vec![seen, Report::Hint(slot(key))]] {
        stage.script.borrow_mut().report(&raw);
        assert_eq!(readiness(&mut stage), all, "{raw:?}");
    }
    bell.hush();
    stage.script.borrow_mut().report(&[seen]);
    assert_eq!(readiness(&mut stage), all - Readiness::READABLE);
    assert_eq!(readiness(&mut stage), Readiness::empty(), "nothing is left over");
}

#[test]
fn what_was_seen_stands_though_a_look_finds_nothing() {
    let mut stage = Stage::new(Triggers::LEVEL, 4);
    let silent = Bell::new();
    let key = add(&mut stage, &silent, R | P, Mode::Level);
    for raw in orders([
        Report::Partial(slot(key), PollBits::PRI),
        Report::Hint(slot(key)),
        Report::Hint(slot(key)),
    ]) {
        stage.script.borrow_mut().report(&raw);
        assert_eq!(readiness(&mut stage), Readiness::PRIORITY, "{raw:?}");
    }
    stage.script.borrow_mut().report(&[Report::Partial(slot(key), PollBits::OUT)]);
    stage.script.borrow_mut().answer(&[], Ok(WaitOutcome::TimedOut));
    assert_eq!(stage.look(), [], "what was not asked for says nothing");
}

/// A fact says all there is; whoever has seen a part has to look, and finds no less.
#[test]
fn facts_and_what_was_seen_merge_in_every_order() {
    let mut stage = Stage::new(Triggers::LEVEL, 4);
    let bell = Bell::ringing();
    let key = add(&mut stage, &bell, R | W | P, Mode::Level);
    let slot = slot(key);
    let three = [
        Report::Partial(slot, PollBits::PRI),
        Report::Fact(slot, PollBits::IN),
        Report::Hint(slot),
    ];
    let told = Readiness::READABLE | Readiness::PRIORITY;
    for raw in orders(three) {
        stage.script.borrow_mut().report(&raw);
        let readiness = readiness(&mut stage);
        assert!(readiness.contains(told), "{raw:?}: {readiness:?}");
        let fact = raw.iter().position(|raw| matches!(raw, Report::Fact(..)));
        let seen = raw.iter().position(|raw| matches!(raw, Report::Partial(..)));
        let looks = seen > fact;
        assert_eq!(readiness.contains(Readiness::WRITABLE), looks, "{raw:?}");
    }
}

/// Nobody may be told what was true in an earlier wait (H1).
#[test]
fn what_was_seen_and_left_over_is_looked_at_when_its_turn_comes() {
    let mut stage = Stage::new(Triggers::EDGE, 1);
    let (first, ready, silent) = (Bell::ringing(), Bell::ringing(), Bell::new());
    let bells = [(0, &first), (1, &ready), (2, &silent)];
    let keys = bells.map(|(token, bell)| {
        stage.reactor.register(bell.source(), Token(token), R | P, Mode::Edge).expect("fresh")
    });
    let seen = keys.map(|key| Report::Partial(slot(key), PollBits::PRI));
    stage.script.borrow_mut().report(&seen);
    assert_eq!(stage.look(), [0]);
    assert_eq!(stage.look(), [1]);
    let event = stage.events.iter().next().expect("one was counted");
    assert_eq!(event.readiness, Readiness::READABLE, "the exception was then");
    assert_eq!(stage.look(), [], "and nothing is left of the third");
    stage.script.borrow_mut().report(&seen[2..]);
    assert_eq!(stage.look(), [2], "until it is seen again");
    stage.script.borrow_mut().report(&[Report::Fact(slot(keys[2]), PollBits::IN)]);
    assert_eq!(stage.look(), [2], "a fact is enough, whatever was seen before");
}

/// A selector with edges that has levels for WRITABLE, and leaves present readiness to the reactor.
fn split(interest: Interest, mode: Mode, bell: &Bell) -> (Stage, Key) {
    let mut stage = Stage::new(Triggers::EDGE, 4);
    stage.script.borrow_mut().level = W;
    stage.script.borrow_mut().look = true;
    let key = add(&mut stage, bell, interest, mode);
    (stage, key)
}

#[test]
fn a_direction_with_levels_is_watched_while_it_is_armed() {
    let bell = Bell::ringing();
    let arm = |key, dirs| Call::Arm(slot(key), dirs, Trigger::Edge);
    for (mode, interest) in MODES.into_iter().flat_map(|mode| [(mode, R | W), (mode, W)]) {
        let (mut stage, key) = split(interest, mode, &bell);
        let case = format!("{mode:?} {interest:?}");
        assert_eq!(stage.look(), [0], "{case}");
        assert_eq!(stage.take_calls(), [LOOK]);
        // Told anew, the reactor does not look at what was reported, though the script says so.
        let (rest, ends) = (interest - W, PollBits::HUP | PollBits::ERR);
        let rest = match mode {
            Mode::Edge => Call::ArmWithEnds(slot(key), rest, ends, Trigger::Edge),
            _ if rest.is_empty() => Call::Disarm(slot(key)),
            _ => arm(key, rest),
        };
        let calls = if mode == Mode::Level { vec![LOOK] } else { vec![rest, LOOK] };
        let again = if mode == Mode::Level && interest != W { vec![0] } else { vec![] };
        assert_eq!(stage.look(), again, "{case}");
        assert_eq!(stage.take_calls(), calls, "{case}");
        stage.look();
        assert_eq!(stage.take_calls(), [LOOK], "and once, {case}");
        // Armed again it is watched and looked at.
        stage.reactor.rearm(key, W).expect("known");
        assert_eq!(stage.take_calls(), [arm(key, interest)], "{case}");
        let event = readiness(&mut stage);
        assert!(event.contains(Readiness::WRITABLE), "{case}: {event:?}");
    }
}

/// Nothing is reported again for another direction's sake (E3).
#[test]
fn what_was_reported_is_not_looked_at_when_the_rest_is_armed() {
    let bell = Bell::ringing();
    let (mut stage, key) = split(R | W, Mode::Edge, &bell);
    let (readable, writable) = (Readiness::READABLE, Readiness::WRITABLE);
    assert_eq!(readiness(&mut stage), readable | writable);
    assert_eq!(readiness(&mut stage), Readiness::empty());
    // Each call looks at what it names, and at what was not reported yet.
    stage.reactor.drained(key, W).expect("known");
    assert_eq!(readiness(&mut stage), writable);
    assert_eq!(readiness(&mut stage), Readiness::empty());
    stage.reactor.rearm(key, R).expect("known");
    assert_eq!(readiness(&mut stage), readable);
    assert_eq!(readiness(&mut stage), Readiness::empty());
    stage.reactor.drained(key, R).expect("known");
    assert_eq!(stage.take_calls().last(), Some(&LOOK), "its edges need no arming");
    stage.reactor.drained(key, W).expect("known");
    stage.reactor.rearm(key, R).expect("known");
    assert_eq!(readiness(&mut stage), readable | writable, "both are owed");
    stage.reactor.rearm(key, Interest::empty()).expect("known");
    assert_eq!(readiness(&mut stage), Readiness::empty(), "nothing was named");
}

#[test]
fn a_one_shot_is_looked_at_for_what_is_armed() {
    let bell = Bell::ringing();
    let (mut stage, key) = split(R | W, Mode::OneShot, &bell);
    stage.look();
    stage.reactor.rearm(key, R).expect("known");
    assert_eq!(stage.take_calls().last(), Some(&Call::Arm(slot(key), R, Trigger::Edge)));
    assert_eq!(readiness(&mut stage), Readiness::READABLE);
    stage.script.borrow_mut().report(&[Report::Hint(slot(key))]);
    assert_eq!(stage.look(), []);
}

/// A file that has lost its edges can only be watched for its level, and then not while nothing of
/// it is armed: every wait would end at once.
#[test]
fn a_file_that_loses_its_edges_is_not_watched_for_nothing() {
    let bell = Bell::ringing();
    let mut stage = Stage::new(Triggers::EDGE, 4);
    stage.script.borrow_mut().look = true;
    let key = add(&mut stage, &bell, R | W, Mode::OneShot);
    assert_eq!(stage.look(), [0]);
    assert_eq!(stage.take_calls(), [LOOK]);
    (stage.script.borrow_mut().side_trigger, stage.script.borrow_mut().look) =
        (Some(Trigger::Level), false);
    stage.reactor.rearm(key, Interest::empty()).expect("known");
    let calls = [Call::Arm(slot(key), R | W, Trigger::Edge), Call::Disarm(slot(key))];
    assert_eq!(stage.take_calls(), calls);
    stage.reactor.rearm(key, W).expect("known");
    assert_eq!(stage.take_calls(), [Call::Arm(slot(key), W, Trigger::Level)], "it stays so");
    stage.script.borrow_mut().report(&[Report::Fact(slot(key), PollBits::OUT)]);
    assert_eq!(stage.look(), [0]);
    stage.look();
    assert_eq!(stage.take_calls(), [LOOK, Call::Disarm(slot(key)), LOOK]);
}

/// The same where a part of it was watched for its level before.
#[test]
fn what_loses_its_edges_keeps_what_is_owed() {
    let bell = Bell::ringing();
    let (mut stage, key) = split(R | W, Mode::Edge, &bell);
    stage.look();
    stage.script.borrow_mut().side_trigger = Some(Trigger::Level);
    stage.script.borrow_mut().look = false;
    stage.reactor.drained(key, R | W).expect("known");
    stage.script.borrow_mut().report(&[Report::Fact(slot(key), PollBits::IN | PollBits::OUT)]);
    assert_eq!(readiness(&mut stage), Readiness::READABLE | Readiness::WRITABLE);
    stage.take_calls();
    assert_eq!(stage.look(), []);
    let ends = PollBits::HUP | PollBits::ERR | PollBits::RDHUP;
    let arm = Call::ArmWithEnds(slot(key), Interest::empty(), ends, Trigger::Level);
    assert_eq!(stage.take_calls(), [arm, LOOK]);
}

#[test]
fn a_refusal_leaves_the_trigger_as_it_was() {
    let bell = Bell::ringing();
    let mut stage = Stage::new(Triggers::EDGE, 4);
    let key = add(&mut stage, &bell, R, Mode::Edge);
    stage.script.borrow_mut().side_trigger = Some(Trigger::Level);
    stage.script.borrow_mut().refuse();
    stage.reactor.rearm(key, R).expect_err("as the script says");
    stage.reactor.rearm(key, R).expect("known");
    stage.reactor.rearm(key, R).expect("known");
    let arm = |trigger| Call::Arm(slot(key), R, trigger);
    assert_eq!(stage.take_calls(), [Trigger::Edge, Trigger::Edge, Trigger::Level].map(arm));
}
