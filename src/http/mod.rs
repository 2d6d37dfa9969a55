//! The HTTP listener: metrics, health, the state of every service, and the intake, on one address.
//!
//! It listens on loopback unless TLS and a token are set (checked with the configuration). Everything but the two
//! health checks asks for a token where there is one; what it may be used for is in [`guard`].

pub(crate) mod exposition;
pub(crate) mod guard;
pub(crate) mod problem;
pub(crate) mod recoveries;
mod rest;
pub(crate) mod speak;
pub(crate) mod sql;

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum_server::Handle;
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;

use self::problem::Problem;
use crate::config::Http;

/// What readiness hangs on: one flag a role, set when the role has folded its history and taken up its work.
#[derive(Debug, Clone, Default)]
pub(crate) struct Readiness {
    roles: Arc<Mutex<Vec<Flag>>>,
}

/// A role's name, and whether it is ready.
type Flag = (&'static str, Arc<AtomicBool>);

impl Readiness {
    /// The flag of a role, false at first.
    pub(crate) fn role(&self, name: &'static str) -> Arc<AtomicBool> {
        let flag = Arc::new(AtomicBool::new(false));
        self.roles.lock().unwrap_or_else(PoisonError::into_inner).push((name, flag.clone()));
        flag
    }

    /// The roles that are not ready.
    pub(crate) fn waiting(&self) -> Vec<&'static str> {
        let roles = self.roles.lock().unwrap_or_else(PoisonError::into_inner);
        roles.iter().filter(|(_, ready)| !ready.load(Ordering::Acquire)).map(|(name, _)| *name).collect()
    }
}

/// What the fixed routes show.
#[derive(Clone)]
pub(crate) struct Served {
    pub(crate) registry: Arc<Registry>,
    pub(crate) readiness: Readiness,
    pub(crate) stopping: CancellationToken,
    /// The bearer tokens, where they are asked for.
    pub(crate) tokens: guard::Tokens,
}

/// All routes: the fixed ones and `api` behind the tokens, the health checks before it.
pub(crate) fn router(served: Served, api: Router) -> Router {
    let guarded = Router::new()
        .route("/metrics", get(metrics))
        .with_state(served.clone())
        .merge(api)
        .layer(axum::middleware::from_fn_with_state(served.tokens.clone(), guard::authorize));
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .with_state(served)
        .merge(guarded)
        .fallback(nowhere)
        .method_not_allowed_fallback(otherwise)
        .layer(axum::middleware::from_fn(rest::take_rest))
}

async fn metrics(State(served): State<Served>, headers: HeaderMap) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok());
    match exposition::encode(&served.registry, accept) {
        Ok((content_type, text)) => ([(header::CONTENT_TYPE, content_type)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn nowhere(uri: Uri) -> Problem {
    let remedy = "look for a slip in the path; it may also be that of a role which this process does not run";
    Problem::new(StatusCode::NOT_FOUND, format!("there is no {}", uri.path()), remedy)
}

async fn otherwise(method: Method, uri: Uri) -> Problem {
    let remedy = "the header \"Allow\" says with which methods it can be asked";
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, format!("{} takes no {method}", uri.path()), remedy)
}

async fn ready(State(served): State<Served>) -> (StatusCode, String) {
    if served.stopping.is_cancelled() {
        return (StatusCode::SERVICE_UNAVAILABLE, "stopping\n".into());
    }
    match served.readiness.waiting() {
        waiting if waiting.is_empty() => (StatusCode::OK, "ready\n".into()),
        waiting => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {}\n", waiting.join(", "))),
    }
}

/// Whether an address could not be taken since another process has it.
pub(crate) fn is_in_use(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::AddrInUse)
}

/// Takes an address, so that a port in use is known before anything else starts.
pub(crate) fn bind(section: &str, listen: SocketAddr) -> Result<std::net::TcpListener> {
    std::net::TcpListener::bind(listen).map_err(|error| {
        let remedy = match error.kind() {
            ErrorKind::AddrInUse => "choose another port, or end what uses it",
            ErrorKind::AddrNotAvailable => "write an address that this machine has, or 127.0.0.1",
            ErrorKind::PermissionDenied => "choose a port above 1023",
            _ => "choose another address",
        };
        let what = format!("{section} listen = \"{listen}\" can't be listened on: {remedy}");
        anyhow::Error::from(error).context(what)
    })
}

/// A listener that has its address but answers nothing yet.
pub(crate) struct Listener {
    socket: std::net::TcpListener,
    address: SocketAddr,
    tls: Option<axum_server::tls_rustls::RustlsConfig>,
}

impl Listener {
    /// Takes the address now, so that a port in use is known before anything else starts.
    pub(crate) async fn bind(settings: &Http) -> Result<Self> {
        let socket = bind("[http]", settings.listen)?;
        socket.set_nonblocking(true)?;
        let address = socket.local_addr()?;
        let tls = match (&settings.tls_cert, &settings.tls_key) {
            (Some(cert), Some(key)) => {
                let config = axum_server::tls_rustls::RustlsConfig::from_pem_file(cert, key).await;
                Some(
                    config
                        .with_context(|| format!("[http] tls_cert {} or tls_key {}", cert.display(), key.display()))?,
                )
            }
            _ => None,
        };
        Ok(Self { socket, address, tls })
    }

    /// Where it listens.
    pub(crate) fn url(&self) -> String {
        format!("{}://{}", if self.tls.is_some() { "https" } else { "http" }, self.address)
    }

    /// Answers until `stop`, then lets requests under way end (10 s at most).
    pub(crate) async fn serve(self, router: Router, stop: CancellationToken) -> Result<()> {
        let handle = Handle::new();
        let stopper = handle.clone();
        tokio::spawn(async move {
            stop.cancelled().await;
            stopper.graceful_shutdown(Some(Duration::from_secs(10)));
        });
        let service = router.into_make_service();
        match self.tls {
            Some(tls) => axum_server::from_tcp_rustls(self.socket, tls)?.handle(handle).serve(service).await?,
            None => axum_server::from_tcp(self.socket)?.handle(handle).serve(service).await?,
        }
        Ok(())
    }
}
