//! Every target with its seeds, and with damaged ones, as ordinary tests: the same inputs every time, in seconds.
//!
//! Not here: looking for something new, which is the fuzzer's (`scripts/fuzz`); how seeds are made (`seeds.py`).

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::targets;

/// No input may take longer, in a build with little optimization beside other tests.
const LONGEST: Duration = Duration::from_secs(10);

/// Damaged inputs for each target. Those that open files take a hundred times as long as the others.
const MANY: u64 = 10_000;
const FEW: u64 = 1000;

/// Where inputs that fail are left.
const LEFT: &str = env!("CARGO_TARGET_TMPDIR");

/// The seeds of each target, made once.
static SEEDS: LazyLock<BTreeMap<String, Vec<Vec<u8>>>> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a directory");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds.py");
    let made = Command::new("python3").arg(script).arg(folder.path()).status();
    let made = made.expect("seeds are made by fuzz/seeds.py, which needs python3 and nothing else");
    assert!(made.success(), "fuzz/seeds.py: {made}");
    let target = |path: PathBuf| {
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        (name, inside(&path).iter().map(|seed| fs::read(seed).expect("a seed")).collect())
    };
    inside(folder.path()).into_iter().map(target).collect()
});

fn inside(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    let mut paths: Vec<_> = entries.collect();
    paths.sort();
    paths
}

/// Numbers that look random and are the same every time (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    /// A short range that lies in `len` bytes.
    fn range(&mut self, len: usize) -> std::ops::Range<usize> {
        let start = self.below(len + 1);
        let longest = [1, 4, 16, 256][self.below(4)];
        start..(start + 1 + self.below(longest)).min(len)
    }
}

/// Values that lengths and counts go wrong at.
const EDGES: [u64; 8] = [0, 1, 0x7f, 0xff, 0x7fff_ffff, 0xffff_ffff, i64::MAX as u64, u64::MAX];

/// A seed with one to four faults: bytes changed, lost, doubled, or taken from another.
fn damaged(seed: &[u8], other: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..=random.below(4) {
        let range = random.range(bytes.len());
        match random.below(7) {
            0 if !range.is_empty() => bytes[range.start] ^= 1 << random.below(8),
            1 if !range.is_empty() => bytes[range.start] = random.next() as u8,
            2 => {
                let edge = EDGES[random.below(EDGES.len())].to_le_bytes();
                let end = bytes.len().min(range.start + [1, 2, 4, 8][random.below(4)]);
                bytes[range.start..end].copy_from_slice(&edge[..end - range.start]);
            }
            3 => bytes.truncate(range.start),
            4 => drop(bytes.drain(range)),
            5 => {
                let doubled = bytes[range.clone()].to_vec();
                bytes.splice(range.start..range.start, doubled);
            }
            _ => {
                let from = random.range(other.len());
                bytes.splice(range, other[from].iter().copied());
            }
        }
    }
    bytes
}

/// Leaves the input of a test that fails in a file, and says which.
struct Guard<'a> {
    target: &'a str,
    input: &'a [u8],
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let path = Path::new(LEFT).join(format!("fuzz-{}", self.target));
            match fs::write(&path, self.input) {
                Ok(()) => eprintln!("the input: {}", path.display()),
                Err(error) => eprintln!("the input could not be written to {}: {error}", path.display()),
            }
        }
    }
}

/// Memory is counted for the whole process, so targets run one at a time.
fn alone(target: &str, rounds: u64) {
    static ALONE: Mutex<()> = Mutex::new(());
    // One that failed has said so.
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (_, run) = targets::ALL.iter().find(|(name, _)| *name == target).expect("a target");
    let seeds = SEEDS.get(target).expect("seeds for every target");
    let give = |input: &[u8]| {
        let guard = Guard { target, input };
        let start = Instant::now();
        run(guard.input);
        assert!(start.elapsed() < LONGEST, "took {:?}", start.elapsed());
    };
    seeds.iter().for_each(|seed| give(seed));
    for number in 0..rounds {
        let mut random = Random(number);
        let [seed, other] = [(); 2].map(|()| &seeds[random.below(seeds.len())]);
        give(&damaged(seed, other, &mut random));
    }
}

macro_rules! tests {
    ($($target:ident: $rounds:expr,)*) => {
        $(#[test]
        fn $target() {
            alone(stringify!($target), $rounds);
        })*

        #[test]
        fn every_target_is_here() {
            let names: Vec<_> = targets::ALL.iter().map(|(name, _)| *name).collect();
            assert_eq!(names, [$(stringify!($target)),*]);
            assert_eq!(names, SEEDS.keys().collect::<Vec<_>>());
        }
    };
}

tests! {
    checkpoint: FEW,
    config_json: MANY,
    dcp_metadata: MANY,
    dcp_pieces: FEW,
    family_file: FEW,
    index_json: MANY,
    layout_name: MANY,
    model_directory: FEW,
    pickle: MANY,
    plan_resolve: MANY,
    safetensors_header: MANY,
    torch_file: FEW,
    zip_directory: MANY,
}
