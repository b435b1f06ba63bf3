//! How much memory a process may take: of the machine, and of the control groups it is in, as containers and batch systems set them.
//!
//! A group that runs full has its processes killed, ours or the training's, so what is only there to be fast has to ask first.
//! Not here: who asks.

use std::fs;
use std::path::{Path, PathBuf};

/// What is there, and what of it can be had now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Bytes of the machine, or the smallest limit.
    pub limit: u64,
    /// Bytes that can be taken now; pages of files that the system can drop count as free.
    pub available: u64,
}

/// The memory of this process; `None` where the system does not say.
#[must_use]
pub fn memory() -> Option<Memory> {
    memory_below(Path::new("/"))
}

fn memory_below(root: &Path) -> Option<Memory> {
    let machine = machine(&fs::read_to_string(root.join("proc/meminfo")).ok()?)?;
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let groups = groups.lines().filter_map(|line| group(line, &root.join("sys/fs/cgroup")));
    Some(groups.flat_map(|group| group.enclosing()).fold(machine, |least, of| Memory {
        limit: least.limit.min(of.limit),
        available: least.available.min(of.available),
    }))
}

/// The machine's, from `/proc/meminfo`.
fn machine(text: &str) -> Option<Memory> {
    let kib = |name: &str| -> Option<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.trim().strip_suffix("kB")?.trim().parse().ok()
    };
    Some(Memory { limit: kib("MemTotal")? << 10, available: kib("MemAvailable")? << 10 })
}

/// A control group that counts memory: where its files are, and what they are called.
struct Group {
    mount: PathBuf,
    inner: PathBuf,
    names: Names,
}

/// Names of files in a group's directory, and of lines in the last of them.
#[derive(Clone, Copy)]
struct Names {
    limit: &'static str,
    usage: &'static str,
    /// Of pages of files, with those of the groups below.
    file_pages: [&'static str; 2],
}

/// `hierarchy:controllers:path`, from `/proc/self/cgroup`; version 2 has number 0 and no controllers.
fn group(line: &str, mounts: &Path) -> Option<Group> {
    let mut fields = line.splitn(3, ':');
    let (number, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
    let inner = PathBuf::from(path.trim_start_matches('/'));
    if number == "0" && controllers.is_empty() {
        let file_pages = ["active_file", "inactive_file"];
        let names = Names { limit: "memory.max", usage: "memory.current", file_pages };
        return Some(Group { mount: mounts.to_owned(), inner, names });
    }
    controllers.split(',').any(|name| name == "memory").then(|| Group {
        mount: mounts.join("memory"),
        inner,
        names: Names {
            limit: "memory.limit_in_bytes",
            usage: "memory.usage_in_bytes",
            file_pages: ["total_active_file", "total_inactive_file"],
        },
    })
}

impl Group {
    /// The memory of the group and of those around it. In a container the path may be one that is seen from outside only; the container's own
    /// group is then at the top.
    fn enclosing(&self) -> Vec<Memory> {
        self.inner.ancestors().filter_map(|inner| self.memory(&self.mount.join(inner))).collect()
    }

    fn memory(&self, group: &Path) -> Option<Memory> {
        let number =
            |name: &str| -> Option<u64> { fs::read_to_string(group.join(name)).ok()?.trim().parse().ok() };
        // Without a limit version 2 says "max", which is no number.
        let (limit, usage) = (number(self.names.limit)?, number(self.names.usage)?);
        let text = fs::read_to_string(group.join("memory.stat")).unwrap_or_default();
        let pages = text.lines().filter_map(|line| line.split_once(' '));
        let pages = pages.filter(|(name, _)| self.names.file_pages.contains(name));
        let file_pages: u64 = pages.filter_map(|(_, bytes)| bytes.parse::<u64>().ok()).sum();
        Some(Memory { limit, available: limit.saturating_sub(usage.saturating_sub(file_pages)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMINFO: &str = "MemTotal:       1000 kB\nMemFree:         10 kB\nMemAvailable:    800 kB\n";

    fn root(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in [("proc/meminfo", MEMINFO)].iter().chain(files) {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    fn found(files: &[(&str, &str)]) -> (u64, u64) {
        let found = memory_below(root(files).path()).unwrap();
        (found.limit, found.available)
    }

    #[test]
    fn without_groups_it_is_the_machines() {
        assert_eq!(found(&[]), (1000 << 10, 800 << 10));
        assert!(memory().is_some_and(|memory| memory.available <= memory.limit));
        assert_eq!(memory_below(Path::new("/nowhere")), None);
    }

    #[test]
    fn the_smallest_group_counts() {
        let version_2 = [
            ("proc/self/cgroup", "0::/job/step\n"),
            ("sys/fs/cgroup/job/memory.max", "500000\n"),
            ("sys/fs/cgroup/job/memory.current", "300000\n"),
            (
                "sys/fs/cgroup/job/memory.stat",
                "anon 5\nactive_file 100000\ninactive_file 50000\nfile 150000\n",
            ),
            ("sys/fs/cgroup/job/step/memory.max", "max\n"),
            ("sys/fs/cgroup/job/step/memory.current", "300000\n"),
        ];
        assert_eq!(found(&version_2), (500_000, 350_000));
        let version_1 = [
            ("proc/self/cgroup", "9:name=systemd:/\n4:cpu,memory:/seen/from/outside\n0::/\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "400000\n"),
            ("sys/fs/cgroup/memory/memory.usage_in_bytes", "100000\n"),
            (
                "sys/fs/cgroup/memory/memory.stat",
                "active_file 1\ntotal_active_file 7\ntotal_inactive_file 3\n",
            ),
        ];
        assert_eq!(found(&version_1), (400_000, 300_010));
    }

    #[test]
    fn odd_files_say_nothing() {
        let odd = [("proc/self/cgroup", "\n:\n0:\n0::/../..\n4:memory\n"), ("sys/fs/cgroup/memory.max", "x")];
        assert_eq!(found(&odd), (1000 << 10, 800 << 10));
    }
}
