//! a·b + c rounded once. Vulkan lets a driver round the product too, so it is spelled out unless the device is known not to.

use spirv::{Decoration, GlslStd450Op, Op};

use super::module::Id;
use super::{Emitter, unsupported};
use crate::Elem;
use crate::error::Result;

impl Emitter<'_> {
    /// a·b + c of f32 or f64.
    pub(super) fn fused(&mut self, elem: Elem, [a, b, c]: [Id; 3]) -> Result<Id> {
        if self.device.fused(elem.bits()) {
            let ty = self.elem(elem);
            let id = self.m.glsl(GlslStd450Op::Fma, ty, &[a, b, c]);
            self.m.decorate(id, Decoration::NoContraction, &[]);
            return Ok(id);
        }
        if elem == Elem::F32 && self.device.double {
            return Ok(self.fused_through_double([a, b, c]));
        }
        unsupported("math.fma", format!("kernel '{}' rounds a·b + c of {elem} once, which the device does not promise", self.kernel.name))
    }

    /// The product of two singles is exact in double precision; the sum is rounded to odd there, so that rounding it to single is rounding once.
    fn fused_through_double(&mut self, parts: [Id; 3]) -> Id {
        let (double, bool, u64) = (self.m.float(64), self.m.bool, self.m.u64);
        let [a, b, c] = parts.map(|p| self.m.op(Op::FConvert, double, &[p]));
        let product = self.m.exact(Op::FMul, double, &[a, b]);
        let sum = self.m.exact(Op::FAdd, double, &[product, c]);
        // What the sum lost, exactly.
        let back = self.m.exact(Op::FSub, double, &[sum, product]);
        let first = self.m.exact(Op::FSub, double, &[sum, back]);
        let first = self.m.exact(Op::FSub, double, &[product, first]);
        let second = self.m.exact(Op::FSub, double, &[c, back]);
        let lost = self.m.exact(Op::FAdd, double, &[first, second]);
        let zero = self.float(Elem::F64, 0.0);
        let inexact = self.m.op(Op::FOrdNotEqual, bool, &[lost, zero]);
        // Between two doubles the odd one is taken: one further in the direction of what was lost where the sum is even.
        let bits = self.bits(Elem::F64, sum);
        let rest = self.bits(Elem::F64, lost);
        let (one, none, less) = (self.m.c64(1), self.m.c64(0), self.m.c64(u64::MAX));
        let last = self.m.op(Op::BitwiseAnd, u64, &[bits, one]);
        let even = self.m.op(Op::IEqual, bool, &[last, none]);
        let moved = self.m.op(Op::LogicalAnd, bool, &[inexact, even]);
        let signs = self.m.op(Op::BitwiseXor, u64, &[bits, rest]);
        let apart = self.m.op(Op::SLessThan, bool, &[signs, none]);
        let step = self.m.select(u64, apart, less, one);
        let step = self.m.select(u64, moved, step, none);
        let odd = self.m.op(Op::IAdd, u64, &[bits, step]);
        let odd = self.reinterpret(Elem::F64, odd);
        self.m.op(Op::FConvert, self.m.f32, &[odd])
    }
}
