//! Splices are queued on two sources; when one ends, both queues continue.

use crate::backend::Backend;
use crate::event::{Events, Interest, Mode, Token};
use crate::key::Key;
use crate::op::{Completion, Op, OpId};
use crate::poller::{Poller, Source};
use crate::reactor::Reactor;
use crate::selector::epoll::Epoll;
use nix::fcntl::OFlag;
use nix::unistd::pipe2;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

struct SpliceFixture {
    reactor: Reactor<Epoll>,
    from: Key,
    to: Key,
    peer: UnixStream,
    pipe: OwnedFd,
}

impl SpliceFixture {
    fn new() -> Self {
        let epoll = Epoll::new().expect("epoll");
        let mut reactor = Reactor::new(Backend::Epoll, epoll).expect("a page");
        let (local, peer) = UnixStream::pair().expect("a socket pair");
        let (pipe, writer) = pipe2(OFlag::O_CLOEXEC).expect("a pipe");
        let mut register = |source: Source| {
            reactor.register(source, Token(0), Interest::empty(), Mode::Edge).expect("fresh")
        };
        let (from, to) = (register(Arc::new(local)), register(Arc::new(writer)));
        SpliceFixture { reactor, from, to, peer, pipe }
    }

    fn splice(&mut self, token: usize) -> OpId {
        let op = Op::splice(self.from, self.to, 100);
        self.submit(op, token)
    }

    fn submit(&mut self, op: Op, token: usize) -> OpId {
        self.reactor.submit(op, Token(token)).expect("accepted")
    }

    fn poll_now(&mut self) -> Vec<Completion> {
        let mut events = Events::with_capacity(16);
        self.reactor.wait(&mut events, Some(Duration::ZERO)).expect("no errors");
        self.reactor.verify();
        events.completions().collect()
    }

    fn tokens(&mut self) -> Vec<usize> {
        let mut tokens: Vec<_> =
            self.poll_now().iter().map(|completion| completion.token.0).collect();
        tokens.sort_unstable();
        tokens
    }

    /// Returns the bytes in the pipe.
    fn received(&self) -> Vec<u8> {
        let mut bytes = [0; 1 << 16];
        let count = nix::unistd::read(&self.pipe, &mut bytes).expect("it is open");
        bytes[..count].to_vec()
    }
}

#[test]
fn completed_splice_unblocks_both_queues() {
    let mut cx = SpliceFixture::new();
    cx.splice(0);
    cx.submit(Op::recv(cx.from, vec![], 9), 1);
    cx.submit(Op::write(cx.to, "behind", ..), 2);
    assert!(cx.poll_now().is_empty(), "queued operations wait");
    cx.peer.write_all(b"spliced").expect("room");
    assert_eq!(cx.tokens(), [0, 2]);
    assert_eq!(cx.received(), b"splicedbehind", "in order");
    cx.peer.write_all(b"rest").expect("room");
    let completions = cx.poll_now();
    assert_eq!((completions[0].token, &completions[0].buf[..]), (Token(1), &b"rest"[..]));
}

#[test]
fn cancelled_splice_unblocks_both_queues() {
    for by_deadline in [false, true] {
        let mut cx = SpliceFixture::new();
        let op = Op::splice(cx.from, cx.to, 100);
        let op = if by_deadline { op.deadline(Duration::ZERO) } else { op };
        let splice = cx.submit(op, 0);
        cx.submit(Op::recv(cx.from, vec![], 9), 1);
        cx.submit(Op::write(cx.to, "behind", ..), 2);
        if !by_deadline {
            cx.reactor.cancel(splice).expect("in flight");
        }
        assert_eq!(cx.tokens(), [0, 2]);
        cx.peer.write_all(b"data").expect("room");
        assert_eq!(cx.tokens(), [1]);
        assert_eq!(cx.received(), b"behind");
    }
}

#[test]
fn splice_waits_for_head_of_both_queues() {
    let mut cx = SpliceFixture::new();
    // A full pipe, with an operation that waits for room.
    let (much, all) = (vec![7; 1 << 16], 1 << 16);
    cx.submit(Op::write(cx.to, much, ..), 0);
    assert_eq!(cx.tokens(), [0]);
    cx.submit(Op::write(cx.to, "first", ..), 1);
    cx.submit(Op::recv(cx.from, vec![], 3), 2);
    cx.splice(3);
    cx.peer.write_all(b"onetwo").expect("room");
    assert_eq!(cx.tokens(), [2], "the write precedes the splice");
    assert!(cx.poll_now().is_empty());
    assert_eq!(cx.received().len(), all);
    assert_eq!(cx.tokens(), [1, 3]);
    assert_eq!(cx.received(), b"firsttwo");
    // Vice versa: the target is free, and a receive precedes the splice.
    cx.submit(Op::recv_exact(cx.from, vec![], 3), 4);
    cx.splice(5);
    assert!(cx.poll_now().is_empty());
    cx.peer.write_all(b"xyzspliced").expect("room");
    assert_eq!(cx.tokens(), [4, 5]);
    assert_eq!(cx.received(), b"spliced");
}

#[test]
fn consecutive_splices_run_without_further_events() {
    let mut cx = SpliceFixture::new();
    cx.peer.write_all(b"0123456789").expect("room");
    let once = |at: usize, cx: &mut SpliceFixture| {
        let op = Op::splice(cx.from, cx.to, 2);
        cx.submit(op, at)
    };
    let ids: Vec<_> = (0..5).map(|at| once(at, &mut cx)).collect();
    assert_eq!(cx.tokens(), [0, 1, 2, 3, 4]);
    assert_eq!(cx.received(), b"0123456789");
    assert!(ids.iter().all(|&id| cx.reactor.cancel(id).is_err()));
}

#[test]
fn deregistering_one_side_unblocks_the_other() {
    for goes_from in [true, false] {
        let mut cx = SpliceFixture::new();
        cx.splice(0);
        cx.submit(Op::recv(cx.from, vec![], 9), 1);
        cx.submit(Op::write(cx.to, "behind", ..), 2);
        let key = if goes_from { cx.from } else { cx.to };
        cx.reactor.deregister(key).expect("registered");
        let completions = cx.poll_now();
        let canceled: Vec<_> =
            completions.iter().filter(|completion| completion.is_canceled()).collect();
        let mut tokens: Vec<_> = canceled.iter().map(|completion| completion.token.0).collect();
        tokens.sort_unstable();
        assert_eq!(tokens, if goes_from { [0, 1] } else { [0, 2] });
        if goes_from {
            assert_eq!(completions.len(), 3, "{completions:?}");
            assert_eq!(cx.received(), b"behind");
        } else {
            assert_eq!(completions.len(), 2, "{completions:?}");
            cx.peer.write_all(b"data").expect("room");
            assert_eq!(cx.tokens(), [1]);
        }
    }
}

#[test]
fn splice_at_end_of_stream_moves_no_bytes() {
    let _still = crate::testing::no_children();
    let mut cx = SpliceFixture::new();
    cx.splice(0);
    assert!(cx.poll_now().is_empty());
    cx.peer.write_all(b"last").expect("room");
    let completions = cx.poll_now();
    assert_eq!((completions.len(), completions[0].transferred), (1, 4));
    cx.splice(1);
    cx.peer.shutdown(std::net::Shutdown::Write).expect("it is connected");
    let completions = cx.poll_now();
    assert!(
        completions.len() == 1 && completions[0].result.is_ok() && completions[0].transferred == 0
    );
    let mut rest = [0; 4];
    File::from(cx.pipe.try_clone().expect("a duplicate")).read_exact(&mut rest).expect("four");
    assert_eq!(&rest, b"last");
}

#[test]
fn splice_to_same_source_is_refused() {
    let mut cx = SpliceFixture::new();
    let op = Op::splice(cx.from, cx.from, 1);
    let error = cx.reactor.submit(op, Token(0)).expect_err("the same source");
    assert_eq!(error.error().kind(), std::io::ErrorKind::InvalidInput);
}
