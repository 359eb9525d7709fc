//! A forward proxy on hyper. The layer of the feature `tower` tracks its usage.
//!
//! The proxy forwards plain HTTP and opens tunnels (CONNECT) for everything else. The proxy allows a request if the
//! client authenticates with `Proxy-Authorization` and a rule allows the request.
//!
//! ```sh
//! echo "alice secret $WORKSPACE_ID $OWNER_ID" > users.txt     # one user per line, no blanks in passwords
//! cargo run -p boundary-usage --features tower --example forward_proxy -- \
//!     --users users.txt --allow 'domain=example.com' --allow 'method=GET domain=*.example.org path=/api/*'
//! curl --proxy http://alice:secret@127.0.0.1:8080 https://example.com
//! ```
//!
//! The proxy does not inspect tunnels, so rules about methods or paths do not apply there.

#![forbid(unsafe_code)]

mod rules;

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use base64::Engine;
use boundary_usage::tower::{Decision, Identity, UsageLayer};
use boundary_usage::{Database, Options, Plugin};
use clap::Parser;
use http_body_util::{Either, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use rules::Rule;
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;
use tower::{Layer, Service, ServiceExt};
use uuid::Uuid;

const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// The time limit of open requests after a stop signal.
const DRAIN_LIMIT: Duration = Duration::from_secs(5);

/// Hop-by-hop headers, which a proxy never forwards.
const HOP_BY_HOP: [HeaderName; 8] = [
    header::CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
];

/// A forward proxy that tracks its usage.
#[derive(Parser)]
struct Arguments {
    /// Address to listen on.
    #[arg(long, default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// URL of the database.
    #[arg(long, default_value = "sqlite:boundary-usage.db")]
    database: String,
    /// File of users, one per line: name, password, workspace, owner.
    #[arg(long, value_name = "FILE")]
    users: PathBuf,
    /// Rule for allowed requests, such as `method=GET domain=*.example.org path=/api/*`. Other requests are denied.
    #[arg(long, value_name = "RULE")]
    allow: Vec<Rule>,
}

type Body = Either<Incoming, Full<Bytes>>;

#[tokio::main]
async fn main() -> Result<()> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let arguments = Arguments::parse();
    let users = read_users(&arguments.users)?;
    let database = Database::connect(&arguments.database).await.context("cannot use the database of --database")?;
    let tracker = Plugin::embedded()?.start(Uuid::new_v4(), database, Options::default()).await?;

    let usage = UsageLayer::new(tracker.clone());
    let rules: Arc<[Rule]> = arguments.allow.into();
    let tracked = usage.layer(tower::service_fn(move |request| respond(rules.clone(), request)));
    let proxy = tracked.map_request(move |mut request: Request<Incoming>| {
        if let Some(identity) = identity(&users, request.headers()) {
            request.extensions_mut().insert(identity);
        }
        request
    });

    let listener = TcpListener::bind(arguments.listen).await.context("cannot listen")?;
    // Scripts wait for this line and read the port of `--listen 127.0.0.1:0` from it.
    eprintln!("listening on {}", listener.local_addr()?);
    serve(listener, proxy).await?;
    tracker.shutdown().await.context("the last flush failed")?;
    println!("{:?}", usage.counts());
    Ok(())
}

async fn serve<S>(listener: TcpListener, proxy: S) -> Result<()>
where
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible, Future: Send> + Clone + Send + 'static,
{
    let connections = GracefulShutdown::new();
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a client");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        };
        let mut server = Builder::new(TokioExecutor::new()).http1_only();
        server.http1().timer(TokioTimer::new());
        let service = TowerToHyperService::new(proxy.clone());
        let connection = server.serve_connection_with_upgrades(TokioIo::new(stream), service).into_owned();
        let connection = connections.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a client's connection ended");
            }
        });
    }
    drop(listener);
    if timeout(DRAIN_LIMIT, connections.shutdown()).await.is_err() {
        tracing::warn!("some requests are not complete after {DRAIN_LIMIT:?}");
    }
    Ok(())
}

/// Reads the users, indexed by their credentials in `Proxy-Authorization`.
fn read_users(file: &Path) -> Result<Arc<HashMap<String, Identity>>> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let mut users = HashMap::new();
    for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()) {
        let fields: Vec<_> = line.split_whitespace().collect();
        let [name, password, workspace, owner] = fields[..] else {
            bail!("{}:{number}: expected name, password, workspace and owner", file.display());
        };
        let id = |text| Uuid::try_parse(text).with_context(|| format!("{}:{number}", file.display()));
        let credentials = base64::prelude::BASE64_STANDARD.encode(format!("{name}:{password}"));
        users.insert(credentials, Identity { workspace: id(workspace)?, owner: id(owner)? });
    }
    Ok(Arc::new(users))
}

fn identity(users: &HashMap<String, Identity>, headers: &HeaderMap) -> Option<Identity> {
    let (scheme, credentials) = headers.get(header::PROXY_AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    let identity = users.get(credentials.trim())?;
    scheme.eq_ignore_ascii_case("basic").then_some(*identity)
}

/// Decides about a request and forwards it if it is allowed.
async fn respond(rules: Arc<[Rule]>, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    if request.extensions().get::<Identity>().is_none() {
        let mut response =
            refusal(StatusCode::PROXY_AUTHENTICATION_REQUIRED, "authentication required\n", Decision::Denied);
        let challenge = HeaderValue::from_static("Basic realm=\"boundary\"");
        response.headers_mut().insert(header::PROXY_AUTHENTICATE, challenge);
        return Ok(response);
    }
    let Some(host) = request.uri().host().map(str::to_owned) else {
        return Ok(refusal(StatusCode::BAD_REQUEST, "a proxy needs an absolute URL\n", Decision::Denied));
    };
    if request.method() == Method::CONNECT {
        if !rules.iter().any(|rule| rule.allows_tunnel(&host)) {
            return Ok(refusal(StatusCode::FORBIDDEN, "no rule allows this tunnel\n", Decision::Denied));
        }
        return Ok(open_tunnel(request).await);
    }
    if request.uri().scheme_str() != Some("http") {
        return Ok(refusal(StatusCode::BAD_REQUEST, "use CONNECT for https\n", Decision::Denied));
    }
    if !rules.iter().any(|rule| rule.allows(request.method().as_str(), &host, request.uri().path())) {
        return Ok(refusal(StatusCode::FORBIDDEN, "no rule allows this request\n", Decision::Denied));
    }
    Ok(forward(request).await.unwrap_or_else(|error| unreachable_upstream(&error)))
}

/// Returns a response of the proxy itself.
fn refusal(status: StatusCode, text: &'static str, decision: Decision) -> Response<Body> {
    let mut response = Response::new(Either::Right(Full::new(Bytes::from_static(text.as_bytes()))));
    *response.status_mut() = status;
    response.extensions_mut().insert(decision);
    response
}

/// Returns the response for an unreachable upstream. The request counts as allowed, because no rule denied it.
fn unreachable_upstream(error: &anyhow::Error) -> Response<Body> {
    tracing::info!("the upstream cannot be reached: {error:#}");
    refusal(StatusCode::BAD_GATEWAY, "the upstream cannot be reached\n", Decision::Allowed)
}

/// Forwards a plain request on a connection of its own.
async fn forward(mut request: Request<Incoming>) -> Result<Response<Body>> {
    let uri = std::mem::take(request.uri_mut());
    let upstream = connect(&uri, 80).await?;
    let host = uri.authority().context("the URL names no host")?.as_str();
    // Removes the user information that the authority of a URL may contain.
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    strip_hop_by_hop(request.headers_mut());
    request.headers_mut().insert(header::HOST, HeaderValue::from_str(host)?);
    *request.uri_mut() = uri.path_and_query().map_or("/", |path| path.as_str()).parse()?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(upstream)).await?;
    tokio::spawn(connection);
    let mut response = sender.send_request(request).await?;
    strip_hop_by_hop(response.headers_mut());
    // The proxy allowed the request, whatever the upstream's status is.
    response.extensions_mut().insert(Decision::Allowed);
    Ok(response.map(Either::Left))
}

/// Connects to the upstream, then accepts the tunnel.
async fn open_tunnel(request: Request<Incoming>) -> Response<Body> {
    let mut upstream = match connect(request.uri(), 443).await {
        Ok(upstream) => upstream,
        Err(error) => return unreachable_upstream(&error),
    };
    tokio::spawn(async move {
        let copied = async {
            let mut client = TokioIo::new(hyper::upgrade::on(request).await?);
            anyhow::Ok(tokio::io::copy_bidirectional(&mut client, &mut upstream).await?)
        };
        if let Err(error) = copied.await {
            tracing::debug!("a tunnel ended: {error:#}");
        }
    });
    refusal(StatusCode::OK, "", Decision::Allowed)
}

async fn connect(uri: &Uri, default_port: u16) -> Result<TcpStream> {
    let host = uri.host().context("the URL names no host")?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let connecting = TcpStream::connect((host, uri.port_u16().unwrap_or(default_port)));
    timeout(CONNECT_LIMIT, connecting).await.context("the connection timed out")?.context("cannot connect")
}

fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|names| names.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    named.iter().chain(&HOP_BY_HOP).for_each(|name| drop(headers.remove(name)));
    headers.remove("proxy-connection");
}
