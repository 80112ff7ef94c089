//! Each permitted difference of the contract's table, shown: what is not equal, and on which
//! backends.

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sched::{CloneFlags, unshare};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{MsgFlags, send};
use quintpoll::{
    Backend, Capabilities, Events, Interest, Mode, Op, Poller, Readiness, Source, Token,
};
use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

const READ: Interest = Interest::READABLE;
const WRITE: Interest = Interest::WRITABLE;

fn available() -> impl Iterator<Item = Backend> {
    Backend::ALL.into_iter().filter(|backend| backend.is_available().is_ok())
}

fn open(backend: Backend) -> Box<dyn Poller> {
    backend.open().expect("it is available")
}

/// The readiness that a wait without waiting reports of the only source.
fn now(poller: &mut dyn Poller) -> Readiness {
    let mut events = Events::with_capacity(8);
    poller.wait(&mut events, Some(Duration::ZERO)).expect("a wait");
    events.iter().fold(Readiness::empty(), |all, event| all | event.readiness)
}

fn stream() -> (Arc<UnixStream>, UnixStream) {
    let (here, there) = UnixStream::pair().expect("a pair of sockets");
    here.set_nonblocking(true).expect("a socket");
    (Arc::new(here), there)
}

/// E2: whether new data that come on top of unread ones are reported again in edge mode.
#[test]
fn e2_new_data_before_the_old_are_read() {
    let repeats = |backend| matches!(backend, Backend::Epoll | Backend::Sigio | Backend::Uring);
    for backend in available() {
        let (here, mut there) = stream();
        let mut poller = open(backend);
        poller.register(here, Token(0), READ, Mode::Edge).expect("fresh");
        there.write_all(b"x").expect("room");
        assert_eq!(now(&mut *poller), Readiness::READABLE, "{backend}");
        there.write_all(b"y").expect("room");
        let again = if repeats(backend) { Readiness::READABLE } else { Readiness::empty() };
        assert_eq!(now(&mut *poller), again, "{backend}");
    }
}

/// E2 on SIGIO: signals tell what makes a file readable, and not of every file.
#[test]
fn e2_files_that_can_not_signal() {
    let counter = nix::sys::eventfd::EventFd::new().expect("an eventfd");
    let counter = Arc::new(counter);
    let (here, mut there) = stream();
    for backend in available() {
        let mut poller = open(backend);
        poller.register(counter.clone(), Token(0), READ, Mode::Edge).expect("fresh");
        let both = READ | WRITE;
        poller.register(here.clone(), Token(1), both, Mode::Edge).expect("fresh");
        counter.write(1).expect("room");
        there.write_all(b"x").expect("room");
        let first = Readiness::READABLE | Readiness::WRITABLE;
        assert_eq!(now(&mut *poller), first, "{backend}");
        counter.write(1).expect("room");
        there.write_all(b"x").expect("room");
        let again = match backend {
            Backend::Epoll | Backend::Uring => first,
            // Of the unix stream.
            Backend::Sigio => Readiness::READABLE,
            _ => Readiness::empty(),
        };
        assert_eq!(now(&mut *poller), again, "{backend}");
        counter.read().expect("two writes");
        nix::unistd::read(&*here, &mut [0; 8]).expect("two bytes");
    }
}

/// E2 on SIGIO: inotify signals, also where its number is another file's in the first thread.
#[test]
fn e2_inotify_in_each_descriptor_table() {
    let directory = tempfile::tempdir().expect("a place for it");
    let in_each_backend = || {
        let flags = InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK;
        let inotify = Arc::new(Inotify::init(flags).expect("an inotify"));
        inotify.add_watch(directory.path(), AddWatchFlags::IN_CREATE).expect("a directory");
        for backend in available() {
            let mut poller = open(backend);
            poller.register(inotify.clone(), Token(0), READ, Mode::Edge).expect("fresh");
            let _first = tempfile::NamedTempFile::new_in(directory.path()).expect("room");
            assert_eq!(now(&mut *poller), Readiness::READABLE, "{backend}");
            let _second = tempfile::NamedTempFile::new_in(directory.path()).expect("room");
            let repeats = !matches!(backend, Backend::Poll | Backend::Select);
            let again = if repeats { Readiness::READABLE } else { Readiness::empty() };
            assert_eq!(now(&mut *poller), again, "{backend}");
            inotify.read_events().expect("two files");
        }
    };
    in_each_backend();
    thread::scope(|scope| {
        let with_own_table = scope.spawn(|| {
            unshare(CloneFlags::CLONE_FILES).expect("no right is needed");
            in_each_backend();
        });
        with_own_table.join().expect("as with the table of the process");
    });
}

/// Waits until a thread of this process sleeps in the kernel.
fn until_asleep(thread: i32) {
    let started = Instant::now();
    let is_asleep = || {
        let stat = fs::read_to_string(format!("/proc/self/task/{thread}/stat"));
        let stat = stat.expect("the thread lives");
        stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('S'))
    };
    while !is_asleep() {
        assert!(started.elapsed() < Duration::from_secs(60), "it does not go to sleep");
        thread::yield_now();
    }
}

/// T2 on select: the sets can't show every hang-up to a wait that blocks already.
#[test]
fn t2_a_hang_up_while_only_writability_is_watched() {
    for backend in available() {
        let (reader, writer) = nix::unistd::pipe().expect("a pipe");
        let reader: Source = Arc::new(reader);
        let (sleeping, is_sleeping) = mpsc::channel();
        let waiter = thread::spawn(move || {
            let mut poller = open(backend);
            poller.register(reader, Token(0), WRITE, Mode::Level).expect("fresh");
            let thread = nix::unistd::gettid().as_raw();
            sleeping.send((thread, poller.waker())).expect("the test waits for this");
            let mut events = Events::with_capacity(8);
            poller.wait(&mut events, None).expect("a wait");
            (events.woken(), events.len(), now(&mut *poller))
        });
        let (thread, waker) = is_sleeping.recv().expect("the waiter got as far as its wait");
        until_asleep(thread);
        drop(writer);
        let overlooked = backend == Backend::Select;
        if overlooked {
            // It would sleep on: this is the difference.
            thread::yield_now();
            until_asleep(thread);
            waker.wake();
        }
        let (woken, count, next) = waiter.join().expect("the wait ends");
        assert_eq!((woken, count), if overlooked { (true, 0) } else { (false, 1) }, "{backend}");
        let hung_up = Readiness::WRITABLE | Readiness::WRITE_CLOSED;
        assert_eq!(next, hung_up, "{backend}: the next wait reports it");
    }
}

/// What is reported at first in edge mode, by a wait that sleeps while `act` is done, and by the
/// wait after that. If the sleeping one is to overlook it, it is woken.
fn while_asleep(
    backend: Backend,
    source: Source,
    interest: Interest,
    overlooked: bool,
    act: impl FnOnce(),
) -> [Readiness; 3] {
    let (sleeping, is_sleeping) = mpsc::channel();
    let waiter = thread::spawn(move || {
        let mut poller = open(backend);
        poller.register(source, Token(0), interest, Mode::Edge).expect("fresh");
        let first = now(&mut *poller);
        assert_eq!(now(&mut *poller), Readiness::empty(), "{backend}");
        let thread = nix::unistd::gettid().as_raw();
        sleeping.send((thread, poller.waker())).expect("the test waits for this");
        let mut events = Events::with_capacity(8);
        poller.wait(&mut events, None).expect("a wait");
        let said = events.iter().fold(Readiness::empty(), |all, event| all | event.readiness);
        [first, said, now(&mut *poller)]
    });
    let (thread, waker) = is_sleeping.recv().expect("the waiter got as far as its wait");
    until_asleep(thread);
    act();
    if overlooked {
        thread::yield_now();
        until_asleep(thread);
        waker.wake();
    }
    waiter.join().expect("the wait ends")
}

/// E5 on select: no set shows an end alone.
#[test]
fn e5_an_end_while_the_wait_sleeps() {
    for backend in available() {
        let (reader, writer) = nix::unistd::pipe().expect("a pipe");
        let overlooked = backend == Backend::Select;
        let act = move || drop(reader);
        let said = while_asleep(backend, Arc::new(writer), WRITE, overlooked, act);
        let broken = Readiness::WRITABLE | Readiness::WRITE_CLOSED | Readiness::ERROR;
        let mut expected = [Readiness::WRITABLE, broken, Readiness::empty()];
        if overlooked {
            expected.swap(1, 2);
        }
        assert_eq!(said, expected, "{backend}");
    }
}

/// E1: where edges are emulated, an end that was told is not watched any more.
#[test]
fn e1_an_end_that_passes_while_the_wait_sleeps() {
    let path = std::env::temp_dir().join(format!("quintpoll-fifo-{}", std::process::id()));
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).expect("a new name");
    let open = |flags| {
        let flags = flags | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        nix::fcntl::open(&path, flags, nix::sys::stat::Mode::empty()).expect("a FIFO")
    };
    for backend in available() {
        let reader = Arc::new(open(OFlag::O_RDONLY));
        drop(open(OFlag::O_WRONLY));
        let end = Readiness::READABLE | Readiness::READ_CLOSED;
        let overlooked = matches!(backend, Backend::Select | Backend::Poll);
        let mut writer = None;
        let said = while_asleep(backend, reader, READ, overlooked, || {
            let opened = writer.insert(open(OFlag::O_WRONLY));
            nix::unistd::write(opened, b"x").expect("room");
        });
        let mut expected = [end, Readiness::READABLE, Readiness::empty()];
        if overlooked {
            expected.swap(1, 2);
        }
        assert_eq!(said, expected, "{backend}");
    }
    fs::remove_file(&path).expect("it is there");
}

/// E2 on SIGIO: so much of the native edges is true.
#[test]
fn e2_native_edges_are_said_to_be_what_they_are() {
    for backend in available() {
        let capabilities = open(backend).capabilities();
        let all = matches!(backend, Backend::Epoll | Backend::Uring);
        let to_read = all || backend == Backend::Sigio;
        assert_eq!(capabilities.contains(Capabilities::NATIVE_EDGE), all, "{backend}");
        assert_eq!(capabilities.contains(Capabilities::NATIVE_READ_EDGE), to_read, "{backend}");
    }
}

/// L1, O1, E1 on SIGIO: the program's own shutdown(2) sends no signal.
#[test]
fn l1_o1_e1_what_the_program_does_to_its_own_file() {
    for backend in available() {
        for mode in [Mode::Level, Mode::OneShot, Mode::Edge] {
            let (here, _there) = stream();
            let mut poller = open(backend);
            let key = poller.register(here.clone(), Token(0), READ, mode).expect("fresh");
            assert_eq!(now(&mut *poller), Readiness::empty());
            here.shutdown(Shutdown::Read).expect("it is connected");
            let ended = Readiness::READABLE | Readiness::READ_CLOSED;
            let first = if backend == Backend::Sigio { Readiness::empty() } else { ended };
            assert_eq!(now(&mut *poller), first, "{backend}, {mode:?}");
            poller.rearm(key, READ).expect("known");
            assert_eq!(now(&mut *poller), ended, "{backend}, {mode:?}: rearmed");
        }
    }
}

/// The same: an `F_SETFL` without `O_ASYNC` silences a file, until `rearm` makes it signal again.
#[test]
fn l1_o1_e1_flags_set_without_o_async() {
    for backend in available() {
        for mode in [Mode::Level, Mode::OneShot, Mode::Edge] {
            let (here, mut there) = stream();
            let mut poller = open(backend);
            let key = poller.register(here.clone(), Token(0), READ, mode).expect("fresh");
            assert_eq!(now(&mut *poller), Readiness::empty());
            fcntl(&here, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).expect("a socket");
            there.write_all(b"x").expect("room");
            let silenced = backend == Backend::Sigio;
            let first = if silenced { Readiness::empty() } else { Readiness::READABLE };
            assert_eq!(now(&mut *poller), first, "{backend}, {mode:?}");
            nix::unistd::read(&*here, &mut [0; 8]).expect("a byte");
            poller.rearm(key, READ).expect("known");
            assert_eq!(now(&mut *poller), Readiness::empty(), "{backend}: it was read");
            there.write_all(b"y").expect("room");
            assert_eq!(now(&mut *poller), Readiness::READABLE, "{backend}, {mode:?}: healed");
        }
    }
}

/// The same: while somebody sleeps in a read, what arrives sends no signal. What that read leaves
/// behind is not reported before the next signal, or `rearm`.
#[test]
fn l1_o1_e1_what_a_blocking_read_leaves_behind() {
    for backend in available() {
        for mode in [Mode::Level, Mode::OneShot, Mode::Edge] {
            let (here, mut there) = UnixStream::pair().expect("a pair of sockets");
            let here = Arc::new(here);
            let mut poller = open(backend);
            let key = poller.register(here.clone(), Token(0), READ, mode).expect("fresh");
            assert_eq!(now(&mut *poller), Readiness::empty());
            let reader = nix::unistd::gettid().as_raw();
            let writer = thread::spawn(move || {
                until_asleep(reader);
                there.write_all(b"two").expect("room");
                there
            });
            (&*here).read_exact(&mut [0; 1]).expect("the first byte");
            let mut there = writer.join().expect("it writes");
            let first =
                if backend == Backend::Sigio { Readiness::empty() } else { Readiness::READABLE };
            assert_eq!(now(&mut *poller), first, "{backend}, {mode:?}");
            poller.rearm(key, READ).expect("known");
            assert_eq!(now(&mut *poller), Readiness::READABLE, "{backend}, {mode:?}: rearmed");
            there.write_all(b"more").expect("room");
        }
    }
}

/// P3 on SIGIO: to own a socket's signals is to own its SIGURG.
#[test]
fn p3_urgent_data_sends_sigurg() {
    let urgent: SigSet = std::iter::once(Signal::SIGURG).collect();
    urgent.thread_block().expect("a signal can be blocked");
    let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
    let signals = SignalFd::with_flags(&urgent, flags).expect("a signalfd");
    for backend in available() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("it is bound");
        let here = Arc::new(TcpStream::connect(address).expect("it listens"));
        let (there, _) = listener.accept().expect("it was connected");
        let mut poller = open(backend);
        poller.register(here, Token(0), Interest::PRIORITY, Mode::Level).expect("fresh");
        send(there.as_raw_fd(), b"!", MsgFlags::MSG_OOB).expect("room");
        let mut events = Events::with_capacity(8);
        poller.wait(&mut events, Some(Duration::from_secs(60))).expect("a wait");
        assert_eq!(events.len(), 1, "{backend} reports it");
        let signalled = signals.read_signal().expect("a signalfd").is_some();
        assert_eq!(signalled, backend == Backend::Sigio, "{backend}");
    }
}

/// C8 on io_uring: one call accepts all who knock, however little room there is for them.
#[test]
fn c8_who_knocks_is_let_in_at_once() {
    for backend in available() {
        let listener = Arc::new(TcpListener::bind("127.0.0.1:0").expect("an address"));
        let address = listener.local_addr().expect("it is bound");
        let mut poller = open(backend);
        let key = poller.register(listener.clone(), Token(0), Interest::empty(), Mode::Level);
        let _clients: Vec<_> =
            (0..100).map(|_| TcpStream::connect(address).expect("room in the queue")).collect();
        poller.submit(Op::accept_multi(key.expect("fresh")), Token(1)).expect("in order");
        let mut events = Events::with_capacity(1);
        poller.wait(&mut events, None).expect("a wait");
        assert_eq!(events.completed(), 1, "{backend}");
        listener.set_nonblocking(true).expect("a socket");
        let are_all_in = listener.accept().is_err();
        assert_eq!(are_all_in, backend == Backend::Uring, "{backend}");
    }
}

/// C2 on io_uring: a receive that waits there steps over an urgent byte.
#[test]
fn c2_an_urgent_byte_that_nobody_watches_for_goes_with_a_receive() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    for backend in available() {
        let here = TcpStream::connect(listener.local_addr().expect("it has one"));
        let (here, there) = (here.expect("it listens"), listener.accept().expect("it came").0);
        let mut poller = open(backend);
        let none = Interest::empty();
        let key = poller.register(Arc::new(here), Token(0), none, Mode::Level).expect("fresh");
        poller.submit(Op::recv(key, vec![], 9), Token(1)).expect("in order");
        assert_eq!(now(&mut *poller), Readiness::empty());
        send(there.as_raw_fd(), b"!", MsgFlags::MSG_OOB).expect("room");
        // Until the byte has arrived, and whoever waits in the kernel has been woken.
        let mut events = Events::with_capacity(4);
        poller.submit(Op::timeout(Duration::from_millis(20)), Token(2)).expect("in order");
        while events.completed() == 0 {
            poller.wait(&mut events, None).expect("a wait");
        }
        let priority = Interest::PRIORITY;
        poller.modify(key, Token(0), priority, Mode::Level).expect("no operation is in the way");
        let is_there = now(&mut *poller).contains(Readiness::PRIORITY);
        assert_eq!(is_there, backend != Backend::Uring, "{backend}");
    }
}
