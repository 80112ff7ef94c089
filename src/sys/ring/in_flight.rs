//! The operations that a kernel has: their memory is nobody else's until they are over.

use super::super::prepared::{Call, CallBox};
use crate::slab::{Slab, SlabKey};

/// The name of an operation to the kernel. It leaves the topmost bit of 64 free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ticket {
    index: u32,
    generation: u32,
}

impl Ticket {
    fn to_bits(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    fn from_bits(bits: u64) -> Self {
        Ticket { index: bits as u32, generation: (bits >> 32) as u32 }
    }
}

impl SlabKey for Ticket {
    const MAX_GENERATION: u32 = (1 << 31) - 1;

    fn new(index: u32, generation: u32) -> Self {
        Ticket { index, generation }
    }

    fn index(self) -> u32 {
        self.index
    }

    fn generation(self) -> u32 {
        self.generation
    }
}

#[derive(Debug)]
struct Operation {
    tag: u64,
    /// Where its buffers come from, if they come from a pool.
    group: u16,
    call: CallBox,
}

/// All operations that one ring has been given and that are not over.
#[derive(Debug, Default)]
pub(super) struct InFlight(Slab<Ticket, Operation>);

impl InFlight {
    /// Adds an operation, with a tag that comes back with it. What its entry points to stays where
    /// it is.
    pub(super) fn insert(
        &mut self,
        mut call: CallBox,
        tag: u64,
        group: u16,
    ) -> (u64, &mut CallBox) {
        call.begin_flight();
        let (ticket, operation) = self.0.insert(Operation { tag, group, call });
        (ticket.to_bits(), &mut operation.call)
    }

    /// Returns the tag, call and group of an operation.
    pub(super) fn get(&self, ticket: u64) -> Option<(u64, Call, u16)> {
        let Operation { tag, group, call } = self.0.get(Ticket::from_bits(ticket))?;
        Some((*tag, call.call(), *group))
    }

    /// Takes an operation out, and returns its tag too.
    ///
    /// # Safety
    ///
    /// The kernel must be done with it: this is its last completion, or it was not submitted.
    #[allow(unsafe_code)]
    pub(super) unsafe fn remove(&mut self, ticket: u64) -> Option<(u64, CallBox)> {
        let Operation { tag, mut call, .. } = self.0.remove(Ticket::from_bits(ticket))?;
        // SAFETY: as the caller promises.
        unsafe { call.end_flight() };
        Some((tag, call))
    }

    /// Frees the memory of all operations.
    ///
    /// # Safety
    ///
    /// No kernel must touch the memory of this process for them.
    #[allow(unsafe_code)]
    pub(super) unsafe fn free(&mut self) {
        // SAFETY: as the caller promises.
        self.0.drain().for_each(|mut operation| unsafe { operation.call.end_flight() });
    }

    /// Leaves the memory of all operations to the kernel, and returns how many there were.
    pub(super) fn leak(&mut self) -> usize {
        self.0.drain().count()
    }
}

#[cfg(test)]
mod tests;
