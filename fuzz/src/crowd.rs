//! Crowds: some hundred sources in one poller, and steps that take many of them at once.
//!
//! Of the shapes that a poller's lists take, most need more sources than a handful: a queue that is
//! longer than there is room for, sources that wait behind a crowd, places that are used again in
//! another order. What is played is made of the same few kinds of file, so that poll(2) and plain
//! reckoning tell all that is true of them.
//!
//! Every column plays a script by itself, over files of its own: what it has settled in each round
//! is then compared with the others'. So a crowd's files are open once, not once for each column.

use super::book::{Book, Broken, Round, Verdict, compare, expect};
use super::column::Column;
use super::member::Member;
use super::oracle::{Bits, look};
use quintpoll::{Interest, Mode};
use std::fmt;
use std::os::fd::AsFd;

pub use super::member::Kind;
/// The modes, by the names of which scripts are written.
pub use quintpoll::Mode::{Edge, Level, OneShot};

/// A crowd, and what is done with it.
#[derive(Clone, PartialEq, Eq)]
pub struct Script {
    /// How many sources there are.
    pub size: usize,
    /// Their kinds, in turn.
    pub kinds: Vec<Kind>,
    /// One after the other.
    pub steps: Vec<Step>,
}

/// A part of the crowd: the first, how far it is to the next, and how many at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Those(pub usize, pub usize, pub usize);

/// A set of directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Dirs {
    R,
    W,
    RW,
    P,
    RP,
    WP,
    Nothing,
}

/// Something that is done, to one after the other of a part of the crowd. What is impossible does
/// nothing, so every part of a script is a script.
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
    /// Register; refused where it is registered.
    Register(Those, Dirs, Mode),
    /// Modify.
    Modify(Those, Dirs, Mode),
    /// Rearm these directions, which may not be of the interest.
    Rearm(Those, Dirs),
    /// Say that these directions were drained, which may be untrue.
    Drained(Those, Dirs),
    /// Deregister.
    Deregister(Those),
    /// The other side writes a byte.
    PeerWrite(Those),
    /// The other side reads all there is.
    PeerRead(Those),
    /// The other side is closed.
    PeerClose(Those),
    /// This side reads all there is, and says nothing of it.
    Read(Those),
    /// This side reads until it would block, and says so.
    ReadOut(Those),
    /// This side writes until it would block, and says so.
    Fill(Those),
    /// Deregister, close, and open another file under the same number.
    Reopen(Those),
}

/// Plays a script to each of these, and compares what they have settled.
///
/// # Errors
///
/// The first step that went wrong.
///
/// # Panics
///
/// If an invariant of a poller does not hold, if poll(2) does not say what is reckoned, or if a
/// poller can't be made. One that is not available plays nothing.
pub fn play(script: &Script, columns: &[Column]) -> Result<(), Broken> {
    compare(columns, |column| play_one(script, column))
}

fn play_one(script: &Script, column: Column) -> Result<Option<Vec<Round>>, Broken> {
    let Some(book) = Book::open(column, script.size) else { return Ok(None) };
    let kinds = script.kinds.iter().cycle().take(script.size);
    let files = kinds.map(|&kind| Member::open(kind)).collect();
    let mut play = Play { book, files, bits: None, rounds: Vec::new() };
    play.observe();
    for (nth, &step) in script.steps.iter().enumerate() {
        play.step(step).map_err(|failure| Broken::at(column, nth, &step, failure))?;
    }
    play.end().map_err(|failure| Broken::at_end(column, failure))?;
    Ok(Some(play.rounds))
}

/// What is in play.
struct Play {
    // Before the files, so that it lets go of them first.
    book: Book,
    files: Vec<Member>,
    /// What poll(2) says of the files, since something was last done to them.
    bits: Option<Vec<Bits>>,
    rounds: Vec<Round>,
}

impl Play {
    fn step(&mut self, step: Step) -> Verdict {
        match step {
            Step::Wait(room) => self.book.wait(room, false)?,
            Step::WaitPatiently(room) => self.book.wait(room, true)?,
            Step::Settle(room) => self.settle(room)?,
            Step::Wake => self.book.wake(),
            Step::Register(those, dirs, mode) => self.each(those, |play, at| {
                let (file, traits) = (play.files[at].handle(), play.files[at].traits());
                play.book.register(at, file, dirs.into(), mode, traits)
            })?,
            Step::Modify(those, dirs, mode) => self.each(those, |play, at| {
                play.book.modify(at, dirs.into(), mode, play.files[at].traits())
            })?,
            Step::Rearm(those, dirs) => {
                self.each(those, |play, at| play.book.rearm(at, dirs.into()))?;
            }
            Step::Drained(those, dirs) => {
                let bits = self.look().to_vec();
                self.each(those, |play, at| play.book.drained(at, dirs.into(), bits[at]))?;
            }
            Step::Deregister(those) => self.each(those, |play, at| play.book.deregister(at))?,
            Step::PeerWrite(those) => self.on(those, Member::peer_write),
            Step::PeerRead(those) => self.on(those, Member::peer_read),
            Step::PeerClose(those) => self.on(those, Member::peer_close),
            Step::Read(those) => self.on(those, |file| {
                file.read_out();
                true
            }),
            Step::ReadOut(those) => self.until(those, Interest::READABLE, Member::read_out)?,
            Step::Fill(those) => self.until(those, Interest::WRITABLE, Member::fill)?,
            Step::Reopen(those) => self.reopen(those)?,
        }
        self.observe();
        self.book.verify();
        Ok(())
    }

    /// When all is over, another round with everybody, and nobody after that.
    fn end(&mut self) -> Verdict {
        self.settle(7)?;
        let everyone = Those(0, 1, self.files.len());
        self.step(Step::Deregister(everyone))?;
        self.book.wait(1, false)?;
        let sole = self.files.iter().all(Member::is_sole);
        expect(sole, "R5", || "a handle of a source is kept".to_owned())
    }

    fn settle(&mut self, room: usize) -> Verdict {
        let bits = self.look().to_vec();
        let round = self.book.settle(room)?;
        self.rounds.push(round);
        self.bits = None;
        assert_eq!(self.look(), bits, "a wait changes no file");
        Ok(())
    }

    /// Does it for each of those.
    fn each(&mut self, those: Those, mut what: impl FnMut(&mut Self, usize) -> Verdict) -> Verdict {
        those.within(self.files.len()).try_for_each(|at| what(self, at))
    }

    /// Does something to each of those files, unless it says that it has not.
    fn on(&mut self, those: Those, mut what: impl FnMut(&mut Member) -> bool) {
        for at in those.within(self.files.len()) {
            if what(&mut self.files[at]) {
                self.book.touch(at, false);
            }
        }
        self.bits = None;
    }

    /// Does something to each of those files until it would block, and then says `drained`, as
    /// portable programs do.
    fn until(
        &mut self,
        those: Those,
        dir: Interest,
        mut what: impl FnMut(&mut Member) -> bool,
    ) -> Verdict {
        let mut blocked = Vec::new();
        self.on(those, |file| {
            blocked.push(what(file));
            true
        });
        let bits = self.look().to_vec();
        let dirs = |at: usize, play: &Self| play.book.interest(at) & dir;
        let mut blocked = blocked.into_iter();
        self.each(those, |play, at| match blocked.next() {
            Some(true) => play.book.drained(at, dirs(at, play), bits[at]),
            _ => Ok(()),
        })
    }

    /// The other sides must see the end at once, before the number is another file's.
    fn reopen(&mut self, those: Those) -> Verdict {
        let mut peers = Vec::new();
        self.each(those, |play, at| {
            play.book.deregister(at)?;
            expect(play.files[at].is_sole(), "R5", || format!("a handle of {at} is kept"))?;
            peers.extend(play.files[at].reopen());
            Ok(())
        })?;
        self.bits = None;
        let fds: Vec<_> = peers.iter().map(AsFd::as_fd).collect();
        let ended = |bits: &Bits| bits.intersects(Bits::EPOLLHUP | Bits::EPOLLERR);
        let all = look(&fds).iter().all(ended);
        expect(all, "R5", || "a peer does not see the last close".to_owned())
    }

    fn observe(&mut self) {
        self.look();
        self.book.observe(self.bits.as_deref().expect("just looked"));
    }

    fn look(&mut self) -> &[Bits] {
        let files = &self.files;
        self.bits.get_or_insert_with(|| {
            let fds: Vec<_> = files.iter().map(Member::fd).collect();
            let bits = look(&fds);
            for (file, &bits) in files.iter().zip(&bits) {
                let (unknown, set) = file.reckoned();
                assert_eq!(bits - unknown, set - unknown, "poll(2) and reckoning differ: {file:?}");
            }
            bits
        })
    }
}

impl Those {
    /// Which of so many.
    fn within(self, size: usize) -> impl Iterator<Item = usize> + use<> {
        let Those(first, stride, count) = self;
        (first..size).step_by(stride.max(1)).take(count)
    }
}

impl From<Dirs> for Interest {
    fn from(dirs: Dirs) -> Self {
        match dirs {
            Dirs::R => Interest::READABLE,
            Dirs::W => Interest::WRITABLE,
            Dirs::RW => Interest::READABLE | Interest::WRITABLE,
            Dirs::P => Interest::PRIORITY,
            Dirs::RP => Interest::READABLE | Interest::PRIORITY,
            Dirs::WP => Interest::WRITABLE | Interest::PRIORITY,
            Dirs::Nothing => Interest::empty(),
        }
    }
}

impl Script {
    /// Rust that plays it again, for `tests/crowds.rs`.
    pub fn as_test(&self) -> String {
        let script = format!("{self:?}").replace('\n', "\n    ");
        let names = "use crowd::{Dirs::*, Kind::*, Step::*, *};";
        format!("#[test]\nfn crowd_nn() {{\n    {names}\n    replay_crowd(&{script});\n}}\n")
    }
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Script { size, kinds, steps } = self;
        writeln!(f, "Script {{\n    size: {size},\n    kinds: vec!{kinds:?},\n    steps: vec![")?;
        for step in steps {
            writeln!(f, "        {step:?},")?;
        }
        write!(f, "    ],\n}}")
    }
}
