//! Exports spans to a collector by OTLP over HTTP. Buffers are bounded: a slow or unreachable collector loses spans, but does not delay
//! messages.

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

/// The most bytes that are read of a collector's response.
const RESPONSE_BYTES_MAX: usize = 64 * 1024;
/// How long the program waits for the last spans when it ends.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);

/// Why spans cannot be exported.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages describe them")]
#[non_exhaustive]
pub enum OtlpError {
    #[error("otlp: {0}")]
    Trust(#[from] tls::TlsError),
    #[error("otlp.endpoint {0}: cannot build the exporter: {1}")]
    Build(String, String),
}

/// Exports spans in the background.
pub struct Exporter {
    provider: SdkTracerProvider,
}

impl Exporter {
    /// Creates the exporter without connecting, because the collector may start later. Needs a tokio runtime. Blocks on the disk.
    ///
    /// # Errors
    /// If a CA file cannot be read, or the settings are invalid.
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
            .with_http_client(Client { client, runtime: Handle::current() })
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

    /// The layer for the spans of this program. It ignores log events, which may name an address.
    pub fn layer<S>(&self) -> impl Layer<S> + use<S>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        let own_spans = filter_fn(|meta| meta.is_span() && meta.target().starts_with("ace"));
        tracing_opentelemetry::layer()
            .with_tracer(self.provider.tracer("ace"))
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_filter(own_spans)
    }

    /// Sends the remaining spans, within a few seconds.
    pub async fn stop(self) {
        let stopped = tokio::task::spawn_blocking(move || self.provider.shutdown_with_timeout(SHUTDOWN_TIMEOUT)).await;
        if let Ok(Err(error)) = stopped {
            tracing::warn!("The last spans did not reach the collector (otlp.endpoint): {error}");
        }
    }
}

/// The HTTP client of the exporter. The exporter runs on a separate thread, but requests need the runtime.
#[derive(Debug)]
struct Client {
    client: reqwest::Client,
    runtime: Handle,
}

#[async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: http::Request<Bytes>) -> Result<http::Response<Bytes>, HttpError> {
        let (client, request) = (self.client.clone(), reqwest::Request::try_from(request)?);
        let exchange = async move {
            let mut response = client.execute(request).await?;
            let mut result = http::Response::builder().status(response.status());
            result.headers_mut().into_iter().for_each(|headers| *headers = std::mem::take(response.headers_mut()));
            let mut body = Vec::new();
            while let Some(chunk) = response.chunk().await?
                && body.len() + chunk.len() <= RESPONSE_BYTES_MAX
            {
                body.extend_from_slice(&chunk);
            }
            Ok(result.body(Bytes::from(body))?)
        };
        self.runtime.spawn(exchange).await?
    }
}
