//! `verify` sees each of the seven causes that is missing, and each that has no operation.

use super::fake_driver::{End, FakeDriver};
use super::fake_file::{FakeFile, FileKind};
use super::fake_io::FakeIo;
use super::fake_source::{DropLog, FakeSource};
use super::scene::{KEY, SLOT, Scene};
use crate::event::{Events, Interest, Token};
use crate::key::{Key, Slot};
use crate::op::{Op, Outcome};
use crate::reactor::operations::Io;
use crate::reactor::operations::entry::{Cause, OpState, Side, Why};
use crate::reactor::operations::queue::{Ends, Queue};
use crate::selector::OpEvent;
use crate::sys::buf::Buf;
use crate::sys::file::SourceFd;
use crate::sys::io_call::CallResult;
use crate::sys::pool::{BufferPool, PoolBuf};
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

fn recv() -> Op {
    Op::recv(KEY, vec![], 9)
}

/// Returns a pool whose only buffer is in use.
fn empty_pool() -> (BufferPool, PoolBuf) {
    let pool = BufferPool::new(8, 1).expect("it has a buffer");
    let buf = pool.take().expect("it is new");
    (pool, buf)
}

#[test]
fn missing_readiness_is_seen() {
    let mut scene = Scene::stream(100);
    let op = scene.submit(recv());
    scene.holds();
    scene.io.stop_awaiting(SLOT, Interest::READABLE);
    scene.fails("its readiness is reported");
    scene.io.await_ready(SLOT, Interest::READABLE);
    scene.holds();
    scene.ops.complete(op, Err(std::io::ErrorKind::Other.into()), &mut scene.io);
    scene.holds();
    scene.io.await_ready(SLOT, Interest::READABLE);
    scene.fails("each awaited direction has its operation");
}

#[test]
fn missing_driver_call_is_seen() {
    let mut scene = Scene::stream(0);
    let op = scene.submit(recv());
    scene.holds();
    let calls = std::mem::replace(&mut scene.io.driver, FakeDriver::new(0, 100));
    scene.fails("the driver has it");
    scene.io.driver = calls;
    scene.holds();
    let entry = scene.ops.table.get_mut(op).expect("it is known");
    entry.state = OpState::OnThread { cancel: None };
    scene.fails("a thread has it");
}

#[test]
fn call_of_driver_without_operation_is_seen() {
    let mut scene = Scene::stream(0);
    let op = scene.submit(recv());
    scene.ops.complete(op, Err(std::io::ErrorKind::Other.into()), &mut scene.io);
    scene.fails("each call of the driver has its operation");
}

#[test]
fn missing_thread_is_seen() {
    let mut scene = Scene::new(FileKind::Disk, 0);
    let op = scene.submit(Op::fsync(KEY));
    scene.holds();
    let threads = std::mem::take(&mut scene.io.threads);
    scene.fails("a thread has it");
    scene.io.threads = threads;
    scene.holds();
    scene.ops.complete(op, Err(std::io::ErrorKind::Other.into()), &mut scene.io);
    scene.fails("each call of a thread has its operation");
}

#[test]
fn missing_timer_is_seen() {
    let mut scene = Scene::stream(100);
    let op = scene.submit(Op::timeout(Duration::from_secs(1)));
    scene.holds();
    scene.ops.table.set_time(op, None);
    scene.fails("a timer is set for it");
    // No clock counts so far.
    let mut scene = Scene::stream(100);
    scene.submit(Op::timeout(Duration::MAX));
    scene.holds();
}

#[test]
fn timer_without_operation_is_seen() {
    let mut scene = Scene::stream(100);
    let op = scene.submit(recv());
    let now = scene.io.now;
    scene.ops.table.set_time(op, Some(now));
    scene.fails("only what waits for a time has a timer");
}

#[test]
fn missing_buffer_waiter_is_seen() {
    let (pool, _buf) = empty_pool();
    let mut scene = Scene::stream(100);
    scene.submit(Op::recv_multi(KEY, &pool));
    scene.holds();
    let queues = std::mem::take(&mut scene.ops.buffers.queues);
    scene.fails("it is in the queue of its pool");
    scene.ops.buffers.queues = queues;
    scene.ops.buffers.queues[0].stale = 1;
    scene.fails("stale entries are counted");
}

#[test]
fn pool_without_notifier_is_seen() {
    let (pool, buf) = empty_pool();
    let mut scene = Scene::stream(100);
    scene.submit(Op::recv_multi(KEY, &pool));
    drop(buf);
    scene.holds();
    assert!(scene.io.take_notifications());
    scene.fails("the pool notifies the poller");
    scene.ops.buffers.ask();
    scene.holds();
}

#[test]
fn waiter_without_operation_is_seen() {
    let (pool, _buf) = empty_pool();
    let mut scene = Scene::stream(100);
    let op = scene.submit(Op::recv_multi(KEY, &pool));
    scene.set_state(op, OpState::Paused);
    scene.fails("stale entries are counted");
}

#[test]
fn missing_predecessor_is_seen() {
    let mut scene = Scene::stream(0);
    scene.submit(recv());
    scene.submit(recv());
    scene.holds();
    let source = scene.ops.sources.get_mut(SLOT).expect("it is known");
    *source.queue_mut(Queue::Read) = Ends::default();
    scene.fails("a predecessor wakes it");
    let mut scene = Scene::stream(0);
    let op = scene.submit(Op::timeout(Duration::from_secs(1)));
    scene.set_state(op, OpState::Queued);
    scene.ops.table.set_time(op, None);
    scene.fails("a predecessor is before it");
}

#[test]
fn predecessor_that_completed_is_seen() {
    let mut scene = Scene::stream(0);
    let first = scene.submit(recv());
    scene.submit(recv());
    scene.io.driver = FakeDriver::new(0, 100);
    let entry = scene.ops.table.remove(first).expect("it is known");
    scene.ops.table.complete(first, entry.token, 0, Ok(Outcome::Done), Buf::None);
    scene.fails("a predecessor wakes it");
}

#[test]
fn missing_delivery_is_seen() {
    let mut scene = Scene::stream(100);
    let op = scene.submit(recv());
    scene.io.stop_awaiting(SLOT, Interest::READABLE);
    scene.set_state(op, OpState::Paused);
    scene.fails("a delivery resumes it");
    scene.ops.table.get_mut(op).expect("it is known").undelivered = 1;
    scene.fails("a result is delivered");
}

#[test]
fn completion_that_is_lost_is_seen() {
    let mut scene = Scene::stream(100);
    scene.submit(Op::nop());
    scene.holds();
    let completed = scene.ops.table.split_completed(0);
    scene.fails("each operation is live, pending, delivered or silent");
    completed.into_iter().for_each(|its| scene.ops.table.requeue(its));
    scene.holds();
}

#[test]
fn missing_run_is_seen() {
    let mut scene = Scene::stream(100);
    let op = scene.submit(recv());
    scene.io.stop_awaiting(SLOT, Interest::READABLE);
    scene.set_state(op, OpState::Runnable(Cause::Turn));
    scene.fails("a runnable operation is queued once");
    scene.ops.run_queue.push_back(op);
    scene.holds();
    scene.set_state(op, OpState::AwaitingReady { on: Side::Source });
    scene.fails("a runnable operation is queued once");
}

/// A receive that the driver had no buffer for is attempted with the buffer that it is given, also
/// where a short read before it says that nothing is there.
#[test]
fn granted_buffer_is_used_or_returned() {
    let (pool, buf) = empty_pool();
    let mut scene = Scene::stream(100);
    scene.submit(recv());
    scene.io.change(0, Interest::READABLE, |file| file.peer_sends(1));
    for (slot, ready) in scene.io.reports() {
        scene.ops.on_ready(slot, ready, &mut scene.io);
        scene.ops.run(&mut scene.io);
    }
    assert!(scene.io.can_skip_attempt(SLOT, Interest::READABLE), "the read was short");
    scene.io.driver.refused = 0;
    let op = scene.submit(Op::recv_multi(KEY, &pool));
    let FakeIo { driver, files, rng, .. } = &mut scene.io;
    assert!(driver.finish(0, End::NoBuffer, files, rng));
    let mut events = std::mem::take(&mut scene.io.driver.events);
    scene.ops.on_driver_events(&mut events, &mut scene.io);
    scene.io.driver.refused = 100;
    drop(buf);
    scene.ops.on_buffers(true, &mut scene.io);
    scene.holds();
    assert_eq!(pool.idle(), 1, "nothing was there to receive: {op:?}");
}

#[test]
fn undelivered_results_pause_an_attempted_receive() {
    let pool = BufferPool::new(1, 100).expect("it has buffers");
    let mut scene = Scene::stream(100);
    scene.ops.set_room(32);
    scene.io.change(0, Interest::READABLE, |file| file.peer_sends(100));
    let op = scene.submit(Op::recv_multi(KEY, &pool));
    for _ in 0..10 {
        scene.report();
    }
    let is_full = |scene: &Scene| {
        let entry = scene.ops.table.get(op).expect("it goes on");
        entry.undelivered == 32 && matches!(entry.state, OpState::Paused)
    };
    assert!(is_full(&scene), "as many as there is room for: {:?}", scene.ops.table.get(op));
    let mut events = Events::with_capacity(1);
    scene.ops.deliver(&mut events, &mut Vec::new());
    assert_eq!(events.completed(), 1);
    scene.ops.run(&mut scene.io);
    assert!(is_full(&scene), "one more for the one that was delivered");
}

#[test]
fn undelivered_results_cancel_a_submitted_receive() {
    let pool = BufferPool::new(1, 100).expect("it has buffers");
    let mut scene = Scene::stream(0);
    scene.ops.set_room(32);
    let op = scene.submit(Op::recv_multi(KEY, &pool));
    for count in 1..=32 {
        let mut buf = pool.take().expect("there are 100");
        buf.write_all(b"x").expect("there is room");
        let mut events = vec![OpEvent::Result { op, result: CallResult::Received(buf) }];
        scene.ops.on_driver_events(&mut events, &mut scene.io);
        let entry = scene.ops.table.get(op).expect("it goes on");
        let OpState::Submitted { cancel } = entry.state else { panic!("{entry:?}") };
        assert_eq!(cancel, (count == 32).then_some(Why::Backpressure), "{count} results");
    }
}

/// Two streams, of which the second is the target of splices.
fn spliced_streams() -> (Scene, Slot, Key) {
    let log = Arc::new(DropLog::default());
    log.is_allowed.store(true, Ordering::Relaxed);
    let mut scene = Scene::stream(100);
    let (slot, key) = (Slot { index: 1, ..SLOT }, Key { slot: Slot { index: 1, ..SLOT }, ..KEY });
    let target = SourceFd::new(FakeSource::new(&log, false));
    let fake = FakeFile::new(1, FileKind::Stream { connects: false }, false);
    let file = scene.io.files.add(target.raw_fd(), fake);
    scene.io.register(slot, target.clone(), file);
    for slot in [SLOT, slot] {
        let none = Interest::empty();
        scene.ops.add_source(slot, none, &mut scene.io).expect("it is open");
    }
    (scene, slot, key)
}

#[test]
fn splice_awaits_the_side_that_is_not_ready() {
    let (mut scene, slot, key) = spliced_streams();
    let mut submit = |mut op: Op, source, target| {
        let submitted = scene.ops.submit(&mut op, Token(0), source, target, &mut scene.io);
        submitted.expect("it is in order")
    };
    // All that the target has room for.
    submit(Op::send_all(key, vec![0; 40], ..), Some(slot), None);
    let op = submit(Op::splice(KEY, key, 9), Some(SLOT), Some(slot));
    let is_on = |scene: &Scene, side| {
        let state = &scene.ops.table.get(op).expect("it waits").state;
        assert!(matches!(state, OpState::AwaitingReady { on } if *on == side), "{state:?}");
    };
    is_on(&scene, Side::Source);
    scene.io.change(0, Interest::READABLE, |file| file.peer_sends(9));
    scene.ops.on_ready(SLOT, Interest::READABLE, &mut scene.io);
    scene.ops.run(&mut scene.io);
    is_on(&scene, Side::Target);
    scene.holds();
}

#[test]
fn splice_that_waits_again_makes_two_calls() {
    let (mut scene, slot, key) = spliced_streams();
    let splice = |scene: &mut Scene| {
        scene.io.calls = 0;
        let mut op = Op::splice(KEY, key, 9);
        let submitted = scene.ops.submit(&mut op, Token(0), Some(SLOT), Some(slot), &mut scene.io);
        submitted.expect("it is in order")
    };
    let arrive = |scene: &mut Scene, count| {
        scene.io.change(0, Interest::READABLE, |file| file.peer_sends(count));
        scene.report();
    };
    splice(&mut scene);
    arrive(&mut scene, 1);
    assert_eq!((scene.io.calls, scene.transferred()), (3, vec![1]), "nothing is known of the two");
    splice(&mut scene);
    assert_eq!(scene.io.calls, 1, "a poll");
    arrive(&mut scene, 1);
    assert_eq!((scene.io.calls, scene.transferred()), (2, vec![1]), "and a splice");
    // What is there already is spliced at once, and then without a poll.
    for calls in [2, 1] {
        arrive(&mut scene, 1);
        splice(&mut scene);
        assert_eq!((scene.io.calls, scene.transferred()), (calls, vec![1]));
    }
    // A target that is broken is no reason to wait for the source.
    splice(&mut scene);
    arrive(&mut scene, 1);
    assert_eq!(scene.transferred(), [1]);
    scene.io.change(1, Interest::WRITABLE, FakeFile::peer_resets);
    splice(&mut scene);
    assert_eq!(scene.io.calls, 3, "a poll, and the call that tells of it");
    scene.holds();
}
