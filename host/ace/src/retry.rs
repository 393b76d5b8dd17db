//! The schedule of retries. Time and jitter are passed in.

use std::time::Duration;

use jiff::Timestamp;

use crate::config::Delivery;

/// What happens after a recoverable error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    At(Timestamp),
    /// The next attempt would be after the delivery window.
    Expired,
}

/// A channel that suggests times in the past is retried immediately this often. Then the host's schedule applies.
const IMMEDIATE_MAX: u32 = 3;

/// The end of the delivery window. The window opens at the first delivery attempt and ends after [`Delivery::window`] or at the
/// message's expiration time, but never later than after [`Delivery::max_window`] (edx-ace: 120 s, 300 s).
pub(crate) fn window_end(
    opened: Timestamp,
    expiration_time: Option<Timestamp>,
    is_transactional: bool,
    settings: &Delivery,
) -> Timestamp {
    let cap = opened.saturating_add_duration(settings.max_window(is_transactional));
    let end = expiration_time.unwrap_or_else(|| opened.saturating_add_duration(settings.window(is_transactional)));
    end.min(cap)
}

/// The end of waiting for a relay or an origin that is down: the message's expiration time, or [`Delivery::max_age`] after it was
/// accepted.
pub(crate) fn waiting_end(
    accepted: Timestamp,
    expiration_time: Option<Timestamp>,
    is_transactional: bool,
    settings: &Delivery,
) -> Timestamp {
    match settings.max_age(is_transactional) {
        Some(max_age) => {
            let end = accepted.saturating_add_duration(max_age);
            expiration_time.map_or(end, |expiration| expiration.min(end))
        }
        None => window_end(accepted, expiration_time, is_transactional, settings),
    }
}

/// The next attempt after attempt `attempt` (starting at 1) failed. `suggested` is the time that the provider suggests. `jitter`, in
/// 0..1, shortens each pause of the host's schedule by up to a quarter.
pub(crate) fn next(
    now: Timestamp,
    attempt: u32,
    suggested: Option<Timestamp>,
    window_end: Timestamp,
    settings: &Delivery,
    jitter: f64,
) -> Next {
    let at = match suggested {
        Some(at) if at > now => at,
        Some(_) if attempt <= IMMEDIATE_MAX => now,
        _ => now.saturating_add_duration(pause(attempt, settings, jitter)),
    };
    if at > window_end { Next::Expired } else { Next::At(at) }
}

/// The pause of the host's schedule after an attempt. It doubles up to `max_retry_delay`.
pub(crate) fn pause(attempt: u32, settings: &Delivery, jitter: f64) -> Duration {
    let doubled = settings.retry_delay.saturating_mul(1 << attempt.saturating_sub(1).min(20));
    doubled.min(settings.max_retry_delay).mul_f64(1.0 - 0.25 * jitter.clamp(0.0, 1.0))
}

trait SaturatingAdd {
    fn saturating_add_duration(self, duration: Duration) -> Timestamp;
}

impl SaturatingAdd for Timestamp {
    fn saturating_add_duration(self, duration: Duration) -> Timestamp {
        self.checked_add(duration).unwrap_or(Timestamp::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Defaults};

    fn settings() -> Delivery {
        Delivery {
            retry_delay: Duration::from_secs(5),
            max_retry_delay: Duration::from_secs(60),
            ..Config::default().delivery
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("in range")
    }

    #[test]
    fn the_schedule_of_a_message_that_always_fails() {
        let end = window_end(at(0), None, false, &settings());
        let mut now = at(0);
        let mut attempts = vec![0];
        while let Next::At(next) = next(now, attempts.len() as u32, None, end, &settings(), 0.0) {
            attempts.push(next.as_second());
            now = next;
        }
        assert_eq!(attempts, [0, 5, 15, 35, 75]);
    }

    #[test]
    fn the_window_ends_at_the_expiration_time_but_not_after_the_cap() {
        assert_eq!(window_end(at(0), None, false, &settings()), at(120));
        assert_eq!(window_end(at(0), Some(at(200)), false, &settings()), at(200));
        assert_eq!(window_end(at(0), Some(at(5000)), true, &settings()), at(300));
        assert_eq!(window_end(at(100), Some(at(50)), false, &settings()), at(50));
    }

    #[test]
    fn a_server_retries_for_hours_or_days_unless_it_is_configured() {
        let (minute, hour) = (60, 3_600);
        let serving = Delivery { defaults: Defaults::Serve, ..settings() };
        assert_eq!(window_end(at(0), None, true, &serving), at(4 * hour));
        assert_eq!(window_end(at(0), None, false, &serving), at(48 * hour));
        assert_eq!(window_end(at(0), Some(at(99 * hour)), false, &serving), at(48 * hour), "the maximum rises with it");
        assert_eq!(window_end(at(0), Some(at(minute)), false, &serving), at(minute), "its expiration time applies");
        for defaults in [Defaults::Send, Defaults::Serve] {
            let window = Some(Duration::from_secs(600));
            let explicit = Delivery { expiration_delay: window, defaults, ..settings() };
            assert_eq!(window_end(at(0), None, true, &explicit), at(600), "{defaults:?}");
            let capped = Delivery { max_expiration_delay: Some(Duration::from_secs(60)), defaults, ..settings() };
            assert_eq!(window_end(at(0), None, false, &capped), at(60), "{defaults:?}");
        }
    }

    #[test]
    fn waiting_for_a_relay_that_is_down_depends_on_the_time_of_acceptance() {
        let hour = 3_600;
        let serving = Delivery { defaults: Defaults::Serve, ..settings() };
        assert_eq!(waiting_end(at(0), None, true, &serving), at(24 * hour));
        assert_eq!(waiting_end(at(0), None, false, &serving), at(120 * hour));
        assert_eq!(waiting_end(at(0), Some(at(hour)), false, &serving), at(hour), "its expiration time applies");
        assert_eq!(waiting_end(at(0), None, true, &settings()), at(120), "edx-ace's window if a caller waits");
        let explicit = Delivery { max_age: Some(Duration::from_secs(7)), ..settings() };
        assert_eq!(waiting_end(at(0), Some(at(99)), true, &explicit), at(7));
    }

    #[test]
    fn a_suggested_time_is_used_and_one_in_the_past_means_now() {
        let next = |attempt, suggested| next(at(10), attempt, Some(at(suggested)), at(120), &settings(), 0.0);
        assert_eq!(next(1, 40), Next::At(at(40)));
        assert_eq!(next(1, 120), Next::At(at(120)));
        assert_eq!(next(1, 121), Next::Expired);
        assert_eq!(next(1, 3), Next::At(at(10)));
        assert_eq!(next(4, 3), Next::At(at(50)), "from the fourth time on, the host's schedule");
    }

    #[test]
    fn jitter_shortens_a_pause_by_up_to_a_quarter() {
        assert_eq!(pause(1, &settings(), 1.0), Duration::from_millis(3750));
        assert_eq!(pause(99, &settings(), 0.0), Duration::from_secs(60));
    }
}
