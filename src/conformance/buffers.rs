//! Clauses C1 and C5: every operation completes once and returns its buffer, to which received
//! bytes are appended.

use super::op_harness::*;
use super::util::*;
use crate::event::Token;
use crate::key::Key;
use crate::op::{Op, Outcome};
use crate::sys::buf::Buf;
use nix::poll::PollFlags;
use nix::sys::socket::{MsgFlags, recv, setsockopt, sockopt};
use std::io::{ErrorKind, Write};
use std::net::{Shutdown, TcpStream};
use std::ops::Bound;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;

/// An operation that receives at most, or exactly, this many bytes.
type Receive<B> = fn(Key, B, usize) -> Op;
/// An operation that sends a part of a buffer.
type Send<B> = fn(Key, B, (Bound<usize>, Bound<usize>)) -> Op;

/// Runs hundreds of operations on many sources, each with its own bytes.
fn exchange(cx: &TestContext, capacity: usize) {
    const PAIRS: usize = 60;
    const ROUNDS: usize = 3;
    let mut ops = OpHarness::with_capacity(cx, capacity);
    let mut keys = Vec::new();
    for at in 0..PAIRS {
        keys.push(if at % 2 == 0 {
            let (local, peer) = stream();
            (ops.add(local), ops.add(Arc::new(peer)))
        } else {
            let (local, peer) = tcp();
            (ops.add(local), ops.add(Arc::new(peer)))
        });
    }
    let token = |at: usize, round: usize, direction: usize| (at * ROUNDS + round) * 2 + direction;
    for round in 0..ROUNDS {
        for (at, &(local, peer)) in keys.iter().enumerate() {
            let text = (token(at, round, 0) as u32).to_ne_bytes().to_vec();
            // Some bytes are sent before they are requested, and some after.
            let receive = Op::recv_exact(peer, vec![at as u8], 4);
            if at % 3 == 0 {
                ops.submit(Op::send_all(local, text, ..), token(at, round, 1));
                ops.submit(receive, token(at, round, 0));
            } else {
                ops.submit(receive, token(at, round, 0));
                ops.submit(Op::send_all(local, text, ..), token(at, round, 1));
            }
        }
        ops.wait(ZERO);
    }
    let mut seen = vec![false; PAIRS * ROUNDS * 2];
    for done in ops.collect(PAIRS * ROUNDS * 2) {
        let Token(token) = done.token;
        assert!(!std::mem::replace(&mut seen[token], true), "{token} has completed twice");
        let (count, buf) = bytes(done);
        let mut expected = (token as u32 & !1).to_ne_bytes().to_vec();
        if token % 2 == 0 {
            expected.insert(0, (token / 2 / ROUNDS) as u8);
        }
        assert_eq!((count, buf), (4, expected), "operation {token}, capacity {capacity}");
    }
    ops.expect_all_done("every operation has completed");
}

pub(super) fn c1_hundreds_of_operations_complete_once_each(cx: &TestContext) {
    for capacity in [1, 3, 1000] {
        exchange(cx, capacity);
    }
}

/// Returns a buffer with four bytes and a capacity for 96 more.
fn with_spare_capacity() -> Vec<u8> {
    let mut buf = Vec::with_capacity(100);
    buf.extend(b"mine");
    buf
}

/// Runs an operation on [`with_spare_capacity`], calls `then`, and fails unless the same memory is
/// returned with `expected` appended.
fn same_memory(
    ops: &mut OpHarness,
    op: Op,
    expected: &[u8],
    then: impl FnOnce(&mut OpHarness, crate::op::OpId),
) -> Result<Outcome, std::io::Error> {
    let place = op.buf.as_ptr();
    let text = format!("{op:?}");
    let id = ops.submit(op, 1);
    then(ops, id);
    let done = ops.next();
    assert_eq!(done.transferred, expected.len(), "{text}: {done:?}");
    let buf = done.buf.into_vec();
    assert_eq!((buf.as_ptr(), buf.capacity()), (place, 100), "{text}: other memory was returned");
    assert_eq!((&buf[..4], &buf[4..]), (&b"mine"[..], expected), "{text}");
    done.result
}

pub(super) fn c1_buffer_is_returned_with_any_result(cx: &TestContext) {
    let mut ops = OpHarness::new(cx);
    let receives: [Receive<Vec<u8>>; 3] = [Op::recv, Op::recv_exact, Op::read];
    for receive in receives {
        let (local, peer) = stream();
        let key = ops.add(local);
        let op = || receive(key, with_spare_capacity(), 3);
        let result = same_memory(&mut ops, op(), b"abc", |_, _| put(&peer, b"abc"));
        assert!(result.is_ok(), "{result:?}");
        let result = same_memory(&mut ops, op(), b"", |ops, id| ops.cancel(id));
        assert_eq!(result.err().and_then(|e| e.raw_os_error()), Some(libc::ECANCELED));
        // Unread data makes the peer's close an error.
        ops.run(Op::send(key, "unread", ..));
        let result = same_memory(&mut ops, op(), b"", |_, _| drop(peer));
        assert_eq!(result.err().and_then(|e| e.raw_os_error()), Some(libc::ECONNRESET));
        let op = Op::send_all(key, with_spare_capacity(), 1..);
        let result = same_memory(&mut ops, op, b"", |_, _| ()).map_err(|e| e.raw_os_error());
        assert!(matches!(result, Err(Some(libc::EPIPE))), "{result:?}");
        let (reader, _writer) = pipe();
        let key = ops.add(Arc::new(reader));
        let result = same_memory(&mut ops, Op::recv(key, with_spare_capacity(), 3), b"", |_, _| ());
        assert_eq!(result.err().and_then(|e| e.raw_os_error()), Some(libc::ENOTSOCK));
    }
    let (local, peer) = stream();
    let (full, _unread) = stream();
    fill(&*full);
    let [local, full] = [local, full].map(|source| ops.add(source));
    let text: &'static [u8] = b"static";
    let done = ops.run(Op::send(local, text, ..));
    assert!(matches!(done.buf, Buf::Static(back) if std::ptr::eq(back, text)), "{done:?}");
    assert_eq!(take(&peer, 9), 6);
    let buf = with_spare_capacity();
    let place = buf.as_ptr();
    for op in [Op::send(local, buf, 1..3), Op::send_all(full, with_spare_capacity(), ..)] {
        let kept = if op.key == Some(local) { place } else { op.buf.as_ptr() };
        let id = ops.submit(op, 1);
        ops.wait(ZERO);
        // The first has completed, and the second has not.
        let _ = ops.harness.poller.cancel(id);
        let done = ops.next();
        assert_eq!(done.buf.as_ptr(), kept, "{done:?}");
        assert_eq!(done.buf.into_vec(), b"mine");
    }
}

/// Closes a socket with a reset.
fn reset(peer: TcpStream) {
    ok(setsockopt(&peer, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 }));
    drop(peer);
}

/// Waits until an operation has read the available bytes.
fn wait_until_read(ops: &mut OpHarness, from: impl AsFd) {
    let started = std::time::Instant::now();
    while oracle(&from, PollFlags::POLLIN).contains(PollFlags::POLLIN) {
        assert!(started.elapsed() < LONG, "the operation reads nothing");
        ops.expect_nothing_yet("recv_exact needs more bytes");
    }
}

pub(super) fn c1_received_bytes_are_counted_with_an_error(cx: &TestContext) {
    let mut ops = OpHarness::new(cx);
    for how in ["end", "late end", "reset", "cancel"] {
        let (local, peer) = tcp();
        let key = ops.add(local.clone());
        ok((&peer).write_all(b"abc"));
        wait_until_kernel(&*local, PollFlags::POLLIN, |bits| bits.contains(PollFlags::POLLIN));
        let mut peer = Some(peer);
        if how == "end" {
            peer.take();
        }
        let id = ops.submit(Op::recv_exact(key, b"> ".to_vec(), 10), 1);
        if how != "end" {
            wait_until_read(&mut ops, &*local);
        }
        match how {
            "reset" => peer.take().into_iter().for_each(reset),
            "cancel" => ops.cancel(id),
            _ => drop(peer.take()),
        }
        let done = ops.next();
        assert_eq!((done.transferred, &done.buf[..]), (3, &b"> abc"[..]), "{how}");
        let error = done.result.err().unwrap_or_else(|| panic!("{how}: recv_exact must fail"));
        let is_right = match how {
            "reset" => error.raw_os_error() == Some(libc::ECONNRESET),
            "cancel" => error.raw_os_error() == Some(libc::ECANCELED),
            _ => error.kind() == ErrorKind::UnexpectedEof,
        };
        assert!(is_right, "{how}: {error:?}");
    }
}

pub(super) fn c1_sent_bytes_are_counted_with_an_error(cx: &TestContext) {
    const LENGTH: usize = 1 << 24;
    let mut ops = OpHarness::new(cx);
    for is_tcp in [false, true] {
        let (tcp_ends, unix_ends) = (tcp(), stream());
        let key = if is_tcp { ops.add(tcp_ends.0) } else { ops.add(unix_ends.0) };
        let bytes: Vec<u8> = (0..LENGTH).map(|at| (at % 251) as u8).collect();
        ops.submit(Op::send_all(key, bytes.clone(), ..), 1);
        ops.expect_nothing_yet("the send buffer is full");
        // Some of it is read, so that the send proceeds; the rest is discarded.
        let peer: Box<dyn AsFd> = if is_tcp { Box::new(tcp_ends.1) } else { Box::new(unix_ends.1) };
        let mut read: Vec<u8> = Vec::new();
        while read.len() < LENGTH / 4 {
            let mut part = vec![0; 1 << 16];
            match nix::unistd::read(&peer, &mut part) {
                Ok(count) => read.extend(&part[..count]),
                Err(error) => assert_eq!(error, nix::errno::Errno::EAGAIN),
            }
            ops.expect_nothing_yet("send_all has more to send");
        }
        drop(peer);
        let done = ops.next();
        let error = done.result.err().and_then(|error| error.raw_os_error());
        assert!(matches!(error, Some(libc::ECONNRESET | libc::EPIPE)), "{error:?}");
        assert_eq!(read, bytes[..read.len()], "in order");
        let sent = done.transferred;
        assert!(sent >= read.len() && sent < LENGTH, "{sent}, of which {} read", read.len());
        assert!(done.buf[..] == bytes[..], "the buffer was changed");
    }
}

pub(super) fn c5_received_bytes_are_appended(cx: &TestContext) {
    let mut ops = OpHarness::new(cx);
    let (local, peer) = stream();
    let key = ops.add(local.clone());
    for early in [true, false] {
        for (held, room, max, sent) in [(0, 0, 5, 5), (0, 0, 5, 9), (3, 3, 4, 2), (3, 100, 4, 9)] {
            let mut buf = Vec::with_capacity(room);
            buf.resize(held, b'.');
            if early {
                put(&peer, &b"abcdefghi"[..sent]);
            }
            ops.submit(Op::recv(key, buf, max), 1);
            if !early {
                ops.expect_nothing_yet("nothing was sent");
                put(&peer, &b"abcdefghi"[..sent]);
            }
            let (count, buf) = bytes(ops.next());
            let moved = sent.min(max);
            let expected = [&b"..."[..held], &b"abcdefghi"[..moved]].concat();
            assert_eq!((count, buf), (moved, expected), "at most {max} of {sent}");
            if sent > moved {
                assert_eq!(take(&local, 100), sent - moved, "the rest stays in the socket");
            }
        }
    }
    let large = vec![5; 100_000];
    let (reader, writer) = tcp();
    let [reader, writer] = [ops.add(reader), ops.add(Arc::new(writer))];
    ops.submit(Op::recv_exact(reader, b"x".to_vec(), 100_000), 1);
    ops.submit(Op::send_all(writer, large.clone(), ..), 2);
    let mut done = ops.collect(2);
    done.sort_by_key(|done| done.token);
    let (count, received) = bytes(done.remove(0));
    assert!(count == 100_000 && received[0] == b'x' && received[1..] == large[..], "{count}");
}

pub(super) fn c5_recv_exact_collects_many_pieces(cx: &TestContext) {
    let mut ops = OpHarness::new(cx);
    let ((local, mut peer), (tcp_local, mut tcp_peer)) = (stream(), tcp());
    let ends: [(Key, &mut dyn Write); 2] =
        [(ops.add(local), &mut peer), (ops.add(tcp_local), &mut tcp_peer)];
    for (key, peer) in ends {
        ops.submit(Op::recv_exact(key, Vec::new(), 40), 1);
        for byte in 0..39 {
            ok(peer.write_all(&[byte]));
            if byte % 3 != 0 {
                ops.expect_nothing_yet("recv_exact needs more bytes");
            }
        }
        ok(peer.write_all(&[39, 40, 41]));
        assert_eq!(bytes(ops.next()), (40, (0..40).collect()));
        let rest = bytes(ops.run(Op::recv_exact(key, Vec::new(), 2)));
        assert_eq!(rest, (2, vec![40, 41]), "too many bytes were received");
    }
    ops.expect_all_done("four receives");
}

pub(super) fn c5_send_uses_the_given_range(cx: &TestContext) {
    let mut ops = OpHarness::new(cx);
    let (local, peer) = stream();
    let key = ops.add(local);
    let sends: [Send<Vec<u8>>; 3] = [Op::send, Op::send_all, Op::write];
    use Bound::{Excluded, Included, Unbounded};
    let ranges = [
        ((Unbounded, Unbounded), &b"abcdef"[..]),
        ((Included(2), Unbounded), b"cdef"),
        ((Unbounded, Excluded(3)), b"abc"),
        ((Included(1), Included(2)), b"bc"),
        ((Excluded(1), Excluded(4)), b"cd"),
        ((Included(5), Included(5)), b"f"),
        ((Included(6), Unbounded), b""),
        ((Included(3), Excluded(3)), b""),
    ];
    for (send, (range, expected)) in sends.into_iter().flat_map(|s| ranges.map(|r| (s, r))) {
        let (count, buf) = bytes(ops.run(send(key, b"abcdef".to_vec(), range)));
        assert_eq!((count, &buf[..]), (expected.len(), &b"abcdef"[..]), "{range:?}");
        let mut got = [0; 10];
        let count = match nix::unistd::read(&peer, &mut got) {
            Err(nix::errno::Errno::EAGAIN) => 0,
            count => ok(count),
        };
        assert_eq!(&got[..count], expected, "{range:?}");
    }
    ops.run(Op::shutdown(key, Shutdown::Write));
    let (pair, flags) = (nix::sys::socket::SockType::Datagram, nix::sys::socket::SockFlag::empty());
    let family = nix::sys::socket::AddressFamily::Unix;
    let (from, to) = ok(nix::sys::socket::socketpair(family, pair, None, flags));
    let [from, to] = [from, to].map(|end| ops.add(Arc::new(end)));
    assert_eq!(bytes(ops.run(Op::send(from, "abc", 3..))).0, 0);
    assert_eq!(bytes(ops.run(Op::send(from, "abc", 1..))).0, 2);
    assert_eq!(bytes(ops.run(Op::recv(to, Vec::new(), 9))), (0, vec![]), "an empty datagram");
    assert_eq!(bytes(ops.run(Op::recv(to, Vec::new(), 9))), (2, b"bc".to_vec()));
}

pub(super) fn c5_invalid_buffers_and_ranges_are_refused(cx: &TestContext) {
    let mut ops = OpHarness::new(cx);
    let (local, peer) = stream();
    let fd = local.as_raw_fd();
    let key = ops.add(local);
    put(&peer, b"data");
    let receives: [(&str, Receive<Buf>); 4] = [
        ("recv", Op::recv),
        ("recv_exact", Op::recv_exact),
        ("recv_from", Op::recv_from),
        ("read", Op::read),
    ];
    let refused = |ops: &mut OpHarness, what: &str, kind, op: Op| {
        let (place, length) = (op.buf.as_ptr(), op.buf.len());
        let (buf, error) = ops.rejected(op);
        assert_eq!(error.kind(), kind, "{what}: {error}");
        assert_eq!(
            (buf.as_ptr(), buf.len()),
            (place, length),
            "{what}: another buffer was returned"
        );
    };
    use ErrorKind::{InvalidInput, OutOfMemory};
    for (what, receive) in receives {
        refused(&mut ops, what, InvalidInput, receive(key, with_spare_capacity().into(), 0));
        refused(&mut ops, what, InvalidInput, receive(key, Buf::Static(b"static"), 3));
        refused(&mut ops, what, InvalidInput, receive(key, Buf::None, 3));
        refused(
            &mut ops,
            what,
            OutOfMemory,
            receive(key, with_spare_capacity().into(), usize::MAX),
        );
        refused(&mut ops, what, OutOfMemory, receive(key, with_spare_capacity().into(), 1 << 62));
    }
    let sends: [(&str, Send<Buf>); 3] =
        [("send", Op::send), ("send_all", Op::send_all), ("write", Op::write)];
    use Bound::{Excluded, Included, Unbounded};
    for (what, send) in sends {
        for range in [
            (Included(3), Excluded(2)),
            (Unbounded, Included(4)),
            (Included(5), Unbounded),
            (Excluded(4), Unbounded),
            (Included(usize::MAX), Included(usize::MAX)),
            (Excluded(usize::MAX), Unbounded),
            (Included(2), Included(usize::MAX)),
        ] {
            refused(&mut ops, what, InvalidInput, send(key, with_spare_capacity().into(), range));
            refused(&mut ops, what, InvalidInput, send(key, Buf::Static(b"four"), range));
        }
        refused(&mut ops, what, InvalidInput, send(key, Buf::None, (Unbounded, Excluded(1))));
    }
    ops.expect_all_done("nothing was accepted");
    assert_eq!(bytes(ops.run(Op::recv(key, Vec::new(), 9))).1, b"data", "descriptor {fd}");
    drain(&peer);
}

/// A receive stops before urgent data, even if the program has taken that already. The bytes after
/// it must be received too.
pub(super) fn c1_receive_continues_past_urgent_data(cx: &TestContext) {
    for is_taken in [false, true] {
        let (local, mut peer) = tcp();
        let mut ops = OpHarness::new(cx);
        let key = ops.add(local.clone());
        ops.submit(Op::recv_exact(key, Vec::new(), 4), 1);
        ops.expect_nothing_yet("nothing was sent");
        ok(peer.write_all(b"ab"));
        put_urgent(&peer);
        ok(peer.write_all(b"cd"));
        wait_until_kernel(&*local, PollFlags::POLLPRI, |bits| bits.contains(PollFlags::POLLPRI));
        if is_taken {
            let taken = recv(local.as_raw_fd(), &mut [0; 1], MsgFlags::MSG_OOB);
            assert_eq!(taken, Ok(1), "the urgent byte");
        }
        assert_eq!(bytes(ops.next()), (4, b"abcd".to_vec()), "taken: {is_taken}");
    }
}
