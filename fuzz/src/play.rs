//! Plays a script: does each step to a poller and to the model, and compares.

use super::column::{Column, Subject};
use super::ear::Heard;
use super::files::{Moved, Place};
use super::model::{Answer, Failure, Model, Seen, Verdict, expect};
use super::oracle::{Bits, look, ready};
use super::script::{At, PLACES, Script, Step, length, timeout};
use nix::sys::signal::{Signal, raise};
use quintpoll::{Backend, Capabilities, Event, Events, Interest, Key, Mode, Token};
use std::fmt;
use std::fs::read_to_string;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

/// What a wait is given that must not sleep; to reach it is a failure.
const LONG: Duration = Duration::from_millis(200);
/// How often one wait may look into the kernel. Reports that come to nothing cost a look each, and
/// there is one for a source at most: more is a poller that spins.
const MOST_LOOKS: usize = 2 + PLACES;
/// The capacity that scripts begin with.
const CAPACITY: usize = 8;

/// A script came out wrong.
#[derive(Debug)]
pub struct Broken {
    column: Column,
    /// The number of the step, and the step; none at the end.
    at: Option<(usize, Step)>,
    failure: Failure,
}

/// Plays a script to a column.
///
/// # Errors
///
/// The first step that went wrong.
///
/// # Panics
///
/// If an invariant of the poller does not hold, if the model's reckoning is not what poll(2) says,
/// or if the poller can't be made. One that is not available plays nothing.
pub fn play(script: &Script, column: Column) -> Result<(), Broken> {
    match play_once(script, column) {
        // Scripts repeat themselves, a machine that stood still for a while does not.
        Err(broken) if broken.failure.clause == SLEPT => play_once(script, column),
        outcome => outcome,
    }
}

/// The clause that a wait breaks which sleeps although something is due.
const SLEPT: &str = "T1";

fn play_once(script: &Script, column: Column) -> Result<(), Broken> {
    let mask = blocked_signals();
    let subject = match column.open() {
        Ok(subject) => subject,
        Err(error) if error.kind() == ErrorKind::Unsupported => return Ok(()),
        Err(error) => panic!("{column}: no poller: {error}"),
    };
    let mut play = Play::new(script, subject, column.hears_signals());
    for (nth, &step) in script.steps.iter().enumerate() {
        let broken = |failure| Broken { column, at: Some((nth, step)), failure };
        play.step(step).map_err(broken)?;
    }
    play.end(mask).map_err(|failure| Broken { column, at: None, failure })
}

/// The signals that this thread blocks, as the kernel writes them: those that have no name too.
fn blocked_signals() -> String {
    let status = read_to_string("/proc/thread-self/status").expect("proc is mounted");
    let line = status.lines().find(|line| line.starts_with("SigBlk:"));
    line.expect("the kernel tells").to_owned()
}

/// What is in play.
struct Play {
    subject: Box<dyn Subject>,
    model: Model,
    files: Vec<Place>,
    /// The key of each place: its own, or the last it had, or that of another poller.
    keys: Vec<Key>,
    events: Events,
    tokens: usize,
    hears_signals: bool,
    /// The next wait must believe that reports got lost.
    overflow_sent: bool,
    /// How often it has believed so.
    overflows: usize,
}

impl Play {
    fn new(script: &Script, mut subject: Box<dyn Subject>, hears_signals: bool) -> Self {
        let capabilities = subject.poller().capabilities();
        let files: Vec<_> = script.kinds.into_iter().map(Place::open).collect();
        let native_edges = capabilities.contains(Capabilities::NATIVE_EDGE);
        Play {
            subject,
            model: Model::new(native_edges, hears_signals),
            keys: vec![foreign_key(&files[0]); files.len()],
            files,
            events: Events::with_capacity(CAPACITY),
            tokens: 0,
            hears_signals,
            overflow_sent: false,
            overflows: 0,
        }
    }

    fn step(&mut self, step: Step) -> Verdict {
        match step {
            Step::Wait0 => self.wait(Duration::ZERO)?,
            Step::WaitShort(number) => self.wait(timeout(number))?,
            Step::SetCapacity(room) => self.events = Events::with_capacity(room.into()),
            Step::Wake => self.wake(),
            Step::Register(at, dirs, how) => self.register(at, dirs.into(), how.into())?,
            Step::Modify(at, dirs, how) => self.modify(at, dirs.into(), how.into())?,
            Step::Rearm(at, dirs) => self.rearm(at, dirs.into())?,
            Step::Drained(at, dirs) => self.drained(at, dirs.into())?,
            Step::Deregister(at) => self.deregister(at)?,
            Step::PeerWrite(at, number) => self.told(at, |file| file.peer_write(length(number))),
            Step::PeerTrickle(at) => self.told(at, Place::peer_trickle),
            Step::PeerRead(at, number) => {
                self.on(at, |file| file.peer_read(length(number)));
            }
            Step::PeerDrain(at) => self.on(at, Place::peer_drain),
            Step::PeerShutdownWr(at) => self.told(at, Place::peer_shutdown),
            Step::PeerClose(at) => self.told(at, Place::peer_close),
            Step::Read(at, number) => {
                self.on(at, |file| file.read(length(number)));
            }
            Step::DrainRead(at) => self.until_blocked(at, Interest::READABLE, Place::drain)?,
            Step::Write(at, number) => {
                self.on(at, |file| file.write(length(number)));
            }
            Step::FillWrite(at) => self.until_blocked(at, Interest::WRITABLE, Place::fill)?,
            Step::ShutdownWr(at) => self.untold(at, Place::shutdown),
            Step::ShutdownRd(at) => self.untold(at, Place::shutdown_reading),
            Step::SetFlags(at) => self.set_flags(at),
            Step::Overflow => self.overflow(),
            Step::Reopen(at) => self.reopen(at)?,
            Step::Dup(from, to) => self.duplicate(from, to)?,
            Step::Enlarge(at, end) => self.on(at, |file| file.enlarge(end)),
            Step::TakeSignals(at) => self.take_signals(at),
        }
        self.subject.verify();
        let bits = self.look();
        self.model.observe(&bits);
        Ok(())
    }

    /// The poller goes, and must let go of every file (R6), and leave all as it was (P3).
    fn end(self, mask: String) -> Verdict {
        drop(self.subject);
        let held = self.files.iter().filter(|file| !file.is_sole()).count();
        expect(held == 0, "R6", || format!("{held} sources outlived their poller"))?;
        let signalling = self.files.iter().filter(|file| file.is_async()).count();
        expect(signalling == 0, "P3", || format!("{signalling} files go on signalling"))?;
        let left = blocked_signals();
        expect(left == mask, "P3", || format!("{left} at the end, {mask} at first"))
    }
}

/// Calls.
impl Play {
    fn wake(&mut self) {
        self.subject.poller().waker().wake();
        self.model.wake();
    }

    fn register(&mut self, at: At, interest: Interest, mode: Mode) -> Verdict {
        let token = self.next_token();
        let file = &self.files[at.index()];
        let (source, described) = (file.handle(), file.described());
        let answer = self.subject.poller().register(source, token, interest, mode);
        if let Ok(key) = answer {
            self.keys[at.index()] = key;
        }
        agree(answer.map(drop), self.model.register(at.index(), token, interest, mode, described))
    }

    fn modify(&mut self, at: At, interest: Interest, mode: Mode) -> Verdict {
        let token = self.next_token();
        let key = self.keys[at.index()];
        let answer = self.subject.poller().modify(key, token, interest, mode);
        agree(answer, self.model.modify(at.index(), token, interest, mode))
    }

    fn rearm(&mut self, at: At, dirs: Interest) -> Verdict {
        let key = self.keys[at.index()];
        let answer = self.subject.poller().rearm(key, dirs);
        agree(answer, self.model.rearm(at.index(), dirs))
    }

    fn drained(&mut self, at: At, dirs: Interest) -> Verdict {
        let key = self.keys[at.index()];
        let bits = self.look()[at.index()];
        let answer = self.subject.poller().drained(key, dirs);
        agree(answer, self.model.drained(at.index(), dirs, bits))
    }

    fn deregister(&mut self, at: At) -> Verdict {
        let key = self.keys[at.index()];
        let answer = self.subject.poller().deregister(key);
        agree(answer, self.model.deregister(at.index()))?;
        let file = &self.files[at.index()];
        expect(file.is_sole(), "R5", || format!("{at:?} is still held"))?;
        let signals = file.is_async() && !self.is_registered_twice(at);
        expect(!signals, "P3", || format!("{at:?} goes on signalling"))
    }

    /// Whether a duplicate of the file is registered.
    fn is_registered_twice(&self, at: At) -> bool {
        let file = &self.files[at.index()];
        let mut others = self.files.iter().enumerate().filter(|&(place, _)| place != at.index());
        others.any(|(place, other)| self.model.is_registered(place) && other.shares_with(file))
    }

    fn next_token(&mut self) -> Token {
        self.tokens += 1;
        Token(self.tokens)
    }
}

/// What happens to the files.
impl Play {
    /// What a file does not signal unless that makes it ready, which it rarely does.
    fn on<T>(&mut self, at: At, act: impl FnOnce(&Place) -> T) -> T {
        let before = self.look();
        let outcome = act(&self.files[at.index()]);
        self.touch(at, Heard::IfReady, &before);
        outcome
    }

    /// The other side does something; `act` gives whether it did.
    fn told(&mut self, at: At, act: impl FnOnce(&Place) -> bool) {
        let before = self.look();
        let heard = if act(&self.files[at.index()]) { Heard::Surely } else { Heard::IfReady };
        self.touch(at, heard, &before);
    }

    /// The program does something to its own file, which signals nothing.
    fn untold(&mut self, at: At, act: fn(&Place)) {
        let before = self.look();
        act(&self.files[at.index()]);
        self.touch(at, Heard::Never, &before);
    }

    /// Elsewhere the signal would end the process: only pollers with SIGIO block it.
    fn overflow(&mut self) {
        if self.hears_signals {
            raise(Signal::SIGIO).expect("raise");
            self.overflow_sent = true;
        }
    }

    fn set_flags(&mut self, at: At) {
        self.files[at.index()].set_flags();
        self.sharing(at).for_each(|place| self.model.silence(place));
    }

    fn take_signals(&mut self, at: At) {
        self.files[at.index()].take_signals();
        self.sharing(at).for_each(|place| self.model.take_signals(place));
    }

    /// The portable habit (E4).
    fn until_blocked(&mut self, at: At, dirs: Interest, act: fn(&Place) -> Moved) -> Verdict {
        let moved = self.on(at, act);
        if moved == Moved::Nothing && self.model.interest(at.index()).contains(dirs) {
            self.drained(at, dirs)?;
        }
        Ok(())
    }

    fn reopen(&mut self, at: At) -> Verdict {
        self.give_up(at)?;
        self.touch(at, Heard::IfReady, &self.look());
        let peer = self.files[at.index()].reopen();
        sees_the_end(peer)
    }

    fn duplicate(&mut self, from: At, to: At) -> Verdict {
        if from == to {
            return Ok(());
        }
        self.give_up(to)?;
        self.touch(to, Heard::IfReady, &self.look());
        let double = self.files[from.index()].duplicate();
        let peer = std::mem::replace(&mut self.files[to.index()], double).close();
        self.touch(from, Heard::IfReady, &self.look());
        sees_the_end(peer)
    }

    fn give_up(&mut self, at: At) -> Verdict {
        if self.model.is_registered(at.index()) { self.deregister(at) } else { Ok(()) }
    }

    /// Something has happened to the file at this place, of which poll(2) said `before` what it
    /// says there.
    fn touch(&mut self, at: At, heard: Heard, before: &[Bits]) {
        let after = self.look();
        for place in self.sharing(at) {
            let ready = |bits: &[Bits]| ready(bits[place], Interest::all());
            self.model.touch(place, heard, ready(&after) - ready(before));
        }
    }

    /// The places that have the same file as this one, and itself.
    fn sharing(&self, at: At) -> impl Iterator<Item = usize> + use<> {
        let file = &self.files[at.index()];
        let share: Vec<_> = (0..PLACES).filter(|&to| self.files[to].shares_with(file)).collect();
        share.into_iter()
    }

    /// What poll(2) says of each file.
    fn look(&self) -> Vec<Bits> {
        let files: Vec<_> = self.files.iter().map(Place::fd).collect();
        let bits = look(&files);
        for (file, &bits) in self.files.iter().zip(&bits) {
            let (known, set) = file.reckoned();
            assert_eq!(bits & known, set, "poll(2) and reckoning differ: {file:?}");
        }
        bits
    }
}

/// Waits.
impl Play {
    fn wait(&mut self, timeout: Duration) -> Verdict {
        let bits = self.look();
        let due = self.model.is_due(&bits);
        let timeout = if due && !timeout.is_zero() { LONG } else { timeout };
        let (looks, losses) = (self.subject.looks(), self.subject.losses());
        let started = Instant::now();
        let answer = self.subject.poller().wait(&mut self.events, Some(timeout));
        let took = started.elapsed();
        agree(answer, Ok(()))?;
        assert_eq!(self.look(), bits, "a wait changes no file");
        self.overflows(self.subject.losses() - losses)?;
        let (looks, seen) = (self.subject.looks() - looks, self.seen()?);
        self.model.wait(&bits, self.events.capacity(), &seen, self.events.woken())?;
        let silent = self.events.is_empty() && !self.events.woken();
        let over = took >= timeout;
        expect(!silent || over, "T3", || format!("empty after {took:?} of {timeout:?}"))?;
        expect(!due || !over || timeout.is_zero(), SLEPT, || format!("slept for {took:?}"))?;
        expect(looks <= MOST_LOOKS, "T2", || format!("{looks} looks in one wait of {took:?}"))
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

/// Compares what a call said with what it must say.
fn agree(answer: io::Result<()>, expected: Answer) -> Verdict {
    let said = answer.as_ref().map_err(io::Error::kind).copied();
    let clause = match (said, expected) {
        (Err(ErrorKind::NotFound), _) | (_, Err(ErrorKind::NotFound)) => "R4",
        (_, Err(ErrorKind::AlreadyExists)) => "R2",
        (_, Err(ErrorKind::InvalidInput)) => "R10",
        _ => "P5",
    };
    expect(said == expected, clause, || format!("answer {answer:?}, expected {expected:?}"))
}

/// The last handle of this side was closed just now: the other side must know (R5).
fn sees_the_end(peer: Option<OwnedFd>) -> Verdict {
    let Some(peer) = peer else { return Ok(()) };
    let bits = look(&[peer.as_fd()])[0];
    let ended = bits.intersects(Bits::EPOLLHUP | Bits::EPOLLERR);
    expect(ended, "R5", || format!("the peer sees {bits:?} after the last close"))
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Broken { column, at, failure } = self;
        match at {
            Some((nth, step)) => write!(f, "{column}, step {nth} ({step:?}): {failure}"),
            None => write!(f, "{column}, at the end: {failure}"),
        }
    }
}
