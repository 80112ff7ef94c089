//! Clauses X1, X3, R5, C4, C7 and P5 for operations on the thread pool.

use super::disk::{Rng, file_of, forget};
use super::op_harness::*;
use super::util::*;
use crate::event::{Mode, Readiness};
use crate::key::Key;
use crate::op::{Completion, Op, OpId, OpenOptions, Outcome};
use crate::sys::buf::Buf;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

const BLOCK: usize = 256 << 10;
const BLOCKS: usize = 24;

/// A file that must be read from the disk, and operations on each of its blocks.
struct DiskFixture {
    directory: TempDir,
    file: Arc<File>,
    content: Vec<u8>,
}

/// Returns true if the operation on block `at` is a write.
fn is_write(at: usize) -> bool {
    at % 3 == 1
}

impl DiskFixture {
    fn new() -> Self {
        let directory = TempDir::new();
        let content = Rng(11).bytes(BLOCK * BLOCKS);
        let file = file_of(&directory.0.join("file"), &content);
        DiskFixture { directory, file, content }
    }

    /// Restores the content and drops it from the page cache.
    fn renew(&self) {
        ok(self.file.write_all_at(&self.content, 0));
        forget(&self.file, 0, self.content.len());
    }

    fn block(&self, at: usize) -> &[u8] {
        &self.content[at * BLOCK..][..BLOCK]
    }

    fn op(&self, key: Key, at: usize) -> Op {
        let offset = (at * BLOCK) as u64;
        let two = || [(Buf::Vec(vec![1]), 5), (Buf::Vec(vec![2]), BLOCK - 5)];
        match at % 3 {
            0 => Op::read_at(key, vec![1], BLOCK, offset),
            1 => Op::write_at(key, vec![at as u8; BLOCK + 2], 1..=BLOCK, offset),
            _ if at % 2 == 0 => Op::read_at_vectored(key, two(), offset),
            _ => Op::fsync(key),
        }
    }

    /// Fails unless the operation is complete, or was cancelled and moved no more than it reports.
    /// Returns true if it was cancelled.
    fn check(&self, done: Completion, is_stop: impl Fn(&Completion) -> bool) -> bool {
        let at = done.token.0;
        let why = format!("{done:?}");
        let is_stopped = is_stop(&done);
        assert!(done.result.is_ok() || is_stopped, "neither completed nor cancelled: {why}");
        let all = if at % 3 == 2 && at % 2 == 1 { 0 } else { BLOCK };
        assert!(is_stopped || done.transferred == all, "not all bytes: {why}");
        let moved = done.transferred;
        if is_write(at) {
            let mut now = vec![0; BLOCK];
            ok(self.file.read_exact_at(&mut now, (at * BLOCK) as u64));
            assert!(now[..moved].iter().all(|&byte| byte == at as u8), "not written: {why}");
            assert!(now[moved..] == self.block(at)[moved..], "more was written: {why}");
            assert!(*done.buf == [at as u8; BLOCK + 2][..], "the buffer was changed: {why}");
        } else if at % 3 == 0 {
            assert!(done.buf[0] == 1 && done.buf[1..] == self.block(at)[..moved], "{why}");
        } else if all > 0 {
            let bufs = done.buf.into_many();
            let read = [&bufs[0][1..], &bufs[1][1..]].concat();
            assert!(bufs[0][0] == 1 && bufs[1][0] == 2, "{why}");
            assert!(read == self.block(at)[..moved], "{why}");
        }
        is_stopped
    }
}

pub(super) fn x1_disk_operation_completes_or_is_cancelled(cx: &TestContext) {
    let disk = DiskFixture::new();
    let mut ops = OpHarness::with_capacity(cx, BLOCKS);
    let key = ops.add(disk.file.clone());
    for round in 0..8 {
        disk.renew();
        let ids: Vec<_> = (0..BLOCKS).map(|at| ops.submit(disk.op(key, at), at)).collect();
        if round % 2 == 1 {
            ops.wait(ZERO);
        }
        for id in ids.into_iter().rev() {
            let canceled = ops.harness.poller.cancel(id);
            assert!(
                canceled.is_ok() || ops.harness.events.completed() > 0,
                "cancel of a pending operation"
            );
        }
        for done in ops.collect(BLOCKS) {
            disk.check(done, Completion::is_canceled);
        }
    }
    ops.expect_all_done("every operation has completed");
}

pub(super) fn x3_disk_operation_completes_or_times_out(cx: &TestContext) {
    let disk = DiskFixture::new();
    let mut ops = OpHarness::with_capacity(cx, BLOCKS);
    let key = ops.add(disk.file.clone());
    let is_late = |done: &Completion| {
        done.result.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::TimedOut)
    };
    for micros in [0, 0, 100, 300, 1000, 3000, 60_000_000] {
        disk.renew();
        let time = Duration::from_micros(micros);
        let started = Instant::now();
        for at in 0..BLOCKS {
            ops.submit(disk.op(key, at).deadline(time), at);
        }
        for done in ops.collect(BLOCKS) {
            let is_stopped = disk.check(done, is_late);
            assert!(!is_stopped || started.elapsed() >= time, "before the deadline, {time:?}");
        }
    }
    ops.expect_all_done("every operation has completed");
}

pub(super) fn r5_deregistered_file_is_held_until_disk_completes(cx: &TestContext) {
    let disk = DiskFixture::new();
    for round in 0..8 {
        disk.renew();
        let mut ops = OpHarness::with_capacity(cx, BLOCKS);
        let file = Arc::new(ok(disk.file.try_clone()));
        let key = ops.add(file.clone());
        let ids: Vec<OpId> = (0..BLOCKS).map(|at| ops.submit(disk.op(key, at), at)).collect();
        if round % 2 == 1 {
            ops.wait(ZERO);
        }
        ops.harness.deregister(key);
        let again = ops.rejected(Op::fsync(key)).1;
        assert_eq!(again.kind(), io::ErrorKind::NotFound, "the key is stale");
        let done = ops.collect(BLOCKS);
        let canceled = done.iter().filter(|done| done.is_canceled()).map(|done| done.id);
        let canceled: Vec<_> = canceled.collect();
        let of_these = |id: &&OpId| canceled.contains(id);
        let in_order: Vec<_> = ids.iter().filter(of_these).copied().collect();
        assert_eq!(canceled, in_order, "in submission order");
        for done in done {
            disk.check(done, Completion::is_canceled);
        }
        assert_eq!(Arc::strong_count(&file), 1, "the poller still holds the file");
        ops.expect_all_done("every operation has completed");
    }
}

/// In some of ten tries, reads must still be in flight after a wait that has reported an event and
/// a wake.
pub(super) fn c7_disk_reads_do_not_block_waits(cx: &TestContext) {
    const SIZE: usize = 4 << 20;
    const FILES: usize = 8;
    let directory = TempDir::new();
    let content = vec![0x5a; SIZE];
    let files: Vec<_> =
        (0..FILES).map(|at| file_of(&directory.0.join(at.to_string()), &content)).collect();
    let mut were_in_flight = 0;
    for _ in 0..10 {
        files.iter().for_each(|file| forget(file, 0, SIZE));
        let mut ops = OpHarness::new(cx);
        let (local, peer) = stream();
        ops.harness.register(local, 1, READ, Mode::Level);
        for (token, file) in files.iter().enumerate() {
            let key = ops.add(file.clone());
            ops.submit(Op::read_at(key, Vec::new(), SIZE, 0), token);
        }
        put(&peer, b"x");
        ops.harness.poller.waker().wake();
        ops.harness.wait(Some(ZERO));
        assert_eq!(ops.harness.reported(), [(1, Readiness::READABLE)], "the stream is reported");
        assert!(ops.harness.events.woken(), "the wait was not woken");
        were_in_flight += i32::from(ops.harness.events.completed() < FILES);
        for done in ops.collect(FILES) {
            assert!(bytes(done).1 == content, "the bytes differ");
        }
    }
    assert!(were_in_flight > 0, "every wait blocked on the disk");
}

/// Returns the counts of pool threads and of threads that open files.
fn disk_threads() -> [usize; 2] {
    let tasks = std::fs::read_dir("/proc/self/task");
    let names = ok(tasks).filter_map(|task| {
        // The thread may have exited since.
        std::fs::read_to_string(ok(task).path().join("comm")).ok()
    });
    let names: Vec<_> = names.collect();
    let count_of = |name| names.iter().filter(|thread| thread.trim() == name).count();
    // The kernel keeps 15 bytes of a thread name.
    ["quintpoll-block", "quintpoll-once"].map(count_of)
}

fn expect_few_threads(max: usize) {
    let threads = disk_threads();
    assert!(threads.iter().all(|&count| count <= max), "{threads:?} threads, at most {max}");
}

pub(super) fn c7_disk_threads_stay_within_limit(cx: &TestContext) {
    let disk = DiskFixture::new();
    let read = OpenOptions::new().read(true).clone();
    let before = {
        drop(cx.poller());
        open_fds()
    };
    for round in 0..10 {
        let mut harnesses: Vec<_> =
            (0..3).map(|_| OpHarness::with_capacity(cx, 2 * BLOCKS)).collect();
        // The first is the default.
        let max = [16, 4, 1][round % 3];
        for ops in &mut harnesses {
            if max < 16 {
                ops.harness.poller.set_max_threads(max);
            }
            disk.renew();
            let key = ops.add(disk.file.clone());
            for at in 0..BLOCKS {
                ops.submit(Op::read_at(key, vec![], BLOCK, (at * BLOCK) as u64), at);
                ops.submit(Op::open(disk.directory.0.join("file"), &read), BLOCKS + at);
                expect_few_threads(3 * max);
            }
        }
        if round % 2 == 0 {
            for ops in &mut harnesses {
                let done = ops.collect(2 * BLOCKS);
                assert!(done.iter().all(|done| done.result.is_ok()), "{done:?}");
            }
            expect_few_threads(3 * max);
        }
        drop(harnesses);
        let started = Instant::now();
        while disk_threads() != [0; 2] {
            assert!(started.elapsed() < LONG, "{:?} threads have not exited", disk_threads());
            std::thread::yield_now();
        }
        assert_eq!(open_fds(), before, "a descriptor was left open, round {round}");
    }
}

pub(super) fn c4_file_stays_open_until_disk_completes(cx: &TestContext) {
    let disk = DiskFixture::new();
    disk.renew();
    let mut ops = OpHarness::with_capacity(cx, BLOCKS);
    let file = Arc::new(ok(disk.file.try_clone()));
    let key = ops.add(file.clone());
    for at in 0..BLOCKS {
        ops.submit(disk.op(key, at), at);
    }
    assert!(Arc::strong_count(&file) > 1, "the poller must hold the file");
    let fd = std::os::fd::AsRawFd::as_raw_fd(&*file);
    drop(file);
    let path = ok(std::fs::read_link(format!("/proc/self/fd/{fd}")));
    assert_eq!(path, disk.directory.0.join("file"), "the descriptor was closed");
    for done in ops.collect(BLOCKS) {
        assert!(!disk.check(done, |_| false), "the operation was not cancelled");
    }
    ops.harness.deregister(key);
    let gone = std::fs::read_link(format!("/proc/self/fd/{fd}"));
    assert_ne!(gone.ok(), Some(disk.directory.0.join("file")), "deregistered, but not closed");
}

/// Writes, syncs, reopens and reads one file, each after the operation before has completed.
pub(super) fn f2_written_data_is_synced_and_read_back(cx: &TestContext) {
    let directory = TempDir::new();
    let path = directory.0.join("file");
    let mut ops = OpHarness::new(cx);
    let mut expected = Vec::new();
    for round in 0..5_u8 {
        let both = OpenOptions::new().read(true).write(true).create(true).clone();
        let Ok(Outcome::Opened { file }) = ops.run(Op::open(&path, &both)).result else {
            panic!("open failed")
        };
        let key = ops.add(Arc::new(file));
        let new = vec![round; 10_000];
        let done = ops.run(Op::write_at(key, new.clone(), .., expected.len() as u64));
        assert_eq!(bytes(done), (10_000, new.clone()));
        expected.extend(new);
        let done = ops.run(if round % 2 == 0 { Op::fsync(key) } else { Op::fdatasync(key) });
        assert_eq!(bytes(done), (0, vec![]), "fsync moves no bytes");
        let done = ops.run(Op::read_at(key, vec![], 1 << 20, 0));
        assert!(*done.buf == *expected, "{done:?}");
        ops.harness.deregister(key);
    }
}
