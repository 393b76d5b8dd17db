//! One message's way: policies, channel, presentation, delivery. No storage and no sleeping: what is not settled says when
//! it wants to be taken up again, and whoever runs the pipeline sees to it.

use std::sync::Arc;

use jiff::Timestamp;

use crate::channel::{self, Channel, ChannelMap, Limit};
use crate::config::{Config, Delivery, Routing};
use crate::delivery::{self, Delivered};
use crate::message::{Attempt, ChannelReport, ChannelType, Message, Outcome, Rendered, RenderedFile, Report, Rule};
use crate::monitoring;
use crate::policy::{self, Ruling, Slot};
use crate::presentation::{Presentation, Subject};
use crate::retry::{self, Next};

/// Everything a send looks at. A send sees one snapshot from its beginning to its end.
pub struct Snapshot {
    pub policies: Vec<Slot>,
    pub channels: ChannelMap,
    pub presentation: Arc<Presentation>,
    pub routing: Routing,
    pub delivery: Delivery,
    /// The clock; tests bring their own.
    pub now: fn() -> Timestamp,
    /// A number in 0..1 for each retry.
    pub jitter: fn() -> f64,
}

impl Snapshot {
    /// No policies, no channels, no templates.
    pub fn nothing(config: Config, now: fn() -> Timestamp, jitter: fn() -> f64) -> Self {
        Snapshot {
            policies: Vec::new(),
            channels: ChannelMap::default(),
            presentation: Arc::new(Presentation::load(&[], &Default::default())),
            routing: config.routing,
            delivery: config.delivery,
            now,
            jitter,
        }
    }
}

/// A message on its way, until every channel type is settled.
pub struct InFlight {
    pub message: Arc<Message>,
    snapshot: Arc<Snapshot>,
    limit: Limit,
    /// Only look: policies change nothing, nothing is delivered, and what was rendered is kept.
    dry: bool,
    report: Report,
    /// For each channel type of the report, what is left to do.
    todo: Vec<Todo>,
    /// How often the policies were asked in vain because one of them broke.
    asked_in_vain: u32,
}

enum Todo {
    Nothing,
    /// Ask the policies again then.
    Ask(Timestamp),
    Carry(Carrying),
}

/// One channel type on its way past the policies.
struct Carrying {
    due: Timestamp,
    stage: Stage,
    /// Attempts made over the present channel.
    attempts: u32,
    /// When the window for the present channel opened.
    opened: Option<Timestamp>,
    /// Channels that failed.
    tried: Vec<String>,
}

enum Stage {
    Choose,
    Render(Arc<dyn Channel>),
    Deliver(Arc<dyn Channel>, Vec<(String, String)>),
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
            channels
                .push(new_report(channel_type, outcome.unwrap_or(Outcome::Retry { at: now, error: String::new() })));
        }
        let report = Report { uuid: message.uuid, name: message.unique_name(), policies: Vec::new(), channels };
        InFlight { message, snapshot, limit, dry, report, todo, asked_in_vain: 0 }
    }

    /// When it wants to be taken up again; `None` once every channel type is settled.
    pub fn due(&self) -> Option<Timestamp> {
        let due = self.todo.iter().filter_map(|todo| match todo {
            Todo::Nothing => None,
            Todo::Ask(at) => Some(*at),
            Todo::Carry(carrying) => Some(carrying.due),
        });
        due.min()
    }

    /// Goes on with another snapshot, as when the policies are asked again hours later. A delivery that has begun stays
    /// with the channel it began with.
    pub fn adopt(&mut self, snapshot: Arc<Snapshot>) {
        self.snapshot = snapshot;
    }

    /// What has happened so far.
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// What has happened, when nothing more is to be tried.
    pub fn into_report(self) -> Report {
        self.report
    }

    /// Does everything that is due now.
    pub async fn advance(&mut self) {
        let now = (self.snapshot.now)();
        if self.todo.iter().any(|todo| matches!(todo, Todo::Ask(at) if *at <= now)) {
            self.ask(now).await;
        }
        for i in 0..self.todo.len() {
            match std::mem::replace(&mut self.todo[i], Todo::Nothing) {
                Todo::Carry(carrying) if carrying.due <= now => self.carry(i, carrying).await,
                other => self.todo[i] = other,
            }
        }
    }

    /// Asks the policies about every type that waits for them.
    async fn ask(&mut self, now: Timestamp) {
        let waiting: Vec<usize> = (0..self.todo.len()).filter(|i| matches!(self.todo[*i], Todo::Ask(_))).collect();
        let types: Vec<ChannelType> = waiting.iter().map(|i| self.report.channels[*i].channel_type.clone()).collect();
        let decision = policy::channels_for(&self.snapshot.policies, &types, &self.message, now, self.dry).await;
        self.report.policies = decision.reports;
        self.asked_in_vain += 1;
        for (i, (_, ruling)) in waiting.into_iter().zip(decision.rulings) {
            let (todo, outcome) = self.obey(ruling, now);
            self.todo[i] = todo;
            if let Some(outcome) = outcome {
                self.note(i, outcome);
            }
        }
    }

    fn obey(&self, ruling: Ruling, now: Timestamp) -> (Todo, Option<Outcome>) {
        let over = |at: Timestamp| self.message.expiration_time.as_ref().is_some_and(|t| t.timestamp() <= at);
        match ruling {
            Ruling::Allowed => (Todo::Carry(Carrying::new(Stage::Choose, now)), None),
            Ruling::Denied(reasons) => (Todo::Nothing, Some(Outcome::Denied { reasons })),
            Ruling::Delayed { not_before, .. } if over(not_before) => {
                let error = format!("a policy delayed it until {not_before}, past its expiration time");
                (Todo::Nothing, Some(Outcome::Expired { error: Some(error) }))
            }
            Ruling::Delayed { not_before, reasons } => {
                (Todo::Ask(not_before), Some(Outcome::Delayed { not_before, reasons }))
            }
            Ruling::Held { error } => {
                // A broken policy opens no window: only the message's own expiration time ends the waiting.
                let pause = retry::pause(self.asked_in_vain, &self.snapshot.delivery, (self.snapshot.jitter)());
                let at = now.checked_add(pause).unwrap_or(Timestamp::MAX);
                if over(at) {
                    return (Todo::Nothing, Some(Outcome::Expired { error: Some(error) }));
                }
                (Todo::Ask(at), Some(Outcome::Retry { at, error }))
            }
        }
    }

    /// Takes one channel type as far as it goes.
    async fn carry(&mut self, i: usize, mut carrying: Carrying) {
        loop {
            match self.step(i, &mut carrying).await {
                Step::Next(stage) => carrying.stage = stage,
                Step::Settled(outcome) => return self.note(i, outcome),
                Step::Failed(error) => match self.fail_over(i, &mut carrying) {
                    true => {}
                    false => return self.note(i, Outcome::Failed { error }),
                },
                Step::Recoverable { error, suggested } => match self.again(&mut carrying, suggested) {
                    Next::At(at) => {
                        carrying.due = at;
                        self.note(i, Outcome::Retry { at, error });
                        self.todo[i] = Todo::Carry(carrying);
                        return;
                    }
                    Next::Expired if self.fail_over(i, &mut carrying) => {}
                    Next::Expired => return self.note(i, Outcome::Expired { error: Some(error) }),
                },
            }
        }
    }

    async fn step(&mut self, i: usize, carrying: &mut Carrying) -> Step {
        let now = (self.snapshot.now)();
        if self.message.expiration_time.as_ref().is_some_and(|t| t.timestamp() <= now) {
            return Step::Settled(Outcome::Expired { error: None });
        }
        match std::mem::replace(&mut carrying.stage, Stage::Choose) {
            Stage::Choose => self.choose(i).await,
            Stage::Render(channel) => self.render(i, carrying, channel).await,
            Stage::Deliver(channel, rendered) => self.deliver(i, carrying, channel, rendered).await,
        }
    }

    async fn choose(&mut self, i: usize) -> Step {
        let report = &mut self.report.channels[i];
        let snapshot = &self.snapshot;
        let found = channel::candidates(
            &snapshot.channels,
            &snapshot.routing,
            &self.limit,
            &report.channel_type,
            &self.message,
        );
        report.passed_over = found.passed_over;
        match channel::choose(found.channels, &self.message).await {
            Err(fault) => Step::Recoverable { error: fault.to_string(), suggested: None },
            Ok(None) => {
                let reason = format!("no channel carries {}", report.channel_type);
                Step::Settled(Outcome::Unsupported { reason })
            }
            Ok(Some((channel, rule))) => {
                take(report, channel.as_ref(), rule);
                Step::Next(Stage::Render(channel))
            }
        }
    }

    async fn render(&mut self, i: usize, carrying: &mut Carrying, channel: Arc<dyn Channel>) -> Step {
        let asked = async {
            let links = channel.action_links(&self.message).await?;
            Ok::<_, crate::message::Fault>((links, channel.tracker_image_sources(&self.message).await?))
        };
        let (action_links, tracker_image_sources) = match asked.await {
            Ok(answers) => answers,
            Err(fault) => {
                carrying.stage = Stage::Render(channel);
                return Step::Recoverable { error: fault.to_string(), suggested: None };
            }
        };
        let subject = Subject {
            channel: channel.name(),
            channel_type: channel.channel_type(),
            files: channel.template_files(),
            action_links: &action_links,
            tracker_image_sources: &tracker_image_sources,
        };
        let report = &mut self.report.channels[i];
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
                Step::Next(Stage::Deliver(channel, texts.collect()))
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
        carrying.opened.get_or_insert_with(self.snapshot.now);
        self.report.channels[i].attempts += 1;
        let attempt =
            Attempt { number: carrying.attempts + 1, idempotency_key: self.message.idempotency_key(channel.name()) };
        match delivery::deliver(channel.as_ref(), &self.message, &rendered, &attempt).await {
            Delivered::Settled(outcome) => Step::Settled(outcome),
            Delivered::Fatal(error) => Step::Failed(error),
            Delivered::Recoverable { error, suggested } => {
                carrying.stage = Stage::Deliver(channel, rendered);
                Step::Recoverable { error, suggested }
            }
        }
    }

    /// Counts the failed try and says when the next one is.
    fn again(&self, carrying: &mut Carrying, suggested: Option<Timestamp>) -> Next {
        let now = (self.snapshot.now)();
        carrying.attempts += 1;
        let opened = *carrying.opened.get_or_insert(now);
        let expiration_time = self.message.expiration_time.as_ref().map(|t| t.timestamp());
        let end = retry::window_end(opened, expiration_time, &self.snapshot.delivery);
        retry::next(now, carrying.attempts, suggested, end, &self.snapshot.delivery, (self.snapshot.jitter)())
    }

    /// Turns to the next channel of the failover list, where there is one.
    fn fail_over(&mut self, i: usize, carrying: &mut Carrying) -> bool {
        let report = &mut self.report.channels[i];
        let Some(failed) = report.channel.clone() else { return false };
        carrying.tried.push(failed.clone());
        let snapshot = &self.snapshot;
        let next = channel::failover(
            &snapshot.channels,
            &snapshot.routing,
            &self.limit,
            &report.channel_type,
            &carrying.tried,
        );
        let Some(next) = next else { return false };
        report.passed_over.push(format!("{failed}: failed"));
        take(report, next.as_ref(), Rule::Failover);
        let tried = std::mem::take(&mut carrying.tried);
        *carrying = Carrying { tried, ..Carrying::new(Stage::Render(next), carrying.due) };
        true
    }

    fn note(&mut self, i: usize, outcome: Outcome) {
        let report = &mut self.report.channels[i];
        report.outcome = outcome;
        if report.outcome.is_settled() && !self.dry {
            monitoring::settled(&self.message, report);
        }
    }
}

impl Carrying {
    fn new(stage: Stage, due: Timestamp) -> Self {
        Carrying { due, stage, attempts: 0, opened: None, tried: Vec::new() }
    }
}

/// What one stage came to.
enum Step {
    Next(Stage),
    Settled(Outcome),
    Failed(String),
    Recoverable { error: String, suggested: Option<Timestamp> },
}

fn new_report(channel_type: ChannelType, outcome: Outcome) -> ChannelReport {
    ChannelReport {
        channel_type,
        channel: None,
        revision: String::new(),
        rule: None,
        passed_over: Vec::new(),
        templates: Vec::new(),
        language: None,
        language_note: None,
        rendered: None,
        attempts: 0,
        outcome,
    }
}

fn take(report: &mut ChannelReport, channel: &dyn Channel, rule: Rule) {
    report.channel = Some(channel.name().to_owned());
    report.revision = channel.revision().to_owned();
    report.rule = Some(rule);
}

#[cfg(test)]
mod tests;
