//! Traces for OpenTelemetry, with the feature `opentelemetry`: the spans of flushes and collections, sent by OTLP over HTTP.
//!
//! What is sent where is said by the environment variables that OpenTelemetry documents; without an endpoint among them
//! nothing is. The exporter runs on a thread of its own and never delays a flush: spans that it cannot send are dropped.

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

use crate::cli::WrongUse;

/// Each of them says where to.
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];

/// The longest that a collector may take to answer.
const SEND_LIMIT: Duration = Duration::from_secs(10);

/// The way to a collector.
#[derive(Debug)]
pub struct Traces {
    provider: SdkTracerProvider,
}

impl Traces {
    /// As the environment says; `None` when it names no endpoint.
    ///
    /// # Errors
    ///
    /// When an endpoint or another of the variables cannot be used.
    pub fn from_environment(runtime: &Handle) -> Result<Option<Self>> {
        let set = |name: &&str| env::var(name).ok().filter(|value| !value.is_empty());
        let Some(endpoint) = ENDPOINTS.iter().find_map(set) else { return Ok(None) };
        // The endpoint is not shown: it may hold a password.
        if !endpoint.starts_with("http://") {
            let what = "the OTLP endpoint of the environment is not an http:// URL";
            bail!(WrongUse(format!("{what}; send traces to a collector on this machine, which sends them on by TLS")));
        }
        let client =
            OnRuntime { client: HyperClient::with_default_connector(SEND_LIMIT, None), runtime: runtime.clone() };
        let exporter = SpanExporter::builder().with_http().with_http_client(client).build();
        let exporter = exporter.context("cannot export traces as the environment says (OTEL_EXPORTER_OTLP_…)")?;
        let provider = SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource()).build();
        Ok(Some(Self { provider }))
    }

    /// Takes our own spans, and none of libraries.
    pub fn layer<S: Subscriber + for<'span> LookupSpan<'span> + Send + Sync>(&self) -> impl Layer<S> + use<S> {
        let tracer = self.provider.tracer(env!("CARGO_PKG_NAME"));
        let ours = Targets::new().with_target("boundary_usage", tracing::Level::INFO);
        tracing_opentelemetry::layer().with_tracer(tracer).with_location(false).with_threads(false).with_filter(ours)
    }

    /// Sends what is left, and waits for that as long as a collector may take.
    pub fn end(&self) {
        if let Err(error) = self.provider.shutdown() {
            tracing::warn!(error = &error as &dyn std::error::Error, "the last spans could not be sent");
        }
    }
}

/// Whose traces they are, unless the environment says it.
fn resource() -> Resource {
    let is_said = env::var("OTEL_SERVICE_NAME").is_ok_and(|name| !name.is_empty())
        || env::var("OTEL_RESOURCE_ATTRIBUTES").is_ok_and(|attributes| attributes.contains("service.name="));
    let resource = Resource::builder();
    if is_said { resource.build() } else { resource.with_service_name("boundary-usage").build() }
}

/// A client that works on our runtime: the exporter's own thread has none.
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
