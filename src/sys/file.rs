//! File descriptors: kept together with their owner, and checked.
#![allow(unsafe_code)]

use super::fd_table::path_of;
use super::mount::CachedStat;
use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

/// A file descriptor together with the handle it was borrowed from.
#[derive(Clone)]
pub(crate) struct SourceFd {
    owner: Arc<dyn AsFd + Send + Sync>,
    raw_fd: RawFd,
}

impl SourceFd {
    /// Calls `as_fd` once: user code that panics or answers differently later can't interrupt the
    /// poller.
    pub(crate) fn new(owner: Arc<dyn AsFd + Send + Sync>) -> Self {
        let raw_fd = owner.as_fd().as_raw_fd();
        SourceFd { owner, raw_fd }
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        // SAFETY: `raw_fd` was borrowed from `*self.owner`, which this value, or the one it was
        // cloned from, has kept alive and in place since. That borrow could have lasted until now.
        unsafe { BorrowedFd::borrow_raw(self.raw_fd) }
    }

    pub(crate) fn raw_fd(&self) -> RawFd {
        self.raw_fd
    }
}

impl fmt::Debug for SourceFd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let handles = Arc::strong_count(&self.owner);
        f.debug_struct("SourceFd").field("raw_fd", &self.raw_fd).field("handles", &handles).finish()
    }
}

/// The file types that statx(2) distinguishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileType {
    Socket,
    /// Pipes and FIFOs.
    Pipe,
    /// Files without a name in the file system: eventfd and so on.
    Anonymous,
    /// Regular files, those of procfs, sysfs and cgroups included.
    Regular,
    /// Block devices.
    Block,
    /// Directories and other devices.
    Named,
}

impl FileType {
    /// Returns the type of the file.
    ///
    /// # Errors
    ///
    /// Errors of statx(2).
    pub(crate) fn of(fd: BorrowedFd<'_>) -> io::Result<Self> {
        Ok(FileType::of_kind(CachedStat::of(fd)?.kind))
    }

    /// Converts the type bits of a mode: `S_IFREG` and so on.
    pub(super) fn of_kind(kind: libc::mode_t) -> Self {
        match kind {
            libc::S_IFSOCK => FileType::Socket,
            libc::S_IFIFO => FileType::Pipe,
            0 => FileType::Anonymous,
            libc::S_IFREG => FileType::Regular,
            libc::S_IFBLK => FileType::Block,
            _ => FileType::Named,
        }
    }
}

/// The kinds of files that SIGIO distinguishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FdKind {
    /// `AF_UNIX`.
    UnixSocket,
    /// TCP or UDP.
    InternetSocket,
    OtherSocket,
    /// Pipes and FIFOs.
    Pipe,
    Inotify,
    /// Other files without a name in the file system: eventfd and so on.
    Anonymous,
    /// Regular files, directories, devices.
    Named,
}

impl FdKind {
    /// Returns the kind of the file.
    ///
    /// # Errors
    ///
    /// Errors of statx(2).
    pub(crate) fn of(fd: BorrowedFd<'_>) -> io::Result<Self> {
        Ok(match FileType::of(fd)? {
            FileType::Socket => FdKind::of_socket(fd),
            FileType::Pipe => FdKind::Pipe,
            FileType::Anonymous if is_anonymous(fd, "inotify") => FdKind::Inotify,
            FileType::Anonymous => FdKind::Anonymous,
            FileType::Regular | FileType::Block | FileType::Named => FdKind::Named,
        })
    }

    fn of_socket(fd: BorrowedFd<'_>) -> Self {
        let option = |name| socket_option(fd, name);
        match (option(libc::SO_DOMAIN), option(libc::SO_PROTOCOL)) {
            (Ok(libc::AF_UNIX), _) => FdKind::UnixSocket,
            (Ok(libc::AF_INET | libc::AF_INET6), Ok(libc::IPPROTO_TCP | libc::IPPROTO_UDP)) => {
                FdKind::InternetSocket
            }
            _ => FdKind::OtherSocket,
        }
    }
}

pub(crate) fn is_character_device(fd: BorrowedFd<'_>) -> bool {
    CachedStat::of(fd).is_ok_and(|stat| stat.kind == libc::S_IFCHR)
}

/// Returns the socket type (`SOCK_STREAM` and so on), or `None` for other files.
pub(crate) fn type_of_socket(fd: BorrowedFd<'_>) -> Option<libc::c_int> {
    socket_option(fd, libc::SO_TYPE).ok()
}

/// Returns true if the peers of a socket are on this machine (`AF_UNIX`).
pub(crate) fn is_local(raw_fd: RawFd) -> bool {
    int_option(raw_fd, libc::SO_DOMAIN).is_ok_and(|domain| domain == libc::AF_UNIX)
}

/// Returns true if one byte makes a socket readable (`SO_RCVLOWAT`).
pub(crate) fn wakes_for_a_byte(raw_fd: RawFd) -> bool {
    int_option(raw_fd, libc::SO_RCVLOWAT).is_ok_and(|bytes| bytes == 1)
}

/// Returns true for a regular file of a pseudo file system, such as procfs. Each has rules of its
/// own: message queues are read like pipes, and may block. Before Linux 6.8 the file system is
/// asked.
pub(super) fn is_pseudo_fs(fd: BorrowedFd<'_>, stat: &CachedStat) -> bool {
    const PSEUDO_FS: [u32; 10] = [
        libc::PROC_SUPER_MAGIC as u32,
        libc::SYSFS_MAGIC as u32,
        libc::CGROUP_SUPER_MAGIC as u32,
        libc::CGROUP2_SUPER_MAGIC as u32,
        libc::DEBUGFS_MAGIC as u32,
        libc::TRACEFS_MAGIC as u32,
        libc::SECURITYFS_MAGIC as u32,
        CONFIGFS_MAGIC,
        MQUEUE_MAGIC,
        SECRETMEM_MAGIC,
    ];
    let magic = stat.fs_magic().or_else(|| fstatfs_magic(fd));
    magic.is_some_and(|magic| PSEUDO_FS.contains(&(magic as u32)))
}

/// Calls fstatfs(2), which may wait for a server.
fn fstatfs_magic(fd: BorrowedFd<'_>) -> Option<u64> {
    let mut answer = MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: `answer` has room for the result.
    super::checked(unsafe { libc::fstatfs(fd.as_raw_fd(), answer.as_mut_ptr()) }).ok()?;
    // SAFETY: the call has succeeded, so the answer was written.
    Some(unsafe { answer.assume_init() }.f_type as u64)
}

/// Magic numbers that the libc crate lacks.
const CONFIGFS_MAGIC: u32 = 0x6265_6570;
const MQUEUE_MAGIC: u32 = 0x1980_0202;
const SECRETMEM_MAGIC: u32 = 0x5345_434d;

/// Returns true if a socket that lost its connection has no newer one: it is unconnected, or of a
/// family that connects once.
pub(crate) fn has_not_connected_again(fd: BorrowedFd<'_>) -> bool {
    !has_peer(fd.as_raw_fd()) || is_local(fd.as_raw_fd())
}

/// Returns true if a socket is connected.
pub(super) fn has_peer(fd: RawFd) -> bool {
    let mut name = MaybeUninit::<libc::sockaddr_storage>::uninit();
    let mut length = size_of_val(&name) as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes, the size of `name`.
    let answer = unsafe { libc::getpeername(fd, name.as_mut_ptr().cast(), &mut length) };
    answer == 0
}

/// Returns and clears the pending error of a socket (`SO_ERROR`), or 0.
pub(super) fn take_error(fd: RawFd) -> io::Result<libc::c_int> {
    int_option(fd, libc::SO_ERROR)
}

/// Returns true if a socket has bytes to receive.
pub(crate) fn has_more(fd: BorrowedFd<'_>) -> bool {
    let mut byte = 0_u8;
    let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
    // SAFETY: there is room for one byte.
    unsafe { libc::recv(fd.as_raw_fd(), (&raw mut byte).cast(), 1, flags) > 0 }
}

/// Returns true if an anonymous file is a performance counter (perf_event_open(2)).
pub(crate) fn is_counter(raw_fd: RawFd) -> bool {
    let mut id = 0_u64;
    // Only counters have an id (`PERF_EVENT_IOC_ID`).
    // SAFETY: `id` has room for the answer.
    unsafe { libc::ioctl(raw_fd, PERF_EVENT_IOC_ID, &raw mut id) == 0 }
}

/// `PERF_EVENT_IOC_ID`, which the libc crate lacks.
const PERF_EVENT_IOC_ID: libc::Ioctl = libc::_IOR::<*mut u64>(b'$' as u32, 7);

/// Returns true if the link in procfs has this name; no system call tells.
fn is_anonymous(fd: BorrowedFd<'_>, name: &str) -> bool {
    let path = path_of(fd);
    let link = std::fs::read_link(OsStr::from_bytes(path.to_bytes()));
    link.is_ok_and(|link| link == Path::new(&format!("anon_inode:{name}")))
}

/// Returns an option of `SOL_SOCKET` whose value is an int.
fn socket_option(fd: BorrowedFd<'_>, name: libc::c_int) -> io::Result<libc::c_int> {
    int_option(fd.as_raw_fd(), name)
}

/// Returns such an option of a raw descriptor.
fn int_option(fd: RawFd, name: libc::c_int) -> io::Result<libc::c_int> {
    let mut value: libc::c_int = 0;
    let mut length = size_of_val(&value) as libc::socklen_t;
    let start = (&raw mut value).cast();
    // SAFETY: the kernel writes at most `length` bytes, the size of `value`.
    let answer = unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, name, start, &mut length) };
    super::checked(answer)?;
    Ok(value)
}

/// Refuses with `EBADF` a descriptor that is not open, or open with `O_PATH`. epoll_ctl(2) refuses
/// both; poll(2) and select(2) would always report them as ready.
pub(crate) fn check_pollable(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: F_GETFL takes no argument and touches no memory.
    let flags = super::checked(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) })?;
    if flags & libc::O_PATH as usize == 0 {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(libc::EBADF))
    }
}

#[cfg(test)]
mod tests;
