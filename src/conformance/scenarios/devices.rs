//! Scenarios of counters, terminals, regular files and devices.

use super::*;
use nix::sys::epoll::{Epoll, EpollCreateFlags};
use nix::sys::eventfd::EventFd;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr};
use nix::sys::time::TimeSpec;
use nix::sys::timer::{Expiration, TimerSetTimeFlags};
use nix::sys::timerfd::{ClockId, TimerFd, TimerFlags};
use std::fs::File;

/// Duplicates a descriptor whose type is not `Send` or hides it.
fn file_of(of: impl AsFd) -> OwnedFd {
    ok(of.as_fd().try_clone_to_owned())
}

fn counter(value: u64) -> EventFd {
    let counter = ok(EventFd::new());
    if value > 0 {
        ok(counter.write(value));
    }
    counter
}

pub(crate) fn counters() -> Vec<CallScenario> {
    let mut list = Vec::new();
    for max in [8, 100] {
        let eventfd = counter(0);
        let source = file_of(&eventfd);
        list.push(scenario("eventfd, written", source, SysCall::Read(max)).unblocked_by(
            move || {
                ok(eventfd.write(7));
                eventfd
            },
        ));
    }
    let eight = |value: u64| value.to_ne_bytes().to_vec();
    let all = [
        ("eventfd, small buffer", SysCall::Read(4)),
        ("eventfd, write", SysCall::Write(eight(3))),
        ("eventfd, short buffer", SysCall::Write(vec![0; 4])),
        ("eventfd, too much", SysCall::Write(eight(u64::MAX))),
        ("eventfd, not a socket", SysCall::Recv(8)),
    ];
    list.extend(all.map(|(name, call)| scenario(name, counter(1), call)));
    let full = counter(u64::MAX - 1);
    let source = file_of(&full);
    list.push(scenario("eventfd, full", source, SysCall::Write(eight(3))).unblocked_by(
        move || {
            ok(full.read());
            full
        },
    ));
    for max in [8, 100] {
        let timer = ok(TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_CLOEXEC));
        let source = file_of(&timer);
        list.push(scenario("timerfd", source, SysCall::Read(max)).unblocked_by(move || {
            let soon = Expiration::OneShot(TimeSpec::new(0, 1));
            ok(timer.set(soon, TimerSetTimeFlags::empty()));
            timer
        }));
    }
    for call in [SysCall::Read(4), SysCall::Write(eight(1))] {
        let timer = ok(TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_CLOEXEC));
        list.push(scenario("timerfd, unsupported call", file_of(&timer), call));
    }
    let directory = TempDir::new();
    let inotify = ok(Inotify::init(InitFlags::IN_CLOEXEC));
    ok(inotify.add_watch(&directory.0, AddWatchFlags::IN_CREATE));
    list.push(scenario("inotify", file_of(&inotify), SysCall::Read(4096)).unblocked_by(
        move || {
            ok(std::fs::write(directory.0.join("new"), b""));
            (directory, inotify)
        },
    ));
    list
}

/// Files that can be polled, but neither read nor written.
pub(crate) fn unreadable_files() -> Vec<CallScenario> {
    let new = || file_of(&ok(Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)).0);
    [SysCall::Read(8), SysCall::Write(hello())].map(|call| scenario("epoll", new(), call)).into()
}

/// Returns a pseudo-terminal in raw mode, master first.
pub(crate) fn terminal() -> (OwnedFd, OwnedFd) {
    let pair = ok(nix::pty::openpty(None, None));
    let mut settings = ok(tcgetattr(&pair.slave));
    cfmakeraw(&mut settings);
    ok(tcsetattr(&pair.slave, SetArg::TCSANOW, &settings));
    (pair.master, pair.slave)
}

pub(crate) fn terminals() -> Vec<CallScenario> {
    let mut list = Vec::new();
    for max in [3, 100] {
        let (master, slave) = terminal();
        let data = scenario("terminal, master", master, SysCall::Read(max));
        list.push(data.unblocked_by(write_later(slave, b"hello")));
        let (master, slave) = terminal();
        let data = scenario("terminal, slave", slave, SysCall::Read(max));
        list.push(data.unblocked_by(write_later(master, b"hello")));
    }
    let (master, slave) = terminal();
    list.push(scenario("slave closed", master, SysCall::Read(5)).unblocked_by(move || drop(slave)));
    let (master, slave) = terminal();
    list.push(
        scenario("master closed", slave, SysCall::Read(5)).unblocked_by(move || drop(master)),
    );
    let (master, slave) = terminal();
    drop(master);
    list.push(scenario("master closed", slave, SysCall::Write(hello())));
    let (master, slave) = terminal();
    list.push(scenario("terminal, to the slave", master, SysCall::Write(hello())).keeping(slave));
    let (master, slave) = terminal();
    list.push(scenario("terminal, to the master", slave, SysCall::Write(hello())).keeping(master));
    let (master, slave) = terminal();
    list.push(scenario("terminal, no socket", master, SysCall::Send(hello())).keeping(slave));
    list
}

pub(crate) fn files() -> Vec<CallScenario> {
    let mut list = Vec::new();
    let both = |path: &str| ok(File::options().read(true).write(true).open(path));
    let writes = [SysCall::Write(hello()), SysCall::Read(5), SysCall::Recv(5), SysCall::Accept];
    for call in writes {
        list.push(scenario("/dev/null", both("/dev/null"), call.clone()));
        list.push(scenario("/dev/zero", both("/dev/zero"), call.clone()));
        list.push(scenario("/dev/full", both("/dev/full"), call.clone()));
        list.push(scenario("a directory", ok(File::open("/")), call.clone()));
        let directory = TempDir::new();
        let path = directory.0.join("file");
        ok(std::fs::write(&path, b"abc"));
        let write_only = ok(File::options().write(true).open(&path));
        list.push(scenario("a file to be read", ok(File::open(&path)), call.clone()));
        list.push(scenario("a file to be written", write_only, call).keeping(directory));
    }
    list
}
