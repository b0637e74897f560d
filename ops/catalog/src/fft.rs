//! Discrete Fourier transforms: argument checks, defaults, operands, operation counts, reference and cases.
//!
//! Element (i₀, i₁, i₂) of transform b lies at element `b·dist + ((i₀·embed₁ + i₁)·embed₂ + i₂)·stride` of its binding, as in FFTW's advanced
//! interface; `embed₀` takes no part. Real transforms halve the last axis of the complex side to n/2 + 1. c2r transforms the leading axes first, then
//! the last one, of which it ignores the imaginary parts of bin 0 and, for even n, bin n/2. NaN and infinities may spread over the whole transform.

mod cases;
mod reference;

use flagos_backend_api::{DType, Error, FftDesc, FftDirection, FftKind, Result, Tensor};

use crate::{Numerics, OperandSpan, View};
pub use cases::{FftCase, FftInstance, cases};
pub use reference::reference;

/// Tolerance: ‖y - r‖₂ ≤ 2·u·log2(N)·‖r‖₂ over all N real numbers of an output.
pub const NUMERICS: Numerics = Numerics::Norm(2.0);

/// "c2c", "r2c", "c2r" by the number of a kind; "?" for an unknown one.
pub fn name(transform: u32) -> &'static str {
    match FftKind(transform) {
        FftKind::C2C => "c2c",
        FftKind::R2C => "r2c",
        FftKind::C2R => "c2r",
        _ => "?",
    }
}

/// A descriptor of one contiguous, unscaled transform of 1 to 3 axes; r2c is forward, c2r inverse, c2c forward.
pub fn descriptor(kind: FftKind, precision: DType, lengths: &[i64]) -> FftDesc {
    let mut n = [0; 3];
    n.iter_mut().zip(lengths).for_each(|(to, from)| *to = *from);
    FftDesc {
        size: FftDesc::SIZE,
        kind: FftDesc::KIND,
        transform: kind.0,
        direction: if kind == FftKind::C2R { FftDirection::INVERSE.0 } else { FftDirection::FORWARD.0 },
        precision,
        rank: lengths.len() as u32,
        n,
        batch: 1,
        in_embed: [0; 3],
        in_stride: 0,
        in_dist: 0,
        out_embed: [0; 3],
        out_stride: 0,
        out_dist: 0,
        scale: 1.0,
    }
}

/// Checks a call.
///
/// # Errors
/// UNIMPLEMENTED for unknown kinds and types; INVALID_ARGUMENT for the first illegal field, with its value and legal range.
pub fn check(d: &FftDesc) -> Result<()> {
    if d.size != FftDesc::SIZE || d.kind != FftDesc::KIND {
        let (size, kind) = (FftDesc::SIZE, FftDesc::KIND);
        return Err(Error::invalid(format!("flagos_fft_desc_t has size {} and kind {:#x}, this build's are {size} and {kind:#x}", d.size, d.kind)));
    }
    let kind = name(d.transform);
    let bad = |field: &str, value: &dyn core::fmt::Display, want: &str| Err(Error::invalid(format!("fft.{kind}: {field} is {value}; {want}")));
    if kind == "?" {
        return Err(Error::unimplemented(format!("FFT kind {} is not in this build's catalogue; kinds are 1 (c2c), 2 (r2c), 3 (c2r)", d.transform)));
    }
    if d.precision != DType::F32 && d.precision != DType::F64 {
        return Err(Error::unimplemented(format!("fft.{kind} is not offered for {}; it is for f32 and f64", d.precision)));
    }
    let directions = match FftKind(d.transform) {
        FftKind::R2C => FftDirection::FORWARD.0..=FftDirection::FORWARD.0,
        FftKind::C2R => FftDirection::INVERSE.0..=FftDirection::INVERSE.0,
        _ => FftDirection::FORWARD.0..=FftDirection::INVERSE.0,
    };
    if !directions.contains(&d.direction) {
        return bad("direction", &d.direction, "r2c is 1 (forward), c2r 2 (inverse), c2c either");
    }
    if !(1..=3).contains(&d.rank) {
        return bad("rank", &d.rank, "it must be 1 to 3");
    }
    let rank = d.rank as usize;
    for axis in 0..3 {
        if axis < rank && d.n[axis] < 1 {
            return bad(&format!("n[{axis}]"), &d.n[axis], "it must be at least 1");
        }
        let (input, output) = (lengths(d, input_complex(d)), lengths(d, output_complex(d)));
        let sides = [("n", d.n, d.n), ("in_embed", d.in_embed, input), ("out_embed", d.out_embed, output)];
        for (field, values, least) in sides {
            let (value, least) = (values[axis], least[axis]);
            if axis >= rank && value != 0 {
                return bad(&format!("{field}[{axis}]"), &value, &format!("entries from the rank ({rank}) on are 0"));
            }
            if (1..rank).contains(&axis) && value != 0 && value < least {
                return bad(&format!("{field}[{axis}]"), &value, &format!("it must be at least {least}, or 0 for that"));
            }
        }
    }
    let steps = [("in_stride", d.in_stride), ("in_dist", d.in_dist), ("out_stride", d.out_stride), ("out_dist", d.out_dist)];
    for (field, value) in [("batch", d.batch)].into_iter().chain(steps) {
        if value < 0 {
            return bad(field, &value, "it must be at least 0");
        }
    }
    if !d.scale.is_finite() || d.scale == 0.0 {
        return bad("scale", &d.scale, "it must be finite and not 0; 1 for an unscaled transform");
    }
    operands(d).map(drop)
}

/// The call with its defaults written out: embeds and strides of 0, distances of 0 or of single transforms, and `embed[0]`, which takes no part.
/// Calls that mean the same layouts become equal.
pub fn normalised(d: &FftDesc) -> FftDesc {
    let mut out = *d;
    let rank = (d.rank as usize).min(3);
    let side = |complex: bool, embed: &mut [i64; 3], stride: &mut i64, dist: &mut i64| {
        let own = lengths(d, complex);
        for axis in 0..rank {
            if axis == 0 || embed[axis] == 0 {
                embed[axis] = own[axis];
            }
        }
        if *stride == 0 {
            *stride = 1;
        }
        if *dist == 0 || d.batch <= 1 {
            *dist = embed[..rank].iter().fold(*stride, |n, e| n.saturating_mul(*e));
        }
    };
    side(input_complex(d), &mut out.in_embed, &mut out.in_stride, &mut out.in_dist);
    side(output_complex(d), &mut out.out_embed, &mut out.out_stride, &mut out.out_dist);
    out
}

/// Whether two descriptors are equal field by field.
pub fn same(a: &FftDesc, b: &FftDesc) -> bool {
    let words = |d: &FftDesc| {
        let numbers = [d.batch, d.in_stride, d.in_dist, d.out_stride, d.out_dist];
        ([d.size, d.kind, d.transform, d.direction, d.rank], d.precision, [d.n, d.in_embed, d.out_embed], numbers, d.scale.to_bits())
    };
    words(a) == words(b)
}

/// Whether input and output may have one binding: equal layouts, or for real transforms the padded layout of FFTW (unit strides, real rows of twice
/// the complex rows' length).
pub fn may_be_in_place(d: &FftDesc) -> bool {
    let d = normalised(d);
    let rank = (d.rank as usize).min(3);
    if d.transform == FftKind::C2C.0 {
        return d.in_embed == d.out_embed && d.in_stride == d.out_stride && d.in_dist == d.out_dist;
    }
    let ((real, real_dist), (complex, complex_dist)) =
        if input_complex(&d) { ((d.out_embed, d.out_dist), (d.in_embed, d.in_dist)) } else { ((d.in_embed, d.in_dist), (d.out_embed, d.out_dist)) };
    let rows = (1..rank).all(|axis| real[axis] == complex[axis] * if axis + 1 == rank { 2 } else { 1 });
    d.in_stride == 1 && d.out_stride == 1 && rows && (d.batch <= 1 || real_dist == 2 * complex_dist)
}

/// What input and output touch. `check` has passed.
///
/// # Errors
/// INVALID_ARGUMENT for spans beyond 63 bits and for outputs whose elements overlap.
pub fn operands(d: &FftDesc) -> Result<Vec<OperandSpan>> {
    let named = |e: Error| Error { message: format!("fft.{}: {}", name(d.transform), e.message), ..e };
    views(d).iter().map(|v| v.span().map_err(named)).collect()
}

/// Input and output as strided views of shape `[batch, lengths…]`; complex sides have type c64 or c128.
pub fn views(d: &FftDesc) -> Vec<View> {
    let d = &normalised(d);
    let rank = (d.rank as usize).min(3);
    let view = |name, complex: bool, embed: &[i64; 3], step: i64, dist: i64, writes: bool| {
        let dtype = match (complex, d.precision == DType::F64) {
            (false, _) => d.precision,
            (true, true) => DType::C128,
            (true, false) => DType::C64,
        };
        let (mut shape, mut stride) = (vec![d.batch], vec![dist]);
        shape.extend(&lengths(d, complex)[..rank]);
        stride.extend((0..rank).map(|axis| embed[axis + 1..rank].iter().fold(step, |n, e| n.saturating_mul(*e))));
        View { name, tensor: Tensor::strided(dtype, &shape, &stride), origin: 0, reads: !writes, writes }
    };
    vec![
        view("input", input_complex(d), &d.in_embed, d.in_stride, d.in_dist, false),
        view("output", output_complex(d), &d.out_embed, d.out_stride, d.out_dist, true),
    ]
}

/// 5·n·log2 n per complex transform of n points in all, half of it for real ones.
pub fn flops(d: &FftDesc) -> f64 {
    let n: f64 = d.n[..(d.rank as usize).min(3)].iter().map(|n| *n as f64).product();
    let factor = if d.transform == FftKind::C2C.0 { 5.0 } else { 2.5 };
    factor * n * n.max(1.0).log2() * d.batch as f64
}

fn input_complex(d: &FftDesc) -> bool {
    d.transform != FftKind::R2C.0
}
fn output_complex(d: &FftDesc) -> bool {
    d.transform != FftKind::C2R.0
}

/// Lengths of one side.
fn lengths(d: &FftDesc, complex: bool) -> [i64; 3] {
    let mut n = d.n;
    if complex && d.transform != FftKind::C2C.0 && (1..=3).contains(&d.rank) {
        n[d.rank as usize - 1] = n[d.rank as usize - 1] / 2 + 1;
    }
    n
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_written_out_and_make_equal_calls_equal() {
        let d = FftDesc { batch: 2, ..descriptor(FftKind::R2C, DType::F32, &[4, 6]) };
        let full = normalised(&d);
        assert_eq!((full.in_embed, full.in_stride, full.in_dist), ([4, 6, 0], 1, 24));
        assert_eq!((full.out_embed, full.out_stride, full.out_dist), ([4, 4, 0], 1, 16));
        assert!(same(&full, &normalised(&full)) && !same(&d, &full));
        assert!(same(&full, &normalised(&FftDesc { in_embed: [9, 6, 0], out_dist: 16, ..d })));
        assert!(!same(&full, &FftDesc { scale: 0.5, ..full }));
        check(&d).unwrap();
        let spans = operands(&d).unwrap();
        assert_eq!((spans[0].high_bytes, spans[1].high_bytes), (2 * 24 * 4, 2 * 16 * 8));
    }

    #[test]
    fn illegal_fields_are_named() {
        let d = descriptor(FftKind::C2C, DType::F64, &[4, 6]);
        let fail = |change: &dyn Fn(&mut FftDesc)| {
            let mut d = d;
            change(&mut d);
            check(&d).unwrap_err().message
        };
        assert_eq!(fail(&|d| d.n[1] = 0), "fft.c2c: n[1] is 0; it must be at least 1");
        assert_eq!(fail(&|d| d.in_embed[1] = 5), "fft.c2c: in_embed[1] is 5; it must be at least 6, or 0 for that");
        assert_eq!(fail(&|d| d.n[2] = 3), "fft.c2c: n[2] is 3; entries from the rank (2) on are 0");
        assert!(fail(&|d| d.scale = 0.0).contains("1 for an unscaled transform"));
        assert!(fail(&|d| (d.transform, d.direction) = (2, 2)).starts_with("fft.r2c: direction is 2"));
        assert!(fail(&|d| (d.batch, d.out_dist) = (2, 5)).contains("output is written"));
        assert!(fail(&|d| d.in_stride = i64::MAX / 4).contains("2^63"));
        assert!(fail(&|d| d.precision = DType::F16).contains("f32 and f64"));
    }

    #[test]
    fn in_place_needs_fitting_layouts() {
        let c2c = descriptor(FftKind::C2C, DType::F32, &[4, 6]);
        assert!(may_be_in_place(&c2c));
        assert!(!may_be_in_place(&FftDesc { out_embed: [0, 7, 0], ..c2c }));
        let r2c = descriptor(FftKind::R2C, DType::F32, &[4, 6]);
        assert!(!may_be_in_place(&r2c));
        assert!(may_be_in_place(&FftDesc { in_embed: [0, 8, 0], ..r2c }));
        assert!(!may_be_in_place(&FftDesc { batch: 2, in_embed: [0, 8, 0], in_dist: 40, ..r2c }));
    }
}
