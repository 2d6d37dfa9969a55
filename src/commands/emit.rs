//! `rebound emit`: events from the command line or standard input to a running Rebound.

use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use chrono::{DateTime, Utc};
use clap::Args;
use rebound_schemas::codec::{self, TYPE_PREFIX};
use rebound_schemas::plan::nearest;
use rebound_schemas::{Kind, ServiceId};
use serde_json::{Value, json};

use crate::cli::Done;

/// Events sent in one request at most.
const BATCH: usize = 1000;

/// Where events are sent.
#[derive(Debug, Clone, Args)]
pub(crate) struct Target {
    /// The Rebound to send to.
    #[arg(long, global = true, env = "REBOUND_URL", default_value = "http://127.0.0.1:9464")]
    url: String,
    /// File that holds the bearer token.
    #[arg(long, global = true, env = "REBOUND_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
}

impl Target {
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn token_file(&self) -> Option<&Path> {
        self.token_file.as_deref()
    }

    /// This address, with the token in that file.
    pub(crate) fn new(url: &str, token_file: Option<&Path>) -> Self {
        Self { url: url.to_owned(), token_file: token_file.map(Path::to_owned) }
    }
}

/// `rebound emit`
#[derive(Debug, Clone, Args)]
pub(crate) struct Emit {
    #[command(flatten)]
    target: Target,
    /// The kind of event, as in `backup.finished`. Without it, events are read from standard input, one JSON object
    /// (CloudEvents) a line.
    #[arg(long, requires = "service")]
    kind: Option<String>,
    /// The service that it is about.
    #[arg(long)]
    service: Option<ServiceId>,
    /// The payload, as JSON.
    #[arg(long, default_value = "{}", value_name = "JSON")]
    payload: String,
    /// Who says so.
    #[arg(long, default_value = "rebound-emit")]
    source: String,
    /// Unique within the source; sending the same one again is harmless. Made from the time when absent.
    #[arg(long)]
    id: Option<String>,
    /// When it happened (RFC 3339); now when absent.
    #[arg(long)]
    time: Option<DateTime<Utc>>,
}

pub(crate) async fn emit(emit: Emit) -> Result<Done> {
    let lines = match &emit.kind {
        Some(kind) => vec![from_flags(&emit, kind)?],
        None => from_stdin()?,
    };
    let (accepted, rejected) = deliver(&emit.target, &lines).await?;
    println!("{accepted} accepted, {rejected} rejected");
    Ok(if rejected == 0 { Done::Good } else { Done::Faults })
}

/// Sends events, one JSON text each; answers how many were accepted and rejected, the latter told on standard error.
pub(crate) async fn deliver(target: &Target, lines: &[String]) -> Result<(usize, usize)> {
    let client = client(target.token_file.as_deref())?;
    let (mut accepted, mut rejected) = (0, 0);
    for (number, batch) in lines.chunks(BATCH).enumerate() {
        let answer = send(&client, &target.url, batch).await?;
        for (index, verdict) in answer.iter().enumerate() {
            if verdict["status"] == "accepted" {
                accepted += 1;
            } else {
                rejected += 1;
                eprintln!("event {}: {verdict}", number * BATCH + index + 1);
            }
        }
    }
    Ok((accepted, rejected))
}

/// A client that shows the token in the file, if there is one.
pub(crate) fn client(token_file: Option<&Path>) -> Result<reqwest::Client> {
    let mut client = reqwest::Client::builder().timeout(Duration::from_secs(60));
    if let Some(file) = token_file {
        let token = std::fs::read_to_string(file)
            .with_context(|| format!("the token file {} can't be read", file.display()))?;
        let mut value = reqwest::header::HeaderValue::from_str(&format!("Bearer {}", token.trim()))?;
        value.set_sensitive(true);
        client = client.default_headers([(reqwest::header::AUTHORIZATION, value)].into_iter().collect());
    }
    Ok(client.build()?)
}

fn from_flags(emit: &Emit, kind: &str) -> Result<String> {
    let Some(kind) = Kind::parse(kind) else {
        let known: Vec<_> = Kind::ALL.iter().map(|k| k.as_str()).collect();
        match nearest(kind, known.iter().copied()) {
            Some(near) => bail!("--kind {kind:?} is unknown: did you mean {near:?}?"),
            None => bail!("--kind {kind:?} is unknown: expected one of {}", known.join(", ")),
        }
    };
    let data: Value = serde_json::from_str(&emit.payload).context("--payload is not JSON")?;
    let now = Utc::now();
    let event = json!({
        "specversion": codec::SPEC_VERSION,
        "id": emit.id.clone().unwrap_or_else(|| now.timestamp_micros().to_string()),
        "source": emit.source,
        "type": format!("{TYPE_PREFIX}{kind}.v{}", kind.version()),
        "subject": emit.service,
        "time": codec::format_time(emit.time.unwrap_or(now)),
        "data": data,
    });
    let line = event.to_string();
    // Refused here already, without a round trip, in the same words.
    codec::decode(line.as_bytes()).map_err(|e| anyhow::anyhow!("{e} (at {})", e.pointer()))?;
    Ok(line)
}

fn from_stdin() -> Result<Vec<String>> {
    if std::io::stdin().is_terminal() {
        bail!("nothing to send: give --kind and --service, or events on standard input, one JSON object a line");
    }
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).context("standard input can't be read")?;
    let lines: Vec<_> = text.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned).collect();
    if lines.is_empty() {
        bail!("standard input held no event");
    }
    Ok(lines)
}

/// Sends one batch, waiting as told while Rebound is busy; answers a verdict an event.
pub(crate) async fn send(client: &reqwest::Client, url: &str, batch: &[String]) -> Result<Vec<Value>> {
    for _ in 0..10 {
        let request = client
            .post(format!("{}/v1/events", url.trim_end_matches('/')))
            .header(reqwest::header::CONTENT_TYPE, "application/x-ndjson")
            .body(batch.join("\n"));
        let answer =
            request.send().await.with_context(|| format!("{url} does not answer (is `rebound up` running there?)"))?;
        let status = answer.status();
        if matches!(status.as_u16(), 429 | 503) {
            let wait = answer.headers().get(reqwest::header::RETRY_AFTER).and_then(|v| v.to_str().ok()?.parse().ok());
            tokio::time::sleep(Duration::from_secs(wait.unwrap_or(1).min(30))).await;
            continue;
        }
        let text = answer.text().await?;
        let verdicts = serde_json::from_str::<Value>(&text).ok().and_then(|v| v["events"].as_array().cloned());
        return verdicts.with_context(|| format!("{url} answered {status}: {text}"));
    }
    bail!("{url} was busy ten times in a row: try again later")
}
