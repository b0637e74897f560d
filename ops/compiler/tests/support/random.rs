//! Thread programs at random: arithmetic on all types, conversions, nested branches and loops, variables and arrays, shared memory, masked accesses.
//!
//! Only what is defined is generated: divisors are odd, shift amounts are masked, floats are brought into range before they become integers, and
//! the bits and sign of a NaN are not looked at.

use flagos_compiler::Elem;
use flagos_compiler::thread::build::Build;
use flagos_compiler::thread::{Effect, Inst, Kernel, Place, Shared, Stmt, Ty, Val, Var};
use flagos_compiler::tile::{Binary, Cast, CmpF, CmpI, Unary};

use super::{Case, Check, Numbers, at, buffer, samples, thread_index, zeros};

/// Types of inputs and outputs.
const TYPES: [Elem; 9] = [Elem::I1, Elem::I8, Elem::I16, Elem::I32, Elem::I64, Elem::F16, Elem::BF16, Elem::F32, Elem::F64];
/// Threads of all blocks; elements of a buffer's row.
const COUNT: usize = 64;
/// Values of each type that are stored.
const STORED: usize = 3;

struct Maker {
    numbers: Numbers,
    /// Values in scope, by the place of their type in [`TYPES`].
    pools: Vec<Vec<Val>>,
    vars: Vec<(usize, Var)>,
    arrays: Vec<(usize, Var)>,
    inputs: Vec<Val>,
    index: Val,
    /// Statements left to make.
    left: u32,
}

impl Maker {
    fn below(&mut self, n: usize) -> usize {
        (self.numbers.next().unwrap() >> 33) as usize % n
    }

    fn pick<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())]
    }

    fn any(&mut self, ty: usize) -> Val {
        let n = self.pools[ty].len();
        // Late values more often, so that chains grow.
        let at = self.below(n).max(self.below(n));
        self.pools[ty][at]
    }

    fn constant(&mut self, b: &mut Build<'_>, ty: usize) -> Val {
        let seed = self.numbers.next().unwrap();
        let values = samples(TYPES[ty], 8, seed);
        let value = self.pick(&values);
        b.bits(TYPES[ty], value)
    }

    /// A number that is no NaN, of type f32 or f64.
    fn number(&mut self, b: &mut Build<'_>, ty: usize) -> Val {
        let x = self.any(ty);
        let one = b.float(TYPES[ty], 1.0);
        b.binary(Binary::MaxNumF, x, one)
    }

    fn value(&mut self, b: &mut Build<'_>, ty: usize) -> Val {
        let elem = TYPES[ty];
        match self.below(8) {
            0 => self.constant(b, ty),
            1 => {
                let (c, x, y) = (self.any(0), self.any(ty), self.any(ty));
                b.select(c, x, y)
            }
            2 => self.conversion(b, ty),
            3 => self.remembered(b, ty),
            _ => match elem {
                Elem::I1 => self.comparison(b),
                Elem::F16 | Elem::BF16 => self.conversion(b, ty),
                Elem::F32 | Elem::F64 => self.float(b, ty),
                _ => self.integer(b, ty),
            },
        }
    }

    fn comparison(&mut self, b: &mut Build<'_>) -> Val {
        const INT: [CmpI; 10] = [CmpI::Eq, CmpI::Ne, CmpI::Slt, CmpI::Sle, CmpI::Sgt, CmpI::Sge, CmpI::Ult, CmpI::Ule, CmpI::Ugt, CmpI::Uge];
        const FLOAT: [CmpF; 8] = [CmpF::Oeq, CmpF::Ogt, CmpF::Ole, CmpF::One, CmpF::Ueq, CmpF::Ugt, CmpF::Une, CmpF::Uno];
        if self.below(2) == 0 {
            let (op, ty) = (self.pick(&INT), self.below(5));
            let (x, y) = (self.any(ty), self.any(ty));
            return b.cmp_i(op, x, y);
        }
        let (op, ty) = (self.pick(&FLOAT), 7 + self.below(2));
        let (x, y) = (self.any(ty), self.any(ty));
        b.cmp_f(op, x, y)
    }

    fn integer(&mut self, b: &mut Build<'_>, ty: usize) -> Val {
        const PLAIN: [Binary; 11] = [
            Binary::AddI, Binary::SubI, Binary::MulI, Binary::MulHiU, Binary::And, Binary::Or, Binary::Xor, Binary::MaxS, Binary::MaxU, Binary::MinS, Binary::MinU,
        ];
        const DIVIDE: [Binary; 6] = [Binary::DivS, Binary::DivU, Binary::RemS, Binary::RemU, Binary::CeilDivS, Binary::FloorDivS];
        const SHIFT: [Binary; 3] = [Binary::Shl, Binary::ShrS, Binary::ShrU];
        const COUNT: [Unary; 4] = [Unary::AbsI, Unary::Ctlz, Unary::Cttz, Unary::Ctpop];
        let (x, y) = (self.any(ty), self.any(ty));
        match self.below(10) {
            0 | 1 => {
                let (op, odd) = (self.pick(&DIVIDE), b.binary_int(Binary::Or, y, 1));
                b.binary(op, x, odd)
            }
            2 | 3 => {
                let (op, amount) = (self.pick(&SHIFT), b.binary_int(Binary::And, y, i64::from(TYPES[ty].bits() - 1)));
                b.binary(op, x, amount)
            }
            4 => {
                let op = self.pick(&COUNT);
                b.unary(op, x)
            }
            _ => {
                let op = self.pick(&PLAIN);
                b.binary(op, x, y)
            }
        }
    }

    fn float(&mut self, b: &mut Build<'_>, ty: usize) -> Val {
        const TWO: [Binary; 9] = [
            Binary::AddF, Binary::SubF, Binary::MulF, Binary::DivF, Binary::RemF, Binary::MaximumF, Binary::MinimumF, Binary::MaxNumF, Binary::MinNumF,
        ];
        const ONE: [Unary; 8] = [Unary::NegF, Unary::AbsF, Unary::Sqrt, Unary::Floor, Unary::Ceil, Unary::Trunc, Unary::RoundEven, Unary::Round];
        let (x, y) = (self.any(ty), self.any(ty));
        match self.below(8) {
            0 | 1 => {
                let op = self.pick(&ONE);
                b.unary(op, x)
            }
            2 => {
                let z = self.any(ty);
                b.fma(x, y, z)
            }
            3 => {
                let (x, y) = (self.number(b, ty), self.number(b, ty));
                b.binary(Binary::CopySign, x, y)
            }
            _ => {
                let op = self.pick(&TWO);
                b.binary(op, x, y)
            }
        }
    }

    fn conversion(&mut self, b: &mut Build<'_>, ty: usize) -> Val {
        let to = TYPES[ty];
        let from_ty = self.below(TYPES.len());
        let (from, x) = (TYPES[from_ty], self.any(from_ty));
        match (from.is_float(), to.is_float()) {
            _ if from == to => x,
            (false, false) if from.bits() > to.bits() => b.cast(Cast::TruncI, to, x),
            (false, false) => {
                let op = self.pick(&[Cast::ExtS, Cast::ExtU]);
                b.cast(op, to, x)
            }
            (false, true) => {
                let op = self.pick(&[Cast::SiToFp, Cast::UiToFp]);
                b.cast(op, to, x)
            }
            (true, true) if from.bits() > to.bits() => b.cast(Cast::TruncF, to, x),
            (true, true) if from.bits() < to.bits() => b.cast(Cast::ExtF, to, x),
            (true, true) => b.cast(Cast::FpToFp, to, x),
            (true, false) => {
                // From 1 to the greatest number the type surely holds.
                let x = self.number(b, 7);
                let most = b.float(Elem::F32, if to == Elem::I1 { 1.0 } else { 2f64.powi(to.bits() as i32 - 2) });
                let x = b.binary(Binary::MinNumF, x, most);
                b.cast(Cast::FpToUi, to, x)
            }
        }
    }

    /// From a variable, an array or an input.
    fn remembered(&mut self, b: &mut Build<'_>, ty: usize) -> Val {
        let elem = TYPES[ty];
        let vars: Vec<Var> = self.vars.iter().filter(|v| v.0 == ty).map(|v| v.1).collect();
        let arrays: Vec<Var> = self.arrays.iter().filter(|v| v.0 == ty).map(|v| v.1).collect();
        match self.below(3) {
            0 if !vars.is_empty() => {
                let var = self.pick(&vars);
                b.get(var, 0)
            }
            1 if !arrays.is_empty() => {
                let (array, index) = (self.pick(&arrays), self.any(3));
                let index = b.binary_int(Binary::And, index, 7);
                b.inst(Ty::Elem(elem), Inst::GetAt(array, index))
            }
            _ => {
                let index = self.any(3);
                let index = b.binary_int(Binary::And, index, COUNT as i64 - 1);
                let address = b.ptr_add(self.inputs[ty], index);
                let place = at(b, address);
                let (mask, other) = (self.any(0), self.any(ty));
                b.inst(Ty::Elem(elem), Inst::Load { place, mask: Some(mask), other: Some(vec![other]), volatile: false })
            }
        }
    }

    fn scope(&mut self, b: &mut Build<'_>, f: impl FnOnce(&mut Maker, &mut Build<'_>)) -> Vec<Stmt> {
        let sizes: Vec<usize> = self.pools.iter().map(Vec::len).collect();
        let list = b.nested(|b| f(self, b));
        for (pool, size) in self.pools.iter_mut().zip(sizes) {
            pool.truncate(size);
        }
        list
    }

    fn statements(&mut self, b: &mut Build<'_>, count: u32, depth: u32) {
        for _ in 0..count {
            if self.left == 0 {
                return;
            }
            self.left -= 1;
            match self.below(if depth < 3 { 12 } else { 9 }) {
                0 if !self.vars.is_empty() => {
                    let n = self.below(self.vars.len());
                    let (ty, var) = self.vars[n];
                    let value = self.any(ty);
                    b.set(var, 0, value);
                }
                1 if !self.arrays.is_empty() => {
                    let n = self.below(self.arrays.len());
                    let (ty, array) = self.arrays[n];
                    let (index, value) = (self.any(3), self.any(ty));
                    let index = b.binary_int(Binary::And, index, 7);
                    b.effect(Effect::SetAt(array, index, value));
                }
                9 => {
                    let condition = self.any(0);
                    let then = self.scope(b, |m, b| m.statements(b, 6, depth + 1));
                    let other = if self.below(2) == 0 { Vec::new() } else { self.scope(b, |m, b| m.statements(b, 6, depth + 1)) };
                    b.push(Stmt::If { condition, uniform: false, then, other });
                }
                10 => self.counted(b, depth),
                11 => self.endless(b, depth),
                _ => {
                    let ty = self.below(TYPES.len());
                    let value = self.value(b, ty);
                    self.pools[ty].push(value);
                }
            }
        }
    }

    fn counted(&mut self, b: &mut Build<'_>, depth: u32) {
        let (low, most) = (self.any(3), self.below(5) as i64);
        let (low, step) = (b.binary_int(Binary::And, low, 15), self.below(4) as i32 + 1);
        let (high, step) = (b.binary_int(Binary::AddI, low, most * 2), b.i32(step));
        let index = b.kernel.value(Ty::Elem(Elem::I32));
        let unsigned = self.below(2) == 0;
        let body = self.scope(b, |m, b| {
            m.pools[3].push(index);
            m.statements(b, 5, depth + 1);
        });
        b.push(Stmt::For { index, low, high, step, unsigned, uniform: false, unroll: 0, body });
    }

    /// A loop of at most a few rounds that ends in its middle.
    fn endless(&mut self, b: &mut Build<'_>, depth: u32) {
        let rounds = b.kernel.var(Ty::Elem(Elem::I32), 1);
        let (zero, most) = (b.i32(0), b.i32(self.below(4) as i32));
        b.set(rounds, 0, zero);
        let body = self.scope(b, |m, b| {
            m.statements(b, 2, depth + 1);
            let old = b.get(rounds, 0);
            let next = b.binary_int(Binary::AddI, old, 1);
            b.set(rounds, 0, next);
            let few = b.cmp_i(CmpI::Slt, old, most);
            let also = m.any(0);
            let go = b.binary(Binary::And, few, also);
            b.push(Stmt::BreakUnless(go));
            m.statements(b, 3, depth + 1);
        });
        b.push(Stmt::Loop { uniform: false, body });
    }

    /// Every thread leaves a value in shared memory and takes its neighbour's.
    fn exchange(&mut self, b: &mut Build<'_>, array: Shared, ty: usize) {
        let thread = b.inst(Ty::Elem(Elem::I32), Inst::ThreadId);
        let value = self.any(ty);
        b.effect(Effect::Barrier { global: false });
        b.store(Place::Shared { array, index: thread }, &[value]);
        b.effect(Effect::Barrier { global: false });
        let next = b.binary_int(Binary::AddI, thread, 1);
        let index = b.binary_int(Binary::And, next, i64::from(b.kernel.threads - 1));
        let taken = b.load(Place::Shared { array, index }, 1)[0];
        self.pools[ty].push(taken);
    }
}

/// A program of some hundred statements for `threads`, a power of two up to 64; one seed, one program.
pub fn program(seed: u64, threads: u32) -> Case {
    let mut kernel = Kernel::new("random", threads, 0);
    let inputs: Vec<Val> = TYPES.iter().map(|e| kernel.param(Ty::Ptr(*e))).collect();
    let outputs: Vec<Val> = TYPES.iter().map(|e| kernel.param(Ty::Ptr(*e))).collect();
    let scalars: Vec<Val> = TYPES.iter().map(|e| kernel.param(Ty::Elem(*e))).collect();
    let arrays: Vec<Shared> = TYPES.iter().map(|e| kernel.shared_array(*e, threads)).collect();
    let mut b = Build::new(&mut kernel);
    let index = thread_index(&mut b);
    let mut m = Maker { numbers: Numbers(seed), pools: scalars.iter().map(|s| vec![*s]).collect(), vars: Vec::new(), arrays: Vec::new(), inputs, index, left: 160 };
    for (ty, elem) in TYPES.into_iter().enumerate() {
        let address = b.ptr_add(m.inputs[ty], m.index);
        let place = at(&b, address);
        let value = b.load(place, 1)[0];
        m.pools[ty].push(value);
        let (var, array) = (b.kernel.var(Ty::Elem(elem), 1), b.kernel.var(Ty::Elem(elem), 8));
        b.set(var, 0, value);
        (0..8).for_each(|n| b.set(array, n, value));
        m.vars.push((ty, var));
        m.arrays.push((ty, array));
    }
    while m.left > 0 {
        m.statements(&mut b, 20, 0);
        let ty = m.below(TYPES.len());
        m.exchange(&mut b, arrays[ty], ty);
    }
    for (ty, output) in outputs.into_iter().enumerate() {
        let last: Vec<Val> = m.pools[ty].iter().rev().take(STORED - 1).copied().collect();
        let var = b.get(m.vars[ty].1, 0);
        for (n, value) in last.into_iter().chain([var]).enumerate() {
            super::store(&mut b, output, index, n * COUNT, value);
        }
    }
    kernel.body = b.finish();
    let truth = |e: Elem, v: u64| if e == Elem::I1 { v & 1 } else { v };
    let mut args: Vec<_> = TYPES.iter().map(|e| buffer(*e, samples(*e, COUNT, seed ^ 1).into_iter().map(|v| truth(*e, v)))).collect();
    args.extend(TYPES.iter().map(|e| zeros(*e, STORED * COUNT)));
    args.extend(TYPES.iter().map(|e| flagos_compiler::run::Arg::Scalar(samples(*e, 4, seed)[3])));
    let mut checks: Vec<Option<Check>> = vec![None; TYPES.len()];
    checks.extend(TYPES.iter().map(|e| Some(Check::exact(*e))));
    checks.extend(vec![None; TYPES.len()]);
    Case { name: format!("random program {seed}"), kernel, grid: [COUNT as u32 / threads, 1, 1], args, checks }
}
