//! Tests of negotiation against hosts of other minors, which no library of today can show.

use super::*;

/// An entry table that is whole but for its tables.
fn entry() -> BackendV1 {
    // SAFETY: all-zero bytes are a valid table.
    let mut b: BackendV1 = unsafe { core::mem::zeroed() };
    (b.size, b.kind) = (BackendV1::SIZE, BackendV1::KIND);
    (b.name, b.layout_hash) = (Str::new("test"), abi::LAYOUT_HASHES[0]);
    b
}

fn refusal(b: &BackendV1, served: Served) -> String {
    // SAFETY: `b` outlives the call, and its tables are NULL.
    unsafe { check(b, served, None) }
        .err()
        .map(|(_, what)| what)
        .unwrap_or_default()
}

const SERVES_1_TO_2: Served = Served {
    minor: 2,
    oldest: 1,
    hashes: &[
        LayoutHash { lo: 1, hi: 1 },
        LayoutHash { lo: 2, hi: 2 },
        LayoutHash { lo: 3, hi: 3 },
    ],
};

#[test]
fn a_backend_older_than_the_oldest_minor_is_told_so() {
    let text = refusal(&entry(), SERVES_1_TO_2);
    assert!(
        text.contains("too old")
            && text.contains("1.1 to 1.2")
            && text.contains("update the backend"),
        "{text}"
    );
}

#[test]
fn each_served_minor_is_held_to_its_own_hash() {
    let mut b = entry();
    (b.abi_minor_built, b.layout_hash) = (1, LayoutHash { lo: 2, hi: 2 });
    assert!(
        refusal(&b, SERVES_1_TO_2).contains("lacks probe"),
        "the hash fits, so the next check speaks"
    );
    b.layout_hash = LayoutHash { lo: 3, hi: 3 };
    assert!(refusal(&b, SERVES_1_TO_2).contains("layout hash"));
}

#[test]
fn a_newer_backend_is_taken_at_its_word_about_what_it_needs() {
    let mut b = entry();
    (b.abi_minor_built, b.abi_minor_needed, b.layout_hash) = (7, 7, LayoutHash { lo: 9, hi: 9 });
    assert!(refusal(&b, Served::CURRENT).contains("too new"));
    b.abi_minor_needed = 0;
    assert!(
        refusal(&b, Served::CURRENT).contains("lacks probe"),
        "its hash cannot be known"
    );
    (b.abi_minor_built, b.abi_minor_needed) = (0, 1);
    assert!(refusal(&b, Served::CURRENT).contains("needed is at most built"));
}

/// A table with a field that minor 1 appended.
#[repr(C)]
#[derive(Clone, Copy)]
struct Grown {
    size: u32,
    kind: u32,
    first: u64,
    appended: u64,
}
const fn field(name: &'static str, offset: usize, size: usize, since: u32) -> abi::layout::Field {
    abi::layout::Field {
        name,
        ty: "u64",
        slot: None,
        offset,
        size,
        since,
        doc: &[],
    }
}
// SAFETY: integers only, no padding, `size` and `kind` first.
unsafe impl Table for Grown {
    const LAYOUT: Struct = Struct {
        name: "Grown",
        c_name: "grown_t",
        kind: 0x77,
        size: size_of::<Grown>(),
        doc: &[],
        fields: &[
            field("size", 0, 4, 0),
            field("kind", 4, 4, 0),
            field("first", 8, 8, 0),
            field("appended", 16, 8, 1),
        ],
    };
}

#[test]
fn tables_of_an_older_minor_are_widened_with_zeros() {
    // The 8 bytes behind the old table are another object: they must not be read.
    let memory = [Grown {
        size: 16,
        kind: 0x77,
        first: 5,
        appended: u64::MAX,
    }];
    // SAFETY: the array holds more than `size` bytes.
    let wide = unsafe { widen("grown", memory.as_ptr(), 0) }.unwrap();
    assert_eq!((wide.first, wide.appended), (5, 0));
    // SAFETY: as above.
    let (_, what) = unsafe { widen("grown", memory.as_ptr(), 1) }.err().unwrap();
    assert!(
        what.contains("size 16") && what.contains("needs 24"),
        "{what}"
    );
}

#[test]
fn tables_of_a_newer_minor_are_cut() {
    let memory = [[40u32, 0x77], [5, 0], [6, 0], [7, 7], [8, 8]];
    #[repr(C, align(8))]
    struct Aligned([[u32; 2]; 5]);
    let memory = Aligned(memory);
    // SAFETY: 40 aligned bytes.
    let cut = unsafe { widen::<Grown>("grown", memory.0.as_ptr().cast(), 1) }.unwrap();
    assert_eq!((cut.first, cut.appended), (5, 6));
}

#[test]
fn text_is_bounded_and_utf8() {
    let bad = |s| text("vendor", s, 8).unwrap_err().1;
    assert!(
        bad(Str {
            ptr: core::ptr::null(),
            len: 3
        })
        .contains("NULL")
    );
    assert!(
        bad(Str {
            ptr: core::ptr::null(),
            len: 9
        })
        .contains("at most 8")
    );
    assert!(
        bad(Str {
            ptr: b"a\xff".as_ptr(),
            len: 2
        })
        .contains("UTF-8 (byte 1)")
    );
    assert_eq!(text("vendor", Str::new("ok"), 8).unwrap(), "ok");
}

#[test]
fn every_required_slot_exists_in_the_contract() {
    let known = |table: &str, slot: &str| {
        abi::STRUCTS.iter().any(|s| {
            s.name == table
                && s.fields
                    .iter()
                    .any(|f| f.name == slot && f.size == 8 && f.since == 0)
        })
    };
    for (table, slots) in REQUIRED {
        assert!(slots.iter().all(|s| known(table, s)), "{table}");
    }
    for (table, a, b) in PAIRS {
        assert!(known(table, a) && known(table, b), "{table}");
    }
}

/// What the contract's documentation says may be NULL must not be required here, and the other way round.
#[test]
fn required_slots_agree_with_the_documentation() {
    for s in abi::STRUCTS.iter().filter(|s| {
        s.fields.iter().any(|f| f.slot.is_some()) && s.name != "HostV1" && s.name != "Status"
    }) {
        let required = REQUIRED
            .iter()
            .find(|(name, _)| *name == s.name)
            .map_or(&[][..], |(_, slots)| slots);
        for f in s.fields.iter().filter(|f| f.slot.is_some()) {
            let may_be_null = f.doc.iter().any(|line| line.contains("NULL slot"));
            assert!(
                !(may_be_null && required.contains(&f.name)),
                "{}.{} is documented as optional",
                s.name,
                f.name
            );
        }
    }
}
