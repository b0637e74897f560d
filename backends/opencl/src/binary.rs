//! What is kept of a compiled program: the driver's binary in an envelope that tells whether it fits.
#![forbid(unsafe_code)]

use flagos_backend_api::{Code, Error, Result};
use sha2::{Digest, Sha256};

/// First bytes of the envelope; the last one counts its versions.
const MAGIC: &[u8; 8] = b"FLAGOCL\x01";
const DIGEST: usize = 32;

/// Who may use a binary: the device's fingerprint, its driver, and this build.
fn target(arch: &str, driver: &str, build: &str) -> [u8; DIGEST] {
    Sha256::digest(format!("{arch}\0{driver}\0{build}")).into()
}

/// Puts a driver's binary into its envelope.
pub fn wrap(arch: &str, driver: &str, build: &str, binary: &[u8]) -> Vec<u8> {
    let content: [u8; DIGEST] = Sha256::digest(binary).into();
    [&MAGIC[..], &target(arch, driver, build), &content, binary].concat()
}

/// Takes it out. Drivers crash on binaries that were cut or belong to others, so nothing reaches them that was not written just so.
pub fn unwrap<'a>(arch: &str, driver: &str, build: &str, bytes: &'a [u8]) -> Result<&'a [u8]> {
    let bad = |why: &str| Error::new(Code::DATA_LOSS, format!("the binary does not fit: {why}; compile the source again"));
    let rest = bytes.strip_prefix(&MAGIC[..]).ok_or_else(|| bad("it was not exported by this backend, or by another version of it"))?;
    let (made_for, rest) = rest.split_at_checked(DIGEST).ok_or_else(|| bad("it was cut off"))?;
    let (content, binary) = rest.split_at_checked(DIGEST).ok_or_else(|| bad("it was cut off"))?;
    if made_for != target(arch, driver, build) {
        return Err(bad(&format!("it was made for another device, driver or build than {arch} ({driver}), {build}")));
    }
    if content != &Sha256::digest(binary)[..] {
        return Err(bad("its bytes were changed or cut off"));
    }
    Ok(binary)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_wrapped_for_the_same_target_comes_out() {
        let wrapped = wrap("a", "d", "b", &[1, 2, 3]);
        assert_eq!(unwrap("a", "d", "b", &wrapped).unwrap(), [1, 2, 3]);
        for (arch, driver, build) in [("x", "d", "b"), ("a", "x", "b"), ("a", "d", "x")] {
            assert_eq!(unwrap(arch, driver, build, &wrapped).unwrap_err().code, Code::DATA_LOSS);
        }
        for cut in 0..wrapped.len() {
            assert_eq!(unwrap("a", "d", "b", &wrapped[..cut]).unwrap_err().code, Code::DATA_LOSS, "cut at {cut}");
        }
        for at in 0..wrapped.len() {
            let mut changed = wrapped.clone();
            changed[at] ^= 1;
            assert_eq!(unwrap("a", "d", "b", &changed).unwrap_err().code, Code::DATA_LOSS, "byte {at} changed");
        }
    }
}
