//! Turns hints into facts by a poll(2) that does not wait.

use super::registry::{Registration, Registry};
use crate::event::Interest;
use crate::key::Slot;
use crate::poll_bits::PollBits;
use crate::sys;
use std::fmt;
use std::io;

/// The arguments of poll(2), kept for their memory.
#[derive(Default)]
pub(super) struct Verifier {
    fds: Vec<sys::poll::pollfd>,
    slots: Vec<Slot>,
}

impl Verifier {
    /// Polls those of the first `count` queued sources that have no fact in this round, by one
    /// system call, and notes the results.
    ///
    /// # Errors
    ///
    /// The errors of poll(2): `ENOMEM`, and `InvalidInput` if `RLIMIT_NOFILE` was lowered to 0. The
    /// queue is unchanged.
    pub(super) fn verify_front(&mut self, registry: &mut Registry, count: usize) -> io::Result<()> {
        let front = registry.queue_front(count);
        self.list(
            front.filter(|(_, its)| its.needs_poll(registry.round())),
            Registration::to_check,
        );
        if self.fds.is_empty() {
            return Ok(());
        }
        poll_all(&mut self.fds)?;
        for (slot, bits) in self.polled() {
            registry.queue_fact(slot, bits);
        }
        Ok(())
    }

    /// Polls those of these sources whose end was reported (E5).
    ///
    /// # Errors
    ///
    /// The errors of poll(2); nothing has changed.
    pub(super) fn poll_ended(&mut self, registry: &mut Registry, of: &[Slot]) -> io::Result<()> {
        let known = of.iter().filter_map(|&slot| registry.get(slot).map(|its| (slot, its)));
        self.list(known, |its| its.latch.ended());
        if self.fds.is_empty() {
            return Ok(());
        }
        poll_all(&mut self.fds)?;
        for (slot, bits) in self.polled() {
            registry.on_ended_polled(slot, bits);
        }
        Ok(())
    }

    /// Lists the sources to poll, for the directions that `dirs` returns, if any.
    fn list<'a>(
        &mut self,
        sources: impl Iterator<Item = (Slot, &'a Registration)>,
        dirs: impl Fn(&Registration) -> Interest,
    ) {
        self.fds.clear();
        self.slots.clear();
        for (slot, registration) in sources {
            let dirs = dirs(registration);
            if !dirs.is_empty() {
                let events = PollBits::asked(dirs).bits() as i16;
                let fd = registration.source.raw_fd();
                self.fds.push(sys::poll::pollfd { fd, events, revents: 0 });
                self.slots.push(slot);
            }
        }
    }

    /// Returns the results of the poll.
    fn polled(&self) -> impl Iterator<Item = (Slot, PollBits)> {
        let bits = self.fds.iter().map(|fd| PollBits::from_bits_retain(fd.revents as u16));
        self.slots.iter().copied().zip(bits)
    }
}

/// Polls all entries at once, or in parts if `RLIMIT_NOFILE` does not allow that many.
fn poll_all(fds: &mut [sys::poll::pollfd]) -> io::Result<()> {
    loop {
        match sys::poll::poll_now(fds) {
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::InvalidInput && fds.len() > 1 => {
                let (left, right) = fds.split_at_mut(fds.len() / 2);
                poll_all(left)?;
                return poll_all(right);
            }
            Err(error) => return Err(error),
        }
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
