//! The thread pool: the number of threads, the withdrawal of jobs, and closing. A pipe without a
//! writer's data stands for a slow disk.

use super::*;
use crate::sys::buf::Buf;
use crate::sys::io_call::{Call, CallArgs, CallResult, Transfer};
use crate::testing::is_alone;
use nix::fcntl::OFlag;
use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::{Uid, pipe2, setuid, write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::task::Wake;

/// Long enough for any machine.
const WATCHDOG: Duration = Duration::from_secs(60);

#[derive(Default)]
struct Notifier(AtomicUsize);

impl Wake for Notifier {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// The most threads for one mount; all pipes share a mount.
const SHARE: usize = 4;

fn pool() -> (ThreadPool, Arc<Notifier>) {
    let notifier = Arc::new(Notifier::default());
    let mut pool = ThreadPool::new(notifier.clone().into());
    pool.set_max_threads(2 * SHARE);
    (pool, notifier)
}

fn op(index: usize) -> OpSlot {
    OpSlot { index: index as u32, generation: 0 }
}

/// A user's file that reports its drop: the thread, and whether the pool's lock was free.
struct DropReporter {
    file: OwnedFd,
    shared: Arc<Shared>,
    sender: Sender<(Option<String>, bool)>,
}

impl AsFd for DropReporter {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Drop for DropReporter {
    fn drop(&mut self) {
        let name = std::thread::current().name().map(str::to_owned);
        // Another thread may hold the lock briefly; this one would hold it during the drop.
        let deadline = Instant::now() + WATCHDOG;
        let mut is_free = false;
        while !is_free && Instant::now() < deadline {
            is_free = self.shared.queue.try_lock().is_ok();
            std::thread::yield_now();
        }
        let _ = self.sender.send((name, is_free));
    }
}

/// A read that blocks until something is written.
struct BlockedRead {
    writer: OwnedFd,
    dropped: Receiver<(Option<String>, bool)>,
}

fn submit(pool: &mut ThreadPool, index: usize) -> BlockedRead {
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC).expect("a pipe");
    let (sender, dropped) = channel();
    let reporter = DropReporter { file: reader, shared: pool.shared.clone(), sender };
    let source = SourceFd::new(Arc::new(reporter));
    let buf = Buf::Vec(Vec::with_capacity(8));
    let io_call = CallBox::new(source.fd(), Call::Read, buf, (0, 8), None);
    pool.submit(op(index), io_call.expect("accepted"), vec![source]);
    BlockedRead { writer, dropped }
}

/// Waits until the queue fulfils a condition.
fn wait_until(pool: &ThreadPool, condition: impl Fn(&Queue) -> bool) {
    let deadline = Instant::now() + WATCHDOG;
    while !condition(&pool.shared.lock()) {
        assert!(Instant::now() < deadline, "the threads make no progress");
        std::thread::yield_now();
    }
}

fn take(pool: &mut ThreadPool) -> Vec<(OpSlot, usize)> {
    let (mut events, mut files) = (vec![], vec![]);
    pool.collect(&mut events, &mut files);
    assert_eq!(events.len(), files.len(), "each has its file");
    let of = |events: OpEvent| match events {
        OpEvent::Completed { op, work, result: Ok(CallResult::Moved(count)) } => {
            assert_eq!(work.into_call().into_buf().len(), count);
            (op, count)
        }
        other => panic!("{other:?}"),
    };
    events.into_iter().map(of).collect()
}

#[test]
fn share_of_jobs_runs_others_can_be_withdrawn() {
    let (mut pool, notifier) = pool();
    let read: Vec<_> = (0..7).map(|at| submit(&mut pool, at)).collect();
    wait_until(&pool, |queue| queue.jobs.len() == 3);
    assert_eq!((pool.shared.lock().threads, pool.count), (SHARE, 7));
    assert!((0..SHARE).all(|at| pool.withdraw(op(at)).is_none()), "a thread has started it");
    assert!(pool.withdraw(OpSlot { index: 5, generation: 1 }).is_none(), "another operation");
    let back = pool.withdraw(op(5)).expect("queued");
    assert_eq!((back.moved(), pool.count), (0, 6));
    assert!(pool.withdraw(op(5)).is_none(), "once");
    assert_eq!(take(&mut pool), [], "no job is done");
    assert_eq!(notifier.0.load(Ordering::SeqCst), 0);
    for (at, count) in [(2, 3), (4, 1), (6, 2), (0, 8), (1, 8), (3, 8)] {
        write(&read[at].writer, &[7; 8][..count]).expect("room");
        wait_until(&pool, |queue| !queue.done.is_empty());
        assert_eq!(take(&mut pool), [(op(at), count)]);
        assert!(
            read[at].dropped.recv().is_ok_and(|(_, is_free)| is_free),
            "the last reference was dropped"
        );
    }
    assert_eq!(
        (pool.count, notifier.0.load(Ordering::SeqCst)),
        (0, 6),
        "one notification for each"
    );
    wait_until(&pool, |queue| queue.idle == queue.threads);
    assert_eq!(pool.shared.lock().threads, SHARE, "idle threads are kept");
    pool.close();
    assert_eq!(pool.shared.lock().threads, 0);
}

/// An idle thread takes the next job; no other is started.
#[test]
fn threads_are_started_on_demand() {
    let (mut pool, _notifier) = pool();
    for at in 0..5 {
        let read = submit(&mut pool, at);
        write(&read.writer, b"x").expect("room");
        wait_until(&pool, |queue| !queue.done.is_empty() && queue.idle == queue.threads);
        assert_eq!((take(&mut pool), pool.shared.lock().threads), (vec![(op(at), 1)], 1));
    }
    pool.close();
}

/// A job of another file system does not wait for blocked ones.
#[test]
fn other_mount_has_threads_left() {
    let (mut pool, _notifier) = pool();
    let read: Vec<_> = (0..20).map(|at| submit(&mut pool, at)).collect();
    let file = tempfile::tempfile().expect("a temporary file");
    for at in 20..26 {
        let source = SourceFd::new(Arc::new(file.try_clone().expect("a free descriptor")));
        let buf = Buf::Vec(Vec::with_capacity(8));
        let call = CallBox::new(source.fd(), Call::Read, buf, (0, 8), None).expect("accepted");
        if call.mount().is_none() {
            return println!("skipped: the kernel does not report mounts");
        }
        pool.submit(op(at), call, vec![source]);
        wait_until(&pool, |queue| !queue.done.is_empty());
        assert_eq!(take(&mut pool), [(op(at), 0)]);
    }
    // Threads blocked on pipes count for the share, idle ones do not.
    wait_until(&pool, |queue| queue.jobs.len() == 20 - SHARE && queue.idle > 0);
    pool.set_max_threads(2 * SHARE + 2);
    wait_until(&pool, |queue| queue.jobs.len() == 19 - SHARE);
    // A lower limit does not stop busy threads.
    pool.set_max_threads(0);
    for read in &read {
        write(&read.writer, b"x").expect("room");
    }
    let mut done = Vec::new();
    while done.len() < 20 {
        wait_until(&pool, |queue| !queue.done.is_empty());
        done.extend(take(&mut pool));
    }
    wait_until(&pool, |queue| queue.threads == 1 && queue.idle == 1);
    pool.close();
}

#[test]
fn idle_thread_ends() {
    let notifier = Arc::new(Notifier::default());
    let mut pool = ThreadPool::with_keep_alive(notifier.into(), Duration::from_millis(1));
    for at in 0..3 {
        let read = submit(&mut pool, at);
        write(&read.writer, b"x").expect("room");
        wait_until(&pool, |queue| !queue.done.is_empty() && queue.threads == 0);
        assert_eq!((take(&mut pool), pool.shared.lock().idle), (vec![(op(at), 1)], 0));
    }
    pool.close();
}

#[test]
fn close_drops_queued_jobs_and_waits_for_running() {
    let (mut pool, notifier) = pool();
    let read: Vec<_> = (0..6).map(|at| submit(&mut pool, at)).collect();
    wait_until(&pool, |queue| queue.jobs.len() == 2);
    write(&read[0].writer, b"done").expect("room");
    wait_until(&pool, |queue| queue.done.len() == 1 && queue.jobs.len() == 1);
    let shared = pool.shared.clone();
    let closer = std::thread::spawn(move || {
        pool.close();
        pool
    });
    // Closing has begun; further events are late.
    let deadline = Instant::now() + WATCHDOG;
    while !shared.lock().is_closed {
        assert!(Instant::now() < deadline);
        std::thread::yield_now();
    }
    let notified = notifier.0.load(Ordering::SeqCst);
    for read in &read[1..5] {
        write(&read.writer, b"late").expect("a reader, or the job was not started");
    }
    let mut pool = closer.join().expect("no panic");
    assert_eq!(notifier.0.load(Ordering::SeqCst), notified, "no notification after close");
    for (at, read) in read.iter().enumerate() {
        let (name, is_free) = read.dropped.recv_timeout(WATCHDOG).expect("dropped");
        assert!(is_free, "the user's code runs without the lock");
        let is_caller_thread = name.as_deref() != Some("quintpoll-blocking");
        assert_eq!(is_caller_thread, at == 0 || at == 5, "{at}: {name:?}");
    }
    let queue = pool.shared.lock();
    assert!(queue.done.is_empty() && queue.jobs.is_empty() && queue.threads == 0);
    drop(queue);
    pool.close();
}

/// A call that does not return keeps its buffer and file, and `close` gives up waiting.
#[test]
fn call_outlasting_close_keeps_its_file() {
    let (mut pool, _notifier) = pool();
    let read = submit(&mut pool, 0);
    wait_until(&pool, |queue| queue.jobs.is_empty());
    let started = Instant::now();
    pool.close();
    assert!(started.elapsed() >= DROP_TIMEOUT, "close waits for a while");
    assert!(read.dropped.try_recv().is_err(), "the thread still has the file");
    write(&read.writer, b"late").expect("a reader");
    let reporter = read.dropped.recv_timeout(WATCHDOG).expect("dropped");
    assert_eq!(reporter, (Some("quintpoll-blocking".to_owned()), true));
    wait_until(&pool, |queue| queue.threads == 0);
    assert!(pool.shared.lock().done.is_empty());
}

#[test]
fn job_runs_inline_if_spawn_fails() {
    const TEST: &str = "job_runs_inline_if_spawn_fails";
    if !is_alone(&format!("reactor::operations::thread_pool::tests::{TEST}")) {
        return;
    }
    if !Uid::effective().is_root() {
        return println!("skipped: the limit counts all threads of this user");
    }
    // A user id without other threads; root is not limited.
    setuid(Uid::from_raw(64_996)).expect("allowed for root");
    setrlimit(Resource::RLIMIT_NPROC, 0, 0).expect("it is lowered");
    let (mut pool, notifier) = pool();
    for at in 0..3 {
        let (reader, writer) = pipe2(OFlag::O_CLOEXEC).expect("a pipe");
        write(&writer, b"data").expect("room");
        let source = SourceFd::new(Arc::new(reader));
        let buf = Buf::Vec(Vec::with_capacity(8));
        let io_call = CallBox::new(source.fd(), Call::Read, buf, (0, 8), None);
        pool.submit(op(at), io_call.expect("accepted"), vec![source]);
        assert_eq!(notifier.0.load(Ordering::SeqCst), at + 1, "the result is notified");
        assert_eq!(take(&mut pool), [(op(at), 4)]);
    }
    assert_eq!(pool.shared.lock().threads, 0, "no thread");
    pool.close();
}

fn submit_open(pool: &mut ThreadPool, index: usize) {
    let path = std::ffi::CString::from(c"/dev/null");
    let with = CallArgs::path(path, libc::O_RDONLY, 0);
    let open = CallBox::with(None, Call::Open, Buf::None, Transfer::Nothing, with);
    pool.submit(op(index), open.expect("accepted"), Vec::new());
}

/// Collects results after each notification, until there are `count`.
fn take_opened(pool: &mut ThreadPool, notifier: &Notifier, count: usize) -> Vec<OpSlot> {
    let (mut events, mut files, mut seen) = (vec![], vec![], 0);
    let deadline = Instant::now() + WATCHDOG;
    while events.len() < count {
        let notified = notifier.0.load(Ordering::SeqCst);
        if notified == seen {
            assert!(Instant::now() < deadline, "a notification is missing");
            std::thread::yield_now();
            continue;
        }
        seen = notified;
        pool.collect(&mut events, &mut files);
    }
    let of = |events: OpEvent| match events {
        OpEvent::Completed { op, result: Ok(CallResult::Opened(_)), .. } => op,
        other => panic!("{other:?}"),
    };
    events.into_iter().map(of).collect()
}

/// Each open has its own thread, up to a limit. The next thread is started when one has ended, but
/// not by that one.
#[test]
fn opens_use_limited_threads() {
    for _ in 0..100 {
        let (mut pool, notifier) = pool();
        (0..20).for_each(|at| submit_open(&mut pool, at));
        let queue = pool.shared.lock();
        assert!(queue.own_threads <= 2 * SHARE && queue.threads == 0);
        drop(queue);
        let mut opened = take_opened(&mut pool, &notifier, 20);
        opened.sort_by_key(|op| op.index);
        assert_eq!(opened, (0..20).map(op).collect::<Vec<_>>(), "each once");
        wait_until(&pool, |queue| queue.own_threads == 0);
        pool.close();
    }
}

#[test]
fn open_can_be_withdrawn_until_its_thread_begins() {
    let mut withdrawn = 0;
    for _ in 0..100 {
        let (mut pool, notifier) = pool();
        (0..20).for_each(|at| submit_open(&mut pool, at));
        // These have no thread yet.
        let waiting = pool.shared.lock().unstarted.ops();
        assert!(waiting.iter().all(|&op| pool.withdraw(op).is_some()));
        withdrawn += waiting.len();
        let mut back: Vec<_> = waiting.iter().map(|op| op.index as usize).collect();
        back.extend((0..20).rev().filter(|&at| pool.withdraw(op(at)).is_some()));
        let opened = take_opened(&mut pool, &notifier, 20 - back.len());
        assert!(
            opened.iter().all(|op| !back.contains(&(op.index as usize))),
            "withdrawn or opened"
        );
        assert_eq!((pool.count, pool.shared.lock().unstarted.len()), (0, 0));
        wait_until(&pool, |queue| queue.own_threads == 0 && queue.own_jobs.is_empty());
        pool.close();
    }
    assert!(withdrawn > 0, "the last opens wait for threads");
}

#[test]
fn close_drops_queued_opens_and_waits_for_running() {
    for _ in 0..100 {
        let (mut pool, _notifier) = pool();
        (0..20).for_each(|at| submit_open(&mut pool, at));
        pool.close();
        let queue = pool.shared.lock();
        let left =
            (queue.own_jobs.len(), queue.done.len(), queue.own_threads, queue.unstarted.len());
        assert_eq!(left, (0, 0, 0, 0));
    }
}
