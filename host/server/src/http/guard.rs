//! Who may do what, and how often.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::Api;
use super::problem::ApiError;
use super::slots::Asker;
use crate::tokens::{Scope, Tokens};

/// Lets the request on whose bearer has one of the scopes.
pub(super) async fn may_send(state: State<Arc<Api>>, request: Request, next: Next) -> Response {
    guard(state, &[Scope::Send], request, next).await
}

/// What a bearer with the scope `send` may read as well.
pub(super) async fn may_ask(state: State<Arc<Api>>, request: Request, next: Next) -> Response {
    guard(state, &[Scope::Send, Scope::Read], request, next).await
}

pub(super) async fn may_read(state: State<Arc<Api>>, request: Request, next: Next) -> Response {
    guard(state, &[Scope::Read], request, next).await
}

pub(super) async fn may_administrate(state: State<Arc<Api>>, request: Request, next: Next) -> Response {
    guard(state, &[Scope::Admin], request, next).await
}

async fn guard(State(api): State<Arc<Api>>, scopes: &[Scope], request: Request, next: Next) -> Response {
    match admit(&api, scopes, request.headers()) {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

fn admit(api: &Api, scopes: &[Scope], headers: &HeaderMap) -> Result<(), ApiError> {
    let Some(tokens) = &api.tokens else { return api.rates.count("") };
    let (name, granted) = bearer(headers).and_then(|secret| tokens.bearer(secret)).ok_or(ApiError::Unauthorized)?;
    api.rates.count(&name)?;
    if scopes.iter().any(|scope| granted.contains(scope)) {
        return Ok(());
    }
    Err(ApiError::Forbidden(match scopes {
        [Scope::Send, Scope::Read] => "send or read",
        [Scope::Send, ..] => "send",
        [Scope::Read, ..] => "read",
        _ => "admin",
    }))
}

/// Who a request is of, as far as a slot for its connection goes.
pub(super) fn asker(api: &Api, request: &Request) -> Asker {
    let bears_a_token = |tokens: &Tokens| bearer(request.headers()).and_then(|secret| tokens.bearer(secret)).is_some();
    match request.uri().path() {
        "/healthz" | "/readyz" => Asker::Probe,
        _ if api.tokens.as_ref().is_some_and(bears_a_token) => Asker::Bearer,
        _ => Asker::Anyone,
    }
}

/// Whether what only readers may know is for this one: its bearer has the scope, or nobody needs a token.
pub(super) fn may_know(api: &Api, headers: &HeaderMap) -> bool {
    let granted = |tokens: &Tokens| bearer(headers).and_then(|secret| tokens.bearer(secret)).map(|(_, scopes)| scopes);
    api.tokens.as_ref().is_none_or(|tokens| granted(tokens).is_some_and(|scopes| scopes.contains(&Scope::Read)))
}

/// RFC 6750: the scheme's name is read in any case.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, secret) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(secret.trim())
}

/// Requests of each bearer: a bucket that holds a second's worth and is filled all the time.
pub(crate) struct Rates {
    per_second: Option<u32>,
    /// As many as there are tokens.
    buckets: Mutex<HashMap<String, (f64, Instant)>>,
}

impl Rates {
    pub(crate) fn new(per_second: Option<u32>) -> Self {
        Rates { per_second, buckets: Mutex::default() }
    }

    fn count(&self, bearer: &str) -> Result<(), ApiError> {
        let Some(per_second) = self.per_second.map(f64::from) else { return Ok(()) };
        let now = Instant::now();
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let (left, at) = buckets.entry(bearer.to_owned()).or_insert((per_second, now));
        *left = (*left + now.duration_since(*at).as_secs_f64() * per_second).min(per_second);
        *at = now;
        if *left < 1.0 {
            return Err(ApiError::TooMany);
        }
        *left -= 1.0;
        Ok(())
    }
}
