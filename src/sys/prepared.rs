//! An operation ready for the kernel: a file number, a call, and the memory that the call may
//! touch, owned until the last of it.
#![allow(unsafe_code)]

mod native;

use super::buf::Buf;
use super::manner::Manner;
use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

/// One system call that is to be made, and that may have to be made several times.
///
/// Whoever holds it keeps its file open.
pub struct Prepared {
    number: RawFd,
    call: Call,
    buf: Buf,
    /// Of what is sent, where the rest begins. What is received is appended.
    at: usize,
    /// How many bytes are left to be moved.
    left: usize,
    moved: usize,
    message: Option<Box<Message>>,
    /// An earlier attempt has begun to connect.
    has_begun: bool,
}

/// The call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Call {
    Accept,
    Connect,
    Recv,
    Send,
    RecvFrom,
    SendTo,
    Read,
    Write,
}

impl Call {
    fn receives(self) -> bool {
        matches!(self, Call::Recv | Call::RecvFrom | Call::Read)
    }
}

/// What a call that succeeded has brought.
#[derive(Debug)]
pub enum Gain {
    /// So many bytes were moved.
    Moved(usize),
    /// A connection was accepted.
    Accepted(OwnedFd),
    /// A connection was made.
    Connected,
}

/// The address of a socket, as the kernel writes it.
#[derive(Clone, Copy)]
pub(crate) struct Name {
    bytes: [u8; Name::ROOM],
    length: libc::socklen_t,
}

impl Name {
    const ROOM: usize = size_of::<libc::sockaddr_storage>();

    /// `None` if it is longer than any address.
    pub(crate) fn new(address: &[u8]) -> Option<Self> {
        let mut bytes = [0; Name::ROOM];
        bytes.get_mut(..address.len())?.copy_from_slice(address);
        Some(Name { bytes, length: address.len() as libc::socklen_t })
    }

    fn empty() -> Self {
        Name { bytes: [0; Name::ROOM], length: 0 }
    }

    /// Of a unix socket.
    fn is_local(&self) -> bool {
        let family = (libc::AF_UNIX as libc::sa_family_t).to_ne_bytes();
        self.bytes.starts_with(&family)
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        // The kernel says how long an address is also where it had no room for all of it.
        &self.bytes[..Name::ROOM.min(self.length as usize)]
    }
}

/// What sendmsg(2) and recvmsg(2) are told by a pointer, at an address of its own.
struct Message {
    name: Name,
    part: libc::iovec,
    header: libc::msghdr,
}

/// Linux moves no more in one call; the result of a completion has 32 bits.
const MOST: usize = 0x7fff_f000;

impl Prepared {
    /// A call on `fd` that moves at most `left` bytes: out of the buffer, from `at` on, or to its
    /// end, for which room is made. `name` is whom to connect or send to.
    ///
    /// # Errors
    ///
    /// `OutOfMemory`: there is no room for so much; `InvalidInput`: the buffer is none that can be
    /// received into, or has no such part. The buffer comes back.
    pub(crate) fn new(
        fd: BorrowedFd<'_>,
        call: Call,
        mut buf: Buf,
        (at, left): (usize, usize),
        name: Option<Name>,
    ) -> Result<Self, (io::Error, Buf)> {
        if let Err(error) = make_room(call, &mut buf, at, left) {
            return Err((error, buf));
        }
        let message = match (call, name) {
            (Call::Accept | Call::RecvFrom, _) => Some(Message::boxed(Name::empty())),
            (_, Some(name)) => Some(Message::boxed(name)),
            (_, None) => None,
        };
        let number = fd.as_raw_fd();
        Ok(Prepared { number, call, buf, at, left, moved: 0, message, has_begun: false })
    }

    /// Whether a ring may have it. Not what would have one of the kernel's own threads wait (a unix
    /// listener's queue and an eventfd that would overflow tell nobody when there is room), nor the
    /// thread that submits it.
    pub(crate) fn suits_a_ring(&self, manner: &Manner) -> bool {
        match (self.call, &self.message) {
            (Call::Connect, Some(message)) => !message.name.is_local(),
            (Call::Read, _) => manner.may_be_read_by_a_ring(),
            (Call::Write, _) => manner.may_be_written_by_a_ring(),
            _ => true,
        }
    }

    /// The mechanism has had it, and gives it back unfinished.
    pub(crate) fn note_begun(&mut self) {
        self.has_begun = true;
    }

    pub(crate) fn call(&self) -> Call {
        self.call
    }

    /// How many bytes were moved so far.
    pub(crate) fn moved(&self) -> usize {
        self.moved
    }

    /// How many bytes are left to be moved.
    pub(crate) fn left(&self) -> usize {
        self.left
    }

    /// Whom an accepted connection or a datagram comes from, as the kernel writes it.
    pub(crate) fn name(&self) -> &[u8] {
        self.message.as_ref().map_or(&[], |message| message.name.bytes())
    }

    /// It is over: gives the buffer back.
    pub(crate) fn into_buf(self) -> Buf {
        self.buf
    }

    /// Makes the call, which does not block.
    ///
    /// # Errors
    ///
    /// What the call says, `WouldBlock` too, but not `Interrupted`.
    pub(crate) fn attempt(&mut self, manner: &mut Manner) -> io::Result<Gain> {
        loop {
            match self.attempt_once(manner) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // What an earlier attempt has begun goes on, or is done.
                Err(error) if self.call == Call::Connect => return self.note_connect(error),
                done => return done,
            }
        }
    }

    fn attempt_once(&mut self, manner: &mut Manner) -> io::Result<Gain> {
        if matches!(self.call, Call::Accept | Call::Connect) {
            manner.ensure_nonblocking(self.number)?;
        }
        let (number, part) = (self.number, self.part());
        let message = self.message.as_deref_mut();
        let answer = match self.call {
            Call::Accept => accept(number, message),
            Call::Connect => connect(number, message),
            // SAFETY: the part is room at the end of a buffer that outlives the call.
            Call::Recv => unsafe {
                libc::recv(number, part.iov_base, part.iov_len, libc::MSG_DONTWAIT)
            },
            // SAFETY: the part is of a buffer that outlives the call.
            Call::Send => unsafe { libc::send(number, part.iov_base, part.iov_len, SEND_NOW) },
            Call::RecvFrom => receive(number, message, part),
            Call::SendTo => send(number, message, part),
            // SAFETY: the part is room at the end of a buffer that outlives the call.
            Call::Read => return self.done(unsafe { manner.read(number, &part) }?),
            // SAFETY: the part is of a buffer that outlives the call.
            Call::Write => return self.done(unsafe { manner.write(number, &part) }?),
        };
        match usize::try_from(answer) {
            Ok(answer) => self.done(answer),
            Err(_) => Err(io::Error::last_os_error()),
        }
    }

    fn note_connect(&mut self, error: io::Error) -> io::Result<Gain> {
        match error.raw_os_error() {
            Some(libc::EINPROGRESS) => self.has_begun = true,
            Some(libc::EALREADY) if self.has_begun => {}
            Some(libc::EISCONN) if self.has_begun => return Ok(Gain::Connected),
            _ => return Err(error),
        }
        Err(io::ErrorKind::WouldBlock.into())
    }

    /// The call has succeeded with this answer. (An accepted number becomes ours.)
    fn done(&mut self, answer: usize) -> io::Result<Gain> {
        match self.call {
            Call::Accept => {
                // SAFETY: accept4(2) has just made it, and nobody else knows it.
                Ok(Gain::Accepted(unsafe { OwnedFd::from_raw_fd(answer as RawFd) }))
            }
            Call::Connect => Ok(Gain::Connected),
            _ => {
                self.note_moved(answer);
                Ok(Gain::Moved(answer))
            }
        }
    }

    /// The next `count` bytes were moved; of those received, the kernel has written them.
    fn note_moved(&mut self, count: usize) {
        debug_assert!(count <= self.left, "no more than was asked for");
        let count = count.min(self.left);
        self.left -= count;
        self.moved += count;
        if !self.call.receives() {
            self.at += count;
        } else if let Buf::Vec(bytes) = &mut self.buf {
            // SAFETY: there was room for `left` bytes, of which the kernel has written so many.
            unsafe { bytes.set_len(bytes.len() + count) };
        }
    }

    /// The bytes that are left, or the room for them.
    fn part(&mut self) -> libc::iovec {
        let length = self.left.min(MOST);
        let start = match &mut self.buf {
            Buf::None => ptr::null_mut(),
            Buf::Vec(bytes) if self.call.receives() => {
                bytes.spare_capacity_mut().as_mut_ptr().cast()
            }
            Buf::Vec(bytes) => bytes[self.at..].as_mut_ptr(),
            // What is sent is not written to.
            Buf::Static(bytes) => bytes[self.at..].as_ptr().cast_mut(),
        };
        libc::iovec { iov_base: start.cast(), iov_len: length }
    }
}

/// For mechanisms and tests that do a call's work themselves.
#[cfg(any(test, feature = "spi"))]
impl Prepared {
    /// What is to be done.
    pub fn wanted(&self) -> (RawFd, Call, usize) {
        (self.number, self.call, self.left)
    }

    /// Receives these bytes, as many as are asked for: gives how many that are.
    pub fn receive(&mut self, bytes: &[u8]) -> usize {
        assert!(self.call.receives(), "it does not receive");
        let count = bytes.len().min(self.left);
        if let Buf::Vec(buf) = &mut self.buf {
            buf.extend_from_slice(&bytes[..count]);
        }
        self.left -= count;
        self.moved += count;
        count
    }

    /// The bytes that are left to be sent.
    pub fn to_send(&self) -> &[u8] {
        &self.buf[self.at..self.at + self.left]
    }

    /// So many of them were sent.
    pub fn note_sent(&mut self, count: usize) {
        assert!(!self.call.receives() && count <= self.left, "it does not send so much");
        self.note_moved(count);
    }
}

impl Message {
    fn boxed(name: Name) -> Box<Self> {
        let part = libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 };
        // SAFETY: zero is a valid value of all its fields: numbers and pointers.
        let header = unsafe { std::mem::zeroed() };
        Box::new(Message { name, part, header })
    }

    /// The header for a call that moves this part: points into this box.
    fn header(&mut self, part: libc::iovec) -> *mut libc::msghdr {
        self.part = part;
        self.header.msg_name = self.name.bytes.as_mut_ptr().cast();
        self.header.msg_namelen = self.name.length;
        self.header.msg_iov = &raw mut self.part;
        self.header.msg_iovlen = 1;
        &raw mut self.header
    }

    /// The header for a call that receives a name too.
    fn header_for_a_name(&mut self, part: libc::iovec) -> *mut libc::msghdr {
        let header = self.header(part);
        self.header.msg_namelen = Name::ROOM as libc::socklen_t;
        header
    }

    /// A call that receives has been told whom from.
    fn note_name(&mut self) {
        self.name.length = self.header.msg_namelen;
    }
}

const SEND_NOW: libc::c_int = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
const ACCEPTED: libc::c_int = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;

fn accept(number: RawFd, message: Option<&mut Message>) -> isize {
    let Some(Message { name, .. }) = message else { return no_message() };
    name.length = Name::ROOM as libc::socklen_t;
    let place = name.bytes.as_mut_ptr().cast();
    // SAFETY: there is room for `length` bytes, and both outlive the call.
    let answer = unsafe { libc::accept4(number, place, &mut name.length, ACCEPTED) };
    answer as isize
}

fn connect(number: RawFd, message: Option<&mut Message>) -> isize {
    let Some(Message { name, .. }) = message else { return no_message() };
    // SAFETY: there are `length` bytes, and they outlive the call.
    let answer = unsafe { libc::connect(number, name.bytes.as_ptr().cast(), name.length) };
    answer as isize
}

fn receive(number: RawFd, message: Option<&mut Message>, part: libc::iovec) -> isize {
    let Some(message) = message else { return no_message() };
    let header = message.header_for_a_name(part);
    // SAFETY: the header points into its own box and to room in a buffer; they outlive the call.
    let answer = unsafe { libc::recvmsg(number, header, libc::MSG_DONTWAIT) };
    if answer >= 0 {
        message.note_name();
    }
    answer
}

fn send(number: RawFd, message: Option<&mut Message>, part: libc::iovec) -> isize {
    let Some(message) = message else { return no_message() };
    let header = message.header(part);
    // SAFETY: the header points into its own box and to a part of a buffer; they outlive the call.
    unsafe { libc::sendmsg(number, header, SEND_NOW) }
}

/// [`Prepared::new`] gives every call that needs one its message.
fn no_message() -> isize {
    debug_assert!(false, "a call without its message");
    -1
}

/// Checks that the buffer has what the call needs, and makes room.
fn make_room(call: Call, buf: &mut Buf, at: usize, left: usize) -> io::Result<()> {
    let refused = |why| Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    match (call, buf) {
        (Call::Accept | Call::Connect, _) => Ok(()),
        (Call::Recv | Call::RecvFrom | Call::Read, Buf::Vec(bytes)) => {
            bytes.try_reserve(left).map_err(|_| io::ErrorKind::OutOfMemory.into())
        }
        (Call::Recv | Call::RecvFrom | Call::Read, _) => refused("only a Vec can be received into"),
        (Call::Send | Call::SendTo | Call::Write, buf) => {
            match at.checked_add(left).is_some_and(|end| end <= buf.len()) {
                true => Ok(()),
                false => refused("the range exceeds the buffer"),
            }
        }
    }
}

/// Shuts a socket down, which never blocks.
///
/// # Errors
///
/// What shutdown(2) says.
pub(crate) fn shutdown(fd: BorrowedFd<'_>, how: std::net::Shutdown) -> io::Result<()> {
    let how = match how {
        std::net::Shutdown::Read => libc::SHUT_RD,
        std::net::Shutdown::Write => libc::SHUT_WR,
        std::net::Shutdown::Both => libc::SHUT_RDWR,
    };
    // SAFETY: no memory is passed.
    super::checked(unsafe { libc::shutdown(fd.as_raw_fd(), how) })?;
    Ok(())
}

impl fmt::Debug for Prepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prepared")
            .field("number", &self.number)
            .field("call", &self.call)
            .field("buf", &self.buf)
            .field("left", &self.left)
            .field("moved", &self.moved)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
