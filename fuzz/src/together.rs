//! Plays one script to all backends in lock-step, and compares what they show with each other:
//! level and one-shot mode, and the answers of calls, must be equal.
//!
//! A script is played twice. First each backend has files of its own, of the same kinds, to which
//! the same is done. Then all of them watch the same files, and after each step all wait before
//! anything else is done. Each poller is judged by a model of its own too, which holds edges in
//! their sandwich; that they differ within it is counted.
//!
//! What the table of permitted differences allows SIGIO to miss leaves out the place in question,
//! until it is armed again.

use super::column::Column;
use super::model::expect;
use super::oracle::{Bits, readiness};
use super::play::{Fault, Outcome, Table, as_before, blocked_signals};
use super::player::{Player, Shown, clause_of};
use super::script::{At, PLACES, Script, Step};
use quintpoll::{Backend, Mode, Readiness};
use std::collections::BTreeMap;
use std::fmt;
use std::ops::AddAssign;

/// What was compared.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Scripts, each played in both ways.
    pub scripts: usize,
    /// Their steps.
    pub steps: usize,
    /// How often a level or one-shot registration was compared at a wait that reported it.
    pub compared: usize,
    /// How often one was left out, because SIGIO may have missed something.
    pub left_out: usize,
    /// How often somebody reported an edge registration.
    pub edges: usize,
    /// How often of these not all reported the same.
    pub differing: usize,
    /// How often each backend that played reported an edge registration.
    pub edges_by: BTreeMap<String, usize>,
}

/// Somebody broke ranks, or his contract.
#[derive(Debug)]
pub struct Apart {
    way: Way,
    /// The number of the step, and the step; none at the end.
    at: Option<(usize, Step)>,
    complaints: Vec<String>,
    /// Only a wait that was late.
    is_sleep: bool,
    shown: Vec<(String, Shown)>,
}

/// Who has the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Each has files of its own.
    Twins,
    /// All have the same.
    Shared,
}

/// Plays a script to all backends that are available, in both ways.
///
/// # Errors
///
/// The first step that came out wrong.
///
/// # Panics
///
/// As [`play`](super::play::play) does.
pub fn play_together(script: &Script) -> Result<Tally, Apart> {
    let mut tally = Tally { scripts: 1, steps: script.steps.len(), ..Tally::default() };
    for way in [Way::Twins, Way::Shared] {
        tally += match play_once(script, way) {
            // Scripts repeat themselves, a machine that stood still for a while does not.
            Err(apart) if apart.is_sleep => play_once(script, way)?,
            outcome => outcome?,
        };
    }
    Ok(tally)
}

fn play_once(script: &Script, way: Way) -> Result<Tally, Apart> {
    let mask = blocked_signals();
    let mut group = Group::open(script, way);
    for (nth, &step) in script.steps.iter().enumerate() {
        group.step(step, Some((nth, step)))?;
        // What nobody has waited for yet, all of them see before it is gone.
        if way == Way::Shared && !step.is_wait() {
            group.step(Step::Wait0, Some((nth, step)))?;
        }
    }
    let tally = std::mem::take(&mut group.tally);
    let ends: Vec<Outcome> = group.tables.into_iter().map(Table::end).collect();
    let mask = as_before(&mask).err().map(|failure| failure.to_string());
    let faults: Vec<Fault> = ends.into_iter().filter_map(Result::err).collect();
    let complaints: Vec<_> = faults.iter().map(Fault::to_string).chain(mask).collect();
    match complaints.is_empty() {
        true => Ok(tally),
        false => Err(Apart { way, at: None, complaints, is_sleep: false, shown: Vec::new() }),
    }
}

/// All backends in step.
struct Group {
    way: Way,
    tables: Vec<Table>,
    tally: Tally,
}

/// What everybody has shown in one step, and what is known of the files.
struct Round {
    players: Vec<(String, Shown)>,
    /// What poll(2) says to level registrations.
    truth: [Option<Readiness>; PLACES],
    modes: [Option<Mode>; PLACES],
    vague: [bool; PLACES],
    has_waited: bool,
}

impl Group {
    fn open(script: &Script, way: Way) -> Self {
        let all = Backend::ALL.map(Column::Backend);
        let tables = match way {
            Way::Twins => all.iter().map(|&column| Table::open(script, &[column])).collect(),
            Way::Shared => vec![Table::open(script, &all)],
        };
        let mut tables: Vec<Table> = tables.into_iter().map(Table::settling).collect();
        tables.retain_mut(|table| !table.players().is_empty());
        let players = tables.iter_mut().flat_map(Table::players);
        let edges_by = players.map(|player| (player.column().to_string(), 0)).collect();
        Group { way, tables, tally: Tally { edges_by, ..Tally::default() } }
    }

    /// Everybody does it before anybody is judged.
    fn step(&mut self, step: Step, at: Option<(usize, Step)>) -> Result<(), Apart> {
        let outcomes: Vec<_> = self.tables.iter_mut().map(|table| table.step(step)).collect();
        let faults: Vec<Fault> = outcomes.into_iter().filter_map(Result::err).collect();
        let round = self.round(step);
        let mut complaints = round.compare(&mut self.tally);
        let is_sleep = complaints.is_empty() && faults.iter().all(Fault::is_sleep);
        complaints.extend(faults.iter().map(Fault::to_string));
        match complaints.is_empty() {
            true => Ok(()),
            false => Err(Apart { way: self.way, at, complaints, is_sleep, shown: round.players }),
        }
    }

    fn round(&mut self, step: Step) -> Round {
        let looks: Vec<_> = self.tables.iter().map(|table| table.files().look()).collect();
        assert!(looks.windows(2).all(|two| two[0] == two[1]), "no twins any more: {looks:?}");
        let mut players: Vec<_> = self.tables.iter_mut().flat_map(Table::players).collect();
        let places = std::array::from_fn::<usize, PLACES, _>(|place| place);
        let vague = places.map(|place| players.iter().any(|player| player.is_vague(place)));
        let first = players.first().expect("poll is always there");
        Round {
            truth: places.map(|place| truth(first, place, looks[0][place])),
            modes: places.map(|place| first.model().mode(place)),
            vague,
            has_waited: step.is_wait(),
            players: players
                .iter_mut()
                .map(|player| (player.column().to_string(), player.take_shown()))
                .collect(),
        }
    }
}

/// What poll(2) says at this place to a level registration, straight from the table.
fn truth(player: &Player, place: usize, bits: Bits) -> Option<Readiness> {
    let model = player.model();
    let is_level = model.mode(place) == Some(Mode::Level);
    is_level.then(|| readiness(bits, model.interest(place)))
}

impl Round {
    /// What is not equal.
    fn compare(&self, tally: &mut Tally) -> Vec<String> {
        let mut complaints = Vec::new();
        let (_, first) = &self.players[0];
        for (name, shown) in &self.players[1..] {
            let pairs = shown.answers.iter().zip(&first.answers);
            let unequal = pairs.filter(|(one, other)| one != other);
            complaints.extend(unequal.map(|(&one, &other)| {
                let clause = clause_of(one, other);
                format!("clause {clause}: {name} answers {one:?}, not {other:?}")
            }));
            if shown.woken != first.woken {
                complaints.push(format!("clause W1: {name} is woken: {}", shown.woken));
            }
        }
        for place in (0..PLACES).filter(|_| self.has_waited) {
            complaints.extend(self.compare_at(place, tally));
        }
        complaints
    }

    fn compare_at(&self, place: usize, tally: &mut Tally) -> Option<String> {
        let mode = self.modes[place]?;
        let reports = || self.players.iter().map(|(_, shown)| shown.at(place));
        let first = self.players[0].1.at(place);
        let is_equal = reports().all(|report| report == first);
        let is_reported = usize::from(reports().any(|report| !report.is_empty()));
        if mode == Mode::Edge {
            tally.edges += is_reported;
            tally.differing += usize::from(!is_equal);
            for (name, _) in self.players.iter().filter(|(_, shown)| !shown.at(place).is_empty()) {
                *tally.edges_by.entry(name.clone()).or_default() += 1;
            }
            return None;
        }
        if self.vague[place] {
            tally.left_out += 1;
            return None;
        }
        tally.compared += is_reported;
        let (clause, at) = (if mode == Mode::Level { "L1" } else { "O1" }, At::ALL[place]);
        let truth = self.truth[place].unwrap_or(first);
        let alike = expect(is_equal, clause, || format!("the reports of {at:?} differ"));
        let true_too = expect(first == truth, clause, || format!("poll(2): {at:?} is {truth:?}"));
        alike.and(true_too).err().map(|failure| failure.to_string())
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Tally) {
        self.scripts += other.scripts;
        self.steps += other.steps;
        self.compared += other.compared;
        self.left_out += other.left_out;
        self.edges += other.edges;
        self.differing += other.differing;
        for (name, count) in other.edges_by {
            *self.edges_by.entry(name).or_default() += count;
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tally { scripts, steps, compared, left_out, edges, differing, edges_by } = self;
        writeln!(f, "{scripts} scripts, {steps} steps")?;
        writeln!(f, "level and one-shot: {compared} equal reports, {left_out} left out")?;
        write!(f, "edge: {edges} reports, {differing} not by all alike;")?;
        edges_by.iter().try_for_each(|(name, count)| write!(f, " {name} {count}"))
    }
}

impl fmt::Display for Apart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let files = match self.way {
            Way::Twins => "each with files of its own",
            Way::Shared => "all with the same files",
        };
        match self.at {
            Some((nth, step)) => write!(f, "step {nth} ({step:?}), {files}:")?,
            None => write!(f, "at the end, {files}:")?,
        }
        self.complaints.iter().try_for_each(|complaint| write!(f, "\n  {complaint}"))?;
        let mut shown = self.shown.iter();
        shown.try_for_each(|(name, shown)| write!(f, "\n  {name:>8} shows {shown}"))
    }
}
