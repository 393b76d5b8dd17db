//! Feedback: what providers report after a delivery. A plugin verifies and reads each request; its events are stored before the provider
//! gets an answer, matched with messages by the queue, and announced as events once that is done.
//!
//! - [`return_path`]: reports that came back to a signed return path
//! - [`suppression`]: events after which an address gets no more mail

mod return_path;
mod suppression;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ace::Ace;
use ace::config;
use ace::internals::monitoring::{self, digest};
use ace::internals::plugin::{Namespace, Plugin, PluginState, Runtime};
use ace::message::{FeedbackAnswer, FeedbackError, FeedbackEvent, Incoming, Received};
use ace::suppression::Reason;
use ace_store::person::address_key;
use ace_store::queue::{Feedback, Lookup, NewEvent, NewFeedback, Queue};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::events;
use crate::worker::Worker;

/// Events that are announced at once.
const PAGE: usize = 500;
/// The longest time between two checks for events to announce.
const POLL_MAX: Duration = Duration::from_secs(1);
/// Requests that are refused in a row before that is logged.
const REFUSED_MAX: u32 = 10;

/// What the provider is answered.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// The events are stored.
    Kept(Option<FeedbackAnswer>),
    /// It is not the provider's.
    Refused,
    /// It cannot be read.
    Malformed,
    /// It may succeed later; why, in words without anything from the plugin.
    Unavailable(&'static str),
}

/// The plugin that reads a request.
pub(crate) struct Reader {
    runtime: Arc<Runtime>,
    /// The channels whose messages it may report about.
    channels: Vec<String>,
}

/// Why no plugin can read a request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NoReader {
    /// No plugin with this name reads feedback.
    Unknown,
    /// The plugin is not active now.
    Inactive,
}

/// Takes what providers report.
pub(crate) struct Intake {
    ace: Arc<Ace>,
    queue: Arc<Queue>,
    suppress: Vec<Reason>,
    /// How many requests in a row each plugin has refused.
    refused: Mutex<HashMap<String, u32>>,
    kept: Notify,
}

/// An event as it is stored, and as the timeline shows it.
#[derive(Serialize)]
struct StoredEvent<'a> {
    plugin: &'a str,
    #[serde(flatten)]
    event: &'a FeedbackEvent,
}

impl Intake {
    pub(crate) fn new(ace: Arc<Ace>, queue: Arc<Queue>, settings: &config::Feedback) -> Self {
        let suppress = settings.suppress.clone();
        Intake { ace, queue, suppress, refused: Mutex::default(), kept: Notify::new() }
    }

    /// The plugin with this name, if it reads feedback.
    ///
    /// # Errors
    /// There is no such plugin, or it is not active.
    pub(crate) fn reader(&self, name: &str) -> Result<Reader, NoReader> {
        let registry = self.ace.registry();
        let plugin = registry.plugins.get(name).filter(|plugin| !plugin.settings.grants.feedback.is_empty());
        let plugin = plugin.ok_or(NoReader::Unknown)?;
        match (&plugin.state, &plugin.runtime) {
            (PluginState::Disabled, _) => Err(NoReader::Unknown),
            (PluginState::Active, Some(runtime)) => readable(plugin)
                .map(|()| Reader { runtime: runtime.clone(), channels: plugin.settings.grants.feedback.clone() }),
            _ => Err(NoReader::Inactive),
        }
    }

    /// Hands a request to the plugin, and stores its events.
    pub(crate) async fn receive(&self, reader: &Reader, request: Incoming) -> Reply {
        let plugin = reader.runtime.settings.name.as_str();
        let (result, reply) = match reader.runtime.receive(&Arc::new(request)).await.answer {
            Ok(Ok(Received { events, answer })) => match self.keep(reader, events).await {
                Ok(()) => {
                    self.accepted(plugin);
                    ("kept", Reply::Kept(answer))
                }
                Err(why) => {
                    failed(
                        plugin,
                        "feedback",
                        &format!("Feedback could not be stored; the provider repeats it: {why}"),
                    );
                    ("unavailable", Reply::Unavailable("the events cannot be stored now"))
                }
            },
            Ok(Err(FeedbackError::Refused(why))) => {
                self.count_refused(plugin, &why);
                ("refused", Reply::Refused)
            }
            Ok(Err(FeedbackError::Malformed(why))) => {
                failed(plugin, "malformed", &format!("Feedback cannot be read: {why}"));
                ("malformed", Reply::Malformed)
            }
            Ok(Err(FeedbackError::Unavailable(why))) => {
                failed(
                    plugin,
                    "unavailable",
                    &format!("Feedback cannot be verified now; the provider repeats it: {why}"),
                );
                ("unavailable", Reply::Unavailable("the request cannot be verified now"))
            }
            Err(fault) => {
                failed(plugin, fault.kind.as_str(), &format!("The plugin failed to read feedback: {}", fault.message));
                ("fault", Reply::Unavailable("the plugin failed"))
            }
        };
        monitoring::feedback_request(plugin, result);
        reply
    }

    /// Stores the events of a request, and their consequences. Consequences come first: a repeated event has none, and a crash between
    /// the two makes the provider repeat it.
    async fn keep(&self, reader: &Reader, mut events: Vec<FeedbackEvent>) -> Result<(), String> {
        let plugin = reader.runtime.settings.name.as_str();
        self.verify_return_paths(&mut events).await?;
        self.suppress(plugin, &events).await?;
        let new: Vec<NewFeedback> = events.iter().map(|event| new_feedback(reader, event)).collect();
        if !new.is_empty() {
            self.queue.accept_feedback(new, self.ace.now()).await.map_err(|error| error.to_string())?;
            self.kept.notify_one();
        }
        events.iter().for_each(|event| monitoring::feedback_event(plugin, &event.kind));
        Ok(())
    }

    fn accepted(&self, plugin: &str) {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).remove(plugin);
    }

    /// Logs that requests are refused, once until one is accepted.
    fn count_refused(&self, plugin: &str, why: &str) {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let count = refused.entry(plugin.to_owned()).or_default();
        *count = count.saturating_add(1);
        if *count == REFUSED_MAX {
            tracing::warn!(
                plugin,
                "The plugin refused {REFUSED_MAX} requests in a row: {why}. Either somebody else sends them, or its secret is not the \
                 provider's. This is logged again after a request was accepted."
            );
        }
    }

    /// Emits the events of stored feedback, until `stop`.
    pub(crate) async fn announce(self: Arc<Self>, worker: Arc<Worker>, events_are_kept: bool, stop: CancellationToken) {
        let stored = events_are_kept.then_some(event as fn(&Feedback) -> NewEvent);
        loop {
            match self.queue.announce_feedback(stored, PAGE, self.ace.now()).await {
                Ok(announced) if announced.is_empty() => {}
                Ok(announced) => {
                    announced.iter().for_each(|feedback| worker.notify(events::of_feedback(feedback)));
                    continue;
                }
                // The queue has logged it, once.
                Err(error) => tracing::debug!("Feedback could not be announced; retrying in {POLL_MAX:?}: {error}"),
            }
            tokio::select! {
                () = self.kept.notified() => {}
                () = tokio::time::sleep(POLL_MAX) => {}
                () = stop.cancelled() => return,
            }
        }
    }
}

/// Whether an active plugin reads feedback.
fn readable(plugin: &Plugin) -> Result<(), NoReader> {
    match (plugin.namespaces.contains(&Namespace::Feedback), &plugin.feedback_refused) {
        (false, _) => Err(NoReader::Unknown),
        (true, Some(_)) => Err(NoReader::Inactive),
        (true, None) => Ok(()),
    }
}

fn new_feedback(reader: &Reader, event: &FeedbackEvent) -> NewFeedback {
    let plugin = reader.runtime.settings.name.as_str();
    let body = serde_json::to_vec(&StoredEvent { plugin, event }).expect("it has only string keys");
    NewFeedback {
        plugin: plugin.to_owned(),
        id: event.id.clone(),
        lookup: Lookup {
            channels: reader.channels.clone(),
            uuid: event.message_uuid,
            provider_id: event.provider_id.clone(),
            message_id: event.message_id.clone(),
        },
        address: event.address.as_ref().map(|address| address_key(&address.kind, &address.address)),
        body,
    }
}

fn event(feedback: &Feedback) -> NewEvent {
    events::of_feedback(feedback).to_event()
}

/// The feedback as a timeline shows it.
pub(crate) fn view(feedback: &Feedback) -> Value {
    let mut view = events::feedback_data(feedback);
    view["received_at"] = json!(feedback.at);
    view
}

/// Logs a request that came to nothing: at most once a minute for each reason.
fn failed(plugin: &str, kind: &'static str, text: &str) {
    digest::failed(&digest::Failure { source: plugin, kind, message: None, text });
}
