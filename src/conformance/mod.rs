//! The conformance suite: the [contract](crate::contract), clause by clause, for any maker of
//! pollers.
//!
//! [`conformance_tests!`](crate::conformance_tests) makes a test of every case. Each case is named
//! after the clause it tests, knows the public API only, and decides by what the kernel says about
//! the same files: poll(2) and the plain system calls are its oracles. When one fails, it prints
//! the clause.
//!
//! ```
//! # #[cfg(test)] // the macro makes tests, which exist in a test build only
//! quintpoll::conformance_tests!(epoll, || quintpoll::Backend::Epoll.open());
//! ```
//!
//! A case that needs a process of its own (signals, limits, fork, file counts) has the test binary
//! started again for itself alone. A case that can't be run here prints `skipped:` and the reason;
//! for backends named in the environment variable `QUINTPOLL_REQUIRE` (names as given to the macro,
//! separated by commas) that is a failure. One that is run with fewer files than it wants, because
//! the limit on open files is low, prints `note:` and how many.
//!
//! Tests that start processes belong in another test binary than the suite: until a child execs it
//! holds every file of the process, and cases look at what follows when they close one.

#[macro_use]
mod cases;

mod crowd;
mod fuse;
mod kinds;
mod lines;
mod op_harness;
mod runner;
mod scenarios;
mod situations;
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
mod numbers;
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
mod splice_lanes;
mod splices;
mod streams;
mod time;
mod wake;

pub use runner::check;

use crate::poller::Poller;
use std::io;
use util::TestContext;

/// Makes a poller of the backend under test.
pub type Maker = fn() -> io::Result<Box<dyn Poller>>;

/// One case.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// Its name, which begins with the number of its clause in lower case.
    pub name: &'static str,
    /// Whether it is run in a process of its own.
    pub own_process: bool,
    run: fn(&TestContext),
}

impl Case {
    /// The clause it tests, such as `"R5"`.
    pub fn clause(&self) -> String {
        self.name.split('_').next().unwrap_or_default().to_uppercase()
    }

    /// What the contract says there.
    pub fn clause_text(&self) -> &'static str {
        let mark = format!("//! - **{}** ", self.clause());
        let mut lines = include_str!("../contract.rs").lines();
        lines.find_map(|line| line.strip_prefix(&*mark)).unwrap_or("(no such clause)")
    }
}

/// Makes a test of every case of the conformance suite, in a module of the given name.
///
/// The second argument makes a poller: a closure that captures nothing, or a function, which gives
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
    ($($room:ident { $($case:ident)* } own { $($own:ident)* })*) => {
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
    ($($room:ident { $($case:ident)* } own { $($own:ident)* })*) => {
        &[$(
            $(Case { name: stringify!($case), own_process: false, run: $room::$case },)*
            $(Case { name: stringify!($own), own_process: true, run: $room::$own },)*
        )*]
    };
}

/// All cases.
pub const CASES: &[Case] = __conformance_cases! { table };

#[cfg(test)]
mod tests {
    use super::CASES;

    #[test]
    fn every_case_names_a_clause_of_the_contract() {
        for case in CASES {
            assert_ne!(case.clause_text(), "(no such clause)", "{}", case.name);
        }
    }
}
