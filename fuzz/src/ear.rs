//! What SIGIO hears of a registration, and what it may miss (the table of permitted differences).
//!
//! That a file is readable it knows by signals, which are edges of their own, or by the side set,
//! where files are looked at as poll(2) does. That there is room to write it always knows by the
//! side set. So only what makes a file readable can be missed, and only what sends no signal: the
//! program's own shutdown, and whatever comes after an `F_SETFL` without `O_ASYNC`.

use super::script::Kind;
use quintpoll::Interest;

/// The directions that files signal.
const SIGNALLED: Interest = Interest::READABLE.union(Interest::PRIORITY);

/// What a registration's file is, beside its number.
#[derive(Clone, Copy, Debug)]
pub struct Described {
    /// Its kind.
    pub kind: Kind,
    /// Which open file description it is.
    pub description: usize,
    /// The program has given the description's signals to somebody.
    pub is_taken: bool,
}

/// Whether what has happened to a file has sent a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// It was the program's own doing.
    Never,
    /// Not necessarily, but if it made the file ready.
    IfReady,
    /// In any case.
    Surely,
}

/// What SIGIO knows of one registration.
#[derive(Clone, Copy, Debug)]
pub struct Ear {
    /// Which description it is.
    description: usize,
    /// It signals nothing, or to somebody else: a description has one owner.
    is_mute: bool,
    /// It waits for nothing but room to write, until it is modified.
    is_writer: bool,
    /// It owns the signals, until it is deregistered.
    is_claimed: bool,
    /// They were given to somebody else meanwhile, which is found out when it is armed again.
    is_taken: bool,
    /// `O_ASYNC` was taken away.
    is_silenced: bool,
    /// What became ready without a signal, and was not looked at since.
    unheard: Interest,
}

impl Ear {
    /// A new registration of such a file.
    pub fn new(described: Described) -> Self {
        Ear {
            description: described.description,
            is_mute: described.is_taken || matches!(described.kind, Kind::Counter | Kind::Null),
            is_writer: false,
            is_claimed: false,
            is_taken: false,
            is_silenced: false,
            unheard: Interest::empty(),
        }
    }

    /// Whether it owns the signals of what is this registration's description too.
    pub fn has_signals_of(&self, other: &Ear) -> bool {
        self.is_claimed && self.description == other.description
    }

    /// It is registered or modified, for something; `is_late` if another registration owns the
    /// signals.
    pub fn arm(&mut self, interest: Interest, is_late: bool) {
        self.is_writer = interest == Interest::WRITABLE;
        if !self.is_writer {
            self.is_mute |= is_late && !self.is_claimed;
            self.is_claimed |= !self.is_mute;
        }
        self.listen(Interest::all());
    }

    /// The poller is to look at `dirs`, and sees to it that it is signalled again.
    pub fn listen(&mut self, dirs: Interest) {
        self.is_mute |= self.is_taken;
        self.is_silenced = false;
        self.unheard -= if self.is_mute { Interest::all() } else { dirs };
    }

    /// The directions that have edges of their own.
    pub fn edges(&self) -> Interest {
        if self.is_mute || self.is_writer { Interest::empty() } else { SIGNALLED }
    }

    /// `dirs` were reported; what is `repeated` in the next wait is so with everything else.
    pub fn reported(&mut self, dirs: Interest, repeated: bool) {
        self.unheard -= if repeated { Interest::all() } else { dirs };
    }

    /// The poller looks at everything.
    pub fn look(&mut self) {
        self.unheard = Interest::empty();
    }

    /// The flags of the file were set.
    pub fn silence(&mut self) {
        self.is_silenced = true;
    }

    /// The signals of the file were given to somebody else.
    pub fn take(&mut self) {
        self.is_silenced = true;
        self.is_taken |= self.is_claimed;
        self.is_mute |= !self.is_claimed;
    }

    /// Something has happened that has made `news` ready.
    pub fn hear(&mut self, heard: Heard, news: Interest) {
        if self.edges().is_empty() {
            return;
        }
        if self.is_silenced || heard == Heard::Never {
            self.unheard |= news & SIGNALLED;
        } else if heard == Heard::Surely {
            self.look();
        }
    }

    /// What is not due although it is ready, unless there is room to write as well: who is told of
    /// that looks at everything.
    pub fn unheard(&self) -> Interest {
        self.unheard
    }
}
