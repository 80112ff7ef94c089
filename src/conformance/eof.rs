//! Clause C2 for resets, refusals and shutdowns: a waiting operation gets the result of the
//! blocking system call.

use super::op_harness::*;
use super::scenarios::new_socket;
use super::util::*;
use crate::event::{Interest, Mode, Token};
use crate::key::Key;
use crate::op::{Completion, Op, OpId, Outcome};
use crate::poller::Source;
use crate::sys::pool::BufferPool;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::PollFlags;
use nix::sys::eventfd::EventFd;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, shutdown, socketpair};
use std::io::ErrorKind;
use std::net::{Shutdown, TcpListener, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::time::Instant;

/// The kernel reports a reset once. If the send consumed it, the receive would report end of stream
/// and the data would look complete.
pub(super) fn c2_reset_is_not_reported_as_eof(cx: &TestContext) {
    // The order of submission. 3 is a send submitted after the reset.
    for order in [[1, 2], [2, 1], [1, 3]] {
        let (local, peer) = tcp();
        let mut ops = OpHarness::new(cx);
        let key = ops.add(local.clone());
        let submit = |ops: &mut OpHarness, what: usize| {
            let op = match what {
                1 => Op::recv(key, Vec::new(), 8),
                _ => Op::send_all(key, vec![0; 1 << 24], ..),
            };
            ops.submit(op, what);
        };
        submit(&mut ops, order[0]);
        if order[1] != 3 {
            submit(&mut ops, order[1]);
        }
        ops.expect_nothing_yet("nothing was sent and the buffer is full");
        if order[1] == 3 {
            // Unread data at the peer makes its close a reset.
            assert_eq!(nix::unistd::write(&*local, b"x"), Ok(1));
            wait_until_kernel(&peer, PollFlags::POLLIN, |bits| bits.contains(PollFlags::POLLIN));
        }
        drop(peer);
        if order[1] == 3 {
            wait_until_kernel(&*local, PollFlags::POLLIN, |bits| bits.contains(PollFlags::POLLHUP));
            submit(&mut ops, 3);
        }
        let mut done = ops.collect(2);
        done.sort_by_key(|done| done.token);
        assert_eq!(errno(&done[0]), libc::ECONNRESET, "the receive, {order:?}");
        let of_writer = errno(&done[1]);
        let is_right = [libc::EPIPE, libc::ECONNRESET].contains(&of_writer);
        assert!(is_right, "the send, {order:?}: {of_writer}");
    }
}

/// A receive queued before the connection is made must not consume its error.
pub(super) fn c2_connect_gets_error_before_queued_receive(cx: &TestContext) {
    let closed = ok(ok(TcpListener::bind("127.0.0.1:0")).local_addr());
    for receives in [false, true] {
        let mut ops = OpHarness::new(cx);
        let key = ops.add(Arc::new(new_socket(AddressFamily::Inet, SockType::Stream)));
        ops.submit(Op::connect(key, closed), 1);
        if receives {
            ops.submit(Op::recv(key, Vec::new(), 8), 2);
        }
        let done = ops.collect(1 + usize::from(receives));
        let refused = done.iter().find(|done| done.token == Token(1)).map(errno);
        assert_eq!(refused, Some(libc::ECONNREFUSED), "with a receive: {receives}");
    }
}

/// The count of receive operations.
const RECEIVE_KINDS: usize = 6;

/// Submits one of the receive operations; the token is its index.
fn submit_receive(ops: &mut OpHarness, which: usize, key: Key, pool: &BufferPool) -> OpId {
    let buf = Vec::new();
    let op = match which {
        0 => Op::recv(key, buf, 8),
        1 => Op::recv_exact(key, buf, 5),
        2 => Op::recv_from(key, buf, 8),
        3 => Op::recv_msg(key, buf, 8),
        4 => Op::read(key, buf, 8),
        _ => return ops.submit_multishot(Op::recv_multi(key, pool), which),
    };
    ops.submit(op, which)
}

/// Returns true if a receive ended without a datagram, and false if it received `datagram`.
fn has_ended(done: &Completion, datagram: &[u8]) -> bool {
    let is_end = done.transferred == 0;
    let sender = match &done.result {
        Ok(Outcome::Received { from }) => Some(from),
        Ok(Outcome::Message(message)) => Some(&message.from),
        _ => None,
    };
    if let Some(sender) = sender {
        assert_eq!(sender.is_none(), is_end, "only a datagram has a sender: {done:?}");
    }
    match &done.result {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), ErrorKind::UnexpectedEof, "{done:?}"),
    }
    assert!(is_end || done.buf[..] == *datagram, "another datagram: {done:?}");
    is_end
}

/// How reading is shut down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Operation,
    /// The program's own shutdown(2).
    Call,
    /// The program's own shutdown(2), while the poller never sleeps.
    CallOfBusyProgram,
}

/// Collects completions; for a busy program, among others that complete at once.
fn collect(ops: &mut OpHarness, count: usize, by: By) -> Vec<Completion> {
    const BUSY: Token = Token(99);
    if by != By::CallOfBusyProgram {
        return ops.collect(count);
    }
    let (started, mut collected) = (Instant::now(), Vec::new());
    while collected.len() < count {
        let have = collected.len();
        assert!(started.elapsed() < LONG, "{have} of {count} completed among others");
        ops.submit(Op::nop(), BUSY.0);
        collected.extend(ops.collect(1).into_iter().filter(|done| done.token != BUSY));
    }
    collected
}

/// Shutting down reading ends a blocking receive. A non-blocking receive of a datagram socket
/// returns EAGAIN instead.
pub(super) fn c2_shutdown_operation_ends_receives(cx: &TestContext) {
    shut_down_receives(cx, By::Operation);
}

/// The kernel sends no SIGIO for a shutdown.
pub(super) fn c2_shutdown_by_call_ends_receives(cx: &TestContext) {
    shut_down_receives(cx, By::Call);
    shut_down_receives(cx, By::CallOfBusyProgram);
}

/// `F_SETFL` clears the flags that the poller has set (SIGIO: `O_ASYNC`); data that arrives later
/// must still be received.
pub(super) fn c2_receive_completes_after_f_setfl(cx: &TestContext) {
    for flags in [OFlag::empty(), OFlag::O_NONBLOCK] {
        let (local, peer) = stream();
        let mut ops = OpHarness::new(cx);
        let key = ops.add(local.clone());
        for round in 0..2 {
            ops.submit(Op::recv(key, Vec::new(), 4), round);
            ops.expect_nothing_yet("nothing was sent");
            ok(fcntl(&*local, FcntlArg::F_SETFL(flags)));
            put(&peer, b"data");
            assert_eq!(bytes(ops.next()), (4, b"data".to_vec()), "{flags:?}, round {round}");
        }
    }
}

fn shut_down_receives(cx: &TestContext, by: By) {
    let (a, b) = (ok(UdpSocket::bind("127.0.0.1:0")), ok(UdpSocket::bind("127.0.0.1:0")));
    ok(a.connect(ok(b.local_addr())));
    let pair = |kind| ok(socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_CLOEXEC));
    let [stream, datagram, sequence] =
        [SockType::Stream, SockType::Datagram, SockType::SeqPacket].map(pair);
    let (tcp, _peer) = tcp();
    let pairs = [stream.0, datagram.0, sequence.0].map(|socket| Arc::new(socket) as Source);
    let sources = [Arc::new(a) as Source, tcp].into_iter().chain(pairs);
    for (at, source) in sources.enumerate() {
        let (mut ops, pool) = (OpHarness::new(cx), ok(BufferPool::new(8, 2)));
        let fd = source.as_fd().as_raw_fd();
        let key = ops.add(source);
        // In the second round the kernel already polls the socket.
        for round in 0..2 {
            for which in 0..RECEIVE_KINDS {
                submit_receive(&mut ops, which, key, &pool);
            }
            if round == 0 {
                ops.expect_nothing_yet("nothing was sent");
                match by {
                    By::Operation => {
                        let done = ops.submit(Op::shutdown(key, Shutdown::Read), RECEIVE_KINDS);
                        assert_eq!(ops.next().id, done, "the shutdown completes at once");
                    }
                    _ => ok(shutdown(fd, nix::sys::socket::Shutdown::Read)),
                }
            }
            for (which, done) in collect(&mut ops, RECEIVE_KINDS, by).iter().enumerate() {
                assert_eq!(done.token, Token(which), "file {at}, round {round}: in order");
                assert!(has_ended(done, b""), "file {at}, round {round}: {done:?}");
            }
        }
    }
}

/// A UDP socket receives datagrams after reading is shut down; without a peer shutdown(2) fails but
/// ends receives. A waiting receive ends, or returns a datagram that arrives before it ends. A
/// datagram it did not receive stays queued.
pub(super) fn c2_shutdown_read_keeps_later_datagrams(cx: &TestContext) {
    let sockets = [("127.0.0.1:0", true), ("127.0.0.1:0", false), ("[::1]:0", true)];
    for (which, (address, has_peer)) in
        (0..RECEIVE_KINDS).flat_map(|which| sockets.map(|socket| (which, socket)))
    {
        for ends_before in [true, false] {
            let (local, peer) = (ok(UdpSocket::bind(address)), ok(UdpSocket::bind(address)));
            ok(peer.connect(ok(local.local_addr())));
            if has_peer {
                ok(local.connect(ok(peer.local_addr())));
            }
            let (mut ops, pool) = (OpHarness::new(cx), ok(BufferPool::new(8, 2)));
            let key = ops.add(Arc::new(local));
            submit_receive(&mut ops, which, key, &pool);
            ops.expect_nothing_yet("nothing was sent");
            let shutdown = ops.run(Op::shutdown(key, Shutdown::Read));
            assert_eq!(shutdown.result.is_ok(), has_peer, "{shutdown:?}");
            let early = ends_before.then(|| ops.next());
            ok(peer.send(b"later"));
            let mut done = early.unwrap_or_else(|| ops.next());
            let is_received = !has_ended(&done, b"later");
            assert!(!(is_received && ends_before), "nothing was sent: {done:?}");
            if done.more {
                done = ops.next();
                assert!(has_ended(&done, b""), "the last result: {done:?}");
            }
            assert_eq!((done.token, done.more), (Token(which), false));
            let mut next = || bytes(ops.run(Op::recv(key, Vec::new(), 8)));
            if !is_received {
                assert_eq!(next(), (5, b"later".to_vec()), "receive {which}, {address}");
            }
            assert_eq!(next().0, 0, "receive {which}, {address}: no datagram is left");
        }
    }
}

pub(super) fn c2_listener_shutdown_operation_ends_accepts(cx: &TestContext) {
    shut_down_listeners(cx, By::Operation);
}

/// The kernel sends no SIGIO for a shutdown.
pub(super) fn c2_listener_shut_down_by_call_ends_accepts(cx: &TestContext) {
    shut_down_listeners(cx, By::Call);
    shut_down_listeners(cx, By::CallOfBusyProgram);
}

fn shut_down_listeners(cx: &TestContext, by: By) {
    for is_multi in [false, true] {
        let directory = TempDir::new();
        let unix = ok(UnixListener::bind(directory.0.join("listener")));
        let tcp = ok(TcpListener::bind("127.0.0.1:0"));
        for (at, source) in [Arc::new(unix) as Source, Arc::new(tcp)].into_iter().enumerate() {
            let mut ops = OpHarness::new(cx);
            let fd = source.as_fd().as_raw_fd();
            let key = ops.add(source);
            for token in 0..2 {
                if is_multi {
                    ops.submit_multishot(Op::accept_multi(key), token)
                } else {
                    ops.submit(Op::accept(key), token)
                };
            }
            ops.expect_nothing_yet("no connection is pending");
            match by {
                By::Operation => {
                    ops.submit(Op::shutdown(key, Shutdown::Both), 2);
                }
                _ => ok(shutdown(fd, nix::sys::socket::Shutdown::Both)),
            }
            let count = 2 + usize::from(by == By::Operation);
            for done in collect(&mut ops, count, by).iter().filter(|done| done.token != Token(2)) {
                assert_eq!(errno(done), libc::EINVAL, "file {at}, multi: {is_multi}");
            }
        }
    }
}

/// A receive that polls in the kernel must not consume the report of a lone urgent byte.
pub(super) fn l1_urgent_data_is_reported_with_receive_queued(cx: &TestContext) {
    for watches_first in [true, false] {
        let (local, peer) = tcp();
        let mut ops = OpHarness::new(cx);
        let interest = if watches_first { Interest::PRIORITY } else { Interest::empty() };
        let key = ops.harness.register(local.clone(), 7, interest, Mode::Level);
        ops.submit(Op::recv(key, Vec::new(), 8), 1);
        ops.expect_nothing_yet("nothing was sent");
        ops.harness.modify(key, 7, Interest::PRIORITY, Mode::Level);
        put_urgent(&peer);
        wait_until_kernel(&*local, PollFlags::POLLPRI, |bits| bits.contains(PollFlags::POLLPRI));
        for _ in 0..2 {
            ops.wait(LONG);
            let tokens: Vec<_> = ops.harness.events.iter().map(|event| event.token).collect();
            assert_eq!(tokens, [Token(7)], "reported until it is read");
        }
        assert_eq!(nix::unistd::write(&peer, b"news"), Ok(4));
        assert_eq!(bytes(ops.next()), (4, b"news".to_vec()), "the receive completes");
    }
}

/// A write of zero bytes differs between kinds of files.
pub(super) fn c2_empty_write_matches_system_call(cx: &TestContext) {
    let (_reader, writer) = pipe();
    let full = ok(std::fs::File::options().write(true).open("/dev/full"));
    let counter = ok(EventFd::new());
    let sources: [Source; 3] = [Arc::new(writer), Arc::new(full), Arc::new(counter)];
    for source in sources {
        let mut ops = OpHarness::new(cx);
        let expected = nix::unistd::write(&*source, &[]);
        let key = ops.add(source);
        let done = ops.run(Op::write(key, Vec::new(), ..));
        match expected {
            Ok(count) => assert_eq!(bytes(done).0, count),
            Err(error) => assert_eq!(errno(&done), error as i32),
        }
    }
}
