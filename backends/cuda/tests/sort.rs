//! The radix sort's kernels as they are, on a processor: `tests/sort/device.h` stands in for a device, and the backend's own steps launch them.

use core::cmp::Ordering;
use std::path::{Path, PathBuf};
use std::process::Command;

use flagos_backend_api::{DType, Error, Result};
use flagos_backend_cuda::sort::{Addresses, Shape, Step};
use flagos_catalog::sort::compare;
use half::{bf16, f16};

type Start = unsafe extern "C" fn(*const core::ffi::c_char, u32, *const u8) -> i32;

/// The kernels of a shape as a library of this machine.
fn library(shape: &Shape) -> libloading::Library {
    let out = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("sort-{}-{}.so", shape.dtype.name(), shape.descending));
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sort/sort.cpp");
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".into());
    let mut command = Command::new(&compiler);
    command.args(["-std=c++17", "-O1", "-fPIC", "-shared", "-pthread", "-Wall", "-Werror", "-Wno-unknown-pragmas", "-o"]).arg(&out);
    command.args(shape.options().unwrap().split(' ')).arg(&source);
    let done = command.output().unwrap_or_else(|e| panic!("{compiler}: {e}"));
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    // SAFETY: the library was built just now; it has no constructors but the C++ runtime's.
    unsafe { libloading::Library::new(&out) }.unwrap()
}

/// Sorts on the stand-in: the bits of the values, and the indices.
fn sorted(shape: &Shape, bits: &[u64]) -> (Vec<u64>, Vec<u64>) {
    let (width, n) = (shape.dtype.bytes(), bits.len());
    let x: Vec<u8> = bits.iter().flat_map(|b| b.to_le_bytes()[..width].to_vec()).collect();
    // One element more than there are, which nobody may touch; and memory that holds anything before.
    let (mut values, mut indices) = (vec![0xa5u8; x.len() + width], vec![u64::MAX; n + 1]);
    let mut workspace = vec![0xdeu8; shape.layout().bytes as usize + 256];
    let guard = shape.layout().bytes as usize;
    // Words, which the kernels read at multiples of their size.
    let mut aligned: Vec<u64> = vec![0; x.len().div_ceil(8)];
    // SAFETY: as many bytes fit.
    unsafe { core::ptr::copy_nonoverlapping(x.as_ptr(), aligned.as_mut_ptr().cast(), x.len()) };
    let mut room: Vec<u64> = vec![0xdede_dede_dede_dede; workspace.len().div_ceil(8)];
    let mut out: Vec<u64> = vec![0xa5a5_a5a5_a5a5_a5a5; values.len().div_ceil(8)];
    let at = Addresses {
        x: aligned.as_ptr().addr() as u64,
        values: out.as_mut_ptr().expose_provenance() as u64,
        indices: indices.as_mut_ptr().expose_provenance() as u64,
        workspace: room.as_mut_ptr().expose_provenance() as u64,
    };
    aligned.as_ptr().expose_provenance();
    let library = library(shape);
    // SAFETY: the symbol has this type.
    let start = unsafe { library.get::<Start>(b"start") }.unwrap();
    let mut enqueue = |step: Step<'_>| -> Result<()> {
        match step {
            // SAFETY: the steps clear parts of the workspace alone.
            Step::Clear { address, bytes } => unsafe { core::ptr::write_bytes(core::ptr::with_exposed_provenance_mut::<u8>(address as usize), 0, bytes as usize) },
            Step::Launch { kernel, blocks, args } => {
                let name = std::ffi::CString::new(kernel.name()).unwrap();
                // SAFETY: the arguments are laid out as the kernel's struct; addresses in them are of the vectors above.
                let status = unsafe { start(name.as_ptr(), blocks, args.as_ptr()) };
                assert_eq!(status, 0, "no kernel '{}'", kernel.name());
            }
        }
        Ok(())
    };
    shape.steps(&at, 2, &mut enqueue).unwrap();
    // SAFETY: as many bytes are there.
    unsafe {
        core::ptr::copy_nonoverlapping(out.as_ptr().cast(), values.as_mut_ptr(), values.len());
        core::ptr::copy_nonoverlapping(room.as_ptr().cast(), workspace.as_mut_ptr(), workspace.len());
    }
    assert!(values[x.len()..].iter().all(|b| *b == 0xa5) && indices.pop() == Some(u64::MAX), "something was written behind the outputs");
    assert!(workspace[guard..].iter().all(|b| *b == 0xde), "something was written behind the workspace");
    let word = |c: &[u8]| c.iter().rev().fold(0u64, |w, b| w << 8 | u64::from(*b));
    (values[..x.len()].chunks(width).map(word).collect(), indices)
}

/// Order of two elements by their bits, as the catalogue has it.
fn order(t: DType, a: u64, b: u64) -> Ordering {
    let number = |bits: u64| match (t.code, t.bits) {
        (2, 16) => f16::from_bits(bits as u16).to_f64(),
        (4, 16) => bf16::from_bits(bits as u16).to_f64(),
        (2, 32) => f64::from(f32::from_bits(bits as u32)),
        _ => f64::from_bits(bits),
    };
    let shift = 64 - u32::from(t.bits);
    match t.code {
        0 => (((a << shift) as i64) >> shift).cmp(&(((b << shift) as i64) >> shift)),
        1 => a.cmp(&b),
        _ => compare(number(a), number(b)),
    }
}

/// Bits of all kinds: any, few different ones, and what is special.
fn contents(t: DType, n: usize) -> Vec<u64> {
    let (bits, mut state) = (u32::from(t.bits), 0x9e37_79b9_7f4a_7c15u64);
    let mask = u64::MAX >> (64 - bits);
    let sign = 1u64 << (bits - 1);
    let infinity = match (t.code, t.bits) {
        (4, _) => 0x7f80,
        (2, 16) => 0x7c00,
        (2, 32) => 0x7f80_0000,
        _ => 0x7ff0_0000_0000_0000 & mask,
    };
    let special = [0, sign, infinity, infinity | sign, infinity + 1, infinity | sign | 1, mask, sign - 1, 1, sign | 1];
    (0..n)
        .map(|i| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let any = state >> 13;
            match any % 8 {
                0 => special[(any >> 3) as usize % special.len()] & mask,
                1 | 2 => any >> 3 & 3,
                // A stretch of equals, longer than a tile of a warp.
                3 if i % 2000 < 900 => 7,
                _ => any.rotate_left(17) & mask,
            }
        })
        .collect()
}

fn check(dtype: DType, descending: bool, lines: u64, length: u64) {
    let shape = Shape { dtype, descending, lines, length };
    let x = contents(dtype, (lines * length) as usize);
    let (values, indices) = sorted(&shape, &x);
    for line in 0..lines as usize {
        let part = line * length as usize..(line + 1) * length as usize;
        let (own, got) = (&x[part.clone()], &indices[part.clone()]);
        let mut want: Vec<usize> = (0..own.len()).collect();
        want.sort_by(|a, b| if descending { order(dtype, own[*b], own[*a]) } else { order(dtype, own[*a], own[*b]) });
        let wrong = want.iter().zip(got).position(|(w, g)| *w as u64 != *g);
        assert_eq!(wrong, None, "{dtype:?}, line {line}: place {:?}", wrong.map(|i| (i, want[i], got[i])));
        assert!(values[part].iter().zip(&want).all(|(v, w)| *v == own[*w]), "{dtype:?}, line {line}: a value is not the one of its index");
    }
}

#[test]
fn floats_of_32_bits_both_ways() {
    check(DType::F32, false, 2, 11_700);
    check(DType::F32, true, 1, 5376);
}

#[test]
fn other_floats() {
    check(DType::F16, true, 1, 11_000);
    check(DType::BF16, false, 3, 5377);
    check(DType::F64, false, 1, 6500);
}

#[test]
fn integers() {
    check(DType::I8, true, 2, 10_753);
    check(DType::U8, false, 1, 100);
    check(DType::I16, false, 1, 7000);
    check(DType::I32, false, 1, 10_752);
    check(DType::U64, true, 1, 3100);
}

#[test]
fn what_is_not_sorted_here_is_left_to_others() {
    let shape = |dtype| Shape { dtype, descending: false, lines: 1, length: 1 << 20 };
    let refused: Error = shape(DType::C64).options().unwrap_err();
    assert_eq!(refused.code, flagos_backend_api::Code::UNIMPLEMENTED);
    // 4 passes: counts, a ticket, a word for each digit of each tile, and pairs of 8 bytes.
    let bytes = shape(DType::F32).layout().bytes;
    let tiles = (1u64 << 20).div_ceil(5376);
    assert_eq!(bytes, 4 * 1024 + 256 + tiles * 1024 + (8 << 20));
    // One pass goes straight from input to output.
    assert_eq!(shape(DType::I8).layout().bytes, 1024 + 256 + tiles * 1024);
}
