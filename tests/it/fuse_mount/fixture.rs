//! A mount of the fake tree in a directory of its own.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use ckpt_fs::fuse::mounts::Detach;
use ckpt_fs::fuse::{MountOptions, Mounted, UnmountError, Warn, mount};

use super::tree::FakeTree;

pub(crate) struct Fixture {
    /// Dropped first: unmounts before the directory goes.
    pub(crate) mounted: Option<Mounted>,
    pub(crate) dir: tempfile::TempDir,
    pub(crate) warnings: Arc<Mutex<Vec<String>>>,
}

impl Fixture {
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

/// A fresh mount, or `None` where it is known that there cannot be one.
pub(crate) fn mounted() -> Option<Fixture> {
    if !can_mount() {
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    let warnings = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&warnings);
    let warn = Warn::new(move |message| sink.lock().unwrap().push(message.to_owned()));
    let options = MountOptions { fsname: "/data/run 1, \\odd".into(), warn, ..MountOptions::default() };
    let mounted = mount(Arc::new(FakeTree::new()), dir.path(), &options).unwrap();
    Some(Fixture { mounted: Some(mounted), dir, warnings })
}

/// Mounts the fake tree and nothing else.
pub(crate) fn mount_at(point: &Path) -> Result<Mounted, ckpt_fs::fuse::MountError> {
    mount(Arc::new(FakeTree::new()), point, &MountOptions::default())
}

pub(crate) fn can_mount() -> bool {
    match std::fs::OpenOptions::new().read(true).write(true).open("/dev/fuse") {
        Ok(_) => true,
        Err(error) if std::env::var_os("CKPT_FS_SKIP_FUSE").is_some_and(|value| value == "1") => {
            eprintln!("skipped: no /dev/fuse ({error})");
            false
        }
        Err(error) => panic!("skipped: no /dev/fuse ({error}); set CKPT_FS_SKIP_FUSE=1 to accept that"),
    }
}

/// Takes a mount away that this test no longer uses. A process that another test is just starting may still have its files open, from the
/// fork to the exec: that passes.
pub(crate) fn unmount(mounted: Mounted) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while let Err(error) = mounted.unmounter().unmount(Detach::WhenIdle) {
        assert!(matches!(error, UnmountError::Busy { .. }), "{error}");
        assert!(std::time::Instant::now() < deadline, "{error}");
        std::thread::yield_now();
    }
    mounted.unmount().unwrap();
}
