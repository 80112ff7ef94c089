//! The example server from outside: started as a program, in every mode and style, on every backend
//! that is available.
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

/// How a server works, as it is told.
const WAYS: [[&str; 2]; 5] = [
    ["--mode", "level"],
    ["--mode", "edge"],
    ["--mode", "oneshot"],
    ["--style", "completion"],
    ["--style", "multishot"],
];
/// Those that have several operations under way.
const BY_OPERATIONS: [[&str; 2]; 2] = [WAYS[3], WAYS[4]];
/// Longer than anything takes, on any machine: whoever waits for so long waits for ever.
const WATCHDOG: Duration = Duration::from_secs(30);
/// More than the kernel holds of one connection, on both sides and both ways.
const NO_BUFFER_HOLDS: usize = 200 << 20;

#[test]
fn every_byte_comes_back_on_every_connection() {
    on_each_backend_in_each_way(|arguments| {
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
        let told = server.stop(Signal::SIGINT);
        let expected =
            format!("served {CONNECTIONS} connections (0 dropped), echoed {total} bytes");
        assert!(told.starts_with(&expected), "{expected:?} is not what it told: {told:?}");
    });
}

#[test]
fn who_never_reads_delays_nobody_and_loses_nothing() {
    on_each_backend_in_each_way(|arguments| {
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
fn many_who_never_read_delay_nobody_and_lose_nothing() {
    on_each_backend(&BY_OPERATIONS[1..], |arguments| {
        let server = Server::start(arguments);
        let mut greedy: Vec<_> = (0..3).map(|_| server.connect()).collect();
        let sent: Vec<Vec<u8>> = thread::scope(|scope| {
            let all: Vec<_> =
                greedy.iter_mut().map(|client| scope.spawn(|| write_until_stuck(client))).collect();
            all.into_iter().map(|one| one.join().expect("it is stuck at last")).collect()
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

/// A server that closes when it hears the end, and not when everything was sent back, loses bytes.
#[test]
fn the_end_is_not_answered_before_what_is_held_up() {
    // It is a matter of the server alone, and the table below is slow to be had.
    let backend = Backend::best().to_string();
    for [option, name] in BY_OPERATIONS {
        let server = Server::start(&["--backend", &backend, option, name]);
        let mut client = server.connect();
        setsockopt(&client, RcvBuf, &65_536).expect("it is a socket");
        let sent = write_until_a_chunk_is_held_up(&mut client);
        client.shutdown(Shutdown::Write).expect("the connection is open");
        // Whoever is served after it has come is served after it was heard.
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
fn a_reset_ends_its_own_connection_only() {
    on_each_backend_in_each_way(|arguments| {
        let server = Server::start(arguments);
        let mut bystander = server.connect();
        for _ in 0..20 {
            let mut rude = server.connect();
            rude.write_all(&[1; 1000]).expect("the connection is open");
            // Closing what has not been read sends a reset.
            assert_eq!(rude.peek(&mut [0]).expect("the server answers"), 1);
            drop(rude);
        }
        bystander.write_all(b"still here").expect("the server reads");
        expect_bytes(&mut bystander, b"still here");
        let told = server.stop(Signal::SIGINT);
        assert!(told.starts_with("served 21 connections"), "it told: {told:?}");
    });
}

#[test]
fn a_shortage_of_file_numbers_ends_when_connections_do() {
    on_each_backend_in_each_way(|arguments| {
        // The shell lowers the limit for the server alone.
        let script = "ulimit -n 24 && exec \"$0\" \"$@\"";
        let mut shell = Command::new("sh");
        shell.args(["-c", script]).arg(example());
        let server = Server::start_by(shell, arguments);
        // All of them are connected as far as they can tell: they wait in the listener's queue.
        for mut client in (0..60).map(|_| server.connect()).collect::<Vec<_>>() {
            client.write_all(b"hello").expect("the connection is open");
            client.shutdown(Shutdown::Write).expect("the connection is open");
            expect_bytes(&mut client, b"hello");
            expect_end(&mut client);
        }
        let told = server.stop(Signal::SIGINT);
        assert!(told.starts_with("served 60 connections (0 dropped)"), "it told: {told:?}");
        assert!(!told.contains(" 0 pauses"), "60 do not fit into 24: {told:?}");
    });
}

#[test]
fn an_idle_server_stops_at_either_signal() {
    on_each_backend_in_each_way(|arguments| {
        for signal in [Signal::SIGINT, Signal::SIGTERM] {
            let told = Server::start(arguments).stop(signal);
            assert!(told.starts_with("served 0 connections"), "it told: {told:?}");
        }
    });
    let told = Server::start(&[]).stop(Signal::SIGINT);
    assert!(told.starts_with("served 0 connections"), "it told: {told:?}");
}

#[test]
fn what_cannot_be_had_is_refused_in_one_line() {
    let occupied = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
    let busy = occupied.local_addr().expect("it is bound").to_string();
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
fn the_demonstration_verifies_itself() {
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

/// A server that serves until it is told to stop, or the test fails.
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
        // Already a `Server`, so that a failure from here on kills it.
        let mut server = Server { child, address, stdout };
        let mut stdout = server.stdout.take().expect("it is piped");
        let (line, stdout) = watched("the server's first line", move || {
            let mut line = String::new();
            stdout.read_line(&mut line).expect("it can be read");
            (line, stdout)
        });
        server.stdout = Some(stdout);
        let address = line.trim_end().strip_prefix("listening on ").expect("that is what it says");
        server.address = address.parse().expect("it is an address");
        server
    }

    fn connect(&self) -> TcpStream {
        let client = TcpStream::connect_timeout(&self.address, WATCHDOG).expect("it listens");
        client.set_read_timeout(Some(WATCHDOG)).expect("it is not zero");
        client.set_write_timeout(Some(WATCHDOG)).expect("it is not zero");
        client
    }

    /// Sends a signal, expects a good end, and gives the one line that the server then printed.
    fn stop(mut self, signal: Signal) -> String {
        let pid = i32::try_from(self.child.id()).expect("process ids are positive");
        kill(Pid::from_raw(pid), signal).expect("it runs");
        let mut stdout = self.stdout.take().expect("nobody else took it");
        let told = watched("the server's last line", move || {
            let mut told = String::new();
            stdout.read_to_string(&mut told).expect("it can be read");
            told
        });
        // It has closed its output, so it is about to end.
        let status = self.child.wait().expect("it is our child");
        assert!(status.success(), "{status}");
        assert_eq!(told.lines().count(), 1, "{told:?}");
        told
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail when it has ended, which is just as well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn on_each_backend_in_each_way(check: impl Fn(&[&str]) + Sync) {
    on_each_backend(&WAYS, check);
}

/// The ways of a backend are checked side by side, in threads that bear their names.
fn on_each_backend(ways: &[[&str; 2]], check: impl Fn(&[&str]) + Sync) {
    for backend in Backend::ALL {
        if let Err(why) = backend.is_available() {
            println!("skipped: {why}");
            continue;
        }
        let backend = backend.to_string();
        thread::scope(|scope| {
            for &[option, name] in ways {
                let (backend, check) = (&backend, &check);
                let named = thread::Builder::new().name(format!("{backend} {name}"));
                let work = move || check(&["--backend", backend, option, name]);
                named.spawn_scoped(scope, work).expect("threads are left");
            }
        });
    }
}

/// Beside the directory of the test programs.
fn example() -> PathBuf {
    let this = std::env::current_exe().expect("the system knows");
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
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {complaint}");
    assert_eq!(complaint.lines().count(), 1, "{arguments:?}: {complaint}");
    assert!(output.stdout.is_empty(), "{arguments:?}");
}

/// Runs what may never end, in a thread of its own.
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
    assert_eq!(client.read(&mut [0; 16]).expect("the server closes in peace"), 0);
}

/// Sends without reading, until the server has stopped reading and every buffer is full.
fn write_until_stuck(client: &mut TcpStream) -> Vec<u8> {
    // Only a server that is merely slow could take this for being stuck, and then the test proves
    // less, but does not fail.
    client.set_write_timeout(Some(Duration::from_millis(300))).expect("it is not zero");
    let (mut random, mut sent) = (Random(3), Vec::new());
    loop {
        let chunk = random.chunk(60_000);
        match client.write(&chunk) {
            Ok(count) => {
                sent.extend_from_slice(&chunk[..count]);
                assert!(sent.len() < NO_BUFFER_HOLDS, "the server keeps what it can't send");
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}");
                return sent;
            }
        }
    }
}

/// Sends chunks without reading, each when the one before is on its way back, until one of them
/// can't be sent back as a whole: it, and no other, is held up in the server.
fn write_until_a_chunk_is_held_up(client: &mut TcpStream) -> Vec<u8> {
    let port = |address: std::io::Result<SocketAddr>| address.expect("it is connected").port();
    let (here, there) = (port(client.local_addr()), port(client.peer_addr()));
    let (mut random, mut sent) = (Random(4), Vec::new());
    loop {
        let chunk = vec![random.next() as u8; 16_000];
        client.write_all(&chunk).expect("the server reads");
        sent.extend(chunk);
        assert!(sent.len() < NO_BUFFER_HOLDS, "the server keeps what it can't send");
        // As above, a server that is merely slow makes the test prove less.
        let deadline = Instant::now() + Duration::from_millis(500);
        while queued(here, there).1 + queued(there, here).0 < sent.len() {
            if Instant::now() > deadline {
                return sent;
            }
            thread::sleep(Duration::from_micros(50));
        }
    }
}

/// What the kernel holds of a connection on this side of it: what it has not had acknowledged, and
/// what nobody has read. From the table of all there are.
fn queued(here: u16, there: u16) -> (usize, usize) {
    let table = fs::read_to_string("/proc/net/tcp").expect("it is there");
    let ports = [format!(":{here:04X}"), format!(":{there:04X}")];
    let is_ours = |row: &&str| ports.iter().all(|port| row.contains(port));
    let rows = table.lines().filter(is_ours).map(|row| row.split_whitespace().collect::<Vec<_>>());
    let row =
        rows.into_iter().find(|row| row[1].ends_with(&ports[0]) && row[2].ends_with(&ports[1]));
    let queues = row.expect("the connection is there")[4].split_once(':').expect("there are two");
    let number = |text| usize::from_str_radix(text, 16).expect("it is one");
    (number(queues.0), number(queues.1))
}

/// A linear congruential generator, of which the upper half is good enough.
struct Random(u64);

impl Random {
    fn next(&mut self) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) as usize
    }

    fn chunk(&mut self, longest: usize) -> Vec<u8> {
        let length = self.next() % longest + 1;
        (0..length).map(|_| self.next() as u8).collect()
    }
}
