//! Opening backends, and the errors of unavailable ones.

use super::*;
use crate::testing::{is_alone, is_alone_with};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::dup;
use std::os::fd::AsRawFd;

#[test]
fn preference_lists_each_backend_once() {
    for backend in Backend::ALL {
        let times = Backend::PREFERENCE.iter().filter(|&&other| other == backend).count();
        assert_eq!(times, 1, "{backend}");
    }
    assert_eq!(Backend::best(), Backend::Epoll);
}

#[test]
fn open_makes_a_poller_of_the_backend() {
    for backend in Backend::ALL {
        backend.is_available().expect("this kernel has it");
        let poller = backend.open().expect("it is available");
        assert_eq!(poller.backend(), backend);
    }
}

#[test]
fn refused_backend_says_why() {
    let cause = io::Error::new(io::ErrorKind::Unsupported, "a sandbox forbids it");
    let error = io::Error::from(Backend::Uring.lacks(Cause::Refused(cause)));
    assert_eq!(error.kind(), io::ErrorKind::Unsupported);
    assert_eq!(error.to_string(), "uring is not available: a sandbox forbids it");
    let inner = error.downcast::<Unavailable>().expect("the cause is inside");
    assert_eq!(inner.backend(), Backend::Uring);
}

#[test]
fn shortage_is_emfile_enfile_or_enomem() {
    let raw = |errno| Cause::System(io::Error::from_raw_os_error(errno));
    let passing = [libc::EMFILE, libc::ENFILE, libc::ENOMEM].map(raw);
    let memlock = Cause::Refused(io::Error::from(io::ErrorKind::Unsupported));
    let lasting = [raw(libc::EPERM), raw(libc::ENOSYS), memlock, Cause::Foreign];
    assert!(passing.into_iter().all(|cause| Backend::Uring.lacks(cause).is_shortage()));
    assert!(!lasting.into_iter().any(|cause| Backend::Uring.lacks(cause).is_shortage()));
}

#[test]
fn foreign_backend_error_names_reactor_new() {
    let backend = Backend::Other("kqueue");
    let error = backend.open().expect_err("it is not of this crate");
    assert_eq!(error.kind(), io::ErrorKind::Unsupported);
    assert!(error.to_string().contains("kqueue"), "{error}");
    assert!(error.to_string().contains("Reactor::new"), "{error}");
    assert_eq!(backend.is_available().expect_err("nor available").backend(), backend);
}

const VARIABLE: &str = "QUINTPOLL_BACKEND";

#[test]
fn from_env_parses_the_variable() {
    let test = "backend::open::tests::from_env_parses_the_variable";
    let values = ["select", "poll", "epoll", "sigio", "uring", "", "io_uring", "EPOLL", "kqueue"];
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
            let lower = name.to_lowercase().replace("io_uring", "uring");
            let named = Backend::ALL.into_iter().find(|backend| backend.to_string() == lower);
            assert_eq!(chosen.as_ref().ok(), named.as_ref());
            assert!(chosen.is_ok() || chosen.is_err_and(|error| error.0 == name));
        }
    }
}

#[test]
fn open_without_descriptors_reports_emfile() {
    if !is_alone("backend::open::tests::open_without_descriptors_reports_emfile") {
        return;
    }
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("it has a limit");
    setrlimit(Resource::RLIMIT_NOFILE, 0, hard).expect("lower is allowed");
    let opened = Backend::ALL.map(|backend| backend.open().err());
    let available = Backend::ALL.map(Backend::is_available);
    // One descriptor is available, which is enough for poll and not for epoll.
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard).expect("up to the hard limit is allowed");
    let lowest_free = dup(std::io::stderr()).expect("a copy").as_raw_fd() as u64;
    setrlimit(Resource::RLIMIT_NOFILE, lowest_free + 1, hard).expect("lower is allowed");
    let best = (Backend::Poll.is_available().is_ok(), Backend::best());
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard).expect("up to the hard limit is allowed");
    for (error, why) in opened.into_iter().zip(available) {
        let error = error.expect("no descriptor is available");
        assert_eq!(error.raw_os_error(), Some(libc::EMFILE), "open reports the system's error");
        let why = why.expect_err("no descriptor is available");
        let text = why.to_string();
        assert!(text.ends_with(&error.to_string()) && text.contains("not available"), "{text}");
        assert_eq!(
            io::Error::from(why).raw_os_error(),
            Some(libc::EMFILE),
            "is_available reports the system's error"
        );
    }
    assert_eq!(best, (true, Backend::Epoll), "a shortage does not change the preference");
}
