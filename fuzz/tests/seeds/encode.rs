//! Scripts as the data that `arbitrary` reads back: a derived enum takes four bytes, scales them to
//! its number of variants, and goes on with the fields.

use quintpoll_fuzz::script::{At, Dirs, End, How, Kind, Room, Script, Step};

/// The data for `decode`: the byte that chooses the column, then the script.
pub(crate) fn encode(column: u8, script: &Script) -> Vec<u8> {
    let kinds = script.kinds.iter().flat_map(|&kind| choice(kind as u32, Kind::ALL.len()));
    let steps = script.steps.iter().flat_map(|&step| self::step(step));
    std::iter::once(column).chain(kinds).chain(steps).collect()
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
const STEPS: usize = 27;

fn step(step: Step) -> Vec<u8> {
    let (variant, fields) = match step {
        Step::Wait0 => (0, vec![]),
        Step::WaitShort(number) => (1, vec![number]),
        Step::SetCapacity(room) => (2, choice(room as u32, Room::ALL.len()).to_vec()),
        Step::Wake => (3, vec![]),
        Step::Register(a, d, h) => (4, [at(a), dirs(d), how(h)].concat()),
        Step::Modify(a, d, h) => (5, [at(a), dirs(d), how(h)].concat()),
        Step::Rearm(a, d) => (6, [at(a), dirs(d)].concat()),
        Step::Drained(a, d) => (7, [at(a), dirs(d)].concat()),
        Step::Deregister(a) => (8, at(a).to_vec()),
        Step::PeerWrite(a, number) => (9, [&at(a)[..], &[number]].concat()),
        Step::PeerTrickle(a) => (10, at(a).to_vec()),
        Step::PeerRead(a, number) => (11, [&at(a)[..], &[number]].concat()),
        Step::PeerDrain(a) => (12, at(a).to_vec()),
        Step::PeerShutdownWr(a) => (13, at(a).to_vec()),
        Step::PeerClose(a) => (14, at(a).to_vec()),
        Step::Read(a, number) => (15, [&at(a)[..], &[number]].concat()),
        Step::DrainRead(a) => (16, at(a).to_vec()),
        Step::Write(a, number) => (17, [&at(a)[..], &[number]].concat()),
        Step::FillWrite(a) => (18, at(a).to_vec()),
        Step::ShutdownWr(a) => (19, at(a).to_vec()),
        Step::ShutdownRd(a) => (20, at(a).to_vec()),
        Step::SetFlags(a) => (21, at(a).to_vec()),
        Step::Overflow => (22, vec![]),
        Step::Reopen(a) => (23, at(a).to_vec()),
        Step::Dup(a, b) => (24, [at(a), at(b)].concat()),
        Step::Enlarge(a, end) => (25, [at(a), choice(end as u32, End::ALL.len())].concat()),
        Step::TakeSignals(a) => (26, at(a).to_vec()),
    };
    [&choice(variant, STEPS)[..], &fields].concat()
}
