//! A few connections over TCP, and what is done with them, small steps at a time.
//!
//! Each deed on the network ends with a [fence](super::connection), so that what comes after it is
//! laid down as it is with files that know no network: level and one-shot exactly, and of edges
//! what must be reported. What may be is open once this side has sent something, because an
//! acknowledgement is a wake-up, and may come at any time.
//!
//! Two things are left out. A socket is never filled: when a full one has room again is the
//! network's secret. And none shuts its own reading side, of which SIGIO is not told.

use super::book::{Book, Broken, Round, Traits, Verdict, compare, expect};
use super::column::Column;
use super::connection::Connection;
use super::crowd::Dirs;
use super::oracle::{Bits, look};
use nix::fcntl::OFlag;
use nix::unistd::dup3;
use quintpoll::{Interest, Mode};
use std::cell::RefCell;
use std::fmt;
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;

/// Connections, and what is done with them.
#[derive(Clone, PartialEq, Eq)]
pub struct Script {
    /// How many connections there are.
    pub size: usize,
    /// One after the other.
    pub steps: Vec<Step>,
}

/// A thing that is done, to one of the connections. What is impossible does nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Wait once, with so much room.
    Wait(usize),
    /// The same, but sleep if nothing is to be had although something has to be.
    WaitPatiently(usize),
    /// Wait with so much room until everyone has had his turn.
    Settle(usize),
    /// Wake the poller.
    Wake,
    /// Register; refused if it is registered.
    Register(usize, Dirs, Mode),
    /// Modify.
    Modify(usize, Dirs, Mode),
    /// Rearm these directions, which may not be of the interest.
    Rearm(usize, Dirs),
    /// Say that these directions were drained, which may be untrue.
    Drained(usize, Dirs),
    /// Deregister.
    Deregister(usize),
    /// The other side writes so much.
    PeerWrite(usize, usize),
    /// The other side sends an urgent byte.
    PeerUrgent(usize),
    /// The other side reads all there is.
    PeerRead(usize),
    /// The other side will send no more.
    PeerShut(usize),
    /// The other side is closed.
    PeerClose(usize),
    /// The other side breaks the connection off.
    PeerReset(usize),
    /// This side writes so much.
    Write(usize, usize),
    /// This side reads all there is, and says nothing of it.
    Read(usize),
    /// This side reads until it would block, and says so.
    ReadOut(usize),
    /// This side takes the urgent byte.
    ReadUrgent(usize),
    /// This side will send no more.
    Shut(usize),
    /// Deregister, close, and have another connection under the same number.
    Reopen(usize),
    /// The second is given up, and becomes a duplicate of the first.
    Dup(usize, usize),
}

/// Plays a script to each of these, and compares what they have settled.
///
/// # Errors
///
/// The first step that went wrong.
///
/// # Panics
///
/// If an invariant of a poller does not hold, if the network does not do what is reckoned, or if a
/// poller can't be made. One that is not available plays nothing.
pub fn play(script: &Script, columns: &[Column]) -> Result<(), Broken> {
    compare(columns, |column| play_one(script, column))
}

fn play_one(script: &Script, column: Column) -> Result<Option<Vec<Round>>, Broken> {
    let Some(book) = Book::open(column, script.size) else { return Ok(None) };
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let places = (0..script.size).map(|_| Place::open(&listener)).collect();
    let mut play = Play { book, places, listener, rounds: Vec::new() };
    play.book.observe(&play.look());
    for (nth, &step) in script.steps.iter().enumerate() {
        play.step(step).map_err(|failure| Broken::at(column, nth, &step, failure))?;
    }
    play.end().map_err(|failure| Broken::at_end(column, failure))?;
    Ok(Some(play.rounds))
}

/// A nearer side. Duplicates have a connection in common.
#[derive(Debug)]
struct Place {
    file: Arc<OwnedFd>,
    connection: Rc<RefCell<Connection>>,
    /// With SIGIO: its signals are this registration's; or another's, and this one has none.
    is_claimed: bool,
    is_mute: bool,
}

impl Place {
    fn open(listener: &TcpListener) -> Self {
        let (file, connection) = Connection::open(listener);
        Place::new(file, Rc::new(RefCell::new(connection)))
    }

    fn new(file: OwnedFd, connection: Rc<RefCell<Connection>>) -> Self {
        Place { file: Arc::new(file), connection, is_claimed: false, is_mute: false }
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    fn shares_with(&self, other: &Place) -> bool {
        Rc::ptr_eq(&self.connection, &other.connection)
    }
}

/// What is in play.
struct Play {
    // Before the files, so that it lets go of them first.
    book: Book,
    places: Vec<Place>,
    listener: TcpListener,
    rounds: Vec<Round>,
}

impl Play {
    fn step(&mut self, step: Step) -> Verdict {
        let bits = self.look();
        match step {
            Step::Wait(room) => self.book.wait(room, false)?,
            Step::WaitPatiently(room) => self.book.wait(room, true)?,
            Step::Settle(room) => self.settle(&bits, room)?,
            Step::Wake => self.book.wake(),
            _ if !step.places().iter().all(|&at| at < self.places.len()) => {}
            Step::Register(at, dirs, mode) => {
                let traits = self.claim(at, dirs.into());
                let file = self.places[at].file.clone();
                self.book.register(at, file, dirs.into(), mode, traits)?;
            }
            Step::Modify(at, dirs, mode) if self.book.is_registered(at) => {
                let traits = self.claim(at, dirs.into());
                self.book.modify(at, dirs.into(), mode, traits)?;
            }
            Step::Modify(..) => {}
            Step::Rearm(at, dirs) => self.book.rearm(at, dirs.into())?,
            Step::Drained(at, dirs) => self.book.drained(at, dirs.into(), bits[at])?,
            Step::Deregister(at) => self.deregister(at)?,
            Step::PeerWrite(at, length) => self.on(at, |c, here| c.peer_write(here, length)),
            Step::PeerUrgent(at) => self.on(at, Connection::peer_urgent),
            Step::PeerRead(at) => self.on(at, |c, _| c.peer_read()),
            Step::PeerShut(at) => self.on(at, Connection::peer_shut),
            Step::PeerClose(at) => self.on(at, |c, here| c.peer_close(here, true)),
            Step::PeerReset(at) => self.on(at, |c, here| c.peer_close(here, false)),
            Step::Write(at, length) => self.on(at, |c, here| c.write(here, length)),
            Step::Read(at) => self.on(at, |c, here| _ = c.read_out(here)),
            Step::ReadOut(at) => self.read_out(at)?,
            Step::ReadUrgent(at) => self.on(at, Connection::read_urgent),
            Step::Shut(at) => self.on(at, Connection::shut),
            Step::Reopen(at) => self.reopen(at)?,
            Step::Dup(from, to) => self.dup(from, to)?,
        }
        self.book.observe(&self.look());
        self.book.verify();
        Ok(())
    }

    /// When all is over, another round with everybody, and nobody after that.
    fn end(&mut self) -> Verdict {
        self.settle(&self.look(), 2)?;
        (0..self.places.len()).try_for_each(|at| self.deregister(at))?;
        self.book.wait(1, false)?;
        for place in std::mem::take(&mut self.places) {
            // Thousands of connections that linger would use up the ports.
            place.connection.borrow().break_off(place.fd());
        }
        Ok(())
    }

    fn settle(&mut self, bits: &[Bits], room: usize) -> Verdict {
        let round = self.book.settle(room)?;
        self.rounds.push(round);
        assert_eq!(self.look(), bits, "a wait changes no file");
        Ok(())
    }

    fn deregister(&mut self, at: usize) -> Verdict {
        let place = &mut self.places[at];
        (place.is_claimed, place.is_mute) = (false, false);
        self.book.deregister(at)?;
        let is_sole = Arc::strong_count(&place.file) == 1;
        expect(is_sole, "R5", || format!("a handle of {at} is kept"))
    }

    /// What the book has to know of a place that is to be watched for these directions. With SIGIO
    /// only the first of several duplicates has the signals, for which nobody asks who only wants
    /// to write, and it has them until it is deregistered.
    fn claim(&mut self, at: usize, interest: Interest) -> Traits {
        let place = &self.places[at];
        let is_writer = interest.is_empty() || interest == Interest::WRITABLE;
        let is_new = !is_writer && !place.is_claimed && !place.is_mute;
        let is_late = self.places.iter().any(|other| other.is_claimed && other.shares_with(place));
        let is_restless = place.connection.borrow().is_restless();
        if is_new {
            (self.places[at].is_claimed, self.places[at].is_mute) = (!is_late, is_late);
        }
        Traits { signals: !self.places[at].is_mute, is_restless }
    }

    /// Does something to a connection.
    fn on<T>(&mut self, at: usize, what: impl FnOnce(&mut Connection, BorrowedFd<'_>) -> T) -> T {
        let place = &self.places[at];
        let deeds = place.connection.borrow().deeds();
        let answer = what(&mut place.connection.borrow_mut(), place.fd());
        if place.connection.borrow().deeds() > deeds {
            self.touch(at);
        }
        answer
    }

    /// Something was done to a connection.
    fn touch(&mut self, at: usize) {
        let place = &self.places[at];
        let is_restless = place.connection.borrow().is_restless();
        for (other, its) in self.places.iter().enumerate() {
            if its.shares_with(place) {
                self.book.touch(other, is_restless);
            }
        }
    }

    fn read_out(&mut self, at: usize) -> Verdict {
        if !self.on(at, Connection::read_out) {
            return Ok(());
        }
        let dirs = self.book.interest(at) & Interest::READABLE;
        self.book.drained(at, dirs, self.look()[at])
    }

    fn reopen(&mut self, at: usize) -> Verdict {
        self.deregister(at)?;
        let fresh = Place::open(&self.listener);
        let place = &mut self.places[at];
        let file = Arc::get_mut(&mut place.file).expect("nobody else has a handle");
        dup3(&*fresh.file, file, OFlag::O_CLOEXEC).expect("dup3");
        let left = std::mem::replace(&mut place.connection, fresh.connection);
        sees_the_end(left);
        Ok(())
    }

    fn dup(&mut self, from: usize, to: usize) -> Verdict {
        if from == to {
            return Ok(());
        }
        self.deregister(to)?;
        let file = self.places[from].file.try_clone().expect("dup");
        let double = Place::new(file, self.places[from].connection.clone());
        let left = std::mem::replace(&mut self.places[to], double).connection;
        sees_the_end(left);
        self.touch(from);
        Ok(())
    }

    /// What poll(2) says of each place, which is what is reckoned.
    fn look(&self) -> Vec<Bits> {
        let fds: Vec<_> = self.places.iter().map(Place::fd).collect();
        let bits = look(&fds);
        for (place, &bits) in self.places.iter().zip(&bits) {
            let (unknown, set) = place.connection.borrow().reckoned();
            assert_eq!(bits - unknown, set - unknown, "poll(2) and reckoning differ: {place:?}");
        }
        bits
    }
}

/// Who was the last to let go of a connection has closed it.
fn sees_the_end(left: Rc<RefCell<Connection>>) {
    if let Some(connection) = Rc::into_inner(left) {
        connection.into_inner().fence_end();
    }
}

impl Step {
    /// The places it is about.
    fn places(self) -> Vec<usize> {
        match self {
            Step::Wait(_) | Step::WaitPatiently(_) | Step::Settle(_) | Step::Wake => vec![],
            Step::Dup(from, to) => vec![from, to],
            Step::Register(at, ..)
            | Step::Modify(at, ..)
            | Step::Rearm(at, _)
            | Step::Drained(at, _)
            | Step::Deregister(at)
            | Step::PeerWrite(at, _)
            | Step::PeerUrgent(at)
            | Step::PeerRead(at)
            | Step::PeerShut(at)
            | Step::PeerClose(at)
            | Step::PeerReset(at)
            | Step::Write(at, _)
            | Step::Read(at)
            | Step::ReadOut(at)
            | Step::ReadUrgent(at)
            | Step::Shut(at)
            | Step::Reopen(at) => vec![at],
        }
    }
}

impl Script {
    /// Rust that plays it again, for `tests/crowds.rs`.
    pub fn as_test(&self) -> String {
        let script = format!("{self:?}").replace('\n', "\n    ");
        let modules = "use crowd::Dirs::*;\n    use quintpoll::Mode::*;";
        let names = format!("{modules}\n    use tcp::{{Script, Step::*}};");
        format!("#[test]\nfn tcp_nn() {{\n    {names}\n    replay_tcp(&{script});\n}}\n")
    }
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Script {{\n    size: {},\n    steps: vec![", self.size)?;
        for step in &self.steps {
            writeln!(f, "        {step:?},")?;
        }
        write!(f, "    ],\n}}")
    }
}
