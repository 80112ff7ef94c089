//! Clauses C2, C6 and D2 for opening files.

use super::disk::file_of;
use super::op_harness::*;
use super::util::*;
use crate::event::Events;
use crate::op::{Completion, Op, OpenOptions, Outcome};
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::stat::{Mode as Permissions, fstat};
use nix::unistd::{Uid, setfsuid};
use std::fs::File;
use std::io::ErrorKind::{InvalidInput, TimedOut};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Returns the opened file, or the error number.
pub(super) fn opened(done: Completion) -> Result<OwnedFd, i32> {
    let failed = done.result.is_err().then(|| errno(&done));
    match (done.result, failed) {
        (Ok(Outcome::Opened { file }), _) => Ok(file),
        (_, Some(errno)) => Err(errno),
        (other, _) => panic!("expected an opened file, got {other:?}"),
    }
}

/// Arguments of an open, for the operation and the plain call.
#[derive(Clone, Copy, Debug)]
struct OpenArgs {
    /// read, write, append, truncate, create, create_new
    chosen: [bool; 6],
    mode: u32,
    flags: i32,
}

impl OpenArgs {
    fn open_options(self) -> OpenOptions {
        let [read, write, append, truncate, create, create_new] = self.chosen;
        let mut options = OpenOptions::new();
        options.read(read).write(write).append(append).truncate(truncate).create(create);
        options.create_new(create_new).mode(self.mode).custom_flags(self.flags).clone()
    }

    fn call_directly(self, path: &Path) -> Result<OwnedFd, i32> {
        let [read, write, append, truncate, create, create_new] = self.chosen;
        let mut options = File::options();
        options.read(read).write(write).append(append).truncate(truncate).create(create);
        options.create_new(create_new).mode(self.mode).custom_flags(self.flags);
        // An error of the standard library itself has no number.
        options.open(path).map(OwnedFd::from).map_err(|error| error.raw_os_error().unwrap_or(0))
    }
}

/// Returns every combination of the six choices.
fn choices() -> impl Iterator<Item = [bool; 6]> {
    (0..64_u8).map(|bits| [0, 1, 2, 3, 4, 5].map(|at| bits >> at & 1 == 1))
}

/// Creates a directory with one file of each kind, and returns paths into it.
fn create_files(directory: &Path) -> Vec<PathBuf> {
    ok(std::fs::create_dir(directory));
    let name = |name: &str| directory.join(name);
    drop(file_of(&name("file"), b"content"));
    drop(file_of(&name("read-only"), b"content"));
    let read_only = std::os::unix::fs::PermissionsExt::from_mode(0o400);
    ok(std::fs::set_permissions(name("read-only"), read_only));
    ok(std::fs::create_dir(name("directory")));
    ok(std::os::unix::fs::symlink("file", name("link")));
    ok(std::os::unix::fs::symlink("loop", name("loop")));
    ok(std::os::unix::fs::symlink("missing", name("dangling")));
    ok(nix::unistd::mkfifo(&name("fifo"), Permissions::S_IRWXU));
    let socket = ok(std::os::unix::net::UnixListener::bind(name("socket")));
    drop(socket);
    let long = "n".repeat(256);
    let names = ["file", "read-only", "directory", "link", "loop", "dangling", "socket"];
    let others = ["missing", "missing/file", "file/file", "", &long];
    names.into_iter().chain(others).map(name).collect()
}

pub(super) fn c2_open_matches_system_call(cx: &TestContext) {
    let directory = TempDir::new();
    let mut ops = OpHarness::new(cx);
    for (round, chosen) in choices().enumerate() {
        let [ours, twins] =
            ["ours", "twins"].map(|name| directory.0.join(format!("{name}{round}")));
        for (our, twin) in create_files(&ours).iter().zip(create_files(&twins)) {
            let args = OpenArgs { chosen, mode: 0o640, flags: 0 };
            let why = format!("{} {args:?}", our.display());
            let expected = args.call_directly(&twin);
            if expected.as_ref().err() == Some(&0) {
                let refused = ops.rejected(Op::open(our, &args.open_options())).1;
                assert_eq!(refused.kind(), InvalidInput, "{why}");
                continue;
            }
            let given = opened(ops.run(Op::open(our, &args.open_options())));
            match (given, expected) {
                (Ok(given), Ok(expected)) => expect_alike(&given, &expected, &why),
                (given, expected) => assert_eq!(given.err(), expected.err(), "{why}"),
            }
            let content = |path: &Path| std::fs::read(path).ok();
            assert_eq!(content(our), content(&twin), "{why}");
        }
        ok(std::fs::remove_dir_all(&ours));
        ok(std::fs::remove_dir_all(&twins));
    }
    ops.expect_all_done("all opens have completed");
}

fn status(file: &OwnedFd) -> OFlag {
    OFlag::from_bits_retain(ok(fcntl(file, FcntlArg::F_GETFL)))
}

/// Fails unless both were opened with the same flags, except those of C6.
fn expect_alike(given: &OwnedFd, expected: &OwnedFd, why: &str) {
    let flags = FdFlag::from_bits_retain(ok(fcntl(given, FcntlArg::F_GETFD)));
    assert!(flags.contains(FdFlag::FD_CLOEXEC), "{why}: close-on-exec");
    assert_eq!(status(given), status(expected) | OFlag::O_NONBLOCK, "{why}");
    let [given, expected] = [given, expected].map(|file| ok(fstat(file)));
    assert_eq!(given.st_mode, expected.st_mode, "{why}: kind and permissions");
    assert_eq!(given.st_size, expected.st_size, "{why}");
}

pub(super) fn c2_open_of_thread_self_uses_submitting_thread(cx: &TestContext) {
    let mut ops = OpHarness::new(cx);
    let read = OpenOptions::new().read(true).clone();
    let owner = |path: &str, file: std::io::Result<File>| {
        let stat = ok(std::io::read_to_string(ok(file)));
        let pid = stat.split(' ').next().and_then(|pid| pid.parse::<i32>().ok());
        pid.unwrap_or_else(|| panic!("no pid in {path}: {stat}"))
    };
    for path in ["/proc/thread-self/stat", "//proc//thread-self//stat", "/proc/self/stat"] {
        let expected = owner(path, File::open(path));
        let given = opened(ops.run(Op::open(path, &read))).map(File::from);
        let given = owner(path, given.map_err(std::io::Error::from_raw_os_error));
        assert_eq!(given, expected, "{path}");
    }
    let [link, directory] = [libc::O_PATH | libc::O_NOFOLLOW, libc::O_DIRECTORY];
    let places =
        [("", link), ("", libc::O_NOFOLLOW), ("", directory), ("/", link), ("x", directory)];
    for (rest, flags) in places {
        let path = format!("/proc/thread-self{rest}");
        let args = OpenArgs { chosen: [true, false, false, false, false, false], mode: 0, flags };
        let given = opened(ops.run(Op::open(&path, &args.open_options())));
        let identity = |file: OwnedFd| ok(fstat(&file)).st_ino;
        let expected = args.call_directly(path.as_ref()).map(identity);
        assert_eq!(given.map(identity), expected, "{path} {flags:o}");
    }
}

pub(super) fn c2_failed_open_matches_system_call(cx: &TestContext) {
    let mut ops = OpHarness::new(cx);
    let read = OpenOptions::new().read(true).clone();
    for path in ["with\0nul", "\0"] {
        let refused = ops.rejected(Op::open(path, &read)).1;
        assert_eq!(refused.kind(), InvalidInput, "a path with a NUL byte");
    }
    let refused = ops.rejected(Op::open("/dev/null", &OpenOptions::new())).1;
    assert_eq!(refused.kind(), InvalidInput, "neither reading nor writing");
    // An executable that is running cannot be opened for writing.
    let running = ok(std::env::current_exe());
    let write = OpenOptions::new().write(true).clone();
    assert_eq!(opened(ops.run(Op::open(running, &write))).err(), Some(libc::ETXTBSY));
    let flags = [libc::O_DIRECTORY, libc::O_NOFOLLOW, libc::O_DIRECT, libc::O_SYNC, libc::O_PATH];
    let directory = TempDir::new();
    for path in
        create_files(&directory.0.join("all")).into_iter().chain(["/dev/tty".into(), ".".into()])
    {
        for flags in flags {
            let chosen = [true, false, false, false, false, false];
            let args = OpenArgs { chosen, mode: 0, flags };
            let why = format!("{} {args:?}", path.display());
            let expected = args.call_directly(&path);
            match (opened(ops.run(Op::open(&path, &args.open_options()))), expected) {
                (Ok(given), Ok(expected)) if flags == libc::O_PATH => {
                    assert_eq!(status(&given), status(&expected), "{why}");
                }
                (Ok(given), Ok(expected)) => expect_alike(&given, &expected, &why),
                (given, expected) => assert_eq!(given.err(), expected.err(), "{why}"),
            }
        }
    }
}

pub(super) fn c7_open_of_fifo_does_not_block(cx: &TestContext) {
    let directory = TempDir::new();
    let path = directory.0.join("fifo");
    ok(nix::unistd::mkfifo(&path, Permissions::S_IRWXU));
    let mut ops = OpHarness::new(cx);
    let [read, write] = [(true, false), (false, true)]
        .map(|(read, write)| OpenOptions::new().read(read).write(write).clone());
    let given = opened(ops.run(Op::open(&path, &write)));
    assert_eq!(given.err(), Some(libc::ENXIO), "the FIFO has no reader");
    let reader = opened(ops.run(Op::open(&path, &read)));
    let reader =
        reader.unwrap_or_else(|errno| panic!("opening for reading needs no writer: {errno}"));
    let writer = opened(ops.run(Op::open(&path, &write)));
    let writer = writer.unwrap_or_else(|errno| panic!("the FIFO has a reader: {errno}"));
    assert!(status(&reader).contains(OFlag::O_NONBLOCK), "C6");
    assert!(status(&writer).contains(OFlag::O_NONBLOCK | OFlag::O_WRONLY), "C6");
    let (reader, writer) = (ops.add(Arc::new(reader)), ops.add(Arc::new(writer)));
    ops.submit(Op::read(reader, vec![], 9), 1);
    ops.expect_nothing_yet("nothing was written");
    ops.submit(Op::write(writer, "through", ..), 2);
    let done = ops.collect(2);
    assert!(done.iter().any(|done| done.token.0 == 1 && *done.buf == *b"through"), "{done:?}");
}

pub(super) fn c6_opened_files_can_be_used_at_once(cx: &TestContext) {
    const FILES: usize = 40;
    let directory = TempDir::new();
    let mut ops = OpHarness::with_capacity(cx, FILES);
    let new = OpenOptions::new().read(true).write(true).create_new(true).clone();
    for token in 0..FILES {
        ops.submit(Op::open(directory.0.join(token.to_string()), &new), token);
    }
    for done in ops.collect(FILES) {
        let token = done.token.0;
        let file = opened(done).unwrap_or_else(|errno| panic!("file {token}: {errno}"));
        let key = ops.add(Arc::new(file));
        ops.submit(Op::write_at(key, token.to_string(), .., 0), token);
    }
    for done in ops.collect(FILES) {
        let path = directory.0.join(done.token.0.to_string());
        assert_eq!(ok(std::fs::read(path)), &*done.buf, "{done:?}");
    }
}

pub(super) fn x1_cancelled_open_creates_no_file(cx: &TestContext) {
    let directory = TempDir::new();
    let mut ops = OpHarness::with_capacity(cx, 100);
    let new = OpenOptions::new().write(true).create_new(true).clone();
    for round in 0..40 {
        for token in 0..3 {
            let path = directory.0.join(format!("{round}-{token}"));
            let open = Op::open(&path, &new);
            match token {
                0 => {
                    let id = ops.submit(open, token);
                    if round % 2 == 1 {
                        ops.wait(ZERO);
                    }
                    // `NotFound` is allowed only if the submission has delivered the completion.
                    let canceled = ops.harness.poller.cancel(id);
                    assert!(canceled.is_ok() || ops.harness.events.completed() > 0);
                }
                1 => _ = ops.submit(open.deadline(ZERO), token),
                _ => _ = ops.submit(open.deadline(Duration::from_micros(50)), token),
            }
        }
        for done in ops.collect(3) {
            let path = directory.0.join(format!("{round}-{}", done.token.0));
            let is_stopped = match &done.result {
                Ok(Outcome::Opened { .. }) => false,
                Ok(other) => panic!("{other:?}"),
                Err(error) if done.token.0 > 0 => {
                    assert_eq!(error.kind(), TimedOut, "{error}");
                    true
                }
                Err(_) => done.is_canceled(),
            };
            assert_eq!(path.exists(), !is_stopped, "{done:?}");
        }
    }
    ops.expect_all_done("all opens have completed");
}

pub(super) fn d2_untaken_opened_files_are_closed(cx: &TestContext) {
    drop(cx.poller());
    let directory = TempDir::new();
    let path = directory.0.join("file");
    let held = file_of(&path, b"content");
    let before = open_fds();
    let read = OpenOptions::new().read(true).clone();
    let open = |ops: &mut OpHarness, count| {
        (0..count).for_each(|token| _ = ops.submit(Op::open(&path, &read), token));
    };
    let mut ops = OpHarness::with_capacity(cx, 4);
    // The poller's own descriptors for opening files are created by the first open.
    open(&mut ops, 1);
    drop(ops.next());
    let with_poller = open_fds();
    open(&mut ops, 3);
    let done = ops.collect(3);
    assert!(done.iter().all(|done| done.result.is_ok()), "{done:?}");
    assert_eq!(open_fds().len(), with_poller.len() + 3, "the files are open");
    drop(done);
    assert_eq!(open_fds(), with_poller, "closed with the completion");
    open(&mut ops, 3);
    let mut taken = 0;
    while taken < 3 {
        let mut events = Events::with_capacity(4);
        let waited = ops.harness.poller.wait(&mut events, Some(LONG));
        waited.unwrap_or_else(|error| panic!("wait: {error}"));
        taken += events.completed();
    }
    assert_eq!(open_fds(), with_poller, "closed with the events");
    drop(ops);
    assert_eq!(open_fds(), before, "closed with the poller");
    // Delivered and not taken, completed and not delivered, and in flight.
    for round in 0..100 {
        let mut ops = OpHarness::with_capacity(cx, 4);
        open(&mut ops, 12);
        match round % 3 {
            0 => {}
            1 => ops.wait(ZERO),
            _ => ops.wait(LONG),
        }
        drop(ops);
        assert_eq!(open_fds(), before, "closed with the poller, round {round}");
    }
    drop(held);
}

/// Uses up the file descriptors of the process until dropped. (With a limit of 0 poll(2) would
/// fail.)
pub(super) struct ExhaustedFds {
    before: (u64, u64),
    _files: Vec<File>,
}

impl ExhaustedFds {
    pub(super) fn new() -> Self {
        let before = ok(getrlimit(Resource::RLIMIT_NOFILE));
        ok(setrlimit(Resource::RLIMIT_NOFILE, 300.min(before.0), before.1));
        let files = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
        ExhaustedFds { before, _files: files }
    }
}

impl Drop for ExhaustedFds {
    fn drop(&mut self) {
        ok(setrlimit(Resource::RLIMIT_NOFILE, self.before.0, self.before.1));
    }
}

pub(super) fn p5_open_without_free_fd_creates_nothing(cx: &TestContext) {
    let directory = TempDir::new();
    let path = directory.0.join("file");
    let file = file_of(&path, b"content");
    let mut ops = OpHarness::new(cx);
    let key = ops.add(file.clone());
    let read = OpenOptions::new().read(true).clone();
    // The poller's own descriptors are created by the first open.
    drop(ops.run(Op::open(&path, &read)));
    let before = open_fds();
    let exhausted = ExhaustedFds::new();
    let done = ops.run(Op::open(&path, &read));
    let new = OpenOptions::new().write(true).create_new(true).clone();
    let made = ops.run(Op::open(directory.0.join("new"), &new));
    let read_on = ops.run(Op::read_at(key, vec![], 9, 3));
    drop(exhausted);
    assert_eq!(opened(done).err(), Some(libc::EMFILE));
    assert_eq!(opened(made).err(), Some(libc::EMFILE));
    assert!(!directory.0.join("new").exists(), "the failed open created a file");
    assert_eq!(bytes(read_on).1, b"tent", "open files still work");
    assert_eq!(open_fds(), before);
    let again = opened(ops.run(Op::open(&path, &read)));
    let again =
        File::from(again.unwrap_or_else(|errno| panic!("descriptors are free again: {errno}")));
    assert_eq!(ok(again.read_at(&mut [0; 9], 0)), 7);
}

/// Credentials are per thread: after the poller's thread drops its own, no worker thread may use
/// the old ones.
pub(super) fn c2_open_uses_credentials_of_the_thread(cx: &TestContext) {
    if !Uid::effective().is_root() {
        cx.skip("only root can drop privileges and regain them");
    }
    let directory = TempDir::new();
    ok(std::fs::set_permissions(&directory.0, std::os::unix::fs::PermissionsExt::from_mode(0o755)));
    let path = directory.0.join("private");
    let file = file_of(&path, b"content");
    ok(file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o600)));
    let mut ops = OpHarness::new(cx);
    let open = || Op::open(&path, OpenOptions::new().read(true));
    for _ in 0..3 {
        // The worker threads that ran these still have root's credentials.
        (0..8).for_each(|at| _ = ops.submit(open(), at));
        let done = ops.collect(8);
        assert!(done.into_iter().all(|done| opened(done).is_ok()), "root may");
        setfsuid(Uid::from_raw(65_534));
        let (plain, done) = (File::open(&path), ops.run(open()));
        setfsuid(Uid::from_raw(0));
        assert!(plain.is_err_and(|error| error.raw_os_error() == Some(libc::EACCES)));
        assert_eq!(opened(done).err(), Some(libc::EACCES), "the unprivileged thread may not");
    }
}
