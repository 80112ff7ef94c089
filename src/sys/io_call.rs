//! A system call to be made: descriptor, arguments, and the memory that the kernel may touch, which
//! it owns.
#![allow(unsafe_code)]

mod call;
mod call_box;
mod connect;
mod control;
mod disk;
mod io_buf;
mod message;
mod open;
mod socket;
mod splice;
mod sqe;
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
pub(crate) use io_buf::Transfer;
pub(crate) use message::{Message, Received, SockAddr};
pub(crate) use open::Opener;
use socket::{SEND_NOW, accept};
pub(crate) use socket::{recv_now, send_now, shutdown};
pub(in crate::sys) use sqe::complete_one;
use std::ffi::CString;
use std::fmt;
use std::io;
#[cfg(test)]
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
pub use work::Work;

/// A system call that may have to be made several times.
///
/// Its holder keeps the file open.
pub struct IoCall {
    fd: RawFd,
    call: Call,
    io_buf: IoBuf,
    args: CallArgs,
    connect: ConnectState,
    /// One call can't transfer all that was requested.
    is_limited: bool,
    /// A completion is needed only for a failure.
    skips_success: bool,
}

/// The arguments of a call other than its file and its bytes.
pub(crate) enum CallArgs {
    Nothing,
    Message(Box<Message>),
    OpenArgs(Box<OpenArgs>),
    /// The target of a splice.
    Target(RawFd),
}

/// The arguments of an open.
#[derive(Debug)]
pub(crate) struct OpenArgs {
    pub(crate) name: CString,
    pub(crate) flags: libc::c_int,
    pub(crate) mode: libc::mode_t,
}

impl CallArgs {
    /// Resolves `/proc/thread-self` for the calling thread, whichever thread opens the path.
    pub(crate) fn path(name: CString, flags: libc::c_int, mode: libc::mode_t) -> Self {
        let name = thread_self::resolved(name, flags);
        CallArgs::OpenArgs(Box::new(OpenArgs { name, flags, mode }))
    }
}

// SAFETY: the pointers are in message headers and vectors. The thread that makes a call writes them
// anew, and they point to what the value owns.
unsafe impl Send for IoCall {}

impl IoCall {
    /// Makes a call on `fd` that transfers at most `left` bytes: from `at` in the buffer, or to its
    /// end, for which space is reserved. `name` is the peer to connect or send to.
    ///
    /// # Errors
    ///
    /// Errors of [`IoCall::load`], with the buffer.
    #[cfg(test)]
    pub(crate) fn new(
        fd: BorrowedFd<'_>,
        call: Call,
        buf: Buf,
        (at, left): (usize, usize),
        name: Option<SockAddr>,
    ) -> Result<Self, (io::Error, Buf)> {
        let part = if call.receives() { Transfer::In(left) } else { Transfer::Out(at, left) };
        let args = name.map_or(CallArgs::Nothing, |name| CallArgs::Message(Message::boxed(name)));
        IoCall::with(Some(fd), call, buf, part, args)
    }

    /// Makes a call on `fd`, if it needs a file, that transfers this part of the buffer.
    ///
    /// # Errors
    ///
    /// Errors of [`IoCall::load`], with the buffer.
    #[cfg(test)]
    pub(crate) fn with(
        fd: Option<BorrowedFd<'_>>,
        call: Call,
        mut buf: Buf,
        part: Transfer<'_>,
        args: CallArgs,
    ) -> Result<Self, (io::Error, Buf)> {
        let mut io_call = IoCall::blank();
        let fd = fd.map(|fd| fd.as_raw_fd());
        match io_call.load(fd, call, &mut buf, part, args) {
            Ok(()) => Ok(io_call),
            Err(error) => Err((error, buf)),
        }
    }

    /// Returns a call to be loaded.
    fn blank() -> Self {
        IoCall {
            fd: libc::AT_FDCWD,
            call: Call::Recv,
            io_buf: IoBuf::default(),
            args: CallArgs::Nothing,
            connect: ConnectState::Fresh,
            is_limited: false,
            skips_success: false,
        }
    }

    /// Sets descriptor, call, bytes and arguments. Takes the buffer, and reserves space in it.
    ///
    /// # Errors
    ///
    /// `OutOfMemory`: the space can't be reserved; `InvalidInput`: the buffer can't be received
    /// into, or has no such part. The buffer is not taken then.
    #[inline(always)]
    pub(crate) fn load(
        &mut self,
        fd: Option<RawFd>,
        call: Call,
        buf: &mut Buf,
        part: Transfer<'_>,
        args: CallArgs,
    ) -> io::Result<()> {
        self.io_buf.load(buf, part)?;
        if matches!(call, Call::Read | Call::Write | Call::ReadAt(_) | Call::WriteAt(_)) {
            self.is_limited = self.io_buf.limit();
        } else {
            self.is_limited = false;
        }
        self.args = match (call, args) {
            (Call::Accept | Call::RecvFrom, _) => {
                CallArgs::Message(Message::boxed(SockAddr::empty()))
            }
            (Call::RecvMsg, _) => CallArgs::Message(Message::with_control_space()),
            (_, args) => args,
        };
        self.fd = fd.unwrap_or(libc::AT_FDCWD);
        (self.call, self.connect, self.skips_success) = (call, ConnectState::Fresh, false);
        Ok(())
    }

    /// Returns true if a ring can execute the call.
    pub(crate) fn is_supported_by_ring(&self, io_mode: &mut FdIoMode) -> bool {
        match self.call {
            // A ring retries a connect by making it again, see `ConnectState`.
            Call::Connect => false,
            // A kernel worker looks the descriptor up, or installs it, in a table that may not be
            // that of the submitting thread (unshare(2), `CLONE_FILES`).
            Call::Sync { .. } | Call::Open => false,
            // A splice occupies a kernel worker until it is done.
            Call::Splice => false,
            Call::Read => io_mode.may_be_read_by_a_ring(),
            // For a write of no bytes a ring waits until the file is writable.
            Call::Write => self.io_buf.left() > 0 && io_mode.may_be_written_by_a_ring(),
            Call::ReadAt(_) | Call::WriteAt(_) => io_mode.may_be_reached_by_a_ring(self.fd),
            // A ring does not report the shutdown of reading on a unix listener.
            Call::AcceptMulti => !file::is_local(self.fd),
            _ => true,
        }
    }

    pub(crate) fn call(&self) -> Call {
        self.call
    }

    /// Returns the count of transferred bytes.
    pub(crate) fn moved(&self) -> usize {
        self.io_buf.moved()
    }

    /// Returns the count of bytes left to transfer.
    pub(crate) fn left(&self) -> usize {
        self.io_buf.left()
    }

    /// Sets whether a completion is needed only for a failure.
    pub(crate) fn set_skips_success(&mut self, skips_success: bool) {
        self.skips_success = skips_success;
    }

    /// Returns true if everything requested was transferred.
    pub(crate) fn is_whole(&self) -> bool {
        self.io_buf.left() == 0 && !self.is_limited
    }

    /// Returns the address of the peer that connected or sent, as the kernel writes it.
    pub(crate) fn name(&self) -> &[u8] {
        self.message().map_or(&[], |message| message.named().bytes())
    }

    /// Takes the ancillary data of a received message.
    pub(crate) fn take_received(&mut self) -> Received {
        self.message_mut().map(Message::take_received).unwrap_or_default()
    }

    fn message(&self) -> Option<&Message> {
        match &self.args {
            CallArgs::Message(message) => Some(message),
            _ => None,
        }
    }

    fn message_mut(&mut self) -> Option<&mut Message> {
        match &mut self.args {
            CallArgs::Message(message) => Some(message),
            _ => None,
        }
    }

    /// Takes the buffer; the call transfers no more bytes.
    pub(crate) fn take_buf(&mut self) -> Buf {
        self.io_buf.take_buf()
    }

    /// Takes the files of a message, if there are any; the call can't be made again. Dropping them
    /// may run user code.
    #[inline]
    pub(crate) fn take_files(&mut self) -> Option<Vec<SourceFd>> {
        if matches!(self.args, CallArgs::Nothing) {
            return None;
        }
        match std::mem::replace(&mut self.args, CallArgs::Nothing) {
            CallArgs::Message(message) => {
                Some(message.into_files()).filter(|files| !files.is_empty())
            }
            _ => None,
        }
    }

    /// Takes the buffer of a call without files.
    #[cfg(test)]
    pub(crate) fn into_buf(mut self) -> Buf {
        self.take_buf()
    }

    /// Counts `count` more bytes as sent.
    ///
    /// # Panics
    ///
    /// If the call does not send that many.
    pub fn note_sent(&mut self, count: usize) {
        assert!(!self.io_buf.is_in() && count <= self.io_buf.left(), "the call sends fewer bytes");
        // SAFETY: nothing is received.
        unsafe { self.io_buf.note_moved(count) };
    }

    /// Clears the peer's address, because nothing was received.
    pub(crate) fn note_nothing(&mut self) {
        if let Some(message) = self.message_mut() {
            message.clear_name();
        }
    }

    /// Makes the call without blocking.
    ///
    /// # Errors
    ///
    /// Errors of the call, `WouldBlock` included, but not `Interrupted`. Calls that must wait for a
    /// disk, or can't be nonblocking, return `WouldBlock`: see [`IoCall::run_blocking`].
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
            io_mode.nonblocking_fd(self.fd)?;
        }
        if self.may_wait_for_disk(io_mode) {
            return self.attempt_cached(io_mode);
        }
        let fd = self.fd;
        let answer = match self.call {
            Call::Accept | Call::AcceptMulti => accept(fd, self.message_mut()),
            Call::Connect => return self.attempt_connect(),
            // SAFETY: the part is space in a buffer that outlives the call.
            Call::Recv => unsafe {
                let part = self.io_buf.part();
                libc::recv(fd, part.iov_base, part.iov_len, libc::MSG_DONTWAIT)
            },
            // SAFETY: the part is in a buffer that outlives the call.
            Call::Send => unsafe {
                let part = self.io_buf.part();
                libc::send(fd, part.iov_base, part.iov_len, SEND_NOW)
            },
            Call::RecvFrom | Call::RecvMsg => self.receive_message(),
            Call::SendTo | Call::SendMsg => self.send_message(),
            Call::Read | Call::ReadAt(_) => {
                let offset = self.offset();
                // SAFETY: the vectors are space in buffers that outlive the call.
                let read = unsafe { io_mode.read(fd, &self.io_buf.vectors(), offset) }?;
                return self.done(read);
            }
            Call::Write | Call::WriteAt(_) => {
                let offset = self.offset();
                // SAFETY: the vectors are in buffers that outlive the call.
                let written = unsafe { io_mode.write(fd, &self.io_buf.vectors(), offset) }?;
                return self.done(written);
            }
            // A thread, or the reactor, makes these.
            Call::Sync { .. } | Call::Open | Call::Splice | Call::RecvMulti => {
                return Err(io::ErrorKind::WouldBlock.into());
            }
        };
        match usize::try_from(answer) {
            Ok(answer) => self.done(answer),
            Err(_) => Err(io::Error::last_os_error()),
        }
    }

    /// Converts the result of a successful call, and takes ownership of a new descriptor.
    fn done(&mut self, answer: usize) -> io::Result<CallResult> {
        match self.call {
            // SAFETY: accept4(2) has just made the descriptor, and nothing else owns it.
            Call::Accept | Call::AcceptMulti => Ok(CallResult::Accepted(unsafe { owned(answer) })),
            // SAFETY: openat(2) has just made the descriptor, and nothing else owns it.
            Call::Open => Ok(CallResult::Opened(unsafe { owned(answer) })),
            Call::Sync { .. } => Ok(CallResult::Done),
            Call::Splice => {
                self.io_buf.note_unbuffered(answer);
                Ok(CallResult::Moved(answer))
            }
            _ => {
                if matches!(self.call, Call::RecvFrom | Call::RecvMsg) {
                    if let CallArgs::Message(message) = &mut self.args {
                        // SAFETY: the successful call was made with this header.
                        unsafe { message.note_received() };
                    }
                }
                // SAFETY: the kernel has transferred `answer` bytes where `io_buf` said.
                unsafe { self.io_buf.note_moved(answer) };
                Ok(CallResult::Moved(answer))
            }
        }
    }
}

/// For selectors and tests that execute a call themselves.
#[cfg(any(test, feature = "spi"))]
impl IoCall {
    /// Returns the descriptor, the call, and the count of bytes left.
    pub fn wanted(&self) -> (RawFd, Call, usize) {
        (self.fd, self.call, self.io_buf.left())
    }

    /// Receives these bytes, up to the count that is left, and returns how many.
    ///
    /// # Panics
    ///
    /// If the call does not receive, or is vectored.
    pub fn receive(&mut self, bytes: &[u8]) -> usize {
        assert!(self.io_buf.is_in() && !self.io_buf.is_vectored(), "a plain receive is expected");
        let part = self.io_buf.part();
        let count = bytes.len().min(part.iov_len);
        // SAFETY: the part has room for `count` bytes, and does not overlap `bytes`.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), part.iov_base.cast(), count) };
        // SAFETY: the copy has written them.
        unsafe { self.io_buf.note_moved(count) };
        count
    }

    /// Returns the bytes left to send.
    ///
    /// # Panics
    ///
    /// If the call does not send, or is vectored.
    pub fn to_send(&self) -> &[u8] {
        assert!(!self.io_buf.is_in() && !self.io_buf.is_vectored(), "a plain send is expected");
        self.io_buf.rest()
    }
}

/// For tests of the operations without a kernel.
#[cfg(test)]
impl IoCall {
    /// Counts spliced bytes.
    pub(crate) fn note_spliced(&mut self, count: usize) {
        self.io_buf.note_unbuffered(count);
    }
}

/// Returns the error of a call without its arguments, which the reactor never makes.
fn missing_args() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "the call lacks its arguments")
}

/// Takes ownership of a descriptor.
///
/// # Safety
///
/// The kernel must have just made it.
unsafe fn owned(fd: usize) -> OwnedFd {
    // SAFETY: as the caller promises.
    unsafe { OwnedFd::from_raw_fd(fd as RawFd) }
}

impl fmt::Debug for IoCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IoCall")
            .field("fd", &self.fd)
            .field("call", &self.call)
            .field("buf", self.io_buf.buf())
            .field("left", &self.io_buf.left())
            .field("moved", &self.io_buf.moved())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
