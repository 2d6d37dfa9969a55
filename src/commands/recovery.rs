//! `rebound recovery`: what a person says about recoveries, sent as events to a running Rebound.
//!
//! Nothing is decided here. The events go the way of `rebound emit`, and the recover role acts on them. Approving,
//! refusing or calling off the same recovery twice is one event; a pause has an id of its own each time.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use clap::{Args, Subcommand};
use rebound_schemas::event::{
    ProcedurePromoted, RecoveryApproved, RecoveryCancelled, RecoveryPaused, RecoveryRejected, RecoveryResumed,
};
use rebound_schemas::{
    Event, EventData, EventId, ProcedureId, RecoveryId, ServiceId, SiteId, Source, StepId, TierId, codec,
};
use serde_json::Value;

use super::emit::{client, send};
use crate::cli::{Common, Done};

/// The `source` of these events.
const SOURCE: &str = "rebound-recovery";
/// The subject of what concerns no single service.
const EVERYTHING: &str = "automation";

/// `rebound recovery`
#[derive(Debug, Clone, Args)]
pub(crate) struct Recovery {
    /// The Rebound to tell.
    #[arg(long, global = true, env = "REBOUND_URL", default_value = "http://127.0.0.1:9464")]
    url: String,
    /// File that holds the bearer token.
    #[arg(long, global = true, value_name = "FILE")]
    token_file: Option<PathBuf>,
    #[command(subcommand)]
    word: Word,
}

#[derive(Debug, Clone, Subcommand)]
enum Word {
    /// Let a recovery that waits for approval run, or go on with a step that waits for it.
    Approve {
        recovery: RecoveryId,
        /// Who approves.
        #[arg(long)]
        by: String,
        /// The step that waits (the recovery runs already); without it, the recovery may begin.
        #[arg(long)]
        step: Option<StepId>,
        /// The recovery's service; asked of the running Rebound when absent.
        #[arg(long)]
        service: Option<ServiceId>,
    },
    /// Refuse a recovery that waits for approval: it never runs.
    Reject(Refusal),
    /// Call off a recovery: one that has not begun never runs; one that has begins no further step, and rolls back if
    /// its procedure says so.
    Cancel(Refusal),
    /// Let no recovery begin until `resume`; running ones go on.
    Pause {
        #[command(flatten)]
        scope: Scope,
        /// It ends by itself after this, as in `2h`.
        #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration)]
        length: Option<Duration>,
    },
    /// Let a demoted procedure run by itself again: what it did before counts no more.
    Promote {
        procedure: ProcedureId,
        /// Who says so.
        #[arg(long)]
        by: String,
        /// Why: what was mended.
        #[arg(long)]
        comment: String,
    },
    /// End the pause of exactly this scope: what waits is decided by what is so now.
    Resume {
        #[command(flatten)]
        scope: Scope,
    },
}

#[derive(Debug, Clone, Args)]
struct Refusal {
    recovery: RecoveryId,
    /// Who says so.
    #[arg(long)]
    by: String,
    /// Why.
    #[arg(long)]
    reason: String,
    /// The recovery's service; asked of the running Rebound when absent.
    #[arg(long)]
    service: Option<ServiceId>,
}

#[derive(Debug, Clone, Args)]
struct Scope {
    /// Only services of this site.
    #[arg(long, conflicts_with = "service")]
    site: Option<SiteId>,
    /// Only this service.
    #[arg(long)]
    service: Option<ServiceId>,
    /// Only services of this tier.
    #[arg(long, conflicts_with = "service")]
    tier: Option<TierId>,
    /// Only recoveries by this procedure.
    #[arg(long)]
    procedure: Option<ProcedureId>,
    /// Who says so.
    #[arg(long)]
    by: String,
    /// Why.
    #[arg(long)]
    reason: String,
}

impl Scope {
    /// A scope that the plan in the settings does not have is refused: its pause would stop nothing. Without a plan
    /// at hand it is taken as it stands, and the alert role says if it knows no such thing.
    fn check(&self, common: &Common) -> Result<()> {
        let Self { site, service, tier, procedure, .. } = self.clone();
        let scope = rebound_alerting::pause::Scope { site, service, tier, procedure };
        named(common, scope).context("nothing was paused")
    }
}

/// Refuses names that the plan in the settings does not have.
fn named(common: &Common, scope: rebound_alerting::pause::Scope) -> Result<()> {
    let Some(plan) = common.settings()?.plan else { return Ok(()) };
    let plan = super::check::load_plan(&plan)?;
    scope.fault(&plan).map_or(Ok(()), |fault| Err(anyhow!(fault)))
}

pub(crate) async fn recovery(command: Recovery, common: &Common) -> Result<Done> {
    let client = client(command.token_file.as_deref())?;
    let url = command.url.trim_end_matches('/');
    let now = Utc::now().trunc_subsecs(6);
    let (recovery, service, data): (Option<RecoveryId>, Option<ServiceId>, EventData) = match command.word {
        Word::Approve { recovery, by, service, step } => {
            (Some(recovery.clone()), service, RecoveryApproved { recovery, by, step, comment: None }.into())
        }
        Word::Reject(Refusal { recovery, by, reason, service }) => {
            (Some(recovery.clone()), service, RecoveryRejected { recovery, by, reason }.into())
        }
        Word::Cancel(Refusal { recovery, by, reason, service }) => {
            (Some(recovery.clone()), service, RecoveryCancelled { recovery, by, reason, now: false }.into())
        }
        Word::Pause { scope, length } => {
            scope.check(common)?;
            let Scope { site, service, tier, procedure, by, reason } = scope;
            let until = length.map(|length| end_of(now, length)).transpose()?;
            (None, service.clone(), RecoveryPaused { site, service, tier, procedure, until, by, reason }.into())
        }
        Word::Promote { procedure, by, comment } => {
            named(common, rebound_alerting::pause::Scope { procedure: Some(procedure.clone()), ..Default::default() })
                .context("nothing was promoted")?;
            (None, None, ProcedurePromoted { procedure, by, comment }.into())
        }
        Word::Resume { scope: Scope { site, service, tier, procedure, by, reason } } => {
            (None, service.clone(), RecoveryResumed { site, service, tier, procedure, by, reason }.into())
        }
    };
    let subject = match (&recovery, service) {
        (_, Some(service)) => service,
        (Some(recovery), None) => service_of(&client, url, recovery).await?,
        (None, None) => ServiceId::new(EVERYTHING)?,
    };
    let kind = data.kind().as_str();
    let id = match (&recovery, &data) {
        (Some(recovery), EventData::RecoveryApproved(RecoveryApproved { step: Some(step), .. })) => {
            EventId::derive(recovery.as_str(), &format!("{kind}-{step}"))
        }
        (Some(recovery), _) => EventId::derive(recovery.as_str(), kind),
        (None, _) => EventId::derive(subject.as_str(), &format!("{kind}-{}", now.timestamp_micros())),
    };
    let event = Event { id, source: Source::new(SOURCE)?, subject, occurred_at: now, plan: None, data };
    let line = String::from_utf8(codec::encode(&event))?;
    let verdicts = send(&client, url, &[line]).await?;
    match verdicts.first() {
        Some(verdict) if verdict["status"] == "accepted" => {
            println!("{kind} is on the bus as {}", event.id);
            Ok(Done::Good)
        }
        verdict => {
            let verdict = verdict.cloned().unwrap_or_default();
            eprintln!("{kind} was rejected: {verdict}");
            Ok(Done::Faults)
        }
    }
}

fn end_of(now: DateTime<Utc>, length: Duration) -> Result<DateTime<Utc>> {
    let end = TimeDelta::from_std(length).ok().and_then(|length| now.checked_add_signed(length));
    end.context("--for is too long: leave it out for a pause that ends by `rebound recovery resume`")
}

/// The service whose newest recovery this is.
async fn service_of(client: &reqwest::Client, url: &str, recovery: &RecoveryId) -> Result<ServiceId> {
    let answer = client.get(format!("{url}/api/v1/services")).send().await;
    let answer = answer.with_context(|| format!("{url} does not answer: is `rebound up` running there?"))?;
    let status = answer.status();
    if !status.is_success() {
        bail!("{url} does not tell its services ({status}): name the recovery's with --service");
    }
    let rows: Vec<Value> = answer.json().await.context("the services can't be read")?;
    let row = rows.iter().find(|row| row["recovery"] == recovery.as_str());
    let service = row.and_then(|row| row["service"].as_str()).with_context(|| {
        format!("{recovery} is the newest recovery of no open incident at {url}: look at {url}/api/v1/services")
    })?;
    Ok(ServiceId::new(service)?)
}
