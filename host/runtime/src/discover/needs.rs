//! Needs: whether the chip is there and what the library asks for is installed, told without running vendor code.
//!
//! `dlopen` would run constructors, so libraries are looked up as the dynamic linker does: what is loaded already, the plugin's own folder,
//! `LD_LIBRARY_PATH`, the linker's cache, the standard folders. A plugin that finds them by a run path of its own does not list them as needs.

use std::path::{Path, PathBuf};

use super::manifest::{DeviceMatch, Manifest};
use super::{Code, Phase, Refusal, beside, maps};

/// Checks processor, operating system, chip, files and libraries; `place` is the manifest's path.
pub(super) fn check(
    manifest: &Manifest,
    place: &Path,
    library: &Path,
    pci_devices: &Path,
) -> Result<(), Refusal> {
    platform(manifest, place)?;
    chip(manifest, place, pci_devices)?;
    let refuse = |what: String| Err(Refusal::new(Phase::Needs, Code::UNAVAILABLE, place, what));
    for file in &manifest.needs.files {
        let file = beside(place, file);
        if !file.exists() {
            return refuse(format!(
                "it needs the file {}, which does not exist; install the package that has it",
                file.display()
            ));
        }
    }
    for soname in &manifest.needs.libraries {
        if !is_installed(soname, library) {
            return refuse(format!(
                "it needs the library {soname}, which the dynamic linker does not find; install its package, or add its folder to LD_LIBRARY_PATH"
            ));
        }
    }
    Ok(())
}

fn platform(manifest: &Manifest, place: &Path) -> Result<(), Refusal> {
    for (field, stated, here) in [
        ("arch", &manifest.arch, std::env::consts::ARCH),
        ("os", &manifest.os, std::env::consts::OS),
    ] {
        if !stated.is_empty() && stated != here {
            let what = format!(
                "'{field}' is {stated:?}, this machine is {here}; install the backend's package for {here}"
            );
            return Err(Refusal::new(Phase::Needs, Code::UNAVAILABLE, place, what));
        }
    }
    Ok(())
}

fn chip(manifest: &Manifest, place: &Path, pci_devices: &Path) -> Result<(), Refusal> {
    if manifest.devices.is_empty() {
        return Ok(());
    }
    let wants_pci = manifest
        .devices
        .iter()
        .any(|d| d.pci_vendor.is_some() || d.pci_device.is_some() || d.pci_class.is_some());
    let present = if wants_pci {
        pci(pci_devices)
    } else {
        Vec::new()
    };
    let matches = |wanted: &DeviceMatch| {
        let file_there = wanted
            .file
            .as_ref()
            .is_none_or(|f| beside(place, f).exists());
        let pci_wanted = wanted.pci_vendor.is_some()
            || wanted.pci_device.is_some()
            || wanted.pci_class.is_some();
        let pci_there = !pci_wanted
            || present.iter().any(|&(vendor, device, class)| {
                wanted.pci_vendor.is_none_or(|v| v == vendor)
                    && wanted.pci_device.is_none_or(|d| d == device)
                    && wanted.pci_class.is_none_or(|c| c == class)
            });
        file_there && pci_there
    };
    if manifest.devices.iter().any(matches) {
        return Ok(());
    }
    let wanted: Vec<String> = manifest.devices.iter().map(describe).collect();
    let what = format!(
        "no such chip here (looked for {}); plug it in or load its kernel driver, or remove the backend",
        wanted.join(" or ")
    );
    Err(Refusal::new(Phase::Chip, Code::UNAVAILABLE, place, what))
}

fn describe(wanted: &DeviceMatch) -> String {
    let mut parts = Vec::new();
    parts.extend(wanted.pci_vendor.map(|v| format!("PCI vendor {v:04x}")));
    parts.extend(wanted.pci_device.map(|d| format!("PCI device {d:04x}")));
    parts.extend(wanted.pci_class.map(|c| format!("PCI class {c:02x}")));
    parts.extend(wanted.file.as_ref().map(|f| f.display().to_string()));
    parts.join(" with ")
}

/// (vendor, device, base class) of each PCI function the kernel lists.
fn pci(folder: &Path) -> Vec<(u16, u16, u8)> {
    let number = |path: PathBuf| {
        let text = std::fs::read_to_string(path).ok()?;
        u32::from_str_radix(text.trim().trim_start_matches("0x"), 16).ok()
    };
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter_map(|e| {
            let at = e.path();
            let (vendor, device, class) = (
                number(at.join("vendor"))?,
                number(at.join("device"))?,
                number(at.join("class"))?,
            );
            Some((vendor as u16, device as u16, (class >> 16) as u8))
        })
        .collect()
}

fn is_installed(soname: &str, library: &Path) -> bool {
    if maps::is_loaded(soname)
        || library
            .parent()
            .is_some_and(|folder| folder.join(soname).exists())
    {
        return true;
    }
    let path = if crate::env::elevated() {
        None
    } else {
        std::env::var_os("LD_LIBRARY_PATH")
    };
    if path.is_some_and(|p| {
        std::env::split_paths(&p).any(|folder| folder.is_absolute() && folder.join(soname).exists())
    }) {
        return true;
    }
    if std::fs::read("/etc/ld.so.cache").is_ok_and(|cache| cache_has(&cache, soname)) {
        return true;
    }
    let triple = format!("{}-linux-gnu", std::env::consts::ARCH);
    ["/lib64", "/usr/lib64", "/lib", "/usr/lib", "/usr/local/lib"]
        .iter()
        .any(|f| {
            Path::new(f).join(soname).exists() || Path::new(f).join(&triple).join(soname).exists()
        })
}

/// Whether glibc's linker cache (format `glibc-ld.so.cache1.1`) lists `soname`.
fn cache_has(cache: &[u8], soname: &str) -> bool {
    const MAGIC: &[u8] = b"glibc-ld.so.cache1.1";
    const HEADER: usize = 48;
    const ENTRY: usize = 24;
    // Caches of old systems hold the old format first.
    let Some(start) = cache.windows(MAGIC.len()).position(|w| w == MAGIC) else {
        return false;
    };
    let cache = &cache[start..];
    let word = |at: usize| {
        cache
            .get(at..at + 4)
            .map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]) as usize)
    };
    let Some(count) = word(20) else { return false };
    (0..count)
        .map_while(|i| word(HEADER + i * ENTRY + 4))
        .any(|key| {
            cache
                .get(key..key.saturating_add(soname.len() + 1))
                .is_some_and(|b| &b[..soname.len()] == soname.as_bytes() && b[soname.len()] == 0)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_found_as_the_linker_finds_them() {
        let nowhere = Path::new("/nonexistent/plugin.so");
        assert!(is_installed("libc.so.6", nowhere));
        assert!(!is_installed("libflagos_no_such.so.9", nowhere));
        if let Ok(cache) = std::fs::read("/etc/ld.so.cache") {
            assert!(cache_has(&cache, "libc.so.6"));
            assert!(
                !cache_has(&cache, "libc.so"),
                "a prefix of an entry is not an entry"
            );
            for cut in [0, 21, 60, cache.len() / 2] {
                cache_has(&cache[..cut.min(cache.len())], "libzzz.so.1");
            }
        }
    }
}
