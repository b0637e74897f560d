//! Plans of operator calls: a kernel with the addresses of its operands.

use std::cell::Cell;

use flagos_backend_api::vendor::{Answered, LaunchArgs, OpRef, Operators, PlanFacts, Planned};
use flagos_backend_api::{PlanLimits, Result, properties};
use flagos_catalog::{Call, by_id, types_of};

use crate::device::CpuDevice;
use crate::kernel::Kernel;
use crate::ops;
use crate::stream::CpuStream;
use crate::target::Target;

/// Operand addresses kept on the stack; calls with more use a list the thread keeps.
const ON_STACK: usize = 16;

/// A planned operator call.
pub struct CpuPlan {
    kernel: Box<dyn Kernel>,
    name: String,
    in_place: bool,
}

impl Operators for CpuDevice {
    type OpPlan = CpuPlan;

    fn query_op(&self, op: OpRef<'_>, level: u32) -> Result<Answered> {
        let Some(operator) = by_id(op.id()).filter(|_| ops::offers(op.id())) else { return Ok(Answered::no("no kernel for this operator")) };
        if op.revision() != operator.revision {
            return Ok(Answered::no("another revision of the operator"));
        }
        let rules = operator.inputs;
        let typed = |t: &flagos_backend_api::Tensor, i: usize, rules: &[flagos_catalog::Operand]| {
            rules.get(i).or(rules.last()).is_some_and(|r| (t.is_none() && r.optional) || types_of(r.types).has(t.dtype))
        };
        let inputs = op.inputs().iter().enumerate().all(|(i, t)| typed(t, i, rules));
        if !inputs || !op.outputs().iter().enumerate().all(|(i, t)| typed(t, i, operator.outputs)) {
            return Ok(Answered::no("an element type this operator does not take"));
        }
        if level == 0 {
            return Ok(Answered::YES);
        }
        let plan = make(op)?;
        let facts = plan.facts();
        // Fixed cost of a launch, memory at 10 GB/s per thread, 20 GFLOP/s per thread: orders of magnitude for a choice between chips.
        let threads = Target::host().threads as f64;
        let cost = if level >= 2 { [100.0, 0.1 / threads, 0.05 / threads] } else { [0.0; 3] };
        Ok(Answered { properties: facts.properties, workspace_bytes: facts.workspace_bytes, cost, ..Answered::YES })
    }

    fn plan_op(&self, op: OpRef<'_>, _: &PlanLimits) -> Result<CpuPlan> {
        make(op)
    }
}

fn make(op: OpRef<'_>) -> Result<CpuPlan> {
    // SAFETY: an OpRef's descriptor is valid by construction.
    let call = unsafe { Call::from_abi(op.raw()) }?;
    call.check()?;
    let kernel = ops::plan(&call, Target::host())?;
    Ok(CpuPlan { name: kernel.name(), in_place: call.operator.in_place, kernel })
}

impl Planned<CpuDevice> for CpuPlan {
    fn facts(&self) -> PlanFacts<'_> {
        let bit = |on: bool, bit: u32| if on { bit } else { 0 };
        PlanFacts {
            workspace_bytes: self.kernel.workspace_bytes() as u64,
            properties: bit(self.kernel.deterministic(), properties::DETERMINISTIC) | bit(self.in_place, properties::IN_PLACE),
            implementation: &self.name,
        }
    }

    fn launch(&self, device: &CpuDevice, _: &CpuStream, args: &LaunchArgs<'_, CpuDevice>) -> Result<()> {
        let address = |i: usize| args.binding(i).map_or(core::ptr::null_mut(), |(b, offset)| b.at(offset));
        let workspace = args.workspace().map_or(core::ptr::null_mut(), |(b, offset)| b.at(offset));
        let run = |operands: &[*mut u8]| {
            // SAFETY: the host bound memory of the planned extents to every operand and a workspace of the planned size.
            unsafe { self.kernel.run(operands, workspace, device.pool) }
        };
        if args.len() <= ON_STACK {
            let mut operands = [core::ptr::null_mut(); ON_STACK];
            for (i, operand) in operands[..args.len()].iter_mut().enumerate() {
                *operand = address(i);
            }
            return run(&operands[..args.len()]);
        }
        thread_local! {
            static LONG: Cell<Vec<*mut u8>> = const { Cell::new(Vec::new()) };
        }
        let mut operands = LONG.take();
        operands.clear();
        operands.extend((0..args.len()).map(address));
        let result = run(&operands);
        LONG.set(operands);
        result
    }
}
