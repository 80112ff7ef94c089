//! Thousands of files, up to the limit on open files. For cases with a process of their own.

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

/// Descriptors left to the test harness, the poller and the case.
const SPARE: usize = 100;

/// Returns how many of `wanted` files a case may open. Prints a note if that is fewer, and skips
/// the case if it is too few.
pub(super) fn fd_budget(cx: &TestContext, wanted: usize) -> usize {
    let resource = Resource::RLIMIT_NOFILE;
    let (soft, hard) = getrlimit(resource).unwrap_or_else(|e| panic!("getrlimit: {e}"));
    // Many systems have a soft limit of 1,024.
    setrlimit(resource, hard, hard)
        .unwrap_or_else(|error| panic!("RLIMIT_NOFILE from {soft} to {hard}: {error}"));
    let open = open_fds().len();
    let room = usize::try_from(hard).unwrap_or(usize::MAX).saturating_sub(open + SPARE);
    let why = format!("RLIMIT_NOFILE is {hard}, {open} files are open");
    if room < SPARE {
        cx.skip(why);
    }
    if room < wanted {
        cx.note(&format!("{room} files instead of {wanted}: {why}"));
    }
    room.min(wanted)
}

/// The writer of a pipe and its readers, each opened separately. The writer reports an error once
/// the last reader is closed, so one descriptor tells whether all sources were released.
pub(super) struct Group {
    pub(super) readers: Vec<Source>,
    pub(super) writer: OwnedFd,
}

/// Readers of a group. More would be slow: the kernel keeps them in lists.
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

    /// Returns true if the last reader has been closed.
    pub(super) fn has_no_reader(&self) -> bool {
        oracle(&self.writer, PollFlags::empty()).contains(PollFlags::POLLERR)
    }
}

/// Creates idle groups with `wanted` sources, or fewer within the limit.
pub(super) fn groups(cx: &TestContext, wanted: usize) -> Vec<Group> {
    let room = fd_budget(cx, wanted + wanted / GROUP);
    (0..room / (GROUP + 1)).map(|_| Group::new()).collect()
}

/// Returns the mode of a source when all modes are used.
pub(super) fn mode_of(token: usize) -> Mode {
    MODES[token % MODES.len()]
}

/// Registers every reader for reading; tokens count from 0, and modes are those of [`mode_of`].
pub(super) fn register_all(harness: &mut ReadinessHarness, groups: &[Group]) -> Vec<Key> {
    let readers = groups.iter().flat_map(|group| &group.readers).enumerate();
    readers.map(|(token, one)| harness.register(one.clone(), token, READ, mode_of(token))).collect()
}

/// Returns `wanted` streams connected in pairs, each with a byte to read; or fewer within the
/// limit, a multiple of 14.
pub(super) fn ready_streams(cx: &TestContext, wanted: usize) -> Vec<Arc<UnixStream>> {
    let pairs = fd_budget(cx, wanted) / 14 * 7;
    let mut streams = Vec::with_capacity(pairs * 2);
    for _ in 0..pairs {
        let (local, peer) = stream();
        put(&peer, b"x");
        put(&local, b"x");
        streams.extend([local, Arc::new(peer)]);
    }
    streams
}
