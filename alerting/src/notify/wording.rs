//! What a message says in words. Who is woken by it at night must learn from it, without looking anywhere else: what
//! happened, where, since when, what Rebound does about it, and what is left for a person to do.
//!
//! | transition | an outage | what a condition warns of |
//! |---|---|---|
//! | raised | `db has failed at primary` | `warning for db at primary: the newest good backup is 2h old` |
//! | repeated | `db is still failing at primary, for 2h` | `warning for db at primary, for 2h: …` |
//! | unacknowledged | `db has failed at primary, and nobody has taken it for 15m` | `nobody has taken the warning for db at primary for 15m: …` |
//! | acknowledged | `ann has taken the failure of db at primary` | `ann has taken the warning for db at primary` |
//! | escalated | `db at primary needs you: Rebound could not bring it back` | – |
//! | demoted | `db at primary needs your yes from now on: its procedure was demoted` | – |
//! | resolved | `db has recovered at primary, after 3m 20s` | `the warning for db at primary is over, after 2h` |

use chrono::{DateTime, TimeDelta, Utc};
use rebound_schemas::event::{ProcedureDemoted, RecoveryStage, Severity, Standing, Transition, TriggerMode};
use rebound_schemas::plan::Plan;

use super::notice::{Member, Notice};
use crate::condition::percent;

/// Members that a group's title names; the others are counted.
const NAMED: usize = 3;
/// Members that a group's message has a line about; the others are counted.
const LISTED: usize = 20;
/// Members whose every detail a group's message tells.
const DETAILED: usize = 3;

/// A time for people: to the second, in UTC.
pub(crate) fn moment(at: DateTime<Utc>) -> String {
    at.format("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// A length of time for people, in its two largest units: `2d 4h`, `3m 20s`, `0s`.
pub(crate) fn lasting(length: TimeDelta) -> String {
    let mut left = length.num_seconds().max(0);
    let mut parts = Vec::new();
    for (unit, seconds) in [("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)] {
        if left >= seconds {
            parts.push(format!("{}{unit}", left / seconds));
            left %= seconds;
        } else if !parts.is_empty() {
            // Only neighbouring units: nobody needs the seconds of two days.
            break;
        }
        if parts.len() == 2 {
            break;
        }
    }
    if parts.is_empty() { "0s".to_owned() } else { parts.join(" ") }
}

impl Member {
    /// How long it had lasted when this change happened; of what is over, in all.
    #[must_use]
    pub fn lasted(&self) -> String {
        lasting(self.recovered_at.unwrap_or(self.at) - self.first_failure_at)
    }

    /// The service with what else it is called and where it runs: `Database (db), tier-1, at primary`.
    #[must_use]
    pub fn place(&self) -> String {
        let mut place = match self.name == self.service.as_str() {
            true => self.name.clone(),
            false => format!("{} ({})", self.name, self.service),
        };
        if !self.tier.is_empty() {
            place += &format!(", {}", self.tier);
        }
        if !self.site.is_empty() {
            place += &format!(", at {}", self.site);
        }
        place
    }

    /// The title of this change: see the module.
    pub(super) fn headline(&self) -> String {
        let service = &self.service;
        let at = if self.site.is_empty() { String::new() } else { format!(" at {}", self.site) };
        let (lasted, reason) = (self.lasted(), &self.reason);
        if self.condition.is_some() {
            let warning = format!("warning for {service}{at}");
            return match self.told.transition {
                Transition::Raised | Transition::Escalated | Transition::Demoted => format!("{warning}: {reason}"),
                Transition::Repeated => format!("{warning}, for {lasted}: {reason}"),
                Transition::Unacknowledged => format!("nobody has taken the {warning} for {lasted}: {reason}"),
                Transition::Acknowledged => format!("{} has taken the {warning}", self.taken_by()),
                Transition::Resolved => format!("the {warning} is over, after {lasted}"),
            };
        }
        match self.told.transition {
            Transition::Raised => format!("{service} has failed{at}"),
            Transition::Repeated => format!("{service} is still failing{at}, for {lasted}"),
            Transition::Unacknowledged => format!("{service} has failed{at}, and nobody has taken it for {lasted}"),
            Transition::Acknowledged => format!("{} has taken the failure of {service}{at}", self.taken_by()),
            Transition::Escalated => format!("{service}{at} needs you: Rebound could not bring it back"),
            Transition::Demoted => format!("{service}{at} needs your yes from now on: its procedure was demoted"),
            Transition::Resolved => format!("{service} has recovered{at}, after {lasted}"),
        }
    }

    fn taken_by(&self) -> &str {
        self.by.as_deref().unwrap_or("somebody")
    }

    /// What Rebound does about it.
    pub(super) fn standing(&self, plan: &Plan, standing: Option<&Standing>) -> String {
        let named = |standing: &Standing| {
            format!("procedure {} ({}, attempt {})", standing.procedure, standing.recovery, standing.attempt)
        };
        if self.condition.is_some() {
            return match self.told.transition {
                Transition::Resolved => String::new(),
                _ => "Nothing has failed yet, so Rebound runs no procedure.".to_owned(),
            };
        }
        if self.told.transition == Transition::Resolved {
            return match standing.map(|standing| (standing.stage, named(standing))) {
                Some((RecoveryStage::Succeeded, named)) => format!("Rebound's {named} brought it back."),
                Some((RecoveryStage::Running, named)) => {
                    format!("It came back while Rebound's {named} was at work on it.")
                }
                _ => "It came back without Rebound: by itself, or by hand.".to_owned(),
            };
        }
        if self.told.transition == Transition::Escalated {
            return match standing {
                Some(standing) => format!("Rebound has stopped trying; the last try was {}.", named(standing)),
                None => "Rebound has stopped trying.".to_owned(),
            };
        }
        let Some(standing) = standing else {
            let policy = plan.policies().get(&self.policy);
            let procedure = plan.services().get(&self.service).and_then(|service| service.procedure.as_ref());
            return match (policy.map(|policy| policy.trigger), procedure) {
                (Some(TriggerMode::Off), _) => {
                    format!("Rebound does nothing: policy {} triggers no recovery.", self.policy)
                }
                (_, None) => "Rebound does nothing: the plan has no procedure for it.".to_owned(),
                (_, Some(procedure)) => format!("Rebound has not begun procedure {procedure} yet."),
            };
        };
        let named = named(standing);
        let ended = matches!(standing.stage, RecoveryStage::Failed | RecoveryStage::Interrupted);
        if self.told.transition == Transition::Demoted && ended {
            return format!("Rebound's {named} was the last that ran by itself; the next waits for your yes.");
        }
        match standing.stage {
            RecoveryStage::Waiting => format!("Rebound waits for your yes to run {named}."),
            RecoveryStage::Triggered => match standing.not_before.filter(|at| *at > self.at) {
                Some(at) => format!("Rebound runs {named}, not before {}.", moment(at)),
                None => format!("Rebound runs {named}."),
            },
            RecoveryStage::Running => format!("Rebound is running {named}."),
            RecoveryStage::Succeeded => {
                format!("Rebound ran {named}, and it was verified; the service has yet to stay well.")
            }
            RecoveryStage::Failed => format!("Rebound's {named} failed; it tries again, or tells you that it gave up."),
            RecoveryStage::Interrupted => {
                format!("Rebound's {named} was interrupted: what it did is not known, and it is not run again.")
            }
            RecoveryStage::Cancelled => format!("Rebound's {named} was called off."),
        }
    }

    /// What a person must do, if anything.
    pub(super) fn request(&self, plan: &Plan, standing: Option<&Standing>) -> String {
        let by_hand = || {
            let service = plan.services().get(&self.service);
            match service.and_then(|service| service.procedure.as_ref()) {
                Some(procedure) => format!("Bring {} back by hand; its procedure is {procedure}.", self.service),
                None => format!("Bring {} back by hand.", self.service),
            }
        };
        match (self.told.transition, &self.condition, standing) {
            (Transition::Resolved | Transition::Acknowledged, ..) => String::new(),
            (_, Some(_), _) => format!("Look after {} before it fails.", self.service),
            (Transition::Escalated, None, _) => by_hand(),
            (Transition::Demoted, None, standing) => {
                let known = plan.services().get(&self.service).and_then(|service| service.procedure.as_ref());
                let procedure = standing.map(|standing| &standing.procedure).or(known);
                let procedure = procedure.map_or("PROCEDURE", |procedure| procedure.as_str());
                format!(
                    "See what waits (rebound recovery list) and say yes or no to it; when {procedure} is mended: rebound \
                     recovery promote {procedure} --comment WHY"
                )
            }
            (_, None, Some(standing)) => match standing.stage {
                RecoveryStage::Waiting => format!(
                    "Say yes: rebound recovery approve {0} (or no: rebound recovery reject {0} --comment WHY)",
                    standing.recovery
                ),
                RecoveryStage::Interrupted | RecoveryStage::Cancelled => by_hand(),
                _ => String::new(),
            },
            (_, None, None) => {
                let policy = plan.policies().get(&self.policy);
                let service = plan.services().get(&self.service);
                let triggers = policy.is_some_and(|policy| policy.trigger != TriggerMode::Off);
                match triggers && service.is_some_and(|service| service.procedure.is_some()) {
                    true => String::new(),
                    false => by_hand(),
                }
            }
        }
    }

    /// How to take it, while that means something.
    fn take(&self) -> Option<String> {
        match self.told.transition {
            Transition::Resolved | Transition::Acknowledged => None,
            _ => Some(format!(
                "rebound emit --kind incident.acknowledged --service {} --payload '{{\"incident\":\"{}\",\"by\":\"YOU\"}}'",
                self.service, self.told.incident
            )),
        }
    }

    fn details(&self) -> String {
        let over = self.told.transition == Transition::Resolved;
        let mut lines = vec![
            format!("What:    {}{}", if over { "it was: " } else { "" }, self.reason),
            format!("Where:   {}", self.place()),
        ];
        lines.push(match self.recovered_at.filter(|_| over) {
            Some(end) => format!(
                "Since:   {}, until {} ({})",
                moment(self.first_failure_at),
                moment(end),
                lasting(end - self.first_failure_at)
            ),
            None => format!("Since:   {} ({} by now)", moment(self.first_failure_at), self.lasted()),
        });
        if !self.doing.is_empty() {
            lines.push(format!("Action:  {}", self.doing));
        }
        let idle = if over || self.told.transition == Transition::Acknowledged {
            "Nothing."
        } else {
            "Nothing yet: you are told when it is over, or needs you."
        };
        lines.push(format!("To do:   {}", if self.ask.is_empty() { idle } else { &self.ask }));
        if let Some(take) = self.take() {
            lines.push(format!("Take it: {take}"));
        }
        lines.join("\n")
    }

    fn line(&self) -> String {
        let over = self.told.transition == Transition::Resolved;
        // A warning's title says what was seen.
        let reason = if over || self.condition.is_some() { String::new() } else { format!(": {}", self.reason) };
        let doing = if self.condition.is_some() { String::new() } else { format!(" {}", self.doing) };
        let since = if over { String::new() } else { format!(" (since {})", moment(self.first_failure_at)) };
        format!("[{}] {}{reason}{since}.{doing}", self.severity, self.title)
    }
}

impl Notice {
    /// One line: what happened, to which services, where.
    #[must_use]
    pub fn title(&self) -> String {
        match self.members.as_slice() {
            [only] => only.title.clone(),
            members => group_title(members),
        }
    }

    /// The message in plain lines.
    #[must_use]
    pub fn body(&self) -> String {
        let [_, _, ..] = self.members.as_slice() else { return self.first().details() };
        let members = &self.members;
        if members.len() <= DETAILED {
            let each: Vec<String> = members.iter().map(|one| format!("{}\n{}", one.title, one.details())).collect();
            return each.join("\n\n");
        }
        let mut lines: Vec<String> = members.iter().take(LISTED).map(Member::line).collect();
        if members.len() > LISTED {
            lines.push(format!("and {} more", members.len() - LISTED));
        }
        let asks: Vec<&str> = members.iter().map(|one| one.ask.as_str()).filter(|ask| !ask.is_empty()).collect();
        lines.push(String::new());
        lines.push("To do:".to_owned());
        lines.extend(asks.iter().take(LISTED).map(|ask| format!("- {ask}")));
        match asks.len() {
            0 => lines.push("- Nothing yet: you are told what is over, and what needs you.".to_owned()),
            n if n > LISTED => lines.push(format!("- and {} more", n - LISTED)),
            _ => {}
        }
        if let Some(take) = members.iter().find_map(Member::take) {
            lines.push(format!("Take one, as the first: {take}"));
        }
        lines.join("\n")
    }

    /// What was seen, a line a member.
    #[must_use]
    pub fn reason(&self) -> String {
        if let [only] = self.members.as_slice() {
            return only.reason.clone();
        }
        let mut lines: Vec<String> =
            self.members.iter().take(LISTED).map(|one| format!("{}: {}", one.title, one.reason)).collect();
        if self.members.len() > LISTED {
            lines.push(format!("and {} more", self.members.len() - LISTED));
        }
        lines.join("\n")
    }

    /// The loudest member's severity.
    #[must_use]
    pub fn severity(&self) -> Severity {
        // `Severity` is declared from loud to quiet.
        self.members.iter().map(|member| member.severity).min().unwrap_or(Severity::Critical)
    }
}

/// `procedure restore worked in 1 of 3 recoveries, and at least 80 % of 5 must`.
pub(super) fn demotion(data: &ProcedureDemoted) -> String {
    let ProcedureDemoted { procedure, succeeded, attempts, below, over, .. } = data;
    let least = percent(*below);
    format!(
        "procedure {procedure} worked in {succeeded} of {attempts} recoveries, and at least {least} % of {over} must"
    )
}

/// One, several, and which members are meant.
type Counted = (&'static str, &'static str, fn(&Member) -> bool);

/// `3 have failed at primary: api, db, web; 1 has recovered: cache`.
fn group_title(members: &[Member]) -> String {
    let kinds: [Counted; 9] = [
        ("has failed", "have failed", |m| m.condition.is_none() && m.told.transition == Transition::Raised),
        ("needs you", "need you", |m| m.condition.is_none() && m.told.transition == Transition::Escalated),
        ("needs your yes", "need your yes", |m| m.told.transition == Transition::Demoted),
        ("is not taken", "are not taken", |m| m.told.transition == Transition::Unacknowledged),
        ("is still failing", "are still failing", |m| {
            m.condition.is_none() && m.told.transition == Transition::Repeated
        }),
        ("warning", "warnings", |m| {
            m.condition.is_some()
                && matches!(m.told.transition, Transition::Raised | Transition::Repeated | Transition::Escalated)
        }),
        ("was taken", "were taken", |m| m.told.transition == Transition::Acknowledged),
        ("has recovered", "have recovered", |m| m.condition.is_none() && m.told.transition == Transition::Resolved),
        ("warning is over", "warnings are over", |m| {
            m.condition.is_some() && m.told.transition == Transition::Resolved
        }),
    ];
    let sites: std::collections::BTreeSet<&str> = members.iter().map(|member| member.site.as_str()).collect();
    let at = match sites.iter().next() {
        Some(site) if sites.len() == 1 && !site.is_empty() => format!(" at {site}"),
        _ => String::new(),
    };
    let mut parts = Vec::new();
    for (one, many, of) in kinds {
        let names: Vec<&str> =
            members.iter().filter(|member| of(member)).map(|member| member.service.as_str()).collect();
        if names.is_empty() {
            continue;
        }
        let more = match names.len().saturating_sub(NAMED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let words = if names.len() == 1 { one } else { many };
        let shown = names.iter().take(NAMED).copied().collect::<Vec<_>>().join(", ");
        parts.push(format!("{} {words}{at}: {shown}{more}", names.len()));
    }
    parts.join("; ")
}
