//! The reads after which a receive awaits its source without another call.

use super::fixture::{KEY, OpsFixture};
use crate::event::Interest;
use crate::op::Op;
use crate::sys::pool::BufferPool;

/// Returns a fixture whose reads return all available bytes.
fn fixture(is_by_level: bool) -> OpsFixture {
    let mut cx = OpsFixture::stream(100);
    (cx.io.is_by_level, cx.io.short) = (is_by_level, 0);
    cx
}

/// Lets the peer send, and returns the number of calls in the next wait.
fn receive(cx: &mut OpsFixture, count: usize) -> usize {
    cx.io.change(0, Interest::READABLE, |file| file.peer_sends(count));
    cx.io.attempts = 0;
    cx.report();
    cx.io.attempts
}

#[test]
fn large_read_filling_buffer_ends_turn() {
    let pool = BufferPool::new(4096, 8).expect("a pool");
    let mut cx = fixture(true);
    cx.submit(Op::recv_multi(KEY, &pool));
    assert_eq!(receive(&mut cx, 4096), 1, "a whole message");
    assert_eq!(cx.transferred(), [4096]);
    assert_eq!(receive(&mut cx, 4096 + 10), 1, "the rest is read in the next wait");
    assert_eq!(cx.transferred(), [4096]);
    cx.report();
    assert_eq!((cx.io.attempts, cx.transferred()), (2, vec![10]));
}

#[test]
fn small_read_filling_buffer_is_repeated() {
    let pool = BufferPool::new(1024, 8).expect("a pool");
    let mut cx = fixture(true);
    cx.submit(Op::recv_multi(KEY, &pool));
    assert_eq!(receive(&mut cx, 2048 + 10), 3, "the last is short");
    assert_eq!(cx.transferred(), [1024, 1024, 10]);
}

/// Edges are not repeated.
#[test]
fn edge_reads_continue_until_would_block() {
    let pool = BufferPool::new(4096, 8).expect("a pool");
    let mut cx = fixture(false);
    cx.submit(Op::recv_multi(KEY, &pool));
    assert_eq!(receive(&mut cx, 4096 + 10), 3, "the last would block");
    assert_eq!(cx.transferred(), [4096, 10]);
}

/// Clause T1.
#[test]
fn large_read_successor_is_attempted_in_same_turn() {
    let mut cx = fixture(true);
    for _ in 0..3 {
        cx.submit(Op::recv(KEY, vec![], 4096));
    }
    assert_eq!(receive(&mut cx, 2 * 4096 + 10), 3, "one for each");
    assert_eq!(cx.transferred(), [4096, 4096, 10]);
}
