//! Runs the tests that can see a mutant, with that mutant on.

use std::collections::HashMap;
use std::error::Error;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::build::Built;
use crate::report::Outcome;
use crate::{SETS, Set, Site};

/// Kilobytes of address space: a mutant that counts for ever must not take the machine's memory.
const MEMORY: u64 = 8 << 20;

/// What became of each site.
pub fn run(built: &Built, sites: &[Site]) -> Result<Vec<Outcome>, Box<dyn Error>> {
    let limits = baseline(built)?;
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let next = AtomicUsize::new(0);
    let outcomes = Mutex::new(vec![Outcome::Refused; sites.len()]);
    let start = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(site) = sites.get(index) else { break };
                    if index % 50 == 49 {
                        eprintln!("{} of {} after {} s", index + 1, sites.len(), start.elapsed().as_secs());
                    }
                    if !built.refused.contains(&(index + 1)) {
                        let outcome = one(built, site, index + 1, &limits);
                        if outcome == Outcome::Missed {
                            // Said at once: a run is long, and what is missing can be written meanwhile.
                            eprintln!("no test notices {}", site.name);
                        }
                        if let Ok(mut outcomes) = outcomes.lock() {
                            outcomes[index] = outcome;
                        }
                    }
                }
            });
        }
    });
    Ok(outcomes.into_inner().map_err(|_| "a worker stopped in the middle")?)
}

/// How long each pass may take: the tests pass as the code is; a mutant gets many times as long.
type Limits = HashMap<&'static [&'static str], Duration>;

fn baseline(built: &Built) -> Result<Limits, Box<dyn Error>> {
    let mut limits = Limits::new();
    for filters in SETS.iter().flat_map(Set::passes) {
        let start = Instant::now();
        if tests(built, filters, 0, Duration::from_secs(600)) != Outcome::Missed {
            return Err(format!("{filters:?} fail without any change").into());
        }
        eprintln!("{filters:?} take {:.1} s without any change", start.elapsed().as_secs_f32());
        limits.insert(filters, (start.elapsed() * 8).max(Duration::from_secs(10)));
    }
    Ok(limits)
}

fn one(built: &Built, site: &Site, number: usize, limits: &Limits) -> Outcome {
    let Some(set) = Set::of(&site.file) else { return Outcome::Missed };
    for filters in set.passes() {
        let outcome = tests(built, filters, number, limits[filters]);
        if outcome != Outcome::Missed {
            return outcome;
        }
    }
    Outcome::Missed
}

/// Runs these tests until one of them fails. What passes did not notice.
fn tests(built: &Built, filters: &[&str], number: usize, limit: Duration) -> Outcome {
    let mut command = Command::new("sh");
    command
        .args(["-c", &format!("ulimit -v {MEMORY}; exec \"$0\" \"$@\"")])
        .arg(&built.tests)
        .args(filters.iter().map(|filter| format!("{filter}::")))
        .current_dir(&built.directory)
        .env("CKPT_FS_MUTANT", number.to_string())
        // A failure is all there is to know: the smallest case that fails is not looked for, nor kept.
        .env("PROPTEST_MAX_SHRINK_ITERS", "0")
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0);
    let Ok(mut child) = command.spawn() else { return Outcome::Refused };
    let Some(lines) = child.stdout.take() else { return Outcome::Refused };
    let failed = AtomicBool::new(false);
    let start = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut lines = BufReader::new(lines).lines().map_while(Result::ok);
            failed.fetch_or(lines.any(|line| line.ends_with("FAILED")), Ordering::Relaxed);
        });
        loop {
            match child.try_wait() {
                Ok(Some(status)) if status.success() => return Outcome::Missed,
                Ok(Some(_)) | Err(_) => return Outcome::Caught,
                Ok(None) if failed.load(Ordering::Relaxed) => {
                    end(&mut child);
                    return Outcome::Caught;
                }
                Ok(None) if start.elapsed() > limit => {
                    end(&mut child);
                    return Outcome::TimedOut;
                }
                Ok(None) => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    })
}

fn end(child: &mut Child) {
    let group = format!("-{}", child.id());
    let _ = Command::new("kill").args(["-9", "--", &group]).status();
    let _ = child.wait();
}
