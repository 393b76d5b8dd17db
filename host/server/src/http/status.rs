//! Health, readiness, metrics, and the status of the queue.

use std::sync::Arc;

use ace::internals::destination::View;
use ace::internals::plugin::PluginState;
use ace::message::Destination;
use ace_store::queue::{Failing, Health};
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse;
use serde::Serialize;
use utoipa::ToSchema;

use super::Api;
use super::guard;
use super::problem::{ApiError, Problem};
use super::views::{DestinationStatus, QueueStatus};

/// Whether the server accepts messages, and its problems.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Readiness {
    pub ready: bool,
    /// Why messages cannot be accepted.
    pub reasons: Vec<String>,
    /// Problems that do not prevent messages from being accepted.
    pub degraded: Vec<Degradation>,
    pub queue: QueueHealth,
}

/// The health of the queue's database.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct QueueHealth {
    /// Seconds since the last write; null if there was none since the server started.
    pub last_write_s: Option<u64>,
    /// Seconds since messages were last claimed successfully.
    pub last_claim_s: Option<u64>,
    /// For how many seconds writing has failed; null if it works.
    pub writes_failing_s: Option<u64>,
    /// For how many seconds claiming messages has failed; null if it works.
    pub claims_failing_s: Option<u64>,
}

impl From<&Health> for QueueHealth {
    fn from(health: &Health) -> Self {
        QueueHealth {
            last_write_s: health.last_write.map(|ago| ago.as_secs()),
            last_claim_s: health.last_claim.map(|ago| ago.as_secs()),
            writes_failing_s: health.writes.as_ref().map(|failing| failing.since.as_secs()),
            claims_failing_s: health.claims.as_ref().map(|failing| failing.since.as_secs()),
        }
    }
}

/// A problem that does not prevent messages from being accepted.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(super) struct Degradation {
    /// `plugin`: a plugin should be active and is not. `revision`: a plugin's files were rejected, and an earlier revision stays
    /// active. `reload`: ace.toml or a name in it is invalid, and the previous configuration stays in use. `template`: a template
    /// or catalogue is broken. `task`: a part of the server failed and was restarted. `relay`, `origin`, `channel`: it is down or
    /// held, and messages wait for it. `queue`: accepted messages are not sent, or a part of the database is damaged. `keyvalue`: the key-value
    /// database cannot be written.
    pub kind: &'static str,
    /// The name of the plugin, relay, task or file.
    pub name: String,
    pub reason: String,
}

/// The maximum number of broken templates in the list.
const TEMPLATES_MAX: usize = 20;

/// All problems that do not prevent messages from being accepted, by kind.
fn degraded(api: &Api, health: &Health) -> Vec<Degradation> {
    let mut found = Vec::new();
    let mut note = |kind, name, reason| found.push(Degradation { kind, name, reason });
    for (task, why) in api.tasks.failing() {
        note("task", task, why);
    }
    for plugin in api.ace.registry().plugins.values() {
        if let PluginState::Broken(why) = &plugin.state {
            note("plugin", plugin.name.clone(), format!("it is broken: {why}"));
        }
        if plugin.state == PluginState::AwaitingFile {
            let file = plugin.file.display();
            note(
                "plugin",
                plugin.name.clone(),
                format!("it is awaiting its file, without which ACE would not start: {file}"),
            );
        }
        if let Some(rejected) = &plugin.rejected {
            note("revision", plugin.name.clone(), format!("{} stays active; {rejected}", plugin.revision));
        }
    }
    if let Some(why) = api.ace.refused() {
        note("reload", "ace.toml".to_owned(), format!("the last reload was refused, and a restart would fail: {why}"));
    }
    for problem in api.ace.snapshot().presentation.problems().iter().take(TEMPLATES_MAX) {
        note("template", problem.file.display().to_string(), problem.to_string());
    }
    let troubles = api.ace.destinations().troubles(api.ace.now());
    for View { destination, reason, .. } in troubles.into_iter().filter(|view| !view.is_recovering) {
        let state = if matches!(destination, Destination::Channel(_)) { "held" } else { "down" };
        note(destination.kind(), destination.name().to_owned(), format!("it is {state}: {reason}"));
    }
    if let Some(Failing { since, reason }) = &health.claims {
        note("queue", "claims".to_owned(), format!("no message has been sent for {} s: {reason}", since.as_secs()));
    }
    if let Some(why) = api.ace.keyvalue().fault() {
        note("keyvalue", "database".to_owned(), why.to_owned());
    }
    for damage in &health.damaged {
        note("queue", "file".to_owned(), format!("it is damaged: {damage}"));
    }
    found
}

impl Readiness {
    /// Removes names and reasons, which reveal plugins and files.
    fn without_details(self) -> Self {
        let hint = || "a token with the scope `read` shows details".to_owned();
        let Readiness { ready, reasons, degraded, queue } = self;
        let without_details = |one: Degradation| Degradation { name: String::new(), reason: hint(), ..one };
        let mut degraded: Vec<Degradation> = degraded.into_iter().map(without_details).collect();
        degraded.dedup();
        Readiness { ready, reasons: reasons.first().map(|_| hint()).into_iter().collect(), degraded, queue }
    }
}

/// Returns 200 while the process is alive.
#[utoipa::path(get, path = "/healthz", tag = "status", responses((status = 200, description = "The process is alive", body = str)))]
pub(super) async fn healthz() -> &'static str {
    "ok"
}

/// Returns whether the server accepts messages. Problems that do not prevent that are listed in `degraded`, with status 200: a plugin
/// that is broken or whose new files were rejected, a broken template, a task that was restarted.
#[utoipa::path(get, path = "/readyz", tag = "status", responses(
    (status = 200, description = "The server accepts messages", body = Readiness),
    (status = 503, description = "The server does not accept messages: the store is unavailable, or the server is stopping", body = Readiness),
))]
pub(super) async fn readyz(State(api): State<Arc<Api>>, headers: HeaderMap) -> impl IntoResponse {
    let mut reasons = Vec::new();
    if let Err(error) = api.queue.ping().await {
        reasons.push(error.to_string());
    }
    let health = api.queue.health();
    if let Some(Failing { since, reason }) = &health.writes {
        reasons.push(format!("the queue has not been writable for {} s: {reason}", since.as_secs()));
    }
    if api.is_stopping() {
        reasons.push("the server is stopping".to_owned());
    }
    let status = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let degraded = degraded(&api, &health);
    let ready = Readiness { ready: reasons.is_empty(), reasons, degraded, queue: QueueHealth::from(&health) };
    (status, Json(if guard::may_see_details(&api, &headers) { ready } else { ready.without_details() }))
}

/// Returns metrics in the text format of Prometheus.
#[utoipa::path(get, path = "/metrics", tag = "status", responses(
    (status = 200, description = "Metrics", body = str, content_type = "text/plain"),
    (status = 401, description = "A bearer token is required", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn metrics(State(api): State<Arc<Api>>) -> Result<impl IntoResponse, ApiError> {
    crate::gauges::queue(&api.queue.stats().await?);
    let text = api.metrics.as_ref().map(|metrics| metrics.render()).unwrap_or_default();
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text))
}

/// Returns depth, age, size and throughput of the queue.
#[utoipa::path(get, path = "/v1/queue", tag = "queue", responses(
    (status = 200, description = "Depth, age, size and throughput", body = QueueStatus),
    (status = 503, description = "The store is unavailable", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn queue(State(api): State<Arc<Api>>) -> Result<Json<QueueStatus>, ApiError> {
    let destinations = destinations(&api);
    Ok(Json(QueueStatus::new(api.queue.stats().await?, destinations)))
}

/// Destinations that are down or recovering, with the number of messages that wait for them.
fn destinations(api: &Api) -> Vec<DestinationStatus> {
    let mut blocked = api.queue.blocked();
    let troubles = api.ace.destinations().troubles(api.ace.now());
    let troubles = troubles.into_iter().map(|view| {
        let waiting = blocked.remove(&view.destination.to_string()).unwrap_or_default();
        DestinationStatus::new(view, waiting)
    });
    troubles.collect()
}
