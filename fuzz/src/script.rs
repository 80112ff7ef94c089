//! What is played: a [`Script`] of steps over a few files.
//!
//! Files are named by their place, never by number, so that a script means the same in every run.
//! Variants stand in the order in which they are simple. The debug form of a script is Rust, with
//! the names of this module in scope.

use arbitrary::{Arbitrary, Result, Unstructured};
use quintpoll::{Interest, Mode};
use std::fmt;
use std::time::Duration;

/// How many files a script has.
pub const PLACES: usize = 5;
/// The most steps a script has, which bounds the time that one takes.
pub const MOST_STEPS: usize = 64;

/// How many bytes trickle at a time: more than a mechanism takes reports at a time.
pub const TRICKLE: usize = 200;

/// How long nothing comes between two signals that interrupt a wait.
pub const PAUSE: Duration = Duration::from_micros(20);

/// Five files, and what is done with them.
#[derive(Clone, PartialEq, Eq)]
pub struct Script {
    /// The kinds of the files `A` to `E`.
    pub kinds: [Kind; PLACES],
    /// One after the other.
    pub steps: Vec<Step>,
}

/// A kind of file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Arbitrary)]
pub enum Kind {
    /// The read end of a pipe.
    PipeRead,
    /// The write end of a pipe.
    PipeWrite,
    /// A unix stream socket.
    Stream,
    /// A unix seqpacket socket.
    Packet,
    /// A unix datagram socket with an address to send to. It sees nothing of the other side's end:
    /// no hang-up, no end of file. Only a write finds out.
    Datagram,
    /// An eventfd; its other end is itself.
    Counter,
    /// `/dev/null`, which is always ready, and which epoll refuses to watch.
    Null,
}

/// A place: the first file to the fifth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Arbitrary)]
#[allow(missing_docs)]
pub enum At {
    A,
    B,
    C,
    D,
    E,
}

/// A set of directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Arbitrary)]
#[allow(missing_docs)]
pub enum Dirs {
    R,
    W,
    RW,
    Nothing,
    P,
    RP,
    WP,
    RWP,
}

/// A mode. The library's own has no [`Arbitrary`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Arbitrary)]
#[allow(missing_docs)]
pub enum How {
    Level,
    OneShot,
    Edge,
}

/// A capacity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Arbitrary)]
#[allow(missing_docs)]
pub enum Room {
    Eight,
    Two,
    One,
}

/// An end of a pipe: the place's own, or the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Arbitrary)]
#[allow(missing_docs)]
pub enum End {
    Here,
    There,
}

/// One thing that is done. What is impossible at its moment (to write to a file that has no such
/// side, say) does nothing, so every sequence of steps is a script, and so is every part of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Arbitrary)]
pub enum Step {
    /// Wait, with a timeout of zero.
    Wait0,
    /// Wait for a while ([`timeout`]), or for as long as it takes if something is due.
    WaitShort(u8),
    /// The same, longer, while signals come that interrupt it.
    WaitInterrupted(u8),
    /// From now on waits have room for so many events.
    SetCapacity(Room),
    /// Wake the poller.
    Wake,
    /// Register; refused if it is registered.
    Register(At, Dirs, How),
    /// Modify. This and the next three go by a stale key if the place is not registered.
    Modify(At, Dirs, How),
    /// Rearm these directions, which may not be of the interest.
    Rearm(At, Dirs),
    /// Say that these directions were drained, which may be untrue.
    Drained(At, Dirs),
    /// Deregister.
    Deregister(At),
    /// The other side writes; [`length`] tells how much.
    PeerWrite(At, u8),
    /// The other side writes byte by byte, as often as it can, within [`TRICKLE`].
    PeerTrickle(At),
    /// The other side reads once.
    PeerRead(At, u8),
    /// The other side reads until it would block.
    PeerDrain(At),
    /// The other side will send no more.
    PeerShutdownWr(At),
    /// The other side is closed.
    PeerClose(At),
    /// This side reads once.
    Read(At, u8),
    /// This side reads until it would block, and then says `drained`, as a portable program does.
    DrainRead(At),
    /// This side writes once.
    Write(At, u8),
    /// This side writes until it would block, and then says `drained`.
    FillWrite(At),
    /// This side will send no more.
    ShutdownWr(At),
    /// This side will receive no more.
    ShutdownRd(At),
    /// The program sets the flags of the file, and does not mention `O_ASYNC`.
    SetFlags(At),
    /// With SIGIO, somebody sends the signal by which the kernel tells that reports got lost.
    Overflow,
    /// Deregister, close, and open a new file of the same kind under the same number.
    Reopen(At),
    /// The second place is given up, and becomes a duplicate of the first.
    Dup(At, At),
    /// The pipe is made larger, at one of its ends; once.
    Enlarge(At, End),
    /// The program gives the file's signals to its process, and has it send none.
    TakeSignals(At),
}

/// How many bytes the number in a step stands for. Two of the largest don't fit into a page.
pub fn length(number: u8) -> usize {
    1 + 16 * usize::from(number)
}

/// How long the number in a [`Step::WaitShort`] stands for: no time, yet enough for a poller that
/// spins to show it.
pub fn timeout(number: u8) -> Duration {
    Duration::from_micros(1 + u64::from(number))
}

/// How long the number in a [`Step::WaitInterrupted`] stands for: several signals.
pub fn interrupted_timeout(number: u8) -> Duration {
    5 * PAUSE + timeout(number)
}

impl Kind {
    /// All of them, the simple ones first.
    pub const ALL: [Kind; 7] = {
        use Kind::*;
        [PipeRead, PipeWrite, Stream, Packet, Datagram, Counter, Null]
    };
}

impl Step {
    /// Whether it is a wait.
    pub fn is_wait(self) -> bool {
        matches!(self, Step::Wait0 | Step::WaitShort(_) | Step::WaitInterrupted(_))
    }
}

impl Dirs {
    /// All of them.
    pub const ALL: [Dirs; 8] = {
        use Dirs::*;
        [R, W, RW, Nothing, P, RP, WP, RWP]
    };
}

impl How {
    /// All of them.
    pub const ALL: [How; 3] = [How::Level, How::OneShot, How::Edge];
}

impl Room {
    /// All of them.
    pub const ALL: [Room; 3] = [Room::Eight, Room::Two, Room::One];
}

impl End {
    /// All of them.
    pub const ALL: [End; 2] = [End::Here, End::There];
}

impl At {
    /// All of them.
    pub const ALL: [At; PLACES] = [At::A, At::B, At::C, At::D, At::E];

    /// The index of the place.
    pub fn index(self) -> usize {
        self as usize
    }
}

impl From<Dirs> for Interest {
    fn from(dirs: Dirs) -> Self {
        const R: Interest = Interest::READABLE;
        const W: Interest = Interest::WRITABLE;
        const P: Interest = Interest::PRIORITY;
        match dirs {
            Dirs::R => R,
            Dirs::W => W,
            Dirs::RW => R | W,
            Dirs::Nothing => Interest::empty(),
            Dirs::P => P,
            Dirs::RP => R | P,
            Dirs::WP => W | P,
            Dirs::RWP => R | W | P,
        }
    }
}

impl From<How> for Mode {
    fn from(how: How) -> Self {
        match how {
            How::Level => Mode::Level,
            How::OneShot => Mode::OneShot,
            How::Edge => Mode::Edge,
        }
    }
}

impl From<Room> for usize {
    fn from(room: Room) -> Self {
        match room {
            Room::Eight => 8,
            Room::Two => 2,
            Room::One => 1,
        }
    }
}

impl<'a> Arbitrary<'a> for Script {
    /// By hand, because a derived `Vec` tosses a coin after each element, and few scripts would get
    /// beyond two steps. This one goes on to the end of the data.
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        let kinds = u.arbitrary()?;
        let mut steps = Vec::new();
        while !u.is_empty() && steps.len() < MOST_STEPS {
            steps.push(u.arbitrary()?);
        }
        Ok(Script { kinds, steps })
    }
}

impl Script {
    /// Leaves out every step without which it fails as well.
    pub fn shortened(mut self, fails: impl Fn(&Script) -> bool) -> Script {
        loop {
            let before = self.steps.len();
            for nth in (0..before).rev() {
                let mut shorter = self.clone();
                shorter.steps.remove(nth);
                if fails(&shorter) {
                    self = shorter;
                }
            }
            if self.steps.len() == before {
                return self;
            }
        }
    }

    /// Rust that plays it again, for the test that found it.
    pub fn as_test(&self) -> String {
        let script = format!("{self:?}").replace('\n', "\n    ");
        format!("#[test]\nfn issue_nn() {{\n    replay(&{script});\n}}\n")
    }
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Script { kinds, steps } = self;
        writeln!(f, "Script {{\n    kinds: {kinds:?},\n    steps: vec![")?;
        for step in steps {
            writeln!(f, "        {step:?},")?;
        }
        write!(f, "    ],\n}}")
    }
}
