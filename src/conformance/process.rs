//! Clauses P: process.

use super::kit::*;
use crate::event::{Mode, Readiness, Token};
use crate::reactor::Waker;
use crate::sys::staging;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::io;

fn said_so(answer: io::Result<impl Sized>) -> bool {
    answer.is_err_and(|error| error.to_string().contains("fork"))
}

pub(super) fn p1_a_forked_child_is_refused(stage: &Stage) {
    for mode in MODES {
        let mut desk = stage.desk(4);
        let (here, there) = stream();
        let (other, _other_there) = stream();
        let key = desk.register(here.clone(), 1, READ, mode);
        let waker = desk.poller.waker();
        let mut inherited = Some(desk);
        let status = staging::in_forked_child(|| {
            let Some(mut desk) = inherited.take() else { return 1 };
            let poller = &mut *desk.poller;
            let refused = said_so(poller.register(other.clone(), Token(2), READ, mode))
                && said_so(poller.modify(key, Token(3), WRITE, Mode::Level))
                && said_so(poller.rearm(key, READ))
                && said_so(poller.drained(key, READ))
                && said_so(poller.wait(&mut desk.events, Some(ZERO)))
                && said_so(poller.deregister(key));
            waker.wake();
            drop(desk);
            // The child's own poller works, and its waker too.
            let mut own = stage.desk(4);
            own.register(here.clone(), 4, WRITE, Mode::Level);
            own.poller.waker().wake();
            own.expect_now(&[(4, Readiness::WRITABLE)], "a poller made in the child");
            i32::from(!(refused && own.events.woken()))
        });
        let status = status.unwrap_or_else(|error| panic!("fork: {error}"));
        assert_eq!(status, 0, "every call in the child fails and says why");
        let Some(mut desk) = inherited else { panic!("the parent's copy is its own") };
        desk.expect_silence("the child woke nobody and changed nothing");
        put(&there, b"x");
        desk.expect_now(&[(1, Readiness::READABLE)], "the parent's registration stands");
        desk.deregister(key);
    }
}

pub(super) fn p2_internal_files_are_close_on_exec(stage: &Stage) {
    let before = open_numbers();
    let mut desk = stage.desk(4);
    let (here, there) = stream();
    let mine = [std::os::fd::AsRawFd::as_raw_fd(&*here), std::os::fd::AsRawFd::as_raw_fd(&there)];
    desk.register(here, 1, BOTH, Mode::Level);
    desk.now();
    let internal = open_numbers().into_iter().filter(|n| !before.contains(n) && !mine.contains(n));
    for number in internal {
        let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{number}"));
        let info = info.unwrap_or_else(|error| panic!("fdinfo of {number}: {error}"));
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
        let flags = flags.and_then(|flags| i32::from_str_radix(flags.trim(), 8).ok());
        let is_closed = flags.is_some_and(|flags| flags & libc::O_CLOEXEC != 0);
        let what = std::fs::read_link(format!("/proc/self/fd/{number}"));
        assert!(is_closed, "{number}, {what:?}, would stay open across exec: {info}");
    }
}

pub(super) fn p4_wakers_cross_threads(stage: &Stage) {
    fn crosses_threads<T: Send + Sync + Clone + 'static>(value: T) -> T {
        value
    }
    let mut desk = stage.desk(1);
    let waker: Waker = crosses_threads(desk.poller.waker());
    let thread = std::thread::spawn(move || waker.wake());
    desk.wait(None);
    assert!(desk.events.woken());
    thread.join().unwrap_or_else(|_| panic!("the waking thread failed"));
}

fn set_file_limit(soft: u64) -> u64 {
    let limits = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or_else(|e| panic!("getrlimit: {e}"));
    setrlimit(Resource::RLIMIT_NOFILE, soft.min(limits.1), limits.1)
        .unwrap_or_else(|error| panic!("setrlimit: {error}"));
    limits.0
}

pub(super) fn p5_out_of_files_leaves_nothing_behind(stage: &Stage) {
    drop(stage.poller());
    let before = open_numbers();
    let highest = before.last().map_or(0, |&number| number as u64);
    // One more number each time, until a poller can be made.
    for spare in 1.. {
        let limit = set_file_limit(highest + spare);
        let opened = stage.try_poller();
        set_file_limit(limit);
        let Err(error) = opened else { break };
        assert_eq!(error.raw_os_error(), Some(libc::EMFILE), "{error}");
        assert_eq!(open_numbers(), before, "a poller that could not be made left files open");
    }
    assert_eq!(open_numbers(), before, "dropped");
}

pub(super) fn p5_a_lowered_limit_loses_nothing(stage: &Stage) {
    for mode in MODES {
        let mut desk = stage.desk(64);
        let pairs: Vec<_> = (0..40).map(|_| stream()).collect();
        for (token, (here, there)) in pairs.iter().enumerate() {
            desk.register(here.clone(), token, READ, mode);
            put(there, b"x");
        }
        let limit = set_file_limit(10);
        let waited = desk.poller.wait(&mut desk.events, Some(ZERO));
        set_file_limit(limit);
        let mut seen = match waited {
            Ok(()) => desk.said(),
            Err(error) => {
                let message = error.to_string();
                assert!(message.contains("RLIMIT_NOFILE"), "it names the cause: {message}");
                Vec::new()
            }
        };
        if seen.len() < pairs.len() {
            seen.extend(desk.now());
        }
        seen.sort_by_key(|event| event.0);
        let all: Said = (0..40).map(|token| (token, Readiness::READABLE)).collect();
        assert_eq!(seen, all, "{mode:?}");
    }
}
