//! Every command as a user runs it: what it prints, in what form, and the code it ends with.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

use crate::common::hf::{self, Arch};
use crate::common::naive::{Config, Cut, Kind, Moe, Written};
use crate::common::optimizer::Trained;
use crate::common::run::program;
use crate::common::source::{Checkpoint, ITERATION, rank_file};
use crate::common::{Keep, read_pt_file};
use ckpt_fs::tensor::Dtype;
use ckpt_fs::value::Value;
use serde_json::Value as Json;
use tempfile::TempDir;

/// The model that most of these look at: 8 heads, 4 layers.
fn config() -> Config {
    Config { heads: 8, groups: 8, ffn: 24, vocab: 25, ..Config::default() }
}

struct Here {
    dir: TempDir,
}

impl Here {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    /// With the model in this layout as `src`.
    fn with(cut: &Cut) -> Self {
        let here = Self::new();
        Checkpoint::new(&config(), cut).write(&here.path("src"));
        fs::create_dir(here.path("mnt")).unwrap();
        here
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

fn tp2pp2() -> Here {
    Here::with(&Cut::new(2, &[2, 2]))
}

#[test]
fn ls_lists_the_layouts_that_there_are() {
    let here = tp2pp2();
    let said = ckpt!("ls", here.path("src"), "--layouts", "--json").ok().json();
    let names = |format: &str| -> Vec<String> {
        let of = said.as_array().unwrap().iter().find(|of| of["format"] == format).unwrap();
        of["layouts"].as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()).collect()
    };
    let expected: Vec<String> =
        [1, 2, 4, 8].iter().flat_map(|tp| [1, 2, 4].map(|pp| format!("tp{tp}pp{pp}"))).collect();
    assert_eq!(names("megatron"), expected);
    assert!(names("torch_dist").is_empty());
    let text = ckpt!("ls", here.path("src"), "--layouts", "--as", "MEGATRON").ok().out;
    assert!(text.starts_with("megatron") && text.contains(" tp8pp4") && text.lines().count() == 1, "{text}");
    ckpt!("ls", here.path("src"), "--layouts", "--tp", "2").refused(2, &["--layouts", "--tp"]);
}

#[test]
fn what_others_call_it_is_answered_in_words_of_this_tool() {
    ckpt!("convert", "a", "b").refused(2, &["convert", "materialize SRC DST"]);
    ckpt!("mount", "a", "b", "-tp", "4").refused(2, &["two dashes: --tp 4"]);
    ckpt!("mount", "a", "b", "--tp", "four").refused(2, &["four", "a whole number above 0, such as 4"]);
    let help = ckpt!("--help").ok().out;
    assert!(help.starts_with("Examples:\n  ckpt-fs mount src/ /mnt/tp8pp4"), "{help}");
}

/// Programs that ask for JSON get it of what went wrong too.
#[test]
fn errors_are_json_where_json_is_asked_for() {
    let here = Here::new();
    let said = ckpt!("inspect", here.path("nothing"), "--json");
    let error: Json = serde_json::from_str(&said.err).unwrap();
    assert_eq!(
        (said.code, &error["error"]["code"], &error["error"]["kind"]),
        (3, &3.into(), &"source".into())
    );
    assert!(error["error"]["message"].as_str().unwrap().contains("nothing"), "{error}");
    assert_eq!(said.out, "");
    let said = ckpt!("inspect", "--json", "--frobnicate");
    let error: Json = serde_json::from_str(&said.err).unwrap();
    assert_eq!((said.code, &error["error"]["kind"]), (2, &"usage".into()));
    assert!(error["error"]["message"].as_str().unwrap().contains("--frobnicate"), "{error}");
}

#[test]
fn inspect_says_what_a_checkpoint_is() {
    let here = tp2pp2();
    let said = ckpt!("inspect", here.path("src")).ok();
    for words in [
        "megatron-core (Megatron-core GPT)",
        "tp2pp2",
        "4 layers, 8 heads",
        "32 rows, 25 of them real",
        "1, 2, 4, 8",
        "--tensor-model-parallel-size 2",
        "--no-load-optim",
    ] {
        assert!(said.out.contains(words), "'{words}' is missing in:\n{}", said.out);
    }
    let json = ckpt!("inspect", here.path("src"), "--json", "--tensors").ok().json();
    assert_eq!(json["family"], "megatron-core");
    assert_eq!((&json["tp"], &json["pp"]), (&2.into(), &2.into()));
    assert_eq!(json["possible_tp"], serde_json::json!([1, 2, 4, 8]));
    assert_eq!(json["vocabulary"]["true_size"], 25);
    let tensors = json["tensors"].as_array().unwrap();
    let fc2 = tensors.iter().find(|tensor| tensor["name"] == "layers.3.mlp.down.weight").unwrap();
    assert_eq!(fc2["shape"], serde_json::json!([6, 24]));
    assert_eq!((&fc2["cut"], &fc2["bytes"], &fc2["dtype"]), (&1.into(), &576.into(), &"float32".into()));
    let table = ckpt!("inspect", here.path("src"), "--tensors").ok().out;
    assert!(table.lines().any(|line| line.starts_with("layers.3.mlp.down.weight") && line.contains("dim 1")));
}

#[test]
fn ls_lists_files_and_where_their_bytes_are() {
    let here = tp2pp2();
    let (files, pieces) = checked_listing(&here, &["--tp", "4", "--pp", "1"]);
    assert_eq!(files, 5);
    // A tensor cut along its rows in both: of each row so many bytes.
    assert!(pieces.iter().any(|piece| depth(piece) == 1));
    for file in listing(&here, &["--tp", "4", "--pp", "1"])["files"].as_array().unwrap() {
        let path = here.path("dst").join(file["path"].as_str().unwrap());
        for tensor in file["tensors"].as_array().unwrap() {
            let found = read_pt_file(&path).tensors.into_iter().find(|(name, _)| *name == tensor["name"]);
            let at = number(&tensor["offset"]);
            let written = &fs::read(&path).unwrap()[at..at + number(&tensor["bytes"])];
            assert_eq!(written, found.unwrap().1.bytes, "{}", tensor["name"]);
        }
    }
    let table = ckpt!("ls", here.path("src"), "--tp", "4", "--pp", "1").ok().out;
    assert!(table.contains("iter_0000100/mp_rank_03/model_optim_rng.pt"), "{table}");
    assert!(table.lines().last().unwrap().contains("as megatron tp4pp1"), "{table}");
    let detail = ckpt!("ls", here.path("src"), "--tp", "8", "--tensors").ok().out;
    assert!(detail.contains("model_optim_rng.pt @ "), "{detail}");
}

#[test]
fn ls_lists_loops_within_loops() {
    let here = Here::new();
    // Each group of queries has two heads of q, then one of k and one of v; each rank has two groups.
    let config = Config { groups: 4, ..config() };
    let mut checkpoint = Checkpoint::new(&config, &Cut::new(2, &[4]));
    for (field, value) in hf::args(Arch::Llama, &config) {
        checkpoint = checkpoint.arg(field, &value);
    }
    checkpoint.write(&here.path("src"));
    checked_listing(&here, &["--as", "hf"]);
    let listed = listing(&here, &["--as", "hf"]);
    let mut tensors =
        listed["files"].as_array().unwrap().iter().filter_map(|file| file["tensors"].as_array()).flatten();
    let q = tensors.find(|tensor| tensor["name"] == "model.layers.0.self_attn.q_proj.weight").unwrap();
    let of_ranks = q["from"].as_array().unwrap();
    let (run, step) = (2 * config.head * config.hidden * 4, 4 * config.head * config.hidden * 4);
    let loops = serde_json::json!([{ "count": 2, "step": step, "to": run }]);
    assert!(of_ranks.iter().all(|piece| piece["loops"] == loops && piece["run"] == run), "{q:#}");
    assert_eq!(of_ranks.iter().map(|piece| number(&piece["at"]) as u64).collect::<Vec<_>>(), [0, 2 * run]);
    let text = ckpt!("ls", here.path("src"), "--as", "hf", "--tensors").ok().out;
    let line =
        text.lines().skip_while(|line| !line.contains("layers.0.self_attn.q_proj.weight")).nth(1).unwrap();
    assert!(line.ends_with(&format!(": 2 x {run} bytes, {step} apart")), "{line}");
}

#[test]
fn ls_lists_new_rows_of_either_kind() {
    let here = Here::with(&Cut::new(1, &[2, 2]));
    let zeros = |pieces: &[Json]| pieces.iter().filter(|piece| piece["file"].is_null()).count();
    let still = |pieces: &[Json]| pieces.iter().filter(|piece| piece["loops"][0]["step"] == 0).count();
    let (_, pieces) = checked_listing(&here, &["--tp", "8"]);
    assert!(zeros(&pieces) > 0 && still(&pieces) == 0);
    fs::remove_dir_all(here.path("dst")).unwrap();
    let (_, pieces) = checked_listing(&here, &["--tp", "8", "--vocab-fill", "last-row"]);
    assert!(zeros(&pieces) == 0 && still(&pieces) > 0);
}

#[test]
fn ls_lists_stacked_experts_and_constants() {
    let here = Here::new();
    let config = Config { moe: Some(Moe { expert_bias: false, ..Moe::default() }), groups: 4, ..config() };
    hf::write(
        &here.path("src"),
        &hf::config(Arch::Mixtral, &config),
        &hf::tensors(Arch::Mixtral, &config),
        2,
    );
    let (_, pieces) = checked_listing(&here, &["--as", "vllm", "--tp", "2"]);
    assert!(pieces.iter().any(|piece| depth(piece) == 1), "a column of each expert");
    let text = ckpt!("ls", here.path("src"), "--as", "vllm", "--tp", "2", "--tensors").ok().out;
    assert!(text.contains("constant: 4 bytes, 0000803f"), "{text}");
}

#[test]
fn ls_lists_what_flat_buffers_are_made_of() {
    let here = Here::new();
    Trained { cut: Cut::new(1, &[4]), ..Trained::default() }.write(&here.path("src"));
    // New rows at the end of a tensor read on into what lies between parameters.
    for tp in ["1", "2", "4"] {
        let flags = ["--tp", tp, "--optimizer", "distributed"];
        let (files, _) = checked_listing(&here, &flags);
        assert!(files > 2);
        fs::remove_dir_all(here.path("dst")).unwrap();
    }
}

fn listing(here: &Here, flags: &[&str]) -> Json {
    let source = here.path("src");
    let fixed = ["ls", source.to_str().unwrap(), "--tensors", "--json"];
    program(&[&fixed, flags].concat()).ok().json()
}

/// Writes the view that these flags are of to `dst`, and compares every tensor with the source bytes that its listing tells. Returns the number
/// of files, and all pieces.
fn checked_listing(here: &Here, flags: &[&str]) -> (usize, Vec<Json>) {
    let (source, written) = (here.path("src"), here.path("dst"));
    let fixed = ["materialize", source.to_str().unwrap(), written.to_str().unwrap()];
    program(&[&fixed, flags].concat()).ok();
    let listed = listing(here, flags);
    let files = listed["files"].as_array().unwrap();
    let mut pieces = Vec::new();
    for file in files {
        let path = written.join(file["path"].as_str().unwrap());
        let bytes = fs::read(&path).unwrap();
        assert_eq!(bytes.len(), number(&file["bytes"]), "{path:?}");
        for tensor in file["tensors"].as_array().unwrap() {
            let at = number(&tensor["offset"]);
            let made = made_of(&tensor["from"], number(&tensor["bytes"]));
            assert!(made == bytes[at..at + made.len()], "{path:?}: {tensor:#}");
            pieces.extend(tensor["from"].as_array().unwrap().iter().cloned());
        }
    }
    (files.len(), pieces)
}

fn number(value: &Json) -> usize {
    value.as_u64().unwrap() as usize
}

fn depth(piece: &Json) -> usize {
    piece["loops"].as_array().unwrap().len()
}

/// The tensor of so many bytes that these pieces say, each byte by one of them.
fn made_of(pieces: &Json, len: usize) -> Vec<u8> {
    let mut made: Vec<Option<u8>> = vec![None; len];
    for piece in pieces.as_array().unwrap() {
        let run = number(&piece["run"]);
        let bytes = match (&piece["file"], &piece["literal"]) {
            (Json::String(file), _) => fs::read(file).unwrap(),
            (_, Json::String(hex)) => {
                (0..run).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap()).collect()
            }
            _ => vec![0; run],
        };
        let mut places = vec![(number(&piece["offset"]), number(&piece["at"]))];
        for of in piece["loops"].as_array().unwrap() {
            let (step, to) = (number(&of["step"]), number(&of["to"]));
            let around = std::mem::take(&mut places);
            let each = |k: usize| around.iter().map(move |(from, at)| (from + k * step, at + k * to));
            places = (0..number(&of["count"])).flat_map(each).collect();
        }
        for (from, at) in places {
            for (slot, byte) in made[at..at + run].iter_mut().zip(&bytes[from..from + run]) {
                assert!(slot.replace(*byte).is_none(), "told twice: {pieces:#}");
            }
        }
    }
    made.into_iter().map(|byte| byte.expect("every byte is told")).collect()
}

#[test]
fn the_scripts_long_names_say_the_same() {
    let here = tp2pp2();
    let src = here.path("src");
    let long = here.path("long");
    let said = program(&[
        "materialize".as_ref(),
        src.as_os_str(),
        long.as_os_str(),
        "--target-tensor-model-parallel-size".as_ref(),
        "4".as_ref(),
        "--target-pipeline-model-parallel-size".as_ref(),
        "2".as_ref(),
        "--target-pipeline-model-parallel-blocks".as_ref(),
        "1,3".as_ref(),
        "--tensor-generate-layer".as_ref(),
        "0,3".as_ref(),
        "--pipeline-generate-layer".as_ref(),
        "1".as_ref(),
    ]);
    said.ok();
    let short = here.path("short");
    ckpt!(
        "materialize",
        src,
        short,
        "--tp",
        "4",
        "--pp-layers",
        "1,3",
        "--tp-ranks",
        "0,3",
        "--pp-ranks",
        "1"
    )
    .ok();
    let names = |root: &Path| {
        let mut names: Vec<_> =
            fs::read_dir(root.join(ITERATION)).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(names(&long), ["mp_rank_00_001", "mp_rank_03_001"]);
    for dir in names(&long) {
        let dir = dir.to_str().unwrap();
        assert_eq!(fs::read(rank_file(&long, dir)).unwrap(), fs::read(rank_file(&short, dir)).unwrap());
    }
    // Some ranks are the same files as among all of them.
    let all = here.path("all");
    ckpt!("materialize", src, all, "--tp", "4", "--pp-layers", "1,3").ok();
    assert_eq!(names(&all).len(), 8);
    let dir = "mp_rank_03_001";
    assert_eq!(fs::read(rank_file(&all, dir)).unwrap(), fs::read(rank_file(&long, dir)).unwrap());
}

#[test]
fn ranks_that_are_not_there_are_wrong_usage() {
    let here = tp2pp2();
    for (flag, ranks, words) in [
        ("--tp-ranks", "2", "TP rank 2"),
        ("--tp-ranks", "0,2", "TP rank 2"),
        ("--pp-ranks", "0-5", "stage 2"),
        ("--pp-ranks", "x", "not a list of ranks"),
        ("--tp-ranks", "", "not a list of ranks"),
    ] {
        ckpt!("materialize", here.path("src"), here.path("dst"), flag, ranks).refused(2, &[words]);
        assert!(!here.path("dst").exists());
    }
}

#[test]
fn wrong_usage_is_two() {
    for args in [&[][..], &["nonsense"], &["inspect"], &["inspect", "a", "--tp", "x"], &["materialize", "a"]]
    {
        assert_eq!(program(args).code, 2, "{args:?}");
    }
    assert_eq!(program(&["ls", "a", "--tp", "x"]).code, 2);
    assert_eq!(program(&["ls", "a", "--pp-layers", "1,,2"]).code, 2);
    assert_eq!(program(&["--help"]).code, 0);
    let help = program(&["--help"]).out;
    assert!(help.contains("Exit codes: 0 success, 1 verify found a difference"), "{help}");
    assert_eq!(program(&["--version"]).code, 0);
}

/// The same refusal from everything that makes a view.
#[track_caller]
fn impossible(here: &Here, flags: &[&str], code: i32, words: &[&str]) {
    for command in [&["ls"][..], &["materialize", "dst"], &["mount", "mnt"]] {
        let mut args = vec![PathBuf::from(command[0]), here.path("src")];
        args.extend(command.get(1).map(|target| here.path(target)));
        args.extend(flags.iter().map(PathBuf::from));
        program(&args).refused(code, words);
    }
    assert!(!here.path("dst").exists());
}

#[test]
fn impossible_layouts_say_what_is_possible() {
    let here = tp2pp2();
    impossible(&here, &["--tp", "3"], 5, &["TP 3 does not divide 8 heads; possible: 1, 2, 4, 8"]);
    impossible(&here, &["--tp", "16"], 5, &["TP 16 does not divide 8 heads; possible: 1, 2, 4, 8"]);
    impossible(&here, &["--tp", "0"], 2, &["a whole number above 0"]);
    impossible(&here, &["--tp", "4294967295"], 5, &["possible: 1, 2, 4, 8"]);
    impossible(&here, &["--pp", "0"], 2, &["a whole number above 0"]);
    impossible(&here, &["--pp", "5"], 5, &["5 pipeline stages", "possible: 1 to 4"]);
    impossible(&here, &["--pp", "3"], 5, &["4 layers do not divide into 3", "tp2pp3@2,1,1"]);
    impossible(&here, &["--pp-layers", "1,2"], 5, &["1,2", "3 layers", "the model has 4"]);
    impossible(&here, &["--pp-layers", "0,4"], 5, &["at least 1"]);
    impossible(&here, &["--pp", "3", "--pp-layers", "1,3"], 5, &["3 pipeline stages asked for"]);
    let many = ["4294967295"; 3].join(",");
    impossible(&here, &["--pp-layers", &many], 5, &["the model has 4"]);
}

#[test]
fn a_mount_points_name_and_flags_must_agree() {
    let here = tp2pp2();
    for (name, flags, words) in [
        ("tp4pp2", &["--tp", "2"][..], "the directory is called tp4pp2"),
        ("tp4pp2", &["--pp", "1"], "the directory is called tp4pp2"),
        ("tp1pp2@1,3", &["--pp-layers", "3,1"], "the directory is called tp1pp2@1,3"),
        ("tp08", &[], "looks like a layout"),
        ("tp4pp", &[], "looks like a layout"),
    ] {
        let point = here.path(name);
        fs::create_dir_all(&point).unwrap();
        let mut args = vec!["mount".into(), here.path("src"), point];
        args.extend(flags.iter().map(PathBuf::from));
        program(&args).refused(2, &[words]);
    }
    let point = here.path("tp3");
    fs::create_dir(&point).unwrap();
    ckpt!("mount", here.path("src"), point).refused(5, &["TP 3 does not divide 8 heads"]);
}

#[test]
fn mount_points_that_cannot_be_used() {
    let here = tp2pp2();
    fs::write(here.path("file"), "x").unwrap();
    for point in ["nowhere", "file"] {
        let said = ckpt!("mount", here.path("src"), here.path(point));
        // Without FUSE in the machine that is said first.
        assert!([7, 8].contains(&said.code), "{} {}", said.code, said.err);
        assert!(!said.err.is_empty());
    }
    for command in ["unmount", "umount"] {
        ckpt!(command, here.path("mnt")).refused(7, &["mnt"]);
        ckpt!(command, here.path("nowhere")).refused(7, &["nowhere"]);
    }
}

#[test]
fn verify_finds_the_same_weights_the_same() {
    let here = tp2pp2();
    for (name, flags) in [("a", ["--tp", "1"]), ("b", ["--tp", "8"]), ("c", ["--pp", "4"])] {
        ckpt!("materialize", here.path("src"), here.path(name), flags[0], flags[1]).ok();
        let said = ckpt!("verify", here.path("src"), here.path(name)).ok();
        assert!(said.out.contains("identical"), "{}", said.out);
        let json = ckpt!("verify", here.path(name), here.path("src"), "--json").ok().json();
        assert_eq!(json["identical"], true);
        assert_eq!(json["differences"], serde_json::json!([]));
        ckpt!("verify", here.path(name)).ok();
    }
}

/// Flips a bit of element `index` of a tensor in a rank file, where it lies in the file.
fn flip(root: &Path, dir: &str, tensor: &str, element: usize) {
    let path = rank_file(root, dir);
    let wanted = read_pt_file(&path).tensors.into_iter().find(|(name, _)| name == tensor).unwrap().1;
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.windows(wanted.bytes.len()).position(|window| window == wanted.bytes).unwrap();
    bytes[at + element * wanted.dtype.size() as usize] ^= 1;
    fs::write(&path, bytes).unwrap();
}

#[test]
fn verify_names_the_first_difference() {
    let here = tp2pp2();
    ckpt!("materialize", here.path("src"), here.path("other"), "--tp", "1", "--pp", "1").ok();
    // Row 5 of 6, column 7 of 24: in a cut of two it is in the first rank's column 7.
    flip(&here.path("other"), "mp_rank_00", "decoder.layers.3.mlp.linear_fc2.weight", 5 * 24 + 7);
    let said = ckpt!("verify", here.path("src"), here.path("other"));
    assert_eq!(said.code, 1);
    for words in ["layers.3.mlp.down.weight", "[5, 7]", "mp_rank_00_001", "other/iter_0000100/mp_rank_00"] {
        assert!(said.out.contains(words), "'{words}' is missing in {}", said.out);
    }
    let json = ckpt!("verify", here.path("other"), here.path("src"), "--json");
    assert_eq!(json.code, 1);
    let json = json.json();
    assert_eq!(json["identical"], false);
    assert_eq!(json["differences"][0]["parameter"], "layers.3.mlp.down.weight");
}

#[test]
fn verify_finds_replicas_that_differ() {
    let here = tp2pp2();
    flip(&here.path("src"), "mp_rank_01_001", "decoder.layers.1.input_layernorm.weight", 4);
    let said = ckpt!("verify", here.path("src"));
    assert_eq!(said.code, 1);
    for words in ["layers.3.attention_norm.weight", "[4]", "mp_rank_00_001", "mp_rank_01_001"] {
        assert!(said.out.contains(words), "'{words}' is missing in {}", said.out);
    }
    let json = ckpt!("verify", here.path("src"), "--json");
    assert_eq!((json.code, &json.json()["identical"]), (1, &false.into()));
    // Views read the lowest rank, so that is no difference of the weights.
    ckpt!("digest", here.path("src")).ok();
}

#[test]
fn verify_of_two_looks_at_every_replica_of_both() {
    let here = tp2pp2();
    ckpt!("materialize", here.path("src"), here.path("other")).ok();
    // Not the copy that is read: only a rank that loads this file would notice.
    flip(&here.path("other"), "mp_rank_01_001", "decoder.layers.1.input_layernorm.weight", 4);
    for (a, b) in [("src", "other"), ("other", "src")] {
        let said = ckpt!("verify", here.path(a), here.path(b));
        assert_eq!(said.code, 1, "{}", said.out);
        assert!(
            said.out.contains("layers.3.attention_norm.weight") && said.out.contains("mp_rank_01_001"),
            "{}",
            said.out
        );
    }
}

#[test]
fn verify_of_one_holds_bytes_against_their_checksums() {
    let here = tp2pp2();
    let nothing = Here::with(&Cut::new(1, &[4]));
    let said = ckpt!("verify", nothing.path("src")).ok();
    assert!(said.out.contains("compared"), "{}", said.out);
    ckpt!("materialize", here.path("src"), here.path("one"), "--tp", "1", "--pp", "1").ok();
    ckpt!("verify", here.path("one")).ok();
    // Nothing else holds this tensor.
    flip(&here.path("one"), "mp_rank_00", "decoder.layers.3.mlp.linear_fc2.weight", 7);
    let said = ckpt!("verify", here.path("one"));
    assert_eq!(said.code, 1);
    assert!(said.out.contains("is damaged") && said.out.contains("CRC-32"), "{}", said.out);
    let json = ckpt!("verify", here.path("one"), "--json").json();
    assert!(json["differences"][0]["files"][0].as_str().unwrap().contains("mp_rank_00"));
}

#[test]
fn the_destination_may_say_the_layout() {
    let here = tp2pp2();
    ckpt!("materialize", here.path("src"), here.path("tp4pp1")).ok();
    assert!(rank_file(&here.path("tp4pp1"), "mp_rank_03").exists());
    ckpt!("materialize", here.path("src"), here.path("tp1pp4"), "--tp", "2")
        .refused(2, &["the directory is called tp1pp4"]);
}

#[test]
fn inspect_says_the_flags_for_a_layout() {
    let here = tp2pp2();
    let said = ckpt!("inspect", here.path("src"), "--tp", "4", "--pp-layers", "1,3").ok();
    for words in ["as tp4pp2@1,3", "--tensor-model-parallel-size 4", "--pipeline-model-parallel-size 2"] {
        assert!(said.out.contains(words), "'{words}' is missing in {}", said.out);
    }
    ckpt!("inspect", here.path("src"), "--tp", "3").refused(5, &["TP 3 does not divide 8 heads"]);
}

#[test]
fn unmount_goes_on_after_one_that_is_no_mount() {
    let here = tp2pp2();
    let said = ckpt!("unmount", here.path("src"), here.path("mnt"));
    assert_eq!(said.code, 7);
    assert!(said.err.contains("src") && said.err.contains("mnt"), "{}", said.err);
}

#[test]
fn verify_finds_tied_copies_that_differ() {
    let here = Here::new();
    let config = Config { tied: true, ..config() };
    Checkpoint::new(&config, &Cut::new(2, &[2, 2])).write(&here.path("src"));
    ckpt!("verify", here.path("src")).ok();
    flip(&here.path("src"), "mp_rank_01_001", "output_layer.weight", 3 * 6 + 2);
    let said = ckpt!("verify", here.path("src"));
    assert_eq!(said.code, 1);
    // 32 rows over 2 ranks: the second begins at row 16.
    for words in ["embedding.weight", "[19, 2]", "mp_rank_01_000", "mp_rank_01_001"] {
        assert!(said.out.contains(words), "'{words}' is missing in {}", said.out);
    }
}

#[test]
fn verify_of_other_models_says_what_only_one_has() {
    let here = tp2pp2();
    let other = Config { bias: true, dtype: Dtype::Bfloat16, ..config() };
    Checkpoint::new(&other, &Cut::new(1, &[4])).write(&here.path("other"));
    let said = ckpt!("verify", here.path("src"), here.path("other"), "--json");
    assert_eq!(said.code, 1);
    let text = said.out;
    assert!(text.contains("float32") && text.contains("bfloat16"), "{text}");
    assert!(text.contains("layers.0.attention.q.bias is only in the second"), "{text}");
}

#[test]
fn verify_does_not_take_missing_rows_for_padding() {
    // 25 real rows here; the other has 24 rows in all, whatever they are.
    let here = tp2pp2();
    let short = Config { vocab: 24, vocab_in_args: false, ..config() };
    Checkpoint::new(&short, &Cut::new(1, &[4])).write(&here.path("short"));
    for (a, b) in [("src", "short"), ("short", "src")] {
        let said = ckpt!("verify", here.path(a), here.path(b));
        assert_eq!(said.code, 1, "{}", said.out);
        assert!(said.out.contains("embedding.weight") && said.out.contains("[24, 6]"), "{}", said.out);
    }
}

#[test]
fn digests_do_not_depend_on_the_layout() {
    let here = tp2pp2();
    let digest = |name: &str| {
        let json = ckpt!("digest", here.path(name), "--json").ok().json();
        assert_eq!(json["vocabulary"]["true_size"], 25);
        json["digest"].as_str().unwrap().to_owned()
    };
    let source = digest("src");
    for (name, flags) in [("a", ["--tp", "1"]), ("b", ["--tp", "8"]), ("c", ["--pp-layers", "1,1,2"])] {
        ckpt!("materialize", here.path("src"), here.path(name), flags[0], flags[1]).ok();
        assert_eq!(digest(name), source, "{name}");
    }
    // Padding rows are not the model: 28 rows at TP 1, 25 of them real.
    flip(&here.path("a"), "mp_rank_00_000", "embedding.word_embeddings.weight", 25 * 6);
    assert_eq!(digest("a"), source);
    flip(&here.path("a"), "mp_rank_00_000", "embedding.word_embeddings.weight", 25 * 6 - 1);
    assert_ne!(digest("a"), source);
    let text = ckpt!("digest", here.path("src"), "--tensors").ok().out;
    assert!(text.contains(source.as_str()), "{text}");
    assert!(text.lines().any(|line| line.contains("embedding.weight float32 [25, 6]")), "{text}");
}

#[test]
fn a_digest_without_a_true_size_says_so() {
    let here = Here::new();
    let unknown = Config { vocab_in_args: false, ..config() };
    Checkpoint::new(&unknown, &Cut::new(2, &[4])).write(&here.path("a"));
    Checkpoint::new(&config(), &Cut::new(1, &[4])).write(&here.path("b"));
    let said = ckpt!("digest", here.path("a")).ok();
    assert!(said.out.contains("vocabulary padded to 32; --vocab-size N"), "{}", said.out);
    let weights = |args: &[&str], name: &str| {
        let mut all = vec!["digest".into(), here.path(name), "--json".into()];
        all.extend(args.iter().map(PathBuf::from));
        program(&all).ok().json()["digest"].clone()
    };
    assert_eq!(weights(&["--vocab-size", "25"], "a"), weights(&[], "b"));
    assert_ne!(weights(&[], "a"), weights(&[], "b"));
}

#[test]
fn a_family_file_adds_a_model() {
    let here = Here::new();
    let config = Config { kind: Kind::Core, ..config() };
    let cut = Cut::new(2, &[2, 2]);
    let mut checkpoint = Checkpoint::new(&config, &cut);
    // The same tensors under names that nobody has heard of.
    let renamed = |path: &str| {
        path.replace("decoder.layers.", "trunk.block.")
            .replace("self_attention.linear_", "mixer.")
            .replace("mlp.linear_", "feed.")
            .replace("word_embeddings", "tokens")
    };
    for file in &mut checkpoint.files {
        for (path, _) in &mut file.tensors {
            *path = renamed(path);
        }
        for (field, _) in &mut file.args {
            *field = field.replace("num_attention_heads", "n_head");
        }
    }
    checkpoint.keep = Keep::Shared;
    checkpoint.write(&here.path("src"));
    ckpt!("inspect", here.path("src")).refused(4, &["embedding.tokens.weight", "--family FILE"]);
    let family = here.path("invented.toml");
    let core = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("families/megatron-core.toml"))
        .unwrap();
    let text =
        renamed(&core).replace("num_attention_heads", "n_head").replace("\"megatron-core\"", "\"invented\"");
    fs::write(&family, text).unwrap();
    let json = ckpt!("inspect", here.path("src"), "--family", family, "--json").ok().json();
    assert_eq!(json["family"], "invented");
    ckpt!("materialize", here.path("src"), here.path("dst"), "--family", family, "--tp", "8", "--pp", "1")
        .ok();
    let target = Cut::new(8, &[4]);
    let written = Written::new(&config, &cut);
    for (tp, pp) in target.ranks() {
        let found = read_pt_file(&rank_file(&here.path("dst"), &target.rank_dir(tp, pp)));
        let wanted: Vec<_> =
            written.rank(&target, tp, pp).into_iter().map(|(path, array)| (renamed(&path), array)).collect();
        assert_eq!(found.tensors, wanted);
    }
}

#[test]
fn mistakes_in_a_family_file_are_wrong_usage() {
    let here = tp2pp2();
    let file = here.path("family.toml");
    for (text, words) in [
        ("", "name"),
        ("name = 'x", "line 1"),
        ("name = 'x'\ntitle = 'X'\nwhat = 1\n[vocabulary]\npadding = 'fixed'\nmultiple = 'm'", "what"),
        ("name = 'x'\ntitle = 'X'\n[vocabulary]\npadding = 'sometimes'\nmultiple = 'm'", "sometimes"),
        (
            "name = 'x'\ntitle = 'X'\n[vocabulary]\npadding = 'fixed'\nmultiple = 'm'\n[[tensor]]\nname = 't'\nstage = 'first'\nholds = ['no.such']",
            "no.such",
        ),
    ] {
        fs::write(&file, text).unwrap();
        ckpt!("inspect", here.path("src"), "--family", file).refused(2, &["family.toml", words]);
    }
    ckpt!("inspect", here.path("src"), "--family", here.path("nowhere.toml")).refused(2, &["nowhere.toml"]);
}

#[test]
fn an_iteration_is_chosen_by_tracker_or_flag_or_folder() {
    let here = tp2pp2();
    let src = here.path("src");
    fs::rename(src.join(ITERATION), src.join("iter_0000200")).unwrap();
    Checkpoint::new(&config(), &Cut::new(1, &[4])).write(&src);
    fs::write(src.join("latest_checkpointed_iteration.txt"), "200\n").unwrap();
    let layout = |args: &[&str], path: PathBuf| {
        let mut all = vec!["inspect".into(), path, "--json".into()];
        all.extend(args.iter().map(PathBuf::from));
        let json = program(&all).ok().json();
        (json["iteration"].as_str().unwrap().to_owned(), json["layout"].as_str().unwrap().to_owned())
    };
    let is = |iteration: &str, layout: &str| (iteration.to_owned(), layout.to_owned());
    assert_eq!(layout(&[], src.clone()), is("200", "tp2pp2"));
    assert_eq!(layout(&["--iteration", "100"], src.clone()), is("100", "tp1pp1"));
    assert_eq!(layout(&[], src.join("iter_0000100")), is("100", "tp1pp1"));
    ckpt!("inspect", src.join("iter_0000100"), "--iteration", "200").refused(3, &["iteration 100, not 200"]);
    fs::rename(src.join("iter_0000100"), src.join("release")).unwrap();
    assert_eq!(layout(&["--iteration", "release"], src.clone()), is("release", "tp1pp1"));
    fs::write(src.join("latest_checkpointed_iteration.txt"), "release").unwrap();
    ckpt!("materialize", src, here.path("dst"), "--tp", "2").ok();
    assert!(here.path("dst/release/mp_rank_01/model_optim_rng.pt").exists());
    assert_eq!(fs::read_to_string(here.path("dst/latest_checkpointed_iteration.txt")).unwrap(), "release");
}

#[test]
fn what_a_view_cannot_have_is_said() {
    let here = tp2pp2();
    let other = ckpt!("materialize", here.path("src"), here.path("other"), "--tp", "1").ok();
    assert!(other.err.contains("rng_state") && other.err.contains("--rng omit"), "{}", other.err);
    let same = ckpt!("materialize", here.path("src"), here.path("same")).ok();
    assert!(!same.err.contains("rng_state"), "{}", same.err);
}

#[test]
fn a_materialized_copy_of_the_same_layout_is_the_source() {
    let here = tp2pp2();
    ckpt!("materialize", here.path("src"), here.path("same")).ok();
    for (tp, pp) in Cut::new(2, &[2, 2]).ranks() {
        let dir = Cut::new(2, &[2, 2]).rank_dir(tp, pp);
        let (a, b) = (
            read_pt_file(&rank_file(&here.path("src"), &dir)),
            read_pt_file(&rank_file(&here.path("same"), &dir)),
        );
        assert_eq!(a.tensors, b.tensors);
        let fields = |tree: &Value| format!("{:?}", tree.get("args"));
        assert_eq!(fields(&a.tree), fields(&b.tree));
    }
}

#[test]
fn every_command_knows_the_optimizers_state() {
    let here = Here::new();
    let trained = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/mcore-tiny/tied/tp1pp1_plain");
    let inspected = ckpt!("inspect", &trained, "--json").ok().json();
    assert_eq!(inspected["optimizer"]["encoding"], "mixed");
    assert_eq!(inspected["optimizer"]["step"], 2.0);
    assert_eq!(inspected["optimizer"]["states"], serde_json::json!(["master", "exp_avg", "exp_avg_sq"]));
    let table = ckpt!("inspect", &trained, "--tp", "2", "--optimizer", "distributed").ok().out;
    assert!(
        table.contains("mixed precision, 3 states") && table.contains("--use-distributed-optimizer"),
        "{table}"
    );
    let table = ckpt!("inspect", &trained, "--optimizer", "none").ok().out;
    assert!(
        table.contains("--no-load-optim") && table.contains("optimizer state (--optimizer none)"),
        "{table}"
    );

    let files = |flags: &[&str]| {
        let mut all: Vec<PathBuf> = vec!["ls".into(), trained.clone(), "--pp".into(), "2".into()];
        all.extend(flags.iter().map(PathBuf::from));
        program(&all).ok().out
    };
    assert!(!files(&[]).contains("distrib_optim.pt"));
    assert_eq!(files(&["--optimizer", "distributed"]).matches("distrib_optim.pt").count(), 2);
    assert!(files(&["--tensors"]).contains("optimizer/exp_avg_sq/decoder.layers.0.mlp.linear_fc1.weight"));

    ckpt!("materialize", &trained, here.path("tp2pp2"), "--optimizer", "distributed").ok();
    ckpt!("materialize", &trained, here.path("bare"), "--optimizer", "none", "--rng", "omit").ok();
    let same = ckpt!("verify", &trained, here.path("tp2pp2")).ok().out;
    assert!(same.contains("and 3 states of the optimizer"), "{same}");
    let report = ckpt!("verify", &trained, here.path("bare"));
    assert_eq!(report.code, 1);
    assert!(report.out.contains("only in the first checkpoint (--optimizer none"), "{}", report.out);
    ckpt!("verify", &trained, here.path("bare"), "--optimizer", "none").ok();

    let lines =
        |path: &Path| ckpt!("digest", path).ok().out.lines().map(ToOwned::to_owned).collect::<Vec<_>>();
    let digests = |path: &Path| {
        lines(path).iter().map(|line| line.split_once(' ').unwrap().0.to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(digests(&trained), digests(&here.path("tp2pp2")));
    assert_eq!(digests(&trained)[..1], digests(&here.path("bare")));
    assert!(lines(&trained)[1].ends_with("(optimizer)"));
    ckpt!("materialize", here.path("bare"), here.path("x"), "--optimizer", "mixed")
        .refused(2, &["no optimizer state"]);
}

#[test]
fn a_mount_does_not_hide_another_checkpoint() {
    let here = tp2pp2();
    ckpt!("materialize", here.path("src"), here.path("other"), "--tp", "1").ok();
    let point = here.path("other");
    ckpt!("mount", here.path("src"), &point).refused(7, &["other", "a checkpoint lies in it"]);
    assert!(point.join("latest_checkpointed_iteration.txt").is_file());
}

#[test]
fn missing_rank_files_are_said_before_what_an_optimizer_lacks() {
    let here = Here::new();
    let trained = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/mcore-tiny/tied/tp1pp1_plain");
    let src = here.path("src");
    ckpt!("materialize", &trained, &src, "--tp", "2", "--optimizer", "distributed").ok();
    fs::remove_dir_all(src.join("iter_0000002/mp_rank_01")).unwrap();
    let said = ckpt!("inspect", &src).refused(3, &["missing: mp_rank_01/model_optim_rng.pt"]);
    assert!(!said.err.contains("--optimizer"), "{}", said.err);
}
