//! Matrix fragments of CUDA C++ as `mma.sync` takes them.
//!
//! With g = lane / 4 and t = lane % 4, and e elements of a factor in 32 bits: register r of A holds row g + 8·(r % 2) at depths from
//! t·e + 4·e·(r / 2) on, register r of B column g at depths from t·e + 4·e·r on, register r of the sum row g + 8·(r / 2) and column 2·t + r % 2;
//! [`FragmentInfo::held`] says the same to the lowering.

use super::cuda::MATRIX_SHAPES;
use super::source::{Printer, invalid, line};
use crate::error::Result;
use crate::thread::{Effect, FragmentInfo, Inst, Role, Ty, Val};
use crate::{CompileError, Elem, MatrixShape};

/// Type of a fragment on an architecture.
pub(super) fn fragment(info: &FragmentInfo, sm: u32) -> Result<String> {
    if !MATRIX_SHAPES.iter().any(|(least, shape)| *least <= sm && *shape == info.shape) {
        let MatrixShape { m, n, k, factor, sum } = info.shape;
        let text = format!("a matrix unit of {m}×{n}×{k} from {factor} to {sum} is not among those of sm_{sm}; list none such in the target");
        return Err(CompileError::unsupported("tt.dot", Default::default(), text));
    }
    Ok(match (info.role, info.shape.factor, info.shape.sum) {
        (Role::A | Role::B, Elem::F64, _) => "fl_fragment<f64, 1>",
        (Role::A, ..) => "fl_fragment<u32, 4>",
        (Role::B, ..) => "fl_fragment<u32, 2>",
        (Role::Sum, _, Elem::F64) => "fl_fragment<f64, 2>",
        (Role::Sum, _, Elem::F16) => "fl_fragment<u32, 2>",
        (Role::Sum, _, Elem::I32) => "fl_fragment<u32, 4>",
        (Role::Sum, ..) => "fl_fragment<f32, 4>",
    }
    .to_owned())
}

fn info(p: &Printer<'_>, value: Val) -> Result<FragmentInfo> {
    match p.kernel.ty(value) {
        Ty::Fragment(kind) => Ok(p.kernel.fragments[kind as usize]),
        ty => Err(invalid(format!("%{} of type {ty:?} is no fragment", value.0))),
    }
}

/// A type's name in PTX.
fn tag(elem: Elem) -> &'static str {
    match elem {
        Elem::I8 => "s8",
        Elem::I32 => "s32",
        e => super::narrow::tag(e),
    }
}

/// A shape's name in helpers.
fn name(s: &MatrixShape) -> String {
    format!("m{}n{}k{}_{}_{}", s.m, s.n, s.k, tag(s.factor), tag(s.sum))
}

/// Type of a factor's elements in shared memory.
fn factor_type(elem: Elem) -> &'static str {
    super::source::memory_type(elem)
}

/// Writes the definition of a fragment.
pub(super) fn define(p: &mut Printer<'_>, result: Val, inst: &Inst) -> Result<()> {
    if let Inst::FragmentGet(from, i) = inst {
        return element(p, result, *from, *i);
    }
    let FragmentInfo { shape, role } = info(p, result)?;
    let (ty, n) = (p.value_type(p.kernel.ty(result))?, result.0);
    match inst {
        Inst::FragmentLoad { array, index, stride, transposed, aligned } => {
            let address = format!("&s{}[{}], {stride}", array.0, p.s(*index)?);
            match role {
                Role::Sum => line!(p, "const {ty} v{n} = fl_load_sum_{}{}({address});", tag(shape.sum), if *transposed { "_t" } else { "" }),
                _ if shape.factor == Elem::F64 => {
                    // Lanes 4·major + depth.
                    let near = (role == Role::A) != *transposed;
                    line!(p, "const {ty} v{n} = fl_load_f64_{}({address});", if near { "k" } else { "m" });
                }
                _ => {
                    let (near, count) = ((role == Role::A) != *transposed, if role == Role::A { 4 } else { 2 });
                    line!(p, "const {ty} v{n} = fl_load_factor<{}, {count}, {near}, {aligned}>({address});", factor_type(shape.factor));
                }
            }
        }
        Inst::FragmentMulAdd(a, b, c) => {
            for (v, want) in [(a, Role::A), (b, Role::B), (c, Role::Sum)] {
                if info(p, *v)? != (FragmentInfo { shape, role: want }) {
                    return Err(invalid(format!("%{} is not operand {want:?} of {shape:?}", v.0)));
                }
            }
            line!(p, "const {ty} v{n} = fl_mma_{}(v{}, v{}, v{});", name(&shape), a.0, b.0, c.0);
        }
        Inst::FragmentOf(values) => {
            let elem = if role == Role::Sum { shape.sum } else { shape.factor };
            let texts: Vec<String> = values.iter().map(|v| format!("v{}", v.0)).collect();
            let registers: Vec<String> = match elem.bytes() {
                2 => texts.chunks(2).map(|pair| format!("fl_pair({})", pair.join(", "))).collect(),
                _ => texts,
            };
            line!(p, "const {ty} v{n} = {{{{{}}}}};", registers.join(", "));
        }
        _ => line!(p, "const {ty} v{n} = {{}};"),
    }
    Ok(())
}

/// Writes the definition of an element that a lane holds of a sum.
fn element(p: &mut Printer<'_>, result: Val, from: Val, i: u32) -> Result<()> {
    let sum = info(p, from)?.shape.sum;
    let (ty, n) = (p.value_type(Ty::Elem(sum))?, result.0);
    match sum.bytes() {
        2 => line!(p, "const {ty} v{n} = ({ty})(v{}.r[{}] >> {});", from.0, i / 2, 16 * (i % 2)),
        _ => line!(p, "const {ty} v{n} = v{}.r[{i}];", from.0),
    }
    Ok(())
}

/// Writes a sum to shared memory.
pub(super) fn store(p: &mut Printer<'_>, effect: &Effect) -> Result<()> {
    let Effect::FragmentStore { fragment, array, index, stride } = effect else { return Err(invalid(format!("{effect:?} stores no fragment"))) };
    let FragmentInfo { shape, role } = info(p, *fragment)?;
    if role != Role::Sum {
        return Err(invalid(format!("operand {role:?} of {shape:?} is stored; only sums are")));
    }
    line!(p, "fl_store_sum_{}(v{}, &s{}[{}], {stride});", tag(shape.sum), fragment.0, array.0, p.s(*index)?);
    Ok(())
}

/// Loads of factors: `NEAR` when depth runs along the stride of 1. Words go through `ldmatrix` where addresses and strides are multiples of 16
/// bytes (`ALIGNED`).
const LOAD_FACTOR: &str = "FN u32 fl_factor_bits(u8 x) {
    return x;
}

FN u32 fl_factor_bits(u16 x) {
    return x;
}

FN u32 fl_factor_bits(f32 x) {
    u32 r;
    asm(\"cvt.rna.tf32.f32 %0, %1;\" : \"=r\"(r) : \"f\"(x));
    return r;
}

template <typename E, int N, bool NEAR, bool ALIGNED> FN fl_fragment<u32, N> fl_load_factor(const E *p, u32 stride) {
    const u32 l = threadIdx.x & 31u, e = 4u / sizeof(E);
    const u32 address = (u32)__cvta_generic_to_shared(p);
    fl_fragment<u32, N> f;
    if ((NEAR || sizeof(E) == 2) && ALIGNED) {
        const u32 half = N == 4 ? l >> 4 : (l >> 3) & 1u, other = N == 4 ? (l >> 3) & 1u : 0u;
        const u32 row = NEAR ? (l & 7u) + 8u * other : (l & 7u) + 8u * half;
        const u32 from = address + (row * stride + (NEAR ? half * 4u * e : other * 8u)) * (u32)sizeof(E);
        if (N == 4 && NEAR)
            asm volatile(\"ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];\" : \"=r\"(f.r[0]), \"=r\"(f.r[1]), \"=r\"(f.r[N - 2]), \"=r\"(f.r[N - 1]) : \"r\"(from) : \"memory\");
        else if (N == 4)
            asm volatile(\"ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];\" : \"=r\"(f.r[0]), \"=r\"(f.r[1]), \"=r\"(f.r[N - 2]), \"=r\"(f.r[N - 1]) : \"r\"(from) : \"memory\");
        else if (NEAR)
            asm volatile(\"ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];\" : \"=r\"(f.r[0]), \"=r\"(f.r[1]) : \"r\"(from) : \"memory\");
        else
            asm volatile(\"ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];\" : \"=r\"(f.r[0]), \"=r\"(f.r[1]) : \"r\"(from) : \"memory\");
        if (sizeof(E) == 4)
            for (int i = 0; i < N; ++i) f.r[i] = fl_factor_bits(__uint_as_float(f.r[i]));
        return f;
    }
    for (u32 i = 0; i < N; ++i) {
        const u32 major = (l >> 2) + (N == 4 ? 8u * (i & 1u) : 0u);
        const u32 depth = (l & 3u) * e + (N == 4 ? i >> 1 : i) * 4u * e;
        f.r[i] = 0u;
        for (u32 j = 0; j < e; ++j) {
            const E x = NEAR ? p[major * stride + depth + j] : p[(depth + j) * stride + major];
            f.r[i] |= fl_factor_bits(x) << (j * 8u * (u32)sizeof(E) & 31u);
        }
    }
    return f;
}
";

/// Text of a helper; `name` without "fl_".
pub(super) fn helper(name: &str) -> Option<String> {
    if name == "pair" {
        return Some("FN u32 fl_pair(u16 low, u16 high) {\n    return (u32)low | (u32)high << 16;\n}\n".to_owned());
    }
    if name == "load_factor" {
        return Some(LOAD_FACTOR.to_owned());
    }
    if let Some(shape) = name.strip_prefix("mma_") {
        return product(shape);
    }
    if let Some(order) = name.strip_prefix("load_f64_") {
        let at = if order == "k" { "(l >> 2) * stride + (l & 3u)" } else { "(l & 3u) * stride + (l >> 2)" };
        return Some(format!(
            "FN fl_fragment<f64, 1> fl_{name}(const f64 *p, u32 stride) {{
    const u32 l = threadIdx.x & 31u;
    return {{p[{at}]}};
}}
"
        ));
    }
    let (is_store, rest) = match name.strip_prefix("store_sum_") {
        Some(rest) => (true, rest),
        None => (false, name.strip_prefix("load_sum_")?),
    };
    sum(is_store, rest.trim_end_matches("_t"), rest.ends_with("_t"))
}

/// Sums from and to shared memory.
fn sum(is_store: bool, tag: &str, transposed: bool) -> Option<String> {
    // Elements, their type in memory, registers.
    let (count, memory, fragment) = match tag {
        "f32" => (4, "f32", "fl_fragment<f32, 4>"),
        "f64" => (2, "f64", "fl_fragment<f64, 2>"),
        "f16" => (4, "u16", "fl_fragment<u32, 2>"),
        "s32" => (4, "u32", "fl_fragment<u32, 4>"),
        _ => return None,
    };
    let (row, column) = ("((l >> 2) + 8u * (i >> 1))", "(2u * (l & 3u) + (i & 1u))");
    let at = if transposed { format!("{column} * stride + {row}") } else { format!("{row} * stride + {column}") };
    let body = match (is_store, tag) {
        (true, "f16") => format!("p[{at}] = (u16)(f.r[i >> 1] >> 16 * (i & 1u));"),
        (true, _) => format!("p[{at}] = f.r[i];"),
        (false, "f16") => format!("f.r[i >> 1] |= (u32)p[{at}] << 16 * (i & 1u);"),
        (false, _) => format!("f.r[i] = p[{at}];"),
    };
    let mark = if transposed { "_t" } else { "" };
    Some(if is_store {
        format!(
            "FN void fl_store_sum_{tag}({fragment} f, {memory} *p, u32 stride) {{
    const u32 l = threadIdx.x & 31u;
    for (u32 i = 0; i < {count}; ++i) {body}
}}
"
        )
    } else {
        format!(
            "FN {fragment} fl_load_sum_{tag}{mark}(const {memory} *p, u32 stride) {{
    const u32 l = threadIdx.x & 31u;
    {fragment} f = {{}};
    for (u32 i = 0; i < {count}; ++i) {body}
    return f;
}}
"
        )
    })
}

/// The product of a shape as [`name`] spells it.
fn product(name: &str) -> Option<String> {
    let shape = MATRIX_SHAPES.iter().map(|s| s.1).find(|s| self::name(s) == name)?;
    let MatrixShape { m, n, k, factor, sum } = shape;
    let types = [Role::A, Role::B, Role::Sum].map(|role| fragment(&FragmentInfo { shape, role }, u32::MAX));
    let [Ok(a), Ok(b), Ok(c)] = types else { return None };
    let count = |ty: &str| ty.trim_end_matches('>').rsplit(' ').next().and_then(|n| n.parse::<usize>().ok()).unwrap_or(0);
    let (na, nb, nc) = (count(&a), count(&b), count(&c));
    let list = |from: usize, n: usize| (from..from + n).map(|i| format!("%{i}")).collect::<Vec<_>>().join(", ");
    let class = |ty: &str| if ty.contains("f64") { 'd' } else if ty.contains("f32") { 'f' } else { 'r' };
    let operands = |v: &str, ty: &str, n: usize| (0..n).map(|i| format!("\"{}\"({v}.r[{i}])", class(ty))).collect::<Vec<_>>().join(", ");
    let results = (0..nc).map(|i| format!("\"={}\"(d.r[{i}])", class(&c))).collect::<Vec<_>>().join(", ");
    let (f, s) = (if factor == Elem::F32 { "tf32" } else { tag(factor) }, tag(sum));
    Some(format!(
        "FN {c} fl_mma_{name}({a} a, {b} b, {c} c) {{
    {c} d;
    asm volatile(\"mma.sync.aligned.m{m}n{n}k{k}.row.col.{s}.{f}.{f}.{s} {{{}}}, {{{}}}, {{{}}}, {{{}}};\"
        : {results} : {}, {}, {});
    return d;
}}
",
        list(0, nc),
        list(nc, na),
        list(nc + na, nb),
        list(nc + na + nb, nc),
        operands("a", &a, na),
        operands("b", &b, nb),
        operands("c", &c, nc),
    ))
}
