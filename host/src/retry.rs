//! When a delivery is tried again: arithmetic only. Time and jitter are passed in.

use std::time::Duration;

use jiff::Timestamp;

use crate::config::Delivery;

/// What follows a recoverable error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    At(Timestamp),
    /// The next attempt would fall after the window.
    Expired,
}

/// A channel that keeps naming moments in the past is obeyed (at once) this often; then the host's own schedule applies.
const AT_ONCE_MAX: u32 = 3;

/// The moment after which a message is not delivered any more. The window opens at the first delivery attempt and is as
/// long as `expiration_delay`, or as the message says, but never longer than `max_expiration_delay` (edx-ace: 120 s, 300 s).
pub fn window_end(opened: Timestamp, expiration_time: Option<Timestamp>, settings: &Delivery) -> Timestamp {
    let cap = opened.saturating_add_duration(settings.max_expiration_delay);
    let own = expiration_time.unwrap_or_else(|| opened.saturating_add_duration(settings.expiration_delay));
    own.min(cap)
}

/// When to try again after attempt number `attempt` (from 1) failed. `suggested` is when the other side said to come back;
/// `jitter`, in 0..1, spreads the host's own schedule over a quarter of each pause.
pub fn next(
    now: Timestamp,
    attempt: u32,
    suggested: Option<Timestamp>,
    window_end: Timestamp,
    settings: &Delivery,
    jitter: f64,
) -> Next {
    let at = match suggested {
        Some(at) if at > now => at,
        Some(_) if attempt <= AT_ONCE_MAX => now,
        _ => now.saturating_add_duration(pause(attempt, settings, jitter)),
    };
    if at > window_end { Next::Expired } else { Next::At(at) }
}

/// The host's own pause after so many attempts: it doubles up to `max_retry_delay`.
pub fn pause(attempt: u32, settings: &Delivery, jitter: f64) -> Duration {
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
    use crate::config::Config;

    fn settings() -> Delivery {
        Delivery {
            retry_delay: Duration::from_secs(5),
            max_retry_delay: Duration::from_secs(60),
            expiration_delay: Duration::from_secs(120),
            max_expiration_delay: Duration::from_secs(300),
            ..Config::default().delivery
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("in range")
    }

    #[test]
    fn the_whole_schedule_of_a_message_that_never_gets_through() {
        let end = window_end(at(0), None, &settings());
        let mut now = at(0);
        let mut attempts = vec![0];
        while let Next::At(next) = next(now, attempts.len() as u32, None, end, &settings(), 0.0) {
            attempts.push(next.as_second());
            now = next;
        }
        assert_eq!(attempts, [0, 5, 15, 35, 75]);
    }

    #[test]
    fn the_window_is_the_messages_own_but_never_over_the_cap() {
        assert_eq!(window_end(at(0), None, &settings()), at(120));
        assert_eq!(window_end(at(0), Some(at(200)), &settings()), at(200));
        assert_eq!(window_end(at(0), Some(at(5000)), &settings()), at(300));
        assert_eq!(window_end(at(100), Some(at(50)), &settings()), at(50));
    }

    #[test]
    fn a_suggested_time_is_kept_and_one_in_the_past_means_now() {
        let next = |attempt, suggested| next(at(10), attempt, Some(at(suggested)), at(120), &settings(), 0.0);
        assert_eq!(next(1, 40), Next::At(at(40)));
        assert_eq!(next(1, 120), Next::At(at(120)));
        assert_eq!(next(1, 121), Next::Expired);
        assert_eq!(next(1, 3), Next::At(at(10)));
        assert_eq!(next(4, 3), Next::At(at(50)), "from the fourth time on, our own schedule");
    }

    #[test]
    fn jitter_takes_up_to_a_quarter_off() {
        assert_eq!(pause(1, &settings(), 1.0), Duration::from_millis(3750));
        assert_eq!(pause(99, &settings(), 0.0), Duration::from_secs(60));
    }
}
