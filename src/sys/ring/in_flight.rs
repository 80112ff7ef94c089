//! The operations that a kernel has: their memory is nobody else's until they are over.

use super::super::io_call::{Call, Work};

/// In the `user_data` of operations, and of nothing else: its completion gives memory back.
pub(super) const OPERATION: u64 = 1 << 63;

/// One operation.
#[derive(Debug)]
pub(super) struct Operation {
    /// The upper half of its tag.
    generation: u32,
    /// Where its buffers come from, if they come from a pool.
    pub(super) group: u16,
    /// Each of its results is a connection. (To ask the call would take a line of the cache more.)
    pub(super) accepts: bool,
    /// It was to be cancelled.
    pub(super) is_cancelled: bool,
    /// Counts the results in a row behind which there was more.
    pub(super) partial_results: u8,
    work: Work,
}

impl Operation {
    /// Returns true if this `user_data` with its index is its.
    fn is_named(&self, user_data: u64) -> bool {
        let upper_half = user_data_of(u64::from(self.generation) << 32) >> 32;
        upper_half == user_data >> 32
    }

    /// Returns its tag.
    pub(super) fn tag(&self, user_data: u64) -> u64 {
        tag_of(user_data as u32 as usize, self)
    }
}

/// All operations that one ring has been given and that are not over, by the lower half of their
/// tags. A tag is an index and a generation, and of one index there is one operation at a time.
#[derive(Debug, Default)]
pub(super) struct InFlight {
    operations: Vec<Option<Operation>>,
    len: usize,
}

/// Returns the `user_data` of an operation. It has no room for the topmost bit of the tag.
pub(super) fn user_data_of(tag: u64) -> u64 {
    tag | OPERATION
}

fn tag_of(index: usize, operation: &Operation) -> u64 {
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

    /// Adds an operation. What its entry points to stays where it is.
    ///
    /// # Errors
    ///
    /// The work, if there is an operation with this index.
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
        let place = &mut self.operations[index];
        if place.is_some() {
            return Err(work);
        }
        work.begin_flight();
        self.len += 1;
        let operation = place.insert(Operation {
            generation: (tag >> 32) as u32,
            group,
            accepts: work.call() == Call::AcceptMulti,
            is_cancelled: false,
            partial_results: 0,
            work,
        });
        Ok(&mut operation.work)
    }

    pub(super) fn get(&self, tag: u64) -> Option<&Operation> {
        let place = self.operations.get(tag as u32 as usize)?;
        place.as_ref().filter(|its| its.generation == (tag >> 32) as u32)
    }

    pub(super) fn get_mut(&mut self, tag: u64) -> Option<&mut Operation> {
        let place = self.operations.get_mut(tag as u32 as usize)?;
        place.as_mut().filter(|its| its.generation == (tag >> 32) as u32)
    }

    /// Returns the operation of a `user_data`.
    pub(super) fn find_mut(&mut self, user_data: u64) -> Option<&mut Operation> {
        let place = self.operations.get_mut(user_data as u32 as usize)?;
        place.as_mut().filter(|its| its.is_named(user_data))
    }

    /// Returns the operation of an index, and its tag.
    pub(super) fn get_index(&self, index: u32) -> Option<(u64, &Operation)> {
        let operation = self.operations.get(index as usize)?.as_ref()?;
        Some((tag_of(index as usize, operation), operation))
    }

    /// Takes the operation of a `user_data` out, and returns its tag.
    ///
    /// # Safety
    ///
    /// The kernel must be done with it: this is its last completion, or it was not submitted.
    #[allow(unsafe_code)]
    pub(super) unsafe fn remove(&mut self, user_data: u64) -> Option<(u64, Work)> {
        let index = user_data as u32 as usize;
        let place = self.operations.get_mut(index)?;
        let operation = place.take_if(|its| its.is_named(user_data))?;
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
    /// No kernel must touch the memory of this process for them.
    #[allow(unsafe_code)]
    pub(super) unsafe fn free(&mut self) {
        for mut operation in self.operations.drain(..).flatten() {
            // SAFETY: as the caller promises.
            unsafe { operation.work.end_flight() };
        }
        self.len = 0;
    }

    /// Leaves the memory of all operations to the kernel, and returns how many there were.
    pub(super) fn leak(&mut self) -> usize {
        self.operations.clear();
        std::mem::take(&mut self.len)
    }
}

#[cfg(test)]
mod tests;
