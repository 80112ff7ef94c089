//! The parts of a message other than its bytes: files, an address, control messages.

use super::Address;
use crate::sys::file::SourceFd;
use bitflags::bitflags;
use std::os::fd::AsFd;
use std::sync::Arc;

/// The parts of a message that [`Op::send_msg`](crate::Op::send_msg) sends with the bytes, as
/// sendmsg(2) does.
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// use quintpoll::{Backend, Events, Message, Op, Outcome, Token};
/// use std::{fs::File, os::unix::net::UnixStream, sync::Arc};
///
/// let (sender, receiver) = UnixStream::pair()?;
/// let mut poller = Backend::best().open()?;
/// let sender = poller.register_for_ops(Arc::new(sender))?;
/// let receiver = poller.register_for_ops(Arc::new(receiver))?;
///
/// let message = Message::new().file(Arc::new(File::open("/dev/null")?));
/// poller.submit(Op::send_msg(sender, "take this", .., message), Token(1))?;
/// poller.submit(Op::recv_msg(receiver, Vec::new(), 64), Token(2))?;
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
#[must_use = "a message is an argument of `Op::send_msg`"]
#[doc(alias("msghdr", "sendmsg"))]
pub struct Message {
    pub(crate) to: Option<Address>,
    pub(crate) files: Vec<SourceFd>,
    pub(crate) control: Vec<Control>,
}

impl Message {
    /// Makes a message without further parts.
    pub fn new() -> Self {
        Message::default()
    }

    /// Sets the address of the receiver. (A connected socket needs none.)
    pub fn to(mut self, address: impl Into<Address>) -> Self {
        self.to = Some(address.into());
        self
    }

    /// Passes this file after those added before (`SCM_RIGHTS`). The receiver gets a duplicate. The
    /// operation keeps the handle until it has completed, and `as_fd()` is called once, now.
    #[doc(alias = "SCM_RIGHTS")]
    pub fn file(mut self, file: Arc<dyn AsFd + Send + Sync>) -> Self {
        self.files.push(SourceFd::new(file));
        self
    }

    /// Adds a control message (cmsg(3)). `submit` refuses `SCM_RIGHTS` of `SOL_SOCKET`: pass
    /// [files](Message::file).
    #[doc(alias("cmsg", "ancillary"))]
    pub fn control(mut self, control: Control) -> Self {
        self.control.push(control);
        self
    }
}

/// A control message, of any protocol (cmsg(3)). The numbers are those of the crate `libc`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[doc(alias("cmsghdr", "ancillary"))]
pub struct Control {
    /// The protocol, such as `SOL_SOCKET`.
    pub level: i32,
    /// The type, such as `SCM_CREDENTIALS`.
    pub kind: i32,
    /// The data, in the form that the protocol's manual page gives.
    pub data: Vec<u8>,
}

bitflags! {
    /// The flags that recvmsg(2) returns for a message.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct MessageFlags: u32 {
        /// `MSG_TRUNC`: the message was longer than the buffer, and the rest is lost.
        const TRUNCATED = 1;
        /// `MSG_CTRUNC`: some control messages or passed files are lost, because they exceeded the
        /// space for them or no descriptor was free.
        const CONTROL_TRUNCATED = 1 << 1;
        /// `MSG_EOR`: a record ends here.
        const END_OF_RECORD = 1 << 2;
    }
}
