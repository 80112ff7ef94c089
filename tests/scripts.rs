//! The model-based test: every backend, and with feature `spi` every forced column, against the
//! reference model.
//!
//! The model is that of the fuzz targets (`fuzz/src`), whose seeds are replayed here. Random
//! scripts shrink: a failure prints the shortest one as a test to paste in below.
//! `QUINTPOLL_SCRIPTS` sets the number of scripts for each column, and `QUINTPOLL_SEED` the seed.
//! Without a seed every run has the same scripts.

#[path = "../fuzz/src/lib.rs"]
pub mod fuzz;
#[path = "agree/runner.rs"]
mod runner;

use fuzz::column::Column;
use fuzz::play::play;
use fuzz::script::*;
use proptest::prelude::*;
use proptest::sample::select;

/// The number of scripts for each column, which take a few seconds in a debug build.
const SCRIPTS: u32 = 500;

/// Runs a script on every column.
fn replay(script: &Script) {
    for column in Column::all() {
        play(script, column).unwrap_or_else(|broken| panic!("{broken}"));
    }
}

#[test]
fn seeds() {
    let seeds = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/seeds/script_vs_model");
    for seed in std::fs::read_dir(seeds).expect("the seeds are there") {
        let path = seed.expect("a directory can be read").path();
        let data = std::fs::read(&path).expect("a seed can be read");
        println!("{}", path.display());
        fuzz::script_vs_model(&data);
        let (_, script) = fuzz::decode(&data).expect("a seed is a script");
        replay(&script);
    }
}

/// The two tables of clause H3 agree for all bits, including those that no file shows.
#[cfg(feature = "spi")]
#[test]
fn tables() {
    use fuzz::oracle::{Bits, readiness, ready};
    use quintpoll::{Interest, spi::PollBits};
    let all = Bits::EPOLLIN
        | Bits::EPOLLPRI
        | Bits::EPOLLOUT
        | Bits::EPOLLERR
        | Bits::EPOLLHUP
        | Bits::EPOLLRDHUP;
    let bits = (0..=all.bits()).filter(|bits| bits & !all.bits() == 0);
    for (bits, dirs) in bits.flat_map(|bits| (0..8).map(move |dirs| (bits, dirs))) {
        let reference = Bits::from_bits_retain(bits);
        let library = PollBits::from_bits_retain(bits as u16);
        let dirs = Interest::from_bits_truncate(dirs);
        assert_eq!(library.readiness(dirs), readiness(reference, dirs), "{library:?} {dirs:?}");
        assert_eq!(library.ready(dirs), ready(reference, dirs), "{library:?} {dirs:?}");
    }
}

/// A test for each part of the columns, so that they run concurrently.
macro_rules! random_scripts {
    ($($(#[$attribute:meta])* $part:ident: $pattern:pat,)*) => {$(
        $(#[$attribute])*
        #[test]
        fn $part() {
            let columns = Column::all().into_iter().filter(|column| matches!(column, $pattern));
            columns.for_each(random_scripts);
        }
    )*};
}

#[cfg(feature = "spi")]
use fuzz::forced::Distortion;

random_scripts! {
    every_backend: Column::Backend(_),
    #[cfg(feature = "spi")]
    every_column: Column::Forced(_, _, Distortion::Faithful),
    #[cfg(feature = "spi")]
    every_column_with_hints: Column::Forced(_, _, Distortion::Hints),
    #[cfg(feature = "spi")]
    every_column_with_losses: Column::Forced(_, _, Distortion::Losses),
}

fn random_scripts(column: Column) {
    let holds = |script: &Script| play(script, column).map_err(|broken| broken.to_string());
    let outcome = runner::run(SCRIPTS, &script(), holds);
    outcome.unwrap_or_else(|(reason, script)| {
        panic!("{reason}\nas a test:\n{}", script.as_test());
    });
}

fn script() -> impl Strategy<Value = Script> {
    let kinds = prop::array::uniform5(select(&Kind::ALL[..]));
    let capacity = select(&Room::ALL[..]).prop_map(|room| vec![Step::SetCapacity(room)]);
    let spells = prop::collection::vec(spell(), 1..=MOST_STEPS / 3);
    (kinds, capacity, spells).prop_map(|(kinds, capacity, spells)| {
        let steps = capacity.into_iter().chain(spells.concat()).take(MOST_STEPS).collect();
        Script { kinds, steps }
    })
}

/// Generates several steps at one place, because some faults need several there. Some places get
/// more steps than others.
fn spell() -> impl Strategy<Value = Vec<Step>> {
    let at = prop_oneof![
        5 => Just(At::A),
        3 => Just(At::B),
        2 => Just(At::C),
        2 => Just(At::D),
        2 => Just(At::E),
    ];
    at.prop_flat_map(|at| {
        prop_oneof![
            10 => prop::collection::vec(step(at), 1..=6),
            1 => refill(at),
        ]
    })
}

/// Generates a full file, a wait or rearm, and then some space, which a write may use at once.
fn refill(at: At) -> impl Strategy<Value = Vec<Step>> {
    let full = prop_oneof![
        3 => Just(vec![Step::FillWrite(at)]),
        1 => Just(vec![Step::Write(at, u8::MAX); 4]),
    ];
    let check = select(vec![Step::Wait0, Step::Rearm(at, Dirs::W), Step::Rearm(at, Dirs::RW)]);
    let some_space = prop_oneof![
        3 => any::<u8>().prop_map(move |number| vec![Step::PeerRead(at, number)]),
        1 => any::<u8>().prop_map(move |number| vec![Step::PeerRead(at, number); 3]),
        1 => select(&End::ALL[..]).prop_map(move |end| vec![Step::Enlarge(at, end)]),
    ];
    let again = prop::collection::vec(any::<u8>().prop_map(move |n| Step::Write(at, n)), 0..=2);
    (full, check, some_space, again).prop_map(move |(full, check, some_space, again)| {
        let last = [Step::PeerDrain(at), Step::Wait0];
        full.into_iter().chain([check]).chain(some_space).chain(again).chain(last).collect()
    })
}

/// Generates a step: waits and steps that cause events are frequent, ends are rare.
fn step(at: At) -> impl Strategy<Value = Step> {
    let dirs = || {
        prop_oneof![6 => Just(Dirs::R), 3 => Just(Dirs::W), 3 => Just(Dirs::RW),
            2 => Just(Dirs::RP), 3 => select(&Dirs::ALL[..])]
    };
    let how = || select(&How::ALL[..]);
    let number = any::<u8>;
    prop_oneof![
        16 => Just(Step::Wait0),
        1 => number().prop_map(Step::WaitShort),
        1 => number().prop_map(Step::WaitInterrupted),
        2 => select(&Room::ALL[..]).prop_map(Step::SetCapacity),
        1 => Just(Step::Wake),
        8 => (dirs(), how()).prop_map(move |(dirs, how)| Step::Register(at, dirs, how)),
        2 => (dirs(), how()).prop_map(move |(dirs, how)| Step::Modify(at, dirs, how)),
        4 => dirs().prop_map(move |dirs| Step::Rearm(at, dirs)),
        2 => dirs().prop_map(move |dirs| Step::Drained(at, dirs)),
        1 => Just(Step::Deregister(at)),
        6 => number().prop_map(move |number| Step::PeerWrite(at, number)),
        1 => Just(Step::PeerTrickle(at)),
        2 => number().prop_map(move |number| Step::PeerRead(at, number)),
        2 => Just(Step::PeerDrain(at)),
        2 => Just(Step::PeerShutdownWr(at)),
        1 => Just(Step::PeerClose(at)),
        2 => number().prop_map(move |number| Step::Read(at, number)),
        5 => Just(Step::DrainRead(at)),
        2 => number().prop_map(move |number| Step::Write(at, number)),
        4 => Just(Step::FillWrite(at)),
        1 => Just(Step::ShutdownWr(at)),
        1 => Just(Step::ShutdownRd(at)),
        3 => Just(Step::SetFlags(at)),
        1 => Just(Step::Overflow),
        1 => Just(Step::Reopen(at)),
        1 => select(&At::ALL[..]).prop_map(move |to| Step::Dup(at, to)),
        1 => select(&End::ALL[..]).prop_map(move |end| Step::Enlarge(at, end)),
        1 => Just(Step::TakeSignals(at)),
    ]
}
