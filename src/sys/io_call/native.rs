//! The same call as a request to a ring.

use super::super::io_mode::RWF_NOSIGNAL;
use super::super::pool::PoolBuf;
use super::socket::{ACCEPTED, SEND_NOW, receive_flags};
use super::{Call, CallResult, IoCall, Work, owned};
use io_uring::squeue::{Entry, Flags};
use io_uring::{opcode, types};
use std::io;

/// The current position of a file, of one without a position that is.
const CURRENT: u64 = u64::MAX;

impl Call {
    /// Returns the kernel's number for such requests, `None` if a ring is never given one.
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
    /// The request. One to send is for now or never: it says `WouldBlock` where it would have to
    /// wait. (A message that waits in a ring goes out empty; and a stream whose peer has shut down
    /// writing takes one of the kernel's own threads.)
    ///
    /// It names memory of this value: to be submitted only if this is kept, in whatever place,
    /// until the request has completed.
    fn entry(&mut self, is_silent: bool) -> Entry {
        let (number, call) = (types::Fd(self.number), self.call);
        match call {
            Call::AcceptMulti => opcode::AcceptMulti::new(number).flags(ACCEPTED).build(),
            Call::ReadAt(_) | Call::WriteAt(_) => self.entry_at(number),
            Call::Recv | Call::Send | Call::Read | Call::Write => {
                let part = self.io_buf.part();
                let (start, length) = (part.iov_base.cast::<u8>(), part.iov_len as u32);
                match call {
                    Call::Recv => opcode::Recv::new(number, start, length).build(),
                    Call::Send => {
                        let silent = if is_silent { libc::MSG_WAITALL } else { 0 };
                        let send = opcode::Send::new(number, start, length);
                        let entry = send.flags(SEND_NOW | silent).build();
                        if is_silent { entry.flags(Flags::SKIP_SUCCESS) } else { entry }
                    }
                    Call::Read => opcode::Read::new(number, start, length).offset(CURRENT).build(),
                    _ => {
                        let write = opcode::Write::new(number, start, length).offset(CURRENT);
                        write.rw_flags(RWF_NOSIGNAL).build()
                    }
                }
            }
            _ => self.entry_of_message(number),
        }
    }

    fn entry_at(&mut self, number: types::Fd) -> Entry {
        let offset = self.offset().unwrap_or(CURRENT);
        let reads = self.io_buf.is_in();
        if self.io_buf.is_many() {
            let vectors = self.io_buf.vectors();
            let (start, count) = (vectors.as_ptr(), vectors.len() as u32);
            return match reads {
                true => opcode::Readv::new(number, start, count).offset(offset).build(),
                false => opcode::Writev::new(number, start, count).offset(offset).build(),
            };
        }
        let part = self.io_buf.part();
        let (start, length) = (part.iov_base.cast::<u8>(), part.iov_len as u32);
        match reads {
            true => opcode::Read::new(number, start, length).offset(offset).build(),
            false => opcode::Write::new(number, start, length).offset(offset).build(),
        }
    }

    fn entry_of_message(&mut self, number: types::Fd) -> Entry {
        let (call, part) = (self.call, self.io_buf.part());
        let Some(message) = self.message_mut() else { return nothing() };
        match call {
            Call::Accept => {
                let (place, length) = message.name().for_writing();
                let accept = opcode::Accept::new(number, place.cast(), length);
                accept.flags(ACCEPTED).build()
            }
            Call::RecvFrom | Call::RecvMsg => {
                let receive = opcode::RecvMsg::new(number, message.header_for_a_name(part));
                receive.flags(receive_flags(call) as u32).build()
            }
            Call::SendTo | Call::SendMsg => {
                opcode::SendMsg::new(number, message.header(part)).flags(SEND_NOW as u32).build()
            }
            _ => nothing(),
        }
    }

    /// What became of the request that [`IoCall::entry`] made.
    ///
    /// # Safety
    ///
    /// The result has to be that of its last completion, and to be passed on to this once.
    unsafe fn complete(&mut self, result: i32) -> io::Result<CallResult> {
        let Ok(answer) = usize::try_from(result) else {
            return Err(io::Error::from_raw_os_error(-result));
        };
        self.done(answer)
    }
}

impl Work {
    /// Returns the request. Buffers of a pool come from this group. If it is to be silent, it
    /// completes only if it does not succeed entirely. It may name memory of this
    /// value: to be submitted only if this is kept, in whatever place, until it has completed.
    pub(in crate::sys) fn entry(&mut self, group: u16, is_silent: bool) -> Entry {
        match self {
            Work::Call(call) => call.entry(is_silent),
            Work::Receive { number, .. } => {
                opcode::RecvMulti::new(types::Fd(*number), group).build()
            }
        }
    }

    /// Returns what became of a silent request that has succeeded.
    ///
    /// # Safety
    ///
    /// [`Work::entry`] has made it silent, it is over without a completion, and this is called
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

    /// Returns what became of the request that [`Work::entry`] made.
    ///
    /// # Safety
    ///
    /// The result has to be that of its last completion, and to be passed on to this once, with the
    /// buffer that the kernel has taken.
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

/// What one result of a request is that goes on, and that this call has made.
///
/// # Safety
///
/// The result has to be that of a completion, and to be passed on to this once.
#[allow(unsafe_code)]
pub(in crate::sys) unsafe fn complete_one(
    accepts: bool,
    result: i32,
    buf: Option<PoolBuf>,
) -> io::Result<CallResult> {
    match usize::try_from(result) {
        Err(_) => Err(io::Error::from_raw_os_error(-result)),
        // SAFETY: the kernel has just made it, and nobody else knows it.
        Ok(number) if accepts => Ok(CallResult::Accepted(unsafe { owned(number) })),
        Ok(_) => received(result, buf),
    }
}

/// In this buffer, which the kernel has chosen, or in none.
fn received(result: i32, buf: Option<PoolBuf>) -> io::Result<CallResult> {
    if result < 0 {
        return Err(io::Error::from_raw_os_error(-result));
    }
    Ok(buf.map_or(CallResult::Moved(0), CallResult::Received))
}

/// `IoCall::with` gives every call what it needs.
fn nothing() -> Entry {
    debug_assert!(false, "a call without what it has to be told");
    opcode::Nop::new().build()
}
