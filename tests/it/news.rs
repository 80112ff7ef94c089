//! Files that forget their news when they are looked at: `/proc/sys/kernel/hostname` is one that
//! can be rung, in a namespace of this thread's own.

use nix::fcntl::{Flock, FlockArg};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::sethostname;
use quintpoll::{Backend, Events, Interest, Mode, Poller, Readiness, Source, Token};
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

const MODES: [Mode; 3] = [Mode::Level, Mode::Edge, Mode::OneShot];

/// Gives this thread a name of the machine of its own. False, and word of it, if it may not.
fn may_rename() -> bool {
    let may = unshare(CloneFlags::CLONE_NEWUTS);
    may.inspect_err(|error| println!("skipped: a namespace for the host name: {error}")).is_ok()
}

/// While it is held no other of these tests renames anything: the news are everybody's, although
/// the names are not.
fn alone() -> Flock<File> {
    let path = std::env::temp_dir().join("quintpoll-hostname.lock");
    let open = File::options().create(true).append(true).open(path).expect("a place for it");
    Flock::lock(open, FlockArg::LockExclusive).map_err(|(_, error)| error).expect("flock")
}

fn rename() {
    sethostname("renamed").expect("the name is this thread's own");
}

fn hostname() -> Arc<File> {
    Arc::new(File::open("/proc/sys/kernel/hostname").expect("proc is mounted"))
}

fn available() -> impl Iterator<Item = Box<dyn Poller>> {
    let available = Backend::ALL.into_iter().filter(|backend| backend.is_available().is_ok());
    available.map(|backend| backend.open().expect("it is available"))
}

fn watch(poller: &mut dyn Poller, source: Source, mode: Mode) -> quintpoll::Key {
    poller.register(source, Token(0), Interest::PRIORITY, mode).expect("fresh")
}

/// What one wait reports, of whomever.
fn wait(poller: &mut dyn Poller, timeout: Duration) -> Readiness {
    let mut events = Events::with_capacity(8);
    poller.wait(&mut events, Some(timeout)).expect("a wait");
    events.iter().fold(Readiness::empty(), |all, event| all | event.readiness)
}

/// H3 on select: the sets show no error, and the look that would show it comes too late.
fn news(backend: Backend) -> Readiness {
    let error = if backend == Backend::Select { Readiness::empty() } else { Readiness::ERROR };
    Readiness::PRIORITY | error
}

#[test]
fn they_are_told_once() {
    let _alone = alone();
    if !may_rename() {
        return;
    }
    for mut poller in available() {
        for mode in MODES {
            let (backend, poller) = (poller.backend(), &mut *poller);
            let key = watch(poller, hostname(), mode);
            assert_eq!(wait(poller, Duration::ZERO), Readiness::empty(), "{backend} {mode:?}");
            for _ in 0..3 {
                rename();
                assert_eq!(wait(poller, Duration::ZERO), news(backend), "{backend} {mode:?}");
                assert_eq!(wait(poller, Duration::ZERO), Readiness::empty(), "{backend} {mode:?}");
                poller.rearm(key, Interest::PRIORITY).expect("known");
                assert_eq!(wait(poller, Duration::ZERO), Readiness::empty(), "{backend} {mode:?}");
            }
            poller.deregister(key).expect("known");
        }
    }
}

/// H1 on io_uring: what such a file has told between two waits is reported by the next, also if the
/// program has looked meanwhile.
#[test]
fn between_two_waits_io_uring_takes_them_at_their_word() {
    let _alone = alone();
    if !may_rename() {
        return;
    }
    for mut poller in available() {
        for mode in MODES {
            let (backend, poller) = (poller.backend(), &mut *poller);
            let (name, (other, _there)) = (hostname(), UnixStream::pair().expect("a pair"));
            let key = watch(poller, name.clone(), mode);
            let other = watch(poller, Arc::new(other), mode);
            assert_eq!(wait(poller, Duration::ZERO), Readiness::empty(), "{backend} {mode:?}");
            rename();
            poller.deregister(other).expect("known");
            let mut look = [PollFd::new(name.as_fd(), PollFlags::POLLPRI)];
            poll(&mut look, PollTimeout::ZERO).expect("a look");
            let is_told = wait(poller, Duration::ZERO) == news(backend);
            assert_eq!(is_told, backend == Backend::Uring, "{backend} {mode:?}");
            poller.deregister(key).expect("known");
        }
    }
}

/// E1 on epoll: that looks when it is told to arm, and forgets what it has seen by the time it is
/// asked.
#[test]
fn before_a_rearm_epoll_does_not_hear_of_them() {
    let _alone = alone();
    if !may_rename() {
        return;
    }
    for mut poller in available() {
        for mode in MODES {
            let (backend, poller) = (poller.backend(), &mut *poller);
            let key = watch(poller, hostname(), mode);
            assert_eq!(wait(poller, Duration::ZERO), Readiness::empty(), "{backend} {mode:?}");
            rename();
            poller.rearm(key, Interest::PRIORITY).expect("known");
            let is_told = wait(poller, Duration::ZERO) == news(backend);
            assert_eq!(is_told, backend != Backend::Epoll, "{backend} {mode:?}");
            poller.deregister(key).expect("known");
        }
    }
}

/// O1 on io_uring: what happens to such a file after it was reported, and before it is armed again,
/// may be used up by the waits in between.
#[test]
fn of_who_is_disarmed_io_uring_may_forget_them() {
    let _alone = alone();
    if !may_rename() {
        return;
    }
    for mut poller in available() {
        let (backend, poller) = (poller.backend(), &mut *poller);
        let key = watch(poller, hostname(), Mode::OneShot);
        rename();
        assert_eq!(wait(poller, Duration::ZERO), news(backend), "{backend}");
        rename();
        assert_eq!(wait(poller, Duration::ZERO), Readiness::empty(), "{backend}");
        poller.rearm(key, Interest::PRIORITY).expect("known");
        let is_told = wait(poller, Duration::ZERO) == news(backend);
        let forgets = matches!(backend, Backend::Epoll | Backend::Uring);
        assert_eq!(is_told, !forgets, "{backend}");
        poller.deregister(key).expect("known");
    }
}

/// A wait that sleeps hears of them too.
#[test]
fn they_end_a_wait() {
    let _alone = alone();
    for mut poller in available() {
        let poller = &mut *poller;
        watch(poller, hostname(), Mode::Level);
        let ringer = thread::spawn(|| {
            let may = may_rename();
            thread::sleep(Duration::from_millis(20));
            may.then(rename)
        });
        let started = Instant::now();
        let told = wait(poller, Duration::from_secs(60));
        if ringer.join().expect("it only renames").is_none() {
            return;
        }
        let backend = poller.backend();
        assert_eq!(told, news(backend), "{backend} after {:?}", started.elapsed());
    }
}
