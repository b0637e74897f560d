//! BLAS: what is offered, and plans. Delete it, and `blas` in lib.rs, where there is no BLAS library.

use flagos_backend_api::vendor::{Answered, Blas};
use flagos_backend_api::{BlasDesc, PlanLimits, Result};
use flagos_catalog::blas;

use crate::device::NullDevice;
use crate::fault;
use crate::plan::{NullPlan, Work, offered};

impl Blas for NullDevice {
    type BlasPlan = NullPlan;

    /// Level 0 decides by routine and types. Illegal parameters are `plan`'s to refuse.
    fn query_blas(&self, desc: &BlasDesc, level: u32) -> Result<Answered> {
        let Some(routine) = blas::routine(desc.routine) else { return Ok(Answered::no("this routine is not in the catalogue")) };
        let typed = |t: &blas::Types| t.dtype == desc.dtype && t.out_dtype == desc.out_dtype && t.compute_dtype == desc.compute_dtype;
        if !routine.types.iter().any(typed) {
            return Ok(Answered::no("element types this routine does not take"));
        }
        let plan = if level > 0 { Some(plan(desc)?) } else { None };
        Ok(offered(plan.as_ref(), level))
    }

    fn plan_blas(&self, desc: &BlasDesc, _: &PlanLimits) -> Result<NullPlan> {
        let plan = plan(desc)?;
        fault::planned()?;
        Ok(plan)
    }
}

fn plan(desc: &BlasDesc) -> Result<NullPlan> {
    // The glue has filled in what a shorter struct lacks, and found nothing in a longer one.
    let mut desc = BlasDesc { size: BlasDesc::SIZE, ..*desc };
    blas::check(&desc)?;
    fault::blas(&mut desc);
    NullPlan::new(Work::Blas(desc))
}
