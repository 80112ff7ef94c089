//! Clause P3, and P5 for the signal queue. Every case has a process of its own.

use super::util::*;
use crate::backend::Backend;
use crate::event::{Mode, Readiness};
use crate::poller::Source;
use crate::sys::staging::{self, Signalling, Thread};
use crate::unblock_in_child;
use nix::sys::eventfd::EventFd;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::SigSet;
use std::net::UdpSocket;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::Arc;

/// Returns the signals that this thread blocks: bit `n - 1` for signal `n`.
fn blocked() -> u64 {
    let status = std::fs::read_to_string("/proc/thread-self/status");
    blocked_in(&status.unwrap_or_else(|error| panic!("/proc/thread-self/status: {error}")))
}

fn blocked_in(status: &str) -> u64 {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigBlk:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.unwrap_or_else(|| panic!("no mask of blocked signals in {status:?}"))
}

/// Returns a poller with a readable stream, so that a SIGIO backend has a signal queued, and the
/// peer.
fn ready_harness(cx: &TestContext) -> (ReadinessHarness, UnixStream) {
    let mut harness = cx.harness(4);
    let (local, peer) = stream();
    harness.register(local, 1, READ, Mode::Edge);
    put(&peer, b"x");
    (harness, peer)
}

pub(super) fn p3_signal_mask_is_restored(cx: &TestContext) {
    let untouched = blocked();
    let mut sigio = SigSet::empty();
    sigio.add(nix::sys::signal::Signal::SIGIO);
    for all_blocked in [SigSet::empty(), sigio, SigSet::all()] {
        all_blocked.thread_block().unwrap_or_else(|error| panic!("sigmask: {error}"));
        let before = blocked();
        for last_first in [false, true] {
            let mut harnesses: Vec<_> = (0..3).map(|_| ready_harness(cx)).collect();
            while !harnesses.is_empty() {
                drop(harnesses.remove(if last_first { harnesses.len() - 1 } else { 0 }));
                for (harness, _) in &mut harnesses {
                    harness
                        .expect_now(&[(1, Readiness::READABLE)], "the other pollers still report");
                    let key = harness.events.iter().next().map(|event| event.key);
                    key.into_iter().for_each(|key| harness.rearm(key, READ));
                }
            }
            assert_eq!(blocked(), before, "with {all_blocked:?} blocked before");
        }
        all_blocked.thread_unblock().unwrap_or_else(|error| panic!("sigmask: {error}"));
    }
    assert_eq!(blocked(), untouched);
}

/// Returns files with and without SIGIO support, and what must stay open for each.
fn files() -> Vec<(&'static str, Source, Box<dyn std::any::Any>)> {
    let ((reader, writer), (local, peer), (tcp_local, tcp_peer)) = (pipe(), stream(), tcp());
    let counter = EventFd::new().unwrap_or_else(|error| panic!("eventfd: {error}"));
    let datagrams = UdpSocket::bind("127.0.0.1:0").unwrap_or_else(|error| panic!("{error}"));
    vec![
        ("pipe", Arc::new(reader), Box::new(writer)),
        ("unix stream", local, Box::new(peer)),
        ("TCP", tcp_local, Box::new(tcp_peer)),
        ("UDP", Arc::new(datagrams), Box::new(())),
        ("eventfd", Arc::new(counter), Box::new(())),
    ]
}

pub(super) fn p3_async_flags_and_owner_are_restored(cx: &TestContext) {
    for mode in MODES {
        for (name, source, _peer) in &files() {
            let before = Signalling::of((**source).as_fd());
            let mut harness = cx.harness(4);
            let key = harness.register(source.clone(), 1, BOTH, mode);
            harness.ready_now();
            harness.modify(key, 1, READ, mode);
            harness.ready_now();
            harness.deregister(key);
            assert_eq!(Signalling::of((**source).as_fd()), before, "{name}, deregistered");
            harness.register(source.clone(), 1, READ, mode);
            let _ = harness.poller.wait(&mut harness.events, Some(ZERO));
            drop(harness);
            assert_eq!(Signalling::of((**source).as_fd()), before, "{name}, poller dropped");
        }
        // A file on which another owner has enabled signals is left unchanged.
        let (local, peer) = stream();
        staging::signal_this_process(local.as_fd(), libc::SIGURG);
        let before = Signalling::of(local.as_fd());
        let mut harness = cx.harness(4);
        let key = harness.register(local.clone(), 1, READ, mode);
        assert_eq!(Signalling::of(local.as_fd()), before, "registered, {mode:?}");
        put(&peer, b"x");
        harness.expect_now(&[(1, Readiness::READABLE)], "readiness is still reported");
        harness.deregister(key);
        assert_eq!(Signalling::of(local.as_fd()), before, "deregistered, {mode:?}");
    }
}

pub(super) fn p3_foreign_signals_cause_no_event(cx: &TestContext) {
    let before = blocked();
    for mode in MODES {
        let mut harness = cx.harness(4);
        let (local, peer) = stream();
        put(&peer, b"x");
        let key = harness.register(local.clone(), 1, READ, mode);
        harness.expect_now(&[(1, Readiness::READABLE)], "data is present");
        if mode == Mode::Level {
            drain(&*local);
        }
        let own = blocked() & !before;
        let real_time =
            || (libc::SIGRTMIN()..=libc::SIGRTMAX()).filter(|n| own >> (n - 1) & 1 == 1);
        for signal in real_time() {
            // The kernel puts the descriptor into `si_fd`.
            for _ in 0..300 {
                staging::queue_signal(Thread::current(), signal, local.as_raw_fd());
            }
        }
        harness.expect_silence("only foreign signals were sent");
        harness.deregister(key);
        // Signals still queued must not end the process either.
        for signal in real_time() {
            staging::queue_signal(Thread::current(), signal, local.as_raw_fd());
        }
    }
}

pub(super) fn p3_pollers_of_one_thread_report_own_sources(cx: &TestContext) {
    for mode in MODES {
        let mut harnesses: Vec<ReadinessHarness> = (0..3).map(|_| cx.harness(4)).collect();
        let pairs: Vec<_> = harnesses.iter().map(|_| stream()).collect();
        let register =
            |(harness, (local, _)): (&mut ReadinessHarness, &(Arc<UnixStream>, UnixStream))| {
                harness.register(local.clone(), 1, READ, mode)
            };
        let keys: Vec<_> = harnesses.iter_mut().zip(&pairs).map(register).collect();
        for round in 0..60 {
            // The first poller to wait reads the signals of all.
            let order = [0, 1, 2].map(|at| (at + round) % 3);
            let busy = if round % 2 == 0 { vec![0, 1, 2] } else { vec![round % 3] };
            busy.iter().for_each(|&at| put(&pairs[at].1, b"x"));
            for at in order {
                let due = [(1, Readiness::READABLE)];
                let due = if busy.contains(&at) { &due[..] } else { &[] };
                harnesses[at].expect_now(due, "each poller reports exactly its own source");
                drain(&*pairs[at].0);
                harnesses[at].drained(keys[at], READ);
                harnesses[at].rearm(keys[at], READ);
            }
        }
        // Dropping a poller loses no report of the others, even one that it has read for them.
        harnesses.iter_mut().for_each(|harness| harness.expect_silence("every stream is drained"));
        pairs.iter().for_each(|(_, peer)| put(peer, b"x"));
        while let Some(mut harness) = harnesses.pop() {
            harness.expect_now(&[(1, Readiness::READABLE)], "after other pollers were dropped");
        }
    }
}

pub(super) fn p3_commands_start_with_unblocked_signals(cx: &TestContext) {
    let before = blocked();
    let _harnesses = [ready_harness(cx), ready_harness(cx)];
    let check = |thread: &str| {
        let output = unblock_in_child(Command::new("cat").arg("/proc/self/status")).output();
        let output = output.unwrap_or_else(|error| panic!("cat: {error}"));
        let mask = blocked_in(&String::from_utf8_lossy(&output.stdout));
        assert_eq!(mask, before, "a command started by {thread}");
    };
    check("the poller's thread");
    std::thread::scope(|scope| {
        let child = scope.spawn(|| check("a thread that inherited its mask"));
        child.join().unwrap_or_else(|_| panic!("the check failed"));
    });
}

/// Lowers the limit of queued signals.
fn set_queue_limit(limit: u64) {
    let resource = Resource::RLIMIT_SIGPENDING;
    let (_, hard) = getrlimit(resource).unwrap_or_else(|error| panic!("getrlimit: {error}"));
    setrlimit(resource, limit, hard).unwrap_or_else(|error| panic!("setrlimit: {error}"));
}

pub(super) fn p5_pollers_of_one_thread_survive_overflow(cx: &TestContext) {
    for limit in [0, 1] {
        set_queue_limit(limit);
        for first in [0, 1] {
            let mut harnesses = [cx.harness(4), cx.harness(4)];
            let pairs = [stream(), stream()];
            for (harness, (local, _)) in harnesses.iter_mut().zip(&pairs) {
                harness.register(local.clone(), 1, READ, Mode::Edge);
                harness.expect_silence("nothing was sent");
            }
            for (_, peer) in pairs.iter().cycle().take(10) {
                put(peer, b"x");
            }
            for turn in [first, 1 - first] {
                harnesses[turn]
                    .expect_now(&[(1, Readiness::READABLE)], "each poller reports its own source");
            }
        }
    }
}

/// Bytes sent one by one.
const BYTES: usize = 100_000;

pub(super) fn p5_full_signal_queue_loses_no_event(cx: &TestContext) {
    set_queue_limit(20);
    for mode in MODES {
        let mut harness = cx.harness(16);
        let (sources, peers): (Vec<_>, Vec<_>) = (0..50).map(|_| stream()).unzip();
        for (token, source) in sources.iter().enumerate() {
            harness.register(source.clone(), token, READ, mode);
        }
        harness.expect_silence("nothing was sent");
        // More signals than the queue holds, while the poller does not read it.
        peers.iter().for_each(|peer| put(peer, b"x"));
        let writer = std::thread::spawn(move || {
            // A process-directed signal would be delivered to this thread and end the process.
            SigSet::all().thread_unblock().unwrap_or_else(|error| panic!("sigmask: {error}"));
            for peer in &peers {
                peer.set_nonblocking(false).unwrap_or_else(|error| panic!("{error}"));
            }
            peers.iter().cycle().take(BYTES).for_each(|peer| put(peer, b"x"));
            peers
        });
        let mut left = BYTES + sources.len();
        while left > 0 {
            harness.next("unread bytes");
            for event in harness.events.iter().copied().collect::<Vec<_>>() {
                left -= read_in_mode(mode, &mut harness, &sources[event.token.0], event.key);
            }
        }
        let _peers = writer.join().unwrap_or_else(|_| panic!("the writer failed"));
        harness.expect_silence("every byte was read");
        let overflows = harness.poller.statistics().overflows;
        let counts = harness.poller.backend() == Backend::Sigio;
        assert!(overflows > 0 || !counts, "no overflow was counted");
    }
}

/// Reads as the mode requires: edge mode until `WouldBlock`, the others once.
fn read_in_mode(
    mode: Mode,
    harness: &mut ReadinessHarness,
    source: &UnixStream,
    key: crate::key::Key,
) -> usize {
    let mut buffer = [0; 7];
    let mut total = 0;
    loop {
        match nix::unistd::read(source, &mut buffer) {
            Ok(count) => total += count,
            Err(nix::errno::Errno::EAGAIN) => break,
            Err(error) => panic!("read: {error}"),
        }
        if mode != Mode::Edge {
            break;
        }
    }
    match mode {
        Mode::Level => {}
        Mode::Edge => harness.drained(key, READ),
        Mode::OneShot => harness.rearm(key, READ),
    }
    total
}
