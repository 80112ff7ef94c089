//! Clauses L, O, E and Q2 for one registration.

use crate::event::{Interest, Mode, Token};
use crate::key::Key;

#[derive(Debug)]
pub(super) struct Expected {
    pub(super) key: Key,
    pub(super) token: Token,
    pub(super) interest: Interest,
    mode: Mode,
    /// Where the kernel has edges of its own for it, it may hear of more than is owed (E2).
    edges: Interest,
    /// What must be reported once it is ready.
    owed: Interest,
    /// What may be reported where the kernel has no edges.
    open: Interest,
    /// Something happened since the last event (E3).
    stirred: bool,
    /// The capacities of the waits that left it out though it was due (Q2).
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
        let (owed, open) = (interest, interest);
        let (stirred, left_out) = (true, 0);
        Expected { key, token, interest, mode, edges, owed, open, stirred, left_out }
    }

    pub(super) fn modified(&mut self, token: Token, interest: Interest, mode: Mode) {
        *self = Expected::new(self.key, token, interest, mode, self.edges);
    }

    /// There was activity on the file.
    pub(super) fn stirred(&mut self) {
        self.stirred = true;
    }

    pub(super) fn count_anew(&mut self) {
        self.left_out = 0;
    }

    pub(super) fn rearmed(&mut self, dirs: Interest, accepted: bool) {
        if !accepted {
            return;
        }
        self.stirred = true;
        self.left_out = 0;
        match self.mode {
            Mode::Level => {}
            Mode::OneShot => self.owed = dirs,
            Mode::Edge => (self.owed, self.open) = (self.owed | dirs, self.open | dirs),
        }
    }

    pub(super) fn drained(&mut self, dirs: Interest, ready: Interest, accepted: bool) {
        if !accepted || self.mode != Mode::Edge {
            assert!(accepted || self.mode == Mode::Edge, "it has no effect to refuse");
            return;
        }
        self.stirred = true;
        self.owed |= dirs - ready;
        self.open |= dirs;
    }

    /// A wait with room for `capacity` events reported `got`, and `ready` is ready.
    pub(super) fn judge(
        &mut self,
        got: Interest,
        ready: Interest,
        capacity: usize,
        registered: usize,
    ) -> Result<(), String> {
        let broken = |clause: &str| Err(format!("{clause}: {got:?} of {ready:?}, {self:?}"));
        let must = match self.mode {
            Mode::Level => ready & self.interest,
            Mode::OneShot | Mode::Edge => ready & self.owed,
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
        if self.mode == Mode::Edge && !self.stirred {
            return broken("E3");
        }
        (self.stirred, self.left_out) = (false, 0);
        self.owed -= got;
        self.open -= got;
        if self.mode == Mode::OneShot {
            self.owed = Interest::empty();
        }
        Ok(())
    }
}
