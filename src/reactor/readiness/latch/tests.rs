//! Every mode on every kind of kernel trigger, against the contract and without a kernel.
//!
//! A source under a latch has few states, so all scripts of any length are covered by visiting all
//! states that some script leads to. The state space of two directions is walked that way; a third
//! is left to random scripts.

mod bench;
mod contract;

use super::*;
use bench::{Bench, Column, Flavour, Op, only, own_bits};
use proptest::prelude::*;
use std::collections::HashMap;

const R: Interest = Interest::READABLE;
const W: Interest = Interest::WRITABLE;
const MODES: [Mode; 3] = [Mode::Level, Mode::Edge, Mode::OneShot];

const fn column(native: Triggers, trigger: Trigger, flavour: Flavour) -> Column {
    Column { native, trigger, flavour, level: Interest::empty(), always_ready: false }
}

const LEVEL_FACTS: Column = column(Triggers::LEVEL, Trigger::Level, Flavour::Fact);
const LEVEL_HINTS: Column = column(Triggers::LEVEL, Trigger::Level, Flavour::Hint);
const EDGE_FACTS: Column = column(Triggers::EDGE, Trigger::Edge, Flavour::Fact);
const EDGE_HINTS: Column = column(Triggers::EDGE, Trigger::Edge, Flavour::Hint);
const EDGE_NEWS: Column = column(Triggers::EDGE, Trigger::Edge, Flavour::HintOfNews);
const ONE_SHOT_FACTS: Column = column(Triggers::ONESHOT, Trigger::OneShot, Flavour::Fact);
const ONE_SHOT_HINTS: Column = column(Triggers::ONESHOT, Trigger::OneShot, Flavour::Hint);
/// A regular file under a selector that has everything else.
const DULL_FILE: Column = Column {
    native: Triggers::all(),
    trigger: Trigger::Edge,
    flavour: Flavour::HintOfNews,
    level: Interest::empty(),
    always_ready: true,
};
/// A file that signals what makes it readable, and is watched for its room to write.
const SPLIT: Column = Column { level: W, ..EDGE_NEWS };
/// A file that its selector can only watch for its level, though it has edges for others.
const SIDE_SET: Column = column(Triggers::EDGE, Trigger::Level, Flavour::Fact);

/// Delivers `dirs`, which have data and room, and no end.
fn deliver(latch: &mut Latch, dirs: Interest) -> Step {
    latch.delivered(dirs, own_bits(dirs))
}

/// The ways to pick from two directions.
fn subsets() -> [Interest; 4] {
    [Interest::empty(), R, W, R | W]
}

/// All that can happen, with one kind of end.
fn alphabet(end: PollBits) -> Vec<Op> {
    let mut ops = vec![Op::Wait, Op::Stir, Op::Starve, Op::Overflow];
    ops.extend([Op::Wake(R), Op::Wake(W), Op::Clear(R), Op::Clear(W)]);
    ops.extend([Op::End(end), Op::Pass(end)]);
    ops.extend(subsets().map(Op::Rearm));
    ops.extend([R, W, R | W].map(Op::Drained));
    for mode in MODES {
        ops.extend(subsets().map(|interest| Op::Modify(mode, interest)));
    }
    ops
}

/// A state that was reached, and how: after which state, by which operation.
struct Visit {
    bench: Bench,
    from: Option<(usize, Op)>,
}

/// Plays every operation in every state that can be reached, the nearest first, so that a failure
/// prints the shortest script that leads to it.
fn check_every_script(column: Column) {
    check_every_script_with(column, PollBits::HUP);
}

fn check_every_script_with(column: Column, end: PollBits) {
    let (mut visits, mut seen) = (Vec::new(), HashMap::new());
    let start = Bench::new(column, Mode::Level, Interest::empty());
    visits.push(Visit { bench: start, from: None });
    let (alphabet, mut next) = (alphabet(end), 0);
    while next < visits.len() {
        for &op in &alphabet {
            let mut bench = visits[next].bench;
            if let Err(broken) = bench.play(op) {
                panic!("{broken}\non {column:?}\nafter {:?}, {op:?}", script(&visits, next));
            }
            seen.entry(bench.fingerprint()).or_insert_with(|| {
                visits.push(Visit { bench, from: Some((next, op)) });
            });
        }
        next += 1;
    }
    assert!(visits.len() > 50, "only {} states: the walk is cut short", visits.len());
}

fn script(visits: &[Visit], mut at: usize) -> Vec<Op> {
    let mut ops = Vec::new();
    while let Some((from, op)) = visits[at].from {
        ops.push(op);
        at = from;
    }
    ops.reverse();
    ops
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
fn every_script_on_edge_hints_of_news() {
    check_every_script(EDGE_NEWS);
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
fn every_script_on_files_that_are_always_ready() {
    check_every_script(DULL_FILE);
}

#[test]
fn every_script_on_files_beside_the_mechanism() {
    check_every_script(SIDE_SET);
}

#[test]
fn every_script_on_files_with_edges_to_read_and_levels_to_write() {
    check_every_script(SPLIT);
}

#[test]
fn every_script_on_files_whose_edges_are_levels_all() {
    check_every_script(Column { level: R | W, ..EDGE_NEWS });
}

fn any_column() -> impl Strategy<Value = Column> {
    proptest::sample::select(vec![
        LEVEL_FACTS,
        LEVEL_HINTS,
        EDGE_FACTS,
        EDGE_HINTS,
        EDGE_NEWS,
        ONE_SHOT_FACTS,
        ONE_SHOT_HINTS,
        DULL_FILE,
        SIDE_SET,
        SPLIT,
        Column { level: R, ..EDGE_NEWS },
        Column { level: W | Interest::PRIORITY, ..EDGE_NEWS },
    ])
}

fn any_dirs() -> impl Strategy<Value = Interest> {
    (0..8_u8).prop_map(Interest::from_bits_truncate)
}

fn any_end() -> impl Strategy<Value = PollBits> {
    proptest::sample::select(vec![PollBits::HUP, PollBits::ERR, PollBits::RDHUP])
}

fn any_op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => Just(Op::Wait),
        1 => Just(Op::Stir),
        2 => Just(Op::Starve),
        1 => Just(Op::Overflow),
        4 => any_dirs().prop_map(Op::Wake),
        3 => any_dirs().prop_map(Op::Clear),
        3 => any_end().prop_map(Op::End),
        2 => any_end().prop_map(Op::Pass),
        2 => any_dirs().prop_map(Op::Rearm),
        2 => any_dirs().prop_map(Op::Drained),
        1 => (proptest::sample::select(MODES.to_vec()), any_dirs())
            .prop_map(|(mode, interest)| Op::Modify(mode, interest)),
    ]
}

proptest! {
    #[test]
    fn random_scripts_on_three_directions(
        column in any_column(),
        mode in proptest::sample::select(MODES.to_vec()),
        ops in proptest::collection::vec(any_op(), 1..60),
    ) {
        let mut bench = Bench::new(column, mode, Interest::all());
        for op in ops {
            if let Err(broken) = bench.play(op) {
                prop_assert!(false, "{broken} at {op:?}");
            }
        }
    }
}

#[test]
fn each_mode_gets_the_trigger_with_the_least_to_do() {
    const L: Trigger = Trigger::Level;
    const E: Trigger = Trigger::Edge;
    const O: Trigger = Trigger::OneShot;
    const TABLE: [(u8, [Trigger; 3]); 7] = [
        // LEVEL 1, EDGE 2, ONESHOT 4: and what Level, Edge and OneShot get.
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
        assert_eq!(MODES.map(|mode| preferred(mode, native)), expected, "of {native:?}");
        assert_eq!(MODES.map(|mode| Latch::new(mode, R, native).trigger()), expected);
    }
}

#[test]
#[should_panic(expected = "at least one native trigger")]
fn a_selector_without_triggers_is_refused() {
    preferred(Mode::Level, Triggers::empty());
}

/// What each step costs, where the walks above would forgive a needless system call.
#[test]
fn nothing_is_asked_of_a_kernel_that_does_it_by_itself() {
    for mode in MODES {
        for trigger in [Trigger::Level, Trigger::Edge, Trigger::OneShot] {
            let latch = Latch::new(mode, R | W, only(trigger));
            let cell = format!("{mode:?} on {trigger:?}");
            let delivered = match (mode, trigger) {
                (Mode::Level, Trigger::Edge) => Step::Look(R | W),
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
            let missed = if trigger == Trigger::OneShot { Step::Arm } else { Step::Nothing };
            assert_eq!({ latch }.missed(), missed, "{cell} after a false report");
            assert_eq!({ latch }.rearm(W), Step::Arm, "{cell} on rearm");
            let arms = mode == Mode::Edge && trigger != Trigger::Edge;
            let drained = if arms { Step::Arm } else { Step::Nothing };
            assert_eq!({ latch }.drained(W), drained, "{cell} on drained");
        }
    }
}

#[test]
fn a_latch_with_nothing_armed_leaves_a_one_shot_kernel_alone() {
    let mut latch = Latch::new(Mode::OneShot, R, Triggers::ONESHOT);
    deliver(&mut latch, R);
    assert_eq!(latch.missed(), Step::Nothing);
    let mut latch = Latch::new(Mode::Edge, R, Triggers::ONESHOT);
    assert_eq!(latch.delivered(R, PollBits::HUP), Step::Nothing);
    assert_eq!(latch.missed(), Step::Nothing);
}

#[test]
fn drained_direction_outlives_lost_edges() {
    for is_drained in [false, true] {
        let mut latch = Latch::new(Mode::Edge, R, Triggers::EDGE);
        deliver(&mut latch, R);
        if is_drained {
            latch.drained(R);
        }
        latch.fix_trigger(Trigger::Level, Interest::empty());
        let armed = if is_drained { R } else { Interest::empty() };
        assert_eq!(latch.armed(), armed, "it was drained: {is_drained}");
    }
}

/// A flood of what nobody waits for must not keep the poller awake.
#[test]
fn reports_for_nobody_silence_the_kernel_until_it_is_armed_again() {
    let mut latch = Latch::new(Mode::OneShot, R | W, Triggers::EDGE);
    assert_eq!([latch.missed(), latch.missed(), latch.missed()], [Step::Nothing; 3], "armed");
    assert_eq!(deliver(&mut latch, R), Step::Nothing);
    for _ in 0..3 {
        for _ in 1..MAX_SPURIOUS {
            assert_eq!((latch.missed(), latch.watched()), (Step::Nothing, R | W));
        }
        assert_eq!((latch.missed(), latch.watched()), (Step::Arm, Interest::empty()));
        assert_eq!((latch.missed(), latch.watched()), (Step::Nothing, Interest::empty()));
        assert_eq!((latch.rearm(W), latch.watched()), (Step::Arm, R | W));
        assert_eq!(deliver(&mut latch, W), Step::Nothing);
    }
}

fn split(mode: Mode, interest: Interest) -> Latch {
    let mut latch = Latch::new(mode, interest, Triggers::EDGE);
    latch.fix_trigger(Trigger::Edge, W);
    latch
}

/// The same of a source whose directions have two columns.
#[test]
fn a_direction_with_levels_costs_what_levels_do() {
    for mode in MODES {
        let first = split(mode, R | W);
        assert_eq!(first.watched(), R | W, "{mode:?}");
        for dirs in [R, W, R | W] {
            let cell = format!("{mode:?}, {dirs:?}");
            let mut latch = first;
            let news = dirs.contains(R);
            let step = match mode {
                Mode::Level if news => Step::Look(R),
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
            assert_eq!(latch.missed(), Step::Nothing, "{cell}");
        }
    }
    let mut reader = split(Mode::OneShot, R);
    assert_eq!(deliver(&mut reader, R), Step::Nothing, "nobody watches its level");
}

/// What has to be looked at when a kernel is told anew that says nothing of what is there.
#[test]
fn what_was_reported_is_owed_no_longer() {
    let none = Interest::empty();
    for trigger in [Trigger::Level, Trigger::Edge, Trigger::OneShot] {
        let latch = |mode| Latch::new(mode, R | W, only(trigger));
        let owed = |mut latch: Latch| {
            let before = latch.owed();
            deliver(&mut latch, R);
            let after = latch.owed();
            latch.rearm(R);
            [before, after, latch.owed()]
        };
        assert_eq!(owed(latch(Mode::Level)), [R | W; 3], "always, {trigger:?}");
        assert_eq!(owed(latch(Mode::OneShot)), [R | W, none, R], "{trigger:?}");
        let edge = if trigger == Trigger::Edge { [none; 3] } else { [R | W, W, R | W] };
        assert_eq!(owed(latch(Mode::Edge)), edge, "{trigger:?}");
        let mut split = split(Mode::Edge, R | W);
        assert_eq!(split.owed(), W, "of its edges nobody knows which were reported");
        deliver(&mut split, R);
        assert_eq!(split.owed(), W);
        deliver(&mut split, W);
        assert_eq!(split.owed(), none);
        split.drained(W);
        assert_eq!(split.owed(), W);
    }
}

#[test]
fn only_edges_have_levels_beside_them() {
    for trigger in [Trigger::Level, Trigger::OneShot] {
        let mut latch = split(Mode::OneShot, R | W);
        deliver(&mut latch, R);
        assert_eq!(latch.watched(), R);
        latch.fix_trigger(trigger, W);
        let mut plain = latch;
        plain.fix_trigger(trigger, Interest::empty());
        assert_eq!(latch, plain);
        assert!(latch.watched().is_empty(), "what has lost its edges is not watched, {trigger:?}");
    }
}
