//! Batches: one message type and many recipients, which are stored as they arrive.

use std::sync::Arc;

use ace::message::{Member, MessageType, Object, json};
use ace_store::queue::{self, Batch, BatchState, NewBatch, Resolver};
use axum::Json;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::Api;
use super::body::{Lines, Pieces};
use super::described::MemberForm;
use super::problem::{ApiError, Problem};
use super::views::BatchStatus;
use crate::intake::{self, Intake};

/// The number of batches in a list by default, and the maximum.
const PAGE: usize = 100;
const PAGE_MAX: usize = 500;

/// The first line: the batch and its message type.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct BatchHead {
    /// Identifies the batch: a request with the same uuid continues it, and creates no message twice.
    uuid: Option<Uuid>,
    /// A message type in edx-ace's JSON form.
    #[schema(value_type = Object)]
    message_type: Box<RawValue>,
    /// The plugin that names the recipients. Without it, they are on the following lines.
    resolver: Option<ResolverRequest>,
}

/// A resolver: a plugin that names recipients.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ResolverRequest {
    plugin: String,
    /// Passed to the plugin unchanged.
    #[serde(default)]
    #[schema(value_type = Object)]
    arguments: Object,
}

/// Submits a batch: its head on the first line, then one recipient per line.
///
/// With a `resolver` in the head no line follows: the server fetches the recipients from the plugin, page by page, in the background.
/// Messages are sent while others still arrive. An interrupted batch can be sent again as a whole under the same uuid: a
/// message's uuid is derived from the batch's uuid and its key, so none is created twice.
#[utoipa::path(post, path = "/v1/batches", tag = "batches",
    request_body(content = MemberForm, content_type = "application/x-ndjson"), responses(
    (status = 202, description = "All recipients are on disk, or will be fetched from the resolver", body = BatchStatus),
    (status = 400, description = "A line is invalid; the lines before it were accepted", body = Problem, content_type = "application/problem+json"),
    (status = 409, description = "Another batch has this uuid, or it was cancelled", body = Problem, content_type = "application/problem+json"),
    (status = 422, description = "The message type is invalid", body = Problem, content_type = "application/problem+json"),
    (status = 503, description = "The queue is full or cannot be written; send the same request again", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn submit(State(api): State<Arc<Api>>, body: Body) -> Result<Response, ApiError> {
    let mut lines = Lines::new(Pieces::new(body, api.client_timeout()), api.max_body_bytes);
    let (_, first) = lines.next().await?.ok_or_else(|| ApiError::BadRequest("the body is empty".to_owned()))?;
    let head: BatchHead = serde_json::from_slice(&first).map_err(|e| {
        ApiError::BadRequest(format!(
            "line 1: {e}; it must contain the message type, as in {{\"message_type\": {{…}}}}"
        ))
    })?;
    let mut kind = MessageType::from_json(head.message_type.get().as_bytes())?;
    let uuid = head.uuid.unwrap_or_else(Uuid::new_v4);
    // All messages of a batch belong to one send, even if the type has no uuid of its own.
    if json::at(head.message_type.get(), "/uuid").is_none_or(|uuid| uuid == "null") {
        kind.uuid = uuid;
    }
    intake::not_before(&kind.options)?;
    let text = kind.to_json().into_bytes();
    if let Some(named) = head.resolver {
        return resolve(&api, ResolvedBatch { uuid, kind: text }, named, &mut lines).await;
    }
    let batch =
        api.queue.create_batch(NewBatch { uuid, digest: queue::digest(&text), kind: text }, api.ace.now()).await?;
    is_open(&batch)?;
    let mut intake = api.submitter().batch(&batch, &kind)?;
    let read = accept_lines(&api, &mut intake, &mut lines).await;
    // Lines before an invalid one, or before the connection broke, are accepted.
    intake.flush(api.ace.now()).await?;
    read?;
    let batch = api.queue.complete_batch(uuid).await?;
    Ok((StatusCode::ACCEPTED, Json(BatchStatus::from(batch))).into_response())
}

async fn accept_lines(api: &Api, intake: &mut Intake<'_>, lines: &mut Lines) -> Result<(), ApiError> {
    while let Some((number, line)) = lines.next().await? {
        if api.is_stopping() {
            return Err(ApiError::stopping());
        }
        intake.add(member(number, &line)?, api.ace.now()).await?;
    }
    Ok(())
}

fn is_open(batch: &Batch) -> Result<(), ApiError> {
    match batch.state {
        BatchState::Cancelled => Err(ApiError::Conflict("the batch was cancelled".to_owned())),
        _ => Ok(()),
    }
}

fn member(number: u64, line: &[u8]) -> Result<intake::Member, ApiError> {
    let wrong = |why: String| ApiError::BadRequest(format!("line {number}: {why}; the lines before it were accepted"));
    let Member { key, personal } = Member::from_json(line).map_err(|error| wrong(error.to_string()))?;
    // The head is line 1.
    let key = key.unwrap_or_else(|| (number - 1).to_string());
    Ok(intake::Member { key, personal })
}

/// A batch to be created.
struct ResolvedBatch {
    uuid: Uuid,
    /// The message type, as JSON.
    kind: Vec<u8>,
}

/// Creates a batch whose recipients a plugin names. They are fetched in the background, and further after a restart.
async fn resolve(
    api: &Api,
    batch: ResolvedBatch,
    named: ResolverRequest,
    lines: &mut Lines,
) -> Result<Response, ApiError> {
    let ResolvedBatch { uuid, kind } = batch;
    let wrong = |field: &str, why: String| ApiError::BadRequest(format!("line 1: resolver.{field}: {why}"));
    intake::resolver(&api.ace, &named.plugin).map_err(|error| wrong("plugin", error.to_string()))?;
    if lines.next().await?.is_some() {
        let why =
            "line 2: a resolver names the recipients, so no line may follow the first one; remove it, or the resolver"
                .to_owned();
        return Err(ApiError::BadRequest(why));
    }
    let arguments = Value::Object(named.arguments).to_string();
    let whole = [&kind[..], named.plugin.as_bytes(), arguments.as_bytes()].join(&b'\n');
    let resolver = Resolver { plugin: named.plugin, arguments };
    let batch = api
        .queue
        .create_resolved_batch(NewBatch { uuid, digest: queue::digest(&whole), kind }, resolver, api.ace.now())
        .await?;
    is_open(&batch)?;
    Ok((StatusCode::ACCEPTED, Json(BatchStatus::from(batch))).into_response())
}

/// Options of a list of batches.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct BatchQuery {
    /// The maximum number of batches (100 by default, at most 500). 0 means none.
    limit: Option<u64>,
}

/// Lists the latest batches.
#[utoipa::path(get, path = "/v1/batches", tag = "batches", params(BatchQuery), responses(
    (status = 200, description = "The batches, latest first", body = Vec<BatchStatus>),
    (status = 400, description = "The limit is invalid", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    Query(query): Query<BatchQuery>,
) -> Result<Json<Vec<BatchStatus>>, ApiError> {
    let max = query.limit.map_or(PAGE, |limit| usize::try_from(limit).unwrap_or(PAGE_MAX).min(PAGE_MAX));
    Ok(Json(api.queue.batches(max).await?.into_iter().map(BatchStatus::from).collect()))
}

/// Returns the progress of a batch: its messages by state.
#[utoipa::path(get, path = "/v1/batches/{uuid}", tag = "batches", params(("uuid" = Uuid, Path)), responses(
    (status = 200, description = "The batch", body = BatchStatus),
    (status = 404, description = "There is no such batch", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn one(State(api): State<Arc<Api>>, Path(uuid): Path<Uuid>) -> Result<Json<BatchStatus>, ApiError> {
    Ok(Json(api.queue.batch(uuid).await?.ok_or(ApiError::NotFound("batch"))?.into()))
}

/// Pauses a batch: no further message is sent until it is resumed. Messages in flight are finished.
#[utoipa::path(post, path = "/v1/batches/{uuid}/pause", tag = "batches", params(("uuid" = Uuid, Path)), responses(
    (status = 200, description = "The batch", body = BatchStatus),
    (status = 404, description = "There is no such batch", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn pause(State(api): State<Arc<Api>>, Path(uuid): Path<Uuid>) -> Result<Json<BatchStatus>, ApiError> {
    Ok(Json(api.queue.pause_batch(uuid).await?.into()))
}

/// Resumes a paused batch.
#[utoipa::path(post, path = "/v1/batches/{uuid}/resume", tag = "batches", params(("uuid" = Uuid, Path)), responses(
    (status = 200, description = "The batch", body = BatchStatus),
    (status = 404, description = "There is no such batch", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn resume(State(api): State<Arc<Api>>, Path(uuid): Path<Uuid>) -> Result<Json<BatchStatus>, ApiError> {
    Ok(Json(api.queue.resume_batch(uuid).await?.into()))
}

/// Cancels all messages of a batch that were not sent.
#[utoipa::path(post, path = "/v1/batches/{uuid}/cancel", tag = "batches", params(("uuid" = Uuid, Path)), responses(
    (status = 200, description = "The batch", body = BatchStatus),
    (status = 404, description = "There is no such batch", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn cancel(State(api): State<Arc<Api>>, Path(uuid): Path<Uuid>) -> Result<Json<BatchStatus>, ApiError> {
    Ok(Json(api.queue.cancel_batch(uuid, api.ace.now()).await?.into()))
}
