//! A family applied to the `args` of one checkpoint: which of its tensors this model has, how big its groups are, how its vocabulary is padded.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::experts::Experts;
use super::names::templates;
use super::{ArgRole, CutBy, Entry, Family, LayerKind, Numbers};
use crate::layout::{Layout, Processes};
use crate::value::Value;

/// A family applied to the `args` of one checkpoint.
#[derive(Debug, Clone)]
pub struct Model {
    pub(super) family: Arc<Family>,
    pub(super) sizes: BTreeMap<String, u64>,
    pub(super) stated: BTreeMap<String, u64>,
    /// Whether the args were made of a config for a family that has none.
    pub(super) of_config: bool,
    pub(super) experts: Option<Experts>,
    pub(super) entries: Vec<Entry>,
    pub(super) by_name: HashMap<Arc<str>, usize>,
}

impl Family {
    /// Whether a checkpoint with these args and tensor names (with `{layer}`) is of this family.
    #[must_use]
    pub fn matches(&self, args: &Value, names: &dyn Fn(&str) -> bool) -> bool {
        let detect = &self.file.detect;
        let has = |field: &String| args.attribute(field).is_some();
        detect.args.iter().all(has)
            && !detect.without_args.iter().any(has)
            && detect.tensors.iter().any(|name| names(name))
    }
}

impl Model {
    /// The family.
    #[must_use]
    pub fn family(&self) -> &Family {
        &self.family
    }

    /// Dimensions whose sizes args state.
    pub fn stated_dimensions(&self) -> impl Iterator<Item = (&str, u64)> {
        self.stated.iter().map(|(name, size)| (name.as_str(), *size))
    }

    /// Takes over what a config states of dimensions, by the model that the config's own family makes of it: these args are that config's.
    pub fn is_described_by(&mut self, config: &Model) {
        self.stated.clone_from(&config.stated);
        self.of_config = true;
    }

    /// Whether what args state is what a `config.json` says.
    #[must_use]
    pub fn is_of_config(&self) -> bool {
        self.of_config || self.family.model_type().is_some()
    }

    /// Whether numbers of layers and experts in names are those of the model on every rank, and not counted from 0 on each.
    #[must_use]
    pub fn global_layers(&self) -> bool {
        self.family.file.global_layers
    }

    /// A size that args state: `heads`, `groups`, `layers`.
    #[must_use]
    pub fn size(&self, name: &str) -> Option<u64> {
        self.sizes.get(name).copied()
    }

    /// Whether ranks beyond the query groups each hold a copy of one.
    pub(super) fn copies_groups(&self) -> bool {
        self.family.file.copies_groups
    }

    /// Whether several ranks may share a query group.
    pub(super) fn groups_may_be_shared(&self) -> bool {
        self.family.file.groups_may_be_shared
    }

    /// Every tensor and extra state of the model, in the order in which a rank saves them.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The entry that a saved name is, and the numbers in it: of the layer on its stage, of the expert on its rank.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<(&Entry, Numbers)> {
        if let Some(index) = self.by_name.get(name) {
            return Some((self.entries.get(*index)?, Numbers::default()));
        }
        templates(name).find_map(|(template, numbers)| {
            let index = self.by_name.get(template.as_str())?;
            Some((self.entries.get(*index)?, numbers))
        })
    }

    /// Fields of args that decide how files are read: all rank files must agree on them.
    pub fn deciding_args(&self) -> impl Iterator<Item = &str> {
        let file = &self.family.file;
        let sizes = file.sizes.values().flatten().flat_map(|way| way.when.iter().chain([&way.arg]));
        let conditions = file.tensor.iter().flat_map(|tensor| tensor.when.iter().chain(&tensor.unless));
        let refused = file.refuse.iter().map(|rule| &rule.arg);
        let vocabulary = file.vocabulary.true_size.iter().chain(&file.vocabulary.multiple);
        let layout =
            // How an optimizer keeps its state shows in the state itself.
            file.args.iter().filter(|(_, role)| !matches!(role, ArgRole::Rank | ArgRole::DistributedOptimizer)).map(|(field, _)| field);
        let experts = file.experts.iter().flat_map(|file| [&file.count, &file.layers, &file.ffn]);
        let predictions = file.predictions.iter().flat_map(|file| [&file.count, &file.one_if]);
        let copies = file.copies.iter().flat_map(|file| [&file.arg, &file.known_with]);
        sizes
            .chain(experts)
            .chain(predictions)
            .chain(copies)
            .chain(conditions)
            .chain(refused)
            .chain(vocabulary)
            .chain(layout)
            .map(String::as_str)
    }

    /// Fields of args that encode the layout.
    #[must_use]
    pub fn arg_role(&self, field: &str) -> Option<ArgRole> {
        self.family.file.args.get(field).copied()
    }

    /// The field of args that has this role.
    #[must_use]
    pub fn field_of(&self, role: ArgRole) -> Option<&str> {
        self.fields_of(role).next()
    }

    /// The fields of args that have this role.
    pub fn fields_of(&self, role: ArgRole) -> impl Iterator<Item = &str> {
        let all = self.family.file.args.iter();
        all.filter(move |(_, known)| **known == role).map(|(field, _)| field.as_str())
    }

    /// Whether virtual stages must all hold as many layers.
    #[must_use]
    pub fn even_virtual_stages(&self) -> bool {
        self.family.file.even_virtual_stages
    }

    /// The size that `by` must divide where it cuts the dimension, if it is what cuts it.
    #[must_use]
    pub fn cut(&self, dimension: &str, by: CutBy) -> Option<&str> {
        let (size, cut_by) = self.family.parameters.cut.get(dimension)?;
        (*cut_by == by).then_some(size)
    }

    /// Canonical names of the parameters whose rows are the padded vocabulary.
    pub fn padded_parameters(&self) -> impl Iterator<Item = &str> {
        let holds = self
            .entries
            .iter()
            .flat_map(|entry| entry.holds.iter().map(move |holding| (entry.axis, holding)));
        holds
            .filter(|(axis, holding)| holding.is_vocabulary(*axis))
            .map(|(_, holding)| holding.param.as_str())
    }

    /// Whether the layer with this number in the model has experts.
    #[must_use]
    pub fn kind_of(&self, layer: u32) -> LayerKind {
        let has_experts = self.experts.as_ref().is_some_and(|experts| experts.are_in(layer));
        if has_experts { LayerKind::Expert } else { LayerKind::Dense }
    }

    /// Experts that each expert rank of `layout` has; none in a model without.
    #[must_use]
    pub fn experts_per_rank(&self, layout: &Layout) -> u32 {
        let experts = self.size("experts").unwrap_or(0);
        u32::try_from(experts / u64::from(layout.ep().max(1))).unwrap_or(u32::MAX)
    }

    /// The kind of the layer with this number, if it is one.
    #[must_use]
    pub fn kind_of_layer(&self, layer: Option<u32>) -> Option<LayerKind> {
        layer.map(|layer| self.kind_of(layer))
    }

    /// The processes of the run that `args` are of, in `layout`.
    #[must_use]
    pub fn processes<'a>(&self, args: &Value, layout: &'a Layout) -> Processes<'a> {
        let size = |field: Option<&str>| {
            let value = field.and_then(|field| args.attribute(field)).and_then(Value::as_int);
            value.and_then(|n| u32::try_from(n).ok()).filter(|n| (1..1 << 20).contains(n)).unwrap_or(1)
        };
        Processes {
            layout,
            cp: size(Some("context_parallel_size")),
            dp: size(self.field_of(ArgRole::DataParallel)),
            dp_last: args.attribute("use_tp_pp_dp_mapping").is_some_and(Value::is_truthy),
        }
    }

    /// Layers that predict tokens beyond the next one.
    #[must_use]
    pub fn predictions(&self) -> u32 {
        self.size("predictions").and_then(|count| u32::try_from(count).ok()).unwrap_or(0)
    }
}
