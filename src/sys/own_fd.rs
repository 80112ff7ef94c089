//! The file descriptors that the crate makes for itself.

use std::io;
use std::os::fd::{AsRawFd, RawFd};

/// The first descriptor above standard input, output and error.
const FIRST: RawFd = 3;

/// Returns the value that `make` makes, with a descriptor above 2. A program that has closed 0 to
/// 2, as daemons do, may put another file there at any time (dup2(2)).
///
/// A value with a low descriptor is kept until the next one is made. `F_DUPFD_CLOEXEC` can't move a
/// ring: its owner closes the original descriptor.
///
/// # Errors
///
/// Errors of `make`.
pub fn above_stdio<T: AsRawFd>(mut make: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let mut low = Vec::new();
    loop {
        let made = make()?;
        if made.as_raw_fd() >= FIRST {
            return Ok(made);
        }
        low.push(made);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    /// A descriptor that is counted while it is open.
    struct Fake<'a>(RawFd, &'a RefCell<Vec<RawFd>>);

    impl AsRawFd for Fake<'_> {
        fn as_raw_fd(&self) -> RawFd {
            self.0
        }
    }

    impl Drop for Fake<'_> {
        fn drop(&mut self) {
            self.1.borrow_mut().retain(|&fd| fd != self.0);
        }
    }

    #[test]
    fn low_fds_are_kept_then_closed() {
        let open = RefCell::new(vec![1]);
        let make = || {
            let lowest = (0..).find(|fd| !open.borrow().contains(fd)).expect("no end");
            open.borrow_mut().push(lowest);
            Ok(Fake(lowest, &open))
        };
        let made = above_stdio(make).expect("it never fails");
        assert_eq!((made.0, open.borrow().clone()), (3, vec![1, 3]));
    }

    #[test]
    fn failure_closes_low_fds() {
        let open = RefCell::new(vec![]);
        let make = || {
            let fd = open.borrow().len() as RawFd;
            if fd == 2 {
                return Err(io::Error::from_raw_os_error(libc::EMFILE));
            }
            open.borrow_mut().push(fd);
            Ok(Fake(fd, &open))
        };
        let error = above_stdio(make).map(|made| made.0).expect_err("out of descriptors");
        assert_eq!((error.raw_os_error(), open.borrow().len()), (Some(libc::EMFILE), 0));
    }
}
