//! The operations that a kernel has: their memory is nobody else's until they are over.

use super::super::prepared::{Call, Prepared};
use std::sync::atomic::{AtomicUsize, Ordering};

/// How many operations were not over when their ring was closed, in this process.
static LEAKED: AtomicUsize = AtomicUsize::new(0);

/// How many buffers were left to the kernel for good, because their operations were not over within
/// a second after their poller was dropped.
///
/// Closing a ring does not stop what it is at: a read from a disk or from a network file system
/// that does not answer goes on, and would write into memory that is somebody else's by then. So
/// such a buffer is never freed. For a program that does its I/O on sockets, pipes and terminals
/// this stays 0.
///
/// ```
/// assert_eq!(quintpoll::leaked_buffers(), 0);
/// ```
pub fn leaked_buffers() -> usize {
    LEAKED.load(Ordering::Relaxed)
}

#[derive(Debug, Default)]
struct Seat {
    generation: u32,
    passenger: Option<Passenger>,
}

#[derive(Debug)]
struct Passenger {
    tag: u64,
    /// Where its buffers come from, if they come from a pool.
    group: u16,
    prepared: Prepared,
}

/// All operations that one ring has been given and that are not over.
#[derive(Debug, Default)]
pub(super) struct Flight {
    seats: Vec<Seat>,
    vacant: Vec<u32>,
}

/// Generations are below this, so that a ticket leaves the topmost bit free.
const GENERATIONS: u32 = 1 << 31;

impl Flight {
    /// Takes an operation, with a tag that comes back with it. What its entry points to stays where
    /// it is: the bytes and the message are boxed.
    pub(super) fn board(
        &mut self,
        prepared: Prepared,
        tag: u64,
        group: u16,
    ) -> (u64, &mut Prepared) {
        let index = self.vacant.pop().unwrap_or_else(|| {
            self.seats.push(Seat::default());
            // An operation takes more memory than a number of 32 bits can count.
            self.seats.len() as u32 - 1
        });
        let seat = &mut self.seats[index as usize];
        let ticket = u64::from(seat.generation) << 32 | u64::from(index);
        let passenger = seat.passenger.insert(Passenger { tag, group, prepared });
        (ticket, &mut passenger.prepared)
    }

    /// Its tag, call and group.
    pub(super) fn look(&self, ticket: u64) -> Option<(u64, Call, u16)> {
        let (index, generation) = (ticket as u32, (ticket >> 32) as u32);
        let seat = self.seats.get(index as usize).filter(|seat| seat.generation == generation)?;
        let Passenger { tag, group, prepared } = seat.passenger.as_ref()?;
        Some((*tag, prepared.call(), *group))
    }

    /// The operation is over.
    pub(super) fn land(&mut self, ticket: u64) -> Option<(u64, Prepared)> {
        let (index, generation) = (ticket as u32, (ticket >> 32) as u32);
        let seat = self.seats.get_mut(index as usize)?;
        let passenger = seat.passenger.take_if(|_| seat.generation == generation)?;
        seat.generation = (seat.generation + 1) % GENERATIONS;
        self.vacant.push(index);
        Some((passenger.tag, passenger.prepared))
    }

    /// Leaves the memory of all to the kernel. Gives how many that are.
    pub(super) fn leak(&mut self) -> usize {
        let passengers = self.seats.iter_mut().filter_map(|seat| seat.passenger.take());
        let count = passengers.map(std::mem::forget).count();
        LEAKED.fetch_add(count, Ordering::Relaxed);
        count
    }
}

#[cfg(test)]
mod tests;
