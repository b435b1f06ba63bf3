//! The metadata of a directory: one `.metadata`, or one of each rank; and what to say where it is not there.

use std::path::Path;

use crate::format::dcp::merge::merge;
use crate::format::dcp::metadata::{MAX_LEN, Metadata, decode};
use crate::format::dcp::names::{METADATA, METADATA_JSON, is_unfinished, rank_of};
use crate::source::aux_files::read_small;
use crate::source::workers::in_parallel;
use crate::source::{SourceError, some_of};

/// What torch calls data files.
const DATA: &str = ".distcp";

/// Whether these names are those in such a directory, complete or not.
pub(in crate::source) fn is_checkpoint(names: &[String]) -> bool {
    let is_one =
        |name: &String| name == METADATA || rank_of(name).is_some() || is_unfinished(name) || is_data(name);
    names.iter().any(is_one)
}

/// Whether the checkpoint with these names is one of Megatron's, whose own metadata only it writes.
pub(in crate::source) fn is_megatrons(names: &[String]) -> bool {
    names.iter().any(|name| name == METADATA_JSON)
}

fn is_data(name: &str) -> bool {
    name.starts_with("__") && name.ends_with(DATA)
}

/// Reads the metadata of `path`, a directory with these names in it.
pub(super) fn read(path: &Path, names: &[String]) -> Result<Metadata, SourceError> {
    if names.iter().any(|name| name == METADATA) {
        return read_one(path, METADATA);
    }
    // Each rank says what it has itself.
    let mut ranks: Vec<(u32, &String)> = names.iter().filter_map(|name| Some((rank_of(name)?, name))).collect();
    ranks.sort();
    if ranks.is_empty() {
        return Err(without(path, names));
    }
    if let Some((missing, _)) = (0..).zip(&ranks).find(|(number, (rank, _))| number != rank) {
        let what = format!("each rank saved its own metadata, and __{missing}{METADATA} is not there; copy it too");
        return Err(SourceError::NotACheckpoint { path: path.to_owned(), what });
    }
    let read = in_parallel(&ranks, |(rank, name)| Ok((*rank, read_one(path, name)?)))?;
    merge(read).map_err(|source| SourceError::Dcp { file: path.display().to_string(), source })
}

fn read_one(path: &Path, name: &str) -> Result<Metadata, SourceError> {
    let file = path.join(name);
    let bytes = read_small(&file, MAX_LEN)?;
    decode(&bytes).map_err(|source| SourceError::Dcp { file: file.display().to_string(), source })
}

/// What to say of a directory without any.
fn without(path: &Path, names: &[String]) -> SourceError {
    let unfinished: Vec<String> = names.iter().filter(|name| is_unfinished(name)).cloned().collect();
    let what = if unfinished.is_empty() {
        format!(
            "it has the data of a distributed checkpoint, but no {METADATA}, which says what is where: either the save was interrupted, or the file was not copied along (its name is hidden: `cp dir/*` leaves it out)"
        )
    } else {
        format!(
            "an interrupted save of a distributed checkpoint: it has {} and no {METADATA}; pass an older one",
            some_of(&unfinished)
        )
    };
    SourceError::NotACheckpoint { path: path.to_owned(), what }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_such_a_directory() {
        let is = |names: &[&str]| is_checkpoint(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        for name in [".metadata", ".metadata.tmp", "__0.metadata", "__12.metadata.tmp", "__0_0.distcp"] {
            assert!(is(&["config.json", name]), "{name}");
        }
        for name in ["metadata.json", "__a.metadata", "__01.metadata", "x.metadata", "a.distcp.json", "__0_0.distcp.txt"] {
            assert!(!is(&[name]), "{name}");
        }
    }

    #[test]
    fn what_is_missing_is_said() {
        let said = |names: &[&str]| {
            without(Path::new("d"), &names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).to_string()
        };
        assert!(said(&["__0_0.distcp"]).contains("was not copied along"));
        assert!(said(&["__0_0.distcp", ".metadata.tmp"]).contains("an interrupted save"));
        assert!(said(&["__3.metadata.tmp"]).contains("it has __3.metadata.tmp"));
    }
}
