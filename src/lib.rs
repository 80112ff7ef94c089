//! Readiness events and asynchronous I/O operations on Linux, with the same results on select,
//! poll, epoll, SIGIO and io_uring.
//!
//! A program opens a [`Poller`] on one of the five mechanisms ([`Backend`]), chosen at run time.
//! The [contract] defines what each call means on every backend, and a
//! [conformance suite](#features) tests it.
//!
//! # Readiness
//!
//! Register sources, wait, and make the I/O calls that do not block any more. A source is an `Arc`
//! of anything that is `AsFd` (and `Send + Sync`); the poller holds a clone:
//!
//! ```
//! # fn main() -> std::io::Result<()> {
//! use quintpoll::{Backend, Events, Interest, Mode, Token};
//! use std::{net::TcpListener, sync::Arc};
//!
//! let listener = Arc::new(TcpListener::bind("127.0.0.1:0")?);
//! listener.set_nonblocking(true)?;
//! let mut poller = Backend::best().open()?;
//! poller.register(listener.clone(), Token(0), Interest::READABLE, Mode::Level)?;
//!
//! # let client = std::net::TcpStream::connect(listener.local_addr()?)?;
//! let mut events = Events::with_capacity(64);
//! poller.wait(&mut events, None)?;
//! for event in &events {
//!     if event.token == Token(0) {
//!         let (_connection, peer) = listener.accept()?;
//!         println!("{peer} has connected");
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Operations
//!
//! Submit operations ([`Op`]) with their buffers, wait, and take their completions, which return
//! the results and the buffers ([`Buf`]). No operation blocks the thread; io_uring executes them in
//! the kernel, the other backends emulate them:
//!
//! ```
//! # fn main() -> std::io::Result<()> {
//! use quintpoll::{Backend, Events, Op, Outcome, Token};
//! use std::{net::TcpListener, sync::Arc};
//!
//! let listener = TcpListener::bind("127.0.0.1:0")?;
//! # let client = std::net::TcpStream::connect(listener.local_addr()?)?;
//! let mut poller = Backend::best().open()?;
//! let listener = poller.register_for_ops(Arc::new(listener))?;
//! poller.submit(Op::accept(listener), Token(1))?;
//!
//! let mut events = Events::with_capacity(64);
//! poller.wait(&mut events, None)?;
//! for completion in events.completions() {
//!     if let Outcome::Accepted { socket, .. } = completion.result? {
//!         let peer = poller.register_for_ops(Arc::new(socket))?;
//!         poller.submit(Op::send_all(peer, "hello\n", ..), Token(2))?;
//!     }
//! }
//! # poller.wait(&mut events, None)?;
//! # let sent = events.completions().next().expect("nothing else ends the wait");
//! # assert_eq!((sent.token, sent.transferred), (Token(2), 6));
//! # Ok(())
//! # }
//! ```
//!
//! # Backends
//!
//! | name | mechanism | Linux | level | edge | one-shot | operations | cost of a wait grows with |
//! |---|---|---|---|---|---|---|---|
//! | `epoll` | epoll(7); epoll_pwait2(2) since 5.11 | 4.14 | native | native | native | emulated | ready sources |
//! | `uring` | io_uring(7), multishot `POLL_ADD` | 5.13 | emulated | native | emulated | native | ready sources |
//! | `poll` | ppoll(2) | 4.14 | native | emulated | emulated | emulated | registered sources |
//! | `sigio` | fcntl(2) `F_SETSIG`, signalfd(2) | 4.14 | emulated | native for reading | emulated | emulated | ready sources, and those that ppoll(2) watches |
//! | `select` | pselect6(2) | 4.14 | native | emulated | emulated | emulated | the highest file descriptor |
//!
//! Emulated means that it costs more, not that it differs.
//!
//! In [edge](Mode::Edge) mode a program must tell the poller when a call returned `WouldBlock`: by
//! [`try_io()`], or by [`drained`](Poller::drained) with only the direction that blocked. epoll and
//! io_uring report the next readiness without that, and hide a missing call: test code for edge
//! mode on poll.
//!
//! | backend | when to pick it | drawbacks |
//! |---|---|---|
//! | `epoll` | by default | its operations are emulated |
//! | `uring` | for programs that do most of their I/O by operations; where epoll is refused | readiness is no faster than on epoll, and `modify` costs twice as much; sandboxes and hardened systems often forbid it (seccomp, `kernel.io_uring_disabled`) |
//! | `poll` | for a handful of sources; where the others are forbidden; to test code for edge mode | each wait polls every source |
//! | `sigio` | for many sources, most of them idle, where epoll is refused | it blocks `SIGIO` and one real-time signal on its thread, makes each write to a source send a signal, watches for writing by ppoll(2), and suits only programs that use no signal-driven I/O themselves |
//! | `select` | only to compare mechanisms; otherwise take poll | each wait polls every descriptor number up to the highest |
//!
//! [`Backend::best`] returns the first that is available of epoll, io_uring, poll, SIGIO and
//! select; [`Backend::from_env`] reads one of these names from the environment variable
//! `QUINTPOLL_BACKEND`, in any case, or `io_uring` for `uring`.
//!
//! # The contract in short
//!
//! * A source that is ready when it is registered, modified or rearmed is reported by the next
//!   wait, in every mode.
//! * [Level](Mode::Level) mode repeats a report as long as it is true.
//!   [One-shot](Mode::OneShot) mode reports once and is silent until [`rearm`](Poller::rearm) or
//!   [`modify`](Poller::modify), hang-up included. [Edge](Mode::Edge) mode reports changes: call
//!   [`drained`](Poller::drained) after `WouldBlock` ([`try_io()`] does), and no backend misses
//!   one.
//! * Readable includes end of file and errors. Flags were true inside the wait that returns them.
//! * A wait reports a source once. Sources that exceed the capacity of [`Events`] are reported by
//!   the next waits, and none starves.
//! * A wait returns before its timeout only for an event, a completion or a wake, never because of
//!   a signal. A [`Waker`] wakes from any thread and from signal handlers.
//! * After [`deregister`](Poller::deregister) no further event is reported and the kernel holds no
//!   reference to the file. A registered descriptor cannot be closed or reused, because the poller
//!   keeps the source open.
//! * An operation completes exactly once and returns its buffer. The operations of one direction
//!   of a source take effect in the order of their submission.
//! * Regular files are always ready, and any descriptor number works, with select too. A forked
//!   child cannot use its parent's poller.
//!
//! # Comparison
//!
//! | | quintpoll | [mio] 1.2 | [polling] 3.11 | [compio] 0.19 | [tokio] 1.54 |
//! |---|---|---|---|---|---|
//! | interface | readiness and operations | readiness | readiness | async/await over operations | async/await |
//! | systems | Linux | Linux, Android, macOS, iOS, BSDs, Solaris, Windows, WASI | Linux, Android, macOS, iOS, BSDs, illumos, Windows, Fuchsia and others | Linux, Windows, macOS, other Unix | Linux, Windows, macOS, Android, iOS, FreeBSD |
//! | mechanisms on Linux | five, chosen at run time | epoll; poll(2) by an unsupported build flag | epoll | io_uring; readiness as fallback, by a feature | epoll; io_uring for some file operations, unstable |
//! | trigger modes | level, edge, one-shot, on every mechanism | edge | one-shot, level, edge; fewer on some systems | – | – |
//! | spurious events | excluded by the contract (clause H1) | permitted | not specified | – | – |
//! | timers | deadlines, `Op::timeout` | no | no | yes | yes |
//! | regular files | operations | no | no | yes | yes, in a thread pool |
//! | tasks and scheduler | no | no | no | thread per core | multi-threaded, work-stealing |
//! | other threads | wake the poller; each thread has its own | register sources | register sources, wait | run tasks, by a dispatcher | run tasks, which move between threads |
//! | sockets, DNS, TLS | no: std, socket2 and others | its own socket types | no | sockets, DNS, TLS, QUIC, WebSocket | sockets, DNS; TLS and more in other crates |
//! | registering a source | safe; the poller keeps it open | safe | `unsafe`: the program must delete it before it drops it | safe | safe |
//!
//! [mio]: https://docs.rs/mio
//! [polling]: https://docs.rs/polling
//! [compio]: https://docs.rs/compio
//! [tokio]: https://docs.rs/tokio
//!
//! # Features
//!
//! * `conformance`: the suite that tests a backend against the [contract], clause by clause.
//! * `spi`: the selector interface, outside semantic versioning. Implement `spi::Selector` for
//!   another mechanism, and `spi::Reactor` makes a [`Poller`] of it, on which the suite runs.
//!   `examples/selector.rs` is a small one, and `tests/it/outside.rs` runs the suite:
//!
//! ```ignore
//! quintpoll::conformance_tests!(mine, || {
//!     Ok(Box::new(Reactor::new(Backend::Other("mine"), Mine::new()?)?))
//! });
//! ```

#![cfg_attr(docsrs, feature(doc_cfg))]
// Some items serve selectors from outside alone; with `spi`, these lints look at them all.
#![cfg_attr(not(feature = "spi"), allow(unreachable_pub, dead_code))]

#[cfg(not(target_os = "linux"))]
compile_error!(
    "quintpoll is for Linux only: epoll, SIGIO with F_SETSIG and io_uring exist nowhere else. \
     For other systems see the crates mio and polling."
);

pub mod contract;

mod backend;
mod event;
mod key;
mod op;
mod poll_bits;
mod poller;
mod reactor;
mod selector;
mod slab;
mod statistics;
mod sys;
#[cfg(test)]
mod testing;
mod try_io;
mod waker;

#[cfg(feature = "conformance")]
pub mod conformance;
#[cfg(feature = "spi")]
pub mod spi;

/// The README's programs, compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

pub use backend::{Backend, Unavailable, UnknownBackend};
pub use event::{Completions, Event, Events, Interest, Mode, Readiness, Token};
pub use key::Key;
pub use op::{Address, Completion, Control, Message, MessageFlags, Op};
pub use op::{OpId, OpenOptions, Outcome, ReceivedMessage, Rejected};
pub use poller::{Capabilities, Poller, Source};
pub use statistics::Statistics;
pub use sys::buf::Buf;
pub use sys::io_call::leaked_buffers;
pub use sys::pool::{BufferPool, PoolBuf};
pub use sys::signals::unblock_in_child;
pub use try_io::try_io;
pub use waker::Waker;
