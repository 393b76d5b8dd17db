//! Batches: one message type, many recipients, streamed to the disk as they come in.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use super::Api;
use super::body::{Lines, Pieces};
use super::described::RecipientForm;
use super::messages;
use super::problem::{ApiError, Problem};
use super::shown::BatchShown;
use crate::message::{MessageType, Object, Recipient};
use crate::queue::{self, Accepted, Batch, BatchState, New};

/// Messages that go to the disk with one write.
const CHUNK: usize = 128;
/// Batches that are listed.
const LISTED: usize = 100;

/// The first line: which batch it is, and of what type its messages are.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// The batch's own uuid: the same one again is the same batch, and each of its messages comes about once.
    uuid: Option<Uuid>,
    /// A message type in edx-ace's JSON form.
    #[schema(value_type = Object)]
    message_type: Value,
}

/// Every further line: one recipient.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// What tells this one from the others of the batch; its number among the lines where it is left out.
    key: Option<String>,
    /// As in a message.
    #[schema(value_type = RecipientForm)]
    recipient: Value,
    language: Option<String>,
    /// Laid over the type's context.
    #[serde(default)]
    #[schema(value_type = Object)]
    user_context: Object,
}

/// Hands in a batch: its head on the first line, then a recipient a line.
///
/// Recipients go out while others still come in. A batch that was cut off can be sent again whole under the same uuid: a
/// message's uuid is made of the batch's uuid and its key, so each comes about once.
#[utoipa::path(post, path = "/v1/batches", tag = "batches",
    request_body(content = Member, content_type = "application/x-ndjson"), responses(
    (status = 202, description = "All recipients are on the disk", body = BatchShown),
    (status = 400, description = "A line makes no sense; those before it were taken", body = Problem, content_type = "application/problem+json"),
    (status = 409, description = "Another batch has this uuid, or it was cancelled", body = Problem, content_type = "application/problem+json"),
    (status = 422, description = "The message type is wrong", body = Problem, content_type = "application/problem+json"),
    (status = 503, description = "The queue is full, or cannot be written; send the same again", body = Problem, content_type = "application/problem+json"),
))]
pub async fn hand_in(State(api): State<Arc<Api>>, body: Body) -> Result<Response, ApiError> {
    let mut lines = Lines::new(Pieces::new(body, api.settings.read_timeout), api.max_body_bytes);
    let (_, first) = lines.next().await?.ok_or_else(|| ApiError::BadRequest("the body is empty".to_owned()))?;
    let head: Head = serde_json::from_slice(&first).map_err(|e| {
        ApiError::BadRequest(format!("line 1: {e}; it holds the message type, as in {{\"message_type\": {{…}}}}"))
    })?;
    let mut kind = MessageType::from_json(head.message_type.to_string().as_bytes())?;
    let uuid = head.uuid.unwrap_or_else(Uuid::new_v4);
    // The messages of one batch are of one send, also where the type has no uuid of its own.
    if head.message_type.get("uuid").is_none_or(Value::is_null) {
        kind.uuid = uuid;
    }
    let text = kind.to_json().into_bytes();
    let batch = api.queue.begin_batch(uuid, queue::digest(&text), text, api.ace.now()).await?;
    if batch.state == BatchState::Cancelled {
        return Err(ApiError::Conflict("the batch was cancelled".to_owned()));
    }
    let mut intake = Intake { api: &api, batch, kind, chunk: Vec::with_capacity(CHUNK) };
    while let Some((number, line)) = lines.next().await? {
        intake.add(number, &line).await?;
    }
    intake.flush().await?;
    let batch = api.queue.complete_batch(uuid).await?;
    Ok((StatusCode::ACCEPTED, Json(BatchShown::from(batch))).into_response())
}

/// A batch that is coming in.
struct Intake<'a> {
    api: &'a Api,
    batch: Batch,
    kind: MessageType,
    chunk: Vec<New>,
}

impl Intake<'_> {
    async fn add(&mut self, number: u64, line: &[u8]) -> Result<(), ApiError> {
        let wrong = |why: String| ApiError::BadRequest(format!("line {number}: {why}; the lines before it were taken"));
        let member: Member = serde_json::from_slice(line).map_err(|e| wrong(e.to_string()))?;
        let recipient = Recipient::from_value(member.recipient).map_err(|errors| wrong(errors.to_string()))?;
        let mut message = self.kind.personalize(recipient, member.language, member.user_context);
        // The head is line 1.
        let key = member.key.unwrap_or_else(|| (number - 1).to_string());
        message.uuid = Uuid::new_v5(&self.batch.uuid, key.as_bytes());
        self.chunk.push(messages::new(&message, self.batch.lane)?);
        if self.chunk.len() == CHUNK { self.flush().await } else { Ok(()) }
    }

    async fn flush(&mut self) -> Result<(), ApiError> {
        let chunk = std::mem::replace(&mut self.chunk, Vec::with_capacity(CHUNK));
        let uuids: Vec<Uuid> = chunk.iter().map(|new| new.uuid).collect();
        let accepted = self.api.queue.accept(chunk, self.api.ace.now()).await?;
        match accepted.iter().position(|one| *one == Accepted::Conflict) {
            None => Ok(()),
            Some(at) => {
                let why = format!("the message {} was in this batch before, with other content", uuids[at]);
                Err(ApiError::Conflict(why))
            }
        }
    }
}

/// The latest batches.
#[utoipa::path(get, path = "/v1/batches", tag = "batches", responses(
    (status = 200, description = "100 at most, the latest first", body = Vec<BatchShown>),
))]
pub async fn list(State(api): State<Arc<Api>>) -> Result<Json<Vec<BatchShown>>, ApiError> {
    Ok(Json(api.queue.batches(LISTED).await?.into_iter().map(BatchShown::from).collect()))
}

/// How far a batch is: its messages by state.
#[utoipa::path(get, path = "/v1/batches/{uuid}", tag = "batches", params(("uuid" = Uuid, Path)), responses(
    (status = 200, description = "Its state and counts", body = BatchShown),
    (status = 404, description = "There is none", body = Problem, content_type = "application/problem+json"),
))]
pub async fn one(State(api): State<Arc<Api>>, Path(uuid): Path<Uuid>) -> Result<Json<BatchShown>, ApiError> {
    Ok(Json(api.queue.batch(uuid).await?.ok_or(ApiError::NotFound("batch"))?.into()))
}

/// Nothing more of it goes out until it is resumed, but for what is under way.
#[utoipa::path(post, path = "/v1/batches/{uuid}/pause", tag = "batches", params(("uuid" = Uuid, Path)), responses(
    (status = 200, description = "Where it stands", body = BatchShown),
    (status = 404, description = "There is none", body = Problem, content_type = "application/problem+json"),
))]
pub async fn pause(State(api): State<Arc<Api>>, Path(uuid): Path<Uuid>) -> Result<Json<BatchShown>, ApiError> {
    Ok(Json(api.queue.pause_batch(uuid).await?.into()))
}

/// A paused batch goes on.
#[utoipa::path(post, path = "/v1/batches/{uuid}/resume", tag = "batches", params(("uuid" = Uuid, Path)), responses(
    (status = 200, description = "Where it stands", body = BatchShown),
    (status = 404, description = "There is none", body = Problem, content_type = "application/problem+json"),
))]
pub async fn resume(State(api): State<Arc<Api>>, Path(uuid): Path<Uuid>) -> Result<Json<BatchShown>, ApiError> {
    Ok(Json(api.queue.resume_batch(uuid).await?.into()))
}

/// Takes back everything of it that has not gone out.
#[utoipa::path(post, path = "/v1/batches/{uuid}/cancel", tag = "batches", params(("uuid" = Uuid, Path)), responses(
    (status = 200, description = "Where it stands", body = BatchShown),
    (status = 404, description = "There is none", body = Problem, content_type = "application/problem+json"),
))]
pub async fn cancel(State(api): State<Arc<Api>>, Path(uuid): Path<Uuid>) -> Result<Json<BatchShown>, ApiError> {
    Ok(Json(api.queue.cancel_batch(uuid, api.ace.now()).await?.into()))
}
