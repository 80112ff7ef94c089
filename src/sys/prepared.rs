//! An operation ready for the kernel: a file number, a call, and the memory that the call may
//! touch, owned until the last of it.
#![allow(unsafe_code)]

mod call;
mod call_box;
mod cargo;
mod connect;
mod control;
mod disk;
mod message;
mod native;
mod open;
mod socket;
mod splice;
mod thread_self;
mod work;

use super::buf::Buf;
use super::file::{self, Held};
use super::manner::Manner;
pub use call::{Call, Gain};
pub(crate) use call_box::SpareCalls;
pub(in crate::sys) use call_box::note_leaked;
pub use call_box::{CallBox, leaked_buffers};
use cargo::Cargo;
pub(crate) use cargo::Part;
use connect::ConnectState;
#[cfg(feature = "conformance")]
pub(crate) use connect::disconnect;
pub(crate) use message::{Message, Name, Received};
pub(in crate::sys) use native::complete_one;
pub(crate) use open::Opener;
use socket::{SEND_NOW, accept};
pub(crate) use socket::{recv_now, send_now, shutdown};
use std::ffi::CString;
use std::fmt;
use std::io;
#[cfg(test)]
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
pub use work::Work;

/// One system call that is to be made, and that may have to be made several times.
///
/// Its holder keeps its file open.
pub struct Prepared {
    number: RawFd,
    call: Call,
    cargo: Cargo,
    with: With,
    connect: ConnectState,
    /// One call can't move all that it was asked to.
    is_cut: bool,
    /// Its success need not be told.
    skips_success: bool,
}

/// What a call is told beside its file and its bytes.
pub(crate) enum With {
    Nothing,
    Message(Box<Message>),
    Path(Box<Path>),
    /// The file to splice to.
    Target(RawFd),
}

/// What to open.
#[derive(Debug)]
pub(crate) struct Path {
    pub(crate) name: CString,
    pub(crate) flags: libc::c_int,
    pub(crate) mode: libc::mode_t,
}

impl With {
    /// Returns a path for the calling thread, whichever thread opens it.
    pub(crate) fn path(name: CString, flags: libc::c_int, mode: libc::mode_t) -> Self {
        let name = thread_self::resolved(name, flags);
        With::Path(Box::new(Path { name, flags, mode }))
    }
}

// SAFETY: the pointers are in message headers and vectors, and are written anew for every call,
// by the thread that makes it; and they point to what the value owns.
unsafe impl Send for Prepared {}

impl Prepared {
    /// A call on `fd` that moves at most `left` bytes: out of the buffer, from `at` on, or to its
    /// end, for which room is made. `name` is whom to connect or send to.
    ///
    /// # Errors
    ///
    /// As [`Prepared::with`].
    #[cfg(test)]
    pub(crate) fn new(
        fd: BorrowedFd<'_>,
        call: Call,
        buf: Buf,
        (at, left): (usize, usize),
        name: Option<Name>,
    ) -> Result<Self, (io::Error, Buf)> {
        let part = if call.receives() { Part::In(left) } else { Part::Out(at, left) };
        let with = name.map_or(With::Nothing, |name| With::Message(Message::boxed(name)));
        Prepared::with(Some(fd), call, buf, part, with)
    }

    /// A call on `fd`, if it needs a file, that moves this part of the buffer.
    ///
    /// # Errors
    ///
    /// As [`Prepared::load`]. The buffer comes back.
    #[cfg(test)]
    pub(crate) fn with(
        fd: Option<BorrowedFd<'_>>,
        call: Call,
        mut buf: Buf,
        part: Part,
        with: With,
    ) -> Result<Self, (io::Error, Buf)> {
        let mut prepared = Prepared::blank();
        let number = fd.map(|fd| fd.as_raw_fd());
        match prepared.load(number, call, &mut buf, part, with) {
            Ok(()) => Ok(prepared),
            Err(error) => Err((error, buf)),
        }
    }

    /// Returns a call to be loaded.
    fn blank() -> Self {
        let (with, connect) = (With::Nothing, ConnectState::Fresh);
        let cargo = Cargo::default();
        let (number, call) = (libc::AT_FDCWD, Call::Recv);
        Prepared { number, call, cargo, with, connect, is_cut: false, skips_success: false }
    }

    /// Makes it a call on the file with this number, if it needs one, that moves this part of the
    /// buffer, which is taken.
    ///
    /// # Errors
    ///
    /// `OutOfMemory`: there is no room for so much; `InvalidInput`: the buffer is none that can be
    /// received into, or has no such part. The buffer stays where it is.
    pub(crate) fn load(
        &mut self,
        number: Option<RawFd>,
        call: Call,
        buf: &mut Buf,
        part: Part,
        with: With,
    ) -> io::Result<()> {
        self.cargo.load(buf, part)?;
        if matches!(call, Call::Read | Call::Write | Call::ReadAt(_) | Call::WriteAt(_)) {
            self.is_cut = self.cargo.bound();
        } else {
            self.is_cut = false;
        }
        self.with = match (call, with) {
            (Call::Accept | Call::RecvFrom, _) => With::Message(Message::boxed(Name::empty())),
            (Call::RecvMsg, _) => With::Message(Message::roomy()),
            (_, with) => with,
        };
        self.number = number.unwrap_or(libc::AT_FDCWD);
        (self.call, self.connect, self.skips_success) = (call, ConnectState::Fresh, false);
        Ok(())
    }

    /// Returns true if the call can be given to a ring.
    pub(crate) fn suits_a_ring(&self, manner: &mut Manner) -> bool {
        match self.call {
            // A ring retries a connect by making it again, see `ConnectState`.
            Call::Connect => false,
            // A worker of the kernel's looks the descriptor up, or installs it, in a table that
            // need not be that of the thread that submits (unshare(2), `CLONE_FILES`).
            Call::Sync { .. } | Call::Open => false,
            // A splice takes a worker until it is done.
            Call::Splice => false,
            Call::Read => manner.may_be_read_by_a_ring(),
            // Where nothing is written a ring waits for room.
            Call::Write => self.cargo.left() > 0 && manner.may_be_written_by_a_ring(),
            Call::ReadAt(_) | Call::WriteAt(_) => manner.may_be_reached_by_a_ring(self.number),
            // A ring does not report that reading was shut down to one on a unix socket.
            Call::AcceptMulti => !file::is_local(self.number),
            _ => true,
        }
    }

    pub(crate) fn call(&self) -> Call {
        self.call
    }

    /// How many bytes were moved so far.
    pub(crate) fn moved(&self) -> usize {
        self.cargo.moved()
    }

    /// How many bytes are left to be moved.
    pub(crate) fn left(&self) -> usize {
        self.cargo.left()
    }

    /// Sets whether its success need not be told.
    pub(crate) fn set_skips_success(&mut self, skips_success: bool) {
        self.skips_success = skips_success;
    }

    /// Returns true if all that it was asked to move was moved.
    pub(crate) fn is_whole(&self) -> bool {
        self.cargo.left() == 0 && !self.is_cut
    }

    /// Whom an accepted connection or a datagram comes from, as the kernel writes it.
    pub(crate) fn name(&self) -> &[u8] {
        self.message().map_or(&[], |message| message.named().bytes())
    }

    /// What came beside the bytes of a message.
    pub(crate) fn take_received(&mut self) -> Received {
        self.message_mut().map(Message::take_received).unwrap_or_default()
    }

    fn message(&self) -> Option<&Message> {
        match &self.with {
            With::Message(message) => Some(message),
            _ => None,
        }
    }

    fn message_mut(&mut self) -> Option<&mut Message> {
        match &mut self.with {
            With::Message(message) => Some(message),
            _ => None,
        }
    }

    /// Takes the buffer. The call moves no bytes any more.
    pub(crate) fn take_buf(&mut self) -> Buf {
        self.cargo.take_buf()
    }

    /// Takes the files that were to be kept open, if there are any. To drop these may run the
    /// user's code. The call can't be made any more.
    pub(crate) fn take_files(&mut self) -> Option<Vec<Held>> {
        match std::mem::replace(&mut self.with, With::Nothing) {
            With::Message(message) => Some(message.into_files()).filter(|its| !its.is_empty()),
            _ => None,
        }
    }

    /// Takes the buffer of a call without files.
    #[cfg(test)]
    pub(crate) fn into_buf(mut self) -> Buf {
        self.take_buf()
    }

    /// So many bytes of what it is to send were sent.
    ///
    /// # Panics
    ///
    /// If it does not send so much.
    pub fn note_sent(&mut self, count: usize) {
        assert!(!self.cargo.is_in() && count <= self.cargo.left(), "it does not send so much");
        // SAFETY: nothing is received.
        unsafe { self.cargo.note_moved(count) };
    }

    /// There was nothing to be received, and nobody to receive it from.
    pub(crate) fn note_nothing(&mut self) {
        self.message_mut().into_iter().for_each(Message::clear_name);
    }

    /// Makes the call, which does not block.
    ///
    /// # Errors
    ///
    /// What the call says, `WouldBlock` too, but not `Interrupted`. A call that has to wait for
    /// a disk, or cannot be made without, says `WouldBlock`: it is for [`Prepared::perform`].
    pub(crate) fn attempt(&mut self, manner: &mut Manner) -> io::Result<Gain> {
        loop {
            match self.attempt_once(manner) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                done => return done,
            }
        }
    }

    fn attempt_once(&mut self, manner: &mut Manner) -> io::Result<Gain> {
        if matches!(self.call, Call::Accept | Call::AcceptMulti | Call::Connect) {
            manner.nonblocking_fd(self.number)?;
        }
        if self.is_for_a_disk(manner) {
            return self.attempt_on_disk(manner);
        }
        let number = self.number;
        let answer = match self.call {
            Call::Accept | Call::AcceptMulti => accept(number, self.message_mut()),
            Call::Connect => return self.attempt_connect(),
            // SAFETY: the part is room at the end of a buffer that outlives the call.
            Call::Recv => unsafe {
                let part = self.cargo.part();
                libc::recv(number, part.iov_base, part.iov_len, libc::MSG_DONTWAIT)
            },
            // SAFETY: the part is of a buffer that outlives the call.
            Call::Send => unsafe {
                let part = self.cargo.part();
                libc::send(number, part.iov_base, part.iov_len, SEND_NOW)
            },
            Call::RecvFrom | Call::RecvMsg => self.receive_message(),
            Call::SendTo | Call::SendMsg => self.send_message(),
            Call::Read | Call::ReadAt(_) => {
                let offset = self.offset();
                // SAFETY: they are room at the end of buffers that outlive the call.
                let read = unsafe { manner.read(number, &self.cargo.vectors(), offset) }?;
                return self.done(read);
            }
            Call::Write | Call::WriteAt(_) => {
                let offset = self.offset();
                // SAFETY: they are of buffers that outlive the call.
                let written = unsafe { manner.write(number, &self.cargo.vectors(), offset) }?;
                return self.done(written);
            }
            // These are for a disk, and for the reactor.
            Call::Sync { .. } | Call::Open | Call::Splice | Call::RecvMulti => {
                return Err(io::ErrorKind::WouldBlock.into());
            }
        };
        match usize::try_from(answer) {
            Ok(answer) => self.done(answer),
            Err(_) => Err(io::Error::last_os_error()),
        }
    }

    /// The call has succeeded with this answer. (A number that was made becomes ours.)
    fn done(&mut self, answer: usize) -> io::Result<Gain> {
        match self.call {
            // SAFETY: accept4(2) has just made it, and nobody else knows it.
            Call::Accept | Call::AcceptMulti => Ok(Gain::Accepted(unsafe { owned(answer) })),
            // SAFETY: openat(2) has just made it, and nobody else knows it.
            Call::Open => Ok(Gain::Opened(unsafe { owned(answer) })),
            Call::Sync { .. } => Ok(Gain::Done),
            Call::Splice => {
                self.cargo.note_passed(answer);
                Ok(Gain::Moved(answer))
            }
            _ => {
                if matches!(self.call, Call::RecvFrom | Call::RecvMsg) {
                    if let With::Message(message) = &mut self.with {
                        // SAFETY: the call that has succeeded was made with its header.
                        unsafe { message.note_received() };
                    }
                }
                // SAFETY: the kernel has moved so many to or from where `cargo` said.
                unsafe { self.cargo.note_moved(answer) };
                Ok(Gain::Moved(answer))
            }
        }
    }
}

/// For mechanisms and tests that do a call's work themselves.
#[cfg(any(test, feature = "spi"))]
impl Prepared {
    /// What is to be done.
    pub fn wanted(&self) -> (RawFd, Call, usize) {
        (self.number, self.call, self.cargo.left())
    }

    /// Receives these bytes, as many as are asked for: gives how many that are.
    ///
    /// # Panics
    ///
    /// If it does not receive, or into several buffers.
    pub fn receive(&mut self, bytes: &[u8]) -> usize {
        assert!(self.cargo.is_in() && !self.cargo.is_many(), "it does not receive, or not one");
        let part = self.cargo.part();
        let count = bytes.len().min(part.iov_len);
        // SAFETY: there is room for so many, which is nobody else's.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), part.iov_base.cast(), count) };
        // SAFETY: they have just been written.
        unsafe { self.cargo.note_moved(count) };
        count
    }

    /// The bytes that are left to be sent.
    ///
    /// # Panics
    ///
    /// If it does not send, or several buffers.
    pub fn to_send(&self) -> &[u8] {
        assert!(!self.cargo.is_in() && !self.cargo.is_many(), "it does not send, or not one");
        self.cargo.rest()
    }
}

/// For tests of the operations without a kernel.
#[cfg(test)]
impl Prepared {
    /// So many bytes were spliced.
    pub(crate) fn note_spliced(&mut self, count: usize) {
        self.cargo.note_passed(count);
    }
}

/// Returns the error of a call without what it needs, which the reactor never makes.
fn unsuitable() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "the call was not made up for this")
}

/// # Safety
///
/// The kernel has to have just made the number.
unsafe fn owned(number: usize) -> OwnedFd {
    // SAFETY: as the caller promises.
    unsafe { OwnedFd::from_raw_fd(number as RawFd) }
}

impl fmt::Debug for Prepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prepared")
            .field("number", &self.number)
            .field("call", &self.call)
            .field("buf", self.cargo.buf())
            .field("left", &self.cargo.left())
            .field("moved", &self.cargo.moved())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
