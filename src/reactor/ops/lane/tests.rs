//! Who is at work in a lane, and who goes on when he leaves.

use super::*;
use nix::sys::eventfd::EventFd;
use std::os::fd::AsFd;

const R: Interest = Interest::READABLE;
const W: Interest = Interest::WRITABLE;

fn work() -> Work {
    let file = EventFd::new().expect("an eventfd");
    Work::new(Manner::of(file.as_fd()).expect("it is open"))
}

fn op(index: u32) -> OpSlot {
    OpSlot { index, generation: 0 }
}

#[test]
fn the_first_of_an_order_is_at_work_and_each_of_the_loose() {
    let mut work = work();
    for (order, lane, is_first) in [
        (0, Lane::Read, true),
        (1, Lane::Loose, true),
        (2, Lane::Write, true),
        (3, Lane::Loose, true),
        (4, Lane::Read, false),
        (5, Lane::Write, false),
        (6, Lane::Loose, true),
    ] {
        let its = work.push(lane, op(order), u64::from(order), lane.dir());
        assert_eq!(its, is_first, "{order}");
    }
    let heads = |work: &Work| [Lane::Read, Lane::Write, Lane::Loose].map(|lane| work.head(lane));
    assert_eq!(heads(&work), [Some(op(0)), Some(op(2)), None], "the loose have no first");
    let mut all = work.all();
    all.sort_unstable_by_key(|op| op.index);
    assert_eq!(all, (0..7).map(op).collect::<Vec<_>>());
    assert_eq!(work.dirs(), R | W);
    work.remove(Lane::Write, op(2), 2);
    work.remove(Lane::Loose, op(3), 3);
    assert_eq!(heads(&work), [Some(op(0)), Some(op(5)), None]);
    work.remove(Lane::Read, op(4), 4);
    work.remove(Lane::Read, op(4), 4);
    work.remove(Lane::Loose, op(6), 6);
    assert_eq!((heads(&work), work.all().len()), ([Some(op(0)), Some(op(5)), None], 3));
    work.remove(Lane::Read, op(0), 0);
    work.remove(Lane::Write, op(5), 5);
    assert_eq!((work.dirs(), work.all()), (Interest::empty(), vec![op(1)]), "it waits for no file");
    assert!(work.push(Lane::Read, op(7), 7, R));
}

/// Where all stand in one order, each has its own direction for itself (M1).
#[test]
fn directions_are_those_of_who_stands_there() {
    let mut work = work();
    work.push(Lane::Read, op(0), 0, R);
    work.push(Lane::Read, op(1), 1, W);
    assert_eq!(work.dirs(), R | W);
    work.remove(Lane::Read, op(0), 0);
    assert_eq!((work.dirs(), work.head(Lane::Read)), (W, Some(op(1))));
}
