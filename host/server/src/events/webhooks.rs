//! Delivery of events to webhooks: signed according to Standard Webhooks, and retried until they are accepted or too old.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ace::config;
use ace::internals::tls::{self, TlsError};
use ace::message;
use ace_store::queue::{Queue, WebhookDelivery};
use jiff::{SignedDuration, Timestamp};
use reqwest::StatusCode;
use reqwest::header::RETRY_AFTER;
use standardwebhooks::Webhook;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use super::Notification;

/// Concurrent deliveries to one webhook.
const AT_ONCE: usize = 8;
/// The longest time between two queries for due deliveries.
const POLL_MAX: Duration = Duration::from_secs(5);
/// The pause after the first failed delivery; it doubles up to an hour.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(3_600);
/// The shortest time between two queries, so that a due delivery that cannot be read causes no busy loop.
const REST_MIN: Duration = Duration::from_millis(50);

/// Why a webhook cannot be called.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    #[error("webhooks.{name}.secret: {reason}")]
    Secret { name: String, reason: String },
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("the HTTP client cannot be built: {0}")]
    Client(#[from] reqwest::Error),
}

/// One webhook, ready to be called.
pub(crate) struct Hook {
    name: String,
    settings: config::Webhook,
    signer: Webhook,
    client: reqwest::Client,
    queue: Arc<Queue>,
    now: fn() -> Timestamp,
    /// Until when it asked for no requests.
    quiet: Mutex<Option<Instant>>,
}

/// An event that was not accepted.
struct Undelivered {
    reason: String,
    /// How long the webhook asked for no requests (Retry-After).
    retry_after: Option<Duration>,
}

impl From<String> for Undelivered {
    fn from(reason: String) -> Self {
        Undelivered { reason, retry_after: None }
    }
}

impl Hook {
    /// Reads the secret and builds the client. Reads files: not for an async thread.
    pub(crate) fn new(
        name: &str,
        settings: &config::Webhook,
        queue: Arc<Queue>,
        now: fn() -> Timestamp,
    ) -> Result<Self, WebhookError> {
        let secret = settings.secret.expose();
        let signer = if secret.starts_with("whsec_") {
            Webhook::new(secret)
        } else {
            Webhook::from_bytes(secret.as_bytes().to_vec())
        };
        let signer = signer.map_err(|e| WebhookError::Secret { name: name.to_owned(), reason: e.to_string() })?;
        let client = reqwest::Client::builder()
            .use_preconfigured_tls(tls::client_config(settings.ca_file.as_deref())?)
            .redirect(reqwest::redirect::Policy::none())
            .timeout(settings.timeout)
            .no_proxy()
            .build()?;
        let (name, settings, quiet) = (name.to_owned(), settings.clone(), Mutex::default());
        Ok(Hook { name, settings, signer, client, queue, now, quiet })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Delivers events until `stop`.
    pub(crate) async fn run(&self, mut notifications: broadcast::Receiver<Arc<Notification>>, stop: CancellationToken) {
        loop {
            if let Some(rest) = self.quiet_for() {
                tokio::select! {
                    () = tokio::time::sleep(rest) => continue,
                    () = stop.cancelled() => return,
                }
            }
            let deliveries = match self.queue.webhook_deliveries(self.name.clone(), AT_ONCE, (self.now)()).await {
                Ok(deliveries) => deliveries,
                Err(error) => {
                    tracing::error!(webhook = %self.name, "Its deliveries cannot be read: {error}");
                    Vec::new()
                }
            };
            if !deliveries.is_empty() {
                futures_util::future::join_all(deliveries.into_iter().map(|call| self.call(call))).await;
                if !stop.is_cancelled() {
                    continue;
                }
            }
            tokio::select! {
                _ = notifications.recv() => {}
                () = tokio::time::sleep(self.rest().await) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// How long it still wants no requests.
    fn quiet_for(&self) -> Option<Duration> {
        let until = (*self.quiet.lock().unwrap_or_else(PoisonError::into_inner))?;
        Some(until.saturating_duration_since(Instant::now())).filter(|rest| !rest.is_zero())
    }

    /// How long until a delivery is due.
    async fn rest(&self) -> Duration {
        let next = self.queue.next_webhook_delivery(self.name.clone()).await.ok().flatten();
        let rest = next.map(|due| Duration::try_from(due.duration_since((self.now)())).unwrap_or_default());
        rest.map_or(POLL_MAX, |rest| rest.clamp(REST_MIN, POLL_MAX))
    }

    async fn call(&self, call: WebhookDelivery) {
        let event = call.event.id;
        let result = if self.is_wanted(&call) { self.post(&call).await } else { Ok(()) };
        let noted = match result {
            Ok(()) => self.queue.end_webhook_delivery(self.name.clone(), event).await,
            Err(Undelivered { reason, retry_after }) => {
                let now = (self.now)();
                let deadline = call.event.at.checked_add(self.settings.max_age).unwrap_or(Timestamp::MAX);
                let pause = self.pause(call.attempts, retry_after, deadline.duration_since(now));
                let due = now.checked_add(pause).unwrap_or(Timestamp::MAX);
                if due > deadline {
                    tracing::error!(webhook = %self.name, event = event.get(), "An event could not be delivered and is discarded: {reason}");
                    self.queue.end_webhook_delivery(self.name.clone(), event).await
                } else {
                    tracing::warn!(webhook = %self.name, event = event.get(), "An event could not be delivered; retrying in {pause:?}: {reason}");
                    self.queue.retry_webhook_delivery(self.name.clone(), event, due).await
                }
            }
        };
        if let Err(error) = noted {
            tracing::error!(webhook = %self.name, event = event.get(), "A delivery could not be recorded and will be repeated: {error}");
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn is_wanted(&self, call: &WebhookDelivery) -> bool {
        self.settings.events.is_empty() || self.settings.events.contains(&call.event.kind)
    }

    /// The pause after a failed delivery: as long as the webhook asks for, during which nothing else is delivered there either, but not
    /// beyond the event's deadline; otherwise a growing one.
    fn pause(&self, attempts: u32, retry_after: Option<Duration>, left: SignedDuration) -> Duration {
        let Some(asked) = retry_after else { return pause(attempts) };
        let left = Duration::try_from(left).unwrap_or_default();
        let asked = asked.min(left).max(PAUSE);
        *self.quiet.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now().checked_add(asked);
        asked
    }

    async fn post(&self, call: &WebhookDelivery) -> Result<(), Undelivered> {
        let id = format!("evt_{}", call.event.id);
        let timestamp = (self.now)().as_second();
        let signature = self.signer.sign(&id, timestamp, &call.event.body).map_err(|e| e.to_string())?;
        let answer = self
            .client
            .post(self.settings.url.clone())
            .header("content-type", "application/json")
            .header("webhook-id", id)
            .header("webhook-timestamp", timestamp)
            .header("webhook-signature", signature)
            .body(call.event.body.clone())
            .send()
            .await
            .map_err(|e| e.without_url().to_string())?;
        match answer.status() {
            status if status.is_success() => Ok(()),
            StatusCode::GONE => {
                tracing::warn!(webhook = %self.name, "It answered 410 Gone: this event is discarded; remove the webhook.");
                Ok(())
            }
            status => {
                let asked = answer.headers().get(RETRY_AFTER).and_then(|text| text.to_str().ok());
                let retry_after = asked.and_then(|text| message::retry_after(text, (self.now)()));
                Err(Undelivered { reason: format!("it answered {status}"), retry_after })
            }
        }
    }
}

fn pause(attempts: u32) -> Duration {
    PAUSE.saturating_mul(1 << attempts.min(12)).min(PAUSE_MAX)
}
