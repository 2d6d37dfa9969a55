//! `rebound recovery`: what recoveries there are, and what a person says of them, to a running Rebound.
//!
//! Nothing is decided here: each word goes through the same door as everybody's (`/api/v1/recoveries`), where it is
//! judged and becomes an event with who and why.

use std::time::Duration;

use anyhow::{Result, bail};
use clap::{Args, Subcommand, ValueEnum};
use rebound_schemas::event::Restraint;
use rebound_schemas::{ProcedureId, RecoveryId, ServiceId, SiteId, StepId, TierId};
use serde_json::{Map, Value, json};

use self::show::{detail, list, text};
use super::door::{Door, escaped};
use super::emit::Target;
use crate::cli::{Done, Output};

mod show;

/// How long a dry run is waited for.
const TOLD_WITHIN: Duration = Duration::from_secs(30);

/// `rebound recovery`
#[derive(Debug, Clone, Args)]
pub(crate) struct Recovery {
    #[command(flatten)]
    target: Target,
    #[command(subcommand)]
    word: Word,
}

#[derive(Debug, Clone, Subcommand)]
enum Word {
    /// What is withheld, waits, runs and ended lately; requests that became nothing, pauses, demoted procedures.
    List {
        /// Only of this service.
        #[arg(long)]
        service: Option<ServiceId>,
        /// Only in this state: withheld, awaiting_approval, paused, queued, awaiting_step, running, stopping or finished.
        #[arg(long)]
        state: Option<String>,
        /// Recoveries at most, those that have not ended first.
        #[arg(long, default_value_t = 30)]
        limit: usize,
        #[arg(short, long, value_enum, default_value = "table")]
        output: Output,
    },
    /// One recovery with its steps and what was said of it.
    Show {
        recovery: RecoveryId,
        #[arg(short, long, value_enum, default_value = "table")]
        output: Output,
    },
    /// Ask for a recovery now. It keeps to budgets, back-off and limits like any other.
    Run {
        /// A service, or a procedure that one service has.
        #[arg(value_name = "SERVICE|PROCEDURE")]
        target: String,
        /// The service, where the procedure alone does not say it.
        #[arg(long)]
        service: Option<ServiceId>,
        /// The procedure, where it is not the service's own.
        #[arg(long)]
        procedure: Option<ProcedureId>,
        /// A value for an input of the procedure; may be given several times.
        #[arg(long = "input", value_name = "NAME=VALUE", value_parser = input)]
        inputs: Vec<(String, String)>,
        /// Tell every step with its texts filled in, and execute none.
        #[arg(long)]
        dry_run: bool,
        /// What shall not hold it back; may be given several times. It is kept with the event.
        #[arg(long, value_enum, value_name = "LIMIT")]
        force: Vec<Force>,
        /// Print its course until it ends. Ending this command does not end the recovery.
        #[arg(long)]
        wait: bool,
        #[command(flatten)]
        why: Why,
    },
    /// Let a recovery that waits for approval run, or one step of it go on.
    Approve {
        recovery: RecoveryId,
        /// The step that may go on.
        #[arg(long)]
        step: Option<StepId>,
        /// What you have to say.
        #[arg(long, alias = "reason")]
        comment: Option<String>,
        #[command(flatten)]
        who: Who,
    },
    /// Refuse a recovery that waits for approval: it never runs.
    Reject {
        recovery: RecoveryId,
        #[command(flatten)]
        why: Why,
    },
    /// Call off a recovery: one that has begun ends after its step, and rolls back if its procedure says so.
    Cancel {
        recovery: RecoveryId,
        /// Kill the step that runs.
        #[arg(long)]
        now: bool,
        #[command(flatten)]
        why: Why,
    },
    /// Let no recovery begin until `resume`; running ones go on.
    Pause {
        #[command(flatten)]
        scope: Scope,
        /// It ends by itself after this, as in `2h`.
        #[arg(long = "for", value_name = "TIME")]
        length: Option<String>,
        #[command(flatten)]
        why: Why,
    },
    /// End the pause of exactly this scope: what waits is decided by what is so now.
    Resume {
        #[command(flatten)]
        scope: Scope,
        #[command(flatten)]
        why: Why,
    },
    /// Let a demoted procedure run by itself again: what it did before counts no more.
    Promote {
        procedure: ProcedureId,
        #[command(flatten)]
        why: Why,
    },
}

#[derive(Debug, Clone, Args)]
struct Who {
    /// Who says so. Where tokens have names, the token's name counts, and this is quoted beside it.
    #[arg(long, env = "USER", hide_env_values = true)]
    by: Option<String>,
    /// Saying the same again under the same key does nothing, and answers as before.
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
}

#[derive(Debug, Clone, Args)]
struct Why {
    /// Why: it is kept with the event.
    #[arg(long, alias = "reason")]
    comment: String,
    #[command(flatten)]
    who: Who,
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
}

/// What a recovery may be forced past.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Force {
    /// How many recoveries the policy allows within a period.
    Intensity,
    /// The wait after the last one.
    Backoff,
    /// Recoveries at the same time.
    Concurrency,
    /// A pause.
    Pause,
    /// Recoveries of what it depends on.
    Dependencies,
}

impl From<Force> for Restraint {
    fn from(force: Force) -> Self {
        match force {
            Force::Intensity => Self::Intensity,
            Force::Backoff => Self::Backoff,
            Force::Concurrency => Self::Concurrency,
            Force::Pause => Self::Pause,
            Force::Dependencies => Self::Dependencies,
        }
    }
}

fn input(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').ok_or_else(|| "write it as NAME=VALUE".to_owned())?;
    Ok((pair.0.to_owned(), pair.1.to_owned()))
}

pub(crate) async fn recovery(command: Recovery) -> Result<Done> {
    let door = Door::new(&command.target)?;
    match command.word {
        Word::List { service, state, limit, output } => {
            let mut query = vec![("limit", limit.to_string())];
            query.extend(service.map(|service| ("service", service.to_string())));
            query.extend(state.map(|state| ("state", state)));
            let query: Vec<String> = query.iter().map(|(key, value)| format!("{key}={}", escaped(value))).collect();
            let answer = door.get(&format!("/api/v1/recoveries?{}", query.join("&"))).await?;
            print(&answer, output, list)
        }
        Word::Show { recovery, output } => {
            let answer = door.get(&format!("/api/v1/recoveries/{}", escaped(recovery.as_str()))).await?;
            print(&answer, output, detail)
        }
        Word::Run { target, service, procedure, inputs, dry_run, force, wait, why } => {
            let force: Vec<Restraint> = force.into_iter().map(Into::into).collect();
            let inputs: Map<String, Value> = inputs.into_iter().map(|(name, value)| (name, value.into())).collect();
            let body = json!({
                "target": target, "service": service, "procedure": procedure, "inputs": inputs, "dry_run": dry_run,
                "force": force, "comment": why.comment,
            });
            let answer = say(&door, "/api/v1/recoveries", body, &why.who).await?;
            match answer["recovery"].as_str() {
                Some(recovery) if dry_run => return told(&door, recovery).await,
                Some(recovery) => {
                    let waits = answer["standing"]["waits_for"].as_str().map(|what| format!("; it waits for {what}"));
                    println!("{recovery} was triggered{}", waits.unwrap_or_default());
                }
                None => println!(
                    "{} is asked for, and nobody has decided yet: `rebound recovery list` shows it",
                    text(&answer["request"])
                ),
            }
            if !wait {
                return Ok(Done::Good);
            }
            let succeeded = door.follow(&text(&answer["request"]).parse()?).await?;
            Ok(if succeeded { Done::Good } else { Done::Faults })
        }
        Word::Approve { recovery, step, comment, who } => {
            let done = match &step {
                Some(step) => format!("{recovery}: step {step} may go on"),
                None => format!("{recovery} is approved"),
            };
            let path = path_of(&recovery, "approve");
            let answer = say(&door, &path, json!({ "step": step, "comment": comment }), &who).await?;
            done_by(&answer, &done)
        }
        Word::Reject { recovery, why } => {
            let answer = say(&door, &path_of(&recovery, "reject"), json!({ "comment": why.comment }), &why.who).await?;
            done_by(&answer, &format!("{recovery} is refused and never runs"))
        }
        Word::Cancel { recovery, now, why } => {
            let body = json!({ "comment": why.comment, "now": now });
            let answer = say(&door, &path_of(&recovery, "cancel"), body, &why.who).await?;
            done_by(&answer, &format!("{recovery} is called off"))
        }
        Word::Pause { scope, length, why } => {
            let words = words_of(&scope);
            let until = length.as_ref().map_or("until somebody resumes".to_owned(), |length| format!("for {length}"));
            let mut body = scoped(scope, &why);
            body["for"] = length.into();
            let answer = say(&door, "/api/v1/pause", body, &why.who).await?;
            done_by(&answer, &format!("paused: {words}, {until}; what runs goes on"))
        }
        Word::Resume { scope, why } => {
            let words = words_of(&scope);
            let answer = say(&door, "/api/v1/resume", scoped(scope, &why), &why.who).await?;
            done_by(&answer, &format!("resumed: {words}"))
        }
        Word::Promote { procedure, why } => {
            let body = json!({ "procedure": procedure, "comment": why.comment });
            let answer = say(&door, "/api/v1/promote", body, &why.who).await?;
            done_by(&answer, &format!("procedure {procedure} runs by itself again"))
        }
    }
}

/// Says something as somebody.
async fn say(door: &Door, path: &str, mut body: Value, who: &Who) -> Result<Value> {
    body["by"] = who.by.clone().into();
    door.post(path, body, who.idempotency_key.as_deref()).await
}

fn path_of(recovery: &RecoveryId, word: &str) -> String {
    format!("/api/v1/recoveries/{}/{word}", escaped(recovery.as_str()))
}

fn scoped(Scope { site, service, tier, procedure }: Scope, why: &Why) -> Value {
    json!({ "site": site, "service": service, "tier": tier, "procedure": procedure, "comment": why.comment })
}

fn words_of(scope: &Scope) -> String {
    let Scope { site, service, tier, procedure } = scope.clone();
    rebound_alerting::pause::Scope { site, service, tier, procedure }.to_string()
}

fn done_by(answer: &Value, done: &str) -> Result<Done> {
    let before = if answer["repeated"] == true { ", as it was before" } else { "" };
    println!("{done}{before} ({})", text(&answer["event"]));
    Ok(Done::Good)
}

/// Waits for a dry run's end and shows it.
async fn told(door: &Door, recovery: &str) -> Result<Done> {
    let path = format!("/api/v1/recoveries/{}", escaped(recovery));
    let waiting = async {
        loop {
            // It may not be known there yet that it was triggered.
            match door.get::<Value>(&path).await {
                Ok(answer) if answer["state"] == "finished" => return answer,
                _ => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    };
    match tokio::time::timeout(TOLD_WITHIN, waiting).await {
        Ok(answer) => print(&answer, Output::Table, detail),
        Err(_) => bail!(
            "the dry run {recovery} did not end in time: is a Rebound with the role recover running? `rebound recovery \
             show {recovery}` shows how far it is"
        ),
    }
}

fn print(answer: &Value, output: Output, show: impl Fn(&Value)) -> Result<Done> {
    match output {
        Output::Table => show(answer),
        Output::Json => println!("{}", serde_json::to_string_pretty(answer)?),
        Output::Csv | Output::Parquet => bail!("recoveries are shown as table or json: write -o json"),
    }
    Ok(Done::Good)
}
