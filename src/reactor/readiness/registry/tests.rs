//! The registry against a naive model, and its corner cases.

mod model;

use super::*;
use crate::event::Mode;
use crate::selector::Triggers;
use model::{Action, ModelPair};
use proptest::prelude::*;
use std::fs::File;
use std::sync::{Arc, OnceLock};

/// The number of sources to register.
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

    /// Returns a registry with free slots: the first has `uses[0]` generations left, and so on.
    fn nearly_retired(uses: &[u32]) -> Self {
        Registry { slab: Slab::nearly_retired(uses), ..Registry::default() }
    }
}

fn any_action() -> impl Strategy<Value = Action> {
    // Slots are picked by age; young ones are usually live.
    let pick = || 0..10_usize;
    let dirs = || (0..8_u8).prop_map(Interest::from_bits_truncate);
    let bits = any::<u16>().prop_map(PollBits::from_bits_truncate);
    prop_oneof![
        4 => (0..FILES, dirs()).prop_map(|(file, armed)| Action::Insert { file, armed }),
        3 => pick().prop_map(Action::Remove),
        2 => (pick(), dirs()).prop_map(|(pick, dirs)| Action::Rearm(pick, dirs)),
        3 => (pick(), bits).prop_map(|(pick, bits)| Action::QueueFact(pick, bits)),
        2 => (pick(), any::<u16>()).prop_map(|(pick, bits)| {
            Action::QueuePartial(pick, PollBits::from_bits_truncate(bits))
        }),
        3 => (pick(), dirs()).prop_map(|(pick, dirs)| Action::QueueCheck(pick, dirs)),
        2 => pick().prop_map(Action::QueueHint),
        3 => Just(Action::Pop),
        1 => Just(Action::BeginRound),
        2 => pick().prop_map(Action::MarkDirty),
        1 => pick().prop_map(Action::MarkClean),
        2 => Just(Action::PopDirty),
    ]
}

proptest! {
    #[test]
    fn registry_matches_naive_model(actions in proptest::collection::vec(any_action(), 1..120)) {
        let mut pair = ModelPair::new(Registry::default());
        for action in actions {
            pair.play(action);
            pair.compare();
        }
    }

    #[test]
    fn nearly_retired_registry_matches_naive_model(
        uses in proptest::collection::vec(0..4_u32, 1..4),
        actions in proptest::collection::vec(any_action(), 1..120),
    ) {
        let mut pair = ModelPair::new(Registry::nearly_retired(&uses));
        for action in actions {
            pair.play(action);
            pair.compare();
        }
    }
}

#[test]
fn slot_is_retired_after_its_last_generation() {
    let mut registry = Registry::nearly_retired(&[1]);
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
fn stale_slot_does_not_match_its_successor() {
    let mut registry = Registry::default();
    let old = registry.add(0);
    registry.queue_fact(old, PollBits::IN);
    registry.mark_dirty(old);
    registry.remove(old).expect("just added");
    let new = registry.add(1);
    assert_eq!(old.index, new.index);
    assert!(registry.get(old).is_none() && registry.get_mut(old).is_none());
    registry.queue_fact(old, PollBits::IN);
    registry.queue_check(old, Interest::READABLE);
    registry.queue_hint(old);
    registry.mark_dirty(old);
    assert!(registry.queue_len() == 0, "late reports are ignored");
    assert_eq!(registry.pop_dirty(), None);
    assert!(registry.remove(old).is_none());
    assert!(registry.is_registered(&source(1)));
    registry.verify();
}

#[test]
fn slots_beyond_the_slab_are_unknown() {
    let mut registry = Registry::default();
    registry.add(0);
    let beyond = Slot { index: Slot::MAX_INDEX, generation: 0 };
    assert!(registry.get(beyond).is_none() && registry.get_mut(beyond).is_none());
    registry.queue_hint(beyond);
    assert!(registry.queue_len() == 0 && registry.remove(beyond).is_none());
}

#[test]
fn unserved_queue_sweeps_stale_slots() {
    let mut registry = Registry::default();
    let stays = registry.add(0);
    registry.queue_hint(stays);
    for round in 0..10_000 {
        let slot = registry.add(1 + round % (FILES - 1));
        registry.queue_hint(slot);
        registry.remove(slot).expect("just added");
        assert!(registry.queue_len() <= 2, "round {round}");
    }
    registry.verify();
    assert_eq!(registry.queue_front(2).map(|(slot, _)| slot).collect::<Vec<_>>(), [stays]);
    assert_eq!(registry.slab.entries(), 2, "one slot is reused by all");
}

#[test]
fn fact_becomes_hint_in_next_round() {
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
    assert_eq!(registration.to_check(), Interest::all(), "the report is not lost");
    registry.queue_fact(slot, PollBits::PRI);
    let fact = registry.pop_queue();
    assert_eq!(fact, Some((slot, PollBits::PRI)), "no bits of an earlier round");
}

#[test]
fn round_counter_may_wrap() {
    let mut registry = Registry { round: u32::MAX, ..Registry::default() };
    let slot = registry.add(0);
    registry.queue_fact(slot, PollBits::IN);
    registry.begin_round();
    assert_eq!((registry.round(), registry.pop_queue()), (0, Some((slot, PollBits::empty()))));
}

#[test]
fn only_armed_directions_are_checked() {
    let mut registry = Registry::default();
    let slot = registry.add(0);
    registry.queue_check(slot, Interest::READABLE | Interest::WRITABLE);
    let registration = registry.get_mut(slot).expect("just added");
    registration.latch.rearm(Interest::WRITABLE | Interest::PRIORITY);
    assert_eq!(registration.to_check(), Interest::WRITABLE);
}

#[test]
fn source_marked_dirty_twice_is_popped_once() {
    let mut registry = Registry::default();
    let slot = registry.add(0);
    registry.mark_dirty(slot);
    registry.mark_clean(slot);
    registry.mark_dirty(slot);
    assert_eq!(registry.pop_dirty(), Some(slot));
    assert_eq!(registry.pop_dirty(), None);
}

#[test]
fn high_fds_are_found() {
    let low = source(0);
    let copy = || low.fd().try_clone_to_owned().expect("300 more files are allowed");
    let mut copies: Vec<_> = std::iter::repeat_with(copy).take(300).collect();
    let high = SourceFd::new(Arc::new(copies.pop().expect("300 copies")));
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

/// The slab adds a generation to a registration.
#[test]
fn registration_is_small() {
    assert!(size_of::<Registration>() + size_of::<u64>() <= 64, "{}", size_of::<Registration>());
}
