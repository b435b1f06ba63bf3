//! `map`: every byte of a view is in one place of it and is made of what `ls` says, what is alike is counted, and pictures are well formed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;

use serde_json::{Value as Json, json};

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/");
const YUAN: &str = "yuan-tiny/pp2b24_tp2_none";
/// One whose optimizer's steps are in a file that is of no piece.
const STEPS_IN_COMMON: &str = "dist-tiny/megatron/optim/mcore0161_plain_tp2pp2";

/// Sources of every kind, and flags of views.
const CASES: &[(&str, &str)] = &[
    (YUAN, "--tp 4 --pp 3"),
    (YUAN, "--tp 1 --pp 1"),
    (YUAN, "--as hf --shard-size 90KB"),
    (YUAN, "--as safetensors --tp 2 --pp-layers 1,5"),
    (YUAN, "--as dcp"),
    ("yuan-tiny/pp4b1221_tp4_none", "--tp 2 --pp 3"),
    ("gpt-tiny/pp1_tp1_f16", "--tp 4 --pp 4"),
    ("gpt-tiny/pp1_tp1_f16", "--tp 2 --pp 1 --optimizer none"),
    ("mcore-tiny/moe/tp1pp2vpp2ep2_dist", ""),
    ("mcore-tiny/moe/tp1pp2vpp2ep2_dist", "--tp 2 --pp 2 --ep 4 --optimizer none"),
    ("mcore-tiny/moe/tp1pp2vpp2ep2_dist", "--tp 2 --pp 2 --vpp 2 --ep 2"),
    ("mcore-tiny/moe/tp1pp2vpp2ep2_dist", "--as torch_dist"),
    ("mcore-tiny/tied/tp1pp2_distb1000", "--tp 1 --pp 2"),
    ("mcore-tiny/tied/tp1pp1_plain", "--as torch_dist"),
    ("megatron-tiny/untied/dist_tp1pp2_first3", "--tp 2 --pp 1"),
    ("dist-tiny/dcp/llama_untied/hf", "--as hf"),
    ("dist-tiny/dcp/llama_tied_bf16/hf", "--as vllm --tp 2"),
    ("dist-tiny/dcp/llama_tied_bf16/fsdp2_n3", "--as hf"),
    ("dist-tiny/megatron/mtp/mcore0161_tp1pp1", "--tp 2 --pp 2"),
    ("dist-tiny/megatron/moe/mcore0161_dpzero_tp2pp2ep2_etp1", "--tp 2 --pp 2 --ep 2"),
    ("dist-tiny/megatron/optim/mcore0161_fullre_tp1dp2", "--as torch_dist"),
    ("dist-tiny/megatron/optim/legacy_plain_tp2pp2", "--tp 4 --pp 1"),
    (STEPS_IN_COMMON, "--as megatron"),
];

fn said(command: &str, source: &str, flags: &str) -> Json {
    let source = format!("{FIXTURES}{source}");
    let mut words = vec![command, source.as_str(), "--json"];
    words.extend(flags.split_whitespace());
    if command == "ls" {
        words.push("--tensors");
    }
    crate::common::run::program(&words).ok().json()
}

fn number(value: &Json) -> u64 {
    value.as_u64().unwrap()
}

fn list(value: &Json) -> &Vec<Json> {
    value.as_array().unwrap()
}

/// For each byte of a tensor that pieces fill, a number for where it comes from; one that is filled twice is wrong.
fn bytes_of(pieces: &Json, strip: &str, filled: &mut [Option<u64>]) {
    for piece in list(pieces) {
        let mut runs = vec![(number(&piece["offset"]), number(&piece["at"]))];
        for of in list(&piece["loops"]) {
            let (count, step, to) = (number(&of["count"]), number(&of["step"]), number(&of["to"]));
            let turns =
                |&(from, at): &(u64, u64)| (0..count).map(move |turn| (from + turn * step, at + turn * to));
            runs = runs.iter().flat_map(turns).collect();
        }
        let file = piece["file"].as_str().map(|file| file.strip_prefix(strip).unwrap_or(file));
        let start = file.map_or(u64::MAX / 2, |file| {
            let mut hasher = DefaultHasher::new();
            file.hash(&mut hasher);
            hasher.finish() >> 2
        });
        for (from, at) in runs {
            for byte in 0..number(&piece["run"]) {
                let place = &mut filled[usize::try_from(at + byte).unwrap()];
                assert_eq!(*place, None, "twice");
                *place = Some(start + from + byte);
            }
        }
    }
}

type Tensors = BTreeMap<(String, String), Vec<Option<u64>>>;

fn listed(listing: &Json, strip: &str) -> Tensors {
    let mut all = Tensors::new();
    for file in list(&listing["files"]) {
        for tensor in list(&file["tensors"]) {
            let mut filled = vec![None; usize::try_from(number(&tensor["bytes"])).unwrap()];
            bytes_of(&tensor["from"], strip, &mut filled);
            let key =
                (file["path"].as_str().unwrap().to_owned(), tensor["name"].as_str().unwrap().to_owned());
            assert!(all.insert(key, filled).is_none());
        }
    }
    all
}

fn cells(map: &Json) -> impl Iterator<Item = (&Json, &Json)> {
    list(&map["to"]["units"])
        .iter()
        .flat_map(|unit| list(&unit["cells"]).iter().map(move |cell| (unit, cell)))
}

/// The tensors of a map, section by section put together again, over those that are expected: nothing is twice and nothing is missing.
fn mapped(map: &Json, expected: &Tensors) -> Tensors {
    let mut all: Tensors =
        expected.iter().map(|(key, bytes)| (key.clone(), vec![None; bytes.len()])).collect();
    for (unit, cell) in cells(map) {
        let mut sum = 0;
        for tensor in list(&cell["tensors"]) {
            let file = unit["files"][usize::try_from(number(&tensor["file"])).unwrap()].as_str().unwrap();
            let key = (file.to_owned(), tensor["name"].as_str().unwrap().to_owned());
            bytes_of(&tensor["from"], "", all.get_mut(&key).unwrap());
            sum += number(&tensor["bytes"]);
        }
        assert_eq!(number(&cell["bytes"]), sum);
        let portions: u64 = list(&cell["from"]).iter().map(|portion| number(&portion["bytes"])).sum();
        assert_eq!(portions + number(&cell["fill"]), sum, "{cell}");
    }
    all
}

#[test]
fn every_byte_of_a_view_is_in_one_cell_and_is_of_the_place_that_ls_says() {
    for (source, flags) in CASES {
        let (map, listing) = (said("map", source, flags), said("ls", source, flags));
        let directory = format!("{}/", map["directory"].as_str().unwrap());
        let expected = listed(&listing, &directory);
        assert!(mapped(&map, &expected) == expected, "{source} {flags}");
        let bytes: usize = expected.values().map(Vec::len).sum();
        assert_eq!(number(&map["to"]["bytes"]), bytes as u64, "{source} {flags}");
    }
}

/// A unit of the source is what its name says: portions are of the files that pieces are in.
#[test]
fn portions_are_of_the_units_whose_files_are_read() {
    for (source, flags) in CASES {
        let map = said("map", source, flags);
        for (_, cell) in cells(&map) {
            let mut read: BTreeMap<usize, u64> = BTreeMap::new();
            for piece in list(&cell["tensors"]).iter().flat_map(|tensor| list(&tensor["from"])) {
                let Some(file) = piece["file"].as_str() else { continue };
                let units = list(&map["from"]["units"]);
                let unit =
                    units.iter().position(|unit| list(&unit["files"]).iter().any(|own| own == file)).unwrap();
                let turns: u64 = list(&piece["loops"]).iter().map(|of| number(&of["count"])).product();
                *read.entry(unit).or_default() += turns * number(&piece["run"]);
            }
            let said: Vec<Json> =
                list(&cell["from"]).iter().map(|of| json!([of["unit"], of["bytes"]])).collect();
            let expected: Vec<Json> = read.iter().map(|(unit, bytes)| json!([unit, bytes])).collect();
            assert_eq!(said, expected, "{source} {flags}");
        }
    }
}

/// What is in a file of the source is not said to be in none, and is there once however many tensors have it.
#[test]
fn what_no_piece_holds_is_of_the_file_that_it_is_in() {
    let map = said("map", STEPS_IN_COMMON, "--as megatron");
    let common = list(&map["from"]["units"]).iter().position(|unit| unit["name"] == "common.pt").unwrap();
    let unit = &map["from"]["units"][common];
    assert_eq!(
        (&unit["files"], &unit["bytes"], &unit["rank"]),
        (&json!(["common.pt"]), &json!(4), &Json::Null)
    );
    let (_, cell) = cells(&map).find(|(_, cell)| cell["section"] == "other").unwrap();
    assert_eq!(cell["from"], json!([{ "unit": common, "bytes": 60, "shared": 0 }]));
    assert_eq!((number(&cell["bytes"]), number(&cell["fill"])), (60, 0));
}

/// Names count layers from 0 on each stage, or through the model: either says in which layer a tensor is.
#[test]
fn tensors_are_in_the_sections_that_their_names_say() {
    let layer_in = |name: &str| {
        let (_, rest) = name.split_once("layers.")?;
        rest.split('.').next()?.parse::<usize>().ok()
    };
    type First<'a> = &'a dyn Fn(u64, usize) -> usize;
    let firsts: [(&str, &str, First<'_>); 4] = [
        (YUAN, "--tp 4 --pp 3", &|stage, _| [0, 2, 4][stage as usize]),
        (YUAN, "--tp 1 --pp-layers 1,5", &|stage, _| [0, 1][stage as usize]),
        (YUAN, "--as hf", &|_, _| 0),
        ("mcore-tiny/moe/tp1pp2vpp2ep2_dist", "--optimizer none", &|stage, chunk| chunk * 2 + stage as usize),
    ];
    for (source, flags, first) in firsts {
        let map = said("map", source, flags);
        let mut seen = BTreeSet::new();
        for (unit, cell) in cells(&map) {
            for tensor in list(&cell["tensors"]) {
                let name = tensor["name"].as_str().unwrap();
                let chunk = name.strip_prefix("model").and_then(|rest| rest.split('/').next()?.parse().ok());
                let stage = unit["rank"]["pp"].as_u64().unwrap_or(0);
                let expected = match layer_in(name) {
                    Some(layer) => format!("layer {}", layer + first(stage, chunk.unwrap_or(0))),
                    None if name.contains("final")
                        || name.contains("head")
                        || name == "model.norm.weight" =>
                    {
                        "head".to_owned()
                    }
                    None if stage == 0 => "embedding".to_owned(),
                    None => "head".to_owned(),
                };
                assert_eq!(cell["section"], expected, "{source} {flags}: {name}");
                seen.insert(expected);
            }
        }
        let sections: Vec<&str> =
            list(&map["sections"]).iter().map(|section| section.as_str().unwrap()).collect();
        assert_eq!(
            sections.iter().copied().collect::<BTreeSet<_>>(),
            seen.iter().map(String::as_str).collect()
        );
        assert_eq!((sections[0], sections[sections.len() - 1]), ("embedding", "head"));
    }
}

#[test]
fn what_ranks_hold_alike_and_parts_of_is_counted() {
    let map = said("map", "mcore-tiny/moe/tp1pp2vpp2ep2_dist", "--tp 2 --pp 2 --ep 4 --optimizer none");
    let all: Vec<(&Json, &Json, &Json)> = cells(&map)
        .flat_map(|(unit, cell)| list(&cell["tensors"]).iter().map(move |tensor| (unit, cell, tensor)))
        .collect();
    let mut kinds: HashMap<&str, BTreeSet<(u64, u64)>> = HashMap::new();
    for (unit, cell, tensor) in &all {
        let alike = all.iter().filter(|(_, other_cell, other)| {
            (&cell["section"], &tensor["name"], &tensor["from"])
                == (&other_cell["section"], &other["name"], &other["from"])
        });
        let beside = all.iter().filter(|(other_unit, other_cell, other)| {
            let same = |field| unit["rank"][field] == other_unit["rank"][field];
            same("pp")
                && same("ep")
                && (&cell["section"], &tensor["name"]) == (&other_cell["section"], &other["name"])
        });
        let parts: BTreeMap<String, u64> =
            beside.map(|(.., other)| (other["from"].to_string(), number(&other["bytes"]))).collect();
        assert_eq!(number(&tensor["holders"]), alike.count() as u64, "{tensor}");
        assert_eq!(number(&tensor["of"]), parts.values().sum::<u64>(), "{tensor}");
        let (of, holders) = (number(&tensor["of"]) / number(&tensor["bytes"]), number(&tensor["holders"]));
        let name = tensor["name"].as_str().unwrap().rsplit('.').nth(1).unwrap();
        kinds.entry(name).or_default().insert((of, holders));
    }
    // A norm is whole on all eight ranks of its stage, what attention is cut into is on the four of each tensor-parallel rank.
    assert_eq!(kinds["input_layernorm"], BTreeSet::from([(1, 8)]));
    assert!(kinds["linear_proj"].contains(&(2, 4)), "{kinds:?}");
}

#[test]
fn a_tensor_of_several_layers_is_told_layer_by_layer() {
    // Flat buffers of an optimizer go through all layers of a rank.
    let map = said("map", "mcore-tiny/tied/tp1pp2_distb1000", "--tp 1 --pp 2");
    let buffer = |cell: &Json| {
        list(&cell["tensors"]).iter().any(|tensor| {
            number(&tensor["of"]) > 0 && tensor["name"].as_str().unwrap().contains("exp_avg_sq")
        })
    };
    let sections: BTreeSet<String> =
        cells(&map).filter(|(_, cell)| buffer(cell)).map(|(_, cell)| cell["section"].to_string()).collect();
    let expected = ["embedding", "layer 0", "layer 1", "layer 2", "layer 3", "head"];
    assert_eq!(sections, expected.iter().map(|name| format!("\"{name}\"")).collect());
}

fn drawn(kind: &str, source: &str, flags: &str) -> String {
    let source = format!("{FIXTURES}{source}");
    let mut words = vec!["map", source.as_str(), "--format", kind];
    words.extend(flags.split_whitespace());
    crate::common::run::program(&words).ok().out
}

/// New rows and constants of an engine are where the tensors are that they are for.
#[test]
fn what_no_file_of_the_source_has_is_beside_what_it_is_for() {
    let map = said("map", "dist-tiny/dcp/llama_tied_bf16/hf", "--as vllm --tp 2");
    let made = cells(&map).filter(|(_, cell)| number(&cell["fill"]) > 0);
    let made: BTreeSet<String> = made.map(|(_, cell)| cell["section"].to_string()).collect();
    assert_eq!(made, ["head", "layer 0", "layer 1"].iter().map(|name| format!("\"{name}\"")).collect());
}

#[test]
fn pictures_are_drawn_of_every_source_and_view() {
    for (source, flags) in CASES {
        for kind in ["svg", "html", "text"] {
            let text = drawn(kind, source, flags);
            assert!(
                text.contains(" \u{2192} ") || kind == "text" && text.contains(" -> "),
                "{source} {flags}: {kind}"
            );
        }
    }
}

#[test]
fn a_picture_is_of_the_kind_that_the_name_of_its_file_says() {
    let dir = tempfile::tempdir().unwrap();
    let source = format!("{FIXTURES}{YUAN}");
    let starts = [
        ("a.svg", "<svg xmlns"),
        ("b.html", "<!DOCTYPE html>"),
        ("c.txt", "megatron tp2pp2"),
        ("d.json", "{"),
    ];
    for (name, start) in starts {
        let path = dir.path().join(name);
        let said = ckpt!("map", source, "--tp", "4", "--pp", "1", "-o", path).ok();
        assert_eq!(said.out, "");
        assert!(fs::read_to_string(&path).unwrap().starts_with(start), "{name}");
        let other = ckpt!("map", source, "--tp", "4", "--pp", "1", "--format", "SVG", "-o", path).ok();
        assert_eq!(other.out, "");
        assert!(fs::read_to_string(&path).unwrap().starts_with("<svg"), "{name}");
    }
    let into = |path: &Path| ckpt!("map", source, "-o", path);
    into(&dir.path().join("picture")).refused(2, &["picture", "--format"]);
    into(&dir.path().join("nowhere/a.svg")).refused(6, &["nowhere/a.svg"]);
    into(dir.path()).refused(2, &["--format"]);
}

#[test]
fn what_cannot_be_drawn_is_refused() {
    let source = format!("{FIXTURES}{YUAN}");
    ckpt!("map", source, "--format", "png").refused(2, &["png", "text", "html", "svg"]);
    ckpt!("map", source, "--json", "--format", "svg").refused(2, &["--json", "--format"]);
    ckpt!("map", source, "--tp", "3").refused(5, &["3"]);
    ckpt!("map", source, "--as", "vllm").refused(4, &["vllm"]);
    ckpt!("map", format!("{FIXTURES}expected")).refused(3, &["expected"]);
}

#[test]
fn text_is_as_wide_as_it_may_be_and_plain_where_it_is_no_terminal() {
    let text = drawn("text", "yuan-tiny/pp4b1221_tp4_none", "--as hf --shard-size 90KB");
    assert!(!text.contains('\u{1b}'));
    let bar = |label: &str| text.lines().find(|line| line.starts_with(label)).unwrap().to_owned();
    assert_eq!(bar("tp0"), "tp0     AAAAAAAAAAAAEEEEEEEEEEEEIIIIIIIIIIIIMMMMMMMMMMMM");
    assert!(bar("view").contains("AABCCD"), "{text}");
    assert!(text.contains("P pp3 tp3") && text.contains("model-00004-of-00004.safetensors"), "{text}");
}
