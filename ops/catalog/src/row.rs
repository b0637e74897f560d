//! Pointwise operators as rows: one generic scalar expression each, visited by whoever instantiates it.

use core::num::Wrapping;

use flagos_backend_api::Result;

use crate::dtypes::to_float;
use crate::shape::broadcast_index;
use crate::{Arith, Array, Attrs, Bits, Call, Cases, Fill, Float, Layout, Operator, Reference, TensorCase};

/// A row whose expression needs real floating point; integer and bool inputs are promoted to f32.
pub trait FloatRow<const N: usize>: 'static {
    /// Its definition.
    const OPERATOR: &'static Operator;
    /// The expression, over the inputs in order.
    fn eval<S: Float>(x: [S; N], attrs: &Attrs) -> S;
    /// Terms of the forward-error bound, for rows judged by it.
    const TERMS: usize = 0;
    /// The forward-error scale at a point: the sum of the absolute values of what is added up.
    fn scale(_: [f64; N], _: &Attrs) -> f64 {
        0.0
    }
}

/// A row over any number type, result of the promoted input type.
pub trait ArithRow<const N: usize>: 'static {
    /// Its definition.
    const OPERATOR: &'static Operator;
    /// The expression, over the promoted inputs in order.
    fn eval<S: Arith>(x: [S; N], attrs: &Attrs) -> S;
    /// Terms of the forward-error bound, for rows judged by it.
    const TERMS: usize = 0;
    /// The forward-error scale at a point: the sum of the absolute values of what is added up.
    fn scale(_: [f64; N], _: &Attrs) -> f64 {
        0.0
    }
}

/// A row over any number type with a truth value as its result.
pub trait TestRow<const N: usize>: 'static {
    /// Its definition.
    const OPERATOR: &'static Operator;
    /// The expression, over the promoted inputs in order.
    fn eval<S: Arith>(x: [S; N], attrs: &Attrs) -> S::Mask;
}

/// A row over bit patterns: integers and bool.
pub trait BitsRow<const N: usize>: 'static {
    /// Its definition.
    const OPERATOR: &'static Operator;
    /// The expression, over the promoted inputs in order.
    fn eval<S: Bits>(x: [S; N], attrs: &Attrs) -> S;
}

/// Receives every row once, typed, so that a backend can instantiate it for its lanes and register the result by operator id.
pub trait RowVisitor {
    /// A floating-point row.
    fn float<const N: usize, R: FloatRow<N>>(&mut self);
    /// An arithmetic row.
    fn arith<const N: usize, R: ArithRow<N>>(&mut self);
    /// A row with a truth value as its result.
    fn test<const N: usize, R: TestRow<N>>(&mut self);
    /// A bitwise row.
    fn bits<const N: usize, R: BitsRow<N>>(&mut self);
}

/// Reference of a floating-point row: integers are converted to f32 first, as the operator's type rule says.
pub fn float_reference<const N: usize, R: FloatRow<N>>(call: &Call, x: &[Array]) -> Result<Vec<Reference>> {
    let columns = promoted(call, x);
    let shape = output_shape(call)?;
    let values = each(&shape, x, |at: [usize; N]| R::eval(core::array::from_fn(|i| columns[i][at[i]]), &call.attrs));
    let scale = each(&shape, x, |at: [usize; N]| R::scale(core::array::from_fn(|i| columns[i][at[i]]), &call.attrs));
    Ok(vec![Reference::scaled(Array::float(&shape, values), scale, R::TERMS)])
}

/// Reference of an arithmetic row: i128 for integers (wrapped when stored), f64 for floats.
pub fn arith_reference<const N: usize, R: ArithRow<N>>(call: &Call, x: &[Array]) -> Result<Vec<Reference>> {
    let shape = output_shape(call)?;
    if call.promoted().is_float() {
        let columns = promoted(call, x);
        let values = each(&shape, x, |at: [usize; N]| R::eval::<f64>(core::array::from_fn(|i| columns[i][at[i]]), &call.attrs));
        let scale = each(&shape, x, |at: [usize; N]| R::scale(core::array::from_fn(|i| columns[i][at[i]]), &call.attrs));
        return Ok(vec![Reference::scaled(Array::float(&shape, values), scale, R::TERMS)]);
    }
    let columns: Vec<Vec<i128>> = x.iter().map(Array::ints).collect();
    let values = each(&shape, x, |at: [usize; N]| R::eval(core::array::from_fn(|i| Wrapping(columns[i][at[i]])), &call.attrs).0);
    Ok(vec![Reference::exact(Array::int(&shape, values))])
}

/// Reference of a test row.
pub fn test_reference<const N: usize, R: TestRow<N>>(call: &Call, x: &[Array]) -> Result<Vec<Reference>> {
    let shape = output_shape(call)?;
    let values = if call.promoted().is_float() {
        let columns = promoted(call, x);
        each(&shape, x, |at: [usize; N]| i128::from(R::eval::<f64>(core::array::from_fn(|i| columns[i][at[i]]), &call.attrs)))
    } else {
        let columns: Vec<Vec<i128>> = x.iter().map(Array::ints).collect();
        each(&shape, x, |at: [usize; N]| i128::from(R::eval(core::array::from_fn(|i| Wrapping(columns[i][at[i]])), &call.attrs)))
    };
    Ok(vec![Reference::exact(Array::int(&shape, values))])
}

/// Reference of a bitwise row; on bool, `!` is the logical one.
pub fn bits_reference<const N: usize, R: BitsRow<N>>(call: &Call, x: &[Array]) -> Result<Vec<Reference>> {
    let shape = output_shape(call)?;
    let columns: Vec<Vec<i128>> = x.iter().map(Array::ints).collect();
    let mask = if call.promoted().is_bool() { 1 } else { -1 };
    let values = each(&shape, x, |at: [usize; N]| R::eval::<i128>(core::array::from_fn(|i| columns[i][at[i]]), &call.attrs) & mask);
    Ok(vec![Reference::exact(Array::int(&shape, values))])
}

/// Inputs converted to the type they are computed in.
fn promoted(call: &Call, x: &[Array]) -> Vec<Vec<f64>> {
    let to = to_float(call.promoted());
    x.iter().zip(&call.inputs).map(|(a, t)| if t.dtype == to { a.floats() } else { a.converted(to) }).collect()
}

fn output_shape(call: &Call) -> Result<Vec<usize>> {
    Ok(call.infer()?[0].1.iter().map(|n| *n as usize).collect())
}

/// Evaluates at every output element, given the flat index of each input's element.
fn each<const N: usize, T>(shape: &[usize], x: &[Array], f: impl Fn([usize; N]) -> T) -> Vec<T> {
    let n: usize = shape.iter().product();
    (0..n).map(|flat| f(core::array::from_fn(|i| broadcast_index(flat, shape, &x[i].shape)))).collect()
}

/// Cases of every row: layouts, broadcasting, empty and rank-0 tensors, special values.
pub fn row_cases(cases: &mut Cases) {
    let n = cases.operator().inputs.len();
    let fill = cases.row_fill();
    let all = |shape: &[i64], layout: Layout| vec![TensorCase::new(shape, layout, fill); n];
    cases.add("flat", all(&[257], Layout::Contiguous), &[]);
    cases.add("strided", all(&[5, 7, 9], Layout::Strided), &[]);
    cases.add("transposed", all(&[17, 33], Layout::Transposed), &[]);
    cases.add("offset", all(&[3, 65], Layout::Offset), &[]);
    cases.add("negative", all(&[4, 31], Layout::Negative), &[]);
    cases.add("scalar", all(&[], Layout::Contiguous), &[]);
    cases.add("empty", all(&[3, 0, 2], Layout::Contiguous), &[]);
    cases.add("rank8", all(&[1, 2, 1, 3, 2, 1, 2, 3], Layout::Strided), &[]);
    cases.add("special", vec![TensorCase::new(&[1024], Layout::Contiguous, Fill::Special); n], &[]);
    if n > 1 {
        let mut shapes = vec![TensorCase::new(&[4, 1, 33], Layout::Contiguous, fill); n];
        shapes[1] = TensorCase::new(&[6, 1], Layout::Offset, fill);
        cases.add("broadcast", shapes, &[]);
        let mut scalar = all(&[9, 16], Layout::Contiguous);
        scalar[n - 1] = TensorCase::new(&[], Layout::Contiguous, fill);
        cases.add("by-scalar", scalar, &[]);
    }
    cases.quick("large", all(&[100_003], Layout::Contiguous), &[]);
    cases.quick("large-strided", all(&[129, 257], Layout::Transposed), &[]);
    cases.full("huge", all(&[4_000_037], Layout::Contiguous), &[]);
    for (name, attrs) in cases.operator_variants() {
        let attrs: Vec<_> = attrs.iter().map(|(n, v)| (*n, v.clone())).collect();
        cases.add(name, all(&[11, 13], Layout::Contiguous), &attrs);
    }
    cases.bench("16M", all(&[1 << 24], Layout::Contiguous), &[]);
}

/// Declares rows. Each becomes an [`Operator`] constant, a unit struct with its expression, and a visit in the family's `visit`.
///
/// `kind` is `float`, `arith`, `test` or `bits`; `scale` gives the forward-error scale where `numerics` is `ForwardError`.
#[macro_export]
macro_rules! pointwise {
    (family $family:literal; $(
        $(#[doc = $doc:literal])*
        $id:literal $Name:ident $name:literal ( $($x:ident),* ) $kind:ident $types:expr, $numerics:expr $(, attrs $attrs:expr)?
            $(, aten $aten:expr)? $(, onnx $onnx:literal)? $(, special $special:literal)?
            => |$a:pat_param| $body:expr $(; scale |$b:pat_param| $scale:expr)? ;
    )*) => {
        $( $crate::pointwise!(@row $kind, [$($x),*], $Name, $id, $name, $family, $types, $numerics, [$($attrs)?], [$($aten)?], [$($onnx)?], [$($special)?],
            concat!($($doc, " "),*), $a, $body, [$($b, $scale)?]); )*
        /// The family's operators.
        pub const OPERATORS: &[&$crate::Operator] = &[$($Name::DEFINITION),*];
        /// Visits the family's rows.
        pub fn visit<V: $crate::RowVisitor>(visitor: &mut V) {
            $( visitor.$kind::<{ $crate::pointwise!(@count $($x),*) }, $Name>(); )*
        }
    };
    (@count $a:ident) => { 1 };
    (@count $a:ident, $b:ident) => { 2 };
    (@count $a:ident, $b:ident, $c:ident) => { 3 };
    (@or [], $default:expr) => { $default };
    (@or [$given:expr], $default:expr) => { $given };
    (@out float) => { $crate::TypeRule::PromotedFloat };
    (@out arith) => { $crate::TypeRule::Promoted };
    (@out test) => { $crate::TypeRule::Any($crate::dtypes::BOOL) };
    (@out bits) => { $crate::TypeRule::Promoted };
    (@reference float, $n:expr, $Name:ident) => { $crate::float_reference::<{ $n }, $Name> };
    (@reference arith, $n:expr, $Name:ident) => { $crate::arith_reference::<{ $n }, $Name> };
    (@reference test, $n:expr, $Name:ident) => { $crate::test_reference::<{ $n }, $Name> };
    (@reference bits, $n:expr, $Name:ident) => { $crate::bits_reference::<{ $n }, $Name> };
    (@scale $n:expr, ) => {};
    (@scale $n:expr, $b:pat_param, $scale:expr) => {
        const TERMS: usize = 4;
        fn scale(x: [f64; $n], attrs: &$crate::Attrs) -> f64 { let _ = attrs; let $b = (x, attrs); $scale }
    };
    (@impl float, $n:expr, $Name:ident, $a:pat_param, $body:expr, [$($scale:tt)*]) => {
        impl $crate::FloatRow<{ $n }> for $Name {
            const OPERATOR: &'static $crate::Operator = $Name::DEFINITION;
            #[inline(always)]
            fn eval<S: $crate::Float>(x: [S; $n], attrs: &$crate::Attrs) -> S { let $a = (x, attrs); $body }
            $crate::pointwise!(@scale $n, $($scale)*);
        }
    };
    (@impl arith, $n:expr, $Name:ident, $a:pat_param, $body:expr, [$($scale:tt)*]) => {
        impl $crate::ArithRow<{ $n }> for $Name {
            const OPERATOR: &'static $crate::Operator = $Name::DEFINITION;
            #[inline(always)]
            fn eval<S: $crate::Arith>(x: [S; $n], attrs: &$crate::Attrs) -> S { let $a = (x, attrs); $body }
            $crate::pointwise!(@scale $n, $($scale)*);
        }
    };
    (@impl test, $n:expr, $Name:ident, $a:pat_param, $body:expr, []) => {
        impl $crate::TestRow<{ $n }> for $Name {
            const OPERATOR: &'static $crate::Operator = $Name::DEFINITION;
            #[inline(always)]
            fn eval<S: $crate::Arith>(x: [S; $n], attrs: &$crate::Attrs) -> S::Mask { let $a = (x, attrs); $body }
        }
    };
    (@impl bits, $n:expr, $Name:ident, $a:pat_param, $body:expr, []) => {
        impl $crate::BitsRow<{ $n }> for $Name {
            const OPERATOR: &'static $crate::Operator = $Name::DEFINITION;
            #[inline(always)]
            fn eval<S: $crate::Bits>(x: [S; $n], attrs: &$crate::Attrs) -> S { let $a = (x, attrs); $body }
        }
    };
    (@row $kind:ident, [$($x:ident),*], $Name:ident, $id:literal, $name:literal, $family:literal, $types:expr, $numerics:expr, $attrs:tt, $aten:tt, $onnx:tt,
        $special:tt, $doc:expr, $a:pat_param, $body:expr, $scale:tt) => {
        #[doc = $doc]
        pub struct $Name;
        impl $Name {
            /// The definition.
            pub const DEFINITION: &'static $crate::Operator = &$crate::Operator {
                name: $name, id: $id, revision: 1, family: $family,
                aten: $crate::pointwise!(@or $aten, &[]), onnx: $crate::pointwise!(@or $onnx, ""),
                inputs: &[$($crate::Operand::new(stringify!($x), $crate::TypeRule::Promote($types), "any shape that broadcasts")),*],
                outputs: &[$crate::Operand::new("y", $crate::pointwise!(@out $kind), "the broadcast shape")],
                attributes: $crate::pointwise!(@or $attrs, &[]),
                infer: $crate::shape::pointwise, check: $crate::shape::no_check, in_place: true, numerics: $numerics,
                special: $crate::pointwise!(@or $special, "IEEE 754: NaN in, NaN out; integers wrap"),
                cases: $crate::row_cases,
                reference: $crate::pointwise!(@reference $kind, $crate::pointwise!(@count $($x),*), $Name),
                flops: $crate::shape::flops_per_element, doc: $doc,
            };
        }
        $crate::pointwise!(@impl $kind, $crate::pointwise!(@count $($x),*), $Name, $a, $body, $scale);
    };
}
