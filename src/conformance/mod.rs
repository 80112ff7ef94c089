//! The conformance suite: tests of every clause of the [contract](crate::contract) on any backend.
//!
//! [`conformance_tests!`](crate::conformance_tests) makes a test of every case. A case is named
//! after the clause it tests, uses the public API only, and compares with the kernel: its oracles
//! are poll(2) and the plain system calls. A failure prints the clause.
//!
//! ```
//! # #[cfg(test)] // the macro makes tests, which exist in a test build only
//! quintpoll::conformance_tests!(epoll, || quintpoll::Backend::Epoll.open());
//! ```
//!
//! A case that needs a process of its own (signals, limits, fork, descriptor counts) is run by
//! starting the test binary again. A case that cannot run here prints `skipped:` and the reason.
//! For backends listed in the environment variable `QUINTPOLL_REQUIRE` (names as given to the
//! macro, separated by commas) a skip is a failure. A case that runs with fewer files, because the
//! limit on open files is low, prints `note:` and their count.
//!
//! Tests that start processes belong in another test binary: until a child calls exec(2) it holds
//! every descriptor of the process, and cases check the effect of closing one.

#[macro_use]
mod cases;

mod fd_states;
mod fuse;
mod kinds;
mod many_files;
mod op_harness;
mod runner;
mod scenarios;
mod socket_pairs;
mod util;

mod accept_multi;
mod blocking;
mod buffers;
mod cached_opens;
mod cancels;
mod capacity;
mod connects;
mod deadlines;
mod disk;
mod disk_drops;
mod disk_ends;
mod disk_kinds;
mod drop_writes;
mod drops;
mod edge;
mod edge_ends;
mod eof;
mod fd_numbers;
mod fd_tables;
mod file_position;
mod files;
mod flags;
mod level;
mod limits;
mod messages;
mod missed_wakeups;
mod mixed;
mod multishot_cancel;
mod multishot_end;
mod one_shot;
mod opens;
mod operations;
mod order;
mod pools;
mod process;
mod races;
mod registration;
mod release;
mod results;
mod scm_rights;
mod signals;
mod silent;
mod slow_files;
mod splice_queues;
mod splices;
mod streams;
mod time;
mod wake;

pub use runner::check;

use crate::poller::Poller;
use std::io;
use util::TestContext;

/// Opens a poller of the backend under test.
pub type Maker = fn() -> io::Result<Box<dyn Poller>>;

/// A case of the suite.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// The name, which begins with the number of the clause in lower case.
    pub name: &'static str,
    /// True if the case runs in a process of its own.
    pub own_process: bool,
    run: fn(&TestContext),
}

impl Case {
    /// Returns the clause that the case tests, such as `"R5"`.
    pub fn clause(&self) -> String {
        self.name.split('_').next().unwrap_or_default().to_uppercase()
    }

    /// Returns the text of the clause in the contract, with its lists.
    pub fn clause_text(&self) -> String {
        let mark = format!("//! - **{}** ", self.clause());
        let lines = include_str!("../contract.rs").lines();
        let mut lines = lines.skip_while(|line| !line.starts_with(&*mark));
        let Some(first) = lines.next() else { return "(no such clause)".into() };
        let rest = lines.take_while(|line| *line == "//!" || line.starts_with("//!   "));
        let rest = rest.flat_map(|line| ["\n", line.trim_start_matches("//!")]);
        let text: String = std::iter::once(&first[mark.len()..]).chain(rest).collect();
        text.trim_end().to_owned()
    }
}

/// Makes a test of every case of the conformance suite, in a module of the given name.
///
/// The second argument opens a poller: a function, or a closure without captures, that returns
/// `io::Result<Box<dyn Poller>>`. An error of kind `Unsupported` skips the case.
#[macro_export]
macro_rules! conformance_tests {
    ($backend:ident, $maker:expr) => {
        mod $backend {
            #[allow(unused_imports)]
            use super::*;

            const MAKER: $crate::conformance::Maker = $maker;
            const BACKEND: &str = stringify!($backend);
            $crate::__conformance_cases! { $crate::__conformance_test }
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __conformance_test {
    ($($module:ident { $($case:ident)* } own { $($own:ident)* })*) => {
        $(
            $($crate::__conformance_test! { @one $case })*
            $($crate::__conformance_test! { @one $own })*
        )*
    };
    (@one $case:ident) => {
        #[test]
        fn $case() {
            let test = concat!(module_path!(), "::", stringify!($case));
            $crate::conformance::check(stringify!($case), BACKEND, MAKER, test);
        }
    };
}

macro_rules! table {
    ($($module:ident { $($case:ident)* } own { $($own:ident)* })*) => {
        &[$(
            $(Case { name: stringify!($case), own_process: false, run: $module::$case },)*
            $(Case { name: stringify!($own), own_process: true, run: $module::$own },)*
        )*]
    };
}

/// Every case of the suite.
pub const CASES: &[Case] = __conformance_cases! { table };

#[cfg(test)]
mod tests {
    use super::CASES;

    #[test]
    fn cases_name_a_clause_of_the_contract() {
        for case in CASES {
            assert_ne!(case.clause_text(), "(no such clause)", "{}", case.name);
        }
    }

    #[test]
    fn clause_text_includes_lists_and_ends_with_clause() {
        let text = |clause: &str| {
            let case = CASES.iter().find(|case| case.clause() == clause);
            case.expect("every clause has a case").clause_text()
        };
        for (clause, part, end) in [
            ("R9", "descriptor", "1023."),
            ("R5", "\n   - Its operations", "done."),
            ("E3", "\n   - a wake-up on the file", "endlessly."),
            ("P5", "descriptors", "by it."),
        ] {
            let text = text(clause);
            assert!(text.contains(part) && text.ends_with(end), "{clause}: {text}");
        }
    }
}
