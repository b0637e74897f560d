//! Canonical keys of calls: the bytes that decide a plan, without pointers, and their hash.

use core::hash::{BuildHasher, Hasher};
use core::mem::MaybeUninit;

use flagos_backend_api::{Attr, AttrTag, BlasDesc, FftDesc, Op, Tensor};

/// Words a key holds inline; longer ones (many tensors, long lists) go to the heap.
const INLINE: usize = 128;

/// A canonical key.
pub struct Key {
    len: usize,
    // Left uninitialised: clearing 1 KiB would cost more than all of the rest. The first `min(len, INLINE)` words are written.
    inline: [MaybeUninit<u64>; INLINE],
    spilled: Vec<u64>,
}

/// Domain tags keep keys of different descriptors apart.
const OP: u64 = 1 << 56;
const BLAS: u64 = 2 << 56;
const FFT: u64 = 3 << 56;

impl Key {
    /// An empty key.
    #[inline]
    pub(crate) fn new() -> Key {
        Key { len: 0, inline: [const { MaybeUninit::uninit() }; INLINE], spilled: Vec::new() }
    }

    #[inline]
    fn push(&mut self, word: u64) {
        if self.len < INLINE {
            self.inline[self.len].write(word);
        } else {
            self.spill(word);
        }
        self.len += 1;
    }

    #[cold]
    fn spill(&mut self, word: u64) {
        if self.spilled.is_empty() {
            // SAFETY: spilling starts when all INLINE words have been written.
            self.spilled.extend(self.inline.iter().map(|w| unsafe { w.assume_init() }));
        }
        self.spilled.push(word);
    }

    /// The key's words.
    #[inline]
    pub fn words(&self) -> &[u64] {
        if self.len > INLINE {
            return &self.spilled;
        }
        // SAFETY: the first `len` words have been written, and MaybeUninit<u64> has the layout of u64.
        unsafe { core::slice::from_raw_parts(self.inline.as_ptr().cast(), self.len) }
    }

    /// Its hash.
    #[inline]
    pub fn hash(words: &[u64]) -> u64 {
        let mut hasher = foldhash::fast::FixedState::with_seed(0x466c_6167).build_hasher();
        let mut pairs = words.chunks_exact(2);
        for pair in &mut pairs {
            hasher.write_u128(u128::from(pair[0]) | u128::from(pair[1]) << 64);
        }
        for &word in pairs.remainder() {
            hasher.write_u64(word);
        }
        hasher.finish()
    }

    #[inline]
    fn tensor(&mut self, t: &Tensor) {
        let rank = (t.rank as usize).min(8);
        let dtype = u32::from_le_bytes([t.dtype.code, t.dtype.bits, t.dtype.lanes as u8, (t.dtype.lanes >> 8) as u8]);
        self.push(u64::from(dtype) | u64::from(t.rank) << 32 | u64::from(t.layout) << 40 | u64::from(t.flags) << 48);
        for d in 0..rank {
            self.push(t.shape[d] as u64);
        }
        for d in 0..rank {
            self.push(t.stride[d] as u64);
        }
    }

    /// Key of an operator call.
    ///
    /// # Safety
    /// The descriptor's arrays hold as many valid entries as it states, spans included.
    #[inline]
    pub unsafe fn of_op(op: &Op) -> Key {
        let mut key = Key::new();
        // SAFETY: passed on to the caller.
        unsafe { key.op(op) };
        key
    }

    /// Fills a new key with an operator call, where it stands: moving a key costs as much as making it.
    ///
    /// # Safety
    /// As [`Key::of_op`].
    #[inline]
    pub(crate) unsafe fn op(&mut self, op: &Op) {
        self.push(OP | u64::from(op.id) | u64::from(op.revision) << 32);
        self.push(u64::from(op.n_in) | u64::from(op.n_out) << 16 | u64::from(op.n_attr) << 32);
        // SAFETY: stated by the caller; zero counts make empty slices from dangling pointers.
        let (inputs, outputs, attrs) = unsafe { (slice(op.inputs, op.n_in.into()), slice(op.outputs, op.n_out.into()), slice(op.attrs, op.n_attr as usize)) };
        for t in inputs.iter().chain(outputs) {
            self.tensor(t);
        }
        for a in attrs {
            // SAFETY: stated by the caller.
            unsafe { self.attr(a) };
        }
    }

    /// # Safety
    /// A span attribute's address and length are valid.
    #[inline]
    unsafe fn attr(&mut self, a: &Attr) {
        self.push(u64::from(a.key) | u64::from(a.tag) << 32);
        if a.tag & 0xff == AttrTag::SPAN.0 {
            // SAFETY: stated by the caller.
            for &item in unsafe { slice(a.value as usize as *const i64, (a.tag >> 8) as usize) } {
                self.push(item as u64);
            }
        } else {
            self.push(a.value);
        }
    }

    /// Key of a BLAS call.
    #[inline]
    pub fn of_blas(d: &BlasDesc) -> Key {
        let mut key = Key::new();
        key.blas(d);
        key
    }

    /// As [`Key::op`].
    #[inline]
    pub(crate) fn blas(&mut self, d: &BlasDesc) {
        let dtype = |t: flagos_backend_api::DType| u64::from(t.code) | u64::from(t.bits) << 8;
        self.push(BLAS | u64::from(d.routine) | u64::from(d.order) << 32);
        self.push(u64::from(d.trans_a) | u64::from(d.trans_b) << 16 | u64::from(d.uplo) << 32 | u64::from(d.diag) << 48);
        self.push(u64::from(d.side) | dtype(d.dtype) << 16 | dtype(d.out_dtype) << 32 | dtype(d.compute_dtype) << 48);
        for n in [d.m, d.n, d.k, d.lda, d.ldb, d.ldc, d.incx, d.incy, d.batch, d.stride_a, d.stride_b, d.stride_c] {
            self.push(n as u64);
        }
    }

    /// Key of an FFT call.
    #[inline]
    pub fn of_fft(d: &FftDesc) -> Key {
        let mut key = Key::new();
        key.fft(d);
        key
    }

    /// As [`Key::op`].
    #[inline]
    pub(crate) fn fft(&mut self, d: &FftDesc) {
        self.push(FFT | u64::from(d.transform) | u64::from(d.direction) << 16 | u64::from(d.rank) << 32);
        self.push(u64::from(d.precision.code) | u64::from(d.precision.bits) << 8);
        for n in d.n.iter().chain(&d.in_embed).chain(&d.out_embed).chain(&[d.batch, d.in_stride, d.in_dist, d.out_stride, d.out_dist]) {
            self.push(*n as u64);
        }
        self.push(d.scale.to_bits());
    }
}

/// # Safety
/// `ptr` addresses `len` valid items, or `len` is 0.
#[inline]
unsafe fn slice<'a, T>(ptr: *const T, len: usize) -> &'a [T] {
    if len == 0 {
        return &[];
    }
    // SAFETY: stated by the caller.
    unsafe { core::slice::from_raw_parts(ptr, len) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flagos_backend_api::DType;

    fn key(shape: &[i64], attrs: &[Attr]) -> Vec<u64> {
        let (x, y) = (Tensor::contiguous(DType::F32, shape), Tensor::contiguous(DType::F32, shape));
        let op = Op {
            size: Op::SIZE,
            id: 7,
            revision: 1,
            n_in: 1,
            n_out: 1,
            n_attr: attrs.len() as u32,
            flags: 0,
            inputs: &x,
            outputs: &y,
            attrs: attrs.as_ptr(),
            next: core::ptr::null(),
        };
        // SAFETY: the descriptor was built from live values above.
        unsafe { Key::of_op(&op) }.words().to_vec()
    }

    #[test]
    fn keys_tell_shapes_attributes_and_list_values_apart_but_not_addresses() {
        let (a, b) = (vec![1i64, 2], vec![1i64, 2]);
        assert_eq!(key(&[2, 3], &[Attr::span(2, &a)]), key(&[2, 3], &[Attr::span(2, &b)]));
        assert_ne!(key(&[2, 3], &[Attr::span(2, &a)]), key(&[2, 3], &[Attr::span(2, &[1, 3])]));
        assert_ne!(key(&[2, 3], &[]), key(&[3, 2], &[]));
        assert_ne!(key(&[2, 3], &[Attr::i64(1, 0)]), key(&[2, 3], &[Attr::f64(1, 0.0)]));
    }

    #[test]
    fn long_keys_spill_and_stay_whole() {
        let long: Vec<i64> = (0..500).collect();
        let words = key(&[4], &[Attr::span(2, &long)]);
        assert_eq!(words.len(), 2 + 3 + 3 + 1 + 500);
        assert_eq!(&words[words.len() - 2..], &[498, 499]);
        assert_ne!(Key::hash(&words), Key::hash(&words[..words.len() - 1]));
    }
}
