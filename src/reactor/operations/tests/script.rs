//! Random scripts.

use super::fake_driver::End;
use super::fake_file::FileKind;
use proptest::prelude::*;
use proptest::sample::Index;

/// The number of registered sources.
pub(super) const LINKS: usize = 4;
/// The size of the pool's buffers.
pub(super) const POOL_SIZE: usize = 7;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OpKind {
    Recv,
    RecvExact,
    RecvMulti,
    RecvFrom,
    RecvMsg,
    Read,
    Send,
    SendAll,
    SendMsg,
    Write,
    Splice,
    Connect,
    Accept,
    AcceptMulti,
    ShutRead,
    ShutWrite,
    ReadAt,
    WriteAt,
    Sync,
    Open,
    Timeout,
    Nop,
}

impl OpKind {
    /// Returns an operation for a file of this kind.
    pub(super) fn any_of(kind: FileKind, pick: Index) -> Self {
        use OpKind::*;
        let all: &[OpKind] = match kind {
            FileKind::Stream { .. } => &[
                Recv, Recv, RecvExact, RecvExact, RecvMulti, RecvMulti, RecvMsg, Read, Send,
                SendAll, SendAll, SendMsg, Write, ShutWrite, ShutRead, Splice, Splice, Timeout,
                Nop,
            ],
            FileKind::Datagrams => {
                &[Recv, RecvFrom, RecvMulti, RecvMulti, Send, SendMsg, ShutRead, Timeout, Open]
            }
            FileKind::Listener => &[Accept, Accept, AcceptMulti, AcceptMulti, ShutRead],
            FileKind::Pipe => &[Read, Read, Write, Write, Splice, Splice, Splice],
            FileKind::Disk => &[ReadAt, ReadAt, WriteAt, WriteAt, Sync, Read, Splice, Open],
        };
        all[pick.index(all.len())]
    }

    pub(super) fn is_multi(self) -> bool {
        matches!(self, OpKind::RecvMulti | OpKind::AcceptMulti)
    }

    pub(super) fn receives(self) -> bool {
        use OpKind::*;
        matches!(self, Recv | RecvExact | RecvMulti | RecvFrom | RecvMsg | Read)
    }

    pub(super) fn sends(self) -> bool {
        matches!(self, OpKind::Send | OpKind::SendAll | OpKind::SendMsg | OpKind::Write)
    }

    /// Returns true if the success can be silent.
    pub(super) fn may_skip_success(self) -> bool {
        use OpKind::*;
        self.sends() || matches!(self, WriteAt | Sync | Connect | ShutRead | ShutWrite)
    }

    /// Returns true for the read queue, false for the write queue, `None` without a queue.
    pub(super) fn reads(self) -> Option<bool> {
        match self {
            OpKind::Splice | OpKind::Accept | OpKind::AcceptMulti => Some(true),
            OpKind::Connect | OpKind::ShutWrite => Some(false),
            _ if self.receives() => Some(true),
            _ if self.sends() => Some(false),
            _ => None,
        }
    }
}

#[derive(Clone, Debug)]
pub(super) enum Step {
    /// Submits an operation, with a deadline in milliseconds.
    Submit {
        link: usize,
        op_kind: Index,
        amount: usize,
        deadline: Option<u64>,
    },
    Cancel(Index),
    PeerSends(usize, usize),
    PeerReads(usize, usize),
    PeerEnds(usize),
    PeerResets(usize),
    /// Ends a connect in progress, successfully or not.
    PeerAnswers(usize, bool),
    /// Ends a call of the driver.
    Finish(Index, End),
    ThreadBegins(Index),
    ThreadEnds(Index, End),
    /// Reports a source that need not be ready.
    Spurious(usize),
    TimePasses(u64),
    ReturnBuffers(usize),
    /// Watches urgent data for the user, or stops that.
    Watch(usize, bool),
    Deregister(usize),
    /// Runs everything but the kernel, and delivers a limited number of completions.
    Wait {
        max_completions: usize,
        room: usize,
    },
}

fn any_kind() -> impl Strategy<Value = FileKind> {
    prop_oneof![
        6 => Just(FileKind::Stream { connects: false }),
        1 => Just(FileKind::Stream { connects: true }),
        1 => Just(FileKind::Datagrams),
        1 => Just(FileKind::Listener),
        2 => Just(FileKind::Pipe),
        1 => Just(FileKind::Disk),
    ]
}

fn any_end() -> impl Strategy<Value = End> {
    prop_oneof![
        8 => (1..40_usize).prop_map(End::Real),
        4 => Just(End::Real(usize::MAX)),
        1 => Just(End::WouldBlock),
        1 => Just(End::Interrupted),
        1 => Just(End::Canceled),
        2 => Just(End::NoBuffer),
        1 => Just(End::Unsupported),
        1 => Just(End::Failed),
    ]
}

fn any_step() -> impl Strategy<Value = Step> {
    let (link, index) = (|| 0..LINKS, any::<Index>);
    let deadline = prop_oneof![6 => Just(None), 1 => (0..40_u64).prop_map(Some)];
    prop_oneof![
        14 => (link(), index(), 1..30_usize, deadline).prop_map(
            |(link, op_kind, amount, deadline)| Step::Submit { link, op_kind, amount, deadline }
        ),
        3 => index().prop_map(Step::Cancel),
        5 => (link(), 1..40_usize).prop_map(|(link, count)| Step::PeerSends(link, count)),
        4 => (link(), 1..200_usize).prop_map(|(link, count)| Step::PeerReads(link, count)),
        1 => link().prop_map(Step::PeerEnds),
        1 => link().prop_map(Step::PeerResets),
        2 => (link(), any::<bool>()).prop_map(|(link, accepts)| Step::PeerAnswers(link, accepts)),
        8 => (index(), any_end()).prop_map(|(at, end)| Step::Finish(at, end)),
        1 => index().prop_map(Step::ThreadBegins),
        3 => (index(), any_end()).prop_map(|(at, end)| Step::ThreadEnds(at, end)),
        1 => link().prop_map(Step::Spurious),
        2 => (0..70_u64).prop_map(Step::TimePasses),
        3 => (1..4_usize).prop_map(Step::ReturnBuffers),
        1 => (link(), any::<bool>()).prop_map(|(link, watches)| Step::Watch(link, watches)),
        1 => link().prop_map(Step::Deregister),
        9 => (0..6_usize, 1..8_usize)
            .prop_map(|(max_completions, room)| Step::Wait { max_completions, room }),
    ]
}

/// The parameters of a case.
#[derive(Clone, Debug)]
pub(super) struct Setup {
    pub(super) kinds: Vec<FileKind>,
    pub(super) seed: u64,
    pub(super) is_by_level: bool,
    /// The percentages of refused and of uninterruptible driver calls.
    pub(super) refused: u64,
    pub(super) uninterruptible: u64,
    /// The percentage of attempts that move a few bytes only.
    pub(super) short: u64,
    /// The limit of the pool.
    pub(super) limit: usize,
}

pub(super) fn any_setup() -> impl Strategy<Value = Setup> {
    let kinds = prop::collection::vec(any_kind(), LINKS);
    let short = prop_oneof![4 => Just(30_u64), 1 => Just(100)];
    let refused = prop_oneof![Just(0), Just(100), 10..90_u64];
    (kinds, any::<u64>(), any::<bool>(), refused, 0..60_u64, short, 1..5_usize).prop_map(
        |(kinds, seed, is_by_level, refused, uninterruptible, short, limit)| Setup {
            kinds,
            seed,
            is_by_level,
            refused,
            uninterruptible,
            short,
            limit,
        },
    )
}

pub(super) fn any_steps(max: usize) -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(any_step(), 1..max)
}
