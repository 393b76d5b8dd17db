//! The IANA time-zone rules, from the database the host carries.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::plugin::runtime::bindings::time_zones::Host;
use crate::plugin::runtime::state::State;

impl Host for State {
    fn offset_ms(&mut self, zone: String, at: u64) -> wasmtime::Result<Result<i32, String>> {
        self.count_host_call()?;
        Ok(offset_ms(&zone, at))
    }
}

fn offset_ms(zone: &str, at: u64) -> Result<i32, String> {
    let rules = TimeZone::get(zone).map_err(|_| format!("there is no time zone {zone:?}"))?;
    let at = i64::try_from(at).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    let at = at.ok_or("the moment is too far away")?;
    Ok(rules.to_offset(at).seconds() * 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_follow_daylight_saving() {
        let winter = 1_767_225_600_000; // 2026-01-01T00:00:00Z
        let summer = 1_782_864_000_000; // 2026-07-01T00:00:00Z
        assert_eq!(offset_ms("Europe/Paris", winter), Ok(3_600_000));
        assert_eq!(offset_ms("Europe/Paris", summer), Ok(7_200_000));
        assert_eq!(offset_ms("Asia/Kolkata", summer), Ok(19_800_000));
        assert!(offset_ms("Mars/Olympus", winter).expect_err("no such zone").contains("Mars/Olympus"));
        assert!(offset_ms("Europe/Paris", u64::MAX).is_err());
    }
}
