//! Failures in the log: one line for each reason, source and minute, however many messages meet it. Time is passed in.

use std::collections::BTreeMap;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use uuid::Uuid;

/// A reason is told at most once in this time.
const MINUTE: Duration = Duration::from_secs(60);
/// Reasons that are told apart at once; further ones of a source are one.
const REASONS_MAX: usize = 256;
/// Words of a text that tell its reason from others.
const WORDS_MAX: usize = 12;

/// A failure, as the log tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure<'a> {
    /// The channel, plugin or policy that it happened in.
    pub source: &'a str,
    /// What came of it: one of a short list.
    pub kind: &'static str,
    /// One message that met it.
    pub message: Option<Uuid>,
    /// What the log says. It must hold nothing of a message's context.
    pub text: &'a str,
}

/// A line for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// What failed: a channel, a policy, a type.
    pub source: String,
    /// How it failed.
    pub kind: &'static str,
    /// How often it happened since the last line about it.
    pub count: u64,
    /// One message that met it.
    pub message: Option<Uuid>,
    /// The first one in its own words.
    pub text: String,
}

/// Failures of a minute, counted by source and kind.
#[derive(Default)]
pub struct Digest {
    reasons: Mutex<BTreeMap<Reason, Counted>>,
}

/// Source, kind, and the words of the text that stay the same.
type Reason = (String, &'static str, String);

struct Counted {
    told: Instant,
    /// Since then.
    count: u64,
    message: Option<Uuid>,
    text: String,
}

impl Digest {
    /// Counts a failure; a line where it is to be told now.
    pub fn note(&self, failure: &Failure<'_>, now: Instant) -> Option<Line> {
        let Failure { source, kind, message, text } = *failure;
        let mut reasons = self.reasons.lock().unwrap_or_else(PoisonError::into_inner);
        let mut reason = (source.to_owned(), kind, words(text));
        if !reasons.contains_key(&reason) && reasons.len() >= REASONS_MAX {
            reasons.retain(|_, counted| counted.count > 0 || now < counted.told + MINUTE);
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
                reasons.insert(reason, Counted { told: now, count: 0, message, text: String::new() });
                Some(line)
            }
        }
    }

    /// Lines about what happened again and was not told yet; to be called every few seconds.
    pub fn due(&self, now: Instant) -> Vec<Line> {
        let mut reasons = self.reasons.lock().unwrap_or_else(PoisonError::into_inner);
        reasons.retain(|_, counted| counted.count > 0 || now < counted.told + MINUTE);
        reasons.iter_mut().filter_map(|(reason, counted)| counted.line(reason, now)).collect()
    }
}

impl Counted {
    fn line(&mut self, (source, kind, _): &Reason, now: Instant) -> Option<Line> {
        if self.count == 0 || now < self.told + MINUTE {
            return None;
        }
        self.told = now;
        let (count, text) = (std::mem::take(&mut self.count), std::mem::take(&mut self.text));
        Some(Line { source: source.clone(), kind, count, message: self.message, text })
    }
}

/// The beginning of a text without what differs from message to message: addresses, numbers and links, but not codes.
fn words(text: &str) -> String {
    let is_code = |word: &str| word.len() <= 5 && word.chars().all(|c| c.is_ascii_digit() || c == '.');
    let differs = |word: &str| {
        word.contains(['@', '/']) || (word.contains(|c: char| c.is_ascii_digit()) && !is_code(word)) || word.len() > 40
    };
    let words = text.split_whitespace().take(WORDS_MAX);
    words.map(|word| if differs(word) { "…" } else { word }).collect::<Vec<_>>().join(" ")
}

static FAILURES: LazyLock<Digest> = LazyLock::new(Digest::default);

/// Tells a failure at WARN: at once where it is new, with a count after a minute where it is not.
pub fn failed(failure: &Failure<'_>) {
    if tracing::enabled!(tracing::Level::WARN)
        && let Some(line) = FAILURES.note(failure, Instant::now())
    {
        tell(&line);
    }
}

/// Tells what happened again and is due.
pub fn tell_due() {
    FAILURES.due(Instant::now()).iter().for_each(tell);
}

fn tell(line: &Line) {
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
    fn a_reason_is_told_at_once_and_then_once_a_minute_with_a_count() {
        let (digest, start) = (Digest::default(), Instant::now());
        let at = |second| start + Duration::from_secs(second);
        let mut lines = Vec::new();
        for second in 0..=200 {
            for n in 0..1_000 {
                let text = format!("relay main: RCPT: 550 5.1.1 <user{n}@example.com> unknown, id {n}x{second}");
                lines.extend(digest.note(&failure("smtp", n, &text), at(second)).map(|line| (second, line.count)));
            }
            lines.extend(digest.due(at(second)).into_iter().map(|line| (second, line.count)));
        }
        assert_eq!(lines, [(0, 1), (60, 60_000), (120, 60_000), (180, 60_000)]);
        assert_eq!(digest.due(at(300)).len(), 1, "and what was left");
        assert!(digest.due(at(400)).is_empty() && digest.reasons.lock().expect("no panic").is_empty());
    }

    #[test]
    fn sources_and_codes_are_told_apart_and_there_are_not_too_many() {
        let (digest, now) = (Digest::default(), Instant::now());
        for (source, text) in [("a", "550 no"), ("a", "551 no"), ("b", "550 no")] {
            assert!(digest.note(&failure(source, 1, text), now).is_some(), "{source} {text}");
        }
        let word =
            |n: u32| String::from_utf8((0..4).map(|i| b'a' + ((n >> (i * 4)) & 15) as u8).collect()).expect("text");
        let told = (0..10_000).filter(|n| digest.note(&failure("a", 1, &word(*n)), now).is_some()).count();
        assert!(told <= REASONS_MAX, "{told}");
    }
}
