//! The [`Poller`] trait: what a program may ask of any backend.

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

/// A file to watch, together with a handle that keeps it open while the poller does.
///
/// An `Arc` of anything that owns a file becomes one where it is passed:
/// `poller.register(socket.clone(), …)` with an `Arc<TcpStream>`. (`Arc::clone(&socket)` does not,
/// because its type is fixed before it is passed.)
///
/// To watch a bare number, wrap it: `Arc::new(unsafe { BorrowedFd::borrow_raw(number) })`. It is
/// then up to you to keep the number open until it is deregistered.
///
/// What no handle can prevent is dup2(2) onto a registered number: the poller then watches one file
/// and the kernel another. Deregister first.
pub type Source = Arc<dyn AsFd + Send + Sync>;

bitflags! {
    /// What a backend's kernel mechanism does by itself. The rest is emulated, with the same
    /// result; this tells where the costs are, not what works.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct Capabilities: u32 {
        /// [`Mode::Level`] is the kernel's own.
        const NATIVE_LEVEL = 1;
        /// [`Mode::Edge`] is the kernel's own in all directions of all sources;
        /// [`Poller::drained`] costs nothing.
        const NATIVE_EDGE = 1 << 1;
        /// [`Mode::OneShot`] is the kernel's own.
        const NATIVE_ONESHOT = 1 << 2;
        /// Operations ([`Poller::submit`]) are the kernel's own.
        const NATIVE_OPERATIONS = 1 << 3;
        /// [`Mode::Edge`] is the kernel's own for `READABLE` and `PRIORITY` of the sources that the
        /// contract names (E2, in the table of permitted differences); [`Poller::drained`] of these
        /// costs nothing. Also set where `NATIVE_EDGE` is.
        const NATIVE_READ_EDGE = 1 << 4;
    }
}

/// Watches files and tells which are ready, by one of five kernel mechanisms.
///
/// The rules are in [`contract`](crate::contract); they are the same on every backend, and the
/// letters in brackets below name its clauses. A poller stays on the thread that made it; only its
/// [`Waker`]s go elsewhere:
///
/// ```compile_fail
/// fn must_be_send(_: impl Send) {}
/// must_be_send(quintpoll::Backend::best().open().unwrap());
/// ```
///
/// # Errors
///
/// In a forked child every call that can fail does so, with an error of kind
/// [`Other`](io::ErrorKind::Other) that says why (P1).
pub trait Poller {
    /// Which mechanism this is.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// use quintpoll::Backend;
    /// assert_eq!(Backend::Poll.open()?.backend(), Backend::Poll);
    /// # Ok(())
    /// # }
    /// ```
    fn backend(&self) -> Backend;

    /// What this mechanism does natively.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// use quintpoll::{Backend, Capabilities};
    /// assert!(!Backend::Poll.open()?.capabilities().contains(Capabilities::NATIVE_EDGE));
    /// # Ok(())
    /// # }
    /// ```
    fn capabilities(&self) -> Capabilities;

    /// What this poller has been through. One that wraps another passes it on.
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

    /// Sets how many threads of the poller's may wait for disks and file servers: so many that take
    /// call after call, and as many more that are started for one open each. The default is 16; 0
    /// counts as 1. One mount (before Linux 6.8, all mounts together) gets at most half of them,
    /// rounded up: files of others go on while a server does not answer. What waits for a thread is
    /// cancelled at once. A thread that was idle for ten seconds ends.
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

    /// Begins to watch a source.
    ///
    /// A source that is ready already is reported by the next wait, in every mode (R1). Any kind of
    /// file will do; regular files, directories and the like are always ready (F1). An empty
    /// `interest` is legal and silent (R8). `source.as_fd()` is called once, first of all.
    ///
    /// # Errors
    ///
    /// * `AlreadyExists`: this file number is registered with this poller (R2). A duplicate
    ///   (dup(2)) is another source and works beside it.
    /// * `EBADF`: the number is not open, or was opened with `O_PATH` (R7).
    /// * `InvalidInput`: `interest` has a bit that is no direction (R10).
    /// * What the mechanism says: for epoll `ENOSPC` (`/proc/sys/fs/epoll/max_user_watches`),
    ///   `ENOMEM`, `ELOOP`; see [epoll_ctl(2)].
    ///
    /// [epoll_ctl(2)]: https://man7.org/linux/man-pages/man2/epoll_ctl.2.html
    ///
    /// # Panics
    ///
    /// If `source.as_fd()` does. Nothing has changed then.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// use quintpoll::{Backend, Events, Interest, Mode, Readiness, Token};
    /// use std::{io::Write, os::unix::net::UnixStream, sync::Arc, time::Duration};
    ///
    /// let (here, mut there) = UnixStream::pair()?;
    /// let here = Arc::new(here);
    /// let mut poller = Backend::Epoll.open()?;
    /// let key = poller.register(here.clone(), Token(7), Interest::READABLE, Mode::Level)?;
    ///
    /// there.write_all(b"hello")?;
    /// let mut events = Events::with_capacity(16);
    /// poller.wait(&mut events, Some(Duration::from_secs(10)))?;
    /// let event = events.iter().next().expect("there is something to read");
    /// assert_eq!((event.token, event.key, event.readiness), (Token(7), key, Readiness::READABLE));
    /// # Ok(())
    /// # }
    /// ```
    fn register(
        &mut self,
        source: Source,
        token: Token,
        interest: Interest,
        mode: Mode,
    ) -> io::Result<Key>;

    /// Replaces token, interest and mode together, and looks again at what is ready (R1, R3).
    ///
    /// # Errors
    ///
    /// * `NotFound`: an unknown or stale key, or another poller's (R4).
    /// * `InvalidInput`: `interest` has a bit that is no direction (R10).
    /// * What the mechanism says, as for [`register`](Poller::register). The registration is then
    ///   as it was.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// # use quintpoll::{Backend, Interest, Mode, Token};
    /// # use std::{os::unix::net::UnixStream, sync::Arc};
    /// # let (here, _there) = UnixStream::pair()?;
    /// # let mut poller = Backend::Poll.open()?;
    /// let key = poller.register(Arc::new(here), Token(1), Interest::READABLE, Mode::Level)?;
    /// poller.modify(key, Token(2), Interest::READABLE | Interest::WRITABLE, Mode::Edge)?;
    /// # Ok(())
    /// # }
    /// ```
    fn modify(&mut self, key: Key, token: Token, interest: Interest, mode: Mode) -> io::Result<()>;

    /// Looks again at `interest`, a part of the registered one (R1, R10): what is ready is reported
    /// by the next wait.
    ///
    /// In one-shot mode this arms exactly that part. In edge mode it is for a source that was left
    /// before it was drained; it may cost a system call. In level mode it changes nothing that
    /// a wait would not find by itself. On SIGIO it also finds what the program has done to its own
    /// file, such as shutdown(2), and makes a file signal again that an `F_SETFL` has silenced. On
    /// epoll and io_uring it finds the queue of a file that had none when it was registered, such
    /// as `/dev/net/tun` before `TUNSETIFF`.
    ///
    /// # Errors
    ///
    /// * `NotFound`: an unknown or stale key, or another poller's (R4).
    /// * `InvalidInput`: a direction that is not in the registered interest (R10).
    /// * What the mechanism says, as for [`register`](Poller::register); nothing has changed then.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// # use quintpoll::{Backend, Events, Interest, Mode, Token};
    /// # use std::{os::unix::net::UnixStream, sync::Arc, time::Duration};
    /// # let (here, _there) = UnixStream::pair()?;
    /// # let mut poller = Backend::Poll.open()?;
    /// # let mut events = Events::with_capacity(4);
    /// let key = poller.register(Arc::new(here), Token(1), Interest::WRITABLE, Mode::OneShot)?;
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
    fn rearm(&mut self, key: Key, interest: Interest) -> io::Result<()>;

    /// Tells an edge-triggered registration that an I/O call in these directions said `WouldBlock`.
    /// From now on the next readiness is reported (E1). Free where edges are native; ignored in
    /// the other modes. [`try_io`](crate::try_io()) calls this for you.
    ///
    /// A hang-up or error that was reported and is still there is not reported again (E5). Where
    /// edges are emulated one poll(2) tells whether it is.
    ///
    /// # Errors
    ///
    /// As for [`rearm`](Poller::rearm); `OutOfMemory` if that poll(2) says so.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// # use quintpoll::{Backend, Interest, Mode, Token};
    /// # use std::{io::{ErrorKind, Read}, os::unix::net::UnixStream, sync::Arc};
    /// # let (here, _there) = UnixStream::pair()?;
    /// # here.set_nonblocking(true)?;
    /// # let here = Arc::new(here);
    /// # let mut poller = Backend::Poll.open()?;
    /// let key = poller.register(here.clone(), Token(1), Interest::READABLE, Mode::Edge)?;
    /// let mut buffer = [0; 4096];
    /// match (&*here).read(&mut buffer) {
    ///     Err(error) if error.kind() == ErrorKind::WouldBlock => {
    ///         poller.drained(key, Interest::READABLE)?
    ///     }
    ///     _ => { /* use it, and read on */ }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    fn drained(&mut self, key: Key, interest: Interest) -> io::Result<()>;

    /// Stops watching a source. No later wait reports it, whatever the kernel had queued, and the
    /// kernel holds its file no longer (R5). The poller's handle is dropped last. To close a
    /// connection, deregister it, then drop it.
    ///
    /// To close a socket with `SO_LINGER` (socket(7)) blocks the thread until what it was to send
    /// is acknowledged, or for the time of the option; so does dropping the poller. Turn the
    /// option off before, or keep an `Arc` of the source and drop it on another thread.
    ///
    /// # Errors
    ///
    /// `NotFound`: an unknown or stale key, or another poller's (R4).
    ///
    /// # Panics
    ///
    /// If dropping the last handle of the source panics. The poller is in order then.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// # use quintpoll::{Backend, Interest, Mode, Token};
    /// # use std::{io::ErrorKind, os::unix::net::UnixStream, sync::Arc};
    /// # let (here, _there) = UnixStream::pair()?;
    /// # let mut poller = Backend::Epoll.open()?;
    /// let key = poller.register(Arc::new(here), Token(1), Interest::READABLE, Mode::Level)?;
    /// poller.deregister(key)?;
    /// assert_eq!(poller.deregister(key).unwrap_err().kind(), ErrorKind::NotFound);
    /// # Ok(())
    /// # }
    /// ```
    fn deregister(&mut self, key: Key) -> io::Result<()>;

    /// Hands an operation over. Its [`Completion`](crate::Completion) comes with a later wait, and
    /// exactly once (C1); until then source and buffer are the poller's (C4). Those with many
    /// results have a completion for each, and a last one (C8).
    ///
    /// A direction of a source is either watched or operated (M1): register with an interest in
    /// which it is not, such as an empty one. The mode does not matter then. Blocking sources will
    /// do, and no operation blocks the thread (C7). Where the kernel has no other way (`accept` and
    /// `connect`; terminals, FIFOs and some more), the first operation may set `O_NONBLOCK`, and
    /// deregistering takes it back. What has to wait for a disk does so in the kernel, or in a
    /// thread of the poller's ([`set_max_threads`](Poller::set_max_threads)); an open has one that
    /// is started for it, with the rights that the poller's thread has then.
    ///
    /// # Errors
    ///
    /// The operation comes back, with its buffer:
    ///
    /// * `NotFound`: an unknown or stale key, or another poller's (R4).
    /// * `InvalidInput`: the direction is watched (M1); nothing is to be received (C5); a range
    ///   exceeds the buffer; it can't be received into this buffer, or not so much; there are more
    ///   than 1024 buffers; the address is too long; the offset is beyond any file; a path has a
    ///   zero in it, or can't be opened so; files are to be passed by number; a source is to be
    ///   spliced to itself; or [`Op::skip_success`] is asked of an operation that brings something.
    /// * `OutOfMemory`: the buffer can't grow so much.
    /// * `Other`: the poller, or the pool, belongs to the process that this one was forked from
    ///   (P1).
    ///
    /// Everything else is the completion's result.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// use quintpoll::{Backend, Events, Interest, Mode, Op, Token};
    /// use std::{io::Write, os::unix::net::UnixStream, sync::Arc};
    ///
    /// let (here, mut there) = UnixStream::pair()?;
    /// let mut poller = Backend::best().open()?;
    /// let key = poller.register(Arc::new(here), Token(0), Interest::empty(), Mode::Level)?;
    /// let id = poller.submit(Op::recv(key, Vec::new(), 4096), Token(7))?;
    ///
    /// there.write_all(b"hello")?;
    /// let mut events = Events::with_capacity(16);
    /// poller.wait(&mut events, None)?;
    /// let done = events.completions().next().expect("it was all there was to wait for");
    /// assert_eq!((done.id, done.token, done.transferred), (id, Token(7), 5));
    /// assert_eq!(&done.buf[..], b"hello");
    /// # Ok(())
    /// # }
    /// ```
    fn submit(&mut self, op: Op, token: Token) -> Result<OpId, Rejected>;

    /// Returns how many operations of a source are unfinished; one that waits for results, such as
    /// a `recv_multi`, counts too. Returns 0 for an unknown or stale key. The cost does not depend
    /// on the number. See [`Op::skip_success`] for what it is good for.
    fn pending(&self, key: Key) -> usize;

    /// Has an operation end soon. It still completes: with its real result, or `ECANCELED`
    /// ([`Completion::is_canceled`](crate::Completion::is_canceled)), and then nothing was consumed
    /// beyond what `transferred` counts (X1). One that was waiting for its turn is certainly
    /// cancelled.
    ///
    /// # Errors
    ///
    /// `NotFound`: it was never submitted here, its completion has been delivered, or it has ended
    /// silently ([`Op::skip_success`]; X2).
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
    fn cancel(&mut self, id: OpId) -> io::Result<()>;

    /// Waits until a source is ready, a [`Waker`] wakes, or `timeout` has passed, and puts what it
    /// found into `events`, whose old content is forgotten.
    ///
    /// A timeout of zero collects what is ready and does not wait (T1); `None` waits without limit
    /// (T2). Timeouts have nanosecond resolution on the monotonic clock and never end early
    /// (T3, T6). Signals do not end a wait (T5). What exceeds the capacity of `events` comes
    /// first in the next waits (Q1, Q2).
    ///
    /// # Errors
    ///
    /// * `InvalidInput`: `events` has a capacity of 0, or `RLIMIT_NOFILE` was lowered below the
    ///   number of sources that poll(2) has to look at.
    /// * `ENOMEM`, from the kernel.
    ///
    /// No event is lost by an error; the next wait reports it.
    ///
    /// It rests on [pselect6(2)], [ppoll(2)] or [epoll_pwait2(2)], by the backend, with SIGIO on a
    /// [signalfd(2)] too, and on [poll(2)] for what is only hinted at.
    ///
    /// [pselect6(2)]: https://man7.org/linux/man-pages/man2/select.2.html
    /// [signalfd(2)]: https://man7.org/linux/man-pages/man2/signalfd.2.html
    /// [epoll_pwait2(2)]: https://man7.org/linux/man-pages/man2/epoll_wait.2.html
    /// [ppoll(2)]: https://man7.org/linux/man-pages/man2/poll.2.html
    /// [poll(2)]: https://man7.org/linux/man-pages/man2/poll.2.html
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
    fn wait(&mut self, events: &mut Events, timeout: Option<Duration>) -> io::Result<()>;

    /// What ends a wait from another thread or a signal handler. All wakers of a poller are alike.
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
    fn waker(&self) -> Waker;
}

impl fmt::Debug for dyn Poller + '_ {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Poller").field("backend", &self.backend()).finish_non_exhaustive()
    }
}

/// Passes every call on, so that a `Box<dyn Poller>` goes where an `impl Poller` is asked for.
macro_rules! pass_on {
    ($handle:ty) => {
        impl<P: Poller + ?Sized> Poller for $handle {
            fn backend(&self) -> Backend {
                (**self).backend()
            }

            fn capabilities(&self) -> Capabilities {
                (**self).capabilities()
            }

            fn statistics(&self) -> Statistics {
                (**self).statistics()
            }

            fn set_max_threads(&mut self, max: usize) {
                (**self).set_max_threads(max);
            }

            fn pending(&self, key: Key) -> usize {
                (**self).pending(key)
            }

            fn register(
                &mut self,
                source: Source,
                token: Token,
                interest: Interest,
                mode: Mode,
            ) -> io::Result<Key> {
                (**self).register(source, token, interest, mode)
            }

            fn modify(
                &mut self,
                key: Key,
                token: Token,
                interest: Interest,
                mode: Mode,
            ) -> io::Result<()> {
                (**self).modify(key, token, interest, mode)
            }

            fn rearm(&mut self, key: Key, interest: Interest) -> io::Result<()> {
                (**self).rearm(key, interest)
            }

            fn drained(&mut self, key: Key, interest: Interest) -> io::Result<()> {
                (**self).drained(key, interest)
            }

            fn deregister(&mut self, key: Key) -> io::Result<()> {
                (**self).deregister(key)
            }

            fn wait(&mut self, events: &mut Events, timeout: Option<Duration>) -> io::Result<()> {
                (**self).wait(events, timeout)
            }

            fn submit(&mut self, op: Op, token: Token) -> Result<OpId, Rejected> {
                (**self).submit(op, token)
            }

            fn cancel(&mut self, id: OpId) -> io::Result<()> {
                (**self).cancel(id)
            }

            fn waker(&self) -> Waker {
                (**self).waker()
            }
        }
    };
}

pass_on!(Box<P>);
pass_on!(&mut P);
