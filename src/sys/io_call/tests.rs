//! Calls made by hand: what they move, and whose memory they touch.

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
    let (here, _there) = UnixStream::pair().expect("a pair of sockets");
    let refused = IoCall::new(here.as_fd(), call, buf.into(), part, None);
    let (error, buf) = refused.expect_err("it is not in order");
    (error.kind(), buf)
}

fn moved(gain: io::Result<CallResult>) -> usize {
    match gain.expect("it succeeds") {
        CallResult::Moved(count) => count,
        other => panic!("{other:?}"),
    }
}

fn kind(gain: io::Result<CallResult>) -> io::ErrorKind {
    gain.expect_err("it fails").kind()
}

#[test]
fn what_is_received_is_appended_and_no_more_than_was_asked_for() {
    let (here, mut there) = UnixStream::pair().expect("a pair of sockets");
    for call in [Call::Recv, Call::Read] {
        let mut bytes = Vec::with_capacity(100);
        bytes.extend(b"old ");
        let memory = bytes.as_ptr();
        let mut io_call = io_call(&here, call, bytes, (0, 5));
        // The socket is a blocking one.
        let mut io_mode = io_mode(&here);
        assert_eq!(kind(io_call.attempt(&mut io_mode)), io::ErrorKind::WouldBlock);
        there.write_all(b"new").expect("room");
        assert_eq!(moved(io_call.attempt(&mut io_mode)), 3);
        assert_eq!((io_call.moved(), io_call.left()), (3, 2));
        there.write_all(b"er and more").expect("room");
        assert_eq!(moved(io_call.attempt(&mut io_mode)), 2);
        assert_eq!((io_call.moved(), io_call.left()), (5, 0));
        let buf = io_call.into_buf();
        assert_eq!((&buf[..], buf.as_ptr()), (&b"old newer"[..], memory));
        let mut rest = [0; 9];
        (&here).read_exact(&mut rest).expect("it was left there");
        io_mode.restore(here.as_raw_fd());
    }
}

#[test]
fn what_is_sent_is_the_part_and_what_is_left_of_it() {
    let (here, mut there) = UnixStream::pair().expect("a pair of sockets");
    there.set_nonblocking(true).expect("a socket");
    for call in [Call::Send, Call::Write] {
        let mut io_mode = io_mode(&here);
        let bytes: Vec<u8> = (0..3_000_000_u32).map(|at| (at >> 3) as u8 ^ at as u8).collect();
        let mut io_call = io_call(&here, call, bytes.clone(), (7, bytes.len() - 10));
        let (mut said, mut got) = (0, Vec::new());
        while io_call.left() > 0 {
            match io_call.attempt(&mut io_mode) {
                Ok(gain) => said += moved(Ok(gain)),
                Err(error) => {
                    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                    assert!(there.read_to_end(&mut got).is_err(), "it is not at its end");
                }
            }
            assert_eq!((io_call.moved(), io_call.left()), (said, bytes.len() - 10 - said));
        }
        assert!(there.read_to_end(&mut got).is_err(), "it is not at its end");
        assert!(got == bytes[7..bytes.len() - 3], "{call:?}");
        assert!(io_call.into_buf() == Buf::Vec(bytes), "it was only lent");
        io_mode.restore(here.as_raw_fd());
    }
    let mut io_call = io_call(&here, Call::Send, "static", (2, 3));
    assert_eq!(moved(io_call.attempt(&mut io_mode(&here))), 3);
    let mut got = [0; 8];
    assert_eq!(there.read(&mut got).expect("three"), 3);
    assert_eq!(&got[..3], b"ati");
}

#[test]
fn the_end_and_a_broken_pipe_are_told_as_they_are() {
    let (here, there) = UnixStream::pair().expect("a pair of sockets");
    there.shutdown(std::net::Shutdown::Both).expect("it is connected");
    let mut recv = io_call(&here, Call::Recv, vec![], (0, 5));
    assert_eq!(moved(recv.attempt(&mut io_mode(&here))), 0);
    let mut send = io_call(&here, Call::Send, "data", (0, 4));
    assert_eq!(kind(send.attempt(&mut io_mode(&here))), io::ErrorKind::BrokenPipe);
    assert_eq!((send.moved(), send.left()), (0, 4));
}

#[test]
fn a_connection_is_made_and_accepted() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let to = listener.local_addr().expect("it is bound");
    let mut accept = io_call(&listener, Call::Accept, Buf::None, (0, 0));
    let mut held = io_mode(&listener);
    assert_eq!(kind(accept.attempt(&mut held)), io::ErrorKind::WouldBlock, "it was blocking");
    let socket = nix::sys::socket::socket(
        nix::sys::socket::AddressFamily::Inet,
        nix::sys::socket::SockType::Stream,
        nix::sys::socket::SockFlag::SOCK_CLOEXEC,
        None,
    )
    .expect("a socket");
    let mut connect = named(&socket, Call::Connect, Buf::None, (0, 0), to.into());
    let mut its = io_mode(&socket);
    loop {
        match connect.attempt(&mut its) {
            Ok(CallResult::Connected) => break,
            Ok(other) => panic!("{other:?}"),
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
        }
        let mut entry = [PollFd::new(socket.as_fd(), PollFlags::POLLOUT)];
        poll(&mut entry, PollTimeout::NONE).expect("it goes on");
    }
    its.restore(socket.as_raw_fd());
    let mut entry = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
    poll(&mut entry, PollTimeout::NONE).expect("somebody has come");
    let Ok(CallResult::Accepted(accepted)) = accept.attempt(&mut held) else {
        panic!("it is there")
    };
    let flags = fcntl(&accepted, FcntlArg::F_GETFL).expect("it is open");
    assert!(OFlag::from_bits_retain(flags).contains(OFlag::O_NONBLOCK));
    let flags = fcntl(&accepted, FcntlArg::F_GETFD).expect("it is open");
    assert!(FdFlag::from_bits_retain(flags).contains(FdFlag::FD_CLOEXEC));
    let ours = TcpStream::from(socket).local_addr().expect("it is connected");
    assert!(matches!(Address::from_name(accept.name()), Some(Address::Inet(its)) if its == ours));
}

#[test]
fn a_connection_that_is_refused_says_so() {
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
    let mut its = io_mode(&socket);
    let error = loop {
        match connect.attempt(&mut its) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            other => break other.expect_err("nobody listens"),
        }
        let mut entry = [PollFd::new(socket.as_fd(), PollFlags::POLLOUT)];
        poll(&mut entry, PollTimeout::NONE).expect("it goes on");
    };
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
}

#[test]
fn datagrams_come_with_their_sender_and_are_cut() {
    let [here, there] = [(); 2].map(|()| UdpSocket::bind("127.0.0.1:0").expect("a port"));
    let to = there.local_addr().expect("it is bound");
    let mut send = named(&here, Call::SendTo, b"0123456789".into(), (2, 6), to.into());
    assert_eq!(moved(send.attempt(&mut io_mode(&here))), 6);
    let mut receive = io_call(&there, Call::RecvFrom, b"at: ".to_vec(), (0, 4));
    assert_eq!(moved(receive.attempt(&mut io_mode(&there))), 4);
    let from = here.local_addr().expect("it is bound");
    assert!(matches!(Address::from_name(receive.name()), Some(Address::Inet(its)) if its == from));
    assert_eq!(&receive.into_buf()[..], b"at: 2345");
    let mut receive = io_call(&there, Call::RecvFrom, vec![], (0, 4));
    let next = receive.attempt(&mut io_mode(&there));
    assert_eq!(kind(next), io::ErrorKind::WouldBlock, "the rest of it is lost");
}

#[test]
fn a_sender_without_a_name_has_none() {
    let (here, there) = UnixDatagram::pair().expect("a pair of sockets");
    here.send(b"").expect("room");
    let mut receive = io_call(&there, Call::RecvFrom, vec![], (0, 4));
    assert_eq!(moved(receive.attempt(&mut io_mode(&there))), 0, "it is empty, not the end");
    assert!(Address::from_name(receive.name()).is_none());
}

#[test]
fn what_is_not_in_order_is_refused_with_its_buffer() {
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
        let (here, _there) = UnixStream::pair().expect("a pair of sockets");
        io_call(&here, call, "12345", (5, 0));
        io_call(&here, call, Buf::None, (0, 0));
    }
}

#[test]
fn room_is_made_before_and_once() {
    let (here, mut there) = UnixStream::pair().expect("a pair of sockets");
    let mut recv = io_call(&here, Call::Recv, b"x".to_vec(), (0, 50_000));
    let part = recv.io_buf.part();
    assert_eq!(part.iov_len, 50_000);
    there.write_all(&[1; 20_000]).expect("room");
    assert_eq!(moved(recv.attempt(&mut io_mode(&here))), 20_000);
    let rest = recv.io_buf.part();
    assert_eq!(rest.iov_base as usize, part.iov_base as usize + 20_000, "behind the first");
    assert_eq!(rest.iov_len, 30_000);
}

#[test]
fn more_than_linux_moves_is_asked_for_in_parts() {
    let (here, _there) = UnixStream::pair().expect("a pair of sockets");
    // Room that is never touched is never there.
    let mut recv = io_call(&here, Call::Recv, vec![], (0, 3 << 30));
    assert_eq!(recv.io_buf.part().iov_len, crate::sys::MOST);
    assert_eq!(recv.left(), 3 << 30);
}

#[test]
fn names_are_as_long_as_they_are() {
    assert!(SockAddr::new(&[7; 129]).is_none());
    let longest = SockAddr::new(&[7; 128]).expect("there is room");
    assert_eq!(longest.bytes(), [7; 128]);
    assert_eq!(SockAddr::new(b"abc").expect("there is room").bytes(), b"abc");
    let cut = SockAddr { length: 200, ..longest };
    assert_eq!(cut.bytes(), [7; 128], "what there was no room for is not there");
}

#[test]
fn the_calls_of_other_mechanisms_are_counted() {
    let (here, _there) = UnixStream::pair().expect("a pair of sockets");
    let mut recv = io_call(&here, Call::Recv, b"> ".to_vec(), (0, 3));
    assert_eq!(recv.wanted(), (here.as_raw_fd(), Call::Recv, 3));
    assert_eq!((recv.receive(b"ab"), recv.receive(b"cde")), (2, 1));
    assert_eq!((recv.moved(), recv.left()), (3, 0));
    assert_eq!(&recv.into_buf()[..], b"> abc");
    let mut send = io_call(&here, Call::Send, "012345", (1, 4));
    assert_eq!(send.to_send(), b"1234");
    send.note_sent(3);
    assert_eq!((send.to_send(), send.moved()), (&b"4"[..], 3));
}

/// Whatever a call needs beside its bytes it has, also where nobody has thought of it.
#[test]
fn each_call_has_what_it_needs() {
    let (here, _there) = UnixStream::pair().expect("a pair of sockets");
    let plain = |call, part| {
        let with = CallArgs::Nothing;
        IoCall::with(Some(here.as_fd()), call, vec![].into(), part, with).expect("in order")
    };
    for call in [Call::Accept, Call::RecvFrom, Call::RecvMsg] {
        let part = if call.receives() { Part::In(4) } else { Part::Nothing };
        let io_call = plain(call, part);
        assert!(io_call.message().is_some(), "{call:?} writes a name");
        assert!(Address::from_name(io_call.name()).is_none(), "{call:?}: nobody yet");
    }
    let accept = plain(Call::AcceptMulti, Part::Nothing);
    assert!(accept.message().is_none(), "nobody asks for the names of many");
}

/// What comes is appended, as much as there is room for.
#[test]
fn recv_now_fills_a_buffer() {
    let (here, there) = UnixStream::pair().expect("a pair of sockets");
    let pool = BufferPool::new(8, 1).expect("there is something in it");
    let mut buf = pool.take().expect("it is new");
    let nothing = recv_now(here.as_fd(), &mut buf).expect_err("nothing is there");
    assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
    nix::unistd::write(&there, b"012").expect("room");
    assert_eq!(recv_now(here.as_fd(), &mut buf).expect("it is there"), 3);
    nix::unistd::write(&there, b"3456789").expect("room");
    assert_eq!(recv_now(here.as_fd(), &mut buf).expect("it is there"), 5);
    assert_eq!(&buf[..], b"01234567");
}

/// What would wait for ever there, or in the thread that submits it, is the reactor's.
#[test]
fn what_suits_a_ring_is_known() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let folder = tempfile::tempdir().expect("a place for it");
    let unix = std::os::unix::net::UnixListener::bind(folder.path().join("local"));
    let unix = unix.expect("a free name");
    let (stream, _there) = UnixStream::pair().expect("a pair of sockets");
    let datagram = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let (pipe, _writer) = pipe2(OFlag::O_CLOEXEC).expect("a pipe");
    let suits = |fd: &dyn AsFd, call| {
        let part = if call == Call::Splice { Part::Through(1) } else { Part::Nothing };
        let io_call = IoCall::with(Some(fd.as_fd()), call, Buf::None, part, CallArgs::Nothing);
        io_call.expect("in order").suits_a_ring(&mut FdIoMode::of(fd.as_fd()).expect("it is open"))
    };
    assert!(suits(&listener, Call::AcceptMulti) && suits(&listener, Call::Accept));
    assert!(!suits(&unix, Call::AcceptMulti) && suits(&unix, Call::Accept));
    let pool = BufferPool::new(8, 2).expect("two");
    let receives = |fd: &dyn AsFd| {
        let work = Work::Receive { number: fd.as_fd().as_raw_fd(), pool: pool.clone() };
        work.suits_a_ring(&mut FdIoMode::of(fd.as_fd()).expect("it is open"))
    };
    assert!(receives(&stream) && !receives(&datagram));
    assert!(!suits(&pipe, Call::Splice), "in a ring it takes one of the kernel's own threads");
    assert!(!suits(&stream, Call::Connect), "a ring makes it again");
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
    assert!(!suits(&pipe, Call::Write), "not before it was tried");
}

/// There is no one place for what an outside mechanism has received.
#[test]
#[should_panic(expected = "or not one")]
fn by_hand_nothing_is_received_into_several() {
    let several = Buf::Many([Vec::with_capacity(5).into()].into());
    let part = Part::IntoEach(&[5]);
    let io_call = IoCall::with(None, Call::ReadAt(0), several, part, CallArgs::Nothing);
    io_call.expect("in order").receive(b"hello");
}

#[test]
fn several_buffers_are_for_vectored_calls() {
    let (here, _there) = UnixStream::pair().expect("a pair of sockets");
    let many = || Buf::Many([b"ab".to_vec().into(), b"c".to_vec().into()].into());
    for call in [Call::Recv, Call::Send, Call::Read, Call::Write, Call::SendMsg, Call::RecvMsg] {
        let part = if call.receives() { Part::In(2) } else { Part::Out(0, 3) };
        let refused = IoCall::with(Some(here.as_fd()), call, many(), part, CallArgs::Nothing);
        let (error, buf) = refused.expect_err("one buffer for it");
        assert_eq!((error.kind(), buf), (io::ErrorKind::InvalidInput, many()), "{call:?}");
    }
    for (call, part) in
        [(Call::ReadAt(0), Part::IntoEach(&[1, 1])), (Call::WriteAt(0), Part::OutOfEach)]
    {
        let taken = IoCall::with(Some(here.as_fd()), call, many(), part, CallArgs::Nothing);
        assert_eq!(taken.expect("that is what they are for").into_buf(), many());
    }
}

/// What is passed beside the bytes: it arrives as it was sent, and is owned.
#[test]
fn a_message_brings_what_was_beside_it() {
    let (here, there) = UnixStream::pair().expect("a pair of sockets");
    let file = std::sync::Arc::new(std::fs::File::open("/dev/null").expect("every Linux has it"));
    let held = crate::sys::file::SourceFd::new(file.clone());
    let message = Message::with(None, vec![held.clone(), held], &[]).expect("in order");
    let send = IoCall::with(
        Some(here.as_fd()),
        Call::SendMsg,
        "bytes".into(),
        Part::Out(0, 5),
        CallArgs::Message(message),
    );
    let mut send = send.expect("in order");
    assert_eq!(std::sync::Arc::strong_count(&file), 3, "they stay open");
    assert_eq!(moved(send.attempt(&mut io_mode(&here))), 5);
    drop(send);
    assert_eq!(std::sync::Arc::strong_count(&file), 1);
    let mut receive = io_call(&there, Call::RecvMsg, vec![], (0, 9));
    assert_eq!(moved(receive.attempt(&mut io_mode(&there))), 5);
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
    fn a_stream_is_cut_anywhere_and_stays_whole(
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
