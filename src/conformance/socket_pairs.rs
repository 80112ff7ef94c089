//! Helpers for cases about multishot receives: connected sockets of all kinds, and their results.

use super::op_harness::*;
use super::util::*;
use crate::op::{Completion, Outcome};
use crate::poller::Source;
use crate::sys::pool::{BufferPool, PoolBuf};
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::socket::{self, AddressFamily, MsgFlags, SockFlag, SockType};
use std::net::UdpSocket;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;

/// A non-blocking socket to receive from, and its peer.
pub(super) struct SocketPair {
    pub(super) name: &'static str,
    pub(super) local: Source,
    pub(super) peer: OwnedFd,
}

impl SocketPair {
    fn new(name: &'static str, local: Source, peer: impl Into<OwnedFd>) -> Self {
        SocketPair { name, local, peer: peer.into() }
    }

    pub(super) fn unix() -> Self {
        let (local, peer) = stream();
        SocketPair::new("unix stream", local, peer)
    }

    pub(super) fn tcp() -> Self {
        let (local, peer) = tcp();
        SocketPair::new("TCP", local, peer)
    }

    fn udp() -> Self {
        let (local, peer) =
            (ok(UdpSocket::bind("127.0.0.1:0")), ok(UdpSocket::bind("127.0.0.1:0")));
        ok(local.connect(ok(peer.local_addr())));
        ok(peer.connect(ok(local.local_addr())));
        ok(local.set_nonblocking(true));
        ok(peer.set_nonblocking(true));
        SocketPair::new("UDP", Arc::new(local), peer)
    }

    fn pair(name: &'static str, kind: SockType) -> Self {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let (local, peer) = ok(socket::socketpair(AddressFamily::Unix, kind, None, flags));
        SocketPair::new(name, Arc::new(local), peer)
    }

    fn datagram() -> Self {
        SocketPair::pair("unix datagram", SockType::Datagram)
    }

    pub(super) fn sequence() -> Self {
        SocketPair::pair("unix seqpacket", SockType::SeqPacket)
    }

    /// Sends from the peer, which must have room for all of it.
    pub(super) fn send(&self, bytes: &[u8]) {
        let sent = socket::send(self.peer.as_raw_fd(), bytes, MsgFlags::MSG_NOSIGNAL);
        assert_eq!(sent, Ok(bytes.len()), "{}: the peer sends", self.name);
    }

    /// Reads `count` bytes that are left in the socket, or fewer at end of stream.
    pub(super) fn read_rest(&self, count: usize) -> Vec<u8> {
        let (mut left, mut buffer) = (Vec::new(), [0; 4096]);
        while left.len() < count {
            wait_until_kernel(&self.local, PollFlags::POLLIN, |bits| {
                bits.contains(PollFlags::POLLIN)
            });
            match ok(nix::unistd::read(&self.local, &mut buffer)) {
                0 => break,
                more => left.extend(&buffer[..more]),
            }
        }
        left
    }
}

/// Returns true if the peer has closed or shut down writing, even if data is left to receive.
pub(super) fn has_ended(of: impl AsFd) -> bool {
    let mut fds = [PollFd::new(of.as_fd(), PollFlags::from_bits_retain(libc::POLLRDHUP))];
    ok(nix::poll::poll(&mut fds, PollTimeout::ZERO)) > 0
}

pub(super) type MakePair = fn() -> SocketPair;

pub(super) const STREAMS: [MakePair; 2] = [SocketPair::unix, SocketPair::tcp];
pub(super) const PACKETS: [MakePair; 3] =
    [SocketPair::udp, SocketPair::datagram, SocketPair::sequence];
pub(super) const ALL: [MakePair; 5] = [
    SocketPair::unix,
    SocketPair::tcp,
    SocketPair::udp,
    SocketPair::datagram,
    SocketPair::sequence,
];

pub(super) fn new_pool(size: usize, limit: usize) -> BufferPool {
    ok(BufferPool::new(size, limit))
}

/// Takes all buffers of a pool.
pub(super) fn take_all(pool: &BufferPool) -> Vec<PoolBuf> {
    std::iter::from_fn(|| pool.take()).collect()
}

/// Returns the remaining results of the only operation in flight, and its last completion.
pub(super) fn collect_until_last(ops: &mut OpHarness) -> (Vec<Vec<u8>>, Completion) {
    let mut pieces = Vec::new();
    loop {
        let done = ops.next();
        if !done.more {
            return (pieces, done);
        }
        pieces.push(done.buf.to_vec());
    }
}

/// Returns `count` bytes from results that are not the last.
pub(super) fn collect_bytes(ops: &mut OpHarness, count: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while bytes.len() < count {
        let done = ops.next();
        assert!(done.more, "a last completion: {done:?}");
        bytes.extend(&*done.buf);
    }
    bytes
}

/// Fails unless the completion reports end of stream.
pub(super) fn expect_end(last: &Completion, why: &str) {
    let is_end = !last.more && matches!(last.result, Ok(Outcome::Done));
    assert!(is_end, "{why}: expected end of stream as one last Ok: {last:?}");
}

/// A byte of a long pattern in which loss and duplicates are detected.
pub(super) fn byte_at(position: usize) -> u8 {
    (position % 251) as u8
}

pub(super) fn bytes_from(position: usize, length: usize) -> Vec<u8> {
    (position..position + length).map(byte_at).collect()
}
