//! Which messages are written: a level, or a filter in the words of `RUST_LOG`.
//!
//! Not here: where they are written (`log`).

use std::env;

use env_filter::{Builder, Filter};
use log::LevelFilter;

use super::error::CliError;

/// Where other programs in Rust look, too.
const VARIABLE: &str = "RUST_LOG";

/// Names of our messages begin with this, those of the FUSE library with the other.
const OURS: &str = "ckpt_fs";
const LIBRARY: &str = "fuser";

/// What is written where nobody says otherwise: what a reader got an error for.
const USUAL: LevelFilter = LevelFilter::Warn;

/// The filter of `--log-level`, or without that of `RUST_LOG`.
pub(super) fn filter(given: Option<&str>) -> Result<Filter, CliError> {
    if let Some(given) = given {
        // It was looked at with the other arguments.
        return parse(given).map_err(CliError::Usage);
    }
    match env::var(VARIABLE) {
        Ok(text) => parse(&text).map_err(|wrong| CliError::Usage(format!("{VARIABLE}={text}: {wrong}"))),
        Err(env::VarError::NotPresent) => parse("").map_err(CliError::Usage),
        Err(env::VarError::NotUnicode(_)) => Err(CliError::Usage(format!("{VARIABLE}: {}", expected()))),
    }
}

fn expected() -> String {
    "expected off, error, warn, info, debug or trace, or a filter such as 'ckpt_fs=debug' or 'warn,ckpt_fs::fuse=trace'"
        .to_owned()
}

/// What is typed after `--log-level`, as it is if it is a filter.
pub(super) fn checked(text: &str) -> Result<String, String> {
    parse(text).map(|_| text.to_owned())
}

fn parse(text: &str) -> Result<Filter, String> {
    let directives = text.split('/').next().unwrap_or_default();
    let directives: Vec<&str> =
        directives.split(',').map(str::trim).filter(|directive| !directive.is_empty()).collect();
    let is_level = |word: &str| word.parse::<LevelFilter>().is_ok();
    // The parser takes a word that it does not know for a module, and a misspelled level would be silence.
    let unknown = directives.iter().find(|word| {
        let is_module = word.contains("::") || [OURS, LIBRARY].contains(*word);
        !word.contains('=') && !is_level(word) && !is_module
    });
    if let Some(word) = unknown {
        return Err(format!("'{word}' is no level; {}", expected()));
    }
    let mut builder = Builder::new();
    // Who asks for a part of our messages, or for those of other programs, still gets the usual ones.
    if !directives.iter().any(|word| is_level(word) || word.split('=').next() == Some(OURS)) {
        builder.filter_module(OURS, USUAL);
    }
    let parsed = builder.try_parse(text).map_err(|error| format!("{error}; {}", expected()))?;
    Ok(parsed.build())
}

#[cfg(test)]
mod tests {
    use log::{Level, Metadata};

    use super::*;

    /// The lowest level that is written, by the name of what says it.
    fn lowest(text: &str) -> [Option<Level>; 4] {
        let filter = parse(text).unwrap();
        ["ckpt_fs::cli", "ckpt_fs::fuse::requests", "fuser::session", "other"].map(|target| {
            let is_on =
                |level: &Level| filter.enabled(&Metadata::builder().target(target).level(*level).build());
            Level::iter().take_while(is_on).last()
        })
    }

    #[test]
    fn filters_are_those_of_other_programs() {
        use Level::{Debug, Error, Info, Trace, Warn};
        for (text, expected) in [
            ("", [Some(Warn), Some(Warn), None, None]),
            ("info", [Some(Info); 4]),
            ("WARN", [Some(Warn); 4]),
            ("off", [None; 4]),
            ("ckpt_fs=debug", [Some(Debug), Some(Debug), None, None]),
            ("ckpt_fs", [Some(Trace), Some(Trace), None, None]),
            ("warn,ckpt_fs::fuse=trace", [Some(Warn), Some(Trace), Some(Warn), Some(Warn)]),
            ("ckpt_fs::fuse=trace", [Some(Warn), Some(Trace), None, None]),
            ("fuser=debug", [Some(Warn), Some(Warn), Some(Debug), None]),
            ("other=info", [Some(Warn), Some(Warn), None, Some(Info)]),
            ("error, fuser", [Some(Error), Some(Error), Some(Trace), Some(Error)]),
            ("ckpt_fs=error,ckpt_fs::cli=info", [Some(Info), Some(Error), None, None]),
        ] {
            assert_eq!(lowest(text), expected, "{text}");
        }
    }

    #[test]
    fn words_that_messages_must_have_are_taken() {
        let filter = parse("ckpt_fs=debug/tp8").unwrap();
        let written = |text: &str| {
            filter.matches(
                &log::Record::builder()
                    .target("ckpt_fs::vfs")
                    .level(Level::Debug)
                    .args(format_args!("{text}"))
                    .build(),
            )
        };
        assert!(written("tp8pp4: is not there") && !written("tp4pp4: is not there"));
    }

    #[test]
    fn what_is_none_is_refused_with_an_example() {
        for text in ["loud", "warm", "ckpt_fs=loud", "a=b=c", "info,loud", "info/a/b", "ckptfs"] {
            let said = parse(text).unwrap_err();
            assert!(said.contains("'warn,ckpt_fs::fuse=trace'"), "{text}: {said}");
        }
    }
}
