//! Operations while system calls on a ring fail, for a while or for good. A seccomp filter lets
//! another thread of the test decide the result of each call of this thread.
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

/// The result of the calls.
#[derive(Default)]
struct Fault {
    /// The errno, or 0: the call is made.
    errno: AtomicI32,
    /// One call in this many fails.
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
        let (errno, call) =
            (self.errno.load(Ordering::SeqCst), self.calls.fetch_add(1, Ordering::SeqCst));
        if errno == 0 || call % self.every.load(Ordering::SeqCst) != 0 {
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

/// Returns true if a thread still has the filter.
fn is_filtering(listener: &OwnedFd) -> bool {
    let mut wanted = libc::pollfd { fd: listener.as_raw_fd(), events: 0, revents: 0 };
    // SAFETY: the kernel writes into this one entry.
    let found = unsafe { libc::poll(&raw mut wanted, 1, 0) };
    found == 0
}

/// Decides the calls of the filtered thread until that has ended.
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
                // Task work has interrupted the call before it was received; it is made again.
                Some(libc::ENOENT) if is_filtering(&listener) => continue,
                _ => return,
            }
        }
        let errno = fault.answer();
        let flags = if errno == 0 { libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32 } else { 0 };
        let mut answer = libc::seccomp_notif_resp { id: call.id, val: 0, error: -errno, flags };
        let send = request::<libc::seccomp_notif_resp>(1);
        // SAFETY: the kernel reads one of these. An interrupted call needs no answer.
        unsafe { libc::ioctl(listener.as_raw_fd(), send as _, &raw mut answer) };
    }
}

/// Lets the fault decide each such call of this thread from now on. The filter cannot be removed.
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
    // The supervisor is started before the filter, which new threads inherit.
    thread::spawn({
        let fault = fault.clone();
        move || supervise(take.recv().expect("a listener"), &fault)
    });
    // SAFETY: this prctl takes numbers only.
    let unprivileged = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    assert_eq!(unprivileged, 0, "PR_SET_NO_NEW_PRIVS");
    let (mode, flags) = (libc::SECCOMP_SET_MODE_FILTER, libc::SECCOMP_FILTER_FLAG_NEW_LISTENER);
    // SAFETY: the kernel copies the program, whose pointer and length are those of `filter`.
    let fd = unsafe { libc::syscall(libc::SYS_seccomp, mode, flags, &raw const program) };
    assert!(fd >= 0, "seccomp: {}", io::Error::last_os_error());
    // SAFETY: seccomp(2) has just returned the descriptor, which has no other owner.
    give.send(unsafe { OwnedFd::from_raw_fd(fd as i32) }).expect("the supervisor");
    fault
}

/// Runs `body` in its own process with a poller whose io_uring_enter(2) can fail.
fn with_faults(test: &str, body: impl FnOnce(Box<dyn Poller>, &Fault)) {
    with_faults_of(libc::SYS_io_uring_enter, test, body);
}

/// Does what [`with_faults`] does for another system call.
fn with_faults_of(call: libc::c_long, test: &str, body: impl FnOnce(Box<dyn Poller>, &Fault)) {
    in_own_process(&format!("inject::{test}"), || {
        if let Err(error) = Backend::Uring.is_available() {
            let required = std::env::var("QUINTPOLL_REQUIRE").unwrap_or_default();
            let is_required = required.split(',').any(|name| name.trim() == "uring");
            assert!(!is_required, "a required backend is skipped: {error}");
            eprintln!("skipped: {error}");
            return;
        }
        let fault = inject(call);
        body(Backend::Uring.open().expect("an available backend"), &fault);
    });
}

fn add(poller: &mut dyn Poller, source: Source) -> Key {
    poller.register(source, Token(0), Interest::empty(), Mode::Edge).expect("register")
}

fn stream() -> (Arc<UnixStream>, UnixStream) {
    let (local, peer) = UnixStream::pair().expect("socketpair");
    peer.set_nonblocking(true).expect("O_NONBLOCK");
    (Arc::new(local), peer)
}

/// Returns the next `count` completions, by waits that may fail with this error only.
fn collect(
    poller: &mut dyn Poller,
    events: &mut Events,
    count: usize,
    errno: i32,
) -> Vec<Completion> {
    let (started, mut collected) = (Instant::now(), Vec::new());
    while collected.len() < count {
        if let Err(error) = poller.wait(events, Some(LONG)) {
            assert_ne!(error.kind(), io::ErrorKind::Interrupted, "no wait fails with EINTR");
            assert_eq!(error.raw_os_error(), Some(errno), "{error}");
        }
        collected.extend(events.completions());
        assert!(started.elapsed() < LONG, "{} of {count} after {LONG:?}", collected.len());
    }
    collected
}

#[test]
fn passing_enter_errors_lose_nothing() {
    with_faults("passing_enter_errors_lose_nothing", |mut poller, fault| {
        let poller = &mut *poller;
        let (local, mut peer) = stream();
        let key = add(poller, local);
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
                peer.write_all(&[round; 5]).expect("write");
                let mut done: Vec<_> = events.completions().collect();
                let missing = 3 - done.len();
                done.extend(collect(poller, &mut events, missing, errno));
                assert!(done.iter().all(|done| done.result.is_ok()), "{done:?}");
                let find = |id: OpId| done.iter().find(|done| done.id == id).expect("each once");
                assert_eq!(*find(id).buf, [round; 5]);
                assert_eq!(*find(queued).buf, [round; 2]);
                assert_eq!(find(sent).transferred, 3);
                let mut bytes = [0; 8];
                assert_eq!(peer.read(&mut bytes).expect("read"), 3, "once");
                assert_eq!(bytes[..3], [round; 3]);
            }
        }
        assert!(fault.faults.load(Ordering::SeqCst) > 200, "faults were injected");
        fault.end();
        poller.wait(&mut events, Some(ZERO)).expect("wait");
        assert_eq!(events.completed(), 0, "each completed once");
    });
}

/// A submitted buffer is returned by its CQE, and not when a call fails.
#[test]
fn buffers_return_only_after_their_cqe() {
    with_faults("buffers_return_only_after_their_cqe", |mut poller, fault| {
        let poller = &mut *poller;
        for (errno, is_known) in [libc::EAGAIN, libc::EBUSY, libc::ENOMEM, libc::EPERM]
            .into_iter()
            .flat_map(|errno| [false, true].map(|is_known| (errno, is_known)))
        {
            for by_deregister in [false, true] {
                let (local, mut peer) = stream();
                let key = add(poller, local);
                let mut events = Events::with_capacity(16);
                let id = poller.submit(Op::recv(key, Vec::new(), 8), Token(1)).expect("recv");
                if is_known {
                    poller.wait(&mut events, Some(ZERO)).expect("wait");
                }
                fault.begin(errno, 1);
                // Now the SQE is in the ring, where the kernel may find it at any time.
                poller.wait(&mut events, Some(ZERO)).expect_err("the kernel is not entered");
                if by_deregister {
                    poller.deregister(key).expect("deregister");
                } else {
                    poller.cancel(id).expect("cancel");
                }
                for _ in 0..3 {
                    let _ = poller.wait(&mut events, Some(ZERO));
                    assert_eq!(events.completed(), 0, "the kernel may still use the buffer");
                }
                fault.end();
                let done = collect(poller, &mut events, 1, 0).remove(0);
                assert!(done.id == id && done.is_canceled(), "{done:?}");
                assert!(matches!(&done.buf, Buf::Vec(bytes) if bytes.is_empty()), "{done:?}");
                if by_deregister {
                    poller.wait(&mut events, Some(ZERO)).expect("wait");
                    let end = peer.read(&mut [0; 8]).expect("the file is released");
                    assert_eq!(end, 0);
                } else {
                    poller.deregister(key).expect("deregister");
                }
                peer.flush().expect("it is open");
            }
        }
        assert_eq!(leaked_buffers(), 0);
    });
}

/// Drops a poller with operations that the kernel has, while every call fails with this error.
fn check_drop(test: &str, errno: i32) {
    with_faults(test, |mut poller, fault| {
        let pairs: Vec<_> = (0..50).map(|_| stream()).collect();
        let keys: Vec<_> =
            pairs.iter().map(|(local, _)| add(&mut *poller, local.clone())).collect();
        for &key in &keys {
            // One is in flight, and one is queued behind it.
            let receive = || Op::recv(key, Vec::with_capacity(64), 64);
            poller.submit(receive(), Token(0)).expect("recv");
            poller.submit(receive(), Token(0)).expect("recv");
        }
        let mut events = Events::with_capacity(16);
        poller.wait(&mut events, Some(ZERO)).expect("wait");
        fault.begin(errno, 1);
        drop(poller);
        assert_eq!(leaked_buffers(), 50, "buffers in flight are never freed");
        fault.end();
        // The memory of the others is reused, and the kernel does not write to it.
        let canaries: Vec<_> = (0..200).map(|_| vec![0xa5u8; 64]).collect();
        pairs.iter().for_each(|(_, peer)| drop((&*peer).write(b"late")));
        let mut other = Backend::Uring.open().expect("another one");
        other.wait(&mut events, Some(ZERO)).expect("wait");
        assert!(canaries.iter().flatten().all(|&byte| byte == 0xa5), "a late write");
        drop(other);
        assert_eq!(leaked_buffers(), 50, "another poller has none to leak");
    });
}

#[test]
fn drop_under_lasting_error_counts_leaked_buffers() {
    check_drop("drop_under_lasting_error_counts_leaked_buffers", libc::EAGAIN);
}

#[test]
fn drop_in_closed_sandbox_counts_leaked_buffers() {
    check_drop("drop_in_closed_sandbox_counts_leaked_buffers", libc::EPERM);
}

/// The size of a read that takes the disk a while.
const FILE: usize = 32 << 20;
const PAGE: usize = 4096;

/// Returns a file opened with `O_DIRECT`, `None` if the file system does not support it.
fn direct_file() -> Option<File> {
    let named = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(&named, vec![0x5a; FILE]).expect("disk space");
    File::options().read(true).custom_flags(libc::O_DIRECT).open(&named).ok()
}

/// A disk keeps writing to the memory of a read, which is therefore not reused.
#[test]
fn buffer_of_unfinished_disk_read_is_never_freed() {
    with_faults("buffer_of_unfinished_disk_read_is_never_freed", |_, fault| {
        let Some(file) = direct_file().map(Arc::new) else {
            eprintln!("skipped: no O_DIRECT in the temporary directory");
            return;
        };
        for round in 0..4 {
            let mut poller = Backend::Uring.open().expect("an available backend");
            let key = add(&mut *poller, file.clone());
            // O_DIRECT requires a buffer that begins at a page.
            let mut buffer: Vec<u8> = Vec::with_capacity(FILE + 2 * PAGE);
            buffer.resize(buffer.as_ptr().align_offset(PAGE), 0);
            poller.submit(Op::read_at(key, buffer, FILE, 0), Token(0)).expect("read");
            let mut events = Events::with_capacity(4);
            poller.wait(&mut events, Some(ZERO)).expect("wait");
            let is_in_flight = events.completed() == 0;
            let before = leaked_buffers();
            fault.begin(libc::EPERM, 1);
            drop((poller, events));
            fault.end();
            assert_eq!(leaked_buffers() - before, usize::from(is_in_flight), "round {round}");
            // The allocator would reuse the memory.
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
fn drop_under_passing_error_leaks_nothing() {
    with_faults("drop_under_passing_error_leaks_nothing", |mut poller, fault| {
        let poller = &mut *poller;
        for errno in [libc::EAGAIN, libc::EBUSY, libc::EINTR, libc::ENOMEM] {
            let mut mine = Backend::Uring.open().expect("an available backend");
            let pairs: Vec<_> = (0..50).map(|_| stream()).collect();
            for (local, _) in &pairs {
                let key = add(&mut *mine, local.clone());
                mine.submit(Op::recv(key, Vec::new(), 64), Token(0)).expect("recv");
            }
            mine.wait(&mut Events::with_capacity(4), Some(ZERO)).expect("wait");
            fault.begin(errno, 2);
            drop(mine);
            fault.end();
            for (local, mut peer) in pairs {
                assert_eq!(Arc::strong_count(&local), 1, "the source is released");
                drop(local);
                assert_eq!(peer.read(&mut [0; 8]).expect("the end of the stream"), 0);
            }
        }
        assert_eq!(leaked_buffers(), 0);
        poller.wait(&mut Events::with_capacity(4), Some(ZERO)).expect("the other poller works");
    });
}

/// Linux has provided buffer rings since 5.19. On older kernels they are probed once.
#[test]
fn missing_buffer_rings_are_probed_once() {
    let test = "missing_buffer_rings_are_probed_once";
    with_faults_of(libc::SYS_io_uring_register, test, |mut poller, fault| {
        let poller = &mut *poller;
        let (local, mut peer) = stream();
        let key = add(poller, local);
        let pool = BufferPool::new(64, 4).expect("a pool");
        let mut events = Events::with_capacity(16);
        let before = fault.calls.load(Ordering::SeqCst);
        fault.begin(libc::EINVAL, 1);
        for round in 0..100u8 {
            let id = poller.submit(Op::recv_multi(key, &pool), Token(1)).expect("recv_multi");
            peer.write_all(&[round]).expect("write");
            let got = collect(poller, &mut events, 1, 0).remove(0);
            assert_eq!((got.id, &*got.buf, got.more), (id, &[round][..], true), "{got:?}");
            drop(got);
            poller.cancel(id).expect("cancel");
            let last = collect(poller, &mut events, 1, 0).remove(0);
            assert_eq!(
                (last.id, last.more, pool.available()),
                (id, false, pool.allocated()),
                "{last:?}"
            );
        }
        assert_eq!(fault.calls.load(Ordering::SeqCst) - before, 1);
    });
}
