//! Whether the server works, and its metrics.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use serde::Serialize;
use utoipa::ToSchema;

use super::Api;
use super::problem::{ApiError, Problem};
use super::shown::Depth;
use crate::monitoring;
use crate::plugin::PluginState;

/// What a ready server says of itself.
#[derive(Debug, Serialize, ToSchema)]
pub struct Ready {
    pub is_ready: bool,
    /// What is in the way.
    pub reasons: Vec<String>,
}

/// The process lives.
#[utoipa::path(get, path = "/healthz", tag = "status", responses((status = 200, description = "It lives", body = str)))]
pub async fn healthz() -> &'static str {
    "ok"
}

/// It takes messages: the store answers, and every plugin that should serve does. Without a token only the bare answer is
/// given.
#[utoipa::path(get, path = "/readyz", tag = "status", responses(
    (status = 200, description = "It takes messages", body = Ready),
    (status = 503, description = "It does not, or not as it should", body = Ready),
))]
pub async fn readyz(State(api): State<Arc<Api>>) -> impl IntoResponse {
    let mut reasons = Vec::new();
    if let Err(error) = api.queue.answers().await {
        reasons.push(error.to_string());
    }
    for plugin in api.ace.registry().plugins.values() {
        if matches!(plugin.state, PluginState::Broken(_)) {
            reasons.push(format!("the plugin {} is broken", plugin.name));
        }
    }
    if api.is_stopping() {
        reasons.push("the server is being stopped".to_owned());
    }
    let status = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(Ready { is_ready: reasons.is_empty(), reasons }))
}

/// Metrics in Prometheus' text format.
#[utoipa::path(get, path = "/metrics", tag = "status", responses(
    (status = 200, description = "Metrics", body = str, content_type = "text/plain"),
    (status = 401, description = "No token", body = Problem, content_type = "application/problem+json"),
))]
pub async fn metrics(State(api): State<Arc<Api>>) -> Result<impl IntoResponse, ApiError> {
    monitoring::queue(&api.queue.stats().await?);
    let text = api.metrics.as_ref().map(|metrics| metrics.render()).unwrap_or_default();
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text))
}

/// How full the queue is, and how fast it moves.
#[utoipa::path(get, path = "/v1/queue", tag = "queue", responses(
    (status = 200, description = "Depth, age, size and rates", body = Depth),
    (status = 503, description = "The store cannot answer", body = Problem, content_type = "application/problem+json"),
))]
pub async fn queue(State(api): State<Arc<Api>>) -> Result<Json<Depth>, ApiError> {
    Ok(Json(api.queue.stats().await?.into()))
}
