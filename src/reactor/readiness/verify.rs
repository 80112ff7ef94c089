//! Turns hints into facts: the only caller of a poll(2) that does not wait, but for operations.

use super::registry::Registry;
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
        self.fds.clear();
        self.slots.clear();
        for (slot, registration) in registry.queue_front(count) {
            let dirs = registration.look();
            if registration.is_open(registry.round()) && !dirs.is_empty() {
                let events = PollBits::asked(dirs).bits() as i16;
                self.fds.push(sys::poll::pollfd {
                    fd: registration.source.number(),
                    events,
                    revents: 0,
                });
                self.slots.push(slot);
            }
        }
        if self.fds.is_empty() {
            return Ok(());
        }
        look(&mut self.fds)?;
        for (fd, &slot) in self.fds.iter().zip(&self.slots) {
            registry.queue_fact(slot, PollBits::from_bits_retain(fd.revents as u16));
        }
        Ok(())
    }
}

/// Looks at all of them: at once, or where `RLIMIT_NOFILE` does not allow that many, in parts.
fn look(fds: &mut [sys::poll::pollfd]) -> io::Result<()> {
    loop {
        match sys::poll::look(fds) {
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
