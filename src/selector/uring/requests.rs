//! What the kernel has been asked and has not answered for good.

use crate::event::PollBits;
use crate::key::{OpSlot, Slot};
use std::os::fd::RawFd;

/// One use of one place among the requests. A late completion never names a later request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Id {
    index: u32,
    /// Below [`GENERATIONS`].
    generation: u32,
}

/// In the upper half of `user_data`: this is a request to cancel a poll. (The topmost bit is the
/// ring's.)
const CANCEL: u32 = 1 << 30;
/// The same: this is a request to stop an operation.
const STOP: u32 = 1 << 29;
const GENERATIONS: u32 = STOP;

/// What a completion is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum About {
    /// A poll.
    Poll(Id),
    /// The request to cancel it.
    Cancel(Id),
    /// The request to stop the operation in this place.
    Stop(u32),
}

impl About {
    pub(super) fn to_bits(self) -> u64 {
        let (index, generation, tag) = match self {
            About::Poll(id) => (id.index, id.generation, 0),
            About::Cancel(id) => (id.index, id.generation, CANCEL),
            About::Stop(index) => (index, 0, STOP),
        };
        u64::from(generation | tag) << 32 | u64::from(index)
    }

    pub(super) fn from_bits(bits: u64) -> Self {
        let (index, high) = (bits as u32, (bits >> 32) as u32);
        let id = Id { index, generation: high & (GENERATIONS - 1) };
        match high & (CANCEL | STOP) {
            0 => About::Poll(id),
            CANCEL => About::Cancel(id),
            _ => About::Stop(index),
        }
    }
}

/// What is to be asked of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    /// To poll.
    Poll(Id),
    /// To cancel a poll.
    Cancel(Id),
    /// To do an operation.
    Begin(OpSlot),
    /// To stop it.
    Stop(OpSlot),
}

/// Whose poll it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    Slot(Slot),
    WakeHandle,
}

/// One poll.
#[derive(Clone, Copy, Debug)]
pub(super) struct Poll {
    pub(super) owner: Owner,
    /// The number of the file, which is open until the poll has ended.
    pub(super) number: RawFd,
    /// What it asks for.
    pub(super) bits: PollBits,
    /// It was to be cancelled: what it tells is of no interest, but for its end.
    pub(super) is_cancelled: bool,
    /// The turn in which it was submitted, if it was.
    pub(super) submitted_in: Option<u64>,
    /// The wait in which it has told something.
    pub(super) told_in: u64,
}

#[derive(Debug, Default)]
struct Place {
    generation: u32,
    poll: Option<Poll>,
}

/// All polls of one ring, those too that were cancelled and have not ended yet.
#[derive(Debug, Default)]
pub(super) struct Requests {
    places: Vec<Place>,
    vacant: Vec<u32>,
}

impl Requests {
    pub(super) fn insert(&mut self, poll: Poll) -> Id {
        let index = self.vacant.pop().unwrap_or_else(|| {
            self.places.push(Place::default());
            // A poll takes more memory than a number of 32 bits can count.
            self.places.len() as u32 - 1
        });
        let place = &mut self.places[index as usize];
        place.poll = Some(poll);
        Id { index, generation: place.generation }
    }

    pub(super) fn get_mut(&mut self, id: Id) -> Option<&mut Poll> {
        let place = self.places.get_mut(id.index as usize)?;
        place.poll.as_mut().filter(|_| place.generation == id.generation)
    }

    /// The poll has ended. Gives it, if it was known.
    pub(super) fn remove(&mut self, id: Id) -> Option<Poll> {
        self.get_mut(id)?;
        let place = &mut self.places[id.index as usize];
        place.generation = (place.generation + 1) % GENERATIONS;
        self.vacant.push(id.index);
        place.poll.take()
    }

    /// Those that nobody has cancelled.
    pub(super) fn wanted(&self) -> Vec<Id> {
        let wanted = |(index, place): (usize, &Place)| {
            place.poll.filter(|poll| !poll.is_cancelled)?;
            Some(Id { index: index as u32, generation: place.generation })
        };
        self.places.iter().enumerate().filter_map(wanted).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.places.len() - self.vacant.len()
    }
}
