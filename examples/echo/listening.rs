//! What listening is in all styles: how it begins, and what its errors mean.

use nix::errno::Errno;
use nix::sys::socket::{Backlog, listen};
use std::io;
use std::net::TcpListener;
use std::time::Duration;

/// After a shortage, look again this much later at the latest: the numbers may be freed by someone
/// other than us.
pub(crate) const RETRY_AFTER: Duration = Duration::from_millis(250);

/// Why nobody was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// This one has gone; there may be others.
    Aborted,
    /// Nobody is waiting.
    Empty,
    /// Somebody may be waiting, but there is no file number or no memory for him.
    Shortage,
}

/// A second listen(2) changes the length of the queue. The standard library asks for a short one,
/// and whoever finds it full tries again after a second.
pub(crate) fn lengthen_queue(listener: &TcpListener) -> io::Result<()> {
    Ok(listen(listener, Backlog::MAXALLOWABLE)?)
}

/// # Errors
///
/// Those of the listener itself, which will not go away.
pub(crate) fn judge(error: io::Error) -> io::Result<Refusal> {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EAGAIN) => Ok(Refusal::Empty),
        // The process, or the whole system, has no file number left; or there is no memory.
        Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM) => {
            Ok(Refusal::Shortage)
        }
        // The peer gave up, a firewall refused it, or an error of the network was waiting on the
        // new connection, which accept(2) on Linux hands over in its stead.
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
