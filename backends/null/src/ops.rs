//! Operators: what is offered, and plans.
//!
//! Here every operator of the catalogue is computed by its reference. A chip's backend offers the few it is good at and says NO to the rest:
//! the host then takes portable kernels or another device.

use flagos_backend_api::vendor::{Answered, OpRef, Operators};
use flagos_backend_api::{PlanLimits, Result};
use flagos_catalog::{Call, takes};

use crate::device::NullDevice;
use crate::fault;
use crate::plan::{MOST_OPERANDS, NullPlan, Work, offered};

impl Operators for NullDevice {
    type OpPlan = NullPlan;

    /// Level 0 decides by id and types alone: it is asked at every call whose plan is not cached, and must stay below 50 ns.
    fn query_op(&self, op: OpRef<'_>, level: u32) -> Result<Answered> {
        // Replace: `takes`, then your own list of operators, types and layouts.
        if let Err(reason) = takes(op) {
            return Ok(Answered::no(reason));
        }
        if op.inputs().len() + op.outputs().len() > MOST_OPERANDS {
            return Ok(Answered::no("more than 32 operands"));
        }
        let plan = if level > 0 { Some(plan(op)?) } else { None };
        Ok(offered(plan.as_ref(), level))
    }

    /// May be slow: compile, ask the vendor library for its heuristics, allocate. Everything a launch needs is settled here.
    fn plan_op(&self, op: OpRef<'_>, _: &PlanLimits) -> Result<NullPlan> {
        let plan = plan(op)?;
        fault::planned()?;
        Ok(plan)
    }
}

fn plan(op: OpRef<'_>) -> Result<NullPlan> {
    // SAFETY: an OpRef's descriptor is valid by construction.
    let call = unsafe { Call::from_abi(op.raw()) }?;
    call.check()?;
    NullPlan::new(Work::Operator(call))
}
