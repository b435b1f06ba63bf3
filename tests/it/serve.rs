//! What programs read without a mount: `cat`, `serve` with its lines and bytes, and progress as lines.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::common::hf::{self, Arch};
use crate::common::naive::{Config, Cut};
use crate::common::run::{PROGRAM, snapshot};
use crate::common::source::Checkpoint;
use serde_json::{Value as Json, json};
use tempfile::TempDir;

struct Here {
    dir: TempDir,
}

impl Here {
    /// A model as `src`, and what `flags` make of it as `dst`.
    fn with(flags: &[&str]) -> Self {
        let here = Self { dir: tempfile::tempdir().unwrap() };
        let config = Config { heads: 8, groups: 4, ffn: 24, vocab: 25, ..Config::default() };
        let mut checkpoint = Checkpoint::new(&config, &Cut::new(2, &[2, 2]));
        for (field, value) in hf::args(Arch::Llama, &config) {
            checkpoint = checkpoint.arg(field, &value);
        }
        checkpoint.write(&here.path("src"));
        let (src, dst) = (here.path("src"), here.path("dst"));
        let mut command = Command::new(PROGRAM);
        command.arg("materialize").args([&src, &dst]).args(flags);
        assert!(command.status().unwrap().success());
        here
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn files(&self) -> Vec<String> {
        let root = self.path("dst");
        let all = snapshot(&root).into_keys().filter(|path| path.is_file());
        all.map(|path| path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned()).collect()
    }

    fn written(&self, file: &str) -> Vec<u8> {
        fs::read(self.path("dst").join(file)).unwrap()
    }
}

/// A client of `serve`.
struct Client {
    child: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
    greeting: Json,
}

impl Client {
    fn of(source: &Path, flags: &[&str]) -> Self {
        let mut command = Command::new(PROGRAM);
        command.arg("serve").arg(source).args(flags).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.stderr(Stdio::null()).spawn().unwrap();
        let requests = child.stdin.take().unwrap();
        let mut answers = BufReader::new(child.stdout.take().unwrap());
        let greeting = line(&mut answers);
        Self { child, requests, answers, greeting }
    }

    fn ask(&mut self, request: &Json) {
        self.requests.write_all(format!("{request}\n").as_bytes()).unwrap();
    }

    fn answer(&mut self) -> (Json, Vec<u8>) {
        let line = line(&mut self.answers);
        let mut bytes = vec![0; line["bytes"].as_u64().unwrap_or(0) as usize];
        self.answers.read_exact(&mut bytes).unwrap();
        (line, bytes)
    }

    fn file(&mut self, path: &str) -> Json {
        self.ask(&json!({ "op": "file", "path": path }));
        self.answer().0
    }

    fn ask_for(&mut self, path: &str, offset: u64, bytes: u64) {
        self.ask(&json!({ "op": "read", "path": path, "offset": offset, "bytes": bytes }));
    }

    /// The code it ends with when nobody asks any more.
    fn end(mut self) -> i32 {
        drop(self.requests);
        self.child.wait().unwrap().code().unwrap()
    }
}

fn line(answers: &mut impl BufRead) -> Json {
    let mut line = String::new();
    answers.read_line(&mut line).unwrap();
    serde_json::from_str(&line).unwrap()
}

#[test]
fn serve_has_the_bytes_that_materialize_writes() {
    for flags in
        [["--as", "hf"], ["--as", "vllm"], ["--as", "megatron"], ["--tp", "4"], ["--as", "torch_dist"]]
    {
        let here = Here::with(&flags);
        let sums: &[&str] =
            if flags.contains(&"hf") || flags.contains(&"vllm") { &[] } else { &["--crc", "exact"] };
        let flags = [&flags[..], sums].concat();
        let mut client = Client::of(&here.path("src"), &flags);
        let listed = client.greeting["files"].as_array().unwrap();
        let mut names: Vec<_> = listed.iter().map(|file| file["path"].as_str().unwrap().to_owned()).collect();
        names.sort();
        assert_eq!(names, here.files());
        for name in names {
            let written = here.written(&name);
            let file = client.file(&name);
            assert_eq!(file["size"], written.len(), "{name}");
            // Every piece is asked for before the first is read.
            let pieces: Vec<u64> = (0..=written.len() as u64).step_by(10_007).collect();
            pieces.iter().for_each(|at| client.ask_for(&name, *at, 10_007));
            let found: Vec<u8> = pieces.iter().flat_map(|_| client.answer().1).collect();
            assert_eq!(found, written, "{name}");
            for tensor in file["tensors"].as_array().unwrap() {
                let number = |what: &str| tensor[what].as_u64().unwrap();
                assert!(number("offset") + number("bytes") <= written.len() as u64);
            }
        }
        assert_eq!(client.end(), 0);
    }
}

#[test]
fn serve_says_whose_files_are() {
    let here = Here::with(&["--as", "vllm", "--tp", "4"]);
    let client = Client::of(&here.path("src"), &["--as", "vllm", "--tp", "4"]);
    assert_eq!(client.greeting["protocol"], 1);
    assert_eq!((&client.greeting["format"], &client.greeting["layout"]), (&json!("vllm"), &json!("tp4")));
    assert!(client.greeting["modified"].as_u64().unwrap() > 1_600_000_000_000_000_000);
    let files = client.greeting["files"].as_array().unwrap();
    let rank = |path: &str| files.iter().find(|file| file["path"] == path).unwrap().get("rank").cloned();
    assert_eq!(rank("model-rank-3-part-0.safetensors"), Some(json!({ "tp": 3, "pp": 0, "ep": 0 })));
    assert_eq!(rank("config.json"), None);
    client.end();
}

#[test]
fn an_error_is_an_answer_and_the_next_request_is_answered() {
    let here = Here::with(&["--as", "hf"]);
    let mut client = Client::of(&here.path("src"), &["--as", "hf"]);
    let size = here.written("config.json").len() as u64;
    client.ask_for("none", 0, 1);
    client.ask_for("config.json", 0, (16 << 20) + 1);
    client.ask(&json!({ "op": "write" }));
    client.requests.write_all(b"\n\xff\n").unwrap();
    client.ask_for("config.json", size, 10);
    client.ask_for("config.json", u64::MAX, u64::from(u32::MAX) / 1024);
    client.ask_for("config.json", 0, size + 10);
    for words in ["has no file none", "at most 16777216", "not a request", "not a request", "not a request"] {
        let (line, bytes) = client.answer();
        assert!(line["error"].as_str().unwrap().contains(words), "{line}");
        assert_eq!((&line["exit_code"], bytes.len()), (&json!(2), 0));
    }
    assert_eq!(client.answer(), (json!({ "bytes": 0 }), Vec::new()));
    assert_eq!(client.answer(), (json!({ "bytes": 0 }), Vec::new()));
    assert_eq!(client.answer().1, here.written("config.json"));
    assert_eq!(client.end(), 0);
}

#[test]
fn a_source_that_changes_is_an_error_in_the_answer() {
    let here = Here::with(&["--as", "hf"]);
    let mut client = Client::of(&here.path("src"), &["--as", "hf"]);
    for (path, _) in snapshot(&here.path("src")) {
        if path.extension().is_some_and(|end| end == "pt") {
            let file = fs::OpenOptions::new().append(true).open(path).unwrap();
            (&file).write_all(b"more").unwrap();
        }
    }
    client.ask_for("model.safetensors", 8192, 4096);
    let (line, _) = client.answer();
    assert_eq!(line["exit_code"], 3, "{line}");
    assert!(line["error"].as_str().unwrap().contains("changed"), "{line}");
    client.end();
}

#[test]
fn serve_ends_with_its_client() {
    let here = Here::with(&["--as", "hf"]);
    let mut client = Client::of(&here.path("src"), &["--as", "hf"]);
    // It does not wait for somebody to read what was asked for, nor for the rest of a request.
    client.ask_for("model.safetensors", 0, 16 << 20);
    client.requests.write_all(b"{\"op\":").unwrap();
    let Client { mut child, requests, answers, .. } = client;
    drop((requests, answers));
    assert!(child.wait().unwrap().code().is_some());
    // What is not a request at all ends it with an error.
    let client = Client::of(&here.path("src"), &["--as", "hf"]);
    let Client { mut child, mut requests, .. } = client;
    let _ = requests.write_all(&vec![b'x'; 100_000]);
    assert_eq!(child.wait().unwrap().code(), Some(9));
}

#[test]
fn what_cannot_be_served_is_said_as_by_other_commands() {
    let here = Here::with(&["--as", "hf"]);
    ckpt!("serve", here.path("none")).refused(3, &["none"]);
    ckpt!("serve", here.path("src"), "--tp", "3").refused(5, &["possible: 1, 2, 4, 8"]);
}

#[test]
fn cat_writes_files_and_parts_of_them() {
    let here = Here::with(&["--tp", "4"]);
    let cat = |more: &[&str]| {
        let output = Command::new(PROGRAM).arg("cat").arg(here.path("src")).args(more).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        output.stdout
    };
    let name = here.files().into_iter().find(|name| name.contains("mp_rank_03")).unwrap();
    let written = here.written(&name);
    assert_eq!(cat(&[&name, "--tp", "4"]), written);
    assert_eq!(cat(&[&name, "--tp", "4", "--range", "100:2345"]), written[100..2345]);
    assert_eq!(cat(&[&name, "--tp", "4", "--range", "100:"]), written[100..]);
    assert_eq!(cat(&[&name, "--tp", "4", "--range", "99999999:"]), b"");
    assert_eq!(cat(&[&name, &name, "--tp", "4", "--range", ":7"]), [&written[..7], &written[..7]].concat());
    let refused =
        ckpt!("cat", here.path("src"), &name, "none", "--tp", "4").refused(2, &["has no file none"]);
    assert_eq!(refused.out, "", "a wrong name is said before the first byte");
    ckpt!("cat", here.path("src"), &name, "--tp", "4", "--range", "5:4").refused(2, &["0:100"]);
}

#[test]
fn progress_is_lines_of_json() {
    let here = Here::with(&["--as", "hf"]);
    let lines = |more: &[&str]| -> Vec<Json> {
        let out = here.path("lines");
        let mut command = Command::new(PROGRAM);
        command.arg("materialize").arg(here.path("src")).arg(&out).args(["--as", "hf"]).args(more);
        let said = String::from_utf8(command.output().unwrap().stderr).unwrap();
        fs::remove_dir_all(out).unwrap();
        said.lines()
            .filter(|line| line.starts_with('{'))
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    };
    let all = lines(&["--progress", "json"]);
    let bytes: usize = here.files().iter().map(|file| here.written(file).len()).sum();
    let (first, last) = (all.first().unwrap(), all.last().unwrap());
    assert_eq!((&first["written"], &first["total"]), (&json!(0), &json!(bytes)));
    assert_eq!((&last["written"], &last["total"]), (&json!(bytes), &json!(bytes)));
    assert!(first["seconds"].as_f64().unwrap() <= last["seconds"].as_f64().unwrap());
    assert!(
        lines(&["--quiet"]).is_empty() && lines(&["--progress", "none"]).is_empty() && lines(&[]).is_empty()
    );
    // What fails before anything is written has no progress.
    let said = ckpt!("materialize", here.path("src"), here.path("dst"), "--progress", "json")
        .refused(6, &["--overwrite"]);
    assert!(said.err.lines().all(|line| line.starts_with("ckpt-fs: ")), "{}", said.err);
}
