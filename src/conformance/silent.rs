//! Clauses C1 and X2 for operations that complete only if they do not succeed entirely.

use super::bench::*;
use super::kit::*;
use super::lines::*;
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

impl Bench {
    /// Submits an operation whose success is silent. A completion of it fails the case.
    fn submit_silently(&mut self, op: Op) -> OpId {
        let submitted = self.desk.poller.submit(op.skip_success(), Token(404));
        submitted.unwrap_or_else(|rejected| panic!("submit: {rejected}"))
    }

    /// Waits until so many operations have ended silently, and fails if anything completes.
    fn expect_silent(&mut self, count: u64, why: &str) {
        let started = Instant::now();
        loop {
            self.expect_sum();
            let silent = self.desk.poller.statistics().silent;
            if silent >= count {
                return assert_eq!(silent, count, "{why}: so many have ended silently");
            }
            assert!(started.elapsed() < LONG, "{why}: {silent} of {count} have ended silently");
            self.expect_nothing_yet(why);
        }
    }

    /// Every operation is counted once.
    fn expect_sum(&self) {
        let its = self.desk.poller.statistics();
        assert_eq!(its.submitted, its.completed + its.silent + its.pending, "{its:?}");
    }
}

/// A socket in whose peer's queue there is no room, and the peer.
fn full_stream() -> (Arc<UnixStream>, UnixStream) {
    let (here, there) = stream();
    fill(&*here);
    (here, there)
}

fn read_all(from: &UnixStream) -> Vec<u8> {
    let (mut from, mut all) = (from, Vec::new());
    match from.read_to_end(&mut all) {
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => panic!("read: {error}"),
        _ => all,
    }
}

/// Fails unless an operation on the source is silent, and has taken effect.
fn is_silent(stage: &Stage, name: &'static str, source: Source, op: impl Fn(Key) -> Op) {
    let mut bench = Bench::new(stage);
    bench.about = name;
    let key = bench.add(source);
    bench.submit_silently(op(key));
    bench.expect_silent(1, name);
    assert_eq!(bench.desk.poller.pending(key), 0, "{name}: nothing is unfinished");
    bench.expect_sleep(name);
    // Together with another operation it has no completion either.
    bench.submit_silently(op(key));
    bench.submit(Op::nop(), 1);
    bench.one();
    bench.expect_silent(2, name);
    bench.expect_all_done(name);
}

/// An operation, and what it is called.
type Named = (&'static str, fn(Key) -> Op);

pub(super) fn c1_sends_that_succeed_are_silent(stage: &Stage) {
    let sends: [Named; 4] = [
        ("send", |key| Op::send(key, "hello", ..)),
        ("send_all", |key| Op::send_all(key, vec![0, 1, 2, 3, 4, 5], 1..)),
        ("send_msg", |key| Op::send_msg(key, "hello", .., Message::new())),
        ("write", |key| Op::write(key, "hello", ..)),
    ];
    for (name, op) in sends {
        let (here, there) = stream();
        is_silent(stage, name, here, op);
        assert_eq!(read_all(&there).len(), 10, "{name}: both were sent");
        let (here, mut there) = tcp();
        is_silent(stage, name, here, op);
        ok(there.set_nonblocking(false));
        ok(there.read_exact(&mut [0; 10]));
    }
    let [here, there] = [(); 2].map(|()| ok(UdpSocket::bind("127.0.0.1:0")));
    let to = ok(there.local_addr());
    is_silent(stage, "send_to", Arc::new(here), |key| Op::send_to(key, "hello", .., to));
    assert_eq!(ok(there.recv(&mut [0; 9])), 5);
    let (reader, writer) = pipe();
    is_silent(stage, "write to a pipe", Arc::new(writer), |key| Op::write(key, "hello", ..));
    assert_eq!(nix::unistd::read(&reader, &mut [0; 20]), Ok(10));
    let (here, _there) = stream();
    is_silent(stage, "no bytes", here, |key| Op::send_all(key, Buf::None, ..));
}

pub(super) fn c1_writes_to_a_file_that_succeed_are_silent(stage: &Stage) {
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
        is_silent(stage, name, file.clone(), op);
    }
    assert_eq!(ok(std::fs::read(&path)), b"ABABef", "each was written");
}

pub(super) fn c1_connects_and_shutdowns_that_succeed_are_silent(stage: &Stage) {
    let listener = ok(TcpListener::bind("127.0.0.1:0"));
    let to = ok(listener.local_addr());
    let mut bench = Bench::new(stage);
    let socket = nix::sys::socket::socket(
        nix::sys::socket::AddressFamily::Inet,
        nix::sys::socket::SockType::Stream,
        nix::sys::socket::SockFlag::SOCK_CLOEXEC,
        None,
    );
    let key = bench.add(Arc::new(ok(socket)));
    bench.submit_silently(Op::connect(key, to));
    bench.submit_silently(Op::send_all(key, "hello", ..));
    bench.submit_silently(Op::shutdown(key, Shutdown::Write));
    bench.expect_silent(3, "a connection, a send and its end");
    let (mut peer, mut all) = (ok(listener.accept()).0, Vec::new());
    ok(peer.read_to_end(&mut all));
    assert_eq!(all, b"hello");
    bench.submit_silently(Op::shutdown(key, Shutdown::Read));
    bench.expect_silent(4, "the end of reading");
    bench.expect_all_done("all were silent");
}

pub(super) fn c1_silent_sends_end_no_wait(stage: &Stage) {
    let ((here, there), mut bench) = (stream(), Bench::with_room(stage, 1));
    let key = bench.add(here);
    let (started, timeout) = (Instant::now(), Duration::from_millis(20));
    for _ in 0..3 {
        bench.submit_silently(Op::send_all(key, "hello", ..));
    }
    bench.wait(timeout);
    let completed = bench.desk.events.completed();
    assert_eq!((completed, bench.desk.events.len()), (0, 0), "nothing is reported of them");
    assert!(started.elapsed() >= timeout, "they do not end a wait");
    assert_eq!(read_all(&there), b"hellohellohello");
    // Nor do they take the place of another.
    (0..50).for_each(|_| _ = bench.submit_silently(Op::send(key, "x", ..)));
    bench.submit(Op::nop(), 1);
    bench.wait(LONG);
    assert_eq!(bench.desk.events.completed(), 1, "the one that is not silent");
    bench.one();
    bench.expect_silent(53, "all were sent");
}

pub(super) fn c1_silent_failures_complete(stage: &Stage) {
    let mut bench = Bench::new(stage);
    let closed = |(here, _): (Arc<UnixStream>, UnixStream)| here;
    let key = bench.add(closed(stream()));
    for op in [Op::send(key, "x", ..), Op::send_all(key, "x", ..), Op::write(key, "x", ..)] {
        let done = bench.run(op.skip_success());
        assert_eq!((errno(&done), &done.buf[..]), (libc::EPIPE, &b"x"[..]), "with its buffer");
    }
    let key = bench.add(Arc::new(ok(File::open("/dev/null"))));
    let done = bench.run(Op::write_at(key, "x", .., 0).skip_success());
    assert_eq!(errno(&done), libc::EBADF, "it is open for reading");
    let (reader, _writer) = pipe();
    let key = bench.add(Arc::new(reader));
    assert_eq!(errno(&bench.run(Op::fsync(key).skip_success())), libc::EINVAL, "of a pipe");
    let key = bench.add(Arc::new(ok(UdpSocket::bind("127.0.0.1:0"))));
    let done = bench.run(Op::shutdown(key, Shutdown::Write).skip_success());
    assert_eq!(errno(&done), libc::ENOTCONN, "it has no peer");
    bench.expect_all_done("each once");
    bench.expect_sum();
    assert_eq!(bench.desk.poller.statistics().silent, 0, "none has succeeded");
}

pub(super) fn c1_a_short_silent_send_completes(stage: &Stage) {
    const MUCH: usize = 1 << 22;
    let ((here, there), mut bench) = (stream(), Bench::new(stage));
    let key = bench.add(here);
    let done = bench.run(Op::send(key, vec![7; MUCH], ..).skip_success());
    assert!(0 < done.transferred && done.transferred < MUCH, "{}", done.transferred);
    assert_eq!(done.buf.len(), MUCH, "the buffer comes back");
    // What the peer does not take any more comes beside the error.
    drain(&there);
    bench.submit(Op::send_all(key, vec![7; MUCH], ..).skip_success(), 1);
    bench.expect_nothing_yet("the peer has not read all");
    let sent = read_all(&there).len();
    bench.expect_nothing_yet("the peer has not read all");
    drop(there);
    let done = bench.one();
    assert_eq!(errno(&done), libc::EPIPE);
    assert!(done.transferred >= sent && done.transferred < MUCH, "{}", done.transferred);
    bench.expect_all_done("each once");
    bench.expect_sum();
}

pub(super) fn c1_silent_sends_are_over_before_the_next_completion(stage: &Stage) {
    const COUNT: usize = 40;
    const SIZE: usize = 30_000;
    for (make, name) in [(Line::unix as fn() -> Line, "unix"), (Line::tcp, "tcp")] {
        let Line { here, there, .. } = make();
        let mut bench = Bench::new(stage);
        bench.about = name;
        let key = bench.add(here);
        for at in 0..COUNT {
            bench.submit_silently(Op::send_all(key, bytes_from(at * SIZE, SIZE), ..));
            if at % 7 == 0 {
                bench.wait(ZERO);
            }
        }
        bench.submit(Op::send_all(key, bytes_from(COUNT * SIZE, SIZE), ..), 1);
        let reader = thread::spawn(move || {
            super::scenes::set_blocking(&there, true);
            let mut all = vec![0; (COUNT + 1) * SIZE];
            let mut at = 0;
            while at < all.len() {
                at += ok(nix::unistd::read(&there, &mut all[at..]));
            }
            all
        });
        bench.one();
        let silent = bench.desk.poller.statistics().silent;
        assert_eq!((silent, bench.desk.poller.pending(key)), (COUNT as u64, 0), "{name}: all over");
        let all = reader.join().unwrap_or_else(|_| panic!("the reader failed"));
        assert!(all == bytes_from(0, all.len()), "{name}: every byte, in order");
        bench.expect_all_done(name);
    }
}

pub(super) fn c1_what_brings_something_is_not_silent(stage: &Stage) {
    let ((here, there), mut bench) = (stream(), Bench::new(stage));
    let pool = new_pool(64, 2);
    let [here, there] = [here, Arc::new(there)].map(|its| bench.add(its));
    let refused = [
        Op::recv(here, vec![1], 9),
        Op::recv_exact(here, vec![1], 9),
        Op::recv_multi(here, &pool),
        Op::recv_from(here, vec![1], 9),
        Op::recv_msg(here, vec![1], 9),
        Op::read(here, vec![1], 9),
        Op::read_at(here, vec![1], 9, 0),
        Op::accept(here),
        Op::accept_multi(here),
        Op::splice(here, there, 9),
        Op::open("/dev/null", crate::op::OpenOptions::new().read(true)),
        Op::timeout(ZERO),
        Op::nop(),
    ];
    for op in refused {
        let had_buf = op.buf != Buf::None;
        let (buf, error) = bench.rejected(op.skip_success());
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{error}");
        assert_eq!(had_buf, buf == Buf::from(vec![1]), "the buffer comes back");
    }
    assert_eq!(bench.desk.poller.statistics().submitted, 0, "none was accepted");
    bench.expect_all_done("none was accepted");
}

/// A send that waits for a buffer's return, or for its turn, must not wait for the next event.
pub(super) fn c1_a_wait_does_not_sleep_on_what_follows_a_silent_send(stage: &Stage) {
    for (limit, name) in [(1, "one buffer"), (2, "two buffers")] {
        let (Line { here, there, .. }, pool) = (Line::unix(), new_pool(64, limit));
        let mut bench = Bench::new(stage);
        bench.about = name;
        let key = bench.add(here);
        bench.submit_stream(Op::recv_multi(key, &pool), 1);
        super::scenes::set_blocking(&there, true);
        let peer = thread::spawn(move || {
            for at in 0..100_u8 {
                assert_eq!(nix::unistd::write(&there, &[at; 5]), Ok(5));
                let mut echo = [0; 5];
                assert_eq!(nix::unistd::read(&there, &mut echo), Ok(5));
                assert_eq!(echo, [at; 5], "in order");
            }
        });
        for at in 0..100 {
            let done = bench.one();
            assert_eq!((&done.buf[..], done.more), (&[at; 5][..], true));
            bench.submit_silently(Op::send_all(key, done.buf, ..));
        }
        let last = bench.one();
        expect_end(&last, "the peer has gone");
        peer.join().unwrap_or_else(|_| panic!("the peer failed"));
        bench.expect_silent(100, name);
        // A ring returns what it has provided for the receive with the next wait.
        bench.wait(ZERO);
        assert_eq!(pool.idle(), pool.made(), "all buffers are back");
    }
    let (Line { here, there, .. }, mut bench) = (Line::tcp(), Bench::new(stage));
    bench.about = "a successor";
    let key = bench.add(here);
    bench.submit(Op::recv(key, vec![], 9), 1);
    super::scenes::set_blocking(&there, true);
    let peer = thread::spawn(move || {
        let mut all = [0; 99];
        let mut at = 0;
        loop {
            match ok(nix::unistd::read(&there, &mut all[at..])) {
                0 => break assert_eq!(&all[..at], b"onetwothree"),
                count => at += count,
            }
        }
        assert_eq!(nix::unistd::write(&there, b"thanks"), Ok(6));
    });
    for text in ["one", "two", "three"] {
        bench.submit_silently(Op::send_all(key, text, ..));
    }
    bench.submit_silently(Op::shutdown(key, Shutdown::Write));
    assert_eq!(bytes(bench.one()), (6, b"thanks".to_vec()));
    peer.join().unwrap_or_else(|_| panic!("the peer failed"));
}

pub(super) fn c1_what_a_silent_send_held_is_let_go(stage: &Stage) {
    let ((here, there), mut bench) = (stream(), Bench::new(stage));
    let key = bench.add(here);
    let pool = new_pool(64, 3);
    for mut buf in take_all(&pool) {
        ok(buf.write_all(b"hello"));
        bench.submit_silently(Op::send_all(key, buf, ..));
    }
    bench.expect_nothing_yet("they are silent");
    assert_eq!(pool.idle(), 3, "when the next wait returns the buffers are back");
    assert_eq!(read_all(&there), b"hellohellohello");
    let (reader, writer) = pipe();
    let message = Message::new().file(Arc::new(writer));
    bench.submit_silently(Op::send_msg(key, "x", .., message));
    bench.expect_silent(4, "a file was passed");
    bench.wait(ZERO);
    // The message is never received.
    drop(there);
    fence(&reader, PollFlags::POLLIN, |bits| bits.contains(PollFlags::POLLHUP));
}

/// Once something has begun to end it, it completes.
pub(super) fn x2_what_is_to_end_is_not_silent(stage: &Stage) {
    let ((here, there), mut bench) = (full_stream(), Bench::new(stage));
    let key = bench.add(here);
    for waits in [false, true] {
        let sends =
            [1, 2].map(|token| bench.submit(Op::send_all(key, "hello", ..).skip_success(), token));
        if waits {
            bench.expect_nothing_yet("there is no room");
        }
        assert_eq!(bench.desk.poller.pending(key), 2, "both are unfinished");
        sends.into_iter().rev().for_each(|id| bench.cancel(id));
        let all = bench.collect(2);
        assert!(all.iter().all(|done| done.is_canceled() && &done.buf[..] == b"hello"), "{all:?}");
        let send = Op::send_all(key, "hello", ..).skip_success();
        let done = bench.run(send.deadline(Duration::from_millis(1)));
        assert_eq!(refusal(done.result), io::ErrorKind::TimedOut, "its deadline has passed");
        bench.expect_all_done("all were stopped");
    }
    bench.submit(Op::send_all(key, "hello", ..).skip_success(), 1);
    bench.submit(Op::send_all(key, "hello", ..).skip_success(), 2);
    bench.desk.deregister(key);
    assert!(bench.collect(2).iter().all(|done| done.is_canceled()), "their source has gone");
    assert_eq!(bench.desk.poller.pending(key), 0, "of a source that has gone");
    bench.expect_all_done("all were stopped");
    bench.expect_sum();
    drop(there);
}

/// What becomes of a silent send at the very moment in which it is stopped.
#[derive(Clone, Copy, Debug)]
enum Stop {
    Cancel,
    Deregister,
}

/// An operation that is stopped has ended silently before, or completes: exactly one of the two.
pub(super) fn x2_a_silent_end_or_a_completion(stage: &Stage) {
    for stop in [Stop::Cancel, Stop::Deregister] {
        for moments in 0..3 {
            let ((here, there), mut bench) = (stream(), Bench::new(stage));
            let key = bench.add(here);
            let id = bench.submit_silently(Op::send_all(key, "hello", ..));
            (0..moments).for_each(|_| bench.wait(ZERO));
            let is_over = bench.desk.poller.statistics().silent == 1;
            assert!(is_over || moments == 0, "the kernel had room for it");
            match stop {
                Stop::Cancel => {
                    let answer = bench.desk.poller.cancel(id);
                    assert_eq!(answer.is_err(), is_over, "NotFound once it has ended silently");
                    if let Err(error) = answer {
                        assert_eq!(error.kind(), io::ErrorKind::NotFound);
                    }
                }
                Stop::Deregister => bench.desk.deregister(key),
            }
            let started = Instant::now();
            while !is_over && bench.desk.events.completed() == 0 {
                assert!(started.elapsed() < LONG, "{stop:?}: it does not complete");
                bench.wait(LONG);
            }
            let completions: Vec<_> = bench.desk.events.completions().collect();
            let sent = read_all(&there).len();
            match &completions[..] {
                [] => assert!(is_over && sent == 5, "{stop:?}: {sent} bytes were sent"),
                [done] => {
                    assert!(done.id == id && !is_over && done.transferred == sent, "{done:?}");
                    assert!(done.result.is_ok() || done.is_canceled(), "{done:?}");
                }
                more => panic!("it completes once: {more:?}"),
            }
            bench.expect_all_done("once");
            bench.expect_sum();
        }
    }
}

pub(super) fn c1_pending_counts_what_is_unfinished(stage: &Stage) {
    let ((here, there), mut bench) = (full_stream(), Bench::new(stage));
    let key = bench.add(here);
    let pending = |bench: &Bench| bench.desk.poller.pending(key);
    assert_eq!(pending(&bench), 0);
    bench.submit(Op::recv(key, vec![], 9), 0);
    assert_eq!(pending(&bench), 1, "a receive that waits");
    for at in 0..5 {
        bench.submit_silently(Op::send_all(key, "hello", ..));
        assert_eq!(pending(&bench), 2 + at, "and sends that do");
    }
    bench.expect_nothing_yet("there is no room");
    assert_eq!(pending(&bench), 6);
    drain(&there);
    bench.expect_silent(5, "now there is room");
    assert_eq!(pending(&bench), 1, "the receive");
    put(&there, b"x");
    bench.one();
    assert_eq!(pending(&bench), 0);
    let mut other = Bench::new(stage);
    assert_eq!(other.desk.poller.pending(key), 0, "a key of another poller");
    let (here, _there) = stream();
    let key = other.add(here);
    other.submit(Op::recv(key, vec![], 9), 1);
    other.desk.deregister(key);
    assert_eq!(other.desk.poller.pending(key), 0, "a stale key");
    other.one();
}
