//! Splices stand in the lines of two sources at once: whoever stands behind one goes on, in both.

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

struct Stage {
    reactor: Reactor<Epoll>,
    from: Key,
    to: Key,
    peer: UnixStream,
    pipe: OwnedFd,
}

impl Stage {
    fn new() -> Self {
        let epoll = Epoll::new().expect("epoll");
        let mut reactor = Reactor::new(Backend::Epoll, epoll).expect("a page");
        let (ours, peer) = UnixStream::pair().expect("a pair of sockets");
        let (pipe, writer) = pipe2(OFlag::O_CLOEXEC).expect("a pipe");
        let mut register = |source: Source| {
            reactor.register(source, Token(0), Interest::empty(), Mode::Edge).expect("it is fresh")
        };
        let (from, to) = (register(Arc::new(ours)), register(Arc::new(writer)));
        Stage { reactor, from, to, peer, pipe }
    }

    fn splice(&mut self, token: usize) -> OpId {
        let op = Op::splice(self.from, self.to, 100);
        self.submit(op, token)
    }

    fn submit(&mut self, op: Op, token: usize) -> OpId {
        self.reactor.submit(op, Token(token)).expect("all is in order")
    }

    fn look(&mut self) -> Vec<Completion> {
        let mut events = Events::with_capacity(16);
        self.reactor.wait(&mut events, Some(Duration::ZERO)).expect("nothing goes wrong");
        self.reactor.verify();
        events.completions().collect()
    }

    fn tokens(&mut self) -> Vec<usize> {
        let mut tokens: Vec<_> = self.look().iter().map(|its| its.token.0).collect();
        tokens.sort_unstable();
        tokens
    }

    /// What has arrived at the pipe's other end.
    fn arrived(&self) -> Vec<u8> {
        let mut bytes = [0; 1 << 16];
        let count = nix::unistd::read(&self.pipe, &mut bytes).expect("it is open");
        bytes[..count].to_vec()
    }
}

#[test]
fn those_behind_one_go_on_in_both_lines() {
    let mut stage = Stage::new();
    stage.splice(0);
    stage.submit(Op::recv(stage.from, vec![], 9), 1);
    stage.submit(Op::write(stage.to, "behind", ..), 2);
    assert!(stage.look().is_empty(), "nobody is faster than who is before him");
    stage.peer.write_all(b"spliced").expect("room");
    assert_eq!(stage.tokens(), [0, 2]);
    assert_eq!(stage.arrived(), b"splicedbehind", "in order");
    stage.peer.write_all(b"rest").expect("room");
    let landed = stage.look();
    assert_eq!((landed[0].token, &landed[0].buf[..]), (Token(1), &b"rest"[..]));
}

#[test]
fn those_behind_one_that_is_stopped_go_on_too() {
    for by_deadline in [false, true] {
        let mut stage = Stage::new();
        let op = Op::splice(stage.from, stage.to, 100);
        let op = if by_deadline { op.deadline(Duration::ZERO) } else { op };
        let splice = stage.submit(op, 0);
        stage.submit(Op::recv(stage.from, vec![], 9), 1);
        stage.submit(Op::write(stage.to, "behind", ..), 2);
        if !by_deadline {
            stage.reactor.cancel(splice).expect("it is under way");
        }
        assert_eq!(stage.tokens(), [0, 2]);
        stage.peer.write_all(b"data").expect("room");
        assert_eq!(stage.tokens(), [1]);
        assert_eq!(stage.arrived(), b"behind");
    }
}

#[test]
fn it_waits_for_its_turn_in_both() {
    let mut stage = Stage::new();
    // A pipe that is full, with one who waits for room.
    let (much, all) = (vec![7; 1 << 16], 1 << 16);
    stage.submit(Op::write(stage.to, much, ..), 0);
    assert_eq!(stage.tokens(), [0]);
    stage.submit(Op::write(stage.to, "first", ..), 1);
    stage.submit(Op::recv(stage.from, vec![], 3), 2);
    stage.splice(3);
    stage.peer.write_all(b"onetwo").expect("room");
    assert_eq!(stage.tokens(), [2], "the write is before it");
    assert!(stage.look().is_empty());
    assert_eq!(stage.arrived().len(), all);
    assert_eq!(stage.tokens(), [1, 3]);
    assert_eq!(stage.arrived(), b"firsttwo");
    // The other way round: the target is free, and somebody reads before it.
    stage.submit(Op::recv_exact(stage.from, vec![], 3), 4);
    stage.splice(5);
    assert!(stage.look().is_empty());
    stage.peer.write_all(b"xyzspliced").expect("room");
    assert_eq!(stage.tokens(), [4, 5]);
    assert_eq!(stage.arrived(), b"spliced");
}

#[test]
fn a_chain_of_them_goes_on_by_itself() {
    let mut stage = Stage::new();
    stage.peer.write_all(b"0123456789").expect("room");
    let once = |at: usize, stage: &mut Stage| {
        let op = Op::splice(stage.from, stage.to, 2);
        stage.submit(op, at)
    };
    let ids: Vec<_> = (0..5).map(|at| once(at, &mut stage)).collect();
    assert_eq!(stage.tokens(), [0, 1, 2, 3, 4]);
    assert_eq!(stage.arrived(), b"0123456789");
    assert!(ids.iter().all(|&id| stage.reactor.cancel(id).is_err()));
}

#[test]
fn when_one_of_the_two_goes_those_of_the_other_go_on() {
    for goes_from in [true, false] {
        let mut stage = Stage::new();
        stage.splice(0);
        stage.submit(Op::recv(stage.from, vec![], 9), 1);
        stage.submit(Op::write(stage.to, "behind", ..), 2);
        let key = if goes_from { stage.from } else { stage.to };
        stage.reactor.deregister(key).expect("it is registered");
        let landed = stage.look();
        let canceled: Vec<_> = landed.iter().filter(|its| its.is_canceled()).collect();
        let mut tokens: Vec<_> = canceled.iter().map(|its| its.token.0).collect();
        tokens.sort_unstable();
        assert_eq!(tokens, if goes_from { [0, 1] } else { [0, 2] });
        if goes_from {
            assert_eq!(landed.len(), 3, "{landed:?}");
            assert_eq!(stage.arrived(), b"behind");
        } else {
            assert_eq!(landed.len(), 2, "{landed:?}");
            stage.peer.write_all(b"data").expect("room");
            assert_eq!(stage.tokens(), [1]);
        }
    }
}

#[test]
fn the_end_is_no_bytes_and_what_fails_is_told() {
    let _still = crate::testing::no_children();
    let mut stage = Stage::new();
    stage.splice(0);
    assert!(stage.look().is_empty());
    stage.peer.write_all(b"last").expect("room");
    let landed = stage.look();
    assert_eq!((landed.len(), landed[0].transferred), (1, 4));
    stage.splice(1);
    stage.peer.shutdown(std::net::Shutdown::Write).expect("it is connected");
    let landed = stage.look();
    assert!(landed.len() == 1 && landed[0].result.is_ok() && landed[0].transferred == 0);
    let mut rest = [0; 4];
    File::from(stage.pipe.try_clone().expect("a duplicate")).read_exact(&mut rest).expect("four");
    assert_eq!(&rest, b"last");
}

#[test]
fn a_source_and_itself_are_refused() {
    let mut stage = Stage::new();
    let op = Op::splice(stage.from, stage.from, 1);
    let error = stage.reactor.submit(op, Token(0)).expect_err("not to itself");
    assert_eq!(error.error().kind(), std::io::ErrorKind::InvalidInput);
}
