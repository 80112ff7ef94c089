//! Five Linux I/O mechanisms (select, poll, epoll, SIGIO, io_uring) behind one [`Poller`] trait and
//! one [contract].
//!
//! A program picks a [`Backend`] at run time and does not change: level, edge and one-shot
//! readiness mean the same on all of them, and a [conformance suite](#features) holds them to it.
//! So do operations ([`Op`]): I/O that is handed over whole, and completes.
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
//!         println!("hello, {peer}");
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Features
//!
//! * `conformance`: the suite that tests a backend against the [contract], clause by clause.
//! * `spi`: the selector interface, so that a mechanism from elsewhere becomes a [`Poller`] and
//!   runs the suite. Outside semver.

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
