//! What operations come to when calls on a ring fail for a while, or for good. A filter has the
//! kernel ask another thread of the test what each call of this thread is to answer.
#![allow(unsafe_code)]

use crate::refused::in_own_process;
use quintpoll::{
    Backend, Buf, BufferPool, Completion, Events, Interest, Mode, Op, OpId, Poller, Token,
};
use quintpoll::{Key, Source, leaked_buffers};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const ZERO: Duration = Duration::ZERO;
const LONG: Duration = Duration::from_secs(60);

/// What the calls are to answer.
#[derive(Default)]
struct Fault {
    /// The error number, or 0: the call is made.
    errno: AtomicI32,
    /// One call in so many fails.
    every: AtomicUsize,
    calls: AtomicUsize,
    faults: AtomicUsize,
}

impl Fault {
    fn begin(&self, errno: i32, every: usize) {
        self.every.store(every, Ordering::SeqCst);
        self.errno.store(errno, Ordering::SeqCst);
    }

    fn end(&self) {
        self.errno.store(0, Ordering::SeqCst);
    }

    fn answer(&self) -> i32 {
        let (errno, turn) =
            (self.errno.load(Ordering::SeqCst), self.calls.fetch_add(1, Ordering::SeqCst));
        if errno == 0 || turn % self.every.load(Ordering::SeqCst) != 0 {
            return 0;
        }
        self.faults.fetch_add(1, Ordering::SeqCst);
        errno
    }
}

/// `_IOWR('!', number, T)` of seccomp_unotify(2).
fn request<T>(number: libc::c_ulong) -> libc::c_ulong {
    3 << 30 | (size_of::<T>() as libc::c_ulong) << 16 | 0x21 << 8 | number
}

/// Whether somebody lives under the filter yet.
fn is_filtering(listener: &OwnedFd) -> bool {
    let mut wanted = libc::pollfd { fd: listener.as_raw_fd(), events: 0, revents: 0 };
    // SAFETY: the kernel writes into this one entry.
    let found = unsafe { libc::poll(&raw mut wanted, 1, 0) };
    found == 0
}

/// Answers for the calls of the filtered thread until that has gone.
fn supervise(listener: OwnedFd, fault: &Fault) {
    loop {
        // SAFETY: it is made of integers, and the kernel wants zeroes.
        let mut call: libc::seccomp_notif = unsafe { std::mem::zeroed() };
        let receive = request::<libc::seccomp_notif>(0);
        // SAFETY: the kernel writes one of these.
        let got = unsafe { libc::ioctl(listener.as_raw_fd(), receive as _, &raw mut call) };
        if got != 0 {
            match io::Error::last_os_error().raw_os_error() {
                Some(libc::EINTR) => continue,
                // Task work has interrupted the call before it could be told, and it comes again.
                Some(libc::ENOENT) if is_filtering(&listener) => continue,
                _ => return,
            }
        }
        let errno = fault.answer();
        let flags = if errno == 0 { libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32 } else { 0 };
        let mut answer = libc::seccomp_notif_resp { id: call.id, val: 0, error: -errno, flags };
        let send = request::<libc::seccomp_notif_resp>(1);
        // SAFETY: the kernel reads one of these. If the call has been interrupted nobody waits.
        unsafe { libc::ioctl(listener.as_raw_fd(), send as _, &raw mut answer) };
    }
}

/// From here on each such call of this thread is answered as the fault says. There is no way back.
fn inject(call: libc::c_long) -> Arc<Fault> {
    let step = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let answer = libc::BPF_RET | libc::BPF_K;
    let mut filter = [
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, call as u32),
        step(answer, 0, 0, libc::SECCOMP_RET_USER_NOTIF),
        step(answer, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    let (give, take) = std::sync::mpsc::channel();
    let fault = Arc::new(Fault::default());
    // It has to be there before the filter, which its children inherit.
    thread::spawn({
        let fault = fault.clone();
        move || supervise(take.recv().expect("a listener"), &fault)
    });
    // SAFETY: this prctl takes numbers only.
    let unprivileged = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    assert_eq!(unprivileged, 0, "PR_SET_NO_NEW_PRIVS");
    let (mode, flags) = (libc::SECCOMP_SET_MODE_FILTER, libc::SECCOMP_FILTER_FLAG_NEW_LISTENER);
    // SAFETY: the kernel copies the program, whose pointer and length are those of `filter`.
    let number = unsafe { libc::syscall(libc::SYS_seccomp, mode, flags, &raw const program) };
    assert!(number >= 0, "seccomp: {}", io::Error::last_os_error());
    // SAFETY: seccomp(2) has just made it, and nobody else knows it.
    give.send(unsafe { OwnedFd::from_raw_fd(number as i32) }).expect("the supervisor");
    fault
}

/// Runs `body` where faults can be injected, in a process of its own, on a poller made there.
fn with_faults(test: &str, body: impl FnOnce(Box<dyn Poller>, &Fault)) {
    with_faults_of(libc::SYS_io_uring_enter, test, body);
}

/// The same for another system call.
fn with_faults_of(call: libc::c_long, test: &str, body: impl FnOnce(Box<dyn Poller>, &Fault)) {
    in_own_process(&format!("inject::{test}"), || {
        if let Err(error) = Backend::Uring.is_available() {
            let required = std::env::var("QUINTPOLL_REQUIRE").unwrap_or_default();
            let is_required = required.split(',').any(|name| name.trim() == "uring");
            assert!(!is_required, "it may not be skipped: {error}");
            eprintln!("skipped: {error}");
            return;
        }
        let fault = inject(call);
        body(Backend::Uring.open().expect("it is available"), &fault);
    });
}

fn add(poller: &mut dyn Poller, source: Source) -> Key {
    poller.register(source, Token(0), Interest::empty(), Mode::Edge).expect("register")
}

fn stream() -> (Arc<UnixStream>, UnixStream) {
    let (here, there) = UnixStream::pair().expect("socketpair");
    there.set_nonblocking(true).expect("O_NONBLOCK");
    (Arc::new(here), there)
}

/// The next `count` completions, by waits that may fail, but with this error only.
fn collect(
    poller: &mut dyn Poller,
    events: &mut Events,
    count: usize,
    errno: i32,
) -> Vec<Completion> {
    let (started, mut collected) = (Instant::now(), Vec::new());
    while collected.len() < count {
        if let Err(error) = poller.wait(events, Some(LONG)) {
            assert_ne!(error.kind(), io::ErrorKind::Interrupted, "no wait says that");
            assert_eq!(error.raw_os_error(), Some(errno), "{error}");
        }
        collected.extend(events.completions());
        assert!(started.elapsed() < LONG, "{} of {count} after {LONG:?}", collected.len());
    }
    collected
}

#[test]
fn nothing_is_lost_by_errors_that_pass() {
    with_faults("nothing_is_lost_by_errors_that_pass", |mut poller, fault| {
        let poller = &mut *poller;
        let (here, mut there) = stream();
        let key = add(poller, here);
        let mut events = Events::with_capacity(16);
        for (errno, every) in [libc::EAGAIN, libc::EBUSY, libc::EINTR, libc::ENOMEM]
            .into_iter()
            .flat_map(|errno| [2, 3, 5].map(|every| (errno, every)))
        {
            for round in 0..50u8 {
                fault.begin(errno, every);
                let receive = Op::recv_exact(key, vec![round], 4);
                let id = poller.submit(receive, Token(1)).expect("recv");
                let queued = poller.submit(Op::recv(key, vec![round], 1), Token(2)).expect("recv");
                let sent = poller.submit(Op::send_all(key, vec![round; 3], ..), Token(3));
                let sent = sent.expect("send");
                let _ = poller.wait(&mut events, Some(ZERO));
                there.write_all(&[round; 5]).expect("write");
                let mut done: Vec<_> = events.completions().collect();
                let missing = 3 - done.len();
                done.extend(collect(poller, &mut events, missing, errno));
                assert!(done.iter().all(|done| done.result.is_ok()), "{done:?}");
                let find = |id: OpId| done.iter().find(|done| done.id == id).expect("each once");
                assert_eq!(*find(id).buf, [round; 5]);
                assert_eq!(*find(queued).buf, [round; 2]);
                assert_eq!(find(sent).transferred, 3);
                let mut bytes = [0; 8];
                assert_eq!(there.read(&mut bytes).expect("read"), 3, "once");
                assert_eq!(bytes[..3], [round; 3]);
            }
        }
        assert!(fault.faults.load(Ordering::SeqCst) > 200, "faults were injected");
        fault.end();
        poller.wait(&mut events, Some(ZERO)).expect("wait");
        assert_eq!(events.completed(), 0, "each completed once");
    });
}

/// What the ring was told of comes back when the kernel says so, and not when a call fails.
#[test]
fn no_buffer_comes_back_early() {
    with_faults("no_buffer_comes_back_early", |mut poller, fault| {
        let poller = &mut *poller;
        for (errno, is_known) in [libc::EAGAIN, libc::EBUSY, libc::ENOMEM, libc::EPERM]
            .into_iter()
            .flat_map(|errno| [false, true].map(|is_known| (errno, is_known)))
        {
            for by_deregister in [false, true] {
                let (here, mut there) = stream();
                let key = add(poller, here);
                let mut events = Events::with_capacity(16);
                let id = poller.submit(Op::recv(key, Vec::new(), 8), Token(1)).expect("recv");
                if is_known {
                    poller.wait(&mut events, Some(ZERO)).expect("wait");
                }
                fault.begin(errno, 1);
                // Now the request stands in the ring, where the kernel may find it at any time.
                poller.wait(&mut events, Some(ZERO)).expect_err("the kernel is not entered");
                if by_deregister {
                    poller.deregister(key).expect("deregister");
                } else {
                    poller.cancel(id).expect("cancel");
                }
                for _ in 0..3 {
                    let _ = poller.wait(&mut events, Some(ZERO));
                    assert_eq!(events.completed(), 0, "nobody knows what the kernel does with it");
                }
                fault.end();
                let done = collect(poller, &mut events, 1, 0).remove(0);
                assert!(done.id == id && done.is_canceled(), "{done:?}");
                assert!(matches!(&done.buf, Buf::Vec(bytes) if bytes.is_empty()), "{done:?}");
                if by_deregister {
                    poller.wait(&mut events, Some(ZERO)).expect("wait");
                    let end = there.read(&mut [0; 8]).expect("the file is let go, in the end");
                    assert_eq!(end, 0);
                } else {
                    poller.deregister(key).expect("deregister");
                }
                there.flush().expect("it is open");
            }
        }
        assert_eq!(leaked_buffers(), 0);
    });
}

/// Drops a poller with operations that the kernel has, while every call fails with this error.
fn check_drop(test: &str, errno: i32) {
    with_faults(test, |mut poller, fault| {
        let pairs: Vec<_> = (0..50).map(|_| stream()).collect();
        let keys: Vec<_> = pairs.iter().map(|(here, _)| add(&mut *poller, here.clone())).collect();
        for &key in &keys {
            // One is the kernel's, and one waits for its turn.
            let receive = || Op::recv(key, Vec::with_capacity(64), 64);
            poller.submit(receive(), Token(0)).expect("recv");
            poller.submit(receive(), Token(0)).expect("recv");
        }
        let mut events = Events::with_capacity(16);
        poller.wait(&mut events, Some(ZERO)).expect("wait");
        fault.begin(errno, 1);
        drop(poller);
        assert_eq!(leaked_buffers(), 50, "what the kernel has is never freed");
        fault.end();
        // The memory of the others is used again, and nobody writes to it.
        let canaries: Vec<_> = (0..200).map(|_| vec![0xa5u8; 64]).collect();
        pairs.iter().for_each(|(_, there)| drop((&*there).write(b"late")));
        let mut other = Backend::Uring.open().expect("another one");
        other.wait(&mut events, Some(ZERO)).expect("wait");
        assert!(canaries.iter().flatten().all(|&byte| byte == 0xa5), "a late write");
        drop(other);
        assert_eq!(leaked_buffers(), 50, "another poller has none to leak");
    });
}

#[test]
fn a_drop_under_a_lasting_error_leaks_and_counts() {
    check_drop("a_drop_under_a_lasting_error_leaks_and_counts", libc::EAGAIN);
}

#[test]
fn a_drop_in_a_sandbox_that_has_closed_leaks_and_counts() {
    check_drop("a_drop_in_a_sandbox_that_has_closed_leaks_and_counts", libc::EPERM);
}

/// How much is read from the disk at once: the kernel is at it for a while.
const FILE: usize = 32 << 20;
const PAGE: usize = 4096;

/// A file to be read past the page cache. `None` where the file system has no such thing.
fn direct_file() -> Option<File> {
    let named = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(&named, vec![0x5a; FILE]).expect("there is room");
    File::options().read(true).custom_flags(libc::O_DIRECT).open(&named).ok()
}

/// A disk goes on to write to memory that nobody can take back from it: nobody else gets it.
#[test]
fn what_a_disk_still_writes_to_is_never_freed() {
    with_faults("what_a_disk_still_writes_to_is_never_freed", |_, fault| {
        let Some(file) = direct_file().map(Arc::new) else {
            eprintln!("skipped: no O_DIRECT in the temporary directory");
            return;
        };
        for round in 0..4 {
            let mut poller = Backend::Uring.open().expect("it is available");
            let key = add(&mut *poller, file.clone());
            // Such reads want a buffer that begins at a page.
            let mut buffer: Vec<u8> = Vec::with_capacity(FILE + 2 * PAGE);
            buffer.resize(buffer.as_ptr().align_offset(PAGE), 0);
            poller.submit(Op::read_at(key, buffer, FILE, 0), Token(0)).expect("read");
            let mut events = Events::with_capacity(4);
            poller.wait(&mut events, Some(ZERO)).expect("wait");
            let is_under_way = events.completed() == 0;
            let before = leaked_buffers();
            fault.begin(libc::EPERM, 1);
            drop((poller, events));
            fault.end();
            assert_eq!(leaked_buffers() - before, usize::from(is_under_way), "round {round}");
            // The allocator would give the same room again.
            let canary = vec![0xa5u8; FILE + 2 * PAGE];
            let started = Instant::now();
            while started.elapsed() < Duration::from_millis(50) {
                thread::yield_now();
            }
            let page = [0xa5u8; PAGE];
            let touched = canary.chunks(PAGE).filter(|chunk| **chunk != page).count();
            assert_eq!(touched, 0, "pages were written to, round {round}");
        }
    });
}

#[test]
fn a_drop_under_an_error_that_passes_leaks_nothing() {
    with_faults("a_drop_under_an_error_that_passes_leaks_nothing", |mut poller, fault| {
        let poller = &mut *poller;
        for errno in [libc::EAGAIN, libc::EBUSY, libc::EINTR, libc::ENOMEM] {
            let mut mine = Backend::Uring.open().expect("it is available");
            let pairs: Vec<_> = (0..50).map(|_| stream()).collect();
            for (here, _) in &pairs {
                let key = add(&mut *mine, here.clone());
                mine.submit(Op::recv(key, Vec::new(), 64), Token(0)).expect("recv");
            }
            mine.wait(&mut Events::with_capacity(4), Some(ZERO)).expect("wait");
            fault.begin(errno, 2);
            drop(mine);
            fault.end();
            for (here, mut there) in pairs {
                assert_eq!(Arc::strong_count(&here), 1, "let go");
                drop(here);
                assert_eq!(there.read(&mut [0; 8]).expect("the end is seen at once"), 0);
            }
        }
        assert_eq!(leaked_buffers(), 0);
        poller.wait(&mut Events::with_capacity(4), Some(ZERO)).expect("the other one goes on");
    });
}

/// Linux knows provided buffer rings since 5.19. Before, a receive is told so once.
#[test]
fn a_kernel_without_buffer_rings_is_asked_once() {
    let test = "a_kernel_without_buffer_rings_is_asked_once";
    with_faults_of(libc::SYS_io_uring_register, test, |mut poller, fault| {
        let poller = &mut *poller;
        let (here, mut there) = stream();
        let key = add(poller, here);
        let pool = BufferPool::new(64, 4).expect("a pool");
        let mut events = Events::with_capacity(16);
        let before = fault.calls.load(Ordering::SeqCst);
        fault.begin(libc::EINVAL, 1);
        for round in 0..100u8 {
            let id = poller.submit(Op::recv_multi(key, &pool), Token(1)).expect("recv_multi");
            there.write_all(&[round]).expect("write");
            let got = collect(poller, &mut events, 1, 0).remove(0);
            assert_eq!((got.id, &*got.buf, got.more), (id, &[round][..], true), "{got:?}");
            drop(got);
            poller.cancel(id).expect("cancel");
            let last = collect(poller, &mut events, 1, 0).remove(0);
            assert_eq!((last.id, last.more, pool.idle()), (id, false, pool.made()), "{last:?}");
        }
        assert_eq!(fault.calls.load(Ordering::SeqCst) - before, 1);
    });
}
