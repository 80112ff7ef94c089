//! Plays a script: does each step to the files and to each poller with its model, and compares.

use super::channel::is_refused;
use super::column::Column;
use super::ear::Heard;
use super::files::{Files, Moved, Place};
use super::model::{Failure, Verdict, expect};
use super::oracle::{Bits, DIRECTIONS, ends, look, ready};
use super::player::{Player, SLEPT, Sleep};
use super::script::{At, Script, Step, interrupted_timeout, length, timeout};
use quintpoll::Interest;
use std::fmt;
use std::fs::read_to_string;
use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

/// A script came out wrong.
#[derive(Debug)]
pub struct Broken {
    /// The number of the step, and the step; none at the end.
    at: Option<(usize, Step)>,
    fault: Fault,
}

/// A step came out wrong.
#[derive(Debug)]
pub struct Fault {
    /// For whom, in words.
    pub who: String,
    /// How.
    pub failure: Failure,
}

/// What a step comes to.
pub type Outcome = Result<(), Fault>;

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
        Err(broken) if broken.fault.is_sleep() => play_once(script, column),
        outcome => outcome,
    }
}

fn play_once(script: &Script, column: Column) -> Result<(), Broken> {
    let mask = blocked_signals();
    let mut table = Table::open(script, &[column]);
    if table.players().is_empty() {
        return Ok(());
    }
    for (nth, &step) in script.steps.iter().enumerate() {
        table.step(step).map_err(|fault| Broken { at: Some((nth, step)), fault })?;
    }
    let end = table.end().and_then(|()| as_before(&mask).map_err(|failure| failure.of(column)));
    end.map_err(|fault| Broken { at: None, fault })
}

/// The signals that this thread blocks, as the kernel writes them: those that have no name too.
pub fn blocked_signals() -> String {
    let status = read_to_string("/proc/thread-self/status").expect("proc is mounted");
    let line = status.lines().find(|line| line.starts_with("SigBlk:"));
    line.expect("the kernel tells").to_owned()
}

/// When all pollers have gone, the mask is what it was (P3).
pub fn as_before(mask: &str) -> Verdict {
    let left = blocked_signals();
    expect(left == mask, "P3", || format!("{left} at the end, {mask} at first"))
}

/// Five files, and whoever watches them.
#[derive(Debug)]
pub struct Table {
    files: Files,
    players: Vec<Player>,
    settles: bool,
}

impl Table {
    /// Opens the files of a script, and a poller for each of the columns that are available.
    ///
    /// # Panics
    ///
    /// If a poller can't be made, for another reason than that it is not available.
    pub fn open(script: &Script, columns: &[Column]) -> Self {
        let files = Files::open(script.kinds);
        let player = |&column: &Column| match Player::new(column, &files) {
            Ok(player) => Some(player),
            Err(error) if error.kind() == ErrorKind::Unsupported => None,
            Err(error) => panic!("{column}: no poller: {error}"),
        };
        let players = columns.iter().filter_map(player).collect();
        Table { files, players, settles: false }
    }

    /// Each wait is from now on as many as it takes until everything that is ready has had its
    /// turn.
    pub fn settling(self) -> Self {
        Table { settles: true, ..self }
    }

    /// Whoever watches.
    pub fn players(&mut self) -> &mut [Player] {
        &mut self.players
    }

    /// The files.
    pub fn files(&self) -> &Files {
        &self.files
    }

    /// Does one step.
    ///
    /// # Errors
    ///
    /// What came out wrong first. Everybody has done the step even so, as far as he could.
    ///
    /// # Panics
    ///
    /// As [`play`] does.
    pub fn step(&mut self, step: Step) -> Outcome {
        let outcome = self.act(step);
        let bits = self.files.look();
        self.players.iter_mut().for_each(|player| player.observe(&bits));
        outcome
    }

    fn act(&mut self, step: Step) -> Outcome {
        match step {
            Step::Wait0 => return self.wait(Duration::ZERO, false),
            Step::WaitShort(number) => return self.wait(timeout(number), false),
            Step::WaitInterrupted(number) => return self.wait(interrupted_timeout(number), true),
            Step::SetCapacity(room) => self.tell(|player| player.set_capacity(room.into())),
            Step::Wake => self.tell(Player::wake),
            Step::Register(at, dirs, how) => {
                return self.each(|player, files| {
                    player.register(at, files.at(at), dirs.into(), how.into())
                });
            }
            Step::Modify(at, dirs, how) => {
                return self.each(|player, _| player.modify(at, dirs.into(), how.into()));
            }
            Step::Rearm(at, dirs) => return self.each(|player, _| player.rearm(at, dirs.into())),
            Step::Drained(at, dirs) => return self.drained(at, dirs.into()),
            Step::Deregister(at) => return self.deregister(at),
            Step::DrainRead(at) => return self.until_blocked(at, Interest::READABLE, Place::drain),
            Step::FillWrite(at) => return self.until_blocked(at, Interest::WRITABLE, Place::fill),
            Step::Overflow => self.tell(Player::overflow),
            Step::Reopen(at) => return self.reopen(at),
            Step::Dup(from, to) => return self.duplicate(from, to),
            _ => self.do_to_a_file(step),
        }
        Ok(())
    }

    /// What goes past the pollers.
    fn do_to_a_file(&mut self, step: Step) {
        match step {
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
            Step::Write(at, number) => {
                self.on(at, |file| file.write(length(number)));
            }
            Step::ShutdownWr(at) => self.untold(at, Place::shutdown),
            Step::ShutdownRd(at) => self.untold(at, Place::shutdown_reading),
            Step::SetFlags(at) => self.set_flags(at),
            Step::Enlarge(at, end) => self.on(at, |file| file.enlarge(end)),
            Step::TakeSignals(at) => self.take_signals(at),
            _ => unreachable!("{step:?} is for the pollers"),
        }
    }

    /// The pollers go, and must let go of every file (R6), and leave all as it was (P3).
    ///
    /// # Errors
    ///
    /// What they did not.
    pub fn end(self) -> Outcome {
        let who = self.names();
        drop(self.players);
        let held = self.files.iter().filter(|file| !file.is_sole()).count();
        let signalling = self.files.iter().filter(|file| file.is_async()).count();
        expect(held == 0, "R6", || format!("{held} sources outlived their poller"))
            .and_then(|()| {
                expect(signalling == 0, "P3", || format!("{signalling} files go on signalling"))
            })
            .map_err(|failure| failure.of(who))
    }

    /// Has each player do it; gives what went wrong first.
    fn each(&mut self, mut act: impl FnMut(&mut Player, &Files) -> Verdict) -> Outcome {
        let mut outcome = Ok(());
        for player in &mut self.players {
            let verdict = act(player, &self.files);
            outcome = outcome.and(verdict.map_err(|failure| failure.of(player.column())));
        }
        outcome
    }

    fn tell(&mut self, act: impl FnMut(&mut Player)) {
        self.players.iter_mut().for_each(act);
    }

    /// Judges what is true of the files, which may be anybody's fault.
    fn judge(&self, verdict: Verdict) -> Outcome {
        verdict.map_err(|failure| failure.of(self.names()))
    }

    fn names(&self) -> String {
        let names: Vec<_> = self.players.iter().map(|player| player.column().to_string()).collect();
        names.join(", ")
    }
}

/// Calls.
impl Table {
    fn wait(&mut self, timeout: Duration, interrupted: bool) -> Outcome {
        let sleep = Sleep { timeout, interrupted };
        let settles = self.settles;
        self.each(|player, files| match settles {
            true => player.settle(files, sleep),
            false => player.wait(files, sleep),
        })
    }

    fn drained(&mut self, at: At, dirs: Interest) -> Outcome {
        let bits = self.files.look()[at.index()];
        self.each(|player, _| player.drained(at, dirs, bits))
    }

    fn deregister(&mut self, at: At) -> Outcome {
        self.each(|player, _| player.deregister(at))?;
        let file = self.files.at(at);
        let held = expect(file.is_sole(), "R5", || format!("{at:?} is still held"));
        let signals = file.is_async() && !self.is_registered_twice(at);
        let signals = expect(!signals, "P3", || format!("{at:?} goes on signalling"));
        self.judge(held.and(signals))
    }

    /// Whether a duplicate of the file is registered.
    fn is_registered_twice(&self, at: At) -> bool {
        let mut others = self.files.sharing(at).filter(|&place| place != at.index());
        others.any(|place| self.is_registered(place))
    }

    /// Everybody does the same, so what one has registered all have.
    fn is_registered(&self, place: usize) -> bool {
        self.players.iter().any(|player| player.model().is_registered(place))
    }
}

/// What happens to the files.
impl Table {
    /// What a file does not signal unless that makes it ready, which it rarely does.
    fn on<T>(&mut self, at: At, act: impl FnOnce(&Place) -> T) -> T {
        let before = self.files.look();
        let outcome = act(self.files.at(at));
        self.touch(at, Heard::IfReady, &before);
        outcome
    }

    /// The other side does something; `act` gives whether it did.
    pub fn told(&mut self, at: At, act: impl FnOnce(&Place) -> bool) {
        let before = self.files.look();
        let heard = if act(self.files.at(at)) { Heard::Surely } else { Heard::IfReady };
        self.touch(at, heard, &before);
    }

    /// The program does something to its own file, which signals nothing.
    fn untold(&mut self, at: At, act: fn(&Place)) {
        let before = self.files.look();
        act(self.files.at(at));
        self.touch(at, Heard::Never, &before);
    }

    fn set_flags(&mut self, at: At) {
        self.files.at(at).set_flags();
        for place in self.files.sharing(at) {
            self.tell(|player| player.model_mut().silence(place));
        }
    }

    fn take_signals(&mut self, at: At) {
        self.files.at(at).take_signals();
        for place in self.files.sharing(at) {
            self.tell(|player| player.model_mut().take_signals(place));
        }
    }

    /// The portable habit (E4).
    fn until_blocked(&mut self, at: At, dirs: Interest, act: fn(&Place) -> Moved) -> Outcome {
        let moved = self.on(at, act);
        let bits = self.files.look()[at.index()];
        self.each(|player, _| {
            let is_asked = player.model().interest(at.index()).contains(dirs);
            if moved == Moved::Nothing && is_asked {
                player.drained(at, dirs, bits)?;
            }
            Ok(())
        })
    }

    fn reopen(&mut self, at: At) -> Outcome {
        self.give_up(at)?;
        self.touch(at, Heard::IfReady, &self.files.look());
        let peer = self.files.at_mut(at).reopen();
        self.judge(sees_the_end(peer))
    }

    fn duplicate(&mut self, from: At, to: At) -> Outcome {
        if from == to {
            return Ok(());
        }
        self.give_up(to)?;
        self.touch(to, Heard::IfReady, &self.files.look());
        let double = self.files.at(from).duplicate();
        let peer = std::mem::replace(self.files.at_mut(to), double).close();
        self.touch(from, Heard::IfReady, &self.files.look());
        self.judge(sees_the_end(peer))
    }

    fn give_up(&mut self, at: At) -> Outcome {
        if self.is_registered(at.index()) { self.deregister(at) } else { Ok(()) }
    }

    /// Something has happened to the file at this place, of which poll(2) said `before` what it
    /// says there.
    fn touch(&mut self, at: At, heard: Heard, before: &[Bits]) {
        let after = self.files.look();
        for place in self.files.sharing(at) {
            let ready = |bits: &[Bits]| ready(bits[place], Interest::all());
            let new_end =
                |dir: &Interest| !(ends(after[place], *dir) - ends(before[place], *dir)).is_empty();
            let ended: Interest = DIRECTIONS.into_iter().filter(new_end).collect();
            let news = (ready(&after) - ready(before)) | ended;
            self.tell(|player| player.model_mut().touch(place, heard, news));
        }
    }
}

/// The last handle of this side was closed just now: the other side must know (R5).
fn sees_the_end(peer: Option<OwnedFd>) -> Verdict {
    let Some(peer) = peer else { return Ok(()) };
    let bits = look(&[peer.as_fd()])[0];
    let ended = bits.intersects(Bits::EPOLLHUP | Bits::EPOLLERR) || is_refused(peer.as_fd());
    expect(ended, "R5", || format!("the peer sees {bits:?} after the last close"))
}

impl Failure {
    fn of(self, who: impl fmt::Display) -> Fault {
        Fault { who: who.to_string(), failure: self }
    }
}

impl Fault {
    /// Whether a wait was late, which may be the machine's doing.
    pub fn is_sleep(&self) -> bool {
        self.failure.clause == SLEPT
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.who, self.failure)
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.at {
            Some((nth, step)) => write!(f, "step {nth} ({step:?}), {}", self.fault),
            None => write!(f, "at the end, {}", self.fault),
        }
    }
}
