//! What is known of each operation and each connection, and what that says of a completion.

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
pub(super) enum What {
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

impl What {
    /// Whether it stands among those that read.
    pub(super) fn lane(self) -> Option<bool> {
        match self {
            What::Recv | What::RecvExact | What::Read => Some(true),
            What::Send | What::SendAll | What::Write | What::ShutWrite => Some(false),
            What::Nop | What::Timeout => None,
        }
    }
}

/// A pair of sockets, and all that has been moved.
pub(super) struct Link {
    index: usize,
    pub(super) key: Option<Key>,
    pub(super) ours: Option<Arc<UnixStream>>,
    watched: Weak<UnixStream>,
    peer: UnixStream,
    /// How many bytes the peer has sent, and how many of them have come back in completions.
    sent: usize,
    received: usize,
    has_ended: bool,
    /// How many bytes operations were given to send.
    given: usize,
    /// Those that were sent, as completions say, and as the peer has read them.
    said: Vec<u8>,
    read: Vec<u8>,
    is_shut: bool,
}

/// What stands at a place of a stream: no two neighbourhoods are alike.
fn byte(link: usize, at: usize) -> u8 {
    (at.wrapping_mul(0x9e37_79b1) >> 11) as u8 ^ (link as u8).wrapping_mul(77)
}

impl Link {
    pub(super) fn new(index: usize) -> Self {
        let (ours, peer) = UnixStream::pair().expect("a pair of sockets");
        // So little that a few sends fill it.
        setsockopt(&ours, sockopt::SndBuf, &0).expect("the least there is");
        peer.set_nonblocking(true).expect("a socket");
        let ours = Arc::new(ours);
        Link {
            index,
            key: None,
            watched: Arc::downgrade(&ours),
            ours: Some(ours),
            peer,
            sent: 0,
            received: 0,
            has_ended: false,
            given: 0,
            said: Vec::new(),
            read: Vec::new(),
            is_shut: false,
        }
    }

    pub(super) fn source(&self) -> Source {
        self.ours.clone().expect("it is open")
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
        // It fails when the other end has been closed, and then there is nobody to tell.
        let _ = self.peer.shutdown(Shutdown::Write);
    }

    pub(super) fn is_closed(&self) -> bool {
        self.watched.strong_count() == 0
    }

    /// Whether nobody but the program holds the file.
    pub(super) fn is_let_go(&self) -> bool {
        self.watched.strong_count() == usize::from(self.ours.is_some())
    }

    /// When all is over: what was sent is what has arrived, in either direction.
    pub(super) fn check_the_rest(&mut self) {
        assert!(self.is_let_go(), "the poller has gone");
        self.peer_reads(1 << 20);
        assert!(self.read == self.said, "the peer has read what completions say was sent");
        let Some(ours) = self.ours.take() else { return };
        ours.set_nonblocking(true).expect("a socket");
        let mut rest = vec![0; 1 << 20];
        let count = (&*ours).read(&mut rest).unwrap_or(0);
        self.take(&rest[..count]);
        assert_eq!(self.received, self.sent, "what the peer has sent has come or is still there");
    }

    /// These bytes were received.
    fn take(&mut self, bytes: &[u8]) {
        for &its in bytes {
            assert_eq!(its, byte(self.index, self.received), "byte {}", self.received);
            self.received += 1;
        }
    }
}

/// An operation.
#[derive(Debug)]
pub(super) struct Submitted {
    pub(super) id: Option<OpId>,
    pub(super) link: usize,
    pub(super) what: What,
    amount: usize,
    /// Its buffer: where its memory is, how much there is of it, and what was in it.
    memory: Option<(usize, usize)>,
    bytes: Vec<u8>,
    start: usize,
    pub(super) may_time_out: bool,
    pub(super) is_canceled: bool,
    /// Its source was deregistered.
    pub(super) is_gone: bool,
    /// And then the kernel had it still.
    pub(super) is_late: bool,
    /// It was that which ended it, in its turn.
    pub(super) is_orderly: bool,
    pub(super) is_settled: bool,
    pub(super) is_done: bool,
}

impl Submitted {
    pub(super) fn new(link: &mut Link, key: Key, what: What, amount: usize) -> (Self, Op) {
        // Something that is there before, and is to be left alone.
        let start = amount % 7;
        let mut bytes = vec![0xa5; start];
        if what.lane() == Some(false) && what != What::ShutWrite {
            let count = amount * 40;
            bytes.extend((link.given..link.given + count).map(|at| byte(!link.index, at)));
            link.given += count;
            bytes.extend([0x5a; 3]);
        }
        let submitted_bytes = bytes.clone();
        let range = start..bytes.len().saturating_sub(3);
        let mut memory = match what {
            What::ShutWrite | What::Nop | What::Timeout => None,
            _ => Some((bytes.as_ptr() as usize, bytes.capacity())),
        };
        if what.lane() == Some(true) {
            // One that has room stays where it is.
            bytes.reserve_exact(amount);
            memory = Some((bytes.as_ptr() as usize, bytes.capacity()));
        }
        let op = match what {
            What::Recv => Op::recv(key, bytes, amount),
            What::RecvExact => Op::recv_exact(key, bytes, amount),
            What::Read => Op::read(key, bytes, amount),
            What::Send => Op::send(key, bytes, range),
            What::SendAll => Op::send_all(key, bytes, range),
            What::Write => Op::write(key, bytes, range),
            What::ShutWrite => Op::shutdown(key, Shutdown::Write),
            What::Nop => Op::nop(),
            What::Timeout => Op::timeout(Duration::ZERO),
        };
        let submitted = Submitted {
            id: None,
            link: link.index,
            what,
            amount,
            memory,
            bytes: submitted_bytes,
            start,
            may_time_out: false,
            is_canceled: false,
            is_gone: false,
            is_late: false,
            is_orderly: false,
            is_settled: false,
            is_done: false,
        };
        (submitted, op)
    }

    /// Whether the next wait has to have its completion, or another one.
    pub(super) fn is_surely_over(&self) -> bool {
        let waits_for_nobody = matches!(self.what, What::Nop | What::Timeout);
        !self.is_done && (waits_for_nobody || self.is_gone && !self.is_late)
    }

    pub(super) fn complete(&mut self, completion: Completion, links: &mut [Link]) {
        assert!(!std::mem::replace(&mut self.is_done, true), "once: {self:?}");
        assert_eq!(Some(completion.id), self.id);
        assert!(!completion.more);
        let (link, buf, moved) = (&mut links[self.link], completion.buf, completion.transferred);
        if let (Some(memory), Buf::Vec(bytes)) = (self.memory, &buf) {
            assert_eq!((bytes.as_ptr() as usize, bytes.capacity()), memory, "the very buffer");
        } else {
            assert!(self.memory.is_none() && buf == Buf::None && moved == 0, "{self:?}");
        }
        match self.what.lane() {
            Some(true) => {
                assert!(moved <= self.amount && buf.len() == self.start + moved, "{self:?}");
                assert!(buf[..self.start] == self.bytes[..], "what was there is there");
                link.take(&buf[self.start..]);
            }
            Some(false) if self.memory.is_some() => {
                assert!(buf[..] == self.bytes[..], "it was only lent");
                assert!(moved <= 40 * self.amount);
                link.said.extend(&buf[self.start..self.start + moved]);
            }
            _ => {}
        }
        self.check_result(&completion.result, moved, link);
    }

    fn check_result(&self, result: &std::io::Result<Outcome>, moved: usize, link: &mut Link) {
        let all = match self.what.lane() {
            Some(false) => 40 * self.amount,
            _ => self.amount,
        };
        let code = match result {
            Ok(Outcome::Done) => 0,
            Ok(other) => panic!("{self:?}: {other:?}"),
            Err(error) => error.raw_os_error().unwrap_or(-1),
        };
        let kind = result.as_ref().err().map(std::io::Error::kind);
        let at_end = link.has_ended && link.received == link.sent;
        match (self.what, kind) {
            (_, Some(_)) if code == libc::ECANCELED => {
                assert!(self.is_canceled || self.is_gone, "{self:?}");
            }
            (_, Some(ErrorKind::TimedOut)) => assert!(self.may_time_out, "{self:?}"),
            (What::Nop | What::Timeout, None) => {}
            (What::Recv | What::Read, None) => assert!(moved > 0 || at_end, "{self:?}"),
            (What::RecvExact, None) => assert_eq!(moved, all, "{self:?}"),
            (What::RecvExact, Some(ErrorKind::UnexpectedEof)) => {
                assert!(moved < all && at_end, "{self:?}");
            }
            (What::Send | What::Write, None) => assert!(moved > 0 && !link.is_shut, "{self:?}"),
            (What::SendAll, None) => assert!(moved == all && !link.is_shut, "{self:?}"),
            (What::ShutWrite, None) => link.is_shut = true,
            (What::Send | What::Write | What::SendAll, Some(ErrorKind::BrokenPipe)) => {
                assert!(link.is_shut && moved == 0, "{self:?}");
            }
            (_, error) => panic!("{self:?}: {error:?}"),
        }
    }
}

/// Whether the completion of this one may come now.
pub(super) fn check_order(all: &[Submitted], at: usize, completion: &Completion) {
    let one = &all[at];
    let is_ended_early = match &completion.result {
        Err(error) => completion.is_canceled() || error.kind() == ErrorKind::TimedOut,
        Ok(_) => false,
    };
    for earlier in all[..at].iter().filter(|its| its.link == one.link && !its.is_done) {
        let (Some(its), Some(lane)) = (earlier.what.lane(), one.what.lane()) else { continue };
        if its == lane && !is_ended_early {
            // One that was stopped may be told of later than its successor.
            let is_stopped = earlier.is_canceled || earlier.may_time_out || earlier.is_gone;
            assert!(is_stopped && !earlier.is_late, "{one:?} comes before {earlier:?}");
        }
        let in_turn = |its: &Submitted| its.is_orderly && !its.is_done;
        // What has ended before the deregistration has, in its turn, come before all others.
        if in_turn(one) && in_turn(earlier) && (one.is_settled || completion.is_canceled()) {
            panic!("{one:?} comes before {earlier:?}");
        }
    }
}
