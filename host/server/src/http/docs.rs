//! `/openapi.json`, and `/docs`, a page that shows it. The page loads nothing from other sites and cannot be framed.

use std::borrow::Cow;
use std::sync::Arc;

use axum::Router;
use axum::extract::Path;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use bytes::Bytes;
use utoipa::openapi::OpenApi;
use utoipa_swagger_ui::Config;

use super::examples::with_examples;
use super::problem::ApiError;

const DESCRIPTION: &str = "/openapi.json";
/// Swagger UI sets styles of elements, and its style sheet contains images.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
                      font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The routes of the description.
pub(super) fn router<S: Clone + Send + Sync + 'static>(described: &OpenApi) -> Router<S> {
    let described = serde_json::to_value(described).expect("it has only string keys");
    let text = Bytes::from(with_examples(described).to_string());
    let config = Arc::new(Config::from(DESCRIPTION).validator_url("none"));
    let page = config.clone();
    Router::new()
        .route(DESCRIPTION, get(async move || ([(header::CONTENT_TYPE, "application/json")], text.clone())))
        .route("/docs", get(async || Redirect::to("/docs/")))
        .route("/docs/", get(async move || file("", page.clone())))
        .route("/docs/{*file}", get(async move |Path(name): Path<String>| file(&name, config.clone())))
}

fn file(name: &str, config: Arc<Config<'static>>) -> Response {
    let file = match utoipa_swagger_ui::serve(name, config) {
        Ok(Some(file)) => file,
        Ok(None) => return ApiError::NotFound("page").into_response(),
        Err(error) => return ApiError::Internal(error.to_string()).into_response(),
    };
    // Files that are part of the program are not copied for each request.
    let bytes = match file.bytes {
        Cow::Borrowed(bytes) => Bytes::from_static(bytes),
        Cow::Owned(bytes) => Bytes::from(bytes),
    };
    let mut response = ([(header::CONTENT_TYPE, file.content_type)], bytes).into_response();
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if file.gzpipped {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    response
}
