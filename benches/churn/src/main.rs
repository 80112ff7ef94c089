//! Measures the cost of a short connection to a server: accept, one request, one answer, close.
//!
//! Each server runs on a thread of its own on the first processor, and the clients on the second.
//! The servers are loaded in turn for slices of 100 ms, so that noise affects all of them. Figures
//! are medians over the cycles.
//!
//! ```text
//! cargo run --release -- [--cycles N] [--clients N] [SERVER...]
//! ```

mod clients;
mod peers;
mod servers;

use lexopt::Arg::{Long, Short, Value};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::{Pid, gettid};
use std::error::Error;
use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc;
use std::time::Duration;

const SLICE: Duration = Duration::from_millis(100);
/// Pairs whose costs are compared, the baseline first.
const PAIRS: [(&str, &str); 4] = [
    ("mio", "epoll"),
    ("mio", "epoll multishot"),
    ("raw ring", "uring"),
    ("raw ring", "uring multishot"),
];

type Serve = fn(TcpListener) -> Result<(), Box<dyn Error>>;

/// A running server.
struct Server {
    name: &'static str,
    address: SocketAddr,
    thread: Pid,
    /// For each slice, nanoseconds of CPU time and connections.
    slices: Vec<(u64, u64)>,
}

fn all() -> Vec<(&'static str, Serve)> {
    vec![
        ("mio", peers::mio),
        ("epoll", |listener| servers::readiness(quintpoll::Backend::Epoll, listener)),
        ("epoll multishot", |listener| servers::multishot(quintpoll::Backend::Epoll, listener)),
        ("poll", |listener| servers::readiness(quintpoll::Backend::Poll, listener)),
        ("sigio", |listener| servers::readiness(quintpoll::Backend::Sigio, listener)),
        ("raw ring", peers::raw_ring),
        ("uring", |listener| servers::completion(quintpoll::Backend::Uring, listener)),
        ("uring multishot", |listener| servers::multishot(quintpoll::Backend::Uring, listener)),
        ("uring readiness", |listener| servers::readiness(quintpoll::Backend::Uring, listener)),
    ]
}

fn main() -> Result<(), Box<dyn Error>> {
    let (mut cycles, mut clients, mut names) = (20, 8, Vec::new());
    let mut arguments = lexopt::Parser::from_env();
    while let Some(argument) = arguments.next()? {
        match argument {
            Long("cycles") => cycles = arguments.value()?.to_str().ok_or("a number")?.parse()?,
            Long("clients") => clients = arguments.value()?.to_str().ok_or("a number")?.parse()?,
            Value(name) => names.push(name.to_string_lossy().into_owned()),
            Short('h') | Long("help") => {
                println!("churn [--cycles N] [--clients N] [SERVER...]");
                return Ok(());
            }
            _ => return Err(argument.unexpected().into()),
        }
    }
    let chosen = all()
        .into_iter()
        .filter(|(name, _)| names.is_empty() || names.iter().any(|wanted| wanted == name));
    let mut servers =
        chosen.map(|(name, serve)| start(name, serve)).collect::<Result<Vec<_>, _>>()?;
    if servers.is_empty() {
        return Err("no server has this name".into());
    }
    let _ = pin(1);
    let clients = clients::Clients::start(clients);
    for _ in 0..=cycles {
        for server in &mut servers {
            let before = cpu_time(server.thread)?;
            let connections = clients.load(server.address, SLICE)?;
            server.slices.push((cpu_time(server.thread)? - before, connections));
        }
    }
    // The first cycle warms up.
    servers.iter_mut().for_each(|server| _ = server.slices.remove(0));
    print(&servers);
    Ok(())
}

/// Starts a server on the first processor.
fn start(name: &'static str, serve: Serve) -> Result<Server, Box<dyn Error>> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let (sender, thread) = mpsc::channel();
    std::thread::spawn(move || {
        // Without pinning the figures have more noise.
        let _ = pin(0);
        let _ = sender.send(gettid());
        if let Err(error) = serve(listener) {
            eprintln!("churn: {name}: {error}");
            std::process::exit(1);
        }
    });
    Ok(Server { name, address, thread: thread.recv()?, slices: Vec::new() })
}

fn pin(processor: usize) -> nix::Result<()> {
    let mut set = CpuSet::new();
    set.set(processor)?;
    sched_setaffinity(Pid::from_raw(0), &set)
}

/// Returns the CPU time of a thread in nanoseconds.
fn cpu_time(thread: Pid) -> Result<u64, Box<dyn Error>> {
    let text = std::fs::read_to_string(format!("/proc/self/task/{thread}/schedstat"))?;
    Ok(text.split_whitespace().next().ok_or("schedstat is empty")?.parse()?)
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

fn print(servers: &[Server]) {
    println!("| server | connections/s | CPU ns a connection |\n|---|---|---|");
    let cost = |&(cpu, connections): &(u64, u64)| cpu as f64 / connections.max(1) as f64;
    for server in servers {
        let rates = server.slices.iter().map(|(_, count)| *count as f64 / SLICE.as_secs_f64());
        let costs = server.slices.iter().map(cost);
        let (rate, cost) = (median(rates.collect()), median(costs.collect()));
        println!("| {} | {rate:.0} | {cost:.0} |", server.name);
    }
    println!("\n| pair | efficiency |\n|---|---|");
    let find = |name| servers.iter().find(|server| server.name == name);
    for (base, name) in PAIRS {
        let (Some(base), Some(server)) = (find(base), find(name)) else { continue };
        let ratios =
            base.slices.iter().zip(&server.slices).map(|(base, own)| cost(base) / cost(own));
        println!("| {} / {} | {:.3} |", server.name, base.name, median(ratios.collect()));
    }
}
