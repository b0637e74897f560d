//! Programs made at random: arithmetic, conversions, branches, loops, variables, shared memory and shuffles in any mixture.

use flagos_compiler::thread::build::Build;
use flagos_compiler::thread::{Effect, Inst, Kernel, Place, Shared, Shuffle, Stmt, Ty, Val, Var};
use flagos_compiler::tile::{Binary, Cast, CmpF, CmpI, Unary};
use flagos_compiler::Elem;

use crate::device::{agree, buffer, device, zeros};
use crate::shared::{Numbers, thread_index};

const THREADS: u32 = 32;
const ELEMS: [Elem; 7] = [Elem::I1, Elem::I8, Elem::I16, Elem::I32, Elem::I64, Elem::F32, Elem::F64];

/// Decides, and keeps the variables and arrays of the program.
struct Maker {
    numbers: Numbers,
    vars: Vec<(Elem, Var)>,
    arrays: Vec<(Elem, Shared)>,
    thread: Val,
    /// Statements left.
    budget: u32,
}

/// Values in sight, by the list that defined them.
type Pool = Vec<(Elem, Val)>;

impl Maker {
    fn below(&mut self, n: usize) -> usize {
        (self.numbers.next().unwrap() >> 20) as usize % n
    }
    fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }

    /// A value of a type: one in sight, or a constant.
    fn pick(&mut self, b: &mut Build<'_>, pool: &Pool, elem: Elem) -> Val {
        let found: Vec<Val> = pool.iter().filter(|p| p.0 == elem).map(|p| p.1).collect();
        if !found.is_empty() && self.below(6) > 0 {
            return self.one_of(&found);
        }
        let n = self.numbers.next().unwrap();
        match elem {
            Elem::F32 | Elem::F64 => b.float(elem, (n as i8) as f64 / 8.0),
            _ => b.bits(elem, if n.is_multiple_of(3) { n >> 32 } else { n % 9 }),
        }
    }

    /// Subnormal numbers, which devices may flush, become zero.
    fn settled(b: &mut Build<'_>, x: Val) -> Val {
        let elem = b.elem(x);
        let (least, zero, size) = (b.float(elem, 1e-30), b.float(elem, 0.0), b.unary(Unary::AbsF, x));
        let tiny = b.cmp_f(CmpF::Olt, size, least);
        b.select(tiny, zero, x)
    }

    fn expression(&mut self, b: &mut Build<'_>, pool: &Pool) -> (Elem, Val) {
        let elem = self.one_of(&ELEMS);
        let [x, y, z] = [0; 3].map(|_| self.pick(b, pool, elem));
        let compared = [CmpI::Eq, CmpI::Ne, CmpI::Slt, CmpI::Sle, CmpI::Ugt, CmpI::Uge];
        match self.below(8) {
            0 => {
                let condition = self.pick(b, pool, Elem::I1);
                (elem, b.select(condition, x, y))
            }
            1 if elem.is_int() => {
                let op = self.one_of(&compared);
                (Elem::I1, b.cmp_i(op, x, y))
            }
            1 => {
                let op = self.one_of(&[CmpF::Oeq, CmpF::Olt, CmpF::Oge, CmpF::One, CmpF::Ult, CmpF::Une, CmpF::Uno, CmpF::Ord]);
                (Elem::I1, b.cmp_f(op, x, y))
            }
            2 => self.conversion(b, elem, x),
            3 if elem.is_int() => {
                let op = self.one_of(&[Unary::AbsI, Unary::Ctlz, Unary::Cttz, Unary::Ctpop]);
                (elem, b.unary(op, x))
            }
            3 => {
                let op = self.one_of(&[Unary::NegF, Unary::AbsF, Unary::Floor, Unary::Ceil, Unary::Trunc, Unary::RoundEven, Unary::Round]);
                (elem, b.unary(op, x))
            }
            4 if elem.is_int() && elem != Elem::I1 => {
                // By zero, and by more than the width, is undefined.
                let op = self.one_of(&[Binary::DivS, Binary::DivU, Binary::RemS, Binary::RemU, Binary::CeilDivS, Binary::FloorDivS, Binary::Shl, Binary::ShrS, Binary::ShrU]);
                let low = b.binary_int(Binary::And, y, i64::from(elem.bits() - 1));
                let by = if matches!(op, Binary::Shl | Binary::ShrS | Binary::ShrU) { low } else { b.binary_int(Binary::Or, y, 1) };
                (elem, b.binary(op, x, by))
            }
            4 if elem.is_float() => {
                let fused = b.fma(x, y, z);
                (elem, Maker::settled(b, fused))
            }
            _ if elem.is_int() => {
                let op = self.one_of(&[
                    Binary::AddI, Binary::SubI, Binary::MulI, Binary::And, Binary::Or, Binary::Xor, Binary::MaxS, Binary::MinU, Binary::MaxU, Binary::MinS, Binary::MulHiU,
                ]);
                (elem, b.binary(op, x, y))
            }
            _ => {
                let op = self.one_of(&[Binary::AddF, Binary::SubF, Binary::MulF, Binary::MaximumF, Binary::MinimumF, Binary::MaxNumF, Binary::MinNumF, Binary::CopySign]);
                let out = b.binary(op, x, y);
                (elem, Maker::settled(b, out))
            }
        }
    }

    fn conversion(&mut self, b: &mut Build<'_>, from: Elem, x: Val) -> (Elem, Val) {
        let to = self.one_of(&ELEMS);
        let op = match (from.is_float(), to.is_float()) {
            _ if from == to => return (from, x),
            (false, false) if to.bits() < from.bits() => Cast::TruncI,
            (false, false) => self.one_of(&[Cast::ExtS, Cast::ExtU]),
            (false, true) => self.one_of(&[Cast::SiToFp, Cast::UiToFp]),
            (true, true) if to == Elem::F64 => Cast::ExtF,
            (true, true) => {
                let narrow = b.cast(Cast::TruncF, to, x);
                return (to, Maker::settled(b, narrow));
            }
            (true, false) => {
                // Through a range every integer type has; NaN is no number.
                let (low, high) = (b.float(from, 0.0), b.float(from, 1.0));
                let limited = b.binary(Binary::MaxNumF, x, low);
                let limited = b.binary(Binary::MinNumF, limited, high);
                let scale = b.float(from, if to == Elem::I1 { 1.0 } else { 100.0 });
                let scaled = b.binary(Binary::MulF, limited, scale);
                return (to, b.cast(Cast::FpToUi, to, scaled));
            }
        };
        (to, b.cast(op, to, x))
    }

    /// Statements; `uniform`: every thread is here.
    fn list(&mut self, b: &mut Build<'_>, pool: &mut Pool, uniform: bool, depth: u32) {
        let seen = pool.len();
        for _ in 0..3 + self.below(9) {
            if self.budget == 0 {
                break;
            }
            self.budget -= 1;
            match self.below(16) {
                0..=8 => {
                    let made = self.expression(b, pool);
                    pool.push(made);
                }
                9 => {
                    let (elem, var) = self.one_of(&self.vars.clone());
                    let value = self.pick(b, pool, elem);
                    b.set(var, 0, value);
                }
                10 => {
                    let (elem, var) = self.one_of(&self.vars.clone());
                    pool.push((elem, b.get(var, 0)));
                }
                11 if uniform => self.exchange(b, pool),
                12 if uniform => {
                    let elem = self.one_of(&ELEMS);
                    let (value, how) = (self.pick(b, pool, elem), self.one_of(&[Shuffle::Xor(1), Shuffle::Xor(2), Shuffle::Xor(4)]));
                    pool.push((elem, b.inst(Ty::Elem(elem), Inst::Shuffle(how, value, None))));
                }
                13 if depth < 3 => {
                    let condition = self.pick(b, pool, Elem::I1);
                    let [then, other] = [0; 2].map(|_| b.nested(|b| self.list(b, &mut pool.clone(), false, depth + 1)));
                    b.push(Stmt::If { condition, uniform: false, then, other });
                }
                14 if depth < 3 => {
                    let (low, high, step) = (b.i32(self.below(5) as i32 - 2), b.i32(self.below(7) as i32), b.i32(1 + self.below(3) as i32));
                    let index = b.kernel.value(Ty::Elem(Elem::I32));
                    let mut inner = pool.clone();
                    inner.push((Elem::I32, index));
                    let body = b.nested(|b| self.list(b, &mut inner, uniform, depth + 1));
                    b.push(Stmt::For { index, low, high, step, unsigned: false, uniform: true, unroll: self.below(2) as u32 * 2, body });
                }
                15 if depth < 3 => self.search(b, pool, depth),
                _ => {}
            }
        }
        // What a list defines is gone after it.
        if depth > 0 {
            pool.truncate(seen);
        }
    }

    /// A loop that each thread leaves when it likes, at last after a few rounds.
    fn search(&mut self, b: &mut Build<'_>, pool: &Pool, depth: u32) {
        let rounds = b.kernel.var(Ty::Elem(Elem::I32), 1);
        let zero = b.i32(0);
        b.set(rounds, 0, zero);
        let body = b.nested(|b| {
            let (now, most) = (b.get(rounds, 0), b.i32(5));
            let more = b.cmp_i(CmpI::Slt, now, most);
            b.push(Stmt::BreakUnless(more));
            let next = b.binary_int(Binary::AddI, now, 1);
            b.set(rounds, 0, next);
            let mut inner = pool.clone();
            for _ in 0..3 {
                let made = self.expression(b, &inner);
                inner.push(made);
            }
            self.list(b, &mut inner, false, depth + 1);
            let inner: Pool = inner[..pool.len()].to_vec();
            let (elem, var) = self.one_of(&self.vars.clone());
            let (old, other) = (b.get(var, 0), self.pick(b, &inner, elem));
            let on = if elem.is_int() { b.cmp_i(CmpI::Ne, old, other) } else { b.cmp_f(CmpF::Une, old, other) };
            b.push(Stmt::BreakUnless(on));
        });
        b.push(Stmt::Loop { uniform: false, body });
    }

    /// Each thread writes its element of a shared array and reads another's.
    fn exchange(&mut self, b: &mut Build<'_>, pool: &mut Pool) {
        let (elem, array) = self.one_of(&self.arrays.clone());
        let value = self.pick(b, pool, elem);
        b.effect(Effect::Barrier { global: false });
        b.store(Place::Shared { array, index: self.thread }, &[value]);
        b.effect(Effect::Barrier { global: false });
        let by = self.below(31) as i64;
        let other = b.binary_int(Binary::Xor, self.thread, by);
        pool.push((elem, b.load(Place::Shared { array, index: other }, 1)[0]));
    }
}

fn program(seed: u64, subgroup: u32) -> Kernel {
    let mut k = Kernel::new(&format!("random_{seed}"), THREADS, subgroup);
    let pointers: Vec<(Elem, Val, Val)> = ELEMS.iter().map(|e| (*e, k.param(Ty::Ptr(*e)), k.param(Ty::Ptr(*e)))).collect();
    let vars: Vec<(Elem, Var)> = ELEMS.iter().map(|e| (*e, k.var(Ty::Elem(*e), 1))).collect();
    let arrays: Vec<(Elem, Shared)> = ELEMS.iter().map(|e| (*e, k.shared_array(*e, THREADS))).collect();
    let mut b = Build::new(&mut k);
    let (i, thread) = (thread_index(&mut b), b.number(Elem::I32, Inst::ThreadId));
    let mut maker = Maker { numbers: Numbers(seed), vars, arrays, thread, budget: 150 };
    let mut pool: Pool = vec![(Elem::I32, i)];
    for (elem, from, _) in &pointers {
        let place = b.ptr_add(*from, i);
        let value = b.load(Place::Global { pointer: place, align: elem.bytes() }, 1)[0];
        let var = maker.vars.iter().find(|v| v.0 == *elem).expect("a variable").1;
        b.set(var, 0, value);
        pool.push((*elem, value));
    }
    while maker.budget > 0 {
        maker.list(&mut b, &mut pool, true, 0);
    }
    for (elem, _, to) in &pointers {
        let var = maker.vars.iter().find(|v| v.0 == *elem).expect("a variable").1;
        let (last, kept) = (maker.pick(&mut b, &pool, *elem), b.get(var, 0));
        let (odd, zero) = (b.binary_int(Binary::And, i, 1), b.i32(0));
        let even = b.cmp_i(CmpI::Eq, odd, zero);
        let out = b.select(even, last, kept);
        let place = b.ptr_add(*to, i);
        b.store(Place::Global { pointer: place, align: elem.bytes() }, &[out]);
    }
    k.body = b.finish();
    k
}

#[test]
fn programs_made_at_random_agree_with_the_interpreter() {
    let Some(device) = device() else { return };
    let count = std::env::var("FLAGOS_RANDOM_PROGRAMS").ok().and_then(|n| n.parse().ok()).unwrap_or(60);
    let first = std::env::var("FLAGOS_RANDOM_FIRST").ok().and_then(|n| n.parse().ok()).unwrap_or(1);
    // The last one compares a 64-bit constant with a sign-extended truth value.
    for seed in (first..first + count).chain([1881]) {
        let k = program(seed, device.1.subgroup.min(THREADS));
        let n = 2 * THREADS as usize;
        let input = |e: Elem| {
            let bits = Numbers(seed ^ 0x55).map(move |v| match e {
                Elem::I1 => v & 1,
                Elem::F32 => u64::from(((v as i16) as f32 / 64.0).to_bits()),
                Elem::F64 => ((v as i32) as f64 / 1024.0).to_bits(),
                _ => v,
            });
            buffer(e, bits.take(n))
        };
        let args: Vec<_> = ELEMS.iter().flat_map(|e| [input(*e), zeros(*e, n)]).collect();
        agree(device, &k, [2, 1, 1], &args, &ELEMS.iter().flat_map(|e| [*e; 2]).collect::<Vec<_>>());
    }
}
