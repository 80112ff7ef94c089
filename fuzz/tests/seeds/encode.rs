//! Scripts as the data that `arbitrary` reads back: a derived enum takes four bytes, scales them to
//! its number of variants, and goes on with the fields.

use quintpoll_fuzz::script::{At, Dirs, End, How, Kind, Room, Script, Step};

/// The data for a script.
pub(crate) fn script(script: &Script) -> Vec<u8> {
    let kinds = script.kinds.iter().flat_map(|&kind| choice(kind as u32, Kind::ALL.len()));
    let steps = script.steps.iter().flat_map(|&step| self::step(step));
    kinds.chain(steps).collect()
}

/// The least number that is scaled to this variant.
fn choice(variant: u32, variants: usize) -> [u8; 4] {
    let number = (u64::from(variant) << 32).div_ceil(variants as u64);
    u32::try_from(number).expect("a variant is below their number").to_le_bytes()
}

fn at(at: At) -> [u8; 4] {
    choice(at as u32, At::ALL.len())
}

fn dirs(dirs: Dirs) -> [u8; 4] {
    choice(dirs as u32, Dirs::ALL.len())
}

fn how(how: How) -> [u8; 4] {
    choice(how as u32, How::ALL.len())
}

/// How many steps there are.
const STEPS: usize = 28;

fn step(step: Step) -> Vec<u8> {
    let (variant, fields) = match step {
        Step::Wait0 => (0, vec![]),
        Step::WaitShort(number) => (1, vec![number]),
        Step::WaitInterrupted(number) => (2, vec![number]),
        Step::SetCapacity(room) => (3, choice(room as u32, Room::ALL.len()).to_vec()),
        Step::Wake => (4, vec![]),
        Step::Register(a, d, h) => (5, [at(a), dirs(d), how(h)].concat()),
        Step::Modify(a, d, h) => (6, [at(a), dirs(d), how(h)].concat()),
        Step::Rearm(a, d) => (7, [at(a), dirs(d)].concat()),
        Step::Drained(a, d) => (8, [at(a), dirs(d)].concat()),
        Step::Deregister(a) => (9, at(a).to_vec()),
        Step::PeerWrite(a, number) => (10, [&at(a)[..], &[number]].concat()),
        Step::PeerTrickle(a) => (11, at(a).to_vec()),
        Step::PeerRead(a, number) => (12, [&at(a)[..], &[number]].concat()),
        Step::PeerDrain(a) => (13, at(a).to_vec()),
        Step::PeerShutdownWr(a) => (14, at(a).to_vec()),
        Step::PeerClose(a) => (15, at(a).to_vec()),
        Step::Read(a, number) => (16, [&at(a)[..], &[number]].concat()),
        Step::DrainRead(a) => (17, at(a).to_vec()),
        Step::Write(a, number) => (18, [&at(a)[..], &[number]].concat()),
        Step::FillWrite(a) => (19, at(a).to_vec()),
        Step::ShutdownWr(a) => (20, at(a).to_vec()),
        Step::ShutdownRd(a) => (21, at(a).to_vec()),
        Step::SetFlags(a) => (22, at(a).to_vec()),
        Step::Overflow => (23, vec![]),
        Step::Reopen(a) => (24, at(a).to_vec()),
        Step::Dup(a, b) => (25, [at(a), at(b)].concat()),
        Step::Enlarge(a, end) => (26, [at(a), choice(end as u32, End::ALL.len())].concat()),
        Step::TakeSignals(a) => (27, at(a).to_vec()),
    };
    [&choice(variant, STEPS)[..], &fields].concat()
}
