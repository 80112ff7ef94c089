//! Clauses P: process.

use super::util::*;
use crate::backend::Backend;
use crate::event::{Events, Mode, Readiness, Token};
use crate::sys::staging;
use crate::waker::Waker;
use nix::poll::PollFlags;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::collections::BTreeSet;
use std::io;

fn names_fork(answer: io::Result<impl Sized>) -> bool {
    answer.is_err_and(|error| error.to_string().contains("fork"))
}

pub(super) fn p1_inherited_poller_fails_in_child(cx: &TestContext) {
    for mode in MODES {
        let mut harness = cx.harness(4);
        let (local, peer) = stream();
        let (other, _other_peer) = stream();
        let key = harness.register(local.clone(), 1, READ, mode);
        let waker = harness.poller.waker();
        let mut inherited = Some(harness);
        let status = staging::in_forked_child(|| {
            let Some(mut harness) = inherited.take() else { return 1 };
            let poller = &mut *harness.poller;
            let refused = names_fork(poller.register(other.clone(), Token(2), READ, mode))
                && names_fork(poller.modify(key, Token(3), WRITE, Mode::Level))
                && names_fork(poller.rearm(key, READ))
                && names_fork(poller.drained(key, READ))
                && names_fork(poller.wait(&mut harness.events, Some(ZERO)))
                && names_fork(poller.deregister(key));
            waker.wake();
            drop(harness);
            // A poller made in the child works, and so does its waker.
            let mut own = cx.harness(4);
            own.register(local.clone(), 4, WRITE, Mode::Level);
            own.poller.waker().wake();
            own.expect_now(&[(4, Readiness::WRITABLE)], "a poller made in the child");
            i32::from(!(refused && own.events.woken()))
        });
        let status = status.unwrap_or_else(|error| panic!("fork: {error}"));
        assert_eq!(status, 0, "a call in the child must fail with an error that names fork");
        let Some(mut harness) = inherited else { panic!("the parent has lost its poller") };
        harness.expect_silence("the child must not affect the parent");
        put(&peer, b"x");
        harness
            .expect_now(&[(1, Readiness::READABLE)], "the parent's registration must still work");
        harness.deregister(key);
    }
}

/// A page, or a part of one if pages are larger.
const PAGE: usize = 4096;

/// Allocates memory in all gaps of the address space, each piece with its own mark.
fn fill_address_gaps() -> Vec<(u8, &'static mut [u8])> {
    // Small pieces fill every gap; a large one shows an unmap by length.
    let lengths = [256, 64, 16, 4].into_iter().flat_map(|pages| [pages; 16]).chain([1; 2048]);
    let piece = |(at, pages): (usize, usize)| {
        let memory = staging::new_memory(pages * PAGE);
        let memory = memory.unwrap_or_else(|error| panic!("mmap: {error}"));
        let mark = (at % 251 + 1) as u8;
        memory.fill(mark);
        (mark, memory)
    };
    lengths.enumerate().map(piece).collect()
}

pub(super) fn p1_poller_drop_in_child_keeps_childs_memory(cx: &TestContext) {
    for mode in MODES {
        // A poller that has reported events and has more to report.
        let mut harness = cx.harness(7);
        let pairs: Vec<_> = (0..50).map(|_| stream()).collect();
        let streams = pairs.iter().enumerate();
        let keys: Vec<_> = streams
            .map(|(token, (local, _))| harness.register(local.clone(), token, READ, mode))
            .collect();
        harness.expect_silence("nothing was sent");
        pairs.iter().step_by(2).for_each(|(_, peer)| put(peer, b"x"));
        let mut seen: BTreeSet<usize> =
            harness.ready_now().into_iter().map(|event| event.0).collect();
        let (before, mut inherited) = (open_fds(), Some(harness));
        let status = staging::in_forked_child(|| {
            // Memory mapped by the parent alone is a gap in the child, filled here.
            let pieces = fill_address_gaps();
            let made = [cx.harness(4), cx.harness(4)];
            drop(inherited.take());
            let is_kept = |page: &[u8], mark| page[0] == mark && page[PAGE - 1] == mark;
            let intact = |(mark, memory): &(u8, &mut [u8])| {
                memory.chunks_exact(PAGE).all(|page| is_kept(page, *mark))
            };
            let survived = pieces.iter().all(intact);
            drop(made);
            i32::from(!(survived && pieces.iter().all(intact)))
        });
        let status =
            status.unwrap_or_else(|error| panic!("dropping the poller in the child: {error}"));
        assert_eq!(status, 0, "dropping a poller changed memory of the child");
        let Some(mut harness) = inherited else { panic!("the parent has lost its poller") };
        assert_eq!(open_fds(), before, "a descriptor of the parent was closed");
        // Reports left over, and one of a source that has not changed since.
        put(&pairs[49].1, b"x");
        (0..10).for_each(|_| seen.extend(harness.ready_now().into_iter().map(|event| event.0)));
        let ready: BTreeSet<usize> = (0..50).step_by(2).chain([49]).collect();
        assert_eq!(seen, ready, "the parent's registrations must still work, {mode:?}");
        for (&key, (local, _)) in keys.iter().zip(&pairs) {
            drain(&**local);
            harness.modify(key, 99, READ, mode);
        }
        harness.expect_silence("every stream is drained");
        put(&pairs[48].1, b"y");
        harness.expect_now(&[(99, Readiness::READABLE)], "a modified registration");
        keys.into_iter().for_each(|key| harness.deregister(key));
    }
}

/// Returns true if a poller of this backend reports a byte and a wake.
fn works(backend: Backend) -> io::Result<bool> {
    let (mut poller, mut events) = (backend.open()?, Events::with_capacity(4));
    let (local, peer) = stream();
    let key = poller.register(local.clone(), Token(5), READ, Mode::Edge)?;
    put(&peer, b"x");
    poller.waker().wake();
    poller.wait(&mut events, Some(LONG))?;
    let is_reported =
        events.iter().any(|event| event.key == key && event.readiness == Readiness::READABLE);
    let is_woken = events.woken();
    poller.deregister(key)?;
    drop(local);
    Ok(is_reported && is_woken && oracle(&peer, PollFlags::POLLIN).contains(PollFlags::POLLHUP))
}

pub(super) fn p1_child_opens_pollers_of_all_backends(cx: &TestContext) {
    // Checked in the parent: a backend missing in the child is a failure.
    let available = |backend: &Backend| backend.is_available().is_ok();
    let kinds: Vec<Backend> = Backend::ALL.into_iter().filter(available).collect();
    assert!(!kinds.is_empty(), "no backend is available");
    let mut harness = cx.harness(4);
    let (local, peer) = stream();
    harness.register(local.clone(), 1, READ, Mode::Edge);
    let mut inherited = Some(harness);
    let status = staging::in_forked_child(|| {
        // With the inherited poller, after its drop, and in a grandchild.
        let all_work = || {
            kinds.iter().all(|&backend| match works(backend) {
                Ok(works) => works,
                Err(error) => panic!("{backend} in the child: {error}"),
            })
        };
        let inherited_alive = all_work();
        drop(inherited.take());
        let after = all_work();
        let grandchild = staging::in_forked_child(|| i32::from(!all_work()));
        i32::from(!(inherited_alive && after && grandchild.is_ok_and(|status| status == 0)))
    });
    let status = status.unwrap_or_else(|error| panic!("fork: {error}"));
    assert_eq!(status, 0, "a backend failed in the child");
    let Some(mut harness) = inherited else { panic!("the parent has lost its poller") };
    harness.expect_silence("the child must not affect the parent");
    put(&peer, b"x");
    harness.expect_now(&[(1, Readiness::READABLE)], "the parent's registration must still work");
}

pub(super) fn p2_internal_fds_are_close_on_exec(cx: &TestContext) {
    let before = open_fds();
    let mut harness = cx.harness(4);
    let (local, peer) = stream();
    let mine = [std::os::fd::AsRawFd::as_raw_fd(&*local), std::os::fd::AsRawFd::as_raw_fd(&peer)];
    harness.register(local, 1, BOTH, Mode::Level);
    harness.ready_now();
    let internal = open_fds().into_iter().filter(|n| !before.contains(n) && !mine.contains(n));
    for fd in internal {
        let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}"));
        let info = info.unwrap_or_else(|error| panic!("fdinfo of {fd}: {error}"));
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
        let flags = flags.and_then(|flags| i32::from_str_radix(flags.trim(), 8).ok());
        let is_closed = flags.is_some_and(|flags| flags & libc::O_CLOEXEC != 0);
        let what = std::fs::read_link(format!("/proc/self/fd/{fd}"));
        assert!(is_closed, "{fd}, {what:?}, would stay open across exec: {info}");
    }
}

pub(super) fn p4_wakers_cross_threads(cx: &TestContext) {
    fn crosses_threads<T: Send + Sync + Clone + 'static>(value: T) -> T {
        value
    }
    let mut harness = cx.harness(1);
    let waker: Waker = crosses_threads(harness.poller.waker());
    let thread = std::thread::spawn(move || waker.wake());
    harness.wait(None);
    assert!(harness.events.woken());
    thread.join().unwrap_or_else(|_| panic!("the waking thread failed"));
}

fn set_file_limit(soft: u64) -> u64 {
    let limits = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or_else(|e| panic!("getrlimit: {e}"));
    setrlimit(Resource::RLIMIT_NOFILE, soft.min(limits.1), limits.1)
        .unwrap_or_else(|error| panic!("setrlimit: {error}"));
    limits.0
}

pub(super) fn p5_failed_open_leaves_no_fds_behind(cx: &TestContext) {
    drop(cx.poller());
    let before = open_fds();
    let highest = before.last().map_or(0, |&fd| fd as u64);
    // One more descriptor each time, until a poller can be opened.
    for spare in 1.. {
        let limit = set_file_limit(highest + spare);
        let opened = cx.try_poller();
        set_file_limit(limit);
        let Err(error) = opened else { break };
        assert_eq!(error.raw_os_error(), Some(libc::EMFILE), "{error}");
        assert_eq!(open_fds(), before, "a failed open left descriptors open");
    }
    assert_eq!(open_fds(), before, "a descriptor was left open");
}

pub(super) fn p5_lowered_fd_limit_loses_no_event(cx: &TestContext) {
    for mode in MODES {
        let mut harness = cx.harness(64);
        let pairs: Vec<_> = (0..40).map(|_| stream()).collect();
        for (token, (local, peer)) in pairs.iter().enumerate() {
            harness.register(local.clone(), token, READ, mode);
            put(peer, b"x");
        }
        let limit = set_file_limit(10);
        let waited = harness.poller.wait(&mut harness.events, Some(ZERO));
        set_file_limit(limit);
        let mut seen = match waited {
            Ok(()) => harness.reported(),
            Err(error) => {
                let message = error.to_string();
                assert!(
                    message.contains("RLIMIT_NOFILE"),
                    "the error must name the limit: {message}"
                );
                Vec::new()
            }
        };
        if seen.len() < pairs.len() {
            seen.extend(harness.ready_now());
        }
        seen.sort_by_key(|event| event.0);
        let all: Reported = (0..40).map(|token| (token, Readiness::READABLE)).collect();
        assert_eq!(seen, all, "{mode:?}");
    }
}
