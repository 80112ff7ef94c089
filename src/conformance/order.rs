//! Clause C3: the operations of a queue take effect and complete in submission order.

use super::op_harness::*;
use super::scenarios::{fill_restoring_mode, new_socket, set_blocking};
use super::util::*;
use crate::event::Token;
use crate::key::Key;
use crate::op::{Address, Op, Outcome};
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockType, setsockopt, sockopt};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

/// An operation that sends a part of a buffer.
type Send = fn(Key, Vec<u8>, Range<usize>) -> Op;

/// Returns a connection; the second end is non-blocking.
fn ends(is_tcp: bool) -> (Arc<OwnedFd>, OwnedFd) {
    if is_tcp {
        let (listener, local) = tcp_listener_and_client();
        let (peer, _) = ok(listener.accept());
        set_blocking(&peer, false);
        return (Arc::new(ok(local.as_fd().try_clone_to_owned())), peer.into());
    }
    let (local, peer) = ok(UnixStream::pair());
    set_blocking(&peer, false);
    (Arc::new(local.into()), peer.into())
}

/// Returns bytes in which no two aligned parts are equal.
fn sequence(length: usize) -> Vec<u8> {
    (0..length.div_ceil(4) as u32).flat_map(u32::to_be_bytes).take(length).collect()
}

fn write_all(to: &OwnedFd, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        match nix::unistd::write(to, bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(error) => assert!([Errno::EAGAIN, Errno::EINTR].contains(&error), "{error}"),
        }
    }
}

/// Fails unless the tokens are those of all operations, in order.
fn expect_order(done: &[crate::op::Completion], why: &str) {
    let tokens: Vec<_> = done.iter().map(|done| done.token.0).collect();
    assert_eq!(tokens, (0..done.len()).collect::<Vec<_>>(), "in order of submission, {why}");
}

fn receives(is_tcp: bool, count: usize, chunk: usize, ops: &mut OpHarness) {
    let (local, peer) = ends(is_tcp);
    let key = ops.add(local.clone());
    let lengths: Vec<usize> = (0..count).map(|at| 1 + (at * 7 + chunk) % 11).collect();
    for (token, &length) in lengths.iter().enumerate() {
        let receive: fn(Key, Vec<u8>, usize) -> Op =
            [Op::recv, Op::recv_exact, Op::read, Op::recv_exact][token % 4];
        ops.submit(receive(key, Vec::new(), length), token);
    }
    ops.expect_nothing_yet("nothing was sent");
    let all = sequence(lengths.iter().sum());
    for part in all.chunks(chunk) {
        write_all(&peer, part);
        if chunk % 2 == 0 {
            ops.wait(ZERO);
        }
    }
    let done = ops.collect(count);
    expect_order(&done, "waiting receives");
    let mut received: Vec<u8> = done.into_iter().flat_map(|done| bytes(done).1).collect();
    // Each has received something, and the rest is still in the socket.
    let rest = all.len() - received.len();
    if rest > 0 {
        received.extend(bytes(ops.run(Op::recv_exact(key, Vec::new(), rest))).1);
    }
    assert_eq!(received, all, "{count} receives, parts of {chunk}, TCP: {is_tcp}");
}

pub(super) fn c3_queued_receives_get_bytes_in_order(cx: &TestContext) {
    for is_tcp in [false, true] {
        let mut ops = OpHarness::new(cx);
        for count in 2..=8 {
            for chunk in [1, 2, 5, 8, 100] {
                receives(is_tcp, count, chunk, &mut ops);
            }
        }
        ops.expect_all_done("every receive");
    }
}

pub(super) fn c3_late_receive_does_not_overtake(cx: &TestContext) {
    for is_tcp in [false, true] {
        let mut ops = OpHarness::new(cx);
        let (local, peer) = ends(is_tcp);
        let key = ops.add(local.clone());
        let arrives = |text: &[u8]| {
            write_all(&peer, text);
            wait_until_kernel(&*local, nix::poll::PollFlags::POLLIN, |bits| !bits.is_empty());
        };
        ops.submit(Op::recv(key, Vec::new(), 3), 0);
        ops.expect_nothing_yet("nothing was sent");
        arrives(b"abcdef");
        ops.submit(Op::recv(key, Vec::new(), 3), 1);
        let done = ops.collect(2);
        expect_order(&done, "with data pending");
        let texts: Vec<_> = done.into_iter().map(|done| bytes(done).1).collect();
        assert_eq!(texts, [b"abc", b"def"]);
        ops.submit(Op::recv_exact(key, Vec::new(), 6), 0);
        arrives(b"gh");
        ops.expect_nothing_yet("recv_exact needs more bytes");
        arrives(b"ijklmnop");
        ops.submit(Op::recv(key, Vec::new(), 9), 1);
        let done = ops.collect(2);
        expect_order(&done, "with the first partly received");
        let texts: Vec<_> = done.into_iter().map(|done| bytes(done).1).collect();
        assert_eq!(texts, [&b"ghijkl"[..], b"mnop"]);
    }
}

/// Reads all available bytes; returns true at end of stream.
fn read_all(from: &OwnedFd, into: &mut Vec<u8>) -> bool {
    let mut part = vec![0; 1 << 15];
    loop {
        match nix::unistd::read(from, &mut part) {
            Ok(0) => return true,
            Ok(count) => into.extend(&part[..count]),
            Err(Errno::EAGAIN) => return false,
            Err(error) => panic!("read: {error}"),
        }
    }
}

pub(super) fn c3_sends_reach_the_peer_in_order(cx: &TestContext) {
    let sends: [Send; 3] = [Op::send, Op::send_all, Op::write];
    for (is_tcp, is_full) in [(false, true), (true, true), (false, false), (true, false)] {
        for count in [2, 3, 8] {
            let mut ops = OpHarness::new(cx);
            let (local, peer) = ends(is_tcp);
            let key = ops.add(local.clone());
            if is_full {
                fill_restoring_mode(&local);
            }
            let all = sequence(count * 100_000);
            let range = |at: usize| {
                let length = [100_000, 7, 40_000][at % 3];
                at * 100_000..at * 100_000 + length
            };
            for token in 0..count {
                ops.submit(sends[(token + count) % 3](key, all.clone(), range(token)), token);
            }
            ops.submit(Op::shutdown(key, Shutdown::Write), count);
            let started = std::time::Instant::now();
            let mut received = Vec::new();
            while !read_all(&peer, &mut received) {
                assert!(started.elapsed() < LONG, "no end of stream");
                ops.wait(ZERO);
            }
            let done = ops.collect(count + 1);
            expect_order(&done, "sends and a shutdown");
            // The bytes that filled the socket come first, and are zeroes.
            let mut expected = Vec::new();
            for done in done.into_iter().take(count) {
                let (token, (moved, _)) = (done.token.0, bytes(done));
                let range = range(token);
                let is_all = (token + count) % 3 == 1;
                assert!(moved > 0 && (!is_all || moved == range.len()), "{token}: {moved}");
                expected.extend(&all[range.start..range.start + moved]);
            }
            let filler = received.len() - expected.len();
            assert!(received[..filler].iter().all(|&byte| byte == 0) && (filler > 0) == is_full);
            assert!(received[filler..] == expected[..], "{count} sends, TCP: {is_tcp}, in order");
            ops.expect_all_done("every send");
        }
    }
}

pub(super) fn c3_connections_are_accepted_in_order(cx: &TestContext) {
    for parked in [true, false] {
        let mut ops = OpHarness::new(cx);
        let listener = ok(TcpListener::bind("127.0.0.1:0"));
        let address = ok(listener.local_addr());
        let key = ops.add(Arc::new(listener));
        let accept = |ops: &mut OpHarness| {
            for token in 0..6 {
                ops.submit(Op::accept(key), token);
            }
        };
        if parked {
            accept(&mut ops);
            ops.expect_nothing_yet("no connection is pending");
        }
        let clients: Vec<_> = (0..6).map(|_| ok(TcpStream::connect(address))).collect();
        if !parked {
            accept(&mut ops);
        }
        let done = ops.collect(6);
        expect_order(&done, "accepts");
        for (done, client) in done.into_iter().zip(&clients) {
            let expected: SocketAddr = ok(client.local_addr());
            let Ok(Outcome::Accepted { peer: Some(Address::Inet(peer)), .. }) = done.result else {
                panic!("expected a connection with its peer: {done:?}");
            };
            assert_eq!(peer, expected, "the next connection, accepts queued first: {parked}");
        }
    }
}

pub(super) fn c3_read_and_write_queues_are_independent(cx: &TestContext) {
    for is_tcp in [false, true] {
        let mut ops = OpHarness::new(cx);
        let (local, peer) = ends(is_tcp);
        let key = ops.add(local.clone());
        for token in 0..3 {
            ops.submit(Op::recv(key, Vec::new(), 9), token);
        }
        let done = ops.run(Op::send(key, "out", ..));
        assert_eq!(bytes(done).0, 3, "a send while receives wait");
        ops.submit(Op::send_all(key, vec![0; 1 << 24], ..), 9);
        ops.expect_nothing_yet("nothing was sent and the send buffer is full");
        write_all(&peer, b"in");
        let done = ops.next();
        assert_eq!(
            (done.token, bytes(done).1),
            (Token(0), b"in".to_vec()),
            "a receive while a send waits"
        );
        // Shutting down reading waits for no other operation, and ends the receives.
        ops.submit(Op::shutdown(key, Shutdown::Read), 10);
        let mut done = ops.collect(3);
        done.sort_by_key(|done| done.token);
        let tokens: Vec<_> = done.iter().map(|done| done.token.0).collect();
        assert_eq!(tokens, [1, 2, 10]);
        done.into_iter().for_each(|done| assert_eq!(bytes(done), (0, vec![]), "end of stream"));
        let started = std::time::Instant::now();
        while ops.harness.events.completed() == 0 {
            assert!(started.elapsed() < LONG, "the send does not complete");
            read_all(&peer, &mut Vec::new());
            ops.wait(ZERO);
        }
        assert_eq!(bytes(ops.next()).0, 1 << 24, "the send completes");
        ops.expect_all_done("every operation of both queues");
    }
}

pub(super) fn c3_operations_after_connect_wait_for_it(cx: &TestContext) {
    for blocking in [false, true] {
        let mut ops = OpHarness::new(cx);
        let listener = ok(TcpListener::bind("127.0.0.1:0"));
        let address = ok(listener.local_addr());
        let local = new_socket(AddressFamily::Inet, SockType::Stream);
        set_blocking(&local, blocking);
        let key = ops.add(Arc::new(local));
        ops.submit(Op::connect(key, address), 0);
        ops.submit(Op::send_all(key, "hello", ..), 1);
        ops.submit(Op::write(key, " world", ..), 2);
        ops.submit(Op::shutdown(key, Shutdown::Write), 3);
        let done = ops.collect(4);
        expect_order(&done, "a connect and the operations after it");
        done.into_iter().for_each(|done| drop(bytes(done)));
        let (mut peer, _) = ok(listener.accept());
        assert_eq!(ok(std::io::read_to_string(&mut peer)), "hello world");
        let again = ops.run(Op::connect(key, address));
        assert_eq!(errno(&again), libc::EISCONN);
    }
}

pub(super) fn c3_datagrams_keep_submission_order(cx: &TestContext) {
    let mut ops = OpHarness::new(cx);
    let [local, peer] = [(); 2].map(|()| Arc::new(ok(UdpSocket::bind("127.0.0.1:0"))));
    ok(setsockopt(&local, sockopt::RcvBuf, &(1 << 20)));
    let to = ok(local.local_addr());
    let [local, peer] = [local, peer].map(|socket| ops.add(socket));
    let tell = |ops: &mut OpHarness, number: usize| {
        ops.submit(Op::send_to(peer, vec![number as u8; number], .., to), 100 + number);
    };
    for parked in [8, 3, 0] {
        for token in 0..parked {
            ops.submit(Op::recv_from(local, vec![], 99), token);
        }
        ops.expect_nothing_yet("no datagram was sent");
        (0..8).for_each(|number| tell(&mut ops, number));
        for token in parked..8 {
            ops.submit(Op::recv_from(local, vec![], 99), token);
        }
        let (sent, received): (Vec<_>, Vec<_>) =
            ops.collect(16).into_iter().partition(|done| done.token.0 >= 100);
        expect_order(&received, "datagrams");
        for (number, done) in received.into_iter().enumerate() {
            assert_eq!(bytes(done), (number, vec![number as u8; number]));
        }
        let tokens: Vec<_> = sent.iter().map(|done| done.token.0).collect();
        assert_eq!(tokens, (100..108).collect::<Vec<_>>());
    }
}
