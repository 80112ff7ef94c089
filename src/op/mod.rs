//! Operations: the I/O requests that a program can submit, and their completions.

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

/// An I/O request, submitted with [`Poller::submit`](crate::Poller::submit). Its result is a
/// [`Completion`].
///
#[doc = include_str!("op.md")]
#[derive(Debug)]
#[must_use = "an operation does nothing until it is submitted"]
pub struct Op {
    pub(crate) kind: Kind,
    pub(crate) key: Option<Key>,
    pub(crate) buf: Buf,
    pub(crate) amount: Amount,
    /// The offset in a file.
    pub(crate) offset: u64,
    pub(crate) with: OpArgs,
    pub(crate) deadline: Option<Duration>,
    /// The operation completes only if it does not succeed entirely.
    pub(crate) skip_success: bool,
}

/// The kind of an operation, by its constructor.
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
    /// Returns true if it receives from a source, and so reports a reset of its stream.
    pub(crate) fn is_receive(self) -> bool {
        use Kind::{Read, Recv, RecvExact, RecvFrom, RecvMsg, RecvMulti};
        matches!(self, Recv | RecvExact | RecvMulti | RecvFrom | RecvMsg | Read)
    }

    /// Returns true if its success carries no result, so that it may be silent.
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

/// The bytes that an operation moves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Amount {
    Nothing,
    /// At most this many into the buffer.
    In(usize),
    /// This range of the buffer.
    Out(Range<usize>),
    /// At most this many into each of several buffers.
    IntoEach(Vec<usize>),
    /// All bytes of each of several buffers.
    OutOfEach,
}

/// The arguments of some operations, in addition to source and buffer.
#[derive(Debug)]
pub(crate) enum OpArgs {
    Nothing,
    /// The address to connect to, or to send to.
    Address(Box<Address>),
    Message(Box<Message>),
    Pool(BufferPool),
    /// The target of a splice.
    Target(Key),
    Path(Box<(PathBuf, OpenOptions)>),
    /// The duration of a timeout.
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
    /// the next accept fails at once. Submit that one when a descriptor was closed, or after an
    /// [`Op::timeout`] of 250 ms, say. Otherwise the program spins.
    #[doc(alias("accept4", "IORING_OP_ACCEPT"))]
    pub fn accept(key: Key) -> Self {
        Op::new(Kind::Accept, Some(key))
    }

    /// Accepts connections until it is cancelled or fails. Each connection is a completion with
    /// [`Outcome::Accepted`] and [`more`](Completion::more); the last completion has the error.
    ///
    /// `EMFILE`, `ENFILE`, `ENOBUFS` and `ENOMEM` leave the connection in the queue. Submit the
    /// operation again after a pause, as described at [`Op::accept`] (C8).
    #[doc(alias("IORING_ACCEPT_MULTISHOT", "multishot"))]
    pub fn accept_multi(key: Key) -> Self {
        Op::new(Kind::AcceptMulti, Some(key))
    }

    /// Connects a socket, as connect(2) does.
    ///
    /// The crate makes no sockets: [socket2](https://docs.rs/socket2) does. If the connect is
    /// cancelled or its deadline passes, deregister the socket: nothing else is defined for it
    /// (X1).
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// use quintpoll::{Backend, Events, Op, Token};
    /// use socket2::{Domain, Socket, Type};
    /// use std::{net::TcpListener, sync::Arc, time::Duration};
    ///
    /// let listener = TcpListener::bind("127.0.0.1:0")?; // stands for the server
    /// let server = listener.local_addr()?;
    ///
    /// let mut poller = Backend::best().open()?;
    /// let socket = Socket::new(Domain::for_address(server), Type::STREAM, None)?;
    /// let key = poller.register_for_ops(Arc::new(socket))?;
    /// poller.submit(Op::connect(key, server).deadline(Duration::from_secs(10)), Token(1))?;
    ///
    /// let mut events = Events::with_capacity(16);
    /// poller.wait(&mut events, None)?;
    /// let completion = events.completions().next().expect("nothing else ends the wait");
    /// if let Err(error) = completion.result {
    ///     poller.deregister(key)?; // a further attempt takes a new socket
    ///     return Err(error);
    /// }
    /// poller.submit(Op::send_all(key, "hello", ..), Token(2))?;
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias("EINPROGRESS", "IORING_OP_CONNECT"))]
    pub fn connect(key: Key, to: impl Into<Address>) -> Self {
        Op { with: OpArgs::Address(Box::new(to.into())), ..Op::new(Kind::Connect, Some(key)) }
    }

    /// Receives the bytes that have arrived, at most `max`, as recv(2) does. `transferred` 0 is the
    /// end of the stream, or an empty datagram. `max` 0 is refused.
    #[doc(alias = "IORING_OP_RECV")]
    pub fn recv(key: Key, buf: impl Into<Buf>, max: usize) -> Self {
        Op::into_buf_of(Kind::Recv, key, buf.into(), max)
    }

    /// Receives exactly `len` bytes of a stream. If the stream ends before, the result is
    /// [`UnexpectedEof`](std::io::ErrorKind::UnexpectedEof), and the buffer has the bytes that
    /// came.
    #[doc(alias("read_exact", "MSG_WAITALL"))]
    pub fn recv_exact(key: Key, buf: impl Into<Buf>, len: usize) -> Self {
        Op::into_buf_of(Kind::RecvExact, key, buf.into(), len)
    }

    /// Receives until the stream ends, the receive fails, or it is cancelled. Each completion has
    /// a [`PoolBuf`](crate::PoolBuf) of `pool` and [`more`](Completion::more); the last one has no
    /// buffer, and is `Ok` at the end of the stream.
    ///
    /// While the pool is empty the operation waits for a buffer, without holding one. Receives of
    /// one poller that wait for the same pool are served in FIFO order. Bytes of a datagram that
    /// exceed the buffer are lost (recv(2)). Bytes of a stream that were received before a cancel
    /// are delivered before the last completion (C8).
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// use quintpoll::{Backend, BufferPool, Events, Op, Token};
    /// use std::{io::Write, os::unix::net::UnixStream, sync::Arc};
    ///
    /// let (local, mut peer) = UnixStream::pair()?;
    /// let mut poller = Backend::best().open()?;
    /// let key = poller.register_for_ops(Arc::new(local))?;
    /// let pool = BufferPool::new(4096, 16)?;
    /// poller.submit(Op::recv_multi(key, &pool), Token(1))?;
    ///
    /// peer.write_all(b"hello")?;
    /// drop(peer);
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
    #[doc(alias("IORING_RECV_MULTISHOT", "multishot", "IORING_OP_PROVIDE_BUFFERS"))]
    pub fn recv_multi(key: Key, pool: &BufferPool) -> Self {
        Op { with: OpArgs::Pool(pool.clone()), ..Op::new(Kind::RecvMulti, Some(key)) }
    }

    /// Sends as many bytes of `range` as there is room for, as send(2) does. A range that exceeds
    /// the buffer is refused.
    #[doc(alias = "IORING_OP_SEND")]
    pub fn send(key: Key, buf: impl Into<Buf>, range: impl RangeBounds<usize>) -> Self {
        Op::out_of(Kind::Send, key, buf.into(), range)
    }

    /// Sends all of `range` on a stream.
    #[doc(alias = "write_all")]
    pub fn send_all(key: Key, buf: impl Into<Buf>, range: impl RangeBounds<usize>) -> Self {
        Op::out_of(Kind::SendAll, key, buf.into(), range)
    }

    /// Receives a datagram, cut to `max` bytes, and the address of its sender:
    /// [`Outcome::Received`].
    #[doc(alias = "recvfrom")]
    pub fn recv_from(key: Key, buf: impl Into<Buf>, max: usize) -> Self {
        Op::into_buf_of(Kind::RecvFrom, key, buf.into(), max)
    }

    /// Sends `range` as a datagram to an address, as sendto(2) does. While the queue of a unix
    /// receiver is full the send is retried every 1 to 64 ms.
    #[doc(alias = "sendto")]
    pub fn send_to(
        key: Key,
        buf: impl Into<Buf>,
        range: impl RangeBounds<usize>,
        to: impl Into<Address>,
    ) -> Self {
        let with = OpArgs::Address(Box::new(to.into()));
        Op { with, ..Op::out_of(Kind::SendTo, key, buf.into(), range) }
    }

    /// Receives a message, or bytes of a stream, cut to `max` bytes, with its files and control
    /// messages, as recvmsg(2) does: [`Outcome::Message`]. There is room for all files that one
    /// message can pass (253), and for 1 KiB of other control messages.
    #[doc(alias("recvmsg", "SCM_RIGHTS", "IORING_OP_RECVMSG"))]
    pub fn recv_msg(key: Key, buf: impl Into<Buf>, max: usize) -> Self {
        Op::into_buf_of(Kind::RecvMsg, key, buf.into(), max)
    }

    /// Sends `range` with the address, files and control messages of `message`, as sendmsg(2) does.
    /// On a stream it sends as many bytes as there is room for.
    #[doc(alias("sendmsg", "SCM_RIGHTS", "IORING_OP_SENDMSG"))]
    pub fn send_msg(
        key: Key,
        buf: impl Into<Buf>,
        range: impl RangeBounds<usize>,
        message: Message,
    ) -> Self {
        let with = OpArgs::Message(Box::new(message));
        Op { with, ..Op::out_of(Kind::SendMsg, key, buf.into(), range) }
    }

    /// Reads the bytes that are there, at most `max`, as read(2) does: from pipes, terminals,
    /// eventfds, timerfds, sockets, and from a file at its current position.
    ///
    /// `transferred` 0 is the end, except on a terminal with `VMIN` 0 (termios(3)), which returns 0
    /// whenever nothing was typed. Set `VMIN` to 1, or read when the terminal is
    /// [`READABLE`](crate::event::Interest::READABLE).
    #[doc(alias = "IORING_OP_READ")]
    pub fn read(key: Key, buf: impl Into<Buf>, max: usize) -> Self {
        Op::into_buf_of(Kind::Read, key, buf.into(), max)
    }

    /// Writes as many bytes of `range` as there is room for, as write(2) does, without raising
    /// `SIGPIPE`. Beyond `RLIMIT_FSIZE` the result is `EFBIG`, and `SIGXFSZ` is not raised.
    #[doc(alias = "IORING_OP_WRITE")]
    pub fn write(key: Key, buf: impl Into<Buf>, range: impl RangeBounds<usize>) -> Self {
        Op::out_of(Kind::Write, key, buf.into(), range)
    }

    /// Moves at most `max` bytes from one source to another without a buffer, as splice(2) does.
    /// One of the two must be a pipe.
    ///
    /// Regular files are read and written at their current positions, by a thread on every backend.
    /// A file opened with `O_APPEND` is no target (`EINVAL`). The operation is in the read queue of
    /// `from` and in the write queue of `to`. `transferred` 0 is the end of `from`. `max` 0 is
    /// refused.
    #[doc(alias("sendfile", "IORING_OP_SPLICE"))]
    pub fn splice(from: Key, to: Key, max: usize) -> Self {
        let amount = Amount::In(max);
        Op { amount, with: OpArgs::Target(to), ..Op::new(Kind::Splice, Some(from)) }
    }

    /// Shuts down one or both directions of a socket, as shutdown(2) does. Shutting down writing
    /// waits for the sends before it. Shutting down reading alone waits for nothing, and ends the
    /// receives that wait.
    #[doc(alias("SHUT_WR", "SHUT_RD", "IORING_OP_SHUTDOWN"))]
    pub fn shutdown(key: Key, how: Shutdown) -> Self {
        Op::new(Kind::Shutdown(how), Some(key))
    }

    /// Completes when this time has passed since the submission. It needs no source.
    #[doc(alias("timerfd", "sleep", "IORING_OP_TIMEOUT"))]
    pub fn timeout(after: Duration) -> Self {
        Op { with: OpArgs::Time(after), ..Op::new(Kind::Timeout, None) }
    }

    /// Completes at once: the next wait has its completion. It needs no source.
    #[doc(alias = "IORING_OP_NOP")]
    pub fn nop() -> Self {
        Op::new(Kind::Nop, None)
    }

    /// Limits the time of the operation, from its submission. When it has passed the operation is
    /// cancelled, and its result is [`TimedOut`](std::io::ErrorKind::TimedOut), or the real result
    /// if it completed at that moment (X3).
    #[doc(alias("IORING_OP_LINK_TIMEOUT", "SO_RCVTIMEO"))]
    pub fn deadline(mut self, after: Duration) -> Self {
        self.deadline = Some(after);
        self
    }

    /// Ends the operation silently if it succeeds entirely (C1): it has no completion, takes no
    /// capacity of [`Events`](crate::event::Events), and ends no wait.
    ///
    /// An operation succeeds entirely if every byte of its range was moved. Its buffer then returns
    /// to its pool or is dropped, at the latest when the next wait returns. Any other result has
    /// a completion as usual, and so has an operation that `cancel`, a deadline or `deregister` has
    /// begun to end (X2).
    ///
    /// Allowed on `send`, `send_all`, `send_to`, `send_msg`, `write`, `write_at`,
    /// `write_at_vectored`, `fsync`, `fdatasync`, `connect` and `shutdown`; `submit` refuses it on
    /// other operations (`InvalidInput`). On io_uring (Linux 6.1) such a send needs no system call
    /// of its own: one call sends, and sleeps until the next request comes. The buffer is in use
    /// until then, also for other pollers that share its pool.
    ///
    /// Completions also show that a peer reads. To keep that backpressure, leave some sends
    /// without this option: when [`pending`](crate::Poller::pending) returns that several are
    /// unfinished, stop receiving, and submit the next send as usual. Its completion means that
    /// those before it have ended (C3).
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// use quintpoll::{Backend, Events, Op, Token};
    /// use std::{os::unix::net::UnixStream, sync::Arc, time::Duration};
    ///
    /// /// The most sends of a connection that may be unfinished.
    /// const LIMIT: usize = 4;
    ///
    /// let (local, _peer) = UnixStream::pair()?;
    /// let mut poller = Backend::best().open()?;
    /// let key = poller.register_for_ops(Arc::new(local))?;
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
    /// // Stop receiving until the completion of that send.
    /// assert_eq!(poller.pending(key), LIMIT + 1);
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias = "IOSQE_CQE_SKIP_SUCCESS")]
    pub fn skip_success(mut self) -> Self {
        self.skip_success = true;
        self
    }

    /// Returns the buffer of an operation that was not submitted.
    pub fn into_buf(self) -> Buf {
        self.buf
    }
}

#[cfg(test)]
mod tests;
