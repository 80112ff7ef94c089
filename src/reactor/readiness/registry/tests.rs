//! The registry against a naive model, and its corners one by one.

mod model;

use super::*;
use crate::event::Mode;
use crate::selector::Triggers;
use model::{Op, Pair};
use proptest::prelude::*;
use std::fs::File;
use std::sync::{Arc, OnceLock};

/// How many sources there are to register.
const FILES: usize = 6;

fn source(file: usize) -> SourceFd {
    static POOL: OnceLock<Vec<Arc<File>>> = OnceLock::new();
    let open = || Arc::new(File::open("/dev/null").expect("every Linux has it"));
    SourceFd::new(
        POOL.get_or_init(|| std::iter::repeat_with(open).take(FILES).collect())[file].clone(),
    )
}

fn latch(interest: Interest) -> Latch {
    Latch::new(Mode::OneShot, interest, Triggers::LEVEL)
}

impl Registry {
    fn add(&mut self, file: usize) -> Slot {
        let slot = self.next_slot().expect("there are four billion");
        self.insert(slot, source(file), Token(file), latch(Interest::all()));
        slot
    }

    /// With vacant places of which the first has `uses` left before its generation would wrap, the
    /// next one more, and so on.
    fn worn(uses: &[u32]) -> Self {
        Registry { slab: Slab::nearly_retired(uses), ..Registry::default() }
    }
}

fn any_op() -> impl Strategy<Value = Op> {
    // Slots are picked by age, and the young ones are the ones that live.
    let pick = || 0..10_usize;
    let dirs = || (0..8_u8).prop_map(Interest::from_bits_truncate);
    let bits = any::<u16>().prop_map(PollBits::from_bits_truncate);
    prop_oneof![
        4 => (0..FILES, dirs()).prop_map(|(file, armed)| Op::Insert { file, armed }),
        3 => pick().prop_map(Op::Remove),
        2 => (pick(), dirs()).prop_map(|(pick, dirs)| Op::Rearm(pick, dirs)),
        3 => (pick(), bits).prop_map(|(pick, bits)| Op::QueueFact(pick, bits)),
        2 => (pick(), any::<u16>()).prop_map(|(pick, bits)| {
            Op::QueueSeen(pick, PollBits::from_bits_truncate(bits))
        }),
        3 => (pick(), dirs()).prop_map(|(pick, dirs)| Op::QueueLook(pick, dirs)),
        2 => pick().prop_map(Op::QueueHint),
        3 => Just(Op::Pop),
        1 => Just(Op::BeginRound),
        2 => pick().prop_map(Op::NoteLagging),
        1 => pick().prop_map(Op::CaughtUp),
        2 => Just(Op::PopLagging),
    ]
}

proptest! {
    #[test]
    fn a_registry_is_like_the_naive_model(ops in proptest::collection::vec(any_op(), 1..120)) {
        let mut pair = Pair::new(Registry::default());
        for op in ops {
            pair.play(op);
            pair.compare();
        }
    }

    #[test]
    fn a_worn_registry_is_like_the_naive_model(
        uses in proptest::collection::vec(0..4_u32, 1..4),
        ops in proptest::collection::vec(any_op(), 1..120),
    ) {
        let mut pair = Pair::new(Registry::worn(&uses));
        for op in ops {
            pair.play(op);
            pair.compare();
        }
    }
}

#[test]
fn a_place_is_used_up_to_its_last_generation_and_then_retired() {
    let mut registry = Registry::worn(&[1]);
    for generation in [u32::MAX - 1, u32::MAX] {
        let slot = registry.add(0);
        assert_eq!(slot, Slot { index: 0, generation });
        registry.remove(slot).expect("just added");
        registry.verify();
    }
    let fresh = registry.add(0);
    assert_eq!(fresh, Slot { index: 1, generation: 0 });
    for generation in [0, 1, u32::MAX] {
        assert!(registry.get(Slot { index: 0, generation }).is_none());
        assert!(registry.remove(Slot { index: 0, generation }).is_none());
    }
    assert!(registry.get(fresh).is_some());
}

#[test]
fn a_stale_slot_matches_nothing_that_came_into_its_place() {
    let mut registry = Registry::default();
    let old = registry.add(0);
    registry.queue_fact(old, PollBits::IN);
    registry.note_lagging(old);
    registry.remove(old).expect("just added");
    let new = registry.add(1);
    assert_eq!(old.index, new.index);
    assert!(registry.get(old).is_none() && registry.get_mut(old).is_none());
    registry.queue_fact(old, PollBits::IN);
    registry.queue_look(old, Interest::READABLE);
    registry.queue_hint(old);
    registry.note_lagging(old);
    assert!(registry.queue_length() == 0, "late reports are ignored");
    assert_eq!(registry.pop_lagging(), None);
    assert!(registry.remove(old).is_none());
    assert!(registry.is_registered(&source(1)));
    registry.verify();
}

#[test]
fn slots_beyond_the_last_place_are_unknown() {
    let mut registry = Registry::default();
    registry.add(0);
    let beyond = Slot { index: Slot::MAX_INDEX, generation: 0 };
    assert!(registry.get(beyond).is_none() && registry.get_mut(beyond).is_none());
    registry.queue_hint(beyond);
    assert!(registry.queue_length() == 0 && registry.remove(beyond).is_none());
}

#[test]
fn a_queue_that_nobody_serves_stays_short() {
    let mut registry = Registry::default();
    let stays = registry.add(0);
    registry.queue_hint(stays);
    for round in 0..10_000 {
        let slot = registry.add(1 + round % (FILES - 1));
        registry.queue_hint(slot);
        registry.remove(slot).expect("just added");
        assert!(registry.queue_length() <= 2, "round {round}");
    }
    registry.verify();
    assert_eq!(registry.queue_front(2).map(|(slot, _)| slot).collect::<Vec<_>>(), [stays]);
    assert_eq!(registry.slab.entries(), 2, "one place serves all that come and go");
}

#[test]
fn a_fact_holds_for_one_round_and_is_a_reason_to_look_in_the_next() {
    let mut registry = Registry::default();
    let slot = registry.add(0);
    registry.queue_fact(slot, PollBits::IN);
    registry.queue_fact(slot, PollBits::OUT);
    let round = registry.round();
    let registration = registry.get(slot).expect("just added");
    assert_eq!(registration.fact_in(round), Some(PollBits::IN | PollBits::OUT));
    registry.begin_round();
    let registration = registry.get(slot).expect("just added");
    assert_eq!(registration.fact_in(registry.round()), None);
    assert_eq!(registration.look(), Interest::all(), "or the report would be lost");
    registry.queue_fact(slot, PollBits::PRI);
    let fact = registry.pop_queue();
    assert_eq!(fact, Some((slot, PollBits::PRI)), "nothing of an earlier round is mixed in");
}

#[test]
fn rounds_may_wrap() {
    let mut registry = Registry { round: u32::MAX, ..Registry::default() };
    let slot = registry.add(0);
    registry.queue_fact(slot, PollBits::IN);
    registry.begin_round();
    assert_eq!((registry.round(), registry.pop_queue()), (0, Some((slot, PollBits::empty()))));
}

#[test]
fn only_armed_directions_are_looked_at() {
    let mut registry = Registry::default();
    let slot = registry.add(0);
    registry.queue_look(slot, Interest::READABLE | Interest::WRITABLE);
    let registration = registry.get_mut(slot).expect("just added");
    registration.latch.rearm(Interest::WRITABLE | Interest::PRIORITY);
    assert_eq!(registration.look(), Interest::WRITABLE);
}

#[test]
fn a_source_that_caught_up_and_lags_again_is_found_once() {
    let mut registry = Registry::default();
    let slot = registry.add(0);
    registry.note_lagging(slot);
    registry.caught_up(slot);
    registry.note_lagging(slot);
    assert_eq!(registry.pop_lagging(), Some(slot));
    assert_eq!(registry.pop_lagging(), None);
}

#[test]
fn numbers_are_found_however_high() {
    let low = source(0);
    let copy = || low.fd().try_clone_to_owned().expect("300 more files are allowed");
    let mut copies: Vec<_> = std::iter::repeat_with(copy).take(300).collect();
    let high = SourceFd::new(Arc::new(copies.pop().expect("the last has the highest number")));
    let mut registry = Registry::default();
    assert!(!registry.is_registered(&high));
    let slot = registry.add(0);
    assert!(!registry.is_registered(&high));
    registry.remove(slot).expect("just added");
    let slot = registry.next_slot().expect("there are four billion");
    registry.insert(slot, high, Token(0), latch(Interest::all()));
    registry.verify();
    assert!(!registry.is_registered(&low));
    let high = registry.remove(slot).expect("just added");
    assert!(!registry.is_registered(&high));
    registry.verify();
}

/// The slab adds a generation.
#[test]
fn registration_is_small() {
    assert!(size_of::<Registration>() + size_of::<u64>() <= 64, "{}", size_of::<Registration>());
}
