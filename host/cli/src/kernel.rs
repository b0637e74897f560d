//! `flagos kernel`: `run`, a kernel in Triton dialect on files and numbers.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use flagos_compiler::Elem;
use flagos_runtime::kernel::signature;
use flagos_runtime::{Buffer, DType, Device, Error, Kernel, KernelArgument, Parameter, Result, Stream};
use serde_json::json;

use crate::compile::threads;
use crate::files::{self, Data};
use crate::kernel_check::{self, Check};
use crate::output::{Output, duration};

/// Commands on kernels.
#[derive(clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Compiles a kernel for a device and runs it.
    Run(Run),
    /// Compiles and runs kernels with known results (`NAME.ttir` beside `NAME.case`) and compares.
    Check(Check),
}

/// What to run.
#[derive(clap::Args)]
struct Run {
    /// Triton dialect text.
    file: PathBuf,
    /// The kernel, where the text holds several.
    #[arg(long, default_value = "")]
    kernel: String,
    /// Backend or device (`backend:ordinal`); the best by default.
    #[arg(long, default_value = "")]
    backend: String,
    /// Blocks: X, X,Y or X,Y,Z.
    #[arg(long)]
    grid: String,
    /// Threads of a block; 0: as usual.
    #[arg(long, default_value_t = 0)]
    threads: u32,
    /// Warps of 32 threads of a block, in place of --threads.
    #[arg(long, default_value_t = 0)]
    num_warps: u32,
    /// Folder for the tensors after the run, as arg<N>.npy.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Launches in a row; tensors are not reset between them.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    repeat: u32,
    /// Measures each launch; says the median.
    #[arg(long)]
    time: bool,
    /// Tensors, row by row whatever their files' order (`x.npy`, `bf16@bits.npy`, `f8e4m3@bits.npy`, read and written) and numbers (`i32:5`, `f32:0.5`), in the order of the kernel's.
    args: Vec<String>,
}

/// Runs the command.
pub fn run(arguments: &Arguments, output: &Output) -> Result<ExitCode> {
    match &arguments.command {
        Command::Run(run) => run_kernel(run, output),
        Command::Check(check) => kernel_check::run(check, output),
    }
}

/// A value from the command line.
enum Value {
    /// A tensor, and the type of its file.
    Tensor(Data, DType),
    Number(Elem, u64),
}

fn run_kernel(run: &Run, output: &Output) -> Result<ExitCode> {
    let grid = grid(&run.grid)?;
    let named = |e: Error| Error { message: format!("{}: {}", run.file.display(), e.message), ..e };
    let text = String::from_utf8(files::read_bytes(&run.file)?).map_err(|_| named(Error::invalid("no text; kernels are Triton dialect as text (.ttir)")))?;
    let values = run.args.iter().map(|a| value(a)).collect::<Result<Vec<_>>>()?;
    let device = crate::open(&run.backend)?;
    let started = Instant::now();
    let kernel = device.compile(&text, &run.kernel, threads(run.threads, run.num_warps)).map_err(named)?;
    let compile_ns = started.elapsed().as_nanos() as u64;
    check(&kernel, &values)?;
    let stream = device.stream()?;
    let buffers = values.iter().map(|v| upload(&device, &stream, v)).collect::<Result<Vec<_>>>()?;
    let args: Vec<KernelArgument<'_>> = values
        .iter()
        .zip(&buffers)
        .map(|(v, b)| match (v, b) {
            (Value::Number(_, bits), _) => KernelArgument::Scalar(*bits),
            (_, Some(buffer)) => KernelArgument::Buffer(buffer, 0),
            (_, None) => KernelArgument::Null,
        })
        .collect();
    let times = launches(&device, &stream, run, || kernel.launch(&stream, grid, &args))?;
    stream.sync()?;
    if let Some(folder) = &run.out {
        std::fs::create_dir_all(folder).map_err(|e| Error::invalid(format!("{}: {e}", folder.display())))?;
        for (i, (v, b)) in values.iter().zip(&buffers).enumerate() {
            download(&stream, v, b.as_ref(), &folder.join(format!("arg{i}.npy")))?;
        }
    }
    report(run, &kernel, &device, times, compile_ns, output)
}

fn report(run: &Run, kernel: &Kernel, device: &Device, times: Option<(Option<u64>, u64)>, compile_ns: u64, output: &Output) -> Result<ExitCode> {
    let (device_ns, wall_ns) = times.map_or((None, None), |(d, w)| (d, Some(w)));
    if output.is_json() {
        output.json(&json!({
            "kernel": kernel.name(), "device": device.name(), "grid": run.grid, "threads": kernel.threads(), "launches": run.repeat,
            "compile_ns": compile_ns, "device_ns": device_ns, "wall_ns": wall_ns,
        }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let timed = match (device_ns, wall_ns) {
        (Some(d), Some(w)) => format!(": median {} on the device, {} as seen from the host", duration(d), duration(w)),
        (None, Some(w)) => format!(": median {} as seen from the host", duration(w)),
        _ => String::new(),
    };
    output.text(&format!("{} on {}, grid {}, {} threads, {} launches{timed}", kernel.name(), device.name(), run.grid, kernel.threads(), run.repeat));
    Ok(ExitCode::SUCCESS)
}

/// Launches as often as asked; the median times by the device's clock (where it has one) and by the host's.
fn launches(device: &Device, stream: &Stream, run: &Run, launch: impl Fn() -> Result<()>) -> Result<Option<(Option<u64>, u64)>> {
    if !run.time {
        (0..run.repeat).try_for_each(|_| launch())?;
        return Ok(None);
    }
    let event = device.event()?;
    let (mut device_ns, mut wall_ns) = (Vec::new(), Vec::new());
    for i in 0..u64::from(run.repeat) {
        stream.sync()?;
        let started = Instant::now();
        stream.signal(&event, 2 * i + 1)?;
        launch()?;
        stream.signal(&event, 2 * i + 2)?;
        stream.sync()?;
        wall_ns.push(started.elapsed().as_nanos() as u64);
        device_ns.extend(event.elapsed_ns(2 * i + 1, 2 * i + 2).ok());
    }
    let median = |mut list: Vec<u64>| {
        list.sort_unstable();
        list.get(list.len() / 2).copied()
    };
    Ok(median(wall_ns).map(|wall| (median(device_ns), wall)))
}

fn grid(text: &str) -> Result<[u32; 3]> {
    let parts: Option<Vec<u32>> = text.split(',').map(|n| n.trim().parse().ok()).collect();
    match parts.as_deref() {
        Some([x]) => Ok([*x, 1, 1]),
        Some([x, y]) => Ok([*x, *y, 1]),
        Some([x, y, z]) => Ok([*x, *y, *z]),
        _ => Err(Error::invalid(format!("--grid '{text}': give the number of blocks as X, X,Y or X,Y,Z, whole numbers below 2^32 (--grid 8 or --grid 16,4)"))),
    }
}

/// Reads `TYPE:NUMBER` or a tensor's file.
fn value(text: &str) -> Result<Value> {
    if let Some((name, number)) = text.split_once(':')
        && let Some(elem) = Elem::from_name(name)
    {
        let bits = number_bits(elem, number).ok_or_else(|| Error::invalid(format!("'{text}': '{number}' is no number of type {name}, which holds {}", holds(elem))))?;
        return Ok(Value::Number(elem, bits));
    }
    if !text.contains(".npy") && !text.contains(".safetensors") {
        return Err(Error::invalid(format!("'{text}' is neither a tensor's file (x.npy, x.safetensors#NAME) nor a number with its type (i32:5, f32:0.5; i1 to i64, f16, bf16, f32, f64)")));
    }
    let (path, cast) = text.split_once('@').map_or((text, false), |(_, path)| (path, true));
    let data = files::read(text)?;
    let own = if cast { files::read(path)?.dtype } else { data.dtype };
    Ok(Value::Tensor(data, own))
}

/// What numbers of a type there are.
fn holds(elem: Elem) -> String {
    match elem {
        Elem::I1 => "true and false".into(),
        _ if elem.is_float() => "decimal numbers, inf and nan".into(),
        _ => format!("whole numbers from -{} to {}", 1i128 << (elem.bits() - 1), (1i128 << elem.bits()) - 1),
    }
}

/// Bits of a number, zero-extended. Integers may be written signed or unsigned.
fn number_bits(elem: Elem, text: &str) -> Option<u64> {
    if elem.is_float() {
        return flagos_compiler::tile::float_bits(elem, text.parse().ok()?);
    }
    if elem == Elem::I1 {
        return match text {
            "1" | "true" | "-1" => Some(1),
            "0" | "false" => Some(0),
            _ => None,
        };
    }
    let (value, bits): (i128, u32) = (text.parse().ok()?, elem.bits());
    let fits = value >= -(1 << (bits - 1)) && value < 1 << bits;
    fits.then(|| value as u64 & u64::MAX >> (64 - bits))
}

/// Whether elements of a tensor may stand where a kernel expects its own.
fn fits(dtype: DType, elem: Elem) -> bool {
    let kinds = [
        (Elem::I1, &[DType::BOOL, DType::I8, DType::U8][..]),
        (Elem::I8, &[DType::I8, DType::U8, DType::BOOL]),
        (Elem::I16, &[DType::I16, DType::U16]),
        (Elem::I32, &[DType::I32, DType::U32]),
        (Elem::I64, &[DType::I64, DType::U64]),
        (Elem::F8E4M3, &[DType::F8E4M3]),
        (Elem::F8E5M2, &[DType::F8E5M2]),
        (Elem::F16, &[DType::F16]),
        (Elem::BF16, &[DType::BF16]),
        (Elem::F32, &[DType::F32]),
        (Elem::F64, &[DType::F64]),
    ];
    kinds.iter().any(|(e, list)| *e == elem && list.contains(&dtype))
}

/// Compares what was given with what the kernel takes.
fn check(kernel: &Kernel, values: &[Value]) -> Result<()> {
    let takes = || format!("{}{}", kernel.name(), signature(kernel.parameters()));
    if values.len() != kernel.parameters().len() {
        return Err(Error::invalid(format!("the kernel takes {} arguments, {} were given: {}", kernel.parameters().len(), values.len(), takes())));
    }
    for (i, (value, parameter)) in values.iter().zip(kernel.parameters()).enumerate() {
        let given = match value {
            Value::Tensor(data, _) => format!("a tensor of {}", data.dtype),
            Value::Number(elem, _) => format!("a number of type {elem}"),
        };
        let right = match (value, parameter) {
            (Value::Tensor(data, _), Parameter::Pointer(elem)) => fits(data.dtype, *elem),
            (Value::Number(own, _), Parameter::Scalar(elem)) => own == elem,
            _ => false,
        };
        if !right {
            return Err(Error::invalid(format!("argument {i} is {given}, and the kernel takes a {parameter} there: {}", takes())).at(i as u32));
        }
    }
    Ok(())
}

fn upload(device: &Device, stream: &Stream, value: &Value) -> Result<Option<Buffer>> {
    match value {
        Value::Tensor(data, _) if !data.bytes.is_empty() => {
            let buffer = device.alloc(data.bytes.len() as u64)?;
            stream.write(&buffer, 0, &data.bytes)?;
            Ok(Some(buffer))
        }
        _ => Ok(None),
    }
}

/// Writes a tensor in the type of the file it came from.
fn download(stream: &Stream, value: &Value, buffer: Option<&Buffer>, path: &Path) -> Result<()> {
    let Value::Tensor(data, own) = value else { return Ok(()) };
    let mut bytes = vec![0; data.bytes.len()];
    if let Some(buffer) = buffer {
        stream.read(buffer, 0, &mut bytes)?;
    }
    files::write(path, &Data { dtype: *own, shape: data.shape.clone(), bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_grids_are_read_or_named() {
        let bits = |t: &str| match value(t) {
            Ok(Value::Number(elem, bits)) => Some((elem, bits)),
            _ => None,
        };
        assert_eq!(bits("i32:5"), Some((Elem::I32, 5)));
        assert_eq!(bits("i64:-1"), Some((Elem::I64, u64::MAX)));
        assert_eq!(bits("i8:-128"), Some((Elem::I8, 0x80)));
        assert_eq!(bits("i16:65535"), Some((Elem::I16, 0xffff)));
        assert_eq!(bits("i1:true"), Some((Elem::I1, 1)));
        assert_eq!(bits("f32:0.5"), Some((Elem::F32, 0.5f32.to_bits().into())));
        assert_eq!(bits("f64:-inf"), Some((Elem::F64, f64::NEG_INFINITY.to_bits())));
        assert_eq!(bits("f16:1"), Some((Elem::F16, 0x3c00)));
        assert_eq!(bits("bf16:1"), Some((Elem::BF16, 0x3f80)));
        for bad in ["i8:256", "i32:x", "i1:2", "f32:", "i64:99999999999999999999"] {
            assert!(value(bad).err().is_some_and(|e| e.message.contains("no number")), "{bad}");
        }
        assert_eq!(grid("4,2").unwrap(), [4, 2, 1]);
        assert!(grid("4,").is_err() && grid("1,2,3,4").is_err() && grid("-1").is_err());
    }
}
