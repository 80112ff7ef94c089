//! Names of backends.

use super::*;

#[test]
fn names_round_trip() {
    for backend in Backend::ALL {
        assert_eq!(backend.to_string().parse(), Ok(backend));
    }
    let names = Backend::ALL.map(|backend| backend.to_string());
    assert_eq!(names, ["select", "poll", "epoll", "sigio", "uring"]);
    assert_eq!(format!("[{:>7}]", Backend::Epoll), "[  epoll]", "names line up in tables");
    assert_eq!(Backend::Other("kqueue").to_string(), "kqueue");
}

#[test]
fn what_names_no_backend_is_said_with_what_would() {
    for name in ["", "Epoll", " epoll", "epoll ", "kqueue", "other", "io_uring"] {
        let error = name.parse::<Backend>().expect_err("no such name");
        let said = error.to_string();
        assert!(said.contains(&format!("{name:?}")), "{said}");
        assert!(Backend::ALL.iter().all(|backend| said.contains(&backend.to_string())), "{said}");
    }
}

#[test]
fn an_unknown_name_is_an_error_of_input() {
    let unknown = "kqueue".parse::<Backend>().expect_err("no such name");
    let error = io::Error::from(unknown.clone());
    assert_eq!(
        (error.kind(), error.to_string()),
        (io::ErrorKind::InvalidInput, unknown.to_string())
    );
    assert_eq!(error.downcast::<UnknownBackend>().expect("it is inside"), unknown);
}
