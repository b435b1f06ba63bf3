//! Which figures there are, and what they are called. The names are part of the interface (docs/metrics.md).
//!
//! Not here: how they are written (`samples`).

use super::samples::{Family, Kind, Mount, Samples};
use crate::vfs::{Latency, Status};

/// All of them, in the order in which they are written.
pub(super) const FAMILIES: &[Family] = &[
    Family {
        name: "ckpt_fs_up",
        kind: Kind::Gauge,
        help: "Whether the mount answers.",
        samples: |mount, to| to.add(u64::from(mount.status.is_some())),
    },
    Family {
        name: "ckpt_fs_build_info",
        kind: Kind::Gauge,
        help: "What the program that serves the mount is, and what the mount shows; always 1.",
        samples: |mount, to| of(mount, |status| to.with(
            &[("version", &status.version), ("build", &status.build), ("view", &status.view)],
            1,
        )),
    },
    Family {
        name: "ckpt_fs_start_time_seconds",
        kind: Kind::Gauge,
        help: "When the mount was made, in seconds since 1970.",
        samples: |mount, to| of(mount, |status| if let Some(started) = status.started { to.add(started) }),
    },
    Family {
        name: "ckpt_fs_source_changed",
        kind: Kind::Gauge,
        help: "1 where a file of the source is no longer what was mounted: reads that need it fail.",
        samples: |mount, to| of(mount, |status| to.add(u64::from(status.source_problem.is_some()))),
    },
    Family {
        name: "ckpt_fs_requests_total",
        kind: Kind::Counter,
        help: "Requests of the kernel, by operation.",
        samples: |mount, to| of(mount, |status| {
            for (operation, count) in &status.requests {
                to.with(&[("operation", operation)], *count);
            }
        }),
    },
    Family {
        name: "ckpt_fs_request_errors_total",
        kind: Kind::Counter,
        help: "Requests that were answered with an error, by operation and error.",
        samples: |mount, to| of(mount, |status| {
            for errors in &status.request_errors {
                to.with(&[("operation", &errors.operation), ("errno", &errors.errno)], errors.count);
            }
        }),
    },
    Family {
        name: "ckpt_fs_read_duration_seconds",
        kind: Kind::Histogram,
        help: "Time from when the kernel asked for a read to when its answer was ready.",
        samples: |mount, to| of(mount, |status| if let Some(latency) = &status.read_latency { histogram(latency, to) }),
    },
    Family {
        name: "ckpt_fs_opens_total",
        kind: Kind::Counter,
        help: "How often files of a view were opened.",
        samples: |mount, to| of(mount, |status| {
            for view in &status.views {
                to.with(&[("view", &view.view)], view.opens);
            }
        }),
    },
    Family {
        name: "ckpt_fs_reads_total",
        kind: Kind::Counter,
        help: "Reads of a view that were answered with bytes; those that the kernel answers by itself are not among them.",
        samples: |mount, to| of(mount, |status| {
            for view in &status.views {
                to.with(&[("view", &view.view)], view.reads);
            }
        }),
    },
    Family {
        name: "ckpt_fs_read_bytes_total",
        kind: Kind::Counter,
        help: "Bytes of a view that were handed to readers; those that the kernel hands out by itself are not among them.",
        samples: |mount, to| of(mount, |status| {
            for view in &status.views {
                to.with(&[("view", &view.view)], view.read_bytes);
            }
        }),
    },
    Family {
        name: "ckpt_fs_source_read_bytes_total",
        kind: Kind::Counter,
        help: "Bytes of tensors that were read from the source's files.",
        samples: |mount, to| of(mount, |status| to.add(status.source_read_bytes)),
    },
    Family {
        name: "ckpt_fs_open_files",
        kind: Kind::Gauge,
        help: "Files that are open, counted once for every time they were opened.",
        samples: |mount, to| of(mount, |status| to.add(status.open_files)),
    },
    Family {
        name: "ckpt_fs_cache_bytes",
        kind: Kind::Gauge,
        help: "Memory that holds what was assembled, whole files included.",
        samples: |mount, to| of(mount, |status| to.add(status.cache.bytes)),
    },
    Family {
        name: "ckpt_fs_cache_capacity_bytes",
        kind: Kind::Gauge,
        help: "Most memory that may hold what was assembled.",
        samples: |mount, to| of(mount, |status| to.add(status.cache.budget)),
    },
    Family {
        name: "ckpt_fs_cache_hits_total",
        kind: Kind::Counter,
        help: "How often something assembled was asked for and there.",
        samples: |mount, to| of(mount, |status| to.add(status.cache.hits)),
    },
    Family {
        name: "ckpt_fs_cache_misses_total",
        kind: Kind::Counter,
        help: "How often something assembled was asked for and not there.",
        samples: |mount, to| of(mount, |status| to.add(status.cache.misses)),
    },
    Family {
        name: "ckpt_fs_cache_evictions_total",
        kind: Kind::Counter,
        help: "How often something assembled gave way.",
        samples: |mount, to| of(mount, |status| to.add(status.cache.evicted)),
    },
    Family {
        name: "ckpt_fs_whole_files",
        kind: Kind::Gauge,
        help: "Files that are whole in memory, for the kernel to read by itself.",
        samples: |mount, to| of(mount, |status| to.add(status.cache.files)),
    },
    Family {
        name: "ckpt_fs_whole_files_bytes",
        kind: Kind::Gauge,
        help: "Bytes of these files.",
        samples: |mount, to| of(mount, |status| to.add(status.cache.file_bytes)),
    },
    Family {
        name: "ckpt_fs_assembling_files",
        kind: Kind::Gauge,
        help: "Files that are being assembled.",
        samples: |mount, to| of(mount, |status| to.add(status.assembling.len() as u64)),
    },
    Family {
        name: "ckpt_fs_messages_total",
        kind: Kind::Counter,
        help: "Messages, by level; `ckpt-fs log` shows the last of them.",
        samples: |mount, to| of(mount, |status| {
            let counts = status.messages;
            for (level, count) in [("error", counts.error), ("warning", counts.warning), ("info", counts.info)] {
                to.with(&[("level", level)], count);
            }
        }),
    },
];

fn of(mount: &Mount, tell: impl FnOnce(&Status)) {
    if let Some(status) = &mount.status {
        tell(status);
    }
}

fn histogram(latency: &Latency, to: &mut Samples<'_>) {
    let mut reads = 0;
    for bucket in &latency.buckets {
        reads += bucket.reads;
        let bound = (bucket.microseconds as f64 / 1e6).to_string();
        to.line("_bucket", &[("le", &bound)], &reads.to_string());
    }
    to.line("_bucket", &[("le", "+Inf")], &latency.reads.to_string());
    to.line("_sum", &[], &(latency.nanoseconds as f64 / 1e9).to_string());
    to.line("_count", &[], &latency.reads.to_string());
}
