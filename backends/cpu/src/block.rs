//! Block functions: one pass over dense elements, compiled once per instruction set.

use core::mem::MaybeUninit;

use flagos_catalog::Attrs;

use crate::lanes::Lane;
use crate::target::Isa;

/// Computes `n` elements of `y` from up to three dense inputs.
///
/// # Safety
/// Inputs hold `n` elements; `y` holds `n` elements, may be uninitialised, and overlaps no input.
pub type BlockFn = unsafe fn(x: &[*const u8; 3], y: &mut [MaybeUninit<u8>], n: usize, attrs: &Attrs);

/// What a block function does to an element.
pub trait Step<const N: usize>: 'static {
    /// What inputs are loaded as.
    type Lane: Lane;
    /// Element of the output.
    type Out: Copy + Default;
    /// Number of values of the first attribute if that is a choice; the pass is compiled for each.
    const CHOICES: usize = 1;
    /// The element, and whether it must be computed by `exact` instead.
    fn eval(x: [Self::Lane; N], attrs: &Attrs) -> (Self::Out, bool);
    /// The element by slower means.
    fn exact(x: [<Self::Lane as Lane>::Item; N], attrs: &Attrs) -> Self::Out;
}

/// The block function of a step for an instruction set: `Plain` without a fused multiply-add, `Fused` with one.
pub fn block_fn<const N: usize, Plain: Step<N>, Fused: Step<N>>(isa: Isa) -> BlockFn {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => avx512::<N, Fused>,
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => avx2::<N, Fused>,
        _ => baseline::<N, Plain>,
    }
}

/// # Safety
/// As [`BlockFn`].
unsafe fn baseline<const N: usize, S: Step<N>>(x: &[*const u8; 3], y: &mut [MaybeUninit<u8>], n: usize, attrs: &Attrs) {
    // SAFETY: passed on.
    unsafe { pass::<N, S>(x, y, n, attrs) }
}

/// # Safety
/// As [`BlockFn`], on a processor with these features.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c,bmi1,bmi2,lzcnt,popcnt")]
unsafe fn avx2<const N: usize, S: Step<N>>(x: &[*const u8; 3], y: &mut [MaybeUninit<u8>], n: usize, attrs: &Attrs) {
    // SAFETY: passed on.
    unsafe { pass::<N, S>(x, y, n, attrs) }
}

/// # Safety
/// As [`BlockFn`], on a processor with these features.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c,bmi1,bmi2,lzcnt,popcnt")]
unsafe fn avx512<const N: usize, S: Step<N>>(x: &[*const u8; 3], y: &mut [MaybeUninit<u8>], n: usize, attrs: &Attrs) {
    // SAFETY: passed on.
    unsafe { pass::<N, S>(x, y, n, attrs) }
}

/// Elements of the inner loop: a fixed count, so that no remainder loop is needed; tails are padded.
const CHUNK: usize = 64;

/// # Safety
/// As [`BlockFn`].
#[inline(always)]
unsafe fn pass<const N: usize, S: Step<N>>(x: &[*const u8; 3], y: &mut [MaybeUninit<u8>], n: usize, attrs: &Attrs) {
    let y = y.as_mut_ptr().cast::<S::Out>();
    // SAFETY: passed on.
    unsafe {
        // Knowing the choice, the compiler drops the other expressions from the loop.
        match S::CHOICES {
            0 | 1 => sweep::<N, S>(x, y, n, attrs),
            _ if attrs.choice_at(0) == 0 => sweep::<N, S>(x, y, n, attrs),
            _ if attrs.choice_at(0) == 1 => sweep::<N, S>(x, y, n, attrs),
            _ => sweep::<N, S>(x, y, n, attrs),
        }
    }
}

/// # Safety
/// As [`BlockFn`].
#[inline(always)]
unsafe fn sweep<const N: usize, S: Step<N>>(x: &[*const u8; 3], y: *mut S::Out, n: usize, attrs: &Attrs) {
    type Item<const N: usize, S> = <<S as Step<N>>::Lane as Lane>::Item;
    let x: [*const Item<N, S>; N] = core::array::from_fn(|k| x[k].cast());
    let mut pad = MaybeUninit::<[[Item<N, S>; CHUNK]; N]>::uninit();
    let mut spill = MaybeUninit::<[S::Out; CHUNK]>::uninit();
    let mut at = 0;
    // SAFETY: chunks lie inside of the arrays; a short last one is copied into and out of arrays of full size.
    unsafe {
        while at < n {
            let count = (n - at).min(CHUNK);
            let (from, to) = if count == CHUNK {
                (x.map(|x| x.wrapping_add(at)), y.add(at))
            } else {
                let pad = pad.write([[Item::<N, S>::default(); CHUNK]; N]);
                (0..N).for_each(|k| core::ptr::copy_nonoverlapping(x[k].wrapping_add(at).cast::<u8>(), pad[k].as_mut_ptr().cast(), count * size_of::<Item<N, S>>()));
                (core::array::from_fn(|k| pad[k].as_ptr()), spill.as_mut_ptr().cast())
            };
            let mut hard = false;
            for i in 0..CHUNK {
                let (value, marked) = S::eval(core::array::from_fn(|k| S::Lane::load(from[k].add(i).read_unaligned())), attrs);
                to.add(i).write_unaligned(value);
                hard |= marked;
            }
            if hard {
                again::<N, S>(&from, to, count, attrs);
            }
            if count < CHUNK {
                core::ptr::copy_nonoverlapping(to.cast::<u8>(), y.add(at).cast(), count * size_of::<S::Out>());
            }
            at += CHUNK;
        }
    }
}

/// # Safety
/// `from` and `to` hold `n` elements.
#[cold]
#[inline(never)]
unsafe fn again<const N: usize, S: Step<N>>(from: &[*const <S::Lane as Lane>::Item; N], to: *mut S::Out, n: usize, attrs: &Attrs) {
    for i in 0..n {
        // SAFETY: stated by the caller.
        unsafe { to.add(i).write_unaligned(S::exact(core::array::from_fn(|k| from[k].add(i).read_unaligned()), attrs)) };
    }
}
