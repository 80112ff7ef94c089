//! The command line.

use crate::server::Style;
use lexopt::{Arg, Error, Parser, ValueExt};
use quintpoll::{Backend, Mode, UnknownBackend};

/// The modes and their names on the command line.
const MODES: [(&str, Mode); 3] =
    [("level", Mode::Level), ("edge", Mode::Edge), ("oneshot", Mode::OneShot)];

const STYLES: [&str; 3] = ["readiness", "completion", "multishot"];

/// The command to run.
pub(crate) enum Command {
    Help,
    /// Serve, on the preferred backend of the environment or the crate if none is given.
    Listen {
        backend: Option<Backend>,
        style: Style,
        address: String,
    },
    /// Test this backend, or all of them, in each of these styles, which are named after modes.
    Demo {
        backend: Option<Backend>,
        styles: Vec<(&'static str, Style)>,
    },
}

pub(crate) fn usage() -> String {
    let backends = Backend::ALL.map(|backend| backend.to_string()).join(", ");
    let modes = MODES.map(|(name, _)| name).join(", ");
    format!(
        "\
An echo server on any backend of quintpoll, in any style.

Usage: echo --listen ADDRESS [--backend NAME] [--style NAME] [--mode NAME]
       echo [--backend NAME] [--style NAME] [--mode NAME]

The first form serves until Ctrl-C or SIGTERM, then prints its counts.
The second form tests the server with a client that checks every byte.

Options:
  --listen ADDRESS  host:port to serve; port 0 takes a free one
  --backend NAME    one of {backends}
                    (default to serve: $QUINTPOLL_BACKEND, or the best
                    available; to test: all)
  --style NAME      readiness (the default): waits for readiness events;
                    completion: submits operations with one result each;
                    multishot: submits operations with many results
  --mode NAME       of readiness: one of {modes}
                    (default to serve: level; to test: all)
  --help            print this

Exit status: 0 on success, 1 after an error or a failed verification,
2 if the request cannot be met.
"
    )
}

/// # Errors
///
/// The mistake in the command line, in one line.
pub(crate) fn parse(mut parser: Parser) -> Result<Command, Error> {
    let (mut backend, mut style, mut mode, mut listen) = (None, None, None, None);
    while let Some(arg) = parser.next()? {
        match arg {
            Arg::Long("backend") => backend = Some(parse_backend(&parser.value()?.string()?)?),
            Arg::Long("style") => style = Some(parse_style(&parser.value()?.string()?)?),
            Arg::Long("mode") => mode = Some(parse_mode(&parser.value()?.string()?)?),
            Arg::Long("listen") => listen = Some(parser.value()?.string()?),
            Arg::Long("help") | Arg::Short('h') => return Ok(Command::Help),
            _ => return Err(arg.unexpected()),
        }
    }
    let by_readiness = |(name, mode)| (name, Style::Readiness(mode));
    let styles: Vec<_> = match (style.unwrap_or(STYLES[0]), mode) {
        (style @ ("completion" | "multishot"), Some(_)) => {
            return Err(format!("--style {style} has no modes").into());
        }
        ("completion", None) => vec![("-", Style::Completion)],
        ("multishot", None) => vec![("-", Style::Multishot)],
        (_, Some(mode)) => vec![by_readiness(mode)],
        (_, None) => MODES.map(by_readiness).to_vec(),
    };
    Ok(match listen {
        Some(address) => Command::Listen { backend, style: styles[0].1, address },
        None => Command::Demo { backend, styles },
    })
}

fn parse_backend(name: &str) -> Result<Backend, Error> {
    name.parse().map_err(|error: UnknownBackend| Error::Custom(error.into()))
}

fn parse_style(name: &str) -> Result<&'static str, Error> {
    let known = STYLES.into_iter().find(|known| *known == name);
    known.ok_or_else(|| {
        format!("unknown style {name:?}: the styles are {}", STYLES.join(", ")).into()
    })
}

fn parse_mode(name: &str) -> Result<(&'static str, Mode), Error> {
    let known = MODES.into_iter().find(|(known, _)| *known == name);
    known.ok_or_else(|| {
        let names = MODES.map(|(name, _)| name).join(", ");
        format!("unknown mode {name:?}: the modes are {names}").into()
    })
}
