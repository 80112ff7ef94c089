//! Why the program ends without having copied.

use std::fmt::Display;
use std::io;

/// One line for whoever has called it.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It was asked for something that can't be had.
    Request(String),
    /// Something broke on the way.
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

/// An error alone does not say what it was that could not be done.
pub(crate) trait Explain<T> {
    fn explain(self, what: impl Display) -> Result<T, Failure>;
}

impl<T, E: Into<io::Error>> Explain<T> for Result<T, E> {
    fn explain(self, what: impl Display) -> Result<T, Failure> {
        self.map_err(|error| Failure::Run(format!("{what}: {}", error.into())))
    }
}
