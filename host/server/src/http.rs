//! The HTTP API of `ace serve`: routes, requests and responses, and authorization. The rules of sending are elsewhere.
//!
//! - [`messages`], [`batches`]: submission and status; [`keyvalue`]: key-value entries; [`suppressions`]; [`plugins`];
//!   [`stream`]: events and erasure; [`feedback`]: requests of providers; [`status`]: health, metrics, the queue
//! - [`admission`]: checks that every request must pass; [`operations`]: query names and body types
//! - [`guard`]: tokens, scopes and rates; [`body`]: bounded reading; [`problem`]: errors, as RFC 9457
//! - [`views`]: the JSON of responses; [`docs`]: the OpenAPI description, [`described`]: what it says of every route, [`examples`]
//! - [`listen`]: connections and TLS; [`slots`]: the limit of connections; [`client_timeout`]: the limit of waiting for a client, used
//!   for bodies ([`body`]), for writes ([`timed`]) and for each HTTP/2 stream ([`streams`])
//!
//! `/openapi.json` describes all of it (OpenAPI 3.1), and `/docs` shows that in a browser.

mod admission;
mod batches;
mod body;
mod client_timeout;
mod described;
mod docs;
mod examples;
mod feedback;
mod guard;
mod keyvalue;
pub(crate) mod listen;
mod messages;
mod operations;
mod plugins;
mod problem;
mod slots;
mod status;
mod stream;
mod streams;
mod suppressions;
mod timed;
mod views;

use std::sync::Arc;
use std::time::Duration;

use ace::Ace;
use ace::config;
use ace::internals::monitoring::Exposition;
use ace::internals::monitoring::trace::{self, TraceContext};
use ace::internals::tasks::Tasks;
use ace_store::queue::Queue;
use admission::Admission;
use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderValue, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::feedback as feedback_intake;
use crate::intake::submit::Submitter;
use crate::tokens::Tokens;
use crate::worker::Worker;
pub(crate) use client_timeout::ClientLimits;
use client_timeout::ClientTimeout;
pub(crate) use guard::Rates;
use operations::Operations;
use problem::ApiError;
use slots::{Decision, Spare};

/// The state that all routes share.
pub(crate) struct Api {
    pub ace: Arc<Ace>,
    pub queue: Arc<Queue>,
    pub worker: Arc<Worker>,
    /// `None` if no token is required. The server then listens on this machine only.
    pub tokens: Option<Tokens>,
    pub rates: Rates,
    pub metrics: Option<Exposition>,
    pub events_are_kept: bool,
    pub settings: config::Server,
    pub feedback: Arc<feedback_intake::Intake>,
    pub feedback_settings: config::Feedback,
    pub feedback_rates: Rates,
    /// Limits the requests with feedback that are in progress.
    pub feedback_permits: Semaphore,
    pub max_body_bytes: usize,
    /// The background tasks.
    pub tasks: Arc<Tasks>,
    /// How long to wait for the body of a request.
    pub reading: Arc<ClientLimits>,
    pub stop: CancellationToken,
}

impl Api {
    fn is_stopping(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Accepts messages.
    fn submitter(&self) -> Submitter<'_> {
        Submitter::new(&self.ace, &self.queue, &self.worker)
    }

    /// The timeout of a new request's client.
    fn client_timeout(&self) -> ClientTimeout {
        ClientTimeout::new(self.reading.clone())
    }
}

#[derive(OpenApi)]
#[openapi(info(
    title = "ACE",
    description = "The automated communication engine: messages, batches, key-value entries, suppressions, plugins.",
    license(name = "Apache-2.0", identifier = "Apache-2.0")
))]
struct Described;

/// All routes, each behind the scopes that it requires.
pub(crate) fn router(api: Arc<Api>) -> Router {
    let (send, query, read, admin) = (
        from_fn_with_state(api.clone(), guard::may_send),
        from_fn_with_state(api.clone(), guard::may_query),
        from_fn_with_state(api.clone(), guard::may_read),
        from_fn_with_state(api.clone(), guard::may_administrate),
    );
    let bounded = from_fn_with_state(api.clone(), in_time);
    // Submitting a batch and listening to events have no time limit; everything else has one.
    let unbounded = OpenApiRouter::new()
        .merge(OpenApiRouter::new().routes(routes!(batches::submit)).route_layer(send.clone()))
        .merge(
            OpenApiRouter::new()
                .routes(routes!(keyvalue::bulk))
                .routes(routes!(suppressions::import))
                .route_layer(admin.clone()),
        )
        .merge(OpenApiRouter::new().routes(routes!(stream::events)).route_layer(read.clone()));
    let sending = OpenApiRouter::new().routes(routes!(messages::submit)).route_layer(send);
    let querying = OpenApiRouter::new().routes(routes!(messages::one)).routes(routes!(batches::one)).route_layer(query);
    let reading = OpenApiRouter::new()
        .routes(routes!(messages::list))
        .routes(routes!(batches::list))
        .routes(routes!(keyvalue::get))
        .routes(routes!(keyvalue::list))
        .routes(routes!(suppressions::list))
        .routes(routes!(suppressions::get))
        .routes(routes!(plugins::list))
        .routes(routes!(plugins::one))
        .routes(routes!(plugins::shadow))
        .routes(routes!(status::queue))
        .routes(routes!(status::metrics))
        .route_layer(read);
    let changing = OpenApiRouter::new()
        .routes(routes!(messages::retry))
        .routes(routes!(messages::cancel))
        .routes(routes!(messages::discard))
        .routes(routes!(messages::retry_all))
        .routes(routes!(messages::discard_all))
        .routes(routes!(batches::pause))
        .routes(routes!(batches::resume))
        .routes(routes!(batches::cancel))
        .routes(routes!(keyvalue::put))
        .routes(routes!(keyvalue::delete))
        .routes(routes!(suppressions::put))
        .routes(routes!(suppressions::delete))
        .routes(routes!(plugins::reload))
        .routes(routes!(stream::erase))
        .route_layer(admin);
    let open = OpenApiRouter::new().routes(routes!(status::healthz)).routes(routes!(status::readyz));
    let bounded_routes = sending.merge(querying).merge(reading).merge(changing).merge(open).layer(bounded.clone());
    let (router, mut described) =
        OpenApiRouter::with_openapi(Described::openapi()).merge(unbounded).merge(bounded_routes).split_for_parts();
    described::complete(&mut described, api.tokens.is_some());
    let admission = Arc::new(Admission::new(Operations::of(&described), &api.settings));
    router
        .merge(docs::router(&described))
        // Not described: what a plugin takes and answers is its provider's.
        .merge(feedback::router().layer(bounded))
        .route("/v1/forget", post(stream::forget))
        .fallback(async || ApiError::NotFound("route"))
        .method_not_allowed_fallback(async || ApiError::NoMethod.into_response())
        .layer(from_fn_with_state((admission, api.clone()), enter))
        .with_state(api)
}

/// Runs before every route: starts a span below the request's trace context, rejects requests that [`Admission`] does not allow or
/// that no connection slot is free for, turns every rejection into a problem, and forbids content sniffing.
async fn enter(State((admission, api)): State<(Arc<Admission>, Arc<Api>)>, request: Request, next: Next) -> Response {
    let (method, trace) = (request.method().clone(), TraceContext::from_headers(request.headers()));
    let route =
        request.extensions().get::<MatchedPath>().map_or_else(|| "none".to_owned(), |path| path.as_str().to_owned());
    let spare = request.extensions().get::<Arc<Spare>>();
    let decision = spare.map_or(Decision::Keep, |spare| spare.decide(guard::client_kind(&api, &request)));
    let response = async {
        let mut response = match admission.check(&request) {
            Err(error) => error.into_response(),
            Ok(()) if decision == Decision::Refuse => ApiError::no_slot().into_response(),
            Ok(()) => as_problem(next.run(request).await).await,
        };
        if decision != Decision::Keep {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        response
    };
    trace::in_request(&method, &route, trace, |response: &Response| response.status().as_u16(), response).await
}

/// Ends a request that takes too long; the time of `?wait` is added.
async fn in_time(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    let wait = request.uri().query().unwrap_or_default().split('&').find_map(|part| part.strip_prefix("wait="));
    let wait = wait.and_then(|seconds| seconds.parse().ok()).map(|s: u64| Duration::from_secs(s.min(120)));
    let at_most = api.settings.request_timeout + wait.unwrap_or_default();
    match tokio::time::timeout(at_most, next.run(request)).await {
        Ok(response) => response,
        Err(_) => ApiError::TooSlow.into_response(),
    }
}

/// Turns a rejection by axum itself (an invalid path or query) into a problem.
async fn as_problem(response: Response) -> Response {
    if response.extensions().get::<feedback::FromPlugin>().is_some() {
        return response;
    }
    let is_plain = |response: &Response| {
        let kind = response.headers().get(header::CONTENT_TYPE);
        kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/plain"))
    };
    if response.status() != http::StatusCode::BAD_REQUEST || !is_plain(&response) {
        return response;
    }
    let body = axum::body::to_bytes(response.into_body(), 16 * 1024).await.unwrap_or_default();
    ApiError::BadRequest(String::from_utf8_lossy(&body).into_owned()).into_response()
}
