//! The event loop.

use crate::acceptor::{Acceptor, Attempt};
use crate::connection::{Connection, Turn};
use crate::slab::Slab;
use crate::stats::Stats;
use quintpoll::{Event, Events, Interest, Mode, Poller, Source, Token, Waker};
use std::io;
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Connections have their numbers in the slab as tokens, which never get this far.
const LISTENER: Token = Token(usize::MAX);
const STOP: Token = Token(usize::MAX - 1);

const EVENTS_PER_WAIT: usize = 1024;
/// How many connections one event may take in before the others have their turn.
const ACCEPTS_PER_TURN: usize = 64;
const SCRATCH: usize = 16 * 1024;

/// An echo server. Like its poller it stays on its thread.
pub(crate) struct Server {
    poller: Box<dyn Poller>,
    mode: Mode,
    acceptor: Acceptor,
    connections: Slab<Connection>,
    /// Where every connection reads into, one after the other.
    scratch: Vec<u8>,
    stopped: Arc<AtomicBool>,
    stats: Stats,
}

/// Stops a server from another thread.
#[derive(Debug)]
pub(crate) struct Stopper {
    stopped: Arc<AtomicBool>,
    waker: Waker,
}

impl Stopper {
    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        self.waker.wake();
    }
}

impl Server {
    pub(crate) fn new(
        mut poller: Box<dyn Poller>,
        listener: TcpListener,
        mode: Mode,
    ) -> io::Result<Self> {
        let acceptor = Acceptor::new(&mut *poller, listener, LISTENER, mode)?;
        Ok(Server {
            poller,
            mode,
            acceptor,
            connections: Slab::new(),
            scratch: vec![0; SCRATCH],
            stopped: Arc::default(),
            stats: Stats::default(),
        })
    }

    pub(crate) fn stopper(&self) -> Stopper {
        Stopper { stopped: self.stopped.clone(), waker: self.poller.waker() }
    }

    /// Stops as soon as this source is readable.
    pub(crate) fn stop_on(&mut self, source: Source) -> io::Result<()> {
        self.poller.register(source, STOP, Interest::READABLE, Mode::Level)?;
        Ok(())
    }

    /// Serves until stopped. Connections that are open then are closed.
    ///
    /// # Errors
    ///
    /// Of the poller or the listener. Those of a connection end that connection only.
    pub(crate) fn run(mut self) -> io::Result<Stats> {
        let mut events = Events::with_capacity(EVENTS_PER_WAIT);
        while !self.stopped.load(Ordering::Acquire) {
            self.poller.wait(&mut events, self.acceptor.patience())?;
            self.stats.waits += 1;
            self.stats.events += events.len() as u64;
            for &event in &events {
                self.on_event(event)?;
            }
            self.acceptor.resume_if_due(&mut *self.poller);
        }
        Ok(self.stats)
    }

    fn on_event(&mut self, event: Event) -> io::Result<()> {
        match event.token {
            LISTENER => self.accept(),
            STOP => {
                self.stopped.store(true, Ordering::Release);
                Ok(())
            }
            Token(index) => self.serve(index, event),
        }
    }

    fn accept(&mut self) -> io::Result<()> {
        for _ in 0..ACCEPTS_PER_TURN {
            match self.acceptor.accept()? {
                Attempt::Accepted(socket) => self.admit(socket),
                Attempt::Aborted => self.stats.aborted += 1,
                Attempt::Empty => return self.acceptor.wait(&mut *self.poller),
                Attempt::Shortage => {
                    self.stats.shortages += 1;
                    return self.acceptor.pause(&mut *self.poller);
                }
            }
        }
        self.acceptor.look_again(&mut *self.poller)
    }

    fn admit(&mut self, socket: TcpStream) {
        let token = Token(self.connections.next_index());
        self.stats.connections += 1;
        match Connection::new(&mut *self.poller, socket, token, self.mode) {
            Ok(connection) => self.connections.insert(connection),
            Err(_) => self.stats.dropped += 1,
        }
    }

    fn serve(&mut self, index: usize, event: Event) -> io::Result<()> {
        // An earlier event of the same batch may have ended the connection that this one is about,
        // and another may have taken its place since.
        let connection = self.connections.get_mut(index);
        let Some(connection) = connection.filter(|found| found.key() == event.key) else {
            return Ok(());
        };
        let (poller, echoed) = (&mut *self.poller, &mut self.stats.bytes);
        match connection.on_event(poller, event.readiness, &mut self.scratch, echoed) {
            Ok(Turn::Blocked(_) | Turn::Unfinished) => Ok(()),
            Ok(Turn::Finished) => self.close(index),
            Err(_) => {
                self.stats.dropped += 1;
                self.close(index)
            }
        }
    }

    fn close(&mut self, index: usize) -> io::Result<()> {
        if let Some(connection) = self.connections.remove(index) {
            connection.close(&mut *self.poller)?;
        }
        self.acceptor.resume(&mut *self.poller);
        Ok(())
    }
}
