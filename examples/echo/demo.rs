//! Tests the server on each backend, in each style or mode, and prints a table.

use crate::client;
use crate::server::{self, Stopper, Style};
use crate::stats::Stats;
use indicatif::ProgressBar;
use quintpoll::Backend;
use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::mpsc::{self, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

const REQUESTS: u64 = (client::CONNECTIONS * client::ROUNDS) as u64;

/// A test in which every byte came back.
struct Verified {
    took: Duration,
    stats: Stats,
}

/// Tests the available backends. Returns true if all of them were verified.
///
/// # Errors
///
/// The table cannot be printed.
pub(crate) fn run(backends: &[Backend], styles: &[(&str, Style)]) -> io::Result<bool> {
    let progress = if io::stderr().is_terminal() {
        ProgressBar::new(backends.len() as u64 * styles.len() as u64 * REQUESTS)
    } else {
        ProgressBar::hidden()
    };
    let table = Table { progress: progress.clone() };
    table.row(["backend", "mode", "connections", "MiB", "requests/s", "waits", "verdict"])?;
    let mut all_verified = true;
    for &backend in backends {
        if let Err(why) = backend.is_available() {
            table.row([&backend, &"-", &"-", &"-", &"-", &"-", &why] as [&dyn Display; 7])?;
            progress.inc(styles.len() as u64 * REQUESTS);
            continue;
        }
        for &(mode, style) in styles {
            let outcome = try_one(backend, style, &progress);
            all_verified &= outcome.is_ok();
            table.outcome(backend, mode, outcome)?;
        }
    }
    progress.finish_and_clear();
    Ok(all_verified)
}

/// # Errors
///
/// The failure, in words.
fn try_one(backend: Backend, style: Style, progress: &ProgressBar) -> Result<Verified, String> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(in_words)?;
    let address = listener.local_addr().map_err(in_words)?;
    let (ready, started) = mpsc::channel();
    let server = thread::Builder::new()
        .spawn(move || serve(backend, style, listener, &ready))
        .map_err(in_words)?;
    let Ok(stopper) = started.recv() else {
        return Err(join(server).err().unwrap_or_else(|| "the server did not start".to_owned()));
    };
    let mut took = Duration::ZERO;
    let echoed = client::connect(address).and_then(|peers| {
        let start = Instant::now();
        let echoed = client::drive(peers, progress);
        took = start.elapsed();
        echoed
    });
    stopper.stop();
    // If both fail, the server's error is the cause.
    let stats = join(server)?;
    check(echoed?, &stats)?;
    Ok(Verified { took, stats })
}

/// Runs the server, on the thread that opens its poller.
fn serve(
    backend: Backend,
    style: Style,
    listener: TcpListener,
    ready: &Sender<Stopper>,
) -> io::Result<Stats> {
    let server = server::open(style, backend.open()?, listener)?;
    // The send fails only if the test has ended.
    let _ = ready.send(server.stopper());
    server.run()
}

fn join(server: JoinHandle<io::Result<Stats>>) -> Result<Stats, String> {
    match server.join() {
        Ok(Ok(stats)) => Ok(stats),
        Ok(Err(error)) => Err(format!("the server failed: {error}")),
        Err(_) => Err("the server panicked".to_owned()),
    }
}

/// Compares the counts of the server with those of the client.
fn check(echoed: u64, stats: &Stats) -> Result<(), String> {
    let reported = (stats.connections, stats.bytes, stats.dropped);
    let expected = (client::CONNECTIONS as u64, echoed, 0);
    if reported == expected {
        return Ok(());
    }
    Err(format!("the client saw {echoed} bytes come back, but the server {stats}"))
}

fn in_words(error: io::Error) -> String {
    error.to_string()
}

/// Prints rows above the progress bar.
struct Table {
    progress: ProgressBar,
}

impl Table {
    fn outcome(
        &self,
        backend: Backend,
        mode: &str,
        outcome: Result<Verified, String>,
    ) -> io::Result<()> {
        let count = client::CONNECTIONS;
        match outcome {
            Ok(Verified { took, stats }) => {
                let mebibytes = format!("{:.1}", stats.bytes as f64 / f64::from(1 << 20));
                let rate = format!("{:.0}", REQUESTS as f64 / took.as_secs_f64());
                let cells: [&dyn Display; 7] =
                    [&backend, &mode, &count, &mebibytes, &rate, &stats.waits, &"verified"];
                self.row(cells)
            }
            Err(what) => {
                self.row([&backend, &mode, &count, &"-", &"-", &"-", &what] as [&dyn Display; 7])
            }
        }
    }

    fn row(&self, cells: [impl Display; 7]) -> io::Result<()> {
        let [backend, mode, count, mebibytes, rate, waits, verdict] = cells.map(|c| c.to_string());
        self.progress.suspend(|| {
            writeln!(
                io::stdout(),
                "{backend:<8} {mode:<8} {count:>11} {mebibytes:>8} {rate:>11} {waits:>8}  {verdict}"
            )
        })
    }
}
