//! What SIGIO hears of a registration, and what it may miss (the table of permitted differences).
//!
//! Files are known to it by signals or by the side set, where they are looked at as poll(2) does.
//! Only those known by signals have edges of their own, and only they miss what sends no signal.

use super::script::Kind;
use quintpoll::Interest;

/// What a file signals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Voice {
    /// Everything.
    Whole,
    /// Not that there is room to write: unix sockets.
    Reads,
    /// Nothing, or it signals for another registration: a description has one owner.
    Mute,
}

/// Whether a registration owns its description's signals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Claim {
    /// Not yet.
    No,
    /// It is one of several that share a description. Who comes first then depends on how the
    /// poller goes about it, and who comes too late remains mute.
    Perhaps,
    /// It does, until it is deregistered.
    Surely,
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
    voice: Voice,
    claim: Claim,
    /// Which description it is.
    description: usize,
    /// `O_ASYNC` was taken away.
    silenced: bool,
    /// What became ready without a signal, and was not looked at since.
    unheard: Interest,
}

impl Voice {
    /// What a file of this kind signals to its first registration.
    pub fn of(kind: Kind) -> Self {
        match kind {
            Kind::PipeRead | Kind::PipeWrite => Voice::Whole,
            Kind::Stream | Kind::Packet => Voice::Reads,
            Kind::Counter | Kind::Null => Voice::Mute,
        }
    }
}

impl Ear {
    /// A new registration of a file of this kind, beside `others`.
    pub fn new<'a>(
        kind: Kind,
        description: usize,
        others: impl Iterator<Item = &'a mut Ear>,
    ) -> Self {
        let (voice, claim) = (Voice::of(kind), Claim::No);
        let mut ear =
            Ear { voice, claim, description, silenced: false, unheard: Interest::empty() };
        for other in others.filter(|other| other.description == description) {
            match (other.voice, other.claim) {
                (Voice::Mute, _) => {}
                (_, Claim::Surely) => ear.voice = Voice::Mute,
                (_, Claim::No | Claim::Perhaps) => {
                    (ear.claim, other.claim) = (Claim::Perhaps, Claim::Perhaps);
                }
            }
        }
        ear
    }

    /// It is registered or modified, with this interest. Gives whether it has edges of its own,
    /// or may have.
    pub fn arm(&mut self, interest: Interest) -> bool {
        self.listen();
        let signals = !interest.is_empty() && self.signals(interest);
        if signals && self.claim == Claim::No {
            self.claim = Claim::Surely;
        }
        signals
    }

    /// The poller has looked, or is to look, and sees to it that it is signalled again.
    pub fn listen(&mut self) {
        (self.silenced, self.unheard) = (false, Interest::empty());
    }

    /// It was looked at, and reported.
    pub fn reported(&mut self) {
        self.unheard = Interest::empty();
    }

    /// The flags of the file were set, while `watched` was.
    pub fn silence(&mut self, watched: Interest) {
        self.silenced |= self.signals(watched);
    }

    /// Something has happened, while `watched` was, that has made `news` ready.
    pub fn hear(&mut self, watched: Interest, heard: Heard, news: Interest) {
        if !self.signals(watched) {
            return;
        }
        if self.silenced || heard == Heard::Never {
            self.unheard |= news;
        } else if heard == Heard::Surely {
            self.unheard = Interest::empty();
        }
    }

    /// What is not due although it is ready.
    pub fn unheard(&self) -> Interest {
        self.unheard
    }

    /// Whether it is known by signals that it is ready for `watched`, or may be.
    fn signals(&self, watched: Interest) -> bool {
        match self.voice {
            Voice::Whole => true,
            Voice::Reads => !watched.contains(Interest::WRITABLE),
            Voice::Mute => false,
        }
    }
}
