//! The backend's operator table asked directly: what it says at each level, what it refuses, and how it treats its workspace.

use flagos_backend_api as abi;
use flagos_backend_api::{Answer, Binding, Code, Op};
use flagos_catalog::{Call, Instance, Memory as HostMemory};

use crate::bench::Bench;
use crate::check::Check;
use crate::execute::{judge, references};
use crate::guard::{Poison, ZONE, first_difference, image, poisoned};
use crate::outcome::{Failure, Step, Stop, ensure};
use crate::raw::{Handle, Memory, Queue, sized, slot, take};

/// A plan made through the table, destroyed when dropped.
pub struct RawPlan<'a> {
    bench: &'a Bench,
    /// The handle.
    pub handle: Handle<abi::Plan>,
}

impl Drop for RawPlan<'_> {
    fn drop(&mut self) {
        if let Some(destroy) = self.bench.tables().op_plans.as_ref().and_then(|t| t.destroy) {
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

/// Asks the operator table.
pub fn query(bench: &Bench, op: &Op, level: u32) -> Step<Result<abi::Support, abi::Error>> {
    let Some(table) = &bench.tables().op else { return Err(Stop::Skip("the backend has no operator table".into())) };
    let mut support = sized!(abi::Support);
    let answer = slot!(table, query, bench.raw.0, op, level, &mut support)?;
    Ok(answer.map(|()| support))
}

/// Plans through the operator table.
pub fn plan<'a>(bench: &'a Bench, op: &Op, limits: &abi::PlanLimits) -> Step<Result<RawPlan<'a>, abi::Error>> {
    let Some(table) = &bench.tables().op else { return Err(Stop::Skip("the backend has no operator table".into())) };
    let mut out = core::ptr::null_mut();
    match slot!(table, plan, bench.raw.0, op, limits, &mut out)? {
        Ok(()) => {
            ensure(!out.is_null(), Check::Error, || "'plan' succeeded without a handle".into())?;
            Ok(Ok(RawPlan { bench, handle: Handle(out) }))
        }
        Err(e) => Ok(Err(e)),
    }
}

impl RawPlan<'_> {
    /// What it needs and promises.
    pub fn info(&self) -> Step<abi::PlanInfo> {
        let Some(table) = &self.bench.tables().op_plans else { return Err(Stop::Skip("no plan table".into())) };
        let mut info = sized!(abi::PlanInfo);
        slot!(table, info, self.handle.0, &mut info)??;
        Ok(info)
    }
    /// Enqueues a launch.
    pub fn launch(&self, queue: &Queue, bindings: &[Binding], workspace: Binding) -> Step {
        let Some(table) = &self.bench.tables().op_plans else { return Err(Stop::Skip("no plan table".into())) };
        let mut launch = sized!(abi::Launch);
        (launch.bindings, launch.n_bindings, launch.workspace) = (bindings.as_ptr(), bindings.len() as u32, workspace);
        Ok(slot!(table, launch, self.handle.0, queue.handle.0, &launch)??)
    }
}

/// Every level gives one answer.
pub fn check_levels(bench: &Bench, call: &Call) -> Step<Option<Failure>> {
    let mut answers = Vec::new();
    for level in 0..3 {
        match call.with_abi(|op| query(bench, op, level))? {
            Ok(support) => answers.push(support.answer),
            Err(e) => return Ok(Some(Failure::new(Check::SupportLies, format!("level 0 offers the call, level {level} answers {e}")))),
        }
    }
    let same = answers.iter().all(|a| (*a == Answer::NO.0) == (answers[0] == Answer::NO.0));
    Ok((!same).then(|| Failure::new(Check::SupportLies, format!("levels 0, 1 and 2 answer {:?}", answers.iter().map(|a| Answer(*a)).collect::<Vec<_>>()))))
}

/// A call that query does not offer is not planned either, and the code lets the host go on to the next candidate.
pub fn check_refusal(bench: &Bench, call: &Call) -> Step<Vec<Failure>> {
    if bench.tables().op.is_none() {
        return Ok(Vec::new());
    }
    let mut failures = Vec::new();
    if let Err(e) = call.with_abi(|op| query(bench, op, 0))?
        && e.code != Code::UNIMPLEMENTED
    {
        failures.push(Failure::new(Check::RefusalCode, format!("query of a valid call answers {e}; what is not offered is answered NO")));
    }
    match call.with_abi(|op| plan(bench, op, &limits()))? {
        Ok(_) => failures.push(Failure::new(Check::SupportLies, "query does not offer the call, and it can be planned")),
        Err(e) if e.code != Code::UNIMPLEMENTED => {
            failures.push(Failure::new(Check::RefusalCode, format!("plan of a valid call that is not offered answers {e}; it is to be UNIMPLEMENTED")));
        }
        Err(_) => {}
    }
    Ok(failures)
}

/// Launches with a workspace of exactly the stated size between guard zones, twice, with different contents in it.
pub fn check_workspace(bench: &Bench, instance: &Instance) -> Step<Vec<Failure>> {
    let queue = bench.queue()?;
    let made = instance.call.with_abi(|op| plan(bench, op, &limits()))?;
    let made = made.map_err(|e| Failure::new(Check::SupportLies, format!("the runtime planned the call, the table does not: {e}")))?;
    let bytes = made.info()?.workspace_bytes as usize;
    let mut failures = Vec::new();
    if let Ok(frugal) = instance.call.with_abi(|op| plan(bench, op, &abi::PlanLimits { workspace_bytes: 0, ..limits() }))? {
        let taken = frugal.info()?.workspace_bytes;
        if taken > 0 {
            failures.push(Failure::new(Check::Workspace, format!("a plan limited to no workspace asks for {taken} bytes")));
        }
    }
    let references = references(instance)?;
    let workspace = bench.memory((ZONE + bytes + ZONE) as u64)?;
    let images: Vec<Option<Vec<u8>>> = instance.inputs.iter().map(|m| (!m.tensor.is_none()).then(|| image(&m.bytes))).collect();
    let inputs = images.iter().map(|i| i.as_ref().map(|i| bench.memory(i.len() as u64)).transpose()).collect::<Step<Vec<_>>>()?;
    let outputs = instance.outputs.iter().map(|m| bench.memory((ZONE + m.bytes.len() + ZONE) as u64)).collect::<Step<Vec<Memory>>>()?;
    for (memory, image) in inputs.iter().zip(&images) {
        if let (Some(memory), Some(image)) = (memory, image) {
            queue.write(memory, 0, image)?;
        }
    }
    let bind = |memory: Option<&Memory>, m: &HostMemory| Binding {
        buffer: memory.map_or(core::ptr::null_mut(), |b| b.handle.0),
        byte_offset: (ZONE + m.origin) as u64,
    };
    let bindings: Vec<Binding> = inputs
        .iter()
        .map(Option::as_ref)
        .zip(&instance.inputs)
        .chain(outputs.iter().map(Some).zip(&instance.outputs))
        .map(|(memory, m)| bind(memory, m))
        .collect();
    for poison in [Poison::A, Poison::B] {
        let before = poisoned(poison, workspace.bytes as usize);
        queue.write(&workspace, 0, &before)?;
        for memory in &outputs {
            queue.write(memory, 0, &poisoned(poison, memory.bytes as usize))?;
        }
        made.launch(&queue, &bindings, Binding { buffer: workspace.handle.0, byte_offset: ZONE as u64 })?;
        queue.sync()?;
        let after = queue.read(&workspace, 0, workspace.bytes)?;
        if let Some(at) = first_difference(&before, &after, |i| i < ZONE || i >= ZONE + bytes) {
            let place = at as i64 - ZONE as i64;
            failures.push(Failure::new(Check::Workspace, format!("byte {place} of a workspace of {bytes} bytes was written")));
        }
        for ((memory, m), reference) in outputs.iter().zip(&instance.outputs).zip(&references) {
            let now = queue.read(memory, 0, memory.bytes)?;
            let (_, failure) = judge(instance.call.operator.numerics, &m.tensor, &now, ZONE + m.origin, reference, "output");
            failures.extend(failure.map(|f| Failure::new(Check::Workspace, format!("with a workspace of exactly {bytes} bytes of other contents: {}", f.message))));
        }
    }
    failures.truncate(3);
    Ok(failures)
}
