//! Fourier transforms: what is offered, and plans. Delete it, and `fft` in lib.rs, where there is no FFT library.

use flagos_backend_api::vendor::{Answered, Fft};
use flagos_backend_api::{DType, FftDesc, FftKind, PlanLimits, Result};
use flagos_catalog::fft;

use crate::device::NullDevice;
use crate::fault;
use crate::plan::{NullPlan, Work, offered};

impl Fft for NullDevice {
    type FftPlan = NullPlan;

    /// Level 0 decides by kind and precision. Illegal layouts are `plan`'s to refuse.
    fn query_fft(&self, desc: &FftDesc, level: u32) -> Result<Answered> {
        if ![FftKind::C2C, FftKind::R2C, FftKind::C2R].contains(&FftKind(desc.transform)) {
            return Ok(Answered::no("this kind of transform is not in the catalogue"));
        }
        if ![DType::F32, DType::F64].contains(&desc.precision) {
            return Ok(Answered::no("a precision other than f32 and f64"));
        }
        let plan = if level > 0 { Some(plan(desc)?) } else { None };
        Ok(offered(plan.as_ref(), level))
    }

    fn plan_fft(&self, desc: &FftDesc, _: &PlanLimits) -> Result<NullPlan> {
        let plan = plan(desc)?;
        fault::planned()?;
        Ok(plan)
    }
}

fn plan(desc: &FftDesc) -> Result<NullPlan> {
    // The glue has filled in what a shorter struct lacks, and found nothing in a longer one.
    let mut desc = FftDesc { size: FftDesc::SIZE, ..*desc };
    fft::check(&desc)?;
    fault::fft(&mut desc);
    NullPlan::new(Work::Fft(desc))
}
