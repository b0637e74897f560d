//! Format `cuda-c++`: C++17 for NVRTC, without headers.
//!
//! Matrix units: a target of this format may list the shapes of [`MATRIX_SHAPES`], as far as its architecture has them; they are `mma.sync`
//! instructions of a warp of 32. Shared memory is best read 16 bytes aligned with strides that are multiples of 16 bytes (`ldmatrix`).

use super::cuda_matrix;
use super::cxx::{Maker, native_float_add};
use super::source::{Printer, line};
use crate::error::Result;
use crate::thread::{Effect, FragmentInfo, Inst, Val};
use crate::tile::Rmw;
use crate::{Elem, MatrixShape, Target};

/// Shapes of matrix units by the least architecture that has them (sm_80: 80). Factors of f32 are rounded to TF32.
pub const MATRIX_SHAPES: &[(u32, MatrixShape)] = &[
    (80, MatrixShape { m: 16, n: 8, k: 16, factor: Elem::F16, sum: Elem::F32 }),
    (80, MatrixShape { m: 16, n: 8, k: 16, factor: Elem::F16, sum: Elem::F16 }),
    (80, MatrixShape { m: 16, n: 8, k: 16, factor: Elem::BF16, sum: Elem::F32 }),
    (80, MatrixShape { m: 16, n: 8, k: 8, factor: Elem::F32, sum: Elem::F32 }),
    (80, MatrixShape { m: 16, n: 8, k: 32, factor: Elem::I8, sum: Elem::I32 }),
    (80, MatrixShape { m: 8, n: 8, k: 4, factor: Elem::F64, sum: Elem::F64 }),
    (89, MatrixShape { m: 16, n: 8, k: 32, factor: Elem::F8E4M3, sum: Elem::F32 }),
    (89, MatrixShape { m: 16, n: 8, k: 32, factor: Elem::F8E5M2, sum: Elem::F32 }),
];

/// What the dialect needs to know of a device.
pub(super) struct Cuda {
    /// 90 for sm_90.
    sm: u32,
}

impl Cuda {
    /// The dialect of a device.
    pub(super) fn new(target: &Target) -> Cuda {
        Cuda { sm: target.sm() }
    }
}

impl Maker for Cuda {
    fn head(&self, p: &Printer<'_>) -> String {
        if p.kernel.fragments.is_empty() { String::new() } else { "template <typename T, int N> struct fl_fragment {\n    T r[N];\n};\n".to_owned() }
    }

    fn helper(&self, name: &str) -> Option<String> {
        if let Some(text) = cuda_matrix::helper(name).or_else(|| copy_helper(name)) {
            return Some(text);
        }
        let asm = |signature: &str, ty: &str, text: &str, out: &str, inputs: &str| {
            format!("FN {ty} {signature} {{\n    {ty} r;\n    asm(\"{text};\" : \"={out}\"(r) : {inputs});\n    return r;\n}}\n")
        };
        Some(match name {
            "f32_from_f16" => asm("fl_f32_from_f16(u16 x)", "f32", "cvt.f32.f16 %0, %1", "f", "\"h\"(x)"),
            "f16_from_f32" => asm("fl_f16_from_f32(f32 x)", "u16", "cvt.rn.f16.f32 %0, %1", "h", "\"f\"(x)"),
            "bf16_from_f32" if self.sm >= 80 => asm("fl_bf16_from_f32(f32 x)", "u16", "cvt.rn.bf16.f32 %0, %1", "h", "\"f\"(x)"),
            "maximum_f32" if self.sm >= 80 => asm("fl_maximum_f32(f32 a, f32 b)", "f32", "max.NaN.f32 %0, %1, %2", "f", "\"f\"(a), \"f\"(b)"),
            "minimum_f32" if self.sm >= 80 => asm("fl_minimum_f32(f32 a, f32 b)", "f32", "min.NaN.f32 %0, %1, %2", "f", "\"f\"(a), \"f\"(b)"),
            "maxnum_f32" => "FN f32 fl_maxnum_f32(f32 a, f32 b) {\n    return fmaxf(a, b);\n}\n".to_owned(),
            "minnum_f32" => "FN f32 fl_minnum_f32(f32 a, f32 b) {\n    return fminf(a, b);\n}\n".to_owned(),
            _ => return None,
        })
    }

    fn most_lanes(&self) -> u32 {
        32
    }

    fn shuffle(&self, base: &str) -> String {
        format!("__{base}_sync(0xffffffffu, ")
    }

    fn subgroup_barrier(&self) -> &'static str {
        "__syncwarp();"
    }

    fn has_cas16(&self) -> bool {
        self.sm >= 70
    }

    fn float_atomic(&self, rmw: Rmw, elem: Elem) -> Option<String> {
        let half = match elem {
            Elem::F16 if self.sm >= 70 => "f16",
            Elem::BF16 if self.sm >= 90 => "bf16",
            _ => return native_float_add(elem).filter(|_| rmw == Rmw::FAdd),
        };
        (rmw == Rmw::FAdd).then(|| {
            format!("    u16 r;\n    asm volatile(\"atom.add.noftz.{half} %0, [%1], %2;\" : \"=h\"(r) : \"l\"(p), \"h\"(v) : \"memory\");\n    return r;\n")
        })
    }

    fn copy(&self, p: &mut Printer<'_>, effect: &Effect) -> Result<()> {
        match effect {
            Effect::Copy { array, index, pointer, count, mask } => {
                let bytes = count * p.kernel.shared[array.0 as usize].elem.bytes();
                let (to, from) = (format!("&s{}[{}]", array.0, p.s(*index)?), p.u(*pointer));
                match mask {
                    Some(mask) => line!(p, "fl_copy_masked_{bytes}({to}, {from}, {});", p.u(*mask)),
                    None => line!(p, "fl_copy_{bytes}({to}, {from});"),
                }
            }
            Effect::CopyWait(groups) => line!(p, "asm volatile(\"cp.async.wait_group {groups};\" ::: \"memory\");"),
            _ => line!(p, "asm volatile(\"cp.async.commit_group;\" ::: \"memory\");"),
        }
        Ok(())
    }

    fn fragment(&self, info: &FragmentInfo) -> Result<String> {
        cuda_matrix::fragment(info, self.sm)
    }

    fn matrix(&self, p: &mut Printer<'_>, result: Val, inst: &Inst) -> Result<()> {
        cuda_matrix::define(p, result, inst)
    }

    fn matrix_store(&self, p: &mut Printer<'_>, effect: &Effect) -> Result<()> {
        cuda_matrix::store(p, effect)
    }
}

/// Asynchronous copies: `copy_16`, `copy_masked_4`; masked off, zeros arrive and nothing is read.
fn copy_helper(name: &str) -> Option<String> {
    let rest = name.strip_prefix("copy_")?;
    let (masked, bytes) = rest.strip_prefix("masked_").map_or((false, rest), |b| (true, b));
    // Only the widest may pass by the first cache.
    let cache = if bytes == "16" { "cg" } else { "ca" };
    let (parameter, operand, value) = if masked { (", i1 there", ", %2", format!(", \"r\"(there ? {bytes}u : 0u)")) } else { ("", "", String::new()) };
    Some(format!(
        "FN void fl_{name}(void *to, const u8 *from{parameter}) {{
    const u32 address = (u32)__cvta_generic_to_shared(to);
    asm volatile(\"cp.async.{cache}.shared.global.L2::128B [%0], [%1], {bytes}{operand};\" :: \"r\"(address), \"l\"(from){value} : \"memory\");
}}
"
    ))
}
