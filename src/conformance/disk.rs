//! Clauses C2, C3, C5 and M1 for reads and writes at an offset of a file, and for fsync.

use super::op_harness::*;
use super::util::*;
use crate::event::Mode;
use crate::op::{Completion, Message, Op};
use crate::sys::buf::Buf;
use crate::sys::pool::{BufferPool, PoolBuf};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use std::fs::File;
use std::io::ErrorKind::{InvalidInput, OutOfMemory};
use std::io::{Seek, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

/// A deterministic pseudo-random generator (xorshift).
pub(super) struct Rng(pub(super) u64);

impl Rng {
    pub(super) fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }

    pub(super) fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.below(256) as u8).collect()
    }
}

/// Creates a file with these bytes, open for reading and writing.
pub(super) fn file_of(path: &Path, bytes: &[u8]) -> Arc<File> {
    let mut options = File::options();
    let mut file = ok(options.read(true).write(true).create(true).truncate(true).open(path));
    ok(file.write_all(bytes));
    ok(file.rewind());
    Arc::new(file)
}

/// Drops a range of a file from the page cache, and disables read-ahead.
pub(super) fn forget(file: &File, from: usize, length: usize) {
    // Dirty pages cannot be dropped.
    ok(file.sync_all());
    ok(posix_fadvise(file, 0, 0, PosixFadviseAdvice::POSIX_FADV_RANDOM));
    let advice = PosixFadviseAdvice::POSIX_FADV_DONTNEED;
    ok(posix_fadvise(file, from as _, length as _, advice));
}

/// Takes a buffer from a pool and writes `bytes` to it.
pub(super) fn pool_buf(pool: &BufferPool, bytes: &[u8]) -> PoolBuf {
    let mut buf = pool.take().unwrap_or_else(|| panic!("the pool is empty"));
    assert_eq!(ok(buf.write(bytes)), bytes.len());
    buf
}

pub(super) fn pool(size: usize, limit: usize) -> BufferPool {
    ok(BufferPool::new(size, limit))
}

/// Returns the count of bytes moved, or the error number.
pub(super) fn count_of(done: &Completion) -> Result<usize, i32> {
    match &done.result {
        Ok(_) => Ok(done.transferred),
        Err(_) => {
            assert_eq!(done.transferred, 0, "{done:?}");
            Err(errno(done))
        }
    }
}

pub(super) fn plain<T>(answer: std::io::Result<T>) -> Result<T, i32> {
    answer.map_err(|error| error.raw_os_error().unwrap_or_else(|| panic!("{error}")))
}

/// Reads by the plain call; returns the count and the bytes.
pub(super) fn read_directly(file: &File, max: usize, offset: u64) -> (Result<usize, i32>, Vec<u8>) {
    let mut bytes = vec![0; max];
    let count = plain(file.read_at(&mut bytes, offset));
    bytes.truncate(count.unwrap_or(0));
    (count, bytes)
}

pub(super) fn c2_read_at_and_write_at_match_calls(cx: &TestContext) {
    const MAX: usize = 200_000;
    let directory = TempDir::new();
    let [ours, twin] = ["ours", "twin"].map(|name| file_of(&directory.0.join(name), b"begun"));
    let (mut ops, mut rng) = (OpHarness::new(cx), Rng(4711));
    let key = ops.add(ours);
    for round in 0..300 {
        // Most offsets are close together, some far beyond the end.
        let offset = rng.below(if round % 10 == 0 { 3_000_000 } else { MAX });
        let size = rng.below([9, 5000, MAX][round % 3]);
        if rng.below(2) == 0 {
            let expected = read_directly(&twin, size + 1, offset as u64);
            let before = rng.bytes(round % 4);
            let done = ops.run(Op::read_at(key, before.clone(), size + 1, offset as u64));
            let given = (count_of(&done), done.buf.into_vec());
            let all = [before, expected.1].concat();
            assert!(given == (expected.0, all), "read {size} + 1 at {offset}: {:?}", given.0);
        } else {
            let bytes = rng.bytes(size);
            let start = rng.below(size + 1);
            let expected = plain(twin.write_at(&bytes[start..], offset as u64));
            let done = ops.run(Op::write_at(key, bytes.clone(), start.., offset as u64));
            assert_eq!(count_of(&done), expected, "write {start}..{size} at {offset}");
            assert!(*done.buf == *bytes, "the buffer was changed");
        }
    }
    let [ours, twin] = ["ours", "twin"].map(|name| ok(std::fs::read(directory.0.join(name))));
    assert!(ours == twin, "the files are {} and {} bytes", ours.len(), twin.len());
    ops.expect_all_done("every operation has completed");
}

pub(super) fn c2_empty_write_at_changes_nothing(cx: &TestContext) {
    let directory = TempDir::new();
    let path = directory.0.join("file");
    let mut ops = OpHarness::new(cx);
    let key = ops.add(file_of(&path, b"content"));
    for offset in [0, 3, 7, 5000, i64::MAX as u64] {
        let twin = file_of(&directory.0.join("twin"), b"content");
        let expected = plain(twin.write_at(&[], offset));
        let done = ops.run(Op::write_at(key, vec![1, 2], 1..1, offset));
        assert_eq!(count_of(&done), expected, "at {offset}");
        let several = [Buf::None, Buf::Vec(Vec::new()), "".into()];
        let done = ops.run(Op::write_at_vectored(key, several, offset));
        assert_eq!(count_of(&done), expected, "several at {offset}");
        assert_eq!(done.buf.into_many().len(), 3);
        let done = ops.run(Op::write_at_vectored(key, [], offset));
        assert_eq!(count_of(&done), expected, "no buffer at {offset}");
    }
    assert_eq!(ok(std::fs::read(&path)), b"content", "the file was changed");
}

/// A cached prefix must not cut the read short; pread(2) reads it all.
pub(super) fn c2_partly_cached_reads_are_complete(cx: &TestContext) {
    const SIZE: usize = 512 << 10;
    let directory = TempDir::new();
    let content = Rng(31).bytes(SIZE);
    let file = file_of(&directory.0.join("file"), &content);
    let pool = pool(SIZE, 1);
    let (half, quarter) = (SIZE / 2, SIZE / 4);
    let gaps = [(0, SIZE), (0, half), (half, half), (quarter, half), (4096, SIZE - 4096)];
    let mut ops = OpHarness::new(cx);
    let key = ops.add(file.clone());
    for (from, length) in gaps {
        let prepare = || {
            assert_eq!(ok(std::fs::read(directory.0.join("file"))).len(), SIZE);
            forget(&file, from, length);
        };
        let why = format!("{length} bytes from {from} not cached");
        prepare();
        let (count, read) = bytes(ops.run(Op::read_at(key, vec![7], SIZE, 0)));
        assert!(count == SIZE && read[1..] == content, "{why}: {count}");
        prepare();
        let buf = ops.run(Op::read_at(key, pool_buf(&pool, b""), SIZE, 0)).buf;
        assert!(*buf == *content, "a buffer of a pool, {why}: {}", buf.len());
        prepare();
        let parts = [quarter, 1, half].map(|max| (Buf::Vec(Vec::new()), max));
        let done = ops.run(Op::read_at_vectored(key, parts, 0));
        let all = quarter + 1 + half;
        let is_right = done.transferred == all && done.buf.into_vec() == content[..all];
        assert!(is_right, "several buffers, {why}");
        prepare();
        let done = ops.run(Op::read(key, Vec::new(), SIZE + 1));
        let is_right = done.transferred == SIZE && *done.buf == *content;
        assert!(is_right, "at the file position, {why}: {}", done.transferred);
        ok((&*file).rewind());
    }
}

pub(super) fn c3_operations_at_offsets_are_unordered(cx: &TestContext) {
    const BLOCK: usize = 4096;
    const BLOCKS: usize = 300;
    let directory = TempDir::new();
    let path = directory.0.join("file");
    let file = file_of(&path, b"");
    let mut ops = OpHarness::with_capacity(cx, 2 * BLOCKS);
    let key = ops.add(file.clone());
    let content = Rng(5).bytes(BLOCK * BLOCKS);
    let blocks: Vec<_> = content.chunks(BLOCK).enumerate().collect();
    for (at, block) in blocks.iter().rev() {
        ops.submit(Op::write_at(key, block.to_vec(), .., (at * BLOCK) as u64), *at);
    }
    let done = ops.collect(BLOCKS);
    assert!(done.iter().all(|done| count_of(done) == Ok(BLOCK)), "{done:?}");
    assert!(ok(std::fs::read(&path)) == content, "the blocks are misplaced");
    for is_cold in [false, true] {
        if is_cold {
            forget(&file, 0, content.len());
        }
        for (at, _) in &blocks {
            ops.submit(Op::read_at(key, vec![1], BLOCK, (at * BLOCK) as u64), *at);
            ops.submit(Op::read(key, vec![], BLOCK), BLOCKS + at);
        }
        let (mut in_order, mut unordered) = (Vec::new(), 0);
        for done in ops.collect(2 * BLOCKS) {
            let token = done.token.0;
            let (_, read) = bytes(done);
            let at = token % BLOCKS;
            if token < BLOCKS {
                assert!(read[1..] == *blocks[at].1, "block {at}");
                unordered += 1;
            } else {
                assert!(read == blocks[at].1, "block {at}, at the file position");
                in_order.push(at);
            }
        }
        assert!(in_order.is_sorted() && unordered == BLOCKS, "{in_order:?}, {unordered}");
        assert_eq!(ok((&*file).stream_position()), content.len() as u64);
        ok((&*file).rewind());
    }
    ops.expect_all_done("writes and reads");
}

pub(super) fn m1_operations_at_offset_use_no_direction(cx: &TestContext) {
    let directory = TempDir::new();
    let path = directory.0.join("file");
    let file = file_of(&path, b"content");
    let mut ops = OpHarness::new(cx);
    let key = ops.harness.register(file.clone(), 5, BOTH, Mode::OneShot);
    for (token, op) in [Op::read(key, vec![], 1), Op::write(key, "x", ..)].into_iter().enumerate() {
        let why = ops.rejected(op).1.kind();
        assert_eq!(why, InvalidInput, "operation {token} uses a direction");
    }
    ops.submit(Op::read_at(key, vec![], 4, 3), 1);
    ops.submit(Op::write_at(key, "C", .., 0), 2);
    ops.submit(Op::fsync(key), 3);
    ops.submit(Op::fdatasync(key), 4);
    ops.harness.modify(key, 5, READ, Mode::Level);
    ops.harness.modify(key, 5, BOTH, Mode::Level);
    for done in ops.collect(4) {
        assert!(done.result.is_ok(), "{done:?}");
        assert!(done.token.0 != 1 || *done.buf == *b"tent", "{done:?}");
    }
    assert_eq!(ops.harness.ready_now().len(), 1, "the file is reported");
    assert_eq!(ok(std::fs::read(&path)), b"Content");
}

pub(super) fn c5_read_at_appends_to_buffer(cx: &TestContext) {
    let directory = TempDir::new();
    let mut ops = OpHarness::new(cx);
    let key = ops.add(file_of(&directory.0.join("file"), b"0123456789"));
    let pool = pool(8, 1);
    assert_eq!(bytes(ops.run(Op::read_at(key, b"> ".to_vec(), 3, 2))), (3, b"> 234".to_vec()));
    let done = ops.run(Op::read_at(key, pool_buf(&pool, b"> "), 6, 2));
    assert!(matches!(&done.buf, Buf::Pool(_)) && *done.buf == *b"> 234567", "{done:?}");
    drop(done);
    let done = ops.run(Op::read_at(key, pool_buf(&pool, b"> "), 6, 8));
    assert_eq!((done.transferred, &*done.buf), (2, &b"> 89"[..]), "to the end of the file");
    drop(done);
    for (max, why) in [(7, "too long"), (usize::MAX, "too long"), (0, "empty")] {
        let (buf, error) = ops.rejected(Op::read_at(key, pool_buf(&pool, b"> "), max, 0));
        assert_eq!(error.kind(), InvalidInput, "{why}: {error}");
        assert!(matches!(&buf, Buf::Pool(_)) && *buf == *b"> ", "{why}: the buffer is returned");
    }
    for buf in [Buf::None, "static".into()] {
        let (_, error) = ops.rejected(Op::read_at(key, buf, 1, 0));
        assert_eq!(error.kind(), InvalidInput, "not a receive buffer: {error}");
    }
    let (buf, error) = ops.rejected(Op::read_at(key, b"kept".to_vec(), usize::MAX, 0));
    assert_eq!((&*buf, error.kind()), (&b"kept"[..], OutOfMemory));
    let (buf, error) = ops.rejected(Op::write_at(key, pool_buf(&pool, b"abc"), 2..4, 0));
    assert_eq!((&*buf, error.kind()), (&b"abc"[..], InvalidInput));
}

pub(super) fn c5_vectored_buffers_are_used_in_order(cx: &TestContext) {
    let directory = TempDir::new();
    let path = directory.0.join("file");
    let (mut ops, mut rng) = (OpHarness::new(cx), Rng(77));
    let content = rng.bytes(30_000);
    let key = ops.add(file_of(&path, &content));
    let pool = pool(4096, 8);
    for offset in [0, 1, 9_999, 27_000, 29_999, 30_000, 40_000] {
        let mut rest = &content[content.len().min(offset)..];
        let (mut parts, mut expected, mut total) = (Vec::new(), Vec::new(), 0);
        for at in 0..12 {
            let before = rng.bytes(at % 3);
            let max = if at % 4 == 1 { 0 } else { rng.below(3000) };
            let buf: Buf = match at % 2 {
                0 if at < 8 => pool_buf(&pool, &before).into(),
                _ => before.clone().into(),
            };
            parts.push((buf, max));
            let (mine, others) = rest.split_at(max.min(rest.len()));
            expected.push([&before[..], mine].concat());
            (rest, total) = (others, total + mine.len());
        }
        // One more byte, even at the end of the file.
        parts.push((Vec::new().into(), 1));
        let (last, _) = rest.split_at(rest.len().min(1));
        expected.push(last.to_vec());
        total += last.len();
        let done = ops.run(Op::read_at_vectored(key, parts, offset as u64));
        assert_eq!(count_of(&done), Ok(total), "at {offset}");
        let bufs = done.buf.into_many();
        let is_right = bufs.iter().map(|buf| &**buf).eq(expected.iter().map(|bytes| &**bytes));
        assert!(is_right, "at {offset}: {bufs:?}");
        // Write the buffers back.
        let whole = expected.concat();
        let done = ops.run(Op::write_at_vectored(key, bufs, 100));
        assert_eq!(count_of(&done), Ok(whole.len()), "back");
        assert!(ok(std::fs::read(&path))[100..100 + whole.len()] == whole, "back");
        ok(std::fs::write(&path, &content));
    }
    let parts = ["sta".into(), Buf::None, b"Vec".to_vec().into(), pool_buf(&pool, b"Pool").into()];
    let done = ops.run(Op::write_at_vectored(key, parts, 29_998));
    assert_eq!(count_of(&done), Ok(10));
    assert_eq!(ok(std::fs::read(&path))[29_998..], *b"staVecPool");
}

pub(super) fn several(count: usize) -> Vec<Buf> {
    (0..count).map(|at| vec![at as u8].into()).collect()
}

pub(super) fn c5_invalid_vectored_buffers_are_refused(cx: &TestContext) {
    let directory = TempDir::new();
    let path = directory.0.join("file");
    let mut ops = OpHarness::new(cx);
    let key = ops.add(file_of(&path, b""));
    let done = ops.run(Op::write_at_vectored(key, several(1024), 0));
    assert_eq!(count_of(&done), Ok(1024));
    let content = ok(std::fs::read(&path));
    assert!(
        content.iter().enumerate().all(|(at, &byte)| byte == at as u8),
        "the order of the buffers"
    );
    let each = several(1024).into_iter().map(|buf| (buf, 1));
    let done = ops.run(Op::read_at_vectored(key, each, 0));
    assert_eq!(count_of(&done), Ok(1024));
    let bufs = done.buf.into_many();
    assert!(bufs.iter().enumerate().all(|(at, buf)| **buf == [at as u8; 2]), "{bufs:?}");
    let (local, _peer) = stream();
    let socket = ops.add(local);
    let many = || Buf::Many(several(3).into());
    let nested = || [Buf::Vec(vec![1]), many()];
    let refused = [
        ("1025 to write", Op::write_at_vectored(key, several(1025), 0), 1025),
        ("1025", Op::read_at_vectored(key, several(1025).into_iter().map(|b| (b, 1)), 0), 1025),
        ("nested to write", Op::write_at_vectored(key, nested(), 0), 2),
        ("nested", Op::read_at_vectored(key, nested().map(|buf| (buf, 1)), 0), 2),
        ("nothing", Op::read_at_vectored(key, several(2).into_iter().map(|b| (b, 0)), 0), 2),
        ("no buffer", Op::read_at_vectored(key, [], 0), 0),
        ("not for receiving", Op::read_at_vectored(key, [("static".into(), 1)], 0), 1),
        ("read_at", Op::read_at(key, many(), 3, 0), 3),
        ("write_at", Op::write_at(key, many(), .., 0), 3),
        ("a part of write_at", Op::write_at(key, many(), 1..2, 0), 3),
        ("read", Op::read(key, many(), 3), 3),
        ("write", Op::write(key, many(), ..), 3),
        ("recv", Op::recv(socket, many(), 3), 3),
        ("recv_msg", Op::recv_msg(socket, many(), 3), 3),
        ("send", Op::send(socket, many(), ..), 3),
        ("send_all", Op::send_all(socket, many(), ..), 3),
        ("send_msg", Op::send_msg(socket, many(), .., Message::new()), 3),
    ];
    for (what, op, count) in refused {
        let (buf, error) = ops.rejected(op);
        assert_eq!(error.kind(), InvalidInput, "{what}: {error}");
        assert_eq!(buf.into_many().len(), count, "{what}: the count of returned buffers");
    }
    assert!(ok(std::fs::read(&path)) == content, "the file was changed");
}
