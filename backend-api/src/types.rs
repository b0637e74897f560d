//! Value types that cross: text, data types, tensors, attributes, operators, bindings.

use crate::{abi_enum, abi_opaque, abi_struct};

abi_opaque! {
    /// An open device of a backend.
    Device = "flagos_device_t",
    /// A range of memory. Identity is (handle, byte offset, length), never a bare pointer.
    Buffer = "flagos_buffer_t",
    /// An in-order queue of work on one device.
    Stream = "flagos_stream_t",
    /// A 64-bit timeline: streams signal values on it and wait for values.
    Event = "flagos_event_t",
    /// Compiled code.
    Module = "flagos_module_t",
    /// One entry point of a module.
    Kernel = "flagos_kernel_t",
    /// A prepared operator, BLAS, FFT or collective call.
    Plan = "flagos_plan_t",
    /// A rank's membership in a group of ranks.
    Comm = "flagos_comm_t",
}

abi_struct! {
    /// UTF-8 text by pointer and length; not NUL-terminated. Borrowed: it lives as long as the object it was read from.
    Str = "flagos_str_t", kind 0 {
        /// First byte; may be NULL when `len` is 0.
        ptr: *const u8,
        /// Length in bytes.
        len: u64,
    }

    /// Element type, in DLPack's encoding: (code, bits, lanes). `lanes` is 1; packed types are not used.
    DType = "flagos_dtype_t", kind 0 {
        /// A `flagos_dtype_code_t` value.
        code: u8,
        /// Bits per element.
        bits: u8,
        /// Always 1.
        lanes: u16,
    }

    /// A strided tensor view. 168 bytes. Strides are in elements and may be 0 or, where the operator allows, negative.
    /// `buffer` belongs to the side that reads the descriptor: a backend's buffer in `flagos_backend.h`, the host's in `flagos.h`.
    Tensor = "flagos_tensor_t", kind 0 {
        /// `sizeof(flagos_tensor_t)`.
        size: u32,
        /// Element type.
        dtype: DType,
        /// Number of dimensions, 0 to 8.
        rank: u32,
        /// Reserved, 0: plain strided.
        layout: u16,
        /// Reserved, 0.
        flags: u16,
        /// Byte offset of element (0, …, 0) within `buffer`.
        byte_offset: u64,
        /// Memory; NULL in descriptors that only describe (query, plan).
        buffer: *mut Buffer,
        /// Extents; entries from `rank` on are 0.
        shape: [i64; 8],
        /// Element strides; entries from `rank` on are 0.
        stride: [i64; 8],
        /// Extension chain; NULL.
        next: *const core::ffi::c_void,
    }

    /// One attribute. 16 bytes. Attributes of an operator are sorted by key; absent ones take the catalogue's default.
    Attr = "flagos_attr_t", kind 0 {
        /// Key: the registry id of the attribute's name; bit 31 marks a hint, which may be ignored.
        key: u32,
        /// A `flagos_attr_tag_t` value in the low 8 bits; for spans, the number of 64-bit items in the upper 24.
        tag: u32,
        /// The value's bits: i64, f64, u64, or the address of a span of i64 borrowed for the call.
        value: u64,
    }

    /// A call of an operator. 56 bytes.
    Op = "flagos_op_t", kind 0 {
        /// `sizeof(flagos_op_t)`.
        size: u32,
        /// Registry id.
        id: u32,
        /// Revision of the operator's definition.
        revision: u32,
        /// Number of inputs.
        n_in: u16,
        /// Number of outputs.
        n_out: u16,
        /// Number of attributes.
        n_attr: u32,
        /// Reserved, 0.
        flags: u32,
        /// Inputs. An optional input that is absent has `dtype.code` = NONE.
        inputs: *const Tensor,
        /// Outputs, with dtype, shape and strides filled in by the caller.
        outputs: *const Tensor,
        /// Attributes, sorted by key.
        attrs: *const Attr,
        /// Extension chain; NULL.
        next: *const core::ffi::c_void,
    }

    /// Memory for one operand of a launch: offset of element (0, …, 0) in a buffer.
    Binding = "flagos_binding_t", kind 0 {
        /// Buffer of the plan's device; NULL only for absent optional inputs and operands without elements.
        buffer: *mut Buffer,
        /// Byte offset.
        byte_offset: u64,
    }
}

abi_enum! {
    /// Codes of `flagos_dtype_t`: DLPack's, and NONE for "no tensor".
    DTypeCode = "flagos_dtype_code_t", "FLAGOS_DTYPE_" {
        /// Signed integer.
        INT = 0,
        /// Unsigned integer.
        UINT = 1,
        /// IEEE 754 binary.
        FLOAT = 2,
        /// Opaque handle; not used.
        OPAQUE = 3,
        /// bfloat16.
        BFLOAT = 4,
        /// Complex: two floats of half the bits.
        COMPLEX = 5,
        /// Boolean, one byte, 0 or 1.
        BOOL = 6,
        /// 8-bit float, 4 exponent and 3 mantissa bits, finite only, with NaN.
        FLOAT8_E4M3FN = 10,
        /// 8-bit float, 5 exponent and 2 mantissa bits.
        FLOAT8_E5M2 = 12,
        /// No tensor.
        NONE = 255,
    }

    /// Tag of an attribute's value.
    AttrTag = "flagos_attr_tag_t", "FLAGOS_ATTR_" {
        /// Signed 64-bit integer; also booleans (0, 1) and enumerations.
        I64 = 1,
        /// IEEE double.
        F64 = 2,
        /// Unsigned 64-bit integer.
        U64 = 3,
        /// Address of a span of i64.
        SPAN = 4,
    }
}

/// Greatest tensor rank.
pub const MAX_RANK: usize = 8;
/// Flag in [`Attr::key`]: the attribute is a hint and may be ignored by who does not know it.
pub const ATTR_HINT: u32 = 1 << 31;

impl Str {
    /// Empty text.
    pub const EMPTY: Str = Str { ptr: core::ptr::null(), len: 0 };

    /// Text that lives as long as the program.
    pub const fn new(text: &'static str) -> Str {
        Str { ptr: text.as_ptr(), len: text.len() as u64 }
    }

    /// Text borrowed from `text`: the caller keeps it alive while the result may be read.
    pub const fn borrowed(text: &str) -> Str {
        Str { ptr: text.as_ptr(), len: text.len() as u64 }
    }

    /// Copies the text; invalid UTF-8 is replaced, a length over 1 MiB is cut.
    ///
    /// # Safety
    /// `ptr` must address `len` readable bytes, or `len` must be 0.
    pub unsafe fn to_owned_text(self) -> String {
        if self.ptr.is_null() || self.len == 0 {
            return String::new();
        }
        // SAFETY: the caller states that the range is readable.
        let bytes = unsafe { core::slice::from_raw_parts(self.ptr, self.len.min(1 << 20) as usize) };
        String::from_utf8_lossy(bytes).into_owned()
    }
}

macro_rules! dtypes {
    ($( $name:ident $text:literal = $code:ident $bits:literal ),* $(,)?) => {
        #[allow(missing_docs)]
        impl DType {
            $( pub const $name: DType = DType { code: DTypeCode::$code.0 as u8, bits: $bits, lanes: 1 }; )*
            /// Every element type of the catalogue.
            pub const ALL: &'static [DType] = &[$(DType::$name),*];
            /// Short name (`f32`, `bf16`, …), `none`, or `?` for an unknown one.
            pub fn name(self) -> &'static str {
                $( if self == DType::$name { return $text; } )*
                if self == DType::NONE { "none" } else { "?" }
            }
            /// The type of a short name.
            pub fn from_name(text: &str) -> Option<DType> {
                match text { $( $text => Some(DType::$name), )* _ => None }
            }
        }
    };
}
dtypes! {
    BOOL "bool" = BOOL 8, I8 "i8" = INT 8, I16 "i16" = INT 16, I32 "i32" = INT 32, I64 "i64" = INT 64,
    U8 "u8" = UINT 8, U16 "u16" = UINT 16, U32 "u32" = UINT 32, U64 "u64" = UINT 64,
    F16 "f16" = FLOAT 16, BF16 "bf16" = BFLOAT 16, F32 "f32" = FLOAT 32, F64 "f64" = FLOAT 64,
    C64 "c64" = COMPLEX 64, C128 "c128" = COMPLEX 128,
    F8E4M3 "f8e4m3" = FLOAT8_E4M3FN 8, F8E5M2 "f8e5m2" = FLOAT8_E5M2 8,
}

impl PartialEq for DType {
    fn eq(&self, other: &DType) -> bool {
        self.code == other.code && self.bits == other.bits && self.lanes == other.lanes
    }
}
impl Eq for DType {}
impl core::hash::Hash for DType {
    fn hash<H: core::hash::Hasher>(&self, state: &mut H) {
        u32::from_ne_bytes([self.code, self.bits, self.lanes as u8, (self.lanes >> 8) as u8]).hash(state);
    }
}
impl core::fmt::Debug for DType {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.name() {
            "?" => write!(f, "dtype(code {}, {} bits, {} lanes)", self.code, self.bits, self.lanes),
            name => f.write_str(name),
        }
    }
}
impl core::fmt::Display for DType {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        core::fmt::Debug::fmt(self, f)
    }
}

impl DType {
    /// "No tensor": marks an absent optional input.
    pub const NONE: DType = DType { code: DTypeCode::NONE.0 as u8, bits: 0, lanes: 0 };

    /// Bytes per element.
    pub const fn bytes(self) -> usize {
        self.bits as usize / 8
    }
    /// Real floating point of any width.
    pub const fn is_float(self) -> bool {
        matches!(self.code, 2 | 4 | 10 | 12)
    }
    /// Signed or unsigned integer; not bool.
    pub const fn is_int(self) -> bool {
        self.code <= 1
    }
    /// Signed integer.
    pub const fn is_signed_int(self) -> bool {
        self.code == 0
    }
    /// Complex.
    pub const fn is_complex(self) -> bool {
        self.code == 5
    }
    /// Boolean.
    pub const fn is_bool(self) -> bool {
        self.code == 6
    }
    /// Whether the catalogue knows this type.
    pub fn is_known(self) -> bool {
        Self::ALL.contains(&self)
    }
}

impl core::fmt::Debug for Tensor {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}{:?} strides {:?}", self.dtype, self.shape(), self.stride())
    }
}

impl Tensor {
    /// "No tensor", for absent optional inputs.
    pub const NONE: Tensor = Tensor {
        size: Tensor::SIZE,
        dtype: DType::NONE,
        rank: 0,
        layout: 0,
        flags: 0,
        byte_offset: 0,
        buffer: core::ptr::null_mut(),
        shape: [0; 8],
        stride: [0; 8],
        next: core::ptr::null(),
    };

    /// A row-major contiguous descriptor without memory. `shape.len()` is at most 8.
    pub fn contiguous(dtype: DType, shape: &[i64]) -> Tensor {
        let mut t = Tensor { dtype, rank: shape.len() as u32, ..Tensor::NONE };
        let mut step = 1i64;
        for d in (0..shape.len()).rev() {
            t.shape[d] = shape[d];
            t.stride[d] = step;
            step = step.saturating_mul(shape[d].max(1));
        }
        t
    }
    /// A strided descriptor without memory; `shape` and `stride` have equal length, at most 8.
    pub fn strided(dtype: DType, shape: &[i64], stride: &[i64]) -> Tensor {
        let mut t = Tensor::contiguous(dtype, shape);
        t.stride[..stride.len()].copy_from_slice(stride);
        t
    }
    /// Whether this stands for "no tensor".
    pub fn is_none(&self) -> bool {
        self.dtype == DType::NONE
    }
    /// Extents.
    pub fn shape(&self) -> &[i64] {
        &self.shape[..(self.rank as usize).min(8)]
    }
    /// Element strides.
    pub fn stride(&self) -> &[i64] {
        &self.stride[..(self.rank as usize).min(8)]
    }
    /// Number of elements; saturates.
    pub fn elems(&self) -> i64 {
        self.shape().iter().fold(1i64, |n, &d| n.saturating_mul(d))
    }
    /// Row-major contiguous (extents of 1 may have any stride; empty tensors are contiguous).
    pub fn is_contiguous(&self) -> bool {
        let mut step = 1i64;
        if self.shape().contains(&0) {
            return true;
        }
        for d in (0..self.rank as usize).rev() {
            if self.shape[d] != 1 && self.stride[d] != step {
                return false;
            }
            step = step.saturating_mul(self.shape[d]);
        }
        true
    }
    /// Lowest and one-past-highest element offset touched, relative to element (0, …, 0); (0, 0) when empty. `None` on overflow.
    pub fn extent(&self) -> Option<(i64, i64)> {
        let (mut low, mut high) = (0i64, 0i64);
        for (&n, &s) in self.shape().iter().zip(self.stride()) {
            if n == 0 {
                return Some((0, 0));
            }
            let reach = n.checked_sub(1)?.checked_mul(s)?;
            if reach < 0 { low = low.checked_add(reach)? } else { high = high.checked_add(reach)? }
        }
        Some((low, high.checked_add(1)?))
    }
}

impl Attr {
    /// An integer (or boolean, or enumeration) attribute.
    pub const fn i64(key: u32, value: i64) -> Attr {
        Attr { key, tag: AttrTag::I64.0, value: value as u64 }
    }
    /// A floating-point attribute.
    pub const fn f64(key: u32, value: f64) -> Attr {
        Attr { key, tag: AttrTag::F64.0, value: value.to_bits() }
    }
    /// A list of integers; `span` is borrowed for the call it is passed to.
    pub fn span(key: u32, span: &[i64]) -> Attr {
        Attr { key, tag: AttrTag::SPAN.0 | (span.len() as u32) << 8, value: span.as_ptr() as usize as u64 }
    }
}
