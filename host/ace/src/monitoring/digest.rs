//! Aggregates failures in the log: at most one line a minute for each reason and source. Time is passed in.

use std::collections::BTreeMap;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use uuid::Uuid;

/// The shortest time between two lines about a reason.
const MINUTE: Duration = Duration::from_secs(60);
/// The most distinct reasons. Further ones are counted together.
const REASONS_MAX: usize = 256;
/// The words of a text that identify its reason.
const WORDS_MAX: usize = 12;

/// A failure to log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure<'a> {
    /// The channel, plugin or policy that failed.
    pub source: &'a str,
    /// The kind of failure, from a short list.
    pub kind: &'static str,
    /// The affected message.
    pub message: Option<Uuid>,
    /// The text for the log. It must not contain data of a message's context.
    pub text: &'a str,
}

/// A line for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The channel, plugin or policy that failed.
    pub source: String,
    /// The kind of failure.
    pub kind: &'static str,
    /// The number of failures since the last line about this reason.
    pub count: u64,
    /// One affected message.
    pub message: Option<Uuid>,
    /// The text of the latest failure.
    pub text: String,
}

/// Counts failures by reason.
#[derive(Default)]
pub struct Digest {
    reasons: Mutex<BTreeMap<Reason, Counted>>,
}

/// The source, the kind, and the constant words of the text.
type Reason = (String, &'static str, String);

struct Counted {
    logged: Instant,
    /// Failures since then.
    count: u64,
    message: Option<Uuid>,
    text: String,
}

impl Digest {
    /// Counts a failure. Returns a line if it must be logged now.
    pub fn count(&self, failure: &Failure<'_>, now: Instant) -> Option<Line> {
        let Failure { source, kind, message, text } = *failure;
        let mut reasons = self.reasons.lock().unwrap_or_else(PoisonError::into_inner);
        let mut reason = (source.to_owned(), kind, words(text));
        if !reasons.contains_key(&reason) && reasons.len() >= REASONS_MAX {
            reasons.retain(|_, counted| counted.count > 0 || now < counted.logged + MINUTE);
            if reasons.len() >= REASONS_MAX {
                reason = (String::new(), "various", String::new());
            }
        }
        match reasons.get_mut(&reason) {
            Some(counted) => {
                counted.count += 1;
                (counted.message, counted.text) = (message, text.to_owned());
                counted.line(&reason, now)
            }
            None => {
                let line = Line { source: source.to_owned(), kind, count: 1, message, text: text.to_owned() };
                reasons.insert(reason, Counted { logged: now, count: 0, message, text: String::new() });
                Some(line)
            }
        }
    }

    /// The lines about repeated failures that are due. Call it every few seconds.
    pub fn due(&self, now: Instant) -> Vec<Line> {
        let mut reasons = self.reasons.lock().unwrap_or_else(PoisonError::into_inner);
        reasons.retain(|_, counted| counted.count > 0 || now < counted.logged + MINUTE);
        reasons.iter_mut().filter_map(|(reason, counted)| counted.line(reason, now)).collect()
    }
}

impl Counted {
    fn line(&mut self, (source, kind, _): &Reason, now: Instant) -> Option<Line> {
        if self.count == 0 || now < self.logged + MINUTE {
            return None;
        }
        self.logged = now;
        let (count, text) = (std::mem::take(&mut self.count), std::mem::take(&mut self.text));
        Some(Line { source: source.clone(), kind, count, message: self.message, text })
    }
}

/// The start of a text, without parts that differ between messages: addresses, numbers and links, but not codes.
fn words(text: &str) -> String {
    let is_code = |word: &str| word.len() <= 5 && word.chars().all(|c| c.is_ascii_digit() || c == '.');
    let is_variable = |word: &str| {
        word.contains(['@', '/']) || (word.contains(|c: char| c.is_ascii_digit()) && !is_code(word)) || word.len() > 40
    };
    let words = text.split_whitespace().take(WORDS_MAX);
    words.map(|word| if is_variable(word) { "…" } else { word }).collect::<Vec<_>>().join(" ")
}

static FAILURES: LazyLock<Digest> = LazyLock::new(Digest::default);

/// Logs a failure as a warning: a new one immediately, repeated ones with a count after a minute.
pub fn failed(failure: &Failure<'_>) {
    if tracing::enabled!(tracing::Level::WARN)
        && let Some(line) = FAILURES.count(failure, Instant::now())
    {
        log(&line);
    }
}

/// Logs repeated failures that are due.
pub fn log_due() {
    FAILURES.due(Instant::now()).iter().for_each(log);
}

fn log(line: &Line) {
    let Line { source, kind, count, message, text } = line;
    let message_uuid = message.map(tracing::field::display);
    match count {
        1 => tracing::warn!(source, kind, message_uuid, "{text}"),
        _ => tracing::warn!(source, kind, count, message_uuid, "{count} times in the last minute; the latest: {text}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure<'a>(source: &'a str, number: u128, text: &'a str) -> Failure<'a> {
        Failure { source, kind: "failed", message: Some(Uuid::from_u128(number)), text }
    }

    #[test]
    fn a_reason_is_logged_immediately_and_then_once_a_minute_with_a_count() {
        let (digest, start) = (Digest::default(), Instant::now());
        let at = |second| start + Duration::from_secs(second);
        let mut lines = Vec::new();
        for second in 0..=200 {
            for n in 0..1_000 {
                let text = format!("relay main: RCPT: 550 5.1.1 <user{n}@example.com> unknown, id {n}x{second}");
                lines.extend(digest.count(&failure("smtp", n, &text), at(second)).map(|line| (second, line.count)));
            }
            lines.extend(digest.due(at(second)).into_iter().map(|line| (second, line.count)));
        }
        assert_eq!(lines, [(0, 1), (60, 60_000), (120, 60_000), (180, 60_000)]);
        assert_eq!(digest.due(at(300)).len(), 1, "and the rest");
        assert!(digest.due(at(400)).is_empty() && digest.reasons.lock().expect("no panic").is_empty());
    }

    #[test]
    fn sources_and_codes_are_distinguished_and_their_number_is_bounded() {
        let (digest, now) = (Digest::default(), Instant::now());
        for (source, text) in [("a", "550 no"), ("a", "551 no"), ("b", "550 no")] {
            assert!(digest.count(&failure(source, 1, text), now).is_some(), "{source} {text}");
        }
        let word =
            |n: u32| String::from_utf8((0..4).map(|i| b'a' + ((n >> (i * 4)) & 15) as u8).collect()).expect("text");
        let lines = (0..10_000).filter(|n| digest.count(&failure("a", 1, &word(*n)), now).is_some()).count();
        assert!(lines <= REASONS_MAX, "{lines}");
    }
}
