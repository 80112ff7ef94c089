//! Runs operations on a poller, until a signal arrives.

use crate::failure::{Explain, Failure};
use nix::sys::signalfd::{SignalFd, siginfo};
use quintpoll::{Completion, Events, Key, Op, OpenOptions, Outcome};
use quintpoll::{Poller, Source, Token, Waker};
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// The tokens of blocks are the indices of their slots, which are smaller.
const STOP: Token = Token(usize::MAX);
const ALONE: Token = Token(usize::MAX - 1);
const COMPLETIONS_PER_WAIT: usize = 64;

pub(crate) struct Driver {
    poller: Box<dyn Poller>,
    events: Events,
    is_stopped: bool,
}

impl Driver {
    /// Makes a driver that stops when one of these signals arrives.
    pub(crate) fn new(poller: Box<dyn Poller>, signals: SignalFd) -> Result<Self, Failure> {
        let events = Events::with_capacity(COMPLETIONS_PER_WAIT);
        let mut driver = Driver { poller, events, is_stopped: false };
        let signals = driver.register(Arc::new(signals))?;
        driver.submit(Op::read(signals, Vec::new(), size_of::<siginfo>()), STOP)?;
        Ok(driver)
    }

    pub(crate) fn register(&mut self, file: Source) -> Result<Key, Failure> {
        self.poller.register_for_ops(file).explain("cannot register a file")
    }

    /// Deregisters a file that has no operation in flight.
    pub(crate) fn deregister(&mut self, key: Key) -> Result<(), Failure> {
        self.poller.deregister(key).explain("cannot deregister a file")
    }

    pub(crate) fn submit(&mut self, op: Op, token: Token) -> Result<(), Failure> {
        self.poller.submit(op, token).map(drop).explain("cannot submit an operation")
    }

    pub(crate) fn waker(&self) -> Waker {
        self.poller.waker()
    }

    /// Waits for the next completion.
    ///
    /// # Errors
    ///
    /// A signal has arrived.
    pub(crate) fn next(&mut self) -> Result<Completion, Failure> {
        self.wait_until(Driver::take)
    }

    /// Runs one operation while no other is in flight. A signal does not end it: a caller that
    /// makes a file must learn that it was made.
    pub(crate) fn run(&mut self, op: Op) -> Result<io::Result<Outcome>, Failure> {
        self.submit(op, ALONE)?;
        loop {
            if let Some(done) = self.take() {
                return Ok(done.result);
            }
            self.wait()?;
        }
    }

    pub(crate) fn open(
        &mut self,
        path: &Path,
        options: &OpenOptions,
    ) -> Result<io::Result<File>, Failure> {
        let opened = self.run(Op::open(path, options))?;
        Ok(opened.and_then(|outcome| match outcome {
            Outcome::Opened { file } => Ok(file.into()),
            _ => Err(io::ErrorKind::Unsupported.into()),
        }))
    }

    /// Waits until `poll` returns a value. Other threads must wake the poller when it would.
    pub(crate) fn wait_until<T>(
        &mut self,
        poll: impl Fn(&mut Driver) -> Option<T>,
    ) -> Result<T, Failure> {
        loop {
            let found = poll(self);
            self.check()?;
            if let Some(found) = found {
                return Ok(found);
            }
            self.wait()?;
        }
    }

    /// # Errors
    ///
    /// A signal has arrived.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        if self.is_stopped { Err(Failure::run("interrupted")) } else { Ok(()) }
    }

    fn wait(&mut self) -> Result<(), Failure> {
        self.poller.wait(&mut self.events, None).explain("cannot wait")
    }

    /// Takes the oldest completion. The rest stays in the events.
    fn take(&mut self) -> Option<Completion> {
        for done in self.events.completions() {
            if done.token != STOP {
                return Some(done);
            }
            self.is_stopped = true;
        }
        None
    }
}
