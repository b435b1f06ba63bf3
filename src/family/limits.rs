//! Which tensor-parallel sizes a model allows.

use std::fmt;

use super::Model;

/// A size of the model that the tensor-parallel size must fit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Limit {
    /// What it is, e.g. `heads`.
    pub what: String,
    /// How many there are.
    pub size: u64,
    /// Query groups only: the number of heads. A TP that is a multiple of the groups is allowed where it divides the heads.
    pub heads: Option<u64>,
}

/// A tensor-parallel size that the model does not allow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct LimitError {
    /// Which size: TP or ETP.
    pub name: &'static str,
    /// Size asked for.
    pub size: u64,
    /// What it does not fit.
    pub limit: Limit,
    /// Sizes that fit everything.
    pub possible: Vec<u64>,
}

impl fmt::Display for LimitError {
    /// `TP 3 does not divide 8 heads; possible: 1, 2, 4, 8`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Limit { what, size, .. } = &self.limit;
        let possible: Vec<_> = self.possible.iter().map(u64::to_string).collect();
        let name = match what.as_str() {
            "groups" => "query groups",
            "ffn" => "rows of the feed-forward layer",
            "shared_ffn" => "rows of the shared expert",
            "expert_ffn" => "rows of each expert",
            "vocabulary" => "rows of the vocabulary",
            other => other,
        };
        write!(
            f,
            "{} {} does not divide {size} {name}; possible: {}",
            self.name,
            self.size,
            possible.join(", ")
        )
    }
}

impl Limit {
    fn allows(&self, tp: u64) -> bool {
        let divides = tp > 0 && self.size.is_multiple_of(tp);
        // Megatron lets several ranks share a query group; its rows are then cut as plainly as any.
        let shares = self
            .heads
            .is_some_and(|heads| tp > 0 && tp.is_multiple_of(self.size) && heads.is_multiple_of(tp));
        divides || shares
    }
}

impl Model {
    /// The limit for tensors whose dimension is cut by size `what`; `size` is used where the family has no size of that name.
    #[must_use]
    pub fn limit(&self, what: &str, size: u64) -> Limit {
        let shared = what == "groups" && (self.groups_may_be_shared() || self.copies_groups());
        let heads = if shared { self.size("heads") } else { None };
        Limit { what: what.to_owned(), size: self.size(what).unwrap_or(size), heads }
    }
}

/// Checks size `size`, called `name`, against all `limits`.
///
/// # Errors
/// [`LimitError`] naming the first limit that it does not fit, and what is possible.
pub fn check(limits: &[Limit], name: &'static str, size: u64) -> Result<(), LimitError> {
    match limits.iter().find(|limit| !limit.allows(size)) {
        None => Ok(()),
        Some(limit) => Err(LimitError { name, size, limit: limit.clone(), possible: possible(limits) }),
    }
}

/// More ranks than any cluster has: a size read from a hostile file must not become a loop.
const MOST_RANKS: u64 = 1 << 16;

/// Every tensor-parallel size that fits all `limits`.
#[must_use]
pub fn possible(limits: &[Limit]) -> Vec<u64> {
    let most =
        limits.iter().map(|limit| limit.heads.unwrap_or(limit.size)).min().unwrap_or(1).min(MOST_RANKS);
    (1..=most).filter(|tp| limits.iter().all(|limit| limit.allows(*tp))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(what: &str, size: u64) -> Limit {
        Limit { what: what.into(), size, heads: None }
    }

    #[test]
    fn what_is_impossible_says_what_is_possible() {
        let limits = [limit("heads", 8), limit("ffn", 176)];
        assert_eq!(check(&limits, "TP", 4), Ok(()));
        assert_eq!(
            check(&limits, "TP", 3).unwrap_err().to_string(),
            "TP 3 does not divide 8 heads; possible: 1, 2, 4, 8"
        );
    }

    #[test]
    fn ranks_may_share_a_query_group() {
        let groups = Limit { what: "groups".into(), size: 2, heads: Some(12) };
        assert_eq!(possible(&[groups, limit("heads", 12)]), [1, 2, 4, 6, 12]);
    }
}
