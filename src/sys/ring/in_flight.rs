//! The operations in flight in a ring; it owns their memory until they complete.

use super::super::io_call::{Call, Work};

/// The bit that marks the `user_data` of operations, whose CQEs return memory.
pub(super) const OPERATION: u64 = 1 << 63;

/// An operation in flight.
#[derive(Debug)]
pub(super) struct InFlightOp {
    /// The upper half of the tag.
    generation: u32,
    /// The buffer group, for buffers that come from a pool.
    pub(super) group: u16,
    /// Each result is a connection. (Reading this from the call would touch another cache line.)
    pub(super) accepts: bool,
    /// A cancel was requested.
    pub(super) is_cancelled: bool,
    /// Counts the results in a row after which more data was available.
    pub(super) partial_results: u8,
    work: Work,
}

impl InFlightOp {
    /// Returns true if the operation, found by its index, has this `user_data`.
    fn has_user_data(&self, user_data: u64) -> bool {
        let upper_half = user_data_of(u64::from(self.generation) << 32) >> 32;
        upper_half == user_data >> 32
    }

    /// Returns the tag.
    pub(super) fn tag(&self, user_data: u64) -> u64 {
        tag_of(user_data as u32 as usize, self)
    }
}

/// The operations that a ring has in flight, by index: the lower half of a tag. The upper half is a
/// generation. Each index has at most one operation.
#[derive(Debug, Default)]
pub(super) struct InFlight {
    operations: Vec<Option<InFlightOp>>,
    len: usize,
}

/// Returns the `user_data` of a tag, whose topmost bit is lost.
pub(super) fn user_data_of(tag: u64) -> u64 {
    tag | OPERATION
}

fn tag_of(index: usize, operation: &InFlightOp) -> u64 {
    u64::from(operation.generation) << 32 | index as u64
}

impl InFlight {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn tags(&self) -> impl Iterator<Item = u64> {
        let all = self.operations.iter().enumerate();
        all.filter_map(|(index, operation)| Some(tag_of(index, operation.as_ref()?)))
    }

    /// Adds an operation. The memory that its SQE points to stays in place.
    ///
    /// # Errors
    ///
    /// The work, if the index has an operation.
    pub(super) fn insert(
        &mut self,
        mut work: Work,
        tag: u64,
        group: u16,
    ) -> Result<&mut Work, Work> {
        let index = tag as u32 as usize;
        if self.operations.len() <= index {
            self.operations.resize_with(index + 1, || None);
        }
        let entry = &mut self.operations[index];
        if entry.is_some() {
            return Err(work);
        }
        work.begin_flight();
        self.len += 1;
        let operation = entry.insert(InFlightOp {
            generation: (tag >> 32) as u32,
            group,
            accepts: work.call() == Call::AcceptMulti,
            is_cancelled: false,
            partial_results: 0,
            work,
        });
        Ok(&mut operation.work)
    }

    pub(super) fn get(&self, tag: u64) -> Option<&InFlightOp> {
        let entry = self.operations.get(tag as u32 as usize)?;
        entry.as_ref().filter(|op| op.generation == (tag >> 32) as u32)
    }

    pub(super) fn get_mut(&mut self, tag: u64) -> Option<&mut InFlightOp> {
        let entry = self.operations.get_mut(tag as u32 as usize)?;
        entry.as_mut().filter(|op| op.generation == (tag >> 32) as u32)
    }

    /// Returns the operation of a `user_data`.
    pub(super) fn find_mut(&mut self, user_data: u64) -> Option<&mut InFlightOp> {
        let entry = self.operations.get_mut(user_data as u32 as usize)?;
        entry.as_mut().filter(|op| op.has_user_data(user_data))
    }

    /// Returns the operation of an index, and its tag.
    pub(super) fn get_index(&self, index: u32) -> Option<(u64, &InFlightOp)> {
        let operation = self.operations.get(index as usize)?.as_ref()?;
        Some((tag_of(index as usize, operation), operation))
    }

    /// Removes the operation of a `user_data`, and returns its tag.
    ///
    /// # Safety
    ///
    /// The kernel must be done with it: this is its last CQE, or it was not submitted.
    #[allow(unsafe_code)]
    pub(super) unsafe fn remove(&mut self, user_data: u64) -> Option<(u64, Work)> {
        let index = user_data as u32 as usize;
        let entry = self.operations.get_mut(index)?;
        let operation = entry.take_if(|op| op.has_user_data(user_data))?;
        self.len -= 1;
        let tag = tag_of(index, &operation);
        let mut work = operation.work;
        // SAFETY: as the caller promises.
        unsafe { work.end_flight() };
        Some((tag, work))
    }

    /// Frees the memory of all operations.
    ///
    /// # Safety
    ///
    /// No kernel may touch this process's memory for them.
    #[allow(unsafe_code)]
    pub(super) unsafe fn free(&mut self) {
        for mut operation in self.operations.drain(..).flatten() {
            // SAFETY: as the caller promises.
            unsafe { operation.work.end_flight() };
        }
        self.len = 0;
    }

    /// Leaks the memory of all operations, and returns their count.
    pub(super) fn leak(&mut self) -> usize {
        self.operations.clear();
        std::mem::take(&mut self.len)
    }
}

#[cfg(test)]
mod tests;
