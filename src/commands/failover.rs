//! `rebound failover` and `rebound failback`: moves the load of a site or a service, by the plan's own procedure.
//!
//! A running Rebound is asked: it says what the move would be and refuses one that may not begin. What is printed
//! while it runs is its course; ending the command does not end the move.

use anyhow::Result;
use clap::Args;
use rebound_schemas::{ProcedureId, SiteId};
use serde_json::json;

use super::door::{Door, Refused};
use super::emit::Target;
use crate::cli::Done;
use crate::roles::moves::{Ahead, Answer, Asked, Wanted};

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
    /// Who asks for it. Where tokens have names, the token's name counts, and this is quoted beside it.
    #[arg(long, env = "USER", hide_env_values = true)]
    by: Option<String>,
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
    let door = Door::new(&asked.target)?;
    let Move { what, to, comment, by, procedure, dry_run, .. } = asked;
    let asked = Asked { wanted: Wanted { what, to, back, procedure }, by, comment: Some(comment), dry_run };
    let Answer { ahead, request, .. } = match door.post("/api/v1/move", json!(asked), None).await {
        Ok(answer) => answer,
        Err(error) => {
            let refused = error.downcast_ref::<Refused>();
            if let Some(ahead) = refused.and_then(|no| serde_json::from_value(no.problem["ahead"].clone()).ok()) {
                show(&ahead, back, dry_run);
            }
            return Err(error);
        }
    };
    show(&ahead, back, dry_run);
    println!("asked for, as {request}");
    let succeeded = door.follow(&request).await?;
    let ready = ahead.readiness.iter().all(|check| check.held);
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
