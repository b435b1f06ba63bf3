//! Runs of empty files, as training leaves them at every moment of a save.

use std::fs::FileTimes;

use super::*;
use crate::format::megatron::TRACKER;

/// A run, and when its files are written: an hour ago, and later with every one.
struct Fake {
    run: tempfile::TempDir,
    clock: SystemTime,
}

/// What is said of each iteration: its name, and whether it is there.
type Seen = Vec<(String, String)>;

impl Fake {
    fn new() -> Self {
        let clock = SystemTime::now() - Duration::from_secs(3600);
        Self { run: tempfile::tempdir().unwrap(), clock }
    }

    fn write(&mut self, path: &str, text: &str) {
        let path = self.run.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        self.clock += Duration::from_secs(1);
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.set_times(FileTimes::new().set_modified(self.clock)).unwrap();
    }

    fn open(&self, settle: Duration) -> Run {
        Run::open(self.run.path(), settle).unwrap()
    }

    fn seen(run: &Run) -> Seen {
        let seen = run.look().unwrap().into_iter().map(|found| {
            let state = match found.state {
                Saved::Whole => "whole".to_owned(),
                Saved::Quiet => "quiet".to_owned(),
                Saved::Waiting(why) => why,
            };
            (found.name, state)
        });
        seen.collect()
    }
}

const NEVER: Duration = Duration::from_secs(1 << 40);

fn is(seen: &Seen, name: &str, state: &str) -> bool {
    seen.iter().any(|(other, said)| other == name && said.contains(state))
}

#[test]
fn megatron_is_done_when_the_tracker_says_so() {
    let mut fake = Fake::new();
    let run = fake.open(NEVER);
    assert_eq!(Fake::seen(&run), []);
    fs::create_dir(fake.run.path().join("iter_0000010")).unwrap();
    assert!(is(&Fake::seen(&run), "iter_0000010", "it is empty"));
    fake.write("iter_0000010/mp_rank_00/distrib_optim.pt", "");
    fake.write("iter_0000010/mp_rank_00/model_optim_rng.pt", "");
    assert!(is(&Fake::seen(&run), "iter_0000010", "changed a moment ago"));
    fake.write(TRACKER, "10");
    let seen = run.look().unwrap();
    assert_eq!((seen.len(), &seen[0].state, seen[0].is_tracked), (1, &Saved::Whole, true));
    let stamp = run.examine("iter_0000010").unwrap();
    // The next one, and that one over an older of its number.
    fake.write("iter_0000020/mp_rank_00/model_optim_rng.pt", "");
    assert!(is(&Fake::seen(&run), "iter_0000020", "the tracker says 10"));
    fake.write("iter_0000010/mp_rank_00/model_optim_rng.pt", "again");
    assert!(run.examine("iter_0000010").unwrap_err().contains("newer than the tracker"));
    assert!(is(&Fake::seen(&run), "iter_0000010", "whole"), "what nobody entered is believed");
    run.doubt("iter_0000010");
    assert!(is(&Fake::seen(&run), "iter_0000010", "newer than the tracker"));
    fake.write(TRACKER, "20");
    let seen = Fake::seen(&run);
    assert!(is(&seen, "iter_0000010", "whole") && is(&seen, "iter_0000020", "whole"), "{seen:?}");
    assert_ne!(run.examine("iter_0000010").unwrap(), stamp);
}

#[test]
fn a_tracker_that_is_being_written_or_says_nothing_changes_nothing() {
    let mut fake = Fake::new();
    fake.write("iter_0000010/mp_rank_00/model_optim_rng.pt", "");
    fake.write(TRACKER, "10");
    let run = fake.open(NEVER);
    assert!(is(&Fake::seen(&run), "iter_0000010", "whole"));
    for text in ["", "<html>", "-1", "99999999999999999999999", "\u{0}"] {
        fake.write(TRACKER, text);
        assert!(is(&Fake::seen(&run), "iter_0000010", "whole"), "{text:?}");
        assert!(Fake::seen(&fake.open(NEVER)).iter().all(|(_, state)| state != "whole"), "{text:?}");
    }
    fs::remove_file(fake.run.path().join(TRACKER)).unwrap();
    assert!(is(&Fake::seen(&run), "iter_0000010", "changed a moment ago"));
}

#[test]
fn the_tracker_speaks_for_a_release_alone_where_it_says_that() {
    let mut fake = Fake::new();
    for name in ["release", "iter_0000010"] {
        fake.write(&format!("{name}/mp_rank_00/model_optim_rng.pt"), "");
    }
    fake.write(TRACKER, "release");
    let seen = Fake::seen(&fake.open(NEVER));
    assert_eq!(seen[0], ("release".to_owned(), "whole".to_owned()));
    assert!(is(&seen, "iter_0000010", "the tracker says release"), "{seen:?}");
}

#[test]
fn what_nobody_speaks_for_is_quiet_when_it_was_left_alone() {
    let mut fake = Fake::new();
    fake.write("checkpoint-5/model.safetensors", "a");
    let run = fake.open(Duration::ZERO);
    assert!(is(&Fake::seen(&run), "checkpoint-5", "quiet"));
    let before = run.examine("checkpoint-5").unwrap();
    // Results beside the weights are none of them.
    fake.write("checkpoint-5/eval_results.json", "{}");
    assert_eq!(run.examine("checkpoint-5").unwrap(), before);
    fake.write("checkpoint-5/model.safetensors", "b");
    assert_ne!(run.examine("checkpoint-5").unwrap(), before);
    // The same name in the same place, with the same size and time: nothing but the inode tells.
    let path = fake.run.path().join("checkpoint-5/model.safetensors");
    let now = run.examine("checkpoint-5").unwrap();
    let time = fs::metadata(&path).unwrap().modified().unwrap();
    let copy = path.with_extension("copy");
    fs::copy(&path, &copy).unwrap();
    fs::File::options().write(true).open(&copy).unwrap().set_modified(time).unwrap();
    fs::rename(&copy, &path).unwrap();
    assert_ne!(run.examine("checkpoint-5").unwrap(), now);
    let never = fake.open(NEVER);
    assert!(is(&Fake::seen(&never), "checkpoint-5", "not changed for"));
    assert!(never.examine("checkpoint-5").is_err() && never.examine("nothing").is_err());
}

#[test]
fn files_of_two_saves_are_no_iteration() {
    let mut fake = Fake::new();
    fake.write("iter_0000010/mp_rank_00/model_optim_rng.pt", "");
    fake.clock -= Duration::from_secs(2 * 3600);
    fake.write("iter_0000010/mp_rank_01/model_optim_rng.pt", "");
    let run = fake.open(Duration::ZERO);
    assert!(is(&Fake::seen(&run), "iter_0000010", "as those of two saves"));
    fake.clock += Duration::from_secs(3 * 3600);
    fake.write(TRACKER, "10");
    assert!(is(&Fake::seen(&run), "iter_0000010", "whole"), "the run knows better");
}

#[test]
fn iterations_come_in_the_order_of_their_numbers_and_of_nothing_else() {
    let mut fake = Fake::new();
    for name in ["checkpoint-10", "checkpoint-9", "iter_0000010.tmp", "tmp-checkpoint-11", "logs"] {
        fake.write(&format!("{name}/model.safetensors"), "");
    }
    fake.write("checkpoint-8", "a file");
    std::os::unix::fs::symlink("nowhere", fake.run.path().join("checkpoint-7")).unwrap();
    std::os::unix::fs::symlink("checkpoint-9", fake.run.path().join("checkpoint-6")).unwrap();
    let seen = Fake::seen(&fake.open(Duration::ZERO));
    let names: Vec<&str> = seen.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["checkpoint-6", "checkpoint-7", "checkpoint-8", "checkpoint-9", "checkpoint-10"]);
    assert!(is(&seen, "checkpoint-6", "quiet") && is(&seen, "checkpoint-7", "nowhere"), "{seen:?}");
    assert!(is(&seen, "checkpoint-8", "no directory"), "{seen:?}");
}

#[test]
fn a_checkpoint_is_no_run() {
    let mut fake = Fake::new();
    fake.write("model.safetensors", "");
    fake.write("config.json", "{}");
    let error = Run::open(fake.run.path(), NEVER).unwrap_err().to_string();
    assert!(error.contains("one checkpoint"), "{error}");
    // The Trainer leaves its model beside its checkpoints.
    fake.write("checkpoint-5/model.safetensors", "");
    assert_eq!(Fake::seen(&fake.open(Duration::ZERO)).len(), 1);
    fake.write("run/iter_0000001/mp_rank_00/model_optim_rng.pt", "");
    let iteration = fake.run.path().join("run/iter_0000001");
    assert!(Run::open(&iteration, NEVER).unwrap_err().to_string().contains("one checkpoint"));
    assert!(Run::open(&iteration.join("nothing"), NEVER).is_err());
}

#[test]
fn a_run_of_another_kind_is_told_from_one_that_has_saved_nothing() {
    let mut fake = Fake::new();
    fake.write("tensorboard/events", "");
    assert_eq!(Fake::seen(&fake.open(NEVER)), []);
    fake.write("global_step100/mp_rank_00_model_states.pt", "");
    let error = Run::open(fake.run.path(), NEVER).unwrap_err().to_string();
    assert!(error.contains("DeepSpeed"), "{error}");
    fake.write(TRACKER, "100");
    assert!(Run::open(fake.run.path(), NEVER).unwrap_err().to_string().contains("Megatron-DeepSpeed"));
}

#[test]
fn a_run_that_is_gone_has_no_iterations() {
    let mut fake = Fake::new();
    fake.write("iter_0000010/mp_rank_00/model_optim_rng.pt", "");
    fake.write(TRACKER, "10");
    let run = fake.open(NEVER);
    assert_eq!(Fake::seen(&run).len(), 1);
    let away = fake.run.path().with_extension("away");
    fs::rename(fake.run.path(), &away).unwrap();
    assert_eq!(Fake::seen(&run), []);
    fs::rename(&away, fake.run.path()).unwrap();
    assert!(is(&Fake::seen(&run), "iter_0000010", "whole"));
}
