//! Every function written out, run by the interpreter over the whole range, with estimates made worse than any format's.

use flagos_backend_api::KernelFormat;

use crate::run::Arg;
use crate::thread::build::Build;
use crate::thread::math::expand;
use crate::thread::verify::verify;
use crate::thread::{Inst, Kernel, Place, Stmt, Ty, interpret};
use crate::tile::{Binary, Cast, Unary};
use crate::{Elem, Target};

const THREADS: u32 = 256;

/// Points per function; `FLAGOS_MATH_POINTS` asks for another number and for a line per function.
fn points() -> usize {
    std::env::var("FLAGOS_MATH_POINTS").ok().and_then(|p| p.parse().ok()).unwrap_or(2048)
}

fn vulkan() -> Target {
    Target {
        format: KernelFormat::SPIRV_VULKAN,
        arch: String::new(),
        caps: 0,
        max_block_threads: THREADS,
        shared_bytes: 0,
        subgroup: 0,
        matrix: Vec::new(),
    }
}

/// An operation under test.
#[derive(Clone, Copy, Debug)]
enum Op {
    One(Unary),
    Two(Binary),
}

/// z[i] = op(x[i], y[i]), expanded; estimates of quotients and roots are off by `off` units in the last place.
fn kernel(op: Op, elem: Elem, off: i64, target: &Target) -> Kernel {
    let mut k = Kernel::new("f", THREADS, 0);
    let [x, y, z] = [(); 3].map(|()| k.param(Ty::Ptr(elem)));
    let mut b = Build::new(&mut k);
    let (block, t) = (b.inst(Ty::Elem(Elem::I32), Inst::BlockId(0)), b.inst(Ty::Elem(Elem::I32), Inst::ThreadId));
    let start = b.binary_int(Binary::MulI, block, i64::from(THREADS));
    let i = b.binary(Binary::AddI, start, t);
    let [px, py, pz] = [x, y, z].map(|p| b.ptr_add(p, i));
    let at = |pointer| Place::Global { pointer, align: elem.bytes() };
    let (u, v) = (b.load(at(px), 1)[0], b.load(at(py), 1)[0]);
    let r = match op {
        Op::One(op) => b.unary(op, u),
        Op::Two(op) => b.binary(op, u, v),
    };
    b.store(at(pz), &[r]);
    k.body = b.finish();
    expand(&mut k, target);
    verify(&k).unwrap();
    let body = core::mem::take(&mut k.body);
    k.body = worsened(&mut k, body, off);
    verify(&k).unwrap();
    k
}

fn worsened(k: &mut Kernel, body: Vec<Stmt>, off: i64) -> Vec<Stmt> {
    let mut out = Vec::new();
    for stmt in body {
        match stmt {
            Stmt::Let { results, inst: inst @ (Inst::Binary(Binary::DivF, ..) | Inst::Unary(Unary::Sqrt | Unary::Rsqrt, _)) } => {
                let Ty::Elem(elem) = k.ty(results[0]) else { panic!("{inst:?}") };
                let mut b = Build::new(k);
                let estimate = b.number(elem, inst);
                let bits = b.cast(Cast::Bitcast, elem.as_int(), estimate);
                let moved = b.binary_int(Binary::AddI, bits, off);
                // Zeros, infinities and NaN stay.
                let finite = b.unary(Unary::IsFinite, estimate);
                let zero = b.float(elem, 0.0);
                let something = b.cmp_f(crate::tile::CmpF::Une, estimate, zero);
                let moves = b.binary(Binary::And, finite, something);
                let bits = b.select(moves, moved, bits);
                let mut statements = b.finish();
                statements.push(Stmt::Let { results, inst: Inst::Cast(Cast::Bitcast, bits) });
                out.extend(statements);
            }
            Stmt::Loop { uniform, body } => out.push(Stmt::Loop { uniform, body: worsened(k, body, off) }),
            other => out.push(other),
        }
    }
    out
}

fn evaluate(op: Op, elem: Elem, off: i64, target: &Target, inputs: &[(u64, u64)]) -> Vec<u64> {
    let size = elem.bytes() as usize;
    let padded = inputs.len().next_multiple_of(THREADS as usize);
    let pack = |f: &dyn Fn(&(u64, u64)) -> u64| {
        let mut bytes: Vec<u8> = inputs.iter().flat_map(|p| f(p).to_le_bytes()[..size].to_vec()).collect();
        bytes.resize(padded * size, 0);
        Arg::Buffer(bytes)
    };
    let mut args = [pack(&|p| p.0), pack(&|p| p.1), Arg::Buffer(vec![0; padded * size])];
    interpret::run(&kernel(op, elem, off, target), [padded as u32 / THREADS, 1, 1], &mut args).unwrap();
    let Arg::Buffer(bytes) = &args[2] else { panic!() };
    let value = |c: &[u8]| c.iter().rev().fold(0, |all, b| all << 8 | u64::from(*b));
    bytes.chunks_exact(size).take(inputs.len()).map(value).collect()
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A float: of any bits, of moderate size, near one, or near multiples of π/2.
    fn float(&mut self, elem: Elem) -> u64 {
        let unit = (self.next() >> 11) as f64 * 2f64.powi(-53);
        let value = match self.next() % 8 {
            0 | 1 => return if elem == Elem::F64 { self.next() } else { self.next() >> 32 },
            2 => (unit - 0.5) * 40.0,
            3 => (unit - 0.5) * 2.0,
            4 => 1.0 + (unit - 0.5) * 2f64.powi(-((self.next() % 20) as i32)),
            5 => (unit - 0.5) * 2f64.powi((self.next() % 40) as i32 - 30),
            6 => ((self.next() % 1000) as f64 * core::f64::consts::FRAC_PI_2) * if unit > 0.5 { 1.0 } else { -1.0 },
            _ => unit * if elem == Elem::F64 { 1500.0 } else { 200.0 } - 750.0 * f64::from(u8::from(elem == Elem::F64)) - 100.0,
        };
        if elem == Elem::F64 { value.to_bits() } else { u64::from((value as f32).to_bits()) }
    }
}

fn specials(elem: Elem) -> Vec<u64> {
    let values = [0.0, 1.0, 2.0, 3.0, 0.5, 0.25, 1.5, 10.0, 1e-3, 7.0, 1e10, f64::INFINITY];
    let mut bits: Vec<u64> = values.iter().map(|v| if elem == Elem::F64 { v.to_bits() } else { u64::from((*v as f32).to_bits()) }).collect();
    let stored = if elem == Elem::F64 { 52 } else { 23 };
    // NaN, least subnormal, greatest subnormal, least normal, greatest, neighbours of one.
    let one = bits[1];
    bits.extend([bits[11] | 1 << (stored - 1), 1, (1 << stored) - 1, 1 << stored, bits[11] - 1, one - 1, one + 1]);
    let negative: Vec<u64> = bits.iter().map(|b| b | 1 << (elem.bits() - 1)).collect();
    bits.extend(negative);
    bits
}

fn wide(elem: Elem, bits: u64) -> f64 {
    interpret::scalar::float(elem, bits)
}

/// Distance in units in the last place of the result's type; infinite where one is NaN or signs of zeros differ.
fn distance(elem: Elem, got: u64, want: f64) -> f64 {
    let value = wide(elem, got);
    let rounded = if elem == Elem::F64 { want } else { f64::from(want as f32) };
    if value.is_nan() || rounded.is_nan() {
        return if value.is_nan() && rounded.is_nan() { 0.0 } else { f64::INFINITY };
    }
    if rounded == 0.0 || value == 0.0 {
        let same = value.is_sign_negative() == rounded.is_sign_negative();
        if rounded == 0.0 && value == 0.0 {
            return if same { 0.0 } else { f64::INFINITY };
        }
    }
    if value.is_infinite() || rounded.is_infinite() {
        let neighbour = |v: f64| v.abs() >= if elem == Elem::F64 { f64::MAX } else { f64::from(f32::MAX) };
        return if value == rounded {
            0.0
        } else if neighbour(value) && neighbour(rounded) && value.is_sign_negative() == rounded.is_sign_negative() {
            1.0
        } else {
            f64::INFINITY
        };
    }
    if elem == Elem::F64 {
        let ordered = |v: f64| if v.is_sign_negative() { -((v.to_bits() & !(1 << 63)) as i64) } else { v.to_bits() as i64 };
        return ordered(value).abs_diff(ordered(rounded)) as f64;
    }
    let exponent = (want.abs().to_bits() >> 52) as i32 - 1023;
    (value - want).abs() / 2f64.powi(exponent.max(-126) - 23)
}

/// Runs an operation over samples; panics beyond `limit` units in the last place.
fn judge(op: Op, elem: Elem, limit: f64, reference: impl Fn(f64, f64) -> f64) {
    let special = specials(elem);
    let mut random = Random(0x5eed ^ u64::from(elem.bits()));
    let mut inputs: Vec<(u64, u64)> = Vec::new();
    match op {
        Op::One(_) => inputs.extend(special.iter().map(|b| (*b, 0))),
        Op::Two(_) => inputs.extend(special.iter().flat_map(|a| special.iter().map(|b| (*a, *b)))),
    }
    inputs.extend((0..points()).map(|_| (random.float(elem), random.float(elem))));
    let mut worst = (0.0, 0, 0, 0);
    for off in [2, -2] {
        let got = evaluate(op, elem, off, &vulkan(), &inputs);
        for ((a, b), got) in inputs.iter().zip(got) {
            let far = distance(elem, got, reference(wide(elem, *a), wide(elem, *b)));
            if far > worst.0 {
                worst = (far, *a, *b, got);
            }
        }
    }
    let (far, a, b, got) = worst;
    let (x, y) = (wide(elem, a), wide(elem, b));
    let line = format!("{op:?} {elem}: {far:.3} units off at {x:e} ({a:#x}), {y:e} ({b:#x}): {:e}, not {:e}", wide(elem, got), reference(x, y));
    if std::env::var_os("FLAGOS_MATH_POINTS").is_some() {
        println!("{line}");
    }
    assert!(far <= limit, "{line}");
}

/// Against double precision for f32 and, within the reference's own unit, for f64.
fn one(op: Unary, reference: fn(f64) -> f64) {
    judge(Op::One(op), Elem::F32, 2.0, |x, _| reference(x));
    judge(Op::One(op), Elem::F64, 2.0, |x, _| reference(x));
}

#[test]
fn exponentials() {
    one(Unary::Exp, f64::exp);
    one(Unary::Exp2, f64::exp2);
    one(Unary::Expm1, f64::exp_m1);
}

#[test]
fn hyperbolic_functions() {
    one(Unary::Sinh, f64::sinh);
    one(Unary::Cosh, f64::cosh);
    one(Unary::Tanh, f64::tanh);
    one(Unary::Asinh, libm::asinh);
    one(Unary::Acosh, |x| if x < 1.0 { f64::NAN } else { libm::acosh(x) });
    one(Unary::Atanh, libm::atanh);
}

#[test]
fn logarithms() {
    one(Unary::Log, f64::ln);
    one(Unary::Log2, f64::log2);
    one(Unary::Log10, f64::log10);
    one(Unary::Log1p, f64::ln_1p);
}

#[test]
fn trigonometry() {
    one(Unary::Sin, f64::sin);
    one(Unary::Cos, f64::cos);
    one(Unary::Tan, f64::tan);
}

#[test]
fn inverse_trigonometry() {
    one(Unary::Asin, f64::asin);
    one(Unary::Acos, f64::acos);
    one(Unary::Atan, f64::atan);
    for elem in [Elem::F32, Elem::F64] {
        judge(Op::Two(Binary::Atan2), elem, 2.0, f64::atan2);
    }
}

#[test]
fn error_function_and_powers() {
    one(Unary::Erf, libm::erf);
    one(Unary::Cbrt, f64::cbrt);
    one(Unary::Rsqrt, |x| 1.0 / x.sqrt());
    for elem in [Elem::F32, Elem::F64] {
        judge(Op::Two(Binary::Pow), elem, 2.0, f64::powf);
    }
}

#[test]
fn quotients_roots_and_remainders_are_exact() {
    // Quotients and roots of f32 are a half unit off at most, f64's are equal.
    judge(Op::Two(Binary::DivF), Elem::F32, 0.5, |x, y| x / y);
    judge(Op::Two(Binary::DivF), Elem::F64, 0.0, |x, y| x / y);
    judge(Op::One(Unary::Sqrt), Elem::F32, 0.5, |x, _| x.sqrt());
    judge(Op::One(Unary::Sqrt), Elem::F64, 0.0, |x, _| x.sqrt());
    judge(Op::Two(Binary::RemF), Elem::F32, 0.0, |x, y| x % y);
    judge(Op::Two(Binary::RemF), Elem::F64, 0.0, |x, y| x % y);
}

/// On processors OpenCL's double precision stands in: every bit is that of single precision's own quotient and root.
#[test]
fn quotients_and_roots_in_double_are_exact() {
    let target = Target { format: KernelFormat::OPENCL_C, max_block_threads: 1, caps: flagos_backend_api::caps::FP64, ..vulkan() };
    assert!(!kernel(Op::Two(Binary::DivF), Elem::F32, 0, &target).to_string().contains("ctlz"));
    let special = specials(Elem::F32);
    let mut random = Random(7);
    let mut inputs: Vec<(u64, u64)> = special.iter().flat_map(|a| special.iter().map(|b| (*a, *b))).collect();
    inputs.extend((0..points()).map(|_| (random.float(Elem::F32), random.float(Elem::F32))));
    // Subnormal quotients, where a double has the least to spare.
    inputs.extend((0..points()).map(|_| (random.next() >> 33 & 0x07ff_ffff, 0x3e00_0000 | random.next() >> 38)));
    for (op, exact) in [(Op::Two(Binary::DivF), (|x, y| x / y) as fn(f32, f32) -> f32), (Op::One(Unary::Sqrt), |x, _| x.sqrt())] {
        for ((a, b), got) in inputs.iter().zip(evaluate(op, Elem::F32, 0, &target, &inputs)) {
            let (got, want) = (f32::from_bits(got as u32), exact(f32::from_bits(*a as u32), f32::from_bits(*b as u32)));
            assert!(got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan(), "{op:?} of {a:#x}, {b:#x}: {got:e}, not {want:e}");
        }
    }
}

#[test]
fn other_formats_keep_their_functions() {
    let mut k = Kernel::new("f", 1, 0);
    let x = k.param(Ty::Elem(Elem::F32));
    let mut b = Build::new(&mut k);
    b.unary(Unary::Exp, x);
    k.body = b.finish();
    let before = k.clone();
    expand(&mut k, &Target { format: KernelFormat::C, ..vulkan() });
    assert_eq!(k, before);
    expand(&mut k, &Target { format: KernelFormat::OPENCL_C, ..vulkan() });
    assert_eq!(k, before);
    expand(&mut k, &vulkan());
    assert!(!k.to_string().contains(" exp "));
}
