//! What facts mean for whoever wants a mount, and what to do. Nothing is looked up here.

mod file_systems;

use serde::Serialize;

use super::facts::{Facts, User};
use super::{Report, Trial};
use crate::fuse::MountError;

/// How good something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mark {
    /// As it should be.
    Ok,
    /// Something to know.
    Note,
    /// No mount because of it.
    Problem,
}

/// Something that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What.
    pub check: &'static str,
    /// How good it is.
    pub mark: Mark,
    /// What is so.
    pub said: String,
    /// What to do, where something can be done.
    pub remedy: Option<String>,
}

/// What makes devices and rights known to a container.
const CONTAINER: &str = "start the container with --device /dev/fuse --cap-add SYS_ADMIN; in Kubernetes with a device plugin for /dev/fuse, \
or privileged";
/// What works without a mount.
const WITHOUT: &str = "without a mount: `ckpt-fs materialize` writes the same files, `ckpt-fs cat` hands out one, and ckpt_fs.open reads tensors from Python";

/// What all of it means.
#[must_use]
pub fn examine(facts: &Facts) -> Report {
    let mut findings = vec![device(facts), helper(facts), user(facts), others(facts), kernel(facts)];
    findings.extend(proc(facts));
    findings.extend(memory(facts));
    findings.push(open_files(facts));
    findings.extend(facts.source.as_ref().map(file_systems::source));
    let tried = !matches!(facts.trial, Trial::NoDirectory(_));
    let mount_possible = match facts.trial {
        Trial::Passed { .. } => true,
        Trial::NoDirectory(_) => findings.iter().all(|finding| finding.mark != Mark::Problem),
        Trial::NotMounted(_) | Trial::NotRead(_) => false,
    };
    if mount_possible {
        // What would be in the way for others is not in the way here.
        for finding in findings.iter_mut().filter(|finding| finding.mark == Mark::Problem) {
            finding.mark = Mark::Note;
        }
    }
    findings.push(trial(facts));
    Report { mount_possible, tried, findings }
}

fn finding(check: &'static str, mark: Mark, said: impl Into<String>) -> Finding {
    Finding { check, mark, said: said.into(), remedy: None }
}

impl Finding {
    fn with(self, remedy: impl Into<String>) -> Self {
        Self { remedy: Some(remedy.into()), ..self }
    }
}

fn device(facts: &Facts) -> Finding {
    use std::io::ErrorKind;
    const CHECK: &str = "/dev/fuse";
    let Err(error) = &facts.device else { return finding(CHECK, Mark::Ok, "can be opened") };
    let said = format!("cannot be opened: {error}");
    let found = finding(CHECK, Mark::Problem, said);
    match (error.kind(), facts.container) {
        (_, Some(_)) => found.with(CONTAINER),
        (ErrorKind::NotFound, None) => found.with("load the kernel's driver as root: modprobe fuse"),
        // A device that is there and none to the kernel has no driver; ENODEV and ENXIO have no kind of their own.
        (ErrorKind::PermissionDenied, None) if facts.user.is_root => {
            found.with("a control group denies it: allow device 10:229 in it (systemd: DeviceAllow=/dev/fuse rw)")
        }
        (ErrorKind::PermissionDenied, None) => found.with("let everybody open it, as root: chmod 666 /dev/fuse"),
        _ => found.with("load the kernel's driver as root: modprobe fuse"),
    }
}

/// For root it is a way out, for others the only way.
fn helper(facts: &Facts) -> Finding {
    const CHECK: &str = "fusermount3";
    let helper = &facts.helper;
    let is_needed = !(facts.user.is_root && facts.user.may_mount);
    let mark = if is_needed { Mark::Problem } else { Mark::Note };
    let Some(path) = &helper.path else {
        let said = if is_needed {
            MountError::HelperMissing { program: helper.program.clone() }.to_string()
        } else {
            format!("{} not found; only users other than root need it", helper.program)
        };
        return finding(CHECK, mark, said).with("install the package fuse3");
    };
    let path = path.display();
    if !helper.is_setuid_root {
        let said = format!("{path} is not set-user-ID root, so it cannot mount for users other than root");
        return finding(CHECK, mark, said).with(format!("as root: chown root {path} && chmod u+s {path}"));
    }
    if facts.user.no_new_privileges && !facts.user.is_root {
        let said = format!("{path} is set-user-ID root, and this process was started so that this has no effect (no_new_privs)");
        return finding(CHECK, mark, said).with("allow it: allowPrivilegeEscalation: true in Kubernetes, without --security-opt no-new-privileges in Docker, NoNewPrivileges=no in systemd");
    }
    finding(CHECK, Mark::Ok, format!("{path}, set-user-ID root"))
}

fn user(facts: &Facts) -> Finding {
    const CHECK: &str = "user";
    let inside = facts.container.map(|container| format!(", in {container}")).unwrap_or_default();
    match facts.user {
        User { is_root: true, may_mount: true, sees_foreign_mounts: true, .. } => {
            let said = format!("root of a namespace of users{inside}, which may mount, but not here: the mounts that it sees are of another namespace");
            finding(CHECK, Mark::Problem, said).with("start it with mounts of its own: unshare -Urm instead of unshare -Ur")
        }
        User { is_root: true, may_mount: true, .. } if !facts.has_proc => {
            finding(CHECK, Mark::Note, format!("root with the right to mount (CAP_SYS_ADMIN){inside}; in which namespace of users is not known without /proc"))
        }
        User { is_root_of_all: true, may_mount: true, .. } => finding(CHECK, Mark::Ok, format!("root, which may mount{inside}")),
        User { is_root: true, may_mount: true, .. } => {
            let said = format!(
                "root of a namespace of users, which may mount in it{inside}; the mount is seen in it alone, and files are not handed to the kernel whole"
            );
            finding(CHECK, Mark::Note, said)
        }
        User { is_root: true, may_mount: false, .. } => {
            finding(CHECK, Mark::Problem, format!("root without the right to mount (CAP_SYS_ADMIN){inside}")).with(CONTAINER)
        }
        User { is_root: false, .. } => finding(CHECK, Mark::Ok, format!("not root, so fusermount3 mounts{inside}")),
    }
}

/// Said where it is missing.
fn proc(facts: &Facts) -> Option<Finding> {
    let said = "is not there, and a mount needs it; the memory, and whose root and whose mounts these are, are not known without it";
    let missing = finding("/proc", Mark::Problem, said).with("as root: mount -t proc proc /proc");
    (!facts.has_proc).then_some(missing)
}

fn others(facts: &Facts) -> Finding {
    const CHECK: &str = "allow_other";
    if facts.user.is_root && facts.user.may_mount {
        return finding(CHECK, Mark::Ok, "root may let others use its mounts (--allow-other)");
    }
    if facts.allows_others {
        return finding(CHECK, Mark::Ok, "/etc/fuse.conf has user_allow_other: --allow-other lets others use the mount");
    }
    // The words of the mount that is refused.
    finding(CHECK, Mark::Note, MountError::AllowOther.to_string())
}

/// Since when the kernel takes files whole.
const PASSES_SINCE: (u32, u32) = (6, 9);

fn kernel(facts: &Facts) -> Finding {
    const CHECK: &str = "kernel";
    let release = if facts.kernel.is_empty() { "unknown" } else { &facts.kernel };
    let (major, minor) = PASSES_SINCE;
    let passes = match &facts.trial {
        Trial::Passed { passes, .. } => *passes,
        _ => facts.user.is_root_of_all && facts.user.may_mount && version(&facts.kernel).is_some_and(|version| version >= PASSES_SINCE),
    };
    if passes {
        let said = format!("{release}: takes files that loaders map whole (passthrough), and then reads them by itself");
        return finding(CHECK, Mark::Ok, said);
    }
    if !facts.has_proc {
        return finding(CHECK, Mark::Note, format!("{release}: whether it takes files whole (passthrough: {major}.{minor}, root of the machine) is not known without /proc"));
    }
    let requests = "every read of a mount is a request, which is slower for loaders that map files";
    match version(&facts.kernel) {
        Some(found) if found >= PASSES_SINCE => {
            finding(CHECK, Mark::Note, format!("{release}: only root of the machine can hand it files whole (passthrough); {requests}"))
        }
        _ => finding(CHECK, Mark::Note, format!("{release}: too old to take files whole (passthrough: {major}.{minor}); {requests}")),
    }
}

/// `6.18.1-generic`
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

fn memory(facts: &Facts) -> Option<Finding> {
    let memory = facts.memory?;
    let gigabytes = |bytes: u64| format!("{:.1} GB", bytes as f64 / 1e9);
    // As a mount takes it.
    let most = memory.limit / 2;
    let used = facts.cache_size.min(most);
    let said = format!(
        "{} for this process, {} of it free; a cache of {} is taken (--cache-size), {} at most",
        gigabytes(memory.limit),
        gigabytes(memory.available),
        gigabytes(used),
        gigabytes(most)
    );
    // Files are kept whole only where as much again is free.
    let is_little = memory.available / 2 < used;
    let found = finding("memory", if is_little { Mark::Note } else { Mark::Ok }, said);
    Some(if is_little { found.with("ask mount for less, so that those who read it have room: --cache-size 0 keeps nothing") } else { found })
}

/// A checkpoint of a thousand ranks with an optimizer has so many files, which stay open.
const FILES: u64 = 4096;

fn open_files(facts: &Facts) -> Finding {
    const CHECK: &str = "open files";
    match facts.open_files {
        Some(limit) if limit < FILES => {
            finding(CHECK, Mark::Note, format!("{limit} at most, and a checkpoint of many ranks has more, which are then opened again and again"))
                .with("raise the hard limit: ulimit -Hn as root, LimitNOFILE= in systemd, --ulimit nofile= in Docker")
        }
        Some(limit) => finding(CHECK, Mark::Ok, format!("{limit} at most")),
        None => finding(CHECK, Mark::Ok, "no limit"),
    }
}

fn trial(facts: &Facts) -> Finding {
    const CHECK: &str = "trial mount";
    match &facts.trial {
        Trial::Passed { took, .. } => finding(CHECK, Mark::Ok, format!("made, read and taken away in {:.0} ms", took.as_secs_f64() * 1e3)),
        Trial::NotMounted(error) => finding(CHECK, Mark::Problem, error.to_string()).with(WITHOUT),
        Trial::NotRead(what) => finding(CHECK, Mark::Problem, format!("made, but its file was not read: {what}")).with(WITHOUT),
        Trial::NoDirectory(error) => finding(CHECK, Mark::Note, format!("not tried, because no directory for it can be made anywhere ({error}); the other lines decide"))
            .with("set TMPDIR to a directory that can be written to"),
    }
}

#[cfg(test)]
mod tests;
