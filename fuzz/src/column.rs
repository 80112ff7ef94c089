//! Whom a script is played to: every backend, and with feature `spi` every column of the latch on
//! every selector that can be forced into it.

#[cfg(feature = "spi")]
use super::forced::{Distortion, Inner, Triggers, open_forced};
use quintpoll::{Backend, Poller};
use std::fmt;
use std::io;

/// A poller under test, with what can be seen of it from behind.
pub trait Subject {
    /// The poller.
    fn poller(&mut self) -> &mut dyn Poller;

    /// Checks the invariants, where they can be got at; panics if one does not hold.
    fn verify(&self);

    /// How often it has looked into the kernel so far, where that can be seen.
    fn looks(&self) -> usize;

    /// How often the kernel's reports have got lost so far.
    fn losses(&self) -> usize;
}

/// What a subject is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    /// As any program gets it.
    Backend(Backend),
    /// A selector that may use these triggers only, and is not always honest.
    #[cfg(feature = "spi")]
    Forced(Inner, Triggers, Distortion),
    /// The same, without the operations that the selector has.
    #[cfg(feature = "spi")]
    Unaided(Inner, Triggers, Distortion),
}

impl Column {
    /// All of them. Some backends may not be available.
    pub fn all() -> Vec<Column> {
        let columns = Backend::ALL.into_iter().map(Column::Backend);
        #[cfg(feature = "spi")]
        let columns = columns.chain(Inner::ALL.into_iter().flat_map(|inner| {
            inner.columns().into_iter().flat_map(move |triggers| {
                let distortions = Distortion::ALL.into_iter();
                distortions.map(move |distortion| Column::Forced(inner, triggers, distortion))
            })
        }));
        columns.collect()
    }

    /// Those that are no backends, and those of them that have operations once more without.
    pub fn guests() -> Vec<Column> {
        #[cfg(not(feature = "spi"))]
        return Vec::new();
        #[cfg(feature = "spi")]
        Column::all()
            .into_iter()
            .flat_map(|column| match column {
                Column::Forced(inner, triggers, distortion) if inner.has_operations() => {
                    vec![column, Column::Unaided(inner, triggers, distortion)]
                }
                Column::Forced(..) => vec![column],
                _ => Vec::new(),
            })
            .collect()
    }

    /// Makes one.
    ///
    /// # Errors
    ///
    /// `Unsupported` where the backend is not available; else what is wrong.
    pub fn open(self) -> io::Result<Box<dyn Subject>> {
        match self {
            Column::Backend(backend) => Ok(Box::new(Public(backend.open()?))),
            #[cfg(feature = "spi")]
            Column::Forced(inner, triggers, distortion) => {
                open_forced(inner, triggers, distortion, true)
            }
            #[cfg(feature = "spi")]
            Column::Unaided(inner, triggers, distortion) => {
                open_forced(inner, triggers, distortion, false)
            }
        }
    }

    /// Whether the kernel goes on with operations at any moment, not only when it is waited for: in
    /// the midst of what is done at the other end.
    pub fn is_prompt(self) -> bool {
        match self {
            #[cfg(feature = "spi")]
            Column::Forced(inner, ..) => inner == Inner::SmallUring,
            _ => false,
        }
    }

    /// Whether the mechanism is SIGIO, which knows some files by their signals alone.
    pub fn hears_signals(self) -> bool {
        match self {
            Column::Backend(backend) => backend == Backend::Sigio,
            #[cfg(feature = "spi")]
            Column::Forced(inner, ..) | Column::Unaided(inner, ..) => inner == Inner::Sigio,
        }
    }
}

impl fmt::Display for Column {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Column::Backend(backend) => backend.fmt(f),
            #[cfg(feature = "spi")]
            Column::Forced(inner, triggers, distortion) => {
                let names: Vec<_> = triggers.iter_names().map(|(name, _)| name).collect();
                write!(f, "{inner:?} with {}, {distortion:?}", names.join("+"))
            }
            #[cfg(feature = "spi")]
            Column::Unaided(inner, triggers, distortion) => {
                write!(f, "{}, unaided", Column::Forced(*inner, *triggers, *distortion))
            }
        }
    }
}

struct Public(Box<dyn Poller>);

impl Subject for Public {
    fn poller(&mut self) -> &mut dyn Poller {
        &mut *self.0
    }

    fn verify(&self) {}

    fn looks(&self) -> usize {
        0
    }

    fn losses(&self) -> usize {
        0
    }
}
