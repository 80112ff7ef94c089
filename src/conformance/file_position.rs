//! Clauses C2 and C3 for reads and writes at the file position, which all descriptors of an open
//! file description share.

use super::disk::{Rng, file_of, forget};
use super::op_harness::*;
use super::util::*;
use crate::op::Op;
use crate::sys::staging;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::fs::File;
use std::io::{ErrorKind, Read, Seek, Write};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Lowers the soft `RLIMIT_FSIZE`, or restores it.
fn limit_file_size(limit: Option<u64>) {
    let (_, hard) = ok(getrlimit(Resource::RLIMIT_FSIZE));
    ok(setrlimit(Resource::RLIMIT_FSIZE, limit.unwrap_or(hard), hard));
}

fn position(file: &Arc<File>) -> u64 {
    ok((&**file).stream_position())
}

pub(super) fn c2_write_cut_short_moves_the_position(cx: &TestContext) {
    const LIMIT: usize = 8000;
    ok(staging::ignore(libc::SIGXFSZ));
    let directory = TempDir::new();
    let content = Rng(8).bytes(12_000);
    for is_lifted in [true, false] {
        let file = file_of(&directory.0.join("file"), b"");
        let mut ops = OpHarness::new(cx);
        let key = ops.add(file.clone());
        limit_file_size(Some(LIMIT as u64));
        let done = ops.run(Op::write(key, content.clone(), ..));
        assert_eq!(bytes(done).0, LIMIT, "written up to the limit");
        assert_eq!(position(&file), LIMIT as u64, "the position is after the bytes written");
        if is_lifted {
            limit_file_size(None);
        }
        let done = ops.run(Op::write(key, content.clone(), LIMIT..));
        if is_lifted {
            assert_eq!(bytes(done).0, content.len() - LIMIT, "the rest");
        } else {
            assert_eq!(errno(&done), libc::EFBIG);
        }
        limit_file_size(None);
        let end = if is_lifted { content.len() } else { LIMIT };
        assert_eq!(position(&file), end as u64, "the limit was lifted: {is_lifted}");
        let written = ok(std::fs::read(directory.0.join("file")));
        assert!(written == content[..end], "{} bytes differ from those submitted", written.len());
    }
}

/// Another thread writes records by plain calls on a duplicate descriptor.
pub(super) fn c3_writes_share_the_position_with_a_duplicate(cx: &TestContext) {
    const RECORD: usize = 3000;
    const COUNT: usize = 400;
    let directory = TempDir::new();
    let file = file_of(&directory.0.join("file"), b"");
    let mut duplicate = ok(file.try_clone());
    let mut ops = OpHarness::new(cx);
    let key = ops.add(file.clone());
    let writer = std::thread::spawn(move || {
        for at in 0..COUNT {
            assert_eq!(ok(duplicate.write(&[at as u8 | 1; RECORD])), RECORD);
        }
    });
    for at in 0..COUNT {
        let done = ops.run(Op::write(key, vec![at as u8 & !1; RECORD], ..));
        assert_eq!(bytes(done).0, RECORD);
    }
    writer.join().unwrap_or_else(|_| panic!("the writing thread failed"));
    let written = ok(std::fs::read(directory.0.join("file")));
    assert_eq!(written.len(), 2 * COUNT * RECORD, "records overlap");
    assert_eq!(position(&file), written.len() as u64);
    for (at, record) in written.chunks(RECORD).enumerate() {
        assert!(record.iter().all(|&byte| byte == record[0]), "record {at} is torn");
    }
}

/// Another thread reads records by plain calls on a duplicate descriptor. Some pages of the records
/// are cached, others not.
pub(super) fn c3_reads_share_the_position_with_a_duplicate(cx: &TestContext) {
    const PAGE: usize = 4096;
    const RECORD: usize = 3 * PAGE / 2;
    const COUNT: usize = 600;
    let directory = TempDir::new();
    let content: Vec<u8> = (0..COUNT).flat_map(|at| [at as u8; RECORD]).collect();
    let file = file_of(&directory.0.join("file"), &content);
    forget(&file, 0, content.len());
    let mut rng = Rng(77);
    for page in 0..content.len() / PAGE {
        if rng.below(2) == 0 {
            ok(file.read_exact_at(&mut [0], (page * PAGE) as u64));
        }
    }
    let mut duplicate = ok(file.try_clone());
    let is_stopped = Arc::new(AtomicBool::new(false));
    let reader = std::thread::spawn({
        let is_stopped = is_stopped.clone();
        move || {
            let mut records = Vec::new();
            while !is_stopped.load(Ordering::Relaxed) {
                let mut record = vec![0; RECORD];
                match duplicate.read(&mut record) {
                    Ok(0) => break,
                    Ok(count) => record.truncate(count),
                    Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                    Err(error) => panic!("read: {error}"),
                }
                records.push(record);
            }
            records
        }
    });
    let mut ops = OpHarness::new(cx);
    let key = ops.add(file);
    let mut records = Vec::new();
    loop {
        let (count, record) = bytes(ops.run(Op::read(key, Vec::new(), RECORD)));
        if count == 0 {
            break;
        }
        records.push(record);
    }
    is_stopped.store(true, Ordering::Relaxed);
    records.extend(reader.join().unwrap_or_else(|_| panic!("the reading thread failed")));
    for record in &records {
        let is_whole = record.len() == RECORD && record.iter().all(|&byte| byte == record[0]);
        assert!(is_whole, "a read of {} bytes, not one record", record.len());
    }
    let mut tags: Vec<u8> = records.iter().map(|record| record[0]).collect();
    tags.sort_unstable();
    let mut expected: Vec<u8> = (0..COUNT).map(|at| at as u8).collect();
    expected.sort_unstable();
    assert!(tags == expected, "each record was read once, {} of {COUNT}", tags.len());
}
