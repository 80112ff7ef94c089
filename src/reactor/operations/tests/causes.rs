//! `verify` detects each missing cause, and each cause without an operation.

use super::fake_driver::{End, FakeDriver};
use super::fake_file::{FakeFile, FileKind};
use super::fake_io::FakeIo;
use super::fake_source::{DropLog, FakeSource};
use super::fixture::{KEY, OpsFixture, SLOT};
use crate::event::{Events, Interest, Token};
use crate::key::{Key, Slot};
use crate::op::{Op, Outcome};
use crate::reactor::operations::Io;
use crate::reactor::operations::entry::{CancelReason, Cause, OpState, Side};
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
    let pool = BufferPool::new(8, 1).expect("a pool");
    let buf = pool.take().expect("a free buffer");
    (pool, buf)
}

#[test]
fn missing_readiness_is_seen() {
    let mut cx = OpsFixture::stream(100);
    let op = cx.submit(recv());
    cx.verify();
    cx.io.stop_awaiting(SLOT, Interest::READABLE);
    cx.verify_fails("the awaited readiness is reported");
    cx.io.await_ready(SLOT, Interest::READABLE);
    cx.verify();
    cx.ops.complete(op, Err(std::io::ErrorKind::Other.into()), &mut cx.io);
    cx.verify();
    cx.io.await_ready(SLOT, Interest::READABLE);
    cx.verify_fails("each awaited direction has its operation");
}

#[test]
fn missing_driver_call_is_seen() {
    let mut cx = OpsFixture::stream(0);
    let op = cx.submit(recv());
    cx.verify();
    let calls = std::mem::replace(&mut cx.io.driver, FakeDriver::new(0, 100));
    cx.verify_fails("the driver has the call");
    cx.io.driver = calls;
    cx.verify();
    let entry = cx.ops.table.get_mut(op).expect("a live operation");
    entry.state = OpState::OnThread { cancel: None };
    cx.verify_fails("a thread has the call");
}

#[test]
fn call_of_driver_without_operation_is_seen() {
    let mut cx = OpsFixture::stream(0);
    let op = cx.submit(recv());
    cx.ops.complete(op, Err(std::io::ErrorKind::Other.into()), &mut cx.io);
    cx.verify_fails("each call of the driver has its operation");
}

#[test]
fn missing_thread_is_seen() {
    let mut cx = OpsFixture::new(FileKind::Disk, 0);
    let op = cx.submit(Op::fsync(KEY));
    cx.verify();
    let threads = std::mem::take(&mut cx.io.threads);
    cx.verify_fails("a thread has the call");
    cx.io.threads = threads;
    cx.verify();
    cx.ops.complete(op, Err(std::io::ErrorKind::Other.into()), &mut cx.io);
    cx.verify_fails("each call of a thread has its operation");
}

#[test]
fn missing_timer_is_seen() {
    let mut cx = OpsFixture::stream(100);
    let op = cx.submit(Op::timeout(Duration::from_secs(1)));
    cx.verify();
    cx.ops.table.set_time(op, None);
    cx.verify_fails("a timer is set");
    // A time beyond the clock's range gets no timer.
    let mut cx = OpsFixture::stream(100);
    cx.submit(Op::timeout(Duration::MAX));
    cx.verify();
}

#[test]
fn timer_without_operation_is_seen() {
    let mut cx = OpsFixture::stream(100);
    let op = cx.submit(recv());
    let now = cx.io.now;
    cx.ops.table.set_time(op, Some(now));
    cx.verify_fails("only an operation awaiting a time has a timer");
}

#[test]
fn missing_buffer_waiter_is_seen() {
    let (pool, _buf) = empty_pool();
    let mut cx = OpsFixture::stream(100);
    cx.submit(Op::recv_multi(KEY, &pool));
    cx.verify();
    let queues = std::mem::take(&mut cx.ops.buffers.queues);
    cx.verify_fails("the waiter is in its pool's queue");
    cx.ops.buffers.queues = queues;
    cx.ops.buffers.queues[0].stale = 1;
    cx.verify_fails("stale entries are counted");
}

#[test]
fn pool_without_notifier_is_seen() {
    let (pool, buf) = empty_pool();
    let mut cx = OpsFixture::stream(100);
    cx.submit(Op::recv_multi(KEY, &pool));
    drop(buf);
    cx.verify();
    assert!(cx.io.take_notifications());
    cx.verify_fails("the pool notifies the poller");
    cx.ops.buffers.ask();
    cx.verify();
}

#[test]
fn waiter_without_operation_is_seen() {
    let (pool, _buf) = empty_pool();
    let mut cx = OpsFixture::stream(100);
    let op = cx.submit(Op::recv_multi(KEY, &pool));
    cx.set_state(op, OpState::Paused);
    cx.verify_fails("stale entries are counted");
}

#[test]
fn missing_predecessor_is_seen() {
    let mut cx = OpsFixture::stream(0);
    cx.submit(recv());
    cx.submit(recv());
    cx.verify();
    let source = cx.ops.sources.get_mut(SLOT).expect("a live operation");
    *source.queue_mut(Queue::Read) = Ends::default();
    cx.verify_fails("a predecessor wakes it");
    let mut cx = OpsFixture::stream(0);
    let op = cx.submit(Op::timeout(Duration::from_secs(1)));
    cx.set_state(op, OpState::Queued);
    cx.ops.table.set_time(op, None);
    cx.verify_fails("a queued operation is not at the head");
}

#[test]
fn completed_predecessor_is_seen() {
    let mut cx = OpsFixture::stream(0);
    let first = cx.submit(recv());
    cx.submit(recv());
    cx.io.driver = FakeDriver::new(0, 100);
    let entry = cx.ops.table.remove(first).expect("a live operation");
    cx.ops.table.complete(first, entry.token, 0, Ok(Outcome::Done), Buf::None);
    cx.verify_fails("a predecessor wakes it");
}

#[test]
fn missing_delivery_is_seen() {
    let mut cx = OpsFixture::stream(100);
    let op = cx.submit(recv());
    cx.io.stop_awaiting(SLOT, Interest::READABLE);
    cx.set_state(op, OpState::Paused);
    cx.verify_fails("a delivery resumes it");
    cx.ops.table.get_mut(op).expect("a live operation").undelivered = 1;
    cx.verify_fails("a result is delivered");
}

#[test]
fn lost_completion_is_seen() {
    let mut cx = OpsFixture::stream(100);
    cx.submit(Op::nop());
    cx.verify();
    let completed = cx.ops.table.split_completed(0);
    cx.verify_fails("each operation is live, pending, delivered or silent");
    completed.into_iter().for_each(|its| cx.ops.table.requeue(its));
    cx.verify();
}

#[test]
fn missing_run_is_seen() {
    let mut cx = OpsFixture::stream(100);
    let op = cx.submit(recv());
    cx.io.stop_awaiting(SLOT, Interest::READABLE);
    cx.set_state(op, OpState::Runnable(Cause::Turn));
    cx.verify_fails("a runnable operation is queued once");
    cx.ops.run_queue.push_back(op);
    cx.verify();
    cx.set_state(op, OpState::AwaitingReady { on: Side::Source });
    cx.verify_fails("a runnable operation is queued once");
}

/// A receive without a driver buffer is attempted with the granted buffer, even after a short read.
#[test]
fn granted_buffer_is_used_or_returned() {
    let (pool, buf) = empty_pool();
    let mut cx = OpsFixture::stream(100);
    cx.submit(recv());
    cx.io.change(0, Interest::READABLE, |file| file.peer_sends(1));
    for (slot, ready) in cx.io.reports() {
        cx.ops.on_ready(slot, ready, &mut cx.io);
        cx.ops.run(&mut cx.io);
    }
    assert!(cx.io.can_skip_attempt(SLOT, Interest::READABLE), "the read was short");
    cx.io.driver.refused = 0;
    let op = cx.submit(Op::recv_multi(KEY, &pool));
    let FakeIo { driver, files, rng, .. } = &mut cx.io;
    assert!(driver.finish(0, End::NoBuffer, files, rng));
    let mut events = std::mem::take(&mut cx.io.driver.events);
    cx.ops.on_driver_events(&mut events, &mut cx.io);
    cx.io.driver.refused = 100;
    drop(buf);
    cx.ops.on_buffers(true, &mut cx.io);
    cx.verify();
    assert_eq!(pool.available(), 1, "no data, so the buffer is returned: {op:?}");
}

#[test]
fn undelivered_results_pause_an_attempted_receive() {
    let pool = BufferPool::new(1, 100).expect("a pool");
    let mut cx = OpsFixture::stream(100);
    cx.ops.set_room(32);
    cx.io.change(0, Interest::READABLE, |file| file.peer_sends(100));
    let op = cx.submit(Op::recv_multi(KEY, &pool));
    for _ in 0..10 {
        cx.report();
    }
    let is_full = |cx: &OpsFixture| {
        let entry = cx.ops.table.get(op).expect("unfinished");
        entry.undelivered == 32 && matches!(entry.state, OpState::Paused)
    };
    assert!(is_full(&cx), "the limit is reached: {:?}", cx.ops.table.get(op));
    let mut events = Events::with_capacity(1);
    cx.ops.deliver(&mut events, &mut Vec::new());
    assert_eq!(events.completed(), 1);
    cx.ops.run(&mut cx.io);
    assert!(is_full(&cx), "one result replaces the delivered one");
}

#[test]
fn undelivered_results_cancel_a_submitted_receive() {
    let pool = BufferPool::new(1, 100).expect("a pool");
    let mut cx = OpsFixture::stream(0);
    cx.ops.set_room(32);
    let op = cx.submit(Op::recv_multi(KEY, &pool));
    for count in 1..=32 {
        let mut buf = pool.take().expect("one of 100");
        buf.write_all(b"x").expect("room");
        let mut events = vec![OpEvent::Result { op, result: CallResult::Received(buf) }];
        cx.ops.on_driver_events(&mut events, &mut cx.io);
        let entry = cx.ops.table.get(op).expect("unfinished");
        let OpState::Submitted { cancel } = entry.state else { panic!("{entry:?}") };
        assert_eq!(cancel, (count == 32).then_some(CancelReason::Backpressure), "{count} results");
    }
}

/// Makes two streams; the second is the target of splices.
fn spliced_streams() -> (OpsFixture, Slot, Key) {
    let log = Arc::new(DropLog::default());
    log.is_allowed.store(true, Ordering::Relaxed);
    let mut cx = OpsFixture::stream(100);
    let (slot, key) = (Slot { index: 1, ..SLOT }, Key { slot: Slot { index: 1, ..SLOT }, ..KEY });
    let target = SourceFd::new(FakeSource::new(&log, false));
    let fake = FakeFile::new(1, FileKind::Stream { connects: false }, false);
    let file = cx.io.files.add(target.raw_fd(), fake);
    cx.io.register(slot, target.clone(), file);
    for slot in [SLOT, slot] {
        let none = Interest::empty();
        cx.ops.add_source(slot, none, &mut cx.io).expect("open");
    }
    (cx, slot, key)
}

#[test]
fn splice_awaits_side_not_ready() {
    let (mut cx, slot, key) = spliced_streams();
    let mut submit = |mut op: Op, source, target| {
        let submitted = cx.ops.submit(&mut op, Token(0), source, target, &mut cx.io);
        submitted.expect("accepted")
    };
    // Fills the target's room.
    submit(Op::send_all(key, vec![0; 40], ..), Some(slot), None);
    let op = submit(Op::splice(KEY, key, 9), Some(SLOT), Some(slot));
    let is_on = |cx: &OpsFixture, side| {
        let state = &cx.ops.table.get(op).expect("pending").state;
        assert!(matches!(state, OpState::AwaitingReady { on } if *on == side), "{state:?}");
    };
    is_on(&cx, Side::Source);
    cx.io.change(0, Interest::READABLE, |file| file.peer_sends(9));
    cx.ops.on_ready(SLOT, Interest::READABLE, &mut cx.io);
    cx.ops.run(&mut cx.io);
    is_on(&cx, Side::Target);
    cx.verify();
}

#[test]
fn splice_waiting_again_makes_two_calls() {
    let (mut cx, slot, key) = spliced_streams();
    let splice = |cx: &mut OpsFixture| {
        cx.io.calls = 0;
        let mut op = Op::splice(KEY, key, 9);
        let submitted = cx.ops.submit(&mut op, Token(0), Some(SLOT), Some(slot), &mut cx.io);
        submitted.expect("accepted")
    };
    let arrive = |cx: &mut OpsFixture, count| {
        cx.io.change(0, Interest::READABLE, |file| file.peer_sends(count));
        cx.report();
    };
    splice(&mut cx);
    arrive(&mut cx, 1);
    assert_eq!((cx.io.calls, cx.transferred()), (3, vec![1]), "no prediction yet");
    splice(&mut cx);
    assert_eq!(cx.io.calls, 1, "a poll");
    arrive(&mut cx, 1);
    assert_eq!((cx.io.calls, cx.transferred()), (2, vec![1]), "a poll and a splice");
    // Present bytes are spliced at once, the second time without a poll.
    for calls in [2, 1] {
        arrive(&mut cx, 1);
        splice(&mut cx);
        assert_eq!((cx.io.calls, cx.transferred()), (calls, vec![1]));
    }
    // A broken target must not make the splice wait for the source.
    splice(&mut cx);
    arrive(&mut cx, 1);
    assert_eq!(cx.transferred(), [1]);
    cx.io.change(1, Interest::WRITABLE, FakeFile::peer_resets);
    splice(&mut cx);
    assert_eq!(cx.io.calls, 3, "a poll, and the call that fails");
    cx.verify();
}
