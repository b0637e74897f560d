//! Instantiates a function once per instruction set and calls the one the processor has.

/// Declares `unsafe fn name(isa, …)` whose body is compiled for AVX-512, AVX2 and the baseline.
///
/// The body may use `FUSED`: whether a fused multiply-add is one instruction. Callers of the function pass an [`Isa`](crate::target::Isa) that the processor has.
macro_rules! vectorize {
    ($( $(#[$meta:meta])* $vis:vis unsafe fn $name:ident [$($g:ident : $bound:path),*] [$($c:ident : $ct:ty),*]
        ($($a:ident : $t:ty),* $(,)?) $(-> $r:ty)? $body:block )*) => { $(
        $(#[$meta])*
        #[allow(clippy::too_many_arguments)]
        $vis unsafe fn $name<$($g: $bound,)* $(const $c: $ct,)*>(isa: $crate::target::Isa, $($a: $t),*) $(-> $r)? {
            #[inline(always)]
            #[allow(clippy::too_many_arguments)]
            unsafe fn body<$($g: $bound,)* $(const $c: $ct,)* const FUSED: bool>($($a: $t),*) $(-> $r)? $body
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx2,fma,f16c,bmi1,bmi2,lzcnt,popcnt")]
            #[allow(clippy::too_many_arguments)]
            unsafe fn v4<$($g: $bound,)* $(const $c: $ct,)*>($($a: $t),*) $(-> $r)? {
                // SAFETY: stated by the caller.
                unsafe { body::<$($g,)* $($c,)* true>($($a),*) }
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c,bmi1,bmi2,lzcnt,popcnt")]
            #[allow(clippy::too_many_arguments)]
            unsafe fn v3<$($g: $bound,)* $(const $c: $ct,)*>($($a: $t),*) $(-> $r)? {
                // SAFETY: stated by the caller.
                unsafe { body::<$($g,)* $($c,)* true>($($a),*) }
            }
            // SAFETY: stated by the caller; the processor has the instruction set.
            unsafe {
                match isa {
                    #[cfg(target_arch = "x86_64")]
                    $crate::target::Isa::Avx512 => v4::<$($g,)* $($c,)*>($($a),*),
                    #[cfg(target_arch = "x86_64")]
                    $crate::target::Isa::Avx2 => v3::<$($g,)* $($c,)*>($($a),*),
                    _ => body::<$($g,)* $($c,)* false>($($a),*),
                }
            }
        }
    )* };
}
pub(crate) use vectorize;
