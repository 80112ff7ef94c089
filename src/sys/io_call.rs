//! An operation ready for the kernel: a file number, a call, and the memory that the call may
//! touch, owned until the last of it.
#![allow(unsafe_code)]

mod call;
mod call_box;
mod connect;
mod control;
mod disk;
mod io_buf;
mod message;
mod native;
mod open;
mod socket;
mod splice;
mod thread_self;
mod work;

use super::buf::Buf;
use super::file::{self, SourceFd};
use super::io_mode::FdIoMode;
pub use call::{Call, CallResult};
pub(crate) use call_box::SpareCalls;
pub(in crate::sys) use call_box::note_leaked;
pub use call_box::{CallBox, leaked_buffers};
use connect::ConnectState;
#[cfg(feature = "conformance")]
pub(crate) use connect::disconnect;
use io_buf::IoBuf;
pub(crate) use io_buf::Part;
pub(crate) use message::{Message, Received, SockAddr};
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
pub struct IoCall {
    number: RawFd,
    call: Call,
    io_buf: IoBuf,
    with: CallArgs,
    connect: ConnectState,
    /// One call can't move all that it was asked to.
    is_cut: bool,
    /// Its success need not be told.
    skips_success: bool,
}

/// What a call is told beside its file and its bytes.
pub(crate) enum CallArgs {
    Nothing,
    Message(Box<Message>),
    OpenArgs(Box<OpenArgs>),
    /// The file to splice to.
    Target(RawFd),
}

/// What to open.
#[derive(Debug)]
pub(crate) struct OpenArgs {
    pub(crate) name: CString,
    pub(crate) flags: libc::c_int,
    pub(crate) mode: libc::mode_t,
}

impl CallArgs {
    /// Returns a path for the calling thread, whichever thread opens it.
    pub(crate) fn path(name: CString, flags: libc::c_int, mode: libc::mode_t) -> Self {
        let name = thread_self::resolved(name, flags);
        CallArgs::OpenArgs(Box::new(OpenArgs { name, flags, mode }))
    }
}

// SAFETY: the pointers are in message headers and vectors, and are written anew for every call,
// by the thread that makes it; and they point to what the value owns.
unsafe impl Send for IoCall {}

impl IoCall {
    /// A call on `fd` that moves at most `left` bytes: out of the buffer, from `at` on, or to its
    /// end, for which room is made. `name` is whom to connect or send to.
    ///
    /// # Errors
    ///
    /// As [`IoCall::with`].
    #[cfg(test)]
    pub(crate) fn new(
        fd: BorrowedFd<'_>,
        call: Call,
        buf: Buf,
        (at, left): (usize, usize),
        name: Option<SockAddr>,
    ) -> Result<Self, (io::Error, Buf)> {
        let part = if call.receives() { Part::In(left) } else { Part::Out(at, left) };
        let with = name.map_or(CallArgs::Nothing, |name| CallArgs::Message(Message::boxed(name)));
        IoCall::with(Some(fd), call, buf, part, with)
    }

    /// A call on `fd`, if it needs a file, that moves this part of the buffer.
    ///
    /// # Errors
    ///
    /// As [`IoCall::load`]. The buffer comes back.
    #[cfg(test)]
    pub(crate) fn with(
        fd: Option<BorrowedFd<'_>>,
        call: Call,
        mut buf: Buf,
        part: Part<'_>,
        with: CallArgs,
    ) -> Result<Self, (io::Error, Buf)> {
        let mut io_call = IoCall::blank();
        let number = fd.map(|fd| fd.as_raw_fd());
        match io_call.load(number, call, &mut buf, part, with) {
            Ok(()) => Ok(io_call),
            Err(error) => Err((error, buf)),
        }
    }

    /// Returns a call to be loaded.
    fn blank() -> Self {
        let (with, connect) = (CallArgs::Nothing, ConnectState::Fresh);
        let io_buf = IoBuf::default();
        let (number, call) = (libc::AT_FDCWD, Call::Recv);
        IoCall { number, call, io_buf, with, connect, is_cut: false, skips_success: false }
    }

    /// Makes it a call on the file with this number, if it needs one, that moves this part of the
    /// buffer, which is taken.
    ///
    /// # Errors
    ///
    /// `OutOfMemory`: there is no room for so much; `InvalidInput`: the buffer is none that can be
    /// received into, or has no such part. The buffer stays where it is.
    #[inline(always)]
    pub(crate) fn load(
        &mut self,
        number: Option<RawFd>,
        call: Call,
        buf: &mut Buf,
        part: Part<'_>,
        with: CallArgs,
    ) -> io::Result<()> {
        self.io_buf.load(buf, part)?;
        if matches!(call, Call::Read | Call::Write | Call::ReadAt(_) | Call::WriteAt(_)) {
            self.is_cut = self.io_buf.bound();
        } else {
            self.is_cut = false;
        }
        self.with = match (call, with) {
            (Call::Accept | Call::RecvFrom, _) => {
                CallArgs::Message(Message::boxed(SockAddr::empty()))
            }
            (Call::RecvMsg, _) => CallArgs::Message(Message::with_control_space()),
            (_, with) => with,
        };
        self.number = number.unwrap_or(libc::AT_FDCWD);
        (self.call, self.connect, self.skips_success) = (call, ConnectState::Fresh, false);
        Ok(())
    }

    /// Returns true if the call can be given to a ring.
    pub(crate) fn suits_a_ring(&self, io_mode: &mut FdIoMode) -> bool {
        match self.call {
            // A ring retries a connect by making it again, see `ConnectState`.
            Call::Connect => false,
            // A worker of the kernel's looks the descriptor up, or installs it, in a table that
            // need not be that of the thread that submits (unshare(2), `CLONE_FILES`).
            Call::Sync { .. } | Call::Open => false,
            // A splice takes a worker until it is done.
            Call::Splice => false,
            Call::Read => io_mode.may_be_read_by_a_ring(),
            // Where nothing is written a ring waits for room.
            Call::Write => self.io_buf.left() > 0 && io_mode.may_be_written_by_a_ring(),
            Call::ReadAt(_) | Call::WriteAt(_) => io_mode.may_be_reached_by_a_ring(self.number),
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
        self.io_buf.moved()
    }

    /// How many bytes are left to be moved.
    pub(crate) fn left(&self) -> usize {
        self.io_buf.left()
    }

    /// Sets whether its success need not be told.
    pub(crate) fn set_skips_success(&mut self, skips_success: bool) {
        self.skips_success = skips_success;
    }

    /// Returns true if all that it was asked to move was moved.
    pub(crate) fn is_whole(&self) -> bool {
        self.io_buf.left() == 0 && !self.is_cut
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
            CallArgs::Message(message) => Some(message),
            _ => None,
        }
    }

    fn message_mut(&mut self) -> Option<&mut Message> {
        match &mut self.with {
            CallArgs::Message(message) => Some(message),
            _ => None,
        }
    }

    /// Takes the buffer. The call moves no bytes any more.
    pub(crate) fn take_buf(&mut self) -> Buf {
        self.io_buf.take_buf()
    }

    /// Takes the files that were to be kept open, if there are any. To drop these may run the
    /// user's code. The call can't be made any more.
    #[inline]
    pub(crate) fn take_files(&mut self) -> Option<Vec<SourceFd>> {
        if matches!(self.with, CallArgs::Nothing) {
            return None;
        }
        match std::mem::replace(&mut self.with, CallArgs::Nothing) {
            CallArgs::Message(message) => Some(message.into_files()).filter(|its| !its.is_empty()),
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
        assert!(!self.io_buf.is_in() && count <= self.io_buf.left(), "it does not send so much");
        // SAFETY: nothing is received.
        unsafe { self.io_buf.note_moved(count) };
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
    /// a disk, or cannot be made without, says `WouldBlock`: it is for [`IoCall::perform`].
    pub(crate) fn attempt(&mut self, io_mode: &mut FdIoMode) -> io::Result<CallResult> {
        loop {
            match self.attempt_once(io_mode) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                done => return done,
            }
        }
    }

    fn attempt_once(&mut self, io_mode: &mut FdIoMode) -> io::Result<CallResult> {
        if matches!(self.call, Call::Accept | Call::AcceptMulti | Call::Connect) {
            io_mode.nonblocking_fd(self.number)?;
        }
        if self.is_for_a_disk(io_mode) {
            return self.attempt_on_disk(io_mode);
        }
        let number = self.number;
        let answer = match self.call {
            Call::Accept | Call::AcceptMulti => accept(number, self.message_mut()),
            Call::Connect => return self.attempt_connect(),
            // SAFETY: the part is room at the end of a buffer that outlives the call.
            Call::Recv => unsafe {
                let part = self.io_buf.part();
                libc::recv(number, part.iov_base, part.iov_len, libc::MSG_DONTWAIT)
            },
            // SAFETY: the part is of a buffer that outlives the call.
            Call::Send => unsafe {
                let part = self.io_buf.part();
                libc::send(number, part.iov_base, part.iov_len, SEND_NOW)
            },
            Call::RecvFrom | Call::RecvMsg => self.receive_message(),
            Call::SendTo | Call::SendMsg => self.send_message(),
            Call::Read | Call::ReadAt(_) => {
                let offset = self.offset();
                // SAFETY: they are room at the end of buffers that outlive the call.
                let read = unsafe { io_mode.read(number, &self.io_buf.vectors(), offset) }?;
                return self.done(read);
            }
            Call::Write | Call::WriteAt(_) => {
                let offset = self.offset();
                // SAFETY: they are of buffers that outlive the call.
                let written = unsafe { io_mode.write(number, &self.io_buf.vectors(), offset) }?;
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
    fn done(&mut self, answer: usize) -> io::Result<CallResult> {
        match self.call {
            // SAFETY: accept4(2) has just made it, and nobody else knows it.
            Call::Accept | Call::AcceptMulti => Ok(CallResult::Accepted(unsafe { owned(answer) })),
            // SAFETY: openat(2) has just made it, and nobody else knows it.
            Call::Open => Ok(CallResult::Opened(unsafe { owned(answer) })),
            Call::Sync { .. } => Ok(CallResult::Done),
            Call::Splice => {
                self.io_buf.note_passed(answer);
                Ok(CallResult::Moved(answer))
            }
            _ => {
                if matches!(self.call, Call::RecvFrom | Call::RecvMsg) {
                    if let CallArgs::Message(message) = &mut self.with {
                        // SAFETY: the call that has succeeded was made with its header.
                        unsafe { message.note_received() };
                    }
                }
                // SAFETY: the kernel has moved so many to or from where `io_buf` said.
                unsafe { self.io_buf.note_moved(answer) };
                Ok(CallResult::Moved(answer))
            }
        }
    }
}

/// For mechanisms and tests that do a call's work themselves.
#[cfg(any(test, feature = "spi"))]
impl IoCall {
    /// What is to be done.
    pub fn wanted(&self) -> (RawFd, Call, usize) {
        (self.number, self.call, self.io_buf.left())
    }

    /// Receives these bytes, as many as are asked for: gives how many that are.
    ///
    /// # Panics
    ///
    /// If it does not receive, or into several buffers.
    pub fn receive(&mut self, bytes: &[u8]) -> usize {
        assert!(self.io_buf.is_in() && !self.io_buf.is_many(), "it does not receive, or not one");
        let part = self.io_buf.part();
        let count = bytes.len().min(part.iov_len);
        // SAFETY: there is room for so many, which is nobody else's.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), part.iov_base.cast(), count) };
        // SAFETY: they have just been written.
        unsafe { self.io_buf.note_moved(count) };
        count
    }

    /// The bytes that are left to be sent.
    ///
    /// # Panics
    ///
    /// If it does not send, or several buffers.
    pub fn to_send(&self) -> &[u8] {
        assert!(!self.io_buf.is_in() && !self.io_buf.is_many(), "it does not send, or not one");
        self.io_buf.rest()
    }
}

/// For tests of the operations without a kernel.
#[cfg(test)]
impl IoCall {
    /// So many bytes were spliced.
    pub(crate) fn note_spliced(&mut self, count: usize) {
        self.io_buf.note_passed(count);
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

impl fmt::Debug for IoCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prepared")
            .field("number", &self.number)
            .field("call", &self.call)
            .field("buf", self.io_buf.buf())
            .field("left", &self.io_buf.left())
            .field("moved", &self.io_buf.moved())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
