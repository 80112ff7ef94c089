//! Masks and queues as /proc shows them. Each test uses its own threads, because a mask belongs to
//! a thread.

mod children;
mod sharing;

use super::*;
use crate::testing::is_alone;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::fs;
use std::mem::offset_of;

/// Runs `test` on a new thread, without pollers, that blocks only `signals`.
fn with_blocked<T: Send>(signals: &[c_int], test: impl FnOnce() -> T + Send) -> T {
    let block = || {
        change_mask(libc::SIG_SETMASK, signals);
        test()
    };
    let outcome = std::thread::scope(|scope| scope.spawn(block).join());
    outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn change_mask(how: c_int, signals: &[c_int]) {
    // SAFETY: sigset_t is made of integers, for which all zeroes is a value.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` has room for the answer.
    unsafe { libc::sigemptyset(&mut set) };
    for &signal in signals {
        // SAFETY: the set is initialised.
        assert_eq!(unsafe { libc::sigaddset(&mut set, signal) }, 0, "signal {signal}");
    }
    // SAFETY: the set is initialised, and the old mask is not requested.
    assert_eq!(unsafe { libc::pthread_sigmask(how, &set, ptr::null_mut()) }, 0);
}

/// Every signal that can be blocked and is not reserved by the C library.
fn all() -> Vec<c_int> {
    let is_free = |signal: &c_int| {
        ![libc::SIGKILL, libc::SIGSTOP].contains(signal) && !(32..libc::SIGRTMIN()).contains(signal)
    };
    (1..=libc::SIGRTMAX()).filter(is_free).collect()
}

fn mask_in(status: &str, name: &str) -> u64 {
    let mask = status.lines().find_map(|line| line.strip_prefix(name)).expect("a line for it");
    u64::from_str_radix(mask.trim_start_matches(':').trim(), 16).expect("sixteen digits")
}

/// A mask of this thread, such as `SigBlk`.
fn mask(name: &str) -> u64 {
    let status = fs::read_to_string("/proc/thread-self/status").expect("a mounted /proc");
    mask_in(&status, name)
}

fn bits(signals: &[c_int]) -> u64 {
    signals.iter().fold(0, |bits, signal| bits | 1 << (signal - 1))
}

fn take_signals() -> Signals {
    Signals::take().expect("a free signal")
}

/// Counts the open descriptors of this process. For tests that run alone.
fn open_files() -> usize {
    fs::read_dir("/proc/self/fd").expect("a mounted /proc").count()
}

/// `siginfo_t` as the kernel writes it for a file.
#[repr(C)]
struct Info {
    signal: c_int,
    errno: c_int,
    code: c_int,
    #[cfg(target_pointer_width = "64")]
    padding: c_int,
    band: libc::c_long,
    fd: c_int,
    rest: [c_int; 30],
}

/// The layout in `asm-generic/siginfo.h`: the union begins at an address for a pointer. What
/// rt_tgsigqueueinfo(2) reads is a siginfo_t, so this must be no shorter.
const _: () = {
    let union = (3 * size_of::<c_int>()).next_multiple_of(align_of::<usize>());
    assert!(size_of::<Info>() >= size_of::<libc::siginfo_t>());
    assert!(offset_of!(Info, signal) == offset_of!(libc::siginfo_t, si_signo));
    assert!(offset_of!(Info, errno) == offset_of!(libc::siginfo_t, si_errno));
    assert!(offset_of!(Info, code) == offset_of!(libc::siginfo_t, si_code));
    assert!(offset_of!(Info, band) == union);
    assert!(offset_of!(Info, fd) == union + size_of::<libc::c_long>());
};

/// Queues a signal with any code to this thread, which the kernel allows for the sender's own.
fn queue(signal: c_int, code: c_int, fd: c_int) {
    // SAFETY: Info is made of integers, for which all zeroes is a value.
    let empty: Info = unsafe { std::mem::zeroed() };
    let info = Info { signal, code, fd, ..empty };
    let (process, thread) = (std::process::id() as c_int, nix::unistd::gettid().as_raw());
    // SAFETY: the kernel reads a siginfo_t, and Info is no shorter.
    let answer =
        unsafe { libc::syscall(libc::SYS_rt_tgsigqueueinfo, process, thread, signal, &info) };
    assert_eq!(answer, 0, "signal {signal}: {}", io::Error::last_os_error());
}

/// Sends a signal to this thread by tgkill(2).
fn send(signal: c_int) {
    let (process, thread) = (std::process::id() as c_int, nix::unistd::gettid().as_raw());
    // SAFETY: tgkill touches no memory.
    let answer = unsafe { libc::syscall(libc::SYS_tgkill, process, thread, signal) };
    assert_eq!(answer, 0, "signal {signal}");
}

fn set_action(signal: c_int, action: libc::sighandler_t) {
    // SAFETY: the action is SIG_DFL, SIG_IGN or a function that does nothing.
    let before = unsafe { libc::signal(signal, action) };
    assert_ne!(before, libc::SIG_ERR, "signal {signal}");
}

extern "C" fn ignore_signal(_: c_int) {}

impl Signals {
    fn drain_all(&mut self) -> Vec<i32> {
        let mut drain_all = Vec::new();
        self.drain(|fd| {
            drain_all.push(fd);
            true
        });
        drain_all
    }
}

const POLL_IN: c_int = 1;

#[test]
fn highest_free_signal_is_taken() {
    let last = libc::SIGRTMAX();
    with_blocked(&[], || {
        let (first, second) = (take_signals(), take_signals());
        assert_eq!([first.signal(), second.signal()], [last; 2], "one signal for each thread");
        drop(first);
        assert_eq!([second.signal(), take_signals().signal()], [last; 2]);
        assert_eq!(
            with_blocked(&[], || take_signals().signal()),
            last,
            "threads may use the same signal"
        );
    });
    let first_with = |blocked: &[c_int]| with_blocked(blocked, || take_signals().signal());
    assert_eq!(first_with(&[last, last - 2]), last - 1, "the program may wait for a blocked one");
    assert_eq!(first_with(&all()), last, "all are blocked");
    let but_one: Vec<_> = all().into_iter().filter(|&signal| signal != last - 7).collect();
    assert_eq!(first_with(&but_one), last - 7);
}

#[test]
fn mask_is_restored_in_any_drop_order() {
    let last = libc::SIGRTMAX();
    let orders: [&[usize]; 9] = [
        &[0],
        &[0, 1],
        &[1, 0],
        &[0, 1, 2],
        &[0, 2, 1],
        &[1, 0, 2],
        &[1, 2, 0],
        &[2, 0, 1],
        &[2, 1, 0],
    ];
    let masks =
        [vec![], vec![SIGIO], vec![last], vec![SIGIO, last, last - 2, libc::SIGUSR1], all()];
    for (blocked, order) in masks.iter().flat_map(|mask| orders.map(|order| (mask, order))) {
        with_blocked(blocked, || {
            let before = mask("SigBlk");
            assert_eq!(before, bits(blocked), "the mask is set");
            let mut pollers: Vec<_> = order.iter().map(|_| Some(take_signals())).collect();
            let check = |pollers: &[Option<Signals>]| {
                let own: Vec<_> = pollers.iter().flatten().map(Signals::signal).collect();
                let sigio = if own.is_empty() { 0 } else { bits(&[SIGIO]) };
                let expected = before | bits(&own) | sigio;
                assert_eq!(mask("SigBlk"), expected, "{blocked:?} {order:?} {own:?}");
            };
            check(&pollers);
            for &at in order {
                pollers[at] = None;
                check(&pollers);
            }
            drop(take_signals());
            check(&[]);
        });
    }
}

/// The program may change the mask for `SIGIO` between two pollers.
#[test]
fn first_poller_records_whether_sigio_was_blocked() {
    with_blocked(&[], || {
        drop(take_signals());
        change_mask(libc::SIG_BLOCK, &[SIGIO]);
        drop([take_signals(), take_signals()]);
        assert_eq!(mask("SigBlk"), bits(&[SIGIO]));
        change_mask(libc::SIG_UNBLOCK, &[SIGIO]);
        drop([take_signals(), take_signals()]);
        assert_eq!(mask("SigBlk"), 0);
    });
}

/// Alone, because actions belong to the process.
#[test]
fn signals_with_handlers_are_skipped() {
    if !is_alone("sys::signals::tests::signals_with_handlers_are_skipped") {
        return;
    }
    let last = libc::SIGRTMAX();
    set_action(last, ignore_signal as extern "C" fn(c_int) as libc::sighandler_t);
    set_action(last - 1, libc::SIG_IGN);
    for blocked in [vec![], vec![last], all()] {
        with_blocked(&blocked, || {
            let taken = [take_signals(), take_signals()];
            assert_eq!(taken.each_ref().map(Signals::signal), [last - 2; 2]);
        });
    }
    set_action(last, libc::SIG_DFL);
    with_blocked(&[], || assert_eq!(take_signals().signal(), last));
}

/// Alone, because it counts the files of the process, and actions belong to it.
#[test]
fn take_without_free_signal_changes_nothing() {
    if !is_alone("sys::signals::tests::take_without_free_signal_changes_nothing") {
        return;
    }
    let set_all = |action| {
        (libc::SIGRTMIN()..=libc::SIGRTMAX()).for_each(|signal| set_action(signal, action));
    };
    with_blocked(&[], || {
        let files = open_files();
        set_all(libc::SIG_IGN);
        for _ in 0..2 {
            let error = Signals::take().expect_err("all are taken");
            assert_eq!(error.kind(), io::ErrorKind::ResourceBusy);
            assert_eq!((mask("SigBlk"), open_files()), (0, files));
        }
        set_all(libc::SIG_DFL);
        assert_eq!(take_signals().signal(), libc::SIGRTMAX());
        assert_eq!((mask("SigBlk"), open_files()), (0, files));
    });
}

/// Alone, because limits belong to the process.
#[test]
fn take_without_free_fd_changes_nothing() {
    if !is_alone("sys::signals::tests::take_without_free_fd_changes_nothing") {
        return;
    }
    with_blocked(&[], || {
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
        setrlimit(Resource::RLIMIT_NOFILE, 0, hard).expect("less is allowed");
        let error = Signals::take().expect_err("no descriptor is below 0");
        setrlimit(Resource::RLIMIT_NOFILE, soft, hard).expect("the old limit");
        assert_eq!(error.raw_os_error(), Some(libc::EMFILE));
        assert_eq!(mask("SigBlk"), 0);
        assert_eq!(BLOCKED_HERE.load(Ordering::Relaxed), 0);
        assert_eq!(take_signals().signal(), libc::SIGRTMAX(), "the signal is free");
        assert_eq!(mask("SigBlk"), 0, "no user was counted");
    });
}

/// Alone, because a failure ends the process.
#[test]
fn last_drop_discards_pending_signals() {
    if !is_alone("sys::signals::tests::last_drop_discards_pending_signals") {
        return;
    }
    with_blocked(&[], || {
        let (first, second) = (take_signals(), take_signals());
        let own = first.signal();
        (0..3 * BATCH as c_int).for_each(|fd| queue(own, POLL_IN, fd));
        send(own);
        send(SIGIO);
        drop(first);
        assert_eq!(mask("SigPnd"), bits(&[own, SIGIO]), "the other poller may need them");
        drop(second);
        assert_eq!(mask("SigPnd"), 0);
        assert_eq!(mask("SigBlk"), 0, "the mask is restored");
    });
}

#[test]
fn only_poll_codes_of_kernel_name_fds() {
    with_blocked(&[], || {
        let mut signals = take_signals();
        let codes = (-6..9).chain([libc::SI_TKILL, libc::SI_QUEUE, libc::SI_USER, 0x80]);
        for code in codes {
            queue(signals.signal(), code, 77);
            let expected = if (1..=6).contains(&code) { vec![77] } else { vec![] };
            assert_eq!(signals.drain_all(), expected, "code {code}");
            assert_eq!(mask("SigPnd"), 0, "it was read");
            assert!(!signals.has_overflowed());
        }
        send(signals.signal());
        assert_eq!(signals.drain_all(), []);
        assert_eq!(mask("SigPnd"), 0, "it was read");
    });
}

#[test]
fn signalfd_is_readable_while_signals_are_pending() {
    with_blocked(&[], || {
        let mut signals = take_signals();
        let is_readable = |signals: &Signals| {
            let fd = signals.signalfd().as_raw_fd();
            let mut fds = [libc::pollfd { fd, events: libc::POLLIN, revents: 0 }];
            crate::sys::poll::poll_now(&mut fds).expect("one entry") == 1
        };
        assert!(!is_readable(&signals));
        for signal in [signals.signal(), SIGIO] {
            send(signal);
            assert!(is_readable(&signals), "signal {signal}");
            signals.drain_all();
            assert!(!is_readable(&signals), "signal {signal}");
        }
        let flags = |what| {
            // SAFETY: these commands take no argument, and touch no memory.
            unsafe { libc::fcntl(signals.signalfd().as_raw_fd(), what) }
        };
        assert_ne!(flags(libc::F_GETFD) & libc::FD_CLOEXEC, 0);
        assert_ne!(flags(libc::F_GETFL) & libc::O_NONBLOCK, 0);
    });
}

#[test]
fn drain_reads_any_number_of_signals() {
    with_blocked(&[], || {
        let mut signals = take_signals();
        let many = (UNCAPPED_READS as i32 + 3) * BATCH as i32;
        for count in [0, 1, 127, 128, 129, 256, 300, many] {
            (0..count).for_each(|fd| queue(signals.signal(), POLL_IN, fd));
            assert_eq!(signals.drain_all(), (0..count).collect::<Vec<_>>(), "in order");
            assert_eq!(signals.drain_all(), []);
        }
    });
}

/// Alone, because limits belong to the process.
#[test]
fn drain_ends_despite_fast_sender() {
    if !is_alone("sys::signals::tests::drain_ends_despite_fast_sender") {
        return;
    }
    // More than other tests queue, which count for the same user.
    let limit = 250 * BATCH + 1;
    let (_, hard) = getrlimit(Resource::RLIMIT_SIGPENDING).expect("a limit");
    setrlimit(Resource::RLIMIT_SIGPENDING, limit as u64, hard).expect("less is allowed");
    with_blocked(&[], || {
        let mut signals = take_signals();
        let own = signals.signal();
        (0..BATCH + 2).for_each(|_| queue(own, POLL_IN, 5));
        let mut read = 0;
        signals.drain(|_| {
            read += 1;
            assert!(read <= 2 * limit, "the drain would not end");
            queue(own, POLL_IN, 5);
            true
        });
        assert_eq!(read, (UNCAPPED_READS as usize + 251) * BATCH, "as many as the limit allows");
        assert_eq!(queue_limit(), limit as u64);
        // The drop discards the rest.
    });
}

/// The limit may be lower than when the signals were queued, and higher than when the poller was
/// made. Alone, because limits belong to the process.
#[test]
fn changed_limit_leaves_no_signal_unread() {
    if !is_alone("sys::signals::tests::changed_limit_leaves_no_signal_unread") {
        return;
    }
    let (soft, hard) = getrlimit(Resource::RLIMIT_SIGPENDING).expect("a limit");
    let limit_to = |soft| setrlimit(Resource::RLIMIT_SIGPENDING, soft, hard).expect("allowed");
    let many = (UNCAPPED_READS as usize + 4) * BATCH;
    assert!(soft > 4 * many as u64, "the limit is {soft}");
    with_blocked(&[], || {
        for (at_first, meanwhile, at_last) in [(soft, soft, 0), (0, soft, soft), (soft, soft, soft)]
        {
            limit_to(at_first);
            let mut signals = take_signals();
            limit_to(meanwhile);
            (0..many).for_each(|_| queue(signals.signal(), POLL_IN, 5));
            limit_to(at_last);
            assert_eq!(
                signals.drain_all().len(),
                many,
                "made under {at_first}, read under {at_last}"
            );
            assert_eq!(mask("SigPnd"), 0);
        }
        // The limit is too low both when the value is made and when it is dropped.
        limit_to(0);
        let signals = take_signals();
        limit_to(soft);
        (0..many).for_each(|_| queue(signals.signal(), POLL_IN, 5));
        limit_to(0);
        drop(signals);
        assert_eq!(mask("SigPnd"), 0);
        assert_eq!(mask("SigBlk"), 0, "the mask is restored");
    });
}

#[test]
fn block_corrects_a_restored_mask() {
    with_blocked(&[libc::SIGUSR1], || {
        let (first, second) = (take_signals(), take_signals());
        let blocked = mask("SigBlk");
        let both = [first.signal(), second.signal()];
        change_mask(libc::SIG_SETMASK, &[libc::SIGUSR1]);
        first.block();
        assert_eq!(mask("SigBlk"), bits(&[libc::SIGUSR1, SIGIO, both[0]]), "no other signal");
        second.block();
        second.block();
        assert_eq!(mask("SigBlk"), blocked);
        drop((first, second));
        assert_eq!(mask("SigBlk"), bits(&[libc::SIGUSR1]));
    });
}

#[test]
fn overflow_is_reported_once_per_poller() {
    with_blocked(&[], || {
        let (mut one, mut other) = (take_signals(), take_signals());
        assert!(!one.has_overflowed() && !other.take_overflow());
        send(SIGIO);
        assert!(!one.has_overflowed(), "SIGIO was not read yet");
        assert_eq!(one.drain_all(), []);
        assert!(one.has_overflowed() && one.has_overflowed());
        assert!(one.take_overflow() && !one.take_overflow());
        assert!(!one.has_overflowed());
        let mut late = take_signals();
        assert!(!late.has_overflowed(), "the overflow is older");
        assert_eq!(other.drain_all(), []);
        assert!(other.has_overflowed(), "another poller has read SIGIO");
        assert!(other.take_overflow() && !other.take_overflow());
        send(SIGIO);
        other.drain_all();
        send(SIGIO);
        other.drain_all();
        assert!(one.take_overflow() && other.take_overflow() && late.take_overflow());
        assert!(!one.has_overflowed() && !other.has_overflowed() && !late.has_overflowed());
    });
}

#[test]
fn overflow_is_reported_to_its_thread_only() {
    with_blocked(&[], || {
        let mut local = take_signals();
        with_blocked(&[], || {
            let mut other = take_signals();
            send(SIGIO);
            other.drain_all();
            assert!(other.has_overflowed());
        });
        local.drain_all();
        assert!(!local.has_overflowed());
    });
}

#[test]
fn signal_sets_match_the_c_library() {
    for signals in [vec![], vec![1], vec![64], vec![SIGIO, libc::SIGRTMAX()], all()] {
        let set = SignalSet::of(&signals);
        assert_eq!(set.0, bits(&signals));
        assert!((1..=64).all(|signal| set.contains(signal) == signals.contains(&signal)));
        let kernel = set.to_kernel();
        // SAFETY: the set is initialised.
        let is_in = |signal| unsafe { libc::sigismember(&kernel, signal) } == 1;
        assert!((1..=64).all(|signal| is_in(signal) == signals.contains(&signal)));
        assert_eq!(set.and(SignalSet::of(&[SIGIO])).0, bits(&signals) & bits(&[SIGIO]));
        assert_eq!(set.without(SignalSet::of(&[SIGIO])).0, bits(&signals) & !bits(&[SIGIO]));
    }
}
