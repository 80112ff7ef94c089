//! The queue against a list sorted by time of readiness.

use super::ReportQueue;
use crate::key::Slot;
use proptest::prelude::*;
use std::collections::HashSet;

fn slot(index: u32) -> Slot {
    Slot { index, generation: 0 }
}

fn drain(queue: &mut ReportQueue) -> Vec<u32> {
    std::iter::from_fn(|| queue.pop()).map(|slot| slot.index).collect()
}

/// Queues the reports of a selector wait.
fn report(queue: &mut ReportQueue, reports: &[u32], has_more: bool) {
    let begun = queue.begin_reports();
    reports.iter().for_each(|&index| queue.push(slot(index)));
    queue.end_reports(begun, has_more);
}

#[test]
fn reports_left_in_kernel_precede_newer_entries() {
    let mut queue = ReportQueue::default();
    queue.push(slot(1));
    report(&mut queue, &[2], true);
    queue.push(slot(3));
    report(&mut queue, &[4, 5], false);
    assert_eq!(drain(&mut queue), [1, 2, 4, 5, 3]);
}

#[test]
fn reports_after_unlimited_wait_come_last() {
    let mut queue = ReportQueue::default();
    report(&mut queue, &[1], false);
    queue.push(slot(2));
    report(&mut queue, &[3], true);
    assert_eq!(drain(&mut queue), [1, 2, 3]);
}

#[test]
fn several_limited_waits_keep_order() {
    let mut queue = ReportQueue::default();
    report(&mut queue, &[1], true);
    queue.push(slot(2));
    report(&mut queue, &[3], true);
    queue.push(slot(4));
    report(&mut queue, &[5], false);
    assert_eq!(drain(&mut queue), [1, 3, 2, 5, 4]);
}

#[derive(Clone, Debug)]
enum Action {
    Push,
    Pop,
    Remove(prop::sample::Index),
    Recheck(usize, bool),
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        3 => Just(Action::Push),
        3 => Just(Action::Pop),
        1 => any::<prop::sample::Index>().prop_map(Action::Remove),
        3 => (0_usize..4, any::<bool>()).prop_map(|(count, more)| Action::Recheck(count, more)),
    ]
}

/// Entries by time of readiness. The model assumes that all reports a limited wait left in the
/// kernel became ready at that moment.
#[derive(Default)]
struct Model {
    entries: Vec<(u32, u32)>,
    removed: HashSet<u32>,
    time: u32,
    left_at: Option<u32>,
}

impl Model {
    fn push(&mut self, index: u32, time: u32) {
        self.entries.push((time, index));
        // A stable sort: entries of one time keep their order.
        self.entries.sort_by_key(|entry| entry.0);
    }

    fn live(&self) -> Vec<u32> {
        let live = self.entries.iter().filter(|entry| !self.removed.contains(&entry.1));
        live.map(|entry| entry.1).collect()
    }
}

proptest! {
    #[test]
    fn queue_is_sorted_by_time_of_readiness(
        actions in prop::collection::vec(action(), 0..60),
    ) {
        let mut queue = ReportQueue::default();
        let mut model = Model::default();
        for (index, action) in (0..).zip(actions) {
            model.time += 1;
            match action {
                Action::Push => {
                    queue.push(slot(index * 10));
                    model.push(index * 10, model.time);
                }
                Action::Pop => {
                    let expected = model.live().first().copied();
                    let popped = loop {
                        match queue.pop() {
                            Some(slot) if model.removed.contains(&slot.index) => {
                                queue.note_stale_popped();
                            }
                            popped => break popped,
                        }
                    };
                    prop_assert_eq!(popped.map(|slot| slot.index), expected);
                    model.entries.retain(|entry| Some(entry.1) != expected);
                }
                Action::Remove(at) => {
                    let live = model.live();
                    if !live.is_empty() {
                        model.removed.insert(*at.get(&live));
                        queue.on_removed(true, |slot| !model.removed.contains(&slot.index));
                    }
                }
                Action::Recheck(count, has_more) => {
                    let reports: Vec<u32> = (0..count as u32).map(|nth| index * 10 + nth).collect();
                    report(&mut queue, &reports, has_more);
                    let time = model.left_at.take().unwrap_or(model.time);
                    reports.iter().for_each(|&report| model.push(report, time));
                    model.left_at = has_more.then_some(model.time);
                }
            }
        }
        let live = model.live();
        let queued = drain(&mut queue);
        let queued: Vec<u32> =
            queued.into_iter().filter(|index| !model.removed.contains(index)).collect();
        prop_assert_eq!(queued, live);
    }
}
