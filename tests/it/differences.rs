//! The permitted differences of the contract's table, on the backends that have them.

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
    backend.open().expect("an available backend")
}

/// Returns the readiness that a wait of zero reports of the only source.
fn poll_now(poller: &mut dyn Poller) -> Readiness {
    let mut events = Events::with_capacity(8);
    poller.wait(&mut events, Some(Duration::ZERO)).expect("a wait");
    events.iter().fold(Readiness::empty(), |all, event| all | event.readiness)
}

fn stream() -> (Arc<UnixStream>, UnixStream) {
    let (local, peer) = UnixStream::pair().expect("a pair of sockets");
    local.set_nonblocking(true).expect("a socket");
    (Arc::new(local), peer)
}

/// E2: new data behind unread data is reported again in edge mode, or not.
#[test]
fn e2_new_data_on_unread_data() {
    let repeats = |backend| matches!(backend, Backend::Epoll | Backend::Sigio | Backend::Uring);
    for backend in available() {
        let (local, mut peer) = stream();
        let mut poller = open(backend);
        poller.register(local, Token(0), READ, Mode::Edge).expect("a new source");
        peer.write_all(b"x").expect("buffer space");
        assert_eq!(poll_now(&mut *poller), Readiness::READABLE, "{backend}");
        peer.write_all(b"y").expect("buffer space");
        let again = if repeats(backend) { Readiness::READABLE } else { Readiness::empty() };
        assert_eq!(poll_now(&mut *poller), again, "{backend}");
    }
}

/// E2 on SIGIO: some files signal only readability, and some nothing.
#[test]
fn e2_new_data_of_files_without_signals() {
    let counter = nix::sys::eventfd::EventFd::new().expect("an eventfd");
    let counter = Arc::new(counter);
    let (local, mut peer) = stream();
    for backend in available() {
        let mut poller = open(backend);
        poller.register(counter.clone(), Token(0), READ, Mode::Edge).expect("a new source");
        let both = READ | WRITE;
        poller.register(local.clone(), Token(1), both, Mode::Edge).expect("a new source");
        counter.write(1).expect("buffer space");
        peer.write_all(b"x").expect("buffer space");
        let first = Readiness::READABLE | Readiness::WRITABLE;
        assert_eq!(poll_now(&mut *poller), first, "{backend}");
        counter.write(1).expect("buffer space");
        peer.write_all(b"x").expect("buffer space");
        let again = match backend {
            Backend::Epoll | Backend::Uring => first,
            // The unix stream alone.
            Backend::Sigio => Readiness::READABLE,
            _ => Readiness::empty(),
        };
        assert_eq!(poll_now(&mut *poller), again, "{backend}");
        counter.read().expect("two writes");
        nix::unistd::read(&*local, &mut [0; 8]).expect("two bytes");
    }
}

/// E2 on SIGIO: inotify signals, even if its descriptor is another file in the first thread.
#[test]
fn e2_inotify_in_each_descriptor_table() {
    let directory = tempfile::tempdir().expect("a directory");
    let in_each_backend = || {
        let flags = InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK;
        let inotify = Arc::new(Inotify::init(flags).expect("an inotify"));
        inotify.add_watch(directory.path(), AddWatchFlags::IN_CREATE).expect("a directory");
        for backend in available() {
            let mut poller = open(backend);
            poller.register(inotify.clone(), Token(0), READ, Mode::Edge).expect("a new source");
            let _first = tempfile::NamedTempFile::new_in(directory.path()).expect("a file");
            assert_eq!(poll_now(&mut *poller), Readiness::READABLE, "{backend}");
            let _second = tempfile::NamedTempFile::new_in(directory.path()).expect("a file");
            let repeats = !matches!(backend, Backend::Poll | Backend::Select);
            let again = if repeats { Readiness::READABLE } else { Readiness::empty() };
            assert_eq!(poll_now(&mut *poller), again, "{backend}");
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
        assert!(started.elapsed() < Duration::from_secs(60), "the thread does not sleep");
        thread::yield_now();
    }
}

/// T2 on select: the sets cannot show every hang-up to a wait that already blocks.
#[test]
fn t2_hang_up_with_only_writability_watched() {
    for backend in available() {
        let (reader, writer) = nix::unistd::pipe().expect("a pipe");
        let reader: Source = Arc::new(reader);
        let (sleeping, is_sleeping) = mpsc::channel();
        let waiter = thread::spawn(move || {
            let mut poller = open(backend);
            poller.register(reader, Token(0), WRITE, Mode::Level).expect("a new source");
            let thread = nix::unistd::gettid().as_raw();
            sleeping.send((thread, poller.waker())).expect("the test receives");
            let mut events = Events::with_capacity(8);
            poller.wait(&mut events, None).expect("a wait");
            (events.woken(), events.len(), poll_now(&mut *poller))
        });
        let (thread, waker) = is_sleeping.recv().expect("the waiter is about to wait");
        until_asleep(thread);
        drop(writer);
        let is_missed = backend == Backend::Select;
        if is_missed {
            // The wait would sleep on: this is the difference.
            thread::yield_now();
            until_asleep(thread);
            waker.wake();
        }
        let (woken, count, next) = waiter.join().expect("the wait ends");
        assert_eq!((woken, count), if is_missed { (true, 0) } else { (false, 1) }, "{backend}");
        let hung_up = Readiness::WRITABLE | Readiness::WRITE_CLOSED;
        assert_eq!(next, hung_up, "{backend}: the next wait reports it");
    }
}

/// Returns the reports in edge mode of the first wait, of a wait that sleeps while `act` runs, and
/// of the next. If the sleeping wait is expected to miss the event, a waker ends it.
fn while_asleep(
    backend: Backend,
    source: Source,
    interest: Interest,
    is_missed: bool,
    act: impl FnOnce(),
) -> [Readiness; 3] {
    let (sleeping, is_sleeping) = mpsc::channel();
    let waiter = thread::spawn(move || {
        let mut poller = open(backend);
        poller.register(source, Token(0), interest, Mode::Edge).expect("a new source");
        let first = poll_now(&mut *poller);
        assert_eq!(poll_now(&mut *poller), Readiness::empty(), "{backend}");
        let thread = nix::unistd::gettid().as_raw();
        sleeping.send((thread, poller.waker())).expect("the test receives");
        let mut events = Events::with_capacity(8);
        poller.wait(&mut events, None).expect("a wait");
        let reported = events.iter().fold(Readiness::empty(), |all, event| all | event.readiness);
        [first, reported, poll_now(&mut *poller)]
    });
    let (thread, waker) = is_sleeping.recv().expect("the waiter is about to wait");
    until_asleep(thread);
    act();
    if is_missed {
        thread::yield_now();
        until_asleep(thread);
        waker.wake();
    }
    waiter.join().expect("the wait ends")
}

/// E5 on select: no set shows an end alone.
#[test]
fn e5_end_during_a_sleeping_wait() {
    for backend in available() {
        let (reader, writer) = nix::unistd::pipe().expect("a pipe");
        let is_missed = backend == Backend::Select;
        let act = move || drop(reader);
        let reported = while_asleep(backend, Arc::new(writer), WRITE, is_missed, act);
        let broken = Readiness::WRITABLE | Readiness::WRITE_CLOSED | Readiness::ERROR;
        let mut expected = [Readiness::WRITABLE, broken, Readiness::empty()];
        if is_missed {
            expected.swap(1, 2);
        }
        assert_eq!(reported, expected, "{backend}");
    }
}

/// E1: where edges are emulated, an end that was reported is no longer watched.
#[test]
fn e1_passing_end_during_a_sleeping_wait() {
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
        let is_missed = matches!(backend, Backend::Select | Backend::Poll);
        let mut writer = None;
        let reported = while_asleep(backend, reader, READ, is_missed, || {
            let opened = writer.insert(open(OFlag::O_WRONLY));
            nix::unistd::write(opened, b"x").expect("buffer space");
        });
        let mut expected = [end, Readiness::READABLE, Readiness::empty()];
        if is_missed {
            expected.swap(1, 2);
        }
        assert_eq!(reported, expected, "{backend}");
    }
    fs::remove_file(&path).expect("the FIFO");
}

/// E2: the capabilities match the native edges.
#[test]
fn e2_native_edges_match_capabilities() {
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
fn l1_o1_e1_own_shutdown_without_signal() {
    for backend in available() {
        for mode in [Mode::Level, Mode::OneShot, Mode::Edge] {
            let (local, _peer) = stream();
            let mut poller = open(backend);
            let key = poller.register(local.clone(), Token(0), READ, mode).expect("a new source");
            assert_eq!(poll_now(&mut *poller), Readiness::empty());
            local.shutdown(Shutdown::Read).expect("a connected socket");
            let ended = Readiness::READABLE | Readiness::READ_CLOSED;
            let first = if backend == Backend::Sigio { Readiness::empty() } else { ended };
            assert_eq!(poll_now(&mut *poller), first, "{backend}, {mode:?}");
            poller.rearm(key, READ).expect("a known key");
            assert_eq!(poll_now(&mut *poller), ended, "{backend}, {mode:?}: rearmed");
        }
    }
}

/// L1, O1, E1 on SIGIO: an `F_SETFL` without `O_ASYNC` silences a file until `rearm`.
#[test]
fn l1_o1_e1_f_setfl_without_o_async() {
    for backend in available() {
        for mode in [Mode::Level, Mode::OneShot, Mode::Edge] {
            let (local, mut peer) = stream();
            let mut poller = open(backend);
            let key = poller.register(local.clone(), Token(0), READ, mode).expect("a new source");
            assert_eq!(poll_now(&mut *poller), Readiness::empty());
            fcntl(&local, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).expect("a socket");
            peer.write_all(b"x").expect("buffer space");
            let silenced = backend == Backend::Sigio;
            let first = if silenced { Readiness::empty() } else { Readiness::READABLE };
            assert_eq!(poll_now(&mut *poller), first, "{backend}, {mode:?}");
            nix::unistd::read(&*local, &mut [0; 8]).expect("a byte");
            poller.rearm(key, READ).expect("a known key");
            assert_eq!(poll_now(&mut *poller), Readiness::empty(), "{backend}: it was read");
            peer.write_all(b"y").expect("buffer space");
            assert_eq!(
                poll_now(&mut *poller),
                Readiness::READABLE,
                "{backend}, {mode:?}: signals again"
            );
        }
    }
}

/// L1, O1, E1 on SIGIO: data that arrives while a thread sleeps in a read sends no signal. The rest
/// that the read leaves is not reported before the next signal, or `rearm`.
#[test]
fn l1_o1_e1_data_left_by_blocking_read() {
    for backend in available() {
        for mode in [Mode::Level, Mode::OneShot, Mode::Edge] {
            let (local, mut peer) = UnixStream::pair().expect("a pair of sockets");
            let local = Arc::new(local);
            let mut poller = open(backend);
            let key = poller.register(local.clone(), Token(0), READ, mode).expect("a new source");
            assert_eq!(poll_now(&mut *poller), Readiness::empty());
            let reader = nix::unistd::gettid().as_raw();
            let writer = thread::spawn(move || {
                until_asleep(reader);
                peer.write_all(b"two").expect("buffer space");
                peer
            });
            (&*local).read_exact(&mut [0; 1]).expect("the first byte");
            let mut peer = writer.join().expect("the writer");
            let first =
                if backend == Backend::Sigio { Readiness::empty() } else { Readiness::READABLE };
            assert_eq!(poll_now(&mut *poller), first, "{backend}, {mode:?}");
            poller.rearm(key, READ).expect("a known key");
            assert_eq!(poll_now(&mut *poller), Readiness::READABLE, "{backend}, {mode:?}: rearmed");
            peer.write_all(b"more").expect("buffer space");
        }
    }
}

/// P3 on SIGIO: the owner of a socket's signals gets its SIGURG.
#[test]
fn p3_urgent_data_sends_sigurg() {
    let urgent: SigSet = std::iter::once(Signal::SIGURG).collect();
    urgent.thread_block().expect("a signal can be blocked");
    let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
    let signals = SignalFd::with_flags(&urgent, flags).expect("a signalfd");
    for backend in available() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("a bound socket");
        let local = Arc::new(TcpStream::connect(address).expect("a connection"));
        let (peer, _) = listener.accept().expect("a connection");
        let mut poller = open(backend);
        poller.register(local, Token(0), Interest::PRIORITY, Mode::Level).expect("a new source");
        send(peer.as_raw_fd(), b"!", MsgFlags::MSG_OOB).expect("buffer space");
        let mut events = Events::with_capacity(8);
        poller.wait(&mut events, Some(Duration::from_secs(60))).expect("a wait");
        assert_eq!(events.len(), 1, "{backend} reports it");
        let signalled = signals.read_signal().expect("a signalfd").is_some();
        assert_eq!(signalled, backend == Backend::Sigio, "{backend}");
    }
}

/// C8 on io_uring: one call accepts all pending connections, beyond the capacity of `Events`.
#[test]
fn c8_accept_multi_exceeds_capacity_on_io_uring() {
    for backend in available() {
        let listener = Arc::new(TcpListener::bind("127.0.0.1:0").expect("an address"));
        let address = listener.local_addr().expect("a bound socket");
        let mut poller = open(backend);
        let key = poller.register(listener.clone(), Token(0), Interest::empty(), Mode::Level);
        let _clients: Vec<_> =
            (0..100).map(|_| TcpStream::connect(address).expect("space in the queue")).collect();
        poller
            .submit(Op::accept_multi(key.expect("a new source")), Token(1))
            .expect("an accepted operation");
        let mut events = Events::with_capacity(1);
        poller.wait(&mut events, None).expect("a wait");
        assert_eq!(events.completed(), 1, "{backend}");
        listener.set_nonblocking(true).expect("a socket");
        let are_all_accepted = listener.accept().is_err();
        assert_eq!(are_all_accepted, backend == Backend::Uring, "{backend}");
    }
}

/// C2 on io_uring: a waiting receive skips an urgent byte.
#[test]
fn c2_unwatched_urgent_byte_is_lost_with_receive() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    for backend in available() {
        let local = TcpStream::connect(listener.local_addr().expect("an address"));
        let (local, peer) =
            (local.expect("a connection"), listener.accept().expect("a connection").0);
        let mut poller = open(backend);
        let none = Interest::empty();
        let key =
            poller.register(Arc::new(local), Token(0), none, Mode::Level).expect("a new source");
        poller.submit(Op::recv(key, vec![], 9), Token(1)).expect("an accepted operation");
        assert_eq!(poll_now(&mut *poller), Readiness::empty());
        send(peer.as_raw_fd(), b"!", MsgFlags::MSG_OOB).expect("buffer space");
        // Waits until the byte has arrived, and has woken the receive in the kernel.
        let mut events = Events::with_capacity(4);
        poller
            .submit(Op::timeout(Duration::from_millis(20)), Token(2))
            .expect("an accepted operation");
        while events.completed() == 0 {
            poller.wait(&mut events, None).expect("a wait");
        }
        let priority = Interest::PRIORITY;
        poller.modify(key, Token(0), priority, Mode::Level).expect("no unfinished operation");
        let is_kept = poll_now(&mut *poller).contains(Readiness::PRIORITY);
        assert_eq!(is_kept, backend != Backend::Uring, "{backend}");
    }
}
