//! States of the optimizer are tensors like the weights, and settings are in `common.pt`.

use std::collections::BTreeMap;

use super::naive::Dist;
use super::{Opened, iteration, same};
use crate::common::cases::cases;
use crate::common::choose::pick;
use crate::common::naive::{Config, Cut, Fill, Kind, Moe};
use crate::common::optimizer::{Encoding, Era, Member, Steps, Trained};
use crate::common::{Array, read_pt};
use crate::dcp_write::read;
use ckpt_fs::tensor::Dtype;
use ckpt_fs::value::Value;
use ckpt_fs::view::{ConversionOptions, OptimizerChoice, ViewOptions};
use proptest::prelude::*;

/// Tensors of a checkpoint with this run's optimizer in this encoding.
fn tensors(run: &Trained, encoding: Encoding) -> BTreeMap<String, Array> {
    let whole = run.retold(&Cut::new(1, &[run.config.layers]), encoding);
    let members = whole.members(run.cut.tp, Fill::Zero, (0, 0, 0));
    let of = |value: &dyn Fn(&Member) -> Option<Array>| {
        let named = members.iter().filter_map(|member| Some((member.path.clone(), value(member)?)));
        Dist::of(&run.config, &named.collect::<Vec<_>>()).tensors
    };
    let mut all = of(&|member| Some(member.weight.clone()));
    let mut add = |state: &str, value: &dyn Fn(&Member) -> Option<Array>| {
        all.extend(
            of(value).into_iter().map(|(key, array)| (format!("optimizer.state.{state}.{key}"), array)),
        );
    };
    let trained = |member: &Member, array: &Array| member.trained.then(|| array.clone());
    match encoding {
        Encoding::Distributed => add("param", &|member| trained(member, &member.master)),
        Encoding::Mixed => add("fp32_param", &|member| {
            trained(member, &member.master).filter(|_| member.weight.dtype != Dtype::Float32)
        }),
    }
    add("exp_avg", &|member| trained(member, &member.moments[0]));
    add("exp_avg_sq", &|member| trained(member, &member.moments[1]));
    all
}

/// Settings: a dict, or one for each of two optimizers, by number.
fn check_common(run: &Trained, encoding: Encoding, bytes: &[u8]) {
    let common = read_pt(bytes).tree;
    assert!(common.get("opt_param_scheduler").is_some());
    let distributed = encoding == Encoding::Distributed;
    let kind = common.get("content_metadata").unwrap().get("distrib_optim_sharding_type");
    assert_eq!(kind.and_then(Value::as_str), distributed.then_some("fully_reshardable"));
    let args = common.get("args").unwrap();
    assert_eq!(args.attribute("use_distributed_optimizer").unwrap().is_truthy(), distributed);
    let optimizer = common.get("optimizer").unwrap();
    let chains: Vec<&Value> = match run.experts_apart() {
        false => vec![optimizer],
        true => {
            let items = optimizer.items().unwrap();
            assert_eq!(items.iter().map(|(key, _)| key.as_int()).collect::<Vec<_>>(), [Some(0), Some(1)]);
            items.iter().map(|(_, chain)| chain).collect()
        }
    };
    let single = !distributed && run.config.dtype == Dtype::Float32;
    for (apart, chain) in [false, true].into_iter().zip(chains) {
        let inner = if single { chain } else { chain.get("optimizer").unwrap() };
        assert_eq!(
            chain.get("param_state_sharding_type").and_then(Value::as_str),
            distributed.then_some("fully_reshardable")
        );
        assert_eq!(chain.get("grad_scaler").is_some(), run.scaler && !single);
        assert!(chain.get("fp32_from_fp16_params").is_none());
        let groups = inner.get("param_groups").unwrap().elements().unwrap();
        assert!(!groups.is_empty());
        for group in groups {
            assert!(group.get("params").is_none());
            assert_eq!(group.get("is_expert_parallel").unwrap().is_truthy(), apart);
        }
        let step = inner.get("state").and_then(|state| state.get("common_step"));
        match run.steps {
            Steps::WithParameters(_) if !distributed => {
                assert!(step.is_some_and(|step| step.tensor().is_some()))
            }
            Steps::WithParameters(steps) => assert!(groups.iter().all(|group| {
                group.get("step").and_then(Value::as_number) == Some(f64::from(steps)) && step.is_none()
            })),
            Steps::InGroups(steps) => {
                assert!(step.is_none());
                assert!(groups.iter().all(|group| group.get("step").unwrap().as_int() == Some(steps)));
            }
        }
    }
}

prop_compose! {
    fn any_run()(
        (te, half, distributed, in_groups, scaler, newest) in any::<(bool, bool, bool, bool, bool, bool)>(),
        (tp, pp) in (0usize..3, 0usize..2), experts in prop::option::of((0usize..2, 1u32..3)),
    ) -> Trained {
        let tp = pick(&[1, 2, 4], tp);
        let moe = experts.map(|(_, every)| Moe { every, grouped: te, ..Moe::default() });
        let config = Config {
            kind: if te { Kind::CoreTe } else { Kind::Core }, groups: 4, ffn: 16, dtype: if half { Dtype::Bfloat16 } else { Dtype::Float32 },
            qk_norm: te, moe, ..Config::default()
        };
        let cut = Cut::new(tp, [&[4][..], &[2, 2]][pp]);
        let cut = match experts { Some((ep, _)) => cut.experts([1, 2][ep], tp), None => cut };
        Trained {
            config, cut, encoding: if distributed { Encoding::Distributed } else { Encoding::Mixed }, scaler: scaler && half,
            steps: if in_groups { Steps::InGroups(100) } else { Steps::WithParameters(100.0) },
            era: if newest { Era::Newest } else { Era::Aligned }, ..Trained::default()
        }
    }
}

proptest! {
    #![proptest_config(cases(40))]

    // matrix: naive: megatron-core megatron-core/experts: megatron -> torch_dist+optimizer
    /// In both encodings, whatever the source's.
    #[test]
    fn states_are_tensors(run in any_run()) {
        let dir = tempfile::tempdir().unwrap();
        run.write(dir.path());
        for (encoding, optimizer) in [(Encoding::Mixed, OptimizerChoice::Mixed), (Encoding::Distributed, OptimizerChoice::Distributed)] {
            let options = ViewOptions { optimizer, ..ViewOptions::default() };
            let conversion = ConversionOptions { piece_size: 16, ..ConversionOptions::default() };
            let opened = match Opened::new(dir.path(), conversion, options) {
                Ok(opened) => opened,
                // 32-bit weights of an optimizer that is not distributed have no masters that it could have.
                Err(error) => {
                    prop_assert!(run.config.dtype == Dtype::Float32 && error.contains("distributed optimizer"), "{}", error);
                    continue;
                }
            };
            let (_, files) = iteration(&opened.files());
            same(&read::load(&files), &tensors(&run, encoding), &format!("{run:?} {encoding:?}"));
            check_common(&run, encoding, &files["common.pt"]);
        }
    }
}

/// Without it, nothing of it is there, and loaders are told so.
#[test]
fn it_is_left_out_where_that_is_asked_for() {
    let run = Trained::default();
    let dir = tempfile::tempdir().unwrap();
    run.write(dir.path());
    let options = ViewOptions { optimizer: OptimizerChoice::Nothing, ..ViewOptions::default() };
    let opened = Opened::new(dir.path(), ConversionOptions::default(), options).unwrap();
    let (_, files) = iteration(&opened.files());
    assert!(read::load(&files).tensors.keys().all(|key| !key.starts_with("optimizer")));
    let common = read_pt(&files["common.pt"]).tree;
    assert!(common.get("optimizer").is_none() && common.get("opt_param_scheduler").is_none());
}
