//! The server by completion: it submits operations, and each result leads to the next ones. In the
//! multishot style one operation accepts all connections, and one receives all data of a peer.

mod buffers;
mod connection;

use crate::listening::{self, RETRY_AFTER, Refusal};
use crate::server::Stopper;
use crate::slab::Slab;
use crate::stats::Stats;
use buffers::Buffers;
use connection::{Connection, Part};
use nix::sys::signalfd::siginfo;
use quintpoll::{Completion, Events, Key, Op, OpId, Outcome};
use quintpoll::{Poller, Source, Token};
use std::io;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The tokens of connections are smaller.
const ACCEPTED: Token = Token(usize::MAX);
const PAUSED: Token = Token(usize::MAX - 1);
const STOP: Token = Token(usize::MAX - 2);

const COMPLETIONS_PER_WAIT: usize = 1024;

pub(crate) struct Server {
    poller: Box<dyn Poller>,
    listener: Key,
    /// The number of accepts in flight.
    accepts: usize,
    /// The timeout that ends a pause of accepting, set during a shortage.
    pause: Option<OpId>,
    connections: Slab<Connection>,
    buffers: Buffers,
    stopped: Arc<AtomicBool>,
    stats: Stats,
}

impl Server {
    /// Makes a server that submits one operation for each result.
    pub(crate) fn single(poller: Box<dyn Poller>, listener: TcpListener) -> io::Result<Self> {
        Server::new(poller, listener, Buffers::own())
    }

    /// Makes a server whose operations have many results.
    pub(crate) fn multishot(poller: Box<dyn Poller>, listener: TcpListener) -> io::Result<Self> {
        Server::new(poller, listener, Buffers::pooled()?)
    }

    fn new(
        mut poller: Box<dyn Poller>,
        listener: TcpListener,
        buffers: Buffers,
    ) -> io::Result<Self> {
        listening::lengthen_queue(&listener)?;
        let listener = poller.register_for_ops(Arc::new(listener))?;
        let mut server = Server {
            poller,
            listener,
            accepts: 0,
            pause: None,
            connections: Slab::new(),
            buffers,
            stopped: Arc::default(),
            stats: Stats::default(),
        };
        server.accept()?;
        Ok(server)
    }

    fn on_completion(&mut self, done: Completion) -> io::Result<()> {
        match done.token {
            ACCEPTED => self.on_accepted(done),
            // The timeout of an earlier pause is ignored.
            PAUSED if self.pause == Some(done.id) => self.resume(),
            PAUSED => Ok(()),
            STOP => done.result.map(|_| self.stopped.store(true, Ordering::Release)),
            token => self.serve(token, done),
        }
    }

    fn on_accepted(&mut self, done: Completion) -> io::Result<()> {
        self.accepts -= usize::from(!done.more);
        match done.result {
            Ok(Outcome::Accepted { socket, .. }) => self.admit(socket),
            Ok(_) => {}
            Err(error) => match listening::judge(error)? {
                Refusal::Shortage => return self.pause(),
                Refusal::Aborted => self.stats.aborted += 1,
                Refusal::Empty => {}
            },
        }
        self.accept()
    }

    fn accept(&mut self) -> io::Result<()> {
        while self.pause.is_none() && self.accepts < self.buffers.accepts() {
            self.poller.submit(self.buffers.accept(self.listener), ACCEPTED)?;
            self.accepts += 1;
        }
        Ok(())
    }

    /// Leaves pending connections in the queue: another accept would fail again at once.
    fn pause(&mut self) -> io::Result<()> {
        if self.pause.is_some() {
            return Ok(());
        }
        self.stats.shortages += 1;
        self.pause = Some(self.poller.submit(Op::timeout(RETRY_AFTER), PAUSED)?);
        Ok(())
    }

    /// Ends a pause, if there is one, because a descriptor may be free now.
    fn resume(&mut self) -> io::Result<()> {
        let Some(timeout) = self.pause.take() else { return Ok(()) };
        // If the timeout has ended there is nothing to cancel.
        let _ = self.poller.cancel(timeout);
        self.accept()
    }

    fn admit(&mut self, socket: OwnedFd) {
        let index = self.connections.next_index();
        self.stats.connections += 1;
        match Connection::new(&mut *self.poller, socket, index, &mut self.buffers) {
            Ok(connection) => self.connections.insert(connection),
            Err(_) => self.stats.dropped += 1,
        }
    }

    /// Handles the completion of a connection. A connection keeps its index until its last
    /// operation has completed.
    fn serve(&mut self, token: Token, done: Completion) -> io::Result<()> {
        let (index, part) = Part::of(token);
        let Some(connection) = self.connections.get_mut(index) else { return Ok(()) };
        // Counts received bytes as echoed, and subtracts those that a send failed to send.
        match part {
            Part::Receive => self.stats.bytes += done.transferred as u64,
            Part::Send if done.result.is_err() => {
                self.stats.bytes -= (done.buf.len() - done.transferred) as u64;
            }
            Part::Send => {}
        }
        let (poller, buffers) = (&mut *self.poller, &mut self.buffers);
        let is_broken = connection.on_completion(poller, part, done, buffers).is_err();
        self.stats.dropped += u64::from(is_broken);
        let must_close = is_broken || connection.is_finished();
        if must_close {
            connection.close(poller)?;
        }
        if connection.is_closed() {
            self.connections.remove(index);
        }
        if must_close { self.resume() } else { Ok(()) }
    }
}

impl crate::server::Server for Server {
    fn stopper(&self) -> Stopper {
        Stopper::new(self.stopped.clone(), self.poller.waker())
    }

    fn stop_on(&mut self, source: Source) -> io::Result<()> {
        let source = self.poller.register_for_ops(source)?;
        self.poller.submit(Op::read(source, Vec::new(), size_of::<siginfo>()), STOP)?;
        Ok(())
    }

    fn run(mut self: Box<Self>) -> io::Result<Stats> {
        let mut events = Events::with_capacity(COMPLETIONS_PER_WAIT);
        while !self.stopped.load(Ordering::Acquire) {
            self.poller.wait(&mut events, None)?;
            self.stats.waits += 1;
            self.stats.events += events.completed() as u64;
            for completion in events.completions() {
                self.on_completion(completion)?;
            }
        }
        Ok(self.stats)
    }
}
