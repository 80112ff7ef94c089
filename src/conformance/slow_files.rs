//! Files on a slow server: only operations on them wait for it.

use super::fuse::{Fuse, contents};
use super::op_harness::{OpHarness, errno, ok};
use super::util::{TempDir, TestContext, put, stream};
use crate::key::Key;
use crate::op::{Completion, Op, OpenOptions};
use crate::sys::buf::Buf;
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;
use std::time::Duration;

/// An operation on a file.
type MakeOp = fn(Key) -> Op;

const READS: [MakeOp; 3] = [
    |key| Op::read_at(key, vec![], 100, 10),
    |key| Op::read_at_vectored(key, [(vec![].into(), 60), (vec![].into(), 40)], 10),
    |key| Op::read(key, vec![], 100),
];
const WRITES: [MakeOp; 5] = [
    |key| Op::write_at(key, vec![7; 100], .., 10),
    |key| Op::write_at_vectored(key, [vec![7; 60].into(), vec![7; 40].into()], 10),
    |key| Op::write(key, vec![7; 100], ..),
    Op::fsync,
    Op::fdatasync,
];

/// `register`, `submit` and waits do not wait for the server, whatever the flags of the file.
pub(super) fn c7_slow_file_delays_no_other_operation(cx: &TestContext) {
    drop(cx.poller());
    let fuse = Fuse::mount().unwrap_or_else(|why| cx.skip(why));
    let all = READS.iter().map(|op| (op, true)).chain(WRITES.iter().map(|op| (op, false)));
    for (at, (op, reads)) in all.enumerate() {
        for (also, flags) in [(false, 0), (false, libc::O_NONBLOCK), (true, libc::O_NONBLOCK)] {
            let mut options = File::options();
            options.read(reads || also).write(!reads || also).custom_flags(flags);
            let file = ok(options.open(fuse.path("file")));
            let why = format!("operation {at}, reads: {reads}, both: {also}, flags {flags:o}");
            let done = run_slowly(cx, &fuse, file, *op, &why);
            assert!(done.result.is_ok(), "{why}: {:?}", done.result);
            if reads {
                let bytes: Vec<u8> = match &done.buf {
                    Buf::Many(bufs) => bufs.iter().flat_map(|buf| buf.to_vec()).collect(),
                    buf => buf.to_vec(),
                };
                let from = if at == 2 { 0 } else { 10 };
                assert_eq!(bytes, contents(from, 100), "{why}");
            }
        }
    }
}

/// More operations hang on one mount than there are threads.
pub(super) fn c7_hung_mount_leaves_threads_to_other_files(cx: &TestContext) {
    const HUNG: usize = 40;
    drop(cx.poller());
    let fuse = Fuse::mount().unwrap_or_else(|why| cx.skip(why));
    let path = fuse.path("file");
    let directory = TempDir::new();
    let other = directory.0.join("other");
    ok(std::fs::write(&other, "other"));
    for max in [None, Some(2), Some(5)] {
        let mut ops = OpHarness::new(cx);
        max.into_iter().for_each(|max| ops.harness.poller.set_max_threads(max));
        // To open the file drops the pages that earlier reads have left in the cache.
        let key = ops.add(Arc::new(ok(File::open(&path))));
        let key_of_other = ops.add(Arc::new(ok(File::options().write(true).open(&other))));
        fuse.hold();
        // Alternate pages, so that reads have requests of their own.
        let read = |at: usize| Op::read_at(key, vec![], 1, (at % 2) as u64 * 4096);
        let ids: Vec<_> = (0..HUNG).map(|at| ops.submit(read(at), at)).collect();
        let open = |_| Op::open(&path, OpenOptions::new().read(true));
        let opens: Vec<_> = (0..HUNG).map(|at| ops.submit(open(at), HUNG + at)).collect();
        fuse.wait_until_held();
        let why = format!("at most {max:?} threads");
        for round in 0..3 {
            assert!(ops.run(Op::write(key_of_other, b"other".to_vec(), ..)).result.is_ok());
            assert!(ops.run(Op::fsync(key_of_other)).result.is_ok(), "{why}, round {round}");
            let opened = ops.run(Op::open(&other, OpenOptions::new().read(true).write(true)));
            assert!(opened.result.is_ok(), "{why}, round {round}: {opened:?}");
        }
        // The last ones are queued for a thread.
        for (id, token) in [(ids[HUNG - 1], HUNG - 1), (opens[HUNG - 1], 2 * HUNG - 1)] {
            ops.cancel(id);
            let done = ops.next();
            assert_eq!((done.token.0, errno(&done)), (token, libc::ECANCELED), "{why}");
        }
        ops.submit(read(0).deadline(Duration::ZERO), usize::MAX);
        let done = ops.next();
        assert_eq!((done.token.0, done.transferred), (usize::MAX, 0), "{why}");
        assert_eq!(done.result.err().map(|error| error.kind()), Some(ErrorKind::TimedOut));
        fuse.release();
        let done = ops.collect(2 * HUNG - 2);
        assert!(done.iter().all(|done| done.result.is_ok()), "{why}: {done:?}");
    }
}

/// Runs an operation while the server does not answer, and other operations meanwhile.
fn run_slowly(cx: &TestContext, fuse: &Fuse, file: File, op: MakeOp, why: &str) -> Completion {
    let mut ops = OpHarness::new(cx);
    let (local, peer) = stream();
    let stream = ops.add(local);
    fuse.hold();
    let key = ops.add(Arc::new(file));
    ops.submit(op(key), 1);
    for round in 0..3 {
        ops.submit(Op::recv(stream, vec![], 4), 2);
        ops.submit(Op::timeout(Duration::from_millis(5)), 3);
        put(&peer, b"data");
        let done = ops.collect(2);
        assert!(done.iter().all(|done| done.token.0 != 1), "{why}, round {round}: {done:?}");
        assert!(done.iter().all(|done| done.result.is_ok()), "{why}, round {round}: {done:?}");
    }
    // An fsync of a file without dirty pages may send no request.
    if ops.left() == 1 {
        fuse.wait_until_held();
    }
    fuse.release();
    ops.next()
}
