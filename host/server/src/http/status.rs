//! Whether the server works, and its metrics.

use std::sync::Arc;

use ace::destination::View;
use ace::plugin::PluginState;
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
use super::shown::{DestinationStatus, QueueStatus};

/// What a ready server says of itself.
#[derive(Debug, Serialize, ToSchema)]
pub struct Readiness {
    pub ready: bool,
    /// Why no message can be accepted.
    pub reasons: Vec<String>,
    /// What does not work as it should while messages are accepted.
    pub degraded: Vec<Degradation>,
    pub queue: QueueHealth,
}

/// How the queue's file is doing.
#[derive(Debug, Serialize, ToSchema)]
pub struct QueueHealth {
    /// Seconds since something was written; none was since the start where it is null.
    pub last_write_s: Option<u64>,
    /// Seconds since messages were asked for with success.
    pub last_claim_s: Option<u64>,
    /// For how many seconds nothing can be written; null where it can.
    pub writes_failing_s: Option<u64>,
    /// For how many seconds no message can be taken up to be sent; null where they can.
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

/// One thing that does not work as it should.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Degradation {
    /// `plugin`: it should be active and is not. `revision`: files of a plugin were refused, and an earlier revision goes on.
    /// `reload`: ace.toml, or a name in it, is wrong, and what was read before goes on. `template`: a template or catalogue is
    /// broken. `task`: a part of the server failed and was started again. `relay`, `origin`: messages wait for it, because it is
    /// down. `queue`: what was accepted is not sent, or a part of the file is damaged. `keyvalue`: nothing can be written to the
    /// database of facts.
    pub kind: &'static str,
    /// Which one.
    pub name: String,
    pub reason: String,
}

/// Broken templates that are listed.
const TEMPLATES_MAX: usize = 20;

/// Everything that does not work as it should, by kind.
fn degraded(api: &Api, health: &Health) -> Vec<Degradation> {
    let mut found = Vec::new();
    let mut note = |kind, name, reason| found.push(Degradation { kind, name, reason });
    for (task, why) in api.tasks.unwell() {
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
                format!("it is awaiting its file, and ACE would not start again without: {file}"),
            );
        }
        if let Some(rejected) = &plugin.rejected {
            note("revision", plugin.name.clone(), format!("{} goes on; {rejected}", plugin.revision));
        }
    }
    if let Some(why) = api.ace.refused() {
        note("reload", "ace.toml".to_owned(), format!("nothing was reloaded, and ACE would not start again: {why}"));
    }
    for problem in api.ace.snapshot().presentation.problems().iter().take(TEMPLATES_MAX) {
        note("template", problem.file.display().to_string(), problem.to_string());
    }
    let troubles = api.ace.destinations().troubles(api.ace.now());
    for View { destination, reason, .. } in troubles.into_iter().filter(|view| !view.is_recovering) {
        note(destination.kind(), destination.name().to_owned(), format!("it is down: {reason}"));
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
    /// As everybody may see it: names and reasons tell of plugins and files.
    fn bare(self) -> Self {
        let told = || "a token with the scope `read` is told more".to_owned();
        let Readiness { ready, reasons, degraded, queue } = self;
        let bare = |one: Degradation| Degradation { name: String::new(), reason: told(), ..one };
        let mut degraded: Vec<Degradation> = degraded.into_iter().map(bare).collect();
        degraded.dedup();
        Readiness { ready, reasons: reasons.first().map(|_| told()).into_iter().collect(), degraded, queue }
    }
}

/// The process lives.
#[utoipa::path(get, path = "/healthz", tag = "status", responses((status = 200, description = "It lives", body = str)))]
pub async fn healthz() -> &'static str {
    "ok"
}

/// Whether it takes messages. What does not work as it should meanwhile is under `degraded`, with the status 200: a plugin that
/// is broken or whose new files were refused, a broken template, a task that was started again.
#[utoipa::path(get, path = "/readyz", tag = "status", responses(
    (status = 200, description = "It takes messages", body = Readiness),
    (status = 503, description = "It does not: the store cannot be used, or the server is being stopped", body = Readiness),
))]
pub async fn readyz(State(api): State<Arc<Api>>, headers: HeaderMap) -> impl IntoResponse {
    let mut reasons = Vec::new();
    if let Err(error) = api.queue.answers().await {
        reasons.push(error.to_string());
    }
    let health = api.queue.health();
    if let Some(Failing { since, reason }) = &health.writes {
        reasons.push(format!("the queue has not been writable for {} s: {reason}", since.as_secs()));
    }
    if api.is_stopping() {
        reasons.push("the server is being stopped".to_owned());
    }
    let status = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let degraded = degraded(&api, &health);
    let ready = Readiness { ready: reasons.is_empty(), reasons, degraded, queue: QueueHealth::from(&health) };
    (status, Json(if guard::may_know(&api, &headers) { ready } else { ready.bare() }))
}

/// Metrics in Prometheus' text format.
#[utoipa::path(get, path = "/metrics", tag = "status", responses(
    (status = 200, description = "Metrics", body = str, content_type = "text/plain"),
    (status = 401, description = "No token", body = Problem, content_type = "application/problem+json"),
))]
pub async fn metrics(State(api): State<Arc<Api>>) -> Result<impl IntoResponse, ApiError> {
    crate::gauges::queue(&api.queue.stats().await?);
    let text = api.metrics.as_ref().map(|metrics| metrics.render()).unwrap_or_default();
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text))
}

/// How full the queue is, and how fast it moves.
#[utoipa::path(get, path = "/v1/queue", tag = "queue", responses(
    (status = 200, description = "QueueStatus, age, size and rates", body = QueueStatus),
    (status = 503, description = "The store cannot answer", body = Problem, content_type = "application/problem+json"),
))]
pub async fn queue(State(api): State<Arc<Api>>) -> Result<Json<QueueStatus>, ApiError> {
    let destinations = destinations(&api);
    Ok(Json(QueueStatus::new(api.queue.stats().await?, destinations)))
}

/// What is down or recovering, and what messages still wait for.
fn destinations(api: &Api) -> Vec<DestinationStatus> {
    let mut parked = api.queue.parked();
    let troubles = api.ace.destinations().troubles(api.ace.now());
    let troubles = troubles.into_iter().map(|view| {
        let waiting = parked.remove(&view.destination.to_string()).unwrap_or_default();
        DestinationStatus::new(view, waiting)
    });
    troubles.collect()
}
