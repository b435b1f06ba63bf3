//! `args` of a view: the source's, with every field that encodes the layout rewritten. No field is added or removed.

use std::sync::Arc;

use super::pipeline::{Cut, layout_text};
use crate::family::ArgRole;
use crate::layout::{Layout, Rank};
use crate::value::{Object, Value};
use crate::view::{Stock, ViewError};

/// The `args` that rank `rank` of `layout` would have saved.
pub(super) fn rewrite(args: &Value, stock: &Stock, layout: &Layout, rank: Rank) -> Result<Value, ViewError> {
    let Value::Object(object) = args else { return Ok(args.clone()) };
    let Some(fields) = object.state.as_ref().and_then(Value::items) else { return Ok(args.clone()) };
    let rewriter = Rewriter {
        args,
        layout,
        rank,
        recut: layout.stages != stock.catalog.layout.stages,
        vocabulary: stock.vocabulary_rows(layout.tp)?,
    };
    let fields = fields.iter().map(|(key, value)| {
        let role = key.as_str().and_then(|name| stock.model.arg_role(name));
        (key.clone(), role.map_or_else(|| value.clone(), |role| rewriter.field(role, value)))
    });
    let state = Some(Value::Dict(fields.collect()));
    Ok(Value::Object(Arc::new(Object { state, ..Object::clone(object) })))
}

struct Rewriter<'a> {
    args: &'a Value,
    layout: &'a Layout,
    rank: Rank,
    /// Whether the stages are not the source's.
    recut: bool,
    vocabulary: Option<u64>,
}

impl Rewriter<'_> {
    fn field(&self, role: ArgRole, old: &Value) -> Value {
        let stages = &self.layout.stages;
        match role {
            ArgRole::Tp => int(self.layout.tp),
            ArgRole::Pp => int(self.layout.pp()),
            ArgRole::PpWithLayers => {
                int(self.layout.pp().saturating_sub(u32::from(self.keeps_embedding_stage())).max(1))
            }
            ArgRole::Rank => int(self.process()),
            ArgRole::WorldSize => int(self.processes(self.layout.pp())),
            ArgRole::PaddedVocabulary => self
                .vocabulary
                .and_then(|rows| i64::try_from(rows).ok())
                .filter(|_| !matches!(old, Value::None))
                .map_or_else(|| old.clone(), Value::Int),
            ArgRole::None => Value::None,
            ArgRole::FalseWithoutTp if self.layout.tp == 1 && old.is_truthy() => Value::Bool(false),
            ArgRole::FalseIfRecut if self.recut && old.is_truthy() => Value::Bool(false),
            ArgRole::FalseWithoutTp | ArgRole::FalseIfRecut => old.clone(),
            // How stages are written down is left alone where they are the source's.
            _ if !self.recut => old.clone(),
            ArgRole::StagesMethod if stages.is_even() && old.as_str() == Some("uniform") => old.clone(),
            ArgRole::StagesMethod => Value::str("block"),
            ArgRole::StagesText if stages.is_even() && matches!(old, Value::None) => Value::None,
            ArgRole::StagesText => Value::str(&stages.to_string()),
            ArgRole::StagesList => Value::List(stages.layers().iter().map(|n| int(*n)).collect()),
            ArgRole::StagesLayout => match Cut::of(stages) {
                Cut::Custom => Value::str(&layout_text(stages)),
                _ => Value::None,
            },
            ArgRole::FirstStage => Cut::of(stages).first().map_or(Value::None, int),
            ArgRole::LastStage => Cut::of(stages).last().map_or(Value::None, int),
        }
    }

    /// Whether the embedding has a stage of its own, in the source and here.
    fn keeps_embedding_stage(&self) -> bool {
        !self.recut && self.args.attribute("standalone_embedding_stage").is_some_and(Value::is_truthy)
    }

    /// Number of the process that saves this rank: the first of its data-parallel replicas. Megatron numbers tp, cp, dp, pp from the
    /// fastest to the slowest, or with `use_tp_pp_dp_mapping` tp, cp, pp, dp.
    fn process(&self) -> u32 {
        let stage = if self.args.attribute("use_tp_pp_dp_mapping").is_some_and(Value::is_truthy) {
            self.rank.pp.saturating_mul(self.layout.tp).saturating_mul(self.size("context_parallel_size"))
        } else {
            self.processes(self.rank.pp)
        };
        stage.saturating_add(self.rank.tp)
    }

    /// Processes of so many stages.
    fn processes(&self, stages: u32) -> u32 {
        stages.saturating_mul(self.replicas()).saturating_mul(self.layout.tp)
    }

    /// Ranks that hold the same parameters: the view is for the same number of them as the source.
    fn replicas(&self) -> u32 {
        self.size("data_parallel_size").saturating_mul(self.size("context_parallel_size"))
    }

    /// A parallel size that is not the layout's; 1 where args do not say.
    fn size(&self, field: &str) -> u32 {
        let value = self.args.attribute(field).and_then(Value::as_int);
        value.and_then(|n| u32::try_from(n).ok()).filter(|n| (1..1 << 20).contains(n)).unwrap_or(1)
    }
}

fn int(number: u32) -> Value {
    Value::Int(i64::from(number))
}
