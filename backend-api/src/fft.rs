//! FFT table: batched, strided and embedded discrete Fourier transforms.

use crate::{DType, Device, Plan, PlanLimits, PlanTable, Status, Support, abi_enum, abi_struct};

abi_enum! {
    /// Kinds of transforms.
    FftKind = "flagos_fft_kind_t", "FLAGOS_FFT_" {
        /// Complex to complex.
        C2C = 1,
        /// Real to half-complex: n/2 + 1 outputs along the last axis; forward only.
        R2C = 2,
        /// Half-complex to real; inverse only. The imaginary parts of bins 0 and, for even n, n/2 are ignored.
        C2R = 3,
    }
    /// Sign of the exponent.
    FftDirection = "flagos_fft_direction_t", "FLAGOS_FFT_" {
        /// exp(-2πi jk/n).
        FORWARD = 1,
        /// exp(+2πi jk/n).
        INVERSE = 2,
    }
}

abi_struct! {
    /// An FFT call. Bindings: input, output; equal bindings mean in place, with equal layouts. Unscaled unless `scale` says so.
    FftDesc = "flagos_fft_desc_t", kind 0x70 {
        /// `sizeof(flagos_fft_desc_t)`.
        size: u32,
        /// 0x70.
        kind: u32,
        /// A `flagos_fft_kind_t` value.
        transform: u32,
        /// A `flagos_fft_direction_t` value.
        direction: u32,
        /// Real type of the data: f32 or f64 (f16 and bf16 storage where offered).
        precision: DType,
        /// Number of axes, 1 to 3.
        rank: u32,
        /// Logical lengths, outermost first.
        n: [i64; 3],
        /// Number of transforms.
        batch: i64,
        /// Physical input lengths, as FFTW's inembed; 0: `n` (c2r: n/2 + 1 last).
        in_embed: [i64; 3],
        /// Element stride of the innermost input axis.
        in_stride: i64,
        /// Elements between input transforms.
        in_dist: i64,
        /// Physical output lengths; 0: `n` (r2c: n/2 + 1 last).
        out_embed: [i64; 3],
        /// Element stride of the innermost output axis.
        out_stride: i64,
        /// Elements between output transforms.
        out_dist: i64,
        /// Factor applied to every output; 1 for none.
        scale: f64,
    }

    /// FFT functions. Optional.
    FftTable = "flagos_fft_table_t", kind 0x71 {
        /// `sizeof(flagos_fft_table_t)`.
        size: u32,
        /// 0x71.
        kind: u32,
        /// Whether a call is offered; as for operators.
        [Free] fn query(device: *mut Device, desc: *const FftDesc, level: u32, out_support: *mut Support) -> *mut Status,
        /// Prepares a call.
        [Free] fn plan(device: *mut Device, desc: *const FftDesc, limits: *const PlanLimits, out_plan: *mut *mut Plan) -> *mut Status,
        /// Plan functions.
        plans: *const PlanTable,
    }
}
