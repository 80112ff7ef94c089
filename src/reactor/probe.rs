//! Turning hints into facts: the only caller of a poll(2) that does not wait.

use super::registry::Registry;
use crate::event::PollBits;
use crate::key::Slot;
use crate::sys;
use std::io;

/// The batch; kept for its memory.
#[derive(Default)]
pub(super) struct Probe {
    fds: Vec<sys::poll::pollfd>,
    slots: Vec<Slot>,
}

impl Probe {
    /// Looks at those among the first `count` sources of the queue for which the kernel has not
    /// vouched in this round, with one system call, and notes what is true of them.
    ///
    /// # Errors
    ///
    /// What poll(2) says: `ENOMEM`, and `InvalidInput` where `RLIMIT_NOFILE` was lowered below the
    /// number of sources to look at. The queue is as before.
    pub(super) fn settle(&mut self, registry: &mut Registry, count: usize) -> io::Result<()> {
        self.fds.clear();
        self.slots.clear();
        for (slot, registration) in registry.queue_front(count) {
            let dirs = registration.look();
            if registration.fact_in(registry.round()).is_none() && !dirs.is_empty() {
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
        while let Err(error) = sys::poll::look(&mut self.fds) {
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
        for (fd, &slot) in self.fds.iter().zip(&self.slots) {
            registry.queue_fact(slot, PollBits::from_bits_retain(fd.revents as u16));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
