//! How the calls on one file are kept from blocking, where they have no flag for it, and from
//! raising `SIGPIPE` or `SIGXFSZ`.
#![allow(unsafe_code)]

use super::description::reopen;
use super::file::FileType;
use super::mount::CachedStat;
use super::raised::{without_sigpipe, without_sigxfsz};
use super::vectors::{Vectors, counted};
use bitflags::bitflags;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::ptr;

/// What is known of one file.
#[derive(Debug)]
pub(crate) struct FdIoMode {
    shape: FileType,
    /// Of sockets: `SOCK_STREAM` and so on.
    socket_type: Option<u8>,
    /// A short read from it usually means that there is no more. `None`: that was not asked.
    is_drained_by_short_reads: Option<bool>,
    /// A description of the poller's own, on which calls are made that have no flag against
    /// blocking.
    own: Option<OwnedFd>,
    traits: Traits,
    /// Of sockets: poll(2) may call it full while a call finds room. `None`: that was not asked.
    hides_room: Option<bool>,
}

bitflags! {
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct Traits: u8 {
        /// It was made sure in this turn that its calls do not block.
        const NONBLOCKING_THIS_TURN = 1;
        /// The poller has set `O_NONBLOCK`, which was off.
        const MADE_NONBLOCKING = 1 << 1;
        /// `RWF_NOWAIT` may be known to its reads and writes.
        const MAY_TAKE_NOWAIT = 1 << 2;
        /// A call was taken with `RWF_NOWAIT`.
        const HAS_TAKEN_NOWAIT = 1 << 3;
        /// `RWF_NOWAIT` may be known to the writes of a file with a position.
        const MAY_TAKE_NOWAIT_TO_WRITE = 1 << 4;
        /// `RWF_NOSIGNAL` may be known to its writes.
        const MAY_TAKE_NOSIGNAL = 1 << 5;
        /// There is no disk behind it: procfs and its like, each of whose files has rules of its
        /// own.
        const PSEUDO_FS = 1 << 6;
    }
}

/// For every architecture the same; the crate libc lacks it.
pub(super) const RWF_NOSIGNAL: libc::c_int = 0x100;

impl FdIoMode {
    /// # Errors
    ///
    /// What statx(2) says.
    pub(crate) fn of(fd: BorrowedFd<'_>) -> io::Result<Self> {
        // Most are sockets, which say so themselves.
        let socket_type = super::file::type_of_socket(fd);
        if socket_type.is_some() {
            let mut io_mode = FdIoMode::of_shape(FileType::Socket, socket_type);
            // That takes another call, which not every source needs.
            io_mode.is_drained_by_short_reads.take_if(|may_be| *may_be);
            return Ok(io_mode);
        }
        let stat = CachedStat::of(fd)?;
        let shape = FileType::of_kind(stat.kind);
        let mut io_mode = FdIoMode::of_shape(shape, None);
        let is_pseudo_fs = shape == FileType::Regular && super::file::is_pseudo_fs(fd, &stat);
        io_mode.traits.set(Traits::PSEUDO_FS, is_pseudo_fs);
        Ok(io_mode)
    }

    /// The same of a file that has to be one that can be polled.
    ///
    /// # Errors
    ///
    /// `EBADF`: it is not open, or open with `O_PATH`; what statx(2) says.
    pub(crate) fn of_pollable(fd: BorrowedFd<'_>) -> io::Result<Self> {
        let io_mode = FdIoMode::of(fd)?;
        // A socket that has told its type is neither.
        if io_mode.socket_type.is_none() {
            super::file::check_pollable(fd)?;
        }
        Ok(io_mode)
    }

    /// Returns what is known of a file of this shape; of a socket, of this type.
    pub(crate) fn of_shape(shape: FileType, socket_type: Option<libc::c_int>) -> Self {
        FdIoMode {
            shape,
            socket_type: socket_type.and_then(|its| u8::try_from(its).ok()),
            is_drained_by_short_reads: Some(socket_type == Some(libc::SOCK_STREAM)),
            own: None,
            traits: Traits::MAY_TAKE_NOWAIT
                | Traits::MAY_TAKE_NOWAIT_TO_WRITE
                | Traits::MAY_TAKE_NOSIGNAL,
            hides_room: None,
        }
    }

    pub(crate) fn is_socket(&self) -> bool {
        self.shape == FileType::Socket
    }

    /// Whether it is a socket whose bytes have no bounds.
    pub(crate) fn is_stream(&self) -> bool {
        self.socket_type == Some(libc::SOCK_STREAM as u8)
    }

    /// Whether it is a socket of packets without end, of which one without bytes is one like
    /// others.
    pub(crate) fn is_connectionless(&self) -> bool {
        self.is_socket()
            && !self.is_stream()
            && self.socket_type != Some(libc::SOCK_SEQPACKET as u8)
    }

    /// Returns true if a short read usually means that there is no more.
    pub(crate) fn is_drained_by_short_reads(&mut self, number: RawFd) -> bool {
        let is_drained = &mut self.is_drained_by_short_reads;
        *is_drained.get_or_insert_with(|| super::file::wakes_for_a_byte(number))
    }

    /// Returns true if poll(2) calls it readable whenever a splice from it finds bytes.
    pub(crate) fn shows_bytes(&mut self, number: RawFd) -> bool {
        self.shape == FileType::Pipe || (self.is_stream() && self.is_drained_by_short_reads(number))
    }

    /// Returns true if a splice to it need not be tried while poll(2) calls it full. A unix socket
    /// is called full at a quarter, and its peer may wait for more than that. TCP is called full at
    /// two thirds, and then its peer has to read or to acknowledge before it gets more.
    pub(crate) fn shows_room(&mut self, number: RawFd) -> bool {
        let is_stream = self.is_stream();
        let hides_room = || !is_stream || super::file::is_local(number);
        self.shape == FileType::Pipe || !*self.hides_room.get_or_insert_with(hides_room)
    }

    /// Whether it has a position, which reading and writing share. Writing such a file waits for a
    /// disk at most, and so does reading but for a few.
    pub(crate) fn has_position(&self) -> bool {
        matches!(self.shape, FileType::Regular | FileType::Block)
    }

    /// Returns true if a ring may read and write at an offset of it: of streams it takes no notice
    /// of that, nor of what files of procfs say of it. A file that knows no calls without waiting
    /// would keep the thread inside io_uring_enter(2) until its server answers (FUSE).
    pub(super) fn may_be_reached_by_a_ring(&mut self, number: RawFd) -> bool {
        self.has_position() && !self.traits.contains(Traits::PSEUDO_FS) && self.knows_nowait(number)
    }

    /// Returns true if the file is known to take `RWF_NOWAIT`. Asks it by a read behind the end of
    /// any file, which moves nothing. A file that can't be read does not tell.
    fn knows_nowait(&mut self, number: RawFd) -> bool {
        if self.traits.contains(Traits::MAY_TAKE_NOWAIT) && !self.has_taken_nowait() {
            let mut byte = 0_u8;
            let part = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
            let end = Some(i64::MAX as u64 - 1);
            // SAFETY: there is room for one byte.
            let read = || unsafe { Vectors::of(&[part], end).read(number, libc::RWF_NOWAIT) };
            let answer = self.if_known(Traits::MAY_TAKE_NOWAIT, read);
            self.note_nowait(answer.as_ref().is_some_and(was_asked));
        }
        self.has_taken_nowait()
    }

    fn has_taken_nowait(&self) -> bool {
        self.traits.contains(Traits::HAS_TAKEN_NOWAIT)
    }

    fn note_nowait(&mut self, has_taken_it: bool) {
        if has_taken_it {
            self.traits |= Traits::HAS_TAKEN_NOWAIT;
        }
    }

    /// Whether a ring may read it. If it knows no read without blocking, that would have the thread
    /// wait in the middle of io_uring_enter(2): terminals do, and what is like them. Of some kinds
    /// of files that is known only after a call.
    pub(super) fn may_be_read_by_a_ring(&self) -> bool {
        match self.shape {
            FileType::Socket => true,
            FileType::Pipe | FileType::Anonymous => self.has_taken_nowait(),
            // A ring moves the position apart from the call, if at all: a write that is cut short
            // leaves it where it was (Linux 6.18), and other descriptors may share it.
            FileType::Regular | FileType::Block | FileType::Named => false,
        }
    }

    /// The same for writing.
    pub(super) fn may_be_written_by_a_ring(&self) -> bool {
        self.shape != FileType::Anonymous && self.may_be_read_by_a_ring()
    }

    /// Makes sure that no splice from or to the file blocks, if it is one of those with a position
    /// that wait for others than a disk.
    pub(crate) fn prepare_to_splice(&mut self, number: RawFd) -> io::Result<()> {
        match self.traits.contains(Traits::PSEUDO_FS) {
            true => self.ensure_nonblocking(number),
            false => Ok(()),
        }
    }

    /// Makes sure that no call on the file blocks. Others who have the description may have made it
    /// otherwise since the last time.
    fn ensure_nonblocking(&mut self, number: RawFd) -> io::Result<()> {
        self.set_nonblocking(number, flags(number)?)
    }

    /// The same, if these are its flags.
    fn set_nonblocking(&mut self, number: RawFd, flags: libc::c_int) -> io::Result<()> {
        if flags & libc::O_NONBLOCK == 0 {
            set_flags(number, flags | libc::O_NONBLOCK)?;
            self.traits |= Traits::MADE_NONBLOCKING;
        }
        Ok(())
    }

    /// Begins a turn, in which one check of `O_NONBLOCK` is enough for any number of calls.
    pub(crate) fn begin_turn(&mut self) {
        self.traits -= Traits::NONBLOCKING_THIS_TURN;
    }

    /// Returns a descriptor of the file on which no call blocks. What was made sure in this turn is
    /// not made sure again.
    pub(super) fn nonblocking_fd(&mut self, number: RawFd) -> io::Result<RawFd> {
        if let Some(own) = &self.own {
            return Ok(own.as_raw_fd());
        }
        if self.traits.contains(Traits::NONBLOCKING_THIS_TURN) {
            return Ok(number);
        }
        let flags = flags(number)?;
        if flags & libc::O_NONBLOCK == 0 && !self.traits.contains(Traits::MADE_NONBLOCKING) {
            // SAFETY: the caller has the file open under this number.
            let fd = unsafe { BorrowedFd::borrow_raw(number) };
            if let Some(own) = reopen(fd, self.shape, flags) {
                return Ok(self.own.insert(own).as_raw_fd());
            }
        }
        self.set_nonblocking(number, flags)?;
        self.traits |= Traits::NONBLOCKING_THIS_TURN;
        Ok(number)
    }

    /// Leaves the file as it was.
    pub(crate) fn restore(&mut self, number: RawFd) {
        self.own = None;
        if self.traits.contains(Traits::MADE_NONBLOCKING) {
            self.traits -= Traits::MADE_NONBLOCKING;
            // The only failure is that the number was closed behind our back.
            let restored = flags(number);
            let _ = restored.and_then(|flags| set_flags(number, flags & !libc::O_NONBLOCK));
        }
    }

    /// read(2) or pread(2), without blocking, of a file without position.
    ///
    /// # Safety
    ///
    /// The parts have to be memory that may be written to.
    pub(super) unsafe fn read(
        &mut self,
        number: RawFd,
        parts: &[libc::iovec],
        offset: Option<u64>,
    ) -> io::Result<usize> {
        let vectors = Vectors::of(parts, offset);
        // SAFETY: as the caller promises.
        let read = |flags| unsafe { vectors.read(number, flags) };
        if let Some(done) = self.if_known(Traits::MAY_TAKE_NOWAIT, || read(libc::RWF_NOWAIT)) {
            self.note_nowait(true);
            return done;
        }
        let number = self.nonblocking_fd(number)?;
        // SAFETY: as the caller promises.
        unsafe { vectors.read(number, 0) }
    }

    /// write(2) or pwrite(2), without blocking and without `SIGPIPE`, of a file without position.
    ///
    /// # Safety
    ///
    /// The parts have to be memory that may be read.
    pub(super) unsafe fn write(
        &mut self,
        number: RawFd,
        parts: &[libc::iovec],
        offset: Option<u64>,
    ) -> io::Result<usize> {
        let vectors = Vectors::of(parts, offset);
        if vectors.is_nothing() {
            return write_nothing(number, offset);
        }
        // SAFETY: as the caller promises.
        let write = |flags| unsafe { vectors.write(number, flags) };
        let now = || write(libc::RWF_NOWAIT | RWF_NOSIGNAL);
        if self.traits.contains(Traits::MAY_TAKE_NOSIGNAL) {
            if let Some(done) = self.if_known(Traits::MAY_TAKE_NOWAIT, now) {
                self.note_nowait(true);
                return done;
            }
        }
        let number = self.nonblocking_fd(number)?;
        // SAFETY: as the caller promises.
        let write = |flags| unsafe { vectors.write(number, flags) };
        let done = self.if_known(Traits::MAY_TAKE_NOSIGNAL, || write(RWF_NOSIGNAL));
        done.unwrap_or_else(|| without_sigpipe(|| write(0)))
    }

    /// Reads what is in memory of a file with a position. `WouldBlock` if nothing is, if that can't
    /// be known, or if it is to be read where the file stands: others may share its position, and
    /// would read between two pieces.
    ///
    /// # Safety
    ///
    /// The parts have to be memory that may be written to.
    pub(super) unsafe fn read_cached(
        &mut self,
        number: RawFd,
        parts: &[libc::iovec],
        offset: Option<u64>,
    ) -> io::Result<usize> {
        if offset.is_none() {
            self.prepare_for_thread(number)?;
            return Err(io::ErrorKind::WouldBlock.into());
        }
        if self.traits.contains(Traits::MAY_TAKE_NOWAIT) && is_direct(number)? {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        // SAFETY: as the caller promises.
        let read = || unsafe { Vectors::of(parts, offset).read(number, libc::RWF_NOWAIT) };
        if let Some(done) = self.if_known(Traits::MAY_TAKE_NOWAIT, read) {
            self.note_nowait(was_asked(&done));
            return done;
        }
        self.prepare_for_thread(number)?;
        Err(io::ErrorKind::WouldBlock.into())
    }

    /// Prepares a read by a thread: a few files with a position, in procfs and tracefs, wait for
    /// others than a disk, and none of these knows `RWF_NOWAIT`.
    fn prepare_for_thread(&mut self, number: RawFd) -> io::Result<()> {
        if self.knows_nowait(number) { Ok(()) } else { self.ensure_nonblocking(number) }
    }

    /// Writes what can be kept in memory of a file with a position. `WouldBlock` if nothing can,
    /// if that can't be known, or if others may write between two pieces: where the file stands,
    /// and at its end (`O_APPEND`).
    ///
    /// # Safety
    ///
    /// The parts have to be memory that may be read.
    pub(super) unsafe fn write_cached(
        &mut self,
        number: RawFd,
        parts: &[libc::iovec],
        offset: Option<u64>,
    ) -> io::Result<usize> {
        let vectors = Vectors::of(parts, offset);
        if vectors.is_nothing() {
            return write_nothing(number, offset);
        }
        if offset.is_none() || flags(number)? & (libc::O_DIRECT | libc::O_APPEND) != 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        // SAFETY: as the caller promises.
        let write = || unsafe { vectors.write(number, libc::RWF_NOWAIT) };
        let write = || without_sigxfsz(write);
        let done = self.if_known(Traits::MAY_TAKE_NOWAIT_TO_WRITE, write);
        self.note_nowait(done.as_ref().is_some_and(was_asked));
        done.unwrap_or_else(|| Err(io::ErrorKind::WouldBlock.into()))
    }

    /// Makes a call with a flag, unless the file is known not to take it.
    fn if_known(
        &mut self,
        may_take_it: Traits,
        call: impl FnOnce() -> io::Result<usize>,
    ) -> Option<io::Result<usize>> {
        let done = self.traits.contains(may_take_it).then(call)?;
        if done.as_ref().is_err_and(is_unknown) {
            self.traits -= may_take_it;
            return None;
        }
        Some(done)
    }

    /// As before Linux 6.18, or on a file that takes no flags.
    #[cfg(test)]
    pub(super) fn forget_flags(&mut self) {
        self.traits -= Traits::MAY_TAKE_NOWAIT | Traits::MAY_TAKE_NOSIGNAL;
    }
}

/// Returns true if the file was asked: a call in whose direction it is not open says so first.
fn was_asked(answer: &io::Result<usize>) -> bool {
    !answer.as_ref().is_err_and(|error| error.raw_os_error() == Some(libc::EBADF))
}

/// Whether a call says that it does not know a flag.
fn is_unknown(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOSYS))
}

fn flags(number: RawFd) -> io::Result<libc::c_int> {
    // SAFETY: F_GETFL takes no argument and touches no memory.
    let flags = super::checked(unsafe { libc::fcntl(number, libc::F_GETFL) })?;
    Ok(flags as libc::c_int)
}

fn set_flags(number: RawFd, flags: libc::c_int) -> io::Result<()> {
    // SAFETY: F_SETFL takes a number and touches no memory.
    super::checked(unsafe { libc::fcntl(number, libc::F_SETFL, flags) })?;
    Ok(())
}

/// The calls with vectors do not even ask the file. Some kinds of sockets send it, and raise
/// `SIGPIPE`.
fn write_nothing(number: RawFd, offset: Option<u64>) -> io::Result<usize> {
    match offset {
        // SAFETY: no byte is read.
        Some(at) => counted(unsafe { libc::pwrite64(number, ptr::null(), 0, at as i64) }),
        // SAFETY: no byte is read.
        None => without_sigpipe(|| counted(unsafe { libc::write(number, ptr::null(), 0) })),
    }
}

/// Whether reads and writes go to the disk itself, and wait for it whatever they are told.
fn is_direct(number: RawFd) -> io::Result<bool> {
    Ok(flags(number)? & libc::O_DIRECT != 0)
}

#[cfg(test)]
mod tests;
