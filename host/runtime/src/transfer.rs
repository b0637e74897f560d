//! Copies between any two buffers: directly where the backend can, else staged through host memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flagos_backend_api::Result;
use flagos_backend_api::caps::HOST_VISIBLE;

use crate::memory::Buffer;
use crate::stream::Stream;

/// Staging chunk: large enough to run at full copy speed, small enough to stay in cache of the last level.
const CHUNK: u64 = 4 << 20;

/// What copies between devices moved so far.
#[derive(Default)]
pub(crate) struct Counters {
    direct: AtomicU64,
    staged: AtomicU64,
}

/// A reading of the copy counters, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct TransferStatistics {
    /// Between devices of one backend, by the backend.
    pub direct_bytes: u64,
    /// Between devices, through host memory.
    pub staged_bytes: u64,
}

impl Counters {
    pub(crate) fn read(&self) -> TransferStatistics {
        TransferStatistics { direct_bytes: self.direct.load(Ordering::Relaxed), staged_bytes: self.staged.load(Ordering::Relaxed) }
    }
}

/// How a copy between two devices goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Route {
    /// Within one device: a stream copy.
    Local,
    /// Between devices of one backend that can reach each other.
    Direct,
    /// One side is host-visible: one copy.
    Mapped,
    /// Through host memory: two copies.
    Staged,
}

/// The route from `src` to `dst`.
pub fn route(dst: &Buffer, src: &Buffer) -> Route {
    let (to, from) = (&dst.device().0, &src.device().0);
    if Arc::ptr_eq(to, from) {
        Route::Local
    } else if Arc::ptr_eq(&to.driver, &from.driver) && to.driver.can_copy(to.raw, from.raw) {
        Route::Direct
    } else if [dst, src].iter().any(|b| b.device().info().caps & HOST_VISIBLE != 0 && b.map().is_ok()) {
        Route::Mapped
    } else {
        Route::Staged
    }
}

/// Copies `bytes` from `src` to `dst`. `from` and `to` are streams of the two devices; the copy is ordered after the work of both.
/// Local and direct copies are enqueued on `to` (after `from` has been waited for); the others are finished when this returns.
pub fn copy(to: &Stream, dst: &Buffer, dst_offset: u64, from: &Stream, src: &Buffer, src_offset: u64, bytes: u64) -> Result<()> {
    dst.check_range(dst_offset, bytes)?;
    src.check_range(src_offset, bytes)?;
    let counters = &dst.device().0.runtime.transfers;
    match route(dst, src) {
        Route::Local => {
            if !Arc::ptr_eq(&to.0, &from.0) {
                from.sync()?;
            }
            to.copy(dst, dst_offset, src, src_offset, bytes)
        }
        Route::Direct => {
            from.sync()?;
            to.driver().copy(to.0.raw, dst.0.raw, dst_offset, src.0.raw, src_offset, bytes)?;
            to.advance()?;
            counters.direct.fetch_add(bytes, Ordering::Relaxed);
            Ok(())
        }
        Route::Mapped | Route::Staged => {
            from.sync()?;
            to.sync()?;
            counters.staged.fetch_add(bytes, Ordering::Relaxed);
            through_host(to, dst, dst_offset, from, src, src_offset, bytes)
        }
    }
}

fn through_host(to: &Stream, dst: &Buffer, dst_offset: u64, from: &Stream, src: &Buffer, src_offset: u64, bytes: u64) -> Result<()> {
    let visible = |b: &Buffer| b.device().info().caps & HOST_VISIBLE != 0;
    if visible(src)
        && let Ok(base) = src.map()
    {
        // SAFETY: the range was checked, the mapping lives as long as `src`, both streams are idle and `to` is waited for.
        unsafe { to.write_async(dst, dst_offset, base.add(src_offset as usize), bytes) }?;
        to.sync()?;
        return src.unmap();
    }
    if visible(dst)
        && let Ok(base) = dst.map()
    {
        // SAFETY: as above, with `from` waited for.
        unsafe { from.read_async(src, src_offset, base.add(dst_offset as usize), bytes) }?;
        from.sync()?;
        return dst.unmap();
    }
    let mut stage = vec![0u8; bytes.min(CHUNK) as usize];
    let mut done = 0;
    while done < bytes {
        let part = &mut stage[..(bytes - done).min(CHUNK) as usize];
        from.read(src, src_offset + done, part)?;
        to.write(dst, dst_offset + done, part)?;
        done += part.len() as u64;
    }
    Ok(())
}
