//! What a loader makes of a written directory, naively: every byte of every tensor from the one chunk that holds it.

use std::collections::BTreeMap;

use super::archive::{Archive, Tensor, size};
use super::unpickle::{Id, Node, Pickle};

const CLASSES: &str = "torch.distributed.checkpoint.metadata";

/// A step of a path: a key or a place in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    Key(String),
    Index(u64),
}

#[derive(Debug, Default)]
pub(crate) struct Loaded {
    /// Element type, shape and bytes.
    pub(crate) tensors: BTreeMap<String, (String, Vec<u64>, Vec<u8>)>,
    /// Files and places of the objects.
    pub(crate) objects: BTreeMap<String, (String, usize, usize)>,
    pub(crate) paths: Option<BTreeMap<String, Vec<Step>>>,
}

/// Reads the directory with these files.
pub(crate) fn load(files: &BTreeMap<String, Vec<u8>>) -> Loaded {
    let pickle = Pickle::of(&files[".metadata"]);
    let class = |id: Id, name: &str| {
        let (found, args) = pickle.made_by(id);
        assert_eq!((found, args.len()), (format!("{CLASSES}.{name}").as_str(), 0));
    };
    class(pickle.root, "Metadata");
    let mut loaded = Loaded { paths: paths(&pickle), ..Loaded::default() };
    let mut places = places(&pickle);
    for (key, entry) in pickle.items(pickle.field(pickle.root, "state_dict_metadata")) {
        let key = pickle.str(*key).to_owned();
        if matches!(pickle.node(*entry), Node::Object { state: None, .. }) {
            class(*entry, "BytesStorageMetadata");
            let place = places.remove(&(key.clone(), None)).unwrap();
            assert!(loaded.objects.insert(key, place).is_none());
            continue;
        }
        class(*entry, "TensorStorageMetadata");
        let dtype = dtype(&pickle, pickle.field(*entry, "properties"));
        let shape = pickle.size(pickle.field(*entry, "size"));
        let mut bytes = vec![None; (shape.iter().product::<u64>() * size(&dtype)) as usize];
        for chunk in pickle.elements(pickle.field(*entry, "chunks")) {
            class(*chunk, "ChunkStorageMetadata");
            let offsets = pickle.size(pickle.field(*chunk, "offsets"));
            let sizes = pickle.size(pickle.field(*chunk, "sizes"));
            let (file, start, len) = places.remove(&(key.clone(), Some(offsets.clone()))).unwrap();
            let archive = Archive::of(&files[&file], start, len);
            let inner = archive.pickle();
            let piece = archive.tensor(&inner, inner.root);
            assert_eq!((&piece.dtype, &piece.shape), (&dtype, &sizes));
            assert_eq!(piece.at % 64, 0, "payloads can be mapped");
            scatter(&mut bytes, &shape, &offsets, &piece);
        }
        let bytes = bytes.into_iter().map(|byte| byte.unwrap_or_else(|| panic!("a hole"))).collect();
        assert!(loaded.tensors.insert(key, (dtype, shape, bytes)).is_none());
    }
    assert!(places.is_empty(), "{places:?}");
    loaded
}

/// Puts the elements of a chunk one by one where they belong.
fn scatter(bytes: &mut [Option<u8>], shape: &[u64], offsets: &[u64], piece: &Tensor) {
    let width = size(&piece.dtype) as usize;
    for (element, content) in piece.bytes.chunks(width).enumerate() {
        let (mut rest, mut to, mut step) = (element as u64, 0, 1);
        for ((whole, offset), size) in shape.iter().zip(offsets).zip(&piece.shape).rev() {
            to += (offset + rest % size) * step;
            rest /= size;
            step *= whole;
        }
        for (byte, slot) in content.iter().zip(&mut bytes[to as usize * width..]) {
            assert!(slot.replace(*byte).is_none(), "two chunks at one position");
        }
    }
}

fn dtype(pickle: &Pickle, id: Id) -> String {
    assert_eq!(pickle.made_by(id).0, format!("{CLASSES}.TensorProperties"));
    let Node::Object { state: Some(state), is_called: false, .. } = pickle.node(id) else { panic!("{id}") };
    let [dtype, layout, grad, memory, pinned] = pickle.elements(*state) else { panic!("not five") };
    assert_eq!(pickle.made_by(*layout).0, "torch.serialization._get_layout");
    assert_eq!(pickle.str(pickle.made_by(*layout).1[0]), "torch.strided");
    assert_eq!(pickle.made_by(*memory).0, format!("{CLASSES}._MEM_FORMAT_ENCODING"));
    assert_eq!(pickle.int(pickle.made_by(*memory).1[0]), 0);
    assert_eq!([grad, pinned].map(|flag| pickle.node(*flag).clone()), [const { Node::Bool(false) }; 2]);
    let Node::Global(dtype) = pickle.node(*dtype) else { panic!("no dtype") };
    dtype.clone()
}

/// File, first byte and length by key and offsets.
type Places = BTreeMap<(String, Option<Vec<u64>>), (String, usize, usize)>;

fn places(pickle: &Pickle) -> Places {
    let mut places = Places::new();
    for (index, info) in pickle.items(pickle.field(pickle.root, "storage_data")) {
        assert_eq!(pickle.made_by(*index).0, format!("{CLASSES}.MetadataIndex"));
        assert_eq!(pickle.made_by(*info).0, "torch.distributed.checkpoint.filesystem._StorageInfo");
        assert_eq!(pickle.fields(*info), ["relative_path", "offset", "length"]);
        let key = pickle.str(pickle.field(*index, "fqn")).to_owned();
        let offsets = pickle.get(*index, "offset").map(|offset| pickle.size(offset));
        let number = |name| pickle.int(pickle.field(*info, name)) as usize;
        let place =
            (pickle.str(pickle.field(*info, "relative_path")).to_owned(), number("offset"), number("length"));
        assert!(places.insert((key, offsets), place).is_none(), "one key of storage_data twice");
    }
    places
}

fn paths(pickle: &Pickle) -> Option<BTreeMap<String, Vec<Step>>> {
    let paths = pickle.field(pickle.root, "planner_data");
    if *pickle.node(paths) == Node::None {
        return None;
    }
    let step = |id: &Id| match pickle.node(*id) {
        Node::Str(key) => Step::Key(key.clone()),
        _ => Step::Index(pickle.int(*id)),
    };
    let path = |(key, path): &(Id, Id)| {
        (pickle.str(*key).to_owned(), pickle.elements(*path).iter().map(step).collect())
    };
    Some(pickle.items(paths).iter().map(path).collect())
}
