//! Files that change after they were opened: every later answer is an error that says what changed.

use std::fs::File;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use super::super::identity::StatusTime;
use super::*;

const SIZE: usize = 1 << 20;

struct Fixture {
    store: FileStore,
    object: ObjectId,
    path: std::path::PathBuf,
    _dir: tempfile::TempDir,
}

/// A file whose first bytes were read both ways, mapped and by `pread`, before anything happens to it.
fn fixture() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.bin");
    std::fs::write(&path, pattern(SIZE)).unwrap();
    // A time stamp of the past: a change right now then always gets another one.
    File::options().write(true).open(&path).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
    let store = FileStore::new();
    let object = store.add(&path).unwrap();
    let fixture = Fixture { store, object, path, _dir: dir };
    for len in [100, 100_000] {
        fixture.read(len).unwrap();
    }
    fixture
}

impl Fixture {
    fn read(&self, len: usize) -> Result<Vec<u8>, StoreError> {
        let mut out = vec![0; len];
        self.store.read_exact_at(self.object, (SIZE - len) as u64, &mut out)?;
        Ok(out)
    }

    fn open(&self) -> File {
        File::options().write(true).open(&self.path).unwrap()
    }

    /// Every way to read must now fail, naming the file and `what`.
    fn expect_changed(&self, what: &str) {
        for len in [0, 100, 100_000] {
            let error = self.read(len).unwrap_err();
            assert!(matches!(error, StoreError::Changed { .. }), "{error}");
            let message = error.to_string();
            assert!(message.contains("model.bin") && message.contains(what), "{message}");
        }
    }
}

#[test]
fn replaced_by_rename() {
    let fixture = fixture();
    let other = fixture.path.with_extension("new");
    std::fs::write(&other, pattern(SIZE)).unwrap();
    std::fs::rename(&other, &fixture.path).unwrap();
    fixture.expect_changed("another file is in its place");
}

#[test]
fn removed() {
    let fixture = fixture();
    std::fs::remove_file(&fixture.path).unwrap();
    fixture.expect_changed("it is gone");
}

#[test]
fn grown() {
    let fixture = fixture();
    fixture.open().set_len(SIZE as u64 + 1).unwrap();
    fixture.expect_changed("it had 1048576 bytes, now 1048577");
}

#[test]
fn touched() {
    let fixture = fixture();
    fixture.open().set_modified(SystemTime::UNIX_EPOCH + Duration::from_nanos(1)).unwrap();
    fixture.expect_changed("it was modified");
}

#[test]
fn a_change_between_reads_that_belong_together_spoils_them_all() {
    for fails in [false, true] {
        let fixture = fixture();
        let read = || {
            consistent(&fixture.store, fixture.object, |reads| {
                let mut out = [0; 10];
                reads.read_exact_at(0, &mut out)?;
                assert_eq!(out, pattern(10)[..]);
                fixture.open().set_modified(SystemTime::UNIX_EPOCH + Duration::from_nanos(1)).unwrap();
                let other = StoreError::Unknown(fixture.object);
                if fails { Err(other) } else { Ok(()) }
            })
        };
        let error = read().unwrap_err();
        assert!(matches!(error, StoreError::Changed { .. }), "{error}");
    }
    let fixture = fixture();
    let error =
        consistent(&fixture.store, fixture.object, |reads| Err::<(), _>(StoreError::Unknown(reads.object())));
    assert!(matches!(error, Err(StoreError::Unknown(_))), "without a change, what went wrong is said");
}

#[test]
fn a_hard_link_or_chmod_changes_nothing() {
    let fixture = fixture();
    std::fs::hard_link(&fixture.path, fixture.path.with_extension("link")).unwrap();
    std::fs::set_permissions(&fixture.path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    assert_eq!(fixture.read(100).unwrap(), pattern(SIZE)[SIZE - 100..]);
}

/// What size and times cannot tell, docs/semantics.md says: there is nothing else to look at without reading everything again.
#[test]
fn contents_exchanged_behind_an_old_time_are_not_seen() {
    let fixture = fixture();
    let other = vec![7; SIZE];
    std::fs::write(&fixture.path, &other).unwrap();
    fixture.open().set_modified(SystemTime::UNIX_EPOCH).unwrap();
    for len in [100, 100_000] {
        assert_eq!(fixture.read(len).unwrap(), other[..len]);
    }
}

/// Cut and given everything back, time stamp included: only the poison remembers, and the time that nobody can put back.
#[test]
fn truncation_is_remembered_by_the_mapping() {
    let fixture = fixture();
    let source = fixture.store.source(fixture.object).unwrap();
    let file = fixture.open();
    file.set_len(0).unwrap();
    assert!(source.mapping().unwrap().copy(5000, &mut [0]).is_err());
    std::fs::write(&fixture.path, pattern(SIZE)).unwrap();
    file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
    let opened = source.status_time;
    while StatusTime::of(&rustix::fs::fstat(&file).unwrap()) == opened {
        // The clock of time stamps is a coarse one.
        std::fs::set_permissions(&fixture.path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    }
    fixture.expect_changed("pages of it were gone");
}

#[test]
fn truncated_while_four_threads_read() {
    for _ in 0..10 {
        let fixture = fixture();
        let good = AtomicUsize::new(0);
        thread::scope(|scope| {
            for len in [700, 30_000, 60_000, 200_000] {
                let (fixture, good) = (&fixture, &good);
                scope.spawn(move || {
                    loop {
                        match fixture.read(len) {
                            Ok(bytes) => assert!(!bytes.contains(&0), "zeros were handed out as data"),
                            Err(error) => {
                                return assert!(matches!(error, StoreError::Changed { .. }), "{error}");
                            }
                        }
                        good.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            while good.load(Ordering::Relaxed) < 40 {
                thread::yield_now();
            }
            fixture.open().set_len(10).unwrap();
        });
        fixture.expect_changed("it had 1048576 bytes, now 10");
    }
}
