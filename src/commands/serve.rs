//! `rebound serve`: the event log answers SQL, over the PostgreSQL wire protocol and HTTP. It needs the log alone, no
//! bus, so that it runs wherever the log can be read.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result};
use clap::Args;
use prometheus_client::registry::Registry;
use rebound_analytics::session::Session;
use rebound_analytics::wire::{self, WireSettings};
use tokio_util::sync::CancellationToken;

use crate::cli::Done;
use crate::config::Config;
use crate::http::guard::Tokens;
use crate::http::{Listener, Readiness, Served};

/// Where the PostgreSQL protocol is spoken unless `[sql] listen` says otherwise.
const DEFAULT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 5433);

/// `rebound serve`
#[derive(Debug, Clone, Args)]
pub(crate) struct Serve {
    /// Where the PostgreSQL protocol is spoken [default: `[sql] listen`, or 127.0.0.1:5433].
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
}

/// A session over the log that the settings name, which need not be there yet. Where it is, its projections are brought
/// up to date beside, for as long as it takes: a query has a time limit.
pub(crate) fn session(config: &Config) -> Result<Arc<Session>> {
    let plan = super::sql::plan(config)?;
    let session = Session::lazy(&config.log_location(), plan, super::sql::limits(config), Some(config.projections()))?;
    let session = Arc::new(session);
    let up_to_date = session.clone();
    tokio::spawn(async move {
        if let Err(error) = up_to_date.project(false, Arc::new(|_, _| {})).await {
            tracing::debug!(error = &error as &dyn std::error::Error, "projections are made when they are asked for");
        }
    });
    Ok(session)
}

/// Who may connect, as the settings say.
pub(crate) fn wire_settings(config: &Config) -> Result<WireSettings> {
    let read = |what: &str, path: &std::path::Path| {
        std::fs::read(path).with_context(|| format!("{what} {} can't be read", path.display()))
    };
    let login = match &config.sql.password_file {
        None => None,
        Some(file) => {
            let text = String::from_utf8(read("[sql] password_file", file)?).context("[sql] password_file is text")?;
            let password = text.trim_end_matches(['\r', '\n']).to_owned();
            anyhow::ensure!(
                password.len() >= 12,
                "[sql] password_file {}: a password has at least 12 characters",
                file.display()
            );
            Some((config.sql.user.clone(), password))
        }
    };
    let tls = match (&config.http.tls_cert, &config.http.tls_key) {
        (Some(certificate), Some(key)) => Some((read("[http] tls_cert", certificate)?, read("[http] tls_key", key)?)),
        _ => None,
    };
    Ok(WireSettings { login, tls, max_connections: config.sql.max_connections })
}

pub(crate) async fn serve(mut config: Config, serve: Serve) -> Result<Done> {
    let listen = serve.listen.or(config.sql.listen).unwrap_or(DEFAULT);
    config.sql.listen = Some(listen);
    config.check()?;
    let session = session(&config)?;
    let socket = crate::http::bind("[sql]", listen)?;
    let address = socket.local_addr()?;
    let settings = wire_settings(&config)?;
    let stop = CancellationToken::new();
    let http = match Listener::bind(&config.http).await {
        Ok(listener) => Some(listener),
        // A running Rebound, which answers it there.
        Err(error) if crate::http::is_in_use(&error) => {
            let listen = config.http.listen;
            tracing::warn!(%listen, "taken by another process: SQL is answered over the PostgreSQL protocol only");
            None
        }
        Err(error) => return Err(error),
    };
    let user = settings.login.as_ref().map_or("anybody", |(user, _)| user.as_str());
    let tls = settings.tls.is_some();
    tracing::info!(%address, user, tls, log = config.log_location(), "answering SQL (PostgreSQL protocol)");
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn({
        let (session, stop) = (session.clone(), stop.clone());
        async move { wire::serve(session, socket, settings, stop).await.context("[sql]") }
    });
    if let Some(listener) = http {
        tracing::info!(url = listener.url(), "answering SQL (POST /v1/sql)");
        let served = Served {
            registry: Arc::new(Registry::default()),
            readiness: Readiness::default(),
            stopping: stop.clone(),
            tokens: Tokens::read(&config.http)?,
        };
        let router = crate::http::router(served, crate::http::sql::router(session, &config.sql));
        tasks.spawn(listener.serve(router, stop.clone()));
    }
    tokio::select! {
        () = crate::roles::interrupted() => {}
        Some(ended) = tasks.join_next() => ended??,
    }
    stop.cancel();
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok(Done::Good)
}
