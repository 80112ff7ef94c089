//! The reactor over a scripted selector, and over the kernel in every column of the latch.

mod calls;
mod columns;
mod delivery;
mod ends;
mod failures;
mod fake;
mod fake_kernel;
mod operations;
mod partial_reports;
