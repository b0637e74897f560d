//! Device memory behind one range of addresses: physical chunks come and go, addresses stay.

use std::collections::BTreeMap;

use cudarc::driver::sys;
use flagos_backend_api::Result;

use crate::driver::{Attribute, Ordinal, check};

/// Addresses reserved, as a multiple of the device's memory: holes whose memory was given back keep theirs.
const ADDRESS_FACTOR: u64 = 8;

/// A range of addresses with memory behind parts of it.
pub struct Pages {
    device: Ordinal,
    base: u64,
    reserved: u64,
    granularity: u64,
    /// By offset: bytes.
    chunks: BTreeMap<u64, u64>,
    held: u64,
    /// Devices that may reach the memory, this one first.
    readers: Vec<i32>,
}

fn location(device: i32) -> sys::CUmemLocation {
    sys::CUmemLocation { type_: sys::CUmemLocationType::CU_MEM_LOCATION_TYPE_DEVICE, id: device }
}

fn properties(device: Ordinal) -> sys::CUmemAllocationProp {
    // SAFETY: all-zero bytes are a value of the struct: no handle type, no compression, no flags.
    let zero: sys::CUmemAllocationProp = unsafe { core::mem::zeroed() };
    sys::CUmemAllocationProp { type_: sys::CUmemAllocationType::CU_MEM_ALLOCATION_TYPE_PINNED, location: location(device.0), ..zero }
}

impl Pages {
    /// Whether the device can map memory.
    pub fn possible(device: Ordinal) -> bool {
        device.attribute(Attribute::CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED) != 0
    }

    /// Reserves addresses. The context is current.
    ///
    /// # Errors
    /// Those of the driver.
    pub fn reserve(device: Ordinal) -> Result<Pages> {
        let (mut granularity, mut base) = (0usize, 0);
        let kind = sys::CUmemAllocationGranularity_flags::CU_MEM_ALLOC_GRANULARITY_RECOMMENDED;
        // SAFETY: the driver has started; the places are writable and the properties are complete.
        unsafe {
            check(sys::cuMemGetAllocationGranularity(&mut granularity, &properties(device), kind), "cuMemGetAllocationGranularity")?;
        }
        let granularity = (granularity as u64).max(1 << 16);
        let reserved = (device.memory_bytes() * ADDRESS_FACTOR).next_multiple_of(granularity);
        // SAFETY: as above.
        check(unsafe { sys::cuMemAddressReserve(&mut base, reserved as usize, 0, 0, 0) }, "cuMemAddressReserve")?;
        Ok(Pages { device, base, reserved, granularity, chunks: BTreeMap::new(), held: 0, readers: vec![device.0] })
    }

    /// First address.
    pub fn base(&self) -> u64 {
        self.base
    }
    /// Unit of chunks in bytes.
    pub fn granularity(&self) -> u64 {
        self.granularity
    }
    /// Bytes of memory behind the range.
    pub fn held(&self) -> u64 {
        self.held
    }
    /// Bytes of addresses.
    pub fn reserved(&self) -> u64 {
        self.reserved
    }
    /// The chunks as (offset, bytes), ascending.
    pub fn chunks(&self) -> impl Iterator<Item = (u64, u64)> {
        self.chunks.iter().map(|(o, n)| (*o, *n))
    }

    /// Puts memory behind a part without. The context is current.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED when the device has no more, and those of the driver; then nothing has changed.
    pub fn back(&mut self, offset: u64, bytes: u64) -> Result<()> {
        let (mut handle, address) = (0, self.base + offset);
        // SAFETY: the range lies within the reserved addresses and has no memory, as the arena keeps account of both; sizes are multiples of the
        // granularity. The handle is released once mapped or failed: the mapping keeps the memory.
        unsafe {
            check(sys::cuMemCreate(&mut handle, bytes as usize, &properties(self.device), 0), "cuMemCreate")?;
            let mapped = check(sys::cuMemMap(address, bytes as usize, 0, handle, 0), "cuMemMap");
            sys::cuMemRelease(handle);
            mapped?;
        }
        if let Err(e) = self.allow_all(offset, bytes) {
            // SAFETY: undoes the mapping made above, which nobody has seen.
            unsafe { sys::cuMemUnmap(address, bytes as usize) };
            return Err(e);
        }
        self.chunks.insert(offset, bytes);
        self.held += bytes;
        Ok(())
    }

    /// Takes the memory of a chunk away; no work uses it. The context is current.
    pub fn strip(&mut self, offset: u64) {
        if let Some(bytes) = self.chunks.remove(&offset) {
            self.held -= bytes;
            // SAFETY: exactly the range that was mapped.
            unsafe { sys::cuMemUnmap(self.base + offset, bytes as usize) };
        }
    }

    /// Lets another device reach all of the memory, also what comes later. The context is current.
    ///
    /// # Errors
    /// Those of the driver.
    pub fn allow(&mut self, device: Ordinal) -> Result<()> {
        if self.readers.contains(&device.0) {
            return Ok(());
        }
        self.readers.push(device.0);
        let chunks: Vec<(u64, u64)> = self.chunks().collect();
        let done = chunks.iter().try_for_each(|(offset, bytes)| self.allow_all(*offset, *bytes));
        if done.is_err() {
            self.readers.pop();
        }
        done
    }

    fn allow_all(&self, offset: u64, bytes: u64) -> Result<()> {
        let flags = sys::CUmemAccess_flags::CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
        let access: Vec<_> = self.readers.iter().map(|r| sys::CUmemAccessDesc { location: location(*r), flags }).collect();
        // SAFETY: the range is mapped; the list is as long as stated.
        check(unsafe { sys::cuMemSetAccess(self.base + offset, bytes as usize, access.as_ptr(), access.len()) }, "cuMemSetAccess")
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        let offsets: Vec<u64> = self.chunks.keys().copied().collect();
        offsets.iter().for_each(|o| self.strip(*o));
        // SAFETY: exactly the range that was reserved, with nothing mapped any more.
        unsafe { sys::cuMemAddressFree(self.base, self.reserved as usize) };
    }
}
