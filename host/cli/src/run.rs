//! `flagos run`: an operator on files, or the cases of a golden file.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use flagos_catalog::Call;
use flagos_runtime::{Device, Error, Operand, Result, Tensor, Work};
use serde_json::json;

use crate::files::{self, Data};
use crate::output::{Output, duration};
use crate::{golden, spec};

/// What to run.
#[derive(clap::Args)]
pub struct Arguments {
    /// Operator; not needed with --golden, whose file names it.
    operator: Option<String>,
    /// Inputs (`x.npy`, `file.safetensors#name`, `bf16@bits.npy`, `-` for absent) and attributes (`dim=1`).
    words: Vec<String>,
    /// Where each output goes (.npy or .safetensors).
    #[arg(short, long)]
    out: Vec<PathBuf>,
    /// Runs every case of golden files and judges it by the operator's numerics.
    #[arg(long, num_args = 1..)]
    golden: Vec<PathBuf>,
    /// Device (`backend:ordinal` or `backend`); the best by default.
    #[arg(long, default_value = "")]
    device: String,
    /// Type of outputs whose type the caller chooses.
    #[arg(long, default_value = "f32")]
    dtype: String,
    /// Shape of outputs whose shape the caller chooses (`3,4`).
    #[arg(long)]
    shape: Option<String>,
}

/// Runs.
pub fn run(arguments: &Arguments, output: &Output) -> Result<ExitCode> {
    let device = crate::open(&arguments.device)?;
    if !arguments.golden.is_empty() {
        return golden::run(&arguments.golden, &device, output);
    }
    let name = arguments.operator.as_deref().ok_or_else(|| Error::invalid("name an operator, or give --golden FILE"))?;
    let operator = spec::operator(name)?;
    let (mut inputs, mut attributes) = (Vec::new(), Vec::new());
    for word in &arguments.words {
        match word.as_str() {
            "-" => inputs.push(None),
            w if spec::is_attribute(operator, w) => attributes.push(spec::attribute(operator, w)?),
            w => inputs.push(Some(files::read(w)?)),
        }
    }
    let tensors: Vec<Tensor> = inputs.iter().map(|d| d.as_ref().map_or(Tensor::NONE, Data::tensor)).collect();
    let free = spec::dtype(&arguments.dtype)?;
    let call = match &arguments.shape {
        Some(shape) => {
            let out = spec::tensor(&format!("{free}[{shape}]"))?;
            Call::new(operator, &tensors, &[out], &attributes)?
        }
        None => Call::inferred(operator, &tensors, free, &attributes)?,
    };
    call.check()?;
    let started = Instant::now();
    let (outputs, implementation) = execute(&device, &call, &inputs)?;
    let ns = started.elapsed().as_nanos() as u64;
    for (path, data) in arguments.out.iter().zip(&outputs) {
        files::write(path, data)?;
    }
    let describe = |d: &Data| json!({ "dtype": d.dtype.name(), "shape": d.shape });
    if output.is_json() {
        let list: Vec<_> = outputs.iter().map(describe).collect();
        output.json(&json!({ "operator": operator.name, "device": device.name(), "implementation": implementation, "outputs": list, "ns": ns }))?;
    } else {
        let list: Vec<String> = outputs.iter().map(|d| format!("{}{:?}", d.dtype, d.shape)).collect();
        output.text(&format!("{} on {} by {implementation}: {} in {}", operator.name, device.name(), list.join(" "), duration(ns)));
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs a call on a device: copies in, plans, launches, copies out. Outputs come back contiguous.
pub fn execute(device: &Device, call: &Call, inputs: &[Option<Data>]) -> Result<(Vec<Data>, String)> {
    let stream = device.stream()?;
    let plan = device.plan(&Work::Op(call.clone()))?;
    let mut buffers = Vec::new();
    for data in inputs.iter().chain(core::iter::repeat(&None)).take(call.inputs.len()) {
        buffers.push(match data {
            Some(d) if !d.bytes.is_empty() => {
                let buffer = device.alloc(d.bytes.len() as u64)?;
                stream.write(&buffer, 0, &d.bytes)?;
                Some(buffer)
            }
            _ => None,
        });
    }
    for t in &call.outputs {
        let bytes = t.elems() as u64 * t.dtype.bytes() as u64;
        buffers.push(if bytes > 0 { Some(device.alloc(bytes)?) } else { None });
    }
    let operands: Vec<Operand> = buffers.iter().map(|b| b.as_ref().map(|b| (b, 0))).collect();
    plan.launch(&stream, &operands)?;
    let mut outputs = Vec::new();
    for (t, buffer) in call.outputs.iter().zip(&buffers[call.inputs.len()..]) {
        let mut bytes = vec![0; t.elems() as usize * t.dtype.bytes()];
        if let Some(buffer) = buffer {
            stream.read(buffer, 0, &mut bytes)?;
        }
        outputs.push(Data { dtype: t.dtype, shape: t.shape().to_vec(), bytes });
    }
    stream.sync()?;
    Ok((outputs, plan.implementation().to_owned()))
}
