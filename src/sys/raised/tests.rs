//! Writes beyond a limit, in a process that SIGXFSZ would end.

use super::*;
use crate::testing::is_alone;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use std::io::Write;

#[test]
fn write_beyond_fsize_limit_raises_no_signal() {
    if !is_alone("sys::raised::tests::write_beyond_fsize_limit_raises_no_signal") {
        return;
    }
    let mut file = tempfile::tempfile().expect("room");
    file.write_all(&[0; 100]).expect("room");
    setrlimit(Resource::RLIMIT_FSIZE, 100, 100).expect("it is lowered");
    let mut beyond = || without_sigxfsz(|| file.write(b"x")).expect_err("beyond the limit");
    assert_eq!(beyond().raw_os_error(), Some(libc::EFBIG));
    assert!(!SigSet::thread_get_mask().expect("it has one").contains(Signal::SIGXFSZ));

    // A pending signal that the program has blocked stays pending.
    let set = SigSet::from(Signal::SIGXFSZ);
    set.thread_block().expect("it can be blocked");
    beyond();
    assert!(!is_pending(libc::SIGXFSZ));
    nix::sys::signal::raise(Signal::SIGXFSZ).expect("it is blocked");
    beyond();
    assert!(is_pending(libc::SIGXFSZ) && set.wait().is_ok_and(|its| its == Signal::SIGXFSZ));
}
