//! What the file system of a source means for a mount of it.

use super::{Finding, Mark, finding};
use crate::doctor::FileSystem;

/// Of file systems whose server is elsewhere: what is known of them.
const NETWORK: &[(&str, &str)] = &[
    ("nfs", "a file that another machine writes is seen changed only after a while (acregmax), so mount what is finished"),
    ("nfs4", "a file that another machine writes is seen changed only after a while (acregmax), so mount what is finished"),
    ("lustre", "long reads are fast, short ones wait for a server: warm what is read often (ckpt-fs warmup)"),
    ("ceph", "long reads are fast, short ones wait for a server: warm what is read often (ckpt-fs warmup)"),
    ("gpfs", "long reads are fast, short ones wait for a server: warm what is read often (ckpt-fs warmup)"),
    ("beegfs", "long reads are fast, short ones wait for a server: warm what is read often (ckpt-fs warmup)"),
    ("cifs", "changes by other machines may be seen late"),
    ("smb3", "changes by other machines may be seen late"),
    ("9p", "reads may not be kept by the page cache, and are then made again and again (cache=loose keeps them)"),
    ("virtiofs", "reads go through the machine around this one"),
];

/// The file system of the source.
pub(super) fn source(file_system: &FileSystem) -> Finding {
    const CHECK: &str = "source";
    let path = file_system.path.display();
    let direct = match file_system.is_direct {
        Some(true) => "; direct I/O is possible there",
        Some(false) => "; no direct I/O there, so what materialize writes there goes through the page cache",
        None => "",
    };
    let said = |more: &str| format!("{path} is on {}{more}{direct}", file_system.kind);
    if let Some((_, what)) = NETWORK.iter().find(|(kind, _)| *kind == file_system.kind) {
        return finding(CHECK, Mark::Note, said(&format!(", over a network: opening takes round trips, not bytes; {what}")));
    }
    if file_system.kind.starts_with("fuse") {
        return finding(CHECK, Mark::Note, said(", itself a program's: every read goes through that program, and files must be readable at any place"));
    }
    if matches!(file_system.kind.as_str(), "tmpfs" | "ramfs") {
        return finding(CHECK, Mark::Note, said(", in memory: what it takes is not there for a cache"));
    }
    finding(CHECK, Mark::Ok, said(""))
}
