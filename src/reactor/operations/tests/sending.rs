//! Sends that are done at submit, and those that become operations after all.

use super::scene::{KEY, SLOT, Scene};
use crate::event::{Events, Interest};
use crate::op::Op;
use crate::reactor::operations::entry::{OpState, Side};
use crate::reactor::operations::queue::Queue;

/// Returns a scene without a driver, whose calls move all that they can.
fn scene() -> Scene {
    let mut scene = Scene::stream(100);
    scene.io.short = 0;
    scene
}

#[test]
fn send_that_finds_room_needs_no_entry() {
    let mut scene = scene();
    let op = scene.submit(Op::send_all(KEY, "hello", ..));
    assert!(scene.ops.table.get(op).is_none(), "it is done");
    assert!(scene.ops.contains(op), "cancel finds it until it is delivered (X2)");
    assert_eq!(scene.io.calls, 1);
    scene.holds();
    let next = scene.submit(Op::send(KEY, "again", 1..3));
    assert_ne!(op, next, "no two operations have one name");
    assert_eq!(scene.transferred(), [5, 2]);
    assert!(!scene.ops.contains(op));
    assert_eq!(scene.io.files.all[0].written, b"helloga");
    scene.holds();
}

#[test]
fn rest_of_a_send_goes_behind_no_other() {
    let mut scene = scene();
    scene.submit(Op::send_all(KEY, vec![1; 30], ..));
    // There is room for 40.
    scene.submit(Op::send_all(KEY, vec![2; 20], ..));
    let after = scene.submit(Op::send(KEY, vec![3; 5], ..));
    assert!(matches!(scene.ops.table.get(after).map(|its| &its.state), Some(OpState::Queued)));
    scene.holds();
    assert_eq!(scene.transferred(), [30]);
    scene.io.change(0, Interest::WRITABLE, |file| file.peer_reads(40));
    scene.report();
    assert_eq!(scene.transferred(), [20, 5]);
    let expected: Vec<u8> = [vec![1; 30], vec![2; 20], vec![3; 5]].concat();
    assert_eq!(scene.io.files.all[0].written, expected, "in order, and nothing twice");
}

#[test]
fn send_that_would_block_waits_after_one_call() {
    let mut scene = scene();
    scene.submit(Op::send_all(KEY, vec![1; 40], ..));
    scene.io.calls = 0;
    let op = scene.submit(Op::send(KEY, "x", ..));
    let state = &scene.ops.table.get(op).expect("it waits").state;
    assert!(matches!(state, OpState::AwaitingReady { on: Side::Source }), "{state:?}");
    assert_eq!((scene.io.calls, scene.io.attempts), (1, 0));
    scene.holds();
}

#[test]
fn send_that_fails_completes_with_the_error() {
    let mut scene = scene();
    scene.io.change(0, Interest::WRITABLE, |file| file.peer_resets());
    let op = scene.submit(Op::send_all(KEY, "x", ..));
    assert!(scene.ops.table.get(op).is_none());
    let mut events = Events::with_capacity(1);
    scene.ops.deliver(&mut events, &mut Vec::new());
    let failed = events.completions().next().expect("it has failed");
    assert_eq!(failed.result.expect_err("a reset").raw_os_error(), Some(libc::ECONNRESET));
    assert_eq!(&*failed.buf, b"x", "the buffer comes back");
    let source = scene.ops.sources.get(SLOT).expect("it had an operation");
    assert!(source.queue(Queue::Write).first.is_none());
    scene.holds();
}

/// A range that is not there is refused, and nothing of it is sent.
#[test]
fn range_beyond_the_buffer_is_refused() {
    let mut scene = scene();
    for (start, end) in [(2, 9), (4, 2)] {
        let error = scene.refuse(Op::send_all(KEY, "hello", start..end));
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    }
    assert!(scene.io.files.all[0].written.is_empty());
}
