//! Calls on files with a position: what memory has the answer to, and what a thread is for.

use super::*;
use crate::sys::MOST;
use std::fs::File;
use std::os::unix::fs::FileExt;
use tempfile::{NamedTempFile, TempPath};

/// A file of a kind of file system, whose name goes with the value.
fn named(bytes: &[u8]) -> (TempPath, File) {
    // Where programs are built there is a disk; where temporary files are there may be memory.
    let this = std::env::current_exe().expect("a running program has a path");
    let made = NamedTempFile::new_in(this.parent().expect("programs are in folders"));
    let (file, path) = made.expect("there is room").into_parts();
    std::fs::write(&path, bytes).expect("there is room");
    (path, file)
}

fn bytes(count: usize) -> Vec<u8> {
    (0..count).map(|at| (at ^ at >> 8) as u8).collect()
}

fn at(fd: &impl AsFd, call: Call, buf: impl Into<Buf>, part: Part<'_>) -> IoCall {
    IoCall::with(Some(fd.as_fd()), call, buf.into(), part, CallArgs::Nothing).expect("in order")
}

/// As an operation is done: tried, and left to a thread if it would block.
fn finish(io_call: &mut IoCall, io_mode: &mut FdIoMode) -> io::Result<CallResult> {
    match io_call.attempt(io_mode) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => io_call.perform(),
        done => done,
    }
}

#[test]
fn what_is_at_an_offset_is_read_and_the_position_stays() {
    let (_named, mut file) = named(&bytes(5000));
    let mut its = io_mode(&file);
    for (offset, most, expected) in
        [(0, 100, 100), (4990, 100, 10), (5000, 9, 0), (99_999, 9, 0), (17, 4983, 4983)]
    {
        let mut read = at(&file, Call::ReadAt(offset), b"> ".to_vec(), Part::In(most));
        let Ok(CallResult::Moved(_)) = finish(&mut read, &mut its) else { panic!("at {offset}") };
        assert_eq!(read.moved(), expected, "at {offset}");
        let buf = read.into_buf();
        let start = (offset as usize).min(5000);
        assert_eq!(buf[2..], bytes(5000)[start..start + expected]);
        assert_eq!(&buf[..2], b"> ");
    }
    let mut first = [0; 2];
    file.read_exact(&mut first).expect("two bytes");
    assert_eq!(first[..], bytes(2), "it is still at the start");
}

#[test]
fn what_is_written_at_an_offset_is_there() {
    let (_named, file) = named(&bytes(100));
    let mut its = io_mode(&file);
    let mut write = at(&file, Call::WriteAt(40), b"0123456789".to_vec(), Part::Out(2, 6));
    let Ok(CallResult::Moved(_)) = finish(&mut write, &mut its) else { panic!("there is room") };
    assert_eq!((write.moved(), write.left()), (6, 0));
    assert_eq!(write.into_buf(), Buf::Vec(b"0123456789".to_vec()));
    let mut found = [0; 8];
    file.read_exact_at(&mut found, 39).expect("it is long enough");
    assert_eq!(found[1..7], *b"234567");
    assert_eq!([found[0], found[7]], [bytes(100)[39], bytes(100)[46]]);
}

#[test]
fn several_are_read_and_written_in_turn() {
    let (_named, file) = named(&bytes(64));
    let mut its = io_mode(&file);
    let parts = [&b"abc"[..], b"", b"defgh"].map(|part| Buf::Vec(part.to_vec()));
    let mut write = at(&file, Call::WriteAt(10), Buf::Many(parts.into()), Part::OutOfEach);
    let Ok(CallResult::Moved(_)) = finish(&mut write, &mut its) else { panic!("there is room") };
    assert_eq!(write.moved(), 8);
    let into = || Buf::Many([b"1".to_vec().into(), vec![].into(), vec![].into()].into());
    let each = || Part::IntoEach(&[4, 0, 100]);
    let mut read = at(&file, Call::ReadAt(10), into(), each());
    let Ok(CallResult::Moved(_)) = finish(&mut read, &mut its) else { panic!("it is there") };
    assert_eq!(read.moved(), 54);
    let bufs = read.into_buf().into_many();
    assert_eq!(bufs[0][..], *b"1abcd");
    assert!(bufs[1].is_empty());
    assert_eq!(bufs[2][..4], *b"efgh");
    assert_eq!(bufs[2][4..], bytes(64)[18..]);
}

/// A part that is read short because the rest is not in memory is not all that there is: the
/// bytes come from where the last have ended.
#[test]
fn what_was_done_in_pieces_is_one_call() {
    let (_named, file) = named(&bytes(300));
    // As if a first try had moved these.
    for before in [1, 99, 250] {
        let mut read = at(&file, Call::ReadAt(40), vec![], Part::In(400));
        assert_eq!(read.receive(&bytes(300)[40..][..before]), before);
        assert_eq!(read.offset(), Some(40 + before as u64));
        let Ok(CallResult::Moved(_)) = read.perform() else { panic!("it is there") };
        assert_eq!(read.moved(), 260);
        assert_eq!(read.into_buf()[..], bytes(300)[40..]);
        let mut write = at(&file, Call::WriteAt(5), bytes(300), Part::Out(0, 280));
        write.note_sent(before);
        let Ok(CallResult::Moved(_)) = write.perform() else { panic!("there is room") };
        assert_eq!(write.moved(), 280);
        let mut found = vec![0; 280 - before];
        file.read_exact_at(&mut found, 5 + before as u64).expect("it is there");
        assert_eq!(found, bytes(300)[before..280], "from where the first piece ended");
        file.write_all_at(&bytes(300), 0).expect("room");
    }
}

/// An error that comes behind a piece is for the next call, as the plain call has it.
#[test]
fn what_was_moved_before_an_error_counts() {
    let (_named, file) = named(&bytes(9));
    let for_reading = File::open(&_named).expect("it was made");
    let mut write = at(&for_reading, Call::WriteAt(0), bytes(9), Part::Out(0, 9));
    assert_eq!(write.perform().expect_err("for reading").raw_os_error(), Some(libc::EBADF));
    write.note_sent(4);
    let Ok(CallResult::Moved(0)) = write.perform() else { panic!("four were written") };
    assert_eq!(write.moved(), 4);
    let mut refused = at(&for_reading, Call::Write, bytes(9), Part::Out(0, 9));
    let error = finish(&mut refused, &mut io_mode(&for_reading)).expect_err("for reading");
    assert_eq!(error.raw_os_error(), Some(libc::EBADF));
    drop(file);
}

/// Reading a file that is in memory needs no thread, and as far as it is there: the kernel gives
/// a short answer where the rest is not.
#[test]
fn cached_reads_go_on_until_memory_has_no_more() {
    const MUCH: usize = 4 << 20;
    let (_named, file) = named(&bytes(MUCH));
    file.sync_all().expect("there is room");
    // SAFETY: no memory is passed.
    let advise = |start: usize, count: usize| unsafe {
        let advice = libc::POSIX_FADV_DONTNEED;
        libc::posix_fadvise(file.as_raw_fd(), start as i64, count as i64, advice)
    };
    let mut its = io_mode(&file);
    let mut probe = at(&file, Call::ReadAt(0), vec![], Part::In(4096));
    if kind_of(&probe.attempt(&mut its)) == Some(io::ErrorKind::WouldBlock) {
        return println!("skipped: this file system can't tell what is in memory");
    }
    let mut whole = at(&file, Call::ReadAt(0), vec![], Part::In(MUCH));
    let Ok(CallResult::Moved(_)) = whole.attempt(&mut its) else {
        panic!("it has just been written")
    };
    assert!(whole.into_buf()[..] == bytes(MUCH)[..]);
    assert_eq!(advise(MUCH / 2, MUCH / 2), 0);
    let mut half = at(&file, Call::ReadAt(0), vec![], Part::In(MUCH));
    match half.attempt(&mut its) {
        Err(error) => {
            assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
            // It says nothing of them, but they are there, and the rest comes behind.
            assert!(half.moved() >= MUCH / 4, "{} bytes", half.moved());
            let Ok(CallResult::Moved(_)) = half.perform() else { panic!("the disk has it") };
        }
        Ok(_) => println!("it was read ahead"),
    }
    assert_eq!(half.moved(), MUCH);
    assert!(half.into_buf()[..] == bytes(MUCH)[..], "every byte in its place");
}

fn kind_of(gain: &io::Result<CallResult>) -> Option<io::ErrorKind> {
    gain.as_ref().err().map(io::Error::kind)
}

#[test]
fn positions_move_as_with_plain_calls() {
    let (_named, mut file) = named(&bytes(100));
    let mut its = io_mode(&file);
    for (call, part) in [(Call::Read, Part::In(30)), (Call::Write, Part::Out(0, 9))] {
        let is_read = call.receives();
        let buf = if is_read { vec![] } else { b"123456789".to_vec() };
        let mut io_call = at(&file, call, buf, part);
        assert_eq!(io_call.offset(), None);
        let Ok(CallResult::Moved(_)) = finish(&mut io_call, &mut its) else { panic!("{call:?}") };
    }
    let mut rest = Vec::new();
    file.read_to_end(&mut rest).expect("it is open");
    assert_eq!(rest[..], bytes(100)[39..]);
    let mut found = [0; 9];
    file.read_exact_at(&mut found, 30).expect("it is there");
    assert_eq!(&found, b"123456789");
}

#[test]
fn to_sync_and_to_open_are_for_a_thread() {
    let (place, file) = named(b"here");
    let mut its = io_mode(&file);
    for data_only in [false, true] {
        let mut sync = at(&file, Call::Sync { data_only }, Buf::None, Part::Nothing);
        assert!(sync.is_for_a_disk(&its));
        assert_eq!(kind(sync.attempt(&mut its)), io::ErrorKind::WouldBlock);
        assert!(matches!(sync.perform(), Ok(CallResult::Done)));
    }
    let (pipe, _writer) = pipe2(OFlag::O_CLOEXEC).expect("a pipe");
    let mut sync = at(&pipe, Call::Sync { data_only: false }, Buf::None, Part::Nothing);
    let error = sync.perform().expect_err("nobody keeps a pipe");
    assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
    let path = |path: &std::path::Path| {
        use std::os::unix::ffi::OsStrExt;
        let path = CString::new(path.as_os_str().as_bytes()).expect("no zero");
        let with = CallArgs::path(path, libc::O_RDONLY, 0);
        IoCall::with(None, Call::Open, Buf::None, Part::Nothing, with).expect("in order")
    };
    let Ok(CallResult::Opened(opened)) = path(&place).perform() else { panic!("it is there") };
    let flags = fcntl(&opened, FcntlArg::F_GETFD).expect("it is open");
    assert!(FdFlag::from_bits_retain(flags).contains(FdFlag::FD_CLOEXEC));
    let mut said = String::new();
    File::from(opened).read_to_string(&mut said).expect("it is open");
    assert_eq!(said, "here");
    let missing = path(&place.with_extension("missing")).perform();
    assert_eq!(missing.expect_err("no such file").kind(), io::ErrorKind::NotFound);
}

/// A FIFO that nobody writes to is opened at once; and so is one that nobody reads refused.
#[test]
fn to_open_a_fifo_waits_for_nobody() {
    let folder = tempfile::tempdir().expect("a place for it");
    let place = folder.path().join("fifo");
    nix::unistd::mkfifo(&place, nix::sys::stat::Mode::S_IRWXU).expect("a free name");
    let open = |flags| {
        use std::os::unix::ffi::OsStrExt;
        let path = CString::new(place.as_os_str().as_bytes()).expect("no zero");
        let with = CallArgs::path(path, flags, 0);
        let open = IoCall::with(None, Call::Open, Buf::None, Part::Nothing, with);
        open.expect("in order").perform()
    };
    let error = open(libc::O_WRONLY).expect_err("nobody reads");
    assert_eq!(error.raw_os_error(), Some(libc::ENXIO));
    let Ok(CallResult::Opened(reader)) = open(libc::O_RDONLY) else {
        panic!("it waits for nobody")
    };
    assert!(matches!(open(libc::O_WRONLY), Ok(CallResult::Opened(_))));
    drop(reader);
}

#[test]
fn what_is_for_a_disk_is_known() {
    let (_named, file) = named(b"");
    let (here, _there) = UnixStream::pair().expect("a pair of sockets");
    let null = File::open("/dev/null").expect("every Linux has it");
    for (its, has_position) in
        [(io_mode(&file), true), (io_mode(&here), false), (io_mode(&null), false)]
    {
        for call in [Call::Read, Call::Write, Call::ReadAt(0), Call::WriteAt(0)] {
            let part = if call.receives() { Part::In(1) } else { Part::Out(0, 0) };
            assert_eq!(at(&file, call, vec![], part).is_for_a_disk(&its), has_position);
        }
        for call in [Call::Recv, Call::RecvMsg] {
            assert!(!at(&file, call, vec![], Part::In(1)).is_for_a_disk(&its));
        }
        assert!(!at(&file, Call::Splice, Buf::None, Part::Through(1)).is_for_a_disk(&its));
    }
}

/// What is done in pieces is no more than what one call does, however much is asked for.
#[test]
fn one_operation_moves_what_one_call_can() {
    const LONG: usize = 3 << 30;
    let lengths = |call, buf: Buf, part| {
        let io_call = IoCall::with(None, call, buf, part, CallArgs::Nothing);
        let mut io_call = io_call.expect("in order");
        let vectors = io_call.io_buf.vectors();
        vectors.iter().map(|part| part.iov_len).collect::<Vec<_>>()
    };
    // No page of it is ever touched.
    let room = || Buf::Vec(Vec::with_capacity(LONG));
    for call in [Call::Read, Call::ReadAt(5)] {
        let mut io_call = IoCall::with(None, call, room(), Part::In(LONG), CallArgs::Nothing)
            .expect("there are addresses enough");
        assert_eq!((io_call.left(), io_call.io_buf.vectors()[0].iov_len), (MOST, MOST));
        let several = Buf::Many([room(), Buf::Vec(vec![]), room()].into());
        let part = Part::IntoEach(&[1 << 30, 10, LONG]);
        assert_eq!(lengths(call, several, part), [1 << 30, 10, MOST - (1 << 30) - 10]);
    }
    assert_eq!(lengths(Call::Recv, room(), Part::In(LONG)), [MOST], "of one call");
    let io_call = IoCall::with(None, Call::Recv, room(), Part::In(LONG), CallArgs::Nothing);
    assert_eq!(io_call.expect("in order").left(), LONG, "but it may be one of several");
}
