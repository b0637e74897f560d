//! Native calls: what is offered, and plans and launches of operators, BLAS and transforms.

use flagos_backend_api::vendor::{Answered, Blas, Fft, LaunchArgs, OpRef, Operators, PlanFacts, Planned};
use flagos_backend_api::{BlasDesc, Code, Error, FftDesc, PlanLimits, Result, properties};
use flagos_catalog::sort::SORT;
use flagos_catalog::{Call, Operator, matmul};

use crate::blas::{self, BlasCall};
use crate::device::CudaDevice;
use crate::engine::{Number, PRODUCT_BYTES};
use crate::fft::{self, FftCall};
use crate::library::Culib;
use crate::matmul as products;
use crate::product::{Addresses, Product};
use crate::sort::{self, SortCall};
use crate::stream::CudaStream;

/// What every call here promises.
const PROPERTIES: u32 = properties::DETERMINISTIC | properties::CAPTURABLE;

/// A planned call.
pub struct CudaPlan {
    body: Body,
    name: String,
    workspace_bytes: u64,
    properties: u32,
}

enum Body {
    Product { product: Product, operands: [usize; 3], added: Option<usize>, factors: (Number, Number) },
    Sort(SortCall),
    Blas(BlasCall),
    Fft(FftCall),
}

/// An offer, or the reason why not; other errors are the caller's.
fn answered(offer: Result<()>, level: u32, workspace_bytes: impl FnOnce() -> u64, extra: u32) -> Result<Answered> {
    match offer {
        Ok(()) => {
            let workspace_bytes = if level >= 1 { workspace_bytes() } else { 0 };
            // A launch, 3 TB/s, 500 TFLOP/s: orders of magnitude for a choice between chips.
            let cost = if level >= 2 { [4000.0, 0.000_33, 0.000_002] } else { [0.0; 3] };
            Ok(Answered { properties: PROPERTIES | extra, workspace_bytes, cost, ..Answered::YES })
        }
        Err(e) if e.code == Code::UNIMPLEMENTED => Ok(Answered::no("not offered for these types or this layout, or CUDA's library for it is not installed")),
        Err(e) => Err(e),
    }
}

/// An operator with an implementation here.
#[allow(clippy::large_enum_variant)] // It lives through one query or plan.
enum Native {
    Product(&'static Operator, products::Planned),
    Sort(sort::Shape),
}

impl Native {
    /// Whether there is one at all, for some calls.
    fn has(id: u32) -> bool {
        id == SORT.id || matmul::OPERATORS.iter().any(|o| o.id == id)
    }

    /// Which one a call gets.
    fn of(op: OpRef<'_>) -> Result<Native> {
        if !Native::has(op.id()) {
            return Err(Error::unimplemented("no native implementation of this operator"));
        }
        // SAFETY: an OpRef's descriptor is valid by construction.
        let call = unsafe { Call::from_abi(op.raw()) }?;
        call.check()?;
        if op.id() == SORT.id {
            let shape = sort::plan(&call)?;
            return Culib::Nvrtc.need().map(|()| Native::Sort(shape));
        }
        let planned = products::plan(&call)?;
        if !Culib::CublasLt.is_there() || !Culib::Cublas.is_there() {
            return Err(Error::unimplemented("cuBLAS is not installed"));
        }
        Ok(Native::Product(call.operator, planned))
    }

    /// A bound of its workspace in bytes.
    fn workspace_bytes(&self) -> u64 {
        match self {
            Native::Product(..) => PRODUCT_BYTES,
            Native::Sort(shape) => shape.layout().bytes,
        }
    }
}

impl Operators for CudaDevice {
    type OpPlan = CudaPlan;

    fn query_op(&self, op: OpRef<'_>, level: u32) -> Result<Answered> {
        if !Native::has(op.id()) {
            return Ok(Answered::no("no native implementation of this operator"));
        }
        let in_place = if op.id() == matmul::ADDMM.id { properties::IN_PLACE } else { 0 };
        let native = Native::of(op);
        let bytes = native.as_ref().map_or(0, Native::workspace_bytes);
        answered(native.map(drop), level, || bytes, in_place)
    }

    fn plan_op(&self, op: OpRef<'_>, _: &PlanLimits) -> Result<CudaPlan> {
        match Native::of(op)? {
            Native::Product(operator, planned) => self.plan_product(operator, &planned),
            Native::Sort(shape) => {
                let call = SortCall::new(self, shape)?;
                Ok(CudaPlan { name: "radix sort".into(), workspace_bytes: call.workspace_bytes(), properties: PROPERTIES, body: Body::Sort(call) })
            }
        }
    }
}

impl CudaDevice {
    fn plan_product(&self, operator: &Operator, planned: &products::Planned) -> Result<CudaPlan> {
        let _aside = self.chip.enter_aside()?;
        let product = Product::new(&self.chip, planned.shape)?;
        let number = |v| Number::real(planned.shape.compute(), v);
        let in_place = if operator.in_place { properties::IN_PLACE } else { 0 };
        Ok(CudaPlan {
            name: format!("cublasLt {}", operator.name),
            workspace_bytes: product.workspace_bytes(),
            properties: PROPERTIES | in_place,
            body: Body::Product {
                product,
                operands: planned.operands,
                added: planned.added,
                factors: (number(planned.factors.0), number(planned.factors.1)),
            },
        })
    }
}

impl Blas for CudaDevice {
    type BlasPlan = CudaPlan;

    fn query_blas(&self, call: &BlasDesc, level: u32) -> Result<Answered> {
        answered(blas::check_call(call), level, || blas::workspace_bytes(call), 0)
    }
    fn plan_blas(&self, call: &BlasDesc, _: &PlanLimits) -> Result<CudaPlan> {
        let _aside = self.chip.enter_aside()?;
        let call = BlasCall::new(&self.chip, call)?;
        Ok(CudaPlan { name: call.name(), workspace_bytes: call.workspace_bytes(), properties: PROPERTIES, body: Body::Blas(call) })
    }
}

impl Fft for CudaDevice {
    type FftPlan = CudaPlan;

    fn query_fft(&self, call: &FftDesc, level: u32) -> Result<Answered> {
        if level == 0 {
            return answered(fft::check_call(call), level, || 0, properties::IN_PLACE);
        }
        // Only a plan knows its work area.
        let plan = self.plan_fft(call, &PlanLimits { size: PlanLimits::SIZE, kind: PlanLimits::KIND, workspace_bytes: u64::MAX, deterministic: 0, flags: 0 });
        let bytes = plan.as_ref().map_or(0, |p| p.workspace_bytes);
        answered(plan.map(drop), level, || bytes, properties::IN_PLACE)
    }
    fn plan_fft(&self, call: &FftDesc, _: &PlanLimits) -> Result<CudaPlan> {
        let _aside = self.chip.enter_aside()?;
        let call = FftCall::new(&self.chip, call)?;
        let properties = PROPERTIES | properties::IN_PLACE;
        Ok(CudaPlan { name: call.name(), workspace_bytes: call.workspace_bytes(), properties, body: Body::Fft(call) })
    }
}

impl Planned<CudaDevice> for CudaPlan {
    fn facts(&self) -> PlanFacts<'_> {
        PlanFacts { workspace_bytes: self.workspace_bytes, properties: self.properties, implementation: &self.name }
    }

    fn launch(&self, device: &CudaDevice, stream: &CudaStream, args: &LaunchArgs<'_, CudaDevice>) -> Result<()> {
        let at = |i: usize| args.binding(i).map_or(0, |(b, offset)| b.at(offset));
        let workspace = args.workspace().map_or(0, |(b, offset)| b.at(offset));
        let _entered = device.chip.enter()?;
        let done = match &self.body {
            Body::Product { product, operands: [a, b, c], added, factors: (alpha, beta) } => {
                let addresses = Addresses { a: at(*a), b: at(*b), addend: added.map_or(0, at), c: at(*c), workspace };
                product.run(stream, &addresses, alpha, beta)
            }
            Body::Sort(call) => call.run(device, stream, &sort::Addresses { x: at(0), values: at(1), indices: at(2), workspace }),
            Body::Blas(call) => {
                let list = [at(0), at(1), at(2)];
                // SAFETY: the host passes NULL or numbers of the compute type.
                unsafe { call.run(stream, &list[..args.len().min(3)], args.alpha(), args.beta(), workspace) }
            }
            Body::Fft(call) => call.run(stream, at(0), at(1), workspace),
        };
        device.chip.told(done)
    }
}
