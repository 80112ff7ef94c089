//! Turns hints into facts: the only caller of a poll(2) that does not wait, but for operations.

use super::registry::{Registration, Registry};
use crate::event::Interest;
use crate::key::Slot;
use crate::poll_bits::PollBits;
use crate::sys;
use std::fmt;
use std::io;

/// The batch; kept for its memory.
#[derive(Default)]
pub(super) struct Verifier {
    fds: Vec<sys::poll::pollfd>,
    slots: Vec<Slot>,
}

impl Verifier {
    /// Looks at those among the first `count` sources of the queue for which the kernel has not
    /// vouched in this round, with one system call, and notes what is true of them.
    ///
    /// # Errors
    ///
    /// What poll(2) says: `ENOMEM`, and `InvalidInput` where `RLIMIT_NOFILE` was lowered to 0. The
    /// queue is as before.
    pub(super) fn verify_front(&mut self, registry: &mut Registry, count: usize) -> io::Result<()> {
        let front = registry.queue_front(count);
        self.list(front.filter(|(_, its)| its.is_open(registry.round())), Registration::look);
        if self.fds.is_empty() {
            return Ok(());
        }
        look(&mut self.fds)?;
        for (slot, bits) in self.found() {
            registry.queue_fact(slot, bits);
        }
        Ok(())
    }

    /// Looks at those of the sources that were told of an end (E5).
    ///
    /// # Errors
    ///
    /// What poll(2) says; nothing has changed.
    pub(super) fn look_at_ended(&mut self, registry: &mut Registry, of: &[Slot]) -> io::Result<()> {
        let known = of.iter().filter_map(|&slot| registry.get(slot).map(|its| (slot, its)));
        self.list(known, |its| its.latch.ended());
        if self.fds.is_empty() {
            return Ok(());
        }
        look(&mut self.fds)?;
        for (slot, bits) in self.found() {
            registry.on_look_at_ended(slot, bits);
        }
        Ok(())
    }

    /// Lists what to look at: the directions that `dirs` gives, if any.
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

    /// What the look has found.
    fn found(&self) -> impl Iterator<Item = (Slot, PollBits)> {
        let bits = self.fds.iter().map(|fd| PollBits::from_bits_retain(fd.revents as u16));
        self.slots.iter().copied().zip(bits)
    }
}

/// Looks at all of them: at once, or where `RLIMIT_NOFILE` does not allow that many, in parts.
fn look(fds: &mut [sys::poll::pollfd]) -> io::Result<()> {
    loop {
        match sys::poll::poll_now(fds) {
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::InvalidInput && fds.len() > 1 => {
                let (left, right) = fds.split_at_mut(fds.len() / 2);
                look(left)?;
                return look(right);
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
