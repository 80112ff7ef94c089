//! What lies behind a file of a script: the other side, and what is under way.

use super::oracle::Bits;
use super::script::Kind;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, send, setsockopt, socketpair, sockopt,
};
use nix::sys::stat::Mode;
use nix::unistd::{pipe2, write};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

/// The capacity of a pipe: two pages, so that it can be neither empty nor full.
const PIPE: i32 = 8192;
/// What it is when it was made larger.
pub(super) const LARGE_PIPE: i32 = 2 * PIPE;
/// The send buffer of a socket: about the least that the kernel allows.
const SOCKET: usize = 4608;
/// What is written at a time, at most, and more than any message has.
pub(super) const CHUNK: usize = 4096;
/// The most a counter holds.
pub(super) const FULL: u64 = u64::MAX - 1;

/// What lies behind a file: the other side, and what is under way.
#[derive(Debug)]
pub(super) struct Channel {
    pub(super) kind: Kind,
    pub(super) peer: Option<OwnedFd>,
    /// What waits to be read here: bytes, messages, or the count.
    pub(super) inbox: u64,
    /// What waits to be read there.
    pub(super) outbox: u64,
    /// The last write here was refused, and nothing has been read there since.
    pub(super) refused: bool,
    /// This side will send no more.
    pub(super) shut_here: bool,
    /// The other side will send no more.
    pub(super) shut_there: bool,
    /// This side will receive no more than what waits in the inbox.
    pub(super) deaf: bool,
    /// The program has given this side's signals to somebody.
    pub(super) is_taken: bool,
}

/// How a read or write ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moved {
    /// So many bytes were moved.
    Bytes(usize),
    /// It said `WouldBlock`.
    Nothing,
    /// End of file, an error, or there is no such side.
    Ended,
}

impl Channel {
    /// A new pair's.
    pub(super) fn new(kind: Kind, peer: Option<OwnedFd>) -> Self {
        Channel {
            kind,
            peer,
            inbox: 0,
            outbox: 0,
            refused: false,
            shut_here: false,
            shut_there: false,
            deaf: false,
            is_taken: false,
        }
    }

    /// The other side, if it can tell that this one is gone. To a datagram socket only a write
    /// tells.
    pub(super) fn into_witness(self) -> Option<OwnedFd> {
        let is_dumb = self.kind == Kind::Datagram && self.shut_there;
        self.peer.filter(|_| !is_dumb)
    }

    /// This side has tried to write. Where that finds the other side of a datagram socket gone,
    /// the kernel throws away what had come from it.
    pub(super) fn wrote(&mut self, moved: Moved) {
        self.outbox += self.units(moved);
        self.refused |= moved == Moved::Nothing;
        if self.kind == Kind::Datagram && self.peer.is_none() && !self.shut_here {
            self.inbox = 0;
        }
    }

    pub(super) fn is_socket(&self) -> bool {
        matches!(self.kind, Kind::Stream | Kind::Packet | Kind::Datagram)
    }

    /// Messages are read whole, and a counter takes eight bytes.
    pub(super) fn read_length(&self, length: usize) -> usize {
        match self.kind {
            Kind::Packet | Kind::Datagram => CHUNK,
            Kind::Counter => 8,
            _ => length,
        }
    }

    /// How much was moved, in the unit of the kind.
    pub(super) fn units(&self, moved: Moved) -> u64 {
        match moved {
            Moved::Bytes(_) if matches!(self.kind, Kind::Packet | Kind::Datagram) => 1,
            Moved::Bytes(count) => count as u64,
            Moved::Nothing | Moved::Ended => 0,
        }
    }

    /// How much a read has taken of what there was: of a counter, all.
    pub(super) fn taken(&self, moved: Moved, all: u64) -> u64 {
        if self.kind == Kind::Counter && matches!(moved, Moved::Bytes(_)) {
            return all;
        }
        self.units(moved)
    }

    /// Adds to a counter.
    pub(super) fn count(&mut self, file: BorrowedFd<'_>, count: u64) -> Moved {
        let moved = outcome(write(file, &count.to_ne_bytes()));
        if let Moved::Bytes(_) = moved {
            self.inbox += count;
        }
        moved
    }

    /// See [`Place::reckoned`](super::files::Place::reckoned).
    pub(super) fn reckoned(&self) -> (Bits, Bits) {
        let closed = self.peer.is_none();
        let (data, room) = (self.inbox > 0, self.room());
        let mut unknown = Bits::empty();
        let mut set = Bits::empty();
        unknown.set(Bits::EPOLLOUT, room.is_none());
        match self.kind {
            Kind::PipeRead => {
                set.set(Bits::EPOLLIN, data);
                set.set(Bits::EPOLLHUP, closed);
            }
            Kind::PipeWrite => {
                set.set(Bits::EPOLLOUT, room == Some(true));
                set.set(Bits::EPOLLERR, closed);
            }
            Kind::Stream | Kind::Packet => {
                let ended = closed || self.shut_there || self.deaf;
                set.set(Bits::EPOLLIN, data || ended);
                set.set(Bits::EPOLLRDHUP, ended);
                set.set(Bits::EPOLLHUP, closed || (self.shut_here && ended));
                set.set(Bits::EPOLLOUT, room == Some(true));
                // Closed with something unread is an error, until a call has collected it.
                unknown.set(Bits::EPOLLERR, closed);
            }
            // What the other side does shows in what has come and what has room, its end never.
            Kind::Datagram => {
                set.set(Bits::EPOLLIN, data || self.deaf);
                set.set(Bits::EPOLLRDHUP, self.deaf);
                set.set(Bits::EPOLLHUP, self.shut_here && self.deaf);
                set.set(Bits::EPOLLOUT, room == Some(true));
            }
            Kind::Counter => {
                set.set(Bits::EPOLLIN, data);
                set.set(Bits::EPOLLOUT, room == Some(true));
            }
            Kind::Null => set = Bits::EPOLLIN | Bits::EPOLLOUT,
        }
        (unknown.complement(), set)
    }

    /// Whether there is room to write. What is neither empty nor full is the kernel's secret.
    fn room(&self) -> Option<bool> {
        match self.kind {
            Kind::Counter => Some(self.inbox < FULL),
            Kind::PipeRead => Some(false),
            _ if self.outbox == 0 => Some(true),
            _ if self.refused => Some(false),
            _ => None,
        }
    }
}

/// A file of this kind and its other side.
pub(super) fn pair(kind: Kind) -> (OwnedFd, Option<OwnedFd>) {
    match kind {
        Kind::PipeRead => {
            let (reader, writer) = pipe();
            (reader, Some(writer))
        }
        Kind::PipeWrite => {
            let (reader, writer) = pipe();
            (writer, Some(reader))
        }
        Kind::Stream => sockets(SockType::Stream),
        Kind::Packet => sockets(SockType::SeqPacket),
        Kind::Datagram => sockets(SockType::Datagram),
        Kind::Counter => {
            let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
            (EventFd::from_flags(flags).expect("eventfd").into(), None)
        }
        Kind::Null => {
            let flags = OFlag::O_CLOEXEC | OFlag::O_RDWR;
            (open("/dev/null", flags, Mode::empty()).expect("open /dev/null"), None)
        }
    }
}

fn pipe() -> (OwnedFd, OwnedFd) {
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).expect("pipe2");
    fcntl(&writer, FcntlArg::F_SETPIPE_SZ(PIPE)).expect("F_SETPIPE_SZ");
    (reader, writer)
}

fn sockets(kind: SockType) -> (OwnedFd, Option<OwnedFd>) {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let (here, there) = socketpair(AddressFamily::Unix, kind, None, flags).expect("socketpair");
    for socket in [&here, &there] {
        setsockopt(socket, sockopt::SndBuf, &SOCKET).expect("SO_SNDBUF");
    }
    (here, Some(there))
}

pub(super) fn send_to(socket: BorrowedFd<'_>, length: usize) -> nix::Result<usize> {
    send(socket.as_raw_fd(), &[0; CHUNK][..length], MsgFlags::MSG_NOSIGNAL)
}

pub(super) fn outcome(result: nix::Result<usize>) -> Moved {
    match result {
        Ok(0) => Moved::Ended,
        Ok(count) => Moved::Bytes(count),
        Err(Errno::EAGAIN) => Moved::Nothing,
        Err(Errno::EPIPE | Errno::ECONNRESET) => Moved::Ended,
        // A datagram socket whose other side is gone, the first time and later.
        Err(Errno::ECONNREFUSED | Errno::ENOTCONN) => Moved::Ended,
        Err(errno) => panic!("read or write: {errno}"),
    }
}

/// Whether nobody is there to receive, by the only way in which a datagram socket tells.
pub(super) fn is_refused(socket: BorrowedFd<'_>) -> bool {
    send_to(socket, 1) == Err(Errno::ECONNREFUSED)
}

/// Does it until it moves no more bytes; gives how it ended.
pub(super) fn repeated(once: impl Fn() -> Moved) -> Moved {
    loop {
        match once() {
            Moved::Bytes(_) => {}
            ended => return ended,
        }
    }
}
