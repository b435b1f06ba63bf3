//! Links, and what is no file: a checkpoint shows what lies in it, and nothing else of the machine.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use crate::bounds::{MB, Victim, alone, opened_within};
use crate::ckpt;
use crate::common::source::ITERATION;
use crate::headers::Model;

const SOURCE: i32 = 3;

const SECRET: &str = "root:secret:";

/// What a view of `model` as a model directory shows, by name.
fn shown(model: &Path, out: &Path) -> (String, Vec<String>) {
    let said = ckpt!("materialize", model, out, "--as", "hf").ok();
    let mut names: Vec<String> =
        fs::read_dir(out).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    for name in &names {
        let bytes = fs::read(out.join(name)).unwrap();
        assert!(
            !bytes.windows(SECRET.len()).any(|window| window == SECRET.as_bytes()),
            "{name} shows a secret"
        );
    }
    (said.err, names)
}

#[test]
fn a_file_beside_weights_that_is_a_link_out_is_not_shown() {
    let model = Model::new(1);
    let secret = model.dir.path().join("shadow");
    fs::write(&secret, SECRET).unwrap();
    fs::write(model.file("tokenizer.json"), "{}").unwrap();
    symlink("tokenizer.json", model.file("a link within")).unwrap();
    symlink(&secret, model.file("merges.txt")).unwrap();
    symlink("../shadow", model.file("vocab.json")).unwrap();
    // By way of another link, and of a directory that is one.
    symlink("merges.txt", model.file("twice.txt")).unwrap();
    symlink("..", model.file("up")).unwrap();
    symlink("up/shadow", model.file("through.txt")).unwrap();
    let (said, names) = shown(&model.path(), &model.dir.path().join("out"));
    assert_eq!(names, ["a link within", "config.json", "model.safetensors", "tokenizer.json"]);
    for name in ["merges.txt", "vocab.json", "twice.txt", "through.txt", "links out of the model's directory"]
    {
        assert!(said.contains(name), "{name} is missing in {said}");
    }
    let inspected = ckpt!("inspect", model.path(), "--json").ok().json();
    assert!(inspected["left_out"].to_string().contains("merges.txt"), "{inspected}");
    // The same of a template, whose config would be shown too.
    let source = Model::new(1);
    let out = model.dir.path().join("templated");
    let said = ckpt!("materialize", source.path(), &out, "--as", "hf", "--template", model.path()).ok();
    assert!(said.err.contains("merges.txt") && !out.join("merges.txt").exists(), "{}", said.err);
    fs::rename(model.file("config.json"), model.dir.path().join("other.json")).unwrap();
    symlink("../other.json", model.file("config.json")).unwrap();
    let out = model.dir.path().join("again");
    ckpt!("materialize", source.path(), &out, "--as", "hf", "--template", model.path())
        .refused(SOURCE, &["config.json", "link out of the directory"]);
}

#[test]
fn a_cache_of_the_hub_works() {
    // models--ORG--NAME/snapshots/REVISION/file -> ../../blobs/HASH
    let model = Model::new(2);
    fs::write(model.file("tokenizer.json"), "{}").unwrap();
    fs::write(model.file("merges.txt"), "a b").unwrap();
    let cache = model.dir.path().join("models--org--name");
    let snapshot = cache.join("snapshots/0123abcd");
    let blobs = cache.join("blobs");
    fs::create_dir_all(&snapshot).unwrap();
    fs::create_dir_all(&blobs).unwrap();
    for (number, entry) in fs::read_dir(model.path()).unwrap().enumerate() {
        let entry = entry.unwrap();
        let hash = format!("{number:040x}");
        fs::rename(entry.path(), blobs.join(&hash)).unwrap();
        symlink(format!("../../blobs/{hash}"), snapshot.join(entry.file_name())).unwrap();
    }
    let all = ["config.json", "merges.txt", "model.safetensors", "tokenizer.json"];
    let (said, names) = shown(&snapshot, &model.dir.path().join("out"));
    assert_eq!(names, all, "{said}");
    // A directory that an older version downloaded to, with links into the cache; and the cache behind a link of its own.
    let local = model.dir.path().join("local");
    fs::create_dir(&local).unwrap();
    for entry in fs::read_dir(&snapshot).unwrap() {
        let entry = entry.unwrap();
        symlink(fs::canonicalize(entry.path()).unwrap(), local.join(entry.file_name())).unwrap();
    }
    symlink(&cache, model.dir.path().join("models")).unwrap();
    for (number, path) in [local, model.dir.path().join("models/snapshots/0123abcd")].into_iter().enumerate()
    {
        let (said, names) = shown(&path, &model.dir.path().join(format!("out-{number}")));
        assert_eq!(names, all, "{said}");
    }
    // What only looks like a blob is none.
    for place in ["blobs/shadow", "shadow", "refs/0123456789012345678901234567890123456789"] {
        let secret = cache.join(place);
        fs::create_dir_all(secret.parent().unwrap()).unwrap();
        fs::write(&secret, SECRET).unwrap();
        symlink(&secret, snapshot.join(place.replace('/', "-"))).unwrap();
    }
    let (_, names) = shown(&snapshot, &model.dir.path().join("without"));
    assert_eq!(names, all);
}

#[test]
fn links_of_the_users_own_work() {
    let _alone = alone();
    // The run, its iteration and a rank file on another disk, and `latest` beside them.
    let victim = Victim::new();
    fs::rename(victim.src().join(ITERATION), victim.path("disk")).unwrap();
    symlink(victim.path("disk"), victim.src().join(ITERATION)).unwrap();
    fs::rename(victim.path("disk/mp_rank_00/model_optim_rng.pt"), victim.path("file.pt")).unwrap();
    symlink("../../file.pt", victim.path("disk/mp_rank_00/model_optim_rng.pt")).unwrap();
    let tracker = victim.src().join("latest_checkpointed_iteration.txt");
    fs::rename(&tracker, victim.path("tracker.txt")).unwrap();
    symlink(victim.path("tracker.txt"), &tracker).unwrap();
    symlink("src", victim.path("latest")).unwrap();
    for path in [victim.src(), victim.path("latest"), victim.path("disk")] {
        opened_within(&path, 16 * MB).unwrap();
    }
    // A model whose weights and config lie elsewhere: they are read and must be what they should be.
    let model = Model::new(1);
    for name in ["model.safetensors", "config.json"] {
        fs::rename(model.file(name), model.dir.path().join(name)).unwrap();
        symlink(format!("../{name}"), model.file(name)).unwrap();
    }
    opened_within(&model.path(), 16 * MB).unwrap();
}

#[test]
fn links_that_lead_to_what_is_no_checkpoint_show_nothing_of_it() {
    let secret = format!("{SECRET}{}", "x".repeat(600));
    for name in ["model.safetensors", "config.json"] {
        let model = Model::new(1);
        fs::write(model.dir.path().join("shadow"), &secret).unwrap();
        fs::remove_file(model.file(name)).unwrap();
        symlink("../shadow", model.file(name)).unwrap();
        let said = ckpt!("inspect", model.path());
        assert!(!said.err.contains("secret"), "{}", said.err);
        said.refused(SOURCE, &[name]);
    }
    let victim = Victim::new();
    fs::write(victim.path("shadow"), &secret).unwrap();
    fs::remove_file(victim.file()).unwrap();
    symlink(victim.path("shadow"), victim.file()).unwrap();
    let said = ckpt!("inspect", victim.src());
    assert!(!said.err.contains("secret"), "{}", said.err);
    said.refused(SOURCE, &["model_optim_rng.pt", "this is text"]);
}

#[test]
fn loops_pipes_sockets_and_devices_in_the_place_of_files() {
    type Put = fn(&Path);
    let in_place: [(&str, Put, &str); 5] = [
        ("loop", |path| symlink(path.file_name().unwrap(), path).unwrap(), ""),
        ("pipe", |path| assert!(Command::new("mkfifo").arg(path).status().unwrap().success()), "pipe"),
        ("socket", |path| drop(UnixListener::bind(path).unwrap()), "socket"),
        ("device", |path| symlink("/dev/zero", path).unwrap(), "device"),
        ("terminal", |path| symlink("/dev/tty", path).unwrap(), "device"),
    ];
    for (what, put, word) in in_place {
        for name in ["model.safetensors", "config.json", "tokenizer.json"] {
            let model = Model::new(1);
            let _ = fs::remove_file(model.file(name));
            put(&model.file(name));
            let said = ckpt!("inspect", model.path());
            // Beside the weights a link to a device leads out, and is left out.
            let leads_out = name == "tokenizer.json" && matches!(what, "device" | "terminal");
            if leads_out {
                said.ok();
            } else {
                said.refused(SOURCE, &[name, word]);
            }
        }
        let victim = Victim::new();
        let tracker = victim.src().join("latest_checkpointed_iteration.txt");
        for path in [victim.file(), tracker] {
            fs::remove_file(&path).unwrap();
            put(&path);
            let name = path.file_name().unwrap().to_str().unwrap();
            ckpt!("inspect", victim.src()).refused(SOURCE, &[name, word]);
        }
    }
    // A directory that is a link to itself.
    let victim = Victim::new();
    let ring = victim.path("ring");
    symlink("ring", &ring).unwrap();
    ckpt!("inspect", &ring).refused(SOURCE, &["ring"]);
    fs::remove_dir_all(victim.src().join(ITERATION)).unwrap();
    symlink(ITERATION, victim.src().join(ITERATION)).unwrap();
    ckpt!("inspect", victim.src()).refused(SOURCE, &[ITERATION]);
}

#[test]
fn a_tracker_names_an_iteration_and_no_path() {
    let _alone = alone();
    let victim = Victim::new();
    let tracker = victim.src().join("latest_checkpointed_iteration.txt");
    for text in ["../other", "/etc", "100/../../x", "iter_0000100", "100\0", "-1", "1e2", "release/..", "١٠٠"]
    {
        fs::write(&tracker, text).unwrap();
        let error = opened_within(&victim.src(), 8 * MB).unwrap_err();
        assert!(error.contains("latest_checkpointed_iteration.txt"), "{text}: {error}");
    }
}
