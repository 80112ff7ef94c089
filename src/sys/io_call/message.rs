//! What the calls for sockets are told by pointers: addresses, headers, control messages.
#![allow(unsafe_code)]

use super::super::file::SourceFd;
use super::control::{self, Ancillary};
use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::ptr;

/// The address of a socket, as the kernel writes it.
#[derive(Clone, Copy)]
pub(crate) struct SockAddr {
    pub(super) bytes: [u8; SockAddr::ROOM],
    pub(super) length: libc::socklen_t,
}

impl SockAddr {
    pub(super) const ROOM: usize = size_of::<libc::sockaddr_storage>();

    /// `None` if it is longer than any address.
    pub(crate) fn new(address: &[u8]) -> Option<Self> {
        let mut bytes = [0; SockAddr::ROOM];
        bytes.get_mut(..address.len())?.copy_from_slice(address);
        Some(SockAddr { bytes, length: address.len() as libc::socklen_t })
    }

    pub(super) fn empty() -> Self {
        SockAddr { bytes: [0; SockAddr::ROOM], length: 0 }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        // The kernel says how long an address is also where it had no room for all of it.
        &self.bytes[..SockAddr::ROOM.min(self.length as usize)]
    }

    /// For a call that reads it.
    pub(super) fn for_reading(&self) -> (*const libc::sockaddr, libc::socklen_t) {
        (self.bytes.as_ptr().cast(), self.length)
    }

    /// For a call that writes it.
    pub(super) fn for_writing(&mut self) -> (*mut libc::sockaddr, *mut libc::socklen_t) {
        self.length = SockAddr::ROOM as libc::socklen_t;
        (self.bytes.as_mut_ptr().cast(), &raw mut self.length)
    }
}

/// What sendmsg(2) and recvmsg(2) are told by a pointer, at an address of its own.
pub(crate) struct Message {
    name: SockAddr,
    part: libc::iovec,
    header: libc::msghdr,
    /// Control messages as the kernel reads and writes them, or room for them.
    control: Vec<u64>,
    /// So many bytes of these are for the kernel.
    control_length: usize,
    /// Those that are passed: open until this value goes.
    files: Vec<SourceFd>,
    /// What came beside the bytes.
    received: Received,
}

/// What comes beside the bytes of a message.
#[derive(Debug, Default)]
pub(crate) struct Received {
    pub(crate) ancillary: Ancillary,
    /// Of recvmsg(2), `MSG_TRUNC` and so on.
    pub(crate) flags: libc::c_int,
}

impl Message {
    pub(crate) fn boxed(name: SockAddr) -> Box<Self> {
        let part = libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 };
        // SAFETY: zero is a valid value of all its fields: numbers and pointers.
        let header = unsafe { std::mem::zeroed() };
        let (control, control_length, files, received) = Default::default();
        Box::new(Message { name, part, header, control, control_length, files, received })
    }

    /// One to be sent, with these files and control messages.
    ///
    /// # Errors
    ///
    /// `InvalidInput`: a control message would pass files by number.
    pub(crate) fn with(
        name: Option<SockAddr>,
        files: Vec<SourceFd>,
        others: &[(i32, i32, &[u8])],
    ) -> io::Result<Box<Self>> {
        let mut message = Message::boxed(name.unwrap_or_else(SockAddr::empty));
        let numbers: Vec<RawFd> = files.iter().map(SourceFd::number).collect();
        (message.control, message.control_length) = control::encode(&numbers, others)?;
        message.files = files;
        Ok(message)
    }

    /// One to be received, with room for whatever may come beside the bytes.
    pub(super) fn with_control_space() -> Box<Self> {
        let mut message = Message::boxed(SockAddr::empty());
        message.control = vec![0; control::ROOM / size_of::<u64>()];
        message.control_length = control::ROOM;
        message
    }

    pub(super) fn name(&mut self) -> &mut SockAddr {
        &mut self.name
    }

    pub(super) fn named(&self) -> &SockAddr {
        &self.name
    }

    /// The header for a call that moves this part: points into this box.
    pub(super) fn header(&mut self, part: libc::iovec) -> *mut libc::msghdr {
        self.part = part;
        self.header.msg_name = match self.name.length {
            0 => ptr::null_mut(),
            _ => self.name.bytes.as_mut_ptr().cast(),
        };
        self.header.msg_namelen = self.name.length;
        self.header.msg_iov = &raw mut self.part;
        self.header.msg_iovlen = 1;
        self.header.msg_control = match self.control_length {
            0 => ptr::null_mut(),
            _ => self.control.as_mut_ptr().cast(),
        };
        self.header.msg_controllen = self.control_length as _;
        &raw mut self.header
    }

    /// The header for a call that receives a name too.
    pub(super) fn header_for_a_name(&mut self, part: libc::iovec) -> *mut libc::msghdr {
        self.name.length = SockAddr::ROOM as libc::socklen_t;
        self.header(part)
    }

    /// A call that receives has succeeded, and has told whom from and what else.
    ///
    /// # Safety
    ///
    /// It has to have been made with the header of this box, and this to be called once for it.
    pub(super) unsafe fn note_received(&mut self) {
        self.name.length = self.header.msg_namelen;
        if self.control_length > 0 {
            let length = self.header.msg_controllen;
            // SAFETY: the kernel has written so many bytes, and the files among them are ours.
            let ancillary = unsafe { control::decode(&self.control, length) };
            self.received = Received { ancillary, flags: self.header.msg_flags };
        }
    }

    pub(super) fn clear_name(&mut self) {
        self.name.length = 0;
    }

    pub(super) fn into_files(self: Box<Self>) -> Vec<SourceFd> {
        self.files
    }

    pub(super) fn take_received(&mut self) -> Received {
        std::mem::take(&mut self.received)
    }
}

impl Received {
    /// The files that were passed.
    pub(crate) fn take_files(&mut self) -> Vec<OwnedFd> {
        std::mem::take(&mut self.ancillary.files)
    }
}
