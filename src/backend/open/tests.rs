//! Which backend is opened, and why one can't be had.

use super::*;
use crate::testing::{is_alone, is_alone_with};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::dup;
use std::os::fd::AsRawFd;

#[test]
fn each_is_preferred_once() {
    for backend in Backend::ALL {
        let times = Backend::PREFERENCE.iter().filter(|&&other| other == backend).count();
        assert_eq!(times, 1, "{backend}");
    }
    assert_eq!(Backend::best(), Backend::Epoll);
}

#[test]
fn they_open_as_themselves() {
    for backend in Backend::ALL {
        backend.is_available().expect("this kernel has it");
        let poller = backend.open().expect("it is available");
        assert_eq!(poller.backend(), backend);
    }
}

#[test]
fn what_is_refused_says_why() {
    let cause = io::Error::new(io::ErrorKind::Unsupported, "somebody forbids it");
    let error = io::Error::from(Backend::Uring.lacks(Cause::Refused(cause)));
    assert_eq!(error.kind(), io::ErrorKind::Unsupported);
    assert_eq!(error.to_string(), "uring is not available: somebody forbids it");
    let inner = error.downcast::<Unavailable>().expect("the cause is inside");
    assert_eq!(inner.backend(), Backend::Uring);
}

#[test]
fn only_a_shortage_may_pass() {
    let raw = |errno| Cause::System(io::Error::from_raw_os_error(errno));
    let passing = [libc::EMFILE, libc::ENFILE, libc::ENOMEM].map(raw);
    let memlock = Cause::Refused(io::Error::from(io::ErrorKind::Unsupported));
    let lasting = [raw(libc::EPERM), raw(libc::ENOSYS), memlock, Cause::Foreign];
    assert!(passing.into_iter().all(|cause| Backend::Uring.lacks(cause).is_shortage()));
    assert!(!lasting.into_iter().any(|cause| Backend::Uring.lacks(cause).is_shortage()));
}

#[test]
fn a_foreign_backend_says_how_it_is_made() {
    let backend = Backend::Other("kqueue");
    let error = backend.open().expect_err("it is not of this crate");
    assert_eq!(error.kind(), io::ErrorKind::Unsupported);
    assert!(error.to_string().contains("kqueue"), "{error}");
    assert!(error.to_string().contains("Reactor::new"), "{error}");
    assert_eq!(backend.is_available().expect_err("nor available").backend(), backend);
}

const VARIABLE: &str = "QUINTPOLL_BACKEND";

#[test]
fn the_environment_names_a_backend() {
    let test = "backend::open::tests::the_environment_names_a_backend";
    let values = ["select", "poll", "epoll", "sigio", "uring", "", "EPOLL", "kqueue"];
    for value in [None].into_iter().chain(values.map(Some)) {
        if is_alone_with(test, VARIABLE, value) {
            return check_environment();
        }
    }
}

fn check_environment() {
    let chosen = Backend::from_env();
    match std::env::var(VARIABLE) {
        Err(_) => assert_eq!(chosen, Ok(Backend::best())),
        Ok(name) => {
            let named = Backend::ALL.into_iter().find(|backend| backend.to_string() == name);
            assert_eq!(chosen.as_ref().ok(), named.as_ref());
            assert!(chosen.is_ok() || chosen.is_err_and(|error| error.0 == name));
        }
    }
}

#[test]
fn without_files_to_be_had_the_cause_is_the_systems() {
    if !is_alone("backend::open::tests::without_files_to_be_had_the_cause_is_the_systems") {
        return;
    }
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("it has a limit");
    setrlimit(Resource::RLIMIT_NOFILE, 0, hard).expect("lower is allowed");
    let opened = Backend::ALL.map(|backend| backend.open().err());
    let available = Backend::ALL.map(Backend::is_available);
    // One file is to be had, which is enough for poll and not for epoll.
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard).expect("up to the hard limit is allowed");
    let lowest_free = dup(std::io::stderr()).expect("a copy").as_raw_fd() as u64;
    setrlimit(Resource::RLIMIT_NOFILE, lowest_free + 1, hard).expect("lower is allowed");
    let best = (Backend::Poll.is_available().is_ok(), Backend::best());
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard).expect("up to the hard limit is allowed");
    for (error, why) in opened.into_iter().zip(available) {
        let error = error.expect("it needs files");
        assert_eq!(error.raw_os_error(), Some(libc::EMFILE), "as it came");
        let why = why.expect_err("it needs files");
        let said = why.to_string();
        assert!(said.ends_with(&error.to_string()) && said.contains("not available"), "{said}");
        assert_eq!(io::Error::from(why).raw_os_error(), Some(libc::EMFILE), "and as it came");
    }
    assert_eq!(best, (true, Backend::Epoll), "a shortage is no reason to settle for less");
}
