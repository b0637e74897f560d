//! A call with memory and its reference, of whichever domain: what the executor runs.

use flagos_backend_api::{Result, Tensor};
use flagos_catalog::blas::{self, BlasInstance};
use flagos_catalog::fft::{self, FftInstance};
use flagos_catalog::{Array, Call, Instance, Memory, Numerics, Reference, View};
use flagos_runtime::{Scalars, Work};

/// One operand, in binding order.
pub struct Operand {
    /// Name in messages.
    pub name: String,
    /// Descriptor, contents, place of element (0, …, 0).
    pub memory: Memory,
    /// Byte of `memory` that the binding names.
    pub binding: usize,
    /// The call reads it.
    pub reads: bool,
    /// The call writes it.
    pub writes: bool,
}

/// How outputs are judged.
#[derive(Clone, Copy)]
pub struct Rule {
    /// Tolerance, unless a reference has its own.
    pub numerics: Numerics,
    /// Single-precision subnormals count as zeros.
    pub flushes: bool,
}

impl From<Numerics> for Rule {
    fn from(numerics: Numerics) -> Rule {
        Rule { numerics, flushes: false }
    }
}

/// What written operands hold afterwards, by binding.
pub type References = Vec<(usize, Reference)>;

/// A call.
pub struct Task {
    /// The call.
    pub work: Work,
    /// Operands in binding order.
    pub operands: Vec<Operand>,
    /// How outputs are judged.
    pub rule: Rule,
    /// An input, and the output whose elements may lie in its memory.
    pub in_place: Option<(usize, usize)>,
    /// Bytes of alpha and beta in the compute type.
    scalars: [Option<Vec<u8>>; 2],
    reference: Box<dyn Fn() -> Result<References>>,
}

impl Task {
    /// An operator's call.
    pub fn operator(instance: Instance) -> Task {
        let call = &instance.call;
        let n_in = instance.inputs.len();
        let operand = |kind: &str, name: &str, m: &Memory, writes: bool| Operand {
            name: format!("{kind} '{name}'"),
            binding: m.origin,
            memory: m.clone(),
            reads: !writes,
            writes,
        };
        let outputs = call.operator.outputs;
        let inputs = instance.inputs.iter().enumerate().map(|(i, m)| operand("input", call.rule(i).name, m, false));
        let all = inputs.chain(instance.outputs.iter().enumerate().map(|(i, m)| operand("output", outputs[i.min(outputs.len() - 1)].name, m, true)));
        Task {
            operands: all.collect(),
            work: Work::Op(call.clone()),
            rule: call.operator.numerics.into(),
            in_place: (call.operator.in_place && alike(&instance)).then_some((0, n_in)),
            scalars: [None, None],
            reference: Box::new(move || {
                let arrays = instance.inputs.iter().map(|m| Array::decode(&m.tensor, &m.bytes, m.origin)).collect::<Result<Vec<_>>>()?;
                let references = (instance.call.operator.reference)(&instance.call, &arrays)?;
                Ok(references.into_iter().enumerate().map(|(i, r)| (n_in + i, r)).collect())
            }),
        }
    }

    /// A BLAS call.
    pub fn blas(instance: BlasInstance) -> Task {
        let views = blas::views(&instance.desc);
        let bytes = |value: Option<_>| value.map(|v| blas::scalar_bytes(&instance.desc, v));
        Task {
            work: Work::Blas(instance.desc),
            operands: viewed(&instance.operands, &views),
            rule: blas::NUMERICS.into(),
            in_place: None,
            scalars: [bytes(instance.scalars.alpha), bytes(instance.scalars.beta)],
            reference: Box::new(move || instance.reference()),
        }
    }

    /// A Fourier transform.
    pub fn fft(instance: FftInstance) -> Task {
        let views = fft::views(&instance.desc);
        Task {
            work: Work::Fft(instance.desc),
            operands: viewed(&instance.operands, &views),
            rule: fft::NUMERICS.into(),
            in_place: instance.in_place.then_some((0, 1)),
            scalars: [None, None],
            reference: Box::new(move || Ok(vec![(1, instance.reference()?)])),
        }
    }

    /// What each written operand holds afterwards, by binding.
    pub fn references(&self) -> Result<References> {
        (self.reference)()
    }

    /// Addresses of the scalars, valid while the task lives.
    pub fn scalars(&self) -> Scalars {
        let at = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(core::ptr::null(), |b| b.as_ptr());
        Scalars { alpha: at(&self.scalars[0]), beta: at(&self.scalars[1]) }
    }

    /// The call as people write it.
    pub fn describe(&self) -> String {
        match &self.work {
            Work::Op(call) => describe(call),
            Work::Blas(desc) => format!("{} {}×{}×{}, batch {}", blas::symbol(desc), desc.m, desc.n, desc.k, desc.batch),
            Work::Fft(desc) => format!("{} of {:?}, batch {}", self.work.name(), &desc.n[..desc.rank as usize], desc.batch),
        }
    }
}

/// Operands of a BLAS or FFT call: their memory begins at the binding.
fn viewed(memories: &[Memory], views: &[View]) -> Vec<Operand> {
    let operand = |(m, view): (&Memory, &View)| Operand {
        name: format!("operand '{}'", view.name),
        memory: m.clone(),
        binding: 0,
        reads: view.reads,
        writes: view.writes,
    };
    memories.iter().zip(views).map(operand).collect()
}

/// Whether input 0 and output 0 have one type and layout.
fn alike(instance: &Instance) -> bool {
    let (Some(input), Some(output)) = (instance.inputs.first(), instance.outputs.first()) else { return false };
    let (a, b) = (&input.tensor, &output.tensor);
    a.dtype == b.dtype && a.shape() == b.shape() && a.stride() == b.stride()
}

fn describe(call: &Call) -> String {
    let tensors = |list: &[Tensor]| list.iter().map(|t| if t.is_none() { "none".to_owned() } else { format!("{t:?}") }).collect::<Vec<_>>().join(", ");
    let attrs: Vec<String> = call.attrs.iter().map(|(spec, value)| format!("{}={value:?}", spec.name)).collect();
    format!("{}({}) -> {} [{}]", call.operator.name, tensors(&call.inputs), tensors(&call.outputs), attrs.join(", "))
}
