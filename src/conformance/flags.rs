//! Clauses H: flags.

use super::fd_states::{FdState, all};
use super::util::*;
use crate::event::{Interest, Mode, Readiness};
use nix::poll::PollFlags;
use std::io::{ErrorKind, Read};
use std::sync::{Arc, mpsc};
use std::thread;

pub(super) fn h1_event_beyond_capacity_is_verified_again(cx: &TestContext) {
    for mode in MODES {
        let mut harness = cx.harness(1);
        let (local, peer) = stream();
        let duplicate = Arc::new(local.try_clone().unwrap_or_else(|error| panic!("dup: {error}")));
        harness.register(local.clone(), 1, READ, mode);
        harness.register(duplicate, 2, READ, mode);
        put(&peer, b"x");
        assert_eq!(harness.ready_now().len(), 1, "a capacity of one");
        drain(&*local);
        harness.expect_silence(&format!("drained before the second was reported, {mode:?}"));
        put(&peer, b"y");
        let mut reported = harness.ready_now();
        reported.extend(harness.ready_now());
        let second = reported.iter().any(|event| event.0 == 2 || event.0 == 1);
        assert!(second, "the source passed over is not reported, {mode:?}: {reported:?}");
    }
}

pub(super) fn h1_spurious_hint_does_not_end_wait(cx: &TestContext) {
    for mode in MODES {
        let mut harness = cx.harness(4);
        let (local, peer) = stream();
        let (later, later_peer) = stream();
        harness.register(local.clone(), 1, READ, mode);
        harness.register(later, 2, READ, mode);
        put(&peer, b"x");
        drain(&*local);
        let (waiting, is_waiting) = mpsc::channel();
        waiting.send(crate::sys::staging::Thread::current()).unwrap_or_default();
        let writer = thread::spawn(move || {
            let waiter = is_waiting.recv().unwrap_or_else(|error| panic!("{error}"));
            wait_until_asleep(waiter.id());
            put(&later_peer, b"y");
            later_peer
        });
        let reported = harness.next("a byte on the other stream");
        assert_eq!(reported, [(2, Readiness::READABLE)], "{mode:?}");
        writer.join().unwrap_or_else(|_| panic!("the writer failed"));
    }
}

pub(super) fn h2_pipe_without_writer_is_readable(cx: &TestContext) {
    for mode in MODES {
        let mut harness = cx.harness(4);
        let (reader, writer) = pipe();
        let reader = Arc::new(reader);
        let key = harness.register(reader.clone(), 1, READ, mode);
        drop(writer);
        let asked = PollFlags::POLLIN;
        assert_eq!(oracle(&reader, asked), PollFlags::POLLHUP, "poll(2) does not report POLLIN");
        let end = Readiness::READABLE | Readiness::READ_CLOSED;
        harness.expect_now(&[(1, end)], &format!("{mode:?}"));
        harness.deregister(key);
    }
}

pub(super) fn h2_full_pipe_without_reader_is_writable(cx: &TestContext) {
    for mode in MODES {
        let mut harness = cx.harness(4);
        let (reader, writer) = pipe();
        let writer = Arc::new(writer);
        fill(&*writer);
        harness.register(writer.clone(), 1, WRITE, mode);
        harness.expect_silence("the pipe is full");
        drop(reader);
        let asked = PollFlags::POLLOUT;
        assert_eq!(oracle(&writer, asked), PollFlags::POLLERR, "poll(2) does not report POLLOUT");
        let gone = Readiness::WRITABLE | Readiness::WRITE_CLOSED | Readiness::ERROR;
        harness.expect_now(&[(1, gone)], &format!("{mode:?}"));
    }
}

pub(super) fn h2_peer_close_ends_wait(cx: &TestContext) {
    for mode in MODES {
        let mut harness = cx.harness(4);
        let (local, peer) = stream();
        harness.register(local, 1, READ, mode);
        let waiter = crate::sys::staging::Thread::current();
        let closer = thread::spawn(move || {
            wait_until_asleep(waiter.id());
            drop(peer);
        });
        let end = Readiness::READABLE | Readiness::READ_CLOSED;
        assert_eq!(harness.next("end of file"), [(1, end)], "{mode:?}");
        closer.join().unwrap_or_else(|_| panic!("the closer failed"));
    }
}

/// A second implementation of clause H3.
fn expected(bits: u16, asked: Interest) -> Readiness {
    let has = |bit: i16| bits & bit as u16 != 0;
    let mut readiness = Readiness::empty();
    if asked.contains(Interest::READABLE) {
        let closed = has(libc::POLLRDHUP) || has(libc::POLLHUP);
        readiness.set(Readiness::READ_CLOSED, closed);
        readiness.set(Readiness::ERROR, has(libc::POLLERR));
        readiness.set(Readiness::READABLE, closed || has(libc::POLLIN) || has(libc::POLLERR));
    }
    if asked.contains(Interest::WRITABLE) {
        let unread = has(libc::POLLIN) && asked.contains(Interest::READABLE);
        let closed = has(libc::POLLHUP) || has(libc::POLLERR) && !unread;
        let error = has(libc::POLLERR);
        readiness |= if closed { Readiness::WRITE_CLOSED } else { Readiness::empty() };
        readiness |= if error { Readiness::ERROR } else { Readiness::empty() };
        readiness.set(Readiness::WRITABLE, closed || error || has(libc::POLLOUT));
    }
    if asked.contains(Interest::PRIORITY) {
        let closed = has(libc::POLLRDHUP) || has(libc::POLLHUP);
        readiness |= if closed { Readiness::READ_CLOSED } else { Readiness::empty() };
        readiness |= if has(libc::POLLERR) { Readiness::ERROR } else { Readiness::empty() };
        readiness.set(Readiness::PRIORITY, has(libc::POLLPRI));
    }
    readiness
}

pub(super) fn h3_poll_bits_map_to_the_same_readiness(cx: &TestContext) {
    for FdState { name, source, bits, keep } in all() {
        let mut harness = cx.harness(4);
        for asked in (0..8).map(Interest::from_bits_truncate) {
            for mode in MODES {
                let key = harness.register(source.clone(), 1, asked, mode);
                let readiness = expected(bits, asked);
                let one = if readiness.is_empty() { vec![] } else { vec![(1, readiness)] };
                assert_eq!(harness.ready_now(), one, "{name}, interest {asked:?}, {mode:?}");
                harness.deregister(key);
            }
        }
        drop(keep);
    }
}

pub(super) fn h3_error_is_not_reported_once_read(cx: &TestContext) {
    let mut harness = cx.harness(4);
    let (local, peer) = stream();
    put(&local, b"unread");
    harness.register(local.clone(), 1, BOTH, Mode::Level);
    drop(peer);
    let closed = Readiness::all() - Readiness::PRIORITY;
    harness.expect_now(&[(1, closed)], "the peer closed with unread data");
    let read = (&*local).read(&mut [0; 8]);
    assert_eq!(expect_err_kind(read), ErrorKind::ConnectionReset);
    harness.expect_now(&[(1, closed - Readiness::ERROR)], "the read consumed the error");
}

pub(super) fn h4_readiness_of_a_source_is_one_event(cx: &TestContext) {
    for mode in MODES {
        let mut harness = cx.harness(16);
        let (local, peer) = tcp();
        let key = harness.register(local.clone(), 1, Interest::all(), mode);
        harness.ready_now();
        put_urgent(&peer);
        let urgent = PollFlags::POLLPRI | PollFlags::POLLIN;
        wait_until_kernel(&*local, urgent, |bits| bits.contains(PollFlags::POLLPRI));
        harness.modify(key, 1, Interest::all(), mode);
        harness.rearm(key, READ);
        harness.rearm(key, Interest::all());
        harness.drained(key, READ);
        let all = Readiness::WRITABLE | Readiness::PRIORITY;
        let reported = harness.ready_now();
        assert_eq!(reported.len(), 1, "{reported:?}");
        assert!(reported[0].1.contains(all), "{reported:?}");
    }
}
