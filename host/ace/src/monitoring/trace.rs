//! W3C trace context, from a request through the queue to the requests of plugins, and the spans that are exported if `[otlp]` is
//! configured.
//!
//! Spans have names, revisions, uuids, hosts and states, but no data of a context, no address, and no path from a guest.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use opentelemetry::Context;
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{SpanContext, TraceContextExt};
use opentelemetry_http::HeaderExtractor;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::{Instrument, Span, debug_span, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::message::Message;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
/// The longest tracestate that is kept (the minimum of W3C Trace Context, 3.3.1.5).
const TRACESTATE_BYTES_MAX: usize = 512;

tokio::task_local! {
    /// The received context of the current work, if no exported span represents it.
    static RECEIVED: TraceContext;
}

/// A position in a trace.
#[derive(Debug, Clone, PartialEq)]
pub struct TraceContext(SpanContext);

impl TraceContext {
    /// From `traceparent` and `tracestate`. `None` if they are missing or invalid.
    pub fn from_headers(headers: &HeaderMap) -> Option<Self> {
        TraceContext::read(&HeaderExtractor(headers))
    }

    /// From the output of [`Display`](fmt::Display).
    pub fn parse(text: &str) -> Option<Self> {
        let (parent, state) = text.split_once(' ').unwrap_or((text, ""));
        TraceContext::read(&HashMap::from([
            (TRACEPARENT.to_string(), parent.to_owned()),
            (TRACESTATE.to_string(), state.to_owned()),
        ]))
    }

    fn read(headers: &dyn opentelemetry::propagation::Extractor) -> Option<Self> {
        let read = TraceContextPropagator::new().extract_with_context(&Context::new(), headers);
        let found = read.span().span_context().clone();
        found.is_valid().then_some(TraceContext(found))
    }

    fn parent(&self) -> String {
        let TraceContext(at) = self;
        format!("00-{}-{}-{:02x}", at.trace_id(), at.span_id(), at.trace_flags())
    }

    fn state(&self) -> Option<String> {
        Some(self.0.trace_state().header()).filter(|state| (1..=TRACESTATE_BYTES_MAX).contains(&state.len()))
    }

    /// Writes both headers, unless there is a `traceparent`.
    pub fn write(&self, headers: &mut HeaderMap) {
        if headers.contains_key(TRACEPARENT) {
            return;
        }
        let (parent, state) = (Some(self.parent()), self.state());
        for (name, value) in [(TRACEPARENT, parent), (TRACESTATE, state)] {
            headers.extend(value.and_then(|value| HeaderValue::try_from(value).ok()).map(|value| (name, value)));
        }
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.parent())?;
        self.state().map_or(Ok(()), |state| write!(f, " {state}"))
    }
}

/// The position of the current work: its exported span, otherwise the received context.
pub fn current() -> Option<TraceContext> {
    let exported = Span::current().context().span().span_context().clone();
    if exported.is_valid() { Some(TraceContext(exported)) } else { RECEIVED.try_with(Clone::clone).ok() }
}

/// Runs the work on one message in a span below the received context.
pub async fn in_message<T>(message: &Message, trace: Option<TraceContext>, work: impl Future<Output = T>) -> T {
    under(info_span!("message", message_uuid = %message.uuid), trace, work).await
}

/// Handles a request in a span below the received context. `route` is the template of the API, without data of the request.
pub async fn in_request<T>(
    method: &Method,
    route: &str,
    trace: Option<TraceContext>,
    status: impl Fn(&T) -> u16,
    work: impl Future<Output = T>,
) -> T {
    let span = debug_span!(
        "request",
        otel.name = %format_args!("{method} {route}"),
        otel.kind = "server",
        http.request.method = %method,
        http.route = route,
        http.response.status_code = tracing::field::Empty,
    );
    let recorded = span.clone();
    let response = under(span, trace, work).await;
    recorded.record("http.response.status_code", i64::from(status(&response)));
    response
}

async fn under<T>(span: Span, trace: Option<TraceContext>, work: impl Future<Output = T>) -> T {
    let Some(trace) = trace else { return work.instrument(span).await };
    // Fails for a span that is not exported, which needs no parent.
    let _ = span.set_parent(Context::new().with_remote_span_context(trace.0.clone()));
    RECEIVED.scope(trace, work.instrument(span)).await
}

/// The span of one policy.
pub fn policy_span(policy: &str, revision: &str) -> Span {
    debug_span!("policy", policy, revision)
}

/// The span of one delivery attempt.
pub fn delivery_span(channel: &str, revision: &str, attempt: u32) -> Span {
    debug_span!("deliver", channel, revision, attempt)
}

/// The span of an outgoing request of a plugin, whose headers get the position of this span.
pub fn outgoing_span(plugin: &str, method: &Method, host: &str) -> Span {
    debug_span!(
        "outgoing",
        otel.name = %method,
        otel.kind = "client",
        plugin,
        http.request.method = %method,
        server.address = host,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn headers(pairs: &[(HeaderName, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap())).collect()
    }

    #[test]
    fn a_context_is_passed_unchanged() {
        for state in [None, Some("vendor=a,other=b")] {
            let mut received = headers(&[(TRACEPARENT, PARENT)]);
            received.extend(state.map(|state| (TRACESTATE, HeaderValue::from_static(state))));
            let read = TraceContext::from_headers(&received).unwrap();
            assert_eq!(TraceContext::parse(&read.to_string()), Some(read.clone()), "stored by the queue");
            let mut sent = HeaderMap::new();
            read.write(&mut sent);
            assert_eq!(sent, received);
        }
    }

    #[test]
    fn an_invalid_context_is_ignored() {
        let bad = ["", "00", "00-0-0-01", "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "\u{7f}"];
        for text in bad.iter().chain(&["00-00000000000000000000000000000000-00f067aa0ba902b7-01", &"x".repeat(100_000)])
        {
            assert_eq!(TraceContext::parse(text), None, "{text}");
        }
        assert_eq!(TraceContext::from_headers(&HeaderMap::new()), None);
    }

    #[test]
    fn a_header_of_a_guest_is_kept() {
        let own = headers(&[(TRACEPARENT, "its own")]);
        let mut sent = own.clone();
        TraceContext::parse(PARENT).unwrap().write(&mut sent);
        assert_eq!(sent, own);
    }

    #[test]
    fn a_tracestate_that_is_too_long_is_dropped() {
        let long = format!("{PARENT} a={}", "x".repeat(TRACESTATE_BYTES_MAX));
        assert_eq!(TraceContext::parse(&long).map(|read| read.to_string()), Some(PARENT.to_owned()));
    }

    #[tokio::test]
    async fn without_an_exporter_the_received_context_is_passed_on() {
        assert_eq!(current(), None);
        let trace = TraceContext::parse(PARENT).unwrap();
        let message = Message::new("a", "b", None);
        assert_eq!(in_message(&message, Some(trace.clone()), async { current() }).await, Some(trace));
        assert_eq!(in_message(&message, None, async { current() }).await, None);
    }
}
