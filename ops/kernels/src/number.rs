//! Element types of the catalogue as the compiler's: how they lie in memory, what they are computed in, how one becomes another.

use flagos_backend_api::caps;
use flagos_backend_api::{DType, Error, Result};
use flagos_compiler::build::Expr;
use flagos_compiler::{Elem, Target};

/// How a type lies in memory; integers carry no sign there, truth values are bytes of 0 or 1.
pub fn memory(t: DType) -> Elem {
    match (t.code, t.bits) {
        (2, 16) => Elem::F16,
        (4, _) => Elem::BF16,
        (2, 32) => Elem::F32,
        (2, _) => Elem::F64,
        (_, 8) => Elem::I8,
        (_, 16) => Elem::I16,
        (_, 32) => Elem::I32,
        _ => Elem::I64,
    }
}

/// What sums and functions of a type are computed in: f32 or f64; integers in 32 bits or, where they have them, 64.
pub fn compute(t: DType) -> Elem {
    match memory(t) {
        Elem::F64 => Elem::F64,
        e if e.is_float() => Elem::F32,
        Elem::I64 => Elem::I64,
        _ => Elem::I32,
    }
}

/// What sums of a type are accumulated in, by the catalogue: f32, f64 or i64.
pub fn accumulator(t: DType) -> Elem {
    memory(flagos_catalog::dtypes::accumulator(t))
}

/// Refuses types a device has no arithmetic for.
///
/// # Errors
/// UNIMPLEMENTED naming the type.
pub fn supported(types: impl IntoIterator<Item = DType>, target: &Target) -> Result<()> {
    for t in types {
        if t == DType::F64 && !target.has(caps::FP64) {
            return Err(Error::unimplemented("f64: the device has no double precision"));
        }
        if t.bits == 64 && !t.is_float() && !target.has(caps::INT64) {
            return Err(Error::unimplemented(format!("{t}: the device has no 64-bit integers")));
        }
        if t.is_complex() || (t.is_float() && t.bits == 8) {
            return Err(Error::unimplemented(format!("{t}: the portable kernels do not take it")));
        }
    }
    Ok(())
}

/// A value from memory, in the type it is computed in.
pub fn widen(value: Expr, t: DType, to: Elem) -> Expr {
    if value.elem().is_float() && !to.is_float() {
        return value.to(to);
    }
    if t.is_float() || t.is_signed_int() { value.to(to) } else { value.to_from_unsigned(to) }
}

/// A computed value as type `t` lies in memory: rounded once, wrapped, or 0 and 1.
pub fn narrow(value: Expr, t: DType) -> Expr {
    let (from, to) = (value.elem(), memory(t));
    if t.is_bool() {
        let truth = if from == Elem::I1 { value } else { value.differs(0i64) };
        return truth.to(Elem::I8);
    }
    match (from.is_float(), to.is_float()) {
        (true, true) if from == Elem::F64 && to.bytes() == 2 => sticky(value).to(Elem::F32).to(to),
        (true, false) => {
            // Beyond an unsigned type's range lies what is negative: that becomes 0.
            let value = if t.is_signed_int() { value } else { value.lt(0.0).select(0.0, value) };
            value.to(if to == Elem::I64 { to } else { Elem::I32 }).to(to)
        }
        (false, true) if to == Elem::BF16 => int_to_bf16(value),
        (false, true) if to == Elem::F16 => value.to(Elem::F32).to(to),
        _ => value.to(to),
    }
}

/// A value of one type in memory as another type's.
pub fn convert(value: Expr, from: DType, to: DType) -> Expr {
    if from == to {
        return value;
    }
    let wide = compute(from);
    if from.is_bool() || !from.is_signed_int() && !from.is_float() || from.is_float() {
        return narrow(widen(value, from, wide), to);
    }
    // Signed integers of equal or lesser width need no detour.
    if to.is_int() { value.to(memory(to)) } else { narrow(widen(value, from, wide), to) }
}

/// An f64 cut to the bits of an f32, the last of them set when something was cut: rounding that to a narrower type rounds the f64 once.
fn sticky(value: Expr) -> Expr {
    const CUT: i64 = (1 << 29) - 1;
    let bits = value.bitcast(Elem::I64);
    let kept = bits & !CUT;
    let rest = (bits & CUT).differs(0i64);
    (kept | rest.to(Elem::I64) << 29i64).bitcast(Elem::F64)
}

/// An integer rounded once to bf16: an f32 holds 24 of its bits, the last of which is set when lower ones are cut.
fn int_to_bf16(value: Expr) -> Expr {
    let elem = value.elem();
    if elem.bits() < 32 {
        return value.to(Elem::F32).to(Elem::BF16);
    }
    let negative = value.lt(0i64);
    let size = negative.select(-value, value);
    // The least integer has no positive counterpart: as an unsigned number it is right.
    let cut = |shift: i64| {
        let rest = (size & ((1i64 << shift) - 1)).differs(0i64).to(elem);
        (size.shr_unsigned(shift) | rest).to(Elem::F32) * 2f64.powi(shift as i32)
    };
    let small = size.shr_unsigned(24i64).equals(0i64);
    let size = if elem == Elem::I64 {
        let middle = size.shr_unsigned(40i64).equals(0i64);
        small.select(size.to(Elem::F32), middle.select(cut(16), cut(40)))
    } else {
        small.select(size.to(Elem::F32), cut(8))
    };
    negative.select(-size, size).to(Elem::BF16)
}
