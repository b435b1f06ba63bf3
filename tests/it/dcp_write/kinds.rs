//! One checkpoint with a tensor and an object of every kind, in the nested state that an FSDP run would save.

use std::collections::HashMap;
use std::sync::Arc;

use ckpt_fs::format::dcp::write::{Chunks, Content, Object, Path, Spec, Step, Tensor, data_file};
use ckpt_fs::tensor::{Dtype, Shape};
use ckpt_fs::value::{TensorRef, Value};

/// Bytes of the storage that is no literal.
pub(super) const STORAGE: u64 = 40;

fn tensor(key: &str, dtype: Dtype, shape: &[u64], cuts: &[(&[u64], &[u64], u32)]) -> Tensor {
    let shape = Shape(shape.to_vec());
    let mut chunks = Chunks::new(shape.rank());
    cuts.iter().for_each(|(offsets, sizes, file)| chunks.push(offsets, sizes, *file).unwrap());
    if cuts.is_empty() {
        chunks = Chunks::whole(&shape, 0);
    }
    Tensor { key: key.into(), dtype, shape, chunks }
}

fn object(key: &str, content: &Arc<Content>) -> Object {
    Object { key: key.into(), content: Arc::clone(content), file: 1 }
}

/// A dict with a step, whose bytes are known, and a state that others know.
fn state() -> Content {
    let whole = |key: &str, dtype, shape: &[u64]| {
        Value::Tensor(Arc::new(TensorRef::whole(key.into(), dtype, Shape(shape.to_vec()))))
    };
    let items = [
        (Value::str("step"), whole("step", Dtype::Float32, &[])),
        (Value::str("rng"), whole("rng", Dtype::Uint8, &[STORAGE])),
        (Value::str("name"), Value::str("naïve")),
        (Value::str("none"), Value::None),
    ];
    let step: Arc<[u8]> = Arc::from(7f32.to_le_bytes());
    let storages = HashMap::from([("step".into(), Some(step)), ("rng".into(), None)]);
    Content { value: Value::Dict(Arc::from(items)), storages }
}

pub(super) fn spec() -> Spec {
    let quarters: [(&[u64], &[u64], u32); 4] =
        [(&[0, 0], &[3, 4], 0), (&[3, 4], &[4, 1], 1), (&[0, 4], &[3, 1], 1), (&[3, 0], &[4, 4], 2)];
    let rows: [(&[u64], &[u64], u32); 3] =
        [(&[0, 0], &[2, 6], 0), (&[2, 0], &[1, 6], 2), (&[3, 0], &[0, 6], 1)];
    let layers: [(&[u64], &[u64], u32); 2] = [(&[1, 0, 0], &[1, 3, 2], 0), (&[0, 0, 0], &[1, 3, 2], 0)];
    let tensors = vec![
        tensor("model.a.b.weight", Dtype::Float32, &[7, 5], &quarters),
        tensor("model.rows", Dtype::Bfloat16, &[3, 6], &rows),
        tensor("model.layers", Dtype::Float32, &[2, 3, 2], &layers),
        tensor("model.fp8", Dtype::Float8E4m3fn, &[4, 8], &[(&[0, 0], &[2, 8], 0), (&[2, 0], &[2, 8], 1)]),
        tensor("model.ids", Dtype::Int64, &[300], &[]),
        tensor("model.mask", Dtype::Bool, &[9], &[(&[0], &[5], 2), (&[5], &[4], 1)]),
        tensor("model.phase", Dtype::Complex64, &[2, 2], &[]),
        tensor("model.bytes", Dtype::Uint8, &[1, 1, 1, 1, 5], &[]),
        tensor("model.empty", Dtype::Float32, &[0, 4], &[]),
        tensor("model.scalar", Dtype::Bfloat16, &[], &[]),
        tensor("optim.state.0.step", Dtype::Float32, &[], &[]),
    ];
    // Two groups share what they are.
    let lr = Arc::new(Content::plain(Value::Float(0.0625)));
    let betas = Arc::new(Content::plain(Value::Tuple(Arc::from([Value::Float(0.5), Value::Float(0.75)]))));
    let objects = vec![
        object("optim.param_groups.0.lr", &lr),
        object("optim.param_groups.1.lr", &lr),
        object("optim.param_groups.1.betas", &betas),
        object("state", &Arc::new(state())),
    ];
    let keys = tensors.iter().map(|tensor| &tensor.key).chain(objects.iter().map(|object| &object.key));
    let paths = Some(keys.map(path).collect());
    let files = [data_file(0, 0), data_file(0, 1), data_file(1, 0)].to_vec();
    Spec { files, tensors, objects, paths }
}

/// Parameters have dots in their names; the optimizer's keys have one for every step.
fn path(key: &Arc<str>) -> Path {
    let of = |text: &str| match text.parse() {
        Ok(number) => Step::Index(number),
        Err(_) => Step::Key(text.into()),
    };
    let steps = match key.strip_prefix("model.") {
        Some(name) => vec![Step::Key("model".into()), Step::Key(name.into())],
        None => key.split('.').map(of).collect(),
    };
    Path { key: Arc::clone(key), steps }
}
