//! The seeds that one mechanism is the reason for, each of which needs care that others don't.

use quintpoll_fuzz::script::{At::*, Dirs::*, End::*, How::*, Step, Step::*};

/// With SIGIO nobody hears of it, until the other side is heard or the program asks. What has room
/// to write, and is watched for it, is looked at anyway.
pub(super) const OWN_SHUTDOWN_IS_UNHEARD: &[Step] = &[
    Register(C, R, Edge),
    Register(A, R, Level),
    Register(B, RW, Level),
    Wait0,
    ShutdownRd(C),
    ShutdownRd(A),
    ShutdownRd(B),
    Wait0,
    Rearm(A, R),
    Wait0,
    PeerShutdownWr(C),
    Wait0,
    Wait0,
];

/// A file that was made to signal no more does so again when it is armed.
pub(super) const SILENT_UNTIL_REARMED: &[Step] = &[
    Register(A, R, Edge),
    Register(B, W, Level),
    Register(C, R, OneShot),
    Wait0,
    SetFlags(A),
    SetFlags(B),
    SetFlags(C),
    FillWrite(B),
    PeerWrite(A, 0),
    PeerWrite(C, 0),
    PeerDrain(B),
    Wait0,
    Rearm(A, R),
    Rearm(B, W),
    Rearm(C, R),
    Wait0,
    DrainRead(A),
    PeerWrite(A, 0),
    Wait0,
];

/// A description signals one of its numbers; the others are looked at, and remain so when it goes.
pub(super) const DOUBLE_HAS_NO_SIGNALS: &[Step] = &[
    Register(A, R, Edge),
    Dup(A, B),
    Dup(A, C),
    Register(B, R, Edge),
    Register(C, R, Level),
    Wait0,
    PeerWrite(A, 0),
    Wait0,
    PeerWrite(A, 0),
    Wait0,
    Deregister(A),
    PeerWrite(B, 0),
    Wait0,
    Rearm(C, R),
    Wait0,
    Wait0,
    DrainRead(B),
    PeerWrite(B, 0),
    Wait0,
    Deregister(C),
    Modify(B, R, Level),
    Wait0,
    Rearm(B, R),
    Wait0,
    Wait0,
];

/// Room to write is looked at until it was reported; what is left is known by signals.
pub(super) const SIGNALS_WHEN_READS_ARE_LEFT: &[Step] = &[
    Register(A, RW, Edge),
    Register(B, RW, OneShot),
    Wait0,
    PeerWrite(A, 0),
    Wait0,
    DrainRead(A),
    FillWrite(A),
    PeerWrite(A, 0),
    PeerDrain(A),
    Wait0,
    Wait0,
    Rearm(B, R),
    Wait0,
    PeerClose(B),
    Wait0,
    Rearm(B, RW),
    Wait0,
];

/// select(2) shows no hang-up to those who only want to write, nor to those who wait for PRI.
pub(super) const HANG_UP_OF_WRITERS: &[Step] = &[
    Register(A, W, Level),
    FillWrite(A),
    Register(B, W, OneShot),
    FillWrite(B),
    Register(C, P, Edge),
    Wait0,
    PeerShutdownWr(C),
    Wait0,
    Wait0,
    ShutdownWr(A),
    PeerShutdownWr(A),
    Wait0,
    Rearm(B, W),
    PeerClose(B),
    WaitShort(20),
    Modify(A, R, Level),
    Wait0,
];

/// As before, of those who wanted to read until that was reported. A mechanism watches what is left
/// from the next wait on, and what has happened until then counts.
pub(super) const BLIND_SINCE_A_REPORT: &[Step] = &[
    Register(A, RP, Edge),
    FillWrite(D),
    Register(D, RW, Edge),
    PeerWrite(A, 0),
    PeerWrite(D, 0),
    Wait0,
    PeerShutdownWr(A),
    ShutdownWr(D),
    PeerShutdownWr(D),
    Wait0,
    Wait0,
];

/// Somebody's many reports stand before the others'.
pub(super) const REPORTS_BEYOND_ONE_READ: &[Step] = &[
    Register(A, R, Level),
    Register(C, R, Edge),
    Register(B, W, OneShot),
    FillWrite(B),
    Wait0,
    PeerTrickle(A),
    PeerWrite(C, 0),
    PeerClose(B),
    Wait0,
    DrainRead(A),
    PeerTrickle(A),
    Wait0,
];

/// Whoever may have been missed is looked at, once.
pub(super) const OVERFLOW_LOOKS_AGAIN: &[Step] = &[
    Register(A, R, Edge),
    Register(B, R, Level),
    Register(D, RW, Edge),
    Wait0,
    ShutdownRd(B),
    PeerWrite(A, 0),
    Overflow,
    Wait0,
    Wait0,
    Overflow,
    Overflow,
    Wait0,
    Wait0,
    Overflow,
];

/// A write that succeeds between the look that found no room and the other side's reading takes
/// the kernel's note that somebody waits for room.
pub(super) const ROOM_TAKEN_BEFORE_THERE_IS_MUCH: &[Step] = &[
    Register(A, RW, Edge),
    Register(B, W, Edge),
    Register(C, RW, Level),
    Register(D, RW, OneShot),
    Wait0,
    Rearm(D, RW),
    FillWrite(A),
    FillWrite(B),
    FillWrite(C),
    FillWrite(D),
    Wait0,
    PeerRead(A, 255),
    PeerRead(B, 255),
    PeerRead(C, 255),
    PeerRead(D, 255),
    Write(A, 0),
    Write(B, 0),
    Write(C, 0),
    Write(D, 0),
    PeerDrain(A),
    PeerDrain(B),
    PeerDrain(C),
    PeerDrain(D),
    Wait0,
    Wait0,
];

/// Room that comes without any reading.
pub(super) const PIPE_MADE_LARGER: &[Step] = &[
    FillWrite(A),
    FillWrite(B),
    FillWrite(C),
    Register(A, W, Edge),
    Register(B, RW, Level),
    Register(C, W, OneShot),
    Wait0,
    Enlarge(A, Here),
    Enlarge(B, There),
    Enlarge(C, There),
    Enlarge(E, Here),
    Wait0,
    Wait0,
    FillWrite(A),
    PeerDrain(A),
    Wait0,
];

/// Of who waits for nothing but room nothing is watched when that was reported, and it is still
/// known how it is watched: what was spent is silent, what was drained is heard.
pub(super) const WRITERS_ALONE: &[Step] = &[
    Register(B, W, Edge),
    Register(A, W, OneShot),
    Register(E, W, OneShot),
    PeerClose(E),
    Wait0,
    WaitShort(255),
    FillWrite(B),
    Wait0,
    PeerRead(B, 0),
    PeerDrain(B),
    Wait0,
    WaitShort(255),
    Rearm(A, W),
    Wait0,
    WaitShort(255),
];

/// Somebody else's signals are none of ours: from the next arming on the file is looked at, and
/// what was reported is not told again for that reason alone.
pub(super) const SIGNALS_GIVEN_AWAY: &[Step] = &[
    Register(A, RW, Edge),
    PeerWrite(A, 0),
    Wait0,
    TakeSignals(A),
    Wait0,
    Register(E, R, Level),
    Register(C, RW, Edge),
    Wait0,
    TakeSignals(E),
    TakeSignals(C),
    Rearm(E, R),
    PeerWrite(E, 0),
    Wait0,
    Wait0,
    PeerWrite(C, 0),
    Rearm(C, R),
    Wait0,
    Wait0,
    DrainRead(C),
    PeerWrite(C, 0),
    Wait0,
    Deregister(E),
    Register(E, R, Edge),
    Wait0,
];
