//! Masks and queues as /proc shows them. Each test has threads of its own, because a mask belongs
//! to a thread.

mod children;
mod sharing;

use super::*;
use crate::testing::is_alone;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::fs;
use std::mem::offset_of;

/// Runs `test` on a thread that has no poller yet, and blocks what it says.
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
    // SAFETY: the set may be written to.
    unsafe { libc::sigemptyset(&mut set) };
    for &signal in signals {
        // SAFETY: the set is initialised.
        assert_eq!(unsafe { libc::sigaddset(&mut set, signal) }, 0, "signal {signal}");
    }
    // SAFETY: the set is initialised, and the old mask is not asked for.
    assert_eq!(unsafe { libc::pthread_sigmask(how, &set, ptr::null_mut()) }, 0);
}

/// Every signal that can be blocked and is not the C library's own.
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

fn take() -> Signals {
    Signals::take().expect("a free signal")
}

/// How many files this process has open. For tests that are alone.
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
    number: c_int,
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
    assert!(offset_of!(Info, number) == union + size_of::<libc::c_long>());
};

/// Queues a signal to this thread, with any code: one's own thread can be told anything.
fn queue(signal: c_int, code: c_int, number: c_int) {
    // SAFETY: Info is made of integers, for which all zeroes is a value.
    let empty: Info = unsafe { std::mem::zeroed() };
    let info = Info { signal, code, number, ..empty };
    let (process, thread) = (std::process::id() as c_int, nix::unistd::gettid().as_raw());
    // SAFETY: the kernel reads a siginfo_t, and Info is no shorter.
    let answer =
        unsafe { libc::syscall(libc::SYS_rt_tgsigqueueinfo, process, thread, signal, &info) };
    assert_eq!(answer, 0, "signal {signal}: {}", io::Error::last_os_error());
}

/// tgkill(2) to this thread.
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

extern "C" fn nothing(_: c_int) {}

impl Signals {
    fn names(&mut self) -> Vec<i32> {
        let mut names = Vec::new();
        self.drain(|number| {
            names.push(number);
            true
        });
        names
    }
}

const POLL_IN: c_int = 1;

#[test]
fn the_highest_signal_that_is_free_is_taken() {
    let last = libc::SIGRTMAX();
    with_blocked(&[], || {
        let (first, second) = (take(), take());
        assert_eq!([first.number(), second.number()], [last; 2], "a thread has one");
        drop(first);
        assert_eq!([second.number(), take().number()], [last; 2]);
        assert_eq!(with_blocked(&[], || take().number()), last, "another thread has its own");
    });
    let first_with = |blocked: &[c_int]| with_blocked(blocked, || take().number());
    assert_eq!(first_with(&[last, last - 2]), last - 1, "the blocked one may be somebody's");
    assert_eq!(first_with(&all()), last, "for want of others");
    let but_one: Vec<_> = all().into_iter().filter(|&signal| signal != last - 7).collect();
    assert_eq!(first_with(&but_one), last - 7);
}

#[test]
fn a_mask_is_as_before_whoever_goes_first() {
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
            assert_eq!(before, bits(blocked), "the kernel has what was asked for");
            let mut pollers: Vec<_> = order.iter().map(|_| Some(take())).collect();
            let check = |pollers: &[Option<Signals>]| {
                let own: Vec<_> = pollers.iter().flatten().map(Signals::number).collect();
                let sigio = if own.is_empty() { 0 } else { bits(&[SIGIO]) };
                let due = before | bits(&own) | sigio;
                assert_eq!(mask("SigBlk"), due, "{blocked:?} {order:?} {own:?}");
            };
            check(&pollers);
            for &at in order {
                pollers[at] = None;
                check(&pollers);
            }
            drop(take());
            check(&[]);
        });
    }
}

/// Between two pollers the program may change its mind about `SIGIO`.
#[test]
fn the_first_poller_of_each_time_remembers_sigio() {
    with_blocked(&[], || {
        drop(take());
        change_mask(libc::SIG_BLOCK, &[SIGIO]);
        drop([take(), take()]);
        assert_eq!(mask("SigBlk"), bits(&[SIGIO]));
        change_mask(libc::SIG_UNBLOCK, &[SIGIO]);
        drop([take(), take()]);
        assert_eq!(mask("SigBlk"), 0);
    });
}

/// Alone, because actions belong to the process.
#[test]
fn a_signal_with_a_handler_is_somebody_elses() {
    if !is_alone("sys::signals::tests::a_signal_with_a_handler_is_somebody_elses") {
        return;
    }
    let last = libc::SIGRTMAX();
    set_action(last, nothing as extern "C" fn(c_int) as libc::sighandler_t);
    set_action(last - 1, libc::SIG_IGN);
    for blocked in [vec![], vec![last], all()] {
        with_blocked(&blocked, || {
            let taken = [take(), take()];
            assert_eq!(taken.each_ref().map(Signals::number), [last - 2; 2]);
        });
    }
    set_action(last, libc::SIG_DFL);
    with_blocked(&[], || assert_eq!(take().number(), last));
}

/// Alone, because it counts the files of the process, and actions belong to it.
#[test]
fn without_a_free_signal_nothing_changes() {
    if !is_alone("sys::signals::tests::without_a_free_signal_nothing_changes") {
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
        assert_eq!(take().number(), libc::SIGRTMAX());
        assert_eq!((mask("SigBlk"), open_files()), (0, files));
    });
}

/// Alone, because of the limit.
#[test]
fn without_a_free_number_nothing_changes() {
    if !is_alone("sys::signals::tests::without_a_free_number_nothing_changes") {
        return;
    }
    with_blocked(&[], || {
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
        setrlimit(Resource::RLIMIT_NOFILE, 0, hard).expect("less is allowed");
        let error = Signals::take().expect_err("no number is below 0");
        setrlimit(Resource::RLIMIT_NOFILE, soft, hard).expect("it was so before");
        assert_eq!(error.raw_os_error(), Some(libc::EMFILE));
        assert_eq!(mask("SigBlk"), 0);
        assert_eq!(BLOCKED_HERE.load(Ordering::Relaxed), 0);
        assert_eq!(take().number(), libc::SIGRTMAX(), "it was not taken");
        assert_eq!(mask("SigBlk"), 0, "nobody was counted");
    });
}

/// Alone, because it ends the process if it fails.
#[test]
fn what_is_pending_goes_with_the_poller() {
    if !is_alone("sys::signals::tests::what_is_pending_goes_with_the_poller") {
        return;
    }
    with_blocked(&[], || {
        let (first, second) = (take(), take());
        let own = first.number();
        (0..3 * BATCH as c_int).for_each(|number| queue(own, POLL_IN, number));
        send(own);
        send(SIGIO);
        drop(first);
        assert_eq!(mask("SigPnd"), bits(&[own, SIGIO]), "somebody may be waiting for it");
        drop(second);
        assert_eq!(mask("SigPnd"), 0);
        assert_eq!(mask("SigBlk"), 0, "and here we are");
    });
}

#[test]
fn only_what_the_kernel_says_of_files_names_a_number() {
    with_blocked(&[], || {
        let mut signals = take();
        let codes = (-6..9).chain([libc::SI_TKILL, libc::SI_QUEUE, libc::SI_USER, 0x80]);
        for code in codes {
            queue(signals.number(), code, 77);
            let due = if (1..=6).contains(&code) { vec![77] } else { vec![] };
            assert_eq!(signals.names(), due, "code {code}");
            assert_eq!(mask("SigPnd"), 0, "it was read");
            assert!(!signals.has_overflowed());
        }
        send(signals.number());
        assert_eq!(signals.names(), []);
        assert_eq!(mask("SigPnd"), 0, "it was read");
    });
}

#[test]
fn the_queue_is_readable_while_something_is_in_it() {
    with_blocked(&[], || {
        let mut signals = take();
        let is_readable = |signals: &Signals| {
            let fd = signals.queue().as_raw_fd();
            let mut fds = [libc::pollfd { fd, events: libc::POLLIN, revents: 0 }];
            crate::sys::poll::look(&mut fds).expect("one entry") == 1
        };
        assert!(!is_readable(&signals));
        for signal in [signals.number(), SIGIO] {
            send(signal);
            assert!(is_readable(&signals), "signal {signal}");
            signals.names();
            assert!(!is_readable(&signals), "signal {signal}");
        }
        let flags = |what| {
            // SAFETY: asked without an argument, these touch no memory.
            unsafe { libc::fcntl(signals.queue().as_raw_fd(), what) }
        };
        assert_ne!(flags(libc::F_GETFD) & libc::FD_CLOEXEC, 0);
        assert_ne!(flags(libc::F_GETFL) & libc::O_NONBLOCK, 0);
    });
}

#[test]
fn everything_is_read_however_much_it_is() {
    with_blocked(&[], || {
        let mut signals = take();
        let many = (PATIENCE as i32 + 3) * BATCH as i32;
        for count in [0, 1, 127, 128, 129, 256, 300, many] {
            (0..count).for_each(|number| queue(signals.number(), POLL_IN, number));
            assert_eq!(signals.names(), (0..count).collect::<Vec<_>>(), "in their order");
            assert_eq!(signals.names(), []);
        }
    });
}

/// Alone, because of the limit.
#[test]
fn a_reader_does_not_keep_up_with_a_sender_for_ever() {
    if !is_alone("sys::signals::tests::a_reader_does_not_keep_up_with_a_sender_for_ever") {
        return;
    }
    // More than other tests ever have queued, which count as the same user's.
    let limit = 250 * BATCH + 1;
    let (_, hard) = getrlimit(Resource::RLIMIT_SIGPENDING).expect("a limit");
    setrlimit(Resource::RLIMIT_SIGPENDING, limit as u64, hard).expect("less is allowed");
    with_blocked(&[], || {
        let mut signals = take();
        let own = signals.number();
        (0..BATCH + 2).for_each(|_| queue(own, POLL_IN, 5));
        let mut read = 0;
        signals.drain(|_| {
            read += 1;
            assert!(read <= 2 * limit, "it would go on");
            queue(own, POLL_IN, 5);
            true
        });
        assert_eq!(read, (PATIENCE as usize + 251) * BATCH, "as many as can have been there");
        assert_eq!(queue_limit(), limit as u64);
        // What is left is read when it goes.
    });
}

/// What the limit is now may be less than what was queued under an older one, and more than what it
/// was when the poller was made. Alone, because of the limit.
#[test]
fn a_limit_that_changes_leaves_nothing_unread() {
    if !is_alone("sys::signals::tests::a_limit_that_changes_leaves_nothing_unread") {
        return;
    }
    let (soft, hard) = getrlimit(Resource::RLIMIT_SIGPENDING).expect("a limit");
    let limit_to = |soft| setrlimit(Resource::RLIMIT_SIGPENDING, soft, hard).expect("allowed");
    let many = (PATIENCE as usize + 4) * BATCH;
    assert!(soft > 4 * many as u64, "the limit is {soft}");
    with_blocked(&[], || {
        for (at_first, meanwhile, at_last) in [(soft, soft, 0), (0, soft, soft), (soft, soft, soft)]
        {
            limit_to(at_first);
            let mut signals = take();
            limit_to(meanwhile);
            (0..many).for_each(|_| queue(signals.number(), POLL_IN, 5));
            limit_to(at_last);
            assert_eq!(signals.names().len(), many, "made under {at_first}, read under {at_last}");
            assert_eq!(mask("SigPnd"), 0);
        }
        // Neither when it was made nor when it goes does the limit tell how many there are.
        limit_to(0);
        let signals = take();
        limit_to(soft);
        (0..many).for_each(|_| queue(signals.number(), POLL_IN, 5));
        limit_to(0);
        drop(signals);
        assert_eq!(mask("SigPnd"), 0);
        assert_eq!(mask("SigBlk"), 0, "and here we are");
    });
}

#[test]
fn an_older_mask_that_was_put_back_is_changed_again() {
    with_blocked(&[libc::SIGUSR1], || {
        let (first, second) = (take(), take());
        let blocked = mask("SigBlk");
        let both = [first.number(), second.number()];
        change_mask(libc::SIG_SETMASK, &[libc::SIGUSR1]);
        first.block();
        assert_eq!(mask("SigBlk"), bits(&[libc::SIGUSR1, SIGIO, both[0]]), "its own, and no other");
        second.block();
        second.block();
        assert_eq!(mask("SigBlk"), blocked);
        drop((first, second));
        assert_eq!(mask("SigBlk"), bits(&[libc::SIGUSR1]));
    });
}

#[test]
fn an_overflow_is_told_to_every_poller_of_the_thread_once() {
    with_blocked(&[], || {
        let (mut one, mut other) = (take(), take());
        assert!(!one.has_overflowed() && !other.take_overflow());
        send(SIGIO);
        assert!(!one.has_overflowed(), "nobody has read it");
        assert_eq!(one.names(), []);
        assert!(one.has_overflowed() && one.has_overflowed());
        assert!(one.take_overflow() && !one.take_overflow());
        assert!(!one.has_overflowed());
        let mut late = take();
        assert!(!late.has_overflowed(), "it was before its time");
        assert_eq!(other.names(), []);
        assert!(other.has_overflowed(), "though the other has read it");
        assert!(other.take_overflow() && !other.take_overflow());
        send(SIGIO);
        other.names();
        send(SIGIO);
        other.names();
        assert!(one.take_overflow() && other.take_overflow() && late.take_overflow());
        assert!(!one.has_overflowed() && !other.has_overflowed() && !late.has_overflowed());
    });
}

#[test]
fn an_overflow_is_a_matter_of_one_thread() {
    with_blocked(&[], || {
        let mut here = take();
        with_blocked(&[], || {
            let mut there = take();
            send(SIGIO);
            there.names();
            assert!(there.has_overflowed());
        });
        here.names();
        assert!(!here.has_overflowed());
    });
}

#[test]
fn sets_are_what_the_c_library_says() {
    for signals in [vec![], vec![1], vec![64], vec![SIGIO, libc::SIGRTMAX()], all()] {
        let set = Set::of(&signals);
        assert_eq!(set.0, bits(&signals));
        assert!((1..=64).all(|signal| set.contains(signal) == signals.contains(&signal)));
        let kernel = set.to_kernel();
        // SAFETY: the set is initialised.
        let is_in = |signal| unsafe { libc::sigismember(&kernel, signal) } == 1;
        assert!((1..=64).all(|signal| is_in(signal) == signals.contains(&signal)));
        assert_eq!(set.and(Set::of(&[SIGIO])).0, bits(&signals) & bits(&[SIGIO]));
        assert_eq!(set.without(Set::of(&[SIGIO])).0, bits(&signals) & !bits(&[SIGIO]));
    }
}
