//! Names in a legacy Megatron checkpoint directory: tracker, iteration directories, rank directories.
//!
//! Source: Megatron-LM's `checkpointing.py`. Rank directories carry the pipeline rank only where there is more than one stage, and the
//! expert rank only where there is more than one of them.

mod buckets;
pub mod dist_keys;
mod flat;
mod groups;
pub mod keys;

use crate::layout::Rank;

pub use buckets::bucket_size;
pub use flat::{Flat, FlatItem, FlatRule};
pub use groups::{GroupError, GroupKind};

/// The file that says which iteration is the latest: a decimal number or `release`.
pub const TRACKER: &str = "latest_checkpointed_iteration.txt";

/// The file in each rank directory.
pub const MODEL_FILE: &str = "model_optim_rng.pt";

/// The file beside it that holds the state of a distributed optimizer.
pub const DISTRIBUTED_FILE: &str = "distrib_optim.pt";

/// The directory of a release: a checkpoint without an iteration.
pub const RELEASE: &str = "release";

/// What the name of a rank directory says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RankDir {
    /// Tensor-parallel rank.
    pub tp: u32,
    /// Second number: the pipeline rank, or (with one pipeline stage) the expert rank.
    pub second: Option<u32>,
    /// Third number: the expert rank.
    pub third: Option<u32>,
}

/// `iter_0000100`
#[must_use]
pub fn iteration_dir(iteration: u64) -> String {
    format!("iter_{iteration:07}")
}

/// The iteration of a directory called `iter_N`.
#[must_use]
pub fn parse_iteration_dir(name: &str) -> Option<u64> {
    digits(name.strip_prefix("iter_")?)
}

/// `mp_rank_03`, with `_001` for the stage where there are several (`pp`), and for the expert rank where there are several (`ep`).
#[must_use]
pub fn rank_dir(rank: Rank, pp: u32, ep: u32) -> String {
    let mut name = format!("mp_rank_{:02}", rank.tp);
    for (number, size) in [(rank.pp, pp), (rank.ep, ep)] {
        if size > 1 {
            name.push_str(&format!("_{number:03}"));
        }
    }
    name
}

/// Reads the name of a rank directory.
#[must_use]
pub fn parse_rank_dir(name: &str) -> Option<RankDir> {
    let mut numbers = name.strip_prefix("mp_rank_")?.split('_').map(digits::<u32>);
    let tp = numbers.next()??;
    let (second, third) = (numbers.next(), numbers.next());
    let dir = RankDir { tp, second: second.flatten(), third: third.flatten() };
    let all_read = second.is_some() == dir.second.is_some() && third.is_some() == dir.third.is_some();
    let one_spelling = name == dir.name();
    (all_read && numbers.next().is_none() && one_spelling).then_some(dir)
}

impl RankDir {
    /// The one name that Megatron gives it: `mp_rank_0` beside `mp_rank_00` is somebody's copy, not a rank.
    fn name(self) -> String {
        let more = [self.second, self.third].into_iter().flatten().map(|number| format!("_{number:03}"));
        format!("mp_rank_{:02}{}", self.tp, more.collect::<String>())
    }
}

fn digits<N: std::str::FromStr>(text: &str) -> Option<N> {
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_megatrons() {
        let rank = |tp, pp, ep| Rank { tp, pp, ep };
        assert_eq!(rank_dir(rank(3, 0, 0), 1, 1), "mp_rank_03");
        assert_eq!(rank_dir(rank(3, 0, 0), 2, 1), "mp_rank_03_000");
        assert_eq!(rank_dir(rank(103, 12, 0), 32, 1), "mp_rank_103_012");
        assert_eq!(rank_dir(rank(0, 0, 3), 1, 4), "mp_rank_00_003");
        assert_eq!(rank_dir(rank(1, 2, 3), 4, 4), "mp_rank_01_002_003");
        assert_eq!(iteration_dir(63578), "iter_0063578");
        assert_eq!(parse_iteration_dir("iter_0063578"), Some(63578));
        assert_eq!(parse_iteration_dir("iter_x"), None);
    }

    #[test]
    fn rank_names_are_read_whole_or_not_at_all() {
        let dir = |tp, second, third| Some(RankDir { tp, second, third });
        assert_eq!(parse_rank_dir("mp_rank_03"), dir(3, None, None));
        assert_eq!(parse_rank_dir("mp_rank_03_001"), dir(3, Some(1), None));
        assert_eq!(parse_rank_dir("mp_rank_03_001_002"), dir(3, Some(1), Some(2)));
        for bad in [
            "mp_rank_0",
            "mp_rank_000",
            "mp_rank_03_1",
            "mp_rank_",
            "mp_rank_x",
            "mp_rank_03_",
            "mp_rank_03_1_2_3",
            "mp_rank_-1",
            "rank_03",
        ] {
            assert_eq!(parse_rank_dir(bad), None, "{bad}");
        }
    }
}
