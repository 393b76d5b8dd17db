//! Authorization: tokens, scopes and request rates.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::Api;
use super::problem::ApiError;
use super::slots::ClientKind;
use crate::tokens::{Scope, TokenFault, Tokens};

/// Requires the scope `send`.
pub(super) async fn may_send(state: State<Arc<Api>>, request: Request, next: Next) -> Response {
    guard(state, &[Scope::Send], request, next).await
}

/// Requires the scope `send` or `read`.
pub(super) async fn may_query(state: State<Arc<Api>>, request: Request, next: Next) -> Response {
    guard(state, &[Scope::Send, Scope::Read], request, next).await
}

/// Requires the scope `read`.
pub(super) async fn may_read(state: State<Arc<Api>>, request: Request, next: Next) -> Response {
    guard(state, &[Scope::Read], request, next).await
}

/// Requires the scope `admin`.
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
    let used = bearer(headers).map(|secret| tokens.used(secret, api.ace.now()));
    let (name, granted) = used.unwrap_or(Err(TokenFault::Missing)).map_err(ApiError::Unauthorized)?;
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

/// What the client of a request may use connection slots for.
pub(super) fn client_kind(api: &Api, request: &Request) -> ClientKind {
    let secret = || bearer(request.headers());
    let has_token = |tokens: &Tokens| secret().is_some_and(|secret| tokens.bearer(secret, api.ace.now()).is_ok());
    match request.uri().path() {
        "/healthz" | "/readyz" => ClientKind::Probe,
        _ if api.tokens.as_ref().is_some_and(has_token) => ClientKind::Bearer,
        _ => ClientKind::Other,
    }
}

/// Whether a response may contain names and reasons: the client has the scope `read`, or no token is required.
pub(super) fn may_see_details(api: &Api, headers: &HeaderMap) -> bool {
    let known = |tokens: &Tokens| bearer(headers).and_then(|secret| tokens.bearer(secret, api.ace.now()).ok());
    let granted = |tokens: &Tokens| known(tokens).map(|(_, scopes)| scopes);
    api.tokens.as_ref().is_none_or(|tokens| granted(tokens).is_some_and(|scopes| scopes.contains(&Scope::Read)))
}

/// The token of a request (RFC 6750). The scheme's name is case-insensitive.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, secret) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(secret.trim())
}

/// The request rate of each bearer or plugin, as a token bucket that holds the requests of one second.
pub(crate) struct Rates {
    per_second: Option<u32>,
    /// By the name of the token or plugin.
    buckets: Mutex<HashMap<String, (f64, Instant)>>,
}

impl Rates {
    pub(crate) fn new(per_second: Option<u32>) -> Self {
        Rates { per_second, buckets: Mutex::default() }
    }

    pub(super) fn count(&self, bearer: &str) -> Result<(), ApiError> {
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
