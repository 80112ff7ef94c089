//! Files that are passed with messages, by plain calls, and how it is seen that none is lost or
//! kept: each is an end of a pipe of its own, of which the other end is watched.

use nix::cmsg_space;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use nix::unistd::{close, pipe2};
use std::collections::VecDeque;
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// So many are made for one player at most.
const MOST: usize = 12;
/// How long the kernel may take to close one.
const PATIENCE: Duration = Duration::from_secs(2);
/// No message brings more.
const MOST_AT_ONCE: usize = 8;

/// The pipes of one player.
#[derive(Debug, Default)]
pub struct Parcels {
    watched: Vec<OwnedFd>,
}

impl Parcels {
    /// Makes files to be passed; fewer if there are many already. Gives them and what they are.
    ///
    /// # Panics
    ///
    /// Here and everywhere in this module: if a system call fails in a way it should not.
    pub fn make(&mut self, count: usize) -> Vec<(Arc<OwnedFd>, u64)> {
        let count = count.min(MOST.saturating_sub(self.watched.len()));
        let make = |_| {
            let (watched, passed) = pipe2(OFlag::O_CLOEXEC).expect("pipe2");
            let identity = identity(passed.as_raw_fd());
            self.watched.push(watched);
            (Arc::new(passed), identity)
        };
        (0..count).map(make).collect()
    }

    /// How many of those that were passed are still open somewhere. The kernel may close the last
    /// of them a moment later.
    pub fn left(&self) -> usize {
        let deadline = Instant::now() + PATIENCE;
        let is_open = |file: &&OwnedFd| {
            let mut entry = [PollFd::new(file.as_fd(), PollFlags::empty())];
            let left = deadline.saturating_duration_since(Instant::now());
            let left = PollTimeout::try_from(left).expect("it is short");
            poll(&mut entry, left).expect("poll(2)") == 0
        };
        self.watched.iter().filter(is_open).count()
    }
}

/// What file it is, whoever has it and by whichever number.
pub fn identity(file: RawFd) -> u64 {
    std::fs::metadata(format!("/proc/self/fd/{file}")).expect("it is open").ino()
}

/// Sends once, with files.
///
/// # Errors
///
/// What the call says.
pub fn send_with(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    files: &[Arc<OwnedFd>],
) -> Result<usize, Errno> {
    let numbers: Vec<RawFd> = files.iter().map(|file| file.as_raw_fd()).collect();
    let rights = [ControlMessage::ScmRights(&numbers)];
    let control = if numbers.is_empty() { &[][..] } else { &rights[..] };
    let parts = [IoSlice::new(bytes)];
    sendmsg::<()>(socket.as_raw_fd(), &parts, control, MsgFlags::MSG_NOSIGNAL, None)
}

/// Receives once. Gives what files came along, and closes them.
///
/// # Errors
///
/// What the call says.
pub fn receive(socket: BorrowedFd<'_>, bytes: &mut [u8]) -> Result<(usize, Vec<u64>), Errno> {
    let mut room = cmsg_space!([RawFd; MOST_AT_ONCE]);
    let mut parts = [IoSliceMut::new(bytes)];
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut room), flags)?;
    let mut files = Vec::new();
    for control in message.cmsgs().expect("there is room for all") {
        let ControlMessageOwned::ScmRights(numbers) = control else { continue };
        for number in numbers {
            files.push(identity(number));
            close(number).expect("close");
        }
    }
    Ok((message.bytes, files))
}

/// The files that went out of one socket: those that completions have told of, and those that
/// were received at the other side, whichever comes first.
#[derive(Debug, Default)]
pub struct Passing {
    told: VecDeque<u64>,
    received: VecDeque<u64>,
}

impl Passing {
    /// A completion tells that these were passed.
    ///
    /// # Errors
    ///
    /// If others have been received.
    pub fn note_told(&mut self, files: &[u64]) -> Result<(), String> {
        self.told.extend(files);
        self.settle()
    }

    /// These were received.
    ///
    /// # Errors
    ///
    /// If they are not those that come next.
    pub fn note_received(&mut self, files: &[u64]) -> Result<(), String> {
        self.received.extend(files);
        self.settle()
    }

    fn settle(&mut self) -> Result<(), String> {
        while let (Some(&told), Some(&received)) = (self.told.front(), self.received.front()) {
            if told != received {
                return Err(format!("file {received} was received in place of {told}"));
            }
            self.told.pop_front();
            self.received.pop_front();
        }
        Ok(())
    }

    /// Whether all that was told has been received, and what was received else may be some of
    /// these, which were submitted.
    pub fn is_even(&self, submitted: &[u64]) -> bool {
        self.told.is_empty() && self.received.iter().all(|file| submitted.contains(file))
    }

    /// There is nobody who could tell of them, or receive them.
    pub fn clear(&mut self) {
        self.told.clear();
        self.received.clear();
    }
}
