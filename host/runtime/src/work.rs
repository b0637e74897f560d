//! What can be planned: an operator call, a BLAS call or an FFT call, behind one face.

use flagos_backend_api as abi;
use flagos_backend_api::{BlasDesc, DType, FftDesc, Op, Result};
use flagos_catalog::Call;

use crate::driver::{Driver, Raw, empty_support, make, slot};
use crate::key::Key;

/// A call to plan.
#[derive(Clone)]
pub enum Work {
    /// An operator of the catalogue.
    Op(Call),
    /// A BLAS routine.
    Blas(BlasDesc),
    /// A Fourier transform.
    Fft(FftDesc),
}

/// Memory one operand touches, in bytes relative to its binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Lowest byte, 0 or negative.
    pub low: i64,
    /// One past the highest byte; equal to `low` for operands without elements.
    pub high: i64,
    /// The call reads it.
    pub reads: bool,
    /// The call writes it.
    pub writes: bool,
    /// Bytes of an element (of its real part, where it is complex): binding offsets are multiples of it.
    pub align: u32,
}

impl Span {
    /// Whether nothing is touched.
    pub fn is_empty(&self) -> bool {
        self.low == self.high
    }
}

impl Work {
    /// Name for people and policies: `softmax`, `blas.gemm`, `fft.c2c`.
    pub fn name(&self) -> String {
        match self {
            Work::Op(call) => call.operator.name.to_owned(),
            Work::Blas(desc) => format!("blas.{}", flagos_catalog::blas::name(desc.routine)),
            Work::Fft(desc) => format!("fft.{}", flagos_catalog::fft::name(desc.transform)),
        }
    }

    /// Type of the first operand, which names the cell of a claim.
    pub fn dtype(&self) -> DType {
        match self {
            Work::Op(call) => call.cell_dtype(),
            Work::Blas(desc) => desc.dtype,
            Work::Fft(desc) => desc.precision,
        }
    }

    /// Checks the call against its definition.
    pub fn check(&self) -> Result<()> {
        match self {
            Work::Op(call) => call.check(),
            Work::Blas(desc) => flagos_catalog::blas::check(desc),
            Work::Fft(desc) => flagos_catalog::fft::check(desc),
        }
    }

    /// What each binding touches, in binding order.
    pub fn spans(&self) -> Result<Vec<Span>> {
        let overflow = || abi::Error::invalid("an operand spans more than 2^63 bytes");
        match self {
            Work::Op(call) => {
                let tensors = call.inputs.iter().map(|t| (t, false)).chain(call.outputs.iter().map(|t| (t, true)));
                tensors
                    .map(|(t, out)| {
                        if t.is_none() {
                            return Ok(Span { low: 0, high: 0, reads: !out, writes: out, align: 1 });
                        }
                        let width = t.dtype.bytes() as i64;
                        let (low, high) = t.extent().ok_or_else(overflow)?;
                        let scale = |n: i64| n.checked_mul(width).ok_or_else(overflow);
                        Ok(Span { low: scale(low)?, high: scale(high)?, reads: !out, writes: out, align: alignment(t.dtype) })
                    })
                    .collect()
            }
            Work::Blas(desc) => {
                let align = |writes: bool| alignment(if writes { desc.out_dtype } else { desc.dtype });
                flagos_catalog::blas::operands(desc).map(|list| list.into_iter().map(|s| Span::of(s, align(s.writes))).collect())
            }
            Work::Fft(desc) => {
                let align = alignment(desc.precision);
                flagos_catalog::fft::operands(desc).map(|list| list.into_iter().map(|s| Span::of(s, align)).collect())
            }
        }
    }

    /// Number of leading bindings that are inputs only.
    pub fn flops(&self) -> f64 {
        match self {
            Work::Op(call) => (call.operator.flops)(call),
            Work::Blas(desc) => flagos_catalog::blas::flops(desc),
            Work::Fft(desc) => flagos_catalog::fft::flops(desc),
        }
    }

    /// The canonical key.
    pub fn key(&self) -> Key {
        match self {
            // SAFETY: the descriptor borrows from `abi_call`, which lives through the call.
            Work::Op(call) => call.with_abi(|op: &Op| unsafe { Key::of_op(op) }),
            Work::Blas(desc) => Key::of_blas(desc),
            Work::Fft(desc) => Key::of_fft(desc),
        }
    }

    /// Asks a backend's own table. `None`: it has no table for this domain.
    pub(crate) fn query(&self, driver: &Driver, device: Raw<abi::Device>, level: u32) -> Option<Result<abi::Support>> {
        let tables = driver.backend.tables;
        let mut support = empty_support();
        let asked = match self {
            Work::Op(call) => {
                let table = tables.op.as_ref()?;
                call.with_abi(|op| slot!(driver, table, query, device.as_ptr(), op, level, &mut support))
            }
            Work::Blas(desc) => {
                let table = tables.blas.as_ref()?;
                slot!(driver, table, query, device.as_ptr(), desc, level, &mut support)
            }
            Work::Fft(desc) => {
                let table = tables.fft.as_ref()?;
                slot!(driver, table, query, device.as_ptr(), desc, level, &mut support)
            }
        };
        Some(asked.map(|()| support))
    }

    /// Has a backend plan the call; the table its plans are launched with comes along.
    pub(crate) fn plan(&self, driver: &Driver, device: Raw<abi::Device>, limits: &abi::PlanLimits) -> Result<(Raw<abi::Plan>, &'static abi::PlanTable)> {
        let tables = driver.backend.tables;
        let missing = |domain: &str| abi::Error::unimplemented(format!("backend '{}' has no {domain} table", driver.backend.name));
        match self {
            Work::Op(call) => {
                let table = tables.op.as_ref().ok_or_else(|| missing("operator"))?;
                let plan = call.with_abi(|op| make!(driver, table, plan, device.as_ptr(), op, limits))?;
                Ok((plan, tables.op_plans.as_ref().ok_or_else(|| missing("operator plan"))?))
            }
            Work::Blas(desc) => {
                let table = tables.blas.as_ref().ok_or_else(|| missing("BLAS"))?;
                let plan = make!(driver, table, plan, device.as_ptr(), desc, limits)?;
                Ok((plan, tables.blas_plans.as_ref().ok_or_else(|| missing("BLAS plan"))?))
            }
            Work::Fft(desc) => {
                let table = tables.fft.as_ref().ok_or_else(|| missing("FFT"))?;
                let plan = make!(driver, table, plan, device.as_ptr(), desc, limits)?;
                Ok((plan, tables.fft_plans.as_ref().ok_or_else(|| missing("FFT plan"))?))
            }
        }
    }
}

impl Span {
    fn of(s: flagos_catalog::OperandSpan, align: u32) -> Span {
        Span { low: s.low_bytes, high: s.high_bytes, reads: s.reads, writes: s.writes, align }
    }
}

/// Alignment of elements: their width, of complex ones that of a part; 1 for no type.
fn alignment(dtype: DType) -> u32 {
    let bytes = dtype.bytes() as u32;
    if dtype.is_complex() { bytes / 2 } else { bytes.max(1) }
}
