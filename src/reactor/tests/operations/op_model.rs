//! The model of each operation and connection, and the checks of a completion.

use crate::key::Key;
use crate::op::{Completion, Op, OpId, Outcome};
use crate::poller::Source;
use crate::sys::buf::Buf;
use nix::sys::socket::{setsockopt, sockopt};
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Weak};
use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OpKind {
    Recv,
    RecvExact,
    Read,
    Send,
    SendAll,
    Write,
    ShutWrite,
    Nop,
    Timeout,
}

impl OpKind {
    /// Returns true for operations of the read queue, `None` without a queue.
    pub(super) fn queue(self) -> Option<bool> {
        match self {
            OpKind::Recv | OpKind::RecvExact | OpKind::Read => Some(true),
            OpKind::Send | OpKind::SendAll | OpKind::Write | OpKind::ShutWrite => Some(false),
            OpKind::Nop | OpKind::Timeout => None,
        }
    }
}

/// A socket pair, and all moved bytes.
pub(super) struct Connection {
    index: usize,
    pub(super) key: Option<Key>,
    pub(super) local: Option<Arc<UnixStream>>,
    weak: Weak<UnixStream>,
    peer: UnixStream,
    /// The bytes sent by the peer, and those of them delivered in completions.
    sent: usize,
    received: usize,
    has_ended: bool,
    /// The bytes in submitted sends.
    queued: usize,
    /// The sent bytes according to completions, and those read by the peer.
    reported: Vec<u8>,
    read: Vec<u8>,
    is_shut: bool,
}

/// Returns the byte at a position of a stream; neighbouring bytes differ.
fn byte(conn: usize, at: usize) -> u8 {
    (at.wrapping_mul(0x9e37_79b1) >> 11) as u8 ^ (conn as u8).wrapping_mul(77)
}

impl Connection {
    pub(super) fn new(index: usize) -> Self {
        let (local, peer) = UnixStream::pair().expect("a socket pair");
        // Small enough that a few sends fill it.
        setsockopt(&local, sockopt::SndBuf, &0).expect("the least there is");
        peer.set_nonblocking(true).expect("a socket");
        let local = Arc::new(local);
        Connection {
            index,
            key: None,
            weak: Arc::downgrade(&local),
            local: Some(local),
            peer,
            sent: 0,
            received: 0,
            has_ended: false,
            queued: 0,
            reported: Vec::new(),
            read: Vec::new(),
            is_shut: false,
        }
    }

    pub(super) fn source(&self) -> Source {
        self.local.clone().expect("it is open")
    }

    pub(super) fn peer_sends(&mut self, count: usize) {
        let bytes: Vec<_> = (self.sent..self.sent + count).map(|at| byte(self.index, at)).collect();
        if !self.has_ended {
            self.sent += self.peer.write(&bytes).unwrap_or(0);
        }
    }

    pub(super) fn peer_reads(&mut self, count: usize) {
        let mut bytes = vec![0; count];
        let count = self.peer.read(&mut bytes).unwrap_or(0);
        self.read.extend(&bytes[..count]);
    }

    pub(super) fn peer_ends(&mut self) {
        self.has_ended = true;
        // It fails when the other end was closed.
        let _ = self.peer.shutdown(Shutdown::Write);
    }

    pub(super) fn is_closed(&self) -> bool {
        self.weak.strong_count() == 0
    }

    /// Returns true if only the program holds the file.
    pub(super) fn is_released(&self) -> bool {
        self.weak.strong_count() == usize::from(self.local.is_some())
    }

    /// Checks at the end that all sent bytes have arrived in both directions.
    pub(super) fn check_rest(&mut self) {
        assert!(self.is_released(), "the poller was dropped");
        self.peer_reads(1 << 20);
        assert!(self.read == self.reported, "the peer has read what completions say was sent");
        let Some(local) = self.local.take() else { return };
        local.set_nonblocking(true).expect("a socket");
        let mut rest = vec![0; 1 << 20];
        let count = (&*local).read(&mut rest).unwrap_or(0);
        self.receive(&rest[..count]);
        assert_eq!(self.received, self.sent, "every sent byte is delivered or still in the socket");
    }

    /// Checks received bytes.
    fn receive(&mut self, bytes: &[u8]) {
        for &its in bytes {
            assert_eq!(its, byte(self.index, self.received), "byte {}", self.received);
            self.received += 1;
        }
    }
}

/// A submitted operation.
#[derive(Debug)]
pub(super) struct Submitted {
    pub(super) id: Option<OpId>,
    pub(super) conn: usize,
    pub(super) kind: OpKind,
    amount: usize,
    /// The buffer's address and capacity, and its content.
    memory: Option<(usize, usize)>,
    bytes: Vec<u8>,
    start: usize,
    pub(super) may_time_out: bool,
    pub(super) is_canceled: bool,
    /// Its source was deregistered.
    pub(super) is_deregistered: bool,
    /// The kernel had the operation after that.
    pub(super) outlives_source: bool,
    /// The deregistration ended the operation, in order.
    pub(super) is_orderly: bool,
    pub(super) is_ended_in_wait: bool,
    pub(super) is_done: bool,
}

impl Submitted {
    pub(super) fn new(
        connection: &mut Connection,
        key: Key,
        kind: OpKind,
        amount: usize,
    ) -> (Self, Op) {
        // Bytes before the range must not change.
        let start = amount % 7;
        let mut bytes = vec![0xa5; start];
        if kind.queue() == Some(false) && kind != OpKind::ShutWrite {
            let count = amount * 40;
            bytes.extend(
                (connection.queued..connection.queued + count)
                    .map(|at| byte(!connection.index, at)),
            );
            connection.queued += count;
            bytes.extend([0x5a; 3]);
        }
        let submitted_bytes = bytes.clone();
        let range = start..bytes.len().saturating_sub(3);
        let mut memory = match kind {
            OpKind::ShutWrite | OpKind::Nop | OpKind::Timeout => None,
            _ => Some((bytes.as_ptr() as usize, bytes.capacity())),
        };
        if kind.queue() == Some(true) {
            // A buffer with enough capacity is not reallocated.
            bytes.reserve_exact(amount);
            memory = Some((bytes.as_ptr() as usize, bytes.capacity()));
        }
        let op = match kind {
            OpKind::Recv => Op::recv(key, bytes, amount),
            OpKind::RecvExact => Op::recv_exact(key, bytes, amount),
            OpKind::Read => Op::read(key, bytes, amount),
            OpKind::Send => Op::send(key, bytes, range),
            OpKind::SendAll => Op::send_all(key, bytes, range),
            OpKind::Write => Op::write(key, bytes, range),
            OpKind::ShutWrite => Op::shutdown(key, Shutdown::Write),
            OpKind::Nop => Op::nop(),
            OpKind::Timeout => Op::timeout(Duration::ZERO),
        };
        let submitted = Submitted {
            id: None,
            conn: connection.index,
            kind,
            amount,
            memory,
            bytes: submitted_bytes,
            start,
            may_time_out: false,
            is_canceled: false,
            is_deregistered: false,
            outlives_source: false,
            is_orderly: false,
            is_ended_in_wait: false,
            is_done: false,
        };
        (submitted, op)
    }

    /// Returns true if the next wait must deliver this completion or another.
    pub(super) fn must_complete(&self) -> bool {
        let is_independent = matches!(self.kind, OpKind::Nop | OpKind::Timeout);
        !self.is_done && (is_independent || self.is_deregistered && !self.outlives_source)
    }

    pub(super) fn complete(&mut self, completion: Completion, connections: &mut [Connection]) {
        assert!(!std::mem::replace(&mut self.is_done, true), "once: {self:?}");
        assert_eq!(Some(completion.id), self.id);
        assert!(!completion.more);
        let (connection, buf, moved) =
            (&mut connections[self.conn], completion.buf, completion.transferred);
        if let (Some(memory), Buf::Vec(bytes)) = (self.memory, &buf) {
            assert_eq!((bytes.as_ptr() as usize, bytes.capacity()), memory, "the same buffer");
        } else {
            assert!(self.memory.is_none() && buf == Buf::None && moved == 0, "{self:?}");
        }
        match self.kind.queue() {
            Some(true) => {
                assert!(moved <= self.amount && buf.len() == self.start + moved, "{self:?}");
                assert!(buf[..self.start] == self.bytes[..], "earlier bytes are unchanged");
                connection.receive(&buf[self.start..]);
            }
            Some(false) if self.memory.is_some() => {
                assert!(buf[..] == self.bytes[..], "the buffer is unchanged");
                assert!(moved <= 40 * self.amount);
                connection.reported.extend(&buf[self.start..self.start + moved]);
            }
            _ => {}
        }
        self.check_result(&completion.result, moved, connection);
    }

    fn check_result(
        &self,
        result: &std::io::Result<Outcome>,
        moved: usize,
        connection: &mut Connection,
    ) {
        let all = match self.kind.queue() {
            Some(false) => 40 * self.amount,
            _ => self.amount,
        };
        let code = match result {
            Ok(Outcome::Done) => 0,
            Ok(other) => panic!("{self:?}: {other:?}"),
            Err(error) => error.raw_os_error().unwrap_or(-1),
        };
        let kind = result.as_ref().err().map(std::io::Error::kind);
        let at_end = connection.has_ended && connection.received == connection.sent;
        match (self.kind, kind) {
            (_, Some(_)) if code == libc::ECANCELED => {
                assert!(self.is_canceled || self.is_deregistered, "{self:?}");
            }
            (_, Some(ErrorKind::TimedOut)) => assert!(self.may_time_out, "{self:?}"),
            (OpKind::Nop | OpKind::Timeout, None) => {}
            (OpKind::Recv | OpKind::Read, None) => assert!(moved > 0 || at_end, "{self:?}"),
            (OpKind::RecvExact, None) => assert_eq!(moved, all, "{self:?}"),
            (OpKind::RecvExact, Some(ErrorKind::UnexpectedEof)) => {
                assert!(moved < all && at_end, "{self:?}");
            }
            (OpKind::Send | OpKind::Write, None) => {
                assert!(moved > 0 && !connection.is_shut, "{self:?}")
            }
            (OpKind::SendAll, None) => assert!(moved == all && !connection.is_shut, "{self:?}"),
            (OpKind::ShutWrite, None) => connection.is_shut = true,
            (OpKind::Send | OpKind::Write | OpKind::SendAll, Some(ErrorKind::BrokenPipe)) => {
                assert!(connection.is_shut && moved == 0, "{self:?}");
            }
            (_, error) => panic!("{self:?}: {error:?}"),
        }
    }
}

/// Checks that this completion may be delivered now.
pub(super) fn check_order(all: &[Submitted], at: usize, completion: &Completion) {
    let one = &all[at];
    let is_ended_early = match &completion.result {
        Err(error) => completion.is_canceled() || error.kind() == ErrorKind::TimedOut,
        Ok(_) => false,
    };
    for earlier in all[..at].iter().filter(|its| its.conn == one.conn && !its.is_done) {
        let (Some(its), Some(queue)) = (earlier.kind.queue(), one.kind.queue()) else { continue };
        if its == queue && !is_ended_early {
            // A cancelled operation may be delivered after its successor.
            let is_stopped = earlier.is_canceled || earlier.may_time_out || earlier.is_deregistered;
            assert!(is_stopped && !earlier.outlives_source, "{one:?} comes before {earlier:?}");
        }
        let in_turn = |its: &Submitted| its.is_orderly && !its.is_done;
        // Operations ended by the deregistration are delivered in order, before others.
        if in_turn(one) && in_turn(earlier) && (one.is_ended_in_wait || completion.is_canceled()) {
            panic!("{one:?} comes before {earlier:?}");
        }
    }
}
