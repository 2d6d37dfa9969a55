//! Where imported events go: nowhere, to a running Rebound, or onto the bus and from there into the log.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rebound_ingest::bus::{EventBus, Stream};
use rebound_ingest::log::{self as event_log, LogLocation, LogMetrics, LogSettings};
use rebound_schemas::{Event, Topic, encode};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::From;
use crate::commands::emit::{Target, deliver};
use crate::commands::log::progress;
use crate::config::{BusKind, Config};
use crate::roles::{tenure, written};

/// Where events go.
pub(super) enum Way {
    /// Nowhere.
    Dry,
    /// To a running Rebound.
    Url(Target),
    /// Onto the bus; over the embedded one, the log is written here.
    Bus {
        bus: Arc<dyn EventBus>,
        log: Option<(CancellationToken, JoinHandle<Result<()>>)>,
        /// The batch that is being appended while the next rows are read.
        under_way: Option<JoinHandle<Result<()>>>,
    },
}

/// The log is written in larger pieces than in operation, where an event should be queryable within a second: history
/// has many days, and each commit makes a file a day. For the same reason one thread encodes them.
fn log_settings(config: &Config) -> Result<LogSettings> {
    let mut settings = LogSettings::new(LogLocation::parse(&config.log_location())?);
    settings.commit_bytes = settings.commit_bytes.max(COMMIT_BYTES);
    settings.commit_age = COMMIT_AGE;
    settings.workers = 1;
    Ok(settings)
}

/// Bytes of records of one commit.
const COMMIT_BYTES: usize = 64 << 20;
/// A commit that is smaller is made after this long: the last one, which the end waits for.
const COMMIT_AGE: Duration = Duration::from_secs(2);

impl Way {
    pub(super) async fn open(config: &Config, from: &From) -> Result<Self> {
        if from.dry_run {
            return Ok(Self::Dry);
        }
        if let Some(url) = &from.url {
            return Ok(Self::Url(Target::new(url, from.token_file.as_deref())));
        }
        let embedded = config.bus.kind == BusKind::Embedded;
        let bus = crate::roles::open_bus(config).await.map_err(|error| match embedded {
            true => error.context(format!(
                "the bus can't be opened here; if a Rebound is running on it, have that take the file in: --url http://{}",
                config.http.listen
            )),
            false => error,
        })?;
        let log = embedded.then(|| -> Result<_> {
            let settings = log_settings(config)?;
            let metrics = LogMetrics::new(&mut prometheus_client::registry::Registry::default());
            let (stop, bus) = (CancellationToken::new(), bus.clone());
            let stopped = stop.clone();
            let task = tokio::spawn(async move {
                event_log::run_log(bus, settings, metrics, stopped).await.context("the event log")
            });
            Ok((stop, task))
        });
        Ok(Self::Bus { bus, log: log.transpose()?, under_way: None })
    }

    /// Takes a batch. Onto the bus one batch is appended while the caller makes the next; what went wrong with the one
    /// before is told by this call, or by [`Way::settle`].
    pub(super) async fn put(&mut self, events: Vec<Event>) -> Result<()> {
        match self {
            Self::Dry => Ok(()),
            Self::Url(target) => {
                let lines: Vec<_> = events.iter().map(|e| String::from_utf8(encode(e))).collect::<Result<_, _>>()?;
                match deliver(target, &lines).await? {
                    (_, 0) => Ok(()),
                    (_, rejected) => bail!("{rejected} events were refused: see above"),
                }
            }
            Self::Bus { bus, under_way, .. } => {
                settled(under_way).await?;
                *under_way = Some(tokio::spawn(append(bus.clone(), events)));
                Ok(())
            }
        }
    }

    /// Waits until everything that was put is durable.
    pub(super) async fn settle(&mut self) -> Result<()> {
        match self {
            Self::Dry | Self::Url(_) => Ok(()),
            Self::Bus { under_way, .. } => settled(under_way).await,
        }
    }

    /// Waits until the log has everything, where it is written here, and lets go of the bus.
    pub(super) async fn close(self) -> Result<()> {
        let Self::Bus { bus, log, mut under_way } = self else { return Ok(()) };
        // Where reading the file failed, a batch may still be on its way: it goes in whole.
        settled(&mut under_way).await?;
        if let Some((stop, task)) = log {
            let mut bar = progress("writing the log");
            while !task.is_finished() {
                let (written, all) = written(&bus).await?;
                bar(written, all);
                if written >= all {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            stop.cancel();
            task.await??;
        }
        bus.close().await?;
        Ok(())
    }
}

async fn settled(under_way: &mut Option<JoinHandle<Result<()>>>) -> Result<()> {
    match under_way.take() {
        Some(task) => task.await.context("appending to the bus")?,
        None => Ok(()),
    }
}

async fn append(bus: Arc<dyn EventBus>, events: Vec<Event>) -> Result<()> {
    for topic in Topic::ALL {
        let records: Vec<_> = events.iter().filter(|e| e.kind().topic() == topic).map(tenure::record).collect();
        if !records.is_empty() {
            bus.append(Stream::Events(topic), records).await?;
        }
    }
    Ok(())
}
