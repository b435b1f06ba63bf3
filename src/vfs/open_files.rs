//! How files are open: one way each as long as anybody has them open, because the kernel does not mix them.
//!
//! Not here: what is the best way (`views`).

use std::collections::HashMap;

use parking_lot::{Condvar, Mutex};

use super::{Ino, Opened};

/// The files that are open and could be so in more than one way.
#[derive(Debug, Default)]
pub(super) struct OpenFiles {
    files: Mutex<HashMap<Ino, State>>,
    decided: Condvar,
}

#[derive(Debug)]
enum State {
    /// Somebody is finding out how to open it, or making that possible.
    Deciding,
    /// Open, so many times.
    Open(Opened, u64),
}

impl OpenFiles {
    /// Opens a file as it is open, or as `decide` says where it is not. Only one thread decides; others wait for it.
    pub(super) fn open(&self, ino: Ino, decide: impl FnOnce() -> Opened) -> Opened {
        let mut files = self.files.lock();
        loop {
            match files.get_mut(&ino) {
                Some(State::Open(opened, count)) => {
                    *count += 1;
                    return opened.clone();
                }
                Some(State::Deciding) => self.decided.wait(&mut files),
                None => break,
            }
        }
        files.insert(ino, State::Deciding);
        drop(files);
        let mut deciding = Deciding { open_files: self, ino, opened: None };
        let opened = decide();
        deciding.opened = Some(opened.clone());
        opened
    }

    /// One of those who have it open is done with it.
    pub(super) fn close(&self, ino: Ino) {
        let mut files = self.files.lock();
        if let Some(State::Open(_, count)) = files.get_mut(&ino) {
            *count -= 1;
            if *count == 0 {
                files.remove(&ino);
            }
        }
    }
}

/// Takes the place of [`State::Deciding`] away however deciding ends: those who wait must not wait for ever.
struct Deciding<'open_files> {
    open_files: &'open_files OpenFiles,
    ino: Ino,
    opened: Option<Opened>,
}

impl Drop for Deciding<'_> {
    fn drop(&mut self) {
        let mut files = self.open_files.files.lock();
        match self.opened.take() {
            Some(opened) => files.insert(self.ino, State::Open(opened, 1)),
            None => files.remove(&self.ino),
        };
        self.open_files.decided.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    const INO: Ino = Ino(7);

    fn is_direct(opened: &Opened) -> bool {
        matches!(opened, Opened::Direct)
    }

    #[test]
    fn the_way_stays_until_the_last_one_closes() {
        let open_files = OpenFiles::default();
        assert!(is_direct(&open_files.open(INO, || Opened::Direct)));
        assert!(is_direct(&open_files.open(INO, || Opened::Cached)));
        open_files.close(INO);
        assert!(is_direct(&open_files.open(INO, || Opened::Cached)));
        open_files.close(INO);
        open_files.close(INO);
        assert!(!is_direct(&open_files.open(INO, || Opened::Cached)));
        // A file that was never open in more than one way is of no concern.
        open_files.close(Ino(8));
    }

    #[test]
    fn others_wait_for_the_one_who_decides() {
        let open_files = OpenFiles::default();
        std::thread::scope(|scope| {
            let first = open_files.open(INO, || {
                let other = scope.spawn(|| open_files.open(INO, || Opened::Cached));
                assert!(!other.is_finished());
                Opened::Direct
            });
            assert!(is_direct(&first));
        });
        open_files.close(INO);
        open_files.close(INO);
        assert!(open_files.files.lock().is_empty());
    }

    #[test]
    fn who_fails_to_decide_leaves_it_to_the_next() {
        let open_files = OpenFiles::default();
        let failed = catch_unwind(AssertUnwindSafe(|| open_files.open(INO, || panic!("a bug"))));
        assert!(failed.is_err());
        assert!(is_direct(&open_files.open(INO, || Opened::Direct)));
    }
}
