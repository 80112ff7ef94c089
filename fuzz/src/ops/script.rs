//! What is played: a [`Script`] of steps over a few pairs of files.
//!
//! Variants stand in the order in which they are simple. The debug form of a script is Rust, with
//! the names of this module in scope.

use arbitrary::{Arbitrary, Result, Unstructured};
use std::fmt;
use std::time::Duration;

pub use super::super::script::{Dirs, MOST_STEPS, Room};

/// How many pairs a script has.
pub const PLACES: usize = 3;
/// Behind the pairs stands the listening socket.
pub const DOOR: usize = PLACES;
/// And then the regular file.
pub const DISK: usize = PLACES + 1;
/// How many sources there are in all.
pub const SOURCES: usize = PLACES + 2;

/// Three pairs of files, and what is done with them.
#[derive(Clone, PartialEq, Eq)]
pub struct Script {
    /// The kinds of the pairs `A` to `C`.
    pub kinds: [Kind; PLACES],
    /// What the pool is like, and the sources beside the pairs: see [`Script::pool`] and those
    /// behind it.
    pub extras: u8,
    /// Which of the forced columns plays beside the backends.
    pub guest: u8,
    /// One after the other.
    pub steps: Vec<Step>,
}

/// A kind of pair. The *near* end is the poller's, the *far* one is used by plain calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Arbitrary)]
pub enum Kind {
    /// Unix stream sockets.
    Stream,
    /// A pipe, of which the near end reads.
    PipeRead,
    /// A pipe, of which the near end writes.
    PipeWrite,
    /// A TCP connection over the loopback.
    Tcp,
    /// Unix seqpacket sockets.
    Packet,
    /// Unix datagram sockets, connected. They see nothing of each other's end.
    Datagram,
    /// UDP sockets, connected.
    Udp,
    /// Unix datagram sockets with names, connected.
    Named,
}

/// A place: the first pair to the third. The near end of the second is non-blocking.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Arbitrary)]
#[allow(missing_docs)]
pub enum At {
    A,
    B,
    C,
}

/// An operation of a source. (What moves an exact number of bytes is for streams; elsewhere the
/// plain one is meant.)
#[derive(Clone, Copy, Debug, PartialEq, Eq, Arbitrary)]
#[allow(missing_docs)]
pub enum Verb {
    Recv,
    Send,
    RecvExact,
    SendAll,
    Read,
    Write,
    ShutdownWrite,
    ShutdownRead,
    ShutdownBoth,
    RecvMulti,
    RecvFrom,
    SendTo,
    RecvMsg,
    SendMsg,
}

/// How much time an operation has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Arbitrary)]
pub enum Limit {
    /// As much as it takes.
    Unlimited,
    /// More than a script takes.
    Long,
    /// Some, which passes while the script is played.
    Soon,
    /// None: its deadline has passed when it is submitted.
    Past,
}

/// One thing that is done. What is impossible at its moment does nothing, so every sequence of
/// steps is a script, and so is every part of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Arbitrary)]
pub enum Step {
    /// Wait, with a timeout of zero.
    Wait0,
    /// Wait until nothing more can come.
    Quiet,
    /// From now on waits have room for so much.
    SetRoom(Room),
    /// Submit an operation that moves at most [`amount`] bytes.
    Submit(At, Verb, u8, Limit),
    /// Submit one that is done at once.
    Nop,
    /// Submit one that takes time.
    Timeout(Limit),
    /// Cancel the operation that was submitted so many before the last one, in whatever state it
    /// is, and whosever it was.
    Cancel(u8),
    /// Watch these directions, by level, beside the operations.
    Watch(At, Dirs),
    /// Deregister.
    Deregister(At),
    /// Register; refused if it is registered.
    Register(At),
    /// The far end writes once.
    PeerWrite(At, u8),
    /// The far end reads once.
    PeerRead(At, u8),
    /// The far end reads until it would block.
    PeerDrain(At),
    /// The far end will send no more.
    PeerShutdown(At),
    /// The far end is closed.
    PeerClose(At),
    /// Deregister, close, and open a new pair of the same kind.
    Reopen(At),
    /// Drop the poller with all that is under way, make another, and register everything.
    NewPoller,
    /// Submit one that moves at most [`amount`] bytes from the first place to the second.
    Splice(At, At, u8, Limit),
    /// The far end sends [`amount`] bytes once, with [`files`].
    PeerPass(At, u8),
    /// From now on buffers of the pool that come are kept, or not.
    Keep(bool),
    /// Drop so many of the buffers that were kept, the oldest first, and one more.
    GiveBack(u8),
    /// Take a buffer of the pool by hand.
    Take,
    /// Something at the listening socket.
    Door(Knock),
    /// Something at the regular file.
    Disk(Job),
}

/// What is done at the listening socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Arbitrary)]
pub enum Knock {
    /// Submit an accept.
    Accept(Limit),
    /// Submit one that goes on.
    AcceptMulti(Limit),
    /// A client connects, by plain calls.
    Come,
    /// A client is made, and connects by an operation.
    Connect(Limit),
    /// One of the clients closes his side.
    Leave(u8),
    /// One of the clients breaks off, where there is such a thing.
    Reset(u8),
    /// The listening socket is deregistered.
    Deregister,
    /// It is registered; refused if it is.
    Register,
}

/// What is submitted for the regular file. The first number stands for an [`offset`], the last for
/// an [`amount`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Arbitrary)]
#[allow(missing_docs)]
pub enum Job {
    ReadAt(u8, u8, Limit),
    WriteAt(u8, u8, Limit),
    ReadVectored(u8, u8),
    WriteVectored(u8, u8),
    Read(u8, Limit),
    Write(u8, Limit),
    Sync,
    SyncData,
    /// To open something: the file itself, what is not there, or what can't be opened so.
    Open(u8),
}

/// How many files go with a message for which this number stands.
pub fn files(number: u8) -> usize {
    usize::from(number / 16 % 4)
}

/// Whether the success of an operation for which this number stands is not to be told, where it
/// sends, writes or shuts down writing.
pub fn is_silent(number: u8) -> bool {
    number & 64 != 0
}

/// The offset for which a number stands.
pub fn offset(number: u8) -> usize {
    usize::from(number) * 331
}

/// How many bytes the number in a step stands for: from none, through what fits into a message, to
/// more than fits into a pipe or socket.
pub fn amount(number: u8) -> usize {
    const AMOUNTS: [usize; 16] =
        [5, 1, 2, 3, 8, 13, 64, 100, 500, 1000, 4096, 5000, 3, 0, 20_000, 100_000];
    AMOUNTS[usize::from(number) % AMOUNTS.len()]
}

impl Kind {
    /// All of them, the simple ones first.
    pub const ALL: [Kind; 8] = {
        use Kind::*;
        [Stream, PipeRead, PipeWrite, Tcp, Packet, Datagram, Udp, Named]
    };

    /// Whether it keeps the bounds of messages.
    pub fn has_messages(self) -> bool {
        self == Kind::Packet || self.is_connectionless()
    }

    /// Whether its messages may be empty, and know no end.
    pub fn is_connectionless(self) -> bool {
        matches!(self, Kind::Datagram | Kind::Udp | Kind::Named)
    }

    /// Whether the two ends have addresses that tell.
    pub fn has_names(self) -> bool {
        matches!(self, Kind::Udp | Kind::Named)
    }

    /// Whether files can be passed.
    pub fn passes_files(self) -> bool {
        matches!(self, Kind::Stream | Kind::Packet | Kind::Datagram | Kind::Named)
    }

    /// Whether it is one that only a network can lose or delay something of.
    pub fn is_network(self) -> bool {
        matches!(self, Kind::Tcp | Kind::Udp)
    }

    /// Whether it has two directions, and takes the calls for sockets.
    pub fn is_socket(self) -> bool {
        !matches!(self, Kind::PipeRead | Kind::PipeWrite)
    }
}

impl At {
    /// All of them.
    pub const ALL: [At; PLACES] = [At::A, At::B, At::C];

    /// The index of the place.
    pub fn index(self) -> usize {
        self as usize
    }
}

impl Verb {
    /// All of them.
    pub const ALL: [Verb; 14] = {
        use Verb::*;
        [
            Recv,
            Send,
            RecvExact,
            SendAll,
            Read,
            Write,
            ShutdownWrite,
            ShutdownRead,
            ShutdownBoth,
            RecvMulti,
            RecvFrom,
            SendTo,
            RecvMsg,
            SendMsg,
        ]
    };

    /// Whether it sends bytes.
    pub fn sends(self) -> bool {
        use Verb::*;
        matches!(self, Send | SendAll | Write | SendTo | SendMsg)
    }

    /// Whether it receives bytes into a buffer that was handed over.
    pub fn receives(self) -> bool {
        matches!(self, Verb::Recv | Verb::RecvExact | Verb::Read | Verb::RecvFrom | Verb::RecvMsg)
    }

    /// What is done in its stead on files of this kind.
    pub fn on(self, kind: Kind) -> Verb {
        match self {
            Verb::RecvExact if kind.has_messages() => Verb::Recv,
            Verb::SendAll if kind.has_messages() => Verb::Send,
            // The addresses of others say nothing.
            Verb::RecvFrom if kind.is_socket() && !kind.has_messages() => Verb::Recv,
            Verb::SendTo if kind.is_socket() && !kind.has_names() => Verb::Send,
            verb => verb,
        }
    }
}

impl Limit {
    /// The time.
    pub fn time(self) -> Option<Duration> {
        match self {
            Limit::Unlimited => None,
            Limit::Long => Some(Duration::from_secs(3600)),
            Limit::Soon => Some(Duration::from_millis(1)),
            Limit::Past => Some(Duration::ZERO),
        }
    }

    /// Whether the time passes while a script is played.
    pub fn passes(self) -> bool {
        matches!(self, Limit::Soon | Limit::Past)
    }
}

impl<'a> Arbitrary<'a> for Script {
    /// By hand, because a derived `Vec` tosses a coin after each element. This one goes on to the
    /// end of the data.
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        let (kinds, extras, guest) = (u.arbitrary()?, u.arbitrary()?, u.arbitrary()?);
        let mut steps = Vec::new();
        while !u.is_empty() && steps.len() < MOST_STEPS {
            steps.push(u.arbitrary()?);
        }
        Ok(Script { kinds, extras, guest, steps })
    }
}

impl Script {
    /// The size of the pool's buffers, and how many there can be.
    pub fn pool(&self) -> (usize, usize) {
        let size = [64, 300, 1000, 4096][usize::from(self.extras / 8 % 4)];
        (size, usize::from(self.extras % 8) + 1)
    }

    /// Whether the listening socket is one of TCP, and no unix socket.
    pub fn has_tcp_door(&self) -> bool {
        self.extras & 32 != 0
    }

    /// Whether the regular file is only in memory.
    pub fn has_memory_disk(&self) -> bool {
        self.extras & 64 != 0
    }

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

    /// Rust that plays it again, for the test that found it, but for the number of those that are
    /// done in the end.
    pub fn as_test(&self) -> String {
        let script = format!("{self:?}").replace('\n', "\n    ");
        let play = format!("let script = {script};\n    replay(&script, \"done\", 0);");
        format!("#[test]\nfn issue_nn() {{\n    {play}\n}}\n")
    }
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Script { kinds, extras, guest, steps } = self;
        writeln!(f, "Script {{\n    kinds: {kinds:?},\n    extras: {extras},")?;
        writeln!(f, "    guest: {guest},\n    steps: vec![")?;
        for step in steps {
            writeln!(f, "        {step:?},")?;
        }
        write!(f, "    ],\n}}")
    }
}
