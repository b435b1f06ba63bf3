//! Distributed checkpoints of published models as sources: those that torch wrote, bit for bit, and others of any names and cuts.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod fixtures;
mod hostile;
mod roots;
mod scale;
mod steps;
mod torchtitan;

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::common::Array;
use crate::common::dcp_source::{Cell, Draft};
use crate::common::hf::{self, Arch};
use crate::common::naive::Config;
use crate::common::run::Said;

/// A model, as a directory that transformers writes and as a template without weights.
struct Model {
    dir: TempDir,
    arch: Arch,
    config: Config,
    tensors: Vec<(String, Array)>,
}

impl Model {
    fn of(arch: Arch, config: Config) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let tensors = hf::tensors(arch, &config);
        hf::write(&dir.path().join("hf"), &hf::config(arch, &config), &tensors, 1);
        std::fs::create_dir(dir.path().join("template")).unwrap();
        std::fs::copy(dir.path().join("hf/config.json"), dir.path().join("template/config.json")).unwrap();
        Self { dir, arch, config, tensors }
    }

    fn llama() -> Self {
        Self::of(Arch::Llama, Config::default())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Its tensors under this prefix, cut like this.
    fn draft(&self, prefix: &str, files: u32, cut: impl Fn(&[u64]) -> Vec<Cell>) -> Draft {
        let mut draft = Draft::of(files);
        for (name, array) in &self.tensors {
            draft.tensor(&format!("{prefix}{name}"), array, &cut);
        }
        draft
    }

    fn digest(&self, path: &Path) -> Said {
        if path == self.path("hf") {
            return ckpt!("digest", path, "--json");
        }
        ckpt!("digest", path, "--json", "--template", self.path("template"))
    }

    /// The checkpoint has the weights of the model.
    #[track_caller]
    fn is_in(&self, path: &Path) {
        let digest = |said: Said| said.ok().json()["digest"].clone();
        assert_eq!(digest(self.digest(path)), digest(self.digest(&self.path("hf"))));
    }
}

/// A value that a pickle holds.
fn int(number: i64) -> ckpt_fs::value::Value {
    ckpt_fs::value::Value::Int(number)
}

/// Numbers that stand for the state of a tensor.
fn state_of(array: &Array, salt: u8) -> Array {
    let elements = array.shape.iter().product::<u64>();
    let bytes = (0..elements).flat_map(|at| ((at as f32) + f32::from(salt)).to_le_bytes()).collect();
    Array { dtype: ckpt_fs::tensor::Dtype::Float32, shape: array.shape.clone(), bytes }
}

fn step(number: f32) -> Array {
    Array { dtype: ckpt_fs::tensor::Dtype::Float32, shape: Vec::new(), bytes: number.to_le_bytes().to_vec() }
}

/// Adds the state of an optimizer for each of these tensors: under `root`, with `inner` in front of the names.
fn optimizer(
    draft: &mut Draft,
    root: &str,
    inner: &str,
    tensors: &[(String, Array)],
    cut: impl Fn(&[u64]) -> Vec<Cell>,
) {
    optimizer_of_steps(draft, root, inner, tensors, cut, |_| 3.0);
}

/// The same, with so many steps for each tensor by its name.
fn optimizer_of_steps(
    draft: &mut Draft,
    root: &str,
    inner: &str,
    tensors: &[(String, Array)],
    cut: impl Fn(&[u64]) -> Vec<Cell>,
    steps: impl Fn(&str) -> f32,
) {
    for (name, array) in tensors {
        let key = |state: &str| format!("{root}.state.{inner}{name}.{state}");
        draft.tensor(&key("exp_avg"), &state_of(array, 1), &cut);
        draft.tensor(&key("exp_avg_sq"), &state_of(array, 2), &cut);
        // No number: not said.
        let taken = steps(name);
        if !taken.is_nan() {
            draft.tensor(&key("step"), &step(taken), &cut);
        }
    }
    draft.objects.push((format!("{root}.param_groups.0.lr"), ckpt_fs::value::Value::Float(1e-3)));
}
