//! Explains why a ring can't be set up.

use std::fs::read_to_string;
use std::io::{self, ErrorKind};

/// Explains an error of the setup whose cause is permanent.
pub(super) fn explain_setup(error: io::Error) -> io::Error {
    match (error.raw_os_error(), memlock()) {
        (Some(libc::ENOMEM), Some(limit)) => {
            let cause =
                format!("its memory exceeds RLIMIT_MEMLOCK ({limit} bytes), or there is none");
            unsupported(&cause, &error)
        }
        _ => explain(error),
    }
}

/// Explains an error of a call whose cause is permanent.
pub(super) fn explain(error: io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(libc::ENOSYS) => unsupported(
            "the kernel has no io_uring (it is 5.1 or later), or a sandbox hides it",
            &error,
        ),
        Some(libc::EPERM | libc::EACCES) => unsupported(forbidden(), &error),
        _ => error,
    }
}

fn unsupported(cause: &str, error: &io::Error) -> io::Error {
    io::Error::new(ErrorKind::Unsupported, format!("{cause} ({error})"))
}

/// Checks that the kernel takes a timeout in io_uring_enter(2) (5.11), keeps CQEs that do not fit
/// (5.5), and tags resources (5.13). The last stands for multishot polls of the same version, which
/// have no feature bit.
pub(super) fn check_features(ext_arg: bool, nodrop: bool, tagging: bool) -> io::Result<()> {
    if ext_arg && nodrop && tagging { Ok(()) } else { Err(too_old()) }
}

/// Returns the error for a setup whose result shows an older kernel.
pub(super) fn too_old() -> io::Error {
    let cause = "the kernel's io_uring lacks multishot polls (Linux 5.13)";
    io::Error::new(ErrorKind::Unsupported, cause)
}

/// Returns what forbids io_uring to this process. The sysctl exists since 6.6.
fn forbidden() -> &'static str {
    let sysctl = read_to_string("/proc/sys/kernel/io_uring_disabled").unwrap_or_default();
    match sysctl.trim() {
        "2" => "the sysctl kernel.io_uring_disabled is 2",
        "1" => {
            "the sysctl kernel.io_uring_disabled is 1, which takes CAP_SYS_ADMIN or the group in \
             kernel.io_uring_group; or a sandbox (seccomp) forbids io_uring"
        }
        _ => "a sandbox (seccomp) or a security module forbids io_uring",
    }
}

/// Returns the limit of locked memory, if there is one: `CAP_IPC_LOCK` lifts it.
fn memlock() -> Option<libc::rlim_t> {
    const CAP_IPC_LOCK: u64 = 1 << 14;
    let status = read_to_string("/proc/thread-self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    if mask.is_some_and(|mask| mask & CAP_IPC_LOCK != 0) {
        return None;
    }
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` has room for the answer.
    let answer = unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &mut limit) };
    (answer == 0 && limit.rlim_cur != libc::RLIM_INFINITY).then_some(limit.rlim_cur)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_feature_is_refused_with_the_cause() {
        check_features(true, true, true).expect("it has all");
        for features in 0..7 {
            let has = |bit| features & bit != 0;
            let error = check_features(has(1), has(2), has(4)).expect_err("it lacks one");
            assert_eq!(error.kind(), ErrorKind::Unsupported);
            assert!(error.to_string().contains("Linux 5.13"), "{error}");
        }
    }
}
