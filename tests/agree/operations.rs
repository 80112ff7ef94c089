//! Agreement of all five backends on operations: submits, cancels, deadlines and drops.
//!
//! The scripts are those of the fuzz target `operations`, and a few written by hand. A failure
//! prints the shortest script as a test to paste in below.

use crate::fuzz::ops::decode;
use crate::fuzz::ops::script::*;
use crate::fuzz::ops::together::{Tally, play_together};
use crate::{fd_count, runner};
use proptest::prelude::*;
use proptest::sample::select;
use std::cell::RefCell;
use std::path::Path;
use std::time::{Duration, Instant};

/// The number of scripts, which take a few seconds in a debug build.
const SCRIPTS: u32 = 220;

/// The time for shrinking a failing script. One with waits that time out is slow.
const SHRINK_TIME: Duration = Duration::from_secs(120);

/// The results of operations, each of which some script must show.
const ENDS: [&str; 15] = [
    "done",
    "silent",
    "more",
    "EINVAL",
    "ENOENT",
    "EISDIR",
    "EEXIST",
    "ECANCELED",
    "TimedOut",
    "UnexpectedEof",
    "EPIPE",
    "ECONNRESET",
    "ECONNREFUSED",
    "EBADF",
    "ENOTSOCK",
];

/// Runs a script on all backends. Each must end `times` operations with the result `how`, in both
/// modes of the runner.
fn replay(script: &Script, how: &str, times: usize) {
    let tally = fd_count::with_fd_counts(|| play_together(script));
    let tally = tally.unwrap_or_else(|divergence| panic!("{divergence}"));
    let players = tally.players / 2;
    let ended = tally.ended.get(how).copied().unwrap_or_default();
    assert_eq!(ended, 2 * players * times, "{how} by {players} players:\n{tally}");
}

/// Runs the seeds of the fuzz target.
#[test]
fn seeds_of_operations() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds/operations");
    for seed in std::fs::read_dir(seeds).expect("the seeds are there") {
        let path = seed.expect("a directory can be read").path();
        let script = decode(&std::fs::read(&path).expect("a seed can be read"));
        let script = script.expect("a seed is a script");
        let played = fd_count::with_fd_counts(|| play_together(&script));
        played.unwrap_or_else(|divergence| panic!("{}: {divergence}", path.display()));
    }
}

#[test]
fn random_operations() {
    let tally = RefCell::new(Tally::default());
    let outcome = runner::run(SCRIPTS, &scripts(), |script| {
        let more = together(script)?;
        *tally.borrow_mut() += more;
        Ok(())
    });
    println!("{}", tally.borrow());
    outcome.unwrap_or_else(|(reason, script)| {
        let started = Instant::now();
        let is_time = || started.elapsed() < SHRINK_TIME;
        let script = script.shortened(|shorter| is_time() && together(shorter).is_err());
        let reason = together(&script).err().unwrap_or(reason);
        panic!("{reason}\nas a test:\n{}", script.as_test());
    });
    let tally = tally.into_inner();
    let missing = ENDS.iter().find(|&&how| !tally.ended.contains_key(how));
    // A small number of scripts need not show every result.
    assert!(
        missing.is_none() || tally.scripts < SCRIPTS as usize,
        "no operation ended with {missing:?}"
    );
    // The sizes of TCP segments are random, and are not compared.
    assert!(tally.compared > 12 * tally.left_out, "too few results were compared");
}

/// A queued operation is always cancelled, and the one behind it moves up.
#[test]
fn cancelled_in_the_queue() {
    use Limit::Unlimited;
    use Step::*;
    let steps = vec![
        Submit(At::A, Verb::RecvExact, 4, Unlimited),
        Submit(At::A, Verb::Recv, 5, Unlimited),
        Submit(At::A, Verb::Recv, 6, Unlimited),
        Cancel(1),
        // Half of what the first requests, then all that the third requests too.
        PeerWrite(At::A, 3),
        Quiet,
        PeerWrite(At::A, 6),
        Quiet,
    ];
    let script = Script { kinds: [Kind::Stream; PLACES], extras: 0, guest: 0, steps };
    replay(&script, "ECANCELED", 1);
    replay(&script, "done", 2);
}

/// A cancelled operation reports the bytes it moved, and the next continues after them.
#[test]
fn cancelled_half_way() {
    use Limit::{Soon, Unlimited};
    use Step::*;
    let steps = vec![
        PeerWrite(At::B, 3),
        Submit(At::B, Verb::RecvExact, 6, Soon),
        Quiet,
        Submit(At::B, Verb::RecvExact, 3, Unlimited),
        PeerWrite(At::B, 5),
        Quiet,
        Submit(At::C, Verb::SendAll, 15, Unlimited),
        Quiet,
        Cancel(0),
        Quiet,
        PeerDrain(At::C),
    ];
    let script =
        Script { kinds: [Kind::Stream, Kind::Tcp, Kind::Stream], extras: 0, guest: 0, steps };
    replay(&script, "TimedOut", 1);
    replay(&script, "done", 1);
    replay(&script, "ECANCELED", 1);
}

/// A `send_all` that takes several calls is contiguous: no byte of the next is in between.
#[test]
fn sends_fill_available_space() {
    use Limit::Unlimited;
    use Step::*;
    let mut steps = vec![
        Submit(At::A, Verb::SendAll, 14, Unlimited),
        Submit(At::A, Verb::SendAll, 15, Unlimited),
        Submit(At::A, Verb::ShutdownWrite, 0, Unlimited),
        Submit(At::A, Verb::Write, 0, Unlimited),
        PeerRead(At::A, 10),
    ];
    // Far more often than the buffers fill.
    steps.extend([Quiet, PeerDrain(At::A)].repeat(16));
    let script = Script { kinds: [Kind::Stream; PLACES], extras: 0, guest: 0, steps };
    replay(&script, "EPIPE", 1);
}

/// A dropped poller consumes nothing but what its operations moved.
#[test]
fn poller_dropped_with_busy_queues() {
    use Limit::Unlimited;
    use Step::*;
    let steps = vec![
        Submit(At::A, Verb::SendAll, 15, Unlimited),
        Submit(At::A, Verb::RecvExact, 8, Unlimited),
        PeerWrite(At::A, 7),
        Quiet,
        NewPoller,
        Submit(At::A, Verb::Send, 0, Unlimited),
        PeerWrite(At::A, 0),
        Submit(At::A, Verb::Read, 0, Unlimited),
        Quiet,
    ];
    let script = Script { kinds: [Kind::Stream; PLACES], extras: 0, guest: 0, steps };
    replay(&script, "done", 2);
}

/// A receive that a shutdown has ended may be delivered after the next datagram, which it leaves in
/// the socket. On io_uring one run in a hundred shows this.
#[test]
fn udp_receive_ended_before_the_next_datagram() {
    use Limit::Unlimited;
    use Step::*;
    let steps = vec![
        Submit(At::A, Verb::RecvMsg, 0, Unlimited),
        Submit(At::A, Verb::ShutdownRead, 0, Unlimited),
        Submit(At::C, Verb::RecvMsg, 14, Unlimited),
        Reopen(At::C),
        PeerPass(At::A, 15),
        Quiet,
        Submit(At::A, Verb::Recv, 14, Unlimited),
        Quiet,
    ];
    let kinds = [Kind::Udp, Kind::Stream, Kind::Stream];
    let script = Script { kinds, extras: 0, guest: 0, steps };
    (0..40).for_each(|_| replay(&script, "ECANCELED", 1));
}

/// On io_uring this write did not complete while splices left their pipes blocking.
#[test]
fn empty_write_behind_a_splice_to_a_full_pipe() {
    let script = Script {
        kinds: [Kind::PipeWrite, Kind::Stream, Kind::Stream],
        extras: 0,
        guest: 0,
        steps: vec![
            Step::Submit(At::A, Verb::Write, 1, Limit::Unlimited),
            Step::Splice(At::B, At::A, 78, Limit::Unlimited),
            Step::Submit(At::A, Verb::Write, 173, Limit::Unlimited),
            Step::PeerWrite(At::B, 94),
        ],
    };
    together(&script).expect("agreement of all backends");
}

fn together(script: &Script) -> Result<Tally, String> {
    runner::catch(|| {
        fd_count::with_fd_counts(|| play_together(script))
            .map_err(|divergence| divergence.to_string())
    })
}

fn scripts() -> impl Strategy<Value = Script> {
    let kind = prop_oneof![1 => Just(Kind::Stream), 3 => select(&Kind::ALL[..])];
    let kinds = prop::array::uniform3(kind);
    let steps = prop::collection::vec(step(), 10..=40);
    let parts = (kinds, any::<u8>(), any::<u8>(), steps);
    parts.prop_map(|(kinds, extras, guest, steps): ([Kind; PLACES], _, _, Vec<Step>)| {
        let steps = steps.into_iter().map(|step| fitting(step, &kinds)).collect();
        Script { kinds, extras, guest, steps }
    })
}

/// Prefers verbs that do not fail on a pipe, and sends that must wait for space.
fn fitting(step: Step, kinds: &[Kind; PLACES]) -> Step {
    let Step::Submit(at, verb, number, limit) = step else { return step };
    let verb = match kinds[at.index()] {
        _ if number % 16 == 0 => verb,
        Kind::PipeRead => Verb::Read,
        Kind::PipeWrite => Verb::Write,
        _ => verb,
    };
    let sends = verb.sends();
    // The largest two amounts.
    let number = if sends && number % 3 == 0 { number | 14 } else { number };
    Step::Submit(at, verb, number, limit)
}

/// Generates a step, most of which have an effect.
fn step() -> impl Strategy<Value = Step> {
    let at = || select(&At::ALL[..]);
    let verb = prop_oneof![3 => Just(Verb::Recv), 4 => Just(Verb::Send), 4 => Just(Verb::RecvExact),
        3 => Just(Verb::SendAll), 5 => Just(Verb::Read), 5 => Just(Verb::Write),
        1 => Just(Verb::ShutdownWrite), 1 => Just(Verb::ShutdownRead),
        1 => Just(Verb::ShutdownBoth), 5 => Just(Verb::RecvMulti), 2 => Just(Verb::RecvFrom),
        2 => Just(Verb::SendTo), 4 => Just(Verb::RecvMsg), 4 => Just(Verb::SendMsg)];
    let number = || any::<u8>();
    // Mostly one of the last few.
    let back = prop_oneof![6 => 0_u8..6, 1 => any::<u8>()];
    let dirs = select(&[Dirs::R, Dirs::W, Dirs::RW, Dirs::Nothing][..]);
    let capacity = select(&Room::ALL[..]);
    prop_oneof![
        30 => (at(), verb, number(), limit()).prop_map(|(a, v, n, l)| Step::Submit(a, v, n, l)),
        12 => (at(), number()).prop_map(|(at, number)| Step::PeerWrite(at, number)),
        8 => (at(), number()).prop_map(|(at, number)| Step::PeerRead(at, number)),
        5 => at().prop_map(Step::PeerDrain),
        7 => Just(Step::Wait0),
        4 => Just(Step::Quiet),
        8 => back.prop_map(Step::Cancel),
        1 => Just(Step::Nop),
        2 => limit().prop_map(Step::Timeout),
        1 => capacity.prop_map(Step::SetRoom),
        4 => (at(), dirs).prop_map(|(at, dirs)| Step::Watch(at, dirs)),
        2 => at().prop_map(Step::Deregister),
        3 => at().prop_map(Step::Register),
        1 => at().prop_map(Step::PeerShutdown),
        1 => at().prop_map(Step::PeerClose),
        2 => at().prop_map(Step::Reopen),
        1 => Just(Step::NewPoller),
        5 => (at(), at(), number(), limit()).prop_map(|(a, b, n, l)| Step::Splice(a, b, n, l)),
        4 => (at(), number()).prop_map(|(at, number)| Step::PeerPass(at, number)),
        2 => any::<bool>().prop_map(Step::Keep),
        3 => (0_u8..8).prop_map(Step::GiveBack),
        1 => Just(Step::Take),
        9 => listener_step().prop_map(Step::Door),
        9 => disk_step().prop_map(Step::Disk),
    ]
}

fn limit() -> impl Strategy<Value = Limit> {
    prop_oneof![20 => Just(Limit::Unlimited), 2 => Just(Limit::Long), 1 => Just(Limit::Soon),
        2 => Just(Limit::Past)]
}

fn listener_step() -> impl Strategy<Value = Knock> {
    prop_oneof![
        4 => limit().prop_map(Knock::Accept),
        2 => limit().prop_map(Knock::AcceptMulti),
        6 => Just(Knock::Come),
        3 => limit().prop_map(Knock::Connect),
        2 => any::<u8>().prop_map(Knock::Leave),
        2 => any::<u8>().prop_map(Knock::Reset),
        1 => Just(Knock::Deregister),
        2 => Just(Knock::Register),
    ]
}

fn disk_step() -> impl Strategy<Value = Job> {
    let number = || any::<u8>();
    prop_oneof![
        4 => (number(), number(), limit()).prop_map(|(at, n, l)| Job::ReadAt(at, n, l)),
        4 => (number(), number(), limit()).prop_map(|(at, n, l)| Job::WriteAt(at, n, l)),
        2 => (number(), number()).prop_map(|(at, n)| Job::ReadVectored(at, n)),
        2 => (number(), number()).prop_map(|(at, n)| Job::WriteVectored(at, n)),
        6 => (number(), limit()).prop_map(|(n, l)| Job::Read(n, l)),
        6 => (number(), limit()).prop_map(|(n, l)| Job::Write(n, l)),
        1 => Just(Job::Sync),
        1 => Just(Job::SyncData),
        2 => number().prop_map(Job::Open),
    ]
}
