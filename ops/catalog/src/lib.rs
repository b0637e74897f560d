//! What each libflagos operation means: the single source from which dispatch, validation, headers, tests and pages follow.
//!
//! An operator is a definition ([`Operator`]): signature, rules, numerics, cases, documentation and a reference in wide arithmetic.
//! Pointwise operators are rows ([`pointwise!`]): one scalar expression serves the reference, SIMD lanes and portable kernels.

pub mod activation;
pub mod arithmetic;
mod array;
pub mod attention;
mod attribute;
pub mod bitwise;
pub mod blas;
mod border;
mod call;
mod case;
pub mod comparison;
pub mod conv;
pub mod copy;
pub mod create;
mod double;
pub mod dtypes;
pub mod exponential;
pub mod fft;
pub mod index;
pub mod matmul;
pub mod norm;
pub mod numerics;
mod operator;
pub mod philox;
pub mod random;
pub mod reduction;
mod row;
mod scalar;
pub mod scan;
pub mod select;
pub mod shape;
pub mod softmax;
pub mod sort;
pub mod sum;
mod view;

use std::collections::HashMap;
use std::sync::LazyLock;

pub use array::*;
pub use attribute::*;
pub use border::takes;
pub use call::*;
pub use case::*;
pub use operator::*;
pub use row::*;
pub use scalar::*;
pub use view::View;

/// Families in the order of the catalogue.
const FAMILIES: &[&[&Operator]] = &[
    activation::OPERATORS,
    arithmetic::OPERATORS,
    exponential::OPERATORS,
    comparison::OPERATORS,
    bitwise::OPERATORS,
    select::OPERATORS,
    copy::OPERATORS,
    reduction::OPERATORS,
    softmax::OPERATORS,
    norm::OPERATORS,
    scan::OPERATORS,
    index::OPERATORS,
    create::OPERATORS,
    random::OPERATORS,
    sort::OPERATORS,
    matmul::OPERATORS,
    conv::OPERATORS,
    attention::OPERATORS,
];

struct Registry {
    all: Vec<&'static Operator>,
    by_id: Vec<Option<&'static Operator>>,
    by_name: HashMap<&'static str, &'static Operator>,
}

static REGISTRY: LazyLock<Registry> = LazyLock::new(|| {
    let all: Vec<&'static Operator> = FAMILIES.iter().flat_map(|f| f.iter().copied()).collect();
    let most = all.iter().map(|o| o.id).max().unwrap_or(0) as usize;
    let mut by_id = vec![None; most + 1];
    let mut by_name = HashMap::new();
    for o in &all {
        by_id[o.id as usize] = Some(*o);
        for alias in o.aten {
            by_name.entry(*alias).or_insert(*o);
        }
    }
    // Own names outrank other operators' aliases.
    by_name.extend(all.iter().map(|o| (o.name, *o)));
    Registry { all, by_id, by_name }
});

/// Every operator, family by family.
pub fn operators() -> &'static [&'static Operator] {
    &REGISTRY.all
}

/// The operator of a registry id.
pub fn by_id(id: u32) -> Option<&'static Operator> {
    REGISTRY.by_id.get(id as usize).copied().flatten()
}

/// The operator of a name or ATen alias.
pub fn find(name: &str) -> Option<&'static Operator> {
    REGISTRY.by_name.get(name).copied()
}

/// Visits every row of every family.
pub fn visit_rows<V: RowVisitor>(visitor: &mut V) {
    activation::visit(visitor);
    arithmetic::visit(visitor);
    exponential::visit(visitor);
    comparison::visit(visitor);
    bitwise::visit(visitor);
}

/// Memory one operand of a BLAS or FFT call touches, in bytes relative to its binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OperandSpan {
    /// Lowest byte.
    pub low_bytes: i64,
    /// One past the highest byte.
    pub high_bytes: i64,
    /// The call reads it.
    pub reads: bool,
    /// The call writes it.
    pub writes: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_names_are_unique_and_attributes_are_registered() {
        let mut ids = std::collections::HashSet::new();
        let mut names = std::collections::HashSet::new();
        for o in operators() {
            assert!(o.id > 0 && ids.insert(o.id), "id {} of {} is taken", o.id, o.name);
            assert!(names.insert(o.name), "{} is defined twice", o.name);
            for a in o.attributes {
                assert!(key_of(a.name).is_some(), "attribute '{}' of {} has no key", a.name, o.name);
            }
            assert!(!o.doc.is_empty() && !Cases::of(o).is_empty(), "{} lacks documentation or cases", o.name);
        }
    }

    #[test]
    fn every_case_passes_its_own_check_and_reference() {
        for o in operators() {
            for types in assignments(o) {
                for case in Cases::of(o).iter().filter(|c| c.tier == Tier::Smoke) {
                    let instance = case.instance(o, &types, 1).unwrap_or_else(|e| panic!("{}/{}: {e}", o.name, case.name));
                    instance.call.check().unwrap_or_else(|e| panic!("{}: {e}", instance.id));
                    let arrays: Vec<Array> =
                        instance.inputs.iter().map(|m| Array::decode(&m.tensor, &m.bytes, m.origin).unwrap()).collect();
                    let references = (o.reference)(&instance.call, &arrays).unwrap_or_else(|e| panic!("{}: {e}", instance.id));
                    assert_eq!(references.len(), instance.outputs.len(), "{}", instance.id);
                    // A reference rounded to the output type passes its own judgement.
                    for (r, m) in references.iter().zip(&instance.outputs) {
                        let mut bytes = m.bytes.clone();
                        r.value.encode(&m.tensor, &mut bytes, m.origin).unwrap_or_else(|e| panic!("{}: {e}", instance.id));
                        let got = Array::decode(&m.tensor, &bytes, m.origin).unwrap();
                        let verdict = numerics::judge(o.numerics, m.tensor.dtype, r, &got);
                        assert!(verdict.ok, "{}: {verdict:?}", instance.id);
                    }
                }
            }
        }
    }

    #[test]
    fn descriptors_round_trip() {
        for o in operators() {
            let types = &assignments(o)[0];
            let instance = Cases::of(o)[0].instance(o, types, 1).unwrap();
            // SAFETY: the descriptor is lent by a live call.
            let back = instance.call.with_abi(|op| unsafe { Call::from_abi(op) }).unwrap();
            assert_eq!(back.attrs.values, instance.call.attrs.values, "{}", o.name);
            assert_eq!(back.operator.id, o.id);
        }
    }
}
