//! Threads that wait for disks: how many there are, what can be had back from them, and what
//! becomes of the rest when the poller goes. A pipe that nobody writes to stands for a slow disk.

use super::*;
use crate::sys::buf::Buf;
use crate::sys::prepared::{Call, Gain, Part, With};
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
struct Bell(AtomicUsize);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn disk() -> (Disk, Arc<Bell>) {
    let bell = Arc::new(Bell::default());
    (Disk::new(bell.clone().into()), bell)
}

fn op(index: usize) -> OpSlot {
    OpSlot { index: index as u32, generation: 0 }
}

/// A file of the user's, who has it told when it is dropped: on which thread, and whether the
/// threads' desk was free.
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
            is_free = self.shared.desk.try_lock().is_ok();
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

fn begin(disk: &mut Disk, index: usize) -> Slow {
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC).expect("a pipe");
    let (sender, dropped) = channel();
    let told = Told { file: reader, shared: disk.shared.clone(), sender };
    let held = Held::new(Arc::new(told));
    let buf = Buf::Vec(Vec::with_capacity(8));
    let prepared = Prepared::new(held.fd(), Call::Read, buf, (0, 8), None);
    disk.begin(op(index), prepared.expect("in order"), vec![held]);
    Slow { writer, dropped }
}

/// Waits until this is true of the desk.
fn until(disk: &Disk, is_so: impl Fn(&Desk) -> bool) {
    let deadline = Instant::now() + WATCHDOG;
    while !is_so(&disk.shared.lock()) {
        assert!(Instant::now() < deadline, "the threads do not get on");
        std::thread::yield_now();
    }
}

fn take(disk: &mut Disk) -> Vec<(OpSlot, usize)> {
    let (mut landed, mut files) = (vec![], vec![]);
    disk.take(&mut landed, &mut files);
    assert_eq!(landed.len(), files.len(), "each has its file");
    let of = |landed: Landed| match landed {
        Landed::Over { op, prepared, result: Ok(Gain::Moved(count)) } => {
            assert_eq!(prepared.into_buf().len(), count);
            (op, count)
        }
        other => panic!("{other:?}"),
    };
    landed.into_iter().map(of).collect()
}

#[test]
fn four_are_at_work_and_the_others_can_be_had_back() {
    let (mut disk, bell) = disk();
    let slow: Vec<_> = (0..7).map(|at| begin(&mut disk, at)).collect();
    until(&disk, |desk| desk.to_do.len() == 3);
    assert_eq!((disk.shared.lock().threads, disk.count), (MOST_THREADS, 7));
    assert!((0..4).all(|at| disk.withdraw(op(at)).is_none()), "a thread is at it");
    assert!(disk.withdraw(OpSlot { index: 5, generation: 1 }).is_none(), "that is another");
    let back = disk.withdraw(op(5)).expect("it waits for its turn");
    assert_eq!((back.moved(), disk.count), (0, 6));
    assert!(disk.withdraw(op(5)).is_none(), "once");
    assert_eq!(take(&mut disk), [], "none is done");
    assert_eq!(bell.0.load(Ordering::SeqCst), 0);
    for (at, count) in [(2, 3), (4, 1), (6, 2), (0, 8), (1, 8), (3, 8)] {
        write(&slow[at].writer, &[7; 8][..count]).expect("room");
        until(&disk, |desk| !desk.done.is_empty());
        assert_eq!(take(&mut disk), [(op(at), count)]);
        assert!(slow[at].dropped.recv().is_ok_and(|(_, is_free)| is_free), "that was the last");
    }
    assert_eq!((disk.count, bell.0.load(Ordering::SeqCst)), (0, 6), "one ring for each");
    until(&disk, |desk| desk.idle == desk.threads);
    assert_eq!(disk.shared.lock().threads, MOST_THREADS, "they are kept");
    disk.close();
    assert_eq!(disk.shared.lock().threads, 0);
}

/// One that has nothing to do takes what comes, and no other is made for that.
#[test]
fn threads_are_made_when_they_are_needed() {
    let (mut disk, _bell) = disk();
    for at in 0..5 {
        let slow = begin(&mut disk, at);
        write(&slow.writer, b"x").expect("room");
        until(&disk, |desk| !desk.done.is_empty() && desk.idle == desk.threads);
        assert_eq!((take(&mut disk), disk.shared.lock().threads), (vec![(op(at), 1)], 1));
    }
    disk.close();
}

#[test]
fn to_close_drops_what_nobody_has_begun_and_waits_for_the_rest() {
    let (mut disk, bell) = disk();
    let slow: Vec<_> = (0..6).map(|at| begin(&mut disk, at)).collect();
    until(&disk, |desk| desk.to_do.len() == 2);
    write(&slow[0].writer, b"done").expect("room");
    until(&disk, |desk| desk.done.len() == 1 && desk.to_do.len() == 1);
    let shared = disk.shared.clone();
    let waits = std::thread::spawn(move || {
        disk.close();
        disk
    });
    // Closing has begun: what comes now is late.
    let deadline = Instant::now() + WATCHDOG;
    while !shared.lock().is_closed {
        assert!(Instant::now() < deadline);
        std::thread::yield_now();
    }
    let rung = bell.0.load(Ordering::SeqCst);
    for slow in &slow[1..5] {
        write(&slow.writer, b"late").expect("its reader is there, or it was not begun");
    }
    let mut disk = waits.join().expect("it only waits");
    assert_eq!(bell.0.load(Ordering::SeqCst), rung, "there is nobody to be told");
    for (at, slow) in slow.iter().enumerate() {
        let (name, is_free) = slow.dropped.recv_timeout(WATCHDOG).expect("it was let go of");
        assert!(is_free, "the user's code has the desk for itself");
        let is_here = name.as_deref() != Some("quintpoll-disk");
        assert_eq!(is_here, at == 0 || at == 5, "{at}: {name:?}");
    }
    let desk = disk.shared.lock();
    assert!(desk.done.is_empty() && desk.to_do.is_empty() && desk.threads == 0);
    drop(desk);
    disk.close();
}

/// A call that does not come back keeps its buffer and its file, and nobody waits for it for ever.
#[test]
fn what_is_not_over_in_time_is_let_go_of_by_its_thread() {
    let (mut disk, _bell) = disk();
    let slow = begin(&mut disk, 0);
    until(&disk, |desk| desk.to_do.is_empty());
    let started = Instant::now();
    disk.close();
    assert!(started.elapsed() >= LAST_WAIT, "it was given some time");
    assert!(slow.dropped.try_recv().is_err(), "the thread has it still");
    write(&slow.writer, b"late").expect("its reader is there");
    let told = slow.dropped.recv_timeout(WATCHDOG).expect("it is over");
    assert_eq!(told, (Some("quintpoll-disk".to_owned()), true));
    until(&disk, |desk| desk.threads == 0);
    assert!(disk.shared.lock().done.is_empty());
}

#[test]
fn without_a_thread_it_is_done_at_once() {
    const TEST: &str = "without_a_thread_it_is_done_at_once";
    if !is_alone(&format!("reactor::disk::tests::{TEST}")) {
        return;
    }
    if !Uid::effective().is_root() {
        return println!("skipped: the limit counts all threads of this user");
    }
    // A user of whom there is nothing else here. Root is not limited.
    setuid(Uid::from_raw(64_996)).expect("root may be anybody");
    setrlimit(Resource::RLIMIT_NPROC, 0, 0).expect("it is lowered");
    let (mut disk, bell) = disk();
    for at in 0..3 {
        let (reader, writer) = pipe2(OFlag::O_CLOEXEC).expect("a pipe");
        write(&writer, b"data").expect("room");
        let held = Held::new(Arc::new(reader));
        let buf = Buf::Vec(Vec::with_capacity(8));
        let prepared = Prepared::new(held.fd(), Call::Read, buf, (0, 8), None);
        disk.begin(op(at), prepared.expect("in order"), vec![held]);
        assert_eq!(bell.0.load(Ordering::SeqCst), at + 1, "it is to be taken");
        assert_eq!(take(&mut disk), [(op(at), 4)]);
    }
    assert_eq!(disk.shared.lock().threads, 0, "there is none");
    disk.close();
}

fn begin_open(disk: &mut Disk, index: usize) {
    let path = std::ffi::CString::from(c"/dev/null");
    let with = With::path(path, libc::O_RDONLY, 0);
    let open = Prepared::with(None, Call::Open, Buf::None, Part::Nothing, with);
    disk.begin(op(index), open.expect("in order"), Vec::new());
}

/// Takes what is done, whenever the bell has rung, until so many are.
fn take_opened(disk: &mut Disk, bell: &Bell, count: usize) -> Vec<OpSlot> {
    let (mut landed, mut files, mut heard) = (vec![], vec![], 0);
    let deadline = Instant::now() + WATCHDOG;
    while landed.len() < count {
        let rung = bell.0.load(Ordering::SeqCst);
        if rung == heard {
            assert!(Instant::now() < deadline, "nobody tells that there is more to do");
            std::thread::yield_now();
            continue;
        }
        heard = rung;
        disk.take(&mut landed, &mut files);
    }
    let of = |landed: Landed| match landed {
        Landed::Over { op, result: Ok(Gain::Opened(_)), .. } => op,
        other => panic!("{other:?}"),
    };
    landed.into_iter().map(of).collect()
}

/// Each has a thread of its own, and there are never more than a few: the next is started when one
/// has gone, and not by that one.
#[test]
fn opens_of_any_number_are_done_by_a_few_threads() {
    for _ in 0..100 {
        let (mut disk, bell) = disk();
        (0..20).for_each(|at| begin_open(&mut disk, at));
        let desk = disk.shared.lock();
        assert!(desk.openers <= MOST_THREADS && desk.threads == 0);
        drop(desk);
        let mut opened = take_opened(&mut disk, &bell, 20);
        opened.sort_by_key(|op| op.index);
        assert_eq!(opened, (0..20).map(op).collect::<Vec<_>>(), "each once");
        until(&disk, |desk| desk.openers == 0);
        disk.close();
    }
}

#[test]
fn an_open_can_be_had_back_until_its_thread_gets_to_it() {
    let mut had_back = 0;
    for _ in 0..100 {
        let (mut disk, bell) = disk();
        (0..20).for_each(|at| begin_open(&mut disk, at));
        // No thread can have got to these.
        let waiting: Vec<_> = disk.opens.iter().map(|job| job.op).collect();
        assert!(waiting.iter().all(|&op| disk.withdraw(op).is_some()));
        had_back += waiting.len();
        let mut back: Vec<_> = waiting.iter().map(|op| op.index as usize).collect();
        back.extend((0..20).rev().filter(|&at| disk.withdraw(op(at)).is_some()));
        let opened = take_opened(&mut disk, &bell, 20 - back.len());
        assert!(opened.iter().all(|op| !back.contains(&(op.index as usize))), "one or the other");
        assert_eq!((disk.count, disk.opens.len()), (0, 0));
        until(&disk, |desk| desk.openers == 0 && desk.to_open.is_empty());
        disk.close();
    }
    assert!(had_back > 0, "the last of them wait for those before them");
}

#[test]
fn to_close_drops_opens_and_waits_for_those_that_have_begun() {
    for _ in 0..100 {
        let (mut disk, _bell) = disk();
        (0..20).for_each(|at| begin_open(&mut disk, at));
        disk.close();
        let desk = disk.shared.lock();
        let left = (desk.to_open.len(), desk.done.len(), desk.openers, disk.opens.len());
        assert_eq!(left, (0, 0, 0, 0));
    }
}
