//! Clause D1 for disk reads in flight when the poller is dropped.

use super::disk::forget;
use super::op_harness::*;
use super::util::*;
use crate::event::{Interest, Mode, Token};
use crate::key::Key;
use crate::op::Op;
use crate::sys::buf::Buf;
use crate::sys::io_call::leaked_buffers;
use crate::sys::pool::{BufferPool, PoolBuf};
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Size of one read, large enough to keep the disk busy for a while.
const SIZE: usize = 64 << 20;
const CONTENT: u8 = 0x5a;
/// A read that takes longer after the drop may leave its buffer with the waiting thread (D1).
const DROP_TIMEOUT: Duration = Duration::from_secs(1);
/// Rounds for each backend, and for each variant of a backend.
const DROPS: usize = 200;
const FEWER_DROPS: usize = 20;
/// Count of rounds that differ from each other.
const KINDS: usize = 8;

fn file(directory: &TempDir, flags: i32) -> Option<Arc<File>> {
    let path = directory.0.join("file");
    let mut new = ok(File::create(&path));
    let part = vec![CONTENT; 1 << 20];
    (0..SIZE / part.len()).for_each(|_| ok(new.write_all(&part)));
    ok(new.sync_all());
    File::options().read(true).custom_flags(flags).open(&path).ok().map(Arc::new)
}

/// A pool's memory stays allocated after a buffer is returned. A buffer taken again shows later
/// writes to it.
struct Canary {
    pool: BufferPool,
    /// Fills buffers with zeroes.
    ops: OpHarness,
    zeroes: Key,
    /// The buffer of the previous round, which must not change any more.
    last: Option<PoolBuf>,
}

impl Canary {
    fn new(cx: &TestContext) -> Self {
        let mut ops = OpHarness::new(cx);
        let zeroes = ops.add(Arc::new(ok(File::open("/dev/zero"))));
        Canary { pool: ok(BufferPool::new(SIZE, 2)), ops, zeroes, last: None }
    }

    fn take(&self, round: usize) -> PoolBuf {
        let buf = self.pool.take();
        buf.unwrap_or_else(|| panic!("a buffer was not returned after drop {round}"))
    }

    /// Waits until the pool thread of a slow disk has released the file and the buffer, in either
    /// order.
    fn wait_until_released(&self, file: &Arc<File>) {
        let started = Instant::now();
        let kept = usize::from(self.last.is_some());
        while Arc::strong_count(file) > 1 || self.pool.allocated() - self.pool.available() > kept {
            assert!(started.elapsed() < LONG, "the file or the buffer is still held");
            std::thread::yield_now();
        }
    }

    /// Checks the buffer of the previous round, after the disk had a round's time to write to it,
    /// and fills this round's with zeroes.
    fn expect_untouched(&mut self, round: usize) {
        let mut buf = self.take(round);
        if let Some(last) = self.last.take() {
            let touched = last.chunks(512).filter(|part| part[0] != 0 || part[511] != 0);
            assert_eq!(touched.count(), 0, "written after drop {}", round - 1);
        }
        assert_eq!(buf.len(), 0, "a buffer from the pool is empty");
        // A device may return a part if another thread is to run.
        while buf.len() < SIZE {
            let room = SIZE - buf.len();
            let done = self.ops.run(Op::read_at(self.zeroes, buf, room, 0));
            assert!(done.transferred > 0, "/dev/zero has no end");
            let Buf::Pool(back) = done.buf else { panic!("the buffer was not returned") };
            buf = back;
        }
        self.last = Some(buf);
    }
}

fn drop_while_reading(cx: &TestContext, file: &Arc<File>, prepare: impl Fn()) {
    let mut canary = Canary::new(cx);
    let before = open_fds();
    let mut in_flight = 0;
    let rounds = if cx.is_builtin_backend() { DROPS } else { FEWER_DROPS };
    for round in cx.rounds(rounds, KINDS) {
        prepare();
        let mut harness = cx.harness(16);
        let registered =
            harness.poller.register(file.clone(), Token(0), Interest::empty(), Mode::Edge);
        let key = registered.unwrap_or_else(|error| panic!("register: {error}"));
        let op = match round % 2 {
            0 => Op::read_at(key, canary.take(round), SIZE, 0),
            _ => Op::read_at_vectored(key, [(canary.take(round).into(), SIZE)], 0),
        };
        let submitted = harness.poller.submit(op, Token(0));
        submitted.unwrap_or_else(|rejected| panic!("submit: {rejected}"));
        if round % 4 > 0 {
            // A thread needs a moment to start the read.
            harness.wait(Some(Duration::from_millis(round as u64 % 4 - 1)));
        }
        if round % 8 > 3 {
            harness.deregister(key);
        }
        in_flight += usize::from(harness.events.completed() == 0);
        let (dropped, leaked) = (Instant::now(), leaked_buffers());
        drop(harness);
        let is_in_time = dropped.elapsed() < DROP_TIMEOUT;
        if is_in_time {
            assert_eq!(
                Arc::strong_count(file),
                1,
                "the poller still holds the file, round {round}"
            );
            assert_eq!(leaked_buffers(), leaked, "the read ended in time, round {round}");
        }
        if leaked_buffers() > leaked {
            return cx.note(&format!("the disk was too slow for more than {round} rounds"));
        }
        if !is_in_time {
            canary.wait_until_released(file);
        }
        canary.expect_untouched(round);
    }
    assert!(in_flight > 0, "every read completed before the drop");
    assert_eq!(open_fds(), before, "a descriptor was left open");
}

pub(super) fn d1_direct_read_does_not_outlive_poller(cx: &TestContext) {
    let directory = TempDir::new();
    let Some(file) = file(&directory, libc::O_DIRECT) else {
        cx.skip("the temporary directory is on a file system without O_DIRECT")
    };
    drop_while_reading(cx, &file, || {});
}

pub(super) fn d1_cold_read_does_not_outlive_poller(cx: &TestContext) {
    let directory = TempDir::new();
    let file = file(&directory, 0).unwrap_or_else(|| panic!("open failed"));
    drop_while_reading(cx, &file, || forget(&file, 0, SIZE));
}
