//! Opens the backends, or says why one is unavailable. Only this file names all five mechanisms.

use super::{Backend, UnknownBackend};
use crate::poller::Poller;
use crate::reactor::Reactor;
use crate::selector::{epoll, poll, select, sigio, uring};
use std::fmt;
use std::io;

impl Backend {
    /// The order in which [`best`](Backend::best) tries the backends.
    const PREFERENCE: [Backend; 5] =
        [Backend::Epoll, Backend::Uring, Backend::Poll, Backend::Sigio, Backend::Select];

    /// Makes a poller.
    ///
    /// # Errors
    ///
    /// * `Unsupported`, with an [`Unavailable`] inside: the backend is not available here.
    /// * `EMFILE`, `ENFILE`, `ENOMEM`: out of file descriptors or memory.
    /// * `ResourceBusy`: SIGIO, and every real-time signal is in use on this thread.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// let poller = quintpoll::Backend::Epoll.open()?;
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias("epoll_create1", "io_uring_setup", "new"))]
    pub fn open(self) -> io::Result<Box<dyn Poller>> {
        Ok(match self {
            Backend::Select => Box::new(Reactor::new(self, select::Select::new()?)?),
            Backend::Poll => Box::new(Reactor::new(self, poll::Poll::new()?)?),
            Backend::Epoll => Box::new(Reactor::new(self, epoll::Epoll::new()?)?),
            Backend::Sigio => Box::new(Reactor::new(self, sigio::Sigio::new()?)?),
            Backend::Uring => {
                let selector = uring::Uring::new().map_err(|error| match error.kind() {
                    io::ErrorKind::Unsupported => self.lacks(Cause::Refused(error)).into(),
                    _ => error,
                })?;
                Box::new(Reactor::new(self, selector)?)
            }
            Backend::Other(_) => return Err(self.lacks(Cause::Foreign).into()),
        })
    }

    /// Returns `Ok` if this backend can be opened now, else the reason. Opens a poller and drops
    /// it.
    ///
    /// # Errors
    ///
    /// The reason why it cannot be opened.
    ///
    /// ```
    /// use quintpoll::Backend;
    /// for backend in Backend::ALL {
    ///     match backend.is_available() {
    ///         Ok(()) => println!("{backend}: available"),
    ///         Err(why) => println!("{why}"),
    ///     }
    /// }
    /// ```
    pub fn is_available(self) -> Result<(), Unavailable> {
        match self.open() {
            Ok(_) => Ok(()),
            Err(error) => {
                Err(error.downcast().unwrap_or_else(|error| self.lacks(Cause::System(error))))
            }
        }
    }

    /// Returns the recommended backend: the first available of epoll, io_uring, poll, SIGIO and
    /// select. A backend that lacks only descriptors or memory counts as available, and
    /// [`Backend::open`] reports the shortage. Returns epoll if none is available.
    ///
    /// ```
    /// let poller = quintpoll::Backend::best().open();
    /// # poller.unwrap();
    /// ```
    pub fn best() -> Self {
        let usable = |backend: &Backend| match backend.is_available() {
            Ok(()) => true,
            Err(unavailable) => unavailable.is_shortage(),
        };
        Self::PREFERENCE.into_iter().find(usable).unwrap_or(Self::PREFERENCE[0])
    }

    /// Returns the backend that the environment variable `QUINTPOLL_BACKEND` names, or
    /// [`Backend::best`] if the variable is not set.
    ///
    /// # Errors
    ///
    /// [`UnknownBackend`], if the variable is set to anything but a name.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let poller = quintpoll::Backend::from_env()?.open()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn from_env() -> Result<Self, UnknownBackend> {
        match std::env::var_os("QUINTPOLL_BACKEND") {
            Some(name) => name.to_string_lossy().parse(),
            None => Ok(Self::best()),
        }
    }

    fn lacks(self, cause: Cause) -> Unavailable {
        Unavailable { backend: self, cause }
    }
}

/// The reason why a backend is not available.
#[derive(Debug)]
pub struct Unavailable {
    backend: Backend,
    cause: Cause,
}

#[derive(Debug)]
enum Cause {
    Foreign,
    /// By the kernel, a sandbox or the administrator. Lasting, unlike a shortage.
    Refused(io::Error),
    System(io::Error),
}

impl Unavailable {
    /// Returns the backend that is not available.
    pub fn backend(&self) -> Backend {
        self.backend
    }

    /// Returns true if descriptors or memory are short, which may pass.
    fn is_shortage(&self) -> bool {
        let Cause::System(error) = &self.cause else { return false };
        matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM))
    }
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is not available: ", self.backend)?;
        match &self.cause {
            Cause::Foreign => f.write_str(
                "the backend is not part of this crate; make its poller with Reactor::new",
            ),
            Cause::Refused(error) | Cause::System(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Unavailable {}

impl From<Unavailable> for io::Error {
    fn from(unavailable: Unavailable) -> Self {
        match unavailable.cause {
            Cause::System(error) => error,
            Cause::Refused(_) | Cause::Foreign => {
                io::Error::new(io::ErrorKind::Unsupported, unavailable)
            }
        }
    }
}

#[cfg(test)]
mod tests;
