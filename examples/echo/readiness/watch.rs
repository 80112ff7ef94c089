//! The calls that each mode requires for the awaited direction. The rest of the server is the same
//! in all modes.
//!
//! | | level | edge | one-shot |
//! |---|---|---|---|
//! | registered for | the awaited direction | every direction | every direction |
//! | I/O returned `WouldBlock`, or was short | `modify`, if the direction changes | `drained` | `rearm` |
//! | I/O stopped before that | `modify`, if the direction changes | `rearm` | `rearm` |

use quintpoll::{Interest, Key, Mode, Poller, Source, Token};
use std::io;

/// A registration and its awaited direction.
#[derive(Debug)]
pub(crate) struct Watch {
    key: Key,
    token: Token,
    mode: Mode,
    /// The registered interest.
    interest: Interest,
}

impl Watch {
    /// Watches a source for readability at first. `all_dirs` has every direction it will await.
    pub(crate) fn new(
        poller: &mut dyn Poller,
        source: Source,
        token: Token,
        mode: Mode,
        all_dirs: Interest,
    ) -> io::Result<Self> {
        // A writable level source would be reported in every wait.
        let interest = if mode == Mode::Level { Interest::READABLE } else { all_dirs };
        let key = poller.register(source, token, interest, mode)?;
        Ok(Watch { key, token, mode, interest })
    }

    pub(crate) fn key(&self) -> Key {
        self.key
    }

    /// Awaits this direction, after I/O returned `WouldBlock` or was short.
    pub(crate) fn wait_for(&mut self, poller: &mut dyn Poller, dir: Interest) -> io::Result<()> {
        match self.mode {
            Mode::Level => self.set_interest(poller, dir),
            Mode::Edge => poller.drained(self.key, dir),
            Mode::OneShot => poller.rearm(self.key, dir),
        }
    }

    /// Lets the next wait report this direction again, because I/O stopped before `WouldBlock`.
    pub(crate) fn recheck(&mut self, poller: &mut dyn Poller, dir: Interest) -> io::Result<()> {
        match self.mode {
            Mode::Level => self.set_interest(poller, dir),
            Mode::Edge | Mode::OneShot => poller.rearm(self.key, dir),
        }
    }

    /// Registers for `interest` alone. An empty interest reports nothing. When it ends, present
    /// readiness is reported in every mode.
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
