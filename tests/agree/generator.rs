//! Generates scripts whose steps mostly have an effect, by an approximate model of the files and
//! registrations.
//!
//! Steps without an effect are left out. Calls that the poller refuses (a stale key, a second
//! registration, directions beyond the interest) are rare but kept: all backends must refuse them.

use crate::fuzz::script::*;
use proptest::prelude::*;
use proptest::sample::select;
use proptest_state_machine::ReferenceStateMachine;
use std::ops::RangeInclusive;
use std::sync::atomic::Ordering;

/// The number of steps of a script.
const STEPS: RangeInclusive<usize> = 20..=44;

/// Returns the strategy for scripts.
pub(crate) fn scripts() -> impl Strategy<Value = Script> {
    ScriptGenerator::sequential_strategy(STEPS).prop_map(|(generator, steps, seen)| {
        // Marks all steps as seen: proptest would drop unseen ones without a trial.
        if let Some(seen) = seen {
            seen.store(steps.len(), Ordering::SeqCst);
        }
        Script { kinds: generator.kinds, steps }
    })
}

/// The approximate state after some steps.
#[derive(Clone, Debug)]
pub(crate) struct ScriptGenerator {
    /// The initial file types of the script.
    kinds: [Kind; PLACES],
    files: [File; PLACES],
    /// The file of each place; two may have the same.
    places: [usize; PLACES],
    registered: [Option<(Dirs, How)>; PLACES],
    capacity: Room,
    /// The last step was a wait.
    just_waited: bool,
}

/// A file.
#[derive(Clone, Copy, Debug)]
struct File {
    kind: Kind,
    has_peer: bool,
    inbox: Fill,
    outbox: Fill,
    shut_local: bool,
    shut_peer: bool,
    shut_read: bool,
    is_large: bool,
    has_other_owner: bool,
}

/// The fill level of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fill {
    Empty,
    Some,
    Full,
}

impl ReferenceStateMachine for ScriptGenerator {
    type State = ScriptGenerator;
    type Transition = Step;

    fn init_state() -> BoxedStrategy<ScriptGenerator> {
        prop::array::uniform5(select(&Kind::ALL[..])).prop_map(ScriptGenerator::new).boxed()
    }

    fn transitions(generator: &ScriptGenerator) -> BoxedStrategy<Step> {
        let dirs = prop_oneof![6 => Just(Dirs::R), 3 => Just(Dirs::W), 4 => Just(Dirs::RW),
            2 => Just(Dirs::RP), 2 => select(&Dirs::ALL[..])];
        let how = prop_oneof![4 => Just(How::Level), 3 => Just(How::OneShot),
            3 => Just(How::Edge)];
        let choice = (select(generator.candidates()), dirs, how, any::<u8>());
        choice.prop_map(|(step, dirs, how, number)| fill_in(step, dirs, how, number)).boxed()
    }

    fn preconditions(generator: &ScriptGenerator, &step: &Step) -> bool {
        generator.has_effect(step)
    }

    fn apply(mut generator: ScriptGenerator, &step: &Step) -> ScriptGenerator {
        generator.just_waited = step.is_wait();
        generator.note_call(step);
        generator.note_file(step);
        generator
    }
}

/// Fills in the arguments of a step.
fn fill_in(step: Step, dirs: Dirs, how: How, number: u8) -> Step {
    match step {
        Step::Register(at, ..) => Step::Register(at, dirs, how),
        Step::Modify(at, ..) => Step::Modify(at, dirs, how),
        Step::WaitShort(_) => Step::WaitShort(number),
        Step::WaitInterrupted(_) => Step::WaitInterrupted(number),
        Step::PeerWrite(at, _) => Step::PeerWrite(at, number),
        Step::PeerRead(at, _) => Step::PeerRead(at, number),
        Step::Read(at, _) => Step::Read(at, number),
        Step::Write(at, _) => Step::Write(at, number),
        _ => step,
    }
}

/// The choice of the next step.
impl ScriptGenerator {
    fn new(kinds: [Kind; PLACES]) -> Self {
        ScriptGenerator {
            kinds,
            files: kinds.map(File::new),
            places: std::array::from_fn(|place| place),
            registered: [None; PLACES],
            capacity: Room::Eight,
            just_waited: true,
        }
    }

    /// Returns each step as often as its weight, the simple ones first.
    fn candidates(&self) -> Vec<Step> {
        let mut all = Vec::new();
        let mut add = |weight: usize, step: Step| {
            let weight = if self.has_effect(step) { weight } else { 0 };
            all.extend(std::iter::repeat_n(step, weight));
        };
        add(if self.just_waited { 4 } else { 200 }, Step::Wait0);
        add(8, Step::WaitShort(0));
        add(4, Step::WaitInterrupted(0));
        Room::ALL.into_iter().for_each(|capacity| add(6, Step::SetCapacity(capacity)));
        add(8, Step::Wake);
        add(4, Step::Overflow);
        for (at, weight) in At::ALL.into_iter().zip([5, 3, 2, 2, 2]) {
            let mut add = |times: usize, step| add(times * weight, step);
            self.calls(at, &mut add);
            file_steps(at, &mut add);
            At::ALL.into_iter().for_each(|to| add(1, Step::Dup(at, to)));
        }
        all
    }

    fn calls(&self, at: At, add: &mut impl FnMut(usize, Step)) {
        let Some((asked, _)) = self.registered[at.index()] else {
            add(16, Step::Register(at, Dirs::R, How::Level));
            // With a stale key.
            add(1, Step::Modify(at, Dirs::R, How::Level));
            add(1, Step::Rearm(at, Dirs::R));
            add(1, Step::Drained(at, Dirs::R));
            add(1, Step::Deregister(at));
            return;
        };
        add(1, Step::Register(at, Dirs::R, How::Level));
        add(3, Step::Modify(at, Dirs::R, How::Level));
        for dirs in Dirs::ALL {
            let weight = if dirs == asked { 5 } else { usize::from(is_part(dirs, asked)) };
            add(weight, Step::Rearm(at, dirs));
            add(weight.min(2), Step::Drained(at, dirs));
        }
        // Directions beyond most interests.
        add(1, Step::Rearm(at, Dirs::RWP));
        add(1, Step::Drained(at, Dirs::WP));
        add(2, Step::Deregister(at));
    }

    /// Returns true if the step has an effect, or is a call that must be refused.
    fn has_effect(&self, step: Step) -> bool {
        let file = |at: At| self.file(at);
        match step {
            Step::SetCapacity(capacity) => capacity != self.capacity,
            Step::PeerWrite(at, _) | Step::PeerTrickle(at) => file(at).can_be_sent(),
            Step::PeerRead(at, _) | Step::PeerDrain(at) => file(at).peer_can_read(),
            Step::PeerShutdownWr(at) => file(at).has_peer && file(at).peer_can_shut(),
            Step::PeerClose(at) => file(at).has_peer,
            Step::Read(at, _) => file(at).inbox != Fill::Empty,
            Step::DrainRead(at) => {
                file(at).inbox != Fill::Empty || (file(at).can_read() && self.has_edges(at))
            }
            Step::Write(at, _) => file(at).can_write() && file(at).outbox != Fill::Full,
            Step::FillWrite(at) => {
                file(at).can_write() && (file(at).outbox != Fill::Full || self.has_edges(at))
            }
            Step::ShutdownWr(at) => file(at).is_socket() && !file(at).shut_local,
            Step::ShutdownRd(at) => file(at).is_socket() && !file(at).shut_read,
            Step::SetFlags(at) => self.registered[at.index()].is_some(),
            Step::TakeSignals(at) => !file(at).has_other_owner,
            Step::Dup(from, to) => self.places[from.index()] != self.places[to.index()],
            Step::Enlarge(at, end) => {
                file(at).is_pipe() && !file(at).is_large && (file(at).has_peer || end == End::Here)
            }
            _ => true,
        }
    }

    fn has_edges(&self, at: At) -> bool {
        matches!(self.registered[at.index()], Some((_, How::Edge)))
    }

    fn file(&self, at: At) -> &File {
        &self.files[self.places[at.index()]]
    }
}

/// Adds the steps on a file. Impossible ones get no weight.
fn file_steps(at: At, add: &mut impl FnMut(usize, Step)) {
    add(12, Step::PeerWrite(at, 0));
    add(1, Step::PeerTrickle(at));
    add(4, Step::PeerRead(at, 0));
    add(5, Step::PeerDrain(at));
    add(1, Step::PeerShutdownWr(at));
    add(1, Step::PeerClose(at));
    add(4, Step::Read(at, 0));
    add(8, Step::DrainRead(at));
    add(3, Step::Write(at, 0));
    add(5, Step::FillWrite(at));
    add(1, Step::ShutdownWr(at));
    add(1, Step::ShutdownRd(at));
    add(1, Step::SetFlags(at));
    add(1, Step::Reopen(at));
    End::ALL.into_iter().for_each(|end| add(2, Step::Enlarge(at, end)));
    add(1, Step::TakeSignals(at));
}

fn is_part(dirs: Dirs, of: Dirs) -> bool {
    quintpoll::Interest::from(of).contains(dirs.into())
}

/// The effects of a step.
impl ScriptGenerator {
    fn note_call(&mut self, step: Step) {
        match step {
            Step::SetCapacity(capacity) => self.capacity = capacity,
            Step::Register(at, dirs, how) => {
                self.registered[at.index()].get_or_insert((dirs, how));
            }
            Step::Modify(at, dirs, how) => {
                if let Some(registered) = &mut self.registered[at.index()] {
                    *registered = (dirs, how);
                }
            }
            Step::Deregister(at) => self.registered[at.index()] = None,
            Step::Reopen(at) => self.replace(at, File::new(self.file(at).kind)),
            Step::Dup(from, to) if from != to => {
                self.registered[to.index()] = None;
                self.places[to.index()] = self.places[from.index()];
            }
            _ => {}
        }
    }

    /// Puts a new file at a place, which no other place has.
    fn replace(&mut self, at: At, file: File) {
        self.registered[at.index()] = None;
        let others = At::ALL.into_iter().filter(|&other| other != at);
        let taken: Vec<_> = others.map(|other| self.places[other.index()]).collect();
        let free = (0..PLACES).find(|file| !taken.contains(file));
        let free = free.expect("four places have four files at most");
        self.files[free] = file;
        self.places[at.index()] = free;
    }

    fn note_file(&mut self, step: Step) {
        use Step::*;
        let (PeerWrite(at, _)
        | PeerTrickle(at)
        | PeerRead(at, _)
        | PeerDrain(at)
        | PeerShutdownWr(at)
        | PeerClose(at)
        | DrainRead(at)
        | Write(at, _)
        | FillWrite(at)
        | ShutdownWr(at)
        | ShutdownRd(at)
        | Enlarge(at, _)
        | TakeSignals(at)) = step
        else {
            return;
        };
        let file = &mut self.files[self.places[at.index()]];
        let before = file.inbox;
        match step {
            PeerWrite(..) | PeerTrickle(_) => file.inbox = Fill::Some,
            PeerRead(..) => file.outbox = Fill::Some,
            PeerDrain(_) => file.outbox = Fill::Empty,
            PeerShutdownWr(_) => file.shut_peer = true,
            PeerClose(_) => file.has_peer = false,
            DrainRead(_) => file.inbox = Fill::Empty,
            Write(..) => file.outbox = Fill::Some,
            FillWrite(_) => file.outbox = Fill::Full,
            ShutdownWr(_) => file.shut_local = true,
            ShutdownRd(_) => file.shut_read = true,
            Enlarge(..) => (file.is_large, file.outbox) = (true, Fill::Some),
            _ => file.has_other_owner = true,
        }
        file.sync_counter(before);
    }
}

impl File {
    fn new(kind: Kind) -> Self {
        File {
            kind,
            has_peer: !matches!(kind, Kind::Counter | Kind::Null),
            inbox: Fill::Empty,
            outbox: Fill::Empty,
            shut_local: false,
            shut_peer: false,
            shut_read: false,
            is_large: false,
            has_other_owner: false,
        }
    }

    /// Makes both buffers of a counter equal, to the one that has changed.
    fn sync_counter(&mut self, before: Fill) {
        if self.kind == Kind::Counter {
            let changed = if self.inbox != before { self.inbox } else { self.outbox };
            (self.inbox, self.outbox) = (changed, changed);
        }
    }

    fn is_socket(&self) -> bool {
        matches!(self.kind, Kind::Stream | Kind::Packet | Kind::Datagram)
    }

    fn is_pipe(&self) -> bool {
        matches!(self.kind, Kind::PipeRead | Kind::PipeWrite)
    }

    fn peer_can_shut(&self) -> bool {
        self.is_socket() && !self.shut_peer
    }

    fn can_read(&self) -> bool {
        !matches!(self.kind, Kind::PipeWrite | Kind::Null)
    }

    fn can_be_sent(&self) -> bool {
        let is_heard = self.has_peer && !self.shut_peer && !self.shut_read;
        self.kind == Kind::Counter || (self.can_read() && is_heard)
    }

    /// Returns true if a write has an effect. On a datagram socket without a peer it finds that
    /// out.
    fn can_write(&self) -> bool {
        match self.kind {
            Kind::PipeRead | Kind::Null => false,
            Kind::Counter | Kind::Datagram => !self.shut_local,
            _ => self.has_peer && !self.shut_local,
        }
    }

    fn peer_can_read(&self) -> bool {
        (self.has_peer || self.kind == Kind::Counter) && self.outbox != Fill::Empty
    }
}
