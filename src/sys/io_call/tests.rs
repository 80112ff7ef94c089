//! Calls made directly: the bytes they transfer, and the memory they touch.

mod control;
mod disk;
mod io_buf;
mod splice;

use super::super::pool::BufferPool;
use super::*;
use crate::op::Address;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::pipe2;
use proptest::prelude::*;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixDatagram, UnixStream};

fn io_mode(fd: &impl AsFd) -> FdIoMode {
    FdIoMode::of(fd.as_fd()).expect("an open file")
}

fn io_call(fd: &impl AsFd, call: Call, buf: impl Into<Buf>, part: (usize, usize)) -> IoCall {
    IoCall::new(fd.as_fd(), call, buf.into(), part, None).expect("it is in order")
}

fn named(fd: &impl AsFd, call: Call, buf: Buf, part: (usize, usize), to: Address) -> IoCall {
    let name = to.to_name().expect("it is short");
    IoCall::new(fd.as_fd(), call, buf, part, Some(name)).expect("it is in order")
}

fn refused(call: Call, buf: impl Into<Buf>, part: (usize, usize)) -> (io::ErrorKind, Buf) {
    let (local, _peer) = UnixStream::pair().expect("a pair of sockets");
    let refused = IoCall::new(local.as_fd(), call, buf.into(), part, None);
    let (error, buf) = refused.expect_err("it is not in order");
    (error.kind(), buf)
}

fn moved(result: io::Result<CallResult>) -> usize {
    match result.expect("it succeeds") {
        CallResult::Moved(count) => count,
        other => panic!("{other:?}"),
    }
}

fn kind(result: io::Result<CallResult>) -> io::ErrorKind {
    result.expect_err("it fails").kind()
}

#[test]
fn receive_appends_up_to_the_requested_count() {
    let (local, mut peer) = UnixStream::pair().expect("a pair of sockets");
    for call in [Call::Recv, Call::Read] {
        let mut bytes = Vec::with_capacity(100);
        bytes.extend(b"old ");
        let memory = bytes.as_ptr();
        let mut io_call = io_call(&local, call, bytes, (0, 5));
        // The socket is blocking.
        let mut io_mode = io_mode(&local);
        assert_eq!(kind(io_call.attempt(&mut io_mode)), io::ErrorKind::WouldBlock);
        peer.write_all(b"new").expect("room");
        assert_eq!(moved(io_call.attempt(&mut io_mode)), 3);
        assert_eq!((io_call.moved(), io_call.left()), (3, 2));
        peer.write_all(b"er and more").expect("room");
        assert_eq!(moved(io_call.attempt(&mut io_mode)), 2);
        assert_eq!((io_call.moved(), io_call.left()), (5, 0));
        let buf = io_call.into_buf();
        assert_eq!((&buf[..], buf.as_ptr()), (&b"old newer"[..], memory));
        let mut rest = [0; 9];
        (&local).read_exact(&mut rest).expect("the rest is still there");
        io_mode.restore(local.as_raw_fd());
    }
}

#[test]
fn send_transfers_its_part_in_pieces() {
    let (local, mut peer) = UnixStream::pair().expect("a pair of sockets");
    peer.set_nonblocking(true).expect("a socket");
    for call in [Call::Send, Call::Write] {
        let mut io_mode = io_mode(&local);
        let bytes: Vec<u8> = (0..3_000_000_u32).map(|at| (at >> 3) as u8 ^ at as u8).collect();
        let mut io_call = io_call(&local, call, bytes.clone(), (7, bytes.len() - 10));
        let (mut sent, mut got) = (0, Vec::new());
        while io_call.left() > 0 {
            match io_call.attempt(&mut io_mode) {
                Ok(result) => sent += moved(Ok(result)),
                Err(error) => {
                    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                    assert!(peer.read_to_end(&mut got).is_err(), "it is not at its end");
                }
            }
            assert_eq!((io_call.moved(), io_call.left()), (sent, bytes.len() - 10 - sent));
        }
        assert!(peer.read_to_end(&mut got).is_err(), "it is not at its end");
        assert!(got == bytes[7..bytes.len() - 3], "{call:?}");
        assert!(io_call.into_buf() == Buf::Vec(bytes), "the buffer is returned");
        io_mode.restore(local.as_raw_fd());
    }
    let mut io_call = io_call(&local, Call::Send, "static", (2, 3));
    assert_eq!(moved(io_call.attempt(&mut io_mode(&local))), 3);
    let mut got = [0; 8];
    assert_eq!(peer.read(&mut got).expect("three"), 3);
    assert_eq!(&got[..3], b"ati");
}

#[test]
fn eof_and_broken_pipe_are_reported() {
    let (local, peer) = UnixStream::pair().expect("a pair of sockets");
    peer.shutdown(std::net::Shutdown::Both).expect("it is connected");
    let mut recv = io_call(&local, Call::Recv, vec![], (0, 5));
    assert_eq!(moved(recv.attempt(&mut io_mode(&local))), 0);
    let mut send = io_call(&local, Call::Send, "data", (0, 4));
    assert_eq!(kind(send.attempt(&mut io_mode(&local))), io::ErrorKind::BrokenPipe);
    assert_eq!((send.moved(), send.left()), (0, 4));
}

#[test]
fn connect_and_accept_succeed() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let to = listener.local_addr().expect("it is bound");
    let mut accept = io_call(&listener, Call::Accept, Buf::None, (0, 0));
    let mut listener_mode = io_mode(&listener);
    assert_eq!(
        kind(accept.attempt(&mut listener_mode)),
        io::ErrorKind::WouldBlock,
        "no connection yet"
    );
    let socket = nix::sys::socket::socket(
        nix::sys::socket::AddressFamily::Inet,
        nix::sys::socket::SockType::Stream,
        nix::sys::socket::SockFlag::SOCK_CLOEXEC,
        None,
    )
    .expect("a socket");
    let mut connect = named(&socket, Call::Connect, Buf::None, (0, 0), to.into());
    let mut socket_mode = io_mode(&socket);
    loop {
        match connect.attempt(&mut socket_mode) {
            Ok(CallResult::Connected) => break,
            Ok(other) => panic!("{other:?}"),
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
        }
        let mut entry = [PollFd::new(socket.as_fd(), PollFlags::POLLOUT)];
        poll(&mut entry, PollTimeout::NONE).expect("it goes on");
    }
    socket_mode.restore(socket.as_raw_fd());
    let mut entry = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
    poll(&mut entry, PollTimeout::NONE).expect("a connection");
    let Ok(CallResult::Accepted(accepted)) = accept.attempt(&mut listener_mode) else {
        panic!("no connection")
    };
    let flags = fcntl(&accepted, FcntlArg::F_GETFL).expect("it is open");
    assert!(OFlag::from_bits_retain(flags).contains(OFlag::O_NONBLOCK));
    let flags = fcntl(&accepted, FcntlArg::F_GETFD).expect("it is open");
    assert!(FdFlag::from_bits_retain(flags).contains(FdFlag::FD_CLOEXEC));
    let ours = TcpStream::from(socket).local_addr().expect("it is connected");
    assert!(matches!(Address::from_name(accept.name()), Some(Address::Inet(its)) if its == ours));
}

#[test]
fn refused_connect_is_reported() {
    let gone: SocketAddr = {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.local_addr().expect("it is bound")
    };
    let socket = nix::sys::socket::socket(
        nix::sys::socket::AddressFamily::Inet,
        nix::sys::socket::SockType::Stream,
        nix::sys::socket::SockFlag::SOCK_CLOEXEC,
        None,
    )
    .expect("a socket");
    let mut connect = named(&socket, Call::Connect, Buf::None, (0, 0), gone.into());
    let mut socket_mode = io_mode(&socket);
    let error = loop {
        match connect.attempt(&mut socket_mode) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            other => break other.expect_err("the port is closed"),
        }
        let mut entry = [PollFd::new(socket.as_fd(), PollFlags::POLLOUT)];
        poll(&mut entry, PollTimeout::NONE).expect("it goes on");
    };
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
}

#[test]
fn recv_from_reports_sender_and_truncates() {
    let [local, peer] = [(); 2].map(|()| UdpSocket::bind("127.0.0.1:0").expect("a port"));
    let to = peer.local_addr().expect("it is bound");
    let mut send = named(&local, Call::SendTo, b"0123456789".into(), (2, 6), to.into());
    assert_eq!(moved(send.attempt(&mut io_mode(&local))), 6);
    let mut receive = io_call(&peer, Call::RecvFrom, b"at: ".to_vec(), (0, 4));
    assert_eq!(moved(receive.attempt(&mut io_mode(&peer))), 4);
    let from = local.local_addr().expect("it is bound");
    assert!(matches!(Address::from_name(receive.name()), Some(Address::Inet(its)) if its == from));
    assert_eq!(&receive.into_buf()[..], b"at: 2345");
    let mut receive = io_call(&peer, Call::RecvFrom, vec![], (0, 4));
    let next = receive.attempt(&mut io_mode(&peer));
    assert_eq!(kind(next), io::ErrorKind::WouldBlock, "the rest was truncated");
}

#[test]
fn unnamed_sender_has_no_address() {
    let (local, peer) = UnixDatagram::pair().expect("a pair of sockets");
    local.send(b"").expect("room");
    let mut receive = io_call(&peer, Call::RecvFrom, vec![], (0, 4));
    assert_eq!(moved(receive.attempt(&mut io_mode(&peer))), 0, "an empty datagram");
    assert!(Address::from_name(receive.name()).is_none());
}

#[test]
fn invalid_calls_return_their_buffer() {
    let invalid = io::ErrorKind::InvalidInput;
    for call in [Call::Recv, Call::RecvFrom, Call::Read] {
        assert_eq!(refused(call, "static", (0, 5)), (invalid, "static".into()));
        assert_eq!(refused(call, Buf::None, (0, 5)), (invalid, Buf::None));
        for much in [usize::MAX, usize::MAX / 2, isize::MAX as usize] {
            let bytes = b"kept".to_vec();
            let memory = bytes.as_ptr();
            let (kind, buf) = refused(call, bytes, (0, much));
            assert_eq!(kind, io::ErrorKind::OutOfMemory);
            assert_eq!((&buf[..], buf.as_ptr()), (&b"kept"[..], memory));
        }
    }
    for call in [Call::Send, Call::SendTo, Call::Write] {
        for part in [(0, 6), (6, 0), (5, 1), (usize::MAX, 1), (1, usize::MAX)] {
            assert_eq!(refused(call, b"12345".to_vec(), part), (invalid, b"12345".to_vec().into()));
        }
        let (local, _peer) = UnixStream::pair().expect("a pair of sockets");
        io_call(&local, call, "12345", (5, 0));
        io_call(&local, call, Buf::None, (0, 0));
    }
}

#[test]
fn space_is_reserved_once() {
    let (local, mut peer) = UnixStream::pair().expect("a pair of sockets");
    let mut recv = io_call(&local, Call::Recv, b"x".to_vec(), (0, 50_000));
    let part = recv.io_buf.part();
    assert_eq!(part.iov_len, 50_000);
    peer.write_all(&[1; 20_000]).expect("room");
    assert_eq!(moved(recv.attempt(&mut io_mode(&local))), 20_000);
    let rest = recv.io_buf.part();
    assert_eq!(rest.iov_base as usize, part.iov_base as usize + 20_000, "behind the first");
    assert_eq!(rest.iov_len, 30_000);
}

#[test]
fn large_receive_is_split() {
    let (local, _peer) = UnixStream::pair().expect("a pair of sockets");
    // The reserved memory is never touched.
    let mut recv = io_call(&local, Call::Recv, vec![], (0, 3 << 30));
    assert_eq!(recv.io_buf.part().iov_len, crate::sys::MAX_TRANSFER);
    assert_eq!(recv.left(), 3 << 30);
}

#[test]
fn addresses_keep_their_length() {
    assert!(SockAddr::new(&[7; 129]).is_none());
    let longest = SockAddr::new(&[7; 128]).expect("there is room");
    assert_eq!(longest.bytes(), [7; 128]);
    assert_eq!(SockAddr::new(b"abc").expect("there is room").bytes(), b"abc");
    let cut = SockAddr { length: 200, ..longest };
    assert_eq!(cut.bytes(), [7; 128], "limited to the bytes that were written");
}

#[test]
fn external_calls_count_their_bytes() {
    let (local, _peer) = UnixStream::pair().expect("a pair of sockets");
    let mut recv = io_call(&local, Call::Recv, b"> ".to_vec(), (0, 3));
    assert_eq!(recv.wanted(), (local.as_raw_fd(), Call::Recv, 3));
    assert_eq!((recv.receive(b"ab"), recv.receive(b"cde")), (2, 1));
    assert_eq!((recv.moved(), recv.left()), (3, 0));
    assert_eq!(&recv.into_buf()[..], b"> abc");
    let mut send = io_call(&local, Call::Send, "012345", (1, 4));
    assert_eq!(send.to_send(), b"1234");
    send.note_sent(3);
    assert_eq!((send.to_send(), send.moved()), (&b"4"[..], 3));
}

/// A call has its arguments even if the caller does not provide them.
#[test]
fn each_call_has_its_arguments() {
    let (local, _peer) = UnixStream::pair().expect("a pair of sockets");
    let plain = |call, part| {
        let args = CallArgs::Nothing;
        IoCall::with(Some(local.as_fd()), call, vec![].into(), part, args).expect("in order")
    };
    for call in [Call::Accept, Call::RecvFrom, Call::RecvMsg] {
        let part = if call.receives() { Transfer::In(4) } else { Transfer::Nothing };
        let io_call = plain(call, part);
        assert!(io_call.message().is_some(), "{call:?} writes an address");
        assert!(Address::from_name(io_call.name()).is_none(), "{call:?}: no peer yet");
    }
    let accept = plain(Call::AcceptMulti, Transfer::Nothing);
    assert!(accept.message().is_none(), "accept_multi reports no addresses");
}

/// Received bytes are appended up to the capacity.
#[test]
fn recv_now_fills_a_buffer() {
    let (local, peer) = UnixStream::pair().expect("a pair of sockets");
    let pool = BufferPool::new(8, 1).expect("a valid size and limit");
    let mut buf = pool.take().expect("it is new");
    let nothing = recv_now(local.as_fd(), &mut buf).expect_err("nothing is there");
    assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
    nix::unistd::write(&peer, b"012").expect("room");
    assert_eq!(recv_now(local.as_fd(), &mut buf).expect("it is there"), 3);
    nix::unistd::write(&peer, b"3456789").expect("room");
    assert_eq!(recv_now(local.as_fd(), &mut buf).expect("it is there"), 5);
    assert_eq!(&buf[..], b"01234567");
}

/// A ring is not given calls that would block it, or that it would never complete.
#[test]
fn ring_support_is_known_per_call() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let folder = tempfile::tempdir().expect("a place for it");
    let unix = std::os::unix::net::UnixListener::bind(folder.path().join("local"));
    let unix = unix.expect("a free name");
    let (stream, _peer) = UnixStream::pair().expect("a pair of sockets");
    let datagram = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let (pipe, _writer) = pipe2(OFlag::O_CLOEXEC).expect("a pipe");
    let suits = |fd: &dyn AsFd, call| {
        let part = if call == Call::Splice { Transfer::Unbuffered(1) } else { Transfer::Nothing };
        let io_call = IoCall::with(Some(fd.as_fd()), call, Buf::None, part, CallArgs::Nothing);
        io_call
            .expect("in order")
            .is_supported_by_ring(&mut FdIoMode::of(fd.as_fd()).expect("it is open"))
    };
    assert!(suits(&listener, Call::AcceptMulti) && suits(&listener, Call::Accept));
    assert!(!suits(&unix, Call::AcceptMulti) && suits(&unix, Call::Accept));
    let pool = BufferPool::new(8, 2).expect("two");
    let receives = |fd: &dyn AsFd| {
        let work = Work::Receive { fd: fd.as_fd().as_raw_fd(), pool: pool.clone() };
        work.is_supported_by_ring(&mut FdIoMode::of(fd.as_fd()).expect("it is open"))
    };
    assert!(receives(&stream) && !receives(&datagram));
    assert!(!suits(&pipe, Call::Splice), "it occupies a kernel worker");
    assert!(!suits(&stream, Call::Connect), "a ring repeats the call");
    let file = tempfile::tempfile().expect("a place for it");
    let (mut byte, mut part) = ([0; 1], libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 1 });
    part.iov_base = byte.as_mut_ptr().cast();
    // SAFETY: there is room for one byte.
    let read = unsafe { libc::preadv2(file.as_raw_fd(), &part, 1, 0, libc::RWF_NOWAIT) };
    let knows_nowait = read >= 0;
    assert_eq!([Call::ReadAt(7), Call::WriteAt(7)].map(|it| suits(&file, it)), [knows_nowait; 2]);
    assert!(!suits(&file, Call::Read) && !suits(&file, Call::Write), "they share a position");
    let by_number = [Call::Sync { data_only: true }, Call::Sync { data_only: false }, Call::Open];
    assert!(by_number.iter().all(|&call| !suits(&file, call)), "the worker's table is used");
    assert!(!suits(&pipe, Call::Write), "not before the first call");
}

/// `receive` writes to a single buffer.
#[test]
#[should_panic(expected = "a plain receive is expected")]
fn vectored_external_receive_panics() {
    let several = Buf::Many([Vec::with_capacity(5).into()].into());
    let part = Transfer::IntoEach(&[5]);
    let io_call = IoCall::with(None, Call::ReadAt(0), several, part, CallArgs::Nothing);
    io_call.expect("in order").receive(b"hello");
}

#[test]
fn only_vectored_calls_take_several_buffers() {
    let (local, _peer) = UnixStream::pair().expect("a pair of sockets");
    let many = || Buf::Many([b"ab".to_vec().into(), b"c".to_vec().into()].into());
    for call in [Call::Recv, Call::Send, Call::Read, Call::Write, Call::SendMsg, Call::RecvMsg] {
        let part = if call.receives() { Transfer::In(2) } else { Transfer::Out(0, 3) };
        let refused = IoCall::with(Some(local.as_fd()), call, many(), part, CallArgs::Nothing);
        let (error, buf) = refused.expect_err("the call takes one buffer");
        assert_eq!((error.kind(), buf), (io::ErrorKind::InvalidInput, many()), "{call:?}");
    }
    for (call, part) in
        [(Call::ReadAt(0), Transfer::IntoEach(&[1, 1])), (Call::WriteAt(0), Transfer::OutOfEach)]
    {
        let taken = IoCall::with(Some(local.as_fd()), call, many(), part, CallArgs::Nothing);
        assert_eq!(taken.expect("a vectored call").into_buf(), many());
    }
}

/// Passed files arrive, and are owned by the receiver.
#[test]
fn message_passes_files() {
    let (local, peer) = UnixStream::pair().expect("a pair of sockets");
    let file = std::sync::Arc::new(std::fs::File::open("/dev/null").expect("every Linux has it"));
    let listener_mode = crate::sys::file::SourceFd::new(file.clone());
    let message =
        Message::with(None, vec![listener_mode.clone(), listener_mode], &[]).expect("in order");
    let send = IoCall::with(
        Some(local.as_fd()),
        Call::SendMsg,
        "bytes".into(),
        Transfer::Out(0, 5),
        CallArgs::Message(message),
    );
    let mut send = send.expect("in order");
    assert_eq!(std::sync::Arc::strong_count(&file), 3, "they stay open");
    assert_eq!(moved(send.attempt(&mut io_mode(&local))), 5);
    drop(send);
    assert_eq!(std::sync::Arc::strong_count(&file), 1);
    let mut receive = io_call(&peer, Call::RecvMsg, vec![], (0, 9));
    assert_eq!(moved(receive.attempt(&mut io_mode(&peer))), 5);
    let mut received = receive.take_received();
    assert_eq!(received.flags & (libc::MSG_CTRUNC | libc::MSG_TRUNC), 0);
    let files = received.take_files();
    assert_eq!((files.len(), received.ancillary.others.len()), (2, 0));
    for file in &files {
        let flags = fcntl(file, FcntlArg::F_GETFD).expect("it is open");
        assert!(FdFlag::from_bits_retain(flags).contains(FdFlag::FD_CLOEXEC));
    }
    assert!(receive.take_received().take_files().is_empty(), "once");
    assert_eq!(&receive.into_buf()[..], b"bytes");
}

proptest! {
    #[test]
    fn split_stream_stays_whole(
        asked in prop::collection::vec(1..50_usize, 1..10),
        sent in prop::collection::vec(1..50_usize, 1..10),
        start in 0..9_usize,
    ) {
        let (reader, writer) = pipe2(OFlag::O_CLOEXEC).expect("a pipe");
        let (mut reads, mut writes) = (io_mode(&reader), io_mode(&writer));
        let total: usize = sent.iter().sum();
        let all: Vec<u8> = (0..start + total).map(|at| at as u8).collect();
        let mut at = start;
        for count in sent {
            let mut write = io_call(&writer, Call::Write, all.clone(), (at, count));
            prop_assert_eq!(moved(write.attempt(&mut writes)), count);
            at += count;
        }
        let mut got = all[..start].to_vec();
        for most in asked.into_iter().cycle() {
            let before = got.len();
            let mut read = io_call(&reader, Call::Read, got, (0, most));
            let count = moved(read.attempt(&mut reads));
            got = read.into_buf().into_vec();
            prop_assert!(count <= most && got.len() == before + count);
            if got.len() == all.len() {
                break;
            }
        }
        prop_assert_eq!(got, all);
    }
}
