//! The interface that operations use. With a fake implementation they run without a kernel.

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

/// Access of operations to the reactor, the selector and the kernel.
pub(in crate::reactor) trait Io {
    fn now(&self) -> Instant {
        Instant::now()
    }

    /// Returns the file of a source.
    fn file(&self, slot: Slot) -> Option<&SourceFd>;

    /// Returns the I/O mode of a source's descriptor.
    ///
    /// # Errors
    ///
    /// The errors of fstat(2): the descriptor was closed.
    fn mode_of(&mut self, slot: Slot) -> io::Result<FdIoMode>;

    /// Restores the flags of a source that is about to be removed.
    fn restore(&mut self, slot: Slot, mode: &mut FdIoMode);

    /// Prepares the file so that a splice on a thread can only wait for a disk.
    ///
    /// # Errors
    ///
    /// The errors of fcntl(2).
    fn prepare_to_splice(&mut self, slot: Slot, mode: &mut FdIoMode) -> io::Result<()>;

    /// Returns true if the selector has a driver.
    fn has_driver(&self) -> bool;

    /// Returns true if the driver can perform the work.
    fn can_submit(&mut self, work: &Work, mode: &mut FdIoMode) -> bool;

    /// Makes a call that does not block.
    ///
    /// # Errors
    ///
    /// The errors of the call, including `WouldBlock`.
    fn attempt(&mut self, call: &mut IoCall, mode: &mut FdIoMode) -> io::Result<CallResult>;

    /// Receives from a socket into the free part of a buffer without blocking.
    ///
    /// # Errors
    ///
    /// The errors of the call, including `WouldBlock`.
    fn recv_now(&mut self, slot: Slot, buf: &mut PoolBuf) -> io::Result<usize>;

    /// Opens a file if that cannot wait. Returns `None` if a thread must make the call.
    ///
    /// # Errors
    ///
    /// `NotFound`.
    fn open_now(&mut self, call: &IoCall) -> Option<io::Result<OwnedFd>>;

    /// Sends bytes on a socket without blocking.
    ///
    /// # Errors
    ///
    /// The errors of the call, including `WouldBlock`.
    fn send_now(&mut self, slot: Slot, bytes: &[u8]) -> io::Result<usize>;

    /// Makes a splice that does not block.
    ///
    /// # Errors
    ///
    /// The errors of the call, including `WouldBlock`.
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
    /// The errors of shutdown(2).
    fn shutdown(&mut self, slot: Slot, how: Shutdown) -> io::Result<()>;

    /// Returns the true bits of a direction; ready if poll(2) fails.
    fn poll_now(&mut self, slot: Slot, dir: Interest) -> PollBits;

    /// Returns the true bits of a direction of each of two sources by one poll(2); ready if it
    /// fails.
    fn poll_both(&mut self, sides: [(Slot, Interest); 2]) -> [PollBits; 2];

    /// Returns true if a socket has bytes to receive.
    fn has_bytes(&mut self, slot: Slot) -> bool;

    /// Returns true if a socket that lost its connection was not connected again.
    fn has_not_reconnected(&mut self, slot: Slot) -> bool;

    /// Submits an operation to the driver.
    ///
    /// # Errors
    ///
    /// The work, if the driver does not take it.
    fn submit(&mut self, op: OpSlot, work: Work) -> Result<(), Work>;

    /// Requests the driver to end an operation.
    fn cancel(&mut self, op: OpSlot);

    /// Requests the driver to end these operations, and waits for the interruptible ones. Adds the
    /// driver's events to `events`.
    fn cancel_and_wait(&mut self, ops: &[OpSlot], events: &mut Vec<OpEvent>);

    /// Makes a call on the thread pool with these files kept open.
    fn spawn(&mut self, op: OpSlot, call: CallBox, files: Vec<SourceFd>);

    /// Withdraws a call unless a thread has started it.
    fn withdraw(&mut self, op: OpSlot) -> Option<CallBox>;

    /// Reports a direction of a source once it is ready.
    fn await_ready(&mut self, slot: Slot, dir: Interest);

    /// Ends [`await_ready`](Io::await_ready).
    fn stop_awaiting(&mut self, slot: Slot, dir: Interest);

    /// Polls a direction of a source in this wait or the next.
    fn recheck(&mut self, slot: Slot, dir: Interest);

    /// Polls every watched direction of a source in this wait or the next.
    fn recheck_all(&mut self, slot: Slot);

    /// Returns true if an awaited direction is reported as long as it is ready.
    fn repeats(&self, slot: Slot, dir: Interest) -> bool;

    /// Notes that a call has probably consumed a direction's readiness. Returns true if new
    /// readiness is certain to be reported.
    fn note_likely_not_ready(&mut self, slot: Slot, dir: Interest) -> bool;

    /// Returns true if a call would probably block and readiness is certain to be reported.
    fn can_skip_attempt(&mut self, slot: Slot, dir: Interest) -> bool;

    /// Returns the driver's unused buffers to their pool.
    fn release_buffers(&mut self, pool: &BufferPool);

    /// Returns the waker that keeps the next wait from sleeping.
    fn notifier(&self) -> &task::Waker;

    /// Drops files at the end of this call or of the next wait. That may run the user's code, which
    /// may panic.
    fn defer_drop(&mut self, files: Vec<SourceFd>);
}
