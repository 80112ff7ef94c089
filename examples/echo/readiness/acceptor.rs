//! The listener: accepts connections, and pauses while descriptors are short.

use super::watch::Watch;
use crate::listening::{self, RETRY_AFTER, Refusal};
use quintpoll::{Interest, Mode, Poller, Token};
use std::io;
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

#[derive(Debug)]
pub(crate) struct Acceptor {
    listener: Arc<TcpListener>,
    watch: Watch,
    /// Set during a shortage, while the listener is not watched.
    retry_at: Option<Instant>,
}

impl Acceptor {
    pub(crate) fn new(
        poller: &mut dyn Poller,
        listener: TcpListener,
        token: Token,
        mode: Mode,
    ) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        listening::lengthen_queue(&listener)?;
        let listener = Arc::new(listener);
        let watch = Watch::new(poller, listener.clone(), token, mode, Interest::READABLE)?;
        Ok(Acceptor { listener, watch, retry_at: None })
    }

    /// # Errors
    ///
    /// Errors of the listener itself, which are lasting.
    pub(crate) fn accept(&self) -> io::Result<Result<TcpStream, Refusal>> {
        match self.listener.accept() {
            Ok((socket, _)) => Ok(Ok(socket)),
            Err(error) => Ok(Err(listening::judge(error)?)),
        }
    }

    /// Waits for the next connection, after the queue was found empty.
    pub(crate) fn wait(&mut self, poller: &mut dyn Poller) -> io::Result<()> {
        self.watch.wait_for(poller, Interest::READABLE)
    }

    /// Checks the queue in the next wait, because it was left before it was empty.
    pub(crate) fn recheck(&mut self, poller: &mut dyn Poller) -> io::Result<()> {
        self.watch.recheck(poller, Interest::READABLE)
    }

    /// Leaves pending connections in the queue. A watched listener would be reported in every wait.
    pub(crate) fn pause(&mut self, poller: &mut dyn Poller) -> io::Result<()> {
        self.retry_at = Some(Instant::now() + RETRY_AFTER);
        self.watch.set_interest(poller, Interest::empty())
    }

    /// Ends a pause, if there is one, because a descriptor may be free now.
    pub(crate) fn resume(&mut self, poller: &mut dyn Poller) {
        if self.retry_at.is_none() {
            return;
        }
        // If memory is short the poller may refuse. Then the pause continues.
        let resumed = self.watch.set_interest(poller, Interest::READABLE);
        self.retry_at = resumed.is_err().then(|| Instant::now() + RETRY_AFTER);
    }

    /// Ends a pause that has lasted long enough.
    pub(crate) fn resume_if_due(&mut self, poller: &mut dyn Poller) {
        if self.retry_at.is_some_and(|moment| moment <= Instant::now()) {
            self.resume(poller);
        }
    }

    /// Returns the timeout of the next wait.
    pub(crate) fn wait_timeout(&self) -> Option<Duration> {
        self.retry_at.map(|moment| moment.saturating_duration_since(Instant::now()))
    }
}
