//! Clauses C2 to C6 for messages: data with an address, descriptors and control messages.

use super::disk::file_of;
use super::op_harness::*;
use super::scenarios::fill_restoring_mode;
use super::util::*;
use crate::op::{
    Address, Completion, Control, Message, MessageFlags, Op, Outcome, ReceivedMessage,
};
use crate::sys::buf::Buf;
use crate::sys::pool::BufferPool;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, setsockopt, socketpair, sockopt};
use nix::sys::stat::fstat;
use std::fs::File;
use std::io::ErrorKind::InvalidInput;
use std::io::{Read, Seek, SeekFrom};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixDatagram};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// A received message.
pub(super) struct MessageParts {
    pub(super) bytes: Vec<u8>,
    pub(super) from: Option<Address>,
    pub(super) files: Vec<OwnedFd>,
    pub(super) control: Vec<Control>,
    pub(super) flags: MessageFlags,
}

pub(super) fn message_parts(done: Completion) -> MessageParts {
    let (moved, bytes) = (done.transferred, done.buf.into_vec());
    match done.result {
        Ok(Outcome::Message(message)) => {
            assert!(moved <= bytes.len(), "transferred bytes exceed the buffer");
            let ReceivedMessage { from, files, control, flags, .. } = *message;
            MessageParts { bytes, from, files, control, flags }
        }
        other => panic!("expected a message, got {other:?}"),
    }
}

pub(super) const KINDS: [SockType; 3] = [SockType::Stream, SockType::Datagram, SockType::SeqPacket];

/// Returns two connected non-blocking Unix sockets.
pub(super) fn pair(kind: SockType) -> (Arc<OwnedFd>, Arc<OwnedFd>) {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let (local, peer) = ok(socketpair(AddressFamily::Unix, kind, None, flags));
    (Arc::new(local), Arc::new(peer))
}

/// Returns a message that passes these files.
pub(super) fn with_files<'a>(files: impl IntoIterator<Item = &'a Arc<File>>) -> Message {
    files.into_iter().fold(Message::new(), |message, file| message.file(file.clone()))
}

/// Creates `count` files, each containing its own number.
pub(super) fn numbered_files(directory: &TempDir, count: usize) -> Vec<Arc<File>> {
    (0..count)
        .map(|at| file_of(&directory.0.join(at.to_string()), at.to_string().as_bytes()))
        .collect()
}

/// Fails unless these descriptors refer to the sent files, in order, and are close-on-exec.
pub(super) fn expect_same(given: &[OwnedFd], sent: &[Arc<File>], why: &str) {
    assert_eq!(given.len(), sent.len(), "{why}: the count of files");
    for (at, (given, sent)) in given.iter().zip(sent).enumerate() {
        let flags = FdFlag::from_bits_retain(ok(fcntl(given, FcntlArg::F_GETFD)));
        assert!(flags.contains(FdFlag::FD_CLOEXEC), "{why}: {at} is not close-on-exec");
        let [given_id, sent_id] = [fstat(given), fstat(sent)].map(|stat| ok(stat).st_ino);
        assert_eq!(given_id, sent_id, "{why}: {at} is another file");
    }
    // A passed descriptor shares the open file description, and so its position.
    if let (Some(given), Some(mut sent)) = (given.last(), sent.last().map(|sent| &**sent)) {
        let before = ok(sent.stream_position());
        let mut given = File::from(ok(given.try_clone()));
        ok(given.seek(SeekFrom::Start(before + 3)));
        assert_eq!(ok(sent.stream_position()), before + 3, "{why}: another open file description");
        ok(sent.seek(SeekFrom::Start(before)));
    }
}

pub(super) fn c6_received_files_keep_order_and_are_cloexec(cx: &TestContext) {
    let directory = TempDir::new();
    let files = numbered_files(&directory, 20);
    for kind in KINDS {
        for is_late in [false, true] {
            for count in [0, 1, 2, 20] {
                let why = format!("{count} by {kind:?}, late: {is_late}");
                let mut ops = OpHarness::new(cx);
                let (local, peer) = pair(kind);
                let [local, peer] = [local, peer].map(|socket| ops.add(socket));
                let receive = || Op::recv_msg(peer, b"> ".to_vec(), 9);
                if is_late {
                    ops.submit(receive(), 1);
                    ops.expect_nothing_yet("nothing was sent");
                }
                let message = with_files(&files[..count]);
                ops.submit(Op::send_msg(local, "(hello)", 1..6, message), 2);
                if !is_late {
                    assert_eq!(bytes(ops.next()).0, 5, "{why}");
                    ops.submit(receive(), 1);
                }
                let mut done = ops.collect(if is_late { 2 } else { 1 });
                let place = done.iter().position(|done| done.token.0 == 1);
                let received = message_parts(done.remove(
                    place.unwrap_or_else(|| panic!("{why}: the receive did not complete")),
                ));
                assert_eq!(received.bytes, b"> hello", "{why}");
                expect_same(&received.files, &files[..count], &why);
                assert!(received.control.is_empty() && received.flags.is_empty(), "{why}");
            }
        }
    }
}

pub(super) fn c3_messages_keep_queue_order(cx: &TestContext) {
    let directory = TempDir::new();
    let files = numbered_files(&directory, 3);
    let mut ops = OpHarness::new(cx);
    let (local, peer) = pair(SockType::Stream);
    let [local, peer] = [local, peer].map(|socket| ops.add(socket));
    ops.submit(Op::recv_exact(peer, vec![], 3), 0);
    ops.submit(Op::recv_msg(peer, vec![], 2), 1);
    ops.submit(Op::recv_msg(peer, vec![], 9), 2);
    ops.submit(Op::recv(peer, vec![], 9), 3);
    ops.expect_nothing_yet("nothing was sent");
    ops.submit(Op::send_all(local, "abc", ..), 10);
    ops.submit(Op::send_msg(local, "DEF", .., with_files(&files[..2])), 11);
    ops.submit(Op::shutdown(local, std::net::Shutdown::Write), 12);
    ops.submit(Op::send_msg(local, "too late", .., Message::new()), 13);
    let (mut read, mut written) = (Vec::new(), Vec::new());
    for done in ops.collect(8) {
        match done.token.0 {
            0..10 => read.push(done),
            _ => written.push((done.token.0, done.result.map(drop).map_err(|e| e.kind()))),
        }
    }
    let broken = Err(std::io::ErrorKind::BrokenPipe);
    assert_eq!(written, [(10, Ok(())), (11, Ok(())), (12, Ok(())), (13, broken)]);
    let order: Vec<_> = read.iter().map(|done| done.token.0).collect();
    assert_eq!(order, [0, 1, 2, 3]);
    let mut read = read.into_iter();
    let mut next = || read.next().unwrap_or_else(|| panic!("four"));
    assert_eq!(bytes(next()).1, b"abc");
    let received = message_parts(next());
    assert_eq!(received.bytes, b"DE", "at most the requested length");
    expect_same(&received.files, &files[..2], "files are received with the first byte");
    let received = message_parts(next());
    assert!(
        received.bytes == b"F" && received.files.is_empty(),
        "the rest of the message, {:?}",
        received.bytes
    );
    assert_eq!(bytes(next()).1, b"", "end of stream");
    let received = message_parts(ops.run(Op::recv_msg(peer, vec![1], 9)));
    assert!(
        received.bytes == [1] && received.files.is_empty() && received.flags.is_empty(),
        "end of stream again"
    );
}

pub(super) fn c2_truncated_message_is_flagged(cx: &TestContext) {
    for kind in [SockType::Datagram, SockType::SeqPacket] {
        let mut ops = OpHarness::new(cx);
        let (local, peer) = pair(kind);
        let [local, peer] = [local, peer].map(|socket| ops.add(socket));
        for (max, flags) in [(4, MessageFlags::TRUNCATED), (5, MessageFlags::empty())] {
            ops.run(Op::send_msg(local, "12345", .., Message::new()));
            let received = message_parts(ops.run(Op::recv_msg(peer, vec![], max)));
            assert_eq!((&*received.bytes, received.flags), (&b"12345"[..max], flags), "{kind:?}");
        }
        ops.run(Op::send_msg(local, "", .., Message::new()));
        let received = message_parts(ops.run(Op::recv_msg(peer, vec![7], 9)));
        assert_eq!(
            (&*received.bytes, received.flags),
            (&[7][..], MessageFlags::empty()),
            "{kind:?}: empty"
        );
    }
}

pub(super) fn c5_received_messages_are_appended(cx: &TestContext) {
    let mut ops = OpHarness::new(cx);
    let (local, peer) = pair(SockType::Datagram);
    let [local, peer] = [local, peer].map(|socket| ops.add(socket));
    let pool = ok(BufferPool::new(4, 1));
    let buffer = || pool.take().unwrap_or_else(|| panic!("the buffer was returned"));
    for (max, buf) in [(0, vec![1].into()), (5, buffer().into()), (1, "static".into())] {
        let kept: Buf = buf;
        let length = kept.len();
        let (buf, error) = ops.rejected(Op::recv_msg(peer, kept, max));
        assert_eq!((error.kind(), buf.len()), (InvalidInput, length), "{max}: {error}");
    }
    ops.run(Op::send_msg(local, buffer(), .., Message::new()));
    let received = message_parts(ops.run(Op::recv_msg(peer, buffer(), 4)));
    assert_eq!(received.bytes, b"", "an empty buffer was sent");
    let (buf, error) = ops.rejected(Op::send_msg(local, "four", 3..5, Message::new()));
    assert_eq!((error.kind(), &*buf), (InvalidInput, &b"four"[..]));
    let fd = 0_i32.to_ne_bytes().to_vec();
    let (level, kind) = (libc::SOL_SOCKET, libc::SCM_RIGHTS);
    let message = Message::new().control(Control { level, kind, data: fd });
    let (buf, error) = ops.rejected(Op::send_msg(local, b"kept".to_vec(), .., message));
    assert_eq!(
        (error.kind(), &*buf),
        (InvalidInput, &b"kept"[..]),
        "SCM_RIGHTS in a control message: {error}"
    );
    ops.expect_nothing_yet("nothing was sent");
}

/// A `struct ucred`.
fn credentials(process: u32, user: u32, group: u32) -> Vec<u8> {
    [process, user, group].into_iter().flat_map(u32::to_ne_bytes).collect()
}

pub(super) fn c2_messages_pass_credentials(cx: &TestContext) {
    let me = std::process::id();
    let (user, group) = (nix::unistd::getuid().as_raw(), nix::unistd::getgid().as_raw());
    let directory = TempDir::new();
    let files = numbered_files(&directory, 2);
    let (level, kind) = (libc::SOL_SOCKET, libc::SCM_CREDENTIALS);
    let mine = Control { level, kind, data: credentials(me, user, group) };
    for socket in KINDS {
        let mut ops = OpHarness::new(cx);
        let (local, peer) = pair(socket);
        ok(setsockopt(&peer, sockopt::PassCred, &true));
        let [local, peer] = [local, peer].map(|socket| ops.add(socket));
        let messages = [with_files(&files), with_files(&files).control(mine.clone())];
        for message in messages {
            ops.run(Op::send_msg(local, "me", .., message));
            let received = message_parts(ops.run(Op::recv_msg(peer, vec![], 9)));
            assert_eq!(received.control, std::slice::from_ref(&mine), "{socket:?}");
            expect_same(&received.files, &files, "with credentials");
        }
        let malformed = Control { level, kind, data: vec![1, 2, 3] };
        let done = ops.run(Op::send_msg(local, "me", .., Message::new().control(malformed)));
        assert_eq!(errno(&done), libc::EINVAL, "malformed credentials");
    }
}

fn udp(at: &str) -> (UdpSocket, SocketAddr) {
    let socket = ok(UdpSocket::bind(at));
    let address = ok(socket.local_addr());
    (socket, address)
}

pub(super) fn c2_recv_msg_returns_datagram_timestamp(cx: &TestContext) {
    let now = || ok(SystemTime::now().duration_since(UNIX_EPOCH)).as_micros();
    let mut ops = OpHarness::new(cx);
    let ((local, address), (peer, _)) = (udp("127.0.0.1:0"), udp("127.0.0.1:0"));
    ok(setsockopt(&local, sockopt::ReceiveTimestamp, &true));
    let key = ops.add(Arc::new(local));
    let before = now();
    ok(peer.send_to(b"hello", address));
    let received = message_parts(ops.run(Op::recv_msg(key, vec![], 9)));
    let after = now();
    let [Control { level, kind, data }] = &received.control[..] else {
        panic!("{:?}", received.control)
    };
    assert_eq!((*level, *kind), (libc::SOL_SOCKET, libc::SCM_TIMESTAMP));
    assert_eq!(data.len(), 16, "a struct timeval");
    let number = |part: &[u8]| part.try_into().map_or(0, i64::from_ne_bytes);
    let time = (number(&data[..8]) * 1_000_000 + number(&data[8..])) as u128;
    // The clock may be set at that moment, but not by more than a day.
    let day = 86_400_000_000;
    assert!((before - day..after + day).contains(&time), "{before} {time} {after}");
    assert!(received.files.is_empty() && received.bytes == b"hello");
}

/// A `struct in_pktinfo`: interface index, local address, header destination.
fn packet_info(ours: Ipv4Addr) -> Control {
    let mut data = 0_i32.to_ne_bytes().to_vec();
    data.extend(ours.octets());
    data.extend([0; 4]);
    Control { level: libc::IPPROTO_IP, kind: libc::IP_PKTINFO, data }
}

pub(super) fn c2_pktinfo_is_received_and_sent(cx: &TestContext) {
    let mut ops = OpHarness::new(cx);
    let ((local, address), (peer, _)) = (udp("0.0.0.0:0"), udp("127.0.0.1:0"));
    let theirs = ok(peer.local_addr());
    ok(setsockopt(&local, sockopt::Ipv4PacketInfo, &true));
    let key = ops.add(Arc::new(local));
    for last in [1, 2, 77] {
        let ours = Ipv4Addr::new(127, 0, 0, last);
        ok(peer.send_to(b"hello", (ours, address.port())));
        let received = message_parts(ops.run(Op::recv_msg(key, vec![], 9)));
        let [Control { level, kind, data }] = &received.control[..] else {
            panic!("{:?}", received.control)
        };
        assert_eq!((*level, *kind), (libc::IPPROTO_IP, libc::IP_PKTINFO));
        assert_eq!(data[8..12], ours.octets(), "the destination address");
        assert!(
            matches!(received.from, Some(Address::Inet(from)) if from == theirs),
            "{:?}",
            received.from
        );
        // Reply from the same address.
        let message = Message::new().to(theirs).control(packet_info(ours));
        assert_eq!(bytes(ops.run(Op::send_msg(key, "back", .., message))).0, 4);
        let mut back = [0; 9];
        let from = ok(peer.recv_from(&mut back)).1;
        assert_eq!((from, &back[..4]), (SocketAddr::from((ours, address.port())), &b"back"[..]));
    }
}

pub(super) fn c2_recv_msg_returns_sender_address(cx: &TestContext) {
    let directory = TempDir::new();
    let address = |name: &str| ok(UnixAddress::from_pathname(directory.0.join(name)));
    let mut ops = OpHarness::new(cx);
    let local = ops.add(Arc::new(ok(UnixDatagram::bind_addr(&address("here")))));
    let peer = ops.add(Arc::new(ok(UnixDatagram::bind_addr(&address("there")))));
    let unnamed = ops.add(Arc::new(ok(UnixDatagram::unbound())));
    let files = numbered_files(&directory, 1);
    for (sender, name) in [(peer, Some("there")), (unnamed, None)] {
        let message = with_files(&files).to(address("here"));
        assert_eq!(bytes(ops.run(Op::send_msg(sender, "hello", .., message))).0, 5);
        let received = message_parts(ops.run(Op::recv_msg(local, vec![], 9)));
        let from = match &received.from {
            Some(Address::Unix(from)) => from.as_pathname().map(ToOwned::to_owned),
            None => None,
            other => panic!("{other:?}"),
        };
        assert_eq!(from, name.map(|name| directory.0.join(name)));
        expect_same(&received.files, &files, "with an address");
    }
    let message = Message::new().to(address("nowhere"));
    let done = ops.run(Op::send_msg(peer, "hello", .., message));
    assert_eq!(errno(&done), libc::ENOENT, "no such address");
}

/// Reads until `WouldBlock` and returns the byte count.
fn drained(socket: &OwnedFd) -> usize {
    let mut file = File::from(ok(socket.try_clone()));
    let (mut part, mut count) = (vec![0; 1 << 16], 0);
    while let Ok(more @ 1..) = file.read(&mut part) {
        count += more;
    }
    count
}

pub(super) fn c2_message_that_waits_passes_files_once(cx: &TestContext) {
    let directory = TempDir::new();
    let files = numbered_files(&directory, 3);
    for kind in KINDS {
        let mut ops = OpHarness::with_capacity(cx, 8);
        let (local, peer) = pair(kind);
        fill_restoring_mode(&local);
        let (from, to) = (ops.add(local.clone()), ops.add(peer.clone()));
        ops.submit(Op::send_msg(from, "first", .., with_files(&files)), 1);
        ops.submit(Op::send_msg(from, "second", .., with_files(&files[..1])), 2);
        ops.expect_nothing_yet("the send buffer is full");
        let shared = |at: usize| Arc::strong_count(&files[at]);
        assert!(shared(0) >= 3 && shared(2) >= 2, "{kind:?}: C4: operations own the files");
        assert!(drained(&peer) > 0, "the send buffer was full");
        let done = ops.collect(2);
        let sent: Vec<_> = done.iter().map(|done| (done.token.0, done.transferred)).collect();
        assert_eq!(sent, [(1, 5), (2, 6)], "{kind:?}");
        drop(done);
        assert_eq!([shared(0), shared(2)], [1, 1], "{kind:?}: C4: until completion");
        let mut passed = Vec::new();
        for (text, count) in [("first", 3), ("second", 1)] {
            let received = message_parts(ops.run(Op::recv_msg(to, vec![], 5.max(text.len()))));
            assert_eq!(received.bytes, text.as_bytes(), "{kind:?}");
            assert_eq!(received.files.len(), count, "{kind:?}: {text}");
            passed.extend(received.files);
        }
        ops.submit(Op::recv_msg(to, vec![], 9), 3);
        ops.expect_nothing_yet("nothing more was sent");
    }
}

/// A message that fits partly: the files are passed with the part sent, not with the rest.
pub(super) fn c2_partial_send_msg_matches_call(cx: &TestContext) {
    const SIZE: usize = 8 << 20;
    let directory = TempDir::new();
    let files = numbered_files(&directory, 2);
    let mut ops = OpHarness::new(cx);
    let (local, peer) = pair(SockType::Stream);
    let (from, to) = (ops.add(local), ops.add(peer));
    let done = ops.run(Op::send_msg(from, vec![7; SIZE], .., with_files(&files)));
    let sent = done.transferred;
    assert!(done.result.is_ok() && 0 < sent && sent < SIZE, "a partial send: {done:?}");
    let (mut left, mut passed) = (sent, Vec::new());
    while left > 0 {
        let received = message_parts(ops.run(Op::recv_msg(to, Vec::new(), SIZE)));
        assert!(!received.bytes.is_empty() && received.bytes.iter().all(|&byte| byte == 7));
        left -= received.bytes.len();
        passed.extend(received.files);
    }
    expect_same(&passed, &files, "once, with the first part");
    let rest = sent..sent + 10;
    assert_eq!(ops.run(Op::send_msg(from, done.buf, rest, Message::new())).transferred, 10);
    let received = message_parts(ops.run(Op::recv_msg(to, Vec::new(), SIZE)));
    assert!(received.bytes == [7; 10] && received.files.is_empty(), "no files with the rest");
}
