//! A directory that torch wrote, read piece by piece.

use super::elements::{Beginning, Beginnings, PieceOf};
use super::*;
use crate::format::dcp::metadata::{Chunk as DcpChunk, Encoding, Place, Tensor};
use crate::source::hf::header;
use crate::source::locate::list;
use crate::store::{Reads, consistent};
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
    for torch in ["22", "26", "29", "215"] {
        let opened = self::opened(&format!("kinds/torch{torch}"), &store);
        assert!(!opened.metadata().objects.is_empty());
        for object in &opened.metadata().objects {
            let (file, id) = (opened.object(object, &store).unwrap(), opened.object_file(object).unwrap());
            let Place { offset, len, .. } = object.place;
            for record in file.storages.values() {
                // Places are those in the file of pieces.
                let extent = record.extent;
                assert!(extent.object == id && extent.offset > offset && extent.offset + extent.len < offset + len);
                let mut bytes = vec![0; extent.len as usize];
                store.read_exact_at(id, extent.offset, &mut bytes).unwrap();
                assert_eq!(record.crc, Some(crc32fast::hash(&bytes)), "{}", object.key);
            }
        }
    }
}

const ALL: [&str; 6] = [
    "dcp/kinds/torch22",
    "dcp/kinds/torch26",
    "dcp/kinds/torch29",
    "dcp/kinds/torch215",
    "dcp/llama_tied_bf16/fsdp2_n3",
    "megatron/optim/mcore0123_fsms_tp1dp2/iter_0000007",
];

/// Each piece of a directory, with what is expected of it.
fn each(
    opened: &Opened,
    store: &FileStore,
    mut work: impl FnMut(PieceOf<'_>, Option<&Beginning>, Reads<'_>),
) {
    for tensor in &opened.metadata().tensors {
        for chunk in tensor.chunks.iter() {
            let mut beginnings = Beginnings::default();
            beginnings.add(tensor.dtype, &chunk);
            let file = opened.file(chunk.place, &tensor.key).unwrap();
            let done = consistent(store, file.object, |reads| {
                let beginning = beginnings.of(tensor.dtype, &chunk);
                work(PieceOf { file, tensor, chunk }, beginning.as_deref(), reads);
                Ok::<_, SourceError>(())
            });
            done.unwrap();
        }
    }
}

#[test]
fn a_short_read_finds_what_the_whole_archive_says() {
    let (mut count, mut short) = (0, 0);
    for folder in ALL {
        let store = FileStore::new();
        let opened = self::opened(&format!("../{folder}"), &store);
        each(&opened, &store, |piece, beginning, reads| {
            let part = reads.part(piece.chunk.place.offset, piece.chunk.place.len).unwrap();
            let (found, read) = (piece.find(reads, beginning).unwrap(), piece.read(part).unwrap());
            assert_eq!(found, read, "{folder} {}", piece.tensor.key);
            count += 1;
            let computed = beginning.and_then(|beginning| beginning.elements(piece.tensor.dtype, &piece.chunk));
            short += usize::from(computed.as_ref() == Some(&read));
        });
    }
    assert!(count > 150 && short > 140, "{count} {short}");
}

/// A piece in the other order is as long as one that is row-major, so of many pieces some of each tensor are looked at.
#[test]
fn of_many_pieces_those_in_another_order_are_found_too() {
    for torch in ["22", "26", "29", "215"] {
        let store = FileStore::new();
        let opened = opened(&format!("kinds/torch{torch}"), &store);
        let wanted: Vec<&Tensor> = opened.metadata().tensors.iter().collect();
        let all = pieces::find(&opened, &wanted, usize::MAX, &store).unwrap();
        assert_eq!(pieces::find(&opened, &wanted, 0, &store).unwrap(), all);
        let at = wanted.iter().position(|tensor| &*tensor.key == "noncontig.t").unwrap();
        assert!(all[at].iter().all(|piece| piece.strides == [4, 32]), "{:?}", all[at]);
    }
}

#[test]
fn pieces_that_are_not_what_the_metadata_says() {
    let store = FileStore::new();
    let opened = opened("llama_tied_bf16/fsdp2_n3", &store);
    let tensor = opened.metadata().tensor("model.model.embed_tokens.weight").unwrap();
    let chunk = tensor.chunks.iter().next().unwrap();
    let refused = |chunk: DcpChunk<'_>, dtype: Dtype, words: &[&str]| {
        let tensor = Tensor { dtype, ..tensor.clone() };
        let file = opened.file(chunk.place, &tensor.key).unwrap();
        let mut beginnings = Beginnings::default();
        beginnings.add(dtype, &chunk);
        let found = consistent(&store, file.object, |reads| {
            PieceOf { file, tensor: &tensor, chunk }.find(reads, beginnings.of(dtype, &chunk).as_deref())
        });
        let error = found.unwrap_err().to_string();
        let named = [".distcp", "embed_tokens.weight"];
        words.iter().chain(&named).for_each(|word| assert!(error.contains(word), "{word}: {error}"));
    };
    let (place, dtype) = (chunk.place, tensor.dtype);
    let turned: Vec<u64> = chunk.sizes.iter().rev().copied().collect();
    let elements = 2 * chunk.sizes.iter().product::<u64>();
    refused(DcpChunk { sizes: &turned, ..chunk }, dtype, &["by the metadata"]);
    refused(chunk, Dtype::Float16, &["bfloat16", "float16"]);
    let at = |place: Place| DcpChunk { place, ..chunk };
    refused(at(Place { len: elements, ..place }), dtype, &["SAFETENSORS"]);
    refused(at(Place { encoding: Encoding::Zstd, ..place }), dtype, &["zstd"]);
    refused(at(Place { offset: place.offset + 1, ..place }), dtype, &["what torch.save writes"]);
    refused(at(Place { len: place.len - 8, ..place }), dtype, &[]);
}
