//! Format `c`: C11 for one block of one thread, with the builtins of GCC and Clang in place of the library's headers.

use super::atomic::{combine, rmw_name, rmw_of};
use super::source::{Atomic, Dialect, Printer, line, memory_type};
use crate::error::Result;
use crate::thread::{Shuffle, Ty};
use crate::tile::{Order, Rmw};
use crate::{CompileError, Elem};

/// Bytes of arrays on the stack; larger ones lie in the shared memory of the block.
const STACK_BYTES: u32 = 128 << 10;
/// Alignment of what lies in shared memory in bytes.
const ALIGN: u32 = 64;

/// The dialect.
pub(super) struct C;

/// Places of arrays: offsets into `shared`, `None` for the stack, and the bytes taken.
struct Layout {
    shared: Vec<Option<u32>>,
    vars: Vec<Option<u32>>,
    bytes: u32,
}

fn layout(p: &Printer<'_>) -> Layout {
    let (mut stack, mut bytes) = (0u32, 0u32);
    let mut place = |size: u32| {
        if size <= STACK_BYTES.saturating_sub(stack) {
            stack += size;
            return None;
        }
        let at = bytes;
        bytes = bytes.saturating_add(size).checked_next_multiple_of(ALIGN).unwrap_or(u32::MAX);
        Some(at)
    };
    let var_bytes = |ty: Ty| if let Ty::Elem(e) = ty { e.bytes() } else { 8 };
    let shared = p.kernel.shared.iter().map(|s| place(s.elem.bytes().saturating_mul(s.len))).collect();
    let vars = p.kernel.vars.iter().map(|v| place(var_bytes(v.ty).saturating_mul(v.len))).collect();
    Layout { shared, vars, bytes }
}

fn order_name(order: Order) -> &'static str {
    match order {
        Order::Relaxed => "__ATOMIC_RELAXED",
        Order::Acquire => "__ATOMIC_ACQUIRE",
        Order::Release => "__ATOMIC_RELEASE",
        Order::AcqRel => "__ATOMIC_ACQ_REL",
    }
}

/// Exponentials of f32 that compilers vectorise, which they do not with the library's: within 1.03 units in the last place, by a polynomial of
/// degree 7 on half an octave and a power of two in two factors (results may be subnormal).
const EXPONENTIALS: &[(&str, &str)] = &[
    (
        "scaled_f32",
        "FN f32 fl_scaled_f32(f32 r, f32 n) {
    f32 p = __builtin_fmaf(1.9841270e-4f, r, 1.3888889e-3f);
    p = __builtin_fmaf(p, r, 8.3333333e-3f);
    p = __builtin_fmaf(p, r, 4.1666667e-2f);
    p = __builtin_fmaf(p, r, 1.6666667e-1f);
    p = __builtin_fmaf(p, r, 0.5f);
    p = __builtin_fmaf(p * r, r, r) + 1.0f;
    const i32 k = (i32)n, half = k >> 1;
    return p * fl_as_f32((u32)(half + 127) << 23) * fl_as_f32((u32)(k - half + 127) << 23);
}
",
    ),
    (
        "exp_f32",
        "FN f32 fl_exp_f32(f32 x) {
#ifdef __FMA__
    f32 c = x > -104.0f ? x : -104.0f;
    c = c < 89.0f ? c : 89.0f;
    const f32 n = __builtin_rintf(c * 1.44269504f);
    const f32 r = __builtin_fmaf(n, -1.42860677e-6f, __builtin_fmaf(n, -0.693145752f, c));
    return x != x ? x : fl_scaled_f32(r, n);
#else
    return __builtin_expf(x);
#endif
}
",
    ),
    (
        "exp2_f32",
        "FN f32 fl_exp2_f32(f32 x) {
#ifdef __FMA__
    f32 c = x > -151.0f ? x : -151.0f;
    c = c < 129.0f ? c : 129.0f;
    const f32 n = __builtin_rintf(c);
    return x != x ? x : fl_scaled_f32((c - n) * 0.693147182f, n);
#else
    return __builtin_exp2f(x);
#endif
}
",
    ),
];

/// Unsigned type as wide as an element.
fn bits_type(elem: Elem) -> &'static str {
    memory_type(elem.as_int())
}

impl Dialect for C {
    fn prelude(&self, _: &Printer<'_>) -> String {
        // Reading the standard headers would take a fifth of the time of compiling a usual kernel.
        "typedef _Bool i1;
typedef __UINT8_TYPE__ u8;
typedef __UINT16_TYPE__ u16;
typedef __UINT32_TYPE__ u32;
typedef __UINT64_TYPE__ u64;
typedef __INT8_TYPE__ i8;
typedef __INT16_TYPE__ i16;
typedef __INT32_TYPE__ i32;
typedef __INT64_TYPE__ i64;
typedef float f32;
typedef double f64;
#define FN static inline
"
        .to_owned()
    }

    fn helper(&self, name: &str) -> Option<String> {
        if let Some(rest) = name.strip_prefix("atomic_") {
            return atomic_helper(rest);
        }
        if let Some((_, text)) = EXPONENTIALS.iter().find(|e| e.0 == name) {
            return Some((*text).to_owned());
        }
        let (base, ty) = name.rsplit_once('_')?;
        let bits = ty.trim_start_matches(['u', 'f']);
        let (long, suffix) = if bits == "64" { ("ll", "") } else { ("", "f") };
        Some(match base {
            "as" => {
                let from = format!("{}{bits}", if ty.starts_with('f') { 'u' } else { 'f' });
                format!("FN {ty} fl_as_{ty}({from} x) {{\n    {ty} r;\n    __builtin_memcpy(&r, &x, sizeof r);\n    return r;\n}}\n")
            }
            "ld" => format!("FN {ty} fl_ld_{ty}(const u8 *p) {{\n    {ty} r;\n    __builtin_memcpy(&r, p, sizeof r);\n    return r;\n}}\n"),
            "st" => format!("FN void fl_st_{ty}(u8 *p, {ty} x) {{\n    __builtin_memcpy(p, &x, sizeof x);\n}}\n"),
            "ldv" => format!(
                "FN {ty} fl_ldv_{ty}(const u8 *p) {{\n    typedef {ty} __attribute__((may_alias)) any;\n    return *(const volatile any *)p;\n}}\n"
            ),
            "clz" => format!("FN u{bits} fl_clz_u{bits}(u{bits} x) {{\n    return (u{bits})__builtin_clz{long}(x);\n}}\n"),
            "ctz" => format!("FN u{bits} fl_ctz_u{bits}(u{bits} x) {{\n    return (u{bits})__builtin_ctz{long}(x);\n}}\n"),
            "popcount" => format!("FN u{bits} fl_popcount_u{bits}(u{bits} x) {{\n    return (u{bits})__builtin_popcount{long}(x);\n}}\n"),
            "rsqrt" => format!("FN f{bits} fl_rsqrt_f{bits}(f{bits} x) {{\n    return 1 / __builtin_sqrt{suffix}(x);\n}}\n"),
            _ => return None,
        })
    }

    fn open(&self, p: &mut Printer<'_>) -> Result<()> {
        if p.kernel.threads != 1 {
            let text = format!("a block of {} threads; format c runs a block as one: set `threads` to 1", p.kernel.threads);
            return Err(CompileError::unsupported("", Default::default(), text));
        }
        let layout = layout(p);
        if layout.bytes > p.target.shared_bytes {
            let text = format!("{} bytes of large arrays; this target has {} for a block: use smaller tiles", layout.bytes, p.target.shared_bytes);
            return Err(CompileError::limit("", Default::default(), text));
        }
        line!(p, "void {}(const u32 block_id[3], const u32 grid[3], void *const *args, void *shared) {{", p.entry());
        for (i, param) in p.kernel.params.iter().enumerate() {
            let n = param.value.0;
            match param.ty {
                Ty::Elem(Elem::I1) => line!(p, "    const i1 v{n} = fl_ld_u8(args[{i}]) != 0;"),
                Ty::Elem(elem) => line!(p, "    const {0} v{n} = fl_ld_{0}(args[{i}]);", memory_type(elem)),
                _ => line!(p, "    u8 *const v{n} = args[{i}];"),
            }
        }
        for (i, s) in p.kernel.shared.iter().enumerate() {
            let ty = memory_type(s.elem);
            match layout.shared[i] {
                Some(at) => line!(p, "    {ty} *const restrict s{i} = (void *)((u8 *)shared + {at});"),
                None => line!(p, "    _Alignas({ALIGN}) {ty} s{i}[{}];", s.len),
            }
        }
        for (i, v) in p.kernel.vars.iter().enumerate() {
            match layout.vars[i] {
                Some(at) => {
                    let ty = p.value_type(v.ty)?;
                    line!(p, "    {ty} *const restrict x{i} = (void *)((u8 *)shared + {at});");
                }
                None if v.len > 1 => {
                    let ty = p.value_type(v.ty)?;
                    line!(p, "    _Alignas({ALIGN}) {ty} x{i}[{}];", v.len);
                }
                None => p.declare(i)?,
            }
        }
        Ok(())
    }

    fn shared_bytes(&self, p: &Printer<'_>) -> u32 {
        layout(p).bytes
    }

    fn math(&self, base: &str, bits: u32) -> String {
        match (base, bits) {
            ("rsqrt", _) | ("exp" | "exp2", 32) => format!("fl_{base}_f{bits}"),
            (_, 32) => format!("__builtin_{base}f"),
            _ => format!("__builtin_{base}"),
        }
    }

    fn block_id(&self, axis: u8) -> String {
        format!("block_id[{axis}]")
    }

    fn num_blocks(&self, axis: u8) -> String {
        format!("grid[{axis}]")
    }

    fn thread_id(&self) -> &'static str {
        "0"
    }

    fn splits_addresses(&self) -> bool {
        // A vectorising compiler must see that addresses grow by the element.
        true
    }

    fn unroll(&self, factor: u32) -> Option<String> {
        Some(format!("#pragma GCC unroll {}", factor.min(64)))
    }

    fn read(&self, elem: Elem, address: &str, volatile: bool) -> String {
        format!("fl_ld{}_{}({address})", if volatile { "v" } else { "" }, memory_type(elem))
    }

    fn write(&self, elem: Elem, address: &str, value: &str) -> String {
        format!("fl_st_{}({address}, {value});", memory_type(elem))
    }

    fn atomic(&self, _: &Printer<'_>, at: &Atomic<'_>, rmw: Rmw, value: &str) -> Result<String> {
        Ok(format!("fl_atomic_{}_{}({}, {value}, {})", rmw_name(rmw), at.elem, at.address, order_name(at.order)))
    }

    fn atomic_cas(&self, _: &Printer<'_>, at: &Atomic<'_>, expected: &str, desired: &str) -> Result<String> {
        Ok(format!("fl_atomic_cas_{}({}, {expected}, {desired}, {})", at.elem.as_int(), at.address, order_name(at.order)))
    }

    fn shuffle(&self, _: &Printer<'_>, _: Shuffle, value: &str, _: Option<&str>, _: Ty) -> Result<String> {
        // The one thread is every lane.
        Ok(value.to_owned())
    }

    fn barrier(&self, _: bool) -> Option<&'static str> {
        None
    }

    fn subgroup_barrier(&self, _: &Printer<'_>) -> Option<&'static str> {
        None
    }
}

/// An atomic over the bits of an element: by the compiler's builtin, else by compare and swap.
fn atomic_helper(name: &str) -> Option<String> {
    if let Some(elem) = name.strip_prefix("cas_") {
        let t = bits_type(Elem::from_name(elem)?);
        return Some(format!(
            "FN {t} fl_atomic_cas_{elem}(void *p, {t} old, {t} v, int order) {{
    typedef {t} __attribute__((may_alias)) any;
    const int fail = order == __ATOMIC_ACQ_REL ? __ATOMIC_ACQUIRE : order == __ATOMIC_RELEASE ? __ATOMIC_RELAXED : order;
    __atomic_compare_exchange_n((any *)p, &old, v, 0, order, fail);
    return old;
}}
"
        ));
    }
    let (rmw, elem) = rmw_of(name)?;
    let t = bits_type(elem);
    let native = match rmw {
        Rmw::Add => Some("fetch_add"),
        Rmw::And => Some("fetch_and"),
        Rmw::Or => Some("fetch_or"),
        Rmw::Xor => Some("fetch_xor"),
        Rmw::Exch => Some("exchange_n"),
        _ => None,
    };
    let body = match native {
        Some(name) => format!("    return __atomic_{name}((any *)p, v, order);\n"),
        None => format!(
            "    {t} old = __atomic_load_n((any *)p, __ATOMIC_RELAXED);
    while (!__atomic_compare_exchange_n((any *)p, &old, ({t})({}), 1, order, __ATOMIC_RELAXED)) {{
    }}
    return old;
",
            combine(rmw, elem)
        ),
    };
    Some(format!("FN {t} fl_atomic_{name}(void *p, {t} v, int order) {{\n    typedef {t} __attribute__((may_alias)) any;\n{body}}}\n"))
}
