//! Pointwise operators: the catalogue's rows, instantiated for tile values.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use flagos_backend_api::{DType, Result};
use flagos_catalog::dtypes::to_float;
use flagos_catalog::{ArithRow, Attrs, BitsRow, Call, FloatRow, RowVisitor, TestRow, visit_rows};
use flagos_compiler::build::Expr;
use flagos_compiler::{Elem, Target};

use crate::elementwise::Elementwise;
use crate::lane::{Real, Whole, within};
use crate::number::{compute, convert, memory, narrow, widen};
use crate::{Cook, Recipe, View};

/// A row's expression over values of one computing type.
type Eval = fn(&[Expr], &Attrs) -> Expr;

/// A row, by what it computes in.
#[derive(Clone, Copy)]
struct Row {
    name: &'static str,
    /// For floats; none for rows over bits.
    real: Option<Eval>,
    /// For integers; none for rows that need floats.
    whole: Option<Eval>,
    /// Truth values are masked after bitwise operations.
    bits: bool,
}

struct Rows(HashMap<u32, Row>);

fn reals<const N: usize>(x: &[Expr]) -> [Real; N] {
    core::array::from_fn(|i| Real(x[i]))
}
fn wholes<const N: usize>(x: &[Expr]) -> [Whole; N] {
    core::array::from_fn(|i| Whole(x[i]))
}

impl RowVisitor for Rows {
    fn float<const N: usize, R: FloatRow<N>>(&mut self) {
        let real: Eval = |x, a| R::eval(reals::<N>(x), a).0;
        self.0.insert(R::OPERATOR.id, Row { name: R::OPERATOR.name, real: Some(real), whole: None, bits: false });
    }
    fn arith<const N: usize, R: ArithRow<N>>(&mut self) {
        let (real, whole): (Eval, Eval) = (|x, a| R::eval(reals::<N>(x), a).0, |x, a| R::eval(wholes::<N>(x), a).0);
        self.0.insert(R::OPERATOR.id, Row { name: R::OPERATOR.name, real: Some(real), whole: Some(whole), bits: false });
    }
    fn test<const N: usize, R: TestRow<N>>(&mut self) {
        let (real, whole): (Eval, Eval) = (|x, a| R::eval(reals::<N>(x), a).0, |x, a| R::eval(wholes::<N>(x), a).0);
        self.0.insert(R::OPERATOR.id, Row { name: R::OPERATOR.name, real: Some(real), whole: Some(whole), bits: false });
    }
    fn bits<const N: usize, R: BitsRow<N>>(&mut self) {
        let whole: Eval = |x, a| R::eval(wholes::<N>(x), a).0;
        self.0.insert(R::OPERATOR.id, Row { name: R::OPERATOR.name, real: None, whole: Some(whole), bits: true });
    }
}

static ROWS: LazyLock<Rows> = LazyLock::new(|| {
    let mut rows = Rows(HashMap::new());
    visit_rows(&mut rows);
    rows
});

/// The family's recipes: one for every row.
pub fn recipes() -> Vec<(&'static str, Cook)> {
    ROWS.0.values().map(|row| (row.name, cook as Cook)).collect()
}

fn cook(call: &Call, target: &Target) -> Result<Recipe> {
    let row = ROWS.0[&call.operator.id];
    let promoted = call.promoted();
    let type_of = |t: DType| if row.whole.is_none() { to_float(t) } else { t };
    let of = type_of(promoted);
    let (eval, elem): (Eval, Elem) = match (row.real, row.whole) {
        (Some(real), _) if of.is_float() => (real, compute(of)),
        (_, Some(whole)) => {
            // Attributes are 64-bit numbers: beside them everything is computed in 64 bits.
            let wide = memory(of) == Elem::I64 || call.operator.attributes.iter().next().is_some();
            (whole, if wide { Elem::I64 } else { Elem::I32 })
        }
        (Some(real), None) => (real, compute(of)),
        (None, None) => unreachable!("a row has an expression"),
    };
    let (attrs, to) = (call.attrs.clone(), call.outputs[0].dtype);
    let from: Vec<DType> = call.inputs.iter().map(|t| t.dtype).collect();
    let mut key: String = from.iter().map(|t| format!("{t} ")).collect();
    key += to.name();
    attrs.iter().for_each(|(spec, value)| key += &format!(" {}={value:?}", spec.name));
    let mask_bits = row.bits && of.is_bool();
    let body = move |x: &[Expr]| {
        let x: Vec<Expr> = x.iter().zip(&from).map(|(v, t)| widen(convert(*v, *t, of), of, elem)).collect();
        let y = within(elem, || eval(&x, &attrs));
        narrow(if mask_bits { y & 1i64 } else { y }, to)
    };
    let entry = entry(call.operator.name);
    let inputs = (0..call.inputs.len()).map(|i| View::input(call, i)).collect();
    Elementwise { entry, key, inputs, output: View::output(call, 0), body: Arc::new(body), indirect: None }.recipe(target)
}

/// "k_" and an operator's name, for ever.
pub fn entry(name: &'static str) -> &'static str {
    static NAMES: LazyLock<HashMap<&'static str, &'static str>> =
        LazyLock::new(|| flagos_catalog::operators().iter().map(|o| (o.name, &*Box::leak(format!("k_{}", o.name).into_boxed_str()))).collect());
    NAMES[name]
}
