//! What the tensors and extra states of a model are called in the checkpoint, and which of them are there.

use crate::catalog::{Encoding, MASTER};
use crate::family::{Entry, LayerKind, Numbers};
use crate::format::megatron::dist_keys::{DistName, MASTERS, Of, Spec, layers_have_own_keys, state_key};
use crate::tensor::Dtype;
use crate::view::{Basis, TargetTensor, ViewError};

use crate::view::dcp_files::values::Values;

/// Names the parts of one model.
pub(super) struct Keys<'basis> {
    pub(super) basis: &'basis Basis,
    spec: Spec,
    /// Whether each layer has keys of its own.
    apart: bool,
}

/// Whether attention is latent, in args.
const LATENT: &str = "multi_latent_attention";

impl<'basis> Keys<'basis> {
    pub(super) fn new(basis: &'basis Basis) -> Self {
        let args = basis.args();
        let latent = args.and_then(|args| args.attribute(LATENT)).is_some_and(crate::value::Value::is_truthy);
        let spec = Spec::of_names(latent, basis.catalog.spellings.keys().map(|name| &**name));
        Self { basis, spec, apart: args.is_some_and(layers_have_own_keys) }
    }

    /// What keys call the tensor or extra state of an entry.
    pub(super) fn name(&self, entry: &Entry) -> Result<DistName, ViewError> {
        DistName::of_rank(&entry.name, self.spec).ok_or_else(|| ViewError::NoKey {
            title: self.basis.model.family().title.clone(),
            tensor: entry.name.to_string(),
        })
    }

    /// The same; `None` for what is in no such checkpoint.
    pub(super) fn known_name(&self, entry: &Entry) -> Option<DistName> {
        DistName::of_rank(&entry.name, self.spec)
    }

    /// What models of the other kind of layers call the same norm, where they do not call it alike. It is there under both names, because
    /// nothing says which loads it, and loaders look at nothing that they do not ask for.
    pub(super) fn other_name(&self, name: &DistName, numbers: Numbers) -> Option<DistName> {
        let model = &self.basis.model;
        let has_experts = match model.kind_of_layer(numbers.layer) {
            Some(kind) => kind == LayerKind::Expert,
            // A prediction is a layer like the last one.
            None => model.kind_of(self.layers().saturating_sub(1)) == LayerKind::Expert,
        };
        name.other_norm(self.spec.latent, has_experts)
    }

    /// The layer or prediction that stands in a key; `None` where keys stack them, and for what is of the model.
    pub(super) fn own_layer(&self, name: &DistName, numbers: Numbers) -> Option<u32> {
        match name.of {
            Of::Model => None,
            Of::Layers => numbers.layer.filter(|_| self.apart),
            Of::Predictions => numbers.depth,
        }
    }

    /// The key of these values of a tensor, of this layer alone or of all.
    pub(super) fn key(&self, name: &DistName, own_layer: Option<u32>, values: Values) -> String {
        let weight = name.key(own_layer);
        match self.state(values) {
            Some(state) => state_key(state, &weight),
            None => weight,
        }
    }

    /// What a state is called; `None` for the weights.
    fn state(&self, values: Values) -> Option<&'basis str> {
        let Values::State(number) = values else { return None };
        let state = self.basis.catalog.optimizer.as_ref()?.states.get(number)?;
        let [mixed, distributed] = MASTERS;
        Some(match (&*state.name, self.basis.optimizer) {
            (MASTER, Some(Encoding::Distributed(_))) => distributed,
            (MASTER, _) => mixed,
            (name, _) => name,
        })
    }

    /// Whether the checkpoint has these values of a tensor: a state is there of what is trained, and in mixed precision weights of 32 bits are
    /// their own masters.
    pub(super) fn has(&self, values: Values, tensor: &TargetTensor<'_>) -> bool {
        let Values::State(number) = values else { return true };
        let states = self.basis.catalog.optimizer.iter().flat_map(|optimizer| &optimizer.states);
        let is_master = states.skip(number).take(1).any(|state| *state.name == *MASTER);
        let is_distributed = matches!(self.basis.optimizer, Some(Encoding::Distributed(_)));
        let weight = tensor.first.and_then(|param| self.basis.catalog.param(&param.name));
        let is_half = weight.is_some_and(|weight| matches!(weight.dtype, Dtype::Float16 | Dtype::Bfloat16));
        tensor.entry.is_trained() && (!is_master || is_distributed || is_half)
    }

    /// Layers of the model.
    pub(super) fn layers(&self) -> u32 {
        // No model has as many layers as 2^32.
        self.basis.catalog.layout.stages.total() as u32
    }

    /// Experts of the model.
    pub(super) fn experts(&self) -> u32 {
        self.basis.model.experts_per_rank(&self.basis.catalog.layout.undivided())
    }
}
