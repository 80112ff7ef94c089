//! The seeds of `backends_agree` in words: where mechanisms have most to say in their own way.

use super::scripts::{Kinds, MIXED, PIPES, SOCKETS, STREAMS};
use quintpoll_fuzz::script::{
    At::*, Dirs::*, End::*, How::*, Kind::*, PLACES, Room::*, Script, Step, Step::*,
};

/// All of them, by the names of their files.
pub(crate) fn all() -> impl Iterator<Item = (&'static str, Script)> {
    let all: [(&str, Kinds, &[Step]); 8] = [
        ("three_modes_of_one_file", STREAMS, THREE_MODES_OF_ONE_FILE),
        ("ends_of_pipes", PIPES, ENDS_OF_PIPES),
        ("ends_of_sockets", SOCKETS, ENDS_OF_SOCKETS),
        ("datagrams_without_end", DATAGRAMS, DATAGRAMS_WITHOUT_END),
        ("room_for_one_of_each_mode", MIXED, ROOM_FOR_ONE_OF_EACH_MODE),
        ("refused_alike", MIXED, REFUSED_ALIKE),
        ("missed_until_rearmed", SOCKETS, MISSED_UNTIL_REARMED),
        ("signals_while_it_waits", MIXED, SIGNALS_WHILE_IT_WAITS),
    ];
    all.into_iter().map(|(name, kinds, steps)| (name, Script { kinds, steps: steps.to_vec() }))
}

const DATAGRAMS: Kinds = [Datagram; PLACES];

/// Numbers of one file, each watched in its own way.
const THREE_MODES_OF_ONE_FILE: &[Step] = &[
    Dup(A, B),
    Dup(A, C),
    Register(A, RW, Level),
    Register(B, RW, OneShot),
    Register(C, RW, Edge),
    Wait0,
    PeerWrite(A, 0),
    Wait0,
    Rearm(B, R),
    Wait0,
    DrainRead(C),
    FillWrite(A),
    Rearm(B, RW),
    Wait0,
    PeerDrain(A),
    Wait0,
    PeerClose(A),
    Wait0,
];

/// HUP without IN, ERR without OUT, ERR beside OUT.
const ENDS_OF_PIPES: &[Step] = &[
    Register(A, RWP, Level),
    Register(B, W, Level),
    Register(C, R, OneShot),
    Register(D, RW, OneShot),
    FillWrite(B),
    PeerWrite(C, 0),
    Wait0,
    PeerClose(A),
    PeerClose(B),
    PeerClose(C),
    PeerClose(D),
    Wait0,
    Rearm(C, R),
    Rearm(D, W),
    Wait0,
    DrainRead(C),
    Rearm(C, R),
    Modify(D, P, Level),
    Wait0,
];

/// Half closed on either side, on both, and closed with something unread.
const ENDS_OF_SOCKETS: &[Step] = &[
    Register(A, RW, Level),
    Register(B, P, Level),
    Register(C, W, OneShot),
    Register(D, RWP, OneShot),
    PeerShutdownWr(A),
    PeerShutdownWr(B),
    ShutdownWr(C),
    Write(D, 0),
    Wait0,
    ShutdownWr(A),
    ShutdownWr(B),
    PeerShutdownWr(C),
    PeerClose(D),
    Rearm(C, W),
    Rearm(D, RWP),
    Wait0,
    Read(D, 0),
    Rearm(D, RWP),
    Wait0,
];

/// The other side goes, and nobody sees it; a write does, and what had come is gone with it. An
/// end that the program makes itself is one, and yet a read would block.
const DATAGRAMS_WITHOUT_END: &[Step] = &[
    Register(A, RW, Level),
    Register(B, R, OneShot),
    Register(C, RW, Level),
    Register(D, RW, Edge),
    PeerWrite(A, 0),
    PeerWrite(B, 0),
    FillWrite(D),
    Wait0,
    PeerShutdownWr(C),
    PeerClose(A),
    PeerClose(B),
    PeerClose(D),
    Wait0,
    Write(A, 0),
    Rearm(B, R),
    Wait0,
    ShutdownRd(C),
    DrainRead(C),
    Rearm(C, RW),
    Wait0,
    ShutdownWr(C),
    Rearm(C, RW),
    Wait0,
    Reopen(B),
];

/// Everybody's turn comes, whatever the others are.
const ROOM_FOR_ONE_OF_EACH_MODE: &[Step] = &[
    SetCapacity(One),
    Register(A, R, OneShot),
    Register(B, RW, Level),
    Register(C, RW, Edge),
    Register(D, RW, Level),
    Register(E, RW, OneShot),
    PeerWrite(A, 0),
    PeerWrite(B, 0),
    PeerWrite(C, 0),
    Wait0,
    SetCapacity(Two),
    Rearm(A, R),
    Wake,
    WaitShort(20),
    PeerTrickle(B),
    Enlarge(A, There),
    Wait0,
];

const REFUSED_ALIKE: &[Step] = &[
    Modify(A, R, Level),
    Register(A, R, Level),
    Register(A, W, Edge),
    Rearm(A, RW),
    Drained(A, P),
    Deregister(A),
    Rearm(A, R),
    Deregister(A),
    Register(E, RW, Edge),
    Register(B, Nothing, Level),
    Rearm(B, R),
    Drained(B, Nothing),
    Wait0,
];

/// SIGIO may not hear what the program does itself, and says the same as all when it is asked.
const MISSED_UNTIL_REARMED: &[Step] = &[
    Register(A, R, Level),
    Register(B, R, OneShot),
    Register(C, R, Level),
    Wait0,
    ShutdownRd(A),
    ShutdownRd(B),
    SetFlags(C),
    PeerWrite(C, 0),
    Wait0,
    Rearm(A, R),
    Rearm(B, R),
    Rearm(C, R),
    Wait0,
    Overflow,
    Wait0,
];

const SIGNALS_WHILE_IT_WAITS: &[Step] = &[
    WaitInterrupted(100),
    Register(A, R, Level),
    Register(B, R, OneShot),
    WaitInterrupted(255),
    PeerWrite(A, 0),
    WaitInterrupted(255),
    DrainRead(A),
    Wake,
    WaitInterrupted(255),
    PeerClose(B),
    WaitInterrupted(0),
    WaitInterrupted(0),
];
