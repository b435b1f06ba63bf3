//! `.metadata` of torch DCP and Megatron: real ones against a naive reader, made-up ones against what was made up, spoiled ones refused by name.
//!
//! `tests/fixtures/dist-tiny` was written by torch 2.2.2 to 2.15.0 and megatron-core 0.12.3.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

use ckpt_fs::format::dcp::error::DcpError;
use ckpt_fs::format::dcp::merge::merge;
use ckpt_fs::format::dcp::metadata::{Encoding, Metadata, PathItem, decode};
use ckpt_fs::format::dcp::names::{METADATA, rank_of};
use ckpt_fs::tensor::{Dtype, Shape};
use proptest::prelude::*;

use crate::common::dcp::{Doc, Step, Stored, Style, Tensor, check_same, read};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/dist-tiny")
}

fn fixture(path: &str) -> Vec<u8> {
    fs::read(fixtures().join(path)).unwrap()
}

fn opened(path: &str) -> Metadata {
    decode(&fixture(path)).unwrap()
}

/// Every `.metadata` below `folder`, those of ranks too.
fn all(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        let name = entry.file_name().unwrap().to_str().unwrap();
        if entry.is_dir() {
            all(&entry, found);
        } else if name == METADATA || rank_of(name).is_some() {
            found.push(entry);
        }
    }
}

#[test]
fn real_ones_say_what_a_naive_reader_finds() {
    let mut found = Vec::new();
    all(&fixtures(), &mut found);
    if let Some(folder) = std::env::var_os("CKPT_FS_DIST_FIXTURES") {
        all(Path::new(&folder), &mut found);
    }
    assert!(found.len() >= 10, "{found:?}");
    for path in found {
        let bytes = fs::read(&path).unwrap();
        eprintln!("{}", path.display());
        let metadata = decode(&bytes).unwrap();
        check_same(&read(&bytes), &metadata);
        assert!(metadata.unknown_fields.is_empty(), "{:?}", metadata.unknown_fields);
    }
}

#[test]
fn every_kind_of_entry_of_every_torch() {
    for (torch, version) in [("22", None), ("26", None), ("29", Some("1.0.0")), ("215", Some("1.0.0"))] {
        let metadata = opened(&format!("dcp/kinds/torch{torch}/.metadata"));
        assert_eq!(metadata.version.as_deref(), version);
        let dtype = |key: &str| metadata.tensor(key).unwrap().dtype;
        assert_eq!((dtype("rep.f32"), dtype("sh0.bf16")), (Dtype::Float32, Dtype::Bfloat16));
        let sharded = metadata.tensor("sh0.bf16").unwrap();
        assert_eq!(sharded.shape, Shape(vec![7, 6]));
        let rows: Vec<_> = sharded.chunks.iter().map(|chunk| (chunk.offsets[0], chunk.sizes[0])).collect();
        assert_eq!(rows, [(0, 3), (3, 3), (6, 1)]);
        assert!(metadata.files.iter().all(|file| file.ends_with("_0.distcp")));
    }
}

#[test]
fn nested_keys_have_their_paths() {
    let metadata = opened("dcp/llama_tied_bf16/fsdp2_n3/.metadata");
    let paths = metadata.paths.as_ref().unwrap();
    let path =
        |key: &str| paths.iter().find(|(other, _)| **other == *key).map(|(_, path)| path.clone()).unwrap();
    let key = |key: &str| PathItem::Key(key.into());
    let lr = [key("optim"), key("param_groups"), PathItem::Number(0), key("lr")];
    assert_eq!(*path("optim.param_groups.0.lr"), lr);
    let name = "model.embed_tokens.weight";
    let exp_avg = [key("optim"), key("state"), key(name), key("exp_avg")];
    assert_eq!(*path(&format!("optim.state.{name}.exp_avg")), exp_avg);
    assert_eq!(paths.len(), metadata.tensors.len() + metadata.objects.len());
}

#[test]
fn compressed_pieces_are_said() {
    let metadata = opened("dcp/llama_untied/zstd_n2/.metadata");
    assert!(metadata.places().count() > 10);
    assert!(metadata.places().all(|place| place.encoding == Encoding::Zstd));
}

#[test]
fn megatron_says_the_shape_of_flattened_tensors() {
    let metadata = opened("megatron/optim/mcore0123_fsms_tp1dp2/iter_0000007/.metadata");
    let tensor = metadata.tensor("optimizer.state.exp_avg.decoder.layers.mlp.linear_fc1.weight").unwrap();
    assert_eq!(tensor.shape, Shape(vec![2, 2, 1, 1056]));
    assert_eq!(tensor.original_shape, Some(Shape(vec![2, 88, 24])));
    let chunk = tensor.chunks.iter().nth(3).unwrap();
    assert_eq!((chunk.offsets, chunk.sizes), (&[1, 1, 0, 0][..], &[1, 1, 1, 1056][..]));
    assert_eq!(metadata.tensor("decoder.layers.mlp.linear_fc1.weight").unwrap().original_shape, None);
    assert!(metadata.object("decoder.layers.mlp.linear_fc1._extra_state/shard_0_2").is_some());
}

#[test]
fn files_of_ranks_are_one_checkpoint() {
    let rank = |rank: u32| (rank, opened(&format!("dcp/llama_untied/nocoll_n2/__{rank}.metadata")));
    let whole = merge(vec![rank(1), rank(0)]).unwrap();
    assert_eq!(merge(vec![rank(0), rank(1)]).unwrap(), whole);
    let (_, first) = rank(0);
    for tensor in &whole.tensors {
        let rows: u64 = tensor.chunks.iter().map(|chunk| chunk.sizes[0]).sum();
        assert_eq!(rows, tensor.shape.0[0], "{}", tensor.key);
        for chunk in tensor.chunks.iter() {
            let file = whole.file(chunk.place).unwrap();
            let place = |place| (first.file(place).unwrap(), place);
            let ours = first.tensor(&tensor.key).into_iter().flat_map(|tensor| tensor.chunks.iter());
            match ours.into_iter().find(|ours| ours.offsets == chunk.offsets) {
                Some(ours) => assert_eq!(place(ours.place).0, file),
                None => assert!(file.starts_with("__1_")),
            }
        }
    }
    assert_eq!(whole.files.len(), 2);
    // A replica that both have is that of the lower rank.
    let both = merge(vec![(3, first.clone()), (1, first.clone())]).unwrap();
    assert_eq!(both, first);
    assert_eq!(merge(vec![(1, first.clone()), (1, first)]), Err(DcpError::SameRank { rank: 1 }));
    assert_eq!(merge(Vec::new()), Err(DcpError::Nothing));
}

#[test]
fn ranks_that_contradict_each_other_are_refused() {
    let base = sample();
    let ours = decode(&base.pickle(&Style::default())).unwrap();
    let refused = |change: fn(&mut Doc), words: &[&str]| {
        let mut doc = base.clone();
        change(&mut doc);
        let other = decode(&doc.pickle(&Style::default())).unwrap();
        let error = merge(vec![(0, ours.clone()), (4, other)]).unwrap_err().to_string();
        words.iter().for_each(|word| assert!(error.contains(word), "{word}: {error}"));
    };
    refused(|doc| doc.tensors[0].dtype = "float16".into(), &["\"w\"", "dtype", "rank 0", "rank 4"]);
    refused(|doc| doc.tensors[0].size = vec![5, 3], &["\"w\"", "shape", "[4, 3]", "[5, 3]"]);
    refused(
        |doc| {
            doc.tensors[0].chunks = vec![(vec![0, 0], vec![3, 3])];
            doc.stored.remove(1);
        },
        &["\"w\"", "chunks", "[2, 3]", "[3, 3]"],
    );
    refused(|doc| doc.originals[0].1 = Some(vec![12]), &["\"w\"", "original shape"]);
    refused(|doc| doc.paths.as_mut().unwrap()[0].1.clear(), &["\"w\"", "path"]);
    refused(
        |doc| {
            let tensor = doc.tensors.remove(0);
            doc.objects.push(tensor.key);
            doc.stored.remove(1);
            doc.stored[0].offsets = None;
            doc.originals.clear();
        },
        &["\"w\"", "a tensor in the file of rank 0 and an object"],
    );
}

/// Two chunks of a tensor, a scalar and an object.
fn sample() -> Doc {
    let stored = |key: &str, offsets: Option<&[i64]>, offset| Stored {
        key: key.into(),
        offsets: offsets.map(<[i64]>::to_vec),
        path: "__0_0.distcp".into(),
        offset,
        len: 100,
        transforms: None,
    };
    Doc {
        tensors: vec![
            Tensor {
                key: "w".into(),
                dtype: "bfloat16".into(),
                size: vec![4, 3],
                chunks: vec![(vec![0, 0], vec![2, 3]), (vec![2, 0], vec![2, 3])],
            },
            Tensor {
                key: "step".into(),
                dtype: "float32".into(),
                size: vec![],
                chunks: vec![(vec![], vec![])],
            },
        ],
        objects: vec!["lr".into()],
        stored: vec![
            stored("w", Some(&[0, 0]), 0),
            stored("w", Some(&[2, 0]), 1 << 33),
            stored("step", Some(&[]), 200),
            stored("lr", None, 300),
        ],
        version: Some("1.0.0".into()),
        paths: Some(vec![("w".into(), vec![Step::Key("w".into()), Step::Number(0)])]),
        originals: vec![("w".into(), Some(vec![2, 6]))],
    }
}

#[test]
fn what_is_wrong_is_refused_by_name() {
    let refused = |change: &dyn Fn(&mut Doc, &mut Style), words: &[&str]| {
        for protocol in [2, 4] {
            let (mut doc, mut style) = (sample(), Style { protocol, ..Style::default() });
            check_same(&doc, &decode(&doc.pickle(&style)).unwrap());
            change(&mut doc, &mut style);
            let error = decode(&doc.pickle(&style)).expect_err(words[0]).to_string();
            words.iter().for_each(|word| assert!(error.contains(word), "{word}: {error}"));
        }
    };
    // Chunks and their places.
    refused(&|doc, _| drop(doc.stored.remove(1)), &["\"w\"", "not said where", "[2, 0]"]);
    refused(&|doc, _| drop(doc.stored.pop()), &["\"lr\"", "not said where"]);
    refused(&|doc, _| drop(doc.tensors[0].chunks.pop()), &["\"w\"", "chunk at [2, 0]", "does not have"]);
    refused(&|doc, _| doc.stored[1].offsets = Some(vec![1, 0]), &["\"w\"", "chunk at [1, 0]"]);
    refused(&|doc, _| drop(doc.tensors.remove(1)), &["\"step\"", "not described"]);
    refused(&|doc, _| doc.stored[1].offsets = Some(vec![0, 0]), &["\"w\"", "two places", "[0, 0]"]);
    refused(&|doc, _| doc.stored.push(doc.stored[3].clone()), &["\"lr\"", "two places"]);
    refused(&|doc, _| doc.stored[2].offsets = None, &["\"step\"", "without the offsets"]);
    refused(&|doc, _| doc.stored[3].offsets = Some(vec![]), &["\"lr\"", "no tensor"]);
    // Chunks in their tensor.
    refused(&|doc, _| doc.tensors[0].chunks[1].1 = vec![3, 3], &["\"w\"", "[3, 3]", "beyond", "[4, 3]"]);
    refused(&|doc, _| doc.tensors[0].chunks[1].0 = vec![0, 0], &["\"w\"", "two chunks", "[0, 0]"]);
    refused(&|doc, _| doc.tensors[0].chunks[0].0 = vec![0], &["\"w\"", "1 offsets and 2 sizes", "2 axes"]);
    refused(&|doc, _| doc.tensors[0].chunks[0].1 = vec![2, 3, 1], &["\"w\"", "3 sizes"]);
    refused(&|doc, _| doc.tensors[0].size = vec![12], &["\"w\"", "1 axes"]);
    refused(&|doc, _| doc.tensors[0].size = vec![-4, 3], &["\"w\"", "-4"]);
    refused(&|doc, _| doc.tensors[0].chunks[0].0 = vec![0, -1], &["\"w\"", "-1"]);
    refused(&|doc, _| doc.tensors[0].size = vec![1 << 40, 1 << 40], &["\"w\"", "64 bits"]);
    refused(&|doc, _| doc.tensors[1].size = vec![1; 65], &["\"step\"", "65 axes"]);
    // Places.
    refused(&|doc, _| doc.stored[0].offset = -1, &["\"w\"", "offset of a piece", "-1"]);
    refused(&|doc, _| doc.stored[0].len = -100, &["\"w\"", "length of a piece", "-100"]);
    for path in ["/etc/passwd", "../x", "a/../../x", "", "a/", "a\0b", ".."] {
        refused(&|doc, _| doc.stored[0].path = path.into(), &["\"w\"", "no path within"]);
    }
    let transforms = |names: &[&str]| Some(names.iter().map(|name| (*name).to_owned()).collect());
    refused(&|doc, _| doc.stored[0].transforms = transforms(&["stream.lz4/1"]), &["\"w\"", "stream.lz4/1"]);
    refused(
        &|doc, _| doc.stored[0].transforms = transforms(&["stream.zstd/1", "stream.zstd/1"]),
        &["\"w\"", "stream.zstd/1, stream.zstd/1"],
    );
    // What is not known.
    refused(&|_, style| style.bytes_class = "NewStorageMetadata", &["\"lr\"", "metadata.NewStorageMetadata"]);
    refused(&|_, style| style.layout = "torch.sparse_coo", &["\"w\"", "torch.sparse_coo"]);
    refused(&|doc, _| doc.tensors[0].dtype = "qint8".into(), &["\"w\"", "torch.qint8"]);
    refused(&|_, style| style.properties = 7, &["\"w\"", "properties"]);
    refused(&|_, style| style.properties = 0, &["\"w\"", "properties"]);
    refused(&|_, style| style.chunk_field = Some("stride"), &["\"w\"", "ChunkStorageMetadata", "\"stride\""]);
    refused(&|_, style| style.original_field = Some("new"), &["\"w\"", "\"new\""]);
    refused(&|_, style| style.root = "Manifest", &["not the metadata", "metadata.Manifest"]);
    refused(&|_, style| style.key_twice = true, &["\"w\"", "twice"]);
    refused(&|_, style| style.field = Some("storage_data"), &["\"storage_data\"", "twice"]);
    refused(&|doc, _| doc.originals.push(("gone".into(), Some(vec![1]))), &["\"gone\"", "not described"]);
    refused(&|doc, _| doc.originals.push(doc.originals[0].clone()), &["\"w\"", "twice"]);
    refused(
        &|doc, _| {
            let paths = doc.paths.as_mut().unwrap();
            paths.push(paths[0].clone());
        },
        &["\"w\"", "twice"],
    );
}

#[test]
fn what_does_not_matter_is_passed_over() {
    let doc = sample();
    for protocol in [2, 4] {
        for properties in [5, 6] {
            let old_classes = properties == 5;
            let style = Style { protocol, properties, old_classes, plans: true, ..Style::default() };
            check_same(&doc, &decode(&doc.pickle(&style)).unwrap());
        }
    }
    let bare = Doc { version: None, paths: None, originals: Vec::new(), ..doc.clone() };
    check_same(&bare, &decode(&bare.pickle(&Style::default())).unwrap());
    // Another planner's data, and a field of a later version, are said.
    let style = Style { odd_paths: true, field: Some("later"), ..Style::default() };
    let metadata = decode(&bare.pickle(&style)).unwrap();
    assert_eq!(metadata.paths, None);
    assert_eq!(
        metadata.unknown_fields.iter().map(|name| &**name).collect::<Vec<_>>(),
        ["later", "planner_data"]
    );
}

#[test]
fn an_error_where_nobody_looks_is_none() {
    // Megatron's plans hold the same classes; the tensors of a plan need not be those of the checkpoint.
    let mut doc = sample();
    doc.tensors[0].size = vec![-1, 3];
    let text = doc.pickle(&Style::default());
    assert!(decode(&text).is_err());
    let style = Style { plans: true, ..Style::default() };
    let bytes = sample().pickle(&style);
    // The last size is in the plan: a scalar's, which becomes a tuple of a text.
    let at = bytes.windows(2).rposition(|window| window == b")\x85").unwrap();
    let spoiled = [&bytes[..at], b"\x8c\x01x\x85", &bytes[at + 1..]].concat();
    let frame = (spoiled.len() as u64 - 11).to_le_bytes();
    let spoiled = [&spoiled[..3], &frame, &spoiled[11..]].concat();
    check_same(&sample(), &decode(&spoiled).unwrap());
}

#[test]
fn other_pickles_are_told() {
    for (bytes, found) in [
        (&b"\x80\x02}."[..], "dict"),
        (b"\x80\x02N.", "None"),
        (b"\x80\x02ccollections\nOrderedDict\n)R.", "collections.OrderedDict"),
        (b"\x80\x02ctorch\nSize\n)\x85R.", "a torch.Size"),
    ] {
        let error = decode(bytes).unwrap_err().to_string();
        assert!(error.contains("not the metadata") && error.contains(found), "{error}");
    }
    assert!(matches!(decode(b""), Err(DcpError::Pickle(_))));
    let twice = [sample().pickle(&Style::default()), vec![b'.']].concat();
    assert!(decode(&twice).unwrap_err().to_string().contains("follow the end"));
}

/// Numbers that look random and are the same every time (splitmix64).
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end.max(1)
    }

    /// Where `size` positions are cut into runs.
    fn cuts(&mut self, size: u64) -> Vec<(i64, i64)> {
        let mut ends: Vec<u64> = (0..self.below(4)).map(|_| self.below(size + 1)).collect();
        ends.extend([0, size]);
        ends.sort_unstable();
        ends.dedup();
        if size == 0 {
            return vec![(0, 0)];
        }
        ends.windows(2).map(|pair| (pair[0] as i64, (pair[1] - pair[0]) as i64)).collect()
    }

    fn tensor(&mut self, number: u64) -> Tensor {
        let dtypes: Vec<Dtype> = Dtype::all().collect();
        let size: Vec<u64> = (0..self.below(5)).map(|_| self.below(400)).collect();
        let mut chunks = vec![(Vec::new(), Vec::new())];
        for axis in &size {
            let cuts = self.cuts(*axis);
            let all = chunks.iter().flat_map(|(offsets, sizes): &(Vec<i64>, Vec<i64>)| {
                let add = |list: &Vec<i64>, number| list.iter().copied().chain([number]).collect::<Vec<_>>();
                cuts.iter().map(move |(offset, size)| (add(offsets, *offset), add(sizes, *size)))
            });
            chunks = all.collect();
        }
        // Some may be missing, and they are in any order.
        chunks.retain(|_| self.below(8) > 0);
        for at in (1..chunks.len()).rev() {
            let other = self.below(at as u64 + 1) as usize;
            chunks.swap(at, other);
        }
        Tensor {
            key: format!("layers.{}.{}", number, ["weight", "bias", "é.x"][self.below(3) as usize]),
            dtype: dtypes[self.below(dtypes.len() as u64) as usize].name().into(),
            size: size.iter().map(|size| *size as i64).collect(),
            chunks,
        }
    }

    fn doc(&mut self) -> Doc {
        let mut doc = Doc::default();
        for number in 0..self.below(6) {
            doc.tensors.push(self.tensor(number));
        }
        doc.objects = (0..self.below(4)).map(|number| format!("object.{number}")).collect();
        let chunks = doc.tensors.iter().flat_map(|tensor| {
            tensor.chunks.iter().map(|(offsets, _)| (tensor.key.clone(), Some(offsets.clone())))
        });
        let objects = doc.objects.iter().map(|key| (key.clone(), None));
        let pieces: Vec<_> = chunks.chain(objects).collect();
        for (key, offsets) in pieces {
            let at = if doc.stored.is_empty() { 0 } else { self.below(doc.stored.len() as u64 + 1) as usize };
            let bits = self.below(62);
            doc.stored.insert(
                at,
                Stored {
                    key,
                    offsets,
                    path: ["__0_0.distcp", "__1_0.distcp", "sub/other.bin", "a..b"][self.below(4) as usize]
                        .into(),
                    offset: self.below(1 << bits) as i64,
                    len: self.below(1 << 40) as i64,
                    transforms: [None, Some(vec![]), Some(vec!["stream.zstd/1".into()])]
                        [self.below(3) as usize]
                        .clone(),
                },
            );
        }
        doc.version = (self.below(2) == 1).then(|| "1.0.0".into());
        if self.below(2) == 1 {
            let step = |part: &str| part.parse().map_or(Step::Key(part.into()), Step::Number);
            let keys = doc.tensors.iter().map(|tensor| &tensor.key).chain(&doc.objects);
            doc.paths = Some(keys.map(|key| (key.clone(), key.split('.').map(step).collect())).collect());
        }
        if self.below(2) == 1 {
            let some = |tensor: &Tensor| {
                (tensor.key.clone(), (tensor.size.len() > 1).then(|| vec![tensor.size[0], 7]))
            };
            doc.originals = doc.tensors.iter().map(some).collect();
        }
        doc
    }
}

fn style(random: &mut Random) -> Style {
    Style {
        protocol: [2, 4][random.below(2) as usize],
        old_classes: random.below(2) == 1,
        properties: 5 + random.below(2) as usize,
        plans: random.below(2) == 1,
        ..Style::default()
    }
}

proptest! {
    #[test]
    fn what_was_written_is_read(seed in any::<u64>()) {
        let mut random = Random(seed);
        let doc = random.doc();
        let bytes = doc.pickle(&style(&mut random));
        let metadata = decode(&bytes).unwrap();
        check_same(&doc, &metadata);
        prop_assert_eq!(&read(&bytes), &doc);
        prop_assert_eq!(merge(vec![(0, metadata.clone()), (1, metadata.clone())]).unwrap(), metadata);
    }

    #[test]
    fn damage_never_panics(seed in any::<u64>(), damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6)) {
        let mut random = Random(seed);
        let mut bytes = random.doc().pickle(&style(&mut random));
        for (at, byte) in &damage {
            let at = at.index(bytes.len());
            bytes[at] = *byte;
        }
        let _ = decode(&bytes);
        let cut = damage.first().map_or(0, |(at, _)| at.index(bytes.len()));
        prop_assert!(decode(&bytes[..cut]).is_err());
    }
}

#[test]
fn a_file_cut_anywhere_is_an_error() {
    let bytes = fixture("hand/min/.metadata");
    for len in 0..bytes.len() {
        assert!(decode(&bytes[..len]).is_err(), "at {len}");
    }
}
