//! Requests and their CQEs, with each kind of task work, and errors of the setup.

mod groups;
mod operations;
mod silent;

use super::enter::timespec;
use super::*;
use crate::testing::{is_alone, making_children};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Uid, fork, setuid};
use std::os::fd::AsFd;

const IN: u16 = libc::POLLIN as u16;

fn size(requests: u32) -> Size {
    Size { requests, completions: 2 * requests }
}

fn ring(requests: u32, work: TaskWork) -> Ring {
    Ring::open(size(requests), &[work]).expect("this kernel has it")
}

fn counter() -> EventFd {
    EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK).expect("an eventfd")
}

fn poll(counter: &EventFd) -> Request {
    Request::Poll { fd: counter.as_fd().as_raw_fd(), bits: IN }
}

/// The event that a CQE reports.
#[derive(Debug)]
pub(crate) enum Completion {
    Request { user_data: u64, result: i32, more: bool },
    Operation { tag: u64, work: Work, result: io::Result<CallResult> },
    Partial { result: CallResult },
}

impl<F: FnMut(Completion)> TakeCompletions for F {
    fn on_request(&mut self, user_data: u64, result: i32, more: bool) {
        self(Completion::Request { user_data, result, more });
    }

    fn on_end(&mut self, tag: u64, work: Work, result: io::Result<CallResult>) {
        self(Completion::Operation { tag, work, result });
    }

    fn on_partial(&mut self, _tag: u64, result: CallResult, _partial_results: u8) {
        self(Completion::Partial { result });
    }
}

impl Ring {
    fn completions(&mut self) -> Vec<RequestResult> {
        let mut all = Vec::new();
        self.reap(|completion: Completion| all.push(RequestResult::of(completion)));
        all
    }
}

/// The completion of a request that is no operation.
#[derive(Debug, PartialEq, Eq)]
struct RequestResult {
    user_data: u64,
    result: i32,
    more: bool,
}

impl RequestResult {
    fn of(completion: Completion) -> Self {
        match completion {
            Completion::Request { user_data, result, more } => {
                RequestResult { user_data, result, more }
            }
            other => panic!("not a request: {other:?}"),
        }
    }
}

#[test]
fn poll_completes_on_each_write_until_cancelled() {
    for work in TaskWork::LADDER {
        let (mut ring, counter) = (ring(8, work), counter());
        assert!(ring.push(poll(&counter), 7));
        ring.enter(0, None).expect("an open file");
        assert_eq!(ring.completions(), [], "{work:?}");
        for _ in 0..3 {
            counter.write(1).expect("room");
            ring.enter(1, None).expect("an open file");
            let completed = RequestResult { user_data: 7, result: i32::from(IN), more: true };
            assert_eq!(ring.completions(), [completed], "{work:?}");
        }
        assert!(ring.push(Request::Cancel(7), 8));
        ring.enter(2, None).expect("both complete");
        let mut ends = ring.completions();
        ends.sort_by_key(|end| end.user_data);
        let ended = RequestResult { user_data: 7, result: -libc::ECANCELED, more: false };
        assert_eq!(
            ends,
            [ended, RequestResult { user_data: 8, result: 0, more: false }],
            "{work:?}"
        );
    }
}

#[test]
fn has_more_reports_pending_completions() {
    let (mut ring, counters) = (ring(64, TaskWork::Deferred), [(); 60].map(|()| counter()));
    for (at, counter) in counters.iter().enumerate() {
        assert!(ring.push(poll(counter), at as u64));
    }
    ring.enter(0, None).expect("open files");
    for _ in 0..100 {
        for counter in &counters {
            counter.write(1).expect("room");
        }
        let mut completed = 0;
        while ring.has_more() {
            ring.enter(0, None).expect("open files");
            completed += ring.completions().len();
        }
        assert_eq!(completed, counters.len());
    }
}

#[test]
fn full_ring_refuses_requests() {
    let (mut ring, counter) = (ring(2, TaskWork::Deferred), counter());
    assert_eq!(ring.room(), 2);
    assert!(ring.push(poll(&counter), 1) && ring.push(poll(&counter), 2));
    assert_eq!(ring.room(), 0);
    assert!(!ring.push(poll(&counter), 3));
    ring.enter(0, None).expect("an open file");
    assert_eq!(ring.room(), 2);
}

#[test]
fn invalid_request_does_not_block_later_ones() {
    for work in TaskWork::LADDER {
        let (mut ring, counter) = (ring(8, work), counter());
        counter.write(1).expect("room");
        // An invalid descriptor, followed by one that is ready.
        assert!(ring.push(Request::Poll { fd: -1, bits: IN }, 1));
        assert!(ring.push(poll(&counter), 2));
        ring.enter(2, None).expect("both complete");
        let results: Vec<_> = ring.completions().iter().map(|completed| completed.result).collect();
        assert_eq!(results, [-libc::EBADF, i32::from(IN)], "{work:?}");
    }
}

#[test]
fn full_completion_queue_is_reported_without_loss() {
    for work in TaskWork::LADDER {
        let mut ring = ring(2, work);
        let counters: Vec<_> = (0..12).map(|_| counter()).collect();
        for (at, counter) in counters.iter().enumerate() {
            assert!(ring.push(poll(counter), at as u64));
            ring.enter(0, None).expect("an open file");
        }
        assert!(!ring.reap(|completed: Completion| panic!("nothing has happened: {completed:?}")));
        for counter in &counters {
            counter.write(1).expect("room");
        }
        let (mut completed, mut was_full) = (Vec::new(), false);
        while completed.len() < counters.len() {
            ring.enter(1, None).expect("there is more");
            was_full |= ring.reap(|one: Completion| completed.push(RequestResult::of(one)));
        }
        assert!(was_full, "{work:?}: the queue holds four");
        assert!(completed.iter().any(|one| !one.more), "{work:?}: the overflow has ended some");
        let mut whose: Vec<_> = completed.iter().map(|one| one.user_data).collect();
        whose.sort_unstable();
        assert_eq!(whose, (0..12).collect::<Vec<_>>(), "{work:?}");
        assert_eq!(ring.lost(), 0);
    }
}

#[test]
fn enter_returns_after_its_timeout() {
    let mut ring = ring(8, TaskWork::Deferred);
    for timeout in [Duration::ZERO, Duration::from_nanos(1), Duration::from_millis(5)] {
        let started = std::time::Instant::now();
        ring.enter(1, Some(timeout)).expect("a timeout is no error");
        assert!(started.elapsed() >= timeout);
    }
    // A timeout beyond the range of the kernel's clock would end at once.
    let longest = format!("{:?}", timespec(Duration::MAX));
    assert!(longest.contains(&u32::MAX.to_string()), "{longest}");
}

#[test]
fn setup_errors_name_their_cause() {
    let error = io::Error::from_raw_os_error;
    for (errno, cause) in [
        (libc::ENOSYS, "the kernel has no io_uring"),
        (libc::EPERM, "forbids io_uring"),
        (libc::EACCES, "forbids io_uring"),
    ] {
        for explained_error in
            [setup_error::explain_setup(error(errno)), setup_error::explain(error(errno))]
        {
            assert_eq!(explained_error.kind(), io::ErrorKind::Unsupported);
            let text = explained_error.to_string();
            let is_ruled = text.contains("kernel.io_uring_disabled");
            assert!(text.contains(cause) || is_ruled, "{text}");
            assert!(text.contains(&error(errno).to_string()), "{text}");
        }
    }
    for errno in [libc::EMFILE, libc::ENFILE, libc::EINTR] {
        let explained_error = setup_error::explain_setup(error(errno));
        assert_eq!(
            explained_error.raw_os_error(),
            Some(errno),
            "a temporary shortage is unchanged"
        );
    }
    let explained_error = setup_error::explain(error(libc::ENOMEM));
    assert_eq!(
        explained_error.raw_os_error(),
        Some(libc::ENOMEM),
        "not a matter of RLIMIT_MEMLOCK"
    );
    assert_eq!(setup_error::too_old().kind(), io::ErrorKind::Unsupported);
}

#[test]
fn memlock_limit_shrinks_ring_then_fails() {
    let test = "sys::ring::tests::memlock_limit_shrinks_ring_then_fails";
    if !is_alone(test) {
        return;
    }
    if !Uid::effective().is_root() {
        return println!("skipped: the limit counts the memory of all processes of this user");
    }
    // A user without other processes here. Root is not limited.
    setuid(Uid::from_raw(64_999)).expect("root may be anybody");
    let limit = |bytes| setrlimit(Resource::RLIMIT_MEMLOCK, bytes, bytes).expect("it is lowered");
    limit(16 * 1024);
    let ring = Ring::open(size(256), &TaskWork::LADDER);
    match ring {
        Ok(ring) => assert!(ring.ring.params().sq_entries() < 256, "{ring:?}"),
        Err(error) => println!("skipped: this kernel counts otherwise: {error}"),
    }
    limit(0);
    let error = Ring::open(size(256), &TaskWork::LADDER).expect_err("there is no memory for it");
    assert_eq!(error.kind(), io::ErrorKind::Unsupported);
    assert!(error.to_string().contains("RLIMIT_MEMLOCK (0 bytes)"), "{error}");
}

#[test]
fn forked_child_touches_no_ring_memory() {
    let ring = ring(64, TaskWork::Deferred);
    let _making = making_children();
    // SAFETY: the child allocates and ends, for which this C library needs no other thread's lock.
    match unsafe { fork() }.expect("a child") {
        ForkResult::Parent { child } => {
            let status = waitpid(child, None).expect("it is our child");
            assert_eq!(status, WaitStatus::Exited(child, 0));
        }
        ForkResult::Child => {
            // These pages may lie where the ring's memory was in the parent.
            let mut pages: Vec<Vec<u8>> = (0..64).map(|_| vec![7; 1 << 20]).collect();
            let mut ring = ring;
            let is_refused = ring.enter(0, None).is_err() && ring.room() == 0 && !ring.has_more();
            let number = ring.ring.as_raw_fd();
            drop(ring);
            pages.iter_mut().for_each(|page| page.iter_mut().for_each(|byte| *byte += 1));
            let is_whole = pages.iter().flatten().all(|&byte| byte == 8);
            // SAFETY: F_GETFD touches no memory.
            let is_closed = unsafe { libc::fcntl(number, libc::F_GETFD) } == -1;
            // SAFETY: _exit ends the process without running exit handlers.
            unsafe { libc::_exit(i32::from(!(is_refused && is_whole && is_closed))) }
        }
    }
}
