//! Which step of a run: torchtitan's `step-1000` below the directory of its checkpoints, the Trainer's `checkpoint-1000`.

use std::path::{Path, PathBuf};

use crate::catalog::Iteration;
use crate::source::locate::list;
use crate::source::{IterationChoice, SourceError, dcp, some_of};

/// What torchtitan calls the directory of a step.
const STEP: &str = "step-";

/// What the Trainer calls it.
const TRAINER: &str = "checkpoint-";

fn number_of(name: &str, start: &str) -> Option<u64> {
    let digits = name.strip_prefix(start)?;
    if digits.bytes().all(|byte| byte.is_ascii_digit()) { digits.parse().ok() } else { None }
}

/// The directory of the step that is meant, where `path` is one of torchtitan's with these names in it: the newest, or the one that is asked
/// for.
pub(in crate::source) fn newest(
    path: &Path,
    names: &[String],
    choice: Option<IterationChoice>,
) -> Result<Option<PathBuf>, SourceError> {
    let is_one = |name: &str| list(&path.join(name)).is_ok_and(|names| dcp::is_checkpoint(&names));
    let mut steps: Vec<(u64, &String)> =
        names.iter().filter_map(|name| Some((number_of(name, STEP)?, name))).collect();
    steps.sort();
    // The last one may be of another kind: a model alone, as Hugging Face has it.
    if !steps.iter().any(|(_, name)| is_one(name)) {
        return Ok(None);
    }
    let Some((_, newest)) = steps.last() else { return Ok(None) };
    match choice {
        None => Ok(Some(path.join(newest))),
        Some(IterationChoice::Number(wanted)) => match steps.iter().find(|(number, _)| *number == wanted) {
            Some((_, name)) => Ok(Some(path.join(name))),
            None => Err(lacks(path, &format!("step {wanted}"), &steps)),
        },
        Some(IterationChoice::Release) => Err(lacks(path, "release", &steps)),
    }
}

fn lacks(path: &Path, what: &str, steps: &[(u64, &String)]) -> SourceError {
    let there: Vec<String> = steps.iter().map(|(_, name)| (*name).clone()).collect();
    let what = format!("--iteration asks for {what}, which is not there; there are: {}", some_of(&there));
    SourceError::NotACheckpoint { path: path.to_owned(), what }
}

/// The iteration of a checkpoint, by the name of its directory or by what the user says of one that has another name.
pub(super) fn iteration(path: &Path, choice: Option<IterationChoice>) -> Result<Iteration, SourceError> {
    let name = path.canonicalize().ok().and_then(|path| Some(path.file_name()?.to_str()?.to_owned()));
    let named = name.and_then(|name| number_of(&name, STEP).or_else(|| number_of(&name, TRAINER)));
    let (named, chosen) = (named.map(Iteration::Number), choice.map(Iteration::from));
    match (named, chosen) {
        (Some(named), Some(chosen)) if named != chosen => {
            let what = format!("this is step {named}, not {chosen}; pass the directory above it");
            Err(SourceError::NotACheckpoint { path: path.to_owned(), what })
        }
        (named, chosen) => Ok(named.or(chosen).unwrap_or(Iteration::Release)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Steps of these names, each with metadata; what begins with x has none.
    fn run(names: &[&str]) -> tempfile::TempDir {
        let run = tempfile::tempdir().unwrap();
        for name in names {
            std::fs::create_dir(run.path().join(name)).unwrap();
            let file = if name.ends_with('x') { "config.json" } else { ".metadata" };
            std::fs::write(run.path().join(name).join(file), "").unwrap();
        }
        run
    }

    #[test]
    fn the_newest_step_is_that_of_the_largest_number() {
        let names = ["step-1000", "step-500", "step-tmp", "x"];
        let run = run(&names);
        let newest_of = |names: &[&str], choice| {
            newest(run.path(), &names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>(), choice)
        };
        let step = |name| Some(run.path().join(name));
        assert_eq!(newest_of(&names, None).unwrap(), step("step-1000"));
        assert_eq!(newest_of(&names, Some(IterationChoice::Number(500))).unwrap(), step("step-500"));
        let error = newest_of(&names, Some(IterationChoice::Number(7))).unwrap_err().to_string();
        assert!(error.contains("step 7") && error.contains("step-500, step-1000"), "{error}");
        assert_eq!(newest_of(&["x", "checkpoint-5"], None).unwrap(), None);
    }

    /// Models that are saved step by step are none of torchtitan's: the one that is meant is not for us to say.
    #[test]
    fn steps_of_another_kind_are_not_chosen_among() {
        let run = tempfile::tempdir().unwrap();
        std::fs::create_dir(run.path().join("step-1")).unwrap();
        std::fs::write(run.path().join("step-1/config.json"), "{}").unwrap();
        assert_eq!(newest(run.path(), &["step-1".to_owned()], None).unwrap(), None);
    }

    #[test]
    fn a_directory_says_its_step() {
        let dir = tempfile::tempdir().unwrap();
        let step = dir.path().join("step-20");
        std::fs::create_dir(&step).unwrap();
        assert_eq!(iteration(&step, None).unwrap(), Iteration::Number(20));
        assert!(iteration(&step, Some(IterationChoice::Number(3))).is_err());
        assert_eq!(iteration(dir.path(), Some(IterationChoice::Number(3))).unwrap(), Iteration::Number(3));
    }
}
