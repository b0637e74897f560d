//! The backend's planning tables asked directly: what they say at each level, what they refuse, and how plans treat their workspace.

use flagos_backend_api as abi;
use flagos_backend_api::{Answer, Binding, Code, Op};
use flagos_runtime::{Scalars, Work};

use crate::bench::Bench;
use crate::check::Check;
use crate::execute::{judge, references};
use crate::guard::{Poison, ZONE, first_difference, image, poisoned};
use crate::outcome::{Failure, Step, Stop, ensure};
use crate::raw::{Answer as Answered, Handle, Memory, Queue, sized, slot, take};
use crate::task::Task;

/// A plan made through a table, destroyed when dropped.
pub struct RawPlan {
    table: &'static abi::PlanTable,
    /// The handle.
    pub handle: Handle<abi::Plan>,
}

impl Drop for RawPlan {
    fn drop(&mut self) {
        if let Some(destroy) = self.table.destroy {
            // SAFETY: the handle is live, and its launches are over: cases wait before they drop.
            let _ = take(unsafe { destroy(self.handle.0) });
        }
    }
}

/// No limits.
pub fn limits() -> abi::PlanLimits {
    let mut limits = sized!(abi::PlanLimits);
    limits.workspace_bytes = u64::MAX;
    limits
}

fn absent<T>(table: Option<&'static T>, domain: &str) -> Step<&'static T> {
    table.ok_or_else(|| Stop::Skip(format!("the backend has no {domain} table")))
}

/// Asks the operator table.
pub fn query_op(bench: &Bench, op: &Op, level: u32) -> Answered<abi::Support> {
    let table = absent(bench.tables().op.as_ref(), "operator")?;
    let mut support = sized!(abi::Support);
    Ok(slot!(table, query, bench.raw.0, op, level, &mut support)?.map(|()| support))
}

/// Plans through the operator table.
pub fn plan_op(bench: &Bench, op: &Op, limits: &abi::PlanLimits) -> Answered<RawPlan> {
    let table = absent(bench.tables().op.as_ref(), "operator")?;
    let mut out = core::ptr::null_mut();
    let answer = slot!(table, plan, bench.raw.0, op, limits, &mut out)?;
    planned(answer, out, bench.tables().op_plans.as_ref())
}

fn planned(answer: Result<(), abi::Error>, out: *mut abi::Plan, table: Option<&'static abi::PlanTable>) -> Answered<RawPlan> {
    if let Err(e) = answer {
        return Ok(Err(e));
    }
    ensure(!out.is_null(), Check::Error, || "'plan' succeeded without a handle".into())?;
    Ok(Ok(RawPlan { table: absent(table, "plan")?, handle: Handle(out) }))
}

/// Asks the table of a call's domain; a backend without one does not offer the call.
fn query(bench: &Bench, work: &Work, level: u32) -> Answered<abi::Support> {
    let mut support = sized!(abi::Support);
    let answer = match work {
        Work::Op(call) => return call.with_abi(|op| query_op(bench, op, level)),
        Work::Blas(desc) => slot!(absent(bench.tables().blas.as_ref(), "BLAS")?, query, bench.raw.0, desc, level, &mut support)?,
        Work::Fft(desc) => slot!(absent(bench.tables().fft.as_ref(), "FFT")?, query, bench.raw.0, desc, level, &mut support)?,
    };
    Ok(answer.map(|()| support))
}

/// Plans through the table of a call's domain.
pub fn plan(bench: &Bench, work: &Work, limits: &abi::PlanLimits) -> Answered<RawPlan> {
    let t = bench.tables();
    let mut out = core::ptr::null_mut();
    match work {
        Work::Op(call) => call.with_abi(|op| plan_op(bench, op, limits)),
        Work::Blas(desc) => {
            let answer = slot!(absent(t.blas.as_ref(), "BLAS")?, plan, bench.raw.0, desc, limits, &mut out)?;
            planned(answer, out, t.blas_plans.as_ref())
        }
        Work::Fft(desc) => {
            let answer = slot!(absent(t.fft.as_ref(), "FFT")?, plan, bench.raw.0, desc, limits, &mut out)?;
            planned(answer, out, t.fft_plans.as_ref())
        }
    }
}

impl RawPlan {
    /// What it needs and promises.
    pub fn info(&self) -> Step<abi::PlanInfo> {
        let mut info = sized!(abi::PlanInfo);
        slot!(self.table, info, self.handle.0, &mut info)??;
        Ok(info)
    }
    /// Enqueues a launch.
    pub fn launch(&self, queue: &Queue, bindings: &[Binding], workspace: Binding, scalars: Scalars) -> Step {
        let mut launch = sized!(abi::Launch);
        (launch.bindings, launch.n_bindings, launch.workspace) = (bindings.as_ptr(), bindings.len() as u32, workspace);
        (launch.alpha, launch.beta) = (scalars.alpha.cast(), scalars.beta.cast());
        Ok(slot!(self.table, launch, self.handle.0, queue.handle.0, &launch)??)
    }
}

/// Every level gives one answer.
pub fn check_levels(bench: &Bench, work: &Work) -> Step<Option<Failure>> {
    let mut answers = Vec::new();
    for level in 0..3 {
        match query(bench, work, level)? {
            Ok(support) => answers.push(Answer(support.answer)),
            Err(e) => return Ok(Some(Failure::new(Check::SupportLies, format!("level 0 offers the call, level {level} answers {e}")))),
        }
    }
    let lies = answers.contains(&Answer::NO) && answers.iter().any(|a| *a != Answer::NO);
    Ok(lies.then(|| Failure::new(Check::SupportLies, format!("levels 0, 1 and 2 answer {answers:?}"))))
}

/// A call that query does not offer is not planned either, and the code lets the host go on to the next candidate.
pub fn check_refusal(bench: &Bench, work: &Work) -> Step<Vec<Failure>> {
    let mut failures = Vec::new();
    match query(bench, work, 0) {
        Err(Stop::Skip(_)) => return Ok(failures),
        Err(stop) => return Err(stop),
        Ok(Err(e)) if e.code != Code::UNIMPLEMENTED => {
            failures.push(Failure::new(Check::RefusalCode, format!("query of a valid call answers {e}; what is not offered is answered NO")));
        }
        Ok(_) => {}
    }
    match plan(bench, work, &limits())? {
        Ok(_) => failures.push(Failure::new(Check::SupportLies, "query does not offer the call, and it can be planned")),
        Err(e) if e.code != Code::UNIMPLEMENTED => {
            failures.push(Failure::new(Check::RefusalCode, format!("plan of a valid call that is not offered answers {e}; it is to be UNIMPLEMENTED")));
        }
        Err(_) => {}
    }
    Ok(failures)
}

/// A call bound to memory of its own, between guard zones.
pub struct Bound<'a> {
    memories: Vec<Option<Memory<'a>>>,
    bindings: Vec<Binding>,
}

// SAFETY: bindings hold handles, which the contract lets any thread use; a launch only reads them.
unsafe impl Sync for Bound<'_> {}

impl<'a> Bound<'a> {
    /// Allocates.
    pub fn new(bench: &'a Bench, task: &Task) -> Step<Bound<'a>> {
        let mut bound = Bound { memories: Vec::new(), bindings: Vec::new() };
        for operand in &task.operands {
            let present = !operand.memory.tensor.is_none();
            let memory = if present { Some(bench.memory((ZONE + operand.memory.bytes.len() + ZONE) as u64)?) } else { None };
            let buffer = memory.as_ref().map_or(core::ptr::null_mut(), |m| m.handle.0);
            bound.bindings.push(Binding { buffer, byte_offset: if present { (ZONE + operand.binding) as u64 } else { 0 } });
            bound.memories.push(memory);
        }
        Ok(bound)
    }
    /// Gives inputs their contents and outputs a pattern.
    pub fn fill(&self, queue: &Queue, task: &Task, poison: Poison) -> Step {
        for (memory, operand) in self.memories.iter().zip(&task.operands) {
            let Some(memory) = memory else { continue };
            let bytes = if operand.reads { image(&operand.memory.bytes, poison) } else { poisoned(poison, memory.bytes as usize) };
            queue.write(memory, 0, &bytes)?;
        }
        Ok(())
    }
    /// Enqueues a launch with a workspace.
    pub fn launch(&self, queue: &Queue, plan: &RawPlan, task: &Task, workspace: Option<(&Memory, u64)>) -> Step {
        let (buffer, byte_offset) = workspace.map_or((core::ptr::null_mut(), 0), |(m, at)| (m.handle.0, at));
        plan.launch(queue, &self.bindings, Binding { buffer, byte_offset }, task.scalars())
    }
    /// Compares what was written with the references.
    pub fn judge(&self, queue: &Queue, task: &Task) -> Step<Option<Failure>> {
        for (k, reference) in references(task)? {
            let (Some(memory), operand) = (&self.memories[k], &task.operands[k]) else { continue };
            let now = queue.read(memory, 0, memory.bytes)?;
            let (_, failure) = judge(task.rule, &operand.memory.tensor, &now, ZONE + operand.memory.origin, &reference, &operand.name);
            if failure.is_some() {
                return Ok(failure);
            }
        }
        Ok(None)
    }
}

/// Launches with a workspace of exactly the stated size between guard zones, twice, with different contents in it.
pub fn check_workspace(bench: &Bench, task: &Task) -> Step<Vec<Failure>> {
    let queue = bench.queue()?;
    let made = plan(bench, &task.work, &limits())?;
    let made = made.map_err(|e| Failure::new(Check::SupportLies, format!("the runtime planned the call, the table does not: {e}")))?;
    let bytes = made.info()?.workspace_bytes as usize;
    let mut failures = Vec::new();
    if let Ok(frugal) = plan(bench, &task.work, &abi::PlanLimits { workspace_bytes: 0, ..limits() })? {
        let taken = frugal.info()?.workspace_bytes;
        if taken > 0 {
            failures.push(Failure::new(Check::Workspace, format!("a plan limited to no workspace asks for {taken} bytes")));
        }
    }
    let workspace = bench.memory((ZONE + bytes + ZONE) as u64)?;
    let bound = Bound::new(bench, task)?;
    for poison in [Poison::A, Poison::B] {
        let before = poisoned(poison, workspace.bytes as usize);
        queue.write(&workspace, 0, &before)?;
        bound.fill(&queue, task, poison)?;
        bound.launch(&queue, &made, task, Some((&workspace, ZONE as u64)))?;
        queue.sync()?;
        let after = queue.read(&workspace, 0, workspace.bytes)?;
        if let Some(at) = first_difference(&before, &after, |i| i < ZONE || i >= ZONE + bytes) {
            let place = at as i64 - ZONE as i64;
            failures.push(Failure::new(Check::Workspace, format!("byte {place} of a workspace of {bytes} bytes was written")));
        }
        let wrong = bound.judge(&queue, task)?;
        failures.extend(wrong.map(|f| Failure::new(Check::Workspace, format!("with a workspace of exactly {bytes} bytes of other contents: {}", f.message))));
    }
    failures.truncate(3);
    Ok(failures)
}
