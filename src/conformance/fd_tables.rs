//! Clauses E1, C4, C6 and W1 when threads have different file descriptor tables, after unshare(2)
//! with `CLONE_FILES`. Every case has a process of its own.

use super::disk::{file_of, forget};
use super::op_harness::*;
use super::util::*;
use crate::event::{Mode, Readiness};
use crate::op::{Message, Op, OpenOptions, Outcome};
use crate::sys::buf::Buf;
use crate::sys::staging;
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, mpsc};

/// A thread that keeps the current table in use after the caller has unshared its own.
struct OtherThread {
    jobs: Option<mpsc::Sender<Box<dyn FnOnce() + Send>>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl OtherThread {
    fn spawn() -> Self {
        let (jobs, queue) = mpsc::channel::<Box<dyn FnOnce() + Send>>();
        let thread = std::thread::spawn(move || queue.into_iter().for_each(|job| job()));
        OtherThread { jobs: Some(jobs), thread: Some(thread) }
    }

    fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (done, is_done) = mpsc::channel();
        let job = Box::new(move || drop(done.send(job())));
        let sent = self.jobs.as_ref().is_some_and(|jobs| jobs.send(job).is_ok());
        assert!(sent, "the other thread has exited");
        is_done.recv_timeout(LONG).unwrap_or_else(|error| panic!("the other thread: {error}"))
    }
}

impl Drop for OtherThread {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Returns the descriptors in the table of the calling thread, sorted.
fn thread_fds() -> Vec<i32> {
    let directory = ok(std::fs::read_dir("/proc/thread-self/fd"));
    let names = directory.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let mut fds: Vec<i32> = names.collect();
    fds.sort_unstable();
    // The descriptor of the directory itself is closed by now.
    fds.retain(|fd| std::fs::read_link(format!("/proc/thread-self/fd/{fd}")).is_ok());
    fds
}

/// Creates a file whose bytes are not in the page cache.
fn cold_file(path: &std::path::Path, bytes: &[u8]) -> Arc<File> {
    let file = file_of(path, bytes);
    forget(&file, 0, bytes.len());
    file
}

/// Closes `victim` in the table of the calling thread alone, and opens a file with its descriptor.
fn take_place_of(victim: File, path: &std::path::Path, bytes: &[u8]) -> Arc<File> {
    let fd = victim.as_raw_fd();
    drop(victim);
    let file = file_of(path, bytes);
    assert_eq!(file.as_raw_fd(), fd, "the lowest free descriptor");
    file
}

/// Makes a poller start its pool threads.
fn warm_up(ops: &mut OpHarness, directory: &TempDir) {
    let file = cold_file(&directory.0.join("warm"), &[7; 64 << 10]);
    let key = ops.add(file.clone());
    for _ in 0..4 {
        forget(&file, 0, 64 << 10);
        for token in 0..4 {
            ops.submit(Op::fsync(key), token);
            ops.submit(Op::read_at(key, Vec::new(), 4096, 16_384 * token as u64), token + 4);
        }
        for done in ops.collect(8) {
            assert!(done.result.is_ok(), "{done:?}");
        }
    }
    ops.harness.deregister(key);
}

pub(super) fn c4_calls_use_the_table_of_the_submitter(cx: &TestContext) {
    let directory = TempDir::new();
    let path = |name: &str| directory.0.join(name);
    let mut before = OpHarness::new(cx);
    warm_up(&mut before, &directory);
    let victims = ["victim", "other"].map(|name| {
        ok(std::fs::write(path(name), b"victim"));
        ok(File::options().read(true).write(true).open(path(name)))
    });
    let other = OtherThread::spawn();
    ok(staging::unshare_fd_table());
    let [victim, _second] = victims;
    let ours = take_place_of(victim, &path("ours"), b"content");
    let mut after = OpHarness::new(cx);
    for (round, ops) in [&mut before, &mut after].into_iter().enumerate() {
        // A descriptor that is not open in the other table.
        let new = file_of(&path("new"), b"");
        let key = ops.add(new);
        assert_eq!(bytes(ops.run(Op::fsync(key))).0, 0);
        ops.harness.deregister(key);
        let key = ops.add(ours.clone());
        for at in 0..16_u8 {
            let byte = vec![b'a' + at; 5000];
            let offset = 5000 * u64::from(at);
            assert_eq!(bytes(ops.run(Op::write_at(key, byte.clone(), .., offset))).0, 5000);
            let several = [Buf::Vec(byte.clone()), Buf::Vec(byte.clone())];
            let done = ops.run(Op::write_at_vectored(key, several, offset));
            assert_eq!(done.transferred, 10_000, "{done:?}");
            assert_eq!(bytes(ops.run(Op::fsync(key))).0, 0);
            assert_eq!(bytes(ops.run(Op::fdatasync(key))).0, 0);
            forget(&ours, 0, 100_000);
            let (count, read) = bytes(ops.run(Op::read_at(key, Vec::new(), 5000, offset)));
            assert!((count, &read) == (5000, &byte), "round {round}: {count} bytes read");
        }
        // At the file position, and by a splice from a pipe.
        assert_eq!(bytes(ops.run(Op::write(key, b"position".to_vec(), ..))).0, 8);
        let (reader, writer) = pipe();
        let from = ops.add(Arc::new(reader));
        assert_eq!(nix::unistd::write(&writer, b"spliced"), Ok(7));
        let done = ops.run(Op::splice(from, key, 7));
        assert_eq!(done.transferred, 7, "{done:?}");
        let mut start = [0; 15];
        ok(ours.read_exact_at(&mut start, 15 * round as u64));
        assert_eq!(&start, b"positionspliced", "round {round}");
        ops.harness.deregister(from);
        ops.harness.deregister(key);
    }
    for name in ["victim", "other"] {
        assert_eq!(ok(std::fs::read(path(name))), b"victim", "{name} must not be written");
    }
    drop(other);
}

/// Jobs in flight when the table is unshared use their own files, and leave no descriptor open in
/// the table of the poller's thread.
pub(super) fn c4_jobs_in_flight_survive_an_unshared_table(cx: &TestContext) {
    const SIZE: usize = 1 << 20;
    const COUNT: usize = 12;
    let directory = TempDir::new();
    let mut ops = OpHarness::new(cx);
    warm_up(&mut ops, &directory);
    for deregisters in [false, true] {
        let other = OtherThread::spawn();
        let before = thread_fds();
        let files: Vec<_> = (0..COUNT)
            .map(|at| cold_file(&directory.0.join(format!("{at}")), &vec![at as u8; SIZE]))
            .collect();
        let keys: Vec<_> = files.into_iter().map(|file| ops.add(file)).collect();
        for (at, &key) in keys.iter().enumerate() {
            ops.submit(Op::read_at(key, Vec::new(), SIZE, 0), at);
        }
        ok(staging::unshare_fd_table());
        if deregisters {
            keys.iter().for_each(|&key| ops.harness.deregister(key));
        }
        for done in ops.collect(COUNT) {
            if deregisters && done.is_canceled() {
                continue;
            }
            let (token, (count, read)) = (done.token.0, bytes(done));
            let is_right = count == SIZE && read.iter().all(|&byte| byte == token as u8);
            assert!(is_right, "file {token}: {count} bytes");
        }
        if !deregisters {
            keys.iter().for_each(|&key| ops.harness.deregister(key));
        }
        ops.expect_all_done("every operation has completed");
        assert_eq!(thread_fds(), before, "no descriptor is left, deregistered: {deregisters}");
        drop(other);
    }
}

/// Files opened while the table is unshared are open in the table of the poller's thread.
pub(super) fn c6_opens_arrive_in_the_table_of_the_submitter(cx: &TestContext) {
    const COUNT: usize = 8;
    let directory = TempDir::new();
    let path = |at: usize| directory.0.join(format!("{at}"));
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true);
    let mut ops = OpHarness::new(cx);
    for round in 0..60 {
        let other = OtherThread::spawn();
        let before = thread_fds();
        for at in 0..COUNT {
            ok(std::fs::write(path(at), format!("file {at}")));
            ops.submit(Op::open(path(at), &options), at);
        }
        if round % 3 == 1 {
            ops.wait(ZERO);
        }
        if round % 3 == 2 {
            // Some are open by now and not collected.
            std::thread::yield_now();
            std::thread::yield_now();
        }
        ok(staging::unshare_fd_table());
        for done in ops.collect(COUNT) {
            let at = done.token.0;
            let file = match done.result {
                Ok(Outcome::Opened { file }) => File::from(file),
                other => panic!("expected an opened file, got {other:?}"),
            };
            let (expected, given) = (ok(std::fs::metadata(path(at))), ok(file.metadata()));
            assert_eq!(given.ino(), expected.ino(), "file {at}, round {round}");
            let mut text = String::new();
            ok((&file).read_to_string(&mut text));
            assert_eq!(text, format!("file {at}"));
            let flags = ok(nix::fcntl::fcntl(&file, nix::fcntl::FcntlArg::F_GETFD));
            assert_ne!(flags & libc::FD_CLOEXEC, 0, "close-on-exec");
        }
        assert_eq!(thread_fds(), before, "a descriptor was left open, round {round}");
        drop(other);
    }
    ops.expect_all_done("every operation has completed");
}

/// A cached open allocates its descriptor in the table of the poller's thread.
pub(super) fn c6_cached_opens_use_the_table_of_the_submitter(cx: &TestContext) {
    let directory = TempDir::new();
    let path = |name: &str| directory.0.join(name);
    let mut before = OpHarness::new(cx);
    ok(std::fs::write(path("file"), "ours"));
    ok(std::fs::write(path("other"), "theirs"));
    let open = || Op::open(path("file"), OpenOptions::new().read(true));
    // This poller has opened files before the table was unshared.
    assert!(before.run(open()).result.is_ok());
    let other = OtherThread::spawn();
    ok(staging::unshare_fd_table());
    let mut after = OpHarness::new(cx);
    let theirs = other.run({
        let path = path("other");
        move || [(); 32].map(|()| ok(File::open(&path)))
    });
    for ops in [&mut before, &mut after] {
        for _ in 0..8 {
            let mut file = match ops.run(open()).result {
                Ok(Outcome::Opened { file }) => File::from(file),
                other => panic!("expected an opened file, got {other:?}"),
            };
            let mut text = String::new();
            ok(file.read_to_string(&mut text));
            assert_eq!(text, "ours");
        }
    }
    other.run(move || drop(theirs));
}

pub(super) fn c4_message_passes_descriptors_of_the_submitter(cx: &TestContext) {
    let directory = TempDir::new();
    let path = |name: &str| directory.0.join(name);
    let mut before = OpHarness::new(cx);
    warm_up(&mut before, &directory);
    ok(std::fs::write(path("victim"), b"victim"));
    let victim = ok(File::open(path("victim")));
    let other = OtherThread::spawn();
    ok(staging::unshare_fd_table());
    let ours = take_place_of(victim, &path("ours"), b"ours");
    let mut after = OpHarness::new(cx);
    for ops in [&mut before, &mut after] {
        let (local, peer) = ok(UnixStream::pair());
        let (local, peer) = (ops.add(Arc::new(local)), ops.add(Arc::new(peer)));
        for waits in [false, true] {
            if waits {
                ops.submit(Op::recv_msg(peer, Vec::new(), 8), 1);
                ops.expect_nothing_yet("nothing was sent");
            }
            let message = Message::new().file(ours.clone());
            ops.submit(Op::send_msg(local, "x", .., message), 2);
            if !waits {
                ops.submit(Op::recv_msg(peer, Vec::new(), 8), 1);
            }
            let mut done = ops.collect(2);
            done.sort_by_key(|done| done.token);
            let files: Vec<OwnedFd> = match done.remove(0).result {
                Ok(Outcome::Message(message)) => message.files,
                other => panic!("expected a message, got {other:?}"),
            };
            let [file] =
                files.try_into().unwrap_or_else(|files| panic!("expected one file, got {files:?}"));
            let file = File::from(file);
            let mut text = [0; 4];
            ok(file.read_exact_at(&mut text, 0));
            assert_eq!(&text, b"ours", "waited: {waits}");
        }
    }
    drop(other);
}

/// The descriptor by which a waker reaches its poller may be another file in the waking thread's
/// table.
pub(super) fn w1_wake_comes_from_a_thread_with_another_table(cx: &TestContext) {
    let directory = TempDir::new();
    let other = OtherThread::spawn();
    ok(staging::unshare_fd_table());
    let mut harness = cx.harness(1);
    let highest = thread_fds().last().copied().unwrap_or(0);
    let paths: Vec<_> = (0..highest).map(|at| directory.0.join(format!("{at}"))).collect();
    let files = other.run({
        let paths = paths.clone();
        move || paths.iter().map(|path| ok(File::create(path))).collect::<Vec<_>>()
    });
    let last = files.last().map_or(0, AsRawFd::as_raw_fd);
    assert!(last >= highest, "the other table must use all these descriptors");
    for round in 0..20 {
        let (waker, sleeper) = (harness.poller.waker(), staging::Thread::current().id());
        let is_asleep = round % 2 == 0;
        let woken = std::thread::scope(|scope| {
            let other = &other;
            let wakes = scope.spawn(move || {
                other.run(move || {
                    if is_asleep {
                        wait_until_asleep(sleeper);
                    }
                    waker.wake();
                });
            });
            if !is_asleep {
                wakes.join().unwrap_or_else(|_| panic!("the waking thread failed"));
            }
            harness.wait(Some(LONG));
            harness.events.woken()
        });
        assert!(woken, "round {round}");
    }
    for path in paths {
        assert_eq!(ok(std::fs::metadata(&path)).len(), 0, "{} was written", path.display());
    }
    other.run(move || files.into_iter().for_each(|mut file| ok(file.flush())));
}

/// Returns an eventfd and an inotify instance on the two lowest free descriptors, the eventfd on
/// the lower one if `eventfd_first`.
fn eventfd_and_inotify(eventfd_first: bool) -> (EventFd, Inotify) {
    let eventfd = || ok(EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK));
    let inotify = || ok(Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK));
    if eventfd_first {
        let eventfd = eventfd();
        (eventfd, inotify())
    } else {
        let inotify = inotify();
        (eventfd(), inotify)
    }
}

/// The two tables have the same descriptors with the files exchanged; only one of the files can
/// signal readiness.
pub(super) fn e1_poller_uses_files_of_the_callers_table(cx: &TestContext) {
    let directory = TempDir::new();
    let mut before = cx.harness(4);
    let other = OtherThread::spawn();
    ok(staging::unshare_fd_table());
    let (eventfd, inotify) = eventfd_and_inotify(true);
    let theirs = other.run(|| eventfd_and_inotify(false));
    let fds = |(eventfd, inotify): (&EventFd, &Inotify)| {
        [eventfd.as_fd().as_raw_fd(), inotify.as_fd().as_raw_fd()]
    };
    let [ours, their_fds] = [(&eventfd, &inotify), (&theirs.0, &theirs.1)].map(fds);
    assert_eq!(ours, [their_fds[1], their_fds[0]], "the descriptors are exchanged");
    ok(inotify.add_watch(&directory.0, AddWatchFlags::IN_CREATE));
    let (eventfd, inotify) = (Arc::new(eventfd), Arc::new(inotify));
    let mut after = cx.harness(4);
    for harness in [&mut before, &mut after] {
        for mode in MODES {
            let keys = [
                harness.register(eventfd.clone(), 0, READ, mode),
                harness.register(inotify.clone(), 1, READ, mode),
            ];
            for round in 0..3 {
                harness.expect_silence(&format!("both are empty, {mode:?}, round {round}"));
                for (token, key) in keys.into_iter().enumerate() {
                    let name = ["eventfd", "inotify"][token];
                    match token {
                        0 => drop(ok(eventfd.write(1))),
                        _ => {
                            drop(ok(File::create(directory.0.join("new"))));
                            ok(std::fs::remove_file(directory.0.join("new")));
                        }
                    }
                    let reported = harness.next(&format!("{name}, {mode:?}, round {round}"));
                    assert_eq!(reported, [(token, Readiness::READABLE)], "{mode:?}, round {round}");
                    match token {
                        0 => drop(ok(eventfd.read())),
                        _ => drop(ok(inotify.read_events())),
                    }
                    match mode {
                        Mode::Level => {}
                        Mode::Edge => harness.drained(key, READ),
                        Mode::OneShot => harness.rearm(key, READ),
                    }
                }
            }
            keys.into_iter().for_each(|key| harness.deregister(key));
        }
    }
    other.run(move || drop(theirs));
}
