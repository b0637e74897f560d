//! Runs one call on the device through the production path, and looks at everything it may have touched.

use flagos_backend_api as abi;
use flagos_backend_api::{Code, Tensor};
use flagos_catalog::{Array, Assignment, Call, Case, Instance, Memory, Numerics, Operator, Reference, numerics};
use flagos_runtime::{Operand, Plan, Work, oneshot};

use crate::bench::Bench;
use crate::check::Check;
use crate::guard::{Guarded, Poison};
use crate::outcome::{CaseResult, Failure, Source, Status, Step, Stop, Worst};

/// A case of an operator. The same plan is tried on a second set of contents.
pub fn operator(bench: &Bench, operator: &'static Operator, types: &Assignment, case: &Case) -> CaseResult {
    let instances = case.instance(operator, types, bench.seed).and_then(|a| Ok((a, case.instance(operator, types, !bench.seed)?)));
    match instances {
        Ok((first, second)) => call(bench, &first, Some(&second)),
        Err(e) => CaseResult::fail("", Failure::new(Check::Error, format!("the case cannot be made: {e}"))),
    }
}

/// Runs an instance; `second` has the same call and other contents.
pub fn call(bench: &Bench, instance: &Instance, second: Option<&Instance>) -> CaseResult {
    let mut result = CaseResult::new(&instance.id, Status::Pass);
    match Execution::new(bench, instance).and_then(|e| e.run(second, &mut result)) {
        Ok(()) => {}
        Err(Stop::Fail(failure)) => result.add([failure]),
        Err(Stop::Skip(reason)) => (result.status, result.reason) = (Status::Unsupported, reason),
    }
    result
}

struct Execution<'a> {
    bench: &'a Bench,
    instance: &'a Instance,
    inputs: Vec<Option<Guarded>>,
    outputs: Vec<Option<Guarded>>,
}

/// What the outputs held after a launch.
type Outputs = Vec<Vec<u8>>;

impl<'a> Execution<'a> {
    fn new(bench: &'a Bench, instance: &'a Instance) -> Step<Execution<'a>> {
        let call = &instance.call;
        let name = |i: usize| call.rule(i).name;
        let place = |memories: &[Memory], name: &dyn Fn(usize) -> String| {
            memories.iter().enumerate().map(|(i, m)| Guarded::new(&bench.device, m, &name(i))).collect::<Result<Vec<_>, _>>()
        };
        Ok(Execution {
            bench,
            instance,
            inputs: place(&instance.inputs, &|i| format!("input '{}'", name(i)))?,
            outputs: place(&instance.outputs, &|i| format!("output '{}'", call.operator.outputs[i.min(call.operator.outputs.len() - 1)].name))?,
        })
    }

    fn run(mut self, second: Option<&Instance>, result: &mut CaseResult) -> Step {
        let bench = self.bench;
        let work = Work::Op(self.instance.call.clone());
        let choice = bench.device.explain(&work)?;
        let Some(chosen) = choice.chosen else {
            let reasons: Vec<&str> = choice.candidates.iter().map(|c| c.reason.as_str()).collect();
            self.check_refusal(result)?;
            return if result.failures.is_empty() { Err(Stop::Skip(reasons.join("; "))) } else { Ok(()) };
        };
        let source = source_of(&choice.candidates[chosen].source);
        if source == Source::Native {
            result.add(crate::native::check_levels(bench, &self.instance.call)?);
        }
        let plan = bench.device.plan(&work).map_err(|e| match e.code {
            Code::RESOURCE_EXHAUSTED | Code::PLUGIN_PANIC | Code::DEVICE_LOST => Failure::from(e),
            _ => Failure::new(Check::SupportLies, format!("query offers the call, and it cannot be planned: {e}")),
        })?;
        result.source = Some(source_of(plan.choice().chosen.map_or("native", |i| &plan.choice().candidates[i].source)));
        result.implementation = plan.implementation().to_owned();
        self.launches(&plan, second, result)?;
        if result.source == Some(Source::Native) && plan.workspace_bytes() > 0 {
            result.add(crate::native::check_workspace(bench, self.instance)?);
        }
        Ok(())
    }

    /// Launches with both patterns in the outputs, then on other contents, then in place.
    fn launches(&mut self, plan: &Plan, second: Option<&Instance>, result: &mut CaseResult) -> Step {
        let references = references(self.instance)?;
        self.fill(self.instance)?;
        // A, B, B, A: what depends on the outputs' former contents differs between A and B only, what is not deterministic also among equals.
        let first = self.launch(plan, Poison::A, result)?;
        let taken = self.bench.host_use().allocations;
        let rest = [Poison::B, Poison::B, Poison::A].map(|p| self.launch(plan, p, result));
        let more = self.bench.host_use().allocations - taken;
        let [b1, b2, a2] = rest;
        let runs = [first, b1?, b2?, a2?];
        if more > 0 {
            result.add([Failure::new(Check::LaunchAllocates, format!("three launches of a plan took host memory {more} times"))]);
        }
        let values = self.judge(&references, &runs[0], result);
        let claimed = plan.properties() & abi::properties::DETERMINISTIC != 0;
        result.add(self.compare(&runs, claimed));
        // A wrong value that has a cause already would only repeat it.
        if !result.failures.iter().any(|f| matches!(f.check, Check::Unwritten | Check::Stale)) {
            result.add(values);
        }
        if result.failures.is_empty() {
            let other = self.judge(&references, &runs[1], result);
            result.add(other.into_iter().map(|f| Failure::new(Check::Stale, format!("the second launch of the plan differs from the first: {}", f.message))));
        }
        if let Some(second) = second.filter(|_| result.failures.is_empty()) {
            self.other_contents(plan, second, &runs[0], result)?;
        }
        if self.instance.call.operator.in_place && plan.properties() & abi::properties::IN_PLACE != 0 && result.failures.is_empty() {
            self.in_place(plan, &references, result)?;
        }
        Ok(())
    }

    fn fill(&mut self, instance: &Instance) -> Step {
        for (guarded, memory) in self.inputs.iter_mut().zip(&instance.inputs) {
            if let Some(guarded) = guarded {
                guarded.fill(&self.bench.stream, &memory.bytes)?;
            }
        }
        Ok(())
    }

    /// One launch: outputs poisoned before; inputs, zones and gaps looked at after.
    fn launch(&mut self, plan: &Plan, poison: Poison, result: &mut CaseResult) -> Step<Outputs> {
        let stream = &self.bench.stream;
        for guarded in self.outputs.iter_mut().flatten() {
            guarded.poison(stream, poison)?;
        }
        let operands: Vec<Operand> = self.inputs.iter().chain(&self.outputs).map(|g| g.as_ref().and_then(Guarded::operand)).collect();
        plan.launch(stream, &operands)?;
        stream.sync()?;
        self.look(result)
    }

    fn look(&self, result: &mut CaseResult) -> Step<Outputs> {
        let stream = &self.bench.stream;
        let mut found = Vec::new();
        for guarded in self.inputs.iter().flatten() {
            found.extend(guarded.check_unchanged(&guarded.read(stream)?, Check::InputModified));
        }
        let mut outputs = Vec::new();
        for guarded in &self.outputs {
            let Some(guarded) = guarded else {
                outputs.push(Vec::new());
                continue;
            };
            let now = guarded.read(stream)?;
            found.extend(guarded.check_outside(&now));
            outputs.push(now);
        }
        // One of each kind says enough: later launches would repeat it.
        found.retain(|f| !result.failures.iter().any(|g| g.check == f.check));
        result.add(found);
        Ok(outputs)
    }

    /// Compares outputs with references; notes the worst error.
    fn judge(&self, references: &[Reference], outputs: &Outputs, result: &mut CaseResult) -> Vec<Failure> {
        let rule = self.instance.call.operator.numerics;
        let mut failures = Vec::new();
        for ((guarded, bytes), reference) in self.outputs.iter().zip(outputs).zip(references) {
            let Some(guarded) = guarded else { continue };
            let (worst, failure) = judge(rule, guarded.tensor(), bytes, guarded.origin(), reference, guarded.name());
            result.worst = Worst::max(result.worst, worst);
            failures.extend(failure);
        }
        failures
    }

    /// What equal launches tell: elements nobody writes, results that depend on what was there before, results that vary.
    fn compare(&self, runs: &[Outputs; 4], claimed: bool) -> Vec<Failure> {
        let mut failures = Vec::new();
        for (k, guarded) in self.outputs.iter().enumerate() {
            let Some(guarded) = guarded else { continue };
            let [a1, b1, b2, a2] = [&runs[0][k], &runs[1][k], &runs[2][k], &runs[3][k]];
            let width = guarded.tensor().dtype.bytes();
            let is = |bytes: &[u8], at: usize, poison| (at..at + width).all(|i| bytes[i] == crate::guard::pattern(poison, i));
            let places = guarded.elements();
            let of = |wanted: &dyn Fn(usize) -> bool| {
                let hits: Vec<usize> = (0..places.len()).filter(|e| wanted(places[*e])).collect();
                hits.first().map(|first| (hits.len(), index_text(guarded.tensor(), *first)))
            };
            let put = |check, what: &str, (count, at): (usize, String)| {
                Failure::new(check, format!("{}: {count} of {} elements {what}, the first at {at}", guarded.name(), places.len()))
            };
            let unwritten = |at: usize| is(a1, at, Poison::A) && is(b1, at, Poison::B);
            if let Some(hits) = of(&unwritten) {
                failures.push(put(Check::Unwritten, "are not written", hits));
            }
            let span = |at: usize| at..at + width;
            let steady = |at: usize| a1[span(at)] == a2[span(at)] && b1[span(at)] == b2[span(at)];
            if let Some(hits) = of(&|at| steady(at) && a1[span(at)] != b1[span(at)] && !unwritten(at)) {
                failures.push(put(Check::Stale, "depend on what the output held before", hits));
            }
            if claimed && let Some(hits) = of(&|at| !steady(at)) {
                failures.push(put(Check::Determinism, "differ between equal launches of a plan that is said to be deterministic", hits));
            }
        }
        failures
    }

    /// The same plan on other contents.
    fn other_contents(&mut self, plan: &Plan, second: &Instance, former: &Outputs, result: &mut CaseResult) -> Step {
        let references = references(second)?;
        self.fill(second)?;
        let outputs = self.launch(plan, Poison::A, result)?;
        let failures = self.judge(&references, &outputs, result);
        let repeats = outputs == *former;
        result.add(failures.into_iter().map(|f| {
            if repeats {
                Failure::new(Check::Stale, format!("a launch on other contents repeats the former result: {}", f.message))
            } else {
                Failure::new(f.check, format!("on a second set of contents: {}", f.message))
            }
        }));
        Ok(())
    }

    /// Output 0 in the memory of input 0.
    fn in_place(&mut self, plan: &Plan, references: &[Reference], result: &mut CaseResult) -> Step {
        let (Some(Some(input)), Some(Some(output))) = (self.inputs.first(), self.outputs.first()) else { return Ok(()) };
        let (a, b) = (input.tensor(), output.tensor());
        if a.dtype != b.dtype || a.shape() != b.shape() || a.stride() != b.stride() {
            return Ok(());
        }
        self.fill(self.instance)?;
        let stream = &self.bench.stream;
        for guarded in self.outputs.iter_mut().skip(1).flatten() {
            guarded.poison(stream, Poison::A)?;
        }
        let shared = self.inputs[0].as_ref();
        let outputs = std::iter::once(shared).chain(self.outputs.iter().skip(1).map(Option::as_ref));
        let operands: Vec<Operand> = self.inputs.iter().map(Option::as_ref).chain(outputs).map(|g| g.and_then(Guarded::operand)).collect();
        plan.launch(stream, &operands)?;
        stream.sync()?;
        let Some(shared) = shared else { return Ok(()) };
        let now = shared.read(stream)?;
        let (_, failure) = judge(self.instance.call.operator.numerics, shared.tensor(), &now, shared.origin(), &references[0], "output 0 in the memory of input 0");
        result.add(failure.map(|f| Failure::new(Check::InPlace, f.message)));
        result.add(shared.check_outside(&now));
        for guarded in self.inputs.iter().skip(1).flatten() {
            result.add(guarded.check_unchanged(&guarded.read(stream)?, Check::InputModified));
        }
        Ok(())
    }

    /// What is not offered cannot be planned, is refused with the right code, and touches nothing.
    fn check_refusal(&mut self, result: &mut CaseResult) -> Step {
        result.add(crate::native::check_refusal(self.bench, &self.instance.call)?);
        let stream = &self.bench.stream;
        self.fill(self.instance)?;
        for guarded in self.outputs.iter_mut().flatten() {
            guarded.poison(&self.bench.stream, Poison::A)?;
        }
        let operands: Vec<Operand> = self.inputs.iter().chain(&self.outputs).map(|g| g.as_ref().and_then(Guarded::operand)).collect();
        // SAFETY: the descriptor borrows from a live call.
        let ran = self.instance.call.with_abi(|op| unsafe { oneshot::execute(stream, op, &operands) });
        if ran.is_ok() {
            result.add([Failure::new(Check::SupportLies, "query does not offer the call, and it runs")]);
        }
        stream.sync()?;
        for guarded in self.inputs.iter().chain(&self.outputs).flatten() {
            result.add(guarded.check_unchanged(&guarded.read(stream)?, Check::Untouched));
        }
        Ok(())
    }
}

fn source_of(token: &str) -> Source {
    match token {
        "native" => Source::Native,
        "portable" => Source::Portable,
        _ => Source::Fallback,
    }
}

/// The references of an instance, from its contents.
pub fn references(instance: &Instance) -> Step<Vec<Reference>> {
    let arrays = instance.inputs.iter().map(|m| Array::decode(&m.tensor, &m.bytes, m.origin)).collect::<Result<Vec<_>, _>>();
    let made = arrays.and_then(|a| (instance.call.operator.reference)(&instance.call, &a));
    made.map_err(|e| Failure::new(Check::Error, format!("the reference cannot be computed: {e}")).into())
}

/// Judges one output. The worst error is left out where it is infinite.
pub fn judge(rule: Numerics, tensor: &Tensor, bytes: &[u8], origin: usize, reference: &Reference, name: &str) -> (Option<Worst>, Option<Failure>) {
    let got = match Array::decode(tensor, bytes, origin) {
        Ok(got) => got,
        Err(e) => return (None, Some(Failure::new(Check::Error, format!("{name} cannot be read: {e}")))),
    };
    let rule = reference.numerics.unwrap_or(rule);
    let verdict = numerics::judge(rule, tensor.dtype, reference, &got);
    let worst = if matches!(rule, Numerics::Ulp(_)) { Worst::Ulp(verdict.worst) } else { Worst::Bound(verdict.worst) };
    let shown = verdict.worst.is_finite().then_some(worst);
    if verdict.ok {
        return (shown, odd_bool(tensor, bytes, origin, name));
    }
    let error = if verdict.worst.is_finite() { format!(", off by {worst}") } else { String::new() };
    let at = index_text(tensor, verdict.index);
    (shown, Some(Failure::new(Check::Value, format!("{name} at {at}: expected {}, got {}{error}", verdict.expected, verdict.got))))
}

/// A truth value is stored as 0 or 1.
fn odd_bool(tensor: &Tensor, bytes: &[u8], origin: usize, name: &str) -> Option<Failure> {
    if !tensor.dtype.is_bool() {
        return None;
    }
    let mut odd = None;
    flagos_catalog::for_each_offset(tensor, |offset| {
        let byte = bytes[(origin as i64 + offset) as usize];
        odd = odd.or((byte > 1).then_some(byte));
    });
    odd.map(|byte| Failure::new(Check::Value, format!("{name} holds the truth value {byte:#04x}; it is stored as 0 or 1")))
}

/// A flat row-major index as a tuple.
fn index_text(tensor: &Tensor, flat: usize) -> String {
    let mut rest = flat as i64;
    let mut index: Vec<i64> = tensor.shape().iter().rev().map(|n| { let i = rest % n.max(&1); rest /= n.max(&1); i }).collect();
    index.reverse();
    format!("{index:?}")
}

/// A call as people write it, for messages about calls nobody listed.
pub fn describe(call: &Call) -> String {
    let tensors = |list: &[Tensor]| list.iter().map(|t| if t.is_none() { "none".to_owned() } else { format!("{t:?}") }).collect::<Vec<_>>().join(", ");
    let attrs: Vec<String> = call.attrs.iter().map(|(spec, value)| format!("{}={value:?}", spec.name)).collect();
    format!("{}({}) -> {} [{}]", call.operator.name, tensors(&call.inputs), tensors(&call.outputs), attrs.join(", "))
}
