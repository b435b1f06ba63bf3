//! Pickles that want to be run, that grow, or that nest.

use std::fs;

use ckpt_fs::value::Value;

use crate::bounds::{MB, Victim, alone};
use crate::ckpt;
use crate::common::source::Checkpoint;
use crate::common::{open_pt, pt_of};

const SOURCE: i32 = 3;

/// Opcodes, one after the other.
#[derive(Debug, Default, Clone)]
pub(crate) struct Ops(pub(crate) Vec<u8>);

impl Ops {
    pub(crate) fn op(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }

    /// `BINUNICODE`
    pub(crate) fn text(self, text: &str) -> Self {
        let len = u32::try_from(text.len()).unwrap().to_le_bytes();
        self.op(b"X").op(&len).op(text.as_bytes())
    }

    pub(crate) fn times(mut self, count: usize, bytes: &[u8]) -> Self {
        self.0.extend(bytes.repeat(count));
        self
    }

    pub(crate) fn get(self, memo: u32) -> Self {
        self.op(b"j").op(&memo.to_le_bytes())
    }

    pub(crate) fn put(self, memo: u32) -> Self {
        self.op(b"r").op(&memo.to_le_bytes())
    }

    /// Alone in a file.
    pub(crate) fn whole(self) -> Victim {
        Victim::with_file(&pt_of(&Self::default().op(b"\x80\x04").op(&self.0).op(b".").0, &[]))
    }
}

/// What stands in a checkpoint where an attack goes.
const PLACEHOLDER: &str = "payload goes here";

/// A checkpoint that is as it should be, but for a field of its args that is made by `payload`.
pub(crate) fn carrying(payload: &Ops) -> Victim {
    let mut checkpoint = Checkpoint::small_as(1, &[4]).arg("payload", &Value::str(PLACEHOLDER));
    let file = checkpoint.file("mp_rank_00").clone();
    let bytes = checkpoint.bytes(&file);
    let (_, storages) = open_pt(&bytes);
    let count = storages.len();
    let storages: Vec<Vec<u8>> = (0..count).map(|key| storages[&key.to_string()].clone()).collect();
    let start = bytes.windows(2).position(|window| window == b"\x80\x02").unwrap();
    let needle = Ops::default().text(PLACEHOLDER).0;
    let at = bytes.windows(needle.len()).position(|window| window == needle).unwrap();
    // The pickle ends where the record after it begins; its last byte is that of the opcode STOP.
    let next = bytes.windows(22).position(|window| window.ends_with(b".format_version")).unwrap();
    let end = bytes[..next].windows(4).rposition(|window| window == b"PK\x07\x08").unwrap();
    let pickle = [&bytes[start..at], &payload.0, &bytes[at + needle.len()..end]].concat();
    let victim = Victim::of(&checkpoint);
    fs::write(victim.file(), pt_of(&pickle, &storages)).unwrap();
    victim
}

/// A shell command that leaves a trace.
fn command(trace: &std::path::Path) -> String {
    format!("touch {}", trace.display())
}

#[test]
fn what_asks_to_be_run_is_data_or_refused() {
    let dir = tempfile::tempdir().unwrap();
    let trace = dir.path().join("trace");
    let shell = command(&trace);
    let python = format!("__import__('os').system('{shell}')");
    let ops = Ops::default;
    let line = |op: &str, module: &str, name: &str| ops().op(format!("{op}{module}\n{name}\n").as_bytes());
    let system = || line("c", "os", "system");
    // Read as what they are: names and arguments, that nobody looks at.
    let inert = [
        ("REDUCE", system().text(&shell).op(b"\x85R")),
        ("REDUCE eval", line("c", "builtins", "eval").text(&python).op(b"\x85R")),
        ("REDUCE STACK_GLOBAL", ops().text("os").text("system").op(b"\x93").text(&shell).op(b"\x85R")),
        ("NEWOBJ", line("c", "subprocess", "Popen").text(&shell).op(b"\x85\x81")),
        ("BUILD", line("c", "attack", "WithSetState").op(b")\x81}").text("run").text(&shell).op(b"sb")),
        ("APPEND", line("c", "attack", "List").op(b")R").text(&shell).op(b"a")),
        ("SETITEM", line("c", "attack", "Dict").op(b")R").text("a").text(&shell).op(b"s")),
        ("a call of a call", line("c", "functools", "partial").op(b")R").text(&shell).op(b"\x85R")),
        ("a persistent id", ops().text(&python).op(b"Q")),
        ("a persistent id of odd contents", system().text(&shell).op(b"\x85RQ")),
        (
            "a storage of a class that is none",
            ops().op(b"(").text("storage").op(b"cos\nsystem\n").text("0").text("cpu").op(b"K\x01tQ"),
        ),
    ];
    for (name, payload) in inert {
        let victim = carrying(&payload);
        let said = ckpt!("materialize", victim.src(), victim.path("out"), "--tp", "1");
        // A storage that is none belongs to nothing that can be written again.
        assert!([0, SOURCE].contains(&said.code), "{name}: {} {}", said.code, said.err);
        assert!(
            said.code == 0 || name.contains("persistent") || name.contains("storage"),
            "{name}: {}",
            said.err
        );
        assert!(!said.err.contains("panicked"), "{name}: {}", said.err);
        assert!(!trace.exists(), "{name} was run");
    }
    // Not what any pickler of a checkpoint writes.
    let foreign = [
        ("INST", ops().op(b"(").text(&shell).op(b"ios\nsystem\n")),
        ("OBJ", ops().op(b"(cos\nsystem\n").text(&shell).op(b"o")),
        ("NEWOBJ_EX", line("c", "subprocess", "Popen").text(&shell).op(b"\x85}\x92")),
        ("EXT1", ops().op(b"\x82\x01")),
        ("EXT2", ops().op(b"\x83\x01\x00")),
        ("EXT4", ops().op(b"\x84\x01\x00\x00\x00")),
        ("PERSID", line("P", &python, "").op(b"")),
        ("NEXT_BUFFER", ops().op(b"\x97")),
        ("READONLY_BUFFER", ops().op(b"N\x98")),
        ("BYTEARRAY8", ops().op(b"\x96").op(&u64::MAX.to_le_bytes())),
        ("SHORT_BINSTRING", ops().op(b"U\x01a")),
    ];
    for (name, payload) in foreign {
        let victim = carrying(&payload);
        let words = ["mp_rank_00/model_optim_rng.pt", "opcode", name, "not supported"];
        ckpt!("inspect", victim.src()).refused(SOURCE, &words);
        assert!(!trace.exists(), "{name} was run");
    }
}

#[test]
fn objects_that_only_look_like_dicts_are_not_read_as_such() {
    let _alone = alone();
    // What an OrderedDict is given when it is made, it holds too: reading only what is set on it would hide tensors.
    let tree = |model: Ops| {
        let args = Ops::default().op(b"cargparse\nNamespace\n)\x81}b");
        Ops::default().op(b"}(").text("args").op(&args.0).text("model").op(&model.0).op(b"u")
    };
    let pairs = Ops::default().op(b"](").text("hidden").op(b"K\x01\x86e\x85");
    let model =
        Ops::default().op(b"ccollections\nOrderedDict\n").op(&pairs.0).op(b"R").text("a").op(b"K\x01s");
    tree(model).whole().refused(8 * MB, &["model"]);
    // A key twice, in the spellings that Python takes for one.
    for keys in
        [&b"K\x01N\x88N"[..], b"\x89NK\x00N", b"K\x02NG\x40\x00\x00\x00\x00\x00\x00\x00N", b"I7\nNI7\nN"]
    {
        Ops::default().op(b"(").op(keys).op(b"d").whole().refused(8 * MB, &["occurs twice"]);
    }
}

#[test]
fn a_pickle_of_single_bytes_takes_no_more_than_its_bound() {
    let _alone = alone();
    let ops = Ops::default;
    const COUNT: usize = 9_000_000;
    for (name, pickle) in [
        ("lists", ops().times(COUNT, b"]")),
        ("marks", ops().times(COUNT, b"(")),
        ("copies of the top", ops().op(b"N").times(COUNT, b"2")),
        ("memo entries", ops().op(b"N").times(COUNT, b"\x94")),
        ("objects", ops().op(b"NN").times(COUNT, b"R2")),
    ] {
        eprintln!("{name}");
        pickle.whole().refused(1200 * MB, &["more than 8 million values"]);
    }
}

#[test]
fn lengths_that_lie_take_nothing() {
    let _alone = alone();
    let ops = Ops::default;
    let all = u64::MAX.to_le_bytes();
    for pickle in [
        ops().op(b"X\xff\xff\xff\xff"),
        ops().op(b"B\xff\xff\xff\xff"),
        ops().op(b"\x8d").op(&all),
        ops().op(b"\x8e").op(&all),
        ops().op(b"\x8d\xff\xff\xff\xff\xff\xff\xff\x7f"),
        ops().op(b"\x8b\xff\xff\xff\x7f"),
        ops().op(b"\x8a\xff"),
        ops().op(b"\x95").op(&all),
        ops().op(b"\x95\x10\x00\x00\x00\x00\x00\x00\x00N"),
        ops().op(b"cos\nsystem"),
    ] {
        pickle.whole().refused(8 * MB, &["cut short"]);
    }
    // A negative length, an unknown entry of the memo, a memo entry beyond any.
    ops().op(b"\x8b\xff\xff\xff\xff").whole().refused(8 * MB, &["not a number"]);
    ops().get(u32::MAX).whole().refused(8 * MB, &["memo entry 4294967295"]);
    ops().op(b"]").put(u32::MAX).op(b"p99999999999999999999\n").whole().refused(8 * MB, &["not a number"]);
    ops().op(b"]").put(u32::MAX).op(b"p18446744073709551615\n").whole().refused(8 * MB, &["args"]);
    // A number of a megabyte is one that no field may hold.
    let vast = ops().op(b"\x8b\x00\x00\x10\x00").times(1 << 20, b"\x7f");
    let bad = carrying(&vast);
    ckpt!("inspect", bad.src()).ok();
    ops().op(b"I").times(1 << 20, b"9").op(b"\n").whole().refused(8 * MB, &["not a number"]);
    ops().op(b"L").times(1 << 20, b"9").op(b"L\n").whole().refused(8 * MB, &["not a number"]);
}

#[test]
fn what_nests_or_contains_itself_does_not_overflow() {
    let _alone = alone();
    let ops = Ops::default;
    const DEEP: usize = 1_000_000;
    ops().op(b"N").times(DEEP, b"\x85").whole().refused(300 * MB, &["nested more than 200"]);
    ops().times(DEEP, b"]").times(DEEP - 1, b"a").whole().refused(300 * MB, &["nested more than 200"]);
    ops().times(DEEP, b"(").op(b"N").times(DEEP, b"l").whole().refused(300 * MB, &["nested more than 200"]);
    ops().op(b"N").times(DEEP, b"Q").whole().refused(300 * MB, &["nested more than 200"]);
    ops().times(DEEP, b"}N").op(b"N").times(DEEP, b"s").whole().refused(300 * MB, &["nested more than 200"]);
    ops().op(b"NN").times(DEEP, b"R)").op(b"R").whole().refused(500 * MB, &["nested more than 200"]);
    for cycle in [&b"]2a"[..], b"}2NN2000K\x01", b"]q\x00]h\x00ah\x00\x86"] {
        let error = crate::bounds::opened_within(&ops().op(cycle).whole().src(), 8 * MB);
        assert!(error.is_err(), "{cycle:?}");
    }
    ops().op(b"]q\x00h\x00a").whole().refused(8 * MB, &["contains itself"]);
    ops().op(b"}q\x00K\x01h\x00s").whole().refused(8 * MB, &["contains itself"]);
    ops().op(b"ca\nB\n)Rq\x00h\x00b").whole().refused(8 * MB, &["contains itself"]);
    ops().op(b"]q\x00h\x00\x85a").whole().refused(8 * MB, &["contains itself"]);
}

#[test]
fn what_stands_for_more_than_it_says_is_bounded() {
    let _alone = alone();
    let ops = Ops::default;
    // Each tuple is the one before it several times: by copies of the top, by the memo, by lists that are appended to.
    let doubled = ops().op(b"N").times(60, b"2\x86");
    doubled.whole().refused(8 * MB, &["more than 50000000 values"]);
    let tripled = ops().op(b"N").times(60, b"22\x87");
    tripled.whole().refused(8 * MB, &["more than 50000000 values"]);
    let mut laughs = ops().op(b"]").put(0);
    for level in 1..20 {
        laughs = laughs.op(b"0](");
        for _ in 0..10 {
            laughs = laughs.get(level - 1);
        }
        laughs = laughs.op(b"e").put(level);
    }
    laughs.whole().refused(8 * MB, &["more than 50000000 values"]);
    // One long text many times.
    let text = "x".repeat(1 << 20);
    ops().op(b"](").text(&text).times(2000, b"2").op(b"e").whole().refused(32 * MB, &["more than 50000000"]);
}

#[test]
fn a_long_key_of_many_dicts_is_not_compared_for_ever() {
    let _alone = alone();
    // To see that a dict has it once, all of it is read: a million dicts of a few bytes would be a terabyte.
    let long = "k".repeat(1 << 20);
    let many = Ops::default().text(&long).put(0).op(b"0](").times(300_000, b"}j\0\0\0\0Ns").op(b"e");
    many.whole().refused(300 * MB, &["more than 50000000 values"]);
}

#[test]
fn names_that_grow_where_they_are_joined() {
    let _alone = alone();
    let args = Ops::default().op(b"cargparse\nNamespace\n)\x81}").text("num_layers").op(b"K\x04sb");
    let tree = |model: Ops| {
        let ops = Ops::default().op(b"}(").text("args").op(&args.0).text("checkpoint_version");
        ops.op(b"G\x40\x08\0\0\0\0\0\0").text("model").op(&model.0).op(b"u")
    };
    // The name of each of a hundred thousand entries would begin with a megabyte: a hundred gigabytes.
    let mut entries = Ops::default().op(b"}(");
    for number in 0..100_000 {
        entries = entries.text(&number.to_string()).op(b"N");
    }
    let model = Ops::default().op(b"}").text(&"k".repeat(1 << 20)).op(&entries.0).op(b"us");
    tree(model).whole().refused(200 * MB, &["a name of more than 2000 bytes", "kkkk"]);
    // A dict of a thousand in a dict of a thousand in one of ten: ten million entries in 20 kB.
    let mut inner = Ops::default().op(b"}(");
    for number in 0..1000 {
        inner = inner.text(&number.to_string()).op(b"N");
    }
    inner = inner.op(b"u");
    for (level, count) in [(0, 1000), (1, 10)] {
        let mut outer = Ops::default().op(&inner.0).put(level).op(b"0}(");
        for number in 0..count {
            outer = outer.text(&number.to_string()).get(level);
        }
        inner = outer.op(b"u");
    }
    tree(inner).whole().refused(800 * MB, &["the names in its model take more than"]);
}

#[test]
fn a_hostile_file_that_stands_for_many_ranks_is_not_read_for_each_at_once() {
    let _alone = alone();
    let pickle = Ops::default().op(b"\x80\x02").times(9_000_000, b"]").op(b".");
    let victim = Victim::with_file(&pt_of(&pickle.0, &[]));
    let iteration = victim.file().parent().unwrap().parent().unwrap().to_owned();
    for rank in 1..3 {
        let to = iteration.join(format!("mp_rank_{rank:02}"));
        std::os::unix::fs::symlink(iteration.join("mp_rank_00"), to).unwrap();
    }
    // As many as there are processors are taken apart at a time; the bytes of all are there.
    let at_once = std::thread::available_parallelism().unwrap().get();
    victim.refused((650 * at_once + 3 * 20) * MB, &["more than 8 million values"]);
}

#[test]
fn messages_about_long_names_are_short() {
    let _alone = alone();
    let long = "n\u{1b}[2J".repeat(1 << 18);
    let keys = Ops::default().op(b"}(").text(&long).op(b"N").text(&long).op(b"Nu");
    let victim = keys.whole();
    victim.refused(64 * MB, &["occurs twice"]);
    let said = ckpt!("inspect", victim.src());
    assert!(!said.err.contains('\u{1b}'));
    said.refused(SOURCE, &["occurs twice"]);
}
