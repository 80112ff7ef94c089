//! `Slab` and `SlotMap` against a list of pairs, with keys that have few generations.

use super::*;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::RngAlgorithm;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Key(u32, u32);

impl SlabKey for Key {
    const MAX_INDEX: u32 = 9;
    const MAX_GENERATION: u32 = 3;

    fn new(index: u32, generation: u32) -> Self {
        Key(index, generation)
    }

    fn index(self) -> u32 {
        self.0
    }

    fn generation(self) -> u32 {
        self.1
    }
}

/// Miri takes much longer, and keeps no failures.
fn config() -> ProptestConfig {
    let mut config = ProptestConfig::default();
    if cfg!(miri) {
        (config.cases, config.failure_persistence) = (12, None);
        config.rng_algorithm = RngAlgorithm::XorShift;
    }
    config
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn slab_is_a_list_of_pairs(
        steps in prop::collection::vec((0..5_u8, any::<Index>()), 1..120),
    ) {
        let mut slab = Slab::<Key, usize>::default();
        let (mut list, mut used) = (Vec::new(), Vec::<Key>::new());
        for (at, (step, pick)) in steps.into_iter().enumerate() {
            if step == 4 {
                slab.free_last();
            } else if step % 2 == 0 {
                let Some(expected) = slab.next_key() else {
                    prop_assert_eq!(slab.entries(), 10, "every index is used or retired");
                    continue;
                };
                let (key, value) = slab.insert(at);
                prop_assert_eq!((key, *value), (expected, at));
                prop_assert!(!used.contains(&key), "no two values have the same key");
                prop_assert!(key.0 <= Key::MAX_INDEX && key.1 <= Key::MAX_GENERATION);
                used.push(key);
                list.push((key, at));
            } else if !used.is_empty() {
                // The key may be stale.
                let key = used[pick.index(used.len())];
                let found = list.iter().position(|(old, _)| *old == key);
                prop_assert_eq!(slab.remove(key), found.map(|at| list.remove(at).1));
            }
            prop_assert_eq!(slab.len(), list.len());
            for key in &used {
                let expected = list.iter().find(|(old, _)| old == key).map(|(_, value)| *value);
                prop_assert_eq!(slab.get(*key).copied(), expected);
                prop_assert_eq!(slab.get_mut(*key).copied(), expected);
            }
            let mut all: Vec<_> = slab.iter().map(|(key, value)| (key, *value)).collect();
            all.sort_by_key(|(_, value)| *value);
            prop_assert_eq!(&all, &list);
        }
    }

    #[test]
    fn slot_map_keeps_one_key_of_an_index(
        steps in prop::collection::vec((0..4_u8, 0..4_u32, 0..3_u32), 1..60),
    ) {
        let mut map = SlotMap::<Key, usize>::default();
        let mut list = Vec::<(Key, usize)>::new();
        for (at, (what, index, generation)) in steps.into_iter().enumerate() {
            let key = Key(index, generation);
            let found = list.iter().position(|(old, _)| *old == key);
            if what < 2 {
                list.retain(|(old, _)| old.0 != index);
                list.push((key, at));
                prop_assert_eq!(*map.insert(key, at), at);
            } else {
                prop_assert_eq!(map.remove(key), found.map(|at| list.remove(at).1));
            }
            prop_assert_eq!(map.len(), list.len());
            for (index, generation) in (0..5).flat_map(|index| (0..3).map(move |it| (index, it))) {
                let key = Key(index, generation);
                let expected = list.iter().find(|(old, _)| *old == key).map(|(_, value)| *value);
                prop_assert_eq!(map.get(key).copied(), expected);
                prop_assert_eq!(map.get_mut(key).copied(), expected);
                let by_index = list.iter().find(|(old, _)| old.0 == index).copied();
                let found = map.get_index(index).map(|(key, value)| (key, *value));
                prop_assert_eq!(found, by_index);
            }
            prop_assert_eq!(map.keys().count(), list.len());
        }
        for (a, b) in list.iter().flat_map(|a| list.iter().map(move |b| (*a, *b))) {
            let both = map.get_two_mut(a.0, b.0).map(|both| both.map(|value| *value));
            prop_assert_eq!(both, (a.0 != b.0).then_some([a.1, b.1]));
            prop_assert_eq!(map.get_two_mut(a.0, Key(b.0.0, 7)), None);
        }
        map.clear();
        prop_assert_eq!((map.len(), map.keys().count()), (0, 0));
    }
}

#[test]
fn entry_is_retired_after_its_last_generation() {
    let mut slab = Slab::<Key, ()>::nearly_retired(&[1]);
    for generation in [2, 3] {
        let (key, ()) = slab.insert(());
        assert_eq!(key, Key(0, generation));
        assert_eq!(slab.remove(key), Some(()));
    }
    assert_eq!(slab.next_key(), Some(Key(1, 0)));
    assert!((0..=3).all(|generation| slab.get(Key(0, generation)).is_none()));
}

/// A taken key names no value, and its index has later keys.
#[test]
fn key_is_taken_once_and_finds_nothing() {
    let mut slab = Slab::<Key, usize>::default();
    let (first, _) = slab.insert(1);
    let taken = [slab.take_key(), slab.take_key()];
    let (next, _) = slab.insert(2);
    let keys = [first, taken[0], taken[1], next];
    for (at, key) in keys.iter().enumerate() {
        assert!(!keys[..at].contains(key), "{keys:?}");
    }
    assert!(taken.iter().all(|key| slab.get(*key).is_none()));
    assert_eq!((slab.get_index(next.0), slab.len()), (Some((next, &2)), 2));
    assert_eq!(slab.entries(), 2, "they have used the index of the last one");
    let mut slab = Slab::<Key, usize>::nearly_retired(&[1]);
    assert_ne!(slab.take_key(), slab.take_key(), "these are its last two");
    assert_eq!(slab.insert(3).0.0, 1, "another index");
}

/// After each burst all but a few entries are freed, and no key is used twice.
#[test]
fn bursts_leave_few_entries() {
    let mut slab = Slab::<crate::key::OpSlot, u32>::default();
    let mut map = SlotMap::<crate::key::OpSlot, u32>::default();
    let kept: Vec<_> = (0..3).map(|at| slab.insert(at).0).collect();
    kept.iter().for_each(|&key| *map.insert(key, 0) = 1);
    let mut old = Vec::new();
    for round in 0..5 {
        let burst: Vec<_> = (0..20_000).map(|at| slab.insert(at).0).collect();
        burst.iter().for_each(|&key| *map.insert(key, 0) = 1);
        assert!(slab.entries() >= 20_003 && map.entries.len() >= 20_003);
        assert!(old.iter().all(|&key| slab.get(key).is_none()), "round {round}");
        for &key in &burst {
            assert!(slab.remove(key).is_some() && map.remove(key).is_some());
        }
        let memory = [slab.entries.capacity(), slab.free.capacity(), map.entries.capacity()];
        assert!(memory.iter().all(|&capacity| capacity <= 2000), "round {round}: {memory:?}");
        assert!(kept.iter().all(|&key| slab.get(key).is_some() && map.get(key).is_some()));
        old = burst;
    }
}
