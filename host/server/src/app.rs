//! The composition root of `ace serve`: the engine, the queue, the workers and the HTTP server, and how they start and stop.
//! The only module that knows all of them.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ace::config::{Config, Defaults};
use ace::internals::engine::Notice;
use ace::internals::monitoring::{self, Exposition};
use ace::internals::plugin::registry::ChangeKind;
use ace::internals::tasks::{self, Panicked, Pauses, Tasks};
use ace::internals::tls::{self, TlsError};
use ace::watch::Watch;
use ace::{Ace, StartError};
use ace_store::queue::{self, OpenError, Queue, QueueError};
use futures_util::FutureExt;
use jiff::Timestamp;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::events;
use crate::events::webhooks::{Webhook, WebhookError};
use crate::feedback::Intake;
use crate::gauges;
use crate::http::{self, Api, ClientLimits, Rates, listen};
use crate::intake;
use crate::service;
use crate::tokens::{TokenError, Tokens};
use crate::worker::Worker;

/// The key in the queue's database of the policies that were enforced before a restart.
const ENFORCED: &str = "enforced-policies";
/// The interval of maintenance: retention, tokens and metrics.
const MAINTENANCE_INTERVAL: Duration = Duration::from_secs(5);
/// How long to wait for space on a full disk before opening the queue again.
const FULL_PAUSE: Duration = Duration::from_secs(1);
/// How long a start waits for another process to close the queue: the server that it replaces is finishing its messages.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);
/// How long to wait before trying to open a queue again that another process has open.
const LOCK_PAUSE: Duration = Duration::from_millis(100);
/// How long a shutdown waits for its record to be written.
const RECORD_TIMEOUT: Duration = Duration::from_secs(2);

/// Why a server does not start.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
#[non_exhaustive]
pub enum ServeError {
    #[error(transparent)]
    Engine(#[from] StartError),
    #[error("the queue {0}")]
    Queue(#[from] OpenError),
    #[error("{0}")]
    Store(#[from] QueueError),
    #[error("server.tokens-file {0}")]
    Tokens(#[from] TokenError),
    #[error("server: {0}")]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Webhook(#[from] WebhookError),
    #[error(transparent)]
    Panicked(#[from] Panicked),
    #[error("server.tokens-file {0} contains no token\nhint: ace token create NAME --scope send")]
    NoToken(String),
}

/// A server that is ready to run.
pub struct App {
    api: Arc<Api>,
    tls: Option<TlsAcceptor>,
    webhooks: Vec<Webhook>,
}

impl App {
    /// Builds everything from one configuration. Nothing is sent and no connection is accepted yet.
    ///
    /// # Errors
    /// The configuration, the tokens, the certificate or a webhook is invalid, or the queue cannot be opened.
    pub async fn start(mut config: Config, metrics: Option<Exposition>) -> Result<App, ServeError> {
        if metrics.is_some() {
            gauges::describe();
        }
        let settings = config.clone();
        let Opened { queue, tokens, tls, webhooks } = open_when_possible(settings).await?;
        let before = queue.get_meta(ENFORCED).await?.unwrap_or_default();
        config.delivery.defaults = Defaults::Serve;
        config.fixed.enforced_before = serde_json::from_str(&before).unwrap_or_default();
        let ace = Arc::new(Ace::builder(config.clone()).start().await?);
        queue.set_webhooks(config.fixed.webhooks.keys().cloned().collect()).await?;
        let current = ace.clone();
        let are_kept = config.fixed.events.keep || !config.fixed.webhooks.is_empty();
        let event_options = events::EventOptions { context: config.fixed.events.context, are_kept };
        let slots = config.delivery.concurrency.max(2);
        let worker = Worker::new(queue.clone(), move || current.snapshot(), slots, event_options);
        let stop = CancellationToken::new();
        let server = &config.fixed.server;
        let reading = ClientLimits { timeout: server.read_timeout, min_rate: server.min_rate, stop: stop.clone() };
        let feedback = config.fixed.feedback.clone();
        let api = Api {
            feedback: Arc::new(Intake::new(ace.clone(), queue.clone(), &feedback)),
            feedback_rates: Rates::new(Some(feedback.requests_per_second)),
            feedback_permits: Semaphore::new(feedback.max_requests),
            feedback_settings: feedback,
            ace,
            queue,
            worker,
            tokens,
            rates: Rates::new(config.fixed.server.requests_per_second),
            metrics,
            events_are_kept: are_kept,
            settings: config.fixed.server.clone(),
            max_body_bytes: config.delivery.max_message_bytes,
            tasks: Tasks::new(Pauses::default(), stop.clone()),
            reading: Arc::new(reading),
            stop,
        };
        Ok(App { api: Arc::new(api), tls, webhooks })
    }

    /// Serves until `shutdown` completes and then finishes messages in flight, within `server.drain`. Returns early if it cannot
    /// continue.
    pub async fn run(self, listener: TcpListener, shutdown: impl Future<Output = ()>) -> Ending {
        let App { api, tls, webhooks } = self;
        let running = start_tasks(&api, webhooks);
        // The listener takes connections already, and a SIGHUP reloads from now on.
        service::ready();
        let ending = tokio::select! {
            ending = serve(&api, listener, tls, shutdown) => ending,
            part = part_lost(&api) => {
                tracing::error!(
                    "Because of a bug {part} has ended. It cannot be restarted, so the process ends. Accepted messages \
                     are kept: start the server again."
                );
                Ending::Lost
            }
        };
        running.iter().for_each(JoinHandle::abort);
        api.ace.close().await;
        ending
    }
}

/// How a server ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It was stopped, and everything in flight was finished.
    Drained,
    /// It was stopped before everything in flight was finished.
    Cut,
    /// A part of it that cannot be restarted has ended.
    Lost,
}

/// The result of a task that ends only when the server stops.
const NEVER_FAILS: fn(()) -> Result<(), Infallible> = Ok;

/// Starts the background tasks. Each is restarted when it fails.
fn start_tasks(api: &Arc<Api>, webhooks: Vec<Webhook>) -> Vec<JoinHandle<()>> {
    let (tasks, stop) = (&api.tasks, &api.stop);
    let mut running = Vec::new();
    for webhook in webhooks {
        let (webhook, api, stop) = (Arc::new(webhook), api.clone(), stop.clone());
        running.push(tasks.keep(format!("webhook {}", webhook.name()), move || {
            webhook.clone().run(api.worker.listen(), stop.clone()).map(NEVER_FAILS)
        }));
    }
    let ace = api.ace.clone();
    running.push(tasks.keep("watch", move || Watch::start(ace.clone()).on_hangup(service::announce_reload).run()));
    if let Some(interval) = service::watchdog_interval() {
        let queue = api.queue.clone();
        running.push(tasks.keep("watchdog", move || {
            let queue = queue.clone();
            async move { service::feed_watchdog(&queue, interval, service::feed).await }
        }));
    }
    let maintained = api.clone();
    running.push(tasks.keep("maintenance", move || maintain(maintained.clone())));
    let worker = api.worker.clone();
    running.push(tasks.keep("worker", move || worker.clone().run().map(NEVER_FAILS)));
    let worker = api.worker.clone();
    running.push(tasks.keep("held messages", move || worker.clone().release_blocked().map(NEVER_FAILS)));
    let worker = api.worker.clone();
    running.push(tasks.keep("destination events", move || worker.clone().emit_destination_events().map(NEVER_FAILS)));
    let announcing = api.clone();
    running.push(tasks.keep("feedback", move || {
        let (worker, stop) = (announcing.worker.clone(), announcing.stop.clone());
        announcing.feedback.clone().announce(worker, announcing.events_are_kept, stop).map(NEVER_FAILS)
    }));
    let reloads = api.clone();
    running.push(tasks.keep("reload events", move || emit_reload_events(reloads.clone(), reloads.ace.notices())));
    let (ace, queue, stop) = (api.ace.clone(), api.queue.clone(), stop.clone());
    running.push(
        tasks.keep("resolvers", move || {
            intake::resolve_batches(ace.clone(), queue.clone(), stop.clone()).map(NEVER_FAILS)
        }),
    );
    running
}

/// Serves requests until `shutdown` completes, and drains.
async fn serve(
    api: &Arc<Api>,
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    shutdown: impl Future<Output = ()>,
) -> Ending {
    let stop = api.stop.clone();
    let router = http::router(api.clone());
    let serving = tasks::caught(listen::serve(listener, tls, router, &api.settings, stop.clone()));
    tokio::pin!(serving);
    let served = tokio::select! {
        served = &mut serving => served,
        () = shutdown => {
            tracing::info!("The server is stopping: messages in flight are finished, the others stay in the queue.");
            service::stopping(api.settings.drain);
            stop.cancel();
            record_shutdown(&api.queue).await;
            serving.await
        }
    };
    if let Err(panicked) = served {
        tracing::error!("Connections can no longer be accepted; the process ends: {panicked}");
        return Ending::Lost;
    }
    if api.worker.drain(api.settings.drain).await { Ending::Drained } else { Ending::Cut }
}

/// Completes when a part that cannot be restarted has ended. Returns its name.
async fn part_lost(api: &Api) -> &'static str {
    tokio::select! {
        () = api.queue.writer_ended() => "the thread that writes the queue",
        part = api.ace.ended() => part,
    }
}

/// The files that a server uses, opened and read.
struct Opened {
    queue: Arc<Queue>,
    tokens: Option<Tokens>,
    tls: Option<TlsAcceptor>,
    webhooks: Vec<Webhook>,
}

/// Calls [`open`]. If the disk is full, waits until there is space; if another process has the queue open, waits some seconds for its
/// end. Logs each once.
async fn open_when_possible(settings: Config) -> Result<Opened, ServeError> {
    let (mut is_full_logged, mut is_use_logged, in_use_until) = (false, false, Instant::now() + LOCK_TIMEOUT);
    loop {
        let config = settings.clone();
        match tasks::blocking(move || open(&config, Timestamp::now)).await? {
            Err(ServeError::Queue(error @ OpenError::Full { .. })) => {
                if !std::mem::replace(&mut is_full_logged, true) {
                    tracing::error!("The server cannot start yet, and tries again every second: the queue {error}");
                    service::waiting(&format!("Waiting for space: the queue {error}"));
                }
                tokio::time::sleep(FULL_PAUSE).await;
            }
            Err(ServeError::Queue(error @ OpenError::InUse { .. })) if Instant::now() < in_use_until => {
                if !std::mem::replace(&mut is_use_logged, true) {
                    tracing::info!("The server waits up to {LOCK_TIMEOUT:?} for another one to end: the queue {error}");
                    service::waiting("Waiting for another server to end");
                }
                tokio::time::sleep(LOCK_PAUSE).await;
            }
            opened => return opened,
        }
    }
}

fn open(config: &Config, now: fn() -> Timestamp) -> Result<Opened, ServeError> {
    let server = &config.fixed.server;
    let tokens = server.tokens_file.as_deref().map(Tokens::load).transpose()?;
    if let (Some(tokens), Some(file)) = (&tokens, &server.tokens_file)
        && tokens.is_empty()
    {
        return Err(ServeError::NoToken(file.display().to_string()));
    }
    let tls = match &server.tls {
        Some(files) => Some(tls::server_config(&files.certificate, &files.key)?),
        None => None,
    };
    let settings = queue::Settings { max_feedback: config.fixed.feedback.max_events, ..config.fixed.queue.clone() };
    let queue = Arc::new(Queue::open(&settings, now())?);
    let webhook = |(name, settings): (&String, _)| Webhook::new(name, settings, queue.clone(), now);
    let webhooks = config.fixed.webhooks.iter().map(webhook).collect::<Result<_, _>>()?;
    Ok(Opened { queue, tokens, tls: tls.map(|tls| TlsAcceptor::from(Arc::new(tls))), webhooks })
}

/// Records an orderly shutdown, so that messages still in flight are not suspected.
async fn record_shutdown(queue: &Queue) {
    match tokio::time::timeout(RECORD_TIMEOUT, queue.note_shutdown()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            tracing::warn!("The shutdown could not be recorded; the next start will treat it as a crash: {error}")
        }
        Err(_) => {
            tracing::warn!("The shutdown could not be recorded in time; the next start will treat it as a crash.")
        }
    }
}

/// Emits events about reloads.
async fn emit_reload_events(api: Arc<Api>, mut notices: broadcast::Receiver<Notice>) -> Result<(), String> {
    loop {
        let notice = match notices.recv().await {
            Ok(notice) => notice,
            Err(RecvError::Lagged(missed)) => {
                tracing::warn!(missed, "Events of reloads were dropped, because there were too many at once.");
                continue;
            }
            Err(RecvError::Closed) => return Ok(()),
        };
        let (kind, data) = match notice {
            Notice::Refused(reason) => (events::RELOAD_REFUSED, json!({"reason": reason})),
            Notice::Changed(change) => (event_kind(&change.what), json!(change)),
        };
        api.worker.emit(events::with_data(kind, data, api.ace.now())).await;
    }
}

/// The kind of the event about a changed plugin.
fn event_kind(what: &ChangeKind) -> &'static str {
    match what {
        ChangeKind::Added { .. } | ChangeKind::Replaced { .. } => events::PLUGIN_ACTIVE,
        ChangeKind::Rejected { .. } => events::PLUGIN_REJECTED,
        ChangeKind::Broken { .. } => events::PLUGIN_BROKEN,
        ChangeKind::Removed => events::PLUGIN_REMOVED,
    }
}

/// Periodic maintenance: retention, vacuum, tokens, metrics.
async fn maintain(api: Arc<Api>) -> Result<(), String> {
    let mut ticks = tokio::time::interval(MAINTENANCE_INTERVAL);
    let mut stored = BTreeSet::new();
    loop {
        ticks.tick().await;
        let enforced = api.ace.enforced_policies();
        if enforced != stored
            && let Ok(text) = serde_json::to_string(&enforced)
            && api.queue.put_meta(ENFORCED, text).await.is_ok()
        {
            stored = enforced;
        }
        if let Some(tokens) = &api.tokens {
            tokens.refresh(api.ace.now());
        }
        monitoring::digest::log_due();
        if let Some(metrics) = &api.metrics {
            metrics.run_maintenance();
        }
        let maintained = async {
            api.queue.maintain(api.ace.now()).await?;
            api.queue.stats().await
        };
        match maintained.await {
            Ok(stats) => gauges::queue(&stats),
            // The store itself logs, once, that it cannot be written.
            Err(error) => {
                tracing::debug!("Retention clean-up failed; retrying in {MAINTENANCE_INTERVAL:?}: {error}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use ace_store::faults;

    use super::*;

    /// Starts a server on databases of its own, breaks it, and returns how it ended.
    async fn ending_after(breaks: impl AsyncFnOnce(&Api)) -> Ending {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut config = Config::default();
        config.fixed.queue.database = folder.path().join("ace.db");
        config.fixed.keyvalue.database = Some(folder.path().join("keyvalue.db"));
        let app = App::start(config, None).await.expect("it starts");
        let api = app.api.clone();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let running = tokio::spawn(app.run(listener, std::future::pending()));
        breaks(&api).await;
        let ending = tokio::time::timeout(Duration::from_secs(60), running).await.expect("it ends by itself");
        ending.expect("no panic")
    }

    /// The thread that writes the queue panics: nothing more can be accepted or settled.
    #[tokio::test]
    async fn a_server_ends_when_its_queue_can_no_longer_be_written() {
        assert_eq!(ending_after(async |api| faults::end_queue_writer(&api.queue).await).await, Ending::Lost);
    }

    /// The same for key-value entries: opt-outs can no longer be stored, nor frequency caps counted.
    #[tokio::test]
    async fn a_server_ends_when_its_keyvalue_entries_can_no_longer_be_written() {
        assert_eq!(ending_after(async |api| faults::end_keyvalue_writer(api.ace.keyvalue()).await).await, Ending::Lost);
    }
}
