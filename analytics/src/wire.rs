//! The PostgreSQL wire protocol: psql, DBeaver, Metabase, psycopg, JDBC and Grafana ask the log as they would a
//! PostgreSQL server.
//!
//! Messages are read and written by `pgwire`, `pg_catalog` is that of `datafusion-postgres`, and statements run as
//! those of [`Session`] do, under the same limits. In reading order: `connection` is one client's conversation,
//! `login` its beginning, `gate` what becomes of its statements, `run` one of them while it runs, `settings` those that
//! need no log (`SET`, `SHOW`, transactions), `parameters` what prepared ones are given, `dialect` how they are written,
//! `world` what there is to ask: `catalog` lists it and `functions` answers what clients ask of a server itself.
//!
//! Without a password nobody is asked for one, which is for loopback alone: the caller checks that.

mod catalog;
mod connection;
mod dialect;
mod functions;
mod gate;
mod login;
mod parameters;
mod run;
mod settings;
mod world;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use datafusion_postgres::pgwire::error::{ErrorInfo, PgWireError};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::session::{Session, SqlError, Threads};
use run::Connections;
use world::World;

/// The server version that clients are told: its features are what they then expect. Old enough that no psql warns of
/// a newer server, new enough that every client still speaks to it.
const SERVER_VERSION: &str = "15.0";
/// The same as a number.
const SERVER_VERSION_NUMBER: &str = "150000";

/// Connections beyond the limit that are told so, or bring a cancel request, at a time.
const LOBBY: usize = 64;

/// How long what runs may go on when the server stops.
const GRACE: Duration = Duration::from_secs(10);

/// Who may connect, and how.
#[derive(Clone, Default)]
pub struct WireSettings {
    /// The one user and the password; without, everybody is let in.
    pub login: Option<(String, String)>,
    /// PEM certificate chain and private key; without, there is no TLS, with it nothing else.
    pub tls: Option<(Vec<u8>, Vec<u8>)>,
    /// Connections at a time; one more is told so and closed.
    pub max_connections: usize,
}

impl std::fmt::Debug for WireSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WireSettings")
            .field("user", &self.login.as_ref().map(|(user, _)| user))
            .field("tls", &self.tls.is_some())
            .field("max_connections", &self.max_connections)
            .finish_non_exhaustive()
    }
}

/// What all connections share.
struct Server {
    world: Arc<World>,
    settings: WireSettings,
    tls: Option<TlsAcceptor>,
    connections: Arc<Connections>,
}

/// Answers connections until `stop`, then lets what runs end, for ten seconds at most.
///
/// # Errors
/// The certificate or its key is not usable, or the socket can't be listened on.
pub async fn serve(
    session: Arc<Session>,
    socket: std::net::TcpListener,
    settings: WireSettings,
    stop: CancellationToken,
) -> io::Result<()> {
    let tls = settings.tls.as_ref().map(|(certificate, key)| acceptor(certificate, key)).transpose()?;
    socket.set_nonblocking(true)?;
    // Not those that run SQL: a cancel request must get through while every one of them is busy. Parsers recurse, so
    // these too have deep stacks.
    let threads = Threads::new("sql-wire")?;
    let listening = threads.handle().spawn(async move {
        let user = settings.login.as_ref().map_or("rebound", |(user, _)| user.as_str());
        let world = World::new(&session, user).await.map_err(io::Error::other)?;
        let server = Server { world: Arc::new(world), settings, tls, connections: Arc::default() };
        accept(Arc::new(server), TcpListener::from_std(socket)?, stop).await;
        Ok(())
    });
    listening.await.map_err(io::Error::other)?
}

async fn accept(server: Arc<Server>, listener: TcpListener, stop: CancellationToken) {
    let (places, lobby) = (Arc::new(Semaphore::new(server.settings.max_connections)), Arc::new(Semaphore::new(LOBBY)));
    let mut open = JoinSet::new();
    loop {
        let (socket, peer) = tokio::select! {
            () = stop.cancelled() => break,
            Some(ended) = open.join_next() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "a SQL connection ended by a defect");
                }
                continue;
            }
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of descriptors, most likely: those who hold them will end.
                    tracing::warn!(%error, "a connection can't be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
        };
        // Kept for the length of the connection. Beyond the limit there is room to be told of it, and for cancel
        // requests, which are connections too.
        let (place, admitted) = match places.clone().try_acquire_owned() {
            Ok(place) => (place, true),
            Err(_) => match lobby.clone().try_acquire_owned() {
                Ok(place) => (place, false),
                Err(_) => continue,
            },
        };
        let (server, stop) = (server.clone(), stop.clone());
        open.spawn(async move {
            let _place = place;
            if let Err(error) = connection::talk(socket, server, admitted, stop).await {
                tracing::debug!(%peer, %error, "a SQL connection broke");
            }
        });
    }
    // The connections see `stop` themselves.
    let ended = async { while open.join_next().await.is_some() {} };
    if tokio::time::timeout(GRACE + Duration::from_secs(2), ended).await.is_err() {
        open.abort_all();
    }
}

fn acceptor(certificate: &[u8], key: &[u8]) -> io::Result<TlsAcceptor> {
    let wrong = |what: &str, error: &dyn std::fmt::Display| {
        io::Error::new(io::ErrorKind::InvalidInput, format!("the {what} is not usable: {error}"))
    };
    let chain: Vec<CertificateDer<'static>> =
        CertificateDer::pem_slice_iter(certificate).collect::<Result<_, _>>().map_err(|e| wrong("certificate", &e))?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|e| wrong("certificate's key", &e))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(|e| wrong("certificate", &e))?;
    // For clients that begin with TLS instead of asking for it.
    config.alpn_protocols = vec![b"postgresql".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// An error that ends a statement.
fn error(code: &str, message: impl Into<String>) -> PgWireError {
    PgWireError::UserError(Box::new(ErrorInfo::new("ERROR".to_owned(), code.to_owned(), message.into())))
}

/// An error that ends a connection.
fn fatal(code: &str, message: impl Into<String>) -> PgWireError {
    PgWireError::UserError(Box::new(ErrorInfo::new("FATAL".to_owned(), code.to_owned(), message.into())))
}

/// An error as PostgreSQL would tell it: with the code that clients look at, and a hint.
fn told(sql: &SqlError) -> PgWireError {
    let (message, hint) = sql.told();
    let mut info = ErrorInfo::new("ERROR".to_owned(), sql.code().to_owned(), message);
    info.hint = hint;
    PgWireError::UserError(Box::new(info))
}
