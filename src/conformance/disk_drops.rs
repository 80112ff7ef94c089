//! Clause D1 for reads of disks that are under way when the poller goes.

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

/// How much is read at once: the disk is at it for a while.
const SIZE: usize = 64 << 20;
const CONTENT: u8 = 0x5a;
/// What takes longer than this after the drop may stay with who waits for it (D1).
const LAST_WAIT: Duration = Duration::from_secs(1);
/// So often for each mechanism, and less often for each of its variants.
const DROPS: usize = 200;
const FEWER_DROPS: usize = 20;
/// How many rounds differ from each other, at least.
const KINDS: usize = 8;

fn file(directory: &TempDir, flags: i32) -> Option<Arc<File>> {
    let path = directory.0.join("file");
    let mut new = ok(File::create(&path));
    let part = vec![CONTENT; 1 << 20];
    (0..SIZE / part.len()).for_each(|_| ok(new.write_all(&part)));
    ok(new.sync_all());
    File::options().read(true).custom_flags(flags).open(&path).ok().map(Arc::new)
}

/// The memory of a pool stays where it is when a buffer has come home. So a buffer that is lent
/// again shows what is written to it after that.
struct Canary {
    pool: BufferPool,
    /// Fills them with zeroes.
    ops: OpHarness,
    zeroes: Key,
    /// What was read into in the round before, and must not change any more.
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
        buf.unwrap_or_else(|| panic!("after drop {round} a buffer has not come home"))
    }

    /// Waits until the thread that a slow disk keeps has let go of the file and of the buffer, in
    /// either order.
    fn until_let_go(&self, file: &Arc<File>) {
        let started = Instant::now();
        let kept = usize::from(self.last.is_some());
        while Arc::strong_count(file) > 1 || self.pool.made() - self.pool.idle() > kept {
            assert!(started.elapsed() < LONG, "no thread lets go of the file and the buffer");
            std::thread::yield_now();
        }
    }

    /// The poller has gone: the disk has had the time of another round for the buffer of the one
    /// before, and has it now for the one of this.
    fn expect_untouched(&mut self, round: usize) {
        let mut buf = self.take(round);
        if let Some(last) = self.last.take() {
            let touched = last.chunks(512).filter(|part| part[0] != 0 || part[511] != 0);
            assert_eq!(touched.count(), 0, "after drop {} it was written to", round - 1);
        }
        assert_eq!(buf.len(), 0, "a buffer that was lent is empty");
        // A device may give a part when somebody else is to run.
        while buf.len() < SIZE {
            let room = SIZE - buf.len();
            let done = self.ops.run(Op::read_at(self.zeroes, buf, room, 0));
            assert!(done.transferred > 0, "zeroes never end");
            let Buf::Pool(back) = done.buf else { panic!("the buffer comes back") };
            buf = back;
        }
        self.last = Some(buf);
    }
}

fn drop_while_reading(cx: &TestContext, file: &Arc<File>, prepare: impl Fn()) {
    let mut canary = Canary::new(cx);
    let before = open_numbers();
    let mut under_way = 0;
    let rounds = if cx.is_in_full() { DROPS } else { FEWER_DROPS };
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
            // A thread needs a moment to begin with it.
            harness.wait(Some(Duration::from_millis(round as u64 % 4 - 1)));
        }
        if round % 8 > 3 {
            harness.deregister(key);
        }
        under_way += usize::from(harness.events.completed() == 0);
        let (dropped, leaked) = (Instant::now(), leaked_buffers());
        drop(harness);
        let is_in_time = dropped.elapsed() < LAST_WAIT;
        if is_in_time {
            assert_eq!(Arc::strong_count(file), 1, "the poller has let go of it, round {round}");
            assert_eq!(leaked_buffers(), leaked, "it was over in time, round {round}");
        }
        if leaked_buffers() > leaked {
            return cx.note(&format!("the disk was too slow for more than {round} rounds"));
        }
        if !is_in_time {
            canary.until_let_go(file);
        }
        canary.expect_untouched(round);
    }
    assert!(under_way > 0, "all were done before the drop");
    assert_eq!(open_numbers(), before, "no number is left open");
}

pub(super) fn d1_no_direct_read_outlives_the_poller(cx: &TestContext) {
    let directory = TempDir::new();
    let Some(file) = file(&directory, libc::O_DIRECT) else {
        cx.skip("the temporary directory is on a file system without O_DIRECT")
    };
    drop_while_reading(cx, &file, || {});
}

pub(super) fn d1_no_cold_read_outlives_the_poller(cx: &TestContext) {
    let directory = TempDir::new();
    let file = file(&directory, 0).unwrap_or_else(|| panic!("it can be read"));
    drop_while_reading(cx, &file, || forget(&file, 0, SIZE));
}
