//! Test cases: shapes, layouts and contents from which the suite makes calls with memory.

use flagos_backend_api::{DType, Result, Tensor};

use crate::{Array, AttrKind, AttrValue, Call, DTypes, Operator, TypeRule, dtypes};

/// When a case runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tier {
    /// The tier of runs that take a few cases of each kind; no case states it.
    Spot,
    /// In every other run.
    Smoke,
    /// In runs of up to 20 minutes.
    Quick,
    /// In sharded runs.
    Full,
    /// Only in `flagos bench`.
    Bench,
}

/// How a tensor lies in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Row-major without gaps.
    Contiguous,
    /// Row-major with a gap after every element and row.
    Strided,
    /// Axes stored in reverse order.
    Transposed,
    /// Contiguous, starting three elements into its memory.
    Offset,
    /// The last axis runs backwards (inputs; outputs are contiguous).
    Negative,
    /// The first axis repeats one element (inputs; outputs are contiguous).
    Repeated,
}

/// What a tensor holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fill {
    /// Both signs, magnitudes from 1e-3 to 1e2, never special.
    Spread,
    /// Roughly normal around 0 with deviation 1.
    Normal,
    /// Uniform within bounds.
    Uniform(f64, f64),
    /// NaN, infinities, zeros, subnormals and extremes among ordinary values.
    Special,
    /// One element in eight is of the list, the others are as in `Normal`; integers are as in `Normal`.
    Among(&'static [f64]),
    /// Integers within bounds, inclusive.
    Ints(i64, i64),
    /// Few distinct values, so that ties abound.
    Ties,
    /// (seed, offset) of a generator.
    Seed,
    /// Each of 0..n once per row of the last axis (scatter without collisions is not needed; gather likes it).
    Permutation,
}

/// One input of a case.
#[derive(Clone, Debug)]
pub struct TensorCase {
    /// Extents; `None` stands for an absent optional input.
    pub shape: Option<Vec<i64>>,
    /// Layout.
    pub layout: Layout,
    /// Contents.
    pub fill: Fill,
}

impl TensorCase {
    /// A present input.
    pub fn new(shape: &[i64], layout: Layout, fill: Fill) -> TensorCase {
        TensorCase { shape: Some(shape.to_vec()), layout, fill }
    }
    /// An absent optional input.
    pub fn absent() -> TensorCase {
        TensorCase { shape: None, layout: Layout::Contiguous, fill: Fill::Normal }
    }
}

/// A case before types are chosen.
#[derive(Clone, Debug)]
pub struct Case {
    /// Name within the operator.
    pub name: String,
    /// When it runs.
    pub tier: Tier,
    /// Inputs.
    pub inputs: Vec<TensorCase>,
    /// Attributes off their defaults.
    pub attrs: Vec<(&'static str, AttrValue)>,
    /// Shape of outputs whose shape the caller chooses.
    pub out_shape: Option<Vec<i64>>,
    /// Layout of outputs; `None`: that of the first input, or contiguous.
    pub out_layout: Option<Layout>,
}

/// Collects an operator's cases.
pub struct Cases {
    operator: &'static Operator,
    list: Vec<Case>,
}

impl Cases {
    /// All cases of an operator, in order.
    pub fn of(operator: &'static Operator) -> Vec<Case> {
        let mut cases = Cases { operator, list: Vec::new() };
        (operator.cases)(&mut cases);
        cases.list
    }
    /// The operator.
    pub fn operator(&self) -> &'static Operator {
        self.operator
    }
    fn push(&mut self, tier: Tier, name: &str, inputs: Vec<TensorCase>, attrs: &[(&'static str, AttrValue)]) {
        self.list.push(Case { name: name.to_owned(), tier, inputs, attrs: attrs.to_vec(), out_shape: None, out_layout: None });
    }
    /// A smoke case.
    pub fn add(&mut self, name: &str, inputs: Vec<TensorCase>, attrs: &[(&'static str, AttrValue)]) {
        self.push(Tier::Smoke, name, inputs, attrs);
    }
    /// A quick case.
    pub fn quick(&mut self, name: &str, inputs: Vec<TensorCase>, attrs: &[(&'static str, AttrValue)]) {
        self.push(Tier::Quick, name, inputs, attrs);
    }
    /// A full case.
    pub fn full(&mut self, name: &str, inputs: Vec<TensorCase>, attrs: &[(&'static str, AttrValue)]) {
        self.push(Tier::Full, name, inputs, attrs);
    }
    /// A performance case.
    pub fn bench(&mut self, name: &str, inputs: Vec<TensorCase>, attrs: &[(&'static str, AttrValue)]) {
        self.push(Tier::Bench, name, inputs, attrs);
    }
    /// Gives the last case the shape of outputs the caller chooses.
    pub fn with_output(&mut self, shape: &[i64]) {
        if let Some(case) = self.list.last_mut() {
            case.out_shape = Some(shape.to_vec());
        }
    }
    /// Gives the last case's outputs a layout of their own.
    pub fn with_output_layout(&mut self, layout: Layout) {
        if let Some(case) = self.list.last_mut() {
            case.out_layout = Some(layout);
        }
    }
    /// Contents rows are tried on.
    pub fn row_fill(&self) -> Fill {
        Fill::Spread
    }
    /// Attribute settings off the default, one attribute at a time.
    pub fn operator_variants(&self) -> Vec<(&'static str, Vec<(&'static str, AttrValue)>)> {
        let mut variants = Vec::new();
        for a in self.operator.attributes {
            match a.kind {
                AttrKind::Choice { names, .. } => {
                    variants.extend(names.iter().enumerate().skip(1).map(|(i, n)| (*n, vec![(a.name, AttrValue::Int(i as i64))])));
                }
                AttrKind::Number { .. } | AttrKind::Float { .. } => variants.push((a.name, vec![(a.name, AttrValue::Float(2.0))])),
                _ => {}
            }
        }
        variants
    }
}

/// One operand's memory: descriptor, contents, and where element (0, …, 0) lies in them.
#[derive(Clone, Debug)]
pub struct Memory {
    /// Descriptor without a buffer; `byte_offset` is `origin`.
    pub tensor: Tensor,
    /// Byte of element (0, …, 0) within `bytes`.
    pub origin: usize,
    /// Contents (inputs), or a length to fill (outputs).
    pub bytes: Vec<u8>,
}

/// A case with types chosen: a call with memory.
#[derive(Clone, Debug)]
pub struct Instance {
    /// `operator/types/name`.
    pub id: String,
    /// The call.
    pub call: Call,
    /// Inputs with contents.
    pub inputs: Vec<Memory>,
    /// Outputs with zeros.
    pub outputs: Vec<Memory>,
}

/// Types of the inputs, and of outputs whose type the caller chooses.
#[derive(Clone, Debug, PartialEq)]
pub struct Assignment {
    /// By input; a `many` operand's type is the last.
    pub inputs: Vec<DType>,
    /// Free output type.
    pub free: DType,
}

impl Assignment {
    /// Text for ids: `f32`, or `i32-f32` where types differ.
    pub fn name(&self, operator: &Operator) -> String {
        let mut types: Vec<DType> = self.inputs.iter().zip(operator.inputs).filter(|(_, rule)| !fixed(rule.types)).map(|(t, _)| *t).collect();
        if types.windows(2).all(|w| w[0] == w[1]) {
            types.truncate(1);
        }
        if operator.outputs.iter().any(|o| free_set(o.types).is_some()) && self.free != DType::NONE {
            types.push(self.free);
        }
        types.iter().map(|t| t.name()).collect::<Vec<_>>().join("-")
    }
}

fn fixed(rule: TypeRule) -> bool {
    matches!(rule, TypeRule::Any(s) if s.0.count_ones() == 1)
}

/// The set of an output the caller types: `Any` of several types on an output.
fn free_set(rule: TypeRule) -> Option<DTypes> {
    match rule {
        TypeRule::Any(s) if s.0.count_ones() > 1 => Some(s),
        _ => None,
    }
}

fn primary(set: DTypes) -> DType {
    [DType::F32, DType::I64].into_iter().find(|t| set.has(*t)).or_else(|| set.iter().next()).unwrap_or(DType::F32)
}

/// Type assignments worth testing: every type of every rule, one rule at a time; mixed pairs where types promote; all pairs for casts.
pub fn assignments(operator: &Operator) -> Vec<Assignment> {
    let base: Vec<DType> = operator
        .inputs
        .iter()
        .map(|o| match o.types {
            TypeRule::Same(_, s) | TypeRule::SameOrBool(_, s) | TypeRule::Any(s) | TypeRule::Promote(s) => primary(s),
            _ => DType::F32,
        })
        .collect();
    let free = operator.outputs.iter().find_map(|o| free_set(o.types));
    let base_free = free.map_or(DType::NONE, primary);
    let mut out: Vec<Assignment> = Vec::new();
    let mut put = |a: Assignment| {
        if !out.contains(&a) {
            out.push(a);
        }
    };
    let mut groups: Vec<(Vec<usize>, DTypes, bool)> = Vec::new();
    for (i, o) in operator.inputs.iter().enumerate() {
        let (set, key, promote) = match o.types {
            TypeRule::Same(c, s) | TypeRule::SameOrBool(c, s) => (s, Some(c), false),
            TypeRule::Promote(s) => (s, Some('*'), true),
            TypeRule::Any(s) => (s, None, false),
            _ => continue,
        };
        let mate = key.and_then(|k| {
            groups.iter().position(|(members, _, _)| match operator.inputs[members[0]].types {
                TypeRule::Same(c, _) | TypeRule::SameOrBool(c, _) => c == k,
                TypeRule::Promote(_) => k == '*',
                _ => false,
            })
        });
        match mate {
            Some(g) => groups[g].0.push(i),
            None => groups.push((vec![i], set, promote)),
        }
    }
    for (members, set, promote) in &groups {
        for t in set.iter() {
            let mut inputs = base.clone();
            members.iter().for_each(|m| inputs[*m] = t);
            put(Assignment { inputs: inputs.clone(), free: base_free });
            for m in members.iter().filter(|m| matches!(operator.inputs[**m].types, TypeRule::SameOrBool(..))) {
                let mut with_bool = inputs.clone();
                with_bool[*m] = DType::BOOL;
                put(Assignment { inputs: with_bool, free: base_free });
            }
            if operator.inputs.len() == 1
                && let Some(free) = free
            {
                free.iter().for_each(|f| put(Assignment { inputs: inputs.clone(), free: f }));
            }
        }
        if *promote && members.len() > 1 {
            for (a, b) in [(DType::F16, DType::F32), (DType::I32, DType::F32), (DType::BF16, DType::F16), (DType::U8, DType::I8), (DType::BOOL, DType::I64), (DType::F64, DType::I32)] {
                if set.has(a) && set.has(b) {
                    let mut inputs = base.clone();
                    members.iter().for_each(|m| inputs[*m] = b);
                    inputs[members[0]] = a;
                    put(Assignment { inputs, free: base_free });
                }
            }
        }
    }
    if let Some(free) = free {
        free.iter().for_each(|f| put(Assignment { inputs: base.clone(), free: f }));
    }
    if operator.inputs.is_empty() && free.is_none() {
        put(Assignment { inputs: base, free: base_free });
    }
    out
}

/// A small generator (SplitMix64): equal seeds give equal cases everywhere.
#[derive(Clone, Debug)]
pub struct Rng(pub u64);

impl Rng {
    /// A generator for a named case.
    pub fn named(seed: u64, name: &str) -> Rng {
        let mut h = seed ^ 0xcbf2_9ce4_8422_2325;
        for b in name.bytes() {
            h = (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        Rng(h)
    }
    /// 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    /// In [0, 1).
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 * 2f64.powi(-53)
    }
    /// In [0, n).
    pub fn below(&mut self, n: usize) -> usize {
        (self.unit() * n as f64) as usize
    }
}

impl Case {
    /// Makes the call with memory; `seed` decides the contents.
    pub fn instance(&self, operator: &'static Operator, types: &Assignment, seed: u64) -> Result<Instance> {
        let id = format!("{}/{}/{}", operator.name, types.name(operator), self.name);
        let mut rng = Rng::named(seed, &id);
        let mut inputs = Vec::new();
        for (i, case) in self.inputs.iter().enumerate() {
            let dtype = types.inputs[i.min(types.inputs.len() - 1)];
            inputs.push(case.memory(dtype, &mut rng)?);
        }
        let tensors: Vec<Tensor> = inputs.iter().map(|m| m.tensor).collect();
        let mut call = Call::new(operator, &tensors, &[], &self.attrs)?;
        while inputs.len() < call.inputs.len() {
            inputs.push(Memory { tensor: Tensor::NONE, origin: 0, bytes: Vec::new() });
        }
        if let Some(shape) = &self.out_shape {
            let dtype = if types.free == DType::NONE { call.inputs[0].dtype } else { types.free };
            call.outputs = vec![Tensor::contiguous(dtype, shape)];
        }
        let inferred = call.infer()?;
        let layout = self.out_layout.or_else(|| self.inputs.first().map(|c| c.layout)).unwrap_or(Layout::Contiguous);
        let outputs: Vec<Memory> = inferred
            .into_iter()
            .map(|(t, shape)| {
                let shape = self.out_shape.clone().unwrap_or(shape);
                place(t.unwrap_or(types.free), &shape, if matches!(layout, Layout::Negative | Layout::Repeated) { Layout::Contiguous } else { layout })
            })
            .collect();
        call.outputs = outputs.iter().map(|m| m.tensor).collect();
        Ok(Instance { id, call, inputs, outputs })
    }
}

impl TensorCase {
    fn memory(&self, dtype: DType, rng: &mut Rng) -> Result<Memory> {
        let Some(shape) = &self.shape else {
            return Ok(Memory { tensor: Tensor::NONE, origin: 0, bytes: Vec::new() });
        };
        let mut memory = place(dtype, shape, self.layout);
        // Gaps hold a pattern nobody may mistake for data.
        memory.bytes.fill(0xa5);
        let data = contents(self.fill, dtype, shape, rng);
        let mut t = memory.tensor;
        if self.layout == Layout::Repeated && !shape.is_empty() && shape[0] > 1 {
            // All of a repeated axis shows one element: write the first slice only.
            t.shape[0] = 1;
            let part = data.len() / shape[0] as usize;
            head(&data, part, &t).encode(&t, &mut memory.bytes, memory.origin)?;
        } else {
            data.encode(&t, &mut memory.bytes, memory.origin)?;
        }
        Ok(memory)
    }
}

fn head(a: &Array, n: usize, t: &Tensor) -> Array {
    let shape: Vec<usize> = t.shape().iter().map(|n| *n as usize).collect();
    match &a.data {
        crate::Data::Int(v) => Array::int(&shape, v[..n].to_vec()),
        _ => Array::float(&shape, a.floats()[..n].to_vec()),
    }
}

/// Strides, origin and length of a layout.
pub fn place(dtype: DType, shape: &[i64], layout: Layout) -> Memory {
    let mut t = Tensor::contiguous(dtype, shape);
    let (rank, width) = (shape.len(), dtype.bytes());
    let mut origin_elems = 0i64;
    match layout {
        Layout::Contiguous => {}
        Layout::Strided => {
            let mut step = 2;
            for d in (0..rank).rev() {
                t.stride[d] = step;
                step = step * shape[d].max(1) + 3;
            }
        }
        Layout::Transposed => {
            let mut step = 1;
            for (d, n) in shape.iter().enumerate() {
                t.stride[d] = step;
                step *= n.max(&1);
            }
        }
        Layout::Offset => origin_elems = 3,
        Layout::Negative => {
            if let Some(last) = rank.checked_sub(1) {
                origin_elems = (shape[last].max(1) - 1) * t.stride[last];
                t.stride[last] = -t.stride[last];
            }
        }
        Layout::Repeated => {
            if rank > 0 {
                t.stride[0] = 0;
            }
        }
    }
    let (low, high) = t.extent().unwrap_or((0, 0));
    let origin_elems = origin_elems.max(-low);
    let origin = origin_elems as usize * width;
    t.byte_offset = origin as u64;
    Memory { tensor: t, origin, bytes: vec![0; origin + high.max(1) as usize * width] }
}

/// Values of a fill, exact or to be rounded to `dtype`.
pub fn contents(fill: Fill, dtype: DType, shape: &[i64], rng: &mut Rng) -> Array {
    let n = shape.iter().product::<i64>().max(0) as usize;
    let dims: Vec<usize> = shape.iter().map(|n| *n as usize).collect();
    let last = dims.last().copied().unwrap_or(1).max(1);
    if dtype.is_complex() {
        let part = if dtype.bits == 64 { DType::F32 } else { DType::F64 };
        let data = (0..n).map(|i| num_complex::Complex::new(real(fill, part, i, last, rng), real(fill, part, i, last, rng))).collect();
        return Array { shape: dims, data: crate::Data::Complex(data) };
    }
    if dtype.is_float() {
        Array::float(&dims, (0..n).map(|i| real(fill, dtype, i, last, rng)).collect())
    } else {
        Array::int(&dims, (0..n).map(|i| integer(fill, dtype, i, last, rng)).collect())
    }
}

fn real(fill: Fill, dtype: DType, i: usize, last: usize, rng: &mut Rng) -> f64 {
    let sign = if rng.bits() & 1 == 0 { 1.0 } else { -1.0 };
    match fill {
        Fill::Spread | Fill::Seed => sign * 10f64.powf(rng.unit() * 5.0 - 3.0),
        Fill::Among(list) if rng.below(8) == 0 => list[rng.below(list.len())],
        Fill::Normal | Fill::Among(_) => (0..6).map(|_| rng.unit()).sum::<f64>() * 1.414 - 4.243,
        Fill::Uniform(low, high) => low + (high - low) * rng.unit(),
        Fill::Ints(low, high) => (low + rng.below((high - low + 1) as usize) as i64) as f64,
        Fill::Ties => rng.below(4) as f64 - 1.5,
        Fill::Permutation => (i % last) as f64,
        Fill::Special => {
            let max = crate::numerics::max_of(dtype);
            let tiny = crate::numerics::ulp_of(dtype, 0.0);
            let odd = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0, -0.0, tiny, -tiny, tiny * 37.0, max, -max, 1.0, -1.0, 0.5, -2.0];
            let pick = rng.below(odd.len() * 2);
            odd.get(pick).copied().unwrap_or_else(|| sign * rng.unit() * 3.0)
        }
    }
}

fn integer(fill: Fill, dtype: DType, i: usize, last: usize, rng: &mut Rng) -> i128 {
    let (low, high): (i128, i128) = match (dtype.code, dtype.bits) {
        (6, _) => (0, 1),
        (0, b) => (-(1i128 << (b - 1)), (1i128 << (b - 1)) - 1),
        (_, b) => (0, (1i128 << b) - 1),
    };
    let within = |a: i128, b: i128, rng: &mut Rng| a + (rng.unit() * (b - a + 1) as f64) as i128;
    let value = match fill {
        Fill::Ints(a, b) => within(a.into(), b.into(), rng),
        Fill::Uniform(a, b) => within(a.ceil() as i128, b.floor() as i128, rng),
        Fill::Special => {
            let odd = [low, high, 0, 1, -1, low + 1, high - 1];
            let pick = rng.below(odd.len() * 2);
            odd.get(pick).copied().unwrap_or_else(|| within(-100, 100, rng))
        }
        Fill::Ties => within(0, 3, rng),
        Fill::Seed => rng.bits().into(),
        Fill::Permutation => ((i * 7 + 3) % last) as i128,
        Fill::Spread | Fill::Normal | Fill::Among(_) => within(-20, 20, rng),
    };
    value.clamp(low, high)
}

/// The set a floating operator takes, for callers that only have the rule.
pub fn types_of(rule: TypeRule) -> DTypes {
    match rule {
        TypeRule::Same(_, s) | TypeRule::Any(s) | TypeRule::Promote(s) => s,
        TypeRule::SameOrBool(_, s) => s.or(dtypes::BOOL),
        TypeRule::Promoted => dtypes::ANY,
        TypeRule::PromotedFloat => dtypes::FLOATING,
    }
}
