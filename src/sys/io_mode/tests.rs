//! Blocking files of all kinds, with flags of this kernel and without: no call waits or signals.

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
        // SAFETY: the part is of a slice that outlives the call.
        unsafe { self.read(fd.as_fd().as_raw_fd(), &[part], None) }
    }

    fn write_to(&mut self, fd: &impl AsFd, bytes: &mut [u8]) -> io::Result<usize> {
        self.begin_turn();
        let part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
        // SAFETY: the part is of a slice that outlives the call.
        unsafe { self.write(fd.as_fd().as_raw_fd(), &[part], None) }
    }

    fn read_cached_from(
        &mut self,
        fd: &impl AsFd,
        bytes: &mut [u8],
        offset: Option<u64>,
    ) -> io::Result<usize> {
        let part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
        // SAFETY: the part is of a slice that outlives the call.
        unsafe { self.read_cached(fd.as_fd().as_raw_fd(), &[part], offset) }
    }

    fn write_cached_to(
        &mut self,
        fd: &impl AsFd,
        bytes: &mut [u8],
        offset: Option<u64>,
    ) -> io::Result<usize> {
        let part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
        // SAFETY: the part is of a slice that outlives the call.
        unsafe { self.write_cached(fd.as_fd().as_raw_fd(), &[part], offset) }
    }
}

/// As this kernel has it, and as older ones do.
fn each_way(fd: &impl AsFd) -> [FdIoMode; 2] {
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

/// Something to read from, and what makes it readable: so many bytes.
struct Kind {
    name: &'static str,
    file: OwnedFd,
    fill: Box<dyn Fn() -> usize>,
}

fn fifo(path: &std::path::Path) -> (OwnedFd, OwnedFd) {
    nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).expect("a free name");
    // To open it for both does not wait for the other side.
    let both = || File::options().read(true).write(true).open(path).expect("it was made");
    let files = (both().into(), both().into());
    std::fs::remove_file(path).expect("it was made");
    files
}

fn readers(folder: &Path) -> Vec<Kind> {
    let of = |name, file, fill| Kind { name, file, fill };
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
    let its = timer.try_clone().expect("a duplicate");
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC).expect("an inotify");
    inotify.add_watch(folder, AddWatchFlags::IN_CREATE).expect("it is there");
    let touched = folder.join("x");
    let touch = move || {
        File::create(&touched).expect("a free name");
        std::fs::remove_file(&touched).expect("it was made");
        32
    };
    let ring = move || {
        let its = its.try_clone().expect("a duplicate");
        // SAFETY: it is the timer that was made above.
        let timer = unsafe { TimerFd::from_owned_fd(its) };
        let soon = Expiration::OneShot(Duration::from_nanos(1).into());
        timer.set(soon, TimerSetTimeFlags::empty()).expect("it is a timer");
        let mut entry = [nix::poll::PollFd::new(timer.as_fd(), nix::poll::PollFlags::POLLIN)];
        nix::poll::poll(&mut entry, nix::poll::PollTimeout::NONE).expect("it rings");
        8
    };
    vec![
        of("pipe", pipe, writes(pipe_writer, b"abc")),
        of("FIFO", fifo, writes(fifo_writer, b"abc")),
        of("terminal", pty.slave, writes(pty.master, b"ab\n")),
        of("eventfd", event, {
            Box::new(move || write(&event_writer, &1_u64.to_ne_bytes()).expect("room"))
        }),
        of("timerfd", timer, Box::new(ring)),
        of("inotify", inotify.into(), Box::new(touch)),
    ]
}

#[test]
fn no_read_waits_whatever_the_file() {
    let folder = tempfile::tempdir().expect("a place for it");
    for Kind { name, file, fill } in readers(folder.path()) {
        for mut mode in each_way(&file) {
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
            assert!(takes_nowait || is_set || mode.own.is_some(), "{name}: what else keeps it?");
            // Another process may have the description, and change the flag.
            let flags = fcntl(&file, FcntlArg::F_GETFL).expect("it is open");
            let flags = OFlag::from_bits_retain(flags & !libc::O_NONBLOCK);
            fcntl(&file, FcntlArg::F_SETFL(flags)).expect("it is open");
            assert!(blocks(mode.read_from(&file, &mut [0; 64])), "{name}");
            mode.restore(file.as_raw_fd());
            assert!(!is_nonblocking(&file), "{name}: as it was");
        }
    }
}

#[test]
fn no_write_waits_whatever_the_file() {
    let (pipe_reader, pipe) = pipe2(OFlag::O_CLOEXEC).expect("a pipe");
    let pty = openpty(None, None).expect("a terminal");
    let event = OwnedFd::from(EventFd::new().expect("an eventfd"));
    let counts = (u64::MAX / 2).to_ne_bytes();
    let long = [b'x'; 30_000];
    for (name, file, bytes) in
        [("pipe", &pipe, &long[..]), ("terminal", &pty.slave, &long), ("eventfd", &event, &counts)]
    {
        for mut mode in each_way(file) {
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
                assert!(calls < 1000, "{name}: it is full some time");
            }
            mode.restore(file.as_raw_fd());
            assert!(!is_nonblocking(file), "{name}: as it was");
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

/// What the plain call with the flag says of this file, which is the kernel's own opinion.
fn takes_nowait(file: &File) -> bool {
    let mut byte = 0_u8;
    let part = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    // SAFETY: there is room for a byte.
    let answer = unsafe { libc::preadv2(file.as_raw_fd(), &part, 1, 0, libc::RWF_NOWAIT) };
    answer >= 0 || Errno::last() == Errno::EAGAIN
}

/// Where this program is there is a disk, mostly; where shared memory is there is none.
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
fn of_files_with_a_position_what_is_in_memory_is_read_at_once() {
    let mut seen = [0; 2];
    for (path, file) in regular_files() {
        let knows = takes_nowait(&file);
        seen[usize::from(knows)] += 1;
        for mut mode in each_way(&file) {
            assert!(mode.has_position());
            let can_tell = knows && mode.traits.contains(Traits::MAY_TAKE_NOWAIT);
            nix::unistd::lseek(&file, 2, Whence::SeekSet).expect("a file");
            let mut bytes = [0; 3];
            assert!(blocks(mode.read_cached_from(&file, &mut bytes, None)), "it is a thread's");
            assert_eq!((&bytes, position(&file)), (&[0; 3], 2), "nothing was done");
            if can_tell {
                assert_eq!(mode.read_cached_from(&file, &mut bytes, Some(7)).ok(), Some(3));
                assert_eq!((&bytes, position(&file)), (b"789", 2), "from where it was told");
                assert_eq!(mode.read_cached_from(&file, &mut bytes, Some(10)).ok(), Some(0));
            } else {
                for offset in [None, Some(7), Some(10)] {
                    assert!(blocks(mode.read_cached_from(&file, &mut bytes, offset)));
                }
                assert_eq!((&bytes, position(&file)), (&[0; 3], 2), "nothing was done");
            }
            // Without the flag nothing tells a disk from what waits for somebody.
            assert_eq!(is_nonblocking(&file), !can_tell, "{}", path.display());
            mode.restore(file.as_raw_fd());
            assert!(!is_nonblocking(&file), "as it was");
        }
    }
    assert!(seen[0] + seen[1] > 0, "there is a place for files");
    println!("{} that can tell, {} that can't", seen[1], seen[0]);
}

/// Most file systems can't tell whether a write would wait. No write that waits is made, and none
/// needs `O_NONBLOCK`.
#[test]
fn of_files_with_a_position_writes_are_whole_or_for_a_thread() {
    for (path, file) in regular_files() {
        for mut mode in each_way(&file) {
            for (offset, at) in [(Some(3), 3), (None, 0)] {
                nix::unistd::lseek(&file, 0, Whence::SeekSet).expect("a file");
                let tried = mode.write_cached_to(&file, &mut b"abc".to_owned(), offset);
                assert!(offset.is_some() || tried.is_err(), "where it stands: in one call");
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
            assert_eq!(mode.write_cached_to(&file, &mut [], Some(3)).ok(), Some(0), "nothing");
            let appends = File::options().append(true).open(&path).expect("it was made");
            assert!(blocks(mode.write_cached_to(&appends, &mut [7], Some(3))), "in one call too");
            assert!(!is_nonblocking(&file), "to write is to wait for a disk at most");
        }
        let for_reading = File::open(&path).expect("it was made");
        let mut mode = FdIoMode::of(for_reading.as_fd()).expect("an open file");
        let error = mode.write_cached_to(&for_reading, &mut [], None).expect_err("not to write");
        assert_eq!(error.raw_os_error(), Some(libc::EBADF), "the file is asked all the same");
    }
}

/// There the flag keeps nothing from waiting.
#[test]
fn of_direct_files_no_call_is_made_but_by_a_thread() {
    let mut count = 0;
    for (path, file) in regular_files() {
        let is_direct = set_direct(&file, true).is_ok();
        count += usize::from(is_direct);
        for mut mode in each_way(&file).into_iter().filter(|_| is_direct) {
            // The least aligned there is: made, this would be an error, or the end.
            for offset in [None, Some(1), Some(1 << 20)] {
                assert!(blocks(mode.read_cached_from(&file, &mut [0; 3], offset)));
                assert!(blocks(mode.write_cached_to(&file, &mut [0; 3], offset)));
            }
            assert_eq!(std::fs::read(&path).expect("it was made"), b"0123456789");
            mode.restore(file.as_raw_fd());
        }
        // The program may change its mind.
        let mut mode = FdIoMode::of(file.as_fd()).expect("an open file");
        set_direct(&file, false).expect("it can be taken back");
        if takes_nowait(&file) {
            let read = mode.read_cached_from(&file, &mut [0; 3], Some(1));
            assert_eq!(read.ok(), Some(3));
        }
    }
    println!("{count} that can be direct");
}

/// Those of procfs may wait for somebody, and their reads take no flag: set so, a thread that
/// reads them does not wait.
#[test]
fn files_of_the_kernel_are_read_by_a_thread_and_do_not_make_it_wait() {
    for path in ["/proc/self/status", "/proc/self/mountinfo"] {
        let file = File::open(path).expect("every Linux has it");
        for mut mode in each_way(&file) {
            assert!(mode.has_position());
            for _ in 0..3 {
                assert!(blocks(mode.read_cached_from(&file, &mut [0; 64], Some(0))), "{path}");
                assert!(
                    is_nonblocking(&file) && !mode.traits.contains(Traits::MAY_TAKE_NOWAIT),
                    "{path}"
                );
            }
            mode.restore(file.as_raw_fd());
            assert!(!is_nonblocking(&file), "as it was");
        }
    }
}

/// One of no bytes is a message to some, and a reason for a signal.
#[test]
fn a_write_of_nothing_is_asked_of_the_file_as_it_stands_or_at_its_place() {
    let (here, there) = std::os::unix::net::UnixDatagram::pair().expect("a pair of sockets");
    let (reader, pipe) = pipe2(OFlag::O_CLOEXEC).expect("a pipe");
    there.set_nonblocking(true).expect("O_NONBLOCK");
    for mut mode in each_way(&here) {
        let refused = mode.write_cached_to(&here, &mut [], Some(0)).expect_err("no offsets");
        assert_eq!(refused.raw_os_error(), Some(libc::ESPIPE));
        assert!(there.recv(&mut [0]).is_err(), "nothing was sent");
        assert_eq!(mode.write_to(&here, &mut []).ok(), Some(0));
        assert_eq!(there.recv(&mut [0]).ok(), Some(0), "an empty message was sent");
    }
    drop(reader);
    for mut mode in each_way(&pipe) {
        assert_eq!(mode.write_to(&pipe, &mut []).ok(), Some(0), "as write(2) of a pipe");
    }
}

/// A ring would wait for a message, and give that instead of what the queue says of itself.
#[test]
fn a_message_queue_is_read_by_no_ring() {
    let name = std::ffi::CString::new(format!("/quintpoll-{}", std::process::id()));
    let name = name.expect("no zero in it");
    let (flags, mode) = (libc::O_RDWR | libc::O_CREAT | libc::O_CLOEXEC, 0o600);
    let none = std::ptr::null::<libc::mq_attr>();
    // SAFETY: the name ends with a zero and outlives the call.
    let number = unsafe { libc::mq_open(name.as_ptr(), flags, mode, none) };
    if number < 0 {
        return println!("skipped: {}", io::Error::last_os_error());
    }
    // SAFETY: as above.
    unsafe { libc::mq_unlink(name.as_ptr()) };
    // SAFETY: the call has just made this number, and nobody else knows it.
    let queue = unsafe { <OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(number) };
    let mut mode = FdIoMode::of(queue.as_fd()).expect("an open file");
    assert!(mode.has_position() && !mode.may_be_read_by_a_ring());
    assert!(!mode.may_be_reached_by_a_ring(queue.as_raw_fd()));
}

#[test]
fn devices_that_wait_for_nobody_are_read_and_written_as_they_are() {
    for path in ["/dev/null", "/dev/zero"] {
        let file = File::options().read(true).write(true).open(path).expect("every Linux has it");
        for mut mode in each_way(&file) {
            assert!(!mode.has_position());
            let expected = if path == "/dev/zero" { 9 } else { 0 };
            assert_eq!(mode.read_from(&file, &mut [0; 9]).ok(), Some(expected));
            assert_eq!(mode.write_to(&file, &mut [0; 9]).ok(), Some(9));
            mode.restore(file.as_raw_fd());
            assert!(!is_nonblocking(&file), "as it was");
        }
    }
    let folder = File::open("/").expect("the root");
    for mut mode in each_way(&folder) {
        let error = mode.read_from(&folder, &mut [0; 9]).expect_err("it is no file");
        assert_eq!(error.raw_os_error(), Some(libc::EISDIR));
        mode.restore(folder.as_raw_fd());
    }
}

#[test]
fn what_was_nonblocking_stays_so() {
    let (reader, _writer) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).expect("a pipe");
    for mut mode in each_way(&reader) {
        assert!(blocks(mode.read_from(&reader, &mut [0; 9])));
        mode.ensure_nonblocking(reader.as_raw_fd()).expect("it is open");
        mode.restore(reader.as_raw_fd());
        assert!(is_nonblocking(&reader), "that was not us");
    }
}

#[test]
fn what_a_file_is_is_seen() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let datagram = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
    let (unix, _there) = std::os::unix::net::UnixStream::pair().expect("a pair of sockets");
    let event = EventFd::new().expect("an eventfd");
    let of = |fd: &dyn AsFd| {
        let mut mode = FdIoMode::of(fd.as_fd()).expect("it is open");
        let is_drained = mode.is_drained_by_short_reads(fd.as_fd().as_raw_fd());
        (mode.is_socket(), mode.is_stream(), is_drained, mode.may_be_read_by_a_ring())
    };
    assert_eq!([of(&listener), of(&unix)], [(true, true, true, true); 2]);
    assert_eq!(of(&datagram), (true, false, false, true));
    assert_eq!(of(&event), (false, false, false, false), "not before it was tried");
    let (least, number) = (10_i32, unix.as_raw_fd());
    let (value, size) = ((&raw const least).cast(), size_of_val(&least) as libc::socklen_t);
    // SAFETY: the value outlives the call and has that size.
    let set = unsafe { libc::setsockopt(number, libc::SOL_SOCKET, libc::SO_RCVLOWAT, value, size) };
    assert_eq!(set, 0, "an option");
    assert_eq!(of(&unix), (true, true, false, true), "a short read proves nothing");
}

fn blocked() -> SigSet {
    let mut mask = SigSet::empty();
    pthread_sigmask(SigmaskHow::SIG_BLOCK, None, Some(&mut mask)).expect("a look");
    mask
}

/// A process in which the signal is deadly, as it is for programs that Rust has not started.
#[test]
fn a_broken_pipe_is_an_error_and_no_signal() {
    if !is_alone("sys::io_mode::tests::a_broken_pipe_is_an_error_and_no_signal") {
        return;
    }
    let action = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    // SAFETY: no handler is installed.
    unsafe { sigaction(Signal::SIGPIPE, &action) }.expect("it may be set");
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC).expect("a pipe");
    drop(reader);
    let breaks = |mode: &mut FdIoMode| {
        let error = mode.write_to(&writer, &mut [0; 9]).expect_err("nobody reads");
        assert_eq!(error.raw_os_error(), Some(libc::EPIPE));
    };
    for mut mode in each_way(&writer) {
        breaks(&mut mode);
        assert!(!is_pending(libc::SIGPIPE) && !blocked().contains(Signal::SIGPIPE));
    }
    let [_, mut old] = each_way(&writer);
    let pipe = SigSet::from(Signal::SIGPIPE);
    pthread_sigmask(SigmaskHow::SIG_BLOCK, Some(&pipe), None).expect("it may be blocked");
    breaks(&mut old);
    assert!(!is_pending(libc::SIGPIPE), "it was taken away");
    assert!(blocked().contains(Signal::SIGPIPE), "and is blocked as before");
    raise(Signal::SIGPIPE).expect("it waits");
    breaks(&mut old);
    assert!(is_pending(libc::SIGPIPE), "that one is somebody else's");
    let [mut new, _] = each_way(&writer);
    breaks(&mut new);
    assert!(is_pending(libc::SIGPIPE));
    assert_eq!(pipe.wait().expect("it is pending"), Signal::SIGPIPE);
    assert!(!is_pending(libc::SIGPIPE), "and there is one of it");
}

/// Where nobody minds the signal there is none to take away.
#[test]
fn where_it_is_ignored_nothing_is_waited_for() {
    let _still = crate::testing::no_children();
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC).expect("a pipe");
    drop(reader);
    for mut mode in each_way(&writer) {
        let error = mode.write_to(&writer, &mut [0; 9]).expect_err("nobody reads");
        assert_eq!(error.raw_os_error(), Some(libc::EPIPE));
    }
}

/// What names a file only can't be polled, a socket of a path too.
#[test]
fn only_what_can_be_polled_is_accepted() {
    let folder = tempfile::tempdir().expect("a place for it");
    let path = folder.path().join("socket");
    let listener = std::os::unix::net::UnixListener::bind(&path).expect("a socket");
    assert!(FdIoMode::of_pollable(listener.as_fd()).expect("it is open").is_socket());
    for path in [&path, folder.path()] {
        let name = nix::fcntl::open(path, OFlag::O_PATH, nix::sys::stat::Mode::empty());
        let name = name.expect("it exists");
        let error = FdIoMode::of_pollable(name.as_fd()).expect_err("it is a name");
        assert_eq!(error.raw_os_error(), Some(libc::EBADF), "{path:?}");
    }
    let folder = std::fs::File::open(folder.path()).expect("it exists");
    assert!(!FdIoMode::of_pollable(folder.as_fd()).expect("it is open").is_socket());
}
