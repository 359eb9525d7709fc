//! Pool, and what limits them: a client can hold little, and not for long.
//!
//! If all places are taken, the client that has been silent the longest makes room, unless its answer is being made.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
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

use super::hosts::{AllowedHosts, Refusal};
use super::view::View;
use super::{metrics, page};
use crate::descriptors;
use crate::log_limit::LogLimit;
use crate::output;
use crate::slots::{Slot, Slots};

/// The most that is kept of a request: far more than the head of one that a browser sends.
const REQUEST_BYTES: usize = 16 * 1024;

/// How long a client may take to say what it wants.
const REQUEST_LIMIT: Duration = Duration::from_secs(10);

/// How long a connection may last: one request, one answer.
const CONNECTION_LIMIT: Duration = Duration::from_secs(30);

/// After a failed accept, most likely for want of file descriptors: time for some to come free.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

const TEXT: &str = "text/plain; charset=utf-8";

type Answer = Response<Full<Bytes>>;

/// Listens, and answers until dropped.
///
/// # Errors
///
/// When the address cannot be had.
pub async fn start(address: SocketAddr, hosts: AllowedHosts, view: Arc<View>) -> Result<AbortOnDropHandle<()>> {
    let cannot = || format!("cannot listen for HTTP on {address}; choose another address with --listen");
    let listener = TcpListener::bind(address).await.with_context(cannot)?;
    let address = listener.local_addr().with_context(cannot)?;
    // Said whatever the log level, and with the port that was found where 0 was asked for.
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
                slot.is_active();
                let serving = serve(stream, hosts.clone(), view.clone(), slot);
                connections.spawn(async move { close.run_until_cancelled(serving).await });
            }
            Err(error) => {
                if let Some(repeated) = failures.repeated() {
                    warn!(%error, repeated, "cannot accept an HTTP client");
                } else if failures.permits() {
                    warn!(%error, "cannot accept an HTTP client");
                }
                // Most likely there is no free descriptor: a silent client may free one.
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
            slot.is_busy();
            let answer = answer(&request, &hosts, &view).await;
            slot.is_active();
            Ok::<_, Infallible>(answer)
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
        Ok(Err(error)) => debug!(%error, "an HTTP connection ended badly"),
        Err(_) => debug!(limit = ?CONNECTION_LIMIT, "an HTTP connection took too long"),
    }
}

async fn answer<B>(request: &Request<B>, hosts: &AllowedHosts, view: &View) -> Answer {
    // Before anything else, on every path: see `hosts`.
    match hosts.check(request) {
        Ok(()) => {}
        Err(Refusal::Malformed) => return plain(StatusCode::BAD_REQUEST, "the request needs one valid Host header\n"),
        Err(Refusal::NotAllowed) => {
            let allowed = "allowed are IP addresses, localhost, and the names given with --allow-host or `allow-hosts`";
            return plain(StatusCode::MISDIRECTED_REQUEST, &format!("this host name is not allowed; {allowed}\n"));
        }
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut refused = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
        refused.headers_mut().insert(ALLOW, "GET, HEAD".parse().expect("it is a header's value"));
        return refused;
    }
    match request.uri().path() {
        "/" => {
            let page = page::render(&view.status().await);
            let mut shown = respond(StatusCode::OK, "text/html; charset=utf-8", page.html);
            let policy = page.policy.parse().expect("it is a header's value");
            shown.headers_mut().insert(CONTENT_SECURITY_POLICY, policy);
            shown
        }
        "/metrics" => respond(StatusCode::OK, prometheus::TEXT_FORMAT, metrics::text(&view.local(), view.ages().await)),
        "/healthz" => plain(StatusCode::OK, "ok\n"),
        "/readyz" => match view.local().not_ready() {
            None => plain(StatusCode::OK, "ready\n"),
            Some(reason) => plain(StatusCode::SERVICE_UNAVAILABLE, &format!("not ready: {reason}\n")),
        },
        "/status.json" => {
            let status = serde_json::to_vec(&view.status().await).expect("a status has no maps, and so is JSON");
            respond(StatusCode::OK, "application/json", status)
        }
        _ => plain(StatusCode::NOT_FOUND, "not found; there are /, /metrics, /healthz, /readyz and /status.json\n"),
    }
}

fn plain(status: StatusCode, text: &str) -> Answer {
    respond(status, TEXT, text.to_owned())
}

/// An answer that no cache keeps and no browser takes for something else.
fn respond(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers: [(HeaderName, &'static str); 4] = [
        (CONTENT_TYPE, content_type),
        (CACHE_CONTROL, "no-store"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
    ];
    response.headers_mut().extend(headers.map(|(name, value)| (name, value.parse().expect("it is a header's value"))));
    response
}
