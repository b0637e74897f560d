//! Plans: a call made ready for a device, launched many times.

use core::mem::MaybeUninit;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use flagos_backend_api as abi;
use flagos_backend_api::{Binding, Code, Error, Launch, Result};

use crate::device::Device;
use crate::driver::{Raw, text};
use crate::fallback::FallbackPlan;
use crate::memory::Buffer;
use crate::module::Loaded;
use crate::portable::{self, PortablePlan};
use crate::select::Choice;
use crate::stream::{Mark, Stream};
use crate::work::{Span, Work};

/// Bindings kept on the stack during a launch; calls with more go through the heap.
const STACK_BINDINGS: usize = 16;

/// Memory for one operand: element (0, …, 0) lies at `byte_offset` of `buffer`. Absent operands are `None`.
pub type Operand<'a> = Option<(&'a Buffer, u64)>;

/// Host addresses of BLAS scalars in the compute type; NULL: alpha 1, beta 0.
#[derive(Clone, Copy)]
pub struct Scalars {
    /// Address of alpha.
    pub alpha: *const u8,
    /// Address of beta.
    pub beta: *const u8,
}

impl Scalars {
    /// No scalars.
    pub const NONE: Scalars = Scalars { alpha: core::ptr::null(), beta: core::ptr::null() };
}

/// A prepared call. Launch it from several threads on several streams at once if you like.
#[derive(Clone)]
pub struct Plan(pub(crate) Arc<PlanInner>);

pub(crate) struct PlanInner {
    pub(crate) serial: u64,
    pub(crate) device: Device,
    pub(crate) spans: Vec<Span>,
    pub(crate) kind: PlanKind,
    pub(crate) workspace_bytes: u64,
    properties: u32,
    implementation: String,
    operator: String,
    choice: Choice,
}

pub(crate) enum PlanKind {
    /// The backend's own implementation.
    Native { raw: Raw<abi::Plan>, table: &'static abi::PlanTable },
    /// Portable kernels compiled for the device.
    Portable(PortablePlan),
    /// Another device's, with copies.
    Fallback(Box<FallbackPlan>),
}

/// What was released while its launches may be in flight.
pub(crate) enum Dead {
    /// A backend's plan.
    Plan(Raw<abi::Plan>, &'static abi::PlanTable),
    /// A kernel of the caller's.
    Kernel(Loaded),
}

impl Dead {
    fn destroy(self, device: &Device) {
        match self {
            Dead::Plan(raw, table) => destroy(device, raw, table),
            Dead::Kernel(loaded) => loaded.destroy(device.driver()),
        }
    }
}

/// What waits for its last launches.
static GRAVEYARD: Mutex<Vec<Grave>> = Mutex::new(Vec::new());

struct Grave {
    device: Device,
    dead: Dead,
    marks: Vec<Mark>,
}

impl Plan {
    /// Plans a call without consulting the cache.
    pub(crate) fn make(device: &Device, work: &Work, choice: Choice, deterministic: bool) -> Result<Plan> {
        device.driver().check_health()?;
        sweep();
        let limits = abi::PlanLimits {
            size: abi::PlanLimits::SIZE,
            kind: abi::PlanLimits::KIND,
            workspace_bytes: u64::MAX,
            deterministic: deterministic.into(),
            flags: 0,
        };
        let driver = device.driver();
        let (raw, table) = match work.plan(driver, device.0.raw, &limits) {
            Err(e) if e.code == Code::RESOURCE_EXHAUSTED => {
                device.trim()?;
                work.plan(driver, device.0.raw, &limits)?
            }
            other => other?,
        };
        let info = driver.plan_info(table, raw).inspect_err(|_| destroy(device, raw, table))?;
        Ok(PlanInner {
            serial: 0,
            device: device.clone(),
            spans: work.spans()?,
            kind: PlanKind::Native { raw, table },
            workspace_bytes: info.workspace_bytes,
            properties: info.properties,
            implementation: text(info.implementation),
            operator: work.name(),
            choice,
        }
        .registered())
    }

    /// Plans a call by portable kernels, compiling those that no cache holds.
    pub(crate) fn portable(device: &Device, work: &Work, choice: Choice, deterministic: bool) -> Result<Plan> {
        device.driver().check_health()?;
        sweep();
        let recipe = portable::recipe(device, work)?;
        if deterministic && !recipe.deterministic {
            return Err(Error::unimplemented("its portable kernels do not give equal bits on every run"));
        }
        let in_place = matches!(work, Work::Op(call) if call.operator.in_place);
        let flag = |on: bool, bit: u32| if on { bit } else { 0 };
        let plan = match PortablePlan::new(device, &recipe) {
            Err(e) if e.code == Code::RESOURCE_EXHAUSTED => {
                device.trim()?;
                PortablePlan::new(device, &recipe)?
            }
            other => other?,
        };
        Ok(PlanInner {
            serial: 0,
            device: device.clone(),
            spans: work.spans()?,
            kind: PlanKind::Portable(plan),
            workspace_bytes: recipe.workspace_bytes,
            properties: flag(recipe.deterministic, abi::properties::DETERMINISTIC) | flag(in_place, abi::properties::IN_PLACE),
            implementation: format!("portable: {}", portable::keys(&recipe)),
            operator: work.name(),
            choice,
        }
        .registered())
    }

    pub(crate) fn fallback(device: &Device, work: &Work, inner: FallbackPlan, choice: Choice) -> Result<Plan> {
        Ok(PlanInner {
            serial: 0,
            device: device.clone(),
            spans: work.spans()?,
            workspace_bytes: 0,
            properties: inner.plan.0.properties & !abi::properties::CAPTURABLE,
            implementation: format!("fallback on {}: {}", inner.plan.0.device.name(), inner.plan.0.implementation),
            operator: work.name(),
            kind: PlanKind::Fallback(Box::new(inner)),
            choice,
        }
        .registered())
    }

    /// The device it runs on.
    pub fn device(&self) -> &Device {
        &self.0.device
    }
    /// Operator name.
    pub fn operator(&self) -> &str {
        &self.0.operator
    }
    /// Which implementation runs ("avx512 contiguous").
    pub fn implementation(&self) -> &str {
        &self.0.implementation
    }
    /// Why it was chosen.
    pub fn choice(&self) -> &Choice {
        &self.0.choice
    }
    /// Workspace in bytes.
    pub fn workspace_bytes(&self) -> u64 {
        self.0.workspace_bytes
    }
    /// [`abi::properties`] bits.
    pub fn properties(&self) -> u32 {
        self.0.properties
    }
    /// Whether it runs portable kernels on its device.
    pub fn is_portable(&self) -> bool {
        matches!(self.0.kind, PlanKind::Portable(_))
    }
    /// Whether it runs on another device with copies.
    pub fn is_fallback(&self) -> bool {
        matches!(self.0.kind, PlanKind::Fallback(_))
    }
    /// What each binding touches.
    pub fn spans(&self) -> &[Span] {
        &self.0.spans
    }

    /// Enqueues the call: inputs in order, then outputs. Native and portable plans only enqueue; fallbacks copy, run and wait.
    pub fn launch(&self, stream: &Stream, operands: &[Operand]) -> Result<()> {
        // SAFETY: no scalars are passed.
        unsafe { self.launch_scaled(stream, operands, Scalars::NONE) }
    }

    /// [`launch`](Plan::launch) with BLAS scalars.
    ///
    /// # Safety
    /// Non-null scalar addresses hold a value of the compute type each; they are read before this returns.
    pub unsafe fn launch_scaled(&self, stream: &Stream, operands: &[Operand], scalars: Scalars) -> Result<()> {
        // SAFETY: passed on to the caller.
        unsafe { self.launch_with(stream, operands.len(), |i| Ok(operands[i]), scalars) }
    }

    /// [`launch_scaled`](Plan::launch_scaled) of `n` operands asked for by index, each once where nothing but the launch looks at them: a list
    /// made only to be read once would be a good part of a launch.
    ///
    /// # Safety
    /// As [`launch_scaled`](Plan::launch_scaled).
    #[inline]
    pub unsafe fn launch_with<'a>(&self, stream: &Stream, n: usize, operand: impl Fn(usize) -> Result<Operand<'a>>, scalars: Scalars) -> Result<()> {
        let plan = &*self.0;
        if n != plan.spans.len() || !Arc::ptr_eq(&stream.0.device.0, &plan.device.0) {
            return self.misuse(stream, n);
        }
        if n > STACK_BINDINGS || !plan.device.0.layers.is_empty() || matches!(plan.kind, PlanKind::Fallback(_)) {
            // SAFETY: passed on to the caller.
            return unsafe { self.launch_listed(stream, n, &operand, scalars) };
        }
        if matches!(plan.kind, PlanKind::Portable(_)) {
            // Kernels ask for their operands by index, several times and out of order.
            let mut operands = [None; STACK_BINDINGS];
            for (i, place) in operands.iter_mut().enumerate().take(n) {
                *place = operand(i)?;
                self.bind(i, place, &plan.spans[i])?;
            }
            plan.device.driver().check_health()?;
            crate::trace::record(plan.serial);
            // SAFETY: passed on to the caller.
            return unsafe { self.run(stream, &[], &operands[..n], scalars) };
        }
        // Left uninitialised beyond the operands: clearing it all would cost a good part of a launch.
        let mut bindings = [const { MaybeUninit::<Binding>::uninit() }; STACK_BINDINGS];
        for (i, (place, span)) in bindings.iter_mut().zip(&plan.spans).enumerate() {
            place.write(self.bind(i, &operand(i)?, span)?);
        }
        // SAFETY: as many bindings as spans were written, and MaybeUninit<T> has the layout of T.
        let bindings = unsafe { core::slice::from_raw_parts(bindings.as_ptr().cast(), n) };
        plan.device.driver().check_health()?;
        crate::trace::record(plan.serial);
        // SAFETY: passed on to the caller; the operands are for portable plans and fallbacks alone.
        unsafe { self.run(stream, bindings, &[], scalars) }
    }

    /// The general path: fallbacks, any number of operands, layers.
    #[cold]
    unsafe fn launch_listed<'a>(&self, stream: &Stream, n: usize, operand: &dyn Fn(usize) -> Result<Operand<'a>>, scalars: Scalars) -> Result<()> {
        let operands = (0..n).map(operand).collect::<Result<Vec<Operand>>>()?;
        let bound = operands.iter().zip(&self.0.spans).enumerate().map(|(i, (o, s))| self.bind(i, o, s)).collect::<Result<Vec<Binding>>>()?;
        // SAFETY: passed on to the caller.
        unsafe { self.start(stream, &bound, &operands, scalars) }
    }

    /// Checks one operand against the plan: right device, range within the buffer, aligned.
    #[inline]
    fn bind(&self, index: usize, operand: &Operand, span: &Span) -> Result<Binding> {
        match operand {
            Some((buffer, offset)) => {
                let fits = *offset <= i64::MAX as u64
                    && *offset as i64 >= -span.low
                    && (span.high <= 0 || (*offset).checked_add(span.high as u64).is_some_and(|end| end <= buffer.0.bytes))
                    || buffer.0.bytes == u64::MAX;
                let aligned = *offset & u64::from(span.align - 1) == 0;
                if fits && aligned && Arc::ptr_eq(&buffer.0.device.0, &self.0.device.0) {
                    Ok(Binding { buffer: buffer.0.raw.as_ptr(), byte_offset: *offset })
                } else {
                    self.bad_operand(index, buffer, *offset, span)
                }
            }
            None if span.is_empty() => Ok(Binding { buffer: core::ptr::null_mut(), byte_offset: 0 }),
            None => Err(Error::invalid(format!("{}: operand {index} is missing", self.0.operator)).at(index as u32)),
        }
    }

    unsafe fn start(&self, stream: &Stream, bindings: &[Binding], operands: &[Operand], scalars: Scalars) -> Result<()> {
        let plan = &*self.0;
        plan.device.driver().check_health()?;
        crate::trace::record(plan.serial);
        if plan.device.0.layers.is_empty() {
            // SAFETY: passed on to the caller.
            return unsafe { self.run(stream, bindings, operands, scalars) };
        }
        plan.device.0.layers.before_launch(self, operands)?;
        let started = std::time::Instant::now();
        // SAFETY: passed on to the caller.
        let result = unsafe { self.run(stream, bindings, operands, scalars) };
        plan.device.0.layers.after_launch(self, stream, started, &result);
        result
    }

    #[inline]
    unsafe fn run(&self, stream: &Stream, bindings: &[Binding], operands: &[Operand], scalars: Scalars) -> Result<()> {
        let plan = &*self.0;
        match &plan.kind {
            PlanKind::Native { raw, table } => {
                let mut launch = Launch {
                    size: Launch::SIZE,
                    kind: Launch::KIND,
                    bindings: bindings.as_ptr(),
                    n_bindings: bindings.len() as u32,
                    flags: 0,
                    workspace: Binding { buffer: core::ptr::null_mut(), byte_offset: 0 },
                    alpha: scalars.alpha.cast(),
                    beta: scalars.beta.cast(),
                };
                let workspace;
                if plan.workspace_bytes > 0 {
                    workspace = stream.workspace(plan.workspace_bytes)?;
                    launch.workspace.buffer = workspace.0.raw.as_ptr();
                }
                plan.device.driver().plan_launch(table, *raw, stream.0.raw, &launch)?;
                stream.advance()
            }
            PlanKind::Portable(portable) => {
                let workspace = if plan.workspace_bytes > 0 { Some(stream.workspace(plan.workspace_bytes)?) } else { None };
                let address = workspace.as_ref().map_or(core::ptr::null_mut(), |w| w.0.raw.as_ptr());
                let launched = portable.launch(stream, operands, address);
                // Steps before one that failed are in the queue all the same.
                stream.advance().and(launched)
            }
            // SAFETY: passed on to the caller.
            PlanKind::Fallback(fallback) => unsafe { fallback.launch(plan, stream, operands, scalars) },
        }
    }

    #[cold]
    fn misuse(&self, stream: &Stream, given: usize) -> Result<()> {
        let plan = &*self.0;
        if given != plan.spans.len() {
            return Err(Error::invalid(format!("{} takes {} operands (inputs, then outputs), {given} were given", plan.operator, plan.spans.len())));
        }
        Err(Error::invalid(format!(
            "a plan of {} for {} was launched on a stream of {}; plan it for that device",
            plan.operator,
            plan.device.name(),
            stream.device().name()
        )))
    }

    #[cold]
    fn bad_operand(&self, index: usize, buffer: &Buffer, offset: u64, span: &Span) -> Result<Binding> {
        let text = if offset & u64::from(span.align - 1) != 0 {
            format!("{}: operand {index} begins at byte {offset}, which is no multiple of its elements' {} bytes", self.0.operator, span.align)
        } else if Arc::ptr_eq(&buffer.0.device.0, &self.0.device.0) {
            format!(
                "{}: operand {index} touches bytes {} to {} from offset {offset} of a buffer of {} bytes",
                self.0.operator, span.low, span.high, buffer.0.bytes
            )
        } else {
            format!(
                "{}: operand {index} lies on {}, the plan is for {}; copy it first",
                self.0.operator,
                buffer.device().name(),
                self.0.device.name()
            )
        };
        Err(Error::invalid(text).at(index as u32))
    }
}

impl core::fmt::Debug for Plan {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Plan({} on {}: {})", self.0.operator, self.0.device.name(), self.0.implementation)
    }
}

impl Drop for PlanInner {
    fn drop(&mut self) {
        // Portable kernels stay with their device.
        if let PlanKind::Native { raw, table } = &self.kind {
            bury(&self.device, Dead::Plan(*raw, table));
        }
    }
}

/// Destroys something now, or when the launches enqueued so far are over.
pub(crate) fn bury(device: &Device, dead: Dead) {
    let marks = if device.0.synchronous { Vec::new() } else { device.0.stream_marks() };
    if marks.is_empty() {
        return dead.destroy(device);
    }
    let grave = Grave { device: device.clone(), dead, marks };
    GRAVEYARD.lock().unwrap_or_else(PoisonError::into_inner).push(grave);
}

fn destroy(device: &Device, raw: Raw<abi::Plan>, table: &abi::PlanTable) {
    if let Err(e) = device.driver().plan_destroy(table, raw)
        && device.driver().quarantine_reason().is_none()
    {
        crate::log::warn(&format!("destroying a plan of {}: {e}", device.name()));
    }
}

/// Destroys what is buried and whose launches are over.
fn sweep() {
    let over: Vec<Grave> = {
        let mut graves = GRAVEYARD.lock().unwrap_or_else(PoisonError::into_inner);
        graves.extract_if(.., |g| g.device.0.passed(&g.marks)).collect()
    };
    for grave in over {
        grave.dead.destroy(&grave.device);
    }
}

type Names = Mutex<std::collections::HashMap<u64, (String, String, String)>>;

/// Operator, device and implementation by plan serial number, for the trace.
fn names() -> &'static Names {
    static NAMES: OnceLock<Names> = OnceLock::new();
    NAMES.get_or_init(Names::default)
}

impl PlanInner {
    /// Gives the plan its serial number and makes it readable in the trace. Names outlive plans; equal plans made again share an entry.
    fn registered(mut self) -> Plan {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        self.serial = NEXT.fetch_add(1, Ordering::Relaxed);
        let mut names = names().lock().unwrap_or_else(PoisonError::into_inner);
        if names.len() > 1 << 16 {
            names.clear();
        }
        if let Entry::Vacant(entry) = names.entry(self.serial) {
            entry.insert((self.operator.clone(), self.device.name().to_owned(), self.implementation.clone()));
        }
        drop(names);
        Plan(Arc::new(self))
    }
}

/// Operator, device and implementation of a launch found in the trace; `None` when too old.
pub fn describe(serial: u64) -> Option<(String, String, String)> {
    names().lock().unwrap_or_else(PoisonError::into_inner).get(&serial).cloned()
}

