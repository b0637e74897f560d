//! Property tests: an operator on random extents, layouts, attributes and contents, with failures shrunk to the smallest call.

use std::cell::RefCell;
use std::collections::BTreeMap;

use flagos_backend_api::{DType, Tensor};
use flagos_catalog::{Assignment, AttrKind, AttrValue, Call, Case, Cases, Fill, Instance, Layout, Numerics, Operator, TensorCase, Tier};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

use crate::bench::Bench;
use crate::check::Check;
use crate::execute::{call, task};
use crate::outcome::{CaseResult, Failure, Status};

/// Most elements of a tensor; the reference is slow.
const MOST_ELEMENTS: i64 = 20_000;

/// What is drawn: every choice as an index or an extent, so that it shrinks to the first and the smallest.
#[derive(Clone, Debug)]
struct Draw {
    /// Which case gives the structure.
    case: usize,
    /// A new extent for each different extent of that case.
    extents: Vec<i64>,
    /// A layout for each input.
    layouts: Vec<usize>,
    /// Contents for each input: 0 as in the case, 1 special values, 2 ties.
    fills: Vec<usize>,
    /// A value for each integer attribute; 0 as in the case.
    integers: Vec<i64>,
    /// Seed of contents.
    seed: u64,
}

const LAYOUTS: [Layout; 6] = [Layout::Contiguous, Layout::Offset, Layout::Strided, Layout::Transposed, Layout::Repeated, Layout::Negative];

fn draws(cases: usize) -> impl Strategy<Value = Draw> {
    // Extents around vector widths and powers of two, where kernels change their path.
    let extent = prop_oneof![4 => 1..9i64, 3 => 1..40i64, 2 => proptest::sample::select(vec![15i64, 16, 17, 31, 32, 33, 63, 64, 65, 127, 129, 257]), 1 => Just(0i64)];
    (
        0..cases,
        proptest::collection::vec(extent, 8),
        proptest::collection::vec(0..LAYOUTS.len(), 4),
        proptest::collection::vec(0..3usize, 4),
        proptest::collection::vec(-3..4i64, 4),
        any::<u64>(),
    )
        .prop_map(|(case, extents, layouts, fills, integers, seed)| Draw { case, extents, layouts, fills, integers, seed })
}

/// The call of a draw; `None` where the operator does not take it.
fn instance(operator: &'static Operator, types: &Assignment, cases: &[Case], draw: &Draw) -> Option<Instance> {
    let mut names: BTreeMap<i64, i64> = BTreeMap::new();
    // One extent is renamed alike everywhere, so that what must agree still agrees; 1 stays, for it broadcasts.
    let mut rename = |n: i64| {
        let next = names.len();
        if n <= 1 { n } else { *names.entry(n).or_insert_with(|| draw.extents[next % draw.extents.len()]) }
    };
    let mut case = cases[draw.case].clone();
    // Only where the operator's own case asks about them: elsewhere a cast of NaN, or an infinite factor, has no defined result.
    let special = case.inputs.iter().any(|i| i.fill == Fill::Special);
    let sums = matches!(operator.numerics, Numerics::ForwardError);
    for (i, input) in case.inputs.iter_mut().enumerate() {
        if let Some(shape) = input.shape.as_mut().filter(|_| input.fill != Fill::Seed) {
            shape.iter_mut().for_each(|n| *n = rename(*n));
            if shape.iter().product::<i64>() > MOST_ELEMENTS {
                return None;
            }
        }
        input.layout = LAYOUTS[draw.layouts[i % draw.layouts.len()]];
        let free = matches!(input.fill, Fill::Spread | Fill::Normal);
        match draw.fills[i % draw.fills.len()] {
            1 if free && special => input.fill = Fill::Special,
            2 if free => input.fill = Fill::Ties,
            _ => {}
        }
        // Whether a sum of extremes overflows on its way depends on its order, which is free.
        if sums && input.fill == Fill::Special {
            input.fill = Fill::Among(NOT_ORDINARY);
        }
    }
    if let Some(shape) = &mut case.out_shape {
        shape.iter_mut().for_each(|n| *n = rename(*n));
    }
    // Indices stay within the extent they were made for.
    for input in &mut case.inputs {
        if let Fill::Ints(low, high) = &mut input.fill
            && let Some(n) = names.get(&(*high + 1))
        {
            (*low, *high) = (if *low < 0 { -n } else { 0 }, n - 1);
            if *n == 0 {
                return None;
            }
        }
    }
    for (_, value) in &mut case.attrs {
        if let AttrValue::Ints(list) = value {
            list.iter_mut().for_each(|n| *n = names.get(n).copied().unwrap_or(*n));
        }
    }
    for (i, spec) in operator.attributes.iter().enumerate() {
        let drawn = draw.integers[i % draw.integers.len()];
        let value = match spec.kind {
            AttrKind::Int { min, max, .. } if drawn != 0 => AttrValue::Int(drawn.clamp(min, max)),
            AttrKind::Bool { .. } if drawn != 0 => AttrValue::Int(drawn & 1),
            AttrKind::Choice { names, .. } if drawn != 0 => AttrValue::Int(drawn.rem_euclid(names.len() as i64)),
            _ => continue,
        };
        case.attrs.retain(|(name, _)| *name != spec.name);
        case.attrs.push((spec.name, value));
    }
    // Outputs may be far larger than inputs; look before anything is allocated.
    let dtype = |i: usize| types.inputs[i.min(types.inputs.len() - 1)];
    let tensor = |(i, c): (usize, &TensorCase)| c.shape.as_ref().map_or(Tensor::NONE, |shape| Tensor::contiguous(dtype(i), shape));
    let inputs: Vec<Tensor> = case.inputs.iter().enumerate().map(tensor).collect();
    let mut call = Call::new(operator, &inputs, &[], &case.attrs).ok()?;
    if let Some(shape) = &case.out_shape {
        call.outputs = vec![Tensor::contiguous(if types.free == DType::NONE { dtype(0) } else { types.free }, shape)];
    }
    let small = |shape: &[i64]| shape.iter().try_fold(1i64, |n, d| n.checked_mul(*d)).is_some_and(|n| n <= MOST_ELEMENTS);
    if !call.infer().ok()?.iter().all(|(_, shape)| small(shape)) {
        return None;
    }
    let instance = case.instance(operator, types, draw.seed).ok()?;
    instance.call.check().is_ok().then_some(instance)
}

/// Special values that no order of summation makes others of.
const NOT_ORDINARY: &[f64] = &[f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0, -0.0];

/// Tries an operator in given types on random calls. The failure that is told is the smallest that was found.
pub fn operator(bench: &Bench, operator: &'static Operator, types: &Assignment, id: &str) -> CaseResult {
    let cases: Vec<Case> = Cases::of(operator).into_iter().filter(|c| c.tier != Tier::Bench).collect();
    let tries = if bench.tier >= Tier::Full { 256 } else { 48 };
    let worst = RefCell::new(CaseResult::new(id, Status::Unsupported));
    let mut seed = [0u8; 32];
    let mut rng = flagos_catalog::Rng::named(bench.seed, id);
    seed.chunks_mut(8).for_each(|c| c.copy_from_slice(&rng.bits().to_le_bytes()));
    let config = Config { cases: tries, max_shrink_iters: 512, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &seed));
    let outcome = runner.run(&draws(cases.len()), |draw| {
        let Some(task) = instance(operator, types, &cases, &draw).map(|i| task(bench, i)) else { return Ok(()) };
        // Contents out of range (an index beyond its axis) are no valid call.
        if task.references().is_err() {
            return Ok(());
        }
        let result = call(bench, &task, None);
        match result.status {
            Status::Pass => {
                let mut kept = worst.borrow_mut();
                if kept.status == Status::Unsupported {
                    *kept = CaseResult { worst: kept.worst, ..result.clone() };
                }
                kept.worst = crate::outcome::Worst::max(kept.worst, result.worst);
                Ok(())
            }
            Status::Fail => Err(TestCaseError::fail(result.failures.first().map_or_else(String::new, |f| f.message.clone()))),
            Status::Unsupported | Status::Skipped => {
                let mut kept = worst.borrow_mut();
                if kept.status == Status::Unsupported {
                    kept.reason.clone_from(&result.reason);
                }
                Ok(())
            }
        }
    });
    let mut result = worst.into_inner();
    match outcome {
        Ok(()) => {}
        Err(TestError::Abort(reason)) => result.add([Failure::new(Check::Property, format!("the property test stopped: {reason}"))]),
        Err(TestError::Fail(_, draw)) => {
            // The smallest call once more, for its own checks.
            if let Some(smallest) = instance(operator, types, &cases, &draw) {
                let smallest = task(bench, smallest);
                let again = call(bench, &smallest, None);
                let at = smallest.describe();
                result.add(again.failures.into_iter().map(|f| Failure::new(f.check, format!("{} in {at}", f.message))));
            }
            if result.failures.is_empty() {
                result.add([Failure::new(Check::Property, format!("a call failed once and then passed: {draw:?}"))]);
            }
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use proptest::strategy::ValueTree;

    use super::*;

    #[test]
    fn draws_make_valid_calls_of_every_operator_in_every_type() {
        let mut runner = TestRunner::deterministic();
        for operator in flagos_catalog::operators() {
            let cases: Vec<Case> = Cases::of(operator).into_iter().filter(|c| c.tier != Tier::Bench).collect();
            let types = &flagos_catalog::assignments(operator)[0];
            let strategy = draws(cases.len());
            let made = (0..64).filter(|_| {
                let draw = strategy.new_tree(&mut runner).unwrap().current();
                instance(operator, types, &cases, &draw).is_some()
            });
            let made = made.count();
            assert!(made >= 8, "{}: {made} of 64 draws are valid calls", operator.name);
        }
    }
}
