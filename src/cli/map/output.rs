//! Where a drawing goes: to standard output, a file that is whole or not there, or a descriptor that a shell names.
//!
//! Not here: what is drawn.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write, stdout};
use std::path::{Path, PathBuf};

use crate::cli::error::CliError;

/// What was asked for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Output<'a> {
    Stdout,
    Path(&'a Path),
}

/// A place that may be written.
#[derive(Debug)]
pub(super) enum Target {
    Stdout,
    /// What cannot be replaced and is written as it stands.
    Stream(PathBuf),
    /// A file, where links lead.
    File(PathBuf),
}

impl<'a> Output<'a> {
    pub(super) fn of(path: Option<&'a Path>) -> Self {
        path.filter(|path| *path != Path::new("-")).map_or(Self::Stdout, Self::Path)
    }

    /// Refused where it lies in one of `sources` (links resolved), or is something else than a file.
    pub(super) fn checked(self, sources: &[PathBuf]) -> Result<Target, CliError> {
        let Self::Path(path) = self else { return Ok(Target::Stdout) };
        let failed = |source| CliError::Destination { path: path.display().to_string(), source };
        let no_file = |what| CliError::NoFile { path: path.display().to_string(), what };
        let target = resolved(path).map_err(failed)?;
        if sources.iter().any(|place| target.starts_with(place)) {
            return Err(CliError::OverSource { path: path.display().to_string() });
        }
        if path == Path::new("/dev/stdout") {
            return Ok(Target::Stdout);
        }
        if is_stream(path) {
            return Ok(Target::Stream(path.to_owned()));
        }
        match fs::metadata(&target) {
            Ok(there) if there.is_dir() => Err(no_file("a directory")),
            Ok(there) if !there.is_file() => Err(no_file("not a regular file")),
            Ok(_) => Ok(Target::File(target)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Target::File(target)),
            Err(error) => Err(failed(error)),
        }
    }
}

impl Target {
    pub(super) fn is_stdout(&self) -> bool {
        matches!(self, Self::Stdout)
    }

    pub(super) fn write(&self, bytes: &[u8]) -> Result<(), CliError> {
        match self {
            Self::Stdout => Ok(stdout().lock().write_all(bytes)?),
            // A file that a shell opened for others too keeps what they wrote.
            Self::Stream(path) => {
                let written =
                    File::options().append(true).open(path).and_then(|mut file| file.write_all(bytes));
                written.map_err(|source| CliError::Destination { path: path.display().to_string(), source })
            }
            Self::File(path) => replace(path, bytes)
                .map_err(|source| CliError::Destination { path: path.display().to_string(), source }),
        }
    }
}

/// Where a file is or will be. A link to nothing is an error: what it names is nobody's wish.
fn resolved(path: &Path) -> io::Result<PathBuf> {
    if path.symlink_metadata().is_ok() && !is_stream(path) {
        return path.canonicalize();
    }
    let Some(name) = path.file_name() else { return path.canonicalize() };
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or_else(|| Path::new(".")).canonicalize()?;
    // A descriptor leads to a file only if that has a name.
    Ok(path.canonicalize().unwrap_or_else(|_| parent.join(name)))
}

/// What stands for a descriptor or takes everything: it has no whole that could be put in its place.
fn is_stream(path: &Path) -> bool {
    let all = ["/dev/stdout", "/dev/stderr", "/dev/null", "/dev/tty"];
    let is_descriptor = ["/dev/fd", "/proc/self/fd"].iter().any(|all| path.parent() == Some(Path::new(all)));
    is_descriptor || all.iter().any(|one| path == Path::new(one))
}

/// A file is whole or as it was: it is written beside its place and then put there.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = OsString::from(".");
    name.push(path.file_name().ok_or(io::ErrorKind::InvalidInput)?);
    name.push(format!(".{}", std::process::id()));
    let beside = path.with_file_name(name);
    let mut file = File::options().write(true).create_new(true).open(&beside)?;
    let mut put = || -> io::Result<()> {
        file.write_all(bytes)?;
        if let Ok(there) = fs::metadata(path) {
            file.set_permissions(there.permissions())?;
        }
        file.sync_all()?;
        fs::rename(&beside, path)
    };
    put().inspect_err(|_| {
        // What went wrong is said already.
        let _ = fs::remove_file(&beside);
    })
}
