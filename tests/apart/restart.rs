//! A server that ends without dropping its poller, and its successor on the same port: a permitted
//! difference (R6), and its remedies.

use nix::sys::socket::sockopt::{ReuseAddr, ReusePort};
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, SockaddrIn};
use nix::sys::socket::{bind, listen, setsockopt, socket};
use quintpoll::{Backend, Events, Interest, Mode, Op, Token};
use std::io::{self, BufRead, BufReader};
use std::net::{SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The environment variable of a server process, which names its backend.
const SERVER: &str = "QUINTPOLL_TEST_SERVER";
const LINE: &str = "listening on ";

/// Listens on an address that other servers may share.
fn listen_shared(address: SocketAddrV4) -> io::Result<TcpListener> {
    let (family, kind) = (AddressFamily::Inet, SockType::Stream);
    let listener = socket(family, kind, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&listener, ReuseAddr, &true)?;
    setsockopt(&listener, ReusePort, &true)?;
    bind(listener.as_raw_fd(), &SockaddrIn::from(address))?;
    listen(&listener, Backlog::new(128)?)?;
    Ok(listener.into())
}

/// Serves until the process is killed.
fn serve(backend: Backend) {
    let [_, .., high, low] = std::process::id().to_be_bytes();
    let address = SocketAddrV4::new([127, 78, high, low].into(), 0);
    let listener = listen_shared(address).expect("a port");
    let address = listener.local_addr().expect("its address");
    let mut poller = backend.open().expect("an available backend");
    let none = Interest::empty();
    let key =
        poller.register(Arc::new(listener), Token(0), none, Mode::Level).expect("a new source");
    poller.submit(Op::accept_multi(key), Token(1)).expect("an accepted operation");
    let mut events = Events::with_capacity(4);
    poller.wait(&mut events, Some(Duration::ZERO)).expect("a wait");
    println!("{LINE}{address}");
    poller.wait(&mut events, None).expect("a connection");
    println!("accepted");
    poller.wait(&mut events, None).expect("the wait never ends");
}

/// Starts a server, and kills it once it has accepted a connection. Returns its address.
fn killed_server(test: &str, backend: Backend) -> SocketAddr {
    let mut server: Child = Command::new(std::env::current_exe().expect("the test binary"))
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(SERVER, backend.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the test binary runs");
    let mut lines = BufReader::new(server.stdout.take().expect("a pipe")).lines();
    let mut line_with = |mark: &str| {
        let found = lines.by_ref().map(|line| line.expect("text")).find(|line| line.contains(mark));
        found.unwrap_or_else(|| panic!("the server ended without {mark:?}"))
    };
    let line = line_with(LINE);
    let (_, address) = line.split_once(LINE).expect("the line with the address");
    let address = address.parse().expect("an address");
    let _client = TcpStream::connect(address).expect("a connection");
    line_with("accepted");
    server.kill().expect("a running server");
    server.wait().expect("a killed server");
    address
}

/// Runs `follow` for each backend, with the address of a server of it that was just killed.
fn after_a_server(test: &str, follow: impl Fn(Backend, SocketAddr)) {
    match std::env::var(SERVER) {
        Ok(name) => serve(name.parse().expect("a backend")),
        Err(_) => {
            for backend in Backend::ALL.into_iter().filter(|backend| backend.is_available().is_ok())
            {
                for _ in 0..5 {
                    follow(backend, killed_server(test, backend));
                }
            }
        }
    }
}

/// A successor that retries bind(2) gets the port.
#[test]
fn r6_port_of_killed_server_is_free_soon() {
    after_a_server("restart::r6_port_of_killed_server_is_free_soon", |backend, address| {
        let started = Instant::now();
        while let Err(error) = TcpListener::bind(address) {
            assert_eq!(error.kind(), io::ErrorKind::AddrInUse, "{backend}");
            assert_eq!(backend, Backend::Uring, "other backends free the port at once");
            assert!(started.elapsed() < Duration::from_secs(60), "the port is never free");
            std::thread::sleep(Duration::from_millis(1));
        }
    });
}

/// A successor with `SO_REUSEPORT`, which the killed server had too, gets the port at once.
#[test]
fn r6_shared_port_of_killed_server_is_free() {
    let test = "restart::r6_shared_port_of_killed_server_is_free";
    after_a_server(test, |backend, address| {
        let SocketAddr::V4(address) = address else { panic!("an address of IPv4: {address}") };
        listen_shared(address).unwrap_or_else(|error| panic!("{backend}: {error}"));
    });
}
