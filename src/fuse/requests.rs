//! Requests of the kernel, counted: by operation, errors by errno, and how long reads took.
//!
//! A read costs a few additions without a lock; only errors take one. Not here: bytes and views (`vfs`), how figures are printed (`metrics`).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use fuser::{
    Errno, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry,
    ReplyIoctl, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr,
};
use parking_lot::Mutex;

use super::errno;
use crate::vfs::{Latency, LatencyBucket, RequestErrors, Status};

/// What the kernel asks for, and the word for it in figures.
macro_rules! operations {
    ($($operation:ident $name:literal,)*) => {
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub(super) enum Operation { $($operation,)* }

        impl Operation {
            const NAMES: &[(Self, &str)] = &[$((Self::$operation, $name),)*];
            const COUNT: usize = Self::NAMES.len();

            fn name(self) -> &'static str {
                match self { $(Self::$operation => $name,)* }
            }
        }
    };
}

operations! {
    Access "access",
    CopyFileRange "copy_file_range",
    Create "create",
    Fallocate "fallocate",
    Flush "flush",
    Fsync "fsync",
    Fsyncdir "fsyncdir",
    Getattr "getattr",
    Getxattr "getxattr",
    Ioctl "ioctl",
    Link "link",
    Listxattr "listxattr",
    Lookup "lookup",
    Lseek "lseek",
    Mkdir "mkdir",
    Mknod "mknod",
    Open "open",
    Opendir "opendir",
    Read "read",
    Readdir "readdir",
    Readdirplus "readdirplus",
    Readlink "readlink",
    Release "release",
    Releasedir "releasedir",
    Removexattr "removexattr",
    Rename "rename",
    Rmdir "rmdir",
    Setattr "setattr",
    Setxattr "setxattr",
    Statfs "statfs",
    Symlink "symlink",
    Unlink "unlink",
    Write "write",
}

/// Upper bounds of the times that reads are sorted by, in microseconds: from the page cache to storage that is far away.
const BOUNDS: [u64; 12] =
    [50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 50_000, 250_000, 1_000_000, 10_000_000];

/// What was asked so far.
#[derive(Debug)]
pub(super) struct Requests {
    counts: [AtomicU64; Operation::COUNT],
    errors: Mutex<BTreeMap<(Operation, i32), u64>>,
    open_files: AtomicU64,
    /// Reads by time; the last for those beyond all bounds.
    times: [AtomicU64; BOUNDS.len() + 1],
    nanoseconds: AtomicU64,
}

impl Default for Requests {
    fn default() -> Self {
        Self {
            counts: [const { AtomicU64::new(0) }; Operation::COUNT],
            errors: Mutex::default(),
            open_files: AtomicU64::new(0),
            times: [const { AtomicU64::new(0) }; BOUNDS.len() + 1],
            nanoseconds: AtomicU64::new(0),
        }
    }
}

impl Requests {
    /// A request came.
    #[expect(clippy::indexing_slicing, reason = "there is a counter for every operation")]
    pub(super) fn came(&self, operation: Operation) -> Counted<'_> {
        self.counts[operation as usize].fetch_add(1, Relaxed);
        log::trace!("{}", operation.name());
        Counted { requests: self, operation }
    }

    /// A file was opened.
    pub(super) fn opened(&self) {
        self.open_files.fetch_add(1, Relaxed);
    }

    /// One was closed.
    pub(super) fn closed(&self) {
        // Never below none, whatever the kernel says.
        let _ = self.open_files.fetch_update(Relaxed, Relaxed, |files| files.checked_sub(1));
    }

    /// The answer to a read is ready, or the error.
    #[expect(clippy::indexing_slicing, reason = "the point is at most the number of bounds")]
    pub(super) fn read_took(&self, time: Duration) {
        let microseconds = time.as_micros();
        log::trace!("read took {microseconds} microseconds");
        let place = BOUNDS.partition_point(|bound| u128::from(*bound) < microseconds);
        self.times[place].fetch_add(1, Relaxed);
        self.nanoseconds.fetch_add(time.as_nanos() as u64, Relaxed);
    }

    /// Answers a request with an error that came while another thread was at it.
    pub(super) fn failed(&self, operation: Operation, errno: Errno, reply: impl Refuse) {
        Counted { requests: self, operation }.refuse(errno, reply);
    }

    /// Adds what is known here to the figures of a mount.
    pub(super) fn tell(&self, status: &mut Status) {
        let counts = Operation::NAMES.iter().zip(&self.counts);
        let counts = counts.map(|((_, name), count)| ((*name).to_owned(), count.load(Relaxed)));
        status.requests = counts.filter(|(_, count)| *count > 0).collect();
        let errors = self.errors.lock();
        let errors = errors.iter().map(|((operation, number), count)| RequestErrors {
            operation: operation.name().to_owned(),
            errno: errno::name(*number),
            count: *count,
        });
        status.request_errors = errors.collect();
        status.open_files = self.open_files.load(Relaxed);
        let buckets = BOUNDS.iter().zip(&self.times);
        let buckets = buckets.map(|(bound, reads)| LatencyBucket { microseconds: *bound, reads: reads.load(Relaxed) });
        let buckets: Vec<_> = buckets.collect();
        let longer = self.times.iter().skip(BOUNDS.len()).map(|reads| reads.load(Relaxed)).sum::<u64>();
        let reads = buckets.iter().map(|bucket| bucket.reads).sum::<u64>() + longer;
        status.read_latency = Some(Latency { buckets, reads, nanoseconds: self.nanoseconds.load(Relaxed) });
    }
}

/// A request that was counted, and whose error will be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Counted<'requests> {
    requests: &'requests Requests,
    operation: Operation,
}

impl Counted<'_> {
    /// Answers with an error.
    pub(super) fn refuse(self, errno: Errno, reply: impl Refuse) {
        *self.requests.errors.lock().entry((self.operation, errno.code())).or_insert(0) += 1;
        log::debug!("{} is answered with {}", self.operation.name(), errno::name(errno.code()));
        reply.refuse(errno);
    }
}

/// What can be answered with an error.
pub(super) trait Refuse {
    /// Answers.
    fn refuse(self, errno: Errno);
}

macro_rules! refuse {
    ($($reply:ty,)*) => {
        $(impl Refuse for $reply {
            fn refuse(self, errno: Errno) {
                self.error(errno);
            }
        })*
    };
}

refuse! {
    ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl,
    ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr,
}

/// A read that waits for its answer.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) reply: ReplyData,
    pub(super) since: Instant,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_has_a_counter_and_a_word_of_its_own() {
        let requests = Requests::default();
        for (place, (operation, _)) in Operation::NAMES.iter().enumerate() {
            assert_eq!(*operation as usize, place);
            for _ in 0..=place {
                requests.came(*operation);
            }
        }
        let mut status = Status::default();
        requests.tell(&mut status);
        assert_eq!(status.requests.len(), Operation::COUNT);
        for (place, (operation, name)) in Operation::NAMES.iter().enumerate() {
            assert_eq!((operation.name(), status.requests[*name]), (*name, place as u64 + 1));
        }
    }

    #[test]
    fn reads_are_sorted_by_time() {
        let requests = Requests::default();
        for microseconds in [0, 50, 51, 10_000_000, 10_000_001, 99_000_000] {
            requests.read_took(Duration::from_micros(microseconds));
        }
        let mut status = Status::default();
        requests.tell(&mut status);
        let latency = status.read_latency.unwrap();
        let reads: Vec<u64> = latency.buckets.iter().map(|bucket| bucket.reads).collect();
        assert_eq!(reads, [2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!((latency.reads, latency.nanoseconds), (6, 119_000_102_000));
    }
}
