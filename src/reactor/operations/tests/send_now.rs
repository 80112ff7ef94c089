//! Sends that complete or reach the driver at submit, and those that wait.

use super::fake_file::FileKind;
use super::fixture::{KEY, OpsFixture, SLOT};
use crate::event::{Events, Interest};
use crate::key::OpSlot;
use crate::op::Op;
use crate::reactor::operations::Io;
use crate::reactor::operations::entry::{CancelReason, OpState, Side};
use crate::reactor::operations::queue::Queue;
use crate::sys::buf::Buf;
use crate::sys::io_call::Call;
use std::ops::Range;
use std::time::Duration;

/// Returns a fixture without a driver, whose calls move all bytes.
fn fixture() -> OpsFixture {
    let mut cx = OpsFixture::stream(100);
    cx.io.short = 0;
    cx
}

#[test]
fn send_with_room_needs_no_entry() {
    let mut cx = fixture();
    let op = cx.submit(Op::send_all(KEY, "hello", ..));
    assert!(cx.ops.table.get(op).is_none(), "completed at submit");
    assert!(cx.ops.contains(op), "known until delivered (X2)");
    assert_eq!(cx.io.calls, 1);
    cx.verify();
    let next = cx.submit(Op::send(KEY, "again", 1..3));
    assert_ne!(op, next, "ids are unique");
    assert_eq!(cx.transferred(), [5, 2]);
    assert!(!cx.ops.contains(op));
    assert_eq!(cx.io.files.all[0].written, b"helloga");
    cx.verify();
}

#[test]
fn partial_send_keeps_its_queue_position() {
    let mut cx = fixture();
    cx.submit(Op::send_all(KEY, vec![1; 30], ..));
    // There is room for 40 bytes.
    cx.submit(Op::send_all(KEY, vec![2; 20], ..));
    let after = cx.submit(Op::send(KEY, vec![3; 5], ..));
    assert!(matches!(cx.ops.table.get(after).map(|its| &its.state), Some(OpState::Queued)));
    cx.verify();
    assert_eq!(cx.transferred(), [30]);
    cx.io.change(0, Interest::WRITABLE, |file| file.peer_reads(40));
    cx.report();
    assert_eq!(cx.transferred(), [20, 5]);
    let expected: Vec<u8> = [vec![1; 30], vec![2; 20], vec![3; 5]].concat();
    assert_eq!(cx.io.files.all[0].written, expected, "in order, without repetition");
}

#[test]
fn blocked_send_waits_after_one_call() {
    let mut cx = fixture();
    cx.submit(Op::send_all(KEY, vec![1; 40], ..));
    cx.io.calls = 0;
    let op = cx.submit(Op::send(KEY, "x", ..));
    let state = &cx.ops.table.get(op).expect("pending").state;
    assert!(matches!(state, OpState::AwaitingReady { on: Side::Source }), "{state:?}");
    assert_eq!((cx.io.calls, cx.io.attempts), (1, 0));
    cx.verify();
}

#[test]
fn failed_send_completes_with_error() {
    let mut cx = fixture();
    cx.io.change(0, Interest::WRITABLE, |file| file.peer_resets());
    let op = cx.submit(Op::send_all(KEY, "x", ..));
    assert!(cx.ops.table.get(op).is_none());
    let mut events = Events::with_capacity(1);
    cx.ops.deliver(&mut events, &mut Vec::new());
    let failed = events.completions().next().expect("a completion");
    assert_eq!(failed.result.expect_err("a reset").raw_os_error(), Some(libc::ECONNRESET));
    assert_eq!(&*failed.buf, b"x", "the buffer is returned");
    let source = cx.ops.sources.get(SLOT).expect("a source");
    assert!(source.queue(Queue::Write).first.is_none());
    cx.verify();
}

/// An invalid range is refused without sending.
#[test]
fn range_beyond_buffer_is_refused() {
    let mut cx = fixture();
    for (start, end) in [(2, 9), (4, 2)] {
        let error = cx.refuse(Op::send_all(KEY, "hello", start..end));
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    }
    assert!(cx.io.files.all[0].written.is_empty());
}

/// Returns the states of operations.
fn states(cx: &OpsFixture, ops: &[OpSlot]) -> Vec<&'static str> {
    let state = |op: &OpSlot| match cx.ops.table.get(*op).map(|entry| &entry.state) {
        Some(OpState::Submitted { cancel: None }) => "submitted",
        Some(OpState::Queued) => "queued",
        Some(OpState::AwaitingReady { .. }) => "awaiting",
        Some(_) => "other",
        None => "done",
    };
    ops.iter().map(state).collect()
}

/// An operation submitted to the driver at once can have successors and be cancelled.
#[test]
fn first_operation_per_direction_is_submitted_at_once() {
    let mut cx = OpsFixture::stream(0);
    let receives = [cx.submit(Op::recv(KEY, Vec::new(), 5)), cx.submit(recv_exact())];
    let sends = [
        cx.submit(Op::send_all(KEY, "hello", 1..)),
        cx.submit(Op::send(KEY, "x", ..)),
        cx.submit(Op::send(KEY, "y", ..)),
    ];
    assert_eq!(states(&cx, &receives), ["submitted", "queued"]);
    assert_eq!(states(&cx, &sends), ["submitted", "queued", "queued"]);
    assert_eq!((cx.io.calls, cx.io.attempts), (2, 0), "one submit each");
    assert_eq!(cx.ops.pending(SLOT), 5);
    assert_eq!(cx.ops.busy(SLOT), Interest::READABLE | Interest::WRITABLE);
    cx.verify();
    cx.ops.cancel(sends[1], CancelReason::User, &mut cx.io);
    assert_eq!(states(&cx, &sends), ["submitted", "done", "queued"]);
    assert!(cx.ops.contains(sends[0]) && cx.ops.pending(SLOT) == 4);
    cx.verify();
}

/// On a socket a ring gets recv(2) and send(2) instead, which have flags.
#[test]
fn read_of_socket_is_a_receive() {
    for (kind, calls) in [
        (FileKind::Stream { connects: false }, [Call::Recv, Call::Send]),
        (FileKind::Pipe, [Call::Read, Call::Write]),
    ] {
        let mut cx = OpsFixture::new(kind, 0);
        cx.submit(Op::read(KEY, Vec::new(), 5));
        cx.submit(Op::write(KEY, "hello", ..));
        assert_eq!(cx.io.driver.calls(), calls, "{kind:?}");
        cx.verify();
    }
}

#[test]
fn refused_operation_is_attempted_at_once() {
    let mut cx = OpsFixture::stream(100);
    cx.io.short = 0;
    let sent = cx.submit(Op::send_all(KEY, "hello", 1..));
    let received = cx.submit(recv_exact());
    assert_eq!(states(&cx, &[sent, received]), ["done", "awaiting"]);
    assert_eq!(cx.io.files.all[0].written, b"ello");
    cx.verify();
    assert_eq!(cx.transferred(), [4]);
}

/// A read would take the connect's error.
#[test]
fn receive_waits_for_connect() {
    let mut cx = OpsFixture::new(FileKind::Stream { connects: true }, 0);
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
    cx.submit(Op::connect(KEY, address));
    let ops = [cx.submit(recv_exact()), cx.submit(Op::send(KEY, "x", ..))];
    assert_eq!(states(&cx, &ops), ["queued", "queued"]);
    cx.verify();
}

/// A receive waiting in a ring consumes a lone urgent byte.
#[test]
fn receive_with_urgent_interest_is_emulated() {
    let mut cx = OpsFixture::stream(0);
    cx.ops.add_source(SLOT, Interest::PRIORITY, &mut cx.io).expect("open");
    let ops = [cx.submit(recv_exact()), cx.submit(Op::send(KEY, "x", ..))];
    assert_eq!(states(&cx, &ops), ["awaiting", "submitted"]);
}

#[test]
fn deadline_of_submitted_operation_is_kept() {
    let mut cx = OpsFixture::stream(0);
    let op = cx.submit(recv_exact().deadline(Duration::from_millis(5)));
    assert_eq!(states(&cx, &[op]), ["submitted"]);
    assert_eq!(cx.ops.next_time(), Some(cx.io.now() + Duration::from_millis(5)));
    cx.verify();
}

#[test]
fn invalid_first_operation_is_refused() {
    let mut cx = OpsFixture::stream(0);
    let refused = [
        Op::send_all(KEY, "hello", 2..9),
        Op::send(KEY, "hello", Range { start: 4, end: 2 }),
        Op::recv(KEY, Vec::new(), 0),
        Op::recv(KEY, Buf::Static(b"x"), 1),
        recv_exact().skip_success(),
    ];
    for op in refused {
        let buf = op.buf.to_vec();
        let (error, op) = cx.refuse_with(op);
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
        assert_eq!(&*op.buf, buf, "the buffer is unchanged");
    }
    assert_eq!((cx.io.calls, cx.ops.pending(SLOT)), (0, 0));
    assert_eq!(cx.ops.statistics().submitted, 0);
    cx.verify();
}

fn recv_exact() -> Op {
    Op::recv_exact(KEY, Vec::new(), 3)
}
