//! Randomness as a value: the system's, or a seeded one for simulations.

use std::sync::{Arc, Mutex, PoisonError};

use rustls::crypto::SecureRandom;

/// A source of random bytes; clones share it.
#[derive(Clone, Debug)]
pub struct Entropy(Source);

#[derive(Clone, Debug)]
enum Source {
    System(&'static dyn SecureRandom),
    Seeded(Arc<Mutex<u64>>),
}

impl Entropy {
    /// The operating system's generator.
    pub fn system() -> Self {
        Self(Source::System(rustls::crypto::ring::default_provider().secure_random))
    }

    /// The same bytes for the same seed; for simulations and tests only.
    pub fn seeded(seed: u64) -> Self {
        Self(Source::Seeded(Arc::new(Mutex::new(seed))))
    }

    /// Fills the buffer.
    ///
    /// # Panics
    /// If the operating system has no randomness to give, which Linux rules out once it has started.
    pub fn fill(&self, buffer: &mut [u8]) {
        match &self.0 {
            Source::System(random) => random.fill(buffer).expect("the kernel's generator never fails after boot"),
            Source::Seeded(state) => {
                let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
                for chunk in buffer.chunks_mut(8) {
                    chunk.copy_from_slice(&split_mix(&mut state).to_le_bytes()[..chunk.len()]);
                }
            }
        }
    }

    /// A random (version 4) UUID in its text form.
    pub fn uuid(&self) -> String {
        let mut bytes = [0; 16];
        self.fill(&mut bytes);
        bytes[6] = (bytes[6] & 0x0f) | 0x40;
        bytes[8] = (bytes[8] & 0x3f) | 0x80;
        let mut text = String::with_capacity(36);
        for (position, byte) in bytes.iter().enumerate() {
            if matches!(position, 4 | 6 | 8 | 10) {
                text.push('-');
            }
            for digit in [byte >> 4, byte & 15] {
                text.push(char::from_digit(u32::from(digit), 16).expect("four bits are one hexadecimal digit"));
            }
        }
        text
    }
}

/// The generator of Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators", 2014.
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::Entropy;

    #[test]
    fn uuids_have_version_and_variant_and_differ() {
        let entropy = Entropy::seeded(7);
        let (one, two) = (entropy.uuid(), entropy.uuid());
        assert_ne!(one, two);
        assert_eq!(one.len(), 36);
        assert_eq!(&one[14..15], "4");
        assert!("89ab".contains(&one[19..20]));
    }

    #[test]
    fn a_seed_gives_the_same_bytes_again_and_the_system_does_not() {
        assert_eq!(Entropy::seeded(1).uuid(), Entropy::seeded(1).uuid());
        assert_ne!(Entropy::system().uuid(), Entropy::system().uuid());
    }
}
