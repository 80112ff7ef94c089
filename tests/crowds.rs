//! Crowds of sources, and TCP connections, on every backend and, with feature `spi`, on every
//! forced column: each is compared with poll(2) and a simple model, and all with each other.
//!
//! Scripts are random and shrink: a failure prints the shortest one as a test to paste in below.
//! `QUINTPOLL_SCRIPTS` sets the number of each type, and `QUINTPOLL_SEED` the seed. Without a seed
//! every run has the same scripts.

#[path = "../fuzz/src/book.rs"]
pub mod book;
#[path = "../fuzz/src/column.rs"]
pub mod column;
#[path = "../fuzz/src/connection.rs"]
pub mod connection;
#[path = "../fuzz/src/crowd.rs"]
pub mod crowd;
#[path = "../fuzz/src/entry.rs"]
pub mod entry;
#[cfg(feature = "spi")]
#[path = "../fuzz/src/forced.rs"]
pub mod forced;
#[path = "../fuzz/src/member.rs"]
pub mod member;
#[path = "../fuzz/src/oracle.rs"]
pub mod oracle;
#[path = "../fuzz/src/tcp.rs"]
pub mod tcp;
#[path = "../fuzz/src/told.rs"]
pub mod told;

use column::Column;
use crowd::{Dirs, Kind, Those};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};
use quintpoll::Mode;
use std::cell::RefCell;
use std::fmt;
use std::str::FromStr;

/// The number of crowds for the backends, and for the forced columns, which are more.
const CROWDS: [u32; 2] = [32, 8];

/// The number of TCP scripts for the backends, and for the forced columns.
const CONNECTIONS: [u32; 2] = [120, 24];

/// Runs a crowd on every column.
fn replay_crowd(script: &crowd::Script) {
    raise_file_limit();
    crowd::play(script, &Column::all()).unwrap_or_else(|broken| panic!("{broken}"));
}

/// Runs a TCP script on every column.
fn replay_tcp(script: &tcp::Script) {
    tcp::play(script, &Column::all()).unwrap_or_else(|broken| panic!("{broken}"));
}

#[test]
fn crowd_agrees_on_all_backends() {
    random_crowds(backends(), CROWDS[0]);
}

#[cfg(feature = "spi")]
#[test]
fn crowd_agrees_on_all_targets() {
    random_crowds(forced_columns(), CROWDS[1]);
}

#[test]
fn tcp_agrees_on_all_backends() {
    random_connections(&backends(), CONNECTIONS[0]);
}

#[cfg(feature = "spi")]
#[test]
fn tcp_agrees_on_all_targets() {
    random_connections(&forced_columns(), CONNECTIONS[1]);
}

/// The life of a connection in order, twice under one descriptor.
#[test]
fn tcp_connection_from_connect_to_close() {
    use crowd::{Dirs::*, Edge, Level, OneShot};
    use tcp::{Script, Step::*};
    for mode in [Level, OneShot, Edge] {
        let hello = [Register(0, RP, mode), PeerWrite(0, 100), Settle(8), ReadOut(0), Settle(8)];
        let urgent = [Rearm(0, RP), PeerUrgent(0), Settle(8), ReadUrgent(0), Settle(8)];
        let answer = [Modify(0, RW, mode), Write(0, 100), PeerRead(0), Settle(8), Settle(8)];
        let close = [Rearm(0, RW), PeerShut(0), Settle(8), Rearm(0, RW), Shut(0), Settle(8)];
        let life = [&hello[..], &urgent, &answer, &close].concat();
        let steps = [&life[..], &[PeerClose(0), Settle(8), Reopen(0)], &life].concat();
        replay_tcp(&Script { size: 1, steps });
    }
}

/// A crowd that is always ready, and a capacity of one: each source is reported within as many
/// waits as there are sources.
#[test]
fn crowd_with_capacity_of_one() {
    use crowd::{Step::*, *};
    let all = Those(0, 1, 100);
    for mode in [Level, OneShot, Edge] {
        let kinds = vec![Kind::PipeRead, Kind::Stream, Kind::Counter];
        let steps = vec![Register(all, Dirs::R, mode), PeerWrite(all), Settle(1)];
        replay_crowd(&crowd::Script { size: 100, kinds, steps });
    }
}

/// A source that is no longer ready when its queued event is delivered is reported the next time.
#[test]
fn crowd_registered_after_events() {
    use crowd::{Step::*, *};
    let all = Those(0, 1, 100);
    for mode in [Level, OneShot, Edge] {
        let kinds = vec![Kind::PipeRead, Kind::Stream, Kind::Counter];
        let ready = [Register(all, Dirs::R, mode), PeerWrite(all), Wait(8)];
        let late = [ReadOut(all), Wait(1000), PeerWrite(all), Settle(64)];
        let steps = [&ready[..], &late].concat();
        replay_crowd(&crowd::Script { size: 100, kinds, steps });
    }
}

fn backends() -> Vec<Column> {
    Column::all().into_iter().filter(|column| matches!(column, Column::Backend(_))).collect()
}

/// Returns a backend to compare with, and all forced columns.
#[cfg(feature = "spi")]
fn forced_columns() -> Vec<Column> {
    let is_forced = |column: &Column| matches!(column, Column::Forced(..));
    let reference = Column::Backend(quintpoll::Backend::Poll);
    std::iter::once(reference).chain(Column::all().into_iter().filter(is_forced)).collect()
}

/// Sizes to try with a shrunk script, because proptest keeps the size above 100.
const SMALLER: [usize; 14] = [1, 2, 3, 4, 5, 6, 8, 10, 13, 17, 23, 33, 50, 70];

fn random_crowds(columns: Vec<Column>, cases: u32) {
    raise_file_limit();
    let failure = random(&columns, cases, crowd_script(), |script, columns| {
        crowd::play(script, columns).map_err(|broken| (broken.column, broken.to_string()))
    });
    let Some((mut reason, mut script)) = failure else { return };
    let sizes = SMALLER.into_iter().filter(|&size| size < script.size);
    let mut smaller = sizes.map(|size| crowd::Script { size, ..script.clone() });
    let broken =
        |script: crowd::Script| Some((crowd::play(&script, &columns).err()?.to_string(), script));
    if let Some(found) = smaller.find_map(broken) {
        (reason, script) = found;
    }
    panic!("{reason}\nas a test:\n{}", script.as_test());
}

fn random_connections(columns: &[Column], cases: u32) {
    let failure = random(columns, cases, tcp_script(), |script, columns| {
        tcp::play(script, columns).map_err(|broken| (broken.column, broken.to_string()))
    });
    if let Some((reason, script)) = failure {
        panic!("{reason}\nas a test:\n{}", script.as_test());
    }
}

/// Runs random scripts. Returns the shortest failing one, with its error.
fn random<S: fmt::Debug + Clone>(
    columns: &[Column],
    cases: u32,
    scripts: impl Strategy<Value = S>,
    play: impl Fn(&S, &[Column]) -> Result<(), (Column, String)>,
) -> Option<(String, S)> {
    let cases = setting("QUINTPOLL_SCRIPTS", cases);
    let config =
        Config { cases, failure_persistence: None, max_shrink_time: 60_000, ..Config::default() };
    let mut seed = [1; 16];
    seed[..8].copy_from_slice(&setting("QUINTPOLL_SEED", 0_u64).to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::XorShift, &seed);
    // After a failure only the failing column and the reference are run.
    let playing = RefCell::new(columns.to_vec());
    let outcome = TestRunner::new_with_rng(config, rng).run(&scripts, |script| {
        let broken = play(&script, &playing.borrow());
        broken.map_err(|(column, reason)| {
            let mut playing = playing.borrow_mut();
            let reference = playing[0];
            playing.retain(|&other| other == column || other == reference);
            TestCaseError::fail(reason)
        })
    });
    match outcome {
        Ok(()) => None,
        Err(TestError::Fail(reason, script)) => Some((reason.message().to_owned(), script)),
        Err(TestError::Abort(reason)) => panic!("{reason}"),
    }
}

/// Returns the value of an environment variable.
fn setting<T: FromStr>(name: &str, default: T) -> T {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text}")),
        Err(_) => default,
    }
}

/// Raises the soft limit on open files, because concurrent crowds exceed the default.
fn raise_file_limit() {
    let (_, max) = getrlimit(Resource::RLIMIT_NOFILE).expect("getrlimit");
    setrlimit(Resource::RLIMIT_NOFILE, max, max).expect("setrlimit up to the hard limit");
}

fn crowd_script() -> impl Strategy<Value = crowd::Script> {
    let kind = select(vec![Kind::Counter, Kind::PipeRead, Kind::PipeWrite, Kind::Stream]);
    let kinds = prop::collection::vec(kind, 1..=4);
    let beginning = prop::collection::vec(
        (those(), dirs(), mode())
            .prop_map(|(those, dirs, mode)| crowd::Step::Register(those, dirs, mode)),
        1..=3,
    );
    let step = crowd_step().prop_map(|step| vec![step]);
    let spell = prop_oneof![16 => step, 1 => late_readiness()];
    let spells = prop::collection::vec(spell, 4..=24);
    (100..=300_usize, kinds, beginning, spells).prop_map(|(size, kinds, beginning, spells)| {
        crowd::Script { size, kinds, steps: [beginning, spells.concat()].concat() }
    })
}

/// Generates sources that are ready, then not when their events are delivered, then ready again.
fn late_readiness() -> impl Strategy<Value = Vec<crowd::Step>> {
    use crowd::Step;
    (those(), capacity(), capacity()).prop_map(|(those, first, then)| {
        let arm = [Step::PeerRead(those), Step::Rearm(those, Dirs::R), Step::PeerWrite(those)];
        let waits = [Step::Wait(first), Step::ReadOut(those), Step::Wait(then)];
        let again = [Step::PeerWrite(those), Step::Settle(64)];
        [&arm[..], &waits, &again].concat()
    })
}

/// Generates a subset: often all, else a block, or every n-th source.
fn those() -> impl Strategy<Value = Those> {
    prop_oneof![
        3 => Just(Those(0, 1, 300)),
        2 => (0..200_usize, 1..=120_usize).prop_map(|(first, count)| Those(first, 1, count)),
        2 => (0..7_usize, 2..=7_usize).prop_map(|(first, stride)| Those(first, stride, 300)),
    ]
}

fn dirs() -> impl Strategy<Value = Dirs> {
    prop_oneof![
        6 => Just(Dirs::R),
        3 => Just(Dirs::W),
        5 => Just(Dirs::RW),
        1 => Just(Dirs::RP),
        1 => Just(Dirs::Nothing),
    ]
}

fn mode() -> impl Strategy<Value = Mode> {
    select(vec![Mode::Level, Mode::OneShot, Mode::Edge])
}

fn capacity() -> impl Strategy<Value = usize> {
    // A capacity of one takes as many waits as there are sources: rare.
    prop_oneof![1 => Just(1), 2 => Just(2), 5 => select(vec![7, 8, 64, 1000_usize])]
}

fn crowd_step() -> impl Strategy<Value = crowd::Step> {
    use crowd::Step;
    prop_oneof![
        6 => capacity().prop_map(Step::Wait),
        3 => capacity().prop_map(Step::WaitPatiently),
        4 => select(vec![7, 8, 64, 1000]).prop_map(Step::Settle),
        1 => Just(Step::Wake),
        4 => (those(), dirs(), mode()).prop_map(|(those, dirs, mode)| {
            Step::Register(those, dirs, mode)
        }),
        3 => (those(), dirs(), mode()).prop_map(|(those, dirs, mode)| {
            Step::Modify(those, dirs, mode)
        }),
        4 => (those(), dirs()).prop_map(|(those, dirs)| Step::Rearm(those, dirs)),
        2 => (those(), dirs()).prop_map(|(those, dirs)| Step::Drained(those, dirs)),
        2 => those().prop_map(Step::Deregister),
        6 => those().prop_map(Step::PeerWrite),
        3 => those().prop_map(Step::PeerRead),
        1 => those().prop_map(Step::PeerClose),
        2 => those().prop_map(Step::Read),
        4 => those().prop_map(Step::ReadOut),
        3 => those().prop_map(Step::Fill),
        1 => those().prop_map(Step::Reopen),
    ]
}

fn tcp_script() -> impl Strategy<Value = tcp::Script> {
    // A fault that needs several steps needs most of them on one connection.
    let place = prop_oneof![4 => Just(0), 2 => Just(1), 1 => Just(2), 1 => Just(3), 1 => Just(4)];
    let spell = place.prop_flat_map(|at| prop::collection::vec(tcp_step(at), 1..=6));
    let spells = prop::collection::vec(spell, 1..=14);
    (1..=5_usize, spells).prop_map(|(size, spells)| tcp::Script { size, steps: spells.concat() })
}

fn tcp_step(at: usize) -> impl Strategy<Value = tcp::Step> {
    use tcp::Step;
    let capacity = || select(vec![8, 2, 1_usize]);
    let length = || select(vec![1, 100_usize]);
    prop_oneof![
        8 => capacity().prop_map(Step::Wait),
        3 => capacity().prop_map(Step::WaitPatiently),
        5 => capacity().prop_map(Step::Settle),
        1 => Just(Step::Wake),
        10 => (tcp_dirs(), mode()).prop_map(move |(dirs, mode)| Step::Register(at, dirs, mode)),
        3 => (tcp_dirs(), mode()).prop_map(move |(dirs, mode)| Step::Modify(at, dirs, mode)),
        4 => tcp_dirs().prop_map(move |dirs| Step::Rearm(at, dirs)),
        1 => tcp_dirs().prop_map(move |dirs| Step::Drained(at, dirs)),
        1 => Just(Step::Deregister(at)),
        6 => length().prop_map(move |length| Step::PeerWrite(at, length)),
        3 => Just(Step::PeerUrgent(at)),
        1 => Just(Step::PeerRead(at)),
        2 => Just(Step::PeerShut(at)),
        1 => Just(Step::PeerClose(at)),
        1 => Just(Step::PeerReset(at)),
        2 => length().prop_map(move |length| Step::Write(at, length)),
        2 => Just(Step::Read(at)),
        4 => Just(Step::ReadOut(at)),
        2 => Just(Step::ReadUrgent(at)),
        1 => Just(Step::Shut(at)),
        2 => Just(Step::Reopen(at)),
        1 => (0..5_usize).prop_map(move |to| Step::Dup(at, to)),
    ]
}

/// Generates directions with PRIORITY more often than for crowds.
fn tcp_dirs() -> impl Strategy<Value = Dirs> {
    prop_oneof![3 => dirs(), 2 => select(vec![Dirs::P, Dirs::RP, Dirs::WP])]
}
