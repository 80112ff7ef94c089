//! The small examples from outside: started as programs, on every backend that is available.
//!
//! Cargo builds examples before it runs all tests, but not for `cargo test --test examples`; run
//! `cargo build --examples --all-features` before that.

use quintpoll::Backend;
use socket2::{Domain, Socket, Type};
use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Lines, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;
use tempfile::NamedTempFile;

/// Longer than anything takes, on any machine.
const WATCHDOG: Duration = Duration::from_secs(60);
const SMALL: usize = 60;

#[test]
fn wake_prints_every_result() {
    on_each_backend(|backend| {
        let expected = "result: 1\nresult: 4\nresult: 9\nthe thread has ended\n";
        assert_eq!(stdout_of(&mut example("wake", backend)), expected);
    });
}

#[test]
fn timeouts_expire_in_each_way() {
    on_each_backend(|backend| {
        let expected =
            "wait: 0 events, early: false\nreceive: timed out after 0 bytes\ntimer: expired\n";
        assert_eq!(stdout_of(&mut example("timeouts", backend)), expected);
    });
}

#[test]
fn stdin_reports_each_write_to_a_pipe() {
    on_each_backend(|backend| {
        let mut program = Program::start(example("stdin", backend).stdin(Stdio::piped()));
        let mut pipe = program.child.stdin.take().expect("stdin is a pipe");
        for text in ["hello\n", "and again\n"] {
            pipe.write_all(text.as_bytes()).expect("the example reads");
            assert_eq!(program.line(), format!("{} bytes: {text:?}", text.len()));
        }
        drop(pipe);
        assert_eq!(program.line(), "end of input");
        program.expect_success();
    });
}

#[test]
fn stdin_reads_files_to_their_end() {
    on_each_backend(|backend| {
        let file = temp_file(b"one line\n");
        let input = fs::File::open(file.path()).expect("the file exists");
        let output = stdout_of(example("stdin", backend).stdin(input));
        assert_eq!(output, "9 bytes: \"one line\\n\"\nend of input\n");
        assert_eq!(stdout_of(&mut example("stdin", backend)), "end of input\n");
    });
}

#[test]
fn read_file_prints_the_file() {
    on_each_backend(|backend| {
        for size in [0, 1, 65_536, 200_001] {
            let content: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
            let file = temp_file(&content);
            let output = run(example("read_file", backend).arg(file.path()));
            assert!(output.status.success(), "{output:?}");
            assert!(output.stdout == content, "{size} bytes are printed as they are");
        }
        let missing = run(example("read_file", backend).arg("/nonexistent"));
        expect_failure(&missing, "No such file or directory");
    });
}

#[test]
fn connect_prints_the_answer_of_a_server() {
    on_each_backend(|backend| {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("it is bound").to_string();
        let server = thread::spawn(move || {
            let (mut peer, _) = listener.accept().expect("the example connects");
            let mut received = String::new();
            peer.read_to_string(&mut received).expect("the example shuts down writing");
            peer.write_all(received.to_uppercase().as_bytes()).expect("the example reads");
        });
        assert_eq!(stdout_of(example("connect", backend).arg(&address)), "HELLO\n");
        server.join().expect("the server has seen no error");

        // Bound, so that no other program gets the port, and not listening.
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("descriptors are left");
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        socket.bind(&any.into()).expect("a port is free");
        let address = socket.local_addr().ok().and_then(|address| address.as_socket());
        let address = address.expect("it is bound").to_string();
        expect_failure(&run(example("connect", backend).arg(&address)), "Connection refused");
    });
}

#[test]
fn pass_fd_prints_the_file_in_the_child() {
    on_each_backend(|backend| {
        let file = temp_file(b"read by the child\n");
        assert_eq!(stdout_of(example("pass_fd", backend).arg(file.path())), "read by the child\n");
        expect_failure(&run(example("pass_fd", backend).arg("/nonexistent")), "No such file");
    });
}

#[test]
fn reuseport_serves_with_several_threads() {
    on_each_backend(|backend| {
        let server = Program::start(example("reuseport", backend).arg("127.0.0.1:0"));
        let (server, address) = server.address();
        let greeting = |_| {
            let mut greeting = String::new();
            let mut client = connect(address);
            client.read_to_string(&mut greeting).expect("the server greets and closes");
            assert!(greeting.starts_with("thread ") && greeting.ends_with('\n'), "{greeting:?}");
            greeting
        };
        // The kernel picks the listener by a hash of the client's port.
        let greetings: BTreeSet<String> = (0..100).map(greeting).collect();
        assert!(greetings.len() > 1, "all were served by one: {greetings:?}");
        drop(server);
    });
}

#[test]
#[cfg(feature = "spi")]
fn selector_reports_in_edge_mode() {
    let output = stdout_of(&mut example("selector", ""));
    assert!(output.starts_with("mine: Some(Event { token: Token(7)"), "{output}");
    assert!(output.ends_with("readiness: Readiness(READABLE) })\n"), "{output}");
}

#[test]
fn servers_echo_every_byte() {
    on_each_backend(|backend| {
        for name in ["server", "server_ops"] {
            let server = Program::start(example(name, backend).arg("127.0.0.1:0"));
            let (server, address) = server.address();
            let idle = connect(address);
            // More than all buffers hold, sent without reading: others are served meanwhile.
            let mut greedy = connect(address);
            let sent = vec![7; 32 << 20];
            thread::scope(|scope| {
                let mut writer = greedy.try_clone().expect("descriptors are left");
                scope.spawn(move || {
                    writer.write_all(&sent).expect("the server reads");
                    writer.shutdown(Shutdown::Write).expect("the connection is open");
                });
                for number in 0..20 {
                    expect_echo(connect(address), &[number; 10_000]);
                }
                let mut received = Vec::new();
                greedy.read_to_end(&mut received).expect("the server sends");
                assert!(received.len() == 32 << 20 && received.iter().all(|byte| *byte == 7));
            });
            drop((idle, server));
        }
    });
}

#[test]
fn server_ops_survives_a_shortage_of_descriptors() {
    on_each_backend(|backend| {
        let program = example("server_ops", backend).get_program().to_owned();
        // The shell lowers the limit for the server alone.
        let script = "ulimit -n 24 && exec \"$0\" \"$@\"";
        let mut command = Command::new("sh");
        command.args(["-c", script]).arg(program).arg("127.0.0.1:0");
        command.env("QUINTPOLL_BACKEND", backend).stdin(Stdio::null()).stdout(Stdio::piped());
        let (server, address) = Program::start(&mut command).address();
        // All of them are connected: most of them in the queue of the listener.
        let clients: Vec<_> = (0..60).map(|_| connect(address)).collect();
        for client in clients {
            expect_echo(client, b"hello");
        }
        drop(server);
    });
}

fn expect_echo(mut client: TcpStream, bytes: &[u8]) {
    let mut received = Vec::new();
    client.write_all(bytes).expect("the server reads");
    client.shutdown(Shutdown::Write).expect("the connection is open");
    client.read_to_end(&mut received).expect("the server sends, and closes");
    assert!(received == bytes, "the bytes come back as they were");
}

#[test]
fn small_examples_stay_small_and_listed() {
    let readme = read("README.md");
    let entries = fs::read_dir(root().join("examples")).expect("the folder exists");
    let names = entries.map(|entry| entry.expect("it is readable").file_name());
    for name in names.map(|name| name.into_string().expect("names are text")) {
        let is_small = name.ends_with(".rs");
        let path =
            if is_small { format!("examples/{name}") } else { format!("examples/{name}/main.rs") };
        assert!(readme.contains(&format!("({path}")), "README.md does not list {path}");
        if is_small {
            let lines = read(&path).lines().count();
            assert!(lines < SMALL, "{path} has {lines} lines");
        }
    }
}

#[test]
fn readme_shows_the_servers_as_they_are() {
    let readme = read("README.md");
    for name in ["server", "server_ops"] {
        let text = read(&format!("examples/{name}.rs"));
        let (_, code) = text.split_once("\n\n").expect("a `//!` line comes first");
        assert!(readme.contains(code), "README.md shows another {name}.rs");
    }
}

#[test]
fn front_page_has_the_tables_of_the_readme() {
    let (readme, front_page) = (read("README.md"), read("src/lib.rs"));
    let rows: Vec<&str> = readme.lines().filter(|line| line.starts_with("| ")).collect();
    let is_row = |line: &&str| line.starts_with("//! | ");
    let mut count = 0;
    for line in front_page.lines().filter(is_row) {
        let row = line.trim_start_matches("//! ");
        assert!(rows.contains(&row), "README.md has no row {row:?}");
        count += 1;
    }
    assert!(count > 10, "the tables are found");
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Runs a check on each backend, in threads that are named after them.
fn on_each_backend(check: impl Fn(&str) + Sync) {
    thread::scope(|scope| {
        for backend in Backend::ALL {
            if let Err(why) = backend.is_available() {
                println!("skipped: {why}");
                continue;
            }
            let (name, check) = (backend.to_string(), &check);
            let named = thread::Builder::new().name(name.clone());
            named.spawn_scoped(scope, move || check(&name)).expect("threads are left");
        }
    });
}

/// Returns the command that runs an example, without input.
fn example(name: &str, backend: &str) -> Command {
    let this = std::env::current_exe().expect("the system knows");
    let profile = this.ancestors().nth(2).expect("tests are in target/<profile>/deps");
    let mut command = Command::new(profile.join("examples").join(name));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    if backend.is_empty() {
        command.env_remove("QUINTPOLL_BACKEND");
    } else {
        command.env("QUINTPOLL_BACKEND", backend);
    }
    command
}

fn run(command: &mut Command) -> Output {
    let child = command.spawn().expect("the example is built");
    watched(move || child.wait_with_output().expect("it is a child of this process"))
}

fn stdout_of(command: &mut Command) -> String {
    let output = run(command);
    assert!(output.status.success(), "{command:?}: {output:?}");
    String::from_utf8(output.stdout).expect("examples print text")
}

fn expect_failure(output: &Output, message: &str) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && stderr.contains(message), "{output:?}");
}

/// An example that is killed when it is dropped.
struct Program {
    child: Child,
    stdout: Option<Lines<BufReader<ChildStdout>>>,
}

impl Program {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stderr(Stdio::inherit()).spawn().expect("the example is built");
        let stdout = child.stdout.take().map(|stdout| BufReader::new(stdout).lines());
        Program { child, stdout }
    }

    /// Returns the next line that it prints.
    fn line(&mut self) -> String {
        let mut stdout = self.stdout.take().expect("it is a pipe");
        let (line, stdout) = watched(move || (stdout.next(), stdout));
        self.stdout = Some(stdout);
        line.expect("the example prints a line").expect("examples print text")
    }

    /// Returns the address that its first line names.
    fn address(mut self) -> (Self, SocketAddr) {
        let line = self.line();
        let address = line.strip_prefix("listening on ").and_then(|rest| rest.split(' ').next());
        let address = address.expect("it says where it listens").parse();
        (self, address.expect("it is an address"))
    }

    fn expect_success(mut self) {
        let status = self.child.wait().expect("it is a child of this process");
        assert!(status.success(), "{status}");
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Both fail if it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn connect(address: SocketAddr) -> TcpStream {
    let client = TcpStream::connect_timeout(&address, WATCHDOG).expect("the example listens");
    client.set_read_timeout(Some(WATCHDOG)).expect("it is not zero");
    client.set_write_timeout(Some(WATCHDOG)).expect("it is not zero");
    client
}

fn temp_file(content: &[u8]) -> NamedTempFile {
    let mut file = NamedTempFile::new().expect("a file can be made");
    file.write_all(content).expect("there is room");
    file
}

/// Runs on a thread of its own what may never end.
fn watched<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, outcome) = mpsc::channel();
    thread::spawn(move || done.send(work()));
    outcome.recv_timeout(WATCHDOG).unwrap_or_else(|error| panic!("{error}"))
}
