//! File numbers: held beside their owner, and checked.
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

/// A file number together with the handle it was borrowed from.
#[derive(Clone)]
pub(crate) struct SourceFd {
    owner: Arc<dyn AsFd + Send + Sync>,
    number: RawFd,
}

impl SourceFd {
    /// Asks `owner` for its file, this once: user code that panics or answers differently later
    /// can't come between the poller's steps.
    pub(crate) fn new(owner: Arc<dyn AsFd + Send + Sync>) -> Self {
        let number = owner.as_fd().as_raw_fd();
        SourceFd { owner, number }
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        // SAFETY: `number` was borrowed from `*self.owner`, which this value, or the one it is a
        // clone of, has kept alive and in place ever since, so that borrow could have lasted until
        // now.
        unsafe { BorrowedFd::borrow_raw(self.number) }
    }

    pub(crate) fn number(&self) -> RawFd {
        self.number
    }
}

impl fmt::Debug for SourceFd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let handles = Arc::strong_count(&self.owner);
        f.debug_struct("Held").field("number", &self.number).field("handles", &handles).finish()
    }
}

/// What statx(2) tells of the kind of file that a number stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileType {
    Socket,
    /// Pipe or FIFO.
    Pipe,
    /// Made without a name in the file system: eventfd and so on.
    Anonymous,
    /// Those of procfs, sysfs and cgroups are among them.
    Regular,
    /// Block devices.
    Block,
    /// Directories and other devices.
    Named,
}

impl FileType {
    /// # Errors
    ///
    /// What statx(2) says.
    pub(crate) fn of(fd: BorrowedFd<'_>) -> io::Result<Self> {
        Ok(FileType::of_kind(CachedStat::of(fd)?.kind))
    }

    /// Returns the shape of files of a kind: `S_IFREG` and so on.
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

/// What kind of file a number stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FdKind {
    /// `AF_UNIX`.
    UnixSocket,
    /// TCP or UDP.
    InternetSocket,
    OtherSocket,
    /// Pipe or FIFO.
    Pipe,
    Inotify,
    /// What else the kernel makes without a name in the file system: eventfd and so on.
    Anonymous,
    /// Regular files, directories, devices.
    Named,
}

impl FdKind {
    /// # Errors
    ///
    /// What statx(2) says.
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

/// What a socket carries: `SOCK_STREAM` and so on. `None` of other files.
pub(crate) fn type_of_socket(fd: BorrowedFd<'_>) -> Option<libc::c_int> {
    socket_option(fd, libc::SO_TYPE).ok()
}

/// Whether a socket's peers are on this machine: `AF_UNIX`.
pub(crate) fn is_local(number: RawFd) -> bool {
    int_option(number, libc::SO_DOMAIN).is_ok_and(|its| its == libc::AF_UNIX)
}

/// Whether a socket is ready to be read as soon as there is a byte (`SO_RCVLOWAT`).
pub(crate) fn wakes_for_a_byte(number: RawFd) -> bool {
    int_option(number, libc::SO_RCVLOWAT).is_ok_and(|its| its == 1)
}

/// Whether a regular file is in a file system that makes its files up, such as procfs, and each of
/// its kinds has rules of its own: message queues are read like pipes and never at once. Before
/// Linux 6.8 the file system is asked.
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
    let magic = stat.fs_magic().or_else(|| asked_magic(fd));
    magic.is_some_and(|magic| PSEUDO_FS.contains(&(magic as u32)))
}

/// Returns what fstatfs(2) says, which may wait for a server.
fn asked_magic(fd: BorrowedFd<'_>) -> Option<u64> {
    let mut answer = MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: there is room for the answer.
    super::checked(unsafe { libc::fstatfs(fd.as_raw_fd(), answer.as_mut_ptr()) }).ok()?;
    // SAFETY: the call has succeeded, so the answer was written.
    Some(unsafe { answer.assume_init() }.f_type as u64)
}

/// The crate libc lacks these.
const CONFIGFS_MAGIC: u32 = 0x6265_6570;
const MQUEUE_MAGIC: u32 = 0x1980_0202;
const SECRETMEM_MAGIC: u32 = 0x5345_434d;

/// Whether the connection that a socket has lost is its last one so far: it has no other now, or
/// is of those that are connected once.
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

/// Returns the error that a socket keeps (`SO_ERROR`), which is gone from it then, or 0.
pub(super) fn take_error(fd: RawFd) -> io::Result<libc::c_int> {
    int_option(fd, libc::SO_ERROR)
}

/// Whether a socket has bytes to be received.
pub(crate) fn has_more(fd: BorrowedFd<'_>) -> bool {
    let mut byte = 0_u8;
    let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
    // SAFETY: there is room for one byte.
    unsafe { libc::recv(fd.as_raw_fd(), (&raw mut byte).cast(), 1, flags) > 0 }
}

/// Whether an anonymous file is a performance counter, of perf_event_open(2).
pub(crate) fn is_counter(number: RawFd) -> bool {
    let mut id = 0_u64;
    // Only counters have such a number (`PERF_EVENT_IOC_ID`); what is written is not needed.
    // SAFETY: there is room for the answer.
    unsafe { libc::ioctl(number, GET_COUNTER_ID, &raw mut id) == 0 }
}

/// `PERF_EVENT_IOC_ID`, which the crate libc lacks.
const GET_COUNTER_ID: libc::Ioctl = libc::_IOR::<*mut u64>(b'$' as u32, 7);

/// Returns true if procfs calls the file so, which nothing else tells.
fn is_anonymous(fd: BorrowedFd<'_>, name: &str) -> bool {
    let path = path_of(fd);
    let link = std::fs::read_link(OsStr::from_bytes(path.to_bytes()));
    link.is_ok_and(|link| link == Path::new(&format!("anon_inode:{name}")))
}

/// An option of `SOL_SOCKET` whose value is an int.
fn socket_option(fd: BorrowedFd<'_>, name: libc::c_int) -> io::Result<libc::c_int> {
    int_option(fd.as_raw_fd(), name)
}

/// The same, by number.
fn int_option(fd: RawFd, name: libc::c_int) -> io::Result<libc::c_int> {
    let mut value: libc::c_int = 0;
    let mut length = size_of_val(&value) as libc::socklen_t;
    let place = (&raw mut value).cast();
    // SAFETY: the kernel writes at most `length` bytes, the size of `value`.
    let answer = unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, name, place, &mut length) };
    super::checked(answer)?;
    Ok(value)
}

/// Refuses with `EBADF` a number that is not open, or open with `O_PATH` and thus for naming only.
/// epoll_ctl(2) refuses both by itself; poll(2) and select(2) would report them as ready for ever.
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
