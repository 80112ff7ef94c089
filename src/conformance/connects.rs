//! Clause C2 for a connect whose socket the program changes while it waits: it is not repeated.

use super::cancels::{full_listener, unconnected};
use super::op_harness::*;
use super::scenarios;
use super::util::*;
use crate::op::Op;
use crate::sys::staging;
use nix::poll::PollFlags;
use nix::sys::socket::{Backlog, getsockopt, listen, shutdown, sockopt};
use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::{SocketAddr as UnixAddress, UnixListener, UnixStream};
use std::sync::Arc;

/// A change by the program to a connecting socket.
#[derive(Clone, Copy, Debug)]
enum Change {
    ShutDown,
    /// Shuts it down and reads `SO_ERROR`.
    ShutDownAndAsk,
    /// Aborts the attempt by connect(2) with `AF_UNSPEC`.
    Disconnect,
}

impl Change {
    fn make(self, socket: &Arc<OwnedFd>) {
        let stop = || ok(shutdown(socket.as_raw_fd(), nix::sys::socket::Shutdown::Both));
        match self {
            Change::ShutDown => stop(),
            Change::ShutDownAndAsk => {
                stop();
                assert_ne!(ok(getsockopt(socket, sockopt::SocketError)), 0, "SO_ERROR must be set");
            }
            Change::Disconnect => ok(staging::disconnect(socket.as_fd())),
        }
    }
}

/// Accepts until no connection is left; returns their count.
fn accept_all<T>(mut accept: impl FnMut() -> io::Result<T>) -> usize {
    let mut count = 0;
    loop {
        match accept() {
            Ok(_) => count += 1,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return count,
            Err(error) => panic!("accept: {error}"),
        }
    }
}

pub(super) fn c2_tcp_connect_changed_meanwhile_fails_without_peer(cx: &TestContext) {
    for change in [Change::ShutDown, Change::ShutDownAndAsk, Change::Disconnect] {
        let (listener, address, filling) = full_listener();
        let listener = TcpListener::from(listener);
        ok(listener.set_nonblocking(true));
        let socket = unconnected();
        let mut ops = OpHarness::new(cx);
        let key = ops.add(socket.clone());
        ops.submit(Op::connect(key, address), 1);
        ops.expect_nothing_yet("the backlog is full");
        change.make(&socket);
        let room = ok(listener.accept());
        let done = ops.next();
        assert!(done.result.is_err(), "{change:?}: the connect must fail: {done:?}");
        // This connection is queued after any that the socket has begun.
        let last = ok(TcpStream::connect(address));
        let mine = ok(last.local_addr());
        wait_until_kernel(&listener, PollFlags::POLLIN, |bits| bits.contains(PollFlags::POLLIN));
        let mut peers = Vec::new();
        accept_all(|| listener.accept().inspect(|(_, peer)| peers.push(*peer)));
        assert_eq!(peers, [mine], "{change:?}: the listener got a peer: {done:?}");
        ops.expect_all_done("one connect");
        drop((room, filling));
    }
}

pub(super) fn c2_unix_connect_shut_down_meanwhile_fails_without_peer(cx: &TestContext) {
    let directory = TempDir::new();
    let address = ok(UnixAddress::from_pathname(directory.0.join("listener")));
    let listener = ok(UnixListener::bind_addr(&address));
    ok(listen(&listener, ok(Backlog::new(0))));
    let _first = ok(UnixStream::connect_addr(&address));
    ok(listener.set_nonblocking(true));
    for how in [nix::sys::socket::Shutdown::Both, nix::sys::socket::Shutdown::Read] {
        let socket = Arc::new(scenarios::unconnected_unix_stream(false));
        let mut ops = OpHarness::new(cx);
        let key = ops.add(socket.clone());
        ops.submit(Op::connect(key, address.clone()), 1);
        ops.expect_nothing_yet("the backlog is full");
        ok(shutdown(socket.as_raw_fd(), how));
        let room = ok(listener.accept());
        let done = ops.next();
        assert!(done.result.is_err(), "{how:?}: the connect must fail: {done:?}");
        assert_eq!(accept_all(|| listener.accept()), 0, "{how:?}: the listener got a peer");
        ops.expect_all_done("one connect");
        drop(room);
        let _first = ok(UnixStream::connect_addr(&address));
    }
}

/// A shutdown before the connect does not end it, as with connect(2).
pub(super) fn c2_unix_socket_shut_down_before_connects(cx: &TestContext) {
    let directory = TempDir::new();
    let address = ok(UnixAddress::from_pathname(directory.0.join("listener")));
    let listener = ok(UnixListener::bind_addr(&address));
    ok(listen(&listener, ok(Backlog::new(0))));
    let _first = ok(UnixStream::connect_addr(&address));
    let socket = Arc::new(scenarios::unconnected_unix_stream(true));
    ok(shutdown(socket.as_raw_fd(), nix::sys::socket::Shutdown::Read));
    let mut ops = OpHarness::new(cx);
    let key = ops.add(socket);
    ops.submit(Op::connect(key, address), 1);
    ops.submit(Op::send_all(key, "hello", ..), 2);
    ops.expect_nothing_yet("the backlog is full");
    drop(ok(listener.accept()));
    let results: Vec<_> = ops.collect(2).into_iter().map(|done| bytes(done).0).collect();
    assert_eq!(results, [0, 5]);
    let (last, _) = ok(listener.accept());
    assert_eq!(take(&last, 9), 5);
}

/// A refused attempt leaves the socket unchanged, as with connect(2).
pub(super) fn c2_refused_socket_connects_again(cx: &TestContext) {
    let listener = ok(TcpListener::bind("127.0.0.1:0"));
    let address = ok(listener.local_addr());
    drop(listener);
    let mut ops = OpHarness::new(cx);
    let key = ops.add(unconnected());
    for _ in 0..2 {
        let done = ops.run(Op::connect(key, address));
        assert_eq!(errno(&done), libc::ECONNREFUSED);
    }
    let listener = ok(TcpListener::bind(address));
    let done = ops.run(Op::connect(key, address));
    assert!(done.result.is_ok(), "the port has a listener: {done:?}");
    let (_, peer) = ok(listener.accept());
    assert!(peer.ip().is_loopback());
}
