//! The listener: takes connections in, and waits while there are no file numbers for them.

use crate::watch::Watch;
use nix::errno::Errno;
use nix::sys::socket::{Backlog, listen};
use quintpoll::{Interest, Mode, Poller, Token};
use std::io;
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// After a shortage, look again this much later at the latest: the numbers may be freed by someone
/// other than us.
const RETRY_AFTER: Duration = Duration::from_millis(250);

#[derive(Debug)]
pub(crate) struct Acceptor {
    listener: Arc<TcpListener>,
    watch: Watch,
    /// Set during a shortage, while the listener is not watched.
    retry_at: Option<Instant>,
}

/// What became of an attempt to accept.
#[derive(Debug)]
pub(crate) enum Attempt {
    Accepted(TcpStream),
    /// This one has gone; there may be others.
    Aborted,
    /// Nobody is waiting.
    Empty,
    /// Somebody is waiting, but there is no file number or no memory for him.
    Shortage,
}

impl Acceptor {
    pub(crate) fn new(
        poller: &mut dyn Poller,
        listener: TcpListener,
        token: Token,
        mode: Mode,
    ) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        // A second listen(2) changes the length of the queue. The standard library asks for a short
        // one, and whoever finds it full tries again after a second.
        listen(&listener, Backlog::MAXALLOWABLE)?;
        let listener = Arc::new(listener);
        let watch = Watch::new(poller, listener.clone(), token, mode, Interest::READABLE)?;
        Ok(Acceptor { listener, watch, retry_at: None })
    }

    /// # Errors
    ///
    /// Of the listener itself, which will not go away.
    pub(crate) fn accept(&self) -> io::Result<Attempt> {
        let error = match self.listener.accept() {
            Ok((socket, _)) => return Ok(Attempt::Accepted(socket)),
            Err(error) => error,
        };
        match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::EAGAIN) => Ok(Attempt::Empty),
            // The process, or the whole system, has no file number left; or there is no memory.
            Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM) => {
                Ok(Attempt::Shortage)
            }
            // The peer gave up, a firewall refused it, or an error of the network was waiting on
            // the new connection, which accept(2) on Linux hands over in its stead.
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
            ) => Ok(Attempt::Aborted),
            _ => Err(error),
        }
    }

    /// The queue is empty: wait for the next.
    pub(crate) fn wait(&mut self, poller: &mut dyn Poller) -> io::Result<()> {
        self.watch.wait_for(poller, Interest::READABLE)
    }

    /// The queue was left before it was empty.
    pub(crate) fn look_again(&mut self, poller: &mut dyn Poller) -> io::Result<()> {
        self.watch.look_again(poller, Interest::READABLE)
    }

    /// Leaves those who wait in the queue, because a listener that is watched would be reported
    /// again at once and for ever.
    pub(crate) fn pause(&mut self, poller: &mut dyn Poller) -> io::Result<()> {
        self.retry_at = Some(Instant::now() + RETRY_AFTER);
        self.watch.set_interest(poller, Interest::empty())
    }

    /// Ends a pause, if there is one: a file number may be free now.
    pub(crate) fn resume(&mut self, poller: &mut dyn Poller) {
        if self.retry_at.is_none() {
            return;
        }
        // Where memory is short the poller may refuse. Then the pause goes on.
        let resumed = self.watch.set_interest(poller, Interest::READABLE);
        self.retry_at = resumed.is_err().then(|| Instant::now() + RETRY_AFTER);
    }

    /// Ends a pause that has lasted long enough.
    pub(crate) fn resume_if_due(&mut self, poller: &mut dyn Poller) {
        if self.retry_at.is_some_and(|moment| moment <= Instant::now()) {
            self.resume(poller);
        }
    }

    /// How long a wait may last.
    pub(crate) fn patience(&self) -> Option<Duration> {
        self.retry_at.map(|moment| moment.saturating_duration_since(Instant::now()))
    }
}
