//! A copy of the repository, in which files can be changed.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Files of the repository, also those that are not committed yet.
pub fn files(root: &Path) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let listed = Command::new("git")
        .args(["ls-files", "-co", "--exclude-standard", "-z"])
        .current_dir(root)
        .output()?;
    if !listed.status.success() {
        return Err("git ls-files failed".into());
    }
    let names = String::from_utf8(listed.stdout)?;
    let files = names.split('\0').filter(|name| !name.is_empty()).map(PathBuf::from);
    Ok(files.filter(|file| root.join(file).is_file()).collect())
}

/// Brings `to` up to the repository, but for the files `changed`, which have another text there.
pub fn update(root: &Path, to: &Path, changed: &[(PathBuf, String)]) -> Result<(), Box<dyn Error>> {
    for file in files(root)? {
        if !["mutants", "fuzz", "docs"].iter().any(|other| file.starts_with(other))
            && changed.iter().all(|(path, _)| *path != file)
        {
            write(&to.join(&file), &fs::read(root.join(&file))?)?;
        }
    }
    changed.iter().try_for_each(|(file, text)| write(&to.join(file), text.as_bytes()))
}

/// What stays the same keeps its time, so that cargo builds nothing for it.
fn write(path: &Path, bytes: &[u8]) -> Result<(), Box<dyn Error>> {
    if fs::read(path).is_ok_and(|before| before == bytes) {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(path, bytes)?;
    Ok(())
}
