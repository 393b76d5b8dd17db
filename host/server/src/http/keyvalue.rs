//! Key-value entries, by which applications tell policies about opt-outs, disabled accounts and preferences.

use std::sync::Arc;
use std::time::Duration;

use ace_store::keyvalue::KeyvalueError;
use axum::Json;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use futures_util::stream::{FuturesUnordered, StreamExt};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::body::{Lines, Pieces};
use super::problem::{ApiError, Problem};

/// Entries of one request that are written at once.
pub(super) const WRITING_MAX: usize = 128;
/// The number of entries on a page by default, and the maximum.
const PAGE: usize = 100;
const PAGE_MAX: usize = 1000;

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Ttl {
    /// Milliseconds after which the value expires. By default it is kept until it is deleted.
    ttl_ms: Option<u64>,
}

/// A line of a bulk request.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct KeyvalueEntry {
    bucket: String,
    key: String,
    /// A string is stored unchanged, any other value as JSON text. Without a value the key is deleted.
    #[schema(value_type = Option<Object>)]
    value: Option<serde_json::Value>,
    ttl_ms: Option<u64>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct KeyvalueQuery {
    /// The cursor of the previous page (`next`).
    cursor: Option<String>,
    /// The maximum number of entries on a page: 100 by default, at most 1000.
    limit: Option<usize>,
}

/// Some entries of a bucket, ordered by key.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct KeyvaluePage {
    entries: Vec<KeyvalueValue>,
    /// The cursor of the next page; null on the last one.
    next: Option<String>,
}

/// The value of a key.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct KeyvalueValue {
    key: String,
    /// The value; null if it is not text.
    value: Option<String>,
    /// The length of the value.
    bytes: u64,
}

/// The result of a bulk request.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Applied {
    /// Lines that were applied.
    pub applied: u64,
}

/// Lists the entries of a bucket that have not expired. Counters are entries, too.
#[utoipa::path(get, path = "/v1/keyvalue/{bucket}", tag = "keyvalue",
    params(("bucket" = String, Path), KeyvalueQuery), responses(
    (status = 200, description = "A page of entries", body = KeyvaluePage),
    (status = 422, description = "The bucket or cursor is invalid", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    Path(bucket): Path<String>,
    Query(query): Query<KeyvalueQuery>,
) -> Result<Json<KeyvaluePage>, ApiError> {
    let (store, now) = (api.ace.keyvalue().clone(), api.ace.now());
    let (after, limit) = (query.cursor.unwrap_or_default(), query.limit.unwrap_or(PAGE).min(PAGE_MAX));
    let read = tokio::task::spawn_blocking(move || store.list(&bucket, &after, limit + 1, now));
    let mut found = read.await.map_err(|e| ApiError::Internal(e.to_string()))??;
    let is_last = found.len() <= limit;
    found.truncate(limit);
    let next = found.last().filter(|_| !is_last).map(|(key, _)| key.clone());
    let entry = |(key, value): (String, Vec<u8>)| {
        let bytes = value.len() as u64;
        KeyvalueValue { key, value: String::from_utf8(value).ok(), bytes }
    };
    Ok(Json(KeyvaluePage { entries: found.into_iter().map(entry).collect(), next }))
}

/// Returns the value of a key.
#[utoipa::path(get, path = "/v1/keyvalue/{bucket}/{key}", tag = "keyvalue",
    params(("bucket" = String, Path), ("key" = String, Path)), responses(
    (status = 200, description = "The value", body = Vec<u8>, content_type = "application/octet-stream"),
    (status = 404, description = "There is no such key", body = Problem, content_type = "application/problem+json"),
    (status = 422, description = "The bucket or key is invalid", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn get(
    State(api): State<Arc<Api>>,
    Path((bucket, key)): Path<(String, String)>,
) -> Result<Vec<u8>, ApiError> {
    let (store, now) = (api.ace.keyvalue().clone(), api.ace.now());
    let read = tokio::task::spawn_blocking(move || store.get(&bucket, &key, now));
    let found = read.await.map_err(|e| ApiError::Internal(e.to_string()))??;
    found.ok_or(ApiError::NotFound("value"))
}

/// Sets the value of a key.
#[utoipa::path(put, path = "/v1/keyvalue/{bucket}/{key}", tag = "keyvalue",
    params(("bucket" = String, Path), ("key" = String, Path), Ttl),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"), responses(
    (status = 204, description = "The value is on disk"),
    (status = 422, description = "The bucket, key or value is invalid", body = Problem, content_type = "application/problem+json"),
    (status = 413, description = "The value is too long", body = Problem, content_type = "application/problem+json"),
    (status = 507, description = "The store is full", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn put(
    State(api): State<Arc<Api>>,
    Path((bucket, key)): Path<(String, String)>,
    Query(Ttl { ttl_ms }): Query<Ttl>,
    body: Body,
) -> Result<impl IntoResponse, ApiError> {
    let value = Pieces::new(body, api.client_timeout()).whole(api.max_body_bytes).await?;
    let ttl = ttl_ms.map(Duration::from_millis);
    api.ace.keyvalue().set(&bucket, &key, value, ttl, api.ace.now()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Deletes a key; succeeds if there is no such key.
#[utoipa::path(delete, path = "/v1/keyvalue/{bucket}/{key}", tag = "keyvalue",
    params(("bucket" = String, Path), ("key" = String, Path)), responses(
    (status = 204, description = "The key no longer exists"),
    (status = 422, description = "The bucket or key is invalid", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn delete(
    State(api): State<Arc<Api>>,
    Path((bucket, key)): Path<(String, String)>,
) -> Result<impl IntoResponse, ApiError> {
    api.ace.keyvalue().delete(&bucket, &key, api.ace.now()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Sets and deletes many keys, one JSON object per line. Lines before the first invalid one are applied; the response names it.
#[utoipa::path(post, path = "/v1/keyvalue", tag = "keyvalue",
    request_body(content = KeyvalueEntry, content_type = "application/x-ndjson"), responses(
    (status = 200, description = "All entries are on disk", body = Applied),
    (status = 400, description = "A line is invalid; the lines before it are on disk", body = Problem, content_type = "application/problem+json"),
    (status = 422, description = "A bucket, key or value is invalid", body = Problem, content_type = "application/problem+json"),
    (status = 507, description = "The store is full; the lines before that one are on disk", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn bulk(State(api): State<Arc<Api>>, body: Body) -> Result<Json<Applied>, ApiError> {
    let mut lines = Lines::new(Pieces::new(body, api.client_timeout()), api.max_body_bytes);
    let mut writing = FuturesUnordered::new();
    let mut applied = 0;
    while let Some((number, line)) = lines.next().await? {
        if api.is_stopping() {
            return Err(ApiError::stopping());
        }
        let entry: KeyvalueEntry = serde_json::from_slice(&line)
            .map_err(|e| ApiError::BadRequest(format!("line {number}: {e}; {applied} lines before it were applied")))?;
        if writing.len() == WRITING_MAX
            && let Some(result) = writing.next().await
        {
            result?;
            applied += 1;
        }
        writing.push(apply(&api, entry));
    }
    while let Some(result) = writing.next().await {
        result?;
        applied += 1;
    }
    Ok(Json(Applied { applied }))
}

async fn apply(api: &Api, entry: KeyvalueEntry) -> Result<(), ApiError> {
    let (store, now) = (api.ace.keyvalue(), api.ace.now());
    match entry.value {
        None => store.delete(&entry.bucket, &entry.key, now).await?,
        Some(value) => {
            let text = match value {
                serde_json::Value::String(text) => text,
                other => other.to_string(),
            };
            store
                .set(&entry.bucket, &entry.key, text.into_bytes(), entry.ttl_ms.map(Duration::from_millis), now)
                .await?;
        }
    }
    Ok(())
}

impl From<KeyvalueError> for ApiError {
    fn from(error: KeyvalueError) -> Self {
        match error {
            KeyvalueError::Quota(why) => {
                ApiError::Invalid(ace::message::FieldErrors(vec![ace::message::FieldError::new("", why)]))
            }
            KeyvalueError::Full(why) => ApiError::Full(why),
            KeyvalueError::Unavailable(why) => ApiError::Unavailable(why),
        }
    }
}
