//! Calls that may wait for a disk, with and without waiting.
#![allow(unsafe_code)]

use super::super::io_mode::FdIoMode;
use super::super::mount::{CachedStat, MountId};
use super::super::raised::without_sigpipe;
use super::super::vectors::{Vectors, counted};
use super::open::{OPEN_FLAGS, mount_of};
use super::splice::splice;
use super::{Call, CallArgs, CallResult, IoCall, missing_args};
use std::io;
use std::os::fd::BorrowedFd;

impl IoCall {
    /// Returns true if the call may wait for a disk, or for something that can't be polled. (The
    /// reactor decides about splices.)
    pub(crate) fn may_wait_for_disk(&self, io_mode: &FdIoMode) -> bool {
        match self.call {
            Call::Sync { .. } | Call::Open => true,
            Call::Read | Call::Write | Call::ReadAt(_) | Call::WriteAt(_) => io_mode.has_position(),
            _ => false,
        }
    }

    /// Returns the offset of the next byte, unless the call uses the file's position.
    pub(super) fn offset(&self) -> Option<u64> {
        match self.call {
            Call::ReadAt(offset) | Call::WriteAt(offset) => {
                Some(offset + self.io_buf.moved() as u64)
            }
            _ => None,
        }
    }

    /// Transfers bytes without waiting. Returns `WouldBlock` if some are left for
    /// [`IoCall::run_blocking`].
    pub(super) fn attempt_cached(&mut self, io_mode: &mut FdIoMode) -> io::Result<CallResult> {
        loop {
            let (fd, offset) = (self.fd, self.offset());
            let tried = match self.call {
                Call::Read | Call::ReadAt(_) => {
                    // SAFETY: the vectors are space in buffers that outlive the call.
                    unsafe { io_mode.read_cached(fd, &self.io_buf.vectors(), offset) }
                }
                Call::Write | Call::WriteAt(_) => {
                    // SAFETY: the vectors are in buffers that outlive the call.
                    unsafe { io_mode.write_cached(fd, &self.io_buf.vectors(), offset) }
                }
                _ => return Err(io::ErrorKind::WouldBlock.into()),
            };
            match tried {
                // The next attempt finds out if the rest must come from the disk.
                Ok(count) if count > 0 && count < self.io_buf.left() => {
                    self.done(count)?;
                }
                tried => return self.finish(tried),
            }
        }
    }

    /// Hides a final error after bytes were transferred, as one plain call does.
    fn finish(&mut self, answer: io::Result<usize>) -> io::Result<CallResult> {
        match answer {
            Ok(answer) => self.done(answer),
            Err(error) if self.must_report(&error) => Err(error),
            Err(_) => Ok(CallResult::Moved(0)),
        }
    }

    fn must_report(&self, error: &io::Error) -> bool {
        let is_transient =
            matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted);
        is_transient || self.io_buf.moved() == 0
    }

    /// Returns the mount for whose file system or disk [`IoCall::run_blocking`] may wait, if known.
    pub(crate) fn mount(&self) -> Option<MountId> {
        // SAFETY: the holder of this value keeps its files open.
        let stat = |fd| CachedStat::of(unsafe { BorrowedFd::borrow_raw(fd) }).ok();
        match &self.args {
            CallArgs::OpenArgs(path) => mount_of(self.fd, &path.name),
            CallArgs::Target(target) => {
                let on_disk =
                    |stat: &CachedStat| matches!(stat.kind, libc::S_IFREG | libc::S_IFBLK);
                [self.fd, *target].into_iter().filter_map(stat).find(on_disk)?.mount
            }
            _ => stat(self.fd)?.mount,
        }
    }

    /// Makes the call, and blocks until it is done.
    ///
    /// # Errors
    ///
    /// Errors of the call; `WouldBlock` for a file with `O_NONBLOCK`.
    pub(crate) fn run_blocking(&mut self) -> io::Result<CallResult> {
        loop {
            let answer = self.run_once();
            match answer {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                answer => return self.finish(answer),
            }
        }
    }

    fn run_once(&mut self) -> io::Result<usize> {
        let (fd, offset) = (self.fd, self.offset());
        match self.call {
            Call::Read | Call::ReadAt(_) => {
                // SAFETY: the vectors are space in buffers that outlive the call.
                unsafe { Vectors::of(&self.io_buf.vectors(), offset).read(fd, 0) }
            }
            Call::Write | Call::WriteAt(_) => {
                // SAFETY: the vectors are in buffers that outlive the call.
                unsafe { Vectors::of(&self.io_buf.vectors(), offset).write(fd, 0) }
            }
            Call::Sync { data_only: true } => {
                // SAFETY: no memory is passed.
                counted(unsafe { libc::fdatasync(fd) } as isize)
            }
            Call::Sync { data_only: false } => {
                // SAFETY: no memory is passed.
                counted(unsafe { libc::fsync(fd) } as isize)
            }
            Call::Open => {
                let CallArgs::OpenArgs(path) = &self.args else { return Err(missing_args()) };
                let (name, flags) = (path.name.as_ptr(), path.flags | OPEN_FLAGS);
                // SAFETY: the path ends with a zero, and outlives the call.
                let opened = unsafe { libc::openat(fd, name, flags, path.mode) };
                counted(opened as isize)
            }
            Call::Splice => {
                let Some(target) = self.target() else { return Err(missing_args()) };
                without_sigpipe(|| splice(self.fd, target, self.io_buf.left()))
            }
            _ => Err(missing_args()),
        }
    }
}
