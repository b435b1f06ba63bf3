//! A directory that torch wrote, read piece by piece.

use super::*;
use crate::format::dcp::metadata::Tensor;
use crate::source::hf::header;
use crate::source::locate::list;
use crate::tensor::Dtype;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/dist-tiny/dcp").join(name)
}

fn opened(name: &str, store: &FileStore) -> Opened {
    let path = fixture(name);
    open(&path, &list(&path).unwrap(), store).unwrap()
}

/// Bytes of the whole tensor, row by row, put together element by element.
fn bytes(tensor: &Tensor, pieces: &[Chunk], store: &FileStore) -> Vec<u8> {
    let size = tensor.dtype.size();
    let mut all = Vec::new();
    for element in 0..tensor.shape.elements().unwrap() {
        let index = tensor.shape.index_of(element);
        let piece = pieces.iter().find(|piece| piece.region.has(&index)).unwrap();
        let steps = index.iter().zip(piece.region.ranges()).zip(&piece.strides);
        let at = piece.start + steps.map(|((index, range), stride)| (index - range.start) * stride).sum::<u64>();
        let mut bytes = vec![0; size as usize];
        store.read_exact_at(piece.object, at, &mut bytes).unwrap();
        all.extend(bytes);
    }
    all
}

#[test]
fn pieces_are_the_tensors_of_the_model() {
    let store = FileStore::new();
    let opened = opened("llama_tied_bf16/fsdp2_n3", &store);
    let model = store.add(&fixture("llama_tied_bf16/hf/model.safetensors")).unwrap();
    let header = header(model, &store).unwrap();
    assert_eq!(header.tensors.len(), 20);
    let wanted: Vec<&Tensor> = header
        .tensors
        .iter()
        .map(|tensor| opened.metadata().tensor(&format!("model.{}", tensor.name)).unwrap())
        .collect();
    let pieces = opened.pieces(&wanted, &store).unwrap();
    for ((reference, tensor), pieces) in header.tensors.iter().zip(wanted).zip(pieces) {
        assert!(pieces.len() > 1, "{}: {pieces:?}", tensor.key);
        assert_eq!((tensor.dtype, &tensor.shape), (Dtype::Bfloat16, &reference.shape));
        let mut expected = vec![0; (reference.bytes.end - reference.bytes.start) as usize];
        store.read_exact_at(model, reference.bytes.start, &mut expected).unwrap();
        assert_eq!(bytes(tensor, &pieces, &store), expected, "{}", tensor.key);
    }
}

#[test]
fn objects_are_what_was_saved() {
    let store = FileStore::new();
    let opened = opened("llama_tied_bf16/fsdp2_n3", &store);
    let object = opened.metadata().object("optim.param_groups.0.lr").unwrap();
    let found = opened.object(object, &store).unwrap();
    assert_eq!(found.tree.as_number(), Some(1e-2));
}
