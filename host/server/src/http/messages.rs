//! Messages: submission, state and history, retries.

use std::sync::Arc;
use std::time::Duration;

use ace::internals::monitoring::trace;
use ace::internals::pipeline::Progress;
use ace::message::{self, DateTime, Message, Report};
use ace_store::queue::{self, Accepted, Filter, MessageId, QueueError, Selection, Stored};
use axum::Json;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::Api;
use super::body::Pieces;
use super::described::MessageForm;
use super::problem::{ApiError, Problem};
use super::views::{MessageDetails, MessageSummary};
use crate::feedback;
use crate::intake::submit::{Admitted, Submission};
use crate::worker::{self, Awaited};

/// The longest `?wait`, in seconds.
const WAIT_MAX_S: u64 = 120;
/// The number of messages on a page by default, and the maximum.
const PAGE: usize = 50;
const PAGE_MAX: usize = 500;
/// Events of feedback that the details of a message contain.
const FEEDBACK_MAX: usize = 200;
/// The maximum length of an Idempotency-Key.
const KEY_MAX: usize = 255;
/// The namespace of uuids that are derived from idempotency keys.
const KEYS: Uuid = Uuid::from_u128(0x5a1c_7b0e_6a5d_4f0e_9d0b_1ace_0000_0001);

/// Options of a submission.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct SubmitQuery {
    /// Seconds to wait for the outcome, at most 120; by default the response is sent once the message is stored.
    wait: Option<u64>,
    /// Do everything except delivery, and respond with the report.
    #[serde(default)]
    dry_run: Option<String>,
    /// Channel types or channels, separated by commas, that the message is restricted to.
    limit_to: Option<String>,
}

/// A submitted message.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SubmittedMessage {
    pub uuid: Uuid,
    /// Its state; `queued` for a new message.
    pub state: &'static str,
    /// Whether it was submitted before.
    pub repeated: bool,
    /// Whether it was submitted before with another `limit_to`, and is now also sent over the channel types of this request.
    pub extended: bool,
    /// The report, if the request waited for it and the message is settled.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub report: Option<Value>,
}

/// The result of a dry run.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DryRun {
    /// Always true.
    pub dry_run: bool,
    /// In the form of `ace explain --json`.
    #[schema(value_type = Object)]
    pub report: Report,
}

/// The response to a submission.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(super) enum SubmitResponse {
    SubmittedMessage(SubmittedMessage),
    DryRun(DryRun),
}

/// A filter of messages.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct MessageQuery {
    /// `queued`, `sent`, `maybe_sent`, `not_sent`, `failed`, `expired`, `corrupt`, `cancelled`, `discarded`, or `dead` for
    /// those that can be retried.
    state: Option<String>,
    /// `app_label.name`.
    name: Option<String>,
    /// The recipient's lms_user_id.
    user: Option<String>,
    /// The recipient's address, in any case. In a URL a `+` is written `%2B`.
    email: Option<String>,
    /// Accepted at this time or later (ISO 8601).
    since: Option<String>,
    /// Accepted before this time.
    until: Option<String>,
    /// The cursor of the previous page (`next`).
    cursor: Option<i64>,
    /// The maximum number of messages: on a page (50 by default, at most 500), or to be changed (all that match by
    /// default). 0 means none.
    limit: Option<u64>,
}

/// A page of messages, latest first.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct MessagePage {
    pub messages: Vec<MessageSummary>,
    /// The cursor of the next page; null on the last one.
    pub next: Option<i64>,
}

/// The number of messages that a request changed.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ChangedCount {
    pub changed: u64,
}

/// Submits one message in edx-ace's JSON form.
///
/// The response is sent once the message is on disk. A message with the same uuid, or without a uuid and with the same
/// Idempotency-Key, is the same message; other content under it is a conflict.
#[utoipa::path(post, path = "/v1/messages", tag = "messages", params(SubmitQuery,
    ("Idempotency-Key" = Option<String>, Header, description = "Determines the uuid of a message without one"),
), request_body(content = MessageForm, content_type = "application/json"), responses(
    (status = 200, description = "The message is settled, or this was a dry run", body = SubmitResponse),
    (status = 202, description = "The message is on disk", body = SubmittedMessage),
    (status = 400, description = "The request is invalid", body = Problem, content_type = "application/problem+json"),
    (status = 409, description = "Another message has this uuid", body = Problem, content_type = "application/problem+json"),
    (status = 413, description = "The message is too long", body = Problem, content_type = "application/problem+json"),
    (status = 422, description = "Fields are invalid", body = Problem, content_type = "application/problem+json"),
    (status = 503, description = "The queue is full or cannot be written", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn submit(
    State(api): State<Arc<Api>>,
    Query(query): Query<SubmitQuery>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let body = Pieces::new(body, api.client_timeout()).whole(api.max_body_bytes).await?;
    let message = Message::from_json_or(&body, key(&headers)?)?;
    let limit: Vec<String> =
        query.limit_to.iter().flat_map(|list| list.split(',')).map(|name| name.trim().to_owned()).collect();
    let is_dry = query.dry_run.as_deref().is_some_and(|text| text != "false" && text != "0");
    if is_dry {
        let report =
            api.ace.explain(message, &limit).await.map_err(|e| ApiError::BadRequest(format!("limit_to: {e}")))?;
        return Ok(Json(SubmitResponse::DryRun(DryRun { dry_run: true, report })).into_response());
    }
    let trace = trace::current().map(|trace| trace.to_string());
    let wait = query.wait.map(|seconds| Duration::from_secs(seconds.min(WAIT_MAX_S)));
    let submission = Submission { message, limit_to: limit, trace, is_awaited: wait.is_some() };
    let submitted = accept(&api, submission, wait).await?;
    let status = if submitted.report.is_some() { StatusCode::OK } else { StatusCode::ACCEPTED };
    let location = HeaderValue::from_str(&format!("/v1/messages/{}", submitted.uuid));
    let mut response = (status, Json(SubmitResponse::SubmittedMessage(submitted))).into_response();
    response.headers_mut().extend(location.ok().map(|location| (header::LOCATION, location)));
    Ok(response)
}

/// The uuid derived from the request's Idempotency-Key.
fn key(headers: &HeaderMap) -> Result<Option<Uuid>, ApiError> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    let key = value.to_str().ok().filter(|key| (1..=KEY_MAX).contains(&key.len()));
    let key = key
        .ok_or_else(|| ApiError::BadRequest(format!("Idempotency-Key: must have 1 to {KEY_MAX} visible characters")))?;
    Ok(Some(Uuid::new_v5(&KEYS, key.as_bytes())))
}

/// Accepts a message and, if requested, waits for its outcome.
async fn accept(api: &Api, submission: Submission, wait: Option<Duration>) -> Result<SubmittedMessage, ApiError> {
    let uuid = submission.message.uuid;
    let Admitted { accepted, outcome } = api.submitter().message(submission).await?;
    let (state, repeated, extended) = match accepted {
        Accepted::New(_) => (queue::State::Queued, false, false),
        Accepted::Same(state) => (state, true, false),
        Accepted::Extended => (queue::State::Queued, true, true),
        Accepted::Ended(state) => {
            let state = state.as_str();
            let why = format!("the message {uuid} is {state}: no channel type can be added to it (limit_to)");
            return Err(ApiError::Conflict(why));
        }
        Accepted::Conflict => {
            let why = format!("another message has the uuid {uuid}; send this one with a new uuid");
            return Err(ApiError::Conflict(why));
        }
    };
    let mut submitted = SubmittedMessage { uuid, state: state.as_str(), repeated, extended, report: None };
    match (wait, outcome) {
        (Some(wait), Some(outcome)) if state == queue::State::Queued => {
            await_outcome(api, &mut submitted, wait, outcome).await
        }
        (Some(_), _) => add_stored_outcome(api, &mut submitted).await?,
        (None, _) => {}
    }
    Ok(submitted)
}

/// Waits for the outcome of a message that this process is sending, and adds it to the response.
async fn await_outcome(api: &Api, submitted: &mut SubmittedMessage, wait: Duration, mut outcome: Awaited<'_>) {
    let settled = tokio::select! {
        settled = outcome.settled_within(wait) => settled,
        // Messages in flight are finished when the server stops, but clients no longer wait for them.
        () = api.stop.cancelled() => None,
    };
    if let Some(settled) = settled {
        submitted.state = worker::state(&settled).as_str();
        submitted.report = serde_json::to_value(settled.as_ref()).ok();
    }
}

/// Adds the outcome of a message that was settled before this request.
async fn add_stored_outcome(api: &Api, submitted: &mut SubmittedMessage) -> Result<(), ApiError> {
    if let Some(stored) = api.queue.message(submitted.uuid).await? {
        submitted.state = stored.state.as_str();
        submitted.report = report(&stored);
    }
    Ok(())
}

/// Returns one message with its state and timeline.
#[utoipa::path(get, path = "/v1/messages/{uuid}", tag = "messages", params(("uuid" = Uuid, Path)), responses(
    (status = 200, description = "The message", body = MessageDetails),
    (status = 404, description = "There is no such message, or its retention is over", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn one(State(api): State<Arc<Api>>, Path(uuid): Path<Uuid>) -> Result<Json<MessageDetails>, ApiError> {
    let stored = api.queue.message(uuid).await?.ok_or(ApiError::NotFound("message"))?;
    let feedback = match api.queue.feedback(uuid, FEEDBACK_MAX).await {
        // The message itself can be read.
        Err(QueueError::Damaged(_)) => Vec::new(),
        found => found?.iter().map(feedback::view).collect(),
    };
    Ok(Json(MessageDetails { message: (&stored).into(), report: report(&stored), feedback }))
}

/// Lists messages by recipient, name, state and time, latest first.
#[utoipa::path(get, path = "/v1/messages", tag = "messages", params(MessageQuery), responses(
    (status = 200, description = "A page of messages", body = MessagePage),
    (status = 400, description = "A filter is invalid", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    Query(query): Query<MessageQuery>,
) -> Result<Json<MessagePage>, ApiError> {
    let max = query.limit.map_or(PAGE, |limit| usize::try_from(limit).unwrap_or(PAGE_MAX).min(PAGE_MAX));
    if max == 0 {
        query.filter()?;
        return Ok(Json(MessagePage { messages: Vec::new(), next: query.cursor }));
    }
    let page = api.queue.messages(query.filter()?, query.cursor.map(MessageId::from), max).await?;
    Ok(Json(MessagePage {
        messages: page.messages.iter().map(MessageSummary::from).collect(),
        next: page.next.map(MessageId::get),
    }))
}

/// Retries a message that failed or expired, from the beginning.
#[utoipa::path(post, path = "/v1/messages/{uuid}/retry", tag = "messages", params(("uuid" = Uuid, Path)), responses(
    (status = 202, description = "The message is queued again"),
    (status = 404, description = "There is no such message", body = Problem, content_type = "application/problem+json"),
    (status = 409, description = "The message has not failed, or its content was erased", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn retry(State(api): State<Arc<Api>>, Path(uuid): Path<Uuid>) -> Result<StatusCode, ApiError> {
    api.queue.retry(uuid, api.ace.now()).await?;
    Ok(StatusCode::ACCEPTED)
}

/// Cancels a queued message.
#[utoipa::path(post, path = "/v1/messages/{uuid}/cancel", tag = "messages", params(("uuid" = Uuid, Path)), responses(
    (status = 204, description = "The message will not be sent"),
    (status = 404, description = "There is no such message", body = Problem, content_type = "application/problem+json"),
    (status = 409, description = "The message is being sent or is already settled", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn cancel(State(api): State<Arc<Api>>, Path(uuid): Path<Uuid>) -> Result<StatusCode, ApiError> {
    api.queue.cancel(uuid, api.ace.now()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Discards a failed message, and erases its content.
#[utoipa::path(post, path = "/v1/messages/{uuid}/discard", tag = "messages", params(("uuid" = Uuid, Path)), responses(
    (status = 204, description = "The message is discarded"),
    (status = 404, description = "There is no such message", body = Problem, content_type = "application/problem+json"),
    (status = 409, description = "The message has not failed", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn discard(State(api): State<Arc<Api>>, Path(uuid): Path<Uuid>) -> Result<StatusCode, ApiError> {
    api.queue.discard(uuid).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Retries the failed and expired messages that match a filter, latest first; at most `limit`.
#[utoipa::path(post, path = "/v1/dead-letters/retry", tag = "messages", params(MessageQuery), responses(
    (status = 200, description = "How many messages are queued again", body = ChangedCount),
    (status = 400, description = "A filter is invalid", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn retry_all(
    State(api): State<Arc<Api>>,
    Query(query): Query<MessageQuery>,
) -> Result<Json<ChangedCount>, ApiError> {
    Ok(Json(ChangedCount { changed: api.queue.retry_all(query.selection()?, api.ace.now()).await? }))
}

/// Discards the failed and expired messages that match a filter, latest first; at most `limit`.
#[utoipa::path(post, path = "/v1/dead-letters/discard", tag = "messages", params(MessageQuery), responses(
    (status = 200, description = "How many messages were discarded", body = ChangedCount),
    (status = 400, description = "A filter is invalid", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn discard_all(
    State(api): State<Arc<Api>>,
    Query(query): Query<MessageQuery>,
) -> Result<Json<ChangedCount>, ApiError> {
    Ok(Json(ChangedCount { changed: api.queue.discard_all(query.selection()?).await? }))
}

/// Rejects an address that the client cannot have meant, such as one with a space.
pub(super) fn check_address(name: &str, address: &str) -> Result<(), ApiError> {
    ace_store::person::check_query_address(address).map_err(|why| ApiError::BadRequest(format!("{name}: {why}")))
}

impl MessageQuery {
    fn selection(&self) -> Result<Selection, ApiError> {
        Ok(Selection { filter: self.filter()?, cursor: self.cursor.map(MessageId::from), limit: self.limit })
    }

    fn filter(&self) -> Result<Filter, ApiError> {
        let moment = |name: &str, text: &Option<String>| {
            let read = |text: &String| DateTime::parse(text).map(|at| at.timestamp());
            text.as_ref().map(read).transpose().map_err(|e| ApiError::BadRequest(format!("{name}: {e}")))
        };
        let is_dead = self.state.as_deref() == Some("dead");
        let state = match &self.state {
            Some(text) if !is_dead => {
                let known = queue::State::ALL.map(queue::State::as_str);
                let nearest = message::nearest(text, known).map(|near| format!("did you mean {near:?}?"));
                let hint = nearest.unwrap_or_else(|| format!("the states are {}", known.join(", ")));
                let invalid = |e| ApiError::BadRequest(format!("state: {e}; {hint}"));
                Some(text.parse::<queue::State>().map_err(invalid)?)
            }
            _ => None,
        };
        if let Some(email) = &self.email {
            check_address("email", email)?;
        }
        Ok(Filter {
            state,
            is_dead,
            name: self.name.clone(),
            user: self.user.clone(),
            email: self.email.clone(),
            since: moment("since", &self.since)?,
            until: moment("until", &self.until)?,
        })
    }
}

/// The report of a message. If it is not settled, the report so far.
fn report(stored: &Stored) -> Option<Value> {
    match (&stored.report, &stored.progress) {
        (Some(report), _) => serde_json::from_slice(report).ok(),
        (None, Some(progress)) => serde_json::to_value(Progress::report_of(progress).ok()?).ok(),
        (None, None) => None,
    }
}
