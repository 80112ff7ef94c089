//! The arguments of socket calls that are passed by pointer: addresses, headers, control messages.
#![allow(unsafe_code)]

use super::super::file::SourceFd;
use super::control::{self, Ancillary};
use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::ptr;

/// A socket address, as the kernel writes it.
#[derive(Clone, Copy)]
pub(crate) struct SockAddr {
    pub(super) bytes: [u8; SockAddr::MAX_LEN],
    pub(super) length: libc::socklen_t,
}

impl SockAddr {
    pub(super) const MAX_LEN: usize = size_of::<libc::sockaddr_storage>();

    /// Copies an address; returns `None` if it is too long.
    pub(crate) fn new(address: &[u8]) -> Option<Self> {
        let mut bytes = [0; SockAddr::MAX_LEN];
        bytes.get_mut(..address.len())?.copy_from_slice(address);
        Some(SockAddr { bytes, length: address.len() as libc::socklen_t })
    }

    pub(super) fn empty() -> Self {
        SockAddr { bytes: [0; SockAddr::MAX_LEN], length: 0 }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        // The kernel returns the full length even if it has truncated the address.
        &self.bytes[..SockAddr::MAX_LEN.min(self.length as usize)]
    }

    /// Returns the arguments for a call that reads the address.
    pub(super) fn for_reading(&self) -> (*const libc::sockaddr, libc::socklen_t) {
        (self.bytes.as_ptr().cast(), self.length)
    }

    /// Returns the arguments for a call that writes the address.
    pub(super) fn for_writing(&mut self) -> (*mut libc::sockaddr, *mut libc::socklen_t) {
        self.length = SockAddr::MAX_LEN as libc::socklen_t;
        (self.bytes.as_mut_ptr().cast(), &raw mut self.length)
    }
}

/// The arguments of sendmsg(2) and recvmsg(2), at a fixed address.
pub(crate) struct Message {
    name: SockAddr,
    part: libc::iovec,
    header: libc::msghdr,
    /// Control messages in the kernel's layout, or space for them.
    control: Vec<u64>,
    /// The length of `control` in bytes.
    control_length: usize,
    /// The files to pass, kept open until this value is dropped.
    files: Vec<SourceFd>,
    /// Ancillary data that was received.
    received: Received,
}

/// The ancillary data and flags of a received message.
#[derive(Debug, Default)]
pub(crate) struct Received {
    pub(crate) ancillary: Ancillary,
    /// The flags of recvmsg(2): `MSG_TRUNC` and so on.
    pub(crate) flags: libc::c_int,
}

impl Message {
    pub(crate) fn boxed(name: SockAddr) -> Box<Self> {
        let part = libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 };
        // SAFETY: all fields are integers and pointers, for which zero is a value.
        let header = unsafe { std::mem::zeroed() };
        let (control, control_length, files, received) = Default::default();
        Box::new(Message { name, part, header, control, control_length, files, received })
    }

    /// Makes a message to send, with these files and control messages.
    ///
    /// # Errors
    ///
    /// `InvalidInput`: a control message would pass descriptors.
    pub(crate) fn with(
        name: Option<SockAddr>,
        files: Vec<SourceFd>,
        others: &[(i32, i32, &[u8])],
    ) -> io::Result<Box<Self>> {
        let mut message = Message::boxed(name.unwrap_or_else(SockAddr::empty));
        let raw_fds: Vec<RawFd> = files.iter().map(SourceFd::raw_fd).collect();
        (message.control, message.control_length) = control::encode(&raw_fds, others)?;
        message.files = files;
        Ok(message)
    }

    /// Makes a message to receive, with space for ancillary data.
    pub(super) fn with_control_space() -> Box<Self> {
        let mut message = Message::boxed(SockAddr::empty());
        message.control = vec![0; control::CONTROL_SPACE / size_of::<u64>()];
        message.control_length = control::CONTROL_SPACE;
        message
    }

    pub(super) fn name(&mut self) -> &mut SockAddr {
        &mut self.name
    }

    pub(super) fn named(&self) -> &SockAddr {
        &self.name
    }

    /// Returns the header of a call that transfers `part`, which points into this box.
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

    /// Returns the header of a call that also receives an address.
    pub(super) fn header_with_name(&mut self, part: libc::iovec) -> *mut libc::msghdr {
        self.name.length = SockAddr::MAX_LEN as libc::socklen_t;
        self.header(part)
    }

    /// Stores the address and ancillary data after a successful receive.
    ///
    /// # Safety
    ///
    /// The call must have been made with this box's header, and this be called once for it.
    pub(super) unsafe fn note_received(&mut self) {
        self.name.length = self.header.msg_namelen;
        if self.control_length > 0 {
            let length = self.header.msg_controllen;
            // SAFETY: the kernel has written `length` bytes, and the files among them have no owner
            // yet.
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
    /// Takes the received files.
    pub(crate) fn take_files(&mut self) -> Vec<OwnedFd> {
        std::mem::take(&mut self.ancillary.files)
    }
}
