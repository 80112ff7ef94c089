//! Every mode on every kind of kernel trigger, against the contract and without a kernel.
//!
//! A source under a latch has few states. Visiting every reachable state covers scripts of any
//! length. The walk uses two directions; random scripts use three.

mod contract;
mod harness;

use super::*;
use harness::{Action, Column, LatchHarness, ReportKind, only, own_bits};
use proptest::prelude::*;
use std::collections::HashMap;

const R: Interest = Interest::READABLE;
const W: Interest = Interest::WRITABLE;
const MODES: [Mode; 3] = [Mode::Level, Mode::Edge, Mode::OneShot];

const fn column(native: Triggers, trigger: Trigger, report_kind: ReportKind) -> Column {
    Column { native, trigger, report_kind, level: Interest::empty(), always_ready: false }
}

const LEVEL_FACTS: Column = column(Triggers::LEVEL, Trigger::Level, ReportKind::Fact);
const LEVEL_HINTS: Column = column(Triggers::LEVEL, Trigger::Level, ReportKind::Hint);
const EDGE_FACTS: Column = column(Triggers::EDGE, Trigger::Edge, ReportKind::Fact);
const EDGE_HINTS: Column = column(Triggers::EDGE, Trigger::Edge, ReportKind::Hint);
const EDGE_CHANGE_HINTS: Column = column(Triggers::EDGE, Trigger::Edge, ReportKind::ChangeHint);
const ONE_SHOT_FACTS: Column = column(Triggers::ONESHOT, Trigger::OneShot, ReportKind::Fact);
const ONE_SHOT_HINTS: Column = column(Triggers::ONESHOT, Trigger::OneShot, ReportKind::Hint);
/// A regular file under a selector with all native triggers.
const REGULAR_FILE: Column = Column {
    native: Triggers::all(),
    trigger: Trigger::Edge,
    report_kind: ReportKind::ChangeHint,
    level: Interest::empty(),
    always_ready: true,
};
/// A file with edges to read, whose room to write is watched by level.
const SPLIT: Column = Column { level: W, ..EDGE_CHANGE_HINTS };
/// A file watched by level although its selector has edges for others.
const FALLBACK_SET: Column = column(Triggers::EDGE, Trigger::Level, ReportKind::Fact);

/// Delivers `dirs` with data and room and no end.
fn deliver(latch: &mut Latch, dirs: Interest) -> Step {
    latch.on_delivered(dirs, own_bits(dirs))
}

/// Returns every subset of two directions.
fn subsets() -> [Interest; 4] {
    [Interest::empty(), R, W, R | W]
}

/// Returns every action, with one kind of end.
fn all_actions(end: PollBits) -> Vec<Action> {
    let mut actions =
        vec![Action::Wait, Action::Spurious, Action::WaitAtCapacity, Action::Overflow];
    actions.extend([Action::Ready(R), Action::Ready(W), Action::Consume(R), Action::Consume(W)]);
    actions.extend([Action::End(end), Action::EndPassed(end)]);
    actions.extend(subsets().map(Action::Rearm));
    actions.extend([R, W, R | W].map(Action::Drained));
    for mode in MODES {
        actions.extend(subsets().map(|interest| Action::Modify(mode, interest)));
    }
    actions
}

/// A reached state, with the state before it and the action between them.
struct VisitedState {
    harness: LatchHarness,
    from: Option<(usize, Action)>,
}

/// Performs every action in every reachable state, breadth first, so that a failure prints the
/// shortest script that leads to it.
fn check_every_script(column: Column) {
    check_every_script_with(column, PollBits::HUP);
}

fn check_every_script_with(column: Column, end: PollBits) {
    let (mut visits, mut seen) = (Vec::new(), HashMap::new());
    let start = LatchHarness::new(column, Mode::Level, Interest::empty());
    visits.push(VisitedState { harness: start, from: None });
    let (all_actions, mut next) = (all_actions(end), 0);
    while next < visits.len() {
        for &action in &all_actions {
            let mut harness = visits[next].harness;
            if let Err(broken) = harness.play(action) {
                panic!("{broken}\non {column:?}\nafter {:?}, {action:?}", script(&visits, next));
            }
            seen.entry(harness.fingerprint()).or_insert_with(|| {
                visits.push(VisitedState { harness, from: Some((next, action)) });
            });
        }
        next += 1;
    }
    assert!(visits.len() > 50, "only {} states: the walk ended early", visits.len());
}

fn script(visits: &[VisitedState], mut at: usize) -> Vec<Action> {
    let mut actions = Vec::new();
    while let Some((from, action)) = visits[at].from {
        actions.push(action);
        at = from;
    }
    actions.reverse();
    actions
}

#[test]
fn every_script_on_level_facts() {
    check_every_script(LEVEL_FACTS);
}

#[test]
fn every_script_with_other_ends() {
    for (column, end) in [(LEVEL_FACTS, PollBits::ERR), (LEVEL_FACTS, PollBits::RDHUP)] {
        check_every_script_with(column, end);
    }
    check_every_script_with(SPLIT, PollBits::ERR);
}

#[test]
fn every_script_on_level_hints() {
    check_every_script(LEVEL_HINTS);
}

#[test]
fn every_script_on_edge_facts() {
    check_every_script(EDGE_FACTS);
}

#[test]
fn every_script_on_edge_hints() {
    check_every_script(EDGE_HINTS);
}

#[test]
fn every_script_on_edge_change_hints() {
    check_every_script(EDGE_CHANGE_HINTS);
}

#[test]
fn every_script_on_one_shot_facts() {
    check_every_script(ONE_SHOT_FACTS);
}

#[test]
fn every_script_on_one_shot_hints() {
    check_every_script(ONE_SHOT_HINTS);
}

#[test]
fn every_script_on_regular_files() {
    check_every_script(REGULAR_FILE);
}

#[test]
fn every_script_on_fallback_level_files() {
    check_every_script(FALLBACK_SET);
}

#[test]
fn every_script_on_read_edge_write_level_files() {
    check_every_script(SPLIT);
}

#[test]
fn every_script_on_edge_files_reported_by_level() {
    check_every_script(Column { level: R | W, ..EDGE_CHANGE_HINTS });
}

fn any_column() -> impl Strategy<Value = Column> {
    proptest::sample::select(vec![
        LEVEL_FACTS,
        LEVEL_HINTS,
        EDGE_FACTS,
        EDGE_HINTS,
        EDGE_CHANGE_HINTS,
        ONE_SHOT_FACTS,
        ONE_SHOT_HINTS,
        REGULAR_FILE,
        FALLBACK_SET,
        SPLIT,
        Column { level: R, ..EDGE_CHANGE_HINTS },
        Column { level: W | Interest::PRIORITY, ..EDGE_CHANGE_HINTS },
    ])
}

fn any_dirs() -> impl Strategy<Value = Interest> {
    (0..8_u8).prop_map(Interest::from_bits_truncate)
}

fn any_end() -> impl Strategy<Value = PollBits> {
    proptest::sample::select(vec![PollBits::HUP, PollBits::ERR, PollBits::RDHUP])
}

fn any_action() -> impl Strategy<Value = Action> {
    prop_oneof![
        6 => Just(Action::Wait),
        1 => Just(Action::Spurious),
        2 => Just(Action::WaitAtCapacity),
        1 => Just(Action::Overflow),
        4 => any_dirs().prop_map(Action::Ready),
        3 => any_dirs().prop_map(Action::Consume),
        3 => any_end().prop_map(Action::End),
        2 => any_end().prop_map(Action::EndPassed),
        2 => any_dirs().prop_map(Action::Rearm),
        2 => any_dirs().prop_map(Action::Drained),
        1 => (proptest::sample::select(MODES.to_vec()), any_dirs())
            .prop_map(|(mode, interest)| Action::Modify(mode, interest)),
    ]
}

proptest! {
    #[test]
    fn random_scripts_on_three_directions(
        column in any_column(),
        mode in proptest::sample::select(MODES.to_vec()),
        actions in proptest::collection::vec(any_action(), 1..60),
    ) {
        let mut harness = LatchHarness::new(column, mode, Interest::all());
        for action in actions {
            if let Err(broken) = harness.play(action) {
                prop_assert!(false, "{broken} at {action:?}");
            }
        }
    }
}

#[test]
fn mode_gets_cheapest_native_trigger() {
    const L: Trigger = Trigger::Level;
    const E: Trigger = Trigger::Edge;
    const O: Trigger = Trigger::OneShot;
    const TABLE: [(u8, [Trigger; 3]); 7] = [
        // The sums of LEVEL 1, EDGE 2 and ONESHOT 4, and the triggers of Level, Edge and OneShot.
        (1, [L, L, L]),
        (2, [E, E, E]),
        (1 + 2, [L, E, L]),
        (4, [O, O, O]),
        (1 + 4, [L, L, O]),
        (2 + 4, [E, E, O]),
        (1 + 2 + 4, [L, E, O]),
    ];
    for (bits, expected) in TABLE {
        let native = Triggers::from_bits_truncate(bits);
        assert_eq!(MODES.map(|mode| preferred(mode, native)), expected, "{native:?}");
        assert_eq!(MODES.map(|mode| Latch::new(mode, R, native).trigger()), expected);
    }
}

#[test]
#[should_panic(expected = "at least one native trigger")]
fn selector_without_triggers_panics() {
    preferred(Mode::Level, Triggers::empty());
}

/// Checks the cost of each step; the walks above do not notice a needless system call.
#[test]
fn native_trigger_needs_no_extra_system_calls() {
    for mode in MODES {
        for trigger in [Trigger::Level, Trigger::Edge, Trigger::OneShot] {
            let latch = Latch::new(mode, R | W, only(trigger));
            let cell = format!("{mode:?} on {trigger:?}");
            let delivered = match (mode, trigger) {
                (Mode::Level, Trigger::Edge) => Step::Recheck(R | W),
                (Mode::Level, Trigger::OneShot) | (Mode::OneShot, Trigger::Level) => Step::Arm,
                (Mode::Edge, Trigger::Level | Trigger::OneShot) => Step::Arm,
                _ => Step::Nothing,
            };
            let mut after = latch;
            assert_eq!(deliver(&mut after, R), delivered, "{cell} after a delivery");
            let watched = match (mode, trigger) {
                (Mode::Level, _) | (_, Trigger::Edge) => R | W,
                (Mode::OneShot, _) => Interest::empty(),
                (Mode::Edge, _) => W,
            };
            assert_eq!(after.watched(), watched, "{cell} after a delivery");
            let on_false_report =
                if trigger == Trigger::OneShot { Step::Arm } else { Step::Nothing };
            assert_eq!({ latch }.on_false_report(), on_false_report, "{cell} after a false report");
            assert_eq!({ latch }.rearm(W), Step::Arm, "{cell} on rearm");
            let arms = mode == Mode::Edge && trigger != Trigger::Edge;
            let drained = if arms { Step::Arm } else { Step::Nothing };
            assert_eq!({ latch }.drained(W), drained, "{cell} on drained");
        }
    }
}

#[test]
fn disarmed_latch_does_not_arm_one_shot_kernel() {
    let mut latch = Latch::new(Mode::OneShot, R, Triggers::ONESHOT);
    deliver(&mut latch, R);
    assert_eq!(latch.on_false_report(), Step::Nothing);
    let mut latch = Latch::new(Mode::Edge, R, Triggers::ONESHOT);
    assert_eq!(latch.on_delivered(R, PollBits::HUP), Step::Nothing);
    assert_eq!(latch.on_false_report(), Step::Nothing);
}

#[test]
fn drained_direction_stays_armed_after_edges_are_lost() {
    for is_drained in [false, true] {
        let mut latch = Latch::new(Mode::Edge, R, Triggers::EDGE);
        deliver(&mut latch, R);
        if is_drained {
            latch.drained(R);
        }
        latch.fix_trigger(Trigger::Level, Interest::empty());
        let armed = if is_drained { R } else { Interest::empty() };
        assert_eq!(latch.armed(), armed, "drained: {is_drained}");
    }
}

/// A flood of spurious reports must not keep the poller awake.
#[test]
fn spurious_reports_disarm_one_shot_until_rearm() {
    let mut latch = Latch::new(Mode::OneShot, R | W, Triggers::EDGE);
    assert_eq!(
        [latch.on_false_report(), latch.on_false_report(), latch.on_false_report()],
        [Step::Nothing; 3],
        "armed"
    );
    assert_eq!(deliver(&mut latch, R), Step::Nothing);
    for _ in 0..3 {
        for _ in 1..MAX_SPURIOUS {
            assert_eq!((latch.on_false_report(), latch.watched()), (Step::Nothing, R | W));
        }
        assert_eq!((latch.on_false_report(), latch.watched()), (Step::Arm, Interest::empty()));
        assert_eq!((latch.on_false_report(), latch.watched()), (Step::Nothing, Interest::empty()));
        assert_eq!((latch.rearm(W), latch.watched()), (Step::Arm, R | W));
        assert_eq!(deliver(&mut latch, W), Step::Nothing);
    }
}

fn split(mode: Mode, interest: Interest) -> Latch {
    let mut latch = Latch::new(mode, interest, Triggers::EDGE);
    latch.fix_trigger(Trigger::Edge, W);
    latch
}

/// The cost of steps for a source whose directions have two columns.
#[test]
fn level_direction_of_edge_file_costs_like_level() {
    for mode in MODES {
        let first = split(mode, R | W);
        assert_eq!(first.watched(), R | W, "{mode:?}");
        for dirs in [R, W, R | W] {
            let cell = format!("{mode:?}, {dirs:?}");
            let mut latch = first;
            let is_edge = dirs.contains(R);
            let step = match mode {
                Mode::Level if is_edge => Step::Recheck(R),
                Mode::OneShot => Step::Arm,
                Mode::Edge if dirs.contains(W) => Step::Arm,
                Mode::Level | Mode::Edge => Step::Nothing,
            };
            assert_eq!(deliver(&mut latch, dirs), step, "{cell} were delivered");
            let (armed, watched) = match mode {
                Mode::Level => (R | W, R | W),
                Mode::OneShot => (Interest::empty(), R),
                Mode::Edge => ((R | W) - (dirs & W), (R | W) - (dirs & W)),
            };
            assert_eq!((latch.armed(), latch.watched()), (armed, watched), "{cell}");
            let arms = mode == Mode::Edge && dirs.contains(W);
            let step = if arms { Step::Arm } else { Step::Nothing };
            assert_eq!(latch.drained(dirs), step, "{cell} were drained");
            assert_eq!(latch.on_false_report(), Step::Nothing, "{cell}");
        }
    }
    let mut reader = split(Mode::OneShot, R);
    assert_eq!(deliver(&mut reader, R), Step::Nothing, "no direction is watched by level");
}

/// Checks which directions are polled after arming in a kernel that does not report present
/// readiness.
#[test]
fn reported_direction_is_not_unreported() {
    let none = Interest::empty();
    for trigger in [Trigger::Level, Trigger::Edge, Trigger::OneShot] {
        let latch = |mode| Latch::new(mode, R | W, only(trigger));
        let unreported = |mut latch: Latch| {
            let before = latch.unreported();
            deliver(&mut latch, R);
            let after = latch.unreported();
            latch.rearm(R);
            [before, after, latch.unreported()]
        };
        assert_eq!(unreported(latch(Mode::Level)), [R | W; 3], "repeated by level, {trigger:?}");
        assert_eq!(unreported(latch(Mode::OneShot)), [R | W, none, R], "{trigger:?}");
        let edge = if trigger == Trigger::Edge { [none; 3] } else { [R | W, W, R | W] };
        assert_eq!(unreported(latch(Mode::Edge)), edge, "{trigger:?}");
        let mut split = split(Mode::Edge, R | W);
        assert_eq!(split.unreported(), W, "reported edges are unknown");
        deliver(&mut split, R);
        assert_eq!(split.unreported(), W);
        deliver(&mut split, W);
        assert_eq!(split.unreported(), none);
        split.drained(W);
        assert_eq!(split.unreported(), W);
    }
}

#[test]
fn level_directions_exist_with_edge_trigger_only() {
    for trigger in [Trigger::Level, Trigger::OneShot] {
        let mut latch = split(Mode::OneShot, R | W);
        deliver(&mut latch, R);
        assert_eq!(latch.watched(), R);
        latch.fix_trigger(trigger, W);
        let mut plain = latch;
        plain.fix_trigger(trigger, Interest::empty());
        assert_eq!(latch, plain);
        assert!(latch.watched().is_empty(), "not watched without edges, {trigger:?}");
    }
}
