//! What pictures say of a map that is made by hand, with names that would do harm.

use crate::inspect::{Cell, Map, Piece, Portion, Section, Side, Tensor, Unit};
use crate::layout::Rank;
use crate::picture::{Style, html, svg, text};

const EVIL: &str = "</script><script>alert('1')</script>&\u{1b}[2J\"";

fn cell(section: Section, from: &[(usize, u64, u64)], fill: u64, tensors: Vec<Tensor>) -> Cell {
    let from: Vec<Portion> = from.iter().map(|&(unit, bytes, shared)| Portion { unit, bytes, shared }).collect();
    let bytes = from.iter().map(|portion| portion.bytes).sum::<u64>() + fill;
    Cell { section, bytes, from, fill, cut: 0, shared: 0, tensors }
}

fn unit(name: &str, rank: Option<Rank>, cells: Vec<Cell>) -> Unit {
    Unit { name: name.to_owned(), rank, files: vec![format!("{name}.pt")], bytes: cells.iter().map(|cell| cell.bytes).sum(), cells }
}

fn side(units: Vec<Unit>) -> Side {
    Side { format: "megatron", layout: "tp2pp1".to_owned(), bytes: units.iter().map(|unit| unit.bytes).sum(), units }
}

fn tensor(name: &str) -> Tensor {
    let from = vec![Piece { file: Some(EVIL.to_owned()), offset: 4096, at: 0, run: 8, loops: Vec::new(), literal: None }];
    Tensor { name: name.to_owned(), dtype: "float32", shape: vec![2], file: 0, offset: 64, bytes: 8, of: 16, holders: 1, from }
}

fn rank(pp: u32, tp: u32) -> Option<Rank> {
    Some(Rank { pp, tp, ep: 0 })
}

/// Two files with hostile names, read by two ranks of one stage: one alike, one in parts.
fn map(layers: u32) -> Map {
    let sections: Vec<Section> = (0..layers).map(Section::Layer).collect();
    let stored = |number| sections.iter().map(|section| cell(*section, &[(number, 8, 0)], 0, Vec::new())).collect();
    let held = |tp: usize| {
        let of = |section: &Section| match section {
            Section::Layer(0) => cell(*section, &[(0, 8, 8)], 0, vec![tensor(EVIL)]),
            Section::Layer(1) => cell(*section, &[(0, 4, 0), (1, 2, 0)], 2, vec![tensor("b")]),
            _ => cell(*section, &[(tp, 8, 0)], 0, vec![tensor("c")]),
        };
        sections.iter().map(of).collect()
    };
    Map {
        directory: EVIL.to_owned(),
        from: side(vec![unit(EVIL, None, stored(0)), unit("other", None, stored(1))]),
        to: side(vec![unit("tp0", rank(0, 0), held(0)), unit("tp1", rank(0, 1), held(1))]),
        sections,
    }
}

fn plain(width: usize, unicode: bool) -> Style {
    Style { width, colour: false, unicode }
}

#[test]
fn names_do_no_harm() {
    let map = map(3);
    for drawn in [svg(&map), html(&map)] {
        assert!(!drawn.contains("<script>alert") && !drawn.contains('\u{1b}'));
        assert!(drawn.contains("&lt;/script&gt;&lt;script&gt;alert(&#39;1&#39;)") || drawn.contains("\\u003c/script\\u003e"));
    }
    assert_eq!(html(&map).matches("<script").count(), 2);
    let drawn = text(&map, plain(200, true));
    assert!(!drawn.contains('\u{1b}') && drawn.contains("\\u{1b}[2J"), "{drawn}");
}

#[test]
fn marks_of_the_page_in_a_name_are_left_alone() {
    let mut map = map(2);
    map.to.layout = "@@DATA@@".to_owned();
    assert!(html(&map).contains("megatron @@DATA@@"));
}

#[test]
fn lanes_that_differ_are_drawn_one_by_one_and_stretches_by_their_look() {
    let drawn = svg(&map(4));
    // Two files and two ranks, each with all layers.
    assert_eq!(drawn.matches("class=\"unit\" x=\"96\"").count(), 4);
    // Layers 2 and 3 look the same and are one stretch.
    assert_eq!(drawn.matches("<g><title>tp0: ").count(), 3);
    assert!(drawn.contains("<title>tp1: layers 2 to 3, 16 B, from other</title>"), "{drawn}");
    assert!(drawn.contains("class=\"fill\"") && drawn.contains("class=\"pale\""));
}

#[test]
fn letters_say_what_colours_do() {
    let said = text(&map(3), plain(40, false));
    let bars: Vec<&str> = said.lines().filter(|line| line.starts_with("tp") && line.contains("AAAAAA")).collect();
    assert_eq!(bars, ["tp0     AAAAAAAAAB..AAAAAA", "tp1     AAAAAAAAAB..BBBBBB"], "{said}");
    let coloured = text(&map(3), Style { width: 40, colour: true, unicode: true });
    let bare = coloured.split('\u{1b}').map(|part| part.split_once('m').map_or(part, |(start, rest)| if start.starts_with('[') { rest } else { part }));
    let unicode = text(&map(3), plain(40, true));
    assert_eq!(bare.collect::<String>(), unicode);
    assert!(coloured.contains("\u{1b}[48;5;74;38;5;16mAAAAAA\u{1b}[0m"), "{coloured:?}");
}

#[test]
fn what_finds_no_room_goes_on_below() {
    let said = text(&map(100), plain(48, false));
    let bars: Vec<usize> = said.lines().filter(|line| line.starts_with("tp1 ") && line.contains("BB")).map(str::len).collect();
    assert_eq!(bars, [48, 48, 28], "{said}");
    // A cell of three in one place is told by a sign, which is explained.
    assert!(said.contains("tp0     A+A") && said.contains("+ several of them"), "{said}");
}

#[test]
fn many_lanes_that_look_the_same_are_one() {
    let mut map = map(5);
    let like = |tp: u32| Unit { name: format!("tp{tp}"), rank: rank(0, tp), ..map.to.units[0].clone() };
    map.to.units = (0..256).map(like).collect();
    let drawn = svg(&map);
    assert!(drawn.contains(">tp0 to tp255</text>") && drawn.len() < 20_000, "{}", drawn.len());
    assert!(text(&map, plain(80, false)).contains("tp0 to tp255"));
    // All ranks are told all the same, and tensors once.
    let page = html(&map);
    assert!(page.contains("\"name\":\"tp200\"") && page.len() < 200_000, "{}", page.len());
}

#[test]
fn stages_and_files_of_a_side_are_named_in_one_way() {
    let sections: Vec<Section> = (0..60).map(Section::Layer).collect();
    let stage = |pp: u32, layers: std::ops::Range<u32>| {
        let cells = layers.map(|layer| cell(Section::Layer(layer), &[(0, 8, 0)], 0, Vec::new())).collect();
        unit(&format!("pp{pp}"), rank(pp, 0), cells)
    };
    // One layer has room for a number alone.
    let mut map = map(2);
    map.from = side(vec![unit("a", None, sections.iter().map(|section| cell(*section, &[(0, 8, 0)], 0, Vec::new())).collect())]);
    map.to = side(vec![stage(0, 0..30), stage(1, 30..60)]);
    map.sections = sections;
    assert!(svg(&map).contains(">pp0</text>") && svg(&map).contains(">pp1</text>"));
    map.to = side(vec![stage(0, 0..59), stage(1, 59..60)]);
    let drawn = svg(&map);
    assert!(drawn.contains(">pp</text>") && drawn.contains(">0</text>") && !drawn.contains(">pp0</text>"), "{drawn}");
}

/// What the page tells, and where it is told.
fn told(map: &Map) -> serde_json::Value {
    let page = html(map);
    let (_, rest) = page.split_once("id=\"data\">").unwrap();
    serde_json::from_str(rest.split_once("</script>").unwrap().0).unwrap()
}

#[test]
fn a_page_of_very_many_tensors_stays_small() {
    let experts = |count: usize| (0..count).map(|expert| tensor(&format!("layers.0.experts.{expert}.up"))).collect::<Vec<_>>();
    let mut map = map(1);
    let with = |tp: u32, count| unit(&format!("tp{tp}"), rank(0, tp), vec![cell(Section::Layer(0), &[(0, 8 * count as u64, 0)], 0, experts(count))]);
    // Ranks that look alike are told by the first of them, with all its tensors.
    map.to.units = vec![with(0, 11_000), with(1, 11_000)];
    let said = told(&map);
    let units = &said["sides"][1]["units"];
    assert_eq!((&units[0]["by"], &units[1]["by"]), (&serde_json::Value::Null, &serde_json::json!(0)));
    let rows = |unit: usize| units[unit]["cells"]["0"][5].as_array().unwrap().len();
    assert_eq!((rows(0), rows(1)), (11_000, 0));
    // Where these are still too many, those that differ in a number are told by the first.
    map.to.units = vec![with(0, 21_000)];
    map.to.units[0].cells[0].tensors.push(Tensor { shape: vec![1, 2], ..tensor("layers.0.experts.7.up") });
    let said = told(&map);
    let rows = said["sides"][1]["units"][0]["cells"]["0"][5].as_array().unwrap().clone();
    assert_eq!((rows.len(), &rows[0][8], &rows[0][4]), (2, &serde_json::json!(21_000), &serde_json::json!(168_000)));
    assert_eq!(said["words"][rows[0][0].as_u64().unwrap() as usize], "layers.0.experts.0.up");
}

#[test]
fn of_many_pieces_the_first_are_told_and_how_many_there_are() {
    let mut map = map(1);
    let many = std::iter::repeat_n(tensor("a").from, 9).flatten().collect();
    map.to.units[0].cells[0].tensors = vec![Tensor { from: many, ..tensor("a") }];
    let row = &told(&map)["sides"][1]["units"][0]["cells"]["0"][5][0];
    assert_eq!((row[7].as_array().unwrap().len(), &row[9]), (4, &serde_json::json!(9)));
}
