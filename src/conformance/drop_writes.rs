//! Clause D1: after the poller has been dropped the kernel must not write to any buffer.

use super::cancels::{full_listener, unconnected};
use super::many_files;
use super::util::*;
use crate::event::{Interest, Mode, Token};
use crate::key::Key;
use crate::op::Op;
use crate::poller::{Poller, Source};
use crate::sys::io_call::leaked_buffers;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::poll::PollFlags;
use nix::sys::stat::Mode as Permissions;
use nix::unistd::{read, write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A source to receive from, and the peer that writes to it.
struct SourcePair {
    source: Source,
    is_pipe: bool,
    peer: OwnedFd,
}

/// Creates up to `count` pairs, within the limit on open files; every eighth is a pipe.
fn pairs(cx: &TestContext, count: usize) -> Vec<SourcePair> {
    let count = many_files::fd_budget(cx, 2 * count) / 2;
    let pair = |at: usize| match at % 8 {
        0 => {
            let (source, peer) = pipe();
            SourcePair { source: Arc::new(source), is_pipe: true, peer }
        }
        _ => {
            let (source, peer) = stream();
            SourcePair { source, is_pipe: false, peer: peer.into() }
        }
    };
    (0..count).map(pair).collect()
}

/// Size of a buffer: small allocations are reused by the allocator at once.
const SIZE: usize = 96;
const DROPS: usize = 1000;
const HOUR: Duration = Duration::from_secs(3600);
/// Count of sources. Each drop finds one operation in flight and one queued on each, and timeouts.
const SOURCES: usize = 500;
/// All peers write after one in this many drops, and a few peers after each other drop.
const FULL_ROUND: usize = 100;

fn register(poller: &mut dyn Poller, source: Source) -> Key {
    let key = poller.register(source, Token(0), Interest::empty(), Mode::Edge);
    key.unwrap_or_else(|error| panic!("register: {error}"))
}

/// Sources shared by all rounds.
struct Workload {
    pairs: Vec<SourcePair>,
    listeners: Vec<Arc<TcpListener>>,
    /// The backlog is full: connections to it are not made.
    full_listener: (OwnedFd, SocketAddr, TcpStream),
}

impl Workload {
    /// Submits operations of all kinds, none of which can complete; returns their count.
    fn load(&self, poller: &mut dyn Poller) -> usize {
        let mut count = 0;
        let mut submit = |poller: &mut dyn Poller, op| {
            let submitted = poller.submit(op, Token(0));
            submitted.unwrap_or_else(|rejected| panic!("submit: {rejected}"));
            count += 1;
        };
        for (at, pair) in self.pairs.iter().enumerate() {
            let key = register(poller, pair.source.clone());
            let buffer = || Vec::with_capacity(SIZE);
            let receive = |is_exact| match (pair.is_pipe, is_exact) {
                (true, _) => Op::read(key, buffer(), SIZE),
                (false, false) => Op::recv(key, buffer(), SIZE),
                (false, true) => Op::recv_exact(key, buffer(), SIZE),
            };
            submit(poller, receive(at % 3 == 0));
            submit(poller, receive(at % 5 == 0).deadline(HOUR));
            if at % 2 == 0 {
                submit(poller, Op::timeout(HOUR));
            }
        }
        for listener in &self.listeners {
            let key = register(poller, listener.clone());
            submit(poller, Op::accept(key));
        }
        for _ in 0..3 {
            let key = register(poller, unconnected());
            submit(poller, Op::connect(key, self.full_listener.1));
        }
        count
    }
}

/// Fails unless data sent now can be read from the sources, complete and once.
fn expect_unread(pairs: &[SourcePair], round: usize) {
    let mark = [round as u8; 3];
    for pair in pairs {
        assert_eq!(write(&pair.peer, &mark), Ok(3), "the peer can write");
    }
    for pair in pairs {
        let mut bytes = [0; SIZE];
        let count = read(&pair.source, &mut bytes);
        assert_eq!((count, &bytes[..3]), (Ok(3), &mark[..]), "received after drop {round}");
        assert_eq!(
            read(&pair.source, &mut bytes),
            Err(Errno::EAGAIN),
            "more data after drop {round}"
        );
    }
}

/// Fills the freed memory of the buffers with a pattern, lets all peers write, and checks the
/// pattern.
fn expect_untouched(pairs: &[SourcePair], round: usize) {
    const PATTERN: u8 = 0xa5;
    let canaries: Vec<Vec<u8>> = (0..2 * SOURCES).map(|_| vec![PATTERN; SIZE]).collect();
    expect_unread(pairs, round);
    let touched =
        canaries.iter().filter(|canary| canary.iter().any(|&byte| byte != PATTERN)).count();
    assert_eq!(touched, 0, "freed memory was written after drop {round}");
}

pub(super) fn d1_thousand_drops_with_operations_in_flight(cx: &TestContext) {
    drop(cx.poller());
    let before = open_fds();
    let pairs = pairs(cx, SOURCES);
    let listen = |_| {
        let made = TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
        let made = made.unwrap_or_else(|error| panic!("bind: {error}"));
        made.set_nonblocking(true).unwrap_or_else(|error| panic!("O_NONBLOCK: {error}"));
        Arc::new(made)
    };
    let listeners = (0..20).map(listen).collect();
    let workload = Workload { pairs, listeners, full_listener: full_listener() };
    let Workload { pairs, listeners, .. } = &workload;
    let with_files = open_fds();
    for round in cx.rounds(DROPS, 2 * FULL_ROUND) {
        let mut harness = cx.harness(16);
        let count = workload.load(&mut *harness.poller);
        let (last, last_peer) = stream();
        let key = register(&mut *harness.poller, last.clone());
        let submitted = harness.poller.submit(Op::recv(key, Vec::new(), SIZE), Token(0));
        submitted.unwrap_or_else(|rejected| panic!("submit: {rejected}"));
        // In some rounds the operations never reach the kernel.
        if round % 4 > 0 {
            harness.wait(Some(ZERO));
        }
        assert_eq!(harness.events.completed(), 0, "one of {count} operations completed");
        drop(harness);
        // As long as the kernel holds the file it may still read into a buffer.
        drop(last);
        let ended = oracle(&last_peer, PollFlags::POLLIN).contains(PollFlags::POLLHUP);
        assert!(ended, "the kernel still holds a file after drop {round}");
        match round % FULL_ROUND {
            0 => expect_untouched(pairs, round),
            turn => {
                let few = pairs.chunks(pairs.len().div_ceil(FULL_ROUND)).nth(turn);
                expect_unread(few.unwrap_or_default(), round);
            }
        }
    }
    assert_eq!(open_fds(), with_files, "a descriptor was left open");
    assert_eq!(leaked_buffers(), 0, "a buffer was leaked");
    for listener in listeners {
        let address = listener.local_addr().unwrap_or_else(|e| panic!("getsockname: {e}"));
        let client = TcpStream::connect(address).unwrap_or_else(|e| panic!("connect: {e}"));
        assert!(listener.accept().is_ok(), "a dropped poller accepted the connection");
        drop(client);
    }
    for pair in workload.pairs {
        assert_eq!(Arc::strong_count(&pair.source), 1, "a poller still holds the source");
        drop(pair.source);
        let ended = write(&pair.peer, b"x");
        assert_eq!(ended, Err(Errno::EPIPE), "the kernel still holds the source");
    }
    drop((workload.listeners, workload.full_listener));
    assert_eq!(open_fds(), before, "a descriptor was left open");
}

/// Size of one read, large enough to keep the disk busy for a while.
const FILE: usize = 32 << 20;
const PAGE: usize = 4096;

/// Opens a file for direct I/O. `None` if the file system does not support it.
fn direct_file(directory: &TempDir) -> Option<OwnedFd> {
    let path = directory.0.join("file");
    std::fs::write(&path, vec![0x5a; FILE]).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECT | OFlag::O_CLOEXEC;
    open(&path, flags, Permissions::empty()).ok()
}

/// Returns a buffer whose spare capacity is page-aligned, as direct I/O requires.
fn aligned_buffer() -> Vec<u8> {
    let mut buffer: Vec<u8> = Vec::with_capacity(FILE + 2 * PAGE);
    let gap = buffer.as_ptr().align_offset(PAGE);
    buffer.resize(gap, 0);
    buffer
}

pub(super) fn d1_poller_drop_waits_for_direct_read(cx: &TestContext) {
    const PATTERN: u8 = 0xa5;
    let directory = TempDir::new();
    let Some(file) = direct_file(&directory) else {
        cx.skip("the temporary directory is on a file system without O_DIRECT")
    };
    let file = Arc::new(file);
    let fd = file.as_raw_fd();
    for round in 0..4 {
        let mut harness = cx.harness(16);
        let key = register(&mut *harness.poller, file.clone());
        let submitted = harness.poller.submit(Op::read(key, aligned_buffer(), FILE), Token(0));
        submitted.unwrap_or_else(|rejected| panic!("submit: {rejected}"));
        harness.wait(Some(ZERO));
        let is_done = harness.events.completed() > 0;
        if round % 2 == 1 {
            harness.deregister(key);
        }
        let ReadinessHarness { poller, events } = harness;
        drop(poller);
        assert_eq!(Arc::strong_count(&file), 1, "the poller still holds file {fd}");
        drop(events);
        // The allocator reuses the same memory.
        let canary = vec![PATTERN; FILE + 2 * PAGE];
        let started = Instant::now();
        while started.elapsed() < Duration::from_millis(20) {
            std::thread::yield_now();
        }
        let touched = canary.chunks(PAGE).filter(|&page| *page != [PATTERN; PAGE][..page.len()]);
        let touched = touched.count();
        assert_eq!(touched, 0, "round {round}, done: {is_done}: pages were written");
        nix::unistd::lseek(&*file, 0, nix::unistd::Whence::SeekSet)
            .unwrap_or_else(|error| panic!("lseek: {error}"));
    }
    assert_eq!(leaked_buffers(), 0, "a buffer was leaked");
}
