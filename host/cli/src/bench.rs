//! `flagos bench`: operators, BLAS, FFT on a device, and the library's own overhead. One JSON line per measurement with `--json`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use flagos_backend_api::{BlasDesc, BlasOrder, BlasRoutine, BlasTrans, FftDesc, FftDirection, FftKind};
use flagos_catalog::{Cases, Fill, Tier, assignments, operators};
use flagos_runtime::discover::glob;
use flagos_runtime::{Buffer, DType, Device, Error, Operand, Plan, Result, Scalars, Stream, Work};
use serde::Serialize;

use crate::output::{Output, duration, plain};
use crate::{overhead, rows, spec};

/// What to measure.
#[derive(clap::Args)]
pub struct Arguments {
    /// Operators (names or globs) with a benchmark case; or `blas`, `fft`, `overhead`, `startup`. Everything by default.
    names: Vec<String>,
    /// Device (`backend:ordinal` or `backend`); the best by default.
    #[arg(long, default_value = "")]
    device: String,
    /// Element types, separated by commas.
    #[arg(long, default_value = "f32")]
    dtype: String,
    /// Sizes of BLAS and FFT problems, separated by commas.
    #[arg(long, value_delimiter = ',')]
    sizes: Vec<i64>,
    /// Samples per measurement.
    #[arg(long, default_value_t = 30)]
    samples: usize,
    /// Measures the rows of a file (such as scripts/bench/gpu.toml) by the device's clock instead; names choose among them.
    #[arg(long, value_name = "FILE")]
    rows: Option<PathBuf>,
}

/// One measurement. Times are of the whole call, enqueued and waited for; `submit_ns` until the launch returned.
#[derive(Serialize)]
pub struct Measurement {
    /// What ("add", "gemm", "fft.c2c", "overhead.oneshot").
    pub bench: String,
    /// Problem size, as the benchmark names it.
    pub size: String,
    /// Element type.
    pub dtype: String,
    /// Who ran it.
    pub peer: String,
    /// Its version.
    pub version: String,
    /// Median.
    pub median_ns: f64,
    /// 10th percentile.
    pub p10: f64,
    /// 90th percentile.
    pub p90: f64,
    /// Median until the launch returned.
    pub submit_ns: f64,
    /// Number of samples.
    pub samples: usize,
    /// Arithmetic rate, where it is what limits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gflops: Option<f64>,
    /// Memory rate over the bytes operands span.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gbs: Option<f64>,
    /// Which implementation ran.
    pub implementation: String,
}

/// Runs benchmarks.
pub fn run(arguments: &Arguments, output: &Output) -> Result<ExitCode> {
    let wants = |name: &str| arguments.names.is_empty() || arguments.names.iter().any(|pattern| glob(pattern, name));
    let types = arguments.dtype.split(',').map(spec::dtype).collect::<Result<Vec<_>>>()?;
    let mut table = Vec::new();
    let mut emit = |m: Measurement| -> Result<()> {
        if output.is_json() {
            return output.json_line(&m);
        }
        let rate = m.gflops.map(|g| format!("{g:.1} GFLOP/s")).or(m.gbs.map(|g| format!("{g:.1} GB/s"))).unwrap_or_default();
        let spread = format!("{} … {}", duration(m.p10 as u64), duration(m.p90 as u64));
        let median = if m.median_ns < 1000.0 { format!("{:.1} ns", m.median_ns) } else { duration(m.median_ns as u64) };
        eprintln!("  {} {} {}: {median}", m.bench, m.size, m.dtype);
        table.push(vec![plain(&m.bench), plain(&m.size), plain(&m.dtype), plain(median), plain(spread), plain(rate), plain(m.implementation)]);
        Ok(())
    };
    let mut whole = true;
    let by_names = arguments.rows.is_none();
    if by_names && wants("overhead") {
        overhead::run(arguments.samples, &mut emit)?;
    }
    if by_names && wants("startup") {
        overhead::startup(arguments.samples, &mut emit)?;
    }
    let device = crate::open(&arguments.device)?;
    if let Some(file) = &arguments.rows {
        whole = rows::run(file, &wants, &device, arguments.samples.max(3), &mut emit)?;
    }
    let types = if by_names { types } else { Vec::new() };
    let bench = Bench { stream: device.stream()?, device, samples: arguments.samples.max(3) };
    for dtype in types {
        for operator in operators().iter().filter(|o| wants(o.name)) {
            for case in Cases::of(operator).iter().filter(|c| c.tier == Tier::Bench) {
                let all = assignments(operator);
                let fits = |a: &&flagos_catalog::Assignment| a.inputs.iter().filter(|t| t.is_float()).all(|t| *t == dtype) && (a.inputs.contains(&dtype) || a.free == dtype);
                let Some(types) = all.iter().find(fits) else { continue };
                // Normal numbers, as peers are given: of e⁻¹⁰⁰ and the like processors make subnormals, each at the price of an assist.
                let mut case = case.clone();
                case.inputs.iter_mut().filter(|i| i.fill == Fill::Spread).for_each(|i| i.fill = Fill::Normal);
                let instance = case.instance(operator, types, 1)?;
                let contents = instance.inputs.iter().map(|m| m.bytes.clone()).chain(instance.outputs.iter().map(|m| m.bytes.clone())).collect();
                let origins = instance.inputs.iter().chain(&instance.outputs).map(|m| m.origin as u64).collect();
                emit(bench.measure(Work::Op(instance.call), operator.name, &case.name, dtype, contents, origins, false)?)?;
            }
        }
        if wants("blas") || wants("gemm") {
            for &n in if arguments.sizes.is_empty() { &[512, 1024, 2048][..] } else { &arguments.sizes } {
                emit(bench.gemm(n, dtype)?)?;
            }
        }
        if (wants("fft") || wants("fft.c2c")) && (dtype == DType::F32 || dtype == DType::F64) {
            let lengths: Vec<i64> = if arguments.sizes.is_empty() { (8..=20).step_by(2).map(|e| 1 << e).collect() } else { arguments.sizes.clone() };
            for n in lengths {
                emit(bench.fft(n, dtype)?)?;
            }
        }
    }
    if !output.is_json() {
        output.table(&["BENCH", "SIZE", "TYPE", "MEDIAN", "P10 … P90", "RATE", "IMPLEMENTATION"], &table);
    }
    Ok(if whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

struct Bench {
    device: Device,
    stream: Stream,
    samples: usize,
}

/// Sorted samples at a fraction.
pub fn percentile(sorted: &[f64], fraction: f64) -> f64 {
    let at = (sorted.len() - 1) as f64 * fraction;
    let (low, high) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
    low + (high - low) * at.fract()
}

impl Bench {
    fn gemm(&self, n: i64, dtype: DType) -> Result<Measurement> {
        let desc = BlasDesc {
            size: BlasDesc::SIZE,
            kind: BlasDesc::KIND,
            routine: BlasRoutine::GEMM.0,
            order: BlasOrder::ROW_MAJOR.0,
            trans_a: BlasTrans::NO_TRANS.0,
            trans_b: BlasTrans::NO_TRANS.0,
            uplo: 0,
            diag: 0,
            side: 0,
            dtype,
            out_dtype: dtype,
            compute_dtype: if dtype == DType::F64 { DType::F64 } else { DType::F32 },
            m: n,
            n,
            k: n,
            lda: n,
            ldb: n,
            ldc: n,
            incx: 0,
            incy: 0,
            batch: 1,
            stride_a: 0,
            stride_b: 0,
            stride_c: 0,
        };
        let bytes = (n * n) as usize * dtype.bytes();
        let matrix = ramp(dtype, (n * n) as usize);
        self.measure(Work::Blas(desc), "gemm", &n.to_string(), dtype, vec![matrix.clone(), matrix, vec![0; bytes]], vec![0; 3], true)
    }

    fn fft(&self, n: i64, dtype: DType) -> Result<Measurement> {
        let desc = FftDesc {
            size: FftDesc::SIZE,
            kind: FftDesc::KIND,
            transform: FftKind::C2C.0,
            direction: FftDirection::FORWARD.0,
            precision: dtype,
            rank: 1,
            n: [n, 0, 0],
            batch: 1,
            in_embed: [0; 3],
            in_stride: 1,
            in_dist: n,
            out_embed: [0; 3],
            out_stride: 1,
            out_dist: n,
            scale: 1.0,
        };
        let signal = ramp(dtype, 2 * n as usize);
        let out = vec![0; signal.len()];
        self.measure(Work::Fft(desc), "fft.c2c", &n.to_string(), dtype, vec![signal, out], vec![0; 2], true)
    }

    /// Plans, warms up, and takes samples of at least 20 µs each.
    #[allow(clippy::too_many_arguments)]
    fn measure(&self, work: Work, name: &str, size: &str, dtype: DType, contents: Vec<Vec<u8>>, origins: Vec<u64>, rate: bool) -> Result<Measurement> {
        let plan = self.device.plan(&work)?;
        let mut buffers: Vec<Option<Buffer>> = Vec::new();
        for bytes in &contents {
            buffers.push(if bytes.is_empty() {
                None
            } else {
                let buffer = self.device.alloc(bytes.len() as u64)?;
                self.stream.write(&buffer, 0, bytes)?;
                Some(buffer)
            });
        }
        let operands: Vec<Operand> = buffers.iter().zip(&origins).map(|(b, o)| b.as_ref().map(|b| (b, *o))).collect();
        let once = |repeats: u32| -> Result<(f64, f64)> {
            let started = Instant::now();
            for _ in 0..repeats {
                launch(&plan, &self.stream, &operands)?;
            }
            let submitted = started.elapsed();
            self.stream.sync()?;
            let total = started.elapsed();
            let each = |t: Duration| t.as_nanos() as f64 / f64::from(repeats);
            Ok((each(submitted), each(total)))
        };
        let warm = Instant::now();
        let mut first = once(1)?;
        while warm.elapsed() < Duration::from_millis(100) {
            first = once(1)?;
        }
        let repeats = ((20_000.0 / first.1.max(1.0)).ceil() as u32).clamp(1, 10_000);
        let (mut submits, mut totals) = (Vec::new(), Vec::new());
        for _ in 0..self.samples {
            let (submit, total) = once(repeats)?;
            submits.push(submit);
            totals.push(total);
        }
        submits.sort_by(f64::total_cmp);
        totals.sort_by(f64::total_cmp);
        let median = percentile(&totals, 0.5);
        let moved: i64 = plan.spans().iter().map(|s| s.high - s.low).sum();
        let flops = work.flops();
        Ok(Measurement {
            bench: name.to_owned(),
            size: size.to_owned(),
            dtype: dtype.name().to_owned(),
            peer: format!("flagos-{}", self.device.backend()),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            median_ns: median,
            p10: percentile(&totals, 0.1),
            p90: percentile(&totals, 0.9),
            submit_ns: percentile(&submits, 0.5),
            samples: totals.len(),
            gflops: rate.then_some(flops / median),
            gbs: (!rate).then_some(moved as f64 / median),
            implementation: plan.implementation().to_owned(),
        })
    }
}

fn launch(plan: &Plan, stream: &Stream, operands: &[Operand]) -> Result<()> {
    // SAFETY: no scalars are passed.
    unsafe { plan.launch_scaled(stream, operands, Scalars::NONE) }
}

/// Numbers of both signs around 1, so that sums neither overflow nor vanish.
fn ramp(dtype: DType, n: usize) -> Vec<u8> {
    let value = |i: usize| ((i.wrapping_mul(2_654_435_761) >> 7) % 2001) as f64 / 1000.0 - 1.0;
    let array = flagos_catalog::Array::float(&[n], (0..n).map(value).collect());
    let tensor = flagos_runtime::Tensor::contiguous(dtype, &[n as i64]);
    let mut bytes = vec![0; n * dtype.bytes()];
    if let Err(e) = array.encode(&tensor, &mut bytes, 0) {
        // The tensor is made to fit the array.
        unreachable!("{}", Error::to_string(&e));
    }
    bytes
}
