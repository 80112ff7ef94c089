//! Each backend waits by the mechanism it is named after, and by nothing else.

use nix::fcntl::OFlag;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use quintpoll::{Backend, Events, Interest, Mode, Source, Token};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

/// How many pipes, and how many sockets, are watched.
const SOURCES: usize = 500;

/// Whether these arguments of the call show that nothing else is behind it.
type IsItsOwn = fn(&[u64]) -> bool;

/// What a blocked poller of this backend sits in.
fn call_of(backend: Backend) -> Option<(libc::c_long, IsItsOwn)> {
    match backend {
        Backend::Select => Some((libc::SYS_pselect6, |args| args[0] > 2 * SOURCES as u64)),
        Backend::Poll => Some((libc::SYS_ppoll, |args| args[1] > 2 * SOURCES as u64)),
        Backend::Epoll => Some((libc::SYS_epoll_pwait2, |_| true)),
        // The queue of signals and the eventfd, and no file that can signal.
        Backend::Sigio => Some((libc::SYS_ppoll, |args| args[1] == 2)),
        Backend::Uring => Some((libc::SYS_io_uring_enter, |args| args[2] == 1)),
        _ => None,
    }
}

/// The number of the system call that a thread is blocked in, and its arguments.
fn blocked_in(thread: i32) -> Option<(libc::c_long, Vec<u64>)> {
    let line = std::fs::read_to_string(format!("/proc/self/task/{thread}/syscall")).ok()?;
    let mut words = line.split_whitespace();
    let number = words.next()?.parse().ok()?;
    let argument = |word: &str| u64::from_str_radix(word.strip_prefix("0x")?, 16).ok();
    Some((number, words.map_while(argument).collect()))
}

/// Pipes and sockets on which nothing happens, and their other ends.
fn sources() -> (Vec<Source>, Vec<Source>) {
    let streams = (0..SOURCES).map(|_| -> (Source, Source) {
        let (here, there) = UnixStream::pair().expect("a pair of sockets");
        (Arc::new(here), Arc::new(there))
    });
    let pipes = (0..SOURCES).map(|_| -> (Source, Source) {
        let (reader, writer) = nix::unistd::pipe2(OFlag::O_CLOEXEC).expect("a pipe");
        (Arc::new(reader), Arc::new(writer))
    });
    streams.chain(pipes).unzip()
}

/// Many systems begin with room for 1,024 files.
fn raise_file_limit() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("it has a limit");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("up to the hard limit is allowed");
}

#[test]
fn a_blocked_waiter_sits_in_its_own_system_call() {
    raise_file_limit();
    let available = Backend::ALL.into_iter().filter(|backend| backend.is_available().is_ok());
    for backend in available {
        for mode in [Mode::Level, Mode::Edge, Mode::OneShot] {
            let (ready, is_ready) = mpsc::channel();
            let waiter = thread::spawn(move || {
                let mut poller = backend.open().expect("it is available");
                let (sources, _others) = sources();
                for source in sources {
                    poller.register(source, Token(0), Interest::READABLE, mode).expect("fresh");
                }
                let thread = nix::unistd::gettid().as_raw();
                ready.send((thread, poller.waker())).expect("the test waits for this");
                poller.wait(&mut Events::with_capacity(8), None).expect("a wait");
            });
            let (thread, waker) = is_ready.recv().expect("the waiter got as far as its wait");
            let (call, is_its_own) = call_of(backend).expect("a built backend is named here");
            let started = Instant::now();
            loop {
                let seen = blocked_in(thread);
                let is_there = |(number, args): &(_, Vec<_>)| *number == call && is_its_own(args);
                if seen.as_ref().is_some_and(is_there) {
                    break;
                }
                let patience = started.elapsed() < Duration::from_secs(60);
                assert!(patience, "{backend}, {mode:?} sits in {seen:x?}, not in {call}");
                thread::yield_now();
            }
            waker.wake();
            waiter.join().expect("the wait ends");
        }
    }
}
