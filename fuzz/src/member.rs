//! One file of a crowd, with what must be true of it by plain reckoning.

use super::book::Traits;
use super::oracle::Bits;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, send, setsockopt, socketpair, sockopt,
};
use nix::unistd::{dup3, pipe2, read, write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

/// A kind of file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An eventfd; its other end is itself.
    Counter,
    /// The read end of a pipe.
    PipeRead,
    /// The write end of a pipe.
    PipeWrite,
    /// A unix stream socket.
    Stream,
}

/// The capacity of a pipe: a page, so that it is either empty or full for poll(2).
const PIPE: i32 = 4096;
/// The send buffer of a socket: about the least that the kernel allows.
const SOCKET: usize = 4608;
/// What is written at a time to fill a file.
const CHUNK: usize = 4096;

/// One of the crowd.
///
/// Its methods panic if a system call fails in a way it should not.
#[derive(Debug)]
pub struct Member {
    kind: Kind,
    file: Arc<OwnedFd>,
    peer: Option<OwnedFd>,
    /// Something waits to be read here.
    has_data: bool,
    /// A write was refused here, and the other side has not read since.
    is_full: bool,
}

impl Member {
    /// Opens a file of this kind.
    pub fn open(kind: Kind) -> Self {
        let (file, peer) = pair(kind);
        Member { kind, file: Arc::new(file), peer, has_data: false, is_full: false }
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

    /// What the book has to know.
    pub fn traits(&self) -> Traits {
        Traits { signals: self.kind != Kind::Counter, is_restless: false }
    }

    /// Closes the file, and opens another under its number. Gives the other side of the old one.
    pub fn reopen(&mut self) -> Option<OwnedFd> {
        let fresh = Member::open(self.kind);
        let file = Arc::get_mut(&mut self.file).expect("nobody else has a handle");
        dup3(&*fresh.file, file, OFlag::O_CLOEXEC).expect("dup3");
        (self.has_data, self.is_full) = (false, false);
        std::mem::replace(&mut self.peer, fresh.peer)
    }

    /// The other side writes a byte, if there is one. This and the next two give whether there is.
    pub fn peer_write(&mut self) -> bool {
        let written = match (self.kind, &self.peer) {
            (Kind::Counter, _) => write(&*self.file, &1_u64.to_ne_bytes()),
            (Kind::PipeRead, Some(peer)) => write(peer, b"x"),
            (Kind::Stream, Some(peer)) => send(peer.as_raw_fd(), b"x", MsgFlags::MSG_NOSIGNAL),
            _ => return false,
        };
        assert!(written.is_ok() || written == Err(Errno::EAGAIN), "{written:?}");
        self.has_data = true;
        true
    }

    /// The other side reads all there is.
    pub fn peer_read(&mut self) -> bool {
        let (Kind::PipeWrite | Kind::Stream, Some(peer)) = (self.kind, &self.peer) else {
            return false;
        };
        all_of(peer.as_fd());
        self.is_full = false;
        true
    }

    /// The other side is closed.
    pub fn peer_close(&mut self) -> bool {
        let was_open = self.peer.take().is_some();
        if was_open && self.kind == Kind::Stream {
            self.is_full = false;
        }
        was_open
    }

    /// Reads all there is; gives whether it would then block.
    pub fn read_out(&mut self) -> bool {
        if self.kind == Kind::PipeWrite {
            return false;
        }
        self.has_data = false;
        all_of(self.file.as_fd())
    }

    /// Writes all there is room for; gives whether it would then block.
    pub fn fill(&mut self) -> bool {
        if self.peer.is_none() || self.kind == Kind::PipeRead {
            return false;
        }
        let chunk = [0; CHUNK];
        let written = loop {
            let written = match self.kind {
                Kind::Stream => send(self.file.as_raw_fd(), &chunk, MsgFlags::MSG_NOSIGNAL),
                _ => write(&*self.file, &chunk),
            };
            if written.is_err() {
                break written;
            }
        };
        assert_eq!(written, Err(Errno::EAGAIN), "a full file refuses");
        self.is_full = true;
        true
    }

    /// What can't be known without asking, and which of the rest is set.
    pub fn reckoned(&self) -> (Bits, Bits) {
        let is_closed = self.peer.is_none();
        let (mut unknown, mut set) = (Bits::empty(), Bits::empty());
        match self.kind {
            Kind::Counter => {
                set = Bits::EPOLLOUT;
                set.set(Bits::EPOLLIN, self.has_data);
            }
            Kind::PipeRead => {
                set.set(Bits::EPOLLIN, self.has_data);
                set.set(Bits::EPOLLHUP, is_closed);
            }
            Kind::PipeWrite => {
                set.set(Bits::EPOLLOUT, !self.is_full);
                set.set(Bits::EPOLLERR, is_closed);
            }
            Kind::Stream => {
                let end = Bits::EPOLLIN | Bits::EPOLLRDHUP | Bits::EPOLLHUP;
                set.set(end, is_closed);
                set.set(Bits::EPOLLIN, self.has_data || is_closed);
                set.set(Bits::EPOLLOUT, !self.is_full);
                // Closed with something unread is an error, until a call has collected it.
                unknown.set(Bits::EPOLLERR, is_closed);
            }
        }
        (unknown, set)
    }
}

/// A file of this kind and its other side.
fn pair(kind: Kind) -> (OwnedFd, Option<OwnedFd>) {
    let pipe = || {
        let (reader, writer) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).expect("pipe2");
        fcntl(&writer, FcntlArg::F_SETPIPE_SZ(PIPE)).expect("F_SETPIPE_SZ");
        (reader, writer)
    };
    match kind {
        Kind::Counter => {
            let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
            (EventFd::from_flags(flags).expect("eventfd").into(), None)
        }
        Kind::PipeRead => {
            let (reader, writer) = pipe();
            (reader, Some(writer))
        }
        Kind::PipeWrite => {
            let (reader, writer) = pipe();
            (writer, Some(reader))
        }
        Kind::Stream => {
            let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
            let pair = socketpair(AddressFamily::Unix, SockType::Stream, None, flags);
            let (here, there) = pair.expect("socketpair");
            for socket in [&here, &there] {
                setsockopt(socket, sockopt::SndBuf, &SOCKET).expect("SO_SNDBUF");
            }
            (here, Some(there))
        }
    }
}

/// Reads all there is; gives whether it would then block.
fn all_of(file: BorrowedFd<'_>) -> bool {
    loop {
        match read(file, &mut [0; CHUNK]) {
            Ok(0) => return false,
            Ok(_) => {}
            Err(Errno::EAGAIN) => return true,
            // Collected, and told once.
            Err(Errno::ECONNRESET) => return false,
            Err(errno) => panic!("read: {errno}"),
        }
    }
}
