//! Keeps calls on a file that have no flag for it from blocking, and from raising `SIGPIPE` or
//! `SIGXFSZ`.
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

/// The properties of a file that decide how calls on it are made.
#[derive(Debug)]
pub(crate) struct FdIoMode {
    file_type: FileType,
    /// `SOCK_STREAM` and so on, of sockets.
    socket_type: Option<u8>,
    /// A short read usually means that there is no more. `None`: not yet determined.
    is_drained_by_short_reads: Option<bool>,
    /// A description of the poller's own, for calls that have no flag against blocking.
    own_fd: Option<OwnedFd>,
    traits: Traits,
    /// poll(2) may report a socket as full while a call finds room. `None`: not yet determined.
    hides_room: Option<bool>,
}

bitflags! {
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct Traits: u8 {
        /// `O_NONBLOCK` was checked or set in this turn.
        const NONBLOCKING_THIS_TURN = 1;
        /// The poller has set `O_NONBLOCK`.
        const MADE_NONBLOCKING = 1 << 1;
        /// Reads and writes may support `RWF_NOWAIT`.
        const MAY_TAKE_NOWAIT = 1 << 2;
        /// A call with `RWF_NOWAIT` was accepted.
        const HAS_TAKEN_NOWAIT = 1 << 3;
        /// Writes of a file with a position may support `RWF_NOWAIT`.
        const MAY_TAKE_NOWAIT_TO_WRITE = 1 << 4;
        /// Writes may support `RWF_NOSIGNAL`.
        const MAY_TAKE_NOSIGNAL = 1 << 5;
        /// A pseudo file system such as procfs, each of whose files has rules of its own.
        const PSEUDO_FS = 1 << 6;
    }
}

/// Equal on every architecture; the libc crate lacks it.
pub(super) const RWF_NOSIGNAL: libc::c_int = 0x100;

impl FdIoMode {
    /// Determines the properties of a file.
    ///
    /// # Errors
    ///
    /// Errors of statx(2).
    pub(crate) fn of(fd: BorrowedFd<'_>) -> io::Result<Self> {
        // Most are sockets, for which one getsockopt(2) is enough.
        let socket_type = super::file::type_of_socket(fd);
        if socket_type.is_some() {
            let mut io_mode = FdIoMode::of_type(FileType::Socket, socket_type);
            // `SO_RCVLOWAT` takes another call, which not every source needs.
            io_mode.is_drained_by_short_reads.take_if(|may_be| *may_be);
            return Ok(io_mode);
        }
        let stat = CachedStat::of(fd)?;
        let file_type = FileType::of_kind(stat.kind);
        let mut io_mode = FdIoMode::of_type(file_type, None);
        let is_pseudo_fs = file_type == FileType::Regular && super::file::is_pseudo_fs(fd, &stat);
        io_mode.traits.set(Traits::PSEUDO_FS, is_pseudo_fs);
        Ok(io_mode)
    }

    /// Determines the properties of a file that must be pollable.
    ///
    /// # Errors
    ///
    /// `EBADF` if it is not open, or open with `O_PATH`; errors of statx(2).
    pub(crate) fn of_pollable(fd: BorrowedFd<'_>) -> io::Result<Self> {
        let io_mode = FdIoMode::of(fd)?;
        // getsockopt(2) fails on both.
        if io_mode.socket_type.is_none() {
            super::file::check_pollable(fd)?;
        }
        Ok(io_mode)
    }

    /// Returns the default properties of a file type; for a socket, of its type.
    pub(crate) fn of_type(file_type: FileType, socket_type: Option<libc::c_int>) -> Self {
        FdIoMode {
            file_type,
            socket_type: socket_type.and_then(|value| u8::try_from(value).ok()),
            is_drained_by_short_reads: Some(socket_type == Some(libc::SOCK_STREAM)),
            own_fd: None,
            traits: Traits::MAY_TAKE_NOWAIT
                | Traits::MAY_TAKE_NOWAIT_TO_WRITE
                | Traits::MAY_TAKE_NOSIGNAL,
            hides_room: None,
        }
    }

    pub(crate) fn is_socket(&self) -> bool {
        self.file_type == FileType::Socket
    }

    /// Returns true for a stream socket.
    pub(crate) fn is_stream(&self) -> bool {
        self.socket_type == Some(libc::SOCK_STREAM as u8)
    }

    /// Returns true for a datagram socket, where an empty datagram is data, not the end.
    pub(crate) fn is_connectionless(&self) -> bool {
        self.is_socket()
            && !self.is_stream()
            && self.socket_type != Some(libc::SOCK_SEQPACKET as u8)
    }

    /// Returns true if a short read usually means that there is no more.
    pub(crate) fn is_drained_by_short_reads(&mut self, fd: RawFd) -> bool {
        let is_drained = &mut self.is_drained_by_short_reads;
        *is_drained.get_or_insert_with(|| super::file::wakes_for_a_byte(fd))
    }

    /// Returns true if poll(2) reports it as readable whenever a splice would find bytes.
    pub(crate) fn shows_bytes(&mut self, fd: RawFd) -> bool {
        self.file_type == FileType::Pipe || (self.is_stream() && self.is_drained_by_short_reads(fd))
    }

    /// Returns true if a splice to it can be skipped while poll(2) reports it as full. A unix
    /// socket is full at a quarter of its buffer, and its peer may wait for more than that. A TCP
    /// socket is full at two thirds; then its peer must read or acknowledge first.
    pub(crate) fn shows_room(&mut self, fd: RawFd) -> bool {
        let is_stream = self.is_stream();
        let hides_room = || !is_stream || super::file::is_local(fd);
        self.file_type == FileType::Pipe || !*self.hides_room.get_or_insert_with(hides_room)
    }

    /// Returns true if it has a position, which reads and writes share. Its writes wait for a disk
    /// at most, and so do nearly all reads.
    pub(crate) fn has_position(&self) -> bool {
        matches!(self.file_type, FileType::Regular | FileType::Block)
    }

    /// Returns true if a ring may read and write it at an offset. A ring ignores the offset of
    /// streams, and the rules of procfs files for it. Without `RWF_NOWAIT`, io_uring_enter(2) would
    /// block until a FUSE server answers.
    pub(super) fn may_be_reached_by_a_ring(&mut self, fd: RawFd) -> bool {
        self.has_position() && !self.traits.contains(Traits::PSEUDO_FS) && self.supports_nowait(fd)
    }

    /// Returns true if the file supports `RWF_NOWAIT`. Probes by a read beyond the end of any file,
    /// which moves nothing. A file that is not readable counts as unsupported.
    fn supports_nowait(&mut self, fd: RawFd) -> bool {
        if self.traits.contains(Traits::MAY_TAKE_NOWAIT) && !self.has_taken_nowait() {
            let mut byte = 0_u8;
            let part = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
            let end = Some(i64::MAX as u64 - 1);
            // SAFETY: `byte` has room for one byte.
            let read = || unsafe { Vectors::of(&[part], end).read(fd, libc::RWF_NOWAIT) };
            let answer = self.if_supported(Traits::MAY_TAKE_NOWAIT, read);
            self.note_nowait(answer.as_ref().is_some_and(reached_file));
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

    /// Returns true if a ring may read it. Without `RWF_NOWAIT` the thread would block inside
    /// io_uring_enter(2), as on terminals. For pipes and anonymous files the first call decides.
    pub(super) fn may_be_read_by_a_ring(&self) -> bool {
        match self.file_type {
            FileType::Socket => true,
            FileType::Pipe | FileType::Anonymous => self.has_taken_nowait(),
            // A ring updates the position apart from the call: a short write leaves it unchanged
            // (Linux 6.18), and other descriptors may share it.
            FileType::Regular | FileType::Block | FileType::Named => false,
        }
    }

    /// Returns true if a ring may write it.
    pub(super) fn may_be_written_by_a_ring(&self) -> bool {
        self.file_type != FileType::Anonymous && self.may_be_read_by_a_ring()
    }

    /// Ensures that no splice from or to the file blocks. Only files of pseudo file systems have a
    /// position and wait for more than a disk.
    pub(crate) fn prepare_to_splice(&mut self, fd: RawFd) -> io::Result<()> {
        if self.traits.contains(Traits::PSEUDO_FS) { self.ensure_nonblocking(fd) } else { Ok(()) }
    }

    /// Ensures that no call on the file blocks. Other users of the description may have cleared
    /// `O_NONBLOCK` since the last time.
    fn ensure_nonblocking(&mut self, fd: RawFd) -> io::Result<()> {
        self.set_nonblocking(fd, flags(fd)?)
    }

    /// Sets `O_NONBLOCK` unless `flags` has it.
    fn set_nonblocking(&mut self, fd: RawFd, flags: libc::c_int) -> io::Result<()> {
        if flags & libc::O_NONBLOCK == 0 {
            set_flags(fd, flags | libc::O_NONBLOCK)?;
            self.traits |= Traits::MADE_NONBLOCKING;
        }
        Ok(())
    }

    /// Begins a turn, in which one check of `O_NONBLOCK` serves any number of calls.
    pub(crate) fn begin_turn(&mut self) {
        self.traits -= Traits::NONBLOCKING_THIS_TURN;
    }

    /// Returns a descriptor of the file on which no call blocks. A check made in this turn is not
    /// repeated.
    pub(super) fn nonblocking_fd(&mut self, fd: RawFd) -> io::Result<RawFd> {
        if let Some(own_fd) = &self.own_fd {
            return Ok(own_fd.as_raw_fd());
        }
        if self.traits.contains(Traits::NONBLOCKING_THIS_TURN) {
            return Ok(fd);
        }
        let flags = flags(fd)?;
        if flags & libc::O_NONBLOCK == 0 && !self.traits.contains(Traits::MADE_NONBLOCKING) {
            // SAFETY: the caller keeps the descriptor open.
            let fd = unsafe { BorrowedFd::borrow_raw(fd) };
            if let Some(own_fd) = reopen(fd, self.file_type, flags) {
                return Ok(self.own_fd.insert(own_fd).as_raw_fd());
            }
        }
        self.set_nonblocking(fd, flags)?;
        self.traits |= Traits::NONBLOCKING_THIS_TURN;
        Ok(fd)
    }

    /// Clears `O_NONBLOCK` if the poller has set it.
    pub(crate) fn restore(&mut self, fd: RawFd) {
        self.own_fd = None;
        if self.traits.contains(Traits::MADE_NONBLOCKING) {
            self.traits -= Traits::MADE_NONBLOCKING;
            // The only failure is that the program has closed the descriptor.
            let restored = flags(fd);
            let _ = restored.and_then(|flags| set_flags(fd, flags & !libc::O_NONBLOCK));
        }
    }

    /// Calls preadv2(2) on a file without a position; does not block.
    ///
    /// # Safety
    ///
    /// The parts must be valid for writes.
    pub(super) unsafe fn read(
        &mut self,
        fd: RawFd,
        parts: &[libc::iovec],
        offset: Option<u64>,
    ) -> io::Result<usize> {
        let vectors = Vectors::of(parts, offset);
        // SAFETY: as the caller promises.
        let read = |flags| unsafe { vectors.read(fd, flags) };
        if let Some(done) = self.if_supported(Traits::MAY_TAKE_NOWAIT, || read(libc::RWF_NOWAIT)) {
            self.note_nowait(true);
            return done;
        }
        let fd = self.nonblocking_fd(fd)?;
        // SAFETY: as the caller promises.
        unsafe { vectors.read(fd, 0) }
    }

    /// Calls pwritev2(2) on a file without a position; neither blocks nor raises `SIGPIPE`.
    ///
    /// # Safety
    ///
    /// The parts must be valid for reads.
    pub(super) unsafe fn write(
        &mut self,
        fd: RawFd,
        parts: &[libc::iovec],
        offset: Option<u64>,
    ) -> io::Result<usize> {
        let vectors = Vectors::of(parts, offset);
        if vectors.is_empty_write() {
            return write_empty(fd, offset);
        }
        // SAFETY: as the caller promises.
        let write = |flags| unsafe { vectors.write(fd, flags) };
        let now = || write(libc::RWF_NOWAIT | RWF_NOSIGNAL);
        if self.traits.contains(Traits::MAY_TAKE_NOSIGNAL) {
            if let Some(done) = self.if_supported(Traits::MAY_TAKE_NOWAIT, now) {
                self.note_nowait(true);
                return done;
            }
        }
        let fd = self.nonblocking_fd(fd)?;
        // SAFETY: as the caller promises.
        let write = |flags| unsafe { vectors.write(fd, flags) };
        let done = self.if_supported(Traits::MAY_TAKE_NOSIGNAL, || write(RWF_NOSIGNAL));
        done.unwrap_or_else(|| without_sigpipe(|| write(0)))
    }

    /// Reads the cached part of a file with a position. Returns `WouldBlock` if nothing is cached,
    /// or that can't be determined. A read at the position also returns it: another descriptor may
    /// share the position, and read between two pieces.
    ///
    /// # Safety
    ///
    /// The parts must be valid for writes.
    pub(super) unsafe fn read_cached(
        &mut self,
        fd: RawFd,
        parts: &[libc::iovec],
        offset: Option<u64>,
    ) -> io::Result<usize> {
        if offset.is_none() {
            self.prepare_for_thread(fd)?;
            return Err(io::ErrorKind::WouldBlock.into());
        }
        if self.traits.contains(Traits::MAY_TAKE_NOWAIT) && is_direct(fd)? {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        // SAFETY: as the caller promises.
        let read = || unsafe { Vectors::of(parts, offset).read(fd, libc::RWF_NOWAIT) };
        if let Some(done) = self.if_supported(Traits::MAY_TAKE_NOWAIT, read) {
            self.note_nowait(reached_file(&done));
            return done;
        }
        self.prepare_for_thread(fd)?;
        Err(io::ErrorKind::WouldBlock.into())
    }

    /// Prepares a read by a thread. A few files in procfs and tracefs wait for more than a disk;
    /// none of these supports `RWF_NOWAIT`.
    fn prepare_for_thread(&mut self, fd: RawFd) -> io::Result<()> {
        if self.supports_nowait(fd) { Ok(()) } else { self.ensure_nonblocking(fd) }
    }

    /// Writes to the cache of a file with a position. Returns `WouldBlock` if nothing fits, or that
    /// can't be determined. A write at the position or with `O_APPEND` also returns it, because
    /// others may write between two pieces.
    ///
    /// # Safety
    ///
    /// The parts must be valid for reads.
    pub(super) unsafe fn write_cached(
        &mut self,
        fd: RawFd,
        parts: &[libc::iovec],
        offset: Option<u64>,
    ) -> io::Result<usize> {
        let vectors = Vectors::of(parts, offset);
        if vectors.is_empty_write() {
            return write_empty(fd, offset);
        }
        if offset.is_none() || flags(fd)? & (libc::O_DIRECT | libc::O_APPEND) != 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        // SAFETY: as the caller promises.
        let write = || unsafe { vectors.write(fd, libc::RWF_NOWAIT) };
        let write = || without_sigxfsz(write);
        let done = self.if_supported(Traits::MAY_TAKE_NOWAIT_TO_WRITE, write);
        self.note_nowait(done.as_ref().is_some_and(reached_file));
        done.unwrap_or_else(|| Err(io::ErrorKind::WouldBlock.into()))
    }

    /// Makes a call with a flag, unless the file is known not to support it.
    fn if_supported(
        &mut self,
        may_take_it: Traits,
        call: impl FnOnce() -> io::Result<usize>,
    ) -> Option<io::Result<usize>> {
        let done = self.traits.contains(may_take_it).then(call)?;
        if done.as_ref().is_err_and(is_unsupported) {
            self.traits -= may_take_it;
            return None;
        }
        Some(done)
    }

    /// Emulates Linux before 6.18, or a file that supports no flags.
    #[cfg(test)]
    pub(super) fn forget_flags(&mut self) {
        self.traits -= Traits::MAY_TAKE_NOWAIT | Traits::MAY_TAKE_NOSIGNAL;
    }
}

/// Returns true unless the call failed first, because the file is not open in its direction.
fn reached_file(answer: &io::Result<usize>) -> bool {
    !answer.as_ref().is_err_and(|error| error.raw_os_error() == Some(libc::EBADF))
}

/// Returns true if a call reports an unknown flag.
fn is_unsupported(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOSYS))
}

fn flags(fd: RawFd) -> io::Result<libc::c_int> {
    // SAFETY: F_GETFL takes no argument and touches no memory.
    let flags = super::checked(unsafe { libc::fcntl(fd, libc::F_GETFL) })?;
    Ok(flags as libc::c_int)
}

fn set_flags(fd: RawFd, flags: libc::c_int) -> io::Result<()> {
    // SAFETY: F_SETFL takes an integer and touches no memory.
    super::checked(unsafe { libc::fcntl(fd, libc::F_SETFL, flags) })?;
    Ok(())
}

/// Writes no bytes: pwritev2(2) would not call the file. Some sockets send an empty packet, and
/// raise `SIGPIPE`.
fn write_empty(fd: RawFd, offset: Option<u64>) -> io::Result<usize> {
    match offset {
        // SAFETY: no byte is read.
        Some(at) => counted(unsafe { libc::pwrite64(fd, ptr::null(), 0, at as i64) }),
        // SAFETY: no byte is read.
        None => without_sigpipe(|| counted(unsafe { libc::write(fd, ptr::null(), 0) })),
    }
}

/// Returns true if reads and writes bypass the cache, and block whatever the flags.
fn is_direct(fd: RawFd) -> io::Result<bool> {
    Ok(flags(fd)? & libc::O_DIRECT != 0)
}

#[cfg(test)]
mod tests;
