//! The operations without a kernel: a fake of [`Io`](super::Io), random scripts, and an oracle that
//! knows what the contract promises and nothing of the code.

mod causes;
mod fake_driver;
mod fake_file;
mod fake_files;
mod fake_io;
mod fake_source;
mod file_model;
mod model;
mod parking;
mod runner;
mod scene;
mod script;
mod sending;
mod submit;
