//! Clauses L, O, E and Q2 for one registration.

use crate::event::{Interest, Mode, Token};
use crate::key::Key;

#[derive(Debug)]
pub(super) struct Expected {
    pub(super) key: Key,
    pub(super) token: Token,
    pub(super) interest: Interest,
    mode: Mode,
    /// The directions with kernel edges, which may be reported more often than required (E2).
    edges: Interest,
    /// The directions to report once they are ready.
    must_report: Interest,
    /// The directions that may be reported without kernel edges.
    open: Interest,
    /// Something happened since the last event (E3).
    has_event: bool,
    /// The capacity of the waits that left the source out although it was due (Q2).
    left_out: usize,
}

impl Expected {
    pub(super) fn new(
        key: Key,
        token: Token,
        interest: Interest,
        mode: Mode,
        edges: Interest,
    ) -> Self {
        let (must_report, open) = (interest, interest);
        let (has_event, left_out) = (true, 0);
        Expected { key, token, interest, mode, edges, must_report, open, has_event, left_out }
    }

    pub(super) fn modified(&mut self, token: Token, interest: Interest, mode: Mode) {
        *self = Expected::new(self.key, token, interest, mode, self.edges);
    }

    /// Notes an event of the file.
    pub(super) fn on_event(&mut self) {
        self.has_event = true;
    }

    pub(super) fn reset_left_out(&mut self) {
        self.left_out = 0;
    }

    pub(super) fn rearmed(&mut self, dirs: Interest, accepted: bool) {
        if !accepted {
            return;
        }
        self.has_event = true;
        self.left_out = 0;
        match self.mode {
            Mode::Level => {}
            Mode::OneShot => self.must_report = dirs,
            Mode::Edge => {
                (self.must_report, self.open) = (self.must_report | dirs, self.open | dirs)
            }
        }
    }

    pub(super) fn drained(&mut self, dirs: Interest, ready: Interest, accepted: bool) {
        if !accepted || self.mode != Mode::Edge {
            assert!(accepted || self.mode == Mode::Edge, "drained is refused in edge mode only");
            return;
        }
        self.has_event = true;
        self.must_report |= dirs - ready;
        self.open |= dirs;
    }

    /// Checks a wait with this capacity that reported `got` while `ready` was ready.
    pub(super) fn check_wait(
        &mut self,
        got: Interest,
        ready: Interest,
        capacity: usize,
        registered: usize,
    ) -> Result<(), String> {
        let broken = |clause: &str| Err(format!("{clause}: {got:?} of {ready:?}, {self:?}"));
        let must = match self.mode {
            Mode::Level => ready & self.interest,
            Mode::OneShot | Mode::Edge => ready & self.must_report,
        };
        let inexact = if self.mode == Mode::Edge { self.edges } else { Interest::empty() };
        let may = match self.mode {
            Mode::Level | Mode::OneShot => must,
            Mode::Edge => ready & ((self.interest & self.edges) | self.open),
        };
        if got.is_empty() {
            self.left_out = if must.is_empty() { 0 } else { self.left_out + capacity };
            if self.left_out >= registered {
                return Err(format!("L1, O1, E1 or Q2: nothing of {ready:?}, {self:?}"));
            }
            return Ok(());
        }
        if !may.contains(got) {
            return broken("L2 or O1");
        }
        if !got.contains(must) || got - inexact != may - inexact {
            return broken("H4");
        }
        if self.mode == Mode::Edge && !self.has_event {
            return broken("E3");
        }
        (self.has_event, self.left_out) = (false, 0);
        self.must_report -= got;
        self.open -= got;
        if self.mode == Mode::OneShot {
            self.must_report = Interest::empty();
        }
        Ok(())
    }
}
