//! Cryptographically secure random numbers.

use crate::imports::random;

/// Random bytes.
pub fn bytes(count: u64) -> Vec<u8> {
    random::get_random_bytes(count)
}

/// A random number.
pub fn u64() -> u64 {
    random::get_random_u64()
}
