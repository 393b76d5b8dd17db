//! The names of mail files.

use ace_plugin::Timestamp;

/// The most bytes of a user id in a file name. The uuid makes the name unique.
const USER_ID_BYTES_MAX: usize = 100;

/// `{user id}.{date}-{time}.{uuid}.html`, in UTC. A missing id is "None", as in edx-ace.
pub fn of(user_id: Option<&str>, now: Timestamp, uuid: &str) -> String {
    let user_id = user_id.map_or_else(|| "None".to_owned(), safe);
    format!("{user_id}.{}.{uuid}.html", date_time(now))
}

/// A name from the message, which must be inside the outbox folder.
pub fn relative(path: &str) -> Result<String, String> {
    let invalid = |why| Err(format!("{path:?} {why}; give a name relative to the outbox folder"));
    if path.starts_with(['/', '\\']) || path.get(1..2) == Some(":") {
        return invalid("is absolute");
    }
    if path.contains('\\') || path.chars().any(char::is_control) {
        return invalid("has a backslash or a control character");
    }
    if path.split('/').any(|part| matches!(part, "" | "." | "..")) {
        invalid("has \"..\", \".\" or an empty part")
    } else {
        Ok(path.to_owned())
    }
}

/// Replaces characters of an id that could leave the folder or hide the file.
fn safe(user_id: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '@' | '+');
    user_id.chars().take(USER_ID_BYTES_MAX).map(|c| if is_plain(c) { c } else { '_' }).collect()
}

/// `YYYYmmdd-HHMMSS`.
fn date_time(at: Timestamp) -> String {
    let (days, seconds) = (at / 86_400_000, at / 1000 % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}{month:02}{day:02}-{hour:02}{minute:02}{second:02}")
}

/// The date of a day since 1970-01-01. Counts from 0000-03-01, so that the leap day ends a year (Howard Hinnant's
/// `civil_from_days`).
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_user_time_and_message() {
        assert_eq!(of(Some("7"), 1_767_323_045_678, "u-1"), "7.20260102-030405.u-1.html");
        assert_eq!(of(None, 0, "u-1"), "None.19700101-000000.u-1.html");
        assert_eq!(of(Some("../a b"), 0, "u-1"), "___a_b.19700101-000000.u-1.html");
    }

    #[test]
    fn dates_handle_leap_years() {
        assert_eq!(date_time(951_782_400_000), "20000229-000000");
        assert_eq!(date_time(1_709_251_199_999), "20240229-235959");
        assert_eq!(date_time(4_107_542_400_000), "21000301-000000");
    }

    #[test]
    fn a_name_from_the_message_stays_in_the_folder() {
        assert_eq!(relative("a/b.html"), Ok("a/b.html".to_owned()));
        for path in ["/etc/x", "\\x", "C:\\x", "../x", "a/../x", "a//x", "a/", "./x", "a\nb"] {
            assert!(relative(path).is_err(), "{path:?}");
        }
    }
}
