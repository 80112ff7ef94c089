//! Names of backends.

use super::*;

#[test]
fn backend_names_round_trip() {
    for backend in Backend::ALL {
        assert_eq!(backend.to_string().parse(), Ok(backend));
    }
    let names = Backend::ALL.map(|backend| backend.to_string());
    assert_eq!(names, ["select", "poll", "epoll", "sigio", "uring"]);
    assert_eq!(format!("[{:>7}]", Backend::Epoll), "[  epoll]", "names line up in tables");
    assert_eq!(Backend::Other("kqueue").to_string(), "kqueue");
}

#[test]
fn names_parse_in_any_case() {
    for (name, backend) in [
        ("Epoll", Backend::Epoll),
        ("SELECT", Backend::Select),
        ("SigIO", Backend::Sigio),
        ("io_uring", Backend::Uring),
        ("IO_URING", Backend::Uring),
        ("URing", Backend::Uring),
    ] {
        assert_eq!(name.parse(), Ok(backend), "{name}");
    }
}

#[test]
fn unknown_backend_error_lists_all_names() {
    for name in ["", "ep oll", " epoll", "epoll ", "kqueue", "other", "io-uring", "iouring"] {
        let error = name.parse::<Backend>().expect_err("no such name");
        let text = error.to_string();
        assert!(text.contains(&format!("{name:?}")), "{text}");
        assert!(Backend::ALL.iter().all(|backend| text.contains(&backend.to_string())), "{text}");
    }
}

#[test]
fn unknown_backend_converts_to_invalid_input() {
    let unknown = "kqueue".parse::<Backend>().expect_err("no such name");
    let error = io::Error::from(unknown.clone());
    assert_eq!(
        (error.kind(), error.to_string()),
        (io::ErrorKind::InvalidInput, unknown.to_string())
    );
    assert_eq!(error.downcast::<UnknownBackend>().expect("the cause is inside"), unknown);
}
