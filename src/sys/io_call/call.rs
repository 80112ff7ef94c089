//! Which call an operation makes, and what it brings.

use super::super::pool::PoolBuf;
use std::os::fd::OwnedFd;

/// The call.
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
    /// Whether it moves bytes out of its file into a buffer.
    pub fn receives(self) -> bool {
        use Call::{Read, ReadAt, Recv, RecvFrom, RecvMsg};
        matches!(self, Recv | RecvFrom | RecvMsg | Read | ReadAt(_))
    }

    /// Whether it goes on after a result.
    pub fn is_multi(self) -> bool {
        matches!(self, Call::AcceptMulti | Call::RecvMulti)
    }

    /// Whether it may be told of the end of what a peer sends.
    pub(crate) fn is_recv(self) -> bool {
        matches!(self, Call::Recv | Call::RecvMulti | Call::RecvFrom | Call::RecvMsg)
    }

    /// Whether it may be told that a peer has reset the connection while it writes.
    pub(crate) fn is_send(self) -> bool {
        matches!(self, Call::Send | Call::SendTo | Call::SendMsg | Call::Splice)
    }
}

/// What a call that succeeded has brought.
#[derive(Debug)]
pub enum CallResult {
    /// So many bytes were moved.
    Moved(usize),
    /// These bytes were received.
    Received(PoolBuf),
    /// A connection was accepted.
    Accepted(OwnedFd),
    /// A connection was made.
    Connected,
    /// A file was opened.
    Opened(OwnedFd),
    /// It is done, and there is nothing to show.
    Done,
}
