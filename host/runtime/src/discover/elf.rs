//! ELF header check: tells what is not a loadable library of this machine before the dynamic linker touches the file.
//!
//! The linker's own messages are terse, and a file cut short passes its checks and kills the process when a missing page is touched.

use std::fs::File;
use std::os::unix::fs::FileExt;

/// Machine numbers (`e_machine`) by the names Rust gives processors.
const MACHINES: &[(u16, &str)] = &[
    (3, "x86"),
    (20, "powerpc"),
    (21, "powerpc64"),
    (22, "s390x"),
    (40, "arm"),
    (62, "x86_64"),
    (183, "aarch64"),
    (243, "riscv64"),
    (258, "loongarch64"),
];
const TYPE_DYN: u16 = 3;
const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;
const DT_NEEDED: u64 = 1;
const DT_STRTAB: u64 = 5;

struct Segment {
    kind: u32,
    offset: u64,
    address: u64,
    file_bytes: u64,
}

/// Checks a library and returns the libraries it names as needed. The error says what is wrong and the way out.
pub(super) fn check(file: &File) -> Result<Vec<String>, String> {
    let length = file.metadata().map_err(|e| e.to_string())?.len();
    let mut head = [0u8; 64];
    let got = file
        .read_at(&mut head, 0)
        .map_err(|e| format!("cannot be read: {e}; reinstall the backend"))?;
    if got < 4 || head[..4] != *b"\x7fELF" {
        return Err("not a shared library (no ELF header); give the path of the backend's .so file, or reinstall it".into());
    }
    if got < 64 {
        return Err(format!(
            "cut short: {length} bytes are less than an ELF header; reinstall the backend"
        ));
    }
    let half = |at: usize| u16::from_le_bytes([head[at], head[at + 1]]);
    let (class, data, kind, machine) = (head[4], head[5], half(16), half(18));
    let here = std::env::consts::ARCH;
    if class != 2 || data != 1 {
        let width = if class == 1 {
            "32-bit"
        } else {
            "not 64-bit little-endian"
        };
        return Err(format!(
            "the library is {width}, this process is 64-bit little-endian {here}; install the backend's package for {here}"
        ));
    }
    let machine_name = MACHINES
        .iter()
        .find(|(n, _)| *n == machine)
        .map(|(_, name)| *name);
    if machine_name != Some(here) {
        let built = machine_name.map_or_else(|| format!("machine {machine}"), String::from);
        return Err(format!(
            "the library is built for {built}, this machine is {here}; install the backend's package for {here}"
        ));
    }
    if kind != TYPE_DYN {
        return Err(format!(
            "ELF type {kind} is not a shared library (type 3); link the backend with -shared"
        ));
    }
    let segments =
        segments(file, &head).ok_or("its program headers cannot be read; reinstall the backend")?;
    if let Some(end) = segments
        .iter()
        .filter(|s| s.kind == PT_LOAD)
        .map(|s| s.offset.saturating_add(s.file_bytes))
        .find(|&end| end > length)
    {
        return Err(format!(
            "cut short: the file has {length} bytes, a segment ends at {end}; reinstall the backend"
        ));
    }
    Ok(needed(file, &segments).unwrap_or_default())
}

fn segments(file: &File, head: &[u8; 64]) -> Option<Vec<Segment>> {
    let table = u64::from_le_bytes(head[32..40].try_into().ok()?);
    let (entry, count) = (
        u16::from_le_bytes([head[54], head[55]]),
        u16::from_le_bytes([head[56], head[57]]),
    );
    if entry != 56 || count == 0 || count > 512 {
        return None;
    }
    let mut bytes = vec![0u8; entry as usize * count as usize];
    file.read_exact_at(&mut bytes, table).ok()?;
    let word =
        |b: &[u8], at: usize| u64::from_le_bytes(b[at..at + 8].try_into().unwrap_or_default());
    let segment = |b: &[u8]| Segment {
        kind: u32::from_le_bytes(b[..4].try_into().unwrap_or_default()),
        offset: word(b, 8),
        address: word(b, 16),
        file_bytes: word(b, 32),
    };
    Some(bytes.chunks_exact(56).map(segment).collect())
}

/// `DT_NEEDED` names; at most 4,096 dynamic entries and 255 bytes each are read.
fn needed(file: &File, segments: &[Segment]) -> Option<Vec<String>> {
    let dynamic = segments.iter().find(|s| s.kind == PT_DYNAMIC)?;
    let mut bytes = vec![0u8; dynamic.file_bytes.min(4096 * 16) as usize];
    file.read_exact_at(&mut bytes, dynamic.offset).ok()?;
    let entries: Vec<(u64, u64)> = bytes
        .chunks_exact(16)
        .map(|b| {
            (
                u64::from_le_bytes(b[..8].try_into().unwrap_or_default()),
                u64::from_le_bytes(b[8..].try_into().unwrap_or_default()),
            )
        })
        .take_while(|(tag, _)| *tag != 0)
        .collect();
    let strings = entries.iter().find(|(tag, _)| *tag == DT_STRTAB)?.1;
    let home = segments.iter().find(|s| {
        s.kind == PT_LOAD && s.address <= strings && strings - s.address < s.file_bytes
    })?;
    let strings = home.offset.checked_add(strings - home.address)?;
    let name = |offset: u64| {
        let mut text = [0u8; 256];
        let got = file.read_at(&mut text, strings.checked_add(offset)?).ok()?;
        let end = text[..got].iter().position(|&b| b == 0)?;
        Some(String::from_utf8_lossy(&text[..end]).into_owned())
    };
    Some(
        entries
            .iter()
            .filter(|(tag, _)| *tag == DT_NEEDED)
            .filter_map(|(_, offset)| name(*offset))
            .collect(),
    )
}
