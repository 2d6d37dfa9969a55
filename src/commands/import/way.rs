//! Where imported events go: nowhere, to a running Rebound, or onto the bus and from there into the log.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rebound_ingest::bus::{EventBus, Stream};
use rebound_ingest::log::{self as event_log, LogLocation, LogMetrics, LogSettings};
use rebound_schemas::{Event, Topic, encode};
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
    Bus { bus: Arc<dyn EventBus>, log: Option<(CancellationToken, tokio::task::JoinHandle<Result<()>>)> },
}

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
            let settings = LogSettings::new(LogLocation::parse(&config.log_location())?);
            let metrics = LogMetrics::new(&mut prometheus_client::registry::Registry::default());
            let (stop, bus) = (CancellationToken::new(), bus.clone());
            let stopped = stop.clone();
            let task = tokio::spawn(async move {
                event_log::run_log(bus, settings, metrics, stopped).await.context("the event log")
            });
            Ok((stop, task))
        });
        Ok(Self::Bus { bus, log: log.transpose()? })
    }

    pub(super) async fn put(&self, events: &[Event]) -> Result<()> {
        match self {
            Self::Dry => Ok(()),
            Self::Url(target) => {
                let lines: Vec<_> = events.iter().map(|e| String::from_utf8(encode(e))).collect::<Result<_, _>>()?;
                match deliver(target, &lines).await? {
                    (_, 0) => Ok(()),
                    (_, rejected) => bail!("{rejected} events were refused: see above"),
                }
            }
            Self::Bus { bus, .. } => {
                for topic in Topic::ALL {
                    let records: Vec<_> =
                        events.iter().filter(|e| e.kind().topic() == topic).map(tenure::record).collect();
                    if !records.is_empty() {
                        bus.append(Stream::Events(topic), records).await?;
                    }
                }
                Ok(())
            }
        }
    }

    /// Waits until the log has everything, where it is written here, and lets go of the bus.
    pub(super) async fn close(self) -> Result<()> {
        let Self::Bus { bus, log } = self else { return Ok(()) };
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
