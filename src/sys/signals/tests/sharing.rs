//! What the pollers of one thread, who read one queue, leave to each other.

use super::*;

impl Signals {
    /// What a drain names of these, which are all that it knows.
    fn those_of(&mut self, known: &[i32]) -> Vec<i32> {
        let mut names = Vec::new();
        self.drain(|number| {
            let is_known = known.contains(&number);
            names.extend(is_known.then_some(number));
            is_known
        });
        names
    }
}

#[test]
fn what_one_has_read_another_hears_of() {
    with_blocked(&[], || {
        let (mut one, mut other) = (take(), take());
        for number in [11, 22, 22, 33] {
            queue(one.number(), POLL_IN, number);
        }
        assert_eq!(one.those_of(&[11]), [11]);
        assert_eq!(one.those_of(&[11]), [], "once");
        queue(one.number(), POLL_IN, 11);
        assert_eq!(other.those_of(&[22]), [22], "what was read already, though not for it");
        assert_eq!((one.those_of(&[11]), other.those_of(&[22])), (vec![11], vec![]));
        // Nobody has known 33 so far; who comes to know it looks at it anyway.
        assert_eq!(one.those_of(&[33]), [33]);
        drop(other);
        queue(one.number(), POLL_IN, 44);
        assert_eq!(one.those_of(&[]), []);
        assert_eq!(take().those_of(&[44]), [], "nothing is kept when there is nobody else");
    });
}

#[test]
fn who_goes_leaves_the_rest_their_queue() {
    with_blocked(&[], || {
        let (one, mut other) = (take(), take());
        queue(one.number(), POLL_IN, 7);
        drop(one);
        assert_eq!(mask("SigBlk"), bits(&[other.number(), SIGIO]));
        assert_eq!(other.those_of(&[7]), [7]);
        // Also what was read already by the one that goes.
        let mut third = take();
        queue(other.number(), POLL_IN, 8);
        assert_eq!(third.those_of(&[]), []);
        drop(third);
        assert_eq!((other.those_of(&[8]), other.those_of(&[8])), (vec![8], vec![]));
    });
}
