//! Facts of this process and its system that decide about mounts.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::process::geteuid;
use rustix::system::uname;
use rustix::thread::{CapabilitySet, capabilities, no_new_privs};

use super::{FileSystem, Trial};
use crate::fuse::{DEVICE, helper_program};
use crate::sys::limits::open_files;
use crate::sys::memory_left::{Memory, memory};
use crate::sys::namespaces::owns_mounts;
use crate::sys::process::{has_proc, is_root_of_all};

/// What is so.
#[derive(Debug)]
pub struct Facts {
    /// Whether `/proc` is there. Without it nobody knows whose root this is, whose the mounts are, and what memory there is.
    pub has_proc: bool,
    /// Who asks.
    pub user: User,
    /// What kind of container this is in, if it says so.
    pub container: Option<&'static str>,
    /// What came of opening `/dev/fuse`.
    pub device: io::Result<()>,
    /// The program that mounts for users other than root.
    pub helper: Helper,
    /// Whether `/etc/fuse.conf` lets users other than root choose who may use their mounts.
    pub allows_others: bool,
    /// The kernel's release, e.g. `6.18.1`.
    pub kernel: String,
    /// Memory of this process.
    pub memory: Option<Memory>,
    /// What `--cache-size` is unless it is said.
    pub cache_size: u64,
    /// Files that may be open; `None` without a limit.
    pub open_files: Option<u64>,
    /// The file system of the source, where one was named.
    pub source: Option<FileSystem>,
    /// What came of a mount.
    pub trial: Trial,
}

/// Who asks, and what the system lets them do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct User {
    /// Root, in whatever namespace of users.
    pub is_root: bool,
    /// Root of the machine.
    pub is_root_of_all: bool,
    /// Whether the right to mount (`CAP_SYS_ADMIN`) is there.
    pub may_mount: bool,
    /// Whether the mounts that it sees are those of another namespace of users, over which that right has no power.
    pub sees_foreign_mounts: bool,
    /// Whether programs that are started get no rights of their own: set-user-ID has no effect then.
    pub no_new_privileges: bool,
}

/// The program that mounts for users other than root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Helper {
    /// What it is called.
    pub program: String,
    /// Where it is; `None` where it is not found.
    pub path: Option<PathBuf>,
    /// Whether it runs as root whoever starts it.
    pub is_setuid_root: bool,
}

impl Facts {
    /// All of them. What the system does not say counts as not so.
    #[must_use]
    pub fn gather(cache_size: u64, source: Option<FileSystem>, trial: Trial) -> Self {
        let conf = fs::read_to_string("/etc/fuse.conf").unwrap_or_default();
        let program = helper_program();
        let path = find(&program);
        let is_root_file = |path: &PathBuf| {
            fs::metadata(path).is_ok_and(|file| file.uid() == 0 && file.permissions().mode() & 0o4000 != 0)
        };
        Self {
            has_proc: has_proc(),
            user: user(),
            container: container(),
            device: fs::OpenOptions::new().read(true).write(true).open(DEVICE).map(|_| ()),
            helper: Helper {
                program: program.display().to_string(),
                is_setuid_root: path.as_ref().is_some_and(is_root_file),
                path,
            },
            allows_others: allows_others(&conf),
            kernel: uname().release().to_string_lossy().into_owned(),
            memory: memory(),
            cache_size,
            open_files: open_files(),
            source,
            trial,
        }
    }
}

/// By system calls: they are there where `/proc` is not.
fn user() -> User {
    let rights = capabilities(None).map(|sets| sets.effective);
    User {
        is_root: geteuid().is_root(),
        is_root_of_all: is_root_of_all(),
        may_mount: rights.is_ok_and(|rights| rights.contains(CapabilitySet::SYS_ADMIN)),
        sees_foreign_mounts: owns_mounts() == Some(false),
        no_new_privileges: no_new_privs().unwrap_or(false),
    }
}

/// Whether a line of `/etc/fuse.conf` says so; what stands behind a `#` does not count.
fn allows_others(conf: &str) -> bool {
    conf.lines().any(|line| line.split('#').next().is_some_and(|line| line.trim() == "user_allow_other"))
}

/// By what container engines leave for those who look.
fn container() -> Option<&'static str> {
    let is_there = |path: &str| Path::new(path).exists();
    let says = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    if says("KUBERNETES_SERVICE_HOST") {
        Some("Kubernetes")
    } else if is_there("/run/.containerenv") {
        Some("Podman")
    } else if is_there("/.dockerenv") {
        Some("Docker")
    } else if says("APPTAINER_NAME") || says("SINGULARITY_NAME") {
        Some("Apptainer")
    } else if says("container") {
        Some("a container")
    } else {
        None
    }
}

/// Where the C library looks for programs where no `PATH` is set.
const UNSAID_PATH: &str = if cfg!(target_env = "musl") { "/usr/local/bin:/bin:/usr/bin" } else { "/bin:/usr/bin" };

/// Where a program is that is started by this name.
fn find(program: &Path) -> Option<PathBuf> {
    let is_program = |path: &PathBuf| {
        fs::metadata(path).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
    };
    if program.components().count() > 1 {
        return Some(program.to_owned()).filter(is_program);
    }
    let path = std::env::var_os("PATH").unwrap_or_else(|| UNSAID_PATH.into());
    std::env::split_paths(&path).map(|directory| directory.join(program)).find(is_program)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_allows_nothing() {
        assert!(allows_others("mount_max = 10\n user_allow_other # yes\n"));
        assert!(!allows_others("#user_allow_other\nuser_allow_other = 0\n# user_allow_other"));
    }

    #[test]
    fn programs_are_found_where_a_shell_finds_them() {
        let shell = find(Path::new("sh")).unwrap();
        assert_eq!(find(&shell), Some(shell));
        assert_eq!(find(Path::new("no-such-program-anywhere")), None);
        assert_eq!(find(Path::new("/etc/passwd")), None);
    }
}
