//! One small real service of the demo's fleet: a process that listens, answers, and can be broken.
//!
//! A service writes `<state>/<name>.pid` when it listens and answers `503` while `<state>/<name>.broken` is there.
//! An HTTP service answers `200` on `/health` only while everything that it depends on takes connections, so a dead
//! database shows in what stands on it. A TCP service says `PONG` to a line `PING`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use axum::http::StatusCode;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// What a demo service speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Protocol {
    Http,
    Tcp,
}

/// One service, as the hidden `demo-service` command is told.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct DemoService {
    /// Its name.
    #[arg(long)]
    pub(crate) name: String,
    /// What it speaks.
    #[arg(long, value_enum)]
    pub(crate) protocol: Protocol,
    /// Its port on loopback.
    #[arg(long)]
    pub(crate) port: u16,
    /// Ports of the services that it needs.
    #[arg(long = "needs")]
    pub(crate) needs: Vec<u16>,
    /// Folder of pid files and faults.
    #[arg(long)]
    pub(crate) state: PathBuf,
}

/// Where a service writes its process id.
pub(crate) fn pid_file(state: &Path, name: &str) -> PathBuf {
    state.join(format!("{name}.pid"))
}

/// A file whose presence breaks a service.
pub(crate) fn fault_file(state: &Path, name: &str) -> PathBuf {
    state.join(format!("{name}.broken"))
}

/// Serves until it is killed.
pub(crate) async fn serve(service: DemoService) -> Result<()> {
    let address = SocketAddr::from(([127, 0, 0, 1], service.port));
    let listener =
        TcpListener::bind(address).await.with_context(|| format!("{} can't listen on {address}", service.name))?;
    // Written whole or not at all: the fleet reads it at any time.
    let pid = pid_file(&service.state, &service.name);
    let draft = pid.with_extension("draft");
    std::fs::write(&draft, std::process::id().to_string())
        .and_then(|()| std::fs::rename(&draft, &pid))
        .with_context(|| format!("{} can't be written", pid.display()))?;
    match service.protocol {
        Protocol::Http => {
            let app = axum::Router::new().route("/health", axum::routing::get(move || health(service.clone())));
            axum::serve(listener, app).await?;
        }
        Protocol::Tcp => loop {
            let (stream, _) = listener.accept().await?;
            let fault = fault_file(&service.state, &service.name);
            tokio::spawn(async move {
                // A peer that hangs up mid-line is no fault of the service.
                let _ = pong(stream, &fault).await;
            });
        },
    }
    Ok(())
}

async fn health(service: DemoService) -> (StatusCode, String) {
    if fault_file(&service.state, &service.name).exists() {
        return (StatusCode::SERVICE_UNAVAILABLE, "broken\n".into());
    }
    for port in &service.needs {
        let connect = TcpStream::connect(("127.0.0.1", *port));
        if !matches!(tokio::time::timeout(Duration::from_millis(200), connect).await, Ok(Ok(_))) {
            return (StatusCode::SERVICE_UNAVAILABLE, format!("the dependency on port {port} does not answer\n"));
        }
    }
    (StatusCode::OK, "ok\n".into())
}

async fn pong(stream: TcpStream, fault: &Path) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    if stream.read_line(&mut line).await? > 0 {
        let answer = if fault.exists() { "ERROR broken\n" } else { "PONG\n" };
        stream.get_mut().write_all(answer.as_bytes()).await?;
    }
    Ok(())
}
