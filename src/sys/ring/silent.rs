//! Sends whose success has no completion (`IOSQE_CQE_SKIP_SUCCESS`, Linux 5.17).
//!
//! A send with `MSG_DONTWAIT` is executed during its submission. If it fails or is short (with
//! `MSG_WAITALL` a short send is an error), its CQE is there before the enter returns. So a
//! submitted send without a CQE has sent everything; CQEs that the kernel keeps back for want of
//! space count too (measured, Linux 6.18). Linux 5.19 and 6.0 may report a short send as `EAGAIN`,
//! so silent sends need 6.1.

/// The silent sends whose success is not certain yet.
#[derive(Debug)]
pub(super) struct SilentSends {
    /// The kernel knows the flag.
    are_known: bool,
    /// The `user_data` of the sends that were pushed.
    pushed: Vec<u64>,
    /// The count of lost CQEs when the sends were last settled, or when there was none.
    lost: u32,
}

impl SilentSends {
    pub(super) fn new(are_known: bool) -> Self {
        SilentSends { are_known, pushed: Vec::new(), lost: 0 }
    }

    pub(super) fn are_known(&self) -> bool {
        self.are_known
    }

    /// Notes that a send was pushed.
    pub(super) fn insert(&mut self, user_data: u64) {
        self.pushed.push(user_data);
    }

    /// Returns true if there is no send. `lost` is the count of CQEs lost so far.
    pub(super) fn note_lost(&mut self, lost: u32) -> bool {
        let is_empty = self.pushed.is_empty();
        self.lost = if is_empty { lost } else { self.lost };
        is_empty
    }

    /// Takes all sends, which were submitted, after all CQEs were taken. `lost` is the count of
    /// CQEs lost so far. Also returns true if the results are unknown, because CQEs were lost since
    /// the last call.
    pub(super) fn settle(&mut self, lost: u32) -> (std::vec::Drain<'_, u64>, bool) {
        let is_unknown = std::mem::replace(&mut self.lost, lost) != lost;
        (self.pushed.drain(..), is_unknown)
    }
}
