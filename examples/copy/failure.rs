//! The errors of the program.

use std::fmt::Display;
use std::io;

/// The reason why the program failed, in one line.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The request cannot be met.
    Request(String),
    /// An error at run time.
    Run(String),
}

impl Failure {
    pub(crate) fn request(cause: impl Display) -> Self {
        Failure::Request(cause.to_string())
    }

    pub(crate) fn run(cause: impl Display) -> Self {
        Failure::Run(cause.to_string())
    }
}

/// Adds to an error what could not be done.
pub(crate) trait Explain<T> {
    fn explain(self, what: impl Display) -> Result<T, Failure>;
}

impl<T, E: Into<io::Error>> Explain<T> for Result<T, E> {
    fn explain(self, what: impl Display) -> Result<T, Failure> {
        self.map_err(|error| Failure::Run(format!("{what}: {}", error.into())))
    }
}
