//! Structs received from the other side: any size from minor 0 on is accepted, unknown tails must be zero.

use crate::layout::Struct;
use crate::{Attr, AttrTag, Code, Error, Op, Result, Tensor};

/// Structs that begin with `size` and `kind` and are valid when all bytes are zero.
///
/// # Safety
/// The type is `repr(C)`, begins with `size: u32, kind: u32`, and all-zero bytes are a value of it.
pub unsafe trait Versioned: Copy {
    /// Its description.
    const DESCRIPTION: Struct;
}

macro_rules! sized {
    ($($t:ty),*) => { $(
        // SAFETY: declared by `abi_struct!` with size and kind first; integers, floats, pointers, optional functions and text only.
        unsafe impl Versioned for $t {
            const DESCRIPTION: Struct = <$t>::LAYOUT;
        }
    )* };
}
sized!(
    crate::AllocDesc, crate::MemoryExport, crate::StreamDesc, crate::CompileDesc, crate::KernelLaunch, crate::KernelInfo, crate::Support,
    crate::PlanLimits, crate::PlanInfo, crate::Launch, crate::BlasDesc, crate::FftDesc, crate::DeviceInfo, crate::DeviceProbe, crate::MemoryInfo
);

/// An argument that must not be NULL.
#[cold]
pub fn null(what: &str) -> Error {
    Error::invalid(format!("{what} is NULL"))
}

/// Size and kind of a received struct, checked.
///
/// # Safety
/// `ptr` is NULL or addresses as many readable bytes as its `size` states, at least 8.
#[inline]
unsafe fn header<T: Versioned>(ptr: *const T) -> Result<usize> {
    let kind = const { T::DESCRIPTION.kind };
    // SAFETY: stated by the caller.
    if !ptr.is_null() && ptr.is_aligned() && unsafe { (*ptr.cast::<u32>() as usize, *ptr.cast::<u32>().add(1)) == (size_of::<T>(), kind) } {
        return Ok(size_of::<T>());
    }
    // SAFETY: passed on to the caller.
    unsafe { other_header(ptr) }
}

/// A header that is not this build's: older, newer or wrong.
///
/// # Safety
/// As [`header`].
#[cold]
unsafe fn other_header<T: Versioned>(ptr: *const T) -> Result<usize> {
    let d = T::DESCRIPTION;
    if ptr.is_null() || !ptr.is_aligned() {
        return Err(null(d.c_name));
    }
    // SAFETY: stated by the caller.
    let (size, kind) = unsafe { (*ptr.cast::<u32>(), *ptr.cast::<u32>().add(1)) };
    if kind != d.kind {
        return Err(Error::invalid(format!("{} has kind {kind:#x}, it is {:#x}", d.c_name, d.kind)));
    }
    let least = d.size_at(0);
    if (size as usize) < least {
        return Err(Error::invalid(format!("{} has size {size}, ABI minor 0 had {least}; set it to sizeof({})", d.c_name, d.c_name)));
    }
    if size > 1 << 16 {
        return Err(Error::invalid(format!("{} has size {size}", d.c_name)));
    }
    Ok(size as usize)
}

/// Reads a struct: absent fields are zero.
///
/// # Safety
/// `ptr` is NULL or addresses as many readable bytes as its `size` states, at least 8.
#[inline]
pub unsafe fn read<T: Versioned>(ptr: *const T) -> Result<T> {
    // SAFETY: passed on to the caller.
    let size = unsafe { header(ptr) }?;
    if size == size_of::<T>() {
        // SAFETY: the size was stated to be that of T, and the pointer is aligned.
        return Ok(unsafe { *ptr });
    }
    // SAFETY: passed on to the caller.
    unsafe { read_other(ptr, size) }
}

/// Lends a struct where it lies, if it is of this build's size; else a copy, absent fields zero. A copy of a struct the caller filled field by
/// field just now waits until its stores have reached the cache, which costs as much as all of a launch.
///
/// # Safety
/// As [`read`]; nobody changes the struct meanwhile.
#[inline]
pub unsafe fn lend<T: Versioned, R>(ptr: *const T, f: impl FnOnce(&T) -> Result<R>) -> Result<R> {
    // SAFETY: passed on to the caller.
    let size = unsafe { header(ptr) }?;
    if size == size_of::<T>() {
        // SAFETY: the size was stated to be that of T, and the pointer is aligned.
        return f(unsafe { &*ptr });
    }
    // SAFETY: passed on to the caller.
    f(&unsafe { read_other(ptr, size) }?)
}

/// # Safety
/// `ptr` addresses `size` readable bytes.
#[cold]
unsafe fn read_other<T: Versioned>(ptr: *const T, size: usize) -> Result<T> {
    // SAFETY: stated by the caller.
    let bytes = unsafe { core::slice::from_raw_parts(ptr.cast::<u8>(), size) };
    if let Some(at) = bytes.iter().skip(size_of::<T>()).position(|b| *b != 0) {
        let name = T::DESCRIPTION.c_name;
        let text = format!("{name} has a non-zero byte at offset {}, beyond the fields this build knows", size_of::<T>() + at);
        return Err(Error::new(Code::UNSUPPORTED_FIELD, text));
    }
    // SAFETY: all-zero bytes are a value of T, as the trait demands.
    let mut value: T = unsafe { core::mem::zeroed() };
    let n = size.min(size_of::<T>());
    // SAFETY: both sides have `n` bytes and do not overlap.
    unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), (&raw mut value).cast::<u8>(), n) };
    Ok(value)
}

/// Fills a struct of the caller's: as many bytes as it has, `size` and `kind` left as they are.
///
/// # Safety
/// `ptr` is NULL or addresses as many writable bytes as its `size` states, at least 8.
#[inline]
pub unsafe fn write<T: Versioned>(ptr: *mut T, value: &T) -> Result<()> {
    // SAFETY: passed on to the caller.
    let size = unsafe { header(ptr) }?;
    if size == size_of::<T>() {
        // SAFETY: the caller's struct is one of T; its size and kind are those of `value`.
        unsafe { ptr.write(*value) };
        return Ok(());
    }
    let n = size.min(size_of::<T>());
    // SAFETY: both sides have `n` bytes; the first 8 are the caller's own.
    unsafe { core::ptr::copy_nonoverlapping((&raw const *value).cast::<u8>().add(8), ptr.cast::<u8>().add(8), n - 8) };
    Ok(())
}

/// An operator descriptor whose arrays have been checked to be present and of this build's sizes.
#[derive(Clone, Copy)]
pub struct OpRef<'a>(&'a Op);

impl<'a> OpRef<'a> {
    /// Checks a descriptor.
    ///
    /// # Safety
    /// `op` is NULL or points to a descriptor whose arrays hold as many entries as it states, list attributes included, for `'a`.
    #[inline]
    pub unsafe fn new(op: *const Op) -> Result<OpRef<'a>> {
        // SAFETY: stated by the caller.
        let op = unsafe { op.as_ref() }.ok_or_else(|| null("the operator descriptor"))?;
        if op.size != Op::SIZE {
            return Err(Error::invalid(format!("flagos_op_t has size {}, this build's is {}; set it to sizeof(flagos_op_t)", op.size, Op::SIZE)));
        }
        let missing = |n: u32, null: bool| n > 0 && null;
        if missing(op.n_in.into(), op.inputs.is_null()) || missing(op.n_out.into(), op.outputs.is_null()) || missing(op.n_attr, op.attrs.is_null()) {
            return Err(Error::invalid("an array of the operator descriptor is NULL although it has entries"));
        }
        let view = OpRef(op);
        if let Some(t) = view.inputs().iter().chain(view.outputs()).find(|t| t.size != Tensor::SIZE) {
            return Err(Error::invalid(format!("a flagos_tensor_t has size {}, this build's is {}", t.size, Tensor::SIZE)));
        }
        Ok(view)
    }
    /// The descriptor itself.
    #[inline]
    pub fn raw(&self) -> &'a Op {
        self.0
    }
    /// Registry id.
    #[inline]
    pub fn id(&self) -> u32 {
        self.0.id
    }
    /// Revision of the definition.
    pub fn revision(&self) -> u32 {
        self.0.revision
    }
    /// Inputs.
    #[inline]
    pub fn inputs(&self) -> &'a [Tensor] {
        list(self.0.inputs, self.0.n_in.into())
    }
    /// Outputs.
    #[inline]
    pub fn outputs(&self) -> &'a [Tensor] {
        list(self.0.outputs, self.0.n_out.into())
    }
    /// Attributes, sorted by key.
    #[inline]
    pub fn attrs(&self) -> &'a [Attr] {
        list(self.0.attrs, self.0.n_attr as usize)
    }
    /// The items of a list attribute; empty for other kinds.
    pub fn span(&self, attr: &Attr) -> &'a [i64] {
        if attr.tag & 0xff == AttrTag::SPAN.0 { list(attr.value as usize as *const i64, (attr.tag >> 8) as usize) } else { &[] }
    }
}

/// An array of a checked descriptor.
#[inline]
fn list<'a, T>(ptr: *const T, len: usize) -> &'a [T] {
    if len == 0 || ptr.is_null() {
        return &[];
    }
    // SAFETY: `OpRef::new` obliges its caller to valid arrays of the stated lengths.
    unsafe { core::slice::from_raw_parts(ptr, len) }
}
