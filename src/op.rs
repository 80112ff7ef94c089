//! Operations: what a program can hand over whole, and how it gets the result.

use crate::address::Address;
use crate::event::Token;
use crate::key::{Key, OpSlot};
use crate::sys::buf::Buf;
use std::error::Error;
use std::fmt;
use std::io;
use std::net::Shutdown;
use std::ops::{Bound, Range, RangeBounds};
use std::os::fd::OwnedFd;
use std::time::Duration;

/// An I/O request, to be handed over whole with [`Poller::submit`](crate::Poller::submit). Its
/// result is a [`Completion`].
///
/// The source is named by the key of its registration. Reading and writing it are two *lanes*: the
/// operations of one lane take effect and complete in the order in which they were submitted (C3).
/// In the read lane are `accept`, `recv`, `recv_exact`, `recv_from` and `read`, in the write lane
/// `connect`, `send`, `send_all`, `send_to`, `write` and `shutdown`.
///
/// Buffers are taken by value and come back with the completion. What is received is appended to a
/// `Vec`, at most as much as was asked for.
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// use quintpoll::{Backend, Events, Interest, Mode, Op, Token};
/// use std::{os::unix::net::UnixStream, sync::Arc, time::Duration};
///
/// let (here, there) = UnixStream::pair()?;
/// let mut poller = Backend::best().open()?;
/// let here = poller.register(Arc::new(here), Token(0), Interest::empty(), Mode::Edge)?;
/// let there = poller.register(Arc::new(there), Token(0), Interest::empty(), Mode::Edge)?;
///
/// let receive = Op::recv_exact(there, Vec::new(), 5).deadline(Duration::from_secs(10));
/// poller.submit(receive, Token(1))?;
/// poller.submit(Op::send(here, "hello", ..), Token(2))?;
///
/// let mut events = Events::with_capacity(16);
/// let mut received = None;
/// while received.is_none() {
///     poller.wait(&mut events, None)?;
///     for completion in events.completions() {
///         completion.result?;
///         if completion.token == Token(1) {
///             received = Some(completion.buf.into_vec());
///         }
///     }
/// }
/// assert_eq!(received.as_deref(), Some(&b"hello"[..]));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "an operation does nothing until it is submitted"]
pub struct Op {
    pub(crate) kind: Kind,
    pub(crate) key: Option<Key>,
    pub(crate) buf: Buf,
    pub(crate) amount: Amount,
    pub(crate) to: Option<Address>,
    pub(crate) deadline: Option<Duration>,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Accept,
    Connect,
    Recv,
    RecvExact,
    Send,
    SendAll,
    RecvFrom,
    SendTo,
    Read,
    Write,
    Shutdown(Shutdown),
    Timeout(Duration),
    Nop,
}

/// How many bytes, and which.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Amount {
    Nothing,
    /// So many into the buffer.
    In(usize),
    /// These out of the buffer.
    Out(Range<usize>),
}

impl Op {
    fn new(kind: Kind, key: Option<Key>) -> Self {
        let (buf, amount) = (Buf::None, Amount::Nothing);
        Op { kind, key, buf, amount, to: None, deadline: None }
    }

    fn into_buf_of(kind: Kind, key: Key, buf: Buf, max: usize) -> Self {
        Op { buf, amount: Amount::In(max), ..Op::new(kind, Some(key)) }
    }

    fn out_of(kind: Kind, key: Key, buf: Buf, range: impl RangeBounds<usize>) -> Self {
        let start = match range.start_bound() {
            Bound::Included(&start) => start,
            Bound::Excluded(&start) => start.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(&end) => end.saturating_add(1),
            Bound::Excluded(&end) => end,
            Bound::Unbounded => buf.len(),
        };
        Op { buf, amount: Amount::Out(start..end), ..Op::new(kind, Some(key)) }
    }

    /// Accepts a connection, as accept4(2) does: [`Outcome::Accepted`]. The new socket is `CLOEXEC`
    /// and `NONBLOCK` (C6).
    pub fn accept(key: Key) -> Self {
        Op::new(Kind::Accept, Some(key))
    }

    /// Connects, as connect(2) does. If it is cancelled or its deadline passes, the socket is of no
    /// more use: deregister it (X1).
    pub fn connect(key: Key, to: impl Into<Address>) -> Self {
        Op { to: Some(to.into()), ..Op::new(Kind::Connect, Some(key)) }
    }

    /// Receives what there is, at most `max` bytes, as recv(2) does. `transferred` 0 is the end of
    /// the stream, or an empty datagram. `max` 0 is refused.
    pub fn recv(key: Key, buf: impl Into<Buf>, max: usize) -> Self {
        Op::into_buf_of(Kind::Recv, key, buf.into(), max)
    }

    /// Receives exactly `len` bytes of a stream. If it ends before, the result is
    /// [`UnexpectedEof`](io::ErrorKind::UnexpectedEof), and what has come is in the buffer.
    pub fn recv_exact(key: Key, buf: impl Into<Buf>, len: usize) -> Self {
        Op::into_buf_of(Kind::RecvExact, key, buf.into(), len)
    }

    /// Sends what there is room for, as send(2) does: some of `range`, or all of it. A range that
    /// exceeds the buffer is refused.
    pub fn send(key: Key, buf: impl Into<Buf>, range: impl RangeBounds<usize>) -> Self {
        Op::out_of(Kind::Send, key, buf.into(), range)
    }

    /// Sends all of `range` on a stream.
    pub fn send_all(key: Key, buf: impl Into<Buf>, range: impl RangeBounds<usize>) -> Self {
        Op::out_of(Kind::SendAll, key, buf.into(), range)
    }

    /// Receives a datagram, cut to `max` bytes, and who sent it: [`Outcome::Received`].
    pub fn recv_from(key: Key, buf: impl Into<Buf>, max: usize) -> Self {
        Op::into_buf_of(Kind::RecvFrom, key, buf.into(), max)
    }

    /// Sends `range` as a datagram to an address, as sendto(2) does.
    pub fn send_to(
        key: Key,
        buf: impl Into<Buf>,
        range: impl RangeBounds<usize>,
        to: impl Into<Address>,
    ) -> Self {
        Op { to: Some(to.into()), ..Op::out_of(Kind::SendTo, key, buf.into(), range) }
    }

    /// Reads what there is, at most `max` bytes, as read(2) does: pipes, terminals, eventfds,
    /// timerfds, sockets, and a file from its current position.
    pub fn read(key: Key, buf: impl Into<Buf>, max: usize) -> Self {
        Op::into_buf_of(Kind::Read, key, buf.into(), max)
    }

    /// Writes what there is room for, as write(2) does, without `SIGPIPE`.
    pub fn write(key: Key, buf: impl Into<Buf>, range: impl RangeBounds<usize>) -> Self {
        Op::out_of(Kind::Write, key, buf.into(), range)
    }

    /// Shuts down, as shutdown(2) does. To end the writing side waits for the sends before it;
    /// to end reading alone does not wait for anything, and ends the receives that do.
    pub fn shutdown(key: Key, how: Shutdown) -> Self {
        Op::new(Kind::Shutdown(how), Some(key))
    }

    /// Completes when this much time has passed since it was submitted. It needs no source.
    pub fn timeout(after: Duration) -> Self {
        Op::new(Kind::Timeout(after), None)
    }

    /// Completes at once: the next wait has its completion. It needs no source.
    pub fn nop() -> Self {
        Op::new(Kind::Nop, None)
    }

    /// Gives it this much time from its submission. After that it is stopped, and its result is
    /// [`TimedOut`](io::ErrorKind::TimedOut), or the real one if it was just done (X3).
    pub fn deadline(mut self, after: Duration) -> Self {
        self.deadline = Some(after);
        self
    }

    /// The buffer, of an operation that was not submitted.
    pub fn into_buf(self) -> Buf {
        self.buf
    }
}

/// A poller's name for one submitted operation. It never names another one.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct OpId {
    pub(crate) poller: usize,
    pub(crate) slot: OpSlot,
}

impl fmt::Debug for OpId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OpId({}:{:?})", self.poller, self.slot)
    }
}

/// What became of an operation.
#[derive(Debug)]
#[non_exhaustive]
pub struct Completion {
    /// The token that was given to [`submit`](crate::Poller::submit).
    pub token: Token,
    /// The operation.
    pub id: OpId,
    /// How many bytes were moved, also where `result` is an error.
    pub transferred: usize,
    /// What the plain system call would have given, but for `WouldBlock`, `EINTR` and
    /// `EINPROGRESS`; `ECANCELED` ([`Completion::is_canceled`]) and
    /// [`TimedOut`](io::ErrorKind::TimedOut) where it was stopped.
    pub result: io::Result<Outcome>,
    /// The buffer, whatever the result.
    pub buf: Buf,
    /// Whether the operation goes on, and will complete again.
    pub more: bool,
}

impl Completion {
    /// Whether it was stopped, by `cancel` or `deregister`.
    pub fn is_canceled(&self) -> bool {
        matches!(&self.result, Err(error) if error.raw_os_error() == Some(libc::ECANCELED))
    }
}

/// What an operation that succeeded has brought, beside bytes.
#[derive(Debug)]
#[non_exhaustive]
pub enum Outcome {
    /// It is done.
    Done,
    /// Of [`Op::accept`].
    Accepted {
        /// The connection: `CLOEXEC` and `NONBLOCK`. Closed if nobody takes it.
        socket: OwnedFd,
        /// The other side. `None` where the kernel does not name it.
        peer: Option<Address>,
    },
    /// Of [`Op::recv_from`].
    Received {
        /// Who sent it. `None` where the kernel does not say.
        from: Option<Address>,
    },
}

/// An operation that was not accepted, with its buffer, and why.
///
/// `?` makes an [`io::Error`] of it, and the buffer is lost then.
pub struct Rejected(Box<(Op, io::Error)>);

impl Rejected {
    pub(crate) fn new(op: Op, error: io::Error) -> Self {
        Rejected(Box::new((op, error)))
    }

    /// The kind of the reason.
    pub fn kind(&self) -> io::ErrorKind {
        self.0.1.kind()
    }

    /// The reason.
    pub fn error(&self) -> &io::Error {
        &self.0.1
    }

    /// The operation and the reason.
    pub fn into_parts(self) -> (Op, io::Error) {
        *self.0
    }
}

impl fmt::Debug for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rejected").field("op", &self.0.0).field("error", &self.0.1).finish()
    }
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the operation was not accepted: {}", self.0.1)
    }
}

impl Error for Rejected {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.0.1)
    }
}

impl From<Rejected> for io::Error {
    fn from(rejected: Rejected) -> Self {
        rejected.0.1
    }
}

#[cfg(test)]
mod tests;
