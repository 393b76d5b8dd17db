//! Responses of a provider, and the outcomes that a channel makes of them.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::provider::{Answer, Provider};
use super::{send_once, text};
use crate::support::{Home, channel};

/// The expected outcome of a delivery.
pub enum End {
    /// With this provider id.
    Sent(Option<&'static str>),
    Failed,
    /// The address is dead.
    Skipped,
    /// Retried after this many seconds, at least and at most.
    Retry(i64, i64),
    /// Retried on the host's own schedule.
    RetryByTheHost,
    /// The provider is down, or refuses the login: the message waits for it without using up an attempt.
    Down,
    /// The channel is held: the message waits without using up an attempt, for this many seconds, at least and at most.
    Held(Option<(i64, i64)>),
}

/// A channel with its provider.
pub struct Subject<'a> {
    /// Starts a provider that gives these responses.
    pub start: &'a dyn Fn(Vec<Answer>) -> Provider,
    pub home: &'a dyn Fn(&Provider) -> Home,
    pub channel_type: &'static str,
    pub message: &'a dyn Fn(&Provider) -> Value,
    /// What must show nowhere.
    pub secrets: &'a [&'a str],
}

impl Subject<'_> {
    /// Sends one message for each response and checks its outcome, and the text in the report. A Retry-After, or a provider that is
    /// down, concerns the whole channel, so such a response needs a run of its own.
    #[track_caller]
    pub fn check(&self, cases: Vec<(Answer, End, &str)>) {
        let asks = |answer: &Answer| matches!(answer, Answer::Reply { headers, .. } if headers.iter().any(|(name, _)| name == "Retry-After"));
        let (alone, together): (Vec<_>, Vec<_>) =
            cases.into_iter().partition(|(answer, end, _)| asks(answer) || matches!(end, End::Down | End::Held(_)));
        self.run(together);
        alone.into_iter().for_each(|case| self.run(vec![case]));
    }

    #[track_caller]
    fn run(&self, cases: Vec<(Answer, End, &str)>) {
        let provider = (self.start)(cases.iter().map(|(answer, _, _)| answer.clone()).collect());
        let home = (self.home)(&provider);
        let before = Timestamp::now();
        let done = send_once(&home, &vec![(self.message)(&provider); cases.len()]);
        let took = Timestamp::now().duration_since(before).as_secs() + 1;
        let lines = done.lines();
        assert_eq!(lines.len(), cases.len(), "{done:?}");
        for (line, case) in lines.iter().zip(&cases) {
            check_outcome(channel(line, self.channel_type), case, before, took);
        }
        assert_eq!(provider.seen().len(), cases.len(), "each message is one request");
        let said = format!("{}{}", done.stdout, done.stderr);
        assert!(!self.secrets.iter().any(|secret| said.contains(secret)), "a secret shows");
    }
}

#[track_caller]
fn check_outcome(outcome: &Value, (answer, end, words): &(Answer, End, &str), before: Timestamp, took: i64) {
    let at = || {
        let at: Timestamp = text(outcome, "at").parse().expect("a time");
        at.duration_since(before).as_secs()
    };
    let state = text(outcome, "state");
    match end {
        End::Sent(id) => {
            assert_eq!((state, outcome["provider_id"].as_str()), ("sent", *id), "{answer:?} {outcome}")
        }
        End::Failed => assert_eq!(state, "failed", "{answer:?} {outcome}"),
        End::Skipped => assert_eq!(state, "skipped", "{answer:?} {outcome}"),
        End::Retry(..) | End::RetryByTheHost => assert_eq!(state, "retry", "{answer:?} {outcome}"),
        End::Down => {
            assert_eq!((state, &outcome["attempts"]), ("retry", &json!(0)), "{answer:?} {outcome}");
            assert_eq!(outcome["history"][0]["result"], "unreachable", "{answer:?} {outcome}");
        }
        End::Held(_) => {
            assert_eq!((state, &outcome["attempts"]), ("retry", &json!(0)), "{answer:?} {outcome}");
        }
    }
    if let End::Retry(earliest, latest) | End::Held(Some((earliest, latest))) = end {
        assert!((*earliest..=latest + took).contains(&at()), "{answer:?}: in {} s", at());
    }
    assert!(outcome.to_string().contains(words), "{words:?} is not in {outcome}");
}
