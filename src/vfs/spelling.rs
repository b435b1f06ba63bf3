//! What people write for a layout or a format: in any order, in capitals, with separators. Each that can mean one thing alone is taken for it.
//!
//! Not here: canonical names (`layout`), what a model can be cut into.

use crate::layout::{Format, LayoutSpec};

/// Most bytes of a name that is looked at. The longest layout has a number for each of its stages.
const LONGEST: usize = 255;

/// The sizes that a layout's name has, in the order in which a canonical one has them.
const SIZES: [&str; 5] = ["tp", "pp", "vpp", "ep", "etp"];

/// The layout that a name stands for: `tp8pp4`, `PP4TP8`, `tp8-pp4`, `tp1_pp2@10,32`.
pub(super) fn layout(name: &str) -> Option<LayoutSpec> {
    if let Ok(spec) = LayoutSpec::parse(name) {
        return Some(spec);
    }
    let name = name.get(..).filter(|name| name.len() <= LONGEST)?.to_ascii_lowercase();
    let (sizes, cut) = match name.split_once('@') {
        Some((sizes, cut)) => (sizes, Some(cut)),
        None => (name.as_str(), None),
    };
    let mut found: [Option<&str>; SIZES.len()] = [None; SIZES.len()];
    let mut rest = sizes;
    while !rest.is_empty() {
        let (key, after) = letters(rest);
        let (number, after) = digits(after);
        let slot = found.get_mut(SIZES.iter().position(|size| *size == key)?)?;
        // One that is said twice might mean either.
        if number.is_empty() || slot.replace(number).is_some() {
            return None;
        }
        rest = match after.strip_prefix(['-', '_']) {
            Some(after) if !after.is_empty() => after,
            Some(_) => return None,
            None => after,
        };
    }
    let sizes = SIZES.iter().zip(found).filter_map(|(size, number)| Some(format!("{size}{}", number?)));
    let cut = cut.into_iter().map(|cut| format!("@{cut}"));
    LayoutSpec::parse(&sizes.chain(cut).collect::<String>()).ok()
}

/// The format that a name stands for: `HF`, `vLLM`, `torch-dist`.
pub(super) fn format(name: &str) -> Option<Format> {
    let name = name.to_ascii_lowercase().replace('-', "_");
    Format::ALL.into_iter().find(|format| format.name() == name)
}

fn letters(text: &str) -> (&str, &str) {
    split(text, |byte| byte.is_ascii_lowercase())
}

/// A number without its leading zeros, and what follows it.
fn digits(text: &str) -> (&str, &str) {
    let (number, rest) = split(text, |byte| byte.is_ascii_digit());
    let short = number.trim_start_matches('0');
    (if short.is_empty() { number } else { short }, rest)
}

fn split(text: &str, is_within: impl Fn(u8) -> bool) -> (&str, &str) {
    let len = text.bytes().take_while(|byte| is_within(*byte)).count();
    match text.split_at_checked(len) {
        Some(parts) => parts,
        None => ("", text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_a_layout_is_that_layout() {
        let canonical = LayoutSpec::parse("tp8pp4vpp2ep2etp1").unwrap();
        for name in ["TP8PP4VPP2EP2ETP1", "etp1ep2vpp2pp4tp8", "tp8-pp4-vpp2-ep2-etp1", "tp08_pp4_vpp2_ep2_etp1"] {
            assert_eq!(layout(name), Some(canonical.clone()), "{name}");
        }
        assert_eq!(layout("PP2TP1@10,32"), LayoutSpec::parse("tp1pp2@10,32").ok());
        assert_eq!(layout("tp4"), LayoutSpec::parse("tp4").ok());
        assert_eq!(layout("pp2"), LayoutSpec::parse("pp2").ok());
    }

    #[test]
    fn what_might_mean_two_things_means_none() {
        for name in ["tp8tp8", "tp", "8", "tp8pp", "tp8-", "tp8--pp4", "tp 8", "xp4", ".git", "tp8.bak", "", "@1,2", "tp8pp4@", "\u{e9}tp8"] {
            assert_eq!(layout(name), None, "{name}");
        }
    }

    #[test]
    fn formats_are_known_in_capitals_too() {
        assert_eq!(format("HF"), Some(Format::Hf));
        assert_eq!(format("vLLM"), Some(Format::Vllm));
        assert_eq!(format("Torch-Dist"), Some(Format::TorchDist));
        assert_eq!(format("huggingface"), None);
    }
}
