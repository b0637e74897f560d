//! Moving a two-dimensional block of elements between any two layouts: rows, fills, transposes, gathers.

/// A block's address and byte strides.
#[derive(Clone, Copy)]
pub struct Place {
    /// First element.
    pub at: *mut u8,
    /// From row to row.
    pub row: isize,
    /// From column to column.
    pub col: isize,
}

impl Place {
    /// A dense block of `cols` elements of `width` bytes a row.
    pub fn dense(at: *mut u8, cols: usize, width: usize) -> Place {
        Place { at, row: (cols * width) as isize, col: width as isize }
    }
}

/// Copies `rows` × `cols` elements of `width` bytes (1, 2, 4 or 8).
///
/// # Safety
/// Every element of `from` is readable and every one of `to` writable; the two do not overlap.
pub unsafe fn transfer(width: usize, from: Place, to: Place, rows: usize, cols: usize) {
    // SAFETY: passed on.
    unsafe {
        match width {
            1 => moved::<u8>(from, to, rows, cols),
            2 => moved::<u16>(from, to, rows, cols),
            4 => moved::<u32>(from, to, rows, cols),
            _ => moved::<u64>(from, to, rows, cols),
        }
    }
}

/// Side of the square a transpose goes through.
const SIDE: usize = 16;

/// # Safety
/// As [`transfer`].
unsafe fn moved<T: Copy + Default>(from: Place, to: Place, rows: usize, cols: usize) {
    let width = size_of::<T>() as isize;
    let source = |r: usize, c: usize| from.at.wrapping_offset(r as isize * from.row + c as isize * from.col).cast::<T>();
    let target = |r: usize, c: usize| to.at.wrapping_offset(r as isize * to.row + c as isize * to.col).cast::<T>();
    // SAFETY: all addresses are of elements of the block.
    unsafe {
        if from.col == width && to.col == width {
            if from.row == cols as isize * width && to.row == from.row {
                return core::ptr::copy_nonoverlapping(from.at, to.at, rows * cols * size_of::<T>());
            }
            for r in 0..rows {
                core::ptr::copy_nonoverlapping(source(r, 0).cast::<u8>(), target(r, 0).cast::<u8>(), cols * size_of::<T>());
            }
        } else if from.col == 0 && to.col == width {
            for r in 0..rows {
                let value = source(r, 0).read_unaligned();
                let row = target(r, 0);
                (0..cols).for_each(|c| row.add(c).write_unaligned(value));
            }
        } else if from.row == width && to.col == width && rows > 1 {
            for r0 in (0..rows).step_by(SIDE) {
                for c0 in (0..cols).step_by(SIDE) {
                    let (h, w) = (SIDE.min(rows - r0), SIDE.min(cols - c0));
                    if h == SIDE && w == SIDE {
                        square::<T>(source(r0, c0), from.col, target(r0, c0), to.row);
                    } else {
                        (0..h).for_each(|r| (0..w).for_each(|c| target(r0 + r, c0 + c).write_unaligned(source(r0 + r, c0 + c).read_unaligned())));
                    }
                }
            }
        } else if from.col == width && to.row == width && rows > 1 {
            // The same with the two dimensions exchanged.
            let turned = |p: Place| Place { at: p.at, row: p.col, col: p.row };
            moved::<T>(turned(from), turned(to), cols, rows);
        } else if to.col == width {
            for r in 0..rows {
                let row = target(r, 0);
                (0..cols).for_each(|c| row.add(c).write_unaligned(source(r, c).read_unaligned()));
            }
        } else {
            for r in 0..rows {
                (0..cols).for_each(|c| target(r, c).write_unaligned(source(r, c).read_unaligned()));
            }
        }
    }
}

/// Transposes a `SIDE` × `SIDE` square whose source columns and target rows are dense.
///
/// # Safety
/// As [`transfer`].
unsafe fn square<T: Copy + Default>(from: *mut T, from_col: isize, to: *mut T, to_row: isize) {
    // SAFETY: all addresses are of elements of the square.
    unsafe {
        let mut lines = [[T::default(); SIDE]; SIDE];
        for (c, line) in lines.iter_mut().enumerate() {
            *line = from.wrapping_byte_offset(c as isize * from_col).cast::<[T; SIDE]>().read_unaligned();
        }
        (0..SIDE).for_each(|r| {
            let row: [T; SIDE] = core::array::from_fn(|c| lines[c][r]);
            to.wrapping_byte_offset(r as isize * to_row).cast::<[T; SIDE]>().write_unaligned(row);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_layouts_agree_with_a_plain_loop() {
        let (rows, cols) = (37usize, 50usize);
        for width in [1usize, 2, 4, 8] {
            let w = width as isize;
            let layouts = [(cols as isize * w, w), (w, rows as isize * w), (3 * cols as isize * w, 2 * w), (200 * w, w), (w, 60 * w)];
            for (fr, fc) in layouts.into_iter().chain([(w, 0), (0, w), (0, 0), (-(cols as isize) * w, w), (cols as isize * w, -w)]) {
                for (tr, tc) in layouts {
                    let size = 64 * 300 * width;
                    let mut source: Vec<u8> = (0..size).map(|i| (i * 7 + i / 251) as u8).collect();
                    let (mut got, mut want) = (vec![0u8; size], vec![0u8; size]);
                    let origin = if fr < 0 { (rows - 1) * cols * width } else if fc < 0 { (cols - 1) * width } else { 0 };
                    for r in 0..rows as isize {
                        for c in 0..cols as isize {
                            let (a, b) = (origin.wrapping_add_signed(r * fr + c * fc), (r * tr + c * tc) as usize);
                            want[b..b + width].copy_from_slice(&source[a..a + width]);
                        }
                    }
                    // SAFETY: the layouts stay inside of the arrays, as the loop above shows.
                    unsafe {
                        let from = Place { at: source.as_mut_ptr().add(origin), row: fr, col: fc };
                        transfer(width, from, Place { at: got.as_mut_ptr(), row: tr, col: tc }, rows, cols);
                    }
                    assert!(got == want, "width {width}: {fr} {fc} → {tr} {tc}");
                }
            }
        }
    }
}
