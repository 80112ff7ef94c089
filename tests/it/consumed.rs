//! Files whose readiness a poll consumes, such as `/proc/sys/kernel/hostname`, which this thread
//! can make ready in its own namespace.

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

/// Moves this thread to its own UTS namespace. Returns false, and prints why, if it may not.
fn enter_uts_namespace() -> bool {
    let may = unshare(CloneFlags::CLONE_NEWUTS);
    may.inspect_err(|error| println!("skipped: a namespace for the host name: {error}")).is_ok()
}

/// Takes a lock against the other tests: a rename makes the file ready in all namespaces.
fn alone() -> Flock<File> {
    let path = std::env::temp_dir().join("quintpoll-hostname.lock");
    let open = File::options().create(true).append(true).open(path).expect("a lock file");
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
    available.map(|backend| backend.open().expect("an available backend"))
}

fn watch(poller: &mut dyn Poller, source: Source, mode: Mode) -> quintpoll::Key {
    poller.register(source, Token(0), Interest::PRIORITY, mode).expect("a new source")
}

/// Returns the readiness that one wait reports of any source.
fn wait(poller: &mut dyn Poller, timeout: Duration) -> Readiness {
    let mut events = Events::with_capacity(8);
    poller.wait(&mut events, Some(timeout)).expect("a wait");
    events.iter().fold(Readiness::empty(), |all, event| all | event.readiness)
}

/// Returns the expected readiness. H3 on select: the sets show no error, and a later poll neither.
fn expected(backend: Backend) -> Readiness {
    let error = if backend == Backend::Select { Readiness::empty() } else { Readiness::ERROR };
    Readiness::PRIORITY | error
}

#[test]
fn consumed_readiness_is_reported_once() {
    let _alone = alone();
    if !enter_uts_namespace() {
        return;
    }
    for mut poller in available() {
        for mode in MODES {
            let (backend, poller) = (poller.backend(), &mut *poller);
            let key = watch(poller, hostname(), mode);
            assert_eq!(wait(poller, Duration::ZERO), Readiness::empty(), "{backend} {mode:?}");
            for _ in 0..3 {
                rename();
                assert_eq!(wait(poller, Duration::ZERO), expected(backend), "{backend} {mode:?}");
                assert_eq!(wait(poller, Duration::ZERO), Readiness::empty(), "{backend} {mode:?}");
                poller.rearm(key, Interest::PRIORITY).expect("a known key");
                assert_eq!(wait(poller, Duration::ZERO), Readiness::empty(), "{backend} {mode:?}");
            }
            poller.deregister(key).expect("a known key");
        }
    }
}

/// H1 on io_uring: activity of such a file between two waits is reported by the next, even if the
/// program has polled meanwhile.
#[test]
fn uring_reports_activity_consumed_between_waits() {
    let _alone = alone();
    if !enter_uts_namespace() {
        return;
    }
    for mut poller in available() {
        for mode in MODES {
            let (backend, poller) = (poller.backend(), &mut *poller);
            let (name, (other, _peer)) = (hostname(), UnixStream::pair().expect("a pair"));
            let key = watch(poller, name.clone(), mode);
            let other = watch(poller, Arc::new(other), mode);
            assert_eq!(wait(poller, Duration::ZERO), Readiness::empty(), "{backend} {mode:?}");
            rename();
            poller.deregister(other).expect("a known key");
            let mut fds = [PollFd::new(name.as_fd(), PollFlags::POLLPRI)];
            poll(&mut fds, PollTimeout::ZERO).expect("a poll");
            let is_reported = wait(poller, Duration::ZERO) == expected(backend);
            assert_eq!(is_reported, backend == Backend::Uring, "{backend} {mode:?}");
            poller.deregister(key).expect("a known key");
        }
    }
}

/// E1 on epoll: `EPOLL_CTL_MOD` polls the file, which consumes the activity before the next wait.
#[test]
fn epoll_rearm_consumes_earlier_activity() {
    let _alone = alone();
    if !enter_uts_namespace() {
        return;
    }
    for mut poller in available() {
        for mode in MODES {
            let (backend, poller) = (poller.backend(), &mut *poller);
            let key = watch(poller, hostname(), mode);
            assert_eq!(wait(poller, Duration::ZERO), Readiness::empty(), "{backend} {mode:?}");
            rename();
            poller.rearm(key, Interest::PRIORITY).expect("a known key");
            let is_reported = wait(poller, Duration::ZERO) == expected(backend);
            assert_eq!(is_reported, backend != Backend::Epoll, "{backend} {mode:?}");
            poller.deregister(key).expect("a known key");
        }
    }
}

/// O1 on io_uring: waits may consume activity after the report and before `rearm`.
#[test]
fn uring_may_miss_activity_of_disarmed_source() {
    let _alone = alone();
    if !enter_uts_namespace() {
        return;
    }
    for mut poller in available() {
        let (backend, poller) = (poller.backend(), &mut *poller);
        let key = watch(poller, hostname(), Mode::OneShot);
        rename();
        assert_eq!(wait(poller, Duration::ZERO), expected(backend), "{backend}");
        rename();
        assert_eq!(wait(poller, Duration::ZERO), Readiness::empty(), "{backend}");
        poller.rearm(key, Interest::PRIORITY).expect("a known key");
        let is_reported = wait(poller, Duration::ZERO) == expected(backend);
        let is_consumed = matches!(backend, Backend::Epoll | Backend::Uring);
        assert_eq!(is_reported, !is_consumed, "{backend}");
        poller.deregister(key).expect("a known key");
    }
}

/// A sleeping wait reports it too.
#[test]
fn consumed_readiness_ends_a_sleeping_wait() {
    let _alone = alone();
    for mut poller in available() {
        let poller = &mut *poller;
        watch(poller, hostname(), Mode::Level);
        let renamer = thread::spawn(|| {
            let may = enter_uts_namespace();
            thread::sleep(Duration::from_millis(20));
            may.then(rename)
        });
        let started = Instant::now();
        let reported = wait(poller, Duration::from_secs(60));
        if renamer.join().expect("the renamer").is_none() {
            return;
        }
        let backend = poller.backend();
        assert_eq!(reported, expected(backend), "{backend} after {:?}", started.elapsed());
    }
}
