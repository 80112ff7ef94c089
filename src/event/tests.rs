//! The capacity of `Events`.

use super::*;
use crate::key::Slot;

fn event(token: usize) -> Event {
    let key = Key { poller: 0, slot: Slot { index: 0, generation: 0 } };
    Event { token: Token(token), key, readiness: Readiness::READABLE }
}

#[test]
fn events_hold_up_to_their_capacity() {
    let mut events = Events::with_capacity(2);
    assert_eq!((events.capacity(), events.remaining(), events.len()), (2, 2, 0));
    events.push(event(5));
    events.push(event(6));
    assert_eq!((events.capacity(), events.remaining(), events.len()), (2, 0, 2));
    let tokens: Vec<_> = (&events).into_iter().map(|event| event.token.0).collect();
    assert_eq!(tokens, [5, 6]);
    assert!(!events.is_empty() && !events.woken());
    events.set_woken();
    events.clear();
    assert_eq!((events.capacity(), events.remaining(), events.len()), (2, 2, 0));
    assert!(events.is_empty() && !events.woken(), "clear discards the last wait");
}

#[test]
fn large_capacity_allocates_lazily() {
    let events = Events::with_capacity(usize::MAX);
    assert_eq!(events.remaining(), usize::MAX);
    assert!(events.ready.capacity() <= PREALLOCATED);
}

#[test]
fn wake_takes_no_capacity() {
    let mut events = Events::with_capacity(1);
    events.set_woken();
    assert!(events.woken() && events.is_empty());
    assert_eq!(events.remaining(), 1);
}

fn completion(token: usize) -> Completion {
    use crate::key::OpSlot;
    use crate::op::{OpId, Outcome};
    Completion {
        token: Token(token),
        id: OpId { poller: 0, slot: OpSlot { index: token as u32, generation: 0 } },
        transferred: 0,
        result: Ok(Outcome::Done),
        buf: Default::default(),
        more: false,
    }
}

#[test]
fn untaken_completions_stay_in_order() {
    let mut events = Events::with_capacity(3);
    assert_eq!((events.completed(), events.remaining_completions()), (0, 3));
    assert!(!events.has_results());
    let mut queue: VecDeque<_> = (0..5).map(completion).collect();
    events.complete(&mut queue, 3);
    assert_eq!(queue.len(), 2, "these exceed the capacity");
    assert_eq!((events.completed(), events.remaining_completions()), (3, 0));
    assert!(events.has_results() && events.is_empty(), "completions are no events");
    assert_eq!(events.remaining(), 3, "completions take no capacity of events");
    let mut completions = events.completions();
    assert_eq!((completions.len(), completions.size_hint()), (3, (3, Some(3))));
    assert_eq!(completions.next().map(|done| done.token.0), Some(0));
    assert_eq!(completions.len(), 2);
    events.clear();
    assert_eq!(
        (events.completed(), events.remaining_completions()),
        (2, 1),
        "clear keeps completions"
    );
    events.complete(&mut queue, 1);
    let tokens: Vec<_> = events.completions().map(|done| done.token.0).collect();
    assert_eq!(tokens, [1, 2, 3]);
    events.complete(&mut queue, 1);
    assert_eq!(
        (events.completions().map(|done| done.token.0).collect::<Vec<_>>(), queue.len()),
        (vec![4], 0)
    );
    assert!(!events.has_results() && events.completions().next().is_none());
}
