//! Plugins: their state, shadow mode, reload.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde_json::{Value, json};

use super::Api;
use super::problem::{ApiError, Problem};

/// Lists all plugins.
#[utoipa::path(get, path = "/v1/plugins", tag = "plugins", responses(
    (status = 200, description = "The plugins with their grants and state", body = Vec<Object>),
))]
pub(super) async fn list(State(api): State<Arc<Api>>) -> Json<Vec<Value>> {
    let views = api.ace.registry().plugins.values().map(|plugin| json!(plugin.view())).collect();
    Json(views)
}

/// Returns one plugin.
#[utoipa::path(get, path = "/v1/plugins/{name}", tag = "plugins", params(("name" = String, Path)), responses(
    (status = 200, description = "The plugin with its grants and state", body = Object),
    (status = 404, description = "There is no such plugin", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn one(State(api): State<Arc<Api>>, Path(name): Path<String>) -> Result<Json<Value>, ApiError> {
    let registry = api.ace.registry();
    let plugin = registry.plugins.get(&name).ok_or(ApiError::NotFound("plugin"))?;
    Ok(Json(json!(plugin.view())))
}

/// Compares each policy in shadow mode with the decisions, since its revision was loaded.
#[utoipa::path(get, path = "/v1/shadow", tag = "plugins", responses(
    (status = 200, description = "Counts and the latest differences of each policy in shadow mode", body = Vec<Object>),
))]
pub(super) async fn shadow(State(api): State<Arc<Api>>) -> Json<Vec<Value>> {
    let snapshot = api.ace.snapshot();
    let in_shadow = snapshot.policies.iter().filter_map(|slot| {
        let shadow = slot.shadow.as_ref()?;
        let (policy, revision) = (slot.policy.name(), slot.policy.revision());
        Some(json!({"policy": policy, "revision": revision, "shadow_of": shadow.of, "comparison": shadow.log.comparison()}))
    });
    Json(in_shadow.collect())
}

/// Reloads plugins, templates and ace.toml.
#[utoipa::path(post, path = "/v1/reload", tag = "plugins", responses(
    (status = 200, description = "What changed", body = Object),
    (status = 409, description = "There is a problem, and nothing was changed", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn reload(State(api): State<Arc<Api>>) -> Result<Json<Value>, ApiError> {
    let reload = api.ace.reload().await.map_err(|error| ApiError::Conflict(error.to_string()))?;
    Ok(Json(json!(reload)))
}
