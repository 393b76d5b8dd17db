//! Quiet hours: what can wait is delayed until the recipient's night is over.

use std::sync::LazyLock;

use ace_plugin::policy::{Policy, PolicyResult};
use ace_plugin::{Error, Message, Settings, Timestamp, time};

const MINUTE: i64 = 60_000;
const DAY: i64 = 24 * 60 * MINUTE;

static QUIET_HOURS: LazyLock<Result<QuietHours, Error>> = LazyLock::new(QuietHours::read);

struct QuietHoursPolicy;

ace_plugin::export_policy!(QuietHoursPolicy);

impl Policy for QuietHoursPolicy {
    fn enabled() -> Result<(), String> {
        Ok(quiet_hours().map(|_| ())?)
    }

    fn check(message: &Message) -> Result<PolicyResult, String> {
        let quiet = quiet_hours()?;
        if message.is_transactional() {
            return Ok(PolicyResult::pass());
        }
        let now = time::now();
        // The recipient's own zone where the message names one that exists.
        let own = message.context::<String>("/time_zone").ok().flatten();
        let own = own.and_then(|zone| Some((time::offset_ms(&zone, now).ok()?, zone)));
        let (offset, zone) = match own {
            Some(own) => own,
            None => (time::offset_ms(&quiet.zone, now)?, quiet.zone.clone()),
        };
        let local = now.cast_signed() + i64::from(offset);
        let Some(end) = quiet.end_of_quiet(local) else { return Ok(PolicyResult::pass()) };

        let not_before = moment(end, i64::from(offset), |at| time::offset_ms(&zone, at.cast_unsigned()))?;
        let reason = format!("quiet hours until {} in {zone}", clock(quiet.end));
        let delayed = quiet.channel_types.iter();
        Ok(delayed.fold(PolicyResult::pass(), |all, channel_type| all.delay(channel_type, not_before, &reason)))
    }
}

fn quiet_hours() -> Result<&'static QuietHours, Error> {
    QUIET_HOURS.as_ref().map_err(Clone::clone)
}

/// What the config says; the times are milliseconds since midnight.
struct QuietHours {
    start: i64,
    end: i64,
    zone: String,
    channel_types: Vec<String>,
}

impl QuietHours {
    fn read() -> Result<Self, Error> {
        let quiet = QuietHours {
            start: time_of_day("start")?,
            end: time_of_day("end")?,
            zone: Settings.text("time-zone").unwrap_or_default(),
            channel_types: channel_types("channel-types")?,
        };
        if quiet.start == quiet.end {
            return Err(refusal("end", "it is the same as \"start\": no hour would be quiet"));
        }
        time::offset_ms(&quiet.zone, 0).map_err(|e| refusal("time-zone", &e))?;
        Ok(quiet)
    }

    /// When they end by the zone's clocks, if they are on now; milliseconds since 1970 there.
    fn end_of_quiet(&self, local: i64) -> Option<i64> {
        let time = local.rem_euclid(DAY);
        let is_quiet = if self.start < self.end {
            self.start <= time && time < self.end
        } else {
            self.start <= time || time < self.end
        };
        is_quiet.then(|| local + (self.end - time).rem_euclid(DAY))
    }
}

fn refusal(key: &str, why: &str) -> Error {
    Error::new(format_args!("config key {key:?}"), why)
}

fn time_of_day(key: &str) -> Result<i64, Error> {
    let text = Settings.text(key).unwrap_or_default();
    parse_time(&text).ok_or_else(|| refusal(key, "it must be a time of day such as \"22:00\""))
}

fn parse_time(text: &str) -> Option<i64> {
    let [h1 @ b'0'..=b'9', h2 @ b'0'..=b'9', b':', m1 @ b'0'..=b'9', m2 @ b'0'..=b'9'] = text.as_bytes() else {
        return None;
    };
    let number = |tens: u8, ones: u8| i64::from(tens - b'0') * 10 + i64::from(ones - b'0');
    let (hour, minute) = (number(*h1, *h2), number(*m1, *m2));
    (hour < 24 && minute < 60).then_some((hour * 60 + minute) * MINUTE)
}

fn channel_types(key: &str) -> Result<Vec<String>, Error> {
    let is_type = |text: &String| {
        let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-';
        text == "*" || !text.is_empty() && text.chars().all(is_plain)
    };
    let types = Settings.get::<Vec<String>>(key).ok().flatten().filter(|t| !t.is_empty() && t.iter().all(is_type));
    types.ok_or_else(|| refusal(key, "it must be a list of channel types such as [\"push\", \"sms\"]"))
}

/// When the zone's clocks show a time. One that they skip comes as much later as they skip.
fn moment(local: i64, offset: i64, offset_at: impl Fn(i64) -> Result<i32, String>) -> Result<Timestamp, String> {
    let guess = local - offset;
    let then = offset_at(guess)?;
    let better = local - i64::from(then);
    let moment = if offset_at(better)? == then { better } else { guess };
    Ok(moment.cast_unsigned())
}

fn clock(time: i64) -> String {
    format!("{:02}:{:02}", time / MINUTE / 60, time / MINUTE % 60)
}

#[cfg(test)]
mod tests {
    use ace_plugin::testing::Table;
    use serde_json::{Value, json};

    use super::*;

    /// The table that every language answers alike, asked natively.
    #[test]
    fn the_table_of_all_languages() {
        let groups: Vec<Value> = serde_json::from_str(include_str!("../../../quiet_hours.cases.json")).expect("JSON");
        let table = Table::of_cases("quiet_hours", include_str!("../quiet_hours.toml"), groups.iter().flat_map(cases));
        table.policy::<QuietHoursPolicy>(concat!(module_path!(), "::the_table_of_all_languages"));
    }

    /// What a group of the table comes to: one refusal, or a case for each moment.
    fn cases(group: &Value) -> Vec<Value> {
        let case = |case: &Value, expect: Value| {
            let fields = |name: &str| case.get(name).cloned().unwrap_or(json!({}));
            let message =
                json!({"app_label": "app", "name": "note", "options": fields("options"), "context": fields("context")});
            json!({"name": format!("{} {case}", group["config"]), "message": message, "config": group["config"],
                "now": case.get("now"), "expect": expect})
        };
        if let Some(why) = group.get("refused").and_then(Value::as_str) {
            return vec![case(&json!({}), json!({"refused": format!("it says it cannot work: {why}")}))];
        }
        let list = |of: &Value| of.as_array().cloned().unwrap_or_default();
        let expect = |one: &Value| match one.get("until") {
            None => json!("pass"),
            Some(until) => {
                let delay = |of: &Value| json!({"channel_type": of, "not_before": until, "reason": one["reason"]});
                json!({"delay": list(&group["channel-types"]).iter().map(delay).collect::<Vec<_>>()})
            }
        };
        list(&group["cases"]).iter().map(|one| case(one, expect(one))).collect()
    }

    const HOUR: i64 = 60 * MINUTE;

    #[test]
    fn a_time_of_day_has_one_form() {
        assert_eq!(parse_time("22:05"), Some(22 * HOUR + 5 * MINUTE));
        for text in ["", "24:00", "7:00", "07:60", "07:00:00", "+7:00"] {
            assert_eq!(parse_time(text), None, "{text}");
        }
    }

    /// Clocks that go from 2 to 3 at hour 10.
    #[test]
    fn a_time_that_is_skipped_comes_later() {
        let offset_at = |at| Ok(if at < 10 * HOUR { -8 * HOUR as i32 } else { -7 * HOUR as i32 });
        let at = |local| moment(local, -8 * HOUR, offset_at).map(|at| at as i64);
        assert_eq!(at(HOUR), Ok(9 * HOUR));
        assert_eq!(at(2 * HOUR + 30 * MINUTE), Ok(10 * HOUR + 30 * MINUTE));
        assert_eq!(at(4 * HOUR), Ok(11 * HOUR));
    }
}
