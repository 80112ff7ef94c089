//! What a limit lowered under way does: a permitted difference.

use super::refused::in_own_process;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use quintpoll::{Backend, Events, Interest, Mode, Op, Token};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

/// C2: an accept that waits already when the process may open no more files.
#[test]
fn c2_an_accept_that_waits_since_before_a_limit() {
    in_own_process("limits::c2_an_accept_that_waits_since_before_a_limit", || {
        for backend in Backend::ALL.into_iter().filter(|backend| backend.is_available().is_ok()) {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
            let address = listener.local_addr().expect("its address");
            let (mut poller, mut events) =
                (backend.open().expect("it is"), Events::with_capacity(4));
            let (mode, none) = (Mode::Level, Interest::empty());
            let key = poller.register(Arc::new(listener), Token(0), none, mode).expect("fresh");
            poller.submit(Op::accept(key), Token(1)).expect("nothing is in its way");
            poller.wait(&mut events, Some(std::time::Duration::ZERO)).expect("a wait");
            let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
            let client = TcpStream::connect(address).expect("it listens");
            setrlimit(Resource::RLIMIT_NOFILE, 3, hard).expect("a lower one");
            poller.wait(&mut events, None).expect("a wait");
            let done = events.completions().next().expect("it was all there was to wait for");
            setrlimit(Resource::RLIMIT_NOFILE, soft, hard).expect("as it was");
            match done.result {
                Ok(_) => assert_eq!(backend, Backend::Uring, "only there it may succeed"),
                Err(error) => assert_eq!(error.raw_os_error(), Some(libc::EMFILE), "{backend}"),
            }
            drop(client);
        }
    });
}
