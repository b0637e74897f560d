//! Format `hip-c++`: C++17 for hipRTC, without headers. Matrix units are not used.

use super::cxx::{Maker, native_float_add};
use super::source::{Printer, invalid};
use crate::error::Result;
use crate::thread::{Effect, FragmentInfo, Inst, Val};
use crate::tile::Rmw;
use crate::{CompileError, Elem};

/// The dialect's own words.
pub(super) struct Hip;

impl Maker for Hip {
    fn head(&self, _: &Printer<'_>) -> String {
        "#pragma clang fp contract(off)\n".to_owned()
    }

    fn helper(&self, name: &str) -> Option<String> {
        Some(match name {
            "f32_from_f16" => "FN f32 fl_f32_from_f16(u16 x) {\n    return (f32)__builtin_bit_cast(_Float16, x);\n}\n".to_owned(),
            "f16_from_f32" => "FN u16 fl_f16_from_f32(f32 x) {\n    return __builtin_bit_cast(u16, (_Float16)x);\n}\n".to_owned(),
            _ => return None,
        })
    }

    fn most_lanes(&self) -> u32 {
        64
    }

    fn shuffle(&self, base: &str) -> String {
        format!("__{base}(")
    }

    fn subgroup_barrier(&self) -> &'static str {
        "__builtin_amdgcn_fence(__ATOMIC_ACQ_REL, \"wavefront\"); __builtin_amdgcn_wave_barrier();"
    }

    fn has_cas16(&self) -> bool {
        false
    }

    fn float_atomic(&self, rmw: Rmw, elem: Elem) -> Option<String> {
        native_float_add(elem).filter(|_| rmw == Rmw::FAdd)
    }

    fn copy(&self, _: &mut Printer<'_>, effect: &Effect) -> Result<()> {
        Err(invalid(format!("{effect} in a format without asynchronous copies")))
    }

    fn fragment(&self, info: &FragmentInfo) -> Result<String> {
        let text = format!("matrix units ({:?}) in format hip-c++; list none in the target", info.shape);
        Err(CompileError::unsupported("tt.dot", Default::default(), text))
    }

    fn matrix(&self, _: &mut Printer<'_>, _: Val, inst: &Inst) -> Result<()> {
        Err(invalid(format!("{inst:?} in a format without matrix units")))
    }

    fn matrix_store(&self, _: &mut Printer<'_>, effect: &Effect) -> Result<()> {
        Err(invalid(format!("{effect:?} in a format without matrix units")))
    }
}
