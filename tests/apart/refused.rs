//! Refused system calls: in a process of its own, under a seccomp filter.
#![allow(unsafe_code)]

use quintpoll::Backend;
use quintpoll::conformance::{CASES, Maker, check};
use std::io::ErrorKind;
use std::process::Command;

/// Makes a system call fail with `errno` in this thread and those it starts, from now on.
fn refuse(call: libc::c_long, errno: i32) {
    answer(call, libc::SECCOMP_RET_ERRNO | errno as u32);
}

/// Makes these system calls end the process if this thread makes one, from now on.
pub(crate) fn kill_on(calls: &[libc::c_long]) {
    calls.iter().for_each(|&call| answer(call, libc::SECCOMP_RET_KILL_PROCESS));
}

/// Sets the outcome of a system call in this thread and those it starts, from now on.
fn answer(call: libc::c_long, action: u32) {
    let load_number = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    let if_equal = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    let answer = libc::BPF_RET | libc::BPF_K;
    let step = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let mut filter = [
        // The number of the call is the first word of struct seccomp_data.
        step(load_number, 0, 0, 0),
        step(if_equal, 0, 1, call as u32),
        step(answer, 0, 0, action),
        step(answer, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: this prctl takes numbers only.
    let unprivileged = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    assert_eq!(unprivileged, 0, "PR_SET_NO_NEW_PRIVS");
    // SAFETY: the kernel copies the program, whose pointer and length are those of `filter`.
    let filtered =
        unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
    assert_eq!(filtered, 0, "PR_SET_SECCOMP: {}", std::io::Error::last_os_error());
}

/// The environment variable of the process that has the filter.
const FILTERED: &str = "QUINTPOLL_TEST_FILTERED";

/// Runs `body` in its own process, by starting the test `test` of this binary again.
pub(crate) fn in_own_process(test: &str, body: impl FnOnce()) {
    if std::env::var_os(FILTERED).is_some() {
        return body();
    }
    let output = Command::new(std::env::current_exe().expect("the test binary"))
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(FILTERED, "1")
        .output()
        .expect("the test binary runs");
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

/// Runs the cases that need no process of their own.
fn check_in_this_process(backend: &str, open: Maker) {
    for case in CASES.iter().filter(|case| !case.own_process) {
        check(case.name, backend, open, "in this process");
    }
}

fn check_epoll_without_pwait2(errno: i32) {
    refuse(libc::SYS_epoll_pwait2, errno);
    check_in_this_process("epoll", || Backend::Epoll.open());
}

#[test]
fn epoll_keeps_contract_on_kernel_without_epoll_pwait2() {
    in_own_process("refused::epoll_keeps_contract_on_kernel_without_epoll_pwait2", || {
        check_epoll_without_pwait2(libc::ENOSYS);
    });
}

#[test]
fn epoll_keeps_contract_in_sandbox_without_epoll_pwait2() {
    in_own_process("refused::epoll_keeps_contract_in_sandbox_without_epoll_pwait2", || {
        check_epoll_without_pwait2(libc::EPERM);
    });
}

/// Checks that io_uring is unavailable if `call` fails with `errno`, with a reason that contains
/// `cause`.
fn check_without_io_uring(call: libc::c_long, errno: i32, cause: &str) {
    let files = || std::fs::read_dir("/proc/self/fd").expect("proc is mounted").count();
    let before = files();
    refuse(call, errno);
    let why = Backend::Uring.is_available().expect_err("a refused call");
    let text = why.to_string();
    assert_eq!(why.backend(), Backend::Uring);
    assert!(text.starts_with("uring is not available: ") && text.contains(cause), "{text}");
    let error = Backend::Uring.open().expect_err("a refused call");
    assert_eq!((error.kind(), error.to_string()), (ErrorKind::Unsupported, text));
    assert_eq!(files(), before, "the attempt leaves no descriptor");
}

#[test]
fn other_backends_keep_contract_without_io_uring() {
    in_own_process("refused::other_backends_keep_contract_without_io_uring", || {
        check_without_io_uring(libc::SYS_io_uring_setup, libc::EPERM, "seccomp");
        check_in_this_process("select", || Backend::Select.open());
        check_in_this_process("poll", || Backend::Poll.open());
        check_in_this_process("epoll", || Backend::Epoll.open());
        check_in_this_process("sigio", || Backend::Sigio.open());
    });
}

#[test]
fn missing_io_uring_and_sandbox_have_distinct_errors() {
    in_own_process("refused::missing_io_uring_and_sandbox_have_distinct_errors", || {
        check_without_io_uring(
            libc::SYS_io_uring_setup,
            libc::ENOSYS,
            "the kernel has no io_uring",
        );
    });
}

#[test]
fn uring_without_io_uring_enter_is_unavailable() {
    in_own_process("refused::uring_without_io_uring_enter_is_unavailable", || {
        check_without_io_uring(libc::SYS_io_uring_enter, libc::EPERM, "seccomp");
    });
}

#[test]
fn best_falls_back_to_io_uring_then_poll() {
    in_own_process("refused::best_falls_back_to_io_uring_then_poll", || {
        refuse(libc::SYS_epoll_create1, libc::ENOSYS);
        assert_eq!(Backend::best(), Backend::Uring);
        refuse(libc::SYS_io_uring_setup, libc::EPERM);
        assert_eq!(Backend::best(), Backend::Poll);
    });
}
