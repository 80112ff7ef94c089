//! Each backend waits in the system call of its mechanism.

use nix::fcntl::OFlag;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use quintpoll::{Backend, Events, Interest, Mode, Source, Token};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

/// The number of watched pipes, and of sockets.
const SOURCES: usize = 500;

/// Checks the arguments of the call.
type IsExpectedCall = fn(&[u64]) -> bool;

/// Returns the system call of a blocked poller of this backend.
fn call_of(backend: Backend) -> Option<(libc::c_long, IsExpectedCall)> {
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

/// Returns the system call that blocks a thread, and its arguments.
fn current_syscall(thread: i32) -> Option<(libc::c_long, Vec<u64>)> {
    let line = std::fs::read_to_string(format!("/proc/self/task/{thread}/syscall")).ok()?;
    let mut words = line.split_whitespace();
    let nr = words.next()?.parse().ok()?;
    let argument = |word: &str| u64::from_str_radix(word.strip_prefix("0x")?, 16).ok();
    Some((nr, words.map_while(argument).collect()))
}

/// Returns idle pipes and sockets, and their other ends.
fn sources() -> (Vec<Source>, Vec<Source>) {
    let streams = (0..SOURCES).map(|_| -> (Source, Source) {
        let (local, peer) = UnixStream::pair().expect("a pair of sockets");
        (Arc::new(local), Arc::new(peer))
    });
    let pipes = (0..SOURCES).map(|_| -> (Source, Source) {
        let (reader, writer) = nix::unistd::pipe2(OFlag::O_CLOEXEC).expect("a pipe");
        (Arc::new(reader), Arc::new(writer))
    });
    streams.chain(pipes).unzip()
}

/// Raises the soft limit on open files, which is commonly 1,024.
fn raise_file_limit() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("up to the hard limit is allowed");
}

#[test]
fn blocked_wait_uses_the_backends_system_call() {
    raise_file_limit();
    let available = Backend::ALL.into_iter().filter(|backend| backend.is_available().is_ok());
    for backend in available {
        for mode in [Mode::Level, Mode::Edge, Mode::OneShot] {
            let (ready, is_ready) = mpsc::channel();
            let waiter = thread::spawn(move || {
                let mut poller = backend.open().expect("an available backend");
                let (sources, _others) = sources();
                for source in sources {
                    poller
                        .register(source, Token(0), Interest::READABLE, mode)
                        .expect("a new source");
                }
                let thread = nix::unistd::gettid().as_raw();
                ready.send((thread, poller.waker())).expect("the test receives");
                poller.wait(&mut Events::with_capacity(8), None).expect("a wait");
            });
            let (thread, waker) = is_ready.recv().expect("the waiter got as far as its wait");
            let (call, is_expected) = call_of(backend).expect("a built backend is named here");
            let started = Instant::now();
            loop {
                let seen = current_syscall(thread);
                let is_there = |(nr, args): &(_, Vec<_>)| *nr == call && is_expected(args);
                if seen.as_ref().is_some_and(is_there) {
                    break;
                }
                let is_in_time = started.elapsed() < Duration::from_secs(60);
                assert!(is_in_time, "{backend}, {mode:?} is blocked in {seen:x?}, not in {call}");
                thread::yield_now();
            }
            waker.wake();
            waiter.join().expect("the wait ends");
        }
    }
}
