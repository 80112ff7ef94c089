//! A poller to work with: operations go out and come back, until a signal says to stop.

use crate::failure::{Explain, Failure};
use nix::sys::signalfd::{SignalFd, siginfo};
use quintpoll::{Completion, Events, Interest, Key, Mode, Op, OpenOptions, Outcome};
use quintpoll::{Poller, Source, Token, Waker};
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// Operations of blocks have the numbers of their slots.
const STOP: Token = Token(usize::MAX);
const ALONE: Token = Token(usize::MAX - 1);
const COMPLETIONS_PER_WAIT: usize = 64;

pub(crate) struct Hands {
    poller: Box<dyn Poller>,
    events: Events,
    is_stopped: bool,
}

impl Hands {
    /// Works until these signals come.
    pub(crate) fn new(poller: Box<dyn Poller>, signals: SignalFd) -> Result<Self, Failure> {
        let events = Events::with_capacity(COMPLETIONS_PER_WAIT);
        let mut hands = Hands { poller, events, is_stopped: false };
        let signals = hands.register(Arc::new(signals))?;
        hands.submit(Op::read(signals, Vec::new(), size_of::<siginfo>()), STOP)?;
        Ok(hands)
    }

    /// Makes a file known for operations alone.
    pub(crate) fn register(&mut self, file: Source) -> Result<Key, Failure> {
        let key = self.poller.register(file, Token(0), Interest::empty(), Mode::Level);
        key.explain("can't register a file")
    }

    /// Lets go of a file of which nothing is under way.
    pub(crate) fn deregister(&mut self, key: Key) -> Result<(), Failure> {
        self.poller.deregister(key).explain("can't deregister a file")
    }

    pub(crate) fn submit(&mut self, op: Op, token: Token) -> Result<(), Failure> {
        self.poller.submit(op, token).map(drop).explain("can't submit an operation")
    }

    pub(crate) fn waker(&self) -> Waker {
        self.poller.waker()
    }

    /// What is done next of all that was submitted.
    ///
    /// # Errors
    ///
    /// Somebody wants it stopped.
    pub(crate) fn next(&mut self) -> Result<Completion, Failure> {
        self.wait_until(Hands::take)
    }

    /// Has one operation done while no other is under way. It does not stop halfway: whoever makes
    /// a file has to hear that it is made.
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

    /// Waits until there is what is looked for. Whoever brings it about has to use the waker.
    pub(crate) fn wait_until<T>(
        &mut self,
        look: impl Fn(&mut Hands) -> Option<T>,
    ) -> Result<T, Failure> {
        loop {
            let found = look(self);
            self.check()?;
            if let Some(found) = found {
                return Ok(found);
            }
            self.wait()?;
        }
    }

    /// # Errors
    ///
    /// Somebody wants it stopped.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        if self.is_stopped { Err(Failure::run("interrupted")) } else { Ok(()) }
    }

    fn wait(&mut self) -> Result<(), Failure> {
        self.poller.wait(&mut self.events, None).explain("can't wait")
    }

    /// One of those that have come. What is not taken stays in the events.
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
