//! The same call as a request to a ring.

use super::super::manner::RWF_NOSIGNAL;
use super::{ACCEPTED, Call, Gain, Name, Prepared, SEND_NOW};
use io_uring::squeue::Entry;
use io_uring::{opcode, types};
use std::io;

/// The current position of a file.
const CURRENT: u64 = u64::MAX;

impl Call {
    /// The kernel's number for such requests.
    pub(in crate::sys) fn code(self) -> u8 {
        match self {
            Call::Accept => opcode::Accept::CODE,
            Call::Connect => opcode::Connect::CODE,
            Call::Recv => opcode::Recv::CODE,
            Call::Send => opcode::Send::CODE,
            Call::RecvFrom => opcode::RecvMsg::CODE,
            Call::SendTo => opcode::SendMsg::CODE,
            Call::Read => opcode::Read::CODE,
            Call::Write => opcode::Write::CODE,
        }
    }
}

impl Prepared {
    /// The request. One to send is for now or never: it says `WouldBlock` where it would have to
    /// wait. (A message that waits in a ring goes out empty; and a stream whose peer has shut down
    /// writing takes one of the kernel's own threads.)
    ///
    /// It names memory of this value: to be submitted only if this is kept, in whatever place,
    /// until the request has completed.
    pub(in crate::sys) fn entry(&mut self) -> Entry {
        let (number, part) = (types::Fd(self.number), self.part());
        let (start, length) = (part.iov_base.cast::<u8>(), part.iov_len as u32);
        match (self.call, self.message.as_deref_mut()) {
            (Call::Accept, Some(message)) => {
                message.name.length = Name::ROOM as libc::socklen_t;
                let place = message.name.bytes.as_mut_ptr().cast();
                let accept = opcode::Accept::new(number, place, &raw mut message.name.length);
                accept.flags(ACCEPTED).build()
            }
            (Call::Connect, Some(message)) => {
                let place = message.name.bytes.as_ptr().cast();
                opcode::Connect::new(number, place, message.name.length).build()
            }
            (Call::RecvFrom, Some(message)) => {
                opcode::RecvMsg::new(number, message.header_for_a_name(part)).build()
            }
            (Call::SendTo, Some(message)) => {
                opcode::SendMsg::new(number, message.header(part)).flags(SEND_NOW as u32).build()
            }
            (Call::Recv, _) => opcode::Recv::new(number, start, length).build(),
            (Call::Send, _) => opcode::Send::new(number, start, length).flags(SEND_NOW).build(),
            (Call::Read, _) => opcode::Read::new(number, start, length).offset(CURRENT).build(),
            (Call::Write, _) => {
                let write = opcode::Write::new(number, start, length).offset(CURRENT);
                write.rw_flags(RWF_NOSIGNAL).build()
            }
            // `Prepared::new` gives each of these its message.
            (Call::Accept | Call::Connect | Call::RecvFrom | Call::SendTo, None) => {
                debug_assert!(false, "a call without its message");
                opcode::Nop::new().build()
            }
        }
    }

    /// Whether the request is for now or never.
    pub(crate) fn is_for_now(&self) -> bool {
        matches!(self.call, Call::Send | Call::SendTo)
    }

    /// What became of the request that [`Prepared::entry`] made.
    ///
    /// # Safety
    ///
    /// The result has to be that of its last completion, and to be passed on to this once.
    pub(in crate::sys) unsafe fn complete(&mut self, result: i32) -> io::Result<Gain> {
        let Ok(answer) = usize::try_from(result) else {
            return Err(io::Error::from_raw_os_error(-result));
        };
        if self.call == Call::RecvFrom {
            if let Some(message) = &mut self.message {
                message.note_name();
            }
        }
        self.done(answer)
    }
}
