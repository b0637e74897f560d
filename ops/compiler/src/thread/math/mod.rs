//! Functions that a format lacks, or has too imprecisely, written with those it has.
//!
//! Vulkan promises little of its functions: sines within 2^-11, exponentials within 3 + 2·|x| units in the last place, quotients within 2.5
//! and roots within more, and nothing at all for f64. Here they stay within two units over the whole range, and quotients, square roots and
//! remainders are exact; sums and products rounded once are all that is relied on. OpenCL's quotients and square roots of f32 are as vague, and its
//! tanh may miss 1 where 1 - tanh² is what counts; the rest of its functions are good enough. The other formats have what they need.

mod error;
mod exact;
mod exponential;
mod logarithm;
mod number;
#[cfg(test)]
mod tests;
mod trigonometric;

use flagos_backend_api::{KernelFormat, caps};

use crate::thread::{Inst, Kernel, Stmt, Ty, Val};
use crate::tile::{Binary, Unary};
use crate::{Elem, Target};
use number::{Math, Num};

/// Rewrites the functions of a kernel that the target's format lacks. Does nothing twice: what it writes it never rewrites, but a kernel is to
/// be expanded once, as estimates in the expansion look like what they estimate.
pub fn expand(kernel: &mut Kernel, target: &Target) {
    let lacks: Lacks = match target.format {
        KernelFormat::SPIRV_VULKAN => |_, _| true,
        KernelFormat::OPENCL_C => |inst, elem| elem == Elem::F32 && matches!(inst, Inst::Binary(Binary::DivF, ..) | Inst::Unary(Unary::Sqrt | Unary::Tanh, _)),
        _ => return,
    };
    // OpenCL's double precision is exact; where it is as fast as single, as on processors, it saves most of the code.
    let exact = target.format == KernelFormat::OPENCL_C && target.is_processor() && target.has(caps::FP64) && !target.has(caps::FLUSHES_SUBNORMALS);
    let wanted = Wanted { lacks, in_double: exact };
    let body = core::mem::take(&mut kernel.body);
    kernel.body = list(kernel, body, wanted);
}

/// Whether a format lacks an instruction on floats of a type; asked of those that can be written out.
type Lacks = fn(&Inst, Elem) -> bool;

/// What is to be written out, and how.
#[derive(Clone, Copy)]
struct Wanted {
    lacks: Lacks,
    /// Quotients and roots of f32 by way of f64.
    in_double: bool,
}

fn list(kernel: &mut Kernel, body: Vec<Stmt>, wanted: Wanted) -> Vec<Stmt> {
    let mut out = Vec::with_capacity(body.len());
    for stmt in body {
        match stmt {
            Stmt::Let { results, inst } => match results.first().and_then(|r| written(kernel, *r, &inst, wanted)) {
                Some(statements) => out.extend(statements),
                None => out.push(Stmt::Let { results, inst }),
            },
            Stmt::If { condition, uniform, then, other } => {
                let (then, other) = (list(kernel, then, wanted), list(kernel, other, wanted));
                out.push(Stmt::If { condition, uniform, then, other });
            }
            Stmt::For { index, low, high, step, unsigned, uniform, unroll, body } => {
                let body = list(kernel, body, wanted);
                out.push(Stmt::For { index, low, high, step, unsigned, uniform, unroll, body });
            }
            Stmt::Loop { uniform, body } => out.push(Stmt::Loop { uniform, body: list(kernel, body, wanted) }),
            other => out.push(other),
        }
    }
    out
}

/// The statements that define `result` as an instruction would, where the instruction is to be replaced.
fn written(kernel: &mut Kernel, result: Val, inst: &Inst, wanted: Wanted) -> Option<Vec<Stmt>> {
    let (operand, second) = match inst {
        Inst::Unary(_, a) => (*a, *a),
        Inst::Binary(_, a, b) => (*a, *b),
        _ => return None,
    };
    let Ty::Elem(elem @ (Elem::F32 | Elem::F64)) = kernel.ty(operand) else { return None };
    if !(wanted.lacks)(inst, elem) {
        return None;
    }
    let in_double = wanted.in_double && elem == Elem::F32;
    let one = if let Inst::Unary(op, _) = inst { Some(of_one(*op, in_double)?) } else { None };
    let two = if let Inst::Binary(op, ..) = inst { Some(of_two(*op, in_double)?) } else { None };
    let math = Math::new(core::mem::replace(kernel, Kernel::new("", 1, 0)), elem);
    let (a, b) = (math.value(operand), math.value(second));
    let value = match (one, two) {
        (Some(f), _) => f(a),
        (_, Some(f)) => f(a, b),
        _ => a,
    };
    let last = value.val;
    let (back, mut statements) = math.finish();
    *kernel = back;
    for stmt in statements.iter_mut().rev() {
        if let Stmt::Let { results, .. } = stmt
            && results[0] == last
        {
            results[0] = result;
            break;
        }
    }
    Some(statements)
}

/// A function of one number as it is written.
type OfOne = for<'m> fn(Num<'m>) -> Num<'m>;

/// A function of two numbers as it is written.
type OfTwo = for<'m> fn(Num<'m>, Num<'m>) -> Num<'m>;

fn of_one(op: Unary, in_double: bool) -> Option<OfOne> {
    Some(match op {
        Unary::Exp => exponential::exp,
        Unary::Exp2 => exponential::exp2,
        Unary::Expm1 => exponential::expm1,
        Unary::Log => logarithm::log,
        Unary::Log2 => logarithm::log2,
        Unary::Log10 => logarithm::log10,
        Unary::Log1p => logarithm::log1p,
        Unary::Sin => trigonometric::sin,
        Unary::Cos => trigonometric::cos,
        Unary::Tan => trigonometric::tan,
        Unary::Asin => trigonometric::asin,
        Unary::Acos => trigonometric::acos,
        Unary::Atan => trigonometric::atan,
        Unary::Sinh => exponential::sinh,
        Unary::Cosh => exponential::cosh,
        Unary::Tanh => exponential::tanh,
        Unary::Asinh => logarithm::asinh,
        Unary::Acosh => logarithm::acosh,
        Unary::Atanh => logarithm::atanh,
        Unary::Erf => error::erf,
        Unary::Sqrt if in_double => exact::square_root_in_double,
        Unary::Sqrt => exact::square_root,
        Unary::Rsqrt => logarithm::rsqrt,
        Unary::Cbrt => logarithm::cbrt,
        _ => return None,
    })
}

fn of_two(op: Binary, in_double: bool) -> Option<OfTwo> {
    Some(match op {
        Binary::DivF if in_double => exact::divide_in_double,
        Binary::DivF => exact::divide,
        Binary::RemF => exact::remainder,
        Binary::Pow => logarithm::pow,
        Binary::Atan2 => trigonometric::atan2,
        _ => return None,
    })
}
