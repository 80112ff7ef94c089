//! One file of each kind, not ready yet, and how to make it ready.

use super::util::*;
use crate::poller::Source;
use crate::sys::staging::{self, Thread};
use nix::fcntl::{FcntlArg, FdFlag, OFlag};
use nix::poll::PollFlags;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::eventfd::EventFd;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::sys::stat::Mode as Permissions;
use nix::sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr};
use nix::sys::time::TimeSpec;
use nix::sys::timer::{Expiration, TimerSetTimeFlags};
use nix::sys::timerfd::{ClockId, TimerFd, TimerFlags};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

/// A file that is not ready, and what makes it ready. The result of `trigger` must stay open.
pub(super) struct Kind {
    pub(super) name: &'static str,
    pub(super) source: Source,
    pub(super) trigger: Trigger,
    /// True if nothing else makes it ready.
    pub(super) is_settled: bool,
}

pub(super) type Trigger = Box<dyn FnOnce() -> Box<dyn std::any::Any + Send> + Send>;

fn kind<K: Send + 'static>(
    name: &'static str,
    source: Source,
    trigger: impl FnOnce() -> K + Send + 'static,
) -> Kind {
    Kind { name, source, trigger: Box::new(move || Box::new(trigger())), is_settled: true }
}

fn unwrap_nix<T>(unwrap_io: nix::Result<T>) -> T {
    unwrap_io.unwrap_or_else(|error| panic!("{error}"))
}

fn unwrap_io<T>(unwrap_io: std::io::Result<T>) -> T {
    unwrap_io.unwrap_or_else(|error| panic!("{error}"))
}

/// Returns a function that writes one byte to `to` and keeps it open.
fn byte<F: AsFd + Send + 'static>(to: F) -> impl FnOnce() -> F + Send {
    move || {
        assert_eq!(unwrap_nix(nix::unistd::write(&to, b"x")), 1);
        to
    }
}

/// Returns files that become readable.
pub(super) fn readers() -> Vec<Kind> {
    [pipes(), sockets(), counters(), terminals(), processes()].into_iter().flatten().collect()
}

fn pipes() -> Vec<Kind> {
    let ((data, writer), (end, closing)) = (pipe(), pipe());
    let directory = TempDir::new();
    let path = directory.0.join("fifo");
    unwrap_nix(nix::unistd::mkfifo(&path, Permissions::S_IRWXU));
    let open = |flags| {
        unwrap_nix(nix::fcntl::open(&path, flags | OFlag::O_NONBLOCK, Permissions::empty()))
    };
    let (fifo, fifo_writer) = (open(OFlag::O_RDONLY), open(OFlag::O_WRONLY));
    let (both, both_writer) = (open(OFlag::O_RDWR), open(OFlag::O_WRONLY));
    vec![
        kind("pipe", Arc::new(data), byte(writer)),
        kind("pipe, writer closed", Arc::new(end), move || drop(closing)),
        kind("FIFO opened for both", Arc::new(both), {
            let write = byte(both_writer);
            move || {
                let writer = write();
                // The byte was readable from both.
                assert_eq!(unwrap_nix(nix::unistd::read(&fifo, &mut [0; 1])), 1);
                drop(fifo_writer);
                let write = byte(writer);
                (write(), fifo)
            }
        }),
    ]
}

fn sockets() -> Vec<Kind> {
    let (datagram, sender) = unix_pair(SockType::Datagram);
    let (sequence, packet_sender) = unix_pair(SockType::SeqPacket);
    let ((data, peer), (end, closing), (shut, shutting)) = (stream(), stream(), stream());
    let ((tcp_data, tcp_peer), (tcp_end, tcp_closing)) = (tcp(), tcp());
    let listener = unwrap_io(TcpListener::bind("127.0.0.1:0"));
    let address = unwrap_io(listener.local_addr());
    let datagrams = unwrap_io(UdpSocket::bind("127.0.0.1:0"));
    let udp_address = unwrap_io(datagrams.local_addr());
    vec![
        kind("unix datagram", Arc::new(datagram), byte(sender)),
        kind("unix seqpacket", Arc::new(sequence), byte(packet_sender)),
        kind("unix stream", data, byte(peer)),
        kind("unix stream, peer closed", end, move || drop(closing)),
        kind("unix stream, peer shut down", shut, move || {
            unwrap_io(shutting.shutdown(std::net::Shutdown::Write));
            shutting
        }),
        kind("TCP", tcp_data, byte(tcp_peer)),
        kind("TCP, peer closed", tcp_end, move || drop(tcp_closing)),
        kind("TCP listener", Arc::new(listener), move || unwrap_io(TcpStream::connect(address))),
        kind("UDP", Arc::new(datagrams), move || {
            let sender = unwrap_io(UdpSocket::bind("127.0.0.1:0"));
            unwrap_io(sender.send_to(b"x", udp_address));
            sender
        }),
    ]
}

/// An epoll instance as a source; nix's type does not implement `AsFd`.
struct Nested(Epoll);

impl AsFd for Nested {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.0.as_fd()
    }
}

fn counters() -> Vec<Kind> {
    let counter = Arc::new(unwrap_nix(EventFd::new()));
    let inner = Arc::new(unwrap_nix(EventFd::new()));
    let nested = unwrap_nix(Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC));
    unwrap_nix(nested.add(&*inner, EpollEvent::new(EpollFlags::EPOLLIN, 0)));
    let timer =
        Arc::new(unwrap_nix(TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_CLOEXEC)));
    let directory = TempDir::new();
    let inotify = unwrap_nix(Inotify::init(InitFlags::IN_CLOEXEC));
    unwrap_nix(inotify.add_watch(&directory.0, AddWatchFlags::IN_CREATE));
    vec![
        kind("eventfd", counter.clone(), move || unwrap_nix(counter.write(1))),
        kind("epoll", Arc::new(Nested(nested)), move || {
            unwrap_nix(inner.write(1));
            inner
        }),
        kind("timerfd", timer.clone(), move || {
            let soon = Expiration::OneShot(TimeSpec::new(0, 1));
            unwrap_nix(timer.set(soon, TimerSetTimeFlags::empty()));
        }),
        kind("inotify", Arc::new(inotify), move || {
            unwrap_io(std::fs::write(directory.0.join("new"), b""));
            directory
        }),
    ]
}

fn terminals() -> Vec<Kind> {
    let pair = || {
        let pair = unwrap_nix(nix::pty::openpty(None, None));
        for end in [&pair.master, &pair.slave] {
            unwrap_nix(nix::fcntl::fcntl(end, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)));
        }
        // A terminal in canonical mode holds a line back until it is complete.
        let mut settings = unwrap_nix(tcgetattr(&pair.slave));
        cfmakeraw(&mut settings);
        unwrap_nix(tcsetattr(&pair.slave, SetArg::TCSANOW, &settings));
        pair
    };
    let [to_master, to_slave, no_slave, no_master] = [pair(), pair(), pair(), pair()];
    vec![
        kind("terminal, master", Arc::new(to_master.master), byte(to_master.slave)),
        kind("terminal, slave", Arc::new(to_slave.slave), byte(to_slave.master)),
        kind("terminal, slave closed", Arc::new(no_slave.master), move || drop(no_slave.slave)),
        kind("terminal, master closed", Arc::new(no_master.slave), move || drop(no_master.master)),
    ]
}

/// Needs a process of its own: it starts a child.
fn processes() -> Vec<Kind> {
    // Blocked and directed to this thread, so that it stays pending.
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGUSR2);
    unwrap_nix(signals.thread_block());
    let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
    let (signalfd, thread) = (unwrap_nix(SignalFd::with_flags(&signals, flags)), Thread::current());
    // A signal may be left over from an earlier call.
    while unwrap_nix(signalfd.read_signal()).is_some() {}

    let mut cat =
        unwrap_io(Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn());
    let stdin = cat.stdin.take();
    let pidfd = unwrap_io(staging::open_pidfd(cat.id()));
    vec![
        kind("signalfd", Arc::new(signalfd), move || thread.signal(libc::SIGUSR2)),
        kind("pidfd", Arc::new(pidfd), move || {
            drop(stdin);
            // Not waited for: the zombie is what makes the pidfd ready.
            cat
        }),
    ]
}

/// Returns a full file, which becomes writable when the peer drains it.
fn full<F: AsFd + Send + 'static>(name: &'static str, source: Source, other: F) -> Kind {
    let sees_room = source.clone();
    kind(name, source, move || {
        let started = Instant::now();
        // TCP reports room asynchronously.
        while !oracle((*sees_room).as_fd(), WRITABLE).contains(WRITABLE) {
            assert!(started.elapsed() < LONG, "no room after {LONG:?}");
            drain(&other);
        }
        other
    })
}

/// Returns full files that become writable.
pub(super) fn writers() -> Vec<Kind> {
    let mut kinds = Vec::new();
    let ways: [fn(BorrowedFd<'_>); 2] = [|file| fill(file), fill_unrefused];
    for fill in ways {
        let ((reader, writer), (local, peer), (tcp_local, tcp_peer)) = (pipe(), stream(), tcp());
        let (datagram, sink) = unix_pair(SockType::Datagram);
        let (sequence, end) = unix_pair(SockType::SeqPacket);
        let sources: [Source; 5] =
            [Arc::new(writer), local, tcp_local, Arc::new(datagram), Arc::new(sequence)];
        sources.iter().for_each(|source| fill((**source).as_fd()));
        let [pipe, stream, tcp, datagram, sequence] = sources;
        fill_until_settled((*tcp).as_fd(), fill);
        kinds.push(full("pipe, full", pipe, reader));
        kinds.push(full("unix stream, full", stream, peer));
        // A window probe may still find room at the peer.
        kinds.push(Kind { is_settled: false, ..full("TCP, full", tcp, tcp_peer) });
        kinds.push(full("unix datagram, full", datagram, sink));
        kinds.push(full("unix seqpacket, full", sequence, end));
    }
    kinds.push(pipe_made_larger());
    kinds
}

/// Returns a full pipe whose capacity grows.
fn pipe_made_larger() -> Kind {
    let (reader, writer) = pipe();
    unwrap_nix(nix::fcntl::fcntl(&writer, FcntlArg::F_SETPIPE_SZ(4096)));
    fill(&writer);
    kind("pipe, made larger", Arc::new(writer), move || {
        unwrap_nix(nix::fcntl::fcntl(&reader, FcntlArg::F_SETPIPE_SZ(1 << 14)));
        reader
    })
}

/// Fills a TCP socket until no data is in flight, since acknowledgements make room.
fn fill_until_settled(tcp: BorrowedFd<'_>, fill: fn(BorrowedFd<'_>)) {
    let started = Instant::now();
    // The order matters: acknowledged data makes room.
    while staging::unacknowledged(tcp) > 0 || oracle(tcp, WRITABLE).contains(WRITABLE) {
        assert!(started.elapsed() < LONG, "still sending after {LONG:?}");
        fill(tcp);
        std::thread::yield_now();
    }
}

const WRITABLE: PollFlags = PollFlags::POLLOUT;

/// Writes until poll(2) reports no room, which may be before a write fails.
fn fill_unrefused(to: BorrowedFd<'_>) {
    while oracle(to, WRITABLE).contains(WRITABLE) {
        unwrap_nix(nix::unistd::write(to, &[0; 512]));
    }
}

fn unix_pair(kind: SockType) -> (OwnedFd, OwnedFd) {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    unwrap_nix(socketpair(AddressFamily::Unix, kind, None, flags))
}
