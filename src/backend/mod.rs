//! The names of the backends.

mod open;

pub use open::Unavailable;
use std::fmt;
use std::io;
use std::str::FromStr;

/// A kernel mechanism that tells which files are ready.
///
/// Its name, as [`Display`](fmt::Display) writes it and [`FromStr`] reads it, is `select`, `poll`,
/// `epoll`, `sigio` or `uring`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Backend {
    /// [select(2)](https://man7.org/linux/man-pages/man2/select.2.html).
    Select,
    /// [poll(2)](https://man7.org/linux/man-pages/man2/poll.2.html).
    Poll,
    /// [epoll(7)](https://man7.org/linux/man-pages/man7/epoll.7.html).
    Epoll,
    /// Signal-driven I/O: `O_ASYNC` and `F_SETSIG` of
    /// [fcntl(2)](https://man7.org/linux/man-pages/man2/fcntl.2.html).
    ///
    /// While its poller lives it blocks `SIGIO` and one real-time signal, chosen when it is made,
    /// on its thread. Unblocked, for instance by putting an older mask back, they would end the
    /// process. [`unblock_in_child`](crate::unblock_in_child) is for the commands that the program
    /// runs; a handler of the program's for `SIGIO` does not run on this thread.
    ///
    /// While a file is registered, its `O_ASYNC`, owner and signal are the poller's, and as its
    /// owner the thread is sent `SIGURG` for urgent data. Deregister it before you give it another
    /// owner: the poller's signal would go there, and end that process. A file that signals
    /// somebody else already is watched by poll(2), and left as it is.
    Sigio,
    /// [io_uring(7)](https://man7.org/linux/man-pages/man7/io_uring.7.html): its multishot polls,
    /// which take Linux 5.13.
    ///
    /// Some kernels (6.14 and some later) count the memory of the poller's ring, some 80 kB,
    /// against `RLIMIT_MEMLOCK`; where it is short the ring is smaller. Many sandboxes forbid
    /// io_uring, and so may the sysctl `kernel.io_uring_disabled`.
    Uring,
    /// A selector from outside this crate, by its name (feature `spi`).
    Other(&'static str),
}

impl Backend {
    /// The five of this crate.
    pub const ALL: [Backend; 5] =
        [Backend::Select, Backend::Poll, Backend::Epoll, Backend::Sigio, Backend::Uring];
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match *self {
            Backend::Select => "select",
            Backend::Poll => "poll",
            Backend::Epoll => "epoll",
            Backend::Sigio => "sigio",
            Backend::Uring => "uring",
            Backend::Other(name) => name,
        })
    }
}

impl FromStr for Backend {
    type Err = UnknownBackend;

    fn from_str(name: &str) -> Result<Self, UnknownBackend> {
        let named = |backend: &Backend| backend.to_string() == name;
        Self::ALL.into_iter().find(named).ok_or_else(|| UnknownBackend(name.to_owned()))
    }
}

/// Text that names no backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownBackend(String);

impl fmt::Display for UnknownBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [select, poll, epoll, sigio, uring] = Backend::ALL;
        write!(
            f,
            "unknown backend {:?}: it is one of {select}, {poll}, {epoll}, {sigio}, {uring}",
            self.0
        )
    }
}

impl std::error::Error for UnknownBackend {}

impl From<UnknownBackend> for io::Error {
    fn from(unknown: UnknownBackend) -> Self {
        io::Error::new(io::ErrorKind::InvalidInput, unknown)
    }
}

#[cfg(test)]
mod tests;
