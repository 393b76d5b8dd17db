//! `/v1/feedback/{plugin}` and below: requests of providers, for plugins. No token is needed, because the plugin verifies each request. The
//! path below the plugin's name and the query may contain secrets: they are neither logged nor counted.

use std::sync::Arc;

use ace::message::{FeedbackAnswer, Incoming};
use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::Api;
use super::body::Pieces;
use super::problem::ApiError;
use crate::feedback::{NoReader, Reply};

const PREFIX: &str = "/v1/feedback/";
/// A plugin's answer may repeat what anybody sent, on the origin of `/docs`: no browser may run it.
const POLICY: &str = "sandbox; default-src 'none'; frame-ancestors 'none'";

/// Marks a response that a plugin made.
#[derive(Clone, Copy)]
pub(super) struct FromPlugin;

pub(super) fn router() -> Router<Arc<Api>> {
    let paths = ["", "/", "/{*rest}"].map(|rest| format!("{PREFIX}{{plugin}}{rest}"));
    paths.iter().fold(Router::new(), |router, path| router.route(path, get(receive).post(receive)))
}

async fn receive(State(api): State<Arc<Api>>, request: Request) -> Result<Response, ApiError> {
    if *request.method() == Method::HEAD {
        return Err(ApiError::NoMethod);
    }
    let below = request.uri().path().strip_prefix(PREFIX).unwrap_or_default();
    let plugin = below.split('/').next().unwrap_or_default().to_owned();
    let reader = api.feedback.reader(&plugin).map_err(|why| match why {
        NoReader::Unknown => ApiError::NotFound("route"),
        NoReader::Inactive => ApiError::Unavailable("the plugin is not active; retry later".to_owned()),
    })?;
    api.feedback_rates.count(&plugin)?;
    let Ok(_permit) = api.feedback_permits.try_acquire() else {
        let why = "too many requests with feedback (feedback.max-requests) are in progress; retry later";
        return Err(ApiError::Unavailable(why.to_owned()));
    };
    let incoming = read(&api, &plugin, request).await?;
    match api.feedback.receive(&reader, incoming).await {
        Reply::Kept(None) => Ok(StatusCode::NO_CONTENT.into_response()),
        Reply::Kept(Some(answer)) => Ok(response(answer)),
        Reply::Refused => Err(ApiError::NotVouchedFor),
        Reply::Malformed => Err(ApiError::BadRequest("the plugin cannot read the request".to_owned())),
        Reply::Unavailable(why) => Err(ApiError::Unavailable(format!("{why}; retry later"))),
    }
}

/// Reads a request completely, as the plugin gets it.
async fn read(api: &Api, plugin: &str, request: Request) -> Result<Incoming, ApiError> {
    let (head, body) = request.into_parts();
    let whole = head.uri.path();
    let body = Pieces::new(body, api.client_timeout()).whole(api.feedback_settings.max_body_bytes).await?;
    Ok(Incoming {
        method: head.method.as_str().to_owned(),
        url: api.settings.public_url.as_ref().map(|url| format!("{url}{whole}")),
        path: whole[(PREFIX.len() + plugin.len()).min(whole.len())..].to_owned(),
        query: head.uri.query().map(str::to_owned),
        headers: texts(&head.headers),
        body,
        received_at: api.ace.now(),
    })
}

fn texts(headers: &HeaderMap) -> Vec<(String, String)> {
    let text = |(name, value): (&HeaderName, &HeaderValue)| {
        Some((name.as_str().to_owned(), std::str::from_utf8(value.as_bytes()).ok()?.to_owned()))
    };
    headers.iter().filter_map(text).collect()
}

/// The plugin's own answer, whose headers were checked.
fn response(answer: FeedbackAnswer) -> Response {
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::OK);
    let mut response = (status, answer.body).into_response();
    let headers = response.headers_mut();
    headers.remove(header::CONTENT_TYPE);
    for (name, value) in answer.headers {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            headers.append(name, value);
        }
    }
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    response.extensions_mut().insert(FromPlugin);
    response
}
