//! Optimizer state that is not what it seems: an error that names the file, what was expected, and the way round; never another's numbers.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use crate::common::manifest::canonical;
use crate::common::naive::{Config, Cut, Kind};
use crate::common::optimizer::{Encoding, RankFiles, Steps, Trained, write};
use crate::common::run::View;
use crate::common::source::ITERATION;
use crate::common::{Array, Keep, Storages, dict, global, open_pt, pt_of, tuple};
use ckpt_fs::tensor::Dtype;
use ckpt_fs::value::{Object, Value};
use ckpt_fs::view::{OptimizerChoice, ViewOptions};
use tempfile::TempDir;

/// Files of a small run, to be spoilt.
struct Bad {
    ranks: Vec<RankFiles>,
    dir: TempDir,
}

const MODEL: &str = "model_optim_rng.pt";
const BUFFERS: &str = "distrib_optim.pt";

fn legacy() -> Trained {
    let config =
        Config { kind: Kind::Legacy, groups: 4, bias: true, dtype: Dtype::Bfloat16, ..Config::default() };
    Trained { config, ..Trained::default() }
}

impl Bad {
    fn of(run: &Trained) -> Self {
        Self {
            ranks: run.shown(run.cut.tp, crate::common::naive::Fill::Zero),
            dir: tempfile::tempdir().unwrap(),
        }
    }

    /// State by parameter, megatron-core.
    fn mixed() -> Self {
        Self::of(&Trained::default())
    }

    /// Buffers without gaps.
    fn dense() -> Self {
        Self::of(&Trained { encoding: Encoding::Distributed, ..legacy() })
    }

    /// Megatron-core's buffers.
    fn coalesced() -> Self {
        Self::of(&Trained { encoding: Encoding::Distributed, ..Trained::default() })
    }

    /// Changes what is at `path` in the second rank's file; `None` removes it.
    fn model(mut self, path: &str, change: impl Fn(&Value, &mut Storages) -> Option<Value>) -> Self {
        change_at(&mut self.ranks[1].model, path, &change);
        self
    }

    /// The same in every rank's file.
    fn models(mut self, path: &str, change: impl Fn(&Value, &mut Storages) -> Option<Value>) -> Self {
        self.ranks.iter_mut().for_each(|rank| change_at(&mut rank.model, path, &change));
        self
    }

    /// The same in the second rank's buffers.
    fn buffers(mut self, path: &str, change: impl Fn(&Value, &mut Storages) -> Option<Value>) -> Self {
        change_at(self.ranks[1].buffers.as_mut().unwrap(), path, &change);
        self
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(ITERATION).join("mp_rank_00_001").join(name)
    }

    fn write(self) -> Self {
        write(self.dir.path(), &self.ranks);
        self
    }

    fn view(&self, optimizer: OptimizerChoice) -> Result<View, String> {
        View::choosing(
            self.dir.path(),
            &Cut::new(1, &[4]),
            &ViewOptions { optimizer, ..ViewOptions::default() },
        )
    }

    /// It is refused in words that name a file, the way round, and all of these; and that way leads somewhere.
    #[track_caller]
    fn refused(&self, words: &[&str]) {
        let error = self.view(OptimizerChoice::Keep).err().expect("it was accepted");
        for word in words.iter().chain(&["/mp_rank_0", "--optimizer none"]) {
            assert!(error.contains(word), "'{word}' is missing in: {error}");
        }
        assert!(error.len() < 1000, "{error:.1000}");
        self.works(OptimizerChoice::Nothing);
    }

    #[track_caller]
    fn works(&self, optimizer: OptimizerChoice) {
        let files = self.view(optimizer).unwrap_or_else(|error| panic!("{error}")).files();
        assert!(files.iter().any(|(path, _)| path.ends_with(MODEL)));
    }
}

/// Changes the value at `path`: keys of dicts and numbers of list items, `/` between them.
fn change_at(
    (tree, contents): &mut (Value, Vec<Vec<u8>>),
    path: &str,
    change: &dyn Fn(&Value, &mut Storages) -> Option<Value>,
) {
    let mut storages = Storages { contents: std::mem::take(contents), ..Storages::default() };
    let names: Vec<&str> = path.split('/').filter(|name| !name.is_empty()).collect();
    *tree = changed(tree, &names, &mut |value| change(value, &mut storages)).unwrap();
    *contents = storages.contents;
}

fn changed(value: &Value, path: &[&str], change: &mut dyn FnMut(&Value) -> Option<Value>) -> Option<Value> {
    let Some((name, rest)) = path.split_first() else { return change(value) };
    let found = std::cell::Cell::new(false);
    let mut next = |at: bool, item: &Value| {
        if !at {
            return Some(item.clone());
        }
        found.set(true);
        changed(item, rest, change)
    };
    let new = match value {
        Value::Dict(items) => {
            let is_it = |key: &Value| key.as_str() == Some(name) || canonical(key) == *name;
            let items = items.iter().filter_map(|(key, item)| Some((key.clone(), next(is_it(key), item)?)));
            Value::Dict(items.collect())
        }
        Value::List(items) => {
            let items = items.iter().enumerate();
            Value::List(items.filter_map(|(index, item)| next(index.to_string() == *name, item)).collect())
        }
        other => panic!("{name} in {other:?}"),
    };
    assert!(found.get(), "no {name}");
    Some(new)
}

fn f32s(shape: &[u64], storages: &mut Storages) -> Value {
    let bytes = vec![1; shape.iter().product::<u64>() as usize * 4];
    storages.tensor(&Array { dtype: Dtype::Float32, shape: shape.to_vec(), bytes }, Keep::Own)
}

/// The shape of a tensor as it is spelled out.
fn shape(tensor: &Value) -> Vec<u64> {
    let Value::Object(object) = tensor else { panic!("{tensor:?}") };
    let Value::Tuple(args) = &object.args else { panic!() };
    args[2].elements().unwrap().iter().map(|size| size.as_int().unwrap() as u64).collect()
}

fn row_major(shape: &[u64]) -> Vec<u64> {
    (0..shape.len()).map(|axis| shape[axis + 1..].iter().product()).collect()
}

fn ints(numbers: &[i64]) -> Value {
    Value::List(numbers.iter().map(|number| Value::Int(*number)).collect())
}

fn numbers(value: &Value) -> Vec<i64> {
    value.elements().unwrap().iter().map(|item| item.as_int().unwrap()).collect()
}

const STATE: &str = "optimizer/optimizer/state";
const GROUPS: &str = "optimizer/optimizer/param_groups";
const MASTERS: &str = "optimizer/fp32_from_fp16_params";

// Nothing is wrong with these.

#[test]
fn what_is_spoilt_here_is_right_before() {
    for bad in [Bad::mixed(), Bad::dense(), Bad::coalesced(), Bad::of(&legacy())] {
        let good = bad.write();
        good.works(OptimizerChoice::Keep);
        good.works(OptimizerChoice::Mixed);
        good.works(OptimizerChoice::Distributed);
    }
}

#[test]
fn a_momentum_is_a_state_like_any_other() {
    // SGD keeps one number for each element, and no step.
    let keep_one = |state: &Value, _: &mut Storages| {
        let moment = state.get("exp_avg").unwrap().clone();
        Some(dict(vec![("momentum_buffer".into(), moment)]))
    };
    let mut bad = Bad::mixed();
    for rank in &mut bad.ranks {
        let states = rank.model.0.get("optimizer").unwrap().get("optimizer").unwrap().get("state").unwrap();
        for number in 0..states.items().unwrap().len() {
            change_at(&mut rank.model, &format!("{STATE}/{number}"), &keep_one);
        }
    }
    let good = bad.write();
    good.works(OptimizerChoice::Keep);
    good.works(OptimizerChoice::Distributed);
}

#[test]
fn an_optimizer_that_has_not_stepped_yet_has_masters_alone() {
    let none = |_: &Value, _: &mut Storages| Some(dict(vec![]));
    let good = Bad::mixed().models(STATE, none).write();
    good.works(OptimizerChoice::Keep);
    for (path, bytes) in good.view(OptimizerChoice::Keep).unwrap().files() {
        if path.ends_with(MODEL) {
            let optimizer = open_pt(&bytes).0.get("optimizer").unwrap().clone();
            assert!(optimizer.get("optimizer").unwrap().get("state").unwrap().items().unwrap().is_empty());
            assert!(optimizer.get("fp32_from_fp16_params").unwrap().holds_tensor());
        }
    }
    // Buffers without moments would not load.
    let error = good.view(OptimizerChoice::Distributed).err().unwrap();
    assert!(error.contains("there are no moments"), "{error}");
    // Where only some ranks have none, theirs were lost.
    Bad::mixed().model(STATE, none).write().refused(&["exp_avg"]);
}

#[test]
fn steps_and_settings_that_are_tensors() {
    // Optimizers that run in CUDA graphs count in a tensor in each group.
    let one = |_: &Value, storages: &mut Storages| Some(f32s(&[1], storages));
    for bad in [Bad::mixed(), Bad::coalesced()] {
        let mut bad = bad.models(&format!("{GROUPS}/0/step"), one).models(&format!("{GROUPS}/1/step"), one);
        bad = bad.models(&format!("{GROUPS}/0/lr"), one);
        let good = bad.write();
        good.works(OptimizerChoice::Keep);
        good.works(OptimizerChoice::Mixed);
        good.works(OptimizerChoice::Distributed);
    }
}

// Files.

#[test]
fn buffers_that_some_ranks_or_all_lack() {
    let bad = Bad::dense().write();
    fs::remove_file(bad.file(BUFFERS)).unwrap();
    bad.refused(&["mp_rank_00_001/model_optim_rng.pt", "no distrib_optim.pt beside it"]);
    let mut bad = Bad::coalesced();
    bad.ranks.iter_mut().for_each(|rank| rank.buffers = None);
    bad.write().refused(&["no distrib_optim.pt beside it"]);
}

#[test]
fn an_optimizer_that_some_ranks_lack() {
    for bad in [Bad::mixed(), Bad::dense()] {
        bad.model("optimizer", |_, _| None)
            .write()
            .refused(&["mp_rank_00_001/model_optim_rng.pt", "no entry 'optimizer', which"]);
    }
}

#[test]
fn buffers_cut_short_anywhere() {
    let bad = Bad::coalesced().write();
    let bytes = fs::read(bad.file(BUFFERS)).unwrap();
    for len in (0..bytes.len()).step_by(211).chain(bytes.len() - 90..bytes.len()) {
        fs::write(bad.file(BUFFERS), &bytes[..len]).unwrap();
        let error = bad.view(OptimizerChoice::Keep).err().unwrap();
        assert!(error.contains("mp_rank_00_001/distrib_optim.pt"), "{len}: {error}");
        assert!(error.contains("--optimizer none"), "{len}: {error}");
    }
    bad.refused(&["cut short"]);
}

#[test]
fn garbage_in_place_of_buffers() {
    for (garbage, word) in
        [(&b""[..], "empty"), (&[0xA5; 5000], "not a zip"), (b"<html>404</html>", "web page")]
    {
        let bad = Bad::dense().write();
        fs::write(bad.file(BUFFERS), garbage).unwrap();
        bad.refused(&["mp_rank_00_001/distrib_optim.pt", word]);
    }
    // A directory is as good as no file.
    let bad = Bad::dense().write();
    fs::remove_file(bad.file(BUFFERS)).unwrap();
    fs::create_dir(bad.file(BUFFERS)).unwrap();
    bad.refused(&["mp_rank_00_001"]);
}

#[test]
fn any_flipped_byte_of_the_metadata_is_read_or_refused() {
    let bad = Bad::coalesced().write();
    for name in [BUFFERS, MODEL] {
        let bytes = fs::read(bad.file(name)).unwrap();
        let metadata = (0..2000.min(bytes.len()))
            .step_by(7)
            .chain((bytes.len().saturating_sub(1500)..bytes.len()).step_by(5));
        for (count, at) in metadata.enumerate() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << (count % 8);
            fs::write(bad.file(name), &flipped).unwrap();
            if let Ok(view) = bad.view(OptimizerChoice::Keep) {
                view.files();
            }
        }
        fs::write(bad.file(name), &bytes).unwrap();
    }
}

#[test]
fn hostile_pickles_in_place_of_buffers() {
    let deep = [&b"\x80\x02"[..], &b"]".repeat(100_000), &b"a".repeat(99_999), b"."].concat();
    let calls = b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R.";
    for pickle in [&deep[..], &calls[..], b"\x80\x02K\x01.", b"\x80\x02}.", b"garbage", b""] {
        let bad = Bad::dense().write();
        fs::write(bad.file(BUFFERS), pt_of(pickle, &[])).unwrap();
        bad.refused(&["mp_rank_00_001/distrib_optim.pt"]);
    }
}

// Lengths and places in buffers.

#[test]
fn buffers_of_another_length() {
    for by in [-1i64, 1, 64] {
        let resize = |value: &Value, storages: &mut Storages| {
            let len = shape(value)[0] as i64 + by;
            Some(f32s(&[len as u64], storages))
        };
        let path = "0/torch.float32/exp_avg";
        Bad::dense().buffers(path, resize).write().refused(&["'exp_avg'", "elements", "make"]);
        let path = "0/[torch.bfloat16, torch.float32]/param";
        Bad::coalesced().buffers(path, resize).write().refused(&["'param'", "elements", "make"]);
    }
}

#[test]
fn a_tail_that_shares_a_buffer_out_in_another_way() {
    let run = Trained { encoding: Encoding::Distributed, replicas: 7, ..legacy() };
    let dir = tempfile::tempdir().unwrap();
    run.write(dir.path());
    let bad = Bad { ranks: Vec::new(), dir };
    bad.works(OptimizerChoice::Keep);
    // The same lengths in a run of five replicas.
    let mut bad = Bad::of(&run);
    for rank in &mut bad.ranks {
        for name in ["param", "exp_avg", "exp_avg_sq"] {
            let pad = |value: &Value, storages: &mut Storages| {
                let len = shape(value)[0].next_multiple_of(7);
                Some(f32s(&[len.max(8)], storages))
            };
            change_at(rank.buffers.as_mut().unwrap(), &format!("0/torch.float32/{name}"), &pad);
        }
    }
    let lens: Vec<u64> = bad.ranks.iter().map(|rank| len_of(&rank.buffers.as_ref().unwrap().0)).collect();
    let before: Vec<u64> = run
        .shown(2, crate::common::naive::Fill::Zero)
        .iter()
        .map(|rank| len_of(&rank.buffers.as_ref().unwrap().0))
        .collect();
    assert_ne!(lens, before);
    bad.models("args", |args, _| Some(with_field(args, "data_parallel_size", Value::Int(1))))
        .write()
        .refused(&["elements", "make"]);
}

fn len_of(buffers: &Value) -> u64 {
    let (_, types) = &buffers.items().unwrap()[0];
    types.items().unwrap()[0].1.get("param").map_or(0, |row| shape(row)[0])
}

/// `args` with a field.
fn with_field(args: &Value, name: &str, value: Value) -> Value {
    let Value::Object(object) = args else { panic!() };
    let fields = object.state.as_ref().unwrap().items().unwrap().iter();
    let fields = fields.map(|(key, old)| {
        (key.clone(), if key.as_str() == Some(name) { value.clone() } else { old.clone() })
    });
    Value::Object(Arc::new(Object { state: Some(Value::Dict(fields.collect())), ..Object::clone(object) }))
}

#[test]
fn lengths_that_lie() {
    let path = "0/[torch.bfloat16, torch.float32]/numel_unpadded";
    for lie in [Value::Int(5), Value::Int(-1), Value::None, Value::Int(i64::MAX), Value::str("many")] {
        Bad::coalesced()
            .buffers(path, |_, _| Some(lie.clone()))
            .write()
            .refused(&["'numel_unpadded'", "make"]);
    }
}

#[test]
fn buffers_that_are_not_rows_of_numbers() {
    let path = "0/torch.float32/exp_avg_sq";
    let as_matrix = |value: &Value, storages: &mut Storages| Some(f32s(&[1, shape(value)[0]], storages));
    Bad::dense().buffers(path, as_matrix).write().refused(&["'exp_avg_sq'", "one row of 32-bit numbers"]);
    let halves = |value: &Value, storages: &mut Storages| {
        let len = shape(value)[0];
        let array = Array { dtype: Dtype::Float16, shape: vec![len], bytes: vec![0; len as usize * 2] };
        Some(storages.tensor(&array, Keep::Own))
    };
    Bad::dense().buffers(path, halves).write().refused(&["'exp_avg_sq'", "one row of 32-bit numbers"]);
    Bad::dense().buffers(path, |_, _| Some(Value::Int(3))).write().refused(&["'exp_avg_sq'"]);
    Bad::dense().buffers(path, |_, _| None).write().refused(&["exp_avg_sq"]);
    Bad::dense().buffers("0/torch.float32/param", |_, _| None).write().refused(&["no 'param'"]);
}

#[test]
fn buffers_of_other_element_types() {
    let rename = |types: &Value, _: &mut Storages| {
        let (_, buffer) = &types.items().unwrap()[0];
        let key = tuple(vec![global("torch", "float16"), global("torch", "float32")]);
        Some(Value::Dict([(key, buffer.clone())].into()))
    };
    Bad::coalesced().buffers("0", rename).write().refused(&["mp_rank_00_001/distrib_optim.pt", "bfloat16"]);
    let two = |types: &Value, _: &mut Storages| {
        let (key, buffer) = types.items().unwrap()[0].clone();
        Some(Value::Dict([(key, buffer.clone()), (global("torch", "float16"), buffer)].into()))
    };
    Bad::coalesced().buffers("0", two).write().refused(&["element type"]);
    Bad::dense().buffers("0", two).write().refused(&["element type"]);
}

#[test]
fn more_buffers_or_fewer_than_parameters_call_for() {
    let add = |tree: &Value, _: &mut Storages| {
        let mut items = tree.items().unwrap().to_vec();
        items.push((Value::Int(1), items.last().unwrap().1.clone()));
        Some(Value::Dict(items.into()))
    };
    Bad::dense().buffers("", add).write().refused(&["2 buffers"]);
    Bad::coalesced().buffers("", add).write().refused(&["2 buffers"]);
    Bad::dense().buffers("0", |_, _| None).write().refused(&["0 buffers"]);
}

#[test]
fn buffers_in_pieces_as_older_versions_wrote_them() {
    let pieces = |value: &Value, _: &mut Storages| Some(Value::List(vec![value.clone()].into()));
    Bad::dense().buffers("0/torch.float32/param", pieces).write().refused(&["in pieces", "2024"]);
    let list = |types: &Value, _: &mut Storages| {
        let (key, buffer) = types.items().unwrap()[0].clone();
        Some(Value::Dict([(key, Value::List(vec![buffer].into()))].into()))
    };
    Bad::dense().buffers("0", list).write().refused(&["dicts of buffers"]);
}

#[test]
fn weights_in_a_buffer_of_another_layout() {
    // Every tensor is a view into one storage, but not at the places where the optimizer's numbers would be.
    let mut bad = Bad::coalesced();
    for rank in &mut bad.ranks {
        let (tree, contents) = &mut rank.model;
        let all = contents.iter().map(Vec::len).sum::<usize>().next_multiple_of(64) as u64 + 64;
        let mut storages = Storages { contents: std::mem::take(contents), ..Storages::default() };
        let number = storages.add(vec![0; all as usize]);
        let mut at = 1;
        let model = changed(tree, &["model"], &mut |model| {
            let Value::Object(object) = model else { panic!() };
            let items = object.items.iter().map(|(key, value)| {
                let view = storages.tensor_at(
                    Dtype::Bfloat16,
                    number,
                    all,
                    at,
                    &shape(value),
                    &row_major(&shape(value)),
                );
                at += shape(value).iter().product::<u64>();
                (key.clone(), view)
            });
            Some(Value::Object(Arc::new(Object { items: items.collect(), ..Object::clone(object) })))
        });
        *tree = model.unwrap();
        *contents = storages.contents;
    }
    bad.write().refused(&["buffer", "way that is not known"]);
}

// State by number.

#[test]
fn states_that_are_missing_or_too_many() {
    Bad::mixed()
        .model(&format!("{STATE}/3"), |_, _| None)
        .write()
        .refused(&["no state 3", "which is that of"]);
    let add = |states: &Value, _: &mut Storages| {
        let mut items = states.items().unwrap().to_vec();
        items.push((Value::Int(999), items[0].1.clone()));
        Some(Value::Dict(items.into()))
    };
    Bad::mixed().model(STATE, add).write().refused(&["numbered states"]);
    Bad::mixed().model(&format!("{STATE}/2/exp_avg_sq"), |_, _| None).write().refused(&["exp_avg_sq"]);
}

#[test]
fn numbers_out_of_range_and_twice() {
    let path = format!("{GROUPS}/0/params");
    let last = |list: &Value, _: &mut Storages| {
        let mut list = numbers(list);
        *list.last_mut().unwrap() = 999;
        Some(ints(&list))
    };
    Bad::mixed().model(&path, last).write().refused(&["no state 999"]);
    let negative = |list: &Value, _: &mut Storages| {
        Some(ints(&numbers(list).iter().map(|n| -n - 1).collect::<Vec<_>>()))
    };
    Bad::mixed().model(&path, negative).write().refused(&["no state -1"]);
    // Two weights of one shape with the state of one of them: the number of states is right, and every shape.
    let norms = format!("{GROUPS}/1/params");
    let twice = |list: &Value, _: &mut Storages| {
        let mut list = numbers(list);
        list[1] = list[0];
        Some(ints(&list))
    };
    Bad::mixed().model(&norms, twice).write().refused(&["twice"]);
    let words = |list: &Value, _: &mut Storages| {
        Some(Value::List(list.elements().unwrap().iter().map(|_| Value::str("a")).collect()))
    };
    Bad::mixed().model(&path, words).write().refused(&["not numbers"]);
}

/// The moments of a state, and the number of steps as this value.
fn stepped(state: &Value, step: Option<Value>) -> Option<Value> {
    let moments = ["exp_avg", "exp_avg_sq"].map(|name| (name.into(), state.get(name).unwrap().clone()));
    Some(dict(moments.into_iter().chain(step.map(|step| ("step".into(), step))).collect()))
}

#[test]
fn states_that_differ_in_what_they_keep() {
    // One lacks the number of steps, has one that others lack, or has another.
    for (step, other, words) in [
        (Some(Value::Int(7)), None, "has not the same entries as other states"),
        (None, Some(Value::Int(7)), "has not the same entries as other states"),
        (Some(Value::Int(7)), Some(Value::Int(8)), "'step' of state 1"),
        (Some(Value::Int(7)), Some(ints(&[7])), "'step' of state 1"),
    ] {
        let mut bad = Bad::mixed();
        for rank in &mut bad.ranks {
            let states =
                rank.model.0.get("optimizer").unwrap().get("optimizer").unwrap().get("state").unwrap();
            for number in 0..states.items().unwrap().len() {
                let all = |state: &Value, _: &mut Storages| stepped(state, step.clone());
                change_at(&mut rank.model, &format!("{STATE}/{number}"), &all);
            }
        }
        let one = |state: &Value, _: &mut Storages| stepped(state, other.clone());
        bad.model(&format!("{STATE}/1"), one).write().refused(&[words]);
    }
    // The same where it is a tensor.
    let mut bad = Bad::mixed();
    for rank in &mut bad.ranks {
        let states = rank.model.0.get("optimizer").unwrap().get("optimizer").unwrap().get("state").unwrap();
        for number in 0..states.items().unwrap().len() {
            let all = |state: &Value, storages: &mut Storages| stepped(state, Some(f32s(&[], storages)));
            change_at(&mut rank.model, &format!("{STATE}/{number}"), &all);
        }
    }
    let lacks = |state: &Value, _: &mut Storages| stepped(state, None);
    bad.model(&format!("{STATE}/1"), lacks).write().refused(&["has not the same entries", "step"]);
}

#[test]
fn states_that_are_no_dict_of_numbers() {
    Bad::mixed()
        .model(STATE, |_, _| Some(Value::Int(4)))
        .write()
        .refused(&["expected a dict of states by number"]);
    Bad::mixed().model(&format!("{STATE}/0"), |_, _| Some(Value::None)).write().refused(&["expected a dict"]);
    let named = |states: &Value, _: &mut Storages| {
        let items =
            states.items().unwrap().iter().map(|(key, item)| (Value::str(&canonical(key)), item.clone()));
        Some(Value::Dict(items.collect()))
    };
    Bad::mixed().model(STATE, named).write().refused(&["by number"]);
    let odd = |_: &Value, _: &mut Storages| Some(Value::str("lost"));
    Bad::mixed().model(&format!("{STATE}/0/exp_avg"), odd).write().refused(&["'exp_avg'"]);
}

#[test]
fn shapes_that_are_not_the_weights() {
    let turned = |value: &Value, storages: &mut Storages| {
        let mut shape = shape(value);
        shape.reverse();
        Some(f32s(&shape, storages))
    };
    let flat =
        |value: &Value, storages: &mut Storages| Some(f32s(&[shape(value).iter().product()], storages));
    for path in [format!("{MASTERS}/0/1"), format!("{STATE}/1/exp_avg"), format!("{STATE}/1/exp_avg_sq")] {
        Bad::mixed().model(&path, turned).write().refused(&["but the weight is"]);
        Bad::mixed().model(&path, flat).write().refused(&["but the weight is"]);
    }
    Bad::mixed().model(&format!("{MASTERS}/0/1"), |_, _| Some(Value::None)).write().refused(&["no tensor"]);
}

#[test]
fn element_types_that_ranks_disagree_about() {
    let double = |value: &Value, storages: &mut Storages| {
        let shape = shape(value);
        let bytes = vec![0; shape.iter().product::<u64>() as usize * 8];
        Some(storages.tensor(&Array { dtype: Dtype::Float64, shape, bytes }, Keep::Own))
    };
    for path in [format!("{MASTERS}/1/0"), format!("{STATE}/1/exp_avg")] {
        Bad::mixed().model(&path, double).write().refused(&["float64"]);
    }
}

#[test]
fn storages_that_are_too_small() {
    let small = |value: &Value, storages: &mut Storages| {
        let number = storages.add(vec![0; 4]);
        Some(storages.tensor_at(Dtype::Float32, number, 4, 0, &shape(value), &row_major(&shape(value))))
    };
    let path = "0/torch.float32/param";
    Bad::dense().buffers(path, small).write().refused(&["mp_rank_00_001/distrib_optim.pt"]);
    // A storage that says it is larger than its record.
    let liar = |value: &Value, storages: &mut Storages| {
        let len = shape(value).iter().product::<u64>() * 4;
        let number = storages.add(vec![0; 4]);
        Some(storages.tensor_at(Dtype::Float32, number, len, 0, &shape(value), &row_major(&shape(value))))
    };
    Bad::dense().buffers(path, liar).write().refused(&["mp_rank_00_001/distrib_optim.pt"]);
    Bad::mixed()
        .model(&format!("{STATE}/1/exp_avg"), liar)
        .write()
        .refused(&["mp_rank_00_001/model_optim_rng.pt"]);
    // A pickle that contradicts itself is refused before anything in it is left out.
    let error =
        Bad::mixed().model(&format!("{STATE}/1/exp_avg"), small).write().view(OptimizerChoice::Nothing);
    let error = error.err().unwrap();
    assert!(
        error.contains("mp_rank_00_001/model_optim_rng.pt: optimizer.optimizer.state.1.exp_avg"),
        "{error}"
    );
}

#[test]
fn groups_that_count_otherwise_than_the_model() {
    let fewer = |list: &Value, _: &mut Storages| Some(ints(&numbers(list)[1..]));
    for group in 0..2 {
        Bad::mixed()
            .model(&format!("{GROUPS}/{group}/params"), fewer)
            .write()
            .refused(&["parameters, the model has"]);
        Bad::mixed()
            .model(&format!("{MASTERS}/{group}/0"), |_, _| None)
            .write()
            .refused(&["masters, the model has"]);
    }
    Bad::mixed().model(&format!("{MASTERS}/1"), |_, _| None).write().refused(&["no list of masters"]);
    Bad::mixed().model(&format!("{GROUPS}/1"), |_, _| None).write().refused(&["no parameter group for"]);
}

// Kinds of optimizers.

#[test]
fn optimizers_of_other_kinds() {
    for bad in [Bad::mixed, Bad::dense] {
        bad().models(GROUPS, |_, _| None).write().refused(&["kind that is not known", "param_groups"]);
        bad()
            .models("optimizer", |_, _| Some(Value::List([].into())))
            .write()
            .refused(&["no parameter group for"]);
        bad().models("optimizer", |_, _| Some(Value::Int(3))).write().refused(&["not known"]);
        bad().models(&format!("{GROUPS}/0/wd_mult"), |_, _| None).write().refused(&["no wd_mult"]);
        bad()
            .models(&format!("{GROUPS}/0/lr_mult"), |_, _| Some(Value::Float(10.0)))
            .write()
            .refused(&["lr_mult 10"]);
        let same = |_: &Value, _: &mut Storages| Some(Value::Float(1.0));
        bad().models(&format!("{GROUPS}/1/wd_mult"), same).write().refused(&["of the same kind"]);
    }
}

#[test]
fn ranks_with_different_optimizers() {
    let mut bad = Bad::mixed();
    bad.ranks[1] = Bad::coalesced().ranks.remove(1);
    let mixed = |args: &Value, _: &mut Storages| {
        Some(with_field(args, "use_distributed_optimizer", Value::Bool(false)))
    };
    bad.model("args", mixed).write().refused(&["it is a distributed optimizer, but in", "mixed-precision"]);
}

#[test]
fn steps_that_cannot_be() {
    let run = Trained { steps: Steps::WithParameters(3.0), ..Trained::default() };
    for step in [f32::NAN, -1.0, f32::INFINITY] {
        let other = |_: &Value, storages: &mut Storages| {
            let step = Array { dtype: Dtype::Float32, shape: vec![], bytes: step.to_le_bytes().to_vec() };
            Some(storages.tensor(&step, Keep::Own))
        };
        Bad::of(&run).models(&format!("{STATE}/0/step"), other).write().refused(&["its step is"]);
    }
}

// The model.

#[test]
fn a_model_in_another_order_than_the_familys() {
    let swap = |model: &Value, _: &mut Storages| {
        let Value::Object(object) = model else { panic!() };
        let mut items = object.items.clone();
        // Two norms: what would be swapped with them has the same shape.
        let norm = |name: &str| {
            items.iter().position(|(key, _)| key.as_str().is_some_and(|key| key.ends_with(name)))
        };
        let (first, second) =
            (norm("0.input_layernorm.weight").unwrap(), norm("0.pre_mlp_layernorm.weight").unwrap());
        items.swap(first, second);
        Some(Value::Object(Arc::new(Object { items, ..Object::clone(object) })))
    };
    for bad in [Bad::mixed(), Bad::coalesced()] {
        bad.model("model", swap).write().refused(&["pre_mlp_layernorm", "stands where the family lists"]);
    }
}
