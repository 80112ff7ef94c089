//! Blocking files of all kinds, with this kernel's flags and without: no call blocks or signals.

use super::super::raised::is_pending;
use super::*;
use crate::testing::is_alone;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::pty::openpty;
use nix::sys::eventfd::EventFd;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal};
use nix::sys::signal::{pthread_sigmask, raise, sigaction};
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use nix::unistd::{Whence, pipe2, write};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::{NamedTempFile, TempPath};

impl FdIoMode {
    fn read_from(&mut self, fd: &impl AsFd, bytes: &mut [u8]) -> io::Result<usize> {
        self.begin_turn();
        let part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
        // SAFETY: the part is a slice that outlives the call.
        unsafe { self.read(fd.as_fd().as_raw_fd(), &[part], None) }
    }

    fn write_to(&mut self, fd: &impl AsFd, bytes: &mut [u8]) -> io::Result<usize> {
        self.begin_turn();
        let part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
        // SAFETY: the part is a slice that outlives the call.
        unsafe { self.write(fd.as_fd().as_raw_fd(), &[part], None) }
    }

    fn read_cached_from(
        &mut self,
        fd: &impl AsFd,
        bytes: &mut [u8],
        offset: Option<u64>,
    ) -> io::Result<usize> {
        let part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
        // SAFETY: the part is a slice that outlives the call.
        unsafe { self.read_cached(fd.as_fd().as_raw_fd(), &[part], offset) }
    }

    fn write_cached_to(
        &mut self,
        fd: &impl AsFd,
        bytes: &mut [u8],
        offset: Option<u64>,
    ) -> io::Result<usize> {
        let part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
        // SAFETY: the part is a slice that outlives the call.
        unsafe { self.write_cached(fd.as_fd().as_raw_fd(), &[part], offset) }
    }
}

/// The modes with this kernel's flags, and without.
fn with_and_without_flags(fd: &impl AsFd) -> [FdIoMode; 2] {
    let mode = || FdIoMode::of(fd.as_fd()).expect("an open file");
    let mut old = mode();
    old.forget_flags();
    [mode(), old]
}

fn is_nonblocking(fd: &impl AsFd) -> bool {
    let flags = fcntl(fd, FcntlArg::F_GETFL).expect("it is open");
    OFlag::from_bits_retain(flags).contains(OFlag::O_NONBLOCK)
}

fn blocks(result: io::Result<usize>) -> bool {
    result.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}

/// A file to read from, and a function that makes it readable and returns the byte count.
struct Reader {
    name: &'static str,
    file: OwnedFd,
    fill: Box<dyn Fn() -> usize>,
}

fn fifo(path: &std::path::Path) -> (OwnedFd, OwnedFd) {
    nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).expect("a free name");
    // Opening a FIFO for both does not wait for a peer.
    let both = || File::options().read(true).write(true).open(path).expect("it was made");
    let files = (both().into(), both().into());
    std::fs::remove_file(path).expect("it was made");
    files
}

fn readers(folder: &Path) -> Vec<Reader> {
    let of = |name, file, fill| Reader { name, file, fill };
    let writes = |fd: OwnedFd, bytes: &'static [u8]| -> Box<dyn Fn() -> usize> {
        Box::new(move || write(&fd, bytes).expect("room"))
    };
    let (pipe, pipe_writer) = pipe2(OFlag::O_CLOEXEC).expect("a pipe");
    let (fifo, fifo_writer) = fifo(&folder.join("fifo"));
    let pty = openpty(None, None).expect("a terminal");
    let event = OwnedFd::from(EventFd::new().expect("an eventfd"));
    let event_writer = event.try_clone().expect("a duplicate");
    let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_CLOEXEC).expect("a timer");
    let timer = OwnedFd::from(timer);
    let duplicate = timer.try_clone().expect("a duplicate");
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC).expect("an inotify");
    inotify.add_watch(folder, AddWatchFlags::IN_CREATE).expect("it is there");
    let touched = folder.join("x");
    let touch = move || {
        File::create(&touched).expect("a free name");
        std::fs::remove_file(&touched).expect("it was made");
        32
    };
    let expire = move || {
        let duplicate = duplicate.try_clone().expect("a duplicate");
        // SAFETY: the descriptor is the timer made above.
        let timer = unsafe { TimerFd::from_owned_fd(duplicate) };
        let soon = Expiration::OneShot(Duration::from_nanos(1).into());
        timer.set(soon, TimerSetTimeFlags::empty()).expect("it is a timer");
        let mut entry = [nix::poll::PollFd::new(timer.as_fd(), nix::poll::PollFlags::POLLIN)];
        nix::poll::poll(&mut entry, nix::poll::PollTimeout::NONE).expect("the timer expires");
        8
    };
    vec![
        of("pipe", pipe, writes(pipe_writer, b"abc")),
        of("FIFO", fifo, writes(fifo_writer, b"abc")),
        of("terminal", pty.slave, writes(pty.master, b"ab\n")),
        of("eventfd", event, {
            Box::new(move || write(&event_writer, &1_u64.to_ne_bytes()).expect("room"))
        }),
        of("timerfd", timer, Box::new(expire)),
        of("inotify", inotify.into(), Box::new(touch)),
    ]
}

#[test]
fn read_never_blocks_on_any_file() {
    let folder = tempfile::tempdir().expect("a place for it");
    for Reader { name, file, fill } in readers(folder.path()) {
        for mut mode in with_and_without_flags(&file) {
            let takes_nowait = mode.traits.contains(Traits::MAY_TAKE_NOWAIT);
            for _ in 0..3 {
                assert!(blocks(mode.read_from(&file, &mut [0; 64])), "{name}");
                let count = fill();
                assert_eq!(mode.read_from(&file, &mut [0; 64]).ok(), Some(count), "{name}");
            }
            assert!(blocks(mode.read_from(&file, &mut [0; 64])), "{name}");
            let is_set = mode.traits.contains(Traits::MADE_NONBLOCKING);
            let may_set = !["pipe", "FIFO", "terminal"].contains(&name);
            assert!(is_nonblocking(&file) == is_set && is_set <= may_set, "{name}: its own flag");
            assert!(takes_nowait || is_set || mode.own_fd.is_some(), "{name}: it may block");
            // Another process may share the description, and clear the flag.
            let flags = fcntl(&file, FcntlArg::F_GETFL).expect("it is open");
            let flags = OFlag::from_bits_retain(flags & !libc::O_NONBLOCK);
            fcntl(&file, FcntlArg::F_SETFL(flags)).expect("it is open");
            assert!(blocks(mode.read_from(&file, &mut [0; 64])), "{name}");
            mode.restore(file.as_raw_fd());
            assert!(!is_nonblocking(&file), "{name}: restored");
        }
    }
}

#[test]
fn write_never_blocks_on_any_file() {
    let (pipe_reader, pipe) = pipe2(OFlag::O_CLOEXEC).expect("a pipe");
    let pty = openpty(None, None).expect("a terminal");
    let event = OwnedFd::from(EventFd::new().expect("an eventfd"));
    let counts = (u64::MAX / 2).to_ne_bytes();
    let long = [b'x'; 30_000];
    for (name, file, bytes) in
        [("pipe", &pipe, &long[..]), ("terminal", &pty.slave, &long), ("eventfd", &event, &counts)]
    {
        for mut mode in with_and_without_flags(file) {
            let (mut bytes, mut calls) = (bytes.to_vec(), 0);
            loop {
                match mode.write_to(file, &mut bytes) {
                    Ok(count) => assert!(count > 0 && count <= bytes.len(), "{name}"),
                    Err(error) => {
                        assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "{name}: {error}");
                        break;
                    }
                }
                calls += 1;
                assert!(calls < 1000, "{name}: it never fills");
            }
            mode.restore(file.as_raw_fd());
            assert!(!is_nonblocking(file), "{name}: restored");
        }
    }
    drop((pipe_reader, pty.master));
}

fn set_direct(fd: &impl AsFd, is_direct: bool) -> nix::Result<()> {
    let flags = fcntl(fd, FcntlArg::F_GETFL).expect("it is open");
    let mut flags = OFlag::from_bits_retain(flags);
    flags.set(OFlag::O_DIRECT, is_direct);
    fcntl(fd, FcntlArg::F_SETFL(flags)).map(drop)
}

fn position(file: &File) -> i64 {
    nix::unistd::lseek(file, 0, Whence::SeekCur).expect("a file")
}

/// Returns true if the plain call accepts the flag on this file.
fn takes_nowait(file: &File) -> bool {
    let mut byte = 0_u8;
    let part = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    // SAFETY: there is room for one byte.
    let answer = unsafe { libc::preadv2(file.as_raw_fd(), &part, 1, 0, libc::RWF_NOWAIT) };
    answer >= 0 || Errno::last() == Errno::EAGAIN
}

/// Files where this program is, usually on a disk, and in shared memory.
fn regular_files() -> Vec<(TempPath, File)> {
    let this = std::env::current_exe().expect("a running program has a path");
    let this = this.parent().expect("programs are in folders").to_owned();
    let made = |folder: PathBuf| {
        let file = NamedTempFile::new_in(folder).ok()?;
        std::fs::write(&file, b"0123456789").expect("there is room");
        let (file, path) = file.into_parts();
        Some((path, file))
    };
    [this, "/dev/shm".into(), std::env::temp_dir()].into_iter().filter_map(made).collect()
}

#[test]
fn read_cached_returns_cached_bytes() {
    let mut seen = [0; 2];
    for (path, file) in regular_files() {
        let knows = takes_nowait(&file);
        seen[usize::from(knows)] += 1;
        for mut mode in with_and_without_flags(&file) {
            assert!(mode.has_position());
            let can_tell = knows && mode.traits.contains(Traits::MAY_TAKE_NOWAIT);
            nix::unistd::lseek(&file, 2, Whence::SeekSet).expect("a file");
            let mut bytes = [0; 3];
            assert!(blocks(mode.read_cached_from(&file, &mut bytes, None)), "left to a thread");
            assert_eq!((&bytes, position(&file)), (&[0; 3], 2), "nothing was read");
            if can_tell {
                assert_eq!(mode.read_cached_from(&file, &mut bytes, Some(7)).ok(), Some(3));
                assert_eq!((&bytes, position(&file)), (b"789", 2), "read at the offset");
                assert_eq!(mode.read_cached_from(&file, &mut bytes, Some(10)).ok(), Some(0));
            } else {
                for offset in [None, Some(7), Some(10)] {
                    assert!(blocks(mode.read_cached_from(&file, &mut bytes, offset)));
                }
                assert_eq!((&bytes, position(&file)), (&[0; 3], 2), "nothing was read");
            }
            // Without the flag a disk can't be told from a file that blocks on a peer.
            assert_eq!(is_nonblocking(&file), !can_tell, "{}", path.display());
            mode.restore(file.as_raw_fd());
            assert!(!is_nonblocking(&file), "restored");
        }
    }
    assert!(seen[0] + seen[1] > 0, "there is a place for files");
    println!("{} support RWF_NOWAIT, {} do not", seen[1], seen[0]);
}

/// Most file systems can't tell if a write would block. No blocking write is made, and none needs
/// `O_NONBLOCK`.
#[test]
fn write_cached_leaves_position_writes_to_a_thread() {
    for (path, file) in regular_files() {
        for mut mode in with_and_without_flags(&file) {
            for (offset, at) in [(Some(3), 3), (None, 0)] {
                nix::unistd::lseek(&file, 0, Whence::SeekSet).expect("a file");
                let tried = mode.write_cached_to(&file, &mut b"abc".to_owned(), offset);
                assert!(offset.is_some() || tried.is_err(), "one call at the position");
                let found = std::fs::read(&path).expect("it was made");
                match tried {
                    Ok(count) => assert_eq!(found[at..at + count], b"abc"[..count]),
                    Err(error) => {
                        assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "{error}");
                        assert_eq!((&found[..], position(&file)), (&b"0123456789"[..], 0));
                    }
                }
                std::fs::write(&path, b"0123456789").expect("it is ours");
            }
            assert_eq!(mode.write_cached_to(&file, &mut [], Some(3)).ok(), Some(0), "no bytes");
            let appends = File::options().append(true).open(&path).expect("it was made");
            assert!(blocks(mode.write_cached_to(&appends, &mut [7], Some(3))), "one call too");
            assert!(!is_nonblocking(&file), "a write waits for a disk at most");
        }
        let for_reading = File::open(&path).expect("it was made");
        let mut mode = FdIoMode::of(for_reading.as_fd()).expect("an open file");
        let error = mode.write_cached_to(&for_reading, &mut [], None).expect_err("not to write");
        assert_eq!(error.raw_os_error(), Some(libc::EBADF), "the kernel is called anyway");
    }
}

/// With `O_DIRECT`, `RWF_NOWAIT` does not keep a call from blocking.
#[test]
fn o_direct_files_are_left_to_a_thread() {
    let mut count = 0;
    for (path, file) in regular_files() {
        let is_direct = set_direct(&file, true).is_ok();
        count += usize::from(is_direct);
        for mut mode in with_and_without_flags(&file).into_iter().filter(|_| is_direct) {
            // Unaligned: a call that was made would fail, or report the end.
            for offset in [None, Some(1), Some(1 << 20)] {
                assert!(blocks(mode.read_cached_from(&file, &mut [0; 3], offset)));
                assert!(blocks(mode.write_cached_to(&file, &mut [0; 3], offset)));
            }
            assert_eq!(std::fs::read(&path).expect("it was made"), b"0123456789");
            mode.restore(file.as_raw_fd());
        }
        // The program may clear the flag later.
        let mut mode = FdIoMode::of(file.as_fd()).expect("an open file");
        set_direct(&file, false).expect("it can be taken back");
        if takes_nowait(&file) {
            let read = mode.read_cached_from(&file, &mut [0; 3], Some(1));
            assert_eq!(read.ok(), Some(3));
        }
    }
    println!("{count} support O_DIRECT");
}

/// procfs files may block on a peer, and their reads take no flag. `O_NONBLOCK` keeps a thread from
/// blocking.
#[test]
fn procfs_files_become_nonblocking_for_a_thread() {
    for path in ["/proc/self/status", "/proc/self/mountinfo"] {
        let file = File::open(path).expect("every Linux has it");
        for mut mode in with_and_without_flags(&file) {
            assert!(mode.has_position());
            for _ in 0..3 {
                assert!(blocks(mode.read_cached_from(&file, &mut [0; 64], Some(0))), "{path}");
                assert!(
                    is_nonblocking(&file) && !mode.traits.contains(Traits::MAY_TAKE_NOWAIT),
                    "{path}"
                );
            }
            mode.restore(file.as_raw_fd());
            assert!(!is_nonblocking(&file), "restored");
        }
    }
}

/// For some files an empty write is a message, or raises a signal.
#[test]
fn empty_write_behaves_like_plain_write() {
    let (local, peer) = std::os::unix::net::UnixDatagram::pair().expect("a pair of sockets");
    let (reader, pipe) = pipe2(OFlag::O_CLOEXEC).expect("a pipe");
    peer.set_nonblocking(true).expect("O_NONBLOCK");
    for mut mode in with_and_without_flags(&local) {
        let refused = mode.write_cached_to(&local, &mut [], Some(0)).expect_err("no offsets");
        assert_eq!(refused.raw_os_error(), Some(libc::ESPIPE));
        assert!(peer.recv(&mut [0]).is_err(), "nothing was sent");
        assert_eq!(mode.write_to(&local, &mut []).ok(), Some(0));
        assert_eq!(peer.recv(&mut [0]).ok(), Some(0), "an empty message was sent");
    }
    drop(reader);
    for mut mode in with_and_without_flags(&pipe) {
        assert_eq!(mode.write_to(&pipe, &mut []).ok(), Some(0), "as write(2) of a pipe");
    }
}

/// A ring would wait for a message, and return it instead of the queue's attributes.
#[test]
fn message_queue_is_never_read_by_ring() {
    let name = std::ffi::CString::new(format!("/quintpoll-{}", std::process::id()));
    let name = name.expect("no zero in it");
    let (flags, mode) = (libc::O_RDWR | libc::O_CREAT | libc::O_CLOEXEC, 0o600);
    let none = std::ptr::null::<libc::mq_attr>();
    // SAFETY: the name ends with a zero and outlives the call.
    let fd = unsafe { libc::mq_open(name.as_ptr(), flags, mode, none) };
    if fd < 0 {
        return println!("skipped: {}", io::Error::last_os_error());
    }
    // SAFETY: as above.
    unsafe { libc::mq_unlink(name.as_ptr()) };
    // SAFETY: the call has just made the descriptor, and nothing else owns it.
    let queue = unsafe { <OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(fd) };
    let mut mode = FdIoMode::of(queue.as_fd()).expect("an open file");
    assert!(mode.has_position() && !mode.may_be_read_by_a_ring());
    assert!(!mode.may_be_reached_by_a_ring(queue.as_raw_fd()));
}

#[test]
fn nonblocking_devices_keep_their_flags() {
    for path in ["/dev/null", "/dev/zero"] {
        let file = File::options().read(true).write(true).open(path).expect("every Linux has it");
        for mut mode in with_and_without_flags(&file) {
            assert!(!mode.has_position());
            let expected = if path == "/dev/zero" { 9 } else { 0 };
            assert_eq!(mode.read_from(&file, &mut [0; 9]).ok(), Some(expected));
            assert_eq!(mode.write_to(&file, &mut [0; 9]).ok(), Some(9));
            mode.restore(file.as_raw_fd());
            assert!(!is_nonblocking(&file), "restored");
        }
    }
    let folder = File::open("/").expect("the root");
    for mut mode in with_and_without_flags(&folder) {
        let error = mode.read_from(&folder, &mut [0; 9]).expect_err("a directory");
        assert_eq!(error.raw_os_error(), Some(libc::EISDIR));
        mode.restore(folder.as_raw_fd());
    }
}

#[test]
fn nonblocking_file_stays_nonblocking() {
    let (reader, _writer) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).expect("a pipe");
    for mut mode in with_and_without_flags(&reader) {
        assert!(blocks(mode.read_from(&reader, &mut [0; 9])));
        mode.ensure_nonblocking(reader.as_raw_fd()).expect("it is open");
        mode.restore(reader.as_raw_fd());
        assert!(is_nonblocking(&reader), "the poller did not set it");
    }
}

#[test]
fn file_properties_are_detected() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let datagram = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
    let (unix, _peer) = std::os::unix::net::UnixStream::pair().expect("a pair of sockets");
    let event = EventFd::new().expect("an eventfd");
    let of = |fd: &dyn AsFd| {
        let mut mode = FdIoMode::of(fd.as_fd()).expect("it is open");
        let is_drained = mode.is_drained_by_short_reads(fd.as_fd().as_raw_fd());
        (mode.is_socket(), mode.is_stream(), is_drained, mode.may_be_read_by_a_ring())
    };
    assert_eq!([of(&listener), of(&unix)], [(true, true, true, true); 2]);
    assert_eq!(of(&datagram), (true, false, false, true));
    assert_eq!(of(&event), (false, false, false, false), "not before the first call");
    let (least, fd) = (10_i32, unix.as_raw_fd());
    let (value, size) = ((&raw const least).cast(), size_of_val(&least) as libc::socklen_t);
    // SAFETY: the value has this size, and outlives the call.
    let set = unsafe { libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_RCVLOWAT, value, size) };
    assert_eq!(set, 0, "an option");
    assert_eq!(of(&unix), (true, true, false, true), "a short read is inconclusive");
}

fn blocked() -> SigSet {
    let mut mask = SigSet::empty();
    pthread_sigmask(SigmaskHow::SIG_BLOCK, None, Some(&mut mask)).expect("it is only read");
    mask
}

/// SIGPIPE ends this process, as it does programs that the Rust runtime has not started.
#[test]
fn broken_pipe_is_an_error_without_signal() {
    if !is_alone("sys::io_mode::tests::broken_pipe_is_an_error_without_signal") {
        return;
    }
    let action = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    // SAFETY: no handler is installed.
    unsafe { sigaction(Signal::SIGPIPE, &action) }.expect("it may be set");
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC).expect("a pipe");
    drop(reader);
    let breaks = |mode: &mut FdIoMode| {
        let error = mode.write_to(&writer, &mut [0; 9]).expect_err("there is no reader");
        assert_eq!(error.raw_os_error(), Some(libc::EPIPE));
    };
    for mut mode in with_and_without_flags(&writer) {
        breaks(&mut mode);
        assert!(!is_pending(libc::SIGPIPE) && !blocked().contains(Signal::SIGPIPE));
    }
    let [_, mut old] = with_and_without_flags(&writer);
    let pipe = SigSet::from(Signal::SIGPIPE);
    pthread_sigmask(SigmaskHow::SIG_BLOCK, Some(&pipe), None).expect("it may be blocked");
    breaks(&mut old);
    assert!(!is_pending(libc::SIGPIPE), "it was discarded");
    assert!(blocked().contains(Signal::SIGPIPE), "it is still blocked");
    raise(Signal::SIGPIPE).expect("it waits");
    breaks(&mut old);
    assert!(is_pending(libc::SIGPIPE), "the program's own stays pending");
    let [mut new, _] = with_and_without_flags(&writer);
    breaks(&mut new);
    assert!(is_pending(libc::SIGPIPE));
    assert_eq!(pipe.wait().expect("it is pending"), Signal::SIGPIPE);
    assert!(!is_pending(libc::SIGPIPE), "it was pending once");
}

/// An ignored signal is never pending.
#[test]
fn ignored_sigpipe_is_not_waited_for() {
    let _still = crate::testing::no_children();
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC).expect("a pipe");
    drop(reader);
    for mut mode in with_and_without_flags(&writer) {
        let error = mode.write_to(&writer, &mut [0; 9]).expect_err("there is no reader");
        assert_eq!(error.raw_os_error(), Some(libc::EPIPE));
    }
}

/// A descriptor with `O_PATH` can't be polled, even that of a socket.
#[test]
fn of_pollable_refuses_o_path() {
    let folder = tempfile::tempdir().expect("a place for it");
    let path = folder.path().join("socket");
    let listener = std::os::unix::net::UnixListener::bind(&path).expect("a socket");
    assert!(FdIoMode::of_pollable(listener.as_fd()).expect("it is open").is_socket());
    for path in [&path, folder.path()] {
        let name = nix::fcntl::open(path, OFlag::O_PATH, nix::sys::stat::Mode::empty());
        let name = name.expect("it exists");
        let error = FdIoMode::of_pollable(name.as_fd()).expect_err("O_PATH");
        assert_eq!(error.raw_os_error(), Some(libc::EBADF), "{path:?}");
    }
    let folder = std::fs::File::open(folder.path()).expect("it exists");
    assert!(!FdIoMode::of_pollable(folder.as_fd()).expect("it is open").is_socket());
}
