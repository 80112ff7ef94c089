//! One poller in play, with the model that judges it.

use super::column::{Column, Subject};
use super::files::{Files, Place};
use super::interrupt::interrupted;
use super::model::{Answer, Failure, Model, Seen, Verdict, expect};
use super::oracle::Bits;
use super::script::{At, PLACES};
use nix::sys::signal::{Signal, raise};
use quintpoll::{Backend, Capabilities, Event, Events, Interest, Key, Mode, Readiness, Token};
use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, ErrorKind};
use std::time::{Duration, Instant};

/// What a wait is given that must not sleep; to reach it is a failure.
const LONG: Duration = Duration::from_millis(200);
/// How often one wait may look into the kernel. Reports that come to nothing cost a look each, and
/// there is one for a source at most: more is a poller that spins.
const MOST_LOOKS: usize = 2 + PLACES;
/// The capacity that scripts begin with.
const CAPACITY: usize = 8;
/// The clause that a wait breaks which sleeps although something is due.
pub(super) const SLEPT: &str = "T1";

/// How long a wait may sleep.
#[derive(Clone, Copy, Debug)]
pub struct Sleep {
    /// The timeout, where nothing is due.
    pub timeout: Duration,
    /// Signals come meanwhile.
    pub interrupted: bool,
}

impl Sleep {
    /// Not at all.
    pub const NOT: Sleep = Sleep { timeout: Duration::ZERO, interrupted: false };
}

/// A poller that plays.
pub struct Player {
    column: Column,
    subject: Box<dyn Subject>,
    model: Model,
    /// The key of each place: its own, or the last it had, or that of another poller.
    keys: Vec<Key>,
    events: Events,
    tokens: usize,
    /// The next wait must believe that reports got lost.
    overflow_sent: bool,
    /// How often it has believed so.
    overflows: usize,
    /// The places of which this mechanism may have missed something since they were armed.
    vague: [bool; PLACES],
    shown: Shown,
}

/// What can be seen of a poller from outside, for a step or several.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shown {
    /// What the calls answered.
    pub answers: Vec<Answer>,
    /// Whether a wait was woken.
    pub woken: bool,
    /// What the waits reported, by place. (That a place reports by its token is for the model.)
    pub reports: BTreeMap<usize, Readiness>,
}

/// The calls.
impl Player {
    /// A poller for these files.
    ///
    /// # Errors
    ///
    /// `Unsupported` where the backend is not available; else what is wrong.
    pub fn new(column: Column, files: &Files) -> io::Result<Self> {
        let mut subject = column.open()?;
        let capabilities = subject.poller().capabilities();
        let native_edges = capabilities.contains(Capabilities::NATIVE_EDGE);
        Ok(Player {
            column,
            subject,
            model: Model::new(native_edges, column.hears_signals()),
            keys: vec![foreign_key(files.at(At::A)); PLACES],
            events: Events::with_capacity(CAPACITY),
            tokens: 0,
            overflow_sent: false,
            overflows: 0,
            vague: [false; PLACES],
            shown: Shown::default(),
        })
    }

    /// What it is.
    pub fn column(&self) -> Column {
        self.column
    }

    /// What is expected of it.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The same, to be told what happens.
    pub fn model_mut(&mut self) -> &mut Model {
        &mut self.model
    }

    /// What it has shown since this was called before.
    pub fn take_shown(&mut self) -> Shown {
        std::mem::take(&mut self.shown)
    }

    /// Whether this mechanism may have missed something of the place since it was armed, which is
    /// then no matter for comparison.
    pub fn is_vague(&self, place: usize) -> bool {
        self.vague[place]
    }

    /// From now on waits have room for so many events.
    pub fn set_capacity(&mut self, capacity: usize) {
        self.events = Events::with_capacity(capacity);
    }

    /// Wakes the poller.
    pub fn wake(&mut self) {
        self.subject.poller().waker().wake();
        self.model.wake();
    }

    /// Registers the file at this place.
    pub fn register(&mut self, at: At, file: &Place, interest: Interest, mode: Mode) -> Verdict {
        let token = self.next_token();
        let (source, described) = (file.handle(), file.described());
        let answer = self.subject.poller().register(source, token, interest, mode);
        if let Ok(key) = answer {
            self.keys[at.index()] = key;
        }
        let expected = self.model.register(at.index(), token, interest, mode, described);
        self.armed(at, answer.map(drop), expected)
    }

    /// Modifies.
    pub fn modify(&mut self, at: At, interest: Interest, mode: Mode) -> Verdict {
        let token = self.next_token();
        let key = self.keys[at.index()];
        let answer = self.subject.poller().modify(key, token, interest, mode);
        let expected = self.model.modify(at.index(), token, interest, mode);
        self.armed(at, answer, expected)
    }

    /// Rearms.
    pub fn rearm(&mut self, at: At, dirs: Interest) -> Verdict {
        let key = self.keys[at.index()];
        let answer = self.subject.poller().rearm(key, dirs);
        let expected = self.model.rearm(at.index(), dirs);
        self.armed(at, answer, expected)
    }

    /// Says `drained`, while poll(2) says `bits` of the file.
    pub fn drained(&mut self, at: At, dirs: Interest, bits: Bits) -> Verdict {
        let key = self.keys[at.index()];
        let answer = self.subject.poller().drained(key, dirs);
        let expected = self.model.drained(at.index(), dirs, bits);
        self.answered(answer, expected)
    }

    /// Deregisters.
    pub fn deregister(&mut self, at: At) -> Verdict {
        let key = self.keys[at.index()];
        let answer = self.subject.poller().deregister(key);
        let expected = self.model.deregister(at.index());
        self.answered(answer, expected)
    }

    /// Registers a file that is nobody's, ready as it is, and deregisters it.
    ///
    /// # Panics
    ///
    /// If that is refused.
    pub fn visit(&mut self, file: &Place) {
        let (poller, token) = (self.subject.poller(), Token(usize::MAX));
        let key = poller.register(file.handle(), token, Interest::all(), Mode::Level);
        poller.deregister(key.expect("any file can be registered")).expect("the key is good");
    }

    /// Sends the signal by which the kernel tells that reports got lost. Elsewhere it would end the
    /// process: only pollers with SIGIO block it.
    pub fn overflow(&mut self) {
        if self.column.hears_signals() {
            raise(Signal::SIGIO).expect("raise");
            self.overflow_sent = true;
        }
    }

    /// Checks the poller's invariants after a step. poll(2) says these bits.
    pub fn observe(&mut self, bits: &[Bits]) {
        self.subject.verify();
        self.model.observe(bits);
    }

    fn next_token(&mut self) -> Token {
        self.tokens += 1;
        Token(self.tokens)
    }

    fn armed(&mut self, at: At, answer: io::Result<()>, expected: Answer) -> Verdict {
        self.vague[at.index()] &= answer.is_err();
        self.answered(answer, expected)
    }

    /// Compares what a call said with what it must say.
    fn answered(&mut self, answer: io::Result<()>, expected: Answer) -> Verdict {
        let said = answer.as_ref().map_err(io::Error::kind).copied();
        self.shown.answers.push(said);
        let clause = clause_of(said, expected);
        expect(said == expected, clause, || format!("answer {answer:?}, expected {expected:?}"))
    }
}

/// Waits.
impl Player {
    /// Waits until everything that is ready has had its turn (Q2), and once more.
    pub fn settle(&mut self, files: &Files, first: Sleep) -> Verdict {
        let bits = files.look();
        for (place, vague) in self.vague.iter_mut().enumerate() {
            *vague |= self.model.may_miss(place, bits[place]);
        }
        let turns = self.model.crowd().div_ceil(self.events.capacity());
        self.wait(files, first)?;
        (0..turns).try_for_each(|_| self.wait(files, Sleep::NOT))
    }

    /// Waits once.
    pub fn wait(&mut self, files: &Files, sleep: Sleep) -> Verdict {
        let bits = files.look();
        let due = self.model.begin_wait(&bits);
        let Sleep { timeout, interrupted: is_interrupted } = sleep;
        let timeout = if due && !timeout.is_zero() { LONG } else { timeout };
        let (looks, losses) = (self.subject.looks(), self.subject.losses());
        let started = Instant::now();
        let mut wait = || self.subject.poller().wait(&mut self.events, Some(timeout));
        let answer = if is_interrupted { interrupted(wait) } else { wait() };
        let took = started.elapsed();
        self.answered(answer, Ok(()))?;
        assert_eq!(files.look(), bits, "a wait changes no file");
        self.overflows(self.subject.losses() - losses)?;
        let (looks, seen) = (self.subject.looks() - looks, self.seen()?);
        self.show(&seen);
        self.model.wait(&bits, self.events.capacity(), &seen, self.events.woken())?;
        let silent = self.events.is_empty() && !self.events.woken();
        let over = took >= timeout;
        expect(!silent || over, "T3", || format!("empty after {took:?} of {timeout:?}"))?;
        expect(!due || !over || timeout.is_zero(), SLEPT, || format!("slept for {took:?}"))?;
        let most = if is_interrupted { usize::MAX } else { MOST_LOOKS };
        expect(looks <= most, "T2", || format!("{looks} looks in one wait of {took:?}"))
    }

    fn show(&mut self, seen: &[Seen]) {
        self.shown.woken |= self.events.woken();
        for event in seen {
            *self.shown.reports.entry(event.place).or_default() |= event.readiness;
        }
    }

    /// Compares how often reports got lost in a wait, `losses` times by the wrapper, with how often
    /// the poller says they did: only then it may repeat itself.
    fn overflows(&mut self, losses: usize) -> Verdict {
        let sent = usize::from(std::mem::take(&mut self.overflow_sent));
        let all = self.subject.poller().statistics().overflows as usize;
        let told = all - std::mem::replace(&mut self.overflows, all);
        if told > 0 {
            self.model.rescan();
        }
        // What is sent may come in a wait that loses its reports anyway.
        let is_right = losses.max(sent) <= told && told <= losses + sent;
        expect(is_right, "E3", || format!("{told} overflows told, {losses} made, {sent} sent"))
    }

    /// The events, each with the place whose key it has.
    fn seen(&self) -> Result<Vec<Seen>, Failure> {
        let place = |key| {
            let has = |&place: &usize| self.model.is_registered(place) && self.keys[place] == key;
            (0..self.keys.len()).find(has)
        };
        let seen = |event: &Event| match place(event.key) {
            Some(place) => Ok(Seen { place, token: event.token, readiness: event.readiness }),
            None => Err(Failure { clause: "R5", what: format!("no such registration: {event:?}") }),
        };
        self.events.iter().map(seen).collect()
    }
}

/// A key that looks like the first of any poller, and is another's (R4).
fn foreign_key(file: &Place) -> Key {
    let mut other = Backend::Poll.open().expect("poll is always there");
    let key = other.register(file.handle(), Token(0), Interest::READABLE, Mode::Level);
    key.expect("a file can be registered")
}

/// The clause that is broken when one of these is answered in place of the other.
pub fn clause_of(one: Answer, other: Answer) -> &'static str {
    match (one, other) {
        (Err(ErrorKind::NotFound), _) | (_, Err(ErrorKind::NotFound)) => "R4",
        (Err(ErrorKind::AlreadyExists), _) | (_, Err(ErrorKind::AlreadyExists)) => "R2",
        (Err(ErrorKind::InvalidInput), _) | (_, Err(ErrorKind::InvalidInput)) => "R10",
        _ => "P5",
    }
}

impl Shown {
    /// What was reported of this place; nothing if it was not.
    pub fn at(&self, place: usize) -> Readiness {
        self.reports.get(&place).copied().unwrap_or_default()
    }
}

impl fmt::Debug for Player {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut f = f.debug_struct("Player");
        f.field("column", &self.column).field("model", &self.model).finish_non_exhaustive()
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.woken {
            f.write_str("woken ")?;
        }
        for (&place, readiness) in &self.reports {
            write!(f, "{:?} {readiness:?} ", At::ALL[place])?;
        }
        let mut failed = self.answers.iter().filter_map(|answer| answer.err());
        failed.try_for_each(|kind| write!(f, "{kind:?} "))
    }
}
