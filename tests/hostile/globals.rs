//! `inspect --globals`: what pickles name, also those of checkpoints that are refused; and that views name nothing that their source does not.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use ckpt_fs::tensor::Dtype;
use serde_json::Value as Json;

use crate::bounds::Victim;
use crate::ckpt;
use crate::common::hf::{self, Arch};
use crate::common::naive::Config;
use crate::common::pt_of;
use crate::headers::Model;
use crate::pickles::{Ops, carrying};

/// What `inspect --globals` finds: by name, how often it is used and whether it is known.
fn globals(path: &Path) -> (BTreeMap<String, (u64, bool)>, Json) {
    let json = ckpt!("inspect", path, "--globals", "--json").ok().json();
    let of = |global: &Json| {
        let name = format!("{}.{}", global["module"].as_str().unwrap(), global["name"].as_str().unwrap());
        (name, (global["uses"].as_u64().unwrap(), global["known"].as_bool().unwrap()))
    };
    (json["globals"].as_array().unwrap().iter().map(of).collect(), json)
}

#[test]
fn every_way_to_name_something_is_seen() {
    let ops = Ops::default;
    for payload in [
        ops().op(b"cos\nsystem\n").text("true").op(b"\x85R"),
        ops().text("os").text("system").op(b"\x93").text("true").op(b"\x85R"),
        ops().op(b"\x8c\x02os\x8c\x06system\x93)R"),
        // Joined from the memo, in the opcodes of Python 2, and spelled by numbers.
        ops().text("system").op(b"r\xff\x00\x00\x000").text("os").op(b"j\xff\x00\x00\x00\x93)R"),
        ops().op(b"U\x02osU\x06system\x93)R"),
        ops().op(b"T\x02\0\0\0osT\x06\0\0\0system\x93)R"),
        ops().op(b"S'os'\nS'syste\\x6d'\n\x93)R"),
        ops().op(b"V\\u006fs\nVsystem\n\x93)R"),
        ops().op(b"(").text("true").op(b"ios\nsystem\n"),
        ops().op(b"(cos\nsystem\n").text("true").op(b"o"),
        ops().op(b"cos\nsystem\n)}\x92"),
        ops().op(b"cos\nsystem\n)\x81"),
        // Named and dropped again: it is imported all the same.
        ops().op(b"cos\nsystem\n0N"),
        ops().op(b"cos\nsystem\n2\x85\x860N"),
        ops().op(b"cos\nsystem\nQ"),
    ] {
        let victim = carrying(&payload);
        let (found, json) = globals(&victim.src());
        assert_eq!(found.get("os.system").map(|found| found.1), Some(false), "{payload:?}: {json}");
        assert_eq!(found["argparse.Namespace"], (1, true));
        assert!(json["unread"].as_array().unwrap().is_empty(), "{json}");
        let said = ckpt!("inspect", victim.src(), "--globals").ok();
        let line = said.out.lines().find(|line| line.contains("os.system")).unwrap();
        assert!(line.starts_with('!') && line.contains("mp_rank_00/model_optim_rng.pt"), "{line}");
        assert!(said.out.contains("1 of them NOT known to be plain data"), "{}", said.out);
    }
    let (found, _) = globals(&carrying(&ops().op(b"\x82\x05")).src());
    assert_eq!(found["copyreg.extension 5"], (1, false));
}

#[test]
fn checkpoints_that_are_refused_are_listed_as_far_as_they_can_be_read() {
    // A pickle that stops in the middle, with control characters in a name.
    let cut = Ops::default().op(b"cos\nsystem\n)Rca\nb\x1b[2J\n\xff").whole();
    let (found, json) = globals(&cut.src());
    assert!(found.contains_key("os.system") && found.contains_key("a.b\u{1b}[2J"), "{json}");
    assert_eq!(json["unread"][0]["file"], "iter_0000100/mp_rank_00/model_optim_rng.pt");
    let said = ckpt!("inspect", cut.src(), "--globals").ok();
    assert!(said.out.contains("not read to the end") && !said.out.contains('\u{1b}'), "{}", said.out);
    // Files that are none, a family that nobody knows, and no checkpoint at all.
    let broken = Victim::with_file(b"no archive");
    let (found, json) = globals(&broken.src());
    assert!(
        found.is_empty() && json["unread"][0]["what"].as_str().unwrap().contains("this is text"),
        "{json}"
    );
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("weights.bin"), pt_of(b"\x80\x02cos\nsystem\n)R.", &[])).unwrap();
    // Torch before 1.6: pickles one after the other, then weights.
    let old = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}.\x80\x02cposix\nsystem\n)R.\x80\x02].1234";
    fs::write(folder.path().join("old.pt"), old).unwrap();
    fs::write(folder.path().join("bare.pkl"), b"\x80\x04cnt\nsystem\n.").unwrap();
    let (found, json) = globals(folder.path());
    assert_eq!(found.keys().collect::<Vec<_>>(), ["nt.system", "os.system", "posix.system"], "{json}");
    let (found, _) = globals(&folder.path().join("bare.pkl"));
    assert_eq!(found.keys().collect::<Vec<_>>(), ["nt.system"]);
    // Old files of protocol 0 begin with any opcode.
    let (_, json) = globals(&Victim::with_file(b"cos\nsystem\n.").src());
    assert_eq!(json["unread"].as_array().unwrap().len(), 1);
    ckpt!("inspect", folder.path().join("nowhere"), "--globals").refused(3, &["nowhere"]);
}

#[test]
fn formats_without_pickles_say_so() {
    let model = Model::new(2);
    let said = ckpt!("inspect", model.path(), "--globals").ok();
    assert!(said.out.contains("no pickles"), "{}", said.out);
    assert_eq!(globals(&model.path()).1["files"], 0);
    // Weights in pickles beside them are looked at: a loader may prefer them.
    fs::write(model.file("pytorch_model.bin"), pt_of(b"\x80\x02cos\nsystem\n)R.", &[])).unwrap();
    assert!(globals(&model.path()).0.contains_key("os.system"));
}

fn fixtures() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let (mut found, mut todo) = (Vec::new(), vec![root]);
    while let Some(path) = todo.pop() {
        let below: Vec<_> = fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()).collect();
        for path in below.into_iter().filter(|path| path.is_dir()) {
            let is_iteration = path.file_name().unwrap().to_str().unwrap().starts_with("iter_");
            if is_iteration { found.push(path) } else { todo.push(path) }
        }
    }
    found.sort();
    found
}

/// What a view may name that its source does not: torch's own way to rebuild a tensor, for tensors that the source has in another form.
fn is_rebuilding(name: &str) -> bool {
    let within = name.strip_prefix("torch.").unwrap_or_default();
    // Names of element types: of a storage, and in the keys of flat buffers.
    let is_type = within.ends_with("Storage") || Dtype::from_name(within).is_some();
    // The hooks of every tensor, of which there are none, are an OrderedDict.
    let calls =
        ["torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor_v3", "collections.OrderedDict"];
    is_type || calls.contains(&name)
}

#[test]
fn fixtures_name_nothing_unknown() {
    let all = fixtures();
    assert!(all.len() >= 8, "{all:?}");
    for fixture in all {
        let (found, json) = globals(&fixture);
        assert!(found.values().all(|(_, known)| *known), "{}: {json}", fixture.display());
        assert!(json["unread"].as_array().unwrap().is_empty() && found.contains_key("argparse.Namespace"));
    }
}

#[test]
fn views_name_nothing_that_their_source_does_not() {
    let mut added = BTreeSet::new();
    let flags: [&[&str]; 5] = [
        &[],
        &["--tp", "2", "--pp", "2"],
        &["--optimizer", "mixed"],
        &["--optimizer", "distributed", "--tp", "2"],
        &["--optimizer", "none", "--rng", "omit"],
    ];
    for fixture in fixtures() {
        let (source, _) = globals(&fixture);
        let mut views = 0;
        for flags in flags {
            let out = tempfile::tempdir().unwrap();
            let mut args =
                vec!["materialize".into(), fixture.clone().into_os_string(), out.path().join("v").into()];
            args.extend(["--as", "megatron"].iter().chain(flags).map(Into::into));
            let said = crate::common::run::program(&args);
            if said.code != 0 {
                // Not every fixture has an optimizer.
                assert!([2, 4, 5].contains(&said.code), "{}: {}", fixture.display(), said.err);
                continue;
            }
            views += 1;
            let (view, _) = globals(&out.path().join("v"));
            added.extend(view.into_keys().filter(|name| !source.contains_key(name)));
        }
        assert!(views >= 2, "{}", fixture.display());
    }
    let foreign: Vec<_> = added.iter().filter(|name| !is_rebuilding(name)).collect();
    assert!(foreign.is_empty(), "views name {foreign:?}, which their sources do not");
    // What comes of files that hold no pickles is all plain data.
    let dir = tempfile::tempdir().unwrap();
    let config = Config::default();
    let model = dir.path().join("model");
    hf::write(&model, &hf::config(Arch::Llama, &config), &hf::tensors(Arch::Llama, &config), 1);
    ckpt!("materialize", &model, dir.path().join("m"), "--as", "megatron", "--tp", "2").ok();
    ckpt!("materialize", dir.path().join("m"), dir.path().join("s"), "--as", "safetensors").ok();
    ckpt!("materialize", dir.path().join("s"), dir.path().join("back"), "--as", "megatron").ok();
    for name in ["m", "back"] {
        let (found, json) = globals(&dir.path().join(name));
        let expected = |name: &String| is_rebuilding(name) || name == "argparse.Namespace";
        assert!(found.iter().all(|(name, (_, known))| *known && expected(name)), "{json}");
    }
}

#[test]
fn a_hostile_name_goes_into_a_view_as_it_is_and_is_marked_there_too() {
    let victim = carrying(&Ops::default().op(b"cos\nsystem\n").text("true").op(b"\x85R"));
    let out = victim.path("out");
    ckpt!("materialize", victim.src(), &out, "--tp", "2").ok();
    assert_eq!(globals(&out).0["os.system"], (2, false));
    // In a format without pickles nothing of it is left.
    let safe = victim.path("safe");
    ckpt!("materialize", victim.src(), &safe, "--as", "safetensors").ok();
    assert_eq!(globals(&safe).1["files"], 0);
    let bytes = fs::read(safe.join("mp_rank_00.safetensors")).unwrap();
    assert!(!bytes.windows(6).any(|window| window == b"system"));
}
