//! The [`Poller`] trait, the interface of every backend.

mod forward;

use crate::backend::Backend;
use crate::event::{Events, Interest, Mode, Token};
use crate::key::Key;
use crate::op::{Op, OpId, Rejected};
use crate::statistics::Statistics;
use crate::waker::Waker;
use bitflags::bitflags;
use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

/// A file to register, with a handle that keeps it open while it is registered.
///
/// An `Arc` of anything that owns a file descriptor converts where it is passed:
/// `poller.register(socket.clone(), …)` with an `Arc<TcpStream>`. (`Arc::clone(&socket)` does not,
/// because its type is fixed before it is passed.) A reference does not convert either: the poller
/// must own a handle.
///
/// To register a raw descriptor, wrap it: `Arc::new(unsafe { BorrowedFd::borrow_raw(fd) })`. The
/// program must then keep the descriptor open until it is deregistered.
///
/// No handle can prevent dup2(2) onto a registered descriptor: the poller then watches one file and
/// the kernel another. Deregister first.
pub type Source = Arc<dyn AsFd + Send + Sync>;

bitflags! {
    /// The features that a backend's kernel mechanism provides natively. The rest is emulated with
    /// the same results; the difference is the cost.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct Capabilities: u32 {
        /// [`Mode::Level`] is native.
        const NATIVE_LEVEL = 1;
        /// [`Mode::Edge`] is native in all directions of all sources, and [`Poller::drained`] costs
        /// nothing.
        const NATIVE_EDGE = 1 << 1;
        /// [`Mode::OneShot`] is native.
        const NATIVE_ONESHOT = 1 << 2;
        /// Operations ([`Poller::submit`]) are native.
        const NATIVE_OPERATIONS = 1 << 3;
        /// [`Mode::Edge`] is native for `READABLE` and `PRIORITY` of the sources that the contract
        /// names (E2, in the table of permitted differences). [`Poller::drained`] of these costs
        /// nothing. Also set where `NATIVE_EDGE` is.
        const NATIVE_READ_EDGE = 1 << 4;
    }
}

/// Reports which files are ready, and completes operations, by one of five kernel mechanisms.
///
/// The rules are in [`contract`](crate::contract) and are the same on every backend. The letters in
/// parentheses below name its clauses. A poller stays on the thread that made it; only its
/// [`Waker`]s can be sent to other threads:
///
/// ```compile_fail
/// fn must_be_send(_: impl Send) {}
/// must_be_send(quintpoll::Backend::best().open().unwrap());
/// ```
///
/// # Errors
///
/// In a forked child every fallible call fails, with an error of kind
/// [`Other`](io::ErrorKind::Other) that says why (P1).
pub trait Poller {
    /// Returns the backend of this poller.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// use quintpoll::Backend;
    /// assert_eq!(Backend::Poll.open()?.backend(), Backend::Poll);
    /// # Ok(())
    /// # }
    /// ```
    fn backend(&self) -> Backend;

    /// Returns the features that this backend provides natively.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// use quintpoll::{Backend, Capabilities};
    /// assert!(!Backend::Poll.open()?.capabilities().contains(Capabilities::NATIVE_EDGE));
    /// # Ok(())
    /// # }
    /// ```
    fn capabilities(&self) -> Capabilities;

    /// Returns the poller's counters. A poller that wraps another returns the inner one's.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// # use quintpoll::Backend;
    /// assert_eq!(Backend::Sigio.open()?.statistics().overflows, 0);
    /// # Ok(())
    /// # }
    /// ```
    fn statistics(&self) -> Statistics {
        Statistics::default()
    }

    /// Sets the size of the poller's thread pool, whose threads wait for disks and file servers. As
    /// many more threads may each be started for one open. The default is 16; 0 counts as 1.
    ///
    /// One mount (before Linux 6.8, all mounts together) gets at most half of the threads, rounded
    /// up: files of other mounts proceed while a server does not answer. An operation that waits
    /// for a thread is cancelled at once. A thread that was idle for ten seconds ends.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// let mut poller = quintpoll::Backend::Poll.open()?;
    /// poller.set_max_threads(64);
    /// # Ok(())
    /// # }
    /// ```
    fn set_max_threads(&mut self, max: usize) {
        let _ = max;
    }

    /// Registers a source and watches it for `interest`.
    ///
    /// A source that is already ready is reported by the next wait, in every mode (R1). Any kind of
    /// file can be registered; regular files, directories and the like are always ready (F1). An
    /// empty `interest` is legal and silent (R8): [`register_for_ops`](Poller::register_for_ops)
    /// registers so. `source.as_fd()` is called once, before anything else.
    ///
    /// The poller shares ownership of the source, so `register(&listener, …)` does not compile.
    /// Pass `Arc::new(listener)`, or `listener.clone()` of an `Arc` (see [`Source`]).
    ///
    /// # Errors
    ///
    /// * `AlreadyExists`: this file descriptor is registered with this poller (R2). A duplicate
    ///   (dup(2)) is a separate source and can be registered too.
    /// * `EBADF`: the descriptor is not open, or was opened with `O_PATH` (R7).
    /// * `InvalidInput`: `interest` has a bit that is no direction (R10).
    /// * Errors of the mechanism: for epoll `ENOSPC` (`/proc/sys/fs/epoll/max_user_watches`),
    ///   `ENOMEM`, `ELOOP`; see [epoll_ctl(2)].
    ///
    /// [epoll_ctl(2)]: https://man7.org/linux/man-pages/man2/epoll_ctl.2.html
    ///
    /// # Panics
    ///
    /// If `source.as_fd()` panics. The poller is unchanged then.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// use quintpoll::{Backend, Events, Interest, Mode, Readiness, Token};
    /// use std::{io::Write, os::unix::net::UnixStream, sync::Arc, time::Duration};
    ///
    /// let (local, mut peer) = UnixStream::pair()?;
    /// let local = Arc::new(local);
    /// let mut poller = Backend::Epoll.open()?;
    /// let key = poller.register(local.clone(), Token(7), Interest::READABLE, Mode::Level)?;
    ///
    /// peer.write_all(b"hello")?;
    /// let mut events = Events::with_capacity(16);
    /// poller.wait(&mut events, Some(Duration::from_secs(10)))?;
    /// let event = events.iter().next().expect("there is something to read");
    /// assert_eq!((event.token, event.key, event.readiness), (Token(7), key, Readiness::READABLE));
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias("epoll_ctl", "EPOLL_CTL_ADD", "IORING_OP_POLL_ADD", "F_SETOWN", "add"))]
    fn register(
        &mut self,
        source: Source,
        token: Token,
        interest: Interest,
        mode: Mode,
    ) -> io::Result<Key>;

    /// Registers a source for operations alone ([`submit`](Poller::submit)).
    ///
    /// Short for [`register`](Poller::register) with `Token(0)`, an empty interest and
    /// [`Mode::Level`]: the source has no events (R8), and each operation has its own token.
    ///
    /// # Errors
    ///
    /// As for [`register`](Poller::register).
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// use quintpoll::{Backend, Events, Op, Token};
    /// use std::{net::TcpListener, sync::Arc};
    ///
    /// let listener = TcpListener::bind("127.0.0.1:0")?;
    /// # let _client = std::net::TcpStream::connect(listener.local_addr()?)?;
    /// let mut poller = Backend::best().open()?;
    /// let key = poller.register_for_ops(Arc::new(listener))?;
    /// poller.submit(Op::accept(key), Token(1))?;
    /// let mut events = Events::with_capacity(16);
    /// poller.wait(&mut events, None)?;
    /// let done = events.completions().next().expect("a client has connected");
    /// assert!(done.token == Token(1) && done.result.is_ok());
    /// # Ok(())
    /// # }
    /// ```
    fn register_for_ops(&mut self, source: Source) -> io::Result<Key> {
        self.register(source, Token(0), Interest::empty(), Mode::Level)
    }

    /// Replaces token, interest and mode together, and checks present readiness (R1, R3).
    ///
    /// # Errors
    ///
    /// * `NotFound`: an unknown or stale key, or another poller's (R4).
    /// * `InvalidInput`: `interest` has a bit that is no direction (R10).
    /// * Errors of the mechanism, as for [`register`](Poller::register). The registration is
    ///   unchanged then.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// # use quintpoll::{Backend, Interest, Mode, Token};
    /// # use std::{os::unix::net::UnixStream, sync::Arc};
    /// # let (local, _peer) = UnixStream::pair()?;
    /// # let mut poller = Backend::Poll.open()?;
    /// let key = poller.register(Arc::new(local), Token(1), Interest::READABLE, Mode::Level)?;
    /// poller.modify(key, Token(2), Interest::READABLE | Interest::WRITABLE, Mode::Edge)?;
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias("epoll_ctl", "EPOLL_CTL_MOD", "reregister"))]
    fn modify(&mut self, key: Key, token: Token, interest: Interest, mode: Mode) -> io::Result<()>;

    /// Checks the readiness of `interest`, a part of the registered one (R1, R10). Ready directions
    /// are reported by the next wait.
    ///
    /// In one-shot mode `rearm` arms exactly that part. In edge mode it is for a source that the
    /// program left before it was drained, and may cost a system call. In level mode it finds only
    /// what a wait would find anyway.
    ///
    /// On SIGIO `rearm` also finds the program's own changes of the file, such as shutdown(2). It
    /// also enables the signals that an `F_SETFL` has disabled. On epoll and io_uring it finds the
    /// wait queue of a file that had none when it was registered, such as `/dev/net/tun` before
    /// `TUNSETIFF`.
    ///
    /// # Errors
    ///
    /// * `NotFound`: an unknown or stale key, or another poller's (R4).
    /// * `InvalidInput`: a direction that is not in the registered interest (R10).
    /// * Errors of the mechanism, as for [`register`](Poller::register). Nothing has changed then.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// # use quintpoll::{Backend, Events, Interest, Mode, Token};
    /// # use std::{os::unix::net::UnixStream, sync::Arc, time::Duration};
    /// # let (local, _peer) = UnixStream::pair()?;
    /// # let mut poller = Backend::Poll.open()?;
    /// # let mut events = Events::with_capacity(4);
    /// let key = poller.register(Arc::new(local), Token(1), Interest::WRITABLE, Mode::OneShot)?;
    /// poller.wait(&mut events, Some(Duration::ZERO))?;
    /// assert_eq!(events.len(), 1);
    /// poller.wait(&mut events, Some(Duration::ZERO))?;
    /// assert_eq!(events.len(), 0);
    /// poller.rearm(key, Interest::WRITABLE)?;
    /// poller.wait(&mut events, Some(Duration::ZERO))?;
    /// assert_eq!(events.len(), 1);
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias("epoll_ctl", "EPOLLONESHOT"))]
    fn rearm(&mut self, key: Key, interest: Interest) -> io::Result<()>;

    /// Tells an edge-triggered registration that an I/O call in these directions returned
    /// `WouldBlock`. The next readiness is reported then (E1). The call is free where edges are
    /// native, and ignored in the other modes. [`try_io`](crate::try_io()) calls it for you.
    ///
    /// A hang-up or error that was reported and lasts is not reported again (E5). Where edges are
    /// emulated, one poll(2) checks whether it lasts.
    ///
    /// # Errors
    ///
    /// As for [`rearm`](Poller::rearm); `OutOfMemory` if that poll(2) fails with it.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// # use quintpoll::{Backend, Interest, Mode, Token};
    /// # use std::{io::{ErrorKind, Read}, os::unix::net::UnixStream, sync::Arc};
    /// # let (local, _peer) = UnixStream::pair()?;
    /// # local.set_nonblocking(true)?;
    /// # let local = Arc::new(local);
    /// # let mut poller = Backend::Poll.open()?;
    /// let key = poller.register(local.clone(), Token(1), Interest::READABLE, Mode::Edge)?;
    /// let mut buffer = [0; 4096];
    /// match (&*local).read(&mut buffer) {
    ///     Err(error) if error.kind() == ErrorKind::WouldBlock => {
    ///         poller.drained(key, Interest::READABLE)?
    ///     }
    ///     _ => { /* use the bytes, and read on */ }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias("EAGAIN", "WouldBlock"))]
    fn drained(&mut self, key: Key, interest: Interest) -> io::Result<()>;

    /// Stops watching a source. No later wait reports it, whatever the kernel had queued, and the
    /// kernel no longer holds its file (R5). The poller's handle is dropped last. To close a
    /// connection, deregister it, then drop it.
    ///
    /// Closing a socket with `SO_LINGER` (socket(7)) blocks the thread until unsent data is
    /// acknowledged, or for the time of the option. Dropping the poller does too. Turn the option
    /// off before, or keep an `Arc` of the source and drop it on another thread.
    ///
    /// # Errors
    ///
    /// `NotFound`: an unknown or stale key, or another poller's (R4).
    ///
    /// # Panics
    ///
    /// If dropping the last handle of the source panics. The poller stays usable.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// # use quintpoll::{Backend, Interest, Mode, Token};
    /// # use std::{io::ErrorKind, os::unix::net::UnixStream, sync::Arc};
    /// # let (local, _peer) = UnixStream::pair()?;
    /// # let mut poller = Backend::Epoll.open()?;
    /// let key = poller.register(Arc::new(local), Token(1), Interest::READABLE, Mode::Level)?;
    /// poller.deregister(key)?;
    /// assert_eq!(poller.deregister(key).unwrap_err().kind(), ErrorKind::NotFound);
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias("epoll_ctl", "EPOLL_CTL_DEL", "IORING_OP_POLL_REMOVE", "delete"))]
    fn deregister(&mut self, key: Key) -> io::Result<()>;

    /// Submits an operation. A later wait delivers its [`Completion`](crate::Completion) exactly
    /// once (C1); until then source and buffer belong to the poller (C4). Operations with many
    /// results have a completion for each, and a last one (C8).
    ///
    /// A direction of a source is either watched or used by operations (M1): register the source
    /// with an interest without that direction, or with
    /// [`register_for_ops`](Poller::register_for_ops). The mode does not matter.
    ///
    /// Sources may be blocking, and no operation blocks the thread (C7). Where the kernel has no
    /// other way (`accept` and `connect`; terminals, FIFOs and some more), the first operation may
    /// set `O_NONBLOCK`, and `deregister` restores it. I/O that must wait for a disk waits in the
    /// kernel, or in a thread of the poller's ([`set_max_threads`](Poller::set_max_threads)). An
    /// open gets a new thread, with the rights that the poller's thread has then.
    ///
    /// # Errors
    ///
    /// The operation is returned, with its buffer:
    ///
    /// * `NotFound`: an unknown or stale key, or another poller's (R4).
    /// * `InvalidInput`: one of
    ///   * the direction is watched (M1), or a receive requests no bytes (C5);
    ///   * a range exceeds the buffer, or the buffer cannot receive that many bytes or any;
    ///   * there are more than 1024 buffers, or the address is too long;
    ///   * the offset is beyond any file;
    ///   * a path contains a zero byte, or cannot be opened with these options;
    ///   * a message passes descriptors by number, not with `Message::file`;
    ///   * a source is spliced to itself;
    ///   * [`Op::skip_success`] is set on an operation whose completion carries a result.
    /// * `OutOfMemory`: the buffer cannot grow that much.
    /// * `Other`: the poller, or the pool, belongs to the process that forked this one (P1).
    ///
    /// Every other error is the completion's result.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// use quintpoll::{Backend, Events, Op, Token};
    /// use std::{io::Write, os::unix::net::UnixStream, sync::Arc};
    ///
    /// let (local, mut peer) = UnixStream::pair()?;
    /// let mut poller = Backend::best().open()?;
    /// let key = poller.register_for_ops(Arc::new(local))?;
    /// let id = poller.submit(Op::recv(key, Vec::new(), 4096), Token(7))?;
    ///
    /// peer.write_all(b"hello")?;
    /// let mut events = Events::with_capacity(16);
    /// poller.wait(&mut events, None)?;
    /// let done = events.completions().next().expect("nothing else ends the wait");
    /// assert_eq!((done.id, done.token, done.transferred), (id, Token(7), 5));
    /// assert_eq!(&done.buf[..], b"hello");
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias("io_uring_enter", "io_uring_submit", "sqe"))]
    fn submit(&mut self, op: Op, token: Token) -> Result<OpId, Rejected>;

    /// Returns the number of unfinished operations of a source, including multishot operations such
    /// as `recv_multi`. Returns 0 for an unknown or stale key. The cost does not depend on the
    /// number. [`Op::skip_success`] shows a use.
    fn pending(&self, key: Key) -> usize;

    /// Cancels an operation. It still completes: with its real result, or with `ECANCELED`
    /// ([`Completion::is_canceled`](crate::Completion::is_canceled)), and then nothing was consumed
    /// beyond `transferred` (X1). An operation that was queued behind another is always cancelled.
    ///
    /// # Errors
    ///
    /// `NotFound`: the operation was never submitted here, its completion has been delivered, or it
    /// has ended silently ([`Op::skip_success`]; X2).
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// # use quintpoll::{Backend, Events, Op, Token};
    /// # use std::time::Duration;
    /// # let mut poller = Backend::best().open()?;
    /// let id = poller.submit(Op::timeout(Duration::from_secs(3600)), Token(1))?;
    /// poller.cancel(id)?;
    /// let mut events = Events::with_capacity(16);
    /// poller.wait(&mut events, None)?;
    /// assert!(events.completions().next().is_some_and(|done| done.is_canceled()));
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias("IORING_OP_ASYNC_CANCEL", "ECANCELED"))]
    fn cancel(&mut self, id: OpId) -> io::Result<()>;

    /// Waits until a source is ready, an operation completes, a [`Waker`] wakes, or `timeout` has
    /// passed. Puts the results into `events`, and discards its previous readiness.
    ///
    /// A timeout of zero collects present readiness and does not block (T1); `None` waits without
    /// limit (T2). Timeouts have nanosecond resolution on the monotonic clock and never end early
    /// (T3, T6). Signals do not end a wait (T5). Events beyond the capacity of `events` come first
    /// in the next waits (Q1, Q2).
    ///
    /// # Errors
    ///
    /// * `InvalidInput`: `events` has a capacity of 0, or `RLIMIT_NOFILE` was lowered below the
    ///   number of sources that poll(2) must check.
    /// * `ENOMEM`, from the kernel.
    ///
    /// An error loses no event; the next wait reports it.
    ///
    /// # System calls
    ///
    /// [pselect6(2)], [ppoll(2)] or [epoll_pwait2(2)], by the backend, for SIGIO also a
    /// [signalfd(2)], and [poll(2)] to verify hints.
    ///
    /// [pselect6(2)]: https://man7.org/linux/man-pages/man2/select.2.html
    /// [signalfd(2)]: https://man7.org/linux/man-pages/man2/signalfd.2.html
    /// [epoll_pwait2(2)]: https://man7.org/linux/man-pages/man2/epoll_wait.2.html
    /// [ppoll(2)]: https://man7.org/linux/man-pages/man2/poll.2.html
    /// [poll(2)]: https://man7.org/linux/man-pages/man2/poll.2.html
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// use quintpoll::{Backend, Events};
    /// use std::time::{Duration, Instant};
    /// let (mut poller, mut events) = (Backend::Poll.open()?, Events::with_capacity(16));
    /// let started = Instant::now();
    /// poller.wait(&mut events, Some(Duration::from_millis(2)))?;
    /// assert!(events.is_empty() && started.elapsed() >= Duration::from_millis(2));
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias("select", "poll", "ppoll", "pselect6", "epoll_wait", "epoll_pwait2"))]
    #[doc(alias("io_uring_enter", "cqe"))]
    fn wait(&mut self, events: &mut Events, timeout: Option<Duration>) -> io::Result<()>;

    /// Returns a waker, which ends a wait from another thread or a signal handler. All wakers of a
    /// poller are equivalent.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// # use quintpoll::{Backend, Events};
    /// # let (mut poller, mut events) = (Backend::Poll.open()?, Events::with_capacity(16));
    /// poller.waker().wake();
    /// poller.wait(&mut events, None)?;
    /// assert!(events.woken());
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias("eventfd", "notify"))]
    fn waker(&self) -> Waker;
}

impl fmt::Debug for dyn Poller + '_ {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Poller").field("backend", &self.backend()).finish_non_exhaustive()
    }
}
