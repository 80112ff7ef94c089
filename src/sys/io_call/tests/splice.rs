//! splice(2) on blocking descriptions: no call blocks or raises a signal.

use super::*;
use crate::sys::file::FileType;
use std::io::Seek;

fn splice(from: &impl AsFd, to: &impl AsFd, most: usize) -> IoCall {
    let args = CallArgs::Target(to.as_fd().as_raw_fd());
    let from = Some(from.as_fd());
    IoCall::with(from, Call::Splice, Buf::None, Transfer::Unbuffered(most), args).expect("in order")
}

fn splice_once(io_call: &mut IoCall, from: &impl AsFd, to: &impl AsFd) -> io::Result<CallResult> {
    let (mut source, mut target) = (io_mode(from), io_mode(to));
    let tried = io_call.attempt_splice(&mut source, &mut target);
    // The flag does not apply to some sockets and to terminals. Pipes have a nonblocking
    // description of their own.
    let is_pipe = |fd: &dyn AsFd| FileType::of(fd.as_fd()).expect("it is open") == FileType::Pipe;
    for fd in [from as &dyn AsFd, to] {
        assert_ne!(is_nonblocking(&fd), is_pipe(fd), "a splice could block");
    }
    source.restore(from.as_fd().as_raw_fd());
    target.restore(to.as_fd().as_raw_fd());
    tried
}

fn is_nonblocking(fd: &impl AsFd) -> bool {
    let flags = fcntl(fd, FcntlArg::F_GETFL).expect("it is open");
    OFlag::from_bits_retain(flags).contains(OFlag::O_NONBLOCK)
}

#[test]
fn splice_moves_socket_to_pipe_to_socket() {
    let _still = crate::testing::no_children();
    let (local, mut peer) = UnixStream::pair().expect("a pair of sockets");
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC).expect("a pipe");
    let mut first = splice(&local, &writer, 5);
    assert_eq!(first.target(), Some(writer.as_raw_fd()));
    assert_eq!(
        kind(splice_once(&mut first, &local, &writer)),
        io::ErrorKind::WouldBlock,
        "no data"
    );
    peer.write_all(b"0123456").expect("room");
    assert_eq!(moved(splice_once(&mut first, &local, &writer)), 5, "the requested count");
    assert_eq!((first.moved(), first.into_buf()), (5, Buf::None));
    let (away, mut out) = UnixStream::pair().expect("a pair of sockets");
    let mut second = splice(&reader, &away, 100);
    assert_eq!(moved(splice_once(&mut second, &reader, &away)), 5);
    assert_eq!(kind(splice_once(&mut second, &reader, &away)), io::ErrorKind::WouldBlock, "empty");
    let mut got = [0; 5];
    out.read_exact(&mut got).expect("it was sent");
    assert_eq!(&got, b"01234");
    for fd in [local.as_fd(), writer.as_fd(), reader.as_fd(), away.as_fd()] {
        assert!(!is_nonblocking(&fd), "restored");
    }
    drop(peer);
    let mut rest = splice(&local, &writer, 100);
    assert_eq!(moved(splice_once(&mut rest, &local, &writer)), 2);
    assert_eq!(moved(splice_once(&mut rest, &local, &writer)), 0, "the end");
}

#[test]
fn splice_to_full_target_would_block() {
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC).expect("a pipe");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let to = listener.local_addr().expect("it is bound");
    let tcp = TcpStream::connect(to).expect("the listener listens");
    let (_peer, _) = listener.accept().expect("a connection");
    let (unix, _peer) = UnixStream::pair().expect("a pair of sockets");
    for to in [tcp.as_fd(), unix.as_fd()] {
        let mut call = splice(&reader, &to, 1 << 16);
        let mut total = 0;
        loop {
            nix::unistd::write(&writer, &[7; 1 << 12]).expect("the pipe is emptied");
            match splice_once(&mut call, &reader, &to) {
                Ok(CallResult::Moved(count)) if count > 0 => total += count,
                other => break assert_eq!(kind(other), io::ErrorKind::WouldBlock),
            }
        }
        assert!(total > 0 && call.moved() == total);
        let mut left = [0; 1 << 16];
        nix::unistd::read(&reader, &mut left).expect("bytes are left in the pipe");
    }
    // A pipe whose buffers are all in use.
    let (local, mut peer) = UnixStream::pair().expect("a pair of sockets");
    let (_end, full) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).expect("a pipe");
    while nix::unistd::write(&full, &[1; 4096]).is_ok() {}
    fcntl(&full, FcntlArg::F_SETFL(OFlag::O_WRONLY)).expect("it is open");
    peer.write_all(b"waits").expect("room");
    let tried = splice_once(&mut splice(&local, &full, 5), &local, &full);
    assert_eq!(kind(tried), io::ErrorKind::WouldBlock);
    let mut got = [0; 5];
    (&local).read_exact(&mut got).expect("the bytes are still in the socket");
    assert_eq!(&got, b"waits");
}

#[test]
fn splice_errors_are_reported() {
    let (one, _two) = UnixStream::pair().expect("a pair of sockets");
    let (other, _three) = UnixStream::pair().expect("a pair of sockets");
    let error = splice_once(&mut splice(&one, &other, 1), &one, &other).expect_err("no pipe");
    assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
    let args = CallArgs::Nothing;
    let from = Some(one.as_fd());
    let lost = IoCall::with(from, Call::Splice, Buf::None, Transfer::Unbuffered(1), args);
    let mut lost = lost.expect("in order");
    assert_eq!(lost.target(), None);
    assert_eq!(kind(lost.run_blocking()), io::ErrorKind::InvalidInput, "no target");
    // The reactor, which knows both files, makes splices.
    let (reader, _writer) = pipe2(OFlag::O_CLOEXEC).expect("a pipe");
    let mut plain = splice(&reader, &one, 1);
    assert_eq!(kind(plain.attempt(&mut io_mode(&reader))), io::ErrorKind::WouldBlock);
}

#[test]
fn file_is_spliced_by_a_thread() {
    let mut file = tempfile::tempfile().expect("there is room");
    file.write_all(b"from a file").expect("there is room");
    file.rewind().expect("lseek");
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC).expect("a pipe");
    let mut call = splice(&file, &writer, 100);
    assert_eq!(moved(call.run_blocking()), 11);
    assert_eq!(call.moved(), 11);
    assert_eq!(moved(call.run_blocking()), 0, "the position is at the end");
    let mut got = [0; 20];
    assert_eq!(nix::unistd::read(&reader, &mut got), Ok(11));
    assert_eq!(&got[..11], b"from a file");
}

/// SIGPIPE ends this process, as it does programs that the Rust runtime has not started.
#[test]
fn splice_to_broken_pipe_raises_no_signal() {
    use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
    const TEST: &str = "splice_to_broken_pipe_raises_no_signal";
    if !crate::testing::is_alone(&format!("sys::io_call::tests::splice::{TEST}")) {
        return;
    }
    let action = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    // SAFETY: no handler is installed.
    unsafe { sigaction(Signal::SIGPIPE, &action) }.expect("it may be set");
    let (source, feed) = pipe2(OFlag::O_CLOEXEC).expect("a pipe");
    nix::unistd::write(&feed, b"data").expect("room");
    let (reader, broken) = pipe2(OFlag::O_CLOEXEC).expect("a pipe");
    drop(reader);
    let (shut, _peer) = UnixStream::pair().expect("a pair of sockets");
    shut.shutdown(std::net::Shutdown::Write).expect("a socket");
    for to in [broken.as_fd(), shut.as_fd()] {
        let mut call = splice(&source, &to, 4);
        let error = splice_once(&mut call, &source, &to).expect_err("there is no reader");
        assert_eq!(error.raw_os_error(), Some(libc::EPIPE));
        let error = call.run_blocking().expect_err("there is no reader");
        assert_eq!(error.raw_os_error(), Some(libc::EPIPE));
    }
    let mut got = [0; 9];
    assert_eq!(nix::unistd::read(&source, &mut got), Ok(4), "nothing was lost");
}
