//! Handles of CUDA's libraries, one per device, made when a plan first needs them, never by a launch.

use std::sync::{Mutex, OnceLock, PoisonError};

use cudarc::{cublas, cublaslt, cudnn};
use flagos_backend_api::{Code, DType, Error, Result};

use crate::device::{Chip, lock};
use crate::driver::Shared;
use crate::library::Culib;
use crate::stream::CudaStream;

/// Workspace cuBLAS and cuBLASLt are given for products, in bytes: what NVIDIA recommends for Hopper.
pub const PRODUCT_BYTES: u64 = 32 << 20;
/// Workspace for everything else of cuBLAS, in bytes.
pub const VECTOR_BYTES: u64 = 4 << 20;

/// cuBLAS's enumerations as its header names them.
pub use cublas::sys as blas;
/// cuBLASLt's.
pub use cublaslt::sys as lt;
/// cuDNN's.
pub use cudnn::sys as dnn;

/// The handles.
#[derive(Default)]
pub struct Engines {
    /// Stream, workspace and pointer mode are the handle's state, so who enqueues holds the lock.
    blas: OnceLock<Mutex<Shared<blas::cublasHandle_t>>>,
    lt: OnceLock<Shared<lt::cublasLtHandle_t>>,
    /// The stream is the handle's state too.
    dnn: OnceLock<Mutex<Shared<dnn::cudnnHandle_t>>>,
}

fn code_of(answer: u32) -> Code {
    match answer {
        3 => Code::RESOURCE_EXHAUSTED,
        7 => Code::INVALID_ARGUMENT,
        8 | 15 => Code::UNIMPLEMENTED,
        // Whether the device is lost the driver says at its next call.
        _ => Code::INTERNAL,
    }
}

/// An answer of cuBLAS.
#[inline]
pub fn check(answer: blas::cublasStatus_t, call: &'static str) -> Result<()> {
    if answer == blas::cublasStatus_t::CUBLAS_STATUS_SUCCESS {
        return Ok(());
    }
    Err(Error::new(code_of(answer as u32), format!("{call}: {answer:?}")).with_native("cublas", i64::from(answer as u32)))
}

/// An answer of cuBLASLt.
#[inline]
pub fn check_lt(answer: lt::cublasStatus_t, call: &'static str) -> Result<()> {
    if answer == lt::cublasStatus_t::CUBLAS_STATUS_SUCCESS {
        return Ok(());
    }
    Err(Error::new(code_of(answer as u32), format!("{call}: {answer:?}")).with_native("cublaslt", i64::from(answer as u32)))
}

/// An answer of cuDNN.
#[inline]
pub fn check_dnn(answer: dnn::cudnnStatus_t, call: &'static str) -> Result<()> {
    use dnn::cudnnStatus_t as S;
    let code = match answer {
        S::CUDNN_STATUS_SUCCESS => return Ok(()),
        S::CUDNN_STATUS_ALLOC_FAILED => Code::RESOURCE_EXHAUSTED,
        S::CUDNN_STATUS_NOT_SUPPORTED | S::CUDNN_STATUS_ARCH_MISMATCH | S::CUDNN_STATUS_VERSION_MISMATCH => Code::UNIMPLEMENTED,
        _ => Code::INTERNAL,
    };
    Err(Error::new(code, format!("{call}: {answer:?}")).with_native("cudnn", i64::from(answer as u32)))
}

/// A type as cuBLAS numbers it.
pub fn data_type(t: DType) -> Result<blas::cudaDataType_t> {
    use blas::cudaDataType_t as T;
    Ok(match (t.code, t.bits) {
        (2, 16) => T::CUDA_R_16F,
        (4, 16) => T::CUDA_R_16BF,
        (2, 32) => T::CUDA_R_32F,
        (2, 64) => T::CUDA_R_64F,
        (5, 64) => T::CUDA_C_32F,
        (5, 128) => T::CUDA_C_64F,
        _ => return Err(Error::unimplemented(format!("cuBLAS is not used for {t}"))),
    })
}

impl Engines {
    /// Makes what BLAS calls need. Slow the first time. The context is current.
    ///
    /// # Errors
    /// UNIMPLEMENTED without cuBLAS, and its own.
    pub fn make_blas(&self) -> Result<()> {
        Culib::Cublas.need()?;
        if self.blas.get().is_none() {
            let mut handle = core::ptr::null_mut();
            // SAFETY: the library is there, the context current, the place writable.
            check(unsafe { blas::cublasCreate_v2(&mut handle) }, "cublasCreate")?;
            if self.blas.set(Mutex::new(Shared(handle))).is_err() {
                // SAFETY: another thread was first; this handle was used by nobody.
                unsafe { blas::cublasDestroy_v2(handle) };
            }
        }
        Ok(())
    }

    /// cuBLASLt's handle, which any number of threads may use. Slow the first time. The context is current.
    ///
    /// # Errors
    /// UNIMPLEMENTED without cuBLASLt, and its own.
    pub fn lt(&self) -> Result<lt::cublasLtHandle_t> {
        if let Some(handle) = self.lt.get() {
            return Ok(handle.0);
        }
        Culib::CublasLt.need()?;
        let mut handle = core::ptr::null_mut();
        // SAFETY: the library is there, the context current, the place writable.
        check_lt(unsafe { lt::cublasLtCreate(&mut handle) }, "cublasLtCreate")?;
        let kept = self.lt.get_or_init(|| Shared(handle)).0;
        if kept != handle {
            // SAFETY: another thread was first; this handle was used by nobody.
            unsafe { lt::cublasLtDestroy(handle) };
        }
        Ok(kept)
    }

    /// Enqueues on a stream with cuBLAS's handle set for it: scalars on the host or, for results, on the device.
    ///
    /// # Errors
    /// Those of cuBLAS.
    pub fn blas(
        &self,
        stream: &CudaStream,
        workspace: (u64, u64),
        on_device: bool,
        work: impl FnOnce(blas::cublasHandle_t) -> Result<()>,
    ) -> Result<()> {
        let handle = self.blas.get().ok_or_else(|| Error::new(Code::INTERNAL, "a launch before its plan made cuBLAS's handle"))?;
        let handle = lock(handle);
        let mode = if on_device { blas::cublasPointerMode_t::CUBLAS_POINTER_MODE_DEVICE } else { blas::cublasPointerMode_t::CUBLAS_POINTER_MODE_HOST };
        // SAFETY: the handle is alive and this thread's for now; the workspace is private to this launch until the stream passed it.
        unsafe {
            check(blas::cublasSetStream_v2(handle.0, stream.raw().cast()), "cublasSetStream")?;
            check(blas::cublasSetWorkspace_v2(handle.0, workspace.0 as *mut _, workspace.1 as usize), "cublasSetWorkspace")?;
            check(blas::cublasSetPointerMode_v2(handle.0, mode), "cublasSetPointerMode")?;
        }
        work(handle.0)
    }

    /// Calls cuDNN with its handle, set for a stream where there is one. Slow the first time. The context is current.
    ///
    /// # Errors
    /// UNIMPLEMENTED without cuDNN, and its own.
    pub fn dnn<R>(&self, stream: Option<&CudaStream>, work: impl FnOnce(dnn::cudnnHandle_t) -> Result<R>) -> Result<R> {
        Culib::Cudnn.need()?;
        if self.dnn.get().is_none() {
            let mut handle = core::ptr::null_mut();
            // SAFETY: the library is there, the context current, the place writable.
            check_dnn(unsafe { dnn::cudnnCreate(&mut handle) }, "cudnnCreate")?;
            if self.dnn.set(Mutex::new(Shared(handle))).is_err() {
                // SAFETY: another thread was first; this handle was used by nobody.
                unsafe { dnn::cudnnDestroy(handle) };
            }
        }
        let handle = self.dnn.get().ok_or_else(|| Error::new(Code::INTERNAL, "cuDNN's handle was made and is not there"))?;
        let handle = lock(handle);
        if let Some(stream) = stream {
            // SAFETY: the handle is alive and this thread's for now.
            check_dnn(unsafe { dnn::cudnnSetStream(handle.0, stream.raw().cast()) }, "cudnnSetStream")?;
        }
        work(handle.0)
    }

    /// Drops the handles. The context is current.
    pub fn clear(&mut self) {
        if let Some(handle) = self.dnn.take() {
            // SAFETY: the device goes, so nobody uses the handle any more.
            unsafe { dnn::cudnnDestroy(handle.into_inner().unwrap_or_else(PoisonError::into_inner).0) };
        }
        if let Some(handle) = self.blas.take() {
            // SAFETY: the device goes, so nobody uses the handle any more.
            unsafe { blas::cublasDestroy_v2(handle.into_inner().unwrap_or_else(PoisonError::into_inner).0) };
        }
        if let Some(handle) = self.lt.take() {
            // SAFETY: as above.
            unsafe { lt::cublasLtDestroy(handle.0) };
        }
    }
}

/// A number of a compute type, read from the host: aligned, whatever the caller's address was. cuBLAS reads complex doubles by instructions that
/// fault on addresses that are no multiple of 16.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(16))]
pub struct Number {
    bits: [u64; 2],
    /// Whether it is zero.
    pub zero: bool,
}

impl Number {
    /// A real number.
    pub fn real(dtype: DType, value: f64) -> Number {
        let wide = dtype == DType::F64 || dtype == DType::C128;
        Number { bits: [if wide { value.to_bits() } else { u64::from((value as f32).to_bits()) }, 0], zero: value == 0.0 }
    }

    /// The number at an address, or `absent` where there is none.
    ///
    /// # Safety
    /// `address` is NULL or of a number of type `dtype`.
    pub unsafe fn read(dtype: DType, address: *const core::ffi::c_void, absent: f64) -> Number {
        if address.is_null() {
            return Number::real(dtype, absent);
        }
        let mut number = Number { bits: [0; 2], zero: false };
        // SAFETY: the caller states the type; 16 bytes are its most.
        unsafe { core::ptr::copy_nonoverlapping(address.cast::<u8>(), number.bits.as_mut_ptr().cast(), dtype.bytes().min(16)) };
        // Both zeros: without their signs nothing is left.
        let signs = if dtype == DType::F64 || dtype == DType::C128 { !(1 << 63) } else { !(1 << 63 | 1 << 31) };
        number.zero = number.bits.iter().all(|b| b & signs == 0);
        number
    }

    /// Its address, as the libraries take it.
    pub fn address(&self) -> *const core::ffi::c_void {
        self.bits.as_ptr().cast()
    }
}

/// Whether products can be made at all.
///
/// # Errors
/// UNIMPLEMENTED with the library that is missing.
pub fn products(chip: &Chip) -> Result<()> {
    chip.engines.make_blas()?;
    chip.engines.lt().map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_from_anywhere() {
        let read = |dtype, bytes: &[u8]| {
            let mut odd = [0u8; 17];
            odd[1..=bytes.len()].copy_from_slice(bytes);
            // SAFETY: the bytes are a number of the type.
            unsafe { Number::read(dtype, odd[1..].as_ptr().cast(), 1.0) }
        };
        let pair = [(-0.0f32).to_le_bytes(), 2.0f32.to_le_bytes()].concat();
        assert!(!read(DType::C64, &pair).zero && read(DType::F32, &pair[..4]).zero);
        assert!(read(DType::F64, &(-0.0f64).to_le_bytes()).zero && !read(DType::F64, &f64::from_bits(1 << 31).to_le_bytes()).zero);
        let third = read(DType::F64, &0.75f64.to_le_bytes());
        assert_eq!((third.bits[0], third.address().addr() % 16), (0.75f64.to_bits(), 0));
        // SAFETY: NULL is allowed.
        assert_eq!(unsafe { Number::read(DType::F32, core::ptr::null(), 1.0) }.bits[0], u64::from(1f32.to_bits()));
    }
}
