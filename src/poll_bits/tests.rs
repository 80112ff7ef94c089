//! Clause H3 against the table of the contract, in every combination.

use super::*;

/// The bits of poll(2) that mean anything here, by their names in the table.
const BITS: [(&str, PollBits); 9] = [
    ("IN", PollBits::IN),
    ("OUT", PollBits::OUT),
    ("PRI", PollBits::PRI),
    ("RDHUP", PollBits::RDHUP),
    ("HUP", PollBits::HUP),
    ("ERR", PollBits::ERR),
    ("NVAL", PollBits::NVAL),
    ("RDBAND", PollBits::READ_BANDS),
    ("WRBAND", PollBits::WRITE_BANDS),
];

/// The meaning of a bit for READABLE, WRITABLE and PRIORITY; `-` is nothing.
const DESIGN: &str = "
    IN    | READABLE             | -                      | -
    OUT   | -                    | WRITABLE               | -
    PRI   | -                    | -                      | PRIORITY
    RDHUP | READABLE+READ_CLOSED | -                      | READ_CLOSED
    HUP   | READABLE+READ_CLOSED | WRITABLE+WRITE_CLOSED  | READ_CLOSED
    ERR   | READABLE+ERROR       | WRITABLE+ERROR+UNLESS  | ERROR
    NVAL  | READABLE+ERROR       | WRITABLE+ERROR+UNLESS  | ERROR
    RDBAND | READABLE            | -                      | -
    WRBAND | -                   | WRITABLE               | -
";

fn all_bits() -> impl Iterator<Item = PollBits> {
    (0..1_u16 << BITS.len()).map(|pick| {
        let picked = BITS.iter().enumerate().filter(|(at, _)| pick & 1 << at != 0);
        picked.fold(PollBits::empty(), |bits, (_, (_, bit))| bits | *bit)
    })
}

fn all_interests() -> impl Iterator<Item = Interest> {
    (0..8).map(Interest::from_bits_truncate)
}

/// Returns the bits to request from poll(2) for `dirs` (the man page, and clause H2).
fn asked(dirs: Interest) -> PollBits {
    let mut bits = PollBits::empty();
    bits.set(PollBits::IN | PollBits::READ_BANDS, dirs.contains(Interest::READABLE));
    bits.set(PollBits::OUT | PollBits::WRITE_BANDS, dirs.contains(Interest::WRITABLE));
    bits.set(PollBits::PRI, dirs.contains(Interest::PRIORITY));
    bits.set(PollBits::RDHUP, dirs.intersects(Interest::READABLE | Interest::PRIORITY));
    bits
}

/// Returns the answer of poll(2) for `dirs` and a file in the state `bits`.
fn shown(bits: PollBits, dirs: Interest) -> PollBits {
    bits & (asked(dirs) | PollBits::HUP | PollBits::ERR | PollBits::NVAL)
}

/// Reads the table, cell by cell.
fn by_design(bits: PollBits, dirs: Interest) -> Readiness {
    let shown = shown(bits, dirs);
    let mut readiness = Readiness::empty();
    for line in DESIGN.lines().filter(|line| line.contains('|')) {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        let (_, bit) = BITS.iter().find(|(name, _)| *name == cells[0]).expect("it has a name");
        let asking = [Interest::READABLE, Interest::WRITABLE, Interest::PRIORITY];
        for (cell, dir) in cells[1..].iter().zip(asking) {
            if shown.contains(*bit) && dirs.contains(dir) {
                readiness |= cell.split('+').map(|name| flag(name, shown)).collect();
            }
        }
    }
    readiness
}

fn flag(name: &str, shown: PollBits) -> Readiness {
    match name {
        "-" => Readiness::empty(),
        "UNLESS" if shown.contains(PollBits::IN) => Readiness::empty(),
        "UNLESS" => Readiness::WRITE_CLOSED,
        name => Readiness::from_name(name).expect("a flag"),
    }
}

#[test]
fn readiness_matches_the_table() {
    let mut combinations = 0;
    for bits in all_bits() {
        for dirs in all_interests() {
            assert_eq!(bits.readiness(dirs), by_design(bits, dirs), "{bits:?} to {dirs:?}");
            combinations += 1;
        }
    }
    assert_eq!(combinations, 4096);
}

#[test]
fn unknown_bits_are_ignored() {
    let others = !BITS.iter().fold(0, |bits, (_, bit)| bits | bit.bits());
    for bits in all_bits() {
        let noisy = PollBits::from_bits_retain(bits.bits() | others);
        for dirs in all_interests() {
            assert_eq!(noisy.readiness(dirs), bits.readiness(dirs));
            assert_eq!(noisy.ready(dirs), bits.ready(dirs));
        }
    }
}

#[test]
fn asked_requests_the_bits_of_the_table() {
    for dirs in all_interests() {
        assert_eq!(PollBits::asked(dirs), asked(dirs), "{dirs:?}");
    }
}

/// Otherwise a level-triggered kernel would end every wait without a report.
#[test]
fn direction_is_ready_exactly_when_poll_returns() {
    for bits in all_bits() {
        for dirs in all_interests() {
            let answers = |dir: &Interest| !shown(bits, *dir).is_empty();
            let expected = dirs.iter().filter(answers).collect::<Interest>();
            assert_eq!(bits.ready(dirs), expected, "{bits:?} to {dirs:?}");
            let silent = dirs.is_empty() || shown(bits, dirs).is_empty();
            assert_eq!(bits.ready(dirs).is_empty(), silent, "{bits:?} to {dirs:?} together");
            assert_eq!(bits.readiness(dirs).is_empty(), silent, "{bits:?} to {dirs:?} as an event");
        }
    }
}

#[test]
fn ready_directions_have_the_whole_readiness() {
    for bits in all_bits() {
        for dirs in all_interests() {
            assert_eq!(bits.readiness(bits.ready(dirs)), bits.readiness(dirs), "{bits:?}");
        }
    }
}

#[test]
fn bits_equal_the_constants_of_libc() {
    let numbers = [
        libc::POLLIN,
        libc::POLLOUT,
        libc::POLLPRI,
        libc::POLLRDHUP,
        libc::POLLHUP,
        libc::POLLERR,
        libc::POLLNVAL,
        libc::POLLRDNORM | libc::POLLRDBAND,
        libc::POLLWRNORM | libc::POLLWRBAND,
    ];
    assert_eq!(BITS.map(|(_, bit)| bit.bits()), numbers.map(|number| number as u16));
    let epoll = [libc::EPOLLIN, libc::EPOLLOUT, libc::EPOLLPRI, libc::EPOLLRDHUP, libc::EPOLLHUP];
    assert_eq!(epoll.map(|number| number as u16)[..], numbers.map(|number| number as u16)[..5]);
    assert_eq!(libc::EPOLLERR as u16, PollBits::ERR.bits());
}

/// `ready` uses its own table, derived from that of `readiness`.
#[test]
fn ready_and_readiness_agree() {
    for bits in 0..=u16::MAX {
        let bits = PollBits::from_bits_retain(bits);
        for dirs in (0..8).map(Interest::from_bits_retain) {
            let expected = dirs.iter().filter(|&dir| !bits.readiness(dir).is_empty());
            assert_eq!(bits.ready(dirs), expected.collect(), "{bits:?} {dirs:?}");
        }
    }
}
