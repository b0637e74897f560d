//! Fourier transforms through cuFFT: c2c and r2c of 1 to 3 axes, c2r of one axis.
//!
//! Work areas come from the host with each launch. c2r reads a packed copy of its input: cuFFT overwrites what it transforms, and the imaginary parts of
//! bins 0 and n/2 are not to be looked at. Its output is packed too where the caller's has gaps, which cuFFT writes into.

use core::ffi::c_void;
use std::sync::{Arc, Mutex};

use cudarc::cufft::sys as cufft;
use cudarc::driver::sys;
use flagos_backend_api::{Code, DType, Error, FftDesc, FftDirection, FftKind, Result};
use flagos_catalog::fft as catalogue;

use crate::device::{Chip, lock};
use crate::driver;
use crate::engine::{Number, VECTOR_BYTES, blas, check as check_blas, data_type};
use crate::library::Culib;
use crate::stream::CudaStream;

const BOUNDARY: u64 = 256;

fn check(answer: cufft::cufftResult, call: &'static str) -> Result<()> {
    use cufft::cufftResult_t as R;
    let code = match answer {
        R::CUFFT_SUCCESS => return Ok(()),
        R::CUFFT_ALLOC_FAILED => Code::RESOURCE_EXHAUSTED,
        R::CUFFT_INVALID_SIZE | R::CUFFT_NOT_IMPLEMENTED | R::CUFFT_NOT_SUPPORTED | R::CUFFT_INVALID_TYPE => Code::UNIMPLEMENTED,
        _ => Code::INTERNAL,
    };
    Err(Error::new(code, format!("{call}: {answer:?}")).with_native("cufft", i64::from(answer as u32)))
}

/// Checks a call; what is not offered is UNIMPLEMENTED.
pub fn check_call(d: &FftDesc) -> Result<()> {
    catalogue::check(d)?;
    if !Culib::Cufft.is_there() {
        return Err(Error::unimplemented("cuFFT is not installed"));
    }
    if d.transform == FftKind::C2R.0 && d.rank > 1 {
        return Err(Error::unimplemented("c2r of several axes is left to other implementations: cuFFT reads the bins that are to be ignored"));
    }
    if d.scale != 1.0 && !Culib::Cublas.is_there() {
        return Err(Error::unimplemented("scaling needs cuBLAS, which is not installed"));
    }
    Ok(())
}

/// A plan of cuFFT's.
struct Handle(cufft::cufftHandle);

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: the plan was made and goes once.
        unsafe { cufft::cufftDestroy(self.0) };
    }
}

/// A planned transform.
pub struct FftCall {
    /// With all defaults written out.
    desc: FftDesc,
    /// Stream and work area are the plan's state, so who enqueues holds the lock. `None`: nothing to transform.
    handle: Option<Mutex<Handle>>,
    work_bytes: u64,
    chip: Arc<Chip>,
}

impl FftCall {
    /// Plans a transform. The context is current.
    ///
    /// # Errors
    /// Those of [`check_call`] and of cuFFT.
    pub fn new(chip: &Arc<Chip>, desc: &FftDesc) -> Result<FftCall> {
        check_call(desc)?;
        let d = catalogue::normalised(desc);
        if d.scale != 1.0 {
            chip.engines.make_blas()?;
        }
        let mut call = FftCall { desc: d, handle: None, work_bytes: 0, chip: chip.clone() };
        if d.batch == 0 {
            return Ok(call);
        }
        let mut raw = 0;
        // SAFETY: the library is there, the context current, the place writable.
        check(unsafe { cufft::cufftCreate(&mut raw) }, "cufftCreate")?;
        let handle = Handle(raw);
        let wide = d.precision == DType::F64;
        let kind = match (FftKind(d.transform), wide) {
            (FftKind::R2C, false) => cufft::cufftType::CUFFT_R2C,
            (FftKind::R2C, true) => cufft::cufftType::CUFFT_D2Z,
            (FftKind::C2R, false) => cufft::cufftType::CUFFT_C2R,
            (FftKind::C2R, true) => cufft::cufftType::CUFFT_Z2D,
            (_, false) => cufft::cufftType::CUFFT_C2C,
            (_, true) => cufft::cufftType::CUFFT_Z2Z,
        };
        let (mut n, mut from, mut to) = (d.n, d.in_embed, d.out_embed);
        let (in_stride, in_dist) = if call.packs() { (1, call.half()) } else { (d.in_stride, d.in_dist) };
        let (out_stride, out_dist) = if call.packs() { (1, d.n[0]) } else { (d.out_stride, d.out_dist) };
        if call.packs() {
            (from[0], to[0]) = (call.half(), d.n[0]);
        }
        let mut bytes = 0;
        // SAFETY: the plan is alive; the arrays have at least `rank` entries.
        unsafe {
            check(cufft::cufftSetAutoAllocation(raw, 0), "cufftSetAutoAllocation")?;
            let (n, from, to) = (n.as_mut_ptr(), from.as_mut_ptr(), to.as_mut_ptr());
            let made = cufft::cufftMakePlanMany64(raw, d.rank as i32, n, from, in_stride, in_dist, to, out_stride, out_dist, kind, d.batch, &mut bytes);
            check(made, "cufftMakePlanMany64")?;
        }
        (call.work_bytes, call.handle) = ((bytes as u64).next_multiple_of(BOUNDARY), Some(Mutex::new(handle)));
        Ok(call)
    }

    fn packs(&self) -> bool {
        self.desc.transform == FftKind::C2R.0
    }
    /// Complex points of the last axis of a real transform.
    fn half(&self) -> i64 {
        self.desc.n[self.desc.rank as usize - 1] / 2 + 1
    }
    /// Bytes of a real number.
    fn real(&self) -> u64 {
        self.desc.precision.bytes() as u64
    }

    /// Which implementation this is, for people.
    pub fn name(&self) -> String {
        format!("cufft {}", catalogue::name(self.desc.transform))
    }

    /// Workspace in bytes: cuFFT's, the packed input, cuBLAS's for scaling.
    pub fn workspace_bytes(&self) -> u64 {
        let scaling = if self.desc.scale == 1.0 { 0 } else { VECTOR_BYTES };
        self.work_bytes + self.packed_bytes() + scaling
    }
    fn packed_bytes(&self) -> u64 {
        let rows = |reals: u64| (self.desc.batch as u64 * reals * self.real()).next_multiple_of(BOUNDARY);
        let input = if self.packs() { rows(2 * self.half() as u64) } else { 0 };
        input + if self.packs_output() { rows(self.desc.n[0] as u64) } else { 0 }
    }
    /// Whether c2r writes rows that do not follow one another without a gap.
    fn packs_output(&self) -> bool {
        let d = &self.desc;
        self.packs() && (d.out_stride != 1 || (d.batch > 1 && d.out_dist != d.n[0]))
    }

    /// Enqueues. The context is current.
    ///
    /// # Errors
    /// Those of the libraries.
    pub fn run(&self, stream: &CudaStream, input: u64, output: u64, workspace: u64) -> Result<()> {
        let Some(handle) = &self.handle else { return Ok(()) };
        let packed = workspace + self.work_bytes;
        let input = if self.packs() {
            self.pack(stream, input, packed)?;
            packed
        } else {
            input
        };
        let d = &self.desc;
        // Behind the packed input.
        let packed_output = packed + (d.batch as u64 * self.half() as u64 * 2 * self.real()).next_multiple_of(BOUNDARY);
        let target = if self.packs_output() { packed_output } else { output };
        let sign = if d.direction == FftDirection::FORWARD.0 { -1 } else { 1 };
        {
            let handle = lock(handle);
            let (from, to) = (input as *mut c_void, target as *mut c_void);
            // SAFETY: the plan is this thread's for now; the host bound memory of the planned extents and a work area private to this launch.
            unsafe {
                check(cufft::cufftSetStream(handle.0, stream.raw().cast()), "cufftSetStream")?;
                if self.work_bytes > 0 {
                    check(cufft::cufftSetWorkArea(handle.0, workspace as *mut c_void), "cufftSetWorkArea")?;
                }
                let answer = match (FftKind(d.transform), d.precision == DType::F64) {
                    (FftKind::R2C, false) => cufft::cufftExecR2C(handle.0, from.cast(), to.cast()),
                    (FftKind::R2C, true) => cufft::cufftExecD2Z(handle.0, from.cast(), to.cast()),
                    (FftKind::C2R, false) => cufft::cufftExecC2R(handle.0, from.cast(), to.cast()),
                    (FftKind::C2R, true) => cufft::cufftExecZ2D(handle.0, from.cast(), to.cast()),
                    (_, false) => cufft::cufftExecC2C(handle.0, from.cast(), to.cast(), sign),
                    (_, true) => cufft::cufftExecZ2Z(handle.0, from.cast(), to.cast(), sign),
                };
                check(answer, "cufftExec")?;
            }
        }
        if self.packs_output() {
            self.unpack(stream, packed_output, output)?;
        }
        if d.scale == 1.0 { Ok(()) } else { self.scale(stream, output, packed + self.packed_bytes()) }
    }

    /// Copies the input of c2r into rows without gaps, and clears the imaginary parts that are to be ignored.
    fn pack(&self, stream: &CudaStream, input: u64, packed: u64) -> Result<()> {
        let (d, element, half) = (&self.desc, 2 * self.real(), self.half() as u64);
        let (row, dist, stride) = (half * element, d.in_dist as u64 * element, d.in_stride as u64 * element);
        let batch = d.batch as u64;
        if d.in_stride == 1 && (batch == 1 || dist >= row) {
            copy_rows(stream, (input, dist.max(row)), (packed, row), row, batch)?;
        } else {
            for i in 0..batch {
                let (from, to) = (input + i * dist, packed + i * row);
                // Frames may overlap; elements of one do not.
                if d.in_stride == 1 { copy_rows(stream, (from, row), (to, row), row, 1)? } else { copy_rows(stream, (from, stride), (to, element), element, half)? }
            }
        }
        let n = d.n[0] as u64;
        let ignored = [Some(0), n.is_multiple_of(2).then_some(n / 2)];
        for bin in ignored.into_iter().flatten() {
            let at = packed + bin * element + self.real();
            // SAFETY: one real number in each row of the packed copy.
            let answer = unsafe { sys::cuMemsetD2D32Async(at, row as usize, 0, self.real() as usize / 4, d.batch as usize, stream.raw()) };
            driver::check(answer, "cuMemsetD2D32Async")?;
        }
        Ok(())
    }

    /// Copies the packed output of c2r to where it belongs.
    fn unpack(&self, stream: &CudaStream, packed: u64, output: u64) -> Result<()> {
        let (d, real, n) = (&self.desc, self.real(), self.desc.n[0] as u64);
        let (row, dist, stride) = (n * real, d.out_dist as u64 * real, d.out_stride as u64 * real);
        if d.out_stride == 1 && (d.batch == 1 || dist >= row) {
            return copy_rows(stream, (packed, row), (output, dist.max(row)), row, d.batch as u64);
        }
        (0..d.batch as u64).try_for_each(|i| copy_rows(stream, (packed + i * row, real), (output + i * dist, stride), real, n))
    }

    /// Multiplies the output, row by row of its last axis, or at once where it has no gaps.
    fn scale(&self, stream: &CudaStream, output: u64, workspace: u64) -> Result<()> {
        let views = catalogue::views(&self.desc);
        let view = &views[1].tensor;
        let (t, width) = (data_type(view.dtype)?, view.dtype.bytes() as u64);
        let factor = Number::real(view.dtype, self.desc.scale);
        let scal = |at: u64, n: i64, inc: i64| {
            self.chip.engines.blas(stream, (workspace, VECTOR_BYTES), false, |h| {
                // SAFETY: elements of the output; the scalar is read before this returns.
                check_blas(unsafe { blas::cublasScalEx_64(h, n, factor.address(), t, at as *mut c_void, t, inc, t) }, "cublasScalEx")
            })
        };
        if view.is_contiguous() {
            return scal(output, view.elems(), 1);
        }
        let (shape, strides) = (view.shape(), view.stride());
        let (last, lead) = (shape.len() - 1, &shape[..shape.len() - 1]);
        for row in 0..lead.iter().product::<i64>() {
            let (mut rest, mut at) = (row, 0);
            for (n, s) in lead.iter().zip(strides).rev() {
                at += rest % n * s;
                rest /= n;
            }
            scal(output + at as u64 * width, shape[last], strides[last])?;
        }
        Ok(())
    }
}

/// Copies `rows` rows of `width` bytes; sides are (address, pitch).
fn copy_rows(stream: &CudaStream, from: (u64, u64), to: (u64, u64), width: u64, rows: u64) -> Result<()> {
    // Addresses are unified: the driver sees what they are of. No memory type is 0, so the struct is written out.
    let unified = sys::CUmemorytype::CU_MEMORYTYPE_UNIFIED;
    let copy = sys::CUDA_MEMCPY2D {
        srcXInBytes: 0,
        srcY: 0,
        srcMemoryType: unified,
        srcHost: core::ptr::null(),
        srcDevice: from.0,
        srcArray: core::ptr::null_mut(),
        srcPitch: from.1 as usize,
        dstXInBytes: 0,
        dstY: 0,
        dstMemoryType: unified,
        dstHost: core::ptr::null_mut(),
        dstDevice: to.0,
        dstArray: core::ptr::null_mut(),
        dstPitch: to.1 as usize,
        WidthInBytes: width as usize,
        Height: rows as usize,
    };
    // SAFETY: the host bound memory of the planned extents; the workspace has room for the rows.
    driver::check(unsafe { sys::cuMemcpy2DAsync_v2(&copy, stream.raw()) }, "cuMemcpy2DAsync")
}
