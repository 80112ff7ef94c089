//! The portable habit for edge mode.

use crate::event::Interest;
use crate::key::Key;
use crate::poller::Poller;
use std::io;

/// Runs an I/O call, and tells the poller with [`Poller::drained`] if the call would block: the
/// portable habit for edge mode (E4). `interest` names the direction of the call. A call would
/// block if it says `WouldBlock`, `EINPROGRESS` or `EALREADY`.
///
/// A short read or write of a stream counts as that too (E4), but `try_io` does not know how much
/// was asked for: call [`Poller::drained`] then.
///
/// # Errors
///
/// What `io` says, `WouldBlock` included; or what `drained` says of the key. A direction that is
/// not in the registered interest is no error here.
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// # use quintpoll::{try_io, Backend, Interest, Mode, Token};
/// # use std::{io::{ErrorKind, Read}, os::unix::net::UnixStream, sync::Arc};
/// # let (here, _there) = UnixStream::pair()?;
/// # here.set_nonblocking(true)?;
/// # let here = Arc::new(here);
/// # let mut poller = Backend::best().open()?;
/// let key = poller.register(here.clone(), Token(1), Interest::READABLE, Mode::Edge)?;
/// let mut buffer = [0; 4096];
/// let read = try_io(&mut *poller, key, Interest::READABLE, || (&*here).read(&mut buffer));
/// assert_eq!(read.unwrap_err().kind(), ErrorKind::WouldBlock);
/// # Ok(())
/// # }
/// ```
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
                // Of a direction that is not watched nobody waits to be told.
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => {}
                told => told?,
            }
        }
    }
    result
}

fn would_block(error: &io::Error) -> bool {
    // A connect is under way: the socket becomes writable when it is over.
    let is_connecting = matches!(error.raw_os_error(), Some(libc::EINPROGRESS | libc::EALREADY));
    error.kind() == io::ErrorKind::WouldBlock || is_connecting
}
