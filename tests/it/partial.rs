//! `verify SRC COPY --partial`: copies of some files of a view are held against the source, and whatever is not the same is found.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};

use crate::common::hf::{self, Arch};
use crate::common::naive::{Config, Cut};
use crate::common::run::{Said, program};
use crate::common::source::{Checkpoint, ITERATION};
use tempfile::TempDir;

struct Here {
    dir: TempDir,
}

impl Here {
    fn new() -> Self {
        let config = Config { heads: 8, groups: 8, ffn: 24, vocab: 25, ..Config::default() };
        let mut checkpoint = Checkpoint::new(&config, &Cut::new(2, &[2, 2]));
        for (field, value) in hf::args(Arch::Llama, &config) {
            checkpoint = checkpoint.arg(field, &value);
        }
        let here = Self { dir: tempfile::tempdir().unwrap() };
        checkpoint.write(&here.path("src"));
        here
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A copy that `materialize` makes with these flags.
    fn copy(&self, name: &str, flags: &[&str]) -> PathBuf {
        let (source, copy) = (self.path("src"), self.path(name));
        let words = [&["materialize", source.to_str().unwrap(), copy.to_str().unwrap(), "--quiet"], flags];
        program(&words.concat()).ok();
        copy
    }

    fn verify(&self, copy: &Path, flags: &[&str]) -> Said {
        let source = self.path("src");
        let words =
            [&["verify", source.to_str().unwrap(), copy.to_str().unwrap(), "--partial", "--json"], flags];
        program(&words.concat())
    }
}

/// The one difference that was found.
fn only(said: &Said) -> serde_json::Value {
    assert_eq!(said.code, 1, "{}", said.err);
    let found = said.json();
    assert_eq!(found["differences"].as_array().unwrap().len(), 1, "{found:#}");
    found["differences"][0].clone()
}

const OF_FORMATS: [&[&str]; 4] = [
    &["--as", "megatron", "--tp", "4", "--pp", "1"],
    &["--as", "vllm", "--tp", "2", "--pp", "1"],
    &["--as", "hf", "--shard-size", "10kB"],
    &["--as", "safetensors", "--tp", "1", "--pp", "2"],
];

#[test]
fn copies_of_some_files_are_identical() {
    let here = Here::new();
    for (number, flags) in OF_FORMATS.iter().enumerate() {
        let copy = here.copy(&format!("copy{number}"), flags);
        let all = here.verify(&copy, flags).ok().json();
        assert_eq!((&all["identical"], &all["files"]), (&true.into(), &all["files_of_view"]), "{all:#}");
        let is_weights =
            |path: &PathBuf| path.extension().is_some_and(|ending| ending != "json" && ending != "txt");
        let mut files: Vec<PathBuf> =
            crate::common::run::snapshot(&copy).into_keys().filter(|path| path.is_file()).collect();
        // The others stay until the last that has weights is left.
        while let Some(place) = files
            .iter()
            .position(is_weights)
            .filter(|_| files.iter().filter(|path| is_weights(path)).count() > 1)
        {
            fs::remove_file(files.remove(place)).unwrap();
            let some = here.verify(&copy, flags).ok().json();
            assert_eq!(some["files"], files.len(), "{some:#}");
            assert_eq!(some["files_of_view"], all["files_of_view"]);
        }
    }
}

/// Checksums are true in copies that `materialize` makes, and zeros in those of a mount; other ones are damage.
#[test]
fn checksums_may_be_zeros_or_true() {
    let here = Here::new();
    let flags = ["--tp", "4", "--pp", "1"];
    let zero = here.copy("zero", &[&flags[..], &["--crc", "zero"]].concat());
    here.verify(&zero, &flags).ok();
    let exact = here.copy("exact", &flags);
    here.verify(&exact, &flags).ok();
    let name = format!("{ITERATION}/mp_rank_03/model_optim_rng.pt");
    let (one, other) = (fs::read(zero.join(&name)).unwrap(), fs::read(exact.join(&name)).unwrap());
    let at = one.iter().zip(&other).position(|(a, b)| a != b).unwrap();
    let file = fs::File::options().write(true).open(exact.join(&name)).unwrap();
    file.write_all_at(&[!other[at]], at as u64).unwrap();
    let found = only(&here.verify(&exact, &flags));
    assert_eq!((&found["byte"], &found["file"]), (&at.into(), &name.into()));
    assert!(found["message"].as_str().unwrap().contains("beside its tensors"), "{found:#}");
}

/// Every byte counts.
#[test]
fn any_other_byte_is_found() {
    let here = Here::new();
    for (number, flags) in OF_FORMATS.iter().enumerate() {
        let copy = here.copy(&format!("copy{number}"), flags);
        let files = crate::common::run::snapshot(&copy).into_keys().filter(|path| path.is_file());
        for path in files {
            let (bytes, name) =
                (fs::read(&path).unwrap(), path.strip_prefix(&copy).unwrap().to_str().unwrap().to_owned());
            for at in (0..bytes.len()).step_by(bytes.len() / 3 + 1).chain([bytes.len() - 1]) {
                let mut other = bytes.clone();
                other[at] = !other[at];
                fs::write(&path, &other).unwrap();
                let found = only(&here.verify(&copy, flags));
                assert_eq!((&found["byte"], &found["file"]), (&at.into(), &name.clone().into()), "{found:#}");
            }
            fs::write(&path, &bytes[1..]).unwrap();
            let found = only(&here.verify(&copy, flags));
            assert!(found["message"].as_str().unwrap().contains("in the view"), "{found:#}");
            fs::write(&path, &bytes).unwrap();
        }
        here.verify(&copy, flags).ok();
    }
}

#[test]
fn the_element_that_differs_is_named() {
    let here = Here::new();
    let copy = here.copy("copy", &["--as", "hf"]);
    let listed = ckpt!("ls", here.path("src"), "--as", "hf", "--tensors", "--json").ok().json();
    let tensors = listed["files"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|file| file["tensors"].as_array())
        .find(|tensors| !tensors.is_empty())
        .unwrap();
    let norm = tensors.iter().find(|tensor| tensor["name"] == "model.norm.weight").unwrap();
    let bytes = fs::read(copy.join("model.safetensors")).unwrap();
    let data: u64 = tensors.iter().map(|tensor| tensor["bytes"].as_u64().unwrap()).sum();
    let before: u64 = tensors
        .iter()
        .take_while(|tensor| *tensor != norm)
        .map(|tensor| tensor["bytes"].as_u64().unwrap())
        .sum();
    let at = bytes.len() as u64 - data + before + 3 * 4 + 1;
    fs::File::options()
        .write(true)
        .open(copy.join("model.safetensors"))
        .unwrap()
        .write_all_at(&[!bytes[at as usize]], at)
        .unwrap();
    let found = only(&here.verify(&copy, &["--as", "hf"]));
    assert_eq!(
        (&found["byte"], &found["tensor"], &found["index"]),
        (&at.into(), &"model.norm.weight".into(), &serde_json::json!([3]))
    );
}

/// The directory of the iteration alone, and links to files elsewhere.
#[test]
fn an_iteration_may_have_been_copied_alone() {
    let here = Here::new();
    let copy = here.copy("copy", &["--tp", "2", "--pp", "1"]);
    let ranks = here.path("tp2pp1");
    fs::create_dir(&ranks).unwrap();
    fs::create_dir(ranks.join("mp_rank_01")).unwrap();
    symlink(
        copy.join(ITERATION).join("mp_rank_01/model_optim_rng.pt"),
        ranks.join("mp_rank_01/model_optim_rng.pt"),
    )
    .unwrap();
    // The name of the directory is the layout.
    let found = here.verify(&ranks, &[]).ok().json();
    assert_eq!((&found["files"], &found["view"]), (&1.into(), &"megatron tp2pp1".into()));
}

/// What cannot be read is one difference among others, and nobody waits for it.
#[test]
fn what_cannot_be_read_is_said_with_the_rest() {
    let here = Here::new();
    let flags = ["--tp", "4", "--pp", "1"];
    let copy = here.copy("copy", &flags);
    let rank = |n: u32| copy.join(ITERATION).join(format!("mp_rank_0{n}/model_optim_rng.pt"));
    fs::remove_file(rank(0)).unwrap();
    let made = std::process::Command::new("mkfifo").arg(rank(0)).status().unwrap();
    assert!(made.success());
    fs::remove_file(rank(1)).unwrap();
    symlink("nowhere", rank(1)).unwrap();
    fs::write(copy.join(OsStr::from_bytes(b"odd\xff")), "").unwrap();
    let said = here.verify(&copy, &flags);
    assert_eq!(said.code, 1, "{}", said.err);
    let found = said.json();
    let messages: Vec<&str> =
        found["differences"].as_array().unwrap().iter().map(|one| one["message"].as_str().unwrap()).collect();
    assert_eq!(messages.len(), 3, "{messages:?}");
    assert!(messages[0].ends_with("cannot be read: it is no regular file"), "{messages:?}");
    assert!(messages[1].contains("cannot be read: No such file"), "{messages:?}");
    assert_eq!(messages[2], "odd\u{fffd} is no file of the view");
}

/// A copy that lost every rank is none.
#[test]
fn a_copy_without_tensors_is_refused() {
    let here = Here::new();
    let flags = ["--tp", "4", "--pp", "1"];
    let copy = here.copy("copy", &flags);
    fs::remove_dir_all(copy.join(ITERATION)).unwrap();
    here.verify(&copy, &flags).refused(2, &["nothing of the model was compared"]);
}

#[test]
fn what_is_no_copy_is_said() {
    let here = Here::new();
    let flags = ["--tp", "4", "--pp", "1"];
    let copy = here.copy("copy", &flags);
    fs::write(copy.join("notes.txt"), "mine").unwrap();
    let found = only(&here.verify(&copy, &flags));
    assert_eq!(found["message"], "notes.txt is no file of the view");
    here.verify(&copy, &["--as", "hf"])
        .refused(2, &["none of its 6 files is one of a view as hf", "--as, --tp, --pp"]);
    // Of another layout files have the same names and other bytes.
    assert_eq!(here.verify(&copy, &["--tp", "4", "--pp", "1", "--rng", "omit"]).code, 1);
    let (first, second) = (here.path("src"), here.path("copy"));
    ckpt!("verify", &first, "--partial").refused(2, &["<SECOND>"]);
    ckpt!("verify", &first, &second, "--tp", "4").refused(2, &["for --partial"]);
    ckpt!("verify", &first, here.path("nowhere"), "--partial").refused(3, &["nowhere"]);
    let part = here.copy("part", &["--tp", "4", "--pp", "1", "--tp-ranks", "1"]);
    ckpt!("verify", &first, &part)
        .refused(3, &["missing: mp_rank_00/model_optim_rng.pt", "compared with --partial"]);
}
