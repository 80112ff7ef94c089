//! The states of a file, and the poll(2) bits of each (Linux 6.18).

use super::util::*;
use crate::poller::Source;
use nix::fcntl::OFlag;
use nix::poll::PollFlags;
use nix::sys::eventfd::EventFd;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, SockaddrIn, sockopt};
use nix::sys::socket::{connect, recv, setsockopt, socket};
use nix::sys::stat::Mode as Permissions;
use std::any::Any;
use std::fs::File;
use std::net::{Shutdown, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

pub(super) struct FdState {
    pub(super) name: &'static str,
    pub(super) source: Source,
    /// The bits of poll(2) if all were requested.
    pub(super) bits: u16,
    /// Objects that must stay open.
    pub(super) keep: Vec<Box<dyn Any>>,
}

const IN: u16 = libc::POLLIN as u16;
const OUT: u16 = libc::POLLOUT as u16;
const PRI: u16 = libc::POLLPRI as u16;
const ERR: u16 = libc::POLLERR as u16;
const HUP: u16 = libc::POLLHUP as u16;
const RDHUP: u16 = libc::POLLRDHUP as u16;
const RESET: u16 = IN | OUT | ERR | HUP | RDHUP;

fn state(name: &'static str, source: Source, bits: u16) -> FdState {
    // TCP delivers a peer's actions asynchronously.
    let requested = PollFlags::POLLIN | PollFlags::POLLOUT | PollFlags::POLLPRI;
    let without_rdhup = PollFlags::from_bits_truncate((bits & !RDHUP) as i16);
    wait_until_kernel(&source, requested, |seen| seen == without_rdhup);
    FdState { name, source, bits, keep: Vec::new() }
}

impl FdState {
    fn keeping(mut self, peer: impl Any) -> Self {
        self.keep.push(Box::new(peer));
        self
    }
}

pub(super) fn all() -> Vec<FdState> {
    [pipes(), fifos(), unix_streams(), tcp_ends(), tcp_errors(), listeners(), urgent(), others()]
        .into_iter()
        .flatten()
        .collect()
}

fn pipes() -> Vec<FdState> {
    let with_data = || {
        let (reader, writer) = pipe();
        assert_eq!(nix::unistd::write(&writer, b"x"), Ok(1));
        (reader, writer)
    };
    let full = || {
        let (reader, writer) = pipe();
        fill(&writer);
        (reader, writer)
    };
    let [(r1, w1), (r2, w2), (r3, _), (r4, _)] = [pipe(), with_data(), with_data(), pipe()];
    let [(r5, w5), (_, w6), (r7, w7), (_, w8)] = [pipe(), pipe(), full(), full()];
    vec![
        state("pipe, empty", Arc::new(r1), 0).keeping(w1),
        state("pipe with data", Arc::new(r2), IN).keeping(w2),
        state("pipe with data, no writer", Arc::new(r3), IN | HUP),
        state("pipe, empty, no writer", Arc::new(r4), HUP),
        state("pipe with room", Arc::new(w5), OUT).keeping(r5),
        state("pipe with room, no reader", Arc::new(w6), OUT | ERR),
        state("pipe, full", Arc::new(w7), 0).keeping(r7),
        state("pipe, full, no reader", Arc::new(w8), ERR),
    ]
}

fn fifos() -> Vec<FdState> {
    let reader = |directory: &TempDir| -> OwnedFd {
        let path = directory.0.join("fifo");
        nix::unistd::mkfifo(&path, Permissions::S_IRWXU).unwrap_or_else(|e| panic!("{e}"));
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        nix::fcntl::open(&path, flags, Permissions::empty()).unwrap_or_else(|e| panic!("{e}"))
    };
    let (new, left) = (TempDir::new(), TempDir::new());
    let (fresh, abandoned) = (reader(&new), reader(&left));
    drop(File::options().write(true).open(left.0.join("fifo")).unwrap_or_else(|e| panic!("{e}")));
    vec![
        state("FIFO that never had a writer", Arc::new(fresh), 0).keeping(new),
        state("FIFO whose writer has closed", Arc::new(abandoned), HUP).keeping(left),
    ]
}

fn unix_streams() -> Vec<FdState> {
    let [(h1, t1), (h2, t2), (h3, t3)] = [stream(), stream(), stream()];
    t1.shutdown(Shutdown::Write).unwrap_or_else(|error| panic!("shutdown: {error}"));
    drop(t2);
    put(&h3, b"unread");
    drop(t3);
    let flags = SockFlag::SOCK_CLOEXEC;
    let alone = socket(AddressFamily::Unix, SockType::Stream, flags, None);
    let alone = alone.unwrap_or_else(|error| panic!("socket: {error}"));
    vec![
        state("unix stream, peer shut down writing", h1, IN | OUT | RDHUP).keeping(t1),
        state("unix stream, peer closed", h2, IN | OUT | RDHUP | HUP),
        state("unix stream, peer closed on unread data", h3, RESET),
        state("unix stream, never connected", Arc::new(alone), OUT | HUP),
    ]
}

fn tcp_ends() -> Vec<FdState> {
    let shut = |end: &std::net::TcpStream, how| {
        end.shutdown(how).unwrap_or_else(|error| panic!("shutdown: {error}"));
    };
    let [(h1, t1), (h2, t2), (h3, t3)] = [tcp(), tcp(), tcp()];
    shut(&t1, Shutdown::Write);
    drop(t2);
    shut(&t3, Shutdown::Write);
    // Shut down our end only after the peer's FIN has arrived, so that the two do not cross.
    wait_until_kernel(&*h3, PollFlags::POLLIN, |bits| bits.contains(PollFlags::POLLIN));
    shut(&h3, Shutdown::Write);
    let [(h4, t4), (h5, t5), (h6, t6)] = [tcp(), tcp(), tcp()];
    shut(&h4, Shutdown::Write);
    shut(&h5, Shutdown::Read);
    shut(&h6, Shutdown::Both);
    let ended = IN | OUT | RDHUP;
    vec![
        state("TCP, peer shut down writing", h1, ended).keeping(t1),
        state("TCP, peer closed", h2, ended),
        state("TCP, both shut down writing", h3, ended | HUP).keeping(t3),
        state("TCP, own end shut down writing", h4, OUT).keeping(t4),
        state("TCP, own end shut down reading", h5, ended).keeping(t5),
        state("TCP, own end shut down", h6, ended | HUP).keeping(t6),
    ]
}

fn tcp_errors() -> Vec<FdState> {
    let (reset, peer) = tcp();
    let at_once = libc::linger { l_onoff: 1, l_linger: 0 };
    setsockopt(&peer, sockopt::Linger, &at_once).unwrap_or_else(|e| panic!("SO_LINGER: {e}"));
    drop(peer);
    let new = || {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let new = socket(AddressFamily::Inet, SockType::Stream, flags, None);
        new.unwrap_or_else(|error| panic!("socket: {error}"))
    };
    let refused = new();
    // A port on which no socket listens: bound, and held without listen(2).
    let holder = new();
    nix::sys::socket::bind(holder.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 0))
        .unwrap_or_else(|error| panic!("bind: {error}"));
    let address: SockaddrIn = nix::sys::socket::getsockname(holder.as_raw_fd())
        .unwrap_or_else(|error| panic!("getsockname: {error}"));
    let _ = connect(refused.as_raw_fd(), &address);
    vec![
        state("TCP, reset", reset, RESET),
        state("TCP, refused", Arc::new(refused), RESET).keeping(holder),
        state("TCP, never connected", Arc::new(new()), OUT | HUP),
    ]
}

fn listeners() -> Vec<FdState> {
    let listen = || TcpListener::bind("127.0.0.1:0").unwrap_or_else(|e| panic!("bind: {e}"));
    let (pending, client) = tcp_listener_and_client();
    let down = listen();
    nix::sys::socket::shutdown(down.as_raw_fd(), nix::sys::socket::Shutdown::Read)
        .unwrap_or_else(|error| panic!("shutdown: {error}"));
    vec![
        state("listener, idle", Arc::new(listen()), 0),
        state("listener with a connection", Arc::new(pending), IN).keeping(client),
        state("listener, shut down", Arc::new(down), OUT | HUP),
    ]
}

fn urgent() -> Vec<FdState> {
    let [(h1, t1), (h2, t2), (h3, t3)] = [tcp(), tcp(), tcp()];
    setsockopt(&h3, sockopt::OobInline, &true).unwrap_or_else(|e| panic!("SO_OOBINLINE: {e}"));
    for (local, peer) in [(&h1, &t1), (&h2, &t2), (&h3, &t3)] {
        put_urgent(peer);
        wait_until_kernel(&**local, PollFlags::POLLPRI, |bits| bits.contains(PollFlags::POLLPRI));
    }
    let taken = recv(h2.as_raw_fd(), &mut [0; 1], MsgFlags::MSG_OOB);
    assert_eq!(taken, Ok(1), "the urgent byte");
    vec![
        state("TCP, urgent byte", h1, OUT | PRI).keeping(t1),
        state("TCP, urgent byte taken", h2, OUT).keeping(t2),
        state("TCP, urgent byte inline", h3, IN | OUT | PRI).keeping(t3),
    ]
}

fn others() -> Vec<FdState> {
    let counter = |value: u64| {
        let counter = EventFd::new().unwrap_or_else(|error| panic!("eventfd: {error}"));
        if value > 0 {
            counter.write(value).unwrap_or_else(|error| panic!("eventfd write: {error}"));
        }
        Arc::new(counter)
    };
    let file = |path: &str| Arc::new(File::open(path).unwrap_or_else(|e| panic!("{path}: {e}")));
    let executable = std::env::current_exe().unwrap_or_else(|error| panic!("{error}"));
    let regular = Arc::new(File::open(executable).unwrap_or_else(|error| panic!("{error}")));
    vec![
        state("eventfd, zero", counter(0), OUT),
        state("eventfd, non-zero", counter(3), IN | OUT),
        state("eventfd, full", counter(u64::MAX - 1), IN),
        state("UDP, refused", refused_datagram(), OUT | ERR),
        state("pseudo-terminal, peer closed", terminal_without_peer(), OUT | HUP),
        state("regular file", regular, IN | OUT),
        state("directory", file("/"), IN | OUT),
        state("/dev/null", file("/dev/null"), IN | OUT),
    ]
}

fn refused_datagram() -> Source {
    let bind = || UdpSocket::bind("127.0.0.1:0").unwrap_or_else(|e| panic!("bind: {e}"));
    let (local, gone) = (bind(), bind());
    let address: SocketAddr = gone.local_addr().unwrap_or_else(|e| panic!("getsockname: {e}"));
    local.connect(address).unwrap_or_else(|error| panic!("connect: {error}"));
    drop(gone);
    local.send(b"x").unwrap_or_else(|error| panic!("send: {error}"));
    Arc::new(local)
}

fn terminal_without_peer() -> Source {
    let pair = nix::pty::openpty(None, None).unwrap_or_else(|error| panic!("openpty: {error}"));
    drop(pair.slave);
    Arc::new(pair.master)
}
