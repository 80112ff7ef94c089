//! The reference: what the contract says of a handful of registrations, in the plainest terms.
//!
//! It knows no file and no poller. It is told what was called, what happened to the files, and what
//! poll(2) says; it answers what each call must give, and judges each wait.
//!
//! Level and one-shot mode are exact: what must be reported is what may be. Edge mode is a
//! sandwich. What *must* be reported is what is `owed`: directions that were named since their last
//! report, by a call that counts (E1). What *may* be is, with native edges, anything that is ready
//! after anything has happened (E2, E3); without them, a direction that was named since its last
//! report by any call (table of permitted differences). A new end must be reported everywhere (E5):
//! of that a [`Told`] knows. SIGIO has native edges for some directions
//! of some files, and may miss what sends no signal: an [`Ear`] tells which.

use super::ear::{Described, Ear, Heard};
use super::oracle::{Bits, DIRECTIONS, readiness, ready};
use super::script::{Kind, PLACES};
use super::told::Told;
use quintpoll::{Interest, Mode, Readiness, Token};
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

/// What the model says of a call or a wait.
pub type Verdict = Result<(), Failure>;

/// What a call must answer.
pub type Answer = Result<(), ErrorKind>;

/// An event, with the place that its key belongs to.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// The place.
    pub place: usize,
    /// Its token.
    pub token: Token,
    /// Its flags.
    pub readiness: Readiness,
}

/// One registration.
#[derive(Clone, Copy, Debug)]
struct Entry {
    token: Token,
    interest: Interest,
    mode: Mode,
    /// The directions that have the mechanism's own edges, or those of a file to which nothing
    /// ever happens.
    native: Interest,
    /// With SIGIO.
    ear: Option<Ear>,
    /// One-shot and edge: what may be reported without native edges.
    armed: Interest,
    /// Edge: what must be reported when it is ready.
    owed: Interest,
    /// Edge: what is no news.
    told: Told,
    /// Something has happened to the file since its last event, or a call has named it.
    fresh: bool,
    /// The capacities of the waits that left it out although it was due all the time.
    waited: usize,
    /// The most sources there were in those waits.
    crowd: usize,
}

/// What one wait may and must say of one source.
#[derive(Clone, Copy, Debug)]
struct Claim {
    must: Interest,
    may: Interest,
}

/// All registrations of one poller.
#[derive(Debug)]
pub struct Model {
    native_edges: bool,
    hears_signals: bool,
    entries: [Option<Entry>; PLACES],
    wake_pending: bool,
}

impl Model {
    /// `native_edges`: whether [`NATIVE_EDGE`](quintpoll::Capabilities::NATIVE_EDGE) is set.
    /// `hears_signals`: whether the mechanism is SIGIO.
    pub fn new(native_edges: bool, hears_signals: bool) -> Self {
        Model { native_edges, hears_signals, entries: [None; PLACES], wake_pending: false }
    }

    /// Whether there is a registration at this place.
    pub fn is_registered(&self, place: usize) -> bool {
        self.entries[place].is_some()
    }

    /// How many registrations there are.
    pub fn crowd(&self) -> usize {
        self.entries.iter().flatten().count()
    }

    /// The mode of the registration at this place.
    pub fn mode(&self, place: usize) -> Option<Mode> {
        self.entries[place].map(|entry| entry.mode)
    }

    /// Whether something of which poll(2) says `bits` may be reported at this place, and need not,
    /// because nothing was heard of it. In edge mode that is so for many reasons, and is not asked.
    pub fn may_miss(&self, place: usize, bits: Bits) -> bool {
        let exact = self.entries[place].filter(|entry| entry.mode != Mode::Edge);
        exact.is_some_and(|entry| {
            let claim = entry.claim(bits);
            claim.must != claim.may
        })
    }

    /// The interest of the registration at this place; empty where there is none.
    pub fn interest(&self, place: usize) -> Interest {
        self.entries[place].map_or(Interest::empty(), |entry| entry.interest)
    }

    /// `register` is called, for such a file.
    pub fn register(
        &mut self,
        place: usize,
        token: Token,
        interest: Interest,
        mode: Mode,
        described: Described,
    ) -> Answer {
        if self.is_registered(place) {
            return Err(ErrorKind::AlreadyExists);
        }
        let ear = self.hears_signals.then(|| self.armed_ear(Ear::new(described), interest));
        // To an always ready file nothing ever happens.
        let has_edges = self.native_edges || described.kind == Kind::Null;
        let native = if has_edges { Interest::all() } else { Interest::empty() };
        self.entries[place] = Some(Entry::new(token, interest, mode, native, ear));
        Ok(())
    }

    /// `modify` is called.
    pub fn modify(&mut self, place: usize, token: Token, interest: Interest, mode: Mode) -> Answer {
        let entry = self.entries[place].ok_or(ErrorKind::NotFound)?;
        let ear = entry.ear.map(|ear| self.armed_ear(ear, interest));
        let fresh = Entry::new(token, interest, mode, entry.native, ear);
        self.entries[place] = Some(Entry { waited: entry.waited, crowd: entry.crowd, ..fresh });
        Ok(())
    }

    /// `rearm` is called.
    pub fn rearm(&mut self, place: usize, dirs: Interest) -> Answer {
        let entry = self.part(place, dirs)?;
        entry.listen(dirs);
        match entry.mode {
            Mode::Level => {}
            Mode::OneShot => entry.armed = dirs,
            Mode::Edge => {
                entry.armed |= dirs;
                entry.owed |= dirs;
                entry.fresh = true;
            }
        }
        Ok(())
    }

    /// `drained` is called, while poll(2) said `bits` of the file: where it was untrue nothing is
    /// owed for it, yet it is an excuse to report.
    pub fn drained(&mut self, place: usize, dirs: Interest, bits: Bits) -> Answer {
        let entry = self.part(place, dirs)?;
        if entry.mode == Mode::Edge {
            if !entry.told.ended(dirs & entry.closed()).is_empty() {
                entry.look(bits);
            }
            entry.armed |= dirs - entry.told.ended(entry.closed());
            entry.owed |= dirs - ready(bits, dirs);
            entry.fresh = true;
        }
        Ok(())
    }

    /// `deregister` is called.
    pub fn deregister(&mut self, place: usize) -> Answer {
        self.entries[place].take().map(drop).ok_or(ErrorKind::NotFound)
    }

    /// Something was done to the file at this place, on either side: it may have been woken. What
    /// became ready by it are the `news`.
    pub fn touch(&mut self, place: usize, heard: Heard, news: Interest) {
        if let Some(entry) = &mut self.entries[place] {
            entry.fresh = true;
            if let Some(ear) = &mut entry.ear {
                ear.hear(heard, news);
            }
        }
    }

    /// The flags of the file at this place were set, without `O_ASYNC`.
    pub fn silence(&mut self, place: usize) {
        if let Some(ear) = self.entries[place].as_mut().and_then(|entry| entry.ear.as_mut()) {
            ear.silence();
        }
    }

    /// The signals of the file at this place were given to somebody else.
    pub fn take_signals(&mut self, place: usize) {
        if let Some(ear) = self.entries[place].as_mut().and_then(|entry| entry.ear.as_mut()) {
            ear.take();
        }
    }

    /// The kernel's reports were lost, so that the poller looks at every file again.
    pub fn rescan(&mut self) {
        for entry in self.entries.iter_mut().flatten() {
            entry.fresh = true;
            if let Some(ear) = &mut entry.ear {
                ear.look();
            }
        }
    }

    /// `wake` is called.
    pub fn wake(&mut self) {
        self.wake_pending = true;
    }

    /// A wait begins. Gives whether it must end without its timeout.
    pub fn begin_wait(&mut self, bits: &[Bits]) -> bool {
        for (entry, &bits) in self.entries.iter_mut().zip(bits) {
            if let Some(entry) = entry {
                entry.look(bits);
            }
        }
        self.wake_pending || self.claims(bits).any(|claim| !claim.must.is_empty())
    }

    /// This is what poll(2) says between two steps. A source that is not due now has not been due
    /// all the time.
    pub fn observe(&mut self, bits: &[Bits]) {
        for (entry, &bits) in self.entries.iter_mut().zip(bits) {
            let Some(entry) = entry else { continue };
            entry.told.observe(entry.native, bits);
            if entry.claim(bits).must.is_empty() {
                entry.waited = 0;
            }
        }
    }

    /// Judges a wait, before and after which poll(2) said `bits`, and moves on.
    ///
    /// # Errors
    ///
    /// The first clause that it broke.
    pub fn wait(&mut self, bits: &[Bits], capacity: usize, seen: &[Seen], woken: bool) -> Verdict {
        let pending = std::mem::replace(&mut self.wake_pending, false);
        expect(woken == pending, "W1", || format!("woken() is {woken}, wake pending: {pending}"))?;
        let count = seen.len();
        expect(count <= capacity, "Q1", || format!("{count} events, capacity {capacity}"))?;
        for (nth, event) in seen.iter().enumerate() {
            let twice = seen[..nth].iter().any(|other| other.place == event.place);
            expect(!twice, "H4", || format!("two events of one source: {event:?}"))?;
        }
        let crowd = self.crowd();
        for (place, (entry, &bits)) in self.entries.iter_mut().zip(bits).enumerate() {
            let Some(entry) = entry else { continue };
            match seen.iter().find(|event| event.place == place) {
                Some(event) => entry.reported(event, bits)?,
                None => entry.left_out(bits, capacity, count, crowd)?,
            }
        }
        Ok(())
    }

    /// What is known by signals of a registration that is made or modified.
    fn armed_ear(&self, mut ear: Ear, interest: Interest) -> Ear {
        if !interest.is_empty() {
            let mut others = self.entries.iter().flatten().filter_map(|entry| entry.ear);
            ear.arm(interest, others.any(|other| other.has_signals_of(&ear)));
        }
        ear
    }

    /// The registration at this place, if `dirs` is a part of its interest.
    fn part(&mut self, place: usize, dirs: Interest) -> Result<&mut Entry, ErrorKind> {
        let entry = self.entries[place].as_mut().ok_or(ErrorKind::NotFound)?;
        if entry.interest.contains(dirs) { Ok(entry) } else { Err(ErrorKind::InvalidInput) }
    }

    fn claims(&self, bits: &[Bits]) -> impl Iterator<Item = Claim> {
        let entries = self.entries.iter().zip(bits);
        entries.filter_map(|(entry, &bits)| entry.as_ref().map(|entry| entry.claim(bits)))
    }
}

impl Entry {
    /// Just registered or modified: everything is named (R1).
    fn new(
        token: Token,
        interest: Interest,
        mode: Mode,
        native: Interest,
        ear: Option<Ear>,
    ) -> Self {
        Entry {
            token,
            interest,
            mode,
            native: ear.map_or(native, |ear| ear.edges()),
            ear,
            armed: interest,
            owed: interest,
            told: Told::NOTHING,
            fresh: true,
            waited: 0,
            crowd: 0,
        }
    }

    /// The poller looks at `dirs`, and arms the file again. If it has lost the file's edges by
    /// then, what had them is armed: it was never taken out for a report.
    fn listen(&mut self, dirs: Interest) {
        let Some(ear) = &mut self.ear else { return };
        ear.listen(dirs);
        let native = ear.edges();
        self.armed |= self.interest & (self.native - native);
        self.native = native;
    }

    /// Edge: what was reported, and is not to be again but for news, without native edges.
    fn closed(&self) -> Interest {
        let closed = self.interest - self.native - self.armed;
        if self.mode == Mode::Edge { closed } else { Interest::empty() }
    }

    /// The poller looks at the ends that it has told.
    fn look(&mut self, bits: Bits) {
        let drained = self.told.look(self.closed(), bits);
        self.armed |= drained;
        self.owed |= drained;
    }

    /// The directions of which an end was not told.
    fn news(&self, bits: Bits) -> Interest {
        let is_edge = self.mode == Mode::Edge;
        if is_edge { self.told.news(self.interest, bits) } else { Interest::empty() }
    }

    /// What is not due although it is ready.
    fn unheard(&self, bits: Bits) -> Interest {
        let armed = self.armed | self.news(bits);
        let watched = if self.mode == Mode::Level { self.interest } else { armed };
        let has_room = !ready(bits, watched & Interest::WRITABLE).is_empty();
        let missed = self.ear.filter(|_| !has_room).map(|ear| ear.unheard());
        missed.unwrap_or(Interest::empty())
    }

    fn claim(&self, bits: Bits) -> Claim {
        let due = |dirs| ready(bits, dirs) - self.unheard(bits);
        let exactly = |dirs| Claim { must: due(dirs), may: ready(bits, dirs) };
        match self.mode {
            Mode::Level => exactly(self.interest),
            Mode::OneShot => exactly(self.armed),
            Mode::Edge => {
                let by_edges = if self.fresh { self.interest } else { self.owed };
                let news = self.news(bits);
                let may = (by_edges & self.native) | ((self.armed | news) - self.native);
                Claim { must: due(self.owed | news), may: ready(bits, may) }
            }
        }
    }

    /// Judges an event.
    fn reported(&mut self, event: &Seen, bits: Bits) -> Verdict {
        let Seen { token, readiness, .. } = *event;
        expect(token == self.token, "R3", || format!("{token:?}, not {:?}", self.token))?;
        let claim = self.claim(bits);
        expect(!claim.may.is_empty(), self.silence(bits), || {
            format!("{readiness:?} was reported while poll(2) says {bits:?}: {self:?}")
        })?;
        let what = || format!("{readiness:?} while poll(2) says {bits:?}: {claim:?} of {self:?}");
        let Some(reported) = claim.explain(bits, readiness) else {
            return Err(Failure { clause: "H3", what: what() });
        };
        expect(reported.contains(claim.must), self.completeness(bits), what)?;
        if let Some(ear) = &mut self.ear {
            ear.reported(reported, self.mode == Mode::Level);
        }
        match self.mode {
            Mode::Level => {}
            Mode::OneShot => self.armed = Interest::empty(),
            Mode::Edge => {
                self.armed -= reported;
                self.owed -= reported;
                self.told.report(reported, bits);
                self.fresh = false;
            }
        }
        self.waited = 0;
        Ok(())
    }

    /// Judges that there is no event, in a wait that reported `count` others.
    fn left_out(&mut self, bits: Bits, capacity: usize, count: usize, crowd: usize) -> Verdict {
        let Claim { must, .. } = self.claim(bits);
        if must.is_empty() {
            return Ok(());
        }
        expect(count == capacity, self.completeness(bits), || {
            format!("{must:?} was not reported while poll(2) says {bits:?}: {self:?}")
        })?;
        self.crowd = if self.waited == 0 { crowd } else { self.crowd.max(crowd) };
        self.waited += capacity;
        expect(self.waited < self.crowd, "Q2", || {
            format!("left out for {} of {} places: {self:?}", self.waited, self.crowd)
        })
    }

    /// The clause that is broken when something due is not reported.
    fn completeness(&self, bits: Bits) -> &'static str {
        match self.mode {
            Mode::Edge if !self.news(bits).is_empty() => "E5",
            Mode::Level => "L1",
            Mode::OneShot => "O1",
            Mode::Edge => "E1",
        }
    }

    /// The clause that an event breaks which is not due.
    fn silence(&self, bits: Bits) -> &'static str {
        match self.mode {
            _ if self.interest.is_empty() => "R8",
            Mode::OneShot if !ready(bits, self.interest).is_empty() => "O1",
            Mode::Edge if !ready(bits, self.interest).is_empty() => "E3",
            _ => "L2",
        }
    }
}

impl Claim {
    /// The directions that an event reports, if its flags are what the table gives for a set of
    /// directions that this claim allows. Where several explain it, the largest: PRIORITY may say
    /// nothing that READABLE does not.
    fn explain(self, bits: Bits, flags: Readiness) -> Option<Interest> {
        let fits = |dirs: &Interest| {
            self.may.contains(*dirs) && !dirs.is_empty() && readiness(bits, *dirs) == flags
        };
        subsets().filter(fits).max_by_key(|dirs| dirs.iter().count())
    }
}

/// All sets of directions.
fn subsets() -> impl Iterator<Item = Interest> {
    (0..1 << DIRECTIONS.len()).map(|chosen: usize| {
        let each = DIRECTIONS.iter().enumerate();
        each.filter(|(nth, _)| chosen >> nth & 1 == 1).map(|(_, &direction)| direction).collect()
    })
}

/// Nothing, if it holds.
///
/// # Errors
///
/// The clause and what is said of it, if it does not.
pub fn expect(holds: bool, clause: &'static str, what: impl FnOnce() -> String) -> Verdict {
    if holds { Ok(()) } else { Err(Failure { clause, what: what() }) }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "clause {} is broken: {}", self.clause, self.what)
    }
}
