//! The operations without a kernel: a fake [`Io`](super::Io), random scripts, and an oracle that
//! knows the contract and no code.

mod awaiting;
mod causes;
mod fake_driver;
mod fake_file;
mod fake_files;
mod fake_io;
mod fake_source;
mod file_model;
mod fixture;
mod model;
mod runner;
mod script;
mod send_now;
mod submit;
