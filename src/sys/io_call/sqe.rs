//! Calls as SQEs.

use super::super::io_mode::RWF_NOSIGNAL;
use super::super::pool::PoolBuf;
use super::socket::{ACCEPT_FLAGS, SEND_NOW, receive_flags};
use super::{Call, CallResult, IoCall, Work, owned};
use io_uring::squeue::{Entry, Flags};
use io_uring::{opcode, types};
use std::io;

/// The offset that stands for the position, also for files without one.
const CURRENT: u64 = u64::MAX;

impl Call {
    /// Returns the opcode, or `None` for a call that a ring never gets.
    pub(in crate::sys) fn code(self) -> Option<u8> {
        Some(match self {
            Call::Accept | Call::AcceptMulti => opcode::Accept::CODE,
            Call::Recv | Call::RecvMulti => opcode::Recv::CODE,
            Call::Send => opcode::Send::CODE,
            Call::RecvFrom | Call::RecvMsg => opcode::RecvMsg::CODE,
            Call::SendTo | Call::SendMsg => opcode::SendMsg::CODE,
            Call::Read | Call::ReadAt(_) => opcode::Read::CODE,
            Call::Write | Call::WriteAt(_) => opcode::Write::CODE,
            Call::Connect | Call::Sync { .. } | Call::Open | Call::Splice => return None,
        })
    }
}

impl IoCall {
    /// Returns the SQE. A send completes with `EAGAIN` instead of waiting. A waiting message would
    /// be sent empty; a waiting send to a peer that has shut down writing occupies a kernel worker.
    ///
    /// The SQE points to memory of this value. Submit it only if the value is kept until its CQE.
    fn prepare_sqe(&mut self, is_silent: bool) -> Entry {
        let (fd, call) = (types::Fd(self.fd), self.call);
        match call {
            Call::AcceptMulti => opcode::AcceptMulti::new(fd).flags(ACCEPT_FLAGS).build(),
            Call::ReadAt(_) | Call::WriteAt(_) => self.sqe_at(fd),
            Call::Recv | Call::Send | Call::Read | Call::Write => {
                let part = self.io_buf.part();
                let (start, length) = (part.iov_base.cast::<u8>(), part.iov_len as u32);
                match call {
                    Call::Recv => opcode::Recv::new(fd, start, length).build(),
                    Call::Send => {
                        let silent = if is_silent { libc::MSG_WAITALL } else { 0 };
                        let send = opcode::Send::new(fd, start, length);
                        let sqe = send.flags(SEND_NOW | silent).build();
                        if is_silent { sqe.flags(Flags::SKIP_SUCCESS) } else { sqe }
                    }
                    Call::Read => opcode::Read::new(fd, start, length).offset(CURRENT).build(),
                    _ => {
                        let write = opcode::Write::new(fd, start, length).offset(CURRENT);
                        write.rw_flags(RWF_NOSIGNAL).build()
                    }
                }
            }
            _ => self.message_sqe(fd),
        }
    }

    fn sqe_at(&mut self, fd: types::Fd) -> Entry {
        let offset = self.offset().unwrap_or(CURRENT);
        let reads = self.io_buf.is_in();
        if self.io_buf.is_vectored() {
            let vectors = self.io_buf.vectors();
            let (start, count) = (vectors.as_ptr(), vectors.len() as u32);
            return if reads {
                opcode::Readv::new(fd, start, count).offset(offset).build()
            } else {
                opcode::Writev::new(fd, start, count).offset(offset).build()
            };
        }
        let part = self.io_buf.part();
        let (start, length) = (part.iov_base.cast::<u8>(), part.iov_len as u32);
        if reads {
            opcode::Read::new(fd, start, length).offset(offset).build()
        } else {
            opcode::Write::new(fd, start, length).offset(offset).build()
        }
    }

    fn message_sqe(&mut self, fd: types::Fd) -> Entry {
        let (call, part) = (self.call, self.io_buf.part());
        let Some(message) = self.message_mut() else { return nop() };
        match call {
            Call::Accept => {
                let (address, length) = message.name().for_writing();
                let accept = opcode::Accept::new(fd, address.cast(), length);
                accept.flags(ACCEPT_FLAGS).build()
            }
            Call::RecvFrom | Call::RecvMsg => {
                let receive = opcode::RecvMsg::new(fd, message.header_with_name(part));
                receive.flags(receive_flags(call) as u32).build()
            }
            Call::SendTo | Call::SendMsg => {
                opcode::SendMsg::new(fd, message.header(part)).flags(SEND_NOW as u32).build()
            }
            _ => nop(),
        }
    }

    /// Converts the result of the SQE made by [`IoCall::prepare_sqe`].
    ///
    /// # Safety
    ///
    /// The result must be that of its last CQE, and be converted once.
    unsafe fn complete(&mut self, result: i32) -> io::Result<CallResult> {
        let Ok(answer) = usize::try_from(result) else {
            return Err(io::Error::from_raw_os_error(-result));
        };
        self.done(answer)
    }
}

impl Work {
    /// Returns the SQE. Provided buffers come from `group`. A silent send has a CQE only if it
    /// fails or is short. The SQE may point to memory of this value: submit it only if the value is
    /// kept until its CQE.
    pub(in crate::sys) fn prepare_sqe(&mut self, group: u16, is_silent: bool) -> Entry {
        match self {
            Work::Call(call) => call.prepare_sqe(is_silent),
            Work::Receive { fd, .. } => opcode::RecvMulti::new(types::Fd(*fd), group).build(),
        }
    }

    /// Returns the result of a silent send that has succeeded.
    ///
    /// # Safety
    ///
    /// [`Work::prepare_sqe`] has made it silent, it has ended without a CQE, and this is called
    /// once.
    pub(in crate::sys) unsafe fn complete_silent(&mut self) -> io::Result<CallResult> {
        match self {
            Work::Call(call) => {
                let length = call.io_buf.part().iov_len;
                call.done(length)
            }
            Work::Receive { .. } => Ok(CallResult::Moved(0)),
        }
    }

    /// Converts the result of the SQE made by [`Work::prepare_sqe`].
    ///
    /// # Safety
    ///
    /// The result must be that of its last CQE, and be converted once, with the buffer that the
    /// kernel has taken.
    pub(in crate::sys) unsafe fn complete(
        &mut self,
        result: i32,
        buf: Option<PoolBuf>,
    ) -> io::Result<CallResult> {
        match self {
            // SAFETY: as the caller promises.
            Work::Call(call) => unsafe { call.complete(result) },
            Work::Receive { .. } => received(result, buf),
        }
    }
}

/// Converts a result of a multishot request that continues.
///
/// # Safety
///
/// The result must be that of a CQE, and be converted once.
#[allow(unsafe_code)]
pub(in crate::sys) unsafe fn complete_one(
    accepts: bool,
    result: i32,
    buf: Option<PoolBuf>,
) -> io::Result<CallResult> {
    match usize::try_from(result) {
        Err(_) => Err(io::Error::from_raw_os_error(-result)),
        // SAFETY: the kernel has just made the descriptor, and nothing else owns it.
        Ok(fd) if accepts => Ok(CallResult::Accepted(unsafe { owned(fd) })),
        Ok(_) => received(result, buf),
    }
}

/// Converts the result of a receive, with the buffer that the kernel has taken, if any.
fn received(result: i32, buf: Option<PoolBuf>) -> io::Result<CallResult> {
    if result < 0 {
        return Err(io::Error::from_raw_os_error(-result));
    }
    Ok(buf.map_or(CallResult::Moved(0), CallResult::Received))
}

/// Returns a no-op. `IoCall::load` sets every call's arguments, so this is never used.
fn nop() -> Entry {
    debug_assert!(false, "the call lacks its arguments");
    opcode::Nop::new().build()
}
