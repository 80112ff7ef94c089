//! Why a ring can't be had, in words.

use std::fs::read_to_string;
use std::io::{self, ErrorKind};

/// Names the cause, where it is one that stays.
pub(crate) fn explained(error: io::Error) -> io::Error {
    let cause = match error.raw_os_error() {
        Some(libc::ENOSYS) => {
            "the kernel has no io_uring (it is 5.1 or later), or a sandbox hides it".to_owned()
        }
        Some(libc::EPERM | libc::EACCES) => forbidden(),
        Some(libc::ENOMEM) => match memlock() {
            Some(limit) => {
                format!("its memory exceeds what is left of RLIMIT_MEMLOCK ({limit} bytes)")
            }
            None => return error,
        },
        _ => return error,
    };
    io::Error::new(ErrorKind::Unsupported, format!("{cause} ({error})"))
}

/// Setup has succeeded, or failed, in a way that tells the kernel's age.
pub(super) fn too_old() -> io::Error {
    let cause = "the kernel's io_uring lacks multishot polls (Linux 5.13)";
    io::Error::new(ErrorKind::Unsupported, cause)
}

/// What forbids io_uring to this process. The sysctl is there since 6.6.
fn forbidden() -> String {
    let sysctl = read_to_string("/proc/sys/kernel/io_uring_disabled").unwrap_or_default();
    match sysctl.trim() {
        "2" => "the sysctl kernel.io_uring_disabled is 2",
        "1" => {
            "the sysctl kernel.io_uring_disabled is 1, which takes CAP_SYS_ADMIN or the group in \
             kernel.io_uring_group; or a sandbox (seccomp) forbids io_uring"
        }
        _ => "a sandbox (seccomp) or a security module forbids io_uring",
    }
    .to_owned()
}

/// How much memory this user may lock, if that is limited at all.
fn memlock() -> Option<libc::rlim_t> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid place for the answer.
    unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &mut limit) };
    (limit.rlim_cur != libc::RLIM_INFINITY).then_some(limit.rlim_cur)
}
