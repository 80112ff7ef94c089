//! Operations: what a program can hand over whole, and how it gets the result.

mod address;
mod completion;
mod files;
mod message;
mod open_options;

use crate::key::Key;
use crate::sys::buf::Buf;
use crate::sys::pool::BufferPool;
pub use address::Address;
pub use completion::{Completion, OpId, Outcome, ReceivedMessage, Rejected};
pub use message::{Control, Message, MessageFlags};
pub use open_options::OpenOptions;
use std::net::Shutdown;
use std::ops::{Bound, Range, RangeBounds};
use std::path::PathBuf;
use std::time::Duration;

/// An I/O request, to be handed over whole with [`Poller::submit`](crate::Poller::submit). Its
/// result is a [`Completion`].
///
/// The source is named by the key of its registration. Reading and writing it are two *lanes*: the
/// operations of one lane take effect and complete in the order in which they were submitted (C3).
/// In the read lane are `accept`, `recv`, `recv_exact`, `recv_from`, `recv_msg`, `read`, the source
/// of a `splice`, and the two that have many results: `accept_multi` and `recv_multi`; in the write
/// lane `connect`, `send`, `send_all`, `send_to`, `send_msg`, `write`, `shutdown` and the target of
/// a `splice`. In no order are those at an offset of a file, `fsync` and `fdatasync`: they may take
/// effect and complete in any, and side by side.
///
/// Buffers are taken by value and come back with the completion. What is received is appended, at
/// most as much as was asked for: a `Vec` grows if need be, a [`PoolBuf`](crate::PoolBuf) does not.
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
    /// Where in a file to read or write.
    pub(crate) offset: u64,
    pub(crate) with: OpArgs,
    pub(crate) deadline: Option<Duration>,
    /// The operation completes only if it does not succeed entirely.
    pub(crate) skip_success: bool,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Accept,
    AcceptMulti,
    Connect,
    Recv,
    RecvExact,
    RecvMulti,
    Send,
    SendAll,
    RecvFrom,
    SendTo,
    RecvMsg,
    SendMsg,
    Read,
    Write,
    Splice,
    ReadAt,
    WriteAt,
    Sync { data_only: bool },
    Shutdown(Shutdown),
    Open,
    Timeout,
    Nop,
}

impl Op {
    /// Returns the source that a splice moves bytes to.
    pub(crate) fn target(&self) -> Option<Key> {
        match self.with {
            OpArgs::Target(to) => Some(to),
            _ => None,
        }
    }
}

impl Kind {
    /// Returns true if it receives from a socket, and is told when a stream is reset.
    pub(crate) fn is_receive(self) -> bool {
        use Kind::{Read, Recv, RecvExact, RecvFrom, RecvMsg, RecvMulti};
        matches!(self, Recv | RecvExact | RecvMulti | RecvFrom | RecvMsg | Read)
    }

    /// Returns true if its success brings nothing that the program could need.
    pub(crate) fn may_skip_success(self) -> bool {
        use Kind::{Connect, Send, SendAll, SendMsg, SendTo, Shutdown, Sync, Write, WriteAt};
        matches!(
            self,
            Send | SendAll
                | SendTo
                | SendMsg
                | Write
                | WriteAt
                | Sync { .. }
                | Connect
                | Shutdown(_)
        )
    }
}

/// How many bytes, and which.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Amount {
    Nothing,
    /// So many into the buffer.
    In(usize),
    /// These out of the buffer.
    Out(Range<usize>),
    /// So many into each of several.
    IntoEach(Vec<usize>),
    /// All of each of several.
    OutOfEach,
}

/// What some operations are told beside source and buffer.
#[derive(Debug)]
pub(crate) enum OpArgs {
    Nothing,
    /// Whom to connect to, or to send to.
    Address(Box<Address>),
    Message(Box<Message>),
    Pool(BufferPool),
    /// Where to splice to.
    Target(Key),
    Path(Box<(PathBuf, OpenOptions)>),
    /// How long to wait.
    Time(Duration),
}

impl Op {
    fn new(kind: Kind, key: Option<Key>) -> Self {
        let (buf, amount, with) = (Buf::None, Amount::Nothing, OpArgs::Nothing);
        Op { kind, key, buf, amount, offset: 0, with, deadline: None, skip_success: false }
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
    ///
    /// After `EMFILE`, `ENFILE`, `ENOBUFS` or `ENOMEM` the connection is still in the queue, and
    /// the next accept fails at once. Do not submit it before a descriptor was closed, or a pause
    /// has passed: an [`Op::timeout`] of 250 ms, say. Else the program spins.
    pub fn accept(key: Key) -> Self {
        Op::new(Kind::Accept, Some(key))
    }

    /// Accepts connections until it is stopped or an error ends it: each is a completion with
    /// [`Outcome::Accepted`] and [`more`](Completion::more), and the last one has the error. After
    /// `EMFILE` and its like, which leave the connection in the queue, it can be submitted again
    /// (C8): after a pause, as [`Op::accept`] says.
    pub fn accept_multi(key: Key) -> Self {
        Op::new(Kind::AcceptMulti, Some(key))
    }

    /// Connects, as connect(2) does. If it is cancelled or its deadline passes, the socket is of no
    /// more use: deregister it (X1).
    pub fn connect(key: Key, to: impl Into<Address>) -> Self {
        Op { with: OpArgs::Address(Box::new(to.into())), ..Op::new(Kind::Connect, Some(key)) }
    }

    /// Receives what there is, at most `max` bytes, as recv(2) does. `transferred` 0 is the end of
    /// the stream, or an empty datagram. `max` 0 is refused.
    pub fn recv(key: Key, buf: impl Into<Buf>, max: usize) -> Self {
        Op::into_buf_of(Kind::Recv, key, buf.into(), max)
    }

    /// Receives exactly `len` bytes of a stream. If it ends before, the result is
    /// [`UnexpectedEof`](std::io::ErrorKind::UnexpectedEof), and what has come is in the buffer.
    pub fn recv_exact(key: Key, buf: impl Into<Buf>, len: usize) -> Self {
        Op::into_buf_of(Kind::RecvExact, key, buf.into(), len)
    }

    /// Receives until the stream ends, an error does, or it is stopped. Whatever comes is
    /// a completion with a [`PoolBuf`](crate::PoolBuf) of `pool`'s and [`more`](Completion::more);
    /// the last one has no buffer, and is `Ok` at the end of the stream.
    ///
    /// While all buffers of the pool are lent it waits for one to come home: who found none first
    /// is served first. Of a datagram what exceeds the buffer is lost (recv(2)). The bytes of
    /// a stream that were received before it is stopped come with a completion before the last
    /// one (C8).
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// use quintpoll::{Backend, BufferPool, Events, Interest, Mode, Op, Token};
    /// use std::{io::Write, os::unix::net::UnixStream, sync::Arc};
    ///
    /// let (here, mut there) = UnixStream::pair()?;
    /// let mut poller = Backend::best().open()?;
    /// let here = poller.register(Arc::new(here), Token(0), Interest::empty(), Mode::Edge)?;
    /// let pool = BufferPool::new(4096, 16)?;
    /// poller.submit(Op::recv_multi(here, &pool), Token(1))?;
    ///
    /// there.write_all(b"hello")?;
    /// drop(there);
    /// let (mut events, mut received) = (Events::with_capacity(8), Vec::<u8>::new());
    /// let mut goes_on = true;
    /// while goes_on {
    ///     poller.wait(&mut events, None)?;
    ///     for completion in events.completions() {
    ///         completion.result?;
    ///         received.extend(&*completion.buf);
    ///         goes_on = completion.more;
    ///     }
    /// }
    /// assert_eq!(received, b"hello");
    /// # Ok(())
    /// # }
    /// ```
    pub fn recv_multi(key: Key, pool: &BufferPool) -> Self {
        Op { with: OpArgs::Pool(pool.clone()), ..Op::new(Kind::RecvMulti, Some(key)) }
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

    /// Sends `range` as a datagram to an address, as sendto(2) does. While the queue of a unix
    /// receiver is full it tries again after 1 to 64 ms.
    pub fn send_to(
        key: Key,
        buf: impl Into<Buf>,
        range: impl RangeBounds<usize>,
        to: impl Into<Address>,
    ) -> Self {
        let with = OpArgs::Address(Box::new(to.into()));
        Op { with, ..Op::out_of(Kind::SendTo, key, buf.into(), range) }
    }

    /// Receives a message, or what there is of a stream, cut to `max` bytes, with all that comes
    /// beside it, as recvmsg(2) does: [`Outcome::Message`]. There is room for all files that one
    /// message can pass (253), and for 1 KiB of other control messages.
    pub fn recv_msg(key: Key, buf: impl Into<Buf>, max: usize) -> Self {
        Op::into_buf_of(Kind::RecvMsg, key, buf.into(), max)
    }

    /// Sends `range` as a message with all that `message` says, as sendmsg(2) does; of a stream
    /// what there is room for.
    pub fn send_msg(
        key: Key,
        buf: impl Into<Buf>,
        range: impl RangeBounds<usize>,
        message: Message,
    ) -> Self {
        let with = OpArgs::Message(Box::new(message));
        Op { with, ..Op::out_of(Kind::SendMsg, key, buf.into(), range) }
    }

    /// Reads what there is, at most `max` bytes, as read(2) does: pipes, terminals, eventfds,
    /// timerfds, sockets, and a file from its current position.
    ///
    /// `transferred` 0 is the end, but for terminals with `VMIN` 0 (termios(3)), which say so
    /// whenever nothing was typed. Set `VMIN` to 1, or read when the terminal is
    /// [`READABLE`](crate::event::Interest::READABLE).
    pub fn read(key: Key, buf: impl Into<Buf>, max: usize) -> Self {
        Op::into_buf_of(Kind::Read, key, buf.into(), max)
    }

    /// Writes what there is room for, as write(2) does, without `SIGPIPE`. Beyond `RLIMIT_FSIZE` a
    /// regular file is not written (`EFBIG`), without `SIGXFSZ`.
    pub fn write(key: Key, buf: impl Into<Buf>, range: impl RangeBounds<usize>) -> Self {
        Op::out_of(Kind::Write, key, buf.into(), range)
    }

    /// Moves what there is, at most `max` bytes, from one source to another without a buffer, as
    /// splice(2) does; one of the two has to be a pipe. Regular files are read and written at their
    /// current positions, by a thread on every backend; one opened with `O_APPEND` is no target
    /// (`EINVAL`). It stands in the read lane of the one and in the write lane of the other.
    /// `transferred` 0 is the end of the first. `max` 0 is refused.
    pub fn splice(from: Key, to: Key, max: usize) -> Self {
        let amount = Amount::In(max);
        Op { amount, with: OpArgs::Target(to), ..Op::new(Kind::Splice, Some(from)) }
    }

    /// Shuts down, as shutdown(2) does. To end the writing side waits for the sends before it;
    /// to end reading alone does not wait for anything, and ends the receives that do.
    pub fn shutdown(key: Key, how: Shutdown) -> Self {
        Op::new(Kind::Shutdown(how), Some(key))
    }

    /// Completes when this much time has passed since it was submitted. It needs no source.
    pub fn timeout(after: Duration) -> Self {
        Op { with: OpArgs::Time(after), ..Op::new(Kind::Timeout, None) }
    }

    /// Completes at once: the next wait has its completion. It needs no source.
    pub fn nop() -> Self {
        Op::new(Kind::Nop, None)
    }

    /// Gives it this much time from its submission. After that it is stopped, and its result is
    /// [`TimedOut`](std::io::ErrorKind::TimedOut), or the real one if it was just done (X3).
    pub fn deadline(mut self, after: Duration) -> Self {
        self.deadline = Some(after);
        self
    }

    /// Ends the operation silently if it succeeds entirely (C1): it has no completion, takes no
    /// place in [`Events`](crate::event::Events), and ends no wait. It succeeds entirely if every
    /// byte of its range was moved. Its buffer goes back to its pool or is dropped, at the latest
    /// when the next wait returns. Anything else completes as always, and so does what `cancel`, a
    /// deadline or `deregister` has begun to end (X2).
    ///
    /// For `send`, `send_all`, `send_to`, `send_msg`, `write`, `write_at` and its vectored form,
    /// `fsync`, `fdatasync`, `connect` and `shutdown`; `submit` refuses it of others
    /// (`InvalidInput`). On io_uring (Linux 6.1) such a send needs no system call of its own: one
    /// call sends, and sleeps until the next request comes. Its buffer is the poller's until then;
    /// pollers that share its pool wait for it so long.
    ///
    /// A completion is also what tells a program that a peer takes what is sent. So that it still
    /// is told, let some sends go without this: whenever
    /// [`pending`](crate::Poller::pending) says that several are unfinished, stop receiving and
    /// submit the next send as usual; its completion says that those before it are over (C3).
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// use quintpoll::{Backend, Events, Interest, Mode, Op, Token};
    /// use std::{os::unix::net::UnixStream, sync::Arc, time::Duration};
    ///
    /// /// So many sends of a connection may be unfinished.
    /// const LIMIT: usize = 4;
    ///
    /// let (here, _there) = UnixStream::pair()?;
    /// let mut poller = Backend::best().open()?;
    /// let key = poller.register(Arc::new(here), Token(0), Interest::empty(), Mode::Level)?;
    /// let mut events = Events::with_capacity(64);
    ///
    /// // The peer reads nothing.
    /// let mut is_full = false;
    /// while !is_full {
    ///     let send = Op::send_all(key, vec![0; 65536], ..);
    ///     is_full = poller.pending(key) >= LIMIT;
    ///     let send = if is_full { send } else { send.skip_success() };
    ///     poller.submit(send, Token(1))?;
    ///     poller.wait(&mut events, Some(Duration::ZERO))?;
    /// }
    /// // Receive no more until the completion of that send.
    /// assert_eq!(poller.pending(key), LIMIT + 1);
    /// # Ok(())
    /// # }
    /// ```
    pub fn skip_success(mut self) -> Self {
        self.skip_success = true;
        self
    }

    /// The buffer, of an operation that was not submitted.
    pub fn into_buf(self) -> Buf {
        self.buf
    }
}

#[cfg(test)]
mod tests;
