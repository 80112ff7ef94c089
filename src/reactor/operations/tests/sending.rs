//! Sends that are done at submit, or that the driver has then, and those that wait after all.

use super::fake_file::FileKind;
use super::scene::{KEY, SLOT, Scene};
use crate::event::{Events, Interest};
use crate::key::OpSlot;
use crate::op::Op;
use crate::reactor::operations::Io;
use crate::reactor::operations::entry::{OpState, Side, Why};
use crate::reactor::operations::queue::Queue;
use crate::sys::buf::Buf;
use crate::sys::io_call::Call;
use std::ops::Range;
use std::time::Duration;

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

/// Returns the states of operations.
fn states(scene: &Scene, ops: &[OpSlot]) -> Vec<&'static str> {
    let state = |op: &OpSlot| match scene.ops.table.get(*op).map(|entry| &entry.state) {
        Some(OpState::Submitted { cancel: None }) => "submitted",
        Some(OpState::Queued) => "queued",
        Some(OpState::AwaitingReady { .. }) => "awaits",
        Some(_) => "something else",
        None => "over",
    };
    ops.iter().map(state).collect()
}

/// What the driver gets at submit is an operation like others: others stand behind it, and a cancel
/// finds it.
#[test]
fn first_of_each_direction_is_submitted_at_once() {
    let mut scene = Scene::stream(0);
    let receives = [scene.submit(Op::recv(KEY, Vec::new(), 5)), scene.submit(recv_exact())];
    let sends = [
        scene.submit(Op::send_all(KEY, "hello", 1..)),
        scene.submit(Op::send(KEY, "x", ..)),
        scene.submit(Op::send(KEY, "y", ..)),
    ];
    assert_eq!(states(&scene, &receives), ["submitted", "queued"]);
    assert_eq!(states(&scene, &sends), ["submitted", "queued", "queued"]);
    assert_eq!((scene.io.calls, scene.io.attempts), (2, 0), "each is given once");
    assert_eq!(scene.ops.pending(SLOT), 5);
    assert_eq!(scene.ops.busy(SLOT), Interest::READABLE | Interest::WRITABLE);
    scene.holds();
    scene.ops.cancel(sends[1], Why::User, &mut scene.io);
    assert_eq!(states(&scene, &sends), ["submitted", "over", "queued"]);
    assert!(scene.ops.contains(sends[0]) && scene.ops.pending(SLOT) == 4);
    scene.holds();
}

/// What read(2) and write(2) do to a socket is what a ring is asked for, as these have flags.
#[test]
fn read_of_a_socket_is_a_receive() {
    for (kind, calls) in [
        (FileKind::Stream { connects: false }, [Call::Recv, Call::Send]),
        (FileKind::Pipe, [Call::Read, Call::Write]),
    ] {
        let mut scene = Scene::new(kind, 0);
        scene.submit(Op::read(KEY, Vec::new(), 5));
        scene.submit(Op::write(KEY, "hello", ..));
        assert_eq!(scene.io.driver.calls(), calls, "{kind:?}");
        scene.holds();
    }
}

#[test]
fn what_the_driver_refuses_is_attempted_at_once() {
    let mut scene = Scene::stream(100);
    scene.io.short = 0;
    let sent = scene.submit(Op::send_all(KEY, "hello", 1..));
    let received = scene.submit(recv_exact());
    assert_eq!(states(&scene, &[sent, received]), ["over", "awaits"]);
    assert_eq!(scene.io.files.all[0].written, b"ello");
    scene.holds();
    assert_eq!(scene.transferred(), [4]);
}

/// Reading would take the error of the connect.
#[test]
fn receive_waits_for_a_connect() {
    let mut scene = Scene::new(FileKind::Stream { connects: true }, 0);
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
    scene.submit(Op::connect(KEY, address));
    let ops = [scene.submit(recv_exact()), scene.submit(Op::send(KEY, "x", ..))];
    assert_eq!(states(&scene, &ops), ["queued", "queued"]);
    scene.holds();
}

/// A receive that waits in a ring uses up an urgent byte that comes alone.
#[test]
fn receive_beside_urgent_data_is_not_for_the_driver() {
    let mut scene = Scene::stream(0);
    scene.ops.add_source(SLOT, Interest::PRIORITY, &mut scene.io).expect("it is open");
    let ops = [scene.submit(recv_exact()), scene.submit(Op::send(KEY, "x", ..))];
    assert_eq!(states(&scene, &ops), ["awaits", "submitted"]);
}

#[test]
fn deadline_of_what_the_driver_has_is_kept() {
    let mut scene = Scene::stream(0);
    let op = scene.submit(recv_exact().deadline(Duration::from_millis(5)));
    assert_eq!(states(&scene, &[op]), ["submitted"]);
    assert_eq!(scene.ops.next_time(), Some(scene.io.now() + Duration::from_millis(5)));
    scene.holds();
}

#[test]
fn first_that_is_not_in_order_is_refused() {
    let mut scene = Scene::stream(0);
    let refused = [
        Op::send_all(KEY, "hello", 2..9),
        Op::send(KEY, "hello", Range { start: 4, end: 2 }),
        Op::recv(KEY, Vec::new(), 0),
        Op::recv(KEY, Buf::Static(b"x"), 1),
        recv_exact().skip_success(),
    ];
    for op in refused {
        let buf = op.buf.to_vec();
        let (error, op) = scene.refuse_with(op);
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
        assert_eq!(&*op.buf, buf, "it is as before");
    }
    assert_eq!((scene.io.calls, scene.ops.pending(SLOT)), (0, 0));
    assert_eq!(scene.ops.statistics().submitted, 0);
    scene.holds();
}

fn recv_exact() -> Op {
    Op::recv_exact(KEY, Vec::new(), 3)
}
