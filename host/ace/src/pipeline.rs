//! The state machine of one message: policies, channel, presentation, delivery. It neither stores nor sleeps: [`InFlight::due`] says
//! when the caller must advance it again. The stages after the policies are in [`steps`].

mod addresses;
mod fallback;
mod mails;
mod resuming;
mod settling;
mod steps;

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::channel::ChannelMap;
pub use crate::channel::Limit;
use crate::channel::limiter::{Arrival, ChannelLimiters, ChannelPermit};
use crate::config::{Delivery, Routing};
use crate::destination::Destinations;
use crate::message::{ChannelReport, ChannelType, Destination, Message, Outcome, RecordAddresses, Report};
use crate::monitoring;
use crate::policy::{self, PolicyEntry, Ruling};
use crate::presentation::Presentation;
use crate::retry::{self, Next};
use mails::{Mails, RetainedMails};
use steps::Step;

/// Smaller corrections of the clock are ignored.
const CLOCK_SLACK: SignedDuration = SignedDuration::from_secs(2);

/// Everything that processing a message needs. A message usually keeps one snapshot until it is settled.
pub struct Snapshot {
    /// The policies in order.
    pub policies: Vec<PolicyEntry>,
    /// The channels by type.
    pub channels: ChannelMap,
    /// Templates and catalogues.
    pub presentation: Arc<Presentation>,
    /// The preferred channels.
    pub routing: Routing,
    /// Delivery windows and pauses.
    pub delivery: Delivery,
    /// The rate limits of the channels.
    pub limiters: ChannelLimiters,
    /// The channels whose deliveries are indexed, because a plugin may report feedback about them.
    pub feedback_channels: BTreeSet<String>,
    /// The state of relays and origins.
    pub destinations: Arc<Destinations>,
    /// The clock, replaceable in tests.
    pub now: fn() -> Timestamp,
    /// Returns a number in 0..1 for each retry.
    pub jitter: fn() -> f64,
}

/// A message in flight, until all its channel types are settled.
pub struct InFlight {
    /// The message.
    pub message: Arc<Message>,
    snapshot: Arc<Snapshot>,
    /// A dry run: policies change nothing, nothing is delivered, and rendered files are kept.
    dry: bool,
    progress: Progress,
    /// Whether the next step is an attempt that must not be repeated.
    must_be_recorded: bool,
    /// The permit for that attempt.
    held: Option<ChannelPermit>,
    /// Stores what the channel notes during that attempt.
    recorder: Option<Arc<dyn RecordAddresses>>,
}

/// The state that is needed to continue a message later, in another process. It is stored as JSON: new fields must have a default,
/// and renamed ones keep their stored name.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Progress {
    limit: Limit,
    report: Report,
    /// The pending work of each channel type of the report.
    #[serde(rename = "todo")]
    pending: Vec<Pending>,
    /// How often the policies were evaluated.
    #[serde(rename = "asked_in_vain")]
    evaluations: u32,
    /// When it was advanced last. An earlier time of the clock means that it was set back.
    #[serde(default, rename = "seen")]
    last_advanced: Option<Timestamp>,
    /// When it was accepted. For progress of an earlier version, when it was first resumed.
    #[serde(default)]
    accepted: Option<Timestamp>,
    /// The mails of failed deliveries that some recipients have got.
    #[serde(default, rename = "mailed", skip_serializing_if = "Vec::is_empty")]
    retained_mails: Vec<RetainedMails>,
}

impl Progress {
    /// The state before the first step. `limit` restricts the channels in addition to the policies.
    fn start(snapshot: &Snapshot, message: &Message, limit: Limit) -> Self {
        let types = snapshot.channels.types();
        let now = (snapshot.now)();
        let expired = message.expiration_time.as_ref().is_some_and(|t| t.timestamp() <= now);
        let mut pending = Vec::with_capacity(types.len());
        let mut channels = Vec::with_capacity(types.len());
        for channel_type in types {
            let outcome = if !limit.allows_type(&channel_type, &snapshot.channels) {
                Some(Outcome::Excluded)
            } else if expired {
                Some(Outcome::Expired { error: None })
            } else {
                let after = fallback::types_before(snapshot, &limit, &channel_type);
                (!after.is_empty()).then_some(Outcome::Standby { after })
            };
            pending.push(if outcome.is_some() { Pending::Nothing } else { Pending::Evaluate(now) });
            channels.push(ChannelReport::new(
                channel_type,
                outcome.unwrap_or(Outcome::Retry { at: now, error: String::new() }),
            ));
        }
        let report = Report {
            uuid: message.uuid,
            name: message.unique_name(),
            interruptions: Vec::new(),
            policies: Vec::new(),
            channels,
        };
        let (last_advanced, accepted) = (Some(now), Some(now));
        Progress { limit, report, pending, evaluations: 0, last_advanced, accepted, retained_mails: Vec::new() }
    }

    /// The report in stored progress.
    ///
    /// # Errors
    /// If it is not the JSON of a progress.
    pub fn report_of(progress: &[u8]) -> Result<Report, serde_json::Error> {
        #[derive(Deserialize)]
        struct Stored {
            report: Report,
        }
        serde_json::from_slice(progress).map(|Stored { report }| report)
    }

    /// Whether it comes from [`InFlight::retained_progress`] and nothing has been done since.
    fn is_restart(&self) -> bool {
        self.evaluations == 0 && (!self.retained_mails.is_empty() || self.has_addresses())
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[expect(
    clippy::large_enum_variant,
    reason = "a message has one for each channel type, and most of them are deliveries"
)]
enum Pending {
    Nothing,
    /// Evaluate the policies at this time.
    #[serde(rename = "Ask")]
    Evaluate(Timestamp),
    #[serde(rename = "Carry")]
    Deliver(DeliveryState),
}

/// The state of one channel type after the policies, over the channel in its report.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct DeliveryState {
    due: Timestamp,
    stage: Stage,
    /// The number of attempts over the current channel.
    attempts: u32,
    /// The number of failed attempts for which the channel suggested no time of a retry.
    failures: u32,
    /// How often the current channel could not be called.
    #[serde(rename = "unasked")]
    unavailable: u32,
    /// When the delivery window of the current channel opened.
    #[serde(rename = "opened")]
    window_opened: Option<Timestamp>,
    /// The channels that failed.
    #[serde(rename = "tried")]
    failed_channels: Vec<String>,
    /// Whether the next attempt is recorded, because it must not be repeated.
    is_recorded: bool,
    /// Whether the rate limiter of the channel deferred it.
    #[serde(default, rename = "is_back")]
    was_rate_limited: bool,
    /// The relay or origin that was down and that it waits for.
    #[serde(default)]
    waits_for: Option<Destination>,
    /// The state of its mails, so that none is sent twice.
    #[serde(default, skip_serializing_if = "Mails::is_empty")]
    mails: Mails,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
enum Stage {
    #[default]
    Choose,
    Render,
    /// The rendered files (name, text), the same for every attempt.
    Deliver(Vec<(String, String)>),
}

impl InFlight {
    /// A message before its first step. `limit` restricts the channels in addition to the policies.
    pub fn new(snapshot: Arc<Snapshot>, message: Arc<Message>, limit: Limit, dry: bool) -> Self {
        let progress = Progress::start(&snapshot, &message, limit);
        InFlight::of(snapshot, message, dry, progress)
    }

    fn of(snapshot: Arc<Snapshot>, message: Arc<Message>, dry: bool, progress: Progress) -> Self {
        InFlight { message, snapshot, dry, progress, must_be_recorded: false, held: None, recorder: None }
    }

    /// The relays and origins that are down and that it waits for, and the time at which it is due in any case.
    pub fn waits_for(&self) -> Option<(Vec<&Destination>, Timestamp)> {
        let waiting = |pending: &'_ Pending| match pending {
            Pending::Deliver(DeliveryState { waits_for: Some(_), .. }) => Some(self.waiting_end()),
            Pending::Deliver(delivery) => Some(delivery.due),
            Pending::Evaluate(at) => Some(*at),
            Pending::Nothing => None,
        };
        let down = self.progress.pending.iter().filter_map(|pending| match pending {
            Pending::Deliver(delivery) => delivery.waits_for.as_ref(),
            _ => None,
        });
        let down: Vec<&Destination> = down.collect();
        let until = self.progress.pending.iter().filter_map(waiting).min()?;
        (!down.is_empty()).then_some((down, until))
    }

    /// The end of waiting for relays and origins that are down.
    fn waiting_end(&self) -> Timestamp {
        let accepted = self.progress.accepted.unwrap_or_else(|| (self.snapshot.now)());
        let expiration = self.message.expiration_time.as_ref().map(|t| t.timestamp());
        retry::waiting_end(accepted, expiration, self.message.is_transactional(), &self.snapshot.delivery)
    }

    /// The state for [`InFlight::resume`].
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Whether [`InFlight::progress`] must be stored before the next [`InFlight::advance`], which makes an attempt that must not be
    /// repeated. Nothing else is due then.
    pub fn must_be_recorded(&self) -> bool {
        self.must_be_recorded
    }

    /// Sets what stores the notes of a channel during the attempt that [`InFlight::must_be_recorded`] is about.
    pub fn set_recorder(&mut self, recorder: Arc<dyn RecordAddresses>) {
        self.recorder = Some(recorder);
    }

    /// When to call [`InFlight::advance`] next; `None` once all channel types are settled.
    pub fn due(&self) -> Option<Timestamp> {
        let due = self.progress.pending.iter().filter_map(|pending| match pending {
            Pending::Nothing => None,
            Pending::Evaluate(at) => Some(*at),
            Pending::Deliver(delivery) => Some(delivery.due),
        });
        due.min()
    }

    /// Continues with another snapshot, for example when the policies are evaluated again hours later. A started delivery keeps the
    /// name of its channel.
    pub fn use_snapshot(&mut self, snapshot: Arc<Snapshot>) {
        self.snapshot = snapshot;
    }

    /// The report so far.
    pub fn report(&self) -> &Report {
        &self.progress.report
    }

    /// The final report.
    pub fn into_report(self) -> Report {
        self.progress.report
    }

    /// Does everything that is due.
    pub async fn advance(&mut self) {
        self.must_be_recorded = false;
        self.advance_types().await;
        while self.release_fallbacks() && !self.must_be_recorded {
            self.advance_types().await;
        }
        self.remove_absent();
        self.progress.report.bound();
    }

    /// Advances the channel types that are due.
    async fn advance_types(&mut self) {
        let now = (self.snapshot.now)();
        self.follow_clock(now);
        if self.progress.pending.iter().any(|pending| matches!(pending, Pending::Evaluate(at) if *at <= now)) {
            self.evaluate_policies(now).await;
        }
        for i in 0..self.progress.pending.len() {
            match std::mem::replace(&mut self.progress.pending[i], Pending::Nothing) {
                Pending::Deliver(delivery) if delivery.due <= now && !self.must_be_recorded => {
                    self.advance_delivery(i, delivery).await
                }
                other => self.progress.pending[i] = other,
            }
        }
    }

    /// Evaluates the policies for all channel types that wait for them.
    async fn evaluate_policies(&mut self, now: Timestamp) {
        let Progress { pending, report, .. } = &self.progress;
        let waiting: Vec<usize> = (0..pending.len()).filter(|i| matches!(pending[*i], Pending::Evaluate(_))).collect();
        let types: Vec<ChannelType> = waiting.iter().map(|i| report.channels[*i].channel_type.clone()).collect();
        let decision = policy::channels_for(&self.snapshot.policies, &types, &self.message, now, self.dry).await;
        if !self.dry {
            let allowed = decision.rulings.iter().filter(|(_, ruling)| *ruling == Ruling::Allowed).map(|(t, _)| t);
            monitoring::policies_evaluated(&self.message, &decision.reports, allowed);
        }
        self.progress.report.policies = decision.reports;
        self.progress.evaluations += 1;
        for (i, (_, ruling)) in waiting.into_iter().zip(decision.rulings) {
            let (pending, outcome) = self.apply(ruling, now);
            self.progress.pending[i] = pending;
            if let Some(outcome) = outcome {
                self.set_outcome(i, outcome);
            }
        }
    }

    fn apply(&self, ruling: Ruling, now: Timestamp) -> (Pending, Option<Outcome>) {
        match ruling {
            Ruling::Allowed => (Pending::Deliver(DeliveryState::new(Stage::Choose, now)), None),
            Ruling::Denied(reasons) => (Pending::Nothing, Some(Outcome::Denied { reasons })),
            Ruling::Delayed { not_before, .. } if self.is_expired(not_before) => {
                let error = format!("a policy delayed it until {not_before}, past its expiration time");
                (Pending::Nothing, Some(Outcome::Expired { error: Some(error) }))
            }
            Ruling::Delayed { not_before, reasons } => {
                (Pending::Evaluate(not_before), Some(Outcome::Delayed { not_before, reasons }))
            }
            Ruling::Held { error } => {
                // A failed policy opens no window. Only the message's expiration time limits the wait.
                let pause = retry::pause(self.progress.evaluations, &self.snapshot.delivery, (self.snapshot.jitter)());
                let at = now.checked_add(pause).unwrap_or(Timestamp::MAX);
                if self.is_expired(at) {
                    return (Pending::Nothing, Some(Outcome::Expired { error: Some(error) }));
                }
                (Pending::Evaluate(at), Some(Outcome::Retry { at, error }))
            }
        }
    }

    /// Whether the message is expired at this time.
    fn is_expired(&self, at: Timestamp) -> bool {
        self.message.expiration_time.as_ref().is_some_and(|t| t.timestamp() <= at)
    }

    /// Advances one channel type as far as possible.
    async fn advance_delivery(&mut self, i: usize, mut delivery: DeliveryState) {
        let mut permit = self.held.take();
        loop {
            let step = match self.admit(i, &mut delivery, &mut permit).await {
                Some(step) => step,
                None => self.step(i, &mut delivery).await,
            };
            if !matches!(step, Step::Next(_) | Step::Record | Step::Down(_)) {
                delivery.waits_for = None;
            }
            match step {
                Step::Next(stage) => delivery.stage = stage,
                Step::Settled(outcome) => return self.settle(i, delivery.mails, outcome),
                Step::Record => {
                    (delivery.is_recorded, self.must_be_recorded) = (true, true);
                    (delivery.due, self.held) = ((self.snapshot.now)(), permit);
                    self.progress.pending[i] = Pending::Deliver(delivery);
                    return;
                }
                Step::Failed(error) => {
                    if self.fail_over(i, &mut delivery) {
                        permit = None
                    } else {
                        return self.settle(i, delivery.mails, Outcome::Failed { error });
                    }
                }
                Step::Recoverable { error, suggested } => match self.schedule_retry(&mut delivery, suggested) {
                    Next::At(at) => return self.wait(i, delivery, at, error),
                    Next::Expired if self.fail_over(i, &mut delivery) => permit = None,
                    Next::Expired => return self.settle(i, delivery.mails, Outcome::Expired { error: Some(error) }),
                },
                Step::Deferred { error, at } => match self.defer(&mut delivery, at) {
                    Next::At(at) => return self.wait(i, delivery, at, error),
                    Next::Expired => return self.settle(i, delivery.mails, Outcome::Expired { error: Some(error) }),
                },
                Step::Down(paused) if self.fail_over_if_down(i, &mut delivery, &paused) => permit = None,
                Step::Down(paused) => {
                    let error = format!("{}: {}", paused.destination, paused.reason);
                    match self.wait_for(&mut delivery, paused) {
                        Next::At(at) => return self.wait(i, delivery, at, error),
                        Next::Expired => {
                            return self.settle(i, delivery.mails, Outcome::Expired { error: Some(error) });
                        }
                    }
                }
            }
        }
    }

    fn wait(&mut self, i: usize, mut delivery: DeliveryState, at: Timestamp, error: String) {
        delivery.due = at;
        let channel_type = &self.progress.report.channels[i].channel_type;
        let seconds = at.duration_since((self.snapshot.now)()).as_secs_f64();
        monitoring::report_for(&self.message, channel_type, monitoring::DELIVERY_RETRIED, seconds);
        self.set_outcome(i, Outcome::Retry { at, error });
        self.progress.pending[i] = Pending::Deliver(delivery);
    }

    /// Checks before a call of a channel whether its destination is down and its rate limits allow the call. `None` means yes.
    async fn admit(&self, i: usize, delivery: &mut DeliveryState, permit: &mut Option<ChannelPermit>) -> Option<Step> {
        if self.dry || permit.is_some() || matches!(delivery.stage, Stage::Choose) {
            return None;
        }
        let name = self.progress.report.channels[i].channel.as_deref()?;
        let (waits_for, now) = (delivery.waits_for.as_ref(), (self.snapshot.now)());
        if let Some(paused) = self.snapshot.destinations.paused(name, waits_for, self.message.uuid, now) {
            return Some(Step::Down(paused));
        }
        let limiter = self.snapshot.limiters.get(name)?;
        let arrival =
            Arrival { is_transactional: self.message.is_transactional(), is_returning: delivery.was_rate_limited };
        let acquired = limiter.acquire(arrival, (self.snapshot.now)()).await;
        delivery.was_rate_limited = acquired.is_err();
        match acquired {
            Ok(acquired) => {
                *permit = Some(acquired);
                None
            }
            Err(deferral) => Some(Step::Deferred { error: format!("{name}: {}", deferral.why), at: Some(deferral.at) }),
        }
    }

    /// Removes channel types that the message is not meant for from the report, unless no other type explains why it was not sent.
    fn remove_absent(&mut self) {
        let Progress { pending, report, .. } = &mut self.progress;
        if !report.channels.iter().any(|channel| channel.outcome.is_absent()) {
            return;
        }
        if report.channels.iter().any(|channel| !channel.outcome.is_passed_over()) {
            let mut kept = report.channels.iter().map(|channel| !channel.outcome.is_absent());
            pending.retain(|_| kept.next().unwrap_or(true));
            report.channels.retain(|channel| !channel.outcome.is_absent());
        } else if !self.dry {
            let absent = report.channels.iter().filter(|channel| channel.outcome.is_absent());
            absent.for_each(|channel| monitoring::settled(&self.message, channel));
        }
    }
}

impl DeliveryState {
    fn new(stage: Stage, due: Timestamp) -> Self {
        DeliveryState {
            due,
            stage,
            attempts: 0,
            failures: 0,
            unavailable: 0,
            window_opened: None,
            failed_channels: Vec::new(),
            is_recorded: false,
            was_rate_limited: false,
            waits_for: None,
            mails: Mails::default(),
        }
    }
}

#[cfg(test)]
mod tests;
