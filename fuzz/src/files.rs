//! The files of a script, with what must be true of them by plain reckoning.
//!
//! All are pairs within this thread (or a counter), so what one side does the other sees at once.
//! Two places may have the same file, one as a duplicate of the other: they share a `Channel`.

use super::channel::{CHUNK, Channel, FULL, LARGE_PIPE, outcome, pair, repeated, send_to};
use super::ear::Described;
use super::oracle::{Bits, look};
use super::owner::give_to_process;
use super::script::{At, End, Kind, PLACES, TRICKLE};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{Shutdown, shutdown};
use nix::unistd::{dup3, read, write};
use std::cell::{Ref, RefCell, RefMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;

pub use super::channel::Moved;

/// The files of a script, by place.
#[derive(Debug)]
pub struct Files {
    places: Vec<Place>,
}

/// A file that may be registered.
#[derive(Debug)]
pub struct Place {
    file: Arc<OwnedFd>,
    channel: Rc<RefCell<Channel>>,
}

impl Files {
    /// Opens files of these kinds.
    pub fn open(kinds: [Kind; PLACES]) -> Self {
        Files { places: kinds.into_iter().map(Place::open).collect() }
    }

    /// The file at this place.
    pub fn at(&self, at: At) -> &Place {
        &self.places[at.index()]
    }

    /// The same, to be replaced.
    pub fn at_mut(&mut self, at: At) -> &mut Place {
        &mut self.places[at.index()]
    }

    /// All of them.
    pub fn iter(&self) -> std::slice::Iter<'_, Place> {
        self.places.iter()
    }

    /// The places that have the same file as this one, and itself.
    pub fn sharing(&self, at: At) -> impl Iterator<Item = usize> + use<> {
        let file = self.at(at);
        let share: Vec<_> = (0..PLACES).filter(|&to| self.places[to].shares_with(file)).collect();
        share.into_iter()
    }

    /// What poll(2) says of each file.
    pub fn look(&self) -> Vec<Bits> {
        let files: Vec<_> = self.places.iter().map(Place::fd).collect();
        let bits = look(&files);
        for (file, &bits) in self.places.iter().zip(&bits) {
            let (known, set) = file.reckoned();
            assert_eq!(bits & known, set, "poll(2) and reckoning differ: {file:?}");
        }
        bits
    }
}

impl Place {
    /// Opens a file of this kind.
    ///
    /// # Panics
    ///
    /// Here and everywhere in this module: if a system call fails in a way it should not.
    pub fn open(kind: Kind) -> Self {
        let (file, peer) = pair(kind);
        Place { file: Arc::new(file), channel: Rc::new(RefCell::new(Channel::new(kind, peer))) }
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

    /// Closes the file. Gives the other side, if nobody is left on this one and
    /// it can tell.
    pub fn close(self) -> Option<OwnedFd> {
        Rc::into_inner(self.channel)?.into_inner().into_witness()
    }

    /// Closes the file, and opens a new one of the same kind under the same number. Gives the
    /// other side of the old one, as [`Place::close`] does.
    pub fn reopen(&mut self) -> Option<OwnedFd> {
        let fresh = Place::open(self.channel().kind);
        let file = Arc::get_mut(&mut self.file).expect("nobody else has a handle");
        dup3(&*fresh.file, file, OFlag::O_CLOEXEC).expect("dup3");
        let left = std::mem::replace(&mut self.channel, fresh.channel);
        Rc::into_inner(left)?.into_inner().into_witness()
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
            Kind::Stream | Kind::Packet | Kind::Datagram => {
                outcome(send_to(self.file.as_fd(), length))
            }
            Kind::Counter => return channel.count(self.file.as_fd(), length as u64),
        };
        channel.wrote(moved);
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
            Kind::Stream | Kind::Packet | Kind::Datagram => outcome(send_to(peer.as_fd(), length)),
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

    /// The other side will send no more. Gives whether that was news, which it never is to a
    /// datagram socket.
    pub fn peer_shutdown(&self) -> bool {
        let mut channel = self.channel_mut();
        let (true, Some(peer)) = (channel.is_socket(), &channel.peer) else { return false };
        shutdown(peer.as_raw_fd(), Shutdown::Write).expect("shutdown");
        let was_open = !std::mem::replace(&mut channel.shut_there, true);
        was_open && channel.kind != Kind::Datagram
    }

    /// The other side is closed, with what it had not read. (What it had not read of a pipe
    /// stays there, and takes room.) Gives whether there was one that was missed.
    pub fn peer_close(&self) -> bool {
        let mut channel = self.channel_mut();
        let was_open = channel.peer.take().is_some();
        if was_open && channel.is_socket() {
            (channel.outbox, channel.refused) = (0, false);
        }
        was_open && channel.kind != Kind::Datagram
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
