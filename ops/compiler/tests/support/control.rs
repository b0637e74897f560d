//! Branches, loops, variables and arrays.

use flagos_compiler::Elem;
use flagos_compiler::thread::build::Build;
use flagos_compiler::thread::{Effect, Inst, Kernel, Stmt, Ty, Val};
use flagos_compiler::tile::{Binary, Cast, CmpI};

use super::{Case, Check, Numbers, buffer, load, store, thread_index, zeros};

const I32: Ty = Ty::Elem(Elem::I32);
const COUNT: usize = 64;

fn case(name: &str, threads: u32, outputs: usize, f: impl FnOnce(&mut Build<'_>, Val, Val) -> Vec<Val>) -> Case {
    let mut kernel = Kernel::new(name, threads, 0);
    let (input, out) = (kernel.param(Ty::Ptr(Elem::I32)), kernel.param(Ty::Ptr(Elem::I32)));
    let mut b = Build::new(&mut kernel);
    let i = thread_index(&mut b);
    let x = load(&mut b, input, i);
    let results = f(&mut b, i, x);
    assert_eq!(results.len(), outputs);
    for (n, r) in results.into_iter().enumerate() {
        store(&mut b, out, i, n * COUNT, r);
    }
    kernel.body = b.finish();
    let args = vec![buffer(Elem::I32, Numbers(5).take(COUNT).map(|v| v % 40)), zeros(Elem::I32, outputs * COUNT)];
    Case { name: name.into(), kernel, grid: [COUNT as u32 / threads, 1, 1], args, checks: vec![None, Some(Check::exact(Elem::I32))] }
}

/// Adds to a variable.
fn accumulate(b: &mut Build<'_>, var: flagos_compiler::thread::Var, value: Val) {
    let old = b.get(var, 0);
    let new = b.binary(Binary::AddI, old, value);
    b.set(var, 0, new);
}

fn counted(b: &mut Build<'_>, elem: Elem, bounds: [i64; 3], dynamic: bool, unsigned: bool, unroll: u32, x: Val) -> Val {
    let sum = b.kernel.var(I32, 1);
    let zero = b.i32(0);
    b.set(sum, 0, zero);
    // x·0 hides a constant from the printer.
    let [low, high, step] = bounds.map(|v| {
        let constant = b.int(elem, v);
        if !dynamic {
            return constant;
        }
        let hidden = b.binary(Binary::MulI, x, zero);
        let hidden = if elem == Elem::I64 { b.cast(Cast::ExtS, elem, hidden) } else { hidden };
        b.binary(Binary::AddI, constant, hidden)
    });
    let index = b.kernel.value(Ty::Elem(elem));
    let body = b.nested(|b| {
        let i = if elem == Elem::I64 { b.cast(Cast::TruncI, Elem::I32, index) } else { index };
        let mixed = b.binary(Binary::Xor, i, x);
        let scaled = b.binary_int(Binary::MulI, mixed, 3);
        accumulate(b, sum, scaled);
    });
    b.push(Stmt::For { index, low, high, step, unsigned, uniform: true, unroll, body });
    b.get(sum, 0)
}

/// All cases.
pub fn cases(threads: u32) -> Vec<Case> {
    vec![loops(threads), branches(threads), search(threads), arrays(threads), swap(threads)]
}

/// Counted loops: constant and dynamic bounds, empty ones, ends at the edge of the type, both signs, both widths, unrolled.
fn loops(threads: u32) -> Case {
    let (least, most) = (i64::from(i32::MIN), i64::from(i32::MAX));
    let bounds: &[(Elem, [i64; 3], bool)] = &[
        (Elem::I32, [0, 8, 1], false),
        (Elem::I32, [3, 50, 7], false),
        (Elem::I32, [5, 5, 1], false),
        (Elem::I32, [9, -4, 2], false),
        (Elem::I32, [most - 10, most, 4], false),
        (Elem::I32, [least, least + 9, 4], false),
        (Elem::I32, [-3, 4, 1], false),
        (Elem::I32, [most - 2, 0xffff_ffff - most, 1], true),
        (Elem::I32, [0xffff_fff0, 0xffff_ffff, 5], true),
        (Elem::I64, [-2, 1 << 33, 1 << 31], false),
        (Elem::I64, [i64::MAX - 20, i64::MAX, 6], false),
        (Elem::I64, [0, 10, 1], false),
    ];
    case("loops", threads, bounds.len() * 2 + 2, |b, _, x| {
        let mut out = Vec::new();
        for (elem, bounds, unsigned) in bounds {
            out.push(counted(b, *elem, *bounds, false, *unsigned, 0, x));
            out.push(counted(b, *elem, *bounds, true, *unsigned, 0, x));
        }
        out.push(counted(b, Elem::I32, [0, 16, 1], false, false, 16, x));
        out.push(counted(b, Elem::I32, [0, 100, 3], true, false, 4, x));
        out
    })
}

/// Nested branches with and without an other side, whose results are kept in variables.
fn branches(threads: u32) -> Case {
    case("branches", threads, 1, |b, _, x| {
        let result = b.kernel.var(I32, 1);
        let zero = b.i32(0);
        b.set(result, 0, zero);
        let bounds = [10, 20, 30].map(|n| b.i32(n));
        let [low, middle, _] = bounds.map(|n| b.cmp_i(CmpI::Slt, x, n));
        let then = b.nested(|b| {
            let twice = b.binary_int(Binary::MulI, x, 2);
            b.set(result, 0, twice);
        });
        let other = b.nested(|b| {
            b.when(middle, false, |b| {
                let minus = b.binary_int(Binary::SubI, x, 100);
                b.set(result, 0, minus);
            });
        });
        b.push(Stmt::If { condition: low, uniform: false, then, other });
        vec![b.get(result, 0)]
    })
}

/// A loop that ends in the middle: the number of steps of Collatz's sequence, at most 50.
fn search(threads: u32) -> Case {
    case("search", threads, 2, |b, _, x| {
        let (n, steps) = (b.kernel.var(I32, 1), b.kernel.var(I32, 1));
        let (zero, one, most) = (b.i32(0), b.i32(1), b.i32(50));
        b.set(n, 0, x);
        b.set(steps, 0, zero);
        let body = b.nested(|b| {
            let (now, count) = (b.get(n, 0), b.get(steps, 0));
            let (large, few) = (b.cmp_i(CmpI::Sgt, now, one), b.cmp_i(CmpI::Slt, count, most));
            let go = b.binary(Binary::And, large, few);
            b.push(Stmt::BreakUnless(go));
            let half = b.binary_int(Binary::ShrS, now, 1);
            let triple = b.binary_int(Binary::MulI, now, 3);
            let triple = b.binary(Binary::AddI, triple, one);
            let odd = b.binary_int(Binary::And, now, 1);
            let odd = b.cmp_i(CmpI::Ne, odd, zero);
            let next = b.select(odd, triple, half);
            b.set(n, 0, next);
            accumulate(b, steps, one);
        });
        b.push(Stmt::Loop { uniform: false, body });
        vec![b.get(n, 0), b.get(steps, 0)]
    })
}

/// Array variables by constant and by dynamic index, of every kind of type.
fn arrays(threads: u32) -> Case {
    case("arrays", threads, 4, |b, i, x| {
        let (ints, floats, truths, halves) = (b.kernel.var(I32, 16), b.kernel.var(Ty::Elem(Elem::F32), 16), b.kernel.var(Ty::Elem(Elem::I1), 16), b.kernel.var(Ty::Elem(Elem::F16), 16));
        let (low, high, one) = (b.i32(0), b.i32(16), b.i32(1));
        b.count(low, high, one, 0, |b, n| {
            let value = b.binary(Binary::MulI, n, x);
            b.effect(Effect::SetAt(ints, n, value));
            let float = b.cast(Cast::SiToFp, Elem::F32, value);
            b.effect(Effect::SetAt(floats, n, float));
            let half = b.cast(Cast::TruncF, Elem::F16, float);
            b.effect(Effect::SetAt(halves, n, half));
            let even = b.cast(Cast::TruncI, Elem::I1, value);
            b.effect(Effect::SetAt(truths, n, even));
        });
        b.set(ints, 5, i);
        let at = b.binary_int(Binary::And, x, 15);
        let int = b.inst(I32, Inst::GetAt(ints, at));
        let float = b.inst(Ty::Elem(Elem::F32), Inst::GetAt(floats, at));
        let float = b.cast(Cast::FpToSi, Elem::I32, float);
        let half = b.inst(Ty::Elem(Elem::F16), Inst::GetAt(halves, at));
        let half = b.cast(Cast::Bitcast, Elem::I16, half);
        let half = b.cast(Cast::ExtU, Elem::I32, half);
        let truth = b.inst(Ty::Elem(Elem::I1), Inst::GetAt(truths, at));
        let (five, truth) = (b.get(ints, 5), b.cast(Cast::ExtS, Elem::I32, truth));
        let mixed = b.binary(Binary::Xor, five, truth);
        vec![int, float, half, mixed]
    })
}

/// Variables that a loop exchanges: each value is read before either is set.
fn swap(threads: u32) -> Case {
    case("swap", threads, 2, |b, i, x| {
        let (p, q) = (b.kernel.var(I32, 1), b.kernel.var(I32, 1));
        b.set(p, 0, i);
        b.set(q, 0, x);
        let (low, one) = (b.i32(0), b.i32(1));
        let index = b.kernel.value(I32);
        let body = b.nested(|b| {
            let (old_p, old_q) = (b.get(p, 0), b.get(q, 0));
            let sum = b.binary(Binary::AddI, old_p, index);
            b.set(p, 0, old_q);
            b.set(q, 0, sum);
        });
        b.push(Stmt::For { index, low, high: x, step: one, unsigned: false, uniform: false, unroll: 0, body });
        vec![b.get(p, 0), b.get(q, 0)]
    })
}
