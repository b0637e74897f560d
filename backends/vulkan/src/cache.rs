//! Compiled pipelines on disk: one file per device and driver, shared by processes, ignored when damaged.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use ash::vk;

use crate::device::Calls;
use crate::env;
use crate::features::Physical;
use crate::instance::lock;

/// Pause between two writes; what came meanwhile is written with the next one, or when the device is closed.
const PAUSE: Duration = Duration::from_secs(2);
/// First bytes of a file; a new layout has new ones.
const MAGIC: &[u8; 8] = b"flagosv1";

/// The device's pipeline cache.
pub struct PipelineCache {
    cache: vk::PipelineCache,
    file: Option<PathBuf>,
    /// Ids a file's data must begin with: vendor, device, UUID.
    owner: [u8; 24],
    state: Mutex<State>,
}

struct State {
    /// Pipelines were made since the last write.
    dirty: bool,
    written: Option<Instant>,
}

/// FNV-1a, 64 bits: finds damage, guards against nobody.
fn checksum(data: &[u8]) -> u64 {
    data.iter().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3))
}

/// The data of a file; `None` when it is not whole.
fn unwrap(file: &[u8]) -> Option<&[u8]> {
    let (head, data) = file.split_at_checked(16)?;
    let sum = u64::from_le_bytes(head[8..].try_into().ok()?);
    (head[..8] == *MAGIC && sum == checksum(data)).then_some(data)
}

impl PipelineCache {
    /// The cache of a device, with what earlier processes compiled. A cache that cannot be had is none: everything works, slower.
    pub fn open(calls: &Calls, physical: &Physical, arch: &str) -> PipelineCache {
        let core = &physical.properties.core;
        let mut owner = [0; 24];
        owner[..4].copy_from_slice(&core.vendor_id.to_le_bytes());
        owner[4..8].copy_from_slice(&core.device_id.to_le_bytes());
        owner[8..].copy_from_slice(&core.pipeline_cache_uuid);
        let hex: String = core.pipeline_cache_uuid.iter().map(|b| format!("{b:02x}")).collect();
        // The fingerprint tells apart what some drivers' UUID does not, such as the vector width of drivers in software.
        let file = env::cache_folder().map(|folder| folder.join(format!("{}-{hex}.pipelines", arch.replace(':', "."))));
        let mut made = PipelineCache { cache: vk::PipelineCache::null(), file, owner, state: Mutex::new(State { dirty: false, written: None }) };
        let data = made.load().unwrap_or_default();
        made.cache = create(calls, &data).or_else(|| create(calls, &[])).unwrap_or_default();
        made
    }

    /// The handle; null when there is none.
    pub fn raw(&self) -> vk::PipelineCache {
        self.cache
    }

    /// Notes that a pipeline was made; writes now and then.
    pub fn grown(&self, calls: &Calls) {
        let mut state = lock(&self.state);
        state.dirty = true;
        if state.written.is_none_or(|at| at.elapsed() >= PAUSE) {
            self.write(calls);
            *state = State { dirty: false, written: Some(Instant::now()) };
        }
    }

    /// Writes what is new and ends the cache.
    pub fn close(&self, calls: &Calls) {
        if lock(&self.state).dirty {
            self.write(calls);
        }
        // SAFETY: the device is being closed; no pipeline is being made.
        unsafe { calls.raw.destroy_pipeline_cache(self.cache, None) };
    }

    /// The file's data, when it is whole and this driver's.
    fn load(&self) -> Option<Vec<u8>> {
        let file = std::fs::read(self.file.as_ref()?).ok()?;
        let data = unwrap(&file)?;
        // VkPipelineCacheHeaderVersionOne: length, version, then the owner.
        let (length, version, owner) = (data.get(..4)?, data.get(4..8)?, data.get(8..32)?);
        let fits = length == 32u32.to_le_bytes() && version == 1u32.to_le_bytes() && owner == self.owner;
        fits.then(|| data.to_vec())
    }

    /// Writes beside the file and renames, so that readers see the old one or the new one. What other processes wrote meanwhile is taken in.
    fn write(&self, calls: &Calls) {
        let Some(file) = self.file.as_ref().filter(|_| self.cache != vk::PipelineCache::null()) else { return };
        if let Some(theirs) = self.load().and_then(|data| create(calls, &data)) {
            // SAFETY: both caches are alive; the one merged into is locked by `state`, and pipelines that are made meanwhile use it synchronised.
            unsafe {
                let _ = calls.raw.merge_pipeline_caches(self.cache, &[theirs]);
                calls.raw.destroy_pipeline_cache(theirs, None);
            }
        }
        // SAFETY: the cache is alive.
        let Ok(data) = (unsafe { calls.raw.get_pipeline_cache_data(self.cache) }) else { return };
        // A cache that cannot be written costs time, no result: nothing is told.
        let _ = store(file, &data);
    }
}

fn create(calls: &Calls, data: &[u8]) -> Option<vk::PipelineCache> {
    let info = vk::PipelineCacheCreateInfo::default().initial_data(data);
    // SAFETY: the device is alive; the data lives for the call and was checked to be this driver's own.
    unsafe { calls.raw.create_pipeline_cache(&info, None) }.ok()
}

fn store(file: &std::path::Path, data: &[u8]) -> std::io::Result<()> {
    let folder = file.parent().ok_or(std::io::ErrorKind::InvalidInput)?;
    std::fs::create_dir_all(folder)?;
    static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let draft = folder.join(format!(".{}.{count}.draft", std::process::id()));
    let mut out = std::fs::File::create(&draft)?;
    let written = out.write_all(MAGIC).and_then(|()| out.write_all(&checksum(data).to_le_bytes())).and_then(|()| out.write_all(data));
    written.and_then(|()| std::fs::rename(&draft, file)).inspect_err(|_| {
        let _ = std::fs::remove_file(&draft);
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_is_seen() {
        let mut file = MAGIC.to_vec();
        file.extend(checksum(b"data").to_le_bytes());
        file.extend(b"data");
        assert_eq!(unwrap(&file), Some(&b"data"[..]));
        for i in 0..file.len() {
            let mut damaged = file.clone();
            damaged[i] ^= 1;
            assert_eq!(unwrap(&damaged), None, "byte {i}");
            assert_eq!(unwrap(&file[..i]), None, "cut at {i}");
        }
    }
}
