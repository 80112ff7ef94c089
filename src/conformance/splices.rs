//! Clauses C2, C3, C5, C7 and M1 for splices: bytes moved from one source to another.

use super::disk::{Rng, file_of};
use super::op_harness::*;
use super::scenarios::{fill_restoring_mode, set_blocking};
use super::util::*;
use crate::event::{Mode, Token};
use crate::key::Key;
use crate::op::Op;
use crate::poller::Source;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::PollFlags;
use nix::sys::stat::Mode as Permissions;
use std::fs::File;
use std::io::ErrorKind::InvalidInput;
use std::io::{Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

/// A source and its peer.
pub(super) struct FilePair {
    pub(super) name: &'static str,
    pub(super) local: Source,
    pub(super) peer: OwnedFd,
}

fn pair(name: &'static str, local: impl AsFd + Send + Sync + 'static, peer: OwnedFd) -> FilePair {
    FilePair { name, local: Arc::new(local), peer }
}

fn owned(file: impl AsFd) -> OwnedFd {
    ok(file.as_fd().try_clone_to_owned())
}

/// Returns a FIFO, reader first.
fn fifo() -> (OwnedFd, OwnedFd) {
    let directory = TempDir::new();
    let path = directory.0.join("fifo");
    ok(nix::unistd::mkfifo(&path, Permissions::S_IRWXU));
    let flags = OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
    let open = |access| ok(nix::fcntl::open(&path, flags | access, Permissions::empty()));
    (open(OFlag::O_RDONLY), open(OFlag::O_WRONLY))
}

/// Returns every kind of source to splice from.
pub(super) fn sources() -> [FilePair; 4] {
    let ((reader, writer), (named, to_named)) = (pipe(), fifo());
    let ((unix, to_unix), (inet, to_inet)) = (stream(), tcp());
    [
        pair("pipe", reader, writer),
        pair("FIFO", named, to_named),
        pair("unix stream", owned(unix), to_unix.into()),
        pair("TCP", owned(inet), to_inet.into()),
    ]
}

/// Returns every kind of source to splice to.
pub(super) fn targets() -> [FilePair; 4] {
    let ((reader, writer), (named, to_named)) = (pipe(), fifo());
    let ((unix, to_unix), (inet, to_inet)) = (stream(), tcp());
    [
        pair("pipe", writer, reader),
        pair("FIFO", to_named, named),
        pair("unix stream", owned(unix), to_unix.into()),
        pair("TCP", owned(inet), to_inet.into()),
    ]
}

/// Returns every combination in which one of the two is a pipe.
pub(super) fn ways() -> impl Iterator<Item = (FilePair, FilePair)> {
    let each = (0..4).flat_map(|from| (0..4).map(move |to| (from, to)));
    let has_pipe = |&(from, to): &(usize, usize)| from < 2 || to < 2;
    each.filter(has_pipe).map(|(from, to)| {
        let nth = |pairs: [FilePair; 4], at| pairs.into_iter().nth(at);
        let both = nth(sources(), from).zip(nth(targets(), to));
        both.unwrap_or_else(|| panic!("four sources and targets"))
    })
}

pub(super) fn write_bytes(to: &OwnedFd, bytes: &[u8]) {
    assert_eq!(ok(nix::unistd::write(to, bytes)), bytes.len());
}

/// Reads exactly `count` bytes from a non-blocking file.
pub(super) fn read_bytes(from: &OwnedFd, count: usize) -> Vec<u8> {
    let mut received = Vec::new();
    while received.len() < count {
        wait_until_kernel(from, PollFlags::POLLIN, |bits| !bits.is_empty());
        let mut part = vec![0; count - received.len()];
        let more = ok(nix::unistd::read(from, &mut part));
        assert!(more > 0, "end of file after {} of {count} bytes", received.len());
        received.extend(&part[..more]);
    }
    received
}

/// Fails unless the file is empty.
pub(super) fn expect_empty(from: &OwnedFd, why: &str) {
    let received = nix::unistd::read(from, &mut [0; 64]);
    assert_eq!(received, Err(nix::errno::Errno::EAGAIN), "{why}");
}

pub(super) fn c2_splice_moves_bytes_in_order(cx: &TestContext) {
    for blocking in [false, true] {
        for is_late in [false, true] {
            for (from, to) in ways() {
                let why = format!("{} to {}, late: {is_late}", from.name, to.name);
                set_blocking(&from.local, blocking);
                set_blocking(&to.local, blocking);
                let mut ops = OpHarness::new(cx);
                let (source, target) = (ops.add(from.local), ops.add(to.local));
                if is_late {
                    ops.submit(Op::splice(source, target, 5), 1);
                    ops.expect_nothing_yet("nothing was written");
                }
                write_bytes(&from.peer, b"hello world");
                if !is_late {
                    wait_until_kernel(&from.peer, PollFlags::POLLOUT, |bits| !bits.is_empty());
                    ops.submit(Op::splice(source, target, 5), 1);
                }
                assert_eq!(bytes(ops.next()), (5, vec![]), "{why}");
                assert_eq!(read_bytes(&to.peer, 5), b"hello", "{why}");
                let done = ops.run(Op::splice(source, target, 1 << 20));
                assert_eq!(bytes(done).0, 6, "{why}: all available bytes");
                assert_eq!(read_bytes(&to.peer, 6), b" world", "{why}");
                ops.submit(Op::splice(source, target, 9), 2);
                ops.expect_nothing_yet("nothing more was written");
                drop(from.peer);
                assert_eq!(bytes(ops.next()).0, 0, "{why}: end of file");
                assert_eq!(
                    bytes(ops.run(Op::splice(source, target, 9))).0,
                    0,
                    "{why}: end of file again"
                );
                expect_empty(&to.peer, &why);
            }
        }
    }
}

pub(super) fn c2_splice_uses_the_file_position(cx: &TestContext) {
    let directory = TempDir::new();
    let content = Rng(21).bytes(200_000);
    let path = directory.0.join("file");
    let file = file_of(&path, &content);
    let mut ops = OpHarness::new(cx);
    let (reader, writer) = pipe();
    let [from, into, out] =
        [file.clone() as Source, Arc::new(writer), Arc::new(reader)].map(|file| ops.add(file));
    let target = file_of(&directory.0.join("target"), b"0123456789");
    ok((&*target).seek(std::io::SeekFrom::Start(3)));
    let to = ops.add(target.clone());
    let mut moved = 0;
    while moved < content.len() {
        let done = ops.run(Op::splice(from, into, 50_000));
        let count = bytes(done).0;
        assert!((1..=50_000).contains(&count), "{count}");
        let mut left = count;
        while left > 0 {
            let back = bytes(ops.run(Op::splice(out, to, left))).0;
            assert!(back > 0 && back <= left, "{back} of {left}");
            left -= back;
        }
        moved += count;
        assert_eq!(ok((&*file).stream_position()), moved as u64, "the file position");
    }
    assert_eq!(bytes(ops.run(Op::splice(from, into, 9))).0, 0, "end of file");
    let written = ok(std::fs::read(directory.0.join("target")));
    assert!(written[..3] == *b"012" && written[3..] == content, "{} bytes", written.len());
    // Operations at the file position are queued in order, and so is a splice.
    ok((&*file).rewind());
    ops.submit(Op::read(from, vec![], 10), 1);
    ops.submit(Op::splice(from, into, 10), 2);
    ops.submit(Op::read(from, vec![], 10), 3);
    let done = ops.collect(3);
    let order: Vec<_> = done.iter().map(|done| (done.token.0, done.transferred)).collect();
    assert_eq!(order, [(1, 10), (2, 10), (3, 10)]);
    assert!(*done[0].buf == content[..10] && *done[2].buf == content[20..30]);
    assert_eq!(bytes(ops.run(Op::read(out, vec![], 99))), (10, content[10..20].to_vec()));
    let appended = ok(File::options().append(true).open(&path));
    let to = ops.add(Arc::new(appended));
    let done = {
        ops.run(Op::write(into, "x", ..));
        ops.run(Op::splice(out, to, 9))
    };
    assert_eq!(errno(&done), libc::EINVAL, "as for splice(2)");
    assert_eq!(bytes(ops.run(Op::read(out, vec![], 9))).1, b"x", "the byte stays in the pipe");
}

pub(super) fn c2_splice_waits_for_either_side(cx: &TestContext) {
    for (from, to) in ways() {
        let why = format!("{} to {}", from.name, to.name);
        let mut ops = OpHarness::new(cx);
        let full = owned(&to.local);
        fill_restoring_mode(&full);
        let (source, target) = (ops.add(from.local), ops.add(to.local));
        ops.submit(Op::splice(source, target, 64), 1);
        ops.expect_nothing_yet("neither is ready");
        write_bytes(&from.peer, b"through");
        if to.name != "TCP" {
            // On TCP the peer may take more at any time.
            ops.expect_nothing_yet("the target is full");
        }
        let mut received = 0;
        let done = loop {
            let mut part = vec![0; 1 << 16];
            match nix::unistd::read(&to.peer, &mut part) {
                Ok(count) => received += count,
                Err(error) => assert_eq!(error, nix::errno::Errno::EAGAIN, "{why}"),
            }
            ops.wait(ZERO);
            if ops.harness.events.completed() > 0 {
                break ops.next();
            }
        };
        assert!(received > 0, "{why}: the target was full");
        assert_eq!(bytes(done).0, 7, "{why}");
        let mut last = Vec::new();
        while !last.ends_with(b"through") {
            // Reading byte by byte would be slow: TCP buffers hold megabytes.
            wait_until_kernel(&to.peer, PollFlags::POLLIN, |bits| !bits.is_empty());
            let mut part = vec![0; 1 << 16];
            let count = ok(nix::unistd::read(&to.peer, &mut part));
            assert!(count > 0, "{why}: end of file too early");
            last.extend(&part[..count]);
        }
        expect_empty(&to.peer, &why);
    }
}

/// A splice polls first, but must still report ends and errors at once, as splice(2) does.
pub(super) fn c2_idle_splice_reports_ends_at_once(cx: &TestContext) {
    let (mut ops, ways) = (OpHarness::new(cx), sources().into_iter().zip(targets()));
    for (from, to) in ways.filter(|(from, _)| from.name != "pipe" && from.name != "FIFO") {
        let (reader, writer) = pipe();
        let (source, target) = (ops.add(from.local), ops.add(Arc::new(writer)));
        for _ in 0..2 {
            ops.submit(Op::splice(source, target, 9), 1);
            ops.expect_nothing_yet("nothing was written");
            write_bytes(&from.peer, b"through");
            assert_eq!(bytes(ops.next()).0, 7, "{}", from.name);
        }
        drop(reader);
        let done = ops.run(Op::splice(source, target, 9));
        assert_eq!(errno(&done), libc::EPIPE, "{}: idle, without a reader", from.name);
        let (reader, writer) = pipe();
        let full = owned(&to.local);
        let (source, target) = (ops.add(Arc::new(reader)), ops.add(to.local));
        ops.submit(Op::splice(source, target, 9), 1);
        ops.expect_nothing_yet("nothing was written");
        write_bytes(&writer, b"through");
        assert_eq!(bytes(ops.next()).0, 7, "{}", to.name);
        let itself = ops.add(Arc::new(owned(&writer)));
        let done = ops.run(Op::splice(source, itself, 9));
        assert_eq!(errno(&done), libc::EINVAL, "idle, to itself");
        ops.harness.deregister(itself);
        for _ in 0..2 {
            fill_restoring_mode(&full);
            write_bytes(&writer, b"through");
            ops.submit(Op::splice(source, target, 9), 1);
            while ops.harness.events.completed() == 0 {
                let _ = nix::unistd::read(&to.peer, &mut vec![0; 1 << 16]);
                ops.wait(ZERO);
            }
            assert_eq!(bytes(ops.next()).0, 7, "{}", to.name);
        }
        fill_restoring_mode(&full);
        drop(writer);
        let done = ops.run(Op::splice(source, target, 9));
        assert_eq!(bytes(done).0, 0, "{}: full, without a writer", to.name);
    }
}

/// Moves much more than a pipe holds; every byte must arrive, in order.
pub(super) fn c2_splices_lose_and_duplicate_no_byte(cx: &TestContext) {
    const SIZE: usize = 3 << 20;
    let content = Arc::new(Rng(3).bytes(SIZE));
    for (from, to) in ways() {
        let why = format!("{} to {}", from.name, to.name);
        let content = content.clone();
        let mut ops = OpHarness::new(cx);
        let (source, target) = (ops.add(from.local), ops.add(to.local));
        let (peer, sent) = (from.peer, content.clone());
        let writer = std::thread::spawn(move || {
            set_blocking(&peer, true);
            let mut peer = File::from(peer);
            let mut rng = Rng(8);
            let mut rest = &sent[..];
            while !rest.is_empty() {
                let (part, others) = rest.split_at(rest.len().min(1 + rng.below(9000)));
                ok(peer.write_all(part));
                rest = others;
            }
        });
        let peer = to.peer;
        let reader = std::thread::spawn(move || {
            set_blocking(&peer, true);
            let mut all = vec![0; SIZE];
            let mut peer = File::from(peer);
            ok(peer.read_exact(&mut all));
            (all, peer)
        });
        let (mut moved, mut rng) = (0, Rng(99));
        loop {
            for token in 0..4 {
                ops.submit(Op::splice(source, target, 1 + rng.below(100_000)), token);
            }
            let counts = ops.collect(4).into_iter().map(|done| bytes(done).0);
            let counts: Vec<_> = counts.collect();
            moved += counts.iter().sum::<usize>();
            if counts[3] == 0 {
                break;
            }
        }
        assert_eq!(moved, SIZE, "{why}");
        writer.join().unwrap_or_else(|_| panic!("{why}: the writer failed"));
        let (received, _) = reader.join().unwrap_or_else(|_| panic!("{why}: the reader failed"));
        assert!(received == *content, "{why}: the bytes differ");
    }
}

pub(super) fn c2_invalid_splices_match_system_call(cx: &TestContext) {
    let directory = TempDir::new();
    let file = |name: &str| file_of(&directory.0.join(name), b"content") as Source;
    let mut peers = Vec::new();
    // The error does not depend on data.
    let [socket, other, idle, idle_too] = [&b"hello"[..], b"hello", b"", b""].map(|text| {
        let (local, peer) = stream();
        put(&peer, text);
        peers.push(peer);
        local as Source
    });
    let (reader, writer) = pipe();
    write_bytes(&writer, b"hello");
    let (reader, writer): (Source, Source) = (Arc::new(reader), Arc::new(writer));
    let counter = ok(nix::sys::eventfd::EventFd::from_value_and_flags(
        1,
        nix::sys::eventfd::EfdFlags::EFD_CLOEXEC,
    ));
    let read_only = Arc::new(ok(File::open(directory.0.join("a")).or_else(|_| {
        drop(file("a"));
        File::open(directory.0.join("a"))
    })));
    let zero = ok(nix::sys::eventfd::EventFd::new());
    let cases: [(&str, Source, Source, i32); 8] = [
        ("idle socket to socket", idle, idle_too, libc::EINVAL),
        ("idle counter to pipe", Arc::new(zero), writer.clone(), libc::EINVAL),
        ("file to file", file("a"), file("b"), libc::EINVAL),
        ("socket to socket", socket.clone(), other.clone(), libc::EINVAL),
        ("file to socket", file("a"), socket, libc::EINVAL),
        ("counter to pipe", Arc::new(counter), writer.clone(), libc::EINVAL),
        ("a pipe to itself", reader.clone(), writer.clone(), libc::EINVAL),
        ("to a read-only file", reader, read_only, libc::EBADF),
    ];
    for (why, from, to, expected) in cases {
        let mut ops = OpHarness::new(cx);
        ops.label = why;
        let (from, to) = (ops.add(from), ops.add(to));
        let done = ops.run(Op::splice(from, to, 9));
        assert_eq!((errno(&done), done.transferred), (expected, 0), "{why}: as for splice(2)");
    }
}

fn refused(ops: &mut OpHarness, op: Op, why: &str) {
    let error = ops.rejected(op).1;
    assert_eq!(error.kind(), InvalidInput, "{why}: {error}");
}

pub(super) fn m1_splice_uses_two_directions(cx: &TestContext) {
    let mut ops = OpHarness::new(cx);
    let ((local, peer), (reader, writer)) = (stream(), pipe());
    let socket = ops.harness.register(local, 1, READ, Mode::Level);
    let [into, out] = [writer, reader].map(|end| ops.add(Arc::new(end)));
    refused(&mut ops, Op::splice(socket, into, 9), "the direction is watched");
    refused(&mut ops, Op::splice(into, into, 9), "to itself");
    ops.harness.modify(socket, 1, WRITE, Mode::Level);
    refused(&mut ops, Op::splice(out, socket, 9), "the direction is watched");
    refused(&mut ops, Op::splice(socket, into, 0), "a length of zero");
    let id = ops.submit(Op::splice(socket, into, 9), 1);
    let modified = |ops: &mut OpHarness, key: Key, interest| {
        ops.harness.poller.modify(key, Token(1), interest, Mode::Level).map_err(|e| e.kind())
    };
    assert_eq!(modified(&mut ops, socket, READ), Err(InvalidInput), "a splice reads from it");
    assert_eq!(modified(&mut ops, into, WRITE), Err(InvalidInput), "a splice writes to it");
    assert_eq!(modified(&mut ops, socket, WRITE), Ok(()), "the other direction is unused");
    assert_eq!(modified(&mut ops, into, READ), Ok(()), "the other direction is unused");
    ops.cancel(id);
    assert!(ops.next().is_canceled());
    assert_eq!(modified(&mut ops, into, WRITE), Ok(()), "the splice has completed");
    assert_eq!(modified(&mut ops, socket, READ), Ok(()), "the splice has completed");
    put(&peer, b"x");
    let kept = ops.harness.ready_now().iter().any(|&(token, _)| token == 1);
    assert!(kept, "it is reported");
    let stale = ops.add(Arc::new(pipe().0));
    ops.harness.deregister(stale);
    for op in [Op::splice(stale, out, 9), Op::splice(out, stale, 9)] {
        assert_eq!(ops.rejected(op).1.kind(), std::io::ErrorKind::NotFound);
    }
}

pub(super) fn c7_splices_restore_file_status_flags(cx: &TestContext) {
    for by_deregister in [false, true] {
        for (from, to) in ways() {
            let why = format!("{} to {}", from.name, to.name);
            set_blocking(&from.local, true);
            set_blocking(&to.local, true);
            let flags = || {
                [&from.local, &to.local].map(|file| {
                    let flags = OFlag::from_bits_retain(ok(fcntl(file, FcntlArg::F_GETFL)));
                    flags - OFlag::O_ASYNC
                })
            };
            let before = flags();
            let mut ops = OpHarness::new(cx);
            let keys = [&from.local, &to.local].map(|file| ops.add(file.clone()));
            write_bytes(&from.peer, b"hello");
            assert_eq!(bytes(ops.run(Op::splice(keys[0], keys[1], 9))).0, 5, "{why}");
            ops.submit(Op::splice(keys[0], keys[1], 9), 1);
            ops.wait(ZERO);
            if by_deregister {
                keys.into_iter().for_each(|key| ops.harness.deregister(key));
            } else {
                drop(ops);
            }
            assert_eq!(flags(), before, "{why}, by deregister: {by_deregister}");
        }
    }
}

/// Every splice to a target without reader, in a process that SIGPIPE would end.
pub(super) fn c2_splices_raise_no_sigpipe(cx: &TestContext) {
    let_sigpipe_end_the_process();
    for (from, to) in ways() {
        let why = format!("{} to {}", from.name, to.name);
        let mut ops = OpHarness::new(cx);
        let (source, target) = (ops.add(from.local), ops.add(to.local));
        write_bytes(&from.peer, b"hello");
        drop(to.peer);
        // On TCP the reset arrives asynchronously.
        let mut last = None;
        for _ in 0..1000 {
            let done = ops.run(Op::splice(source, target, 1));
            if done.result.is_err() {
                last = Some(errno(&done));
            }
            if last == Some(libc::EPIPE) {
                break;
            }
            if done.result.is_ok() {
                write_bytes(&from.peer, b"x");
            }
        }
        assert_eq!(last, Some(libc::EPIPE), "{why}");
    }
    // A splice from a file runs on a thread of the pool.
    let directory = TempDir::new();
    let mut ops = OpHarness::new(cx);
    let (reader, writer) = pipe();
    drop(reader);
    let from = ops.add(file_of(&directory.0.join("file"), b"content"));
    let to = ops.add(Arc::new(writer));
    assert_eq!(errno(&ops.run(Op::splice(from, to, 9))), libc::EPIPE);
}
