//! What operations ask for. A fake that answers it runs all of them without a kernel.

use crate::event::Interest;
use crate::key::{OpSlot, Slot};
use crate::poll_bits::PollBits;
use crate::selector::OpEvent;
use crate::sys::file::SourceFd;
use crate::sys::io_call::{CallBox, CallResult, IoCall, Work};
use crate::sys::io_mode::FdIoMode;
use crate::sys::pool::{BufferPool, PoolBuf};
use std::io;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::task;
use std::time::Instant;

/// All that operations ask of the reactor, the selector and the kernel.
pub(in crate::reactor) trait Io {
    fn now(&self) -> Instant {
        Instant::now()
    }

    /// Returns the file of a source.
    fn file(&self, slot: Slot) -> Option<&SourceFd>;

    /// Returns how calls on a source are kept from blocking.
    ///
    /// # Errors
    ///
    /// What fstat(2) says: the descriptor was closed.
    fn mode_of(&mut self, slot: Slot) -> io::Result<FdIoMode>;

    /// Reverts what calls have changed of a source, which is about to go.
    fn restore(&mut self, slot: Slot, mode: &mut FdIoMode);

    /// Makes sure that a splice on a thread waits for nothing but a disk.
    ///
    /// # Errors
    ///
    /// What fcntl(2) says.
    fn prepare_to_splice(&mut self, slot: Slot, mode: &mut FdIoMode) -> io::Result<()>;

    /// Returns true if there is a driver.
    fn has_driver(&self) -> bool;

    /// Returns true if a driver can do the work.
    fn can_submit(&mut self, work: &Work, mode: &mut FdIoMode) -> bool;

    /// Makes a call that does not block.
    ///
    /// # Errors
    ///
    /// What the call says, `WouldBlock` too.
    fn attempt(&mut self, call: &mut IoCall, mode: &mut FdIoMode) -> io::Result<CallResult>;

    /// Receives what a socket has to the end of a buffer without blocking.
    ///
    /// # Errors
    ///
    /// What the call says, `WouldBlock` too.
    fn recv_now(&mut self, slot: Slot, buf: &mut PoolBuf) -> io::Result<usize>;

    /// Opens a file if that cannot wait. Returns `None` if a thread has to make the call.
    ///
    /// # Errors
    ///
    /// `NotFound`.
    fn open_now(&mut self, call: &IoCall) -> Option<io::Result<OwnedFd>>;

    /// Sends bytes on a socket without blocking.
    ///
    /// # Errors
    ///
    /// What the call says, `WouldBlock` too.
    fn send_now(&mut self, slot: Slot, bytes: &[u8]) -> io::Result<usize>;

    /// Makes a splice that does not block.
    ///
    /// # Errors
    ///
    /// What the call says, `WouldBlock` too.
    fn attempt_splice(
        &mut self,
        call: &mut IoCall,
        from: &mut FdIoMode,
        to: &mut FdIoMode,
    ) -> io::Result<CallResult>;

    /// Shuts a socket down.
    ///
    /// # Errors
    ///
    /// What shutdown(2) says.
    fn shutdown(&mut self, slot: Slot, how: Shutdown) -> io::Result<()>;

    /// Returns what is true of a direction now; ready if the kernel can't be asked.
    fn poll_now(&mut self, slot: Slot, dir: Interest) -> PollBits;

    /// Returns what is true now of a direction of each of two sources, by one call; ready if the
    /// kernel can't be asked.
    fn poll_both(&mut self, sides: [(Slot, Interest); 2]) -> [PollBits; 2];

    /// Returns true if a socket has bytes to receive.
    fn has_bytes(&mut self, slot: Slot) -> bool;

    /// Returns true if a socket that has lost its connection was not connected again since.
    fn has_not_reconnected(&mut self, slot: Slot) -> bool;

    /// Submits an operation to the driver.
    ///
    /// # Errors
    ///
    /// The work, if the driver does not take it.
    fn submit(&mut self, op: OpSlot, work: Work) -> Result<(), Work>;

    /// Requests the driver to end an operation.
    fn cancel(&mut self, op: OpSlot);

    /// Requests the driver to end these operations, and waits for those that can be interrupted.
    /// Adds what the driver has to tell to `events`.
    fn cancel_and_wait(&mut self, ops: &[OpSlot], events: &mut Vec<OpEvent>);

    /// Makes a call on a thread, which needs these files open.
    fn spawn(&mut self, op: OpSlot, call: CallBox, files: Vec<SourceFd>);

    /// Takes a call back unless a thread has begun with it.
    fn withdraw(&mut self, op: OpSlot) -> Option<CallBox>;

    /// Reports a direction of a source once it is ready.
    fn await_ready(&mut self, slot: Slot, dir: Interest);

    /// Ends [`await_ready`](Io::await_ready).
    fn stop_awaiting(&mut self, slot: Slot, dir: Interest);

    /// Polls a direction of a source in this wait or the next.
    fn recheck(&mut self, slot: Slot, dir: Interest);

    /// Polls whatever is watched of a source in this wait or the next.
    fn recheck_all(&mut self, slot: Slot);

    /// Returns true if a direction that is awaited is reported as long as it is ready.
    fn repeats(&self, slot: Slot, dir: Interest) -> bool;

    /// Notes that a call has probably used up what there was of a direction. Returns true if
    /// readiness will be reported for certain.
    fn note_likely_not_ready(&mut self, slot: Slot, dir: Interest) -> bool;

    /// Returns true if a call would probably block, and readiness will be reported for certain.
    fn can_skip_attempt(&mut self, slot: Slot, dir: Interest) -> bool;

    /// Returns the buffers of a pool that the driver provides, and that are not used, to the pool.
    fn release_buffers(&mut self, pool: &BufferPool);

    /// Returns what makes the next wait not sleep.
    fn notifier(&self) -> &task::Waker;

    /// Drops files at the end of this wait or deregister, or of the next: that may run the user's
    /// code, which may panic.
    fn defer_drop(&mut self, files: Vec<SourceFd>);
}
