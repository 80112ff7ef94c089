//! The seeds in words: small scripts, each of which once was, or would be, somebody's bug.

use super::mechanisms::*;
use quintpoll_fuzz::script::{
    At::*, Dirs::*, How::*, Kind, Kind::*, PLACES, Room::*, Script, Step, Step::*,
};

pub(crate) type Kinds = [Kind; PLACES];

/// All of them, by the names of their files.
pub(crate) fn all() -> impl Iterator<Item = (&'static str, Script)> {
    let all: [(&str, Kinds, &[Step]); 33] = [
        ("stale_key", READERS, STALE_KEY),
        ("number_used_again", READERS, NUMBER_USED_AGAIN),
        ("double", MIXED, DOUBLE),
        ("moved_entry", STREAMS, MOVED_ENTRY),
        ("register_while_ready", MIXED, REGISTER_WHILE_READY),
        ("modify_looks_again", MIXED, MODIFY_LOOKS_AGAIN),
        ("one_shot_hang_up", MIXED, ONE_SHOT_HANG_UP),
        ("one_shot_in_parts", MIXED, ONE_SHOT_IN_PARTS),
        ("edge_drained_and_refilled", MIXED, EDGE_DRAINED_AND_REFILLED),
        ("edge_not_drained", MIXED, EDGE_NOT_DRAINED),
        ("one_at_a_time", STREAMS, ONE_AT_A_TIME),
        ("edges_wait_for_room", READERS, EDGES_WAIT_FOR_ROOM),
        ("drained_while_waiting", STREAMS, DRAINED_WHILE_WAITING),
        ("drained_in_front", STREAMS, DRAINED_IN_FRONT),
        ("gone_while_waiting", STREAMS, GONE_WHILE_WAITING),
        ("woken_beside_events", READERS, WOKEN_BESIDE_EVENTS),
        ("pipes_without_peers", PIPES, PIPES_WITHOUT_PEERS),
        ("sockets_close", SOCKETS, SOCKETS_CLOSE),
        ("empty_interest", MIXED, EMPTY_INTEREST),
        ("own_shutdown_is_unheard", SOCKETS, OWN_SHUTDOWN_IS_UNHEARD),
        ("silent_until_rearmed", PIPES, SILENT_UNTIL_REARMED),
        ("double_has_no_signals", READERS, DOUBLE_HAS_NO_SIGNALS),
        ("signals_when_reads_are_left", STREAMS, SIGNALS_WHEN_READS_ARE_LEFT),
        ("hang_up_of_writers", PIPES_AND_SOCKETS, HANG_UP_OF_WRITERS),
        ("blind_since_a_report", PIPES_AND_SOCKETS, BLIND_SINCE_A_REPORT),
        ("reports_beyond_one_read", PIPES, REPORTS_BEYOND_ONE_READ),
        ("overflow_looks_again", MIXED, OVERFLOW_LOOKS_AGAIN),
        ("room_taken_before_there_is_much", PIPES_AND_SOCKETS, ROOM_TAKEN_BEFORE_THERE_IS_MUCH),
        ("pipe_made_larger", WRITERS, PIPE_MADE_LARGER),
        ("writers_alone", PIPES_AND_SOCKETS, WRITERS_ALONE),
        ("signals_given_away", PIPES_AND_SOCKETS, SIGNALS_GIVEN_AWAY),
        ("datagram_finds_out", DATAGRAMS, DATAGRAM_FINDS_OUT),
        ("interrupted", MIXED, INTERRUPTED),
    ];
    all.into_iter().map(|(name, kinds, steps)| (name, Script { kinds, steps: steps.to_vec() }))
}

pub(super) const MIXED: Kinds = [PipeRead, Stream, Packet, Counter, Null];
const READERS: Kinds = [PipeRead, PipeRead, PipeRead, Stream, Stream];
pub(super) const STREAMS: Kinds = [Stream; PLACES];
pub(super) const PIPES: Kinds = [PipeRead, PipeWrite, PipeRead, PipeWrite, Counter];
const PIPES_AND_SOCKETS: Kinds = [Stream, PipeWrite, Stream, Packet, PipeRead];
const WRITERS: Kinds = [PipeWrite, PipeWrite, PipeWrite, PipeRead, Stream];
pub(super) const SOCKETS: Kinds = [Stream, Stream, Packet, Packet, Stream];

const DATAGRAMS: Kinds = [Datagram, Datagram, Datagram, Stream, PipeRead];

/// An old key must not reach the registration that took its slot.
const STALE_KEY: &[Step] = &[
    Register(A, R, Level),
    Deregister(A),
    Register(B, RW, Level),
    Modify(A, R, Edge),
    Rearm(A, R),
    Drained(A, R),
    Deregister(A),
    Wait0,
    Register(B, R, Level),
];

/// What the kernel had queued for the old file must not be charged to the new one.
const NUMBER_USED_AGAIN: &[Step] = &[
    Register(A, R, Edge),
    PeerWrite(A, 0),
    Reopen(A),
    Register(A, R, Edge),
    Wait0,
    PeerWrite(A, 0),
    Wait0,
];

/// A double is another source; closing it must not silence the original.
const DOUBLE: &[Step] = &[
    Register(A, R, Edge),
    Dup(A, B),
    Register(B, R, Level),
    PeerWrite(A, 0),
    Wait0,
    Reopen(B),
    DrainRead(A),
    PeerWrite(A, 0),
    Wait0,
];

/// Removal from the middle of a dense array moves another entry.
const MOVED_ENTRY: &[Step] = &[
    Register(A, R, Level),
    Register(B, R, Level),
    Register(C, R, Level),
    Deregister(A),
    Modify(C, W, Level),
    Wait0,
    Deregister(C),
    PeerWrite(B, 0),
    Wait0,
];

/// Present readiness counts, in every mode; and files to which nothing happens have it.
const REGISTER_WHILE_READY: &[Step] = &[
    PeerWrite(A, 0),
    PeerWrite(B, 0),
    Register(A, R, Edge),
    Register(B, R, OneShot),
    Register(C, W, Level),
    Register(E, RW, Edge),
    Wait0,
    Wait0,
    Rearm(E, R),
    Wait0,
];

/// An edge that was reported is there again after modify, under the new token.
const MODIFY_LOOKS_AGAIN: &[Step] = &[
    PeerWrite(A, 0),
    Register(A, R, Edge),
    Wait0,
    Modify(A, R, Edge),
    Wait0,
    Modify(A, R, OneShot),
    Wait0,
    Wait0,
];

/// A spent one-shot is silent about a hang-up too.
const ONE_SHOT_HANG_UP: &[Step] = &[
    Register(A, R, OneShot),
    PeerWrite(A, 0),
    Wait0,
    PeerClose(A),
    Wait0,
    WaitShort(20),
    Rearm(A, R),
    Wait0,
];

const ONE_SHOT_IN_PARTS: &[Step] = &[
    Register(B, RW, OneShot),
    PeerWrite(B, 0),
    Wait0,
    Rearm(B, W),
    Wait0,
    Rearm(B, R),
    Wait0,
    Rearm(B, RW),
    Rearm(B, W),
    Wait0,
    Rearm(B, Nothing),
    Wait0,
    Rearm(B, RWP),
];

const EDGE_DRAINED_AND_REFILLED: &[Step] = &[
    Register(B, RW, Edge),
    Wait0,
    PeerWrite(B, 0),
    Wait0,
    DrainRead(B),
    PeerWrite(B, 0),
    Wait0,
    FillWrite(B),
    PeerDrain(B),
    Wait0,
    Wait0,
];

/// `drained` where it is not true: a report is allowed, not owed.
const EDGE_NOT_DRAINED: &[Step] = &[
    PeerWrite(A, 0),
    Register(A, R, Edge),
    Wait0,
    Read(A, 0),
    PeerWrite(A, 1),
    Drained(A, R),
    Wait0,
    DrainRead(A),
    PeerWrite(A, 0),
    Wait0,
];

/// Everybody has his turn.
const ONE_AT_A_TIME: &[Step] = &[
    SetCapacity(One),
    Register(A, W, Level),
    Register(B, W, Level),
    Register(C, W, Level),
    Wait0,
    Wait0,
    Register(D, W, Level),
    Wait0,
    Wait0,
    Wait0,
    Wait0,
];

/// An edge is reported once by the kernel, and must not get lost for want of room.
const EDGES_WAIT_FOR_ROOM: &[Step] = &[
    SetCapacity(One),
    Register(A, R, Edge),
    Register(B, R, Edge),
    Register(C, R, OneShot),
    PeerWrite(A, 0),
    PeerWrite(B, 0),
    PeerWrite(C, 0),
    Wait0,
    Wait0,
    Wait0,
    Wait0,
];

/// What waits for room and is drained there is not reported, and is still watched.
const DRAINED_WHILE_WAITING: &[Step] = &[
    SetCapacity(One),
    Register(A, W, OneShot),
    Register(B, R, OneShot),
    PeerWrite(B, 0),
    Wait0,
    DrainRead(B),
    WaitShort(20),
    PeerWrite(B, 0),
    Wait0,
];

/// What proves false takes nobody's room.
const DRAINED_IN_FRONT: &[Step] = &[
    SetCapacity(One),
    Register(A, W, OneShot),
    Register(B, R, OneShot),
    Register(C, R, OneShot),
    PeerWrite(B, 0),
    PeerWrite(C, 0),
    Wait0,
    DrainRead(B),
    Wait0,
];

/// Most of the queue is gone; the rest must stay in it.
const GONE_WHILE_WAITING: &[Step] = &[
    SetCapacity(One),
    PeerWrite(A, 0),
    PeerWrite(B, 0),
    PeerWrite(C, 0),
    PeerWrite(D, 0),
    Register(A, R, Edge),
    Register(B, R, Edge),
    Register(C, R, Edge),
    Register(D, R, Edge),
    Wait0,
    Deregister(B),
    Deregister(C),
    Wait0,
    Wait0,
];

const WOKEN_BESIDE_EVENTS: &[Step] = &[
    Register(A, R, Level),
    PeerWrite(A, 0),
    Wake,
    Wake,
    Wait0,
    WaitShort(20),
    DrainRead(A),
    WaitShort(20),
    Wake,
    WaitShort(20),
];

/// A full pipe without its reader is ERR without OUT, an empty one without its writer HUP
/// without IN: ready all the same.
const PIPES_WITHOUT_PEERS: &[Step] = &[
    Register(A, R, Level),
    Register(B, W, Edge),
    Wait0,
    FillWrite(B),
    PeerClose(A),
    PeerClose(B),
    Wait0,
    WaitShort(20),
];

/// Half closed, closed, and closed with something unread (a reset, until it is collected).
const SOCKETS_CLOSE: &[Step] = &[
    Register(A, RWP, Level),
    Register(B, W, OneShot),
    Register(C, P, Level),
    PeerShutdownWr(A),
    PeerShutdownWr(C),
    Wait0,
    ShutdownWr(A),
    Wait0,
    Write(B, 0),
    PeerClose(B),
    Modify(B, RWP, Level),
    Wait0,
    DrainRead(B),
    Wait0,
];

const EMPTY_INTEREST: &[Step] = &[
    Register(A, Nothing, Level),
    Register(B, Nothing, Edge),
    Register(C, Nothing, OneShot),
    PeerWrite(A, 0),
    PeerClose(A),
    PeerClose(B),
    PeerClose(C),
    Wait0,
    WaitShort(20),
    Modify(A, R, Level),
    Wait0,
    Modify(A, Nothing, Level),
    Wait0,
];

/// Only a write tells a datagram socket that the other side has gone, and what had come from there
/// is gone then. The room that its unread messages took is there at once.
const DATAGRAM_FINDS_OUT: &[Step] = &[
    Register(A, R, Edge),
    Register(B, W, OneShot),
    Register(C, RW, Level),
    FillWrite(B),
    PeerWrite(A, 0),
    PeerWrite(C, 0),
    Wait0,
    PeerClose(A),
    PeerClose(B),
    PeerClose(C),
    Wait0,
    Write(A, 0),
    Write(C, 0),
    Rearm(A, R),
    Wait0,
    Write(C, 0),
    ShutdownRd(C),
    Rearm(C, RW),
    Wait0,
    Reopen(A),
];

/// A signal is nobody's event, and no reason to come back early or late.
const INTERRUPTED: &[Step] = &[
    Register(A, R, Level),
    Register(B, R, Edge),
    WaitInterrupted(255),
    PeerWrite(B, 0),
    WaitInterrupted(255),
    WaitInterrupted(20),
    Wake,
    WaitInterrupted(255),
];
