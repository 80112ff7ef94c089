//! The calls of operations, and their results.

use super::super::pool::PoolBuf;
use std::os::fd::OwnedFd;

/// The system call of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Call {
    Accept,
    AcceptMulti,
    Connect,
    Recv,
    RecvMulti,
    Send,
    RecvFrom,
    SendTo,
    RecvMsg,
    SendMsg,
    Read,
    Write,
    ReadAt(u64),
    WriteAt(u64),
    Sync { data_only: bool },
    Open,
    Splice,
}

impl Call {
    /// Returns true if the call transfers bytes from its file to a buffer.
    pub fn receives(self) -> bool {
        use Call::{Read, ReadAt, Recv, RecvFrom, RecvMsg};
        matches!(self, Recv | RecvFrom | RecvMsg | Read | ReadAt(_))
    }

    /// Returns true for a multishot call.
    pub fn is_multi(self) -> bool {
        matches!(self, Call::AcceptMulti | Call::RecvMulti)
    }

    /// Returns true if the call can report the end of a peer's stream.
    pub(crate) fn is_recv(self) -> bool {
        matches!(self, Call::Recv | Call::RecvMulti | Call::RecvFrom | Call::RecvMsg)
    }

    /// Returns true if the call can report a reset of the connection while writing.
    pub(crate) fn is_send(self) -> bool {
        matches!(self, Call::Send | Call::SendTo | Call::SendMsg | Call::Splice)
    }
}

/// The result of a successful call.
#[derive(Debug)]
pub enum CallResult {
    /// This many bytes were transferred.
    Moved(usize),
    /// These bytes were received.
    Received(PoolBuf),
    /// A connection was accepted.
    Accepted(OwnedFd),
    /// A connection was made.
    Connected,
    /// A file was opened.
    Opened(OwnedFd),
    /// The call succeeded without a value.
    Done,
}
