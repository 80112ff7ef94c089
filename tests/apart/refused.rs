//! What happens where a system call is refused: in a process of its own, under a seccomp filter.
#![allow(unsafe_code)]

use quintpoll::Backend;
use quintpoll::conformance::{CASES, check};
use std::process::Command;

/// From here on this system call fails with `errno` in this thread and those it starts.
fn refuse(call: libc::c_long, errno: i32) {
    let load_number = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    let if_equal = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    let answer = libc::BPF_RET | libc::BPF_K;
    let step = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let mut filter = [
        // The number is the first word of struct seccomp_data.
        step(load_number, 0, 0, 0),
        step(if_equal, 0, 1, call as u32),
        step(answer, 0, 0, libc::SECCOMP_RET_ERRNO | errno as u32),
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

/// Set for the process that lives under the filter.
const FILTERED: &str = "QUINTPOLL_TEST_FILTERED";

/// Runs `body` in a process of its own, the test `test` of this binary started again.
fn in_own_process(test: &str, body: impl FnOnce()) {
    if std::env::var_os(FILTERED).is_some() {
        return body();
    }
    let output = Command::new(std::env::current_exe().expect("the test binary"))
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(FILTERED, "1")
        .output()
        .expect("the test binary runs");
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

fn check_epoll_without_pwait2(errno: i32) {
    refuse(libc::SYS_epoll_pwait2, errno);
    for case in CASES.iter().filter(|case| !case.own_process) {
        check(case.name, "epoll", || Backend::Epoll.open(), "in this process");
    }
}

#[test]
fn epoll_holds_the_contract_on_a_kernel_before_epoll_pwait2() {
    in_own_process("refused::epoll_holds_the_contract_on_a_kernel_before_epoll_pwait2", || {
        check_epoll_without_pwait2(libc::ENOSYS);
    });
}

#[test]
fn epoll_holds_the_contract_in_a_sandbox_before_epoll_pwait2() {
    in_own_process("refused::epoll_holds_the_contract_in_a_sandbox_before_epoll_pwait2", || {
        check_epoll_without_pwait2(libc::EPERM);
    });
}
