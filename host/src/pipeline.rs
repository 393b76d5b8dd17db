//! One message's way: policies, channel, presentation, delivery. No storage and no sleeping: what is not settled says when
//! it wants to be taken up again, and whoever runs the pipeline sees to it.

use std::sync::Arc;
use std::time::Instant;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use tracing::Instrument;

use crate::channel::gates::{Gates, Pass};
use crate::channel::{self, Channel, ChannelMap, Limit};
use crate::config::{Delivery, Guarantee, Routing};
use crate::delivery::{self, Delivered};
use crate::message::{
    Attempt, AttemptReport, ChannelReport, ChannelType, FaultKind, HISTORY_MAX, Message, Notes, Outcome, Rendered,
    RenderedFile, Report, Rule,
};
use crate::monitoring;
use crate::policy::{self, Ruling, Slot};
use crate::presentation::{Presentation, Subject};
use crate::retry::{self, Next};

/// A clock that is corrected by less is as good as right.
const CLOCK_SLACK: SignedDuration = SignedDuration::from_secs(2);

/// Everything a send looks at. A send sees one snapshot from its beginning to its end.
pub struct Snapshot {
    pub policies: Vec<Slot>,
    pub channels: ChannelMap,
    pub presentation: Arc<Presentation>,
    pub routing: Routing,
    pub delivery: Delivery,
    pub gates: Gates,
    /// The clock; tests bring their own.
    pub now: fn() -> Timestamp,
    /// A number in 0..1 for each retry.
    pub jitter: fn() -> f64,
}

/// A message on its way, until every channel type is settled.
pub struct InFlight {
    pub message: Arc<Message>,
    snapshot: Arc<Snapshot>,
    /// Only look: policies change nothing, nothing is delivered, and what was rendered is kept.
    dry: bool,
    progress: Progress,
    /// The next step is an attempt that must not be made twice.
    is_to_be_recorded: bool,
    /// The right to make that attempt.
    held: Option<Pass>,
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
}

#[derive(Debug, Clone, Serialize, Deserialize)]
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
        let progress = Progress { limit, report, todo, asked_in_vain: 0, seen: Some(now) };
        InFlight { message, snapshot, dry, progress, is_to_be_recorded: false, held: None }
    }

    /// A message that was put away goes on. An attempt that was recorded and has no result is not made again.
    pub fn resume(snapshot: Arc<Snapshot>, message: Arc<Message>, progress: Progress) -> Self {
        let mut flight = InFlight { message, snapshot, dry: false, progress, is_to_be_recorded: false, held: None };
        flight.follow_clock((flight.snapshot.now)());
        for i in 0..flight.progress.todo.len() {
            if matches!(&flight.progress.todo[i], Todo::Carry(carrying) if carrying.is_recorded) {
                flight.progress.todo[i] = Todo::Nothing;
                let reason = "the host ended during the attempt, and its channel delivers at most once".to_owned();
                flight.note(i, Outcome::MaybeSent { reason });
            }
        }
        flight
    }

    /// Notes that the host ended while the message was under way: what it was doing then may be done twice.
    pub fn was_interrupted(&mut self, noticed: Timestamp) {
        self.progress.report.interruptions.push(noticed);
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
    }

    /// A window is used up by the pauses between attempts alone: not by what came on top of them (a queue, a paused batch, no
    /// process, a clock that was set forward), and a clock that was set back makes neither a pause nor a window longer.
    fn follow_clock(&mut self, now: Timestamp) {
        let set_back = self.progress.seen.replace(now).map_or(SignedDuration::ZERO, |seen| seen.duration_since(now));
        let is_set_back = set_back > CLOCK_SLACK;
        for (todo, report) in self.progress.todo.iter_mut().zip(&self.progress.report.channels) {
            let moved_by = |by: SignedDuration| move |at: Timestamp| at.checked_add(by).unwrap_or(at);
            match todo {
                // A policy's delay ends at a moment of the day, and the pause after a broken policy does not.
                Todo::Ask(at) if is_set_back && matches!(report.outcome, Outcome::Retry { .. }) => {
                    *at = moved_by(-set_back)(*at);
                }
                Todo::Carry(carrying) if is_set_back || !carrying.is_recorded => {
                    let late = now.duration_since(carrying.due).max(SignedDuration::ZERO);
                    let moved = moved_by(if is_set_back { -set_back } else { late });
                    (carrying.due, carrying.opened) = (moved(carrying.due), carrying.opened.map(moved));
                }
                _ => {}
            }
        }
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
            let step = match self.admit(i, &carrying, &mut pass).await {
                Some(step) => step,
                None => self.step(i, &mut carrying).await,
            };
            match step {
                Step::Next(stage) => carrying.stage = stage,
                Step::Settled(outcome) => return self.note(i, outcome),
                Step::Record => {
                    (carrying.is_recorded, self.is_to_be_recorded) = (true, true);
                    (carrying.due, self.held) = ((self.snapshot.now)(), pass);
                    self.progress.todo[i] = Todo::Carry(carrying);
                    return;
                }
                Step::Failed(error) => match self.fail_over(i, &mut carrying) {
                    true => pass = None,
                    false => return self.note(i, Outcome::Failed { error }),
                },
                Step::Recoverable { error, suggested } => match self.again(&mut carrying, suggested) {
                    Next::At(at) => return self.wait(i, carrying, at, error),
                    Next::Expired if self.fail_over(i, &mut carrying) => pass = None,
                    Next::Expired => return self.note(i, Outcome::Expired { error: Some(error) }),
                },
                Step::Later { error, at } => match self.put_off(&mut carrying, at) {
                    Next::At(at) => return self.wait(i, carrying, at, error),
                    Next::Expired => return self.note(i, Outcome::Expired { error: Some(error) }),
                },
            }
        }
    }

    fn wait(&mut self, i: usize, mut carrying: Carrying, at: Timestamp, error: String) {
        carrying.due = at;
        let channel_type = &self.progress.report.channels[i].channel_type;
        let seconds = at.duration_since((self.snapshot.now)()).as_secs_f64();
        monitoring::report_for(&self.message, channel_type, monitoring::DELIVERY_RETRIED, seconds);
        self.note(i, Outcome::Retry { at, error });
        self.progress.todo[i] = Todo::Carry(carrying);
    }

    /// Before a channel is used: what its quotas leave. `None`: go on.
    async fn admit(&self, i: usize, carrying: &Carrying, pass: &mut Option<Pass>) -> Option<Step> {
        if self.dry || pass.is_some() || matches!(carrying.stage, Stage::Choose) {
            return None;
        }
        let name = self.progress.report.channels[i].channel.as_deref()?;
        let gate = self.snapshot.gates.get(name)?;
        match gate.enter(self.message.is_transactional(), (self.snapshot.now)()).await {
            Ok(entered) => {
                *pass = Some(entered);
                None
            }
            Err(later) => Some(Step::Later { error: format!("{name}: {}", later.why), at: Some(later.at) }),
        }
    }

    async fn step(&mut self, i: usize, carrying: &mut Carrying) -> Step {
        if self.is_expired((self.snapshot.now)()) {
            return Step::Settled(Outcome::Expired { error: None });
        }
        let stage = std::mem::take(&mut carrying.stage);
        if let Stage::Choose = stage {
            return self.choose(i).await;
        }
        let report = &mut self.progress.report.channels[i];
        let name = report.channel.clone().unwrap_or_default();
        let Some(channel) = self.snapshot.channels.find(&report.channel_type, &name).cloned() else {
            report.passed_over.push(format!("{name}: it is not there any more"));
            return match carrying.tried.is_empty() {
                true => Step::Next(Stage::Choose),
                false => Step::Failed(format!("{name}: the channel is not there any more")),
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
        let notes = Notes::default();
        let chosen = channel::choose(found.channels, &self.message, &notes).await;
        report.refused.extend(notes.into_refused());
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
        let notes = Notes::default();
        let asked = async {
            let links = channel.action_links(&self.message, &notes).await?;
            Ok::<_, crate::message::Fault>((links, channel.tracker_image_sources(&self.message, &notes).await?))
        };
        let asked = asked.await;
        self.progress.report.channels[i].refused.extend(notes.into_refused());
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
        let gate = self.snapshot.gates.get(channel.name());
        if gate.is_some_and(|g| g.settings.delivery == Guarantee::AtMostOnce) && !carrying.is_recorded {
            carrying.stage = Stage::Deliver(rendered);
            return Step::Record;
        }
        let (at, started, notes) = ((self.snapshot.now)(), Instant::now(), Notes::default());
        let attempt =
            Attempt { number: carrying.attempts + 1, idempotency_key: self.message.idempotency_key(channel.name()) };
        let span = monitoring::trace::delivery_span(channel.name(), channel.revision(), attempt.number);
        let delivering = delivery::deliver(channel.as_ref(), &self.message, &rendered, &attempt, &notes);
        let delivered = delivering.instrument(span).await;
        carrying.is_recorded = false;
        let pause = notes.pause().filter(|_| matches!(delivered, Delivered::Recoverable { .. }));
        if let (Some(gate), Some(pause)) = (gate, pause) {
            // Nobody else need be told the same.
            gate.close(pause, (self.snapshot.now)());
        }
        let report = &mut self.progress.report.channels[i];
        report.refused.extend(notes.into_refused());
        if let Delivered::Unavailable(error) = delivered {
            carrying.stage = Stage::Deliver(rendered);
            return Step::Later { error, at: None };
        }
        let took = started.elapsed();
        let opened = *carrying.opened.get_or_insert(at);
        let now = (self.snapshot.now)();
        let jumped = now.duration_since(at) - SignedDuration::try_from(took).unwrap_or_default();
        if jumped.abs() > CLOCK_SLACK {
            // The clock was set meanwhile, and the window goes with it.
            carrying.opened = Some(opened.checked_add(jumped).unwrap_or(opened));
            self.progress.seen = Some(now);
        }
        carrying.attempts += 1;
        report.attempts += 1;
        let (result, answer) = delivered.told();
        let took_us = took.as_micros() as u64;
        let (name, revision) = (channel.name().to_owned(), channel.revision().to_owned());
        let number = attempt.number;
        remember(report, AttemptReport { at, channel: name, revision, number, took_us, result, answer });
        match delivered {
            Delivered::Settled(outcome) => Step::Settled(outcome),
            Delivered::Fatal(error) => Step::Failed(error),
            Delivered::Recoverable { error, suggested } => {
                carrying.stage = Stage::Deliver(rendered);
                Step::Recoverable { error, suggested }
            }
            Delivered::Unavailable(error) => Step::Later { error, at: None },
        }
    }

    /// Counts the failed try and says when the next one is. Who was told when to come back has not failed.
    fn again(&self, carrying: &mut Carrying, suggested: Option<Timestamp>) -> Next {
        let now = (self.snapshot.now)();
        if suggested.is_none_or(|at| at <= now) {
            carrying.failures += 1;
        }
        let opened = *carrying.opened.get_or_insert(now);
        let expiration_time = self.message.expiration_time.as_ref().map(|t| t.timestamp());
        let end = retry::window_end(opened, expiration_time, &self.snapshot.delivery);
        retry::next(now, carrying.failures, suggested, end, &self.snapshot.delivery, (self.snapshot.jitter)())
    }

    /// When to come back to a channel that could not be asked: its quota is used up, or its circuit is open. That uses nothing
    /// up: an open window is as much longer, and only the message's own expiration time ends the waiting.
    fn put_off(&self, carrying: &mut Carrying, at: Option<Timestamp>) -> Next {
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

    /// Turns to the next channel of the failover list, where there is one.
    fn fail_over(&mut self, i: usize, carrying: &mut Carrying) -> bool {
        let report = &mut self.progress.report.channels[i];
        let Some(failed) = report.channel.clone() else { return false };
        carrying.tried.push(failed.clone());
        let snapshot = &self.snapshot;
        let next = channel::failover(
            &snapshot.channels,
            &snapshot.routing,
            &self.progress.limit,
            &report.channel_type,
            &carrying.tried,
        );
        let Some(next) = next else { return false };
        report.passed_over.push(format!("{failed}: failed"));
        take(report, next.as_ref(), Rule::Failover);
        let tried = std::mem::take(&mut carrying.tried);
        *carrying = Carrying { tried, ..Carrying::new(Stage::Render, carrying.due) };
        true
    }

    fn note(&mut self, i: usize, outcome: Outcome) {
        let report = &mut self.progress.report.channels[i];
        report.outcome = outcome;
        if report.outcome.is_settled() && !self.dry {
            monitoring::settled(&self.message, report);
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
        }
    }
}

/// What one stage came to.
enum Step {
    Next(Stage),
    /// The attempt must be written down before it is made.
    Record,
    Settled(Outcome),
    Failed(String),
    Recoverable {
        error: String,
        suggested: Option<Timestamp>,
    },
    /// The channel was not asked. `at`: when to come back, where that is known.
    Later {
        error: String,
        at: Option<Timestamp>,
    },
}

fn remember(report: &mut ChannelReport, attempt: AttemptReport) {
    monitoring::attempted(&attempt);
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

#[cfg(test)]
mod tests;
