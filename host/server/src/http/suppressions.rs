//! Suppressed addresses, to which no message is sent if the policy `suppression` is installed.

use std::collections::HashSet;
use std::sync::Arc;

use ace::message::text::one_line;
use ace::suppression::{self, AddressError, Reason, Scope, Suppression};
use ace_store::keyvalue::KeyvalueError;
use axum::Json;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use futures_util::stream::{FuturesUnordered, StreamExt};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::body::{Lines, Pieces};
use super::keyvalue::{Applied, WRITING_MAX};
use super::problem::{ApiError, Problem};

/// The number of addresses on a page by default, and the maximum.
const PAGE: usize = 100;
const PAGE_MAX: usize = 1000;
/// The longest `detail` and `source`, in bytes.
const DETAIL_BYTES_MAX: usize = 1000;
const SOURCE_BYTES_MAX: usize = 100;

/// A suppressed address.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SuppressedAddress {
    /// The kind of address: `email`, `phone`, or another kind of a recipient's `contacts`.
    kind: String,
    /// Its normal form.
    address: String,
    /// `hard-bounce`, `complaint`, `unsubscribe` or `manual`.
    reason: &'static str,
    /// `all`: no message is sent; `bulk`: only transactional messages are sent.
    scope: &'static str,
    /// Who reported it: a plugin, `api`, or `import`.
    source: String,
    #[schema(format = DateTime)]
    time: String,
    /// More, in one line.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
}

/// Why an address is suppressed.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SuppressionForm {
    /// `hard-bounce`, `complaint`, `unsubscribe` or `manual` (the default).
    #[schema(value_type = Option<String>, pattern = "^(hard-bounce|complaint|unsubscribe|manual)$")]
    reason: Option<Reason>,
    /// `all` or `bulk`; by default `bulk` for complaints and unsubscribing, otherwise `all`.
    #[schema(value_type = Option<String>, pattern = "^(all|bulk)$")]
    scope: Option<Scope>,
    /// More, in one line.
    #[schema(max_length = 1000)]
    detail: Option<String>,
}

/// A line of an import.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ImportedSuppression {
    /// An e-mail address, a phone number with `+`, or any other address with its kind before it: `push-token:…`.
    address: String,
    /// The kind of address, instead of writing it before the address.
    kind: Option<String>,
    #[schema(value_type = Option<String>, pattern = "^(hard-bounce|complaint|unsubscribe|manual)$")]
    reason: Option<Reason>,
    #[schema(value_type = Option<String>, pattern = "^(all|bulk)$")]
    scope: Option<Scope>,
    /// Who reported it; `import` by default.
    source: Option<String>,
    /// Since when; now by default.
    #[schema(format = DateTime)]
    time: Option<String>,
    detail: Option<String>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct SuppressionQuery {
    /// The cursor of the previous page (`next`).
    cursor: Option<String>,
    /// The maximum number of addresses on a page: 100 by default, at most 1000.
    limit: Option<usize>,
}

/// Some suppressed addresses, ordered by kind and address.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SuppressionPage {
    suppressions: Vec<SuppressedAddress>,
    /// The cursor of the next page; null on the last one.
    next: Option<String>,
}

/// Lists suppressed addresses.
#[utoipa::path(get, path = "/v1/suppressions", tag = "suppressions", params(SuppressionQuery), responses(
    (status = 200, description = "A page of addresses", body = SuppressionPage),
))]
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    Query(query): Query<SuppressionQuery>,
) -> Result<Json<SuppressionPage>, ApiError> {
    let after = query.cursor.unwrap_or_default();
    let limit = query.limit.unwrap_or(PAGE).min(PAGE_MAX);
    let page = read(&api, move |store, now| suppression::list(store, &after, limit, now)).await?;
    let suppressions = page.entries.into_iter().map(|(key, entry)| SuppressedAddress::new(&key, entry)).collect();
    Ok(Json(SuppressionPage { suppressions, next: page.next }))
}

/// Returns why an address is suppressed.
#[utoipa::path(get, path = "/v1/suppressions/{address}", tag = "suppressions",
    params(("address" = String, Path, description = "An e-mail address, a phone number with `+`, or an address with its kind: `push-token:…`")),
    responses(
    (status = 200, description = "The address is suppressed", body = SuppressedAddress),
    (status = 404, description = "The address is not suppressed", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn get(
    State(api): State<Arc<Api>>,
    Path(address): Path<String>,
) -> Result<Json<SuppressedAddress>, ApiError> {
    let key = key_of(&address)?;
    let wanted = key.clone();
    let found = read(&api, move |store, now| suppression::get(store, &wanted, now)).await?;
    let entry = found.ok_or(ApiError::NotFound("suppression of this address"))?;
    Ok(Json(SuppressedAddress::new(&key, entry)))
}

/// Suppresses an address. What was stored about it is replaced.
#[utoipa::path(put, path = "/v1/suppressions/{address}", tag = "suppressions",
    params(("address" = String, Path, description = "As above")),
    request_body(content = SuppressionForm, content_type = "application/json"), responses(
    (status = 200, description = "The address is suppressed, on disk", body = SuppressedAddress),
    (status = 507, description = "The store is full", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn put(
    State(api): State<Arc<Api>>,
    Path(address): Path<String>,
    body: Body,
) -> Result<Json<SuppressedAddress>, ApiError> {
    let key = key_of(&address)?;
    let body = Pieces::new(body, api.client_timeout()).whole(api.max_body_bytes).await?;
    let form = if body.is_empty() {
        SuppressionForm::default()
    } else {
        serde_json::from_slice(&body).map_err(|e| ApiError::BadRequest(format!("the body: {e}")))?
    };
    let (now, reason) = (api.ace.now(), form.reason.unwrap_or(Reason::Manual));
    let scope = form.scope.unwrap_or(reason.default_scope());
    let entry = Suppression { reason, scope, source: "api".to_owned(), time: now.to_string(), detail: form.detail };
    check_texts(&entry).map_err(ApiError::BadRequest)?;
    suppression::set(api.ace.keyvalue(), &key, &entry, now).await?;
    Ok(Json(SuppressedAddress::new(&key, entry)))
}

/// Sends to an address again; succeeds if it is not suppressed.
#[utoipa::path(delete, path = "/v1/suppressions/{address}", tag = "suppressions",
    params(("address" = String, Path, description = "As above")), responses(
    (status = 204, description = "The address is not suppressed any more"),
))]
pub(super) async fn delete(
    State(api): State<Arc<Api>>,
    Path(address): Path<String>,
) -> Result<impl IntoResponse, ApiError> {
    suppression::remove(api.ace.keyvalue(), &key_of(&address)?, api.ace.now()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Suppresses many addresses, one JSON object per line. An address that is suppressed for all messages stays so. Lines before the first
/// invalid one are applied; the response names it.
#[utoipa::path(post, path = "/v1/suppressions", tag = "suppressions",
    request_body(content = ImportedSuppression, content_type = "application/x-ndjson"), responses(
    (status = 200, description = "All addresses are suppressed, on disk", body = Applied),
    (status = 400, description = "A line is invalid; the lines before it are on disk", body = Problem, content_type = "application/problem+json"),
    (status = 507, description = "The store is full; the lines before that one are on disk", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn import(State(api): State<Arc<Api>>, body: Body) -> Result<Json<Applied>, ApiError> {
    let mut lines = Lines::new(Pieces::new(body, api.client_timeout()), api.max_body_bytes);
    let (mut writing, mut keys, mut applied) = (FuturesUnordered::new(), HashSet::new(), 0);
    let mut invalid = None;
    while let Some((number, line)) = lines.next().await? {
        if api.is_stopping() {
            return Err(ApiError::stopping());
        }
        let (key, entry) = match imported(&line, api.ace.now()) {
            Ok(imported) => imported,
            Err(why) => {
                invalid = Some((number, why));
                break;
            }
        };
        // Two lines about one address are applied in their order.
        while writing.len() == WRITING_MAX || keys.contains(&key) {
            let Some(written) = writing.next().await else { break };
            keys.remove(&written?);
            applied += 1;
        }
        keys.insert(key.clone());
        writing.push(add(&api, key, entry));
    }
    while let Some(written) = writing.next().await {
        written?;
        applied += 1;
    }
    match invalid {
        Some((number, why)) => {
            Err(ApiError::BadRequest(format!("line {number}: {why}; {applied} lines before it were applied")))
        }
        None => Ok(Json(Applied { applied })),
    }
}

async fn add(api: &Api, key: String, entry: Suppression) -> Result<String, KeyvalueError> {
    suppression::add(api.ace.keyvalue(), &key, entry, api.ace.now()).await?;
    Ok(key)
}

/// The key and entry of a line, or why it is invalid.
fn imported(line: &[u8], now: Timestamp) -> Result<(String, Suppression), String> {
    let line: ImportedSuppression = serde_json::from_slice(line).map_err(|e| e.to_string())?;
    let key = match &line.kind {
        Some(kind) => suppression::key(kind, &line.address),
        None => suppression::key_of(&line.address),
    };
    let key = key.map_err(|e: AddressError| format!("address: {e}"))?;
    let time = match &line.time {
        Some(text) => text.parse::<Timestamp>().map_err(|e| format!("time: {e}"))?,
        None => now,
    };
    let reason = line.reason.unwrap_or(Reason::Manual);
    let entry = Suppression {
        reason,
        scope: line.scope.unwrap_or(reason.default_scope()),
        source: line.source.unwrap_or_else(|| "import".to_owned()),
        time: time.to_string(),
        detail: line.detail,
    };
    check_texts(&entry)?;
    Ok((key, entry))
}

fn check_texts(entry: &Suppression) -> Result<(), String> {
    let detail = entry.detail.as_deref().unwrap_or_default();
    for (name, text, max) in [("source", entry.source.as_str(), SOURCE_BYTES_MAX), ("detail", detail, DETAIL_BYTES_MAX)]
    {
        if one_line(text, max) != text {
            return Err(format!("{name}: must be one line of at most {max} bytes without control characters"));
        }
    }
    Ok(())
}

fn key_of(address: &str) -> Result<String, ApiError> {
    suppression::key_of(address).map_err(|e| ApiError::BadRequest(format!("address: {e}")))
}

/// Reads from the store, off the async threads.
async fn read<T: Send + 'static>(
    api: &Api,
    query: impl FnOnce(&ace_store::keyvalue::Keyvalue, Timestamp) -> Result<T, KeyvalueError> + Send + 'static,
) -> Result<T, ApiError> {
    let (store, now) = (api.ace.keyvalue().clone(), api.ace.now());
    let reading = tokio::task::spawn_blocking(move || query(&store, now));
    Ok(reading.await.map_err(|e| ApiError::Internal(e.to_string()))??)
}

impl SuppressedAddress {
    fn new(key: &str, entry: Suppression) -> Self {
        let (kind, address) = suppression::split(key);
        SuppressedAddress {
            kind: kind.to_owned(),
            address: address.to_owned(),
            reason: entry.reason.as_str(),
            scope: entry.scope.as_str(),
            source: entry.source,
            time: entry.time,
            detail: entry.detail,
        }
    }
}
