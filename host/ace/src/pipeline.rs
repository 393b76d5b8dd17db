//! One message's way: policies, channel, presentation, delivery. No storage and no sleeping: what is not settled says when
//! it wants to be taken up again, and whoever runs the pipeline sees to it. The stages after the policies are in [`steps`].

mod mails;
mod resuming;
mod steps;

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::channel::ChannelMap;
pub use crate::channel::Limit;
use crate::channel::limiter::{Arrival, ChannelLimiters, ChannelPermit};
use crate::config::{Delivery, Routing};
use crate::destination::Destinations;
use crate::message::{ChannelReport, ChannelType, Destination, Message, Outcome, Report};
use crate::monitoring;
use crate::policy::{self, PolicyEntry, Ruling};
use crate::presentation::Presentation;
use crate::retry::{self, Next};
use mails::{Mailed, Mails};
use steps::Step;

/// A clock that is corrected by less is as good as right.
const CLOCK_SLACK: SignedDuration = SignedDuration::from_secs(2);

/// Everything a send looks at. A send sees one snapshot from its beginning to its end.
pub struct Snapshot {
    /// In their order.
    pub policies: Vec<PolicyEntry>,
    /// By type.
    pub channels: ChannelMap,
    /// Templates and catalogues.
    pub presentation: Arc<Presentation>,
    /// Which channels come first.
    pub routing: Routing,
    /// Windows and pauses.
    pub delivery: Delivery,
    /// The rate limits of the channels.
    pub limiters: ChannelLimiters,
    /// Which relays and origins can be used now.
    pub destinations: Arc<Destinations>,
    /// The clock; tests bring their own.
    pub now: fn() -> Timestamp,
    /// A number in 0..1 for each retry.
    pub jitter: fn() -> f64,
}

/// A message on its way, until every channel type is settled.
pub struct InFlight {
    /// The message.
    pub message: Arc<Message>,
    snapshot: Arc<Snapshot>,
    /// Only look: policies change nothing, nothing is delivered, and what was rendered is kept.
    dry: bool,
    progress: Progress,
    /// The next step is an attempt that must not be made twice.
    is_to_be_recorded: bool,
    /// The right to make that attempt.
    held: Option<ChannelPermit>,
}

/// Where a message stands: all that is needed to go on later, in another process. Its form is the store's, and grows only by
/// fields that have a default.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Progress {
    limit: Limit,
    report: Report,
    /// For each channel type of the report, what is left to do.
    todo: Vec<Todo>,
    /// How often the policies were asked in vain because one of them broke.
    asked_in_vain: u32,
    /// When it was looked at last: a clock that says less by now was set back.
    #[serde(default)]
    seen: Option<Timestamp>,
    /// When it was accepted; for progress of an earlier version the moment it was first taken up again.
    #[serde(default)]
    accepted: Option<Timestamp>,
    /// What deliveries that failed had mailed to some recipients.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    mailed: Vec<Mailed>,
}

impl Progress {
    /// Where a message stands before its first step. `limit`: where it may go, over what the policies leave.
    fn begin(snapshot: &Snapshot, message: &Message, limit: Limit) -> Self {
        let types = snapshot.channels.types();
        let now = (snapshot.now)();
        let expired = message.expiration_time.as_ref().is_some_and(|t| t.timestamp() <= now);
        let mut todo = Vec::with_capacity(types.len());
        let mut channels = Vec::with_capacity(types.len());
        for channel_type in types {
            let outcome = if !limit.allows_type(&channel_type, &snapshot.channels) {
                Some(Outcome::Excluded)
            } else if expired {
                Some(Outcome::Expired { error: None })
            } else {
                None
            };
            todo.push(if outcome.is_some() { Todo::Nothing } else { Todo::Ask(now) });
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
        let (seen, accepted) = (Some(now), Some(now));
        Progress { limit, report, todo, asked_in_vain: 0, seen, accepted, mailed: Vec::new() }
    }

    /// The report so far, out of a progress as it was stored.
    ///
    /// # Errors
    /// It is not the JSON of a progress.
    pub fn report_of(progress: &[u8]) -> Result<Report, serde_json::Error> {
        #[derive(Deserialize)]
        struct Reported {
            report: Report,
        }
        serde_json::from_slice(progress).map(|Reported { report }| report)
    }

    /// Whether it comes from [`InFlight::another_try`], and nothing was done since.
    fn is_anew(&self) -> bool {
        self.asked_in_vain == 0 && !self.mailed.is_empty()
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[expect(clippy::large_enum_variant, reason = "a message has one for each channel type, and most are being carried")]
enum Todo {
    Nothing,
    /// Ask the policies again then.
    Ask(Timestamp),
    Carry(Carrying),
}

/// One channel type on its way past the policies, over the channel that its report names.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Carrying {
    due: Timestamp,
    stage: Stage,
    /// Attempts made over the present channel.
    attempts: u32,
    /// Those of them that failed without word of when to come back.
    failures: u32,
    /// How often the present channel could not be asked at all.
    unasked: u32,
    /// When the window for the present channel opened.
    opened: Option<Timestamp>,
    /// Channels that failed.
    tried: Vec<String>,
    /// The attempt that comes next was written down: it must not be made twice.
    is_recorded: bool,
    /// It was told to come back by the channel's quota.
    #[serde(default)]
    is_back: bool,
    /// The relay or origin that it waits for: it was down when the message was to be handed over.
    #[serde(default)]
    waits_for: Option<Destination>,
    /// What was mailed and must not be mailed again.
    #[serde(default, skip_serializing_if = "Mails::is_empty")]
    mails: Mails,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
enum Stage {
    #[default]
    Choose,
    Render,
    /// Files (name, text), the same for every attempt.
    Deliver(Vec<(String, String)>),
}

impl InFlight {
    /// A message before its first step. `limit`: where it may go, over what the policies leave.
    pub fn new(snapshot: Arc<Snapshot>, message: Arc<Message>, limit: Limit, dry: bool) -> Self {
        let progress = Progress::begin(&snapshot, &message, limit);
        InFlight { message, snapshot, dry, progress, is_to_be_recorded: false, held: None }
    }

    /// The relays and origins that it waits for, where they are down, and until when: then something is due in any case.
    pub fn waits_for(&self) -> Option<(Vec<&Destination>, Timestamp)> {
        let waiting = |todo: &'_ Todo| match todo {
            Todo::Carry(Carrying { waits_for: Some(_), .. }) => Some(self.waiting_end()),
            Todo::Carry(carrying) => Some(carrying.due),
            Todo::Ask(at) => Some(*at),
            Todo::Nothing => None,
        };
        let down = self.progress.todo.iter().filter_map(|todo| match todo {
            Todo::Carry(carrying) => carrying.waits_for.as_ref(),
            _ => None,
        });
        let down: Vec<&Destination> = down.collect();
        let until = self.progress.todo.iter().filter_map(waiting).min()?;
        (!down.is_empty()).then_some((down, until))
    }

    /// When it does not wait any longer for what is down.
    fn waiting_end(&self) -> Timestamp {
        let accepted = self.progress.accepted.unwrap_or_else(|| (self.snapshot.now)());
        let own = self.message.expiration_time.as_ref().map(|t| t.timestamp());
        retry::waiting_end(accepted, own, self.message.is_transactional(), &self.snapshot.delivery)
    }

    /// What must be kept for [`InFlight::resume`].
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Whether [`InFlight::progress`] must be written down before the next [`InFlight::advance`], which makes an attempt that
    /// must not be made twice. Nothing else is due then.
    pub fn is_to_be_recorded(&self) -> bool {
        self.is_to_be_recorded
    }

    /// When it wants to be taken up again; `None` once every channel type is settled.
    pub fn due(&self) -> Option<Timestamp> {
        let due = self.progress.todo.iter().filter_map(|todo| match todo {
            Todo::Nothing => None,
            Todo::Ask(at) => Some(*at),
            Todo::Carry(carrying) => Some(carrying.due),
        });
        due.min()
    }

    /// Goes on with another snapshot, as when the policies are asked again hours later. A delivery that has begun stays
    /// with the channel of the name it began with.
    pub fn adopt(&mut self, snapshot: Arc<Snapshot>) {
        self.snapshot = snapshot;
    }

    /// What has happened so far.
    pub fn report(&self) -> &Report {
        &self.progress.report
    }

    /// What has happened, when nothing more is to be tried.
    pub fn into_report(self) -> Report {
        self.progress.report
    }

    /// Does everything that is due now.
    pub async fn advance(&mut self) {
        self.is_to_be_recorded = false;
        let now = (self.snapshot.now)();
        self.follow_clock(now);
        if self.progress.todo.iter().any(|todo| matches!(todo, Todo::Ask(at) if *at <= now)) {
            self.ask(now).await;
        }
        for i in 0..self.progress.todo.len() {
            match std::mem::replace(&mut self.progress.todo[i], Todo::Nothing) {
                Todo::Carry(carrying) if carrying.due <= now && !self.is_to_be_recorded => {
                    self.carry(i, carrying).await
                }
                other => self.progress.todo[i] = other,
            }
        }
        self.leave_out_absent();
        self.progress.report.bound();
    }

    /// Asks the policies about every type that waits for them.
    async fn ask(&mut self, now: Timestamp) {
        let Progress { todo, report, .. } = &self.progress;
        let waiting: Vec<usize> = (0..todo.len()).filter(|i| matches!(todo[*i], Todo::Ask(_))).collect();
        let types: Vec<ChannelType> = waiting.iter().map(|i| report.channels[*i].channel_type.clone()).collect();
        let decision = policy::channels_for(&self.snapshot.policies, &types, &self.message, now, self.dry).await;
        if !self.dry {
            let allowed = decision.rulings.iter().filter(|(_, ruling)| *ruling == Ruling::Allowed).map(|(t, _)| t);
            monitoring::judged(&self.message, &decision.reports, allowed);
        }
        self.progress.report.policies = decision.reports;
        self.progress.asked_in_vain += 1;
        for (i, (_, ruling)) in waiting.into_iter().zip(decision.rulings) {
            let (todo, outcome) = self.obey(ruling, now);
            self.progress.todo[i] = todo;
            if let Some(outcome) = outcome {
                self.note(i, outcome);
            }
        }
    }

    fn obey(&self, ruling: Ruling, now: Timestamp) -> (Todo, Option<Outcome>) {
        match ruling {
            Ruling::Allowed => (Todo::Carry(Carrying::new(Stage::Choose, now)), None),
            Ruling::Denied(reasons) => (Todo::Nothing, Some(Outcome::Denied { reasons })),
            Ruling::Delayed { not_before, .. } if self.is_expired(not_before) => {
                let error = format!("a policy delayed it until {not_before}, past its expiration time");
                (Todo::Nothing, Some(Outcome::Expired { error: Some(error) }))
            }
            Ruling::Delayed { not_before, reasons } => {
                (Todo::Ask(not_before), Some(Outcome::Delayed { not_before, reasons }))
            }
            Ruling::Held { error } => {
                // A broken policy opens no window: only the message's own expiration time ends the waiting.
                let pause =
                    retry::pause(self.progress.asked_in_vain, &self.snapshot.delivery, (self.snapshot.jitter)());
                let at = now.checked_add(pause).unwrap_or(Timestamp::MAX);
                if self.is_expired(at) {
                    return (Todo::Nothing, Some(Outcome::Expired { error: Some(error) }));
                }
                (Todo::Ask(at), Some(Outcome::Retry { at, error }))
            }
        }
    }

    /// Whether the message's own expiration time is over then.
    fn is_expired(&self, at: Timestamp) -> bool {
        self.message.expiration_time.as_ref().is_some_and(|t| t.timestamp() <= at)
    }

    /// Takes one channel type as far as it goes.
    async fn carry(&mut self, i: usize, mut carrying: Carrying) {
        let mut pass = self.held.take();
        loop {
            let step = match self.admit(i, &mut carrying, &mut pass).await {
                Some(step) => step,
                None => self.step(i, &mut carrying).await,
            };
            if !matches!(step, Step::Next(_) | Step::Record | Step::Down(_)) {
                carrying.waits_for = None;
            }
            match step {
                Step::Next(stage) => carrying.stage = stage,
                Step::Settled(outcome) => return self.settle(i, carrying.mails, outcome),
                Step::Record => {
                    (carrying.is_recorded, self.is_to_be_recorded) = (true, true);
                    (carrying.due, self.held) = ((self.snapshot.now)(), pass);
                    self.progress.todo[i] = Todo::Carry(carrying);
                    return;
                }
                Step::Failed(error) => {
                    if self.fail_over(i, &mut carrying) {
                        pass = None
                    } else {
                        return self.settle(i, carrying.mails, Outcome::Failed { error });
                    }
                }
                Step::Recoverable { error, suggested } => match self.again(&mut carrying, suggested) {
                    Next::At(at) => return self.wait(i, carrying, at, error),
                    Next::Expired if self.fail_over(i, &mut carrying) => pass = None,
                    Next::Expired => return self.settle(i, carrying.mails, Outcome::Expired { error: Some(error) }),
                },
                Step::Later { error, at } => match self.put_off(&mut carrying, at) {
                    Next::At(at) => return self.wait(i, carrying, at, error),
                    Next::Expired => return self.settle(i, carrying.mails, Outcome::Expired { error: Some(error) }),
                },
                Step::Down(paused) if self.pass_over(i, &mut carrying, &paused) => pass = None,
                Step::Down(paused) => {
                    let error = format!("{}: {}", paused.destination, paused.reason);
                    match self.wait_for(&mut carrying, paused) {
                        Next::At(at) => return self.wait(i, carrying, at, error),
                        Next::Expired => {
                            return self.settle(i, carrying.mails, Outcome::Expired { error: Some(error) });
                        }
                    }
                }
            }
        }
    }

    /// Ends a delivery. What was mailed outweighs how it ended.
    fn settle(&mut self, i: usize, mut mails: Mails, outcome: Outcome) {
        if matches!(outcome, Outcome::Sent { .. }) && self.progress.mailed.is_empty() {
            return self.note(i, outcome);
        }
        let key = self.delivery_key(i);
        let outcome = mails.settle(&key, outcome);
        let (is_sent, channel_type) =
            (matches!(outcome, Outcome::Sent { .. }), &self.progress.report.channels[i].channel_type);
        if is_sent || !mails.is_empty() {
            self.progress.mailed.retain(|mailed| mailed.channel_type != *channel_type);
        }
        if !is_sent {
            self.progress.mailed.extend(mails.kept(channel_type, &key));
        }
        self.note(i, outcome);
    }

    /// What was mailed over a channel type before someone had the message tried again.
    fn mailed(&self, i: usize) -> Mails {
        let channel_type = &self.progress.report.channels[i].channel_type;
        let mailed = self.progress.mailed.iter().find(|mailed| mailed.channel_type == *channel_type);
        mailed.map(|mailed| mailed.mails(&self.delivery_key(i))).unwrap_or_default()
    }

    /// The key of the message over the channel that its report names.
    fn delivery_key(&self, i: usize) -> String {
        self.message.idempotency_key(self.progress.report.channels[i].channel.as_deref().unwrap_or_default())
    }

    fn wait(&mut self, i: usize, mut carrying: Carrying, at: Timestamp, error: String) {
        carrying.due = at;
        let channel_type = &self.progress.report.channels[i].channel_type;
        let seconds = at.duration_since((self.snapshot.now)()).as_secs_f64();
        monitoring::report_for(&self.message, channel_type, monitoring::DELIVERY_RETRIED, seconds);
        self.note(i, Outcome::Retry { at, error });
        self.progress.todo[i] = Todo::Carry(carrying);
    }

    /// Before a channel is used: whether what it hands over to is down, and what its quotas leave. `None`: go on.
    async fn admit(&self, i: usize, carrying: &mut Carrying, pass: &mut Option<ChannelPermit>) -> Option<Step> {
        if self.dry || pass.is_some() || matches!(carrying.stage, Stage::Choose) {
            return None;
        }
        let name = self.progress.report.channels[i].channel.as_deref()?;
        let (waits_for, now) = (carrying.waits_for.as_ref(), (self.snapshot.now)());
        if let Some(paused) = self.snapshot.destinations.paused(name, waits_for, self.message.uuid, now) {
            return Some(Step::Down(paused));
        }
        let limiter = self.snapshot.limiters.get(name)?;
        let arrival = Arrival { is_transactional: self.message.is_transactional(), is_returning: carrying.is_back };
        let acquired = limiter.acquire(arrival, (self.snapshot.now)()).await;
        carrying.is_back = acquired.is_err();
        match acquired {
            Ok(permit) => {
                *pass = Some(permit);
                None
            }
            Err(deferral) => Some(Step::Later { error: format!("{name}: {}", deferral.why), at: Some(deferral.at) }),
        }
    }

    fn note(&mut self, i: usize, outcome: Outcome) {
        let report = &mut self.progress.report.channels[i];
        report.outcome = outcome;
        if report.outcome.is_settled() && !report.outcome.is_absent() && !self.dry {
            monitoring::settled(&self.message, report);
        }
    }

    /// The channel types that the message was not written for are no part of its report, unless nothing else says why it went
    /// nowhere.
    fn leave_out_absent(&mut self) {
        let Progress { todo, report, .. } = &mut self.progress;
        if !report.channels.iter().any(|channel| channel.outcome.is_absent()) {
            return;
        }
        if report.channels.iter().any(|channel| !channel.outcome.is_passed_over()) {
            let mut kept = report.channels.iter().map(|channel| !channel.outcome.is_absent());
            todo.retain(|_| kept.next().unwrap_or(true));
            report.channels.retain(|channel| !channel.outcome.is_absent());
        } else if !self.dry {
            let absent = report.channels.iter().filter(|channel| channel.outcome.is_absent());
            absent.for_each(|channel| monitoring::settled(&self.message, channel));
        }
    }
}

impl Carrying {
    fn new(stage: Stage, due: Timestamp) -> Self {
        Carrying {
            due,
            stage,
            attempts: 0,
            failures: 0,
            unasked: 0,
            opened: None,
            tried: Vec::new(),
            is_recorded: false,
            is_back: false,
            waits_for: None,
            mails: Mails::default(),
        }
    }
}

#[cfg(test)]
mod tests;
