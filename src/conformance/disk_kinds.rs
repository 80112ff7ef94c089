//! Clause C2 for reads and writes at an offset: files of every kind, and offsets at their limits.

use super::disk::*;
use super::op_harness::*;
use super::scenarios;
use super::util::*;
use crate::op::Op;
use crate::sys::buf::Buf;
use crate::sys::staging;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use std::fs::File;
use std::io::ErrorKind::InvalidInput;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(super) fn c2_offsets_at_limits_match_calls(cx: &TestContext) {
    let directory = TempDir::new();
    let [ours, twin] = ["ours", "twin"].map(|name| file_of(&directory.0.join(name), b"content"));
    let mut ops = OpHarness::new(cx);
    let key = ops.add(ours);
    for offset in [i64::MAX as u64 + 1, u64::MAX - 1, u64::MAX] {
        let (buf, error) = ops.rejected(Op::read_at(key, b"kept".to_vec(), 1, offset));
        assert_eq!((&*buf, error.kind()), (&b"kept"[..], InvalidInput));
        let (buf, error) = ops.rejected(Op::write_at(key, b"kept".to_vec(), .., offset));
        assert_eq!((&*buf, error.kind()), (&b"kept"[..], InvalidInput));
    }
    // Beyond the maximum file size, and at the maximum offset.
    for offset in [1 << 44, 1 << 50, i64::MAX as u64 - 5, i64::MAX as u64] {
        let expected = read_directly(&twin, 9, offset).0;
        let done = ops.run(Op::read_at(key, vec![], 9, offset));
        assert_eq!(count_of(&done), expected, "a read at {offset}");
        let expected = plain(twin.write_at(b"123456789", offset));
        let done = ops.run(Op::write_at(key, "123456789", .., offset));
        assert_eq!(count_of(&done), expected, "a write at {offset}");
    }
    let full = |path: &str| Arc::new(ok(File::options().read(true).write(true).open(path)));
    let key = ops.add(full("/dev/full"));
    assert_eq!(count_of(&ops.run(Op::write_at(key, "x", .., 3))), Err(libc::ENOSPC));
    assert_eq!(count_of(&ops.run(Op::write_at_vectored(key, several(3), 3))), Err(libc::ENOSPC));
    assert_eq!(bytes(ops.run(Op::read_at(key, vec![1], 3, 9))), (3, vec![1, 0, 0, 0]));
}

/// Returns files of all kinds with their names.
fn others(directory: &Path) -> Vec<(&'static str, OwnedFd)> {
    let path = directory.join("one-way");
    ok(std::fs::write(&path, b"content"));
    let open = |path: &Path, read, write| {
        OwnedFd::from(ok(File::options().read(read).write(write).open(path)))
    };
    let device = |path: &str| open(Path::new(path), true, true);
    let (reader, writer) = pipe();
    fill(&writer);
    let ((local, peer), (connection, _)) = (stream(), tcp());
    put(&peer, b"some data");
    let counter = ok(nix::sys::eventfd::EventFd::from_value_and_flags(
        3,
        nix::sys::eventfd::EfdFlags::EFD_NONBLOCK,
    ));
    let terminal = ok(nix::pty::openpty(None, None));
    scenarios::set_blocking(&terminal.slave, false);
    scenarios::set_blocking(&terminal.master, false);
    vec![
        ("reader", reader),
        ("writer", writer),
        ("unix stream", ok(local.as_fd().try_clone_to_owned())),
        ("unix stream, peer", peer.into()),
        ("datagram", ok(UnixDatagram::pair()).0.into()),
        ("TCP", ok(connection.as_fd().try_clone_to_owned())),
        ("eventfd", counter.into()),
        ("master", terminal.master),
        ("slave", terminal.slave),
        ("directory", open(directory, true, false)),
        ("read-only file", open(&path, true, false)),
        ("write-only file", open(&path, false, true)),
        ("/dev/null", device("/dev/null")),
        ("/dev/zero", device("/dev/zero")),
        ("procfs", open(Path::new("/proc/version"), true, false)),
    ]
}

pub(super) fn c2_offsets_on_all_file_kinds_match_calls(cx: &TestContext) {
    let directory = TempDir::new();
    let [ours, twins] = [0, 1].map(|_| others(&directory.0));
    for ((name, ours), (_, twin)) in ours.into_iter().zip(twins) {
        let mut ops = OpHarness::new(cx);
        ops.label = name;
        let (key, twin) = (ops.add(Arc::new(ours)), File::from(twin));
        for offset in [0, 5] {
            let expected = read_directly(&twin, 8, offset);
            let done = ops.run(Op::read_at(key, vec![], 8, offset));
            let given = (count_of(&done), done.buf.into_vec());
            assert_eq!(given, expected, "{name}: a read at {offset}");
            let two = [1, 7].map(|max| (Buf::Vec(vec![]), max));
            let done = ops.run(Op::read_at_vectored(key, two, offset));
            assert_eq!(
                (count_of(&done), done.buf.into_vec()),
                expected,
                "{name}: into two buffers"
            );
            let expected = plain(twin.write_at(b"12345678", offset));
            let done = ops.run(Op::write_at(key, "12345678", .., offset));
            assert_eq!(count_of(&done), expected, "{name}: a write at {offset}");
            let two = ["12".into(), "345678".into()];
            let done = ops.run(Op::write_at_vectored(key, two, offset));
            assert_eq!(count_of(&done), expected, "{name}: from two buffers at {offset}");
            let expected = plain(twin.write_at(b"", offset));
            let done = ops.run(Op::write_at(key, "", .., offset));
            assert_eq!(count_of(&done), expected, "{name}: an empty write at {offset}");
        }
        let kept = |answer: nix::Result<()>| answer.map(|()| 0).map_err(|error| error as i32);
        let done = ops.run(Op::fsync(key));
        assert_eq!(count_of(&done), kept(nix::unistd::fsync(&twin)), "{name}: fsync");
        let done = ops.run(Op::fdatasync(key));
        assert_eq!(count_of(&done), kept(nix::unistd::fdatasync(&twin)), "{name}: fdatasync");
        ops.expect_all_done(name);
    }
}

pub(super) fn c2_direct_io_alignment_errors_match_calls(cx: &TestContext) {
    const SIZE: usize = 64 << 10;
    let directory = TempDir::new();
    let path = directory.0.join("file");
    let content = Rng(9).bytes(SIZE + 1000);
    drop(file_of(&path, &content));
    let mut options = File::options();
    let opened = options.read(true).write(true).custom_flags(libc::O_DIRECT).open(&path);
    let Ok(file) = opened else {
        cx.skip("the temporary directory is on a file system without O_DIRECT")
    };
    let (file, pool) = (Arc::new(file), pool(SIZE, 2));
    let mut ops = OpHarness::new(cx);
    let key = ops.add(file.clone());
    // Bytes in the buffer, which shift the alignment; bytes requested; offset.
    let asked = [(0, 4096, 0), (0, SIZE, 4096), (4096, 4096, 512), (0, SIZE, SIZE), (0, 512, 512)];
    let askew = [(1, 4096, 0), (0, 4095, 0), (0, 4096, 1), (4, 512, 512), (0, 7, 3)];
    let mut rng = Rng(17);
    for (before, size, offset) in asked.into_iter().chain(askew) {
        let why = format!("{size} at {offset}, after {before} bytes");
        let mut room = pool_buf(&pool, &rng.bytes(SIZE));
        let part = before..before + size;
        let expected = plain(file.read_at(&mut room[part.clone()], offset as u64));
        let read = room[before..][..expected.unwrap_or(0)].to_vec();
        let buf = pool_buf(&pool, &vec![7; before]);
        let done = ops.run(Op::read_at(key, buf, size, offset as u64));
        assert_eq!(count_of(&done), expected, "a read of {why}");
        assert!(done.buf[before..] == read, "a read of {why}");
        drop(done);
        let new = rng.bytes(SIZE);
        room.copy_from_slice(&new);
        let expected = plain(file.write_at(&room[part.clone()], offset as u64));
        room[part.clone()].reverse();
        let done = ops.run(Op::write_at(key, room, part.clone(), offset as u64));
        assert_eq!(count_of(&done), expected, "a write of {why}");
        let written =
            expected.is_ok() && ok(std::fs::read(&path))[offset..][..size] == done.buf[part];
        assert_eq!(written, expected.is_ok(), "a write of {why}");
    }
}

/// A tracefs instance, whose `trace_pipe` is a regular file on which reads wait.
struct Traces(PathBuf);

impl Traces {
    /// `None` without tracefs or permission.
    fn new() -> Option<Self> {
        let name = format!("/sys/kernel/tracing/instances/quintpoll-{}", std::process::id());
        std::fs::create_dir(&name).ok()?;
        Some(Traces(name.into()))
    }

    fn write_marker(&self, what: &str) {
        ok(std::fs::write(self.0.join("trace_marker"), what));
    }
}

impl Drop for Traces {
    fn drop(&mut self) {
        // The kernel refuses while the file is open elsewhere; the instance then stays.
        let _ = std::fs::remove_dir(&self.0);
    }
}

/// A thread blocked in such a call could not be reclaimed.
pub(super) fn x1_read_of_waiting_tracefs_file_is_cancelled(cx: &TestContext) {
    let Some(traces) = Traces::new() else { cx.skip("tracefs is missing or not permitted") };
    let file = Arc::new(ok(File::open(traces.0.join("trace_pipe"))));
    let (reader, writer) = pipe();
    let mut ops = OpHarness::new(cx);
    let (from, to) = (ops.add(file), ops.add(Arc::new(writer)));
    for round in 0..8 {
        // Alternate with reads, which would keep a splice from blocking.
        let operations = || [Op::splice(from, to, 4096), Op::read(from, vec![], 4096)];
        for op in operations() {
            let id = ops.submit(op, 1);
            // Long enough for a thread to start it.
            ops.expect_sleep("no trace was written");
            ops.cancel(id);
            let done = ops.next();
            assert!(done.is_canceled(), "round {round}: {done:?}");
        }
        let [splice, read] = operations();
        ops.submit(read, 2);
        ops.expect_sleep("no trace was written");
        traces.write_marker("this is read");
        let (_, text) = bytes(ops.next());
        assert!(String::from_utf8_lossy(&text).contains("this is read"));
        ops.submit(splice, 3);
        ops.expect_sleep("no other trace was written");
        traces.write_marker("this is spliced");
        let mut text = vec![0; ops.next().transferred];
        ok(nix::unistd::read(&reader, &mut text));
        assert!(String::from_utf8_lossy(&text).contains("this is spliced"));
    }
}

/// Every kind of write beyond `RLIMIT_FSIZE`, in a process that SIGXFSZ would end.
pub(super) fn c2_writes_raise_no_sigxfsz(cx: &TestContext) {
    const LIMIT: usize = 8192;
    ok(staging::default_action(libc::SIGXFSZ));
    let directory = TempDir::new();
    let full = vec![7; LIMIT];
    let plain = file_of(&directory.0.join("plain"), &full);
    let path = directory.0.join("direct");
    drop(file_of(&path, &full));
    let direct = File::options().write(true).custom_flags(libc::O_DIRECT).open(&path);
    let (_, hard) = ok(getrlimit(Resource::RLIMIT_FSIZE));
    ok(setrlimit(Resource::RLIMIT_FSIZE, LIMIT as u64, hard));
    let pool = pool(LIMIT, 1);
    let mut ops = OpHarness::new(cx);
    let key = ops.add(plain.clone());
    let end = LIMIT as u64;
    for round in 0..3 {
        let why = format!("round {round}");
        let beyond = Err(libc::EFBIG);
        assert_eq!(count_of(&ops.run(Op::write_at(key, "x", .., end))), beyond, "{why}");
        let two = ["1".into(), "2".into()];
        assert_eq!(count_of(&ops.run(Op::write_at_vectored(key, two, end))), beyond, "{why}");
        let cut = ops.run(Op::write_at(key, "12345", .., end - 2));
        assert_eq!(count_of(&cut), Ok(2), "{why}: up to the limit");
        ok(std::io::Seek::seek(&mut &*plain, std::io::SeekFrom::End(0)));
        assert_eq!(count_of(&ops.run(Op::write(key, "x", ..))), beyond, "{why}: at the position");
        let (reader, writer) = pipe();
        ok(nix::unistd::write(&writer, b"x"));
        let reader = ops.add(Arc::new(reader));
        assert_eq!(count_of(&ops.run(Op::splice(reader, key, 1))), beyond, "{why}: a splice");
        ops.harness.deregister(reader);
        // Several at a time; a ring executes writes at an offset during submission.
        (0..8).for_each(|at| _ = ops.submit(Op::write_at(key, "x", .., end + at), at as usize));
        assert!(ops.collect(8).iter().all(|done| count_of(done) == beyond), "{why}");
    }
    // Direct writes take other paths in the kernel and in a ring.
    if let Ok(direct) = direct {
        let key = ops.add(Arc::new(direct));
        let mut aligned = pool_buf(&pool, &full);
        for offset in [end, end + 4096] {
            let done = ops.run(Op::write_at(key, aligned, .., offset));
            assert_eq!(count_of(&done), Err(libc::EFBIG), "a direct write at {offset}");
            let Buf::Pool(buf) = done.buf else { panic!("another buffer was returned") };
            aligned = buf;
        }
    }
    let blocked = ok(SigSet::thread_get_mask());
    assert!(!blocked.contains(Signal::SIGXFSZ), "SIGXFSZ must be blocked during writes only");
}
