//! `args` of a view: the source's, with every field that encodes the layout rewritten. No field is added or removed.

#![expect(clippy::disallowed_methods, reason = "what args do not say is None or as it was, as in Python")]

use super::pipeline::{Cut, layers_per_rank, layers_per_virtual_stage, layout_text};
use crate::catalog::Encoding;
use crate::family::ArgRole;
use crate::layout::{Layout, Processes, Rank};
use crate::value::Value;
use crate::view::{Basis, ViewError};

/// The `args` that rank `rank` of `layout` would have saved.
pub(in crate::view) fn rewrite(
    args: &Value,
    basis: &Basis,
    layout: &Layout,
    rank: Rank,
) -> Result<Value, ViewError> {
    let Some(fields) = args.fields() else { return Ok(args.clone()) };
    let source = &basis.catalog.layout;
    let rewriter = Rewriter {
        args,
        basis,
        layout,
        rank,
        cut: Cut::of(layout),
        processes: basis.model.processes(args, layout).enlarged(),
        recut: (&layout.stages, layout.vpp) != (&source.stages, source.vpp),
        vocabulary: basis.vocabulary_rows(layout.tp)?,
        optimizer: basis.optimizer,
    };
    let fields = fields.iter().map(|(key, value)| {
        let role = key.as_str().and_then(|name| basis.model.arg_role(name));
        (key.clone(), role.map_or_else(|| value.clone(), |role| rewriter.field(role, value)))
    });
    Ok(args.with_fields(fields.collect()).unwrap_or_else(|| args.clone()))
}

struct Rewriter<'a> {
    args: &'a Value,
    basis: &'a Basis,
    layout: &'a Layout,
    rank: Rank,
    cut: Cut,
    /// The run that would have saved it: as many replicas as the source's, or as many as its experts need.
    processes: Processes<'a>,
    /// Whether the stages are not the source's.
    recut: bool,
    vocabulary: Option<u64>,
    /// How the optimizer's state is shown.
    optimizer: Option<Encoding>,
}

impl Rewriter<'_> {
    fn field(&self, role: ArgRole, old: &Value) -> Value {
        let stages = &self.layout.stages;
        match role {
            // Where a run leaves it open it follows from the rest.
            ArgRole::Tp if matches!(old, Value::None) => Value::None,
            ArgRole::Tp => int(self.layout.tp),
            ArgRole::Pp => int(self.layout.pp()),
            ArgRole::Ep => int(self.layout.ep()),
            // Unsaid, it is the tensor-parallel size.
            ArgRole::Etp if matches!(old, Value::None) && self.layout.etp() == self.layout.tp => Value::None,
            ArgRole::Etp => int(self.layout.etp()),
            ArgRole::PpWithLayers => {
                int(self.layout.pp().saturating_sub(u32::from(self.keeps_embedding_stage())).max(1))
            }
            ArgRole::Rank => int(self.process()),
            ArgRole::WorldSize => int(self.processes.count()),
            ArgRole::DataParallel if self.layout.experts.is_some() => int(self.processes.dp),
            ArgRole::DataParallel => old.clone(),
            ArgRole::PaddedVocabulary => self
                .vocabulary
                .and_then(|rows| i64::try_from(rows).ok())
                .filter(|_| !matches!(old, Value::None))
                .map_or_else(|| old.clone(), Value::Int),
            ArgRole::None => Value::None,
            ArgRole::FalseWithoutTp if self.layout.tp == 1 && old.is_truthy() => Value::Bool(false),
            ArgRole::FalseIfRecut if self.recut && old.is_truthy() => Value::Bool(false),
            ArgRole::FalseWithoutVpp if self.layout.vpp == 1 && old.is_truthy() => Value::Bool(false),
            ArgRole::FalseWithoutTp | ArgRole::FalseIfRecut | ArgRole::FalseWithoutVpp => old.clone(),
            ArgRole::DistributedOptimizer => match self.optimizer {
                Some(encoding) => Value::Bool(matches!(encoding, Encoding::Distributed(_))),
                None => old.clone(),
            },
            ArgRole::MicrobatchGroup if old.as_int() == Some(self.basis.catalog.layout.pp().into()) => {
                int(self.layout.pp())
            }
            ArgRole::MicrobatchGroup => old.clone(),
            // How stages are written down is left alone where they are the source's.
            _ if !self.recut => old.clone(),
            ArgRole::Vpp if self.layout.vpp > 1 => int(self.layout.vpp),
            ArgRole::Vpp => Value::None,
            ArgRole::VirtualStages
                if self.layout.vpp > 1 && !self.says_text() && self.per_stage().is_none() =>
            {
                int(self.layout.vpp)
            }
            ArgRole::VirtualStages => Value::None,
            ArgRole::LayersPerVirtualStage => {
                self.per_stage().filter(|_| !self.says_text()).map_or(Value::None, int)
            }
            // Virtual stages are uniform where there is such a choice.
            ArgRole::StagesMethod if self.layout.vpp > 1 => Value::str("uniform"),
            ArgRole::StagesText if self.layout.vpp > 1 => Value::None,
            ArgRole::StagesMethod if stages.is_even() && old.as_str() == Some("uniform") => old.clone(),
            ArgRole::StagesMethod => Value::str("block"),
            ArgRole::StagesText if stages.is_even() && matches!(old, Value::None) => Value::None,
            ArgRole::StagesText => Value::str(&stages.to_string()),
            ArgRole::StagesList => Value::List(layers_per_rank(self.layout).into_iter().map(int).collect()),
            ArgRole::StagesLayout if self.cut == Cut::Custom => {
                Value::str(&layout_text(self.layout, self.basis.model.predictions()))
            }
            ArgRole::StagesLayout => Value::None,
            ArgRole::FirstStage => self.cut.first().map_or(Value::None, int),
            ArgRole::LastStage => self.cut.last().map_or(Value::None, int),
        }
    }

    /// Whether the stages are said in Megatron's text.
    fn says_text(&self) -> bool {
        self.cut == Cut::Custom && self.basis.arg_of(ArgRole::StagesLayout).is_some()
    }

    /// Layers of each virtual stage, where that is how virtual stages are said.
    fn per_stage(&self) -> Option<u32> {
        layers_per_virtual_stage(self.basis, self.layout)
    }

    /// Whether the embedding has a stage of its own, in the source and here.
    fn keeps_embedding_stage(&self) -> bool {
        !self.recut && self.args.attribute("standalone_embedding_stage").is_some_and(Value::is_truthy)
    }

    /// Number of the process that saves this rank: the first of its replicas. A rank that is no process's has that of its first expert rank.
    fn process(&self) -> u32 {
        let known = self.processes.first(self.rank);
        known
            .or_else(|| {
                self.processes.first(Rank { ep: self.rank.tp / self.layout.etp().max(1), ..self.rank })
            })
            .unwrap_or(0)
    }
}

fn int(number: u32) -> Value {
    Value::Int(i64::from(number))
}
