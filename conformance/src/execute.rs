//! Runs one call on the device through the production path, and looks at everything it may have touched.

use std::collections::BTreeSet;

use flagos_backend_api as abi;
use flagos_backend_api::{Code, Tensor};
use flagos_catalog::blas::BlasCase;
use flagos_catalog::fft::FftCase;
use flagos_catalog::{Array, Assignment, Case, Instance, Numerics, Operator, Reference, Rng, numerics};
use flagos_runtime::claims::Implementation;
use flagos_runtime::{Operand, Plan, Work, oneshot};

use crate::bench::Bench;
use crate::check::Check;
use crate::flush;
use crate::guard::{Guarded, Poison, pattern};
use crate::native;
use crate::outcome::{CaseResult, Failure, Source, Status, Step, Stop, Worst};
use crate::task::{Rule, Task};

/// A case of an operator. The same plan is tried on a second set of contents.
pub fn operator(bench: &Bench, operator: &'static Operator, types: &Assignment, case: &Case) -> CaseResult {
    both(bench, |seed| case.instance(operator, types, seed).map(|i| task(bench, i)))
}

/// A case of a BLAS routine, likewise.
pub fn blas(bench: &Bench, case: &BlasCase) -> CaseResult {
    both(bench, |seed| case.instance(seed).map(Task::blas))
}

/// A Fourier transform, likewise.
pub fn fft(bench: &Bench, case: &FftCase) -> CaseResult {
    both(bench, |seed| case.instance(seed).map(Task::fft))
}

/// An operator's call as the device is to be asked it.
pub fn task(bench: &Bench, instance: Instance) -> Task {
    if !bench.flushes() {
        return Task::operator(instance);
    }
    let mut task = Task::operator(flush::contents(instance));
    task.rule.flushes = true;
    task
}

fn both(bench: &Bench, make: impl Fn(u64) -> abi::Result<Task>) -> CaseResult {
    match make(bench.seed).and_then(|a| Ok((a, make(!bench.seed)?))) {
        Ok((first, second)) => call(bench, &first, Some(&second)),
        Err(e) => CaseResult::fail("", Failure::new(Check::Error, format!("the case cannot be made: {e}"))),
    }
}

/// Runs a call; `second` is the same call with other contents.
pub fn call(bench: &Bench, task: &Task, second: Option<&Task>) -> CaseResult {
    let mut result = CaseResult::new("", Status::Pass);
    match Execution::new(bench, task).and_then(|e| e.run(second, &mut result)) {
        Ok(()) => {}
        Err(Stop::Fail(failure)) => result.add([failure]),
        Err(Stop::Skip(reason)) => (result.status, result.reason) = (Status::Unsupported, reason),
    }
    result
}

/// Launches beyond the first four where results vary.
const MORE_LAUNCHES: usize = 48;

struct Execution<'a> {
    bench: &'a Bench,
    task: &'a Task,
    operands: Vec<Option<Guarded>>,
}

/// What the operands held after a launch; empty for those that are only read.
type Found = Vec<Vec<u8>>;

impl<'a> Execution<'a> {
    fn new(bench: &'a Bench, task: &'a Task) -> Step<Execution<'a>> {
        let operands = task.operands.iter().map(|o| Guarded::new(&bench.device, o)).collect::<Result<Vec<_>, _>>()?;
        Ok(Execution { bench, task, operands })
    }

    fn run(mut self, second: Option<&Task>, result: &mut CaseResult) -> Step {
        let (bench, work) = (self.bench, &self.task.work);
        let choice = bench.device.explain(work)?;
        let Some(chosen) = choice.chosen else {
            let reasons: Vec<&str> = choice.candidates.iter().map(|c| c.reason.as_str()).collect();
            // A backend's own tables may well offer what its portable kernels do not.
            if bench.implementation == Implementation::Portable {
                return Err(Stop::Skip(reasons.join("; ")));
            }
            self.check_refusal(result)?;
            return if result.failures.is_empty() { Err(Stop::Skip(reasons.join("; "))) } else { Ok(()) };
        };
        if source_of(&choice.candidates[chosen].source) == Source::Native {
            result.add(native::check_levels(bench, work)?);
        }
        let plan = bench.device.plan(work).map_err(|e| match e.code {
            Code::RESOURCE_EXHAUSTED | Code::PLUGIN_PANIC | Code::DEVICE_LOST => Failure::from(e),
            _ => Failure::new(Check::SupportLies, format!("query offers the call, and it cannot be planned: {e}")),
        })?;
        let source = source_of(plan.choice().chosen.map_or("native", |i| &plan.choice().candidates[i].source));
        result.source = Some(source);
        result.implementation = plan.implementation().to_owned();
        self.launches(&plan, second, result)?;
        if source == Source::Native && plan.workspace_bytes() > 0 {
            result.add(native::check_workspace(bench, self.task)?);
        }
        Ok(())
    }

    /// Launches with both patterns in the outputs, then on other contents, then in place.
    fn launches(&mut self, plan: &Plan, second: Option<&Task>, result: &mut CaseResult) -> Step {
        let task = self.task;
        let references = references(task)?;
        // A, B, B, A: what depends on the outputs' former contents differs between A and B only, what is not deterministic also among equals.
        let first = self.launch(plan, task, Poison::A, result)?;
        let taken = self.bench.host_use().allocations;
        let rest = [Poison::B, Poison::B, Poison::A].map(|p| self.launch(plan, task, p, result));
        let more = self.bench.host_use().allocations - taken;
        let [b1, b2, a2] = rest;
        let mut runs = vec![(Poison::A, first), (Poison::B, b1?), (Poison::B, b2?), (Poison::A, a2?)];
        if more > 0 {
            result.add([Failure::new(Check::LaunchAllocates, format!("three launches of a plan took host memory {more} times"))]);
        }
        let values = self.judge(&references, &runs[0].1, result);
        let claimed = plan.properties() & abi::properties::DETERMINISTIC != 0;
        let mut compared = self.compare(&runs, claimed);
        if !claimed && compared.iter().any(|f| f.check == Check::Stale) {
            // Sums in any order may agree with one another by chance, and not again and again. The patterns' order is drawn: the order of a sum
            // may well follow what repeats every few launches, such as which piece of staging memory its operands came through.
            let mut rng = Rng::named(self.bench.seed, "patterns");
            for _ in 0..MORE_LAUNCHES {
                let poison = if rng.bits() >> 63 == 0 { Poison::A } else { Poison::B };
                runs.push((poison, self.launch(plan, task, poison, result)?));
            }
            compared = self.compare(&runs, claimed);
        }
        result.add(compared);
        // A wrong value that has a cause already would only repeat it.
        if !result.failures.iter().any(|f| matches!(f.check, Check::Unwritten | Check::Stale)) {
            result.add(values);
        }
        if result.failures.is_empty() {
            let again = self.judge(&references, &runs[1].1, result);
            result.add(again.into_iter().map(|f| Failure::new(Check::Stale, format!("the second launch of the plan differs from the first: {}", f.message))));
        }
        if let Some(second) = second.filter(|_| result.failures.is_empty()) {
            self.other_contents(plan, second, &runs[0].1, result)?;
        }
        if plan.properties() & abi::properties::IN_PLACE != 0 && result.failures.is_empty() {
            self.in_place(plan, &references, result)?;
        }
        Ok(())
    }

    /// One launch: contents and patterns before; inputs, zones and gaps looked at after.
    fn launch(&mut self, plan: &Plan, contents: &Task, poison: Poison, result: &mut CaseResult) -> Step<Found> {
        let stream = &self.bench.stream;
        self.prepare(contents, poison)?;
        let operands: Vec<Operand> = self.operands.iter().map(|g| g.as_ref().and_then(Guarded::operand)).collect();
        // SAFETY: the scalars are bytes of the task, in its compute type.
        unsafe { plan.launch_scaled(stream, &operands, contents.scalars()) }?;
        stream.sync()?;
        self.look(result)
    }

    fn prepare(&mut self, contents: &Task, poison: Poison) -> Step {
        for (guarded, operand) in self.operands.iter_mut().zip(&contents.operands) {
            let Some(guarded) = guarded else { continue };
            if operand.reads {
                guarded.fill(&self.bench.stream, &operand.memory.bytes, poison)?;
            } else {
                guarded.poison(&self.bench.stream, poison)?;
            }
        }
        Ok(())
    }

    fn look(&self, result: &mut CaseResult) -> Step<Found> {
        let mut failures = Vec::new();
        let mut found = Vec::new();
        for (guarded, operand) in self.operands.iter().zip(&self.task.operands) {
            let mut kept = Vec::new();
            if let Some(guarded) = guarded {
                let now = guarded.read(&self.bench.stream)?;
                if operand.writes {
                    failures.extend(guarded.check_outside(&now));
                    kept = now;
                } else {
                    failures.extend(guarded.check_unchanged(&now, Check::InputModified));
                }
            }
            found.push(kept);
        }
        // One of each kind says enough: later launches would repeat it.
        failures.retain(|f| !result.failures.iter().any(|g| g.check == f.check));
        result.add(failures);
        Ok(found)
    }

    /// Compares what was written with the references; notes the worst error.
    fn judge(&self, references: &[(usize, Reference)], found: &Found, result: &mut CaseResult) -> Vec<Failure> {
        let mut failures = Vec::new();
        for (binding, reference) in references {
            let Some(guarded) = &self.operands[*binding] else { continue };
            let (worst, failure) = judge(self.task.rule, guarded.tensor(), &found[*binding], guarded.origin(), reference, guarded.name());
            result.worst = Worst::max(result.worst, worst);
            failures.extend(failure);
        }
        failures
    }

    /// What equal launches on two patterns, the first on A and the second on B, tell: elements nobody writes, results that depend on what was there
    /// before, results that vary.
    fn compare(&self, runs: &[(Poison, Found)], claimed: bool) -> Vec<Failure> {
        let mut failures = Vec::new();
        for (k, (guarded, operand)) in self.operands.iter().zip(&self.task.operands).enumerate() {
            let Some(guarded) = guarded.as_ref().filter(|_| operand.writes) else { continue };
            let (a1, b1) = (&runs[0].1[k], &runs[1].1[k]);
            let width = guarded.tensor().dtype.bytes();
            let span = |at: usize| at..at + width;
            let is = |bytes: &[u8], at: usize, poison| span(at).all(|i| bytes[i] == pattern(poison, i));
            let unwritten = |at: usize| !operand.reads && is(a1, at, Poison::A) && is(b1, at, Poison::B);
            let former = |poison: Poison| if poison == Poison::A { a1 } else { b1 };
            let steady = |at: usize| runs.iter().all(|(poison, found)| found[k][span(at)] == former(*poison)[span(at)]);
            let places = guarded.elements();
            let mut tell = |check, what: &str, wanted: &dyn Fn(usize) -> bool| {
                let hits: Vec<usize> = (0..places.len()).filter(|e| wanted(places[*e])).collect();
                if let Some(first) = hits.first() {
                    let at = index_text(guarded.tensor(), *first);
                    let place = span(places[*first]);
                    let seen: BTreeSet<String> = runs.iter().map(|(_, found)| hex(&found[k][place.clone()])).collect();
                    let seen: Vec<String> = seen.into_iter().take(4).collect();
                    let text = format!("{}: {} of {} elements {what}, the first at {at}: {}", guarded.name(), hits.len(), places.len(), seen.join(", "));
                    failures.push(Failure::new(check, text));
                }
            };
            tell(Check::Unwritten, "are not written", &unwritten);
            tell(Check::Stale, "depend on what the output held before", &|at| steady(at) && a1[span(at)] != b1[span(at)] && !unwritten(at));
            if claimed {
                tell(Check::Determinism, "differ between equal launches of a plan that is said to be deterministic", &|at| !steady(at));
            }
        }
        failures
    }

    /// The same plan on other contents.
    fn other_contents(&mut self, plan: &Plan, second: &Task, former: &Found, result: &mut CaseResult) -> Step {
        let references = references(second)?;
        let found = self.launch(plan, second, Poison::A, result)?;
        let repeats = found == *former;
        result.add(self.judge(&references, &found, &mut CaseResult::new("", Status::Pass)).into_iter().map(|f| {
            if repeats {
                Failure::new(Check::Stale, format!("a launch on other contents repeats the former result: {}", f.message))
            } else {
                Failure::new(f.check, format!("on a second set of contents: {}", f.message))
            }
        }));
        Ok(())
    }

    /// An output in the memory of an input.
    fn in_place(&mut self, plan: &Plan, references: &[(usize, Reference)], result: &mut CaseResult) -> Step {
        let Some((from, to)) = self.task.in_place else { return Ok(()) };
        self.prepare(self.task, Poison::A)?;
        let stream = &self.bench.stream;
        let bound = |k: usize| if k == to { from } else { k };
        let operands: Vec<Operand> = (0..self.operands.len()).map(|k| self.operands[bound(k)].as_ref().and_then(Guarded::operand)).collect();
        // SAFETY: the scalars are bytes of the task, in its compute type.
        unsafe { plan.launch_scaled(stream, &operands, self.task.scalars()) }?;
        stream.sync()?;
        for (k, guarded) in self.operands.iter().enumerate() {
            let Some(guarded) = guarded else { continue };
            let now = guarded.read(stream)?;
            if k == from {
                let Some((_, reference)) = references.iter().find(|(binding, _)| *binding == to) else { continue };
                let output = &self.task.operands[to].memory.tensor;
                let (_, failure) = judge(self.task.rule, output, &now, guarded.origin(), reference, "the output in the memory of its input");
                result.add(failure.map(|f| Failure::new(Check::InPlace, f.message)));
                result.add(guarded.check_outside_of(&now, &[guarded.tensor(), output]));
            } else if k == to || !self.task.operands[k].writes {
                result.add(guarded.check_unchanged(&now, Check::InputModified));
            } else {
                result.add(guarded.check_outside(&now));
            }
        }
        Ok(())
    }

    /// What is not offered cannot be planned, is refused with the right code, and touches nothing.
    fn check_refusal(&mut self, result: &mut CaseResult) -> Step {
        result.add(native::check_refusal(self.bench, &self.task.work)?);
        self.prepare(self.task, Poison::A)?;
        let stream = &self.bench.stream;
        let operands: Vec<Operand> = self.operands.iter().map(|g| g.as_ref().and_then(Guarded::operand)).collect();
        let of = |i: usize| Ok(operands[i]);
        let ran = match &self.task.work {
            // SAFETY: the descriptor borrows from a live call.
            Work::Op(call) => call.with_abi(|op| unsafe { oneshot::execute(stream, op, operands.len(), of) }),
            // SAFETY: the scalars are bytes of the task, in its compute type.
            Work::Blas(desc) => unsafe { oneshot::execute_blas(stream, desc, operands.len(), of, self.task.scalars()) },
            Work::Fft(desc) => oneshot::execute_fft(stream, desc, operands.len(), of),
        };
        if ran.is_ok() {
            result.add([Failure::new(Check::SupportLies, "query does not offer the call, and it runs")]);
        }
        stream.sync()?;
        for guarded in self.operands.iter().flatten() {
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

/// The references of a call, from its contents.
pub fn references(task: &Task) -> Step<Vec<(usize, Reference)>> {
    task.references().map_err(|e| Failure::new(Check::Error, format!("the reference cannot be computed: {e}")).into())
}

/// Judges one output. The worst error is left out where it is infinite.
pub fn judge(rule: Rule, tensor: &Tensor, bytes: &[u8], origin: usize, reference: &Reference, name: &str) -> (Option<Worst>, Option<Failure>) {
    let got = match Array::decode(tensor, bytes, origin) {
        Ok(got) => got,
        Err(e) => return (None, Some(Failure::new(Check::Error, format!("{name} cannot be read: {e}")))),
    };
    let Rule { numerics, flushes } = rule;
    let rule = reference.numerics.unwrap_or(numerics);
    let verdict = match flushes {
        false => numerics::judge(rule, tensor.dtype, reference, &got),
        true => {
            let expected = Reference { value: flush::values(reference.value.clone(), tensor), scale: reference.scale.clone(), ..*reference };
            numerics::judge(rule, tensor.dtype, &expected, &flush::values(got, tensor))
        }
    };
    let worst = if matches!(rule, Numerics::Ulp(_)) { Worst::Ulp(verdict.worst) } else { Worst::Bound(verdict.worst) };
    let shown = verdict.worst.is_finite().then_some(worst);
    if verdict.ok {
        return (shown, odd_bool(tensor, bytes, origin, name));
    }
    let error = match worst {
        _ if !verdict.worst.is_finite() => String::new(),
        Worst::Ulp(_) => format!(", off by {worst}"),
        Worst::Bound(x) => format!(", off by {x:.3} times the bound"),
    };
    // Complex numbers are judged by parts.
    let index = if tensor.dtype.is_complex() { verdict.index / 2 } else { verdict.index };
    let at = index_text(tensor, index);
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

/// An element's bytes as one number, most significant first: what tells NaNs apart and is short for every type.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().rev().fold("0x".to_owned(), |text, byte| text + &format!("{byte:02x}"))
}

/// A flat row-major index as a tuple.
fn index_text(tensor: &Tensor, flat: usize) -> String {
    let mut rest = flat as i64;
    let mut index = Vec::new();
    for n in tensor.shape().iter().rev() {
        index.push(rest % n.max(&1));
        rest /= n.max(&1);
    }
    index.reverse();
    format!("{index:?}")
}
