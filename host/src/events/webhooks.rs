//! Events to those who asked to be told: signed as Standard Webhooks says, and tried again until they are taken or too old.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use reqwest::StatusCode;
use standardwebhooks::Webhook;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use super::Told;
use crate::config;
use crate::queue::{Call, Queue};
use crate::tls::{self, TlsError};

/// Calls to one webhook at once.
const AT_ONCE: usize = 8;
/// How long without an event before the store is asked all the same.
const LOOK_MAX: Duration = Duration::from_secs(5);
/// The pause after the first failed call; it doubles up to an hour.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(3_600);

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
pub struct Hook {
    name: String,
    settings: config::Webhook,
    signer: Webhook,
    client: reqwest::Client,
    queue: Arc<Queue>,
    now: fn() -> Timestamp,
}

impl Hook {
    /// Reads the secret and makes the client ready. Touches files: not for an async thread.
    pub fn new(
        name: &str,
        settings: &config::Webhook,
        queue: Arc<Queue>,
        now: fn() -> Timestamp,
    ) -> Result<Self, WebhookError> {
        let secret = settings.secret.expose();
        let signer = match secret.starts_with("whsec_") {
            true => Webhook::new(secret),
            false => Webhook::from_bytes(secret.as_bytes().to_vec()),
        };
        let signer = signer.map_err(|e| WebhookError::Secret { name: name.to_owned(), reason: e.to_string() })?;
        let client = reqwest::Client::builder()
            .use_preconfigured_tls(tls::client_config(settings.ca_file.as_deref())?)
            .redirect(reqwest::redirect::Policy::none())
            .timeout(settings.timeout)
            .no_proxy()
            .build()?;
        Ok(Hook { name: name.to_owned(), settings: settings.clone(), signer, client, queue, now })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Calls, for as long as the host runs.
    pub async fn run(&self, mut told: broadcast::Receiver<Arc<Told>>, stop: CancellationToken) {
        loop {
            let calls = match self.queue.calls(self.name.clone(), AT_ONCE, (self.now)()).await {
                Ok(calls) => calls,
                Err(error) => {
                    tracing::error!(webhook = %self.name, "Its calls cannot be read: {error}");
                    Vec::new()
                }
            };
            if !calls.is_empty() {
                futures_util::future::join_all(calls.into_iter().map(|call| self.call(call))).await;
                if !stop.is_cancelled() {
                    continue;
                }
            }
            tokio::select! {
                _ = told.recv() => {}
                () = tokio::time::sleep(LOOK_MAX) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    async fn call(&self, call: Call) {
        let event = call.event.id;
        let result = match self.is_wanted(&call) {
            false => Ok(()),
            true => self.post(&call).await,
        };
        let noted = match result {
            Ok(()) => self.queue.called(self.name.clone(), event).await,
            Err(reason) => {
                let (now, pause) = ((self.now)(), pause(call.attempts));
                let due = now.checked_add(pause).unwrap_or(Timestamp::MAX);
                let give_up = call.event.at.checked_add(self.settings.max_age).unwrap_or(Timestamp::MAX);
                match due > give_up {
                    true => {
                        tracing::error!(webhook = %self.name, event, "An event was never taken, and is given up: {reason}");
                        self.queue.called(self.name.clone(), event).await
                    }
                    false => {
                        tracing::warn!(webhook = %self.name, event, "An event was not taken; again in {pause:?}: {reason}");
                        self.queue.call_again(self.name.clone(), event, due).await
                    }
                }
            }
        };
        if let Err(error) = noted {
            tracing::error!(webhook = %self.name, event, "A call cannot be noted, and is made again: {error}");
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn is_wanted(&self, call: &Call) -> bool {
        let kind = serde_json::from_slice::<serde_json::Value>(&call.event.body).unwrap_or_default();
        let kind = kind["type"].as_str().unwrap_or_default();
        self.settings.events.is_empty() || self.settings.events.iter().any(|wanted| wanted == kind)
    }

    async fn post(&self, call: &Call) -> Result<(), String> {
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
                tracing::warn!(webhook = %self.name, "It answered 410 Gone: this event is given up; remove the webhook.");
                Ok(())
            }
            status => Err(format!("it answered {status}")),
        }
    }
}

fn pause(attempts: u32) -> Duration {
    PAUSE.saturating_mul(1 << attempts.min(12)).min(PAUSE_MAX)
}
