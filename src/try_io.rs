//! I/O calls in edge mode, portable to every backend.

use crate::event::Interest;
use crate::key::Key;
use crate::poller::Poller;
use std::io;

/// Runs an I/O call, and calls [`Poller::drained`] if the call would block. This is the portable
/// way to use edge mode (E4). `interest` names the direction of the call. A call would block if it
/// returns `WouldBlock`, `EINPROGRESS` or `EALREADY`.
///
/// A short read or write of a stream counts as `WouldBlock` too (E4), but `try_io` does not know
/// how many bytes were requested: call [`Poller::drained`] then.
///
/// # Errors
///
/// The error of `io`, `WouldBlock` included, or that of `drained` for the key. A direction outside
/// the registered interest is no error here.
///
/// # Examples
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// # use quintpoll::{try_io, Backend, Interest, Mode, Token};
/// # use std::{io::{ErrorKind, Read}, os::unix::net::UnixStream, sync::Arc};
/// # let (local, _peer) = UnixStream::pair()?;
/// # local.set_nonblocking(true)?;
/// # let local = Arc::new(local);
/// # let mut poller = Backend::best().open()?;
/// let key = poller.register(local.clone(), Token(1), Interest::READABLE, Mode::Edge)?;
/// let mut buffer = [0; 4096];
/// let read = try_io(&mut *poller, key, Interest::READABLE, || (&*local).read(&mut buffer));
/// assert_eq!(read.unwrap_err().kind(), ErrorKind::WouldBlock);
/// # Ok(())
/// # }
/// ```
#[doc(alias("EAGAIN", "WouldBlock"))]
pub fn try_io<T>(
    poller: &mut (impl Poller + ?Sized),
    key: Key,
    interest: Interest,
    io: impl FnOnce() -> io::Result<T>,
) -> io::Result<T> {
    let result = io();
    if result.as_ref().is_err_and(would_block) {
        for dir in interest {
            match poller.drained(key, dir) {
                // A direction that is not watched needs no report.
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => {}
                result => result?,
            }
        }
    }
    result
}

fn would_block(error: &io::Error) -> bool {
    // A connect is in progress: the socket becomes writable when it is done.
    let is_connecting = matches!(error.raw_os_error(), Some(libc::EINPROGRESS | libc::EALREADY));
    error.kind() == io::ErrorKind::WouldBlock || is_connecting
}
