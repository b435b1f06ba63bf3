//! The layout asked for: by flags, by the name of a mount point or destination, or not at all.

use std::collections::BTreeSet;
use std::path::Path;

use super::args::LayoutArgs;
use super::error::CliError;
use crate::layout::{LayoutSpec, Stages};

/// What the flags ask for.
pub(super) fn from_flags(args: &LayoutArgs) -> Result<LayoutSpec, CliError> {
    let text = args.pp_layout.as_ref();
    let stages = text.map(|text| text.stages.clone()).or_else(|| Stages::new(args.pp_layers.clone()));
    let in_text = text.map(|text| text.prediction_layers);
    Ok(LayoutSpec { tp: args.tp, pp: args.pp, vpp: args.vpp, ep: args.ep, etp: args.etp, stages, in_text })
}

/// What flags and the name of the mount point or destination ask for together; `None` where neither asks.
pub(super) fn from_name(point: &Path, args: &LayoutArgs) -> Result<Option<LayoutSpec>, CliError> {
    let flags = from_flags(args)?;
    // `.` and what ends in `..` have a name too.
    let real = if point.file_name().is_none() { point.canonicalize().ok() } else { None };
    let name = real.as_deref().unwrap_or(point).file_name();
    let name = name.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let named = match LayoutSpec::parse(&name) {
        Ok(spec) => Some(spec),
        Err(error) if flags.is_empty() && looks_like_a_layout(&name) => {
            let advice = "or give the directory another name";
            return Err(CliError::Usage(format!(
                "the directory's name looks like a layout, but {error}, {advice}"
            )));
        }
        Err(_) => None,
    };
    match named {
        Some(named) if named.contradicts(&flags) => {
            Err(CliError::Usage(format!("the flags ask for {flags}, but the directory is called {name}")))
        }
        Some(named) => Ok(Some(flags.or(named))),
        None if flags.is_empty() => Ok(None),
        None => Ok(Some(flags)),
    }
}

/// `tp` or `pp` and a digit: whoever writes that means a layout.
fn looks_like_a_layout(name: &str) -> bool {
    let after = name.strip_prefix("tp").or_else(|| name.strip_prefix("pp"));
    after.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

/// Ranks written like `0,1,4-7`.
pub(super) fn ranks(text: &str) -> Result<BTreeSet<u32>, CliError> {
    /// No layout has more.
    const MOST: u32 = 1 << 16;
    let wrong = || CliError::Usage(format!("'{text}' is not a list of ranks; write it like 0,1,4-7"));
    let mut ranks = BTreeSet::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| text.trim().parse::<u32>().ok().filter(|n| *n < MOST).ok_or_else(wrong);
        let (first, last) = (number(first)?, number(last)?);
        if first > last {
            return Err(wrong());
        }
        ranks.extend(first..=last);
    }
    Ok(ranks)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(tp: Option<u32>, pp: Option<u32>, pp_layers: &[u32]) -> LayoutArgs {
        LayoutArgs {
            tp,
            pp,
            vpp: None,
            ep: None,
            etp: None,
            pp_layers: pp_layers.to_vec(),
            pp_layout: None,
            vocab_fill: None,
            rng: None,
        }
    }

    fn asked(point: &str, args: &LayoutArgs) -> Result<Option<String>, String> {
        let spec = from_name(Path::new(point), args).map_err(|error| error.to_string())?;
        Ok(spec.map(|spec| spec.to_string()))
    }

    #[test]
    fn names_and_flags_say_the_layout() {
        let none = flags(None, None, &[]);
        assert_eq!(asked("/mnt/tp8pp4", &none), Ok(Some("tp8pp4".into())));
        assert_eq!(asked("/mnt/ck", &none), Ok(None));
        assert_eq!(asked("/mnt/ck", &flags(Some(4), None, &[])), Ok(Some("tp4".into())));
        assert_eq!(asked("/mnt/tp4", &flags(None, None, &[10, 32])), Ok(Some("tp4pp2@10,32".into())));
        assert!(asked("/mnt/tp8pp4", &flags(Some(4), None, &[])).unwrap_err().contains("tp8pp4"));
        assert!(asked("/mnt/tp08", &none).unwrap_err().contains("looks like a layout"));
        assert_eq!(asked("/mnt/tp08", &flags(Some(4), None, &[])), Ok(Some("tp4".into())));
    }

    #[test]
    fn ranks_are_lists_and_ranges() {
        assert_eq!(ranks("0,1,4-6").unwrap(), BTreeSet::from([0, 1, 4, 5, 6]));
        for bad in ["", "a", "3-1", "1,,2", "0-99999999"] {
            assert!(ranks(bad).is_err(), "{bad}");
        }
    }
}
