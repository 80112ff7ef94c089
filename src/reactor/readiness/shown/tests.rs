//! New bits, passed ends, and the ends that a kernel is asked for.

use super::*;

const R: Interest = Interest::READABLE;
const W: Interest = Interest::WRITABLE;
const P: Interest = Interest::PRIORITY;
const NONE: PollBits = PollBits::empty();
const IN: PollBits = PollBits::IN;
const OUT: PollBits = PollBits::OUT;
const RDHUP: PollBits = PollBits::RDHUP;
const HUP: PollBits = PollBits::HUP;
const ERR: PollBits = PollBits::ERR;

/// Returns the state after a report of `dirs` with `bits`.
fn shown(dirs: Interest, bits: PollBits) -> Shown {
    let mut shown = Shown::default();
    shown.report(dirs, bits);
    shown
}

#[test]
fn first_end_changes_only_affected_directions() {
    let after = shown(R | W | P, IN | OUT);
    assert_eq!(after.changed(R | W | P, IN | OUT), Interest::empty());
    assert_eq!(after.changed(R | W | P, IN | OUT | RDHUP), R | P, "a writer is unaffected");
    assert_eq!(after.changed(R | W | P, HUP), R | W | P);
    assert_eq!(after.changed(W, ERR), W, "only requested directions");
    let after = shown(R | W, IN | OUT | RDHUP);
    assert_eq!(after.changed(R | W, IN | OUT | RDHUP), Interest::empty());
    assert_eq!(after.changed(R | W, RDHUP | HUP), R | W, "each kind of end");
}

#[test]
fn ends_to_come_excludes_reported_ends() {
    const BOTH: PollBits = HUP.union(ERR);
    for (bits, open, ends) in [
        (IN | OUT, R | W, BOTH | RDHUP),
        (IN | OUT | RDHUP, R | W, BOTH),
        (HUP, Interest::empty(), NONE),
        (IN | ERR, Interest::empty(), NONE),
        (PollBits::NVAL, Interest::empty(), NONE),
    ] {
        let after = shown(R | W, bits);
        assert_eq!(after.open(R | W), open, "{bits:?}");
        assert_eq!(after.ends_to_come(after.open(R | W)), ends, "{bits:?}");
        assert_eq!(after.ended(R | W).is_empty(), bits == IN | OUT, "{bits:?}");
    }
    assert_eq!(shown(W, OUT).ends_to_come(W), BOTH, "RDHUP means nothing to a writer");
}

#[test]
fn passed_end_counts_as_drained() {
    for (before, now, passed) in [
        // A FIFO has a new writer, which may have written.
        (HUP, NONE, true),
        (HUP, IN, true),
        (IN | HUP, IN, true),
        // The end is still there.
        (IN | HUP, HUP, false),
        (RDHUP | HUP, RDHUP, false),
        // The program has taken the error.
        (IN | ERR, IN, false),
        (ERR, NONE, true),
        (IN | ERR, NONE, true),
        // An error alone was taken.
        (RDHUP | ERR, RDHUP, false),
        (IN | RDHUP | ERR, IN, true),
    ] {
        let mut after = shown(R, before);
        let expected = if passed { R } else { Interest::empty() };
        assert_eq!(after.forget(R, now), expected, "{before:?}, then {now:?}");
        assert_eq!(after, shown(R, before & now), "{before:?}, then {now:?}");
    }
}

#[test]
fn forgotten_bits_are_reported_again() {
    let mut after = shown(R, IN | HUP);
    after.forget(R, HUP);
    assert_eq!(after.changed(R, IN | HUP), R, "a writer wrote and closed");
    let mut after = shown(W, OUT | ERR);
    after.forget(W, OUT);
    assert_eq!(after.changed(W, OUT | ERR), W);
}

#[test]
fn direction_is_reported_until_cleared() {
    let mut after = shown(R | W | P, PollBits::NVAL);
    assert_eq!(after.reported(), R | W | P);
    after.clear(W);
    assert_eq!((after.reported(), after.changed(R | P, PollBits::ERR)), (R | P, Interest::empty()));
    let mut again = after;
    again.report(W, OUT);
    assert_eq!((again.reported(), again.ended(R | W | P)), (R | W | P, R | P));
}
