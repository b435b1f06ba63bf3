//! Which iterations of a run: one, or all.

use std::str::FromStr;

use crate::cli::error::CliError;
use crate::source::IterationChoice;

/// What `--iteration` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Iterations {
    One(IterationChoice),
    All,
}

impl FromStr for Iterations {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "all" => Ok(Self::All),
            _ => text
                .parse()
                .map(Self::One)
                .map_err(|_| "expected a number, 'release', or for mount and inspect 'all'".to_owned()),
        }
    }
}

impl Iterations {
    /// The one that is meant, for what works on one checkpoint.
    pub(crate) fn one(self) -> Result<IterationChoice, CliError> {
        match self {
            Self::One(choice) => Ok(choice),
            Self::All => Err(CliError::Usage(
                "--iteration all is for 'ckpt-fs mount', which shows each iteration in a directory, and for 'inspect', which lists them; choose one with --iteration N, or mount the run and use what it shows".to_owned(),
            )),
        }
    }
}
