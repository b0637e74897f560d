//! The generator and the mutations of bytes.

/// SplitMix64 (Steele, Lea, Flood 2014).
#[derive(Clone)]
pub struct Random(u64);

/// Numbers that break arithmetic.
const EDGES: &[u64] = &[0, 1, 2, 7, 8, 9, 127, 255, 256, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, 1 << 32, i64::MAX as u64, i64::MIN as u64, u64::MAX];

impl Random {
    /// A generator of a seed.
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }
    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    /// A number below `n` (0 when n is 0).
    pub fn below(&mut self, n: usize) -> usize {
        if n == 0 { 0 } else { (self.bits() % n as u64) as usize }
    }
    /// True once in `n`.
    pub fn once_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
    /// An entry of a list that is not empty.
    pub fn pick<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len())]
    }
    /// A number that is small, an edge, near an edge, or anything.
    pub fn number(&mut self) -> u64 {
        match self.below(4) {
            0 => self.bits() % 16,
            1 => *self.pick(EDGES),
            2 => self.pick(EDGES).wrapping_add(self.bits() % 5).wrapping_sub(2),
            _ => self.bits(),
        }
    }
    /// Changes a text of bytes a little: flips, insertions, deletions, repetitions, parts of another text.
    pub fn mutate(&mut self, bytes: &mut Vec<u8>, other: &[u8]) {
        for _ in 0..1 + self.below(6) {
            let at = self.below(bytes.len() + 1);
            let end = (at + self.below(24)).min(bytes.len());
            match self.below(7) {
                0 if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
                1 if at < bytes.len() => bytes[at] = self.bits() as u8,
                2 => drop(bytes.drain(at..end)),
                3 => {
                    let copy = bytes[at..end].to_vec();
                    let to = self.below(bytes.len() + 1);
                    bytes.splice(to..to, copy);
                }
                4 => {
                    let from = self.below(other.len());
                    let to = (from + self.below(40)).min(other.len());
                    bytes.splice(at..end, other[from..to].iter().copied());
                }
                5 => {
                    let text = self.number().to_string();
                    bytes.splice(at..end, text.into_bytes());
                }
                _ => bytes.truncate(at),
            }
        }
    }
}
