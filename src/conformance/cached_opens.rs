//! Clauses C2, C6 and C7 for opening files whose path the kernel has cached, which a poller may
//! open without a thread.

use super::disk::file_of;
use super::fuse::{self, Fuse};
use super::op_harness::*;
use super::opens::opened;
use super::util::*;
use crate::op::{Op, OpenOptions};
use crate::sys::staging;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::sys::stat::fstat;
use nix::unistd::{Uid, setfsuid};
use std::fs::{File, Permissions};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

const READ: (bool, bool) = (true, false);
const WRITE: (bool, bool) = (false, true);
const READ_WRITE: (bool, bool) = (true, true);

fn options((read, write): (bool, bool), flags: i32) -> OpenOptions {
    OpenOptions::new().read(read).write(write).custom_flags(flags).clone()
}

/// Opens a file by the standard library; an error is its number.
fn open_directly(
    path: &Path,
    (read, write): (bool, bool),
    flags: i32,
) -> Result<OwnedFd, Option<i32>> {
    let file = File::options().read(read).write(write).custom_flags(flags).open(path);
    file.map(OwnedFd::from).map_err(|error| error.raw_os_error())
}

/// Returns paths of all kinds to a file and a directory, and to other kinds of files.
fn paths(directory: &Path) -> Vec<PathBuf> {
    let path = |name: &str| directory.join(name);
    drop(file_of(&path("file"), b"content"));
    ok(std::fs::create_dir(path("inner")));
    drop(file_of(&path("inner/file"), b"other"));
    for (to, from) in [
        ("file", "link"),
        ("link", "link-to-link"),
        ("inner", "inner-link"),
        ("inner/", "slash-link"),
        ("../file", "inner/up"),
        ("missing", "dangling"),
        ("loop", "loop"),
        ("/proc/self/status", "proc-link"),
        ("/proc/self/fd/0", "magic-link"),
    ] {
        ok(symlink(to, path(from)));
    }
    ok(nix::unistd::mkfifo(&path("fifo"), nix::sys::stat::Mode::S_IRWXU));
    drop(ok(std::os::unix::net::UnixListener::bind(path("socket"))));
    let names = [
        "file",
        "file/",
        "./file",
        "inner/../file",
        "inner",
        "inner/",
        "inner//",
        "inner/.",
        "inner/..",
        "inner/file",
        "inner/up",
        "link",
        "link/",
        "link-to-link",
        "inner-link",
        "inner-link/",
        "inner-link/file",
        "slash-link",
        "slash-link/up",
        "dangling",
        "loop",
        "proc-link",
        "magic-link",
        "fifo",
        "socket",
        "missing",
        "file/below",
        "",
    ];
    let others = ["/", "/dev/null", "/proc", "/proc/self/stat", "/proc/self/fd/1", "/sys", "."];
    names.iter().map(|name| path(name)).chain(others.map(PathBuf::from)).collect()
}

pub(super) fn c2_cached_opens_match_system_call(cx: &TestContext) {
    let directory = TempDir::new();
    let mut ops = OpHarness::new(cx);
    let [dir, no_follow] = [libc::O_DIRECTORY, libc::O_NOFOLLOW];
    let all = [0, dir, no_follow, dir | no_follow, libc::O_NOATIME, libc::O_SYNC, libc::O_NOCTTY];
    for path in paths(&directory.0) {
        for (access, flags) in [READ, WRITE, READ_WRITE]
            .into_iter()
            .flat_map(|access| all.map(|flags| (access, flags)))
        {
            let why = format!("{} {access:?} {flags:o}", path.display());
            // C6: `O_NONBLOCK`, without which opening a FIFO would block.
            let expected = open_directly(&path, access, flags | libc::O_NONBLOCK);
            let given = opened(ops.run(Op::open(&path, &options(access, flags))));
            match (given, expected) {
                (Ok(given), Ok(expected)) => expect_same(&given, &expected, &why),
                (given, expected) => {
                    assert_eq!(given.map_err(Some).err(), expected.err(), "{why}");
                }
            }
        }
    }
    ops.expect_all_done("all opens have completed");
}

/// Fails unless both refer to the same file and were opened with the same flags.
fn expect_same(given: &OwnedFd, expected: &OwnedFd, why: &str) {
    let flags = FdFlag::from_bits_retain(ok(fcntl(given, FcntlArg::F_GETFD)));
    assert!(flags.contains(FdFlag::FD_CLOEXEC), "{why}: close-on-exec");
    let status = |file: &OwnedFd| OFlag::from_bits_retain(ok(fcntl(file, FcntlArg::F_GETFL)));
    assert_eq!(status(given), status(expected), "{why}: file status flags");
    let [given, expected] = [given, expected].map(|file| ok(fstat(file)));
    let id = |stat: libc::stat| (stat.st_dev, stat.st_ino, stat.st_mode);
    assert_eq!(id(given), id(expected), "{why}: another file");
}

/// A path renamed over refers to the new file.
pub(super) fn c2_cached_open_follows_rename_and_unlink(cx: &TestContext) {
    let directory = TempDir::new();
    let path = directory.0.join("file");
    let mut ops = OpHarness::new(cx);
    for round in 0..50_u8 {
        let new = directory.0.join("new");
        drop(file_of(&new, &[round]));
        ok(std::fs::rename(&new, &path));
        let file = opened(ops.run(Op::open(&path, &options(READ, 0))));
        let mut file = File::from(file.unwrap_or_else(|errno| panic!("the file exists: {errno}")));
        let mut text = Vec::new();
        ok(std::io::Read::read_to_end(&mut file, &mut text));
        assert_eq!(text, [round]);
        ok(std::fs::remove_file(&path));
        let gone = opened(ops.run(Op::open(&path, &options(READ, 0))));
        assert_eq!(gone.err(), Some(libc::ENOENT));
    }
}

fn expect_open_after_release(
    lease: OwnedFd,
    ops: &mut OpHarness,
    path: &Path,
    access: (bool, bool),
) {
    ops.submit(Op::open(path, &options(access, 0)), 1);
    ops.expect_nothing_yet("another description holds a lease");
    drop(lease);
    assert!(opened(ops.next()).is_ok(), "the lease was released");
}

/// A non-blocking open of a leased file fails with `WouldBlock`.
pub(super) fn c2_open_waits_for_a_lease(cx: &TestContext) {
    drop(cx.poller());
    let directory = TempDir::new();
    let path = directory.0.join("file");
    drop(file_of(&path, b"content"));
    let mut ops = OpHarness::new(cx);
    for (lease, access) in [(libc::F_WRLCK, READ), (libc::F_RDLCK, WRITE)] {
        let holder = ok(open_directly(&path, READ, 0).map_err(|errno| format!("{errno:?}")));
        match staging::take_lease(holder.as_fd(), lease, libc::SIGURG) {
            Ok(()) => expect_open_after_release(holder, &mut ops, &path, access),
            Err(error) => cx.note(&format!("no lease: {error}")),
        }
    }
}

/// An open submitted before the thread dropped its privileges may use either; one submitted
/// afterwards has none.
pub(super) fn c2_opens_follow_dropped_privileges(cx: &TestContext) {
    if !Uid::effective().is_root() {
        cx.skip("only root can drop privileges and regain them");
    }
    let directory = TempDir::new();
    ok(std::fs::set_permissions(&directory.0, Permissions::from_mode(0o755)));
    let [file, inner] = ["file", "inner"].map(|name| directory.0.join(name));
    ok(std::fs::create_dir(&inner));
    let below = inner.join("file");
    for path in [&file, &below] {
        drop(file_of(path, b"content"));
        ok(std::fs::set_permissions(path, Permissions::from_mode(0o600)));
    }
    // Here the file is readable, but its directory is not searchable.
    ok(std::fs::set_permissions(&below, Permissions::from_mode(0o644)));
    ok(std::fs::set_permissions(&inner, Permissions::from_mode(0o700)));
    let mut ops = OpHarness::new(cx);
    // Opening for writing needs a thread, and so does a path that the kernel cannot resolve from
    // its cache.
    for (path, access) in [&file, &below, &inner]
        .into_iter()
        .flat_map(|path| [READ, READ_WRITE].map(|access| (path, access)))
        .filter(|(path, access)| *path != &inner || *access == READ)
    {
        let why = format!("{} {access:?}", path.display());
        let open = || Op::open(path, &options(access, 0));
        for round in 0..8 {
            assert!(opened(ops.run(open())).is_ok(), "{why}: root may");
            // The first of these two is submitted before the privileges are dropped, and not yet
            // delivered.
            ops.submit(open(), 1);
            setfsuid(Uid::from_raw(65_534));
            let plain = open_directly(path, access, 0);
            ops.submit(open(), 2);
            let done = ops.collect(2);
            setfsuid(Uid::from_raw(0));
            assert_eq!(
                plain.err(),
                Some(Some(libc::EACCES)),
                "{why}: the unprivileged thread may not"
            );
            for done in done.into_iter().filter(|done| done.token.0 == 2) {
                assert_eq!(opened(done).err(), Some(libc::EACCES), "{why}, round {round}");
            }
        }
    }
}

/// A FUSE server that does not answer delays no other operation.
pub(super) fn c7_slow_fuse_open_delays_no_other_operation(cx: &TestContext) {
    drop(cx.poller());
    let fuse = Fuse::mount().unwrap_or_else(|why| cx.skip(why));
    let directory = TempDir::new();
    let link = directory.0.join("link");
    ok(symlink(fuse.path("file"), &link));
    let [file, inner, root] = ["file", "directory", ""].map(|name| fuse.path(name));
    for (path, access) in
        [(&file, READ), (&file, READ_WRITE), (&link, READ), (&inner, READ), (&root, READ)]
    {
        // The path is cached from now on.
        ok(std::fs::metadata(path));
        open_slowly(cx, &fuse, path, access, &[fuse::OPEN, fuse::OPENDIR]);
    }
    open_slowly(cx, &fuse, &fuse.path("new"), READ, &[fuse::LOOKUP]);
}

/// Opens a file while the server does not answer, and runs other operations meanwhile. The server
/// may receive only the `expected` requests.
fn open_slowly(cx: &TestContext, fuse: &Fuse, path: &Path, access: (bool, bool), expected: &[u32]) {
    let why = format!("{} {access:?}", path.display());
    let mut ops = OpHarness::new(cx);
    let (local, peer) = stream();
    let key = ops.add(local);
    ops.submit(Op::recv(key, vec![], 4), 1);
    ops.submit(Op::timeout(Duration::from_millis(5)), 2);
    fuse.hold();
    ops.submit(Op::open(path, &options(access, 0)), 3);
    put(&peer, b"data");
    let mut done = ops.collect(2);
    done.sort_by_key(|done| done.token);
    let tokens: Vec<_> = done.iter().map(|done| done.token.0).collect();
    assert_eq!(tokens, [1, 2], "{why}: the other operations complete first");
    assert!(done.iter().all(|done| done.result.is_ok()), "{why}: {done:?}");
    fuse.wait_until_held();
    ops.expect_nothing_yet("the server has not answered");
    let asked = fuse.release();
    assert!(asked.iter().all(|request| expected.contains(request)), "{why}: requests {asked:?}");
    let file = opened(ops.next());
    assert!(file.is_ok(), "{why}: {file:?}");
}
