//! Operations by their tags.

use super::super::super::buf::Buf;
use super::super::super::io_call::{Call, CallBox};
use super::*;
use proptest::prelude::*;
use std::os::fd::AsFd;

/// Removes an operation that was not submitted.
#[allow(unsafe_code)]
fn take(in_flight: &mut InFlight, tag: u64) -> Option<(u64, Work)> {
    // SAFETY: the kernel does not have it.
    unsafe { in_flight.remove(user_data_of(tag)) }
}

fn operation(id: u64) -> Work {
    let buf = Buf::Vec(id.to_ne_bytes().to_vec());
    let call = CallBox::new(std::io::stdin().as_fd(), Call::Send, buf, (0, 8), None);
    call.expect("eight bytes").into()
}

fn to_send(work: &Work) -> &[u8] {
    work.io_call().expect("it is a call").to_send()
}

fn id(work: &Work) -> u64 {
    u64::from_ne_bytes(to_send(work).try_into().expect("eight bytes"))
}

fn any_tag() -> impl Strategy<Value = u64> {
    (0..4_u64, prop::sample::select(&[0, 1, 2, (1 << 31) - 1, (1 << 31) + 5, u32::MAX]))
        .prop_map(|(index, generation)| u64::from(generation) << 32 | index)
}

proptest! {
    #[test]
    fn each_tag_returns_its_operation_once(
        steps in prop::collection::vec((any::<bool>(), any_tag()), 1..100),
    ) {
        let (mut in_flight, mut live) = (InFlight::default(), Vec::<u64>::new());
        for (is_begun, tag) in steps {
            let has_index = live.iter().any(|its| *its as u32 == tag as u32);
            if is_begun {
                let inserted = in_flight.insert(operation(tag), tag, 0);
                prop_assert_eq!(inserted.is_err(), has_index, "one at a time");
                let call = inserted.map_or_else(|call| id(&call), |call| id(call));
                prop_assert_eq!(call, tag, "a call that was refused comes back");
                if !has_index {
                    live.push(tag);
                }
            } else {
                prop_assert_eq!(in_flight.get(tag).is_some(), live.contains(&tag));
                // A `user_data` lacks the topmost bit of a tag.
                let is_named = |its: &&u64| user_data_of(**its) == user_data_of(tag);
                let named = live.iter().find(is_named).copied();
                let removed = take(&mut in_flight, tag).map(|(its, call)| (its, id(&call)));
                prop_assert_eq!(removed, named.map(|tag| (tag, tag)), "once");
                live.retain(|its| Some(*its) != named);
            }
            prop_assert_eq!(in_flight.len(), live.len());
            let mut tags: Vec<_> = in_flight.tags().collect();
            tags.sort_unstable();
            live.sort_unstable();
            prop_assert_eq!(&tags, &live);
        }
        live.into_iter().for_each(|tag| drop(take(&mut in_flight, tag)));
    }
}

#[test]
fn operation_in_flight_is_small() {
    assert!(size_of::<Option<InFlightOp>>() <= 32);
}

/// Inserting further operations does not move the memory that an SQE points to.
#[test]
fn memory_in_flight_does_not_move() {
    let mut in_flight = InFlight::default();
    let call = in_flight.insert(operation(1), 0, 0).expect("it is the first");
    let memory = to_send(call).as_ptr();
    for tag in 1..1000 {
        in_flight.insert(operation(tag), tag, 0).expect("each has an index of its own");
    }
    let (_, call) = take(&mut in_flight, 0).expect("it is there");
    assert_eq!(to_send(&call).as_ptr(), memory);
    (1..1000).for_each(|tag| drop(take(&mut in_flight, tag)));
}
