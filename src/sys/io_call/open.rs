//! Opening a file on the calling thread, where that can't block.
//!
//! The path is resolved from the kernel's cache alone (openat2(2), `RESOLVE_CACHED`), with
//! `O_PATH`, which opens nothing. The file is then opened if its type and file system are known not
//! to block. A thread makes the plain call for everything else.
//!
//! The cache does not suffice to follow a symbolic link whose access time is due for an update:
//! with `relatime`, the first time after the link was changed, and once a day.
//!
//! `ENOENT` is final: the plain call looks into the cache first, in the same way, and asks the file
//! system only after `ECHILD`. Other errors may come from a sandbox, or from a step that the plain
//! call does not take, so a thread makes the call.
#![allow(unsafe_code)]

use super::super::fd_table::THREAD_FDS;
use super::super::mount::{CachedStat, MountId};
use super::super::own_fd::above_stdio;
use super::{CallArgs, IoCall, OpenArgs};
use std::ffi::{CStr, CString};
use std::io;
use std::mem::offset_of;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

/// Keeps the open of a FIFO or a terminal line from blocking; no effect on other files.
pub(super) const OPEN_FLAGS: libc::c_int = libc::O_CLOEXEC | libc::O_NONBLOCK;

/// The flags allowed in an open that can't block. Opening for writing may read quotas from the
/// disk; creating and truncating wait for a journal. `O_NOFOLLOW` is visible in `F_GETFL`, and the
/// second step can't have it.
const ALLOWED_FLAGS: libc::c_int = libc::O_RDONLY
    | libc::O_DIRECTORY
    | libc::O_CLOEXEC
    | libc::O_NONBLOCK
    | libc::O_NOCTTY
    | libc::O_NOATIME
    | libc::O_LARGEFILE
    | libc::O_DIRECT
    | libc::O_SYNC;

/// The files of a file system whose open can't block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Opens {
    Nothing,
    Files,
    FilesAndDirectories,
}

impl Opens {
    /// Returns the files whose open can't block in file systems of this type. Opening a directory
    /// may read extents on xfs, and an index on btrfs. overlayfs opens files of other file systems.
    fn of(magic: u64) -> Self {
        const EXT: u64 = libc::EXT4_SUPER_MAGIC as u64;
        const TMPFS: u64 = libc::TMPFS_MAGIC as u64;
        /// The libc crate lacks these for some C libraries.
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

/// The state that a poller keeps to open files without blocking, for its own thread only.
#[derive(Debug, Default)]
pub(crate) struct Opener {
    /// [`THREAD_FDS`], once needed.
    fds: Option<OwnedFd>,
    /// The most recently used mounts, and the index of the next.
    mounts: [Option<(MountId, Opens)>; 8],
    next: usize,
}

impl Opener {
    /// Opens a file if that can't block. Returns `None` otherwise, or if the cause of a failure is
    /// unknown.
    fn open(&mut self, directory: RawFd, path: &OpenArgs) -> Option<io::Result<OwnedFd>> {
        if path.flags & !ALLOWED_FLAGS != 0 {
            return None;
        }
        // A low descriptor here would be taken from the opened file.
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

    /// Returns the files of a mount whose open can't block, if known.
    fn opens_of(&mut self, mount: MountId) -> Option<Opens> {
        let known = self.mounts.iter().flatten().find(|(id, _)| *id == mount);
        if let Some((_, opens)) = known {
            return Some(*opens);
        }
        let opens = Opens::of(mount.fs_magic().ok()?);
        self.mounts[self.next] = Some((mount, opens));
        self.next = (self.next + 1) % self.mounts.len();
        Some(opens)
    }

    /// Opens a file again that is open with `O_PATH`.
    fn reopen(&mut self, found: &OwnedFd, flags: libc::c_int) -> io::Result<OwnedFd> {
        let fds = match &self.fds {
            Some(fds) => fds,
            None => self.fds.insert(above_stdio(thread_fds)?),
        };
        let mut digits = [0; 12];
        let name = decimal(found.as_raw_fd().unsigned_abs(), &mut digits);
        open_at(fds.as_raw_fd(), name, flags | OPEN_FLAGS)
    }
}

impl IoCall {
    /// Opens the file if that can't block. Returns `None` if [`IoCall::run_blocking`] must do it.
    ///
    /// # Errors
    ///
    /// `NotFound`.
    pub(crate) fn open_now(&self, opener: &mut Opener) -> Option<io::Result<OwnedFd>> {
        match &self.args {
            CallArgs::OpenArgs(path) => opener.open(self.fd, path),
            _ => None,
        }
    }
}

/// Returns the mount in which the cached part of a path ends.
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

/// Opens a path with `O_PATH`, if all of it is in the kernel's cache.
fn resolve_cached(directory: RawFd, name: &CStr, flags: libc::c_int) -> io::Result<OwnedFd> {
    let flags = libc::O_PATH | libc::O_CLOEXEC | flags & libc::O_DIRECTORY;
    let how = OpenHow { flags: flags as u64, mode: 0, resolve: RESOLVE_CACHED };
    let (name, size) = (name.as_ptr(), size_of::<OpenHow>());
    // SAFETY: the path ends with a zero, and `how` has `size` bytes; both outlive the call.
    let answer = unsafe { libc::syscall(libc::SYS_openat2, directory, name, &raw const how, size) };
    owned(answer as libc::c_int)
}

/// Opens the directory of the calling thread's descriptors.
///
/// # Errors
///
/// `NotFound` if there is no procfs; errors of open(2).
fn thread_fds() -> io::Result<OwnedFd> {
    let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC;
    let fds = open_at(libc::AT_FDCWD, THREAD_FDS, flags)?;
    if CachedStat::of(fds.as_fd())?.fs_magic() == Some(libc::PROC_SUPER_MAGIC as u64) {
        Ok(fds)
    } else {
        Err(io::Error::new(io::ErrorKind::NotFound, "there is no procfs at /proc"))
    }
}

/// Writes a number in decimal, and a zero, to the end of `digits`.
fn decimal(mut number: u32, digits: &mut [u8; 12]) -> &CStr {
    let mut start = digits.len() - 1;
    loop {
        start -= 1;
        digits[start] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return CStr::from_bytes_until_nul(&digits[start..]).unwrap_or_default();
        }
    }
}

fn open_at(directory: RawFd, name: &CStr, flags: libc::c_int) -> io::Result<OwnedFd> {
    // SAFETY: the path ends with a zero, and outlives the call. No file is created.
    owned(unsafe { libc::openat(directory, name.as_ptr(), flags) })
}

/// Takes ownership of a descriptor that a call has just made.
fn owned(answer: libc::c_int) -> io::Result<OwnedFd> {
    super::super::checked(answer)?;
    // SAFETY: the kernel has just made the descriptor, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(answer) })
}

/// `struct open_how`, for which the libc crate has no constructor.
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
