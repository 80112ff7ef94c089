//! The interface of the servers of all styles.

use crate::completion;
use crate::readiness;
use crate::stats::Stats;
use quintpoll::{Mode, Poller, Source, Waker};
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The style of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// Waits for readiness events, then reads and writes.
    Readiness(Mode),
    /// Submits operations, and waits for their results.
    Completion,
    /// Submits operations that have many results.
    Multishot,
}

/// An echo server. Like its poller it stays on its thread.
pub(crate) trait Server {
    fn stopper(&self) -> Stopper;

    /// Stops as soon as this source is readable.
    fn stop_on(&mut self, source: Source) -> io::Result<()>;

    /// Serves until stopped. Connections that are open then are closed.
    ///
    /// # Errors
    ///
    /// Errors of the poller or the listener. Those of a connection end only that connection.
    fn run(self: Box<Self>) -> io::Result<Stats>;
}

pub(crate) fn open(
    style: Style,
    poller: Box<dyn Poller>,
    listener: TcpListener,
) -> io::Result<Box<dyn Server>> {
    Ok(match style {
        Style::Readiness(mode) => Box::new(readiness::Server::new(poller, listener, mode)?),
        Style::Completion => Box::new(completion::Server::single(poller, listener)?),
        Style::Multishot => Box::new(completion::Server::multishot(poller, listener)?),
    })
}

/// Stops a server from another thread.
#[derive(Debug)]
pub(crate) struct Stopper {
    stopped: Arc<AtomicBool>,
    waker: Waker,
}

impl Stopper {
    pub(crate) fn new(stopped: Arc<AtomicBool>, waker: Waker) -> Self {
        Stopper { stopped, waker }
    }

    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        self.waker.wake();
    }
}
