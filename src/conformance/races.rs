//! Clause X1: operations cancelled at the moment they complete.

use super::op_harness::OpHarness;
use super::util::*;
use crate::op::{Op, OpId, Outcome};
use crate::poller::Source;
use nix::poll::PollFlags;
use nix::sys::socket::{setsockopt, sockopt};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

/// Cancels an operation, which may have been delivered meanwhile.
fn cancel_in_a_race(ops: &mut OpHarness, id: OpId) {
    let is_delivered = ops.harness.events.completed() > 0;
    match ops.harness.poller.cancel(id) {
        Ok(()) => assert!(!is_delivered, "a delivered operation was cancelled"),
        Err(error) => {
            assert!(is_delivered && error.kind() == io::ErrorKind::NotFound, "cancel: {error}");
        }
    }
}

/// A thread that acts once per round, concurrently with the main thread.
struct Racer {
    requested: Arc<AtomicUsize>,
    done: Arc<AtomicUsize>,
    thread: JoinHandle<()>,
}

const STOP: usize = usize::MAX;

impl Racer {
    /// Spawns the thread. `act` receives the number of the round, from 1 on.
    fn new(mut act: impl FnMut(usize) + Send + 'static) -> Self {
        let (requested, done) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (requests, finished) = (requested.clone(), done.clone());
        let thread = thread::spawn(move || {
            let mut last = 0;
            loop {
                match requests.load(Ordering::Acquire) {
                    STOP => return,
                    round if round == last => thread::yield_now(),
                    round => {
                        act(round);
                        last = round;
                        finished.store(round, Ordering::Release);
                    }
                }
            }
        });
        Racer { requested, done, thread }
    }

    fn start(&self, round: usize) {
        self.requested.store(round, Ordering::Release);
        // Delay that differs from round to round.
        (0..round * 7 % 400).for_each(|_| std::hint::spin_loop());
        if round % 5 == 0 {
            thread::yield_now();
        }
    }

    fn wait_until_done(&self, round: usize) {
        while self.done.load(Ordering::Acquire) != round {
            assert!(!self.thread.is_finished(), "the racing thread failed");
            thread::yield_now();
        }
    }

    fn stop(self) {
        self.requested.store(STOP, Ordering::Release);
        self.thread.join().unwrap_or_else(|_| panic!("the racing thread failed"));
    }
}

/// Checks a stream of bytes for loss and duplicates.
#[derive(Default)]
struct ByteSequence {
    count: usize,
}

impl ByteSequence {
    fn expect_next(&mut self, got: &[u8], whose: &str, round: usize) {
        for &byte in got {
            assert_eq!(byte, self.count as u8, "byte {} {whose} in round {round}", self.count);
            self.count += 1;
        }
    }
}

fn race_receives(cx: &TestContext, local: Source, mut peer: impl Write + Send + 'static) {
    const ROUNDS: usize = 5000;
    let mut ops = OpHarness::new(cx);
    let key = ops.add(local.clone());
    let (mut sequence, written) = (ByteSequence::default(), Arc::new(AtomicUsize::new(0)));
    let count = written.clone();
    let writer = Racer::new(move |round| {
        for _ in 0..1 + round % 3 {
            let byte = [count.fetch_add(1, Ordering::Relaxed) as u8];
            peer.write_all(&byte).unwrap_or_else(|error| panic!("write: {error}"));
        }
    });
    let mut buffer = [0; 64];
    for round in 1..=ROUNDS {
        let op = match round % 2 {
            0 => Op::recv(key, vec![7], 4),
            _ => Op::recv_exact(key, vec![7], 3),
        };
        let id = ops.submit(op, round);
        if round % 4 < 2 {
            ops.wait(ZERO);
        }
        writer.start(round);
        cancel_in_a_race(&mut ops, id);
        let done = ops.next();
        assert!(done.result.is_ok() || done.is_canceled(), "{done:?}");
        assert_eq!(done.buf.len(), 1 + done.transferred, "the buffer holds all transferred bytes");
        sequence.expect_next(&done.buf[1..], "received", round);
        writer.wait_until_done(round);
        while let Ok(count @ 1..) = nix::unistd::read(&local, &mut buffer) {
            sequence.expect_next(&buffer[..count], "left in the socket", round);
        }
    }
    writer.stop();
    // TCP delivers asynchronously; the writer has finished.
    while sequence.count < written.load(Ordering::Relaxed) {
        wait_until_kernel(&local, PollFlags::POLLIN, |bits| bits.contains(PollFlags::POLLIN));
        let count = nix::unistd::read(&local, &mut buffer).unwrap_or_else(|e| panic!("read: {e}"));
        sequence.expect_next(&buffer[..count], "left in the socket at the end", ROUNDS);
    }
    assert_eq!(sequence.count, written.load(Ordering::Relaxed), "a byte was duplicated");
    ops.expect_all_done("every round collects its completion");
}

pub(super) fn x1_racing_cancel_of_receive_loses_no_byte(cx: &TestContext) {
    let (local, peer) = stream();
    race_receives(cx, local, peer);
    let (local, peer) = tcp();
    race_receives(cx, local, peer);
}

/// A non-blocking listener, with functions that connect and accept.
struct Listening {
    source: Source,
    connect: Box<dyn Fn() -> OwnedFd + Send>,
    accept: Box<dyn Fn() -> io::Result<OwnedFd>>,
    rounds: usize,
}

fn unix_listener() -> Listening {
    let name = format!("quintpoll-{}-race", std::process::id());
    let name = SocketAddr::from_abstract_name(name).unwrap_or_else(|e| panic!("a name: {e}"));
    let listener = UnixListener::bind_addr(&name).unwrap_or_else(|error| panic!("bind: {error}"));
    listener.set_nonblocking(true).unwrap_or_else(|error| panic!("O_NONBLOCK: {error}"));
    let listener = Arc::new(listener);
    let source = listener.clone();
    let connect = move || {
        let made = UnixStream::connect_addr(&name);
        made.unwrap_or_else(|error| panic!("connect: {error}")).into()
    };
    let accept = move || listener.accept().map(|(made, _)| made.into());
    Listening { source, connect: Box::new(connect), accept: Box::new(accept), rounds: 8000 }
}

fn tcp_listener() -> Listening {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let listener = Arc::new(listener.unwrap_or_else(|error| panic!("bind: {error}")));
    listener.set_nonblocking(true).unwrap_or_else(|error| panic!("O_NONBLOCK: {error}"));
    let address = listener.local_addr().unwrap_or_else(|error| panic!("getsockname: {error}"));
    let source = listener.clone();
    let connect = move || {
        let made = TcpStream::connect(address);
        let made = made.unwrap_or_else(|error| panic!("connect: {error}"));
        // Closing with a reset keeps the ports of closed connections from running out.
        let reset = libc::linger { l_onoff: 1, l_linger: 0 };
        setsockopt(&made, sockopt::Linger, &reset).unwrap_or_else(|e| panic!("SO_LINGER: {e}"));
        made.into()
    };
    let accept = move || listener.accept().map(|(made, _)| made.into());
    Listening { source, connect: Box::new(connect), accept: Box::new(accept), rounds: 2000 }
}

fn race_accepts(cx: &TestContext, listener: Listening) {
    let Listening { source, connect, accept, rounds } = listener;
    let mut ops = OpHarness::new(cx);
    let key = ops.add(source);
    let mut last = None;
    let client = Racer::new(move |round| {
        let made = connect();
        let number = (round as u32).to_ne_bytes();
        nix::unistd::write(&made, &number).unwrap_or_else(|error| panic!("write: {error}"));
        // The previous connection was accepted and read, so it can be closed.
        drop(last.replace(made));
    });
    for round in 1..=rounds {
        let id = ops.submit(Op::accept(key), round);
        if round % 2 == 0 {
            ops.wait(ZERO);
        }
        client.start(round);
        cancel_in_a_race(&mut ops, id);
        let done = ops.next();
        let is_canceled = done.is_canceled();
        let accepted = match done.result {
            Ok(Outcome::Accepted { socket, .. }) => Some(socket),
            Err(_) if is_canceled => None,
            other => panic!("neither accepted nor cancelled: {other:?}"),
        };
        client.wait_until_done(round);
        let accepted = accepted.map_or_else(&accept, Ok);
        let accepted = accepted.unwrap_or_else(|e| panic!("connection {round} is lost: {e}"));
        assert_eq!(
            expect_err_kind(accept()),
            io::ErrorKind::WouldBlock,
            "more than one connection is queued"
        );
        wait_until_kernel(&accepted, PollFlags::POLLIN, |bits| bits.contains(PollFlags::POLLIN));
        let mut number = [0; 4];
        assert_eq!(nix::unistd::read(&accepted, &mut number), Ok(4), "the client's number");
        assert_eq!(u32::from_ne_bytes(number), round as u32, "another connection was accepted");
    }
    client.stop();
    ops.expect_all_done("every round collects its completion");
}

pub(super) fn x1_racing_cancel_of_accept_loses_no_connection(cx: &TestContext) {
    drop(cx.poller());
    let before = open_fds();
    race_accepts(cx, unix_listener());
    race_accepts(cx, tcp_listener());
    assert_eq!(open_fds(), before, "no descriptor is left open");
}

/// The length of the pattern; not a power of two, so that a duplicated page is detected.
const PERIOD: usize = 251;
/// Bytes sent by one operation: more than a socket buffer holds.
const LOAD: usize = 300 * 1024;

/// The pattern from this stream position on.
fn pattern(position: usize, length: usize) -> impl Iterator<Item = u8> {
    (0..PERIOD as u8).cycle().skip(position % PERIOD).take(length)
}

/// Reads to the end of the stream and returns the byte count; all bytes must be in order.
fn read_pattern(mut from: impl Read) -> usize {
    let expected: Vec<u8> = pattern(0, PERIOD + 8192).collect();
    let (mut buffer, mut count) = (vec![0; 8192], 0);
    loop {
        match from.read(&mut buffer).unwrap_or_else(|error| panic!("read: {error}")) {
            0 => return count,
            more => {
                let at = count % PERIOD;
                assert!(buffer[..more] == expected[at..at + more], "out of order after {count}");
                count += more;
            }
        }
    }
}

fn race_sends(cx: &TestContext, local: Source, peer: impl Read + Send + 'static, rounds: usize) {
    let mut ops = OpHarness::new(cx);
    let key = ops.add(local);
    let reader = thread::spawn(move || read_pattern(peer));
    let loads: Vec<u8> = pattern(0, LOAD + PERIOD).collect();
    let (mut sent, mut buf) = (0, loads);
    for round in 1..=rounds {
        let (range, length) = (sent % PERIOD..sent % PERIOD + LOAD, buf.len());
        let op = match round % 2 {
            0 => Op::send(key, buf, range),
            _ => Op::send_all(key, buf, range),
        };
        let id = ops.submit(op, round);
        if round % 3 > 0 {
            ops.wait(ZERO);
        }
        (0..round * 13 % 500).for_each(|_| std::hint::spin_loop());
        if round % 7 == 0 {
            thread::yield_now();
        }
        cancel_in_a_race(&mut ops, id);
        let done = ops.next();
        assert!(done.result.is_ok() || done.is_canceled(), "{done:?}");
        sent += done.transferred;
        buf = done.buf.into_vec();
        assert_eq!(buf.len(), length, "the buffer is returned complete");
    }
    ops.expect_all_done("every round collects its completion");
    ops.harness.deregister(key);
    drop(ops);
    let arrived = reader.join().unwrap_or_else(|_| panic!("the reader failed"));
    assert_eq!(arrived, sent, "received and transferred bytes differ");
}

pub(super) fn x1_racing_cancel_of_send_counts_sent_bytes(cx: &TestContext) {
    let blocking = "O_NONBLOCK";
    let (local, peer) = stream();
    peer.set_nonblocking(false).unwrap_or_else(|error| panic!("{blocking}: {error}"));
    race_sends(cx, local, peer, 1400);
    let (local, peer) = tcp();
    peer.set_nonblocking(false).unwrap_or_else(|error| panic!("{blocking}: {error}"));
    race_sends(cx, local, peer, 600);
}
