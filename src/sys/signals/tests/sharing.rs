//! The signals that pollers of one thread, which share a queue, pass to each other.

use super::*;

impl Signals {
    /// Returns the descriptors of `known` that a drain names.
    fn drain_known(&mut self, known: &[i32]) -> Vec<i32> {
        let mut drain_all = Vec::new();
        self.drain(|fd| {
            let is_known = known.contains(&fd);
            drain_all.extend(is_known.then_some(fd));
            is_known
        });
        drain_all
    }
}

#[test]
fn fds_read_by_one_reach_another() {
    with_blocked(&[], || {
        let (mut one, mut other) = (take_signals(), take_signals());
        for fd in [11, 22, 22, 33] {
            queue(one.signal(), POLL_IN, fd);
        }
        assert_eq!(one.drain_known(&[11]), [11]);
        assert_eq!(one.drain_known(&[11]), [], "once");
        queue(one.signal(), POLL_IN, 11);
        assert_eq!(other.drain_known(&[22]), [22], "the other poller has read it before");
        assert_eq!((one.drain_known(&[11]), other.drain_known(&[22])), (vec![11], vec![]));
        // 33 was unknown so far. A poller that registers it later polls it anyway.
        assert_eq!(one.drain_known(&[33]), [33]);
        drop(other);
        queue(one.signal(), POLL_IN, 44);
        assert_eq!(one.drain_known(&[]), []);
        assert_eq!(take_signals().drain_known(&[44]), [], "the only poller keeps nothing");
    });
}

#[test]
fn drop_leaves_queue_to_other_pollers() {
    with_blocked(&[], || {
        let (one, mut other) = (take_signals(), take_signals());
        queue(one.signal(), POLL_IN, 7);
        drop(one);
        assert_eq!(mask("SigBlk"), bits(&[other.signal(), SIGIO]));
        assert_eq!(other.drain_known(&[7]), [7]);
        // Descriptors that the dropped value has read are kept too.
        let mut third = take_signals();
        queue(other.signal(), POLL_IN, 8);
        assert_eq!(third.drain_known(&[]), []);
        drop(third);
        assert_eq!((other.drain_known(&[8]), other.drain_known(&[8])), (vec![8], vec![]));
    });
}
