//! The example `echo`, started as a program, in every mode and style, on every available backend.
//!
//! Cargo builds examples before it runs all tests, but not for `cargo test --test echo`; run
//! `cargo build --example echo` before that.

use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{setsockopt, sockopt::RcvBuf};
use nix::unistd::Pid;
use quintpoll::Backend;
use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// The options of the styles and modes.
const STYLES: [[&str; 2]; 5] = [
    ["--mode", "level"],
    ["--mode", "edge"],
    ["--mode", "oneshot"],
    ["--style", "completion"],
    ["--style", "multishot"],
];
/// The styles by operations.
const BY_OPERATIONS: [[&str; 2]; 2] = [STYLES[3], STYLES[4]];
/// The timeout of a test that hangs.
const WATCHDOG: Duration = Duration::from_secs(30);
/// More bytes than the kernel buffers for one connection, in both sockets and both directions.
const EXCEEDS_KERNEL_BUFFERS: usize = 200 << 20;

#[test]
fn echo_returns_every_byte() {
    on_each_backend_in_each_style(|arguments| {
        const CONNECTIONS: usize = 100;
        const ROUNDS: usize = 4;
        let server = Server::start(arguments);
        let mut random = Random(1);
        let mut clients: Vec<_> = (0..CONNECTIONS).map(|_| server.connect()).collect();
        let mut total = 0;
        for round in 1..=ROUNDS {
            let chunks: Vec<_> = clients.iter().map(|_| random.chunk(40_000)).collect();
            for (mut client, chunk) in clients.iter().zip(&chunks) {
                client.write_all(chunk).expect("the server reads");
                if round == ROUNDS {
                    client.shutdown(Shutdown::Write).expect("the connection is open");
                }
            }
            for (client, chunk) in clients.iter_mut().zip(&chunks) {
                expect_bytes(client, chunk);
                total += chunk.len();
            }
        }
        for client in &mut clients {
            expect_end(client);
        }
        let output = server.stop(Signal::SIGINT);
        let expected =
            format!("served {CONNECTIONS} connections (0 dropped), echoed {total} bytes");
        assert!(output.starts_with(&expected), "expected {expected:?}: {output:?}");
    });
}

#[test]
fn client_without_reads_delays_no_other() {
    on_each_backend_in_each_style(|arguments| {
        let server = Server::start(arguments);
        let mut greedy = server.connect();
        let sent = write_until_stuck(&mut greedy);
        assert!(!sent.is_empty());

        let mut other = server.connect();
        let mut random = Random(2);
        for _ in 0..50 {
            let chunk = random.chunk(10_000);
            other.write_all(&chunk).expect("the server reads");
            expect_bytes(&mut other, &chunk);
        }

        greedy.shutdown(Shutdown::Write).expect("the connection is open");
        expect_bytes(&mut greedy, &sent);
        expect_end(&mut greedy);
        server.stop(Signal::SIGTERM);
    });
}

#[test]
fn many_clients_without_reads_delay_no_other() {
    on_each_backend(&BY_OPERATIONS[1..], |arguments| {
        let server = Server::start(arguments);
        let mut greedy: Vec<_> = (0..3).map(|_| server.connect()).collect();
        let sent: Vec<Vec<u8>> = thread::scope(|scope| {
            let all: Vec<_> =
                greedy.iter_mut().map(|client| scope.spawn(|| write_until_stuck(client))).collect();
            all.into_iter().map(|one| one.join().expect("a full connection")).collect()
        });
        for round in 0..4 {
            let mut others: Vec<_> = (0..20).map(|_| server.connect()).collect();
            let chunk = vec![round; 30_000];
            others.iter_mut().for_each(|other| other.write_all(&chunk).expect("the server reads"));
            others.iter_mut().for_each(|other| expect_bytes(other, &chunk));
        }
        for (client, sent) in greedy.iter_mut().zip(&sent) {
            client.shutdown(Shutdown::Write).expect("the connection is open");
            expect_bytes(client, sent);
            expect_end(client);
        }
        server.stop(Signal::SIGTERM);
    });
}

/// A server that closes at the end of input, before everything was sent back, would lose bytes.
#[test]
fn end_follows_the_delayed_bytes() {
    // One backend is enough, because `/proc/net/tcp` is slow to read.
    let backend = Backend::best().to_string();
    for [option, name] in BY_OPERATIONS {
        let server = Server::start(&["--backend", &backend, option, name]);
        let mut client = server.connect();
        setsockopt(&client, RcvBuf, &65_536).expect("a socket");
        let sent = write_until_a_chunk_is_delayed(&mut client);
        client.shutdown(Shutdown::Write).expect("the connection is open");
        // The server handles a later connection after the end of the first one.
        let mut other = server.connect();
        for _ in 0..3 {
            other.write_all(b"and now?").expect("the server reads");
            expect_bytes(&mut other, b"and now?");
        }
        expect_bytes(&mut client, &sent);
        expect_end(&mut client);
        server.stop(Signal::SIGTERM);
    }
}

#[test]
fn reset_ends_only_its_own_connection() {
    on_each_backend_in_each_style(|arguments| {
        let server = Server::start(arguments);
        let mut bystander = server.connect();
        for _ in 0..20 {
            let mut rude = server.connect();
            rude.write_all(&[1; 1000]).expect("the connection is open");
            // Closing with unread bytes sends a reset.
            assert_eq!(rude.peek(&mut [0]).expect("the server answers"), 1);
            drop(rude);
        }
        bystander.write_all(b"still here").expect("the server reads");
        expect_bytes(&mut bystander, b"still here");
        let output = server.stop(Signal::SIGINT);
        assert!(output.starts_with("served 21 connections"), "{output:?}");
    });
}

#[test]
fn descriptor_shortage_ends_with_closed_connections() {
    on_each_backend_in_each_style(|arguments| {
        // The shell lowers the limit for the server alone.
        let script = "ulimit -n 24 && exec \"$0\" \"$@\"";
        let mut shell = Command::new("sh");
        shell.args(["-c", script]).arg(example());
        let server = Server::start_by(shell, arguments);
        // All clients are connected, and wait in the listen queue.
        for mut client in (0..60).map(|_| server.connect()).collect::<Vec<_>>() {
            client.write_all(b"hello").expect("the connection is open");
            client.shutdown(Shutdown::Write).expect("the connection is open");
            expect_bytes(&mut client, b"hello");
            expect_end(&mut client);
        }
        let output = server.stop(Signal::SIGINT);
        assert!(output.starts_with("served 60 connections (0 dropped)"), "{output:?}");
        assert!(!output.contains(" 0 pauses"), "60 connections exceed the limit of 24: {output:?}");
    });
}

#[test]
fn idle_server_stops_at_sigint_and_sigterm() {
    on_each_backend_in_each_style(|arguments| {
        for signal in [Signal::SIGINT, Signal::SIGTERM] {
            let output = Server::start(arguments).stop(signal);
            assert!(output.starts_with("served 0 connections"), "{output:?}");
        }
    });
    let output = Server::start(&[]).stop(Signal::SIGINT);
    assert!(output.starts_with("served 0 connections"), "{output:?}");
}

#[test]
fn unavailable_options_are_refused_in_one_line() {
    let occupied = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let busy = occupied.local_addr().expect("a bound socket").to_string();
    let refused: &[&[&str]] = &[
        &["--nonsense"],
        &["stray"],
        &["--listen"],
        &["--mode", "sideways"],
        &["--style"],
        &["--style", "baroque"],
        &["--style", "completion", "--mode", "level"],
        &["--mode", "level", "--style", "completion"],
        &["--style", "multishot", "--mode", "level"],
        &["--backend", "kqueue"],
        &["--listen", "127.0.0.1:0", "--mode", "sideways"],
        &["--listen", "127.0.0.1:0", "--style", "baroque"],
        &["--listen", "127.0.0.1:0", "--style", "completion", "--mode", "level"],
        &["--listen", "127.0.0.1:0", "--backend", "kqueue"],
        &["--listen", "nowhere"],
        &["--listen", "127.0.0.1:65536"],
        &["--listen", &busy],
    ];
    for arguments in refused {
        expect_refusal(arguments);
    }
    for backend in Backend::ALL.into_iter().filter(|backend| backend.is_available().is_err()) {
        expect_refusal(&["--backend", &backend.to_string()]);
        expect_refusal(&["--listen", "127.0.0.1:0", "--backend", &backend.to_string()]);
    }
}

#[test]
fn help_names_every_option() {
    let output = run(&["--help"]);
    assert!(output.status.success() && output.stderr.is_empty());
    let help = String::from_utf8(output.stdout).expect("help is text");
    for option in ["--backend", "--style", "--mode", "--listen", "--help"] {
        assert!(help.contains(option), "{option} is missing");
    }
}

#[test]
fn demonstration_verifies_itself() {
    for (arguments, mode) in [
        (&["--backend", "epoll", "--mode", "edge"][..], "edge"),
        (&["--backend", "epoll", "--style", "readiness", "--mode", "level"], "level"),
        (&["--backend", "epoll", "--style", "completion"], "-"),
        (&["--backend", "epoll", "--style", "multishot"], "-"),
    ] {
        let output = run(arguments);
        let table = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{table}");
        assert!(output.stderr.is_empty(), "progress is for terminals");
        assert_eq!(table.lines().count(), 2, "a heading and a row: {table}");
        let row: Vec<_> = table.lines().last().expect("two").split_whitespace().collect();
        assert_eq!((row.get(1), row.last()), (Some(&mode), Some(&"verified")), "{table}");
    }
}

/// A running server, which is killed if the test fails.
struct Server {
    child: Child,
    address: SocketAddr,
    stdout: Option<BufReader<ChildStdout>>,
}

impl Server {
    fn start(arguments: &[&str]) -> Self {
        Server::start_by(Command::new(example()), arguments)
    }

    fn start_by(mut command: Command, arguments: &[&str]) -> Self {
        let mut child = command
            .args(["--listen", "127.0.0.1:0"])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the example is built, by `cargo build --example echo` if need be");
        let stdout = child.stdout.take().map(BufReader::new);
        let address = SocketAddr::from(([0, 0, 0, 0], 0));
        // A `Server` from here on, so that a failure kills it.
        let mut server = Server { child, address, stdout };
        let mut stdout = server.stdout.take().expect("a pipe");
        let (line, stdout) = watched("the server's first line", move || {
            let mut line = String::new();
            stdout.read_line(&mut line).expect("text");
            (line, stdout)
        });
        server.stdout = Some(stdout);
        let address = line.trim_end().strip_prefix("listening on ").expect("the first line");
        server.address = address.parse().expect("an address");
        server
    }

    fn connect(&self) -> TcpStream {
        let client = TcpStream::connect_timeout(&self.address, WATCHDOG).expect("a connection");
        client.set_read_timeout(Some(WATCHDOG)).expect("a timeout");
        client.set_write_timeout(Some(WATCHDOG)).expect("a timeout");
        client
    }

    /// Sends a signal, expects success, and returns the last line of the server.
    fn stop(mut self, signal: Signal) -> String {
        let pid = i32::try_from(self.child.id()).expect("process ids are positive");
        kill(Pid::from_raw(pid), signal).expect("a running server");
        let mut stdout = self.stdout.take().expect("the pipe");
        let output = watched("the server's last line", move || {
            let mut output = String::new();
            stdout.read_to_string(&mut output).expect("text");
            output
        });
        // The server has closed its output, so it is about to end.
        let status = self.child.wait().expect("a child of this process");
        assert!(status.success(), "{status}");
        assert_eq!(output.lines().count(), 1, "{output:?}");
        output
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail if the server has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn on_each_backend_in_each_style(check: impl Fn(&[&str]) + Sync) {
    on_each_backend(&STYLES, check);
}

/// Checks the styles of a backend concurrently, in threads with their names.
fn on_each_backend(styles: &[[&str; 2]], check: impl Fn(&[&str]) + Sync) {
    for backend in Backend::ALL {
        if let Err(why) = backend.is_available() {
            println!("skipped: {why}");
            continue;
        }
        let backend = backend.to_string();
        thread::scope(|scope| {
            for &[option, name] in styles {
                let (backend, check) = (&backend, &check);
                let named = thread::Builder::new().name(format!("{backend} {name}"));
                let work = move || check(&["--backend", backend, option, name]);
                named.spawn_scoped(scope, work).expect("a thread");
            }
        });
    }
}

/// Returns the path of the example, next to the test programs.
fn example() -> PathBuf {
    let this = std::env::current_exe().expect("the path of this program");
    let profile = this.ancestors().nth(2).expect("tests are in target/<profile>/deps");
    profile.join("examples/echo")
}

fn run(arguments: &[&str]) -> Output {
    let mut command = Command::new(example());
    command.args(arguments).stdin(Stdio::null());
    watched("the whole run", move || command.output().expect("the example is built"))
}

fn expect_refusal(arguments: &[&str]) {
    let output = run(arguments);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {stderr}");
    assert_eq!(stderr.lines().count(), 1, "{arguments:?}: {stderr}");
    assert!(output.stdout.is_empty(), "{arguments:?}");
}

/// Runs work that may hang, in another thread.
fn watched<T: Send + 'static>(what: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, outcome) = mpsc::channel();
    thread::spawn(move || done.send(work()));
    outcome.recv_timeout(WATCHDOG).unwrap_or_else(|error| panic!("{what}: {error}"))
}

fn expect_bytes(client: &mut TcpStream, expected: &[u8]) {
    let mut back = vec![0; expected.len()];
    client.read_exact(&mut back).expect("the server sends back what it got");
    assert!(back == expected, "other bytes came back");
}

fn expect_end(client: &mut TcpStream) {
    assert_eq!(client.read(&mut [0; 16]).expect("an orderly close"), 0);
}

/// Sends without reading, until the server has stopped reading and every buffer is full.
fn write_until_stuck(client: &mut TcpStream) -> Vec<u8> {
    // A slow server may reach this timeout too: the test then proves less, but does not fail.
    client.set_write_timeout(Some(Duration::from_millis(300))).expect("a timeout");
    let (mut random, mut sent) = (Random(3), Vec::new());
    loop {
        let chunk = random.chunk(60_000);
        match client.write(&chunk) {
            Ok(count) => {
                sent.extend_from_slice(&chunk[..count]);
                assert!(sent.len() < EXCEEDS_KERNEL_BUFFERS, "the server buffers unsent bytes");
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}");
                return sent;
            }
        }
    }
}

/// Sends chunks without reading, each when the one before was sent back, until the server cannot
/// send a whole chunk back: that one, and no other, is in the server.
fn write_until_a_chunk_is_delayed(client: &mut TcpStream) -> Vec<u8> {
    let port = |address: std::io::Result<SocketAddr>| address.expect("a connected socket").port();
    let (local, peer) = (port(client.local_addr()), port(client.peer_addr()));
    let (mut random, mut sent) = (Random(4), Vec::new());
    loop {
        let chunk = vec![random.next() as u8; 16_000];
        client.write_all(&chunk).expect("the server reads");
        sent.extend(chunk);
        assert!(sent.len() < EXCEEDS_KERNEL_BUFFERS, "the server buffers unsent bytes");
        // As above, with a slow server the test proves less.
        let deadline = Instant::now() + Duration::from_millis(500);
        while queue_lengths(local, peer).1 + queue_lengths(peer, local).0 < sent.len() {
            if Instant::now() > deadline {
                return sent;
            }
            thread::sleep(Duration::from_micros(50));
        }
    }
}

/// Returns the unacknowledged and the unread bytes of a socket, from `/proc/net/tcp`.
fn queue_lengths(local: u16, peer: u16) -> (usize, usize) {
    let table = fs::read_to_string("/proc/net/tcp").expect("the table of sockets");
    let ports = [format!(":{local:04X}"), format!(":{peer:04X}")];
    let is_ours = |row: &&str| ports.iter().all(|port| row.contains(port));
    let rows = table.lines().filter(is_ours).map(|row| row.split_whitespace().collect::<Vec<_>>());
    let row =
        rows.into_iter().find(|row| row[1].ends_with(&ports[0]) && row[2].ends_with(&ports[1]));
    let queues = row.expect("the row of the connection")[4].split_once(':').expect("two queues");
    let number = |text| usize::from_str_radix(text, 16).expect("a number");
    (number(queues.0), number(queues.1))
}

/// A linear congruential generator, whose upper half is used.
struct Random(u64);

impl Random {
    fn next(&mut self) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) as usize
    }

    fn chunk(&mut self, max: usize) -> Vec<u8> {
        let length = self.next() % max + 1;
        (0..length).map(|_| self.next() as u8).collect()
    }
}
