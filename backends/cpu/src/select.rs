//! `where`.

use core::marker::PhantomData;

use flagos_backend_api::{DType, Result};
use flagos_catalog::{Attrs, Call, select::WHERE};

use crate::block::{Step, block_fn};
use crate::convert::Raw;
use crate::kernel::Kernel;
use crate::ops::Registry;
use crate::pointwise::Pointwise;
use crate::target::Target;

/// Offers the family.
pub fn add(registry: &mut Registry) {
    registry.add(WHERE, plan);
}

fn plan(call: &Call, target: &Target) -> Result<Box<dyn Kernel>> {
    let t = call.promoted();
    // The condition is widened to the values' width, and bits are chosen.
    let (condition, block) = match t.bytes() {
        1 => (DType::U8, block_fn::<3, Select<u8>, Select<u8>>(target.isa)),
        2 => (DType::I16, block_fn::<3, Select<u16>, Select<u16>>(target.isa)),
        4 => (DType::I32, block_fn::<3, Select<u32>, Select<u32>>(target.isa)),
        _ => (DType::I64, block_fn::<3, Select<u64>, Select<u64>>(target.isa)),
    };
    Ok(Box::new(Pointwise::new(call, target, &[condition, t, t], t, block)?))
}

struct Select<T>(PhantomData<T>);
impl<T: Copy + Default + PartialEq + 'static> Step<3> for Select<T> {
    type Lane = Raw<T>;
    type Out = T;
    #[inline(always)]
    fn eval([mask, a, b]: [Raw<T>; 3], _: &Attrs) -> (T, bool) {
        (if mask.0 != T::default() { a.0 } else { b.0 }, false)
    }
    fn exact(x: [T; 3], attrs: &Attrs) -> T {
        Self::eval(x.map(Raw), attrs).0
    }
}
