//! One registration in a [book](super::book), and what a wait must and may say of it.

use super::oracle::{Bits, DIRECTIONS, readiness, ready};
use super::told::Told;
use quintpoll::{Interest, Key, Mode, Readiness, Token};
use std::fmt;
use std::io::ErrorKind;

/// A clause was broken, and how.
#[derive(Debug)]
pub struct Failure {
    /// Its number in the contract.
    pub clause: &'static str,
    /// What is wrong.
    pub what: String,
}

/// What is said of a call or a wait.
pub type Verdict<T = ()> = Result<T, Failure>;

/// One registration.
#[derive(Debug)]
pub struct Entry {
    /// Its key.
    pub key: Key,
    /// Its token.
    pub token: Token,
    /// Its interest.
    pub interest: Interest,
    /// Its mode.
    pub mode: Mode,
    /// The directions that have the mechanism's own edges.
    pub edges: Interest,
    /// What may be reported, where edges are not the mechanism's own.
    pub armed: Interest,
    /// Edge: what must be reported when it is ready, because it was named since its last report.
    pub owed: Interest,
    /// Edge: what is no news.
    pub told: Told,
    /// Something has happened to it since its last report.
    pub is_fresh: bool,
    /// Something may happen to it at any time.
    pub is_restless: bool,
    /// A wait without room for all may have reported this, or another: which one is not laid down.
    pub is_open: bool,
    /// The capacities of the waits that have left it out while it was due.
    pub waited: usize,
    /// The most registrations there were in those waits.
    pub crowd: usize,
}

/// What one wait must and may say of one registration.
#[derive(Clone, Copy, Debug)]
pub struct Claim {
    /// What must be said, if anything is.
    pub must: Interest,
    /// What may be.
    pub may: Interest,
}

impl Entry {
    /// Just registered or modified: everything is named.
    pub fn new(
        key: Key,
        token: Token,
        interest: Interest,
        mode: Mode,
        edges: Interest,
        is_restless: bool,
    ) -> Self {
        let (armed, owed, is_fresh) = (interest, interest, true);
        let (is_open, waited, crowd) = Default::default();
        Entry {
            key,
            token,
            interest,
            mode,
            edges,
            armed,
            owed,
            told: Told::NOTHING,
            is_fresh,
            is_restless,
            is_open,
            waited,
            crowd,
        }
    }

    /// What a call must answer that names these directions.
    ///
    /// # Errors
    ///
    /// What it must fail with.
    pub fn accepts(&self, dirs: Interest) -> Result<(), ErrorKind> {
        if self.interest.contains(dirs) { Ok(()) } else { Err(ErrorKind::InvalidInput) }
    }

    /// Edge: a call has named these directions, and owes some of them a report.
    pub fn name(&mut self, dirs: Interest, owed: Interest) {
        self.armed |= dirs;
        self.owed |= owed;
        self.is_fresh = true;
    }

    /// Edge: `drained` has named these directions.
    pub fn drained(&mut self, dirs: Interest, bits: Bits) {
        if !self.told.ended(dirs & self.closed()).is_empty() {
            self.look(bits);
        }
        self.name(dirs - self.told.ended(self.closed()), dirs - ready(bits, dirs));
    }

    /// A wait begins, while poll(2) says this, and looks at the ends that were told.
    pub fn look(&mut self, bits: Bits) {
        let drained = self.told.look(self.closed(), bits);
        self.armed |= drained;
        self.owed |= drained;
    }

    /// Edge: what is not reported again but for news, for it has no edges of its own.
    fn closed(&self) -> Interest {
        let closed = self.interest - self.edges - self.armed;
        if self.mode == Mode::Edge { closed } else { Interest::empty() }
    }

    /// What a wait must and may say of it, while poll(2) says `bits`.
    pub fn claim(&self, bits: Bits) -> Claim {
        let ready = ready(bits, self.interest);
        let exactly = |dirs| Claim { must: ready & dirs, may: ready & dirs };
        match self.mode {
            Mode::Level => exactly(self.interest),
            Mode::OneShot => exactly(self.armed),
            Mode::Edge => {
                let may_repeat = self.is_fresh || self.is_restless;
                let by_edges = if may_repeat { self.interest } else { self.owed };
                let news = self.told.news(self.interest, bits);
                let may = (by_edges & self.edges) | ((self.armed | news) - self.edges);
                Claim { must: ready & (self.owed | news), may: ready & may }
            }
        }
    }

    /// Judges an event.
    ///
    /// # Errors
    ///
    /// The clause it breaks.
    pub fn reported(&mut self, source: usize, bits: Bits, says: Readiness) -> Verdict {
        let ready = ready(bits, Interest::all());
        let claim = self.claim(bits);
        let what = || format!("{source} says {says:?} while poll(2) says {bits:?}: {self:?}");
        expect(!claim.may.is_empty(), self.silence(ready), what)?;
        let Some(reported) = claim.explain(bits, says) else { return fail("H3", what()) };
        match self.mode {
            Mode::Level => {}
            Mode::OneShot => self.armed = Interest::empty(),
            Mode::Edge => {
                self.armed -= reported;
                self.owed -= reported;
                self.told.report(reported, bits);
                self.is_fresh = false;
            }
        }
        self.waited = 0;
        Ok(())
    }

    /// Judges that there is no event of it, in a wait that had room for so many, reported so many,
    /// and had so many registered.
    ///
    /// # Errors
    ///
    /// The clause that is broken by it.
    pub fn left_out(&mut self, source: usize, bits: Bits, wait: (usize, usize, usize)) -> Verdict {
        let (room, count, crowd) = wait;
        if self.claim(bits).must.is_empty() {
            return Ok(());
        }
        let clause = match self.mode {
            Mode::Level => "L1",
            Mode::OneShot => "O1",
            Mode::Edge if self.told.news(self.interest, bits).is_empty() => "E1",
            Mode::Edge => "E5",
        };
        expect(count == room, clause, || {
            format!("{source} was left out while poll(2) says {bits:?}: {self:?}")
        })?;
        self.crowd = if self.waited == 0 { crowd } else { self.crowd.max(crowd) };
        self.waited += room;
        expect(self.waited < self.crowd, "Q2", || {
            format!("{source} was left out for {} of {}: {self:?}", self.waited, self.crowd)
        })
    }

    /// The clause that an event breaks which may not be.
    fn silence(&self, ready: Interest) -> &'static str {
        match self.mode {
            _ if self.interest.is_empty() => "R8",
            _ if !ready.intersects(self.interest) => "L2",
            Mode::Level => "L2",
            Mode::OneShot => "O1",
            Mode::Edge => "E3",
        }
    }
}

impl Claim {
    /// The most directions that may be reported, take in all that must be, and have these flags.
    fn explain(self, bits: Bits, says: Readiness) -> Option<Interest> {
        let sets = (1..1_usize << DIRECTIONS.len()).map(|chosen| {
            let each = DIRECTIONS.iter().enumerate();
            each.filter(|(nth, _)| chosen >> nth & 1 == 1).map(|(_, &dir)| dir).collect()
        });
        let fits = |&dirs: &Interest| {
            self.may.contains(dirs) && dirs.contains(self.must) && readiness(bits, dirs) == says
        };
        sets.filter(fits).max_by_key(|dirs: &Interest| dirs.iter().count())
    }
}

/// Nothing, if it holds.
///
/// # Errors
///
/// The clause and what is said of it, if it does not.
pub fn expect(holds: bool, clause: &'static str, what: impl FnOnce() -> String) -> Verdict {
    if holds { Ok(()) } else { fail(clause, what()) }
}

/// A broken clause.
///
/// # Errors
///
/// Always.
pub fn fail<T>(clause: &'static str, what: String) -> Verdict<T> {
    Err(Failure { clause, what })
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "clause {} is broken: {}", self.clause, self.what)
    }
}
