//! Clauses P2, P3 and C2 for descriptor numbers: when 0 to 2 are free, and when the poller's own
//! were replaced. Every case has a process of its own.

use super::messages::{message_parts, with_files};
use super::op_harness::*;
use super::opens::opened;
use super::util::*;
use crate::event::{Mode, Readiness};
use crate::key::Key;
use crate::op::{Op, OpenOptions, Outcome};
use crate::sys::staging::{Thread, duplicate_onto};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::{close, dup2_stderr, dup2_stdin, dup2_stdout};
use std::fs::File;
use std::io::{stderr, stdin, stdout};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, IntoRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::sync::Arc;

/// Closes standard input, output and error until dropped.
struct ClosedStdio([OwnedFd; 3]);

impl ClosedStdio {
    fn new() -> Self {
        let (input, output, error) = (stdin(), stdout(), stderr());
        let files = [input.as_fd(), output.as_fd(), error.as_fd()];
        let files = files.map(|file| ok(file.try_clone_to_owned()));
        (0..3).for_each(|fd| ok(close(fd)));
        ClosedStdio(files)
    }

    /// Opens `file` as 0, 1 and 2, replacing what is open there, as a daemon does.
    fn replace(&self, file: impl AsFd) {
        put_at_stdio([&file; 3]);
    }
}

impl Drop for ClosedStdio {
    fn drop(&mut self) {
        put_at_stdio(self.0.each_ref());
    }
}

fn put_at_stdio(files: [&impl AsFd; 3]) {
    ok(dup2_stdin(files[0]));
    ok(dup2_stdout(files[1]));
    ok(dup2_stderr(files[2]));
}

/// Returns the open descriptors below 3.
fn stdio_fds() -> Vec<RawFd> {
    open_fds().into_iter().filter(|&fd| fd < 3).collect()
}

/// Uses readiness, a wake of a sleeping wait, and operations on a socket, on a cached file and on
/// one opened by a thread.
fn work(ops: &mut OpHarness, key: Key, mode: Mode, cached: &Path) {
    ops.harness.modify(key, 1, READ, mode);
    ops.harness.expect_now(&[(1, Readiness::READABLE)], "a byte");
    // A one-shot source that was reported is silent, so the poller sleeps.
    ops.harness.modify(key, 1, READ, Mode::OneShot);
    ops.harness.expect_now(&[(1, Readiness::READABLE)], "unread data");
    let (waker, waiter) = (ops.harness.poller.waker(), Thread::current().id());
    let thread = std::thread::spawn(move || {
        wait_until_asleep(waiter);
        waker.wake();
    });
    ops.harness.wait(None);
    assert!(ops.harness.events.woken(), "the wake must end the wait");
    thread.join().unwrap_or_else(|_| panic!("the waking thread failed"));

    let (local, peer) = stream();
    let local = ops.add(local);
    ops.submit(Op::recv(local, vec![], 4), 2);
    ops.expect_nothing_yet("nothing was sent");
    put(&peer, b"abcd");
    assert_eq!(bytes(ops.next()).1, b"abcd");
    ops.harness.deregister(local);
    let read = OpenOptions::new().read(true).clone();
    for path in [cached, "/proc/version".as_ref()] {
        let file = opened(ops.run(Op::open(path, &read)));
        let file = ops.add(Arc::new(file.unwrap_or_else(|errno| panic!("open: {errno}"))));
        assert!(bytes(ops.run(Op::read(file, vec![], 4))).0 > 0, "{}", path.display());
        ops.harness.deregister(file);
    }
}

pub(super) fn p2_own_descriptors_leave_stdio_free(cx: &TestContext) {
    let directory = TempDir::new();
    let cached = directory.0.join("cached");
    ok(std::fs::write(&cached, "content"));
    let null = ok(File::open("/dev/null"));
    for mode in MODES {
        // The descriptors of the case have higher numbers too.
        let (local, peer) = stream();
        let stdio = ClosedStdio::new();
        let mut ops = OpHarness::new(cx);
        let key = ops.harness.register(local, 1, READ, mode);
        put(&peer, b"x");
        work(&mut ops, key, mode, &cached);
        assert_eq!(stdio_fds(), [], "the poller uses a standard descriptor, {mode:?}");
        stdio.replace(&null);
        work(&mut ops, key, mode, &cached);
        drop(ops);
        assert_eq!(stdio_fds(), [0, 1, 2], "the poller closed a standard descriptor");
    }
}

pub(super) fn c2_new_fds_are_the_lowest_free(cx: &TestContext) {
    let directory = TempDir::new();
    let cached = directory.0.join("cached");
    ok(std::fs::write(&cached, "content"));
    let listener = ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
    let address = ok(listener.local_addr());
    let (local, peer) = stream();
    let passed = [Arc::new(ok(File::open(&cached)))];
    let read = OpenOptions::new().read(true).clone();
    let mut ops = OpHarness::new(cx);
    let [listener, receiver] = [ops.add(Arc::new(listener)), ops.add(local)];
    let sender = ops.add(Arc::new(peer));
    let _client = ok(TcpStream::connect(address));
    bytes(ops.run(Op::send_msg(sender, "x", .., with_files(&passed))));
    // The poller's lazily created descriptors exist from now on.
    ok(opened(ops.run(Op::open(&cached, &read))));
    let stdio = ClosedStdio::new();
    let mut given: Vec<(&str, OwnedFd)> = Vec::new();
    given.push(("cached", ok(opened(ops.run(Op::open(&cached, &read))))));
    let accepted = ops.run(Op::accept(listener)).result;
    let Ok(Outcome::Accepted { socket, .. }) = accepted else { panic!("{accepted:?}") };
    given.push(("accepted", socket));
    let mut message = message_parts(ops.run(Op::recv_msg(receiver, vec![], 9)));
    given.push(("passed", message.files.remove(0)));
    let fds = |given: &[(&str, OwnedFd)]| given.iter().map(|file| file.1.as_raw_fd()).collect();
    let first: Vec<RawFd> = fds(&given);
    given.clear();
    given.push(("on a thread", ok(opened(ops.run(Op::open("/proc/version", &read))))));
    let second: Vec<RawFd> = fds(&given);
    given.clear();
    drop(stdio);
    assert_eq!((first, second), (vec![0, 1, 2], vec![0]), "the lowest free descriptors");
}

pub(super) fn p3_replaced_descriptors_end_no_process(cx: &TestContext) {
    // The first file is read without end, and the second blocks.
    let (empty, _writer) = pipe();
    ok(fcntl(&empty, FcntlArg::F_SETFL(OFlag::empty())));
    for file in [OwnedFd::from(ok(File::open("/dev/zero"))), empty] {
        let pairs: Vec<_> = (0..4).map(|_| stream()).collect();
        let before = open_fds();
        let mut ops = OpHarness::new(cx);
        for (local, peer) in &pairs[..3] {
            ops.harness.register(local.clone(), 1, READ, Mode::Edge);
            put(peer, b"x");
        }
        let key = ops.add(pairs[3].0.clone());
        ops.submit(Op::recv(key, vec![], 4), 2);
        ops.wait(ZERO);
        // On SIGIO these signals are pending when the poller is dropped.
        pairs.iter().for_each(|(_, peer)| put(peer, b"y"));
        for fd in open_fds().into_iter().filter(|fd| !before.contains(fd)) {
            // The poller closes the descriptor.
            _ = ok(duplicate_onto(file.as_fd(), fd)).into_raw_fd();
        }
        drop(ops);
        pairs.iter().for_each(|(_, peer)| put(peer, b"z"));
    }
}
