//! Atomics of C-like languages: what each leaves in memory, and names of their helpers.

use super::narrow::tag;
use crate::error::Result;
use crate::tile::Rmw;
use crate::{CompileError, Elem};

/// Refuses operations that a type does not have.
pub(super) fn check_rmw(rmw: Rmw, elem: Elem) -> Result<()> {
    let fits = match rmw {
        Rmw::And | Rmw::Or | Rmw::Xor | Rmw::Exch if elem == Elem::I1 => true,
        _ if elem == Elem::I1 => false,
        Rmw::FAdd => elem.is_float(),
        Rmw::Add | Rmw::And | Rmw::Or | Rmw::Xor | Rmw::UMax | Rmw::UMin => elem.is_int(),
        Rmw::Max | Rmw::Min | Rmw::Exch => true,
    };
    if fits { Ok(()) } else { Err(CompileError::invalid("tt.atomic_rmw", Default::default(), format!("{rmw:?} on {elem}"))) }
}

/// What a read-modify-write leaves in memory, over the bits `old` and `v` of an element: the heart of a compare-and-swap loop.
pub(super) fn combine(rmw: Rmw, elem: Elem) -> String {
    let narrow = elem.is_float() && elem.bits() < 32;
    let (bits, wide) = (elem.bits(), if elem == Elem::F64 { 64 } else { 32 });
    let float = |x: &str| if narrow { format!("fl_f32_from_{}({x})", tag(elem)) } else { format!("fl_as_f{bits}({x})") };
    let back = |x: String| if narrow { format!("fl_{}_from_f32({x})", tag(elem)) } else { format!("fl_as_u{bits}({x})") };
    let signed = |x: &str| format!("(i{bits}){x}");
    match rmw {
        Rmw::And => "old & v".to_owned(),
        Rmw::Or => "old | v".to_owned(),
        Rmw::Xor => "old ^ v".to_owned(),
        Rmw::Add => "old + v".to_owned(),
        Rmw::FAdd => back(format!("{} + {}", float("old"), float("v"))),
        Rmw::Max | Rmw::Min if elem.is_float() => back(format!("fl_{}_f{wide}({}, {})", if rmw == Rmw::Max { "maxnum" } else { "minnum" }, float("old"), float("v"))),
        Rmw::Max => format!("{} > {} ? old : v", signed("old"), signed("v")),
        Rmw::Min => format!("{} < {} ? old : v", signed("old"), signed("v")),
        Rmw::UMax => "old > v ? old : v".to_owned(),
        Rmw::UMin => "old < v ? old : v".to_owned(),
        Rmw::Exch => "v".to_owned(),
    }
}

/// A read-modify-write's name in helpers.
pub(super) fn rmw_name(rmw: Rmw) -> &'static str {
    match rmw {
        Rmw::And => "and",
        Rmw::Or => "or",
        Rmw::Xor => "xor",
        Rmw::Add => "add",
        Rmw::FAdd => "fadd",
        Rmw::Max => "max",
        Rmw::Min => "min",
        Rmw::UMax => "umax",
        Rmw::UMin => "umin",
        Rmw::Exch => "exch",
    }
}

/// The read-modify-write and element type of a helper named `…_RMW_ELEM`, as [`rmw_name`] and [`Elem::name`] spell them.
pub(super) fn rmw_of(name: &str) -> Option<(Rmw, Elem)> {
    let (rmw, elem) = name.split_once('_')?;
    let all = [Rmw::And, Rmw::Or, Rmw::Xor, Rmw::Add, Rmw::FAdd, Rmw::Max, Rmw::Min, Rmw::UMax, Rmw::UMin, Rmw::Exch];
    Some((all.into_iter().find(|r| rmw_name(*r) == rmw)?, Elem::from_name(elem)?))
}
