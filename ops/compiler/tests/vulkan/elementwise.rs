//! Every elementwise instruction of every type on special values and random bits.

use flagos_compiler::{Elem, Target};
use flagos_compiler::thread::build::Build;
use flagos_compiler::thread::{Inst, Kernel, Place, Ty, Val};
use flagos_compiler::tile::{Binary, Cast, CmpF, CmpI, Unary};

use crate::device::{agree, buffer, device, zeros};
use crate::first::global_id;
use crate::support::Backend;

/// Numbers that look random, the same in every run.
pub fn random(seed: u64) -> impl Iterator<Item = u64> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    core::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    })
}

/// Special values and some random ones.
pub fn values(elem: Elem) -> Vec<u64> {
    let bits = elem.bits();
    let mask = if bits == 64 { u64::MAX } else { (1 << bits) - 1 };
    let mut all: Vec<u64> = match elem {
        Elem::I1 => vec![0, 1],
        e if e.is_int() => {
            let least = 1u64 << (bits - 1);
            vec![0, 1, 2, 3, 5, 7, 16, mask, mask - 1, mask - 6, least, least + 1, least - 1, least - 2, least >> 1]
        }
        Elem::F8E4M3 | Elem::F8E5M2 => (0..256).step_by(3).collect(),
        _ => {
            let fraction = match elem {
                Elem::F64 => 52,
                Elem::F32 => 23,
                Elem::F16 => 10,
                _ => 7,
            };
            let infinity = (mask >> 1) >> fraction << fraction;
            let one = (infinity >> 1) >> fraction << fraction;
            let half = one - (1 << fraction);
            let positive = [0, 1 << fraction, one, half, one + (1 << (fraction - 1)), one + (1 << fraction) + (1 << (fraction - 2)), infinity - 1, infinity, infinity | 1 << (fraction - 1)];
            positive.iter().flat_map(|v| [*v, v | 1 << (bits - 1)]).collect()
        }
    };
    if elem.bits() > 8 {
        all.extend(random(u64::from(bits)).map(|v| v & mask).filter(|v| !subnormal(elem, *v)).take(10));
    }
    if matches!(elem, Elem::F32 | Elem::F64) {
        all.extend(random(7).take(10).map(|v| {
            let v = (v as i32) as f64 / 1e7;
            if elem == Elem::F64 { v.to_bits() } else { u64::from((v as f32).to_bits()) }
        }));
    }
    all
}

/// Whether it is a subnormal single or double, which devices may take for zero.
pub fn subnormal(elem: Elem, bits: u64) -> bool {
    match elem {
        Elem::F32 => f32::from_bits(bits as u32).is_subnormal(),
        Elem::F64 => f64::from_bits(bits).is_subnormal(),
        _ => false,
    }
}

/// Narrower ones are computed in single precision.
const FLOATS: &[Elem] = &[Elem::F32, Elem::F64];
const INTEGERS: &[Elem] = &[Elem::I1, Elem::I8, Elem::I16, Elem::I32, Elem::I64];

fn pairs(elem: Elem) -> [(Elem, Vec<u64>); 2] {
    let all = values(elem);
    let cross = |f: &dyn Fn(u64, u64) -> u64| all.iter().flat_map(|a| all.iter().map(|b| f(*a, *b))).collect();
    [(elem, cross(&|a, _| a)), (elem, cross(&|_, b| b))]
}

type Op = Box<dyn Fn(&mut Build<'_>, &[Val]) -> Val>;

fn unary(op: Unary) -> Op {
    Box::new(move |b, p| b.unary(op, p[0]))
}
fn binary(op: Binary) -> Op {
    Box::new(move |b, p| b.binary(op, p[0], p[1]))
}
fn compare_integers(op: CmpI) -> Op {
    Box::new(move |b, p| b.cmp_i(op, p[0], p[1]))
}
fn compare_floats(op: CmpF) -> Op {
    Box::new(move |b, p| b.cmp_f(op, p[0], p[1]))
}

/// Runs many operations on the elements of input arrays: `ops` builds a value from the inputs of a thread.
fn run(name: &str, inputs: &[(Elem, Vec<u64>)], ops: &[(Elem, Op)]) {
    let Some(device) = device() else { return };
    run_on(device, name, inputs, ops);
}

fn run_on(device: &(Backend, Target), name: &str, inputs: &[(Elem, Vec<u64>)], ops: &[(Elem, Op)]) {
    let mut k = Kernel::new(name, 32, 0);
    let ins: Vec<Val> = inputs.iter().map(|(e, _)| k.param(Ty::Ptr(*e))).collect();
    let outs: Vec<Val> = ops.iter().map(|(e, _)| k.param(Ty::Ptr(*e))).collect();
    let n = inputs[0].1.len().next_multiple_of(32);
    let mut b = Build::new(&mut k);
    let i = global_id(&mut b);
    let at = |b: &mut Build<'_>, p: Val, e: Elem| Place::Global { pointer: b.ptr_add(p, i), align: e.bytes() };
    let parts: Vec<Val> = ins
        .iter()
        .zip(inputs)
        .map(|(p, (e, _))| {
            let place = at(&mut b, *p, *e);
            b.load(place, 1)[0]
        })
        .collect();
    for ((e, op), out) in ops.iter().zip(&outs) {
        let value = op(&mut b, &parts);
        let place = at(&mut b, *out, *e);
        b.store(place, &[value]);
    }
    k.body = b.finish();
    let padded = |v: &[u64]| v.iter().copied().chain(core::iter::repeat_n(v[0], n - v.len())).collect::<Vec<u64>>();
    let args: Vec<_> = inputs.iter().map(|(e, v)| buffer(*e, padded(v))).chain(ops.iter().map(|(e, _)| zeros(*e, n))).collect();
    let elems: Vec<Elem> = inputs.iter().map(|i| i.0).chain(ops.iter().map(|o| o.0)).collect();
    agree(device, &k, [n as u32 / 32, 1, 1], &args, &elems);
}

#[test]
fn integers_in_pairs() {
    use Binary as B;
    for &elem in INTEGERS {
        let plain = [B::AddI, B::SubI, B::MulI, B::MulHiU, B::And, B::Or, B::Xor, B::MaxS, B::MaxU, B::MinS, B::MinU];
        let mut ops: Vec<(Elem, Op)> = plain.map(|op| (elem, binary(op))).into();
        // By zero, and shifts by the width, are undefined.
        let divide = [B::DivS, B::DivU, B::RemS, B::RemU, B::CeilDivS, B::FloorDivS];
        ops.extend(divide.into_iter().filter(|_| elem != Elem::I1).map(|op| {
            let f = move |b: &mut Build<'_>, p: &[Val]| {
                let (zero, one) = (b.int(elem, 0), b.int(elem, 1));
                let none = b.cmp_i(CmpI::Eq, p[1], zero);
                let by = b.select(none, one, p[1]);
                b.binary(op, p[0], by)
            };
            (elem, Box::new(f) as Op)
        }));
        let shift = [B::Shl, B::ShrS, B::ShrU];
        ops.extend(shift.into_iter().filter(|_| elem != Elem::I1).map(|op| {
            let f = move |b: &mut Build<'_>, p: &[Val]| {
                let by = b.binary_int(B::And, p[1], i64::from(elem.bits() - 1));
                b.binary(op, p[0], by)
            };
            (elem, Box::new(f) as Op)
        }));
        let compare = [CmpI::Eq, CmpI::Ne, CmpI::Slt, CmpI::Sle, CmpI::Sgt, CmpI::Sge, CmpI::Ult, CmpI::Ule, CmpI::Ugt, CmpI::Uge];
        ops.extend(compare.map(|op| (Elem::I1, compare_integers(op))));
        run(&format!("integers_{elem}"), &pairs(elem), &ops);
    }
}

#[test]
fn dividing_by_zero_and_shifting_too_far_does_no_harm() {
    use Binary as B;
    for &elem in INTEGERS {
        let ops = [B::DivS, B::DivU, B::RemS, B::RemU, B::CeilDivS, B::FloorDivS, B::Shl, B::ShrS, B::ShrU];
        let ops: Vec<(Elem, Op)> = ops
            .into_iter()
            .map(|op| {
                let f = move |b: &mut Build<'_>, p: &[Val]| {
                    let all = b.binary(op, p[0], p[1]);
                    b.binary_int(B::And, all, 0)
                };
                (elem, Box::new(f) as Op)
            })
            .collect();
        run(&format!("undefined_{elem}"), &pairs(elem), &ops);
    }
}

#[test]
fn integers_alone() {
    for &elem in INTEGERS {
        let ops = [Unary::AbsI, Unary::Ctlz, Unary::Cttz, Unary::Ctpop];
        let ops: Vec<(Elem, Op)> = ops.map(|op| (elem, unary(op))).into();
        run(&format!("alone_{elem}"), &[(elem, values(elem))], &ops);
    }
}

#[test]
fn floats_in_pairs() {
    use Binary as B;
    for &elem in FLOATS {
        let plain = [B::AddF, B::SubF, B::MulF, B::MaximumF, B::MinimumF, B::MaxNumF, B::MinNumF, B::CopySign];
        let mut ops: Vec<(Elem, Op)> = plain.map(|op| (elem, binary(op))).into();
        use CmpF as C;
        let compare = [
            C::False, C::Oeq, C::Ogt, C::Oge, C::Olt, C::Ole, C::One, C::Ord, C::Ueq, C::Ugt, C::Uge, C::Ult, C::Ule, C::Une, C::Uno, C::True,
        ];
        ops.extend(compare.map(|op| (Elem::I1, compare_floats(op))));
        run(&format!("floats_{elem}"), &pairs(elem), &ops);
    }
}

#[test]
fn floats_alone() {
    use Unary as U;
    for &elem in FLOATS {
        let plain = [U::NegF, U::AbsF, U::Floor, U::Ceil, U::Trunc, U::RoundEven, U::Round];
        let mut ops: Vec<(Elem, Op)> = plain.map(|op| (elem, unary(op))).into();
        let tests = [U::IsNan, U::IsInf, U::IsFinite];
        ops.extend(tests.map(|op| (Elem::I1, unary(op))));
        run(&format!("floats_alone_{elem}"), &[(elem, values(elem))], &ops);
    }
}

#[test]
fn products_are_added_without_rounding_in_between() {
    let Some((backend, target)) = device() else { return };
    // In double precision where there is one, else in integers, which subnormal numbers do not trouble.
    let plain = Target { caps: target.caps & !flagos_backend_api::caps::FP64, ..target.clone() };
    for (elem, target) in [(Elem::F32, target.clone()), (Elem::F32, plain.clone()), (Elem::F64, target.clone())] {
        let small = elem == Elem::F64 || !target.has(flagos_backend_api::caps::FP64);
        let device = (Backend { table: backend.table, device: backend.device }, target);
        let mut all = values(elem);
        if small {
            let (mask, least) = if elem == Elem::F64 { (u64::MAX, 1022 << 52) } else { (u32::MAX.into(), 126 << 23) };
            all.extend([1, 3, 0xffff, (least >> 4) + 1, least + 5, mask >> 1 >> 9 | 1 << 20].iter().flat_map(|v| [*v, (mask - (mask >> 1)) | v]));
        }
        let cross = all.len() * all.len();
        let third: Vec<u64> = (0..cross).map(|i| all[(i * 7 + i / all.len()) % all.len()]).collect();
        let (first, second) = ((0..cross).map(|i| all[i / all.len()]).collect(), (0..cross).map(|i| all[i % all.len()]).collect());
        let inputs = [(elem, first), (elem, second), (elem, third)];
        run_on(&device, &format!("fma_{elem}"), &inputs, &[(elem, Box::new(|b, p| b.fma(p[0], p[1], p[2])))]);
        // a·b - a·b is 0 rounded twice, and the rounding error rounded once. Without Fma nothing is contracted.
        let few: Vec<u64> = values(elem).into_iter().filter(|v| !subnormal(elem, *v)).collect();
        let near = |f: &dyn Fn(usize) -> usize| (elem, (0..few.len() * few.len()).map(|i| few[f(i)]).collect::<Vec<u64>>());
        let inputs = [near(&|i| i / few.len()), near(&|i| i % few.len()), near(&|i| i * 7 % few.len())];
        let error: Op = Box::new(|b, p| {
            let product = b.binary(Binary::MulF, p[0], p[1]);
            let minus = b.unary(Unary::NegF, product);
            b.fma(p[0], p[1], minus)
        });
        let apart: Op = Box::new(|b, p| {
            let product = b.binary(Binary::MulF, p[0], p[1]);
            b.binary(Binary::AddF, product, p[2])
        });
        run_on(&device, &format!("fma_error_{elem}"), &inputs, &[(elem, error), (elem, apart)]);
    }
}

#[test]
fn conversions() {
    for &from in Elem::ALL {
        let mut ops: Vec<(Elem, Op)> = Vec::new();
        for &to in Elem::ALL {
            let kinds: &[Cast] = match (from.is_float(), to.is_float()) {
                (false, false) if to.bits() < from.bits() => &[Cast::TruncI],
                (false, false) if to.bits() > from.bits() => &[Cast::ExtS, Cast::ExtU],
                (false, true) => &[Cast::SiToFp, Cast::UiToFp],
                (true, true) if to.bits() < from.bits() => &[Cast::TruncF, Cast::FpToFpRtz],
                (true, true) if to != from => &[Cast::FpToFp, Cast::FpToFpRtz],
                _ => &[],
            };
            ops.extend(kinds.iter().copied().map(|kind| (to, Box::new(move |b: &mut Build<'_>, p: &[Val]| b.cast(kind, to, p[0])) as Op)));
            if from.bits() == to.bits() && from.bits() > 1 {
                ops.push((to, Box::new(move |b, p| b.cast(Cast::Bitcast, to, p[0]))));
            }
        }
        let inputs: Vec<u64> = values(from).into_iter().chain(near_ties(from)).collect();
        run(&format!("conversions_{from}"), &[(from, inputs)], &ops);
    }
}

/// Numbers halfway between neighbours of narrower floats, and next to that.
fn near_ties(from: Elem) -> Vec<u64> {
    let mut all = Vec::new();
    let wide = random(3).take(4000);
    for (bits, i) in wide.zip(0..) {
        // Exponents of half precision, of 8-bit floats and of their subnormals; mantissas short, short and a half, and with a bit far down.
        let exponent = 1023 - 28 + i % 48;
        let keep = [2, 3, 7, 10, 23][i as usize % 5];
        let mantissa = bits << 12 >> 12 >> (52 - keep) << (52 - keep);
        let tail = [0, 1 << (51 - keep), 1 << (51 - keep) | 1, (1 << (51 - keep)) - 1, 1 << (51 - keep) | 1 << (52 - 23)][i as usize / 5 % 5];
        let double = f64::from_bits((bits & 1 << 63) | exponent << 52 | mantissa | tail);
        all.push(match from {
            Elem::F64 => double.to_bits(),
            Elem::F32 => u64::from((double as f32).to_bits()),
            Elem::I64 => bits >> (i % 64),
            Elem::I32 => u64::from((bits as u32) >> (i % 32)),
            _ => continue,
        });
    }
    all
}

#[test]
fn floats_become_integers() {
    for from in [Elem::F32, Elem::F64, Elem::F16] {
        for (to, range) in [(Elem::I8, 120.0), (Elem::I16, 32000.0), (Elem::I32, 2.1e9), (Elem::I64, 9.1e18)] {
            let range: f64 = if from == Elem::F16 { f64::min(range, 65000.0) } else { range };
            let numbers: Vec<f64> = random(9).take(200).enumerate().map(|(i, v)| (v as i64 as f64 / 2f64.powi(63)) * range / 10f64.powi(i as i32 % 12)).collect();
            let bits = |v: f64| match from {
                Elem::F64 => v.to_bits(),
                Elem::F32 => u64::from((v as f32).to_bits()),
                _ => flagos_compiler::thread::interpret::scalar::from_float(from, v, false),
            };
            let (all, positive): (Vec<u64>, Vec<u64>) = numbers.iter().map(|v| (bits(*v), bits(v.abs()))).unzip();
            let signed: Op = Box::new(move |b, p| b.cast(Cast::FpToSi, to, p[0]));
            let unsigned: Op = Box::new(move |b, p| b.cast(Cast::FpToUi, to, p[1]));
            run(&format!("to_{to}_{from}"), &[(from, all), (from, positive)], &[(to, signed), (to, unsigned)]);
        }
    }
}

#[test]
fn selects_and_constants() {
    for &elem in Elem::ALL {
        let constants = values(elem);
        let mut ops: Vec<(Elem, Op)> = vec![(elem, Box::new(|b, p| b.select(p[2], p[0], p[1])))];
        ops.extend(constants.into_iter().map(|v| (elem, Box::new(move |b: &mut Build<'_>, _: &[Val]| b.number(elem, Inst::Const(v))) as Op)));
        let [a, b] = pairs(elem);
        let c = (Elem::I1, (0..a.1.len()).map(|i| (i % 3 == 0).into()).collect());
        run(&format!("select_{elem}"), &[a, b, c], &ops);
    }
}
