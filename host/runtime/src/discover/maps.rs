//! The process's memory map: which file lies at an address.

use std::path::PathBuf;

/// A mapped file as the kernel names it.
#[derive(Clone, Debug)]
pub(super) struct Mapped {
    /// Device and inode as the map shows them. On some file systems (overlay, btrfs) they differ from what `stat` shows, so compare them only
    /// with those of another mapping.
    pub(super) identity: (String, u64),
    /// Path at the time of mapping.
    pub(super) path: PathBuf,
}

/// The file mapped at `address`; `None` for anonymous memory, or where `/proc` is missing.
pub(super) fn file_at(address: usize) -> Option<Mapped> {
    let text = std::fs::read("/proc/self/maps").ok()?;
    String::from_utf8_lossy(&text).lines().find_map(|line| {
        let (range, rest) = line.split_once(' ')?;
        let (from, to) = range.split_once('-')?;
        let inside = usize::from_str_radix(from, 16).ok()? <= address
            && address < usize::from_str_radix(to, 16).ok()?;
        if inside { parse(rest) } else { None }
    })
}

/// Whether a file of this name is mapped: a library that is loaded already satisfies who needs it.
pub(super) fn is_loaded(file_name: &str) -> bool {
    let Ok(text) = std::fs::read("/proc/self/maps") else {
        return false;
    };
    String::from_utf8_lossy(&text).lines().any(|line| {
        line.rsplit_once('/')
            .is_some_and(|(_, name)| name == file_name)
    })
}

/// "r-xp 00001000 08:01 1234   /path".
fn parse(rest: &str) -> Option<Mapped> {
    let mut columns = rest.splitn(5, ' ');
    let (_mode, _offset) = (columns.next()?, columns.next()?);
    let device = columns.next()?.to_owned();
    let inode: u64 = columns.next()?.parse().ok()?;
    let path = columns.next()?.trim_start();
    if inode == 0 || !path.starts_with('/') {
        return None;
    }
    Some(Mapped {
        identity: (device, inode),
        path: path.into(),
    })
}
