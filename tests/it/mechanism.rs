//! Each backend waits by the mechanism it is named after, and by nothing else.

use quintpoll::{Backend, Events, Interest, Mode, Token};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

/// The system call that a blocked poller of this backend sits in.
fn system_call_of(backend: Backend) -> Option<libc::c_long> {
    match backend {
        Backend::Select => Some(libc::SYS_pselect6),
        Backend::Poll | Backend::Sigio => Some(libc::SYS_ppoll),
        Backend::Epoll => Some(libc::SYS_epoll_pwait2),
        _ => None,
    }
}

/// The number of the system call that a thread is blocked in.
fn blocked_in(thread: i32) -> Option<libc::c_long> {
    let line = std::fs::read_to_string(format!("/proc/self/task/{thread}/syscall")).ok()?;
    line.split_whitespace().next()?.parse().ok()
}

#[test]
fn a_blocked_waiter_sits_in_its_own_system_call() {
    let available = Backend::ALL.into_iter().filter(|backend| backend.is_available().is_ok());
    for backend in available {
        let (ready, is_ready) = mpsc::channel();
        let waiter = thread::spawn(move || {
            let mut poller = backend.open().expect("it is available");
            let (sources, _peers): (Vec<_>, Vec<_>) = (0..100)
                .map(|_| UnixStream::pair().expect("a socket pair"))
                .map(|(here, there)| (Arc::new(here), there))
                .unzip();
            for source in sources {
                poller
                    .register(source, Token(0), Interest::READABLE, Mode::Level)
                    .expect("a socket can be watched");
            }
            let thread = nix::unistd::gettid().as_raw();
            ready.send((thread, poller.waker())).expect("the test waits for this");
            poller.wait(&mut Events::with_capacity(8), None).expect("a wait");
        });
        let (thread, waker) = is_ready.recv().expect("the waiter got as far as its wait");
        let expected = system_call_of(backend).expect("a built backend is named here");
        let started = Instant::now();
        while blocked_in(thread) != Some(expected) {
            let seen = blocked_in(thread);
            let patience = started.elapsed() < Duration::from_secs(60);
            assert!(patience, "{backend} sits in call {seen:?}, not in {expected}");
            thread::yield_now();
        }
        waker.wake();
        waiter.join().expect("the wait ends");
    }
}
