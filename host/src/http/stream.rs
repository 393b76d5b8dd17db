//! Events as they happen, for whoever listens, and people who are to be forgotten.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Query, State};
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::stream::{self, Stream};
use serde::Deserialize;
use tokio::sync::broadcast::error::RecvError;
use utoipa::IntoParams;

use super::Api;
use super::problem::{ApiError, Problem};
use super::shown::Erased;

/// Who is to be forgotten.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct Person {
    /// The lms_user_id.
    user: Option<String>,
    /// The address, in any case.
    email: Option<String>,
}

/// Every event from now on, as server-sent events. Who is too slow is told `lagged` and goes on with the latest.
#[utoipa::path(get, path = "/v1/events", tag = "events", responses(
    (status = 200, description = "Events in the form of Standard Webhooks", body = str, content_type = "text/event-stream"),
))]
pub async fn events(State(api): State<Arc<Api>>) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let listener = api.worker.listen();
    let stop = api.stop.clone();
    let events = stream::unfold((listener, stop), async |(mut listener, stop)| {
        let event = tokio::select! {
            event = listener.recv() => event,
            () = stop.cancelled() => return None,
        };
        let event = match event {
            Ok(told) => Event::default().event(told.kind).data(String::from_utf8_lossy(&told.body)),
            Err(RecvError::Lagged(missed)) => Event::default().event("lagged").data(missed.to_string()),
            Err(RecvError::Closed) => return None,
        };
        Some((Ok(event), (listener, stop)))
    });
    Sse::new(events).keep_alive(KeepAlive::default())
}

/// Erases everything about the messages to a person: what waits will not go out, what is settled is not kept.
#[utoipa::path(post, path = "/v1/forget", tag = "people", params(Person), responses(
    (status = 200, description = "How many messages that were", body = Erased),
    (status = 400, description = "Nobody is named", body = Problem, content_type = "application/problem+json"),
))]
pub async fn forget(State(api): State<Arc<Api>>, Query(person): Query<Person>) -> Result<Json<Erased>, ApiError> {
    if person.user.is_none() && person.email.is_none() {
        return Err(ApiError::BadRequest("name who is to be forgotten: ?user=ID or ?email=ADDRESS".to_owned()));
    }
    Ok(Json(api.queue.forget(person.user, person.email).await?.into()))
}
