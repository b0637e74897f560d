//! A call with memory and its reference, of whichever domain: what the executor runs.

use flagos_backend_api::{Result, Tensor};
use flagos_catalog::blas::{self, BlasInstance};
use flagos_catalog::{Array, Call, Instance, Memory, Numerics, Reference};
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

/// A call.
pub struct Task {
    /// The call.
    pub work: Work,
    /// Operands in binding order.
    pub operands: Vec<Operand>,
    /// Tolerance, unless a reference has its own.
    pub rule: Numerics,
    /// Bindings of which the second may be the first.
    pub in_place: Option<(usize, usize)>,
    /// Bytes of alpha and beta in the compute type.
    scalars: [Option<Vec<u8>>; 2],
    reference: Box<dyn Fn() -> Result<Vec<(usize, Reference)>>>,
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
            rule: call.operator.numerics,
            in_place: (call.operator.in_place && n_in > 0).then_some((0, n_in)),
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
        let operand = |(m, view): (&Memory, &blas::View)| Operand {
            name: format!("operand '{}'", view.name),
            memory: m.clone(),
            binding: 0,
            reads: view.reads,
            writes: view.writes,
        };
        let bytes = |value: Option<_>| value.map(|v| blas::scalar_bytes(&instance.desc, v));
        Task {
            work: Work::Blas(instance.desc),
            operands: instance.operands.iter().zip(&views).map(operand).collect(),
            rule: blas::NUMERICS,
            in_place: None,
            scalars: [bytes(instance.scalars.alpha), bytes(instance.scalars.beta)],
            reference: Box::new(move || instance.reference()),
        }
    }

    /// What each written operand holds afterwards, by binding.
    pub fn references(&self) -> Result<Vec<(usize, Reference)>> {
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
            Work::Fft(_) => self.work.name(),
        }
    }
}

fn describe(call: &Call) -> String {
    let tensors = |list: &[Tensor]| list.iter().map(|t| if t.is_none() { "none".to_owned() } else { format!("{t:?}") }).collect::<Vec<_>>().join(", ");
    let attrs: Vec<String> = call.attrs.iter().map(|(spec, value)| format!("{}={value:?}", spec.name)).collect();
    format!("{}({}) -> {} [{}]", call.operator.name, tensors(&call.inputs), tensors(&call.outputs), attrs.join(", "))
}
