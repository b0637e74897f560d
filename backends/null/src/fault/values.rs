//! Defects of operators: of what is offered, of results, and of the memory a launch touches.

use std::sync::{Arc, Mutex, PoisonError};

use flagos_backend_api::vendor::Answered;
use flagos_backend_api::{Answer, BlasDesc, BlasTrans, DType, Error, FftDesc, Result, Tensor};
use flagos_catalog::blas::Scalars;
use flagos_catalog::numerics::{max_of, round_to, ulp_of};
use flagos_catalog::shape::{axis, split};
use flagos_catalog::{Array, Call, Data, View, for_each_offset};

use super::queues::{odd_call, touch_buffers};
use super::{Fault, is};
use crate::plan::{Launch, MOST_OPERANDS, Program, Work, span};
use crate::worker::Place;

/// Bytes of workspace a plan asks for.
pub fn workspace_bytes() -> u64 {
    if is(Fault::WorkspaceOverrun) || is(Fault::WorkspaceDirty) { 64 } else { 0 }
}

/// Answer of a query.
pub fn answered(answer: Answered) -> Answered {
    if is(Fault::TouchesRefused) {
        touch_buffers();
    }
    let refuses = is(Fault::SupportLiesNo) || is(Fault::RefusalCode) || is(Fault::TouchesRefused) || is(Fault::QueryFlips) && odd_call();
    if refuses { Answered { answer: Answer::NO, reason: "the planted fault wants it", ..answer } } else { answer }
}

/// A call that passed all checks is planned.
pub fn planned() -> Result<()> {
    if is(Fault::PanicsInPlan) {
        panic!("plan panics, as the planted fault wants it");
    }
    let refused = Error::unimplemented("refused, as the planted fault wants it");
    if is(Fault::RefusalCode) {
        return Err(Error { code: flagos_backend_api::Code::INTERNAL, ..refused });
    }
    if is(Fault::SupportLiesYes) || is(Fault::TouchesRefused) { Err(refused) } else { Ok(()) }
}

/// Where the operands of a launch lie.
pub fn bound(program: &Program, places: &mut [Option<Place>; MOST_OPERANDS]) {
    if is(Fault::OffsetWrong)
        && let (Some(view), Some(place)) = (program.operands.first().filter(|v| !v.writes), &mut places[0])
    {
        place.offset = place.offset.saturating_sub(view.tensor.dtype.bytes() as u64);
    }
}

/// A BLAS call that passed all checks.
pub fn blas(desc: &mut BlasDesc) {
    for trans in [&mut desc.trans_a, &mut desc.trans_b] {
        if is(Fault::ConjIgnored) && *trans == BlasTrans::CONJ_TRANS.0 {
            *trans = BlasTrans::TRANS.0;
        }
    }
}

/// A transform that passed all checks.
pub fn fft(desc: &mut FftDesc) {
    if is(Fault::FftDirection) {
        desc.direction = 3 - desc.direction;
    }
    if is(Fault::FftScale) {
        desc.scale = 1.0;
    }
}

/// alpha and beta of a launch.
pub fn scalars(scalars: Scalars) -> Scalars {
    if is(Fault::AlphaIgnored) { Scalars { alpha: None, ..scalars } } else { scalars }
}

/// The descriptor an input is read by.
pub fn layout(program: &Program, view: &View) -> Tensor {
    let t = &view.tensor;
    if is(Fault::LdaIgnored) && matches!(program.work, Work::Blas(_)) && t.rank == 3 {
        let mut dense = *t;
        if t.stride[2] == 1 { dense.stride[1] = t.shape[2] } else { dense.stride[2] = t.shape[1] }
        return dense;
    }
    let flat = Tensor::contiguous(t.dtype, t.shape());
    let inside = t.stride().iter().all(|s| *s >= 0) && flat.extent().zip(t.extent()).is_some_and(|(f, t)| f.1 <= t.1);
    if is(Fault::MissedStride) && inside { flat } else { *t }
}

/// Inputs as they were read.
pub fn inputs(program: &Program, inputs: &mut [Array]) {
    for (view, x) in program.operands.iter().zip(inputs.iter_mut()).filter(|(v, _)| v.reads && is(Fault::NegativeStride)) {
        let t = &view.tensor;
        (0..t.rank as usize).filter(|d| t.stride[*d] < 0).for_each(|d| reverse(x, d));
    }
    let Work::Operator(call) = &program.work else { return };
    let family = call.operator.family;
    for x in &mut inputs[..call.inputs.len()] {
        let rows = ["activation", "arithmetic", "exponential", "comparison", "bitwise", "select"].contains(&family);
        if is(Fault::BroadcastIgnored) && rows && call.outputs[0].elems() as usize > x.len() && x.len() > 1 {
            let n = x.len();
            permute(x, call.outputs[0].elems() as usize, |i| i % n);
            x.shape = call.outputs[0].shape().iter().map(|n| *n as usize).collect();
        }
    }
    let products = family == "matmul" || call.operator.name == "permute_copy";
    let turned = is(Fault::SwappedTranspose) && products || is(Fault::WrongAxis) && family == "reduction";
    if turned && let [.., rows, columns] = inputs[0].shape[..] {
        permute(&mut inputs[0], inputs_len(rows, columns, call.inputs[0].elems()), |i| {
            let (page, at) = (i / (rows * columns), i % (rows * columns));
            page * rows * columns + at % columns * rows + at / columns
        });
    }
}

/// Elements of an array of matrices; none when a matrix has none.
fn inputs_len(rows: usize, columns: usize, elems: i64) -> usize {
    if rows * columns == 0 { 0 } else { elems as usize }
}

/// Results before they are stored.
pub fn results(launch: &Launch, inputs: &[Array], results: &mut [(usize, Array)]) {
    let operands = &launch.program.operands;
    for (i, result) in results.iter_mut() {
        elements(operands[*i].tensor.dtype, result);
    }
    let Some((at, result)) = results.first_mut() else { return };
    let (first, place) = (&operands[*at], &launch.places[*at]);
    match &launch.program.work {
        Work::Operator(call) if is(Fault::SoftmaxOverflow) && call.operator.name == "softmax" => naive_softmax(call, &inputs[0], result),
        Work::Operator(call) if is(Fault::LastTie) && call.operator.name.starts_with("arg") => last_tie(call, inputs, result),
        // 0·NaN is NaN.
        Work::Blas(_) if is(Fault::BetaReadsC) && first.reads && launch.scalars().is_ok_and(|s| s.beta.is_none_or(|b| b.norm() == 0.0)) => {
            let old = inputs[*at].floats();
            match &mut result.data {
                Data::Float(v) => v.iter_mut().zip(old).for_each(|(y, c)| *y += 0.0 * c),
                Data::Complex(v) => v.iter_mut().zip(old).for_each(|(y, c)| y.re += 0.0 * c),
                Data::Int(_) => {}
            }
        }
        _ => {}
    }
    if is(Fault::WrongLastElement) && !result.is_empty() {
        bump(result, first.tensor.dtype, result.len() - 1, 1.0);
    }
    if is(Fault::Nondeterministic) && !result.is_empty() && odd_call() {
        bump(result, first.tensor.dtype, 0, 0.0);
    }
    if is(Fault::StaleOutput) && !result.is_empty() && place.as_ref().is_some_and(|p| byte(p, 0) % 2 == 1) {
        bump(result, first.tensor.dtype, 0, 1.0);
    }
    if is(Fault::WorkspaceDirty) && !result.is_empty() && launch.workspace.as_ref().is_some_and(|w| byte(w, 0) != 0) {
        bump(result, first.tensor.dtype, 0, 1.0);
    }
    let shared = launch.places[0].as_ref().zip(place.as_ref()).is_some_and(|(a, b)| Arc::ptr_eq(&a.block, &b.block) && a.offset == b.offset);
    if is(Fault::InPlaceWrong) && shared {
        let mut again = inputs.to_vec();
        again[0] = result.clone();
        if let Some((_, twice)) = launch.scalars().and_then(|s| launch.program.compute(s, &again)).ok().and_then(|r| r.into_iter().next()) {
            *result = twice;
        }
    }
    if is(Fault::StalePlan) {
        static FIRST: Mutex<Vec<(usize, Array)>> = Mutex::new(Vec::new());
        let (mut first, plan) = (FIRST.lock().unwrap_or_else(PoisonError::into_inner), Arc::as_ptr(&launch.program) as usize);
        match first.iter().find(|(p, a)| *p == plan && a.shape == result.shape) {
            Some((_, kept)) => result.clone_from(kept),
            None => first.push((plan, result.clone())),
        }
    }
}

/// Stores a result in its own way, if a fault has one.
pub fn store(t: &Tensor, value: &Array, bytes: &mut [u8], origin: usize) -> Option<Result<()>> {
    let mut places = Vec::new();
    for_each_offset(t, |offset| places.push((origin as i64 + offset * t.dtype.bytes() as i64) as usize));
    if is(Fault::UnwrittenTail) {
        let last = *places.last()?;
        let old = bytes[last..last + t.dtype.bytes()].to_vec();
        let stored = value.encode(t, bytes, origin);
        bytes[last..last + t.dtype.bytes()].copy_from_slice(&old);
        return Some(stored);
    }
    if is(Fault::BoolNotNormalised) && t.dtype.is_bool() {
        let stored = value.encode(t, bytes, origin);
        places.iter().for_each(|p| bytes[*p] = 0u8.wrapping_sub(bytes[*p]));
        return Some(stored);
    }
    None
}

/// A launch has stored its results.
pub fn ran(launch: &Launch) {
    let operands = || launch.program.operands.iter().zip(&launch.places).filter_map(|(o, p)| Some((o, p.as_ref()?)));
    if let Some((input, place)) = operands().find(|(v, _)| v.reads && !v.writes).filter(|_| is(Fault::ModifiesInput)) {
        flip(place, span(input, &input.tensor).0);
    }
    if let Some((output, place)) = operands().find(|(v, _)| v.writes) {
        let (low, high) = span(output, &output.tensor);
        if is(Fault::GuardBefore) {
            flip(place, low - 1);
        }
        if is(Fault::GuardAfter) {
            flip(place, high);
        }
        if is(Fault::WritesGap) {
            gaps(output).for_each(|at| flip(place, at));
        }
    }
    if let Some(workspace) = launch.workspace.as_ref().filter(|_| is(Fault::WorkspaceOverrun)) {
        flip(workspace, workspace_bytes() as i64);
    }
}

/// Bytes between the elements of an operand, relative to its binding.
fn gaps(view: &View) -> impl Iterator<Item = i64> {
    let t = view.tensor;
    let mut own = std::collections::HashSet::new();
    let width = t.dtype.bytes() as i64;
    for_each_offset(&t, |offset| own.extend((view.origin + offset) * width..(view.origin + offset + 1) * width));
    let (low, high) = span(view, &t);
    (low..high).filter(move |at| !own.contains(at))
}

fn byte(place: &Place, at: i64) -> u8 {
    // SAFETY: operands and workspaces of a launch have at least one byte, and streams order this task on them.
    unsafe { place.block.read(place.offset.wrapping_add_signed(at), 1)[0] }
}

fn flip(place: &Place, at: i64) {
    if let Some(offset) = place.offset.checked_add_signed(at).filter(|o| *o < place.block.bytes()) {
        // SAFETY: the byte lies within the block; a defect is what this is.
        unsafe { place.block.write(offset, 1)[0] ^= 0xff };
    }
}

/// Defects of single values.
fn elements(t: DType, result: &mut Array) {
    match &mut result.data {
        Data::Float(v) if t.is_float() => v.iter_mut().for_each(|x| *x = float(t, *x)),
        Data::Int(v) if is(Fault::IntSaturates) && t.is_int() => {
            let low = if t.is_signed_int() { -1i128 << (t.bits - 1) } else { 0 };
            let high = low + (1i128 << t.bits) - 1;
            v.iter_mut().for_each(|x| *x = (*x).clamp(low, high));
        }
        _ => {}
    }
}

fn float(t: DType, x: f64) -> f64 {
    if is(Fault::UlpOff) && x.is_finite() {
        let near = round_to(t, x);
        return near + ulp_of(t, near);
    }
    if is(Fault::NanDropped) && x.is_nan() || is(Fault::SignedZero) && x == 0.0 {
        return 0.0;
    }
    if is(Fault::InfSaturated) && x.is_infinite() {
        return max_of(t).copysign(x);
    }
    // Least subnormal over 2^(1-p): the least normal.
    let least = ulp_of(t, 0.0) / ulp_of(t, 1.0);
    if is(Fault::DenormalFlush) && x.abs() < least {
        return 0.0f64.copysign(x);
    }
    if is(Fault::Fp64InFp32) && t == DType::F64 { f64::from(x as f32) } else { x }
}

/// Adds `by`, or one unit in the last place where it is 0. Infinity and NaN become 0.
fn bump(result: &mut Array, t: DType, index: usize, by: f64) {
    let change = |x: f64| {
        let near = round_to(t, x);
        if !near.is_finite() { 0.0 } else if by == 0.0 { near + ulp_of(t, near) } else { near + by * ulp_of(t, near).max(1.0) }
    };
    match &mut result.data {
        Data::Float(v) => v[index] = change(v[index]),
        Data::Int(v) => v[index] ^= 1,
        Data::Complex(v) => v[index].re += 1.0,
    }
}

/// Replaces the elements by those at other places.
fn permute(x: &mut Array, len: usize, from: impl Fn(usize) -> usize) {
    match &mut x.data {
        Data::Float(v) => *v = (0..len).map(|i| v[from(i)]).collect(),
        Data::Int(v) => *v = (0..len).map(|i| v[from(i)]).collect(),
        Data::Complex(v) => *v = (0..len).map(|i| v[from(i)]).collect(),
    }
}

/// Reverses an axis.
fn reverse(x: &mut Array, axis: usize) {
    let (_, n, inner) = split(&x.shape, axis);
    let len = x.len();
    permute(x, len, |i| {
        let (o, j, k) = (i / (n * inner), i / inner % n, i % inner);
        (o * n + n - 1 - j) * inner + k
    });
}

fn naive_softmax(call: &Call, x: &Array, y: &mut Array) {
    let (Ok(dim), Data::Float(y)) = (axis(call, call.attrs.int("dim"), x.shape.len()), &mut y.data) else { return };
    let (outer, n, inner) = split(&x.shape, dim);
    let (v, t) = (x.floats(), call.inputs[0].dtype);
    for row in (0..outer * inner).map(|r| (r / inner * n) * inner + r % inner) {
        let e: Vec<f64> = (0..n).map(|j| round_to(t, v[row + j * inner].exp())).collect();
        let total: f64 = e.iter().sum();
        (0..n).for_each(|j| y[row + j * inner] = e[j] / total);
    }
}

fn last_tie(call: &Call, inputs: &[Array], result: &mut Array) {
    let mut turned = inputs[..call.inputs.len()].to_vec();
    let n = match call.attrs.ints("dims") {
        [] => {
            let len = turned[0].len();
            permute(&mut turned[0], len, |i| len - 1 - i);
            len
        }
        [dim, ..] => {
            let Ok(dim) = axis(call, *dim, turned[0].shape.len()) else { return };
            reverse(&mut turned[0], dim);
            split(&turned[0].shape, dim).1
        }
    };
    if let Ok(found) = (call.operator.reference)(call, &turned)
        && let Some(first) = found.first()
    {
        *result = Array::int(&result.shape, first.value.ints().iter().map(|i| n as i128 - 1 - i).collect());
    }
}
