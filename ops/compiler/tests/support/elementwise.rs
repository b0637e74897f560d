//! Every function of one, two and three operands, comparison and conversion, for every type, on special and random values.

use flagos_compiler::Elem;
use flagos_compiler::thread::build::Build;
use flagos_compiler::thread::interpret::scalar;
use flagos_compiler::thread::{Inst, Kernel, Ty};
use flagos_compiler::tile::{Binary, Cast, CmpF, CmpI, Unary};

use super::{Case, Check, buffer, load, samples, store, thread_index, zeros};

/// Values per operand.
const COUNT: usize = 512;

const EXACT_UNARY: &[Unary] = &[
    Unary::NegF, Unary::AbsF, Unary::Sqrt, Unary::Floor, Unary::Ceil, Unary::Trunc, Unary::RoundEven, Unary::Round,
];
const TESTS: &[Unary] = &[Unary::IsNan, Unary::IsInf, Unary::IsFinite];
const INEXACT_UNARY: &[Unary] = &[
    Unary::Exp, Unary::Exp2, Unary::Expm1, Unary::Log, Unary::Log2, Unary::Log10, Unary::Log1p, Unary::Sin, Unary::Cos, Unary::Tan, Unary::Asin, Unary::Acos,
    Unary::Atan, Unary::Sinh, Unary::Cosh, Unary::Tanh, Unary::Asinh, Unary::Acosh, Unary::Atanh, Unary::Erf, Unary::Rsqrt, Unary::Cbrt,
];
const INT_UNARY: &[Unary] = &[Unary::AbsI, Unary::Ctlz, Unary::Cttz, Unary::Ctpop];
const EXACT_BINARY: &[Binary] = &[
    Binary::AddF, Binary::SubF, Binary::MulF, Binary::DivF, Binary::RemF, Binary::MaximumF, Binary::MinimumF, Binary::MaxNumF, Binary::MinNumF, Binary::CopySign,
];
const INEXACT_BINARY: &[Binary] = &[Binary::Pow, Binary::Atan2];
const INT_BINARY: &[Binary] = &[
    Binary::AddI, Binary::SubI, Binary::MulI, Binary::MulHiU, Binary::And, Binary::Or, Binary::Xor, Binary::MaxS, Binary::MaxU, Binary::MinS, Binary::MinU,
    Binary::DivS, Binary::DivU, Binary::RemS, Binary::RemU, Binary::CeilDivS, Binary::FloorDivS, Binary::Shl, Binary::ShrS, Binary::ShrU,
];
const COMPARE_INT: &[CmpI] = &[CmpI::Eq, CmpI::Ne, CmpI::Slt, CmpI::Sle, CmpI::Sgt, CmpI::Sge, CmpI::Ult, CmpI::Ule, CmpI::Ugt, CmpI::Uge];
const COMPARE_FLOAT: &[CmpF] = &[
    CmpF::False, CmpF::Oeq, CmpF::Ogt, CmpF::Oge, CmpF::Olt, CmpF::Ole, CmpF::One, CmpF::Ord, CmpF::Ueq, CmpF::Ugt, CmpF::Uge, CmpF::Ult, CmpF::Ule, CmpF::Une,
    CmpF::Uno, CmpF::True,
];

/// A kernel of `threads` over operands a, b, c of a type, written by `f`, which counts its results.
fn case(name: String, threads: u32, elem: Elem, to: Elem, outputs: usize, f: impl Fn(&mut Build<'_>, [flagos_compiler::thread::Val; 3]) -> Vec<flagos_compiler::thread::Val>) -> Case {
    let mut kernel = Kernel::new(&name.replace(' ', "_"), threads, 0);
    let pointers = [0; 3].map(|_| kernel.param(Ty::Ptr(elem)));
    let out = kernel.param(Ty::Ptr(to));
    let mut b = Build::new(&mut kernel);
    let i = thread_index(&mut b);
    let operands = pointers.map(|p| load(&mut b, p, i));
    let results = f(&mut b, operands);
    assert_eq!(results.len(), outputs);
    for (n, r) in results.into_iter().enumerate() {
        store(&mut b, out, i, n * COUNT, r);
    }
    kernel.body = b.finish();
    let inputs = [11, 22, 33].map(|seed| buffer(elem, samples(elem, COUNT, seed)));
    let args = inputs.into_iter().chain([zeros(to, outputs * COUNT)]).collect();
    Case { name, kernel, grid: [COUNT as u32 / threads, 1, 1], args, checks: vec![None, None, None, Some(Check::exact(to))] }
}

/// Units of the last place a language promises: by function.
pub type Accuracy = fn(usize) -> u64;

/// Arithmetic on a type: exact.
pub fn arithmetic(threads: u32, elem: Elem) -> Vec<Case> {
    let all = |name: &str| format!("{name} {elem}");
    if elem.is_float() && elem.bits() < 32 {
        // No arithmetic: values are only chosen.
        return vec![case(all("select"), threads, elem, elem, 1, |b, [x, y, _]| {
            let bits = b.cast(Cast::Bitcast, elem.as_int(), x);
            let odd = b.cast(Cast::TruncI, Elem::I1, bits);
            vec![b.select(odd, x, y)]
        })];
    }
    if elem.is_float() {
        let math = case(all("float"), threads, elem, elem, EXACT_UNARY.len() + EXACT_BINARY.len() + 2, |b, [x, y, z]| {
            let mut out: Vec<_> = EXACT_UNARY.iter().map(|op| b.unary(*op, x)).collect();
            out.extend(EXACT_BINARY.iter().map(|op| b.binary(*op, x, y)));
            out.push(b.fma(x, y, z));
            let less = b.cmp_f(CmpF::Olt, x, y);
            out.push(b.select(less, x, z));
            out
        });
        let compare = case(all("compare"), threads, elem, Elem::I1, TESTS.len() + COMPARE_FLOAT.len(), |b, [x, y, _]| {
            let mut out: Vec<_> = TESTS.iter().map(|op| b.unary(*op, x)).collect();
            out.extend(COMPARE_FLOAT.iter().map(|op| b.cmp_f(*op, x, y)));
            out
        });
        return vec![math, compare];
    }
    let mut math = case(all("integer"), threads, elem, elem, INT_UNARY.len() + INT_BINARY.len() + 1, |b, [x, y, z]| {
        let mut out: Vec<_> = INT_UNARY.iter().map(|op| b.unary(*op, x)).collect();
        out.extend(INT_BINARY.iter().map(|op| b.binary(*op, x, y)));
        let less = b.cmp_i(CmpI::Slt, x, y);
        out.push(b.select(less, x, z));
        out
    });
    let second = samples(elem, COUNT, 22);
    let undefined = |op: &Binary, y: u64| match op {
        Binary::DivS | Binary::DivU | Binary::RemS | Binary::RemU | Binary::CeilDivS | Binary::FloorDivS => y == 0,
        Binary::Shl | Binary::ShrS | Binary::ShrU => y >= u64::from(elem.bits()),
        _ => false,
    };
    let mut list = vec![false; INT_UNARY.len() * COUNT];
    list.extend(INT_BINARY.iter().flat_map(|op| second.iter().map(move |y| undefined(op, *y))));
    math.checks[3] = Some(Check { undefined: list, ..Check::exact(elem) });
    let constants = constants(threads, elem);
    let compare = case(all("compare"), threads, elem, Elem::I1, COMPARE_INT.len(), |b, [x, y, _]| COMPARE_INT.iter().map(|op| b.cmp_i(*op, x, y)).collect());
    vec![math, compare, constants]
}

/// The same with constants on the right.
fn constants(threads: u32, elem: Elem) -> Case {
    let values = [1, -1, 3, -5, i64::MIN >> (64 - elem.bits())];
    let ops = &INT_BINARY[..INT_BINARY.len() - 3];
    case(format!("constants {elem}"), threads, elem, elem, values.len() * (ops.len() + COMPARE_INT.len()) + 3, |b, [x, y, _]| {
        let mut out = Vec::new();
        for value in values {
            // A constant that is 0 in this type divides nothing.
            let value = if elem == Elem::I1 { 1 } else { value };
            out.extend(ops.iter().map(|op| b.binary_int(*op, x, value)));
            for op in COMPARE_INT {
                let constant = b.int(elem, value);
                let truth = b.cmp_i(*op, x, constant);
                out.push(b.select(truth, x, y));
            }
        }
        let amount = i64::from(elem.bits() - 1);
        out.extend([Binary::Shl, Binary::ShrS, Binary::ShrU].map(|op| b.binary_int(op, x, amount)));
        out
    })
}

/// Functions that are not exact, each with the distance a language allows.
pub fn functions(threads: u32, elem: Elem, ulp: Accuracy) -> Case {
    let count = INEXACT_UNARY.len() + INEXACT_BINARY.len();
    let mut case = case(format!("functions {elem}"), threads, elem, elem, count, |b, [x, y, _]| {
        let mut out: Vec<_> = INEXACT_UNARY.iter().map(|op| b.unary(*op, x)).collect();
        out.extend(INEXACT_BINARY.iter().map(|op| b.binary(*op, x, y)));
        out
    });
    case.checks[3] = Some(Check { ulp, ..Check::exact(elem) });
    case
}

/// Conversions from one type to another.
pub fn casts(threads: u32, from: Elem, to: Elem) -> Option<Case> {
    let ops: &[Cast] = match (from.is_float(), to.is_float()) {
        (false, false) if from.bits() > to.bits() => &[Cast::TruncI],
        (false, false) if from.bits() < to.bits() => &[Cast::ExtS, Cast::ExtU],
        (false, true) => &[Cast::SiToFp, Cast::UiToFp],
        (true, false) => &[Cast::FpToSi, Cast::FpToUi],
        (true, true) if from.bits() > to.bits() => &[Cast::TruncF, Cast::FpToFpRtz],
        (true, true) if from.bits() < to.bits() => &[Cast::ExtF],
        (true, true) if from != to => &[Cast::FpToFp, Cast::FpToFpRtz],
        _ => return None,
    };
    let same = from.bits() == to.bits();
    let mut case = case(format!("cast {from} to {to}"), threads, from, to, ops.len() + usize::from(same), |b, [x, ..]| {
        let mut out: Vec<_> = ops.iter().map(|op| b.cast(*op, to, x)).collect();
        if same {
            out.push(b.cast(Cast::Bitcast, to, x));
        }
        out
    });
    if from.is_float() && to.is_int() {
        let values = samples(from, COUNT, 11);
        let inside = |op: &Cast, x: u64| {
            let x = scalar::float(from, x).trunc();
            let bits = to.bits() as i32;
            if *op == Cast::FpToSi { x >= -2f64.powi(bits - 1) && x < 2f64.powi(bits - 1) } else { x >= 0.0 && x < 2f64.powi(bits) }
        };
        let undefined = ops.iter().flat_map(|op| values.iter().map(move |x| !inside(op, *x))).collect();
        case.checks[3] = Some(Check { undefined, ..Check::exact(to) });
    }
    Some(case)
}

/// Constants of every type, stored.
pub fn literals(threads: u32) -> Vec<Case> {
    let of = |elem: Elem| {
        let values = samples(elem, 64, 77);
        let mut case = case(format!("literals {elem}"), threads, elem, elem, values.len() + 1, |b, _| {
            let mut out: Vec<_> = values.iter().map(|v| b.bits(elem, *v)).collect();
            out.push(b.inst(Ty::Elem(elem), Inst::Undef));
            out
        });
        let undefined = (0..(values.len() + 1) * COUNT).map(|i| i >= values.len() * COUNT).collect();
        case.checks[3] = Some(Check { undefined, ..Check::exact(elem) });
        case
    };
    Elem::ALL.iter().map(|e| of(*e)).collect()
}
