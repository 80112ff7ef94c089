//! Calls on files with a position: those answered from memory, and those for a thread.

use super::*;
use crate::sys::MAX_TRANSFER;
use std::fs::File;
use std::os::unix::fs::FileExt;
use tempfile::{NamedTempFile, TempPath};

/// A file and its name, which the value removes.
fn named(bytes: &[u8]) -> (TempPath, File) {
    // The program's folder is usually on a disk; the temporary one may be in memory.
    let this = std::env::current_exe().expect("a running program has a path");
    let made = NamedTempFile::new_in(this.parent().expect("programs are in folders"));
    let (file, path) = made.expect("there is room").into_parts();
    std::fs::write(&path, bytes).expect("there is room");
    (path, file)
}

fn bytes(count: usize) -> Vec<u8> {
    (0..count).map(|at| (at ^ at >> 8) as u8).collect()
}

fn at(fd: &impl AsFd, call: Call, buf: impl Into<Buf>, part: Transfer<'_>) -> IoCall {
    IoCall::with(Some(fd.as_fd()), call, buf.into(), part, CallArgs::Nothing).expect("in order")
}

/// Executes a call as an operation does: a thread makes it if it would block.
fn finish(io_call: &mut IoCall, io_mode: &mut FdIoMode) -> io::Result<CallResult> {
    match io_call.attempt(io_mode) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => io_call.run_blocking(),
        done => done,
    }
}

#[test]
fn read_at_keeps_the_position() {
    let (_named, mut file) = named(&bytes(5000));
    let mut mode = io_mode(&file);
    for (offset, most, expected) in
        [(0, 100, 100), (4990, 100, 10), (5000, 9, 0), (99_999, 9, 0), (17, 4983, 4983)]
    {
        let mut read = at(&file, Call::ReadAt(offset), b"> ".to_vec(), Transfer::In(most));
        let Ok(CallResult::Moved(_)) = finish(&mut read, &mut mode) else { panic!("at {offset}") };
        assert_eq!(read.moved(), expected, "at {offset}");
        let buf = read.into_buf();
        let start = (offset as usize).min(5000);
        assert_eq!(buf[2..], bytes(5000)[start..start + expected]);
        assert_eq!(&buf[..2], b"> ");
    }
    let mut first = [0; 2];
    file.read_exact(&mut first).expect("two bytes");
    assert_eq!(first[..], bytes(2), "the position is still 0");
}

#[test]
fn write_at_writes_at_its_offset() {
    let (_named, file) = named(&bytes(100));
    let mut mode = io_mode(&file);
    let mut write = at(&file, Call::WriteAt(40), b"0123456789".to_vec(), Transfer::Out(2, 6));
    let Ok(CallResult::Moved(_)) = finish(&mut write, &mut mode) else { panic!("there is room") };
    assert_eq!((write.moved(), write.left()), (6, 0));
    assert_eq!(write.into_buf(), Buf::Vec(b"0123456789".to_vec()));
    let mut found = [0; 8];
    file.read_exact_at(&mut found, 39).expect("it is long enough");
    assert_eq!(found[1..7], *b"234567");
    assert_eq!([found[0], found[7]], [bytes(100)[39], bytes(100)[46]]);
}

#[test]
fn vectored_calls_use_buffers_in_order() {
    let (_named, file) = named(&bytes(64));
    let mut mode = io_mode(&file);
    let parts = [&b"abc"[..], b"", b"defgh"].map(|part| Buf::Vec(part.to_vec()));
    let mut write = at(&file, Call::WriteAt(10), Buf::Many(parts.into()), Transfer::OutOfEach);
    let Ok(CallResult::Moved(_)) = finish(&mut write, &mut mode) else { panic!("there is room") };
    assert_eq!(write.moved(), 8);
    let into = || Buf::Many([b"1".to_vec().into(), vec![].into(), vec![].into()].into());
    let each = || Transfer::IntoEach(&[4, 0, 100]);
    let mut read = at(&file, Call::ReadAt(10), into(), each());
    let Ok(CallResult::Moved(_)) = finish(&mut read, &mut mode) else { panic!("it is there") };
    assert_eq!(read.moved(), 54);
    let bufs = read.into_buf().into_many();
    assert_eq!(bufs[0][..], *b"1abcd");
    assert!(bufs[1].is_empty());
    assert_eq!(bufs[2][..4], *b"efgh");
    assert_eq!(bufs[2][4..], bytes(64)[18..]);
}

/// After a short read from memory, the rest is read where the first piece ended.
#[test]
fn later_pieces_continue_at_the_offset() {
    let (_named, file) = named(&bytes(300));
    // As if a first attempt had transferred these bytes.
    for before in [1, 99, 250] {
        let mut read = at(&file, Call::ReadAt(40), vec![], Transfer::In(400));
        assert_eq!(read.receive(&bytes(300)[40..][..before]), before);
        assert_eq!(read.offset(), Some(40 + before as u64));
        let Ok(CallResult::Moved(_)) = read.run_blocking() else { panic!("it is there") };
        assert_eq!(read.moved(), 260);
        assert_eq!(read.into_buf()[..], bytes(300)[40..]);
        let mut write = at(&file, Call::WriteAt(5), bytes(300), Transfer::Out(0, 280));
        write.note_sent(before);
        let Ok(CallResult::Moved(_)) = write.run_blocking() else { panic!("there is room") };
        assert_eq!(write.moved(), 280);
        let mut found = vec![0; 280 - before];
        file.read_exact_at(&mut found, 5 + before as u64).expect("it is there");
        assert_eq!(found, bytes(300)[before..280], "written where the first piece ended");
        file.write_all_at(&bytes(300), 0).expect("room");
    }
}

/// An error after a piece is reported by the next call, as for a plain call.
#[test]
fn bytes_before_an_error_are_reported() {
    let (_named, file) = named(&bytes(9));
    let for_reading = File::open(&_named).expect("it was made");
    let mut write = at(&for_reading, Call::WriteAt(0), bytes(9), Transfer::Out(0, 9));
    assert_eq!(write.run_blocking().expect_err("for reading").raw_os_error(), Some(libc::EBADF));
    write.note_sent(4);
    let Ok(CallResult::Moved(0)) = write.run_blocking() else { panic!("four were written") };
    assert_eq!(write.moved(), 4);
    let mut refused = at(&for_reading, Call::Write, bytes(9), Transfer::Out(0, 9));
    let error = finish(&mut refused, &mut io_mode(&for_reading)).expect_err("for reading");
    assert_eq!(error.raw_os_error(), Some(libc::EBADF));
    drop(file);
}

/// A cached file is read without a thread as far as it is cached: the kernel returns a short count
/// there.
#[test]
fn cached_read_continues_until_uncached() {
    const MUCH: usize = 4 << 20;
    let (_named, file) = named(&bytes(MUCH));
    file.sync_all().expect("there is room");
    // SAFETY: no memory is passed.
    let advise = |start: usize, count: usize| unsafe {
        let advice = libc::POSIX_FADV_DONTNEED;
        libc::posix_fadvise(file.as_raw_fd(), start as i64, count as i64, advice)
    };
    let mut mode = io_mode(&file);
    let mut probe = at(&file, Call::ReadAt(0), vec![], Transfer::In(4096));
    if kind_of(&probe.attempt(&mut mode)) == Some(io::ErrorKind::WouldBlock) {
        return println!("skipped: this file system can't tell what is cached");
    }
    let mut whole = at(&file, Call::ReadAt(0), vec![], Transfer::In(MUCH));
    let Ok(CallResult::Moved(_)) = whole.attempt(&mut mode) else {
        panic!("it has just been written")
    };
    assert!(whole.into_buf()[..] == bytes(MUCH)[..]);
    assert_eq!(advise(MUCH / 2, MUCH / 2), 0);
    let mut half = at(&file, Call::ReadAt(0), vec![], Transfer::In(MUCH));
    match half.attempt(&mut mode) {
        Err(error) => {
            assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
            // The error hides these bytes, but they were read, and the rest follows.
            assert!(half.moved() >= MUCH / 4, "{} bytes", half.moved());
            let Ok(CallResult::Moved(_)) = half.run_blocking() else { panic!("no read from disk") };
        }
        Ok(_) => println!("it was read ahead"),
    }
    assert_eq!(half.moved(), MUCH);
    assert!(half.into_buf()[..] == bytes(MUCH)[..], "every byte in place");
}

fn kind_of(result: &io::Result<CallResult>) -> Option<io::ErrorKind> {
    result.as_ref().err().map(io::Error::kind)
}

#[test]
fn reads_and_writes_move_the_position() {
    let (_named, mut file) = named(&bytes(100));
    let mut mode = io_mode(&file);
    for (call, part) in [(Call::Read, Transfer::In(30)), (Call::Write, Transfer::Out(0, 9))] {
        let is_read = call.receives();
        let buf = if is_read { vec![] } else { b"123456789".to_vec() };
        let mut io_call = at(&file, call, buf, part);
        assert_eq!(io_call.offset(), None);
        let Ok(CallResult::Moved(_)) = finish(&mut io_call, &mut mode) else { panic!("{call:?}") };
    }
    let mut rest = Vec::new();
    file.read_to_end(&mut rest).expect("it is open");
    assert_eq!(rest[..], bytes(100)[39..]);
    let mut found = [0; 9];
    file.read_exact_at(&mut found, 30).expect("it is there");
    assert_eq!(&found, b"123456789");
}

#[test]
fn sync_and_open_are_left_to_threads() {
    let (path, file) = named(b"here");
    let mut mode = io_mode(&file);
    for data_only in [false, true] {
        let mut sync = at(&file, Call::Sync { data_only }, Buf::None, Transfer::Nothing);
        assert!(sync.may_wait_for_disk(&mode));
        assert_eq!(kind(sync.attempt(&mut mode)), io::ErrorKind::WouldBlock);
        assert!(matches!(sync.run_blocking(), Ok(CallResult::Done)));
    }
    let (pipe, _writer) = pipe2(OFlag::O_CLOEXEC).expect("a pipe");
    let mut sync = at(&pipe, Call::Sync { data_only: false }, Buf::None, Transfer::Nothing);
    let error = sync.run_blocking().expect_err("a pipe can't be synced");
    assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
    let open = |path: &std::path::Path| {
        use std::os::unix::ffi::OsStrExt;
        let path = CString::new(path.as_os_str().as_bytes()).expect("no zero");
        let args = CallArgs::path(path, libc::O_RDONLY, 0);
        IoCall::with(None, Call::Open, Buf::None, Transfer::Nothing, args).expect("in order")
    };
    let Ok(CallResult::Opened(opened)) = open(&path).run_blocking() else { panic!("it is there") };
    let flags = fcntl(&opened, FcntlArg::F_GETFD).expect("it is open");
    assert!(FdFlag::from_bits_retain(flags).contains(FdFlag::FD_CLOEXEC));
    let mut text = String::new();
    File::from(opened).read_to_string(&mut text).expect("it is open");
    assert_eq!(text, "here");
    let missing = open(&path.with_extension("missing")).run_blocking();
    assert_eq!(missing.expect_err("no such file").kind(), io::ErrorKind::NotFound);
}

/// Opening a FIFO for reading succeeds without a writer; for writing it fails without a reader.
#[test]
fn fifo_open_does_not_wait() {
    let folder = tempfile::tempdir().expect("a place for it");
    let path = folder.path().join("fifo");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).expect("a free name");
    let open = |flags| {
        use std::os::unix::ffi::OsStrExt;
        let path = CString::new(path.as_os_str().as_bytes()).expect("no zero");
        let args = CallArgs::path(path, flags, 0);
        let open = IoCall::with(None, Call::Open, Buf::None, Transfer::Nothing, args);
        open.expect("in order").run_blocking()
    };
    let error = open(libc::O_WRONLY).expect_err("there is no reader");
    assert_eq!(error.raw_os_error(), Some(libc::ENXIO));
    let Ok(CallResult::Opened(reader)) = open(libc::O_RDONLY) else {
        panic!("no open without a writer")
    };
    assert!(matches!(open(libc::O_WRONLY), Ok(CallResult::Opened(_))));
    drop(reader);
}

#[test]
fn disk_calls_are_recognised() {
    let (_named, file) = named(b"");
    let (local, _peer) = UnixStream::pair().expect("a pair of sockets");
    let null = File::open("/dev/null").expect("every Linux has it");
    for (mode, has_position) in
        [(io_mode(&file), true), (io_mode(&local), false), (io_mode(&null), false)]
    {
        for call in [Call::Read, Call::Write, Call::ReadAt(0), Call::WriteAt(0)] {
            let part = if call.receives() { Transfer::In(1) } else { Transfer::Out(0, 0) };
            assert_eq!(at(&file, call, vec![], part).may_wait_for_disk(&mode), has_position);
        }
        for call in [Call::Recv, Call::RecvMsg] {
            assert!(!at(&file, call, vec![], Transfer::In(1)).may_wait_for_disk(&mode));
        }
        assert!(
            !at(&file, Call::Splice, Buf::None, Transfer::Unbuffered(1)).may_wait_for_disk(&mode)
        );
    }
}

/// An operation in pieces transfers no more than one call can.
#[test]
fn operation_is_limited_to_one_call() {
    const LONG: usize = 3 << 30;
    let lengths = |call, buf: Buf, part| {
        let io_call = IoCall::with(None, call, buf, part, CallArgs::Nothing);
        let mut io_call = io_call.expect("in order");
        let vectors = io_call.io_buf.vectors();
        vectors.iter().map(|part| part.iov_len).collect::<Vec<_>>()
    };
    // The reserved memory is never touched.
    let room = || Buf::Vec(Vec::with_capacity(LONG));
    for call in [Call::Read, Call::ReadAt(5)] {
        let mut io_call = IoCall::with(None, call, room(), Transfer::In(LONG), CallArgs::Nothing)
            .expect("there are addresses enough");
        assert_eq!(
            (io_call.left(), io_call.io_buf.vectors()[0].iov_len),
            (MAX_TRANSFER, MAX_TRANSFER)
        );
        let several = Buf::Many([room(), Buf::Vec(vec![]), room()].into());
        let part = Transfer::IntoEach(&[1 << 30, 10, LONG]);
        assert_eq!(lengths(call, several, part), [1 << 30, 10, MAX_TRANSFER - (1 << 30) - 10]);
    }
    assert_eq!(lengths(Call::Recv, room(), Transfer::In(LONG)), [MAX_TRANSFER], "of one call");
    let io_call = IoCall::with(None, Call::Recv, room(), Transfer::In(LONG), CallArgs::Nothing);
    assert_eq!(io_call.expect("in order").left(), LONG, "more calls may follow");
}
