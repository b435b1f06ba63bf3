//! Pieces and files: what a reader of a part has to read, and in which file it is.

use std::collections::BTreeMap;

use super::Opened;
use crate::common::naive::{Config, Cut, Kind, Moe};
use crate::common::source::Checkpoint;
use ckpt_fs::view::{ConversionOptions, ViewOptions};

/// The pieces in each data file: name and bytes of data.
fn pieces(config: &Config, piece_size: u64, shard_size: u64) -> Vec<Vec<(String, u64)>> {
    let dir = tempfile::tempdir().unwrap();
    Checkpoint::new(config, &Cut::new(1, &[config.layers])).write(dir.path());
    let conversion = ConversionOptions { piece_size, shard_size, ..ConversionOptions::default() };
    let opened = Opened::new(dir.path(), conversion, ViewOptions::default()).unwrap();
    let data = opened.view.files().iter().enumerate().filter(|(_, file)| file.path.ends_with(".distcp"));
    let of = |number: usize| {
        let tensors = opened.view.plan(number).unwrap().tensors;
        tensors
            .into_iter()
            .map(|tensor| (tensor.name.to_string(), tensor.bytes.end - tensor.bytes.start))
            .collect()
    };
    data.enumerate()
        .map(|(number, (index, file))| {
            assert!(file.path.ends_with(&format!("/__{number}_0.distcp")), "{}", file.path);
            of(index)
        })
        .collect()
}

#[test]
fn tensors_are_cut_as_ranks_would_cut_them() {
    let config = Config { hidden: 8, heads: 8, groups: 4, head: 2, ffn: 32, ..Config::default() };
    let all: Vec<String> = pieces(&config, 32, 1 << 30).into_iter().flatten().map(|(name, _)| name).collect();
    let of = |key: &str| {
        all.iter().filter_map(|name| name.strip_prefix(key)).map(String::from).collect::<Vec<_>>()
    };
    // Eight parts of the gate, then eight of up, in each layer.
    let fc1 = of("decoder.layers.mlp.linear_fc1.weight[0:1, ");
    let wanted: Vec<String> = (0..16).map(|part| format!("{}:{}, 0:8]", 4 * part, 4 * part + 4)).collect();
    assert_eq!(fc1, wanted);
    // Query groups stay whole: four of them, of eight rows.
    let qkv = of("decoder.layers.self_attention.linear_qkv.weight[3:4, ");
    assert_eq!(qkv, ["0:8, 0:8]", "8:16, 0:8]", "16:24, 0:8]", "24:32, 0:8]"]);
    // Columns of what ranks hold columns of.
    let fc2 = of("decoder.layers.mlp.linear_fc2.weight[1:2, ");
    assert_eq!(fc2.len(), 8);
    assert_eq!(fc2[1], "0:8, 4:8]");
    // Norms are not worth it.
    assert_eq!(of("decoder.layers.mlp.linear_fc1.layer_norm_weight[2:3, "), ["0:8]"]);
    assert_eq!(of("decoder.final_layernorm.weight"), ["[0:8]"]);
}

#[test]
fn files_are_filled_layer_by_layer() {
    let moe = Moe { experts: 4, grouped: true, ..Moe::default() };
    let config = Config { kind: Kind::CoreTe, moe: Some(moe), ..Config::default() };
    let most = 4000;
    let files = pieces(&config, 1 << 20, most);
    assert!(files.len() > 3);
    let bytes = |file: &[(String, u64)]| file.iter().map(|(_, bytes)| bytes).sum::<u64>();
    let largest = files.iter().flatten().map(|(_, bytes)| *bytes).max().unwrap();
    assert!(largest < most && files.iter().all(|file| bytes(file) <= most));
    // No file is left off before it is full.
    assert!(files[..files.len() - 1].iter().all(|file| bytes(file) > most - largest));
    let mut layers: BTreeMap<usize, (u64, u64)> = BTreeMap::new();
    for (number, file) in files.iter().enumerate() {
        let of = |(name, _): &(String, u64)| {
            let place = name.strip_prefix("decoder.layers.")?.split_once('[')?.1;
            place.split_once(':')?.0.parse::<u64>().ok()
        };
        let found: Vec<u64> = file.iter().filter_map(of).collect();
        layers.insert(number, (*found.iter().min().unwrap_or(&0), *found.iter().max().unwrap_or(&0)));
    }
    let spans: Vec<(u64, u64)> = layers.into_values().collect();
    assert!(spans.windows(2).all(|pair| pair[0].1 <= pair[1].0 || pair[1] == (0, 0)), "{spans:?}");
}
