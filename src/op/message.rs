//! What a message carries beside its bytes: files, an address, control messages.

use super::Address;
use crate::sys::file::SourceFd;
use bitflags::bitflags;
use std::os::fd::AsFd;
use std::sync::Arc;

/// What [`Op::send_msg`](crate::Op::send_msg) sends beside the bytes, as sendmsg(2) does.
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// use quintpoll::{Backend, Events, Interest, Message, Mode, Op, Outcome, Token};
/// use std::{fs::File, os::unix::net::UnixStream, sync::Arc};
///
/// let (here, there) = UnixStream::pair()?;
/// let mut poller = Backend::best().open()?;
/// let none = Interest::empty();
/// let here = poller.register(Arc::new(here), Token(0), none, Mode::Level)?;
/// let there = poller.register(Arc::new(there), Token(0), none, Mode::Level)?;
///
/// let message = Message::new().file(Arc::new(File::open("/dev/null")?));
/// poller.submit(Op::send_msg(here, "take this", .., message), Token(1))?;
/// poller.submit(Op::recv_msg(there, Vec::new(), 64), Token(2))?;
/// let (mut events, mut passed) = (Events::with_capacity(8), Vec::new());
/// while passed.is_empty() {
///     poller.wait(&mut events, None)?;
///     for completion in events.completions() {
///         if let Outcome::Message(message) = completion.result? {
///             assert_eq!(&completion.buf[..], b"take this");
///             passed = message.files;
///         }
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Default)]
#[must_use = "it is for `Op::send_msg`"]
pub struct Message {
    pub(crate) to: Option<Address>,
    pub(crate) files: Vec<SourceFd>,
    pub(crate) control: Vec<Control>,
}

impl Message {
    /// Nothing but the bytes.
    pub fn new() -> Self {
        Message::default()
    }

    /// To this address. (On a connected socket there is no need to.)
    pub fn to(mut self, address: impl Into<Address>) -> Self {
        self.to = Some(address.into());
        self
    }

    /// With this file, after those named before (`SCM_RIGHTS`): the receiver gets a duplicate. It
    /// is the operation's too until that has completed, and `as_fd()` is called now, once.
    pub fn file(mut self, file: Arc<dyn AsFd + Send + Sync>) -> Self {
        self.files.push(SourceFd::new(file));
        self
    }

    /// With this control message (cmsg(3)). One of `SOL_SOCKET`, `SCM_RIGHTS` is refused by
    /// `submit`: pass [files](Message::file).
    pub fn control(mut self, control: Control) -> Self {
        self.control.push(control);
        self
    }
}

/// A control message, of any protocol (cmsg(3)). The numbers are those of the crate `libc`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Control {
    /// The protocol, such as `SOL_SOCKET`.
    pub level: i32,
    /// What it is there, such as `SCM_CREDENTIALS`.
    pub kind: i32,
    /// As its manual page says.
    pub data: Vec<u8>,
}

bitflags! {
    /// What recvmsg(2) says of a message as a whole.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct MessageFlags: u32 {
        /// `MSG_TRUNC`: the message was longer, and the rest is lost.
        const TRUNCATED = 1;
        /// `MSG_CTRUNC`: there was no room for all control messages, or not for all files that were
        /// passed, or no number free for them. Those are lost.
        const CONTROL_TRUNCATED = 1 << 1;
        /// `MSG_EOR`: a record ends here.
        const END_OF_RECORD = 1 << 2;
    }
}
