//! The random generator every backend uses: Philox 4x32-10, and the mapping of its words to numbers.
//!
//! Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC 2011). An element's value depends on the seed, the offset
//! and its row-major index alone, so that any division of the work gives the same stream:
//!
//! | output | block of element i | words | uniform | normal |
//! |---|---|---|---|---|
//! | f16, bf16, f32 | offset + ⌊i/4⌋ | w[i mod 4] | [`unit24`] | pair (w[0], w[1]) or (w[2], w[3]) of i's half: [`open24`], [`unit24`] |
//! | f64 | offset + ⌊i/2⌋ | two | [`unit53`] of (w[0], w[1]) or (w[2], w[3]) | [`open53`] of (w[0], w[1]), [`unit53`] of (w[2], w[3]) |
//!
//! The normal pair (u1, u2) gives √(-2 ln u1)·cos 2πu2 to the element of even index and √(-2 ln u1)·sin 2πu2 to its odd neighbour
//! (Box, Muller 1958).

/// The ten-round function: four words from a counter of 128 bits and a key of 64.
#[inline(always)]
pub const fn philox(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let ([mut a, mut b, mut c, mut d], [mut k0, mut k1]) = (counter, key);
    let mut round = 0;
    while round < 10 {
        let (p, q) = (0xd251_1f53 * a as u64, 0xcd9e_8d57 * c as u64);
        (a, b, c, d) = ((q >> 32) as u32 ^ b ^ k0, q as u32, (p >> 32) as u32 ^ d ^ k1, p as u32);
        (k0, k1) = (k0.wrapping_add(0x9e37_79b9), k1.wrapping_add(0xbb67_ae85));
        round += 1;
    }
    [a, b, c, d]
}

/// Block `index` of a stream: key (seed's low word, high word), counter (low word, high word, 0, 0) of offset + index modulo 2^64.
#[inline(always)]
pub const fn block(seed: u64, offset: u64, index: u64) -> [u32; 4] {
    let at = offset.wrapping_add(index);
    philox([at as u32, (at >> 32) as u32, 0, 0], [seed as u32, (seed >> 32) as u32])
}

/// Uniform in [0, 1), a multiple of 2^-24: the word's upper 24 bits.
#[inline(always)]
pub const fn unit24(word: u32) -> f32 {
    (word >> 8) as f32 * (1.0 / (1 << 24) as f32)
}

/// Uniform in (0, 1], a multiple of 2^-24: [`unit24`] and one step; exact.
#[inline(always)]
pub const fn open24(word: u32) -> f32 {
    ((word >> 8) + 1) as f32 * (1.0 / (1 << 24) as f32)
}

/// Uniform in [0, 1), a multiple of 2^-53: 27 upper bits of the first word, then 26 of the second.
#[inline(always)]
pub const fn unit53(high: u32, low: u32) -> f64 {
    bits53(high, low) as f64 * (1.0 / (1u64 << 53) as f64)
}

/// Uniform in (0, 1], a multiple of 2^-53: [`unit53`] and one step; exact.
#[inline(always)]
pub const fn open53(high: u32, low: u32) -> f64 {
    (bits53(high, low) + 1) as f64 * (1.0 / (1u64 << 53) as f64)
}

const fn bits53(high: u32, low: u32) -> u64 {
    (high as u64 >> 5) << 26 | low as u64 >> 6
}

/// Uniform number of element `i` of an output of 32 bits or fewer.
pub const fn uniform24(seed: u64, offset: u64, i: u64) -> f32 {
    unit24(block(seed, offset, i / 4)[(i % 4) as usize])
}

/// Uniform number of element `i` of an f64 output.
pub const fn uniform53(seed: u64, offset: u64, i: u64) -> f64 {
    let (w, first) = (block(seed, offset, i / 2), (i % 2 * 2) as usize);
    unit53(w[first], w[first + 1])
}

/// The pair (u1, u2) of element `i`'s normal number, for an output of 32 bits or fewer; its neighbour `i ^ 1` has the same.
pub const fn pair24(seed: u64, offset: u64, i: u64) -> (f32, f32) {
    let (w, first) = (block(seed, offset, i / 4), (i & 2) as usize);
    (open24(w[first]), unit24(w[first + 1]))
}

/// The pair (u1, u2) of element `i`'s normal number, for an f64 output; its neighbour `i ^ 1` has the same.
pub const fn pair53(seed: u64, offset: u64, i: u64) -> (f64, f64) {
    let w = block(seed, offset, i / 2);
    (open53(w[0], w[1]), unit53(w[2], w[3]))
}

/// (r, z) of element `i` from its pair: r = √(-2 ln u1), z = r·cos 2πu2 for even `i`, r·sin 2πu2 for odd.
///
/// The angle is reduced to an eighth of a turn before π enters, exactly, so that z's error is a few 2^-53·r.
pub fn box_muller(u1: f64, u2: f64, i: u64) -> (f64, f64) {
    let r = (-2.0 * libm::log(u1)).sqrt();
    let quarter = (u2 * 4.0).round();
    let angle = (u2 - quarter / 4.0) * core::f64::consts::TAU;
    // sin is cos a quarter turn earlier.
    let turned = match (quarter as u64 + 3 * (i & 1)) % 4 {
        0 => libm::cos(angle),
        1 => -libm::sin(angle),
        2 => -libm::cos(angle),
        _ => libm::sin(angle),
    };
    (r, r * turned)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `kat_vectors` of Random123, philox4x32, 10 rounds.
    #[test]
    fn known_answers() {
        assert_eq!(philox([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(philox([u32::MAX; 4], [u32::MAX; 2]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        let pi = ([0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344], [0xa409_3822, 0x299f_31d0]);
        assert_eq!(philox(pi.0, pi.1), [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]);
    }

    #[test]
    fn words_go_where_the_table_says() {
        let w = philox([0, 1, 0, 0], [7, 9]);
        let (seed, offset) = (9 << 32 | 7, (1 << 32) - 5);
        for i in 0..4u64 {
            assert_eq!(uniform24(seed, offset, 20 + i), (w[i as usize] >> 8) as f32 / 16_777_216.0);
        }
        assert_eq!(uniform53(seed, offset, 11), (u64::from(w[2] >> 5) * (1 << 26) + u64::from(w[3] >> 6)) as f64 / 2f64.powi(53));
        assert_eq!(pair24(seed, offset, 23), (unit24(w[2]) + 2f32.powi(-24), unit24(w[3])));
        assert_eq!(pair53(seed, offset, 10), (unit53(w[0], w[1]) + 2f64.powi(-53), unit53(w[2], w[3])));
        // The counter wraps at 2^64 and does not reach the upper words.
        assert_eq!(block(3, u64::MAX, 1), philox([0; 4], [3, 0]));
    }

    #[test]
    fn ends_of_the_intervals() {
        assert_eq!((unit24(0), open24(u32::MAX), unit53(0, 0), open53(u32::MAX, u32::MAX)), (0.0, 1.0, 0.0, 1.0));
        assert!(unit24(u32::MAX) < 1.0 && open24(0) > 0.0 && unit53(u32::MAX, u32::MAX) < 1.0 && open53(0, 0) > 0.0);
    }

    #[test]
    fn normal_numbers_are_points_of_the_circle() {
        for step in 0..64 {
            let u2 = f64::from(step) / 64.0;
            let angle = u2 * core::f64::consts::TAU;
            let ((r, even), (_, odd)) = (box_muller(0.3, u2, 4), box_muller(0.3, u2, 5));
            assert!((even - r * angle.cos()).abs() < 1e-15 * 8.0 && (odd - r * angle.sin()).abs() < 1e-15 * 8.0, "{u2}");
        }
        let n = 20_000u64;
        let z: Vec<f64> = (0..n).map(|i| (pair24(1, 2, i), i)).map(|((a, b), i)| box_muller(a.into(), b.into(), i).1).collect();
        let moment = |p: i32| z.iter().map(|z| z.powi(p)).sum::<f64>() / n as f64;
        // Five deviations of each moment's estimate: √(1/n), √(2/n), √(15/n), √(96/n).
        for (p, want, spread) in [(1, 0.0, 1.0), (2, 1.0, 2.0), (3, 0.0, 15.0), (4, 3.0, 96.0f64)] {
            assert!((moment(p) - want).abs() < 5.0 * (spread / n as f64).sqrt(), "moment {p}: {}", moment(p));
        }
    }
}
