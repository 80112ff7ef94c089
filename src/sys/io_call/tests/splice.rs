//! splice(2) on descriptions that block: it never does, and raises no signal.

use super::*;
use crate::sys::file::FileType;
use std::io::Seek;

fn splice(from: &impl AsFd, to: &impl AsFd, most: usize) -> IoCall {
    let with = CallArgs::Target(to.as_fd().as_raw_fd());
    let from = Some(from.as_fd());
    IoCall::with(from, Call::Splice, Buf::None, Part::Through(most), with).expect("in order")
}

fn once(io_call: &mut IoCall, from: &impl AsFd, to: &impl AsFd) -> io::Result<CallResult> {
    let (mut source, mut target) = (io_mode(from), io_mode(to));
    let tried = io_call.attempt_splice(&mut source, &mut target);
    // A flag of the call is not enough for each kind of socket and for a terminal. Pipes have a
    // description of their own that does not block.
    let is_pipe = |fd: &dyn AsFd| FileType::of(fd.as_fd()).expect("it is open") == FileType::Pipe;
    for fd in [from as &dyn AsFd, to] {
        assert_ne!(is_nonblocking(&fd), is_pipe(fd), "nothing can have it wait");
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
fn bytes_go_from_a_socket_to_a_pipe_and_on() {
    let _still = crate::testing::no_children();
    let (here, mut there) = UnixStream::pair().expect("a pair of sockets");
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC).expect("a pipe");
    let mut first = splice(&here, &writer, 5);
    assert_eq!(first.target(), Some(writer.as_raw_fd()));
    assert_eq!(kind(once(&mut first, &here, &writer)), io::ErrorKind::WouldBlock, "it blocks");
    there.write_all(b"0123456").expect("room");
    assert_eq!(moved(once(&mut first, &here, &writer)), 5, "as many as asked for");
    assert_eq!((first.moved(), first.into_buf()), (5, Buf::None));
    let (away, mut out) = UnixStream::pair().expect("a pair of sockets");
    let mut second = splice(&reader, &away, 100);
    assert_eq!(moved(once(&mut second, &reader, &away)), 5);
    assert_eq!(kind(once(&mut second, &reader, &away)), io::ErrorKind::WouldBlock, "no more");
    let mut got = [0; 5];
    out.read_exact(&mut got).expect("it was sent");
    assert_eq!(&got, b"01234");
    for fd in [here.as_fd(), writer.as_fd(), reader.as_fd(), away.as_fd()] {
        assert!(!is_nonblocking(&fd), "as it was");
    }
    drop(there);
    let mut rest = splice(&here, &writer, 100);
    assert_eq!(moved(once(&mut rest, &here, &writer)), 2);
    assert_eq!(moved(once(&mut rest, &here, &writer)), 0, "the end");
}

#[test]
fn a_target_without_room_is_not_waited_for() {
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC).expect("a pipe");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let to = listener.local_addr().expect("it is bound");
    let tcp = TcpStream::connect(to).expect("somebody listens");
    let (_peer, _) = listener.accept().expect("somebody has come");
    let (unix, _there) = UnixStream::pair().expect("a pair of sockets");
    for to in [tcp.as_fd(), unix.as_fd()] {
        let mut call = splice(&reader, &to, 1 << 16);
        let mut total = 0;
        loop {
            nix::unistd::write(&writer, &[7; 1 << 12]).expect("the pipe is emptied");
            match once(&mut call, &reader, &to) {
                Ok(CallResult::Moved(count)) if count > 0 => total += count,
                other => break assert_eq!(kind(other), io::ErrorKind::WouldBlock),
            }
        }
        assert!(total > 0 && call.moved() == total);
        let mut left = [0; 1 << 16];
        nix::unistd::read(&reader, &mut left).expect("it was left there");
    }
    // A pipe that is full, by its bytes and by its places.
    let (here, mut there) = UnixStream::pair().expect("a pair of sockets");
    let (_end, full) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).expect("a pipe");
    while nix::unistd::write(&full, &[1; 4096]).is_ok() {}
    fcntl(&full, FcntlArg::F_SETFL(OFlag::O_WRONLY)).expect("it is open");
    there.write_all(b"waits").expect("room");
    let tried = once(&mut splice(&here, &full, 5), &here, &full);
    assert_eq!(kind(tried), io::ErrorKind::WouldBlock);
    let mut got = [0; 5];
    (&here).read_exact(&mut got).expect("it was left there");
    assert_eq!(&got, b"waits");
}

#[test]
fn what_the_call_refuses_is_told() {
    let (one, _two) = UnixStream::pair().expect("a pair of sockets");
    let (other, _three) = UnixStream::pair().expect("a pair of sockets");
    let error = once(&mut splice(&one, &other, 1), &one, &other).expect_err("no pipe");
    assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
    let with = CallArgs::Nothing;
    let from = Some(one.as_fd());
    let lost = IoCall::with(from, Call::Splice, Buf::None, Part::Through(1), with);
    let mut lost = lost.expect("in order");
    assert_eq!(lost.target(), None);
    assert_eq!(kind(lost.perform()), io::ErrorKind::InvalidInput, "to nowhere");
    // It is for the reactor, which knows both files.
    let (reader, _writer) = pipe2(OFlag::O_CLOEXEC).expect("a pipe");
    let mut plain = splice(&reader, &one, 1);
    assert_eq!(kind(plain.attempt(&mut io_mode(&reader))), io::ErrorKind::WouldBlock);
}

#[test]
fn a_file_is_spliced_by_a_thread() {
    let mut file = tempfile::tempfile().expect("there is room");
    file.write_all(b"from a file").expect("there is room");
    file.rewind().expect("lseek");
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC).expect("a pipe");
    let mut call = splice(&file, &writer, 100);
    assert_eq!(moved(call.perform()), 11);
    assert_eq!(call.moved(), 11);
    assert_eq!(moved(call.perform()), 0, "at its own position, which is the end");
    let mut got = [0; 20];
    assert_eq!(nix::unistd::read(&reader, &mut got), Ok(11));
    assert_eq!(&got[..11], b"from a file");
}

/// A process in which the signal is deadly, as it is for programs that Rust has not started.
#[test]
fn nobody_is_signalled_when_nobody_reads() {
    use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
    const TEST: &str = "nobody_is_signalled_when_nobody_reads";
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
        let error = once(&mut call, &source, &to).expect_err("nobody reads");
        assert_eq!(error.raw_os_error(), Some(libc::EPIPE));
        let error = call.perform().expect_err("nor now");
        assert_eq!(error.raw_os_error(), Some(libc::EPIPE));
    }
    let mut got = [0; 9];
    assert_eq!(nix::unistd::read(&source, &mut got), Ok(4), "nothing was lost");
}
