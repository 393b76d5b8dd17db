//! The event stream, and erasing a person's data.
//!
//! If events are kept, a stream reads them from the queue, and a client that reconnects resumes where it was. If they are not, a stream
//! has only new events. Missed events that are no longer available are reported as an event `gap`.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use ace_store::queue::{self, EventId};
use axum::Json;
use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Redirect, Response};
use futures_util::stream::{self, BoxStream, StreamExt};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use utoipa::IntoParams;

use super::Api;
use super::messages::check_address;
use super::problem::{ApiError, Problem};
use super::views::ErasedCounts;
use crate::events::Notification;

/// Kept events that a stream reads at once.
const PAGE: usize = 100;
/// The longest time between two queries of the queue.
const POLL_MAX: Duration = Duration::from_secs(5);
/// The pause after the queue could not be read.
const STORE_PAUSE: Duration = Duration::from_secs(1);
/// The id of every event that is not kept. A client that reconnects with it gets a `gap`.
const NOT_KEPT: &str = "live";

type Events = BoxStream<'static, Result<Event, Infallible>>;

/// Whose data is to be erased.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Person {
    /// The lms_user_id.
    user: Option<String>,
    /// The address, in any case. In a URL a `+` is written `%2B`.
    email: Option<String>,
}

/// Streams events as server-sent events, from now on or, with Last-Event-ID and if events are kept, from the one after that id.
///
/// Missed events that are no longer available are reported as an event `gap`; the stream then continues.
#[utoipa::path(get, path = "/v1/events", tag = "events", params(
    ("Last-Event-ID" = Option<String>, Header, description = "The id of the last event received; 0 for all that are kept"),
), responses(
    (status = 200, description = "Events in the form of Standard Webhooks", body = str, content_type = "text/event-stream"),
))]
pub(super) async fn events(State(api): State<Arc<Api>>, headers: HeaderMap) -> Result<Response, ApiError> {
    let last = headers.get("last-event-id").map(|id| id.to_str().unwrap_or_default().trim().to_owned());
    let events = if api.events_are_kept { kept(api, last).await? } else { live(&api, last) };
    let mut response = Sse::new(events).keep_alive(KeepAlive::default()).into_response();
    // Otherwise nginx buffers events until its buffer is full.
    response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

fn gap(data: Value) -> Event {
    Event::default().event("gap").data(data.to_string())
}

/// Events from now on.
fn live(api: &Api, last: Option<String>) -> Events {
    let missed = last.map(|last| gap(json!({"after": last, "reason": "events are not kept (events.keep)"})));
    let listening = (api.worker.listen(), api.stop.clone());
    let events = stream::unfold(listening, async |(mut listener, stop)| {
        let event = tokio::select! {
            event = listener.recv() => event,
            () = stop.cancelled() => return None,
        };
        let event = match event {
            Ok(notification) => {
                Event::default().event(notification.kind).data(String::from_utf8_lossy(&notification.body))
            }
            Err(RecvError::Lagged(missed)) => {
                gap(json!({"missed": missed, "reason": "the listener was too slow for events that are not kept"}))
            }
            Err(RecvError::Closed) => return None,
        };
        Some((Ok(event.id(NOT_KEPT)), (listener, stop)))
    });
    stream::iter(missed).map(Ok).chain(events).boxed()
}

/// Kept events after the last one that the client received, and new ones.
async fn kept(api: Arc<Api>, last: Option<String>) -> Result<Events, ApiError> {
    let known = api.queue.events(EventId::END, 0).await?.last;
    let after =
        last.as_deref().and_then(|last| last.parse().ok()).filter(|after| (EventId::START..=known).contains(after));
    let missed = last.filter(|_| after.is_none()).map(|last| {
        let reason = "the event with this id is unknown or was not kept";
        gap(json!({"after": last, "through": known.get(), "reason": reason})).id(known.to_string())
    });
    let reader = Reader { api, after: after.unwrap_or(known), gap_through: EventId::START, page: VecDeque::new() };
    let events = stream::unfold(reader, async |mut reader| Some((Ok(reader.next().await?), reader)));
    Ok(stream::iter(missed).map(Ok).chain(events).boxed())
}

/// Reads kept events in their order, a page at a time.
struct Reader {
    api: Arc<Api>,
    after: EventId,
    /// The last event of a gap that was reported.
    gap_through: EventId,
    page: VecDeque<queue::Event>,
}

impl Reader {
    /// The next event; `None` once the server stops.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.page.pop_front() {
                self.after = event.id;
                let body = String::from_utf8_lossy(&event.body).into_owned();
                return Some(Event::default().id(event.id.to_string()).event(event.kind).data(body));
            }
            if self.api.is_stopping() {
                return None;
            }
            // Subscribe before the query, so that a later event ends the wait.
            let listener = self.api.worker.listen();
            match self.api.queue.events(self.after, PAGE).await {
                Ok(found) => {
                    self.page.extend(found.events);
                    if found.pruned > self.after.max(self.gap_through) {
                        self.gap_through = found.pruned;
                        let reason = "events between these ids are no longer kept (queue.event-retention)";
                        let data =
                            json!({"after": self.after.to_string(), "through": found.pruned.get(), "reason": reason});
                        return Some(gap(data).id(self.after.to_string()));
                    }
                    if self.page.is_empty() {
                        self.rest(listener, POLL_MAX).await;
                    }
                }
                Err(error) => {
                    tracing::error!("Events for a stream cannot be read; retrying in {STORE_PAUSE:?}: {error}");
                    tokio::select! {
                        () = tokio::time::sleep(STORE_PAUSE) => {}
                        () = self.api.stop.cancelled() => {}
                    }
                }
            }
        }
    }

    async fn rest(&self, mut listener: broadcast::Receiver<Arc<Notification>>, at_most: Duration) {
        tokio::select! {
            _ = listener.recv() => {}
            () = tokio::time::sleep(at_most) => {}
            () = self.api.stop.cancelled() => {}
        }
    }
}

/// Redirects to `/v1/erase`, the current name of this route.
pub(super) async fn forget(request: Request) -> Redirect {
    let query = request.uri().query().map(|query| format!("?{query}")).unwrap_or_default();
    Redirect::permanent(&format!("/v1/erase{query}"))
}

/// Erases all data about messages to a person. Queued messages are not sent, settled messages are removed.
#[utoipa::path(post, path = "/v1/erase", tag = "people", params(Person), responses(
    (status = 200, description = "How many messages were erased", body = ErasedCounts),
    (status = 400, description = "No person is named, or the address contains a space (an unescaped `+`)", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn erase(
    State(api): State<Arc<Api>>,
    Query(person): Query<Person>,
) -> Result<Json<ErasedCounts>, ApiError> {
    if let Some(email) = &person.email {
        check_address("email", email)?;
    }
    if person.user.as_ref().is_some_and(|user| user.trim().is_empty()) {
        return Err(ApiError::BadRequest("user is empty; name a user id".to_owned()));
    }
    if person.user.is_none() && person.email.is_none() {
        return Err(ApiError::BadRequest("no person is named; use ?user=ID or ?email=ADDRESS".to_owned()));
    }
    Ok(Json(api.queue.erase(person.user, person.email).await?.into()))
}
