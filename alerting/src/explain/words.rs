//! Events as sentences, and times and lengths as people read them.

use chrono::{DateTime, TimeDelta, Utc};
use rebound_schemas::event::{
    CheckResult, Outcome, RecoveryWithheld, ServiceLevelMeasured, StepOutcome, Told, TriggerMode, WithheldReason,
};
use rebound_schemas::{Event, EventData};
use serde_json::Value;

use super::choose::payload;
use crate::condition::percent;
use crate::pause::Scope;

/// `10:02:31`, with the day before it where that is another than `beside`'s. UTC.
#[must_use]
pub fn clock(at: DateTime<Utc>, beside: DateTime<Utc>) -> String {
    let day = if at.date_naive() == beside.date_naive() { "" } else { "%Y-%m-%d " };
    at.format(&format!("{day}%H:%M:%S")).to_string()
}

/// `340 ms`, `4.2 s`, `1 min 12 s`, `2 h 5 min`, `3 d 4 h`: as exact as anybody wants to know it.
#[must_use]
pub fn span(length: TimeDelta) -> String {
    let (ms, s) = (length.num_milliseconds().max(0), length.num_seconds().max(0));
    let two = |big: i64, unit: &str, small: i64, of: &str| match small {
        0 => format!("{big} {unit}"),
        small => format!("{big} {unit} {small} {of}"),
    };
    match s {
        _ if ms < 1000 => format!("{ms} ms"),
        0..60 if ms % 1000 == 0 => format!("{s} s"),
        0..60 => format!("{:.1} s", ms as f64 / 1000.0).replace(".0 s", " s"),
        60..3600 => two(s / 60, "min", s % 60, "s"),
        3600..86_400 => two(s / 3600, "h", s % 3600 / 60, "min"),
        _ => two(s / 86_400, "d", s % 86_400 / 3600, "h"),
    }
}

/// The same of milliseconds.
pub(super) fn millis(ms: u64) -> String {
    span(TimeDelta::milliseconds(i64::try_from(ms).unwrap_or(i64::MAX / 2)))
}

/// `1 failure`, `3 failures`.
pub(super) fn count(n: usize, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}

/// Text of people and programs on one line, without control characters, of bounded length.
pub(super) fn line(text: &str) -> String {
    const MOST: usize = 300;
    let mut words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    words.retain(|c| !c.is_control());
    match words.char_indices().nth(MOST) {
        Some((at, _)) => format!("{}…", &words[..at]),
        None => words,
    }
}

fn said(by: &str, why: &str) -> String {
    match line(why).as_str() {
        "" => line(by),
        why => format!("{}: {why}", line(by)),
    }
}

/// Why nothing is done, in words that follow "because" or stand alone.
pub(crate) fn withheld(data: &RecoveryWithheld, at: DateTime<Utc>) -> String {
    let by = data.by.as_deref().map(line).unwrap_or_default();
    let until = data.until.map(|until| format!(" until {}", clock(until, at))).unwrap_or_default();
    let detail = data.detail.as_deref().map(line);
    let with = |text: String| match &detail {
        Some(detail) => format!("{text} ({detail})"),
        None => text,
    };
    match data.reason {
        WithheldReason::Policy | WithheldReason::NoProcedure => {
            detail.unwrap_or_else(|| format!("the plan says so ({})", data.reason))
        }
        WithheldReason::Hold => with(format!("it has not failed for long enough{until}")),
        WithheldReason::Maintenance => format!("the maintenance window {by} covers it{until}"),
        WithheldReason::Silence => format!("the silence {by} covers it{until}"),
        WithheldReason::Dependency => with(format!("{by}, which it depends on, has failed and comes first")),
        WithheldReason::Flapping => with("it flaps".into()),
        WithheldReason::Unobserved => with("nothing was seen of it lately".into()),
        WithheldReason::Answering => with("it answers again".into()),
        WithheldReason::OtherRecovery => with(format!("{by} of the same service comes first")),
        WithheldReason::BackOff => with(format!("it waits{until} (back-off)")),
        WithheldReason::Budget => with("the budget is spent".into()),
        WithheldReason::Interrupted => "the last recovery was interrupted: what it did is not known".into(),
        WithheldReason::Escalated => "automation had given up on the incident".into(),
        WithheldReason::Cancelled => "a person had refused the last recovery or called it off".into(),
        WithheldReason::Approval => with("it waits for approval".into()),
        WithheldReason::Paused => with(format!("{by} paused automation{until}")),
        WithheldReason::DependencyRecovery => with(format!("{by}, which it depends on, is recovered first")),
        WithheldReason::Concurrency => with(format!("as many recoveries run as may: {by}")),
        WithheldReason::BlastRadius => with("too much of the site would be under recovery".into()),
    }
}

fn levels(data: &ServiceLevelMeasured) -> String {
    let mut words = Vec::new();
    words.extend(data.response_time_ms.map(|ms| format!("response time {ms} ms")));
    words.extend(data.throughput_per_second.map(|rate| format!("throughput {rate}/s")));
    words.extend(data.error_rate.map(|rate| format!("error rate {} %", percent(rate))));
    words.extend(data.availability.map(|share| format!("availability {} %", percent(share))));
    words.join(", ")
}

fn told(members: &[Told]) -> String {
    let word = |told: &Told| match told.repeat {
        0 => told.transition.to_string(),
        n => format!("{} {n}", told.transition),
    };
    members.iter().map(word).collect::<Vec<_>>().join(", ")
}

fn failed_checks(checks: &[CheckResult]) -> String {
    let failed: Vec<String> = checks
        .iter()
        .filter(|check| !check.passed)
        .map(|check| match &check.detail {
            Some(detail) => format!("{}: {}", line(&check.name), line(detail)),
            None => line(&check.name),
        })
        .collect();
    failed.join("; ")
}

fn attempt(n: u32) -> String {
    if n > 1 { format!(" (attempt {n})") } else { String::new() }
}

/// 1 for what is part of a recovery's run.
pub(super) fn depth(data: &EventData) -> u8 {
    use EventData as D;
    let part = matches!(
        data,
        D::StepStarted(_) | D::StepFinished(_) | D::StepRequested(_) | D::StepAnswered(_) | D::RecoveryVerified(_)
    );
    u8::from(part)
}

/// One event in words. What has no words of its own is told by its kind and the members of its payload.
pub(super) fn sentence(event: &Event) -> String {
    use EventData as D;
    let at = event.occurred_at;
    match &event.data {
        D::ProbeCompleted(data) => {
            let site = data.site.as_ref().map(|site| format!(" from {site}")).unwrap_or_default();
            let found = match data.outcome {
                Outcome::Healthy => "answered",
                Outcome::Degraded => "answered badly",
                Outcome::Failed => "failed",
            };
            let reason = data.reason.as_deref().map(|reason| format!(": {}", line(reason))).unwrap_or_default();
            format!("probe {}{site} {found}{reason}", data.probe)
        }
        D::ServiceLevelMeasured(data) => format!("measured {}", levels(data)),
        D::ResourceMeasured(data) => {
            format!("measured {} {} % in use", line(&data.resource), percent(data.utilization))
        }
        D::ReplicationMeasured(data) => format!("the copy at {} lags {} s", data.target_site, data.lag_seconds),
        D::BackupFinished(data) => {
            format!("backup {} {}", line(&data.backup), if data.succeeded { "succeeded" } else { "failed" })
        }
        D::BackupVerified(data) => format!(
            "backup {} {}",
            line(&data.backup),
            if data.passed { "can be restored" } else { "can't be restored" }
        ),
        D::CertificateObserved(data) => {
            format!("the certificate of {} is valid until {}", line(&data.subject_name), clock(data.not_after, at))
        }
        D::DeploymentFinished(data) => format!("deployment {} {}", line(&data.deployment), data.outcome),
        D::IncidentOpened(data) => {
            let who =
                data.policy.as_ref().map_or_else(|| "reported".to_owned(), |policy| format!("by policy {policy}"));
            format!("incident opened, {}, {who}: {}", data.severity, line(&data.reason))
        }
        D::AlertRaised(data) => {
            let what = data.condition.as_ref().map_or_else(|| "alert".to_owned(), |c| format!("warning {}", line(c)));
            let n = count(data.failures as usize, "failure");
            format!("{what} raised, {}, after {n}: {}", data.severity, line(&data.reason))
        }
        D::AlertSuppressed(data) => format!("told nobody: {} {}", data.cause, line(&data.by)),
        D::AlertResolved(data) => match data.successes {
            0 => "alert resolved".to_owned(),
            n => format!(
                "alert resolved after {}",
                match n {
                    1 => "1 success".to_owned(),
                    n => format!("{n} successes"),
                }
            ),
        },
        D::IncidentAcknowledged(data) => {
            let comment = data.comment.as_deref().unwrap_or_default();
            format!(
                "{} acknowledged",
                said(&data.by, comment).replacen(": ", " (", 1) + if comment.is_empty() { "" } else { ")" }
            )
        }
        D::IncidentResolved(data) => {
            let by = data.recovery.as_ref().map(|id| format!(", brought back by {id}")).unwrap_or_default();
            format!("incident resolved: well since {}{by}", clock(data.recovered_at, at))
        }
        D::IncidentCorrected(data) => {
            let mut what = Vec::new();
            what.extend(data.first_failure_at.map(|t| format!("first failure at {}", clock(t, at))));
            what.extend(data.recovered_at.map(|t| format!("recovered at {}", clock(t, at))));
            what.extend(data.error_class.map(|class| format!("cause {class}")));
            what.extend(data.cause.as_ref().map(|cause| format!("cause {}", line(cause))));
            what.extend(data.exclude.then(|| "left out of every figure".to_owned()));
            format!("restated by {} as {}", said(&data.by, &data.reason).replacen(": ", " (", 1) + ")", what.join(", "))
        }
        D::NotificationPlanned(data) => {
            format!("to tell {}: {} · key {}", data.channel, told(&data.members), data.dedup_key)
        }
        D::NotificationSent(data) => {
            let what = if data.members.is_empty() { data.transition.to_string() } else { told(&data.members) };
            format!("told {}: {what}{} · key {}", data.channel, attempt(data.attempt), data.dedup_key)
        }
        D::NotificationFailed(data) => format!(
            "could not tell {} after {}: {} · key {}",
            data.channel,
            count(data.attempts as usize, "attempt"),
            line(&data.error),
            data.dedup_key
        ),
        D::NotificationRetried(data) => format!("{} has it told again · key {}", line(&data.by), data.dedup_key),
        D::MaintenanceScheduled(data) => {
            let (from, until) = (clock(data.from, at), clock(data.until, at));
            format!(
                "maintenance {} from {from} to {until}, by {}",
                line(&data.maintenance),
                said(&data.by, &data.reason)
            )
        }
        D::MaintenanceCancelled(data) => {
            let why = data.reason.as_deref().unwrap_or_default();
            format!("maintenance {} ended by {}", line(&data.maintenance), said(&data.by, why))
        }
        D::SilenceCreated(data) => {
            let (from, until) = (clock(data.from, at), clock(data.until, at));
            format!("silence {} from {from} to {until}, by {}", line(&data.silence), said(&data.by, &data.reason))
        }
        D::SilenceExpired(data) => {
            let why = data.reason.as_deref().unwrap_or_default();
            format!("silence {} ended by {}", line(&data.silence), said(&data.by, why))
        }
        D::RecoveryWithheld(data) => format!("recovery {} withheld: {}", data.attempt, withheld(data, at)),
        D::RecoveryTriggered(data) => {
            let by = data.by.as_deref().map(|by| format!(" by {}", line(by))).unwrap_or_default();
            let mode = match data.mode {
                TriggerMode::Approve => ", to be approved",
                _ => "",
            };
            let wait = data.not_before.map(|due| format!(", back-off over at {}", clock(due, at))).unwrap_or_default();
            format!("recovery {} triggered{by}: procedure {}{mode}{wait}", data.attempt, data.procedure)
        }
        D::RecoveryApproved(data) => {
            let step = data.step.as_ref().map(|step| format!(" step {step}")).unwrap_or_default();
            format!("{} approved{step}", line(&data.by))
        }
        D::RecoveryRejected(data) => format!("{} rejected it: {}", line(&data.by), line(&data.reason)),
        D::RecoveryCancelled(data) => format!("{} called it off: {}", line(&data.by), line(&data.reason)),
        D::RecoveryPaused(data) => {
            let until = data.until.map(|t| format!(" until {}", clock(t, at))).unwrap_or_default();
            format!("{} paused {}{until}: {}", line(&data.by), scope(event), line(&data.reason))
        }
        D::RecoveryResumed(data) => {
            format!("{} resumed {}: {}", line(&data.by), scope(event), line(&data.reason))
        }
        D::ProcedureDemoted(data) => format!(
            "procedure {} demoted, so people approve it from now on: {} of {} verified, and at least {} % of {} must be",
            data.procedure,
            data.succeeded,
            count(data.attempts as usize, "attempt"),
            percent(data.below),
            data.over
        ),
        D::ProcedurePromoted(data) => {
            format!("{} promoted procedure {}: {}", line(&data.by), data.procedure, line(&data.comment))
        }
        D::RecoveryStarted(data) => format!("recovery started by {}", line(&data.runner)),
        D::StepStarted(data) => format!("step {}{}: {}", data.step, attempt(data.attempt), line(&data.action)),
        D::StepFinished(data) => {
            let how = match data.outcome {
                StepOutcome::Skipped => "skipped".to_owned(),
                outcome => format!("{} in {}", outcome.as_str().replace('_', " "), millis(data.duration_ms)),
            };
            let error = data.error.as_deref().map(|error| format!(": {}", line(error))).unwrap_or_default();
            format!("step {}{} {how}{error}", data.step, attempt(data.attempt))
        }
        D::StepRequested(data) => {
            format!(
                "asked {} to do step {}, answer until {}",
                line(&data.worker),
                data.step,
                clock(data.answer_until, at)
            )
        }
        D::StepAnswered(data) => {
            let how = if data.succeeded { "did" } else { "could not do" };
            let error = data.error.as_deref().map(|error| format!(": {}", line(error))).unwrap_or_default();
            format!("{} {how} step {}{error}", line(&data.by), data.step)
        }
        D::RecoveryVerified(data) => {
            let passed = data.checks.iter().filter(|check| check.passed).count();
            match (data.passed, data.checks.len()) {
                (true, 0) => "verified".to_owned(),
                (true, n) => format!("verified: {passed} of {} passed", count(n, "check")),
                (false, n) => {
                    format!("not verified: {passed} of {} passed; {}", count(n, "check"), failed_checks(&data.checks))
                }
            }
        }
        D::RecoveryFinished(data) => {
            let why = data.reason.as_deref().map(|reason| format!(": {}", line(reason))).unwrap_or_default();
            format!("recovery {} {} after {}{why}", data.attempt, data.outcome, millis(data.duration_ms))
        }
        D::RecoveryEscalated(data) => {
            format!("handed to people after {}: {}", count(data.attempts as usize, "attempt"), line(&data.reason))
        }
        D::FailoverStarted(data) => format!("moving from {} to {}", data.from_site, data.to_site),
        D::FaultInjected(data) => format!("fault injected: {} {}", line(&data.fault), line(&data.target)),
        D::PlanAdopted(data) => format!("the plan {} is decided under", line(&data.name)),
        D::ImprovementOpened(data) => format!("improvement {}: {}", line(&data.improvement), line(&data.title)),
        _ => generic(event),
    }
}

/// What a pause covers, by the members of its payload.
fn scope(event: &Event) -> String {
    Scope::of(&event.data).unwrap_or_default().to_string()
}

fn generic(event: &Event) -> String {
    let word = |(name, value): (&String, &Value)| match value {
        Value::String(text) => Some(format!("{name} {}", line(text))),
        Value::Number(_) | Value::Bool(_) => Some(format!("{name} {value}")),
        _ => None,
    };
    let known = |name: &str| ["incident", "recovery", "alert"].contains(&name);
    let data = payload(event);
    let members = data.as_object().into_iter().flatten().filter(|(name, _)| !known(name)).filter_map(word);
    format!("{}: {}", event.kind().as_str(), members.collect::<Vec<_>>().join(", "))
}
