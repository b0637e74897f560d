//! Compiled code as bytes the host may cache: machine code with what it was made for, and a check sum.
#![forbid(unsafe_code)]

use flagos_backend_api::{Code, Error, Result};

const MAGIC: &[u8; 8] = b"FLAGOSCU";
const VERSION: u32 = 1;

/// FNV-1a, 64 bits: caches are damaged by accident, not by will.
fn digest(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x100_0000_01b3))
}

/// Machine code, wrapped.
pub fn wrap(arch: &str, build: &str, code: &[u8]) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    out.extend(VERSION.to_le_bytes());
    for text in [arch, build] {
        out.extend((text.len() as u32).to_le_bytes());
        out.extend(text.as_bytes());
    }
    out.extend(digest(code).to_le_bytes());
    out.extend(code);
    out
}

/// The machine code of a wrapped binary.
///
/// # Errors
/// DATA_LOSS, with what does not fit.
pub fn unwrap<'a>(arch: &str, build: &str, bytes: &'a [u8]) -> Result<&'a [u8]> {
    let lost = |why: String| Error::new(Code::DATA_LOSS, format!("the kernel binary cannot be used: {why}; compile it from source again"));
    let short = || lost("it ends too early".into());
    let mut rest = bytes.strip_prefix(MAGIC).ok_or_else(|| lost("it was not exported by this backend".into()))?;
    let mut take = |n: usize| -> Result<&'a [u8]> {
        let (head, tail) = rest.split_at_checked(n).ok_or_else(short)?;
        rest = tail;
        Ok(head)
    };
    let number = |b: &[u8]| b.iter().rev().fold(0u64, |n, x| n << 8 | u64::from(*x));
    let version = number(take(4)?);
    if version != u64::from(VERSION) {
        return Err(lost(format!("its layout is {version}, this build's is {VERSION}")));
    }
    for (what, want) in [("architecture", arch), ("build", build)] {
        let length = number(take(4)?) as usize;
        let have = take(length)?;
        if have != want.as_bytes() {
            return Err(lost(format!("its {what} is '{}', this one is '{want}'", String::from_utf8_lossy(have))));
        }
    }
    let sum = number(take(8)?);
    if digest(rest) != sum {
        return Err(lost("its check sum does not fit".into()));
    }
    Ok(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_wrapped_comes_out() {
        let code: Vec<u8> = (0..=255).collect();
        let bytes = wrap("sm_90", "build-1", &code);
        assert_eq!(unwrap("sm_90", "build-1", &bytes).unwrap(), code);
        let refused = |arch: &str, build: &str, bytes: &[u8]| unwrap(arch, build, bytes).map(<[u8]>::len).unwrap_err();
        assert!(refused("sm_80", "build-1", &bytes).message.contains("'sm_90', this one is 'sm_80'"));
        assert!(refused("sm_90", "build-2", &bytes).message.contains("build"));
        for cut in 0..bytes.len() {
            assert_eq!(refused("sm_90", "build-1", &bytes[..cut]).code, Code::DATA_LOSS);
        }
        for flip in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[flip] ^= 1;
            assert_eq!(refused("sm_90", "build-1", &damaged).code, Code::DATA_LOSS, "byte {flip}");
        }
    }
}
