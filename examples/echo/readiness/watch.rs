//! The three modes: what each wants to hear about the direction a source waits for. The rest of the
//! server knows no mode.
//!
//! | | level | edge | one-shot |
//! |---|---|---|---|
//! | registered for | what is waited for now | every direction | every direction |
//! | I/O said `WouldBlock`, or was short | `modify`, if that is another direction | `drained` | `rearm` |
//! | left off before that | the same | `rearm` | `rearm` |

use quintpoll::{Interest, Key, Mode, Poller, Source, Token};
use std::io;

/// A registration, and what is waited for.
#[derive(Debug)]
pub(crate) struct Watch {
    key: Key,
    token: Token,
    mode: Mode,
    /// What the poller was told last.
    interest: Interest,
}

impl Watch {
    /// Watches a source that waits to become readable. `ever` is every direction it will wait for.
    pub(crate) fn new(
        poller: &mut dyn Poller,
        source: Source,
        token: Token,
        mode: Mode,
        ever: Interest,
    ) -> io::Result<Self> {
        // A level source that can be written would be reported in every wait.
        let interest = if mode == Mode::Level { Interest::READABLE } else { ever };
        let key = poller.register(source, token, interest, mode)?;
        Ok(Watch { key, token, mode, interest })
    }

    pub(crate) fn key(&self) -> Key {
        self.key
    }

    /// I/O in this direction said `WouldBlock`, or moved less than it could: the source waits for
    /// it.
    pub(crate) fn wait_for(&mut self, poller: &mut dyn Poller, dir: Interest) -> io::Result<()> {
        match self.mode {
            Mode::Level => self.set_interest(poller, dir),
            Mode::Edge => poller.drained(self.key, dir),
            Mode::OneShot => poller.rearm(self.key, dir),
        }
    }

    /// I/O in this direction was left off before it said `WouldBlock`: if there is more to do, the
    /// next wait is to say so.
    pub(crate) fn look_again(&mut self, poller: &mut dyn Poller, dir: Interest) -> io::Result<()> {
        match self.mode {
            Mode::Level => self.set_interest(poller, dir),
            Mode::Edge | Mode::OneShot => poller.rearm(self.key, dir),
        }
    }

    /// Has the poller report `interest` and nothing else. Empty is silence; and what is ready
    /// already when silence ends is reported, in every mode.
    pub(crate) fn set_interest(
        &mut self,
        poller: &mut dyn Poller,
        interest: Interest,
    ) -> io::Result<()> {
        if interest != self.interest {
            poller.modify(self.key, self.token, interest, self.mode)?;
            self.interest = interest;
        }
        Ok(())
    }
}
