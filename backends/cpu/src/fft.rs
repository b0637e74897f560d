//! Fourier transforms: passes along one axis after the other, over rustfft and realfft.

use std::sync::Arc;
use std::sync::{LazyLock, Mutex, PoisonError};

use flagos_backend_api::{Code, DType, Error, FftDesc, FftDirection, FftKind, Result, Tensor};
use flagos_catalog::{View, fft};
use num_complex::Complex;
use realfft::RealFftPlanner;
use rustfft::{Fft, FftNum, FftPlanner};

use crate::axes::Axes;
use crate::device::memory_bytes;
use crate::fft_large::Large;
use crate::fft_lines::{Lines, Transform};
use crate::pool::Pool;
use crate::scratch::padded;
use crate::target::Target;
use crate::tensor::settled_view;

/// A planned transform.
pub trait FftKernel: Send + Sync {
    /// Computes. `operands` are the addresses of element (0, …, 0) of input and output; equal ones mean in place.
    ///
    /// # Safety
    /// Both spans are valid as the catalogue says; equal or disjoint. `workspace` addresses [`FftKernel::workspace_bytes`] bytes, 64-byte
    /// aligned, private to this run.
    unsafe fn run(&self, operands: &[*mut u8], workspace: *mut u8, pool: &Pool) -> Result<()>;
    /// Workspace in bytes.
    fn workspace_bytes(&self) -> usize;
    /// Which implementation this is, for people.
    fn name(&self) -> String;
    /// Equal inputs give equal bits, whatever the number of threads.
    fn deterministic(&self) -> bool {
        true
    }
}

/// Plans a transform.
///
/// # Errors
/// Those of [`fft::check`], which it runs first; RESOURCE_EXHAUSTED where the tables of a length fit no memory, which the planners would end the process over.
pub fn plan(desc: &FftDesc, target: &Target) -> Result<Box<dyn FftKernel>> {
    fft::check(desc)?;
    let (longest, memory) = (desc.n.iter().copied().max().unwrap_or(1), memory_bytes().0);
    // Bluestein pads to less than 4n points and keeps two tables of them, the widest of all methods.
    let tables = (longest as u64).saturating_mul(8 * 2 * desc.precision.bytes() as u64);
    if tables > memory {
        return Err(Error::new(Code::RESOURCE_EXHAUSTED, format!("a transform of length {longest} needs up to {tables} bytes of tables; the machine has {memory}")));
    }
    if desc.precision == DType::F64 { plan_of::<f64>(desc, target) } else { plan_of::<f32>(desc, target) }
}

/// A real type with planners of its own.
pub trait Real: FftNum + Send + Sync {
    /// Planners, which keep what they planned.
    fn planners() -> &'static Mutex<(FftPlanner<Self>, RealFftPlanner<Self>)>;
    /// Rounded once.
    fn of(x: f64) -> Self;
}

macro_rules! reals {
    ($($t:ident)*) => { $(
        impl Real for $t {
            fn planners() -> &'static Mutex<(FftPlanner<$t>, RealFftPlanner<$t>)> {
                static PLANNERS: LazyLock<Mutex<(FftPlanner<$t>, RealFftPlanner<$t>)>> =
                    LazyLock::new(|| Mutex::new((FftPlanner::new(), RealFftPlanner::new())));
                &PLANNERS
            }
            fn of(x: f64) -> $t {
                x as $t
            }
        }
    )* };
}
reals! { f32 f64 }

/// The complex transform of a length.
pub fn complex<R: Real>(n: usize, forward: bool) -> Arc<dyn Fft<R>> {
    let mut planners = R::planners().lock().unwrap_or_else(PoisonError::into_inner);
    if forward { planners.0.plan_fft_forward(n) } else { planners.0.plan_fft_inverse(n) }
}

/// Where a pass reads or writes.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    Input,
    Output,
    /// Half-complex rows of all transforms, in the workspace.
    Between,
}

enum Pass<R: Real> {
    Lines(Lines<R>),
    Large(Large<R>),
}

impl<R: Real> Pass<R> {
    fn workspace_bytes(&self) -> usize {
        match self {
            Pass::Lines(p) => p.workspace_bytes(),
            Pass::Large(p) => p.workspace_bytes(),
        }
    }
}

struct Plan<R: Real> {
    between: usize,
    passes: Vec<(Place, Place, Pass<R>)>,
}

fn plan_of<R: Real>(desc: &FftDesc, target: &Target) -> Result<Box<dyn FftKernel>> {
    let views: Vec<View> = fft::views(desc).iter().map(settled_view).collect();
    let (input, output) = (&views[0].tensor, &views[1].tensor);
    let (rank, forward) = (desc.rank as usize, desc.direction == FftDirection::FORWARD.0);
    let kind = FftKind(desc.transform);
    let mut plan = Plan::<R> { between: 0, passes: Vec::new() };
    let last = rank;
    let lengths: Vec<usize> = desc.n[..rank].iter().map(|n| *n as usize).collect();
    if kind == FftKind::C2R && rank > 1 {
        let middle = Tensor::contiguous(input.dtype, input.shape());
        plan.between = padded(middle.elems() as usize * middle.dtype.bytes());
        for axis in 1..last {
            let (from, place) = if axis == 1 { (input, Place::Input) } else { (&middle, Place::Between) };
            plan.pass(place, Place::Between, complex_pass(from, &middle, axis, lengths[axis - 1], forward, 1.0, target));
        }
        plan.pass(Place::Between, Place::Output, real_pass(&middle, output, last, lengths[last - 1], kind, desc.scale, target));
        return Ok(Box::new(plan));
    }
    let scale = |axis: usize| if axis == 1 { desc.scale } else { 1.0 };
    plan.pass(Place::Input, Place::Output, match kind {
        FftKind::C2C => complex_pass(input, output, last, lengths[last - 1], forward, scale(last), target),
        _ => real_pass(input, output, last, lengths[last - 1], kind, scale(last), target),
    });
    for axis in (1..last).rev() {
        plan.pass(Place::Output, Place::Output, complex_pass(output, output, axis, lengths[axis - 1], forward, scale(axis), target));
    }
    Ok(Box::new(plan))
}

/// All lines of two tensors along `axis`: other axes, and the strides along the lines.
fn lines(from: &Tensor, to: &Tensor, axis: usize) -> (Axes<2>, [isize; 2]) {
    let others = |v: &[i64]| v.iter().enumerate().filter(|(d, _)| *d != axis).map(|(_, n)| *n).collect::<Vec<_>>();
    let strides = [from.stride[axis] as isize, to.stride[axis] as isize];
    (Axes::new(&others(from.shape()), [&others(from.stride()), &others(to.stride())]), strides)
}

fn complex_pass<R: Real>(from: &Tensor, to: &Tensor, axis: usize, n: usize, forward: bool, scale: f64, target: &Target) -> Pass<R> {
    let (lines, strides) = lines(from, to, axis);
    if let Some(large) = Large::new(&lines, strides, n, forward, scale, target) {
        return Pass::Large(large);
    }
    Pass::Lines(Lines::new(lines, strides, Transform::Complex(complex(n, forward)), scale, target))
}

fn real_pass<R: Real>(from: &Tensor, to: &Tensor, axis: usize, n: usize, kind: FftKind, scale: f64, target: &Target) -> Pass<R> {
    let (lines, strides) = lines(from, to, axis);
    let mut planners = R::planners().lock().unwrap_or_else(PoisonError::into_inner);
    let transform = if kind == FftKind::R2C { Transform::Forward(planners.1.plan_fft_forward(n)) } else { Transform::Inverse(planners.1.plan_fft_inverse(n)) };
    Pass::Lines(Lines::new(lines, strides, transform, scale, target))
}

impl<R: Real> Plan<R> {
    fn pass(&mut self, from: Place, to: Place, pass: Pass<R>) {
        self.passes.push((from, to, pass));
    }
}

impl<R: Real> FftKernel for Plan<R> {
    unsafe fn run(&self, operands: &[*mut u8], workspace: *mut u8, pool: &Pool) -> Result<()> {
        let at = |place: Place| match place {
            Place::Input => operands[0],
            Place::Output => operands[1],
            Place::Between => workspace,
        };
        let space = workspace.wrapping_add(self.between);
        for (from, to, pass) in &self.passes {
            // SAFETY: stated by the trait; passes follow each other.
            unsafe {
                match pass {
                    Pass::Lines(p) => p.run(at(*from), at(*to), space, pool),
                    Pass::Large(p) => p.run(at(*from).cast::<Complex<R>>(), at(*to).cast::<Complex<R>>(), space, pool),
                }
            }
        }
        Ok(())
    }
    fn workspace_bytes(&self) -> usize {
        self.between + self.passes.iter().map(|(_, _, p)| p.workspace_bytes()).max().unwrap_or(0)
    }
    fn name(&self) -> String {
        let large = self.passes.iter().any(|(_, _, p)| matches!(p, Pass::Large(_)));
        format!("{} passes{}", self.passes.len(), if large { ", four-step" } else { "" })
    }
}
