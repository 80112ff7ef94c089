//! The reactor over a selector that says what a test wants said, and over the kernel in every
//! column that the latch knows.

mod calls;
mod columns;
mod delivery;
mod ends;
mod failures;
mod fake;
mod kernel;
mod operations;
mod parts;
