//! The clock, and the time zones of the IANA.

use crate::Timestamp;
use crate::imports::{time_zones, wall_clock};

/// The time of day: milliseconds since the Unix epoch, UTC. It may jump when the machine's clock is set.
pub fn now() -> Timestamp {
    let now = wall_clock::now();
    now.seconds.saturating_mul(1000).saturating_add(u64::from(now.nanoseconds / 1_000_000))
}

/// Offset from UTC in milliseconds, positive east of Greenwich, of a zone (`"Europe/Paris"`) at a moment. An unknown zone
/// is an error that names it.
pub fn offset_ms(zone: &str, at: Timestamp) -> Result<i32, String> {
    time_zones::offset_ms(zone, at)
}

/// A moment some time after `now`, spread evenly by up to `jitter_ms` to either side, so that what failed together does not
/// come back together. `random` is any number of [`random::u64`](crate::random::u64).
pub fn about(now: Timestamp, delay_ms: u64, jitter_ms: u64, random: u64) -> Timestamp {
    let spread = random % jitter_ms.saturating_mul(2).saturating_add(1);
    now.saturating_add(delay_ms).saturating_add(spread).saturating_sub(jitter_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_spread_to_both_sides_and_no_further() {
        assert_eq!(about(1_000, 30_000, 2_000, 0), 29_000);
        assert_eq!(about(1_000, 30_000, 2_000, 2_000), 31_000);
        assert_eq!(about(1_000, 30_000, 2_000, 4_000), 33_000);
        assert_eq!(about(1_000, 30_000, 2_000, 4_001), 29_000);
        assert_eq!(about(1_000, 30_000, 0, 7), 31_000);
        assert!(about(u64::MAX, 30_000, 2_000, u64::MAX) > 0);
    }
}
