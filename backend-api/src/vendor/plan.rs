//! Operators, BLAS and FFT over safe traits: query, plan, launch.

use core::ffi::c_void;

use crate::{Answer, Binding, BlasDesc, BlasTable, Code, Error, FftDesc, FftTable, Launch, Op, OpTable, Plan, PlanInfo, PlanLimits, PlanTable, Result, Status, Str, Support};

use super::export::{Backend, table};
use super::handle::{Handle, put};
use super::{Device, Memory, OpRef, Streams};
use crate::checked::{self, null};

/// Answer of a query. Fields beyond the level asked may stay at their defaults.
#[derive(Clone, Copy, Debug)]
pub struct Answered {
    /// NO, YES or YES_SLOW.
    pub answer: Answer,
    /// Why not, or why slow.
    pub reason: &'static str,
    /// Level 1: [`properties`](crate::properties) bits.
    pub properties: u32,
    /// Level 1: workspace in bytes.
    pub workspace_bytes: u64,
    /// Level 2: fixed cost, cost per byte, cost per operation, in ns.
    pub cost: [f64; 3],
}

impl Answered {
    /// Offered.
    pub const YES: Answered = Answered { answer: Answer::YES, reason: "", properties: 0, workspace_bytes: 0, cost: [0.0; 3] };
    /// Not offered, with the reason.
    pub const fn no(reason: &'static str) -> Answered {
        Answered { answer: Answer::NO, reason, ..Answered::YES }
    }
}

/// What a plan needs and promises.
#[derive(Clone, Copy, Debug)]
pub struct PlanFacts<'a> {
    /// Workspace in bytes.
    pub workspace_bytes: u64,
    /// [`properties`](crate::properties) bits.
    pub properties: u32,
    /// Which implementation was chosen.
    pub implementation: &'a str,
}

/// Arguments of a launch.
pub struct LaunchArgs<'a, D: Memory> {
    bindings: &'a [Binding],
    launch: &'a Launch,
    _device: core::marker::PhantomData<fn(&D)>,
}

impl<'a, D: Memory> LaunchArgs<'a, D> {
    /// Number of bindings.
    #[inline]
    pub fn len(&self) -> usize {
        self.bindings.len()
    }
    /// Whether there are no bindings.
    pub fn is_empty(&self) -> bool {
        self.bindings.is_empty()
    }
    /// Buffer and byte offset of a binding; `None` for absent and empty operands.
    #[inline]
    pub fn binding(&self, index: usize) -> Option<(&'a D::Buffer, u64)> {
        resolve::<D>(self.bindings.get(index)?)
    }
    /// The workspace.
    #[inline]
    pub fn workspace(&self) -> Option<(&'a D::Buffer, u64)> {
        resolve::<D>(&self.launch.workspace)
    }
    /// BLAS: host address of alpha in the compute type, or NULL for 1.
    pub fn alpha(&self) -> *const c_void {
        self.launch.alpha
    }
    /// BLAS: host address of beta, or NULL for 0.
    pub fn beta(&self) -> *const c_void {
        self.launch.beta
    }
}

#[inline]
fn resolve<'a, D: Memory>(binding: &Binding) -> Option<(&'a D::Buffer, u64)> {
    if binding.buffer.is_null() {
        return None;
    }
    // SAFETY: the host names only live buffers of this backend in a launch.
    let handle = unsafe { &*binding.buffer.cast_const().cast::<Handle<D::Buffer>>() };
    Some((&handle.value, binding.byte_offset))
}

/// A prepared call. Launched from several threads on several streams at once.
pub trait Planned<D: Memory>: Send + Sync + 'static {
    /// Needs and promises.
    fn facts(&self) -> PlanFacts<'_>;
    /// Enqueues: no compilation, allocation or synchronisation.
    fn launch(&self, device: &D, stream: &<D as Streams>::Stream, args: &LaunchArgs<'_, D>) -> Result<()>;
}

macro_rules! domain {
    ($(#[$doc:meta])* $Trait:ident, $Plan:ident, $query:ident, $plan:ident, $Desc:ty, $what:literal) => {
        $(#[$doc])*
        pub trait $Trait: Device {
            /// A prepared call.
            type $Plan: Planned<Self>;
            #[doc = concat!("Whether ", $what, " is offered. Level 0 is pure and takes at most 50 ns.")]
            fn $query(&self, call: $Desc, level: u32) -> Result<Answered>;
            #[doc = concat!("Prepares ", $what, "; may compile and allocate. The descriptor is borrowed for the call.")]
            fn $plan(&self, call: $Desc, limits: &PlanLimits) -> Result<Self::$Plan>;
        }
    };
}
domain!(/** Native operators. */ Operators, OpPlan, query_op, plan_op, OpRef<'_>, "an operator call");
domain!(/** BLAS. */ Blas, BlasPlan, query_blas, plan_blas, &BlasDesc, "a BLAS call");
domain!(/** Fourier transforms. */ Fft, FftPlan, query_fft, plan_fft, &FftDesc, "a transform");

/// The operator table of a backend whose device implements [`Operators`].
pub const fn op_table<B: Backend<Device: Operators>>() -> &'static OpTable {
    const {
        &OpTable { size: OpTable::SIZE, kind: OpTable::KIND, query: Some(op_query::<B>), plan: Some(op_plan::<B>), plans: plans::<B, OpPlan<B>>() }
    }
}
/// The BLAS table of a backend whose device implements [`Blas`].
pub const fn blas_table<B: Backend<Device: Blas>>() -> &'static BlasTable {
    const {
        &BlasTable {
            size: BlasTable::SIZE,
            kind: BlasTable::KIND,
            query: Some(blas_query::<B>),
            plan: Some(blas_plan::<B>),
            plans: plans::<B, BlasPlan<B>>(),
        }
    }
}
/// The FFT table of a backend whose device implements [`Fft`].
pub const fn fft_table<B: Backend<Device: Fft>>() -> &'static FftTable {
    const {
        &FftTable { size: FftTable::SIZE, kind: FftTable::KIND, query: Some(fft_query::<B>), plan: Some(fft_plan::<B>), plans: plans::<B, FftPlan<B>>() }
    }
}

type OpPlan<B> = <<B as Backend>::Device as Operators>::OpPlan;
type BlasPlan<B> = <<B as Backend>::Device as Blas>::BlasPlan;
type FftPlan<B> = <<B as Backend>::Device as Fft>::FftPlan;

const fn plans<B: Backend, P: Planned<B::Device>>() -> &'static PlanTable {
    const {
        &PlanTable {
            size: PlanTable::SIZE,
            kind: PlanTable::KIND,
            info: Some(info::<B, P>),
            launch: Some(launch::<B, P>),
            destroy: Some(destroy::<B, P>),
        }
    }
}

/// Writes an answer into the caller's struct.
///
/// # Safety
/// `out` is NULL or a struct of the size it states.
unsafe fn answer(out: *mut Support, a: &Answered) -> Result<()> {
    let support = Support {
        size: Support::SIZE,
        kind: Support::KIND,
        answer: a.answer.0,
        properties: a.properties,
        reason: Str::new(a.reason),
        workspace_bytes: a.workspace_bytes,
        fixed_ns: a.cost[0],
        ns_per_byte: a.cost[1],
        ns_per_flop: a.cost[2],
    };
    // SAFETY: stated by the caller.
    unsafe { checked::write(out, &support) }
}

/// Absent limits are no limits.
///
/// # Safety
/// `limits` is NULL or a struct of the size it states.
unsafe fn limits_of(limits: *const PlanLimits) -> Result<PlanLimits> {
    if limits.is_null() {
        return Ok(PlanLimits { size: PlanLimits::SIZE, kind: PlanLimits::KIND, workspace_bytes: u64::MAX, deterministic: 0, flags: 0 });
    }
    // SAFETY: stated by the caller.
    unsafe { checked::read(limits) }
}

/// Checks a plan against its limits and hands it out.
///
/// # Safety
/// `out_plan` is NULL or writable.
unsafe fn hand_out<B: Backend, P: Planned<B::Device>>(device: *mut crate::Device, plan: P, limits: &PlanLimits, out_plan: *mut *mut Plan) -> Result<()> {
    let facts = plan.facts();
    if facts.workspace_bytes > limits.workspace_bytes {
        return Err(Error::new(
            Code::RESOURCE_EXHAUSTED,
            format!("needs {} bytes of workspace, {} are allowed", facts.workspace_bytes, limits.workspace_bytes),
        ));
    }
    if limits.deterministic != 0 && facts.properties & crate::properties::DETERMINISTIC == 0 {
        return Err(Error::unimplemented(format!("'{}' is not deterministic", facts.implementation)));
    }
    // SAFETY: stated by the caller.
    unsafe { put(out_plan, "out_plan", Handle::give(table::<B>(), device.cast_const().cast(), plan)) }
}

/// # Safety
/// `raw` is NULL or an open device of backend `B`.
#[inline]
unsafe fn device<'a, B: Backend>(raw: *mut crate::Device) -> Result<&'a B::Device> {
    // SAFETY: stated by the caller.
    Ok(&unsafe { Handle::<B::Device>::of(raw, "device") }?.value)
}

unsafe extern "C" fn op_query<B: Backend<Device: Operators>>(d: *mut crate::Device, op: *const Op, level: u32, out: *mut Support) -> *mut Status {
    B::state().guard(|| {
        // SAFETY: the host passes an open device, a valid descriptor and a struct of the size it states.
        unsafe { answer(out, &device::<B>(d)?.query_op(OpRef::new(op)?, level)?) }
    })
}

unsafe extern "C" fn op_plan<B: Backend<Device: Operators>>(
    d: *mut crate::Device,
    op: *const Op,
    limits: *const PlanLimits,
    out: *mut *mut Plan,
) -> *mut Status {
    B::state().guard(|| {
        // SAFETY: the host passes an open device, valid descriptors and a writable place.
        unsafe {
            let limits = limits_of(limits)?;
            let plan = device::<B>(d)?.plan_op(OpRef::new(op)?, &limits)?;
            hand_out::<B, _>(d, plan, &limits, out)
        }
    })
}

unsafe extern "C" fn blas_query<B: Backend<Device: Blas>>(d: *mut crate::Device, desc: *const BlasDesc, level: u32, out: *mut Support) -> *mut Status {
    B::state().guard(|| {
        // SAFETY: the host passes an open device and structs of the sizes they state.
        unsafe { answer(out, &device::<B>(d)?.query_blas(&checked::read(desc)?, level)?) }
    })
}

unsafe extern "C" fn blas_plan<B: Backend<Device: Blas>>(
    d: *mut crate::Device,
    desc: *const BlasDesc,
    limits: *const PlanLimits,
    out: *mut *mut Plan,
) -> *mut Status {
    B::state().guard(|| {
        // SAFETY: the host passes an open device, structs of the sizes they state and a writable place.
        unsafe {
            let limits = limits_of(limits)?;
            let plan = device::<B>(d)?.plan_blas(&checked::read(desc)?, &limits)?;
            hand_out::<B, _>(d, plan, &limits, out)
        }
    })
}

unsafe extern "C" fn fft_query<B: Backend<Device: Fft>>(d: *mut crate::Device, desc: *const FftDesc, level: u32, out: *mut Support) -> *mut Status {
    B::state().guard(|| {
        // SAFETY: the host passes an open device and structs of the sizes they state.
        unsafe { answer(out, &device::<B>(d)?.query_fft(&checked::read(desc)?, level)?) }
    })
}

unsafe extern "C" fn fft_plan<B: Backend<Device: Fft>>(
    d: *mut crate::Device,
    desc: *const FftDesc,
    limits: *const PlanLimits,
    out: *mut *mut Plan,
) -> *mut Status {
    B::state().guard(|| {
        // SAFETY: the host passes an open device, structs of the sizes they state and a writable place.
        unsafe {
            let limits = limits_of(limits)?;
            let plan = device::<B>(d)?.plan_fft(&checked::read(desc)?, &limits)?;
            hand_out::<B, _>(d, plan, &limits, out)
        }
    })
}

unsafe extern "C" fn info<B: Backend, P: Planned<B::Device>>(plan: *mut Plan, out_info: *mut PlanInfo) -> *mut Status {
    B::state().guard(|| {
        // SAFETY: the host passes a live plan of this table and a struct of the size it states.
        unsafe {
            let facts = Handle::<P>::of(plan, "plan")?.value.facts();
            let info = PlanInfo {
                size: PlanInfo::SIZE,
                kind: PlanInfo::KIND,
                workspace_bytes: facts.workspace_bytes,
                properties: facts.properties,
                flags: 0,
                implementation: Str::borrowed(facts.implementation),
            };
            checked::write(out_info, &info)
        }
    })
}

unsafe extern "C" fn launch<B: Backend, P: Planned<B::Device>>(plan: *mut Plan, stream: *mut crate::Stream, args: *const Launch) -> *mut Status {
    B::state().guard(|| {
        // SAFETY: the host passes a live plan of this table, a live stream of this backend and a struct of the size it states.
        unsafe {
            let (plan, stream) = (Handle::<P>::of(plan, "plan")?, Handle::<<B::Device as Streams>::Stream>::of(stream, "stream")?);
            checked::lend(args, |launch| {
                if launch.flags != 0 || (launch.n_bindings > 0 && launch.bindings.is_null()) {
                    return Err(null("bindings (or flags is not 0)"));
                }
                let bindings = if launch.n_bindings == 0 { &[] } else { core::slice::from_raw_parts(launch.bindings, launch.n_bindings as usize) };
                let args = LaunchArgs { bindings, launch, _device: core::marker::PhantomData };
                plan.value.launch(plan.device::<B::Device>(), &stream.value, &args)
            })
        }
    })
}

unsafe extern "C" fn destroy<B: Backend, P: Planned<B::Device>>(plan: *mut Plan) -> *mut Status {
    B::state().guard_always(|| {
        // SAFETY: the host hands back a plan of this table, once.
        drop(unsafe { Handle::<P>::take(plan, "plan") }?);
        Ok(())
    })
}
