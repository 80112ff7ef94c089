//! The timers against a list with linear search.

use super::*;
use proptest::prelude::*;
use std::time::Duration;

#[derive(Clone, Debug)]
enum Step {
    Add(u64, u32),
    Remove(u64, u32),
    /// Pops all timers due by then.
    Pop(u64),
}

fn any_step() -> impl Strategy<Value = Step> {
    // Few values, so that many are due at the same moment.
    let (due, op) = (|| 0..6_u64, || 0..4_u32);
    prop_oneof![
        3 => (due(), op()).prop_map(|(due, op)| Step::Add(due, op)),
        2 => (due(), op()).prop_map(|(due, op)| Step::Remove(due, op)),
        1 => due().prop_map(Step::Pop),
    ]
}

fn slot(at: u32) -> OpSlot {
    OpSlot { index: at % 2, generation: at / 2 }
}

proptest! {
    #[test]
    fn due_timers_pop_in_order(steps in prop::collection::vec(any_step(), 1..60)) {
        let start = Instant::now();
        let moment = |due| start + Duration::from_nanos(due);
        let (mut timers, mut model) = (Timers::default(), Vec::new());
        for step in steps {
            match step {
                Step::Add(due, op) => {
                    timers.add(moment(due), slot(op));
                    model.push((due, op));
                    model.sort_unstable();
                    model.dedup();
                }
                Step::Remove(due, op) => {
                    timers.remove(moment(due), slot(op));
                    model.retain(|&its| its != (due, op));
                }
                Step::Pop(now) => {
                    let mut last = 0;
                    while let Some(op) = timers.pop_due(moment(now)) {
                        let found = model.iter().position(|&(due, its)| {
                            slot(its) == op && due <= now && due >= last
                        });
                        last = model.remove(found.expect("due, and in order")).0;
                    }
                    prop_assert!(model.iter().all(|&(due, _)| due > now), "due timers remain");
                }
            }
            prop_assert_eq!(timers.next(), model.first().map(|&(due, _)| moment(due)));
            prop_assert_eq!(timers.len(), model.len());
        }
    }
}
