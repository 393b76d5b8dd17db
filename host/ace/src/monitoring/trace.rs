//! W3C trace context: from a request, through the queue, to what plugins ask of others; and the spans that are exported where
//! `[otlp]` is configured.
//!
//! Spans hold names, revisions, uuids, hosts and states: nothing of a context, no address, no path that a guest made.

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
/// A longer tracestate is dropped (W3C Trace Context, 3.3.1.5: at least so much must pass).
const TRACESTATE_BYTES_MAX: usize = 512;

tokio::task_local! {
    /// The context that came with what is done now, where no span of ours stands for it.
    static CARRIED: TraceContext;
}

/// A place in a trace.
#[derive(Debug, Clone, PartialEq)]
pub struct TraceContext(SpanContext);

impl TraceContext {
    /// From `traceparent` and `tracestate`; `None` where they are missing or not as W3C says.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        TraceContext::read(&HeaderExtractor(headers))
    }

    /// From what [`Display`](fmt::Display) wrote.
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

    /// Writes both headers, unless a `traceparent` is there.
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

/// Where what is done now belongs: the exported span that it is in, else the context it came with.
pub fn current() -> Option<TraceContext> {
    let exported = Span::current().context().span().span_context().clone();
    if exported.is_valid() { Some(TraceContext(exported)) } else { CARRIED.try_with(Clone::clone).ok() }
}

/// Everything that is done for one message, in a span below the context it came with.
pub async fn in_message<T>(message: &Message, trace: Option<TraceContext>, work: impl Future<Output = T>) -> T {
    under(info_span!("message", message_uuid = %message.uuid), trace, work).await
}

/// An answer to a request, in a span below the context it came with. `route`: as the API describes it, without anything of the
/// request.
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
    let told = span.clone();
    let answer = under(span, trace, work).await;
    told.record("http.response.status_code", i64::from(status(&answer)));
    answer
}

async fn under<T>(span: Span, trace: Option<TraceContext>, work: impl Future<Output = T>) -> T {
    let Some(trace) = trace else { return work.instrument(span).await };
    // A span that is not exported has no parent either.
    let _ = span.set_parent(Context::new().with_remote_span_context(trace.0.clone()));
    CARRIED.scope(trace, work.instrument(span)).await
}

/// One policy's verdict.
pub fn policy_span(policy: &str, revision: &str) -> Span {
    debug_span!("policy", policy, revision)
}

/// One delivery attempt.
pub fn delivery_span(channel: &str, revision: &str, attempt: u32) -> Span {
    debug_span!("deliver", channel, revision, attempt)
}

/// A plugin's request to the world outside. What is written into its headers is this span's place.
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
    fn a_context_passes_as_it_came() {
        for state in [None, Some("vendor=a,other=b")] {
            let mut came = headers(&[(TRACEPARENT, PARENT)]);
            came.extend(state.map(|state| (TRACESTATE, HeaderValue::from_static(state))));
            let read = TraceContext::of(&came).unwrap();
            assert_eq!(TraceContext::parse(&read.to_string()), Some(read.clone()), "the queue keeps it");
            let mut left = HeaderMap::new();
            read.write(&mut left);
            assert_eq!(left, came);
        }
    }

    #[test]
    fn what_is_none_is_none() {
        let bad = ["", "00", "00-0-0-01", "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "\u{7f}"];
        for text in bad.iter().chain(&["00-00000000000000000000000000000000-00f067aa0ba902b7-01", &"x".repeat(100_000)])
        {
            assert_eq!(TraceContext::parse(text), None, "{text}");
        }
        assert_eq!(TraceContext::of(&HeaderMap::new()), None);
    }

    #[test]
    fn a_guests_own_header_stays() {
        let own = headers(&[(TRACEPARENT, "its own")]);
        let mut left = own.clone();
        TraceContext::parse(PARENT).unwrap().write(&mut left);
        assert_eq!(left, own);
    }

    #[test]
    fn a_tracestate_that_is_too_long_is_dropped() {
        let long = format!("{PARENT} a={}", "x".repeat(TRACESTATE_BYTES_MAX));
        assert_eq!(TraceContext::parse(&long).map(|read| read.to_string()), Some(PARENT.to_owned()));
    }

    #[tokio::test]
    async fn without_an_exporter_the_context_is_carried_through() {
        assert_eq!(current(), None);
        let trace = TraceContext::parse(PARENT).unwrap();
        let message = Message::new("a", "b", None);
        assert_eq!(in_message(&message, Some(trace.clone()), async { current() }).await, Some(trace));
        assert_eq!(in_message(&message, None, async { current() }).await, None);
    }
}
