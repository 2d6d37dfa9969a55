//! Roles and the process that runs them: started together, stopped in the order of the data.
//!
//! A process stops in three stages, so that nothing it took in is left half-way: first what puts events on the bus
//! from outside (probes, intake), then what decides and acts, then the log writer, which is given time to write down
//! what is on the bus.

pub(crate) mod adopted;
pub(crate) mod alert;
mod clock;
pub(crate) mod figures;
pub(crate) mod moves;
pub(crate) mod publish;
pub(crate) mod recover;
mod seat;
mod snapshot;
pub(crate) mod tenure;
pub(crate) mod view;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use clap::ValueEnum;
use prometheus_client::registry::Registry;
use rebound_alerting::channel::Channels;
use rebound_ingest::bus::embedded::{EmbeddedBus, EmbeddedSettings};
use rebound_ingest::bus::kafka::{KafkaBus, KafkaSettings};
use rebound_ingest::bus::{BusError, EventBus, Partition};
use rebound_ingest::intake::{self, Intake, IntakeMetrics, IntakeSettings};
use rebound_ingest::log::{self as event_log, LogLocation, LogMetrics, LogSettings};
use rebound_ingest::probe::{ProbeMetrics, ProbeSettings, run_probes};
use rebound_schemas::plan::Plan;
use rebound_schemas::{SiteId, Topic};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::cli::Done;
use crate::config::{BusKind, Config};
use crate::http::guard::Tokens;
use crate::http::speak::Speaker;
use crate::http::{Listener, Readiness, Served, recoveries};
use seat::{Seat, Span};
use snapshot::Snapshots;
use view::View;

/// One kind of work that a process can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Role {
    /// Run the plan's probes.
    Probe,
    /// Take events over HTTP.
    Intake,
    /// Write the event log.
    Log,
    /// Decide what has failed, and tell people.
    Alert,
    /// Run recoveries.
    Recover,
    /// Serve the state of every service, and SQL.
    Serve,
}

impl Role {
    pub(crate) const ALL: [Self; 6] = [Self::Probe, Self::Intake, Self::Log, Self::Alert, Self::Recover, Self::Serve];
}

/// What stops together, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Sources,
    Deciders,
    Log,
    Http,
}

/// How long each stage may take to end; recoveries have their `drain_within` besides.
const PATIENCE: Duration = Duration::from_secs(20);

/// What others may look at while a process runs.
#[derive(Debug, Clone)]
pub(crate) struct Handle {
    pub(crate) plan: Option<Arc<Plan>>,
    pub(crate) bus: Arc<dyn EventBus>,
    pub(crate) view: Arc<View>,
    /// Where it listens.
    pub(crate) url: String,
}

/// A process with its bus open and its address taken; its roles run from [`Process::start`] to [`Process::stop`].
pub(crate) struct Process {
    config: Config,
    roles: Vec<Role>,
    handle: Handle,
    listener: Option<Listener>,
    channels: Option<Arc<Channels>>,
    /// Where SQL is answered over the PostgreSQL protocol.
    sql: Option<std::net::TcpListener>,
    readiness: Readiness,
    stops: BTreeMap<Stage, CancellationToken>,
    tasks: JoinSet<(Stage, &'static str, Result<()>)>,
    running: BTreeMap<Stage, usize>,
}

/// `rebound up` and `rebound run`.
pub(crate) async fn run(config: Config, roles: Vec<Role>) -> Result<Done> {
    let mut process = Process::prepare(config, roles).await?;
    process.start().await?;
    let failure = tokio::select! {
        () = interrupted() => None,
        error = process.failed() => Some(error),
    };
    tracing::info!("stopping");
    let stopped = process.stop().await;
    match failure {
        Some(error) => Err(error),
        None => stopped.map(|()| Done::Good),
    }
}

/// Ends at SIGTERM or Ctrl-C.
pub(crate) async fn interrupted() {
    let terminate = async {
        match signal(SignalKind::terminate()) {
            Ok(mut terminate) => terminate.recv().await,
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = terminate => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}

impl Process {
    /// Opens everything that can fail for want of something outside: the plan, its channels' secrets, the address, the
    /// bus.
    pub(crate) async fn prepare(config: Config, roles: Vec<Role>) -> Result<Self> {
        let plan = match &config.plan {
            Some(path) => Some(Arc::new(crate::commands::check::load_plan(path)?)),
            None => None,
        };
        let needing: Vec<_> =
            [Role::Probe, Role::Alert, Role::Recover].into_iter().filter(|r| roles.contains(r)).collect();
        if plan.is_none() && !needing.is_empty() {
            tracing::warn!("there is no plan: nothing is probed and nothing is decided (name one with --plan FILE)");
        }
        let channels = match &plan {
            Some(plan) if roles.contains(&Role::Alert) => Some(Arc::new(
                Channels::new(plan, &|target: &_| publish::connect(&config, target)).context("the plan's channels")?,
            )),
            _ => None,
        };
        let listener = Listener::bind(&config.http).await?;
        let listen = config.sql.listen.filter(|_| roles.contains(&Role::Serve));
        let sql = listen.map(|listen| crate::http::bind("[sql]", listen)).transpose()?;
        let bus = open_bus(&config).await?;
        let view = Arc::new(View::new(plan.clone()));
        let stages = [Stage::Sources, Stage::Deciders, Stage::Log, Stage::Http];
        Ok(Self {
            handle: Handle { plan, bus, view, url: listener.url() },
            listener: Some(listener),
            channels,
            sql,
            readiness: Readiness::default(),
            stops: stages.into_iter().map(|stage| (stage, CancellationToken::new())).collect(),
            tasks: JoinSet::new(),
            running: BTreeMap::new(),
            config,
            roles,
        })
    }

    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    fn has(&self, role: Role) -> bool {
        self.roles.contains(&role)
    }

    fn spawn(&mut self, stage: Stage, name: &'static str, work: impl Future<Output = Result<()>> + Send + 'static) {
        *self.running.entry(stage).or_default() += 1;
        self.tasks.spawn(async move { (stage, name, work.await) });
    }

    /// Starts the roles.
    pub(crate) async fn start(&mut self) -> Result<()> {
        let mut registry = Registry::default();
        let tokens = Tokens::read(&self.config.http)?;
        let stop = |stage: Stage| self.stops[&stage].clone();
        let (sources, deciders, log, http) =
            (stop(Stage::Sources), stop(Stage::Deciders), stop(Stage::Log), stop(Stage::Http));
        figures::build_info(&mut registry);

        if self.has(Role::Log) {
            let mut settings = LogSettings::new(LogLocation::parse(&self.config.log_location())?);
            settings.commit_age = self.config.log.commit_age;
            settings.commit_bytes = self.config.log.commit_bytes;
            let metrics = LogMetrics::new(registry.sub_registry_with_prefix("rebound"));
            let (bus, ready) = (self.handle.bus.clone(), self.readiness.role("log"));
            self.spawn(Stage::Log, "log", async move {
                ready.store(true, Ordering::Release);
                event_log::run_log(bus, settings, metrics, log).await.context("the event log")
            });
        }
        let mut api = axum::Router::new();
        if self.has(Role::Intake) {
            let mut settings = IntakeSettings::default();
            settings.labels.service = vec![self.config.http.alertmanager_label.clone()];
            // Where tokens have names, who says something of a recovery is who shows one.
            settings.rules.named_words = !self.config.http.token.is_empty();
            let intake = Intake::new(self.handle.bus.clone(), settings, IntakeMetrics::new(&mut registry));
            api = api.merge(intake::router(intake));
        }
        if self.has(Role::Serve) {
            let figures = figures::Figures::new(&mut registry);
            let (view, bus, ready) = (self.handle.view.clone(), self.handle.bus.clone(), self.readiness.role("serve"));
            let speaker = Arc::new(Speaker::new(view.clone(), bus.clone(), ready.clone()));
            api = api.merge(view::router(view.clone())).merge(moves::router(speaker.clone()));
            api = api.merge(recoveries::router(speaker));
            let snapshots = self.handle.plan.as_deref().map(|plan| Arc::new(Snapshots::new(&self.config, plan)));
            let session = crate::commands::serve::session(&self.config)?;
            api = api.merge(crate::http::sql::router(session.clone(), &self.config.sql));
            if let Some(socket) = self.sql.take() {
                let (settings, stop) = (crate::commands::serve::wire_settings(&self.config)?, http.clone());
                tracing::info!(address = ?self.config.sql.listen, "answering SQL (PostgreSQL protocol)");
                self.spawn(Stage::Http, "sql", async move {
                    rebound_analytics::wire::serve(session, socket, settings, stop).await.context("[sql]")
                });
            }
            let stop = deciders.clone();
            self.spawn(Stage::Deciders, "serve", async move {
                tokio::select! {
                    () = stop.cancelled() => Ok(()),
                    result = view::follow(view.clone(), bus, snapshots, ready) => result.context("the state of the services"),
                    () = figures.keep(&view) => Ok(()),
                }
            });
        }
        if let Some(plan) = self.handle.plan.clone() {
            if self.has(Role::Alert) || self.has(Role::Recover) {
                adopted::tell(self.handle.bus.clone(), plan.clone(), chrono::Utc::now());
            }
            self.start_deciders(&plan, &deciders);
            if self.has(Role::Probe) {
                let site = self.config.probe.site.as_deref().map(SiteId::new).transpose();
                let settings = ProbeSettings {
                    instance: self.config.instance.clone(),
                    site: site.context("[probe] site")?,
                    concurrency: self.config.probe.concurrency,
                    ..ProbeSettings::default()
                };
                let metrics = ProbeMetrics::new(&mut registry);
                let bus = self.handle.bus.clone();
                self.spawn(Stage::Sources, "probe", async move {
                    run_probes(plan, bus, settings, metrics, sources).await.context("the probes")
                });
            }
        }
        let served = Served {
            registry: Arc::new(registry),
            readiness: self.readiness.clone(),
            stopping: self.stops[&Stage::Sources].clone(),
            tokens,
        };
        if let Some(listener) = self.listener.take() {
            let router = crate::http::router(served, api);
            tracing::info!(url = %self.handle.url, roles = ?self.roles, "listening");
            self.spawn(Stage::Http, "http", listener.serve(router, http));
        }
        Ok(())
    }

    fn start_deciders(&mut self, plan: &Arc<Plan>, stop: &CancellationToken) {
        if let Some(channels) = self.channels.clone() {
            let seat = self.seat("alert", alert::GROUP, Topic::Observations, Span::All, stop);
            let (plan, snapshots) = (plan.clone(), Arc::new(Snapshots::new(&self.config, plan)));
            self.spawn(Stage::Deciders, "alert", async move {
                let tenure =
                    move |held, folded| alert::decide(held, plan.clone(), channels.clone(), snapshots.clone(), folded);
                seat.serve(tenure).await.context("alerting")
            });
        }
        if self.has(Role::Recover) {
            let role = recover::Role::new(plan.clone(), &self.config);
            let seat = self.seat("recover", recover::GROUP, Topic::Recoveries, Span::Each, stop);
            self.spawn(Stage::Deciders, "recover", async move {
                let tenure = move |held, folded| role.clone().run(held, folded);
                seat.serve(tenure).await.context("recoveries")
            });
        }
    }

    fn seat(
        &self,
        role: &'static str,
        group: &'static str,
        topic: Topic,
        span: Span,
        stop: &CancellationToken,
    ) -> Seat {
        let (bus, shutdown, ready) = (self.handle.bus.clone(), stop.clone(), self.readiness.role(role));
        Seat { bus, group, topic, span, drain_within: self.config.recover.drain_within, shutdown, ready }
    }

    /// Waits until every role is ready.
    pub(crate) async fn ready(&self) {
        while !self.readiness.waiting().is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Ends when a role does, which it should not: answers why.
    pub(crate) async fn failed(&mut self) -> anyhow::Error {
        match self.tasks.join_next().await {
            None => anyhow!("no role runs"),
            Some(Err(panicked)) => anyhow!("a role panicked: {panicked}"),
            Some(Ok((stage, name, result))) => {
                *self.running.entry(stage).or_default() -= 1;
                result.err().unwrap_or_else(|| anyhow!("the role {name} ended by itself"))
            }
        }
    }

    /// Stops stage by stage, writes down what is on the bus, and closes it.
    pub(crate) async fn stop(mut self) -> Result<()> {
        let drain_within = self.config.recover.drain_within;
        for stage in [Stage::Sources, Stage::Deciders, Stage::Log, Stage::Http] {
            if stage == Stage::Log && self.has(Role::Log) {
                drained(&self.handle.bus).await;
            }
            self.stops[&stage].cancel();
            let ended = async {
                while self.running.get(&stage).is_some_and(|count| *count > 0) {
                    match self.tasks.join_next().await {
                        Some(Ok((stage, name, result))) => {
                            *self.running.entry(stage).or_default() -= 1;
                            result.with_context(|| format!("while stopping the role {name}"))?;
                        }
                        Some(Err(panicked)) => bail!("a role panicked: {panicked}"),
                        None => break,
                    }
                }
                Ok(())
            };
            let patience = if stage == Stage::Deciders { PATIENCE + drain_within } else { PATIENCE };
            match tokio::time::timeout(patience, ended).await {
                Ok(result) => result?,
                Err(_) => bail!("the stage {stage:?} did not end within {} s", patience.as_secs()),
            }
        }
        self.handle.bus.close().await?;
        Ok(())
    }
}

/// How many of the bus's records the log has, and how many there are.
pub(crate) async fn written(bus: &Arc<dyn EventBus>) -> Result<(u64, u64), BusError> {
    let (mut written, mut all) = (0, 0);
    for topic in Topic::ALL {
        for number in 0..bus.partitions() {
            let partition = Partition::of(topic, number);
            let marks = bus.watermarks(partition).await?;
            let at = bus.committed(event_log::GROUP, partition).await?.unwrap_or(marks.low).max(marks.low);
            written += u64::try_from(at - marks.low).unwrap_or(0);
            all += u64::try_from(marks.high - marks.low).unwrap_or(0);
        }
    }
    Ok((written, all))
}

/// Waits until the log has everything that is on the bus, for a bounded time: what is left stays on the bus.
async fn drained(bus: &Arc<dyn EventBus>) {
    let caught_up = async {
        while let Ok((written, all)) = written(bus).await
            && written < all
        {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    if tokio::time::timeout(Duration::from_secs(10), caught_up).await.is_err() {
        tracing::info!("the log writer is behind: what it has not written stays on the bus");
    }
}

/// Opens the bus that the settings name.
pub(crate) async fn open_bus(config: &Config) -> Result<Arc<dyn EventBus>> {
    Ok(match config.bus.kind {
        BusKind::Embedded => {
            let mut settings = EmbeddedSettings::new(config.data.join("bus"));
            settings.partitions = config.bus.partitions;
            settings.retention.max_age = config.bus.retention;
            Arc::new(EmbeddedBus::open(settings).await?)
        }
        BusKind::Kafka => {
            let mut settings = KafkaSettings::new(&config.kafka.brokers);
            settings.prefix.clone_from(&config.kafka.prefix);
            settings.partitions = config.bus.partitions;
            settings.replication = config.kafka.replication;
            settings.session_timeout_ms = u64::try_from(config.kafka.session_timeout.as_millis()).unwrap_or(u64::MAX);
            settings.properties.clone_from(&config.kafka.properties);
            Arc::new(KafkaBus::connect(settings).await?)
        }
    })
}
