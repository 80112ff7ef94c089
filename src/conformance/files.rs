//! Clauses F: files.

use super::kit::*;
use crate::event::{Interest, Mode, Readiness};
use crate::poller::Source;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::eventfd::EventFd;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::SignalFd;
use nix::sys::time::TimeSpec;
use nix::sys::timer::{Expiration, TimerSetTimeFlags};
use nix::sys::timerfd::{ClockId, TimerFd, TimerFlags};
use std::fs::File;
use std::net::UdpSocket;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

pub(super) fn f1_files_are_always_ready(stage: &Stage) {
    let directory = TempDir::new();
    let regular = directory.0.join("file");
    std::fs::write(&regular, b"content").unwrap_or_else(|error| panic!("{error}"));
    for path in [regular.as_path(), &directory.0, "/dev/null".as_ref()] {
        let open = || File::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let ready = Readiness::READABLE | Readiness::WRITABLE;
        let mut desk = stage.desk(8);
        let (idle, idle_there) = stream();
        desk.register(idle, 9, READ, Mode::Level);

        let level = desk.register(Arc::new(open()), 1, BOTH, Mode::Level);
        for _ in 0..3 {
            desk.wait(None);
            assert_eq!(desk.said(), [(1, ready)], "{} in every wait", path.display());
        }
        put(&idle_there, b"x");
        let both = [(1, ready), (9, Readiness::READABLE)];
        desk.expect_now(&both, "files do not drown the others");
        desk.modify(level, 1, READ, Mode::Level);
        desk.expect_now(&[(1, Readiness::READABLE), (9, Readiness::READABLE)], "modify");
        desk.modify(level, 1, Interest::empty(), Mode::Level);
        desk.expect_now(&[(9, Readiness::READABLE)], "an empty interest");
        desk.deregister(level);

        let once = desk.register(Arc::new(open()), 2, BOTH, Mode::OneShot);
        desk.expect_now(&[(2, ready), (9, Readiness::READABLE)], "one-shot");
        desk.expect_now(&[(9, Readiness::READABLE)], "once");
        desk.rearm(once, WRITE);
        desk.expect_now(&[(2, Readiness::WRITABLE), (9, Readiness::READABLE)], "rearmed");
        desk.deregister(once);

        let edge = desk.register(Arc::new(open()), 3, BOTH, Mode::Edge);
        desk.expect_now(&[(3, ready), (9, Readiness::READABLE)], "edge");
        desk.expect_now(&[(9, Readiness::READABLE)], "nothing happens to a file");
        desk.rearm(edge, BOTH);
        desk.expect_now(&[(3, ready), (9, Readiness::READABLE)], "rearmed");
        desk.modify(edge, 4, READ, Mode::Level);
        desk.expect_now(&[(4, Readiness::READABLE), (9, Readiness::READABLE)], "level now");
        desk.deregister(edge);
        desk.expect_now(&[(9, Readiness::READABLE)], "deregistered");
    }
}

/// An epoll instance as a source, which nix does not make one by itself.
struct Nested(Epoll);

impl AsFd for Nested {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.0.as_fd()
    }
}

/// A kind of file: its name, and one that is readable in the end.
fn kinds() -> Vec<(&'static str, Source)> {
    fn own<T>(made: nix::Result<T>) -> T {
        made.unwrap_or_else(|error| panic!("{error}"))
    }
    let signal = |source| -> Source { Arc::new(source) };
    let counter = own(EventFd::new());
    own(counter.write(1));
    let nested = own(Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC));
    own(nested.add(&counter, EpollEvent::new(EpollFlags::EPOLLIN, 0)));

    let timer = own(TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_CLOEXEC));
    let soon = Expiration::OneShot(TimeSpec::new(0, 1));
    own(timer.set(soon, TimerSetTimeFlags::empty()));

    // A signal for this thread alone, pending because it is blocked.
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGUSR2);
    own(signals.thread_block());
    crate::sys::staging::Thread::current().signal(libc::SIGUSR2);
    let signalfd = own(SignalFd::new(&signals));

    let directory = TempDir::new();
    let inotify = own(Inotify::init(InitFlags::IN_CLOEXEC));
    own(inotify.add_watch(&directory.0, AddWatchFlags::IN_CREATE));
    std::fs::write(directory.0.join("new"), b"").unwrap_or_else(|error| panic!("{error}"));

    let datagrams = UdpSocket::bind("127.0.0.1:0").unwrap_or_else(|error| panic!("{error}"));
    let address = datagrams.local_addr().unwrap_or_else(|error| panic!("{error}"));
    datagrams.send_to(b"x", address).unwrap_or_else(|error| panic!("{error}"));

    vec![
        ("eventfd", Arc::new(counter)),
        ("epoll", Arc::new(Nested(nested))),
        ("timerfd", Arc::new(timer)),
        ("signalfd", signal(signalfd)),
        ("inotify", Arc::new(inotify)),
        ("UDP socket", Arc::new(datagrams)),
    ]
}

pub(super) fn f1_every_kind_of_file_can_be_watched(stage: &Stage) {
    let kinds = kinds();
    for mode in MODES {
        for (name, source) in &kinds {
            let mut desk = stage.desk(4);
            let key = desk.register(source.clone(), 1, READ, mode);
            let said = desk.next(name);
            assert_eq!(said, [(1, Readiness::READABLE)], "{name}, {mode:?}");
            desk.deregister(key);
            desk.expect_silence(name);
        }
    }
}
