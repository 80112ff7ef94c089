//! Helpers for the cases: a poller with a watchdog, pairs of files, and oracles.

use super::Maker;
use crate::backend::Backend;
use crate::event::{Event, Events, Interest, Mode, Readiness, Token};
use crate::key::Key;
use crate::poller::{Poller, Source};
use crate::sys::staging;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::time::{ClockId, clock_gettime};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(super) const MODES: [Mode; 3] = [Mode::Level, Mode::Edge, Mode::OneShot];
pub(super) const READ: Interest = Interest::READABLE;
pub(super) const WRITE: Interest = Interest::WRITABLE;
pub(super) const BOTH: Interest = Interest::READABLE.union(Interest::WRITABLE);
pub(super) const ZERO: Duration = Duration::ZERO;
/// The timeout of a wait that something else must end; reaching it is a failure.
pub(super) const LONG: Duration = Duration::from_secs(60);

/// A case that runs longer than this hangs.
pub(super) const WATCHDOG: Duration = Duration::from_secs(120);

/// The mark of a [`TestContext::note`] in the output of a case's process.
pub(super) const NOTE: &str = "note: ";

/// Why a case can't be run; thrown by [`TestContext::skip`] and caught by the runner.
pub(super) struct Skip(pub(super) String);

/// The environment of a case: makes pollers of the backend under test.
pub(crate) struct TestContext {
    maker: Maker,
    /// The name given to the macro.
    name: String,
    started: Instant,
}

impl TestContext {
    pub(super) fn new(maker: Maker, name: &str) -> Self {
        TestContext { maker, name: name.to_owned(), started: Instant::now() }
    }

    /// Returns true if the name is that of a built-in backend. Variants of a backend run long cases
    /// with fewer rounds.
    pub(super) fn is_builtin_backend(&self) -> bool {
        Backend::ALL.iter().any(|backend| backend.to_string() == self.name)
    }

    /// Returns the numbers of the rounds of a long case: at least `kinds`, at most `count`. Stops,
    /// with a note, after half of the watchdog's time: on a busy machine a round may take a second.
    /// The case has a process of its own.
    pub(super) fn rounds(&self, count: usize, kinds: usize) -> impl Iterator<Item = usize> + '_ {
        (0..count).take_while(move |&round| {
            let goes_on = round < kinds || self.started.elapsed() < WATCHDOG / 2;
            if !goes_on {
                self.note(&format!("there was time for {round} of {count} rounds"));
            }
            goes_on
        })
    }

    /// Ends the case as skipped.
    pub(super) fn skip(&self, reason: impl Into<String>) -> ! {
        std::panic::resume_unwind(Box::new(Skip(reason.into())))
    }

    /// Prints a note, on success too, that a case could not run in full. The case has a process of
    /// its own.
    pub(super) fn note(&self, what: &str) {
        // `write_all` is not captured by the test harness.
        let _ = io::stderr().write_all(format!("{NOTE}{what}\n").as_bytes());
    }

    pub(super) fn try_poller(&self) -> io::Result<Box<dyn Poller>> {
        (self.maker)()
    }

    pub(super) fn poller(&self) -> Box<dyn Poller> {
        match self.try_poller() {
            Ok(poller) => poller,
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                self.skip(error.to_string())
            }
            Err(error) => panic!("opening a poller failed: {error}"),
        }
    }

    /// A poller with room for `capacity` events.
    pub(super) fn harness(&self, capacity: usize) -> ReadinessHarness {
        ReadinessHarness { poller: self.poller(), events: Events::with_capacity(capacity) }
    }
}

/// A poller and its events, with the calls that most cases make.
pub(super) struct ReadinessHarness {
    pub(super) poller: Box<dyn Poller>,
    pub(super) events: Events,
}

/// Tokens and readiness reported by a wait, sorted by token.
pub(super) type Reported = Vec<(usize, Readiness)>;

impl ReadinessHarness {
    pub(super) fn register(
        &mut self,
        source: Source,
        token: usize,
        interest: Interest,
        mode: Mode,
    ) -> Key {
        let registered = self.poller.register(source, Token(token), interest, mode);
        registered.unwrap_or_else(|error| panic!("register: {error}"))
    }

    pub(super) fn modify(&mut self, key: Key, token: usize, interest: Interest, mode: Mode) {
        let modified = self.poller.modify(key, Token(token), interest, mode);
        modified.unwrap_or_else(|error| panic!("modify: {error}"));
    }

    pub(super) fn rearm(&mut self, key: Key, interest: Interest) {
        self.poller.rearm(key, interest).unwrap_or_else(|error| panic!("rearm: {error}"));
    }

    pub(super) fn drained(&mut self, key: Key, interest: Interest) {
        self.poller.drained(key, interest).unwrap_or_else(|error| panic!("drained: {error}"));
    }

    pub(super) fn deregister(&mut self, key: Key) {
        self.poller.deregister(key).unwrap_or_else(|error| panic!("deregister: {error}"));
    }

    pub(super) fn wait(&mut self, timeout: Option<Duration>) {
        let waited = self.poller.wait(&mut self.events, timeout);
        waited.unwrap_or_else(|error| panic!("wait: {error}"));
        let capacity = self.events.capacity();
        assert!(
            self.events.len() <= capacity,
            "{} events in room for {capacity}",
            self.events.len()
        );
    }

    /// Returns the events of a wait that does not block.
    pub(super) fn ready_now(&mut self) -> Reported {
        self.wait(Some(ZERO));
        self.reported()
    }

    /// Returns the events of the last wait.
    pub(super) fn reported(&self) -> Reported {
        let pair = |event: &Event| (event.token.0, event.readiness);
        let mut reported: Reported = self.events.iter().map(pair).collect();
        reported.sort_by_key(|&(token, readiness)| (token, readiness.bits()));
        reported
    }

    /// Fails if a wait reports an event or a wake now.
    pub(super) fn expect_silence(&mut self, why: &str) {
        let reported = self.ready_now();
        assert!(
            reported.is_empty() && !self.events.woken(),
            "expected no event ({why}), got {reported:?}"
        );
    }

    /// Fails unless exactly these events are reported now.
    pub(super) fn expect_now(&mut self, expected: &[(usize, Readiness)], why: &str) {
        let reported = self.ready_now();
        assert_eq!(reported, expected, "{why}");
    }

    /// Waits until an event is reported, for at most [`LONG`].
    pub(super) fn next(&mut self, what: &str) -> Reported {
        self.wait(Some(LONG));
        assert!(!self.events.is_empty(), "no event was reported, expected: {what}");
        self.reported()
    }
}

/// Returns the kind of the error with which a call must fail.
pub(super) fn expect_err_kind<T>(answer: io::Result<T>) -> io::ErrorKind {
    match answer {
        Ok(_) => panic!("a call succeeded that must fail"),
        Err(error) => {
            expect_cause(&error);
            error.kind()
        }
    }
}

/// Fails unless an error has an OS error number or a message.
pub(super) fn expect_cause(error: &io::Error) {
    let has_cause = error.raw_os_error().is_some() || error.get_ref().is_some();
    assert!(has_cause, "an error without a number or message: {error:?}");
}

/// Returns a connected Unix stream: the source to register, and its peer. Both are non-blocking.
pub(super) fn stream() -> (Arc<UnixStream>, UnixStream) {
    let (local, peer) = UnixStream::pair().unwrap_or_else(|error| panic!("socketpair: {error}"));
    for end in [&local, &peer] {
        end.set_nonblocking(true).unwrap_or_else(|error| panic!("O_NONBLOCK: {error}"));
    }
    (Arc::new(local), peer)
}

/// Returns a pipe, reader first. Both ends are non-blocking.
pub(super) fn pipe() -> (OwnedFd, OwnedFd) {
    let flags = OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
    nix::unistd::pipe2(flags).unwrap_or_else(|error| panic!("pipe2: {error}"))
}

/// Returns a TCP connection over loopback. Both ends are non-blocking.
pub(super) fn tcp() -> (Arc<TcpStream>, TcpStream) {
    let (listener, local) = tcp_listener_and_client();
    let (peer, _) = listener.accept().unwrap_or_else(|error| panic!("accept: {error}"));
    peer.set_nonblocking(true).unwrap_or_else(|error| panic!("O_NONBLOCK: {error}"));
    (local, peer)
}

/// Returns a blocking listener, and a client that it has not accepted yet.
pub(super) fn tcp_listener_and_client() -> (TcpListener, Arc<TcpStream>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let listener = listener.unwrap_or_else(|error| panic!("bind: {error}"));
    let address = listener.local_addr().unwrap_or_else(|error| panic!("getsockname: {error}"));
    let local = TcpStream::connect(address).unwrap_or_else(|error| panic!("connect: {error}"));
    local.set_nonblocking(true).unwrap_or_else(|error| panic!("O_NONBLOCK: {error}"));
    (listener, Arc::new(local))
}

/// Writes `bytes`, for which there must be room.
pub(super) fn put(mut to: &UnixStream, bytes: &[u8]) {
    to.write_all(bytes).unwrap_or_else(|error| panic!("write: {error}"));
}

/// Reads at most `count` bytes.
pub(super) fn take(mut from: &UnixStream, count: usize) -> usize {
    from.read(&mut vec![0; count]).unwrap_or_else(|error| panic!("read: {error}"))
}

/// Reads until `WouldBlock` or end of file.
pub(super) fn drain(from: impl AsFd) {
    let mut buffer = [0; 4096];
    loop {
        match nix::unistd::read(&from, &mut buffer) {
            Ok(0) | Err(Errno::EAGAIN) => return,
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => panic!("read: {error}"),
        }
    }
}

/// Writes until `WouldBlock`.
pub(super) fn fill(to: impl AsFd) {
    loop {
        match nix::unistd::write(&to, &[0; 4096]) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => return,
            Err(error) => panic!("write: {error}"),
        }
    }
}

/// The oracle: returns what poll(2) reports for these bits now.
pub(super) fn oracle(of: impl AsFd, asked: PollFlags) -> PollFlags {
    let mut fds = [PollFd::new(of.as_fd(), asked)];
    nix::poll::poll(&mut fds, PollTimeout::ZERO).unwrap_or_else(|error| panic!("poll: {error}"));
    fds[0].revents().unwrap_or_else(PollFlags::empty)
}

/// Polls until `until` is true, for what the kernel does asynchronously, such as TCP.
pub(super) fn wait_until_kernel(
    of: impl AsFd,
    asked: PollFlags,
    until: impl Fn(PollFlags) -> bool,
) {
    let started = Instant::now();
    while !until(oracle(&of, asked)) {
        assert!(
            started.elapsed() < LONG,
            "the expected poll(2) bits did not appear within {LONG:?}"
        );
        std::thread::yield_now();
    }
}

/// Waits until a thread of this process sleeps in the kernel.
pub(super) fn wait_until_asleep(thread: i32) {
    assert!(falls_asleep(thread), "the thread did not block");
}

/// Returns true if a thread of this process blocks in the kernel within [`LONG`].
pub(super) fn falls_asleep(thread: i32) -> bool {
    let started = Instant::now();
    while started.elapsed() < LONG {
        let stat = std::fs::read_to_string(format!("/proc/self/task/{thread}/stat"));
        let stat = stat.unwrap_or_else(|error| panic!("the thread has exited: {error}"));
        // The state follows the name, which is in parentheses and may contain any character.
        if stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('S')) {
            return true;
        }
        std::thread::yield_now();
    }
    false
}

/// CPU time and context switches of a thread that should be blocked.
#[derive(Debug)]
pub(super) struct CpuUsage {
    watched: Duration,
    /// CPU time used while watched.
    worked: Duration,
    /// Count of voluntary context switches while watched.
    voluntary_switches: u64,
}

impl CpuUsage {
    /// Measures a thread of this process after it has blocked.
    pub(super) fn of(thread: i32) -> Self {
        wait_until_asleep(thread);
        let (started, worked, voluntary_switches) =
            (Instant::now(), time_worked(thread), voluntary_switches(thread));
        std::thread::sleep(Duration::from_millis(100));
        let (worked, voluntary_switches) =
            (time_worked(thread) - worked, self::voluntary_switches(thread) - voluntary_switches);
        CpuUsage { watched: started.elapsed(), worked, voluntary_switches }
    }

    /// Fails unless the thread slept. A sleeping thread uses no CPU time and switches once; the
    /// thresholds are so high that only a loop exceeds them.
    pub(super) fn expect_sleep(&self, why: &str) {
        let slept = self.worked * 10 < self.watched && self.voluntary_switches < 20;
        assert!(slept, "a blocked wait must not poll repeatedly ({why}): {self:?}");
    }
}

/// Returns the CPU time that a thread of this process has used.
fn time_worked(thread: i32) -> Duration {
    // The clock id of a thread's CPU time (CPUCLOCK_SCHED, per thread).
    let clock = ClockId::from_raw((!thread << 3) | 6);
    let time = clock_gettime(clock).unwrap_or_else(|e| panic!("clock_gettime of a thread: {e}"));
    Duration::from(time)
}

/// Returns how often a thread of this process has blocked voluntarily.
fn voluntary_switches(thread: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/self/task/{thread}/status"));
    let status = status.unwrap_or_else(|error| panic!("the thread has exited: {error}"));
    let count = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    let count = count.and_then(|count| count.trim().parse().ok());
    count.unwrap_or_else(|| panic!("no count of context switches in {status:?}"))
}

/// Returns the open file descriptors of this process, sorted.
pub(super) fn open_fds() -> Vec<i32> {
    let directory = std::fs::read_dir("/proc/self/fd");
    let directory = directory.unwrap_or_else(|error| panic!("/proc/self/fd: {error}"));
    let mut fds: Vec<i32> =
        directory.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
    fds.sort_unstable();
    // The descriptor of the directory itself is closed by now.
    fds.retain(|fd| std::fs::read_link(format!("/proc/self/fd/{fd}")).is_ok());
    fds
}

/// A temporary directory of one case, removed on drop.
pub(super) struct TempDir(pub(super) std::path::PathBuf);

impl TempDir {
    pub(super) fn new() -> Self {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NEXT: AtomicU32 = AtomicU32::new(0);
        loop {
            let count = NEXT.fetch_add(1, Ordering::Relaxed);
            let name = format!("quintpoll-{}-{count}", std::process::id());
            let path = std::env::temp_dir().join(name);
            match std::fs::create_dir(&path) {
                Ok(()) => return TempDir(path),
                // A killed process with the same pid left its directory behind.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => panic!("{}: {error}", path.display()),
            }
        }
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Sends one urgent byte.
pub(super) fn put_urgent(to: &TcpStream) {
    use nix::sys::socket::{MsgFlags, send};
    use std::os::fd::AsRawFd;
    assert_eq!(send(to.as_raw_fd(), b"!", MsgFlags::MSG_OOB), Ok(1), "an urgent byte");
}

/// Restores the default action of SIGPIPE, which the Rust runtime ignores, and fails unless it
/// kills a process. The case has a process of its own.
pub(super) fn let_sigpipe_end_the_process() {
    let set = staging::default_action(libc::SIGPIPE);
    set.unwrap_or_else(|error| panic!("SIG_DFL: {error}"));
    let ended = staging::in_forked_child(|| {
        let (reader, writer) = pipe();
        drop(reader);
        let _ = nix::unistd::write(&writer, b"x");
        0
    });
    // The error of a child killed by a signal, not of a failed fork.
    let by_signal = format!("signal {}", libc::SIGPIPE);
    let is_ended = ended.as_ref().is_err_and(|error| error.to_string().ends_with(&by_signal));
    assert!(is_ended, "an unprotected write must end the process: {ended:?}");
}
