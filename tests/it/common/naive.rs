//! What a rank of any layout holds, computed the slow way: whole tensors, joined and sliced.

use ckpt_fs::tensor::Dtype;

use super::Array;

/// Which files' names and rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Megatron-core with its own layers.
    Core,
    /// Megatron-core with Transformer Engine's fused layers.
    CoreTe,
    /// Megatron-LM's GPT before megatron-core.
    Legacy,
    /// The same with the later names of the norms.
    LegacyNewNorms,
}

impl Kind {
    pub fn is_core(self) -> bool {
        matches!(self, Self::Core | Self::CoreTe)
    }
}

/// A model.
#[derive(Debug, Clone)]
pub struct Config {
    pub kind: Kind,
    pub layers: u32,
    pub hidden: u64,
    pub heads: u64,
    pub groups: u64,
    /// Size of a head.
    pub head: u64,
    pub ffn: u64,
    /// True size of the vocabulary.
    pub vocab: u64,
    /// What its padded size is a multiple of, before TP.
    pub multiple: u64,
    /// Whether args say the true size.
    pub vocab_in_args: bool,
    pub dtype: Dtype,
    pub gated: bool,
    pub bias: bool,
    /// Whether q, k and v have a bias, also where nothing else has.
    pub qkv_bias: bool,
    /// Whether norms have a bias.
    pub norm_bias: bool,
    pub qk_norm: bool,
    pub tied: bool,
    /// Learned positions, where there are.
    pub positions: Option<u64>,
    /// Another number makes other values.
    pub salt: u64,
    pub moe: Option<Moe>,
    pub mla: Option<Mla>,
    /// Layers that predict tokens beyond the next one.
    pub predictions: u32,
}

/// Latent attention of a model.
#[derive(Debug, Clone, Copy)]
pub struct Mla {
    pub q_rank: Option<u64>,
    pub kv_rank: u64,
    /// Size of a head's position.
    pub position: u64,
    /// Size of a head of values.
    pub value: u64,
    /// Ranks hold copies of the down projections, and norms are fused, as in Transformer Engine.
    pub te: bool,
}

/// Experts of a model.
#[derive(Debug, Clone, Copy)]
pub struct Moe {
    pub experts: u64,
    pub ffn: u64,
    /// Every Nth layer has them, from the first.
    pub every: u32,
    /// Size of the expert for all tokens, where there is one.
    pub shared: Option<u64>,
    /// Transformer Engine's grouped layers.
    pub grouped: bool,
    /// A bias of the router that is no parameter.
    pub expert_bias: bool,
    /// The expert for all tokens has a gate of its own.
    pub shared_gate: bool,
}

impl Default for Moe {
    fn default() -> Self {
        Self {
            experts: 4,
            ffn: 8,
            every: 1,
            shared: None,
            grouped: false,
            expert_bias: true,
            shared_gate: false,
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            kind: Kind::Core,
            layers: 4,
            hidden: 6,
            heads: 4,
            groups: 2,
            head: 2,
            ffn: 8,
            vocab: 11,
            multiple: 4,
            vocab_in_args: true,
            dtype: Dtype::Float32,
            gated: true,
            bias: false,
            qkv_bias: false,
            norm_bias: false,
            qk_norm: false,
            tied: false,
            positions: None,
            salt: 0,
            moe: None,
            mla: None,
            predictions: 0,
        }
    }
}

/// A layout: TP and layers per (virtual) stage, in the order of the model; with experts, EP and ETP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    pub tp: u64,
    pub stages: Vec<u32>,
    pub vpp: u32,
    pub ep: u64,
    pub etp: u64,
}

impl Cut {
    pub fn new(tp: u64, stages: &[u32]) -> Self {
        Self { tp, stages: stages.to_vec(), vpp: 1, ep: 1, etp: tp }
    }

    /// The same with so many of the stages on each rank.
    pub fn virtually(self, vpp: u32) -> Self {
        assert_eq!(self.stages.len() as u32 % vpp, 0);
        Self { vpp, ..self }
    }

    /// The same with experts shared out and cut so.
    pub fn experts(self, ep: u64, etp: u64) -> Self {
        Self { ep, etp, ..self }
    }

    pub fn pp(&self) -> u32 {
        self.stages.len() as u32 / self.vpp
    }

    /// Directory of a rank without experts.
    pub fn rank_dir(&self, tp: u64, pp: u32) -> String {
        self.dir((tp, pp, 0))
    }

    /// Directory of a rank.
    pub fn dir(&self, (tp, pp, ep): (u64, u32, u64)) -> String {
        let mut name = format!("mp_rank_{tp:02}");
        if self.pp() > 1 {
            name += &format!("_{pp:03}");
        }
        if self.ep > 1 {
            name += &format!("_{ep:03}");
        }
        name
    }

    /// Every rank: TP, PP, EP.
    pub fn all_ranks(&self) -> Vec<(u64, u32, u64)> {
        let ranks = self.ranks().into_iter();
        ranks.flat_map(|(tp, pp)| (0..self.ep).map(move |ep| (tp, pp, ep))).collect()
    }

    /// The process that has a rank, counted out from the first, with so many replicas of what is not an expert's.
    pub fn process(&self, (tp, pp, ep): (u64, u32, u64), dp: u64) -> Option<u64> {
        let per_stage = self.tp * dp;
        let has = |n: &u64| (n / per_stage, n % self.tp, n % per_stage / self.etp % self.ep);
        (0..per_stage * u64::from(self.pp())).find(|n| has(n) == (u64::from(pp), tp, ep))
    }

    /// The least number of replicas, from `dp` on, that experts can be shared out among.
    pub fn replicas(&self, dp: u64) -> u64 {
        (dp..).find(|dp| (self.tp * dp).is_multiple_of(self.etp * self.ep)).unwrap()
    }

    /// Every rank: TP, PP.
    pub fn ranks(&self) -> Vec<(u64, u32)> {
        (0..self.pp()).flat_map(|pp| (0..self.tp).map(move |tp| (tp, pp))).collect()
    }
}

/// What new rows of the vocabulary hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fill {
    Zero,
    LastRow,
}

/// A model and the layout its checkpoint was written in: the padding of the vocabulary is of that layout.
#[derive(Debug, Clone)]
pub struct Written {
    pub config: Config,
    /// TP of the source: rows of its padding are kept, others are new.
    pub source_tp: u64,
    pub fill: Fill,
    /// The source has no padding at all.
    pub unpadded: bool,
}

impl Config {
    /// Rows of the vocabulary at this TP (Megatron's rule).
    pub fn padded(&self, tp: u64) -> u64 {
        self.vocab.next_multiple_of(self.multiple * tp)
    }

    /// Rows of the source that [`Config::whole`] draws a vocabulary of: values do not depend on it.
    pub fn padded_at_source(&self) -> u64 {
        self.padded(1)
    }

    /// A canonical tensor: what is in it follows from its name and the place in it alone.
    pub fn whole(&self, name: &str, shape: &[u64]) -> Array {
        let size = self.dtype.size();
        let count = shape.iter().product::<u64>();
        let seed = name.bytes().fold(0xcbf2_9ce4_8422_2325u64 ^ self.salt, |h, b| {
            (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3)
        });
        let bytes = (0..count).flat_map(|index| {
            let mixed =
                (seed ^ index.wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_mul(0xd6e8_feb8_6659_fd93);
            (mixed ^ (mixed >> 29)).to_le_bytes().repeat(2).into_iter().take(size as usize)
        });
        Array { dtype: self.dtype, shape: shape.to_vec(), bytes: bytes.collect() }
    }
}

impl Array {
    fn row_bytes(&self) -> usize {
        (self.shape[1..].iter().product::<u64>() * self.dtype.size()) as usize
    }

    /// Rows `from..to`.
    pub fn rows(&self, from: u64, to: u64) -> Self {
        let row = self.row_bytes();
        let mut shape = self.shape.clone();
        shape[0] = to - from;
        let bytes = self.bytes[from as usize * row..to as usize * row].to_vec();
        Self { dtype: self.dtype, shape, bytes }
    }

    /// Columns `from..to` of a matrix.
    pub fn columns(&self, from: u64, to: u64) -> Self {
        let size = self.dtype.size() as usize;
        let rows = self.bytes.chunks(self.row_bytes());
        let bytes = rows.flat_map(|row| row[from as usize * size..to as usize * size].to_vec()).collect();
        Self { dtype: self.dtype, shape: vec![self.shape[0], to - from], bytes }
    }

    /// Rows of all of these, one after the other.
    pub fn join(parts: &[Self]) -> Self {
        let mut shape = parts[0].shape.clone();
        shape[0] = parts.iter().map(|part| part.shape[0]).sum();
        let bytes = parts.iter().flat_map(|part| part.bytes.clone()).collect();
        Self { dtype: parts[0].dtype, shape, bytes }
    }

    /// Part `rank` of `tp` equal parts of its rows.
    pub fn row_part(&self, tp: u64, rank: u64) -> Self {
        assert_eq!(self.shape[0] % tp, 0);
        let each = self.shape[0] / tp;
        self.rows(each * rank, each * (rank + 1))
    }

    /// Part `rank` of `tp` equal parts of its columns.
    pub fn column_part(&self, tp: u64, rank: u64) -> Self {
        assert_eq!(self.shape[1] % tp, 0);
        let each = self.shape[1] / tp;
        self.columns(each * rank, each * (rank + 1))
    }
}

impl Written {
    pub fn new(config: &Config, source: &Cut) -> Self {
        Self { config: config.clone(), source_tp: source.tp, fill: Fill::Zero, unpadded: false }
    }

    /// Rows of the vocabulary at `tp`.
    fn vocabulary(&self, name: &str, tp: u64) -> Array {
        let config = &self.config;
        let rows = if self.unpadded { config.vocab } else { config.padded(self.source_tp) };
        let stored = config.whole(name, &[config.padded(self.source_tp), config.hidden]).rows(0, rows);
        let (have, want) = (stored.shape[0], config.padded(tp));
        if want <= have {
            return stored.rows(0, want);
        }
        let mut new = stored.rows(have - 1, have);
        if self.fill == Fill::Zero {
            new.bytes.fill(0);
        }
        let mut parts = vec![stored];
        parts.extend((have..want).map(|_| new.clone()));
        Array::join(&parts)
    }

    /// q, k and v of a layer in Megatron's rows: per query group its queries, its key, its value.
    fn qkv(&self, layer: &str, what: &str) -> Array {
        let c = &self.config;
        let shape = |rows: u64| if what == "bias" { vec![rows] } else { vec![rows, c.hidden] };
        let whole = |part: &str, rows: u64| c.whole(&format!("{layer}.{part}.{what}"), &shape(rows));
        let q = whole("q", c.heads * c.head);
        let (k, v) = (whole("k", c.groups * c.head), whole("v", c.groups * c.head));
        let per = c.heads / c.groups * c.head;
        let groups = (0..c.groups).flat_map(|g| {
            let own = |array: &Array| array.rows(g * c.head, (g + 1) * c.head);
            [q.rows(g * per, (g + 1) * per), own(&k), own(&v)]
        });
        Array::join(&groups.collect::<Vec<_>>())
    }

    /// fc1 on one rank: its part of the gate, then its part of up; or its part of up alone. `of` is a layer, or an expert in it.
    fn fc1(&self, of: &str, ffn: u64, what: &str, (tp, rank): (u64, u64)) -> Array {
        let c = &self.config;
        let shape = if what == "bias" { vec![ffn] } else { vec![ffn, c.hidden] };
        let part = |name: &str| c.whole(&format!("{of}.{name}.{what}"), &shape).row_part(tp, rank);
        if c.gated { Array::join(&[part("gate"), part("up")]) } else { part("up") }
    }

    /// fc2 likewise: its columns, and a bias that every rank has.
    fn fc2(&self, of: &str, ffn: u64, what: &str, (tp, rank): (u64, u64)) -> Array {
        let c = &self.config;
        match what {
            "weight" => c.whole(&format!("{of}.fc2"), &[c.hidden, ffn]).column_part(tp, rank),
            _ => c.whole(&format!("{of}.fc2.bias"), &[c.hidden]),
        }
    }

    /// The experts of a layer, and what else is there in place of a feed-forward layer.
    fn moe(&self, moe: &Moe, layer: &str, cut: &Cut, rank: (u64, u64), put: &mut dyn FnMut(&str, Array)) {
        let c = &self.config;
        let (tp, ep) = rank;
        let whats: &[&str] = if c.bias { &["weight", "bias"] } else { &["weight"] };
        put("mlp.router.weight", c.whole(&format!("{layer}.router"), &[moe.experts, c.hidden]));
        if moe.expert_bias {
            put("mlp.router.expert_bias", c.whole(&format!("{layer}.router.bias"), &[moe.experts]));
        }
        let each = moe.experts / cut.ep;
        let part = (cut.etp, tp % cut.etp);
        let global = |local: u64| format!("{layer}.expert{}", ep * each + local);
        if moe.grouped {
            for local in 0..each {
                for what in whats {
                    let array = self.fc1(&global(local), moe.ffn, what, part);
                    put(&format!("mlp.experts.linear_fc1.{what}{local}"), array);
                }
            }
            for local in 0..each {
                for what in whats {
                    let array = self.fc2(&global(local), moe.ffn, what, part);
                    put(&format!("mlp.experts.linear_fc2.{what}{local}"), array);
                }
            }
        } else {
            for local in 0..each {
                let module = format!("mlp.experts.local_experts.{local}");
                for what in whats {
                    put(
                        &format!("{module}.linear_fc1.{what}"),
                        self.fc1(&global(local), moe.ffn, what, part),
                    );
                }
                for what in whats {
                    put(
                        &format!("{module}.linear_fc2.{what}"),
                        self.fc2(&global(local), moe.ffn, what, part),
                    );
                }
            }
        }
        let Some(ffn) = moe.shared else { return };
        let shared = format!("{layer}.shared");
        if moe.shared_gate {
            put("mlp.shared_experts.gate_weight", c.whole(&format!("{shared}.share"), &[1, c.hidden]));
        }
        for what in whats {
            let array = self.fc1(&shared, ffn, what, (cut.tp, tp));
            put(&format!("mlp.shared_experts.linear_fc1.{what}"), array);
        }
        for what in whats {
            let array = self.fc2(&shared, ffn, what, (cut.tp, tp));
            put(&format!("mlp.shared_experts.linear_fc2.{what}"), array);
        }
    }

    /// Latent attention: what stands in place of q, k and v.
    fn latent(&self, mla: &Mla, layer: &str, (tp, rank): (u64, u64), put: &mut dyn FnMut(&str, Array)) {
        let c = &self.config;
        let down = |name: &str, rows: u64| {
            let whole = c.whole(&format!("{layer}.{name}"), &[rows, c.hidden]);
            if mla.te { whole } else { whole.row_part(tp, rank) }
        };
        let up = |name: &str, rows: u64, columns: u64| {
            c.whole(&format!("{layer}.{name}"), &[c.heads * rows, columns]).row_part(tp, rank)
        };
        let norm = |name: &str, size: u64| c.whole(&format!("{layer}.{name}"), &[size]);
        let queries = c.head + mla.position;
        match mla.q_rank {
            None => put("self_attention.linear_q_proj.weight", up("mla.q", queries, c.hidden)),
            Some(q_rank) => {
                put("self_attention.linear_q_down_proj.weight", down("mla.q_down", q_rank));
                if mla.te {
                    put("self_attention.linear_q_up_proj.layer_norm_weight", norm("mla.q_norm", q_rank));
                }
                put("self_attention.linear_q_up_proj.weight", up("mla.q_up", queries, q_rank));
            }
        }
        put("self_attention.linear_kv_down_proj.weight", down("mla.kv_down", mla.kv_rank + mla.position));
        if mla.te {
            put("self_attention.linear_kv_up_proj.layer_norm_weight", norm("mla.kv_norm", mla.kv_rank));
        }
        put("self_attention.linear_kv_up_proj.weight", up("mla.kv_up", c.head + mla.value, mla.kv_rank));
        if !mla.te {
            if let Some(q_rank) = mla.q_rank {
                put("self_attention.q_layernorm.weight", norm("mla.q_norm", q_rank));
            }
            put("self_attention.kv_layernorm.weight", norm("mla.kv_norm", mla.kv_rank));
        }
    }

    /// A layer whose names begin with `prefix`; what it holds is that of `layer`.
    fn layer(
        &self,
        (prefix, layer): (&str, &str),
        moe: Option<Moe>,
        cut: &Cut,
        (rank, ep): (u64, u64),
        out: &mut Vec<(String, Array)>,
    ) {
        let (c, tp) = (&self.config, cut.tp);
        let core = c.kind.is_core();
        let vector = |name: &str, size: u64| c.whole(&format!("{layer}.{name}"), &[size]);
        let mut put = |name: &str, array: Array| out.push((format!("{prefix}.{name}"), array));
        let (norm1, norm2, separator) = match c.kind {
            Kind::Core => ("input_layernorm", "pre_mlp_layernorm", "."),
            Kind::CoreTe => ("self_attention.linear_qkv.layer_norm", "mlp.linear_fc1.layer_norm", "_"),
            Kind::Legacy => ("input_layernorm", "post_attention_layernorm", "."),
            Kind::LegacyNewNorms => ("input_norm", "post_attention_norm", "."),
        };
        // Latent attention has no layer that the norm could be fused into.
        let fused_norm1 = c.kind == Kind::CoreTe && c.mla.is_none();
        let (qkv, proj, fc1, fc2) = if core {
            ("self_attention.linear_qkv", "self_attention.linear_proj", "mlp.linear_fc1", "mlp.linear_fc2")
        } else {
            (
                "self_attention.query_key_value",
                "self_attention.dense",
                "mlp.dense_h_to_4h",
                "mlp.dense_4h_to_h",
            )
        };
        let whats: &[&str] = if c.bias { &["weight", "bias"] } else { &["weight"] };
        let norm_whats: &[&str] = if c.norm_bias { &["weight", "bias"] } else { &["weight"] };
        let norm =
            |name: &str, size: u64, put: &mut dyn FnMut(&str, Array), canonical: &str, separator: &str| {
                for what in norm_whats {
                    put(&format!("{name}{separator}{what}"), vector(&format!("{canonical}.{what}"), size));
                }
            };
        let output = |put: &mut dyn FnMut(&str, Array)| {
            for what in whats {
                let array = if *what == "weight" {
                    let head = c.mla.map_or(c.head, |mla| mla.value);
                    c.whole(&format!("{layer}.proj"), &[c.hidden, c.heads * head]).column_part(tp, rank)
                } else {
                    vector("proj.bias", c.hidden)
                };
                put(&format!("{proj}.{what}"), array);
            }
        };
        if !fused_norm1 {
            let norm1 = if c.kind == Kind::CoreTe { "input_layernorm" } else { norm1 };
            norm(norm1, c.hidden, &mut put, "norm1", ".");
        }
        if core {
            output(&mut put);
        }
        if fused_norm1 {
            norm(norm1, c.hidden, &mut put, "norm1", separator);
        }
        if let Some(mla) = &c.mla {
            self.latent(mla, layer, (tp, rank), &mut put);
        } else {
            for what in if c.qkv_bias { &["weight", "bias"] } else { whats } {
                put(&format!("{qkv}.{what}"), self.qkv(layer, what).row_part(tp, rank));
            }
        }
        if c.qk_norm {
            norm("self_attention.q_layernorm", c.head, &mut put, "q_norm", ".");
            norm("self_attention.k_layernorm", c.head, &mut put, "k_norm", ".");
        }
        if !core {
            output(&mut put);
        }
        if let Some(moe) = moe {
            // Also where Transformer Engine would fuse it into a dense layer.
            norm("pre_mlp_layernorm", c.hidden, &mut put, "norm2", ".");
            return self.moe(&moe, layer, cut, (rank, ep), &mut put);
        }
        norm(norm2, c.hidden, &mut put, "norm2", separator);
        for what in whats {
            put(&format!("{fc1}.{what}"), self.fc1(layer, c.ffn, what, (tp, rank)));
        }
        for what in whats {
            put(&format!("{fc2}.{what}"), self.fc2(layer, c.ffn, what, (tp, rank)));
        }
    }

    /// Every tensor that rank (`rank`, `stage`) of `cut` saves, in Megatron's order. `/` separates nested dicts.
    pub fn rank(&self, cut: &Cut, rank: u64, stage: u32) -> Vec<(String, Array)> {
        self.whole_rank(cut, (rank, stage, 0))
    }

    /// The same for one of several expert ranks. Virtual stages stand in `model0/`, `model1/` and so on.
    pub fn whole_rank(&self, cut: &Cut, (rank, pp, ep): (u64, u32, u64)) -> Vec<(String, Array)> {
        let chunk = |chunk: u32| {
            let prefix = if cut.vpp > 1 { format!("model{chunk}/") } else { String::new() };
            let tensors = self.stage(cut, (rank, ep), chunk * cut.pp() + pp).into_iter();
            tensors.map(move |(path, array)| (format!("{prefix}{path}"), array))
        };
        (0..cut.vpp).flat_map(chunk).collect()
    }

    fn prediction(&self, depth: u32, cut: &Cut, (rank, ep): (u64, u64), out: &mut Vec<(String, Array)>) {
        let (c, module) = (&self.config, format!("mtp.layers.{depth}"));
        let norm = |name: &str| c.whole(&format!("mtp{depth}.{name}"), &[c.hidden]);
        out.push((format!("{module}.enorm.weight"), norm("enorm")));
        out.push((format!("{module}.hnorm.weight"), norm("hnorm")));
        let projection = c.whole(&format!("mtp{depth}.eh_proj"), &[c.hidden, 2 * c.hidden]);
        out.push((format!("{module}.eh_proj.weight"), projection.row_part(cut.tp, rank)));
        let names = (format!("{module}.transformer_layer"), format!("mtp{depth}.layer"));
        // Like the last layer of the model.
        let moe = c.moe.filter(|moe| (c.layers - 1).is_multiple_of(moe.every));
        self.layer((&names.0, &names.1), moe, cut, (rank, ep), out);
        out.push((format!("{module}.final_layernorm.weight"), norm("final")));
    }

    fn stage(&self, cut: &Cut, (rank, ep): (u64, u64), stage: u32) -> Vec<(String, Array)> {
        let c = &self.config;
        let core = c.kind.is_core();
        let (first, last) = (stage == 0, stage as usize + 1 == cut.stages.len());
        let mut out = Vec::new();
        // Predictions need the embedding too.
        if first || (last && c.predictions > 0) {
            let (words, positions) = if core {
                ("embedding.word_embeddings.weight", "embedding.position_embeddings.weight")
            } else {
                (
                    "language_model/embedding/word_embeddings/weight",
                    "language_model/embedding/position_embeddings/weight",
                )
            };
            out.push((words.to_owned(), self.vocabulary("embedding", cut.tp).row_part(cut.tp, rank)));
            if let Some(count) = c.positions {
                out.push((positions.to_owned(), c.whole("positions", &[count, c.hidden])));
            }
        }
        let before: u32 = cut.stages[..stage as usize].iter().sum();
        for local in 0..cut.stages[stage as usize] {
            let prefix = if core {
                format!("decoder.layers.{local}")
            } else {
                format!("language_model/encoder/layers.{local}")
            };
            let layer = before + local;
            let moe = c.moe.filter(|moe| layer.is_multiple_of(moe.every));
            self.layer((&prefix, &layer.to_string()), moe, cut, (rank, ep), &mut out);
        }
        if last {
            let norm = match c.kind {
                Kind::Core | Kind::CoreTe => "decoder.final_layernorm",
                Kind::Legacy => "language_model/encoder/final_layernorm",
                Kind::LegacyNewNorms => "language_model/encoder/final_norm",
            };
            for what in if c.norm_bias { &["weight", "bias"][..] } else { &["weight"] } {
                out.push((format!("{norm}.{what}"), c.whole(&format!("final.{what}"), &[c.hidden])));
            }
            for depth in 0..c.predictions {
                self.prediction(depth, cut, (rank, ep), &mut out);
            }
            let name = match (core, c.tied) {
                (true, _) => "output_layer.weight",
                (false, false) => "language_model/output_layer/weight",
                (false, true) => "word_embeddings_for_head/weight",
            };
            let holds = if c.tied { "embedding" } else { "output" };
            if !c.tied || cut.pp() > 1 {
                out.push((name.to_owned(), self.vocabulary(holds, cut.tp).row_part(cut.tp, rank)));
            }
        }
        out
    }
}
