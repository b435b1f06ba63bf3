//! Pipeline stages as Megatron writes them: first and last stage of another length, or a layout text; and as training flags.
//!
//! Source: Megatron-LM's `arguments.py` and `pipeline_parallel_layer_layout.py`.

use crate::family::ArgRole;
use crate::layout::{Layout, Stages};
use crate::view::Stock;

/// How Megatron can say a cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    /// Equal stages: nothing to say.
    Even,
    /// Equal stages but for the first, the last, or both.
    Ends {
        /// Layers of the first stage, where it must be said.
        first: Option<u32>,
        /// Layers of the last stage, where it must be said.
        last: Option<u32>,
    },
    /// Anything else.
    Custom,
}

impl Cut {
    /// The least that must be said for these stages.
    pub(super) fn of(stages: &Stages) -> Self {
        let layers = stages.layers();
        let even = |part: &[u32]| part.windows(2).all(|pair| pair.first() == pair.last());
        match layers {
            // Stages without layers cannot be said by numbers of layers alone.
            _ if layers.contains(&0) => Self::Custom,
            _ if even(layers) => Self::Even,
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

/// `Et*2|t*3|tL`: embedding, layers, loss, with `|` between stages.
pub(super) fn layout_text(stages: &Stages) -> String {
    let count = stages.layers().len();
    let stage = |(index, layers): (usize, &u32)| {
        let layers = match layers {
            0 => String::new(),
            1 => "t".to_owned(),
            n => format!("t*{n}"),
        };
        format!("{}{layers}{}", if index == 0 { "E" } else { "" }, if index + 1 == count { "L" } else { "" })
    };
    stages.layers().iter().enumerate().map(stage).collect::<Vec<_>>().join("|")
}

/// The flags that a training run needs to load a view of this layout: sizes, stages, and what a view leaves out.
#[must_use]
pub fn training_flags(stock: &Stock, layout: &Layout) -> Vec<String> {
    let mut flags = vec![
        format!("--tensor-model-parallel-size {}", layout.tp),
        format!("--pipeline-model-parallel-size {}", layout.pp()),
    ];
    let encodes = |role: ArgRole| {
        let fields = stock.args().and_then(|args| {
            if let crate::value::Value::Object(o) = args { o.state.as_ref()?.items() } else { None }
        });
        fields
            .unwrap_or_default()
            .iter()
            .any(|(key, _)| key.as_str().and_then(|name| stock.model.arg_role(name)) == Some(role))
    };
    // Only flags that this version of the training code has: it has a field of args for each of its flags.
    let cut = Cut::of(&layout.stages);
    if encodes(ArgRole::StagesText) && layout.pp() > 1 {
        flags.push("--pipeline-model-parallel-method block".to_owned());
        flags.push(format!("--pipeline-model-parallel-blocks {}", layout.stages));
    } else if cut == Cut::Custom && encodes(ArgRole::StagesLayout) {
        flags.push(format!("--pipeline-model-parallel-layout '{}'", layout_text(&layout.stages)));
    } else {
        let first = cut.first().filter(|_| encodes(ArgRole::FirstStage));
        let last = cut.last().filter(|_| encodes(ArgRole::LastStage));
        flags.extend(first.map(|n| format!("--decoder-first-pipeline-num-layers {n}")));
        flags.extend(last.map(|n| format!("--decoder-last-pipeline-num-layers {n}")));
    }
    flags.extend(["--no-load-optim".to_owned(), "--no-load-rng".to_owned()]);
    flags
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(layers: &[u32]) -> Cut {
        Cut::of(&Stages::new(layers.to_vec()).unwrap())
    }

    #[test]
    fn the_least_is_said() {
        assert_eq!(cut(&[4, 4]), Cut::Even);
        assert_eq!(cut(&[8]), Cut::Even);
        assert_eq!(cut(&[3, 5]), Cut::Ends { first: Some(3), last: None });
        assert_eq!(cut(&[3, 5, 5]), Cut::Ends { first: Some(3), last: None });
        assert_eq!(cut(&[5, 5, 3]), Cut::Ends { first: None, last: Some(3) });
        assert_eq!(cut(&[1, 2, 2, 3]), Cut::Ends { first: Some(1), last: Some(3) });
        assert_eq!(cut(&[1, 2, 3, 2]), Cut::Custom);
    }

    #[test]
    fn layout_texts_are_megatrons() {
        assert_eq!(layout_text(&Stages::new(vec![1, 2, 3, 1]).unwrap()), "Et|t*2|t*3|tL");
    }
}
