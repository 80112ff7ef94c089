//! The conformance suite on every backend of the crate.

use quintpoll::{Backend, conformance_tests};

conformance_tests!(select, || Backend::Select.open());
conformance_tests!(sigio, || Backend::Sigio.open());
conformance_tests!(epoll, || Backend::Epoll.open());
conformance_tests!(poll, || Backend::Poll.open());
conformance_tests!(uring, || Backend::Uring.open());
