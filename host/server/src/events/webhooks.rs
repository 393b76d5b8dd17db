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
pub(crate) struct Webhook {
    name: String,
    settings: config::Webhook,
    signer: standardwebhooks::Webhook,
    client: reqwest::Client,
    queue: Arc<Queue>,
    now: fn() -> Timestamp,
    /// No request is sent before this time (Retry-After).
    quiet_until: Mutex<Option<Instant>>,
}

/// An event that was not accepted.
struct Undelivered {
    reason: String,
    /// How long no request may be sent to the webhook (Retry-After).
    retry_after: Option<Duration>,
}

impl From<String> for Undelivered {
    fn from(reason: String) -> Self {
        Undelivered { reason, retry_after: None }
    }
}

impl Webhook {
    /// Reads the secret and builds the client. Blocks: it reads files.
    pub(crate) fn new(
        name: &str,
        settings: &config::Webhook,
        queue: Arc<Queue>,
        now: fn() -> Timestamp,
    ) -> Result<Self, WebhookError> {
        let secret = settings.secret.expose();
        let signer = if secret.starts_with("whsec_") {
            standardwebhooks::Webhook::new(secret)
        } else {
            standardwebhooks::Webhook::from_bytes(secret.as_bytes().to_vec())
        };
        let signer = signer.map_err(|e| WebhookError::Secret { name: name.to_owned(), reason: e.to_string() })?;
        let client = reqwest::Client::builder()
            .use_preconfigured_tls(tls::client_config(settings.ca_file.as_deref())?)
            .redirect(reqwest::redirect::Policy::none())
            .timeout(settings.timeout)
            .no_proxy()
            .build()?;
        let (name, settings, quiet_until) = (name.to_owned(), settings.clone(), Mutex::default());
        Ok(Webhook { name, settings, signer, client, queue, now, quiet_until })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Delivers events until `stop`.
    pub(crate) async fn run(
        self: Arc<Self>,
        mut notifications: broadcast::Receiver<Arc<Notification>>,
        stop: CancellationToken,
    ) {
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
                    tracing::error!(webhook = %self.name, "Deliveries to the webhook cannot be read from the queue; retrying: {error}");
                    Vec::new()
                }
            };
            if !deliveries.is_empty() {
                futures_util::future::join_all(deliveries.into_iter().map(|delivery| self.deliver(delivery))).await;
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

    /// How much longer no request may be sent.
    fn quiet_for(&self) -> Option<Duration> {
        let until = (*self.quiet_until.lock().unwrap_or_else(PoisonError::into_inner))?;
        Some(until.saturating_duration_since(Instant::now())).filter(|rest| !rest.is_zero())
    }

    /// The time until the next delivery is due.
    async fn rest(&self) -> Duration {
        let next = self.queue.next_webhook_delivery(self.name.clone()).await.ok().flatten();
        let rest = next.map(|due| Duration::try_from(due.duration_since((self.now)())).unwrap_or_default());
        rest.map_or(POLL_MAX, |rest| rest.clamp(REST_MIN, POLL_MAX))
    }

    async fn deliver(&self, delivery: WebhookDelivery) {
        let event = delivery.event.id;
        let result = if self.is_subscribed(&delivery) { self.post(&delivery).await } else { Ok(()) };
        let recorded = match result {
            Ok(()) => self.queue.end_webhook_delivery(self.name.clone(), event).await,
            Err(Undelivered { reason, retry_after }) => {
                let now = (self.now)();
                let deadline = delivery.event.at.checked_add(self.settings.max_age).unwrap_or(Timestamp::MAX);
                let pause = self.pause(delivery.attempts, retry_after, deadline.duration_since(now));
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
        if let Err(error) = recorded {
            tracing::error!(webhook = %self.name, event = event.get(), "A delivery could not be recorded and will be repeated: {error}");
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn is_subscribed(&self, delivery: &WebhookDelivery) -> bool {
        self.settings.events.is_empty() || self.settings.events.contains(&delivery.event.kind)
    }

    /// The pause after a failed delivery: `Retry-After` if the response has it, at most until the event's deadline, and then no other
    /// event is delivered meanwhile; otherwise a growing pause.
    fn pause(&self, attempts: u32, retry_after: Option<Duration>, left: SignedDuration) -> Duration {
        let Some(requested) = retry_after else { return pause(attempts) };
        let left = Duration::try_from(left).unwrap_or_default();
        let requested = requested.min(left).max(PAUSE);
        *self.quiet_until.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now().checked_add(requested);
        requested
    }

    async fn post(&self, delivery: &WebhookDelivery) -> Result<(), Undelivered> {
        let id = format!("evt_{}", delivery.event.id);
        let timestamp = (self.now)().as_second();
        let signature = self.signer.sign(&id, timestamp, &delivery.event.body).map_err(|e| e.to_string())?;
        let response = self
            .client
            .post(self.settings.url.clone())
            .header("content-type", "application/json")
            .header("webhook-id", id)
            .header("webhook-timestamp", timestamp)
            .header("webhook-signature", signature)
            .body(delivery.event.body.clone())
            .send()
            .await
            .map_err(|e| e.without_url().to_string())?;
        match response.status() {
            status if status.is_success() => Ok(()),
            StatusCode::GONE => {
                tracing::warn!(webhook = %self.name, "The webhook answered 410 Gone, and the event is discarded; remove the webhook from ace.toml.");
                Ok(())
            }
            status => {
                let requested = response.headers().get(RETRY_AFTER).and_then(|text| text.to_str().ok());
                let retry_after = requested.and_then(|text| message::retry_after(text, (self.now)()));
                Err(Undelivered { reason: format!("it answered {status}"), retry_after })
            }
        }
    }
}

fn pause(attempts: u32) -> Duration {
    PAUSE.saturating_mul(1 << attempts.min(12)).min(PAUSE_MAX)
}
