//! Format `opencl-c`: OpenCL C 1.2 with the extensions a device's capabilities tell of.
//!
//! Memory is read and written through integers of the element's width: compilers may take accesses of different types for accesses to different
//! places. Subgroup functions are found by the extensions' macros (cl_khr_subgroup_shuffle, cl_intel_subgroups).

use flagos_backend_api::caps;

use super::atomic::{combine, rmw_name, rmw_of};
use super::source::{Atomic, Dialect, Printer, from_bits, line, memory_type, to_bits};
use crate::error::Result;
use crate::thread::{Shuffle, Ty};
use crate::tile::{Order, Rmw};
use crate::{CompileError, Elem, Target};

/// The dialect.
pub(super) struct OpenCl {
    /// Half precision is a type of the language.
    half: bool,
    /// Subgroup size; 0: there are none.
    subgroup: u32,
}

impl OpenCl {
    /// The dialect a device speaks.
    pub(super) fn new(target: &Target) -> OpenCl {
        OpenCl { half: target.has(caps::FP16), subgroup: target.subgroup }
    }
}

/// Integer type as wide as an element.
fn bits_type(elem: Elem) -> &'static str {
    memory_type(elem.as_int())
}

/// The language's own name of an unsigned integer.
fn vector_base(elem: Elem) -> &'static str {
    match elem.bytes() {
        1 => "uchar",
        2 => "ushort",
        4 => "uint",
        _ => "ulong",
    }
}

fn uses(p: &Printer<'_>, elem: Elem) -> bool {
    let is = |ty: &Ty| matches!(ty, Ty::Elem(e) | Ty::Ptr(e) if *e == elem);
    p.kernel.types.iter().any(is) || p.kernel.vars.iter().any(|v| is(&v.ty)) || p.kernel.shared.iter().any(|s| s.elem == elem)
}

impl Dialect for OpenCl {
    fn long(&self) -> &'static str {
        "ul"
    }

    fn pointer(&self) -> &'static str {
        "__global u8 *"
    }

    fn local(&self) -> &'static str {
        "__local "
    }

    fn prelude(&self, p: &Printer<'_>) -> String {
        let mut text = String::new();
        for (cap, names) in [(caps::FP64, &["fp64"][..]), (caps::FP16, &["fp16"]), (caps::ATOMIC64, &["int64_base_atomics", "int64_extended_atomics"])] {
            for name in names.iter().filter(|_| p.target.has(cap)) {
                text += &format!("#pragma OPENCL EXTENSION cl_khr_{name} : enable\n");
            }
        }
        if self.subgroup > 0 {
            for name in ["khr_subgroups", "khr_subgroup_shuffle", "intel_subgroups"] {
                text += &format!("#ifdef cl_{name}\n#pragma OPENCL EXTENSION cl_{name} : enable\n#endif\n");
            }
        }
        text += "#pragma OPENCL FP_CONTRACT OFF
typedef bool i1;
typedef uchar u8;
typedef ushort u16;
typedef uint u32;
typedef ulong u64;
typedef char i8;
typedef short i16;
typedef int i32;
typedef long i64;
typedef float f32;
";
        if p.target.has(caps::FP64) {
            text += "typedef double f64;\n";
        }
        text + "#define FN static\n"
    }

    fn helper(&self, name: &str) -> Option<String> {
        if let Some(rest) = name.strip_prefix("atomic_") {
            return atomic_helper(rest);
        }
        match name {
            "f32_from_f16" if self.half => return Some("FN f32 fl_f32_from_f16(u16 x) {\n    return convert_float(as_half(x));\n}\n".to_owned()),
            "f16_from_f32" if self.half => return Some("FN u16 fl_f16_from_f32(f32 x) {\n    return as_ushort(convert_half_rte(x));\n}\n".to_owned()),
            "f32_from_f16" => return Some("FN f32 fl_f32_from_f16(u16 x) {\n    return vload_half(0, (const half *)&x);\n}\n".to_owned()),
            "f16_from_f32" => {
                return Some("FN u16 fl_f16_from_f32(f32 x) {\n    u16 r;\n    vstore_half_rte(x, 0, (half *)&r);\n    return r;\n}\n".to_owned());
            }
            _ => {}
        }
        let (base, ty) = name.rsplit_once('_')?;
        let bits = ty.trim_start_matches(['u', 'f']);
        Some(match base {
            "as" => {
                let from = format!("{}{bits}", if ty.starts_with('f') { 'u' } else { 'f' });
                let to = match ty {
                    "f32" => "float",
                    "f64" => "double",
                    "u32" => "uint",
                    _ => "ulong",
                };
                format!("FN {ty} fl_as_{ty}({from} x) {{\n    return as_{to}(x);\n}}\n")
            }
            "clz" => format!("FN {ty} fl_clz_{ty}({ty} x) {{\n    return clz(x);\n}}\n"),
            "ctz" => format!("FN {ty} fl_ctz_{ty}({ty} x) {{\n    return popcount((x & (0u - x)) - 1u);\n}}\n"),
            "popcount" => format!("FN {ty} fl_popcount_{ty}({ty} x) {{\n    return popcount(x);\n}}\n"),
            "mulhi" => format!("FN {ty} fl_mulhi_{ty}({ty} a, {ty} b) {{\n    return mul_hi(a, b);\n}}\n"),
            "shuffle" | "shuffle_xor" => format!(
                "FN {ty} fl_{base}_{ty}({ty} x, u32 lane) {{
#if defined(cl_khr_subgroup_shuffle)
    return sub_group_{base}(x, lane);
#else
    return intel_sub_group_{base}(x, lane);
#endif
}}
"
            ),
            _ => return None,
        })
    }

    fn open(&self, p: &mut Printer<'_>) -> Result<()> {
        for (elem, cap) in [(Elem::F64, caps::FP64), (Elem::I64, caps::INT64)] {
            if uses(p, elem) && !p.target.has(cap) {
                return Err(CompileError::unsupported("", Default::default(), format!("{elem}, which this device's OpenCL C lacks; use another type")));
            }
        }
        if p.kernel.subgroup > 0 && p.kernel.subgroup != self.subgroup {
            let text = format!("shuffles among {} threads; subgroups of this target have {}", p.kernel.subgroup, self.subgroup);
            return Err(CompileError::unsupported("", Default::default(), text));
        }
        let bytes = p.kernel.shared_bytes();
        if bytes > p.target.shared_bytes {
            let text = format!("{bytes} bytes of shared memory; this target has {}: use smaller tiles", p.target.shared_bytes);
            return Err(CompileError::limit("", Default::default(), text));
        }
        if p.kernel.subgroup > 0 {
            let text = format!("__attribute__((intel_reqd_sub_group_size({})))", p.kernel.subgroup);
            line!(p, "#ifdef cl_intel_required_subgroup_size\n{text}\n#endif");
        }
        let mut list = Vec::new();
        for (i, param) in p.kernel.params.iter().enumerate() {
            list.push(match param.ty {
                Ty::Elem(Elem::I1) => format!("u8 a{i}"),
                Ty::Elem(elem) => format!("{} v{}", memory_type(elem), param.value.0),
                _ => format!("__global u8 *a{i}, ulong b{i}"),
            });
        }
        line!(p, "__attribute__((reqd_work_group_size({}, 1, 1)))", p.kernel.threads);
        line!(p, "__kernel void {}({}) {{", p.entry(), list.join(", "));
        for (i, param) in p.kernel.params.iter().enumerate() {
            match param.ty {
                Ty::Elem(Elem::I1) => line!(p, "    const i1 v{} = a{i} != 0;", param.value.0),
                Ty::Elem(_) => {}
                _ => line!(p, "    __global u8 *const v{} = a{i} + b{i};", param.value.0),
            }
        }
        for (i, s) in p.kernel.shared.iter().enumerate() {
            // Whole words, which atomics on narrow elements work on.
            let len = s.len.next_multiple_of(4 / s.elem.bytes().min(4));
            line!(p, "    __local {} s{i}[{len}] __attribute__((aligned(16)));", memory_type(s.elem));
        }
        (0..p.kernel.vars.len()).try_for_each(|i| p.declare(i))
    }

    fn math(&self, base: &str, _: u32) -> String {
        base.to_owned()
    }

    fn block_id(&self, axis: u8) -> String {
        format!("get_group_id({axis})")
    }

    fn num_blocks(&self, axis: u8) -> String {
        format!("get_num_groups({axis})")
    }

    fn thread_id(&self) -> &'static str {
        "get_local_id(0)"
    }

    fn unroll(&self, factor: u32) -> Option<String> {
        Some(format!("#pragma unroll {factor}"))
    }

    fn read(&self, elem: Elem, address: &str, volatile: bool) -> String {
        let word = format!("*(__global const {}{} *)({address})", if volatile { "volatile " } else { "" }, bits_type(elem));
        if elem == Elem::I1 { word } else { from_bits(elem, word) }
    }

    fn write(&self, elem: Elem, address: &str, value: &str) -> String {
        format!("*(__global {} *)({address}) = {};", bits_type(elem), to_bits(elem, value))
    }

    fn widest(&self) -> u32 {
        16
    }

    fn read_wide(&self, elem: Elem, count: usize, address: &str, name: &str) -> (String, Vec<String>) {
        let ty = vector_base(elem);
        let part = |i: usize| format!("{name}.s{}", char::from_digit(i as u32, 16).unwrap_or('0'));
        let parts = (0..count).map(|i| if elem == Elem::I1 { part(i) } else { from_bits(elem, part(i)) }).collect();
        (format!("const {ty}{count} {name} = *(__global const {ty}{count} *)({address});"), parts)
    }

    fn write_wide(&self, elem: Elem, address: &str, values: &[String]) -> String {
        let ty = format!("{}{}", vector_base(elem), values.len());
        let values: Vec<String> = values.iter().map(|v| to_bits(elem, v)).collect();
        format!("*(__global {ty} *)({address}) = ({ty})({});", values.join(", "))
    }

    fn fences(&self, order: Order) -> (Option<&'static str>, Option<&'static str>) {
        let fence = Some("mem_fence(CLK_GLOBAL_MEM_FENCE | CLK_LOCAL_MEM_FENCE);");
        (fence.filter(|_| matches!(order, Order::Release | Order::AcqRel)), fence.filter(|_| matches!(order, Order::Acquire | Order::AcqRel)))
    }

    fn atomic(&self, p: &Printer<'_>, at: &Atomic<'_>, rmw: Rmw, value: &str) -> Result<String> {
        Ok(format!("fl_atomic_{}_{}_{}({}, {value})", space(at), rmw_name(rmw), check(p, at)?, at.address))
    }

    fn atomic_cas(&self, p: &Printer<'_>, at: &Atomic<'_>, expected: &str, desired: &str) -> Result<String> {
        Ok(format!("fl_atomic_{}_cas_{}({}, {expected}, {desired})", space(at), check(p, at)?.as_int(), at.address))
    }

    fn shuffle(&self, p: &Printer<'_>, how: Shuffle, value: &str, lane: Option<&str>, ty: Ty) -> Result<String> {
        if p.kernel.subgroup == 0 {
            return Err(CompileError::unsupported("", Default::default(), "a shuffle in a kernel without subgroups; exchange through shared memory"));
        }
        let Ty::Elem(elem) = ty else { return Err(CompileError::invalid("", Default::default(), format!("a shuffle of {ty:?}"))) };
        let word = if elem.bytes() == 8 { "u64" } else { "u32" };
        let (base, lane) = match how {
            Shuffle::Xor(n) => ("shuffle_xor", format!("{n}u")),
            Shuffle::Up(n) => ("shuffle", format!("get_sub_group_local_id() - {n}u")),
            Shuffle::Down(n) => ("shuffle", format!("get_sub_group_local_id() + {n}u")),
            Shuffle::Lane => ("shuffle", format!("(u32)({})", lane.unwrap_or("0"))),
        };
        let moved = format!("fl_{base}_{word}({}, {lane})", to_bits(elem, value));
        Ok(match elem {
            Elem::F32 | Elem::F64 | Elem::I1 => from_bits(elem, moved),
            _ => format!("({}){moved}", memory_type(elem)),
        })
    }

    fn barrier(&self, global: bool) -> Option<&'static str> {
        Some(if global { "barrier(CLK_LOCAL_MEM_FENCE | CLK_GLOBAL_MEM_FENCE);" } else { "barrier(CLK_LOCAL_MEM_FENCE);" })
    }

    fn subgroup_barrier(&self, p: &Printer<'_>) -> Option<&'static str> {
        // Without subgroups the whole block meets: control flow is uniform there.
        Some(if p.kernel.subgroup > 0 { "sub_group_barrier(CLK_LOCAL_MEM_FENCE);" } else { "barrier(CLK_LOCAL_MEM_FENCE);" })
    }
}

fn space(at: &Atomic<'_>) -> &'static str {
    if at.shared { "local" } else { "global" }
}

/// The element's type, where the device has atomics of its width.
fn check(p: &Printer<'_>, at: &Atomic<'_>) -> Result<Elem> {
    if at.elem.bytes() == 8 && !p.target.has(caps::ATOMIC64) {
        let text = format!("an atomic on {}; this device has none of 64 bits: use a type of 32", at.elem);
        return Err(CompileError::unsupported("tt.atomic_rmw", Default::default(), text));
    }
    Ok(at.elem)
}

/// `global_RMW_ELEM` or `local_cas_ELEM`: by the language's functions, else by compare and swap; 8 and 16 bits within their word.
fn atomic_helper(name: &str) -> Option<String> {
    let (space, rest) = name.split_once('_')?;
    let cas = rest.strip_prefix("cas_").map(Elem::from_name);
    let (rmw, elem) = match cas {
        Some(elem) => (None, elem?),
        None => rmw_of(rest).map(|(r, e)| (Some(r), e))?,
    };
    let (bits, t) = (elem.as_int().bits(), bits_type(elem));
    let prefix = if bits == 64 { "atom_" } else { "atomic_" };
    let head = |arguments: &str| format!("FN {t} fl_atomic_{name}(volatile __{space} void *p, {arguments}) {{\n");
    let Some(rmw) = rmw else {
        let head = head(&format!("{t} old, {t} v"));
        if bits >= 32 {
            return Some(format!("{head}    return {prefix}cmpxchg((volatile __{space} {t} *)p, old, v);\n}}\n"));
        }
        return Some(format!(
            "{head}    volatile __{space} u32 *w = (volatile __{space} u32 *)((size_t)p & ~(size_t)3);
    const u32 shift = ((u32)(size_t)p & 3u) * 8u, mask = {:#x}u << shift;
    u32 word = *w;
    for (;;) {{
        if ((word & mask) != (u32)old << shift) return ({t})(word >> shift);
        const u32 seen = atomic_cmpxchg(w, word, (word & ~mask) | ((u32)v << shift));
        if (seen == word) return old;
        word = seen;
    }}
}}
",
            (1u64 << bits) - 1
        ));
    };
    let native = match rmw {
        Rmw::Add => "add",
        Rmw::And => "and",
        Rmw::Or => "or",
        Rmw::Xor => "xor",
        Rmw::Exch => "xchg",
        Rmw::UMax | Rmw::Max => "max",
        Rmw::UMin | Rmw::Min => "min",
        Rmw::FAdd => "",
    };
    let head = head(&format!("{t} v"));
    let floating = elem.is_float() && rmw != Rmw::Exch;
    if bits >= 32 && !floating {
        let sign = if matches!(rmw, Rmw::Max | Rmw::Min) { 'i' } else { 'u' };
        return Some(format!("{head}    return ({t}){prefix}{native}((volatile __{space} {sign}{bits} *)p, ({sign}{bits})v);\n}}\n"));
    }
    Some(format!(
        "{head}    {t} old = *(volatile __{space} {t} *)p;
    for (;;) {{
        const {t} seen = fl_atomic_{space}_cas_{}(p, old, ({t})({}));
        if (seen == old) return old;
        old = seen;
    }}
}}
",
        elem.as_int(),
        combine(rmw, elem)
    ))
}
