//! Paths that begin with `/proc/thread-self`, which is the thread that resolves them.

use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;

const THREAD_SELF: [&[u8]; 2] = [b"proc", b"thread-self"];

/// Returns the path with the number of the calling thread in the place of `thread-self`. A thread
/// that makes the call would name itself, and would have ended when the file is read.
///
/// The link is read because procfs may count threads otherwise than gettid(2): it may belong to
/// another namespace.
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

/// Returns what follows `/proc/thread-self` in a path, `None` if it begins otherwise.
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
    fn prefix_is_whole_names() {
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
