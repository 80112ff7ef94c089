//! Very many files, as far as the limit on open files goes. For cases with a process of their own.

use super::util::*;
use crate::event::Mode;
use crate::key::Key;
use crate::poller::Source;
use nix::fcntl::OFlag;
use nix::poll::PollFlags;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::stat::Mode as Permissions;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

/// What the test harness, the poller and the case's other files may take.
const SPARE: usize = 100;

/// How many of `wanted` files a case may open. If that is not all of them it is said, and where it
/// is too few for anything the case is skipped.
pub(super) fn room_for(cx: &TestContext, wanted: usize) -> usize {
    let resource = Resource::RLIMIT_NOFILE;
    let (soft, hard) = getrlimit(resource).unwrap_or_else(|e| panic!("getrlimit: {e}"));
    // Many systems begin with room for 1,024 files.
    setrlimit(resource, hard, hard)
        .unwrap_or_else(|error| panic!("RLIMIT_NOFILE from {soft} to {hard}: {error}"));
    let open = open_numbers().len();
    let room = usize::try_from(hard).unwrap_or(usize::MAX).saturating_sub(open + SPARE);
    let why = format!("RLIMIT_NOFILE is {hard}, and {open} files are open already");
    if room < SPARE {
        cx.skip(why);
    }
    if room < wanted {
        cx.note(&format!("{room} files instead of {wanted}: {why}"));
    }
    room.min(wanted)
}

/// The readers of one pipe, each opened by itself, and the writer. So there are many sources to
/// few other ends, and yet it shows whether all were let go: the writer sees the end when the last
/// reader has gone.
pub(super) struct Group {
    pub(super) readers: Vec<Source>,
    pub(super) writer: OwnedFd,
}

/// How many readers a group has. More of them would cost the kernel, which keeps them in lists.
pub(super) const GROUP: usize = 100;

impl Group {
    fn new() -> Self {
        let (first, writer) = pipe();
        let path = format!("/proc/self/fd/{}", first.as_raw_fd());
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let open = |_| -> Source {
            let opened = nix::fcntl::open(&*path, flags, Permissions::empty());
            Arc::new(opened.unwrap_or_else(|error| panic!("{path}: {error}")))
        };
        let mut readers: Vec<Source> = (1..GROUP).map(open).collect();
        readers.push(Arc::new(first));
        Group { readers, writer }
    }

    /// Whether the last reader has gone.
    pub(super) fn is_abandoned(&self) -> bool {
        oracle(&self.writer, PollFlags::empty()).contains(PollFlags::POLLERR)
    }
}

/// As many idle groups as `wanted` sources make, within the limit.
pub(super) fn groups(cx: &TestContext, wanted: usize) -> Vec<Group> {
    let room = room_for(cx, wanted + wanted / GROUP);
    (0..room / (GROUP + 1)).map(|_| Group::new()).collect()
}

/// The mode of a source when all are to occur.
pub(super) fn mode_of(token: usize) -> Mode {
    MODES[token % MODES.len()]
}

/// Registers all of them for reading; tokens count from 0, and go with [`mode_of`].
pub(super) fn register_all(harness: &mut ReadinessHarness, groups: &[Group]) -> Vec<Key> {
    let readers = groups.iter().flat_map(|group| &group.readers).enumerate();
    readers.map(|(token, one)| harness.register(one.clone(), token, READ, mode_of(token))).collect()
}

/// `wanted` streams that are each other's peers, with a byte to read on each; or fewer, within the
/// limit, but a multiple of 14.
pub(super) fn ready_streams(cx: &TestContext, wanted: usize) -> Vec<Arc<UnixStream>> {
    let pairs = room_for(cx, wanted) / 14 * 7;
    let mut streams = Vec::with_capacity(pairs * 2);
    for _ in 0..pairs {
        let (here, there) = stream();
        put(&there, b"x");
        put(&here, b"x");
        streams.extend([here, Arc::new(there)]);
    }
    streams
}
