//! The catalogue's pointwise rows, instantiated for lanes of each type and instruction set.

use core::marker::PhantomData;

use flagos_backend_api::{DType, Error, Result};
use flagos_catalog::{ArithRow, AttrKind, Attrs, BitsRow, Call, Float, FloatRow, Operator, RowVisitor, TestRow, visit_rows};

use crate::block::{BlockFn, Step, block_fn};
use crate::kernel::Kernel;
use crate::kind::Kind;
use crate::lanes::{F32, F64, Lane, Truth};
use crate::lanes_int::{Int, Pattern, Whole};
use crate::ops::Registry;
use crate::pointwise::Pointwise;
use crate::target::{Isa, Target};

/// Offers every row.
pub fn add(registry: &mut Registry) {
    visit_rows(&mut Rows(registry));
}

struct Rows<'a>(&'a mut Registry);

impl RowVisitor for Rows<'_> {
    fn float<const N: usize, R: FloatRow<N>>(&mut self) {
        self.0.add(R::OPERATOR, |call, target| {
            let (t, block) = match Kind::of(call.promoted()) {
                Some(Kind::F64) => (DType::F64, block_fn::<N, Floating<R, F64<false>>, Floating<R, F64<true>>>(target.isa)),
                _ => (DType::F32, block_fn::<N, Floating<R, F32<false>>, Floating<R, F32<true>>>(target.isa)),
            };
            plan::<N>(call, target, t, t, block)
        });
    }
    fn arith<const N: usize, R: ArithRow<N>>(&mut self) {
        self.0.add(R::OPERATOR, |call, target| {
            let t = compute_type(call.promoted());
            let block = match Kind::of(t) {
                Some(Kind::F32) => block_fn::<N, Arithmetic<R, F32<false>>, Arithmetic<R, F32<true>>>(target.isa),
                Some(Kind::F64) => block_fn::<N, Arithmetic<R, F64<false>>, Arithmetic<R, F64<true>>>(target.isa),
                Some(Kind::I8) => arith_int::<N, R, i8>(target.isa),
                Some(Kind::I16) => arith_int::<N, R, i16>(target.isa),
                Some(Kind::I32) => arith_int::<N, R, i32>(target.isa),
                Some(Kind::I64) => arith_int::<N, R, i64>(target.isa),
                Some(Kind::U8) => arith_int::<N, R, u8>(target.isa),
                _ => return Err(refusal(call, t)),
            };
            plan::<N>(call, target, t, t, block)
        });
    }
    fn test<const N: usize, R: TestRow<N>>(&mut self) {
        self.0.add(R::OPERATOR, |call, target| {
            let t = compute_type(call.promoted());
            let block = match Kind::of(t) {
                Some(Kind::F32) => block_fn::<N, Test<R, F32<false>>, Test<R, F32<true>>>(target.isa),
                Some(Kind::F64) => block_fn::<N, Test<R, F64<false>>, Test<R, F64<true>>>(target.isa),
                Some(Kind::I8) => test_int::<N, R, i8>(target.isa),
                Some(Kind::I16) => test_int::<N, R, i16>(target.isa),
                Some(Kind::I32) => test_int::<N, R, i32>(target.isa),
                Some(Kind::I64) => test_int::<N, R, i64>(target.isa),
                Some(Kind::U8 | Kind::Bool) => test_int::<N, R, u8>(target.isa),
                _ => return Err(refusal(call, t)),
            };
            plan::<N>(call, target, t, DType::BOOL, block)
        });
    }
    fn bits<const N: usize, R: BitsRow<N>>(&mut self) {
        self.0.add(R::OPERATOR, |call, target| {
            let t = call.promoted();
            let block = match Kind::of(t) {
                Some(Kind::I8) => bits_int::<N, R, i8, false>(target.isa),
                Some(Kind::I16) => bits_int::<N, R, i16, false>(target.isa),
                Some(Kind::I32) => bits_int::<N, R, i32, false>(target.isa),
                Some(Kind::I64) => bits_int::<N, R, i64, false>(target.isa),
                Some(Kind::U8) => bits_int::<N, R, u8, false>(target.isa),
                Some(Kind::Bool) => bits_int::<N, R, u8, true>(target.isa),
                _ => return Err(refusal(call, t)),
            };
            plan::<N>(call, target, t, t, block)
        });
    }
}

/// The type rows of a promoted type are computed in.
fn compute_type(t: DType) -> DType {
    if t.is_float() && t != DType::F64 { DType::F32 } else { t }
}

fn refusal(call: &Call, t: DType) -> Error {
    Error::unimplemented(format!("{} has no kernel for {t} here", call.operator.name))
}

fn plan<const N: usize>(call: &Call, target: &Target, from: DType, to: DType, block: BlockFn) -> Result<Box<dyn Kernel>> {
    Ok(Box::new(Pointwise::new(call, target, &[from; N], to, block)?))
}

fn arith_int<const N: usize, R: ArithRow<N>, T: Whole>(isa: Isa) -> BlockFn {
    block_fn::<N, ArithmeticInt<R, T>, ArithmeticInt<R, T>>(isa)
}

fn test_int<const N: usize, R: TestRow<N>, T: Whole>(isa: Isa) -> BlockFn {
    block_fn::<N, TestInt<R, T>, TestInt<R, T>>(isa)
}

fn bits_int<const N: usize, R: BitsRow<N>, T: Whole, const BOOL: bool>(isa: Isa) -> BlockFn
where
    Pattern<T, BOOL>: flagos_catalog::Bits,
{
    block_fn::<N, Bitwise<R, T, BOOL>, Bitwise<R, T, BOOL>>(isa)
}

/// A floating-point lane and its way to f64 and back.
trait FloatLane: Lane + Float<Mask = Truth> + 'static {
    /// Narrower than f64, so that intermediate results may overflow where f64's do not.
    const NARROW: bool;
    fn widen(item: Self::Item) -> f64;
    fn narrow(value: f64) -> Self::Item;
}
impl<const FMA: bool> FloatLane for F32<FMA> {
    const NARROW: bool = true;
    #[inline(always)]
    fn widen(item: f32) -> f64 {
        item.into()
    }
    #[inline(always)]
    fn narrow(value: f64) -> f32 {
        value as f32
    }
}
impl<const FMA: bool> FloatLane for F64<FMA> {
    const NARROW: bool = false;
    #[inline(always)]
    fn widen(item: f64) -> f64 {
        item
    }
    #[inline(always)]
    fn narrow(value: f64) -> f64 {
        value
    }
}

const fn choices(operator: &Operator) -> usize {
    match operator.attributes {
        [first, ..] => match first.kind {
            AttrKind::Choice { names, .. } => names.len(),
            _ => 1,
        },
        [] => 1,
    }
}

/// Whether a compound row's result is no number although an operand is so great that an intermediate result may have overflowed.
#[inline(always)]
fn overflowed<const N: usize, L: FloatLane>(compound: bool, x: [L; N], y: L) -> bool {
    if !compound || !L::NARROW {
        return false;
    }
    let great = |x: L| x.abs().gt(L::lit(1e9)).is & x.abs().lt(L::lit(f64::INFINITY)).is;
    !y.abs().lt(L::lit(f64::INFINITY)).is & x.into_iter().fold(false, |any, x| any | great(x))
}

struct Floating<R, L>(PhantomData<(R, L)>);
impl<const N: usize, R: FloatRow<N>, L: FloatLane> Step<N> for Floating<R, L> {
    type Lane = L;
    type Out = L::Item;
    const CHOICES: usize = choices(R::OPERATOR);
    #[inline(always)]
    fn eval(x: [L; N], attrs: &Attrs) -> (L::Item, bool) {
        let y = R::eval(x, attrs);
        (y.item(), y.hard() | overflowed(R::TERMS > 0, x, y))
    }
    fn exact(x: [L::Item; N], attrs: &Attrs) -> L::Item {
        L::narrow(R::eval(x.map(L::widen), attrs))
    }
}

struct Arithmetic<R, L>(PhantomData<(R, L)>);
impl<const N: usize, R: ArithRow<N>, L: FloatLane> Step<N> for Arithmetic<R, L> {
    type Lane = L;
    type Out = L::Item;
    #[inline(always)]
    fn eval(x: [L; N], attrs: &Attrs) -> (L::Item, bool) {
        let y = R::eval(x, attrs);
        (y.item(), y.hard() | overflowed(R::TERMS > 0, x, y))
    }
    fn exact(x: [L::Item; N], attrs: &Attrs) -> L::Item {
        L::narrow(R::eval(x.map(L::widen), attrs))
    }
}

struct Test<R, L>(PhantomData<(R, L)>);
impl<const N: usize, R: TestRow<N>, L: FloatLane> Step<N> for Test<R, L> {
    type Lane = L;
    type Out = u8;
    #[inline(always)]
    fn eval(x: [L; N], attrs: &Attrs) -> (u8, bool) {
        let y = R::eval(x, attrs);
        (y.is.into(), y.hard)
    }
    fn exact(x: [L::Item; N], attrs: &Attrs) -> u8 {
        R::eval(x.map(L::widen), attrs).into()
    }
}

/// Implements `exact` for steps that never ask for it.
macro_rules! never_hard {
    () => {
        fn exact(x: [<Self::Lane as Lane>::Item; N], attrs: &Attrs) -> Self::Out {
            Self::eval(x.map(Self::Lane::load), attrs).0
        }
    };
}

struct ArithmeticInt<R, T>(PhantomData<(R, T)>);
impl<const N: usize, R: ArithRow<N>, T: Whole> Step<N> for ArithmeticInt<R, T> {
    type Lane = Int<T>;
    type Out = T;
    #[inline(always)]
    fn eval(x: [Int<T>; N], attrs: &Attrs) -> (T, bool) {
        (R::eval(x, attrs).item(), false)
    }
    never_hard!();
}

struct TestInt<R, T>(PhantomData<(R, T)>);
impl<const N: usize, R: TestRow<N>, T: Whole> Step<N> for TestInt<R, T> {
    type Lane = Int<T>;
    type Out = u8;
    #[inline(always)]
    fn eval(x: [Int<T>; N], attrs: &Attrs) -> (u8, bool) {
        (R::eval(x, attrs).is.into(), false)
    }
    never_hard!();
}

struct Bitwise<R, T, const BOOL: bool>(PhantomData<(R, T)>);
impl<const N: usize, R: BitsRow<N>, T: Whole, const BOOL: bool> Step<N> for Bitwise<R, T, BOOL>
where
    Pattern<T, BOOL>: flagos_catalog::Bits,
{
    type Lane = Pattern<T, BOOL>;
    type Out = T;
    #[inline(always)]
    fn eval(x: [Pattern<T, BOOL>; N], attrs: &Attrs) -> (T, bool) {
        (R::eval(x, attrs).item(), false)
    }
    never_hard!();
}
