//! CUDA C++ to machine code through NVRTC. Needs no device and no driver, so it is also how kernels are checked where there is none.

use core::ffi::{CStr, c_char};
use std::ffi::CString;
use std::path::PathBuf;
use std::sync::OnceLock;

use cudarc::nvrtc::sys;
use flagos_backend_api::{Code, Error, Result};

use crate::library::{Culib, folder_of, toolkits};

/// What the contract of the format asks for, and C++17. Contraction is off; everything else is the compiler's default, which is IEEE.
const OPTIONS: &[&str] = &["--std=c++17", "--fmad=false"];
/// Longest compiler log an error carries, in bytes.
const LOG_BYTES: usize = 16 << 10;

/// Code for a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Image {
    /// Machine code.
    Cubin(Vec<u8>),
    /// PTX for the driver's compiler: the device is newer than this NVRTC.
    Ptx(Vec<u8>),
}

fn check(answer: sys::nvrtcResult, call: &str) -> Result<()> {
    if answer == sys::nvrtcResult::NVRTC_SUCCESS {
        return Ok(());
    }
    // SAFETY: the compiler returns static, NUL-terminated text.
    let text = unsafe { CStr::from_ptr(sys::nvrtcGetErrorString(answer)) }.to_string_lossy().into_owned();
    let code = if answer == sys::nvrtcResult::NVRTC_ERROR_OUT_OF_MEMORY { Code::RESOURCE_EXHAUSTED } else { Code::INTERNAL };
    Err(Error::new(code, format!("{call}: {text}")).with_native("nvrtc", i64::from(answer as u32)))
}

/// The compiler's version.
///
/// # Errors
/// UNIMPLEMENTED without NVRTC.
pub fn version() -> Result<(i32, i32)> {
    Culib::Nvrtc.need()?;
    let (mut major, mut minor) = (0, 0);
    // SAFETY: the library is there; the places are writable.
    check(unsafe { sys::nvrtcVersion(&mut major, &mut minor) }, "nvrtcVersion")?;
    Ok((major, minor))
}

/// Compute capabilities the compiler makes machine code for, as 10·major + minor, ascending.
///
/// # Errors
/// UNIMPLEMENTED without NVRTC.
pub fn supported() -> Result<&'static [i32]> {
    Culib::Nvrtc.need()?;
    static LIST: OnceLock<Vec<i32>> = OnceLock::new();
    if let Some(list) = LIST.get() {
        return Ok(list);
    }
    let mut count = 0;
    // SAFETY: the library is there; the place is writable.
    check(unsafe { sys::nvrtcGetNumSupportedArchs(&mut count) }, "nvrtcGetNumSupportedArchs")?;
    let mut list = vec![0; count.max(0) as usize];
    // SAFETY: the list is as long as was asked.
    check(unsafe { sys::nvrtcGetSupportedArchs(list.as_mut_ptr()) }, "nvrtcGetSupportedArchs")?;
    list.sort_unstable();
    Ok(LIST.get_or_init(|| list))
}

/// The target for a compute capability: the device's own, with everything only that architecture has ("sm_90a"), or the virtual one below it that the
/// compiler knows ("compute_80").
///
/// # Errors
/// UNIMPLEMENTED without NVRTC, or for devices older than all it knows.
pub fn target(capability: (u32, u32)) -> Result<String> {
    let (known, own) = (supported()?, (capability.0 * 10 + capability.1) as i32);
    if known.contains(&own) {
        return Ok(format!("sm_{own}{}", if capability.0 >= 9 { "a" } else { "" }));
    }
    let below = known.iter().rev().find(|k| **k < own);
    let text = || format!("this NVRTC makes code for compute capabilities {known:?}, the device has {own}; install one of an older toolkit");
    below.map(|k| format!("compute_{k}")).ok_or_else(|| Error::unimplemented(text()))
}

/// Folders with CUDA's headers (`cuda_fp16.h`, `mma.h`): beside the compiler in a toolkit or a wheel, then the toolkits'.
pub fn include_folders() -> &'static [PathBuf] {
    static FOLDERS: OnceLock<Vec<PathBuf>> = OnceLock::new();
    FOLDERS.get_or_init(|| {
        let mut folders = Vec::new();
        if let Some(library) = Culib::Nvrtc.is_there().then(|| folder_of("libnvrtc.so")).flatten() {
            // lib/, lib64/ of a wheel or toolkit; targets/x86_64-linux/lib of a toolkit.
            folders.extend(library.ancestors().skip(1).take(3).map(|a| a.join("include")));
        }
        folders.extend(toolkits().into_iter().map(|t| t.join("include")));
        folders.retain(|f| f.join("cuda_fp16.h").exists());
        folders.dedup();
        let standard: Vec<PathBuf> = folders.iter().map(|f| f.join("cccl")).filter(|f| f.is_dir()).collect();
        folders.extend(standard);
        folders
    })
}

/// A program of the compiler's, destroyed when dropped.
struct Program(sys::nvrtcProgram);

impl Drop for Program {
    fn drop(&mut self) {
        // SAFETY: the program was created and is not used again.
        unsafe { sys::nvrtcDestroyProgram(&mut self.0) };
    }
}

impl Program {
    fn log(&self) -> String {
        let text = self.bytes(sys::nvrtcGetProgramLogSize, sys::nvrtcGetProgramLog).unwrap_or_default();
        let text = String::from_utf8_lossy(&text[..text.len().min(LOG_BYTES)]).trim_end_matches('\0').trim().to_owned();
        if text.is_empty() { "the compiler left no log".to_owned() } else { text }
    }

    /// Something the compiler hands out by size and copy.
    fn bytes(
        &self,
        size: unsafe fn(sys::nvrtcProgram, *mut usize) -> sys::nvrtcResult,
        copy: unsafe fn(sys::nvrtcProgram, *mut c_char) -> sys::nvrtcResult,
    ) -> Result<Vec<u8>> {
        let mut bytes = 0;
        // SAFETY: the program is alive, the place is writable.
        check(unsafe { size(self.0, &mut bytes) }, "nvrtcGet…Size")?;
        let mut out = vec![0u8; bytes];
        // SAFETY: the buffer has the size the compiler stated.
        check(unsafe { copy(self.0, out.as_mut_ptr().cast()) }, "nvrtcGet…")?;
        Ok(out)
    }
}

/// Compiles for `target` ("sm_90a" gives machine code, "compute_80" PTX). `options` are words beginning with `-`, separated by spaces; a target among
/// them takes the place of `target`.
///
/// # Errors
/// INVALID_ARGUMENT with the compiler's log for source it refuses, UNIMPLEMENTED without NVRTC.
pub fn compile(source: &[u8], name: &str, target: &str, options: &str) -> Result<Image> {
    Culib::Nvrtc.need()?;
    let nul = |what: &str| Error::invalid(format!("the {what} of the kernel source holds a NUL byte"));
    let source = CString::new(source.strip_suffix(b"\0").unwrap_or(source)).map_err(|_| nul("text"))?;
    let title = CString::new(if name.is_empty() { "kernel.cu" } else { name }).map_err(|_| nul("name"))?;
    if let Some(word) = options.split_whitespace().find(|w| !w.starts_with('-')) {
        return Err(Error::invalid(format!("compiler option '{word}': words begin with '-' here; there are no others")));
    }
    let given = options.split_whitespace().find_map(|w| w.strip_prefix("--gpu-architecture=").or_else(|| w.strip_prefix("-arch=")));
    let target = given.unwrap_or(target);
    let mut words: Vec<String> = OPTIONS.iter().map(|o| (*o).to_owned()).collect();
    if given.is_none() {
        words.push(format!("--gpu-architecture={target}"));
    }
    words.extend(include_folders().iter().map(|f| format!("--include-path={}", f.display())));
    words.extend(options.split_whitespace().map(str::to_owned));
    let words: Vec<CString> = words.into_iter().map(CString::new).collect::<Result<_, _>>().map_err(|_| nul("options"))?;
    let pointers: Vec<*const c_char> = words.iter().map(|w| w.as_ptr()).collect();

    let mut program = core::ptr::null_mut();
    // SAFETY: texts are NUL-terminated; there are no headers in memory; the place is writable.
    let created = unsafe { sys::nvrtcCreateProgram(&mut program, source.as_ptr(), title.as_ptr(), 0, core::ptr::null(), core::ptr::null()) };
    check(created, "nvrtcCreateProgram")?;
    let program = Program(program);
    // SAFETY: the program is alive; the list has the stated length and its texts outlive the call.
    let compiled = unsafe { sys::nvrtcCompileProgram(program.0, pointers.len() as i32, pointers.as_ptr()) };
    if let Err(mut e) = check(compiled, "nvrtcCompileProgram") {
        // What the compiler does not take is the caller's mistake; only its own failures are internal.
        if matches!(compiled, sys::nvrtcResult::NVRTC_ERROR_COMPILATION | sys::nvrtcResult::NVRTC_ERROR_INVALID_OPTION) {
            e.code = Code::INVALID_ARGUMENT;
        }
        e.message = format!("compiling '{}' for {target}: {}\n{}", title.to_string_lossy(), e.message, program.log());
        return Err(e);
    }
    if target.starts_with("sm_") {
        return Ok(Image::Cubin(program.bytes(sys::nvrtcGetCUBINSize, sys::nvrtcGetCUBIN)?));
    }
    Ok(Image::Ptx(program.bytes(sys::nvrtcGetPTXSize, sys::nvrtcGetPTX)?))
}
