//! The files of a script, with what must be true of them by plain reckoning.
//!
//! All are pairs within this thread (or a counter), so what one side does the other sees at once.
//! Two places may have the same file, one as a duplicate of the other: they share a [`Channel`].

use super::ear::Described;
use super::oracle::Bits;
use super::owner::give_to_process;
use super::script::{End, Kind, TRICKLE};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::socket::{
    AddressFamily, MsgFlags, Shutdown, SockFlag, SockType, send, setsockopt, shutdown, socketpair,
    sockopt,
};
use nix::sys::stat::Mode;
use nix::unistd::{dup3, pipe2, read, write};
use std::cell::{Ref, RefCell, RefMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;

/// The capacity of a pipe: two pages, so that it can be neither empty nor full.
const PIPE: i32 = 8192;
/// What it is when it was made larger.
const LARGE_PIPE: i32 = 2 * PIPE;
/// The send buffer of a socket: about the least that the kernel allows.
const SOCKET: usize = 4608;
/// What a [`Place::fill`] writes at a time, and more than any message has.
const CHUNK: usize = 4096;
/// The most a counter holds.
const FULL: u64 = u64::MAX - 1;

/// A file that may be registered.
#[derive(Debug)]
pub struct Place {
    file: Arc<OwnedFd>,
    channel: Rc<RefCell<Channel>>,
}

/// What lies behind a file: the other side, and what is under way.
#[derive(Debug)]
struct Channel {
    kind: Kind,
    peer: Option<OwnedFd>,
    /// What waits to be read here: bytes, messages, or the count.
    inbox: u64,
    /// What waits to be read there.
    outbox: u64,
    /// The last write here was refused, and nothing has been read there since.
    refused: bool,
    /// This side will send no more.
    shut_here: bool,
    /// The other side will send no more.
    shut_there: bool,
    /// This side will receive no more than what waits in the inbox.
    deaf: bool,
    /// The program has given this side's signals to somebody.
    is_taken: bool,
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

impl Place {
    /// Opens a file of this kind.
    ///
    /// # Panics
    ///
    /// Here and everywhere in this module: if a system call fails in a way it should not.
    pub fn open(kind: Kind) -> Self {
        let (file, peer) = pair(kind);
        let channel = Channel {
            kind,
            peer,
            inbox: 0,
            outbox: 0,
            refused: false,
            shut_here: false,
            shut_there: false,
            deaf: false,
            is_taken: false,
        };
        Place { file: Arc::new(file), channel: Rc::new(RefCell::new(channel)) }
    }

    /// What kind of file it is.
    pub fn kind(&self) -> Kind {
        self.channel().kind
    }

    /// A handle for the poller.
    pub fn handle(&self) -> Arc<OwnedFd> {
        self.file.clone()
    }

    /// Whether nobody else has a handle.
    pub fn is_sole(&self) -> bool {
        Arc::strong_count(&self.file) == 1
    }

    /// The file.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Whether what happens to one of these happens to the other.
    pub fn shares_with(&self, other: &Place) -> bool {
        Rc::ptr_eq(&self.channel, &other.channel)
    }

    /// Another number for the same file.
    pub fn duplicate(&self) -> Self {
        let file = self.file.try_clone().expect("dup");
        Place { file: Arc::new(file), channel: self.channel.clone() }
    }

    /// Closes the file. Gives the other side, if nobody is left on this one.
    pub fn close(self) -> Option<OwnedFd> {
        Rc::into_inner(self.channel)?.into_inner().peer
    }

    /// Closes the file, and opens a new one of the same kind under the same number. Gives the
    /// other side of the old one, if nobody is left on this one.
    pub fn reopen(&mut self) -> Option<OwnedFd> {
        let fresh = Place::open(self.channel().kind);
        let file = Arc::get_mut(&mut self.file).expect("nobody else has a handle");
        dup3(&*fresh.file, file, OFlag::O_CLOEXEC).expect("dup3");
        let left = std::mem::replace(&mut self.channel, fresh.channel);
        Rc::into_inner(left)?.into_inner().peer
    }

    /// Reads once, at most `length` bytes.
    pub fn read(&self, length: usize) -> Moved {
        let mut channel = self.channel_mut();
        if matches!(channel.kind, Kind::PipeWrite | Kind::Null) {
            return Moved::Ended;
        }
        let length = channel.read_length(length);
        let moved = outcome(read(&self.file, &mut [0; CHUNK][..length]));
        channel.inbox -= channel.taken(moved, channel.inbox);
        moved
    }

    /// Writes once.
    pub fn write(&self, length: usize) -> Moved {
        let mut channel = self.channel_mut();
        let moved = match channel.kind {
            Kind::PipeRead | Kind::Null => Moved::Ended,
            // A broken pipe would raise SIGPIPE.
            Kind::PipeWrite if channel.peer.is_none() => Moved::Ended,
            Kind::PipeWrite => outcome(write(&self.file, &[0; CHUNK][..length])),
            Kind::Stream | Kind::Packet => outcome(send_to(self.file.as_fd(), length)),
            Kind::Counter => return channel.count(self.file.as_fd(), length as u64),
        };
        channel.outbox += channel.units(moved);
        channel.refused |= moved == Moved::Nothing;
        moved
    }

    /// Writes until it would block, or can't be done.
    pub fn fill(&self) -> Moved {
        if self.channel().kind == Kind::Counter {
            let mut channel = self.channel_mut();
            let room = FULL - channel.inbox;
            channel.count(self.file.as_fd(), room);
            return channel.count(self.file.as_fd(), 1);
        }
        repeated(|| self.write(CHUNK))
    }

    /// Reads until it would block, or until the end.
    pub fn drain(&self) -> Moved {
        repeated(|| self.read(CHUNK))
    }

    /// The other side writes once. Gives whether anything has come.
    pub fn peer_write(&self, length: usize) -> bool {
        let mut channel = self.channel_mut();
        if channel.kind == Kind::Counter {
            return matches!(channel.count(self.file.as_fd(), length as u64), Moved::Bytes(_));
        }
        let Some(peer) = &channel.peer else { return false };
        let moved = match channel.kind {
            Kind::PipeRead => outcome(write(peer, &[0; CHUNK][..length])),
            Kind::Stream | Kind::Packet => outcome(send_to(peer.as_fd(), length)),
            Kind::PipeWrite | Kind::Counter | Kind::Null => return false,
        };
        channel.inbox += channel.units(moved);
        matches!(moved, Moved::Bytes(_))
    }

    /// The other side writes byte by byte. Gives whether anything has come.
    pub fn peer_trickle(&self) -> bool {
        (0..TRICKLE).take_while(|_| self.peer_write(1)).count() > 0
    }

    /// The other side reads once.
    pub fn peer_read(&self, length: usize) -> Moved {
        if self.channel().kind == Kind::Counter {
            return self.read(length);
        }
        let mut channel = self.channel_mut();
        let Some(peer) = &channel.peer else { return Moved::Ended };
        if channel.kind == Kind::PipeRead {
            return Moved::Ended;
        }
        let moved = outcome(read(peer, &mut [0; CHUNK][..channel.read_length(length)]));
        channel.outbox -= channel.taken(moved, channel.outbox);
        channel.refused &= !matches!(moved, Moved::Bytes(_));
        moved
    }

    /// The other side reads until it would block, or until the end.
    pub fn peer_drain(&self) {
        repeated(|| self.peer_read(CHUNK));
    }

    /// This side will send no more.
    pub fn shutdown(&self) {
        let mut channel = self.channel_mut();
        if channel.is_socket() {
            shutdown(self.file.as_raw_fd(), Shutdown::Write).expect("shutdown");
            channel.shut_here = true;
        }
    }

    /// This side will receive no more.
    pub fn shutdown_reading(&self) {
        let mut channel = self.channel_mut();
        if channel.is_socket() {
            shutdown(self.file.as_raw_fd(), Shutdown::Read).expect("shutdown");
            channel.deaf = true;
        }
    }

    /// The other side will send no more. Gives whether that was news.
    pub fn peer_shutdown(&self) -> bool {
        let mut channel = self.channel_mut();
        let (true, Some(peer)) = (channel.is_socket(), &channel.peer) else { return false };
        shutdown(peer.as_raw_fd(), Shutdown::Write).expect("shutdown");
        !std::mem::replace(&mut channel.shut_there, true)
    }

    /// The other side is closed, with what it had not read. (What it had not read of a pipe
    /// stays there, and takes room.) Gives whether there was one.
    pub fn peer_close(&self) -> bool {
        let mut channel = self.channel_mut();
        let was_open = channel.peer.take().is_some();
        if was_open && channel.is_socket() {
            (channel.outbox, channel.refused) = (0, false);
        }
        was_open
    }

    /// Sets the flags of the file to those it was opened with, as programs do that know of no
    /// `O_ASYNC`.
    pub fn set_flags(&self) {
        let flags = OFlag::from_bits_retain(fcntl(&self.file, FcntlArg::F_GETFL).expect("F_GETFL"));
        fcntl(&self.file, FcntlArg::F_SETFL(flags - OFlag::O_ASYNC)).expect("F_SETFL");
    }

    /// Gives the file's signals to this process, and has it send none: they would end it.
    pub fn take_signals(&self) {
        self.set_flags();
        give_to_process(self.fd());
        self.channel_mut().is_taken = true;
    }

    /// Makes the pipe larger, if it is one.
    pub fn enlarge(&self, end: End) {
        let mut channel = self.channel_mut();
        let end = match (end, &channel.peer) {
            _ if !matches!(channel.kind, Kind::PipeRead | Kind::PipeWrite) => return,
            (End::Here, _) => self.file.as_fd(),
            (End::There, Some(peer)) => peer.as_fd(),
            (End::There, None) => return,
        };
        fcntl(end, FcntlArg::F_SETPIPE_SZ(LARGE_PIPE)).expect("F_SETPIPE_SZ");
        channel.refused = false;
    }

    /// Whether the file sends signals.
    pub fn is_async(&self) -> bool {
        let flags = fcntl(&self.file, FcntlArg::F_GETFL).expect("F_GETFL");
        OFlag::from_bits_retain(flags).contains(OFlag::O_ASYNC)
    }

    /// What the reference has to know. The number of the open file description, which this and its
    /// duplicates have in common, holds as long as one of them is open.
    pub fn described(&self) -> Described {
        let Channel { kind, is_taken, .. } = *self.channel();
        Described { kind, description: Rc::as_ptr(&self.channel).addr(), is_taken }
    }

    /// What poll(2) must say of this file, as far as that can be reckoned: the bits that are known,
    /// and those of them that are set.
    pub fn reckoned(&self) -> (Bits, Bits) {
        self.channel().reckoned()
    }

    fn channel(&self) -> Ref<'_, Channel> {
        self.channel.borrow()
    }

    fn channel_mut(&self) -> RefMut<'_, Channel> {
        self.channel.borrow_mut()
    }
}

impl Channel {
    fn is_socket(&self) -> bool {
        matches!(self.kind, Kind::Stream | Kind::Packet)
    }

    /// Messages are read whole, and a counter takes eight bytes.
    fn read_length(&self, length: usize) -> usize {
        match self.kind {
            Kind::Packet => CHUNK,
            Kind::Counter => 8,
            _ => length,
        }
    }

    /// How much was moved, in the unit of the kind.
    fn units(&self, moved: Moved) -> u64 {
        match moved {
            Moved::Bytes(_) if self.kind == Kind::Packet => 1,
            Moved::Bytes(count) => count as u64,
            Moved::Nothing | Moved::Ended => 0,
        }
    }

    /// How much a read has taken of what there was: of a counter, all.
    fn taken(&self, moved: Moved, all: u64) -> u64 {
        if self.kind == Kind::Counter && matches!(moved, Moved::Bytes(_)) {
            return all;
        }
        self.units(moved)
    }

    /// Adds to a counter.
    fn count(&mut self, file: BorrowedFd<'_>, count: u64) -> Moved {
        let moved = outcome(write(file, &count.to_ne_bytes()));
        if let Moved::Bytes(_) = moved {
            self.inbox += count;
        }
        moved
    }

    fn reckoned(&self) -> (Bits, Bits) {
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
fn pair(kind: Kind) -> (OwnedFd, Option<OwnedFd>) {
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

fn send_to(socket: BorrowedFd<'_>, length: usize) -> nix::Result<usize> {
    send(socket.as_raw_fd(), &[0; CHUNK][..length], MsgFlags::MSG_NOSIGNAL)
}

fn outcome(result: nix::Result<usize>) -> Moved {
    match result {
        Ok(0) => Moved::Ended,
        Ok(count) => Moved::Bytes(count),
        Err(Errno::EAGAIN) => Moved::Nothing,
        Err(Errno::EPIPE | Errno::ECONNRESET) => Moved::Ended,
        Err(errno) => panic!("read or write: {errno}"),
    }
}

/// Does it until it moves no more bytes; gives how it ended.
fn repeated(once: impl Fn() -> Moved) -> Moved {
    loop {
        match once() {
            Moved::Bytes(_) => {}
            ended => return ended,
        }
    }
}
