//! The clock, and the IANA time zones.

use crate::Timestamp;
use crate::imports::{time_zones, wall_clock};

/// The current time in milliseconds since the Unix epoch, UTC. It may jump when the machine's clock is set.
pub fn now() -> Timestamp {
    let now = wall_clock::now();
    now.seconds.saturating_mul(1000).saturating_add(u64::from(now.nanoseconds / 1_000_000))
}

/// The offset from UTC in milliseconds, positive east of Greenwich, of a zone (`"Europe/Paris"`) at a time.
///
/// # Errors
/// If the zone is unknown.
pub fn offset_ms(zone: &str, at: Timestamp) -> Result<i32, String> {
    time_zones::offset_ms(zone, at)
}

/// The time `delay_ms` after `now`, plus or minus a jitter of up to `jitter_ms`, so that retries do not coincide. `random` is a number
/// from [`random::u64`](crate::random::u64).
pub fn about(now: Timestamp, delay_ms: u64, jitter_ms: u64, random: u64) -> Timestamp {
    let spread = random % jitter_ms.saturating_mul(2).saturating_add(1);
    now.saturating_add(delay_ms).saturating_add(spread).saturating_sub(jitter_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_spread_evenly_within_the_jitter() {
        assert_eq!(about(1_000, 30_000, 2_000, 0), 29_000);
        assert_eq!(about(1_000, 30_000, 2_000, 2_000), 31_000);
        assert_eq!(about(1_000, 30_000, 2_000, 4_000), 33_000);
        assert_eq!(about(1_000, 30_000, 2_000, 4_001), 29_000);
        assert_eq!(about(1_000, 30_000, 0, 7), 31_000);
        assert!(about(u64::MAX, 30_000, 2_000, u64::MAX) > 0);
    }
}
