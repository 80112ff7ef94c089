//! The server by readiness: it waits for readiness events, then reads and writes.

mod acceptor;
mod connection;
mod watch;

use crate::listening::Refusal;
use crate::server::Stopper;
use crate::slab::Slab;
use crate::stats::Stats;
use acceptor::Acceptor;
use connection::{Connection, Turn};
use quintpoll::{Event, Events, Interest, Mode, Poller, Source, Token};
use std::io;
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The tokens of connections are their indices in the slab, which are smaller.
const LISTENER: Token = Token(usize::MAX);
const STOP: Token = Token(usize::MAX - 1);

const EVENTS_PER_WAIT: usize = 1024;
/// The most connections accepted for one event, so that other sources are served.
const ACCEPTS_PER_TURN: usize = 64;
const SCRATCH: usize = 16 * 1024;

pub(crate) struct Server {
    poller: Box<dyn Poller>,
    mode: Mode,
    acceptor: Acceptor,
    connections: Slab<Connection>,
    /// The read buffer of all connections.
    scratch: Vec<u8>,
    stopped: Arc<AtomicBool>,
    stats: Stats,
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
                Ok(socket) => self.admit(socket),
                Err(Refusal::Aborted) => self.stats.aborted += 1,
                Err(Refusal::Empty) => return self.acceptor.wait(&mut *self.poller),
                Err(Refusal::Shortage) => {
                    self.stats.shortages += 1;
                    return self.acceptor.pause(&mut *self.poller);
                }
            }
        }
        self.acceptor.recheck(&mut *self.poller)
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
        // An earlier event of the same batch may have closed the connection of this one, and its
        // index may have been reused since.
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

impl crate::server::Server for Server {
    fn stopper(&self) -> Stopper {
        Stopper::new(self.stopped.clone(), self.poller.waker())
    }

    fn stop_on(&mut self, source: Source) -> io::Result<()> {
        self.poller.register(source, STOP, Interest::READABLE, Mode::Level)?;
        Ok(())
    }

    fn run(mut self: Box<Self>) -> io::Result<Stats> {
        let mut events = Events::with_capacity(EVENTS_PER_WAIT);
        while !self.stopped.load(Ordering::Acquire) {
            self.poller.wait(&mut events, self.acceptor.wait_timeout())?;
            self.stats.waits += 1;
            self.stats.events += events.len() as u64;
            for &event in &events {
                self.on_event(event)?;
            }
            self.acceptor.resume_if_due(&mut *self.poller);
        }
        Ok(self.stats)
    }
}
