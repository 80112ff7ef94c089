//! What is news, what has passed, and what a kernel can be asked for.

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

/// A report of `dirs` that showed everything.
fn shown(dirs: Interest, bits: PollBits) -> Shown {
    let mut shown = Shown::default();
    shown.report(dirs, bits);
    shown
}

#[test]
fn the_first_end_is_news_to_those_it_concerns() {
    let after = shown(R | W | P, IN | OUT);
    assert_eq!(after.news(R | W | P, IN | OUT), Interest::empty());
    assert_eq!(after.news(R | W | P, IN | OUT | RDHUP), R | P, "a writer can go on");
    assert_eq!(after.news(R | W | P, HUP), R | W | P);
    assert_eq!(after.news(W, ERR), W, "only those that are asked for");
    let after = shown(R | W, IN | OUT | RDHUP);
    assert_eq!(after.news(R | W, IN | OUT | RDHUP), Interest::empty());
    assert_eq!(after.news(R | W, RDHUP | HUP), R | W, "each kind of end");
}

#[test]
fn a_kernel_is_asked_for_ends_that_were_not_told() {
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
fn an_end_that_has_passed_is_as_good_as_drained() {
    for (before, now, passed) in [
        // The next writer of a FIFO came, and has perhaps written.
        (HUP, NONE, true),
        (HUP, IN, true),
        (IN | HUP, IN, true),
        // The end is there still.
        (IN | HUP, HUP, false),
        (RDHUP | HUP, RDHUP, false),
        // The program has taken the error.
        (IN | ERR, IN, false),
        (ERR, NONE, true),
        (IN | ERR, NONE, true),
        // That was none.
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
fn what_was_forgotten_is_news_when_it_comes_again() {
    let mut after = shown(R, IN | HUP);
    after.forget(R, HUP);
    assert_eq!(after.news(R, IN | HUP), R, "a writer came, wrote and went");
    let mut after = shown(W, OUT | ERR);
    after.forget(W, OUT);
    assert_eq!(after.news(W, OUT | ERR), W);
}

#[test]
fn a_direction_is_told_until_it_is_cleared() {
    let mut after = shown(R | W | P, PollBits::NVAL);
    assert_eq!(after.told(), R | W | P);
    after.clear(W);
    assert_eq!((after.told(), after.news(R | P, PollBits::ERR)), (R | P, Interest::empty()));
    let mut again = after;
    again.report(W, OUT);
    assert_eq!((again.told(), again.ended(R | W | P)), (R | W | P, R | P));
}
