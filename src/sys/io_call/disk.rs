//! Calls that may have to wait for a disk: without waiting, as far as that goes, and with.
#![allow(unsafe_code)]

use super::super::io_mode::FdIoMode;
use super::super::mount::{CachedStat, MountId};
use super::super::raised::without_sigpipe;
use super::super::vectors::{Vectors, counted};
use super::open::{OPENED, mount_of};
use super::splice::splice;
use super::{Call, CallArgs, CallResult, IoCall, unsuitable};
use std::io;
use std::os::fd::BorrowedFd;

impl IoCall {
    /// Whether what it waits for is a disk, or nothing that could be polled for. (A splice is the
    /// reactor's, which knows both files.)
    pub(crate) fn is_for_a_disk(&self, io_mode: &FdIoMode) -> bool {
        match self.call {
            Call::Sync { .. } | Call::Open => true,
            Call::Read | Call::Write | Call::ReadAt(_) | Call::WriteAt(_) => io_mode.has_position(),
            _ => false,
        }
    }

    /// Where it reads or writes, unless that is at the file's own position.
    pub(super) fn offset(&self) -> Option<u64> {
        match self.call {
            Call::ReadAt(offset) | Call::WriteAt(offset) => {
                Some(offset + self.io_buf.moved() as u64)
            }
            _ => None,
        }
    }

    /// Moves what can be moved without waiting. If that is not all, `WouldBlock`: the rest is for
    /// [`IoCall::perform`].
    pub(super) fn attempt_on_disk(&mut self, io_mode: &mut FdIoMode) -> io::Result<CallResult> {
        loop {
            let (number, offset) = (self.number, self.offset());
            let tried = match self.call {
                Call::Read | Call::ReadAt(_) => {
                    // SAFETY: they are room at the end of buffers that outlive the call.
                    unsafe { io_mode.read_cached(number, &self.io_buf.vectors(), offset) }
                }
                Call::Write | Call::WriteAt(_) => {
                    // SAFETY: they are of buffers that outlive the call.
                    unsafe { io_mode.write_cached(number, &self.io_buf.vectors(), offset) }
                }
                _ => return Err(io::ErrorKind::WouldBlock.into()),
            };
            match tried {
                // The rest has to come from the disk.
                Ok(count) if count > 0 && count < self.io_buf.left() => {
                    self.done(count)?;
                }
                tried => return self.settle(tried),
            }
        }
    }

    /// What the plain call would have answered, which knows of no pieces.
    fn settle(&mut self, answer: io::Result<usize>) -> io::Result<CallResult> {
        match answer {
            Ok(answer) => self.done(answer),
            Err(error) if self.is_to_be_told(&error) => Err(error),
            Err(_) => Ok(CallResult::Moved(0)),
        }
    }

    fn is_to_be_told(&self, error: &io::Error) -> bool {
        let is_passing =
            matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted);
        is_passing || self.io_buf.moved() == 0
    }

    /// Returns the mount whose file system or disk [`IoCall::perform`] may have to wait for, if
    /// the kernel tells.
    pub(crate) fn mount(&self) -> Option<MountId> {
        // SAFETY: the holder of this value keeps its files open.
        let stat = |fd| CachedStat::of(unsafe { BorrowedFd::borrow_raw(fd) }).ok();
        match &self.with {
            CallArgs::OpenArgs(path) => mount_of(self.number, &path.name),
            CallArgs::Target(target) => {
                let on_disk =
                    |stat: &CachedStat| matches!(stat.kind, libc::S_IFREG | libc::S_IFBLK);
                [self.number, *target].into_iter().filter_map(stat).find(on_disk)?.mount
            }
            _ => stat(self.number)?.mount,
        }
    }

    /// Makes the call, and waits for it: not on a thread that has something else to do.
    ///
    /// # Errors
    ///
    /// What the call says; `WouldBlock` of a file that is set so.
    pub(crate) fn perform(&mut self) -> io::Result<CallResult> {
        loop {
            let answer = self.perform_once();
            match answer {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                answer => return self.settle(answer),
            }
        }
    }

    fn perform_once(&mut self) -> io::Result<usize> {
        let (number, offset) = (self.number, self.offset());
        match self.call {
            Call::Read | Call::ReadAt(_) => {
                // SAFETY: they are room at the end of buffers that outlive the call.
                unsafe { Vectors::of(&self.io_buf.vectors(), offset).read(number, 0) }
            }
            Call::Write | Call::WriteAt(_) => {
                // SAFETY: they are of buffers that outlive the call.
                unsafe { Vectors::of(&self.io_buf.vectors(), offset).write(number, 0) }
            }
            Call::Sync { data_only: true } => {
                // SAFETY: no memory is passed.
                counted(unsafe { libc::fdatasync(number) } as isize)
            }
            Call::Sync { data_only: false } => {
                // SAFETY: no memory is passed.
                counted(unsafe { libc::fsync(number) } as isize)
            }
            Call::Open => {
                let CallArgs::OpenArgs(path) = &self.with else { return Err(unsuitable()) };
                let (name, flags) = (path.name.as_ptr(), path.flags | OPENED);
                // SAFETY: the name ends with a zero, and outlives the call.
                let opened = unsafe { libc::openat(number, name, flags, path.mode) };
                counted(opened as isize)
            }
            Call::Splice => {
                let Some(target) = self.target() else { return Err(unsuitable()) };
                without_sigpipe(|| splice(self.number, target, self.io_buf.left()))
            }
            _ => Err(unsuitable()),
        }
    }
}
