//! Opening a file on the calling thread, where that cannot wait.
//!
//! The path is resolved from the kernel's cache alone (openat2(2), `RESOLVE_CACHED`), and with
//! `O_PATH`, which opens nothing. What was found is opened if its kind and its file system are
//! known not to wait then. Everything else is left to a thread, which makes the plain call.
//!
//! The cache is not enough to follow a symbolic link whose time of access is due to be updated.
//! With `relatime` that is so the first time after the link was changed, and once a day.
//!
//! That a name is missing (`ENOENT`) is known from the cache too: the plain call looks there first,
//! in the same way, and asks the file system only if that says `ECHILD`. Other errors may come from
//! a sandbox, or from a step that the plain call does not take, so a thread finds them.
#![allow(unsafe_code)]

use super::super::fd_table::THREAD_FDS;
use super::super::mount::{CachedStat, MountId};
use super::super::own_fd::above_stdio;
use super::{CallArgs, IoCall, OpenArgs};
use std::ffi::{CStr, CString};
use std::io;
use std::mem::offset_of;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

/// A FIFO is not waited for, nor a terminal's line; to other files it means nothing.
pub(super) const OPENED: libc::c_int = libc::O_CLOEXEC | libc::O_NONBLOCK;

/// The flags that an open without waiting may have. To open for writing may read quotas from the
/// disk; what creates or truncates waits for a journal; and `O_NOFOLLOW` is a flag of the open file
/// (`F_GETFL`), which the second step can't have.
const FLAGS: libc::c_int = libc::O_RDONLY
    | libc::O_DIRECTORY
    | libc::O_CLOEXEC
    | libc::O_NONBLOCK
    | libc::O_NOCTTY
    | libc::O_NOATIME
    | libc::O_LARGEFILE
    | libc::O_DIRECT
    | libc::O_SYNC;

/// What can be opened without waiting in a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Opens {
    Nothing,
    Files,
    FilesAndDirectories,
}

impl Opens {
    /// Returns what can be opened without waiting in file systems of this type. xfs may read
    /// extents of a directory that is opened, and btrfs an index. overlayfs opens files of other
    /// file systems, which may be anything.
    fn of(magic: u64) -> Self {
        const EXT: u64 = libc::EXT4_SUPER_MAGIC as u64;
        const TMPFS: u64 = libc::TMPFS_MAGIC as u64;
        /// The libc crate does not have these for every C library.
        const RAMFS: u64 = 0x8584_58f6;
        const XFS: u64 = 0x5846_5342;
        const BTRFS: u64 = 0x9123_683e;
        match magic {
            EXT | TMPFS | RAMFS => Opens::FilesAndDirectories,
            XFS | BTRFS => Opens::Files,
            _ => Opens::Nothing,
        }
    }

    fn allows(self, kind: libc::mode_t) -> bool {
        match kind {
            libc::S_IFREG => self != Opens::Nothing,
            libc::S_IFDIR => self == Opens::FilesAndDirectories,
            _ => false,
        }
    }
}

/// What a poller keeps to open files without waiting. It belongs to the thread that has made it.
#[derive(Debug, Default)]
pub(crate) struct Opener {
    /// [`THREAD_FDS`], once it was needed.
    fds: Option<OwnedFd>,
    /// The mounts in which files were opened most recently, and the place for the next.
    mounts: [Option<(MountId, Opens)>; 8],
    next: usize,
}

impl Opener {
    /// Opens a file if that cannot wait. Returns `None` if it could, and if it is not known why it
    /// failed.
    fn open(&mut self, directory: RawFd, path: &OpenArgs) -> Option<io::Result<OwnedFd>> {
        if path.flags & !FLAGS != 0 {
            return None;
        }
        // Under a low number it would take that from the file that is opened.
        let found = match above_stdio(|| resolve_cached(directory, &path.name, path.flags)) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Some(Err(error)),
            found => found.ok()?,
        };
        let stat = CachedStat::of(found.as_fd()).ok()?;
        let is_local = self.opens_of(stat.mount?)?.allows(stat.kind);
        if !is_local || stat.has_metadata_on_disk {
            return None;
        }
        self.reopen(&found, path.flags).ok().map(Ok)
    }

    /// Returns what can be opened without waiting in a mount. `None` if the kernel does not say.
    fn opens_of(&mut self, mount: MountId) -> Option<Opens> {
        let known = self.mounts.iter().flatten().find(|(its, _)| *its == mount);
        if let Some((_, opens)) = known {
            return Some(*opens);
        }
        let opens = Opens::of(mount.fs_magic().ok()?);
        self.mounts[self.next] = Some((mount, opens));
        self.next = (self.next + 1) % self.mounts.len();
        Some(opens)
    }

    /// Opens a file that is open with `O_PATH`.
    fn reopen(&mut self, found: &OwnedFd, flags: libc::c_int) -> io::Result<OwnedFd> {
        let fds = match &self.fds {
            Some(fds) => fds,
            None => self.fds.insert(above_stdio(thread_fds)?),
        };
        let mut memory = [0; 12];
        let name = decimal(found.as_raw_fd().unsigned_abs(), &mut memory);
        open_at(fds.as_raw_fd(), name, flags | OPENED)
    }
}

impl IoCall {
    /// Opens the file if that cannot wait. Returns `None` if the call is for
    /// [`IoCall::perform`].
    ///
    /// # Errors
    ///
    /// `NotFound`.
    pub(crate) fn open_now(&self, opener: &mut Opener) -> Option<io::Result<OwnedFd>> {
        match &self.with {
            CallArgs::OpenArgs(path) => opener.open(self.number, path),
            _ => None,
        }
    }
}

/// Returns the mount in which a path leaves what the kernel has in memory of it, or ends.
pub(super) fn mount_of(directory: RawFd, path: &CStr) -> Option<MountId> {
    let mut name = path.to_bytes();
    loop {
        let found = CString::new(name).ok().map(|name| resolve_cached(directory, &name, 0));
        if let Some(Ok(found)) = found {
            return CachedStat::of(found.as_fd()).ok()?.mount;
        }
        name = match name.iter().rposition(|&byte| byte == b'/') {
            _ if matches!(name, b"/" | b".") => return None,
            Some(0) => b"/",
            Some(end) => &name[..end],
            None => b".",
        };
    }
}

/// Returns the file of a path, open with `O_PATH`, if the kernel has all of the path in memory.
fn resolve_cached(directory: RawFd, name: &CStr, flags: libc::c_int) -> io::Result<OwnedFd> {
    let flags = libc::O_PATH | libc::O_CLOEXEC | flags & libc::O_DIRECTORY;
    let how = OpenHow { flags: flags as u64, mode: 0, resolve: RESOLVE_CACHED };
    let (name, size) = (name.as_ptr(), size_of::<OpenHow>());
    // SAFETY: the name ends with a zero, and `how` has that size; both outlive the call.
    let answer = unsafe { libc::syscall(libc::SYS_openat2, directory, name, &raw const how, size) };
    owned(answer as libc::c_int)
}

/// Opens the directory of the descriptors of the calling thread.
///
/// # Errors
///
/// `NotFound` if there is no procfs; what open(2) says.
fn thread_fds() -> io::Result<OwnedFd> {
    let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC;
    let fds = open_at(libc::AT_FDCWD, THREAD_FDS, flags)?;
    match CachedStat::of(fds.as_fd())?.fs_magic() == Some(libc::PROC_SUPER_MAGIC as u64) {
        true => Ok(fds),
        false => Err(io::Error::new(io::ErrorKind::NotFound, "there is no procfs at /proc")),
    }
}

/// Writes the digits of a number to the end of this memory, but for its last byte, which is zero.
fn decimal(mut number: u32, memory: &mut [u8; 12]) -> &CStr {
    let mut start = memory.len() - 1;
    loop {
        start -= 1;
        memory[start] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return CStr::from_bytes_until_nul(&memory[start..]).unwrap_or_default();
        }
    }
}

fn open_at(directory: RawFd, name: &CStr, flags: libc::c_int) -> io::Result<OwnedFd> {
    // SAFETY: the name ends with a zero, and outlives the call. No file is created.
    owned(unsafe { libc::openat(directory, name.as_ptr(), flags) })
}

/// Takes the descriptor that a call has just made.
fn owned(answer: libc::c_int) -> io::Result<OwnedFd> {
    super::super::checked(answer)?;
    // SAFETY: the kernel has just made the number, and nothing else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(answer) })
}

/// `struct open_how`. The libc crate has no constructor for it.
#[repr(C)]
struct OpenHow {
    flags: u64,
    mode: u64,
    resolve: u64,
}

/// The layout in `linux/openat2.h`: `OPEN_HOW_SIZE_VER0`, and the offsets of the libc crate.
const _: () = {
    assert!(size_of::<OpenHow>() == 24);
    assert!(offset_of!(OpenHow, flags) == offset_of!(libc::open_how, flags));
    assert!(offset_of!(OpenHow, mode) == offset_of!(libc::open_how, mode));
    assert!(offset_of!(OpenHow, resolve) == offset_of!(libc::open_how, resolve));
};

const RESOLVE_CACHED: u64 = 0x20;

#[cfg(test)]
mod tests;
