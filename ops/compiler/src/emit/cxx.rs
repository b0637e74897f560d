//! What CUDA C++ and HIP C++ share: one dialect, completed by a [`Maker`]'s own words.

use super::atomic::{combine, rmw_name, rmw_of};
use super::source::{Atomic, Dialect, Printer, invalid, line, memory_type, to_bits};
use crate::error::Result;
use crate::thread::{Effect, FragmentInfo, Inst, Shuffle, Ty, Val};
use crate::tile::{Order, Rmw};
use crate::{CompileError, Elem};

/// Shared memory a kernel may declare itself, in bytes; beyond it is a launch's `shared_bytes`.
const DECLARED_BYTES: u32 = 48 << 10;

/// Where the two languages differ.
pub(super) trait Maker {
    /// First lines.
    fn head(&self, p: &Printer<'_>) -> String;
    /// Text of a helper of its own; `name` without "fl_".
    fn helper(&self, name: &str) -> Option<String>;
    /// Threads of the largest subgroup.
    fn most_lanes(&self) -> u32;
    /// A shuffle function's name and first arguments, for `base` of "shfl", "shfl_xor", "shfl_up", "shfl_down".
    fn shuffle(&self, base: &str) -> String;
    /// Statement by which threads of a subgroup meet.
    fn subgroup_barrier(&self) -> &'static str;
    /// Whether compare and swap works on 16 bits.
    fn has_cas16(&self) -> bool;
    /// A read-modify-write on floats by an instruction: its statements over `p` and `v`, with the old bits returned.
    fn float_atomic(&self, rmw: Rmw, elem: Elem) -> Option<String>;
    /// An asynchronous copy, the end of a group of them, or waiting for some.
    fn copy(&self, p: &mut Printer<'_>, effect: &Effect) -> Result<()>;
    /// Type of a fragment.
    fn fragment(&self, info: &FragmentInfo) -> Result<String>;
    /// Defines a fragment.
    fn matrix(&self, p: &mut Printer<'_>, result: Val, inst: &Inst) -> Result<()>;
    /// Stores a fragment.
    fn matrix_store(&self, p: &mut Printer<'_>, effect: &Effect) -> Result<()>;
}

/// The dialect.
pub(super) struct Cxx<M>(pub M);

/// Unsigned type as wide as an element.
fn bits_type(elem: Elem) -> &'static str {
    memory_type(elem.as_int())
}

/// Vector type, its maker function and its parts for `bytes` of elements; elements below 32 bits travel in words.
fn vector(elem: Elem, bytes: u32) -> (&'static str, &'static str, u32) {
    match (elem, bytes) {
        (Elem::F32, 8) => ("float2", "make_float2", 4),
        (Elem::F32, 16) => ("float4", "make_float4", 4),
        (Elem::F64, _) => ("double2", "make_double2", 8),
        (Elem::I64, _) => ("ulonglong2", "make_ulonglong2", 8),
        (_, 2) => ("u16", "(u16)", 2),
        (_, 4) => ("u32", "", 4),
        (_, 8) => ("uint2", "make_uint2", 4),
        _ => ("uint4", "make_uint4", 4),
    }
}

impl<M: Maker> Dialect for Cxx<M> {
    fn prelude(&self, p: &Printer<'_>) -> String {
        self.0.head(p)
            + "typedef bool i1;
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef signed char i8;
typedef short i16;
typedef int i32;
typedef long long i64;
typedef float f32;
typedef double f64;
#define FN static __device__ __forceinline__
"
    }

    fn helper(&self, name: &str) -> Option<String> {
        if let Some(text) = self.0.helper(name) {
            return Some(text);
        }
        if let Some(rest) = name.strip_prefix("atomic_") {
            return self.atomic_helper(rest);
        }
        let body = match name {
            "as_f32" => "FN f32 fl_as_f32(u32 x) {\n    return __uint_as_float(x);",
            "as_u32" => "FN u32 fl_as_u32(f32 x) {\n    return __float_as_uint(x);",
            "as_f64" => "FN f64 fl_as_f64(u64 x) {\n    return __longlong_as_double((i64)x);",
            "as_u64" => "FN u64 fl_as_u64(f64 x) {\n    return (u64)__double_as_longlong(x);",
            "clz_u32" => "FN u32 fl_clz_u32(u32 x) {\n    return (u32)__clz((i32)x);",
            "clz_u64" => "FN u64 fl_clz_u64(u64 x) {\n    return (u64)__clzll((i64)x);",
            "ctz_u32" => "FN u32 fl_ctz_u32(u32 x) {\n    return (u32)__popc((x & (0u - x)) - 1u);",
            "ctz_u64" => "FN u64 fl_ctz_u64(u64 x) {\n    return (u64)__popcll((x & (0u - x)) - 1u);",
            "popcount_u32" => "FN u32 fl_popcount_u32(u32 x) {\n    return (u32)__popc(x);",
            "popcount_u64" => "FN u64 fl_popcount_u64(u64 x) {\n    return (u64)__popcll(x);",
            "mulhi_u32" => "FN u32 fl_mulhi_u32(u32 a, u32 b) {\n    return __umulhi(a, b);",
            "mulhi_u64" => "FN u64 fl_mulhi_u64(u64 a, u64 b) {\n    return __umul64hi(a, b);",
            _ => return None,
        };
        Some(format!("{body}\n}}\n"))
    }

    fn open(&self, p: &mut Printer<'_>) -> Result<()> {
        let most = self.0.most_lanes();
        if p.kernel.subgroup > most || !p.kernel.subgroup.max(1).is_power_of_two() {
            let text = format!("subgroups of {} threads; here they have a power of two up to {most}", p.kernel.subgroup);
            return Err(CompileError::unsupported("", Default::default(), text));
        }
        let bytes = p.kernel.shared_bytes();
        if bytes > p.target.shared_bytes {
            let text = format!("{bytes} bytes of shared memory; this target has {}: use smaller tiles", p.target.shared_bytes);
            return Err(CompileError::limit("", Default::default(), text));
        }
        let mut list = Vec::new();
        for param in &p.kernel.params {
            let n = param.value.0;
            list.push(match param.ty {
                Ty::Elem(Elem::I1) => format!("u8 a{n}"),
                Ty::Elem(elem) => format!("{} v{n}", memory_type(elem)),
                _ => format!("u8 *v{n}"),
            });
        }
        let list = list.join(", ");
        line!(p, "extern \"C\" __global__ void __launch_bounds__({}) {}({list}) {{", p.kernel.threads, p.entry());
        for param in p.kernel.params.iter().filter(|p| p.ty == Ty::Elem(Elem::I1)) {
            line!(p, "    const i1 v{0} = a{0} != 0;", param.value.0);
        }
        let dynamic = self.shared_bytes(p) > 0;
        if dynamic {
            line!(p, "    extern __shared__ __align__(16) u8 shared[];");
        }
        let mut at = 0;
        for (i, s) in p.kernel.shared.iter().enumerate() {
            let ty = memory_type(s.elem);
            if dynamic {
                line!(p, "    {ty} *const s{i} = ({ty} *)(shared + {at});");
                at += (s.elem.bytes() * s.len).next_multiple_of(16);
            } else {
                // Whole words, which atomics on narrow elements work on.
                line!(p, "    __shared__ __align__(16) {ty} s{i}[{}];", s.len.next_multiple_of(4 / s.elem.bytes().min(4)));
            }
        }
        (0..p.kernel.vars.len()).try_for_each(|i| p.declare(i))
    }

    fn shared_bytes(&self, p: &Printer<'_>) -> u32 {
        Some(p.kernel.shared_bytes()).filter(|b| *b > DECLARED_BYTES).unwrap_or(0)
    }

    fn math(&self, base: &str, bits: u32) -> String {
        if bits == 32 { format!("{base}f") } else { base.to_owned() }
    }

    fn block_id(&self, axis: u8) -> String {
        format!("blockIdx.{}", ['x', 'y', 'z'][usize::from(axis.min(2))])
    }

    fn num_blocks(&self, axis: u8) -> String {
        format!("gridDim.{}", ['x', 'y', 'z'][usize::from(axis.min(2))])
    }

    fn thread_id(&self) -> &'static str {
        "threadIdx.x"
    }

    fn unroll(&self, factor: u32) -> Option<String> {
        Some(format!("#pragma unroll {factor}"))
    }

    fn read(&self, elem: Elem, address: &str, volatile: bool) -> String {
        format!("*(const {}{} *)({address})", if volatile { "volatile " } else { "" }, memory_type(elem))
    }

    fn write(&self, elem: Elem, address: &str, value: &str) -> String {
        format!("*({} *)({address}) = {value};", memory_type(elem))
    }

    fn widest(&self) -> u32 {
        16
    }

    fn reads_local_wide(&self) -> bool {
        true
    }

    fn read_wide(&self, elem: Elem, count: usize, address: &str, name: &str) -> (String, Vec<String>) {
        let (ty, _, part) = vector(elem, count as u32 * elem.bytes());
        let element = |i: u32| {
            let at = i * elem.bytes();
            let word = if matches!(ty, "u16" | "u32") { name.to_owned() } else { format!("{name}.{}", ['x', 'y', 'z', 'w'][(at / part) as usize]) };
            match (elem.bytes() == part, at % part * 8) {
                (true, _) => word,
                (false, 0) => format!("({}){word}", memory_type(elem)),
                (false, shift) => format!("({})({word} >> {shift})", memory_type(elem)),
            }
        };
        let truth = |text: String| if elem == Elem::I1 { format!("({text})") } else { text };
        (format!("const {ty} {name} = *(const {ty} *)({address});"), (0..count as u32).map(|i| truth(element(i))).collect())
    }

    fn write_wide(&self, elem: Elem, address: &str, values: &[String]) -> String {
        let (ty, make, part) = vector(elem, values.len() as u32 * elem.bytes());
        let per = (part / elem.bytes()) as usize;
        let word = |list: &[String]| {
            if per == 1 {
                return list[0].clone();
            }
            let shifted = |(i, v): (usize, &String)| if i == 0 { format!("(u32){v}") } else { format!("(u32){v} << {}", i as u32 * elem.bytes() * 8) };
            list.iter().enumerate().map(shifted).collect::<Vec<_>>().join(" | ")
        };
        let words: Vec<String> = values.chunks(per).map(word).collect();
        format!("*({ty} *)({address}) = {make}({});", words.join(", "))
    }

    fn fences(&self, order: Order) -> (Option<&'static str>, Option<&'static str>) {
        let fence = Some("__threadfence();");
        (fence.filter(|_| matches!(order, Order::Release | Order::AcqRel)), fence.filter(|_| matches!(order, Order::Acquire | Order::AcqRel)))
    }

    fn atomic(&self, _: &Printer<'_>, at: &Atomic<'_>, rmw: Rmw, value: &str) -> Result<String> {
        Ok(format!("fl_atomic_{}_{}({}, {value})", rmw_name(rmw), at.elem, at.address))
    }

    fn atomic_cas(&self, _: &Printer<'_>, at: &Atomic<'_>, expected: &str, desired: &str) -> Result<String> {
        Ok(format!("fl_atomic_cas_{}({}, {expected}, {desired})", at.elem.as_int(), at.address))
    }

    fn shuffle(&self, p: &Printer<'_>, how: Shuffle, value: &str, lane: Option<&str>, ty: Ty) -> Result<String> {
        if p.kernel.subgroup == 0 {
            return Err(CompileError::unsupported("", Default::default(), "a shuffle in a kernel without subgroups; exchange through shared memory"));
        }
        let Ty::Elem(elem) = ty else { return Err(invalid(format!("a shuffle of {ty:?}"))) };
        let (base, lane) = match how {
            Shuffle::Xor(n) => ("shfl_xor", n.to_string()),
            Shuffle::Up(n) => ("shfl_up", n.to_string()),
            Shuffle::Down(n) => ("shfl_down", n.to_string()),
            Shuffle::Lane => ("shfl", lane.unwrap_or("0").to_owned()),
        };
        let function = self.0.shuffle(base);
        let (width, own) = (p.kernel.subgroup, if elem.bytes() < 4 { "(u32)" } else { "" });
        let moved = format!("{function}{own}{value}, {lane}, {width})");
        Ok(if elem.bytes() < 4 { format!("({}){moved}", if elem == Elem::I1 { "i1" } else { memory_type(elem) }) } else { moved })
    }

    fn barrier(&self, _: bool) -> Option<&'static str> {
        Some("__syncthreads();")
    }

    fn subgroup_barrier(&self, _: &Printer<'_>) -> Option<&'static str> {
        Some(self.0.subgroup_barrier())
    }

    fn copy(&self, p: &mut Printer<'_>, effect: &Effect) -> Result<()> {
        self.0.copy(p, effect)
    }

    fn fragment(&self, info: &FragmentInfo) -> Result<String> {
        self.0.fragment(info)
    }

    fn matrix(&self, p: &mut Printer<'_>, result: Val, inst: &Inst) -> Result<()> {
        self.0.matrix(p, result, inst)
    }

    fn matrix_store(&self, p: &mut Printer<'_>, effect: &Effect) -> Result<()> {
        self.0.matrix_store(p, effect)
    }
}

impl<M: Maker> Cxx<M> {
    /// `RMW_ELEM` or `cas_ELEM` over bits: by an instruction, else by compare and swap; narrow elements within their word.
    fn atomic_helper(&self, name: &str) -> Option<String> {
        if let Some(elem) = name.strip_prefix("cas_") {
            return self.cas_helper(Elem::from_name(elem)?);
        }
        let (rmw, elem) = rmw_of(name)?;
        let (bits, t) = (elem.as_int().bits(), bits_type(elem));
        let head = format!("FN {t} fl_atomic_{name}(void *p, {t} v) {{\n");
        if elem.is_float() && let Some(body) = self.0.float_atomic(rmw, elem) {
            return Some(format!("{head}{body}}}\n"));
        }
        let native = match rmw {
            Rmw::Add => "Add",
            Rmw::And => "And",
            Rmw::Or => "Or",
            Rmw::Xor => "Xor",
            Rmw::Exch => "Exch",
            Rmw::UMax | Rmw::Max => "Max",
            Rmw::UMin | Rmw::Min => "Min",
            Rmw::FAdd => "",
        };
        if bits >= 32 && (elem.is_int() || rmw == Rmw::Exch) {
            let sign = if matches!(rmw, Rmw::Max | Rmw::Min) { 'i' } else { 'u' };
            return Some(format!("{head}    return ({t})atomic{native}(({sign}{bits} *)p, ({sign}{bits})v);\n}}\n"));
        }
        Some(format!(
            "{head}    {t} old = *(volatile {t} *)p;
    for (;;) {{
        const {t} seen = fl_atomic_cas_{}(p, old, ({t})({}));
        if (seen == old) return old;
        old = seen;
    }}
}}
",
            elem.as_int(),
            combine(rmw, elem)
        ))
    }

    fn cas_helper(&self, elem: Elem) -> Option<String> {
        let (bits, t) = (elem.bits(), bits_type(elem));
        let head = format!("FN {t} fl_atomic_cas_{elem}(void *p, {t} old, {t} v) {{\n");
        if bits >= 32 || (bits == 16 && self.0.has_cas16()) {
            return Some(format!("{head}    return atomicCAS(({t} *)p, old, v);\n}}\n"));
        }
        Some(format!(
            "{head}    u32 *const w = (u32 *)((u64)p & ~(u64)3);
    const u32 shift = ((u32)(u64)p & 3u) * 8u, mask = {:#x}u << shift;
    u32 word = *(volatile u32 *)w;
    for (;;) {{
        if ((word & mask) != (u32)old << shift) return ({t})(word >> shift);
        const u32 seen = atomicCAS(w, word, (word & ~mask) | ((u32)v << shift));
        if (seen == word) return old;
        word = seen;
    }}
}}
",
            (1u64 << bits) - 1
        ))
    }
}

/// The bits of an f32 or f64 atomic's operand as a float, for `atomicAdd`.
pub(super) fn native_float_add(elem: Elem) -> Option<String> {
    let (float, bits) = match elem {
        Elem::F32 => ("f32", "v"),
        Elem::F64 => ("f64", "v"),
        _ => return None,
    };
    let value = format!("fl_as_{float}({bits})");
    Some(format!("    return {};\n", to_bits(elem, &format!("atomicAdd(({float} *)p, {value})"))))
}
