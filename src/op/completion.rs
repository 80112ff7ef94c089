//! How an operation comes back: accepted or not, and completed.

use super::{Address, Control, MessageFlags, Op};
use crate::event::Token;
use crate::key::OpSlot;
use crate::sys::buf::Buf;
use std::error::Error;
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;

/// A poller's name for one submitted operation. It never names another one.
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
    /// Whether the operation goes on: this is one of the results of [`Op::accept_multi`] or
    /// [`Op::recv_multi`], and its last is still to come.
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
    /// Of [`Op::accept`] and [`Op::accept_multi`].
    Accepted {
        /// The connection: `CLOEXEC` and `NONBLOCK`. Closed if nobody takes it.
        socket: OwnedFd,
        /// The other side. `None` where the kernel does not name it, and with `accept_multi`, where
        /// it has no place to: ask the socket (getpeername(2)).
        peer: Option<Address>,
    },
    /// Of [`Op::recv_from`].
    Received {
        /// Who sent it. `None` where the kernel does not say.
        from: Option<Address>,
    },
    /// Of [`Op::recv_msg`].
    Message(Box<ReceivedMessage>),
    /// Of [`Op::open`].
    Opened {
        /// The file: `CLOEXEC` and `NONBLOCK`. Closed if nobody takes it.
        file: OwnedFd,
    },
}

/// What came with the bytes of a message.
#[derive(Debug)]
#[non_exhaustive]
pub struct ReceivedMessage {
    /// Who sent it. `None` where the kernel does not say.
    pub from: Option<Address>,
    /// The files that were passed with it (`SCM_RIGHTS`, and then `SCM_PIDFD`), `CLOEXEC`. Closed
    /// if they are not taken.
    pub files: Vec<OwnedFd>,
    /// The other control messages.
    pub control: Vec<Control>,
    /// What is to be said of it as a whole.
    pub flags: MessageFlags,
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
