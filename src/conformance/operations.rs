//! Clauses M1, C4, C6, F2 and Q3: operations together with readiness, and their effect on sources.

use super::op_harness::*;
use super::util::*;
use crate::event::{Interest, Mode, Readiness, Token};
use crate::key::Key;
use crate::op::{Address, Op, Outcome};
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::poll::PollFlags;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Seek, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixListener, UnixStream};
use std::sync::Arc;

fn any_address() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 9).into()
}

/// Returns one operation of every kind that reads, with `buf` if it takes a buffer.
fn reading_ops(key: Key, buf: impl Fn() -> Vec<u8>) -> Vec<(&'static str, Op)> {
    vec![
        ("recv", Op::recv(key, buf(), 3)),
        ("recv_exact", Op::recv_exact(key, buf(), 3)),
        ("recv_from", Op::recv_from(key, buf(), 3)),
        ("read", Op::read(key, buf(), 3)),
        ("accept", Op::accept(key)),
        ("shutdown(Read)", Op::shutdown(key, Shutdown::Read)),
    ]
}

/// Returns one operation of every kind that writes.
fn writing_ops(key: Key, buf: impl Fn() -> Vec<u8>) -> Vec<(&'static str, Op)> {
    vec![
        ("send", Op::send(key, buf(), ..)),
        ("send_all", Op::send_all(key, buf(), ..)),
        ("send_to", Op::send_to(key, buf(), .., any_address())),
        ("write", Op::write(key, buf(), ..)),
        ("connect", Op::connect(key, any_address())),
        ("shutdown(Write)", Op::shutdown(key, Shutdown::Write)),
    ]
}

pub(super) fn m1_operation_in_watched_direction_is_refused(cx: &TestContext) {
    let buf = || {
        let mut buf = Vec::with_capacity(100);
        buf.extend(b"mine");
        buf
    };
    for (watched, mode) in [READ, WRITE, BOTH].into_iter().flat_map(|w| MODES.map(|m| (w, m))) {
        let mut ops = OpHarness::new(cx);
        let (local, peer) = stream();
        put(&peer, b"x");
        let key = ops.harness.register(local.clone(), 1, watched, mode);
        let mut refused = Vec::new();
        refused.extend(watched.contains(READ).then(|| reading_ops(key, buf)));
        refused.extend(watched.contains(WRITE).then(|| writing_ops(key, buf)));
        for (name, op) in refused.into_iter().flatten() {
            let place = op.buf.as_ptr();
            let (buf, error) = ops.rejected(op);
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{name}, {watched:?}: {error}");
            let has_buf = !["accept", "connect"].contains(&name) && !name.starts_with("shutdown");
            if has_buf {
                assert_eq!(buf.as_ptr(), place, "{name}: another buffer was returned");
                let bytes = buf.into_vec();
                assert_eq!((&bytes[..], bytes.capacity()), (&b"mine"[..], 100), "{name}");
            }
        }
        // The registration stands; nothing was read, sent or shut down.
        let readiness = |dir| if dir == READ { Readiness::READABLE } else { Readiness::WRITABLE };
        let ready = watched.iter().map(readiness).fold(Readiness::empty(), |all, one| all | one);
        ops.harness.expect_now(&[(1, ready)], "the registration is unchanged");
        ops.expect_all_done("nothing was accepted");
        assert_eq!((take(&local, 9), oracle(&peer, PollFlags::POLLIN)), (1, PollFlags::empty()));
    }
}

pub(super) fn m1_interest_in_operated_direction_is_refused(cx: &TestContext) {
    for mode in MODES {
        let mut ops = OpHarness::new(cx);
        let (local, peer) = stream();
        let key = ops.harness.register(local.clone(), 1, WRITE, Mode::Level);
        ops.submit(Op::recv(key, Vec::new(), 10), 2);
        ops.submit(Op::recv(key, Vec::new(), 10), 3);
        for interest in [READ, BOTH] {
            let modified = ops.harness.poller.modify(key, Token(9), interest, mode);
            assert_eq!(
                expect_err_kind(modified),
                ErrorKind::InvalidInput,
                "{interest:?}, {mode:?}"
            );
        }
        for _ in 0..2 {
            ops.harness.expect_now(&[(1, Readiness::WRITABLE)], "the registration is unchanged");
        }
        put(&peer, b"one");
        assert_eq!(bytes(ops.next()).1, b"one", "the receive completes");
        let modified = ops.harness.poller.modify(key, Token(9), READ, mode);
        assert_eq!(
            expect_err_kind(modified),
            ErrorKind::InvalidInput,
            "a second receive is queued"
        );
        put(&peer, b"two");
        assert_eq!(bytes(ops.next()).1, b"two");
        ops.harness.modify(key, 4, READ, mode);
        put(&peer, b"three");
        ops.harness.expect_now(&[(4, Readiness::READABLE)], "no receive is left");
        ops.rejected(Op::recv(key, Vec::new(), 10));
        ops.harness.modify(key, 5, Interest::empty(), mode);
        assert_eq!(bytes(ops.run(Op::recv(key, Vec::new(), 10))).1, b"three");
    }
}

pub(super) fn m1_readable_interest_works_with_sends(cx: &TestContext) {
    for mode in MODES {
        let mut ops = OpHarness::new(cx);
        let (local, peer) = stream();
        fill(&*local);
        let key = ops.harness.register(local.clone(), 1, READ, mode);
        ops.submit(Op::send_all(key, vec![7; 1000], ..), 2);
        ops.submit(Op::send(key, "more", ..), 3);
        ops.expect_nothing_yet("the send buffer is full");
        ops.harness.expect_silence("nothing was sent");
        put(&peer, b"x");
        assert_eq!(ops.harness.next("data"), [(1, Readiness::READABLE)], "{mode:?}");
        if mode == Mode::Level {
            ops.harness.expect_now(&[(1, Readiness::READABLE)], "reported by each wait");
        }
        if mode == Mode::OneShot {
            ops.harness.expect_silence("one-shot, reported");
        }
        assert_eq!(take(&local, 10), 1);
        ops.harness.drained(key, READ);
        ops.harness.expect_silence("the byte was read");
        drain(&peer);
        let done = ops.collect(2);
        assert_eq!([done[0].token, done[1].token], [Token(2), Token(3)]);
        put(&peer, b"y");
        if mode == Mode::OneShot {
            ops.harness.expect_silence("sends do not rearm the registration");
            ops.harness.rearm(key, READ);
        }
        ops.harness.expect_now(&[(1, Readiness::READABLE)], "new data");
        ops.expect_all_done("two sends");
    }
}

pub(super) fn m1_writable_interest_works_with_receives(cx: &TestContext) {
    for mode in MODES {
        let mut ops = OpHarness::new(cx);
        let (local, peer) = stream();
        let key = ops.harness.register(local.clone(), 1, WRITE, mode);
        ops.submit(Op::recv(key, Vec::new(), 10), 2);
        assert_eq!(ops.harness.next("writability"), [(1, Readiness::WRITABLE)], "{mode:?}");
        if mode == Mode::Level {
            ops.harness.expect_now(&[(1, Readiness::WRITABLE)], "reported by each wait");
        }
        fill(&*local);
        ops.harness.drained(key, WRITE);
        ops.harness.expect_silence("no room and no data");
        put(&peer, b"data");
        assert_eq!(bytes(ops.next()).1, b"data");
        ops.submit(Op::recv_exact(key, Vec::new(), 2), 3);
        ops.harness.expect_silence("receives do not make it writable");
        drain(&peer);
        if mode == Mode::OneShot {
            ops.harness.expect_silence("one-shot, reported");
            ops.harness.rearm(key, WRITE);
        }
        ops.harness.expect_now(&[(1, Readiness::WRITABLE)], "the peer has drained the stream");
        put(&peer, b"zz");
        assert_eq!(bytes(ops.next()).1, b"zz");
        ops.expect_all_done("two receives");
    }
}

pub(super) fn c4_poller_owns_source_until_completion(cx: &TestContext) {
    let mut ops = OpHarness::new(cx);
    let (local, mut peer) = stream();
    let key = ops.add(local);
    ops.submit(Op::recv(key, Vec::new(), 10), 1);
    ops.submit(Op::recv(key, Vec::new(), 10), 2);
    ops.expect_nothing_yet("nothing was sent");
    assert_eq!(
        oracle(&peer, PollFlags::POLLIN),
        PollFlags::empty(),
        "only the poller holds the source"
    );
    for (token, text) in [(1, b"first"), (2, b"other")] {
        ok(peer.write_all(text));
        let done = ops.next();
        assert_eq!((done.token, bytes(done).1), (Token(token), text.to_vec()));
    }
    ops.harness.deregister(key);
    let bits = oracle(&peer, PollFlags::POLLIN);
    assert!(bits.contains(PollFlags::POLLHUP), "deregistered, but not closed: {bits:?}");
}

/// Returns whether a descriptor is close-on-exec, and whether the file is non-blocking.
fn flags_of(file: &OwnedFd) -> (bool, bool) {
    let fd_flags = FdFlag::from_bits_truncate(ok(fcntl(file, FcntlArg::F_GETFD)));
    let status = OFlag::from_bits_truncate(ok(fcntl(file, FcntlArg::F_GETFL)));
    (fd_flags.contains(FdFlag::FD_CLOEXEC), status.contains(OFlag::O_NONBLOCK))
}

/// Accepts a connection, made before or after the submission; returns it with its peer's address.
fn accept(
    ops: &mut OpHarness,
    key: Key,
    connect: impl FnOnce(),
    first: bool,
) -> (OwnedFd, Address) {
    let mut connect = Some(connect);
    if first {
        connect.take().into_iter().for_each(|connect| connect());
    }
    ops.submit(Op::accept(key), 1);
    if let Some(connect) = connect {
        ops.expect_nothing_yet("no connection is pending");
        connect();
    }
    match ops.next().result {
        Ok(Outcome::Accepted { socket, peer: Some(peer) }) => (socket, peer),
        other => panic!("expected a connection with its peer, got {other:?}"),
    }
}

pub(super) fn c6_accepted_sockets_are_nonblock_cloexec(cx: &TestContext) {
    let directory = TempDir::new();
    let name = format!("quintpoll-{}", directory.0.display());
    for (first, nonblocking) in [(true, true), (true, false), (false, true), (false, false)] {
        let mut ops = OpHarness::new(cx);
        for at in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(at) else { continue };
            ok(listener.set_nonblocking(nonblocking));
            let address = ok(listener.local_addr());
            let (key, mut client) = (ops.add(Arc::new(listener)), None);
            let connect = || client = Some(ok(TcpStream::connect(address)));
            let (socket, peer) = accept(&mut ops, key, connect, first);
            assert_eq!(flags_of(&socket), (true, true), "close-on-exec, O_NONBLOCK");
            let client = client.unwrap_or_else(|| panic!("no client"));
            let expected = ok(client.local_addr());
            assert!(matches!(peer, Address::Inet(peer) if peer == expected), "{peer:?}");
            ok((&client).write_all(b"hello"));
            drop(client);
            let (mut text, key) = (Vec::new(), ops.add(Arc::new(socket)));
            while let (1.., part) = bytes(ops.run(Op::recv(key, Vec::new(), 9))) {
                text.extend(part);
            }
            assert_eq!(text, b"hello", "the socket of another client");
        }
        let path = directory.0.join(format!("{first}-{nonblocking}"));
        let addresses =
            [ok(UnixAddress::from_pathname(path)), ok(UnixAddress::from_abstract_name(&name))];
        for address in addresses {
            let listener = ok(UnixListener::bind_addr(&address));
            ok(listener.set_nonblocking(nonblocking));
            let (key, mut client) = (ops.add(Arc::new(listener)), None);
            let connect = || client = Some(ok(UnixStream::connect_addr(&address)));
            let (socket, peer) = accept(&mut ops, key, connect, first);
            assert_eq!(flags_of(&socket), (true, true), "close-on-exec, O_NONBLOCK");
            assert!(matches!(&peer, Address::Unix(peer) if peer.is_unnamed()), "{peer:?}");
        }
    }
}

pub(super) fn f2_files_are_read_and_written_at_position(cx: &TestContext) {
    let directory = TempDir::new();
    let path = directory.0.join("file");
    let mut ops = OpHarness::new(cx);
    let open = || File::options().read(true).write(true).create(true).truncate(false).open(&path);
    let file = Arc::new(ok(open()));
    let key = ops.add(file.clone());
    for (token, text) in ["hello", " ", "world"].into_iter().enumerate() {
        ops.submit(Op::write(key, text, ..), token);
    }
    let moved: Vec<_> = ops.collect(3).into_iter().map(|d| (d.token.0, bytes(d).0)).collect();
    assert_eq!(moved, [(0, 5), (1, 1), (2, 5)], "in order, each complete");
    assert_eq!(ok(std::fs::read(&path)), b"hello world");
    assert_eq!(ok((&*file).stream_position()), 11, "the file position");
    assert_eq!(bytes(ops.run(Op::read(key, vec![1, 2], 9))), (0, vec![1, 2]), "end of file");
    ok((&*file).seek(io::SeekFrom::Start(3)));
    for (token, max) in [4, 2, 100, 100].into_iter().enumerate() {
        ops.submit(Op::read(key, Vec::new(), max), token);
    }
    let read: Vec<_> = ops.collect(4).into_iter().map(|done| bytes(done).1).collect();
    assert_eq!(read, [&b"lo w"[..], b"or", b"ld", b""], "from the file position");
    let appended = Arc::new(ok(File::options().append(true).open(&path)));
    let key = ops.add(appended);
    assert_eq!(bytes(ops.run(Op::write(key, "-and more-", 1..=3))).0, 3);
    assert_eq!(ok(std::fs::read(&path)), b"hello worldand", "at the end of the file");
    let big: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_ne_bytes).collect();
    ok(std::fs::write(&path, &big));
    let key = ops.add(Arc::new(ok(File::open(&path))));
    let (count, read) = bytes(ops.run(Op::read(key, Vec::new(), big.len() + 1)));
    assert!(count == big.len() && read == big, "{count} bytes of a large file were read");
    ops.expect_all_done("every operation has completed");
}

pub(super) fn f2_devices_are_read_and_written(cx: &TestContext) {
    let mut ops = OpHarness::new(cx);
    let open = |path: &str| Arc::new(ok(File::options().read(true).write(true).open(path)));
    let [null, zero] = ["/dev/null", "/dev/zero"].map(|path| ops.add(open(path)));
    assert_eq!(bytes(ops.run(Op::write(null, "gone", ..))).0, 4);
    assert_eq!(bytes(ops.run(Op::read(null, b"kept".to_vec(), 9))), (0, b"kept".to_vec()));
    assert_eq!(bytes(ops.run(Op::read(zero, vec![1], 3))), (3, vec![1, 0, 0, 0]));
    assert_eq!(bytes(ops.run(Op::write(zero, "gone too", 5..))).0, 3);
    let mut random = [0; 64];
    ok(ok(File::open("/dev/urandom")).read_exact(&mut random));
    let key = ops.add(open("/dev/urandom"));
    let (count, read) = bytes(ops.run(Op::read(key, Vec::new(), 64)));
    assert!(count == 64 && read != random && read != [0; 64], "64 other bytes, got {read:?}");
}

pub(super) fn q3_completions_stay_until_taken(cx: &TestContext) {
    let mut ops = OpHarness::with_capacity(cx, 4);
    let pairs: Vec<_> = (0..10).map(|_| stream()).collect();
    let keys: Vec<_> = pairs.iter().map(|(local, _)| ops.add(local.clone())).collect();
    for (token, (key, (_, peer))) in keys.iter().zip(&pairs).enumerate() {
        ops.submit(Op::recv(*key, Vec::new(), 9), token);
        put(peer, &[token as u8]);
    }
    let (idle, peer) = stream();
    let idle_key = ops.harness.register(idle.clone(), 77, READ, Mode::Level);
    // None of these may block: completions are present, and no others will follow.
    for _ in 0..3 {
        ops.harness.wait(None);
        assert_eq!(ops.harness.events.completed(), 4, "as many as the capacity");
    }
    put(&peer, b"x");
    ops.harness.wait(None);
    assert_eq!(
        ops.harness.reported(),
        [(77, Readiness::READABLE)],
        "events have a capacity of their own"
    );
    ops.harness.deregister(idle_key);
    let mut order = Vec::new();
    for taken in [1, 2, 3] {
        order.extend(ops.collect(taken).into_iter().map(|done| (done.token.0, bytes(done).1)));
        ops.harness.wait(None);
        let left = 4.min(10 - order.len());
        assert_eq!(ops.harness.events.completed(), left, "after {} were taken", order.len());
    }
    ops.harness.events.clear();
    assert_eq!(ops.harness.events.completed(), 4, "clear() must keep completions");
    order.extend(ops.collect(4).into_iter().map(|done| (done.token.0, bytes(done).1)));
    ops.expect_all_done("ten receives");
    order.sort();
    let expected: Vec<_> = (0..10).map(|token| (token, vec![token as u8])).collect();
    assert_eq!(order, expected, "one byte for each receive");
}

pub(super) fn q3_completions_keep_their_order(cx: &TestContext) {
    for capacity in [1, 2, 3, 7, 100] {
        let mut ops = OpHarness::with_capacity(cx, capacity);
        let (local, peer) = stream();
        let key = ops.add(local);
        for token in 0..20 {
            ops.submit(Op::recv(key, Vec::new(), 1), token);
        }
        put(&peer, b"abcdefghijklmnopqrst");
        let mut order = Vec::new();
        for turn in 0.. {
            if ops.left() == 0 {
                break;
            }
            // Every second wait finds completions that were not taken.
            ops.wait(LONG);
            ops.wait(ZERO);
            order.extend(ops.collect(1 + turn % 2 * (ops.left() - 1).min(1)));
        }
        let order: Vec<_> = order.into_iter().map(|done| (done.token.0, bytes(done).1)).collect();
        let expected: Vec<_> = (0..20).map(|token| (token, vec![b'a' + token as u8])).collect();
        assert_eq!(order, expected, "capacity {capacity}");
    }
}
