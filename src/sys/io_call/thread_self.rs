//! Paths below `/proc/thread-self`, which means the thread that resolves them.

use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;

const THREAD_SELF: [&[u8]; 2] = [b"proc", b"thread-self"];

/// Replaces `thread-self` by the calling thread's ID. A pool thread that resolved the path would
/// find itself, and might end before the file is read.
///
/// The link is read because procfs may show other IDs than gettid(2): it may belong to another PID
/// namespace.
pub(super) fn resolved(path: CString, flags: libc::c_int) -> CString {
    let Some(rest) = below_thread_self(path.as_bytes()) else { return path };
    // The link itself is the same for every thread.
    if rest.is_empty() && flags & libc::O_NOFOLLOW != 0 {
        return path;
    }
    let resolved = fs::read_link("/proc/thread-self").ok().and_then(|link| {
        CString::new([b"/proc/", link.as_os_str().as_bytes(), rest].concat()).ok()
    });
    resolved.unwrap_or(path)
}

/// Returns what follows `/proc/thread-self` in a path, or `None`.
fn below_thread_self(path: &[u8]) -> Option<&[u8]> {
    THREAD_SELF.iter().try_fold(path, |rest, name| {
        let start = rest.iter().position(|&byte| byte != b'/').filter(|&start| start > 0)?;
        let rest = rest[start..].strip_prefix(*name)?;
        matches!(rest, [] | [b'/', ..]).then_some(rest)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefix_matches_whole_components() {
        let below = |path: &'static str| below_thread_self(path.as_bytes());
        assert_eq!(below("/proc/thread-self"), Some(&b""[..]));
        assert_eq!(below("/proc/thread-self/"), Some(&b"/"[..]));
        assert_eq!(below("//proc//thread-self/fd/3"), Some(&b"/fd/3"[..]));
        for other in ["", "/", "proc/thread-self", "/proc", "/proc/self", "/proc/thread-selfish"] {
            assert_eq!(below(other), None, "{other}");
        }
        assert_eq!(below("/procthread-self"), None);
    }
}
