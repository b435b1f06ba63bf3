//! Parameter groups and what is kept parameter by parameter, written down from Megatron's `_get_param_groups`,
//! `Float16OptimizerWithFloat16Params.state_dict`, `DistributedOptimizer.state_dict` and `ChainedOptimizer.state_dict`.

use ckpt_fs::tensor::Dtype;
use ckpt_fs::value::Value;

use super::{Encoding, Era, MOMENTS, Member, Steps, Trained};
use crate::common::{Array, Keep, Storages, call, dict, global, tuple};

/// A parameter group of a rank.
struct Group<'a> {
    decays: bool,
    members: Vec<&'a Member>,
}

impl Trained {
    /// Older models know one version only.
    pub(super) fn era(&self) -> Era {
        if self.config.kind.is_core() { self.era } else { Era::Early }
    }

    /// Whether experts have an optimizer of their own in this layout.
    pub fn experts_apart(&self) -> bool {
        let differently = self.era() == Era::Newest && self.cut.etp != self.cut.tp;
        self.config.moe.is_some() && (self.cut.ep > 1 || differently)
    }

    /// Whether a rank has it: where groups are not alike on all ranks, only one with experts does.
    pub(super) fn has_expert_optimizer(&self, members: &[Member]) -> bool {
        let any_here = members.iter().any(|member| member.apart);
        self.experts_apart() && (self.era() != Era::Early || any_here)
    }

    /// `optimizer`, of a rank.
    pub(super) fn optimizer(&self, members: &[Member], storages: &mut Storages) -> Value {
        let of =
            |apart: bool| -> Vec<&Member> { members.iter().filter(|member| member.apart == apart).collect() };
        let dense = self.one_optimizer(&of(false), false, storages);
        if !self.has_expert_optimizer(members) {
            return dense;
        }
        Value::List(vec![dense, self.one_optimizer(&of(true), true, storages)].into())
    }

    fn one_optimizer(&self, members: &[&Member], apart: bool, storages: &mut Storages) -> Value {
        let groups = self.groups(members, apart);
        let is_half = |member: &&&Member| member.weight.dtype != Dtype::Float32;
        let mut inner = Vec::new();
        if self.encoding == Encoding::Mixed {
            let numbered = (0i64..).zip(groups.iter().flat_map(|group| &group.members));
            let states = numbered.map(|(number, member)| (Value::Int(number), self.state(member, storages)));
            inner.push(("state".to_owned(), Value::Dict(states.collect())));
        }
        inner.push(("param_groups".to_owned(), self.param_groups(&groups, apart)));
        if self.encoding == Encoding::Mixed && self.config.dtype == Dtype::Float32 {
            return dict(inner);
        }
        let mut entries = vec![("optimizer".to_owned(), dict(inner))];
        if self.scaler {
            let scale = Array { dtype: Dtype::Float32, shape: vec![1], bytes: vec![0, 0, 128, 71] };
            let scale = ("scale".to_owned(), storages.tensor(&scale, Keep::Own));
            let scaler = vec![scale, ("growth_tracker".into(), Value::Int(5))];
            entries.push(("grad_scaler".to_owned(), dict(scaler)));
        }
        if self.encoding == Encoding::Mixed {
            let masters = groups.iter().map(|group| {
                let halves = group.members.iter().filter(is_half);
                Value::List(halves.map(|member| self.master(member, storages)).collect())
            });
            entries.push(("fp32_from_fp16_params".to_owned(), Value::List(masters.collect())));
        }
        dict(entries)
    }

    /// With weight decay, then without; in some versions in the order of their first parameters. A group that nothing on the rank is in
    /// is not there, but in newer versions where other ranks have one.
    fn groups<'a>(&self, members: &[&'a Member], apart: bool) -> Vec<Group<'a>> {
        let of = |decays: bool| Group {
            decays,
            members: members.iter().copied().filter(|member| member.decays == decays).collect(),
        };
        let mut kinds = [true, false];
        let by_appearance = self.era() == Era::Early && self.config.kind.is_core();
        if by_appearance && members.first().is_some_and(|member| !member.decays) {
            kinds.reverse();
        }
        let elsewhere = |decays: bool| self.era() != Era::Early && (!apart || decays || self.config.bias);
        let groups = kinds.map(of).into_iter();
        groups.filter(|group| !group.members.is_empty() || elsewhere(group.decays)).collect()
    }

    fn param_groups(&self, groups: &[Group<'_>], apart: bool) -> Value {
        let mut next = 0i64;
        let any = groups.iter().any(|group| !group.members.is_empty());
        let dicts = groups.iter().map(|group| {
            let decay = if group.decays { 1.0 } else { 0.0 };
            let mut fields = Vec::new();
            if self.config.kind.is_core() {
                fields.push(("is_expert_parallel".to_owned(), Value::Bool(apart)));
                fields.push(("is_decoupled_lr".to_owned(), Value::Bool(false)));
            }
            if self.era() != Era::Early {
                fields.push(("default_config".to_owned(), Value::Bool(true)));
            }
            fields.extend([
                ("wd_mult".to_owned(), Value::Float(decay)),
                ("lr_mult".to_owned(), Value::Float(1.0)),
                ("lr".to_owned(), Value::Float(1e-4)),
                ("betas".to_owned(), tuple(vec![Value::Float(0.9), Value::Float(0.95)])),
                ("weight_decay".to_owned(), Value::Float(0.1 * decay)),
            ]);
            let step = match (self.steps, self.encoding) {
                // What steps notes it in its groups; a distributed optimizer then in all of them.
                (Steps::InGroups(step), Encoding::Mixed) => {
                    Some(Value::Int(step)).filter(|_| !group.members.is_empty())
                }
                (Steps::InGroups(step), Encoding::Distributed) => Some(Value::Int(step)).filter(|_| any),
                (Steps::WithParameters(step), Encoding::Distributed) => Some(Value::Float(step.into())),
                (Steps::WithParameters(_), Encoding::Mixed) => None,
            };
            fields.extend(step.map(|step| ("step".to_owned(), step)));
            let end = next + group.members.len() as i64;
            if self.encoding == Encoding::Mixed {
                fields.push(("params".to_owned(), Value::List((next..end).map(Value::Int).collect())));
            }
            next = end;
            dict(fields)
        });
        Value::List(dicts.collect())
    }

    fn state(&self, member: &Member, storages: &mut Storages) -> Value {
        let mut state = Vec::new();
        if let Steps::WithParameters(step) = self.steps {
            let step = Array { dtype: Dtype::Float32, shape: vec![], bytes: step.to_le_bytes().to_vec() };
            state.push(("step".to_owned(), storages.tensor(&step, Keep::Own)));
        }
        for (name, moment) in MOMENTS.iter().zip(&member.moments) {
            state.push(((*name).to_owned(), storages.tensor(moment, Keep::Own)));
        }
        dict(state)
    }

    /// A master, with the Python attributes that were copied from its weight.
    fn master(&self, member: &Member, storages: &mut Storages) -> Value {
        let tensor = storages.tensor(&member.master, Keep::Own);
        if !self.attributes {
            return tensor;
        }
        let inner = global("torch._utils", "_rebuild_tensor_v2");
        let Value::Object(rebuilt) = &tensor else { panic!("a tensor is rebuilt") };
        let args = vec![inner, global("torch", "Tensor"), rebuilt.args.clone(), self.attributes_of(member)];
        call("torch._tensor", "_rebuild_from_type_v2", args)
    }

    /// What Megatron's layers note of a weight: how it is cut, and who adds up its gradients.
    fn attributes_of(&self, member: &Member) -> Value {
        let names = |list: &[&str]| list.iter().any(|name| member.path.contains(name));
        let fc1 = names(&["linear_fc1.weight", "linear_fc1.bias", "dense_h_to_4h"]);
        let vocabulary = names(&["word_embeddings", "output_layer"]);
        let qkv = names(&["linear_qkv.weight", "linear_qkv.bias", "query_key_value"]);
        let row = names(&["linear_proj", "linear_fc2", "attention.dense", "dense_4h_to_h"]);
        let (cut, axis) = if fc1 || vocabulary || qkv {
            (true, 0)
        } else if row && member.decays {
            (true, 1)
        } else {
            (false, -1)
        };
        let stride = if fc1 && self.config.gated { 2 } else { 1 };
        let mut fields = vec![
            ("tensor_model_parallel".to_owned(), Value::Bool(cut)),
            ("partition_dim".to_owned(), Value::Int(axis)),
            ("partition_stride".to_owned(), Value::Int(stride)),
        ];
        if self.era() == Era::Newest && (fc1 || qkv || row || member.path.contains("output_layer")) {
            fields.push(("allreduce".to_owned(), Value::Bool(!member.apart)));
        }
        let copy = ["output_layer", "word_embeddings_for_head"].iter().any(|name| member.path.contains(name));
        if member.shared && copy {
            fields.push(("shared".to_owned(), Value::Bool(true)));
        }
        dict(fields)
    }
}
