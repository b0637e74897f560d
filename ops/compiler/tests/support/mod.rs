//! Kernels that use every instruction and type, and a judge: the thread interpreter.
#![allow(dead_code)] // each test program uses a part of it

pub mod atomics;
pub mod control;
pub mod cuda;
pub mod elementwise;
pub mod harness;
pub mod matrix;
pub mod memory;
pub mod opencl;
pub mod processor;
pub mod random;

use flagos_compiler::run::Arg;
use flagos_compiler::thread::build::Build;
use flagos_compiler::thread::interpret::{self, scalar};
use flagos_compiler::thread::verify::verify;
use flagos_compiler::thread::{Inst, Kernel, Place, Ty, Val};
use flagos_compiler::tile::Binary;
use flagos_compiler::{Compiled, Elem};

/// How a buffer of results is compared.
#[derive(Clone, Debug)]
pub struct Check {
    /// Type of its elements.
    pub elem: Elem,
    /// Allowed distance of an element in units of the last place.
    pub ulp: fn(usize) -> u64,
    /// Elements the program leaves undefined.
    pub undefined: Vec<bool>,
}

impl Check {
    /// Every bit, but that one NaN is as good as another.
    pub fn exact(elem: Elem) -> Check {
        Check { elem, ulp: |_| 0, undefined: Vec::new() }
    }
}

/// A kernel with arguments.
pub struct Case {
    /// Name.
    pub name: String,
    /// Kernel.
    pub kernel: Kernel,
    /// Blocks.
    pub grid: [u32; 3],
    /// Arguments.
    pub args: Vec<Arg>,
    /// One per argument; `None`: not compared.
    pub checks: Vec<Option<Check>>,
}

/// Runs compiled kernels.
pub trait Runner {
    /// Compiles and runs; buffers hold the results.
    fn run(&self, compiled: &Compiled, kernel: &Kernel, grid: [u32; 3], args: &mut [Arg]) -> Result<(), String>;
}

/// Bits of an element of a buffer.
pub fn element(elem: Elem, bytes: &[u8], i: usize) -> u64 {
    let w = elem.bytes() as usize;
    bytes[i * w..(i + 1) * w].iter().rev().fold(0, |n, b| n << 8 | u64::from(*b))
}

/// A buffer of elements.
pub fn buffer(elem: Elem, bits: impl IntoIterator<Item = u64>) -> Arg {
    Arg::Buffer(bits.into_iter().flat_map(|b| b.to_le_bytes()[..elem.bytes() as usize].to_vec()).collect())
}

/// A buffer of `count` zeros.
pub fn zeros(elem: Elem, count: usize) -> Arg {
    Arg::Buffer(vec![0; count * elem.bytes() as usize])
}

/// Floats as whole numbers in order of size, so that neighbours differ by 1.
fn ordered(elem: Elem, bits: u64) -> i64 {
    let sign = 1u64 << (elem.bits() - 1);
    let magnitude = (bits & (sign - 1)) as i64;
    if bits & sign == 0 { magnitude } else { -magnitude }
}

fn near(elem: Elem, want: u64, got: u64, ulp: u64) -> bool {
    if want == got {
        return true;
    }
    if !elem.is_float() {
        return false;
    }
    let nan = |bits| scalar::float(elem, bits).is_nan();
    match (nan(want), nan(got)) {
        (true, true) => true,
        (false, false) if ulp > 0 => ordered(elem, want).abs_diff(ordered(elem, got)) <= ulp,
        _ => false,
    }
}

/// Runs a case by the interpreter and by a runner; what differs is the error.
pub fn judge(case: &Case, compiled: &Compiled, runner: &dyn Runner) -> Result<(), String> {
    verify(&case.kernel).map_err(|e| format!("{}: {e}", case.name))?;
    let (mut want, mut got) = (case.args.clone(), case.args.clone());
    interpret::run(&case.kernel, case.grid, &mut want).map_err(|e| format!("{}: interpreter: {e}", case.name))?;
    let source = || format!("\n--- source\n{}", String::from_utf8_lossy(&compiled.code));
    runner.run(compiled, &case.kernel, case.grid, &mut got).map_err(|e| format!("{}: {e}{}", case.name, source()))?;
    for (i, check) in case.checks.iter().enumerate() {
        let (Some(check), Arg::Buffer(want), Arg::Buffer(got)) = (check, &want[i], &got[i]) else { continue };
        for n in 0..want.len() / check.elem.bytes() as usize {
            let (w, g) = (element(check.elem, want, n), element(check.elem, got, n));
            let undefined = check.undefined.get(n).copied().unwrap_or(false);
            if !undefined && !near(check.elem, w, g, (check.ulp)(n)) {
                let text = |bits| if check.elem.is_float() { format!("{bits:#x} ({:e})", scalar::float(check.elem, bits)) } else { format!("{bits:#x}") };
                return Err(format!("{}: argument {i}, element {n}: {}, not {}{}", case.name, text(g), text(w), source()));
            }
        }
    }
    Ok(())
}

/// An address aligned to its element.
pub fn at(b: &Build<'_>, pointer: Val) -> Place {
    let Ty::Ptr(elem) = b.kernel.ty(pointer) else { panic!("no pointer") };
    Place::Global { pointer, align: elem.bytes() }
}

/// Index of the thread in the grid (i32).
pub fn thread_index(b: &mut Build<'_>) -> Val {
    let ty = Ty::Elem(Elem::I32);
    let (block, thread) = (b.inst(ty, Inst::BlockId(0)), b.inst(ty, Inst::ThreadId));
    let threads = i64::from(b.kernel.threads);
    let start = b.binary_int(Binary::MulI, block, threads);
    b.binary(Binary::AddI, start, thread)
}

/// Loads element `index` of a buffer.
pub fn load(b: &mut Build<'_>, pointer: Val, index: Val) -> Val {
    let address = b.ptr_add(pointer, index);
    let place = at(b, address);
    b.load(place, 1)[0]
}

/// Stores element `index + by` of a buffer.
pub fn store(b: &mut Build<'_>, pointer: Val, index: Val, by: usize, value: Val) {
    let index = b.binary_int(Binary::AddI, index, by as i64);
    let address = b.ptr_add(pointer, index);
    let place = at(b, address);
    b.store(place, &[value]);
}

/// A generator of numbers (Weyl sequence through a mixer): the same in every run.
pub struct Numbers(pub u64);

impl Iterator for Numbers {
    type Item = u64;
    fn next(&mut self) -> Option<u64> {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Some(z ^ (z >> 31))
    }
}

/// `count` values of a type: special ones first, then bits at random, then numbers near 1.
pub fn samples(elem: Elem, count: usize, seed: u64) -> Vec<u64> {
    let mask = scalar::mask(elem);
    let special: Vec<u64> = if elem.is_float() {
        let values = [0.0, -0.0, 1.0, -1.0, 0.5, 1.5, 2.5, -2.5, 3.0, 1e-3, 1e4, f64::INFINITY, f64::NEG_INFINITY, f64::NAN, 448.0, 464.0, 65519.0, 65520.0];
        let sign = 1u64 << (elem.bits() - 1);
        values.iter().map(|v| scalar::from_float(elem, *v, false)).chain([1, 2, sign | 1, sign - 1, mask]).collect()
    } else {
        let top = mask ^ (mask >> 1);
        vec![0, 1, mask, top, top.wrapping_sub(1) & mask, top | 1, 2 & mask, 7 & mask, mask - 1]
    };
    let mut numbers = Numbers(seed);
    let mut out = Vec::with_capacity(count);
    // Every pair of special values meets when two operands have different strides through them.
    for i in 0..count {
        let random = numbers.next().unwrap();
        out.push(match i % 4 {
            0 => special[(random >> 32) as usize % special.len()],
            1 if elem.is_float() => scalar::from_float(elem, (random as i64 as f64) * 2f64.powi(-61), false),
            2 if elem.is_float() => scalar::from_float(elem, (random as i64 as f64) * 2f64.powi(-58), false),
            2 => (random % 100) & mask,
            _ => random & mask,
        });
    }
    out
}
