//! Clause E5: reports of hang-ups and errors in edge mode.

use super::util::*;
use crate::event::{Mode, Readiness};
use crate::poller::Source;
use nix::fcntl::OFlag;
use nix::poll::PollFlags;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, connect, socket};
use nix::sys::stat::Mode as Permissions;
use std::net::{Ipv4Addr, Shutdown, TcpListener, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

const READABLE: Readiness = Readiness::READABLE;
const WRITABLE: Readiness = Readiness::WRITABLE;
const READ_END: Readiness = READABLE.union(Readiness::READ_CLOSED);
const WRITE_END: Readiness = WRITABLE.union(Readiness::WRITE_CLOSED);
const BROKEN: Readiness = WRITE_END.union(Readiness::ERROR);

/// Fails if one of several waits reports an event; some of them sleep, since a repeated report may
/// come late.
fn expect_silences(harness: &mut ReadinessHarness, why: &str) {
    for round in 0..30 {
        let timeout = if round % 10 == 9 { Duration::from_millis(2) } else { ZERO };
        harness.wait(Some(timeout));
        let reported = harness.reported();
        assert!(
            reported.is_empty(),
            "expected no event ({why}), got {reported:?} in round {round}"
        );
    }
}

/// Fails unless `expected` is reported once.
fn expect_once(harness: &mut ReadinessHarness, expected: &[(usize, Readiness)], why: &str) {
    assert_eq!(harness.next(why), expected, "{why}");
    expect_silences(harness, why);
}

fn unwrap<T, E: std::fmt::Display>(made: Result<T, E>) -> T {
    made.unwrap_or_else(|error| panic!("{error}"))
}

pub(super) fn e5_pipe_writer_reports_closed_reader(cx: &TestContext) {
    for is_full in [false, true] {
        let mut harness = cx.harness(4);
        let (reader, writer) = pipe();
        let writer = Arc::new(writer);
        harness.register(writer.clone(), 1, WRITE, Mode::Edge);
        expect_once(&mut harness, &[(1, WRITABLE)], "writability");
        if is_full {
            fill(&*writer);
        }
        drop(reader);
        expect_once(&mut harness, &[(1, BROKEN)], "the reader has closed");
    }
}

pub(super) fn e5_pipe_reader_reports_closed_writer(cx: &TestContext) {
    for takes in [0, 1, 3] {
        let mut harness = cx.harness(4);
        let (reader, writer) = pipe();
        let reader = Arc::new(reader);
        harness.register(reader.clone(), 1, READ, Mode::Edge);
        assert_eq!(nix::unistd::write(&writer, b"abc"), Ok(3));
        expect_once(&mut harness, &[(1, READABLE)], "data");
        if takes > 0 {
            assert_eq!(nix::unistd::read(&*reader, &mut [0; 8][..takes]), Ok(takes));
        }
        drop(writer);
        expect_once(&mut harness, &[(1, READ_END)], "the writer has closed");
        drain(&*reader);
        expect_silences(&mut harness, "a read after the end");
    }
}

pub(super) fn e5_writable_interest_reports_socket_hang_up(cx: &TestContext) {
    let mut harness = cx.harness(4);
    let (local, peer) = stream();
    harness.register(local, 1, WRITE, Mode::Edge);
    expect_once(&mut harness, &[(1, WRITABLE)], "writability");
    drop(peer);
    expect_once(&mut harness, &[(1, WRITE_END)], "a Unix stream, peer closed");

    let (local, peer) = tcp();
    harness.register(local.clone(), 2, WRITE, Mode::Edge);
    expect_once(&mut harness, &[(2, WRITABLE)], "writability");
    unwrap(local.shutdown(Shutdown::Write));
    drop(peer);
    wait_until_kernel(&*local, PollFlags::empty(), |bits| bits.contains(PollFlags::POLLHUP));
    assert!(harness.next("both sides are shut down")[0].1.contains(WRITE_END));
    expect_silences(&mut harness, "both sides are shut down");

    let (local, peer) = tcp();
    harness.register(local.clone(), 3, WRITE, Mode::Edge);
    expect_once(&mut harness, &[(3, WRITABLE)], "writability");
    reset(&local, peer);
    assert!(harness.next("a reset")[0].1.contains(BROKEN));
    expect_silences(&mut harness, "already reported");
}

/// Closes the peer with unread data, which makes a reset.
fn reset(local: &std::net::TcpStream, peer: std::net::TcpStream) {
    unwrap(std::io::Write::write_all(&mut &*local, b"x"));
    wait_until_kernel(&peer, PollFlags::POLLIN, |bits| bits.contains(PollFlags::POLLIN));
    drop(peer);
    wait_until_kernel(local, PollFlags::empty(), |bits| bits.contains(PollFlags::POLLERR));
}

pub(super) fn e5_half_close_and_close_are_reported_separately(cx: &TestContext) {
    for interest in [READ, BOTH, READ | crate::event::Interest::PRIORITY] {
        let room = if interest.contains(WRITE) { WRITABLE } else { Readiness::empty() };
        let mut harness = cx.harness(4);
        let (local, peer) = stream();
        put(&peer, b"x");
        harness.register(local, 1, interest, Mode::Edge);
        expect_once(&mut harness, &[(1, READABLE | room)], "data");
        unwrap(peer.shutdown(Shutdown::Write));
        let reported = harness.next("RDHUP");
        assert!(reported[0].1.contains(READ_END), "{reported:?}");
        assert!(!reported[0].1.contains(Readiness::WRITE_CLOSED), "{reported:?}");
        expect_silences(&mut harness, "RDHUP, already reported");
        drop(peer);
        let reported = harness.next("HUP");
        assert!(reported[0].1.contains(READ_END), "{reported:?}");
        assert_eq!(reported[0].1.contains(WRITE_END), interest.contains(WRITE), "{reported:?}");
        expect_silences(&mut harness, "HUP, already reported");
    }
}

pub(super) fn e5_hang_up_is_reported_after_drained(cx: &TestContext) {
    for drained in [READ, WRITE] {
        let mut harness = cx.harness(4);
        let (local, peer) = stream();
        put(&peer, b"x");
        let key = harness.register(local.clone(), 1, BOTH, Mode::Edge);
        expect_once(&mut harness, &[(1, READABLE | WRITABLE)], "data and writability");
        if drained == READ {
            drain(&*local);
        } else {
            fill(&*local);
        }
        harness.drained(key, drained);
        expect_silences(&mut harness, "drained");
        drop(peer);
        let reported = harness.next("the hang-up");
        assert!(reported[0].1.contains(READ_END | WRITE_END), "{reported:?}");
        expect_silences(&mut harness, "already reported");
    }
}

/// During a wait select(2) reports a hang-up only for descriptors watched for reading.
pub(super) fn e5_hang_up_wakes_wait_of_drained_reader(cx: &TestContext) {
    let mut harness = cx.harness(4);
    let (local, peer) = stream();
    let key = harness.register(local, 1, BOTH, Mode::Edge);
    expect_once(&mut harness, &[(1, WRITABLE)], "writability");
    harness.drained(key, READ);
    let waiter = nix::unistd::gettid().as_raw();
    let closer = std::thread::spawn(move || {
        wait_until_asleep(waiter);
        drop(peer);
    });
    let reported = harness.next("the hang-up, while the wait sleeps");
    assert!(reported[0].1.contains(READ_END | WRITE_END), "{reported:?}");
    unwrap(closer.join().map_err(|_| "the other thread failed"));
    expect_silences(&mut harness, "already reported");
}

pub(super) fn e5_rearm_and_modify_repeat_a_hang_up(cx: &TestContext) {
    let (reader, writer) = pipe();
    let (local, peer) = stream();
    let sources: [(Source, _, _); 2] = [(Arc::new(writer), WRITE, BROKEN), (local, READ, READ_END)];
    let mut harness = cx.harness(4);
    let keys = sources.map(|(source, interest, end)| {
        let key = harness.register(source, 1, interest, Mode::Edge);
        (key, interest, end)
    });
    harness.ready_now();
    drop((reader, peer));
    harness.wait(Some(LONG));
    assert_eq!(harness.events.len(), 2);
    for (key, interest, end) in keys {
        for _ in 0..3 {
            harness.rearm(key, interest);
            expect_once(&mut harness, &[(1, end)], "rearmed");
        }
        harness.modify(key, 2, interest, Mode::Edge);
        expect_once(&mut harness, &[(2, end)], "modified");
        harness.modify(key, 1, interest, Mode::Edge);
        expect_once(&mut harness, &[(1, end)], "modified");
    }
}

pub(super) fn e5_each_socket_error_is_reported(cx: &TestContext) {
    for interest in [WRITE, BOTH] {
        let mut harness = cx.harness(4);
        let closed = unwrap(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)));
        let address = unwrap(closed.local_addr());
        drop(closed);
        let socket = unwrap(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)));
        unwrap(socket.set_nonblocking(true));
        unwrap(socket.connect(address));
        let socket = Arc::new(socket);
        harness.register(socket.clone(), 1, interest, Mode::Edge);
        expect_once(&mut harness, &[(1, WRITABLE)], "writability");
        for round in 0..3 {
            // The datagram is answered by ICMP port unreachable.
            assert_eq!(unwrap(socket.send(b"x")), 1);
            wait_until_kernel(&*socket, PollFlags::empty(), |bits| {
                bits.contains(PollFlags::POLLERR)
            });
            let reported = harness.next("an error");
            assert!(
                reported[0].1.contains(WRITABLE | Readiness::ERROR),
                "{reported:?}, round {round}"
            );
            expect_silences(&mut harness, "already reported");
            assert!(unwrap(socket.take_error()).is_some());
            expect_silences(&mut harness, "the error was read");
        }
    }
}

/// A named pipe.
struct Fifo {
    path: PathBuf,
    _directory: TempDir,
}

impl Fifo {
    fn new() -> Self {
        let directory = TempDir::new();
        let path = directory.0.join("fifo");
        unwrap(nix::unistd::mkfifo(&path, Permissions::S_IRWXU));
        Fifo { path, _directory: directory }
    }

    fn open(&self, flags: OFlag) -> OwnedFd {
        let flags = flags | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        unwrap(nix::fcntl::open(&self.path, flags, Permissions::empty()))
    }

    fn reader(&self) -> Arc<OwnedFd> {
        Arc::new(self.open(OFlag::O_RDONLY))
    }

    /// Opens a writer and writes three bytes.
    fn writer(&self) -> OwnedFd {
        let writer = self.open(OFlag::O_WRONLY);
        assert_eq!(nix::unistd::write(&writer, b"abc"), Ok(3));
        writer
    }
}

/// Reads to the end of the file without calling `drained`.
fn read_to_the_end(of: impl AsFd) -> usize {
    let mut count = 0;
    while let Ok(more @ 1..) = nix::unistd::read(&of, &mut [0; 64]) {
        count += more;
    }
    count
}

/// At the end of a FIFO a read returns 0 instead of `WouldBlock`.
pub(super) fn e5_fifo_reports_its_next_writer(cx: &TestContext) {
    let fifo = Fifo::new();
    let mut harness = cx.harness(4);
    let reader = fifo.reader();
    harness.register(reader.clone(), 1, READ, Mode::Edge);
    expect_silences(&mut harness, "no writer was opened yet");
    for round in 0..4 {
        let writer = fifo.writer();
        // The writer may have closed before the poller checks.
        if round % 2 == 0 {
            expect_once(&mut harness, &[(1, READABLE)], "data");
            if round == 0 {
                assert_eq!(read_to_the_end(&*reader), 3);
            }
            drop(writer);
            expect_once(&mut harness, &[(1, READ_END)], "end of file");
        } else {
            drop(writer);
            expect_once(&mut harness, &[(1, READ_END)], "data and end of file");
        }
        let rest = read_to_the_end(&*reader);
        assert_eq!(rest, if round == 0 { 0 } else { 3 });
        if round == 2 {
            expect_silences(&mut harness, "already reported");
        }
    }
    // Opening a writer is not reported, and a check in between finds no data.
    expect_silences(&mut harness, "already reported");
    let writer = fifo.open(OFlag::O_WRONLY);
    expect_silences(&mut harness, "nothing was written");
    assert_eq!(nix::unistd::write(&writer, b"abc"), Ok(3));
    expect_once(&mut harness, &[(1, READABLE)], "data");
}

pub(super) fn e5_fifo_with_own_writer_wakes_wait(cx: &TestContext) {
    let fifo = Fifo::new();
    let mut harness = cx.harness(4);
    let reader = fifo.reader();
    harness.register(reader.clone(), 1, READ, Mode::Edge);
    drop(fifo.writer());
    expect_once(&mut harness, &[(1, READ_END)], "data and end of file");
    assert_eq!(read_to_the_end(&*reader), 3);
    // A writer of the program's own keeps the FIFO from hanging up.
    let own = fifo.open(OFlag::O_WRONLY);
    expect_silences(&mut harness, "nothing was written");
    let waiter = nix::unistd::gettid().as_raw();
    let writer = fifo.open(OFlag::O_WRONLY);
    let peer = std::thread::spawn(move || {
        wait_until_asleep(waiter);
        assert_eq!(nix::unistd::write(&writer, b"abc"), Ok(3));
    });
    assert_eq!(harness.next("data, while the wait sleeps"), [(1, READABLE)]);
    unwrap(peer.join().map_err(|_| "the other thread failed"));
    expect_silences(&mut harness, "already reported, and no end of file");
    drop(own);
}

pub(super) fn e5_drained_after_hang_up_does_not_repeat_it(cx: &TestContext) {
    let fifo = Fifo::new();
    let mut harness = cx.harness(8);
    let (local, peer) = stream();
    let (reader, writer) = pipe();
    let sources: [(Source, _); 3] =
        [(fifo.reader(), READ), (local, BOTH), (Arc::new(writer), WRITE)];
    let mut keys = Vec::new();
    for (token, (source, interest)) in sources.iter().enumerate() {
        keys.push((harness.register(source.clone(), token, *interest, Mode::Edge), *interest));
    }
    harness.ready_now();
    drop((fifo.writer(), peer, reader));
    let mut count = 0;
    for _ in 0..200 {
        count += harness.ready_now().len();
        read_to_the_end(&*sources[0].0);
        for &(key, interest) in &keys {
            harness.drained(key, interest);
        }
    }
    assert_eq!(count, 3, "each end is reported once");
    // A premature `drained` suppresses no report.
    let writer = fifo.writer();
    expect_once(&mut harness, &[(0, READABLE)], "the next writer");
    read_to_the_end(&*sources[0].0);
    harness.drained(keys[0].0, READ);
    drop(writer);
    expect_once(&mut harness, &[(0, READ_END)], "the next end of file");
    // Drained while a writer is open, and hung up again before the poller checks.
    let writer = fifo.open(OFlag::O_WRONLY);
    harness.drained(keys[0].0, READ);
    drop(writer);
    expect_once(&mut harness, &[(0, READ_END)], "end of file after a truthful `drained`");
}

/// An unconnected TCP socket reports HUP.
pub(super) fn e5_connect_after_register_is_reported(cx: &TestContext) {
    for (interest, rearms) in [(WRITE, false), (BOTH, false), (WRITE, true), (BOTH, true)] {
        let listener = unwrap(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
        let std::net::SocketAddr::V4(address) = unwrap(listener.local_addr()) else {
            panic!("an IPv4 address")
        };
        let mut harness = cx.harness(4);
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let client = unwrap(socket(AddressFamily::Inet, SockType::Stream, flags, None));
        let client = Arc::new(client);
        let key = harness.register(client.clone(), 1, interest, Mode::Edge);
        let reported = harness.next("the hang-up of an unconnected socket");
        assert!(reported[0].1.contains(WRITE_END), "{reported:?}");
        expect_silences(&mut harness, "already reported");
        let connecting = connect(client.as_raw_fd(), &SockaddrIn::from(address));
        assert!(matches!(connecting, Ok(()) | Err(nix::errno::Errno::EINPROGRESS)));
        if rearms {
            // `rearm` reports the connection even if it takes longer than the next wait.
            harness.rearm(key, interest);
        }
        assert_eq!(harness.next("the connection"), [(1, WRITABLE)]);
        expect_silences(&mut harness, "already reported");
    }
}
