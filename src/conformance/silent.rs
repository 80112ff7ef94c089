//! Clauses C1 and X2 for operations submitted with `skip_success`.

use super::op_harness::*;
use super::socket_pairs::*;
use super::util::*;
use crate::event::Token;
use crate::key::Key;
use crate::op::{Message, Op, OpId};
use crate::poller::Source;
use crate::sys::buf::Buf;
use nix::poll::PollFlags;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, UdpSocket};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

impl OpHarness {
    /// Submits an operation with `skip_success`. A completion of it fails the case.
    fn submit_silently(&mut self, op: Op) -> OpId {
        let submitted = self.harness.poller.submit(op.skip_success(), Token(404));
        submitted.unwrap_or_else(|rejected| panic!("submit: {rejected}"))
    }

    /// Waits until `count` operations have succeeded silently; fails if one completes.
    fn expect_silent(&mut self, count: u64, why: &str) {
        let started = Instant::now();
        loop {
            self.expect_sum();
            let silent = self.harness.poller.statistics().silent;
            if silent >= count {
                return assert_eq!(silent, count, "{why}: operations that succeeded silently");
            }
            assert!(started.elapsed() < LONG, "{why}: {silent} of {count} have succeeded silently");
            self.expect_nothing_yet(why);
        }
    }

    /// Fails unless every operation is counted once.
    fn expect_sum(&self) {
        let counts = self.harness.poller.statistics();
        assert_eq!(
            counts.submitted,
            counts.completed + counts.silent + counts.pending,
            "{counts:?}"
        );
    }
}

/// Returns a stream whose send buffer is full, and the peer.
fn full_stream() -> (Arc<UnixStream>, UnixStream) {
    let (local, peer) = stream();
    fill(&*local);
    (local, peer)
}

fn read_all(from: &UnixStream) -> Vec<u8> {
    let (mut from, mut all) = (from, Vec::new());
    match from.read_to_end(&mut all) {
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => panic!("read: {error}"),
        _ => all,
    }
}

/// Fails unless the operation succeeds silently.
fn is_silent(cx: &TestContext, name: &'static str, source: Source, op: impl Fn(Key) -> Op) {
    let mut ops = OpHarness::new(cx);
    ops.label = name;
    let key = ops.add(source);
    ops.submit_silently(op(key));
    ops.expect_silent(1, name);
    assert_eq!(ops.harness.poller.pending(key), 0, "{name}: no operation is pending");
    ops.expect_sleep(name);
    // With another operation that completes, it has no completion either.
    ops.submit_silently(op(key));
    ops.submit(Op::nop(), 1);
    ops.next();
    ops.expect_silent(2, name);
    ops.expect_all_done(name);
}

/// An operation with its name.
type Named = (&'static str, fn(Key) -> Op);

pub(super) fn c1_skip_success_sends_are_silent(cx: &TestContext) {
    let sends: [Named; 4] = [
        ("send", |key| Op::send(key, "hello", ..)),
        ("send_all", |key| Op::send_all(key, vec![0, 1, 2, 3, 4, 5], 1..)),
        ("send_msg", |key| Op::send_msg(key, "hello", .., Message::new())),
        ("write", |key| Op::write(key, "hello", ..)),
    ];
    for (name, op) in sends {
        let (local, peer) = stream();
        is_silent(cx, name, local, op);
        assert_eq!(read_all(&peer).len(), 10, "{name}: both sends");
        let (local, mut peer) = tcp();
        is_silent(cx, name, local, op);
        ok(peer.set_nonblocking(false));
        ok(peer.read_exact(&mut [0; 10]));
    }
    let [local, peer] = [(); 2].map(|()| ok(UdpSocket::bind("127.0.0.1:0")));
    let to = ok(peer.local_addr());
    is_silent(cx, "send_to", Arc::new(local), |key| Op::send_to(key, "hello", .., to));
    assert_eq!(ok(peer.recv(&mut [0; 9])), 5);
    let (reader, writer) = pipe();
    is_silent(cx, "write to a pipe", Arc::new(writer), |key| Op::write(key, "hello", ..));
    assert_eq!(nix::unistd::read(&reader, &mut [0; 20]), Ok(10));
    let (local, _peer) = stream();
    is_silent(cx, "no bytes", local, |key| Op::send_all(key, Buf::None, ..));
}

pub(super) fn c1_skip_success_file_writes_are_silent(cx: &TestContext) {
    let directory = TempDir::new();
    let path = directory.0.join("file");
    let file = Arc::new(ok(File::options().write(true).create_new(true).open(&path)));
    let writes: [Named; 5] = [
        ("write_at", |key| Op::write_at(key, "abc", .., 0)),
        ("vectored", |key| Op::write_at_vectored(key, ["de".into(), "f".into()], 3)),
        ("write", |key| Op::write(key, "AB", ..)),
        ("fsync", Op::fsync),
        ("fdatasync", Op::fdatasync),
    ];
    for (name, op) in writes {
        is_silent(cx, name, file.clone(), op);
    }
    assert_eq!(ok(std::fs::read(&path)), b"ABABef", "every write");
}

pub(super) fn c1_skip_success_connects_and_shutdowns_are_silent(cx: &TestContext) {
    let listener = ok(TcpListener::bind("127.0.0.1:0"));
    let to = ok(listener.local_addr());
    let mut ops = OpHarness::new(cx);
    let socket = nix::sys::socket::socket(
        nix::sys::socket::AddressFamily::Inet,
        nix::sys::socket::SockType::Stream,
        nix::sys::socket::SockFlag::SOCK_CLOEXEC,
        None,
    );
    let key = ops.add(Arc::new(ok(socket)));
    ops.submit_silently(Op::connect(key, to));
    ops.submit_silently(Op::send_all(key, "hello", ..));
    ops.submit_silently(Op::shutdown(key, Shutdown::Write));
    ops.expect_silent(3, "a connect, a send and a shutdown");
    let (mut peer, mut all) = (ok(listener.accept()).0, Vec::new());
    ok(peer.read_to_end(&mut all));
    assert_eq!(all, b"hello");
    ops.submit_silently(Op::shutdown(key, Shutdown::Read));
    ops.expect_silent(4, "a shutdown of reading");
    ops.expect_all_done("every operation was silent");
}

pub(super) fn c1_silent_sends_do_not_end_wait(cx: &TestContext) {
    let ((local, peer), mut ops) = (stream(), OpHarness::with_capacity(cx, 1));
    let key = ops.add(local);
    let (started, timeout) = (Instant::now(), Duration::from_millis(20));
    for _ in 0..3 {
        ops.submit_silently(Op::send_all(key, "hello", ..));
    }
    ops.wait(timeout);
    let completed = ops.harness.events.completed();
    assert_eq!((completed, ops.harness.events.len()), (0, 0), "silent sends report nothing");
    assert!(started.elapsed() >= timeout, "silent sends must not end a wait");
    assert_eq!(read_all(&peer), b"hellohellohello");
    // Silent sends take no capacity either.
    (0..50).for_each(|_| _ = ops.submit_silently(Op::send(key, "x", ..)));
    ops.submit(Op::nop(), 1);
    ops.wait(LONG);
    assert_eq!(ops.harness.events.completed(), 1, "only the nop completes");
    ops.next();
    ops.expect_silent(53, "every send");
}

pub(super) fn c1_skip_success_failures_complete(cx: &TestContext) {
    let mut ops = OpHarness::new(cx);
    let closed = |(local, _): (Arc<UnixStream>, UnixStream)| local;
    let key = ops.add(closed(stream()));
    for op in [Op::send(key, "x", ..), Op::send_all(key, "x", ..), Op::write(key, "x", ..)] {
        let done = ops.run(op.skip_success());
        assert_eq!(
            (errno(&done), &done.buf[..]),
            (libc::EPIPE, &b"x"[..]),
            "returned with its buffer"
        );
    }
    let key = ops.add(Arc::new(ok(File::open("/dev/null"))));
    let done = ops.run(Op::write_at(key, "x", .., 0).skip_success());
    assert_eq!(errno(&done), libc::EBADF, "a file open for reading");
    let (reader, _writer) = pipe();
    let key = ops.add(Arc::new(reader));
    assert_eq!(errno(&ops.run(Op::fsync(key).skip_success())), libc::EINVAL, "a pipe");
    let key = ops.add(Arc::new(ok(UdpSocket::bind("127.0.0.1:0"))));
    let done = ops.run(Op::shutdown(key, Shutdown::Write).skip_success());
    assert_eq!(errno(&done), libc::ENOTCONN, "a socket without peer");
    ops.expect_all_done("every operation has completed");
    ops.expect_sum();
    assert_eq!(ops.harness.poller.statistics().silent, 0, "no operation succeeded");
}

pub(super) fn c1_skip_success_short_send_completes(cx: &TestContext) {
    const LARGE: usize = 1 << 22;
    let ((local, peer), mut ops) = (stream(), OpHarness::new(cx));
    let key = ops.add(local);
    let done = ops.run(Op::send(key, vec![7; LARGE], ..).skip_success());
    assert!(0 < done.transferred && done.transferred < LARGE, "{}", done.transferred);
    assert_eq!(done.buf.len(), LARGE, "the buffer must be returned");
    // The count of bytes sent is reported with the error.
    drain(&peer);
    ops.submit(Op::send_all(key, vec![7; LARGE], ..).skip_success(), 1);
    ops.expect_nothing_yet("the peer has more to read");
    let sent = read_all(&peer).len();
    ops.expect_nothing_yet("the peer has more to read");
    drop(peer);
    let done = ops.next();
    assert_eq!(errno(&done), libc::EPIPE);
    assert!(done.transferred >= sent && done.transferred < LARGE, "{}", done.transferred);
    ops.expect_all_done("every operation has completed");
    ops.expect_sum();
}

pub(super) fn c1_silent_sends_end_before_next_completion(cx: &TestContext) {
    const COUNT: usize = 40;
    const SIZE: usize = 30_000;
    for (make, name) in [(SocketPair::unix as fn() -> SocketPair, "unix"), (SocketPair::tcp, "tcp")]
    {
        let SocketPair { local, peer, .. } = make();
        let mut ops = OpHarness::new(cx);
        ops.label = name;
        let key = ops.add(local);
        for at in 0..COUNT {
            ops.submit_silently(Op::send_all(key, bytes_from(at * SIZE, SIZE), ..));
            if at % 7 == 0 {
                ops.wait(ZERO);
            }
        }
        ops.submit(Op::send_all(key, bytes_from(COUNT * SIZE, SIZE), ..), 1);
        let reader = thread::spawn(move || {
            super::scenarios::set_blocking(&peer, true);
            let mut all = vec![0; (COUNT + 1) * SIZE];
            let mut at = 0;
            while at < all.len() {
                at += ok(nix::unistd::read(&peer, &mut all[at..]));
            }
            all
        });
        ops.next();
        let silent = ops.harness.poller.statistics().silent;
        assert_eq!(
            (silent, ops.harness.poller.pending(key)),
            (COUNT as u64, 0),
            "{name}: every silent send has ended"
        );
        let all = reader.join().unwrap_or_else(|_| panic!("the reader failed"));
        assert!(all == bytes_from(0, all.len()), "{name}: each byte once, in order");
        ops.expect_all_done(name);
    }
}

pub(super) fn c1_skip_success_with_results_is_refused(cx: &TestContext) {
    let ((local, peer), mut ops) = (stream(), OpHarness::new(cx));
    let pool = new_pool(64, 2);
    let [local, peer] = [local, Arc::new(peer)].map(|source| ops.add(source));
    let refused = [
        Op::recv(local, vec![1], 9),
        Op::recv_exact(local, vec![1], 9),
        Op::recv_multi(local, &pool),
        Op::recv_from(local, vec![1], 9),
        Op::recv_msg(local, vec![1], 9),
        Op::read(local, vec![1], 9),
        Op::read_at(local, vec![1], 9, 0),
        Op::accept(local),
        Op::accept_multi(local),
        Op::splice(local, peer, 9),
        Op::open("/dev/null", crate::op::OpenOptions::new().read(true)),
        Op::timeout(ZERO),
        Op::nop(),
    ];
    for op in refused {
        let had_buf = op.buf != Buf::None;
        let (buf, error) = ops.rejected(op.skip_success());
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{error}");
        assert_eq!(had_buf, buf == Buf::from(vec![1]), "the buffer must be returned");
    }
    assert_eq!(ops.harness.poller.statistics().submitted, 0, "no operation was accepted");
    ops.expect_all_done("no operation was accepted");
}

/// A receive that waits for a sent buffer, or an operation queued behind the send, must not wait
/// for the next event.
pub(super) fn c1_silent_send_starts_next_operation_at_once(cx: &TestContext) {
    for (limit, name) in [(1, "one buffer"), (2, "two buffers")] {
        let (SocketPair { local, peer, .. }, pool) = (SocketPair::unix(), new_pool(64, limit));
        let mut ops = OpHarness::new(cx);
        ops.label = name;
        let key = ops.add(local);
        ops.submit_multishot(Op::recv_multi(key, &pool), 1);
        super::scenarios::set_blocking(&peer, true);
        let server = thread::spawn(move || {
            for at in 0..100_u8 {
                assert_eq!(nix::unistd::write(&peer, &[at; 5]), Ok(5));
                let mut echo = [0; 5];
                assert_eq!(nix::unistd::read(&peer, &mut echo), Ok(5));
                assert_eq!(echo, [at; 5], "in order");
            }
        });
        for at in 0..100 {
            let done = ops.next();
            assert_eq!((&done.buf[..], done.more), (&[at; 5][..], true));
            ops.submit_silently(Op::send_all(key, done.buf, ..));
        }
        let last = ops.next();
        expect_end(&last, "the peer has closed");
        server.join().unwrap_or_else(|_| panic!("the peer failed"));
        ops.expect_silent(100, name);
        // A ring returns the buffers provided for the receive with the next wait.
        ops.wait(ZERO);
        assert_eq!(pool.available(), pool.allocated(), "a buffer was not returned");
    }
    let (SocketPair { local, peer, .. }, mut ops) = (SocketPair::tcp(), OpHarness::new(cx));
    ops.label = "a successor";
    let key = ops.add(local);
    ops.submit(Op::recv(key, vec![], 9), 1);
    super::scenarios::set_blocking(&peer, true);
    let server = thread::spawn(move || {
        let mut all = [0; 99];
        let mut at = 0;
        loop {
            match ok(nix::unistd::read(&peer, &mut all[at..])) {
                0 => break assert_eq!(&all[..at], b"onetwothree"),
                count => at += count,
            }
        }
        assert_eq!(nix::unistd::write(&peer, b"thanks"), Ok(6));
    });
    for text in ["one", "two", "three"] {
        ops.submit_silently(Op::send_all(key, text, ..));
    }
    ops.submit_silently(Op::shutdown(key, Shutdown::Write));
    assert_eq!(bytes(ops.next()), (6, b"thanks".to_vec()));
    server.join().unwrap_or_else(|_| panic!("the peer failed"));
}

pub(super) fn c1_silent_send_releases_buffer_and_files(cx: &TestContext) {
    let ((local, peer), mut ops) = (stream(), OpHarness::new(cx));
    let key = ops.add(local);
    let pool = new_pool(64, 3);
    for mut buf in take_all(&pool) {
        ok(buf.write_all(b"hello"));
        ops.submit_silently(Op::send_all(key, buf, ..));
    }
    ops.expect_nothing_yet("the sends are silent");
    assert_eq!(pool.available(), 3, "the next wait must return the buffers");
    assert_eq!(read_all(&peer), b"hellohellohello");
    let (reader, writer) = pipe();
    let message = Message::new().file(Arc::new(writer));
    ops.submit_silently(Op::send_msg(key, "x", .., message));
    ops.expect_silent(4, "the message");
    ops.wait(ZERO);
    // The message is never received.
    drop(peer);
    wait_until_kernel(&reader, PollFlags::POLLIN, |bits| bits.contains(PollFlags::POLLHUP));
}

/// An operation that is being cancelled completes.
pub(super) fn x2_cancelled_skip_success_operation_completes(cx: &TestContext) {
    let ((local, peer), mut ops) = (full_stream(), OpHarness::new(cx));
    let key = ops.add(local);
    for waits in [false, true] {
        let sends =
            [1, 2].map(|token| ops.submit(Op::send_all(key, "hello", ..).skip_success(), token));
        if waits {
            ops.expect_nothing_yet("the send buffer is full");
        }
        assert_eq!(ops.harness.poller.pending(key), 2, "both are pending");
        sends.into_iter().rev().for_each(|id| ops.cancel(id));
        let all = ops.collect(2);
        assert!(all.iter().all(|done| done.is_canceled() && &done.buf[..] == b"hello"), "{all:?}");
        let send = Op::send_all(key, "hello", ..).skip_success();
        let done = ops.run(send.deadline(Duration::from_millis(1)));
        assert_eq!(
            expect_err_kind(done.result),
            io::ErrorKind::TimedOut,
            "the deadline has passed"
        );
        ops.expect_all_done("every operation has completed");
    }
    ops.submit(Op::send_all(key, "hello", ..).skip_success(), 1);
    ops.submit(Op::send_all(key, "hello", ..).skip_success(), 2);
    ops.harness.deregister(key);
    assert!(ops.collect(2).iter().all(|done| done.is_canceled()), "the source was deregistered");
    assert_eq!(ops.harness.poller.pending(key), 0, "a deregistered source");
    ops.expect_all_done("every operation has completed");
    ops.expect_sum();
    drop(peer);
}

/// How a silent send is cancelled while it runs.
#[derive(Clone, Copy, Debug)]
enum Stop {
    Cancel,
    Deregister,
}

/// A cancelled operation has either succeeded silently before, or completes, but not both.
pub(super) fn x2_racing_cancel_is_silent_or_completes_once(cx: &TestContext) {
    for stop in [Stop::Cancel, Stop::Deregister] {
        for moments in 0..3 {
            let ((local, peer), mut ops) = (stream(), OpHarness::new(cx));
            let key = ops.add(local);
            let id = ops.submit_silently(Op::send_all(key, "hello", ..));
            (0..moments).for_each(|_| ops.wait(ZERO));
            let is_over = ops.harness.poller.statistics().silent == 1;
            assert!(is_over || moments == 0, "the send buffer had room");
            match stop {
                Stop::Cancel => {
                    let answer = ops.harness.poller.cancel(id);
                    assert_eq!(answer.is_err(), is_over, "NotFound once it has succeeded silently");
                    if let Err(error) = answer {
                        assert_eq!(error.kind(), io::ErrorKind::NotFound);
                    }
                }
                Stop::Deregister => ops.harness.deregister(key),
            }
            let started = Instant::now();
            while !is_over && ops.harness.events.completed() == 0 {
                assert!(started.elapsed() < LONG, "{stop:?}: no completion");
                ops.wait(LONG);
            }
            let completions: Vec<_> = ops.harness.events.completions().collect();
            let sent = read_all(&peer).len();
            match &completions[..] {
                [] => assert!(is_over && sent == 5, "{stop:?}: {sent} bytes were sent"),
                [done] => {
                    assert!(done.id == id && !is_over && done.transferred == sent, "{done:?}");
                    assert!(done.result.is_ok() || done.is_canceled(), "{done:?}");
                }
                more => panic!("more than one completion: {more:?}"),
            }
            ops.expect_all_done("completed at most once");
            ops.expect_sum();
        }
    }
}

pub(super) fn c1_pending_counts_unfinished_operations(cx: &TestContext) {
    let ((local, peer), mut ops) = (full_stream(), OpHarness::new(cx));
    let key = ops.add(local);
    let pending = |ops: &OpHarness| ops.harness.poller.pending(key);
    assert_eq!(pending(&ops), 0);
    ops.submit(Op::recv(key, vec![], 9), 0);
    assert_eq!(pending(&ops), 1, "a waiting receive");
    for at in 0..5 {
        ops.submit_silently(Op::send_all(key, "hello", ..));
        assert_eq!(pending(&ops), 2 + at, "and waiting sends");
    }
    ops.expect_nothing_yet("the send buffer is full");
    assert_eq!(pending(&ops), 6);
    drain(&peer);
    ops.expect_silent(5, "the send buffer has room");
    assert_eq!(pending(&ops), 1, "the receive");
    put(&peer, b"x");
    ops.next();
    assert_eq!(pending(&ops), 0);
    let mut other = OpHarness::new(cx);
    assert_eq!(other.harness.poller.pending(key), 0, "a key of another poller");
    let (local, _peer) = stream();
    let key = other.add(local);
    other.submit(Op::recv(key, vec![], 9), 1);
    other.harness.deregister(key);
    assert_eq!(other.harness.poller.pending(key), 0, "a stale key");
    other.next();
}
