//! Threads that wait for a disk: how many there are, what can be had back from them, and what
//! becomes of the rest when the poller goes. A pipe that nobody writes to stands for a slow pool.

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

/// The most threads for one mount, which all pipes are of.
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

/// A file of the user's, who has it told when it is dropped: on which thread, and whether the
/// threads' queue was free.
struct Told {
    file: OwnedFd,
    shared: Arc<Shared>,
    sender: Sender<(Option<String>, bool)>,
}

impl AsFd for Told {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        let name = std::thread::current().name().map(str::to_owned);
        // Another thread may have it for a moment; this one would have it for ever.
        let deadline = Instant::now() + WATCHDOG;
        let mut is_free = false;
        while !is_free && Instant::now() < deadline {
            is_free = self.shared.queue.try_lock().is_ok();
            std::thread::yield_now();
        }
        let _ = self.sender.send((name, is_free));
    }
}

/// A read that waits until something is written.
struct Slow {
    writer: OwnedFd,
    dropped: Receiver<(Option<String>, bool)>,
}

fn submit(pool: &mut ThreadPool, index: usize) -> Slow {
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC).expect("a pipe");
    let (sender, dropped) = channel();
    let told = Told { file: reader, shared: pool.shared.clone(), sender };
    let held = SourceFd::new(Arc::new(told));
    let buf = Buf::Vec(Vec::with_capacity(8));
    let io_call = CallBox::new(held.fd(), Call::Read, buf, (0, 8), None);
    pool.submit(op(index), io_call.expect("in order"), vec![held]);
    Slow { writer, dropped }
}

/// Waits until this is true of the queue.
fn until(pool: &ThreadPool, is_so: impl Fn(&Queue) -> bool) {
    let deadline = Instant::now() + WATCHDOG;
    while !is_so(&pool.shared.lock()) {
        assert!(Instant::now() < deadline, "the threads do not get on");
        std::thread::yield_now();
    }
}

fn take(pool: &mut ThreadPool) -> Vec<(OpSlot, usize)> {
    let (mut landed, mut files) = (vec![], vec![]);
    pool.collect(&mut landed, &mut files);
    assert_eq!(landed.len(), files.len(), "each has its file");
    let of = |landed: OpEvent| match landed {
        OpEvent::Completed { op, work, result: Ok(CallResult::Moved(count)) } => {
            assert_eq!(work.into_call().into_buf().len(), count);
            (op, count)
        }
        other => panic!("{other:?}"),
    };
    landed.into_iter().map(of).collect()
}

#[test]
fn share_of_jobs_runs_and_others_can_be_withdrawn() {
    let (mut pool, notifier) = pool();
    let slow: Vec<_> = (0..7).map(|at| submit(&mut pool, at)).collect();
    until(&pool, |queue| queue.jobs.len() == 3);
    assert_eq!((pool.shared.lock().threads, pool.count), (SHARE, 7));
    assert!((0..SHARE).all(|at| pool.withdraw(op(at)).is_none()), "a thread is at it");
    assert!(pool.withdraw(OpSlot { index: 5, generation: 1 }).is_none(), "that is another");
    let back = pool.withdraw(op(5)).expect("it waits for its turn");
    assert_eq!((back.moved(), pool.count), (0, 6));
    assert!(pool.withdraw(op(5)).is_none(), "once");
    assert_eq!(take(&mut pool), [], "none is done");
    assert_eq!(notifier.0.load(Ordering::SeqCst), 0);
    for (at, count) in [(2, 3), (4, 1), (6, 2), (0, 8), (1, 8), (3, 8)] {
        write(&slow[at].writer, &[7; 8][..count]).expect("room");
        until(&pool, |queue| !queue.done.is_empty());
        assert_eq!(take(&mut pool), [(op(at), count)]);
        assert!(slow[at].dropped.recv().is_ok_and(|(_, is_free)| is_free), "that was the last");
    }
    assert_eq!((pool.count, notifier.0.load(Ordering::SeqCst)), (0, 6), "one ring for each");
    until(&pool, |queue| queue.idle == queue.threads);
    assert_eq!(pool.shared.lock().threads, SHARE, "they are kept");
    pool.close();
    assert_eq!(pool.shared.lock().threads, 0);
}

/// One that has nothing to do takes what comes, and no other is made for that.
#[test]
fn threads_are_started_when_they_are_needed() {
    let (mut pool, _notifier) = pool();
    for at in 0..5 {
        let slow = submit(&mut pool, at);
        write(&slow.writer, b"x").expect("room");
        until(&pool, |queue| !queue.done.is_empty() && queue.idle == queue.threads);
        assert_eq!((take(&mut pool), pool.shared.lock().threads), (vec![(op(at), 1)], 1));
    }
    pool.close();
}

/// A job of another file system does not wait for those that hang.
#[test]
fn other_mount_has_threads_left() {
    let (mut pool, _notifier) = pool();
    let slow: Vec<_> = (0..20).map(|at| submit(&mut pool, at)).collect();
    let file = tempfile::tempfile().expect("a place for it");
    for at in 20..26 {
        let held = SourceFd::new(Arc::new(file.try_clone().expect("a number is free")));
        let buf = Buf::Vec(Vec::with_capacity(8));
        let call = CallBox::new(held.fd(), Call::Read, buf, (0, 8), None).expect("in order");
        if call.mount().is_none() {
            return println!("skipped: the kernel does not tell the mount");
        }
        pool.submit(op(at), call, vec![held]);
        until(&pool, |queue| !queue.done.is_empty());
        assert_eq!(take(&mut pool), [(op(at), 0)]);
    }
    // Threads that wait for the pipes take their share, not those that have become idle.
    until(&pool, |queue| queue.jobs.len() == 20 - SHARE && queue.idle > 0);
    pool.set_max_threads(2 * SHARE + 2);
    until(&pool, |queue| queue.jobs.len() == 19 - SHARE);
    // With fewer, those that have a job keep it.
    pool.set_max_threads(0);
    for slow in &slow {
        write(&slow.writer, b"x").expect("room");
    }
    let mut done = Vec::new();
    while done.len() < 20 {
        until(&pool, |queue| !queue.done.is_empty());
        done.extend(take(&mut pool));
    }
    until(&pool, |queue| queue.threads == 1 && queue.idle == 1);
    pool.close();
}

#[test]
fn idle_thread_ends() {
    let notifier = Arc::new(Notifier::default());
    let mut pool = ThreadPool::with_keep_alive(notifier.into(), Duration::from_millis(1));
    for at in 0..3 {
        let slow = submit(&mut pool, at);
        write(&slow.writer, b"x").expect("room");
        until(&pool, |queue| !queue.done.is_empty() && queue.threads == 0);
        assert_eq!((take(&mut pool), pool.shared.lock().idle), (vec![(op(at), 1)], 0));
    }
    pool.close();
}

#[test]
fn close_drops_what_has_not_begun_and_waits_for_the_rest() {
    let (mut pool, notifier) = pool();
    let slow: Vec<_> = (0..6).map(|at| submit(&mut pool, at)).collect();
    until(&pool, |queue| queue.jobs.len() == 2);
    write(&slow[0].writer, b"done").expect("room");
    until(&pool, |queue| queue.done.len() == 1 && queue.jobs.len() == 1);
    let shared = pool.shared.clone();
    let waits = std::thread::spawn(move || {
        pool.close();
        pool
    });
    // Closing has begun: what comes now is late.
    let deadline = Instant::now() + WATCHDOG;
    while !shared.lock().is_closed {
        assert!(Instant::now() < deadline);
        std::thread::yield_now();
    }
    let rung = notifier.0.load(Ordering::SeqCst);
    for slow in &slow[1..5] {
        write(&slow.writer, b"late").expect("its reader is there, or it was not begun");
    }
    let mut pool = waits.join().expect("it only waits");
    assert_eq!(notifier.0.load(Ordering::SeqCst), rung, "there is nobody to be told");
    for (at, slow) in slow.iter().enumerate() {
        let (name, is_free) = slow.dropped.recv_timeout(WATCHDOG).expect("it was let go of");
        assert!(is_free, "the user's code has the lock for itself");
        let is_here = name.as_deref() != Some("quintpoll-blocking");
        assert_eq!(is_here, at == 0 || at == 5, "{at}: {name:?}");
    }
    let queue = pool.shared.lock();
    assert!(queue.done.is_empty() && queue.jobs.is_empty() && queue.threads == 0);
    drop(queue);
    pool.close();
}

/// A call that does not come back keeps its buffer and its file, and nobody waits for it for ever.
#[test]
fn call_that_outlasts_close_keeps_its_file_until_it_returns() {
    let (mut pool, _notifier) = pool();
    let slow = submit(&mut pool, 0);
    until(&pool, |queue| queue.jobs.is_empty());
    let started = Instant::now();
    pool.close();
    assert!(started.elapsed() >= DROP_TIMEOUT, "it was given some time");
    assert!(slow.dropped.try_recv().is_err(), "the thread has it still");
    write(&slow.writer, b"late").expect("its reader is there");
    let told = slow.dropped.recv_timeout(WATCHDOG).expect("it is over");
    assert_eq!(told, (Some("quintpoll-blocking".to_owned()), true));
    until(&pool, |queue| queue.threads == 0);
    assert!(pool.shared.lock().done.is_empty());
}

#[test]
fn job_runs_at_once_without_a_thread() {
    const TEST: &str = "job_runs_at_once_without_a_thread";
    if !is_alone(&format!("reactor::operations::thread_pool::tests::{TEST}")) {
        return;
    }
    if !Uid::effective().is_root() {
        return println!("skipped: the limit counts all threads of this user");
    }
    // A user of whom there is nothing else here. Root is not limited.
    setuid(Uid::from_raw(64_996)).expect("root may be anybody");
    setrlimit(Resource::RLIMIT_NPROC, 0, 0).expect("it is lowered");
    let (mut pool, notifier) = pool();
    for at in 0..3 {
        let (reader, writer) = pipe2(OFlag::O_CLOEXEC).expect("a pipe");
        write(&writer, b"data").expect("room");
        let held = SourceFd::new(Arc::new(reader));
        let buf = Buf::Vec(Vec::with_capacity(8));
        let io_call = CallBox::new(held.fd(), Call::Read, buf, (0, 8), None);
        pool.submit(op(at), io_call.expect("in order"), vec![held]);
        assert_eq!(notifier.0.load(Ordering::SeqCst), at + 1, "it is to be taken");
        assert_eq!(take(&mut pool), [(op(at), 4)]);
    }
    assert_eq!(pool.shared.lock().threads, 0, "there is none");
    pool.close();
}

fn submit_open(pool: &mut ThreadPool, index: usize) {
    let path = std::ffi::CString::from(c"/dev/null");
    let with = CallArgs::path(path, libc::O_RDONLY, 0);
    let open = CallBox::with(None, Call::Open, Buf::None, Transfer::Nothing, with);
    pool.submit(op(index), open.expect("in order"), Vec::new());
}

/// Takes what is done, whenever the notifier has rung, until so many are.
fn take_opened(pool: &mut ThreadPool, notifier: &Notifier, count: usize) -> Vec<OpSlot> {
    let (mut landed, mut files, mut heard) = (vec![], vec![], 0);
    let deadline = Instant::now() + WATCHDOG;
    while landed.len() < count {
        let rung = notifier.0.load(Ordering::SeqCst);
        if rung == heard {
            assert!(Instant::now() < deadline, "nobody tells that there is more to do");
            std::thread::yield_now();
            continue;
        }
        heard = rung;
        pool.collect(&mut landed, &mut files);
    }
    let of = |landed: OpEvent| match landed {
        OpEvent::Completed { op, result: Ok(CallResult::Opened(_)), .. } => op,
        other => panic!("{other:?}"),
    };
    landed.into_iter().map(of).collect()
}

/// Each has a thread of its own, and there are never more than a few: the next is started when one
/// has gone, and not by that one.
#[test]
fn opens_are_made_by_a_few_threads() {
    for _ in 0..100 {
        let (mut pool, notifier) = pool();
        (0..20).for_each(|at| submit_open(&mut pool, at));
        let queue = pool.shared.lock();
        assert!(queue.own_threads <= 2 * SHARE && queue.threads == 0);
        drop(queue);
        let mut opened = take_opened(&mut pool, &notifier, 20);
        opened.sort_by_key(|op| op.index);
        assert_eq!(opened, (0..20).map(op).collect::<Vec<_>>(), "each once");
        until(&pool, |queue| queue.own_threads == 0);
        pool.close();
    }
}

#[test]
fn open_can_be_withdrawn_until_its_thread_begins() {
    let mut had_back = 0;
    for _ in 0..100 {
        let (mut pool, notifier) = pool();
        (0..20).for_each(|at| submit_open(&mut pool, at));
        // No thread can have got to these.
        let waiting = pool.shared.lock().unstarted.ops();
        assert!(waiting.iter().all(|&op| pool.withdraw(op).is_some()));
        had_back += waiting.len();
        let mut back: Vec<_> = waiting.iter().map(|op| op.index as usize).collect();
        back.extend((0..20).rev().filter(|&at| pool.withdraw(op(at)).is_some()));
        let opened = take_opened(&mut pool, &notifier, 20 - back.len());
        assert!(opened.iter().all(|op| !back.contains(&(op.index as usize))), "one or the other");
        assert_eq!((pool.count, pool.shared.lock().unstarted.len()), (0, 0));
        until(&pool, |queue| queue.own_threads == 0 && queue.own_jobs.is_empty());
        pool.close();
    }
    assert!(had_back > 0, "the last of them wait for those before them");
}

#[test]
fn close_drops_opens_and_waits_for_those_that_have_begun() {
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
