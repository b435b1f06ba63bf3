//! Random-number states of the ranks of a run, of a source that is itself in no layout.
//!
//! Not here: those of rank files, each of which has its own (`RunState::rng`).

use super::relative_place;
use crate::layout::{Layout, Rank};
use crate::value::Value;

/// The states of all ranks that the source has one of.
#[derive(Debug, Clone)]
pub struct RngStates {
    /// Tensor-parallel and pipeline-parallel size of the run.
    pub tp: u32,
    /// Pipeline-parallel size.
    pub pp: u32,
    /// What each rank saved; expert ranks are not told apart.
    pub of: Vec<(Rank, Value)>,
}

impl RngStates {
    /// The state that suits `target` of `layout` best: that of the same rank where there is one, else of the nearest at the same relative place.
    #[must_use]
    pub fn nearest(&self, target: Rank, layout: &Layout) -> Option<&Value> {
        let pp = relative_place(target.pp, layout.pp(), self.pp);
        let tp = relative_place(target.tp, layout.tp, self.tp);
        let nearest = self.of.iter().min_by_key(|(rank, _)| (rank.pp.abs_diff(pp), rank.tp.abs_diff(tp), *rank));
        nearest.map(|(_, state)| state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::Stages;

    #[test]
    fn the_nearest_state_is_that_of_the_same_rank_or_relative_place() {
        let rank = |pp, tp| Rank { pp, tp, ep: 0 };
        let of = [(0, 0), (0, 1), (1, 0)].map(|(pp, tp)| (rank(pp, tp), Value::Int((10 * pp + tp).into())));
        let states = RngStates { tp: 2, pp: 2, of: of.into() };
        let near = |pp, tp, layout: &Layout| states.nearest(rank(pp, tp), layout).and_then(Value::as_int);
        let same = Layout::dense(2, Stages::nearly_even(4, 2));
        assert_eq!((near(0, 1, &same), near(1, 0, &same)), (Some(1), Some(10)));
        // There is none of the last rank.
        assert_eq!(near(1, 1, &same), Some(10));
        let wide = Layout::dense(4, Stages::nearly_even(4, 1));
        assert_eq!((near(0, 1, &wide), near(0, 2, &wide)), (Some(0), Some(1)));
        let long = Layout::dense(1, Stages::nearly_even(4, 4));
        assert_eq!((near(1, 0, &long), near(2, 0, &long)), (Some(0), Some(10)));
    }
}
