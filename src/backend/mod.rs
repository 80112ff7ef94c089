//! The names of the backends.

mod open;

pub use open::Unavailable;
use std::fmt;
use std::io;
use std::str::FromStr;

/// A kernel mechanism that reports which files are ready.
///
/// [`Display`](fmt::Display) writes its name: `select`, `poll`, `epoll`, `sigio` or `uring`.
/// [`FromStr`] reads that name in any case, and `io_uring` for `uring`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Backend {
    /// [select(2)](https://man7.org/linux/man-pages/man2/select.2.html).
    #[doc(alias = "pselect")]
    Select,
    /// [poll(2)](https://man7.org/linux/man-pages/man2/poll.2.html).
    #[doc(alias = "ppoll")]
    Poll,
    /// [epoll(7)](https://man7.org/linux/man-pages/man7/epoll.7.html).
    #[doc(alias = "epoll_wait")]
    Epoll,
    /// Signal-driven I/O: `O_ASYNC` and `F_SETSIG` of
    /// [fcntl(2)](https://man7.org/linux/man-pages/man2/fcntl.2.html).
    ///
    /// The poller blocks `SIGIO` and one real-time signal, chosen when it is made, on its thread
    /// until it is dropped. If they are unblocked, for instance by restoring an older mask, they
    /// end the process. Use [`unblock_in_child`](crate::unblock_in_child) for commands that the
    /// program runs. The program's own handler of `SIGIO` does not run on this thread.
    ///
    /// While a file is registered, the poller sets its `O_ASYNC`, owner and signal. The thread, as
    /// the owner, is sent `SIGURG` for urgent data. Deregister a file before you give it another
    /// owner: the poller's signal would be sent to that process and end it. A file that already
    /// signals another owner is watched by poll(2) and left unchanged.
    #[doc(alias("F_SETSIG", "O_ASYNC", "signalfd"))]
    Sigio,
    /// [io_uring(7)](https://man7.org/linux/man-pages/man7/io_uring.7.html). Its multishot polls
    /// require Linux 5.13.
    ///
    /// Some kernels (6.14 and some later) count the memory of the poller's ring, about 80 kB,
    /// against `RLIMIT_MEMLOCK`; under a low limit the ring is smaller. Many sandboxes forbid
    /// io_uring, and so may the sysctl `kernel.io_uring_disabled`.
    #[doc(alias("io_uring", "io_uring_enter"))]
    Uring,
    /// A selector from outside this crate, named (feature `spi`).
    Other(&'static str),
}

impl Backend {
    /// The five backends of this crate.
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
        if name.eq_ignore_ascii_case("io_uring") {
            return Ok(Backend::Uring);
        }
        let is_named = |backend: &Backend| backend.to_string().eq_ignore_ascii_case(name);
        Self::ALL.into_iter().find(is_named).ok_or_else(|| UnknownBackend(name.to_owned()))
    }
}

/// The error of parsing a text that names no [`Backend`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownBackend(String);

impl fmt::Display for UnknownBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [select, poll, epoll, sigio, uring] = Backend::ALL;
        write!(
            f,
            "unknown backend {:?}: the names are {select}, {poll}, {epoll}, {sigio}, {uring}",
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
