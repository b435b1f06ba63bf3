//! Classes and functions that checkpoints name and that are known to be plain data: making them runs nothing but their own constructors.
//!
//! Each row says where that is known from. What is not here need not be bad; it is only not known, and a person should look. To add one,
//! look at what it does when it is called and when a state is set on it.

use crate::tensor::Dtype;
use crate::value::Global;

/// A module, names in it, and where they are known from.
struct Row(&'static str, &'static [&'static str], &'static str);

const TORCH: &str = "torch: its weights_only unpickler takes it (torch/_weights_only_unpickler.py, 2.15)";
const OLD_TORCH: &str = "torch: the same under the name that former versions had";
const BUFFER: &str = "torch: a tensor of a class of its own, as Parameter is (torch/nn/parameter.py)";
const MEGATRON: &str = "Megatron: its own list of safe classes (megatron/core/safe_globals.py)";
const FIXTURES: &str = "an enumeration; in checkpoints that training wrote (tests/fixtures)";
const DCP: &str = "torch: data of torch.distributed.checkpoint (metadata.py, planner.py, filesystem.py), without code of their own when made";
const NUMPY: &str = "NumPy: how it pickles arrays, scalars and their types; in rng_state";

const KNOWN: &[Row] = &[
    Row("collections", &["OrderedDict", "Counter"], TORCH),
    Row("builtins", &["bytearray", "complex", "set"], TORCH),
    // What `bytes` are in protocol 2: a text and the name of a code. Codes that run something do not exist.
    Row("_codecs", &["encode"], TORCH),
    Row(
        "torch._utils",
        &[
            "_rebuild_tensor",
            "_rebuild_tensor_v2",
            "_rebuild_tensor_v3",
            "_rebuild_parameter",
            "_rebuild_parameter_with_state",
            "_rebuild_qtensor",
            "_rebuild_sparse_tensor",
            "_rebuild_meta_tensor_no_storage",
            "_rebuild_device_tensor_from_cpu_tensor",
            "_rebuild_device_tensor_from_numpy",
        ],
        TORCH,
    ),
    Row("torch._tensor", &["_rebuild_from_type_v2"], TORCH),
    Row("torch._tensor", &["_rebuild_from_type"], OLD_TORCH),
    Row("torch.tensor", &["_rebuild_from_type_v2", "_rebuild_from_type"], OLD_TORCH),
    Row("torch.serialization", &["_get_layout"], TORCH),
    Row("torch.nn.parameter", &["Parameter"], TORCH),
    Row("torch.nn.parameter", &["Buffer"], BUFFER),
    Row("torch.storage", &["UntypedStorage", "TypedStorage"], TORCH),
    Row("torch.storage", &["_UntypedStorage", "_TypedStorage"], OLD_TORCH),
    Row(
        "torch",
        &[
            "Tensor",
            "Size",
            "device",
            "per_tensor_affine",
            "per_channel_affine",
            "per_tensor_symmetric",
            "per_channel_symmetric",
            "per_channel_affine_float_qparams",
        ],
        TORCH,
    ),
    Row(
        "torch.distributed.checkpoint.metadata",
        &[
            "BytesStorageMetadata",
            "ChunkStorageMetadata",
            "Metadata",
            "MetadataIndex",
            "StorageMeta",
            "TensorProperties",
            "TensorStorageMetadata",
            "_MEM_FORMAT_ENCODING",
        ],
        DCP,
    ),
    Row("torch.distributed.checkpoint.filesystem", &["_StorageInfo"], DCP),
    Row(
        "torch.distributed.checkpoint.planner",
        &["BytesIOWriteData", "SavePlan", "TensorWriteData", "WriteItem", "WriteItemType"],
        DCP,
    ),
    Row("torch.distributed._shard.sharded_tensor.metadata", &["MEM_FORMAT_ENCODING", "TensorProperties"], DCP),
    Row("megatron.core.dist_checkpointing.strategies.torch", &["MCoreSavePlan"], DCP),
    Row("numpy", &["dtype", "ndarray"], NUMPY),
    Row("numpy.core.multiarray", &["_reconstruct", "scalar"], NUMPY),
    Row("numpy._core.multiarray", &["_reconstruct", "scalar"], NUMPY),
    Row("numpy.dtypes", &["UInt32DType"], MEGATRON),
    Row("argparse", &["Namespace"], MEGATRON),
    Row("types", &["SimpleNamespace"], MEGATRON),
    Row("pathlib", &["PosixPath"], MEGATRON),
    Row("io", &["BytesIO"], MEGATRON),
    Row("_io", &["BytesIO"], MEGATRON),
    Row("signal", &["Signals"], MEGATRON),
    Row("torch._C", &["Generator"], MEGATRON),
    Row("megatron.core.enums", &["ModelType"], MEGATRON),
    Row("megatron.core.optimizer.optimizer_config", &["OptimizerConfig"], MEGATRON),
    Row("megatron.core.rerun_state_machine", &["RerunDiagnostic", "RerunMode", "RerunState"], MEGATRON),
    Row("megatron.core.transformer.enums", &["AttnBackend", "CudaGraphScope"], MEGATRON),
    Row("megatron.core.transformer.enums", &["InferenceCudaGraphScope"], FIXTURES),
];

/// Where `global` is known from as plain data; `None` where it is not.
pub(super) fn known(global: &Global) -> Option<&'static str> {
    let (module, name) = (&*global.module, &*global.name);
    if module == "torch" && Dtype::from_name(name).is_some() {
        return Some(TORCH);
    }
    // Storage classes are names of element types; `torch.cuda` has them in old files.
    let stem = name.strip_suffix("Storage");
    if matches!(module, "torch" | "torch.cuda") && stem.is_some_and(|stem| STORAGES.contains(&stem)) {
        return Some(TORCH);
    }
    let row = KNOWN.iter().find(|Row(of, names, _)| *of == module && names.contains(&name));
    row.map(|Row(_, _, source)| *source)
}

/// Storage classes, without the word.
const STORAGES: &[&str] = &[
    "BFloat16",
    "Bool",
    "Byte",
    "Char",
    "ComplexDouble",
    "ComplexFloat",
    "Double",
    "Float",
    "Half",
    "Int",
    "Long",
    "QInt32",
    "QInt8",
    "QUInt2x4",
    "QUInt4x2",
    "QUInt8",
    "Short",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn is_known(module: &str, name: &str) -> bool {
        known(&Global { module: module.into(), name: name.into() }).is_some()
    }

    #[test]
    fn a_name_is_known_in_its_own_module_alone() {
        for (module, name) in [
            ("torch", "FloatStorage"),
            ("torch", "bfloat16"),
            ("collections", "OrderedDict"),
            ("argparse", "Namespace"),
        ] {
            assert!(is_known(module, name), "{module}.{name}");
            assert!(!is_known("attack", name));
        }
        for (module, name) in [
            ("os", "system"),
            ("builtins", "eval"),
            ("builtins", "getattr"),
            ("torch", "load"),
            ("torch", "Storage"),
            ("torch", "EvilStorage"),
            // Loads a pickle that stands in its argument.
            ("torch.storage", "_load_from_bytes"),
            ("collections", "OrderedDict.fromkeys"),
            ("collections.OrderedDict", ""),
        ] {
            assert!(!is_known(module, name), "{module}.{name}");
        }
    }

    #[test]
    fn no_name_stands_twice() {
        let names =
            KNOWN.iter().flat_map(|Row(module, names, _)| names.iter().map(move |name| (module, name)));
        let mut seen = std::collections::BTreeSet::new();
        assert!(names.into_iter().all(|name| seen.insert(name)));
    }
}
