//! Plans: kernels of the three domains behind one launch.

use core::mem::MaybeUninit;
use std::cell::Cell;

use flagos_backend_api::vendor::{Answered, Blas, Fft, LaunchArgs, OpRef, Operators, PlanFacts, Planned};
use flagos_backend_api::{ATTR_HINT, Attr, BlasDesc, Code, Error, FftDesc, MAX_RANK, PlanLimits, Result, properties};
use flagos_catalog::{Call, KEYS, by_id, types_of};

use crate::blas::BlasKernel;
use crate::device::CpuDevice;
use crate::fft::FftKernel;
use crate::kernel::Kernel;
use crate::{blas, fft, ops};
use crate::scratch::ALIGN;
use crate::stream::CpuStream;
use crate::target::Target;
use crate::tensor::settled;

/// Operand addresses kept on the stack; calls with more use a list the thread keeps.
const ON_STACK: usize = 16;

/// A planned call.
pub struct CpuPlan {
    body: Body,
    name: String,
    workspace_bytes: usize,
    properties: u32,
}

enum Body {
    Op(Box<dyn Kernel>),
    Blas(Box<dyn BlasKernel>),
    Fft(Box<dyn FftKernel>),
}

/// An answer at the level asked, from a plan made for it.
fn answered(plan: &CpuPlan, level: u32) -> Answered {
    // Fixed cost of a launch, memory at 10 GB/s per thread, 20 GFLOP/s per thread: orders of magnitude for a choice between chips.
    let threads = Target::host().threads as f64;
    let cost = if level >= 2 { [100.0, 0.1 / threads, 0.05 / threads] } else { [0.0; 3] };
    Answered { properties: plan.properties, workspace_bytes: plan.workspace_bytes as u64, cost, ..Answered::YES }
}

/// The answer for a plan that was tried: what is not offered is a NO, what is wrong an error.
fn tried(plan: Result<CpuPlan>, level: u32) -> Result<Answered> {
    match plan {
        Ok(plan) => Ok(answered(&plan, level)),
        Err(Error { code: Code::UNIMPLEMENTED, .. }) => Ok(Answered::no("not offered for these types or this layout")),
        Err(e) => Err(e),
    }
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
            let shaped = t.rank as usize <= MAX_RANK && t.shape().iter().all(|n| *n >= 0);
            shaped && rules.get(i).or(rules.last()).is_some_and(|r| (t.is_none() && r.optional) || types_of(r.types).has(t.dtype))
        };
        let known = |a: &Attr| a.key & ATTR_HINT != 0 || KEYS.get(a.key as usize).is_some_and(|name| operator.attributes.iter().any(|s| s.name == *name));
        if !op.attrs().iter().all(known) {
            return Ok(Answered::no("an attribute this operator does not have"));
        }
        let inputs = op.inputs().iter().enumerate().all(|(i, t)| typed(t, i, rules));
        if !inputs || !op.outputs().iter().enumerate().all(|(i, t)| typed(t, i, operator.outputs)) {
            return Ok(Answered::no("an element type or shape this operator does not take"));
        }
        if level == 0 {
            return Ok(Answered::YES);
        }
        tried(make(op), level)
    }

    fn plan_op(&self, op: OpRef<'_>, _: &PlanLimits) -> Result<CpuPlan> {
        make(op)
    }
}

fn flags(deterministic: bool, in_place: bool) -> u32 {
    let bit = |on: bool, bit: u32| if on { bit } else { 0 };
    bit(deterministic, properties::DETERMINISTIC) | bit(in_place, properties::IN_PLACE)
}

fn make(op: OpRef<'_>) -> Result<CpuPlan> {
    // SAFETY: an OpRef's descriptor is valid by construction.
    let mut call = unsafe { Call::from_abi(op.raw()) }?;
    call.check()?;
    call.inputs.iter_mut().chain(&mut call.outputs).for_each(|t| *t = settled(t));
    let kernel = ops::plan(&call, Target::host())?;
    let properties = flags(kernel.deterministic(), call.operator.in_place);
    Ok(CpuPlan { name: kernel.name(), workspace_bytes: kernel.workspace_bytes(), properties, body: Body::Op(kernel) })
}

impl Blas for CpuDevice {
    type BlasPlan = CpuPlan;

    fn query_blas(&self, call: &BlasDesc, level: u32) -> Result<Answered> {
        if level == 0 {
            let offered = flagos_catalog::blas::check(call);
            return match offered {
                Ok(()) => Ok(Answered::YES),
                Err(e) if e.code == Code::UNIMPLEMENTED => Ok(Answered::no("no such routine for these types")),
                Err(e) => Err(e),
            };
        }
        tried(self.plan_blas_checked(call), level)
    }
    fn plan_blas(&self, call: &BlasDesc, _: &PlanLimits) -> Result<CpuPlan> {
        self.plan_blas_checked(call)
    }
}

impl Fft for CpuDevice {
    type FftPlan = CpuPlan;

    fn query_fft(&self, call: &FftDesc, level: u32) -> Result<Answered> {
        if level == 0 {
            return match flagos_catalog::fft::check(call) {
                Ok(()) => Ok(Answered::YES),
                Err(e) if e.code == Code::UNIMPLEMENTED => Ok(Answered::no("no such transform for this type")),
                Err(e) => Err(e),
            };
        }
        tried(self.plan_fft_checked(call), level)
    }
    fn plan_fft(&self, call: &FftDesc, _: &PlanLimits) -> Result<CpuPlan> {
        self.plan_fft_checked(call)
    }
}

impl CpuDevice {
    fn plan_blas_checked(&self, call: &BlasDesc) -> Result<CpuPlan> {
        let kernel = blas::plan(call, Target::host())?;
        let properties = flags(kernel.deterministic(), false);
        Ok(CpuPlan { name: kernel.name(), workspace_bytes: kernel.workspace_bytes(), properties, body: Body::Blas(kernel) })
    }
    fn plan_fft_checked(&self, call: &FftDesc) -> Result<CpuPlan> {
        let kernel = fft::plan(call, Target::host())?;
        let properties = flags(kernel.deterministic(), true);
        Ok(CpuPlan { name: kernel.name(), workspace_bytes: kernel.workspace_bytes(), properties, body: Body::Fft(kernel) })
    }
}

impl Planned<CpuDevice> for CpuPlan {
    fn facts(&self) -> PlanFacts<'_> {
        PlanFacts { workspace_bytes: self.workspace_bytes as u64, properties: self.properties, implementation: &self.name }
    }

    fn launch(&self, device: &CpuDevice, _: &CpuStream, args: &LaunchArgs<'_, CpuDevice>) -> Result<()> {
        let address = |i: usize| args.binding(i).map_or(core::ptr::null_mut(), |(b, offset)| b.at(offset));
        // Slices of no elements need an aligned address too.
        let workspace = args.workspace().map_or(core::ptr::without_provenance_mut(ALIGN), |(b, offset)| b.at(offset));
        let run = |operands: &[*mut u8]| {
            let scalar = |address: *const core::ffi::c_void| (!address.is_null()).then(|| address.cast::<u8>());
            // SAFETY: the host bound memory of the planned extents to every operand and a workspace of the planned size; scalars are
            // NULL or hold a value of the compute type.
            unsafe {
                match &self.body {
                    Body::Op(kernel) => kernel.run(operands, workspace, device.pool),
                    Body::Blas(kernel) => kernel.run(operands, scalar(args.alpha()), scalar(args.beta()), workspace, device.pool),
                    Body::Fft(kernel) => kernel.run(operands, workspace, device.pool),
                }
            }
        };
        if args.len() <= ON_STACK {
            let mut operands = [const { MaybeUninit::<*mut u8>::uninit() }; ON_STACK];
            for (i, operand) in operands[..args.len()].iter_mut().enumerate() {
                operand.write(address(i));
            }
            // SAFETY: the first `len` places were written, and MaybeUninit<T> has the layout of T.
            return run(unsafe { core::slice::from_raw_parts(operands.as_ptr().cast(), args.len()) });
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
