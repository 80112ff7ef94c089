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
pub(super) struct Line {
    pub(super) name: &'static str,
    pub(super) here: Source,
    pub(super) there: OwnedFd,
}

impl Line {
    fn new(name: &'static str, here: Source, there: impl Into<OwnedFd>) -> Self {
        Line { name, here, there: there.into() }
    }

    pub(super) fn unix() -> Self {
        let (here, there) = stream();
        Line::new("unix stream", here, there)
    }

    pub(super) fn tcp() -> Self {
        let (here, there) = tcp();
        Line::new("TCP", here, there)
    }

    fn udp() -> Self {
        let (here, there) =
            (ok(UdpSocket::bind("127.0.0.1:0")), ok(UdpSocket::bind("127.0.0.1:0")));
        ok(here.connect(ok(there.local_addr())));
        ok(there.connect(ok(here.local_addr())));
        ok(here.set_nonblocking(true));
        ok(there.set_nonblocking(true));
        Line::new("UDP", Arc::new(here), there)
    }

    fn pair(name: &'static str, kind: SockType) -> Self {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let (here, there) = ok(socket::socketpair(AddressFamily::Unix, kind, None, flags));
        Line::new(name, Arc::new(here), there)
    }

    fn datagram() -> Self {
        Line::pair("unix datagram", SockType::Datagram)
    }

    pub(super) fn sequence() -> Self {
        Line::pair("unix seqpacket", SockType::SeqPacket)
    }

    /// Sends from the peer, which must have room for all of it.
    pub(super) fn say(&self, bytes: &[u8]) {
        let sent = socket::send(self.there.as_raw_fd(), bytes, MsgFlags::MSG_NOSIGNAL);
        assert_eq!(sent, Ok(bytes.len()), "{}: the peer sends", self.name);
    }

    /// Reads `count` bytes that are left in the socket, or fewer at end of stream.
    pub(super) fn left(&self, count: usize) -> Vec<u8> {
        let (mut left, mut buffer) = (Vec::new(), [0; 4096]);
        while left.len() < count {
            wait_until_kernel(&self.here, PollFlags::POLLIN, |bits| {
                bits.contains(PollFlags::POLLIN)
            });
            match ok(nix::unistd::read(&self.here, &mut buffer)) {
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

pub(super) type Make = fn() -> Line;

pub(super) const STREAMS: [Make; 2] = [Line::unix, Line::tcp];
pub(super) const PACKETS: [Make; 3] = [Line::udp, Line::datagram, Line::sequence];
pub(super) const ALL: [Make; 5] =
    [Line::unix, Line::tcp, Line::udp, Line::datagram, Line::sequence];

pub(super) fn new_pool(size: usize, limit: usize) -> BufferPool {
    ok(BufferPool::new(size, limit))
}

/// Takes all buffers of a pool.
pub(super) fn take_all(pool: &BufferPool) -> Vec<PoolBuf> {
    std::iter::from_fn(|| pool.take()).collect()
}

/// Returns the remaining results of the only operation in flight, and its last completion.
pub(super) fn until_last(ops: &mut OpHarness) -> (Vec<Vec<u8>>, Completion) {
    let mut pieces = Vec::new();
    loop {
        let done = ops.one();
        if !done.more {
            return (pieces, done);
        }
        pieces.push(done.buf.to_vec());
    }
}

/// Returns `count` bytes from results that are not the last.
pub(super) fn until_bytes(ops: &mut OpHarness, count: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while bytes.len() < count {
        let done = ops.one();
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
