//! Bad input: a clear error that names file and tensor, nothing written, nothing hangs.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::common::naive::{Config, Cut, Fill, Kind, Moe};
use crate::common::run::{PROGRAM, Said, View, program, snapshot};
use crate::common::skip::skip;
use crate::common::source::{Checkpoint, ITERATION, rank_file};
use crate::common::{Array, Keep, Storages, call, dict, open_pt, pt, pt_of, tuple};
use ckpt_fs::format::torch::encode_pickle;
use ckpt_fs::tensor::Dtype;
use ckpt_fs::value::Value;
use tempfile::TempDir;

const SOURCE: i32 = 3;
const UNSUPPORTED: i32 = 4;
const LAYOUT: i32 = 5;
const DESTINATION: i32 = 6;

/// A checkpoint on disk, and an empty folder to write to.
struct Bad {
    dir: TempDir,
}

impl Bad {
    fn empty() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["src", "out", "mnt"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        Self { dir }
    }

    fn of(checkpoint: &Checkpoint) -> Self {
        let bad = Self::empty();
        checkpoint.write(&bad.src());
        bad
    }

    /// The small checkpoint with other bytes for one rank file.
    fn with_file(dir: &str, bytes: &[u8]) -> Self {
        let bad = Self::of(&Checkpoint::small());
        fs::write(bad.file(dir), bytes).unwrap();
        bad
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn src(&self) -> PathBuf {
        self.path("src")
    }

    fn dst(&self) -> PathBuf {
        self.path("out/dst")
    }

    fn file(&self, dir: &str) -> PathBuf {
        rank_file(&self.src(), dir)
    }

    /// `materialize` and `mount` refuse it alike, before anything is written or goes to the background.
    #[track_caller]
    fn refused(&self, code: i32, words: &[&str]) {
        self.refused_with(&[], code, words);
    }

    #[track_caller]
    fn refused_with(&self, flags: &[&str], code: i32, words: &[&str]) {
        let before = snapshot(self.dir.path());
        for (command, target) in [("materialize", self.dst()), ("mount", self.path("mnt"))] {
            let mut args = vec![command.into(), self.src().into_os_string(), target.into_os_string()];
            args.extend(flags.iter().map(Into::into));
            program(&args).refused(code, words);
        }
        assert_eq!(snapshot(self.dir.path()), before, "something was written");
    }

    /// It is accepted, and says this.
    #[track_caller]
    fn accepted(&self, words: &[&str]) {
        let said = ckpt!("materialize", self.src(), self.dst()).ok();
        for word in words {
            assert!(said.err.contains(word), "'{word}' is missing in: {}", said.err);
        }
    }
}

fn small_bytes(dir: &str) -> Vec<u8> {
    let mut checkpoint = Checkpoint::small();
    let file = checkpoint.file(dir).clone();
    checkpoint.bytes(&file)
}

/// Position of the directory entry of record `name`, and of its local header.
fn headers(bytes: &[u8], name: &str) -> (usize, usize) {
    let full = format!("archive/{name}");
    let central = |at: &usize| {
        bytes[*at..].starts_with(b"PK\x01\x02")
            && bytes.get(at + 46..at + 46 + full.len()) == Some(full.as_bytes())
    };
    let at = (0..bytes.len() - 46).find(central).unwrap();
    let local = u32::from_le_bytes(bytes[at + 42..at + 46].try_into().unwrap());
    (at, local as usize)
}

/// A file whose `data.pkl` is this, with no storages.
fn with_pickle(pickle: &[u8]) -> Bad {
    Bad::with_file("mp_rank_00_000", &pt_of(pickle, &[]))
}

// Files that are not there.

#[test]
fn a_missing_rank_file_that_leaves_parameters_uncovered() {
    let bad = Bad::of(&Checkpoint::small());
    fs::remove_file(bad.file("mp_rank_01_000")).unwrap();
    bad.refused(SOURCE, &["embedding.weight", "no file holds", "missing: mp_rank_01_000/model_optim_rng.pt"]);
}

#[test]
fn a_missing_stage() {
    let bad = Bad::of(&Checkpoint::small());
    fs::remove_dir_all(bad.src().join(ITERATION).join("mp_rank_00_001")).unwrap();
    fs::remove_dir_all(bad.src().join(ITERATION).join("mp_rank_01_001")).unwrap();
    bad.refused(
        SOURCE,
        &["num_layers is 4", "mp_rank_00_001/model_optim_rng.pt", "mp_rank_01_001/model_optim_rng.pt"],
    );
}

#[test]
fn a_missing_rank_file_whose_parameters_others_hold_is_said() {
    // The first stage holds the embedding alone, and the last one its tied copy.
    let config = Config { kind: Kind::Legacy, groups: 4, tied: true, ..Config::default() };
    let bad = Bad::of(&Checkpoint::new(&config, &Cut::new(1, &[0, 4])));
    fs::remove_file(bad.file("mp_rank_00_000")).unwrap();
    bad.accepted(&["missing", "cover every parameter", "mp_rank_00_000/model_optim_rng.pt"]);
    let said = ckpt!("verify", bad.src());
    assert_eq!(said.code, 1, "{}", said.err);
    assert!(said.out.contains("missing: mp_rank_00_000/model_optim_rng.pt"), "{}", said.out);
}

#[test]
fn a_tensor_that_one_rank_lacks_is_named_with_the_file() {
    let mut checkpoint = Checkpoint::small();
    checkpoint.file("mp_rank_01_001").tensors.retain(|(path, _)| !path.ends_with("1.mlp.linear_fc2.weight"));
    Bad::of(&checkpoint).refused(SOURCE, &["layers.3.mlp.down.weight", "mp_rank_01_001/model_optim_rng.pt"]);
    let mut checkpoint = Checkpoint::small();
    for dir in ["mp_rank_00_001", "mp_rank_01_001"] {
        checkpoint.file(dir).tensors.retain(|(path, _)| !path.ends_with("1.mlp.linear_fc2.weight"));
    }
    Bad::of(&checkpoint)
        .refused(SOURCE, &["layer 3 has no mlp.down.weight", "mp_rank_00_001/model_optim_rng.pt"]);
}

#[test]
fn a_tensor_that_no_file_has() {
    for lost in
        ["word_embeddings.weight", "final_layernorm.weight", "output_layer.weight", "mlp.linear_fc2.weight"]
    {
        let mut checkpoint = Checkpoint::small();
        for file in &mut checkpoint.files {
            file.tensors.retain(|(path, _)| !path.ends_with(lost));
        }
        Bad::of(&checkpoint).refused(SOURCE, &["no rank file has", lost]);
    }
}

#[test]
fn an_untied_head_that_args_do_not_speak_of() {
    let mut checkpoint = Checkpoint::small();
    for file in &mut checkpoint.files {
        file.args.retain(|(field, _)| field != "untie_embeddings_and_output_weights");
    }
    Bad::of(&checkpoint).refused(UNSUPPORTED, &["args do not say", "untie_embeddings_and_output_weights"]);
}

#[test]
fn one_parameter_under_two_names() {
    let mut checkpoint = Checkpoint::small();
    for file in &mut checkpoint.files {
        let norm =
            file.tensors.iter().find(|(path, _)| path.ends_with("layers.0.input_layernorm.weight")).cloned();
        if let Some((path, array)) = norm {
            let other = path.replace("input_layernorm.weight", "self_attention.linear_qkv.layer_norm_weight");
            file.tensors.push((other, array));
        }
    }
    Bad::of(&checkpoint).refused(SOURCE, &["is also saved as", "input_layernorm", "layer_norm_weight"]);
}

#[test]
fn an_empty_folder_and_no_folder() {
    let bad = Bad::empty();
    bad.refused(
        SOURCE,
        &[
            "src",
            "is empty",
            "a Megatron checkpoint (latest_checkpointed_iteration.txt",
            "a Hugging Face model (config.json with safetensors files)",
            "a distributed one of torch (.metadata)",
        ],
    );
    fs::write(bad.src().join("notes"), "").unwrap();
    bad.refused(SOURCE, &["src", "neither a Megatron checkpoint", "nor a Hugging Face model"]);
    fs::remove_dir_all(bad.src()).unwrap();
    bad.refused(SOURCE, &["src", "no such directory"]);
    fs::write(bad.src(), "x").unwrap();
    bad.refused(SOURCE, &["src", "this is a file; pass the directory"]);
}

#[test]
fn the_directory_of_one_rank_and_a_mount_of_many_layouts() {
    let bad = Bad::of(&Checkpoint::small());
    let rank = bad.src().join(ITERATION).join("mp_rank_00_000");
    ckpt!("inspect", rank).refused(SOURCE, &["directory of one rank; pass the directory above"]);
    let many = bad.path("many");
    fs::create_dir_all(many.join("tp2pp2")).unwrap();
    ckpt!("inspect", many).refused(SOURCE, &["mount of many layouts; pass one"]);
}

#[test]
fn a_mount_point_that_would_hide_the_source() {
    let bad = Bad::of(&Checkpoint::small());
    for point in [bad.src(), bad.dir.path().to_owned()] {
        ckpt!("mount", bad.src(), &point, "--tp", "1").refused(7, &["would be hidden by the mount"]);
    }
}

#[test]
fn a_source_whose_files_are_links_is_not_replaced() {
    let bad = Bad::of(&Checkpoint::small_as(1, &[4]));
    let run = bad.path("run");
    let rank = run.join(ITERATION).join("mp_rank_00");
    fs::create_dir_all(&rank).unwrap();
    std::os::unix::fs::symlink(bad.file("mp_rank_00"), rank.join("model_optim_rng.pt")).unwrap();
    fs::write(run.join("latest_checkpointed_iteration.txt"), "100").unwrap();
    let before = snapshot(&bad.src());
    ckpt!("materialize", &run, bad.src(), "--tp", "2", "--overwrite")
        .refused(DESTINATION, &["overlaps the source"]);
    assert_eq!(snapshot(&bad.src()), before);
    ckpt!("mount", &run, bad.src(), "--tp", "2").refused(7, &["would be hidden by the mount"]);
}

#[test]
fn a_pickle_that_is_not_what_was_summed() {
    let bytes = small_bytes("mp_rank_00_001");
    // A digit of a tensor's sizes or names somewhere in the pickle, which still decodes.
    let at = bytes.windows(12).position(|window| window == b"linear_proj.").unwrap();
    let mut changed = bytes.clone();
    changed[at] ^= 1;
    Bad::with_file("mp_rank_00_001", &changed).refused(SOURCE, &["data.pkl is damaged", "mp_rank_00_001"]);
}

#[test]
fn what_a_job_does_not_write_again_is_not_deleted() {
    let bad = Bad::of(&Checkpoint::small());
    ckpt!("materialize", bad.src(), bad.dst(), "--tp", "2", "--pp", "2").ok();
    let optimizer = bad.dst().join(ITERATION).join("mp_rank_01_001/distrib_optim.pt");
    fs::write(&optimizer, "moments").unwrap();
    let refused = |flags: &[&str], words: &[&str]| {
        let mut args = vec!["materialize".into(), bad.src().into_os_string(), bad.dst().into_os_string()];
        args.extend(flags.iter().map(Into::into));
        program(&args).refused(DESTINATION, words);
    };
    refused(&["--overwrite"], &["also holds", "mp_rank_01_001/distrib_optim.pt"]);
    assert_eq!(fs::read_to_string(&optimizer).unwrap(), "moments");
    fs::remove_file(&optimizer).unwrap();
    refused(&["--overwrite", "--tp-ranks", "0"], &["also holds", "mp_rank_01_000/model_optim_rng.pt"]);
    // The whole checkpoint in another layout takes the place of the old one.
    ckpt!("materialize", bad.src(), bad.dst(), "--tp", "1", "--pp", "1", "--overwrite").ok();
    assert!(!bad.dst().join(ITERATION).join("mp_rank_01_001").exists());
}

#[test]
fn a_replaced_destination_stays_as_open_as_it_was() {
    use std::os::unix::fs::PermissionsExt;
    let bad = Bad::of(&Checkpoint::small());
    fs::create_dir(bad.dst()).unwrap();
    fs::set_permissions(bad.dst(), fs::Permissions::from_mode(0o2775)).unwrap();
    ckpt!("materialize", bad.src(), bad.dst()).ok();
    assert_eq!(fs::metadata(bad.dst()).unwrap().permissions().mode() & 0o7777, 0o2775);
}

#[test]
fn a_log_file_that_cannot_be_written() {
    let bad = Bad::of(&Checkpoint::small());
    let said = ckpt!("mount", bad.src(), bad.path("mnt"), "--log-file", bad.path("nowhere/log"));
    said.refused(9, &["cannot write to the log file"]);
}

// Files that are damaged.

#[test]
fn a_file_cut_short_anywhere() {
    let bytes = small_bytes("mp_rank_01_001");
    let bad = Bad::of(&Checkpoint::small());
    let mut lengths: Vec<usize> = (0..bytes.len()).step_by(97).collect();
    lengths.extend((bytes.len() - 120)..bytes.len());
    for len in lengths {
        fs::write(bad.file("mp_rank_01_001"), &bytes[..len]).unwrap();
        let error = View::of(&bad.src(), &Cut::new(1, &[4]), Fill::Zero, None).err();
        let error = error.unwrap_or_else(|| panic!("{len} of {} bytes were read", bytes.len()));
        assert!(error.contains("mp_rank_01_001/model_optim_rng.pt"), "{len}: {error}");
    }
    fs::write(bad.file("mp_rank_01_001"), &bytes[..bytes.len() / 2]).unwrap();
    bad.refused(SOURCE, &["mp_rank_01_001/model_optim_rng.pt", "cut short"]);
}

#[test]
fn any_flipped_byte_of_the_metadata_is_read_or_refused() {
    // Whatever a flipped bit makes of names and numbers: an answer, and no panic. (Tensor bytes are `verify`'s business.)
    let bytes = small_bytes("mp_rank_00_000");
    let bad = Bad::of(&Checkpoint::small());
    let (data, _) = headers(&bytes, "data/0");
    let metadata = (0..4096.min(bytes.len())).step_by(13).chain((data..bytes.len()).step_by(7));
    for (count, at) in metadata.enumerate() {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << (count % 8);
        fs::write(bad.file("mp_rank_00_000"), &flipped).unwrap();
        if let Ok(view) = View::of(&bad.src(), &Cut::new(1, &[4]), Fill::Zero, None) {
            view.files();
        }
    }
}

#[test]
fn garbage_in_place_of_a_file() {
    let name = "mp_rank_00_000/model_optim_rng.pt";
    Bad::with_file("mp_rank_00_000", b"").refused(SOURCE, &[name, "empty"]);
    Bad::with_file("mp_rank_00_000", &[0xA5; 5000]).refused(SOURCE, &[name, "not a zip archive"]);
    Bad::with_file("mp_rank_00_000", b"<html>404</html>").refused(SOURCE, &[name, "web page"]);
}

#[test]
fn a_file_of_a_torch_before_zip_files() {
    let mut old = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.".to_vec();
    old.resize(2000, 7);
    Bad::with_file("mp_rank_00_000", &old).refused(SOURCE, &["mp_rank_00_000", "torch < 1.6"]);
    let mut tar = vec![0; 1024];
    tar[257..262].copy_from_slice(b"ustar");
    Bad::with_file("mp_rank_00_000", &tar).refused(SOURCE, &["mp_rank_00_000", "tar"]);
}

#[test]
fn a_zip_that_torch_did_not_write() {
    let plain = pt(&dict(vec![("weights".into(), Value::Int(1))]), &[]);
    Bad::with_file("mp_rank_00_000", &plain).refused(SOURCE, &["mp_rank_00_000", "args"]);
    let list = pt(&Value::List(vec![Value::Int(1)].into()), &[]);
    Bad::with_file("mp_rank_00_000", &list).refused(SOURCE, &["mp_rank_00_000", "args"]);
}

#[test]
fn a_compressed_record() {
    let mut bytes = small_bytes("mp_rank_00_000");
    let (central, local) = headers(&bytes, "data/2");
    bytes[central + 10] = 8;
    bytes[local + 8] = 8;
    Bad::with_file("mp_rank_00_000", &bytes).refused(SOURCE, &["mp_rank_00_000", "data/2", "compressed"]);
}

#[test]
fn an_encrypted_record() {
    let mut bytes = small_bytes("mp_rank_00_000");
    let (central, local) = headers(&bytes, "data/2");
    bytes[central + 8] |= 1;
    bytes[local + 6] |= 1;
    Bad::with_file("mp_rank_00_000", &bytes).refused(SOURCE, &["mp_rank_00_000", "data/2", "encrypted"]);
    let mut bytes = small_bytes("mp_rank_00_000");
    bytes[local + 6] |= 1;
    Bad::with_file("mp_rank_00_000", &bytes).refused(SOURCE, &["mp_rank_00_000", "data/2", "encrypted"]);
}

#[test]
fn offsets_and_lengths_beyond_the_file() {
    for (field, value) in [(42, 0x7fff_ffff_u32), (42, 3), (24, 0x7fff_ffff), (20, 12), (24, u32::MAX)] {
        let mut bytes = small_bytes("mp_rank_00_000");
        let (central, _) = headers(&bytes, "data/2");
        bytes[central + field..central + field + 4].copy_from_slice(&value.to_le_bytes());
        if field == 24 {
            // Both sizes, so that they agree.
            bytes[central + 20..central + 24].copy_from_slice(&value.to_le_bytes());
        }
        Bad::with_file("mp_rank_00_000", &bytes).refused(SOURCE, &["mp_rank_00_000/model_optim_rng.pt"]);
    }
}

#[test]
fn a_directory_of_absurd_length() {
    let bytes = small_bytes("mp_rank_00_000");
    let end64 = bytes.len() - 22 - 20 - 56;
    for (field, value) in
        [(32, u64::MAX), (32, 1 << 40), (40, u64::MAX), (48, u64::MAX), (48, 1), (4, u64::MAX)]
    {
        let mut bytes = bytes.clone();
        bytes[end64 + field..end64 + field + 8].copy_from_slice(&value.to_le_bytes());
        Bad::with_file("mp_rank_00_000", &bytes).refused(SOURCE, &["mp_rank_00_000/model_optim_rng.pt"]);
    }
}

/// A hole costs nobody anything, and all of it is stated to be the directory.
#[test]
fn a_directory_as_long_as_a_vast_file() {
    let bad = Bad::with_file("mp_rank_00_000", &[]);
    let bytes = small_bytes("mp_rank_00_000");
    let mut end = bytes[bytes.len() - 22 - 20 - 56..].to_vec();
    let hole: u64 = 1 << 40;
    for (field, value) in [(40, hole), (48, 0), (56 + 8, hole)] {
        end[field..field + 8].copy_from_slice(&value.to_le_bytes());
    }
    let file = File::options().write(true).open(bad.file("mp_rank_00_000")).unwrap();
    file.write_all_at(&end, hole).unwrap();
    bad.refused(SOURCE, &["mp_rank_00_000/model_optim_rng.pt", "not a zip archive"]);
}

#[test]
fn pickles_that_are_deep_cyclic_or_vast() {
    let name = "mp_rank_00_000/model_optim_rng.pt";
    let mut deep = b"\x80\x02".to_vec();
    deep.extend(vec![b']'; 200_000]);
    deep.extend(vec![b'a'; 199_999]);
    deep.push(b'.');
    with_pickle(&deep).refused(SOURCE, &[name, "deep"]);
    with_pickle(b"\x80\x02]q\x00h\x00a.").refused(SOURCE, &[name, "contains itself"]);
    // Each tuple holds the one before twice: 2^60 values in a few hundred bytes.
    let mut vast = b"\x80\x02)q\x000".to_vec();
    for memo in 0..60u8 {
        vast.extend([b'h', memo, b'h', memo, 0x86, b'q', memo + 1, b'0']);
    }
    vast.extend([b'h', 60, b'.']);
    with_pickle(&vast).refused(SOURCE, &[name, "more than"]);
    // A text of 4 GiB in a file of nothing.
    with_pickle(b"\x80\x02X\xff\xff\xff\xff.").refused(SOURCE, &[name, "cut short"]);
    with_pickle(b"\x80\x02.").refused(SOURCE, &[name]);
    with_pickle(b"").refused(SOURCE, &[name]);
}

#[test]
fn nothing_in_a_pickle_is_called() {
    let marker = tempfile::tempdir().unwrap();
    let path = marker.path().join("owned");
    let text = Value::str(&format!("touch {}", path.display()));
    let mut checkpoint = Checkpoint::small();
    for file in &mut checkpoint.files {
        file.arg("payload", call("posix", "system", vec![text.clone()]));
    }
    Bad::of(&checkpoint).accepted(&[]);
    assert!(!path.exists());
}

#[test]
fn a_version_record_of_another_time() {
    let mut bytes = small_bytes("mp_rank_00_000");
    let at = bytes.windows(15).position(|window| window == b"archive/version").unwrap();
    let content = (at..).find(|at| &bytes[*at..*at + 2] == b"3\n").unwrap();
    bytes[content] = b'x';
    Bad::with_file("mp_rank_00_000", &bytes).refused(SOURCE, &["mp_rank_00_000", "version"]);
    let mut bytes = small_bytes("mp_rank_00_000");
    let at = bytes.windows(6).position(|window| window == b"little").unwrap();
    bytes[at..at + 6].copy_from_slice(b"bigbig");
    Bad::with_file("mp_rank_00_000", &bytes).refused(SOURCE, &["mp_rank_00_000", "byte order"]);
}

// Tensors that are not what they should be.

/// A rank file that holds one tensor pickled as `make` says, in place of its embedding.
fn with_tensor(make: impl Fn(&mut Storages) -> Value) -> Bad {
    let checkpoint = Checkpoint::small_as(1, &[4]);
    let bytes = checkpoint.with_embedding("mp_rank_00", make);
    let bad = Bad::of(&checkpoint);
    fs::write(bad.file("mp_rank_00"), bytes).unwrap();
    bad
}

#[test]
fn a_tensor_outside_its_storage() {
    let words =
        &["mp_rank_00/model_optim_rng.pt", "embedding.word_embeddings.weight", "does not fit storage 0"];
    for (offset, shape, strides) in [
        (1, vec![12, 6], vec![6, 1]),
        (0, vec![13, 6], vec![6, 1]),
        (0, vec![12, 6], vec![7, 1]),
        (0, vec![1 << 62, 6], vec![6, 1]),
        (1 << 62, vec![12, 6], vec![6, 1]),
        (0, vec![12, 6], vec![1 << 62, 1 << 62]),
        (0, vec![1 << 40, 1 << 40], vec![0, 0]),
    ] {
        let bad = with_tensor(|storages| {
            let number = storages.add(vec![0; 12 * 6 * 4]);
            storages.tensor_at(Dtype::Float32, number, 12 * 6 * 4, offset, &shape, &strides)
        });
        bad.refused(SOURCE, words);
    }
}

#[test]
fn a_tensor_without_elements_may_not_reach_anywhere() {
    for (shape, strides, offset) in [
        (vec![12, 0], vec![1 << 62, 1 << 62], 1 << 62),
        (vec![0, 6], vec![1 << 62, 1 << 62], 1 << 62),
        (vec![i64::MAX as u64, 0], vec![i64::MAX as u64, 1], 0),
    ] {
        let bad = with_tensor(|storages| {
            let number = storages.add(Vec::new());
            storages.tensor_at(Dtype::Float32, number, 0, offset, &shape, &strides)
        });
        bad.refused(SOURCE, &["mp_rank_00/model_optim_rng.pt"]);
    }
}

#[test]
fn an_expanded_tensor_is_read_as_what_it_shows() {
    // All rows are the one row stored (stride 0): legal, and what torch would show.
    let bad = with_tensor(|storages| {
        let number = storages.add((0..24).collect());
        storages.tensor_at(Dtype::Float32, number, 24, 0, &[12, 6], &[0, 1])
    });
    let ranks = View::of(&bad.src(), &Cut::new(2, &[4]), Fill::Zero, None).unwrap().ranks();
    let embedding = &ranks[0].1.tensors[0].1;
    assert_eq!(embedding.shape, [8, 6]);
    assert_eq!(embedding.bytes, (0..24).collect::<Vec<u8>>().repeat(8));
}

#[test]
fn a_storage_of_another_size_than_its_record() {
    let short = with_tensor(|storages| {
        let number = storages.add(vec![0; 100]);
        storages.tensor_at(Dtype::Float32, number, 12 * 6 * 4, 0, &[12, 6], &[6, 1])
    });
    short.refused(SOURCE, &["mp_rank_00/model_optim_rng.pt", "data/0", "100 bytes"]);
    let missing = with_tensor(|storages| storages.tensor_at(Dtype::Float32, 999, 288, 0, &[12, 6], &[6, 1]));
    missing.refused(SOURCE, &["mp_rank_00/model_optim_rng.pt", "data/999"]);
}

#[test]
fn a_tensor_of_a_kind_without_plain_elements() {
    let quantized = with_tensor(|storages| {
        let number = storages.add(vec![0; 288]);
        let plain = storages.tensor_at(Dtype::Float32, number, 288, 0, &[12, 6], &[6, 1]);
        let Value::Object(object) = &plain else { panic!() };
        let Value::Tuple(args) = &object.args else { panic!() };
        call("torch._utils", "_rebuild_qtensor", args.to_vec())
    });
    quantized.refused(SOURCE, &["mp_rank_00/model_optim_rng.pt", "embedding.word_embeddings.weight"]);
    let number = with_tensor(|_| Value::Int(7));
    number.refused(
        SOURCE,
        &["mp_rank_00/model_optim_rng.pt", "embedding.word_embeddings.weight", "expected a tensor"],
    );
    let flat = with_tensor(|storages| {
        let array = Array { dtype: Dtype::Float32, shape: vec![72], bytes: vec![0; 288] };
        storages.tensor(&array, Keep::Own)
    });
    flat.refused(
        SOURCE,
        &["mp_rank_00/model_optim_rng.pt", "embedding.word_embeddings.weight", "[vocabulary, hidden]"],
    );
}

#[test]
fn ranks_that_disagree_in_shape() {
    let mut checkpoint = Checkpoint::small();
    let (_, norm) = checkpoint.file("mp_rank_01_000").tensor("1.input_layernorm.weight");
    *norm = norm.rows(0, 5);
    let words = &["mp_rank_01_000/model_optim_rng.pt", "decoder.layers.1.input_layernorm.weight", "5", "6"];
    Bad::of(&checkpoint).refused(SOURCE, words);
    let mut checkpoint = Checkpoint::small();
    let (_, fc2) = checkpoint.file("mp_rank_01_000").tensor("1.mlp.linear_fc2.weight");
    *fc2 = fc2.columns(0, 3);
    let words = &["mp_rank_01_000/model_optim_rng.pt", "decoder.layers.1.mlp.linear_fc2.weight", "6", "8"];
    Bad::of(&checkpoint).refused(SOURCE, words);
}

#[test]
fn ranks_that_disagree_in_dtype() {
    let mut checkpoint = Checkpoint::small();
    let (_, proj) = checkpoint.file("mp_rank_01_001").tensor("0.self_attention.linear_proj.weight");
    proj.dtype = Dtype::Int32;
    let words = &["mp_rank_01_001", "decoder.layers.0.self_attention.linear_proj.weight", "int32", "float32"];
    Bad::of(&checkpoint).refused(SOURCE, words);
}

#[test]
fn an_unknown_tensor() {
    let mut checkpoint = Checkpoint::small();
    let file = checkpoint.file("mp_rank_01_001");
    let copy = file.tensors[0].1.clone();
    file.tensors.push(("decoder.layers.0.mlp.surprise.weight".into(), copy));
    let words = &["mp_rank_01_001", "decoder.layers.0.mlp.surprise.weight", "megatron-core", "--family"];
    Bad::of(&checkpoint).refused(UNSUPPORTED, words);
    let mut checkpoint = Checkpoint::small();
    for file in &mut checkpoint.files {
        for (index, (path, _)) in file.tensors.iter_mut().enumerate() {
            *path = format!("transformer.h.{index}.w");
        }
    }
    Bad::of(&checkpoint)
        .refused(UNSUPPORTED, &["mp_rank_00_000", "transformer.h.0.w", "megatron-legacy", "--family"]);
}

#[test]
fn stages_that_do_not_add_up() {
    let checkpoint = Checkpoint::small().arg("num_layers", &Value::Int(5));
    Bad::of(&checkpoint).refused(SOURCE, &["2,2", "4 in all", "num_layers is 5"]);
}

#[test]
fn a_gap_in_the_layers() {
    let mut checkpoint = Checkpoint::small();
    for dir in ["mp_rank_00_001", "mp_rank_01_001"] {
        for (path, _) in &mut checkpoint.file(dir).tensors {
            *path = path.replace("layers.1.", "layers.2.");
        }
    }
    Bad::of(&checkpoint).refused(SOURCE, &["mp_rank_00_001", "stage 1", "no layer 1"]);
    let mut checkpoint = Checkpoint::small();
    for file in &mut checkpoint.files {
        for (path, _) in &mut file.tensors {
            *path = path.replace("layers.1.", "layers.4294967295.");
        }
    }
    Bad::of(&checkpoint).refused(SOURCE, &["mp_rank_00_000", "no layer 1"]);
}

#[test]
fn gates_that_args_and_tensors_disagree_about() {
    for gated in [true, false] {
        let config = Config { gated, ..Config::default() };
        let checkpoint = Checkpoint::new(&config, &Cut::new(2, &[4])).arg("swiglu", &Value::Bool(!gated));
        Bad::of(&checkpoint).refused(SOURCE, &["mp_rank_00/model_optim_rng.pt", "mlp.linear_fc", "ffn"]);
    }
}

// Args that cannot be.

#[test]
fn old_rows_of_the_fused_attention() {
    for version in [Some(Value::Float(1.0)), Some(Value::Int(0)), None, Some(Value::Float(f64::NAN))] {
        let mut checkpoint = Checkpoint::small();
        checkpoint.files.iter_mut().for_each(|file| file.version = version.clone());
        Bad::of(&checkpoint).refused(UNSUPPORTED, &["mp_rank_00_000", "checkpoint_version"]);
    }
    let mut checkpoint = Checkpoint::small();
    checkpoint.files[1].version = Some(Value::str("3.0"));
    Bad::of(&checkpoint)
        .refused(SOURCE, &["model_optim_rng.pt", "'checkpoint_version' is a str, not a number"]);
}

#[test]
fn models_of_other_kinds_are_named_as_such() {
    for (field, value, word) in [
        ("heterogeneous_layers_config_path", Value::str("layers.json"), "differ from each other"),
        ("moe_latent_size", Value::Int(8), "projection"),
        ("mlp_glu_interleave_size", Value::Int(32), "interleaved"),
    ] {
        let bad = Bad::of(&Checkpoint::small().arg(field, &value));
        bad.refused(UNSUPPORTED, &["mp_rank_00_000/model_optim_rng.pt", field, word]);
    }
    let experts = Bad::of(&Checkpoint::small().arg("num_experts", &Value::Int(8)));
    experts.refused(SOURCE, &["mp_rank_00_000", "mlp.linear_fc1.weight", "layer 0", "has experts"]);
    let many = Bad::of(&Checkpoint::small().arg("num_experts", &Value::List(vec![Value::Int(8)].into())));
    many.refused(UNSUPPORTED, &["number of experts", "num_experts"]);
    let expert_ranks = Bad::of(&Checkpoint::small().arg("expert_model_parallel_size", &Value::Int(2)));
    expert_ranks.refused(SOURCE, &["mp_rank_00_000", "expert ranks"]);
}

/// A small model with four experts in its second and fourth layer, as TP2 PP2 EP2.
fn with_experts() -> Checkpoint {
    let moe = Moe { experts: 4, ffn: 8, every: 2, shared: None, grouped: false, ..Moe::default() };
    let config = Config { moe: Some(moe), ..Config::default() };
    Checkpoint::new(&config, &Cut::new(2, &[2, 2]).experts(2, 2))
}

#[test]
fn experts_that_are_not_all_there() {
    let lost = |dir: &str, end: &str| {
        let mut checkpoint = with_experts();
        for file in checkpoint.files.iter_mut().filter(|file| file.dir.ends_with(dir)) {
            file.tensors.retain(|(path, _)| !path.ends_with(end));
        }
        Bad::of(&checkpoint)
    };
    lost("_001_001", "layers.0.mlp.experts.local_experts.1.linear_fc2.weight")
        .refused(SOURCE, &["layer 2", "mlp.experts.3.down.weight", "_001_001"]);
    lost("_000", "layers.0.mlp.router.weight").accepted(&[]);
    lost("", "router.weight").refused(SOURCE, &["mlp.router.weight"]);
    let bad = Bad::of(&with_experts());
    for tp in ["00", "01"] {
        fs::remove_dir_all(bad.src().join(ITERATION).join(format!("mp_rank_{tp}_000_001"))).unwrap();
    }
    bad.refused(SOURCE, &["layer 0", "mlp.experts.2", "missing: mp_rank_00_000_001", "mp_rank_01_000_001"]);
}

#[test]
fn experts_that_are_not_where_args_say() {
    let said = |field: &str, value: Value| Bad::of(&with_experts().arg(field, &value));
    said("num_experts", Value::Int(3)).refused(SOURCE, &["3 experts on 2 expert ranks"]);
    said("num_experts", Value::Int(2))
        .refused(SOURCE, &["router.weight", "experts dimension is 4", "2 by args"]);
    let mut renamed = with_experts();
    let tensor = renamed.file("mp_rank_00_000_001").tensor("local_experts.1.linear_fc1.weight");
    tensor.0 = tensor.0.replace("local_experts.1", "local_experts.2");
    Bad::of(&renamed).refused(SOURCE, &["local_experts.2", "each rank has 2"]);
    said("num_experts", Value::Int(8))
        .refused(SOURCE, &["router.weight", "experts dimension is 4", "8 by args"]);
    said("num_experts", Value::Int(1 << 40)).refused(UNSUPPORTED, &["number of experts"]);
    said("moe_layer_freq", Value::Int(1))
        .refused(SOURCE, &["mlp.linear_fc1.weight", "layer 1", "has experts"]);
    said("moe_layer_freq", Value::List(vec![Value::Int(1); 2].into()))
        .refused(SOURCE, &["layer 1", "has experts"]);
    said("moe_layer_freq", Value::str("x")).refused(UNSUPPORTED, &["layers with experts", "moe_layer_freq"]);
    said("expert_tensor_parallel_size", Value::Int(3)).refused(SOURCE, &["size 3", "overwrite"]);
    said("expert_tensor_parallel_size", Value::Int(1))
        .refused(SOURCE, &["linear_fc1", "expert_ffn dimension is 4", "8 by args"]);
}

#[test]
fn virtual_pipeline_stages() {
    let mut checkpoint = Checkpoint::small();
    checkpoint.files[1].model = "model0".into();
    checkpoint = checkpoint.arg("virtual_pipeline_model_parallel_size", &Value::Int(2));
    Bad::of(&checkpoint).refused(SOURCE, &["mp_rank_00_000/model_optim_rng.pt", "says 2 virtual stages"]);
    let mut checkpoint = Checkpoint::small();
    checkpoint.files.iter_mut().for_each(|file| file.model = "module".into());
    Bad::of(&checkpoint).refused(SOURCE, &["mp_rank_00_000/model_optim_rng.pt", "'model'"]);
    let mut checkpoint = Checkpoint::small();
    checkpoint.files[1].model = "model1".into();
    Bad::of(&checkpoint).refused(SOURCE, &["model_optim_rng.pt", "are model1; expected", "numbered from 0"]);
}

/// A pickle has the model once and names it as often as it likes; each name is a stage on every pipeline rank that args say.
#[test]
fn stages_that_no_model_has() {
    let parts = 400;
    let checkpoint = Checkpoint::small()
        .arg("pipeline_model_parallel_size", &Value::Int(1 << 15))
        .arg("virtual_pipeline_model_parallel_size", &Value::Int(parts));
    let bad = Bad::of(&checkpoint);
    for draft in &checkpoint.files {
        let (tree, storages) = open_pt(&checkpoint.bytes(draft));
        let (models, mut rest): (Vec<_>, Vec<_>) =
            tree.items().unwrap().iter().cloned().partition(|(key, _)| key.as_str() == Some("model"));
        let part = |n| (Value::str(&format!("model{n}")), models[0].1.clone());
        rest.extend((0..parts).map(part));
        let encoded = encode_pickle(&Value::Dict(rest.into())).unwrap();
        let contents: Vec<_> =
            encoded.storages.iter().map(|storage| storages[&*storage.key].clone()).collect();
        fs::write(bad.file(&draft.dir), pt_of(&encoded.pickle, &contents)).unwrap();
    }
    bad.refused(SOURCE, &["400 virtual stages on 32768 pipeline ranks"]);
}

#[test]
fn other_kinds_of_checkpoint_are_named_as_such() {
    let bad = Bad::empty();
    fs::write(bad.src().join("metadata.json"), "{}").unwrap();
    bad.refused(UNSUPPORTED, &["src", "torch_dist"]);
    let bad = Bad::empty();
    fs::create_dir(bad.src().join("iter_0000005")).unwrap();
    fs::write(bad.src().join("iter_0000005/.metadata"), "").unwrap();
    fs::write(bad.src().join("latest_checkpointed_iteration.txt"), "5").unwrap();
    bad.refused(UNSUPPORTED, &["iter_0000005", "torch_dist"]);
}

/// Numbers that a field of sizes may not hold.
fn hostile() -> Vec<Value> {
    let long = Value::Long([0, 0, 0, 0, 0, 0, 0, 0, 1].as_slice().into());
    vec![
        Value::Int(0),
        Value::Int(-1),
        Value::Int(1 << 62),
        Value::Int(i64::MIN),
        long,
        Value::None,
        Value::str("4"),
        Value::Float(4.0),
        Value::List(vec![Value::Int(4)].into()),
    ]
}

#[test]
fn sizes_in_args_that_cannot_be() {
    for field in ["num_attention_heads", "num_layers", "num_query_groups"] {
        for value in hostile() {
            Bad::of(&Checkpoint::small().arg(field, &value)).refused_any(&["mp_rank_00_000"]);
        }
        Bad::of(&Checkpoint::small().without_arg(field)).refused_any(&["mp_rank_00_000", field]);
    }
    // Heads that the rows do not divide by.
    let bad = Bad::of(&Checkpoint::small().arg("num_query_groups", &Value::Int(3)));
    bad.refused_any(&["mp_rank_00_000"]);
}

#[test]
fn parallel_sizes_in_args_that_cannot_be() {
    for field in ["tensor_model_parallel_size", "pipeline_model_parallel_size"] {
        for value in hostile().into_iter().filter(|value| !matches!(value, Value::None)) {
            Bad::of(&Checkpoint::small().arg(field, &value)).refused_any(&["src", field]);
        }
        for many in [1 << 10, 1 << 19, 1 << 21, u32::MAX.into()] {
            Bad::of(&Checkpoint::small().arg(field, &Value::Int(many))).refused_any(&[]);
        }
    }
}

impl Bad {
    /// Refused as a source or as a kind of source, whichever it is.
    #[track_caller]
    fn refused_any(&self, words: &[&str]) {
        let said = ckpt!("inspect", self.src());
        assert!([SOURCE, UNSUPPORTED].contains(&said.code), "{} {}{}", said.code, said.out, said.err);
        self.refused(said.code, words);
    }
}

#[test]
fn replicas_that_no_cluster_has_do_not_matter() {
    for field in ["context_parallel_size", "data_parallel_size"] {
        for value in hostile() {
            Bad::of(&Checkpoint::small().arg(field, &value)).accepted(&[]);
        }
    }
}

#[test]
fn args_that_are_missing() {
    let mut checkpoint = Checkpoint::small();
    checkpoint.files.iter_mut().for_each(|file| file.args.clear());
    Bad::of(&checkpoint).refused(UNSUPPORTED, &["mp_rank_00_000", "untie_embeddings"]);
    let untied = ("untie_embeddings_and_output_weights".to_owned(), Value::Bool(true));
    checkpoint.files.iter_mut().for_each(|file| file.args.push(untied.clone()));
    Bad::of(&checkpoint).refused(UNSUPPORTED, &["mp_rank_00_000", "num_"]);
}

#[test]
fn ranks_of_different_runs() {
    let mut checkpoint = Checkpoint::small();
    checkpoint.file("mp_rank_01_001").arg("tensor_model_parallel_size", Value::Int(4));
    Bad::of(&checkpoint).refused(SOURCE, &["mp_rank_01_001", "tensor_model_parallel_size", "4", "2"]);
    let mut checkpoint = Checkpoint::small();
    checkpoint.file("mp_rank_01_000").arg("num_attention_heads", Value::Int(2));
    Bad::of(&checkpoint).refused(SOURCE, &["mp_rank_01_000", "num_attention_heads", "2", "4"]);
}

#[test]
fn paddings_that_cannot_be() {
    for value in hostile().into_iter().filter(|value| !matches!(value, Value::Int(1..))) {
        let bad = Bad::of(&Checkpoint::small().arg("make_vocab_size_divisible_by", &value));
        // The source's own size needs no padding rule; another does.
        bad.refused_with(&["--tp", "1"], LAYOUT, &["make_vocab_size_divisible_by"]);
        bad.refused_with(&["--tp", "1", "--vocab-size", "11"], LAYOUT, &["make_vocab_size_divisible_by"]);
        bad.accepted(&[]);
    }
    for huge in [1 << 40, 1 << 58, 1 << 62] {
        let bad = Bad::of(&Checkpoint::small().arg("make_vocab_size_divisible_by", &Value::Int(huge)));
        bad.refused_with(&["--tp", "1"], LAYOUT, &["padded vocabulary"]);
        for tp in ["1", "4"] {
            let args = ["materialize".into(), bad.src(), bad.dst(), "--tp".into(), tp.into()];
            let given = [PathBuf::from("--vocab-size"), "11".into()];
            let said = program(&args.iter().chain(&given).collect::<Vec<_>>());
            assert!([LAYOUT, DESTINATION].contains(&said.code), "{huge}: {} {}", said.code, said.err);
            assert!(!said.err.contains("panicked"), "{}", said.err);
            assert!(!bad.dst().exists());
        }
    }
}

// Trackers and folders.

#[test]
fn trackers_that_lead_nowhere() {
    let bad = Bad::of(&Checkpoint::small());
    let tracker = bad.src().join("latest_checkpointed_iteration.txt");
    fs::write(&tracker, "200").unwrap();
    bad.refused(SOURCE, &["tracker", "iter_0000200", "iter_0000100"]);
    for text in ["", "-5", "1e3", "releases", "99999999999999999999999", "\u{1F980}"] {
        fs::write(&tracker, text).unwrap();
        bad.refused(SOURCE, &["latest_checkpointed_iteration.txt", "expected an iteration number"]);
    }
    fs::write(&tracker, [0xff, 0xfe, 0x31]).unwrap();
    bad.refused(SOURCE, &["latest_checkpointed_iteration.txt", "expected an iteration number"]);
    fs::write(&tracker, "release").unwrap();
    bad.refused(SOURCE, &["release", "not there"]);
    // A tracker of a terabyte is not read.
    File::create(&tracker).unwrap().set_len(1 << 40).unwrap();
    bad.refused(SOURCE, &["latest_checkpointed_iteration.txt"]);
    fs::remove_file(&tracker).unwrap();
    bad.refused(SOURCE, &["latest_checkpointed_iteration.txt", "--iteration", "iter_0000100"]);
    bad.refused_with(&["--iteration", "7"], SOURCE, &["--iteration", "iter_0000007", "iter_0000100"]);
    let pipe = Command::new("mkfifo").arg(&tracker).status().unwrap();
    assert!(pipe.success());
    bad.refused(SOURCE, &["latest_checkpointed_iteration.txt"]);
    fs::remove_file(&tracker).unwrap();
    fs::create_dir(&tracker).unwrap();
    bad.refused(SOURCE, &["latest_checkpointed_iteration.txt"]);
}

#[test]
fn rank_directories_left_over_from_another_run() {
    let bad = Bad::of(&Checkpoint::small());
    Checkpoint::small_as(4, &[2, 2]).write(&bad.path("other"));
    let from = bad.path("other").join(ITERATION).join("mp_rank_03_001");
    fs::rename(from, bad.src().join(ITERATION).join("mp_rank_03_001")).unwrap();
    bad.refused(SOURCE, &[ITERATION, "TP 4", "say TP 2", "leftovers"]);
    let bad = Bad::of(&Checkpoint::small());
    Checkpoint::small_as(1, &[4]).write(&bad.path("other"));
    let from = bad.path("other").join(ITERATION).join("mp_rank_00");
    fs::rename(from, bad.src().join(ITERATION).join("mp_rank_00")).unwrap();
    bad.refused(SOURCE, &[ITERATION, "leftovers"]);
}

#[test]
fn copies_of_rank_directories_are_no_ranks() {
    let bad = Bad::of(&Checkpoint::small_as(2, &[4]));
    for copy in ["mp_rank_001", "mp_rank_1", "mp_rank_01_backup"] {
        let to = bad.file(copy);
        fs::create_dir(to.parent().unwrap()).unwrap();
        fs::write(to, "not read").unwrap();
    }
    bad.accepted(&[]);
}

#[test]
fn something_else_in_place_of_a_rank_file() {
    let bad = Bad::of(&Checkpoint::small());
    let file = bad.file("mp_rank_01_000");
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    bad.refused(SOURCE, &["mp_rank_01_000/model_optim_rng.pt", "directory"]);
    fs::remove_dir(&file).unwrap();
    assert!(Command::new("mkfifo").arg(&file).status().unwrap().success());
    bad.refused(SOURCE, &["mp_rank_01_000/model_optim_rng.pt", "pipe"]);
    fs::remove_file(&file).unwrap();
    symlink("/nowhere", &file).unwrap();
    bad.refused(SOURCE, &["mp_rank_01_000/model_optim_rng.pt"]);
}

#[test]
fn a_file_that_may_not_be_read() {
    let bad = Bad::of(&Checkpoint::small());
    let file = bad.file("mp_rank_01_000");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o000)).unwrap();
    if File::open(&file).is_ok() {
        return; // root reads everything
    }
    bad.refused(SOURCE, &["mp_rank_01_000/model_optim_rng.pt", "permission denied"]);
}

#[test]
fn symbolic_links_to_rank_directories_work() {
    let bad = Bad::of(&Checkpoint::small());
    fs::rename(bad.src().join(ITERATION), bad.path("elsewhere")).unwrap();
    fs::create_dir(bad.src().join(ITERATION)).unwrap();
    for dir in ["mp_rank_00_000", "mp_rank_01_000", "mp_rank_00_001", "mp_rank_01_001"] {
        symlink(bad.path("elsewhere").join(dir), bad.src().join(ITERATION).join(dir)).unwrap();
    }
    bad.accepted(&[]);
    // What the links lead to is the source too.
    let before = snapshot(&bad.path("elsewhere"));
    for target in ["elsewhere", "elsewhere/mp_rank_00_001", "elsewhere/mp_rank_00_001/new"] {
        let said = ckpt!("materialize", bad.src(), bad.path(target), "--overwrite");
        said.refused(DESTINATION, &[target, "source"]);
        assert_eq!(snapshot(&bad.path("elsewhere")), before);
    }
}

// Destinations.

#[test]
fn the_source_is_never_the_destination() {
    let bad = Bad::of(&Checkpoint::small());
    let before = snapshot(bad.dir.path());
    symlink(bad.src(), bad.path("link")).unwrap();
    let iteration = bad.src().join(ITERATION);
    for (source, target) in [
        (bad.src(), bad.src()),
        (bad.src(), bad.path("src/new")),
        (bad.src(), bad.path("src/new/deep/er")),
        (bad.src(), bad.path("src/../src")),
        (bad.src(), bad.path("link")),
        (bad.src(), bad.path("link/new")),
        (bad.src(), bad.dir.path().to_owned()),
        (iteration.clone(), iteration.clone()),
        (iteration.clone(), bad.src()),
        (iteration.clone(), iteration.join("mp_rank_00_000")),
        (bad.path("link"), bad.src()),
    ] {
        let said = ckpt!("materialize", source, target, "--overwrite");
        said.refused(DESTINATION, &["source"]);
        let mut now = snapshot(bad.dir.path());
        now.remove(&bad.path("link"));
        let changed: Vec<_> = now.keys().filter(|path| now.get(*path) != before.get(*path)).collect();
        // The link itself is new in the folder.
        assert!(changed.iter().all(|path| *path == bad.dir.path()), "{target:?}: {changed:?}");
    }
}

#[test]
fn a_destination_that_is_not_empty() {
    let bad = Bad::of(&Checkpoint::small());
    fs::create_dir(bad.dst()).unwrap();
    fs::write(bad.dst().join("precious"), "x").unwrap();
    let before = snapshot(bad.dir.path());
    ckpt!("materialize", bad.src(), bad.dst()).refused(DESTINATION, &["out/dst", "--overwrite"]);
    assert_eq!(snapshot(bad.dir.path()), before);
    // --overwrite replaces a checkpoint, and deletes nothing else.
    ckpt!("materialize", bad.src(), bad.dst(), "--overwrite").refused(DESTINATION, &["out/dst", "precious"]);
    assert_eq!(snapshot(bad.dir.path()), before);
    fs::remove_file(bad.dst().join("precious")).unwrap();
    bad.accepted(&[]);
    ckpt!("materialize", bad.src(), bad.dst(), "--overwrite", "--tp", "1").ok();
    let names = |path: &Path| {
        let mut names: Vec<_> = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(names(&bad.dst()), [ITERATION, "latest_checkpointed_iteration.txt"]);
    assert_eq!(names(&bad.dst().join(ITERATION)), ["mp_rank_00_000", "mp_rank_00_001"]);
    assert_eq!(names(&bad.path("out")), ["dst"]);
    // An empty folder needs no flag.
    fs::remove_dir_all(bad.dst()).unwrap();
    fs::create_dir(bad.dst()).unwrap();
    bad.accepted(&[]);
}

#[test]
fn destinations_that_are_no_directories() {
    let bad = Bad::of(&Checkpoint::small());
    fs::write(bad.dst(), "x").unwrap();
    let before = snapshot(bad.dir.path());
    for flags in [&[][..], &["--overwrite"]] {
        for target in [bad.dst(), bad.dst().join("below")] {
            let mut args = vec!["materialize".into(), bad.src(), target];
            args.extend(flags.iter().map(Into::into));
            program(&args).refused(DESTINATION, &["out/dst"]);
            assert_eq!(snapshot(bad.dir.path()), before);
        }
    }
    ckpt!("materialize", bad.src(), "/").refused(DESTINATION, &[]);
}

#[test]
fn a_destination_behind_a_symbolic_link() {
    let bad = Bad::of(&Checkpoint::small());
    fs::create_dir(bad.path("real")).unwrap();
    symlink(bad.path("real"), bad.dst()).unwrap();
    bad.accepted(&[]);
    assert!(bad.path("real").join(ITERATION).join("mp_rank_01_001/model_optim_rng.pt").exists());
    assert!(fs::symlink_metadata(bad.dst()).unwrap().is_symlink());
    symlink(bad.path("nowhere/at/all"), bad.path("out/dangling")).unwrap();
    let before = snapshot(bad.dir.path());
    let said = ckpt!("materialize", bad.src(), bad.path("out/dangling"));
    said.refused(DESTINATION, &["out/dangling"]);
    assert_eq!(snapshot(bad.dir.path()), before);
}

#[test]
fn folders_that_were_made_for_a_destination_go_with_it() {
    let bad = Bad::of(&Checkpoint::small());
    let said = ckpt!("materialize", bad.src(), bad.path("out/a/b/c"), "--tp-ranks", "9");
    said.refused(2, &["9"]);
    assert!(!bad.path("out/a").exists());
    ckpt!("materialize", bad.src(), bad.path("out/a/b/c")).ok();
    assert!(bad.path("out/a/b/c").join(ITERATION).is_dir());
}

#[test]
fn what_killed_runs_left_behind_is_removed() {
    let bad = Bad::of(&Checkpoint::small());
    let [abandoned, living, other] =
        [".dst.ckpt-fs-01", ".dst.ckpt-fs-02", ".other.ckpt-fs-03"].map(|name| bad.path("out").join(name));
    for path in [&abandoned, &living, &other] {
        fs::create_dir(path).unwrap();
        fs::write(path.join("part"), "x").unwrap();
    }
    // A run that is alive holds a lock, on whatever machine it is.
    let lock = File::open(&living).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive).unwrap();
    bad.accepted(&[]);
    assert!(!abandoned.exists() && living.exists() && other.exists());
}

/// Waits until a run has begun to write its first rank file; returns its staging directory.
fn wait_for_staging(out: &Path, child: &mut Child) -> PathBuf {
    loop {
        assert!(child.try_wait().unwrap().is_none(), "it ended before it was stopped");
        let begun = fs::read_dir(out).unwrap().map(|entry| entry.unwrap().path()).next();
        match begun {
            Some(staging) if rank_file(&staging, "mp_rank_00").exists() => return staging,
            _ => std::thread::yield_now(),
        }
    }
}

/// A source of `rows` x 4 KiB as sparse files: large, and written in no time.
fn large(root: &Path, rows: u64) {
    let config = Config { layers: 1, hidden: 1024, vocab: 4, gated: false, ..Config::default() };
    let checkpoint = Checkpoint::new(&config, &Cut::new(1, &[1])).arg("vocab_size", &Value::Int(rows as i64));
    let file = &checkpoint.files[0];
    let mut storages = Storages::default();
    let mut leaves = Vec::new();
    let mut placeholders = Vec::new();
    for (path, array) in &file.tensors {
        let is_vocabulary = path.contains("word_embeddings") || path.starts_with("output_layer");
        if is_vocabulary {
            let number = storages.add(Vec::new());
            placeholders.push(number);
            let tensor =
                storages.tensor_at(Dtype::Float32, number, rows * 4096, 0, &[rows, 1024], &[1024, 1]);
            leaves.push((path.clone(), tensor));
        } else {
            leaves.push((path.clone(), storages.tensor(array, Keep::Own)));
        }
    }
    let tree = dict(vec![
        ("args".into(), crate::common::namespace(&file.args)),
        ("checkpoint_version".into(), Value::Float(3.0)),
        ("iteration".into(), Value::Int(100)),
        ("model".into(), dict(leaves)),
    ]);
    checkpoint.write(root);
    let sizes = |number: usize| {
        if placeholders.contains(&number) { rows * 4096 } else { storages.contents[number].len() as u64 }
    };
    let out = File::create(rank_file(root, "mp_rank_00")).unwrap();
    crate::common::write_sparse(&out, &tree, &storages.contents, &sizes);
}

#[test]
fn a_killed_run_leaves_no_destination() {
    let bad = Bad::empty();
    large(&bad.src(), 1 << 16);
    let mut child = Command::new(PROGRAM)
        .args(["materialize".into(), bad.src(), bad.dst()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // As soon as it has begun to write, and long before 512 MiB are on disk.
    let staging = wait_for_staging(&bad.path("out"), &mut child);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!bad.dst().exists() && staging.exists());
    // The next run, of something small, cleans up.
    fs::remove_dir_all(bad.src()).unwrap();
    Checkpoint::small().write(&bad.src());
    bad.accepted(&[]);
    assert!(!staging.exists() && bad.dst().exists());
}

#[test]
fn an_interrupted_run_leaves_nothing() {
    let bad = Bad::empty();
    large(&bad.src(), 1 << 16);
    let mut child = Command::new(PROGRAM)
        .args(["materialize".into(), bad.src(), bad.dst()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_for_staging(&bad.path("out"), &mut child);
    let pid = rustix::process::Pid::from_raw(child.id() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    Said::of(child.wait_with_output().unwrap()).refused(130, &["nothing was written"]);
    assert_eq!(fs::read_dir(bad.path("out")).unwrap().count(), 0);
}

/// A small file system in memory, where we may mount one.
struct SmallDisk {
    path: PathBuf,
}

impl SmallDisk {
    fn new(path: PathBuf, size: &str) -> Option<Self> {
        fs::create_dir(&path).unwrap();
        let options = format!("size={size}");
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(&path).output();
        let disk = mount.is_ok_and(|output| output.status.success()).then_some(Self { path });
        if disk.is_none() {
            skip("no small file system can be mounted");
        }
        disk
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.path).status();
    }
}

#[test]
fn a_full_disk() {
    let bad = Bad::of(&Checkpoint::small());
    let Some(disk) = SmallDisk::new(bad.path("disk"), "16k") else { return };
    let said = ckpt!("materialize", bad.src(), disk.path.join("dst"));
    said.refused(DESTINATION, &["disk/dst", "bytes", "free"]);
    assert_eq!(fs::read_dir(&disk.path).unwrap().count(), 0);
    let said = ckpt!("materialize", bad.src(), disk.path.join("a/b/dst"));
    said.refused(DESTINATION, &["disk/a/b/dst", "free"]);
    assert_eq!(fs::read_dir(&disk.path).unwrap().count(), 0);
}

#[test]
fn a_disk_that_fills_up_while_we_write() {
    let bad = Bad::of(&Checkpoint::small());
    let size: u64 = ["mp_rank_00_000", "mp_rank_01_000", "mp_rank_00_001", "mp_rank_01_001"]
        .iter()
        .map(|dir| fs::metadata(bad.file(dir)).unwrap().len())
        .sum();
    // Room for the bytes, but not for what the last page of every file takes.
    let Some(disk) = SmallDisk::new(bad.path("disk"), &(size.next_multiple_of(4096)).to_string()) else {
        return;
    };
    let said = ckpt!("materialize", bad.src(), disk.path.join("dst"));
    said.refused(DESTINATION, &["disk/", "No space left"]);
    assert_eq!(fs::read_dir(&disk.path).unwrap().count(), 0);
}

#[test]
fn a_mount_point_as_destination_is_refused_before_anything_is_written() {
    let bad = Bad::of(&Checkpoint::small());
    let Some(disk) = SmallDisk::new(bad.path("disk"), "10m") else { return };
    let before = snapshot(bad.dir.path());
    ckpt!("materialize", bad.src(), &disk.path).refused(DESTINATION, &["disk", "mount point"]);
    assert_eq!(snapshot(bad.dir.path()), before);
}

// What views carry over beside the weights.

#[test]
fn what_cannot_be_carried_over_is_refused_and_not_written_wrong() {
    let checkpoint = Checkpoint::small_as(1, &[4]);
    let file = &checkpoint.files[0];
    let mut storages = Storages::default();
    let leaves = file.tensors.iter().map(|(path, array)| {
        let value = storages.tensor(array, Keep::Own);
        (path.clone(), value)
    });
    let leaves: Vec<_> = leaves.collect();
    let number = storages.add(vec![9; 8]);
    let plain = storages.tensor_at(Dtype::Float32, number, 8, 0, &[2], &[1]);
    let Value::Object(object) = &plain else { panic!() };
    let Value::Tuple(args) = &object.args else { panic!() };
    let odd = [call("torch._utils", "_rebuild_qtensor", args.to_vec()), tuple(vec![args[0].clone()])];
    for value in odd {
        let tree = |entry: &str| {
            dict(vec![
                ("args".into(), crate::common::namespace(&file.args)),
                ("checkpoint_version".into(), Value::Float(3.0)),
                ("iteration".into(), Value::Int(100)),
                ("model".into(), dict(leaves.clone())),
                (entry.into(), value.clone()),
            ])
        };
        let bad = Bad::of(&checkpoint);
        // State of a rank goes into the view as it is, or not at all.
        fs::write(bad.file("mp_rank_00"), pt(&tree("rng_state"), &storages.contents)).unwrap();
        bad.refused_with(&["--tp", "1"], SOURCE, &["mp_rank_00/model_optim_rng.pt", "carried over"]);
        // Anything else that holds tensors is left out, and said.
        fs::write(bad.file("mp_rank_00"), pt(&tree("extra"), &storages.contents)).unwrap();
        bad.accepted(&["left out: extra"]);
        ckpt!("verify", bad.src(), bad.dst()).ok();
    }
}
