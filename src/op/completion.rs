//! The results of operations: ids, completions and rejections.

use super::{Address, Control, MessageFlags, Op};
use crate::event::Token;
use crate::key::OpSlot;
use crate::sys::buf::Buf;
use std::error::Error;
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;

/// A poller's identifier of one submitted operation, which never names another one.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct OpId {
    pub(crate) poller: u32,
    pub(crate) slot: OpSlot,
}

impl fmt::Debug for OpId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OpId({}:{:?})", self.poller, self.slot)
    }
}

/// The result of an operation.
#[derive(Debug)]
#[non_exhaustive]
#[doc(alias = "cqe")]
pub struct Completion {
    /// The token that was given to [`submit`](crate::Poller::submit).
    pub token: Token,
    /// The id that [`submit`](crate::Poller::submit) returned.
    pub id: OpId,
    /// The number of bytes that were moved, also if `result` is an error.
    pub transferred: usize,
    /// The result of the plain system call, except `WouldBlock`, `EINTR` and `EINPROGRESS`.
    /// `ECANCELED` ([`Completion::is_canceled`]) after a cancel, and
    /// [`TimedOut`](io::ErrorKind::TimedOut) after the deadline.
    pub result: io::Result<Outcome>,
    /// The buffer, whatever the result.
    pub buf: Buf,
    /// True if more completions of this [`Op::accept_multi`] or [`Op::recv_multi`] follow.
    pub more: bool,
}

impl Completion {
    /// Returns true if `cancel` or `deregister` ended the operation.
    #[doc(alias = "ECANCELED")]
    pub fn is_canceled(&self) -> bool {
        matches!(&self.result, Err(error) if error.raw_os_error() == Some(libc::ECANCELED))
    }
}

/// The result of an operation that succeeded, apart from the bytes.
#[derive(Debug)]
#[non_exhaustive]
pub enum Outcome {
    /// The operation has no other result than its bytes.
    Done,
    /// The result of [`Op::accept`] and [`Op::accept_multi`].
    Accepted {
        /// The connection: `CLOEXEC` and `NONBLOCK`. Closed when the completion is dropped.
        socket: OwnedFd,
        /// The address of the peer. `None` if the kernel does not return one, and always with
        /// `accept_multi`: use getpeername(2).
        peer: Option<Address>,
    },
    /// The result of [`Op::recv_from`].
    Received {
        /// The address of the sender. `None` if the kernel does not return one.
        from: Option<Address>,
    },
    /// The result of [`Op::recv_msg`].
    Message(Box<ReceivedMessage>),
    /// The result of [`Op::open`].
    Opened {
        /// The file: `CLOEXEC` and `NONBLOCK`. Closed when the completion is dropped.
        file: OwnedFd,
    },
}

/// The parts of a received message other than its bytes.
#[derive(Debug)]
#[non_exhaustive]
#[doc(alias = "msghdr")]
pub struct ReceivedMessage {
    /// The address of the sender. `None` if the kernel does not return one.
    pub from: Option<Address>,
    /// The descriptors that were passed with the message (`SCM_RIGHTS`, then `SCM_PIDFD`),
    /// `CLOEXEC`. Closed when the message is dropped.
    #[doc(alias("SCM_RIGHTS", "SCM_PIDFD"))]
    pub files: Vec<OwnedFd>,
    /// The other control messages.
    pub control: Vec<Control>,
    /// The flags of the message.
    pub flags: MessageFlags,
}

/// An operation that was not accepted, with its buffer and the reason.
///
/// `?` converts it into an [`io::Error`] and drops the buffer.
pub struct Rejected(Box<(Op, io::Error)>);

impl Rejected {
    pub(crate) fn new(op: Op, error: io::Error) -> Self {
        Rejected(Box::new((op, error)))
    }

    /// Returns the kind of the reason.
    pub fn kind(&self) -> io::ErrorKind {
        self.0.1.kind()
    }

    /// Returns the reason.
    pub fn error(&self) -> &io::Error {
        &self.0.1
    }

    /// Returns the operation and the reason.
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
