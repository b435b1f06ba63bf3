//! Runs that save no arguments at all, as NeMo 2: the config of the same model as published says what they are.

use super::*;

/// A copy of a fixture as NeMo 2 would have saved it: without args, in a directory beside that of its configs.
fn of_nemo(name: &str) -> TempDir {
    let here = of_bridge(name, RUN_CONFIG);
    let copy = here.path().join("iter_0000007");
    fs::remove_file(copy.join("run_config.yaml")).unwrap();
    let run = here.path().join("step=7");
    fs::create_dir_all(run.join("context")).unwrap();
    let metadata = copy.join(".metadata");
    fs::write(&metadata, under_module(&fs::read(&metadata).unwrap())).unwrap();
    fs::rename(copy, run.join("weights")).unwrap();
    here
}

/// The pickle with `module.` before the names of the model's tensors, also where they follow the name of an optimizer's state.
fn under_module(pickle: &[u8]) -> Vec<u8> {
    const SHORT_TEXT: u8 = 0x8c;
    let names: [&[u8]; 3] = [b"decoder.", b"embedding.", b"output_layer."];
    let (mut found, mut at, mut renamed) = (Vec::new(), 0, 0);
    while let Some(byte) = pickle.get(at) {
        let text = pickle.get(at + 2..at + 2 + usize::from(pickle[(at + 1).min(pickle.len() - 1)]));
        let name = text.filter(|_| *byte == SHORT_TEXT).and_then(|text| {
            let of_state = text
                .strip_prefix(b"optimizer.state.")
                .and_then(|rest| rest.iter().position(|byte| *byte == b'.'));
            let start = of_state.map_or(0, |dot| b"optimizer.state.".len() + dot + 1);
            names.iter().any(|name| text[start..].starts_with(name)).then_some((text, start))
        });
        let Some((text, start)) = name else {
            found.push(*byte);
            at += 1;
            continue;
        };
        let text = [&text[..start], b"module.", &text[start..]].concat();
        found.extend([SHORT_TEXT, u8::try_from(text.len()).unwrap()]);
        found.extend(&text);
        at += 2 + text.len() - b"module.".len();
        renamed += 1;
    }
    assert!(renamed > 20, "{renamed}");
    found
}

/// A directory with the config of the model in this fixture.
fn template(name: &str, into: &Path) -> String {
    // The args of the fixtures lack what transformers wants; those of Bridge have it.
    let bridge = of_bridge(name, RUN_CONFIG);
    let source = bridge.path().join("iter_0000007").display().to_string();
    program(&["materialize", source.as_str(), &into.display().to_string(), "--as", "hf", "--quiet"]).ok();
    for file in fs::read_dir(into).unwrap().flatten().filter(|file| file.file_name() != "config.json") {
        fs::remove_file(file.path()).unwrap();
    }
    into.display().to_string()
}

#[test]
fn a_template_says_what_a_run_without_args_is() {
    let name = "optim/mcore0161_fullre_tp1dp2";
    let nemo = of_nemo(name);
    let template = template(name, &nemo.path().join("template"));
    let run = nemo.path().join("step=7").display().to_string();
    program(&["digest", run.as_str()]).refused(3, &["no 'args'", "--template"]);
    let wanted = digest("optim/legacy_plain_tp2pp2", &[]);
    for source in [run.clone(), format!("{run}/weights")] {
        let said = program(&["digest", source.as_str(), "--template", template.as_str()]).ok();
        let found: Vec<&str> = said.out.lines().map(|line| line.split_whitespace().next().unwrap()).collect();
        assert_eq!(found, wanted, "{source}");
    }
    let hf = nemo.path().join("hf").display().to_string();
    let flags = ["--as", "hf", "--template", template.as_str(), "--megatron-spec", "local", "--quiet"];
    program(&[&["materialize", run.as_str(), hf.as_str()], &flags[..]].concat()).ok();
    assert!(program(&["digest", hf.as_str()]).ok().out.starts_with(&wanted[0]));
    // Rank files too, with the optimizer.
    let ranks = nemo.path().join("ranks").display().to_string();
    let flags = ["--tp", "2", "--template", template.as_str(), "--megatron-spec", "local", "--quiet"];
    let pads = ["--make-vocab-size-divisible-by", "4"];
    program(&[&["materialize", run.as_str(), ranks.as_str()], &flags[..], &pads[..]].concat()).ok();
    let said = program(&["digest", ranks.as_str()]).ok();
    let found: Vec<&str> = said.out.lines().map(|line| line.split_whitespace().next().unwrap()).collect();
    assert_eq!(found, wanted);
}

#[test]
fn a_template_of_another_model_is_refused() {
    let name = "optim/mcore0161_fullre_tp1dp2";
    let nemo = of_nemo(name);
    let template = template(name, &nemo.path().join("template"));
    let file = Path::new(&template).join("config.json");
    let text = fs::read_to_string(&file).unwrap();
    let run = nemo.path().join("step=7").display().to_string();
    for (key, other, words) in [
        ("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3", &["layers"][..]),
        ("\"num_key_value_heads\": 2", "\"num_key_value_heads\": 4", &["linear_qkv"]),
        ("\"intermediate_size\": 44", "\"intermediate_size\": 40", &["linear_fc"]),
    ] {
        assert!(text.contains(key), "{key}: {text}");
        fs::write(&file, text.replace(key, other)).unwrap();
        let said = program(&["digest", run.as_str(), "--template", template.as_str()]);
        assert!(said.code != 0 && words.iter().all(|word| said.err.contains(word)), "{key}: {}", said.err);
    }
}
