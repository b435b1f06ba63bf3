//! Which mounts of ours exist, whether one is dead, and how to take one away.
//!
//! Not here: making one (`mount`).

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
use rustix::io::Errno;
use rustix::mount::UnmountFlags;

use super::FILE_SYSTEM_TYPE;
use super::device::helper_program;
use super::error::UnmountError;

/// One line of the kernel's table of mounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountEntry {
    /// Device number, major and minor: one mount of ours, wherever it is bound to.
    pub device: (u32, u32),
    /// Where it is.
    pub point: PathBuf,
    /// Type of file system.
    pub kind: String,
    /// What it shows: of our mounts, the path of the checkpoint.
    pub source: OsString,
}

impl MountEntry {
    /// Whether `ckpt-fs` made it.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        self.kind == FILE_SYSTEM_TYPE
    }

    /// Whether it is a FUSE mount, ours or one that another program made.
    #[must_use]
    pub fn is_fuse(&self) -> bool {
        self.kind == "fuse" || self.kind.starts_with("fuse.")
    }
}

/// When an unmount takes effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detach {
    /// Only when nobody uses it.
    WhenIdle,
    /// For new users at once, for present ones when they close their files.
    Lazily,
}

/// All mounts that this process sees, in the order they were made.
///
/// # Errors
/// `/proc/self/mountinfo` cannot be read.
pub fn all() -> io::Result<Vec<MountEntry>> {
    let table = std::fs::read("/proc/self/mountinfo")?;
    Ok(table.split(|byte| *byte == b'\n').filter_map(parse_line).collect())
}

/// The mount seen at `point` (an absolute path), if it is a mount point: the topmost where several lie on each other.
///
/// # Errors
/// As [`all`].
pub fn at(point: &Path) -> io::Result<Option<MountEntry>> {
    Ok(all()?.into_iter().rev().find(|entry| entry.point == point))
}

/// Whether a mount of ours is seen at `path`, alive or dead.
#[must_use]
pub fn is_ours(path: &Path) -> bool {
    absolute(path).and_then(|point| at(&point)).is_ok_and(|entry| entry.is_some_and(|entry| entry.is_ours()))
}

/// Whether the mount at `point` has lost its process: every access to it fails with ENOTCONN.
#[must_use]
pub fn is_dead(point: &Path) -> bool {
    // Forced, because the kernel would answer from attributes that it still keeps.
    let answer = statx(CWD, point, AtFlags::STATX_FORCE_SYNC, StatxFlags::BASIC_STATS);
    matches!(answer, Err(Errno::NOTCONN | Errno::CONNABORTED))
}

/// Takes the mount of ours at `path` away.
///
/// # Errors
/// [`UnmountError`]; [`UnmountError::Busy`] only with [`Detach::WhenIdle`].
pub fn unmount(path: &Path, detach: Detach) -> Result<(), UnmountError> {
    take_away(&find(path)?.point, detach)
}

/// The mount of ours at `path`.
///
/// # Errors
/// [`UnmountError::NotOurs`], or that it cannot be looked up.
pub fn find(path: &Path) -> Result<MountEntry, UnmountError> {
    let failed = |action, source| UnmountError::Io { path: path.to_owned(), action, source };
    let point = absolute(path).map_err(|source| failed("find", source))?;
    let entry = at(&point).map_err(|source| failed("look up mounts of", source))?;
    match entry {
        Some(entry) if entry.is_ours() => Ok(entry),
        other => Err(UnmountError::NotOurs { path: path.to_owned(), found: other.map(|entry| entry.kind) }),
    }
}

/// The absolute path of `path` without links, also where it is a dead mount.
pub(super) fn absolute(path: &Path) -> io::Result<PathBuf> {
    path.canonicalize().or_else(|error| match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) if error.kind() != io::ErrorKind::NotFound => {
            let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
            Ok(parent.canonicalize()?.join(name))
        }
        _ => Err(error),
    })
}

/// Unmounts whatever is at `point`: by system call, or through the helper where that is not permitted.
pub(super) fn take_away(point: &Path, detach: Detach) -> Result<(), UnmountError> {
    let flags = match detach {
        Detach::WhenIdle => UnmountFlags::NOFOLLOW,
        Detach::Lazily => UnmountFlags::NOFOLLOW | UnmountFlags::DETACH,
    };
    match rustix::mount::unmount(point, flags) {
        Ok(()) => Ok(()),
        Err(Errno::BUSY) => Err(UnmountError::Busy { path: point.to_owned() }),
        Err(Errno::PERM) => take_away_through_helper(point, detach),
        Err(error) => {
            Err(UnmountError::Io { path: point.to_owned(), action: "unmount", source: error.into() })
        }
    }
}

fn take_away_through_helper(point: &Path, detach: Detach) -> Result<(), UnmountError> {
    let program = helper_program();
    let mut command = Command::new(&program);
    command
        .arg("-u")
        .args((detach == Detach::Lazily).then_some("-z"))
        .arg("--")
        .arg(point)
        .env("LC_ALL", "C");
    let output = command.output().map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => UnmountError::HelperMissing { program: program.display().to_string() },
        _ => UnmountError::Io { path: point.to_owned(), action: "run fusermount3 for", source },
    })?;
    let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    match output.status.success() {
        true => Ok(()),
        false if message.contains("resource busy") => Err(UnmountError::Busy { path: point.to_owned() }),
        false => Err(UnmountError::Helper { path: point.to_owned(), message }),
    }
}

/// `id parent major:minor root point options [optional...] - type source super-options`
fn parse_line(line: &[u8]) -> Option<MountEntry> {
    let mut fields = line.split(|byte| *byte == b' ');
    let device = std::str::from_utf8(fields.nth(2)?).ok()?;
    let (major, minor) = device.split_once(':')?;
    let device = (major.parse().ok()?, minor.parse().ok()?);
    let point = PathBuf::from(unescape(fields.nth(1)?));
    fields.find(|field| *field == b"-")?;
    let kind = unescape(fields.next()?).to_string_lossy().into_owned();
    let source = unescape(fields.next()?);
    Some(MountEntry { device, point, kind, source })
}

/// Undoes the kernel's `\ooo` for blanks, line ends and backslashes.
fn unescape(field: &[u8]) -> OsString {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        let byte;
        (byte, rest) = match rest {
            [b'\\', a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', behind @ ..] => {
                ((a - b'0') * 64 + (b - b'0') * 8 + (c - b'0'), behind)
            }
            _ => (*first, tail),
        };
        bytes.push(byte);
    }
    OsString::from_vec(bytes)
}

/// What a mount shows, for messages.
#[must_use]
pub fn source_name(entry: &MountEntry) -> String {
    String::from_utf8_lossy(entry.source.as_bytes()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_understood() {
        let line = br"36 35 0:47 / /mnt/a\040b\134c ro,nosuid shared:7 master:1 - fuse.ckpt-fs /data/run\0401 ro,user_id=0";
        let entry = parse_line(line).unwrap();
        assert_eq!(entry.device, (0, 47));
        assert_eq!(entry.point, Path::new(r"/mnt/a b\c"));
        assert_eq!(entry.source, "/data/run 1");
        assert!(entry.is_ours());
        let without_optional = parse_line(b"1 0 8:1 / / rw - ext4 /dev/sda1 rw").unwrap();
        assert_eq!((&*without_optional.kind, without_optional.is_ours()), ("ext4", false));
        for broken in [&b""[..], b"1 0", b"1 0 x:y / / rw - a b c", b"1 0 0:1 / / rw a b c"] {
            assert_eq!(parse_line(broken), None);
        }
    }

    #[test]
    fn escapes_at_the_end_are_kept() {
        for (field, expected) in
            [(r"\04", r"\04"), (r"\", r"\"), (r"\040", " "), (r"\0401", " 1"), (r"\777", r"\777")]
        {
            assert_eq!(unescape(field.as_bytes()), expected);
        }
    }

    #[test]
    fn the_root_is_mounted_and_not_ours() {
        assert!(at(Path::new("/")).unwrap().is_some_and(|entry| !entry.is_ours()));
        assert!(matches!(
            unmount(Path::new("/"), Detach::WhenIdle),
            Err(UnmountError::NotOurs { found: Some(_), .. })
        ));
        let dir = tempfile::tempdir().unwrap();
        let error = unmount(dir.path(), Detach::Lazily).unwrap_err();
        assert!(matches!(error, UnmountError::NotOurs { found: None, .. }));
        assert!(error.to_string().ends_with("not a ckpt-fs mount"), "{error}");
        assert!(matches!(unmount(&dir.path().join("x"), Detach::Lazily), Err(UnmountError::Io { .. })));
    }
}
