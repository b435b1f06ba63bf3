//! Which process of a training run has which rank: Megatron numbers processes through tensor, context, expert, data and pipeline parallelism.
//!
//! Source: `RankGenerator` of megatron-core's `parallel_state.py`. Data parallelism holds the expert ranks: with an expert-tensor-parallel size
//! below the tensor-parallel one, a process's tensor and expert ranks go up together, and some pairs of them belong to nobody.

use super::{Layout, Rank};

/// The processes of a run in one layout.
#[derive(Debug, Clone, Copy)]
pub struct Processes<'a> {
    /// The layout.
    pub layout: &'a Layout,
    /// Context-parallel size.
    pub cp: u32,
    /// Data-parallel size: replicas of the parameters that are not experts'.
    pub dp: u32,
    /// Whether data parallelism counts slowest (`use_tp_pp_dp_mapping`), after the pipeline.
    pub dp_last: bool,
}

impl Processes<'_> {
    /// The same run with just enough replicas, at least as many as now, that the expert ranks share them out.
    #[must_use]
    pub fn enlarged(self) -> Self {
        let dense = u64::from(self.layout.tp) * u64::from(self.cp);
        let experts = u64::from(self.layout.etp()) * u64::from(self.layout.ep());
        let step = experts / gcd(experts, dense).max(1);
        let dp = u64::from(self.dp).next_multiple_of(step.max(1));
        let fits = self.layout.experts.is_some() && !self.dp_last;
        Self { dp: if fits { u32::try_from(dp).unwrap_or(self.dp) } else { self.dp }, ..self }
    }

    /// Number of processes.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.layout.pp().saturating_mul(self.per_stage()).saturating_mul(if self.dp_last {
            self.dp
        } else {
            1
        })
    }

    /// The first process with this rank; `None` where there is none.
    #[must_use]
    pub fn first(&self, rank: Rank) -> Option<u32> {
        let Layout { tp, .. } = *self.layout;
        let (ep, etp) = (self.layout.ep().max(1), self.layout.etp().max(1));
        let within = |replica: u32| replica.saturating_mul(tp).saturating_add(rank.tp);
        // The expert rank comes around after at most as many replicas as there are expert ranks.
        let replicas = self.per_stage().checked_div(tp).unwrap_or(0).min(ep);
        let replica = (0..replicas).find(|replica| within(*replica) / etp % ep == rank.ep)?;
        Some(rank.pp.saturating_mul(self.per_stage()).saturating_add(within(replica)))
    }

    /// Whether the first process with this rank is the first replica of its dense tensors, and of its experts: that one saves what replicas
    /// share out among them. Both, for a rank that no process has.
    #[must_use]
    pub fn is_first_replica(&self, rank: Rank) -> (bool, bool) {
        let Some(number) = self.first(rank) else { return (true, true) };
        let within = number.checked_rem(self.per_stage()).unwrap_or(0);
        let experts = self.layout.etp().saturating_mul(self.layout.ep());
        (within < self.layout.tp, within < experts)
    }

    /// Whether training with these sizes saves a file for `rank`. Sizes that are no run's say nothing: then every file counts.
    #[must_use]
    pub fn saves(&self, rank: Rank) -> bool {
        let experts = self.layout.etp().saturating_mul(self.layout.ep()).max(1);
        !self.per_stage().is_multiple_of(experts) || self.first(rank).is_some()
    }

    /// Processes from one stage to the next.
    fn per_stage(&self) -> u32 {
        let replicas = if self.dp_last { 1 } else { self.dp };
        self.layout.tp.saturating_mul(self.cp).saturating_mul(replicas)
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::{Experts, Stages};

    fn layout(tp: u32, pp: u32, ep: u32, etp: u32) -> Layout {
        let stages = Stages::even(pp, pp).unwrap();
        Layout { experts: Some(Experts { ep, etp }), ..Layout::dense(tp, stages) }
    }

    fn run(layout: &Layout, dp: u32) -> Processes<'_> {
        Processes { layout, cp: 1, dp, dp_last: false }
    }

    /// Every rank that a process has, by the rule written down the other way round: process to rank.
    fn all(processes: &Processes<'_>) -> Vec<Rank> {
        let (tp, ep, etp) = (processes.layout.tp, processes.layout.ep(), processes.layout.etp());
        let per_stage = tp * processes.dp;
        let rank = |n: u32| {
            let within = n % per_stage;
            Rank { pp: n / per_stage, tp: within % tp, ep: within / etp % ep }
        };
        (0..processes.count()).map(rank).collect()
    }

    #[test]
    fn ranks_are_those_of_megatrons_generator() {
        for (tp, ep, etp, dp) in
            [(2, 2, 1, 1), (2, 2, 2, 2), (4, 2, 2, 1), (4, 3, 2, 3), (1, 4, 1, 4), (2, 4, 1, 4)]
        {
            let layout = layout(tp, 2, ep, etp);
            let processes = run(&layout, dp);
            let has = all(&processes);
            for rank in layout.ranks() {
                let first = has.iter().position(|other| *other == rank).map(|n| u32::try_from(n).unwrap());
                assert_eq!(processes.first(rank), first, "{rank:?} of {layout} dp{dp}");
                assert_eq!(processes.saves(rank), first.is_some());
            }
        }
    }

    #[test]
    fn the_first_replica_saves() {
        let rank = |tp, ep| Rank { pp: 1, tp, ep };
        // Every expert rank has its own experts, but only the first one the first replica of the rest.
        let wide = layout(1, 2, 2, 1);
        assert_eq!(run(&wide, 2).is_first_replica(rank(0, 0)), (true, true));
        assert_eq!(run(&wide, 2).is_first_replica(rank(0, 1)), (false, true));
        // Whole experts beside halves of everything else: the second rank's experts are a replica.
        let whole = layout(2, 2, 1, 1);
        assert_eq!(run(&whole, 1).is_first_replica(rank(1, 0)), (true, false));
        // Nobody has this one.
        let apart = layout(2, 2, 2, 1);
        assert_eq!(run(&apart, 1).is_first_replica(rank(0, 1)), (true, true));
    }

    #[test]
    fn replicas_grow_until_they_hold_the_experts() {
        let layout = layout(2, 2, 4, 2);
        assert_eq!(run(&layout, 1).enlarged().dp, 4);
        assert_eq!(run(&layout, 8).enlarged().dp, 8);
        assert_eq!(run(&layout, 6).enlarged().count(), 2 * 2 * 8);
        let plain = Layout::dense(2, Stages::even(2, 2).unwrap());
        assert_eq!((run(&plain, 3).enlarged().dp, run(&plain, 3).count()), (3, 12));
        let last = Processes { layout: &plain, cp: 1, dp: 3, dp_last: true };
        assert_eq!((last.first(Rank { pp: 1, tp: 1, ep: 0 }), last.count()), (Some(3), 12));
    }

    #[test]
    fn replicas_grow_no_further_than_the_experts_need() {
        // Three ranks of experts and two of everything else: only three replicas hold both.
        assert_eq!(run(&layout(2, 1, 3, 1), 1).enlarged().dp, 3);
        // As many of either: any number will do.
        assert_eq!(run(&layout(2, 1, 1, 2), 3).enlarged().dp, 3);
        // Context parallelism holds experts too.
        let wide = layout(2, 1, 4, 2);
        assert_eq!(Processes { cp: 2, ..run(&wide, 1) }.enlarged().dp, 2);
        // Where replicas count after the pipeline, more of them add nothing to a stage.
        assert_eq!(Processes { dp_last: true, ..run(&wide, 1) }.enlarged().dp, 1);
    }

    /// Two processes cannot have four expert ranks: nobody has the last ones, and what such sizes say of files is not believed.
    #[test]
    fn sizes_that_are_no_runs_say_nothing() {
        let layout = layout(1, 2, 4, 1);
        let processes = run(&layout, 2);
        let of = |ep| {
            let rank = Rank { pp: 1, tp: 0, ep };
            (processes.first(rank), processes.saves(rank))
        };
        assert_eq!([0, 1, 2, 3].map(of), [(Some(2), true), (Some(3), true), (None, true), (None, true)]);
    }
}
