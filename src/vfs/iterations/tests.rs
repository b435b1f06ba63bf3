//! A run of one real checkpoint under many names, whose looks and openings come out as a test says.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::Path;
use std::sync::OnceLock;

use super::*;
use crate::family::Families;
use crate::layout::{Format, LayoutSpec};
use crate::reader::{CrcMode, Reader};
use crate::source::{Options, open};
use crate::store::FileStore;
use crate::view::{ConversionOptions, Conversions, ModelFiles, Origin, ViewOptions};
use crate::vfs::{Cause, Settings, Shape, Tree};

/// What a run is asked and answers.
#[derive(Default)]
struct Fake {
    found: Mutex<BTreeMap<String, Found>>,
    /// What is in each, and whether it can be opened.
    inside: Mutex<BTreeMap<String, (u64, Option<String>)>>,
    opened: Mutex<Vec<String>>,
    /// How many are being opened, and were at most.
    opening: AtomicU64,
    most_opening: AtomicU64,
    doubted: Mutex<Vec<String>>,
    said: Mutex<Vec<String>>,
    /// Its storage does not answer.
    is_away: std::sync::atomic::AtomicBool,
    /// The tree itself, where looking goes through it.
    tree: OnceLock<Arc<Iterations>>,
}

struct Shared(Arc<Fake>);

impl Supply for Shared {
    fn look(&self) -> io::Result<Vec<Found>> {
        if self.0.is_away.load(Relaxed) {
            return Err(io::Error::other("no answer"));
        }
        if let Some(tree) = self.0.tree.get() {
            tree.attr(Ino::ROOT).unwrap();
            assert!(tree.lookup(Ino::ROOT, OsStr::new("nothing")).is_err());
        }
        Ok(self.0.found.lock().values().cloned().collect())
    }

    fn examine(&self, name: &str) -> Result<u64, String> {
        self.0.inside.lock().get(name).map(|(stamp, _)| *stamp).ok_or_else(|| "it changes".to_owned())
    }

    fn doubt(&self, name: &str) {
        self.0.doubted.lock().push(name.to_owned());
    }

    fn open(&self, name: &str, root: Ino) -> Result<Views, String> {
        self.0.opened.lock().push(name.to_owned());
        let now = self.0.opening.fetch_add(1, Relaxed) + 1;
        self.0.most_opening.fetch_max(now, Relaxed);
        let why = self.0.inside.lock().get(name).and_then(|(_, why)| why.clone());
        let opened = match why {
            Some(why) => Err(why),
            None => Ok(views(root)),
        };
        self.0.opening.fetch_sub(1, Relaxed);
        opened
    }
}

/// One rank's view of a checkpoint that training wrote.
fn views(root: Ino) -> Views {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/yuan-tiny/pp2b24_tp2_none");
    let (store, families) = (Arc::new(FileStore::new()), Families::with(Vec::new()));
    let source = open(&path, &Options { families: families.clone(), ..Options::default() }, &store).unwrap();
    let origin = Origin {
        catalog: source.catalog,
        model: source.model,
        format: source.format,
        inexpressible: Vec::new(),
        files: ModelFiles { name: "source".to_owned(), config: None, aux_files: Vec::new() },
        template: None,
    };
    let conversions = Conversions::new(origin, families, ViewOptions::default(), ConversionOptions::default()).unwrap();
    let spec = LayoutSpec::parse("tp1pp1").unwrap();
    let shape = Shape::One(Format::Megatron, conversions.layout(Format::Megatron, &spec).unwrap());
    let settings = Settings {
        crc: CrcMode::Zero,
        io: None,
        cache: Arc::new(Cache::new(0, None)),
        modified: SystemTime::UNIX_EPOCH,
        log: Arc::new(|_| {}),
        usage: Arc::default(),
        messages: Arc::default(),
        root,
    };
    Views::new(Arc::new(conversions), Reader::new(store), &shape, settings).unwrap()
}

fn run(names: &[&str]) -> (Arc<Fake>, Arc<Iterations>) {
    let fake = Arc::new(Fake::default());
    for name in names {
        save(&fake, name, 1);
    }
    let said = Arc::clone(&fake);
    let say: Say = Arc::new(move |_, text: &str| said.said.lock().push(text.to_owned()));
    let cache = Arc::new(Cache::new(0, None));
    let supply = Box::new(Shared(Arc::clone(&fake)));
    let tree = Iterations::new(supply, "megatron tp1pp1".to_owned(), say, (cache, Arc::default()), Arc::default());
    (fake, Arc::new(tree))
}

/// There is an iteration of this name now, with this in it.
fn save(fake: &Fake, name: &str, stamp: u64) {
    let number = name.strip_prefix("iter_").and_then(|number| number.parse().ok());
    let (modified, state) = (SystemTime::UNIX_EPOCH, Saved::Whole);
    let found = Found { name: name.to_owned(), number, is_tracked: false, place: (1, 1), modified, state };
    fake.found.lock().insert(name.to_owned(), found);
    fake.inside.lock().insert(name.to_owned(), (stamp, None));
}

/// As if a second had passed.
fn later(tree: &Iterations) {
    *tree.next.lock() = None;
}

fn names(tree: &Iterations) -> Vec<String> {
    tree.list(Ino::ROOT).unwrap().into_iter().map(|entry| entry.name).collect()
}

/// The node at a path.
fn at(tree: &Iterations, path: &str) -> Result<Ino, TreeError> {
    path.split('/').try_fold(Ino::ROOT, |at, name| Ok(tree.lookup(at, OsStr::new(name))?.ino))
}

const FILE: &str = "iter_0000100/mp_rank_00/model_optim_rng.pt";

fn file(tree: &Iterations, iteration: &str) -> Ino {
    at(tree, &format!("{iteration}/{FILE}")).unwrap()
}

fn is_stale<T>(answer: Result<T, TreeError>) -> bool {
    answer.is_err_and(|error| matches!(error.cause(), Cause::Changed))
}

#[test]
fn an_iteration_is_opened_when_it_is_entered() {
    let (fake, tree) = run(&["iter_1", "iter_2", "iter_3"]);
    *tree.proving.lock() = Duration::from_secs(60 * 60);
    assert_eq!(names(&tree), ["iter_1", "iter_2", "iter_3", "latest"]);
    assert_eq!(*fake.opened.lock(), ["iter_3"], "the newest alone, to see that it is whole");
    let one = at(&tree, "iter_1").unwrap();
    assert_eq!((tree.attr(one).unwrap().links, fake.opened.lock().len()), (1, 1));
    assert!(tree.takes_long(one));
    assert_eq!(tree.list(one).unwrap().len(), 2);
    assert_eq!((&*fake.opened.lock().concat(), tree.takes_long(one)), ("iter_3iter_1", false));
    assert_eq!((tree.attr(one).unwrap().links, tree.parent(one).unwrap()), (3, Ino::ROOT));
    let link = at(&tree, "latest").unwrap();
    assert_eq!(tree.read_link(link).unwrap().as_deref(), Some("iter_3"));
    let numbers: std::collections::HashSet<Ino> = ["iter_1", "iter_2", "iter_3"].map(|name| file(&tree, name)).into();
    assert_eq!(numbers.len(), 3, "no number is that of another iteration's file");
}

#[test]
fn few_are_open_and_numbers_are_good_for_all() {
    let all: Vec<String> = (1..=20).map(|number| format!("iter_{number}")).collect();
    let (fake, tree) = run(&all.iter().map(String::as_str).collect::<Vec<_>>());
    let held = file(&tree, "iter_1");
    tree.hold(held);
    let files: Vec<Ino> = all.iter().map(|name| file(&tree, name)).collect();
    assert!(tree.open.lock().len() <= MOST_OPEN + 1);
    let opened = fake.opened.lock().len();
    let mut first = vec![0; 4096];
    assert_eq!(tree.read(held, 0, &mut first).unwrap(), 4096);
    assert_eq!(fake.opened.lock().len(), opened, "what somebody has open is not closed");
    for (file, name) in files.iter().zip(&all) {
        let mut again = vec![0; 4096];
        assert_eq!(tree.read(*file, 0, &mut again).unwrap(), 4096, "{name}");
        assert_eq!(again, first);
    }
    assert!(fake.opened.lock().len() > opened);
    assert_eq!(all.iter().map(|name| file(&tree, name)).collect::<Vec<_>>(), files);
    tree.let_go(held);
    files.iter().skip(1).for_each(|file| assert!(tree.attr(*file).is_ok()));
    assert!(tree.open.lock().len() <= MOST_OPEN);
}

#[test]
fn one_that_is_damaged_is_said_once_and_not_opened_again() {
    let (fake, tree) = run(&["iter_1", "iter_2"]);
    let damage = |why: Option<&str>, stamp| {
        fake.inside.lock().insert("iter_2".to_owned(), (stamp, why.map(str::to_owned)));
    };
    damage(Some("no such tensor"), 1);
    for _ in 0..3 {
        later(&tree);
        assert_eq!(names(&tree), ["iter_1", "latest"]);
        assert!(matches!(at(&tree, "iter_2"), Err(TreeError::NotFound)));
    }
    let count = |said: &str| fake.said.lock().iter().filter(|other| **other == said).count();
    assert_eq!((count("iter_2: not shown: no such tensor"), fake.opened.lock().concat().matches("iter_2").count()), (1, 1));
    let status = tree.status().run.unwrap();
    assert_eq!((status.shown, status.hidden, &*status.not_shown[0].why), (1, 1, "no such tensor"));
    damage(None, 2);
    later(&tree);
    assert_eq!(names(&tree), ["iter_1", "iter_2", "latest"]);
    assert_eq!(count("iter_2: shown"), 1);
}

#[test]
fn one_that_changes_while_it_is_opened_is_waited_for() {
    let (fake, tree) = run(&["iter_1"]);
    fake.inside.lock().remove("iter_1");
    assert!(names(&tree).is_empty());
    assert_eq!(*fake.doubted.lock(), ["iter_1"]);
    assert!(fake.opened.lock().is_empty(), "what changes is not opened");
    assert!(matches!(at(&tree, "latest"), Err(TreeError::NotFound)));
}

#[test]
fn old_numbers_lead_nowhere_when_another_save_is_there() {
    let (fake, tree) = run(&["iter_1", "iter_2"]);
    let (old, root) = (file(&tree, "iter_1"), at(&tree, "iter_1").unwrap());
    tree.hold(old);
    // It was closed, and saved again since.
    tree.instance_of(old).unwrap().set(None);
    save(&fake, "iter_1", 2);
    assert!(is_stale(tree.read(old, 0, &mut [0; 16])));
    for answer in [tree.attr(old).map(drop), tree.list(root).map(drop), tree.parent(old).map(drop)] {
        assert!(is_stale(answer));
    }
    assert!(is_stale(tree.open(old, false)) && is_stale(tree.unchanged(old, 0..1)));
    tree.let_go(old);
    tree.close(old);
    later(&tree);
    let new = file(&tree, "iter_1");
    assert_ne!(new, old);
    assert!(tree.read(new, 0, &mut [0; 16]).is_ok());
    // Another directory under the name, and none.
    if let Some(found) = fake.found.lock().get_mut("iter_1") {
        found.place = (1, 9);
    }
    later(&tree);
    assert_ne!(file(&tree, "iter_1"), new);
    assert!(is_stale(tree.attr(new)));
    let last = file(&tree, "iter_1");
    fake.found.lock().remove("iter_1");
    later(&tree);
    assert_eq!(names(&tree), ["iter_2", "latest"]);
    assert!(is_stale(tree.attr(last)));
    assert!(fake.said.lock().iter().any(|said| said == "iter_1: gone"));
}

#[test]
fn storage_that_does_not_answer_takes_nothing_away() {
    let (fake, tree) = run(&["iter_1"]);
    let known = file(&tree, "iter_1");
    fake.is_away.store(true, Relaxed);
    for _ in 0..3 {
        later(&tree);
        assert_eq!(names(&tree), ["iter_1", "latest"]);
    }
    assert!(tree.read(known, 0, &mut [0; 16]).is_ok());
    let said = fake.said.lock().iter().filter(|said| said.contains("cannot be looked at: no answer")).count();
    assert_eq!(said, 1);
}

#[test]
fn many_who_enter_at_once_take_turns() {
    let all: Vec<String> = (1..=24).map(|number| format!("iter_{number}")).collect();
    let (fake, tree) = run(&all.iter().map(String::as_str).collect::<Vec<_>>());
    std::thread::scope(|scope| {
        for name in &all {
            let tree = &tree;
            scope.spawn(move || assert!(tree.read(file(tree, name), 0, &mut [0; 16]).is_ok()));
        }
    });
    assert!(fake.most_opening.load(Relaxed) <= MOST_OPENING as u64);
    assert!(tree.open.lock().len() <= MOST_OPEN);
    // Two who enter the same one open it once.
    let last = fake.opened.lock().len();
    tree.open.lock().drain(..).for_each(|instance| instance.set(None));
    let one = at(&tree, "iter_1").unwrap();
    std::thread::scope(|scope| {
        (0..4).for_each(|_| drop(scope.spawn(|| assert!(tree.list(one).is_ok()))));
    });
    assert_eq!(fake.opened.lock().len(), last + 1);
}

/// The kernel has room for 60 KiB of an answer.
#[test]
fn a_status_has_bounds() {
    let all: Vec<String> = (1..=100).map(|number| format!("iter_{number}")).collect();
    let (fake, tree) = run(&all.iter().map(String::as_str).collect::<Vec<_>>());
    for found in fake.found.lock().values_mut() {
        found.state = Saved::Waiting("\u{1f980}".repeat(10_000));
    }
    let status = tree.status();
    assert!(serde_json::to_vec(&status).unwrap().len() < 60 << 10);
    assert_eq!(status.run.map(|run| (run.hidden, run.shown, run.latest)), Some((100, 0, None)));
}

/// An iteration may be a link that leads through this very mount.
#[test]
fn looking_may_come_back_here() {
    let (fake, tree) = run(&["iter_1"]);
    assert_eq!(names(&tree), ["iter_1", "latest"]);
    assert!(fake.tree.set(Arc::clone(&tree)).is_ok());
    later(&tree);
    save(&fake, "iter_2", 1);
    assert_eq!(names(&tree), ["iter_1", "iter_2", "latest"]);
}

#[test]
fn what_is_no_file_is_no_file() {
    let (_fake, tree) = run(&["iter_1"]);
    let (root, link) = (at(&tree, "iter_1").unwrap(), at(&tree, "latest").unwrap());
    for directory in [Ino::ROOT, root] {
        assert!(matches!(tree.read(directory, 0, &mut [0]), Err(TreeError::IsDirectory)));
        assert_eq!(tree.read_link(directory).unwrap(), None);
    }
    assert!(matches!(tree.open(link, true), Err(TreeError::NotFound)));
    assert!(matches!(tree.list(link), Err(TreeError::NotDirectory)));
    assert!(matches!(tree.lookup(link, OsStr::new("x")), Err(TreeError::NotDirectory)));
    assert!(is_stale(tree.attr(Ino(77))) && is_stale(tree.list(Ino(77))));
    assert!(tree.total_bytes() > 0);
}
