//! CUDA C++ through the module's own compile path, for several architectures, without a device: runs where NVRTC is (FLAGOS_NVRTC_PATH names its folder).

use flagos_backend_api::{Code, DType, Result};
use flagos_backend_cuda::compile::{Image, compile, include_folders, supported, target, version};
use flagos_backend_cuda::library::Culib;
use flagos_backend_cuda::sort::{Entry, SOURCE, Shape};

const ADD: &str = r#"extern "C" __global__ void add(const float *a, const float *b, float *y, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = a[i] + b[i];
}"#;

const SHARED: &str = r#"extern "C" __global__ void __launch_bounds__(256) turn(const double *a, double *y, long long rows, long long columns) {
    extern __shared__ double tile[];
    long long r = blockIdx.x, c = threadIdx.x;
    if (r < rows && c < columns) tile[c] = a[r * columns + c];
    __syncthreads();
    double v = __shfl_xor_sync(0xffffffffu, tile[c], 1);
    if (r < rows && c < columns) y[c * rows + r] = v;
}"#;

const HALF: &str = r#"#include <cuda_fp16.h>
#include <cuda_bf16.h>
#include <cuda_fp8.h>
extern "C" __global__ void scale(__half *x, __nv_bfloat16 *y, float a, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) { x[i] = __float2half_rn(__half2float(x[i]) * a); y[i] = __float2bfloat16_rn(__bfloat162float(y[i]) * a); }
}"#;

const MATRIX: &str = r#"#include <mma.h>
using namespace nvcuda;
extern "C" __global__ void product(const half *a, const half *b, float *c) {
    wmma::fragment<wmma::matrix_a, 16, 16, 16, half, wmma::row_major> fa;
    wmma::fragment<wmma::matrix_b, 16, 16, 16, half, wmma::col_major> fb;
    wmma::fragment<wmma::accumulator, 16, 16, 16, float> fc;
    wmma::fill_fragment(fc, 0.0f);
    wmma::load_matrix_sync(fa, a, 16);
    wmma::load_matrix_sync(fb, b, 16);
    wmma::mma_sync(fc, fa, fb, fc);
    wmma::store_matrix_sync(c, fc, 16, wmma::mem_row_major);
}"#;

/// Instructions only sm_90a has.
const WARPGROUP: &str = r#"extern "C" __global__ void __launch_bounds__(128, 1) fence() {
    asm volatile("wgmma.fence.sync.aligned;\n wgmma.commit_group.sync.aligned;\n wgmma.wait_group.sync.aligned 0;" ::: "memory");
}"#;

const CONTRACT: &str = r#"extern "C" __global__ void axpy(float a, const float *x, float *y) { y[threadIdx.x] = a * x[threadIdx.x] + y[threadIdx.x]; }
extern "C" __global__ void fused(float a, const float *x, float *y) { y[threadIdx.x] = fmaf(a, x[threadIdx.x], y[threadIdx.x]); }"#;

/// What a test needs beyond NVRTC.
enum Needs {
    Compiler,
    Headers,
}

type Test = (&'static str, Needs, fn() -> Result<()>);

const TESTS: &[Test] = &[
    ("targets are the devices' own", Needs::Compiler, targets),
    ("plain kernels for sm_80, sm_90, sm_120", Needs::Compiler, plain),
    ("half, bfloat16 and fp8 headers", Needs::Headers, || cubins("scale", HALF, &[(8, 0), (9, 0), (12, 0)])),
    ("matrix units through mma.h", Needs::Headers, || cubins("product", MATRIX, &[(8, 0), (9, 0), (12, 0)])),
    ("the radix sort of each width", Needs::Compiler, sorts),
    ("instructions of one architecture", Needs::Compiler, || cubins("fence", WARPGROUP, &[(9, 0)])),
    ("contraction is off unless written", Needs::Compiler, contraction),
    ("errors carry the compiler's log", Needs::Compiler, errors),
    ("options reach the compiler", Needs::Compiler, options),
    ("many threads at once", Needs::Compiler, threads),
];

fn holds(code: &[u8], text: &str) -> bool {
    code.windows(text.len()).any(|w| w == text.as_bytes())
}

fn cubins(entry: &str, source: &str, capabilities: &[(u32, u32)]) -> Result<()> {
    built(entry, source, capabilities, "")
}

fn sorts() -> Result<()> {
    for dtype in [DType::I8, DType::F16, DType::F32, DType::U64] {
        let shape = Shape { dtype, descending: false, lines: 1, length: 1 << 20 };
        built(Entry::Pass.name(), SOURCE, &[(8, 0), (9, 0), (12, 0)], &shape.options()?)?;
    }
    Ok(())
}

fn built(entry: &str, source: &str, capabilities: &[(u32, u32)], options: &str) -> Result<()> {
    for capability in capabilities {
        let target = target(*capability)?;
        let Image::Cubin(code) = compile(source.as_bytes(), "test.cu", &target, options)? else { panic!("{target} gave no machine code") };
        assert!(code.starts_with(b"\x7fELF") && holds(&code, entry), "{target}: {} bytes that are no program with '{entry}'", code.len());
        println!("    {entry} for {target}: {} bytes", code.len());
    }
    Ok(())
}

fn targets() -> Result<()> {
    assert_eq!((target((8, 0))?, target((9, 0))?, target((12, 0))?), ("sm_80".into(), "sm_90a".into(), "sm_120a".into()));
    let newest = supported()?.last().copied().unwrap();
    assert_eq!(target((99, 0))?, format!("compute_{newest}"));
    assert_eq!(target((1, 0)).unwrap_err().code, Code::UNIMPLEMENTED);
    let Image::Ptx(text) = compile(ADD.as_bytes(), "add.cu", &target((99, 0))?, "")? else { panic!("a virtual target gives PTX") };
    assert!(holds(&text, ".visible .entry add"));
    Ok(())
}

fn plain() -> Result<()> {
    cubins("add", ADD, &[(8, 0), (9, 0), (12, 0)])?;
    cubins("turn", SHARED, &[(8, 0), (9, 0), (12, 0)])
}

fn contraction() -> Result<()> {
    let Image::Ptx(text) = compile(CONTRACT.as_bytes(), "contract.cu", "compute_90", "")? else { panic!("no PTX") };
    let text = String::from_utf8_lossy(&text).into_owned();
    let (axpy, fused) = text.split_at(text.find(".entry fused").unwrap());
    assert!(axpy.contains("mul.") && axpy.contains("add.") && !axpy.contains("fma."), "{axpy}");
    assert!(fused.contains("fma.rn.f32"), "{fused}");
    Ok(())
}

fn errors() -> Result<()> {
    let e = compile(b"extern \"C\" __global__ void broken() {\n    int x = undeclared;\n}", "broken.cu", "sm_90", "").unwrap_err();
    assert_eq!(e.code, Code::INVALID_ARGUMENT);
    assert!(e.message.contains("broken.cu(2)") && e.message.contains("undeclared"), "{e}");
    assert_eq!(compile(b"a\0b", "nul.cu", "sm_90", "").unwrap_err().code, Code::INVALID_ARGUMENT);
    assert_eq!(compile(ADD.as_bytes(), "add.cu", "sm_90", "fast").unwrap_err().code, Code::INVALID_ARGUMENT);
    assert_eq!(compile(ADD.as_bytes(), "add.cu", "sm_90", "--no-such-option").unwrap_err().code, Code::INVALID_ARGUMENT);
    Ok(())
}

fn options() -> Result<()> {
    let source = b"extern \"C\" __global__ void NAME() {}";
    let Image::Cubin(code) = compile(source, "named.cu", "sm_90", "-DNAME=chosen -lineinfo")? else { panic!("no machine code") };
    assert!(holds(&code, "chosen"));
    assert!(matches!(compile(ADD.as_bytes(), "add.cu", "sm_90", "-arch=compute_80")?, Image::Ptx(text) if holds(&text, ".target sm_80")));
    Ok(())
}

fn threads() -> Result<()> {
    let work = || (0..4).try_for_each(|_| compile(ADD.as_bytes(), "add.cu", "sm_90a", "").map(drop));
    std::thread::scope(|s| {
        let started: Vec<_> = (0..4).map(|_| s.spawn(work)).collect();
        started.into_iter().try_for_each(|t| t.join().expect("a thread panicked"))
    })
}

fn main() {
    let compiler = Culib::Nvrtc.need().err().map(|e| e.message);
    if let Ok((major, minor)) = version() {
        println!("NVRTC {major}.{minor}, architectures {:?}, headers in {:?}", supported().unwrap(), include_folders());
    }
    let (mut passed, mut failed, mut ignored) = (0, 0, 0);
    for (name, needs, test) in TESTS {
        let headers = matches!(needs, Needs::Headers) && include_folders().is_empty();
        let missing = compiler.clone().or_else(|| headers.then(|| "cuda_fp16.h is not found; install the wheels nvidia-cuda-runtime and nvidia-cuda-crt".into()));
        if let Some(why) = missing {
            ignored += 1;
            println!("test {name} ... ignored: {why}");
            continue;
        }
        match std::panic::catch_unwind(test) {
            Ok(Ok(())) => {
                passed += 1;
                println!("test {name} ... ok");
            }
            Ok(Err(e)) => {
                failed += 1;
                println!("test {name} ... FAILED: {e}");
            }
            Err(_) => {
                failed += 1;
                println!("test {name} ... FAILED");
            }
        }
    }
    let verdict = if failed == 0 { "ok" } else { "FAILED" };
    println!("\ntest result: {verdict}. {passed} passed; {failed} failed; {ignored} ignored; 0 measured; 0 filtered out");
    std::process::exit(i32::from(failed > 0));
}
