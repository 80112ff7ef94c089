//! A pair of files, with what is known of it by plain reckoning.

mod pair;

use super::super::oracle::{Bits, look_at};
use super::flow::{Flow, Mismatch};
use super::parcel::{Passing, receive, send_with};
use super::script::Kind;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{MsgFlags, Shutdown, recv, send, shutdown};
use nix::unistd::{read, write};
use pair::pair;
use quintpoll::Address;
use std::cell::RefCell;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

/// What is read at a time, and the longest message.
const CHUNK: usize = 1 << 16;
/// The longest message that is sent, and the most that is under way in a TCP connection, whose
/// buffers are not the same at all times.
const MOST: usize = 5000;
const MOST_UNDER_WAY: usize = 20_000;

thread_local! {
    /// The buffer of all plain reads: to clear a fresh one takes longer than most of them.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Calls `read` with a buffer of this length, which has anything in it.
fn with_buffer<T>(length: usize, read: impl FnOnce(&mut [u8]) -> T) -> T {
    BUFFER.with_borrow_mut(|buffer| {
        if buffer.len() < length {
            buffer.resize(length, 0);
        }
        read(&mut buffer[..length])
    })
}

/// A pair of files.
#[derive(Debug)]
pub struct Line {
    /// Its kind.
    pub kind: Kind,
    near: Arc<OwnedFd>,
    is_nonblocking: bool,
    far: Option<OwnedFd>,
    /// From the far end to the near one.
    pub inbound: Flow,
    /// From the near end to the far one, as completions tell.
    pub outbound: Flow,
    /// What the far end has received before its completion has told of it.
    early: Flow,
    /// The files that go out of the near end.
    pub passing: Passing,
    /// The far end's address, where it has one that tells.
    pub address: Option<Address>,
    /// The far end will send no more.
    pub is_ended: bool,
    /// The near end will receive no more.
    pub is_deaf: bool,
    /// The near end may send no more.
    pub is_mute: bool,
    /// The far end has gone in a way that leaves to chance who hears of it, and how.
    pub is_erratic: bool,
}

impl Line {
    /// Opens a pair.
    ///
    /// # Panics
    ///
    /// Here and everywhere in this module: if a system call fails in a way it should not.
    pub fn open(kind: Kind, is_nonblocking: bool) -> Self {
        let (near, far, address) = pair(kind);
        set_nonblocking(near.as_fd(), is_nonblocking);
        set_nonblocking(far.as_fd(), true);
        let flow = || Flow::new(kind.has_messages());
        Line {
            kind,
            near: Arc::new(near),
            is_nonblocking,
            far: Some(far),
            inbound: flow(),
            outbound: flow(),
            early: flow(),
            passing: Passing::default(),
            address,
            is_ended: false,
            is_deaf: false,
            is_mute: false,
            is_erratic: false,
        }
    }

    /// A handle for the poller.
    pub fn handle(&self) -> Arc<OwnedFd> {
        self.near.clone()
    }

    /// The near end.
    pub fn near(&self) -> BorrowedFd<'_> {
        self.near.as_fd()
    }

    /// Whether nobody else has the near end, and it is as it was opened.
    pub fn is_released(&self) -> bool {
        Arc::strong_count(&self.near) == 1 && is_nonblocking(self.near()) == self.is_nonblocking
    }

    /// Whether the far end has been closed.
    pub fn is_alone(&self) -> bool {
        self.far.is_none()
    }

    /// Whether reading at the near end has come to an end, by what has happened so far.
    pub fn is_at_end(&self) -> bool {
        // A TCP socket that receives no more is sent some all the same.
        let may_go_on = self.is_deaf && self.kind.is_network();
        let is_over = self.is_ended || self.is_alone() || self.is_deaf;
        may_go_on || (self.inbound.is_empty() && is_over)
    }

    /// How much is sent for one operation or call that is to send so much.
    pub fn portion(&self, wanted: usize, under_way: usize) -> usize {
        match self.kind {
            // An empty one would look like the end.
            Kind::Packet => wanted.clamp(1, MOST),
            Kind::Datagram | Kind::Named => wanted.min(MOST),
            Kind::Tcp | Kind::Udp => {
                // An empty one would look like the end of a receive that was shut down.
                let least = usize::from(self.kind == Kind::Udp && self.is_erratic);
                let most = MOST.min(MOST_UNDER_WAY.saturating_sub(under_way));
                wanted.min(most).max(least)
            }
            _ => wanted,
        }
    }

    /// The far end writes once. Gives how much was taken.
    pub fn peer_write(&mut self, wanted: usize) -> Result<usize, Errno> {
        let length = self.portion(wanted, self.inbound.length());
        let Some(far) = &self.far else { return Ok(0) };
        // An empty write is nothing, but for messages.
        if self.kind == Kind::PipeWrite || (length == 0 && !self.kind.has_messages()) {
            return Ok(0);
        }
        let bytes = self.inbound.make(length);
        let count = match self.kind.is_socket() {
            true => send(far.as_raw_fd(), &bytes, MsgFlags::MSG_NOSIGNAL)?,
            false => write(far, &bytes)?,
        };
        self.inbound.put(&bytes[..count]);
        Ok(count)
    }

    /// The far end sends once, with files. Gives how much was taken.
    pub fn peer_pass(
        &mut self,
        wanted: usize,
        files: &[(Arc<OwnedFd>, u64)],
    ) -> Result<usize, Errno> {
        // With no byte they would not go anywhere.
        let length = self.portion(wanted.max(1), self.inbound.length());
        let Some(far) = self.far.as_ref().filter(|_| self.kind.is_socket() && length > 0) else {
            return Ok(0);
        };
        let files = if self.kind.passes_files() { files } else { &[] };
        let bytes = self.inbound.make(length);
        let handles: Vec<_> = files.iter().map(|(file, _)| file.clone()).collect();
        let count = send_with(far.as_fd(), &bytes, &handles)?;
        let identities = files.iter().map(|(_, identity)| *identity).collect();
        self.inbound.put_with(&bytes[..count], identities);
        Ok(count)
    }

    /// The far end reads once. Gives how much there was.
    pub fn peer_read(&mut self, wanted: usize) -> Result<Result<usize, Errno>, Mismatch> {
        let room = if self.kind.has_messages() { CHUNK } else { wanted.max(1) };
        with_buffer(room, |bytes| self.peer_read_into(bytes))
    }

    fn peer_read_into(&mut self, bytes: &mut [u8]) -> Result<Result<usize, Errno>, Mismatch> {
        let Some(far) = &self.far else { return Ok(Ok(0)) };
        if self.kind == Kind::PipeRead {
            return Ok(Ok(0));
        }
        let received = match self.kind.is_socket() {
            true => receive(far.as_fd(), bytes),
            false => read(far, bytes).map(|count| (count, Vec::new())),
        };
        let (count, files) = match received {
            Ok(received) => received,
            Err(errno) => return Ok(Err(errno)),
        };
        self.passing.note_received(&files)?;
        if count > 0 || self.kind.is_connectionless() {
            self.note_peer_read(&bytes[..count])?;
        }
        Ok(Ok(count))
    }

    fn note_peer_read(&mut self, bytes: &[u8]) -> Result<(), Mismatch> {
        if self.kind.has_messages() {
            if self.outbound.is_empty() {
                self.early.put(bytes);
                return Ok(());
            }
            return self.outbound.take(bytes, CHUNK).map(|_| ());
        }
        let known = bytes.len().min(self.outbound.length());
        self.outbound.take(&bytes[..known], known)?;
        self.early.put(&bytes[known..]);
        Ok(())
    }

    /// The far end reads until it would block, or can't. Gives how much there was.
    pub fn peer_drain(&mut self) -> Result<usize, Mismatch> {
        let mut all = 0;
        while !self.is_alone() {
            match self.peer_read(CHUNK)? {
                Ok(count) if count > 0 || self.tells_empty_messages() => all += count,
                _ => break,
            }
        }
        Ok(all)
    }

    /// A completion tells that these were sent.
    pub fn note_sent(&mut self, bytes: &[u8]) -> Result<(), Mismatch> {
        if self.is_alone() {
            return Ok(());
        }
        if self.kind.has_messages() {
            match self.early.is_empty() {
                true => self.outbound.put(bytes),
                false => drop(self.early.take(bytes, CHUNK)?),
            }
            return Ok(());
        }
        let known = bytes.len().min(self.early.length());
        self.early.take(&bytes[..known], known)?;
        self.outbound.put(&bytes[known..]);
        Ok(())
    }

    /// Whether what the far end has received early may have come from these operations, which have
    /// not completed.
    pub fn is_early_from(&self, payloads: &[&[u8]]) -> bool {
        self.is_alone() || self.early.is_from(payloads)
    }

    /// The operations that could have told of it have gone.
    pub fn forget_early(&mut self) {
        self.early.clear();
        self.passing.clear();
    }

    /// The near end is read until it would block, by plain calls. Gives the pieces.
    pub fn drain(&self) -> Vec<Vec<u8>> {
        if self.kind == Kind::PipeWrite {
            return Vec::new();
        }
        set_nonblocking(self.near(), true);
        let pieces = with_buffer(CHUNK, |bytes| self.drain_into(bytes));
        set_nonblocking(self.near(), self.is_nonblocking);
        pieces
    }

    fn drain_into(&self, bytes: &mut [u8]) -> Vec<Vec<u8>> {
        let mut pieces = Vec::new();
        loop {
            let count = match self.kind.is_socket() {
                true => recv(self.near.as_raw_fd(), bytes, MsgFlags::MSG_DONTWAIT),
                false => read(&self.near, bytes),
            };
            match count {
                Ok(count) if count > 0 || self.tells_empty_messages() => {
                    pieces.push(bytes[..count].to_vec());
                }
                // These are told once, and may be told first.
                Err(Errno::ECONNRESET | Errno::ECONNREFUSED) => {}
                _ => return pieces,
            }
        }
    }

    /// Whether nothing is a message, and not the end.
    fn tells_empty_messages(&self) -> bool {
        self.kind.is_connectionless()
    }

    /// The far end will send no more. Gives whether it could be told.
    pub fn peer_shutdown(&mut self) -> bool {
        let Some(far) = &self.far else { return false };
        // Datagrams know no such end.
        if !self.kind.is_socket() || self.kind.is_connectionless() {
            return false;
        }
        let is_done = shutdown(far.as_raw_fd(), Shutdown::Write).is_ok();
        self.is_ended |= is_done;
        is_done
    }

    /// The far end is closed, with what it had not read. Gives whether there was one.
    pub fn peer_close(&mut self) -> bool {
        let Some(far) = self.far.take() else { return false };
        let unread = match self.kind {
            Kind::PipeRead | Kind::PipeWrite => false,
            kind if kind.is_connectionless() => false,
            _ => read(&far, &mut [0]).is_ok_and(|count| count > 0),
        };
        self.is_erratic |= unread || self.kind.is_network();
        self.outbound.clear();
        self.early.clear();
        self.passing.clear();
        true
    }

    /// Closes the near end. Gives whether the far one is told at once, where it can be.
    pub fn close(self) -> bool {
        let Line { near, far, kind, .. } = self;
        drop(near);
        let Some(far) = far else { return true };
        if kind.is_connectionless() {
            return true;
        }
        let [bits] = look_at([far.as_fd()]);
        bits.intersects(Bits::EPOLLHUP | Bits::EPOLLRDHUP | Bits::EPOLLERR)
    }
}

fn flags(file: BorrowedFd<'_>) -> OFlag {
    OFlag::from_bits_retain(fcntl(file, FcntlArg::F_GETFL).expect("F_GETFL"))
}

fn is_nonblocking(file: BorrowedFd<'_>) -> bool {
    flags(file).contains(OFlag::O_NONBLOCK)
}

fn set_nonblocking(file: BorrowedFd<'_>, is_set: bool) {
    let mut flags = flags(file);
    flags.set(OFlag::O_NONBLOCK, is_set);
    fcntl(file, FcntlArg::F_SETFL(flags)).expect("F_SETFL");
}
