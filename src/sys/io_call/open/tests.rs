//! Opens that can't block, and opens that are left to a thread.

use super::super::{Call, Transfer};
use super::*;
use crate::sys::buf::Buf;
use nix::fcntl::AT_FDCWD;
use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::statvfs::{FsFlags, fstatvfs};
use nix::sys::time::TimeSpec;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A directory on a file system whose files are opened without blocking.
fn local_directory() -> Option<tempfile::TempDir> {
    let directory = tempfile::tempdir().expect("a place for it");
    let file = File::open(directory.path()).expect("it is there");
    let stat = CachedStat::of(file.as_fd());
    let opens = stat.ok().and_then(|stat| stat.fs_magic()).map(Opens::of);
    match opens {
        Some(Opens::FilesAndDirectories) => Some(directory),
        other => {
            println!("skipped: the file system of {} may block: {other:?}", file.as_raw_fd());
            None
        }
    }
}

fn try_open(opener: &mut Opener, path: &Path, flags: libc::c_int) -> Option<io::Result<OwnedFd>> {
    let name = std::ffi::CString::new(path.as_os_str().as_bytes()).expect("no zero in it");
    let args = CallArgs::path(name, flags, 0o600);
    let call = IoCall::with(None, Call::Open, Buf::None, Transfer::Nothing, args);
    call.expect("a call without a buffer").open_now(opener)
}

fn open(opener: &mut Opener, path: &Path, flags: libc::c_int) -> Option<OwnedFd> {
    let opened = try_open(opener, path, flags);
    opened.map(|opened| opened.expect("it is no error"))
}

fn text_of(fd: OwnedFd) -> String {
    let mut text = String::new();
    File::from(fd).read_to_string(&mut text).expect("it is open to be read");
    text
}

/// Makes a symbolic link, and sets its access time. The kernel updates that time (`relatime`) if it
/// is not later than the creation of the link, or a day old.
fn symlink(target: &str, link: &Path, followed: Duration) {
    std::os::unix::fs::symlink(target, link).expect("room");
    set_followed(link, followed);
}

fn set_followed(link: &Path, followed: Duration) {
    let (flags, unchanged) = (UtimensatFlags::NoFollowSymlink, TimeSpec::UTIME_OMIT);
    utimensat(AT_FDCWD, link, &followed.into(), &unchanged, flags).expect("the link is there");
}

/// Returns a time an hour from now, which is not updated.
fn later() -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later");
    now + Duration::from_secs(3600)
}

#[test]
fn cached_files_and_directories_are_opened() {
    let Some(directory) = local_directory() else { return };
    let path = |name: &str| directory.path().join(name);
    fs::write(path("file"), "content").expect("room");
    symlink("file", &path("link"), later());
    let mut opener = Opener::default();
    for name in ["file", "link", "./file"] {
        for flags in [0, libc::O_NOATIME, libc::O_DSYNC, libc::O_NONBLOCK] {
            let fd = open(&mut opener, &path(name), flags).expect(name);
            assert_eq!(text_of(fd), "content", "{name} {flags:o}");
        }
    }
    for (name, flags) in [("", 0), ("", libc::O_DIRECTORY), (".", 0)] {
        let fd = open(&mut opener, &path(name), flags).expect("the directory");
        assert!(File::from(fd).metadata().expect("it is open").is_dir());
    }
}

#[test]
fn blocking_or_failing_opens_are_left_to_threads() {
    let Some(directory) = local_directory() else { return };
    let path = |name: &str| directory.path().join(name);
    fs::write(path("file"), "content").expect("room");
    nix::unistd::mkfifo(&path("fifo"), nix::sys::stat::Mode::S_IRWXU).expect("room");
    let mut opener = Opener::default();
    for flags in [
        libc::O_WRONLY,
        libc::O_RDWR,
        libc::O_CREAT,
        libc::O_CREAT | libc::O_EXCL,
        libc::O_TRUNC,
        libc::O_NOFOLLOW,
        libc::O_PATH,
        libc::O_TMPFILE,
        libc::O_DIRECTORY,
    ] {
        assert!(open(&mut opener, &path("file"), flags).is_none(), "{flags:o}");
    }
    for name in ["fifo", "file/", "file/below", "/proc/version", "/dev/null"] {
        assert!(open(&mut opener, &path(name), 0).is_none(), "{name}");
    }
    assert!(open(&mut opener, &path("file"), 0).is_some(), "the file is cached");
}

#[test]
fn missing_names_fail_once_cached() {
    let Some(directory) = local_directory() else { return };
    let path = |name: &str| directory.path().join(name);
    symlink("missing", &path("dangling"), later());
    let mut opener = Opener::default();
    for name in ["missing", "missing/below", "dangling"] {
        assert!(!path(name).exists(), "it is looked up");
        let opened = try_open(&mut opener, &path(name), 0).expect("its name is cached");
        assert_eq!(opened.expect_err(name).raw_os_error(), Some(libc::ENOENT));
    }
    assert!(try_open(&mut opener, &path("missing"), libc::O_CREAT).is_none());
    fs::write(path("missing"), "content").expect("room");
    for name in ["missing", "dangling"] {
        assert_eq!(open(&mut opener, &path(name), 0).map(text_of).as_deref(), Some("content"));
    }
}

/// Following such a link writes its access time, which the cache alone can't do.
#[test]
fn link_with_due_access_time_is_left_to_threads() {
    let Some(directory) = local_directory() else { return };
    let flags = fstatvfs(File::open(directory.path()).expect("it is there")).expect("it has them");
    if flags.flags().contains(FsFlags::ST_NOATIME) {
        return println!("skipped: the file system keeps no access times");
    }
    let path = |name: &str| directory.path().join(name);
    fs::write(path("file"), "content").expect("room");
    symlink("file", &path("link"), Duration::ZERO);
    symlink("missing", &path("dangling"), Duration::ZERO);
    let mut opener = Opener::default();
    assert!(!path("missing").exists(), "it is looked up");
    for name in ["link", "dangling"] {
        assert!(try_open(&mut opener, &path(name), 0).is_none(), "{name}");
        set_followed(&path(name), later());
        assert!(try_open(&mut opener, &path(name), 0).is_some(), "{name}");
    }
}

/// `/proc/self/fd` shows the first thread's table, which has other files.
#[test]
fn fds_are_those_of_the_thread() {
    let Some(directory) = local_directory() else { return };
    let path = directory.path().join("file");
    fs::write(&path, "content").expect("room");
    // These descriptors are open in this thread's table, and not in the other.
    let others: Vec<_> = (0..64).map(|_| File::open("/dev/null").expect("it is there")).collect();
    let opened = std::thread::spawn(move || {
        // SAFETY: no memory is passed.
        assert_eq!(unsafe { libc::unshare(libc::CLONE_FILES) }, 0);
        for fd in 3..64 {
            // SAFETY: the thread owns this table, and no longer uses the descriptor.
            unsafe { libc::close(fd) };
        }
        let mut opener = Opener::default();
        let texts = [(); 3].map(|()| open(&mut opener, &path, 0).map(text_of));
        std::mem::forget(opener);
        texts
    });
    let texts = opened.join().expect("it only opens");
    assert_eq!(texts, [(); 3].map(|()| Some("content".to_owned())));
    drop(others);
}

#[test]
fn numbers_are_written_in_decimal() {
    for number in [0, 3, 9, 10, 1023, 1_048_576, i32::MAX as u32, u32::MAX] {
        let mut memory = [0; 12];
        assert_eq!(decimal(number, &mut memory).to_str(), Ok(number.to_string().as_str()));
    }
}

/// A mount that was evicted from the cache is looked up again.
#[test]
fn evicted_mounts_are_looked_up_again() {
    let Some(directory) = local_directory() else { return };
    let file = File::open(directory.path()).expect("it is there");
    let mount_of = |file: &File| CachedStat::of(file.as_fd()).expect("as before").mount;
    let mount = mount_of(&file).expect("as before");
    let mut opener = Opener::default();
    for _ in 0..20 {
        assert_eq!(opener.opens_of(mount), Some(Opens::FilesAndDirectories));
        assert_eq!(opener.mounts.iter().flatten().count(), 1, "it is known once");
    }
    let proc = File::open("/proc/version").expect("every Linux has it");
    let proc = mount_of(&proc).expect("as before");
    for _ in 0..2 {
        assert_eq!(opener.opens_of(proc), Some(Opens::Nothing));
        assert_eq!(opener.opens_of(mount), Some(Opens::FilesAndDirectories));
    }
}
