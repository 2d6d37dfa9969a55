//! `rebound failover` and `rebound failback`: moves the load of a site or a service, by the plan's own procedure.
//!
//! A running Rebound is asked: it says what the move would be and refuses one that may not begin. What is printed
//! while it runs is its course; ending the command does not end the move.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use rebound_alerting::moves::Course;
use rebound_schemas::{EventId, ProcedureId, SiteId};
use serde::de::DeserializeOwned;

use super::emit::{Target, client};
use crate::cli::Done;
use crate::roles::moves::{Ahead, Answer, Asked, Wanted};

/// How often its course is asked for.
const ASK_EVERY: Duration = Duration::from_millis(300);
/// A request that nobody answers for so long is told of.
const ANSWERED_WITHIN: Duration = Duration::from_secs(60);

/// What to move, where, and why.
#[derive(Debug, Clone, Args)]
pub(crate) struct Move {
    /// A site or a service of the plan.
    what: String,
    /// The site that takes the load.
    #[arg(long)]
    to: SiteId,
    /// Why.
    #[arg(long)]
    comment: String,
    /// Who asks for it.
    #[arg(long, env = "USER")]
    by: String,
    /// The procedure, where several of the plan make this move.
    #[arg(long)]
    procedure: Option<ProcedureId>,
    /// Say what would be done and whether it may begin, and do nothing.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    target: Target,
}

pub(crate) async fn failover(asked: Move, back: bool) -> Result<Done> {
    let client = client(asked.target.token_file())?;
    let url = asked.target.url().trim_end_matches('/');
    let Move { what, to, comment, by, procedure, dry_run, .. } = asked.clone();
    let asked = Asked { wanted: Wanted { what, to, back, procedure }, by, comment, dry_run };
    let request = client.post(format!("{url}/api/v1/move")).json(&asked);
    let Answer { ahead, error, request } = answer(request.send().await, url).await?;
    if let Some(ahead) = &ahead {
        show(ahead, back, dry_run);
    }
    let Some(id) = request else {
        bail!("refused: {}", error.unwrap_or_else(|| format!("{url} gave no reason")));
    };
    println!("asked for, as {id}");
    let succeeded = follow(&client, url, &id).await?;
    let ready = ahead.is_some_and(|ahead| ahead.readiness.iter().all(|check| check.held));
    Ok(if succeeded && ready { Done::Good } else { Done::Faults })
}

fn show(ahead: &Ahead, back: bool, steps: bool) {
    let Ahead { procedure, carrier, from, to, .. } = ahead;
    let what = if back { "failback" } else { "failover" };
    let services: Vec<&str> = ahead.services.iter().map(|service| service.as_str()).collect();
    println!("{what} from {from} to {to} by procedure {procedure}, as a recovery of {carrier}");
    println!("it moves, in start order: {}", services.join(", "));
    for check in &ahead.readiness {
        let held = if check.held { "yes" } else { "NO " };
        println!("  {held} {:<11} {}", check.name, check.detail);
    }
    if steps {
        println!("its steps:");
        let width = ahead.steps.iter().map(|step| step.step.len()).max().unwrap_or_default();
        for (number, step) in (1..).zip(&ahead.steps) {
            println!("  {number:>3} {:<width$}  {}", step.step, step.action);
        }
    }
}

/// Prints what becomes of a request until its end; whether it went well.
async fn follow(client: &reqwest::Client, url: &str, id: &EventId) -> Result<bool> {
    let (mut told, mut waited) = (0, Duration::ZERO);
    loop {
        // Not known yet is no fault: the request is on its way.
        let asked = client.get(format!("{url}/api/v1/requests/{id}")).send().await;
        let course: Option<Course> = answer(asked, url).await.ok();
        if let Some(course) = course {
            for line in course.lines.iter().skip(told) {
                println!("{line}");
            }
            told = told.max(course.lines.len());
            if let Some(succeeded) = course.succeeded() {
                return Ok(succeeded);
            }
        }
        if told == 0 && waited >= ANSWERED_WITHIN {
            bail!("nobody answered within {} s: does a Rebound with the role alert run?", ANSWERED_WITHIN.as_secs());
        }
        tokio::time::sleep(ASK_EVERY).await;
        waited += ASK_EVERY;
    }
}

/// The body of an answer that this program understands, whatever its status.
async fn answer<T: DeserializeOwned>(answer: reqwest::Result<reqwest::Response>, url: &str) -> Result<T> {
    let answer = answer.with_context(|| format!("{url} does not answer: is `rebound up` running there?"))?;
    let status = answer.status();
    let body = answer.text().await?;
    serde_json::from_str(&body).with_context(|| format!("{url} answered {status}: does it run the role serve?"))
}
