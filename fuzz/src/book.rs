//! Plain bookkeeping over many registrations of one poller: makes each call, says what it must
//! answer, and judges each wait.
//!
//! It is written apart from the model of the small scripts, in other terms, so that the two don't
//! share a slip. It knows nothing of files: whoever plays tells what was touched, and what poll(2)
//! says.

use super::column::{Column, Subject};
use super::entry::{Entry, fail};
use super::oracle::{Bits, ready};
use quintpoll::{Capabilities, Events, Interest, Key, Mode, Readiness, Source, Token};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::io::{self, ErrorKind};
use std::time::Duration;

pub use super::entry::{Failure, Verdict, expect};

/// What a wait is given that has something to report. To reach it is a failure, and a machine that
/// stands still does not.
const WATCHDOG: Duration = Duration::from_secs(10);

/// What a round of waits has reported, by source.
pub type Round = BTreeMap<usize, Readiness>;

/// What is known of a source, beside what poll(2) says of it.
#[derive(Clone, Copy, Debug)]
pub struct Traits {
    /// With SIGIO, the file sends signals, and they are this registration's.
    pub signals: bool,
    /// Something may happen to it at any time: a TCP acknowledgement is still under way.
    pub is_restless: bool,
}

/// A poller, and what it is asked.
pub struct Book {
    subject: Box<dyn Subject>,
    hears_signals: bool,
    has_edges: bool,
    entries: Vec<Option<Entry>>,
    /// What poll(2) says of each source, and what that makes it ready for.
    bits: Vec<Bits>,
    ready: Vec<Interest>,
    /// Which source a key stands for.
    sources: HashMap<Key, usize>,
    /// Every key there ever was.
    known: HashSet<Key>,
    /// The last key of each source that is stale.
    stale: Vec<Option<Key>>,
    tokens: usize,
    is_wake_pending: bool,
    overflows: u64,
    /// What every source was reported for, since this was taken last.
    round: Round,
}

impl Book {
    /// A book of so many sources. `None` if the column is not available.
    ///
    /// # Panics
    ///
    /// If the poller can't be made.
    pub fn open(column: Column, sources: usize) -> Option<Self> {
        let mut subject = match column.open() {
            Ok(subject) => subject,
            Err(error) if error.kind() == ErrorKind::Unsupported => return None,
            Err(error) => panic!("{column}: no poller: {error}"),
        };
        let capabilities = subject.poller().capabilities();
        Some(Book {
            subject,
            hears_signals: column.hears_signals(),
            has_edges: capabilities.contains(Capabilities::NATIVE_EDGE),
            entries: (0..sources).map(|_| None).collect(),
            bits: vec![Bits::empty(); sources],
            ready: vec![Interest::empty(); sources],
            sources: HashMap::new(),
            known: HashSet::new(),
            stale: vec![None; sources],
            tokens: 0,
            is_wake_pending: false,
            overflows: 0,
            round: Round::new(),
        })
    }

    /// Whether this source is registered.
    pub fn is_registered(&self, source: usize) -> bool {
        self.entries[source].is_some()
    }

    /// The interest of this source; empty if it is not registered.
    pub fn interest(&self, source: usize) -> Interest {
        self.entries[source].as_ref().map_or(Interest::empty(), |entry| entry.interest)
    }

    /// How many there are.
    pub fn registered(&self) -> usize {
        self.sources.len()
    }

    /// Checks what can be seen from behind; panics if it is not in order.
    pub fn verify(&self) {
        self.subject.verify();
    }

    fn token(&mut self) -> Token {
        self.tokens += 1;
        Token(self.tokens)
    }

    /// The directions that have the mechanism's own edges. SIGIO has them for what files signal,
    /// and it makes no file signal for a writer.
    fn edges(&self, interest: Interest, signals: bool) -> Interest {
        match (self.hears_signals, self.has_edges) {
            (true, _) if signals && interest != Interest::WRITABLE => {
                Interest::READABLE | Interest::PRIORITY
            }
            (false, true) => Interest::all(),
            _ => Interest::empty(),
        }
    }
}

/// Calls. All of them return the first clause that is broken.
#[allow(clippy::missing_errors_doc)]
impl Book {
    /// Registers a source, or tries to although it is registered.
    pub fn register(
        &mut self,
        source: usize,
        handle: Source,
        interest: Interest,
        mode: Mode,
        traits: Traits,
    ) -> Verdict {
        let token = self.token();
        let answer = self.subject.poller().register(handle, token, interest, mode);
        if self.is_registered(source) {
            return agree("register", answer.map(drop), Err(ErrorKind::AlreadyExists));
        }
        let key = match answer {
            Ok(key) => key,
            Err(error) => return fail("P5", format!("register: {error}")),
        };
        expect(self.known.insert(key), "R4", || format!("{key:?} was given out before"))?;
        self.sources.insert(key, source);
        self.round.remove(&source);
        let edges = self.edges(interest, traits.signals);
        let entry = Entry::new(key, token, interest, mode, edges, traits.is_restless);
        self.entries[source] = Some(entry);
        // An older key of the same source, whose place in the poller somebody has by now.
        let stale = self.stale[source];
        stale.map_or(Ok(()), |key| self.refuses(key))
    }

    /// Modifies a source, if it is registered.
    pub fn modify(
        &mut self,
        source: usize,
        interest: Interest,
        mode: Mode,
        traits: Traits,
    ) -> Verdict {
        let token = self.token();
        let edges = self.edges(interest, traits.signals);
        let Some(entry) = &mut self.entries[source] else { return Ok(()) };
        let answer = self.subject.poller().modify(entry.key, token, interest, mode);
        let Entry { key, waited, crowd, .. } = *entry;
        self.round.remove(&source);
        let fresh = Entry::new(key, token, interest, mode, edges, traits.is_restless);
        *entry = Entry { waited, crowd, ..fresh };
        agree("modify", answer, Ok(()))
    }

    /// Rearms a source, if it is registered.
    pub fn rearm(&mut self, source: usize, dirs: Interest) -> Verdict {
        let Some(entry) = &mut self.entries[source] else { return Ok(()) };
        let answer = self.subject.poller().rearm(entry.key, dirs);
        agree("rearm", answer, entry.accepts(dirs))?;
        if entry.interest.contains(dirs) {
            match entry.mode {
                Mode::Level => {}
                Mode::OneShot => {
                    (entry.armed, entry.is_open) = (dirs, false);
                    self.round.remove(&source);
                }
                Mode::Edge => entry.name(dirs, dirs),
            }
        }
        Ok(())
    }

    /// Says that a source was drained, if it is registered, while poll(2) said `bits` of it. Where
    /// that is a lie nothing is owed for it.
    pub fn drained(&mut self, source: usize, dirs: Interest, bits: Bits) -> Verdict {
        let Some(entry) = &mut self.entries[source] else { return Ok(()) };
        let answer = self.subject.poller().drained(entry.key, dirs);
        agree("drained", answer, entry.accepts(dirs))?;
        if entry.mode == Mode::Edge && entry.interest.contains(dirs) {
            entry.drained(dirs, bits);
        }
        Ok(())
    }

    /// Deregisters a source, if it is registered.
    pub fn deregister(&mut self, source: usize) -> Verdict {
        let Some(entry) = self.entries[source].take() else { return Ok(()) };
        self.sources.remove(&entry.key);
        self.stale[source] = Some(entry.key);
        agree("deregister", self.subject.poller().deregister(entry.key), Ok(()))?;
        self.refuses(entry.key)
    }

    /// A stale key is refused by every call that takes one.
    fn refuses(&mut self, key: Key) -> Verdict {
        let (poller, dirs) = (self.subject.poller(), Interest::READABLE);
        let stale = Err(ErrorKind::NotFound);
        agree("modify", poller.modify(key, Token(0), dirs, Mode::Level), stale)?;
        agree("rearm", poller.rearm(key, dirs), stale)?;
        agree("drained", poller.drained(key, dirs), stale)?;
        agree("deregister", poller.deregister(key), stale)
    }

    /// Wakes the poller.
    pub fn wake(&mut self) {
        self.subject.poller().waker().wake();
        self.is_wake_pending = true;
    }

    /// Something was done to the file of this source.
    pub fn touch(&mut self, source: usize, is_restless: bool) {
        if let Some(entry) = &mut self.entries[source] {
            entry.is_fresh = true;
            entry.is_restless |= is_restless;
        }
    }

    /// This is what poll(2) says, before the first step and after each: who is not due now has not
    /// been due all along.
    pub fn observe(&mut self, bits: &[Bits]) {
        if self.bits != bits {
            self.bits = bits.to_vec();
            self.ready = bits.iter().map(|&bits| ready(bits, Interest::all())).collect();
        }
        for (entry, &bits) in self.entries.iter_mut().zip(&self.bits) {
            let Some(entry) = entry else { continue };
            entry.told.observe(entry.edges, bits);
            if entry.claim(bits).must.is_empty() {
                entry.waited = 0;
            }
        }
    }
}

/// Waits.
#[allow(clippy::missing_errors_doc)]
impl Book {
    /// Waits once. A wait that is patient would sleep for long if it had nothing to report, and is
    /// held only if it has.
    pub fn wait(&mut self, room: usize, is_patient: bool) -> Verdict {
        // Said of any wait without room for all, so that it is said on every backend.
        if room < self.registered() {
            for (entry, &ready) in self.entries.iter_mut().zip(&self.ready) {
                let Some(entry) = entry else { continue };
                entry.is_open |= ready.intersects(entry.interest);
            }
        }
        self.wait_once(room, is_patient)
    }

    /// Waits as often as it takes for everyone to have had his turn, and once more. Gives what was
    /// reported, as far as the contract lays it down: of level what these waits said, of one-shot
    /// what was said since the last time, unless some wait may have said it or not. Of edges
    /// nothing.
    pub fn settle(&mut self, room: usize) -> Verdict<Round> {
        let entries = &self.entries;
        let is_one_shot = |entry: &Entry| entry.mode == Mode::OneShot;
        self.round.retain(|&source, _| entries[source].as_ref().is_some_and(is_one_shot));
        for _ in 0..=self.registered().div_ceil(room) {
            self.wait_once(room, false)?;
        }
        let round = std::mem::take(&mut self.round);
        for (source, (entry, &bits)) in self.entries.iter().zip(&self.bits).enumerate() {
            let Some(entry) = entry else { continue };
            let is_told = match entry.mode {
                Mode::Level => round.contains_key(&source),
                Mode::OneShot | Mode::Edge => false,
            };
            let is_due = !entry.claim(bits).must.is_empty();
            expect(is_told || !is_due, "Q2", || format!("{source} had no turn: {entry:?}"))?;
        }
        let is_laid_down = |&source: &usize| {
            self.entries[source].as_ref().is_some_and(|entry| match entry.mode {
                Mode::Level => true,
                Mode::OneShot => !entry.is_open,
                Mode::Edge => false,
            })
        };
        Ok(round.into_iter().filter(|(source, _)| is_laid_down(source)).collect())
    }

    fn wait_once(&mut self, room: usize, is_patient: bool) -> Verdict {
        for (entry, &bits) in self.entries.iter_mut().zip(&self.bits) {
            if let Some(entry) = entry {
                entry.look(bits);
            }
        }
        let claims = self.entries.iter().zip(&self.bits);
        let mut claims = claims.filter_map(|(entry, &bits)| Some(entry.as_ref()?.claim(bits)));
        let is_due = self.is_wake_pending || claims.any(|claim| !claim.must.is_empty());
        let timeout = if is_patient && is_due { WATCHDOG } else { Duration::ZERO };
        let mut events = Events::with_capacity(room);
        let looks = self.subject.looks();
        agree("wait", self.subject.poller().wait(&mut events, Some(timeout)), Ok(()))?;
        self.hear_of_losses();
        let looks = self.subject.looks() - looks;
        // Reports that come to nothing cost a look each, and there is one for a source at most.
        let most = 2 + self.entries.len();
        expect(looks <= most, "T2", || format!("{looks} looks in one wait"))?;
        let pending = std::mem::take(&mut self.is_wake_pending);
        let woken = events.woken();
        expect(woken == pending, "W1", || format!("woken() is {woken}, pending: {pending}"))?;
        self.judge(&events)
    }

    /// Only a poller that has lost reports may repeat some of its own.
    fn hear_of_losses(&mut self) {
        let overflows = self.subject.poller().statistics().overflows;
        if std::mem::replace(&mut self.overflows, overflows) < overflows {
            self.entries.iter_mut().flatten().for_each(|entry| entry.is_fresh = true);
        }
    }

    fn judge(&mut self, events: &Events) -> Verdict {
        let (room, count) = (events.capacity(), events.len());
        expect(count <= room, "Q1", || format!("{count} events, room for {room}"))?;
        let mut is_seen = vec![false; self.entries.len()];
        for event in events.iter() {
            let Some(&source) = self.sources.get(&event.key) else {
                return fail("R5", format!("no such registration: {event:?}"));
            };
            let was_seen = std::mem::replace(&mut is_seen[source], true);
            expect(!was_seen, "H4", || format!("two events of {source}"))?;
            let entry = self.entries[source].as_mut().expect("who has a key is registered");
            let right = entry.token == event.token;
            expect(right, "R3", || format!("{:?}, not {:?}", event.token, entry.token))?;
            entry.reported(source, self.bits[source], event.readiness)?;
            *self.round.entry(source).or_default() |= event.readiness;
        }
        let crowd = self.registered();
        for (source, entry) in self.entries.iter_mut().enumerate() {
            if let Some(entry) = entry.as_mut().filter(|_| !is_seen[source]) {
                entry.left_out(source, self.bits[source], (room, count, crowd))?;
            }
        }
        Ok(())
    }
}

/// Compares what a call said with what it must say.
fn agree(call: &str, answer: io::Result<()>, expected: Result<(), ErrorKind>) -> Verdict {
    let said = answer.as_ref().map_err(io::Error::kind).copied();
    let clause = match (said, expected) {
        (Err(ErrorKind::NotFound), _) | (_, Err(ErrorKind::NotFound)) => "R4",
        (_, Err(ErrorKind::AlreadyExists)) => "R2",
        (_, Err(ErrorKind::InvalidInput)) => "R10",
        _ => "P5",
    };
    expect(said == expected, clause, || format!("{call}: {answer:?}, expected {expected:?}"))
}

impl fmt::Debug for Book {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Book").field("entries", &self.entries).finish_non_exhaustive()
    }
}

/// A script came out wrong.
#[derive(Debug)]
pub struct Broken {
    /// With whom; where two don't agree, the second.
    pub column: Column,
    /// The number of the step, and the step; none at the end.
    at: Option<(usize, String)>,
    failure: Failure,
}

impl Broken {
    /// One that broke at this step.
    pub fn at(column: Column, nth: usize, step: &impl fmt::Debug, failure: Failure) -> Self {
        Broken { column, at: Some((nth, format!("{step:?}"))), failure }
    }

    /// One that broke at the end.
    pub fn at_end(column: Column, failure: Failure) -> Self {
        Broken { column, at: None, failure }
    }
}

/// Plays something to each of these, and compares the rounds that they have settled. Who is not
/// available gives none.
///
/// # Errors
///
/// What went wrong first.
pub fn compare(
    columns: &[Column],
    play: impl Fn(Column) -> Result<Option<Vec<Round>>, Broken>,
) -> Result<(), Broken> {
    let mut first = None;
    for &column in columns {
        let Some(rounds) = play(column)? else { continue };
        let (reference, expected) = first.get_or_insert_with(|| (column, rounds.clone()));
        for (nth, (round, expected)) in rounds.iter().zip(&*expected).enumerate() {
            let what = || format!("round {nth}: {round:?}, but {reference} has {expected:?}");
            let alike = expect(round == expected, "L1, O1", what);
            alike.map_err(|failure| Broken::at_end(column, failure))?;
        }
    }
    Ok(())
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Broken { column, at, failure } = self;
        match at {
            Some((nth, step)) => write!(f, "{column}, step {nth} ({step}): {failure}"),
            None => write!(f, "{column}, at the end: {failure}"),
        }
    }
}
