//! Clause C8 for `recv_multi`: many results, then a last completion; and the other clauses for
//! multishot operations.

use super::op_harness::*;
use super::scenarios::{SysCall, new_socket, set_blocking};
use super::socket_pairs::*;
use super::util::*;
use crate::event::{Interest, Mode, Token};
use crate::op::{Completion, Op};
use crate::poller::Source;
use crate::sys::buf::Buf;
use nix::poll::PollFlags;
use nix::sys::socket::{self, AddressFamily, SockType};
use std::io;
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::thread;

pub(super) fn c8_recv_multi_delivers_each_byte_in_order(cx: &TestContext) {
    for (size, limit, length) in [(7, 3, 20_000), (4096, 16, 1 << 20)] {
        for make in STREAMS {
            let SocketPair { name, local, peer } = make();
            let (pool, mut ops) = (new_pool(size, limit), OpHarness::new(cx));
            ops.label = name;
            let key = ops.add(local);
            ops.submit_multishot(Op::recv_multi(key, &pool), 1);
            set_blocking(&peer, true);
            let writer = thread::spawn(move || {
                let (mut sent, mut step) = (0, 1);
                while sent < length {
                    let bytes = bytes_from(sent, step.min(length - sent));
                    sent += ok(nix::unistd::write(&peer, &bytes));
                    step = step * 5 % 6151 + 1;
                }
            });
            let (pieces, last) = collect_until_last(&mut ops);
            writer.join().unwrap_or_else(|_| panic!("the writer failed"));
            expect_end(&last, name);
            let fits = |piece: &Vec<u8>| (1..=size).contains(&piece.len());
            assert!(pieces.iter().all(fits), "{name}: a result exceeds a buffer or is empty");
            assert!(pieces.concat() == bytes_from(0, length), "{name}: each byte once, in order");
            ops.expect_all_done("the stream has ended");
        }
    }
}

pub(super) fn c8_recv_multi_ends_once_at_eof(cx: &TestContext) {
    let with_ends: [MakePair; 3] = [SocketPair::unix, SocketPair::tcp, SocketPair::sequence];
    for make in with_ends {
        // Data that has arrived, and end of stream, before the submission.
        for (has_data, has_ended_early) in
            [(false, false), (true, false), (false, true), (true, true)]
        {
            let pair = make();
            let (pool, mut ops) = (new_pool(64, 4), OpHarness::new(cx));
            let key = ops.add(pair.local.clone());
            let SocketPair { name, peer, .. } = &pair;
            let shut_down = || ok(socket::shutdown(peer.as_raw_fd(), socket::Shutdown::Write));
            if has_data {
                pair.send(b"early");
            }
            if has_ended_early {
                shut_down();
                while !has_ended(&*pair.local) {
                    thread::yield_now();
                }
            }
            ops.submit_multishot(Op::recv_multi(key, &pool), 1);
            let mut expected = Vec::new();
            if has_data {
                expected = b"early".to_vec();
            }
            if !has_ended_early {
                if !has_data {
                    ops.expect_nothing_yet("nothing was sent");
                }
                pair.send(b"late");
                expected.extend(b"late");
                shut_down();
            }
            let (pieces, last) = collect_until_last(&mut ops);
            assert_eq!(
                pieces.concat(),
                expected,
                "{name}: data: {has_data}, end: {has_ended_early}"
            );
            expect_end(&last, name);
            ops.submit_multishot(Op::recv_multi(key, &pool), 2);
            let (pieces, last) = collect_until_last(&mut ops);
            assert!(pieces.is_empty(), "{name}: results after the end of the stream: {pieces:?}");
            expect_end(&last, name);
        }
    }
}

pub(super) fn c8_recv_multi_keeps_packet_boundaries(cx: &TestContext) {
    let long: Vec<u8> = bytes_from(0, 100);
    let sent: [&[u8]; 7] = [b"one", b"", &long, b"", b"", b"six", &long[..64]];
    for make in PACKETS {
        for is_first in [true, false] {
            let pair = make();
            let (pool, mut ops) = (new_pool(64, 4), OpHarness::new(cx));
            ops.label = pair.name;
            let key = ops.add(pair.local.clone());
            if is_first {
                ops.submit_multishot(Op::recv_multi(key, &pool), 1);
                ops.expect_nothing_yet("nothing was sent");
            }
            sent.iter().for_each(|packet| pair.send(packet));
            if !is_first {
                ops.submit_multishot(Op::recv_multi(key, &pool), 1);
            }
            for packet in sent {
                let done = ops.next();
                assert!(done.more, "{}: a packet ends the stream: {done:?}", pair.name);
                assert_eq!(*done.buf, packet[..packet.len().min(64)], "{}", pair.name);
            }
            ops.expect_nothing_yet("no packet is left");
            if pair.name == "unix seqpacket" {
                pair.send(b"bye");
                drop(pair);
                assert_eq!(*ops.next().buf, *b"bye");
                expect_end(&ops.next(), "the seqpacket peer has closed");
            }
        }
    }
}

/// Data that arrived before a reset is delivered, and the reset is not reported as the end of the
/// stream.
pub(super) fn c2_recv_multi_delivers_data_before_reset(cx: &TestContext) {
    for make in STREAMS {
        for is_first in [true, false] {
            let pair = make();
            let (pool, mut ops) = (new_pool(64, 4), OpHarness::new(cx));
            let key = ops.add(pair.local.clone());
            if is_first {
                ops.submit_multishot(Op::recv_multi(key, &pool), 1);
                ops.expect_nothing_yet("nothing was sent");
            }
            pair.send(b"before");
            if is_first {
                assert_eq!(collect_bytes(&mut ops, 6), b"before");
            } else {
                wait_until_kernel(&*pair.local, PollFlags::POLLIN, |bits| {
                    bits.contains(PollFlags::POLLIN)
                });
            }
            // Unread data at the peer makes its close a reset.
            assert_eq!(nix::unistd::write(&*pair.local, b"unread"), Ok(6));
            wait_until_kernel(&pair.peer, PollFlags::POLLIN, |bits| {
                bits.contains(PollFlags::POLLIN)
            });
            let SocketPair { local, peer, name } = pair;
            drop(peer);
            if !is_first {
                wait_until_kernel(&*local, PollFlags::POLLIN, |bits| {
                    bits.contains(PollFlags::POLLHUP)
                });
                ops.submit_multishot(Op::recv_multi(key, &pool), 1);
                assert_eq!(collect_bytes(&mut ops, 6), b"before", "{name}");
            }
            let last = ops.next();
            assert!(!last.more, "{name}: {last:?}");
            assert_eq!(errno(&last), libc::ECONNRESET, "{name}, submitted first: {is_first}");
        }
    }
}

pub(super) fn c2_recv_multi_on_unconnected_file_fails(cx: &TestContext) {
    let (reader, _writer) = pipe();
    let directory = TempDir::new();
    let file = ok(std::fs::File::create(directory.0.join("file")));
    let sources: [Source; 5] = [
        Arc::new(reader),
        Arc::new(file),
        Arc::new(ok(TcpListener::bind("127.0.0.1:0"))),
        Arc::new(new_socket(AddressFamily::Inet, SockType::Stream)),
        Arc::new(new_socket(AddressFamily::Unix, SockType::Stream)),
    ];
    for (at, source) in sources.into_iter().enumerate() {
        let expected = SysCall::Recv(8).call_directly(&source).map(|(count, _)| count);
        let (pool, mut ops) = (new_pool(64, 4), OpHarness::new(cx));
        let key = ops.add(source);
        ops.submit_multishot(Op::recv_multi(key, &pool), 1);
        let last = ops.next();
        assert_eq!(Err(errno(&last)), expected, "file {at}");
        ops.expect_all_done("recv_multi has failed");
        drop(ops);
        assert_eq!(pool.allocated(), pool.available(), "file {at}: all buffers are returned");
    }
}

pub(super) fn c3_recv_multi_keeps_its_queue_order(cx: &TestContext) {
    for make in STREAMS {
        let pair = make();
        let (pool, mut ops) = (new_pool(64, 4), OpHarness::new(cx));
        ops.label = pair.name;
        let key = ops.add(pair.local.clone());
        let stream =
            |ops: &mut OpHarness, token| ops.submit_multishot(Op::recv_multi(key, &pool), token);
        ops.submit(Op::recv_exact(key, Vec::new(), 3), 0);
        let first = stream(&mut ops, 1);
        ops.submit(Op::recv_exact(key, Vec::new(), 2), 2);
        let queued = stream(&mut ops, 3);
        let second = stream(&mut ops, 4);
        ops.submit(Op::recv(key, Vec::new(), 8), 5);
        ops.expect_nothing_yet("nothing was sent");
        // A queued operation has no results.
        ops.cancel(queued);
        ops.wait(ZERO);
        assert_eq!(ops.harness.events.completed(), 1, "the cancel completes in the next wait");
        let last = ops.next();
        assert!(last.id == queued && last.is_canceled() && !last.more, "{last:?}");
        pair.send(b"abcde");
        assert_eq!(*ops.next().buf, *b"abc", "{}: the first receive", pair.name);
        assert_eq!(collect_bytes(&mut ops, 2), b"de", "{}: the multishot receive", pair.name);
        pair.send(b"fgh");
        assert_eq!(collect_bytes(&mut ops, 3), b"fgh", "{}: the multishot receive", pair.name);
        ops.cancel(first);
        let last = ops.next();
        assert!(last.id == first && last.is_canceled(), "{last:?}");
        pair.send(b"ijk");
        let done = ops.next();
        assert!(
            done.token == Token(2) && *done.buf == *b"ij",
            "the next operation in the queue: {done:?}"
        );
        let done = ops.next();
        assert!(done.id == second && done.more && *done.buf == *b"k", "{done:?}");
        drop(pair.peer);
        let done = ops.collect(2);
        assert_eq!(done[0].id, second, "{done:?}");
        expect_end(&done[0], pair.name);
        assert_eq!(done[1].result.as_ref().map(|_| done[1].transferred).ok(), Some(0));
        ops.expect_all_done("all have ended");
    }
}

pub(super) fn m1_multishot_in_watched_direction_is_refused(cx: &TestContext) {
    let (pool, mut ops) = (new_pool(64, 4), OpHarness::new(cx));
    let (pair, listener) = (SocketPair::unix(), Arc::new(ok(TcpListener::bind("127.0.0.1:0"))));
    let key = ops.harness.register(pair.local.clone(), 1, READ, Mode::Level);
    let listener = ops.harness.register(listener, 2, BOTH, Mode::Edge);
    for op in [Op::recv_multi(key, &pool), Op::accept_multi(listener)] {
        let (buf, error) = ops.rejected(op);
        assert_eq!((buf, error.kind()), (Buf::None, io::ErrorKind::InvalidInput));
    }
    ops.harness.modify(key, 1, WRITE, Mode::Level);
    ops.harness.modify(listener, 2, Interest::empty(), Mode::Level);
    let ids = [
        ops.submit_multishot(Op::recv_multi(key, &pool), 1),
        ops.submit_multishot(Op::accept_multi(listener), 2),
    ];
    for key in [key, listener] {
        let watched = ops.harness.poller.modify(key, Token(1), READ, Mode::Level);
        assert_eq!(
            expect_err_kind(watched),
            io::ErrorKind::InvalidInput,
            "a multishot operation is in flight"
        );
    }
    for id in ids {
        ops.cancel(id);
    }
    assert!(ops.collect(2).iter().all(Completion::is_canceled));
    ops.harness.modify(key, 1, READ, Mode::Level);
    ops.harness.modify(listener, 1, READ, Mode::Level);
}

/// Results that exceed the capacity of `Events` are delivered by the next waits, in order.
pub(super) fn q1_results_beyond_capacity_are_delivered_later(cx: &TestContext) {
    let (pool, mut ops) = (new_pool(2, 8), OpHarness::with_capacity(cx, 1));
    let pairs = [SocketPair::unix(), SocketPair::tcp(), SocketPair::unix()];
    for (token, pair) in pairs.iter().enumerate() {
        let key = ops.add(pair.local.clone());
        ops.submit_multishot(Op::recv_multi(key, &pool), token);
        pair.send(&bytes_from(token, 201));
    }
    drop(pairs);
    let (mut received, mut ended) = ([(); 3].map(|()| Vec::<u8>::new()), 0);
    while ended < 3 {
        // `Events` is full until the completion is taken.
        ops.wait(LONG);
        ops.wait(ZERO);
        let done = ops.next();
        received[done.token.0].extend(&*done.buf);
        if !done.more {
            expect_end(&done, "one last completion each");
            ended += 1;
        }
    }
    for (token, received) in received.into_iter().enumerate() {
        assert!(received == bytes_from(token, 201), "stream {token}: each byte once, in order");
    }
    ops.expect_all_done("all have ended");
}

/// A ring's submission queue is smaller than the number of polls, so the receive is submitted
/// later.
pub(super) fn c8_recv_multi_among_hundreds_of_polls_sleeps(cx: &TestContext) {
    for limit in [2, 8, 64] {
        let (pool, mut ops) = (new_pool(64, limit), OpHarness::new(cx));
        let watched: Vec<_> = std::iter::repeat_with(SocketPair::unix).take(400).collect();
        for SocketPair { local, .. } in &watched {
            ops.harness.register(local.clone(), 7, Interest::READABLE, Mode::Level);
        }
        let pair = SocketPair::unix();
        let key = ops.add(pair.local.clone());
        ops.submit_multishot(Op::recv_multi(key, &pool), 1);
        ops.expect_nothing_yet("nothing was sent");
        ops.expect_sleep("nothing was sent");
        pair.send(b"hello");
        let done = ops.next();
        assert!(done.more && *done.buf == *b"hello", "of a pool of {limit}: {done:?}");
        drop(done);
        ops.expect_nothing_yet("nothing more was sent");
        ops.expect_sleep("nothing more was sent");
    }
}
