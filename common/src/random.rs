//! Randomness, for shells: names of streams, tokens, nonces, the seeds of machines. It comes from the kernel, by way of ring.

use ring::rand::{SecureRandom, SystemRandom};

/// Bytes that nobody can guess.
///
/// # Panics
/// The kernel has no randomness to give, which it says only where its `getrandom` is forbidden: nothing here could be trusted then.
#[must_use]
pub fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    if SystemRandom::new().fill(&mut bytes).is_err() {
        unreachable!("the kernel gives no random bytes");
    }
    bytes
}

#[cfg(test)]
mod tests {
    #[test]
    fn random_bytes_differ() {
        assert_ne!(super::bytes::<16>(), super::bytes::<16>());
    }
}
