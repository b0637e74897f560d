//! The disk cache of compiled kernels: one file per kernel and target, shared by processes, bounded, and never believed blindly.
//!
//! A file is written beside its place and renamed there, so readers see all of it or nothing. Its first bytes are a digest of the rest: what
//! was cut off, changed or belongs to somebody else is removed and compiled again. Nothing here is an error to the caller.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use flagos_compiler::Compiled;
use sha2::{Digest, Sha256};

/// First bytes of a file; the last one counts the versions of its layout.
const MAGIC: &[u8; 8] = b"FLAGOSK\x01";
/// What the cache may hold on disk; the files used longest ago go first.
const MOST_BYTES: u64 = 1 << 30;
/// Writes of a process between two looks at the size of the cache.
const WRITES_PER_LOOK: u64 = 64;
/// A file's time of use is kept to this precision.
const USE_PRECISION: Duration = Duration::from_secs(24 * 3600);
/// Unfinished files older than this were left by a crash.
const ABANDONED: Duration = Duration::from_secs(3600);

/// What is kept of a kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Code and what a launch needs.
    pub(crate) compiled: Compiled,
    /// The backend's own binary of it, where it exports one.
    pub(crate) binary: Option<Vec<u8>>,
}

/// A folder of entries.
pub(crate) struct Cache {
    folder: PathBuf,
    most_bytes: u64,
    writes: AtomicU64,
}

/// The digest that names an entry.
pub(crate) type Name = [u8; 32];

/// The name of what was made from these parts.
pub(crate) fn name(parts: &[&str]) -> Name {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.finalize().into()
}

impl Cache {
    /// The user's cache: FLAGOS_CACHE_DIR, else `flagos` in XDG_CACHE_HOME or `~/.cache`. `None` where there is no such place.
    pub(crate) fn of_user() -> Option<Cache> {
        let set = |name: &str| crate::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        let folder = set("FLAGOS_CACHE_DIR").or_else(|| {
            let base = set("XDG_CACHE_HOME").filter(|p| p.is_absolute()).or_else(|| set("HOME").map(|h| h.join(".cache")))?;
            Some(base.join("flagos"))
        })?;
        Some(Cache::at(folder, MOST_BYTES))
    }

    /// A cache in a folder, which is made when it is first written to.
    pub(crate) fn at(folder: PathBuf, most_bytes: u64) -> Cache {
        Cache { folder: folder.join("kernels"), most_bytes, writes: AtomicU64::new(0) }
    }

    fn place(&self, name: &Name) -> PathBuf {
        let text: String = name.iter().map(|b| format!("{b:02x}")).collect();
        self.folder.join(&text[..2]).join(&text[2..])
    }

    /// Finds an entry. One that cannot be believed is removed.
    pub(crate) fn find(&self, name: &Name) -> Option<Entry> {
        let path = self.place(name);
        let mut file = File::open(&path).ok()?;
        let meta = file.metadata().ok()?;
        // Code is run: only what this user wrote, and nobody else may write, is believed.
        if meta.uid() != crate::env::effective_uid() || meta.mode() & 0o022 != 0 {
            return None;
        }
        let mut bytes = Vec::with_capacity(meta.len() as usize);
        file.read_to_end(&mut bytes).ok()?;
        let Some(entry) = decode(&bytes) else {
            crate::log::info(&format!("a damaged entry of the kernel cache is dropped: {}", path.display()));
            // Another process may have been faster, or written a good one.
            let _ = fs::remove_file(&path);
            return None;
        };
        let now = SystemTime::now();
        if meta.modified().is_ok_and(|m| now.duration_since(m).is_ok_and(|age| age > USE_PRECISION)) {
            // A cache that cannot be written to still serves; its entries merely look older than they are.
            let _ = file.set_modified(now);
        }
        Some(entry)
    }

    /// Keeps an entry. A full disk or a read-only place costs the next process a compilation, nothing else.
    pub(crate) fn keep(&self, name: &Name, entry: &Entry) {
        if let Err(e) = self.write(name, &encode(entry)) {
            crate::log::info(&format!("a kernel is not kept in {}: {e}", self.folder.display()));
        }
        if self.writes.fetch_add(1, Ordering::Relaxed).is_multiple_of(WRITES_PER_LOOK) {
            self.trim();
        }
    }

    fn write(&self, name: &Name, bytes: &[u8]) -> std::io::Result<()> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let place = self.place(name);
        let folder = place.parent().unwrap_or(&self.folder);
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let draft = folder.join(format!(".{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
        let written = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft).and_then(|mut file| file.write_all(bytes));
        written.and_then(|()| fs::rename(&draft, &place)).inspect_err(|_| {
            // Best effort: what stays is found by `trim`.
            let _ = fs::remove_file(&draft);
        })
    }

    /// Removes what crashes left, and the entries used longest ago until the rest fits.
    fn trim(&self) {
        let now = SystemTime::now();
        let mut files: Vec<(SystemTime, u64, PathBuf)> = Vec::new();
        let list = |folder: &Path| fs::read_dir(folder).into_iter().flatten().flatten();
        for entry in list(&self.folder).flat_map(|f| list(&f.path())) {
            let Ok(meta) = entry.metadata() else { continue };
            let used = meta.modified().unwrap_or(now);
            if entry.file_name().as_encoded_bytes().starts_with(b".") {
                if now.duration_since(used).is_ok_and(|age| age > ABANDONED) {
                    // Gone already is as good.
                    let _ = fs::remove_file(entry.path());
                }
                continue;
            }
            files.push((used, meta.len(), entry.path()));
        }
        let mut total: u64 = files.iter().map(|f| f.1).sum();
        files.sort();
        for (_, bytes, path) in files {
            if total <= self.most_bytes {
                break;
            }
            // Gone already is as good.
            let _ = fs::remove_file(path);
            total -= bytes;
        }
    }
}

fn encode(entry: &Entry) -> Vec<u8> {
    let c = &entry.compiled;
    let mut body = Vec::new();
    for part in [&c.code[..], c.entry.as_bytes(), c.options.as_bytes(), entry.binary.as_deref().unwrap_or(&[])] {
        body.extend((part.len() as u64).to_le_bytes());
        body.extend(part);
    }
    body.extend(c.threads.to_le_bytes());
    body.extend(c.shared_bytes.to_le_bytes());
    let digest: [u8; 32] = Sha256::digest(&body).into();
    [&MAGIC[..], &digest, &body].concat()
}

fn decode<'a>(bytes: &'a [u8]) -> Option<Entry> {
    let (digest, body) = bytes.strip_prefix(&MAGIC[..])?.split_at_checked(32)?;
    if digest != &Sha256::digest(body)[..] {
        return None;
    }
    let mut rest = body;
    let mut take = |n: usize| -> Option<&'a [u8]> {
        let (head, tail) = rest.split_at_checked(n)?;
        rest = tail;
        Some(head)
    };
    let mut part = || -> Option<Vec<u8>> {
        let length = u64::from_le_bytes(take(8)?.try_into().ok()?);
        take(usize::try_from(length).ok()?).map(<[u8]>::to_vec)
    };
    let (code, entry, options, binary) = (part()?, part()?, part()?, part()?);
    let mut number = || Some(u32::from_le_bytes(take(4)?.try_into().ok()?));
    let (threads, shared_bytes) = (number()?, number()?);
    let text = |bytes| String::from_utf8(bytes).ok();
    let compiled = Compiled { code, entry: text(entry)?, options: text(options)?, threads, shared_bytes };
    Some(Entry { compiled, binary: (!binary.is_empty()).then_some(binary) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(fill: u8) -> Entry {
        let compiled = Compiled { code: vec![fill; 1000], entry: "f".into(), options: "-O3".into(), threads: 128, shared_bytes: 64 };
        Entry { compiled, binary: (fill > 0).then(|| vec![fill; 10]) }
    }

    fn fresh(test: &str, most_bytes: u64) -> Cache {
        let folder = std::env::temp_dir().join(format!("flagos-cache-{test}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        Cache::at(folder, most_bytes)
    }

    #[test]
    fn what_is_kept_is_found_and_damage_is_not() {
        let cache = fresh("damage", 1 << 20);
        let (a, b) = (name(&["a", "b"]), name(&["ab", ""]));
        assert_ne!(a, b, "parts are told apart");
        assert_eq!(cache.find(&a), None);
        cache.keep(&a, &entry(0));
        cache.keep(&b, &entry(7));
        assert_eq!((cache.find(&a), cache.find(&b)), (Some(entry(0)), Some(entry(7))));
        let bytes = fs::read(cache.place(&a)).unwrap();
        for at in [0, 7, 8, 39, 40, 48, bytes.len() - 1] {
            for damaged in [bytes[..at].to_vec(), [&bytes[..at], &[bytes[at] ^ 1], &bytes[at + 1..]].concat()] {
                fs::write(cache.place(&a), damaged).unwrap();
                assert_eq!(cache.find(&a), None, "byte {at}");
                assert!(!cache.place(&a).exists(), "byte {at}");
            }
        }
        cache.keep(&a, &entry(3));
        assert_eq!(cache.find(&a), Some(entry(3)));
        fs::remove_dir_all(cache.folder.parent().unwrap()).unwrap();
    }

    #[test]
    fn what_others_may_write_is_not_believed() {
        use std::os::unix::fs::PermissionsExt;
        let cache = fresh("mode", 1 << 20);
        let a = name(&["a"]);
        cache.keep(&a, &entry(1));
        fs::set_permissions(cache.place(&a), fs::Permissions::from_mode(0o666)).unwrap();
        assert_eq!(cache.find(&a), None);
        fs::remove_dir_all(cache.folder.parent().unwrap()).unwrap();
    }

    #[test]
    fn the_oldest_go_when_it_is_full() {
        let cache = fresh("full", 5_000);
        let names: Vec<Name> = (0..10).map(|i| name(&[&i.to_string()])).collect();
        for (i, n) in names.iter().enumerate() {
            cache.keep(n, &entry(1));
            let age = Duration::from_secs(1000 - i as u64);
            File::open(cache.place(n)).unwrap().set_modified(SystemTime::now() - age).unwrap();
        }
        cache.trim();
        let left: Vec<usize> = (0..10).filter(|i| cache.find(&names[*i]).is_some()).collect();
        assert_eq!(left, [6, 7, 8, 9]);
        fs::remove_dir_all(cache.folder.parent().unwrap()).unwrap();
    }

    #[test]
    fn many_writers_of_one_entry_leave_a_whole_one() {
        let cache = fresh("race", 1 << 20);
        let a = name(&["a"]);
        std::thread::scope(|s| {
            for fill in 1..5u8 {
                let cache = &cache;
                s.spawn(move || {
                    for _ in 0..50 {
                        cache.keep(&a, &entry(fill));
                        let found = cache.find(&a).expect("there is always one");
                        assert_eq!(found, entry(found.compiled.code[0]));
                    }
                });
            }
        });
        fs::remove_dir_all(cache.folder.parent().unwrap()).unwrap();
    }
}
