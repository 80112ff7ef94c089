//! The seeds in words: small scripts, each of which once was, or would be, somebody's bug.

use quintpoll_fuzz::script::{
    At::*, Dirs::*, How::*, Kind, Kind::*, PLACES, Room::*, Script, Step, Step::*,
};

/// All of them, by the names of their files.
pub(crate) fn all() -> Vec<(&'static str, Script)> {
    let groups = [registration(), modes(), capacity(), flags()];
    groups.into_iter().flatten().collect()
}

type Group = Vec<(&'static str, Script)>;

fn script(kinds: [Kind; PLACES], steps: &[Step]) -> Script {
    Script { kinds, steps: steps.to_vec() }
}

const MIXED: [Kind; PLACES] = [PipeRead, Stream, Packet, Counter, Null];
const READERS: [Kind; PLACES] = [PipeRead, PipeRead, PipeRead, Stream, Stream];

fn registration() -> Group {
    // An old key must not reach the registration that took its slot.
    let stale_key = [
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
    // What the kernel had queued for the old file must not be charged to the new one.
    let number_used_again = [
        Register(A, R, Edge),
        PeerWrite(A, 0),
        Reopen(A),
        Register(A, R, Edge),
        Wait0,
        PeerWrite(A, 0),
        Wait0,
    ];
    // A double is another source; closing it must not silence the original.
    let double = [
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
    // Removal from the middle of a dense array moves another entry.
    let moved_entry = [
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
    vec![
        ("stale_key", script(READERS, &stale_key)),
        ("number_used_again", script(READERS, &number_used_again)),
        ("double", script(MIXED, &double)),
        ("moved_entry", script([Stream; PLACES], &moved_entry)),
    ]
}

fn modes() -> Group {
    // Present readiness counts, in every mode; and files to which nothing happens have it.
    let register_while_ready = [
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
    // An edge that was reported is there again after modify, under the new token.
    let modify_looks_again = [
        PeerWrite(A, 0),
        Register(A, R, Edge),
        Wait0,
        Modify(A, R, Edge),
        Wait0,
        Modify(A, R, OneShot),
        Wait0,
        Wait0,
    ];
    // A spent one-shot is silent about a hang-up too.
    let one_shot_hang_up = [
        Register(A, R, OneShot),
        PeerWrite(A, 0),
        Wait0,
        PeerClose(A),
        Wait0,
        WaitShort(20),
        Rearm(A, R),
        Wait0,
    ];
    let one_shot_in_parts = [
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
    let edge_drained_and_refilled = [
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
    // `drained` where it is not true: a report is allowed, not owed.
    let edge_not_drained = [
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
    vec![
        ("register_while_ready", script(MIXED, &register_while_ready)),
        ("modify_looks_again", script(MIXED, &modify_looks_again)),
        ("one_shot_hang_up", script(MIXED, &one_shot_hang_up)),
        ("one_shot_in_parts", script(MIXED, &one_shot_in_parts)),
        ("edge_drained_and_refilled", script(MIXED, &edge_drained_and_refilled)),
        ("edge_not_drained", script(MIXED, &edge_not_drained)),
    ]
}

fn capacity() -> Group {
    // Everybody has his turn.
    let one_at_a_time = [
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
    // An edge is reported once by the kernel, and must not get lost for want of room.
    let edges_wait_for_room = [
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
    // What waits for room and is drained there is not reported, and is still watched.
    let drained_while_waiting = [
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
    // Most of the queue is gone; the rest must stay in it.
    let gone_while_waiting = [
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
    let woken_beside_events = [
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
    vec![
        ("one_at_a_time", script([Stream; PLACES], &one_at_a_time)),
        ("edges_wait_for_room", script(READERS, &edges_wait_for_room)),
        ("drained_while_waiting", script([Stream; PLACES], &drained_while_waiting)),
        ("gone_while_waiting", script([Stream; PLACES], &gone_while_waiting)),
        ("woken_beside_events", script(READERS, &woken_beside_events)),
    ]
}

fn flags() -> Group {
    // A full pipe without its reader is ERR without OUT, an empty one without its writer HUP
    // without IN: ready all the same.
    let pipes_without_peers = [
        Register(A, R, Level),
        Register(B, W, Edge),
        Wait0,
        FillWrite(B),
        PeerClose(A),
        PeerClose(B),
        Wait0,
        WaitShort(20),
    ];
    // Half closed, closed, and closed with something unread (a reset, until it is collected).
    let sockets_close = [
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
    let empty_interest = [
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
    let pipes = [PipeRead, PipeWrite, PipeRead, PipeWrite, Counter];
    let sockets = [Stream, Stream, Packet, Packet, Stream];
    vec![
        ("pipes_without_peers", script(pipes, &pipes_without_peers)),
        ("sockets_close", script(sockets, &sockets_close)),
        ("empty_interest", script(MIXED, &empty_interest)),
    ]
}
