//! Pipeline stages as Megatron writes them: first and last rank of another length, or a layout text; and as training flags.
//!
//! Source: Megatron-LM's `arguments.py`, `transformer_block.py` and `pipeline_parallel_layer_layout.py`.

use crate::catalog::Encoding;
use crate::family::{ArgRole, RunFlags};
use crate::layout::{Experts, Layout, Place, Rank, PipelineLayout};
use crate::value::Value;
use crate::view::Basis;

/// How Megatron can say a cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    /// Equal stages: nothing to say.
    Even,
    /// Equal ranks but for the first, the last, or both.
    Ends {
        /// Layers of the first rank, where it must be said.
        first: Option<u32>,
        /// Layers of the last rank, where it must be said.
        last: Option<u32>,
    },
    /// Anything else.
    Custom,
}

impl Cut {
    /// The least that must be said for the stages of `layout`.
    pub(super) fn of(layout: &Layout) -> Self {
        let stages = layout.stages.layers();
        // Numbers of layers alone say neither stages without layers nor virtual stages of one rank that differ.
        let pp = layout.pp() as usize;
        #[expect(clippy::disallowed_methods, reason = "fewer stages than ranks are one turn")]
        let first_turn = stages.get(..pp).unwrap_or(stages);
        if stages.contains(&0) || stages.chunks(pp.max(1)).any(|turn| turn != first_turn) {
            return Self::Custom;
        }
        let ranks = layers_per_rank(layout);
        let even = |part: &[u32]| part.windows(2).all(|pair| pair.first() == pair.last());
        match ranks.as_slice() {
            ranks if even(ranks) => Self::Even,
            [first, rest @ ..] if even(rest) => Self::Ends { first: Some(*first), last: None },
            [rest @ .., last] if even(rest) => Self::Ends { first: None, last: Some(*last) },
            [first, middle @ .., last] if even(middle) => {
                Self::Ends { first: Some(*first), last: Some(*last) }
            }
            _ => Self::Custom,
        }
    }

    pub(super) fn first(self) -> Option<u32> {
        if let Self::Ends { first, .. } = self { first } else { None }
    }

    pub(super) fn last(self) -> Option<u32> {
        if let Self::Ends { last, .. } = self { last } else { None }
    }
}

/// Layers that each pipeline rank holds, all its virtual stages together.
pub(super) fn layers_per_rank(layout: &Layout) -> Vec<u32> {
    let of_rank = |pp| {
        let places = layout.places(Rank { pp, tp: 0, ep: 0 });
        places.map(|place: Place| layout.layers_at(place).len()).sum::<usize>()
    };
    (0..layout.pp()).map(|pp| of_rank(pp) as u32).collect()
}

/// `Et*2|t*3|tL`: embedding, layers, loss, with `|` between stages.
pub(super) fn layout_text(layout: &Layout, prediction_layers: u32) -> String {
    PipelineLayout { stages: layout.stages.clone(), prediction_layers }.to_string()
}

/// Layers of each virtual stage, where `args` say virtual stages by that: their code knows no other way, or the source's run did so.
pub(super) fn layers_per_virtual_stage(basis: &Basis, layout: &Layout) -> Option<u32> {
    let by_number = basis.arg_of(ArgRole::VirtualStages).is_some();
    let by_layers = basis.arg_of(ArgRole::LayersPerVirtualStage).is_some_and(Value::is_truthy);
    let says_so = layout.vpp > 1 && layout.stages.is_even() && (by_layers || !by_number);
    layout.stages.layers().first().copied().filter(|_| says_so)
}

/// The flags that a training run needs to load a view of this layout: sizes, stages, what a view leaves out, and for one made of another
/// format what it does not take from a checkpoint.
#[must_use]
pub fn training_run(basis: &Basis, layout: &Layout) -> RunFlags {
    let of_layout = layout_flags(basis, layout);
    let Some(args) = basis.args().filter(|_| basis.renamed) else {
        return RunFlags { flags: of_layout, cautions: Vec::new() };
    };
    let mut run = basis.model.family().run_flags(args);
    run.flags.splice(0..0, std::iter::once("--use-checkpoint-args".to_owned()).chain(of_layout));
    run
}

/// The flags that a training run of any layout needs to load a distributed checkpoint.
#[must_use]
pub fn distributed_run(basis: &Basis) -> RunFlags {
    let loading = ["--ckpt-format torch_dist".to_owned()].into_iter().chain(optimizer_flags(basis));
    let loading = loading.chain(std::iter::once("--no-load-rng".to_owned()));
    let Some(args) = basis.args().filter(|_| basis.renamed) else {
        return RunFlags { flags: loading.collect(), cautions: Vec::new() };
    };
    let mut run = basis.model.family().run_flags(args);
    run.flags.splice(0..0, std::iter::once("--use-checkpoint-args".to_owned()).chain(loading));
    run
}

fn optimizer_flags(basis: &Basis) -> Option<String> {
    match basis.optimizer {
        Some(Encoding::Distributed(_)) => Some("--use-distributed-optimizer".to_owned()),
        Some(Encoding::Mixed | Encoding::Single | Encoding::Named) => None,
        None => Some("--no-load-optim".to_owned()),
    }
}

fn layout_flags(basis: &Basis, layout: &Layout) -> Vec<String> {
    let mut flags = vec![
        format!("--tensor-model-parallel-size {}", layout.tp),
        format!("--pipeline-model-parallel-size {}", layout.pp()),
    ];
    if let Some(Experts { ep, etp }) = layout.experts {
        flags.push(format!("--expert-model-parallel-size {ep}"));
        flags.push(format!("--expert-tensor-parallel-size {etp}"));
        // Training refuses experts with tensor parallelism and without it.
        flags.extend((layout.tp > 1).then(|| "--sequence-parallel".to_owned()));
    }
    flags.extend(stage_flags(basis, layout));
    flags.extend(optimizer_flags(basis));
    let has_rng = basis.catalog.ranks.iter().any(|file| file.run.rng.is_some());
    if !(basis.with_rng && has_rng) {
        flags.push("--no-load-rng".to_owned());
    }
    flags
}

/// Only flags that this version of the training code has: it has a field of args for each of its flags.
fn stage_flags(basis: &Basis, layout: &Layout) -> Vec<String> {
    let has = |role: ArgRole| basis.arg_of(role).is_some();
    let cut = Cut::of(layout);
    let mut flags = Vec::new();
    if has(ArgRole::StagesText) && layout.pp() > 1 && layout.vpp == 1 {
        flags.push("--pipeline-model-parallel-method block".to_owned());
        flags.push(format!("--pipeline-model-parallel-blocks {}", layout.stages));
        return flags;
    }
    if cut == Cut::Custom && has(ArgRole::StagesLayout) {
        flags.push(format!(
            "--pipeline-model-parallel-layout '{}'",
            layout_text(layout, basis.model.predictions())
        ));
        return flags;
    }
    let first = cut.first().filter(|_| has(ArgRole::FirstStage));
    let last = cut.last().filter(|_| has(ArgRole::LastStage));
    flags.extend(first.map(|n| format!("--decoder-first-pipeline-num-layers {n}")));
    flags.extend(last.map(|n| format!("--decoder-last-pipeline-num-layers {n}")));
    if let Some(layers) = layers_per_virtual_stage(basis, layout) {
        flags.push(format!("--num-layers-per-virtual-pipeline-stage {layers}"));
    } else if layout.vpp > 1 {
        flags.push(format!("--num-virtual-stages-per-pipeline-rank {}", layout.vpp));
    }
    flags
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::Stages;

    fn cut(vpp: u32, layers: &[u32]) -> Cut {
        Cut::of(&Layout { vpp, ..Layout::dense(1, Stages::new(layers.to_vec()).unwrap()) })
    }

    #[test]
    fn the_least_is_said() {
        assert_eq!(cut(1, &[4, 4]), Cut::Even);
        assert_eq!(cut(1, &[8]), Cut::Even);
        assert_eq!(cut(1, &[3, 5]), Cut::Ends { first: Some(3), last: None });
        assert_eq!(cut(1, &[3, 5, 5]), Cut::Ends { first: Some(3), last: None });
        assert_eq!(cut(1, &[5, 5, 3]), Cut::Ends { first: None, last: Some(3) });
        assert_eq!(cut(1, &[1, 2, 2, 3]), Cut::Ends { first: Some(1), last: Some(3) });
        assert_eq!(cut(1, &[1, 2, 3, 2]), Cut::Custom);
        assert_eq!(cut(1, &[0, 4]), Cut::Custom);
    }

    #[test]
    fn ranks_are_what_megatron_counts_where_stages_are_virtual() {
        assert_eq!(cut(2, &[2, 2, 2, 2]), Cut::Even);
        assert_eq!(cut(2, &[1, 2, 1, 2]), Cut::Ends { first: Some(2), last: None });
        assert_eq!(cut(2, &[1, 2, 2, 3, 1, 2, 2, 3]), Cut::Ends { first: Some(2), last: Some(6) });
        // As many layers on each rank, but not in each of its turns.
        assert_eq!(cut(2, &[1, 2, 2, 1]), Cut::Custom);
    }

    #[test]
    fn layout_texts_are_megatrons() {
        let layout = Layout::dense(1, Stages::new(vec![1, 2, 3, 1]).unwrap());
        assert_eq!(layout_text(&layout, 0), "Et|t*2|t*3|tL");
    }
}
