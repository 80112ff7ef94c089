//! Scenarios of a system call, made directly and as an operation.

use super::op_harness::*;
use super::util::*;
use crate::key::Key;
use crate::op::{Address, Op};
use crate::poller::Source;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{self, AddressFamily, MsgFlags, SockFlag, SockType};
use nix::sys::socket::{SockaddrLike, SockaddrStorage, UnixAddr};
use std::any::Any;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::sync::Arc;
use std::time::Instant;

mod devices;
mod packets;
mod streams;

pub(super) use devices::{counters, files, terminals, unreadable_files};
pub(super) use packets::{sequences, udp, unix_datagrams};
pub(super) use streams::{accepts, connects, pipes, tcp_streams, unix_streams};

/// A system call, or the operation of that name.
#[derive(Clone, Debug)]
pub(super) enum SysCall {
    Recv(usize),
    RecvFrom(usize),
    Read(usize),
    Send(Vec<u8>),
    SendTo(Vec<u8>, Address),
    Write(Vec<u8>),
    Accept,
    Connect(Address),
    Shutdown(Shutdown),
}

impl SysCall {
    pub(super) fn receives(&self) -> bool {
        matches!(self, SysCall::Recv(_) | SysCall::RecvFrom(_) | SysCall::Read(_))
    }

    pub(super) fn op(&self, key: Key) -> Op {
        match self.clone() {
            SysCall::Recv(max) => Op::recv(key, Vec::new(), max),
            SysCall::RecvFrom(max) => Op::recv_from(key, Vec::new(), max),
            SysCall::Read(max) => Op::read(key, Vec::new(), max),
            SysCall::Send(bytes) => Op::send(key, bytes, ..),
            SysCall::SendTo(bytes, to) => Op::send_to(key, bytes, .., to),
            SysCall::Write(bytes) => Op::write(key, bytes, ..),
            SysCall::Accept => Op::accept(key),
            SysCall::Connect(to) => Op::connect(key, to),
            SysCall::Shutdown(how) => Op::shutdown(key, how),
        }
    }

    /// The oracle: repeats the system call until it does not fail with `EAGAIN`.
    pub(super) fn call_directly(&self, source: &Source) -> Result<(usize, Vec<u8>), i32> {
        let started = Instant::now();
        loop {
            match self.call(source) {
                Err(Errno::EAGAIN | Errno::EINTR) => {
                    assert!(started.elapsed() < LONG, "the plain call of {self:?} would block");
                    std::thread::yield_now();
                }
                answer => return answer.map_err(|error| error as i32),
            }
        }
    }

    fn call(&self, source: &Source) -> nix::Result<(usize, Vec<u8>)> {
        let fd = (**source).as_fd().as_raw_fd();
        let quiet = MsgFlags::MSG_NOSIGNAL;
        let into = |max: &usize, call: &dyn Fn(&mut [u8]) -> nix::Result<usize>| {
            let mut bytes = vec![0; *max];
            let count = call(&mut bytes)?;
            bytes.truncate(count);
            Ok((count, bytes))
        };
        let moved = |count| (count, Vec::new());
        match self {
            SysCall::Recv(max) => into(max, &|part| socket::recv(fd, part, MsgFlags::empty())),
            SysCall::RecvFrom(max) => {
                into(max, &|part| Ok(socket::recvfrom::<SockaddrStorage>(fd, part)?.0))
            }
            SysCall::Read(max) => into(max, &|part| nix::unistd::read(source, part)),
            SysCall::Send(bytes) => socket::send(fd, bytes, quiet).map(moved),
            SysCall::SendTo(bytes, to) => socket::sendto(fd, bytes, &*name(to), quiet).map(moved),
            SysCall::Write(bytes) => nix::unistd::write(source, bytes).map(moved),
            SysCall::Accept => {
                let accepted = socket::accept4(fd, SockFlag::SOCK_CLOEXEC)?;
                ok(nix::unistd::close(accepted));
                Ok(moved(0))
            }
            SysCall::Connect(to) => socket::connect(fd, &*name(to)).map(|()| moved(0)),
            SysCall::Shutdown(how) => {
                let how = match how {
                    Shutdown::Read => socket::Shutdown::Read,
                    Shutdown::Write => socket::Shutdown::Write,
                    Shutdown::Both => socket::Shutdown::Both,
                };
                socket::shutdown(fd, how).map(|()| moved(0))
            }
        }
    }
}

/// Converts an address to nix's type.
fn name(address: &Address) -> Box<dyn SockaddrLike> {
    match address {
        Address::Inet(address) => Box::new(SockaddrStorage::from(*address)),
        Address::Unix(address) => Box::new(ok(match address.as_pathname() {
            Some(path) => UnixAddr::new(path),
            None => UnixAddr::new_abstract(address.as_abstract_name().unwrap_or_default()),
        })),
        Address::Other(_) => panic!("no scenario has such an address"),
    }
}

type KeepAlive = Vec<Box<dyn Any>>;

/// A file, a call on it, and the event that lets the call proceed.
pub(super) struct CallScenario {
    pub(super) name: &'static str,
    pub(super) source: Source,
    pub(super) call: SysCall,
    /// True if nothing else lets it proceed. (A full TCP socket may drain by itself.)
    pub(super) is_settled: bool,
    event: Option<Box<dyn FnOnce() -> Box<dyn Any>>>,
    keep: KeepAlive,
}

impl CallScenario {
    /// Returns true if the call can proceed without an event.
    pub(super) fn is_ready(&self) -> bool {
        self.event.is_none()
    }

    /// Triggers the event. The returned objects must be kept alive.
    pub(super) fn trigger(&mut self) -> KeepAlive {
        let event = self.event.take();
        self.keep.extend(event.map(|event| event()));
        std::mem::take(&mut self.keep)
    }

    fn keeping(mut self, call: impl Any) -> Self {
        self.keep.push(Box::new(call));
        self
    }

    /// Sets the event; before it the call would block.
    fn unblocked_by<K: Any>(mut self, event: impl FnOnce() -> K + 'static) -> Self {
        self.event = Some(Box::new(move || Box::new(event())));
        self
    }
}

fn scenario(
    name: &'static str,
    source: impl AsFd + Send + Sync + 'static,
    call: SysCall,
) -> CallScenario {
    CallScenario {
        name,
        source: Arc::new(source),
        call,
        is_settled: true,
        event: None,
        keep: Vec::new(),
    }
}

fn hello() -> Vec<u8> {
    b"hello".to_vec()
}

/// Returns an address at which no socket exists.
fn missing_address() -> Address {
    let path = "/nonexistent/quintpoll";
    ok(std::os::unix::net::SocketAddr::from_pathname(path)).into()
}

fn inet(text: &str) -> Address {
    ok(text.parse::<SocketAddr>()).into()
}

/// Returns an event that writes `bytes` and keeps the descriptor open.
fn write_later(to: OwnedFd, bytes: &'static [u8]) -> impl FnOnce() -> OwnedFd {
    move || {
        assert_eq!(ok(nix::unistd::write(&to, bytes)), bytes.len());
        to
    }
}

fn is_blocking(file: &OwnedFd) -> bool {
    let flags = OFlag::from_bits_retain(ok(fcntl(file, FcntlArg::F_GETFL)));
    !flags.contains(OFlag::O_NONBLOCK)
}

pub(super) fn set_blocking(file: impl AsFd, blocking: bool) {
    let flags = OFlag::from_bits_retain(ok(fcntl(&file, FcntlArg::F_GETFL)));
    let flags = if blocking { flags - OFlag::O_NONBLOCK } else { flags | OFlag::O_NONBLOCK };
    ok(fcntl(&file, FcntlArg::F_SETFL(flags)));
}

/// Fills the write buffer, whether the file is blocking or not; its flags are restored.
pub(super) fn fill_restoring_mode(file: &OwnedFd) {
    let blocking = is_blocking(file);
    set_blocking(file, false);
    fill(file);
    set_blocking(file, blocking);
}

pub(super) fn new_socket(family: AddressFamily, kind: SockType) -> OwnedFd {
    ok(socket::socket(family, kind, SockFlag::SOCK_CLOEXEC, None))
}

pub(super) fn unconnected_unix_stream(blocking: bool) -> OwnedFd {
    let new = new_socket(AddressFamily::Unix, SockType::Stream);
    set_blocking(&new, blocking);
    new
}
