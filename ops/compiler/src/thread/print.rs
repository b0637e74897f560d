//! Thread programs as text, for people.

use core::fmt::{self, Display, Formatter, Write};

use crate::thread::{Effect, FragmentInfo, Inst, Kernel, Place, Role, Shared, Shuffle, Stmt, Ty, Val, Var};
use crate::Elem;

impl Display for Val {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "%{}", self.0)
    }
}

impl Display for Var {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "v{}", self.0)
    }
}

impl Display for Shared {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "s{}", self.0)
    }
}

impl Display for Ty {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Ty::Elem(e) => write!(f, "{e}"),
            Ty::Ptr(e) => write!(f, "ptr<{e}>"),
            Ty::Fragment(i) => write!(f, "fragment{i}"),
        }
    }
}

impl Display for Place {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Place::Global { pointer, align } => write!(f, "[{pointer}] align {align}"),
            Place::Shared { array, index } => write!(f, "{array}[{index}]"),
        }
    }
}

impl Display for FragmentInfo {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let s = &self.shape;
        let role = match self.role {
            Role::A => "a",
            Role::B => "b",
            Role::Sum => "sum",
        };
        write!(f, "{role} of {}x{}x{} {} to {}", s.m, s.n, s.k, s.factor, s.sum)
    }
}

/// The name of a variant as `snake_case`: `AddF` is `add_f`.
fn name(variant: &impl fmt::Debug) -> String {
    let mut out = String::new();
    for (i, c) in format!("{variant:?}").chars().enumerate() {
        if c.is_ascii_uppercase() && i > 0 {
            out.push('_');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}

fn list(values: &[Val]) -> String {
    values.iter().map(Val::to_string).collect::<Vec<_>>().join(", ")
}

fn masked(mask: &Option<Val>) -> String {
    mask.map_or(String::new(), |m| format!(" if {m}"))
}

/// A constant as a reader wants it: floats by value (and bits where the value does not tell), integers signed.
fn constant(ty: Ty, bits: u64) -> String {
    match ty {
        Ty::Elem(Elem::F32) => {
            let value = f32::from_bits(bits as u32);
            if value.is_nan() { format!("{bits:#010x}") } else { format!("{value:?}") }
        }
        Ty::Elem(Elem::F64) => {
            let value = f64::from_bits(bits);
            if value.is_nan() { format!("{bits:#018x}") } else { format!("{value:?}") }
        }
        Ty::Elem(Elem::F16) => format!("{:?}", half::f16::from_bits(bits as u16)),
        Ty::Elem(Elem::BF16) => format!("{:?}", half::bf16::from_bits(bits as u16)),
        Ty::Elem(Elem::I1) => (if bits & 1 == 1 { "true" } else { "false" }).to_string(),
        Ty::Elem(e @ (Elem::I8 | Elem::I16 | Elem::I32 | Elem::I64)) => {
            let unused = 64 - e.bits();
            (((bits << unused) as i64) >> unused).to_string()
        }
        _ => format!("{bits:#x}"),
    }
}

/// An instruction without its results; `ty` is the first result's type.
pub(crate) fn inst(inst: &Inst, ty: Ty) -> String {
    match inst {
        Inst::Const(bits) => format!("const {}", constant(ty, *bits)),
        Inst::Undef => "undef".into(),
        Inst::BlockId(axis) => format!("block_id {axis}"),
        Inst::NumBlocks(axis) => format!("num_blocks {axis}"),
        Inst::ThreadId => "thread_id".into(),
        Inst::Unary(u, a) => format!("{} {a}", name(u)),
        Inst::Binary(b, x, y) => format!("{} {x}, {y}", name(b)),
        Inst::Fma(a, b, c) => format!("fma {a}, {b}, {c}"),
        Inst::CmpI(c, a, b) => format!("cmp_i {} {a}, {b}", name(c)),
        Inst::CmpF(c, a, b) => format!("cmp_f {} {a}, {b}", name(c)),
        Inst::Select(c, a, b) => format!("select {c}, {a}, {b}"),
        Inst::Cast(c, a) => format!("cast {} {a}", name(c)),
        Inst::PtrAdd(p, i) => format!("ptr_add {p}, {i}"),
        Inst::Get(v, 0) => format!("get {v}"),
        Inst::Get(v, i) => format!("get {v}[{i}]"),
        Inst::GetAt(v, i) => format!("get {v}[{i}]"),
        Inst::Load { place, mask, other, volatile } => {
            let other = other.as_ref().map_or(String::new(), |o| format!(" else {}", list(o)));
            format!("load{} {place}{}{other}", if *volatile { " volatile" } else { "" }, masked(mask))
        }
        Inst::Shuffle(Shuffle::Lane, a, lane) => format!("shuffle {a} lane {}", lane.map_or("?".into(), |l| l.to_string())),
        Inst::Shuffle(Shuffle::Xor(n), a, _) => format!("shuffle {a} xor {n}"),
        Inst::Shuffle(Shuffle::Up(n), a, _) => format!("shuffle {a} up {n}"),
        Inst::Shuffle(Shuffle::Down(n), a, _) => format!("shuffle {a} down {n}"),
        Inst::Atomic { place, rmw, value, mask, order } => format!("atomic {} {} {place}, {value}{}", name(rmw), name(order), masked(mask)),
        Inst::AtomicCas { place, expected, desired, mask, order } => {
            format!("atomic_cas {} {place}, {expected}, {desired}{}", name(order), masked(mask))
        }
        Inst::FragmentZero => "fragment_zero".into(),
        Inst::FragmentLoad { array, index, stride, transposed, aligned } => {
            let marks = [(*transposed, " transposed"), (*aligned, " aligned")].map(|(on, text)| if on { text } else { "" });
            format!("fragment_load {array}[{index}] stride {stride}{}", marks.concat())
        }
        Inst::FragmentMulAdd(a, b, c) => format!("fragment_mul_add {a}, {b}, {c}"),
        Inst::FragmentGet(f, i) => format!("fragment_get {f}[{i}]"),
        Inst::FragmentOf(values) => format!("fragment_of {}", list(values)),
    }
}

impl Display for Effect {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Effect::Set(v, 0, x) => write!(f, "set {v}, {x}"),
            Effect::Set(v, i, x) => write!(f, "set {v}[{i}], {x}"),
            Effect::SetAt(v, i, x) => write!(f, "set {v}[{i}], {x}"),
            Effect::Store { place, values, mask } => write!(f, "store {place}, {}{}", list(values), masked(mask)),
            Effect::Barrier { global } => f.write_str(if *global { "barrier global" } else { "barrier" }),
            Effect::SubgroupBarrier => f.write_str("subgroup_barrier"),
            Effect::FragmentStore { fragment, array, index, stride } => write!(f, "fragment_store {array}[{index}] stride {stride}, {fragment}"),
            Effect::Copy { array, index, pointer, count, mask } => write!(f, "copy {array}[{index}], [{pointer}] x {count}{}", masked(mask)),
            Effect::CopyGroup => f.write_str("copy_group"),
            Effect::CopyWait(groups) => write!(f, "copy_wait {groups}"),
            Effect::Assert(c, message) => write!(f, "assert {c}, {message:?}"),
        }
    }
}

/// Statements at a depth of nesting.
fn block(kernel: &Kernel, body: &[Stmt], depth: usize, f: &mut Formatter<'_>) -> fmt::Result {
    for stmt in body {
        for _ in 0..depth {
            f.write_str("  ")?;
        }
        statement(kernel, stmt, depth, f)?;
    }
    Ok(())
}

fn close(depth: usize, word: &str, f: &mut Formatter<'_>) -> fmt::Result {
    for _ in 0..depth {
        f.write_str("  ")?;
    }
    f.write_str(word)
}

fn statement(kernel: &Kernel, stmt: &Stmt, depth: usize, f: &mut Formatter<'_>) -> fmt::Result {
    let divergent = |uniform: bool| if uniform { "" } else { " divergent" };
    match stmt {
        Stmt::Let { results, inst: what } => {
            let ty = results.first().map_or(Ty::Elem(Elem::I1), |r| kernel.ty(*r));
            writeln!(f, "{}: {ty} = {}", list(results), inst(what, ty))
        }
        Stmt::Do(effect) => writeln!(f, "{effect}"),
        Stmt::If { condition, uniform, then, other } => {
            writeln!(f, "if {condition}{} {{", divergent(*uniform))?;
            block(kernel, then, depth + 1, f)?;
            if !other.is_empty() {
                close(depth, "} else {\n", f)?;
                block(kernel, other, depth + 1, f)?;
            }
            close(depth, "}\n", f)
        }
        Stmt::For { index, low, high, step, unsigned, uniform, unroll, body } => {
            write!(f, "for {index}: {} = {low} to {high} step {step}", kernel.ty(*index))?;
            f.write_str(if *unsigned { " unsigned" } else { "" })?;
            if *unroll > 0 {
                write!(f, " unroll {unroll}")?;
            }
            writeln!(f, "{} {{", divergent(*uniform))?;
            block(kernel, body, depth + 1, f)?;
            close(depth, "}\n", f)
        }
        Stmt::Loop { uniform, body } => {
            writeln!(f, "loop{} {{", divergent(*uniform))?;
            block(kernel, body, depth + 1, f)?;
            close(depth, "}\n", f)
        }
        Stmt::BreakUnless(c) => writeln!(f, "break unless {c}"),
    }
}

impl Display for Kernel {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let params: Vec<String> = self.params.iter().map(|p| format!("{}: {}", p.value, p.ty)).collect();
        write!(f, "kernel @{}({}) threads {}", self.name, params.join(", "), self.threads)?;
        if self.subgroup > 0 {
            write!(f, " subgroup {}", self.subgroup)?;
        }
        f.write_str(" {\n")?;
        for (i, v) in self.vars.iter().enumerate() {
            write!(f, "  var v{i}: {}", v.ty)?;
            if v.len > 1 {
                write!(f, "[{}]", v.len)?;
            }
            f.write_char('\n')?;
        }
        for (i, s) in self.shared.iter().enumerate() {
            writeln!(f, "  shared s{i}: {}[{}]", s.elem, s.len)?;
        }
        for (i, k) in self.fragments.iter().enumerate() {
            writeln!(f, "  fragment{i}: {k}")?;
        }
        block(self, &self.body, 1, f)?;
        f.write_str("}\n")
    }
}
