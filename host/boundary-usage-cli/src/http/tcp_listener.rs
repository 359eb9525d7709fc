//! HTTP connections, their limits, and the responses.
//!
//! Each connection uses a bounded amount of memory for a bounded time. If all slots are in use, a new client replaces
//! the client that has been idle the longest. A client whose response is being prepared is not replaced.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use chrono::Utc;
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, X_CONTENT_TYPE_OPTIONS};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, warn};

use super::hosts::{AllowedHosts, HostError};
use super::page::Rendered;
use super::view::View;
use super::{history_page, metrics, navigation, page};
use crate::descriptors;
use crate::log_limit::LogLimit;
use crate::output;
use crate::slots::{Slot, Slots};

/// The size limit of a request's head, far above that of a browser's request.
const REQUEST_BYTES: usize = 16 * 1024;

/// Time limit for the head of a request.
const REQUEST_LIMIT: Duration = Duration::from_secs(10);

/// Time limit of a connection, which has one request and one response.
const CONNECTION_LIMIT: Duration = Duration::from_secs(30);

/// The pause after a failed accept.
///
/// The usual reason is that all file descriptors are in use.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

const TEXT: &str = "text/plain; charset=utf-8";

type FullResponse = Response<Full<Bytes>>;

/// Starts the server, which runs until the handle is dropped.
///
/// # Errors
///
/// Returns an error if the address is in use or not available.
pub async fn start(address: SocketAddr, hosts: AllowedHosts, view: Arc<View>) -> Result<AbortOnDropHandle<()>> {
    let cannot = || format!("cannot listen for HTTP on {address}; choose another address with --listen");
    let listener = TcpListener::bind(address).await.with_context(cannot)?;
    let address = listener.local_addr().with_context(cannot)?;
    // This message does not depend on the log level, and shows the actual port if port 0 was requested.
    output::print_error(&format!("HTTP on http://{address}/"));
    Ok(AbortOnDropHandle::new(tokio::spawn(accept(listener, Arc::new(hosts), view))))
}

async fn accept(listener: TcpListener, hosts: Arc<AllowedHosts>, view: Arc<View>) {
    let slots = Slots::new(descriptors::http_clients());
    let failures = LogLimit::default();
    let mut connections = JoinSet::new();
    loop {
        let close = CancellationToken::new();
        let slot = slots.take(&close).await;
        match listener.accept().await {
            Ok((stream, _)) => {
                slot.set_active();
                let serving = serve(stream, hosts.clone(), view.clone(), slot);
                connections.spawn(async move { close.run_until_cancelled(serving).await });
            }
            Err(error) => {
                if let Some(repeated) = failures.repeated() {
                    warn!(%error, repeated, "cannot accept an HTTP client");
                } else if failures.permits() {
                    warn!(%error, "cannot accept an HTTP client");
                }
                // The usual reason is that no descriptor is free. Closing an idle client may free a descriptor.
                drop(slot);
                slots.make_room();
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
        while connections.try_join_next().is_some() {}
    }
}

async fn serve(stream: TcpStream, hosts: Arc<AllowedHosts>, view: Arc<View>, slot: Slot) {
    let slot = &slot;
    let service = service_fn(move |request| {
        let (hosts, view) = (hosts.clone(), view.clone());
        async move {
            slot.set_busy();
            let response = respond_to(&request, &hosts, &view).await;
            slot.set_active();
            Ok::<_, Infallible>(response)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_LIMIT)
        .keep_alive(false)
        .max_buf_size(REQUEST_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    match tokio::time::timeout(CONNECTION_LIMIT, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(%error, "an HTTP connection failed"),
        Err(_) => debug!(limit = ?CONNECTION_LIMIT, "an HTTP connection exceeded its time limit"),
    }
}

async fn respond_to<B>(request: &Request<B>, hosts: &AllowedHosts, view: &View) -> FullResponse {
    // The host is checked first, on every path: see `hosts`.
    match hosts.check(request) {
        Ok(()) => {}
        Err(HostError::Malformed) => {
            return plain(StatusCode::BAD_REQUEST, "the request needs one valid Host header\n");
        }
        Err(HostError::NotAllowed) => {
            let allowed = "use an IP address, localhost, or a name allowed by --allow-host or `allow-hosts`";
            return plain(StatusCode::MISDIRECTED_REQUEST, &format!("this host name is not allowed; {allowed}\n"));
        }
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are supported\n");
        response.headers_mut().insert(ALLOW, "GET, HEAD".parse().expect("a valid header value"));
        return response;
    }
    match request.uri().path() {
        "/" => html(page::render(&view.status().await)),
        "/metrics" => respond(StatusCode::OK, prometheus::TEXT_FORMAT, metrics::text(&view.local(), view.ages().await)),
        "/healthz" => plain(StatusCode::OK, "ok\n"),
        "/readyz" => match view.local().not_ready() {
            None => plain(StatusCode::OK, "ready\n"),
            Some(reason) => plain(StatusCode::SERVICE_UNAVAILABLE, &format!("not ready: {reason}\n")),
        },
        "/status.json" => {
            let status = serde_json::to_vec(&view.status().await).expect("a status can be serialized as JSON");
            respond(StatusCode::OK, "application/json", status)
        }
        path => match navigation::length_of(path) {
            Some(length) => {
                let history = view.history(length).await;
                let history = history.as_deref().map(|(report, retention)| (report, retention));
                html(history_page::render(length, Utc::now(), history.map_err(String::as_str)))
            }
            None => plain(StatusCode::NOT_FOUND, NOT_FOUND),
        },
    }
}

const NOT_FOUND: &str =
    "not found; the paths are /, /days, /weeks, /months, /metrics, /healthz, /readyz and /status.json\n";

fn html(page: Rendered) -> FullResponse {
    let mut response = respond(StatusCode::OK, "text/html; charset=utf-8", page.html);
    let policy = page.policy.parse().expect("a valid header value");
    response.headers_mut().insert(CONTENT_SECURITY_POLICY, policy);
    response
}

fn plain(status: StatusCode, text: &str) -> FullResponse {
    respond(status, TEXT, text.to_owned())
}

/// Creates a response that is not cached, and whose type browsers do not guess.
fn respond(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> FullResponse {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers: [(HeaderName, &'static str); 4] = [
        (CONTENT_TYPE, content_type),
        (CACHE_CONTROL, "no-store"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
    ];
    response.headers_mut().extend(headers.map(|(name, value)| (name, value.parse().expect("a valid header value"))));
    response
}
