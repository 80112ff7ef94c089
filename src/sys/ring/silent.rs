//! Sends whose success has no completion (`IOSQE_CQE_SKIP_SUCCESS`, Linux 5.17).
//!
//! A send that does not wait (`MSG_DONTWAIT`) is made while it is submitted. If it fails, or sends
//! only a part (an error where `MSG_WAITALL` is set), its completion is there before the enter
//! returns. So one that was submitted has sent everything if there is no completion of it among all
//! that the kernel has, those too that it keeps back for want of room (measured, Linux 6.18). Linux
//! 5.19 and 6.0 may say `EAGAIN` of a part, so silent sends are for rings of 6.1.

/// Those whose success is not certain yet.
#[derive(Debug)]
pub(super) struct SilentSends {
    /// The kernel knows the flag.
    are_known: bool,
    /// The `user_data` of those that were pushed.
    pushed: Vec<u64>,
    /// How many completions had got lost when these were last settled, or when there was none.
    lost: u32,
}

impl SilentSends {
    pub(super) fn new(are_known: bool) -> Self {
        SilentSends { are_known, pushed: Vec::new(), lost: 0 }
    }

    pub(super) fn are_known(&self) -> bool {
        self.are_known
    }

    /// Notes that one was pushed.
    pub(super) fn insert(&mut self, user_data: u64) {
        self.pushed.push(user_data);
    }

    /// Returns true if there is none. `lost` counts the completions that have got lost so far.
    pub(super) fn note_lost(&mut self, lost: u32) -> bool {
        let is_empty = self.pushed.is_empty();
        self.lost = if is_empty { lost } else { self.lost };
        is_empty
    }

    /// Takes all of them, which were submitted, after all completions were taken. `lost` counts
    /// the completions that have got lost so far. Returns true with them if theirs may be among
    /// these: then it is not known what they have done.
    pub(super) fn settle(&mut self, lost: u32) -> (std::vec::Drain<'_, u64>, bool) {
        let is_unknown = std::mem::replace(&mut self.lost, lost) != lost;
        (self.pushed.drain(..), is_unknown)
    }
}
