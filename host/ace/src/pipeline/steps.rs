//! The stages of one channel type (choose a channel, render, deliver) and the consequences of their failures.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use tracing::Instrument;

use super::{CLOCK_SLACK, DeliveryState, InFlight, Stage, addresses};
use crate::channel::{self, Channel};
use crate::config::Guarantee;
use crate::destination::Paused;
use crate::message::{
    Attempt, AttemptReport, AttemptResult, CallContext, ChannelReport, DeliveryError, Destination, FaultKind,
    HISTORY_MAX, Outcome, Receipt, Rendered, RenderedFile, Rule, Unreached, add_record,
};
use crate::monitoring;
use crate::presentation::Subject;
use crate::retry::{self, Next};

/// The result of one stage.
pub(super) enum Step {
    Next(Stage),
    /// The attempt must be recorded before it is made.
    Record,
    Settled(Outcome),
    Failed(String),
    Recoverable {
        error: String,
        suggested: Option<Timestamp>,
    },
    /// The destination is down. Nothing was sent, and no attempt is used up.
    Down(Paused),
    /// The channel was not called. `at` is the time of the next call, if it is known.
    Deferred {
        error: String,
        at: Option<Timestamp>,
    },
}

impl InFlight {
    pub(super) async fn step(&mut self, i: usize, delivery: &mut DeliveryState) -> Step {
        if self.is_expired((self.snapshot.now)()) {
            return Step::Settled(Outcome::Expired { error: None });
        }
        let stage = std::mem::take(&mut delivery.stage);
        if let Stage::Choose = stage {
            let step = self.choose(i).await;
            if delivery.mails.is_empty() {
                delivery.mails = self.retained_mails(i);
            }
            return step;
        }
        let report = &mut self.progress.report.channels[i];
        let name = report.channel.clone().unwrap_or_default();
        let Some(channel) = self.snapshot.channels.find(&report.channel_type, &name).cloned() else {
            report.passed_over.push(format!("{name}: the channel no longer exists"));
            return if delivery.failed_channels.is_empty() {
                Step::Next(Stage::Choose)
            } else {
                Step::Failed(format!("{name}: the channel no longer exists"))
            };
        };
        match stage {
            Stage::Deliver(rendered) => self.deliver(i, delivery, channel, rendered).await,
            _ => self.render(i, delivery, channel).await,
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
            Err(fault) if fault.kind == FaultKind::Unavailable => Step::Deferred { error: fault.to_string(), at: None },
            Err(fault) => Step::Recoverable { error: fault.to_string(), suggested: None },
            Ok(None) => {
                let reason = format!("there is no channel of type {}", report.channel_type);
                Step::Settled(Outcome::Unsupported { reason })
            }
            Ok(Some((channel, rule))) => {
                set_channel(report, channel.as_ref(), rule);
                Step::Next(Stage::Render)
            }
        }
    }

    async fn render(&mut self, i: usize, delivery: &mut DeliveryState, channel: Arc<dyn Channel>) -> Step {
        let call = CallContext::default();
        let called = async {
            let links = channel.action_links(&self.message, &call).await?;
            Ok::<_, crate::message::Fault>((links, channel.tracker_image_sources(&self.message, &call).await?))
        };
        let called = called.await;
        self.progress.report.channels[i].refused.extend(call.into_refused());
        let (action_links, tracker_image_sources) = match called {
            Ok(results) => results,
            Err(fault) => {
                delivery.stage = Stage::Render;
                return match fault.kind {
                    FaultKind::Unavailable => Step::Deferred { error: fault.to_string(), at: None },
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
                // A message without templates for any channel type probably has a wrong name.
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
        delivery: &mut DeliveryState,
        channel: Arc<dyn Channel>,
        rendered: Vec<(String, String)>,
    ) -> Step {
        if self.guarantee(channel.name()) == Some(Guarantee::AtMostOnce) && !delivery.is_recorded {
            delivery.stage = Stage::Deliver(rendered);
            return Step::Record;
        }
        let contact = match self.contact_channel(channel.name()) {
            Ok(contact) => contact,
            Err(paused) => {
                (delivery.stage, delivery.is_recorded) = (Stage::Deliver(rendered), false);
                return Step::Down(paused);
            }
        };
        let made = self.attempt(i, delivery, channel.as_ref(), &rendered).await;
        let held = self.end_contact(contact, channel.name(), &made);
        self.report_channel_state(delivery, channel.name(), &made);
        let AttemptMade { at, took, number, answer, call } = made;
        let unreached = held.or_else(|| call.take_unreached());
        let report = &mut self.progress.report.channels[i];
        report.refused.extend(call.into_refused());
        report.recipients = delivery.mails.recipients();
        let (channel, revision) = (channel.name().to_owned(), channel.revision().to_owned());
        let (result, text) = history_entry(&answer);
        let took_us = took.as_micros() as u64;
        let mut entry = AttemptReport { at, channel, revision, number, took_us, result, answer: text };
        if let Some(unreached) = unreached {
            delivery.stage = Stage::Deliver(rendered);
            let step = self.unreached(&entry.channel, &unreached);
            if unreached.is_contacted {
                entry.result = AttemptResult::Unreachable;
                // The channel's text says more, if it has one.
                if entry.answer.is_empty() {
                    entry.answer = unreached.reason;
                }
                add_to_history(&mut self.progress.report.channels[i], entry);
            }
            return step;
        }
        if let Err(DeliveryError::Unavailable(error)) = answer {
            delivery.stage = Stage::Deliver(rendered);
            return Step::Deferred { error, at: None };
        }
        delivery.attempts += 1;
        report.attempts += 1;
        add_to_history(report, entry);
        self.follow_clock_during(delivery, at, took);
        if let Err(DeliveryError::Recoverable { .. }) = answer {
            delivery.stage = Stage::Deliver(rendered);
        }
        step_after(answer)
    }

    /// Makes one attempt. The state of its mails and addresses takes precedence over the channel's result. A message that may have
    /// been sent over a channel that delivers at most once is not retried.
    async fn attempt(
        &mut self,
        i: usize,
        delivery: &mut DeliveryState,
        channel: &dyn Channel,
        rendered: &[(String, String)],
    ) -> AttemptMade {
        let (at, started) = ((self.snapshot.now)(), Instant::now());
        let guarantee = self.guarantee(channel.name());
        let call = CallContext::after(self.earlier(i, channel.name(), delivery.mails.records(), guarantee));
        let message = self.remaining_message(i, channel.name());
        let attempt =
            Attempt { number: delivery.attempts + 1, idempotency_key: self.message.idempotency_key(channel.name()) };
        let span = monitoring::trace::delivery_span(channel.name(), channel.revision(), attempt.number);
        let answer = channel.deliver(&message, rendered, &attempt, &call).instrument(span).await;
        delivery.is_recorded = false;
        let noted = call.take_addresses();
        let answer = addresses::judge(&noted, answer);
        let records = &mut self.progress.report.channels[i].addresses;
        noted.into_iter().for_each(|record| add_record(records, record));
        let answer = delivery.mails.judge(&attempt.idempotency_key, call.take_mails(), answer);
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
        AttemptMade { at, took: started.elapsed(), number: attempt.number, answer, call }
    }

    fn guarantee(&self, channel: &str) -> Option<Guarantee> {
        self.snapshot.limiters.get(channel).map(|limiter| limiter.settings.delivery)
    }

    /// Reports what an attempt says about its channel and its destination, which holds for all messages.
    fn report_channel_state(&self, delivery: &DeliveryState, channel: &str, made: &AttemptMade) {
        let is_sent = matches!(made.answer, Ok(_) | Err(DeliveryError::SentWithFault { .. }));
        if let Some(destination) = delivery.waits_for.as_ref().filter(|_| is_sent) {
            self.snapshot.destinations.bypassed(destination, (self.snapshot.now)());
        }
        let pause = made.call.retry_after().filter(|_| matches!(made.answer, Err(DeliveryError::Recoverable { .. })));
        if let (Some(limiter), Some(pause)) = (self.snapshot.limiters.get(channel), pause) {
            // Other messages need not get the same response.
            limiter.pause(pause, (self.snapshot.now)());
        }
    }

    /// Opens the window at the first attempt. If the clock was set during the attempt, the window moves with it.
    fn follow_clock_during(&mut self, delivery: &mut DeliveryState, at: Timestamp, took: Duration) {
        let opened = *delivery.window_opened.get_or_insert(at);
        let now = (self.snapshot.now)();
        let jumped = now.duration_since(at) - SignedDuration::try_from(took).unwrap_or_default();
        if jumped.abs() > CLOCK_SLACK {
            delivery.window_opened = Some(opened.checked_add(jumped).unwrap_or(opened));
            self.progress.last_advanced = Some(now);
        }
    }

    /// Schedules the next attempt. An attempt for which the channel suggested a time does not count as a failure.
    pub(super) fn schedule_retry(&self, delivery: &mut DeliveryState, suggested: Option<Timestamp>) -> Next {
        let now = (self.snapshot.now)();
        if suggested.is_none_or(|at| at <= now) {
            delivery.failures += 1;
        }
        let opened = *delivery.window_opened.get_or_insert(now);
        let expiration_time = self.message.expiration_time.as_ref().map(|t| t.timestamp());
        let settings = &self.snapshot.delivery;
        let end = retry::window_end(opened, expiration_time, self.message.is_transactional(), settings);
        retry::next(now, delivery.failures, suggested, end, &self.snapshot.delivery, (self.snapshot.jitter)())
    }

    /// Schedules the next call of a channel that could not be called because of its rate limit or its open circuit breaker. This uses
    /// up nothing: an open window is extended, and only the message's expiration time limits the wait.
    pub(super) fn defer(&self, delivery: &mut DeliveryState, at: Option<Timestamp>) -> Next {
        let now = (self.snapshot.now)();
        let at = at.unwrap_or_else(|| {
            delivery.unavailable += 1;
            let pause = retry::pause(delivery.unavailable, &self.snapshot.delivery, (self.snapshot.jitter)());
            now.checked_add(pause).unwrap_or(Timestamp::MAX)
        });
        if self.is_expired(at) {
            return Next::Expired;
        }
        delivery.window_opened =
            delivery.window_opened.map(|opened| opened.checked_add(at.duration_since(now)).unwrap_or(opened));
        Next::At(at)
    }

    /// The step after an attempt whose destination was down.
    fn unreached(&self, channel: &str, Unreached { destination, reason, .. }: &Unreached) -> Step {
        let (now, settings) = ((self.snapshot.now)(), &self.snapshot.delivery);
        let paused = self.snapshot.destinations.paused(channel, Some(destination), self.message.uuid, now);
        let pause = retry::pause(1, settings, (self.snapshot.jitter)()).min(UNREACHED_PAUSE_MAX);
        let until = paused.map_or(now, |paused| paused.until).max(now.checked_add(pause).unwrap_or(now));
        Step::Down(Paused { destination: destination.clone(), reason: reason.clone(), until })
    }

    /// Waits for a destination that is down. An open window is extended.
    pub(super) fn wait_for(&self, delivery: &mut DeliveryState, paused: Paused) -> Next {
        let (now, end) = ((self.snapshot.now)(), self.waiting_end());
        if now >= end {
            return Next::Expired;
        }
        let at = paused.until.min(end);
        delivery.window_opened =
            delivery.window_opened.map(|opened| opened.checked_add(at.duration_since(now)).unwrap_or(opened));
        delivery.waits_for = Some(paused.destination);
        Next::At(at)
    }

    /// Switches to the next channel of the failover list, if there is one; prefers one whose destination is not down.
    pub(super) fn fail_over(&mut self, i: usize, delivery: &mut DeliveryState) -> bool {
        self.switch_channel(i, delivery, "failed", false)
    }

    /// Switches to a channel of the failover list whose destination is not down, if there is one.
    pub(super) fn fail_over_if_down(&mut self, i: usize, delivery: &mut DeliveryState, paused: &Paused) -> bool {
        let state = if matches!(paused.destination, Destination::Channel(_)) { "held" } else { "down" };
        self.switch_channel(i, delivery, &format!("{} is {state}", paused.destination), true)
    }

    fn switch_channel(&mut self, i: usize, delivery: &mut DeliveryState, reason: &str, only_usable: bool) -> bool {
        let key = self.delivery_key(i);
        // The recipient already has the message.
        if delivery.mails.is_main_accepted(&key) || addresses::is_sent(&self.progress.report.channels[i].addresses) {
            return false;
        }
        let report = &mut self.progress.report.channels[i];
        let Some(current) = report.channel.clone() else { return false };
        let (snapshot, now) = (&self.snapshot, (self.snapshot.now)());
        let failed_channels: Vec<String> = delivery.failed_channels.iter().cloned().chain([current.clone()]).collect();
        let next = channel::failover(
            &snapshot.channels,
            &snapshot.routing,
            &self.progress.limit,
            &report.channel_type,
            &failed_channels,
        );
        let is_usable = |channel: &Arc<dyn Channel>| {
            snapshot.destinations.paused(channel.name(), None, self.message.uuid, now).is_none()
        };
        let usable = next.iter().find(|channel| is_usable(channel));
        let Some(next) = usable.or(next.first().filter(|_| !only_usable)).cloned() else {
            if !only_usable {
                delivery.failed_channels = failed_channels;
            }
            return false;
        };
        report.passed_over.push(format!("{current}: {reason}"));
        set_channel(report, next.as_ref(), Rule::Failover);
        let mut mails = std::mem::take(&mut delivery.mails);
        mails.move_to(&key, &self.message.idempotency_key(next.name()));
        *delivery = DeliveryState { failed_channels, mails, ..DeliveryState::new(Stage::Render, delivery.due) };
        true
    }
}

/// One attempt that was made.
pub(super) struct AttemptMade {
    at: Timestamp,
    took: Duration,
    number: u32,
    pub(super) answer: Result<Receipt, DeliveryError>,
    pub(super) call: CallContext,
}

/// The step after a channel's result.
fn step_after(answer: Result<Receipt, DeliveryError>) -> Step {
    match answer {
        Ok(receipt) => Step::Settled(Outcome::Sent { receipt, fault: None }),
        Err(DeliveryError::SentWithFault { answer, fault }) => {
            let receipt = Receipt { provider_id: Some(answer), detail: None };
            Step::Settled(Outcome::Sent { receipt, fault: Some(fault) })
        }
        // A message that may have been sent is not retried.
        Err(DeliveryError::MaybeSent { reason }) => Step::Settled(Outcome::MaybeSent { reason }),
        Err(DeliveryError::Skipped(reason)) => Step::Settled(Outcome::Skipped { reason }),
        Err(DeliveryError::Fatal(error)) => Step::Failed(error),
        Err(DeliveryError::Recoverable { message, next_attempt_time }) => {
            Step::Recoverable { error: message, suggested: next_attempt_time }
        }
        Err(DeliveryError::Unavailable(error)) => Step::Deferred { error, at: None },
    }
}

/// The entry of a channel's result in the history of attempts.
fn history_entry(answer: &Result<Receipt, DeliveryError>) -> (AttemptResult, String) {
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

/// The longest pause after an attempt whose destination was down, if nothing says when it can be used.
const UNREACHED_PAUSE_MAX: Duration = Duration::from_secs(1);

/// Adds an attempt to the history. Consecutive attempts with an unreachable destination are one entry, the latest.
fn add_to_history(report: &mut ChannelReport, attempt: AttemptReport) {
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

fn set_channel(report: &mut ChannelReport, channel: &dyn Channel, rule: Rule) {
    report.channel = Some(channel.name().to_owned());
    report.revision = channel.revision().to_owned();
    report.rule = Some(rule);
}
