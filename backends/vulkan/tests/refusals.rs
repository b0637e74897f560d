//! Code that must be refused with a clear error, and never reach the driver.

mod support;

use flagos_backend_api as abi;
use flagos_backend_api::{Code, KernelFormat, Str};
use rspirv::spirv::Capability;
use support::code::Body;
use support::{Backend, call, code, code_of, sized};

/// The module's words with one changed.
fn with_word(code: &[u8], at: usize, word: u32) -> Vec<u8> {
    let mut changed = code.to_vec();
    changed[4 * at..4 * at + 4].copy_from_slice(&word.to_le_bytes());
    changed
}

/// Place of the first instruction of an opcode.
fn find(code: &[u8], opcode: u32) -> usize {
    let words: Vec<u32> = code.chunks_exact(4).map(|w| u32::from_le_bytes(w.try_into().unwrap())).collect();
    let mut at = 5;
    while words[at] & 0xffff != opcode {
        at += (words[at] >> 16) as usize;
    }
    at
}

#[test]
fn garbage_is_refused_and_says_why() {
    let Some(b) = Backend::open() else { return };
    let good = code::add();
    let swapped: Vec<u8> = good.chunks_exact(4).flat_map(|w| [w[3], w[2], w[1], w[0]]).collect();
    let (mode, end, model, point) = (find(&good, 16), find(&good, 56), find(&good, 14), find(&good, 15));
    let last_block = find(&good, 253);
    for (what, bytes, says) in [
        ("nothing", Vec::new(), "0 bytes"),
        ("text", b"__kernel void f() { return; }   ".to_vec(), "begins with"),
        ("an odd length", good[..good.len() - 1].to_vec(), "words of 4"),
        ("big-endian words", swapped, "big-endian"),
        ("a bad version", with_word(&good, 1, 0xff), "version"),
        ("no ids", with_word(&good, 3, 0), "0 ids"),
        ("too small a bound", with_word(&good, 3, 5), "not below the bound"),
        ("a cut module", good[..good.len() - 4].to_vec(), "does not end"),
        ("a cut instruction", good[..4 * mode + 8].to_vec(), "are left"),
        ("an empty instruction", with_word(&good, mode, 16), "has 0 words"),
        ("no LocalSize", with_word(&good, mode + 2, 18), "no LocalSize"),
        ("a LocalSize of 0", with_word(&good, mode + 3, 0), "extent of 0"),
        ("logical addressing", with_word(&good, model + 1, 0), "addressing model 0"),
        ("a vertex shader", with_word(&good, point + 1, 0), "execution model 0"),
        ("an entry without function", with_word(&good, point + 2, 1), "does not exist"),
        ("a function that does not end", with_word(&good, end, 1 << 16), "does not end"),
        ("a block that does not end", with_word(&good, last_block, 1 << 16), "within another block"),
    ] {
        let refused = b.compile(&bytes, "").map(|_| ()).unwrap_err();
        assert_eq!(refused.code, Code::INVALID_ARGUMENT, "{what}: {refused}");
        assert!(refused.message.contains(says) && refused.message.contains("'test'"), "{what}: {refused}");
    }
}

/// Every word of a good module replaced by ten others: whatever the reader lets through, it does not panic, and it always ends.
#[test]
fn the_reader_stands_any_word() {
    let good = flagos_backend_vulkan::spirv::words(&code::reverse()).unwrap();
    let (mut read, mut refused) = (0, 0);
    for at in 0..good.len() {
        for value in [0, 1, 4, 0xffff, 1 << 16, 0xffff_0000, u32::MAX, good[at] ^ 1, good[at].swap_bytes(), good[at].wrapping_add(1 << 16)] {
            let mut words = good.clone();
            words[at] = value;
            match flagos_backend_vulkan::spirv::read(&words) {
                Ok(_) => read += 1,
                Err(e) => {
                    assert!(!e.message.is_empty());
                    refused += 1;
                }
            }
        }
        assert!(flagos_backend_vulkan::spirv::read(&good[..at]).is_err(), "cut at word {at}");
    }
    assert!(read > 0 && refused > 1000, "{read} read, {refused} refused");
}

#[test]
fn what_a_device_lacks_is_unimplemented() {
    let Some(b) = Backend::open() else { return };
    let info = b.info();
    // No device of this backend is opened with kernels' pipes or geometry.
    for (capability, name) in [(Capability::Geometry, "capability 2"), (Capability::Kernel, "capability 6")] {
        let refused = b.compile(&Body::with(1, [1, 1, 1], &[capability]).finish(), "").map(|_| ()).unwrap_err();
        assert_eq!(refused.code, Code::UNIMPLEMENTED, "{refused}");
        assert!(refused.message.contains(name), "{refused}");
    }
    let matrix = b.compile(&Body::with(1, [1, 1, 1], &[Capability::CooperativeMatrixKHR]).finish(), "");
    if info.n_matrix_shapes == 0 {
        assert!(matrix.unwrap_err().message.contains("CooperativeMatrixKHR"));
    }
    let most = info.max_block_threads;
    let wide = b.compile(&Body::with(1, [most, 2, 1], &[]).finish(), "").map(|_| ()).unwrap_err();
    assert_eq!(wide.code, Code::UNIMPLEMENTED, "{wide}");
    let mut large = Body::new(2, 64);
    large.shared(info.shared_bytes / 4 + 1);
    let large = b.compile(&large.finish(), "").map(|_| ()).unwrap_err();
    assert_eq!(large.code, Code::UNIMPLEMENTED, "{large}");
    assert!(large.message.contains("shared memory"), "{large}");
    // More push constants than arguments ever take.
    let many = support::code::push_constants(17);
    let many = b.compile(&many, "").map(|_| ()).unwrap_err();
    assert_eq!(many.code, Code::INVALID_ARGUMENT, "{many}");
    assert!(many.message.contains("136 bytes"), "{many}");
}

#[test]
fn names_formats_and_binaries_that_do_not_exist() {
    let Some(b) = Backend::open() else { return };
    let code = code::add();
    let module = b.compile(&code, "").unwrap();
    let missing = b.kernel_of(module, "main").unwrap_err();
    assert_eq!(missing.code, Code::NOT_FOUND);
    assert!(missing.message.contains("it has kernel"), "{missing}");
    // Asked for twice, a kernel is one.
    assert_eq!(b.kernel_of(module, code::NAME).unwrap(), b.kernel_of(module, code::NAME).unwrap());
    let text = Str { ptr: code.as_ptr(), len: code.len() as u64 };
    let mut out = core::ptr::null_mut();
    let source = abi::CompileDesc { format: KernelFormat::OPENCL_C.0, code: text, ..sized!(abi::CompileDesc) };
    assert_eq!(code_of(&call!(b.modules(), compile, b.device, &source, &mut out)), Code::UNIMPLEMENTED);
    let binary = abi::CompileDesc { format: KernelFormat::SPIRV_VULKAN.0, is_binary: 1, ..source };
    assert_eq!(code_of(&call!(b.modules(), compile, b.device, &binary, &mut out)), Code::DATA_LOSS);
    let mut length = 0;
    assert_eq!(code_of(&call!(b.modules(), export_binary, module, core::ptr::null_mut(), 0, &mut length)), Code::UNIMPLEMENTED);
}
