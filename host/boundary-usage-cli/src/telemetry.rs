//! OpenTelemetry traces, sent by OTLP over HTTP (feature `opentelemetry`).
//!
//! OpenTelemetry's own environment variables configure the exporter. Without an endpoint, the exporter is disabled. The
//! exporter has its own thread and never delays a flush. The exporter drops spans that it cannot send.

use std::env;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use async_trait::async_trait;
use opentelemetry::trace::TracerProvider;
use opentelemetry_http::hyper::HyperClient;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{SpanExporter, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tokio::runtime::Handle;
use tracing::Subscriber;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::registry::LookupSpan;

use crate::failure::UsageError;

/// The environment variables that name an endpoint.
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];

/// The time limit for a collector's response.
const SEND_LIMIT: Duration = Duration::from_secs(10);

/// The exporter of traces.
#[derive(Debug)]
pub struct Traces {
    provider: SdkTracerProvider,
}

impl Traces {
    /// Creates the exporter from the environment; returns `None` if no endpoint is set.
    ///
    /// # Errors
    ///
    /// Returns an error if the endpoint or another variable is invalid.
    pub fn from_environment(runtime: &Handle) -> Result<Option<Self>> {
        let set = |name: &&str| env::var(name).ok().filter(|value| !value.is_empty());
        let Some(endpoint) = ENDPOINTS.iter().find_map(set) else { return Ok(None) };
        // The message omits the endpoint, because it may contain a password.
        if !endpoint.starts_with("http://") {
            bail!(UsageError(
                "the OTLP endpoint in the environment is not an http:// URL; send traces to a collector on this \
                 machine, which can forward them with TLS"
                    .into()
            ));
        }
        let client =
            OnRuntime { client: HyperClient::with_default_connector(SEND_LIMIT, None), runtime: runtime.clone() };
        let exporter = SpanExporter::builder().with_http().with_http_client(client).build();
        let exporter = exporter.context("cannot export traces; check the OTEL_EXPORTER_OTLP_… variables")?;
        let provider = SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource()).build();
        Ok(Some(Self { provider }))
    }

    /// Returns a layer that exports only this project's spans.
    pub fn layer<S: Subscriber + for<'span> LookupSpan<'span> + Send + Sync>(&self) -> impl Layer<S> + use<S> {
        let tracer = self.provider.tracer(env!("CARGO_PKG_NAME"));
        let ours = Targets::new().with_target("boundary_usage", tracing::Level::INFO);
        tracing_opentelemetry::layer().with_tracer(tracer).with_location(false).with_threads(false).with_filter(ours)
    }

    /// Sends the remaining spans within the collector's time limit.
    pub fn end(&self) {
        if let Err(error) = self.provider.shutdown() {
            tracing::warn!(error = &error as &dyn std::error::Error, "cannot send the last spans");
        }
    }
}

/// Returns the resource of the traces, with a default service name.
fn resource() -> Resource {
    let has_name = env::var("OTEL_SERVICE_NAME").is_ok_and(|name| !name.is_empty())
        || env::var("OTEL_RESOURCE_ATTRIBUTES").is_ok_and(|attributes| attributes.contains("service.name="));
    let resource = Resource::builder();
    if has_name { resource.build() } else { resource.with_service_name("boundary-usage").build() }
}

/// An HTTP client on the program's runtime. The exporter's thread has no runtime of its own.
#[derive(Debug)]
struct OnRuntime {
    client: HyperClient,
    runtime: Handle,
}

#[async_trait]
impl HttpClient for OnRuntime {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let client = self.client.clone();
        self.runtime.spawn(async move { client.send_bytes(request).await }).await?
    }
}
