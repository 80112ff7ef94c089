//! The head of each queue, and the next one when it leaves.

use super::*;
use nix::sys::eventfd::EventFd;
use std::sync::Arc;

const R: Interest = Interest::READABLE;
const W: Interest = Interest::WRITABLE;

fn source() -> SourceOps {
    let file = Held::new(Arc::new(EventFd::new().expect("an eventfd")));
    let mode = Manner::of(file.fd()).expect("it is open");
    SourceOps::new(file, mode, Interest::empty())
}

fn op(index: u32) -> OpSlot {
    OpSlot { index, generation: 0 }
}

#[test]
fn first_of_each_order_is_its_head() {
    let mut source = source();
    for (order, queue, is_first) in [
        (0, Queue::Read, true),
        (1, Queue::Unordered, true),
        (2, Queue::Write, true),
        (3, Queue::Unordered, true),
        (4, Queue::Read, false),
        (5, Queue::Write, false),
        (6, Queue::Unordered, true),
    ] {
        source.push(queue, op(order), u64::from(order), queue.dir());
        let is_head = queue == Queue::Unordered || source.head(queue) == Some(op(order));
        assert_eq!(is_head, is_first, "{order}");
    }
    let heads = |source: &SourceOps| {
        [Queue::Read, Queue::Write, Queue::Unordered].map(|queue| source.head(queue))
    };
    assert_eq!(heads(&source), [Some(op(0)), Some(op(2)), None], "the unordered have no first");
    let mut all = source.all();
    all.sort_unstable_by_key(|op| op.index);
    assert_eq!(all, (0..7).map(op).collect::<Vec<_>>());
    assert_eq!(source.dirs(), R | W);
    source.remove(Queue::Write, op(2), 2);
    source.remove(Queue::Unordered, op(3), 3);
    assert_eq!(heads(&source), [Some(op(0)), Some(op(5)), None]);
    source.remove(Queue::Read, op(4), 4);
    source.remove(Queue::Read, op(4), 4);
    source.remove(Queue::Unordered, op(6), 6);
    assert_eq!((heads(&source), source.all().len()), ([Some(op(0)), Some(op(5)), None], 3));
    source.remove(Queue::Read, op(0), 0);
    source.remove(Queue::Write, op(5), 5);
    assert_eq!(
        (source.dirs(), source.all()),
        (Interest::empty(), vec![op(1)]),
        "it waits for no file"
    );
    source.push(Queue::Read, op(7), 7, R);
    assert_eq!(source.head(Queue::Read), Some(op(7)));
}

/// Where all are in one order, each occupies its own direction (M1).
#[test]
fn directions_are_those_of_the_operations() {
    let mut source = source();
    source.push(Queue::Read, op(0), 0, R);
    source.push(Queue::Read, op(1), 1, W);
    assert_eq!(source.dirs(), R | W);
    source.remove(Queue::Read, op(0), 0);
    assert_eq!((source.dirs(), source.head(Queue::Read)), (W, Some(op(1))));
}
