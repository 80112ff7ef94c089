//! One poller, with pairs of its own and a ledger: does the steps, and judges what comes of them.

mod beside;
mod end;
mod quiet;
mod silent;
mod submit;

use super::super::column::{Column, Subject};
use super::super::model::{Failure, Verdict, expect};
use super::ledger::{Ended, Ledger, Task};
use super::line::Line;
use super::props::Props;
use super::script::{At, DISK, DOOR, Limit, PLACES, Room, SOURCES, Script, Step, amount};
use nix::errno::Errno;
use quiet::WATCHDOG;
use quintpoll::{Events, Interest, Key, Mode, Op, OpId, Readiness, Rejected, Token};
use silent::Counts;
use std::io::{self, ErrorKind};
use std::time::{Duration, Instant};

/// What a step has shown, to be compared.
#[derive(Debug, Default)]
pub struct Shown {
    /// What the calls have answered.
    pub answers: Vec<Answer>,
    /// What has completed.
    pub ended: Vec<Ended>,
    /// What is ready, when all is quiet.
    pub ready: [Option<Readiness>; PLACES],
}

/// The place, and what a call said there.
pub type Answer = (Option<usize>, Result<usize, ErrorKind>);

/// One poller, and what belongs to it.
pub struct Player {
    column: Column,
    /// After each step it is waited until all is quiet.
    is_slow: bool,
    subject: Option<Box<dyn Subject>>,
    events: Events,
    props: Props,
    keys: [Key; SOURCES],
    /// Counts the registrations at a place, from 1; none if it is not registered.
    numbers: [Option<usize>; SOURCES],
    registrations: usize,
    watched: [Interest; PLACES],
    /// The clients that operations connect: the operations, and the keys.
    connecting: Vec<(usize, Key)>,
    ledger: Ledger,
    counts: Counts,
    /// All that has ended with a completion was delivered by the last wait.
    is_all_told: bool,
    shown: Shown,
}

impl Player {
    /// Opens the pairs and a poller. Who is slow waits after each step until nothing more can come.
    ///
    /// # Errors
    ///
    /// If the poller can't be made.
    pub fn new(column: Column, script: &Script, is_slow: bool) -> io::Result<Self> {
        let mut subject = column.open()?;
        let props = Props::open(script);
        let mut register = |place: usize| {
            let (token, handle) = (Token(place), props.handle(place));
            subject.poller().register(handle, token, Interest::empty(), Mode::Level)
        };
        let keys = [register(0)?, register(1)?, register(2)?, register(DOOR)?, register(DISK)?];
        Ok(Player {
            column,
            is_slow,
            subject: Some(subject),
            events: Events::with_capacity(Room::Eight.into()),
            props,
            keys,
            numbers: std::array::from_fn(|place| Some(place + 1)),
            registrations: SOURCES,
            watched: [Interest::empty(); PLACES],
            connecting: Vec::new(),
            ledger: Ledger::default(),
            counts: Counts::default(),
            is_all_told: true,
            shown: Shown::default(),
        })
    }

    /// Who plays.
    pub fn column(&self) -> Column {
        self.column
    }

    /// What was shown since the last time.
    pub fn take_shown(&mut self) -> Shown {
        std::mem::take(&mut self.shown)
    }

    /// The places where chance has had a hand in it. If there is no buffer left, that is so where
    /// somebody may wait for one: who is served first depends on who has set out what.
    pub fn erratic(&self) -> [bool; PLACES] {
        let waits = |place| self.props.hand.is_empty() && self.ledger.is_multi_at(place);
        std::array::from_fn(|place| self.props.lines[place].is_erratic || waits(place))
    }

    /// Returns true if a network lies between the ends of this place.
    pub fn is_network(&self, place: usize) -> bool {
        self.props.lines[place].kind.is_network()
    }

    /// Does a step. Call [`settle`](Player::settle) afterwards.
    ///
    /// # Errors
    ///
    /// The clause that was broken.
    pub fn step(&mut self, step: Step) -> Verdict {
        match step {
            Step::Wait0 => self.wait(Duration::ZERO).map(|_| ())?,
            Step::Quiet => self.be_quiet()?,
            Step::SetRoom(room) => self.set_room(room)?,
            Step::Submit(at, verb, number, limit) => self.submit_at(at, verb, number, limit)?,
            Step::Nop => self.submit(Task::Nop, Limit::Unlimited, 0, Op::nop())?,
            Step::Timeout(limit) => {
                let op = Op::timeout(limit.time().unwrap_or(Duration::MAX));
                self.submit(Task::Timeout(limit), Limit::Unlimited, 0, op)?;
            }
            Step::Cancel(back) => self.cancel(back)?,
            Step::Watch(at, dirs) => self.watch(at.index(), dirs.into())?,
            Step::Deregister(at) => self.deregister(at.index())?,
            Step::Register(at) => self.register(at.index())?,
            Step::PeerWrite(at, number) => {
                let count = self.line(at).peer_write(amount(number));
                self.tell_peer(at, count);
            }
            Step::PeerRead(at, number) => {
                let count = self.line(at).peer_read(amount(number)).map_err(mixed_up)?;
                self.tell_peer(at, count);
            }
            Step::PeerDrain(at) => self.peer_drain(at)?,
            Step::PeerShutdown(at) => {
                let is_done = self.line(at).peer_shutdown();
                self.tell_peer(at, Ok(is_done.into()));
            }
            Step::PeerClose(at) => {
                let is_done = self.line(at).peer_close();
                self.tell_peer(at, Ok(is_done.into()));
            }
            Step::Reopen(at) => self.reopen(at.index())?,
            Step::NewPoller => self.begin_again()?,
            Step::Splice(from, to, number, limit) => {
                self.splice(from.index(), to.index(), amount(number), limit)?;
            }
            Step::PeerPass(at, number) => self.peer_pass(at, number),
            Step::Keep(keeps) => self.props.hand.set_keeps(keeps),
            Step::GiveBack(count) => self.props.hand.give_back(usize::from(count) + 1)?,
            Step::Take => {
                let is_taken = self.props.hand.take(self.is_slow)?;
                self.tell(None, Ok(is_taken.into()));
            }
            Step::Door(knock) => self.knock(knock)?,
            Step::Disk(job) => self.work(job)?,
        }
        self.subject().verify();
        Ok(())
    }

    /// Waits after a step until nothing more can come, if the player is slow.
    ///
    /// # Errors
    ///
    /// The clause that was broken.
    pub fn settle(&mut self) -> Verdict {
        if self.is_slow { self.be_quiet() } else { Ok(()) }
    }

    fn line(&mut self, at: At) -> &mut Line {
        &mut self.props.lines[at.index()]
    }

    fn subject(&mut self) -> &mut dyn Subject {
        self.subject.as_deref_mut().expect("it is there but for a moment")
    }

    fn tell(&mut self, place: Option<usize>, answer: Result<usize, ErrorKind>) {
        self.shown.answers.push((place, answer));
    }

    fn tell_peer(&mut self, at: At, answer: Result<usize, Errno>) {
        let answer = answer.map_err(|errno| io::Error::from(errno).kind());
        self.tell(Some(at.index()), answer);
    }

    /// Notes what a call says; one of these it must be.
    fn judge(
        &mut self,
        clause: &'static str,
        place: usize,
        told: io::Result<()>,
        allowed: &[Option<ErrorKind>],
    ) -> Verdict {
        let kind = told.as_ref().err().map(io::Error::kind);
        self.tell(Some(place), kind.map_or(Ok(0), Err));
        let says = || format!("the call says {told:?}, not one of {allowed:?}");
        expect(allowed.contains(&kind), clause, says)
    }

    /// A kernel may go on with an operation while the far end reads, or when it is next asked: so
    /// who is slow reads until nothing more comes.
    fn peer_drain(&mut self, at: At) -> Verdict {
        let mut all = 0;
        loop {
            let count = self.line(at).peer_drain().map_err(mixed_up)?;
            all += count;
            if !self.is_slow || count == 0 {
                break;
            }
            self.be_quiet()?;
        }
        self.tell_peer(at, Ok(all));
        Ok(())
    }

    fn set_room(&mut self, room: Room) -> Verdict {
        // What was not taken would go with the old one.
        self.take_completions()?;
        self.events = Events::with_capacity(room.into());
        Ok(())
    }

    fn submit(&mut self, task: Task, limit: Limit, asked: usize, op: Op) -> Verdict {
        let nth = self.ledger.add(task, limit, asked, Vec::new());
        self.hand_over(nth, op, None, None)
    }

    fn hand_over(
        &mut self,
        nth: usize,
        op: Op,
        place: Option<usize>,
        refusal: Option<ErrorKind>,
    ) -> Verdict {
        let told = self.subject().poller().submit(op, Token(nth));
        let kind = told.as_ref().err().map(Rejected::kind);
        self.tell(place, kind.map_or(Ok(0), Err));
        let says = || format!("operation {nth}: submit says {told:?}, not {refusal:?}");
        expect(kind == refusal, "C1", says)?;
        self.is_all_told = false;
        match told {
            Ok(id) => {
                self.counts.submitted += 1;
                self.ledger.note_accepted(nth, id)
            }
            Err(rejected) => self.ledger.note_refused(nth, rejected.into_parts().0),
        }
    }

    fn cancel(&mut self, back: u8) -> Verdict {
        let Some((nth, id)) = self.ledger.find(back) else { return Ok(()) };
        self.cancel_operation(nth, id)
    }

    fn cancel_operation(&mut self, nth: usize, id: OpId) -> Verdict {
        let told = self.subject().poller().cancel(id);
        let kind = told.as_ref().err().map(io::Error::kind);
        self.tell(None, kind.map_or(Ok(nth), Err));
        self.is_all_told = false;
        let is_pending = self.ledger.is_pending(nth);
        let has_ended = kind == Some(ErrorKind::NotFound);
        let may_have_ended = !is_pending || self.ledger.entry(nth).is_silent();
        let is_right = if has_ended { may_have_ended } else { kind.is_none() && is_pending };
        expect(is_right, "X2", || format!("operation {nth}: cancel says {told:?}"))?;
        if has_ended && self.ledger.silent().contains(&nth) {
            self.end_silently(&[nth])?;
        } else if !has_ended {
            self.ledger.note_cancelled(nth);
        }
        Ok(())
    }

    fn watch(&mut self, place: usize, dirs: Interest) -> Verdict {
        let (key, busy) = (self.keys[place], self.ledger.busy(place));
        let told = self.subject().poller().modify(key, Token(place), dirs, Mode::Level);
        if told.is_ok() {
            self.watched[place] = dirs;
        }
        let refused = Some(ErrorKind::InvalidInput);
        let allowed: &[Option<ErrorKind>] = match self.numbers[place] {
            None => &[Some(ErrorKind::NotFound)],
            Some(_) if dirs.intersects(busy) && self.is_slow => &[refused],
            // What has been done and not been told of is in nobody's way.
            Some(_) if dirs.intersects(busy) => &[None, refused],
            Some(_) => &[None],
        };
        self.judge("M1", place, told, allowed)
    }

    fn deregister(&mut self, place: usize) -> Verdict {
        // What has ended is not stopped.
        self.settle_silent_ends()?;
        let key = self.keys[place];
        let told = self.subject().poller().deregister(key);
        self.is_all_told = false;
        let allowed = match self.numbers[place].take() {
            None => Some(ErrorKind::NotFound),
            Some(_) => None,
        };
        self.ledger.note_deregistered(place);
        if place < PLACES {
            self.watched[place] = Interest::empty();
        }
        self.judge("R5", place, told, &[allowed])?;
        let is_released = self.props.is_released(place);
        expect(is_released, "R5", || format!("the poller has still something of {place}"))
    }

    fn register(&mut self, place: usize) -> Verdict {
        let handle = self.props.handle(place);
        let poller = self.subject().poller();
        let told = poller.register(handle, Token(place), Interest::empty(), Mode::Level);
        let allowed = self.numbers[place].map(|_| ErrorKind::AlreadyExists);
        let told = told.map(|key| {
            self.keys[place] = key;
            self.registrations += 1;
            self.numbers[place] = Some(self.registrations);
            if place < PLACES {
                self.watched[place] = Interest::empty();
            }
        });
        self.judge("R2", place, told, &[allowed])
    }

    /// What a deregistration has ended is there at once.
    fn reopen(&mut self, place: usize) -> Verdict {
        if self.numbers[place].is_some() {
            self.deregister(place)?;
        }
        // A silent operation may have ended before the deregistration could stop it. No wait
        // returns for it.
        self.settle_silent_ends()?;
        let begun = Instant::now();
        while self.ledger.pending_at(place).next().is_some() {
            self.wait(WATCHDOG)?;
            let is_late = begun.elapsed() > WATCHDOG;
            expect(!is_late, "R5", || format!("not all of {place} is over"))?;
        }
        let lost = self.settle_accounts(place, 0)?;
        self.tell(Some(place), Ok(lost));
        let fresh = Line::open(self.props.lines[place].kind, place == 1);
        let is_told = std::mem::replace(&mut self.props.lines[place], fresh).close();
        expect(is_told, "R5", || format!("the other side of {place} hears of no end"))?;
        self.register(place)
    }

    fn begin_again(&mut self) -> Verdict {
        self.drop_poller()?;
        let subject = self.column.open();
        let why = |error: io::Error| Failure { clause: "P5", what: error.to_string() };
        self.subject = Some(subject.map_err(why)?);
        self.counts = Counts::default();
        for place in 0..SOURCES {
            self.register(place)?;
        }
        Ok(())
    }
}

fn mixed_up(what: String) -> Failure {
    Failure { clause: "C3", what }
}

impl std::fmt::Debug for Player {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Player").field("column", &self.column).finish_non_exhaustive()
    }
}
