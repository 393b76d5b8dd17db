//! The stages of one channel type: choose a channel, render, deliver; and what follows from each that fails.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use tracing::Instrument;

use super::{CLOCK_SLACK, Carrying, InFlight, Stage};
use crate::channel::{self, Channel};
use crate::config::Guarantee;
use crate::destination::Paused;
use crate::message::{
    Attempt, AttemptReport, AttemptResult, CallContext, ChannelReport, DeliveryError, FaultKind, HISTORY_MAX, Outcome,
    Receipt, Rendered, RenderedFile, Rule, Unreached,
};
use crate::monitoring;
use crate::presentation::Subject;
use crate::retry::{self, Next};

/// What one stage came to.
pub(super) enum Step {
    Next(Stage),
    /// The attempt must be written down before it is made.
    Record,
    Settled(Outcome),
    Failed(String),
    Recoverable {
        error: String,
        suggested: Option<Timestamp>,
    },
    /// What the channel hands over to is down: nothing was handed over, and nothing is used up.
    Down(Paused),
    /// The channel was not asked. `at`: when to come back, where that is known.
    Later {
        error: String,
        at: Option<Timestamp>,
    },
}

impl InFlight {
    pub(super) async fn step(&mut self, i: usize, carrying: &mut Carrying) -> Step {
        if self.is_expired((self.snapshot.now)()) {
            return Step::Settled(Outcome::Expired { error: None });
        }
        let stage = std::mem::take(&mut carrying.stage);
        if let Stage::Choose = stage {
            let step = self.choose(i).await;
            if carrying.mails.is_empty() {
                carrying.mails = self.mailed(i);
            }
            return step;
        }
        let report = &mut self.progress.report.channels[i];
        let name = report.channel.clone().unwrap_or_default();
        let Some(channel) = self.snapshot.channels.find(&report.channel_type, &name).cloned() else {
            report.passed_over.push(format!("{name}: it no longer exists"));
            return if carrying.tried.is_empty() {
                Step::Next(Stage::Choose)
            } else {
                Step::Failed(format!("{name}: the channel is not there any more"))
            };
        };
        match stage {
            Stage::Deliver(rendered) => self.deliver(i, carrying, channel, rendered).await,
            _ => self.render(i, carrying, channel).await,
        }
    }

    async fn choose(&mut self, i: usize) -> Step {
        let report = &mut self.progress.report.channels[i];
        let snapshot = &self.snapshot;
        let found = channel::candidates(
            &snapshot.channels,
            &snapshot.routing,
            &self.progress.limit,
            &report.channel_type,
            &self.message,
        );
        report.passed_over.extend(found.passed_over);
        let call = CallContext::default();
        let chosen = channel::choose(found.channels, &self.message, &call).await;
        report.refused.extend(call.into_refused());
        match chosen {
            Err(fault) if fault.kind == FaultKind::Unavailable => Step::Later { error: fault.to_string(), at: None },
            Err(fault) => Step::Recoverable { error: fault.to_string(), suggested: None },
            Ok(None) => {
                let reason = format!("no channel carries {}", report.channel_type);
                Step::Settled(Outcome::Unsupported { reason })
            }
            Ok(Some((channel, rule))) => {
                take(report, channel.as_ref(), rule);
                Step::Next(Stage::Render)
            }
        }
    }

    async fn render(&mut self, i: usize, carrying: &mut Carrying, channel: Arc<dyn Channel>) -> Step {
        let call = CallContext::default();
        let asked = async {
            let links = channel.action_links(&self.message, &call).await?;
            Ok::<_, crate::message::Fault>((links, channel.tracker_image_sources(&self.message, &call).await?))
        };
        let asked = asked.await;
        self.progress.report.channels[i].refused.extend(call.into_refused());
        let (action_links, tracker_image_sources) = match asked {
            Ok(answers) => answers,
            Err(fault) => {
                carrying.stage = Stage::Render;
                return match fault.kind {
                    FaultKind::Unavailable => Step::Later { error: fault.to_string(), at: None },
                    _ => Step::Recoverable { error: fault.to_string(), suggested: None },
                };
            }
        };
        let subject = Subject {
            channel: channel.name(),
            channel_type: channel.channel_type(),
            files: channel.template_files(),
            action_links: &action_links,
            tracker_image_sources: &tracker_image_sources,
        };
        let report = &mut self.progress.report.channels[i];
        match self.snapshot.presentation.render(&self.message, &subject) {
            Err(fault) => {
                // A message that has no templates for any channel type was not meant for another one: its name is wrong.
                let absent = fault.absent && self.snapshot.presentation.knows(&self.message);
                Step::Settled(Outcome::TemplateError { message: fault.message, absent })
            }
            Ok(Rendered { files, language, note }) => {
                (report.language, report.language_note) = (Some(language), note);
                report.templates = files.iter().map(|f| f.source.clone()).collect();
                if self.dry {
                    report.rendered = Some(files);
                    return Step::Settled(Outcome::Ready);
                }
                let texts = files.into_iter().map(|RenderedFile { name, text, .. }| (name, text));
                Step::Next(Stage::Deliver(texts.collect()))
            }
        }
    }

    async fn deliver(
        &mut self,
        i: usize,
        carrying: &mut Carrying,
        channel: Arc<dyn Channel>,
        rendered: Vec<(String, String)>,
    ) -> Step {
        let guarantee = self.snapshot.limiters.get(channel.name()).map(|limiter| limiter.settings.delivery);
        if guarantee == Some(Guarantee::AtMostOnce) && !carrying.is_recorded {
            carrying.stage = Stage::Deliver(rendered);
            return Step::Record;
        }
        let made = self.attempt(carrying, channel.as_ref(), &rendered, guarantee).await;
        self.heed(carrying, channel.name(), &made);
        let Made { at, took, number, answer, call } = made;
        let unreached = call.take_unreached();
        let report = &mut self.progress.report.channels[i];
        report.refused.extend(call.into_refused());
        report.recipients = carrying.mails.recipients();
        let (channel, revision) = (channel.name().to_owned(), channel.revision().to_owned());
        let (result, words) = in_history(&answer);
        let took_us = took.as_micros() as u64;
        let mut entry = AttemptReport { at, channel, revision, number, took_us, result, answer: words };
        if let Some(unreached) = unreached {
            carrying.stage = Stage::Deliver(rendered);
            let step = self.unreached(&entry.channel, &unreached);
            if unreached.is_contacted {
                entry.result = AttemptResult::Unreachable;
                // The channel's own words say more, where it has some.
                if entry.answer.is_empty() {
                    entry.answer = unreached.reason;
                }
                remember(&mut self.progress.report.channels[i], entry);
            }
            return step;
        }
        if let Err(DeliveryError::Unavailable(error)) = answer {
            carrying.stage = Stage::Deliver(rendered);
            return Step::Later { error, at: None };
        }
        carrying.attempts += 1;
        report.attempts += 1;
        remember(report, entry);
        self.follow_clock_during(carrying, at, took);
        if let Err(DeliveryError::Recoverable { .. }) = answer {
            carrying.stage = Stage::Deliver(rendered);
        }
        step_after(answer)
    }

    /// Makes one attempt. Its mails outweigh what the channel makes of them, and what may have left over a channel that delivers at most
    /// once is not tried again.
    async fn attempt(
        &self,
        carrying: &mut Carrying,
        channel: &dyn Channel,
        rendered: &[(String, String)],
        guarantee: Option<Guarantee>,
    ) -> Made {
        let (at, started) = ((self.snapshot.now)(), Instant::now());
        let call = CallContext::with_mails(carrying.mails.records());
        let attempt =
            Attempt { number: carrying.attempts + 1, idempotency_key: self.message.idempotency_key(channel.name()) };
        let span = monitoring::trace::delivery_span(channel.name(), channel.revision(), attempt.number);
        let answer = channel.deliver(&self.message, rendered, &attempt, &call).instrument(span).await;
        carrying.is_recorded = false;
        let answer = carrying.mails.judge(&attempt.idempotency_key, call.take_mails(), answer);
        let answer = match (guarantee, call.take_uncertain(), answer) {
            (
                Some(Guarantee::AtMostOnce),
                Some(what),
                Err(DeliveryError::Recoverable { message: error, .. } | DeliveryError::Fatal(error)),
            ) => {
                let reason = format!("{what}, and its channel delivers at most once: {error}");
                Err(DeliveryError::MaybeSent { reason })
            }
            (_, _, answer) => answer,
        };
        Made { at, took: started.elapsed(), number: attempt.number, answer, call }
    }

    /// What an attempt says of its channel, and of what that hands over to, is for every message.
    fn heed(&self, carrying: &Carrying, channel: &str, made: &Made) {
        let is_sent = matches!(made.answer, Ok(_) | Err(DeliveryError::SentWithFault { .. }));
        if let Some(destination) = carrying.waits_for.as_ref().filter(|_| is_sent) {
            self.snapshot.destinations.bypassed(destination, (self.snapshot.now)());
        }
        let pause = made.call.retry_after().filter(|_| matches!(made.answer, Err(DeliveryError::Recoverable { .. })));
        if let (Some(limiter), Some(pause)) = (self.snapshot.limiters.get(channel), pause) {
            // Nobody else need be told the same.
            limiter.pause(pause, (self.snapshot.now)());
        }
    }

    /// Opens the window at the first attempt. Where the clock was set during an attempt, the window goes with it.
    fn follow_clock_during(&mut self, carrying: &mut Carrying, at: Timestamp, took: Duration) {
        let opened = *carrying.opened.get_or_insert(at);
        let now = (self.snapshot.now)();
        let jumped = now.duration_since(at) - SignedDuration::try_from(took).unwrap_or_default();
        if jumped.abs() > CLOCK_SLACK {
            carrying.opened = Some(opened.checked_add(jumped).unwrap_or(opened));
            self.progress.seen = Some(now);
        }
    }

    /// Counts the failed try and says when the next one is. Who was told when to come back has not failed.
    pub(super) fn again(&self, carrying: &mut Carrying, suggested: Option<Timestamp>) -> Next {
        let now = (self.snapshot.now)();
        if suggested.is_none_or(|at| at <= now) {
            carrying.failures += 1;
        }
        let opened = *carrying.opened.get_or_insert(now);
        let expiration_time = self.message.expiration_time.as_ref().map(|t| t.timestamp());
        let settings = &self.snapshot.delivery;
        let end = retry::window_end(opened, expiration_time, self.message.is_transactional(), settings);
        retry::next(now, carrying.failures, suggested, end, &self.snapshot.delivery, (self.snapshot.jitter)())
    }

    /// When to come back to a channel that could not be asked: its quota is used up, or its circuit is open. That uses nothing
    /// up: an open window is as much longer, and only the message's own expiration time ends the waiting.
    pub(super) fn put_off(&self, carrying: &mut Carrying, at: Option<Timestamp>) -> Next {
        let now = (self.snapshot.now)();
        let at = at.unwrap_or_else(|| {
            carrying.unasked += 1;
            let pause = retry::pause(carrying.unasked, &self.snapshot.delivery, (self.snapshot.jitter)());
            now.checked_add(pause).unwrap_or(Timestamp::MAX)
        });
        if self.is_expired(at) {
            return Next::Expired;
        }
        carrying.opened = carrying.opened.map(|opened| opened.checked_add(at.duration_since(now)).unwrap_or(opened));
        Next::At(at)
    }

    /// What an attempt met that was down, and when to come back.
    fn unreached(&self, channel: &str, Unreached { destination, reason, .. }: &Unreached) -> Step {
        let (now, settings) = ((self.snapshot.now)(), &self.snapshot.delivery);
        let paused = self.snapshot.destinations.paused(channel, Some(destination), self.message.uuid, now);
        let soon = retry::pause(1, settings, (self.snapshot.jitter)()).min(SOON);
        let until = paused.map_or(now, |paused| paused.until).max(now.checked_add(soon).unwrap_or(now));
        Step::Down(Paused { destination: destination.clone(), reason: reason.clone(), until })
    }

    /// Waits for what is down. An open window is as much longer.
    pub(super) fn wait_for(&self, carrying: &mut Carrying, paused: Paused) -> Next {
        let (now, end) = ((self.snapshot.now)(), self.waiting_end());
        if now >= end {
            return Next::Expired;
        }
        let at = paused.until.min(end);
        carrying.opened = carrying.opened.map(|opened| opened.checked_add(at.duration_since(now)).unwrap_or(opened));
        carrying.waits_for = Some(paused.destination);
        Next::At(at)
    }

    /// Turns to the next channel of the failover list, where there is one: one that can be used, before one that cannot.
    pub(super) fn fail_over(&mut self, i: usize, carrying: &mut Carrying) -> bool {
        self.turn_over(i, carrying, "failed", false)
    }

    /// Turns to a channel of the failover list that can be used, where there is one: what the present one needs is down.
    pub(super) fn pass_over(&mut self, i: usize, carrying: &mut Carrying, paused: &Paused) -> bool {
        self.turn_over(i, carrying, &format!("{} is down", paused.destination), true)
    }

    fn turn_over(&mut self, i: usize, carrying: &mut Carrying, why: &str, only_open: bool) -> bool {
        let key = self.delivery_key(i);
        // Whom the mail is for has it already.
        if carrying.mails.is_main_accepted(&key) {
            return false;
        }
        let report = &mut self.progress.report.channels[i];
        let Some(left) = report.channel.clone() else { return false };
        let (snapshot, now) = (&self.snapshot, (self.snapshot.now)());
        let tried: Vec<String> = carrying.tried.iter().cloned().chain([left.clone()]).collect();
        let next = channel::failover(
            &snapshot.channels,
            &snapshot.routing,
            &self.progress.limit,
            &report.channel_type,
            &tried,
        );
        let is_open = |channel: &Arc<dyn Channel>| {
            snapshot.destinations.paused(channel.name(), None, self.message.uuid, now).is_none()
        };
        let open = next.iter().find(|channel| is_open(channel));
        let Some(next) = open.or(next.first().filter(|_| !only_open)).cloned() else {
            if !only_open {
                carrying.tried = tried;
            }
            return false;
        };
        report.passed_over.push(format!("{left}: {why}"));
        take(report, next.as_ref(), Rule::Failover);
        let mut mails = std::mem::take(&mut carrying.mails);
        mails.move_to(&key, &self.message.idempotency_key(next.name()));
        *carrying = Carrying { tried, mails, ..Carrying::new(Stage::Render, carrying.due) };
        true
    }
}

/// One attempt, as it was made.
struct Made {
    at: Timestamp,
    took: Duration,
    number: u32,
    answer: Result<Receipt, DeliveryError>,
    call: CallContext,
}

/// What follows from a channel's answer.
fn step_after(answer: Result<Receipt, DeliveryError>) -> Step {
    match answer {
        Ok(receipt) => Step::Settled(Outcome::Sent { receipt, fault: None }),
        Err(DeliveryError::SentWithFault { answer, fault }) => {
            let receipt = Receipt { provider_id: Some(answer), detail: None };
            Step::Settled(Outcome::Sent { receipt, fault: Some(fault) })
        }
        // What may have left is not tried again.
        Err(DeliveryError::MaybeSent { reason }) => Step::Settled(Outcome::MaybeSent { reason }),
        Err(DeliveryError::Skipped(reason)) => Step::Settled(Outcome::Skipped { reason }),
        Err(DeliveryError::Fatal(error)) => Step::Failed(error),
        Err(DeliveryError::Recoverable { message, next_attempt_time }) => {
            Step::Recoverable { error: message, suggested: next_attempt_time }
        }
        Err(DeliveryError::Unavailable(error)) => Step::Later { error, at: None },
    }
}

/// An answer as it stands in the history of attempts: what it came to, and the words for it.
fn in_history(answer: &Result<Receipt, DeliveryError>) -> (AttemptResult, String) {
    match answer {
        Ok(receipt) => (AttemptResult::Sent, receipt.provider_id.clone().unwrap_or_default()),
        Err(DeliveryError::SentWithFault { answer, .. }) => (AttemptResult::Sent, answer.clone()),
        Err(DeliveryError::MaybeSent { reason }) => (AttemptResult::MaybeSent, reason.clone()),
        Err(DeliveryError::Skipped(reason)) => (AttemptResult::Skipped, reason.clone()),
        Err(DeliveryError::Fatal(error)) => (AttemptResult::Fatal, error.clone()),
        Err(DeliveryError::Recoverable { message, .. }) => (AttemptResult::Recoverable, message.clone()),
        Err(DeliveryError::Unavailable(error)) => (AttemptResult::Recoverable, error.clone()),
    }
}

/// The longest pause before a destination that a message could not use is asked about again, where nothing says when.
const SOON: Duration = Duration::from_secs(1);

/// Keeps an attempt. Those in a row that could not reach anything are one entry: the latest.
fn remember(report: &mut ChannelReport, attempt: AttemptReport) {
    monitoring::attempted(&attempt);
    let is_unreachable = |one: &AttemptReport| one.result == AttemptResult::Unreachable;
    if let Some(last) = report.history.last_mut()
        && is_unreachable(last)
        && is_unreachable(&attempt)
        && last.channel == attempt.channel
    {
        *last = attempt;
        return;
    }
    if report.history.len() == HISTORY_MAX {
        report.history.remove(0);
    }
    report.history.push(attempt);
}

fn take(report: &mut ChannelReport, channel: &dyn Channel, rule: Rule) {
    report.channel = Some(channel.name().to_owned());
    report.revision = channel.revision().to_owned();
    report.rule = Some(rule);
}
