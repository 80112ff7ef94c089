//! Changes that must make no difference: each script runs twice on the same backend, the second
//! time with a change.

use crate::fuzz::column::Column;
use crate::fuzz::files::Place;
use crate::fuzz::play::{Outcome, Table};
use crate::fuzz::script::*;
use crate::{fd_count, generator, runner};
use proptest::prelude::*;
use quintpoll::{Backend, Mode, Readiness};
use std::fmt::Debug;

/// The number of scripts for each relation, which run on all backends.
const SCRIPTS: u32 = 100;

/// The report of each place in one wait, in the compared modes.
type Reports = [Option<Readiness>; PLACES];

const LEVEL_AND_ONE_SHOT: &[Mode] = &[Mode::Level, Mode::OneShot];
const ALL: &[Mode] = &[Mode::Level, Mode::OneShot, Mode::Edge];

/// A backend, twice.
struct Pair {
    tables: [Table; 2],
    modes: &'static [Mode],
}

impl Pair {
    fn open(script: &Script, backend: Backend, modes: &'static [Mode]) -> Self {
        let open = || Table::open(script, &[Column::Backend(backend)]).settling();
        Pair { tables: [open(), open()], modes }
    }

    /// Runs the step on both, and compares their reports.
    fn step(&mut self, step: Step) -> Result<(), String> {
        for table in &mut self.tables {
            in_words(table.step(step))?;
        }
        self.compare().map_err(|what| format!("{step:?}: {what}"))
    }

    fn compare(&mut self) -> Result<(), String> {
        let modes = self.modes;
        let [one, other] = self.tables.each_mut().map(|table| reports(table, modes));
        for place in 0..PLACES {
            if let (Some(one), Some(other)) = (one[place], other[place]) {
                let at = At::ALL[place];
                if one != other {
                    return Err(format!("{at:?} is {one:?}, with the change {other:?}"));
                }
            }
        }
        Ok(())
    }

    fn changed(&mut self) -> &mut Table {
        &mut self.tables[1]
    }
}

/// Returns the reports, `None` in other modes, and where SIGIO may have missed something.
fn reports(table: &mut Table, modes: &[Mode]) -> Reports {
    let player = &mut table.players()[0];
    let shown = player.take_shown();
    std::array::from_fn(|place| {
        let mode = player.model().mode(place)?;
        let counts = modes.contains(&mode) && !player.is_vague(place);
        counts.then(|| shown.at(place))
    })
}

fn in_words(outcome: Outcome) -> Result<(), String> {
    outcome.map_err(|fault| fault.to_string())
}

/// Checks a relation on every available backend.
fn check<S: Strategy>(values: &S, holds: impl Fn(&S::Value, Backend) -> Result<(), String>)
where
    S::Value: Clone + Debug,
{
    let on_all = |value: &S::Value| {
        let mut backends = Backend::ALL.into_iter().filter(|one| one.is_available().is_ok());
        backends.try_for_each(|one| holds(value, one).map_err(|what| format!("{one}: {what}")))
    };
    runner::run(SCRIPTS, values, |value| fd_count::without_fd_counts(|| on_all(value)))
        .unwrap_or_else(|(reason, value)| panic!("{reason}\n{value:?}"));
}

/// A change to insert before a step.
#[derive(Clone, Copy, Debug)]
enum Extra {
    Nothing,
    Wake,
    Visit,
}

/// A wake, or an unrelated file that is registered and deregistered, changes no report, edges
/// included.
#[test]
fn unrelated_events_change_no_reports() {
    let extra = prop_oneof![6 => Just(Extra::Nothing), 1 => Just(Extra::Wake),
        1 => Just(Extra::Visit)];
    let extras = prop::collection::vec(extra, MOST_STEPS);
    check(&(generator::scripts(), extras), |(script, extras), backend| {
        let mut pair = Pair::open(script, backend, ALL);
        let unrelated = Place::open(Kind::PipeRead);
        unrelated.peer_write(1);
        for (&step, extra) in script.steps.iter().zip(extras) {
            match extra {
                Extra::Nothing => {}
                Extra::Wake => in_words(pair.changed().step(Step::Wake))?,
                Extra::Visit => pair.changed().players()[0].visit(&unrelated),
            }
            pair.step(step)?;
        }
        Ok(())
    });
}

/// Bytes that arrive in two parts report the same as in one, on files without messages.
#[test]
fn split_writes_report_like_whole_writes() {
    check(&generator::scripts(), |script, backend| {
        let mut pair = Pair::open(script, backend, LEVEL_AND_ONE_SHOT);
        // The number of small writes that fit depends on earlier ones.
        let is_kept = |step: &&Step| !matches!(step, Step::PeerTrickle(_));
        for &step in script.steps.iter().filter(is_kept) {
            let Step::PeerWrite(at, number) = step else {
                pair.step(step)?;
                continue;
            };
            let kind = pair.changed().files().at(at).kind();
            let is_divisible = matches!(kind, Kind::PipeRead | Kind::Stream | Kind::Counter);
            let (all, half) = (length(number), length(number) / 2);
            let parts = if is_divisible && half > 0 { vec![half, all - half] } else { vec![all] };
            let [one, other] = &mut pair.tables;
            // After a refusal the files differ: two small writes take more space.
            if !write(one, at, &[all]) || !write(other, at, &parts) {
                return Ok(());
            }
        }
        Ok(())
    });
}

/// Writes parts from the peer. Returns true if all were written.
fn write(table: &mut Table, at: At, parts: &[usize]) -> bool {
    let mut written = 0;
    for &part in parts {
        table.told(at, |file| {
            let is_written = file.peer_write(part);
            written += usize::from(is_written);
            is_written
        });
    }
    written == parts.len()
}

/// Repeated waits with a capacity of one report everything.
#[test]
fn small_capacity_reports_everything() {
    check(&generator::scripts(), |script, backend| {
        let mut pair = Pair::open(script, backend, LEVEL_AND_ONE_SHOT);
        for (table, capacity) in pair.tables.iter_mut().zip([Room::Eight, Room::One]) {
            in_words(table.step(Step::SetCapacity(capacity)))?;
        }
        let is_kept = |step: &&Step| !matches!(step, Step::SetCapacity(_));
        script.steps.iter().filter(is_kept).try_for_each(|&step| pair.step(step))
    });
}

/// The order of registration changes only the order of reports.
#[test]
fn registration_order_changes_only_the_order() {
    let dirs = || prop::sample::select(&Dirs::ALL[..]);
    let how = || prop::sample::select(&How::ALL[..]);
    let asked = prop::array::uniform5((dirs(), how()));
    let order = Just(At::ALL.to_vec()).prop_shuffle();
    check(&(generator::scripts(), asked, order), |(script, asked, order), backend| {
        let mut pair = Pair::open(script, backend, LEVEL_AND_ONE_SHOT);
        let orders = [&At::ALL[..], order];
        for (table, order) in pair.tables.iter_mut().zip(orders) {
            for &at in order {
                let (dirs, how) = asked[at.index()];
                in_words(table.step(Step::Register(at, dirs, how)))?;
            }
        }
        script.steps.iter().try_for_each(|&step| pair.step(step))
    });
}
