//! Spans to a collector, as OTLP over HTTP. Bounded: a collector that is slow or gone costs spans, never messages.

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use opentelemetry::trace::TracerProvider;
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use tokio::runtime::Handle;
use tracing::Subscriber;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::registry::LookupSpan;

use crate::{config, tls};

/// Bytes of a collector's answer that are read.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// How long the end of the program waits for the last spans.
const LAST: Duration = Duration::from_secs(5);

/// Why spans cannot be exported.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
#[non_exhaustive]
pub enum OtlpError {
    #[error("otlp: {0}")]
    Trust(#[from] tls::TlsError),
    #[error("otlp.endpoint {0}: the exporter cannot be built: {1}")]
    Build(String, String),
}

/// What exports spans in the background.
pub struct Exporter {
    provider: SdkTracerProvider,
}

impl Exporter {
    /// Nothing is sent yet: a collector may come later. Needs a tokio runtime, and reads files: once, at the start.
    pub fn start(settings: &config::Otlp) -> Result<Self, OtlpError> {
        let fail = |why: String| OtlpError::Build(settings.endpoint.clone(), why);
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls::client_config(settings.ca_file.as_deref())?)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .timeout(settings.timeout)
            .build()
            .map_err(|e| fail(e.to_string()))?;
        let headers = settings.headers.iter().map(|(name, value)| (name.clone(), value.expose().to_owned()));
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(Wire { client, runtime: Handle::current() })
            .with_endpoint(format!("{}/v1/traces", settings.endpoint.trim_end_matches('/')))
            .with_timeout(settings.timeout)
            .with_headers(headers.collect::<HashMap<_, _>>())
            .build()
            .map_err(|e| fail(e.to_string()))?;
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(settings.sample))))
            .with_resource(Resource::builder_empty().with_service_name(settings.service_name.clone()).build())
            .build();
        Ok(Exporter { provider })
    }

    /// The spans of this program; no event of the log, which may name an address.
    pub fn layer<S>(&self) -> impl Layer<S> + use<S>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        let ours = filter_fn(|meta| meta.is_span() && meta.target().starts_with("ace"));
        tracing_opentelemetry::layer()
            .with_tracer(self.provider.tracer("ace"))
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_filter(ours)
    }

    /// Sends what is left, within a few seconds.
    pub async fn stop(self) {
        let stopped = tokio::task::spawn_blocking(move || self.provider.shutdown_with_timeout(LAST)).await;
        if let Ok(Err(error)) = stopped {
            tracing::warn!("The last spans did not reach the collector (otlp.endpoint): {error}");
        }
    }
}

/// The exporter has a thread of its own; its requests run where there is a runtime.
#[derive(Debug)]
struct Wire {
    client: reqwest::Client,
    runtime: Handle,
}

#[async_trait]
impl HttpClient for Wire {
    async fn send_bytes(&self, request: http::Request<Bytes>) -> Result<http::Response<Bytes>, HttpError> {
        let (client, request) = (self.client.clone(), reqwest::Request::try_from(request)?);
        let exchange = async move {
            let mut response = client.execute(request).await?;
            let mut answer = http::Response::builder().status(response.status());
            answer.headers_mut().into_iter().for_each(|headers| *headers = std::mem::take(response.headers_mut()));
            let mut body = Vec::new();
            while let Some(chunk) = response.chunk().await?
                && body.len() + chunk.len() <= ANSWER_BYTES_MAX
            {
                body.extend_from_slice(&chunk);
            }
            Ok(answer.body(Bytes::from(body))?)
        };
        self.runtime.spawn(exchange).await?
    }
}
