//! Listening sockets, and the meaning of accept(2)'s errors.

use nix::errno::Errno;
use nix::sys::socket::{Backlog, listen};
use std::io;
use std::net::TcpListener;
use std::time::Duration;

/// The longest pause after a shortage: another process may free descriptors.
pub(crate) const RETRY_AFTER: Duration = Duration::from_millis(250);

/// The reason why accept(2) returned no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// This connection was lost; others may be pending.
    Aborted,
    /// No connection is pending.
    Empty,
    /// Connections may be pending, but descriptors or memory are short.
    Shortage,
}

/// Enlarges the listen queue by a second listen(2). The standard library sets a short one, and a
/// client that finds it full retries only after a second.
pub(crate) fn lengthen_queue(listener: &TcpListener) -> io::Result<()> {
    Ok(listen(listener, Backlog::MAXALLOWABLE)?)
}

/// Classifies an error of accept(2).
///
/// # Errors
///
/// An error of the listener itself, which is lasting.
pub(crate) fn judge(error: io::Error) -> io::Result<Refusal> {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EAGAIN) => Ok(Refusal::Empty),
        // The process or the system has no free descriptor or memory.
        Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM) => {
            Ok(Refusal::Shortage)
        }
        // The peer gave up, a firewall refused it, or the new connection had a network error, which
        // accept(2) on Linux returns.
        Some(
            Errno::ECONNABORTED
            | Errno::EPERM
            | Errno::EPROTO
            | Errno::ENETDOWN
            | Errno::ENOPROTOOPT
            | Errno::EHOSTDOWN
            | Errno::ENONET
            | Errno::EHOSTUNREACH
            | Errno::EOPNOTSUPP
            | Errno::ENETUNREACH
            | Errno::ETIMEDOUT,
        ) => Ok(Refusal::Aborted),
        _ => Err(error),
    }
}
