//! `flagos explain`: every candidate for a call, with score and reason.

use std::process::ExitCode;

use flagos_catalog::Call;
use flagos_compiler::{lower, thread};
use flagos_runtime::kernel::refusal;
use flagos_runtime::{DType, Device, Error, Result, Work};

use crate::output::{Output, Tone, plain};
use crate::spec;

/// The call.
#[derive(clap::Args)]
pub struct Arguments {
    /// Operator.
    operator: String,
    /// Input tensors (`f32[128,64]`, `f16[8,8]{1,8}` with strides, `-` for absent) and attributes (`dim=1`).
    words: Vec<String>,
    /// Device (`backend:ordinal` or `backend`); the best by default.
    #[arg(long, default_value = "")]
    device: String,
    /// Type of outputs whose type the caller chooses.
    #[arg(long, default_value = "f32")]
    dtype: String,
    /// Print the portable kernels of the call instead: tile (Triton dialect), thread (the program of one thread) or source (code of the device).
    #[arg(long, value_parser = ["tile", "thread", "source"])]
    emit: Option<String>,
}

/// Builds a call from words.
pub fn call(operator: &str, words: &[String], free: DType) -> Result<Call> {
    let operator = spec::operator(operator)?;
    let (mut inputs, mut attributes) = (Vec::new(), Vec::new());
    for word in words {
        if word.contains('[') || word == "-" {
            inputs.push(spec::tensor(word)?);
        } else {
            attributes.push(spec::attribute(operator, word)?);
        }
    }
    if inputs.is_empty() && !operator.inputs.is_empty() {
        let names: Vec<&str> = operator.inputs.iter().map(|i| i.name).collect();
        return Err(Error::invalid(format!("{} takes tensors ({}); give each as TYPE[SHAPE], like f32[128,64]", operator.name, names.join(", "))));
    }
    Call::inferred(operator, &inputs, free, &attributes)
}

/// Explains.
pub fn run(arguments: &Arguments, output: &Output) -> Result<ExitCode> {
    let call = call(&arguments.operator, &arguments.words, spec::dtype(&arguments.dtype)?)?;
    let device = crate::open(&arguments.device)?;
    if let Some(emit) = &arguments.emit {
        return kernels(&device, &Work::Op(call), emit, output);
    }
    let choice = device.explain(&Work::Op(call.clone()))?;
    if output.is_json() {
        output.json(&choice)?;
        return Ok(ExitCode::SUCCESS);
    }
    let shapes = |list: &[flagos_runtime::Tensor]| list.iter().map(|t| format!("{}{:?}", t.dtype, t.shape())).collect::<Vec<_>>().join(" ");
    output.text(&format!("{}({}) → {} on {}\n", choice.operator, shapes(&call.inputs), shapes(&call.outputs), choice.device));
    let rows: Vec<_> = choice
        .candidates
        .iter()
        .enumerate()
        .map(|(i, c)| {
            let (tone, mark) = if Some(i) == choice.chosen { (Tone::Good, "→") } else { (Tone::Plain, "") };
            vec![(tone, mark.to_owned()), plain(&c.source), plain(&c.backend), plain(c.score.to_string()), plain(format!("{:?}", c.standing)), plain(&c.reason)]
        })
        .collect();
    output.table(&["", "SOURCE", "BACKEND", "SCORE", "CLAIM", "REASON"], &rows);
    if choice.chosen.is_none() {
        output.text(&output.tone(Tone::Bad, "nothing may run this call"));
        return Ok(ExitCode::FAILURE);
    }
    match device.plan(&Work::Op(call)) {
        Ok(plan) => output.text(&format!("\nplan: {} ({} bytes of workspace)", plan.implementation(), plan.workspace_bytes())),
        Err(e) => output.text(&output.tone(Tone::Bad, &format!("\nplanning failed: {e}"))),
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints the portable kernels of a call, each once.
fn kernels(device: &Device, work: &Work, emit: &str, output: &Output) -> Result<ExitCode> {
    let recipe = device.recipe(work)?;
    let target = device.target().ok_or_else(|| Error::unimplemented(format!("{} takes no kernels in a format this build writes", device.name())))?;
    let mut shown = Vec::new();
    for step in &recipe.steps {
        for kernel in core::iter::once(&step.kernel).chain(&step.aligned) {
            if shown.contains(&kernel.key) {
                continue;
            }
            shown.push(kernel.key.clone());
            let program = (kernel.build)();
            let at = |e| refusal(&kernel.key, &e);
            let text = match emit {
                "tile" => program.to_string(),
                "thread" => {
                    let mut lowered = lower::lower(&program, kernel.entry, target, &kernel.options).map_err(at)?;
                    thread::math::expand(&mut lowered, target);
                    lowered.to_string()
                }
                _ => {
                    let code = flagos_compiler::compile(&program, kernel.entry, target, &kernel.options).map_err(at)?.code;
                    String::from_utf8(code).map_err(|_| Error::invalid(format!("{} takes binary code; --emit thread shows it as text", device.name())))?
                }
            };
            output.text(&format!("// {}, grid {:?}, {} threads\n{text}", kernel.key, step.grid, kernel.options.threads));
        }
    }
    Ok(ExitCode::SUCCESS)
}
