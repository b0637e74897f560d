//! `conv2d` through cuDNN: one group, contiguous tensors of f16, bf16 or f32.
//!
//! Only algorithms that add products as they are written are used: Winograd's and Fourier's round otherwise than the operator's error bound allows.
//! f32 is multiplied as f32. A bias of f32 is what y holds before the products are added. f16 and bf16 with a bias are left to the portable kernel:
//! cuDNN rounds the products' sum to y's type before it adds what y holds (8 units of f16 off where the two cancel; H100, cuDNN 9, 2026-11-26).

use core::ffi::c_void;
use std::sync::Arc;

use flagos_backend_api::{DType, Error, Result, Tensor};
use flagos_catalog::Call;

use crate::device::Chip;
use crate::engine::{check_dnn as check, dnn};
use crate::library::Culib;
use crate::stream::CudaStream;

/// Boundary of the workspace in bytes.
const BOUNDARY: u64 = 256;
/// Algorithms asked for; there are eight.
const MOST: usize = 8;

fn no(what: &str) -> Error {
    Error::unimplemented(format!("{what}; the portable kernel takes it"))
}

/// A convolution as cuDNN counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    dtype: DType,
    x: [i32; 4],
    w: [i32; 4],
    y: [i32; 4],
    stride: [i32; 2],
    padding: [i32; 2],
    dilation: [i32; 2],
    bias: bool,
}

fn extents(t: &Tensor) -> Result<[i32; 4]> {
    let narrow = |n: i64| i32::try_from(n).map_err(|_| no("an extent beyond 32 bits"));
    if t.elems() < 1 || t.elems() > i64::from(i32::MAX) {
        return Err(no("a tensor without elements, or with 2^31 or more"));
    }
    let [a, b, c, d] = t.shape() else { return Err(no("a tensor that has not 4 axes")) };
    Ok([narrow(*a)?, narrow(*b)?, narrow(*c)?, narrow(*d)?])
}

/// The convolution of a checked call.
///
/// # Errors
/// UNIMPLEMENTED for types, layouts and attributes that are left to others.
pub fn plan(call: &Call) -> Result<Shape> {
    let (x, w, bias, y) = (&call.inputs[0], &call.inputs[1], &call.inputs[2], &call.outputs[0]);
    if ![DType::F16, DType::BF16, DType::F32].contains(&x.dtype) {
        return Err(no("a type cuDNN is not used for"));
    }
    if call.attrs.int("groups") != 1 {
        return Err(no("several groups"));
    }
    if ![x, w, y].iter().all(|t| t.is_contiguous()) || !(bias.is_none() || bias.is_contiguous()) {
        return Err(no("a layout with gaps"));
    }
    if !bias.is_none() && x.dtype != DType::F32 {
        return Err(no("a bias in a type that would be rounded twice"));
    }
    let pair = |name: &str| -> Result<[i32; 2]> {
        let narrow = |n: i64| i32::try_from(n).map_err(|_| no("an attribute beyond 32 bits"));
        let [a, b] = call.attrs.ints(name) else { return Err(no("an attribute that is no pair")) };
        Ok([narrow(*a)?, narrow(*b)?])
    };
    let (stride, padding, dilation) = (pair("stride")?, pair("padding")?, pair("dilation")?);
    let shape = Shape { dtype: x.dtype, x: extents(x)?, w: extents(w)?, y: extents(y)?, stride, padding, dilation, bias: !bias.is_none() };
    if (0..2).any(|d| i64::from(padding[d]) > i64::from(dilation[d]) * i64::from(shape.w[2 + d] - 1)) {
        return Err(no("padding beyond the kernel"));
    }
    Ok(shape)
}

/// A descriptor of cuDNN's that goes with its owner.
macro_rules! descriptor {
    ($Name:ident, $raw:ident, $create:ident, $destroy:ident) => {
        struct $Name(dnn::$raw);

        // SAFETY: a descriptor is plain memory, only read once it is set; it has no thread of its own.
        unsafe impl Send for $Name {}
        // SAFETY: as above.
        unsafe impl Sync for $Name {}

        impl $Name {
            fn new() -> Result<$Name> {
                let mut raw = core::ptr::null_mut();
                // SAFETY: the library is there; the place is writable.
                check(unsafe { dnn::$create(&mut raw) }, stringify!($create))?;
                Ok($Name(raw))
            }
        }

        impl Drop for $Name {
            fn drop(&mut self) {
                // SAFETY: the descriptor was created and goes once.
                unsafe { dnn::$destroy(self.0) };
            }
        }
    };
}
descriptor!(Extents, cudnnTensorDescriptor_t, cudnnCreateTensorDescriptor, cudnnDestroyTensorDescriptor);
descriptor!(Weights, cudnnFilterDescriptor_t, cudnnCreateFilterDescriptor, cudnnDestroyFilterDescriptor);
descriptor!(Rule, cudnnConvolutionDescriptor_t, cudnnCreateConvolutionDescriptor, cudnnDestroyConvolutionDescriptor);

const ORDER: dnn::cudnnTensorFormat_t = dnn::cudnnTensorFormat_t::CUDNN_TENSOR_NCHW;

impl Extents {
    fn of(dtype: dnn::cudnnDataType_t, [n, c, h, w]: [i32; 4]) -> Result<Extents> {
        let new = Extents::new()?;
        // SAFETY: the descriptor is alive.
        check(unsafe { dnn::cudnnSetTensor4dDescriptor(new.0, ORDER, dtype, n, c, h, w) }, "cudnnSetTensor4dDescriptor")?;
        Ok(new)
    }
}

/// Addresses of a launch; the bias is looked at only where the shape has one.
pub struct Addresses {
    /// Input.
    pub x: u64,
    /// Weights.
    pub w: u64,
    /// Bias.
    pub bias: u64,
    /// Output.
    pub y: u64,
    /// As large as planned.
    pub workspace: u64,
}

/// A planned convolution.
pub struct ConvCall {
    x: Extents,
    w: Weights,
    bias: Option<Extents>,
    y: Extents,
    rule: Rule,
    algorithm: dnn::cudnnConvolutionFwdAlgo_t,
    work_bytes: u64,
    chip: Arc<Chip>,
}

impl ConvCall {
    /// Has cuDNN choose an algorithm. The context is current. Slow the first time.
    ///
    /// # Errors
    /// UNIMPLEMENTED without cuDNN or an algorithm, and its own.
    pub fn new(chip: &Arc<Chip>, shape: &Shape) -> Result<ConvCall> {
        use dnn::{cudnnDataType_t as T, cudnnMathType_t as M};
        Culib::Cudnn.need()?;
        let single = shape.dtype == DType::F32;
        let dtype = if single { T::CUDNN_DATA_FLOAT } else if shape.dtype == DType::F16 { T::CUDNN_DATA_HALF } else { T::CUDNN_DATA_BFLOAT16 };
        let (x, y, w, rule) = (Extents::of(dtype, shape.x)?, Extents::of(dtype, shape.y)?, Weights::new()?, Rule::new()?);
        let bias = shape.bias.then(|| Extents::of(dtype, [1, shape.w[0], 1, 1])).transpose()?;
        let ([k, c, kh, kw], [p, q], [s, t], [d, e]) = (shape.w, shape.padding, shape.stride, shape.dilation);
        let cross = dnn::cudnnConvolutionMode_t::CUDNN_CROSS_CORRELATION;
        // SAFETY: the descriptors are alive.
        unsafe {
            check(dnn::cudnnSetFilter4dDescriptor(w.0, dtype, ORDER, k, c, kh, kw), "cudnnSetFilter4dDescriptor")?;
            let set = dnn::cudnnSetConvolution2dDescriptor(rule.0, p, q, s, t, d, e, cross, T::CUDNN_DATA_FLOAT);
            check(set, "cudnnSetConvolution2dDescriptor")?;
            // The default would round f32 to TF32.
            let math = if single { M::CUDNN_FMA_MATH } else { M::CUDNN_TENSOR_OP_MATH };
            check(dnn::cudnnSetConvolutionMathType(rule.0, math), "cudnnSetConvolutionMathType")?;
        }
        let (algorithm, work_bytes) = chip.engines.dnn(None, |h| choose(h, [x.0, y.0], w.0, rule.0))?;
        Ok(ConvCall { x, w, bias, y, rule, algorithm, work_bytes, chip: chip.clone() })
    }

    /// Bytes of its workspace.
    pub fn workspace_bytes(&self) -> u64 {
        self.work_bytes.next_multiple_of(BOUNDARY)
    }

    /// Enqueues. The context is current.
    ///
    /// # Errors
    /// Those of cuDNN.
    pub fn run(&self, stream: &CudaStream, at: &Addresses) -> Result<()> {
        let (one, zero) = (1f32, 0f32);
        let factor = |f: &f32| core::ptr::from_ref(f).cast::<c_void>();
        self.chip.engines.dnn(Some(stream), |h| {
            if let Some(bias) = &self.bias {
                // SAFETY: the host bound memory of the planned extents; factors are read before this returns.
                let added = unsafe { dnn::cudnnAddTensor(h, factor(&one), bias.0, at.bias as *const c_void, factor(&zero), self.y.0, at.y as *mut c_void) };
                check(added, "cudnnAddTensor")?;
            }
            let before = if self.bias.is_some() { &one } else { &zero };
            let (x, w, y, work) = (at.x as *const c_void, at.w as *const c_void, at.y as *mut c_void, at.workspace as *mut c_void);
            let (alpha, beta, bytes) = (factor(&one), factor(before), self.work_bytes as usize);
            // SAFETY: as above; the workspace is private to this launch until the stream passed it.
            let done = unsafe { dnn::cudnnConvolutionForward(h, alpha, self.x.0, x, self.w.0, w, self.rule.0, self.algorithm, work, bytes, beta, self.y.0, y) };
            check(done, "cudnnConvolutionForward")
        })
    }
}

/// The first algorithm of cuDNN's own ranking that may be used, and its workspace in bytes.
fn choose(
    h: dnn::cudnnHandle_t,
    [x, y]: [dnn::cudnnTensorDescriptor_t; 2],
    w: dnn::cudnnFilterDescriptor_t,
    rule: dnn::cudnnConvolutionDescriptor_t,
) -> Result<(dnn::cudnnConvolutionFwdAlgo_t, u64)> {
    use dnn::cudnnConvolutionFwdAlgo_t as A;
    // SAFETY: all-zero bytes are a value of the struct: its enumerations have a 0.
    let (mut found, mut count): ([dnn::cudnnConvolutionFwdAlgoPerf_t; MOST], i32) = (unsafe { core::mem::zeroed() }, 0);
    // SAFETY: the handle is this thread's for now, descriptors are set, the places writable, the list as long as stated.
    let asked = unsafe { dnn::cudnnGetConvolutionForwardAlgorithm_v7(h, x, w, rule, y, MOST as i32, &mut count, found.as_mut_ptr()) };
    check(asked, "cudnnGetConvolutionForwardAlgorithm")?;
    let plain = [A::CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM, A::CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_GEMM, A::CUDNN_CONVOLUTION_FWD_ALGO_GEMM];
    let known = found.iter().take(count.unsigned_abs() as usize);
    let usable = known.filter(|p| {
        p.status == dnn::cudnnStatus_t::CUDNN_STATUS_SUCCESS && p.determinism == dnn::cudnnDeterminism_t::CUDNN_DETERMINISTIC && plain.contains(&p.algo)
    });
    for perf in usable {
        let mut bytes = 0;
        // The ranking mixes ways to multiply; here is asked whether the algorithm exists for the one that was set.
        // SAFETY: as above.
        let sized = unsafe { dnn::cudnnGetConvolutionForwardWorkspaceSize(h, x, w, rule, y, perf.algo, &mut bytes) };
        if sized == dnn::cudnnStatus_t::CUDNN_STATUS_SUCCESS {
            return Ok((perf.algo, bytes as u64));
        }
    }
    Err(no("a convolution cuDNN has no plain algorithm for"))
}

#[cfg(test)]
mod tests {
    use flagos_backend_api::Code;
    use flagos_catalog::AttrValue;
    use flagos_catalog::conv::CONV2D;

    use super::*;

    fn call(dtype: DType, x: &[i64], w: &[i64], bias: bool, attributes: &[(&str, AttrValue)]) -> Call {
        let t = |shape: &[i64]| Tensor::contiguous(dtype, shape);
        let mut inputs = vec![t(x), t(w)];
        if bias {
            inputs.push(t(&w[..1]));
        }
        let mut call = Call::new(CONV2D, &inputs, &[], attributes).unwrap();
        call.outputs = (CONV2D.infer)(&call).unwrap().into_iter().map(|(dtype, shape)| Tensor::contiguous(dtype.unwrap(), &shape)).collect();
        call.check().unwrap();
        call
    }

    #[test]
    fn calls_are_taken_over_as_cudnn_counts() {
        let pair = |name, a, b| (name, AttrValue::Ints(vec![a, b]));
        let shape = plan(&call(DType::F32, &[2, 3, 9, 11], &[5, 3, 3, 2], true, &[pair("stride", 2, 1), pair("padding", 2, 1), pair("dilation", 1, 3)])).unwrap();
        let want = Shape { dtype: DType::F32, x: [2, 3, 9, 11], w: [5, 3, 3, 2], y: [2, 5, 6, 10], stride: [2, 1], padding: [2, 1], dilation: [1, 3], bias: true };
        assert_eq!(shape, want);
    }

    #[test]
    fn what_cudnn_is_not_asked_for_is_no_offer() {
        let refused = |call: Call| plan(&call).unwrap_err().code == Code::UNIMPLEMENTED;
        let (x, w) = (&[1, 4, 8, 8], &[6, 4, 3, 3]);
        assert!(plan(&call(DType::F32, x, w, false, &[])).is_ok());
        assert!(plan(&call(DType::BF16, x, w, false, &[])).is_ok());
        assert!(refused(call(DType::F64, x, w, false, &[])));
        assert!(refused(call(DType::F16, x, w, true, &[])) && refused(call(DType::BF16, x, w, true, &[])));
        assert!(refused(call(DType::F32, x, &[6, 2, 3, 3], false, &[("groups", AttrValue::Int(2))])));
        assert!(refused(call(DType::F32, x, w, false, &[("padding", AttrValue::Ints(vec![0, 3]))])));
        assert!(refused(call(DType::F32, &[0, 4, 8, 8], w, false, &[])));
        let mut across = call(DType::F32, x, w, false, &[]);
        across.inputs[0].stride[..4].copy_from_slice(&[256, 1, 32, 4]);
        assert!(refused(across));
    }
}
