//! Mutations of inputs, the same for the same seed.
//!
//! A dozen ways to damage an input as fuzzers do, for the short campaigns of ordinary tests. It sees no coverage; a
//! campaign that does is `scripts/fuzz`.

/// Longest result.
const LONGEST: usize = 64 << 10;
/// Numbers at which parsers err.
const EDGES: [u64; 8] = [0, 1, 0x7f, 0x80, 0xffff, 0x7fff_ffff, 0xffff_ffff, u64::MAX];

/// A source of mutations.
#[derive(Debug)]
pub struct Mutator {
    state: u64,
}

impl Mutator {
    /// Begins a sequence.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// Any number below `end`; 0 if there is none.
    pub fn below(&mut self, end: usize) -> usize {
        // splitmix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators).
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let number = usize::try_from((mixed ^ (mixed >> 31)) >> 1).unwrap_or(0);
        number.checked_rem(end).unwrap_or(0)
    }

    /// `input` with one to eight changes; some take parts of `other` or of `words`.
    pub fn mutate(&mut self, input: &[u8], other: &[u8], words: &[&str]) -> Vec<u8> {
        let mut data = input.to_vec();
        for _ in 0..=self.below(8) {
            self.change(&mut data, other, words);
            data.truncate(LONGEST);
        }
        data
    }

    fn change(&mut self, data: &mut Vec<u8>, other: &[u8], words: &[&str]) {
        let range = self.range(data.len());
        match self.below(9) {
            0 => self.each(data, |mutator, byte| byte ^ (1 << mutator.below(8))),
            1 => self.each(data, |mutator, _| mutator.byte()),
            2 => self.each(data, |mutator, byte| byte.wrapping_add([1, 255][mutator.below(2)])),
            3 => drop(data.drain(range)),
            4 => {
                let again = data[range].repeat(1 + self.below(3));
                self.insert(data, &again);
            }
            5 => {
                let part = &other[self.range(other.len())];
                self.insert(data, part);
            }
            6 if !words.is_empty() => {
                let word = words[self.below(words.len())].as_bytes();
                let replaced = self.below(2) * word.len();
                let end = data.len().min(range.start + replaced);
                data.splice(range.start..end, word.iter().copied());
            }
            7 => data.truncate(range.end),
            _ => {
                let edge = EDGES[self.below(EDGES.len())].to_le_bytes();
                let width = [1, 2, 4, 8][self.below(4)].min(data.len() - range.start);
                data[range.start..range.start + width].copy_from_slice(&edge[..width]);
            }
        }
    }

    fn each(&mut self, data: &mut [u8], change: impl Fn(&mut Self, u8) -> u8) {
        for _ in 0..=self.below(4) {
            let place = self.below(data.len());
            if let Some(byte) = data.get_mut(place) {
                *byte = change(self, *byte);
            }
        }
    }

    fn insert(&mut self, data: &mut Vec<u8>, part: &[u8]) {
        let place = self.below(data.len() + 1);
        data.splice(place..place, part.iter().copied());
    }

    /// Short ones more often than long ones.
    fn range(&mut self, length: usize) -> std::ops::Range<usize> {
        let start = self.below(length);
        let most = [4, 64, length][self.below(3)].min(length - start);
        start..start + self.below(most + 1)
    }

    fn byte(&mut self) -> u8 {
        self.below(256).to_le_bytes()[0]
    }
}
