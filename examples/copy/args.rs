//! The command line.

use crate::direct;
use lexopt::{Arg, Error, Parser, ValueExt};
use quintpoll::{Backend, UnknownBackend};
use std::ffi::OsStr;
use std::path::PathBuf;

const DEFAULT_DEPTH: usize = 8;
/// Measured: smaller blocks are slower with O_DIRECT, and larger ones are not faster.
const DEFAULT_BLOCK: usize = 512 * 1024;
const MAX_DEPTH: usize = 1024;
const MAX_BLOCK: usize = 1 << 30;

pub(crate) enum Command {
    Help,
    Copy(Request),
}

/// The files to copy, and the options.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) source: PathBuf,
    pub(crate) target: PathBuf,
    /// The preferred backend of the environment or the crate if none is given.
    pub(crate) backend: Option<Backend>,
    /// The number of operations in flight.
    pub(crate) depth: usize,
    /// The number of bytes that each of them moves.
    pub(crate) block: usize,
    /// Bypass the page cache.
    pub(crate) direct: bool,
}

pub(crate) fn usage() -> String {
    let backends = Backend::ALL.map(|backend| backend.to_string()).join(", ");
    format!(
        "\
Copies a file on any backend of quintpoll, and reads the copy back to check it.

Usage: copy [OPTIONS] SOURCE TARGET

Options:
  --depth N       operations in flight, from 1 to {MAX_DEPTH} (default {DEFAULT_DEPTH})
  --block SIZE    bytes that each of them moves, up to 1G (default {}K)
  --direct        bypass the page cache (O_DIRECT); --block is a multiple of {}
  --backend NAME  one of {backends}
                  (default: $QUINTPOLL_BACKEND, or the best available)
  --help          print this

A new target gets the permissions of the source less the umask. An existing
file is replaced by a new one with its permissions.

Exit status: 0 if the copy was made and verified; 1 after an error, which leaves
no part of the copy (unless the copy is complete, and only the output or the
sync of its directory failed); 2 if the request cannot be met.
",
        DEFAULT_BLOCK / 1024,
        direct::UNIT
    )
}

/// # Errors
///
/// The mistake in the command line, in one line.
pub(crate) fn parse(mut parser: Parser) -> Result<Command, Error> {
    let (mut depth, mut block, mut direct, mut backend) =
        (DEFAULT_DEPTH, DEFAULT_BLOCK, false, None);
    let mut paths = Vec::new();
    while let Some(arg) = parser.next()? {
        match arg {
            Arg::Long("depth") => depth = parse_depth(&parser.value()?)?,
            Arg::Long("block") => block = parse_size(&parser.value()?)?,
            Arg::Long("direct") => direct = true,
            Arg::Long("backend") => backend = Some(parse_backend(&parser.value()?.string()?)?),
            Arg::Long("help") | Arg::Short('h') => return Ok(Command::Help),
            Arg::Value(path) => paths.push(PathBuf::from(path)),
            _ => return Err(arg.unexpected()),
        }
    }
    let Ok([source, target]) = <[PathBuf; 2]>::try_from(paths) else {
        return Err("it takes a source and a target (--help says more)".into());
    };
    if source.as_os_str().is_empty() || target.as_os_str().is_empty() {
        return Err("no file has an empty name".into());
    }
    if direct && block % direct::UNIT != 0 {
        return Err(format!("with --direct, --block is a multiple of {}", direct::UNIT).into());
    }
    Ok(Command::Copy(Request { source, target, backend, depth, block, direct }))
}

fn parse_depth(value: &OsStr) -> Result<usize, Error> {
    let depth = value.to_str().and_then(|value| value.parse().ok());
    let depth = depth.filter(|depth| (1..=MAX_DEPTH).contains(depth));
    depth.ok_or_else(|| format!("--depth is a number from 1 to {MAX_DEPTH}").into())
}

fn parse_size(value: &OsStr) -> Result<usize, Error> {
    let size = value.to_str().and_then(size_of).filter(|size| (1..=MAX_BLOCK).contains(size));
    size.ok_or_else(|| "--block is a size from 1 to 1G, such as 65536, 64K or 1M".into())
}

fn size_of(value: &str) -> Option<usize> {
    let units = [(['k', 'K'], 10), (['m', 'M'], 20), (['g', 'G'], 30)];
    let with_unit =
        units.into_iter().find_map(|(unit, shift)| Some((value.strip_suffix(unit)?, shift)));
    let (number, shift) = with_unit.unwrap_or((value, 0));
    number.parse::<usize>().ok()?.checked_mul(1 << shift)
}

fn parse_backend(name: &str) -> Result<Backend, Error> {
    name.parse().map_err(|error: UnknownBackend| Error::Custom(error.into()))
}
