//! One description per crossing struct: from it follow the Rust type, the C header, the size asserts and the layout hash.

/// Thread rule of a slot, printed in the header beside each function.
///
/// `FREE`: any thread at any time. `STREAM`: one thread at a time per stream (or per object given first).
/// `INIT`: the host serialises these calls per backend. `CALLBACK`: called by the backend into the host, from any thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Thread {
    /// Any thread at any time.
    Free,
    /// One thread at a time per first argument.
    Stream,
    /// Serialised by the host per backend.
    Init,
    /// Called by the backend into the host.
    Callback,
}

/// The C signature of a function-pointer field.
#[derive(Clone, Copy, Debug)]
pub struct Slot {
    /// Thread rule.
    pub thread: Thread,
    /// Arguments as (name, Rust type text).
    pub args: &'static [(&'static str, &'static str)],
    /// Rust type text of the result; empty for none.
    pub ret: &'static str,
}

/// One field of a crossing struct.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Field name, the same in Rust and C.
    pub name: &'static str,
    /// Rust type text; empty for a slot.
    pub ty: &'static str,
    /// Set for function pointers.
    pub slot: Option<Slot>,
    /// Offset in bytes.
    pub offset: usize,
    /// Size in bytes.
    pub size: usize,
    /// The ABI minor that appended the field.
    pub since: u32,
    /// Documentation lines.
    pub doc: &'static [&'static str],
}

/// One crossing struct.
#[derive(Clone, Copy, Debug)]
pub struct Struct {
    /// Rust name.
    pub name: &'static str,
    /// C name.
    pub c_name: &'static str,
    /// Value of its `kind` field; 0 for structs that have none.
    pub kind: u32,
    /// `size_of`.
    pub size: usize,
    /// Fields in memory order.
    pub fields: &'static [Field],
    /// Documentation lines.
    pub doc: &'static [&'static str],
}

impl Struct {
    /// Bytes this struct had at ABI minor `minor`: the end of its last field of that minor, rounded up to 8 where the struct is 8-aligned.
    pub const fn size_at(&self, minor: u32) -> usize {
        let mut end = 0;
        let mut i = 0;
        while i < self.fields.len() {
            let f = &self.fields[i];
            if f.since <= minor && f.offset + f.size > end {
                end = f.offset + f.size;
            }
            i += 1;
        }
        if self.size.is_multiple_of(8) { end.next_multiple_of(8) } else { end }
    }
}

/// One named constant of an enumeration.
#[derive(Clone, Copy, Debug)]
pub struct Variant {
    /// Name without prefix.
    pub name: &'static str,
    /// Value.
    pub value: u32,
    /// Documentation lines.
    pub doc: &'static [&'static str],
}

/// A `uint32_t` enumeration; values from 0x8000 on belong to vendors, unknown ones are tolerated.
#[derive(Clone, Copy, Debug)]
pub struct Enum {
    /// Rust name.
    pub name: &'static str,
    /// C typedef name.
    pub c_name: &'static str,
    /// Prefix of its C constants.
    pub prefix: &'static str,
    /// Constants.
    pub variants: &'static [Variant],
    /// Documentation lines.
    pub doc: &'static [&'static str],
}

/// An opaque handle type.
#[derive(Clone, Copy, Debug)]
pub struct Opaque {
    /// Rust name.
    pub name: &'static str,
    /// C name.
    pub c_name: &'static str,
    /// Documentation lines.
    pub doc: &'static [&'static str],
}

/// 128-bit layout digest as two words.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayoutHash {
    /// Low word.
    pub lo: u64,
    /// High word.
    pub hi: u64,
}

const fn mix(hash: u64, byte: u8) -> u64 {
    (hash ^ byte as u64).wrapping_mul(0x0000_0100_0000_01b3)
}

const fn mix_text(mut hash: u64, text: &str) -> u64 {
    let bytes = text.as_bytes();
    let mut i = 0;
    while i < bytes.len() {
        // Token spacing is the compiler's business: `stringify!` may change it, the layout does not.
        if bytes[i] != b' ' {
            hash = mix(hash, bytes[i]);
        }
        i += 1;
    }
    mix(hash, 0)
}

const fn mix_number(mut hash: u64, n: usize) -> u64 {
    let mut i = 0;
    while i < 8 {
        hash = mix(hash, (n >> (8 * i)) as u8);
        i += 1;
    }
    hash
}

const fn digest(structs: &[Struct], minor: u32, seed: u64) -> u64 {
    let mut h = mix_number(0xcbf2_9ce4_8422_2325, seed as usize);
    let mut s = 0;
    while s < structs.len() {
        h = mix_text(h, structs[s].c_name);
        let mut f = 0;
        while f < structs[s].fields.len() {
            let field = &structs[s].fields[f];
            if field.since <= minor {
                h = mix_text(h, field.name);
                h = mix_number(h, field.offset);
                h = mix_number(h, field.size);
                h = match &field.slot {
                    None => mix_text(h, field.ty),
                    Some(slot) => {
                        let mut a = 0;
                        let mut g = h;
                        while a < slot.args.len() {
                            g = mix_text(g, slot.args[a].1);
                            a += 1;
                        }
                        mix_text(g, slot.ret)
                    }
                };
            }
            f += 1;
        }
        s += 1;
    }
    h
}

/// FNV-1a (two seeds) over (struct, field, offset, size, type) of every field present at `minor`.
pub const fn layout_hash(structs: &[Struct], minor: u32) -> LayoutHash {
    LayoutHash { lo: digest(structs, minor, 1), hi: digest(structs, minor, 2) }
}

/// [`layout_hash`] of minors 0 to `N` - 1.
pub const fn layout_hashes<const N: usize>(structs: &[Struct]) -> [LayoutHash; N] {
    let mut hashes = [LayoutHash { lo: 0, hi: 0 }; N];
    let mut minor = 0;
    while minor < N {
        hashes[minor] = layout_hash(structs, minor as u32);
        minor += 1;
    }
    hashes
}

/// Declares crossing structs: emits the `#[repr(C)]` type and its [`Struct`] description.
///
/// A field is `name: Type` or `[Thread] fn slot(args) -> Ret`; `@N` before it states the minor that appended it.
#[macro_export]
macro_rules! abi_struct {
    ($( $(#[doc = $doc:literal])* $Name:ident = $c_name:literal, kind $kind:literal {
        $( $(#[doc = $fdoc:literal])* $(#[cfg(feature = $feature:literal)])? $(@ $since:literal)?
            $( $field:ident : $ty:ty )?
            $( [$thread:ident] fn $slot:ident ( $($arg:ident : $aty:ty),* $(,)? ) $(-> $ret:ty)? )?
        , )*
    } )*) => { $(
        $(#[doc = $doc])*
        #[repr(C)]
        #[derive(Clone, Copy)]
        pub struct $Name {
            $( $(#[doc = $fdoc])* $(#[cfg(feature = $feature)])?
                $( pub $slot: Option<unsafe extern "C" fn($($arg: $aty),*) $(-> $ret)?>, )?
                $( pub $field: $ty, )?
            )*
        }
        impl $Name {
            /// Value of the `kind` field (0: the struct has none).
            pub const KIND: u32 = $kind;
            /// Size in bytes, as written into `size`.
            pub const SIZE: u32 = ::core::mem::size_of::<Self>() as u32;
            /// Its description.
            pub const LAYOUT: $crate::layout::Struct = $crate::layout::Struct {
                name: stringify!($Name), c_name: $c_name, kind: $kind, size: ::core::mem::size_of::<Self>(),
                doc: &[$($doc),*],
                fields: &[ $(
                    $(#[cfg(feature = $feature)])?
                    $crate::layout::Field {
                        name: concat!($(stringify!($field))? $(stringify!($slot))?),
                        ty: concat!($(stringify!($ty))?),
                        offset: 0 $(+ ::core::mem::offset_of!($Name, $field))? $(+ ::core::mem::offset_of!($Name, $slot))?,
                        size: 0 $(+ $crate::layout::size_of_field(|s: &$Name| &s.$field))?
                            $(+ $crate::layout::size_of_field(|s: &$Name| &s.$slot))?,
                        since: 0 $(+ $since)?,
                        doc: &[$($fdoc),*],
                        slot: $crate::layout::first(&[$( $crate::layout::Slot {
                            thread: $crate::layout::Thread::$thread,
                            args: &[$((stringify!($arg), stringify!($aty))),*],
                            ret: concat!($(stringify!($ret))?),
                        } )?]),
                    },
                )* ],
            };
        }
    )* };
}

/// Declares `uint32_t` enumerations as transparent newtypes with named constants.
#[macro_export]
macro_rules! abi_enum {
    ($( $(#[doc = $doc:literal])* $Name:ident = $c_name:literal, $prefix:literal {
        $( $(#[doc = $vdoc:literal])* $variant:ident = $value:literal ),* $(,)?
    } )*) => { $(
        $(#[doc = $doc])*
        #[repr(transparent)]
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $Name(pub u32);
        #[allow(non_upper_case_globals, missing_docs)]
        impl $Name {
            $( $(#[doc = $vdoc])* pub const $variant: Self = Self($value); )*
            /// Its description.
            pub const ENUM: $crate::layout::Enum = $crate::layout::Enum {
                name: stringify!($Name), c_name: $c_name, prefix: $prefix, doc: &[$($doc),*],
                variants: &[ $( $crate::layout::Variant { name: stringify!($variant), value: $value, doc: &[$($vdoc),*] } ),* ],
            };
            /// The constant's name, or `None` for a value this build does not know.
            pub fn name(self) -> Option<&'static str> {
                Self::ENUM.variants.iter().find(|v| v.value == self.0).map(|v| v.name)
            }
        }
        impl ::core::fmt::Debug for $Name {
            fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                match self.name() { Some(n) => f.write_str(n), None => write!(f, "{}({:#x})", stringify!($Name), self.0) }
            }
        }
        impl ::core::fmt::Display for $Name {
            fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result { ::core::fmt::Debug::fmt(self, f) }
        }
    )* };
}

/// Declares opaque handle types; their first word points to their backend's [`BackendV1`](crate::BackendV1).
#[macro_export]
macro_rules! abi_opaque {
    ($( $(#[doc = $doc:literal])* $Name:ident = $c_name:literal ),* $(,)?) => { $(
        $(#[doc = $doc])*
        #[repr(C)]
        pub struct $Name { backend: *const $crate::BackendV1, _pin: ::core::marker::PhantomData<(*mut u8, ::core::marker::PhantomPinned)> }
        impl $Name {
            /// Its description.
            pub const OPAQUE: $crate::layout::Opaque = $crate::layout::Opaque { name: stringify!($Name), c_name: $c_name, doc: &[$($doc),*] };
        }
    )* };
}

/// The only slot of a list of at most one.
#[doc(hidden)]
pub const fn first(slots: &'static [Slot]) -> Option<Slot> {
    if slots.is_empty() { None } else { Some(slots[0]) }
}

/// Size of the field a projection names; usable in constants.
#[doc(hidden)]
pub const fn size_of_field<S, F>(_: fn(&S) -> &F) -> usize {
    core::mem::size_of::<F>()
}
