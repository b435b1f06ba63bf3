//! What a mount can be asked for, and what the kernel is told for it.
//!
//! Not here: the command line (`cli`).

#![expect(
    clippy::disallowed_methods,
    reason = "nothing here is on the way of a read; what is not said has a default"
)]

use std::time::Duration;

use rustix::mount::MountFlags;

use super::attr::Modes;
use super::errno::Warn;
use super::error::MountError;

/// Who may use a mount besides the user who made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Access {
    /// Nobody, not even root: what FUSE does by default.
    #[default]
    Owner,
    /// Root too (`allow_root`).
    Root,
    /// Everybody (`allow_other`).
    All,
}

/// How to mount a tree.
#[derive(Debug, Clone)]
pub struct MountOptions {
    /// What `mount` and `df` show as the source: the checkpoint's path.
    pub fsname: String,
    /// Who may use it.
    pub access: Access,
    /// Owner of all files; the mounting user by default.
    pub uid: Option<u32>,
    /// Group of all files; the mounting user's by default.
    pub gid: Option<u32>,
    /// Permissions of all files and directories.
    pub modes: Modes,
    /// Threads that answer the kernel, at least one.
    pub threads: usize,
    /// `-o` options as `mount` and fstab give them, one each.
    pub extra: Vec<String>,
    /// How far the kernel reads ahead for mapped files; only root can raise it, for others it stays at 128.
    pub read_ahead_kib: u32,
    /// How long the program that mounts for users other than root may take; `None` for as long as it likes.
    pub helper_patience: Option<Duration>,
    /// Where warnings go.
    pub warn: Warn,
}

impl Default for MountOptions {
    fn default() -> Self {
        Self {
            fsname: "ckpt-fs".to_owned(),
            access: Access::Owner,
            uid: None,
            gid: None,
            modes: Modes::default(),
            threads: 2,
            extra: Vec::new(),
            read_ahead_kib: 1024,
            helper_patience: None,
            warn: Warn::none(),
        }
    }
}

/// What is always so, and what the kernel is told beyond it.
const ALWAYS: MountFlags =
    MountFlags::RDONLY.union(MountFlags::NOSUID).union(MountFlags::NODEV).union(MountFlags::NOATIME);

/// Options that fstab and `mount` add and that change nothing here: said of every mount, or always so.
const WITHOUT_EFFECT: [&str; 23] = [
    "defaults",
    "ro",
    "rw",
    "nosuid",
    "nodev",
    "noatime",
    "relatime",
    "nodiratime",
    "exec",
    "async",
    "auto",
    "noauto",
    "user",
    "nouser",
    "users",
    "owner",
    "group",
    "nofail",
    "_netdev",
    "default_permissions",
    "nomand",
    "silent",
    "loud",
];

/// Options for the kernel's FUSE that are handed on as they are.
const HANDED_ON: [&str; 5] = ["max_read=", "context=", "fscontext=", "defcontext=", "rootcontext="];

impl MountOptions {
    /// Whether an `-o` option is one that a mount takes.
    #[must_use]
    pub fn understands(option: &str) -> bool {
        Self { extra: vec![option.to_owned()], ..Self::default() }.resolve().is_ok()
    }

    /// Folds the `-o` options into the fields.
    ///
    /// # Errors
    /// [`MountError::Option`] names the one that is not understood.
    pub(super) fn resolve(&self) -> Result<Resolved, MountError> {
        let mut resolved = Resolved { base: self.clone(), flags: ALWAYS, data: Vec::new() };
        for option in &self.extra {
            resolved.apply(option)?;
        }
        resolved.base.threads = resolved.base.threads.max(1);
        Ok(resolved)
    }
}

/// Options with everything from `-o` in its place.
#[derive(Debug, Clone)]
pub(super) struct Resolved {
    pub(super) base: MountOptions,
    pub(super) flags: MountFlags,
    /// Handed on to the kernel's FUSE.
    pub(super) data: Vec<String>,
}

impl Resolved {
    fn apply(&mut self, option: &str) -> Result<(), MountError> {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        match name {
            "allow_other" => self.base.access = Access::All,
            "allow_root" => self.base.access = Access::Root,
            "noexec" => self.flags |= MountFlags::NOEXEC,
            "fsname" => self.base.fsname = value.to_owned(),
            "uid" => self.base.uid = Some(number(option, value)?),
            "gid" => self.base.gid = Some(number(option, value)?),
            _ if HANDED_ON.iter().any(|prefix| option.starts_with(prefix)) => {
                self.data.push(option.to_owned())
            }
            _ if WITHOUT_EFFECT.contains(&option) || name == "comment" || name.starts_with("x-") => {}
            "suid" | "dev" => return Err(unknown(option, "mounts are always nosuid and nodev")),
            _ => return Err(unknown(option, "leave it out")),
        }
        Ok(())
    }

    /// Options that FUSE itself reads, in its words.
    pub(super) fn fuse_words(&self) -> Vec<String> {
        // The kernel knows nothing of allow_root: it lets everybody through, and requests of others are refused here.
        let access = (self.base.access != Access::Owner).then(|| "allow_other".to_owned());
        let words = ["default_permissions".to_owned()].into_iter().chain(access);
        words.chain(self.data.iter().cloned()).collect()
    }

    /// The mount flags in words.
    pub(super) fn flag_words(&self) -> Vec<String> {
        let words = [
            ("ro", MountFlags::RDONLY),
            ("nosuid", MountFlags::NOSUID),
            ("nodev", MountFlags::NODEV),
            ("noatime", MountFlags::NOATIME),
            ("noexec", MountFlags::NOEXEC),
        ];
        words
            .iter()
            .filter(|(_, flag)| self.flags.contains(*flag))
            .map(|(word, _)| (*word).to_owned())
            .collect()
    }
}

fn number(option: &str, value: &str) -> Result<u32, MountError> {
    value.parse().map_err(|_| unknown(option, "give a number"))
}

fn unknown(option: &str, reason: &'static str) -> MountError {
    MountError::Option { option: option.to_owned(), reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(extra: &[&str]) -> Result<Resolved, MountError> {
        let extra = extra.iter().map(|option| (*option).to_owned()).collect();
        MountOptions { extra, ..MountOptions::default() }.resolve()
    }

    #[test]
    fn fstab_options_are_understood() {
        let all = [
            "rw",
            "defaults",
            "nofail",
            "_netdev",
            "x-systemd.automount",
            "noexec",
            "uid=5",
            "max_read=65536",
        ];
        let resolved = resolve(&all).unwrap();
        assert_eq!(resolved.flag_words(), ["ro", "nosuid", "nodev", "noatime", "noexec"]);
        assert_eq!(resolved.fuse_words(), ["default_permissions", "max_read=65536"]);
        assert_eq!(resolved.base.uid, Some(5));
        let resolved = resolve(&["allow_root", "fsname=a=b"]).unwrap();
        assert_eq!((resolved.base.access, &*resolved.base.fsname), (Access::Root, "a=b"));
        assert_eq!(resolved.fuse_words(), ["default_permissions", "allow_other"]);
    }

    #[test]
    fn others_are_named() {
        for option in ["suid", "uid=me", "big_writes", "subtype=x", "allow_others", ""] {
            let error = resolve(&[option]).unwrap_err();
            assert!(error.to_string().contains(&format!("{option:?}")), "{error}");
        }
    }
}
