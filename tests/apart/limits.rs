//! A limit that is lowered while an operation waits: a permitted difference.

use super::refused::in_own_process;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use quintpoll::{Backend, Events, Interest, Mode, Op, Token};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

/// C2: an accept that already waits when the limit on open files is lowered.
#[test]
fn c2_waiting_accept_may_exceed_lowered_limit() {
    in_own_process("limits::c2_waiting_accept_may_exceed_lowered_limit", || {
        for backend in Backend::ALL.into_iter().filter(|backend| backend.is_available().is_ok()) {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
            let address = listener.local_addr().expect("its address");
            let (mut poller, mut events) =
                (backend.open().expect("an available backend"), Events::with_capacity(4));
            let (mode, none) = (Mode::Level, Interest::empty());
            let key =
                poller.register(Arc::new(listener), Token(0), none, mode).expect("a new source");
            poller.submit(Op::accept(key), Token(1)).expect("an accepted operation");
            poller.wait(&mut events, Some(std::time::Duration::ZERO)).expect("a wait");
            let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
            let client = TcpStream::connect(address).expect("a connection");
            setrlimit(Resource::RLIMIT_NOFILE, 3, hard).expect("a lower one");
            poller.wait(&mut events, None).expect("a wait");
            let done = events.completions().next().expect("the accept has completed");
            setrlimit(Resource::RLIMIT_NOFILE, soft, hard).expect("the previous limit");
            match done.result {
                Ok(_) => assert_eq!(backend, Backend::Uring, "only io_uring may succeed"),
                Err(error) => assert_eq!(error.raw_os_error(), Some(libc::EMFILE), "{backend}"),
            }
            drop(client);
        }
    });
}
