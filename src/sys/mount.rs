//! File attributes that the kernel has in memory: the type, and the file system of the mount.
//!
//! fstat(2) and fstatfs(2) ask the server of a FUSE or network file system. The calls here do not.
#![allow(unsafe_code)]

use std::io;
use std::mem::{MaybeUninit, offset_of};
use std::os::fd::{AsRawFd, BorrowedFd};

/// The ID of a mount, which the kernel does not reuse before it restarts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MountId(u64);

/// The attributes of a file that the kernel has in memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct CachedStat {
    /// `S_IFREG` and so on; 0 for anonymous files.
    pub(super) kind: libc::mode_t,
    /// Opening the file may read keys or hashes from the disk (fscrypt, fs-verity).
    pub(super) has_metadata_on_disk: bool,
    /// Device and inode, which identify the file.
    pub(super) identity: Option<[u64; 3]>,
    /// `None` before Linux 6.8.
    pub(super) mount: Option<MountId>,
}

impl CachedStat {
    /// Returns the attributes of a file, which may be open with `O_PATH`. Calls fstat(2) where
    /// there is no statx(2).
    ///
    /// # Errors
    ///
    /// Errors of the calls.
    pub(super) fn of(fd: BorrowedFd<'_>) -> io::Result<Self> {
        let flags = libc::AT_EMPTY_PATH | libc::AT_STATX_DONT_SYNC;
        let mask = libc::STATX_TYPE | libc::STATX_INO | STATX_MNT_ID_UNIQUE;
        let mut stat = MaybeUninit::<libc::statx>::uninit();
        // SAFETY: the path ends with a zero, and `stat` has room for the answer.
        let answer =
            unsafe { libc::statx(fd.as_raw_fd(), c"".as_ptr(), flags, mask, stat.as_mut_ptr()) };
        match super::checked(answer) {
            // Linux before 4.11, or a sandbox that does not know the call.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => {
                return CachedStat::by_fstat(fd);
            }
            answered => answered?,
        };
        // SAFETY: the call has succeeded, so the answer was written.
        let stat = unsafe { stat.assume_init() };
        let has_mount = stat.stx_mask & STATX_MNT_ID_UNIQUE != 0;
        let on_disk = (libc::STATX_ATTR_ENCRYPTED | libc::STATX_ATTR_VERITY) as u64;
        Ok(CachedStat {
            kind: libc::mode_t::from(stat.stx_mode) & libc::S_IFMT,
            has_metadata_on_disk: stat.stx_attributes & on_disk != 0,
            identity: Some([
                u64::from(stat.stx_dev_major),
                u64::from(stat.stx_dev_minor),
                stat.stx_ino,
            ]),
            mount: has_mount.then_some(MountId(stat.stx_mnt_id)),
        })
    }

    fn by_fstat(fd: BorrowedFd<'_>) -> io::Result<Self> {
        let mut stat = MaybeUninit::<libc::stat>::uninit();
        // SAFETY: `stat` has room for the answer.
        super::checked(unsafe { libc::fstat(fd.as_raw_fd(), stat.as_mut_ptr()) })?;
        // SAFETY: the call has succeeded, so the answer was written.
        let stat = unsafe { stat.assume_init() };
        Ok(CachedStat {
            kind: stat.st_mode & libc::S_IFMT,
            has_metadata_on_disk: true,
            identity: None,
            mount: None,
        })
    }

    /// Returns the magic number of the file system, as statfs(2) does, or `None` if the kernel
    /// would have to ask the file system.
    pub(super) fn fs_magic(&self) -> Option<u64> {
        self.mount?.fs_magic().ok()
    }
}

impl MountId {
    /// Returns the magic number of the file system.
    ///
    /// # Errors
    ///
    /// `ENOSYS` before Linux 6.8; `EPERM` if the mount is out of reach of the root directory, and
    /// in sandboxes.
    pub(super) fn fs_magic(self) -> io::Result<u64> {
        let size = size_of::<MountRequest>() as u32;
        let request = MountRequest { size, spare: 0, id: self.0, mask: STATMOUNT_SB_BASIC };
        let mut answer =
            MountAnswer { sizes: [0; 2], mask: 0, device: [0; 2], magic: 0, rest: [0; 60] };
        let (from, to, length) = (&raw const request, &raw mut answer, size_of::<MountAnswer>());
        // SAFETY: the request has the size it states, and the answer is `length` bytes long.
        let result = unsafe { libc::syscall(SYS_STATMOUNT, from, to, length, 0) };
        super::checked(result as libc::c_int)?;
        match answer.mask & STATMOUNT_SB_BASIC {
            0 => Err(untold()),
            _ => Ok(answer.magic),
        }
    }
}

fn untold() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, "statmount(2) does not report the file system")
}

/// `struct mnt_id_req`.
#[repr(C)]
struct MountRequest {
    size: u32,
    spare: u32,
    id: u64,
    mask: u64,
}

/// The head of `struct statmount`, padded to the length of the whole.
#[repr(C)]
struct MountAnswer {
    sizes: [u32; 2],
    mask: u64,
    device: [u32; 2],
    magic: u64,
    rest: [u64; 60],
}

/// The layouts in `linux/mount.h`. `MNT_ID_REQ_SIZE_VER0` is the size of the request; the answer is
/// as long as the kernel's structure, whose strings follow it.
const _: () = {
    assert!(size_of::<MountRequest>() == 24);
    assert!(offset_of!(MountRequest, size) == 0);
    assert!(offset_of!(MountRequest, id) == 8);
    assert!(offset_of!(MountRequest, mask) == 16);
    assert!(size_of::<MountAnswer>() == 512);
    assert!(offset_of!(MountAnswer, mask) == 8);
    assert!(offset_of!(MountAnswer, device) == 16);
    assert!(offset_of!(MountAnswer, magic) == 24);
};

/// The libc crate does not have these for every C library.
const STATX_MNT_ID_UNIQUE: libc::c_uint = 0x4000;
const STATMOUNT_SB_BASIC: u64 = 1;
/// System calls since openat2(2) are numbered alike on every architecture.
const SYS_STATMOUNT: libc::c_long = libc::SYS_openat2 + 20;

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::AsFd;

    #[test]
    fn procfs_mount_has_procfs_magic() {
        let file = File::open("/proc/version").expect("every Linux has it");
        let stat = match CachedStat::of(file.as_fd()) {
            Ok(stat) => stat,
            Err(error) => return println!("skipped: statx(2): {error}"),
        };
        assert_eq!(stat.kind, libc::S_IFREG);
        assert_eq!(stat.kind, CachedStat::by_fstat(file.as_fd()).expect("it is open").kind);
        let Some(mount) = stat.mount else { return println!("skipped: Linux before 6.8") };
        assert!(!stat.has_metadata_on_disk);
        match mount.fs_magic() {
            Ok(magic) => assert_eq!(magic, libc::PROC_SUPER_MAGIC as u64),
            Err(error) => println!("skipped: statmount(2): {error}"),
        }
        let same = CachedStat::of(File::open("/proc/stat").expect("it is there").as_fd());
        assert_eq!(same.expect("as before").mount, stat.mount);
    }
}
